/*
 * estimate.c
 *		Plans of the worker are made once, often while the tables are empty, and
 *		stay. Made for an empty queue, one that goes through all of it looks as
 *		good as one that goes by its key, and is disastrous when a campaign has
 *		filled it. So in this process the planner takes each table for a large one.
 */
#include "postgres.h"

#include "nodes/pathnodes.h"
#include "optimizer/plancat.h"

#include "dispatch/dispatch.h"

#define LEAST_ROWS  1000000
#define LEAST_PAGES (LEAST_ROWS / 50)

static get_relation_info_hook_type next_hook = NULL;

static void
take_for_large(PlannerInfo *root, Oid table, bool inherited, RelOptInfo *rel)
{
	ListCell *cell;

	if (next_hook)
		next_hook(root, table, inherited, rel);
	rel->pages = Max(rel->pages, LEAST_PAGES);
	rel->tuples = Max(rel->tuples, LEAST_ROWS);
	foreach(cell, rel->indexlist)
	{
		IndexOptInfo *index = lfirst(cell);

		index->pages = Max(index->pages, LEAST_PAGES / 4);
		index->tuples = Max(index->tuples, LEAST_ROWS);
		index->tree_height = Max(index->tree_height, 2);
	}
}

void
crm_estimate_large(void)
{
	next_hook = get_relation_info_hook;
	get_relation_info_hook = take_for_large;
}
