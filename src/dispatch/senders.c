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
#include "utils/timestamp.h"

#include "dispatch/dispatch.h"

#define MAX_SECRET_BYTES (16 * 1024)

const char *const crm_lanes[CRM_NLANES] = { "urgent", "normal", "bulk" };

/* the head of a lane is found past messages that are on their way, of which there are few */
#define HEAD(lane)                                                           \
	"(SELECT o.due_at FROM crm.outbox o WHERE o.account_id = a.account_id"   \
	" AND o.lane = '" lane "' AND o.due_at < 'infinity' AND o.lease IS NULL" \
	" ORDER BY o.due_at LIMIT 1)"

static CrmPlan find_senders = {
	"SELECT s.* FROM (SELECT a.account_id, a.name, a.kind, a.base_url, a.app_id,"
	" coalesce(a.time_zone, crm.default_time_zone()), t.token, t.expires_at, t.refreshing_until, t.refresh_at,"
	" u.blocked_until, " HEAD("urgent") " AS urgent, " HEAD("normal") " AS normal, " HEAD(
		"bulk") " AS bulk FROM crm.account a"
				" LEFT JOIN crm.account_token t ON t.account_id = a.account_id"
				" LEFT JOIN crm.api_usage u ON u.account_id = a.account_id AND u.api = '') s"
				" WHERE s.urgent IS NOT NULL OR s.normal IS NOT NULL OR s.bulk IS NOT NULL"
				" ORDER BY least(s.urgent, s.normal, s.bulk)",
	0
};
static CrmPlan find_secret = {
	"SELECT s.value FROM crm.account_secret s WHERE s.account_id = $1 AND s.name = $2",
	2,
	{ INT8OID, TEXTOID }
};

static TimestampTz
time_at(uint64 row, int column, TimestampTz otherwise)
{
	bool isnull;
	Datum value = crm_result(row, column, &isnull);

	return isnull ? otherwise : DatumGetTimestampTz(value);
}

List *
crm_senders(TimestampTz now)
{
	List *senders = NIL;
	uint64 n = crm_run(&find_senders, NULL, NULL);

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
		sender->token_expires_at = time_at(i, 8, DT_NOBEGIN);
		fetching = time_at(i, 9, DT_NOBEGIN) > now;
		sender->blocked_until = time_at(i, 11, DT_NOBEGIN);
		for (int lane = 0; lane < CRM_NLANES; lane++)
			sender->due[lane] = time_at(i, 12 + lane, DT_NOEND);
		if (sender->token_expires_at <= now)
			sender->token = NULL;
		sender->token_wanted = channel->needs_token && !fetching &&
			time_at(i, 10, DT_NOBEGIN) <= now;
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
