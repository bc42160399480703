/*
 * pause.c
 *		Stopping an account by hand, and letting one go on that was stopped.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/install.h"
#include "base/wake.h"
#include "dispatch/dispatch.h"

PG_FUNCTION_INFO_V1(crm_sql_pause_account);
PG_FUNCTION_INFO_V1(crm_sql_resume_account);
PG_FUNCTION_INFO_V1(crm_sql_alarm_after);

static CrmPlan find_account = { "SELECT a.account_id FROM crm.account a WHERE a.name = $1",
								1,
								{ TEXTOID } };
static CrmPlan unblock = { "UPDATE crm.api_usage u SET blocked_until = NULL, blocked_reason = NULL"
						   " WHERE u.account_id = $1 AND u.blocked_until IS NOT NULL",
						   1,
						   { INT8OID } };
/* what was put off meanwhile, each until a moment of its own */
static CrmPlan bring_back = {
	"UPDATE crm.outbox o SET due_at = statement_timestamp()"
	" FROM crm.message m, crm.api_usage u WHERE o.account_id = $1 AND o.lease IS NULL"
	" AND o.due_at > statement_timestamp() AND o.due_at < 'infinity'"
	" AND m.contact_id = o.contact_id AND m.message_id = o.message_id AND m.state = 'queued'"
	" AND u.account_id = $1 AND u.blocked_until IS NOT NULL AND m.reason = u.blocked_reason",
	1,
	{ INT8OID }
};
/* a pause after a failure would hold the account back for some minutes more */
static CrmPlan fetch_again = { "UPDATE crm.account_token t SET refreshing_until = NULL"
							   " WHERE t.account_id = $1 AND t.failed_at IS NOT NULL",
							   1,
							   { INT8OID } };
/* alarms of a call name it behind the account */
static CrmPlan find_alarms = { "SELECT a.kind, a.object FROM crm.alarm a WHERE a.cleared_at IS NULL"
							   " AND (a.kind IN ('account_paused', 'token') AND a.object = $1"
							   "  OR a.kind = 'api_paused' AND starts_with(a.object, $1 || ' '))",
							   1,
							   { TEXTOID } };

static void
require(FunctionCallInfo fcinfo, int argument, const char *name, const char *function)
{
	if (PG_ARGISNULL(argument))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument %s of crm.%s() must not be NULL", name, function),
				 errhint("Name an account%s.",
						 argument == 0 ? "" : ", and say why it is to send nothing")));
}

static int64
find(const char *name)
{
	Datum value = CStringGetTextDatum(name);

	if (crm_run(&find_account, &value, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("account \"%s\" does not exist",
						pnstrdup(name, pg_mbcliplen(name, strlen(name), 40))),
				 errhint("Accounts are rows of crm.account.")));
	return crm_result_int64(0, 1);
}

Datum
crm_sql_pause_account(PG_FUNCTION_ARGS)
{
	char *name;
	CrmActing acting;

	require(fcinfo, 0, "account", "pause_account");
	require(fcinfo, 1, "reason", "pause_account");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	crm_connect(&acting);
	crm_quota_block(find(name), "", DT_NOEND, text_to_cstring(PG_GETARG_TEXT_PP(1)));
	crm_disconnect(&acting);
	PG_RETURN_VOID();
}

static void
clear_alarms(const char *account)
{
	Datum value = CStringGetTextDatum(account);
	uint64 n = crm_run(&find_alarms, &value, NULL);
	char **kinds = palloc_array(char *, n + 1);
	char **objects = palloc_array(char *, n + 1);

	for (uint64 i = 0; i < n; i++)
	{
		kinds[i] = crm_result_text(i, 1);
		objects[i] = crm_result_text(i, 2);
	}
	for (uint64 i = 0; i < n; i++)
		crm_alarm_clear(kinds[i], objects[i]);
}

/* The order of the tables is that of the worker, which waits for none of the queue. */
Datum
crm_sql_resume_account(PG_FUNCTION_ARGS)
{
	char *name;
	Datum account_id;
	CrmActing acting;

	require(fcinfo, 0, "account", "resume_account");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	crm_connect(&acting);
	account_id = Int64GetDatum(find(name));
	crm_run(&bring_back, &account_id, NULL);
	crm_run(&fetch_again, &account_id, NULL);
	crm_run(&unblock, &account_id, NULL);
	clear_alarms(name);
	crm_wake_at_commit();
	crm_disconnect(&acting);
	PG_RETURN_VOID();
}

Datum
crm_sql_alarm_after(PG_FUNCTION_ARGS)
{
	Interval *after = palloc0_object(Interval);

	after->time = (int64) crm_guc_alarm_after * USECS_PER_SEC;
	PG_RETURN_INTERVAL_P(after);
}
