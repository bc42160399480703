/*
 * direct.c
 *		Claims, successes and attempts, row by row and without the executor. A statement
 *		for many rows costs three times as much, and every message takes part in
 *		both.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/sequence.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/table.h"
#include "dispatch/direct.h"
#include "outbox/queue.h"

/* the keys first, then what is written */
static const char *const outbox_columns[] = { "contact_id", "message_id", "lease", "attempt_id",
											  "attempts" };
enum
{
	O_CONTACT_ID,
	O_MESSAGE_ID,
	O_LEASE,
	O_ATTEMPT_ID,
	O_ATTEMPTS,
	O_COLUMNS
};
static const char *const message_columns[] = { "contact_id", "message_id", "state",    "reason",
											   "attempt_id", "grant_id",   "tried_at", "sent_at",
											   "ended_at",   "awaited" };
enum
{
	M_CONTACT_ID,
	M_MESSAGE_ID,
	M_STATE,
	M_REASON,
	M_ATTEMPT_ID,
	M_GRANT_ID,
	M_TRIED_AT,
	M_SENT_AT,
	M_ENDED_AT,
	M_AWAITED,
	M_COLUMNS
};
static const char *const attempt_columns[] = { "contact_id", "attempt_id",  "recorded_at",
											   "message_id", "occurred_at", "outcome",
											   "errcode",    "http_status", "platform_id",
											   "reply" };
enum
{
	A_CONTACT_ID,
	A_ATTEMPT_ID,
	A_RECORDED_AT,
	A_MESSAGE_ID,
	A_OCCURRED_AT,
	A_OUTCOME,
	A_ERRCODE,
	A_HTTP_STATUS,
	A_PLATFORM_ID,
	A_REPLY,
	A_COLUMNS
};

typedef struct Tables
{
	CrmTarget *outbox;
	CrmTarget *message;
} Tables;

static void
close_tables(Tables *tables)
{
	if (tables->outbox != NULL)
		crm_target_close(tables->outbox);
	if (tables->message != NULL)
		crm_target_close(tables->message);
}

static bool
open_tables(Tables *tables)
{
	memset(tables, 0, sizeof(*tables));
	if (!crm_guc_direct_access)
		return false;
	tables->outbox = crm_target_open("outbox", outbox_columns, O_COLUMNS, true);
	if (tables->outbox != NULL)
		tables->message = crm_target_open("message", message_columns, M_COLUMNS, true);
	if (tables->message != NULL && tables->outbox->nkeys == 2 && tables->message->nkeys == 2)
		return true;
	close_tables(tables);
	return false;
}

static bool
find(CrmTarget *target, const CrmDelivery *delivery, const ItemPointerData *place)
{
	Datum keys[M_COLUMNS] = { Int64GetDatum(delivery->contact_id),
							  Int64GetDatum(delivery->message_id) };

	return crm_target_find_at(target, place, keys);
}

/* What stands in the row found, to be changed here and there. */
static void
read_found(CrmTarget *target, int ncolumns, Datum *values, bool *nulls)
{
	for (int i = 0; i < ncolumns; i++)
		values[i] = crm_target_value(target, i, &nulls[i]);
}

static bool
is_state(const Datum *values, const bool *nulls, const char *state)
{
	text *found;

	if (nulls[M_STATE])
		return false;
	found = DatumGetTextPP(values[M_STATE]);
	return VARSIZE_ANY_EXHDR(found) == strlen(state) &&
		memcmp(VARDATA_ANY(found), state, strlen(state)) == 0;
}

/* The rows are locked by this transaction, so they are there and stay. */
static void
changed(const char *table, const CrmDelivery *delivery)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("row of message %lld in crm.%s changed while it was claimed",
					(long long) delivery->message_id, table),
			 errhint("The worker tries again.")));
}

bool
crm_direct_claim(List *deliveries, TimestampTz now)
{
	Datum sending = CStringGetTextDatum("sending");
	Oid sequence;
	Tables tables;
	ListCell *cell;

	if (!open_tables(&tables))
		return false;
	sequence = crm_table_oid("delivery_attempt_attempt_id_seq");
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	foreach(cell, deliveries)
	{
		CrmDelivery *delivery = lfirst(cell);
		Datum values[M_COLUMNS];
		bool nulls[M_COLUMNS];

		delivery->attempt_id = nextval_internal(sequence, false);
		if (!find(tables.outbox, delivery, &delivery->queue_place))
			changed("outbox", delivery);
		read_found(tables.outbox, O_COLUMNS, values, nulls);
		values[O_LEASE] = TimestampTzGetDatum(delivery->lease);
		values[O_ATTEMPT_ID] = Int64GetDatum(delivery->attempt_id);
		values[O_ATTEMPTS] = Int32GetDatum(delivery->attempts);
		memset(nulls, false, sizeof(nulls));
		if (!crm_target_update(tables.outbox, values, nulls))
			changed("outbox", delivery);

		if (!find(tables.message, delivery, &delivery->place))
			changed("message", delivery);
		read_found(tables.message, M_COLUMNS, values, nulls);
		values[M_STATE] = sending;
		nulls[M_REASON] = true;
		values[M_ATTEMPT_ID] = Int64GetDatum(delivery->attempt_id);
		nulls[M_ATTEMPT_ID] = false;
		values[M_GRANT_ID] = Int64GetDatum(delivery->grant_id);
		nulls[M_GRANT_ID] = delivery->grant_id == 0;
		if (nulls[M_TRIED_AT])
			values[M_TRIED_AT] = TimestampTzGetDatum(now);
		nulls[M_TRIED_AT] = false;
		if (!crm_target_update(tables.message, values, nulls))
			changed("message", delivery);
	}
	PopActiveSnapshot();
	close_tables(&tables);
	return true;
}

/* Both rows or none: the one that can be held by others comes first. */
static bool
write_sent(Tables *tables, const CrmDelivery *delivery, Datum sent, CrmEnds *ends, TimestampTz now)
{
	Datum values[M_COLUMNS];
	bool nulls[M_COLUMNS];

	if (!find(tables->message, delivery, &delivery->place) ||
		!find(tables->outbox, delivery, &delivery->queue_place))
		return false;
	read_found(tables->outbox, O_COLUMNS, values, nulls);
	if (nulls[O_ATTEMPT_ID] || DatumGetInt64(values[O_ATTEMPT_ID]) != delivery->attempt_id)
		return false;
	read_found(tables->message, M_COLUMNS, values, nulls);
	if (nulls[M_ATTEMPT_ID] || DatumGetInt64(values[M_ATTEMPT_ID]) != delivery->attempt_id ||
		!is_state(values, nulls, "sending"))
		return false;
	values[M_STATE] = sent;
	nulls[M_REASON] = true;
	values[M_SENT_AT] = TimestampTzGetDatum(delivery->started_at);
	nulls[M_SENT_AT] = false;
	values[M_ENDED_AT] = TimestampTzGetDatum(now);
	nulls[M_ENDED_AT] = false;
	if (!crm_target_try_update(tables->message, values, nulls))
		return false;
	/* whoever wants its place in the queue has its message first, or takes only those not claimed */
	if (!crm_target_try_delete(tables->outbox))
		changed("outbox", delivery);
	if (DatumGetBool(values[M_AWAITED]))
		crm_ends_add(ends, delivery->contact_id, delivery->message_id, false);
	return true;
}

List *
crm_direct_sent(List *deliveries, TimestampTz now)
{
	Datum sent = CStringGetTextDatum("sent");
	List *written = NIL;
	CrmEnds ends = { 0 };
	Tables tables;
	ListCell *cell;

	if (deliveries == NIL || !open_tables(&tables))
		return NIL;
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	foreach(cell, deliveries)
	{
		CrmDelivery *delivery = lfirst(cell);
		CrmReaction reaction = delivery->outcome.reaction;

		/* after its lease others may have called it unknown */
		if ((reaction == CRM_DONE || reaction == CRM_DONE_BEFORE) && delivery->lease > now &&
			write_sent(&tables, delivery, sent, &ends, now))
			written = lappend(written, delivery);
	}
	PopActiveSnapshot();
	close_tables(&tables);
	crm_ends_write(&ends);
	return written;
}

static void
put_text(Datum *values, bool *nulls, int column, const char *value)
{
	nulls[column] = value == NULL;
	values[column] = value == NULL ? (Datum) 0 : CStringGetTextDatum(value);
}

bool
crm_direct_attempts(List *deliveries)
{
	Datum now = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	CrmTarget *target;
	ListCell *cell;

	if (!crm_guc_direct_access)
		return false;
	target = crm_target_open_partition("delivery_attempt", attempt_columns, A_COLUMNS, false,
									   A_RECORDED_AT, now);
	if (target == NULL)
		return false;
	target->strict = true;
	foreach(cell, deliveries)
	{
		const CrmDelivery *delivery = lfirst(cell);
		Datum values[A_COLUMNS];
		bool nulls[A_COLUMNS] = { false };

		values[A_CONTACT_ID] = Int64GetDatum(delivery->contact_id);
		values[A_ATTEMPT_ID] = Int64GetDatum(delivery->attempt_id);
		values[A_RECORDED_AT] = now;
		values[A_MESSAGE_ID] = Int64GetDatum(delivery->message_id);
		values[A_OCCURRED_AT] = TimestampTzGetDatum(delivery->started_at);
		values[A_OUTCOME] = CStringGetTextDatum(crm_outcome_name(delivery));
		values[A_ERRCODE] = Int32GetDatum(delivery->outcome.errcode);
		nulls[A_ERRCODE] = delivery->outcome.errcode == 0;
		values[A_HTTP_STATUS] = Int32GetDatum((int32) delivery->http_status);
		nulls[A_HTTP_STATUS] = delivery->http_status == 0;
		put_text(values, nulls, A_PLATFORM_ID, delivery->outcome.platform_id);
		put_text(values, nulls, A_REPLY, delivery->outcome.detail);
		crm_target_insert(target, values, nulls);
	}
	crm_target_flush(target);
	crm_target_close(target);
	return true;
}
