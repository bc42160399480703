/*
 * guc.c
 *		The settings of pg_crm. What decides about stored results (currency,
 *		time zone, clock) is for superusers and for whom they GRANT SET: two
 *		sessions with different settings would derive different profiles from
 *		the same facts.
 */
#include "postgres.h"

#include <limits.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/guc.h"

char *crm_guc_currency = NULL;
char *crm_guc_time_zone = NULL;
pg_tz *crm_guc_zone = NULL;
bool crm_guc_direct_access = true;
int crm_guc_max_lateness = SECS_PER_DAY;
int crm_guc_unknown_after = SECS_PER_HOUR;
bool crm_guc_worker = true;
int crm_guc_poll_interval = 60;
int crm_guc_max_databases = 64;

PG_FUNCTION_INFO_V1(crm_sql_default_currency);

static bool
check_currency(char **newval, void **extra, GucSource source)
{
	if (strlen(*newval) != 3 || strspn(*newval, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != 3)
	{
		GUC_check_errdetail("A currency is an ISO 4217 code of three capital letters.");
		return false;
	}
	return true;
}

static bool
check_time_zone(char **newval, void **extra, GucSource source)
{
	pg_tz *zone = pg_tzset(*newval);

	if (zone == NULL)
		GUC_check_errdetail("Time zone \"%s\" is not known.", *newval);
	else if (!pg_tz_acceptable(zone))
		GUC_check_errdetail("Time zone \"%s\" counts leap seconds, which PostgreSQL does not.",
							*newval);
	return zone != NULL && pg_tz_acceptable(zone);
}

/* Found in a table by now: the check has put it there. */
static void
assign_time_zone(const char *newval, void *extra)
{
	crm_guc_zone = pg_tzset(newval);
}

void
crm_guc_init(void)
{
	DefineCustomStringVariable("pg_crm.clock",
							   "A fixed instant that replaces now in decisions and recorded times.",
							   "Empty means the time of the statement.", &crm_guc_clock, "",
							   PGC_SUSET, 0, crm_clock_check, crm_clock_assign, NULL);
	DefineCustomStringVariable("pg_crm.currency",
							   "Currency in which amounts are summed; the default of new orders.",
							   NULL, &crm_guc_currency, "CNY", PGC_SUSET, 0, check_currency, NULL,
							   NULL);
	DefineCustomBoolVariable(
		"pg_crm.direct_access", "Writes derived rows without the executor where that is safe.",
		"Off sends every batch down the general lane; both give the same rows.",
		&crm_guc_direct_access, true, PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"pg_crm.max_lateness",
		"A fact that is recorded later than this after it happened is history.",
		"It counts, but opens no window, enters no journey and queues no message.",
		&crm_guc_max_lateness, SECS_PER_DAY, 0, INT_MAX, PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);
	/* a setting of the start: where the module is not preloaded it means nothing */
	DefineCustomIntVariable("pg_crm.max_databases",
							"How many databases of the server can have a worker.", NULL,
							&crm_guc_max_databases, 64, 1, 10000,
							process_shared_preload_libraries_in_progress ? PGC_POSTMASTER
																		 : PGC_SIGHUP,
							0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_crm.poll_interval",
							"How often the worker looks for work that nobody told it of.", NULL,
							&crm_guc_poll_interval, 60, 1, 3600, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL,
							NULL);
	DefineCustomStringVariable("pg_crm.time_zone",
							   "Time zone of days and rules where no account names one.", NULL,
							   &crm_guc_time_zone, "Asia/Shanghai", PGC_SUSET, 0, check_time_zone,
							   assign_time_zone, NULL);

	DefineCustomIntVariable(
		"pg_crm.unknown_after",
		"How long a journey waits for a message of which nobody knows whether it arrived.",
		"After that it goes on as if the message had failed.", &crm_guc_unknown_after,
		SECS_PER_HOUR, 0, INT_MAX, PGC_SUSET, GUC_UNIT_S, NULL, NULL, NULL);

	/* of superusers, not of the server alone, so that ALTER DATABASE can set it */
	DefineCustomBoolVariable("pg_crm.worker", "Runs a worker in each database that has pg_crm.",
							 "Off for the server, no worker runs; off for a database, none there.",
							 &crm_guc_worker, true, PGC_SUSET, 0, NULL, NULL, NULL);
}

Datum
crm_sql_default_currency(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(crm_guc_currency));
}
