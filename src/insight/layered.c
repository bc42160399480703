/*
 * layered.c
 *		Lays out a directed graph in layers, after Sugiyama: circles are broken,
 *		each box gets the layer of its longest path, long edges a cell in every
 *		layer they pass. Cells are ordered by the barycentre of their neighbours,
 *		then put where these are.
 *
 * Between two layers of boxes is a layer of labels, so that the label of an edge
 * is a cell like a box and has a place of its own.
 */
#include "postgres.h"

#include <math.h>

#include "miscadmin.h"

#include "insight/layered.h"
#include "insight/layered_cells.h"

/* ---------- layers ---------- */

/* Which edges close a circle, when the boxes are walked from the first one on, depth first. */
static bool *
closing_edges(const CrmLayered *layered, const int *first, const int *outgoing)
{
	enum
	{
		NEW,
		OPEN,
		DONE
	} *state = palloc0(sizeof(*state) * Max(layered->nboxes, 1));
	int *stack = palloc_array(int, layered->nboxes + 1);
	int *next = palloc0_array(int, layered->nboxes + 1);
	bool *closing = palloc0_array(bool, Max(layered->nedges, 1));

	for (int root = 0; root < layered->nboxes; root++)
	{
		int depth = 0;

		if (state[root] != NEW)
			continue;
		stack[depth++] = root;
		state[root] = OPEN;
		while (depth > 0)
		{
			int box = stack[depth - 1];

			if (first[box] + next[box] == first[box + 1])
			{
				state[box] = DONE;
				depth--;
			}
			else
			{
				int edge = outgoing[first[box] + next[box]++];
				int to = layered->edges[edge].to;

				if (state[to] == OPEN)
					closing[edge] = true;
				else if (state[to] == NEW)
				{
					state[to] = OPEN;
					stack[depth++] = to;
				}
			}
		}
	}
	return closing;
}

/* The longest path to each box, by edges of which those that close a circle are turned. */
static int *
find_layers(const CrmLayered *layered, const int *upper, const int *lower)
{
	int n = layered->nboxes;
	int *layer = palloc0_array(int, Max(n, 1));
	int *missing = palloc0_array(int, Max(n, 1));
	int *queue = palloc_array(int, Max(n, 1));
	int *first = palloc0_array(int, n + 2);
	int *edges = palloc_array(int, Max(layered->nedges, 1));
	int nqueue = 0;

	for (int e = 0; e < layered->nedges; e++)
	{
		missing[lower[e]]++;
		first[upper[e] + 2]++;
	}
	for (int i = 0; i < n; i++)
		first[i + 2] += first[i + 1];
	for (int e = 0; e < layered->nedges; e++)
		edges[first[upper[e] + 1]++] = e;
	for (int i = 0; i < n; i++)
		if (missing[i] == 0)
			queue[nqueue++] = i;
	for (int i = 0; i < nqueue; i++)
		for (int k = first[queue[i]]; k < first[queue[i] + 1]; k++)
		{
			int to = lower[edges[k]];

			layer[to] = Max(layer[to], layer[queue[i]] + 1);
			if (--missing[to] == 0)
				queue[nqueue++] = to;
		}
	return layer;
}

/* ---------- cells ---------- */

static int
add_cell(CrmCells *cells, int layer, int edge, double left, double right, double height)
{
	CrmCell *cell = &cells->list[cells->n];

	cell->layer = layer;
	cell->edge = edge;
	cell->left = left;
	cell->right = right;
	cell->height = height;
	return cells->n++;
}

static void
add_link(CrmCells *cells, int upper, int lower)
{
	CrmLink *link = &cells->links[cells->nlinks++];

	link->upper = upper;
	link->lower = lower;
}

/* A cell for each box, then for each edge one in every layer between its boxes. */
static void
make_cells(CrmLayered *layered, CrmCells *cells, const int *layer, const int *upper,
		   const int *lower, int *first_cell)
{
	int64 ncells = layered->nboxes;
	int64 nlinks = 0;

	cells->nlayers = 1;
	for (int i = 0; i < layered->nboxes; i++)
		cells->nlayers = Max(cells->nlayers, 2 * layer[i] + 1);
	for (int e = 0; e < layered->nedges; e++)
	{
		int64 between = 2 * (layer[lower[e]] - layer[upper[e]]) - 1;

		ncells += between;
		nlinks += between + 1;
	}
	cells->list = MemoryContextAllocExtended(CurrentMemoryContext, sizeof(CrmCell) * Max(ncells, 1),
											 MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	cells->links = MemoryContextAllocExtended(CurrentMemoryContext,
											  sizeof(CrmLink) * Max(nlinks, 1),
											  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);

	for (int i = 0; i < layered->nboxes; i++)
	{
		const CrmLayeredBox *box = &layered->boxes[i];

		add_cell(cells, 2 * layer[i], -1, box->width / 2, box->width / 2 + box->beside,
				 box->height);
	}
	for (int e = 0; e < layered->nedges; e++)
	{
		const CrmLayeredEdge *edge = &layered->edges[e];
		int from = 2 * layer[upper[e]] + 1;
		int to = 2 * layer[lower[e]] - 1;
		int last = upper[e];

		first_cell[e] = cells->n;
		for (int at = from; at <= to; at++)
		{
			bool labelled = at == (edge->upwards ? to : from);
			double half = labelled ? edge->label_width / 2 : 0;
			int cell = add_cell(cells, at, e, half, half, labelled ? layered->label_height : 0);

			add_link(cells, last, cell);
			last = cell;
		}
		add_link(cells, last, lower[e]);
	}
}

/* ---------- the result ---------- */

#define LAYER_GAP     20.0
#define LAYER_GAP_MAX 56.0
#define PORT_GAP      16.0
#define PORT_EDGE     16.0

/* Where the layers are: further apart where links between them run far to the side. */
static double *
place_layers(const CrmCells *cells, double *heights)
{
	double *tops = palloc0_array(double, cells->nlayers + 1);
	double *shifts = palloc0_array(double, cells->nlayers + 1);

	for (int i = 0; i < cells->n; i++)
		heights[cells->list[i].layer] = Max(heights[cells->list[i].layer], cells->list[i].height);
	for (int i = 0; i < cells->nlinks; i++)
	{
		const CrmLink *link = &cells->links[i];
		double shift = fabs(cells->list[link->upper].x - cells->list[link->lower].x);
		int layer = cells->list[link->upper].layer;

		shifts[layer] = Max(shifts[layer], shift);
	}
	for (int i = 1; i < cells->nlayers; i++)
		tops[i] = tops[i - 1] + heights[i - 1] +
			Min(LAYER_GAP_MAX, LAYER_GAP + shifts[i - 1] * 0.06);
	return tops;
}

typedef struct Port
{
	int link;
	double wanted;
} Port;

static int
compare_ports(const void *a, const void *b)
{
	const Port *one = a;
	const Port *other = b;

	if (one->wanted != other->wanted)
		return one->wanted < other->wanted ? -1 : 1;
	return one->link - other->link;
}

/*
 * Where edges leave a box below or arrive above: as near to where they come
 * from or go to as the box is wide, and apart from one another.
 */
static void
place_ports(const CrmCells *cells, int box, double width, bool below, double *ports)
{
	const CrmCell *cell = &cells->list[box];
	int n = below ? cell->nlower : cell->nupper;
	const int *links = below ? cell->lower : cell->upper;
	Port *port = palloc_array(Port, Max(n, 1));
	double *wanted = palloc_array(double, Max(n, 1));
	double *apart = palloc_array(double, Max(n, 1));
	double *weights = palloc_array(double, Max(n, 1));
	double low = cell->x - Max(width / 2 - PORT_EDGE, 0);
	double high = cell->x + Max(width / 2 - PORT_EDGE, 0);
	double gap = n > 1 ? Min(PORT_GAP, (high - low) / (n - 1)) : 0;

	for (int i = 0; i < n; i++)
	{
		const CrmLink *link = &cells->links[links[i]];

		port[i].link = links[i];
		port[i].wanted = cells->list[below ? link->lower : link->upper].x;
	}
	qsort(port, n, sizeof(Port), compare_ports);
	for (int i = 0; i < n; i++)
	{
		wanted[i] = Min(Max(port[i].wanted, low), high);
		apart[i] = gap;
		weights[i] = 1;
	}
	crm_cells_spread(n, wanted, weights, apart);
	for (int i = 0; i < n; i++)
		ports[port[i].link] = Min(Max(wanted[i], low + i * gap), high - (n - 1 - i) * gap);
	pfree(port);
	pfree(wanted);
	pfree(apart);
	pfree(weights);
}

static void
trace_edge(CrmLayered *layered, const CrmCells *cells, int e, int first, int first_link, int ncells,
		   const double *tops, const double *heights, const double *leaving, const double *arriving,
		   int upper, int lower)
{
	CrmLayeredEdge *edge = &layered->edges[e];
	CrmLayeredStop *stops = palloc_array(CrmLayeredStop, ncells + 2);
	int label = edge->upwards ? first + ncells - 1 : first;
	int n = 0;

	/* a box may be lower than its layer */
	stops[n].x = leaving[first_link];
	stops[n].y1 = layered->boxes[upper].y + layered->boxes[upper].height;
	stops[n].y2 = tops[cells->list[upper].layer] + heights[cells->list[upper].layer];
	n++;
	for (int i = first; i < first + ncells; i++)
	{
		int layer = cells->list[i].layer;

		stops[n].x = cells->list[i].x;
		stops[n].y1 = tops[layer];
		stops[n].y2 = tops[layer] + heights[layer];
		n++;
	}
	stops[n].x = arriving[first_link + ncells];
	stops[n].y1 = stops[n].y2 = layered->boxes[lower].y;
	n++;

	if (edge->upwards)
		for (int i = 0; i < (n + 1) / 2; i++)
		{
			CrmLayeredStop one = stops[i];
			CrmLayeredStop other = stops[n - 1 - i];

			stops[i] = (CrmLayeredStop){ other.x, other.y2, other.y1 };
			stops[n - 1 - i] = (CrmLayeredStop){ one.x, one.y2, one.y1 };
		}
	edge->stops = stops;
	edge->nstops = n;
	edge->label_x = cells->list[label].x;
	edge->label_y = tops[cells->list[label].layer] + heights[cells->list[label].layer] / 2;
}

void
crm_layered_place(CrmLayered *layered)
{
	int nedges = layered->nedges;
	int *first = palloc0_array(int, layered->nboxes + 2);
	int *outgoing = palloc_array(int, Max(nedges, 1));
	int *upper = palloc_array(int, Max(nedges, 1));
	int *lower = palloc_array(int, Max(nedges, 1));
	int *first_cell = palloc_array(int, Max(nedges, 1));
	CrmCells cells = { 0 };
	double *heights;
	double *tops;
	double *leaving;
	double *arriving;
	bool *closing;
	int *layer;
	int first_link = 0;

	for (int e = 0; e < nedges; e++)
		first[layered->edges[e].from + 2]++;
	for (int i = 0; i < layered->nboxes; i++)
		first[i + 2] += first[i + 1];
	for (int priority = 0; priority <= CRM_LAYERED_LAST; priority++)
		for (int e = 0; e < nedges; e++)
			if (layered->edges[e].priority == priority)
				outgoing[first[layered->edges[e].from + 1]++] = e;
	closing = closing_edges(layered, first, outgoing);
	for (int e = 0; e < nedges; e++)
	{
		CrmLayeredEdge *edge = &layered->edges[e];

		edge->upwards = closing[e];
		upper[e] = closing[e] ? edge->to : edge->from;
		lower[e] = closing[e] ? edge->from : edge->to;
	}
	layer = find_layers(layered, upper, lower);
	make_cells(layered, &cells, layer, upper, lower, first_cell);
	crm_cells_order(&cells);
	crm_cells_place(&cells);

	heights = palloc0_array(double, cells.nlayers + 1);
	tops = place_layers(&cells, heights);
	leaving = palloc_array(double, Max(cells.nlinks, 1));
	arriving = palloc_array(double, Max(cells.nlinks, 1));
	layered->width = cells.width;
	layered->height = tops[cells.nlayers - 1] + heights[cells.nlayers - 1];
	for (int i = 0; i < layered->nboxes; i++)
	{
		CrmLayeredBox *box = &layered->boxes[i];

		box->x = cells.list[i].x;
		box->y = tops[cells.list[i].layer];
		place_ports(&cells, i, box->width, true, leaving);
		place_ports(&cells, i, box->width, false, arriving);
	}
	for (int e = 0; e < nedges; e++)
	{
		int ncells = 2 * (layer[lower[e]] - layer[upper[e]]) - 1;

		trace_edge(layered, &cells, e, first_cell[e], first_link, ncells, tops, heights, leaving,
				   arriving, upper[e], lower[e]);
		first_link += ncells + 1;
	}
}
