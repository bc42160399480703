/*
 * period.c
 *		Arguments that reports share: a period, the time zone of its days.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/guc.h"
#include "insight/period.h"
#include "journey/reading.h"

/* as far as a length of time goes */
#define MAX_YEARS 100
/* a longer period has more months than a picture has room for */
#define MOST_YEARS 200

void
crm_require_value(FunctionCallInfo fcinfo, int argument, const char *name, const char *function)
{
	if (PG_ARGISNULL(argument))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" of crm.%s() must not be NULL", name, function),
				 errhint("Give a value, or leave the argument out where it has a default.")));
}

int
crm_version_argument(FunctionCallInfo fcinfo, int argument, int current)
{
	int version = PG_ARGISNULL(argument) ? current : PG_GETARG_INT32(argument);

	/* versions count from 1, so that any other below is as unknown */
	return !PG_ARGISNULL(argument) && version == current ? 0 : version;
}

void
crm_check_period(TimestampTz start, TimestampTz end)
{
	char *first = pstrdup(timestamptz_to_str(start));

	if (TIMESTAMP_NOT_FINITE(start) || TIMESTAMP_NOT_FINITE(end))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("a period must be finite, not from %s to %s", first,
						timestamptz_to_str(end)),
				 errhint("Name the first moment and the moment after the last one.")));
	if (Min(start, end) < CRM_FIRST_ASKED || Max(start, end) > CRM_LAST_ASKED)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("the period from %s to %s is not in the years 1 to 9999", first,
						timestamptz_to_str(end)),
				 errhint("Name the first moment and the moment after the last one.")));
	if (start > end)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the period ends at %s, before it starts at %s", timestamptz_to_str(end),
						first),
				 errhint("Exchange period_start and period_end.")));
	pfree(first);
}

void
crm_check_drawable(TimestampTz start, TimestampTz end)
{
	char *first = pstrdup(timestamptz_to_str(start));

	if ((end - start) / USECS_PER_DAY > MOST_YEARS * DAYS_PER_YEAR)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the period from %s to %s is too long", first, timestamptz_to_str(end)),
				 errhint("Take a period of at most %d years.", MOST_YEARS)));
	pfree(first);
}

const char *
crm_time_zone_argument(FunctionCallInfo fcinfo, int argument, pg_tz **zone)
{
	const char *name;

	if (PG_ARGISNULL(argument))
	{
		*zone = crm_guc_zone;
		return crm_guc_time_zone;
	}
	name = text_to_cstring(PG_GETARG_TEXT_PP(argument));
	*zone = strlen(name) <= TZ_STRLEN_MAX ? pg_tzset(name) : NULL;
	if (*zone == NULL || !pg_tz_acceptable(*zone))
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("time zone \"%s\" is not known", crm_shown(name)),
			 errhint(
				 "Names of time zones are in pg_catalog.pg_timezone_names, such as Asia/Shanghai.")));
	return name;
}

static void
local_time(TimestampTz at, pg_tz *zone, struct pg_tm *tm)
{
	fsec_t fsec;
	int tz;

	if (timestamp2tm(at, &tz, tm, &fsec, NULL, zone) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
}

char *
crm_minute_text(TimestampTz at, pg_tz *zone)
{
	struct pg_tm tm;

	local_time(at, zone, &tm);
	return psprintf("%04d-%02d-%02d %02d:%02d", tm.tm_year, tm.tm_mon, tm.tm_mday, tm.tm_hour,
					tm.tm_min);
}

char *
crm_date_text(TimestampTz at, pg_tz *zone)
{
	struct pg_tm tm;

	local_time(at, zone, &tm);
	if (tm.tm_hour == 0 && tm.tm_min == 0 && tm.tm_sec == 0)
		return psprintf("%04d-%02d-%02d", tm.tm_year, tm.tm_mon, tm.tm_mday);
	return psprintf("%s%s", crm_minute_text(at, zone),
					tm.tm_sec == 0 ? "" : psprintf(":%02d", tm.tm_sec));
}

char *
crm_period_text(TimestampTz start, TimestampTz end, pg_tz *zone, const char *zone_name)
{
	return psprintf("from %s until before %s, %s", crm_date_text(start, zone),
					crm_date_text(end, zone), zone_name);
}

static char *
interval_text(const Interval *interval)
{
	return DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(interval)));
}

void
crm_check_longest(const char *what, const Interval *duration, int years)
{
	int64 days = (int64) duration->month * 31 + duration->day + duration->time / USECS_PER_DAY;

	if (days > (int64) years * MONTHS_PER_YEAR * 31)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s %s is longer than %d years", what, interval_text(duration), years),
				 errhint("Give a length of time, for example 7 days.")));
}

/* As SQL has it, which counts the days: CET is an abbreviation to it, without summer time. */
static Timestamp
sql_time(TimestampTz at)
{
	return DatumGetTimestamp(DirectFunctionCall2(timestamptz_zone,
												 CStringGetTextDatum(crm_guc_time_zone),
												 TimestampTzGetDatum(at)));
}

/* Where clocks are set back over midnight a day has two midnights; and none where they are set forward. */
static bool
is_first_of_day(TimestampTz at)
{
	Timestamp local = sql_time(at);
	Timestamp before = sql_time(at - 1);

	return local % USECS_PER_DAY == 0 && (before < local || before >= local + USECS_PER_DAY);
}

bool
crm_period_of_counted_days(TimestampTz start, TimestampTz end, pg_tz *zone)
{
	return zone == crm_guc_zone && is_first_of_day(start) && is_first_of_day(end);
}

void
crm_check_duration(const char *what, const Interval *duration)
{
	if (duration->month < 0 || duration->day < 0 || duration->time < 0 ||
		(duration->month == 0 && duration->day == 0 && duration->time == 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s %s is not above zero", what, interval_text(duration)),
				 errhint("Give a length of time, for example 7 days.")));
	crm_check_longest(what, duration, MAX_YEARS);
}
