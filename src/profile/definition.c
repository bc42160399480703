/*
 * definition.c
 *		Achievements, stages and stage rules as a backend keeps them. The cache
 *		lives in a context of its own, is dropped as a whole by a relcache
 *		invalidation of one of the three tables, and rebuilt at the next use.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/snapmgr.h"

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
static Oid definition_tables[3];

static CrmPlan select_achievements = { "SELECT name, on_kind, measure, thresholds, rule, revocable"
									   " FROM crm.achievement ORDER BY name COLLATE \"C\"",
									   0 };
static CrmPlan select_stages = {
	"SELECT s.stage, s.rank, r.rule, r.allow_regress, r.position"
	" FROM crm.stage s LEFT JOIN crm.stage_rule r ON r.stage = s.stage"
	" ORDER BY s.rank DESC NULLS FIRST, r.position, s.stage COLLATE \"C\"",
	0
};

static void
forget_definitions(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == definition_tables[0] || relid == definition_tables[1] ||
		relid == definition_tables[2])
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
