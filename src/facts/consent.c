/*
 * consent.c
 *		What people say about being written to: an event each time, and the last
 *		word of it in crm.consent.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/channel.h"
#include "base/clock.h"
#include "base/db.h"
#include "facts/record.h"
#include "facts/rekey.h"
#include "outbox/outbox.h"

PG_FUNCTION_INFO_V1(crm_sql_grant_consent);
PG_FUNCTION_INFO_V1(crm_sql_withdraw_consent);

/* the later word counts, of two at one instant the no */
static CrmPlan keep_consent = {
	"INSERT INTO crm.consent AS c (contact_id, channel, class, granted, since, proof)"
	" VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (contact_id, channel, class) DO UPDATE SET"
	" granted = EXCLUDED.granted, since = EXCLUDED.since, proof = EXCLUDED.proof"
	" WHERE EXCLUDED.since > c.since OR (EXCLUDED.since = c.since AND NOT EXCLUDED.granted)",
	6,
	{ INT8OID, TEXTOID, TEXTOID, BOOLOID, TIMESTAMPTZOID, JSONBOID }
};
/*
 * Two who become one: where one of them said no, that stands. Returns what both
 * had said, and what the survivor's row became, for the ledger.
 */
static CrmPlan join_consents = {
	"WITH l AS (SELECT l.* FROM crm.consent l WHERE l.contact_id = $1),"
	" s AS (SELECT s.* FROM crm.consent s WHERE s.contact_id = $2),"
	" u AS (UPDATE crm.consent c SET granted = l.granted, since = l.since, proof = l.proof"
	"  FROM l JOIN s ON s.channel = l.channel AND s.class = l.class"
	"  WHERE c.contact_id = $2 AND c.channel = l.channel AND c.class = l.class"
	"  AND s.granted AND NOT l.granted)"
	" SELECT jsonb_agg(jsonb_build_object('loser', to_jsonb(l), 'before', to_jsonb(s), 'after',"
	"  CASE WHEN s.granted AND NOT l.granted THEN to_jsonb(l) ELSE to_jsonb(s) END))"
	" FROM l LEFT JOIN s ON s.channel = l.channel AND s.class = l.class",
	2,
	{ INT8OID, INT8OID }
};
/*
 * The rows are with their contacts again ($1 the survivor, $2 the other): each
 * says what it said before, and a word since the merge stays with the survivor.
 */
static CrmPlan part_consents = {
	"WITH e AS (SELECT jsonb_populate_record(NULL::crm.consent, e.value -> 'loser') AS l,"
	"   jsonb_populate_record(NULL::crm.consent, nullif(e.value -> 'before', 'null')) AS b,"
	"   jsonb_populate_record(NULL::crm.consent, nullif(e.value -> 'after', 'null')) AS a,"
	"   e.value -> 'before' <> 'null' AS both FROM jsonb_array_elements($3) e),"
	" given AS (SELECT c.*, (e.l).granted AS was, (e.l).since AS was_since, (e.l).proof AS was_proof"
	"  FROM e JOIN crm.consent c ON c.contact_id = $2 AND c.channel = (e.l).channel"
	"   AND c.class = (e.l).class"
	"  WHERE NOT e.both AND ROW(c.granted, c.since, c.proof)"
	"   IS DISTINCT FROM ROW((e.l).granted, (e.l).since, (e.l).proof)),"
	" kept AS (INSERT INTO crm.consent (contact_id, channel, class, granted, since, proof)"
	"  SELECT $1, g.channel, g.class, g.granted, g.since, g.proof FROM given g"
	"  ON CONFLICT (contact_id, channel, class) DO NOTHING),"
	" back AS (UPDATE crm.consent c SET granted = g.was, since = g.was_since, proof = g.was_proof"
	"  FROM given g WHERE c.contact_id = $2 AND c.channel = g.channel AND c.class = g.class)"
	" UPDATE crm.consent c SET granted = (e.b).granted, since = (e.b).since, proof = (e.b).proof"
	" FROM e WHERE e.both AND c.contact_id = $1 AND c.channel = (e.b).channel"
	" AND c.class = (e.b).class AND ROW(c.granted, c.since, c.proof)"
	" IS NOT DISTINCT FROM ROW((e.a).granted, (e.a).since, (e.a).proof)",
	3,
	{ INT8OID, INT8OID, JSONBOID }
};
static CrmPlan describe = {
	"SELECT jsonb_build_object('channel', $1, 'class', $2)"
	" || CASE WHEN $3 = '{}' THEN '{}' ELSE jsonb_build_object('proof', $3) END",
	3,
	{ TEXTOID, TEXTOID, JSONBOID }
};

static void
record(FunctionCallInfo fcinfo, const char *function, bool granted)
{
	static const char *const names[] = { "contact_id", "channel", "class" };
	char *channel;
	char *class;
	bool at_given;
	TimestampTz at;
	CrmActing acting;
	int64 contact_id;
	Datum values[6];
	Datum properties[3];
	bool isnull;

	for (int i = 0; i < lengthof(names); i++)
		crm_require_argument(function, names[i], PG_ARGISNULL(i));
	channel = crm_text_argument(fcinfo, 1);
	crm_check_channel(channel);
	class = crm_text_argument(fcinfo, 2);
	crm_check_class(class);
	at = crm_time_argument(fcinfo, 3, &at_given);
	if (granted)
	{
		crm_require_argument(function, "proof", PG_ARGISNULL(4));
		crm_check_document("proof", PG_GETARG_DATUM(4));
		crm_check_object("proof", PG_GETARG_DATUM(4));
	}

	crm_connect(&acting);
	contact_id = crm_contact_lock(PG_GETARG_INT64(0));
	values[0] = Int64GetDatum(contact_id);
	values[1] = properties[0] = CStringGetTextDatum(channel);
	values[2] = properties[1] = CStringGetTextDatum(class);
	values[3] = BoolGetDatum(granted);
	values[4] = TimestampTzGetDatum(at);
	values[5] = properties[2] = granted ? PG_GETARG_DATUM(4)
										: DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));
	crm_run(&keep_consent, values, NULL);
	crm_run(&describe, properties, NULL);
	crm_event_record(contact_id, function, at, 0, crm_result(0, 1, &isnull));
	crm_disconnect(&acting);
}

Datum
crm_consent_merge(int64 loser, int64 survivor, bool *isnull)
{
	Datum values[2] = { Int64GetDatum(loser), Int64GetDatum(survivor) };

	crm_run(&join_consents, values, NULL);
	return crm_result(0, 1, isnull);
}

void
crm_consent_unmerge(int64 survivor, int64 other, Datum said)
{
	Datum values[3] = { Int64GetDatum(survivor), Int64GetDatum(other), said };

	crm_run(&part_consents, values, NULL);
}

Datum
crm_sql_grant_consent(PG_FUNCTION_ARGS)
{
	record(fcinfo, "grant_consent", true);
	PG_RETURN_VOID();
}

Datum
crm_sql_withdraw_consent(PG_FUNCTION_ARGS)
{
	record(fcinfo, "withdraw_consent", false);
	PG_RETURN_VOID();
}
