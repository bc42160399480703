/*
 * standing.c
 *		May a message go now? One query for a batch finds whatever bears on it;
 *		the order of the questions is here, and nowhere else.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "dispatch/claim.h"
#include "dispatch/standing.h"
#include "types/weekly_hours.h"

/* what applies to a channel and a class, or to any */
#define APPLIES(rule)                                            \
	"(" rule ".channel IS NULL OR " rule ".channel = m.channel)" \
	" AND (" rule ".class IS NULL OR " rule ".class = m.class)"

/*
 * $1, $2 the messages; $3 account, $4 lane, $5 now, $6 kind of identifier of
 * recipients, $7 message types that need a window, $8 until when earlier ones are due or only
 * put off because their contact was busy
 */
static CrmPlan find_standing = {
	"SELECT n.contact_id, n.message_id, m.template, m.template_version, v.message_type, m.class,"
	" m.params, m.due_at, m.expires_at, m.tried_at, m.grant_id, m.reason, o.attempts,"
	/* 14: the identifier bound last */
	" (SELECT i.external_id FROM crm.identity i WHERE i.contact_id = n.contact_id"
	"   AND i.kind = $6 AND i.account_id = $3 ORDER BY i.bound_at DESC LIMIT 1),"
	/* 15: an earlier message of the lane, or one on its way in any */
	" EXISTS (SELECT FROM crm.outbox e WHERE e.contact_id = n.contact_id"
	"   AND e.message_id <> n.message_id AND (e.lease IS NOT NULL OR (e.message_id < n.message_id"
	"    AND e.account_id = $3 AND e.lane = $4"
	"    AND (e.attempts > 0 OR e.due_at <= $8 OR e.due_at = 'infinity')))),"
	/* 16 */
	" EXISTS (SELECT FROM crm.suppression s WHERE s.contact_id = n.contact_id"
	"   AND s.ended_at IS NULL AND s.channel IN ('', m.channel)),"
	/* 17 */
	" (SELECT k.granted FROM crm.consent k WHERE k.contact_id = n.contact_id"
	"   AND k.channel = m.channel AND k.class = m.class),"
	/* 18 */
	" CASE WHEN m.class = 'marketing' THEN EXISTS (SELECT FROM crm.follower f"
	"   WHERE f.contact_id = n.contact_id AND f.account_id = $3"
	"   AND f.followed_at > coalesce(f.unfollowed_at, '-infinity')) END,"
	/* 19 */
	" c.time_zone,"
	/* 20: the window that ends first */
	" CASE WHEN v.message_type = ANY ($7) AND m.grant_id IS NULL THEN (SELECT g.grant_id"
	"   FROM crm.window_grant g WHERE g.contact_id = n.contact_id AND g.account_id = $3"
	"   AND g.opened_at <= $5 AND g.expires_at > $5 AND (g.quota IS NULL OR g.used < g.quota)"
	"   ORDER BY g.expires_at, g.grant_id LIMIT 1) END,"
	/* 21 */
	" (SELECT min(p.name) FROM crm.frequency_cap p WHERE " APPLIES(
		"p") "   AND (SELECT count(*) FROM crm.message s WHERE s.contact_id = n.contact_id"
			 "    AND s.message_id <> n.message_id AND s.state IN ('sending', 'sent', 'waiting', 'unknown')"
			 "    AND (p.channel IS NULL OR s.channel = p.channel)"
			 "    AND (p.class IS NULL OR s.class = p.class)"
			 "    AND coalesce(s.sent_at, s.tried_at) > $5 - p.period) >= p.max_messages)"
			 " FROM unnest($1, $2) WITH ORDINALITY AS n(contact_id, message_id, place)"
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

static TimestampTz
time_at(uint64 row, int column, TimestampTz otherwise)
{
	bool isnull;
	Datum value = crm_result(row, column, &isnull);

	return isnull ? otherwise : DatumGetTimestampTz(value);
}

static bool
true_at(uint64 row, int column)
{
	bool isnull;
	Datum value = crm_result(row, column, &isnull);

	return !isnull && DatumGetBool(value);
}

static bool
is_null(uint64 row, int column)
{
	bool isnull;

	(void) crm_result(row, column, &isnull);
	return isnull;
}

/* Consent has the last word; without any, a follow is proof enough of interest in what is sold. */
static bool
may_be_told(const CrmSender *sender, const CrmCandidate *candidate, uint64 row)
{
	const char *channel = sender->channel->name;

	if (!is_null(row, 17))
		return true_at(row, 17);
	if (strcmp(candidate->class, "marketing") != 0 || strcmp(channel, "webhook") == 0)
		return true;
	if (strcmp(channel, "sms") == 0 || strcmp(channel, "email") == 0)
		return false;
	return true_at(row, 18);
}

typedef struct QuietRule
{
	char *class; /* NULL: any */
	CrmWeeklyHours *hours;
} QuietRule;

static CrmPlan find_quiet = {
	"SELECT q.class, q.hours FROM crm.quiet_hours q WHERE q.channel IS NULL OR q.channel = $1",
	1,
	{ TEXTOID }
};

static List *
quiet_rules(const char *channel)
{
	Datum value = CStringGetTextDatum(channel);
	List *rules = NIL;
	uint64 n = crm_run(&find_quiet, &value, NULL);

	for (uint64 i = 0; i < n; i++)
	{
		QuietRule *rule = palloc_object(QuietRule);
		bool isnull;

		rule->class = crm_result_text(i, 1);
		rule->hours = (CrmWeeklyHours *) PG_DETOAST_DATUM_COPY(crm_result(i, 2, &isnull));
		rules = lappend(rules, rule);
	}
	return rules;
}

/* Fields of contacts are the brand's own; a zone that is none is that of the account. */
static pg_tz *
zone_of(const char *contact_zone, const char *account_zone)
{
	pg_tz *zone = NULL;

	if (contact_zone != NULL && strlen(contact_zone) <= TZ_STRLEN_MAX)
		zone = pg_tzset(contact_zone);
	if (zone == NULL || !pg_tz_acceptable(zone))
		zone = pg_tzset(account_zone);
	return zone == NULL || !pg_tz_acceptable(zone) ? crm_guc_zone : zone;
}

/* The end of the quiet hours that it is in; DT_NOBEGIN outside them. */
static TimestampTz
quiet_end(List *rules, const char *class, const char *contact_zone, const char *account_zone,
		  TimestampTz now)
{
	TimestampTz latest = DT_NOBEGIN;
	pg_tz *zone = rules == NIL ? NULL : zone_of(contact_zone, account_zone);
	ListCell *cell;

	foreach(cell, rules)
	{
		QuietRule *rule = lfirst(cell);
		TimestampTz until;

		if ((rule->class == NULL || strcmp(rule->class, class) == 0) &&
			crm_hours_open_until(rule->hours, now, zone, &until))
			latest = Max(latest, until);
	}
	return latest;
}

static void
refuse(CrmCandidate *candidate, const char *reason)
{
	candidate->verdict = CRM_REFUSED;
	candidate->reason = pstrdup(reason);
}

static void
decide(const CrmSender *sender, List *quiet, CrmCandidate *candidate, uint64 row, TimestampTz now)
{
	const char *recipient_kind = sender->channel->recipient_kind;
	TimestampTz quiet_until;
	char *cap;

	candidate->verdict = CRM_GO;
	if (true_at(row, 15))
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
	if (recipient_kind != NULL && candidate->recipient == NULL)
	{
		refuse(candidate, "no_recipient");
		return;
	}
	if (true_at(row, 16))
	{
		refuse(candidate, "suppressed");
		return;
	}
	if (!may_be_told(sender, candidate, row))
	{
		refuse(candidate, "no_consent");
		return;
	}
	quiet_until = quiet_end(quiet, candidate->class, crm_result_text(row, 19), sender->zone, now);
	if (quiet_until != DT_NOBEGIN)
	{
		candidate->reason = pstrdup("quiet");
		candidate->until = quiet_until;
		/* hours that never end, or end too late, leave no moment to send it */
		candidate->verdict = quiet_until == DT_NOEND || quiet_until >= candidate->expires_at
			? CRM_EXPIRED
			: CRM_PUT_OFF;
		return;
	}
	if (candidate->type->needs_window && candidate->grant_id == 0)
	{
		refuse(candidate, "window_closed");
		return;
	}
	cap = crm_result_text(row, 21);
	if (cap != NULL)
		refuse(candidate, psprintf("cap:%s", cap));
}

static const CrmMessageType *
find_type(const CrmChannel *channel, const char *name)
{
	for (int i = 0; name != NULL && i < channel->ntypes; i++)
		if (strcmp(channel->types[i].name, name) == 0)
			return &channel->types[i];
	return NULL;
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
read_candidate(const CrmSender *sender, List *quiet, uint64 row, TimestampTz now)
{
	CrmCandidate *candidate = palloc0_object(CrmCandidate);
	char *reason;
	bool isnull;
	Datum value;

	candidate->contact_id = crm_result_int64(row, 1);
	candidate->message_id = crm_result_int64(row, 2);
	candidate->template = crm_result_text(row, 3);
	candidate->verdict = CRM_GONE;
	if (candidate->template == NULL)
		return candidate;
	candidate->type = find_type(sender->channel, crm_result_text(row, 5));
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
	candidate->due_at = time_at(row, 8, now);
	candidate->expires_at = time_at(row, 9, DT_NOEND);
	candidate->tried_at = time_at(row, 10, DT_NOBEGIN);
	candidate->grant_id = crm_result_int64(row, 11);
	if (candidate->grant_id == 0)
	{
		candidate->grant_id = crm_result_int64(row, 20);
		candidate->new_grant = candidate->grant_id != 0;
	}
	reason = crm_result_text(row, 12);
	candidate->token_failed = reason != NULL && strcmp(reason, "token") == 0;
	candidate->attempts = DatumGetInt32(crm_result(row, 13, &isnull));
	candidate->recipient = crm_result_text(row, 14);
	decide(sender, quiet, candidate, row, now);
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
	List *quiet = quiet_rules(sender->channel->name);
	uint64 found = crm_run(&find_standing, values, recipient_kind == NULL ? "     n  " : NULL);

	for (uint64 i = 0; i < found; i++)
		candidates = lappend(candidates, read_candidate(sender, quiet, i, now));
	return candidates;
}
