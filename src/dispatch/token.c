/*
 * token.c
 *		Access tokens. One process at a time fetches the token of an account: who
 *		writes refreshing_until has the right to, and holds no transaction open
 *		meanwhile. The old token stays in use until the new one is here. No token
 *		is ever in a message or a log.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "dispatch/dispatch.h"

/* a token is replaced so long before its end, or a fifth of its life if that is shorter */
#define REFRESH_AHEAD_SECONDS 300
#define FETCH_SECONDS         30
/* a platform lets nobody force a new token often */
#define FORCE_SECONDS       1800
#define MAX_BACKOFF_SECONDS 300

static CrmPlan take_right = {
	"INSERT INTO crm.account_token AS t (account_id, refreshing_until) VALUES ($1, $2)"
	" ON CONFLICT (account_id) DO UPDATE SET refreshing_until = EXCLUDED.refreshing_until"
	" WHERE (t.refreshing_until IS NULL OR t.refreshing_until <= $3)"
	" AND (t.refresh_at IS NULL OR t.refresh_at <= $3)",
	3,
	{ INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID }
};
static CrmPlan give_right_back = {
	"UPDATE crm.account_token t SET refreshing_until = NULL WHERE t.account_id = $1",
	1,
	{ INT8OID }
};
static CrmPlan save_token = {
	"UPDATE crm.account_token t SET token = $2, fetched_at = $3, refresh_at = $4, expires_at = $5,"
	" refreshing_until = NULL, failed_at = NULL, failure = NULL WHERE t.account_id = $1",
	5,
	{ INT8OID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID }
};
static CrmPlan save_failure = {
	"UPDATE crm.account_token t SET refreshing_until = $2, failed_at = $3, failure = $4"
	" WHERE t.account_id = $1",
	4,
	{ INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID }
};
static CrmPlan end_token = { "UPDATE crm.account_token t SET expires_at = $3, refresh_at = $3"
							 " WHERE t.account_id = $1 AND t.token = $2",
							 3,
							 { INT8OID, TEXTOID, TIMESTAMPTZOID } };

typedef enum TokenState
{
	TOKEN_IDLE,
	TOKEN_TAKEN, /* the right to fetch, not yet committed */
	TOKEN_FETCHING,
	TOKEN_ANSWERED /* not yet written */
} TokenState;

/* What this process knows of an account's token beside the table. */
typedef struct AccountToken
{
	int64 account_id;
	char *name;
	const CrmChannel *channel;
	TokenState state;
	CrmHttpRequest request; /* while TAKEN */
	CrmChannelRequest made;
	MemoryContext context; /* of the request and the answer */
	bool fetched;
	char *token;
	int expires_in;
	CrmChannelOutcome outcome;

	char *dead;            /* a token that the platform refused */
	TimestampTz forced_at; /* when a new one was last forced */
	bool force;            /* the next one must be another */
	int failures;
} AccountToken;

static List *tokens = NIL; /* in TopMemoryContext */

static AccountToken *
token_of(int64 account_id)
{
	ListCell *cell;
	AccountToken *token;
	MemoryContext old;

	foreach(cell, tokens)
	{
		token = lfirst(cell);
		if (token->account_id == account_id)
			return token;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	token = palloc0_object(AccountToken);
	token->account_id = account_id;
	token->forced_at = DT_NOBEGIN;
	token->context = AllocSetContextCreate(TopMemoryContext, "pg_crm token", ALLOCSET_SMALL_SIZES);
	tokens = lappend(tokens, token);
	MemoryContextSwitchTo(old);
	return token;
}

static void
set_copy(char **place, const char *value)
{
	if (*place != NULL)
		pfree(*place);
	*place = value == NULL ? NULL : MemoryContextStrdup(TopMemoryContext, value);
}

static void
stop_account(const AccountToken *token, const char *reason, const char *detail)
{
	crm_quota_block(token->account_id, "", DT_NOEND, reason);
	crm_alarm_raise("account_paused", token->name, detail);
}

typedef struct SecretRead
{
	int64 account_id;
	char *secret;
} SecretRead;

static bool
read_secret(void *arg)
{
	SecretRead *read = arg;

	read->secret = crm_account_secret(read->account_id, "app_secret");
	return true;
}

void
crm_token_want(const CrmSender *sender, TimestampTz now)
{
	AccountToken *token = token_of(sender->account_id);
	SecretRead read = { sender->account_id, NULL };
	Datum values[3] = { Int64GetDatum(sender->account_id),
						TimestampTzGetDatum(now + FETCH_SECONDS * USECS_PER_SEC),
						TimestampTzGetDatum(now) };
	ErrorData *error;
	MemoryContext old;

	if (token->state != TOKEN_IDLE || crm_run(&take_right, values, NULL) == 0)
		return;
	set_copy(&token->name, sender->name);
	token->channel = sender->channel;
	if (!crm_attempt(read_secret, &read, &error) || read.secret == NULL || sender->app_id == NULL)
	{
		stop_account(token, "secret",
					 error != NULL                ? error->message
						 : sender->app_id == NULL ? "the account has no app_id"
												  : "crm.account_secret has no app_secret of it");
		if (error != NULL)
			FreeErrorData(error);
		crm_run(&give_right_back, values, NULL);
		return;
	}
	MemoryContextReset(token->context);
	old = MemoryContextSwitchTo(token->context);
	token->fetched = false;
	memset(&token->made, 0, sizeof(token->made));
	token->channel->token_request(sender->app_id, read.secret, sender->base_url, token->force,
								  &token->made);
	MemoryContextSwitchTo(old);
	explicit_bzero(read.secret, strlen(read.secret));
	token->state = TOKEN_TAKEN;
}

void
crm_token_start(void)
{
	ListCell *cell;

	foreach(cell, tokens)
	{
		AccountToken *token = lfirst(cell);
		CrmHttpRequest request = { 0 };

		if (token->state != TOKEN_TAKEN)
			continue;
		request.url = token->made.url;
		request.body = token->made.body;
		request.body_length = token->made.body == NULL ? 0 : strlen(token->made.body);
		request.headers = (const char *const *) token->made.headers;
		request.nheaders = token->made.nheaders;
		request.timeout_ms = (FETCH_SECONDS - 10) * 1000;
		request.owner = -token->account_id;
		crm_http_start(&request);
		if (token->made.body != NULL)
			explicit_bzero(token->made.body, strlen(token->made.body));
		token->state = TOKEN_FETCHING;
		if (token->force)
			token->forced_at = GetCurrentTimestamp();
	}
}

void
crm_token_forget(void)
{
	ListCell *cell;

	foreach(cell, tokens)
	{
		AccountToken *token = lfirst(cell);

		if (token->state == TOKEN_TAKEN)
			token->state = TOKEN_IDLE;
	}
}

bool
crm_token_owns(int64 owner)
{
	return owner < 0;
}

void
crm_token_answered(const CrmHttpReply *reply)
{
	AccountToken *token = token_of(-reply->owner);
	MemoryContext old = MemoryContextSwitchTo(token->context);

	memset(&token->outcome, 0, sizeof(token->outcome));
	if (reply->result == CRM_HTTP_REPLY)
		token->fetched = token->channel->token_outcome(reply->status, reply->body,
													   reply->body_length, &token->token,
													   &token->expires_in, &token->outcome);
	else
	{
		token->fetched = false;
		token->outcome.reaction = CRM_RETRY;
		token->outcome.reason = pstrdup("no_reply");
		token->outcome.detail = reply->error == NULL ? NULL : pstrdup(reply->error);
	}
	MemoryContextSwitchTo(old);
	token->state = TOKEN_ANSWERED;
}

bool
crm_token_pending(void)
{
	ListCell *cell;

	foreach(cell, tokens)
		if (((AccountToken *) lfirst(cell))->state == TOKEN_ANSWERED)
			return true;
	return false;
}

static void
record_token(AccountToken *token, TimestampTz now)
{
	int ahead = Min(REFRESH_AHEAD_SECONDS, token->expires_in / 5);
	Datum values[5] = {
		Int64GetDatum(token->account_id),
		CStringGetTextDatum(token->token),
		TimestampTzGetDatum(now),
		TimestampTzGetDatum(now + (token->expires_in - ahead) * USECS_PER_SEC),
		TimestampTzGetDatum(now + token->expires_in * USECS_PER_SEC),
	};

	crm_run(&save_token, values, NULL);
	token->failures = 0;
	token->force = false;
}

static void
record_failure(AccountToken *token, TimestampTz now)
{
	int seconds = Min(MAX_BACKOFF_SECONDS, 1 << Min(token->failures, 10));
	const char *reason = token->outcome.reason == NULL ? "no_reply" : token->outcome.reason;
	const char *detail = token->outcome.detail == NULL ? reason : token->outcome.detail;
	Datum values[4];

	switch (token->outcome.reaction)
	{
		case CRM_RETRY:
		case CRM_UNKNOWN:
			break;
		case CRM_MINUTE:
			seconds = 60;
			break;
		case CRM_HOUR:
		case CRM_DAY:
			seconds = 3600;
			break;
		default:
			stop_account(token, reason, detail);
			break;
	}
	token->failures++;
	values[0] = Int64GetDatum(token->account_id);
	values[1] = TimestampTzGetDatum(now + seconds * USECS_PER_SEC);
	values[2] = TimestampTzGetDatum(now);
	values[3] = CStringGetTextDatum(detail);
	crm_run(&save_failure, values, NULL);
	if (token->failures == 3)
		crm_alarm_raise("token", token->name, detail);
}

/* Who lets the stopped account go on wants another token at once, and believes what the platform gives. */
static void
expect_person(AccountToken *token)
{
	token->force = true;
	set_copy(&token->dead, NULL);
}

/*
 * A platform may go on giving a token that it refuses. Then another one is
 * forced, but not often; a second refused one is for a person to look at.
 */
static bool
is_dead(AccountToken *token, TimestampTz now)
{
	if (token->dead == NULL || strcmp(token->dead, token->token) != 0)
		return false;
	if (token->forced_at != DT_NOBEGIN && now - token->forced_at < FORCE_SECONDS * USECS_PER_SEC)
	{
		stop_account(token, "token", "the platform refuses the token that it gave");
		expect_person(token);
	}
	token->force = true;
	token->outcome.reaction = CRM_RETRY;
	token->outcome.reason = "token";
	token->outcome.detail = "the platform gave the token that it had refused";
	return true;
}

void
crm_token_record(TimestampTz now)
{
	ListCell *cell;

	foreach(cell, tokens)
	{
		AccountToken *token = lfirst(cell);

		if (token->state != TOKEN_ANSWERED)
			continue;
		if (token->fetched && !is_dead(token, now))
		{
			if (token->failures >= 3)
				crm_alarm_clear("token", token->name);
			record_token(token, now);
		}
		else
			record_failure(token, now);
	}
}

void
crm_token_recorded(void)
{
	ListCell *cell;

	foreach(cell, tokens)
	{
		AccountToken *token = lfirst(cell);

		if (token->state != TOKEN_ANSWERED)
			continue;
		MemoryContextReset(token->context);
		token->token = NULL;
		token->state = TOKEN_IDLE;
	}
}

void
crm_token_refused(const CrmDelivery *delivery, TimestampTz now)
{
	AccountToken *token = token_of(delivery->account_id);
	Datum values[3] = { Int64GetDatum(delivery->account_id), CStringGetTextDatum(delivery->token),
						TimestampTzGetDatum(now) };

	crm_run(&end_token, values, NULL);
	set_copy(&token->name, delivery->account_name);
	set_copy(&token->dead, delivery->token);
	if (delivery->token_failed)
		expect_person(token);
}
