/*
 * wake.h
 *		Waking the worker and the launcher.
 */
#ifndef CRM_WAKE_H
#define CRM_WAKE_H

#include "postgres.h"

/* Called by _PG_init(). */
extern void crm_wake_init(void);

/*
 * This transaction has left work for the worker of this database: it is woken
 * after COMMIT, once for any number of calls, and not at all after ROLLBACK.
 * Where no worker runs, nothing happens. After PREPARE TRANSACTION it is the
 * COMMIT PREPARED that wakes.
 */
extern void crm_wake_at_commit(void);

/*
 * The same where something will be due by time before the worker would look by
 * itself: the clock is looked at, without a look at messages.
 */
extern void crm_wake_clock_at_commit(void);

/* At once; neither raises an error nor reads a catalogue. */
extern void crm_wake_worker(Oid database);
extern void crm_wake_launcher(void);
extern void crm_wake_process(uint32 procno);

#endif /* CRM_WAKE_H */
