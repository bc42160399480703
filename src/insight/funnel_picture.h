/*
 * funnel_picture.h
 *		Draws a funnel, whatever its rows come from.
 */
#ifndef CRM_FUNNEL_PICTURE_H
#define CRM_FUNNEL_PICTURE_H

#include "postgres.h"

typedef struct CrmFunnelStep
{
	const char *group; /* steps of a group stand together, under this heading; NULL: none */
	const char *name;
	int64 reached; /* converted, still_open and dropped together */
	int64 converted;
	int64 still_open;
	int64 dropped;
	bool is_last;          /* nothing comes after it: no conversion is spoken of */
	double median_seconds; /* NaN: not known */
} CrmFunnelStep;

typedef struct CrmFunnelPicture
{
	const char *title;
	const char *subtitle;
	const char *converted; /* what the three parts are called */
	const char *still_open;
	const char *dropped;
	bool of_first; /* whoever reached a step is among those of the first: shares of it are shown */
	int nsteps;
	const CrmFunnelStep *steps;
} CrmFunnelPicture;

extern text *crm_funnel_draw(const CrmFunnelPicture *funnel);

#endif /* CRM_FUNNEL_PICTURE_H */
