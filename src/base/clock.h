/*
 * clock.h
 *		Now, as the extension sees it.
 */
#ifndef CRM_CLOCK_H
#define CRM_CLOCK_H

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "utils/guc.h"

extern char *crm_guc_clock; /* pg_crm.clock */

extern TimestampTz crm_now(void);

/* Raises 22008 unless the time is finite and at most a day after now. */
extern void crm_check_time(const char *what, TimestampTz at);

extern bool crm_clock_check(char **newval, void **extra, GucSource source);
extern void crm_clock_assign(const char *newval, void *extra);

/* Years of four digits; what is asked of lies in them, so that intervals may be added to it. */
#define CRM_FIRST_ASKED (INT64CONST(-63082281600) * USECS_PER_SEC)
#define CRM_LAST_ASKED  (INT64CONST(252455616000) * USECS_PER_SEC)

/* An argument as_of: finite, of a year from 1 to 9999; NULL means now. */
extern TimestampTz crm_as_of_argument(FunctionCallInfo fcinfo, int argument);

#endif /* CRM_CLOCK_H */
