/*
 * clock.h
 *		The clock of a database: a process that does what time alone brings. The
 *		worker starts it when something is due, and it ends when nothing is.
 */
#ifndef CRM_DISPATCH_CLOCK_H
#define CRM_DISPATCH_CLOCK_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "base/shmem.h"

/*
 * What time alone brings about, of rooms that this one does not know. Set when
 * the module is loaded. Called between crm_connect() and crm_disconnect().
 */
#define CRM_TIME_TABLES 7
typedef struct CrmTimeWork
{
	const char *tables[CRM_TIME_TABLES]; /* that say what is due */
	TimestampTz (*next)(void);           /* when the next thing is; DT_NOEND: nothing */
	int64 *(*find_contacts)(TimestampTz as_of, int64 limit, int *ncontacts);
	/* of these contacts, ascending; how many nobody else was busy with */
	int (*move_contacts)(const int64 *contacts, int ncontacts, TimestampTz as_of);
	int (*move_segments)(TimestampTz as_of, int limit);
	/* Have journeys been moved as of a later time? Else this is the latest. */
	bool (*is_back)(TimestampTz as_of);
	/* the same as of contacts, of their enrolments */
	int64 *(*find_enrolments)(TimestampTz as_of, int64 limit, int *ncontacts);
	int (*move_enrolments)(const int64 *contacts, int ncontacts, TimestampTz as_of);
	/*
	 * Entries by date and schedule, of so many contacts, in the order of their ids;
	 * how many were looked at. Limit 0: the next one, whom an error keeps out, is
	 * left to move_enrolments.
	 */
	int (*make_entries)(TimestampTz as_of, int limit);
} CrmTimeWork;
extern const CrmTimeWork *crm_time_work;

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
