/*
 * report_html.c
 *		crm.report_html(): a period as one page, for whoever leads the CRM of a brand.
 *
 * The statements are in report_tables.c: a column of a statement is a column of a
 * table. Nothing here says who a contact is.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/roll_up.h"
#include "insight/figures.h"
#include "insight/funnel_svg.h"
#include "insight/map_svg.h"
#include "insight/page.h"
#include "insight/period.h"
#include "insight/report_tables.h"
#include "insight/trend.h"

PG_FUNCTION_INFO_V1(crm_sql_report_html);

#define MOST_FUNNELS 12
#define MOST_MAPS    6

typedef struct Report
{
	CrmPage page;
	TimestampTz start;
	TimestampTz end;
	const char *zone_name;
	pg_tz *zone;
	bool whole; /* it and the period before it are of days that roll-ups count by */
	MemoryContext context;
} Report;

static bool
is_number(Oid type)
{
	return type == INT4OID || type == INT8OID || type == NUMERICOID || type == FLOAT8OID;
}

/* As long a time before by the clock, as the statements have it. */
static TimestampTz
start_before(TimestampTz start, TimestampTz end, const char *zone_name)
{
	Datum zone = CStringGetTextDatum(zone_name);
	Timestamp local = DatumGetTimestamp(
		DirectFunctionCall2(timestamptz_zone, zone, TimestampTzGetDatum(start)));

	return DatumGetTimestampTz(
		DirectFunctionCall2(timestamp_zone, zone, TimestampGetDatum(local - (end - start))));
}

static uint64
run(const Report *report, CrmReportPart *part)
{
	bool by_counts = report->whole && part->by_counts.sql != NULL && crm_roll_ups_kept();
	Datum values[CRM_REPORT_TABLE_PARAMETERS];

	values[0] = TimestampTzGetDatum(report->start);
	values[1] = TimestampTzGetDatum(report->end);
	values[2] = CStringGetTextDatum(report->zone_name);
	values[3] = TimestampTzGetDatum(crm_now());
	values[4] = BoolGetDatum(report->whole);
	return crm_read(by_counts ? &part->by_counts : &part->plan, values, NULL);
}

/* NULL where it is null */
static char *
cell_text(uint64 row, int column, bool number)
{
	char *value = SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column);

	return value == NULL || !number ? value : crm_grouped_decimal(value);
}

/* ---------- parts ---------- */

static void
put_figures(Report *report, CrmReportPart *part)
{
	uint64 nrows = run(report, part);

	crm_page_figures(&report->page);
	for (uint64 row = 0; row < nrows; row++)
		crm_page_figure(&report->page, crm_result_text(row, 1), cell_text(row, 2, true),
						crm_result_text(row, 3));
	crm_page_figures_end(&report->page);
}

/*
 * A last column named of is no column of the table: it says how many rows there
 * are, of which these are the first.
 */
static void
put_table(Report *report, CrmReportPart *part)
{
	uint64 nrows = run(report, part);
	TupleDesc columns = SPI_tuptable->tupdesc;
	int ncolumns = columns->natts;
	bool limited = strcmp(SPI_fname(columns, ncolumns), "of") == 0;
	int64 all = limited && nrows > 0 ? crm_result_int64(0, ncolumns) : (int64) nrows;

	if (limited)
		ncolumns--;
	if (nrows == 0)
	{
		crm_page_note(&report->page, psprintf("%s: %s", part->title, part->nothing));
		return;
	}
	crm_page_table(&report->page, part->title);
	crm_page_row(&report->page);
	for (int i = 1; i <= ncolumns; i++)
		crm_page_head(&report->page, SPI_fname(columns, i), is_number(SPI_gettypeid(columns, i)));
	crm_page_row_end(&report->page);
	crm_page_table_body(&report->page);
	for (uint64 row = 0; row < nrows; row++)
	{
		CHECK_FOR_INTERRUPTS();
		crm_page_row(&report->page);
		for (int i = 1; i <= ncolumns; i++)
		{
			bool number = is_number(SPI_gettypeid(columns, i));

			crm_page_cell(&report->page, cell_text(row, i, number), number);
		}
		crm_page_row_end(&report->page);
	}
	crm_page_table_end(&report->page);
	if (all > (int64) nrows)
		crm_page_note(&report->page,
					  psprintf("The first %s of %s.", crm_grouped_digits(nrows),
							   crm_grouped_digits(all)));
}

static void
put_trend(Report *report, const char *measure)
{
	CrmTrend *trend = crm_trend_read(measure, report->start, report->end, report->zone_name,
									 report->zone, NULL, report->context);

	crm_page_picture(&report->page, crm_trend_draw(trend));
}

typedef text *(*Drawing)(const char *name, TimestampTz start, TimestampTz end, pg_tz *zone,
						 const char *zone_name, MemoryContext context);

/* One for each of the first names; how many more there are, and what of them. */
static void
put_pictures(Report *report, CrmReportPart *part, Drawing draw, uint64 most, const char *others)
{
	uint64 nrows = run(report, part);
	MemoryContext old = MemoryContextSwitchTo(report->context);
	char **names = palloc_array(char *, Max(nrows, 1));

	for (uint64 row = 0; row < nrows; row++)
		names[row] = crm_result_text(row, 1);
	MemoryContextSwitchTo(old);
	for (uint64 i = 0; i < Min(nrows, most); i++)
		crm_page_picture(&report->page,
						 draw(names[i], report->start, report->end, report->zone, report->zone_name,
							  report->context));
	if (nrows > most)
		crm_page_note(&report->page,
					  psprintf("%s %s", crm_grouped_digits((int64) (nrows - most)), others));
}

/* ---------- the page ---------- */

static void
put_section(Report *report, CrmReportSection *section)
{
	crm_page_section(&report->page, section->id, section->title);
	for (CrmReportPart *part = section->parts; part->kind != CRM_REPORT_END; part++)
	{
		switch (part->kind)
		{
			case CRM_REPORT_FIGURES:
				put_figures(report, part);
				break;
			case CRM_REPORT_TABLE:
				put_table(report, part);
				break;
			case CRM_REPORT_TREND:
				put_trend(report, part->title);
				break;
			case CRM_REPORT_FUNNELS:
				put_pictures(report, part, crm_journey_funnel_picture, MOST_FUNNELS,
							 "more journeys: crm.journey_funnel_svg() draws each of them.");
				break;
			case CRM_REPORT_MAPS:
				put_pictures(report, part, crm_map_picture, MOST_MAPS,
							 "more maps: crm.map_svg() draws each of them.");
				break;
			case CRM_REPORT_NOTE:
				crm_page_note(&report->page, part->title);
				break;
			case CRM_REPORT_END:
				break;
		}
	}
	crm_page_section_end(&report->page);
}

static void
put_contents(Report *report, CrmReportSection *sections, int n)
{
	const char **ids = palloc_array(const char *, n);
	const char **titles = palloc_array(const char *, n);

	for (int i = 0; i < n; i++)
	{
		ids[i] = sections[i].id;
		titles[i] = sections[i].title;
	}
	crm_page_contents(&report->page, ids, titles, n);
}

Datum
crm_sql_report_html(PG_FUNCTION_ARGS)
{
	static const char *const names[] = { "period_start", "period_end" };
	Report report;
	CrmReportSection *sections;
	int nsections;
	char *title;
	CrmActing acting;

	for (int i = 0; i < lengthof(names); i++)
		crm_require_value(fcinfo, i, names[i], "report_html");
	report.start = PG_GETARG_TIMESTAMPTZ(0);
	report.end = PG_GETARG_TIMESTAMPTZ(1);
	crm_check_period(report.start, report.end);
	crm_check_drawable(report.start, report.end);
	report.zone_name = crm_time_zone_argument(fcinfo, 2, &report.zone);
	title = PG_ARGISNULL(3) ? "Customer relations" : text_to_cstring(PG_GETARG_TEXT_PP(3));
	report.whole = crm_period_of_counted_days(start_before(report.start, report.end,
														   report.zone_name),
											  report.end, report.zone) &&
		crm_period_of_counted_days(report.start, report.end, report.zone);
	report.context = CurrentMemoryContext;

	sections = crm_report_sections(&nsections);
	crm_page_open(&report.page, title,
				  psprintf("%s. Made %s.",
						   crm_period_text(report.start, report.end, report.zone, report.zone_name),
						   crm_minute_text(crm_now(), report.zone)));
	put_contents(&report, sections, nsections);
	crm_connect(&acting);
	for (int i = 0; i < nsections; i++)
		put_section(&report, &sections[i]);
	crm_disconnect(&acting);
	PG_RETURN_TEXT_P(crm_page_close(&report.page));
}
