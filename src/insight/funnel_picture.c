/*
 * funnel_picture.c
 *		A funnel as a picture: a bar for each step, as long as people reached it,
 *		divided into those who went on, are still there, and left.
 */
#include "postgres.h"

#include <math.h>

#include "miscadmin.h"

#include "insight/figures.h"
#include "insight/funnel_picture.h"
#include "insight/picture.h"

#define WIDTH        960
#define MARGIN       24
#define HEAD_HEIGHT  100 /* title, subtitle, legend */
#define GROUP_HEIGHT 36
#define STEP_HEIGHT  48
#define BAR_HEIGHT   16
#define BAR_LEFT     282.0
#define BAR_RIGHT    770.0
#define PLACE_WIDTH  30.0 /* of the number of the step */
#define GAP          14.0

typedef struct Part
{
	const char *class;
	int64 people;
} Part;

/* Where a number of people ends on the scale of the longest bar. */
static double
bar_end(int64 people, int64 most)
{
	return BAR_LEFT + (BAR_RIGHT - BAR_LEFT) * ((double) people / Max(most, 1));
}

static void
draw_bar(CrmPicture *picture, const CrmFunnelStep *step, int64 most, double y)
{
	Part parts[] = {
		{ "talk", step->is_last ? step->reached : step->converted },
		{ "wait", step->is_last ? 0 : step->still_open },
		{ "lost", step->is_last ? 0 : step->dropped },
	};
	int64 people = 0;

	crm_picture_box(picture, "bar-track", BAR_LEFT, y, BAR_RIGHT - BAR_LEFT, BAR_HEIGHT, 3);
	for (int i = 0; i < lengthof(parts); i++)
	{
		double left = bar_end(people, most);

		if (parts[i].people <= 0)
			continue;
		people += parts[i].people;
		/* whoever is few is still to be seen */
		crm_picture_box(picture, parts[i].class, left, y, Max(bar_end(people, most) - left, 1.5),
						BAR_HEIGHT, 0);
	}
}

static char *
words_of(const CrmFunnelPicture *funnel, const CrmFunnelStep *step)
{
	StringInfoData buf;

	initStringInfo(&buf);
	if (step->reached == 0)
		appendStringInfoString(&buf, "nobody");
	else if (!step->is_last)
	{
		appendStringInfo(&buf, "%s %s (%s)", crm_grouped_digits(step->converted), funnel->converted,
						 crm_share_text(step->converted, step->reached));
		if (step->still_open > 0)
			appendStringInfo(&buf, ", %s %s", crm_grouped_digits(step->still_open),
							 funnel->still_open);
		if (step->dropped > 0)
			appendStringInfo(&buf, ", %s %s", crm_grouped_digits(step->dropped), funnel->dropped);
	}
	if (!isnan(step->median_seconds))
		appendStringInfo(&buf, "%smedian %s", buf.len > 0 ? "; " : "",
						 crm_duration_text(step->median_seconds));
	return buf.data;
}

static void
draw_step(CrmPicture *picture, const CrmFunnelPicture *funnel, const CrmFunnelStep *step, int place,
		  int64 first, int64 most, double y)
{
	char *words = words_of(funnel, step);
	char *share = funnel->of_first ? crm_share_text(step->reached, first) : "";

	crm_picture_group(picture, NULL,
					  psprintf("%s: %s reached%s%s", step->name, crm_grouped_digits(step->reached),
							   *words == '\0' ? "" : "; ", words));
	crm_picture_text(picture, "muted", CRM_ANCHOR_END, MARGIN + PLACE_WIDTH - 10, y + 18, 0,
					 psprintf("%d", place));
	crm_picture_text(picture, "text", CRM_ANCHOR_START, MARGIN + PLACE_WIDTH, y + 18,
					 BAR_LEFT - GAP - MARGIN - PLACE_WIDTH, step->name);
	draw_bar(picture, step, most, y + 5);
	crm_picture_text(picture, "name", CRM_ANCHOR_START, BAR_RIGHT + GAP, y + 18,
					 WIDTH - MARGIN - BAR_RIGHT - GAP, crm_grouped_digits(step->reached));
	crm_picture_text(picture, "muted", CRM_ANCHOR_START, BAR_LEFT, y + 37, BAR_RIGHT - BAR_LEFT,
					 words);
	crm_picture_text(picture, "muted", CRM_ANCHOR_START, BAR_RIGHT + GAP, y + 37, 0,
					 *share == '\0' ? "" : psprintf("%s of the first", share));
	crm_picture_group_end(picture);
}

static double
draw_legend(CrmPicture *picture, const CrmFunnelPicture *funnel, double y)
{
	const char *const entries[][2] = {
		{ "talk", funnel->converted },
		{ "wait", funnel->still_open },
		{ "lost", funnel->dropped },
	};
	double x = MARGIN;

	for (int i = 0; i < lengthof(entries); i++)
	{
		crm_picture_box(picture, entries[i][0], x, y - 10, 12, 12, 2);
		crm_picture_text(picture, "muted", CRM_ANCHOR_START, x + 18, y, 0, entries[i][1]);
		x += 18 + crm_picture_text_width(entries[i][1]) + 2 * GAP;
	}
	return x;
}

static bool
begins_group(const CrmFunnelPicture *funnel, int i)
{
	const char *group = funnel->steps[i].group;
	const char *before = i == 0 ? NULL : funnel->steps[i - 1].group;

	return group != NULL && (before == NULL || strcmp(group, before) != 0);
}

/* A heading, or the first row where there is none: numbers and shares begin anew. */
static bool
begins(const CrmFunnelPicture *funnel, int i)
{
	return i == 0 || begins_group(funnel, i);
}

static char *
description_of(const CrmFunnelPicture *funnel)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "%s. ", funnel->subtitle);
	if (funnel->nsteps == 0)
		appendStringInfoString(&buf, "It has no steps.");
	for (int i = 0; i < funnel->nsteps; i++)
	{
		if (begins_group(funnel, i))
			appendStringInfo(&buf, "%s%s: ", i > 0 ? ". " : "", funnel->steps[i].group);
		appendStringInfo(&buf, "%s%s %s", begins(funnel, i) ? "" : ", ", funnel->steps[i].name,
						 crm_grouped_digits(funnel->steps[i].reached));
	}
	return buf.data;
}

text *
crm_funnel_draw(const CrmFunnelPicture *funnel)
{
	CrmPicture picture;
	int64 most = 0;
	int64 first = 0;
	int place = 0;
	double y = HEAD_HEIGHT;
	double height = HEAD_HEIGHT + STEP_HEIGHT * Max(funnel->nsteps, 1) + MARGIN / 2;

	for (int i = 0; i < funnel->nsteps; i++)
	{
		most = Max(most, funnel->steps[i].reached);
		height += begins_group(funnel, i) ? GROUP_HEIGHT : 0;
	}

	crm_picture_open(&picture, WIDTH, (int) height, funnel->title, description_of(funnel));
	crm_picture_text(&picture, "title", CRM_ANCHOR_START, MARGIN, 34,
					 (WIDTH - 2 * MARGIN) / CRM_PICTURE_TITLE_SCALE, funnel->title);
	crm_picture_text(&picture, "muted", CRM_ANCHOR_START, MARGIN, 55, WIDTH - 2 * MARGIN,
					 funnel->subtitle);
	draw_legend(&picture, funnel, 80);
	for (int i = 0; i < funnel->nsteps; i++)
	{
		const CrmFunnelStep *step = &funnel->steps[i];

		CHECK_FOR_INTERRUPTS();
		if (begins_group(funnel, i))
		{
			crm_picture_line(&picture, "grid", MARGIN, y + 6, WIDTH - MARGIN, y + 6);
			crm_picture_text(&picture, "name", CRM_ANCHOR_START, MARGIN, y + 27, WIDTH - 2 * MARGIN,
							 step->group);
			y += GROUP_HEIGHT;
		}
		if (begins(funnel, i))
		{
			first = step->reached;
			place = 0;
		}
		draw_step(&picture, funnel, step, ++place, first, most, y);
		y += STEP_HEIGHT;
	}
	if (funnel->nsteps == 0)
		crm_picture_text(&picture, "muted", CRM_ANCHOR_START, MARGIN, y + 18, 0,
						 "there are no steps");
	return crm_picture_close(&picture);
}
