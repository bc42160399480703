/*
 * quota.c
 *		What a platform allows an account: calls in a second (a bucket that is
 *		filled over time) and in a day, of each call and of all together; and
 *		what was stopped, by the platform or by a person. Read once a turn and
 *		account, counted in memory, written back once.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "dispatch/dispatch.h"

/* the row of the account stands for the one of its channel */
static CrmPlan load_usage = {
	"SELECT x.api, l.per_second, coalesce(l.burst, greatest(1, ceil(l.per_second)))::float8,"
	" l.per_day, u.day = $4, u.used, u.tokens, u.filled_at, u.blocked_until, u.blocked_reason"
	" FROM (SELECT l.api FROM crm.api_limit l WHERE l.channel = $2 AND l.account_id IN (0, $1)"
	"  UNION SELECT u.api FROM crm.api_usage u WHERE u.account_id = $1) x"
	" LEFT JOIN LATERAL (SELECT l.* FROM crm.api_limit l WHERE l.channel = $2 AND l.api = x.api"
	"  AND l.account_id IN (0, $1) ORDER BY l.account_id DESC LIMIT 1) l ON true"
	" LEFT JOIN crm.api_usage u ON u.account_id = $1 AND u.api = x.api",
	4,
	{ INT8OID, TEXTOID, TIMESTAMPTZOID, DATEOID }
};
static CrmPlan local_day = {
	"SELECT timezone($1, $2)::date, timezone($1, (timezone($1, $2)::date + 1)::timestamp)",
	2,
	{ TEXTOID, TIMESTAMPTZOID }
};
static CrmPlan save_usage = {
	"INSERT INTO crm.api_usage (account_id, api, day, used, tokens, filled_at)"
	" VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (account_id, api) DO UPDATE SET"
	" day = EXCLUDED.day, used = EXCLUDED.used, tokens = EXCLUDED.tokens,"
	" filled_at = EXCLUDED.filled_at",
	6,
	{ INT8OID, TEXTOID, DATEOID, INT8OID, FLOAT8OID, TIMESTAMPTZOID }
};
static CrmPlan block = {
	"INSERT INTO crm.api_usage AS u (account_id, api, blocked_until, blocked_reason)"
	" VALUES ($1, $2, $3, $4) ON CONFLICT (account_id, api) DO UPDATE SET"
	" blocked_until = greatest(u.blocked_until, EXCLUDED.blocked_until),"
	" blocked_reason = EXCLUDED.blocked_reason",
	4,
	{ INT8OID, TEXTOID, TIMESTAMPTZOID, TEXTOID }
};

typedef struct Usage
{
	char *api;
	bool limited_rate;
	double per_second;
	double burst;
	bool limited_day;
	int64 per_day;
	int64 used;
	double tokens;
	TimestampTz blocked_until;
	char *blocked_reason;
	bool changed;
} Usage;

/* those of the account that is being looked at, in the turn's memory */
static int64 loaded_account;
static Datum loaded_day;
static TimestampTz loaded_next_day;
static List *usages;

static double
float_at(uint64 row, int column, double otherwise)
{
	bool isnull;
	Datum value = crm_result(row, column, &isnull);

	return isnull ? otherwise : DatumGetFloat8(value);
}

/* The day found last is that of later moments too, until it ends. */
static void
find_day(const char *zone, TimestampTz now, Datum *day, TimestampTz *next)
{
	static char known_zone[TZ_STRLEN_MAX + 1] = "";
	static TimestampTz known_from;
	static TimestampTz known_next;
	static Datum known_day;
	Datum values[2] = { CStringGetTextDatum(zone), TimestampTzGetDatum(now) };
	bool isnull;

	if (strcmp(zone, known_zone) != 0 || now < known_from || now >= known_next)
	{
		crm_run(&local_day, values, NULL);
		known_day = crm_result(0, 1, &isnull);
		known_next = DatumGetTimestampTz(crm_result(0, 2, &isnull));
		known_from = now;
		/* a longer name is none and raised an error */
		strlcpy(known_zone, zone, sizeof(known_zone));
	}
	*day = known_day;
	*next = known_next;
}

TimestampTz
crm_quota_next_day(const char *zone, TimestampTz now)
{
	Datum day;
	TimestampTz next;

	find_day(zone, now, &day, &next);
	return next;
}

void
crm_quota_load(const CrmSender *sender, TimestampTz now)
{
	Datum values[4] = { Int64GetDatum(sender->account_id),
						CStringGetTextDatum(sender->channel->name), TimestampTzGetDatum(now), 0 };
	uint64 n;

	find_day(sender->zone, now, &loaded_day, &loaded_next_day);
	values[3] = loaded_day;
	loaded_account = sender->account_id;
	usages = NIL;
	n = crm_run(&load_usage, values, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		Usage *usage = palloc0_object(Usage);
		bool isnull;
		bool no_day;
		bool no_filled;
		Datum value;

		usage->api = crm_result_text(i, 1);
		value = crm_result(i, 2, &isnull);
		usage->limited_rate = !isnull;
		usage->per_second = isnull ? 0 : DatumGetFloat8(value);
		usage->burst = float_at(i, 3, 0);
		usage->per_day = crm_result_int64(i, 4);
		(void) crm_result(i, 4, &isnull);
		usage->limited_day = !isnull;
		value = crm_result(i, 5, &no_day);
		usage->used = !no_day && DatumGetBool(value) ? crm_result_int64(i, 6) : 0;
		usage->tokens = float_at(i, 7, usage->burst);
		value = crm_result(i, 8, &no_filled);
		if (!no_filled && usage->limited_rate)
			usage->tokens = Min(usage->burst,
								usage->tokens +
									usage->per_second * Max(0, now - DatumGetTimestampTz(value)) /
										USECS_PER_SEC);
		value = crm_result(i, 9, &isnull);
		usage->blocked_until = isnull ? DT_NOBEGIN : DatumGetTimestampTz(value);
		usage->blocked_reason = crm_result_text(i, 10);
		usages = lappend(usages, usage);
	}
}

static Usage *
usage_of(const char *api)
{
	ListCell *cell;

	foreach(cell, usages)
		if (strcmp(((Usage *) lfirst(cell))->api, api) == 0)
			return lfirst(cell);
	return NULL;
}

static bool
allows(const Usage *usage, TimestampTz now, TimestampTz *until, const char **reason)
{
	if (usage == NULL)
		return true;
	if (usage->blocked_until > now)
	{
		*until = usage->blocked_until;
		*reason = usage->blocked_reason == NULL ? "paused" : usage->blocked_reason;
		return false;
	}
	if (usage->limited_day && usage->used >= usage->per_day)
	{
		*until = loaded_next_day;
		*reason = "quota_day";
		return false;
	}
	if (usage->limited_rate && usage->tokens < 1)
	{
		*until = now + (int64) ((1 - usage->tokens) / usage->per_second * USECS_PER_SEC) + 1;
		*reason = CRM_QUOTA_RATE;
		return false;
	}
	return true;
}

static void
count(Usage *usage)
{
	if (usage == NULL)
		return;
	usage->used++;
	if (usage->limited_rate)
		usage->tokens -= 1;
	usage->changed = true;
}

bool
crm_quota_take(const char *api, TimestampTz now, TimestampTz *until, const char **reason)
{
	Usage *all = usage_of("");
	Usage *own = usage_of(api);

	if (!allows(all, now, until, reason) || !allows(own, now, until, reason))
		return false;
	count(all);
	count(own);
	return true;
}

void
crm_quota_save(TimestampTz now)
{
	ListCell *cell;

	foreach(cell, usages)
	{
		Usage *usage = lfirst(cell);
		Datum values[6] = {
			Int64GetDatum(loaded_account), CStringGetTextDatum(usage->api), loaded_day,
			Int64GetDatum(usage->used),    Float8GetDatum(usage->tokens),   TimestampTzGetDatum(now)
		};

		if (usage->changed)
			crm_run(&save_usage, values, usage->limited_rate ? NULL : "    n ");
		usage->changed = false;
	}
}

void
crm_quota_block(int64 account_id, const char *api, TimestampTz until, const char *reason)
{
	Datum values[4] = { Int64GetDatum(account_id), CStringGetTextDatum(api),
						TimestampTzGetDatum(until), CStringGetTextDatum(reason) };

	crm_run(&block, values, NULL);
}
