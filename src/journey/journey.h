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

/* Is any journey on this? So that signals are made only where somebody listens. */
extern bool crm_journey_listens(const char *kind);
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
	CrmFactValues fact; /* contact_id; as_of is set here */
} CrmSignal;
extern void crm_journey_signal(const CrmSignal *signal);

/*
 * Entries, waits and endings by all signals that wait, and by what changed of
 * these contacts (ascending, distinct), until nobody moves.
 */
extern void crm_journeys_settle(const int64 *contacts, int ncontacts);

/* tick(): contacts with something due in time, ascending, at most limit, those due first. */
extern int64 *crm_journeys_due(TimestampTz as_of, int64 limit, int *ncontacts);
/* Moves them; steps entered, at most max_steps but for those begun (0: any number). */
extern int64 crm_journeys_move(const int64 *contacts, int ncontacts, TimestampTz as_of,
							   int64 max_steps);
extern TimestampTz crm_journeys_next(void);

/* Called by _PG_init(). */
extern void crm_journey_init(void);

#endif /* CRM_JOURNEY_H */
