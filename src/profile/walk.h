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

typedef struct CrmWalk
{
	const CrmDefinitions *definitions;

	/* the state, in the columns of crm.profile_counter */
	Datum values[CRM_PROFILE_COLUMNS];
	bool nulls[CRM_PROFILE_COLUMNS];
	bool counts_seen; /* events, first and last seen grow with the walk */

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

/* A fact that changes nothing but how often and when the contact was seen. */
extern void crm_walk_seen(CrmWalk *walk, TimestampTz at);

#endif /* CRM_WALK_H */
