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

/* The same of their enrolments; how many of these were looked at. */
extern int crm_tick_enrolments(const int64 *contacts, int ncontacts, TimestampTz as_of);

/*
 * Entries by date and schedule of the next contacts, at most so many; how many
 * were looked at, 0 where nothing is left that nobody else is busy with. Those
 * whom others have are set aside, and are due then as enrolments are; so is,
 * with limit 0, the next one.
 */
extern int crm_tick_entries(TimestampTz as_of, int limit);

/* When the next of all that is due; DT_NOEND: nothing is. */
extern TimestampTz crm_tick_next(void);

#endif /* CRM_TICK_H */
