/*
 * journey_mermaid.c
 *		A version of a journey as a Mermaid flowchart.
 */
#include "postgres.h"

#include <ctype.h>

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "insight/figures.h"
#include "insight/journey_graph.h"
#include "insight/mermaid.h"

PG_FUNCTION_INFO_V1(crm_sql_journey_mermaid);

void
crm_mermaid_quote(StringInfo chart, const char *string)
{
	for (const char *s = string; *s != '\0'; s++)
	{
		unsigned char c = (unsigned char) *s;

		if (IS_HIGHBIT_SET(c) || isalnum(c) || strchr(" .,:+-=/()%?!", c) != NULL)
			appendStringInfoChar(chart, *s);
		else if (c == '\t' || c == '\n' || c == '\r')
			appendStringInfoChar(chart, ' ');
		else if (c < 0x20 || c == 0x7f)
			appendStringInfoString(chart, "#65533;");
		else
			appendStringInfo(chart, "#%d;", c);
	}
}

static void
append_step(StringInfo chart, const CrmGraphStep *step, int number)
{
	bool chooses = step->kind != NULL &&
		(strcmp(step->kind, "branch") == 0 || strcmp(step->kind, "split") == 0);

	appendStringInfo(chart, "    s%d%s\"", number, chooses ? "{{" : "[");
	crm_mermaid_quote(chart, crm_graph_step_title(step));
	appendStringInfoString(chart, "<br/>");
	if (step->kind != NULL)
	{
		crm_mermaid_quote(chart, step->kind);
		appendStringInfoString(chart, ": ");
	}
	appendStringInfo(chart, "%s entered", crm_grouped_digits(step->entered));
	if (step->here > 0)
		appendStringInfo(chart, ", %s here", crm_grouped_digits(step->here));
	if (step->ended > 0)
		appendStringInfo(chart, ", %s exited", crm_grouped_digits(step->ended));
	appendStringInfo(chart, "\"%s\n", chooses ? "}}" : "]");
}

static void
append_edge(StringInfo chart, const CrmGraphEdge *edge, int number)
{
	const char *title = crm_graph_edge_title(edge);

	if (edge->to == CRM_GRAPH_END)
		appendStringInfo(chart, "    e%d(((\"end\")))\n", number);
	appendStringInfo(chart, "    s%d %s|\"", edge->from + 1, edge->moves > 0 ? "-->" : "-.->");
	crm_mermaid_quote(chart, title);
	appendStringInfo(chart, "%s%s\"| ", *title == '\0' ? "" : ": ",
					 crm_grouped_digits(edge->moves));
	if (edge->to == CRM_GRAPH_END)
		appendStringInfo(chart, "e%d\n", number);
	else
		appendStringInfo(chart, "s%d\n", edge->to + 1);
}

Datum
crm_sql_journey_mermaid(PG_FUNCTION_ARGS)
{
	const CrmGraph *graph = crm_graph_argument(fcinfo, "journey_mermaid");
	StringInfoData chart;

	initStringInfo(&chart);
	appendStringInfoString(&chart, "flowchart TD\n    entry([\"");
	crm_mermaid_quote(&chart, graph->journey);
	appendStringInfo(&chart, ", version %d", graph->version);
	if (graph->entry != NULL)
	{
		appendStringInfoString(&chart, "<br/>");
		crm_mermaid_quote(&chart, graph->entry);
	}
	appendStringInfoString(&chart, "\"])\n");
	for (int i = 0; i < graph->nsteps; i++)
		append_step(&chart, &graph->steps[i], i + 1);
	if (graph->start != CRM_GRAPH_END)
		appendStringInfo(&chart, "    entry %s|\"%s\"| s%d\n", graph->started > 0 ? "-->" : "-.->",
						 crm_grouped_digits(graph->started), graph->start + 1);
	for (int i = 0; i < graph->nedges; i++)
		if (graph->edges[i].from != CRM_GRAPH_END)
			append_edge(&chart, &graph->edges[i], i + 1);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(chart.data, chart.len));
}
