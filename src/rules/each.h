/*
 * each.h
 *		Rules asked of contacts each at a moment of its own, and with a fact of
 *		its own.
 */
#ifndef CRM_EACH_H
#define CRM_EACH_H

#include "postgres.h"

#include "rules/direct.h"

/* A rule over facts is asked without the conditions that the facts alone decide. */
extern void crm_each_evaluate(const char *text, const CrmAsked *asked);

/* Does the condition name nothing but columns of the fact and the time? */
extern bool crm_condition_is_of_fact(struct Node *condition);
extern bool crm_condition_is_of_contact(struct Node *condition); /* the others */

#endif /* CRM_EACH_H */
