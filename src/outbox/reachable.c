/*
 * reachable.c
 *		By which accounts a contact can be written to: the questions that the
 *		worker asks of a message, asked of nobody's.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "outbox/permission.h"
#include "outbox/reachable.h"

static CrmPlan find_accounts = {
	"SELECT a.account_id, a.name, a.kind, coalesce(a.time_zone, crm.default_time_zone()),"
	" a.base_url IS NOT NULL FROM crm.account a ORDER BY a.name COLLATE \"C\"",
	0
};

#define OPEN_WINDOWS " FROM crm.window_grant g WHERE " CRM_WINDOW_IS_OPEN("$1", "$2", "$5")

/*
 * $1 contact, $2 account, $3 channel, $4 class, $5 time, $6 kind of identifier
 * of recipients, $7 call
 */
static CrmPlan find_standing = {
	"SELECT b.blocked_until, b.blocked_reason,"
	" (SELECT max(g.expires_at)" OPEN_WINDOWS "),"
	/* infinite where one of them allows any number */
	" (SELECT sum(coalesce((g.quota - g.used)::float8, 'infinity'))" OPEN_WINDOWS "),"
	/* 5 and what follows */
	CRM_PERMISSION_COLUMNS(
		"$1", "$2", "$3", "$4", "$5", "$6",
		"") " FROM (VALUES (0)) AS n LEFT JOIN crm.contact c ON c.contact_id = $1"
			" LEFT JOIN LATERAL (SELECT u.blocked_until, u.blocked_reason FROM crm.api_usage u"
			"  WHERE u.account_id = $2 AND u.api IN ('', $7) AND u.blocked_until > $5"
			"  ORDER BY u.blocked_until DESC, u.api LIMIT 1) b ON true",
	7,
	{ INT8OID, INT8OID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TEXTOID, TEXTOID }
};

typedef struct Account
{
	int64 account_id;
	const char *name;
	const CrmChannel *channel;
	const char *zone;
} Account;

/* Those that can send: there is an adapter, and an address. */
static List *
read_accounts(void)
{
	List *accounts = NIL;
	uint64 n = crm_read(&find_accounts, NULL, NULL);

	for (uint64 i = 0; i < n; i++)
	{
		const CrmChannel *channel = crm_channel_find(crm_result_text(i, 3));
		Account *account;
		bool isnull;

		if (channel == NULL ||
			(channel->needs_base_url && !DatumGetBool(crm_result(i, 5, &isnull))))
			continue;
		account = palloc_object(Account);
		account->account_id = crm_result_int64(i, 1);
		account->name = crm_result_text(i, 2);
		account->channel = channel;
		account->zone = crm_result_text(i, 4);
		accounts = lappend(accounts, account);
	}
	return accounts;
}

static void
reach(const Account *account, const CrmMessageType *type, List *quiet_hours, int64 contact_id,
	  const char *class, TimestampTz at, CrmReach *reach)
{
	const CrmChannel *channel = account->channel;
	Datum values[7] = {
		Int64GetDatum(contact_id),
		Int64GetDatum(account->account_id),
		CStringGetTextDatum(channel->name),
		CStringGetTextDatum(class),
		TimestampTzGetDatum(at),
		channel->recipient_kind == NULL ? (Datum) 0 : CStringGetTextDatum(channel->recipient_kind),
		CStringGetTextDatum(type->api),
	};
	TimestampTz quiet_until = DT_NOBEGIN;
	CrmPermission permission;
	Datum blocked_until;
	Datum window_end;
	Datum left;
	bool not_blocked;
	bool no_window;
	bool isnull;

	crm_read(&find_standing, values, channel->recipient_kind == NULL ? "     n " : NULL);
	blocked_until = crm_result(0, 1, &not_blocked);
	window_end = crm_result(0, 3, &no_window);
	left = crm_result(0, 4, &isnull);
	crm_permission_read(0, 5, &permission);

	reach->account = account->name;
	reach->channel = channel->name;
	reach->api = type->api;
	reach->valid_until = DT_NOBEGIN;
	reach->remaining = -1;
	if (type->needs_window && (no_window || DatumGetFloat8(left) <= PG_INT32_MAX))
		reach->remaining = no_window ? 0 : (int) DatumGetFloat8(left);
	reach->reason = crm_permission_refusal(&permission, channel, class,
										   type->needs_window && no_window, quiet_hours,
										   account->zone, at, &quiet_until);
	if (reach->reason != NULL)
		reach->valid_until = quiet_until;
	else if (!not_blocked)
	{
		reach->reason = crm_result_text(0, 2);
		if (reach->reason == NULL)
			reach->reason = pstrdup("paused");
		reach->valid_until = DatumGetTimestampTz(blocked_until);
	}
	else if (type->needs_window)
		reach->valid_until = DatumGetTimestampTz(window_end);
}

void
crm_outbox_reachable(int64 contact_id, const char *class, TimestampTz at, CrmReachFunction function,
					 void *arg)
{
	ListCell *cell;

	foreach(cell, read_accounts())
	{
		const Account *account = lfirst(cell);
		const CrmChannel *channel = account->channel;
		List *quiet_hours = crm_quiet_hours(channel->name);
		const char *api = NULL;

		/* types of one call stand together and are alike */
		for (int i = 0; i < channel->ntypes; i++)
		{
			CrmReach found;

			if (api != NULL && strcmp(channel->types[i].api, api) == 0)
				continue;
			api = channel->types[i].api;
			reach(account, &channel->types[i], quiet_hours, contact_id, class, at, &found);
			function(arg, &found);
		}
	}
}

const char *
crm_outbox_api(const char *channel_name, const char *message_type)
{
	const CrmChannel *channel = crm_channel_find(channel_name);

	for (int i = 0; channel != NULL && i < channel->ntypes; i++)
		if (strcmp(channel->types[i].name, message_type) == 0)
			return channel->types[i].api;
	return NULL;
}
