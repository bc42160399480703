/*
 * tick.h
 *		What time alone brings about, in pieces: for tick(), and for the clock,
 *		which makes a transaction of each. Callers hold ROW EXCLUSIVE on
 *		crm.profile_counter, and are between crm_connect() and crm_disconnect().
 */
#ifndef CRM_TICK_H
#define CRM_TICK_H

#include "postgres.h"

#include "datatype/timestamp.h"

/*
 * Moves what is due of tiers and stages of these contacts, ascending, as of a
 * time; how many of them nobody else was busy with.
 */
extern int crm_tick_contacts(const int64 *contacts, int ncontacts, TimestampTz as_of);

/*
 * Moves the enrolments that are due of at most limit contacts; the steps entered,
 * and the enrolments looked at: none where nothing is due, or others are busy with it.
 */
extern int64 crm_tick_journeys(TimestampTz as_of, int64 max_steps, int limit, int64 *nmoved);

#endif /* CRM_TICK_H */
