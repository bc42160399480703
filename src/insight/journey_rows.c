/*
 * journey_rows.c
 *		crm.journey_funnel() and crm.journey_rows(): numbers of a journey over a
 *		period, and the rows behind every number. Both read the same statement.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/rights.h"
#include "insight/journey_graph.h"
#include "insight/period.h"
#include "insight/report.h"
#include "journey/reading.h"

PG_FUNCTION_INFO_V1(crm_sql_journey_funnel);
PG_FUNCTION_INFO_V1(crm_sql_journey_rows);

/* parameters of the statements below */
#define PARAMETERS 7
static const Oid parameter_types[PARAMETERS] = {
	TEXTOID,        /* $1 journey */
	INT4OID,        /* $2 version, NULL: all */
	TIMESTAMPTZOID, /* $3 start of the period */
	TIMESTAMPTZOID, /* $4 its end */
	TEXTOID,        /* $5 filter */
	TEXTOID,        /* $6 step */
	TEXTOID,        /* $7 outcome */
};

typedef struct Asked
{
	const char *journey;
	int version; /* CRM_GRAPH_CURRENT: all */
	bool in_period;
	bool by_event;
	const char *filter;
	Datum values[PARAMETERS];
	char nulls[PARAMETERS + 1];
} Asked;

/* What may be counted: columns of the views and of the funnel, and which rows they count. */
typedef struct Counted
{
	const char *name;
	const char *condition;
} Counted;

/* of crm.enrolment e: journey_summary */
static const Counted counted_enrolments[] = {
	{ "started", "true" },
	{ "active", "e.state = 'active'" },
	{ "finished", "e.state = 'finished'" },
	{ "exited", "e.state = 'exited'" },
	{ "exited_goal", "e.state = 'exited' AND e.end_reason = 'goal'" },
	{ "exited_rule", "e.state = 'exited' AND e.end_reason = 'rule'" },
	{ "exited_unenrolled", "e.state = 'exited' AND e.end_reason = 'unenrolled'" },
	{ "exited_cancelled", "e.state = 'exited' AND e.end_reason = 'cancelled'" },
	{ "exited_merged", "e.state = 'exited' AND e.end_reason = 'merged'" },
	{ "exited_erased", "e.state = 'exited' AND e.end_reason = 'erased'" },
	{ "exited_stranded", "e.state = 'exited' AND e.end_reason = 'stranded'" },
	{ "stuck", "e.state = 'active' AND e.stuck IS NOT NULL" },
	{ "refused", NULL }, /* those of crm.refusal */
};

/* of crm.journey_visit v: journey_step, journey_edge, journey_funnel */
static const Counted counted_visits[] = {
	{ "entered", "true" },
	{ "moves", "v.state = 'left'" },
	{ "here", "v.state = 'here'" },
	{ "left_on", "v.state = 'left'" },
	{ "ended", "v.state = 'ended'" },
	{ "ended_goal", "v.state = 'ended' AND v.outcome = 'goal'" },
	{ "converted", "v.state = 'left'" },
	{ "dropped", "v.state = 'ended'" },
	{ "still_open", "v.state = 'here'" },
	{ "messages", "v.message_state IS NOT NULL" },
	{ "queued", "v.message_state IN ('queued', 'sending')" },
	{ "waiting", "v.message_state = 'waiting'" },
	{ "sent", "v.message_state = 'sent'" },
	{ "refused", "v.message_state = 'refused'" },
	{ "failed", "v.message_state = 'failed'" },
	{ "expired", "v.message_state = 'expired'" },
	{ "cancelled", "v.message_state = 'cancelled'" },
	{ "unknown", "v.message_state = 'unknown'" },
};

static const Counted *
find_counted(const Counted *known, int n, const char *name, const char *of)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < n; i++)
	{
		if (strcmp(known[i].name, name) == 0)
			return &known[i];
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", known[i].name);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"%s\" is not counted of %s", crm_shown(name), of),
			 errhint("What is counted of %s: %s.", of, names.data)));
	return NULL;
}

/* ---------- arguments ---------- */

static bool
is_by_event(const char *by_time)
{
	if (strcmp(by_time, "event") == 0)
		return true;
	if (strcmp(by_time, "entry") != 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("by_time \"%s\" is not known", crm_shown(by_time)),
			 errhint(
				 "It is entry, the time at which the journey was entered, or event, that at which the step was.")));
	return false;
}

static void
set_period(Asked *asked, TimestampTz start, TimestampTz end)
{
	crm_check_period(start, end);
	asked->in_period = true;
	asked->values[2] = TimestampTzGetDatum(start);
	asked->values[3] = TimestampTzGetDatum(end);
	asked->nulls[2] = asked->nulls[3] = ' ';
}

static void
ask(Asked *asked, FunctionCallInfo fcinfo, int journey, int version, int filter)
{
	memset(asked, 0, sizeof(*asked));
	memset(asked->nulls, 'n', PARAMETERS);
	asked->journey = text_to_cstring(PG_GETARG_TEXT_PP(journey));
	asked->values[0] = PG_GETARG_DATUM(journey);
	asked->nulls[0] = ' ';
	asked->version = CRM_GRAPH_CURRENT;
	if (!PG_ARGISNULL(version))
	{
		asked->version = crm_version_argument(fcinfo, version, CRM_GRAPH_CURRENT);
		asked->values[1] = Int32GetDatum(asked->version);
		asked->nulls[1] = ' ';
	}
	if (!PG_ARGISNULL(filter))
	{
		asked->filter = text_to_cstring(PG_GETARG_TEXT_PP(filter));
		asked->values[4] = PG_GETARG_DATUM(filter);
		asked->nulls[4] = ' ';
	}
}

/* ---------- statements ---------- */

static void
append_filter(StringInfo sql, const Asked *asked, const char *contact)
{
	if (asked->filter != NULL)
		appendStringInfo(sql, " AND %s IN (SELECT a FROM crm.audience($5) a)", contact);
}

/*
 * The visits that are counted, as v. In a period an enrolment counts once at a
 * step, by its last visit there, so that no step has more than started.
 */
static void
append_visits(StringInfo sql, const Asked *asked)
{
	appendStringInfoString(sql, "(SELECT ");
	if (asked->in_period)
		appendStringInfoString(sql,
							   "DISTINCT ON (n.contact_id, n.enrolment_id, n.version, n.step) ");
	appendStringInfoString(sql, "n.* FROM crm.journey_visit n WHERE n.journey = $1");
	if (asked->version != CRM_GRAPH_CURRENT)
		appendStringInfoString(sql, " AND n.version = $2");
	if (asked->in_period)
		appendStringInfo(sql, " AND n.%1$s >= $3 AND n.%1$s < $4",
						 asked->by_event ? "entered_at" : "started_at");
	append_filter(sql, asked, "n.contact_id");
	if (asked->in_period)
		appendStringInfoString(
			sql, " ORDER BY n.contact_id, n.enrolment_id, n.version, n.step, n.visit DESC");
	appendStringInfoString(sql, ") v");
}

/* ---------- the funnel ---------- */

#define FUNNEL_COLUMNS 9

typedef struct Funnel
{
	ReturnSetInfo *result;
	SPITupleTable *counts; /* ordered by version and step */
	uint64 ncounts;
} Funnel;

static void
put_step(Funnel *funnel, int version, const char *name, int position, uint64 row)
{
	Datum values[FUNNEL_COLUMNS];
	bool nulls[FUNNEL_COLUMNS] = { 0 };

	values[0] = Int32GetDatum(version);
	values[1] = CStringGetTextDatum(name);
	values[2] = Int32GetDatum(position);
	nulls[2] = position == 0;
	for (int i = 3; i < FUNNEL_COLUMNS; i++)
	{
		values[i] = Int64GetDatum(0);
		nulls[i] = i >= 7;
		if (row < funnel->ncounts)
			values[i] = SPI_getbinval(funnel->counts->vals[row], funnel->counts->tupdesc, i,
									  &nulls[i]);
	}
	tuplestore_putvalues(funnel->result->setResult, funnel->result->setDesc, values, nulls);
}

/* Steps of a version in the order of the graph; rows first to last are its counts. */
static void
put_version(Funnel *funnel, const Asked *asked, int version, uint64 first, uint64 last,
			MemoryContext context)
{
	CrmGraph *graph = crm_graph_read(asked->journey, version, false, context);
	int *by_position = palloc0_array(int, graph->nsteps + 1);
	int nreached = 0;
	bool *known = palloc0_array(bool, Max(last - first, 1));
	uint64 *row = palloc_array(uint64, Max(graph->nsteps, 1));

	for (int i = 0; i < graph->nsteps; i++)
	{
		row[i] = funnel->ncounts;
		if (graph->steps[i].position > 0)
		{
			by_position[graph->steps[i].position] = i;
			nreached++;
		}
	}
	for (uint64 i = first; i < last; i++)
	{
		char *name = SPI_getvalue(funnel->counts->vals[i], funnel->counts->tupdesc, 2);
		int step = crm_graph_find(graph, name);

		if (step == CRM_GRAPH_END)
			continue;
		row[step] = i;
		known[i - first] = true;
	}
	for (int i = 1; i <= nreached; i++)
		put_step(funnel, graph->version, graph->steps[by_position[i]].name, i, row[by_position[i]]);
	for (int i = 0; i < graph->nsteps; i++)
		if (graph->steps[i].position == 0)
			put_step(funnel, graph->version, graph->steps[i].name, 0, row[i]);
	for (uint64 i = first; i < last; i++)
		if (!known[i - first])
			put_step(funnel, graph->version,
					 SPI_getvalue(funnel->counts->vals[i], funnel->counts->tupdesc, 2), 0, i);
}

/* Each version in which somebody was, and the current one or that asked for. */
static void
put_funnel(Funnel *funnel, const Asked *asked, MemoryContext context)
{
	int shown = crm_graph_read(asked->journey, asked->version, false, context)->version;
	bool done = false;
	uint64 first = 0;

	while (first < funnel->ncounts)
	{
		bool isnull;
		int version = DatumGetInt32(
			SPI_getbinval(funnel->counts->vals[first], funnel->counts->tupdesc, 1, &isnull));
		uint64 last = first;

		while (last < funnel->ncounts &&
			   DatumGetInt32(SPI_getbinval(funnel->counts->vals[last], funnel->counts->tupdesc, 1,
										   &isnull)) == version)
			last++;
		if (!done && shown < version)
			put_version(funnel, asked, shown, first, first, context);
		done = done || shown <= version;
		put_version(funnel, asked, version, first, last, context);
		first = last;
	}
	if (!done)
		put_version(funnel, asked, shown, first, first, context);
}

Datum
crm_sql_journey_funnel(PG_FUNCTION_ARGS)
{
	static const char *const names[] = { "journey", "period_start", "period_end", "by_time" };
	MemoryContext context = CurrentMemoryContext;
	Asked asked;
	Funnel funnel = { 0 };
	StringInfoData sql;
	CrmActing acting;

	for (int i = 0; i < lengthof(names); i++)
		crm_require_value(fcinfo, i, names[i], "journey_funnel");
	ask(&asked, fcinfo, 0, 5, 4);
	set_period(&asked, PG_GETARG_TIMESTAMPTZ(1), PG_GETARG_TIMESTAMPTZ(2));
	asked.by_event = is_by_event(text_to_cstring(PG_GETARG_TEXT_PP(3)));
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	funnel.result = (ReturnSetInfo *) fcinfo->resultinfo;

	initStringInfo(&sql);
	appendStringInfoString(
		&sql,
		"SELECT f.version, f.step, f.entered, f.converted, f.dropped, f.still_open,"
		" f.seconds[1], f.seconds[2]"
		" FROM (SELECT v.version, v.step, pg_catalog.count(*) AS entered,"
		" pg_catalog.count(*) FILTER (WHERE v.state = 'left') AS converted,"
		" pg_catalog.count(*) FILTER (WHERE v.state = 'ended') AS dropped,"
		" pg_catalog.count(*) FILTER (WHERE v.state = 'here') AS still_open,"
		" pg_catalog.percentile_cont('{0.5,0.9}'::double precision[])"
		" WITHIN GROUP (ORDER BY v.seconds) AS seconds FROM ");
	append_visits(&sql, &asked);
	appendStringInfoString(&sql, " GROUP BY v.version, v.step) f ORDER BY f.version, f.step");

	crm_connect(&acting);
	if (asked.filter != NULL)
		crm_report_require_rules("to count by a rule over the profile");
	(void) crm_graph_read(asked.journey, asked.version, false, context);
	crm_report_run(sql.data, PARAMETERS, parameter_types, asked.values, asked.nulls, NULL);
	funnel.counts = SPI_tuptable;
	funnel.ncounts = SPI_processed;
	put_funnel(&funnel, &asked, context);
	crm_disconnect(&acting);
	return (Datum) 0;
}

/* ---------- the rows ---------- */

static void
append_enrolment_rows(StringInfo sql, const Asked *asked, const Counted *counted)
{
	appendStringInfoString(
		sql,
		"SELECT e.contact_id, e.enrolment_id, NULL::integer, e.version, e.step, e.entered_at,"
		" e.ended_at, e.state, e.end_reason, NULL::text, e.message_id, NULL::text, 1::bigint"
		" FROM crm.enrolment e WHERE e.journey = $1");
	if (asked->version != CRM_GRAPH_CURRENT)
		appendStringInfoString(sql, " AND e.version = $2");
	if (asked->in_period)
		appendStringInfoString(sql, " AND e.entered_at >= $3 AND e.entered_at < $4");
	append_filter(sql, asked, "e.contact_id");
	appendStringInfo(sql, " AND %s", counted->condition);
}

/* Refusals are kept by day with their number; they know no version. */
static void
append_refusal_rows(StringInfo sql, const Asked *asked)
{
	appendStringInfoString(
		sql,
		"SELECT r.contact_id, NULL::bigint, NULL::integer, NULL::integer, NULL::text,"
		" r.first_at, r.last_at, 'refused'::text, r.reason, NULL::text, NULL::bigint,"
		" NULL::text, r.refusals"
		" FROM crm.refusal r WHERE r.kind = 'journey' AND r.object = $1");
	if (asked->in_period)
		appendStringInfoString(sql, " AND r.first_at >= $3 AND r.first_at < $4");
	append_filter(sql, asked, "r.contact_id");
}

static void
append_visit_rows(StringInfo sql, const Asked *asked, const Counted *counted)
{
	appendStringInfoString(
		sql,
		"SELECT v.contact_id, v.enrolment_id, v.visit, v.version, v.step, v.entered_at,"
		" v.left_at, v.state, v.outcome, v.next_step, v.message_id, v.message_state, 1::bigint"
		" FROM ");
	append_visits(sql, asked);
	appendStringInfo(sql, " WHERE %s", counted->condition);
	if (asked->nulls[5] != 'n')
		appendStringInfoString(sql, " AND v.step = $6");
	if (asked->nulls[6] != 'n')
		appendStringInfoString(sql, " AND v.outcome = $7");
}

/* A misspelt step would count nobody. */
static void
check_step(const Asked *asked, const char *step)
{
	static CrmPlan plan = {
		"SELECT EXISTS (SELECT FROM crm.journey_outline o"
		"                WHERE o.journey = $1 AND COALESCE(o.version = $2, true) AND o.step = $3)"
		"    OR EXISTS (SELECT FROM crm.journey_visit v"
		"                WHERE v.journey = $1 AND COALESCE(v.version = $2, true) AND v.step = $3)",
		3,
		{ TEXTOID, INT4OID, TEXTOID },
	};
	Datum values[3] = { asked->values[0], asked->values[1], asked->values[5] };

	crm_read(&plan, values, asked->nulls[1] == 'n' ? " n " : NULL);
	if (!crm_result_true(0, 1))
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("journey \"%s\" has no step \"%s\"", asked->journey, crm_shown(step)),
				 errhint("Its steps are the rows of crm.journey_step.")));
}

/* So would a misspelt outcome; the ends of enrolments are known though nobody came to one. */
static void
check_outcome(const Asked *asked, const char *outcome)
{
	static CrmPlan plan = {
		"SELECT crm.visit_state($4) = 'ended'"
		"    OR EXISTS (SELECT FROM crm.journey_outline o"
		"                WHERE o.journey = $1 AND COALESCE(o.version = $2, true)"
		"                  AND COALESCE(o.step = $3, true) AND o.outcome = $4)"
		"    OR EXISTS (SELECT FROM crm.journey_visit v"
		"                WHERE v.journey = $1 AND COALESCE(v.version = $2, true)"
		"                  AND COALESCE(v.step = $3, true) AND v.outcome = $4)",
		4,
		{ TEXTOID, INT4OID, TEXTOID, TEXTOID },
	};
	Datum values[4] = { asked->values[0], asked->values[1], asked->values[5], asked->values[6] };
	char nulls[5] = { ' ', asked->nulls[1], asked->nulls[5], ' ' };

	crm_read(&plan, values, nulls);
	if (!crm_result_true(0, 1))
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("journey \"%s\" has no outcome \"%s\"%s", asked->journey,
						crm_shown(outcome), asked->nulls[5] == 'n' ? "" : " of that step"),
				 errhint(
					 "Outcomes are in the rows of crm.journey_edge, or say why an enrolment was "
					 "left: goal, rule, unenrolled, cancelled, merged, erased, stranded.")));
}

Datum
crm_sql_journey_rows(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	bool of_visits = !PG_ARGISNULL(1) || !PG_ARGISNULL(2);
	const char *name;
	const Counted *counted;
	Asked asked;
	StringInfoData sql;
	CrmActing acting;

	crm_require_value(fcinfo, 0, "journey", "journey_rows");
	crm_require_value(fcinfo, 7, "by_time", "journey_rows");
	ask(&asked, fcinfo, 0, 3, 8);
	asked.by_event = is_by_event(text_to_cstring(PG_GETARG_TEXT_PP(7)));
	if (PG_ARGISNULL(5) != PG_ARGISNULL(6))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("a period needs both period_start and period_end"),
				 errhint("Leave both out for all times.")));
	if (!PG_ARGISNULL(5))
		set_period(&asked, PG_GETARG_TIMESTAMPTZ(5), PG_GETARG_TIMESTAMPTZ(6));
	for (int i = 0; i < 2; i++)
	{
		if (PG_ARGISNULL(1 + i))
			continue;
		asked.values[5 + i] = PG_GETARG_DATUM(1 + i);
		asked.nulls[5 + i] = ' ';
	}

	if (!PG_ARGISNULL(4))
		name = text_to_cstring(PG_GETARG_TEXT_PP(4));
	else
		name = of_visits ? "entered" : "started";
	counted = of_visits
		? find_counted(counted_visits, lengthof(counted_visits), name, "a step")
		: find_counted(counted_enrolments, lengthof(counted_enrolments), name, "a journey");

	initStringInfo(&sql);
	if (of_visits)
		append_visit_rows(&sql, &asked, counted);
	else if (counted->condition != NULL)
		append_enrolment_rows(&sql, &asked, counted);
	else
		append_refusal_rows(&sql, &asked);

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	crm_connect(&acting);
	if (asked.filter != NULL)
		crm_report_require_rules("to count by a rule over the profile");
	(void) crm_graph_read(asked.journey, asked.version, false, CurrentMemoryContext);
	if (!PG_ARGISNULL(1))
		check_step(&asked, text_to_cstring(PG_GETARG_TEXT_PP(1)));
	if (!PG_ARGISNULL(2))
		check_outcome(&asked, text_to_cstring(PG_GETARG_TEXT_PP(2)));
	crm_report_run(sql.data, PARAMETERS, parameter_types, asked.values, asked.nulls,
				   result->setResult);
	crm_disconnect(&acting);
	return (Datum) 0;
}
