/*
 * each.h
 *		Rules asked of contacts each at a moment of its own, and with a fact of
 *		its own; for fact_rule.c.
 */
#ifndef CRM_EACH_H
#define CRM_EACH_H

#include "postgres.h"

#include "rules/direct.h"

/* A rule over facts, but for the conditions that the fact alone decides. */
typedef struct CrmOthers
{
	const char *text;
	const CrmRuleUser *user;
	bool *holds; /* of each fact: is it asked, and then does it hold? */
} CrmOthers;

extern void crm_each_ask_others(const CrmOthers *others, int nothers, const CrmFactValues *facts,
								int nfacts);

/* Does the condition name nothing but columns of the fact and the time? */
extern bool crm_condition_is_of_fact(struct Node *condition);
extern bool crm_condition_is_of_contact(struct Node *condition); /* the others */

#endif /* CRM_EACH_H */
