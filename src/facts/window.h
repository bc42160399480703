/*
 * window.h
 *		The windows in which a scan counts once.
 */
#ifndef CRM_WINDOW_H
#define CRM_WINDOW_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "pgtime.h"

/* How the windows of a code lie, worked out once for many scans. */
typedef struct CrmScanWindows
{
	int64 time;         /* length in microseconds of elapsed time, or */
	int64 months;       /* in months, or */
	int64 length;       /* in microseconds of local time; none of them: for ever */
	TimestampTz origin; /* bound 0 */
	Timestamp begin;    /* the same in local time */
	pg_tz *zone;
} CrmScanWindows;

/*
 * Length NULL: for ever. From NULL or infinite: since 1970. Zone NULL: that of
 * pg_crm.time_zone. Raises an error for a length of 0 and less or of months and
 * days, and for a zone that is not known.
 */
extern void crm_windows_init(CrmScanWindows *windows, const Interval *length,
							 const TimestampTz *from, const char *zone);

/* -infinity where the window is for ever */
extern TimestampTz crm_window_start(const CrmScanWindows *windows, TimestampTz at);

#endif /* CRM_WINDOW_H */
