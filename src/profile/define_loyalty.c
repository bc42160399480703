/*
 * define_loyalty.c
 *		Saving earning rules, and what makes coupons, earning rules and tiers
 *		impossible.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/document.h"
#include "base/table.h"
#include "pg_crm.h"
#include "profile/definition.h"
#include "profile/loyalty.h"
#include "profile/recompute.h"
#include "base/row.h"

#define MAX_NAME_BYTES  63
#define MAX_CODE_PREFIX 16
#define MIN_CODE_LENGTH 8
#define MAX_CODE_LENGTH 40

PG_FUNCTION_INFO_V1(crm_define_earning_rule);

Datum
crm_define_earning_rule(PG_FUNCTION_ARGS)
{
	static const char *const required[] = { "name", "program" };

	PG_RETURN_INT32(crm_document_define(fcinfo, "define_earning_rule", "earning_rule", required,
										lengthof(required)));
}

static void
check_number(const CrmRow *row, const char *column, bool zero_allowed)
{
	bool isnull;
	Datum value = crm_row_value(row, column, &isnull);
	Datum zero = NumericGetDatum(int64_to_numeric(0));
	Datum most = NumericGetDatum(int64_to_numeric(CRM_MAX_POINTS));

	if (isnull)
		return;
	if (numeric_is_nan(DatumGetNumeric(value)) || numeric_is_inf(DatumGetNumeric(value)) ||
		DatumGetBool(DirectFunctionCall2(zero_allowed ? numeric_lt : numeric_le, value, zero)) ||
		DatumGetBool(DirectFunctionCall2(numeric_gt, value, most)))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("%s must be a number %s, not %s", column,
						zero_allowed ? "of 0 or more" : "above 0",
						pnstrdup(DatumGetCString(DirectFunctionCall1(numeric_out, value)), 40)),
				 errhint("Give a number of at most %lld.", (long long) CRM_MAX_POINTS)));
}

/* An interval above zero: years, months, days and hours may not point both ways. */
static void
check_interval(const CrmRow *row, const char *column)
{
	bool isnull;
	Datum value = crm_row_value(row, column, &isnull);
	Interval *interval;

	if (isnull)
		return;
	interval = DatumGetIntervalP(value);
	if (interval->month < 0 || interval->day < 0 || interval->time < 0 ||
		(interval->month == 0 && interval->day == 0 && interval->time == 0) ||
		interval->month > 12 * 1000 || interval->day > 366 * 1000 ||
		interval->time > USECS_PER_DAY * 366 * 1000)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("%s must be above 0 and at most 1000 years, not %s", column,
						DatumGetCString(DirectFunctionCall1(interval_out, value))),
				 errhint("Give for example \"1 year\" or \"30 days\".")));
}

static void
check_validity(const CrmRow *row)
{
	bool no_start;
	bool no_end;
	TimestampTz start = DatumGetTimestampTz(crm_row_value(row, "valid_from", &no_start));
	TimestampTz end = DatumGetTimestampTz(crm_row_value(row, "valid_until", &no_end));

	if (!no_start && !no_end && start >= end)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("valid_from %s is not before valid_until %s",
						pstrdup(timestamptz_to_str(start)), pstrdup(timestamptz_to_str(end))),
				 errhint("It is valid from valid_from until just before valid_until.")));
}

static void
check_earning_rule(const CrmRow *row)
{
	char *on_kind = crm_row_text(row, "on_kind");
	char *rule = crm_row_text(row, "rule");
	bool no_amount;

	crm_check_length("name of an earning rule", crm_row_text(row, "name"), MAX_NAME_BYTES);
	crm_check_length("on_kind", crm_row_text(row, "on_kind"), CRM_MAX_KIND_BYTES);
	check_number(row, "points", false);
	check_number(row, "per_amount", false);
	check_validity(row);
	(void) crm_row_value(row, "per_amount", &no_amount);
	if (!no_amount && on_kind != NULL && strcmp(on_kind, "purchase") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("per_amount does not go with on_kind \"%s\"", on_kind),
				 errhint("Only purchases have an amount; leave per_amount out.")));
	if (on_kind != NULL && strcmp(on_kind, "refund") == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_CHECK_VIOLATION), errmsg("a refund earns no points"),
			 errhint(
				 "Refunds take back points of their orders by themselves; use on_kind purchase.")));
	if (rule != NULL)
		crm_earning_rule_check(rule, on_kind);
}

static void
check_tier(const CrmRow *row)
{
	crm_check_length("name of a tier", crm_row_text(row, "tier"), MAX_NAME_BYTES);
	check_number(row, "threshold", true);
	check_interval(row, "period");
}

static void
check_stores(const CrmRow *row)
{
	bool isnull;
	Datum array = crm_row_value(row, "stores", &isnull);

	if (isnull)
		return;
	if (ARR_NDIM(DatumGetArrayTypeP(array)) != 1 || array_contains_nulls(DatumGetArrayTypeP(array)))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("stores must be a list of ids of shops without NULL"),
				 errhint("Give for example [1, 2], or null for all shops.")));
}

static void
check_coupon(const CrmRow *row)
{
	char *prefix = crm_row_text(row, "code_prefix");
	bool isnull;
	int length = DatumGetInt32(crm_row_value(row, "code_length", &isnull));
	int64 most;

	crm_check_length("name of a coupon", crm_row_text(row, "name"), MAX_NAME_BYTES);
	crm_check_length("code_prefix", crm_row_text(row, "code_prefix"), MAX_CODE_PREFIX);
	if (prefix != NULL && strspn(prefix, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != strlen(prefix))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("code_prefix \"%s\" holds something else than capitals and digits", prefix),
				 errhint("Codes are typed in by people: use A to Z and 0 to 9.")));
	if (!isnull && (length < MIN_CODE_LENGTH || length > MAX_CODE_LENGTH))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("code_length must be from %d to %d, not %d", MIN_CODE_LENGTH,
						MAX_CODE_LENGTH, length),
				 errhint("A shorter code could be guessed.")));
	most = DatumGetInt64(crm_row_value(row, "max_grants", &isnull));
	if (!isnull && most < 1)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("max_grants must be above 0, not %lld", (long long) most),
				 errhint("Leave it out for any number; end a coupon with valid_until.")));
	check_interval(row, "valid_for");
	check_validity(row);
	check_stores(row);
}

static const struct
{
	const char *table;
	void (*check)(const CrmRow *row);
} definitions[] = {
	{ "coupon", check_coupon },
	{ "earning_rule", check_earning_rule },
	{ "tier", check_tier },
};

bool
crm_is_loyalty_definition(Oid relid)
{
	for (int i = 0; i < lengthof(definitions); i++)
		if (crm_table_oid_if_any(definitions[i].table) == relid)
			return true;
	return false;
}

void
crm_check_loyalty_definition(Oid relid, TupleDesc descriptor, HeapTuple tuple)
{
	CrmRow row = { descriptor, tuple };

	for (int i = 0; i < lengthof(definitions); i++)
		if (crm_table_oid_if_any(definitions[i].table) == relid)
			definitions[i].check(&row);
}

/* Who has points or may earn some. */
static CrmPlan next_contacts = {
	"SELECT DISTINCT m.contact_id FROM ("
	" (SELECT contact_id FROM crm.membership WHERE contact_id > $1 ORDER BY contact_id LIMIT $2)"
	" UNION ALL (SELECT contact_id FROM crm.point_balance WHERE contact_id > $1"
	"  ORDER BY contact_id LIMIT $2)) m ORDER BY m.contact_id LIMIT $2",
	2,
	{ INT8OID, INT4OID }
};

static void
earn_anew(const int64 *contacts, int ncontacts)
{
	crm_loyalty_recompute(contacts, ncontacts, crm_now(), "definition");
}

void
crm_loyalty_recompute_all(void)
{
	crm_for_all_contacts(&next_contacts, earn_anew);
}
