/*
 * trend.h
 *		Series over days: what is counted, and how it is drawn.
 */
#ifndef CRM_TREND_H
#define CRM_TREND_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "pgtime.h"

typedef struct CrmTrendSeries
{
	const char *name;
	double *values;    /* of each bucket; NaN: not known */
	const char *total; /* of the period; of a stock what it was last */
} CrmTrendSeries;

typedef struct CrmTrend
{
	const char *measure;
	const char *what;   /* that is counted, in words */
	const char *bucket; /* day, week or month */
	bool is_stock;      /* what there is at the end of the bucket, not what came in it */
	TimestampTz start;  /* of the period */
	TimestampTz end;
	const char *zone_name; /* of the days */
	pg_tz *zone;
	int nbuckets;
	TimestampTz *since; /* where each bucket begins */
	bool *complete;     /* none of it lies outside the period or in the future */
	int nseries;
	CrmTrendSeries *series;
} CrmTrend;

/*
 * Reads a measure; bucket NULL: as long as the period asks for. Raises 22023 for
 * one that is not known. Between crm_connect() and crm_disconnect(); into this context.
 */
extern CrmTrend *crm_trend_read(const char *measure, TimestampTz start, TimestampTz end,
								const char *zone_name, pg_tz *zone, const char *bucket,
								MemoryContext context);

extern text *crm_trend_draw(const CrmTrend *trend);

#endif /* CRM_TREND_H */
