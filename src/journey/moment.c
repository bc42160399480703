/*
 * moment.c
 *		When entries by date and by schedule are due.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "journey/engine.h"

/* moments of a schedule that are looked at in search of one at which hours are open: a week of minutes is less */
#define MOST_LOOKED 12000
/* zones are so far apart, in days, and a moment may be so much later than its day */
#define DAYS_ABOUT 3

/* ---- by date */

/* How many days an interval is at least, and at most. */
static void
days_of(const Interval *interval, int64 *least, int64 *most)
{
	int64 day = interval->day;

	*least = day + interval->month * INT64CONST(28) + interval->time / USECS_PER_DAY - 1;
	*most = day + interval->month * INT64CONST(31) + interval->time / USECS_PER_DAY + 1;
	if (interval->month < 0)
	{
		*least += interval->month * INT64CONST(3);
		*most -= interval->month * INT64CONST(3);
	}
}

static int
julian_day(TimestampTz at)
{
	int64 days = at / USECS_PER_DAY - (at % USECS_PER_DAY < 0);

	return (int) (days + POSTGRES_EPOCH_JDATE);
}

CrmMoments
crm_moments_within(const CrmTimedEntry *timed, TimestampTz from, TimestampTz until)
{
	CrmMoments moments = { .from = from, .until = until };
	int64 least = 0;
	int64 most = 0;

	if (timed->offset != NULL)
		days_of(timed->offset, &least, &most);
	moments.first_day = Max(0, julian_day(from) - most - DAYS_ABOUT);
	moments.last_day = Max(0, julian_day(until) - least + DAYS_ABOUT);
	return moments;
}

static Timestamp
local_day(int year, int month, int day)
{
	return (Timestamp) (date2j(year, month, day) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY;
}

/* At its time of the day, which may be the next one's where the offset has led beyond. */
static TimestampTz
moment_of(const CrmTimedEntry *timed, Timestamp local, const pg_tz *zone)
{
	if (timed->offset != NULL)
		local = DatumGetTimestamp(DirectFunctionCall2(timestamp_pl_interval,
													  TimestampGetDatum(local),
													  IntervalPGetDatum(timed->offset)));
	if (timed->minute_of_day >= 0)
	{
		int64 of_day = timed->minute_of_day * USECS_PER_MINUTE;
		int64 beyond = (local - of_day) % USECS_PER_DAY;

		if (beyond != 0)
			local += (beyond < 0 ? 0 : USECS_PER_DAY) - beyond;
	}
	return crm_local_instant(local, zone);
}

static void
add_moment(const CrmMoments *moments, TimestampTz moment, TimestampTz **found, int *n)
{
	if (moment <= moments->from || moment > moments->until)
		return;
	if (*found == NULL)
		*found = palloc_array(TimestampTz, 1);
	else
		*found = repalloc(*found, sizeof(TimestampTz) * (*n + 1));
	(*found)[(*n)++] = moment;
}

/* The day of a year, false where the year has none. */
static bool
day_of_year(const CrmTimedEntry *timed, int year, int *month, int *day)
{
	if (*month != 2 || *day != 29 || isleap(year))
		return true;
	if (timed->leap_day == 1)
		*month = 3;
	*day = timed->leap_day;
	return timed->leap_day != 0;
}

int
crm_moments_of(const CrmMoments *moments, const CrmTimedEntry *timed, Datum date, const pg_tz *zone,
			   TimestampTz **found)
{
	struct pg_tm base = { 0 };
	int64 of_day = 0;
	int n = 0;
	int first;
	int last;
	int month;
	int day;

	*found = NULL;
	if (timed->property_type == TIMESTAMPTZOID)
	{
		TimestampTz at = DatumGetTimestampTz(date);
		fsec_t fraction;
		int offset;

		if (TIMESTAMP_NOT_FINITE(at) ||
			timestamp2tm(at, &offset, &base, &fraction, NULL, unconstify(pg_tz *, zone)) != 0)
			return 0;
		if (timed->minute_of_day < 0)
		{
			if (!timed->yearly)
			{
				if (timed->offset != NULL)
					at = crm_add_interval(at, timed->offset, zone);
				add_moment(moments, at, found, &n);
				return n;
			}
			of_day = ((base.tm_hour * MINS_PER_HOUR + base.tm_min) * INT64CONST(60) + base.tm_sec) *
					USECS_PER_SEC +
				fraction;
		}
	}
	else
	{
		DateADT at = DatumGetDateADT(date);

		if (DATE_NOT_FINITE(at))
			return 0;
		j2date(at + POSTGRES_EPOCH_JDATE, &base.tm_year, &base.tm_mon, &base.tm_mday);
	}
	if (!timed->yearly)
	{
		Timestamp local = local_day(base.tm_year, base.tm_mon, base.tm_mday);

		add_moment(moments, moment_of(timed, local + of_day, zone), found, &n);
		return n;
	}
	j2date(moments->first_day, &first, &month, &day);
	j2date(moments->last_day, &last, &month, &day);
	for (int year = Max(first, base.tm_year); year <= last; year++)
	{
		month = base.tm_mon;
		day = base.tm_mday;
		if (day_of_year(timed, year, &month, &day))
			add_moment(moments, moment_of(timed, local_day(year, month, day) + of_day, zone), found,
					   &n);
	}
	return n;
}

/* ---- by schedule */

/* From the start each time, as the 31st stays the last of the month then. */
static TimestampTz
scheduled(const CrmTimedEntry *timed, const pg_tz *zone, int64 place)
{
	Interval span = { .time = timed->every->time * place,
					  .day = (int32) (timed->every->day * place),
					  .month = (int32) (timed->every->month * place) };

	return crm_add_interval(timed->start, &span, zone);
}

/* The place of the last moment until then, -1 before the first. */
static int64
place_until(const CrmTimedEntry *timed, const pg_tz *zone, TimestampTz until)
{
	int64 shortest = timed->every->time +
		(timed->every->day + timed->every->month * INT64CONST(28)) * USECS_PER_DAY;
	int64 low = -1;
	int64 high;

	if (until < timed->start)
		return -1;
	/* clocks that are put back make up to a day, all together */
	high = (until - timed->start) / shortest + USECS_PER_DAY / shortest + 2;
	while (high - low > 1)
	{
		int64 middle = low + (high - low) / 2;

		if (scheduled(timed, zone, middle) <= until)
			low = middle;
		else
			high = middle;
	}
	return low;
}

static bool
is_open(const CrmTimedEntry *timed, const pg_tz *zone, TimestampTz at)
{
	return timed->hours == NULL ||
		crm_hours_open_from(timed->hours, at, unconstify(pg_tz *, zone)) == at;
}

TimestampTz
crm_schedule_last(const CrmTimedEntry *timed, const pg_tz *zone, TimestampTz after,
				  TimestampTz until)
{
	int64 place = place_until(timed, zone, until);

	for (int i = 0; i < MOST_LOOKED && place - i >= 0; i++)
	{
		TimestampTz moment = scheduled(timed, zone, place - i);

		if (moment <= after)
			break;
		if (is_open(timed, zone, moment))
			return moment;
	}
	return DT_NOBEGIN;
}

TimestampTz
crm_schedule_next(const CrmTimedEntry *timed, const pg_tz *zone, TimestampTz after)
{
	int64 place = place_until(timed, zone, after);
	TimestampTz moment = after;

	/* where none is found it is looked for again from the last one on */
	for (int i = 1; i <= MOST_LOOKED; i++)
	{
		moment = scheduled(timed, zone, place + i);
		if (is_open(timed, zone, moment))
			break;
	}
	return moment;
}
