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

/* a call that was stopped may be let go on by hand: so long a message is put off at most */
#define CRM_MAX_PUT_OFF (10 * USECS_PER_MINUTE)

/* A turn failed: from now on each message is made by itself, so that one that cannot be fails alone. */
extern bool crm_claim_carefully;

/* turn.c: parent of deliveries whose claim is not yet committed */
extern MemoryContext crm_claimed_context;

/* a contact that is just being changed is looked at again after that, sooner in the urgent lane */
#define CRM_BUSY(lane) (INT64CONST(1000) * ((lane) == 0 ? 50 : 1000))
/* a call that was stopped may be let go on by hand */
#define CRM_MAX_PUT_OFF (10 * USECS_PER_MINUTE)

/* How long a claim holds, longer than every timeout. */
extern int64 crm_lease_length(void);

/* outcome.c: ends the candidates that are not to go; whether others are due now by that */
extern bool crm_end_unsent(List *candidates, TimestampTz now);

/* A number that tells this server and database from others. */
extern uint32 crm_installation_hash(void);

#endif /* CRM_CLAIM_H */
