/*
 * turn.h
 *		What the worker does: the loop is in worker.c, the work here.
 *
 * The three are called in a process that is connected to its database as the
 * bootstrap superuser, outside a transaction, in a memory context that lasts
 * for the process (init, end) or for the turn. SQL goes through crm_connect().
 */
#ifndef CRM_TURN_H
#define CRM_TURN_H

#include "postgres.h"

/* Once, before the first turn; may call crm_worker_watch(). */
extern void crm_turn_init(void);

/*
 * Does what is due, or new where a commit has woken the worker, and says after how many milliseconds it wants to be called
 * again; earlier where a commit wakes the worker or the descriptor is ready,
 * and after pg_crm.poll_interval at the latest. What goes wrong in the business
 * is its own to record: an error ends the turn, and the worker slows down. The
 * tables need not be there yet.
 */
extern int crm_turn(bool woken);

/*
 * Before an orderly end: waits a moment for replies under way and writes what
 * came, so that few messages are left of which nobody knows. Claims nothing.
 */
extern void crm_turn_drain(void);

/*
 * At the end of the process, for what it holds outside of PostgreSQL; the
 * process may be in the middle of an error, so no SQL and no ereport here.
 */
extern void crm_turn_end(void);

#endif /* CRM_TURN_H */
