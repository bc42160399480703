/*
 * local.c
 *		Moments that are told by a clock on the wall.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "journey/engine.h"

/* days looked ahead for a moment within hours: two weeks have every minute of the week */
#define MOST_DAYS 15

static CrmPlan find_zones = {
	"SELECT c.contact_id, c.time_zone FROM crm.contact c WHERE c.contact_id = ANY ($1)"
	" AND c.time_zone IS NOT NULL ORDER BY c.contact_id",
	1,
	{ INT8ARRAYOID },
	.by_index = true
};

/* Calendar arithmetic is that of a zone; the result is within the range of times. */
TimestampTz
crm_add_interval(TimestampTz at, const Interval *interval, const pg_tz *zone)
{
	pg_tz *outside = session_timezone;
	TimestampTz sum = 0;

	if (TIMESTAMP_NOT_FINITE(at))
		return at;
	session_timezone = unconstify(pg_tz *, zone);
	PG_TRY();
	{
		sum = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													  TimestampTzGetDatum(at),
													  IntervalPGetDatum(interval)));
	}
	PG_FINALLY();
	{
		session_timezone = outside;
	}
	PG_END_TRY();
	return sum;
}

/*
 * The instant of a local time. One that the clock skips is as much later as the
 * clock is put forward; of one that it shows twice, the second, as in SQL.
 */
static TimestampTz
instant_of(struct pg_tm *local, fsec_t fraction, const pg_tz *zone)
{
	TimestampTz instant;
	int offset = DetermineTimeZoneOffset(local, unconstify(pg_tz *, zone));

	if (tm2timestamp(local, fraction, &offset, &instant) != 0)
		return DT_NOEND;
	return instant;
}

TimestampTz
crm_local_instant(Timestamp local, const pg_tz *zone)
{
	struct pg_tm shown;
	fsec_t fraction;

	if (TIMESTAMP_NOT_FINITE(local) ||
		timestamp2tm(local, NULL, &shown, &fraction, NULL, NULL) != 0)
		return DT_NOEND;
	return instant_of(&shown, fraction, zone);
}

/*
 * The first moment from a time on at which the clock shows this minute of the
 * day, and the hours are open; without a minute, the first at which they are open.
 */
TimestampTz
crm_next_local(TimestampTz from, int minute_of_day, const CrmWeeklyHours *hours, const pg_tz *zone)
{
	struct pg_tm local;
	fsec_t fraction;
	int offset;
	int day;

	if (TIMESTAMP_NOT_FINITE(from))
		return from;
	if (minute_of_day < 0)
		return hours == NULL ? from : crm_hours_open_from(hours, from, unconstify(pg_tz *, zone));
	if (timestamp2tm(from, &offset, &local, &fraction, NULL, unconstify(pg_tz *, zone)) != 0)
		return DT_NOEND;
	day = date2j(local.tm_year, local.tm_mon, local.tm_mday);
	for (int i = 0; i < MOST_DAYS; i++)
	{
		struct pg_tm moment = { .tm_hour = minute_of_day / MINS_PER_HOUR,
								.tm_min = minute_of_day % MINS_PER_HOUR,
								.tm_isdst = -1 };
		TimestampTz instant;

		j2date(day + i, &moment.tm_year, &moment.tm_mon, &moment.tm_mday);
		instant = instant_of(&moment, 0, zone);
		if (instant >= from &&
			(hours == NULL ||
			 crm_hours_open_from(hours, instant, unconstify(pg_tz *, zone)) == instant))
			return instant;
	}
	return DT_NOEND;
}

typedef struct Home
{
	int64 contact_id;
	const pg_tz *zone;
} Home;

const pg_tz **
crm_zones_of(const CrmMoves *moves)
{
	const pg_tz **zones = palloc_array(const pg_tz *, moves->n);
	int64 *contacts = palloc_array(int64, moves->n);
	Home *homes;
	uint64 found;
	Datum array;

	for (int i = 0; i < moves->n; i++)
		contacts[i] = moves->runs[i]->contact_id;
	array = crm_int64_array(contacts, moves->n);
	found = crm_run(&find_zones, &array, NULL);
	homes = palloc_array(Home, Max(found, 1));
	for (uint64 row = 0; row < found; row++)
	{
		homes[row].contact_id = crm_result_int64(row, 1);
		homes[row].zone = pg_tzset(crm_result_text(row, 2));
	}
	SPI_freetuptable(SPI_tuptable);
	for (int i = 0; i < moves->n; i++)
	{
		const Home *home = bsearch(&contacts[i], homes, found, sizeof(Home), crm_compare_int64);

		zones[i] = home != NULL && home->zone != NULL ? home->zone : moves->journey->zone;
	}
	return zones;
}
