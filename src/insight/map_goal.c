/*
 * map_goal.c
 *		Goals of a map, measured now; personas and how many people they are.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "insight/map.h"
#include "insight/period.h"
#include "insight/report.h"
#include "insight/touchpoint.h"
#include "rules/language.h"

PG_FUNCTION_INFO_V1(crm_sql_map_goal);
PG_FUNCTION_INFO_V1(crm_sql_persona_members);
PG_FUNCTION_INFO_V1(crm_sql_persona_size);

/* ---------- contacts for whom a rule holds ---------- */

static CrmPlan count_audience = { "SELECT count(*) FROM crm.audience($1, $2)",
								  2,
								  { TEXTOID, TIMESTAMPTZOID } };
static CrmPlan count_audience_among = {
	"SELECT count(*) FROM (SELECT a FROM crm.audience($1, $2) AS a INTERSECT"
	" SELECT b FROM crm.audience($3, $2) AS b) AS c",
	3,
	{ TEXTOID, TIMESTAMPTZOID, TEXTOID }
};
static CrmPlan count_contacts = { "SELECT count(*) FROM crm.contact", 0 };

typedef struct Census
{
	const char *rule;
	const char *among; /* rule of a persona; NULL: everybody */
	TimestampTz as_of;
	int64 contacts;
} Census;

static bool
take_census(void *arg)
{
	Census *census = arg;
	Datum values[3] = { CStringGetTextDatum(census->rule), TimestampTzGetDatum(census->as_of) };

	if (census->among != NULL)
		values[2] = CStringGetTextDatum(census->among);
	crm_read(census->among == NULL ? &count_audience : &count_audience_among, values, NULL);
	census->contacts = crm_result_int64(0, 1);
	return true;
}

/* -1, and a WARNING, where the rule is broken. */
static int64
count_for(const char *rule, const char *among, TimestampTz as_of, const char *of, const char *name)
{
	Census census = { rule, among, as_of, 0 };
	ErrorData *error;

	if (crm_attempt(take_census, &census, &error))
		return census.contacts;
	crm_warn_of_broken_rule(error, of, name);
	return -1;
}

/* ---------- facts ---------- */

typedef struct Count
{
	CrmMeasure measure;
	int64 facts;
	HTAB *contacts;
	Datum amount;
	MemoryContext context;
} Count;

static void
count_visit(void *arg, const CrmTouchpointVisit *visit)
{
	Count *count = arg;

	count->facts++;
	if (count->measure == CRM_MEASURE_CONTACTS)
		hash_search(count->contacts, &visit->contact_id, HASH_ENTER, NULL);
	else if (count->measure == CRM_MEASURE_AMOUNT && !visit->no_amount)
	{
		Datum before = count->amount;
		MemoryContext old = MemoryContextSwitchTo(count->context);

		count->amount = DirectFunctionCall2(numeric_add, before, visit->amount);
		pfree(DatumGetPointer(before));
		MemoryContextSwitchTo(old);
	}
}

static Datum
measure_facts(const CrmMapGoal *goal, const char *persona_rule, TimestampTz start, TimestampTz end)
{
	CrmTouchpoint fact = { .name = goal->name, .on_kind = goal->on, .rule = goal->when };
	CrmVisitSearch search = { .touchpoints = &fact,
							  .ntouchpoints = 1,
							  .start = start,
							  .end = end,
							  .persona_rule = persona_rule,
							  .amounts = goal->measure == CRM_MEASURE_AMOUNT,
							  .function = count_visit };
	HASHCTL info = { .keysize = sizeof(int64),
					 .entrysize = sizeof(int64),
					 .hcxt = CurrentMemoryContext };
	Count count = { .measure = goal->measure,
					.amount = NumericGetDatum(int64_to_numeric(0)),
					.context = CurrentMemoryContext };

	count.contacts = hash_create("pg_crm contacts of a goal", 1024, &info,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	if (goal->touchpoint != NULL)
		search.touchpoints = crm_touchpoints_read(&goal->touchpoint, 1, true, &search.ntouchpoints,
												  CurrentMemoryContext);
	search.arg = &count;
	crm_visits_find(&search);
	if (goal->measure == CRM_MEASURE_AMOUNT)
		return count.amount;
	return NumericGetDatum(int64_to_numeric(
		goal->measure == CRM_MEASURE_FACTS ? count.facts : hash_get_num_entries(count.contacts)));
}

/* ---------- goals ---------- */

#define GOAL_COLUMNS 10

/* As far as a goal can be measured; false where it cannot. */
static bool
measure(const CrmMapGoal *goal, TimestampTz as_of, TimestampTz start, Datum *measured)
{
	const char *among = goal->persona == NULL
		? NULL
		: crm_persona_rule(goal->persona, CurrentMemoryContext);

	if (goal->broken)
	{
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the rule of goal \"%s\" is broken and measures nothing", goal->name),
				 errhint("Define the map anew with a rule that fits.")));
		return false;
	}
	if (goal->rule != NULL)
	{
		int64 contacts = count_for(goal->rule, among, as_of, "goal", goal->name);

		*measured = NumericGetDatum(int64_to_numeric(Max(contacts, 0)));
		return contacts >= 0;
	}
	*measured = measure_facts(goal, among, start, as_of);
	return true;
}

static void
put_goal(ReturnSetInfo *result, const CrmMapGoal *goal, TimestampTz as_of)
{
	TimestampTz start = as_of;
	Datum values[GOAL_COLUMNS];
	bool nulls[GOAL_COLUMNS] = { false };
	bool known;

	if (goal->period != NULL)
		start = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval,
														TimestampTzGetDatum(as_of),
														IntervalPGetDatum(goal->period)));
	nulls[1] = goal->label == NULL;
	nulls[3] = goal->persona == NULL;
	nulls[4] = goal->period == NULL;
	known = measure(goal, as_of, start, &values[7]);
	nulls[7] = nulls[9] = !known;
	values[0] = CStringGetTextDatum(goal->name);
	values[1] = nulls[1] ? (Datum) 0 : CStringGetTextDatum(goal->label);
	values[2] = CStringGetTextDatum(crm_measure_names[goal->measure]);
	values[3] = nulls[3] ? (Datum) 0 : CStringGetTextDatum(goal->persona);
	values[4] = TimestampTzGetDatum(start);
	values[5] = TimestampTzGetDatum(as_of);
	values[6] = goal->target;
	values[8] = CStringGetTextDatum(goal->at_most ? "at_most" : "at_least");
	values[9] = (Datum) 0;
	if (known)
		values[9] = DirectFunctionCall2(goal->at_most ? numeric_le : numeric_ge, values[7],
										goal->target);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

Datum
crm_sql_map_goal(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	TimestampTz as_of;
	const CrmMap *map;
	CrmActing acting;
	int nest_level;

	crm_require_value(fcinfo, 0, "map", "map_goal");
	as_of = crm_as_of_argument(fcinfo, 1);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	crm_connect(&acting);
	map = crm_map_find(text_to_cstring(PG_GETARG_TEXT_PP(0)),
					   crm_version_argument(fcinfo, 2, CRM_MAP_CURRENT), context);
	/* the days of a period are those of pg_crm.time_zone */
	nest_level = crm_rule_enter();
	for (int i = 0; i < map->ngoals; i++)
		put_goal((ReturnSetInfo *) fcinfo->resultinfo, &map->goals[i], as_of);
	crm_rule_leave(nest_level);
	crm_disconnect(&acting);
	return (Datum) 0;
}

/* ---------- personas ---------- */

Datum
crm_sql_persona_members(PG_FUNCTION_ARGS)
{
	static const char sql[] = "SELECT a FROM crm.audience($1, $2) AS a";
	static const Oid types[] = { TEXTOID, TIMESTAMPTZOID };
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext context = CurrentMemoryContext;
	Datum values[2];
	CrmActing acting;

	crm_require_value(fcinfo, 0, "persona", "persona_members");
	values[1] = TimestampTzGetDatum(crm_as_of_argument(fcinfo, 1));
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	crm_connect(&acting);
	values[0] = CStringGetTextDatum(
		crm_persona_rule(text_to_cstring(PG_GETARG_TEXT_PP(0)), context));
	crm_report_run(sql, lengthof(types), types, values, "  ", result->setResult);
	crm_disconnect(&acting);
	return (Datum) 0;
}

Datum
crm_sql_persona_size(PG_FUNCTION_ARGS)
{
	static CrmPlan list = {
		"SELECT p.name, p.label, p.rule FROM crm.persona AS p ORDER BY p.name COLLATE \"C\"", 0
	};
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz as_of = crm_as_of_argument(fcinfo, 0);
	SPITupleTable *rows;
	int64 everybody;
	uint64 n;
	CrmActing acting;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	crm_connect(&acting);
	crm_read(&count_contacts, NULL, NULL);
	everybody = crm_result_int64(0, 1);
	n = crm_read(&list, NULL, NULL);
	rows = SPI_tuptable;
	for (uint64 row = 0; row < n; row++)
	{
		char *name = SPI_getvalue(rows->vals[row], rows->tupdesc, 1);
		int64 members = count_for(SPI_getvalue(rows->vals[row], rows->tupdesc, 3), NULL, as_of,
								  "persona", name);
		Datum values[4];
		bool nulls[4] = { false };

		values[0] = CStringGetTextDatum(name);
		values[1] = SPI_getbinval(rows->vals[row], rows->tupdesc, 2, &nulls[1]);
		values[2] = Int64GetDatum(members);
		nulls[2] = members < 0;
		values[3] = (Datum) 0;
		nulls[3] = members < 0 || everybody == 0;
		if (!nulls[3])
			values[3] =
				DirectFunctionCall2(numeric_round,
									DirectFunctionCall2(numeric_div,
														NumericGetDatum(int64_to_numeric(members)),
														NumericGetDatum(
															int64_to_numeric(everybody))),
									Int32GetDatum(4));
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	crm_disconnect(&acting);
	return (Datum) 0;
}
