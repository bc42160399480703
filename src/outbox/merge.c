/*
 * merge.c
 *		Messages of two contacts that become one, and of one that becomes two.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/wake.h"
#include "outbox/outbox.h"
#include "outbox/queue.h"

/* those whose outcome may be coming: who writes it locks the message first */
static CrmPlan lock_messages = {
	"SELECT FROM crm.outbox o JOIN crm.message m ON m.contact_id = o.contact_id"
	" AND m.message_id = o.message_id WHERE o.contact_id IN ($1, $2)"
	" ORDER BY o.contact_id, o.message_id FOR UPDATE OF m",
	2,
	{ INT8OID, INT8OID }
};
/*
 * Both had a message under one key. One person gets it once: where one of the
 * two has not begun its way, it is taken back, the loser's first.
 */
static CrmPlan take_back_twins = {
	"WITH d AS (SELECT CASE WHEN l.state = 'queued' AND l.tried_at IS NULL"
	"    AND s.state IN ('queued', 'sending', 'sent', 'waiting', 'unknown') THEN l.contact_id"
	"   WHEN s.state = 'queued' AND s.tried_at IS NULL"
	"    AND l.state IN ('queued', 'sending', 'sent', 'waiting', 'unknown') THEN s.contact_id END"
	"   AS contact_id, l.contact_id AS loser, l.message_id AS losers, s.message_id AS survivors"
	"  FROM crm.message l JOIN crm.message s ON s.contact_id = $2 AND s.send_key = l.send_key"
	"  WHERE l.contact_id = $1 AND l.template = s.template),"
	" t AS (SELECT d.contact_id, CASE WHEN d.contact_id = d.loser THEN d.losers"
	"   ELSE d.survivors END AS message_id FROM d WHERE d.contact_id IS NOT NULL),"
	" q AS (DELETE FROM crm.outbox o USING t"
	"  WHERE o.contact_id = t.contact_id AND o.message_id = t.message_id)"
	" UPDATE crm.message m SET state = 'cancelled', reason = 'merged', ended_at = $3 FROM t"
	" WHERE m.contact_id = t.contact_id AND m.message_id = t.message_id"
	" RETURNING m.contact_id, m.message_id, m.awaited, false",
	3,
	{ INT8OID, INT8OID, TIMESTAMPTZOID }
};
/* The loser's gets another key; the ledger keeps the one it had. */
static CrmPlan rename_keys = {
	"WITH d AS (SELECT l.message_id, l.send_key, l.send_key || '#' || $1"
	"   || CASE WHEN EXISTS (SELECT FROM crm.message x WHERE x.contact_id IN ($1, $2)"
	"    AND x.send_key = l.send_key || '#' || $1) THEN '#' || l.message_id ELSE '' END AS new_key"
	"  FROM crm.message l JOIN crm.message s ON s.contact_id = $2 AND s.send_key = l.send_key"
	"  WHERE l.contact_id = $1),"
	" u AS (UPDATE crm.message m SET send_key = d.new_key FROM d"
	"  WHERE m.contact_id = $1 AND m.message_id = d.message_id)"
	" SELECT jsonb_agg(jsonb_build_array(d.message_id, d.send_key)) FROM d",
	2,
	{ INT8OID, INT8OID }
};
static CrmPlan give_keys = {
	"UPDATE crm.message m SET send_key = e.value ->> 1 FROM jsonb_array_elements($2) e"
	" WHERE m.contact_id = $1 AND m.message_id = (e.value ->> 0)::bigint",
	2,
	{ INT8OID, JSONBOID }
};

/* What was written about messages since the merge goes with them. */
#define FOLLOW_MESSAGES(table)                                                            \
	{                                                                                     \
		"UPDATE crm." table " t SET contact_id = $2 FROM crm.message m"                   \
		" WHERE t.contact_id = $1 AND m.contact_id = $2 AND m.message_id = t.message_id", \
			2,                                                                            \
		{                                                                                 \
			INT8OID, INT8OID                                                              \
		}                                                                                 \
	}
static CrmPlan follow_messages[] = { FOLLOW_MESSAGES("message_end"),
									 FOLLOW_MESSAGES("message_unknown"),
									 FOLLOW_MESSAGES("delivery_attempt") };

Datum
crm_outbox_merge(int64 loser, int64 survivor, bool *isnull)
{
	Datum values[3] = { Int64GetDatum(loser), Int64GetDatum(survivor),
						TimestampTzGetDatum(crm_now()) };
	CrmEnds ends = { 0 };

	crm_run(&lock_messages, values, NULL);
	crm_ends_add_result(&ends, crm_run(&take_back_twins, values, NULL));
	crm_ends_write(&ends);
	crm_run(&rename_keys, values, NULL);
	return crm_result(0, 1, isnull);
}

void
crm_outbox_unmerge(int64 survivor, int64 other, const Datum *keys)
{
	Datum values[2] = { Int64GetDatum(survivor), Int64GetDatum(other) };

	for (int i = 0; i < lengthof(follow_messages); i++)
		crm_run(&follow_messages[i], values, NULL);
	if (keys == NULL)
		return;
	values[0] = Int64GetDatum(other);
	values[1] = *keys;
	crm_run(&give_keys, values, NULL);
}

void
crm_outbox_rekeyed(const int64 *contacts, int ncontacts)
{
	if (crm_queue_release(crm_int64_array(contacts, ncontacts),
						  GetCurrentStatementStartTimestamp()))
		crm_wake_at_commit();
}
