/*
 * queue.c
 *		Leaving the queue: taking messages back, settling one of which nobody
 *		knew, what waited behind, and telling who waits for the end.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/guc.h"
#include "base/reader.h"
#include "base/rights.h"
#include "base/wake.h"
#include "outbox/outbox.h"
#include "outbox/queue.h"

/* of each lane the first; who is not due yet keeps its own time, only parked ones have infinity */
static CrmPlan release = {
	"UPDATE crm.outbox o SET due_at = $2"
	" FROM (SELECT DISTINCT ON (p.contact_id, p.account_id, p.lane) p.contact_id, p.message_id"
	"  FROM unnest($1) AS u(contact_id) JOIN crm.outbox p ON p.contact_id = u.contact_id"
	"  WHERE p.due_at = 'infinity' ORDER BY p.contact_id, p.account_id, p.lane, p.message_id) n"
	" WHERE o.contact_id = n.contact_id AND o.message_id = n.message_id",
	2,
	{ INT8ARRAYOID, TIMESTAMPTZOID },
	.always_generic = true
};
/* what may have arrived can no longer be said not to go */
static CrmPlan take_back = {
	"WITH d AS (DELETE FROM crm.outbox o USING unnest($1, $2) AS n(contact_id, message_id), crm.message m"
	"  WHERE o.contact_id = n.contact_id AND o.message_id = n.message_id AND o.lease IS NULL"
	"  AND m.contact_id = n.contact_id AND m.message_id = n.message_id AND m.tried_at IS NULL"
	"  RETURNING o.contact_id, o.message_id)"
	" UPDATE crm.message m SET state = 'cancelled', reason = $3, ended_at = $4"
	" FROM d WHERE m.contact_id = d.contact_id AND m.message_id = d.message_id"
	" RETURNING m.contact_id, m.message_id, m.awaited, false",
	4,
	{ INT8ARRAYOID, INT8ARRAYOID, TEXTOID, TIMESTAMPTZOID }
};
static CrmPlan find_state = {
	"SELECT m.state FROM crm.message m WHERE m.contact_id = $1 AND m.message_id = $2",
	2,
	{ INT8OID, INT8OID }
};
static CrmPlan settle = {
	"UPDATE crm.message m SET state = $3, reason = 'resolved', ended_at = $4,"
	" sent_at = CASE WHEN $3 = 'sent' THEN coalesce(m.sent_at, m.tried_at) END"
	" WHERE m.contact_id = $1 AND m.message_id = $2"
	" RETURNING m.contact_id, m.message_id, m.awaited, false",
	4,
	{ INT8OID, INT8OID, TEXTOID, TIMESTAMPTZOID }
};
static CrmPlan forget_unknown = {
	"DELETE FROM crm.message_unknown u WHERE u.contact_id = $1 AND u.message_id = $2",
	2,
	{ INT8OID, INT8OID }
};
static CrmPlan note = {
	"INSERT INTO crm.delivery_attempt (contact_id, message_id, occurred_at, outcome, reply)"
	" VALUES ($1, $2, $3, 'resolved: ' || $4, $5)",
	5,
	{ INT8OID, INT8OID, TIMESTAMPTZOID, TEXTOID, TEXTOID }
};

/* an unknown one that is known after all goes on at once */
static CrmPlan write_ends = {
	"INSERT INTO crm.message_end (contact_id, message_id, due_at)"
	" SELECT DISTINCT ON (n.contact_id, n.message_id) n.contact_id, n.message_id, n.due_at"
	" FROM unnest($1, $2, $3) AS n(contact_id, message_id, due_at)"
	" ORDER BY n.contact_id, n.message_id, n.due_at"
	" ON CONFLICT (contact_id, message_id) DO UPDATE SET due_at = EXCLUDED.due_at",
	3,
	{ INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID },
	.always_generic = true
};

void
crm_ends_add(CrmEnds *ends, int64 contact_id, int64 message_id, bool unknown)
{
	TimestampTz due_at = crm_now();

	if (unknown)
		due_at += (int64) crm_guc_unknown_after * USECS_PER_SEC;
	if (ends->contacts.n == 0)
	{
		crm_column_init(&ends->contacts, INT8OID);
		crm_column_init(&ends->messages, INT8OID);
		crm_column_init(&ends->due_at, TIMESTAMPTZOID);
	}
	crm_column_add(&ends->contacts, Int64GetDatum(contact_id), false);
	crm_column_add(&ends->messages, Int64GetDatum(message_id), false);
	crm_column_add(&ends->due_at, TimestampTzGetDatum(due_at), false);
}

void
crm_ends_add_result(CrmEnds *ends, uint64 nrows)
{
	for (uint64 row = 0; row < nrows; row++)
		if (crm_result_true(row, 3))
			crm_ends_add(ends, crm_result_int64(row, 1), crm_result_int64(row, 2),
						 crm_result_true(row, 4));
}

void
crm_ends_write(CrmEnds *ends)
{
	Datum values[3];

	if (ends->contacts.n == 0)
		return;
	values[0] = crm_column_array(&ends->contacts);
	values[1] = crm_column_array(&ends->messages);
	values[2] = crm_column_array(&ends->due_at);
	crm_run(&write_ends, values, NULL);
	crm_wake_clock_at_commit(); /* journeys go on */
}

/* Those of the contacts that have parked messages, which few have. */
static Datum
with_parked(Datum contacts)
{
	static const char *const columns[] = { "contact_id", "due_at" };
	CrmReader *reader = crm_guc_direct_access ? crm_reader_open("outbox", columns, 2, 1) : NULL;
	ArrayType *array = DatumGetArrayTypeP(contacts);
	int n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	const int64 *ids = (const int64 *) ARR_DATA_PTR(array);
	CrmColumn found;

	if (reader == NULL)
		return contacts;
	crm_column_init(&found, INT8OID);
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	for (int i = 0; i < n; i++)
	{
		Datum key = Int64GetDatum(ids[i]);
		bool parked = false;
		bool isnull;

		crm_reader_find(reader, &key);
		while (!parked && crm_reader_next(reader))
			parked = DatumGetTimestampTz(crm_reader_value(reader, 1, &isnull)) == DT_NOEND;
		if (parked)
			crm_column_add(&found, key, false);
	}
	crm_reader_close(reader);
	PopActiveSnapshot();
	return found.n == 0 ? (Datum) 0 : crm_column_array(&found);
}

bool
crm_queue_release(Datum contacts, TimestampTz now)
{
	Datum values[2] = { with_parked(contacts), TimestampTzGetDatum(now) };

	return values[0] != 0 && crm_run(&release, values, NULL) > 0;
}

static char *
state_of(int64 contact_id, int64 message_id)
{
	Datum values[2] = { Int64GetDatum(contact_id), Int64GetDatum(message_id) };

	if (crm_run(&find_state, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("message %lld of contact %lld does not exist", (long long) message_id,
						(long long) contact_id),
				 errhint("Give the contact and the message_id that crm.send() returned.")));
	return crm_result_text(0, 1);
}

int64
crm_outbox_cancel_many(const int64 *contacts, const int64 *message_ids, int n, const char *reason)
{
	Datum values[4] = { crm_int64_array(contacts, n), crm_int64_array(message_ids, n),
						reason == NULL ? (Datum) 0 : CStringGetTextDatum(reason),
						TimestampTzGetDatum(crm_now()) };
	CrmEnds ends = { 0 };
	uint64 taken = crm_run(&take_back, values, reason == NULL ? "  n " : NULL);

	if (taken == 0)
		return 0;
	crm_ends_add_result(&ends, taken);
	crm_ends_write(&ends);
	crm_queue_release(values[0], GetCurrentStatementStartTimestamp());
	crm_wake_at_commit();
	return taken;
}

bool
crm_outbox_cancel(int64 contact_id, int64 message_id)
{
	return crm_outbox_cancel_many(&contact_id, &message_id, 1, NULL) > 0 ||
		strcmp(state_of(contact_id, message_id), "cancelled") == 0;
}

void
crm_outbox_resolve(int64 contact_id, int64 message_id, const char *state, const char *comment)
{
	Datum values[5] = { Int64GetDatum(contact_id), Int64GetDatum(message_id),
						CStringGetTextDatum(state), TimestampTzGetDatum(crm_now()), 0 };
	CrmEnds ends = { 0 };
	char *before;

	if (strcmp(state, "sent") != 0 && strcmp(state, "failed") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a message cannot be resolved as \"%s\"",
						pnstrdup(state, pg_mbcliplen(state, strlen(state), 40))),
				 errhint("Say sent if it arrived, failed if it did not.")));
	before = state_of(contact_id, message_id);
	if (strcmp(before, state) == 0)
		return;
	if (strcmp(before, "unknown") != 0 && strcmp(before, "waiting") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("message %lld is %s", (long long) message_id, before),
				 errhint("Only an unknown or waiting message can be resolved.")));
	crm_ends_add_result(&ends, crm_run(&settle, values, NULL));
	crm_ends_write(&ends);
	crm_run(&forget_unknown, values, NULL);
	values[2] = TimestampTzGetDatum(crm_now());
	values[3] = CStringGetTextDatum(state);
	values[4] = CStringGetTextDatum(
		psprintf("%s: %s", GetUserNameFromId(crm_caller(), false), comment == NULL ? "" : comment));
	crm_run(&note, values, NULL);
}
