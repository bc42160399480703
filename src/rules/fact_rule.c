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

const CrmRuleReads *
crm_fact_rule_reads(const CrmFactRule *rule)
{
	return rule->reads;
}

/* By the facts alone; what failed is returned, NULL where nothing did. */
static ErrorData **
ask_facts(CrmFactRule *rule, const CrmFactValues *facts, int nfacts, bool *holds)
{
	ErrorData **failures = NULL;

	for (int i = 0; i < nfacts; i++)
	{
		ErrorData *error = NULL;

		holds[i] = crm_expression_holds(rule->expression, facts[i].values, facts[i].nulls,
										facts[i].as_of, &error);
		if (error == NULL)
			continue;
		if (failures == NULL)
			failures = palloc0_array(ErrorData *, nfacts);
		failures[i] = error;
	}
	return failures;
}

/* The same under the settings of rules. */
static ErrorData **
ask_facts_fixed(CrmFactRule *rule, const CrmFactValues *facts, int nfacts, bool *holds)
{
	ErrorData **volatile failures = NULL;
	CrmRuleStyle outside;

	crm_rule_style_begin(&outside);
	PG_TRY();
	{
		failures = ask_facts(rule, facts, nfacts, holds);
	}
	PG_FINALLY();
	{
		crm_rule_style_end(&outside);
	}
	PG_END_TRY();
	return failures;
}

static void
count_failures(const CrmRuleUser *user, const CrmFactValues *facts, int nfacts,
			   ErrorData **failures)
{
	SPI_connect();
	for (int i = 0; i < nfacts; i++)
		if (failures[i] != NULL)
			crm_rule_count_error(user, facts[i].contact_id, failures[i]->sqlerrcode,
								 failures[i]->message);
	SPI_finish();
}

/* Whoever is left is asked about the contact. */
static void
ask_contacts(CrmFactRule *rule, const CrmRuleUser *user, const CrmFactValues *facts, int nfacts,
			 int nleft, bool *holds)
{
	int *places = palloc_array(int, nleft);
	int64 *contacts = palloc_array(int64, nleft);
	TimestampTz *as_of = palloc_array(TimestampTz, nleft);
	const CrmFactValues **left = palloc_array(const CrmFactValues *, nleft);
	bool *answers = palloc0_array(bool, nleft);
	CrmAsked asked = { user, nleft, contacts, as_of, left, answers };
	int n = 0;

	for (int i = 0; i < nfacts; i++)
		if (holds[i])
		{
			places[n] = i;
			contacts[n] = facts[i].contact_id;
			as_of[n] = facts[i].as_of;
			left[n++] = &facts[i];
		}
	crm_each_evaluate(rule->text, &asked);
	for (int i = 0; i < nleft; i++)
		holds[places[i]] = answers[i];
	pfree(places);
	pfree(contacts);
	pfree(as_of);
	pfree(left);
	pfree(answers);
}

void
crm_fact_rule_evaluate(CrmFactRule *rule, const CrmRuleUser *user, const CrmFactValues *facts,
					   int nfacts, bool *holds)
{
	int nleft = 0;

	if (rule->expression == NULL)
		memset(holds, true, sizeof(bool) * nfacts);
	else
	{
		ErrorData **failures = rule->reads_settings ? ask_facts_fixed(rule, facts, nfacts, holds)
													: ask_facts(rule, facts, nfacts, holds);

		if (failures != NULL)
			count_failures(user, facts, nfacts, failures);
	}
	if (!rule->has_others)
		return;
	for (int i = 0; i < nfacts; i++)
		nleft += holds[i];
	if (nleft > 0)
		ask_contacts(rule, user, facts, nfacts, nleft, holds);
}
