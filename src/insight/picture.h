/*
 * picture.h
 *		Writes standalone SVG: shapes, text and time axes.
 *
 * Coordinates are pixels from the top left. A class is one of those of the
 * style sheet in picture.c, which also holds the colours for dark screens.
 * What callers hand over as text is escaped here; it may be anything.
 */
#ifndef CRM_PICTURE_H
#define CRM_PICTURE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "lib/stringinfo.h"
#include "pgtime.h"

#define CRM_PICTURE_FONT_SIZE   13
#define CRM_PICTURE_TITLE_SCALE 1.35 /* a title is so much wider than text */
#define CRM_PICTURE_BOLD_SCALE  1.08 /* and a name */

/* The style sheet that each picture carries. */
extern const char crm_picture_style[];

typedef enum CrmAnchor
{
	CRM_ANCHOR_START,
	CRM_ANCHOR_MIDDLE,
	CRM_ANCHOR_END
} CrmAnchor;

typedef struct CrmPicture
{
	StringInfoData svg;
	int width;
	int height;
} CrmPicture;

/* title and description are what screen readers say */
extern void crm_picture_open(CrmPicture *picture, int width, int height, const char *title,
							 const char *description);
extern text *crm_picture_close(CrmPicture *picture);

extern void crm_picture_line(CrmPicture *picture, const char *class, double x1, double y1,
							 double x2, double y2);
/* tooltip may be NULL */
extern void crm_picture_circle(CrmPicture *picture, const char *class, double x, double y,
							   double radius, const char *tooltip);
/* shortened with an ellipsis to max_width; 0 = as long as it is */
extern void crm_picture_text(CrmPicture *picture, const char *class, CrmAnchor anchor, double x,
							 double y, double max_width, const char *string);

/* A name, shortened so that both fit max_width, and a value after it; either may be empty. */
extern void crm_picture_caption(CrmPicture *picture, CrmAnchor anchor, double x, double y,
								double max_width, const char *name, const char *value);

extern void crm_picture_box(CrmPicture *picture, const char *class, double x, double y,
							double width, double height, double radius);
/* data is that of an SVG path; width of the line, 0 = as the style says */
extern void crm_picture_path(CrmPicture *picture, const char *class, const char *data,
							 double width);
/* What is drawn up to the end has this class and this tooltip; either may be NULL. */
extern void crm_picture_group(CrmPicture *picture, const char *class, const char *tooltip);
extern void crm_picture_group_end(CrmPicture *picture);

extern void crm_picture_escape(StringInfo buf, const char *string);

/* Width of a text of CRM_PICTURE_FONT_SIZE, rather too large than too small. */
extern double crm_picture_text_width(const char *string);

/*
 * A span of time laid out from left to right.
 */
typedef struct CrmTimeAxis
{
	TimestampTz from;
	TimestampTz to; /* not before from */
	double left;
	double right;
	pg_tz *zone;
	bool whole_days; /* no mark but at the beginning of a day */
} CrmTimeAxis;

extern double crm_time_axis_x(const CrmTimeAxis *axis, TimestampTz at);

/* Lines from top to bottom at round moments, their labels below label_y (baseline). */
extern void crm_time_axis_draw(CrmPicture *picture, const CrmTimeAxis *axis, double top,
							   double bottom, const double *label_y, int nlabels);

/* A local time as text, as exact as the span of the axis asks for. */
extern char *crm_time_axis_date(const CrmTimeAxis *axis, TimestampTz at);
/* The same to the second. */
extern char *crm_time_axis_moment(const CrmTimeAxis *axis, TimestampTz at);

#endif /* CRM_PICTURE_H */
