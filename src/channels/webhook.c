/*
 * webhook.c
 *		Messages to a system of the brand's own, which takes JSON by POST.
 *
 * The signature is over time and body, so that neither can be replaced and an
 * old request not be played again; the key tells a repetition from a second
 * message.
 */
#include "postgres.h"

#include "common/hmac.h"
#include "common/sha2.h"
#include "utils/builtins.h"
#include "utils/json.h"

#include "channels/channel.h"
#include "channels/request.h"

#define KEY_SECONDS (24 * 60 * 60)

static void
check(const char *message_type, Jsonb *body)
{
	if (!JB_ROOT_IS_OBJECT(body))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the body of a \"%s\" message is no JSON object", message_type),
				 errhint("Set $ to an object; it is sent as \"data\".")));
}

/* sha256= and 64 hexadecimal digits. */
static char *
signature(const char *secret, const char *signed_text)
{
	uint8 digest[PG_SHA256_DIGEST_LENGTH];
	char *text = palloc(7 + 2 * sizeof(digest) + 1);
	pg_hmac_ctx *hmac = pg_hmac_create(PG_SHA256);
	bool done = hmac && pg_hmac_init(hmac, (const uint8 *) secret, strlen(secret)) == 0 &&
		pg_hmac_update(hmac, (const uint8 *) signed_text, strlen(signed_text)) == 0 &&
		pg_hmac_final(hmac, digest, sizeof(digest)) == 0;

	pg_hmac_free(hmac);
	if (!done)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("a webhook's request could not be signed")));
	strcpy(text, "sha256=");
	text[7 + hex_encode((const char *) digest, sizeof(digest), text + 7)] = '\0';
	return text;
}

/* A header's value: printable ASCII as it is, the rest as in an address. */
static char *
key_header(const char *key)
{
	StringInfoData header;

	initStringInfo(&header);
	appendStringInfoString(&header, "Idempotency-Key: ");
	for (const unsigned char *p = (const unsigned char *) key; *p; p++)
	{
		if (*p > ' ' && *p < 0x7F && *p != '%')
			appendStringInfoChar(&header, *p);
		else
			appendStringInfo(&header, "%%%02X", *p);
	}
	return header.data;
}

static void
request(const CrmChannelMessage *message, CrmChannelRequest *request)
{
	StringInfoData url;
	StringInfoData body;
	char *time = psprintf(INT64_FORMAT, message->now);

	if (message->base_url == NULL || *message->base_url == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("a webhook has no address"),
				 errhint("Set the address of its account.")));
	/* unlike a base, the address is taken as it is */
	initStringInfo(&url);
	appendStringInfoString(&url, message->base_url);
	initStringInfo(&body);
	appendStringInfo(&body,
					 "{\"message_id\":" INT64_FORMAT ",\"contact_id\":" INT64_FORMAT
					 ",\"template\":",
					 message->message_id, message->contact_id);
	if (message->template_name)
		escape_json(&body, message->template_name);
	else
		appendStringInfoString(&body, "null");
	appendStringInfo(&body, ",\"data\":%s}", message->body);

	crm_json_request(request, url.data, body.data);
	crm_add_header(request, psprintf("X-Crm-Timestamp: %s", time));
	if (message->secret)
		crm_add_header(request,
					   psprintf("X-Crm-Signature: %s",
								signature(message->secret, psprintf("%s.%s", time, body.data))));
	if (message->key)
		crm_add_header(request, key_header(message->key));
}

static void
outcome(const CrmChannelMessage *message, CrmChannelEnd end, long status, const char *reply,
		size_t length, CrmChannelOutcome *outcome)
{
	CrmReaction reaction;

	if (end == CRM_CHANNEL_NOT_SENT)
		crm_set_outcome(outcome, CRM_RETRY, "not_sent");
	else if (end == CRM_CHANNEL_UNKNOWN)
		crm_set_outcome(outcome, CRM_UNKNOWN, "no_reply");
	else if (status >= 200 && status < 300)
	{
		crm_set_outcome(outcome, CRM_DONE, NULL);
		outcome->detail = crm_reply_detail(reply, length);
	}
	else
	{
		/* a repetition is told by its key, so what failed there may go again */
		if (status == 429)
			reaction = CRM_MINUTE;
		else if (status == 408 || status >= 500)
			reaction = CRM_RETRY;
		else if (status >= 400)
			reaction = CRM_DROP;
		else
			reaction = CRM_PAUSE; /* it moved */
		crm_set_outcome(outcome, reaction, psprintf("http_%ld", status));
		outcome->detail = crm_reply_detail(reply, length);
	}
}

static const CrmMessageType types[] = { { "post", "post", false, KEY_SECONDS } };

const CrmChannel crm_webhook = {
	.name = "webhook",
	.needs_base_url = true,
	.secret_name = "signing_key",
	.types = types,
	.ntypes = lengthof(types),
	.check = check,
	.request = request,
	.outcome = outcome,
};
