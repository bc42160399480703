/*
 * each.h
 *		Rules asked of contacts each at a moment of its own, and with a fact of
 *		its own; for fact_rule.c.
 */
#ifndef CRM_EACH_H
#define CRM_EACH_H

#include "postgres.h"

#include "rules/direct.h"

/* Rules over facts, but for the conditions that the fact alone decides. */
typedef struct CrmOthers CrmOthers;

/* By their texts, which must outlive it; in this context. */
extern CrmOthers *crm_others_create(const char *const *texts, int n);

/* holds[rule][fact]: is it asked, and then does it hold? */
extern void crm_others_ask(CrmOthers *others, const CrmRuleUser *const *users,
						   const CrmFactValues *facts, int nfacts, bool *const *holds);

/* Does the condition name nothing but columns of the fact and the time? */
extern bool crm_condition_is_of_fact(struct Node *condition);
extern bool crm_condition_is_of_contact(struct Node *condition); /* the others */

#endif /* CRM_EACH_H */
