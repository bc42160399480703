/*
 * map_rows.c
 *		What maps are measured by: who met which touchpoint, where they went from
 *		there, and what that makes of the touchpoints. Every number comes from
 *		touchpoint_rows(), so that all of them count the same visits.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "insight/map_rows.h"
#include "insight/period.h"
#include "insight/report.h"
#include "insight/touchpoint.h"

PG_FUNCTION_INFO_V1(crm_sql_touchpoint_rows);
PG_FUNCTION_INFO_V1(crm_sql_touchpoint_moves);
PG_FUNCTION_INFO_V1(crm_sql_touchpoint_actions);
PG_FUNCTION_INFO_V1(crm_sql_map_path);
PG_FUNCTION_INFO_V1(crm_sql_map_touchpoint);
PG_FUNCTION_INFO_V1(crm_sql_map_emotion);

/* parameters of the statements below */
static const Oid parameter_types[CRM_MAP_PARAMETERS] = {
	TEXTOID,        /* $1 map */
	INT4OID,        /* $2 its version */
	TIMESTAMPTZOID, /* $3 start of the period, NULL: all times */
	TIMESTAMPTZOID, /* $4 its end */
	TEXTOID,        /* $5 persona, NULL: everybody */
	INTERVALOID,    /* $6 within which a visit belongs to the one before */
	TEXTARRAYOID,   /* $7 touchpoints, those named first before the others */
	TIMESTAMPTZOID, /* $8 now */
	TEXTARRAYOID,   /* $9 personas of the map */
};

#define IN_PERIOD(at) "COALESCE(" at " >= $3 AND " at " < $4, true)"
#define OF_PERSONA(contact) \
	"($5 IS NULL OR " contact " IN (SELECT k FROM crm.persona_members($5) AS k))"

/*
 * Departures: the last of visits to one touchpoint that follow each other in time,
 * and the visit that comes next, if it comes in time.
 */
#define DEPARTURES(visits)                                                                            \
	"SELECT n.contact_id, n.touchpoint, n.occurred_at,"                                               \
	" CASE WHEN n.in_time THEN 'went_on' WHEN n.occurred_at + $6 >= $8 THEN 'still_open'"             \
	" ELSE 'lost' END AS outcome,"                                                                    \
	" CASE WHEN n.in_time THEN n.next_touchpoint END AS next_touchpoint,"                             \
	" CASE WHEN n.in_time THEN n.next_at END AS next_at,"                                             \
	" CASE WHEN n.in_time THEN date_part('epoch', n.next_at - n.occurred_at) END AS seconds"          \
	" FROM (SELECT l.*, COALESCE(l.next_at <= l.occurred_at + $6, false) AS in_time"                  \
	"  FROM (SELECT v.contact_id, v.touchpoint, v.occurred_at, lead(v.touchpoint) OVER w AS"          \
	"   next_touchpoint, lead(v.occurred_at) OVER w AS next_at FROM " visits " AS v"                  \
	"   WINDOW w AS (PARTITION BY v.contact_id ORDER BY v.occurred_at, v.source_table COLLATE \"C\"," \
	"    v.source_id)) AS l) AS n"                                                                    \
	" WHERE " IN_PERIOD(                                                                              \
		"n.occurred_at") " AND NOT (n.in_time AND n.next_touchpoint = n.touchpoint)"

/*
 * The visits of the period, and those around it that may belong to one of them. A day
 * more, as a day that summer time shifts may end after one that began later.
 */
#define VISITS_SINCE(start) "crm.touchpoint_rows($7, " start ", $4 + $6 + '1 day'::interval, $5)"
#define VISITS              VISITS_SINCE("$3")

static const char moves_sql[] =
	"SELECT m.contact_id, m.touchpoint, m.occurred_at, m.outcome, m.next_touchpoint, m.next_at,"
	" m.seconds FROM (" DEPARTURES(VISITS) ") AS m";

/* Transitions added up: where to, and of those who have decided the share. */
#define ADDED_UP                                                                                                \
	"m AS (" DEPARTURES(                                                                                        \
		VISITS) "),"                                                                                            \
				" s AS (SELECT m.touchpoint AS from_touchpoint, m.next_touchpoint AS to_touchpoint, m.outcome," \
				"  count(DISTINCT m.contact_id) AS contacts, count(*) AS transitions,"                          \
				"  percentile_cont('{0.5,0.9}'::double precision[]) WITHIN GROUP (ORDER BY m.seconds)"          \
				"   AS seconds FROM m GROUP BY 1, 2, 3),"                                                       \
				" d AS (SELECT s.from_touchpoint, sum(s.transitions) AS decided,"                               \
				"  COALESCE(sum(s.transitions) FILTER (WHERE s.outcome = 'lost'), 0) AS lost"                   \
				"  FROM s WHERE s.outcome <> 'still_open' GROUP BY 1)"

static const char actions_sql[] =
	"WITH " ADDED_UP
	" SELECT s.from_touchpoint, s.to_touchpoint, s.outcome, s.contacts, s.transitions,"
	" CASE WHEN s.outcome <> 'still_open' THEN round(s.transitions / d.decided, 4) END,"
	" round(d.lost / d.decided, 4), s.seconds[1], s.seconds[2]"
	" FROM s LEFT JOIN d ON d.from_touchpoint = s.from_touchpoint"
	" ORDER BY s.from_touchpoint COLLATE \"C\", s.transitions DESC, s.outcome,"
	" s.to_touchpoint COLLATE \"C\"";

static const char path_sql[] =
	"WITH " ADDED_UP
	", t AS (SELECT t.from_touchpoint, t.to_touchpoint, t.label, t.place FROM crm.map_transition AS t"
	"  WHERE t.map = $1 AND t.version = $2),"
	" o AS (SELECT o.touchpoint, o.place, o.goes_on FROM crm.map_outline AS o"
	"  WHERE o.map = $1 AND o.version = $2)"
	" SELECT from_touchpoint, to_touchpoint,"
	" CASE WHEN s.outcome = 'lost' AND NOT o.goes_on THEN 'ended'"
	"  WHEN s.outcome <> 'went_on' THEN s.outcome"
	"  WHEN t.place IS NULL THEN 'undrawn' WHEN s.outcome IS NULL THEN 'unseen' ELSE 'as_drawn' END,"
	" t.label, t.place, COALESCE(s.contacts, 0), COALESCE(s.transitions, 0),"
	" CASE WHEN s.outcome <> 'still_open' THEN round(s.transitions / d.decided, 4) END,"
	" s.seconds[1], s.seconds[2]"
	" FROM t FULL JOIN s USING (from_touchpoint, to_touchpoint)"
	" LEFT JOIN d USING (from_touchpoint)"
	" LEFT JOIN o ON o.touchpoint = from_touchpoint LEFT JOIN o AS e ON e.touchpoint = to_touchpoint"
	" ORDER BY o.place, t.place, e.place, s.outcome";

/*
 * A score begins at 2; loss, delay and complaints take away from it, notes move it.
 * Visits before the period are read, too: a complaint is about the visit before it.
 */
static const char touchpoints_sql[] = "WITH v AS MATERIALIZED (SELECT * FROM " VISITS_SINCE(
	"$3 - $6 - '1 day'::interval") "),"
								   " m AS (" DEPARTURES(
									   "v") "),"
											" g AS (SELECT m.touchpoint, count(*) FILTER (WHERE m.outcome = 'went_on') AS went_on,"
											"  count(*) FILTER (WHERE m.outcome = 'lost') AS lost,"
											"  count(*) FILTER (WHERE m.outcome = 'still_open') AS still_open,"
											"  percentile_cont(0.5) WITHIN GROUP (ORDER BY m.seconds) AS seconds FROM m GROUP BY 1),"
											" p AS (SELECT v.touchpoint, count(*) AS visits, count(DISTINCT v.contact_id) AS contacts"
											"  FROM v WHERE " IN_PERIOD(
												"v.occurred_at") " GROUP BY 1),"
																 " c AS (SELECT x.contact_id, x.occurred_at, NULL::text AS touchpoint, x.source_table, x.source_id"
																 "  FROM crm.touchpoint_rows(ARRAY(SELECT t.name FROM crm.touchpoint AS t WHERE t.complaint"
																 "   ORDER BY t.name COLLATE \"C\"), $3, $4, $5) AS x),"
																 /* each complaint among the visits, then the last visit before it */
																 " b AS (SELECT u.*, count(u.touchpoint) OVER (PARTITION BY u.contact_id ORDER BY u.occurred_at,"
																 "   u.touchpoint IS NULL, u.source_table COLLATE \"C\", u.source_id ROWS UNBOUNDED PRECEDING) AS n"
																 "  FROM (SELECT c.* FROM c UNION ALL SELECT v.contact_id, v.occurred_at, v.touchpoint,"
																 "   v.source_table, v.source_id FROM v) AS u),"
																 " a AS (SELECT l.about AS touchpoint, count(*) AS complaints"
																 "  FROM (SELECT b.touchpoint, b.occurred_at,"
																 "    first_value(b.touchpoint) OVER f AS about, first_value(b.occurred_at) OVER f AS at FROM b"
																 "    WINDOW f AS (PARTITION BY b.contact_id, b.n ORDER BY b.occurred_at, b.touchpoint IS NULL)) AS l"
																 "  WHERE l.touchpoint IS NULL AND l.about IS NOT NULL AND l.occurred_at <= l.at + $6 GROUP BY 1),"
																 " w AS (SELECT COALESCE((d.body ->> 'loss')::numeric, 4) AS loss,"
																 "   COALESCE((d.body ->> 'delay')::numeric, 2) AS delay,"
																 "   COALESCE((d.body ->> 'complaint')::numeric, 4) AS complaint,"
																 "   COALESCE((d.body ->> 'note')::numeric, 1) AS note"
																 "  FROM (SELECT r.definition -> 'weights' AS body FROM crm.map_version AS r"
																 "   WHERE r.map = $1 AND r.version = $2) AS d),"
																 " k AS (SELECT o.stage, o.stage_place, o.touchpoint, o.label, o.place, COALESCE(p.visits, 0) AS visits,"
																 "   COALESCE(p.contacts, 0) AS contacts, COALESCE(g.went_on, 0) AS went_on,"
																 "   COALESCE(g.lost, 0) AS lost, COALESCE(g.still_open, 0) AS still_open,"
																 "   CASE WHEN o.goes_on THEN round(g.lost::numeric / NULLIF(g.lost + g.went_on, 0), 4) END AS loss,"
																 "   g.seconds, CASE WHEN o.goes_on AND g.seconds IS NOT NULL THEN"
																 "    round(least(1, g.seconds / date_part('epoch', $6))::numeric, 4) END AS delay,"
																 "   COALESCE(a.complaints, 0) AS complaints,"
																 "   CASE WHEN p.visits > 0 THEN"
																 "    round(least(1, COALESCE(a.complaints, 0)::numeric / p.visits), 4) END AS complaint_rate,"
																 "   COALESCE(n.notes, 0) AS notes, round(n.score, 4) AS note_score, x.*,"
																 "   COALESCE(e.emotions, 0) AS emotions, round(e.mean, 4) AS emotion"
																 "  FROM crm.map_outline AS o CROSS JOIN w AS x (w_loss, w_delay, w_complaint, w_note)"
																 "  LEFT JOIN p ON p.touchpoint = o.touchpoint LEFT JOIN g ON g.touchpoint = o.touchpoint"
																 "  LEFT JOIN a ON a.touchpoint = o.touchpoint"
																 "  LEFT JOIN (SELECT n.touchpoint, count(*) AS notes, avg(n.score) AS score"
																 "    FROM crm.touchpoint_note AS n WHERE " IN_PERIOD(
																	 "n.noted_at") " GROUP BY 1) AS n"
																				   "   ON n.touchpoint = o.touchpoint"
																				   "  LEFT JOIN (SELECT e.touchpoint, count(*) AS emotions,"
																				   "     sum(e.score * e.confidence) / sum(e.confidence) AS mean"
																				   "    FROM crm.emotion AS e WHERE " IN_PERIOD("e.occurred_at") " AND " OF_PERSONA(
																					   "e.contact_id") "    GROUP BY 1) AS e ON e.touchpoint = o.touchpoint"
																									   "  WHERE o.map = $1 AND o.version = $2),"
																									   " q AS (SELECT k.*, round(-k.w_loss * k.loss, 4) AS loss_part, round(-k.w_delay * k.delay, 4) AS delay_part,"
																									   "   round(-k.w_complaint * k.complaint_rate, 4) AS complaint_part,"
																									   "   round(k.w_note * k.note_score, 4) AS note_part FROM k),"
																									   " z AS (SELECT q.*, CASE WHEN q.visits > 0 OR q.notes > 0 THEN round(greatest(-2, least(2,"
																									   "   2 + COALESCE(q.loss_part, 0) + COALESCE(q.delay_part, 0) + COALESCE(q.complaint_part, 0)"
																									   "   + COALESCE(q.note_part, 0))), 2) END AS score FROM q)"
																									   " SELECT z.stage, z.stage_place, z.touchpoint, z.label, z.place, z.visits, z.contacts, z.went_on, z.lost,"
																									   " z.still_open, z.loss, z.seconds, z.delay, z.complaints, z.complaint_rate, z.notes, z.note_score,"
																									   " z.loss_part, z.delay_part, z.complaint_part, z.note_part, z.score,"
																									   " CASE WHEN z.score >= 1 THEN 'high' WHEN z.score <= -1 THEN 'low' END, z.emotions, z.emotion"
																									   " FROM z ORDER BY z.place";

static const char emotions_sql[] =
	"WITH k AS MATERIALIZED (SELECT n.persona, c.contact_id FROM unnest($9) AS n(persona)"
	"  CROSS JOIN LATERAL crm.persona_members(n.persona) AS c(contact_id)),"
	" e AS (SELECT e.touchpoint, o.place, e.contact_id, e.source, e.score, e.confidence"
	"  FROM crm.map_outline AS o JOIN crm.emotion AS e ON e.touchpoint = o.touchpoint"
	"  WHERE o.map = $1 AND o.version = $2 AND " IN_PERIOD(
		"e.occurred_at") "),"
						 " f AS (SELECT NULL::text AS persona, e.* FROM e UNION ALL"
						 "  SELECT k.persona, e.* FROM e JOIN k ON k.contact_id = e.contact_id)"
						 " SELECT f.persona, f.touchpoint, f.place, f.source, count(*), count(DISTINCT f.contact_id),"
						 " round(sum(f.score * f.confidence) / sum(f.confidence), 4), round(avg(f.confidence), 4),"
						 " min(f.score), max(f.score) FROM f"
						 " GROUP BY GROUPING SETS ((f.persona, f.touchpoint, f.place),"
						 "  (f.persona, f.touchpoint, f.place, f.source))"
						 " ORDER BY f.persona COLLATE \"C\" NULLS FIRST, f.place, f.source COLLATE \"C\" NULLS FIRST";

/* ---------- arguments ---------- */

static void
set(CrmMapQuestion *question, int parameter, Datum value)
{
	question->values[parameter - 1] = value;
	question->nulls[parameter - 1] = ' ';
}

static void
ask(CrmMapQuestion *question, FunctionCallInfo fcinfo, int period, int persona)
{
	memset(question, 0, sizeof(*question));
	memset(question->nulls, 'n', CRM_MAP_PARAMETERS);
	if (PG_ARGISNULL(period) != PG_ARGISNULL(period + 1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("a period needs both period_start and period_end"),
				 errhint("Leave both out for all times.")));
	if (!PG_ARGISNULL(period))
	{
		crm_check_period(PG_GETARG_TIMESTAMPTZ(period), PG_GETARG_TIMESTAMPTZ(period + 1));
		set(question, 3, PG_GETARG_DATUM(period));
		set(question, 4, PG_GETARG_DATUM(period + 1));
	}
	if (persona >= 0 && !PG_ARGISNULL(persona))
		set(question, 5, PG_GETARG_DATUM(persona));
	set(question, 8, TimestampTzGetDatum(crm_now()));
}

/* Names of an array of text, in its order. */
static const char **
names_of(ArrayType *array, int *n)
{
	const char **names;
	Datum *values;
	bool *nulls;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("touchpoints are an array of %d dimensions", ARR_NDIM(array)),
				 errhint("Give a list of names, such as '{follow,first_order}'.")));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, n);
	names = palloc_array(const char *, Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("touchpoints hold a NULL"),
					 errhint("Give a list of names, such as '{follow,first_order}'.")));
		names[i] = TextDatumGetCString(values[i]);
	}
	return names;
}

static Datum
array_of(const char *const *names, int n)
{
	CrmColumn column;

	crm_column_init(&column, TEXTOID);
	for (int i = 0; i < n; i++)
		crm_column_add(&column, CStringGetTextDatum(names[i]), false);
	return crm_column_array(&column);
}

/* Of the names of a map those that are still there, in their order. */
static Datum
those_there(CrmPlan *plan, const char *const *names, int n)
{
	MemoryContext context = CurrentMemoryContext;
	Datum value = array_of(names, n);
	bool isnull;

	crm_read(plan, &value, NULL);
	value = crm_result(0, 1, &isnull);
	MemoryContextSwitchTo(context);
	return PointerGetDatum(isnull ? construct_empty_array(TEXTOID) : DatumGetArrayTypePCopy(value));
}

static CrmPlan touchpoints_there = {
	"SELECT array_agg(n.name ORDER BY n.place) FROM unnest($1) WITH ORDINALITY AS n(name, place)"
	" JOIN crm.touchpoint AS t ON t.name = n.name WHERE NOT t.complaint",
	1,
	{ TEXTARRAYOID }
};
static CrmPlan personas_there = {
	"SELECT array_agg(n.name ORDER BY n.place) FROM unnest($1) WITH ORDINALITY AS n(name, place)"
	" JOIN crm.persona AS p ON p.name = n.name",
	1,
	{ TEXTARRAYOID }
};

void
crm_map_ask(CrmMapQuestion *question, FunctionCallInfo fcinfo, const char *function, int persona,
			int version)
{
	MemoryContext context = CurrentMemoryContext;
	const CrmMap *map;
	CrmActing acting;

	crm_require_value(fcinfo, 0, "map", function);
	ask(question, fcinfo, 1, persona);
	crm_connect(&acting);
	map = crm_map_find(text_to_cstring(PG_GETARG_TEXT_PP(0)),
					   crm_version_argument(fcinfo, version, CRM_MAP_CURRENT), context);
	if (question->nulls[4] != 'n')
		(void) crm_persona_rule(TextDatumGetCString(question->values[4]), context);
	MemoryContextSwitchTo(context);
	question->map = map;
	set(question, 1, CStringGetTextDatum(map->name));
	set(question, 2, Int32GetDatum(map->version));
	set(question, 6, IntervalPGetDatum(map->within));
	set(question, 7, those_there(&touchpoints_there, map->touchpoints, map->ntouchpoints));
	set(question, 9, those_there(&personas_there, map->personas, map->npersonas));
	crm_disconnect(&acting);
}

static void
run(const CrmMapQuestion *question, const char *sql, Tuplestorestate *store)
{
	crm_report_run(sql, CRM_MAP_PARAMETERS, parameter_types, question->values, question->nulls,
				   store);
}

void
crm_map_run_path(const CrmMapQuestion *question)
{
	run(question, path_sql, NULL);
}

void
crm_map_run_touchpoints(const CrmMapQuestion *question)
{
	run(question, touchpoints_sql, NULL);
}

/* ---------- functions ---------- */

static Datum
answer(FunctionCallInfo fcinfo, const CrmMapQuestion *question, const char *sql)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	CrmActing acting;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	crm_connect(&acting);
	run(question, sql, result->setResult);
	crm_disconnect(&acting);
	return (Datum) 0;
}

/* The arguments of touchpoint_moves() and touchpoint_actions(). */
static void
ask_moves(CrmMapQuestion *question, FunctionCallInfo fcinfo, const char *function)
{
	crm_require_value(fcinfo, 1, "within", function);
	ask(question, fcinfo, 2, 4);
	crm_check_duration("within", PG_GETARG_INTERVAL_P(1));
	set(question, 6, PG_GETARG_DATUM(1));
	if (!PG_ARGISNULL(0))
		set(question, 7, PG_GETARG_DATUM(0));
}

Datum
crm_sql_touchpoint_moves(PG_FUNCTION_ARGS)
{
	CrmMapQuestion question;

	ask_moves(&question, fcinfo, "touchpoint_moves");
	return answer(fcinfo, &question, moves_sql);
}

Datum
crm_sql_touchpoint_actions(PG_FUNCTION_ARGS)
{
	CrmMapQuestion question;

	ask_moves(&question, fcinfo, "touchpoint_actions");
	return answer(fcinfo, &question, actions_sql);
}

Datum
crm_sql_map_path(PG_FUNCTION_ARGS)
{
	CrmMapQuestion question;

	crm_map_ask(&question, fcinfo, "map_path", 3, 4);
	return answer(fcinfo, &question, path_sql);
}

Datum
crm_sql_map_touchpoint(PG_FUNCTION_ARGS)
{
	CrmMapQuestion question;

	crm_map_ask(&question, fcinfo, "map_touchpoint", 3, 4);
	return answer(fcinfo, &question, touchpoints_sql);
}

Datum
crm_sql_map_emotion(PG_FUNCTION_ARGS)
{
	CrmMapQuestion question;

	crm_map_ask(&question, fcinfo, "map_emotion", -1, 3);
	return answer(fcinfo, &question, emotions_sql);
}

/* ---------- visits ---------- */

typedef struct Rows
{
	ReturnSetInfo *result;
	Datum *names; /* of the touchpoints */
	Datum tables[CRM_VISIT_SOURCES];
} Rows;

static void
put_visit(void *arg, const CrmTouchpointVisit *visit)
{
	Rows *rows = arg;
	Datum values[5] = { Int64GetDatum(visit->contact_id), rows->names[visit->touchpoint],
						TimestampTzGetDatum(visit->occurred_at), rows->tables[visit->source],
						Int64GetDatum(visit->source_id) };
	bool nulls[5] = { false };

	tuplestore_putvalues(rows->result->setResult, rows->result->setDesc, values, nulls);
}

Datum
crm_sql_touchpoint_rows(PG_FUNCTION_ARGS)
{
	CrmVisitSearch search = { .start = DT_NOBEGIN, .end = DT_NOEND, .function = put_visit };
	MemoryContext context = CurrentMemoryContext;
	const char **names = NULL;
	int nnames = 0;
	CrmMapQuestion question;
	Rows rows;
	CrmActing acting;

	ask(&question, fcinfo, 1, 3);
	if (question.nulls[2] != 'n')
	{
		search.start = DatumGetTimestampTz(question.values[2]);
		search.end = DatumGetTimestampTz(question.values[3]);
	}
	if (!PG_ARGISNULL(0))
		names = names_of(PG_GETARG_ARRAYTYPE_P(0), &nnames);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	rows.result = (ReturnSetInfo *) fcinfo->resultinfo;

	crm_connect(&acting);
	if (question.nulls[4] != 'n')
		search.persona_rule = crm_persona_rule(TextDatumGetCString(question.values[4]), context);
	search.touchpoints = crm_touchpoints_read(names, nnames, false, &search.ntouchpoints, context);
	rows.names = palloc_array(Datum, Max(search.ntouchpoints, 1));
	for (int i = 0; i < search.ntouchpoints; i++)
		rows.names[i] = CStringGetTextDatum(search.touchpoints[i].name);
	for (int source = 0; source < CRM_VISIT_SOURCES; source++)
		rows.tables[source] = CStringGetTextDatum(crm_source_table(source));
	search.arg = &rows;
	crm_visits_find(&search);
	crm_disconnect(&acting);
	return (Datum) 0;
}
