/*
 * map_text.c
 *		A map as text that other programs draw, Mermaid and DOT, with the counts of
 *		a period.
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "base/db.h"
#include "insight/figures.h"
#include "insight/map_rows.h"
#include "insight/mermaid.h"

PG_FUNCTION_INFO_V1(crm_sql_map_mermaid);
PG_FUNCTION_INFO_V1(crm_sql_map_dot);

/* columns of map_touchpoint() and of map_path() */
enum
{
	T_STAGE_PLACE = 2,
	T_TOUCHPOINT = 3,
	T_LABEL = 4,
	T_VISITS = 6,
	T_LOSS = 11,
	T_SCORE = 22,
	T_PEAK = 23,
};
enum
{
	P_FROM = 1,
	P_TO = 2,
	P_STATE = 3,
	P_LABEL = 4,
	P_TRANSITIONS = 7,
	P_MEDIAN = 9,
};

typedef struct Chart
{
	StringInfoData text;
	int n;
	char **names;  /* of the touchpoints, by their numbers from 1 */
	char **stages; /* what people call the stages, by their places from 1 */
} Chart;

/* What the two languages call the same things. */
typedef struct Language
{
	void (*quote)(StringInfo text, const char *string);
	const char *head;
	const char *tail;
	const char *line_break;
	void (*begin_stage)(Chart *chart, int place, const char *name);
	const char *end_stage;
	void (*begin_touchpoint)(Chart *chart, int number);
	void (*end_touchpoint)(Chart *chart, const char *peak);
	void (*begin_transition)(Chart *chart, int from, int to, const char *state);
	void (*end_transition)(Chart *chart, int to, const char *state);
} Language;

/* ---------- Mermaid ---------- */

static void
mermaid_begin_stage(Chart *chart, int place, const char *name)
{
	appendStringInfo(&chart->text, "    subgraph g%d [\"", place);
	crm_mermaid_quote(&chart->text, name);
	appendStringInfoString(&chart->text, "\"]\n");
}

static void
mermaid_begin_touchpoint(Chart *chart, int number)
{
	appendStringInfo(&chart->text, "        t%d[\"", number);
}

static void
mermaid_end_touchpoint(Chart *chart, const char *peak)
{
	appendStringInfo(&chart->text, "\"]%s%s\n",
					 peak == NULL ? "" : ":::", peak == NULL ? "" : peak);
}

static void
mermaid_begin_transition(Chart *chart, int from, int to, const char *state)
{
	appendStringInfo(&chart->text, "    t%d %s|\"", from,
					 strcmp(state, "unseen") == 0        ? "-.->"
						 : strcmp(state, "undrawn") == 0 ? "==>"
														 : "-->");
}

static void
mermaid_end_transition(Chart *chart, int to, const char *state)
{
	appendStringInfo(&chart->text, "\"| t%d\n", to);
}

static const Language mermaid = {
	crm_mermaid_quote,
	"flowchart LR\n    classDef high stroke:#2e7d32\n    classDef low stroke:#c62828\n",
	"",
	"<br/>",
	mermaid_begin_stage,
	"    end\n",
	mermaid_begin_touchpoint,
	mermaid_end_touchpoint,
	mermaid_begin_transition,
	mermaid_end_transition,
};

/* ---------- DOT ---------- */

/* A quote ends a string, and a backslash may begin an escape. */
static void
dot_quote(StringInfo text, const char *string)
{
	for (const char *s = string; *s != '\0'; s++)
	{
		unsigned char c = (unsigned char) *s;

		if (c == '"' || c == '\\')
			appendStringInfoChar(text, '\\');
		appendStringInfoChar(text, c < 0x20 || c == 0x7f ? ' ' : *s);
	}
}

static void
dot_begin_stage(Chart *chart, int place, const char *name)
{
	appendStringInfo(&chart->text, "    subgraph cluster_%d {\n        label=\"", place);
	dot_quote(&chart->text, name);
	appendStringInfoString(&chart->text, "\";\n");
}

static void
dot_begin_touchpoint(Chart *chart, int number)
{
	appendStringInfo(&chart->text, "        t%d [label=\"", number);
}

static void
dot_end_touchpoint(Chart *chart, const char *peak)
{
	appendStringInfo(&chart->text, "\"%s];\n",
					 peak == NULL                    ? ""
						 : strcmp(peak, "high") == 0 ? ", color=\"#2e7d32\""
													 : ", color=\"#c62828\"");
}

static void
dot_begin_transition(Chart *chart, int from, int to, const char *state)
{
	appendStringInfo(&chart->text, "    t%d -> t%d [label=\"", from, to);
}

static void
dot_end_transition(Chart *chart, int to, const char *state)
{
	appendStringInfo(&chart->text, "\"%s];\n",
					 strcmp(state, "unseen") == 0        ? ", style=dotted"
						 : strcmp(state, "undrawn") == 0 ? ", style=dashed"
														 : "");
}

static const Language dot = {
	dot_quote,
	"digraph map {\n    rankdir=LR;\n    node [shape=box, style=rounded];\n",
	"}\n",
	"\\n",
	dot_begin_stage,
	"    }\n",
	dot_begin_touchpoint,
	dot_end_touchpoint,
	dot_begin_transition,
	dot_end_transition,
};

/* ---------- both ---------- */

/* A number of the current result as text; NULL where it is null. */
static char *
number_text(uint64 row, int column)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);
}

static int
number_of(const Chart *chart, const char *name)
{
	for (int i = 0; i < chart->n; i++)
		if (name != NULL && strcmp(chart->names[i], name) == 0)
			return i + 1;
	return 0;
}

static void
append_counts(Chart *chart, const Language *language, uint64 row)
{
	char *loss = number_text(row, T_LOSS);
	char *score = number_text(row, T_SCORE);
	int64 visits = crm_result_int64(row, T_VISITS);

	appendStringInfo(&chart->text, "%s%s %s", language->line_break, crm_grouped_digits(visits),
					 visits == 1 ? "visit" : "visits");
	if (loss != NULL)
		appendStringInfo(&chart->text, ", %.0f%% lost", strtod(loss, NULL) * 100);
	if (score != NULL)
		appendStringInfo(&chart->text, "%sscore %s", language->line_break, score);
}

static void
read_stages(Chart *chart, const CrmMapQuestion *question)
{
	static CrmPlan plan = {
		"SELECT COALESCE(o.stage_label, o.stage) FROM pg_catalog.generate_series(1,"
		"  (SELECT pg_catalog.max(o.stage_place) FROM crm.map_outline AS o"
		"    WHERE o.map = $1 AND o.version = $2)) AS n(place)"
		" LEFT JOIN (SELECT DISTINCT o.stage_place, o.stage, o.stage_label FROM crm.map_outline AS o"
		"  WHERE o.map = $1 AND o.version = $2) AS o ON o.stage_place = n.place ORDER BY n.place",
		2,
		{ TEXTOID, INT4OID },
	};
	uint64 n = crm_read(&plan, question->values, NULL);

	chart->stages = palloc0_array(char *, n + 1);
	for (uint64 row = 0; row < n; row++)
		chart->stages[row + 1] = crm_result_text(row, 1);
}

/* Touchpoints by their stages, off the rows of map_touchpoint(). */
static void
append_touchpoints(Chart *chart, const Language *language)
{
	uint64 n = SPI_processed;
	int stage = 0;

	chart->names = palloc_array(char *, Max(n, 1));
	for (uint64 row = 0; row < n; row++)
	{
		bool isnull;
		int place = DatumGetInt32(crm_result(row, T_STAGE_PLACE, &isnull));

		if (place != stage)
		{
			if (stage != 0)
				appendStringInfoString(&chart->text, language->end_stage);
			language->begin_stage(chart, place, chart->stages[place]);
			stage = place;
		}
		chart->names[chart->n++] = crm_result_text(row, T_TOUCHPOINT);
		language->begin_touchpoint(chart, chart->n);
		language->quote(&chart->text, crm_result_text(row, T_LABEL));
		append_counts(chart, language, row);
		language->end_touchpoint(chart, crm_result_text(row, T_PEAK));
	}
	if (stage != 0)
		appendStringInfoString(&chart->text, language->end_stage);
}

/* Off the rows of map_path(); who went no further is told at the touchpoint. */
static void
append_transitions(Chart *chart, const Language *language)
{
	uint64 n = SPI_processed;

	for (uint64 row = 0; row < n; row++)
	{
		int from = number_of(chart, crm_result_text(row, P_FROM));
		int to = number_of(chart, crm_result_text(row, P_TO));
		const char *state = crm_result_text(row, P_STATE);
		const char *label = crm_result_text(row, P_LABEL);
		const char *median = number_text(row, P_MEDIAN);

		if (from == 0 || to == 0)
			continue;
		language->begin_transition(chart, from, to, state);
		if (label != NULL)
		{
			language->quote(&chart->text, label);
			appendStringInfoString(&chart->text, ": ");
		}
		appendStringInfoString(&chart->text,
							   crm_grouped_digits(crm_result_int64(row, P_TRANSITIONS)));
		if (median != NULL)
			appendStringInfo(&chart->text, ", %s", crm_duration_text(strtod(median, NULL)));
		language->end_transition(chart, to, state);
	}
}

static Datum
draw(FunctionCallInfo fcinfo, const char *function, const Language *language)
{
	CrmMapQuestion question;
	Chart chart = { .n = 0 };
	CrmActing acting;

	crm_map_ask(&question, fcinfo, function, 3, 4);
	initStringInfo(&chart.text);
	appendStringInfoString(&chart.text, language->head);
	crm_connect(&acting);
	read_stages(&chart, &question);
	crm_map_run_touchpoints(&question);
	append_touchpoints(&chart, language);
	crm_map_run_path(&question);
	append_transitions(&chart, language);
	crm_disconnect(&acting);
	appendStringInfoString(&chart.text, language->tail);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(chart.text.data, chart.text.len));
}

Datum
crm_sql_map_mermaid(PG_FUNCTION_ARGS)
{
	return draw(fcinfo, "map_mermaid", &mermaid);
}

Datum
crm_sql_map_dot(PG_FUNCTION_ARGS)
{
	return draw(fcinfo, "map_dot", &dot);
}
