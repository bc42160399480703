/*
 * queue.h
 *		Leaving the queue.
 */
#ifndef CRM_QUEUE_H
#define CRM_QUEUE_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "base/db.h"

/*
 * Messages of these contacts left the queue, or were put off: of each lane, the
 * first that waited behind them is due at this time, which is not to be later
 * than that of those that look. Returns how many.
 */
extern uint64 crm_queue_release(Datum contacts, TimestampTz at);

#endif /* CRM_QUEUE_H */
