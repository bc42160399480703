/*
 * fact_funnel.c
 *		crm.fact_funnel() and crm.fact_funnel_rows(): how far contacts came through
 *		steps that are facts, and who they are. Both read the same statement.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "facts/facts.h"
#include "compat.h"
#include "insight/fact_source.h"
#include "insight/funnel.h"
#include "insight/funnel_steps.h"
#include "insight/period.h"
#include "insight/report.h"
#include "journey/reading.h"

PG_FUNCTION_INFO_V1(crm_sql_fact_funnel);
PG_FUNCTION_INFO_V1(crm_sql_fact_funnel_rows);

/* The arguments by their places; the last two are those of fact_funnel_rows(). */
enum
{
	STEPS,
	WITHIN,
	PERIOD_START,
	PERIOD_END,
	BY_TIME,
	TIME_ZONE,
	SPLIT_BY,
	SOURCE,
	STORE_ID,
	QR_CODE_ID,
	ASSOCIATE_ID,
	STAGE,
	ARM,
	FILTER,
	STEP,
	COUNTED
};

/* What contacts are told apart by: an expression over t, their times, and a, by what they were won. */
typedef struct Split
{
	const char *name;
	const char *part;
	bool of_acquisition;
	bool is_id; /* a number, shown as text */
} Split;

/* the stage at the moment of entry */
#define STAGE_AT_ENTRY                                                        \
	"(SELECT m.stage FROM crm.stage_move m WHERE m.contact_id = t.contact_id" \
	" AND m.since <= t.times[1] ORDER BY m.since DESC LIMIT 1)"

static const Split splits[] = {
	{ "day", NULL },
	{ "source", "a.source", true },
	{ "store", "a.store_id::text", true, true },
	{ "code", "a.qr_code_id::text", true, true },
	{ "associate", "a.associate_id::text", true, true },
	{ "stage", STAGE_AT_ENTRY },
	{ "arm", NULL },
};

/* What a step counts, of p, a contact with a level, at a step s.step of %1$d. */
static const struct
{
	const char *name;
	const char *condition;
} counts[] = {
	{ "reached", "p.level >= s.step" },
	{ "converted", "(p.level > s.step OR p.level = %1$d AND s.step = %1$d)" },
	{ "dropped", "p.level = s.step AND s.step < %1$d AND NOT p.open" },
	{ "still_open", "p.level = s.step AND s.step < %1$d AND p.open" },
};

typedef struct Asked
{
	CrmFunnelStep *steps;
	int nsteps;
	bool by_event;
	const Split *split; /* NULL: none */
	CrmFunnelArm *arm;  /* NULL: none */
	CrmReport report;

	/* what stands for them in the statement */
	const char *within;
	const char *start;
	const char *end;
} Asked;

/* with it a window that begins in the year 9999 ends within the calendar */
#define LONGEST_YEARS 250000

static const CrmRuleUser user = { "report", "fact_funnel" };

/* ---------- arguments ---------- */

static bool
is_by_event(const char *by_time)
{
	if (strcmp(by_time, "event") == 0)
		return true;
	if (strcmp(by_time, "entry") != 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("by_time \"%s\" is not known", crm_shown(by_time)),
			 errhint(
				 "It is entry, whoever takes the first step in the period, or event, whatever happens in it.")));
	return false;
}

static const Split *
find_split(const char *name)
{
	for (int i = 0; i < lengthof(splits); i++)
		if (strcmp(splits[i].name, name) == 0)
			return &splits[i];
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("split_by \"%s\" is not known", crm_shown(name)),
			 errhint("It is day, source, store, code, associate, stage or arm.")));
	return NULL; /* keep the compiler quiet */
}

/* A moment after all windows of a period; months may be shorter and days longer than they are here. */
static TimestampTz
last_end(TimestampTz end, const Interval *within)
{
	int64 days = (int64) within->month * 31 + within->day + within->time / USECS_PER_DAY + 2;

	if (CRM_INTERVAL_IS_ENDLESS(within) ||
		end / USECS_PER_DAY + days >= END_TIMESTAMP / USECS_PER_DAY - 1)
		return DT_NOEND;
	return end + days * USECS_PER_DAY;
}

static void
read_arguments(Asked *asked, FunctionCallInfo fcinfo, const char *function)
{
	static const char *const names[] = { "steps", "within", "period_start", "period_end",
										 "by_time" };
	pg_tz *zone;

	memset(asked, 0, sizeof(Asked));
	for (int i = 0; i < lengthof(names); i++)
		crm_require_value(fcinfo, STEPS + i, names[i], function);
	crm_check_period(PG_GETARG_TIMESTAMPTZ(PERIOD_START), PG_GETARG_TIMESTAMPTZ(PERIOD_END));
	crm_funnel_check_window(PG_GETARG_INTERVAL_P(WITHIN));
	if (!CRM_INTERVAL_IS_ENDLESS(PG_GETARG_INTERVAL_P(WITHIN)))
		crm_check_longest("within", PG_GETARG_INTERVAL_P(WITHIN), LONGEST_YEARS);
	asked->steps = crm_funnel_steps_read(PG_GETARG_JSONB_P(STEPS), &asked->nsteps);
	asked->by_event = is_by_event(crm_text_argument(fcinfo, BY_TIME));
	asked->report.zone = crm_time_zone_argument(fcinfo, TIME_ZONE, &zone);
	if (!PG_ARGISNULL(SPLIT_BY))
		asked->split = find_split(crm_text_argument(fcinfo, SPLIT_BY));
	if (!PG_ARGISNULL(ARM))
		asked->arm = crm_funnel_arm_read(PG_GETARG_JSONB_P(ARM));
	else if (asked->split != NULL && strcmp(asked->split->name, "arm") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"arm\" of crm.%s() must not be NULL where it is split by arm",
						function),
				 errhint("Name the split: {\"journey\": ..., \"step\": ...}.")));
}

/* Something by its id or name that must be there. */
typedef struct Named
{
	int argument;
	const char *what;
	CrmPlan plan;
} Named;

static void
check_names(FunctionCallInfo fcinfo, const Asked *asked)
{
	static Named ids[] = {
		{ STORE_ID, "store", { "SELECT FROM crm.store WHERE store_id = $1", 1, { INT8OID } } },
		{ QR_CODE_ID, "code", { "SELECT FROM crm.qr_code WHERE qr_code_id = $1", 1, { INT8OID } } },
		{ ASSOCIATE_ID,
		  "associate",
		  { "SELECT FROM crm.associate WHERE associate_id = $1", 1, { INT8OID } } },
	};
	static Named texts[] = {
		{ SOURCE,
		  "source",
		  { "SELECT WHERE $1 IN ('scan', 'follow')"
			" OR EXISTS (SELECT FROM crm.acquisition WHERE source = $1)",
			1,
			{ TEXTOID } } },
		{ STAGE, "stage", { "SELECT FROM crm.stage WHERE stage = $1", 1, { TEXTOID } } },
	};
	static CrmPlan find_split_step = {
		"SELECT FROM crm.journey_outline o"
		" WHERE o.journey = $1 AND o.step = $2 AND o.kind = 'split' AND ($3 IS NULL OR o.outcome = $3)",
		3,
		{ TEXTOID, TEXTOID, TEXTOID },
	};

	for (int i = 0; i < lengthof(ids); i++)
	{
		Datum value;

		if (PG_ARGISNULL(ids[i].argument))
			continue;
		value = PG_GETARG_DATUM(ids[i].argument);
		if (crm_read(&ids[i].plan, &value, NULL) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
					 errmsg("%s %lld is not known", ids[i].what, (long long) DatumGetInt64(value)),
					 errhint("Give the id of one that is there.")));
	}
	for (int i = 0; i < lengthof(texts); i++)
	{
		Datum value;

		if (PG_ARGISNULL(texts[i].argument))
			continue;
		value = PG_GETARG_DATUM(texts[i].argument);
		if (crm_read(&texts[i].plan, &value, NULL) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
					 errmsg("%s \"%s\" is not known", texts[i].what,
							crm_shown(TextDatumGetCString(value))),
					 errhint("Give the name of one that is there.")));
	}
	if (asked->arm != NULL)
	{
		const CrmFunnelArm *arm = asked->arm;
		Datum values[3] = { CStringGetTextDatum(arm->journey), CStringGetTextDatum(arm->step),
							arm->arm != NULL ? CStringGetTextDatum(arm->arm) : (Datum) 0 };

		if (crm_read(&find_split_step, values, arm->arm == NULL ? "  n" : NULL) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
					 errmsg("journey \"%s\" has no split \"%s\"%s%s%s", arm->journey, arm->step,
							arm->arm != NULL ? " with an arm \"" : "",
							arm->arm != NULL ? arm->arm : "", arm->arm != NULL ? "\"" : ""),
					 errhint("Its splits and their arms are rows of crm.journey_outline.")));
	}
}

static bool
asks_rules(const Asked *asked)
{
	for (int i = 0; i < asked->nsteps; i++)
		if (asked->steps[i].rule != NULL)
			return true;
	return false;
}

/* ---------- facts ---------- */

static bool
same_rule(const char *one, const char *other)
{
	return one == NULL ? other == NULL : other != NULL && strcmp(one, other) == 0;
}

/* What steps ask for, kind and rule by kind and rule. */
static CrmFactStep *
facts_of_steps(const Asked *asked, int *n)
{
	CrmFactStep *facts;
	int most = 0;

	for (int i = 0; i < asked->nsteps; i++)
		most += asked->steps[i].nkinds;
	facts = palloc_array(CrmFactStep, most);
	*n = 0;
	for (int i = 0; i < asked->nsteps; i++)
		for (int k = 0; k < asked->steps[i].nkinds; k++)
		{
			const CrmFunnelStep *step = &asked->steps[i];
			int place = 0;

			while (place < *n &&
				   !(strcmp(facts[place].kind, step->kinds[k]) == 0 &&
					 same_rule(facts[place].rule, step->rule)))
				place++;
			if (place == *n)
			{
				facts[place].kind = step->kinds[k];
				facts[place].rule = step->rule;
				facts[place].steps = 0;
				(*n)++;
			}
			facts[place].steps |= UINT64CONST(1) << i;
		}
	return facts;
}

static void
append_facts(StringInfo sql, Asked *asked, TimestampTz from, TimestampTz until)
{
	int n;
	CrmFactStep *facts = facts_of_steps(asked, &n);

	appendStringInfoString(sql, crm_fact_steps(facts, n, from, until, &user, "crm_report"));
}

/* ---------- people ---------- */

static const char *
arm_value(Asked *asked)
{
	return psprintf("(SELECT v.arm FROM crm.step_visit v WHERE v.contact_id = t.contact_id"
					" AND v.journey = %s AND v.step = %s AND v.arm IS NOT NULL"
					" ORDER BY v.recorded_at LIMIT 1)",
					crm_report_text(&asked->report, asked->arm->journey),
					crm_report_text(&asked->report, asked->arm->step));
}

static const char *
part_value(Asked *asked)
{
	if (asked->split == NULL)
		return "NULL::text";
	if (asked->split->part != NULL)
		return asked->split->part;
	if (strcmp(asked->split->name, "arm") == 0)
		return arm_value(asked);
	return psprintf("(timezone(%s, t.times[1]))::date::text",
					crm_report_text(&asked->report, asked->report.zone));
}

static void
append_conditions(StringInfo sql, Asked *asked, FunctionCallInfo fcinfo)
{
	static const struct
	{
		int argument;
		const char *column;
	} ids[] = {
		{ STORE_ID, "a.store_id" },
		{ QR_CODE_ID, "a.qr_code_id" },
		{ ASSOCIATE_ID, "a.associate_id" },
	};
	CrmReport *report = &asked->report;

	for (int i = 0; i < lengthof(ids); i++)
		if (!PG_ARGISNULL(ids[i].argument))
			appendStringInfo(sql, " AND %s = %lld", ids[i].column,
							 (long long) PG_GETARG_INT64(ids[i].argument));
	if (!PG_ARGISNULL(SOURCE))
		appendStringInfo(sql, " AND a.source = %s",
						 crm_report_text(report, crm_text_argument(fcinfo, SOURCE)));
	if (!PG_ARGISNULL(STAGE))
		appendStringInfo(sql, " AND " STAGE_AT_ENTRY " = %s",
						 crm_report_text(report, crm_text_argument(fcinfo, STAGE)));
	if (asked->arm != NULL && asked->arm->arm != NULL)
		appendStringInfo(sql, " AND %s = %s", arm_value(asked),
						 crm_report_text(report, asked->arm->arm));
	if (!PG_ARGISNULL(FILTER))
		appendStringInfo(sql, " AND t.contact_id IN (SELECT r FROM crm.audience(%s) r)",
						 crm_report_text(report, crm_text_argument(fcinfo, FILTER)));
}

/*
 * Who took the first step, as p: contact_id, part, level, times, open_until, open. Somebody is still
 * under way while the window of any first step is open, as more may follow it. When
 * that ends is worked out for lists, and where any window may be open.
 */
static void
append_people(StringInfo sql, Asked *asked, FunctionCallInfo fcinfo, bool listed)
{
	CrmReport *report = &asked->report;
	TimestampTz start = PG_GETARG_TIMESTAMPTZ(PERIOD_START);
	TimestampTz end = PG_GETARG_TIMESTAMPTZ(PERIOD_END);
	const Interval *within = PG_GETARG_INTERVAL_P(WITHIN);
	TimestampTz until = asked->by_event ? end : last_end(end, within);
	bool won = asked->split != NULL && asked->split->of_acquisition;
	TimestampTz as_of = crm_now();
	const char *now = crm_report_time(report, as_of);
	const char *first;

	for (int i = SOURCE; i <= ASSOCIATE_ID; i++)
		won = won || !PG_ARGISNULL(i);
	asked->within = crm_report_value(report, INTERVALOID, IntervalPGetDatum(within), false);
	asked->start = crm_report_time(report, start);
	asked->end = crm_report_time(report, end);
	first = psprintf("(f.steps & 1) <> 0 AND f.at < %s", asked->end);

	appendStringInfo(sql,
					 "(SELECT t.contact_id, %s AS part, cardinality(t.times) AS level, t.times,"
					 " t.open_until, cardinality(t.times) < %d AND t.open_until >= %s%s AS open"
					 " FROM (SELECT f.contact_id, crm.funnel_times(%s, f.at, %s",
					 part_value(asked), asked->nsteps, now,
					 asked->by_event ? psprintf(" AND %s < %s", now, asked->end) : "",
					 asked->within, first);
	for (int i = 1; i < asked->nsteps; i++)
		appendStringInfo(sql, ", (f.steps & '" INT64_FORMAT "'::bigint) <> 0",
						 (int64) (UINT64CONST(1) << i));
	appendStringInfoString(sql, ") AS times, ");
	if (listed || until >= as_of)
		appendStringInfo(sql, "max(f.at + %s) FILTER (WHERE %s)", asked->within, first);
	else
		appendStringInfoString(sql, "'-infinity'::timestamptz");
	appendStringInfoString(sql, " AS open_until FROM (");
	append_facts(sql, asked, start, until);
	appendStringInfo(sql,
					 ") f WHERE f.at >= %s AND f.at %s %s GROUP BY f.contact_id) t"
					 " JOIN crm.contact c ON c.contact_id = t.contact_id",
					 asked->start, asked->by_event ? "<" : "<=",
					 asked->by_event ? asked->end : crm_report_time(report, until));
	if (won)
		appendStringInfoString(sql, " LEFT JOIN crm.acquisition a ON a.contact_id = t.contact_id");
	appendStringInfoString(sql, " WHERE cardinality(t.times) > 0");
	append_conditions(sql, asked, fcinfo);
	appendStringInfoString(sql, ") p");
}

static void
begin(Asked *asked, FunctionCallInfo fcinfo, CrmActing *acting)
{
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	crm_connect(acting);
	if (asks_rules(asked))
		crm_report_require_rules("to count by a rule over facts");
	if (!PG_ARGISNULL(FILTER))
		crm_report_require_rules("to count by a rule over the profile");
	check_names(fcinfo, asked);
}

static Datum
names_of(const Asked *asked)
{
	CrmColumn names;

	crm_column_init(&names, TEXTOID);
	for (int i = 0; i < asked->nsteps; i++)
		crm_column_add(&names, CStringGetTextDatum(asked->steps[i].name), false);
	return crm_column_array(&names);
}

Datum
crm_sql_fact_funnel(PG_FUNCTION_ARGS)
{
	Asked asked;
	StringInfoData sql;
	CrmActing acting;

	read_arguments(&asked, fcinfo, "fact_funnel");
	begin(&asked, fcinfo, &acting);
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT n.part, n.step, (%s)[n.step]",
					 crm_report_value(&asked.report, TEXTARRAYOID, names_of(&asked), false));
	for (int i = 0; i < lengthof(counts); i++)
		appendStringInfo(&sql, ", n.%s", counts[i].name);
	appendStringInfoString(&sql, ", n.seconds[1], n.seconds[2] FROM (SELECT p.part, s.step");
	for (int i = 0; i < lengthof(counts); i++)
	{
		appendStringInfoString(&sql, ", count(*) FILTER (WHERE ");
		appendStringInfo(&sql, counts[i].condition, asked.nsteps);
		appendStringInfo(&sql, ") AS %s", counts[i].name);
	}
	appendStringInfo(
		&sql,
		", percentile_cont('{0.5,0.9}'::double precision[]) WITHIN GROUP"
		" (ORDER BY extract(epoch FROM p.times[s.step + 1] - p.times[s.step])::double precision)"
		" AS seconds FROM generate_series(1, %d) AS s(step) LEFT JOIN ",
		asked.nsteps);
	append_people(&sql, &asked, fcinfo, false);
	appendStringInfo(&sql, " ON true GROUP BY p.part, s.step) n ORDER BY %s, n.step",
					 asked.split != NULL && asked.split->is_id ? "n.part::bigint"
															   : "n.part COLLATE \"C\"");
	crm_report_return(&asked.report, sql.data, fcinfo);
	crm_disconnect(&acting);
	return (Datum) 0;
}

/* The condition of a number of a step. */
static const char *
find_count(const char *name)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < lengthof(counts); i++)
	{
		if (strcmp(counts[i].name, name) == 0)
			return counts[i].condition;
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", counts[i].name);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"%s\" is not counted of a step of a funnel", crm_shown(name)),
			 errhint("What is counted: %s.", names.data)));
	return NULL; /* keep the compiler quiet */
}

Datum
crm_sql_fact_funnel_rows(PG_FUNCTION_ARGS)
{
	int step = PG_ARGISNULL(STEP) ? 1 : PG_GETARG_INT32(STEP);
	const char *condition = find_count(PG_ARGISNULL(COUNTED) ? "reached"
															 : crm_text_argument(fcinfo, COUNTED));
	Asked asked;
	StringInfoData sql;
	CrmActing acting;

	read_arguments(&asked, fcinfo, "fact_funnel_rows");
	if (step < 1 || step > asked.nsteps)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the funnel has no step %d", step),
				 errhint("Its steps are numbered from 1 to %d.", asked.nsteps)));
	begin(&asked, fcinfo, &acting);
	initStringInfo(&sql);
	appendStringInfo(&sql,
					 "SELECT p.contact_id, p.part, p.level, CASE WHEN p.level = %d THEN 'completed'"
					 " WHEN p.open THEN 'still_open' ELSE 'dropped' END, p.times[1], p.times,"
					 " p.open_until FROM (SELECT %d AS step) s CROSS JOIN ",
					 asked.nsteps, step);
	append_people(&sql, &asked, fcinfo, true);
	appendStringInfoString(&sql, " WHERE ");
	appendStringInfo(&sql, condition, asked.nsteps);
	appendStringInfoString(&sql, " ORDER BY p.contact_id");
	crm_report_return(&asked.report, sql.data, fcinfo);
	crm_disconnect(&acting);
	return (Datum) 0;
}
