/*
 * weekly_hours.h
 *		The type crm.weekly_hours: the minutes of a week in which something is open.
 *
 * A value is the spans of the week, in order, apart from one another and in
 * minutes since Monday 00:00. What is open over the end of the week is two
 * spans. So equal timetables are equal bytes, however they were written.
 */
#ifndef CRM_WEEKLY_HOURS_H
#define CRM_WEEKLY_HOURS_H

#include "datatype/timestamp.h"
#include "pgtime.h"

#include "pg_crm.h"

#define CRM_MINUTES_OF_DAY  (24 * 60)
#define CRM_MINUTES_OF_WEEK (7 * CRM_MINUTES_OF_DAY)

typedef struct CrmSpan
{
	int16 from;
	int16 until; /* the first minute that is no longer in it */
} CrmSpan;

typedef struct CrmWeeklyHours
{
	int32 vl_len_; /* varlena header */
	CrmSpan spans[FLEXIBLE_ARRAY_MEMBER];
} CrmWeeklyHours;

/* every other minute open */
#define CRM_MAX_SPANS                 (CRM_MINUTES_OF_WEEK / 2)

#define CRM_WEEKLY_HOURS_SIZE(nspans) (offsetof(CrmWeeklyHours, spans) + (nspans) * sizeof(CrmSpan))
#define CRM_NSPANS(hours) \
	((int) ((VARSIZE(hours) - offsetof(CrmWeeklyHours, spans)) / sizeof(CrmSpan)))

#define PG_GETARG_WEEKLY_HOURS(n) ((CrmWeeklyHours *) PG_DETOAST_DATUM(PG_GETARG_DATUM(n)))

/* the input function of the type */
extern PGDLLEXPORT Datum crm_weekly_hours_in(PG_FUNCTION_ARGS);

/* weekly_hours_text.c: why a text is no timetable */
typedef struct CrmHoursFault
{
	int sqlstate;
	const char *message; /* has one %s, for the text */
	const char *hint;
	const char *at; /* where in the text, NULL for all of it */
} CrmHoursFault;

/* reads a text into one byte a minute of the week, not zero where it is open */
extern bool crm_hours_read(const char *text, uint8 *open, CrmHoursFault *fault);
extern char *crm_hours_write(const CrmSpan *spans, int nspans);

/*
 * weekly_hours_time.c: whether it is open at an instant, and until when then;
 * DT_NOEND where it never closes. The zone counts no leap seconds.
 */
extern bool crm_hours_open_until(const CrmWeeklyHours *hours, TimestampTz instant, pg_tz *zone,
								 TimestampTz *until);
/* The first moment from an instant on at which it is open; DT_NOEND where it never is. */
extern TimestampTz crm_hours_open_from(const CrmWeeklyHours *hours, TimestampTz instant,
									   pg_tz *zone);

#endif /* CRM_WEEKLY_HOURS_H */
