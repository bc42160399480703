/*
 * days.c
 *		What reports that are plain SQL ask for: a check of their period.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/date.h"

#include "base/clock.h"
#include "insight/period.h"

PG_FUNCTION_INFO_V1(crm_sql_check_days);

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

	crm_require_value(fcinfo, 0, "period_start", "check_days");
	crm_require_value(fcinfo, 1, "period_end", "check_days");
	start = PG_GETARG_DATEADT(0);
	end = PG_GETARG_DATEADT(1);
	if (DATE_NOT_FINITE(start) || DATE_NOT_FINITE(end))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("a period must be finite, not from %s to %s", date_text(start),
						date_text(end)),
				 errhint("Name the first day and the day after the last one.")));
	if (Min(start, end) < CRM_FIRST_ASKED / USECS_PER_DAY ||
		Max(start, end) > CRM_LAST_ASKED / USECS_PER_DAY)
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
