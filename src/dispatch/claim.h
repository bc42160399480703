/*
 * claim.h
 *		What claims share with the turn and with outcomes.
 */
#ifndef CRM_CLAIM_H
#define CRM_CLAIM_H

#include "postgres.h"

#include "dispatch/dispatch.h"

/*
 * Whether the account can send at all now: it has its token, or the key that it
 * signs with. One that lacks its key is stopped.
 */
extern bool crm_claim_prepare(CrmSender *sender);

/*
 * Claims up to room messages that are due in the lane, and ends those that must
 * not go. Returns the deliveries; *found is how many were looked at, *more whether
 * there may be others that could go, and *next becomes earlier where something
 * is to be looked at again before.
 */
extern List *crm_claim(CrmSender *sender, int lane, int room, TimestampTz now, TimestampTz *next,
					   int *found, bool *more);

/* turn.c: parent of deliveries whose claim is not yet committed */
extern MemoryContext crm_claimed_context;

/* How long a claim holds, longer than every timeout. */
extern int64 crm_lease_length(void);

/* outcome.c: ends the candidates that are not to go */
extern void crm_end_unsent(List *candidates, TimestampTz now);

/* A number that tells this server and database from others. */
extern uint32 crm_installation_hash(void);

#endif /* CRM_CLAIM_H */
