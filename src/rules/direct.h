/*
 * direct.h
 *		A rule asked of contacts without a plan: their rows are found by their
 *		keys, and the rule is evaluated on them.
 */
#ifndef CRM_DIRECT_H
#define CRM_DIRECT_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "nodes/parsenodes.h"
#include "utils/elog.h"

#include "rules/fact_rule.h"
#include "rules/guard.h"

typedef struct CrmDirectRule CrmDirectRule;

/*
 * Of the statement of a rule for one contact (CRM_RULE_ONE), in this context. NULL where a
 * plan is needed: for rule functions that read facts, or a profile that is not as pg_crm makes it.
 */
extern CrmDirectRule *crm_direct_compile(Query *query, MemoryContext context);

/* What is asked of contacts, in any order and as often as you like. */
typedef struct CrmAsked
{
	const CrmRuleUser *user;
	int n;
	const int64 *contacts;
	const TimestampTz *as_of;
	const CrmFactValues *const *facts; /* NULL: the rule is over the profile alone */
	bool *holds;                       /* the answers */
} CrmAsked;

/*
 * Asks, and counts failures. False is returned, and nothing said, where a plan
 * must be asked: row security or the like on the tables, or *stale once they are locked.
 */
extern bool crm_direct_ask(CrmDirectRule *rule, const bool *stale, const CrmAsked *asked);

extern bool crm_direct_may_fail(const CrmDirectRule *rule);

/* Over the columns of its rows; NULL: it has none, or may fail. */
extern const CrmGuard *crm_direct_guard(const CrmDirectRule *rule);

/* What is asked of several rules. */
typedef struct CrmAskedTogether
{
	int n;
	CrmDirectRule *const *rules;
	CrmScreen *screen; /* of their guards, or NULL */
	const CrmFactValues *facts;
	int nfacts;
	bool *const *holds; /* holds[rule][fact]: is it asked, and then does it hold? */
} CrmAskedTogether;

/* A failure is an error. Else as crm_direct_ask(). */
extern bool crm_direct_ask_together(const CrmAskedTogether *asked, const bool *stale);

/* The contact failed; it is the first of these. */
extern void crm_asked_failed(const CrmAsked *asked, ErrorData *error);
extern CrmAsked crm_asked_part(const CrmAsked *asked, int start, int n);

#endif /* CRM_DIRECT_H */
