/*
 * pg_crm.h
 *		Names shared by all rooms.
 */
#ifndef PG_CRM_H
#define PG_CRM_H

#include "postgres.h"

#include "fmgr.h"

#include "compat.h"

#define CRM_SCHEMA "crm"

/* limits of what may come from outside, in bytes */
#define CRM_MAX_KEY_BYTES      255
#define CRM_MAX_KIND_BYTES     63
#define CRM_MAX_DOCUMENT_BYTES (1024 * 1024)

#endif /* PG_CRM_H */
