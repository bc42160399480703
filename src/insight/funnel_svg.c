/*
 * funnel_svg.c
 *		Funnels as pictures: those of journeys, read from crm.journey_funnel().
 */
#include "postgres.h"

#include <math.h>

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "insight/funnel_picture.h"
#include "insight/funnel_svg.h"
#include "insight/period.h"

PG_FUNCTION_INFO_V1(crm_sql_journey_funnel_svg);

static double
seconds_of(uint64 row, int column)
{
	bool isnull;
	Datum seconds = crm_result(row, column, &isnull);

	return isnull ? get_float8_nan() : DatumGetFloat8(seconds);
}

/* Groups are versions; where there is but one it needs no heading. */
static void
read_journey(CrmFunnelPicture *funnel, const Datum *values, const char *nulls,
			 MemoryContext context)
{
	static CrmPlan plan = {
		"SELECT CASE WHEN pg_catalog.min(f.version) OVER () <> pg_catalog.max(f.version) OVER ()"
		"            THEN 'version ' || f.version END,"
		"       COALESCE(NULLIF(o.label, ''), f.step), f.entered, f.converted, f.still_open,"
		"       f.dropped, f.median_seconds"
		"  FROM crm.journey_funnel($1, $2, $3, $4, $5, $6) WITH ORDINALITY AS f"
		"  LEFT JOIN (SELECT DISTINCT n.version, n.step, n.label FROM crm.journey_outline AS n"
		"              WHERE n.journey = $1) AS o ON o.version = f.version AND o.step = f.step"
		" ORDER BY f.version, f.ordinality",
		6,
		{ TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, INT4OID },
	};
	uint64 nrows = crm_read(&plan, values, nulls);
	MemoryContext old = MemoryContextSwitchTo(context);
	CrmFunnelStep *steps = palloc0_array(CrmFunnelStep, Max(nrows, 1));

	for (uint64 i = 0; i < nrows; i++)
	{
		steps[i].group = crm_result_text(i, 1);
		steps[i].name = crm_result_text(i, 2);
		steps[i].reached = crm_result_int64(i, 3);
		steps[i].converted = crm_result_int64(i, 4);
		steps[i].still_open = crm_result_int64(i, 5);
		steps[i].dropped = crm_result_int64(i, 6);
		steps[i].median_seconds = seconds_of(i, 7);
	}
	MemoryContextSwitchTo(old);
	funnel->nsteps = (int) nrows;
	funnel->steps = steps;
}

/* The picture of what was read; values as the function takes them. */
static text *
draw(CrmFunnelPicture *funnel, const Datum *values, const char *nulls, pg_tz *zone,
	 const char *zone_name)
{
	bool by_entry = strcmp(TextDatumGetCString(values[3]), "entry") == 0;

	funnel->title = psprintf("Funnel of journey %s", TextDatumGetCString(values[0]));
	funnel->subtitle =
		psprintf("who %s %s%s", by_entry ? "entered the journey" : "came to the step",
				 crm_period_text(DatumGetTimestampTz(values[1]), DatumGetTimestampTz(values[2]),
								 zone, zone_name),
				 nulls[4] == 'n' ? "" : psprintf("; only %s", TextDatumGetCString(values[4])));
	funnel->converted = "went on";
	funnel->still_open = "still there";
	funnel->dropped = "left the journey";
	funnel->of_first = by_entry;
	return crm_funnel_draw(funnel);
}

text *
crm_journey_funnel_picture(const char *journey, TimestampTz start, TimestampTz end, pg_tz *zone,
						   const char *zone_name, MemoryContext context)
{
	Datum values[6] = { CStringGetTextDatum(journey), TimestampTzGetDatum(start),
						TimestampTzGetDatum(end), CStringGetTextDatum("entry") };
	const char *nulls = "    nn";
	CrmFunnelPicture funnel = { 0 };

	read_journey(&funnel, values, nulls, context);
	return draw(&funnel, values, nulls, zone, zone_name);
}

Datum
crm_sql_journey_funnel_svg(PG_FUNCTION_ARGS)
{
	static const char *const names[] = { "journey", "period_start", "period_end", "by_time" };
	MemoryContext context = CurrentMemoryContext;
	CrmFunnelPicture funnel = { 0 };
	const char *zone_name;
	pg_tz *zone;
	Datum values[6];
	char nulls[7] = "      ";
	CrmActing acting;

	for (int i = 0; i < lengthof(names); i++)
		crm_require_value(fcinfo, i, names[i], "journey_funnel_svg");
	crm_check_period(PG_GETARG_TIMESTAMPTZ(1), PG_GETARG_TIMESTAMPTZ(2));
	zone_name = crm_time_zone_argument(fcinfo, 6, &zone);
	for (int i = 0; i < lengthof(values); i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}

	crm_connect(&acting);
	read_journey(&funnel, values, nulls, context);
	crm_disconnect(&acting);
	PG_RETURN_TEXT_P(draw(&funnel, values, nulls, zone, zone_name));
}
