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

/*
 * Awaited messages that ended, or became unknown, in this transaction: collected,
 * then written to crm.message_end together. Begins as all zeroes; without any it
 * does nothing.
 */
typedef struct CrmEnds
{
	CrmColumn contacts;
	CrmColumn messages;
	CrmColumn due_at;
} CrmEnds;
extern void crm_ends_add(CrmEnds *ends, int64 contact_id, int64 message_id, bool unknown);
/* Those in the result: contact_id, message_id, whether it is awaited, whether it is unknown. */
extern void crm_ends_add_result(CrmEnds *ends, uint64 nrows);
extern void crm_ends_write(CrmEnds *ends);

#endif /* CRM_QUEUE_H */
