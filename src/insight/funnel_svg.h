/*
 * funnel_svg.h
 *		Funnels as pictures.
 */
#ifndef CRM_FUNNEL_SVG_H
#define CRM_FUNNEL_SVG_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "pgtime.h"

/*
 * The funnel of those who entered a journey in a period. Between crm_connect() and
 * crm_disconnect(); steps are kept in this context.
 */
extern text *crm_journey_funnel_picture(const char *journey, TimestampTz start, TimestampTz end,
										pg_tz *zone, const char *zone_name, MemoryContext context);

#endif /* CRM_FUNNEL_SVG_H */
