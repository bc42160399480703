/*
 * cohort.c
 *		crm.cohort() and crm.cohort_rows(): of those who began in the same day,
 *		week or month, how many came back in it and in each one after it. Both
 *		read the same statement.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "facts/facts.h"
#include "insight/fact_source.h"
#include "insight/period.h"
#include "insight/report.h"
#include "journey/reading.h"

PG_FUNCTION_INFO_V1(crm_sql_cohort);
PG_FUNCTION_INFO_V1(crm_sql_cohort_rows);

#define MAX_PERIODS 1000

/* A unit of the calendar; {d} and {e} stand for the first days of two of them. */
typedef struct Unit
{
	const char *name;
	const char *between; /* how many lie between, as text of format() for them */
} Unit;

static const Unit units[] = {
	{ "day", "(%2$s - %1$s)" },
	{ "week", "((%2$s - %1$s) / 7)" },
	{ "month",
	  "((extract(year FROM %2$s) - extract(year FROM %1$s)) * 12"
	  " + extract(month FROM %2$s) - extract(month FROM %1$s))::integer" },
};

/* The arguments that both functions begin with, by their places. */
enum
{
	START_KIND,
	RETURN_KIND,
	PERIOD_START,
	PERIOD_END,
	UNIT,
	PERIODS,
	START_RULE,
	RETURN_RULE,
	TIME_ZONE,
	RETENTION,
	AS_OF,
	COHORT_START, /* of cohort_rows() */
	UNIT_OFFSET
};

typedef struct Cohort
{
	const Unit *unit;
	bool rolling;
	CrmFactSource started;
	CrmFactSource returned;
	int periods;
	TimestampTz period_start;
	TimestampTz period_end;
	TimestampTz as_of;
	const char *zone;
	CrmReport report;

	/* what stands for them in the statement */
	const char *zone_value;
	const char *as_of_value;
	const char *periods_value;
} Cohort;

static const CrmRuleUser user = { "report", "cohort" };

static const Unit *
find_unit(const char *name)
{
	for (int i = 0; i < lengthof(units); i++)
		if (strcmp(units[i].name, name) == 0)
			return &units[i];
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("unit \"%s\" is not known", crm_shown(name)),
			 errhint("It is day, week (from Monday) or month.")));
	return NULL; /* keep the compiler quiet */
}

static bool
is_rolling(const char *retention)
{
	if (strcmp(retention, "rolling") == 0)
		return true;
	if (strcmp(retention, "classic") != 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("retention \"%s\" is not known", crm_shown(retention)),
			 errhint(
				 "It is classic, who came back in that unit, or rolling, who came back in it or in a later one.")));
	return false;
}

static void
read_arguments(Cohort *cohort, FunctionCallInfo fcinfo, const char *function)
{
	static const struct
	{
		int place;
		const char *name;
	} needed[] = {
		{ START_KIND, "start_kind" },
		{ RETURN_KIND, "return_kind" },
		{ PERIOD_START, "period_start" },
		{ PERIOD_END, "period_end" },
		{ UNIT, "unit" },
		{ PERIODS, "periods" },
		{ RETENTION, "retention" },
	};
	pg_tz *zone;

	memset(cohort, 0, sizeof(Cohort));
	for (int i = 0; i < lengthof(needed); i++)
		crm_require_value(fcinfo, needed[i].place, needed[i].name, function);
	cohort->period_start = PG_GETARG_TIMESTAMPTZ(PERIOD_START);
	cohort->period_end = PG_GETARG_TIMESTAMPTZ(PERIOD_END);
	crm_check_period(cohort->period_start, cohort->period_end);
	cohort->unit = find_unit(crm_text_argument(fcinfo, UNIT));
	cohort->periods = PG_GETARG_INT32(PERIODS);
	if (cohort->periods < 1 || cohort->periods > MAX_PERIODS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("periods must be between 1 and %d, not %d", MAX_PERIODS, cohort->periods),
				 errhint("Say how many units to look at, that of the cohort itself included.")));
	cohort->zone = crm_time_zone_argument(fcinfo, TIME_ZONE, &zone);
	cohort->rolling = is_rolling(crm_text_argument(fcinfo, RETENTION));
	cohort->as_of = crm_as_of_argument(fcinfo, AS_OF);
	cohort->started = (CrmFactSource){ .kind = crm_text_argument(fcinfo, START_KIND),
									   .rule = crm_text_argument(fcinfo, START_RULE),
									   .from = DT_NOBEGIN,
									   .until = cohort->as_of,
									   .user = &user };
	/* nobody comes back before the period in which they began */
	cohort->returned = (CrmFactSource){ .kind = crm_text_argument(fcinfo, RETURN_KIND),
										.rule = crm_text_argument(fcinfo, RETURN_RULE),
										.from = cohort->period_start,
										.until = cohort->as_of,
										.user = &user };
}

static char *
day_of(const Cohort *cohort, const char *at)
{
	return psprintf("date_trunc('%s', timezone(%s, %s))::date", cohort->unit->name,
					cohort->zone_value, at);
}

/* The moment at which the unit so many after that of the cohort begins. */
static char *
begin_of(const Cohort *cohort, const char *first_day, const char *offset)
{
	return psprintf("timezone(%s, %s + %s * '1 %s'::interval)", cohort->zone_value, first_day,
					offset, cohort->unit->name);
}

/*
 * member: who is in which cohort, by the first of all starting facts; came: in which
 * units they came back, each with the first fact of it, or, where retention is
 * rolling, of it and all later ones.
 */
static void
append_members(StringInfo sql, Cohort *cohort)
{
	const char *started = crm_fact_source(&cohort->started, "crm_report_started");
	const char *returned = crm_fact_source(&cohort->returned, "crm_report_returned");
	CrmReport *report = &cohort->report;

	cohort->zone_value = crm_report_text(report, cohort->zone);
	cohort->as_of_value = crm_report_time(report, cohort->as_of);
	cohort->periods_value = crm_report_value(report, INT4OID, Int32GetDatum(cohort->periods),
											 false);
	appendStringInfo(sql,
					 "WITH first AS (SELECT DISTINCT ON (f.contact_id) f.contact_id,"
					 " f.source_table, f.source_id, f.occurred_at FROM %s f"
					 " WHERE f.occurred_at <= %s"
					 " ORDER BY f.contact_id, f.occurred_at, f.source_id),"
					 " member AS MATERIALIZED (SELECT n.*, %s AS cohort_start FROM first n"
					 " WHERE n.occurred_at >= %s AND n.occurred_at < %s"
					 " AND EXISTS (SELECT FROM crm.contact c WHERE c.contact_id = n.contact_id)),",
					 started, cohort->as_of_value, day_of(cohort, "n.occurred_at"),
					 crm_report_time(report, cohort->period_start),
					 crm_report_time(report, cohort->period_end));
	appendStringInfo(sql,
					 " back AS (SELECT m.contact_id, m.cohort_start, f.source_id, f.occurred_at, ");
	appendStringInfo(sql, cohort->unit->between, "m.cohort_start", day_of(cohort, "f.occurred_at"));
	appendStringInfo(sql,
					 " AS unit_offset FROM member m JOIN %s f ON f.contact_id = m.contact_id"
					 " AND f.occurred_at >= m.occurred_at AND f.occurred_at <= %s"
					 " AND (f.source_id <> m.source_id OR f.source_table <> m.source_table)),"
					 " came AS MATERIALIZED (SELECT DISTINCT ON (b.contact_id, n.unit_offset)"
					 " b.contact_id, b.cohort_start, n.unit_offset, b.source_id, b.occurred_at"
					 " FROM back b CROSS JOIN LATERAL %s AS n(unit_offset)"
					 " WHERE n.unit_offset < %s"
					 " ORDER BY b.contact_id, n.unit_offset, b.occurred_at, b.source_id)",
					 returned, cohort->as_of_value,
					 cohort->rolling ? psprintf("generate_series(0, least(b.unit_offset, %s - 1))",
												cohort->periods_value)
									 : "(SELECT b.unit_offset)",
					 cohort->periods_value);
}

static void
begin(Cohort *cohort, FunctionCallInfo fcinfo, CrmActing *acting)
{
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	crm_connect(acting);
	if (cohort->started.rule != NULL || cohort->returned.rule != NULL)
		crm_report_require_rules("to count by a rule over facts");
}

/* A cell whose unit is not over is no loss: it has no share. One that has not begun is no cell. */
Datum
crm_sql_cohort(PG_FUNCTION_ARGS)
{
	Cohort cohort;
	StringInfoData sql;
	CrmActing acting;

	read_arguments(&cohort, fcinfo, "cohort");
	begin(&cohort, fcinfo, &acting);
	initStringInfo(&sql);
	append_members(&sql, &cohort);
	appendStringInfo(
		&sql,
		", cell AS (SELECT s.cohort_start, s.contacts, n.unit_offset, %s <= %s AS complete"
		" FROM (SELECT m.cohort_start, count(*) AS contacts FROM member m"
		" GROUP BY m.cohort_start) s"
		" CROSS JOIN generate_series(0, %s - 1) AS n(unit_offset)"
		" WHERE %s <= %s)"
		" SELECT c.cohort_start, c.contacts, c.unit_offset,"
		" coalesce(r.returned, 0) AS returned,"
		" CASE WHEN c.complete"
		" THEN round(coalesce(r.returned, 0)::numeric / c.contacts, 4) END,"
		" c.complete"
		" FROM cell c LEFT JOIN (SELECT b.cohort_start, b.unit_offset,"
		" count(*) AS returned FROM came b GROUP BY b.cohort_start, b.unit_offset) r"
		" ON r.cohort_start = c.cohort_start AND r.unit_offset = c.unit_offset"
		" ORDER BY c.cohort_start, c.unit_offset",
		begin_of(&cohort, "s.cohort_start", "(n.unit_offset + 1)"), cohort.as_of_value,
		cohort.periods_value, begin_of(&cohort, "s.cohort_start", "n.unit_offset"),
		cohort.as_of_value);
	crm_report_return(&cohort.report, sql.data, fcinfo);
	crm_disconnect(&acting);
	return (Datum) 0;
}

static void
check_offset(const Cohort *cohort, int offset)
{
	if (offset < 0 || offset >= cohort->periods)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unit_offset %d is not between 0 and %d", offset, cohort->periods - 1),
				 errhint("It is 0 for the unit of the cohort itself, and below periods.")));
}

/* Members, or those of them who came back in a unit. */
Datum
crm_sql_cohort_rows(PG_FUNCTION_ARGS)
{
	Cohort cohort;
	StringInfoData sql;
	CrmActing acting;

	read_arguments(&cohort, fcinfo, "cohort_rows");
	if (!PG_ARGISNULL(UNIT_OFFSET))
		check_offset(&cohort, PG_GETARG_INT32(UNIT_OFFSET));
	begin(&cohort, fcinfo, &acting);
	initStringInfo(&sql);
	append_members(&sql, &cohort);
	appendStringInfoString(&sql,
						   " SELECT m.cohort_start, m.contact_id, m.occurred_at AS started_at,"
						   " m.source_id AS start_id, b.unit_offset, b.occurred_at AS returned_at,"
						   " b.source_id AS return_id FROM member m ");
	if (PG_ARGISNULL(UNIT_OFFSET))
		appendStringInfoString(&sql, "LEFT JOIN came b ON false");
	else
		appendStringInfo(&sql, "JOIN came b ON b.contact_id = m.contact_id AND b.unit_offset = %s",
						 crm_report_value(&cohort.report, INT4OID,
										  Int32GetDatum(PG_GETARG_INT32(UNIT_OFFSET)), false));
	if (!PG_ARGISNULL(COHORT_START))
		appendStringInfo(&sql, " WHERE m.cohort_start = %s",
						 crm_report_value(&cohort.report, DATEOID,
										  DateADTGetDatum(PG_GETARG_DATEADT(COHORT_START)), false));
	appendStringInfoString(&sql, " ORDER BY m.cohort_start, m.contact_id");
	crm_report_return(&cohort.report, sql.data, fcinfo);
	crm_disconnect(&acting);
	return (Datum) 0;
}
