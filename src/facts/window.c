/*
 * window.c
 *		The windows in which a scan counts once. They tumble from a beginning,
 *		each lasting from one bound until just before the next, so that every
 *		instant is in exactly one of them.
 *
 *		A window of hours or less is a length of time, counted in seconds. One of
 *		days, weeks or months has its bounds at the same local time, so the day
 *		on which clocks change is a window of 23 or 25 hours. A bound that falls
 *		into the hour that is left out comes an hour later; one in the hour that
 *		comes twice is in the second of them (as timezone() reads such a time).
 *		Bounds of months are counted from the beginning, not one from the other:
 *		from January 31st they are February 28th, March 31st, April 30th.
 */
#include "postgres.h"

#include "common/int.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "facts/window.h"

PG_FUNCTION_INFO_V1(crm_sql_scan_window_start);

#define START_OF_1970 ((int64) (UNIX_EPOCH_JDATE - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY)

static bool
to_local(TimestampTz at, pg_tz *zone, Timestamp *local)
{
	struct pg_tm tm;
	fsec_t fraction;
	int offset;

	return timestamp2tm(at, &offset, &tm, &fraction, NULL, zone) == 0 &&
		tm2timestamp(&tm, fraction, NULL, local) == 0;
}

static bool
to_instant(Timestamp local, pg_tz *zone, TimestampTz *at)
{
	struct pg_tm tm;
	fsec_t fraction;
	int offset;

	if (timestamp2tm(local, NULL, &tm, &fraction, NULL, NULL) != 0)
		return false;
	offset = DetermineTimeZoneOffset(&tm, zone);
	return tm2timestamp(&tm, fraction, &offset, at) == 0;
}

static int64
floor_division(int64 value, int64 by)
{
	return value / by - (value % by < 0);
}

/* The same day and time so many months later, or the last day of a month that is shorter. */
static bool
add_months(Timestamp local, int64 months, Timestamp *result)
{
	struct pg_tm tm;
	fsec_t fraction;
	int64 month;

	if (timestamp2tm(local, NULL, &tm, &fraction, NULL, NULL) != 0)
		return false;
	month = (int64) tm.tm_year * MONTHS_PER_YEAR + tm.tm_mon - 1 + months;
	if (month < PG_INT32_MIN || month > PG_INT32_MAX)
		return false;
	tm.tm_year = floor_division(month, MONTHS_PER_YEAR);
	tm.tm_mon = month - (int64) tm.tm_year * MONTHS_PER_YEAR + 1;
	tm.tm_mday = Min(tm.tm_mday, day_tab[isleap(tm.tm_year)][tm.tm_mon - 1]);
	return tm2timestamp(&tm, fraction, NULL, result) == 0;
}

/* A bound; infinite where it is beyond what a timestamp can hold. */
static TimestampTz
bound(const CrmScanWindows *windows, int64 n)
{
	Timestamp local;
	int64 distance;
	TimestampTz at;
	bool representable;

	if (windows->months > 0)
		representable = !pg_mul_s64_overflow(n, windows->months, &distance) &&
			add_months(windows->begin, distance, &local);
	else
		representable = !pg_mul_s64_overflow(n, windows->length, &distance) &&
			!pg_add_s64_overflow(windows->begin, distance, &local) && IS_VALID_TIMESTAMP(local);
	if (!representable || !to_instant(local, windows->zone, &at))
		return n < 0 ? DT_NOBEGIN : DT_NOEND;
	return at;
}

static int64
month_of(Timestamp local)
{
	struct pg_tm tm;
	fsec_t fraction;

	if (timestamp2tm(local, NULL, &tm, &fraction, NULL, NULL) != 0)
		return 0;
	return (int64) tm.tm_year * MONTHS_PER_YEAR + tm.tm_mon;
}

/* The last bound that does not come after the instant. */
static TimestampTz
last_bound(const CrmScanWindows *windows, TimestampTz at)
{
	Timestamp local;
	int64 distance;
	int64 n;

	if (!to_local(at, windows->zone, &local) ||
		pg_sub_s64_overflow(local, windows->begin, &distance))
		return DT_NOBEGIN;
	if (windows->months > 0)
		n = floor_division(month_of(local) - month_of(windows->begin), windows->months);
	else
		n = floor_division(distance, windows->length);
	/* local time is off by the hours by which clocks were set in between */
	while (bound(windows, n) > at)
		n--;
	while (bound(windows, n + 1) <= at)
		n++;
	return bound(windows, n);
}

static pg_tz *
zone_named(const char *name)
{
	pg_tz *zone = pg_tzset(name);

	if (zone == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" is not known", name),
				 errhint("Name one of pg_timezone_names, for example Asia/Shanghai.")));
	return zone;
}

/* The last of the instants begin + n * length that does not come after at. */
static TimestampTz
last_multiple(TimestampTz at, TimestampTz begin, int64 length)
{
	int64 distance;
	int64 start;

	if (pg_sub_s64_overflow(at, begin, &distance) ||
		pg_add_s64_overflow(begin, floor_division(distance, length) * length, &start) ||
		!IS_VALID_TIMESTAMP(start))
		return DT_NOBEGIN;
	return start;
}

static void
window_refused(const Interval *length, int code, const char *why, const char *hint)
{
	ereport(ERROR,
			(errcode(code),
			 errmsg("window %s %s",
					DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(length))),
					why),
			 errhint("%s", hint)));
}

void
crm_windows_init(CrmScanWindows *windows, const Interval *length, const TimestampTz *from,
				 const char *zone)
{
	memset(windows, 0, sizeof(CrmScanWindows));
	if (length == NULL)
		return;
	if (length->month < 0 || length->day < 0 || length->time < 0 ||
		(length->month == 0 && length->day == 0 && length->time == 0) ||
		(length->month > 0 && (length->day > 0 || length->time > 0)))
		window_refused(length, ERRCODE_INVALID_PARAMETER_VALUE,
					   "is not above 0, or mixes months with days",
					   "Give for example 10 minutes, 1 day, 1 week or 3 months.");
	windows->zone = zone_named(zone == NULL ? crm_guc_time_zone : zone);
	if (from != NULL && TIMESTAMP_NOT_FINITE(*from))
		from = NULL;
	if (from != NULL)
		windows->origin = *from;
	else if (!to_instant(START_OF_1970, windows->zone, &windows->origin))
		windows->origin = START_OF_1970;

	if (length->month == 0 && length->day == 0)
	{
		windows->time = length->time;
		return;
	}
	windows->months = length->month;
	if (pg_mul_s64_overflow(length->day, USECS_PER_DAY, &windows->length) ||
		pg_add_s64_overflow(windows->length, length->time, &windows->length))
		window_refused(length, ERRCODE_DATETIME_VALUE_OUT_OF_RANGE, "is too long",
					   "Leave the window out where it is for ever.");
	windows->begin = START_OF_1970;
	/* a beginning that no local time can say: one window */
	if (from != NULL && !to_local(*from, windows->zone, &windows->begin))
		windows->months = windows->length = 0;
}

TimestampTz
crm_window_start(const CrmScanWindows *windows, TimestampTz at)
{
	if (TIMESTAMP_NOT_FINITE(at))
		return DT_NOBEGIN;
	if (windows->time > 0)
		return last_multiple(at, windows->origin, windows->time);
	if (windows->months > 0 || windows->length > 0)
		return last_bound(windows, at);
	return DT_NOBEGIN;
}

Datum
crm_sql_scan_window_start(PG_FUNCTION_ARGS)
{
	CrmScanWindows windows;
	TimestampTz from;
	char *zone;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	from = PG_ARGISNULL(2) ? DT_NOBEGIN : PG_GETARG_TIMESTAMPTZ(2);
	zone = PG_ARGISNULL(3) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(3));
	crm_windows_init(&windows, PG_ARGISNULL(1) ? NULL : PG_GETARG_INTERVAL_P(1), &from, zone);
	PG_RETURN_TIMESTAMPTZ(crm_window_start(&windows, PG_GETARG_TIMESTAMPTZ(0)));
}
