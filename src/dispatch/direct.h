/*
 * direct.h
 *		The two things that happen to every message, written without the executor
 *		where the tables allow that: its claim, and that it was sent. What these
 *		leave goes the general way, which writes the same rows.
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

#endif /* CRM_DIRECT_H */
