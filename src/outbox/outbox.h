/*
 * outbox.h
 *		The queue of messages, as rooms above it see it: asking for messages,
 *		and the facts that say who may be written to.
 */
#ifndef CRM_OUTBOX_H
#define CRM_OUTBOX_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "base/db.h"

#define CRM_LANE_URGENT "urgent"
#define CRM_LANE_NORMAL "normal"
#define CRM_LANE_BULK   "bulk"

/*
 * Messages of one template to contacts that are locked, ids ascending, none
 * twice. The caller acts as the owner, SPI open.
 */
typedef struct CrmSending
{
	const char *template;
	const int64 *contacts;
	int ncontacts;
	Datum params;         /* one jsonb object for all */
	const char *send_key; /* or NULL */
	TimestampTz due_at;
	TimestampTz expires_at; /* DT_NOEND: as the template says */
} CrmSending;

/*
 * Queues them and wakes the worker at commit; returns how many are new. Raises
 * 23503 for an unknown template, 23505 where the key stands for another content.
 */
extern int64 crm_outbox_send(const CrmSending *sending);

/* The message of this contact under this key; 0 where there is none. */
extern int64 crm_outbox_message(int64 contact_id, const char *send_key);

/* Queues a message to one contact and returns its id, or that of the same key. */
extern int64 crm_outbox_send_one(const CrmSending *sending);

/*
 * Messages of one template that differ, n of them, to contacts that are locked
 * and may come several times. Those of a contact go out in the order given.
 */
typedef struct CrmSendEach
{
	const char *template;
	int n;
	const int64 *contacts;
	const Datum *params;          /* a jsonb object each */
	const char *const *send_keys; /* each may be NULL */
	const TimestampTz *due_at;
	const TimestampTz *expires_at; /* DT_NOEND: as the template says, from due_at on */
	bool awaited;                  /* their ends are told by crm.message_end */
	int64 *message_ids;            /* out: the message under that key, new or not */
} CrmSendEach;

/* Queues them as crm_outbox_send() does, with its errors. */
extern PGDLLEXPORT void crm_outbox_send_each(const CrmSendEach *sending);

/*
 * Takes a queued message back; false where it was too late. Raises 23503 for
 * one that there is not. The contact is locked.
 */
extern bool crm_outbox_cancel(int64 contact_id, int64 message_id);

/*
 * The same of many messages, of contacts that are locked; reason becomes theirs
 * and may be NULL. Those that are on their way, may have arrived or have ended
 * are passed by. Returns how many were taken back.
 */
extern PGDLLEXPORT int64 crm_outbox_cancel_many(const int64 *contacts, const int64 *message_ids,
												int n, const char *reason);

/* Says what became of an unknown or waiting message: sent or failed. */
extern void crm_outbox_resolve(int64 contact_id, int64 message_id, const char *state,
							   const char *comment);

/*
 * What contacts did on accounts: opens and closes windows, keeps who follows.
 * Facts that came too late to speak (pg_crm.max_lateness) open nothing.
 */
#define CRM_TOUCH_COLUMNS 4
typedef struct CrmTouches
{
	bool follows;                         /* some are follows or unfollows */
	CrmColumn columns[CRM_TOUCH_COLUMNS]; /* contact_id, account_id, kind, occurred_at */
} CrmTouches;

/* Called by _PG_init(). */
extern void crm_touch_init(void);
extern void crm_send_init(void);

extern void crm_touches_init(CrmTouches *touches);
extern void crm_touches_add(CrmTouches *touches, int64 contact_id, int64 account_id,
							const char *kind, TimestampTz occurred_at);
/* The contacts are locked. */
extern void crm_touches_settle(CrmTouches *touches);

/* Who follows, found anew from the events of contacts that are locked. */
extern void crm_followers_again(const int64 *contacts, int ncontacts);

/*
 * Before the rows of one contact are given to another: of messages under one
 * key only one is still to go. Returns the keys that were changed, for the ledger.
 */
extern Datum crm_outbox_merge(int64 loser, int64 survivor, bool *isnull);
/* The other has its messages again: what belongs to them follows, and those keys, or NULL. */
extern void crm_outbox_unmerge(int64 survivor, int64 other, const Datum *keys);
/* Their messages are with other contacts than before: what waits is looked at again. */
extern void crm_outbox_rekeyed(const int64 *contacts, int ncontacts);

/* Calls add for each difference between messages, what is kept beside them, and the facts. */
typedef void (*CrmOutboxDifference)(void *arg, int64 contact_id, const char *check,
									const char *expected, const char *found);
extern void crm_outbox_verify(CrmOutboxDifference add, void *arg);

/* Raises 22023 unless it is service or marketing. */
extern void crm_check_class(const char *class);

#endif /* CRM_OUTBOX_H */
