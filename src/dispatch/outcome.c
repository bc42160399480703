/*
 * outcome.c
 *		What came of deliveries, written for many at once: the attempt, the state
 *		of the message, the queue. An outcome belongs to its attempt; where the
 *		lease has run out meanwhile, only a success still counts.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "dispatch/claim.h"
#include "dispatch/direct.h"
#include "dispatch/standing.h"
#include "outbox/queue.h"

/* refused for the moment: so often, then it has failed */
#define MAX_ATTEMPTS        5
#define MAX_BACKOFF_SECONDS 60
/* so many in a row are followed while one outcome is written */
#define MAX_MERGES 10

static CrmPlan insert_attempts = {
	"INSERT INTO crm.delivery_attempt (contact_id, attempt_id, message_id, occurred_at, outcome,"
	" errcode, http_status, platform_id, reply)"
	" SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9)",
	9,
	{ INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID, TEXTARRAYOID, INT4ARRAYOID,
	  INT4ARRAYOID, TEXTARRAYOID, TEXTARRAYOID },
	.always_generic = true
};
/* state queued: it goes again, and tried says whether it may have arrived */
static CrmPlan set_states = {
	"UPDATE crm.message m SET state = n.state, reason = n.reason,"
	" sent_at = CASE WHEN n.state = 'sent' THEN n.at ELSE m.sent_at END,"
	" ended_at = CASE WHEN n.state NOT IN ('queued', 'unknown') THEN $6 END,"
	" tried_at = CASE WHEN n.state = 'queued' AND NOT n.tried THEN NULL ELSE m.tried_at END,"
	" grant_id = CASE WHEN n.state = 'queued' AND NOT n.tried THEN NULL ELSE m.grant_id END"
	" FROM unnest($1, $2, $3, $4, $5, $7, $8)"
	"  AS n(contact_id, message_id, attempt_id, state, reason, tried, at)"
	" WHERE m.contact_id = n.contact_id AND m.message_id = n.message_id"
	" AND (m.state = 'sending' AND m.attempt_id = n.attempt_id"
	"  OR n.state = 'sent' AND m.state IN ('queued', 'sending', 'unknown'))"
	" RETURNING m.contact_id, m.message_id, m.awaited AND m.state <> 'queued', m.state = 'unknown'",
	8,
	{ INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZOID,
	  BOOLARRAYOID, TIMESTAMPTZARRAYOID },
	.always_generic = true
};
static CrmPlan leave_queue = { "DELETE FROM crm.outbox o USING unnest($1, $2, $3, $4)"
							   " AS n(contact_id, message_id, attempt_id, state)"
							   " WHERE o.contact_id = n.contact_id AND o.message_id = n.message_id"
							   " AND (o.attempt_id = n.attempt_id OR n.state = 'sent')",
							   4,
							   { INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID },
							   .always_generic = true };
static CrmPlan queue_again = {
	"UPDATE crm.outbox o SET lease = NULL, attempt_id = NULL, due_at = n.due_at,"
	" attempts = o.attempts - CASE WHEN n.counts THEN 0 ELSE 1 END"
	" FROM unnest($1, $2, $3, $4, $5) AS n(contact_id, message_id, attempt_id, due_at, counts)"
	" WHERE o.contact_id = n.contact_id AND o.message_id = n.message_id"
	" AND o.attempt_id = n.attempt_id",
	5,
	{ INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID, BOOLARRAYOID },
	.always_generic = true
};
static CrmPlan list_unknown = {
	"INSERT INTO crm.message_unknown (contact_id, message_id, since)"
	" SELECT n.contact_id, n.message_id, $4 FROM unnest($1, $2, $3)"
	"  AS n(contact_id, message_id, attempt_id)"
	" JOIN crm.message m ON m.contact_id = n.contact_id AND m.message_id = n.message_id"
	"  AND m.state = 'unknown' AND m.attempt_id = n.attempt_id ON CONFLICT DO NOTHING",
	4,
	{ INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZOID },
	.always_generic = true
};
static CrmPlan forget_unknown = {
	"DELETE FROM crm.message_unknown u USING unnest($1, $2) AS n(contact_id, message_id)"
	" WHERE u.contact_id = n.contact_id AND u.message_id = n.message_id",
	2,
	{ INT8ARRAYOID, INT8ARRAYOID },
	.always_generic = true
};
static CrmPlan give_back_windows = {
	"UPDATE crm.window_grant g SET used = greatest(g.used - 1, 0)"
	" FROM unnest($1, $2, $3) AS n(contact_id, account_id, grant_id)"
	" WHERE g.contact_id = n.contact_id AND g.account_id = n.account_id"
	" AND g.grant_id = n.grant_id",
	3,
	{ INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID },
	.always_generic = true
};
static CrmPlan spend_window = {
	"UPDATE crm.window_grant g SET used = greatest(g.used, g.quota),"
	" expires_at = CASE WHEN g.quota IS NULL THEN greatest(g.opened_at, $4) ELSE g.expires_at END"
	" WHERE g.contact_id = $1 AND g.account_id = $2 AND g.grant_id = $3",
	4,
	{ INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID }
};
static CrmPlan close_windows = {
	"UPDATE crm.window_grant g SET expires_at = greatest(g.opened_at, $3)"
	" WHERE g.contact_id = $1 AND g.account_id = $2 AND g.opened_at <= $3 AND g.expires_at > $3",
	3,
	{ INT8OID, INT8OID, TIMESTAMPTZOID }
};
/* a merge that is not yet committed holds the messages that it moves */
static CrmPlan lock_messages = {
	"SELECT n.place FROM unnest($1, $2) WITH ORDINALITY AS n(contact_id, message_id, place)"
	" JOIN crm.message m ON m.contact_id = n.contact_id AND m.message_id = n.message_id"
	" FOR NO KEY UPDATE OF m SKIP LOCKED",
	2,
	{ INT8ARRAYOID, INT8ARRAYOID },
	.always_generic = true
};
static CrmPlan find_existing = {
	"SELECT n.place FROM unnest($1, $2) WITH ORDINALITY AS n(contact_id, message_id, place)"
	" JOIN crm.message m ON m.contact_id = n.contact_id AND m.message_id = n.message_id",
	2,
	{ INT8ARRAYOID, INT8ARRAYOID },
	.always_generic = true
};
/* whose message it became while it was on its way, by a merge or by one that was undone */
static CrmPlan find_moved = {
	"SELECT n.place, l.contact_id FROM unnest($1) WITH ORDINALITY AS n(contact_id, place)"
	" JOIN crm.merge_ledger l ON l.other = n.contact_id AND l.unmerged_at IS NULL"
	" UNION ALL SELECT n.place, l.other"
	" FROM unnest($1, $2) WITH ORDINALITY AS n(contact_id, message_id, place)"
	" JOIN crm.merge_ledger l ON l.contact_id = n.contact_id AND l.unmerged_at IS NOT NULL"
	" WHERE l.moved -> 'message' @> to_jsonb(n.message_id)"
	" AND NOT EXISTS (SELECT FROM crm.message m WHERE m.contact_id = n.contact_id"
	"  AND m.message_id = n.message_id)",
	2,
	{ INT8ARRAYOID, INT8ARRAYOID },
	.always_generic = true
};
/* for candidates that were never tried in this claim */
static CrmPlan end_messages = {
	"WITH n AS (SELECT * FROM unnest($1, $2, $3, $4) AS n(contact_id, message_id, state, reason)),"
	" d AS (DELETE FROM crm.outbox o USING n"
	"  WHERE o.contact_id = n.contact_id AND o.message_id = n.message_id),"
	" u AS (INSERT INTO crm.message_unknown (contact_id, message_id, since)"
	"  SELECT n.contact_id, n.message_id, $5 FROM n WHERE n.state = 'unknown'"
	"  ON CONFLICT DO NOTHING)"
	" UPDATE crm.message m SET state = n.state, reason = n.reason,"
	"  ended_at = CASE WHEN n.state <> 'unknown' THEN $5 END"
	" FROM n WHERE m.contact_id = n.contact_id AND m.message_id = n.message_id"
	" RETURNING m.contact_id, m.message_id, m.awaited, m.state = 'unknown'",
	5,
	{ INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZOID },
	.always_generic = true
};

/* What one delivery comes to. */
typedef struct Ending
{
	CrmDelivery *delivery;
	const char *state; /* queued: it goes again */
	const char *reason;
	TimestampTz due_at;   /* if it goes again */
	bool arrived_perhaps; /* if it goes again: under the same key */
	bool counts;          /* if it goes again: as an attempt */
	bool gives_back;      /* the window was not used */
} Ending;

static void
again(Ending *ending, TimestampTz due_at, bool counts)
{
	ending->state = "queued";
	ending->due_at = due_at;
	ending->counts = counts;
	ending->gives_back = true;
}

static TimestampTz
back_off(const CrmDelivery *delivery, TimestampTz now)
{
	int seconds = Min(MAX_BACKOFF_SECONDS, 1 << Min(delivery->attempts - 1, 10));

	return now + seconds * USECS_PER_SEC;
}

static void
stop_account(const CrmDelivery *delivery, const char *api, const char *kind)
{
	const CrmChannelOutcome *outcome = &delivery->outcome;
	const char *object = *api == '\0' ? delivery->account_name
									  : psprintf("%s %s", delivery->account_name, api);

	crm_quota_block(delivery->account_id, api, DT_NOEND, outcome->reason);
	crm_alarm_raise(kind, object, outcome->detail == NULL ? outcome->reason : outcome->detail);
}

static void
block_call(const CrmDelivery *delivery, Ending *ending, TimestampTz until, TimestampTz now)
{
	crm_quota_block(delivery->account_id, delivery->type->api, until, delivery->outcome.reason);
	again(ending, Min(until, now + CRM_MAX_PUT_OFF), false);
}

/* No whole reply: only a key that the platform still knows lets it go again. */
static void
no_reply(const CrmDelivery *delivery, Ending *ending, TimestampTz now)
{
	TimestampTz retry_at = back_off(delivery, now);
	int64 known_for = (int64) delivery->type->key_seconds * USECS_PER_SEC;

	ending->state = "unknown";
	if (delivery->key == NULL ||
		retry_at + (int64) crm_guc_send_timeout * 1000 >= delivery->tried_at + known_for)
		return;
	again(ending, retry_at, true);
	ending->arrived_perhaps = true;
	ending->gives_back = false;
}

static void
contact_unreachable(const CrmDelivery *delivery, Ending *ending)
{
	ending->state = "failed";
	crm_note_unreachable(delivery);
}

static void
decide(const CrmDelivery *delivery, Ending *ending, TimestampTz now)
{
	const CrmChannelOutcome *outcome = &delivery->outcome;

	ending->reason = outcome->reason;
	switch (outcome->reaction)
	{
		case CRM_DONE:
		case CRM_DONE_BEFORE:
			ending->state = "sent";
			ending->reason = NULL;
			break;
		case CRM_TOKEN:
			crm_token_refused(delivery, now);
			if (delivery->token_failed)
				stop_account(delivery, "", "account_paused");
			again(ending, now, false);
			ending->reason = "token";
			break;
		case CRM_RETRY:
			if (!delivery->not_sent && delivery->attempts >= MAX_ATTEMPTS)
				ending->state = "failed";
			else
				again(ending, back_off(delivery, now), true);
			break;
		case CRM_MINUTE:
			block_call(delivery, ending, now + USECS_PER_MINUTE, now);
			break;
		case CRM_HOUR:
			block_call(delivery, ending, now + USECS_PER_HOUR, now);
			break;
		case CRM_DAY:
			block_call(delivery, ending, crm_quota_next_day(delivery->zone, now), now);
			break;
		case CRM_WINDOW_USED_UP:
		case CRM_WINDOW_CLOSED:
		{
			Datum values[4] = { Int64GetDatum(delivery->contact_id),
								Int64GetDatum(delivery->account_id),
								TimestampTzGetDatum(delivery->started_at),
								TimestampTzGetDatum(now) };

			ending->state = "refused";
			if (outcome->reaction == CRM_WINDOW_CLOSED)
				crm_run(&close_windows, values, NULL);
			else
			{
				/* another window may still be open, where the message needs one */
				if (delivery->grant_id == 0)
					break;
				values[2] = Int64GetDatum(delivery->grant_id);
				crm_run(&spend_window, values, NULL);
				again(ending, now, false);
				ending->gives_back = false;
			}
			break;
		}
		case CRM_DROP:
			ending->state = "failed";
			break;
		case CRM_DROP_TEMPLATE:
			ending->state = "failed";
			crm_alarm_raise("template_refused", delivery->template,
							outcome->detail == NULL ? outcome->reason : outcome->detail);
			break;
		case CRM_USER:
		case CRM_USER_UNFOLLOWED:
		case CRM_USER_OPTED_OUT:
			contact_unreachable(delivery, ending);
			break;
		case CRM_PAUSE:
			stop_account(delivery, "", "account_paused");
			again(ending, now, false);
			break;
		case CRM_PAUSE_API:
			stop_account(delivery, delivery->type->api, "api_paused");
			again(ending, now, false);
			break;
		case CRM_UNKNOWN:
			no_reply(delivery, ending, now);
			break;
	}

	/* what becomes of this attempt does not say what became of an earlier one */
	if (!delivery->tried_before)
		return;
	if (strcmp(ending->state, "queued") == 0)
	{
		ending->arrived_perhaps = true;
		ending->gives_back = false;
	}
	else if (strcmp(ending->state, "sent") != 0)
	{
		ending->state = "unknown";
		ending->reason = "no_reply";
	}
}

static void
add_text(CrmColumn *column, const char *value)
{
	crm_column_add(column, value == NULL ? (Datum) 0 : CStringGetTextDatum(value), value == NULL);
}

const char *
crm_outcome_name(const CrmDelivery *delivery)
{
	const CrmChannelOutcome *outcome = &delivery->outcome;

	return outcome->reaction == CRM_DONE || outcome->reaction == CRM_DONE_BEFORE ? "sent"
																				 : outcome->reason;
}

static void
write_attempts(List *deliveries)
{
	static const Oid types[] = { INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, TEXTOID,
								 INT4OID, INT4OID, TEXTOID, TEXTOID };
	CrmColumn columns[lengthof(types)];
	Datum values[lengthof(types)];
	ListCell *cell;

	if (crm_direct_attempts(deliveries))
		return;
	for (int i = 0; i < lengthof(types); i++)
		crm_column_init(&columns[i], types[i]);
	foreach(cell, deliveries)
	{
		CrmDelivery *delivery = lfirst(cell);
		const CrmChannelOutcome *outcome = &delivery->outcome;

		crm_column_add(&columns[0], Int64GetDatum(delivery->contact_id), false);
		crm_column_add(&columns[1], Int64GetDatum(delivery->attempt_id), false);
		crm_column_add(&columns[2], Int64GetDatum(delivery->message_id), false);
		crm_column_add(&columns[3], TimestampTzGetDatum(delivery->started_at), false);
		add_text(&columns[4], crm_outcome_name(delivery));
		crm_column_add(&columns[5], Int32GetDatum(outcome->errcode), outcome->errcode == 0);
		crm_column_add(&columns[6], Int32GetDatum((int32) delivery->http_status),
					   delivery->http_status == 0);
		add_text(&columns[7], outcome->platform_id);
		add_text(&columns[8], outcome->detail);
	}
	for (int i = 0; i < lengthof(types); i++)
		values[i] = crm_column_array(&columns[i]);
	crm_run(&insert_attempts, values, NULL);
}

/* The columns of all endings, and of those parts of them that go into other tables. */
typedef struct Writing
{
	CrmColumn all[7]; /* contact, message, attempt, state, reason, tried, at */
	CrmColumn ended[4];
	CrmColumn again[5];
	CrmColumn unknown[3];
	CrmColumn late[2];
	CrmColumn windows[3];
} Writing;

static void
init_columns(CrmColumn *columns, const Oid *types, int n)
{
	for (int i = 0; i < n; i++)
		crm_column_init(&columns[i], types[i]);
}

static void
init_writing(Writing *writing)
{
	static const Oid all[] = {
		INT8OID, INT8OID, INT8OID, TEXTOID, TEXTOID, BOOLOID, TIMESTAMPTZOID
	};
	static const Oid again[] = { INT8OID, INT8OID, INT8OID, TIMESTAMPTZOID, BOOLOID };

	init_columns(writing->all, all, 7);
	init_columns(writing->ended, all, 4);
	init_columns(writing->again, again, 5);
	init_columns(writing->unknown, all, 3);
	init_columns(writing->late, all, 2);
	init_columns(writing->windows, all, 3);
}

static void
add_ids(CrmColumn *columns, const CrmDelivery *delivery, int n)
{
	const int64 ids[3] = { delivery->contact_id, delivery->message_id, delivery->attempt_id };

	for (int i = 0; i < n; i++)
		crm_column_add(&columns[i], Int64GetDatum(ids[i]), false);
}

static void
add_ending(Writing *writing, const Ending *ending, TimestampTz now)
{
	const CrmDelivery *delivery = ending->delivery;
	bool goes_again = strcmp(ending->state, "queued") == 0;
	bool sent = strcmp(ending->state, "sent") == 0;

	add_ids(writing->all, delivery, 3);
	add_text(&writing->all[3], ending->state);
	add_text(&writing->all[4], ending->reason);
	crm_column_add(&writing->all[5], BoolGetDatum(ending->arrived_perhaps), false);
	crm_column_add(&writing->all[6], TimestampTzGetDatum(delivery->started_at), false);
	if (goes_again)
	{
		add_ids(writing->again, delivery, 3);
		crm_column_add(&writing->again[3], TimestampTzGetDatum(ending->due_at), false);
		crm_column_add(&writing->again[4], BoolGetDatum(ending->counts), false);
	}
	else
	{
		add_ids(writing->ended, delivery, 3);
		add_text(&writing->ended[3], ending->state);
	}
	if (strcmp(ending->state, "unknown") == 0)
		add_ids(writing->unknown, delivery, 3);
	if (sent && delivery->lease <= now)
		add_ids(writing->late, delivery, 2);
	if (goes_again && ending->gives_back && delivery->grant_id != 0)
	{
		crm_column_add(&writing->windows[0], Int64GetDatum(delivery->contact_id), false);
		crm_column_add(&writing->windows[1], Int64GetDatum(delivery->account_id), false);
		crm_column_add(&writing->windows[2], Int64GetDatum(delivery->grant_id), false);
	}
}

static void
run_with(CrmPlan *plan, CrmColumn *columns, int n, const Datum *more, int nmore)
{
	Datum values[CRM_MAX_PLAN_ARGS];

	if (columns[0].n == 0)
		return;
	for (int i = 0; i < n; i++)
		values[i] = crm_column_array(&columns[i]);
	for (int i = 0; i < nmore; i++)
		values[n + i] = more[i];
	crm_run(plan, values, NULL);
}

/* A contact that was merged took its messages along. Returns the endings of which that is so. */
static List *
follow_merges(List *endings)
{
	CrmColumn ids[2];
	Datum values[2];
	List *moved = NIL;
	ListCell *cell;
	uint64 n;

	init_columns(ids, (const Oid[]){ INT8OID, INT8OID }, 2);
	foreach(cell, endings)
		add_ids(ids, ((Ending *) lfirst(cell))->delivery, 2);
	values[0] = crm_column_array(&ids[0]);
	values[1] = crm_column_array(&ids[1]);
	n = crm_run(&find_moved, values, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		Ending *ending = list_nth(endings, crm_result_int64(i, 1) - 1);

		ending->delivery->contact_id = crm_result_int64(i, 2);
		moved = list_append_unique_ptr(moved, ending);
	}
	return moved;
}

/* The endings of messages that are not among those just updated. */
static List *
not_updated(List *endings, uint64 nupdated)
{
	int64 *updated = palloc_array(int64, Max(nupdated, 1));
	List *left = NIL;
	ListCell *cell;

	for (uint64 i = 0; i < nupdated; i++)
		updated[i] = crm_result_int64(i, 2);
	qsort(updated, nupdated, sizeof(int64), crm_compare_int64);
	foreach(cell, endings)
	{
		Ending *ending = lfirst(cell);

		if (bsearch(&ending->delivery->message_id, updated, nupdated, sizeof(int64),
					crm_compare_int64) == NULL)
			left = lappend(left, ending);
	}
	return left;
}

/*
 * The states of messages come first, as that locks them: one that is being
 * given to another contact is waited for, and found with that contact.
 */
static void
write_states(List *endings, CrmEnds *ends, TimestampTz now)
{
	for (int tries = 0; endings != NIL && tries < MAX_MERGES; tries++)
	{
		Writing writing;
		Datum values[8];
		ListCell *cell;
		uint64 n;

		init_writing(&writing);
		foreach(cell, endings)
			add_ending(&writing, lfirst(cell), now);
		for (int i = 0; i < 5; i++)
			values[i] = crm_column_array(&writing.all[i]);
		values[5] = TimestampTzGetDatum(now);
		values[6] = crm_column_array(&writing.all[5]);
		values[7] = crm_column_array(&writing.all[6]);
		n = crm_run(&set_states, values, NULL);
		crm_ends_add_result(ends, n);
		if (n == list_length(endings))
			break;
		endings = follow_merges(not_updated(endings, n));
	}
}

/* Moves the endings at the places in the current result out of the list. */
static List *
take_found(List **endings, uint64 nfound)
{
	bool *found = palloc0_array(bool, list_length(*endings) + 1);
	List *taken = NIL;
	List *left = NIL;
	ListCell *cell;

	for (uint64 i = 0; i < nfound; i++)
		found[crm_result_int64(i, 1)] = true;
	foreach(cell, *endings)
	{
		if (found[foreach_current_index(cell) + 1])
			taken = lappend(taken, lfirst(cell));
		else
			left = lappend(left, lfirst(cell));
	}
	*endings = left;
	return taken;
}

static List *
take(CrmPlan *plan, List **endings)
{
	CrmColumn ids[2];
	Datum values[2];
	ListCell *cell;

	if (*endings == NIL)
		return NIL;
	init_columns(ids, (const Oid[]){ INT8OID, INT8OID }, 2);
	foreach(cell, *endings)
		add_ids(ids, ((Ending *) lfirst(cell))->delivery, 2);
	values[0] = crm_column_array(&ids[0]);
	values[1] = crm_column_array(&ids[1]);
	return take_found(endings, crm_run(plan, values, NULL));
}

/*
 * Locks the messages, those of merged contacts where they are now. Returns the
 * endings that can be written; those of messages that somebody holds can later.
 */
static List *
lock_messages_of(List *endings)
{
	List *locked = take(&lock_messages, &endings);

	if (endings == NIL)
		return locked;
	(void) follow_merges(endings);
	locked = list_concat(locked, take(&lock_messages, &endings));
	(void) take(&find_existing, &endings);
	/* those left are not there */
	return list_concat(locked, endings);
}

/* Outcomes of all kinds, whatever became of the messages meanwhile; those that could be written. */
static List *
record_by_statements(List *deliveries, TimestampTz now)
{
	Datum at = TimestampTzGetDatum(now);
	List *endings = NIL;
	CrmEnds ends = { 0 };
	Writing writing;
	ListCell *cell;

	foreach(cell, deliveries)
	{
		Ending *ending = palloc0_object(Ending);

		ending->delivery = lfirst(cell);
		endings = lappend(endings, ending);
	}
	endings = lock_messages_of(endings);
	if (endings == NIL)
		return NIL;
	deliveries = NIL;
	foreach(cell, endings)
	{
		Ending *ending = lfirst(cell);

		decide(ending->delivery, ending, now);
		deliveries = lappend(deliveries, ending->delivery);
	}
	write_states(endings, &ends, now);
	init_writing(&writing);
	foreach(cell, endings)
		add_ending(&writing, lfirst(cell), now);
	run_with(&leave_queue, writing.ended, 4, NULL, 0);
	run_with(&queue_again, writing.again, 5, NULL, 0);
	run_with(&list_unknown, writing.unknown, 3, &at, 1);
	run_with(&forget_unknown, writing.late, 2, NULL, 0);
	run_with(&give_back_windows, writing.windows, 3, NULL, 0);
	crm_ends_write(&ends);
	return deliveries;
}

List *
crm_outcome_record(List *deliveries, TimestampTz now)
{
	List *written = crm_direct_sent(deliveries, now);
	List *left = list_length(written) == list_length(deliveries)
		? NIL
		: list_difference_ptr(deliveries, written);
	CrmColumn contacts;
	ListCell *cell;

	if (left != NIL)
		written = list_concat(written, record_by_statements(left, now));
	if (written == NIL)
		return NIL;
	write_attempts(written);
	crm_column_init(&contacts, INT8OID);
	foreach(cell, written)
		crm_column_add(&contacts, Int64GetDatum(((CrmDelivery *) lfirst(cell))->contact_id), false);
	if (crm_queue_release(crm_column_array(&contacts), now))
		crm_heads_woken();
	crm_heads_moved(now);
	return written;
}

bool
crm_end_unsent(List *candidates, TimestampTz now)
{
	Datum at = TimestampTzGetDatum(now);
	CrmColumn columns[4];
	CrmEnds ends = { 0 };
	Datum values[5];
	ListCell *cell;

	init_columns(columns, (const Oid[]){ INT8OID, INT8OID, TEXTOID, TEXTOID }, 4);
	foreach(cell, candidates)
	{
		CrmCandidate *candidate = lfirst(cell);
		const char *state;

		switch (candidate->verdict)
		{
			case CRM_EXPIRED:
				state = "expired";
				break;
			case CRM_REFUSED:
				state = "refused";
				break;
			case CRM_FAILED:
			case CRM_GONE:
				state = "failed";
				break;
			case CRM_LOST_KEY:
				state = "unknown";
				break;
			default:
				continue;
		}
		crm_column_add(&columns[0], Int64GetDatum(candidate->contact_id), false);
		crm_column_add(&columns[1], Int64GetDatum(candidate->message_id), false);
		add_text(&columns[2], state);
		add_text(&columns[3], candidate->verdict == CRM_LOST_KEY ? "no_reply" : candidate->reason);
	}
	if (columns[0].n == 0)
		return false;
	for (int i = 0; i < 4; i++)
		values[i] = crm_column_array(&columns[i]);
	values[4] = at;
	crm_ends_add_result(&ends, crm_run(&end_messages, values, NULL));
	crm_ends_write(&ends);
	return crm_queue_release(values[0], now);
}
