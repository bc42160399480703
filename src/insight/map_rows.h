/*
 * map_rows.h
 *		What is asked of a map, and the rows that answer it.
 */
#ifndef CRM_MAP_ROWS_H
#define CRM_MAP_ROWS_H

#include "postgres.h"

#include "fmgr.h"

#include "insight/map.h"

#define CRM_MAP_PARAMETERS 9

typedef struct CrmMapQuestion
{
	const CrmMap *map;
	Datum values[CRM_MAP_PARAMETERS];
	char nulls[CRM_MAP_PARAMETERS + 1];
} CrmMapQuestion;

/*
 * The arguments of a function over a map: map, period_start, period_end, and at these
 * places a persona (-1: none) and the version. Into the current context.
 */
extern void crm_map_ask(CrmMapQuestion *question, FunctionCallInfo fcinfo, const char *function,
						int persona, int version);

/*
 * The rows of map_path() and map_touchpoint() as the current result. Between
 * crm_connect() and crm_disconnect().
 */
extern void crm_map_run_path(const CrmMapQuestion *question);
extern void crm_map_run_touchpoints(const CrmMapQuestion *question);

#endif /* CRM_MAP_ROWS_H */
