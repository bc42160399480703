/*
 * worker.h
 *		The worker of one database.
 */
#ifndef CRM_WORKER_H
#define CRM_WORKER_H

#include "postgres.h"

#include "storage/latch.h"

/* What the launcher hands over, in bgw_extra. */
typedef struct CrmWorkerOrder
{
	Oid database;
	uint32 generation;
	int slot;
} CrmWorkerOrder;

/*
 * Of the worker itself: end the wait also when this descriptor becomes
 * readable, which may be one of epoll; PGINVALID_SOCKET for none.
 */
extern void crm_worker_watch(pgsocket descriptor);

/* An error after which the same may succeed: somebody else holds what the turn needs. */
extern bool crm_error_passes(int code);

extern PGDLLEXPORT void crm_worker_main(Datum arg);

#endif /* CRM_WORKER_H */
