/*
 * request.c
 *		What the adapters put their requests and outcomes together with.
 */
#include "postgres.h"

#include "channels/json.h"
#include "channels/request.h"

void
crm_append_url_encoded(StringInfo to, const char *value)
{
	for (const unsigned char *p = (const unsigned char *) value; *p; p++)
	{
		if ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
			strchr("-_.~", *p) != NULL)
			appendStringInfoChar(to, *p);
		else
			appendStringInfo(to, "%%%02X", *p);
	}
}

void
crm_append_base_url(StringInfo to, const char *base_url, const char *own)
{
	appendStringInfoString(to, base_url && *base_url ? base_url : own);
	while (to->len > 0 && to->data[to->len - 1] == '/')
		to->data[--to->len] = '\0';
}

void
crm_json_request(CrmChannelRequest *request, char *url, char *body)
{
	request->url = url;
	request->body = body;
	request->nheaders = 0;
	request->headers = NULL;
	crm_add_header(request, pstrdup("Content-Type: application/json"));
}

void
crm_add_header(CrmChannelRequest *request, char *header)
{
	Size size = sizeof(char *) * (request->nheaders + 1);

	request->headers = request->headers ? repalloc(request->headers, size) : palloc(size);
	request->headers[request->nheaders++] = header;
}

void
crm_set_outcome(CrmChannelOutcome *outcome, CrmReaction reaction, const char *reason)
{
	memset(outcome, 0, sizeof(*outcome));
	outcome->reaction = reaction;
	outcome->reason = reason ? pstrdup(reason) : NULL;
}

char *
crm_reply_detail(const char *reply, size_t length)
{
	if (length == 0)
		return NULL;
	return crm_clean_text(reply, length, CRM_MAX_DETAIL_BYTES);
}
