/*
 * moment.c
 *		When time alone changes a rule's answer. A condition that compares what
 *		only grows with time, as as_of - last_order_at, with what time leaves
 *		alone, changes once; that moment is found by halving, with the condition
 *		itself as the judge. Any other condition that reads the time is looked at
 *		once a day.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/guc.h"
#include "rules/inputs.h"
#include "rules/language.h"

/* a condition that has not changed by then never will */
#define HORIZON (INT64CONST(200) * 366 * USECS_PER_DAY)

/* Grow with their first argument, the others being fixed; - is also falling in its second. */
static const Oid monotone_functions[] = {
	F_TIMESTAMPTZ_PL_INTERVAL,
	F_TIMESTAMPTZ_MI_INTERVAL,
	F_TIMESTAMP_PL_INTERVAL,
	F_TIMESTAMP_MI_INTERVAL,
	F_TIMESTAMPTZ_MI,
	F_TIMESTAMP_MI,
	F_DATE_PL_INTERVAL,
	F_DATE_MI_INTERVAL,
	F_DATE_PLI,
	F_DATE_MII,
	F_DATE_MI,
	F_DATE_TIMESTAMPTZ,
	F_DATE_TIMESTAMP,
	F_TIMESTAMPTZ_DATE,
	F_TIMESTAMP_DATE,
};
static const Oid differences[] = { F_TIMESTAMPTZ_MI, F_TIMESTAMP_MI, F_DATE_MI };

static bool
is_listed(const Oid *list, int n, Oid function)
{
	for (int i = 0; i < n; i++)
		if (list[i] == function)
			return true;
	return false;
}

static bool
reads_time_walker(Node *node, void *context)
{
	const CrmExpression *expression = context;

	if (node == NULL)
		return false;
	if (IsA(node, Param))
		return expression->inputs[((Param *) node)->paramid - 1].kind != CRM_INPUT_VALUE;
	return expression_tree_walker(node, reads_time_walker, context);
}

static bool
reads_time(CrmExpression *expression, Node *node)
{
	return reads_time_walker(node, expression);
}

/* Does it only grow, or only fall, with time? */
static bool
is_monotone(CrmExpression *expression, Node *node)
{
	List *arguments;
	Oid function;

	if (IsA(node, Param))
		return true;
	if (IsA(node, RelabelType))
		return is_monotone(expression, (Node *) ((RelabelType *) node)->arg);
	if (IsA(node, FuncExpr))
	{
		function = ((FuncExpr *) node)->funcid;
		arguments = ((FuncExpr *) node)->args;
	}
	else if (IsA(node, OpExpr))
	{
		function = get_opcode(((OpExpr *) node)->opno);
		arguments = ((OpExpr *) node)->args;
	}
	else
		return false;
	if (list_length(arguments) == 1)
		return is_listed(monotone_functions, lengthof(monotone_functions), function) &&
			is_monotone(expression, linitial(arguments));
	if (list_length(arguments) != 2 ||
		!is_listed(monotone_functions, lengthof(monotone_functions), function))
		return false;
	if (!reads_time(expression, lsecond(arguments)))
		return is_monotone(expression, linitial(arguments));
	return is_listed(differences, lengthof(differences), function) &&
		!reads_time(expression, linitial(arguments)) && is_monotone(expression, lsecond(arguments));
}

/* A comparison, by an operator that sorts, of what is monotone with what is fixed. */
static bool
changes_once(CrmExpression *expression, Node *node)
{
	OpExpr *comparison = (OpExpr *) node;
	List *meanings;
	ListCell *cell;
	bool sorts = false;
	bool left;
	bool right;

	if (!IsA(node, OpExpr) || list_length(comparison->args) != 2)
		return false;
	meanings = crm_operator_meanings(comparison->opno);
	foreach(cell, meanings)
		sorts = sorts || CRM_MEANS_ORDER(lfirst(cell));
	if (!sorts)
		return false;
	left = reads_time(expression, linitial(comparison->args));
	right = reads_time(expression, lsecond(comparison->args));
	return left != right &&
		is_monotone(expression, left ? linitial(comparison->args) : lsecond(comparison->args));
}

void
crm_expression_find_moments(CrmExpression *expression, Node *tree)
{
	if (tree == NULL || !reads_time(expression, tree))
		return;
	if (IsA(tree, BoolExpr))
	{
		ListCell *cell;

		foreach(cell, ((BoolExpr *) tree)->args)
			crm_expression_find_moments(expression, lfirst(cell));
		return;
	}
	if (changes_once(expression, tree) && expression->nmoments < CRM_MAX_MOMENTS)
	{
		expression->moments[expression->nmoments++] =
			ExecInitExpr(expression_planner((Expr *) copyObject(tree)), NULL);
		if (expression->time == CRM_TIME_NONE)
			expression->time = CRM_TIME_EXACT;
	}
	else
		expression->time = CRM_TIME_DAILY;
}

CrmRuleTime
crm_expression_time(const CrmExpression *expression)
{
	return expression->time;
}

TimestampTz
crm_next_midnight(TimestampTz after)
{
	DateADT day = crm_rule_today(after);
	TimestampTz midnight;

	/* one that is skipped when clocks change is the moment after it */
	do
	{
		struct pg_tm local = { 0 };
		int offset;

		day++;
		j2date(day + POSTGRES_EPOCH_JDATE, &local.tm_year, &local.tm_mon, &local.tm_mday);
		offset = DetermineTimeZoneOffset(&local, crm_guc_zone);
		if (tm2timestamp(&local, 0, &offset, &midnight) != 0)
			return DT_NOEND;
	} while (midnight <= after);
	return midnight;
}

typedef struct Search
{
	CrmExpression *expression;
	TimestampTz after;
	TimestampTz due;
} Search;

static bool
find_due(void *arg)
{
	Search *search = arg;
	CrmExpression *expression = search->expression;

	for (int i = 0; i < expression->nmoments; i++)
	{
		ExprState *state = expression->moments[i];
		TimestampTz before = search->after;
		TimestampTz end = search->after + HORIZON;
		bool isnull;
		bool now = crm_expression_evaluate(expression, state, before, &isnull);

		/* what is known already ends the search for others early */
		if (search->due < end)
			end = search->due;
		if (isnull || crm_expression_evaluate(expression, state, end, &isnull) == now)
			continue;
		while (end - before > 1)
		{
			TimestampTz middle = before + (end - before) / 2;

			if (crm_expression_evaluate(expression, state, middle, &isnull) == now)
				before = middle;
			else
				end = middle;
		}
		search->due = end;
	}
	return true;
}

TimestampTz
crm_expression_due(CrmExpression *expression, const Datum *values, const bool *nulls,
				   TimestampTz after)
{
	Search search = { .expression = expression, .after = after, .due = DT_NOEND };
	ErrorData *error;

	if (expression->never || expression->time == CRM_TIME_NONE)
		return DT_NOEND;
	if (expression->time == CRM_TIME_DAILY)
		search.due = crm_next_midnight(after);
	crm_expression_fill(expression, values, nulls);
	if (!expression->may_fail)
		(void) find_due(&search);
	else if (!crm_attempt(find_due, &search, &error))
	{
		if (!crm_rule_is_contained(error))
			ReThrowError(error);
		/* it fails at some time: so it is looked at again and again */
		FreeErrorData(error);
		return crm_next_midnight(after);
	}
	return search.due;
}

static bool
has_left(TimestampTz occurred_at, Datum within, TimestampTz as_of)
{
	return DatumGetTimestampTz(
			   DirectFunctionCall2(timestamptz_mi_interval, TimestampTzGetDatum(as_of), within)) >=
		occurred_at;
}

TimestampTz
crm_window_end(TimestampTz occurred_at, Datum within)
{
	TimestampTz end = DatumGetTimestampTz(
		DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(occurred_at), within));
	TimestampTz before;

	if (has_left(occurred_at, within, end) && !has_left(occurred_at, within, end - 1))
		return end;
	/* months and clock changes: there and back again is not the same */
	before = end - 4 * USECS_PER_DAY;
	end += 4 * USECS_PER_DAY;
	while (end - before > 1)
	{
		TimestampTz middle = before + (end - before) / 2;

		if (has_left(occurred_at, within, middle))
			end = middle;
		else
			before = middle;
	}
	return end;
}
