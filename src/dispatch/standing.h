/*
 * standing.h
 *		Messages that are due, with everything that decides whether they may go.
 */
#ifndef CRM_STANDING_H
#define CRM_STANDING_H

#include "postgres.h"

#include "dispatch/dispatch.h"

typedef enum CrmVerdict
{
	CRM_GO,
	CRM_BEHIND,  /* an earlier message of the contact goes first */
	CRM_PUT_OFF, /* until then */
	CRM_LEFT,    /* the platform takes no more at the moment: nothing is written */
	CRM_EXPIRED,
	CRM_REFUSED,
	CRM_FAILED,
	CRM_LOST_KEY, /* may have arrived, and its key protects it no longer */
	CRM_GONE      /* there is no such message */
} CrmVerdict;

typedef struct CrmCandidate
{
	int64 contact_id;
	int64 message_id;
	CrmVerdict verdict;
	char *reason;
	TimestampTz until;

	/* of the message */
	const CrmMessageType *type;
	char *template;
	int template_version;
	char *class;
	Jsonb *params;
	TimestampTz due_at;
	TimestampTz expires_at; /* DT_NOEND: never */
	TimestampTz tried_at;   /* DT_NOBEGIN: certainly never received */
	int64 grant_id;         /* 0: it uses no window */
	bool new_grant;         /* it was not counted before */
	bool token_failed;
	int attempts;
	ItemPointerData queue_place; /* of its rows, where they are known */
	ItemPointerData place;

	/* of the contact */
	char *recipient;
} CrmCandidate;

/*
 * Reads messages of one account that are due, in the order given, and decides
 * about each, all but quotas. Contacts are locked.
 */
extern List *crm_standing(const CrmSender *sender, int lane, const int64 *contacts,
						  const int64 *messages, int n, TimestampTz now);

#endif /* CRM_STANDING_H */
