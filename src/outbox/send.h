/*
 * send.h
 *		What queuing one message, many alike and many that differ have in common.
 */
#ifndef CRM_SEND_H
#define CRM_SEND_H

#include "postgres.h"

#include "datatype/timestamp.h"

/* A template, as messages are made of it. */
typedef struct CrmSendTemplate
{
	Datum version;
	Datum channel;
	Datum class;
	const char *lane;
	int64 account_id;
	Datum valid_for;
	bool never_expires;
} CrmSendTemplate;

/* Raises 23503 for one that there is not, or whose account there is not. */
extern void crm_send_template(const char *name, CrmSendTemplate *template);

/* Until when a message of it may go that is due then; DT_NOEND: for ever. */
extern TimestampTz crm_send_expires(const CrmSendTemplate *template, TimestampTz due_at);

/* Raises 23505: the key was given for a message of that template, or with other values. */
extern void crm_send_clash(const char *send_key, int64 contact_id, const char *template);

#endif /* CRM_SEND_H */
