/*
 * turn.c
 *		One turn of the worker: replies are taken from HTTP, then in one
 *		transaction their outcomes are written and what is due is claimed, and
 *		after its commit what was claimed is handed over. So no transaction is
 *		open while a platform thinks, and no byte leaves before its claim is safe.
 */
#include "postgres.h"

#include <limits.h>
#include <poll.h>

#include "access/xact.h"
#include "common/hashfn.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/pmsignal.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/install.h"
#include "base/table.h"
#include "dispatch/claim.h"
#include "dispatch/turn.h"
#include "dispatch/worker.h"

/* messages claimed at once: so long may an urgent one have to wait for others */
#define CLAIM_BATCH 256
/* and while urgent ones have been coming for so long, so many: others make way for them */
#define URGENT_BATCH   48
#define URGENT_SECONDS 10
/* a worker that is to end waits so long for replies: what has none by then is unknown */
#define DRAIN_MILLISECONDS 1500
/* while a definition is being changed it looks again so often */
#define LOCKED_MILLISECONDS 100
/* beyond the timeout of a request, for what comes before and after */
#define LEASE_SECONDS 15

int crm_guc_connections = 100;
int crm_guc_send_timeout = 10000;
int crm_guc_alarm_after = 60;

static List *deliveries = NIL;            /* on their way, or answered and not yet written */
static MemoryContext lasting = NULL;      /* the list, for the process */
MemoryContext crm_claimed_context = NULL; /* parent of deliveries whose claim is not committed */
static TimestampTz look_at = DT_NOBEGIN;  /* when the queue is looked at without being woken */
static TimestampTz urgent_at = 0;         /* when an urgent message was last claimed */
static bool silent = false;               /* that dispatch is paused was logged */

void
crm_dispatch_guc_init(void)
{
	DefineCustomIntVariable("pg_crm.connections",
							"Connections that a worker has to all platforms together.",
							"A worker reads it when it starts.", &crm_guc_connections, 100, 1, 900,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_crm.send_timeout", "How long a platform may take to answer.",
							"After that nobody knows whether the message arrived.",
							&crm_guc_send_timeout, 10000, 100, 30000, PGC_SIGHUP, GUC_UNIT_MS, NULL,
							NULL, NULL);
	DefineCustomIntVariable("pg_crm.alarm_after",
							"How late the oldest message may be before an alarm is raised.", NULL,
							&crm_guc_alarm_after, 60, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_S, NULL,
							NULL, NULL);
}

int64
crm_lease_length(void)
{
	return (int64) crm_guc_send_timeout * 1000 + LEASE_SECONDS * USECS_PER_SEC;
}

uint32
crm_installation_hash(void)
{
	uint64 identity[2] = { GetSystemIdentifier(), MyDatabaseId };

	return hash_bytes((const unsigned char *) identity, sizeof(identity));
}

void
crm_turn_init(void)
{
	lasting = AllocSetContextCreate(TopMemoryContext, "pg_crm deliveries", ALLOCSET_DEFAULT_SIZES);
	crm_claimed_context = AllocSetContextCreate(TopMemoryContext, "pg_crm claimed",
												ALLOCSET_SMALL_SIZES);

	/* every plan here finds few rows by their keys; statistics of a queue are always of another time */
	crm_estimate_large();
	SetConfigOption("enable_seqscan", "off", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("enable_hashjoin", "off", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("enable_mergejoin", "off", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("enable_bitmapscan", "off", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("jit", "off", PGC_USERSET, PGC_S_OVERRIDE);
	/* replies must not go stale while somebody holds a table */
	SetConfigOption("lock_timeout", "1s", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("statement_timeout", "0", PGC_USERSET, PGC_S_OVERRIDE);
	/* each statement is to see what others have done meanwhile, and to be able to write */
	SetConfigOption("default_transaction_isolation", "read committed", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off", PGC_USERSET, PGC_S_OVERRIDE);

	crm_http_init(crm_guc_connections);
	crm_worker_watch(crm_http_descriptor());
	crm_recover_start();
}

void
crm_turn_end(void)
{
	crm_http_end();
}

/* False where the extension is there and its tables are not, yet or any more. */
static bool
begin(CrmActing *acting)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	/* no byte may leave before its claim is on disk, whatever others may lose */
	if (synchronous_commit < SYNCHRONOUS_COMMIT_LOCAL_FLUSH)
		(void) set_config_option("synchronous_commit", "local", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_LOCAL, true, 0, false);
	if (!crm_is_installed())
	{
		CommitTransactionCommand();
		return false;
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	crm_connect(acting);
	return true;
}

static void
commit(CrmActing *acting)
{
	crm_disconnect(acting);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* The reply, as the channel understands it; kept with the delivery until it is written. */
static void
take_reply(const CrmHttpReply *reply)
{
	CrmDelivery *delivery = (CrmDelivery *) (intptr_t) reply->owner;
	MemoryContext old = MemoryContextSwitchTo(delivery->context);

	delivery->http_status = reply->status;
	delivery->not_sent = reply->result == CRM_HTTP_NOT_SENT;
	delivery->channel->outcome(&delivery->message, (CrmChannelEnd) reply->result, reply->status,
							   reply->body, reply->body_length, &delivery->outcome);
	if (delivery->outcome.reason == NULL)
		delivery->outcome.reason = pstrdup("no_reply");
	if (delivery->outcome.detail == NULL && reply->error != NULL)
		delivery->outcome.detail = pstrdup(reply->error);
	delivery->answered = true;
	MemoryContextSwitchTo(old);
}

static int
take_replies(void)
{
	CrmHttpReply reply;
	int n = 0;

	crm_http_step();
	while (crm_http_next(&reply))
	{
		if (crm_token_owns(reply.owner))
			crm_token_answered(&reply);
		else
		{
			take_reply(&reply);
			n++;
		}
	}
	return n;
}

static List *
answered(void)
{
	List *found = NIL;
	ListCell *cell;

	foreach(cell, deliveries)
		if (((CrmDelivery *) lfirst(cell))->answered)
			found = lappend(found, lfirst(cell));
	return found;
}

/*
 * Whoever changes a definition keeps everybody from contacts until all of them
 * are recomputed; outcomes are not to wait for that.
 */
static bool
contacts_can_be_locked(void)
{
	return ConditionalLockRelationOid(crm_table_oid("profile_counter"), RowShareLock);
}

/* Claims in all lanes of all accounts, the urgent lane first, within what connections there are. */
static List *
claim(TimestampTz now, int busy, MemoryContext turn)
{
	int total = crm_guc_connections;
	int reserve = total == 1 ? 0 : Max(1, total / 10); /* of urgent messages */
	int left = CLAIM_BATCH;
	int others = TimestampDifferenceExceeds(urgent_at, now, URGENT_SECONDS * 1000) ? CLAIM_BATCH
																				   : URGENT_BATCH;
	List *senders = crm_senders(now);
	List *ready = NIL;
	List *found = NIL;
	ListCell *cell;

	if (senders != NIL && !contacts_can_be_locked())
	{
		look_at = now + LOCKED_MILLISECONDS * INT64CONST(1000);
		return NIL;
	}
	foreach(cell, senders)
	{
		CrmSender *sender = lfirst(cell);
		TimestampTz due = DT_NOEND;

		for (int lane = 0; lane < CRM_NLANES; lane++)
			due = Min(due, sender->due[lane]);
		if (sender->blocked_until > now)
		{
			/* a person may let it go on, which wakes */
			look_at = Min(look_at, Max(due, sender->blocked_until));
			continue;
		}
		if (due > now)
		{
			look_at = Min(look_at, due);
			continue;
		}
		if (sender->token_wanted)
			crm_token_want(sender, now);
		if (crm_claim_prepare(sender))
			ready = lappend(ready, sender);
		else
			look_at = Min(look_at, now + USECS_PER_SEC);
	}
	for (int lane = 0; lane < CRM_NLANES; lane++)
		foreach(cell, ready)
		{
			CrmSender *sender = lfirst(cell);
			int room = total - busy - list_length(found) - (lane == 0 ? 0 : reserve);
			List *claimed;
			MemoryContext old;
			int looked_at;
			bool more;

			if (lane > 0)
				left = Min(left, others);
			room = Min(room, left);
			if (sender->due[lane] > now)
			{
				look_at = Min(look_at, sender->due[lane]);
				continue;
			}
			if (left <= 0)
				look_at = Min(look_at, now);
			if (room <= 0)
				continue; /* a reply makes room, and comes with a turn */
			crm_quota_load(sender, now);
			claimed = crm_claim(sender, lane, room, now, &look_at, &looked_at, &more);
			/* SPI has left its own memory behind, which ends with the transaction */
			old = MemoryContextSwitchTo(turn);
			found = list_concat_copy(found, claimed);
			MemoryContextSwitchTo(old);
			crm_quota_save(now);
			left -= looked_at;
			if (lane == 0 && looked_at > 0)
				urgent_at = now;
			if (more)
				look_at = Min(look_at, now);
		}
	look_at = Min(look_at, crm_heads_due());
	return found;
}

/* Never left: its next attempt is one like any other. */
static void
not_sent(CrmDelivery *delivery, const char *error)
{
	CrmHttpReply reply = { 0 };

	reply.owner = (intptr_t) delivery;
	reply.result = CRM_HTTP_NOT_SENT;
	reply.body = "";
	reply.error = error;
	take_reply(&reply);
	look_at = DT_NOBEGIN;
}

static void
start(List *found)
{
	ListCell *cell;

	foreach(cell, found)
	{
		CrmDelivery *delivery = lfirst(cell);
		CrmHttpRequest request = { 0 };

		MemoryContextSetParent(delivery->context, lasting);
		delivery->started_at = GetCurrentTimestamp();
		/* the process may have stood still; a reply must come before its lease ends */
		if (delivery->started_at + (int64) crm_guc_send_timeout * 1000 >= delivery->lease)
		{
			deliveries = lappend(deliveries, delivery);
			not_sent(delivery, "the claim was too old");
			continue;
		}
		request.url = delivery->request.url;
		request.body = delivery->request.body;
		request.body_length = strlen(delivery->request.body);
		request.headers = (const char *const *) delivery->request.headers;
		request.nheaders = delivery->request.nheaders;
		request.timeout_ms = crm_guc_send_timeout;
		request.owner = (int64) (intptr_t) delivery;
		crm_http_start(&request);
		deliveries = lappend(deliveries, delivery);
	}
}

/* The claims are committed: what was claimed goes out. */
static void
hand_over(List *found)
{
	MemoryContext old = MemoryContextSwitchTo(lasting);

	PG_TRY();
	{
		start(found);
	}
	PG_CATCH();
	{
		/* by its lease it finds what is not among the deliveries */
		crm_recover_soon(GetCurrentTimestamp());
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	MemoryContextDeleteChildren(crm_claimed_context); /* what could not be made */
	crm_token_start();
	if (found != NIL)
		crm_http_step(); /* the first bytes leave now */
}

static void
forget_written(List *written)
{
	ListCell *cell;
	List *kept = NIL;
	MemoryContext old = MemoryContextSwitchTo(lasting);

	if (written != NIL)
	{
		foreach(cell, deliveries)
			if (!((CrmDelivery *) lfirst(cell))->written)
				kept = lappend(kept, lfirst(cell));
		list_free(deliveries);
		deliveries = kept;
		foreach(cell, written)
			MemoryContextDelete(((CrmDelivery *) lfirst(cell))->context);
	}
	crm_token_recorded();
	MemoryContextSwitchTo(old);
}

/* A copy of the database does not speak to customers until somebody says so. */
static bool
may_speak(void)
{
	bool allowed = crm_dispatch_allowed();

	if (!allowed && !silent)
		ereport(WARNING,
				(errmsg("pg_crm sends nothing: this database is a copy of another installation"),
				 errhint("Call crm.resume_dispatch() if it is to speak to customers.")));
	silent = !allowed;
	return allowed;
}

/* Returns the deliveries whose outcomes were written, and in *found those that were claimed. */
static List *
work(TimestampTz now, List **found, MemoryContext turn)
{
	List *written = answered();
	int nanswered = list_length(written);
	ListCell *cell;

	look_at = DT_NOEND;
	if (crm_recover_due() <= now)
		crm_recover(deliveries, now);
	if (written != NIL)
	{
		List *recorded = crm_outcome_record(written, now);
		MemoryContext old = MemoryContextSwitchTo(turn);

		written = list_copy(recorded);
		MemoryContextSwitchTo(old);
		if (list_length(written) < nanswered)
			look_at = now + CRM_BUSY(0);
	}
	crm_token_record(now);
	if (may_speak())
		*found = claim(now, list_length(deliveries) - list_length(written), turn);
	if (crm_housekeeping_due() <= now)
		crm_housekeeping(now);
	foreach(cell, written)
		((CrmDelivery *) lfirst(cell))->written = true;
	return written;
}

static void
note_unreachable(void)
{
	MemoryContext turn = CurrentMemoryContext;
	CrmActing acting;

	if (!crm_unreachable_noted())
		return;
	PG_TRY();
	{
		if (begin(&acting))
		{
			crm_unreachable_record();
			commit(&acting);
		}
	}
	PG_CATCH();
	{
		/* somebody holds the contact: the next turn tries again */
		if (crm_error_passes(geterrcode()))
			PG_RE_THROW();
		/* a trigger of the brand's own may refuse the fact; messages go on */
		HOLD_INTERRUPTS();
		EmitErrorReport();
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(turn);
		FlushErrorState();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	crm_unreachable_forget();
}

/* The outcomes that are here, and nothing else. */
static void
record_answered(void)
{
	TimestampTz now = GetCurrentTimestamp();
	MemoryContext turn = CurrentMemoryContext;
	CrmActing acting;

	if (answered() == NIL || !begin(&acting))
		return;
	MemoryContextSwitchTo(turn);
	(void) crm_outcome_record(answered(), now);
	commit(&acting);
}

void
crm_turn_drain(void)
{
	TimestampTz until = GetCurrentTimestamp() + DRAIN_MILLISECONDS * INT64CONST(1000);
	struct pollfd replies = { .fd = crm_http_descriptor(), .events = POLLIN };

	(void) take_replies();
	while (crm_http_running() > 0 && GetCurrentTimestamp() < until && PostmasterIsAlive())
	{
		(void) poll(&replies, 1, 20);
		(void) take_replies();
	}
	record_answered();
}

int
crm_turn(bool woken)
{
	int nreplies = take_replies();
	TimestampTz now = GetCurrentTimestamp();
	MemoryContext turn = CurrentMemoryContext;
	TimestampTz next;

	if (woken)
		crm_heads_woken();
	if (woken || nreplies > 0 || crm_token_pending() || crm_unreachable_noted() || look_at <= now ||
		crm_recover_due() <= now || crm_housekeeping_due() <= now)
	{
		List *volatile written = NIL;
		List *found = NIL;
		CrmActing acting;

		look_at = DT_NOBEGIN; /* should it fail before it has looked */
		if (!begin(&acting))
		{
			look_at = DT_NOEND;
			return INT_MAX; /* install() wakes */
		}
		PG_TRY();
		{
			/* lists are to outlive SPI's memory */
			MemoryContextSwitchTo(turn);
			written = work(now, &found, turn);
			commit(&acting);
		}
		PG_CATCH();
		{
			ListCell *cell;

			foreach(cell, deliveries)
				((CrmDelivery *) lfirst(cell))->written = false;
			MemoryContextDeleteChildren(crm_claimed_context);
			crm_claim_carefully = true;
			crm_token_forget();
			crm_heads_forget();
			crm_unreachable_forget();
			crm_recover_soon(now);
			look_at = DT_NOBEGIN;
			PG_RE_THROW();
		}
		PG_END_TRY();
		MemoryContextSwitchTo(turn);
		forget_written(written);
		hand_over(found);
		note_unreachable();
	}
	if (crm_http_finished())
		return 0;
	next = Min(look_at, Min(crm_recover_due(), crm_housekeeping_due()));
	return next == DT_NOEND ? INT_MAX
							: TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next);
}
