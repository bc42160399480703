/*
 * queue.c
 *		Leaving the queue: taking a message back, settling one of which nobody
 *		knew, and what waited behind.
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
	"WITH d AS (DELETE FROM crm.outbox o USING crm.message m"
	"  WHERE o.contact_id = $1 AND o.message_id = $2 AND o.lease IS NULL"
	"  AND m.contact_id = $1 AND m.message_id = $2 AND m.tried_at IS NULL RETURNING o.message_id)"
	" UPDATE crm.message m SET state = 'cancelled', reason = NULL, ended_at = $3"
	" FROM d WHERE m.contact_id = $1 AND m.message_id = d.message_id",
	3,
	{ INT8OID, INT8OID, TIMESTAMPTZOID }
};
static CrmPlan find_state = {
	"SELECT m.state FROM crm.message m WHERE m.contact_id = $1 AND m.message_id = $2",
	2,
	{ INT8OID, INT8OID }
};
static CrmPlan settle = {
	"UPDATE crm.message m SET state = $3, reason = 'resolved', ended_at = $4,"
	" sent_at = CASE WHEN $3 = 'sent' THEN coalesce(m.sent_at, m.tried_at) END"
	" WHERE m.contact_id = $1 AND m.message_id = $2",
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

bool
crm_outbox_cancel(int64 contact_id, int64 message_id)
{
	Datum values[3] = { Int64GetDatum(contact_id), Int64GetDatum(message_id),
						TimestampTzGetDatum(crm_now()) };

	if (crm_run(&take_back, values, NULL) == 0)
		return strcmp(state_of(contact_id, message_id), "cancelled") == 0;
	crm_queue_release(crm_int64_array(&contact_id, 1), GetCurrentStatementStartTimestamp());
	crm_wake_at_commit();
	return true;
}

void
crm_outbox_resolve(int64 contact_id, int64 message_id, const char *state, const char *comment)
{
	Datum values[5] = { Int64GetDatum(contact_id), Int64GetDatum(message_id),
						CStringGetTextDatum(state), TimestampTzGetDatum(crm_now()), 0 };
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
	crm_run(&settle, values, NULL);
	crm_run(&forget_unknown, values, NULL);
	values[2] = TimestampTzGetDatum(crm_now());
	values[3] = CStringGetTextDatum(state);
	values[4] = CStringGetTextDatum(
		psprintf("%s: %s", GetUserNameFromId(crm_caller(), false), comment == NULL ? "" : comment));
	crm_run(&note, values, NULL);
}
