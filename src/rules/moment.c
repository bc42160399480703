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

/* where what grows may go back: when clocks change, and when months of different length end */
#define DAYS_SLACK   (3 * USECS_PER_HOUR)
#define MONTHS_SLACK (5 * USECS_PER_DAY)
#define DAYS_STEP    (15 * SECS_PER_MINUTE * USECS_PER_SEC)

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

static CrmSlack
slack_of_interval(const Interval *interval)
{
	return interval->month != 0 ? CRM_SLACK_MONTHS
		: interval->day != 0    ? CRM_SLACK_DAYS
								: CRM_SLACK_NONE;
}

/* By calendar arithmetic with an interval; one that is not known may be of months. */
static bool
slack_walker(Node *node, void *context)
{
	CrmSlack *slack = context;

	if (node == NULL)
		return false;
	if (IsA(node, List))
		return expression_tree_walker(node, slack_walker, context);
	if (!IsA(node, Param) && exprType(node) == INTERVALOID)
	{
		CrmSlack own = !IsA(node, Const) ? CRM_SLACK_MONTHS
			: ((Const *) node)->constisnull
			? CRM_SLACK_NONE
			: slack_of_interval(DatumGetIntervalP(((Const *) node)->constvalue));

		/* a difference of two times is no such interval */
		if (!IsA(node, OpExpr) || get_opcode(((OpExpr *) node)->opno) != F_TIMESTAMPTZ_MI)
			*slack = Max(*slack, own);
	}
	else if (IsA(node, Param) && exprType(node) == INTERVALOID)
		*slack = CRM_SLACK_MONTHS;
	return expression_tree_walker(node, slack_walker, context);
}

/* A comparison, by an operator that sorts, of what is monotone with what is fixed. */
static bool
changes_once(CrmExpression *expression, Node *node, CrmSlack *slack)
{
	OpExpr *comparison = (OpExpr *) node;
	List *meanings;
	ListCell *cell;
	bool sorts = false;
	bool left;
	bool right;
	Node *moving;

	if (!IsA(node, OpExpr) || list_length(comparison->args) != 2)
		return false;
	meanings = crm_operator_meanings(comparison->opno);
	foreach(cell, meanings)
		sorts = sorts || CRM_MEANS_ORDER(lfirst(cell));
	if (!sorts)
		return false;
	left = reads_time(expression, linitial(comparison->args));
	right = reads_time(expression, lsecond(comparison->args));
	if (left == right)
		return false;
	moving = left ? linitial(comparison->args) : lsecond(comparison->args);
	*slack = CRM_SLACK_NONE;
	(void) slack_walker(moving, slack);
	return is_monotone(expression, moving);
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
	if (expression->nmoments < CRM_MAX_MOMENTS &&
		changes_once(expression, tree, &expression->slack[expression->nmoments]))
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

/* The first instant of the day after, in the zone of rules. */
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
	/* one that comes twice begins the day the first time */
	for (TimestampTz earlier = midnight - USECS_PER_HOUR; earlier > after;)
	{
		if (crm_rule_today(earlier) == day)
			midnight = earlier;
		break;
	}
	return midnight;
}

/* Answers for a moment; what it answers may fail. */
typedef bool (*Judge)(void *arg, TimestampTz at);

/* Where the answer changes between the two, if it does so once. */
static TimestampTz
halve(Judge judge, void *arg, bool now, TimestampTz before, TimestampTz end)
{
	while (end - before > 1)
	{
		TimestampTz middle = before + (end - before) / 2;

		if (judge(arg, middle) == now)
			before = middle;
		else
			end = middle;
	}
	return end;
}

/*
 * The first change after a moment. Seen from afar there is one; near it the
 * answer may go back and forth, so there each stretch between two moments at
 * which that can happen is looked at.
 */
static TimestampTz
first_change(Judge judge, void *arg, TimestampTz after, CrmSlack slack)
{
	TimestampTz far = after < END_TIMESTAMP - 1 - HORIZON ? after + HORIZON : END_TIMESTAMP - 1;
	TimestampTz change = DT_NOEND;
	TimestampTz near = slack == CRM_SLACK_DAYS ? DAYS_SLACK : MONTHS_SLACK;
	TimestampTz before = after;
	TimestampTz last;
	bool now = judge(arg, after);

	if (far <= after)
		return DT_NOEND;
	if (judge(arg, far) != now)
		change = halve(judge, arg, now, after, far);
	if (slack == CRM_SLACK_NONE || after >= END_TIMESTAMP - near)
		return change;
	if (change != DT_NOEND && change - near > after)
		before = change - near;
	last = change == DT_NOEND ? after + near : change;
	while (before < last)
	{
		TimestampTz at = slack == CRM_SLACK_DAYS ? before - before % DAYS_STEP + DAYS_STEP
												 : crm_next_midnight(before);

		if (at > last)
			at = last;
		if (at - 1 > before && judge(arg, at - 1) != now)
			return halve(judge, arg, now, before, at - 1);
		if (judge(arg, at) != now)
			return at;
		before = at;
	}
	return change;
}

typedef struct Search
{
	CrmExpression *expression;
	int moment;
	TimestampTz after;
	TimestampTz due;
} Search;

static bool
judge_moment(void *arg, TimestampTz at)
{
	Search *search = arg;
	bool isnull;

	return crm_expression_evaluate(search->expression, search->expression->moments[search->moment],
								   at, &isnull);
}

static bool
find_due(void *arg)
{
	Search *search = arg;

	search->due = first_change(judge_moment, search, search->after,
							   search->expression->slack[search->moment]);
	return true;
}

TimestampTz
crm_expression_due(CrmExpression *expression, const Datum *values, const bool *nulls,
				   TimestampTz after)
{
	Search search = { .expression = expression, .after = after };
	TimestampTz due = DT_NOEND;

	if (expression->never || expression->time == CRM_TIME_NONE)
		return DT_NOEND;
	/* nobody was looked at in the last millennium, however old a fact is */
	if (expression->time == CRM_TIME_DAILY)
		due = crm_next_midnight(Max(after, 0));
	crm_expression_fill(expression, values, nulls);
	for (search.moment = 0; search.moment < expression->nmoments; search.moment++)
	{
		ErrorData *error;

		if (!expression->may_fail)
			(void) find_due(&search);
		else if (!crm_attempt(find_due, &search, &error))
		{
			if (!crm_rule_is_contained(error))
				ReThrowError(error);
			/* it fails at some time: so it is looked at again and again */
			FreeErrorData(error);
			search.due = crm_next_midnight(Max(after, 0));
		}
		due = Min(due, search.due);
	}
	return due;
}

TimestampTz
crm_lookback_start(TimestampTz as_of, Datum within)
{
	/* before the beginning of the calendar nothing happened */
	if (as_of < MIN_TIMESTAMP + HORIZON)
		return DT_NOBEGIN;
	return DatumGetTimestampTz(
		DirectFunctionCall2(timestamptz_mi_interval, TimestampTzGetDatum(as_of), within));
}

bool
crm_lookback_has_months(Datum within)
{
	return slack_of_interval(DatumGetIntervalP(within)) == CRM_SLACK_MONTHS;
}

typedef struct Window
{
	TimestampTz occurred_at;
	Datum within;
} Window;

static bool
has_left(void *arg, TimestampTz at)
{
	Window *window = arg;

	return crm_lookback_start(at, window->within) >= window->occurred_at;
}

TimestampTz
crm_lookback_due(TimestampTz occurred_at, Datum within, TimestampTz after)
{
	Window window = { occurred_at, within };
	CrmSlack slack = slack_of_interval(DatumGetIntervalP(within));

	if (slack != CRM_SLACK_MONTHS && occurred_at > MIN_TIMESTAMP + HORIZON &&
		occurred_at < END_TIMESTAMP - HORIZON)
	{
		TimestampTz end = DatumGetTimestampTz(
			DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(occurred_at), within));

		if (end > after && has_left(&window, end) && !has_left(&window, end - 1))
			return end;
	}
	return first_change(has_left, &window, after, slack);
}
