/*
 * dispatch.h
 *		What the parts of a turn of the worker share. A turn is one transaction:
 *		outcomes are written, messages that are due are claimed; what was
 *		claimed is handed to HTTP once that is committed.
 */
#ifndef CRM_DISPATCH_H
#define CRM_DISPATCH_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

#include "base/db.h"
#include "channels/channel.h"
#include "dispatch/http.h"

#define CRM_NLANES 3
extern const char *const crm_lanes[CRM_NLANES]; /* urgent first */

/* An account with messages, as it stands in this turn. */
typedef struct CrmSender
{
	int64 account_id;
	const char *name;
	const CrmChannel *channel;
	const char *base_url; /* or NULL */
	const char *app_id;   /* or NULL */
	const char *zone;
	const char *token; /* NULL: none that can be used */
	TimestampTz token_expires_at;
	bool token_wanted; /* there is none, or it ends soon, and nobody fetches one */
	TimestampTz blocked_until;
	TimestampTz due[CRM_NLANES]; /* the earliest in the lane that is not on its way; DT_NOEND */
	int64 head[CRM_NLANES];      /* that message */
	const char *secret;          /* of a channel that signs, once it was needed */
} CrmSender;

/* A message on its way, in memory from its claim until its outcome is committed. */
typedef struct CrmDelivery
{
	int64 contact_id;
	int64 message_id;
	int64 account_id;
	int64 attempt_id;
	int64 grant_id; /* 0: it uses no window */
	const CrmChannel *channel;
	const CrmMessageType *type;
	char *account_name;
	char *template;
	char *zone;  /* of the account's days */
	char *token; /* that it was sent with */
	char *key;   /* of the platform, or NULL */
	int attempts;
	bool token_failed; /* an earlier attempt had a bad token too */
	TimestampTz tried_at;
	bool tried_before; /* an earlier attempt may have arrived */
	TimestampTz expires_at;
	TimestampTz started_at;
	TimestampTz lease;
	ItemPointerData queue_place; /* of its rows, where they are known */
	ItemPointerData place;
	MemoryContext context;
	CrmChannelMessage message;
	CrmChannelRequest request;

	/* once the reply is here */
	bool answered;
	bool written;  /* its outcome is in the transaction that is being committed */
	bool not_sent; /* nobody was there to take it */
	long http_status;
	CrmChannelOutcome outcome;
} CrmDelivery;

/* settings, registered by crm_dispatch_guc_init() */
extern int crm_guc_connections;
extern int crm_guc_send_timeout; /* milliseconds */
extern int crm_guc_alarm_after;  /* seconds */
extern void crm_dispatch_guc_init(void);

/* estimate.c: for the rest of the process plans are made for large tables */
extern void crm_estimate_large(void);

/* senders.c: accounts that have messages in the queue */
extern List *crm_senders(TimestampTz now);
/* Nothing in the lane before this is to be claimed. */
extern void crm_head_set(int64 account_id, int lane, TimestampTz due_at, int64 message_id);
extern void crm_heads_forget(void); /* a transaction was not committed */
extern void crm_heads_woken(void);  /* there may be something */
/* Messages were put back into the queue, perhaps in front: a look follows in a second. */
extern void crm_heads_moved(TimestampTz now);
extern TimestampTz crm_heads_due(void);
/* The secret of an account; NULL where there is none. Raises an error that does not show it. */
extern char *crm_account_secret(int64 account_id, const char *name);

/* token.c: access tokens, fetched by the worker itself */
/* Takes the right to fetch one, in this transaction; crm_token_start() then does. */
extern void crm_token_want(const CrmSender *sender, TimestampTz now);
extern void crm_token_start(void);
extern void crm_token_forget(void); /* the transaction was not committed */
extern bool crm_token_owns(int64 owner);
extern void crm_token_answered(const CrmHttpReply *reply);
extern bool crm_token_pending(void); /* answers that are not yet written */
extern void crm_token_record(TimestampTz now);
extern void crm_token_recorded(void); /* that was committed */
/* The platform refused the token of a delivery: nobody uses it again. */
extern void crm_token_refused(const CrmDelivery *delivery, TimestampTz now);

/* quota.c: limits of accounts and calls; one account is loaded at a time */
extern void crm_quota_load(const CrmSender *sender, TimestampTz now);
/* Takes one call, or says until when there is none and why. */
extern bool crm_quota_take(const char *api, TimestampTz now, TimestampTz *until,
						   const char **reason);
#define CRM_QUOTA_RATE "rate" /* the reason where calls are only too fast */
extern void crm_quota_save(TimestampTz now);
extern void crm_quota_block(int64 account_id, const char *api, TimestampTz until,
							const char *reason);
extern TimestampTz crm_quota_next_day(const char *zone, TimestampTz now);

/* outcome.c */
/* Returns those that were written; the messages of others are held by somebody for the moment. */
extern List *crm_outcome_record(List *deliveries, TimestampTz now);

/* unreachable.c: contacts that a platform cannot or must not reach any more */
extern void crm_note_unreachable(const CrmDelivery *delivery);
extern bool crm_unreachable_noted(void);
extern void crm_unreachable_record(void); /* in a transaction of its own */
extern void crm_unreachable_forget(void);

/* recover.c: what an earlier worker, or an earlier turn, left; deliveries are those still known */
extern void crm_recover_start(void);
extern void crm_recover_soon(TimestampTz now);
extern TimestampTz crm_recover_due(void);
extern void crm_recover(List *deliveries, TimestampTz now);

/* housekeeping.c */
extern TimestampTz crm_housekeeping_due(void);
extern void crm_housekeeping(TimestampTz now);

/* alarm.c */
extern void crm_alarm_raise(const char *kind, const char *object, const char *detail);
extern void crm_alarm_clear(const char *kind, const char *object);

#endif /* CRM_DISPATCH_H */
