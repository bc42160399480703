/*
 * layered_cells.c
 *		Orders cells in layers so that few links cross, and places them so that
 *		links are short and straight.
 */
#include "postgres.h"

#include <math.h>

#include "miscadmin.h"

#include "insight/layered_cells.h"

#define CELL_GAP 24.0 /* between two cells of a layer */
#define LINE_GAP 18.0 /* the same beside a line that passes */

#define NEARLY   6.0 /* off the straight line */

/* work that a picture is worth: sweeps get fewer the larger it is */
#define WORK 2000000

static int
sweeps_of(const CrmCells *cells, int most)
{
	return Max(2, Min(most, WORK / (cells->nlinks + 1)));
}

/* ---------- the order ---------- */

static void
link_cells(CrmCells *cells)
{
	int *uppers = palloc_array(int, Max(cells->nlinks, 1));
	int *lowers = palloc_array(int, Max(cells->nlinks, 1));

	for (int i = 0; i < cells->nlinks; i++)
	{
		cells->list[cells->links[i].upper].nlower++;
		cells->list[cells->links[i].lower].nupper++;
	}
	for (int i = 0; i < cells->n; i++)
	{
		CrmCell *cell = &cells->list[i];

		cell->upper = uppers;
		cell->lower = lowers;
		uppers += cell->nupper;
		lowers += cell->nlower;
		cell->nupper = cell->nlower = 0;
	}
	for (int i = 0; i < cells->nlinks; i++)
	{
		CrmCell *upper = &cells->list[cells->links[i].upper];
		CrmCell *lower = &cells->list[cells->links[i].lower];

		upper->lower[upper->nlower++] = i;
		lower->upper[lower->nupper++] = i;
	}
}

/* At first as a walk finds them, depth first: what belongs together stands together. */
static void
first_order(CrmCells *cells)
{
	bool *seen = palloc0_array(bool, Max(cells->n, 1));
	int *stack = palloc_array(int, cells->n + 1);
	int *next = palloc0_array(int, cells->n + 1);

	cells->layers = palloc_array(int *, cells->nlayers);
	cells->sizes = palloc0_array(int, cells->nlayers);
	for (int i = 0; i < cells->n; i++)
		cells->sizes[cells->list[i].layer]++;
	for (int i = 0; i < cells->nlayers; i++)
	{
		cells->layers[i] = palloc_array(int, Max(cells->sizes[i], 1));
		cells->sizes[i] = 0;
	}
	for (int root = 0; root < cells->n; root++)
	{
		int depth = 0;

		if (seen[root] || cells->list[root].nupper > 0)
			continue;
		stack[depth++] = root;
		seen[root] = true;
		while (depth > 0)
		{
			int at = stack[depth - 1];
			CrmCell *cell = &cells->list[at];

			if (next[at] == 0)
			{
				cell->place = cells->sizes[cell->layer]++;
				cells->layers[cell->layer][cell->place] = at;
			}
			if (next[at] == cell->nlower)
				depth--;
			else
			{
				int to = cells->links[cell->lower[next[at]]].lower;

				if (!seen[to])
				{
					seen[to] = true;
					stack[depth++] = to;
				}
			}
			next[at]++;
		}
	}
	pfree(seen);
	pfree(stack);
	pfree(next);
}

/* How often the links of two cells side by side cross, the first one being left. */
static int64
crossings_of(const CrmCells *cells, const CrmCell *left, const CrmCell *right)
{
	int64 n = 0;

	for (int i = 0; i < left->nlower; i++)
		for (int k = 0; k < right->nlower; k++)
			n += cells->list[cells->links[left->lower[i]].lower].place >
				cells->list[cells->links[right->lower[k]].lower].place;
	for (int i = 0; i < left->nupper; i++)
		for (int k = 0; k < right->nupper; k++)
			n += cells->list[cells->links[left->upper[i]].upper].place >
				cells->list[cells->links[right->upper[k]].upper].place;
	return n;
}

static int
compare_ints(const void *a, const void *b)
{
	int one = *(const int *) a;
	int other = *(const int *) b;

	return one < other ? -1 : one > other;
}

/* Crossings between all layers: inversions of the lower ends, counted by a tree of sums. */
static int64
count_crossings(const CrmCells *cells)
{
	int *tree = palloc_array(int, cells->n + 2);
	int *ends = palloc_array(int, Max(cells->nlinks, 1));
	int64 crossings = 0;

	for (int layer = 0; layer + 1 < cells->nlayers; layer++)
	{
		int size = cells->sizes[layer + 1];
		int added = 0;

		memset(tree, 0, sizeof(int) * (size + 1));
		for (int i = 0; i < cells->sizes[layer]; i++)
		{
			const CrmCell *cell = &cells->list[cells->layers[layer][i]];

			for (int k = 0; k < cell->nlower; k++)
				ends[k] = cells->list[cells->links[cell->lower[k]].lower].place;
			qsort(ends, cell->nlower, sizeof(int), compare_ints);
			for (int k = 0; k < cell->nlower; k++)
			{
				crossings += added;
				for (int at = ends[k] + 1; at > 0; at -= at & -at)
					crossings -= tree[at];
			}
			for (int k = 0; k < cell->nlower; k++)
				for (int at = ends[k] + 1; at <= size; at += at & -at)
					tree[at]++;
			added += cell->nlower;
		}
	}
	pfree(tree);
	pfree(ends);
	return crossings;
}

typedef struct Ranked
{
	int cell;
	int place;
	double centre;
} Ranked;

static int
compare_ranked(const void *a, const void *b)
{
	const Ranked *one = a;
	const Ranked *other = b;

	if (one->centre != other->centre)
		return one->centre < other->centre ? -1 : 1;
	return one->place - other->place;
}

/* Orders a layer by the mean place of what its cells are linked to in the layer before. */
static void
order_layer(CrmCells *cells, int layer, bool downwards, Ranked *ranked)
{
	for (int i = 0; i < cells->sizes[layer]; i++)
	{
		const CrmCell *cell = &cells->list[cells->layers[layer][i]];
		int n = downwards ? cell->nupper : cell->nlower;
		double sum = 0;

		for (int k = 0; k < n; k++)
			sum += downwards ? cells->list[cells->links[cell->upper[k]].upper].place
							 : cells->list[cells->links[cell->lower[k]].lower].place;
		ranked[i].cell = cells->layers[layer][i];
		ranked[i].place = i;
		ranked[i].centre = n > 0 ? sum / n : i;
	}
	qsort(ranked, cells->sizes[layer], sizeof(Ranked), compare_ranked);
	for (int i = 0; i < cells->sizes[layer]; i++)
	{
		cells->layers[layer][i] = ranked[i].cell;
		cells->list[ranked[i].cell].place = i;
	}
}

/* Exchanges neighbours while that takes crossings away. */
static void
exchange_neighbours(CrmCells *cells)
{
	bool changed = true;

	for (int pass = 0; changed && pass < 10; pass++)
	{
		CHECK_FOR_INTERRUPTS();
		changed = false;
		for (int layer = 0; layer < cells->nlayers; layer++)
			for (int i = 0; i + 1 < cells->sizes[layer]; i++)
			{
				int *at = &cells->layers[layer][i];
				CrmCell *left = &cells->list[at[0]];
				CrmCell *right = &cells->list[at[1]];

				if (crossings_of(cells, left, right) > crossings_of(cells, right, left))
				{
					int moved = at[0];

					at[0] = at[1];
					at[1] = moved;
					right->place = i;
					left->place = i + 1;
					changed = true;
				}
			}
	}
}

void
crm_cells_order(CrmCells *cells)
{
	Ranked *ranked = palloc_array(Ranked, Max(cells->n, 1));
	int *best = palloc_array(int, Max(cells->n, 1));
	int64 fewest;
	int sweeps = sweeps_of(cells, 24);

	link_cells(cells);
	first_order(cells);
	fewest = count_crossings(cells);
	for (int i = 0; i < cells->n; i++)
		best[i] = cells->list[i].place;
	for (int sweep = 0; sweep < sweeps && fewest > 0; sweep++)
	{
		bool downwards = sweep % 2 == 0;
		int64 crossings;

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < cells->nlayers; i++)
			order_layer(cells, downwards ? i : cells->nlayers - 1 - i, downwards, ranked);
		exchange_neighbours(cells);
		crossings = count_crossings(cells);
		if (crossings >= fewest)
			continue;
		fewest = crossings;
		for (int i = 0; i < cells->n; i++)
			best[i] = cells->list[i].place;
	}
	for (int i = 0; i < cells->n; i++)
	{
		cells->list[i].place = best[i];
		cells->layers[cells->list[i].layer][best[i]] = i;
	}
	pfree(ranked);
	pfree(best);
}

/* ---------- places ---------- */

/* Pool adjacent violators: neighbours that would come too near move as one block. */
void
crm_cells_spread(int n, double *values, const double *weights, const double *apart)
{
	double *offset = palloc_array(double, n + 1);
	double *mean = palloc_array(double, n + 1);
	double *weight = palloc_array(double, n + 1);
	int *length = palloc_array(int, n + 1);
	int nblocks = 0;
	int at = 0;

	for (int i = 0; i < n; i++)
	{
		offset[i] = i == 0 ? 0 : offset[i - 1] + apart[i];
		mean[nblocks] = values[i] - offset[i];
		weight[nblocks] = weights[i];
		length[nblocks++] = 1;
		while (nblocks > 1 && mean[nblocks - 2] > mean[nblocks - 1])
		{
			double both = weight[nblocks - 2] + weight[nblocks - 1];

			mean[nblocks - 2] = (mean[nblocks - 2] * weight[nblocks - 2] +
								 mean[nblocks - 1] * weight[nblocks - 1]) /
				both;
			weight[nblocks - 2] = both;
			length[nblocks - 2] += length[nblocks - 1];
			nblocks--;
		}
	}
	for (int block = 0; block < nblocks; block++)
		for (int i = 0; i < length[block]; i++, at++)
			values[at] = mean[block] + offset[at];
	pfree(offset);
	pfree(mean);
	pfree(weight);
	pfree(length);
}

static double
gap_between(const CrmCell *left, const CrmCell *right)
{
	bool line = left->height == 0 || right->height == 0;

	return left->right + (line ? LINE_GAP : CELL_GAP) + right->left;
}

/* what pulls a cell: its links, long edges to be straight, and the middle, so that nothing drifts off */
#define PULL_LINK    1.0
#define PULL_BOX     2.0 /* a link from a label to the box below */
#define PULL_EDGE    8.0
#define PULL_MIDDLE  0.03
#define ALIGN_SWEEPS 200

typedef struct Scratch
{
	double *values;
	double *weights;
	double *apart;
	double *edge_x; /* mean of the cells of each edge */
	int *edge_n;
} Scratch;

static double
pull_of(const CrmCells *cells, const CrmLink *link)
{
	bool from_edge = cells->list[link->upper].edge >= 0;
	bool to_edge = cells->list[link->lower].edge >= 0;

	return from_edge && to_edge ? PULL_EDGE : from_edge ? PULL_BOX : PULL_LINK;
}

/* Keeps the order of a layer, and its distances. */
static void
settle_layer(CrmCells *cells, int layer, Scratch *scratch)
{
	int n = cells->sizes[layer];
	const int *order = cells->layers[layer];

	for (int i = 0; i < n; i++)
		scratch->apart[i] = i == 0
			? 0
			: gap_between(&cells->list[order[i - 1]], &cells->list[order[i]]);
	crm_cells_spread(n, scratch->values, scratch->weights, scratch->apart);
	for (int i = 0; i < n; i++)
		cells->list[order[i]].x = scratch->values[i];
}

/* Puts the cells of a layer where what they are linked to is, above and below. */
static void
place_layer(CrmCells *cells, int layer, double above, double below, Scratch *scratch)
{
	for (int i = 0; i < cells->sizes[layer]; i++)
	{
		const CrmCell *cell = &cells->list[cells->layers[layer][i]];
		double sum = 0;
		double weight = PULL_MIDDLE;

		for (int k = 0; k < cell->nupper; k++)
		{
			const CrmLink *link = &cells->links[cell->upper[k]];
			double pull = pull_of(cells, link) * above;

			sum += cells->list[link->upper].x * pull;
			weight += pull;
		}
		for (int k = 0; k < cell->nlower; k++)
		{
			const CrmLink *link = &cells->links[cell->lower[k]];
			double pull = pull_of(cells, link) * below;

			sum += cells->list[link->lower].x * pull;
			weight += pull;
		}
		scratch->values[i] = sum / weight;
		scratch->weights[i] = weight;
	}
	settle_layer(cells, layer, scratch);
}

/*
 * Draws the cells of each edge together to their mean; where one cannot go
 * there, the mean comes nearer to it from sweep to sweep. Boxes stay if they can.
 */
static void
align_edges(CrmCells *cells, int nedges, Scratch *scratch)
{
	memset(scratch->edge_x, 0, sizeof(double) * nedges);
	memset(scratch->edge_n, 0, sizeof(int) * nedges);
	for (int i = 0; i < cells->n; i++)
	{
		const CrmCell *cell = &cells->list[i];

		if (cell->edge < 0)
			continue;
		scratch->edge_x[cell->edge] += cell->x;
		scratch->edge_n[cell->edge]++;
	}
	for (int layer = 0; layer < cells->nlayers; layer++)
	{
		for (int i = 0; i < cells->sizes[layer]; i++)
		{
			const CrmCell *cell = &cells->list[cells->layers[layer][i]];
			bool is_long = cell->edge >= 0 && scratch->edge_n[cell->edge] > 1;

			scratch->values[i] = is_long ? scratch->edge_x[cell->edge] / scratch->edge_n[cell->edge]
										 : cell->x;
			scratch->weights[i] = is_long ? PULL_EDGE : 1;
		}
		settle_layer(cells, layer, scratch);
	}
}

/* May the cell stand there without coming too near to its neighbours? */
static bool
may_stand(const CrmCells *cells, const CrmCell *cell, double x)
{
	const int *layer = cells->layers[cell->layer];
	int last = cells->sizes[cell->layer] - 1;
	const double tolerance = 1e-6;

	if (cell->place > 0)
	{
		const CrmCell *left = &cells->list[layer[cell->place - 1]];

		if (x - left->x < gap_between(left, cell) - tolerance)
			return false;
	}
	if (cell->place < last)
	{
		const CrmCell *right = &cells->list[layer[cell->place + 1]];

		if (right->x - x < gap_between(cell, right) - tolerance)
			return false;
	}
	return true;
}

/*
 * What is nearly straight becomes straight: from the top, each cell of an edge
 * and each end of the journey takes the x of the cell of the edge above it.
 */
static void
straighten(CrmCells *cells)
{
	for (int i = 0; i < cells->nlinks; i++)
	{
		const CrmCell *upper = &cells->list[cells->links[i].upper];
		CrmCell *lower = &cells->list[cells->links[i].lower];
		bool is_end = lower->edge < 0 && lower->nlower == 0 && lower->nupper == 1;

		if (upper->edge >= 0 &&
			(is_end || (lower->edge >= 0 && fabs(upper->x - lower->x) < NEARLY)) &&
			may_stand(cells, lower, upper->x))
			lower->x = upper->x;
	}
	for (int i = cells->nlinks - 1; i >= 0; i--)
	{
		CrmCell *upper = &cells->list[cells->links[i].upper];
		const CrmCell *lower = &cells->list[cells->links[i].lower];

		if (upper->edge >= 0 && lower->edge >= 0 && fabs(upper->x - lower->x) < NEARLY &&
			may_stand(cells, upper, lower->x))
			upper->x = lower->x;
	}
}

void
crm_cells_place(CrmCells *cells)
{
	Scratch scratch;
	int sweeps = sweeps_of(cells, 80);
	int nedges = 0;
	double left = 0;
	double right = 0;

	for (int i = 0; i < cells->n; i++)
		nedges = Max(nedges, cells->list[i].edge + 1);
	scratch.values = palloc_array(double, Max(cells->n, 1));
	scratch.weights = palloc_array(double, Max(cells->n, 1));
	scratch.apart = palloc_array(double, Max(cells->n, 1));
	scratch.edge_x = palloc_array(double, Max(nedges, 1));
	scratch.edge_n = palloc_array(int, Max(nedges, 1));

	/* all at the middle, as far as they do not overlap */
	for (int layer = 0; layer < cells->nlayers; layer++)
	{
		for (int i = 0; i < cells->sizes[layer]; i++)
		{
			scratch.values[i] = 0;
			scratch.weights[i] = 1;
		}
		settle_layer(cells, layer, &scratch);
	}
	/* from one side, as trees want it, then from both, as lines want it */
	for (int sweep = 0; sweep < sweeps; sweep++)
	{
		bool downwards = sweep % 2 == 0;
		double other = (double) sweep / sweeps;

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < cells->nlayers; i++)
			place_layer(cells, downwards ? i : cells->nlayers - 1 - i, downwards ? 1 : other,
						downwards ? other : 1, &scratch);
	}
	for (int sweep = 0; sweep < sweeps_of(cells, ALIGN_SWEEPS); sweep++)
	{
		CHECK_FOR_INTERRUPTS();
		align_edges(cells, nedges, &scratch);
	}
	straighten(cells);

	for (int i = 0; i < cells->n; i++)
	{
		const CrmCell *cell = &cells->list[i];

		left = i == 0 ? cell->x - cell->left : Min(left, cell->x - cell->left);
		right = i == 0 ? cell->x + cell->right : Max(right, cell->x + cell->right);
	}
	for (int i = 0; i < cells->n; i++)
		cells->list[i].x -= left;
	cells->width = right - left;
	pfree(scratch.values);
	pfree(scratch.weights);
	pfree(scratch.apart);
	pfree(scratch.edge_x);
	pfree(scratch.edge_n);
}
