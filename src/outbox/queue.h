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
 * Messages of these contacts are no longer on their way: what waited behind
 * them is due again. Whether there was any.
 */
extern bool crm_queue_release(Datum contacts, TimestampTz now);

#endif /* CRM_QUEUE_H */
