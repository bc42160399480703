/*
 * map_svg.h
 *		Maps as pictures.
 */
#ifndef CRM_MAP_SVG_H
#define CRM_MAP_SVG_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "pgtime.h"

/*
 * The newest version of a map with what a period made of it. Between crm_connect()
 * and crm_disconnect(); what is read is kept in this context.
 */
extern text *crm_map_picture(const char *name, TimestampTz start, TimestampTz end, pg_tz *zone,
							 const char *zone_name, MemoryContext context);

#endif /* CRM_MAP_SVG_H */
