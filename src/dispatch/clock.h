/*
 * clock.h
 *		The clock of a database: a process that does what time alone brings. The
 *		worker starts it when something is due, and it ends when nothing is.
 */
#ifndef CRM_DISPATCH_CLOCK_H
#define CRM_DISPATCH_CLOCK_H

#include "postgres.h"

#include "base/shmem.h"

/*
 * clock_watch.c: for the worker, outside a transaction. Starts the clock where
 * something is due; the milliseconds until to look again. Raises no error and
 * waits for nobody.
 */
extern int crm_clock_watch(CrmSlot *slot, const char *database);

/*
 * May time go on here? Not while rows are being restored, nor in a copy of which
 * nobody has said that it takes over.
 */
extern bool crm_clock_may_run(void);

extern PGDLLEXPORT void crm_clock_main(Datum arg);

#endif /* CRM_DISPATCH_CLOCK_H */
