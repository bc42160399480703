/*
 * guc.h
 *		The settings of pg_crm.
 */
#ifndef CRM_GUC_H
#define CRM_GUC_H

#include "pgtime.h"

extern char *crm_guc_currency;     /* pg_crm.currency */
extern char *crm_guc_time_zone;    /* pg_crm.time_zone */
extern pg_tz *crm_guc_zone;        /* the same */
extern bool crm_guc_direct_access; /* pg_crm.direct_access */
extern int crm_guc_max_lateness;   /* pg_crm.max_lateness, seconds */
extern int crm_guc_unknown_after;  /* pg_crm.unknown_after, seconds */

extern bool crm_guc_worker;       /* pg_crm.worker */
extern int crm_guc_poll_interval; /* pg_crm.poll_interval, in seconds */
extern int crm_guc_max_databases; /* pg_crm.max_databases */

extern void crm_guc_init(void);

#endif /* CRM_GUC_H */
