/*
 * identify_many.c
 *		The contacts of many identifiers at once, for loads: three statements,
 *		however many identifiers.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "base/db.h"
#include "facts/record.h"

PG_FUNCTION_INFO_V1(crm_sql_identify_many);

/* claimed in sorted order, so that two loads of the same people do not deadlock */
static CrmPlan claim_many = {
	"INSERT INTO crm.identity (kind, account_id, external_id, contact_id)"
	" SELECT $1, $2, d.external_id, nextval($4) FROM"
	" (SELECT DISTINCT e.external_id COLLATE \"C\" AS external_id FROM unnest($3) AS e(external_id)"
	"  WHERE NOT EXISTS (SELECT FROM crm.identity i WHERE i.kind = $1 AND i.account_id = $2"
	"   AND i.external_id = e.external_id)"
	"  ORDER BY 1) d"
	" ON CONFLICT (kind, account_id, external_id) DO NOTHING RETURNING contact_id, external_id",
	4,
	{ TEXTOID, INT8OID, TEXTARRAYOID, REGCLASSOID }
};
static CrmPlan insert_contacts = {
	"INSERT INTO crm.contact (contact_id, mobile)"
	" SELECT n.contact_id, CASE WHEN $3 THEN n.external_id::crm.mobile END"
	" FROM unnest($1, $2) AS n(contact_id, external_id)",
	3,
	{ INT8ARRAYOID, TEXTARRAYOID, BOOLOID }
};
static CrmPlan find_many = {
	"SELECT e.given, i.contact_id"
	" FROM unnest($3, $4) WITH ORDINALITY AS e(given, external_id, place)"
	" JOIN crm.identity i ON i.kind = $1 AND i.account_id = $2 AND i.external_id = e.external_id"
	" ORDER BY e.place",
	4,
	{ TEXTOID, INT8OID, TEXTARRAYOID, TEXTARRAYOID }
};
static CrmPlan find_sequence = {
	"SELECT pg_get_serial_sequence('crm.contact', 'contact_id')::regclass", 0
};

/* The identifiers in the form in which they are kept. */
static int
read_identifiers(const CrmAccount *account, ArrayType *given, CrmColumn *forms)
{
	Datum *values;
	bool *nulls;
	int n;

	deconstruct_array(given, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	crm_column_init(forms, TEXTOID);
	for (int i = 0; i < n; i++)
	{
		char *form;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("element %d of external_ids must not be NULL", i + 1),
					 errhint("Leave out rows without an identifier.")));
		form = crm_identity_form(account, TextDatumGetCString(values[i]));
		crm_column_add(forms, CStringGetTextDatum(form), false);
		pfree(form);
	}
	return n;
}

/*
 * Planned anew for each call: the arrays may hold one identifier or a million,
 * and a kept plan from the days of an empty table would look through all rows
 * for each of them.
 */
static uint64
run_once(CrmPlan *plan, Datum *values)
{
	int code = SPI_execute_with_args(plan->sql, plan->nargs, plan->argtypes, values, NULL, false,
									 0);

	if (code < 0)
		elog(ERROR, "SPI_execute_with_args failed: %s", SPI_result_code_string(code));
	return SPI_processed;
}

static void
create_many(const CrmAccount *account, Datum forms, Datum sequence)
{
	Datum values[4];
	CrmColumn ids;
	CrmColumn identifiers;
	uint64 n;
	bool isnull;

	values[0] = CStringGetTextDatum(account->kind);
	values[1] = Int64GetDatum(account->account_id);
	values[2] = forms;
	values[3] = sequence;
	n = run_once(&claim_many, values);
	if (n == 0)
		return;
	crm_column_init(&ids, INT8OID);
	crm_column_init(&identifiers, TEXTOID);
	for (uint64 row = 0; row < n; row++)
	{
		crm_column_add(&ids, crm_result(row, 1, &isnull), false);
		crm_column_add(&identifiers, crm_result(row, 2, &isnull), false);
	}
	values[0] = crm_column_array(&ids);
	values[1] = crm_column_array(&identifiers);
	values[2] = BoolGetDatum(strcmp(account->kind, "mobile") == 0);
	run_once(&insert_contacts, values);
}

Datum
crm_sql_identify_many(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	ArrayType *given;
	CrmAccount account;
	CrmActing acting;
	CrmColumn column;
	Datum forms;
	Datum sequence;
	Datum values[4];
	bool isnull;
	uint64 n;
	uint64 found;

	crm_require_argument("identify_many", "account", PG_ARGISNULL(0));
	crm_require_argument("identify_many", "external_ids", PG_ARGISNULL(1));
	InitMaterializedSRF(fcinfo, 0);
	given = PG_GETARG_ARRAYTYPE_P(1);

	crm_connect(&acting);
	account = crm_account_find(text_to_cstring(PG_GETARG_TEXT_PP(0)), true);
	n = read_identifiers(&account, given, &column);
	forms = crm_column_array(&column);
	crm_run(&find_sequence, NULL, NULL);
	sequence = crm_result(0, 1, &isnull);

	/* once, unless identifiers that were there are erased meanwhile */
	do
	{
		CHECK_FOR_INTERRUPTS();
		create_many(&account, forms, sequence);
		values[0] = CStringGetTextDatum(account.kind);
		values[1] = Int64GetDatum(account.account_id);
		values[2] = PointerGetDatum(given);
		values[3] = forms;
		found = run_once(&find_many, values);
	} while (found != n);

	for (uint64 row = 0; row < found; row++)
	{
		Datum columns[2];
		bool nulls[2];

		columns[0] = crm_result(row, 1, &nulls[0]);
		columns[1] = crm_result(row, 2, &nulls[1]);
		tuplestore_putvalues(result->setResult, result->setDesc, columns, nulls);
	}
	crm_disconnect(&acting);
	return (Datum) 0;
}
