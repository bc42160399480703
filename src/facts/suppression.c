/*
 * suppression.c
 *		Who is not to be written to: one active row per contact and channel, and
 *		an event each time that changes.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/channel.h"
#include "base/clock.h"
#include "base/db.h"
#include "facts/record.h"

PG_FUNCTION_INFO_V1(crm_sql_suppress);
PG_FUNCTION_INFO_V1(crm_sql_unsuppress);

static CrmPlan insert_suppression = {
	"INSERT INTO crm.suppression AS s (contact_id, channel, reason, since) VALUES ($1, $2, $3, $4)"
	" ON CONFLICT (contact_id, channel) WHERE ended_at IS NULL DO NOTHING",
	4,
	{ INT8OID, TEXTOID, TEXTOID, TIMESTAMPTZOID }
};
static CrmPlan end_suppression = {
	"UPDATE crm.suppression s SET ended_at = greatest($3, s.since)"
	" WHERE s.contact_id = $1 AND s.channel = $2 AND s.ended_at IS NULL",
	3,
	{ INT8OID, TEXTOID, TIMESTAMPTZOID }
};

static const char *
channel_argument(FunctionCallInfo fcinfo, int argument)
{
	char *channel = crm_text_argument(fcinfo, argument);

	if (channel == NULL)
		return "";
	crm_check_channel(channel);
	return channel;
}

Datum
crm_sql_suppress(PG_FUNCTION_ARGS)
{
	static const char *const names[] = { "channel", "reason" };
	const char *details[2];
	int64 contact_id;
	CrmActing acting;
	Datum values[4];

	crm_require_argument("suppress", "contact_id", PG_ARGISNULL(0));
	details[0] = channel_argument(fcinfo, 1);
	if (!PG_ARGISNULL(2))
		crm_check_document("reason", PG_GETARG_DATUM(2));
	details[1] = crm_text_argument(fcinfo, 2);

	crm_connect(&acting);
	contact_id = crm_contact_lock(PG_GETARG_INT64(0));
	values[0] = Int64GetDatum(contact_id);
	values[1] = CStringGetTextDatum(details[0]);
	values[2] = details[1] == NULL ? (Datum) 0 : CStringGetTextDatum(details[1]);
	values[3] = TimestampTzGetDatum(crm_now());
	if (crm_run(&insert_suppression, values, details[1] == NULL ? "  n " : NULL) > 0)
		crm_event_record(contact_id, "suppress", crm_now(), 0, crm_text_object(2, names, details));
	crm_disconnect(&acting);
	PG_RETURN_VOID();
}

Datum
crm_sql_unsuppress(PG_FUNCTION_ARGS)
{
	static const char *const names[] = { "channel" };
	const char *channel;
	int64 contact_id;
	CrmActing acting;
	Datum values[3];

	crm_require_argument("unsuppress", "contact_id", PG_ARGISNULL(0));
	channel = channel_argument(fcinfo, 1);

	crm_connect(&acting);
	contact_id = crm_contact_lock(PG_GETARG_INT64(0));
	values[0] = Int64GetDatum(contact_id);
	values[1] = CStringGetTextDatum(channel);
	values[2] = TimestampTzGetDatum(crm_now());
	if (crm_run(&end_suppression, values, NULL) > 0)
		crm_event_record(contact_id, "unsuppress", crm_now(), 0,
						 crm_text_object(1, names, &channel));
	crm_disconnect(&acting);
	PG_RETURN_VOID();
}
