/*
 * trend.c
 *		crm.trend(): what happened day by day, as rows; crm.trend_svg() draws them.
 */
#include "postgres.h"

#include <math.h>

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/float.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/roll_up.h"
#include "insight/figures.h"
#include "insight/period.h"
#include "insight/trend.h"
#include "journey/reading.h"

PG_FUNCTION_INFO_V1(crm_sql_trend);
PG_FUNCTION_INFO_V1(crm_sql_trend_svg);

#define MOST_DAYS   370 /* drawn by day; longer ones by week */
#define MOST_WEEKS  520 /* drawn by week; longer ones by month */
#define DAYS_A_WEEK 7
#define MOST_DRAWN  1e300 /* so that a scale over it is a number too */

/*
 * Parameters: $1 start and $2 end of the period, $3 time zone, $4 name of a
 * bucket, $5 its length, $6 now, $7 whether the period is of whole days of
 * pg_crm.time_zone. Rows: day, series, place, value (NULL: not known), complete, since.
 */
#define PARAMETERS 7

#define BUCKETS                                                                                \
	"bucket AS (SELECT b.at::date AS day, pg_catalog.timezone($3, b.at) AS since,"             \
	" pg_catalog.timezone($3, b.at + $5) AS until"                                             \
	" FROM pg_catalog.generate_series(pg_catalog.date_trunc($4, pg_catalog.timezone($3, $1))," \
	" pg_catalog.date_trunc($4, pg_catalog.timezone($3, $2 - '1 us'::interval)), $5) AS b(at)" \
	" WHERE $1 < $2)"

#define ROWS(value)                                                                \
	" SELECT b.day, s.series, s.place,"                                            \
	" (CASE WHEN b.since < $6 AND b.until > k.first THEN " value " END)::numeric," \
	" b.since >= $1 AND b.until <= LEAST($2, $6), b.since"

/* What comes in: facts have at, series, place and amount. A bucket before the first of all is not known. */
#define FLOW(facts)                                                                                          \
	"WITH fact AS NOT MATERIALIZED (" facts "), " BUCKETS                                                    \
	", counted AS (SELECT pg_catalog.date_trunc($4, pg_catalog.timezone($3, f.at))::date AS day,"            \
	" f.series, pg_catalog.sum(f.amount) AS value"                                                           \
	" FROM fact AS f WHERE f.at >= $1 AND f.at < $2 GROUP BY 1, 2)"                                          \
	", series AS (SELECT c.series,"                                                                          \
	" pg_catalog.row_number() OVER (ORDER BY pg_catalog.sum(c.value) DESC, c.series COLLATE \"C\") AS place" \
	" FROM counted AS c GROUP BY c.series)"                                                                  \
	", known AS (SELECT pg_catalog.min(f.at) AS first FROM fact AS f WHERE pg_catalog.isfinite(f.at))" ROWS( \
		"COALESCE(c.value, 0)") " FROM bucket AS b CROSS JOIN series AS s CROSS JOIN known AS k"             \
								" LEFT JOIN counted AS c ON c.day = b.day AND c.series = s.series"           \
								" ORDER BY s.place, b.day"

/* A move adds one to its stage and takes one from the stage before. */
#define STAGES                                                                                                                                               \
	"WITH move AS (SELECT h.stage, c.at, c.step FROM crm.stage_history AS h"                                                                                 \
	" CROSS JOIN LATERAL (VALUES (h.since, 1), (h.until, -1)) AS c(at, step)"                                                                                \
	" WHERE pg_catalog.isfinite(h.since) AND pg_catalog.isfinite(c.at)), " BUCKETS                                                                           \
	", changed AS (SELECT GREATEST(pg_catalog.date_trunc($4, pg_catalog.timezone($3, m.at))::date,"                                                          \
	" (SELECT pg_catalog.min(b.day) FROM bucket AS b)) AS day, m.stage,"                                                                                     \
	" pg_catalog.sum(m.step) AS step FROM move AS m WHERE m.at < LEAST($2, $6) GROUP BY 1, 2)"                                                               \
	", series AS (SELECT n.stage AS series,"                                                                                                                 \
	" pg_catalog.row_number() OVER (ORDER BY t.rank, n.stage COLLATE \"C\") AS place"                                                                        \
	" FROM (SELECT a.stage FROM crm.stage AS a UNION SELECT c.stage FROM changed AS c) AS n"                                                                 \
	" LEFT JOIN crm.stage AS t ON t.stage = n.stage)"                                                                                                        \
	", known AS (SELECT pg_catalog.min(m.at) AS first FROM move AS m)" ROWS(                                                                                 \
		"pg_catalog.sum(COALESCE(c.step, 0)) OVER (PARTITION BY s.series ORDER BY b.day)") " FROM bucket AS b CROSS JOIN series AS s CROSS JOIN known AS k"  \
																						   " LEFT JOIN changed AS c ON c.day = b.day AND c.stage = s.series" \
																						   " ORDER BY s.place, b.day"

#define ARGUMENTS                                                                              \
	PARAMETERS,                                                                                \
	{                                                                                          \
		TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, INTERVALOID, TIMESTAMPTZOID, BOOLOID \
	}

/* a day of counts, as the moment at which it begins */
#define DAY(day) "pg_catalog.timezone($3, " day "::timestamp)"

/* What retention has dropped is known by day. */
#define DROPPED(series, which)                                                           \
	" UNION ALL SELECT " series ", " DAY("o.day") ", o.facts FROM crm.opening_fact AS o" \
												  " WHERE $7 AND " which
#define COUNTED(series, value, which)                                                  \
	"SELECT " series " AS series, " DAY("k.day") " AS at, " value                      \
												 " AS amount FROM crm.kind_count AS k" \
												 " WHERE " which

#define NEW_CONTACTS \
	"SELECT 'new'::text AS series, n.created_at AS at, 1 AS amount FROM crm.contact AS n"
#define SCANS_JUDGED                                                                    \
	" UNION ALL SELECT 'counted', f.occurred_at, 1 FROM (SELECT DISTINCT c.contact_id," \
	" c.scan_id, c.occurred_at FROM crm.first_scan AS c) AS f"                          \
	" UNION ALL SELECT 'flagged', g.occurred_at, 1 FROM (SELECT DISTINCT l.contact_id," \
	" l.scan_id, l.occurred_at FROM crm.scan_flag AS l) AS g"
/* An event may have the name of another fact. */
#define NAME(kind, is_event)                                                               \
	"CASE WHEN " is_event kind " IN ('scan', 'purchase', 'refund') THEN 'event ' || " kind \
	" ELSE " kind " END"

typedef struct Measure
{
	const char *name;
	const char *what;
	bool is_stock;
	CrmPlan plan;
	CrmPlan
		by_counts; /* the same out of roll-ups, for whole days of pg_crm.time_zone; or nothing */
} Measure;

static Measure measures[] = {
	{ "stages", "contacts in each stage", true, { STAGES, ARGUMENTS } },
	{ "contacts",
	  "contacts that came, followed and unfollowed",
	  false,
	  { FLOW(NEW_CONTACTS
			 " UNION ALL SELECT e.kind, e.occurred_at, 1 FROM crm.event AS e"
			 " WHERE e.kind IN ('follow', 'unfollow')" DROPPED(
				 "o.kind", "o.qr_code_id IS NULL AND o.kind IN ('follow', 'unfollow')")),
		ARGUMENTS },
	  { FLOW(NEW_CONTACTS " UNION ALL " COUNTED("k.kind", "k.facts",
												"k.event AND k.kind IN ('follow', 'unfollow')")),
		ARGUMENTS } },
	{ "facts",
	  "facts of each kind",
	  false,
	  { FLOW("SELECT " NAME(
			"e.kind",
			"") " AS series, e.occurred_at AS at, 1 AS amount FROM crm.event AS e"
				" UNION ALL SELECT 'scan', s.occurred_at, 1 FROM crm.scan AS s"
				" UNION ALL SELECT t.kind, t.occurred_at, 1 FROM crm.transaction AS t" DROPPED(
					NAME("o.kind", "o.qr_code_id IS NULL AND "), "true")),
		ARGUMENTS },
	  { FLOW(COUNTED(NAME("k.kind", "k.event AND "), "k.facts", "true")), ARGUMENTS } },
	{ "scans",
	  "scans, those that count, and those that came too fast",
	  false,
	  { FLOW(
			"SELECT 'scans'::text AS series, s.occurred_at AS at, 1 AS amount FROM crm.scan AS s" SCANS_JUDGED
				DROPPED("'scans'", "o.qr_code_id IS NOT NULL")),
		ARGUMENTS },
	  { FLOW(COUNTED("'scans'::text", "k.facts", "k.kind = 'scan' AND NOT k.event") SCANS_JUDGED),
		ARGUMENTS } },
	{ "orders",
	  "orders and refunds",
	  false,
	  { FLOW("SELECT t.kind AS series, t.occurred_at AS at, 1 AS amount FROM crm.transaction AS t"),
		ARGUMENTS },
	  { FLOW(COUNTED("k.kind", "k.facts", "k.currency IS NOT NULL")), ARGUMENTS } },
	{ "amounts",
	  "amounts of orders and refunds",
	  false,
	  { FLOW("SELECT t.kind || ' ' || t.currency AS series, t.occurred_at AS at, t.amount"
			 " FROM crm.transaction AS t"),
		ARGUMENTS },
	  { FLOW(COUNTED("k.kind || ' ' || k.currency", "k.amount", "k.currency IS NOT NULL")),
		ARGUMENTS } },
	{ "awards",
	  "achievements gained",
	  false,
	  { FLOW("SELECT w.achievement AS series, w.awarded_at AS at, 1 AS amount FROM crm.award AS w"
			 " WHERE w.revoked_at IS NULL"),
		ARGUMENTS } },
	{ "points",
	  "points",
	  false,
	  { FLOW("SELECT p.kind AS series, p.occurred_at AS at, pg_catalog.abs(p.points) AS amount"
			 " FROM crm.point_entry AS p"),
		ARGUMENTS } },
	{ "messages",
	  "messages by what became of them, on the day they were due",
	  false,
	  { FLOW("SELECT m.state AS series, m.due_at AS at, 1 AS amount FROM crm.message AS m"),
		ARGUMENTS } },
	{ "journeys",
	  "entries into journeys",
	  false,
	  { FLOW("SELECT e.journey AS series, e.entered_at AS at, 1 AS amount FROM crm.enrolment AS e"),
		ARGUMENTS } },
};

static Measure *
find_measure(const char *name)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < lengthof(measures); i++)
	{
		if (strcmp(measures[i].name, name) == 0)
			return &measures[i];
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", measures[i].name);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("measure \"%s\" is not known", crm_shown(name)),
			 errhint("Measures are: %s.", names.data)));
	return NULL;
}

/* The name of the bucket, checked, and its length. */
static const char *
bucket_of(const char *bucket, TimestampTz start, TimestampTz end, Interval *length)
{
	int64 days = (end - start) / USECS_PER_DAY;

	crm_check_drawable(start, end);
	memset(length, 0, sizeof(*length));
	if (bucket == NULL)
		bucket = days <= MOST_DAYS ? "day" : days <= MOST_WEEKS * DAYS_A_WEEK ? "week" : "month";
	if (strcmp(bucket, "day") == 0)
		length->day = 1;
	else if (strcmp(bucket, "week") == 0)
		length->day = DAYS_A_WEEK;
	else if (strcmp(bucket, "month") == 0)
		length->month = 1;
	else
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("bucket \"%s\" is not known", crm_shown(bucket)),
			 errhint(
				 "It is day, week or month; NULL chooses the one that the length of the period asks for.")));
	return bucket;
}

/* A numeric may be more than a double holds; then it is drawn as most of what can be drawn. */
static double
value_of(uint64 row)
{
	bool isnull;
	Datum value = crm_result(row, 4, &isnull);

	if (isnull)
		return get_float8_nan();
	return Min(DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow, value)), MOST_DRAWN);
}

/* The sum of the buckets of a series; of a stock its last value. */
static const char *
total_of(bool is_stock, uint64 first, int nbuckets)
{
	Datum total = 0;
	bool known = false;

	for (uint64 row = first; row < first + nbuckets; row++)
	{
		bool isnull;
		Datum value = crm_result(row, 4, &isnull);

		if (isnull)
			continue;
		total = is_stock || !known ? value : DirectFunctionCall2(numeric_add, total, value);
		known = true;
	}
	if (!known)
		return "";
	total = DirectFunctionCall1(numeric_trim_scale, total);
	return crm_grouped_decimal(DatumGetCString(DirectFunctionCall1(numeric_out, total)));
}

/* Runs the statement; rows are by series, then by day. */
static uint64
run(Measure *measure, TimestampTz start, TimestampTz end, const char *zone_name, pg_tz *zone,
	const char *bucket, const Interval *length)
{
	bool whole = crm_period_of_counted_days(start, end, zone);
	bool by_counts = whole && measure->by_counts.sql != NULL && crm_roll_ups_kept();
	Datum values[PARAMETERS];

	values[0] = TimestampTzGetDatum(start);
	values[1] = TimestampTzGetDatum(end);
	values[2] = CStringGetTextDatum(zone_name);
	values[3] = CStringGetTextDatum(bucket);
	values[4] = IntervalPGetDatum(length);
	values[5] = TimestampTzGetDatum(crm_now());
	values[6] = BoolGetDatum(whole);
	return crm_read(by_counts ? &measure->by_counts : &measure->plan, values, NULL);
}

CrmTrend *
crm_trend_read(const char *measure_name, TimestampTz start, TimestampTz end, const char *zone_name,
			   pg_tz *zone, const char *bucket, MemoryContext context)
{
	Measure *measure = find_measure(measure_name);
	Interval length;
	uint64 nrows;
	CrmTrend *trend;
	MemoryContext old;

	bucket = bucket_of(bucket, start, end, &length);
	nrows = run(measure, start, end, zone_name, zone, bucket, &length);
	old = MemoryContextSwitchTo(context);
	trend = palloc0_object(CrmTrend);
	trend->measure = measure->name;
	trend->what = measure->what;
	trend->bucket = bucket;
	trend->is_stock = measure->is_stock;
	trend->start = start;
	trend->end = end;
	trend->zone_name = zone_name;
	trend->zone = zone;
	while (trend->nbuckets < nrows && crm_result_int64(trend->nbuckets, 3) == 1)
		trend->nbuckets++;
	trend->since = palloc_array(TimestampTz, Max(trend->nbuckets, 1));
	trend->complete = palloc_array(bool, Max(trend->nbuckets, 1));
	for (int i = 0; i < trend->nbuckets; i++)
	{
		trend->complete[i] = crm_result_true(i, 5);
		trend->since[i] = crm_result_time(i, 6, 0);
	}
	trend->nseries = trend->nbuckets == 0 ? 0 : (int) (nrows / trend->nbuckets);
	trend->series = palloc_array(CrmTrendSeries, Max(trend->nseries, 1));
	for (int i = 0; i < trend->nseries; i++)
	{
		CrmTrendSeries *series = &trend->series[i];
		uint64 first = (uint64) i * trend->nbuckets;

		series->name = crm_result_text(first, 2);
		series->total = total_of(measure->is_stock, first, trend->nbuckets);
		series->values = palloc_array(double, trend->nbuckets);
		for (int k = 0; k < trend->nbuckets; k++)
			series->values[k] = value_of(first + k);
	}
	MemoryContextSwitchTo(old);
	return trend;
}

/* ---------- functions ---------- */

typedef struct Asked
{
	char *measure;
	TimestampTz start;
	TimestampTz end;
	const char *zone_name;
	pg_tz *zone;
	char *bucket;
} Asked;

static void
ask(Asked *asked, FunctionCallInfo fcinfo, const char *function)
{
	static const char *const names[] = { "measure", "period_start", "period_end" };

	for (int i = 0; i < lengthof(names); i++)
		crm_require_value(fcinfo, i, names[i], function);
	asked->measure = text_to_cstring(PG_GETARG_TEXT_PP(0));
	asked->start = PG_GETARG_TIMESTAMPTZ(1);
	asked->end = PG_GETARG_TIMESTAMPTZ(2);
	crm_check_period(asked->start, asked->end);
	asked->zone_name = crm_time_zone_argument(fcinfo, 3, &asked->zone);
	asked->bucket = PG_ARGISNULL(4) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(4));
}

Datum
crm_sql_trend(PG_FUNCTION_ARGS)
{
	static const int columns[] = { 1, 2, 4, 5 };
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Measure *measure;
	Interval length;
	const char *bucket;
	Asked asked;
	CrmActing acting;
	uint64 nrows;

	ask(&asked, fcinfo, "trend");
	measure = find_measure(asked.measure);
	bucket = bucket_of(asked.bucket, asked.start, asked.end, &length);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	crm_connect(&acting);
	nrows = run(measure, asked.start, asked.end, asked.zone_name, asked.zone, bucket, &length);
	for (uint64 row = 0; row < nrows; row++)
	{
		Datum values[lengthof(columns)];
		bool nulls[lengthof(columns)];

		for (int i = 0; i < lengthof(columns); i++)
			values[i] = crm_result(row, columns[i], &nulls[i]);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	crm_disconnect(&acting);
	return (Datum) 0;
}

Datum
crm_sql_trend_svg(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	CrmTrend *trend;
	Asked asked;
	CrmActing acting;

	ask(&asked, fcinfo, "trend_svg");
	crm_connect(&acting);
	trend = crm_trend_read(asked.measure, asked.start, asked.end, asked.zone_name, asked.zone,
						   asked.bucket, context);
	crm_disconnect(&acting);
	PG_RETURN_TEXT_P(crm_trend_draw(trend));
}
