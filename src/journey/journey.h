/*
 * journey.h
 *		What the journey room offers. Callers act as the owner, hold the locks of
 *		the contacts (their rows of crm.profile_counter), and are between
 *		crm_connect() and crm_disconnect().
 */
#ifndef CRM_JOURNEY_H
#define CRM_JOURNEY_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "rules/fact_rule.h"

/* what the rooms below notice of a contact beside facts; a journey may be on them */
#define CRM_SIGNAL_STAGE         "stage_move"
#define CRM_SIGNAL_AWARD         "award"
#define CRM_SIGNAL_SEGMENT_ENTER "segment_entered"
#define CRM_SIGNAL_SEGMENT_LEAVE "segment_left"

/* Is anything published at all? Costs a look at what is cached. */
extern bool crm_journeys_exist(void);
/* Is any journey on this? So that signals are made only where somebody listens. */
extern bool crm_journey_listens(const char *kind);
/* Is any on what users change in crm.contact, or does any change it? Then its row is locked first. */
extern bool crm_journeys_read_contacts(void);
/* Does any journey ask for rules of which facts, fields or time change the answer? */
extern bool crm_journeys_watch(void);

/*
 * Something happened to a contact. Signals wait, in the order in which they
 * come, until the caller who works for a whole statement settles them. Values
 * are copied. Those that came too late to speak are dropped.
 */
typedef struct CrmSignal
{
	const char *kind;
	int64 source_id; /* of the fact, 0: none */
	TimestampTz occurred_at;
	CrmFactValues fact; /* contact_id; as_of, kind and occurred_at are set here */
	int depth;          /* set here: how deep journeys had started each other */
} CrmSignal;
extern void crm_journey_signal(const CrmSignal *signal);

/* One whose properties are some names. */
typedef struct CrmSignalName
{
	const char *name;
	const char *value;
} CrmSignalName;
extern void crm_journey_signal_named(const char *kind, int64 contact_id, TimestampTz at,
									 const CrmSignalName *names, int nnames);

/*
 * Entries, waits and endings by all signals that wait, and by what changed of
 * these contacts (ascending, distinct), until nobody moves.
 */
extern void crm_journeys_settle(const int64 *contacts, int ncontacts);

/* due.c: contacts with something due in time, ascending; at most limit, those due first */
extern int64 *crm_journeys_due(TimestampTz as_of, int64 limit, int *ncontacts);
/* Moves those, which are locked, until nothing of theirs is due; steps entered, enrolments moved. */
extern int64 crm_journeys_move(const int64 *contacts, int ncontacts, TimestampTz as_of,
							   int64 max_steps, int64 *nmoved);
/* When the next thing is due; DT_NOEND: nothing is. */
extern TimestampTz crm_journeys_next(void);
/* Is this time before one as of which journeys were moved? Else it is the latest from now on. */
extern bool crm_journeys_clock_back(TimestampTz as_of);

/*
 * schedule.c: entries by date and by schedule, of the next contacts in the order
 * of their ids, at most so many; NULL: nobody is due, or somebody else is at it.
 * Who is to enter (ascending, distinct) is then locked by the caller. Whoever is
 * not is set aside in crm.entry_due, and is due by it.
 */
typedef struct CrmTimedEntries
{
	int ncontacts;
	int64 *contacts;
	int nlooked; /* above 0 while there may be more */
	struct CrmTimedWork *work;
} CrmTimedEntries;
extern CrmTimedEntries *crm_timed_entries_find(TimestampTz as_of, int limit);
/* Lets those in; the steps that they entered. */
extern int64 crm_timed_entries_make(CrmTimedEntries *entries, const int64 *locked, int nlocked);

/*
 * hand.c: of contacts that are locked. The enrolment that there is now, or was
 * under the key; 0 where entering is refused, which is recorded.
 */
extern int64 crm_journey_enrol(int64 contact_id, const char *journey, const char *key);
/*
 * Ends their enrolments in a journey, with their messages that are still in the
 * queue; how many. A comment, where there is one, is kept in the context.
 */
extern int64 crm_journey_end(const int64 *contacts, int ncontacts, const char *journey,
							 const char *reason, const char *comment);
/* Lets a stuck enrolment try its step again; false where it is not stuck. */
extern bool crm_journey_resume(int64 contact_id, int64 enrolment_id);
/* After a time in which nobody moved: what happened meanwhile is noticed. */
extern void crm_journey_thaw(const int64 *contacts, int ncontacts);
/* The history has become that of two contacts: facts of the other are noticed. */
extern void crm_journey_joined(int64 contact_id);
/* Raises 23503 where there is none. */
extern struct CrmJourney *crm_journey_require(const char *name);

/* Is a batch at work? Its runs are in memory, so no contact of it may end. */
extern bool crm_journeys_at_work(void);

/*
 * merge.c: before the rows of one contact are given to another: of two active
 * enrolments of one journey and key the later ends, equal refusals are added up.
 * Each returns what the ledger keeps.
 */
extern Datum crm_journey_merge(int64 loser, int64 survivor, bool *isnull);
extern Datum crm_refusals_merge(int64 loser, int64 survivor, bool *isnull);
/* The other has its enrolments again: what belongs to them follows, messages too. */
extern void crm_journey_unmerge(int64 survivor, int64 other);
/* Once everything has: what had ended is active again. */
extern void crm_journey_reopen(int64 survivor, int64 other, Datum ended);
extern void crm_refusals_unmerge(int64 survivor, Datum refusals);

/* Calls add for each enrolment or visit that contradicts itself or another row. */
typedef void (*CrmJourneyDifference)(void *arg, int64 contact_id, const char *check,
									 const char *expected, const char *found);
extern void crm_journeys_verify(CrmJourneyDifference add, void *arg);

/* Called by _PG_init(). */
extern void crm_journey_init(void);

#endif /* CRM_JOURNEY_H */
