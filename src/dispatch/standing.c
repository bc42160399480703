/*
 * standing.c
 *		May a message go now? Whatever bears on it is found by indexes, or by one
 *		query for a batch: what is of the message itself is decided here, what is
 *		of the contact in outbox/permission.c.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/reader.h"
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

/* Of a message that is there: whether it may go, by what was read of it and of its contact. */
static void
judge(const CrmSender *sender, List *quiet_hours, CrmCandidate *candidate,
	  const CrmPermission *permission, bool behind, TimestampTz now)
{
	candidate->recipient = permission->recipient;
	decide(sender, quiet_hours, candidate, permission, behind, now);
	/* what may have arrived can no longer be said not to go */
	if (candidate->tried_at != DT_NOBEGIN &&
		(candidate->verdict == CRM_EXPIRED || candidate->verdict == CRM_REFUSED))
		candidate->verdict = CRM_LOST_KEY;
}

/* False where there is nothing to judge: its verdict is clear. */
static bool
set_type(const CrmSender *sender, CrmCandidate *candidate, const char *type_name)
{
	candidate->type = type_name == NULL ? NULL : crm_channel_type(sender->channel, type_name);
	if (candidate->type != NULL)
		return true;
	candidate->verdict = CRM_FAILED;
	candidate->reason = pstrdup("no_template");
	return false;
}

static CrmCandidate *
read_candidate(const CrmSender *sender, List *quiet_hours, uint64 row, TimestampTz now)
{
	CrmCandidate *candidate = palloc0_object(CrmCandidate);
	CrmPermission permission;
	char *reason;
	bool isnull;
	Datum value;

	candidate->contact_id = crm_result_int64(row, 1);
	candidate->message_id = crm_result_int64(row, 2);
	candidate->template = crm_result_text(row, 3);
	candidate->verdict = CRM_GONE;
	if (candidate->template == NULL || !set_type(sender, candidate, crm_result_text(row, 5)))
		return candidate;
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
	judge(sender, quiet_hours, candidate, &permission, crm_result_true(row, BEHIND_COLUMN), now);
	return candidate;
}

static List *
standing_by_query(const CrmSender *sender, int lane, const int64 *contacts, const int64 *messages,
				  int n, List *quiet_hours, TimestampTz now)
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
	uint64 found = crm_run(&find_standing, values, recipient_kind == NULL ? "     n  " : NULL);

	for (uint64 i = 0; i < found; i++)
		candidates = lappend(candidates, read_candidate(sender, quiet_hours, i, now));
	return candidates;
}

/* ---- the same, found by indexes and without the query; where tables ask for that one, it is taken */

/* the keys first */
static const char *const outbox_columns[] = { "contact_id", "message_id", "account_id", "lane",
											  "due_at",     "lease",      "attempts" };
enum
{
	O_CONTACT_ID,
	O_MESSAGE_ID,
	O_ACCOUNT_ID,
	O_LANE,
	O_DUE_AT,
	O_LEASE,
	O_ATTEMPTS
};
static const char *const message_columns[] = { "contact_id",       "message_id", "template",
											   "template_version", "channel",    "class",
											   "params",           "due_at",     "expires_at",
											   "tried_at",         "grant_id",   "reason" };
enum
{
	M_CONTACT_ID,
	M_MESSAGE_ID,
	M_TEMPLATE,
	M_TEMPLATE_VERSION,
	M_CHANNEL,
	M_CLASS,
	M_PARAMS,
	M_DUE_AT,
	M_EXPIRES_AT,
	M_TRIED_AT,
	M_GRANT_ID,
	M_REASON
};
static const char *const version_columns[] = { "name", "version", "message_type" };
static const char *const window_columns[] = { "contact_id", "account_id", "grant_id", "opened_at",
											  "expires_at", "quota",      "used" };
enum
{
	W_CONTACT_ID,
	W_ACCOUNT_ID,
	W_GRANT_ID,
	W_OPENED_AT,
	W_EXPIRES_AT,
	W_QUOTA,
	W_USED
};

typedef struct Looking
{
	const CrmSender *sender;
	int lane;
	TimestampTz now;
	List *quiet_hours;
	CrmReader *outbox;
	CrmReader *message;
	CrmReader *version;
	CrmReader *window;
	CrmPermissionTables *permissions;
	CrmCandidate *before; /* whose type the next one probably has */
} Looking;

static void
close_tables(Looking *looking)
{
	CrmReader *readers[] = { looking->outbox, looking->message, looking->version, looking->window };

	for (int i = 0; i < lengthof(readers); i++)
		if (readers[i] != NULL)
			crm_reader_close(readers[i]);
	if (looking->permissions != NULL)
		crm_permission_close(looking->permissions);
}

static bool
open_tables(Looking *looking)
{
	looking->permissions = crm_permission_open(looking->now);
	if (looking->permissions == NULL)
		return false;
	looking->outbox = crm_reader_open("outbox", outbox_columns, lengthof(outbox_columns), 1);
	looking->message = crm_reader_open("message", message_columns, lengthof(message_columns), 2);
	looking->version = crm_reader_open("template_version", version_columns,
									   lengthof(version_columns), 2);
	looking->window = crm_reader_open("window_grant", window_columns, lengthof(window_columns), 2);
	return looking->outbox != NULL && looking->message != NULL && looking->version != NULL &&
		looking->window != NULL;
}

static int32
int32_of(CrmReader *reader, int column)
{
	bool isnull;
	Datum value = crm_reader_value(reader, column, &isnull);

	return isnull ? 0 : DatumGetInt32(value);
}

static int64
int64_of(CrmReader *reader, int column)
{
	bool isnull;
	Datum value = crm_reader_value(reader, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

static TimestampTz
time_of(CrmReader *reader, int column, TimestampTz if_null)
{
	bool isnull;
	Datum value = crm_reader_value(reader, column, &isnull);

	return isnull ? if_null : DatumGetTimestampTz(value);
}

static char *
text_of(CrmReader *reader, int column)
{
	bool isnull;
	Datum value = crm_reader_value(reader, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/* Whether this other one of the contact goes first: on its way, or earlier in the lane. */
static bool
goes_first(const Looking *looking, const CrmCandidate *candidate)
{
	CrmReader *outbox = looking->outbox;
	TimestampTz due_at;
	bool not_leased;

	(void) crm_reader_value(outbox, O_LEASE, &not_leased);
	if (!not_leased)
		return true;
	if (int64_of(outbox, O_MESSAGE_ID) > candidate->message_id ||
		int64_of(outbox, O_ACCOUNT_ID) != looking->sender->account_id ||
		!crm_reader_is(outbox, O_LANE, crm_lanes[looking->lane]))
		return false;
	due_at = time_of(outbox, O_DUE_AT, DT_NOEND);
	return int32_of(outbox, O_ATTEMPTS) > 0 || due_at <= looking->now + CRM_BUSY(looking->lane) ||
		due_at == DT_NOEND;
}

/* False where the message is in the queue no more. */
static bool
look_at_queue(const Looking *looking, CrmCandidate *candidate, bool *behind)
{
	Datum key = Int64GetDatum(candidate->contact_id);
	bool queued = false;

	*behind = false;
	crm_reader_find(looking->outbox, &key);
	while (crm_reader_next(looking->outbox))
		if (int64_of(looking->outbox, O_MESSAGE_ID) == candidate->message_id)
		{
			queued = true;
			candidate->attempts = int32_of(looking->outbox, O_ATTEMPTS);
			candidate->queue_place = crm_reader_place(looking->outbox);
		}
		else
			*behind = *behind || goes_first(looking, candidate);
	return queued;
}

static bool
look_at_message(const Looking *looking, CrmCandidate *candidate, char **channel)
{
	CrmReader *message = looking->message;
	Datum keys[2] = { Int64GetDatum(candidate->contact_id), Int64GetDatum(candidate->message_id) };
	bool isnull;

	crm_reader_find(message, keys);
	if (!crm_reader_next(message))
		return false;
	candidate->place = crm_reader_place(message);
	candidate->template = text_of(message, M_TEMPLATE);
	candidate->template_version = int32_of(message, M_TEMPLATE_VERSION);
	*channel = text_of(message, M_CHANNEL);
	candidate->class = text_of(message, M_CLASS);
	candidate->params = DatumGetJsonbPCopy(crm_reader_value(message, M_PARAMS, &isnull));
	candidate->due_at = time_of(message, M_DUE_AT, looking->now);
	candidate->expires_at = time_of(message, M_EXPIRES_AT, DT_NOEND);
	candidate->tried_at = time_of(message, M_TRIED_AT, DT_NOBEGIN);
	candidate->grant_id = int64_of(message, M_GRANT_ID);
	candidate->token_failed = crm_reader_is(message, M_REASON, "token");
	return true;
}

static bool
look_at_template(Looking *looking, CrmCandidate *candidate)
{
	CrmCandidate *before = looking->before;
	Datum keys[2] = { CStringGetTextDatum(candidate->template),
					  Int32GetDatum(candidate->template_version) };

	if (before != NULL && before->template_version == candidate->template_version &&
		strcmp(before->template, candidate->template) == 0)
	{
		candidate->type = before->type;
		return true;
	}
	crm_reader_find(looking->version, keys);
	if (!set_type(looking->sender, candidate,
				  crm_reader_next(looking->version) ? text_of(looking->version, 2) : NULL))
		return false;
	looking->before = candidate;
	return true;
}

/* The window that ends first of those that are open and not used up; 0: there is none. */
static int64
find_window(const Looking *looking, int64 contact_id)
{
	CrmReader *window = looking->window;
	Datum keys[2] = { Int64GetDatum(contact_id), Int64GetDatum(looking->sender->account_id) };
	TimestampTz ends_at = DT_NOEND;
	int64 found = 0;

	crm_reader_find(window, keys);
	while (crm_reader_next(window))
	{
		TimestampTz expires_at = time_of(window, W_EXPIRES_AT, DT_NOBEGIN);
		int64 grant_id = int64_of(window, W_GRANT_ID);
		bool unlimited;
		Datum quota = crm_reader_value(window, W_QUOTA, &unlimited);

		if (time_of(window, W_OPENED_AT, DT_NOEND) > looking->now || expires_at <= looking->now ||
			(!unlimited && int32_of(window, W_USED) >= DatumGetInt32(quota)))
			continue;
		if (found == 0 || expires_at < ends_at || (expires_at == ends_at && grant_id < found))
		{
			found = grant_id;
			ends_at = expires_at;
		}
	}
	return found;
}

/* NULL: it is in the queue no more. */
static CrmCandidate *
look_at(Looking *looking, int64 contact_id, int64 message_id)
{
	CrmCandidate *candidate = palloc0_object(CrmCandidate);
	CrmPermission permission;
	char *channel;
	bool behind;

	candidate->contact_id = contact_id;
	candidate->message_id = message_id;
	candidate->verdict = CRM_GONE;
	if (!look_at_queue(looking, candidate, &behind))
		return NULL;
	if (!look_at_message(looking, candidate, &channel) || !look_at_template(looking, candidate))
		return candidate;
	if (candidate->type->needs_window && candidate->grant_id == 0)
	{
		candidate->grant_id = find_window(looking, contact_id);
		candidate->new_grant = candidate->grant_id != 0;
	}
	crm_permission_find(looking->permissions, contact_id, looking->sender->account_id, channel,
						candidate->class, looking->sender->channel->recipient_kind, message_id,
						&permission);
	judge(looking->sender, looking->quiet_hours, candidate, &permission, behind, looking->now);
	return candidate;
}

List *
crm_standing(const CrmSender *sender, int lane, const int64 *contacts, const int64 *messages, int n,
			 TimestampTz now)
{
	Looking looking = { .sender = sender, .lane = lane, .now = now };
	List *candidates = NIL;
	bool direct;

	looking.quiet_hours = crm_quiet_hours(sender->channel->name);
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	direct = open_tables(&looking);
	for (int i = 0; direct && i < n; i++)
	{
		CrmCandidate *candidate = look_at(&looking, contacts[i], messages[i]);

		if (candidate != NULL)
			candidates = lappend(candidates, candidate);
	}
	close_tables(&looking);
	PopActiveSnapshot();
	return direct
		? candidates
		: standing_by_query(sender, lane, contacts, messages, n, looking.quiet_hours, now);
}
