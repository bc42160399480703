/*
 * standing.c
 *		May a message go now? One query for a batch finds whatever bears on it:
 *		what is of the message itself is decided here, what is of the contact in
 *		outbox/permission.c.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "dispatch/claim.h"
#include "dispatch/standing.h"
#include "outbox/permission.h"

/*
 * $1, $2 the messages; $3 account, $4 lane, $5 now, $6 kind of identifier of
 * recipients, $7 message types that need a window, $8 until when earlier ones are due or only
 * put off because their contact was busy
 */
static CrmPlan find_standing = {
	"SELECT n.contact_id, n.message_id, m.template, m.template_version, v.message_type, m.class,"
	" m.params, m.due_at, m.expires_at, m.tried_at, m.grant_id, m.reason, o.attempts,"
	/* 14: an earlier message of the lane, or one on its way in any */
	" EXISTS (SELECT FROM crm.outbox e WHERE e.contact_id = n.contact_id"
	"   AND e.message_id <> n.message_id AND (e.lease IS NOT NULL OR (e.message_id < n.message_id"
	"    AND e.account_id = $3 AND e.lane = $4"
	"    AND (e.attempts > 0 OR e.due_at <= $8 OR e.due_at = 'infinity')))),"
	/* 15 */
	" CASE WHEN v.message_type = ANY ($7) AND m.grant_id IS NULL THEN " CRM_WINDOW_TO_USE(
		"n.contact_id", "$3", "$5") " END,"
	/* 16 and what follows */
	CRM_PERMISSION_COLUMNS(
		"n.contact_id", "$3", "m.channel", "m.class", "$5", "$6",
		" AND s.message_id <> n.message_id") " FROM unnest($1, $2) WITH ORDINALITY AS n(contact_id, message_id, place)"
											 " JOIN crm.outbox o ON o.contact_id = n.contact_id AND o.message_id = n.message_id"
											 " LEFT JOIN crm.message m ON m.contact_id = n.contact_id AND m.message_id = n.message_id"
											 " LEFT JOIN crm.template_version v ON v.name = m.template AND v.version = m.template_version"
											 " LEFT JOIN crm.contact c ON c.contact_id = n.contact_id"
											 " ORDER BY n.place",
	8,
	{ INT8ARRAYOID, INT8ARRAYOID, INT8OID, TEXTOID, TIMESTAMPTZOID, TEXTOID, TEXTARRAYOID,
	  TIMESTAMPTZOID },
	.always_generic = true
};
#define BEHIND_COLUMN     14
#define WINDOW_COLUMN     15
#define PERMISSION_COLUMN 16

static void
decide(const CrmSender *sender, List *quiet_hours, CrmCandidate *candidate,
	   const CrmPermission *permission, bool behind, TimestampTz now)
{
	candidate->verdict = CRM_GO;
	if (behind)
	{
		candidate->verdict = CRM_BEHIND;
		return;
	}
	/* it may have arrived: only its key keeps it from arriving twice */
	if (candidate->tried_at != DT_NOBEGIN &&
		candidate->tried_at + (int64) candidate->type->key_seconds * USECS_PER_SEC <=
			now + (int64) crm_guc_send_timeout * 1000)
	{
		candidate->verdict = CRM_LOST_KEY;
		return;
	}
	if (candidate->expires_at <= now)
	{
		candidate->verdict = CRM_EXPIRED;
		candidate->reason = pstrdup("expired");
		return;
	}
	candidate->until = DT_NOBEGIN;
	candidate->reason = crm_permission_refusal(permission, sender->channel, candidate->class,
											   candidate->type->needs_window &&
												   candidate->grant_id == 0,
											   quiet_hours, sender->zone, now, &candidate->until);
	if (candidate->reason == NULL)
		return;
	if (candidate->until == DT_NOBEGIN)
		candidate->verdict = CRM_REFUSED;
	else
		/* hours that never end, or end too late, leave no moment to send it */
		candidate->verdict = candidate->until == DT_NOEND ||
				candidate->until >= candidate->expires_at
			? CRM_EXPIRED
			: CRM_PUT_OFF;
}

static Datum
windowed_types(const CrmChannel *channel)
{
	CrmColumn names;

	crm_column_init(&names, TEXTOID);
	for (int i = 0; i < channel->ntypes; i++)
		if (channel->types[i].needs_window)
			crm_column_add(&names, CStringGetTextDatum(channel->types[i].name), false);
	return crm_column_array(&names);
}

static CrmCandidate *
read_candidate(const CrmSender *sender, List *quiet_hours, uint64 row, TimestampTz now)
{
	CrmCandidate *candidate = palloc0_object(CrmCandidate);
	CrmPermission permission;
	char *type_name;
	char *reason;
	bool isnull;
	Datum value;

	candidate->contact_id = crm_result_int64(row, 1);
	candidate->message_id = crm_result_int64(row, 2);
	candidate->template = crm_result_text(row, 3);
	candidate->verdict = CRM_GONE;
	if (candidate->template == NULL)
		return candidate;
	type_name = crm_result_text(row, 5);
	candidate->type = type_name == NULL ? NULL : crm_channel_type(sender->channel, type_name);
	if (candidate->type == NULL)
	{
		candidate->verdict = CRM_FAILED;
		candidate->reason = pstrdup("no_template");
		return candidate;
	}
	candidate->template_version = DatumGetInt32(crm_result(row, 4, &isnull));
	candidate->class = crm_result_text(row, 6);
	value = crm_result(row, 7, &isnull);
	candidate->params = DatumGetJsonbPCopy(value);
	candidate->due_at = crm_result_time(row, 8, now);
	candidate->expires_at = crm_result_time(row, 9, DT_NOEND);
	candidate->tried_at = crm_result_time(row, 10, DT_NOBEGIN);
	candidate->grant_id = crm_result_int64(row, 11);
	if (candidate->grant_id == 0)
	{
		candidate->grant_id = crm_result_int64(row, WINDOW_COLUMN);
		candidate->new_grant = candidate->grant_id != 0;
	}
	reason = crm_result_text(row, 12);
	candidate->token_failed = reason != NULL && strcmp(reason, "token") == 0;
	candidate->attempts = DatumGetInt32(crm_result(row, 13, &isnull));
	crm_permission_read(row, PERMISSION_COLUMN, &permission);
	candidate->recipient = permission.recipient;
	decide(sender, quiet_hours, candidate, &permission, crm_result_true(row, BEHIND_COLUMN), now);
	/* what may have arrived can no longer be said not to go */
	if (candidate->tried_at != DT_NOBEGIN &&
		(candidate->verdict == CRM_EXPIRED || candidate->verdict == CRM_REFUSED))
		candidate->verdict = CRM_LOST_KEY;
	return candidate;
}

List *
crm_standing(const CrmSender *sender, int lane, const int64 *contacts, const int64 *messages, int n,
			 TimestampTz now)
{
	const char *recipient_kind = sender->channel->recipient_kind;
	Datum values[8] = {
		crm_int64_array(contacts, n),
		crm_int64_array(messages, n),
		Int64GetDatum(sender->account_id),
		CStringGetTextDatum(crm_lanes[lane]),
		TimestampTzGetDatum(now),
		recipient_kind == NULL ? (Datum) 0 : CStringGetTextDatum(recipient_kind),
		windowed_types(sender->channel),
		TimestampTzGetDatum(now + CRM_BUSY(lane)),
	};
	List *candidates = NIL;
	List *quiet_hours = crm_quiet_hours(sender->channel->name);
	uint64 found = crm_run(&find_standing, values, recipient_kind == NULL ? "     n  " : NULL);

	for (uint64 i = 0; i < found; i++)
		candidates = lappend(candidates, read_candidate(sender, quiet_hours, i, now));
	return candidates;
}
