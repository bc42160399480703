/*
 * rules.h
 *		The rule language: SQL boolean expressions over a contact's profile,
 *		checked when saved, answered for a batch of contacts at a time.
 */
#ifndef CRM_RULES_H
#define CRM_RULES_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "rules/expression.h"

/* What a rule belongs to; its run-time errors are counted under it. */
typedef struct CrmRuleUser
{
	const char *kind; /* "segment", "audience", … */
	const char *name;
} CrmRuleUser;

/*
 * For which of these contacts, ids ascending and distinct, does the rule hold
 * at as_of? A rule that fails for a contact (a division by zero, say) is false
 * for this one, and counted in crm.rule_error.
 */
extern void crm_rule_evaluate(const char *text, const CrmRuleUser *user, const int64 *contacts,
							  int ncontacts, TimestampTz as_of, bool *holds);

/*
 * due.c: how the answer of a rule over the profile depends on time alone, and
 * the next moment after as_of at which it may change for these contacts, ids
 * ascending and distinct; DT_NOEND where it cannot.
 */
extern CrmRuleTime crm_rule_time(const char *text);
extern void crm_rule_due(const char *text, const int64 *contacts, int ncontacts, TimestampTz as_of,
						 TimestampTz *due);

/* Counts a failure of a rule for a contact in crm.rule_error; called between crm_connect()s. */
extern void crm_rule_count_error(const CrmRuleUser *user, int64 contact_id, int sqlerrcode,
								 const char *message);

#endif /* CRM_RULES_H */
