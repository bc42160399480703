/*
 * days.c
 *		What reports that are plain SQL ask for: checks of their arguments, and when a day begins.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/guc.h"
#include "insight/journey_graph.h"
#include "insight/period.h"

/* the first day that a report takes, and the last that ends it */
#define FIRST_DAY (CRM_FIRST_ASKED / USECS_PER_DAY)
#define LAST_DAY  (CRM_LAST_ASKED / USECS_PER_DAY)

PG_FUNCTION_INFO_V1(crm_sql_check_days);
PG_FUNCTION_INFO_V1(crm_sql_check_journey);
PG_FUNCTION_INFO_V1(crm_sql_day_begins);

static char *
date_text(DateADT day)
{
	return DatumGetCString(DirectFunctionCall1(date_out, DateADTGetDatum(day)));
}

Datum
crm_sql_check_days(PG_FUNCTION_ARGS)
{
	DateADT start;
	DateADT end;

	/* the name of the report is not known here */
	for (int i = 0; i < 2; i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("%s of a report must not be NULL",
							i == 0 ? "period_start" : "period_end"),
					 errhint("Name the first day and the day after the last one.")));
	start = PG_GETARG_DATEADT(0);
	end = PG_GETARG_DATEADT(1);
	if (DATE_NOT_FINITE(start) || DATE_NOT_FINITE(end))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("a period must be finite, not from %s to %s", date_text(start),
						date_text(end)),
				 errhint("Name the first day and the day after the last one.")));
	if (Min(start, end) < FIRST_DAY || Max(start, end) > LAST_DAY)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("the period from %s to %s is not in the years 1 to 9999", date_text(start),
						date_text(end)),
				 errhint("Name the first day and the day after the last one.")));
	if (start > end)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the period ends at %s, before it starts at %s", date_text(end),
						date_text(start)),
				 errhint("Exchange period_start and period_end.")));
	PG_RETURN_BOOL(true);
}

Datum
crm_sql_check_journey(PG_FUNCTION_ARGS)
{
	CrmActing acting;

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(true);
	crm_connect(&acting);
	(void) crm_graph_read(text_to_cstring(PG_GETARG_TEXT_PP(0)), CRM_GRAPH_CURRENT, false,
						  CurrentMemoryContext);
	crm_disconnect(&acting);
	PG_RETURN_BOOL(true);
}

Datum
crm_sql_day_begins(PG_FUNCTION_ARGS)
{
	DateADT day = PG_GETARG_DATEADT(0);

	if (day < FIRST_DAY)
		PG_RETURN_TIMESTAMPTZ(DT_NOBEGIN);
	if (day > LAST_DAY)
		PG_RETURN_TIMESTAMPTZ(DT_NOEND);
	PG_RETURN_DATUM(DirectFunctionCall2(timestamp_zone, CStringGetTextDatum(crm_guc_time_zone),
										TimestampGetDatum((Timestamp) day * USECS_PER_DAY)));
}
