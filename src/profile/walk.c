/*
 * walk.c
 *		One contact's facts in their order: counters, awards, stages.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "pg_crm.h"
#include "profile/walk.h"
#include "rules/rules.h"

CrmWalk *
crm_walk_create(const CrmDefinitions *definitions)
{
	CrmWalk *walk = palloc0(sizeof(CrmWalk));
	int n = Max(definitions->nachievements, 1);

	walk->definitions = definitions;
	walk->context = CurrentMemoryContext;
	walk->values = palloc0_array(Datum, definitions->nvalues);
	walk->nulls = palloc_array(bool, definitions->nvalues);
	memset(walk->nulls, true, sizeof(bool) * definitions->nvalues);
	walk->windows = palloc0_array(CrmWindowFacts, Max(definitions->nwindows, 1));
	walk->counts = palloc_array(int64, n);
	walk->amounts = palloc_array(Datum, n);
	walk->reached = palloc_array(int, n);
	walk->awards_size = 16;
	walk->awards = palloc_array(CrmAwardStep, walk->awards_size);
	walk->moves_size = 16;
	walk->moves = palloc_array(CrmStageStep, walk->moves_size);
	walk->followed_size = 4;
	walk->followed_accounts = palloc_array(int64, walk->followed_size);
	walk->followed_since = palloc_array(TimestampTz, walk->followed_size);
	return walk;
}

static void
set_value(CrmWalk *walk, CrmProfileColumn column, Datum value)
{
	walk->values[column] = value;
	walk->nulls[column] = false;
}

static void
add_one(CrmWalk *walk, CrmProfileColumn column)
{
	walk->values[column] = Int64GetDatum(DatumGetInt64(walk->values[column]) + 1);
}

static int
find_stage(const CrmDefinitions *definitions, const char *stage, int len)
{
	for (int i = 0; i < definitions->nstages; i++)
		if (strncmp(definitions->stages[i].stage, stage, len) == 0 &&
			definitions->stages[i].stage[len] == '\0')
			return i;
	return -1;
}

/* Each contact's first failure of a rule is kept, up to so many. */
#define MAX_ERRORS 1000

static void
note_error(CrmWalk *walk, const char *kind, const char *name, ErrorData *error)
{
	int64 contact_id = DatumGetInt64(walk->values[CRM_P_CONTACT_ID]);
	MemoryContext old;

	for (int i = walk->nerrors - 1; i >= 0 && walk->errors[i].contact_id == contact_id; i--)
		if (walk->errors[i].kind == kind && walk->errors[i].name == name)
			return;
	if (walk->nerrors == MAX_ERRORS)
		return;
	old = MemoryContextSwitchTo(walk->context);
	if (walk->errors == NULL)
		walk->errors = palloc_array(CrmWalkError, MAX_ERRORS);
	walk->errors[walk->nerrors].contact_id = contact_id;
	walk->errors[walk->nerrors].kind = kind;
	walk->errors[walk->nerrors].name = name;
	walk->errors[walk->nerrors].sqlerrcode = error->sqlerrcode;
	walk->errors[walk->nerrors++].message = pstrdup(error->message);
	MemoryContextSwitchTo(old);
}

void
crm_walk_count_errors(CrmWalk *walk)
{
	for (int i = 0; i < walk->nerrors; i++)
	{
		CrmRuleUser user = { walk->errors[i].kind, walk->errors[i].name };

		crm_rule_count_error(&user, walk->errors[i].contact_id, walk->errors[i].sqlerrcode,
							 walk->errors[i].message);
	}
	walk->nerrors = 0;
}

static bool
holds(CrmWalk *walk, CrmExpression *rule, const char *kind, const char *name, TimestampTz at)
{
	ErrorData *error = NULL;
	bool answer = crm_expression_holds(rule, walk->values, walk->nulls, at, &error);

	if (error != NULL)
	{
		note_error(walk, kind, name, error);
		FreeErrorData(error);
	}
	return answer;
}

static bool
stage_holds(CrmWalk *walk, int stage)
{
	const CrmStage *candidate = &walk->definitions->stages[stage];

	return candidate->rule != NULL &&
		holds(walk, candidate->rule, "stage_rule", candidate->stage, walk->decided_at);
}

/* Takes a fact into the rule functions that look at its kind. */
static void
see_in_windows(CrmWalk *walk, const CrmFact *fact)
{
	const CrmDefinitions *definitions = walk->definitions;

	for (int i = 0; i < definitions->nwindows; i++)
	{
		const CrmWindow *window = &definitions->windows[i];
		CrmWindowFacts *facts = &walk->windows[i];

		if (window->type != fact->type ||
			(window->type == CRM_FACT_EVENT && window->kind != fact->kind) ||
			(window->type == CRM_FACT_PURCHASE && !fact->counted) ||
			(window->measure == CRM_WINDOW_SPENT && !fact->own_currency))
			continue;
		if (facts->n == facts->size)
		{
			MemoryContext old = MemoryContextSwitchTo(walk->context);

			facts->size = facts->size == 0 ? 16 : facts->size * 2;
			facts->times = facts->times == NULL
				? palloc_array(TimestampTz, facts->size)
				: repalloc_huge(facts->times, sizeof(TimestampTz) * facts->size);
			facts->amounts = facts->amounts == NULL
				? palloc_array(Datum, facts->size)
				: repalloc_huge(facts->amounts, sizeof(Datum) * facts->size);
			MemoryContextSwitchTo(old);
		}
		facts->times[facts->n] = fact->occurred_at;
		facts->amounts[facts->n] = fact->amount;
		facts->n++;
		if (window->measure == CRM_WINDOW_SPENT)
			facts->sum = DirectFunctionCall2(numeric_add, facts->sum, fact->amount);
	}
}

/* The values of the rule functions as of a time: facts that are too old leave. */
static void
count_windows(CrmWalk *walk, TimestampTz as_of)
{
	const CrmDefinitions *definitions = walk->definitions;

	for (int i = 0; i < definitions->nwindows; i++)
	{
		const CrmWindow *window = &definitions->windows[i];
		CrmWindowFacts *facts = &walk->windows[i];
		int64 count;

		if (window->bounded && facts->n > 0)
		{
			TimestampTz since = crm_lookback_start(as_of, window->within);

			for (; facts->nleft < facts->n && facts->times[facts->nleft] <= since; facts->nleft++)
				if (window->measure == CRM_WINDOW_SPENT)
					facts->sum = DirectFunctionCall2(numeric_sub, facts->sum,
													 facts->amounts[facts->nleft]);
			/* a month before goes back at the end of a longer one */
			for (; facts->nleft > 0 && facts->times[facts->nleft - 1] > since; facts->nleft--)
				if (window->measure == CRM_WINDOW_SPENT)
					facts->sum = DirectFunctionCall2(numeric_add, facts->sum,
													 facts->amounts[facts->nleft - 1]);
		}
		count = facts->n - facts->nleft;
		walk->nulls[CRM_FIRST_WINDOW + i] = false;
		walk->values[CRM_FIRST_WINDOW + i] = window->measure == CRM_WINDOW_TIMES
			? Int64GetDatum(count)
			: window->measure == CRM_WINDOW_DID ? BoolGetDatum(count > 0)
												: facts->sum;
	}
}

/* The first unranked stage whose rule holds, -1 if none. */
static int
unranked_by_rules(CrmWalk *walk)
{
	const CrmDefinitions *definitions = walk->definitions;

	for (int i = 0; i < definitions->nstages && !definitions->stages[i].ranked; i++)
		if (stage_holds(walk, i))
			return i;
	return -1;
}

/*
 * The ranked stage that the rules give: the highest that holds, but none below
 * the highest so far unless its rule lets contacts fall.
 */
static int
ranked_by_rules(CrmWalk *walk)
{
	const CrmDefinitions *definitions = walk->definitions;

	for (int i = 0; i < definitions->nstages; i++)
	{
		const CrmStage *candidate = &definitions->stages[i];

		if (!candidate->ranked)
			continue;
		if (walk->floor >= 0 && candidate->rank <= definitions->stages[walk->floor].rank &&
			!definitions->may_regress)
			break;
		if (stage_holds(walk, i))
		{
			if (walk->floor < 0 || candidate->rank >= definitions->stages[walk->floor].rank ||
				candidate->allow_regress)
				return i;
			break;
		}
	}
	return walk->floor;
}

/* Does a stage found by rules stand above one that was set by hand? */
static bool
outranks(CrmWalk *walk, int by_rules, int by_hand)
{
	const CrmStage *rules = &walk->definitions->stages[by_rules];
	const CrmStage *hand = &walk->definitions->stages[by_hand];

	if (rules->ranked != hand->ranked)
		return !rules->ranked;
	return rules->ranked ? rules->rank > hand->rank : rules->position < hand->position;
}

static void
move_to(CrmWalk *walk, int stage, TimestampTz at, const char *reason)
{
	int before;

	if (stage < 0)
		return;

	/* moves at one instant collapse into the last */
	if (walk->nmoves > 0 && walk->moves[walk->nmoves - 1].since == at)
	{
		if (stage == walk->stage)
			return;
		walk->nmoves--;
	}
	else if (stage == walk->stage)
		return;

	before = walk->nmoves > 0 ? walk->moves[walk->nmoves - 1].stage : walk->opening_stage;
	walk->stage = stage;
	if (stage == before)
		return;
	if (walk->nmoves == walk->moves_size)
	{
		walk->moves_size *= 2;
		walk->moves = repalloc_array(walk->moves, CrmStageStep, walk->moves_size);
	}
	walk->moves[walk->nmoves].since = at;
	walk->moves[walk->nmoves].stage = stage;
	walk->moves[walk->nmoves].reason = reason;
	walk->nmoves++;
}

static void
note_stage(CrmWalk *walk)
{
	const CrmDefinitions *definitions = walk->definitions;

	if (walk->stage >= 0)
		set_value(walk, CRM_P_STAGE, definitions->stages[walk->stage].stage_text);
	if (walk->nmoves > 0)
		set_value(walk, CRM_P_STAGE_SINCE,
				  TimestampTzGetDatum(walk->moves[walk->nmoves - 1].since));
	if (walk->floor >= 0)
		set_value(walk, CRM_P_RANKED_STAGE, definitions->stages[walk->floor].stage_text);
	set_value(walk, CRM_P_STAGE_MANUAL, BoolGetDatum(walk->manual));
}

static void
decide_stage(CrmWalk *walk, TimestampTz at, const char *reason)
{
	int unranked;
	int by_rules;

	walk->decided_at = at;
	count_windows(walk, at);
	unranked = unranked_by_rules(walk);
	walk->floor = ranked_by_rules(walk);
	by_rules = unranked >= 0 ? unranked : walk->floor;

	if (walk->manual)
	{
		if (by_rules < 0 || walk->stage < 0 || !outranks(walk, by_rules, walk->stage))
			return;
		walk->manual = false;
	}
	move_to(walk, by_rules, at, reason);
}

TimestampTz
crm_walk_due(CrmWalk *walk)
{
	const CrmDefinitions *definitions = walk->definitions;
	TimestampTz due = DT_NOEND;

	if (!definitions->stages_read_time)
		return due;
	for (int i = 0; i < definitions->nstages; i++)
	{
		TimestampTz moment;

		if (!definitions->stages[i].reads_time)
			continue;
		moment = crm_expression_due(definitions->stages[i].rule, walk->values, walk->nulls,
									walk->decided_at);
		due = Min(due, moment);
	}
	for (int i = 0; i < definitions->nwindows; i++)
	{
		const CrmWindowFacts *facts = &walk->windows[i];

		if (!definitions->windows[i].bounded)
			continue;
		/* the next one to leave, and the last one that has: it may come again */
		for (int k = facts->nleft - 1; k <= facts->nleft; k++)
		{
			TimestampTz moment;

			if (k < 0 || k >= facts->n ||
				(k < facts->nleft && !crm_lookback_has_months(definitions->windows[i].within)))
				continue;
			moment = crm_lookback_due(facts->times[k], definitions->windows[i].within,
									  walk->decided_at);
			due = Min(due, moment);
		}
	}
	/* whatever is found, time goes on */
	return due > walk->decided_at ? due : walk->decided_at + 1;
}

void
crm_walk_advance(CrmWalk *walk, TimestampTz until)
{
	TimestampTz due;

	if (!walk->definitions->stages_read_time)
		return;
	while ((due = crm_walk_due(walk)) <= until)
	{
		int stage = walk->stage;
		int floor = walk->floor;
		bool manual = walk->manual;

		CHECK_FOR_INTERRUPTS();
		decide_stage(walk, due, "time");
		if (walk->stage == stage && walk->floor == floor && walk->manual == manual)
			continue;
		/* what comes before this move is late */
		set_value(walk, CRM_P_SETTLED_AT, TimestampTzGetDatum(due));
		note_stage(walk);
	}
}

void
crm_walk_begin(CrmWalk *walk, int64 contact_id, TimestampTz begin)
{
	const CrmDefinitions *definitions = walk->definitions;
	Datum zero = NumericGetDatum(int64_to_numeric(0));

	for (int i = 0; i < CRM_FIRST_WINDOW; i++)
	{
		walk->values[i] = Int64GetDatum(0);
		walk->nulls[i] = true;
	}
	for (int i = 0; i < definitions->nwindows; i++)
	{
		walk->windows[i].n = walk->windows[i].nleft = 0;
		walk->windows[i].sum = zero;
	}
	set_value(walk, CRM_P_CONTACT_ID, Int64GetDatum(contact_id));
	set_value(walk, CRM_P_ORDERS, Int64GetDatum(0));
	set_value(walk, CRM_P_SPEND, zero);
	set_value(walk, CRM_P_REFUNDS, Int64GetDatum(0));
	set_value(walk, CRM_P_SCANS, Int64GetDatum(0));
	set_value(walk, CRM_P_RAW_SCANS, Int64GetDatum(0));
	set_value(walk, CRM_P_EVENTS, Int64GetDatum(0));
	set_value(walk, CRM_P_SETTLED_AT, TimestampTzGetDatum(begin));
	for (int i = 0; i < definitions->nachievements; i++)
	{
		walk->counts[i] = 0;
		walk->amounts[i] = zero;
		walk->reached[i] = 0;
	}
	walk->counts_seen = true;
	walk->nfollowed = walk->nawards = walk->nmoves = 0;
	walk->stage = walk->opening_stage = walk->floor = -1;
	walk->manual = false;
	decide_stage(walk, begin, "opening");
	note_stage(walk);
}

static int
stored_stage(CrmWalk *walk, CrmProfileColumn column)
{
	text *stage;

	if (walk->nulls[column])
		return -1;
	stage = DatumGetTextPP(walk->values[column]);
	return find_stage(walk->definitions, VARDATA_ANY(stage), VARSIZE_ANY_EXHDR(stage));
}

void
crm_walk_continue(CrmWalk *walk)
{
	const CrmDefinitions *definitions = walk->definitions;

	for (int i = 0; i < definitions->nachievements; i++)
	{
		const CrmAchievement *achievement = &definitions->achievements[i];
		int reached = 0;

		if (achievement->kind != CRM_KIND_PURCHASE && achievement->kind != CRM_KIND_SCAN)
			continue;
		if (achievement->by_amount)
		{
			walk->amounts[i] = walk->values[CRM_P_SPEND];
			while (reached < achievement->nthresholds &&
				   DatumGetInt32(DirectFunctionCall2(numeric_cmp, achievement->thresholds[reached],
													 walk->amounts[i])) <= 0)
				reached++;
		}
		else
		{
			walk->counts[i] = DatumGetInt64(
				walk->values[achievement->kind == CRM_KIND_SCAN ? CRM_P_SCANS : CRM_P_ORDERS]);
			while (reached < achievement->nthresholds &&
				   achievement->counts[reached] <= walk->counts[i])
				reached++;
		}
		walk->reached[i] = reached;
	}
	walk->counts_seen = true;
	walk->nfollowed = walk->nawards = walk->nmoves = 0;
	walk->stage = walk->opening_stage = stored_stage(walk, CRM_P_STAGE);
	walk->floor = stored_stage(walk, CRM_P_RANKED_STAGE);
	walk->manual = DatumGetBool(walk->values[CRM_P_STAGE_MANUAL]);
	walk->decided_at = DatumGetTimestampTz(walk->values[CRM_P_SETTLED_AT]);
}

static void
grant(CrmWalk *walk, int achievement, const CrmFact *fact)
{
	CrmAwardStep *award;

	if (walk->nawards == walk->awards_size)
	{
		walk->awards_size *= 2;
		walk->awards = repalloc_array(walk->awards, CrmAwardStep, walk->awards_size);
	}
	award = &walk->awards[walk->nawards++];
	award->achievement = achievement;
	award->threshold = walk->reached[achievement]++;
	award->awarded_at = fact->occurred_at;
	award->source_id = fact->id;
}

static void
step_achievements(CrmWalk *walk, const CrmFact *fact, int kind)
{
	const CrmDefinitions *definitions = walk->definitions;
	bool at_hand = false; /* the values of the fact */

	for (int i = 0; i < definitions->nachievements; i++)
	{
		const CrmAchievement *achievement = &definitions->achievements[i];

		if (achievement->kind != kind || walk->reached[i] == achievement->nthresholds)
			continue;
		if (achievement->rule != NULL)
		{
			if (!at_hand)
				crm_fact_values(definitions, fact, walk->values + CRM_PROFILE_COLUMNS,
								walk->nulls + CRM_PROFILE_COLUMNS);
			at_hand = true;
			if (!holds(walk, achievement->rule, "achievement", achievement->name,
					   fact->occurred_at))
				continue;
		}
		if (!achievement->by_amount)
		{
			walk->counts[i]++;
			while (walk->reached[i] < achievement->nthresholds &&
				   achievement->counts[walk->reached[i]] <= walk->counts[i])
				grant(walk, i, fact);
		}
		else if (fact->own_currency)
		{
			walk->amounts[i] = DirectFunctionCall2(numeric_add, walk->amounts[i], fact->amount);
			while (walk->reached[i] < achievement->nthresholds &&
				   DatumGetInt32(DirectFunctionCall2(numeric_cmp,
													 achievement->thresholds[walk->reached[i]],
													 walk->amounts[i])) <= 0)
				grant(walk, i, fact);
		}
	}
}

static void
step_purchase(CrmWalk *walk, const CrmFact *fact)
{
	if (!fact->counted)
		return;
	add_one(walk, CRM_P_ORDERS);
	if (fact->own_currency)
		walk->values[CRM_P_SPEND] = DirectFunctionCall2(numeric_add, walk->values[CRM_P_SPEND],
														fact->amount);
	if (walk->nulls[CRM_P_FIRST_ORDER_AT])
		set_value(walk, CRM_P_FIRST_ORDER_AT, TimestampTzGetDatum(fact->occurred_at));
	set_value(walk, CRM_P_LAST_ORDER_AT, TimestampTzGetDatum(fact->occurred_at));
	step_achievements(walk, fact, CRM_KIND_PURCHASE);
}

/* followed_at is the earliest beginning among the accounts still followed */
static void
step_follow(CrmWalk *walk, const CrmFact *fact)
{
	int place = 0;

	while (place < walk->nfollowed && walk->followed_accounts[place] != fact->account_id)
		place++;
	if (fact->kind == CRM_KIND_FOLLOW && place == walk->nfollowed)
	{
		if (walk->nfollowed == walk->followed_size)
		{
			walk->followed_size *= 2;
			walk->followed_accounts = repalloc_array(walk->followed_accounts, int64,
													 walk->followed_size);
			walk->followed_since = repalloc_array(walk->followed_since, TimestampTz,
												  walk->followed_size);
		}
		walk->followed_accounts[place] = fact->account_id;
		walk->followed_since[place] = fact->occurred_at;
		walk->nfollowed++;
	}
	else if (fact->kind == CRM_KIND_UNFOLLOW && place < walk->nfollowed)
	{
		walk->nfollowed--;
		walk->followed_accounts[place] = walk->followed_accounts[walk->nfollowed];
		walk->followed_since[place] = walk->followed_since[walk->nfollowed];
	}

	walk->nulls[CRM_P_FOLLOWED_AT] = walk->nfollowed == 0;
	walk->values[CRM_P_FOLLOWED_AT] = (Datum) 0;
	for (int i = 0; i < walk->nfollowed; i++)
		if (i == 0 ||
			walk->followed_since[i] < DatumGetTimestampTz(walk->values[CRM_P_FOLLOWED_AT]))
			walk->values[CRM_P_FOLLOWED_AT] = TimestampTzGetDatum(walk->followed_since[i]);
}

static void
see(CrmWalk *walk, TimestampTz at)
{
	if (walk->nulls[CRM_P_FIRST_SEEN_AT] ||
		at < DatumGetTimestampTz(walk->values[CRM_P_FIRST_SEEN_AT]))
		set_value(walk, CRM_P_FIRST_SEEN_AT, TimestampTzGetDatum(at));
	if (walk->nulls[CRM_P_LAST_SEEN_AT] ||
		at > DatumGetTimestampTz(walk->values[CRM_P_LAST_SEEN_AT]))
		set_value(walk, CRM_P_LAST_SEEN_AT, TimestampTzGetDatum(at));
}

void
crm_walk_seen(CrmWalk *walk, TimestampTz at)
{
	add_one(walk, CRM_P_EVENTS);
	see(walk, at);
}

bool
crm_is_plain_event(const CrmDefinitions *definitions, const CrmFact *fact)
{
	return fact->type == CRM_FACT_EVENT && fact->kind < 0 && !definitions->every_fact_matters;
}

void
crm_walk_step(CrmWalk *walk, const CrmFact *fact)
{
	const char *reason = "rule";
	bool plain = crm_is_plain_event(walk->definitions, fact);

	if (!walk->manual && plain)
		return;

	/* what time alone brought before it, the end of a stage set by hand for one */
	crm_walk_advance(walk, fact->occurred_at - 1);
	if (!walk->manual && plain)
		return;
	see_in_windows(walk, fact);
	switch (fact->type)
	{
		case CRM_FACT_MOBILE:
			set_value(walk, CRM_P_MOBILE_AT, TimestampTzGetDatum(fact->occurred_at));
			break;
		case CRM_FACT_EVENT:
			if (fact->change != NULL)
			{
				walk->values[CRM_FIRST_FIELD + fact->change->field] = fact->change->new;
				walk->nulls[CRM_FIRST_FIELD + fact->change->field] = fact->change->new_null;
			}
			if (walk->counts_seen && !fact->unseen)
				add_one(walk, CRM_P_EVENTS);
			if (fact->kind == CRM_KIND_FOLLOW || fact->kind == CRM_KIND_UNFOLLOW)
				step_follow(walk, fact);
			if (fact->kind >= 0)
				step_achievements(walk, fact, fact->kind);
			break;
		case CRM_FACT_SCAN:
			add_one(walk, CRM_P_RAW_SCANS);
			if (fact->counted)
			{
				add_one(walk, CRM_P_SCANS);
				step_achievements(walk, fact, CRM_KIND_SCAN);
			}
			break;
		case CRM_FACT_PURCHASE:
			step_purchase(walk, fact);
			break;
		case CRM_FACT_REFUND:
			/* works through the net amount of its order */
			add_one(walk, CRM_P_REFUNDS);
			if (walk->definitions->nwindows == 0)
				return;
			break;
		case CRM_FACT_MANUAL_STAGE:
			if (walk->counts_seen)
				add_one(walk, CRM_P_EVENTS);
			break;
	}
	if (walk->counts_seen && fact->type != CRM_FACT_MOBILE && fact->type != CRM_FACT_REFUND &&
		!fact->unseen)
		see(walk, fact->occurred_at);

	if (fact->type == CRM_FACT_MANUAL_STAGE)
	{
		int stage = fact->detail == NULL
			? -1
			: find_stage(walk->definitions, fact->detail, strlen(fact->detail));

		walk->decided_at = fact->occurred_at;
		count_windows(walk, fact->occurred_at);
		walk->floor = ranked_by_rules(walk);
		walk->manual = stage >= 0;
		if (walk->manual)
			move_to(walk, stage, fact->occurred_at, fact->reason);
		else
			decide_stage(walk, fact->occurred_at, fact->reason);
	}
	else
		decide_stage(walk, fact->occurred_at, reason);
	set_value(walk, CRM_P_SETTLED_AT, TimestampTzGetDatum(fact->occurred_at));
	note_stage(walk);
}
