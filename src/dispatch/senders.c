/*
 * senders.c
 *		The accounts that have messages in the queue, read anew in every turn, so
 *		that a change of an account holds at once; and their secrets.
 */
#include "postgres.h"

#include <sys/stat.h>

#include "catalog/pg_type.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "dispatch/dispatch.h"

#define MAX_SECRET_BYTES (16 * 1024)

const char *const crm_lanes[CRM_NLANES] = { "urgent", "normal", "bulk" };

/*
 * Where each lane begins. What lies before the head is on its way or gone, and
 * in a queue that is worked off gone rows are many; so the next look goes on
 * from there. A transaction that began earlier may commit a row in front of it,
 * therefore a look from the start follows each wake, and once in a while
 * without one; but not so often that these looks become the work. The urgent lane
 * has few gone rows where others have many, so that it is looked at apart from
 * them while it is not yet their time.
 */
typedef struct Heads
{
	int64 account_id;
	TimestampTz due_at[CRM_NLANES];
	int64 message_id[CRM_NLANES];
} Heads;

#define LOOK_EVERY_MILLISECONDS 1000
#define LOOK_SHARE              20 /* such looks take at most this part of the time */

static Heads *heads = NULL; /* in TopMemoryContext */
static int nheads = 0;
static TimestampTz start_over_at = DT_NOBEGIN; /* not before */
static TimestampTz started_over_at = DT_NOBEGIN;
static bool start_over_wanted = true;
static TimestampTz urgent_over_at = DT_NOBEGIN; /* the same for the urgent lane alone */
static bool urgent_wanted = false;
static TimestampTz look_again_at = DT_NOEND; /* once more, since something moved */

/* the head of a lane is found past messages that are on their way, of which there are few */
#define HEAD(lane, number)                                                               \
	" LEFT JOIN LATERAL (SELECT o.due_at, o.message_id FROM crm.outbox o"                \
	"  WHERE o.account_id = a.account_id AND o.lane = '" lane "'"                        \
	"  AND o.due_at < 'infinity' AND (o.due_at, o.message_id) >= (coalesce(h.due" number \
	", '-infinity'), coalesce(h.id" number ", 0)) AND o.lease IS NULL"                   \
	"  ORDER BY o.due_at, o.message_id LIMIT 1) o" number " ON true"

static CrmPlan find_senders = {
	"SELECT a.account_id, a.name, a.kind, nullif(a.base_url, ''), nullif(a.app_id, ''),"
	" coalesce(a.time_zone, crm.default_time_zone()), t.token, t.expires_at, t.refreshing_until,"
	" t.refresh_at, u.blocked_until, o0.due_at, o1.due_at, o2.due_at, o0.message_id,"
	" o1.message_id, o2.message_id FROM crm.account a"
	" LEFT JOIN unnest($1, $2, $3, $4, $5, $6, $7) AS h(account_id, due0, due1, due2, id0, id1, id2)"
	" ON h.account_id = a.account_id" HEAD("urgent", "0") HEAD("normal", "1")
		HEAD("bulk",
			 "2") " LEFT JOIN crm.account_token t ON t.account_id = a.account_id"
				  " LEFT JOIN crm.api_usage u ON u.account_id = a.account_id AND u.api = ''"
				  " WHERE o0.due_at IS NOT NULL OR o1.due_at IS NOT NULL OR o2.due_at IS NOT NULL"
				  " ORDER BY least(o0.due_at, o1.due_at, o2.due_at)",
	7,
	{ INT8ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, INT8ARRAYOID,
	  INT8ARRAYOID, INT8ARRAYOID },
	.always_generic = true
};
static CrmPlan find_secret = {
	"SELECT s.value FROM crm.account_secret s WHERE s.account_id = $1 AND s.name = $2",
	2,
	{ INT8OID, TEXTOID }
};

static Heads *
heads_of(int64 account_id)
{
	for (int i = 0; i < nheads; i++)
		if (heads[i].account_id == account_id)
			return &heads[i];
	if (heads == NULL)
		heads = MemoryContextAlloc(TopMemoryContext, sizeof(Heads));
	else
		heads = repalloc(heads, sizeof(Heads) * (nheads + 1));
	heads[nheads].account_id = account_id;
	for (int lane = 0; lane < CRM_NLANES; lane++)
	{
		heads[nheads].due_at[lane] = DT_NOBEGIN;
		heads[nheads].message_id[lane] = 0;
	}
	return &heads[nheads++];
}

void
crm_head_set(int64 account_id, int lane, TimestampTz due_at, int64 message_id)
{
	Heads *known = heads_of(account_id);

	known->due_at[lane] = due_at;
	known->message_id[lane] = message_id;
}

void
crm_heads_forget(void)
{
	nheads = 0;
	start_over_wanted = true;
}

void
crm_heads_woken(void)
{
	start_over_wanted = urgent_wanted = true;
}

void
crm_heads_moved(TimestampTz now)
{
	look_again_at = now + LOOK_EVERY_MILLISECONDS * INT64CONST(1000);
}

TimestampTz
crm_heads_due(void)
{
	TimestampTz due = start_over_wanted ? start_over_at : Max(look_again_at, start_over_at);

	return urgent_wanted ? Min(due, urgent_over_at) : due;
}

/* Returns how many accounts have messages. */
static uint64
find(void)
{
	CrmColumn columns[1 + 2 * CRM_NLANES];
	Datum values[lengthof(columns)];

	for (int i = 0; i < lengthof(columns); i++)
		crm_column_init(&columns[i], i == 0 || i > CRM_NLANES ? INT8OID : TIMESTAMPTZOID);
	for (int i = 0; i < nheads; i++)
	{
		crm_column_add(&columns[0], Int64GetDatum(heads[i].account_id), false);
		for (int lane = 0; lane < CRM_NLANES; lane++)
		{
			crm_column_add(&columns[1 + lane], TimestampTzGetDatum(heads[i].due_at[lane]), false);
			crm_column_add(&columns[1 + CRM_NLANES + lane],
						   Int64GetDatum(heads[i].message_id[lane]), false);
		}
	}
	for (int i = 0; i < lengthof(columns); i++)
		values[i] = crm_column_array(&columns[i]);
	return crm_run(&find_senders, values, NULL);
}

List *
crm_senders(TimestampTz now)
{
	List *senders = NIL;
	bool over = now >= start_over_at &&
		(start_over_wanted || now >= look_again_at ||
		 TimestampDifferenceExceeds(started_over_at, now, LOOK_EVERY_MILLISECONDS));
	bool urgent_over = !over && urgent_wanted && now >= urgent_over_at;
	TimestampTz begun = GetCurrentTimestamp();
	TimestampTz rest;
	uint64 n;

	if (over)
		nheads = 0;
	for (int i = 0; urgent_over && i < nheads; i++)
	{
		heads[i].due_at[0] = DT_NOBEGIN;
		heads[i].message_id[0] = 0;
	}
	n = find();
	rest = GetCurrentTimestamp();
	rest += (rest - begun) * LOOK_SHARE;
	if (over)
	{
		start_over_wanted = urgent_wanted = false;
		look_again_at = DT_NOEND;
		started_over_at = now;
		start_over_at = rest;
	}
	else if (urgent_over)
	{
		urgent_wanted = false;
		urgent_over_at = rest;
	}
	for (uint64 i = 0; i < n; i++)
	{
		const CrmChannel *channel = crm_channel_find(crm_result_text(i, 3));
		CrmSender *sender;
		bool fetching;

		if (channel == NULL)
			continue; /* its adapter came with a later version of the library */
		sender = palloc0_object(CrmSender);
		sender->account_id = crm_result_int64(i, 1);
		sender->name = crm_result_text(i, 2);
		sender->channel = channel;
		sender->base_url = crm_result_text(i, 4);
		sender->app_id = crm_result_text(i, 5);
		sender->zone = crm_result_text(i, 6);
		sender->token = crm_result_text(i, 7);
		sender->token_expires_at = crm_result_time(i, 8, DT_NOBEGIN);
		fetching = crm_result_time(i, 9, DT_NOBEGIN) > now;
		sender->blocked_until = crm_result_time(i, 11, DT_NOBEGIN);
		for (int lane = 0; lane < CRM_NLANES; lane++)
		{
			sender->due[lane] = crm_result_time(i, 12 + lane, DT_NOEND);
			sender->head[lane] = crm_result_int64(i, 12 + CRM_NLANES + lane);
			if (sender->due[lane] != DT_NOEND)
				crm_head_set(sender->account_id, lane, sender->due[lane], sender->head[lane]);
		}
		if (sender->token_expires_at <= now)
			sender->token = NULL;
		sender->token_wanted = channel->needs_token && !fetching &&
			crm_result_time(i, 10, DT_NOBEGIN) <= now;
		senders = lappend(senders, sender);
	}
	return senders;
}

/* The errors say where, never what. */
static char *
read_secret_file(const char *path)
{
	char *content = palloc(MAX_SECRET_BYTES + 1);
	struct stat status;
	FILE *file;
	size_t length;

	if (!is_absolute_path(path))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("secret file \"%s\" has no absolute path", path),
				 errhint("Write file: and the full path into crm.account_secret.")));
	file = AllocateFile(path, PG_BINARY_R);
	if (file == NULL)
		ereport(ERROR,
				(errcode_for_file_access(), errmsg("could not open secret file \"%s\": %m", path),
				 errhint("The user that runs PostgreSQL must be able to read it.")));
	if (fstat(fileno(file), &status) != 0 || !S_ISREG(status.st_mode))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("secret file \"%s\" is not a regular file", path),
				 errhint("Name a file that holds the secret and nothing else.")));
	length = fread(content, 1, MAX_SECRET_BYTES + 1, file);
	FreeFile(file);
	if (length > MAX_SECRET_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("secret file \"%s\" is larger than %d bytes", path, MAX_SECRET_BYTES),
				 errhint("Name a file that holds the secret and nothing else.")));
	while (length > 0 && (content[length - 1] == '\n' || content[length - 1] == '\r'))
		length--;
	content[length] = '\0';
	return content;
}

char *
crm_account_secret(int64 account_id, const char *name)
{
	Datum values[2] = { Int64GetDatum(account_id), CStringGetTextDatum(name) };
	char *value;

	if (crm_run(&find_secret, values, NULL) == 0)
		return NULL;
	value = crm_result_text(0, 1);
	if (strncmp(value, "env:", 4) == 0)
	{
		char *found = getenv(value + 4);

		if (found == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("environment variable \"%s\" of a secret is not set", value + 4),
					 errhint("Set it for the server, which must be restarted to see it.")));
		return pstrdup(found);
	}
	if (strncmp(value, "file:", 5) == 0)
		return read_secret_file(value + 5);
	return value;
}
