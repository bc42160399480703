/*
 * funnel_walk.c
 *		The level of a funnel, exactly and in one pass over rows sorted by time.
 *
 * For each level reached so far the walk keeps the choice of rows whose window
 * ends last: what can follow another choice of that level can follow this one.
 * Rows of one time come in any order and may match several steps each, so they
 * are a matching of steps and rows; all other cases need none.
 */
#include "postgres.h"

#include "common/int.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "port/pg_bitutils.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "insight/funnel.h"

/* a window that is open: of a choice of rows, one for each step up to some level */
typedef struct Window
{
	TimestampTz from;
	TimestampTz until; /* the last moment in it */
} Window;

/*
 * Rows of one time, each for one step at most. Of a step no more rows are
 * looked at than there are steps: where more match, one of these is free.
 */
typedef struct Matching
{
	int nrows;
	uint64 matched;                   /* steps that have a row */
	int row_of[CRM_FUNNEL_MAX_STEPS]; /* of those */
	int nfree[CRM_FUNNEL_MAX_STEPS];  /* rows that match it and are no step's */
	uint64 rows[CRM_FUNNEL_MAX_STEPS * CRM_FUNNEL_MAX_STEPS]; /* steps that a row matches */
	bool taken[CRM_FUNNEL_MAX_STEPS * CRM_FUNNEL_MAX_STEPS];
} Matching;

typedef struct Walk
{
	const CrmFunnelRow *rows;
	int nrows;
	int nsteps;
	const Interval *within;
	int level;
	TimestampTz first; /* where the choice that came to this level first begins */
	Window windows[CRM_FUNNEL_MAX_STEPS + 1]; /* by level; those above level are not set */
	Matching *matching;
} Walk;

#define BIT(step)       (UINT64CONST(1) << (step))

#define ST_SORT         crm_funnel_sort
#define ST_ELEMENT_TYPE CrmFunnelRow
#define ST_SCOPE
#define ST_COMPARE(a, b)                                          \
	((a)->at != (b)->at            ? ((a)->at < (b)->at ? -1 : 1) \
		 : (a)->steps < (b)->steps ? -1                           \
								   : (a)->steps > (b)->steps)
#define ST_DEFINE
#include "lib/sort_template.h"

/* ---------- the end of a window ---------- */

/* Seconds since 1970, towards the past. */
static pg_time_t
seconds_of(TimestampTz at)
{
	return timestamptz_to_time_t(at % USECS_PER_SEC < 0 ? at - USECS_PER_SEC : at);
}

/*
 * Does the zone of the session keep its offset from a time until a later one?
 * Then days are 24 hours between them, and need no calendar.
 */
static bool
offset_stays(TimestampTz from, TimestampTz until)
{
	static pg_tz *zone = NULL;
	static pg_time_t known_from;
	static pg_time_t known_until;
	pg_time_t start = seconds_of(from);

	if (zone != session_timezone || start < known_from || start >= known_until)
	{
		pg_time_t boundary;
		long before;
		long after;
		int before_is_dst;
		int after_is_dst;
		int found = pg_next_dst_boundary(&start, &before, &before_is_dst, &boundary, &after,
										 &after_is_dst, session_timezone);

		if (found < 0)
			return false;
		if (found == 0)
			boundary = seconds_of(END_TIMESTAMP - 1);
		/* the same stretch, but known from an earlier time */
		zone = session_timezone;
		known_from = start;
		known_until = boundary;
	}
	/* a day of distance, as local times close to a change may be two instants or none */
	return seconds_of(until) < known_until - SECS_PER_DAY;
}

static TimestampTz
window_end(const Interval *within, TimestampTz at)
{
	int64 days = (int64) within->day;
	int64 length;
	TimestampTz until;

	if (TIMESTAMP_NOT_FINITE(at))
		return at;
	if (CRM_INTERVAL_IS_ENDLESS(within))
		return DT_NOEND;
	if (within->month == 0)
	{
		if (pg_mul_s64_overflow(days, USECS_PER_DAY, &length) ||
			pg_add_s64_overflow(length, within->time, &length) ||
			pg_add_s64_overflow(at, length, &until) || until >= END_TIMESTAMP)
			return DT_NOEND;
		if (days == 0 || (days > 0 && within->time >= 0 && offset_stays(at, until)))
			return until;
	}
	else
	{
		/* beyond the calendar even if all months were short */
		days += (int64) within->month * 28;
		if (at / USECS_PER_DAY + days + within->time / USECS_PER_DAY >
			END_TIMESTAMP / USECS_PER_DAY)
			return DT_NOEND;
	}
	return DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(at),
												   IntervalPGetDatum(within)));
}

/* ---------- rows of one time that match several steps ---------- */

static void
matching_begin(Walk *walk, const CrmFunnelRow *rows, int n)
{
	Matching *matching = walk->matching;

	if (matching == NULL)
		matching = walk->matching = palloc(sizeof(Matching));
	matching->nrows = 0;
	matching->matched = 0;
	memset(matching->nfree, 0, sizeof(matching->nfree));
	for (int i = 0; i < n; i++)
	{
		bool wanted = false;

		for (uint64 left = rows[i].steps; left != 0 && !wanted; left &= left - 1)
			wanted = matching->nfree[pg_rightmost_one_pos64(left)] < walk->nsteps;
		if (!wanted)
			continue;
		for (uint64 left = rows[i].steps; left != 0; left &= left - 1)
			matching->nfree[pg_rightmost_one_pos64(left)]++;
		matching->taken[matching->nrows] = false;
		matching->rows[matching->nrows++] = rows[i].steps;
	}
}

static void
matching_set(Matching *matching, int row, bool taken)
{
	matching->taken[row] = taken;
	for (uint64 left = matching->rows[row]; left != 0; left &= left - 1)
		matching->nfree[pg_rightmost_one_pos64(left)] += taken ? -1 : 1;
}

/* A row for one step more, others being moved to other rows where that is needed. */
static bool
matching_add(Matching *matching, int step)
{
	int queue[CRM_FUNNEL_MAX_STEPS];
	int parent[CRM_FUNNEL_MAX_STEPS]; /* the step that would take the row of this one */
	uint64 seen = BIT(step);
	int head = 0;
	int tail = 1;

	queue[0] = step;
	parent[step] = -1;
	while (head < tail)
	{
		int wanting = queue[head++];

		if (matching->nfree[wanting] > 0)
		{
			int row = 0;

			while (matching->taken[row] || (matching->rows[row] & BIT(wanting)) == 0)
				row++;
			matching_set(matching, row, true);
			while (parent[wanting] >= 0)
			{
				int given_up = matching->row_of[wanting];

				matching->row_of[wanting] = row;
				row = given_up;
				wanting = parent[wanting];
			}
			matching->row_of[step] = row;
			matching->matched |= BIT(step);
			return true;
		}
		for (uint64 left = matching->matched & ~seen; left != 0; left &= left - 1)
		{
			int other = pg_rightmost_one_pos64(left);

			if ((matching->rows[matching->row_of[other]] & BIT(wanting)) == 0)
				continue;
			seen |= BIT(other);
			parent[other] = wanting;
			queue[tail++] = other;
		}
	}
	return false;
}

static void
matching_remove(Matching *matching, int step)
{
	if ((matching->matched & BIT(step)) == 0)
		return;
	matching->matched &= ~BIT(step);
	matching_set(matching, matching->row_of[step], false);
}

/* ---------- one time after the other ---------- */

typedef enum Tie
{
	ONE_ROW,  /* no other has its time */
	ONE_STEP, /* each row matches one step */
	SEVERAL,  /* of several rows some match several */
} Tie;

/* The rows of the time at which the row begins, and all steps that they match. */
static int
read_time(const Walk *walk, int begin, uint64 *steps, Tie *tie)
{
	const CrmFunnelRow *rows = walk->rows;
	bool several = false;
	int end = begin;

	*steps = 0;
	do
	{
		uint64 own = rows[end].steps;

		*steps |= own;
		several = several || (own & (own - 1)) != 0;
	} while (++end < walk->nrows && rows[end].at == rows[begin].at);
	*tie = end == begin + 1 ? ONE_ROW : several ? SEVERAL : ONE_STEP;
	return end;
}

static void
reach(Walk *walk, int level, const Window *window)
{
	Window *known = &walk->windows[level];

	if (level > walk->level)
		walk->level = level;
	else if (window->until < known->until ||
			 (window->until == known->until && window->from <= known->from))
		return;
	*known = *window;
}

/* From each level at which a window is open, as far as the rows of this time bring it. */
static void
reach_tied(Walk *walk, int begin, int end, uint64 steps)
{
	TimestampTz at = walk->rows[begin].at;
	Window windows[CRM_FUNNEL_MAX_STEPS + 1];
	int level = walk->level;
	int high = 0; /* steps after low up to this one have rows */

	matching_begin(walk, walk->rows + begin, end - begin);
	memcpy(windows, walk->windows, sizeof(Window) * (level + 1));
	for (int low = 0; low <= level && low < walk->nsteps; low++)
	{
		if (low > 0)
			matching_remove(walk->matching, low - 1);
		high = Max(high, low);
		if (windows[low].until < at)
			continue;
		while (high < walk->nsteps && (steps & BIT(high)) != 0 &&
			   matching_add(walk->matching, high))
			high++;
		for (int i = low + 1; i <= high; i++)
			reach(walk, i, &windows[low]);
	}
}

static void
walk_time(Walk *walk, int begin, int end, uint64 steps, Tie tie)
{
	TimestampTz at = walk->rows[begin].at;
	Window *windows = walk->windows;
	int level = walk->level;

	/* at level 0 a window is open if it may begin here */
	windows[0].from = at;
	windows[0].until = (steps & 1) != 0 ? window_end(walk->within, at) : at;

	switch (tie)
	{
		case ONE_ROW:
			/* from the last step, as a row serves only one */
			for (uint64 left = steps; left != 0;)
			{
				int step = pg_leftmost_one_pos64(left);

				left &= ~BIT(step);
				if (step <= level && windows[step].until >= at)
					reach(walk, step + 1, &windows[step]);
			}
			break;
		case ONE_STEP:
			for (uint64 left = steps; left != 0; left &= left - 1)
			{
				int step = pg_rightmost_one_pos64(left);

				if (step <= walk->level && windows[step].until >= at)
					reach(walk, step + 1, &windows[step]);
			}
			break;
		case SEVERAL:
			reach_tied(walk, begin, end, steps);
			break;
	}
	if (walk->level > level)
		walk->first = windows[walk->level].from;
}

/* How far a choice at this level comes by the rows of a time. */
static int
follow_time(Walk *walk, int begin, int end, uint64 steps, Tie tie, int level)
{
	switch (tie)
	{
		case ONE_ROW:
			return (steps & BIT(level)) != 0 ? level + 1 : level;
		case ONE_STEP:
			while (level < walk->nsteps && (steps & BIT(level)) != 0)
				level++;
			return level;
		case SEVERAL:
			matching_begin(walk, walk->rows + begin, end - begin);
			while (level < walk->nsteps && (steps & BIT(level)) != 0 &&
				   matching_add(walk->matching, level))
				level++;
			return level;
	}
	return level;
}

/* The times of the choice that begins at walk->first and takes each step as early as it can. */
static void
follow(Walk *walk, TimestampTz *times)
{
	int level = 0;
	int end;

	for (int begin = 0; level < walk->level; begin = end)
	{
		uint64 steps;
		Tie tie;
		int next;

		end = read_time(walk, begin, &steps, &tie);
		if (walk->rows[begin].at < walk->first)
			continue;
		next = Min(follow_time(walk, begin, end, steps, tie, level), walk->level);
		while (level < next)
			times[level++] = walk->rows[begin].at;
	}
}

int
crm_funnel_walk(const CrmFunnelRow *rows, int nrows, int nsteps, const Interval *within,
				TimestampTz *times)
{
	Walk walk;
	int end;

	walk.rows = rows;
	walk.nrows = nrows;
	walk.nsteps = nsteps;
	walk.within = within;
	walk.level = 0;
	walk.matching = NULL;
	for (int begin = 0; begin < nrows && walk.level < nsteps; begin = end)
	{
		uint64 steps;
		Tie tie;

		CHECK_FOR_INTERRUPTS();
		end = read_time(&walk, begin, &steps, &tie);
		walk_time(&walk, begin, end, steps, tie);
	}
	if (times != NULL)
		follow(&walk, times);
	if (walk.matching != NULL)
		pfree(walk.matching);
	return walk.level;
}
