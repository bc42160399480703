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

#endif /* CRM_TICK_H */
