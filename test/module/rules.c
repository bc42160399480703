/*
 * rules.c
 *		For tests only: SQL functions that ask rules as the rooms above do. They run
 *		a copy of the rules of their own, beside that of pg_crm.
 */
#include "pg_crm.h"

#include <time.h>

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/guc.h"
#include "base/table.h"
#include "rules/fact_rule.h"
#include "rules/rules.h"

PG_FUNCTION_INFO_V1(rooms_fact_rule);
PG_FUNCTION_INFO_V1(rooms_fact_rule_keep);
PG_FUNCTION_INFO_V1(rooms_fact_rule_kept);
PG_FUNCTION_INFO_V1(rooms_fact_rules);
PG_FUNCTION_INFO_V1(rooms_fact_rules_time);
PG_FUNCTION_INFO_V1(rooms_fact_rule_reads);
PG_FUNCTION_INFO_V1(rooms_rule_at);

static const CrmRuleUser user = { "test", "rule" };
static CrmFactRule *kept_rule;

/* The settings are those of pg_crm; what it would prepare when it is loaded is prepared here. */
static void
begin(CrmActing *acting)
{
	static bool prepared = false;

	if (!prepared)
		crm_table_init();
	prepared = true;
	crm_guc_time_zone = MemoryContextStrdup(TopMemoryContext,
											GetConfigOption("pg_crm.time_zone", false, false));
	crm_guc_zone = pg_tzset(crm_guc_time_zone);
	crm_connect(acting);
}

static Datum
value_of(JsonbValue *value, Oid type)
{
	Oid input;
	Oid parameter;
	char *text;

	if (type == JSONBOID)
		return PointerGetDatum(JsonbValueToJsonb(value));
	text = value->type == jbvString ? pnstrdup(value->val.string.val, value->val.string.len)
		: value->type == jbvNumeric
		? DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)))
		: "";
	getTypeInputInfo(type, &input, &parameter);
	return OidInputFunctionCall(input, text, parameter, -1);
}

static bool
member(Jsonb *document, const char *name, Oid type, Datum *result)
{
	JsonbValue value;

	if (getKeyJsonValueFromContainer(&document->root, name, strlen(name), &value) == NULL ||
		value.type == jbvNull)
		return false;
	*result = value_of(&value, type);
	return true;
}

/* A document has contact_id, as_of, and columns of the fact by their names. */
static void
read_fact(Jsonb *document, CrmFactValues *fact)
{
	Datum value;

	memset(fact, 0, sizeof(CrmFactValues));
	if (member(document, "contact_id", INT8OID, &value))
		fact->contact_id = DatumGetInt64(value);
	if (member(document, "as_of", TIMESTAMPTZOID, &value))
		fact->as_of = DatumGetTimestampTz(value);
	for (int i = 0; i < CRM_FACT_COLUMNS; i++)
		fact->nulls[i] = !member(document, crm_fact_variables[i].name, crm_fact_variables[i].type,
								 &fact->values[i]);
}

static CrmFactValues *
read_facts(ArrayType *array, int *n)
{
	CrmFactValues *facts;
	Datum *documents;

	deconstruct_array(array, JSONBOID, -1, false, TYPALIGN_INT, &documents, NULL, n);
	facts = palloc0(sizeof(CrmFactValues) * (*n + 1));
	for (int i = 0; i < *n; i++)
		read_fact(DatumGetJsonbP(documents[i]), &facts[i]);
	return facts;
}

static Datum
booleans(const bool *values, int n)
{
	Datum *datums = palloc(sizeof(Datum) * (n + 1));

	for (int i = 0; i < n; i++)
		datums[i] = BoolGetDatum(values[i]);
	return PointerGetDatum(construct_array(datums, n, BOOLOID, 1, true, TYPALIGN_CHAR));
}

static Datum
evaluate(CrmFactRule *rule, ArrayType *array)
{
	int n;
	CrmFactValues *facts = read_facts(array, &n);
	bool *holds = palloc(n + 1);

	memset(holds, 0x55, n); /* neither true nor false: each is written */
	crm_fact_rule_evaluate(rule, &user, facts, n, holds);
	return booleans(holds, n);
}

/* fact_rule(rule, facts jsonb[]) */
Datum
rooms_fact_rule(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	CrmActing acting;
	CrmFactRule *rule;
	Datum result;

	begin(&acting);
	MemoryContextSwitchTo(context);
	rule = crm_fact_rule_compile(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	result = evaluate(rule, PG_GETARG_ARRAYTYPE_P(1));
	crm_disconnect(&acting);
	return result;
}

/* fact_rule_keep(rule): for fact_rule_kept(), whatever happens meanwhile */
Datum
rooms_fact_rule_keep(PG_FUNCTION_ARGS)
{
	CrmActing acting;

	begin(&acting);
	MemoryContextSwitchTo(TopMemoryContext);
	kept_rule = crm_fact_rule_compile(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	crm_disconnect(&acting);
	PG_RETURN_VOID();
}

Datum
rooms_fact_rule_kept(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	CrmActing acting;
	Datum result;

	begin(&acting);
	MemoryContextSwitchTo(context);
	result = evaluate(kept_rule, PG_GETARG_ARRAYTYPE_P(0));
	crm_disconnect(&acting);
	return result;
}

/* Rules of an array, each to answer of each fact. */
typedef struct Asked
{
	CrmFactRules *set;
	const CrmRuleUser **users;
	bool **holds;
	bool *answers;
	CrmFactValues *facts;
	int nfacts;
	int n;
} Asked;

static Asked
compile_all(ArrayType *rules_array, ArrayType *facts_array)
{
	Asked asked;
	CrmFactRule **compiled;
	Datum *rules;

	asked.facts = read_facts(facts_array, &asked.nfacts);
	deconstruct_array(rules_array, TEXTOID, -1, false, TYPALIGN_INT, &rules, NULL, &asked.n);
	compiled = palloc(sizeof(CrmFactRule *) * (asked.n + 1));
	asked.users = palloc(sizeof(CrmRuleUser *) * (asked.n + 1));
	asked.holds = palloc(sizeof(bool *) * (asked.n + 1));
	asked.answers = palloc(asked.n * asked.nfacts + 1);
	memset(asked.answers, 0x55, asked.n * asked.nfacts);
	for (int i = 0; i < asked.n; i++)
	{
		compiled[i] = crm_fact_rule_compile(TextDatumGetCString(rules[i]));
		asked.users[i] = &user;
		asked.holds[i] = asked.answers + i * asked.nfacts;
	}
	asked.set = crm_fact_rules_create(compiled, asked.n);
	return asked;
}

static void
ask_all(const Asked *asked)
{
	crm_fact_rules_evaluate(asked->set, asked->users, asked->facts, asked->nfacts, asked->holds);
}

/* fact_rules(rules, facts): the answers of the first rule, then those of the second … */
Datum
rooms_fact_rules(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	CrmActing acting;
	Asked asked;

	begin(&acting);
	MemoryContextSwitchTo(context);
	asked = compile_all(PG_GETARG_ARRAYTYPE_P(0), PG_GETARG_ARRAYTYPE_P(1));
	/* the second time by what the first one has looked up */
	ask_all(&asked);
	memset(asked.answers, 0x55, asked.n * asked.nfacts);
	ask_all(&asked);
	crm_disconnect(&acting);
	return booleans(asked.answers, asked.n * asked.nfacts);
}

/* fact_rules_time(rules, facts, times): microseconds of processor each time, for all together */
Datum
rooms_fact_rules_time(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	CrmActing acting;
	Asked asked;
	struct timespec start;
	struct timespec end;

	begin(&acting);
	MemoryContextSwitchTo(context);
	asked = compile_all(PG_GETARG_ARRAYTYPE_P(0), PG_GETARG_ARRAYTYPE_P(1));
	ask_all(&asked);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
	for (int i = 0; i < PG_GETARG_INT32(2); i++)
		ask_all(&asked);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &end);
	crm_disconnect(&acting);
	PG_RETURN_FLOAT8(((end.tv_sec - start.tv_sec) * 1e6 + (end.tv_nsec - start.tv_nsec) / 1e3) /
					 PG_GETARG_INT32(2));
}

static void
add_names(StringInfo s, const char *what, List *names)
{
	ListCell *cell;

	appendStringInfo(s, " %s", what);
	foreach(cell, names)
		appendStringInfo(s, ",%s", (char *) lfirst(cell));
}

/* fact_rule_reads(rule): topics, kinds, columns, segments */
Datum
rooms_fact_rule_reads(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	const CrmRuleReads *reads;
	StringInfoData s;
	CrmActing acting;

	begin(&acting);
	MemoryContextSwitchTo(context);
	reads = crm_fact_rule_reads(crm_fact_rule_compile(text_to_cstring(PG_GETARG_TEXT_PP(0))));
	crm_disconnect(&acting);
	initStringInfo(&s);
	appendStringInfo(&s, "topics,%u", reads->topics);
	add_names(&s, "kinds", reads->kinds);
	add_names(&s, "columns", reads->columns);
	add_names(&s, "segments", reads->segments);
	return CStringGetTextDatum(s.data);
}

/* rule_at(rule, contacts, as_of timestamptz[], one_by_one): by the batch, or as one is asked alone */
Datum
rooms_rule_at(PG_FUNCTION_ARGS)
{
	MemoryContext context = CurrentMemoryContext;
	char *rule = text_to_cstring(PG_GETARG_TEXT_PP(0));
	Datum *contacts;
	Datum *moments;
	int64 *ids;
	bool *holds;
	CrmActing acting;
	int n;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), INT8OID, 8, true, TYPALIGN_DOUBLE, &contacts, NULL,
					  &n);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(2), TIMESTAMPTZOID, 8, true, TYPALIGN_DOUBLE, &moments,
					  NULL, &n);
	ids = palloc(sizeof(int64) * (n + 1));
	holds = palloc(n + 1);
	for (int i = 0; i < n; i++)
		ids[i] = DatumGetInt64(contacts[i]);
	memset(holds, 0x55, n);
	begin(&acting);
	MemoryContextSwitchTo(context);
	if (PG_GETARG_BOOL(3))
		for (int i = 0; i < n; i++)
			crm_rule_evaluate(rule, &user, &ids[i], 1, DatumGetTimestampTz(moments[i]), &holds[i]);
	else
		crm_rule_evaluate_at(rule, &user, ids, n, (const TimestampTz *) moments, holds);
	crm_disconnect(&acting);
	return booleans(holds, n);
}
