/*
 * lifecycle.h
 *		Commands that make, end or disturb workers.
 */
#ifndef CRM_LIFECYCLE_H
#define CRM_LIFECYCLE_H

#include "postgres.h"

/* Called by _PG_init(). */
extern void crm_lifecycle_init(void);

#endif /* CRM_LIFECYCLE_H */
