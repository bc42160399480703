/*
 * tick.c
 *		What time alone brings about: moves that are due. The contacts are locked
 *		before the first is moved, and nobody is waited for who is busy with one:
 *		so it can neither deadlock with facts nor keep them for longer than it works.
 *		Segments come last, as their locks do.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/install.h"
#include "base/table.h"
#include "journey/journey.h"
#include "pg_crm.h"
#include "profile/loyalty.h"
#include "profile/recompute.h"
#include "profile/segment.h"
#include "profile/tick.h"

/* contacts whose enrolments are moved together */
#define JOURNEY_BATCH 5000
/* and found together */
#define MOST_FOUND 100000

PG_FUNCTION_INFO_V1(crm_sql_tick);

int
crm_tick_contacts(const int64 *contacts, int ncontacts, TimestampTz as_of)
{
	int64 *locked;
	int nlocked = 0;

	if (ncontacts == 0)
		return 0;
	locked = crm_due_lock(contacts, ncontacts, &nlocked);
	if (nlocked > 0)
	{
		crm_tiers_due(locked, nlocked, as_of);
		crm_stages_due(locked, nlocked, as_of);
		crm_journeys_settle(locked, nlocked);
	}
	return nlocked;
}

int
crm_tick_enrolments(const int64 *contacts, int ncontacts, TimestampTz as_of)
{
	int nlocked;
	int64 *locked = crm_due_lock(contacts, ncontacts, &nlocked);
	int64 nmoved;

	(void) crm_journeys_move(locked, nlocked, as_of, 0, &nmoved);
	return (int) Min(nmoved, PG_INT32_MAX);
}

static int
make_entries(TimestampTz as_of, int limit, int64 *steps)
{
	CrmTimedEntries *entries = crm_timed_entries_find(as_of, Max(limit, 1));
	int64 *locked = NULL;
	int nlocked = 0;

	if (entries == NULL)
		return 0;
	if (limit > 0 && entries->ncontacts > 0)
		locked = crm_due_lock(entries->contacts, entries->ncontacts, &nlocked);
	*steps += crm_timed_entries_make(entries, locked, nlocked);
	return entries->nlooked;
}

int
crm_tick_entries(TimestampTz as_of, int limit)
{
	int64 steps = 0;

	return make_entries(as_of, limit, &steps);
}

TimestampTz
crm_tick_next(void)
{
	TimestampTz next = crm_due_next();

	return Min(next, crm_journeys_next());
}

/* What a tick may still do; 0: without end. */
typedef struct Steps
{
	int64 most;
	int64 entered;
} Steps;

static bool
may_go_on(const Steps *steps)
{
	CHECK_FOR_INTERRUPTS();
	return steps->most == 0 || steps->entered < steps->most;
}

/* Of those that were found, in the order of their ids, some thousand at a time; how many moved. */
static int64
move_found(int64 *contacts, int ncontacts, TimestampTz as_of, Steps *steps)
{
	int64 total = 0;

	for (int first = 0; first < ncontacts && may_go_on(steps); first += JOURNEY_BATCH)
	{
		int64 left = steps->most == 0 ? 0 : steps->most - steps->entered;
		int64 nmoved;
		int64 *locked;
		int nlocked;
		CrmActing acting;

		crm_connect(&acting); /* whose memory goes with it */
		locked = crm_due_lock(contacts + first, Min(JOURNEY_BATCH, ncontacts - first), &nlocked);
		steps->entered += crm_journeys_move(locked, nlocked, as_of, left, &nmoved);
		total += nmoved;
		crm_disconnect(&acting);
	}
	return total;
}

/*
 * Those due first of all, until nothing is due that nobody else is busy with. Many
 * are found at once, as each look passes over all that this transaction has moved.
 */
static void
move_due(TimestampTz as_of, Steps *steps)
{
	int limit = steps->most == 0 ? MOST_FOUND : JOURNEY_BATCH;

	while (may_go_on(steps))
	{
		int64 nmoved = 0;
		int ncontacts;
		int64 *contacts;
		CrmActing acting;

		crm_connect(&acting);
		contacts = crm_journeys_due(as_of, limit, &ncontacts);
		nmoved = move_found(contacts, ncontacts, as_of, steps);
		crm_disconnect(&acting);
		if (nmoved == 0 && ncontacts < limit)
			return;
		/* behind those whom others have there may be more */
		if (nmoved == 0)
			limit *= 2;
	}
}

/* Has somebody been looked at? */
static bool
enter_due(TimestampTz as_of, Steps *steps)
{
	bool looked = false;
	int nlooked = 1;

	while (nlooked > 0 && may_go_on(steps))
	{
		int64 limit = steps->most == 0 ? JOURNEY_BATCH : steps->most - steps->entered;
		CrmActing acting;

		crm_connect(&acting);
		nlooked = make_entries(as_of, (int) Min(limit, JOURNEY_BATCH), &steps->entered);
		crm_disconnect(&acting);
		looked |= nlooked > 0;
	}
	return looked;
}

static int64
move_journeys(TimestampTz as_of, int64 max_steps)
{
	Steps steps = { .most = max_steps };

	if (crm_journeys_clock_back(as_of))
		return 0;
	do
		move_due(as_of, &steps);
	while (enter_due(as_of, &steps));
	return steps.entered;
}

Datum
crm_sql_tick(PG_FUNCTION_ARGS)
{
	TimestampTz as_of = crm_as_of_argument(fcinfo, 0);
	CrmActing acting;
	int64 *contacts;
	int ncontacts;
	int64 steps = 0;

	if (!PG_ARGISNULL(1) && PG_GETARG_INT32(1) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_steps must not be below 0: %d", PG_GETARG_INT32(1)),
				 errhint("Leave it out to enter every step that is due.")));
	crm_require_installed();
	/* whoever changes definitions waits for this lock, and this for him */
	LockRelationOid(crm_table_oid("profile_counter"), RowExclusiveLock);
	crm_connect(&acting);
	contacts = crm_due_find(as_of, PG_INT64_MAX, &ncontacts);
	(void) crm_tick_contacts(contacts, ncontacts, as_of);
	(void) crm_segments_due(as_of, 0);
	if (PG_ARGISNULL(1) || PG_GETARG_INT32(1) > 0)
		steps = move_journeys(as_of, PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1));
	crm_disconnect(&acting);
	PG_RETURN_INT32((int32) Min(steps, PG_INT32_MAX));
}
