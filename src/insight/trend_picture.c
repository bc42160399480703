/*
 * trend_picture.c
 *		Series over days as a picture: up to eight as curves over one scale, more
 *		as a row each with a scale of its own.
 *
 * What is not known is a gap: days before the first fact and those to come. A
 * bucket that is not complete is drawn dashed.
 */
#include "postgres.h"

#include <math.h>

#include "miscadmin.h"

#include "insight/figures.h"
#include "insight/period.h"
#include "insight/picture.h"
#include "insight/trend.h"

#define WIDTH        960
#define MARGIN       24
#define GAP          14.0
#define HEAD_HEIGHT  78
#define PLOT_HEIGHT  280.0
#define AXIS_HEIGHT  34.0
#define LABEL_WIDTH  196.0 /* of names beside the curves */
#define LABEL_HEIGHT 34.0
#define DATE_HALF    44.0 /* half a date of the axis, which stands below the first value */
#define MARKS        5
#define MOST_CURVES  8   /* more are told apart by nobody */
#define MOST_BANDS   400 /* more tooltips make a picture slow */
#define FEW_BUCKETS  45  /* up to here each value has a dot */

#define ROW_HEIGHT   46.0
#define ROW_CURVE    30.0
#define NAME_WIDTH   210.0
#define TOTAL_WIDTH  110.0
#define PEAK_WIDTH   90.0

/* Where a series is drawn, and between which values. */
typedef struct Plot
{
	CrmTimeAxis axis;
	double top;
	double bottom;
	double most;
} Plot;

static double
x_of(const Plot *plot, const CrmTrend *trend, int bucket)
{
	if (trend->nbuckets == 1)
		return (plot->axis.left + plot->axis.right) / 2;
	return crm_time_axis_x(&plot->axis, trend->since[bucket]);
}

static double
y_of(const Plot *plot, double value)
{
	return plot->bottom - (plot->bottom - plot->top) * Max(value, 0) / plot->most;
}

static char *
value_text(double value)
{
	/* more digits than a double holds say nothing */
	if (fabs(value) >= 1e15)
		return psprintf("%.4g", value);
	return crm_grouped_decimal(psprintf(value == rint(value) ? "%.0f" : "%.2f", value));
}

static double
peak_of(const CrmTrend *trend, const CrmTrendSeries *series)
{
	double peak = 0;

	for (int i = 0; i < trend->nbuckets; i++)
		if (!isnan(series->values[i]))
			peak = Max(peak, series->values[i]);
	return peak;
}

static char *
day_text(const CrmTrend *trend, int bucket)
{
	return crm_date_text(trend->since[bucket], trend->zone);
}

/* ---------- one series ---------- */

/* From bucket first to last, all known: a line, or a dot where it is alone; the area below. */
static void
draw_piece(CrmPicture *picture, const Plot *plot, const CrmTrend *trend, const double *values,
		   int first, int last, bool area)
{
	StringInfoData path;
	int done = last; /* the last one is dashed where it goes on */

	initStringInfo(&path);
	while (done > first && !trend->complete[done])
		done--;
	if (area && last > first)
	{
		appendStringInfo(&path, "M%.1f %.1f", x_of(plot, trend, first), plot->bottom);
		for (int i = first; i <= last; i++)
			appendStringInfo(&path, "L%.1f %.1f", x_of(plot, trend, i), y_of(plot, values[i]));
		appendStringInfo(&path, "L%.1f %.1fZ", x_of(plot, trend, last), plot->bottom);
		crm_picture_path(picture, "area", path.data, 0);
	}
	for (int dashed = 0; dashed < 2; dashed++)
	{
		int from = dashed ? done : first;
		int to = dashed ? last : done;

		if (from == to)
			continue;
		resetStringInfo(&path);
		for (int i = from; i <= to; i++)
			appendStringInfo(&path, "%s%.1f %.1f", i == from ? "M" : "L", x_of(plot, trend, i),
							 y_of(plot, values[i]));
		crm_picture_path(picture, dashed ? "unfinished" : "curve", path.data, 0);
	}
	if (first == last || trend->nbuckets <= FEW_BUCKETS)
		for (int i = first; i <= last; i++)
			crm_picture_circle(picture, "dot", x_of(plot, trend, i), y_of(plot, values[i]),
							   first == last ? 3.5 : 2.5, NULL);
	pfree(path.data);
}

static void
draw_series(CrmPicture *picture, const Plot *plot, const CrmTrend *trend, const double *values,
			bool area)
{
	int first = -1;

	for (int i = 0; i <= trend->nbuckets; i++)
	{
		bool known = i < trend->nbuckets && !isnan(values[i]);

		if (known && first < 0)
			first = i;
		if (!known && first >= 0)
		{
			draw_piece(picture, plot, trend, values, first, i - 1, area);
			first = -1;
		}
	}
}

/* Where nothing is known of any series. */
static void
draw_unknown(CrmPicture *picture, const Plot *plot, const CrmTrend *trend)
{
	double half = trend->nbuckets < 2
		? 0
		: (plot->axis.right - plot->axis.left) / (trend->nbuckets - 1) / 2;
	int first = -1;

	for (int i = 0; i <= trend->nbuckets; i++)
	{
		bool unknown = i < trend->nbuckets && isnan(trend->series[0].values[i]);

		if (unknown && first < 0)
			first = i;
		if (!unknown && first >= 0)
		{
			double left = Max(x_of(plot, trend, first) - half, plot->axis.left);
			double right = Min(x_of(plot, trend, i - 1) + half, plot->axis.right);

			crm_picture_group(picture, NULL, "nothing is known of these days");
			crm_picture_box(picture, "unknown", left, plot->top, Max(right - left, 1),
							plot->bottom - plot->top, 0);
			crm_picture_group_end(picture);
			first = -1;
		}
	}
}

/* ---------- axes ---------- */

static void
draw_days(CrmPicture *picture, const Plot *plot, const CrmTrend *trend, double top, double bottom,
		  const double *label_y, int nlabels)
{
	if (trend->nbuckets > 1)
		crm_time_axis_draw(picture, &plot->axis, top, bottom, label_y, nlabels);
	else
		for (int i = 0; i < nlabels && trend->nbuckets == 1; i++)
			crm_picture_text(picture, "muted", CRM_ANCHOR_MIDDLE, x_of(plot, trend, 0), label_y[i],
							 0, day_text(trend, 0));
}

static void
set_axis(Plot *plot, const CrmTrend *trend, double left, double right)
{
	memset(plot, 0, sizeof(*plot));
	plot->axis.zone = trend->zone;
	plot->axis.whole_days = true;
	plot->axis.from = trend->nbuckets == 0 ? trend->start : trend->since[0];
	plot->axis.to = trend->nbuckets == 0 ? trend->end : trend->since[trend->nbuckets - 1];
	plot->axis.left = left;
	plot->axis.right = right;
}

/* What all series were on a day is the tooltip of its band. */
static void
draw_bands(CrmPicture *picture, const Plot *plot, const CrmTrend *trend, int nseries)
{
	StringInfoData words;

	if (trend->nbuckets > MOST_BANDS)
		return;
	initStringInfo(&words);
	for (int i = 0; i < trend->nbuckets; i++)
	{
		double left = i == 0 ? plot->axis.left
							 : (x_of(plot, trend, i - 1) + x_of(plot, trend, i)) / 2;
		double right = i == trend->nbuckets - 1
			? plot->axis.right
			: (x_of(plot, trend, i) + x_of(plot, trend, i + 1)) / 2;

		resetStringInfo(&words);
		appendStringInfo(&words, "%s%s%s", strcmp(trend->bucket, "day") == 0 ? "" : trend->bucket,
						 strcmp(trend->bucket, "day") == 0 ? "" : " of ", day_text(trend, i));
		if (!trend->complete[i])
			appendStringInfoString(&words, " (not complete)");
		for (int k = 0; k < nseries; k++)
			appendStringInfo(&words, "%s %s: %s", k == 0 ? " -" : ",", trend->series[k].name,
							 isnan(trend->series[k].values[i])
								 ? "not known"
								 : value_text(trend->series[k].values[i]));
		crm_picture_group(picture, NULL, words.data);
		crm_picture_box(picture, "band", left, plot->top, right - left, plot->bottom - plot->top,
						0);
		crm_picture_group_end(picture);
	}
	pfree(words.data);
}

/* ---------- curves over one scale ---------- */

typedef struct Label
{
	int series;
	double wanted;
	double y;
} Label;

static int
compare_labels(const void *a, const void *b)
{
	const Label *one = a;
	const Label *other = b;

	if (one->wanted != other->wanted)
		return one->wanted < other->wanted ? -1 : 1;
	return other->series - one->series;
}

/* Names beside the ends of their curves, moved apart where they would lie on each other. */
static void
draw_labels(CrmPicture *picture, const Plot *plot, const CrmTrend *trend)
{
	Label labels[MOST_CURVES];
	double x = plot->axis.right + 2 * GAP;
	double room = WIDTH - MARGIN - x;
	double lowest = plot->bottom - 18;

	for (int i = 0; i < trend->nseries; i++)
	{
		double last = 0;

		for (int k = 0; k < trend->nbuckets; k++)
			if (!isnan(trend->series[i].values[k]))
				last = trend->series[i].values[k];
		labels[i].series = i;
		labels[i].wanted = y_of(plot, last);
	}
	qsort(labels, trend->nseries, sizeof(Label), compare_labels);
	for (int i = 0; i < trend->nseries; i++)
		labels[i].y = i == 0 ? Max(labels[i].wanted, plot->top + 8)
							 : Max(labels[i].wanted, labels[i - 1].y + LABEL_HEIGHT);
	for (int i = trend->nseries - 1; i >= 0; i--)
		labels[i].y = Min(labels[i].y,
						  i == trend->nseries - 1 ? lowest : labels[i + 1].y - LABEL_HEIGHT);
	for (int i = 0; i < trend->nseries; i++)
	{
		const CrmTrendSeries *series = &trend->series[labels[i].series];
		double y = labels[i].y;

		crm_picture_group(picture, psprintf("series-%d", labels[i].series + 1), NULL);
		crm_picture_line(picture, "leader", plot->axis.right + 4, labels[i].wanted, x - 6, y);
		crm_picture_circle(picture, "dot", x + 1, y, 4, NULL);
		crm_picture_text(picture, "text", CRM_ANCHOR_START, x + 11, y + 4.5, room - 11,
						 series->name);
		crm_picture_text(picture, "muted", CRM_ANCHOR_START, x + 11, y + 19, room - 11,
						 psprintf(trend->is_stock ? "%s at the end" : "%s in all", series->total));
		crm_picture_group_end(picture);
	}
}

static void
draw_curves(CrmPicture *picture, const CrmTrend *trend)
{
	double peak = 0;
	double step;
	double scale_width = 0;
	double label_y;
	Plot plot;

	for (int i = 0; i < trend->nseries; i++)
		peak = Max(peak, peak_of(trend, &trend->series[i]));
	peak = Max(peak, 1);
	step = Max(crm_round_step(peak, MARKS), peak <= MARKS ? 1 : 0);
	for (double mark = 0; mark < peak + step; mark += step)
		scale_width = Max(scale_width, crm_picture_text_width(value_text(mark)));
	set_axis(&plot, trend, MARGIN + Max(ceil(scale_width) + 10, DATE_HALF),
			 WIDTH - MARGIN - LABEL_WIDTH - 2 * GAP);
	plot.top = HEAD_HEIGHT;
	plot.bottom = HEAD_HEIGHT + PLOT_HEIGHT;
	plot.most = ceil(peak / step) * step;
	label_y = plot.bottom + 20;

	draw_unknown(picture, &plot, trend);
	draw_days(picture, &plot, trend, plot.top, plot.bottom, &label_y, 1);
	for (int i = 0; i <= rint(plot.most / step); i++)
	{
		double y = y_of(&plot, i * step);

		crm_picture_line(picture, i == 0 ? "frame" : "grid", plot.axis.left, y, plot.axis.right, y);
		crm_picture_text(picture, "muted", CRM_ANCHOR_END, plot.axis.left - 8, y + 4, 0,
						 value_text(i * step));
	}
	for (int i = trend->nseries - 1; i >= 0; i--)
	{
		CHECK_FOR_INTERRUPTS();
		crm_picture_group(picture, psprintf("series-%d", i + 1), trend->series[i].name);
		draw_series(picture, &plot, trend, trend->series[i].values, trend->nseries == 1);
		crm_picture_group_end(picture);
	}
	draw_bands(picture, &plot, trend, trend->nseries);
	draw_labels(picture, &plot, trend);
}

/* ---------- a row for each ---------- */

static void
draw_rows(CrmPicture *picture, const CrmTrend *trend)
{
	double left = MARGIN + NAME_WIDTH + GAP;
	double right = WIDTH - MARGIN - TOTAL_WIDTH - PEAK_WIDTH - GAP;
	double first_top = HEAD_HEIGHT + AXIS_HEIGHT;
	double end = first_top + trend->nseries * ROW_HEIGHT;
	double label_y[2] = { first_top - 8, end + 20 };
	Plot plot;

	set_axis(&plot, trend, left, right);
	draw_days(picture, &plot, trend, first_top, end, label_y, 2);
	crm_picture_text(picture, "muted", CRM_ANCHOR_END, right + GAP + PEAK_WIDTH, first_top - 26, 0,
					 psprintf("most a %s", trend->bucket));
	crm_picture_text(picture, "muted", CRM_ANCHOR_END, WIDTH - MARGIN, first_top - 26, 0,
					 trend->is_stock ? "at the end" : "in all");
	for (int i = 0; i < trend->nseries; i++)
	{
		const CrmTrendSeries *series = &trend->series[i];
		double peak = peak_of(trend, series);

		CHECK_FOR_INTERRUPTS();
		plot.top = first_top + i * ROW_HEIGHT + (ROW_HEIGHT - ROW_CURVE) / 2;
		plot.bottom = plot.top + ROW_CURVE;
		plot.most = Max(peak, 1);
		draw_unknown(picture, &plot, trend);
		crm_picture_group(picture, "series-1", series->name);
		crm_picture_line(picture, "grid", left, plot.bottom, right, plot.bottom);
		draw_series(picture, &plot, trend, series->values, true);
		crm_picture_text(picture, "text", CRM_ANCHOR_START, MARGIN, plot.bottom - 8, NAME_WIDTH,
						 series->name);
		crm_picture_text(picture, "muted", CRM_ANCHOR_END, right + GAP + PEAK_WIDTH,
						 plot.bottom - 8, PEAK_WIDTH, value_text(peak));
		crm_picture_text(picture, "name", CRM_ANCHOR_END, WIDTH - MARGIN, plot.bottom - 8,
						 TOTAL_WIDTH, series->total);
		crm_picture_group_end(picture);
	}
}

/* ---------- all of it ---------- */

/* Series that were nothing on all days are named, not drawn; returns their names. */
static char *
set_aside_nothing(CrmTrend *trend)
{
	StringInfoData names;
	int n = 0;

	initStringInfo(&names);
	for (int i = 0; i < trend->nseries; i++)
		if (peak_of(trend, &trend->series[i]) > 0)
			trend->series[n++] = trend->series[i];
		else
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", trend->series[i].name);
	trend->nseries = n;
	return names.data;
}

static char *
description_of(const CrmTrend *trend, const char *subtitle)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "%s.", subtitle);
	for (int i = 0; i < trend->nseries; i++)
		appendStringInfo(&buf, "%s%s %s",
						 i == 0 ? (trend->is_stock ? " At the end: " : " In all: ") : ", ",
						 trend->series[i].name, trend->series[i].total);
	return buf.data;
}

text *
crm_trend_draw(const CrmTrend *given)
{
	CrmTrend trend = *given;
	CrmPicture picture;
	char *nothing;
	char *title;
	char *subtitle;
	bool rows;
	double height;

	trend.series = palloc_array(CrmTrendSeries, Max(given->nseries, 1));
	memcpy(trend.series, given->series, sizeof(CrmTrendSeries) * given->nseries);
	nothing = set_aside_nothing(&trend);
	rows = trend.nseries > MOST_CURVES;
	height = rows ? AXIS_HEIGHT + trend.nseries * ROW_HEIGHT : trend.nseries > 0 ? PLOT_HEIGHT : 40;
	height += HEAD_HEIGHT + AXIS_HEIGHT + (*nothing == '\0' ? 0 : 20);
	title = psprintf("%c%s", pg_toupper((unsigned char) trend.what[0]), trend.what + 1);
	subtitle = psprintf("%s %s %s", trend.is_stock ? "at the end of each" : "in each", trend.bucket,
						crm_period_text(trend.start, trend.end, trend.zone, trend.zone_name));

	crm_picture_open(&picture, WIDTH, (int) ceil(height), title, description_of(&trend, subtitle));
	crm_picture_text(&picture, "title", CRM_ANCHOR_START, MARGIN, 34,
					 (WIDTH - 2 * MARGIN) / CRM_PICTURE_TITLE_SCALE, title);
	crm_picture_text(&picture, "muted", CRM_ANCHOR_START, MARGIN, 55, WIDTH - 2 * MARGIN, subtitle);
	if (rows)
		draw_rows(&picture, &trend);
	else if (trend.nseries > 0)
		draw_curves(&picture, &trend);
	else
		crm_picture_text(&picture, "muted", CRM_ANCHOR_START, MARGIN, HEAD_HEIGHT + 18, 0,
						 "there is nothing in this period");
	if (*nothing != '\0')
		crm_picture_text(&picture, "muted", CRM_ANCHOR_START, MARGIN, height - 12,
						 WIDTH - 2 * MARGIN, psprintf("none at any time: %s", nothing));
	return crm_picture_close(&picture);
}
