/*
 * reachable.h
 *		By which accounts a contact can be written to.
 */
#ifndef CRM_REACHABLE_H
#define CRM_REACHABLE_H

#include "postgres.h"

#include "datatype/timestamp.h"

typedef struct CrmReach
{
	const char *account;
	const char *channel;
	const char *api;         /* that messages of this kind are sent through */
	char *reason;            /* why not; NULL where the contact can be reached */
	TimestampTz valid_until; /* DT_NOBEGIN: no end */
	int remaining;           /* messages left; -1: any number */
} CrmReach;

typedef void (*CrmReachFunction)(void *arg, const CrmReach *reach);

/*
 * One of each account that can send and each kind of message that it sends, as
 * the worker would decide at that time with what is known now. Reads by the
 * snapshot of the calling statement.
 */
extern void crm_outbox_reachable(int64 contact_id, const char *class, TimestampTz at,
								 CrmReachFunction function, void *arg);

/* What messages of a type are sent through; NULL where the channel knows none such. */
extern const char *crm_outbox_api(const char *channel, const char *message_type);

#endif /* CRM_REACHABLE_H */
