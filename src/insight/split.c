/*
 * split.c
 *		crm.split_results() and crm.split_rows(): what became of the people in
 *		the arms of a split of a journey, or of those who entered it and those who
 *		were held out. Both read the same statement.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "facts/facts.h"
#include "insight/fact_source.h"
#include "insight/interval.h"
#include "insight/journey_graph.h"
#include "insight/period.h"
#include "insight/report.h"
#include "journey/reading.h"

PG_FUNCTION_INFO_V1(crm_sql_split_results);
PG_FUNCTION_INFO_V1(crm_sql_split_rows);

/* The arguments that both functions begin with, by their places. */
enum
{
	JOURNEY,
	STEP,
	PERIOD_START,
	PERIOD_END,
	CONVERSION,
	RULE,
	WITHIN,
	AS_OF,
	BASELINE, /* of split_results() */
	CONFIDENCE
};

typedef struct Split
{
	const char *journey;
	const char *step;    /* NULL: entered or held out */
	CrmFactSource facts; /* what converts; kind NULL: the goal */
	TimestampTz period_start;
	TimestampTz period_end;
	TimestampTz as_of;
	CrmReport report;
	const char *journey_value;
	const char *step_value;
	const char *within_value; /* NULL: without end */
	const char *as_of_value;
} Split;

static const CrmRuleUser user = { "report", "split_results" };

static void
read_arguments(Split *split, FunctionCallInfo fcinfo, const char *function)
{
	memset(split, 0, sizeof(Split));
	crm_require_value(fcinfo, JOURNEY, "journey", function);
	crm_require_value(fcinfo, PERIOD_START, "period_start", function);
	crm_require_value(fcinfo, PERIOD_END, "period_end", function);
	split->journey = crm_text_argument(fcinfo, JOURNEY);
	split->step = crm_text_argument(fcinfo, STEP);
	split->period_start = PG_GETARG_TIMESTAMPTZ(PERIOD_START);
	split->period_end = PG_GETARG_TIMESTAMPTZ(PERIOD_END);
	crm_check_period(split->period_start, split->period_end);
	split->as_of = crm_as_of_argument(fcinfo, AS_OF);
	split->facts = (CrmFactSource){ .kind = crm_text_argument(fcinfo, CONVERSION),
									.rule = crm_text_argument(fcinfo, RULE),
									.from = split->period_start,
									.until = split->as_of,
									.user = &user };
	if (!PG_ARGISNULL(WITHIN))
		crm_check_duration("within", PG_GETARG_INTERVAL_P(WITHIN));
	if (split->facts.kind == NULL && split->facts.rule != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a rule is given, but no kind of fact that it is about"),
				 errhint("Name the kind as conversion, for example purchase.")));
	if (split->facts.kind == NULL && split->step == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("who was held out of journey \"%s\" has no goal in it", split->journey),
				 errhint("Name the kind of fact that is a conversion, for example purchase.")));
}

/* A misspelt step would count nobody, and so would a journey without a goal. */
static void
check_journey(const Split *split)
{
	static CrmPlan find_step = {
		"SELECT EXISTS (SELECT FROM crm.journey_outline o"
		"  WHERE o.journey = $1 AND o.step = $2 AND o.kind = 'split')"
		" OR EXISTS (SELECT FROM crm.step_visit v"
		"  WHERE v.journey = $1 AND v.step = $2 AND v.arm IS NOT NULL)",
		2,
		{ TEXTOID, TEXTOID },
	};
	static CrmPlan find_goal = {
		"SELECT EXISTS (SELECT FROM crm.journey_version v"
		"  WHERE v.journey = $1 AND v.definition ? 'goal')",
		1,
		{ TEXTOID },
	};
	Datum values[2] = { CStringGetTextDatum(split->journey) };

	(void) crm_graph_read(split->journey, CRM_GRAPH_CURRENT, false, CurrentMemoryContext);
	if (split->facts.kind == NULL)
	{
		crm_read(&find_goal, values, NULL);
		if (!crm_result_true(0, 1))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("journey \"%s\" has no goal", split->journey),
					 errhint("Name the kind of fact that is a conversion, for example purchase.")));
	}
	if (split->step == NULL)
		return;
	values[1] = CStringGetTextDatum(split->step);
	crm_read(&find_step, values, NULL);
	if (!crm_result_true(0, 1))
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("journey \"%s\" has no split \"%s\"", split->journey,
						crm_shown(split->step)),
				 errhint("Its splits are the rows of crm.journey_step of that kind.")));
}

/* Each contact once, in the arm that it was in first; a refusal says who was held out. */
static void
append_people(StringInfo sql, Split *split)
{
	CrmReport *report = &split->report;
	const char *from = crm_report_time(report, split->period_start);
	const char *until = crm_report_time(report, split->period_end);

	appendStringInfoString(sql, "SELECT DISTINCT ON (n.contact_id) n.* FROM ");
	if (split->step != NULL)
		appendStringInfo(sql,
						 "(SELECT v.contact_id, v.enrolment_id, v.arm, v.entered_at"
						 " FROM crm.step_visit v WHERE v.journey = %s AND v.step = %s"
						 " AND v.arm IS NOT NULL) n",
						 split->journey_value, split->step_value);
	else
		appendStringInfo(
			sql,
			"(SELECT e.contact_id, e.enrolment_id, 'entered'::text AS arm, e.entered_at"
			" FROM crm.enrolment e WHERE e.journey = %1$s"
			" UNION ALL SELECT r.contact_id, NULL, 'hold_out', r.first_at"
			" FROM crm.refusal r WHERE r.kind = 'journey' AND r.object = %1$s"
			" AND r.reason = 'hold_out') n",
			split->journey_value);
	appendStringInfo(sql,
					 " WHERE n.entered_at >= %s AND n.entered_at < %s AND n.entered_at <= %s"
					 " AND EXISTS (SELECT FROM crm.contact c WHERE c.contact_id = n.contact_id)"
					 " ORDER BY n.contact_id, n.entered_at, n.enrolment_id",
					 from, until, split->as_of_value);
}

/* The goal of the enrolment, or the first fact that converts, in time. */
static void
append_conversions(StringInfo sql, Split *split)
{
	const char *in_time = split->within_value == NULL
		? ""
		: psprintf(" AND x.at <= p.entered_at + %s", split->within_value);

	if (split->facts.kind == NULL)
		appendStringInfo(sql,
						 "SELECT p.contact_id, x.at, NULL::bigint AS source_id FROM person p"
						 " JOIN (SELECT e.contact_id, e.enrolment_id, e.ended_at AS at"
						 " FROM crm.enrolment e WHERE e.journey = %s AND e.state = 'exited'"
						 " AND e.end_reason = 'goal') x"
						 " ON x.contact_id = p.contact_id AND x.enrolment_id = p.enrolment_id"
						 " AND x.at <= %s%s",
						 split->journey_value, split->as_of_value, in_time);
	else
		appendStringInfo(
			sql,
			"SELECT DISTINCT ON (p.contact_id) p.contact_id, x.at, x.source_id"
			" FROM person p JOIN (SELECT f.contact_id, f.occurred_at AS at, f.source_id"
			" FROM %s f) x ON x.contact_id = p.contact_id"
			" AND x.at >= p.entered_at AND x.at <= %s%s"
			" ORDER BY p.contact_id, x.at, x.source_id",
			crm_fact_source(&split->facts, "crm_report_converting"), split->as_of_value, in_time);
}

/*
 * outcome: each contact with its conversion. One whose time for it is not over says
 * nothing yet, whether it has converted or not: who converts early would weigh more.
 */
static void
append_outcomes(StringInfo sql, Split *split, FunctionCallInfo fcinfo)
{
	CrmReport *report = &split->report;

	split->journey_value = crm_report_text(report, split->journey);
	if (split->step != NULL)
		split->step_value = crm_report_text(report, split->step);
	split->as_of_value = crm_report_time(report, split->as_of);
	if (!PG_ARGISNULL(WITHIN))
		split->within_value = crm_report_value(report, INTERVALOID,
											   IntervalPGetDatum(PG_GETARG_INTERVAL_P(WITHIN)),
											   false);
	appendStringInfoString(sql, "WITH person AS MATERIALIZED (");
	append_people(sql, split);
	appendStringInfoString(sql, "), conversion AS (");
	append_conversions(sql, split);
	appendStringInfo(sql,
					 "), outcome AS (SELECT p.arm, p.contact_id, p.enrolment_id, p.entered_at,"
					 " %s AS still_open, x.at AS converted_at, x.source_id"
					 " FROM person p LEFT JOIN conversion x ON x.contact_id = p.contact_id)",
					 split->within_value == NULL
						 ? "false"
						 : psprintf("p.entered_at + %s > %s", split->within_value,
									split->as_of_value));
}

static void
begin(Split *split, FunctionCallInfo fcinfo, CrmActing *acting)
{
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	crm_connect(acting);
	if (split->facts.rule != NULL)
		crm_report_require_rules("to count by a rule over facts");
	check_journey(split);
}

/* The arms that the definitions name, and those that people were in. */
static void
append_arms(StringInfo sql, const Split *split)
{
	if (split->step == NULL)
		appendStringInfoString(sql, "(VALUES ('entered'), ('hold_out')) AS a(arm)");
	else
		appendStringInfo(sql,
						 "(SELECT g.outcome AS arm FROM crm.journey_outline g"
						 " WHERE g.journey = %s AND g.step = %s AND g.kind = 'split'"
						 " AND g.outcome IS NOT NULL UNION SELECT t.arm FROM outcome t) a",
						 split->journey_value, split->step_value);
}

/* The baseline must be an arm; found by the same statement that counts. */
static void
check_baseline(const Split *split, const char *baseline, const char *with)
{
	const CrmReport *report = &split->report;
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "%s SELECT a.arm, string_agg(a.arm, ', ') OVER () FROM ", with);
	append_arms(&sql, split);
	crm_report_run(sql.data, report->n, report->types, report->values, report->nulls, NULL);
	for (uint64 row = 0; row < SPI_processed; row++)
		if (strcmp(crm_result_text(row, 1), baseline) == 0)
			return;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("there is no arm \"%s\" to compare with", crm_shown(baseline)),
			 errhint("Arms are %s.", SPI_processed > 0 ? crm_result_text(0, 2) : "none")));
}

/*
 * Intervals after Wilson; that of a difference from both of them after Newcombe
 * (1998, method 10).
 */
Datum
crm_sql_split_results(PG_FUNCTION_ARGS)
{
	Split split;
	StringInfoData sql;
	char *baseline;
	const char *baseline_value;
	const char *confidence_value;
	CrmActing acting;

	read_arguments(&split, fcinfo, "split_results");
	crm_require_value(fcinfo, CONFIDENCE, "confidence", "split_results");
	crm_check_confidence(PG_GETARG_FLOAT8(CONFIDENCE));
	begin(&split, fcinfo, &acting);
	initStringInfo(&sql);
	append_outcomes(&sql, &split, fcinfo);
	baseline = crm_text_argument(fcinfo, BASELINE);
	if (baseline != NULL)
		check_baseline(&split, baseline, sql.data);
	else if (split.step == NULL)
		baseline = "hold_out";
	baseline_value = crm_report_text(&split.report, baseline);
	confidence_value = crm_report_value(&split.report, FLOAT8OID, PG_GETARG_DATUM(CONFIDENCE),
										false);
	appendStringInfoString(&sql,
						   ", counted AS (SELECT a.arm, count(o.contact_id) AS contacts,"
						   " count(*) FILTER (WHERE o.still_open) AS still_open,"
						   " count(*) FILTER (WHERE NOT o.still_open) AS done,"
						   " count(o.converted_at) FILTER (WHERE NOT o.still_open) AS conversions"
						   " FROM ");
	append_arms(&sql, &split);
	appendStringInfo(
		&sql,
		" LEFT JOIN outcome o ON o.arm = a.arm GROUP BY a.arm),"
		" rated AS (SELECT c.*, c.conversions::float8 / nullif(c.done, 0) AS rate,"
		" i.low, i.high,"
		" c.arm = coalesce(%s, min(c.arm COLLATE \"C\") OVER ()) AS is_baseline"
		" FROM counted c CROSS JOIN LATERAL"
		" crm.wilson_interval(c.conversions, c.done, %s) AS i)"
		" SELECT r.arm, r.contacts, r.still_open, r.conversions, r.rate, r.low, r.high,"
		" d.difference,"
		" d.difference - sqrt((r.rate - r.low) ^ 2 + (b.high - b.rate) ^ 2),"
		" d.difference + sqrt((r.high - r.rate) ^ 2 + (b.rate - b.low) ^ 2)"
		" FROM rated r JOIN rated b ON b.is_baseline"
		" CROSS JOIN LATERAL (SELECT CASE WHEN NOT r.is_baseline"
		" THEN r.rate - b.rate END) AS d(difference)"
		" ORDER BY r.is_baseline DESC, r.arm COLLATE \"C\"",
		baseline_value, confidence_value);
	crm_report_return(&split.report, sql.data, fcinfo);
	crm_disconnect(&acting);
	return (Datum) 0;
}

Datum
crm_sql_split_rows(PG_FUNCTION_ARGS)
{
	Split split;
	StringInfoData sql;
	CrmActing acting;

	read_arguments(&split, fcinfo, "split_rows");
	begin(&split, fcinfo, &acting);
	initStringInfo(&sql);
	append_outcomes(&sql, &split, fcinfo);
	appendStringInfoString(&sql,
						   " SELECT o.arm, o.contact_id, o.enrolment_id, o.entered_at,"
						   " o.still_open, o.converted_at, o.source_id"
						   " FROM outcome o ORDER BY o.arm COLLATE \"C\", o.contact_id");
	crm_report_return(&split.report, sql.data, fcinfo);
	crm_disconnect(&acting);
	return (Datum) 0;
}
