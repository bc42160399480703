/*
 * roll_up.h
 *		Whether facts and steps are counted by day as they come in.
 */
#ifndef CRM_ROLL_UP_H
#define CRM_ROLL_UP_H

#include "postgres.h"

#include "utils/date.h"

/* Registers the callback of what is known of the setting. */
extern void crm_roll_up_init(void);

/*
 * As committed, with what this transaction has changed. Whoever writes what is
 * counted asks under a lock on crm.profile_counter, as who changes it waits for
 * these.
 */
extern bool crm_roll_ups_kept(void);

/* The day by which something is counted: that of pg_crm.time_zone, as timezone(zone, at)::date. */
extern DateADT crm_day_of(TimestampTz at);

#endif /* CRM_ROLL_UP_H */
