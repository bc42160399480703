/*
 * channels.c
 *		For tests only: SQL functions that call pg_crm's channels.
 */
#include "pg_crm.h"

#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "channels/channel.h"

PG_FUNCTION_INFO_V1(rooms_channel_check);
PG_FUNCTION_INFO_V1(rooms_channel_request);
PG_FUNCTION_INFO_V1(rooms_channel_outcome);
PG_FUNCTION_INFO_V1(rooms_channel_types);
PG_FUNCTION_INFO_V1(rooms_token_request);
PG_FUNCTION_INFO_V1(rooms_token_outcome);

#define TEXT_OR_NULL(n) (PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n)))

static const char *const reactions[] = {
	"done",       "done before",   "token",        "retry",     "minute",        "hour",
	"day",        "window closed", "window spent", "drop",      "drop template", "user",
	"unfollowed", "opted out",     "pause",        "pause api", "unknown"
};

static const CrmChannel *
channel_of(const char *name)
{
	const CrmChannel *channel = crm_channel_find(name);

	if (channel == NULL)
		elog(ERROR, "no channel %s", name);
	return channel;
}

/* reaction, errcode, reason, detail, platform_id */
static Datum
outcome_text(const CrmChannelOutcome *outcome)
{
	return CStringGetTextDatum(psprintf("%s|%d|%s|%s|%s", reactions[outcome->reaction],
										outcome->errcode, outcome->reason ? outcome->reason : "-",
										outcome->detail ? outcome->detail : "-",
										outcome->platform_id ? outcome->platform_id : "-"));
}

/* the address, a header a line, the body */
static Datum
request_text(const CrmChannelRequest *request)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfo(&s, "%s\n", request->url);
	for (int i = 0; i < request->nheaders; i++)
		appendStringInfo(&s, "%s\n", request->headers[i]);
	appendStringInfoString(&s, request->body);
	return CStringGetTextDatum(s.data);
}

/* channel_check(channel, message_type, body) */
Datum
rooms_channel_check(PG_FUNCTION_ARGS)
{
	crm_channel_check(TEXT_OR_NULL(0), TEXT_OR_NULL(1), PG_GETARG_JSONB_P(2));
	PG_RETURN_VOID();
}

/* channel_request(channel, message_type, recipient, base_url, token, body, key, template, secret) */
Datum
rooms_channel_request(PG_FUNCTION_ARGS)
{
	CrmChannelMessage message = { .message_type = TEXT_OR_NULL(1),
								  .recipient = TEXT_OR_NULL(2),
								  .base_url = TEXT_OR_NULL(3),
								  .token = TEXT_OR_NULL(4),
								  .body = TEXT_OR_NULL(5),
								  .key = TEXT_OR_NULL(6),
								  .contact_id = 7,
								  .message_id = 42,
								  .template_name = TEXT_OR_NULL(7),
								  .secret = TEXT_OR_NULL(8),
								  .now = 1700000000,
								  .app_id = "wxapp" };
	CrmChannelRequest request;

	channel_of(TEXT_OR_NULL(0))->request(&message, &request);
	return request_text(&request);
}

/* channel_outcome(channel, message_type, end, status, reply bytea, token) */
Datum
rooms_channel_outcome(PG_FUNCTION_ARGS)
{
	CrmChannelMessage message = { .message_type = TEXT_OR_NULL(1), .token = TEXT_OR_NULL(5) };
	bytea *reply = PG_GETARG_BYTEA_PP(4);
	CrmChannelOutcome outcome;

	channel_of(TEXT_OR_NULL(0))
		->outcome(&message, PG_GETARG_INT32(2), PG_GETARG_INT32(3), VARDATA_ANY(reply),
				  VARSIZE_ANY_EXHDR(reply), &outcome);
	return outcome_text(&outcome);
}

/* channel_types(channel): name, api, window, seconds */
Datum
rooms_channel_types(PG_FUNCTION_ARGS)
{
	const CrmChannel *channel = channel_of(TEXT_OR_NULL(0));
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < channel->ntypes; i++)
	{
		const CrmMessageType *type = crm_channel_type(channel, channel->types[i].name);

		appendStringInfo(&s, "%s %s %s %d\n", type->name, type->api,
						 type->needs_window ? "window" : "-", type->key_seconds);
	}
	return CStringGetTextDatum(s.data);
}

/* token_request(channel, base_url, force) */
Datum
rooms_token_request(PG_FUNCTION_ARGS)
{
	CrmChannelRequest request;

	channel_of(TEXT_OR_NULL(0))
		->token_request("wx0123456789abcdef", "\"secret\"", TEXT_OR_NULL(1), PG_GETARG_BOOL(2),
						&request);
	return request_text(&request);
}

/* token_outcome(channel, status, reply bytea): the token and its time, or the outcome */
Datum
rooms_token_outcome(PG_FUNCTION_ARGS)
{
	bytea *reply = PG_GETARG_BYTEA_PP(2);
	char *token = NULL;
	int expires_in = 0;
	CrmChannelOutcome outcome;

	if (channel_of(TEXT_OR_NULL(0))
			->token_outcome(PG_GETARG_INT32(1), VARDATA_ANY(reply), VARSIZE_ANY_EXHDR(reply),
							&token, &expires_in, &outcome))
		return CStringGetTextDatum(psprintf("%s %d", token, expires_in));
	return outcome_text(&outcome);
}
