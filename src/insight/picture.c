/*
 * picture.c
 *		Writes standalone SVG: shapes, text and time axes.
 *
 * Own text is plain ASCII (other characters as references), so that pictures
 * can be made in a database of any encoding.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "insight/picture.h"

#define ELLIPSIS_WIDTH CRM_PICTURE_FONT_SIZE
#define TICK_GAP       18.0

/* Every colour twice; the names begin with crm- as pages may hold several pictures. */
const char crm_picture_style[] =
	"<style>\n"
	".crm-paper{fill:#ffffff}\n"
	".crm-text,.crm-title,.crm-muted,.crm-name,.crm-here,.crm-out{font-family:system-ui,-apple-system,'Segoe UI',"
	"'Noto Sans','DejaVu Sans','PingFang SC','Microsoft YaHei','Noto Sans CJK SC',sans-serif;"
	"font-variant-numeric:tabular-nums}\n"
	".crm-title{font-size:17px;font-weight:600;fill:#1b1f24}\n"
	".crm-text{font-size:13px;fill:#1b1f24}\n"
	".crm-muted{font-size:12px;fill:#656d76}\n"
	".crm-grid{stroke:#e4e7eb;stroke-width:1}\n"
	".crm-frame{stroke:#9aa2ab;stroke-width:1}\n"
	".crm-track{stroke:#b4bcc5;stroke-width:1.5}\n"
	".crm-empty{stroke:#c9cfd6;stroke-width:1.5;stroke-dasharray:2 5}\n"
	".crm-gained{stroke:#0b7a75;stroke-width:3}\n"
	".crm-mark{fill:#0b7a75;stroke:#ffffff;stroke-width:2}\n"
	".crm-name{font-size:13px;font-weight:600;fill:#1b1f24}\n"
	".crm-value{fill:#1b1f24}\n"
	".crm-here{font-size:12px;fill:#0b7a75}\n"
	".crm-out{font-size:12px;fill:#a8442f}\n"
	".crm-box{fill:#ffffff;stroke:#b4bcc5;stroke-width:1}\n"
	".crm-empty-box{fill:#f6f7f8;stroke:#c9cfd6;stroke-width:1;stroke-dasharray:4 3}\n"
	".crm-entry{fill:#e3f3f1;stroke:#0b7a75;stroke-width:1.5}\n"
	".crm-end{fill:none;stroke:#656d76;stroke-width:1.5}\n"
	".crm-end-dot{fill:#656d76}\n"
	".crm-flow{fill:none;stroke:#7d9aa6}\n"
	".crm-fault{fill:none;stroke:#cf8a78}\n"
	".crm-unused{fill:none;stroke:#c9cfd6;stroke-width:1.2;stroke-dasharray:3 4}\n"
	".crm-flow-head{fill:#7d9aa6}\n"
	".crm-fault-head{fill:#cf8a78}\n"
	".crm-unused-head{fill:#c9cfd6}\n"
	".crm-talk{fill:#0b7a75}\n"
	".crm-wait{fill:#c98a1b}\n"
	".crm-choice{fill:#7a5bb5}\n"
	".crm-change{fill:#3572b0}\n"
	".crm-other{fill:#8a929b}\n"
	".crm-lost{fill:#d79b8b}\n"
	".crm-bar-track{fill:#eef0f2}\n"
	".crm-curve{fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}\n"
	".crm-unfinished{fill:none;stroke:currentColor;stroke-width:2;stroke-dasharray:2 4}\n"
	".crm-area{fill:currentColor;fill-opacity:0.13}\n"
	".crm-dot{fill:currentColor}\n"
	".crm-leader{stroke:currentColor;stroke-width:1;stroke-opacity:0.45}\n"
	".crm-unknown{fill:#eef0f2}\n"
	".crm-band{fill:#656d76;fill-opacity:0}\n"
	".crm-band:hover{fill-opacity:0.14}\n"
	".crm-series-1{color:#0b7a75}\n"
	".crm-series-2{color:#c26a12}\n"
	".crm-series-3{color:#3566b8}\n"
	".crm-series-4{color:#b0306a}\n"
	".crm-series-5{color:#6d7f16}\n"
	".crm-series-6{color:#7a4fc0}\n"
	".crm-series-7{color:#8a5a44}\n"
	".crm-series-8{color:#5d6670}\n"
	"@media (prefers-color-scheme:dark){\n"
	".crm-paper{fill:#15181c}\n"
	".crm-title,.crm-text,.crm-name,.crm-value{fill:#e8eaed}\n"
	".crm-muted{fill:#9aa4af}\n"
	".crm-grid{stroke:#2a2f36}\n"
	".crm-frame{stroke:#6b747e}\n"
	".crm-track{stroke:#59626c}\n"
	".crm-empty{stroke:#454d56}\n"
	".crm-gained{stroke:#35c9bd}\n"
	".crm-mark{fill:#35c9bd;stroke:#15181c}\n"
	".crm-here{fill:#35c9bd}\n"
	".crm-out{fill:#ef9a85}\n"
	".crm-box{fill:#1e2329;stroke:#59626c}\n"
	".crm-empty-box{fill:#191d22;stroke:#454d56}\n"
	".crm-entry{fill:#12312f;stroke:#35c9bd}\n"
	".crm-end{stroke:#9aa4af}\n"
	".crm-end-dot{fill:#9aa4af}\n"
	".crm-flow{stroke:#67818d}\n"
	".crm-fault{stroke:#a5604f}\n"
	".crm-unused{stroke:#454d56}\n"
	".crm-flow-head{fill:#67818d}\n"
	".crm-fault-head{fill:#a5604f}\n"
	".crm-unused-head{fill:#454d56}\n"
	".crm-talk{fill:#35c9bd}\n"
	".crm-wait{fill:#e0b050}\n"
	".crm-choice{fill:#a78be0}\n"
	".crm-change{fill:#6ea6df}\n"
	".crm-other{fill:#7d858e}\n"
	".crm-lost{fill:#a5604f}\n"
	".crm-bar-track{fill:#22272d}\n"
	".crm-unknown{fill:#20252b}\n"
	".crm-band{fill:#9aa4af}\n"
	".crm-series-1{color:#35c9bd}\n"
	".crm-series-2{color:#f0a04b}\n"
	".crm-series-3{color:#7fa8f0}\n"
	".crm-series-4{color:#f07fb0}\n"
	".crm-series-5{color:#b9c94e}\n"
	".crm-series-6{color:#b899f2}\n"
	".crm-series-7{color:#cf9d86}\n"
	".crm-series-8{color:#aab3bd}\n"
	"}\n"
	"</style>\n";

void
crm_picture_open(CrmPicture *picture, int width, int height, const char *title,
				 const char *description)
{
	StringInfo svg = &picture->svg;

	initStringInfo(svg);
	picture->width = width;
	picture->height = height;
	appendStringInfo(svg,
					 "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"%d\" "
					 "height=\"%d\" viewBox=\"0 0 %d %d\">\n<title>",
					 width, height, width, height);
	crm_picture_escape(svg, title);
	appendStringInfoString(svg, "</title>\n<desc>");
	crm_picture_escape(svg, description);
	appendStringInfoString(svg, "</desc>\n");
	appendStringInfoString(svg, crm_picture_style);
	appendStringInfo(svg, "<rect class=\"crm-paper\" width=\"%d\" height=\"%d\"/>\n", width,
					 height);
}

text *
crm_picture_close(CrmPicture *picture)
{
	appendStringInfoString(&picture->svg, "</svg>\n");
	return cstring_to_text_with_len(picture->svg.data, picture->svg.len);
}

void
crm_picture_line(CrmPicture *picture, const char *class, double x1, double y1, double x2, double y2)
{
	appendStringInfo(&picture->svg,
					 "<line class=\"crm-%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n",
					 class, x1, y1, x2, y2);
}

void
crm_picture_circle(CrmPicture *picture, const char *class, double x, double y, double radius,
				   const char *tooltip)
{
	appendStringInfo(&picture->svg, "<circle class=\"crm-%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"",
					 class, x, y, radius);
	if (tooltip != NULL)
	{
		appendStringInfoString(&picture->svg, "><title>");
		crm_picture_escape(&picture->svg, tooltip);
		appendStringInfoString(&picture->svg, "</title></circle>\n");
	}
	else
		appendStringInfoString(&picture->svg, "/>\n");
}

/* Bytes of the first character, never past the end of the string. */
static int
character_length(const char *string)
{
	return (int) strnlen(string, pg_mblen(string));
}

/*
 * Width of one character in ems, after DejaVu Sans: the widest of the fonts
 * that are likely to be there.
 */
static double
character_width(const char *character)
{
	unsigned char c = (unsigned char) *character;

	if (IS_HIGHBIT_SET(c))
	{
		int cells = pg_dsplen(character);

		return cells <= 0 ? 0.0 : cells == 1 ? 0.8 : 1.0;
	}
	if (strchr("WM@%mw", c) != NULL)
		return 1.0;
	if (strchr("il.,:;'|! jtfr()[]I", c) != NULL)
		return 0.42;
	return c >= 'A' && c <= 'Z' ? 0.78 : 0.64;
}

double
crm_picture_text_width(const char *string)
{
	double width = 0;

	for (const char *s = string; *s != '\0'; s += character_length(s))
		width += character_width(s);
	return width * CRM_PICTURE_FONT_SIZE;
}

/* Bytes of the string that fit, characters whole. */
static int
fitting_length(const char *string, double max_width)
{
	double width = 0;
	const char *s;

	for (s = string; *s != '\0'; s += character_length(s))
	{
		width += character_width(s) * CRM_PICTURE_FONT_SIZE;
		if (width > max_width)
			break;
	}
	return (int) (s - string);
}

static const char *const anchors[] = {
	"",
	" text-anchor=\"middle\"",
	" text-anchor=\"end\"",
};

void
crm_picture_text(CrmPicture *picture, const char *class, CrmAnchor anchor, double x, double y,
				 double max_width, const char *string)
{
	StringInfo svg = &picture->svg;

	appendStringInfo(svg, "<text class=\"crm-%s\" x=\"%.1f\" y=\"%.1f\"%s>", class, x, y,
					 anchors[anchor]);
	if (max_width > 0 && crm_picture_text_width(string) > max_width)
	{
		/* the whole of it is the tooltip */
		char *head = pnstrdup(string, fitting_length(string, max_width - ELLIPSIS_WIDTH));

		crm_picture_escape(svg, head);
		appendStringInfoString(svg, "&#8230;<title>");
		crm_picture_escape(svg, string);
		appendStringInfoString(svg, "</title>");
		pfree(head);
	}
	else
		crm_picture_escape(svg, string);
	appendStringInfoString(svg, "</text>\n");
}

void
crm_picture_caption(CrmPicture *picture, CrmAnchor anchor, double x, double y, double max_width,
					const char *name, const char *value)
{
	StringInfo svg = &picture->svg;
	double room = max_width - crm_picture_text_width(value);
	bool cut = crm_picture_text_width(name) > room;

	appendStringInfo(svg, "<text class=\"crm-muted\" x=\"%.1f\" y=\"%.1f\"%s>", x, y,
					 anchors[anchor]);
	if (cut)
	{
		char *head = pnstrdup(name, fitting_length(name, Max(room - ELLIPSIS_WIDTH, 0)));

		crm_picture_escape(svg, head);
		appendStringInfoString(svg, "&#8230;");
		pfree(head);
	}
	else
		crm_picture_escape(svg, name);
	if (*value != '\0')
	{
		appendStringInfo(svg, "%s<tspan class=\"crm-value\">", *name == '\0' ? "" : " ");
		crm_picture_escape(svg, value);
		appendStringInfoString(svg, "</tspan>");
	}
	if (cut)
	{
		appendStringInfoString(svg, "<title>");
		crm_picture_escape(svg, name);
		appendStringInfoString(svg, "</title>");
	}
	appendStringInfoString(svg, "</text>\n");
}

void
crm_picture_box(CrmPicture *picture, const char *class, double x, double y, double width,
				double height, double radius)
{
	appendStringInfo(&picture->svg,
					 "<rect class=\"crm-%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
					 "height=\"%.1f\" rx=\"%.1f\"/>\n",
					 class, x, y, width, height, radius);
}

void
crm_picture_path(CrmPicture *picture, const char *class, const char *data, double width)
{
	appendStringInfo(&picture->svg, "<path class=\"crm-%s\"", class);
	if (width > 0)
		appendStringInfo(&picture->svg, " stroke-width=\"%.1f\"", width);
	appendStringInfo(&picture->svg, " d=\"%s\"/>\n", data);
}

void
crm_picture_group(CrmPicture *picture, const char *class, const char *tooltip)
{
	StringInfo svg = &picture->svg;

	appendStringInfoString(svg, "<g");
	if (class != NULL)
		appendStringInfo(svg, " class=\"crm-%s\"", class);
	appendStringInfoChar(svg, '>');
	if (tooltip != NULL)
	{
		appendStringInfoString(svg, "<title>");
		crm_picture_escape(svg, tooltip);
		appendStringInfoString(svg, "</title>");
	}
	appendStringInfoChar(svg, '\n');
}

void
crm_picture_group_end(CrmPicture *picture)
{
	appendStringInfoString(&picture->svg, "</g>\n");
}

/* U+202A to U+202E and U+2066 to U+2069: they would turn what stands behind them, too. */
static bool
turns_direction(const char *character, int length)
{
	unsigned char last = (unsigned char) character[length - 1];

	return length == 3 &&
		((memcmp(character, "\xE2\x80", 2) == 0 && last >= 0xAA && last <= 0xAE) ||
		 (memcmp(character, "\xE2\x81", 2) == 0 && last >= 0xA6 && last <= 0xA9));
}

/*
 * As XML 1.0 takes it: what must be escaped is, white space becomes a blank,
 * and characters that XML knows no way to write become U+FFFD.
 */
void
crm_picture_escape(StringInfo buf, const char *string)
{
	bool utf8 = GetDatabaseEncoding() == PG_UTF8;
	int length;

	for (const char *s = string; *s != '\0'; s += length)
	{
		length = character_length(s);
		if (utf8 && length == 3 && memcmp(s, "\xEF\xBF", 2) == 0 && (unsigned char) s[2] >= 0xBE)
			appendStringInfoString(buf, "&#65533;");
		else if (utf8 && turns_direction(s, length))
			continue;
		else if (length > 1)
			appendBinaryStringInfo(buf, s, length);
		else
			switch (*s)
			{
				case '&':
					appendStringInfoString(buf, "&amp;");
					break;
				case '<':
					appendStringInfoString(buf, "&lt;");
					break;
				case '>':
					appendStringInfoString(buf, "&gt;");
					break;
				case '"':
					appendStringInfoString(buf, "&quot;");
					break;
				case '\'':
					appendStringInfoString(buf, "&#39;");
					break;
				case '\t':
				case '\n':
				case '\r':
					appendStringInfoChar(buf, ' ');
					break;
				default:
					if ((unsigned char) *s < 0x20 || *s == 0x7f)
						appendStringInfoString(buf, "&#65533;");
					else
						appendStringInfoChar(buf, *s);
			}
	}
}

/* ---------- time axes ---------- */

typedef enum StepUnit
{
	STEP_SECONDS,
	STEP_DAYS,
	STEP_MONTHS
} StepUnit;

typedef struct TickStep
{
	StepUnit unit;
	int64 count;
	double seconds;     /* about */
	const char *widest; /* label */
} TickStep;

#define DAY_SECONDS   ((double) SECS_PER_DAY)
#define MONTH_SECONDS (DAY_SECONDS * 30.4)

/* clang-format off */
static const TickStep tick_steps[] = {
	{STEP_SECONDS, 1, 1, "00:00:00"}, {STEP_SECONDS, 2, 2, "00:00:00"},
	{STEP_SECONDS, 5, 5, "00:00:00"}, {STEP_SECONDS, 10, 10, "00:00:00"},
	{STEP_SECONDS, 30, 30, "00:00:00"},
	{STEP_SECONDS, 60, 60, "00:00"}, {STEP_SECONDS, 120, 120, "00:00"},
	{STEP_SECONDS, 300, 300, "00:00"}, {STEP_SECONDS, 600, 600, "00:00"},
	{STEP_SECONDS, 1800, 1800, "00:00"}, {STEP_SECONDS, 3600, 3600, "00:00"},
	{STEP_SECONDS, 7200, 7200, "00:00"},
	{STEP_SECONDS, 21600, 21600, "00-00 00:00"}, {STEP_SECONDS, 43200, 43200, "00-00 00:00"},
	{STEP_DAYS, 1, DAY_SECONDS, "0000-00-00"}, {STEP_DAYS, 2, DAY_SECONDS * 2, "0000-00-00"},
	{STEP_DAYS, 7, DAY_SECONDS * 7, "0000-00-00"}, {STEP_DAYS, 14, DAY_SECONDS * 14, "0000-00-00"},
	{STEP_MONTHS, 1, MONTH_SECONDS, "0000-00"}, {STEP_MONTHS, 2, MONTH_SECONDS * 2, "0000-00"},
	{STEP_MONTHS, 3, MONTH_SECONDS * 3, "0000-00"}, {STEP_MONTHS, 6, MONTH_SECONDS * 6, "0000-00"},
	{STEP_MONTHS, 12, MONTH_SECONDS * 12, "0000"}, {STEP_MONTHS, 24, MONTH_SECONDS * 24, "0000"},
	{STEP_MONTHS, 60, MONTH_SECONDS * 60, "0000"}, {STEP_MONTHS, 120, MONTH_SECONDS * 120, "0000"},
	{STEP_MONTHS, 600, MONTH_SECONDS * 600, "0000"}, {STEP_MONTHS, 1200, MONTH_SECONDS * 1200, "0000"},
	{STEP_MONTHS, 12000, MONTH_SECONDS * 12000, "00000"},
	{STEP_MONTHS, 240000, MONTH_SECONDS * 240000, "000000"},
};
/* clang-format on */

static double
axis_seconds(const CrmTimeAxis *axis)
{
	/* the longest span is more than an int64 of microseconds */
	return ((double) axis->to - (double) axis->from) / USECS_PER_SEC;
}

double
crm_time_axis_x(const CrmTimeAxis *axis, TimestampTz at)
{
	double seconds = axis_seconds(axis);
	double part;

	if (seconds <= 0)
		return axis->left;
	part = ((double) at - (double) axis->from) / USECS_PER_SEC / seconds;
	return axis->left + (axis->right - axis->left) * Min(Max(part, 0.0), 1.0);
}

static void
local_time(const CrmTimeAxis *axis, TimestampTz at, struct pg_tm *tm)
{
	int tz;
	fsec_t fsec;

	if (timestamp2tm(at, &tz, tm, &fsec, NULL, axis->zone) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
}

static char *
local_text(const CrmTimeAxis *axis, TimestampTz at, bool minutes, bool seconds)
{
	struct pg_tm tm;
	StringInfoData buf;

	local_time(axis, at, &tm);
	initStringInfo(&buf);
	appendStringInfo(&buf, "%04d-%02d-%02d", tm.tm_year, tm.tm_mon, tm.tm_mday);
	if (minutes)
		appendStringInfo(&buf, " %02d:%02d", tm.tm_hour, tm.tm_min);
	if (seconds)
		appendStringInfo(&buf, ":%02d", tm.tm_sec);
	return buf.data;
}

char *
crm_time_axis_date(const CrmTimeAxis *axis, TimestampTz at)
{
	double span = axis_seconds(axis);

	return local_text(axis, at, span < 14 * DAY_SECONDS, span < 3600);
}

char *
crm_time_axis_moment(const CrmTimeAxis *axis, TimestampTz at)
{
	return local_text(axis, at, true, true);
}

/* The place of a local time in the row of steps: its last multiple. */
static int64
floor_step(int64 value, int64 count)
{
	return (value >= 0 ? value : value - count + 1) / count * count;
}

/* The moment that a value counts, in the units of the step, from a base. */
static bool
tick_at(const CrmTimeAxis *axis, const TickStep *step, int base_day, int64 value, TimestampTz *at,
		struct pg_tm *tm)
{
	int tz;

	memset(tm, 0, sizeof(*tm));
	tm->tm_mon = 1;
	tm->tm_mday = 1;
	tm->tm_isdst = -1;
	switch (step->unit)
	{
		case STEP_SECONDS:
			j2date(base_day + value / SECS_PER_DAY, &tm->tm_year, &tm->tm_mon, &tm->tm_mday);
			value %= SECS_PER_DAY;
			tm->tm_hour = value / SECS_PER_HOUR;
			tm->tm_min = value / SECS_PER_MINUTE % MINS_PER_HOUR;
			tm->tm_sec = value % SECS_PER_MINUTE;
			break;
		case STEP_DAYS:
			j2date(value, &tm->tm_year, &tm->tm_mon, &tm->tm_mday);
			break;
		case STEP_MONTHS:
			tm->tm_year = (int) (floor_step(value, MONTHS_PER_YEAR) / MONTHS_PER_YEAR);
			tm->tm_mon = (int) (value - (int64) tm->tm_year * MONTHS_PER_YEAR) + 1;
			break;
	}
	if (!IS_VALID_JULIAN(tm->tm_year, tm->tm_mon, tm->tm_mday))
		return false;
	tz = DetermineTimeZoneOffset(tm, axis->zone);
	return tm2timestamp(tm, 0, &tz, at) == 0;
}

static const char *
tick_label(const TickStep *step, const struct pg_tm *tm)
{
	if (step->unit == STEP_DAYS)
		return psprintf("%04d-%02d-%02d", tm->tm_year, tm->tm_mon, tm->tm_mday);
	if (step->unit == STEP_MONTHS)
		return step->count < MONTHS_PER_YEAR ? psprintf("%04d-%02d", tm->tm_year, tm->tm_mon)
											 : psprintf("%d", tm->tm_year);
	if (step->count < SECS_PER_MINUTE)
		return psprintf("%02d:%02d:%02d", tm->tm_hour, tm->tm_min, tm->tm_sec);
	if (step->count <= 2 * SECS_PER_HOUR)
		return psprintf("%02d:%02d", tm->tm_hour, tm->tm_min);
	return psprintf("%02d-%02d %02d:%02d", tm->tm_mon, tm->tm_mday, tm->tm_hour, tm->tm_min);
}

void
crm_time_axis_draw(CrmPicture *picture, const CrmTimeAxis *axis, double top, double bottom,
				   const double *label_y, int nlabels)
{
	double seconds = axis_seconds(axis);
	const TickStep *step = tick_steps;
	struct pg_tm tm;
	int base_day;
	int64 value;
	double last_x = axis->left - TICK_GAP;

	if (seconds <= 0)
		return;
	while (step < tick_steps + lengthof(tick_steps) - 1 &&
		   ((axis->whole_days && step->unit == STEP_SECONDS) ||
			step->seconds / seconds * (axis->right - axis->left) <
				crm_picture_text_width(step->widest) + TICK_GAP))
		step++;

	local_time(axis, axis->from, &tm);
	base_day = date2j(tm.tm_year, tm.tm_mon, tm.tm_mday);
	if (step->unit == STEP_SECONDS)
		value = (tm.tm_hour * MINS_PER_HOUR + tm.tm_min) * SECS_PER_MINUTE + tm.tm_sec;
	else if (step->unit == STEP_DAYS)
		value = base_day; /* a multiple of seven is a Monday */
	else
		value = (int64) tm.tm_year * MONTHS_PER_YEAR + tm.tm_mon - 1;

	/* the step keeps the labels apart, so there are few */
	for (value = floor_step(value, step->count);; value += step->count)
	{
		TimestampTz at;
		double x;

		CHECK_FOR_INTERRUPTS();
		if (!tick_at(axis, step, base_day, value, &at, &tm) || at > axis->to)
			break;
		x = crm_time_axis_x(axis, at);
		/* clocks that are set back or on can move a tick onto its neighbour */
		if (at < axis->from || x < last_x + TICK_GAP)
			continue;
		last_x = x;
		crm_picture_line(picture, "grid", x, top, x, bottom);
		for (int i = 0; i < nlabels; i++)
			crm_picture_text(picture, "muted", CRM_ANCHOR_MIDDLE, x, label_y[i], 0,
							 tick_label(step, &tm));
	}
}
