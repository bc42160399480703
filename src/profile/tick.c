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

int64
crm_tick_journeys(TimestampTz as_of, int64 max_steps, int limit, int64 *nmoved)
{
	int ncontacts;
	int nlocked;
	int64 *contacts = crm_journeys_due(as_of, limit, &ncontacts);
	int64 *locked;

	*nmoved = 0;
	if (ncontacts == 0)
		return 0;
	locked = crm_due_lock(contacts, ncontacts, &nlocked);
	return crm_journeys_move(locked, nlocked, as_of, max_steps, nmoved);
}

/* Until nothing is due that nobody else is busy with. */
static int64
move_journeys(TimestampTz as_of, int64 max_steps)
{
	int64 steps = 0;
	int64 nmoved;

	if (crm_journeys_clock_back(as_of))
		return 0;
	do
	{
		CHECK_FOR_INTERRUPTS();
		steps += crm_tick_journeys(as_of, max_steps == 0 ? 0 : max_steps - steps, JOURNEY_BATCH,
								   &nmoved);
	} while (nmoved > 0 && (max_steps == 0 || steps < max_steps));
	return steps;
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
