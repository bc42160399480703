/*
 * sort.c
 *		The order in which facts are walked: contact by contact, by time, then
 *		by the tie-breaks that make it the same for every load order.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "profile/profile.h"

/* What decides nearly always, kept together: facts are large and many. */
typedef struct SortKey
{
	int64 contact_id;
	TimestampTz occurred_at;
	int64 place;
} SortKey;

static int
compare_facts(const void *a, const void *b)
{
	const CrmFact *left = a;
	const CrmFact *right = b;

	if (left->contact_id != right->contact_id)
		return left->contact_id < right->contact_id ? -1 : 1;
	if (left->occurred_at != right->occurred_at)
		return left->occurred_at < right->occurred_at ? -1 : 1;
	if (left->type != right->type)
		return (int) left->type - (int) right->type;
	if (left->reference != NULL && right->reference != NULL)
	{
		int order = strcmp(left->reference, right->reference);

		if (order != 0)
			return order;
	}
	else if (left->reference != NULL || right->reference != NULL)
		return left->reference != NULL ? -1 : 1;
	return (left->id > right->id) - (left->id < right->id);
}

static inline int
compare_keys(const SortKey *left, const SortKey *right, const CrmFact *facts)
{
	if (left->contact_id != right->contact_id)
		return left->contact_id < right->contact_id ? -1 : 1;
	if (left->occurred_at != right->occurred_at)
		return left->occurred_at < right->occurred_at ? -1 : 1;
	return compare_facts(&facts[left->place], &facts[right->place]);
}

#define ST_SORT             sort_keys
#define ST_ELEMENT_TYPE     SortKey
#define ST_COMPARE(a, b, c) compare_keys(a, b, c)
#define ST_COMPARE_ARG_TYPE const CrmFact
#define ST_SCOPE            static
#define ST_DEFINE
#include "lib/sort_template.h"

/* Moves each fact to the place that the sorted keys give it, along the cycles of the permutation. */
static void
put_into_order(CrmFact *facts, SortKey *keys, int64 nfacts)
{
	for (int64 start = 0; start < nfacts; start++)
	{
		CrmFact first = facts[start];
		int64 to = start;

		while (keys[to].place != start)
		{
			int64 from = keys[to].place;

			facts[to] = facts[from];
			keys[to].place = to;
			to = from;
		}
		facts[to] = first;
		keys[to].place = to;
	}
}

void
crm_facts_sort(CrmFact *facts, int64 nfacts)
{
	SortKey *keys;
	int64 sorted = 1;

	while (sorted < nfacts && compare_facts(&facts[sorted - 1], &facts[sorted]) <= 0)
		sorted++;
	if (sorted >= nfacts)
		return;
	keys = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(SortKey) * nfacts);
	for (int64 i = 0; i < nfacts; i++)
	{
		keys[i].contact_id = facts[i].contact_id;
		keys[i].occurred_at = facts[i].occurred_at;
		keys[i].place = i;
	}
	sort_keys(keys, nfacts, facts);
	put_into_order(facts, keys, nfacts);
	pfree(keys);
}
