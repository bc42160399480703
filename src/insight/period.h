/*
 * period.h
 *		Arguments that reports share: a period, the time zone of its days.
 */
#ifndef CRM_PERIOD_H
#define CRM_PERIOD_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "pgtime.h"

/* Raises 22004 where the argument is NULL. */
extern void crm_require_value(FunctionCallInfo fcinfo, int argument, const char *name,
							  const char *function);

/* A version; where the argument is NULL the value that stands for the current one, which is none. */
extern int crm_version_argument(FunctionCallInfo fcinfo, int argument, int current);

/* Raises 22008 unless it is finite and of the years 1 to 9999, 22023 where it ends before it starts. */
extern void crm_check_period(TimestampTz start, TimestampTz end);

/* Raises 22023 where it is longer than 200 years. */
extern void crm_check_drawable(TimestampTz start, TimestampTz end);

/* Name of the time zone; where the argument is NULL that of pg_crm.time_zone. Raises 22023. */
extern const char *crm_time_zone_argument(FunctionCallInfo fcinfo, int argument, pg_tz **zone);

/* Whether it is of whole days of pg_crm.time_zone, which are what roll-ups count by. */
extern bool crm_period_of_counted_days(TimestampTz start, TimestampTz end, pg_tz *zone);

/* from 2026-05-01 until before 2026-06-01, Asia/Shanghai; with the time of day where it is not midnight */
extern char *crm_period_text(TimestampTz start, TimestampTz end, pg_tz *zone,
							 const char *zone_name);

/* 2026-05-01, with the time of day where it is not midnight */
extern char *crm_date_text(TimestampTz at, pg_tz *zone);

/* the same always with the time of day, to the minute */
extern char *crm_minute_text(TimestampTz at, pg_tz *zone);

/* Raises 22023 where it is longer than so many years. What: "within". */
extern void crm_check_longest(const char *what, const Interval *duration, int years);

/* The same unless it is above zero, and at most 100 years. */
extern void crm_check_duration(const char *what, const Interval *duration);

#endif /* CRM_PERIOD_H */
