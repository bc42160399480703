/*
 * official_account.c
 *		Messages of a WeChat official account: customer-service messages, template
 *		messages, and the token for both.
 */
#include "postgres.h"

#include "utils/json.h"

#include "channels/channel.h"
#include "channels/json.h"
#include "channels/official_account.h"
#include "channels/request.h"

#define BASE_URL        "https://api.weixin.qq.com"
#define CUSTOM_API      "message/custom/send"
#define TEMPLATE_API    "message/template/send"
#define KEY_SECONDS     600 /* that the platform knows a client_msg_id */
#define MAX_FIELDS      32
#define MAX_TOKEN_BYTES 4096

/* clang-format off */
static const CrmMessageType types[] = {
	{ "text",            CUSTOM_API,   true,  0 },
	{ "image",           CUSTOM_API,   true,  0 },
	{ "voice",           CUSTOM_API,   true,  0 },
	{ "video",           CUSTOM_API,   true,  0 },
	{ "music",           CUSTOM_API,   true,  0 },
	{ "news",            CUSTOM_API,   true,  0 },
	{ "mpnews",          CUSTOM_API,   true,  0 },
	{ "mpnewsarticle",   CUSTOM_API,   true,  0 },
	{ "msgmenu",         CUSTOM_API,   true,  0 },
	{ "wxcard",          CUSTOM_API,   true,  0 },
	{ "miniprogrampage", CUSTOM_API,   true,  0 },
	{ "link",            CUSTOM_API,   true,  0 },
	{ "template",        TEMPLATE_API, false, KEY_SECONDS },
};

/* which call an error belongs to */
enum { SEND = 1, TOKEN = 2, ANY = SEND | TOKEN };

/*
 * What each errcode means; the first line that fits. Numbers and meanings are
 * the platform's.
 */
static const struct
{
	int first;
	int last;
	int call;
	CrmReaction reaction;
	const char *reason;
} errors[] = {
	/* the account, its token and its quotas */
	{    -1,    -1, ANY,   CRM_RETRY,           "busy" },
	{ 40001, 40001, SEND,  CRM_TOKEN,           "token" },
	{ 40001, 40001, TOKEN, CRM_PAUSE,           "bad_secret" },
	{ 40002, 40002, ANY,   CRM_PAUSE,           "bad_request" },
	{ 40014, 40014, SEND,  CRM_TOKEN,           "token" },
	{ 42001, 42001, SEND,  CRM_TOKEN,           "token" },
	{ 40013, 40013, TOKEN, CRM_PAUSE,           "bad_appid" },
	{ 40125, 40125, ANY,   CRM_PAUSE,           "bad_secret" },
	{ 40164, 40164, ANY,   CRM_PAUSE,           "ip_not_allowed" },
	{ 40243, 40243, ANY,   CRM_PAUSE,           "secret_frozen" },
	{ 41001, 41002, ANY,   CRM_PAUSE,           "bad_request" },
	{ 41004, 41004, ANY,   CRM_PAUSE,           "bad_request" },
	{ 43001, 43003, ANY,   CRM_PAUSE,           "bad_request" },
	{ 45009, 45009, ANY,   CRM_DAY,             "quota_day" },
	{ 45011, 45011, ANY,   CRM_MINUTE,          "quota_minute" },
	{ 48001, 48001, ANY,   CRM_PAUSE_API,       "no_right" },
	{ 48004, 48004, ANY,   CRM_PAUSE_API,       "api_banned" },
	{ 50002, 50002, ANY,   CRM_PAUSE,           "account_limited" },
	{ 45103, 45103, SEND,  CRM_PAUSE_API,       "api_withdrawn" },
	{ 45109, 45109, SEND,  CRM_PAUSE_API,       "api_withdrawn" },
	/* the recipient */
	{ 40003, 40003, SEND,  CRM_USER,            "bad_recipient" },
	{ 43004, 43004, SEND,  CRM_USER_UNFOLLOWED, "unfollowed" },
	{ 50005, 50005, SEND,  CRM_USER_UNFOLLOWED, "unfollowed" },
	{ 43019, 43019, SEND,  CRM_USER_OPTED_OUT,  "blacklisted" },
	{ 62751, 62751, SEND,  CRM_USER_OPTED_OUT,  "blacklisted" },
	{ 46004, 46004, SEND,  CRM_USER,            "no_user" },
	{ 48002, 48002, SEND,  CRM_USER_OPTED_OUT,  "opted_out" },
	{ 45015, 45015, SEND,  CRM_WINDOW_CLOSED,   "window_closed" }, /* or unfollowed */
	{ 45047, 45047, SEND,  CRM_WINDOW_USED_UP,    "window_spent" },
	{ 43101, 43101, SEND,  CRM_WINDOW_USED_UP,    "not_accepted" },
	/* the template */
	{ 40037, 40037, SEND,  CRM_DROP_TEMPLATE,   "bad_template" },
	{ 41030, 41030, SEND,  CRM_DROP_TEMPLATE,   "bad_page" },
	{ 43107, 43107, SEND,  CRM_DROP_TEMPLATE,   "template_blocked" },
	{ 43116, 43116, SEND,  CRM_DROP_TEMPLATE,   "template_blocked" },
	{ 47003, 47003, SEND,  CRM_DROP,            "bad_data" },
	{ 40013, 40013, SEND,  CRM_DROP,            "bad_mini_program" },
	{ 40165, 40165, SEND,  CRM_DROP,            "bad_mini_program" },
	/* the message */
	{ 40241, 40241, SEND,  CRM_DONE_BEFORE,     "repeated" },
	{ 40007, 40007, SEND,  CRM_DROP,            "media" },
	{ 40118, 40118, SEND,  CRM_DROP,            "media" },
	{ 40121, 40121, SEND,  CRM_DROP,            "media" },
	{ 40008, 40008, SEND,  CRM_DROP,            "bad_type" },
	{ 40004, 40012, SEND,  CRM_DROP,            "bad_media" },
	{ 45001, 45001, SEND,  CRM_DROP,            "bad_media" },
	{ 45007, 45007, SEND,  CRM_DROP,            "bad_media" },
	{ 45002, 45006, SEND,  CRM_DROP,            "too_long" },
	{ 45008, 45008, SEND,  CRM_DROP,            "too_long" },
	{ 40033, 40033, SEND,  CRM_DROP,            "bad_content" },
	{ 44002, 44002, SEND,  CRM_DROP,            "bad_content" },
	{ 44004, 44004, SEND,  CRM_DROP,            "bad_content" },
	{ 45162, 45162, SEND,  CRM_DROP,            "bad_content" },
	{ 47001, 47001, SEND,  CRM_DROP,            "bad_content" },
	{ 61451, 61451, SEND,  CRM_DROP,            "bad_content" },
	{ 61452, 61452, SEND,  CRM_DROP,            "bad_agent" },
	{ 40200, 40200, SEND,  CRM_DROP,            "type_not_allowed" },
	{ 48008, 48008, SEND,  CRM_DROP,            "type_not_allowed" },
};
/* clang-format on */

/* ----- requests ----- */

/* A body that is spliced in as it is, so that its bytes stay what they are. */
static void
append_field(StringInfo to, const CrmJsonField *field)
{
	const char *quote = field->kind == CRM_JSON_STRING ? "\"" : "";

	appendStringInfo(to, "%s\"%.*s\":%s%.*s%s", to->data[to->len - 1] == '{' ? "" : ",",
					 (int) field->name_length, field->name, quote, (int) field->length,
					 field->value, quote);
}

static void
request(const CrmChannelMessage *message, CrmChannelRequest *request)
{
	bool is_template = strcmp(message->message_type, "template") == 0;
	CrmJsonField fields[MAX_FIELDS];
	int n = crm_json_fields(message->body, strlen(message->body), fields, MAX_FIELDS);
	const CrmJsonField *agent = NULL;
	StringInfoData url;
	StringInfoData body;

	if (n < 0 || n > MAX_FIELDS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the body of a \"%s\" message is no JSON object", message->message_type)));

	initStringInfo(&url);
	crm_append_base_url(&url, message->base_url, BASE_URL);
	appendStringInfo(&url, "/cgi-bin/%s?access_token=", is_template ? TEMPLATE_API : CUSTOM_API);
	crm_append_url_encoded(&url, message->token ? message->token : "");

	initStringInfo(&body);
	appendStringInfoString(&body, "{\"touser\":");
	escape_json(&body, message->recipient);
	if (is_template && message->key)
	{
		appendStringInfoString(&body, ",\"client_msg_id\":");
		escape_json(&body, message->key);
	}
	if (!is_template)
	{
		appendStringInfoString(&body, ",\"msgtype\":");
		escape_json(&body, message->message_type);
		appendStringInfo(&body, ",\"%s\":{", message->message_type);
		agent = crm_json_find(fields, n, "customservice");
	}
	for (int i = 0; i < n; i++)
		if (&fields[i] != agent)
			append_field(&body, &fields[i]);
	if (!is_template)
		appendStringInfoChar(&body, '}');
	if (agent)
		append_field(&body, agent);
	appendStringInfoChar(&body, '}');
	crm_json_request(request, url.data, body.data);
}

static void
token_request(const char *app_id, const char *secret, const char *base_url, bool force,
			  CrmChannelRequest *request)
{
	StringInfoData url;
	StringInfoData body;

	initStringInfo(&url);
	crm_append_base_url(&url, base_url, BASE_URL);
	appendStringInfoString(&url, "/cgi-bin/stable_token");
	initStringInfo(&body);
	appendStringInfoString(&body, "{\"grant_type\":\"client_credential\",\"appid\":");
	escape_json(&body, app_id ? app_id : "");
	appendStringInfoString(&body, ",\"secret\":");
	escape_json(&body, secret ? secret : "");
	appendStringInfo(&body, ",\"force_refresh\":%s}", force ? "true" : "false");
	crm_json_request(request, url.data, body.data);
}

/* ----- replies ----- */

/* An errcode other than 0. One that is not listed was refused all the same. */
static void
error_outcome(int errcode, int call, CrmChannelOutcome *outcome)
{
	for (int i = 0; i < lengthof(errors); i++)
		if (errcode >= errors[i].first && errcode <= errors[i].last && (errors[i].call & call))
		{
			crm_set_outcome(outcome, errors[i].reaction, errors[i].reason);
			outcome->errcode = errcode;
			return;
		}
	crm_set_outcome(outcome, call == TOKEN ? CRM_PAUSE : CRM_DROP, "refused");
	outcome->errcode = errcode;
}

/*
 * A reply without an errcode, so one that is not the platform's but of
 * something in between, which may have passed the message on.
 */
static void
http_outcome(long status, int call, CrmChannelOutcome *outcome)
{
	CrmReaction reaction;

	if (status == 429)
		reaction = CRM_MINUTE;
	else if (status < 300 || status >= 500 || status == 408)
		reaction = call == TOKEN ? CRM_RETRY : CRM_UNKNOWN;
	else if (status == 400 || status == 413 || status == 414 || status == 415 || status == 422)
		reaction = call == TOKEN ? CRM_PAUSE : CRM_DROP;
	else
		reaction = CRM_PAUSE; /* no such page, not let in, moved: the address is wrong */
	crm_set_outcome(outcome, reaction, status == 200 ? "bad_reply" : psprintf("http_%ld", status));
}

/*
 * What the platform said, with the id that its support asks for. Error pages of
 * what stands in between may repeat the address, and with it the token.
 */
static void
set_detail(CrmChannelOutcome *outcome, const CrmJsonField *errmsg, const char *reply, size_t length,
		   const char *token)
{
	char *said = crm_json_text(errmsg);

	if (said)
	{
		reply = said;
		length = strlen(said);
	}
	if (token && *token && length > 0 && memmem(reply, length, token, strlen(token)) != NULL)
		outcome->detail = pstrdup("(it repeats the token)");
	else
		outcome->detail = crm_reply_detail(reply, length);
}

static void
outcome(const CrmChannelMessage *message, CrmChannelEnd end, long status, const char *reply,
		size_t length, CrmChannelOutcome *outcome)
{
	CrmJsonField fields[MAX_FIELDS];
	int n;
	int errcode;
	const CrmJsonField *errmsg;
	char *msgid;

	if (end != CRM_CHANNEL_REPLY)
	{
		if (end == CRM_CHANNEL_NOT_SENT)
			crm_set_outcome(outcome, CRM_RETRY, "not_sent");
		else
			crm_set_outcome(outcome, CRM_UNKNOWN, "no_reply");
		return;
	}
	n = Min(crm_json_fields(reply, length, fields, MAX_FIELDS), MAX_FIELDS);
	errmsg = crm_json_find(fields, n, "errmsg");
	msgid = crm_json_text(crm_json_find(fields, n, "msgid"));
	if (!crm_json_int(crm_json_find(fields, n, "errcode"), &errcode))
	{
		char *said = crm_json_text(errmsg);

		/* it may be left out where all is well, but something must say so */
		if (crm_json_find(fields, n, "errcode") == NULL &&
			(msgid || (said && strcmp(said, "ok") == 0)))
			errcode = 0;
		else
		{
			http_outcome(status, SEND, outcome);
			set_detail(outcome, errmsg, reply, length, message->token);
			return;
		}
	}
	if (errcode != 0)
		error_outcome(errcode, SEND, outcome);
	else if (status < 200 || status >= 300)
		http_outcome(status, SEND, outcome);
	else
	{
		crm_set_outcome(outcome, CRM_DONE, NULL);
		outcome->platform_id = msgid;
	}
	set_detail(outcome, errmsg, reply, length, message->token);
}

/* What can stand in an address is no error page. */
static bool
is_token(const char *token)
{
	if (token == NULL || *token == '\0' || strlen(token) > MAX_TOKEN_BYTES)
		return false;
	for (; *token; token++)
		if (*token <= ' ' || *token > '~')
			return false;
	return true;
}

static bool
token_outcome(long status, const char *reply, size_t length, char **token, int *expires_in,
			  CrmChannelOutcome *outcome)
{
	CrmJsonField fields[MAX_FIELDS];
	int n;
	int errcode = 0;
	const CrmJsonField *errmsg;

	if (status == 0)
	{
		crm_set_outcome(outcome, CRM_RETRY, "no_reply");
		return false;
	}
	n = Min(crm_json_fields(reply, length, fields, MAX_FIELDS), MAX_FIELDS);
	errmsg = crm_json_find(fields, n, "errmsg");
	if (crm_json_int(crm_json_find(fields, n, "errcode"), &errcode) && errcode != 0)
		error_outcome(errcode, TOKEN, outcome);
	else
	{
		char *found = crm_json_text(crm_json_find(fields, n, "access_token"));

		if (status >= 200 && status < 300 && is_token(found) &&
			crm_json_int(crm_json_find(fields, n, "expires_in"), expires_in) && *expires_in > 0)
		{
			crm_set_outcome(outcome, CRM_DONE, NULL);
			*token = found;
			return true;
		}
		http_outcome(status, TOKEN, outcome);
		/* half a reply may hold a token: it is not shown */
		length = 0;
	}
	set_detail(outcome, errmsg, reply, length, NULL);
	return false;
}

const CrmChannel crm_official_account = {
	.name = "official_account",
	.needs_token = true,
	.recipient_kind = "openid",
	.types = types,
	.ntypes = lengthof(types),
	.check = crm_official_account_check,
	.request = request,
	.outcome = outcome,
	.token_request = token_request,
	.token_outcome = token_outcome,
};
