/*
 * journey_svg.c
 *		A version of a journey as a picture: boxes for steps with how many people
 *		came and are there, edges as wide as people took them.
 */
#include "postgres.h"

#include <math.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "base/db.h"
#include "insight/figures.h"
#include "insight/journey_graph.h"
#include "insight/layered.h"
#include "insight/picture.h"

PG_FUNCTION_INFO_V1(crm_sql_journey_svg);

#define MARGIN       28
#define HEAD_HEIGHT  84
#define BOX_WIDTH    208.0
#define BOX_HEIGHT   66.0
#define BOX_PAD      18.0
#define ENTRY_HEIGHT 30.0
#define END_SIZE     16.0
#define LABEL_HEIGHT 18.0
#define LABEL_MAX    190.0
#define LABEL_PAD    12.0
#define LOOP_WIDTH   26.0
#define LOOP_LINE    15.0
#define HEAD_LENGTH  8.0
#define MIN_WIDTH    560

/* What is drawn: boxes are the entry, the steps, then an end for each edge that finishes. */
typedef struct Scene
{
	const CrmGraph *graph;
	CrmLayered layered;
	int *edges;    /* edge of the graph of each edge that is laid out; -1: the entry */
	int64 most;    /* moves on the busiest edge */
	int first_end; /* box */
} Scene;

static const char *
colour_of(const char *kind)
{
	static const struct
	{
		const char *kind;
		const char *class;
	} colours[] = {
		{ "send", "talk" },     { "ask", "talk" },      { "webhook", "talk" },
		{ "wait", "wait" },     { "wait_for", "wait" }, { "wait_until", "wait" },
		{ "branch", "choice" }, { "split", "choice" },  { "set", "change" },
		{ "tag", "change" },    { "award", "change" },  { "stage", "change" },
		{ "coupon", "change" }, { "points", "change" },
	};

	for (int i = 0; kind != NULL && i < lengthof(colours); i++)
		if (strcmp(colours[i].kind, kind) == 0)
			return colours[i].class;
	return "other";
}

static bool
is_fault(const CrmGraphEdge *edge)
{
	return strcmp(edge->outcome, "failed") == 0 || strcmp(edge->outcome, "refused") == 0;
}

static const char *
entry_text(const CrmGraph *graph)
{
	return graph->entry == NULL ? "entry" : psprintf("entry: %s", graph->entry);
}

static double
label_width(const char *name, int64 moves)
{
	double width = crm_picture_text_width(crm_grouped_digits(moves));

	if (*name != '\0')
		width += crm_picture_text_width(name) + crm_picture_text_width(" ");
	return Min(width, LABEL_MAX) + LABEL_PAD;
}

/* ---------- what is laid out ---------- */

static int
add_box(CrmLayered *layered, double width, double height)
{
	CrmLayeredBox *box = &layered->boxes[layered->nboxes];

	box->width = width;
	box->height = height;
	return layered->nboxes++;
}

/* The main way runs down; back runs what timeouts and failures bring about. */
static int
priority_of(const CrmGraphEdge *edge)
{
	if (strcmp(edge->outcome, "next") == 0 || strcmp(edge->outcome, "default") == 0)
		return 0;
	return is_fault(edge) || strcmp(edge->outcome, "timeout") == 0 ? CRM_LAYERED_LAST : 1;
}

static void
add_edge(Scene *scene, int from, int to, double width, int edge)
{
	CrmLayeredEdge *added = &scene->layered.edges[scene->layered.nedges];

	added->from = from;
	added->to = to;
	added->label_width = width;
	added->priority = edge < 0 ? 0 : priority_of(&scene->graph->edges[edge]);
	scene->edges[scene->layered.nedges++] = edge;
}

static void
build(Scene *scene, const CrmGraph *graph)
{
	CrmLayered *layered = &scene->layered;
	int most_boxes = 1 + graph->nsteps + graph->nedges;

	memset(scene, 0, sizeof(*scene));
	scene->graph = graph;
	scene->most = Max(graph->started, 1);
	scene->edges = palloc_array(int, graph->nedges + 1);
	layered->label_height = LABEL_HEIGHT;
	layered->boxes = palloc0_array(CrmLayeredBox, most_boxes);
	layered->edges = palloc0_array(CrmLayeredEdge, graph->nedges + 1);

	add_box(layered,
			Min(crm_picture_text_width(entry_text(graph)) + 2 * BOX_PAD, BOX_WIDTH + 2 * BOX_PAD),
			ENTRY_HEIGHT);
	for (int i = 0; i < graph->nsteps; i++)
		add_box(layered, BOX_WIDTH, BOX_HEIGHT);
	if (graph->start != CRM_GRAPH_END)
		add_edge(scene, 0, 1 + graph->start, label_width("", graph->started), -1);
	scene->first_end = layered->nboxes;
	for (int i = 0; i < graph->nedges; i++)
	{
		const CrmGraphEdge *edge = &graph->edges[i];
		double width = label_width(crm_graph_edge_title(edge), edge->moves);

		scene->most = Max(scene->most, edge->moves);
		if (edge->from == CRM_GRAPH_END)
			continue;
		if (edge->to == edge->from)
			layered->boxes[1 + edge->from].beside = Max(layered->boxes[1 + edge->from].beside,
														LOOP_WIDTH + width);
		else if (edge->to == CRM_GRAPH_END)
			add_edge(scene, 1 + edge->from, add_box(layered, END_SIZE, END_SIZE), width, i);
		else
			add_edge(scene, 1 + edge->from, 1 + edge->to, width, i);
	}
}

/* ---------- edges ---------- */

static const char *
line_class(const CrmGraphEdge *edge, int64 moves)
{
	return moves == 0 ? "unused" : edge != NULL && is_fault(edge) ? "fault" : "flow";
}

static double
line_width(const Scene *scene, int64 moves)
{
	return moves == 0 ? 0 : 1.2 + 4.3 * sqrt((double) moves / scene->most);
}

static void
draw_head(CrmPicture *picture, const char *class, double x, double y, double direction,
		  double width)
{
	double half = 3.5 + width / 2;

	crm_picture_path(picture, psprintf("%s-head", class),
					 psprintf("M%.1f %.1fL%.1f %.1fL%.1f %.1fZ", x, y, x - half,
							  y - direction * (HEAD_LENGTH + width / 2), x + half,
							  y - direction * (HEAD_LENGTH + width / 2)),
					 0);
}

/* From stop to stop in curves that begin and end upright. */
static void
draw_line(CrmPicture *picture, const CrmLayeredEdge *edge, const char *class, double width)
{
	StringInfoData path;
	double direction = edge->upwards ? -1 : 1;
	const CrmLayeredStop *last = &edge->stops[edge->nstops - 1];
	double end = last->y2 - direction * HEAD_LENGTH;
	double y = edge->stops[0].y1;
	bool straight = false; /* down to y is to be drawn yet */

	initStringInfo(&path);
	appendStringInfo(&path, "M%.1f %.1f", edge->stops[0].x, edge->stops[0].y1);
	for (int i = 0; i < edge->nstops; i++)
	{
		const CrmLayeredStop *from = &edge->stops[Max(i - 1, 0)];
		const CrmLayeredStop *to = &edge->stops[i];
		double y1 = to == last && (to->y1 - end) * direction > 0 ? end : to->y1;
		double y2 = to == last ? end : to->y2;
		double middle = (from->y2 + y1) / 2;

		if (i > 0 && fabs(from->x - to->x) >= 0.05)
		{
			if (straight)
				appendStringInfo(&path, "V%.1f", y);
			appendStringInfo(&path, "C%.1f %.1f %.1f %.1f %.1f %.1f", from->x, middle, to->x,
							 middle, to->x, y1);
			straight = false;
		}
		else
			straight = straight || i > 0;
		straight = straight || y1 != y2;
		y = y2;
	}
	if (straight)
		appendStringInfo(&path, "V%.1f", y);
	crm_picture_path(picture, class, path.data, width);
	draw_head(picture, class, last->x, last->y2, direction, width);
	pfree(path.data);
}

static char *
edge_tooltip(const CrmGraph *graph, const CrmGraphEdge *edge)
{
	return psprintf("%s, %s%s%s: %s, to %s", crm_graph_step_title(&graph->steps[edge->from]),
					edge->outcome, edge->rule == NULL ? "" : ", ",
					edge->rule == NULL ? "" : edge->rule, crm_grouped_digits(edge->moves),
					edge->to == CRM_GRAPH_END ? "the end of the journey"
											  : crm_graph_step_title(&graph->steps[edge->to]));
}

static void
draw_edges(CrmPicture *picture, const Scene *scene)
{
	for (int i = 0; i < scene->layered.nedges; i++)
	{
		const CrmLayeredEdge *edge = &scene->layered.edges[i];
		const CrmGraphEdge *of = scene->edges[i] < 0 ? NULL : &scene->graph->edges[scene->edges[i]];
		int64 moves = of == NULL ? scene->graph->started : of->moves;

		CHECK_FOR_INTERRUPTS();
		draw_line(picture, edge, line_class(of, moves), line_width(scene, moves));
	}
	/* over the lines */
	for (int i = 0; i < scene->layered.nedges; i++)
	{
		const CrmLayeredEdge *edge = &scene->layered.edges[i];
		const CrmGraphEdge *of = scene->edges[i] < 0 ? NULL : &scene->graph->edges[scene->edges[i]];
		double half = edge->label_width / 2;

		crm_picture_group(picture, NULL, of == NULL ? "started" : edge_tooltip(scene->graph, of));
		crm_picture_box(picture, "paper", edge->label_x - half + 2,
						edge->label_y - LABEL_HEIGHT / 2, 2 * half - 4, LABEL_HEIGHT, 4);
		crm_picture_caption(picture, CRM_ANCHOR_MIDDLE, edge->label_x, edge->label_y + 4.5,
							edge->label_width - LABEL_PAD + 1,
							of == NULL ? "" : crm_graph_edge_title(of),
							crm_grouped_digits(of == NULL ? scene->graph->started : of->moves));
		crm_picture_group_end(picture);
	}
}

/* Edges from a step to itself: one line beside the box, a label for each. */
static void
draw_loops(CrmPicture *picture, const Scene *scene, int number)
{
	const CrmGraph *graph = scene->graph;
	const CrmGraphStep *step = &graph->steps[number];
	const CrmLayeredBox *box = &scene->layered.boxes[1 + number];
	double x = box->x + box->width / 2;
	double middle = box->y + box->height / 2;
	int64 moves = 0;
	int n = 0;
	double y;

	for (int i = step->first_edge; i < step->first_edge + step->nedges; i++)
		if (graph->edges[i].to == number)
		{
			moves += graph->edges[i].moves;
			n++;
		}
	if (n == 0)
		return;
	crm_picture_path(picture, line_class(NULL, moves),
					 psprintf("M%.1f %.1fC%.1f %.1f %.1f %.1f %.1f %.1f", x, middle + 16,
							  x + LOOP_WIDTH, middle + 20, x + LOOP_WIDTH, middle - 20,
							  x + HEAD_LENGTH, middle - 14),
					 line_width(scene, moves));
	crm_picture_path(picture, psprintf("%s-head", line_class(NULL, moves)),
					 psprintf("M%.1f %.1fL%.1f %.1fL%.1f %.1fZ", x, middle - 14,
							  x + HEAD_LENGTH + 1, middle - 19, x + HEAD_LENGTH + 1, middle - 9),
					 0);
	y = middle - (n - 1) * LOOP_LINE / 2 + 4.5;
	for (int i = step->first_edge; i < step->first_edge + step->nedges; i++)
	{
		const CrmGraphEdge *edge = &graph->edges[i];

		if (edge->to != number)
			continue;
		crm_picture_group(picture, NULL, edge_tooltip(graph, edge));
		crm_picture_caption(picture, CRM_ANCHOR_START, x + LOOP_WIDTH + 2, y,
							box->beside - LOOP_WIDTH - 4, crm_graph_edge_title(edge),
							crm_grouped_digits(edge->moves));
		crm_picture_group_end(picture);
		y += LOOP_LINE;
	}
}

/* ---------- boxes ---------- */

static char *
step_tooltip(const CrmGraphStep *step)
{
	return psprintf("%s%s%s%s (%s): %s entered, %s here, %s went on, %s exited",
					crm_graph_step_title(step),
					crm_graph_step_title(step) == step->name ? "" : " [",
					crm_graph_step_title(step) == step->name ? "" : step->name,
					crm_graph_step_title(step) == step->name ? "" : "]",
					step->kind == NULL ? "not in the definition" : step->kind,
					crm_grouped_digits(step->entered), crm_grouped_digits(step->here),
					crm_grouped_digits(step->left_on), crm_grouped_digits(step->ended));
}

static void
draw_step(CrmPicture *picture, const CrmGraphStep *step, const CrmLayeredBox *box)
{
	double left = box->x - box->width / 2;
	double right = box->x + box->width / 2;
	const char *kind = step->kind == NULL ? "?" : step->kind;
	double room = box->width - 2 * BOX_PAD - crm_picture_text_width(kind);

	crm_picture_group(picture, NULL, step_tooltip(step));
	crm_picture_box(picture, step->entered > 0 ? "box" : "empty-box", left, box->y, box->width,
					box->height, 8);
	crm_picture_box(picture, colour_of(step->kind), left + 7, box->y + 10, 4, box->height - 20, 2);
	crm_picture_text(picture, "name", CRM_ANCHOR_START, left + BOX_PAD, box->y + 21, room,
					 crm_graph_step_title(step));
	crm_picture_text(picture, "muted", CRM_ANCHOR_END, right - BOX_PAD / 2 - 2, box->y + 21,
					 box->width / 2, kind);
	if (step->entered == 0)
		crm_picture_text(picture, "muted", CRM_ANCHOR_START, left + BOX_PAD, box->y + 40, 0,
						 "nobody yet");
	else
		crm_picture_text(picture, "text", CRM_ANCHOR_START, left + BOX_PAD, box->y + 40, 0,
						 psprintf("%s entered", crm_grouped_digits(step->entered)));
	if (step->here > 0)
		crm_picture_text(picture, "here", CRM_ANCHOR_START, left + BOX_PAD, box->y + 57, 0,
						 psprintf("%s here", crm_grouped_digits(step->here)));
	if (step->ended > 0)
		crm_picture_text(picture, "out", CRM_ANCHOR_END, right - BOX_PAD / 2 - 2, box->y + 57, 0,
						 psprintf("%s exited, %s", crm_grouped_digits(step->ended),
								  crm_share_text(step->ended, step->left_on + step->ended)));
	crm_picture_group_end(picture);
}

static void
draw_boxes(CrmPicture *picture, const Scene *scene)
{
	const CrmGraph *graph = scene->graph;
	const CrmLayeredBox *entry = &scene->layered.boxes[0];

	crm_picture_group(picture, NULL, entry_text(graph));
	crm_picture_box(picture, "entry", entry->x - entry->width / 2, entry->y, entry->width,
					entry->height, entry->height / 2);
	crm_picture_text(picture, "text", CRM_ANCHOR_MIDDLE, entry->x, entry->y + 19.5,
					 entry->width - BOX_PAD, entry_text(graph));
	crm_picture_group_end(picture);

	for (int i = 0; i < graph->nsteps; i++)
	{
		CHECK_FOR_INTERRUPTS();
		draw_loops(picture, scene, i);
		draw_step(picture, &graph->steps[i], &scene->layered.boxes[1 + i]);
	}
	for (int i = scene->first_end; i < scene->layered.nboxes; i++)
	{
		const CrmLayeredBox *end = &scene->layered.boxes[i];
		double y = end->y + END_SIZE / 2;

		crm_picture_circle(picture, "end", end->x, y, END_SIZE / 2 - 1, "the end of the journey");
		crm_picture_circle(picture, "end-dot", end->x, y, END_SIZE / 4, NULL);
	}
}

/* ---------- all of it ---------- */

static void
shift(CrmLayered *layered, double x, double y)
{
	for (int i = 0; i < layered->nboxes; i++)
	{
		layered->boxes[i].x += x;
		layered->boxes[i].y += y;
	}
	for (int i = 0; i < layered->nedges; i++)
	{
		CrmLayeredEdge *edge = &layered->edges[i];

		edge->label_x += x;
		edge->label_y += y;
		for (int k = 0; k < edge->nstops; k++)
		{
			edge->stops[k].x += x;
			edge->stops[k].y1 += y;
			edge->stops[k].y2 += y;
		}
	}
}

static text *
draw(const CrmGraph *graph)
{
	char *subtitle = crm_graph_subtitle(graph);
	CrmPicture picture;
	Scene scene;
	double width;

	build(&scene, graph);
	crm_layered_place(&scene.layered);
	width = Max(scene.layered.width, MIN_WIDTH);
	width = Max(width, ceil(crm_picture_text_width(subtitle)));
	shift(&scene.layered, MARGIN + (width - scene.layered.width) / 2, HEAD_HEIGHT);

	crm_picture_open(&picture, (int) ceil(width) + 2 * MARGIN,
					 (int) ceil(scene.layered.height) + HEAD_HEIGHT + MARGIN,
					 psprintf("Journey %s", graph->journey), subtitle);
	crm_picture_text(&picture, "title", CRM_ANCHOR_START, MARGIN, 36,
					 width / CRM_PICTURE_TITLE_SCALE, graph->journey);
	crm_picture_text(&picture, "muted", CRM_ANCHOR_START, MARGIN, 57, 0, subtitle);
	draw_edges(&picture, &scene);
	draw_boxes(&picture, &scene);
	return crm_picture_close(&picture);
}

Datum
crm_sql_journey_svg(PG_FUNCTION_ARGS)
{
	CrmGraph *graph = crm_graph_argument(fcinfo, "journey_svg");

	PG_RETURN_TEXT_P(draw(graph));
}
