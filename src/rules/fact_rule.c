/*
 * fact_rule.c
 *		A rule over a fact and the profile of its contact. The conditions that
 *		the fact alone decides are evaluated on its values; only who is left is
 *		looked up.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "utils/memutils.h"

#include "base/db.h"
#include "rules/each.h"
#include "rules/expression.h"
#include "rules/fact_rule.h"
#include "rules/guard.h"
#include "rules/language.h"

struct CrmFactRule
{
	const char *text;
	CrmExpression *expression; /* of the fact's own conditions; NULL: it has none */
	bool reads_settings;
	bool has_others; /* conditions that read the contact */
	CrmRuleReads *reads;
	CrmFactRules *alone; /* the set of it, as soon as it is asked by itself */
};

struct CrmFactRules
{
	int n;
	CrmFactRule **rules;
	CrmScreen *screen; /* of guards on the fact, or NULL */
	bool some_may_fail;
	int nothers;    /* those that have others */
	int *others_of; /* their places */
	CrmOthers *others;
};

/* Reads all of it, checks it, and notes what it reads. */
static void
check_rule(CrmFactRule *rule, MemoryContext context)
{
	CrmRuleTree *tree = palloc0(sizeof(CrmRuleTree));
	CrmRuleTree *others = palloc0(sizeof(CrmRuleTree));
	ErrorContextCallback callback;
	MemoryContext old;

	tree->over_fact = tree->each = others->over_fact = true;
	others->wants = crm_condition_is_of_contact;
	crm_rule_point(&callback, rule->text);
	crm_rule_read_into(tree, rule->text);
	(void) crm_rule_query(tree, CRM_RULE_FEW, NIL);
	crm_rule_read_into(others, rule->text);
	rule->has_others = others->tree != NULL;
	crm_rule_point_end(&callback);
	old = MemoryContextSwitchTo(context);
	rule->reads = crm_rule_reads_of(tree);
	MemoryContextSwitchTo(old);
}

CrmFactRule *
crm_fact_rule_compile(const char *text)
{
	static const CrmScope scope = { "a fact", CRM_FACT_COLUMNS, crm_fact_variables };
	CrmFactRule *rule = palloc0(sizeof(CrmFactRule));
	MemoryContext context = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(context, "pg_crm rule text",
												  ALLOCSET_DEFAULT_SIZES);

	rule->text = pstrdup(text);
	MemoryContextSwitchTo(scratch);
	check_rule(rule, context);
	MemoryContextSwitchTo(context);
	MemoryContextDelete(scratch);
	rule->expression = crm_expression_compile_part(text, &scope, crm_condition_is_of_fact);
	rule->reads_settings = rule->expression != NULL &&
		crm_expression_reads_settings(rule->expression);
	return rule;
}

const char *
crm_fact_rule_text(const CrmFactRule *rule)
{
	return rule->text;
}

const CrmRuleReads *
crm_fact_rule_reads(const CrmFactRule *rule)
{
	return rule->reads;
}

/* ---- conditions of the fact alone */

static bool
may_fail(const CrmFactRule *rule)
{
	return rule->expression != NULL && !crm_expression_is_safe(rule->expression);
}

/* Of those facts of which it is asked; a failure is an error. */
static void
ask_or_fail(const CrmFactRule *rule, const CrmFactValues *facts, int nfacts, bool *holds)
{
	for (int i = 0; i < nfacts; i++)
		if (holds[i])
			holds[i] = crm_expression_holds_or_fails(rule->expression, facts[i].values,
													 facts[i].nulls, facts[i].as_of);
}

/* The same under the settings of rules, where it reads any. */
static void
ask_fixed_or_fail(const CrmFactRule *rule, const CrmFactValues *facts, int nfacts, bool *holds)
{
	CrmRuleStyle outside;

	if (!rule->reads_settings)
	{
		ask_or_fail(rule, facts, nfacts, holds);
		return;
	}
	crm_rule_style_begin(&outside);
	PG_TRY();
	{
		ask_or_fail(rule, facts, nfacts, holds);
	}
	PG_FINALLY();
	{
		crm_rule_style_end(&outside);
	}
	PG_END_TRY();
}

/* What is asked of the facts alone. */
typedef struct Own
{
	const CrmFactRules *set;
	const CrmFactValues *facts;
	int nfacts;
	bool *const *holds;
} Own;

static bool
ask_all(void *arg)
{
	const Own *own = arg;

	for (int r = 0; r < own->set->n; r++)
		if (may_fail(own->set->rules[r]))
			ask_fixed_or_fail(own->set->rules[r], own->facts, own->nfacts, own->holds[r]);
	return true;
}

typedef struct One
{
	const CrmFactRule *rule;
	const CrmFactValues *fact;
	bool *holds;
} One;

static bool
ask_one(void *arg)
{
	const One *one = arg;

	ask_fixed_or_fail(one->rule, one->fact, 1, one->holds);
	return true;
}

/* One by one, of facts of which some fail. */
static void
ask_each(const CrmFactRule *rule, const CrmRuleUser *user, const CrmFactValues *facts, int nfacts,
		 bool *holds)
{
	for (int i = 0; i < nfacts; i++)
	{
		One one = { rule, &facts[i], &holds[i] };
		ErrorData *error;

		holds[i] = true;
		if (crm_attempt(ask_one, &one, &error))
			continue;
		if (!crm_rule_is_contained(error))
			ReThrowError(error);
		holds[i] = false;
		SPI_connect();
		crm_rule_count_error(user, facts[i].contact_id, error->sqlerrcode, error->message);
		SPI_finish();
		FreeErrorData(error);
	}
}

static Datum
fact_value(const void *arg, int column, bool *isnull)
{
	const CrmFactValues *fact = arg;

	*isnull = fact->nulls[column];
	return fact->values[column];
}

/* Those that may fail in one subtransaction, of all facts: what fails is counted. */
static void
ask_own(const Own *own, const CrmRuleUser *const *users)
{
	const CrmFactRules *set = own->set;
	ErrorData *error;

	if (set->screen != NULL)
		for (int i = 0; i < own->nfacts; i++)
			crm_screen_apply(set->screen, fact_value, &own->facts[i], own->holds, i);
	for (int r = 0; r < set->n; r++)
		if (set->rules[r]->expression != NULL && !may_fail(set->rules[r]))
			ask_fixed_or_fail(set->rules[r], own->facts, own->nfacts, own->holds[r]);
	if (!set->some_may_fail || crm_attempt(ask_all, unconstify(Own *, own), &error))
		return;
	if (!crm_rule_is_contained(error))
		ReThrowError(error);
	FreeErrorData(error);
	for (int r = 0; r < set->n; r++)
		if (may_fail(set->rules[r]))
			ask_each(set->rules[r], users[r], own->facts, own->nfacts, own->holds[r]);
}

/* ---- all of it */

CrmFactRules *
crm_fact_rules_create(CrmFactRule *const *rules, int n)
{
	CrmFactRules *set = palloc0(sizeof(CrmFactRules));
	const CrmGuard **guards = palloc0_array(const CrmGuard *, Max(n, 1));
	const char **texts = palloc_array(const char *, Max(n, 1));

	set->n = n;
	set->rules = palloc_array(CrmFactRule *, Max(n, 1));
	set->others_of = palloc_array(int, Max(n, 1));
	for (int r = 0; r < n; r++)
	{
		set->rules[r] = rules[r];
		if (rules[r]->expression != NULL)
			guards[r] = crm_expression_guard(rules[r]->expression);
		set->some_may_fail |= may_fail(rules[r]);
		if (!rules[r]->has_others)
			continue;
		texts[set->nothers] = rules[r]->text;
		set->others_of[set->nothers++] = r;
	}
	set->screen = crm_screen_create(guards, n);
	if (set->nothers > 0)
		set->others = crm_others_create(texts, set->nothers);
	pfree(guards);
	return set;
}

static void
ask_others(const CrmFactRules *set, const CrmRuleUser *const *users, const CrmFactValues *facts,
		   int nfacts, bool *const *holds)
{
	const CrmRuleUser **users_of = palloc_array(const CrmRuleUser *, set->nothers);
	bool **answers = palloc_array(bool *, set->nothers);
	bool any = false;

	for (int i = 0; i < set->nothers; i++)
	{
		users_of[i] = users[set->others_of[i]];
		answers[i] = holds[set->others_of[i]];
		any = any || memchr(answers[i], true, sizeof(bool) * nfacts) != NULL;
	}
	if (any)
		crm_others_ask(set->others, users_of, facts, nfacts, answers);
	pfree(users_of);
	pfree(answers);
}

void
crm_fact_rules_evaluate(CrmFactRules *set, const CrmRuleUser *const *users,
						const CrmFactValues *facts, int nfacts, bool *const *holds)
{
	Own own = { set, facts, nfacts, holds };

	for (int r = 0; r < set->n; r++)
		memset(holds[r], true, sizeof(bool) * nfacts);
	ask_own(&own, users);
	if (set->nothers > 0)
		ask_others(set, users, facts, nfacts, holds);
}

void
crm_fact_rule_evaluate(CrmFactRule *rule, const CrmRuleUser *user, const CrmFactValues *facts,
					   int nfacts, bool *holds)
{
	if (rule->alone == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(GetMemoryChunkContext(rule));

		rule->alone = crm_fact_rules_create(&rule, 1);
		MemoryContextSwitchTo(old);
	}
	crm_fact_rules_evaluate(rule->alone, &user, facts, nfacts, &holds);
}
