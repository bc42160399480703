/*
 * clock.c
 *		Now, as the extension sees it: the frozen instant of pg_crm.clock, else
 *		the start of the statement. The statement and not the transaction, so
 *		that the facts of one transaction come in the order of its statements.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "pg_crm.h"

char *crm_guc_clock = NULL;

static bool clock_is_frozen = false;
static bool clock_is_unread = false; /* in a parallel worker */
static TimestampTz clock_frozen_at;

PG_FUNCTION_INFO_V1(crm_sql_now);

bool
crm_clock_check(char **newval, void **extra, GucSource source)
{
	TimestampTz *at;
	volatile bool good = true;
	MemoryContext caller = CurrentMemoryContext;

	if (**newval == '\0')
		return true;

	/* settings are restored one by one: those that reading a time needs may not be there yet */
	if (InitializingParallelWorker)
		return true;

	at = crm_guc_malloc(sizeof(TimestampTz));
	if (at == NULL)
		return false;

	/* timestamptz_in touches no shared state, so catching its error is safe */
	PG_TRY();
	{
		*at = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(*newval),
													  ObjectIdGetDatum(InvalidOid),
													  Int32GetDatum(-1)));
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		FlushErrorState();
		good = false;
	}
	PG_END_TRY();

	if (!good || TIMESTAMP_NOT_FINITE(*at))
	{
		crm_guc_free(at);
		GUC_check_errdetail("The clock is a finite timestamp with time zone, or empty.");
		return false;
	}
	*extra = at;
	return true;
}

void
crm_clock_assign(const char *newval, void *extra)
{
	clock_is_frozen = extra != NULL;
	clock_is_unread = extra == NULL && newval != NULL && *newval != '\0';
	if (clock_is_frozen)
		clock_frozen_at = *(TimestampTz *) extra;
}

TimestampTz
crm_now(void)
{
	if (clock_is_unread)
	{
		clock_frozen_at = DatumGetTimestampTz(
			DirectFunctionCall3(timestamptz_in, CStringGetDatum(crm_guc_clock),
								ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
		clock_is_frozen = true;
		clock_is_unread = false;
	}
	return clock_is_frozen ? clock_frozen_at : GetCurrentStatementStartTimestamp();
}

void
crm_check_time(const char *what, TimestampTz at)
{
	if (TIMESTAMP_NOT_FINITE(at))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("%s must be finite, not %s", what,
						TIMESTAMP_IS_NOBEGIN(at) ? "-infinity" : "infinity"),
				 errhint("Give the time at which it happened, or NULL for now.")));
	if (at - crm_now() > USECS_PER_DAY)
		ereport(
			ERROR,
			(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
			 errmsg("%s %s lies more than a day after now", what, timestamptz_to_str(at)),
			 errhint(
				 "Facts are recorded when they have happened; check the clock or the time zone of the sender.")));
}

TimestampTz
crm_as_of_argument(FunctionCallInfo fcinfo, int argument)
{
	TimestampTz as_of;

	if (PG_ARGISNULL(argument))
		return crm_now();
	as_of = PG_GETARG_TIMESTAMPTZ(argument);
	if (TIMESTAMP_NOT_FINITE(as_of))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("as_of must be finite, not %s",
						TIMESTAMP_IS_NOBEGIN(as_of) ? "-infinity" : "infinity"),
				 errhint("Give the time for which to ask, or NULL for now.")));
	if (as_of < CRM_FIRST_ASKED || as_of > CRM_LAST_ASKED)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("as_of %s is not in the years 1 to 9999", timestamptz_to_str(as_of)),
				 errhint("Give the time for which to ask, or NULL for now.")));
	return as_of;
}

Datum
crm_sql_now(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(crm_now());
}
