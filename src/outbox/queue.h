/*
 * queue.h
 *		Leaving the queue.
 */
#ifndef CRM_QUEUE_H
#define CRM_QUEUE_H

#include "postgres.h"

#include "base/db.h"

/*
 * Messages of these contacts left the queue: what waited behind them is looked
 * at again. Returns how many that are.
 */
extern uint64 crm_queue_release(Datum contacts);

#endif /* CRM_QUEUE_H */
