/*
 * journey_graph.c
 *		Reads a version of a journey as a graph.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "base/db.h"
#include "insight/figures.h"
#include "insight/journey_graph.h"
#include "insight/period.h"
#include "journey/reading.h"

static void
no_such_version(const char *journey, int version)
{
	static CrmPlan plan = {
		"SELECT pg_catalog.string_agg(v.version::text, ', ' ORDER BY v.version)"
		"  FROM crm.journey_version v WHERE v.journey = $1",
		1,
		{ TEXTOID },
	};
	Datum values[1] = { CStringGetTextDatum(journey) };
	char *versions;

	crm_read(&plan, values, NULL);
	versions = crm_result_text(0, 1);
	if (versions == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("journey \"%s\" does not exist", crm_shown(journey)),
				 errhint("Journeys are the rows of crm.journey_summary.")));
	ereport(ERROR,
			(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
			 errmsg("version %d of journey \"%s\" does not exist", version, journey),
			 errhint("Versions are: %s. NULL stands for the current one.", versions)));
}

/* the result's own copy, NULL where it is null */
static char *
text_of(uint64 row, int column, MemoryContext context)
{
	bool isnull;
	Datum value = crm_result(row, column, &isnull);

	return isnull ? NULL : crm_text_copy(context, value);
}

/* Which version, and where it starts. */
static void
read_head(CrmGraph *graph, const char *journey, int version, char **start, MemoryContext context)
{
	static CrmPlan plan = {
		"SELECT v.version, v.version = j.version, j.state, v.definition ->> 'start',"
		"       (SELECT pg_catalog.string_agg(o.fact, ', ' ORDER BY o.place)"
		"          FROM (SELECT e.body ->> 'on' AS fact, pg_catalog.min(e.place) AS place"
		"                  FROM pg_catalog.jsonb_array_elements("
		"                       CASE pg_catalog.jsonb_typeof(v.definition -> 'entry')"
		"                            WHEN 'array' THEN v.definition -> 'entry' END)"
		"                       WITH ORDINALITY e(body, place)"
		"                 GROUP BY 1) o)"
		"  FROM crm.journey_version v LEFT JOIN crm.journey j ON j.journey = v.journey"
		" WHERE v.journey = $1 AND COALESCE(v.version = $2, true)"
		" ORDER BY v.version = j.version DESC NULLS LAST, v.version DESC LIMIT 1",
		2,
		{ TEXTOID, INT4OID },
	};
	Datum values[2] = { CStringGetTextDatum(journey), Int32GetDatum(version) };
	bool isnull;

	if (crm_read(&plan, values, version == CRM_GRAPH_CURRENT ? " n" : NULL) == 0)
		no_such_version(journey, version);
	graph->journey = MemoryContextStrdup(context, journey);
	graph->version = DatumGetInt32(crm_result(0, 1, &isnull));
	graph->is_current = crm_result_true(0, 2);
	graph->state = text_of(0, 3, context);
	*start = text_of(0, 4, context);
	graph->entry = text_of(0, 5, context);
}

static void
read_enrolments(CrmGraph *graph)
{
	static CrmPlan plan = {
		"SELECT pg_catalog.count(*),"
		"       pg_catalog.count(*) FILTER (WHERE e.state = 'active'),"
		"       pg_catalog.count(*) FILTER (WHERE e.state = 'finished'),"
		"       pg_catalog.count(*) FILTER (WHERE e.state = 'exited')"
		"  FROM crm.enrolment e WHERE e.journey = $1 AND e.version = $2",
		2,
		{ TEXTOID, INT4OID },
	};
	Datum values[2] = { CStringGetTextDatum(graph->journey), Int32GetDatum(graph->version) };

	crm_read(&plan, values, NULL);
	graph->started = crm_result_int64(0, 1);
	graph->active = crm_result_int64(0, 2);
	graph->finished = crm_result_int64(0, 3);
	graph->exited = crm_result_int64(0, 4);
}

static void
read_steps(CrmGraph *graph, bool counts, MemoryContext context)
{
	static CrmPlan counted = {
		"SELECT s.step, s.kind, s.label, s.entered, s.here, s.left_on, s.ended"
		"  FROM crm.journey_step s WHERE s.journey = $1 AND s.version = $2"
		" ORDER BY s.step COLLATE \"C\"",
		2,
		{ TEXTOID, INT4OID },
	};
	static CrmPlan plain = {
		"SELECT DISTINCT s.step COLLATE \"C\", s.kind, s.label, 0::bigint, 0::bigint, 0::bigint,"
		"       0::bigint"
		"  FROM crm.journey_outline s WHERE s.journey = $1 AND s.version = $2"
		" ORDER BY 1",
		2,
		{ TEXTOID, INT4OID },
	};
	Datum values[2] = { CStringGetTextDatum(graph->journey), Int32GetDatum(graph->version) };

	graph->nsteps = (int) crm_read(counts ? &counted : &plain, values, NULL);
	graph->steps = MemoryContextAllocZero(context, sizeof(CrmGraphStep) * Max(graph->nsteps, 1));
	for (int i = 0; i < graph->nsteps; i++)
	{
		CrmGraphStep *step = &graph->steps[i];

		step->name = text_of(i, 1, context);
		step->kind = text_of(i, 2, context);
		step->label = text_of(i, 3, context);
		step->entered = crm_result_int64(i, 4);
		step->here = crm_result_int64(i, 5);
		step->left_on = crm_result_int64(i, 6);
		step->ended = crm_result_int64(i, 7);
	}
}

static void
read_edges(CrmGraph *graph, bool counts, MemoryContext context)
{
	static CrmPlan counted = {
		"SELECT e.step, e.outcome, e.next_step, e.rule, e.moves"
		"  FROM crm.journey_edge e WHERE e.journey = $1 AND e.version = $2"
		" ORDER BY e.step COLLATE \"C\", e.place, e.outcome COLLATE \"C\", e.next_step COLLATE \"C\"",
		2,
		{ TEXTOID, INT4OID },
	};
	static CrmPlan plain = {
		"SELECT e.step, e.outcome, e.next_step, e.rule, 0::bigint"
		"  FROM crm.journey_outline e"
		" WHERE e.journey = $1 AND e.version = $2 AND e.outcome IS NOT NULL"
		" ORDER BY e.step COLLATE \"C\", e.place",
		2,
		{ TEXTOID, INT4OID },
	};
	Datum values[2] = { CStringGetTextDatum(graph->journey), Int32GetDatum(graph->version) };

	graph->nedges = (int) crm_read(counts ? &counted : &plain, values, NULL);
	graph->edges = MemoryContextAllocZero(context, sizeof(CrmGraphEdge) * Max(graph->nedges, 1));
	for (int i = 0; i < graph->nedges; i++)
	{
		CrmGraphEdge *edge = &graph->edges[i];
		char *to = crm_result_text(i, 3);

		edge->from = crm_graph_find(graph, crm_result_text(i, 1));
		edge->to = to == NULL ? CRM_GRAPH_END : crm_graph_find(graph, to);
		edge->outcome = text_of(i, 2, context);
		if (edge->outcome == NULL)
			edge->outcome = "";
		edge->rule = text_of(i, 4, context);
		edge->moves = crm_result_int64(i, 5);
		if (edge->from == CRM_GRAPH_END)
			continue;
		if (graph->steps[edge->from].nedges++ == 0)
			graph->steps[edge->from].first_edge = i;
	}
}

/* Breadth first from the start, edges in the order of the definition. */
static void
number_steps(CrmGraph *graph)
{
	int *queue = palloc_array(int, Max(graph->nsteps, 1));
	int n = 0;

	if (graph->start == CRM_GRAPH_END)
		return;
	queue[n++] = graph->start;
	graph->steps[graph->start].position = 1;
	for (int i = 0; i < n; i++)
	{
		const CrmGraphStep *step = &graph->steps[queue[i]];

		for (int e = 0; e < step->nedges; e++)
		{
			int to = graph->edges[step->first_edge + e].to;

			if (to == CRM_GRAPH_END || graph->steps[to].position > 0)
				continue;
			queue[n++] = to;
			graph->steps[to].position = n;
		}
	}
	pfree(queue);
}

int
crm_graph_find(const CrmGraph *graph, const char *name)
{
	int low = 0;
	int high = graph->nsteps - 1;

	while (low <= high)
	{
		int middle = (low + high) / 2;
		int order = strcmp(name, graph->steps[middle].name);

		if (order == 0)
			return middle;
		if (order < 0)
			high = middle - 1;
		else
			low = middle + 1;
	}
	return CRM_GRAPH_END;
}

CrmGraph *
crm_graph_read(const char *journey, int version, bool counts, MemoryContext context)
{
	CrmGraph *graph = MemoryContextAllocZero(context, sizeof(CrmGraph));
	char *start;

	read_head(graph, journey, version, &start, context);
	if (counts)
		read_enrolments(graph);
	read_steps(graph, counts, context);
	read_edges(graph, counts, context);
	graph->start = start == NULL ? CRM_GRAPH_END : crm_graph_find(graph, start);
	number_steps(graph);
	return graph;
}

CrmGraph *
crm_graph_argument(FunctionCallInfo fcinfo, const char *function)
{
	MemoryContext context = CurrentMemoryContext;
	char *journey;
	int version = crm_version_argument(fcinfo, 1, CRM_GRAPH_CURRENT);
	CrmGraph *graph;
	CrmActing acting;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"journey\" of crm.%s() must not be NULL", function),
				 errhint("Journeys are the rows of crm.journey_summary.")));
	journey = text_to_cstring(PG_GETARG_TEXT_PP(0));
	crm_connect(&acting);
	graph = crm_graph_read(journey, version, true, context);
	crm_disconnect(&acting);
	return graph;
}

/* ---------- texts ---------- */

const char *
crm_graph_step_title(const CrmGraphStep *step)
{
	return step->label != NULL && *step->label != '\0' ? step->label : step->name;
}

const char *
crm_graph_edge_title(const CrmGraphEdge *edge)
{
	if (edge->rule != NULL)
		return edge->rule;
	return strcmp(edge->outcome, "next") == 0 ? "" : edge->outcome;
}

char *
crm_graph_subtitle(const CrmGraph *graph)
{
	return psprintf("version %d%s, %s: %s started, %s active, %s finished, %s exited",
					graph->version, graph->is_current ? " (current)" : "",
					graph->state == NULL ? "deleted" : graph->state,
					crm_grouped_digits(graph->started), crm_grouped_digits(graph->active),
					crm_grouped_digits(graph->finished), crm_grouped_digits(graph->exited));
}
