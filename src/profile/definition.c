/*
 * definition.c
 *		Achievements, stages, stage rules and earning rules as a backend keeps
 *		them. The cache
 *		lives in a context of its own, is dropped as a whole by a relcache
 *		invalidation of one of its tables, and rebuilt at the next use.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/table.h"
#include "profile/definition.h"
#include "profile/profile.h"

const char *const crm_profile_column_names[CRM_PROFILE_COLUMNS] = {
	"contact_id",   "orders",    "spend",       "first_order_at", "last_order_at", "refunds",
	"scans",        "raw_scans", "followed_at", "mobile_at",      "events",        "first_seen_at",
	"last_seen_at", "stage",     "stage_since", "stage_manual",   "ranked_stage",  "settled_at"
};

/* what a stage rule may name; refunds and the stage itself are no facts */
static const CrmRuleColumn stage_rule_columns[] = {
	{ "orders", INT8OID, false, CRM_P_ORDERS },
	{ "spend", NUMERICOID, false, CRM_P_SPEND },
	{ "first_order_at", TIMESTAMPTZOID, false, CRM_P_FIRST_ORDER_AT },
	{ "last_order_at", TIMESTAMPTZOID, false, CRM_P_LAST_ORDER_AT },
	{ "scans", INT8OID, false, CRM_P_SCANS },
	{ "raw_scans", INT8OID, false, CRM_P_RAW_SCANS },
	{ "followed_at", TIMESTAMPTZOID, false, CRM_P_FOLLOWED_AT },
	{ "mobile", INT8OID, true, CRM_P_MOBILE_AT },
	{ "mobile_at", TIMESTAMPTZOID, false, CRM_P_MOBILE_AT },
	{ "events", INT8OID, false, CRM_P_EVENTS },
	{ "first_seen_at", TIMESTAMPTZOID, false, CRM_P_FIRST_SEEN_AT },
	{ "last_seen_at", TIMESTAMPTZOID, false, CRM_P_LAST_SEEN_AT }
};

static const CrmRuleColumn achievement_rule_columns[] = { { "fact.amount", NUMERICOID, false, 0 } };

static MemoryContext definition_context = NULL;
static CrmDefinitions *definitions = NULL;
static bool definitions_valid = false;
static Oid definition_tables[5];

static CrmPlan select_achievements = { "SELECT name, on_kind, measure, thresholds, rule, revocable"
									   " FROM crm.achievement ORDER BY name COLLATE \"C\"",
									   0 };
static CrmPlan select_stages = {
	"SELECT s.stage, s.rank, r.rule, r.allow_regress, r.position"
	" FROM crm.stage s LEFT JOIN crm.stage_rule r ON r.stage = s.stage"
	" ORDER BY s.rank DESC NULLS FIRST, r.position, s.stage COLLATE \"C\"",
	0
};

static CrmPlan select_earning_rules = {
	"SELECT r.name, p.loyalty_program_id, r.on_kind, r.points, r.per_amount, r.rounding, r.rule,"
	" r.valid_from, r.valid_until"
	" FROM crm.earning_rule r JOIN crm.loyalty_program p ON p.name = r.program"
	" ORDER BY r.name COLLATE \"C\"",
	0
};
static CrmPlan select_tiers = { "SELECT count(*), count(*) FILTER (WHERE measure = 'spend')"
								" FROM crm.tier",
								0 };

static void
forget_definitions(Datum arg, Oid relid)
{
	for (int i = 0; i < lengthof(definition_tables); i++)
		if (relid == InvalidOid || relid == definition_tables[i])
			definitions_valid = false;
}

void
crm_definition_init(void)
{
	CacheRegisterRelcacheCallback(forget_definitions, (Datum) 0);
}

CrmRule *
crm_stage_rule_parse(const char *text)
{
	return crm_rule_parse(text, stage_rule_columns, lengthof(stage_rule_columns));
}

CrmRule *
crm_achievement_rule_parse(const char *text)
{
	return crm_rule_parse(text, achievement_rule_columns, lengthof(achievement_rule_columns));
}

/* A stored rule that no longer reads counts as false and stops nobody. */
static CrmRule *
parse_stored(const char *what, const char *name, const char *text, CrmRule *(*parse)(const char *) )
{
	MemoryContext context = CurrentMemoryContext;
	CrmRule *rule;

	PG_TRY();
	{
		rule = parse(text);
	}
	PG_CATCH();
	{
		/* the parser holds no locks and no resources */
		MemoryContextSwitchTo(context);
		FlushErrorState();
		ereport(WARNING,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("rule of %s \"%s\" cannot be read and counts as false", what, name),
				 errhint("Save the definition again with a rule that is understood.")));
		rule = palloc0(sizeof(CrmRule));
		rule->never = true;
	}
	PG_END_TRY();
	return rule;
}

static int
intern_kind(CrmDefinitions *build, const char *kind)
{
	for (int i = 0; i < build->nkinds; i++)
		if (strcmp(build->kinds[i], kind) == 0)
			return i;
	if (build->kinds == NULL)
		build->kinds = palloc_array(char *, 1);
	else
		build->kinds = repalloc_array(build->kinds, char *, build->nkinds + 1);
	build->kinds[build->nkinds] = pstrdup(kind);
	return build->nkinds++;
}

static int
compare_numeric(const void *a, const void *b)
{
	return DatumGetInt32(DirectFunctionCall2(numeric_cmp, *(const Datum *) a, *(const Datum *) b));
}

static void
read_thresholds(CrmAchievement *achievement, Datum array)
{
	bool *nulls;

	deconstruct_array(DatumGetArrayTypePCopy(array), NUMERICOID, -1, false, TYPALIGN_INT,
					  &achievement->thresholds, &nulls, &achievement->nthresholds);
	qsort(achievement->thresholds, achievement->nthresholds, sizeof(Datum), compare_numeric);
	achievement->counts = palloc_array(int64, Max(achievement->nthresholds, 1));
	for (int i = 0; i < achievement->nthresholds; i++)
	{
		Datum up = DirectFunctionCall1(numeric_ceil, achievement->thresholds[i]);

		achievement->counts[i] = DatumGetInt64(DirectFunctionCall1(numeric_int8, up));
	}
}

static void
load_achievements(CrmDefinitions *build, MemoryContext context)
{
	uint64 n = crm_read(&select_achievements, NULL, NULL);
	MemoryContext old = MemoryContextSwitchTo(context);

	build->nachievements = n;
	build->achievements = palloc0_array(CrmAchievement, Max(n, 1));
	build->orders_continue = true;
	for (uint64 row = 0; row < n; row++)
	{
		CrmAchievement *achievement = &build->achievements[row];
		char *rule = crm_result_text(row, 5);
		bool isnull;

		achievement->name = crm_result_text(row, 1);
		achievement->name_text = CStringGetTextDatum(achievement->name);
		achievement->kind = intern_kind(build, crm_result_text(row, 2));
		achievement->by_amount = strcmp(crm_result_text(row, 3), "amount") == 0;
		read_thresholds(achievement, crm_result(row, 4, &isnull));
		if (rule != NULL)
			achievement->rule = parse_stored("achievement", achievement->name, rule,
											 crm_achievement_rule_parse);
		achievement->revocable = DatumGetBool(crm_result(row, 6, &isnull));
		if (achievement->kind == CRM_KIND_PURCHASE && achievement->rule != NULL)
			build->orders_continue = false;
	}
	MemoryContextSwitchTo(old);
}

static void
load_stages(CrmDefinitions *build, MemoryContext context)
{
	uint64 n = crm_read(&select_stages, NULL, NULL);
	MemoryContext old = MemoryContextSwitchTo(context);

	build->nstages = n;
	build->stages = palloc0_array(CrmStage, Max(n, 1));
	for (uint64 row = 0; row < n; row++)
	{
		CrmStage *stage = &build->stages[row];
		char *rule = crm_result_text(row, 3);
		bool isnull;
		Datum rank = crm_result(row, 2, &isnull);

		stage->stage = crm_result_text(row, 1);
		stage->stage_text = CStringGetTextDatum(stage->stage);
		stage->ranked = !isnull;
		stage->rank = isnull ? 0 : DatumGetInt32(rank);
		if (rule == NULL)
			continue;
		stage->rule = parse_stored("stage", stage->stage, rule, crm_stage_rule_parse);
		stage->allow_regress = DatumGetBool(crm_result(row, 4, &isnull));
		stage->position = DatumGetInt32(crm_result(row, 5, &isnull));
		if (stage->allow_regress)
			build->may_regress = true;
		if (crm_rule_names(stage->rule, CRM_P_EVENTS) ||
			crm_rule_names(stage->rule, CRM_P_FIRST_SEEN_AT) ||
			crm_rule_names(stage->rule, CRM_P_LAST_SEEN_AT))
			build->every_fact_matters = true;
	}
	MemoryContextSwitchTo(old);
}

static TimestampTz
result_time(uint64 row, int column, TimestampTz without)
{
	bool isnull;
	Datum value = crm_result(row, column, &isnull);

	return isnull ? without : DatumGetTimestampTz(value);
}

static void
load_earning_rules(CrmDefinitions *build, MemoryContext context)
{
	uint64 n = crm_read(&select_earning_rules, NULL, NULL);
	MemoryContext old = MemoryContextSwitchTo(context);

	build->nearning_rules = n;
	build->earning_rules = palloc0_array(CrmEarningRule, Max(n, 1));
	for (uint64 row = 0; row < n; row++)
	{
		CrmEarningRule *earning = &build->earning_rules[row];
		char *rounding = crm_result_text(row, 6);
		char *rule = crm_result_text(row, 7);
		bool isnull;
		Datum per_amount;

		earning->name = crm_result_text(row, 1);
		earning->loyalty_program_id = crm_result_int64(row, 2);
		earning->kind = crm_result_text(row, 3);
		earning->source = strcmp(earning->kind, "purchase") == 0 ? CRM_EARN_TRANSACTION
			: strcmp(earning->kind, "scan") == 0                 ? CRM_EARN_SCAN
																 : CRM_EARN_EVENT;
		earning->points = datumCopy(crm_result(row, 4, &isnull), false, -1);
		per_amount = crm_result(row, 5, &isnull);
		earning->by_amount = !isnull;
		if (!isnull)
			earning->per_amount = datumCopy(per_amount, false, -1);
		earning->rounding = strcmp(rounding, "down") == 0 ? CRM_ROUND_DOWN
			: strcmp(rounding, "up") == 0                 ? CRM_ROUND_UP
														  : CRM_ROUND_NEAREST;
		if (rule != NULL)
			earning->rule = parse_stored("earning rule", earning->name, rule,
										 crm_achievement_rule_parse);
		earning->valid_from = result_time(row, 8, DT_NOBEGIN);
		earning->valid_until = result_time(row, 9, DT_NOEND);
		build->earning_from[earning->source] = true;
	}
	MemoryContextSwitchTo(old);
}

static void
load_tiers(CrmDefinitions *build)
{
	crm_read(&select_tiers, NULL, NULL);
	build->has_tiers = crm_result_int64(0, 1) > 0;
	build->has_spend_tiers = crm_result_int64(0, 2) > 0;
}

const CrmDefinitions *
crm_definitions(void)
{
	MemoryContext context;
	CrmDefinitions *build;
	CrmActing acting;

	if (definitions_valid)
		return definitions;

	definition_tables[0] = crm_table_oid("achievement");
	definition_tables[1] = crm_table_oid("stage");
	definition_tables[2] = crm_table_oid("stage_rule");
	definition_tables[3] = crm_table_oid("earning_rule");
	definition_tables[4] = crm_table_oid("tier");

	context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm definitions",
									ALLOCSET_SMALL_SIZES);
	build = MemoryContextAllocZero(context, sizeof(CrmDefinitions));

	crm_connect(&acting);
	{
		static const char *const built_in[] = { "purchase", "scan", "follow", "unfollow",
												"set_stage" };
		MemoryContext old = MemoryContextSwitchTo(context);

		StaticAssertStmt(lengthof(built_in) == CRM_KINDS_BUILT_IN, "kinds and their places");
		for (int i = 0; i < lengthof(built_in); i++)
			(void) intern_kind(build, built_in[i]);
		MemoryContextSwitchTo(old);
	}
	/* as committed now, however old the snapshot of the transaction is: the cache outlives it */
	PushActiveSnapshot(GetLatestSnapshot());
	/* an invalidation while reading must not be lost */
	definitions_valid = true;
	PG_TRY();
	{
		load_achievements(build, context);
		load_stages(build, context);
		load_earning_rules(build, context);
		load_tiers(build);
		build->contact_first = crm_definition_event_kind(build, "field_change") >= 0 ||
			crm_definition_earns(build, "field_change");
	}
	PG_CATCH();
	{
		definitions_valid = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
	PopActiveSnapshot();
	crm_disconnect(&acting);

	if (definition_context != NULL)
		MemoryContextDelete(definition_context);
	MemoryContextSetParent(context, CacheMemoryContext);
	definition_context = context;
	definitions = build;
	return definitions;
}

int
crm_definition_kind(const CrmDefinitions *known, const char *kind, int len)
{
	for (int i = 0; i < known->nkinds; i++)
		if (strncmp(known->kinds[i], kind, len) == 0 && known->kinds[i][len] == '\0')
			return i;
	return -1;
}

int
crm_definition_event_kind(const CrmDefinitions *known, const char *kind)
{
	int place = crm_definition_kind(known, kind, strlen(kind));

	return place == CRM_KIND_PURCHASE || place == CRM_KIND_SCAN ? -1 : place;
}

bool
crm_definition_earns(const CrmDefinitions *known, const char *kind)
{
	for (int i = 0; i < known->nearning_rules; i++)
		if (known->earning_rules[i].source == CRM_EARN_EVENT &&
			strcmp(known->earning_rules[i].kind, kind) == 0)
			return true;
	return false;
}
