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
#include "rules/language.h"

struct CrmFactRule
{
	const char *text;
	CrmExpression *expression; /* of the fact's own conditions; NULL: it has none */
	bool reads_settings;
	bool has_others; /* conditions that read the contact */
	CrmRuleReads *reads;
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

/* A failure is an error. */
static void
ask_or_fail(const CrmFactQuestion *question, const CrmFactValues *facts, int nfacts)
{
	CrmExpression *expression = question->rule->expression;

	for (int i = 0; i < nfacts; i++)
		question->holds[i] = crm_expression_holds_or_fails(expression, facts[i].values,
														   facts[i].nulls, facts[i].as_of);
}

/* The same under the settings of rules, where it reads any. */
static void
ask_fixed_or_fail(const CrmFactQuestion *question, const CrmFactValues *facts, int nfacts)
{
	CrmRuleStyle outside;

	if (!question->rule->reads_settings)
	{
		ask_or_fail(question, facts, nfacts);
		return;
	}
	crm_rule_style_begin(&outside);
	PG_TRY();
	{
		ask_or_fail(question, facts, nfacts);
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
	const CrmFactQuestion *questions;
	int nquestions;
	const CrmFactValues *facts;
	int nfacts;
} Own;

static bool
may_fail(const CrmFactQuestion *question)
{
	return question->rule->expression != NULL &&
		!crm_expression_is_safe(question->rule->expression);
}

static bool
ask_all(void *arg)
{
	const Own *own = arg;

	for (int i = 0; i < own->nquestions; i++)
		if (may_fail(&own->questions[i]))
			ask_fixed_or_fail(&own->questions[i], own->facts, own->nfacts);
	return true;
}

static bool
ask_one(void *arg)
{
	const Own *own = arg;

	ask_fixed_or_fail(own->questions, own->facts, own->nfacts);
	return true;
}

/* One by one, of facts of which some fail. */
static void
ask_each(const CrmFactQuestion *question, const CrmFactValues *facts, int nfacts)
{
	for (int i = 0; i < nfacts; i++)
	{
		CrmFactQuestion part = { question->rule, question->user, &question->holds[i] };
		Own one = { &part, 1, &facts[i], 1 };
		ErrorData *error;

		if (crm_attempt(ask_one, &one, &error))
			continue;
		if (!crm_rule_is_contained(error))
			ReThrowError(error);
		part.holds[0] = false;
		SPI_connect();
		crm_rule_count_error(question->user, facts[i].contact_id, error->sqlerrcode,
							 error->message);
		SPI_finish();
		FreeErrorData(error);
	}
}

/* The conditions of the facts alone: those that may fail in one subtransaction. */
static void
ask_own(const Own *own)
{
	bool some_may_fail = false;
	ErrorData *error;

	for (int i = 0; i < own->nquestions; i++)
	{
		const CrmFactQuestion *question = &own->questions[i];

		if (question->rule->expression == NULL)
			memset(question->holds, true, sizeof(bool) * own->nfacts);
		else if (may_fail(question))
			some_may_fail = true;
		else
			ask_fixed_or_fail(question, own->facts, own->nfacts);
	}
	if (!some_may_fail || crm_attempt(ask_all, unconstify(Own *, own), &error))
		return;
	if (!crm_rule_is_contained(error))
		ReThrowError(error);
	FreeErrorData(error);
	for (int i = 0; i < own->nquestions; i++)
		if (may_fail(&own->questions[i]))
			ask_each(&own->questions[i], own->facts, own->nfacts);
}

static bool
holds_for_any(const CrmFactQuestion *question, int nfacts)
{
	return memchr(question->holds, true, sizeof(bool) * nfacts) != NULL;
}

void
crm_fact_rules_evaluate(const CrmFactQuestion *questions, int nquestions,
						const CrmFactValues *facts, int nfacts)
{
	Own own = { questions, nquestions, facts, nfacts };
	CrmOthers *others = NULL;
	int n = 0;

	ask_own(&own);
	for (int i = 0; i < nquestions; i++)
	{
		const CrmFactQuestion *question = &questions[i];

		if (!question->rule->has_others || !holds_for_any(question, nfacts))
			continue;
		if (others == NULL)
			others = palloc_array(CrmOthers, nquestions);
		others[n].text = question->rule->text;
		others[n].user = question->user;
		others[n++].holds = question->holds;
	}
	if (others == NULL)
		return;
	crm_each_ask_others(others, n, facts, nfacts);
	pfree(others);
}

void
crm_fact_rule_evaluate(CrmFactRule *rule, const CrmRuleUser *user, const CrmFactValues *facts,
					   int nfacts, bool *holds)
{
	CrmFactQuestion question = { rule, user, holds };

	crm_fact_rules_evaluate(&question, 1, facts, nfacts);
}
