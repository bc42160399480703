/*
 * launcher.h
 *		The process that starts a worker in each database with the extension.
 */
#ifndef CRM_LAUNCHER_H
#define CRM_LAUNCHER_H

#include "postgres.h"

/* Called by _PG_init(): registers the launcher, where the module is preloaded. */
extern void crm_launcher_init(void);

extern PGDLLEXPORT void crm_launcher_main(Datum arg);

#endif /* CRM_LAUNCHER_H */
