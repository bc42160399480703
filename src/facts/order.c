/*
 * order.c
 *		Orders and refunds. Both keep their reference in external_ref, which is
 *		unique for the contact; under its lock a repeat is found before it is
 *		inserted.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "facts/record.h"

PG_FUNCTION_INFO_V1(crm_sql_purchase);
PG_FUNCTION_INFO_V1(crm_sql_refund);

static CrmPlan find_store = { "SELECT FROM crm.store s WHERE s.store_id = $1", 1, { INT8OID } };
/* one row where the reference is taken; equal where by the same order */
static CrmPlan find_purchase = {
	"SELECT t.transaction_id, t.kind = 'purchase' AND t.amount = $3 AND t.refund_of IS NULL"
	" AND t.store_id IS NOT DISTINCT FROM $4 AND t.items IS NOT DISTINCT FROM $5"
	" AND ($6 IS NULL OR t.occurred_at = $6)"
	" FROM crm.transaction t WHERE t.contact_id = $1 AND t.external_ref = $2",
	6,
	{ INT8OID, TEXTOID, NUMERICOID, INT8OID, JSONBOID, TIMESTAMPTZOID }
};
static CrmPlan find_refund = {
	"SELECT t.transaction_id, t.kind = 'refund' AND t.amount = $3 AND t.refund_of = $4"
	" AND ($5 IS NULL OR t.occurred_at = $5)"
	" FROM crm.transaction t WHERE t.contact_id = $1 AND t.external_ref = $2",
	5,
	{ INT8OID, TEXTOID, NUMERICOID, INT8OID, TIMESTAMPTZOID }
};
static CrmPlan insert_purchase = {
	"INSERT INTO crm.transaction"
	" (contact_id, kind, external_ref, amount, store_id, items, occurred_at)"
	" VALUES ($1, 'purchase', $2, $3, $4, $5, $6) RETURNING transaction_id",
	6,
	{ INT8OID, TEXTOID, NUMERICOID, INT8OID, JSONBOID, TIMESTAMPTZOID }
};
static CrmPlan find_order = {
	"SELECT t.transaction_id, t.currency, t.amount - coalesce((SELECT sum(r.amount)"
	"  FROM crm.transaction r WHERE r.contact_id = t.contact_id AND r.kind = 'refund'"
	"  AND r.refund_of = t.transaction_id), 0)"
	" FROM crm.transaction t"
	" WHERE t.contact_id = $1 AND t.external_ref = $2 AND t.kind = 'purchase'",
	2,
	{ INT8OID, TEXTOID }
};
static CrmPlan insert_refund = {
	"INSERT INTO crm.transaction"
	" (contact_id, kind, external_ref, amount, refund_of, occurred_at, currency)"
	" VALUES ($1, 'refund', $2, $3, $4, $5, $6) RETURNING transaction_id",
	6,
	{ INT8OID, TEXTOID, NUMERICOID, INT8OID, TIMESTAMPTZOID, TEXTOID }
};

/* The transaction that has the reference; an error where it is another one. */
static int64
read_repeat(const char *what, const char *reference)
{
	bool isnull;

	if (!DatumGetBool(crm_result(0, 2, &isnull)))
		ereport(
			ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("%s \"%s\" was used for transaction %lld, which differs", what, reference,
					(long long) crm_result_int64(0, 1)),
			 errhint(
				 "Repeat a call with the same arguments; a new order or refund has a reference of its own.")));
	return crm_result_int64(0, 1);
}

static void
check_store(int64 store_id)
{
	Datum value = Int64GetDatum(store_id);

	if (crm_run(&find_store, &value, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("store %lld does not exist", (long long) store_id),
				 errhint("Insert it into crm.store first, or leave store_id out.")));
}

Datum
crm_sql_purchase(PG_FUNCTION_ARGS)
{
	bool at_given;
	TimestampTz at;
	char *reference;
	Datum amount;
	Datum values[6];
	char nulls[7] = "      ";
	int64 contact_id;
	int64 id;
	CrmActing acting;

	crm_require_argument("purchase", "contact_id", PG_ARGISNULL(0));
	crm_require_argument("purchase", "amount", PG_ARGISNULL(1));
	amount = PG_GETARG_DATUM(1);
	crm_check_amount(amount, false);
	at = crm_time_argument(fcinfo, 2, &at_given);
	reference = crm_text_argument(fcinfo, 3);
	if (reference != NULL)
		crm_check_key("external_ref", reference);
	if (!PG_ARGISNULL(5))
		crm_check_document("items", PG_GETARG_DATUM(5));

	crm_connect(&acting);
	contact_id = crm_contact_lock(PG_GETARG_INT64(0));
	values[0] = Int64GetDatum(contact_id);
	values[1] = reference == NULL ? (Datum) 0 : CStringGetTextDatum(reference);
	values[2] = amount;
	values[3] = PG_GETARG_DATUM(4);
	values[4] = PG_GETARG_DATUM(5);
	values[5] = TimestampTzGetDatum(at);
	nulls[1] = reference == NULL ? 'n' : ' ';
	nulls[3] = PG_ARGISNULL(4) ? 'n' : ' ';
	nulls[4] = PG_ARGISNULL(5) ? 'n' : ' ';
	nulls[5] = at_given ? ' ' : 'n';
	if (reference != NULL && crm_run(&find_purchase, values, nulls) > 0)
		id = read_repeat("external_ref", reference);
	else
	{
		if (!PG_ARGISNULL(4))
			check_store(PG_GETARG_INT64(4));
		nulls[5] = ' ';
		crm_run(&insert_purchase, values, nulls);
		id = crm_result_int64(0, 1);
	}
	crm_disconnect(&acting);
	PG_RETURN_INT64(id);
}

static void
check_left(Datum amount, Datum left, const char *reference)
{
	if (DatumGetInt32(DirectFunctionCall2(numeric_cmp, amount, left)) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("refund of %s is larger than the %s left of order \"%s\"",
						DatumGetCString(DirectFunctionCall1(numeric_out, amount)),
						DatumGetCString(DirectFunctionCall1(numeric_out, left)), reference),
				 errhint("All refunds of an order together are at most its amount.")));
}

Datum
crm_sql_refund(PG_FUNCTION_ARGS)
{
	bool at_given;
	bool isnull;
	TimestampTz at;
	char *reference;
	char *key;
	Datum amount;
	Datum currency;
	Datum left;
	Datum values[6];
	int64 contact_id;
	int64 order_id;
	int64 id;
	CrmActing acting;

	crm_require_argument("refund", "contact_id", PG_ARGISNULL(0));
	crm_require_argument("refund", "external_ref", PG_ARGISNULL(1));
	crm_require_argument("refund", "amount", PG_ARGISNULL(2));
	reference = crm_text_argument(fcinfo, 1);
	crm_check_key("external_ref", reference);
	amount = PG_GETARG_DATUM(2);
	crm_check_amount(amount, true);
	at = crm_time_argument(fcinfo, 3, &at_given);
	key = crm_text_argument(fcinfo, 4);
	crm_check_optional_key(key);

	crm_connect(&acting);
	contact_id = crm_contact_lock(PG_GETARG_INT64(0));
	values[0] = Int64GetDatum(contact_id);
	values[1] = CStringGetTextDatum(reference);
	if (crm_run(&find_order, values, NULL) == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
			 errmsg("contact %lld has no order \"%s\"", (long long) contact_id, reference),
			 errhint(
				 "Name the external_ref under which the order was recorded for this contact.")));
	order_id = crm_result_int64(0, 1);
	currency = crm_result(0, 2, &isnull);
	left = crm_result(0, 3, &isnull);

	values[1] = key == NULL ? (Datum) 0 : CStringGetTextDatum(key);
	values[2] = amount;
	values[3] = Int64GetDatum(order_id);
	values[4] = TimestampTzGetDatum(at);
	values[5] = currency;
	if (key != NULL && crm_run(&find_refund, values, at_given ? NULL : "    n") > 0)
		id = read_repeat("key", key);
	else
	{
		check_left(amount, left, reference);
		crm_run(&insert_refund, values, key == NULL ? " n    " : NULL);
		id = crm_result_int64(0, 1);
	}
	crm_disconnect(&acting);
	PG_RETURN_INT64(id);
}
