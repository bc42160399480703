/*
 * weekly_hours_time.c
 *		Whether a timetable is open, and when that changes.
 *
 * A timetable speaks of what a clock on the wall shows. At an instant that is
 * the local time which PostgreSQL gives for it, so is_open() needs no rule for
 * clocks that are put forward or back, and next_opening() and next_closing()
 * are the instants at which is_open() changes: hours that the clock skips are
 * not there, hours that it shows twice are open, or closed, twice.
 */
#include "postgres.h"

#include "datatype/timestamp.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "types/weekly_hours.h"

#define USECS_PER_WEEK (7 * USECS_PER_DAY)

/* a Monday, 00:00, as a timestamp: 3 January 2000 */
#define SOME_MONDAY (2 * USECS_PER_DAY)

/* seconds from the epoch of pg_time_t to that of timestamps */
#define EPOCH_SECONDS ((pg_time_t) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)

PG_FUNCTION_INFO_V1(crm_sql_is_open_local);
PG_FUNCTION_INFO_V1(crm_sql_is_open);
PG_FUNCTION_INFO_V1(crm_sql_next_opening);
PG_FUNCTION_INFO_V1(crm_sql_next_closing);

static void
check_finite(Timestamp time)
{
	if (TIMESTAMP_NOT_FINITE(time))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("time must be finite, not %s",
						TIMESTAMP_IS_NOBEGIN(time) ? "-infinity" : "infinity"),
				 errhint("Give the time at which the timetable is to be looked up.")));
}

static pg_tz *
find_zone(text *name)
{
	char *zone_name = text_to_cstring(name);
	pg_tz *zone = strlen(zone_name) <= TZ_STRLEN_MAX ? pg_tzset(zone_name) : NULL;

	/* as SET TimeZone does, which takes none that counts leap seconds */
	if (zone == NULL || !pg_tz_acceptable(zone))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%.*s\" is not known", TZ_STRLEN_MAX, zone_name),
				 errhint("Give a name that the view pg_timezone_names has, like Asia/Shanghai.")));
	return zone;
}

/* microseconds since the beginning of the week */
static int64
time_of_week(Timestamp local)
{
	int64 time = (local - SOME_MONDAY) % USECS_PER_WEEK;

	return time < 0 ? time + USECS_PER_WEEK : time;
}

static bool
is_open(const CrmWeeklyHours *hours, Timestamp local)
{
	int minute = time_of_week(local) / USECS_PER_MINUTE;
	int low = 0;
	int high = CRM_NSPANS(hours);

	/* the first span that ends later */
	while (low < high)
	{
		int middle = (low + high) / 2;

		if (hours->spans[middle].until <= minute)
			low = middle + 1;
		else
			high = middle;
	}
	return low < CRM_NSPANS(hours) && hours->spans[low].from <= minute;
}

/* the whole second in which an instant lies */
static pg_time_t
second_of(TimestampTz instant)
{
	int64 second = instant / USECS_PER_SEC;

	if (second * USECS_PER_SEC > instant)
		second--;
	return second + EPOCH_SECONDS;
}

/* what the clock of the zone is ahead of UTC, in microseconds */
static int64
offset_at(TimestampTz instant, pg_tz *zone)
{
	pg_time_t second = second_of(instant);
	struct pg_tm *tm = pg_localtime(&second, zone);

	if (tm == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
	return (int64) tm->tm_gmtoff * USECS_PER_SEC;
}

/* When the zone next puts its clock forward or back; false if never, or after the end of time */
static bool
next_jump(TimestampTz instant, pg_tz *zone, TimestampTz *jump)
{
	pg_time_t second = second_of(instant);
	pg_time_t boundary;
	long int offsets[2];
	int is_dst[2];

	if (pg_next_dst_boundary(&second, &offsets[0], &is_dst[0], &boundary, &offsets[1], &is_dst[1],
							 zone) != 1 ||
		boundary >= second_of(END_TIMESTAMP))
		return false;
	*jump = (boundary - EPOCH_SECONDS) * USECS_PER_SEC;
	return true;
}

/*
 * How long after a local time the timetable next opens (or closes), on a clock
 * that nobody touches; 0 if it never does.
 */
static int64
until_change(const CrmWeeklyHours *hours, Timestamp local, bool opening)
{
	int64 now = time_of_week(local);
	int nspans = CRM_NSPANS(hours);
	bool over_sunday = nspans > 0 && hours->spans[0].from == 0 &&
		hours->spans[nspans - 1].until == CRM_MINUTES_OF_WEEK;
	int64 until = 0;

	for (int i = 0; i < nspans; i++)
	{
		int minute = opening ? hours->spans[i].from : hours->spans[i].until;
		int64 distance = minute * USECS_PER_MINUTE - now;

		/* the end of the week is no end where Monday goes on */
		if (over_sunday && minute == (opening ? 0 : CRM_MINUTES_OF_WEEK))
			continue;
		if (distance <= 0)
			distance += USECS_PER_WEEK;
		if (until == 0 || distance < until)
			until = distance;
	}
	return until;
}

/* Find the first instant, not before the given one, at which it opens (or closes) */
static bool
find_change(const CrmWeeklyHours *hours, TimestampTz instant, pg_tz *zone, bool opening,
			TimestampTz *change)
{
	bool before = is_open(hours, instant - 1 + offset_at(instant - 1, zone));

	for (;;)
	{
		int64 offset = offset_at(instant, zone);
		TimestampTz jump;
		bool has_jump;
		int64 distance;

		CHECK_FOR_INTERRUPTS();
		if (before != opening && is_open(hours, instant + offset) == opening)
		{
			*change = instant;
			break;
		}
		distance = until_change(hours, instant + offset, opening);
		if (distance == 0)
			return false;
		has_jump = next_jump(instant, zone, &jump);
		if (!has_jump || instant + distance < jump)
		{
			*change = instant + distance;
			break;
		}

		/* what the clock shows after the jump may be open where it was not before */
		before = is_open(hours, jump - 1 + offset);
		instant = jump;
	}
	if (!IS_VALID_TIMESTAMP(*change))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
	return true;
}

bool
crm_hours_open_until(const CrmWeeklyHours *hours, TimestampTz instant, pg_tz *zone,
					 TimestampTz *until)
{
	if (!is_open(hours, instant + offset_at(instant, zone)))
		return false;
	if (!find_change(hours, instant, zone, false, until))
		*until = DT_NOEND;
	return true;
}

TimestampTz
crm_hours_open_from(const CrmWeeklyHours *hours, TimestampTz instant, pg_tz *zone)
{
	TimestampTz opening;

	if (is_open(hours, instant + offset_at(instant, zone)))
		return instant;
	return find_change(hours, instant, zone, true, &opening) ? opening : DT_NOEND;
}

static Datum
next_change(FunctionCallInfo fcinfo, bool opening)
{
	CrmWeeklyHours *hours = PG_GETARG_WEEKLY_HOURS(0);
	TimestampTz instant = PG_GETARG_TIMESTAMPTZ(1);
	pg_tz *zone = find_zone(PG_GETARG_TEXT_PP(2));
	TimestampTz change;

	check_finite(instant);
	if (!find_change(hours, instant, zone, opening, &change))
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(change);
}

/* is_open(hours, local_time) says whether it is open when a clock shows that time */
Datum
crm_sql_is_open_local(PG_FUNCTION_ARGS)
{
	CrmWeeklyHours *hours = PG_GETARG_WEEKLY_HOURS(0);
	Timestamp local = PG_GETARG_TIMESTAMP(1);

	check_finite(local);
	PG_RETURN_BOOL(is_open(hours, local));
}

/* is_open(hours, instant, time_zone) says whether it is open at an instant */
Datum
crm_sql_is_open(PG_FUNCTION_ARGS)
{
	CrmWeeklyHours *hours = PG_GETARG_WEEKLY_HOURS(0);
	TimestampTz instant = PG_GETARG_TIMESTAMPTZ(1);
	pg_tz *zone = find_zone(PG_GETARG_TEXT_PP(2));

	check_finite(instant);
	PG_RETURN_BOOL(is_open(hours, instant + offset_at(instant, zone)));
}

Datum
crm_sql_next_opening(PG_FUNCTION_ARGS)
{
	return next_change(fcinfo, true);
}

Datum
crm_sql_next_closing(PG_FUNCTION_ARGS)
{
	return next_change(fcinfo, false);
}
