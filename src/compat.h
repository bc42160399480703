/*
 * compat.h
 *		Everything that differs between PostgreSQL majors; no other file tests
 *		the version.
 */
#ifndef CRM_COMPAT_H
#define CRM_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "pg_crm needs PostgreSQL 15 or newer"
#endif

/* soft errors of input functions came with 16: before, they are hard */
#if PG_VERSION_NUM >= 160000
#include "nodes/miscnodes.h"
#define crm_ereturn(escontext, dummy_value, ...) \
	ereturn(escontext, dummy_value, __VA_ARGS__)
#else
#define crm_ereturn(escontext, dummy_value, ...) \
	do { \
		(void) (escontext); \
		ereport(ERROR, __VA_ARGS__); \
		return dummy_value; \
	} while (0)
#endif

#endif							/* CRM_COMPAT_H */
