/*
 * definition.c
 *		Achievements, stages, stage rules and earning rules as a backend keeps
 *		them. The cache
 *		lives in a context of its own, is dropped as a whole by a relcache
 *		invalidation of one of its tables, and rebuilt at the next use.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/guc.h"
#include "base/table.h"
#include "base/watch.h"
#include "profile/definition.h"
#include "profile/profile.h"
#include "rules/fact_columns.h"
#include "rules/rules.h"

const char *const crm_profile_column_names[CRM_PROFILE_COLUMNS] = {
	"contact_id",   "orders",    "spend",       "first_order_at", "last_order_at", "refunds",
	"scans",        "raw_scans", "followed_at", "mobile_at",      "events",        "first_seen_at",
	"last_seen_at", "stage",     "stage_since", "stage_manual",   "ranked_stage",  "settled_at"
};

/* What a stage rule may name; refunds and the stage itself are no facts. */
#define PROFILE_VARIABLES                                                                    \
	{ "orders", INT8OID, CRM_P_ORDERS, false }, { "spend", NUMERICOID, CRM_P_SPEND, false }, \
		{ "first_order_at", TIMESTAMPTZOID, CRM_P_FIRST_ORDER_AT, false },                   \
		{ "last_order_at", TIMESTAMPTZOID, CRM_P_LAST_ORDER_AT, false },                     \
		{ "scans", INT8OID, CRM_P_SCANS, false },                                            \
		{ "raw_scans", INT8OID, CRM_P_RAW_SCANS, false },                                    \
		{ "followed_at", TIMESTAMPTZOID, CRM_P_FOLLOWED_AT, false },                         \
		{ "mobile", INT8OID, CRM_P_MOBILE_AT, true },                                        \
	{                                                                                        \
		"mobile_at", TIMESTAMPTZOID, CRM_P_MOBILE_AT, false                                  \
	}
/* what every fact changes: no achievement is to depend on it */
#define SIGHT_VARIABLES                                                  \
	{ "events", INT8OID, CRM_P_EVENTS, false },                          \
		{ "first_seen_at", TIMESTAMPTZOID, CRM_P_FIRST_SEEN_AT, false }, \
	{                                                                    \
		"last_seen_at", TIMESTAMPTZOID, CRM_P_LAST_SEEN_AT, false        \
	}

static const CrmVariable stage_variables[] = { PROFILE_VARIABLES, SIGHT_VARIABLES };
static const CrmVariable profile_variables[] = { PROFILE_VARIABLES };

/* what is found of a fact only where some rule asks for it */
static const CrmFactColumn details[] = { CRM_F_CURRENCY,   CRM_F_ITEMS,      CRM_F_STORE_ID,
										 CRM_F_PROPERTIES, CRM_F_QR_CODE_ID, CRM_F_CAMPAIGN,
										 CRM_F_FIELD,      CRM_F_OLD,        CRM_F_NEW };

static MemoryContext definition_context = NULL;
static CrmDefinitions *definitions = NULL;
static bool definitions_valid = false;
static char *definitions_zone; /* pg_crm.time_zone when they were compiled */
static Oid definition_tables[6];

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
	crm_on_table_change(forget_definitions);
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

/* Rules are read in memory that is thrown away; what is made of them is not. */
typedef struct WindowMaker
{
	CrmDefinitions *build;
	MemoryContext context;
} WindowMaker;

/* The window of a rule function of a stage rule, made where it is new. */
static int
find_window(void *arg, const char *name, const char *const *arguments, const char *label)
{
	WindowMaker *maker = arg;
	CrmDefinitions *build = maker->build;
	bool spent = strcmp(name, "spent") == 0;
	const char *kind = spent ? "purchase" : arguments[0];
	const char *within = arguments[spent ? 0 : 1];
	CrmWindow *window;
	MemoryContext old;

	if (!spent && strcmp(name, "times") != 0 && strcmp(name, "did") != 0)
		return -1;
	for (int i = 0; i < build->nwindows; i++)
		if (strcmp(build->windows[i].label, label) == 0)
			return CRM_FIRST_WINDOW + i;
	if (build->nwindows == CRM_MAX_WINDOWS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("stage rules hold more than %d different rule functions", CRM_MAX_WINDOWS),
				 errhint("Ask for the same kinds and intervals in several rules.")));
	old = MemoryContextSwitchTo(maker->context);
	if (build->windows == NULL)
		build->windows = palloc0_array(CrmWindow, CRM_MAX_WINDOWS);
	window = &build->windows[build->nwindows];
	window->label = pstrdup(label);
	window->measure = spent          ? CRM_WINDOW_SPENT
		: strcmp(name, "times") == 0 ? CRM_WINDOW_TIMES
									 : CRM_WINDOW_DID;
	window->type = strcmp(kind, "purchase") == 0 ? CRM_FACT_PURCHASE
		: strcmp(kind, "refund") == 0            ? CRM_FACT_REFUND
		: strcmp(kind, "scan") == 0              ? CRM_FACT_SCAN
		: strcmp(kind, "set_stage") == 0         ? CRM_FACT_MANUAL_STAGE
												 : CRM_FACT_EVENT;
	window->kind = window->type == CRM_FACT_EVENT ? intern_kind(build, kind) : -1;
	window->bounded = within != NULL;
	if (within != NULL)
		window->within = DirectFunctionCall3(interval_in, CStringGetDatum(within),
											 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	MemoryContextSwitchTo(old);
	return CRM_FIRST_WINDOW + build->nwindows++;
}

/* The columns of crm.contact that are its users', where a change is a fact. */
static void
list_fields(CrmDefinitions *build)
{
	static const char *const kept[] = { "contact_id", "created_at", "mobile", "stage" };
	Relation contact = table_open(crm_table_oid("contact"), AccessShareLock);
	TupleDesc descriptor = RelationGetDescr(contact);

	build->fields = palloc0_array(CrmField, descriptor->natts);
	for (int i = 0; i < descriptor->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(descriptor, i);
		CrmField *field = &build->fields[build->nfields];
		bool skip = attribute->attisdropped;

		for (int k = 0; k < lengthof(kept); k++)
			skip = skip || strcmp(NameStr(attribute->attname), kept[k]) == 0;
		for (int k = 0; k < lengthof(stage_variables); k++)
			skip = skip || strcmp(NameStr(attribute->attname), stage_variables[k].name) == 0;
		if (skip)
			continue;
		field->name = pstrdup(NameStr(attribute->attname));
		field->type = attribute->atttypid;
		field->length = attribute->attlen;
		field->by_value = attribute->attbyval;
		field->collation = attribute->attcollation;
		build->nfields++;
	}
	build->nvalues = CRM_FIRST_FIELD + build->nfields;
	table_close(contact, AccessShareLock);
}

static CrmExpression *
compile_stage_rule(CrmDefinitions *build, const char *text)
{
	WindowMaker maker = { build, CurrentMemoryContext };
	CrmVariable *variables = palloc_array(CrmVariable, lengthof(stage_variables) + build->nfields);
	CrmScope scope = { "the rule of a stage", lengthof(stage_variables) + build->nfields, variables,
					   find_window, &maker };

	memcpy(variables, stage_variables, sizeof(stage_variables));
	for (int i = 0; i < build->nfields; i++)
	{
		CrmVariable *variable = &variables[lengthof(stage_variables) + i];

		variable->name = build->fields[i].name;
		variable->type = build->fields[i].type;
		variable->position = CRM_FIRST_FIELD + i;
		variable->presence = false;
		variable->collation = build->fields[i].collation;
	}
	return crm_expression_compile(text, &scope);
}

/* A rule over a fact, with columns of its profile or without, of a changed field or not. */
static CrmExpression *
compile_over_fact(const char *what, const char *text, bool profile, bool change)
{
	CrmVariable variables[lengthof(profile_variables) + CRM_FACT_COLUMNS];
	CrmScope scope = { what, 0, variables };

	if (profile)
	{
		memcpy(variables, profile_variables, sizeof(profile_variables));
		scope.nvariables = lengthof(profile_variables);
	}
	for (int i = 0; i < (change ? CRM_FACT_COLUMNS : CRM_FACT_COLUMNS_OF_ALL); i++)
	{
		variables[scope.nvariables] = crm_fact_variables[i];
		variables[scope.nvariables++].position = CRM_VALUE_OF_FACT(i);
	}
	return crm_expression_compile(text, &scope);
}

static CrmExpression *
compile_achievement_rule(CrmDefinitions *build, const char *text)
{
	return compile_over_fact("the rule of an achievement", text, true, false);
}

static CrmExpression *
compile_earning_rule(CrmDefinitions *build, const char *text)
{
	return compile_over_fact("an earning rule", text, false, false);
}

static CrmExpression *
compile_achievement_change_rule(CrmDefinitions *build, const char *text)
{
	return compile_over_fact("the rule of an achievement on changed fields", text, true, true);
}

static CrmExpression *
compile_earning_change_rule(CrmDefinitions *build, const char *text)
{
	return compile_over_fact("an earning rule on changed fields", text, false, true);
}

typedef CrmExpression *(*Compile)(CrmDefinitions *build, const char *text);

typedef struct Compiling
{
	Compile compile;
	CrmDefinitions *build;
	const char *text;
	CrmExpression *expression;
	MemoryContext context;
} Compiling;

static bool
compile_once(void *arg)
{
	Compiling *compiling = arg;

	MemoryContextSwitchTo(compiling->context);
	compiling->expression = compiling->compile(compiling->build, compiling->text);
	return true;
}

/* Compiles a rule; NULL and why where it is broken. Any other failure is an error. */
static CrmExpression *
try_compile(CrmDefinitions *build, Compile compile, const char *text, char **why)
{
	Compiling compiling = { compile, build, text, NULL, CurrentMemoryContext };
	ErrorData *error;

	if (crm_attempt(compile_once, &compiling, &error))
		return compiling.expression;
	if (!crm_rule_is_broken(error))
		ReThrowError(error);
	*why = pstrdup(error->message);
	FreeErrorData(error);
	return NULL;
}

/* A stored rule that no longer compiles counts as false and stops nobody. */
static CrmExpression *
compile_stored(CrmDefinitions *build, const char *what, const char *name, const char *text,
			   Compile compile)
{
	char *why;
	CrmExpression *expression = try_compile(build, compile, text, &why);

	if (expression == NULL)
	{
		ereport(WARNING,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("rule of %s \"%s\" is broken and counts as false: %s", what, name, why),
				 errhint("Save the definition again with a rule that is understood.")));
		return crm_expression_never();
	}
	build->reads_settings = build->reads_settings || crm_expression_reads_settings(expression);
	for (int i = 0; i < lengthof(details); i++)
		if (crm_expression_names(expression, CRM_VALUE_OF_FACT(details[i])))
			build->reads_details = true;
	return expression;
}

static Compile
achievement_compiler(const char *on_kind)
{
	return on_kind != NULL && strcmp(on_kind, "field_change") == 0 ? compile_achievement_change_rule
																   : compile_achievement_rule;
}

static Compile
earning_compiler(const char *on_kind)
{
	return on_kind != NULL && strcmp(on_kind, "field_change") == 0 ? compile_earning_change_rule
																   : compile_earning_rule;
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
	build->orders_continue = build->scans_continue = true;
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
			achievement->rule = compile_stored(build, "achievement", achievement->name, rule,
											   achievement_compiler(
												   build->kinds[achievement->kind]));
		achievement->revocable = DatumGetBool(crm_result(row, 6, &isnull));
		if (achievement->kind == CRM_KIND_PURCHASE && achievement->rule != NULL)
			build->orders_continue = false;
		if (achievement->kind == CRM_KIND_SCAN &&
			(achievement->rule != NULL || achievement->by_amount))
			build->scans_continue = false;
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
		stage->rule = compile_stored(build, "stage", stage->stage, rule, compile_stage_rule);
		stage->reads_time = crm_expression_time(stage->rule) != CRM_TIME_NONE;
		for (int i = 0; i < build->nfields; i++)
			if (crm_expression_names(stage->rule, CRM_FIRST_FIELD + i))
			{
				build->fields[i].wanted = build->reads_fields = true;
				/* its changes are walked */
				(void) intern_kind(build, "field_change");
			}
		build->stages_read_time = build->stages_read_time || stage->reads_time;
		stage->allow_regress = DatumGetBool(crm_result(row, 4, &isnull));
		stage->position = DatumGetInt32(crm_result(row, 5, &isnull));
		if (stage->allow_regress)
			build->may_regress = true;
		if (crm_expression_names(stage->rule, CRM_P_EVENTS) ||
			crm_expression_names(stage->rule, CRM_P_FIRST_SEEN_AT) ||
			crm_expression_names(stage->rule, CRM_P_LAST_SEEN_AT))
			build->every_fact_matters = true;
	}
	for (int i = 0; i < build->nwindows; i++)
	{
		build->stages_read_time = build->stages_read_time || build->windows[i].bounded;
		/* interval arithmetic in the zone of rules */
		build->reads_settings = build->reads_settings || build->windows[i].bounded;
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
			earning->rule = compile_stored(build, "earning rule", earning->name, rule,
										   earning_compiler(earning->kind));
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

	/* rules are read with the zone that they will run in */
	if (definitions_valid && strcmp(definitions_zone, crm_guc_time_zone) == 0)
		return definitions;

	definition_tables[0] = crm_table_oid("achievement");
	definition_tables[1] = crm_table_oid("stage");
	definition_tables[2] = crm_table_oid("stage_rule");
	definition_tables[3] = crm_table_oid("earning_rule");
	definition_tables[4] = crm_table_oid("tier");
	definition_tables[5] = crm_table_oid("contact");

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
		MemoryContext old = MemoryContextSwitchTo(context);

		list_fields(build);
		MemoryContextSwitchTo(old);
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

	/* a caller further up may hold names of the old ones: a trigger of a brand's own records facts */
	if (definition_context != NULL)
		MemoryContextSetParent(definition_context, TopTransactionContext);
	MemoryContextSetParent(context, CacheMemoryContext);
	definition_context = context;
	definitions = build;
	definitions_zone = MemoryContextStrdup(context, crm_guc_time_zone);
	return definitions;
}

typedef struct Checked
{
	Compile compile;
	const char *text;
	CrmRuleTime time;
} Checked;

/* As the definition tables take it, in memory of its own. */
static CrmRuleTime
check_rule(const char *text, Compile compile)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm rule",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	CrmDefinitions *build = palloc0(sizeof(CrmDefinitions));
	CrmExpression *expression;
	CrmRuleTime time;
	CrmActing acting;

	crm_connect(&acting);
	MemoryContextSwitchTo(context);
	list_fields(build);
	expression = compile(build, text);
	time = crm_expression_time(expression);
	for (int i = 0; i < build->nwindows; i++)
		if (build->windows[i].bounded && time == CRM_TIME_NONE)
			time = CRM_TIME_EXACT;
	crm_disconnect(&acting);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return time;
}

CrmRuleTime
crm_stage_rule_check(const char *text)
{
	return check_rule(text, compile_stage_rule);
}

void
crm_achievement_rule_check(const char *text, const char *on_kind)
{
	(void) check_rule(text, achievement_compiler(on_kind));
}

void
crm_earning_rule_check(const char *text, const char *on_kind)
{
	(void) check_rule(text, earning_compiler(on_kind));
}

void
crm_definitions_broken(CrmBrokenRule broken, void *arg)
{
	static CrmPlan select_rules = {
		"SELECT 'achievement', a.name, a.rule, a.on_kind FROM crm.achievement a WHERE a.rule IS NOT NULL"
		" UNION ALL SELECT 'stage_rule', r.stage, r.rule, NULL FROM crm.stage_rule r"
		" UNION ALL SELECT 'earning_rule', e.name, e.rule, e.on_kind FROM crm.earning_rule e"
		" WHERE e.rule IS NOT NULL ORDER BY 1, 2",
		0
	};
	uint64 n = crm_read(&select_rules, NULL, NULL);
	SPITupleTable *rules = SPI_tuptable;

	for (uint64 row = 0; row < n; row++)
	{
		CrmDefinitions *build = palloc0(sizeof(CrmDefinitions));
		char *why;
		char *on_kind;
		char *table = SPI_getvalue(rules->vals[row], rules->tupdesc, 1);

		list_fields(build);
		on_kind = SPI_getvalue(rules->vals[row], rules->tupdesc, 4);
		if (try_compile(build,
						strcmp(table, "achievement") == 0      ? achievement_compiler(on_kind)
							: strcmp(table, "stage_rule") == 0 ? compile_stage_rule
															   : earning_compiler(on_kind),
						SPI_getvalue(rules->vals[row], rules->tupdesc, 3), &why) == NULL)
			broken(arg, table, SPI_getvalue(rules->vals[row], rules->tupdesc, 2), why);
	}
	SPI_freetuptable(rules);
}

int
crm_definitions_enter(const CrmDefinitions *known)
{
	return known->reads_settings ? crm_expressions_enter() : 0;
}

void
crm_definitions_leave(int nest_level)
{
	if (nest_level > 0)
		crm_expressions_leave(nest_level);
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
