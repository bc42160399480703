/*
 * permission.c
 *		May a contact be written to? The order of the questions is here, and
 *		nowhere else.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/guc.h"
#include "base/reader.h"
#include "outbox/permission.h"
#include "types/weekly_hours.h"

static CrmPlan find_quiet = {
	"SELECT q.class, q.hours FROM crm.quiet_hours q WHERE q.channel IS NULL OR q.channel = $1",
	1,
	{ TEXTOID }
};

typedef struct QuietRule
{
	char *class; /* NULL: any */
	CrmWeeklyHours *hours;
} QuietRule;

void
crm_permission_read(uint64 row, int first, CrmPermission *permission)
{
	bool isnull;

	permission->recipient = crm_result_text(row, first);
	permission->suppressed = crm_result_true(row, first + 1);
	(void) crm_result(row, first + 2, &isnull);
	permission->asked = !isnull;
	permission->granted = crm_result_true(row, first + 2);
	permission->follows = crm_result_true(row, first + 3);
	permission->zone = crm_result_text(row, first + 4);
	permission->cap = crm_result_text(row, first + 5);
}

/* Consent has the last word; without any, a follow is proof enough of interest in what is sold. */
static bool
may_be_told(const CrmPermission *permission, const char *channel, const char *class)
{
	if (permission->asked)
		return permission->granted;
	if (strcmp(class, "marketing") != 0 || strcmp(channel, "webhook") == 0)
		return true;
	if (strcmp(channel, "sms") == 0 || strcmp(channel, "email") == 0)
		return false;
	return permission->follows;
}

/* False where the table has nothing at all, which is cheaper to see than to ask. */
static bool
has_quiet_hours(void)
{
	static const char *const columns[] = { "name" };
	CrmReader *reader = crm_guc_direct_access ? crm_reader_open("quiet_hours", columns, 1, 1)
											  : NULL;
	bool has = reader == NULL || !crm_reader_empty(reader);

	if (reader != NULL)
		crm_reader_close(reader);
	return has;
}

List *
crm_quiet_hours(const char *channel)
{
	Datum value = CStringGetTextDatum(channel);
	List *rules = NIL;
	uint64 n = has_quiet_hours() ? crm_read(&find_quiet, &value, NULL) : 0;

	for (uint64 i = 0; i < n; i++)
	{
		QuietRule *rule = palloc_object(QuietRule);
		bool isnull;

		rule->class = crm_result_text(i, 1);
		rule->hours = (CrmWeeklyHours *) PG_DETOAST_DATUM_COPY(crm_result(i, 2, &isnull));
		rules = lappend(rules, rule);
	}
	return rules;
}

/* Fields of contacts are the brand's own; a zone that is none is that of the account. */
static pg_tz *
zone_of(const char *contact_zone, const char *account_zone)
{
	pg_tz *zone = NULL;

	if (contact_zone != NULL && strlen(contact_zone) <= TZ_STRLEN_MAX)
		zone = pg_tzset(contact_zone);
	if (zone == NULL || !pg_tz_acceptable(zone))
		zone = pg_tzset(account_zone);
	return zone == NULL || !pg_tz_acceptable(zone) ? crm_guc_zone : zone;
}

/* The end of the quiet hours that it is in; DT_NOBEGIN outside them. */
static TimestampTz
quiet_end(List *rules, const char *class, const char *contact_zone, const char *account_zone,
		  TimestampTz at)
{
	TimestampTz latest = DT_NOBEGIN;
	pg_tz *zone = rules == NIL ? NULL : zone_of(contact_zone, account_zone);
	ListCell *cell;

	foreach(cell, rules)
	{
		QuietRule *rule = lfirst(cell);
		TimestampTz until;

		if ((rule->class == NULL || strcmp(rule->class, class) == 0) &&
			crm_hours_open_until(rule->hours, at, zone, &until))
			latest = Max(latest, until);
	}
	return latest;
}

char *
crm_permission_refusal(const CrmPermission *permission, const CrmChannel *channel,
					   const char *class, bool window_lacking, List *quiet_hours,
					   const char *account_zone, TimestampTz at, TimestampTz *quiet_until)
{
	if (channel->recipient_kind != NULL && permission->recipient == NULL)
		return pstrdup("no_recipient");
	if (permission->suppressed)
		return pstrdup("suppressed");
	if (!may_be_told(permission, channel->name, class))
		return pstrdup("no_consent");
	*quiet_until = quiet_end(quiet_hours, class, permission->zone, account_zone, at);
	if (*quiet_until != DT_NOBEGIN)
		return pstrdup("quiet");
	if (window_lacking)
		return pstrdup("window_closed");
	if (permission->cap != NULL)
		return psprintf("cap:%s", permission->cap);
	return NULL;
}
