/*
 * walk.h
 *		One contact's facts in their order: counters, awards, stages. Live
 *		inserts continue a walk from the stored counters, late facts and
 *		verify() walk from the beginning; the steps are the same.
 */
#ifndef CRM_WALK_H
#define CRM_WALK_H

#include "postgres.h"

#include "profile/definition.h"
#include "profile/profile.h"

typedef struct CrmAwardStep
{
	int achievement; /* place in the definitions */
	int threshold;
	TimestampTz awarded_at;
	int64 source_id;
} CrmAwardStep;

typedef struct CrmStageStep
{
	TimestampTz since;
	int stage; /* place in the definitions */
	const char *reason;
} CrmStageStep;

/* The facts that a rule function looks at, those that have left its interval first. */
typedef struct CrmWindowFacts
{
	int nleft; /* have left */
	int n;
	int size;
	TimestampTz *times;
	Datum *amounts;
	Datum sum; /* of those that have not */
} CrmWindowFacts;

/* A rule that failed for a contact, to be counted in crm.rule_error. */
typedef struct CrmWalkError
{
	int64 contact_id;
	const char *kind;
	const char *name;
	int sqlerrcode;
	char *message;
} CrmWalkError;

typedef struct CrmWalk
{
	const CrmDefinitions *definitions;
	MemoryContext context;

	/*
	 * What rules read: the state, in the columns of crm.profile_counter; the
	 * fact at hand; the rule functions of stage rules.
	 */
	Datum *values;
	bool *nulls;
	CrmWindowFacts *windows;
	TimestampTz decided_at; /* the stage is decided as of then */
	bool counts_seen;       /* events, first and last seen grow with the walk */

	/* running count or amount of each achievement */
	int64 *counts;
	Datum *amounts; /* numeric */
	int *reached;   /* thresholds reached so far */

	int stage;         /* -1 = none yet */
	int opening_stage; /* stage before the first step of this walk */
	int floor;         /* highest ranked stage that rules gave */
	bool manual;

	/* accounts followed, for followed_at */
	int nfollowed;
	int followed_size;
	int64 *followed_accounts;
	TimestampTz *followed_since;

	/* what the walk found */
	int nawards;
	int awards_size;
	CrmAwardStep *awards;
	int nmoves;
	int moves_size;
	CrmStageStep *moves;

	/* failures of rules, of all contacts walked */
	int nerrors;
	CrmWalkError *errors;
} CrmWalk;

/* Makes a walk; it can be begun many times. Lives in the current context. */
extern CrmWalk *crm_walk_create(const CrmDefinitions *definitions);

/* From nothing, at the moment when the history begins. */
extern void crm_walk_begin(CrmWalk *walk, int64 contact_id, TimestampTz begin);

/* From the values and nulls that the caller has filled in. */
extern void crm_walk_continue(CrmWalk *walk);

/*
 * Does an event leave all that rules read as it is? Then it matters only to a
 * stage set by hand, which rules may overtake at any fact.
 */
extern bool crm_is_plain_event(const CrmDefinitions *definitions, const CrmFact *fact);

extern void crm_walk_step(CrmWalk *walk, const CrmFact *fact);

/* Makes the moves that time alone brings until then, each at its own moment. */
extern void crm_walk_advance(CrmWalk *walk, TimestampTz until);

/* The next moment at which time alone may bring one; DT_NOEND if none. */
extern TimestampTz crm_walk_due(CrmWalk *walk);

/* Counts the failures of rules in crm.rule_error, and forgets them. */
extern void crm_walk_count_errors(CrmWalk *walk);

/* What rules read of a fact, by CrmFactColumn. */
extern void crm_fact_values(const CrmDefinitions *definitions, const CrmFact *fact, Datum *values,
							bool *nulls);

/* A fact that changes nothing but how often and when the contact was seen. */
extern void crm_walk_seen(CrmWalk *walk, TimestampTz at);

#endif /* CRM_WALK_H */
