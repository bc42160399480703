/*
 * recover.c
 *		Claims that nobody will finish: of a worker that died, or of a turn that
 *		failed between its commit and the platform. Their lease is waited for,
 *		as what they sent may still be on its way.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "dispatch/claim.h"
#include "outbox/queue.h"

static CrmPlan find_leases = {
	"SELECT o.contact_id, o.message_id, o.attempt_id, o.lease, m.tried_at, m.channel,"
	" v.message_type FROM crm.outbox o"
	" LEFT JOIN crm.message m ON m.contact_id = o.contact_id AND m.message_id = o.message_id"
	" LEFT JOIN crm.template_version v ON v.name = m.template AND v.version = m.template_version"
	" WHERE o.lease IS NOT NULL AND o.attempt_id <> ALL ($1)",
	1,
	{ INT8ARRAYOID }
};
/* who waited behind a message that is no longer on its way */
static CrmPlan release_all = { "UPDATE crm.outbox o SET due_at = $1 WHERE o.due_at = 'infinity'",
							   1,
							   { TIMESTAMPTZOID } };
static CrmPlan queue_again = {
	"WITH n AS (SELECT * FROM unnest($1, $2, $3) AS n(contact_id, message_id, attempt_id)),"
	" a AS (INSERT INTO crm.delivery_attempt (contact_id, attempt_id, message_id, occurred_at,"
	"  outcome) SELECT n.contact_id, n.attempt_id, n.message_id, $4, 'no_reply' FROM n),"
	" o AS (UPDATE crm.outbox o SET lease = NULL, attempt_id = NULL, due_at = $4 FROM n"
	"  WHERE o.contact_id = n.contact_id AND o.message_id = n.message_id"
	"  AND o.attempt_id = n.attempt_id RETURNING o.contact_id, o.message_id)"
	" UPDATE crm.message m SET state = 'queued', reason = 'no_reply' FROM o"
	" WHERE m.contact_id = o.contact_id AND m.message_id = o.message_id",
	4,
	{ INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZOID }
};
static CrmPlan make_unknown = {
	"WITH n AS (SELECT * FROM unnest($1, $2, $3) AS n(contact_id, message_id, attempt_id)),"
	" a AS (INSERT INTO crm.delivery_attempt (contact_id, attempt_id, message_id, occurred_at,"
	"  outcome) SELECT n.contact_id, n.attempt_id, n.message_id, $4, 'no_reply' FROM n),"
	" o AS (DELETE FROM crm.outbox o USING n WHERE o.contact_id = n.contact_id"
	"  AND o.message_id = n.message_id AND o.attempt_id = n.attempt_id"
	"  RETURNING o.contact_id, o.message_id),"
	" u AS (INSERT INTO crm.message_unknown (contact_id, message_id, since)"
	"  SELECT o.contact_id, o.message_id, $4 FROM o ON CONFLICT DO NOTHING)"
	" UPDATE crm.message m SET state = 'unknown', reason = 'no_reply' FROM o"
	" WHERE m.contact_id = o.contact_id AND m.message_id = o.message_id"
	" RETURNING m.contact_id, m.message_id, m.awaited, true",
	4,
	{ INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZOID }
};

/* when leases that are nobody's are looked for; DT_NOEND: there are none */
static TimestampTz look_at = DT_NOEND;

void
crm_recover_start(void)
{
	look_at = DT_NOBEGIN;
}

void
crm_recover_soon(TimestampTz now)
{
	look_at = Min(look_at, now + crm_lease_length());
}

TimestampTz
crm_recover_due(void)
{
	return look_at;
}

/* How long the platform knows the key of such a message; 0 where it knows none. */
static int64
key_known_for(const char *channel_name, const char *message_type)
{
	const CrmChannel *channel = channel_name == NULL ? NULL : crm_channel_find(channel_name);

	for (int i = 0; channel != NULL && message_type != NULL && i < channel->ntypes; i++)
		if (strcmp(channel->types[i].name, message_type) == 0)
			return (int64) channel->types[i].key_seconds * USECS_PER_SEC;
	return 0;
}

void
crm_recover(List *deliveries, TimestampTz now)
{
	bool first = look_at == DT_NOBEGIN;
	CrmColumn known;
	CrmColumn lost[2][3];
	CrmEnds ends = { 0 };
	TimestampTz next = DT_NOEND;
	Datum values[4];
	ListCell *cell;
	uint64 n;

	crm_column_init(&known, INT8OID);
	foreach(cell, deliveries)
		crm_column_add(&known, Int64GetDatum(((CrmDelivery *) lfirst(cell))->attempt_id), false);
	for (int i = 0; i < 2; i++)
		for (int k = 0; k < 3; k++)
			crm_column_init(&lost[i][k], INT8OID);

	values[0] = crm_column_array(&known);
	n = crm_run(&find_leases, values, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		bool isnull;
		TimestampTz lease = DatumGetTimestampTz(crm_result(i, 4, &isnull));
		Datum tried_at = crm_result(i, 5, &isnull);
		int64 known_for = key_known_for(crm_result_text(i, 6), crm_result_text(i, 7));
		int keyed;

		if (lease > now)
		{
			next = Min(next, lease);
			continue;
		}
		keyed = !isnull && known_for > 0 &&
			DatumGetTimestampTz(tried_at) + known_for > now + (int64) crm_guc_send_timeout * 1000;
		for (int k = 0; k < 3; k++)
			crm_column_add(&lost[keyed][k], Int64GetDatum(crm_result_int64(i, 1 + k)), false);
	}
	for (int keyed = 0; keyed < 2; keyed++)
	{
		if (lost[keyed][0].n == 0)
			continue;
		for (int k = 0; k < 3; k++)
			values[k] = crm_column_array(&lost[keyed][k]);
		values[3] = TimestampTzGetDatum(now);
		n = crm_run(keyed ? &queue_again : &make_unknown, values, NULL);
		if (!keyed)
			crm_ends_add_result(&ends, n);
		/* one that was given to another contact just now is found with that one */
		if (n < lost[keyed][0].n)
			next = Min(next, now + crm_lease_length());
		ereport(LOG,
				(errmsg("%d messages of which no outcome was written %s", lost[keyed][0].n,
						keyed ? "are sent again under their keys" : "are unknown"),
				 errhint("See crm.message_unknown.")));
	}
	crm_ends_write(&ends);
	if (first || lost[0][0].n > 0)
	{
		/* not later than the look that follows, or those that came since go before them */
		values[0] = TimestampTzGetDatum(now);
		crm_run(&release_all, values, NULL);
	}
	crm_heads_woken();
	look_at = next;
}
