/*
 * check.c
 *		What comes from outside is looked at before anything is written.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "facts/facts.h"
#include "pg_crm.h"

/* An identifier as it may be shown: the last four characters. */
char *
crm_mask(const char *value)
{
	int length = pg_mbstrlen(value);
	int skip = pg_mbcharcliplen(value, strlen(value), Max(length - 4, 0));

	return length <= 4 ? pstrdup("****") : psprintf("****%s", value + skip);
}

static char *
shorten(const char *value)
{
	int bytes = pg_mbcliplen(value, strlen(value), 40);

	return bytes == (int) strlen(value) ? pstrdup(value) : psprintf("%.*s...", bytes, value);
}

void
crm_check_key(const char *what, const char *value)
{
	if (strlen(value) > CRM_MAX_KEY_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("%s of %zu bytes is longer than %d: \"%s\"", what, strlen(value),
						CRM_MAX_KEY_BYTES, crm_mask(value)),
				 errhint("Keys and identifiers are short; hash what is longer.")));
	if (*value == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION), errmsg("%s must not be empty: \"\"", what),
				 errhint("Give a value, or NULL where there is none.")));
}

void
crm_check_kind(const char *value)
{
	if (strlen(value) > CRM_MAX_KIND_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("kind of %zu bytes is longer than %d: \"%s\"", strlen(value),
						CRM_MAX_KIND_BYTES, shorten(value)),
				 errhint("A kind names a class of facts; put details into the properties.")));
	if (*value == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION), errmsg("kind must not be empty: \"\""),
				 errhint("Name what happened, for example cart or form.")));
}

void
crm_check_amount(Datum amount, bool above_zero)
{
	Numeric number = DatumGetNumeric(amount);
	char *text;
	bool bad = numeric_is_nan(number) || numeric_is_inf(number);

	if (!bad)
	{
		Numeric zero = int64_to_numeric(0);
		int order = DatumGetInt32(
			DirectFunctionCall2(numeric_cmp, NumericGetDatum(number), NumericGetDatum(zero)));

		bad = above_zero ? order <= 0 : order < 0;
		pfree(zero);
	}
	/* a statement may have a million of them */
	if ((Pointer) number != DatumGetPointer(amount))
		pfree(number);
	if (!bad)
		return;
	text = shorten(DatumGetCString(DirectFunctionCall1(numeric_out, amount)));
	ereport(
		ERROR,
		(errcode(ERRCODE_CHECK_VIOLATION),
		 above_zero ? errmsg("amount of a refund must be above 0, not %s", text)
					: errmsg("amount must be a number of 0 or more, not %s", text),
		 errhint(
			 "Give money back with crm.refund(), which takes the amount as a positive number.")));
}

void
crm_check_document(const char *what, Datum value)
{
	Size bytes = toast_raw_datum_size(value);

	if (bytes > CRM_MAX_DOCUMENT_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%s of %zu bytes are larger than %d", what, bytes, CRM_MAX_DOCUMENT_BYTES),
				 errhint("Keep large documents outside and record where they are.")));
}

void
crm_check_object(const char *what, Datum value)
{
	Jsonb *document = DatumGetJsonbP(value);
	bool is_object = JB_ROOT_IS_OBJECT(document);

	if ((Pointer) document != DatumGetPointer(value))
		pfree(document);
	if (!is_object)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a jsonb object, not of type %s", what,
						TextDatumGetCString(DirectFunctionCall1(jsonb_typeof, value))),
				 errhint("Give names to the values, for example {\"sku\": \"A1\"}.")));
}

char *
crm_text_member(Datum object, const char *key)
{
	Jsonb *document = DatumGetJsonbP(object);
	JsonbValue *value = getKeyJsonValueFromContainer(&document->root, key, strlen(key), NULL);

	if (value != NULL && value->type == jbvString)
		return pnstrdup(value->val.string.val, value->val.string.len);
	if (value != NULL && value->type == jbvNumeric)
		return DatumGetCString(
			DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
	return NULL;
}

void
crm_require_argument(const char *function, const char *argument, bool is_null)
{
	if (is_null)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument %s of crm.%s() must not be NULL", argument, function),
				 errhint("Give a value for %s.", argument)));
}

/* A time given, or now; checked either way. */
TimestampTz
crm_time_argument(FunctionCallInfo fcinfo, int argument, bool *given)
{
	TimestampTz at;

	*given = !PG_ARGISNULL(argument);
	if (!*given)
		return crm_now();
	at = PG_GETARG_TIMESTAMPTZ(argument);
	crm_check_time("at", at);
	return at;
}

char *
crm_text_argument(FunctionCallInfo fcinfo, int argument)
{
	return PG_ARGISNULL(argument) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(argument));
}

void
crm_row_missing(const char *what, int64 id)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED), errmsg("%s %lld is missing", what, (long long) id),
			 errhint(
				 "Somebody changed the tables by hand; crm.verify() lists what does not fit.")));
	pg_unreachable();
}
