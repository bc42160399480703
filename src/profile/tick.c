/*
 * tick.c
 *		What time alone brings about: moves that are due. The contacts are locked
 *		before the first is moved, and nobody is waited for who is busy with one:
 *		so it can neither deadlock with facts nor keep them for longer than it works.
 *		Segments come last, as their locks do.
 */
#include "postgres.h"

#include "fmgr.h"
#include "storage/lmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/install.h"
#include "base/table.h"
#include "pg_crm.h"
#include "profile/loyalty.h"
#include "profile/recompute.h"
#include "profile/segment.h"
#include "profile/tick.h"

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
	}
	return nlocked;
}

Datum
crm_sql_tick(PG_FUNCTION_ARGS)
{
	TimestampTz as_of = crm_as_of_argument(fcinfo, 0);
	CrmActing acting;
	int64 *contacts;
	int ncontacts;

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
	crm_disconnect(&acting);
	/* journey steps entered: there are none before there are journeys */
	PG_RETURN_INT32(0);
}
