/*
 * period.c
 *		Arguments that reports share: a period, the time zone of its days.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "insight/period.h"

void
crm_require_value(FunctionCallInfo fcinfo, int argument, const char *name, const char *function)
{
	if (PG_ARGISNULL(argument))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" of crm.%s() must not be NULL", name, function),
				 errhint("Give a value, or leave the argument out where it has a default.")));
}

void
crm_check_period(TimestampTz start, TimestampTz end)
{
	char *first = pstrdup(timestamptz_to_str(start));

	if (TIMESTAMP_NOT_FINITE(start) || TIMESTAMP_NOT_FINITE(end))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("a period must be finite, not from %s to %s", first,
						timestamptz_to_str(end)),
				 errhint("Name the first moment and the moment after the last one.")));
	if (start > end)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the period ends at %s, before it starts at %s", timestamptz_to_str(end),
						first),
				 errhint("Exchange period_start and period_end.")));
	pfree(first);
}

const char *
crm_time_zone_argument(FunctionCallInfo fcinfo, int argument, pg_tz **zone)
{
	const char *name;

	if (PG_ARGISNULL(argument))
	{
		*zone = crm_guc_zone;
		return crm_guc_time_zone;
	}
	name = text_to_cstring(PG_GETARG_TEXT_PP(argument));
	*zone = strlen(name) <= TZ_STRLEN_MAX ? pg_tzset(name) : NULL;
	if (*zone == NULL || !pg_tz_acceptable(*zone))
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("time zone \"%s\" is not known", name),
			 errhint(
				 "Names of time zones are in pg_catalog.pg_timezone_names, such as Asia/Shanghai.")));
	return name;
}
