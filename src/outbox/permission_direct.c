/*
 * permission_direct.c
 *		What CRM_PERMISSION_COLUMNS finds, found by indexes and without a plan.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/guc.h"
#include "base/reader.h"
#include "outbox/permission.h"

/* the keys first */
static const char *const identity_columns[] = { "contact_id", "kind", "account_id", "bound_at",
												"external_id" };
static const char *const suppression_columns[] = { "contact_id", "channel", "ended_at" };
static const char *const consent_columns[] = { "contact_id", "channel", "class", "granted" };
static const char *const follower_columns[] = { "contact_id", "account_id", "followed_at",
												"unfollowed_at" };
static const char *const contact_columns[] = { "contact_id", "time_zone" };
static const char *const message_columns[] = { "contact_id", "message_id", "state",   "channel",
											   "class",      "sent_at",    "tried_at" };
static const char *const cap_columns[] = { "name" };

typedef enum Table
{
	IDENTITY,
	SUPPRESSION,
	CONSENT,
	FOLLOWER,
	CONTACT,
	MESSAGE,
	CAP,
	TABLES
} Table;

static const struct
{
	const char *name;
	const char *const *columns;
	int ncolumns;
	int nkeys;
} sources[TABLES] = {
	{ "identity", identity_columns, lengthof(identity_columns), 2 },
	{ "suppression", suppression_columns, lengthof(suppression_columns), 1 },
	{ "consent", consent_columns, lengthof(consent_columns), 3 },
	{ "follower", follower_columns, lengthof(follower_columns), 2 },
	{ "contact", contact_columns, lengthof(contact_columns), 1 },
	{ "message", message_columns, lengthof(message_columns), 1 },
	{ "frequency_cap", cap_columns, lengthof(cap_columns), 1 },
};

static CrmPlan find_caps = {
	"SELECT p.name, p.channel, p.class, p.max_messages, $1 - p.period FROM crm.frequency_cap p"
	" ORDER BY p.name",
	1,
	{ TIMESTAMPTZOID }
};

typedef struct Cap
{
	char *name;
	char *channel; /* NULL: any */
	char *class;   /* NULL: any */
	int max_messages;
	TimestampTz since;
} Cap;

struct CrmPermissionTables
{
	CrmReader *readers[TABLES];
	bool empty[TABLES];
	List *caps;
};

void
crm_permission_close(CrmPermissionTables *tables)
{
	for (int i = 0; i < TABLES; i++)
		if (tables->readers[i] != NULL)
			crm_reader_close(tables->readers[i]);
}

static List *
read_caps(TimestampTz at)
{
	Datum value = TimestampTzGetDatum(at);
	List *caps = NIL;
	uint64 n = crm_read(&find_caps, &value, NULL);

	for (uint64 i = 0; i < n; i++)
	{
		Cap *cap = palloc_object(Cap);
		bool isnull;

		cap->name = crm_result_text(i, 1);
		cap->channel = crm_result_text(i, 2);
		cap->class = crm_result_text(i, 3);
		cap->max_messages = DatumGetInt32(crm_result(i, 4, &isnull));
		cap->since = crm_result_time(i, 5, DT_NOBEGIN);
		caps = lappend(caps, cap);
	}
	return caps;
}

CrmPermissionTables *
crm_permission_open(TimestampTz at)
{
	CrmPermissionTables *tables = palloc0_object(CrmPermissionTables);

	if (!crm_guc_direct_access)
		return NULL;
	for (int i = 0; i < TABLES; i++)
	{
		tables->readers[i] = crm_reader_open(sources[i].name, sources[i].columns,
											 sources[i].ncolumns, sources[i].nkeys);
		if (tables->readers[i] == NULL)
		{
			crm_permission_close(tables);
			return NULL;
		}
		tables->empty[i] = crm_reader_empty(tables->readers[i]);
	}
	if (!tables->empty[CAP])
		tables->caps = read_caps(at);
	return tables;
}

/* False where the table has nothing at all. */
static bool
find(CrmPermissionTables *tables, Table table, const Datum *keys)
{
	if (tables->empty[table])
		return false;
	crm_reader_find(tables->readers[table], keys);
	return true;
}

/* The identifier bound last. */
static char *
find_recipient(CrmPermissionTables *tables, int64 contact_id, int64 account_id, const char *kind)
{
	CrmReader *reader = tables->readers[IDENTITY];
	Datum keys[2] = { Int64GetDatum(contact_id), CStringGetTextDatum(kind) };
	TimestampTz latest = DT_NOBEGIN;
	char *recipient = NULL;
	bool isnull;

	if (!find(tables, IDENTITY, keys))
		return NULL;
	while (crm_reader_next(reader))
	{
		TimestampTz bound_at = DatumGetTimestampTz(crm_reader_value(reader, 3, &isnull));

		if (DatumGetInt64(crm_reader_value(reader, 2, &isnull)) != account_id ||
			(recipient != NULL && bound_at <= latest))
			continue;
		latest = bound_at;
		recipient = TextDatumGetCString(crm_reader_value(reader, 4, &isnull));
	}
	return recipient;
}

static bool
is_suppressed(CrmPermissionTables *tables, int64 contact_id, const char *channel)
{
	CrmReader *reader = tables->readers[SUPPRESSION];
	Datum key = Int64GetDatum(contact_id);
	bool holds;

	if (!find(tables, SUPPRESSION, &key))
		return false;
	while (crm_reader_next(reader))
	{
		(void) crm_reader_value(reader, 2, &holds);
		if (holds && (crm_reader_is(reader, 1, "") || crm_reader_is(reader, 1, channel)))
			return true;
	}
	return false;
}

static bool
is_follower(CrmPermissionTables *tables, int64 contact_id, int64 account_id)
{
	CrmReader *reader = tables->readers[FOLLOWER];
	Datum keys[2] = { Int64GetDatum(contact_id), Int64GetDatum(account_id) };
	Datum followed_at;
	Datum unfollowed_at;
	bool never;
	bool still;

	if (!find(tables, FOLLOWER, keys) || !crm_reader_next(reader))
		return false;
	followed_at = crm_reader_value(reader, 2, &never);
	unfollowed_at = crm_reader_value(reader, 3, &still);
	return !never &&
		DatumGetTimestampTz(followed_at) >
		(still ? DT_NOBEGIN : DatumGetTimestampTz(unfollowed_at));
}

static bool
counts(CrmReader *reader, const Cap *cap)
{
	bool isnull;
	Datum at = crm_reader_value(reader, 5, &isnull);

	if (isnull)
		at = crm_reader_value(reader, 6, &isnull);
	return !isnull && DatumGetTimestampTz(at) > cap->since &&
		(crm_reader_is(reader, 2, "sent") || crm_reader_is(reader, 2, "sending") ||
		 crm_reader_is(reader, 2, "waiting") || crm_reader_is(reader, 2, "unknown")) &&
		(cap->channel == NULL || crm_reader_is(reader, 3, cap->channel)) &&
		(cap->class == NULL || crm_reader_is(reader, 4, cap->class));
}

static bool
is_reached(CrmPermissionTables *tables, const Cap *cap, int64 contact_id, int64 but)
{
	CrmReader *reader = tables->readers[MESSAGE];
	Datum key = Int64GetDatum(contact_id);
	int n = 0;
	bool isnull;

	crm_reader_find(reader, &key);
	while (n < cap->max_messages && crm_reader_next(reader))
		if (DatumGetInt64(crm_reader_value(reader, 1, &isnull)) != but && counts(reader, cap))
			n++;
	return n >= cap->max_messages;
}

void
crm_permission_find(CrmPermissionTables *tables, int64 contact_id, int64 account_id,
					const char *channel, const char *class, const char *recipient_kind, int64 but,
					CrmPermission *permission)
{
	Datum contact = Int64GetDatum(contact_id);
	CrmReader *reader = tables->readers[CONSENT];
	bool isnull;
	ListCell *cell;

	memset(permission, 0, sizeof(*permission));
	if (recipient_kind != NULL)
		permission->recipient = find_recipient(tables, contact_id, account_id, recipient_kind);
	permission->suppressed = is_suppressed(tables, contact_id, channel);
	if (!tables->empty[CONSENT])
	{
		Datum keys[3] = { contact, CStringGetTextDatum(channel), CStringGetTextDatum(class) };

		crm_reader_find(reader, keys);
		permission->asked = crm_reader_next(reader);
		permission->granted = permission->asked &&
			DatumGetBool(crm_reader_value(reader, 3, &isnull));
	}
	if (strcmp(class, "marketing") == 0)
		permission->follows = is_follower(tables, contact_id, account_id);
	reader = tables->readers[CONTACT];
	crm_reader_find(reader, &contact);
	if (crm_reader_next(reader))
	{
		Datum zone = crm_reader_value(reader, 1, &isnull);

		permission->zone = isnull ? NULL : TextDatumGetCString(zone);
	}
	foreach(cell, tables->caps)
	{
		Cap *cap = lfirst(cell);

		if ((cap->channel == NULL || strcmp(cap->channel, channel) == 0) &&
			(cap->class == NULL || strcmp(cap->class, class) == 0) &&
			is_reached(tables, cap, contact_id, but))
		{
			permission->cap = cap->name;
			break;
		}
	}
}
