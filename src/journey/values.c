/*
 * values.c
 *		Values of a document: texts, numbers, times, and what columns take.
 */
#include "postgres.h"

#include "catalog/pg_attribute.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/table.h"
#include "journey/reading.h"
#include "rules/language.h"

/* no time in a document is longer */
#define MAX_YEARS 100

char *
crm_read_text(CrmReading *reading, const char *key, const JsonbValue *value, int most)
{
	if (value->type != jbvString)
	{
		crm_fault_at(reading, key, "is %s, not a string", crm_json_type(value));
		return NULL;
	}
	if (value->val.string.len == 0)
	{
		crm_fault_at(reading, key, "is empty");
		return NULL;
	}
	if (value->val.string.len > most)
	{
		crm_fault_at(reading, key, "has %d bytes, which is more than %d", value->val.string.len,
					 most);
		return NULL;
	}
	return pnstrdup(value->val.string.val, value->val.string.len);
}

bool
crm_read_bool(CrmReading *reading, const char *key, const JsonbValue *value, bool *result)
{
	if (value->type != jbvBool)
	{
		crm_fault_at(reading, key, "is %s, not true or false", crm_json_type(value));
		return false;
	}
	*result = value->val.boolean;
	return true;
}

Numeric
crm_read_number(CrmReading *reading, const char *key, const JsonbValue *value)
{
	if (value->type == jbvNumeric)
		return DatumGetNumericCopy(NumericGetDatum(value->val.numeric));
	crm_fault_at(reading, key, "is %s, not a number", crm_json_type(value));
	return NULL;
}

typedef struct Input
{
	const char *text;
	Oid function;
	Oid argument;
	int32 typmod;
	const pg_tz *zone;
	Datum result;
} Input;

/* The same text is the same value, whatever the settings of the session. */
static bool
input(void *arg)
{
	Input *of = arg;
	CrmRuleStyle outside;

	crm_rule_style_begin(&outside);
	if (of->zone != NULL)
		session_timezone = unconstify(pg_tz *, of->zone);
	PG_TRY();
	{
		of->result = OidInputFunctionCall(of->function, unconstify(char *, of->text), of->argument,
										  of->typmod);
	}
	PG_FINALLY();
	{
		crm_rule_style_end(&outside);
	}
	PG_END_TRY();
	return true;
}

/* The text as a value of the type; false, and why not. */
static bool
try_input(const char *text, Oid type, int32 typmod, const pg_tz *zone, Datum *result, char **why)
{
	Input of = { .text = text, .typmod = typmod, .zone = zone };
	ErrorData *error;

	getTypeInputInfo(type, &of.function, &of.argument);
	if (crm_attempt(input, &of, &error))
	{
		*result = of.result;
		return true;
	}
	if (!crm_rule_is_broken(error))
		ReThrowError(error);
	*why = pstrdup(error->message);
	FreeErrorData(error);
	return false;
}

Interval *
crm_read_interval(CrmReading *reading, const char *key, const JsonbValue *value, int least)
{
	char *text = crm_read_text(reading, key, value, CRM_MAX_KEY_BYTES);
	Datum result;
	Interval *interval;
	char *why;
	int64 days;

	if (text == NULL)
		return NULL;
	if (!try_input(text, INTERVALOID, -1, NULL, &result, &why))
	{
		crm_fault_at(reading, key, "%s", why);
		return NULL;
	}
	interval = DatumGetIntervalP(result);
	days = (int64) interval->day + interval->time / USECS_PER_DAY;
	if (interval->month > MAX_YEARS * MONTHS_PER_YEAR ||
		interval->month < -MAX_YEARS * MONTHS_PER_YEAR || days > MAX_YEARS * DAYS_PER_YEAR ||
		days < -MAX_YEARS * DAYS_PER_YEAR)
		crm_fault_at(reading, key, "\"%s\" is longer than %d years", crm_shown(text), MAX_YEARS);
	else if (least >= 0 && (interval->month < 0 || interval->day < 0 || interval->time < 0))
		crm_fault_at(reading, key, "\"%s\" is negative", crm_shown(text));
	else if (least > 0 && interval->month == 0 && interval->day == 0 && interval->time == 0)
		crm_fault_at(reading, key, "\"%s\" is not above 0", crm_shown(text));
	else
		return interval;
	return NULL;
}

/* A text that means another instant tomorrow is no instant. */
static bool
reads_the_clock(const char *text)
{
	static const char *const words[] = { "now", "today", "tomorrow", "yesterday", "infinity" };
	char *lower = asc_tolower(text, strlen(text));

	for (int i = 0; i < lengthof(words); i++)
		if (strstr(lower, words[i]) != NULL)
			return true;
	return false;
}

bool
crm_read_instant(CrmReading *reading, const char *key, const JsonbValue *value, TimestampTz *result)
{
	char *text = crm_read_text(reading, key, value, CRM_MAX_KEY_BYTES);
	Datum datum;
	char *why;

	if (text == NULL)
		return false;
	if (reads_the_clock(text))
		crm_fault_at(reading, key, "\"%s\" is no fixed time", crm_shown(text));
	else if (!try_input(text, TIMESTAMPTZOID, -1, reading->journey->zone, &datum, &why))
		crm_fault_at(reading, key, "%s", why);
	else if (TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(datum)))
		crm_fault_at(reading, key, "\"%s\" is no fixed time", crm_shown(text));
	else
	{
		*result = DatumGetTimestampTz(datum);
		return true;
	}
	return false;
}

int
crm_read_time_of_day(CrmReading *reading, const char *key, const JsonbValue *value)
{
	char *text = crm_read_text(reading, key, value, CRM_MAX_KEY_BYTES);

	if (text == NULL)
		return -1;
	if (strlen(text) == 5 && strspn(text, "0123456789:") == 5 && text[2] == ':' &&
		strchr(text + 3, ':') == NULL && text[0] != ':' && text[1] != ':')
	{
		int hour = (text[0] - '0') * 10 + text[1] - '0';
		int minute = (text[3] - '0') * 10 + text[4] - '0';

		if (hour < HOURS_PER_DAY && minute < MINS_PER_HOUR)
			return hour * MINS_PER_HOUR + minute;
	}
	crm_fault_at(reading, key, "\"%s\" is no time of day from 00:00 to 23:59", crm_shown(text));
	return -1;
}

CrmWeeklyHours *
crm_read_hours(CrmReading *reading, const char *key, const JsonbValue *value)
{
	char *text = crm_read_text(reading, key, value, CRM_MAX_DOCUMENT_BYTES);
	CrmWeeklyHours *hours;
	CrmHoursFault fault;

	if (text == NULL)
		return NULL;
	if (!crm_hours_read(text, palloc(CRM_MINUTES_OF_WEEK), &fault))
	{
		crm_fault_at(reading, key, fault.message, crm_shown(text));
		return NULL;
	}
	hours = (CrmWeeklyHours *) DatumGetPointer(
		DirectFunctionCall1(crm_weekly_hours_in, CStringGetDatum(text)));
	if (CRM_NSPANS(hours) > 0)
		return hours;
	crm_fault_at(reading, key, "\"%s\" is never open", crm_shown(text));
	return NULL;
}

Oid
crm_profile_date(const char *column)
{
	Oid view = crm_table_oid_if_any("profile");
	AttrNumber attno;
	Oid type;

	if (!OidIsValid(view))
		return InvalidOid;
	attno = get_attnum(view, column);
	if (attno <= 0)
		return InvalidOid;
	type = getBaseType(get_atttype(view, attno));
	return type == DATEOID || type == TIMESTAMPTZOID ? type : InvalidOid;
}

Oid
crm_contact_column(const char *column, int32 *typmod, bool *not_null)
{
	static const char *const kept[] = { "contact_id", "created_at", "mobile", "stage" };
	Oid type = InvalidOid;
	HeapTuple tuple;

	for (int i = 0; i < lengthof(kept); i++)
		if (strcmp(column, kept[i]) == 0)
			return InvalidOid;
	/* a longer one is no column, and the cache has no place for it */
	if (strlen(column) >= NAMEDATALEN)
		return InvalidOid;
	tuple = SearchSysCacheAttName(crm_table_oid("contact"), column);
	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	if (((Form_pg_attribute) GETSTRUCT(tuple))->attnum > 0 &&
		((Form_pg_attribute) GETSTRUCT(tuple))->attgenerated == '\0')
	{
		type = ((Form_pg_attribute) GETSTRUCT(tuple))->atttypid;
		*typmod = ((Form_pg_attribute) GETSTRUCT(tuple))->atttypmod;
		*not_null = ((Form_pg_attribute) GETSTRUCT(tuple))->attnotnull;
	}
	ReleaseSysCache(tuple);
	return type;
}

static char *
scalar_text(const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvString:
			return pnstrdup(value->val.string.val, value->val.string.len);
		case jbvNumeric:
			return numeric_normalize(value->val.numeric);
		case jbvBool:
			return pstrdup(value->val.boolean ? "true" : "false");
		default:
			return NULL;
	}
}

static char *
array_fault(const JsonbValue *value, Oid element, int32 typmod)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue part;

	if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
		return psprintf("is %s, not an array", crm_json_type(value));
	iterator = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &part, true)) != WJB_DONE)
	{
		char *fault;

		if (token != WJB_ELEM)
			continue;
		if (part.type == jbvNull)
			return pstrdup("holds a null");
		if ((fault = crm_value_fault(&part, element, typmod, true)) != NULL)
			return fault;
	}
	return NULL;
}

char *
crm_value_fault(const JsonbValue *value, Oid type, int32 typmod, bool not_null)
{
	Oid base = getBaseType(type);
	Oid element = get_element_type(base);
	Datum ignored;
	char *text;
	char *why;

	if (value->type == jbvNull)
		return not_null ? pstrdup("is null") : NULL;
	if (base == JSONBOID || base == JSONOID)
		return NULL;
	/* what stands in its places comes later */
	if (value->type == jbvString &&
		strstr(pnstrdup(value->val.string.val, value->val.string.len), "{{") != NULL)
		return NULL;
	if (OidIsValid(element))
		return array_fault(value, element, typmod);
	text = scalar_text(value);
	if (text == NULL)
		return psprintf("is %s, not a value of type %s", crm_json_type(value),
						format_type_be(type));
	return try_input(text, type, typmod, NULL, &ignored, &why) ? NULL : why;
}
