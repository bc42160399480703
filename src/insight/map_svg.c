/*
 * map_svg.c
 *		A map of the customers' journey as a picture: stages and touchpoints in
 *		columns, how people felt there, what was lost, and the paths they took.
 */
#include "postgres.h"

#include <math.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "insight/figures.h"
#include "insight/map_svg.h"
#include "insight/period.h"
#include "insight/picture.h"

PG_FUNCTION_INFO_V1(crm_sql_map_svg);

#define WIDTH          960
#define MARGIN         24
#define GAP            14.0
#define HEAD_HEIGHT    70.0
#define GOAL_HEIGHT    20.0
#define MOST_COLUMNS   6 /* then the map goes on below */
#define HEADING_WIDTH  92.0
#define STAGE_HEIGHT   26.0
#define CARD_HEIGHT    46.0
#define EMOTION_HEIGHT 112.0
#define LINE_HEIGHT    20.0
#define BAND_GAP       30.0

#define PATH_HEIGHT    25.0
#define MOST_PATHS     40
#define NAME_WIDTH     196.0
#define BAR_WIDTH      190.0

typedef struct Touchpoint
{
	const char *stage;
	int stage_place;
	const char *label;
	int64 visits;
	double loss;    /* these are NaN where they are not known */
	double seconds; /* to the next touchpoint */
	int64 complaints;
	int64 notes;
	double score;
	const char *peak; /* high, low or NULL */
	int64 emotions;
	double emotion;
} Touchpoint;

typedef struct Path
{
	const char *from;
	const char *to; /* NULL: nowhere */
	const char *state;
	const char *label;
	int64 transitions;
	double share;
	double seconds;
} Path;

typedef struct Goal
{
	const char *label;
	const char *measured; /* NULL: not known */
	const char *target;
	const char *state; /* reached, not reached, not known */
} Goal;

typedef struct Map
{
	const char *title;
	int version;
	int ntouchpoints;
	Touchpoint *touchpoints;
	int npaths;
	int64 all_paths; /* also those that are not drawn */
	int64 most;      /* transitions of a path */
	Path *paths;
	int ngoals;
	Goal *goals;
} Map;

/* ---------- reading ---------- */

/* What was asked for: $1 map, $2 and $3 the period, $4 persona, $5 version. */
#define PARAMETERS 5
#define QUESTION                                                  \
	PARAMETERS,                                                   \
	{                                                             \
		TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, INT4OID \
	}

static void
read_touchpoints(Map *map, const Datum *values, const char *nulls, MemoryContext context)
{
	static CrmPlan plan = {
		"SELECT COALESCE(o.stage_label, t.stage), t.stage_place, t.label, t.visits,"
		"       t.loss::double precision, t.median_seconds, t.complaints, t.notes,"
		"       t.score::double precision, t.peak, t.emotions, t.emotion::double precision,"
		"       COALESCE(v.definition ->> 'label', v.map), v.version"
		"  FROM crm.map_touchpoint($1, $2, $3, $4, $5) AS t"
		"  JOIN crm.map_version AS v ON v.map = $1"
		"   AND v.version = COALESCE($5, (SELECT m.version FROM crm.map AS m WHERE m.map = $1))"
		"  JOIN crm.map_outline AS o ON o.map = v.map AND o.version = v.version"
		"   AND o.touchpoint = t.touchpoint"
		" ORDER BY t.place",
		QUESTION,
	};
	uint64 nrows = crm_read(&plan, values, nulls);
	MemoryContext old = MemoryContextSwitchTo(context);

	map->title = nrows == 0 ? TextDatumGetCString(values[0]) : crm_result_text(0, 13);
	map->version = nrows == 0 ? 0 : (int) crm_result_int64(0, 14);
	map->ntouchpoints = (int) nrows;
	map->touchpoints = palloc_array(Touchpoint, Max(nrows, 1));
	for (uint64 i = 0; i < nrows; i++)
	{
		Touchpoint *touchpoint = &map->touchpoints[i];

		touchpoint->stage = crm_result_text(i, 1);
		touchpoint->stage_place = (int) crm_result_int64(i, 2);
		touchpoint->label = crm_result_text(i, 3);
		touchpoint->visits = crm_result_int64(i, 4);
		touchpoint->loss = crm_result_double(i, 5);
		touchpoint->seconds = crm_result_double(i, 6);
		touchpoint->complaints = crm_result_int64(i, 7);
		touchpoint->notes = crm_result_int64(i, 8);
		touchpoint->score = crm_result_double(i, 9);
		touchpoint->peak = crm_result_text(i, 10);
		touchpoint->emotions = crm_result_int64(i, 11);
		touchpoint->emotion = crm_result_double(i, 12);
	}
	MemoryContextSwitchTo(old);
}

/* The busiest first; what the map draws and nobody took, last. */
static void
read_paths(Map *map, const Datum *values, const char *nulls, MemoryContext context)
{
	static CrmPlan plan = {
		"SELECT COALESCE(f.label, p.from_touchpoint), COALESCE(t.label, p.to_touchpoint), p.state,"
		"       p.label, p.transitions, p.share::double precision, p.median_seconds"
		"  FROM crm.map_path($1, $2, $3, $4, $5) WITH ORDINALITY AS p"
		"  LEFT JOIN crm.touchpoint AS f ON f.name = p.from_touchpoint"
		"  LEFT JOIN crm.touchpoint AS t ON t.name = p.to_touchpoint"
		" ORDER BY p.transitions DESC, p.ordinality",
		QUESTION,
	};
	uint64 nrows = crm_read(&plan, values, nulls);
	MemoryContext old = MemoryContextSwitchTo(context);

	map->all_paths = (int64) nrows;
	map->npaths = (int) Min(nrows, MOST_PATHS);
	map->paths = palloc_array(Path, Max(map->npaths, 1));
	for (int i = 0; i < map->npaths; i++)
	{
		Path *path = &map->paths[i];

		path->from = crm_result_text(i, 1);
		path->to = crm_result_text(i, 2);
		path->state = crm_result_text(i, 3);
		path->label = crm_result_text(i, 4);
		path->transitions = crm_result_int64(i, 5);
		path->share = crm_result_double(i, 6);
		path->seconds = crm_result_double(i, 7);
		map->most = Max(map->most, path->transitions);
	}
	MemoryContextSwitchTo(old);
}

/* As of the end of the period, at most now. */
static void
read_goals(Map *map, const Datum *values, const char *nulls, MemoryContext context)
{
	static CrmPlan plan = {
		"SELECT COALESCE(g.label, g.goal), pg_catalog.trim_scale(pg_catalog.round(g.measured, 4))::text,"
		"       pg_catalog.trim_scale(g.target)::text,"
		"       CASE WHEN g.reached THEN 'reached' WHEN NOT g.reached THEN 'not reached' ELSE 'not known' END"
		"  FROM crm.map_goal($1, LEAST($3, crm.now()), $5) AS g",
		QUESTION,
	};
	uint64 nrows = crm_read(&plan, values, nulls);
	MemoryContext old = MemoryContextSwitchTo(context);

	map->ngoals = (int) nrows;
	map->goals = palloc_array(Goal, Max(nrows, 1));
	for (uint64 i = 0; i < nrows; i++)
	{
		map->goals[i].label = crm_result_text(i, 1);
		map->goals[i].measured = crm_result_text(i, 2);
		map->goals[i].target = crm_result_text(i, 3);
		map->goals[i].state = crm_result_text(i, 4);
	}
	MemoryContextSwitchTo(old);
}

/* ---------- a band: up to six touchpoints beside each other ---------- */

typedef struct Band
{
	const Touchpoint *touchpoints;
	int n;
	bool goes_on; /* its first stage began in the band before */
	double top;
	double column; /* width */
} Band;

static double
left_of(const Band *band, int i)
{
	return MARGIN + HEADING_WIDTH + i * band->column;
}

static double
middle_of(const Band *band, int i)
{
	return left_of(band, i) + band->column / 2;
}

static void
draw_heading(CrmPicture *picture, double y, const char *heading)
{
	crm_picture_text(picture, "muted", CRM_ANCHOR_START, MARGIN, y, HEADING_WIDTH - 8, heading);
}

static void
draw_stages(CrmPicture *picture, const Band *band)
{
	for (int i = 0, next; i < band->n; i = next)
	{
		const char *stage = band->touchpoints[i].stage;
		bool goes_on = i == 0 && band->goes_on;
		double width;

		for (next = i + 1; next < band->n &&
			 band->touchpoints[next].stage_place == band->touchpoints[i].stage_place;)
			next++;
		width = (next - i) * band->column - 6;
		crm_picture_box(picture, "entry", left_of(band, i) + 3, band->top, width, STAGE_HEIGHT, 4);
		crm_picture_text(picture, "name", CRM_ANCHOR_MIDDLE, left_of(band, i) + 3 + width / 2,
						 band->top + 17.5, (width - 12) / CRM_PICTURE_BOLD_SCALE,
						 goes_on ? psprintf("%s (goes on)", stage) : stage);
	}
}

static void
draw_cards(CrmPicture *picture, const Band *band, double y)
{
	for (int i = 0; i < band->n; i++)
	{
		const Touchpoint *touchpoint = &band->touchpoints[i];
		bool met = touchpoint->visits > 0;

		crm_picture_group(picture, NULL, touchpoint->label);
		crm_picture_box(picture, met ? "box" : "empty-box", left_of(band, i) + 3, y,
						band->column - 6, CARD_HEIGHT, 6);
		crm_picture_text(picture, "text", CRM_ANCHOR_MIDDLE, middle_of(band, i), y + 20,
						 band->column - 20, touchpoint->label);
		crm_picture_text(picture, "muted", CRM_ANCHOR_MIDDLE, middle_of(band, i), y + 37, 0,
						 met ? psprintf("%s visits", crm_grouped_digits(touchpoint->visits))
							 : "nobody yet");
		crm_picture_group_end(picture);
	}
}

static double
emotion_y(double top, double emotion)
{
	return top + 12 + (EMOTION_HEIGHT - 24) * (2 - emotion) / 4;
}

/* With its sign, but for 0. */
static char *
signed_text(double value)
{
	return fabs(value) < 0.05 ? psprintf("0.0") : psprintf("%+.1f", value);
}

/* How people felt, from -2 to +2; where nobody said so there is a gap. */
static void
draw_emotions(CrmPicture *picture, const Band *band, double top)
{
	StringInfoData path;
	double right = left_of(band, band->n);

	draw_heading(picture, emotion_y(top, 0) + 4, "Emotion");
	for (int mark = 2; mark >= -2; mark -= 2)
	{
		double y = emotion_y(top, mark);

		crm_picture_line(picture, mark == 0 ? "frame" : "grid", left_of(band, 0), y, right, y);
		crm_picture_text(picture, "muted", CRM_ANCHOR_END, left_of(band, 0) - 6, y + 4, 0,
						 mark == 0 ? "0" : psprintf("%+d", mark));
	}
	initStringInfo(&path);
	for (int i = 0; i < band->n; i++)
	{
		double emotion = band->touchpoints[i].emotion;

		if (isnan(emotion))
			continue;
		appendStringInfo(&path, "%s%.1f %.1f",
						 i > 0 && !isnan(band->touchpoints[i - 1].emotion) ? "L" : "M",
						 middle_of(band, i), emotion_y(top, emotion));
	}
	crm_picture_group(picture, "series-1", NULL);
	if (path.len > 0)
		crm_picture_path(picture, "curve", path.data, 0);
	crm_picture_group_end(picture);
	for (int i = 0; i < band->n; i++)
	{
		const Touchpoint *touchpoint = &band->touchpoints[i];
		double y = emotion_y(top, touchpoint->emotion);

		if (isnan(touchpoint->emotion))
			continue;
		crm_picture_circle(picture, "mark", middle_of(band, i), y, 6,
						   psprintf("%s: %+.2f, said %s times", touchpoint->label,
									touchpoint->emotion, crm_grouped_digits(touchpoint->emotions)));
		/* beside the point: above and below it runs the line */
		crm_picture_text(picture, "text", CRM_ANCHOR_START, middle_of(band, i) + 10,
						 touchpoint->emotion > 0 ? y - 4 : y + 13, 0,
						 signed_text(touchpoint->emotion));
	}
}

typedef char *(*Words)(const Touchpoint *touchpoint);

static char *
loss_words(const Touchpoint *touchpoint)
{
	return isnan(touchpoint->loss) ? NULL : psprintf("%.0f%%", round(100 * touchpoint->loss));
}

static char *
delay_words(const Touchpoint *touchpoint)
{
	return isnan(touchpoint->seconds) ? NULL : crm_duration_text(touchpoint->seconds);
}

static char *
complaint_words(const Touchpoint *touchpoint)
{
	return touchpoint->complaints == 0 ? NULL : crm_grouped_digits(touchpoint->complaints);
}

static char *
note_words(const Touchpoint *touchpoint)
{
	return touchpoint->notes == 0 ? NULL : crm_grouped_digits(touchpoint->notes);
}

static char *
score_words(const Touchpoint *touchpoint)
{
	if (isnan(touchpoint->score))
		return NULL;
	return psprintf("%s%s%s", signed_text(touchpoint->score), touchpoint->peak == NULL ? "" : ", ",
					touchpoint->peak == NULL ? "" : touchpoint->peak);
}

static const char *
score_class(const Touchpoint *touchpoint)
{
	if (touchpoint->peak == NULL)
		return "text";
	return strcmp(touchpoint->peak, "high") == 0 ? "here" : "out";
}

static const struct
{
	const char *heading;
	Words words; /* NULL: nothing to say */
} lines[] = {
	{ "Lost", loss_words },  { "Until next", delay_words }, { "Complaints", complaint_words },
	{ "Notes", note_words }, { "Score", score_words },
};

static void
draw_lines(CrmPicture *picture, const Band *band, double y)
{
	for (int line = 0; line < lengthof(lines); line++)
	{
		bool is_score = lines[line].words == score_words;

		draw_heading(picture, y + 14, lines[line].heading);
		for (int i = 0; i < band->n; i++)
		{
			char *words = lines[line].words(&band->touchpoints[i]);

			crm_picture_text(picture,
							 words == NULL  ? "muted"
								 : is_score ? score_class(&band->touchpoints[i])
											: "text",
							 CRM_ANCHOR_MIDDLE, middle_of(band, i), y + 14, band->column - 8,
							 words == NULL ? "-" : words);
		}
		y += LINE_HEIGHT;
	}
}

#define BAND_HEIGHT                                                                            \
	(STAGE_HEIGHT + 6 + CARD_HEIGHT + 6 + EMOTION_HEIGHT + 6 + lengthof(lines) * LINE_HEIGHT + \
	 BAND_GAP)

static void
draw_band(CrmPicture *picture, const Band *band)
{
	double y = band->top;

	draw_heading(picture, y + 17.5, "Stage");
	draw_stages(picture, band);
	y += STAGE_HEIGHT + 6;
	draw_heading(picture, y + 20, "Touchpoint");
	draw_cards(picture, band, y);
	y += CARD_HEIGHT + 6;
	draw_emotions(picture, band, y);
	y += EMOTION_HEIGHT + 6;
	draw_lines(picture, band, y);
}

/* ---------- paths ---------- */

static const struct
{
	const char *state;
	const char *class;
	const char *words;
} states[] = {
	{ "as_drawn", "talk", "as drawn" },         { "undrawn", "choice", "not on the map" },
	{ "unseen", "other", "drawn, not taken" },  { "lost", "lost", "went no further" },
	{ "ended", "other", "the map ends there" }, { "still_open", "wait", "may go on yet" },
};

static void
draw_path(CrmPicture *picture, const Map *map, const Path *path, double y)
{
	const char *class = "other";
	const char *words = path->state;
	double bar = MARGIN + 2 * NAME_WIDTH + 30;
	StringInfoData said;

	for (int i = 0; i < lengthof(states); i++)
		if (strcmp(states[i].state, path->state) == 0)
		{
			class = states[i].class;
			words = states[i].words;
		}
	initStringInfo(&said);
	appendStringInfoString(&said, crm_grouped_digits(path->transitions));
	if (!isnan(path->share))
		appendStringInfo(&said, ", %.0f%%", round(100 * path->share));
	if (!isnan(path->seconds))
		appendStringInfo(&said, ", %s", crm_duration_text(path->seconds));

	crm_picture_group(picture, NULL,
					  psprintf("%s, %s: %s, %s%s%s", path->from,
							   path->to == NULL ? "nowhere" : path->to, said.data, words,
							   path->label == NULL ? "" : ": ",
							   path->label == NULL ? "" : path->label));
	crm_picture_text(picture, "text", CRM_ANCHOR_START, MARGIN, y + 14, NAME_WIDTH - 8, path->from);
	if (path->to != NULL)
	{
		crm_picture_line(picture, "track", MARGIN + NAME_WIDTH, y + 9.5, MARGIN + NAME_WIDTH + 9,
						 y + 9.5);
		crm_picture_path(picture, "flow-head",
						 psprintf("M%.1f %.1fL%.1f %.1fL%.1f %.1fZ", MARGIN + NAME_WIDTH + 15,
								  y + 9.5, MARGIN + NAME_WIDTH + 8, y + 5.5,
								  MARGIN + NAME_WIDTH + 8, y + 13.5),
						 0);
		crm_picture_text(picture, "text", CRM_ANCHOR_START, MARGIN + NAME_WIDTH + 22, y + 14,
						 NAME_WIDTH - 8, path->to);
	}
	else
		crm_picture_text(picture, "muted", CRM_ANCHOR_START, MARGIN + NAME_WIDTH + 22, y + 14,
						 NAME_WIDTH - 8, words);
	if (path->transitions > 0)
		crm_picture_box(picture, class, bar, y + 4,
						Max(BAR_WIDTH * path->transitions / Max(map->most, 1), 1.5), 11, 2);
	crm_picture_text(picture, "text", CRM_ANCHOR_START, bar + BAR_WIDTH + 10, y + 14, 156,
					 said.data);
	if (path->to != NULL)
		crm_picture_text(picture, "muted", CRM_ANCHOR_END, WIDTH - MARGIN, y + 14, 142, words);
	crm_picture_group_end(picture);
}

/* ---------- all of it ---------- */

static char *
description_of(const Map *map, const char *subtitle)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "%s.", subtitle);
	for (int i = 0; i < map->ntouchpoints; i++)
	{
		const Touchpoint *touchpoint = &map->touchpoints[i];

		appendStringInfo(&buf, " %s, %s: %s visits", touchpoint->stage, touchpoint->label,
						 crm_grouped_digits(touchpoint->visits));
		if (!isnan(touchpoint->emotion))
			appendStringInfo(&buf, ", emotion %+.1f", touchpoint->emotion);
		if (touchpoint->peak != NULL)
			appendStringInfo(&buf, ", a %s", touchpoint->peak);
		appendStringInfoChar(&buf, '.');
	}
	return buf.data;
}

static double
draw_goals(CrmPicture *picture, const Map *map, double y)
{
	for (int i = 0; i < map->ngoals; i++)
	{
		const Goal *goal = &map->goals[i];
		bool reached = strcmp(goal->state, "reached") == 0;
		char *figures = psprintf("%s of %s, %s",
								 goal->measured == NULL ? "not known"
														: crm_grouped_decimal(goal->measured),
								 crm_grouped_decimal(goal->target), goal->state);

		crm_picture_text(picture, "muted", CRM_ANCHOR_START, MARGIN, y + 14, HEADING_WIDTH - 8,
						 i == 0 ? "Goals" : "");
		crm_picture_text(picture, "text", CRM_ANCHOR_START, MARGIN + HEADING_WIDTH, y + 14, 380,
						 goal->label);
		crm_picture_text(picture, reached ? "here" : "out", CRM_ANCHOR_START,
						 MARGIN + HEADING_WIDTH + 400, y + 14, 420, figures);
		y += GOAL_HEIGHT;
	}
	return map->ngoals == 0 ? y : y + GAP;
}

static double
draw_paths(CrmPicture *picture, const Map *map, double y)
{
	crm_picture_text(
		picture, "name", CRM_ANCHOR_START, MARGIN, y + 14, 0,
		"Paths that people took: how many, their share of those who left, the median time");
	y += PATH_HEIGHT + 4;
	for (int i = 0; i < map->npaths; i++)
	{
		CHECK_FOR_INTERRUPTS();
		draw_path(picture, map, &map->paths[i], y);
		y += PATH_HEIGHT;
	}
	if (map->npaths == 0)
		crm_picture_text(picture, "muted", CRM_ANCHOR_START, MARGIN, y + 14, 0,
						 "none in this time");
	if (map->all_paths > map->npaths)
		crm_picture_text(picture, "muted", CRM_ANCHOR_START, MARGIN, y + 14, 0,
						 psprintf("%s more are in crm.map_path()",
								  crm_grouped_digits(map->all_paths - map->npaths)));
	return y + PATH_HEIGHT;
}

static text *
draw(const Map *map, const char *subtitle)
{
	int nbands = (map->ntouchpoints + MOST_COLUMNS - 1) / MOST_COLUMNS;
	/* the bands of a long map are as long as each other, and stand in line */
	int ncolumns = nbands == 0 ? 0 : (map->ntouchpoints + nbands - 1) / nbands;
	double height = HEAD_HEIGHT + map->ngoals * GOAL_HEIGHT + (map->ngoals == 0 ? 0 : GAP) +
		nbands * BAND_HEIGHT + (map->npaths + 2) * PATH_HEIGHT + 4 + MARGIN / 2;
	CrmPicture picture;
	double y;

	crm_picture_open(&picture, WIDTH, (int) ceil(height), psprintf("Map %s", map->title),
					 description_of(map, subtitle));
	crm_picture_text(&picture, "title", CRM_ANCHOR_START, MARGIN, 34,
					 (WIDTH - 2 * MARGIN) / CRM_PICTURE_TITLE_SCALE, map->title);
	crm_picture_text(&picture, "muted", CRM_ANCHOR_START, MARGIN, 55, WIDTH - 2 * MARGIN, subtitle);
	y = draw_goals(&picture, map, HEAD_HEIGHT);
	for (int i = 0; i < nbands; i++)
	{
		Band band = { .touchpoints = &map->touchpoints[i * ncolumns], .top = y };

		CHECK_FOR_INTERRUPTS();
		band.n = Min(map->ntouchpoints - i * ncolumns, ncolumns);
		band.goes_on = i > 0 && band.touchpoints[0].stage_place == band.touchpoints[-1].stage_place;
		band.column = (WIDTH - 2 * MARGIN - HEADING_WIDTH) / Max(ncolumns, 3);
		draw_band(&picture, &band);
		y += BAND_HEIGHT;
	}
	if (map->ntouchpoints == 0)
		crm_picture_text(&picture, "muted", CRM_ANCHOR_START, MARGIN, y + 14, 0,
						 "there are no touchpoints");
	else
		draw_paths(&picture, map, y);
	return crm_picture_close(&picture);
}

/* Between crm_connect() and crm_disconnect(). */
static void
read_map(Map *map, const Datum *values, const char *nulls, MemoryContext context)
{
	read_touchpoints(map, values, nulls, context);
	read_paths(map, values, nulls, context);
	read_goals(map, values, nulls, context);
}

text *
crm_map_picture(const char *name, TimestampTz start, TimestampTz end, pg_tz *zone,
				const char *zone_name, MemoryContext context)
{
	Datum values[PARAMETERS] = { CStringGetTextDatum(name), TimestampTzGetDatum(start),
								 TimestampTzGetDatum(end) };
	Map map = { 0 };

	read_map(&map, values, "   nn", context);
	return draw(&map,
				psprintf("version %d, %s", map.version,
						 crm_period_text(start, end, zone, zone_name)));
}

Datum
crm_sql_map_svg(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	Map map = { 0 };
	const char *zone_name;
	pg_tz *zone;
	Datum values[PARAMETERS];
	char nulls[PARAMETERS + 1] = "     ";
	char *when;
	CrmActing acting;

	crm_require_value(fcinfo, 0, "map", "map_svg");
	zone_name = crm_time_zone_argument(fcinfo, 5, &zone);
	for (int i = 0; i < PARAMETERS; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	crm_connect(&acting);
	read_map(&map, values, nulls, context);
	crm_disconnect(&acting);

	if (PG_ARGISNULL(1))
		when = psprintf("all that happened until %s, %s", crm_minute_text(crm_now(), zone),
						zone_name);
	else
		when = crm_period_text(PG_GETARG_TIMESTAMPTZ(1), PG_GETARG_TIMESTAMPTZ(2), zone, zone_name);
	PG_RETURN_TEXT_P(
		draw(&map,
			 psprintf("version %d, %s%s%s", map.version, PG_ARGISNULL(3) ? "" : "persona ",
					  PG_ARGISNULL(3) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(3)),
					  psprintf("%s%s", PG_ARGISNULL(3) ? "" : ", ", when))));
}
