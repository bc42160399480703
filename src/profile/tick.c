/*
 * tick.c
 *		What time alone brings about: moves that are due.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/install.h"
#include "pg_crm.h"
#include "profile/loyalty.h"
#include "profile/recompute.h"
#include "profile/segment.h"

PG_FUNCTION_INFO_V1(crm_sql_tick);

/* contacts of one batch */
#define BATCH 1000

Datum
crm_sql_tick(PG_FUNCTION_ARGS)
{
	TimestampTz as_of = crm_as_of_argument(fcinfo, 0);

	if (!PG_ARGISNULL(1) && PG_GETARG_INT32(1) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_steps must not be below 0: %d", PG_GETARG_INT32(1)),
				 errhint("Leave it out to enter every step that is due.")));
	crm_require_installed();
	/* one end of a tier may bring about the next */
	while (crm_tiers_due(as_of, BATCH) > 0)
		CHECK_FOR_INTERRUPTS();
	while (crm_stages_due(as_of, BATCH) > 0)
		CHECK_FOR_INTERRUPTS();
	crm_segments_due(as_of);
	/* journey steps entered: there are none before there are journeys */
	PG_RETURN_INT32(0);
}
