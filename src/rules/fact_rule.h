/*
 * fact_rule.h
 *		A rule over a fact and the profile of its contact: names of the fact
 *		(fact.amount, old, new …), columns of crm.profile, and rule functions.
 */
#ifndef CRM_FACT_RULE_H
#define CRM_FACT_RULE_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "rules/fact_columns.h"
#include "rules/rules.h"

typedef struct CrmFactRule CrmFactRule;

/* A fact as such a rule sees it. */
typedef struct CrmFactValues
{
	int64 contact_id;
	TimestampTz as_of;
	Datum values[CRM_FACT_COLUMNS];
	bool nulls[CRM_FACT_COLUMNS];
} CrmFactValues;

/*
 * Compiles into the current memory context. Between crm_connect() and
 * crm_disconnect(). Errors as of the rule language, with position and hint.
 */
extern CrmFactRule *crm_fact_rule_compile(const char *text);

extern const char *crm_fact_rule_text(const CrmFactRule *rule);

/* explain.c: as crm_rule_explain(), of one fact; of one of which nothing is known all is NULL */
extern void crm_fact_rule_explain(const CrmFactRule *rule, const CrmFactValues *fact,
								  CrmExplainFunction function, void *arg);

/* What it reads of the profile; its kinds are those of rule functions. */
extern const CrmRuleReads *crm_fact_rule_reads(const CrmFactRule *rule);

/*
 * For which of the facts, in any order and several of a contact, does it hold?
 * What the fact alone decides is asked without SQL; only who is left is looked
 * up. A rule that fails for a fact is false for it, and counted for its user.
 */
extern void crm_fact_rule_evaluate(CrmFactRule *rule, const CrmRuleUser *user,
								   const CrmFactValues *facts, int nfacts, bool *holds);

/*
 * The same of several rules: a contact's rows are looked up once for all of them, and where
 * many want the same value to be on some side of a constant, those that cannot hold are
 * found by a search. The set is made in this context, and the rules must outlive it.
 */
typedef struct CrmFactRules CrmFactRules;

extern CrmFactRules *crm_fact_rules_create(CrmFactRule *const *rules, int n);

/* holds[rule][fact] */
extern void crm_fact_rules_evaluate(CrmFactRules *set, const CrmRuleUser *const *users,
									const CrmFactValues *facts, int nfacts, bool *const *holds);

#endif /* CRM_FACT_RULE_H */
