/*
 * timeline.c
 *		A contact's achievements as a picture: one line each, from the account's
 *		creation on the left to now on the right.
 */
#include "postgres.h"

#include <math.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/guc.h"
#include "insight/picture.h"

PG_FUNCTION_INFO_V1(crm_sql_default_time_zone);
PG_FUNCTION_INFO_V1(crm_sql_timeline_svg);

#define WIDTH           960
#define MARGIN          24
#define GAP             16
#define ROW_HEIGHT      24
#define LABEL_MAX_WIDTH 210.0
#define MARK_RADIUS     5.5
#define HEAD_HEIGHT     88 /* title, subtitle, the two ends */
#define AXIS_HEIGHT     24 /* labels of the axis */
#define MANY_LINES      20 /* from here on the axis is labelled above too */

typedef struct Line
{
	char *label;
	bool gained;
	TimestampTz awarded_at;
} Line;

typedef struct Timeline
{
	int64 contact_id;
	TimestampTz start;
	int nlines;
	int ngained;
	Line *lines;
} Timeline;

Datum
crm_sql_default_time_zone(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(crm_guc_time_zone));
}

/*
 * The contact that answers for this id, itself or into which it was merged,
 * and where its timeline begins.
 */
static void
find_contact(Timeline *timeline, int64 contact_id)
{
	static CrmPlan plan = {
		"WITH RECURSIVE chain(contact_id, steps) AS ("
		" SELECT $1, 0"
		" UNION ALL"
		" SELECT m.contact_id, c.steps + 1"
		"   FROM chain c JOIN crm.merge_ledger m ON m.other = c.contact_id"
		"  WHERE m.unmerged_at IS NULL AND c.steps < 1000) "
		"SELECT k.contact_id,"
		"       COALESCE((SELECT pg_catalog.min(m.since) FROM crm.stage_move m"
		"                  WHERE m.contact_id = k.contact_id), k.created_at)"
		"  FROM chain JOIN crm.contact k USING (contact_id)"
		" ORDER BY chain.steps LIMIT 1",
		1,
		{ INT8OID },
	};
	Datum values[1] = { Int64GetDatum(contact_id) };

	if (crm_run(&plan, values, NULL) == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
			 errmsg("contact " INT64_FORMAT " does not exist", contact_id),
			 errhint(
				 "Contacts are the rows of crm.contact; crm.identify() gives the contact of an identifier.")));
	timeline->contact_id = crm_result_int64(0, 1);
	timeline->start = (TimestampTz) crm_result_int64(0, 2);
}

/* What was gained, in that order, and then what was not. */
static void
read_lines(Timeline *timeline, MemoryContext context)
{
	static CrmPlan plan = {
		"SELECT CASE WHEN pg_catalog.cardinality(a.thresholds) = 1 THEN b.label"
		"            ELSE pg_catalog.concat_ws(' ', b.label, pg_catalog.trim_scale(t.threshold)) END,"
		"       t.awarded_at"
		"  FROM crm.achievement_timeline t"
		"  LEFT JOIN crm.achievement a ON a.name = t.achievement"
		" CROSS JOIN LATERAL (SELECT COALESCE(NULLIF(a.label, ''), t.achievement) AS label) b"
		" WHERE t.contact_id = $1"
		" ORDER BY t.awarded_at, t.achievement COLLATE \"C\", t.threshold",
		1,
		{ INT8OID },
	};
	Datum values[1] = { Int64GetDatum(timeline->contact_id) };
	uint64 nrows = crm_run(&plan, values, NULL);
	MemoryContext old = MemoryContextSwitchTo(context);

	timeline->nlines = (int) nrows;
	timeline->ngained = 0;
	timeline->lines = palloc_array(Line, Max(nrows, 1));
	for (uint64 i = 0; i < nrows; i++)
	{
		Line *line = &timeline->lines[i];
		bool isnull;
		Datum awarded_at;

		line->label = crm_result_text(i, 1);
		awarded_at = crm_result(i, 2, &isnull);
		line->gained = !isnull;
		line->awarded_at = isnull ? 0 : DatumGetTimestampTz(awarded_at);
		timeline->ngained += line->gained;
	}
	MemoryContextSwitchTo(old);
}

static void
draw_line(CrmPicture *picture, const CrmTimeAxis *axis, const Line *line, double y)
{
	double x;
	char *moment;

	crm_picture_text(picture, line->gained ? "text" : "muted", CRM_ANCHOR_START, MARGIN, y + 4.5,
					 axis->left - GAP - MARGIN, line->label);
	if (!line->gained)
	{
		crm_picture_line(picture, "empty", axis->left, y, axis->right, y);
		return;
	}
	x = crm_time_axis_x(axis, line->awarded_at);
	moment = crm_time_axis_moment(axis, line->awarded_at);
	crm_picture_line(picture, "track", axis->left, y, x, y);
	crm_picture_line(picture, "gained", x, y, axis->right, y);
	crm_picture_circle(picture, "mark", x, y, MARK_RADIUS, psprintf("%s: %s", line->label, moment));
	crm_picture_text(picture, "text", CRM_ANCHOR_END, WIDTH - MARGIN, y + 4.5, 0,
					 crm_time_axis_date(axis, line->awarded_at));
}

static text *
draw(const Timeline *timeline)
{
	CrmPicture picture;
	CrmTimeAxis axis;
	char *title = psprintf("Contact " INT64_FORMAT, timeline->contact_id);
	char *from;
	char *to;
	double label_width = 0;
	double label_y[2];
	int nlabels = 0;
	double top = HEAD_HEIGHT;
	double bottom;
	double y;

	axis.zone = crm_guc_zone;
	axis.whole_days = false;
	axis.from = timeline->start;
	axis.to = Max(crm_now(), timeline->start);
	for (int i = 0; i < timeline->nlines; i++)
		label_width = Max(label_width, crm_picture_text_width(timeline->lines[i].label));
	from = crm_time_axis_date(&axis, axis.from);
	to = crm_time_axis_date(&axis, axis.to);
	axis.left = MARGIN + ceil(Min(label_width, LABEL_MAX_WIDTH)) + 1 + GAP;
	axis.right = WIDTH - MARGIN - ceil(crm_picture_text_width(to)) - GAP;

	if (timeline->nlines > MANY_LINES)
	{
		label_y[nlabels++] = top + AXIS_HEIGHT - 10;
		top += AXIS_HEIGHT;
	}
	bottom = top + ROW_HEIGHT * Max(timeline->nlines, 1);
	label_y[nlabels++] = bottom + AXIS_HEIGHT - 6;

	crm_picture_open(&picture, WIDTH, (int) bottom + AXIS_HEIGHT + GAP,
					 psprintf("Achievements of contact " INT64_FORMAT, timeline->contact_id),
					 psprintf("%d of %d achievements gained between %s and %s; times in %s.",
							  timeline->ngained, timeline->nlines, from, to, crm_guc_time_zone));
	crm_picture_text(&picture, "title", CRM_ANCHOR_START, MARGIN, 32, 0, title);
	crm_picture_text(&picture, "muted", CRM_ANCHOR_START, MARGIN, 52, 0,
					 psprintf("%d of %d achievements, times in %s", timeline->ngained,
							  timeline->nlines, crm_guc_time_zone));

	if (timeline->nlines > 0)
		crm_time_axis_draw(&picture, &axis, top, bottom, label_y, nlabels);
	crm_picture_line(&picture, "frame", axis.left, top - 4, axis.left, bottom);
	if (axis.to > axis.from)
	{
		crm_picture_line(&picture, "frame", axis.right, top - 4, axis.right, bottom);
		crm_picture_text(&picture, "muted", CRM_ANCHOR_START, axis.left, HEAD_HEIGHT - 12, 0,
						 psprintf("created %s", from));
		crm_picture_text(&picture, "muted", CRM_ANCHOR_END, axis.right, HEAD_HEIGHT - 12, 0,
						 psprintf("now %s", to));
	}
	else
		crm_picture_text(&picture, "muted", CRM_ANCHOR_START, axis.left, HEAD_HEIGHT - 12, 0,
						 psprintf("created now, %s", from));

	y = top + ROW_HEIGHT / 2.0;
	for (int i = 0; i < timeline->nlines; i++)
	{
		CHECK_FOR_INTERRUPTS();
		draw_line(&picture, &axis, &timeline->lines[i], y);
		y += ROW_HEIGHT;
	}
	if (timeline->nlines == 0)
		crm_picture_text(&picture, "muted", CRM_ANCHOR_START, axis.left + GAP, y + 4.5, 0,
						 "no achievement is defined");
	return crm_picture_close(&picture);
}

Datum
crm_sql_timeline_svg(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	Timeline timeline;
	CrmActing acting;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("contact_id must not be null"),
				 errhint("Give the contact_id of the contact to draw.")));

	crm_connect(&acting);
	find_contact(&timeline, PG_GETARG_INT64(0));
	read_lines(&timeline, context);
	crm_disconnect(&acting);

	/* a time without limits has no place on an axis */
	if (TIMESTAMP_NOT_FINITE(timeline.start))
	{
		timeline.start = crm_now();
		for (int i = 0; i < timeline.nlines; i++)
			if (timeline.lines[i].gained && !TIMESTAMP_NOT_FINITE(timeline.lines[i].awarded_at))
				timeline.start = Min(timeline.start, timeline.lines[i].awarded_at);
	}
	PG_RETURN_TEXT_P(draw(&timeline));
}
