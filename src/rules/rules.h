/*
 * rules.h
 *		The rule language: SQL boolean expressions over a contact's profile,
 *		checked when saved, answered for a batch of contacts at a time.
 */
#ifndef CRM_RULES_H
#define CRM_RULES_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

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
 * for this one, and counted in crm.rule_error, unless user is NULL.
 */
extern void crm_rule_evaluate(const char *text, const CrmRuleUser *user, const int64 *contacts,
							  int ncontacts, TimestampTz as_of, bool *holds);

/*
 * The same of contacts in any order, which may repeat, each asked as of a time
 * of its own.
 */
extern void crm_rule_evaluate_at(const char *text, const CrmRuleUser *user, const int64 *contacts,
								 int ncontacts, const TimestampTz *as_of, bool *holds);

/*
 * due.c: how the answer of a rule over the profile depends on time alone, and
 * the next moment after as_of at which it may change for these contacts, ids
 * ascending and distinct; DT_NOEND where it cannot. As the active snapshot shows them.
 */
extern CrmRuleTime crm_rule_time(const char *text);
extern void crm_rule_due(const char *text, const int64 *contacts, int ncontacts, TimestampTz as_of,
						 TimestampTz *due);

/* explain.c: a rule or one of its conditions, for a contact */
typedef struct CrmExplained
{
	const char *part; /* its text */
	bool known;
	bool holds;
	const char *found; /* the values that it read, or why it failed; NULL: none */
} CrmExplained;
typedef void (*CrmExplainFunction)(void *arg, const CrmExplained *explained);

/* The rule first, then each of its conditions. The contact is there; between crm_connect()s. */
extern void crm_rule_explain(const char *text, int64 contact_id, TimestampTz as_of,
							 CrmExplainFunction function, void *arg);
/* Raises 23503 where the contact has no profile. */
extern void crm_rule_require_contact(int64 contact_id);

/* Is this an error by which a rule does not compile? */
extern bool crm_rule_is_broken(const ErrorData *error);

/* Counts a failure of a rule for a contact in crm.rule_error; called between crm_connect()s. */
extern void crm_rule_count_error(const CrmRuleUser *user, int64 contact_id, int sqlerrcode,
								 const char *message);

/* what a rule reads beside facts, fields and segments */
#define CRM_READS_ORDERS      (1 << 0)
#define CRM_READS_SCANS       (1 << 1)
#define CRM_READS_FOLLOWS     (1 << 2)
#define CRM_READS_MOBILE      (1 << 3)
#define CRM_READS_SEEN        (1 << 4) /* events, first and last seen */
#define CRM_READS_STAGE       (1 << 5)
#define CRM_READS_AWARDS      (1 << 6)
#define CRM_READS_SUPPRESSION (1 << 7)
#define CRM_READS_DEFINITIONS (1 << 8) /* of achievements and stages; no rule does */
#define CRM_READS_ANYTHING    (~(uint32) 0)

typedef struct CrmRuleReads
{
	uint32 topics;  /* CRM_READS_… */
	List *kinds;    /* of facts that its functions look for, char * */
	List *columns;  /* of crm.contact, char * */
	List *segments; /* that it names, char * */
} CrmRuleReads;

/*
 * reads.c: compiles the rule and says what it reads. Errors as of the rule
 * language. Between crm_connect() and crm_disconnect().
 */
extern CrmRuleReads *crm_rule_reads(const char *text);

#endif /* CRM_RULES_H */
