/*
 * each.c
 *		Rules asked of contacts each at a moment of its own, and with a fact of
 *		its own: off the rows of the contacts where that can be done, else by
 *		one statement for all, in which moments and facts are rows too.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/guc.h"
#include "rules/direct.h"
#include "rules/each.h"
#include "rules/kept.h"
#include "rules/language.h"

/* rows from which on a batch is worth a plan of its own */
#define LARGE_BATCH 64

static CrmKeptRules kept_over_profile = { .tables = { "profile", "stage" } };
static CrmKeptRules kept_over_facts = { .tables = { "profile", "stage" } };

typedef struct Compiled
{
	CrmKeptRule kept;
	bool over_fact;
	bool reads_as_of;
	uint32 facts;          /* columns of the fact that it reads */
	CrmDirectRule *direct; /* for one without a plan; NULL where that cannot be done */
} Compiled;

static bool
names_others(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, ColumnRef))
	{
		List *fields = ((ColumnRef *) node)->fields;
		char *name = NameListToString(fields);

		return crm_fact_column(name) < 0 && strcmp(name, "as_of") != 0 &&
			strcmp(name, "today") != 0;
	}
	if (IsA(node, FuncCall) && crm_rule_is_function((FuncCall *) node))
		return true;
	return raw_expression_tree_walker(node, names_others, context);
}

bool
crm_condition_is_of_fact(Node *condition)
{
	return !names_others(condition, NULL);
}

bool
crm_condition_is_of_contact(Node *condition)
{
	return names_others(condition, NULL);
}

static CrmRuleTree *
read_rule(const char *text, bool over_fact, CrmRuleScope scope)
{
	CrmRuleTree *tree = palloc0(sizeof(CrmRuleTree));

	tree->each = scope != CRM_RULE_ONE;
	tree->over_fact = over_fact;
	tree->wants = over_fact ? crm_condition_is_of_contact : NULL;
	crm_rule_read_into(tree, text);
	return tree;
}

static Query *
analyze(const char *text, bool over_fact, CrmRuleScope scope, CrmRuleTree **tree)
{
	ErrorContextCallback callback;
	CrmActing acting;
	Query *query;

	crm_act_as_owner(&acting); /* for the path */
	crm_rule_point(&callback, text);
	*tree = read_rule(text, over_fact, scope);
	query = crm_rule_query(*tree, scope, NIL);
	crm_rule_point_end(&callback);
	crm_act_end(&acting);
	return query;
}

static Compiled *
find_rule(const char *text, bool over_fact)
{
	CrmKeptRules *kept = over_fact ? &kept_over_facts : &kept_over_profile;
	Compiled *rule = (Compiled *) crm_kept_find(kept, text);
	CrmRuleTree *tree;
	Query *query;

	if (rule != NULL)
		return rule;
	SPI_connect();
	rule = (Compiled *) crm_kept_create(sizeof(Compiled), text);
	query = analyze(text, over_fact, CRM_RULE_ONE, &tree);
	rule->over_fact = over_fact;
	rule->reads_as_of = tree->reads_as_of;
	rule->facts = tree->facts;
	rule->direct = crm_direct_compile(query, rule->kept.context);
	crm_kept_add(kept, &rule->kept);
	SPI_finish();
	return rule;
}

static SPIPlanPtr
find_plan(Compiled *rule, CrmRuleScope scope)
{
	SPIPlanPtr plan = rule->kept.plans[scope];
	Oid types[CRM_RULE_FACT_PARAMETERS];
	CrmRuleTree *tree;

	if (plan != NULL)
		return plan;
	crm_rule_fact_types(scope != CRM_RULE_ONE, types);
	plan = crm_rule_prepare(analyze(rule->kept.text, rule->over_fact, scope, &tree), scope, types,
							scope == CRM_RULE_ONE && !rule->over_fact ? CRM_RULE_PARAMETERS
																	  : CRM_RULE_FACT_PARAMETERS);
	SPI_keepplan(plan);
	rule->kept.plans[scope] = plan;
	return plan;
}

/* A plan for some of what is asked. */
typedef struct Run
{
	Compiled *rule;
	CrmAsked asked;
	CrmRuleScope scope;
	SPIPlanPtr plan;
} Run;

static ParamListInfo
parameters_of_one(const Run *run)
{
	ParamListInfo parameters = makeParamList(CRM_RULE_FACT_PARAMETERS);
	Datum values[CRM_RULE_PARAMETERS];

	values[CRM_RULE_CONTACTS - 1] = Int64GetDatum(run->asked.contacts[0]);
	crm_rule_values(run->asked.as_of[0], values);
	for (int i = 0; i < CRM_RULE_PARAMETERS; i++)
		crm_rule_set_parameter(parameters, i, crm_rule_one_types[i], values[i], false);
	for (int i = 0; i < CRM_FACT_COLUMNS; i++)
	{
		bool isnull = run->asked.facts == NULL || run->asked.facts[0]->nulls[i];

		crm_rule_set_parameter(parameters, CRM_RULE_PARAMETERS + i, crm_fact_variables[i].type,
							   isnull ? (Datum) 0 : run->asked.facts[0]->values[i], isnull);
	}
	return parameters;
}

static Datum
fact_array(const CrmAsked *asked, int place)
{
	CrmColumn column;

	crm_column_init(&column, crm_fact_variables[place].type);
	for (int i = 0; i < asked->n; i++)
		crm_column_add(&column, asked->facts[i]->values[place], asked->facts[i]->nulls[place]);
	return crm_column_array(&column);
}

static ParamListInfo
parameters_of_each(const Run *run)
{
	ParamListInfo parameters = makeParamList(CRM_RULE_FACT_PARAMETERS);
	Oid types[CRM_RULE_FACT_PARAMETERS];
	CrmColumn moments;
	CrmColumn days;

	crm_rule_fact_types(true, types);
	crm_column_init(&moments, TIMESTAMPTZOID);
	crm_column_init(&days, DATEOID);
	for (int i = 0; i < run->asked.n; i++)
	{
		TimestampTz as_of = run->asked.as_of[i];

		crm_column_add(&moments, TimestampTzGetDatum(as_of), false);
		crm_column_add(&days, DateADTGetDatum(crm_rule_today(as_of)), false);
	}
	for (int i = 0; i < CRM_RULE_FACT_PARAMETERS; i++)
	{
		bool isnull = i >= CRM_RULE_PARAMETERS &&
			(run->rule->facts & ((uint32) 1 << (i - CRM_RULE_PARAMETERS))) == 0;
		Datum value = (Datum) 0;

		if (i == CRM_RULE_CONTACTS - 1)
			value = crm_int64_array(run->asked.contacts, run->asked.n);
		else if (i == CRM_RULE_AS_OF - 1)
			value = crm_column_array(&moments);
		else if (i == CRM_RULE_TODAY - 1)
			value = crm_column_array(&days);
		else if (i == CRM_RULE_ZONE - 1)
			value = CStringGetTextDatum(crm_guc_time_zone);
		else if (!isnull)
			value = fact_array(&run->asked, i - CRM_RULE_PARAMETERS);
		crm_rule_set_parameter(parameters, i, types[i], value, isnull);
	}
	return parameters;
}

static bool
run_once(void *arg)
{
	Run *run = arg;

	if (run->scope == CRM_RULE_ONE)
	{
		crm_rule_run(run->plan, run->scope, parameters_of_one(run), run->asked.holds);
		return true;
	}
	crm_rule_run(run->plan, run->scope, parameters_of_each(run), NULL);
	memset(run->asked.holds, 0, sizeof(bool) * run->asked.n);
	for (uint64 i = 0; i < SPI_processed; i++)
		run->asked.holds[crm_result_int64(i, 1) - 1] = true;
	SPI_freetuptable(SPI_tuptable);
	return true;
}

static void
run_contained(Compiled *rule, const CrmAsked *asked)
{
	Run run = { .rule = rule, .asked = *asked };
	int half = asked->n / 2;
	ErrorData *error;
	CrmAsked part;

	run.scope = asked->n == 1    ? CRM_RULE_ONE
		: asked->n > LARGE_BATCH ? CRM_RULE_MANY
								 : CRM_RULE_FEW;
	run.plan = find_plan(rule, run.scope);
	if (crm_attempt(run_once, &run, &error))
		return;
	if (asked->n == 1)
	{
		crm_asked_failed(asked, error);
		return;
	}
	if (!crm_rule_is_contained(error))
		ReThrowError(error);
	FreeErrorData(error);
	CHECK_FOR_INTERRUPTS();
	part = crm_asked_part(asked, 0, half);
	run_contained(rule, &part);
	part = crm_asked_part(asked, half, asked->n - half);
	run_contained(rule, &part);
}

static void
ask(Compiled *rule, const bool *stale, const CrmAsked *asked)
{
	if (rule->direct == NULL || !crm_direct_ask(rule->direct, stale, asked))
		run_contained(rule, asked);
}

/* Over the profile. */
static void
ask_alone(const char *text, const CrmAsked *asked)
{
	CrmActing acting;
	Compiled *rule;

	crm_act_as_owner_unnamed(&acting);
	rule = find_rule(text, false);
	SPI_connect();
	/* counting a failure may run triggers, which may ask for other rules */
	crm_kept_begin(&rule->kept);
	PG_TRY();
	{
		ask(rule, &kept_over_profile.stale, asked);
	}
	PG_FINALLY();
	{
		crm_kept_end(&rule->kept);
	}
	PG_END_TRY();
	SPI_finish();
	crm_act_end(&acting);
}

/* ---- several rules over facts */

/* Those that may fail, or those that cannot: asked together, off rows that are found once. */
typedef struct Together
{
	int n;
	int *places; /* among all */
	CrmDirectRule **rules;
	CrmScreen *screen;
} Together;

struct CrmOthers
{
	int n;
	const char *const *texts;

	/* of what was looked up; it stands while no rule is dropped */
	bool known;
	uint64 generation;
	const pg_tz *zone;
	MemoryContext context;
	bool busy;
	int nheld;
	Compiled **rules;
	Together safe;
	Together failing;
};

CrmOthers *
crm_others_create(const char *const *texts, int n)
{
	CrmOthers *others = palloc0(sizeof(CrmOthers));

	others->n = n;
	others->texts = texts;
	return others;
}

static void
gather(const CrmOthers *others, Together *together, bool may_fail)
{
	const CrmGuard **guards = palloc_array(const CrmGuard *, others->n);

	together->n = 0;
	together->places = palloc_array(int, others->n);
	together->rules = palloc_array(CrmDirectRule *, others->n);
	for (int i = 0; i < others->n; i++)
	{
		CrmDirectRule *direct = others->rules[i]->direct;

		if (direct == NULL || crm_direct_may_fail(direct) != may_fail)
			continue;
		guards[together->n] = crm_direct_guard(direct);
		together->rules[together->n] = direct;
		together->places[together->n++] = i;
	}
	together->screen = crm_screen_create(guards, together->n);
}

/* Holds the compiled rules, as they may be dropped meanwhile; the caller lets them go. */
static void
hold(CrmOthers *others)
{
	uint64 generation = crm_kept_generation(&kept_over_facts);
	bool known = others->known && others->generation == generation && others->zone == crm_guc_zone;
	MemoryContext old = CurrentMemoryContext;

	others->known = false;
	if (!known && others->context == NULL)
		others->context = AllocSetContextCreate(GetMemoryChunkContext(others),
												"pg_crm rules asked together",
												ALLOCSET_SMALL_SIZES);
	if (!known)
	{
		MemoryContextReset(others->context);
		others->rules = MemoryContextAlloc(others->context, sizeof(Compiled *) * others->n);
	}
	while (others->nheld < others->n)
	{
		if (!known)
			others->rules[others->nheld] = find_rule(others->texts[others->nheld], true);
		crm_kept_begin(&others->rules[others->nheld++]->kept);
	}
	if (!known)
	{
		MemoryContextSwitchTo(others->context);
		gather(others, &others->safe, false);
		gather(others, &others->failing, true);
		MemoryContextSwitchTo(old);
	}
	others->zone = crm_guc_zone;
	others->generation = generation;
	others->known = kept_over_facts.generation == generation;
}

static void
let_go(CrmOthers *others)
{
	while (others->nheld > 0)
		crm_kept_end(&others->rules[--others->nheld]->kept);
	others->busy = false;
}

/* Those facts of which a rule is still to be asked. */
static void
ask_rest(Compiled *rule, const CrmRuleUser *user, const CrmFactValues *facts, int nfacts,
		 bool *wanted)
{
	int *places = palloc_array(int, nfacts);
	int64 *contacts = palloc_array(int64, nfacts);
	TimestampTz *as_of = palloc_array(TimestampTz, nfacts);
	const CrmFactValues **left = palloc_array(const CrmFactValues *, nfacts);
	bool *holds = palloc0_array(bool, nfacts);
	CrmAsked asked = { user, 0, contacts, as_of, left, holds };

	for (int i = 0; i < nfacts; i++)
		if (wanted[i])
		{
			places[asked.n] = i;
			contacts[asked.n] = facts[i].contact_id;
			as_of[asked.n] = facts[i].as_of;
			left[asked.n++] = &facts[i];
		}
	if (asked.n > 0)
		ask(rule, &kept_over_facts.stale, &asked);
	for (int i = 0; i < asked.n; i++)
		wanted[places[i]] = holds[i];
}

typedef struct Attempt
{
	CrmAskedTogether asked;
	bool possible;
} Attempt;

static bool
ask_together(void *arg)
{
	Attempt *attempt = arg;

	attempt->possible = crm_direct_ask_together(&attempt->asked, &kept_over_facts.stale);
	return true;
}

/* Where any may fail, in one subtransaction; false where it did, or a plan is needed. */
static bool
ask_together_contained(Attempt *attempt, bool may_fail)
{
	ErrorData *error;

	if (attempt->asked.n == 0)
		return true;
	if (!may_fail)
		(void) ask_together(attempt);
	else if (!crm_attempt(ask_together, attempt, &error))
	{
		if (!crm_rule_is_contained(error))
			ReThrowError(error);
		FreeErrorData(error);
		return false;
	}
	return attempt->possible;
}

/* Together if none fails, else each by itself. */
static void
ask_kind(CrmOthers *others, const Together *together, const CrmRuleUser *const *users,
		 const CrmFactValues *facts, int nfacts, bool *const *holds)
{
	Size size = sizeof(bool) * nfacts;
	bool *before = palloc_array(bool, (Size) together->n *nfacts);
	bool **answers = palloc_array(bool *, together->n);
	Attempt attempt = { .asked = { together->n, together->rules, together->screen, facts, nfacts,
								   answers } };

	for (int i = 0; i < together->n; i++)
	{
		answers[i] = holds[together->places[i]];
		memcpy(before + i * size, answers[i], size);
	}
	if (ask_together_contained(&attempt, together == &others->failing))
		return;
	for (int i = 0; i < together->n; i++)
	{
		int place = together->places[i];

		memcpy(answers[i], before + i * size, size);
		ask_rest(others->rules[place], users[place], facts, nfacts, answers[i]);
	}
}

static void
ask_held(CrmOthers *others, const CrmRuleUser *const *users, const CrmFactValues *facts, int nfacts,
		 bool *const *holds)
{
	hold(others);
	ask_kind(others, &others->safe, users, facts, nfacts, holds);
	/* what needs a plan is one by itself */
	for (int i = 0; i < others->n; i++)
		if (others->rules[i]->direct == NULL)
			ask_rest(others->rules[i], users[i], facts, nfacts, holds[i]);
	ask_kind(others, &others->failing, users, facts, nfacts, holds);
}

void
crm_others_ask(CrmOthers *others, const CrmRuleUser *const *users, const CrmFactValues *facts,
			   int nfacts, bool *const *holds)
{
	CrmActing acting;

	/* counting a failure may run triggers, which may ask for other rules, or for these */
	if (others->busy)
	{
		crm_others_ask(crm_others_create(others->texts, others->n), users, facts, nfacts, holds);
		return;
	}
	crm_act_as_owner_unnamed(&acting);
	SPI_connect();
	others->busy = true;
	PG_TRY();
	{
		ask_held(others, users, facts, nfacts, holds);
	}
	PG_FINALLY();
	{
		let_go(others);
	}
	PG_END_TRY();
	SPI_finish();
	crm_act_end(&acting);
}

/* Where a plan is needed, may all be asked at one moment? */
static bool
may_be_at_once(const char *text, const CrmAsked *asked)
{
	CrmActing acting;
	bool one_moment = true;
	Compiled *rule;

	for (int i = 1; i < asked->n && one_moment; i++)
		one_moment = asked->as_of[i] == asked->as_of[0];
	crm_act_as_owner_unnamed(&acting);
	rule = find_rule(text, false);
	crm_act_end(&acting);
	return rule->direct == NULL && (one_moment || !rule->reads_as_of);
}

/* At one moment, each contact once. */
static void
ask_at_once(const char *text, const CrmAsked *asked)
{
	int64 *contacts = palloc_array(int64, asked->n);
	bool *holds = palloc_array(bool, asked->n);
	int n = 0;

	memcpy(contacts, asked->contacts, sizeof(int64) * asked->n);
	qsort(contacts, asked->n, sizeof(int64), crm_compare_int64);
	for (int i = 0; i < asked->n; i++)
		if (n == 0 || contacts[n - 1] != contacts[i])
			contacts[n++] = contacts[i];
	crm_rule_evaluate(text, asked->user, contacts, n, asked->as_of[0], holds);
	for (int i = 0; i < asked->n; i++)
		asked->holds[i] = holds[(int64 *) bsearch(&asked->contacts[i], contacts, n, sizeof(int64),
												  crm_compare_int64) -
								contacts];
	pfree(contacts);
	pfree(holds);
}

void
crm_rule_evaluate_at(const char *text, const CrmRuleUser *user, const int64 *contacts,
					 int ncontacts, const TimestampTz *as_of, bool *holds)
{
	CrmAsked asked = { user, ncontacts, contacts, as_of, NULL, holds };

	if (ncontacts == 1)
		crm_rule_evaluate(text, user, contacts, 1, as_of[0], holds);
	else if (ncontacts > 0 && may_be_at_once(text, &asked))
		ask_at_once(text, &asked);
	else if (ncontacts > 0)
		ask_alone(text, &asked);
}
