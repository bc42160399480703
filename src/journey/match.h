/*
 * match.h
 *		Runs and what is asked about them: a fact, or a rule over the profile.
 */
#ifndef CRM_JOURNEY_MATCH_H
#define CRM_JOURNEY_MATCH_H

#include "postgres.h"

#include "journey/engine.h"

typedef struct CrmMatch
{
	CrmRun *run;
	const CrmSignal *signal;
	bool holds;
} CrmMatch;

/* Has a run before this place the same journey, from one on? */
extern bool crm_is_repeated(const CrmEngine *engine, int from, int place);

/* May this signal, NULL for none, count for a run that looks back to a time? */
extern bool crm_signal_counts(const CrmRun *run, const CrmSignal *signal, const CrmTrigger *trigger,
							  TimestampTz from);

/* Pushes a snapshot of all that was written before. */
extern void crm_see_now(void);

/* For which does the rule of the trigger hold? */
extern void crm_match(const CrmTrigger *trigger, const CrmJourney *journey, CrmMatch *matches,
					  int n);

/* For whom does a rule over the profile hold, as of the clock of each run? */
extern void crm_ask(const char *rule, const CrmJourney *journey, CrmMatch *matches, int n);

/* The same of a branch, whose rule may read the fact that let the contact in. */
extern void crm_ask_branch(const CrmBranch *branch, const CrmJourney *journey, CrmMatch *matches,
						   int n);

#endif /* CRM_JOURNEY_MATCH_H */
