/*
 * direct.h
 *		What happens to every message (its claim, that it was sent, its attempt)
 *		written without the executor where the tables allow that. What these leave
 *		goes the general way, which writes the same rows.
 */
#ifndef CRM_DIRECT_H
#define CRM_DIRECT_H

#include "postgres.h"

#include "dispatch/dispatch.h"

/*
 * Gives the deliveries their attempt and lease and marks their messages, which
 * are locked. False where the tables do not allow it, and nothing was written.
 */
extern bool crm_direct_claim(List *deliveries, TimestampTz now);

/*
 * Of deliveries that the platform took, those whose message is still on its way
 * by this attempt and held by nobody: sent, and out of the queue. Returns them;
 * the others are untouched.
 */
extern List *crm_direct_sent(List *deliveries, TimestampTz now);

/* What came of each attempt, "sent" or the reason. */
extern const char *crm_outcome_name(const CrmDelivery *delivery);

/* Their attempts, for the history. False where the table does not allow it. */
extern bool crm_direct_attempts(List *deliveries);

#endif /* CRM_DIRECT_H */
