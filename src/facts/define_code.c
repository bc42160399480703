/*
 * define_code.c
 *		Saving the definition of a QR code, and of a limit of scans.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "base/db.h"
#include "base/document.h"
#include "pg_crm.h"

PG_FUNCTION_INFO_V1(crm_define_qr_code);
PG_FUNCTION_INFO_V1(crm_define_scan_limit);

static CrmPlan find_account = { "SELECT account_id FROM crm.account WHERE name = $1",
								1,
								{ TEXTOID } };
static CrmPlan find_account_id = { "SELECT account_id FROM crm.account WHERE account_id = $1",
								   1,
								   { INT8OID } };
static CrmPlan find_store = { "SELECT store_id FROM crm.store WHERE store_id = $1",
							  1,
							  { INT8OID } };

static void
refuse_both(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("definition given to crm.define_qr_code() holds both account and account_id"),
			 errhint("Name the account by one of them.")));
}

/* "account": name becomes "account_id". */
static void
resolve_account(CrmDocument *document)
{
	JsonbValue *account = crm_document_value(document, "account");
	Datum value;
	char *name;

	if (account == NULL)
		return;
	if (crm_document_value(document, "account_id") != NULL)
		refuse_both();
	if (account->type != jbvString)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg(
				 "key \"account\" of the definition given to crm.define_qr_code() is not a string"),
			 errhint("Give the account's name, or its id as account_id.")));
	name = pnstrdup(account->val.string.val, account->val.string.len);
	value = CStringGetTextDatum(name);
	if (crm_run(&find_account, &value, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("account \"%s\" does not exist",
						pnstrdup(name, pg_mbcliplen(name, strlen(name), 63))),
				 errhint("Insert it into crm.account first.")));
	crm_document_set_int64(document, "account_id", crm_result_int64(0, 1));
	crm_document_remove(document, "account");
}

/* A number that names a row; other values are left to the check of types. */
static void
check_reference(CrmDocument *document, const char *key, CrmPlan *find, const char *table)
{
	JsonbValue *reference = crm_document_value(document, key);
	Datum value;

	if (reference == NULL || reference->type != jbvNumeric)
		return;
	(void) crm_document_literal(document, key, "qr_code", key);
	value = DirectFunctionCall1(numeric_int8, NumericGetDatum(reference->val.numeric));
	if (crm_run(find, &value, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("%s %lld does not exist", table, (long long) DatumGetInt64(value)),
				 errhint("Insert it into crm.%s first.", table)));
}

static CrmPlan find_other_window = {
	"SELECT o.scene, o.dedup_window::text, q.dedup_window::text FROM crm.qr_code q"
	" JOIN crm.qr_code o ON o.qr_code_id <> q.qr_code_id AND o.dedup_scope = q.dedup_scope"
	"  AND CASE q.dedup_scope WHEN 'campaign' THEN o.campaign = q.campaign"
	"   WHEN 'store' THEN o.store_id = q.store_id ELSE false END"
	"  AND o.dedup_window::text IS DISTINCT FROM q.dedup_window::text"
	" WHERE q.account_id = $1 AND q.scene = $2 ORDER BY o.qr_code_id LIMIT 1",
	2,
	{ INT8OID, TEXTOID }
};

static const char *
window_text(int column)
{
	char *window = crm_result_text(0, column);

	return window == NULL ? "for ever" : window;
}

/* Codes of one campaign or store each have windows of their own; seldom is that meant. */
static void
warn_of_other_windows(CrmDocument *document)
{
	JsonbValue *scene = crm_document_value(document, "scene");
	JsonbValue *account_id = crm_document_value(document, "account_id");
	Datum values[2];

	values[0] = DirectFunctionCall1(numeric_int8, NumericGetDatum(account_id->val.numeric));
	values[1] = PointerGetDatum(
		cstring_to_text_with_len(scene->val.string.val, scene->val.string.len));
	if (crm_run(&find_other_window, values, NULL) > 0)
		ereport(WARNING,
				(errmsg("the code of scene \"%s\" counts in other windows (%s) than this one (%s)",
						crm_result_text(0, 1), window_text(2), window_text(3)),
				 errhint("Give codes of one campaign or store the same dedup_window.")));
}

Datum
crm_define_scan_limit(PG_FUNCTION_ARGS)
{
	static const char *const required[] = { "name", "max_scans", "period" };

	PG_RETURN_INT32(crm_document_define(fcinfo, "define_scan_limit", "scan_limit", required,
										lengthof(required)));
}

Datum
crm_define_qr_code(PG_FUNCTION_ARGS)
{
	static const char *const keys[] = { "account_id", "scene" };
	static const char *const others[] = { "account" };
	CrmDocument *document = crm_document_open(fcinfo, "define_qr_code");
	CrmActing acting;
	int version;

	crm_document_check_keys(document, "qr_code", others, lengthof(others));
	crm_document_require(document, keys + 1, 1);
	if (crm_document_value(document, "account_id") == NULL)
		crm_document_require(document, others, 1);
	crm_connect(&acting);
	resolve_account(document);
	check_reference(document, "account_id", &find_account_id, "account");
	check_reference(document, "store_id", &find_store, "store");
	version = crm_document_save(document, "qr_code", keys, lengthof(keys));
	warn_of_other_windows(document);
	crm_disconnect(&acting);
	PG_RETURN_INT32(version);
}
