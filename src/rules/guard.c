/*
 * guard.c
 *		What a rule wants of one value at least, and the search among the guards
 *		of many rules.
 */
#include "postgres.h"

#include "access/nbtree.h"
#include "access/stratnum.h"
#include "fmgr.h"
#include "nodes/nodeFuncs.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "rules/guard.h"

/* guards on a value from which on they are searched */
#define LEAST_GROUP 4

/* Guards alike but for their bounds, these in ascending order. */
typedef struct Group
{
	int column;
	CrmGuardKind kind;
	Oid order;
	Oid collation;
	FmgrInfo compare;
	int n;
	Datum *bounds;
	int *rules; /* their places */
} Group;

struct CrmScreen
{
	int ngroups;
	Group *groups;
};

/* ---- finding the guard of a rule */

static CrmGuardKind
kind_of(int strategy)
{
	switch (strategy)
	{
		case BTLessStrategyNumber:
		case BTLessEqualStrategyNumber:
			return CRM_GUARD_AT_MOST;
		case BTEqualStrategyNumber:
			return CRM_GUARD_EQUAL;
		default:
			return CRM_GUARD_AT_LEAST;
	}
}

static CrmGuardKind
turned(CrmGuardKind kind)
{
	return kind == CRM_GUARD_AT_MOST ? CRM_GUARD_AT_LEAST
		: kind == CRM_GUARD_AT_LEAST ? CRM_GUARD_AT_MOST
									 : kind;
}

/*
 * Of a comparison of a value with a constant, in the order that is usual for its type: "<"
 * is noted as "<=", since a guard only says what cannot hold.
 */
static bool
read_comparison(const OpExpr *comparison, CrmGuardColumn column_of, const void *arg,
				CrmGuard *guard)
{
	const Node *left = linitial(comparison->args);
	const Node *right = llast(comparison->args);
	const Const *bound;
	Oid family;
	Oid left_type;
	Oid right_type;
	int strategy;
	TypeCacheEntry *type;
	bool flipped = IsA(left, Const);

	if (list_length(comparison->args) != 2 || !IsA(flipped ? left : right, Const) ||
		!column_of(flipped ? right : left, arg, &guard->column))
		return false;
	bound = (const Const *) (flipped ? left : right);
	type = lookup_type_cache(exprType(flipped ? right : left), TYPECACHE_BTREE_OPFAMILY);
	family = type->btree_opf;
	if (bound->constisnull || !OidIsValid(family) || !op_in_opfamily(comparison->opno, family))
		return false;
	get_op_opfamily_properties(comparison->opno, family, false, &strategy, &left_type, &right_type);
	guard->kind = flipped ? turned(kind_of(strategy)) : kind_of(strategy);
	guard->compare = get_opfamily_proc(family, flipped ? right_type : left_type,
									   flipped ? left_type : right_type, BTORDER_PROC);
	guard->order = get_opfamily_proc(family, bound->consttype, bound->consttype, BTORDER_PROC);
	guard->collation = comparison->inputcollid;
	guard->bound = bound->constvalue;
	if (!OidIsValid(guard->compare) || !OidIsValid(guard->order))
		return false;
	guard->bound = datumCopy(bound->constvalue, bound->constbyval, bound->constlen);
	return true;
}

static bool
read_condition(const Node *condition, CrmGuardColumn column_of, const void *arg, CrmGuard *guard)
{
	/* as (condition) IS TRUE stands for a condition of the rule */
	if (IsA(condition, BooleanTest) && ((const BooleanTest *) condition)->booltesttype == IS_TRUE)
		condition = (const Node *) ((const BooleanTest *) condition)->arg;
	return IsA(condition, OpExpr) &&
		read_comparison((const OpExpr *) condition, column_of, arg, guard);
}

/* That of equality, where there is one, leaves the fewest. */
CrmGuard *
crm_guard_find(const Node *condition, CrmGuardColumn column_of, const void *arg)
{
	CrmGuard *guard = palloc(sizeof(CrmGuard));
	CrmGuard found;
	bool any = false;
	ListCell *cell;

	if (condition == NULL)
		return NULL;
	if (!is_andclause(condition))
	{
		if (read_condition(condition, column_of, arg, guard))
			return guard;
		pfree(guard);
		return NULL;
	}
	foreach(cell, ((const BoolExpr *) condition)->args)
	{
		if (!read_condition(lfirst(cell), column_of, arg, &found) ||
			(any && found.kind != CRM_GUARD_EQUAL))
			continue;
		*guard = found;
		any = true;
		if (guard->kind == CRM_GUARD_EQUAL)
			break;
	}
	if (any)
		return guard;
	pfree(guard);
	return NULL;
}

/* ---- searching among many */

typedef struct Placed
{
	const CrmGuard *guard;
	int rule;
} Placed;

static bool
is_alike(const CrmGuard *a, const CrmGuard *b)
{
	return a->column == b->column && a->kind == b->kind && a->compare == b->compare &&
		a->order == b->order && a->collation == b->collation;
}

static int
compare_placed(const void *a, const void *b)
{
	const CrmGuard *left = ((const Placed *) a)->guard;
	const CrmGuard *right = ((const Placed *) b)->guard;

	return DatumGetInt32(
		OidFunctionCall2Coll(left->order, left->collation, left->bound, right->bound));
}

static void
fill_group(Group *group, Placed *placed, int n)
{
	const CrmGuard *guard = placed[0].guard;

	qsort(placed, n, sizeof(Placed), compare_placed);
	group->column = guard->column;
	group->kind = guard->kind;
	group->order = guard->order;
	group->collation = guard->collation;
	fmgr_info(guard->compare, &group->compare);
	group->n = n;
	group->bounds = palloc_array(Datum, n);
	group->rules = palloc_array(int, n);
	for (int i = 0; i < n; i++)
	{
		group->bounds[i] = placed[i].guard->bound;
		group->rules[i] = placed[i].rule;
	}
}

CrmScreen *
crm_screen_create(const CrmGuard *const *guards, int nguards)
{
	CrmScreen *screen = palloc(sizeof(CrmScreen));
	bool *taken = palloc0_array(bool, Max(nguards, 1));
	Placed *placed = palloc_array(Placed, Max(nguards, 1));

	screen->ngroups = 0;
	screen->groups = palloc_array(Group, Max(nguards / LEAST_GROUP, 1));
	for (int i = 0; i < nguards; i++)
	{
		int n = 0;

		if (guards[i] == NULL || taken[i])
			continue;
		for (int k = i; k < nguards; k++)
			if (guards[k] != NULL && is_alike(guards[i], guards[k]))
			{
				taken[k] = true;
				placed[n++] = (Placed){ guards[k], k };
			}
		if (n >= LEAST_GROUP)
			fill_group(&screen->groups[screen->ngroups++], placed, n);
	}
	pfree(taken);
	pfree(placed);
	if (screen->ngroups > 0)
		return screen;
	pfree(screen->groups);
	pfree(screen);
	return NULL;
}

/* The first whose bound is above the value; or, with or_equal, not below it. */
static int
find_bound(Group *group, Datum value, bool or_equal)
{
	int low = 0;
	int high = group->n;

	while (low < high)
	{
		int middle = (low + high) / 2;
		int order = DatumGetInt32(
			FunctionCall2Coll(&group->compare, group->collation, value, group->bounds[middle]));

		if (or_equal ? order <= 0 : order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

void
crm_screen_apply(CrmScreen *screen, CrmScreenValue value_of, const void *arg, bool *const *holds,
				 int place)
{
	for (int g = 0; g < screen->ngroups; g++)
	{
		Group *group = &screen->groups[g];
		int first = 0;
		int last = group->n;
		bool isnull;
		Datum value = value_of(arg, group->column, &isnull);

		/* those left are [first, last) */
		if (isnull)
			last = 0;
		else
		{
			if (group->kind != CRM_GUARD_AT_LEAST)
				first = find_bound(group, value, true);
			if (group->kind != CRM_GUARD_AT_MOST)
				last = find_bound(group, value, false);
		}
		for (int i = 0; i < first; i++)
			holds[group->rules[i]][place] = false;
		for (int i = Max(first, last); i < group->n; i++)
			holds[group->rules[i]][place] = false;
	}
}
