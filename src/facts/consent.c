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
static CrmPlan describe = {
	"SELECT jsonb_strip_nulls(jsonb_build_object('channel', $1, 'class', $2,"
	" 'proof', nullif($3, '{}')))",
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
