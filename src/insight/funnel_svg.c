/*
 * funnel_svg.c
 *		Funnels as pictures: those of facts, read from crm.fact_funnel(), and those
 *		of journeys, read from crm.journey_funnel().
 */
#include "postgres.h"

#include <math.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "insight/funnel_picture.h"
#include "insight/funnel_svg.h"
#include "insight/period.h"

PG_FUNCTION_INFO_V1(crm_sql_funnel_svg);
PG_FUNCTION_INFO_V1(crm_sql_journey_funnel_svg);

/* Rows: group, name, reached, converted, still open, dropped, median; the last of each group is its last step. */
static void
read_steps(CrmFunnelPicture *funnel, CrmPlan *plan, const Datum *values, const char *nulls,
		   MemoryContext context)
{
	uint64 nrows = crm_read(plan, values, nulls);
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
		steps[i].median_seconds = crm_result_double(i, 7);
		steps[i].is_last = crm_result_true(i, 8);
	}
	MemoryContextSwitchTo(old);
	funnel->nsteps = (int) nrows;
	funnel->steps = steps;
}

/* ---------- of journeys ---------- */

/* Groups are versions; where there is but one it needs no heading. From any step one may finish. */
static void
read_journey(CrmFunnelPicture *funnel, const Datum *values, const char *nulls,
			 MemoryContext context)
{
	static CrmPlan plan = {
		"SELECT CASE WHEN pg_catalog.min(f.version) OVER () <> pg_catalog.max(f.version) OVER ()"
		"            THEN 'version ' || f.version END,"
		"       COALESCE(NULLIF(o.label, ''), f.step), f.entered, f.converted, f.still_open,"
		"       f.dropped, f.median_seconds, false"
		"  FROM crm.journey_funnel($1, $2, $3, $4, $5, $6) WITH ORDINALITY AS f"
		"  LEFT JOIN (SELECT DISTINCT n.version, n.step, n.label FROM crm.journey_outline AS n"
		"              WHERE n.journey = $1) AS o ON o.version = f.version AND o.step = f.step"
		" ORDER BY f.version, f.ordinality",
		6,
		{ TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, INT4OID },
	};

	read_steps(funnel, &plan, values, nulls, context);
}

/* The picture of what was read; values as the function takes them. */
static text *
draw_journey(CrmFunnelPicture *funnel, const Datum *values, const char *nulls, pg_tz *zone,
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
	return draw_journey(&funnel, values, nulls, zone, zone_name);
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
	PG_RETURN_TEXT_P(draw_journey(&funnel, values, nulls, zone, zone_name));
}

/* ---------- of facts ---------- */

#define FACT_ARGUMENTS 14

/* Groups are parts, where the funnel is split. */
static void
read_facts(CrmFunnelPicture *funnel, const Datum *values, const char *nulls, MemoryContext context)
{
	static CrmPlan plan = {
		"SELECT CASE WHEN pg_catalog.count(f.part) OVER () > 0"
		"            THEN $7 || ' ' || COALESCE(f.part, 'not known') END,"
		"       f.name, f.reached, f.converted, f.still_open, f.dropped, f.median_seconds,"
		"       f.step = pg_catalog.max(f.step) OVER (PARTITION BY f.part)"
		"  FROM crm.fact_funnel($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
		"       WITH ORDINALITY AS f"
		" ORDER BY f.ordinality",
		FACT_ARGUMENTS,
		{ JSONBOID, INTERVALOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID,
		  INT8OID, INT8OID, INT8OID, TEXTOID, JSONBOID, TEXTOID },
	};

	read_steps(funnel, &plan, values, nulls, context);
}

static char *
argument_text(Oid function, Datum value)
{
	return OidOutputFunctionCall(function, value);
}

/* Of whom it is; empty for everybody. */
static char *
whose(FunctionCallInfo fcinfo)
{
	static const struct
	{
		int argument;
		const char *name;
		Oid output;
	} conditions[] = {
		{ 7, "source", F_TEXTOUT },     { 8, "store", F_INT8OUT },  { 9, "code", F_INT8OUT },
		{ 10, "associate", F_INT8OUT }, { 11, "stage", F_TEXTOUT }, { 12, "arm", F_JSONB_OUT },
		{ 13, "rule", F_TEXTOUT },
	};
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < lengthof(conditions); i++)
		if (!PG_ARGISNULL(conditions[i].argument))
			appendStringInfo(&buf, "; %s %s", conditions[i].name,
							 argument_text(conditions[i].output,
										   PG_GETARG_DATUM(conditions[i].argument)));
	return buf.data;
}

/* As people read it, whatever the session's IntervalStyle is. */
static char *
window_text(Datum within)
{
	int style = IntervalStyle;
	char *text;

	IntervalStyle = INTSTYLE_POSTGRES;
	text = argument_text(F_INTERVAL_OUT, within);
	IntervalStyle = style;
	return text;
}

Datum
crm_sql_funnel_svg(PG_FUNCTION_ARGS)
{
	static const char *const names[] = { "steps", "within", "period_start", "period_end",
										 "by_time" };
	MemoryContext context = CurrentMemoryContext;
	CrmFunnelPicture funnel = { 0 };
	const char *zone_name;
	pg_tz *zone;
	bool by_entry;
	Datum values[FACT_ARGUMENTS];
	char nulls[FACT_ARGUMENTS + 1] = "";
	CrmActing acting;

	for (int i = 0; i < lengthof(names); i++)
		crm_require_value(fcinfo, i, names[i], "funnel_svg");
	crm_check_period(PG_GETARG_TIMESTAMPTZ(2), PG_GETARG_TIMESTAMPTZ(3));
	zone_name = crm_time_zone_argument(fcinfo, 5, &zone);
	for (int i = 0; i < FACT_ARGUMENTS; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	by_entry = strcmp(text_to_cstring(PG_GETARG_TEXT_PP(4)), "entry") == 0;

	crm_connect(&acting);
	read_facts(&funnel, values, nulls, context);
	crm_disconnect(&acting);

	funnel.title = psprintf("Funnel within %s", window_text(PG_GETARG_DATUM(1)));
	funnel.subtitle = psprintf("%s %s%s", by_entry ? "first steps" : "facts",
							   crm_period_text(PG_GETARG_TIMESTAMPTZ(2), PG_GETARG_TIMESTAMPTZ(3),
											   zone, zone_name),
							   whose(fcinfo));
	funnel.converted = "went on";
	funnel.still_open = "still open";
	funnel.dropped = "lost";
	funnel.of_first = true;
	PG_RETURN_TEXT_P(crm_funnel_draw(&funnel));
}
