/*
 * due.c
 *		When time alone changes the answer of a rule over the profile. What the
 *		rule reads of each contact is fetched by one statement, with the fact
 *		that is the first to leave each interval; the moment is then found from
 *		the values.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/guc.h"
#include "base/table.h"
#include "pg_crm.h"
#include "rules/inputs.h"
#include "rules/kept.h"
#include "rules/language.h"
#include "rules/rules.h"

#define MAX_FUNCTIONS 64
/* contacts asked about together */
#define PART        10000
#define LARGE_BATCH 64

typedef struct Timed
{
	CrmKeptRule kept; /* with plans for few and for many, or with none */
	CrmExpression *expression;
	int nvalues;
	int nwindows;
	Datum *within; /* intervals that facts leave; their oldest facts come after the values */
} Timed;

static CrmKeptRules kept = { .tables = { "profile", "stage" } };

/* The names that a rule may use: columns of the profile, then rule functions by their labels. */
typedef struct Names
{
	int ncolumns;
	int nfunctions;
	const char *functions[MAX_FUNCTIONS];
	MemoryContext context; /* of the labels: the compilation has one of its own */
} Names;

static int
name_function(void *arg, const char *name, const char *const *arguments, const char *label)
{
	Names *names = arg;

	for (int i = 0; i < names->nfunctions; i++)
		if (strcmp(names->functions[i], label) == 0)
			return names->ncolumns + i;
	if (names->nfunctions == MAX_FUNCTIONS)
		return -1;
	names->functions[names->nfunctions] = MemoryContextStrdup(names->context, label);
	return names->ncolumns + names->nfunctions++;
}

/* The columns of the profile, and the rank of the stage. */
static CrmVariable *
list_columns(int *n)
{
	Relation profile = table_open(crm_table_oid("profile"), AccessShareLock);
	TupleDesc descriptor = RelationGetDescr(profile);
	CrmVariable *variables = palloc0_array(CrmVariable, descriptor->natts + 1);

	*n = 0;
	for (int i = 0; i < descriptor->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(descriptor, i);

		if (attribute->attisdropped)
			continue;
		variables[*n].name = pstrdup(NameStr(attribute->attname));
		variables[*n].type = attribute->atttypid;
		variables[*n].collation = attribute->attcollation;
		variables[*n].position = *n;
		(*n)++;
	}
	variables[*n].name = "stage_rank";
	variables[*n].type = INT4OID;
	variables[*n].position = *n;
	(*n)++;
	table_close(profile, AccessShareLock);
	return variables;
}

static Node *
find_reference(const CrmRuleTree *rule, const char *label)
{
	ListCell *cell;

	foreach(cell, rule->references)
	{
		CrmRuleReference *reference = lfirst(cell);

		if (strcmp(reference->label, label) == 0)
			return reference->node;
	}
	/* a column that a rule function reads */
	return crm_rule_fragment(psprintf("p.%s", quote_identifier(label)));
}

/* The statement that brings the values, by their positions, and the oldest facts. */
static char *
make_statement(const char *text, CrmRuleScope scope, const CrmExpression *expression,
			   const CrmVariable *variables, const Names *names, List **within)
{
	CrmRuleTree *rule = palloc0(sizeof(CrmRuleTree));
	List *columns = NIL;
	ListCell *cell;

	rule->wants_oldest = true;
	crm_rule_read_into(rule, text);
	for (int i = 0; i < expression->ninputs; i++)
	{
		int position = expression->inputs[i].position;

		if (expression->inputs[i].kind == CRM_INPUT_VALUE)
			columns = lappend(columns,
							  find_reference(rule,
											 position < names->ncolumns
												 ? variables[position].name
												 : names->functions[position - names->ncolumns]));
	}
	*within = NIL;
	foreach(cell, rule->joins)
	{
		CrmRuleJoin *join = lfirst(cell);

		if (join->within == NULL)
			continue;
		*within = lappend(*within, unconstify(char *, join->within));
		columns = lappend(columns, crm_rule_fragment(psprintf("%s.oldest", join->alias)));
	}
	return columns == NIL ? NULL : crm_rule_compile(rule, scope, columns);
}

static SPIPlanPtr
prepare(const char *sql, int options)
{
	SPIPlanPtr plan = SPI_prepare_cursor(sql, CRM_RULE_PARAMETERS,
										 unconstify(Oid *, &crm_rule_types[0]), options);

	if (plan == NULL)
		elog(ERROR, "SPI_prepare_cursor failed: %s", SPI_result_code_string(SPI_result));
	return plan;
}

/* The expression's values come in the order of the statement's columns. */
static void
number_inputs(CrmExpression *expression, int *nvalues)
{
	*nvalues = 0;
	for (int i = 0; i < expression->ninputs; i++)
		if (expression->inputs[i].kind == CRM_INPUT_VALUE)
			expression->inputs[i].position = (*nvalues)++;
}

static Timed *
compile(const char *text)
{
	Timed *rule = (Timed *) crm_kept_create(sizeof(Timed), text);
	MemoryContext context = rule->kept.context;
	MemoryContext old = MemoryContextSwitchTo(context);
	Names names = { .context = CurrentMemoryContext };
	CrmScope scope = { .what = "a rule", .function = name_function, .arg = &names };
	ErrorContextCallback callback;
	List *within;
	ListCell *cell;
	char *few;
	char *many;

	MemoryContextSwitchTo(old);
	scope.variables = list_columns(&scope.nvariables);
	names.ncolumns = scope.nvariables;
	MemoryContextSwitchTo(context);
	rule->expression = crm_expression_compile(text, &scope);
	MemoryContextSwitchTo(old);

	crm_rule_point(&callback, text);
	few = make_statement(text, CRM_RULE_FEW, rule->expression, scope.variables, &names, &within);
	many = make_statement(text, CRM_RULE_MANY, rule->expression, scope.variables, &names, &within);
	crm_rule_point_end(&callback);
	number_inputs(rule->expression, &rule->nvalues);
	rule->nwindows = list_length(within);
	rule->within = MemoryContextAlloc(context, sizeof(Datum) * Max(rule->nwindows, 1));
	MemoryContextSwitchTo(context);
	foreach(cell, within)
		rule->within[foreach_current_index(cell)] =
			DirectFunctionCall3(interval_in, CStringGetDatum(lfirst(cell)),
								ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	MemoryContextSwitchTo(old);
	if (few != NULL)
	{
		rule->kept.plans[CRM_RULE_FEW] = prepare(few, CURSOR_OPT_GENERIC_PLAN);
		rule->kept.plans[CRM_RULE_MANY] = prepare(many, CURSOR_OPT_CUSTOM_PLAN);
	}
	crm_kept_add(&kept, &rule->kept);
	return rule;
}

static Timed *
find_timed(const char *text)
{
	Timed *rule = (Timed *) crm_kept_find(&kept, text);

	return rule != NULL ? rule : compile(text);
}

static TimestampTz
due_of(Timed *rule, uint64 row, TimestampTz as_of)
{
	Datum *values = palloc_array(Datum, Max(rule->nvalues, 1));
	bool *nulls = palloc_array(bool, Max(rule->nvalues, 1));
	TimestampTz due;

	for (int i = 0; i < rule->nvalues; i++)
		values[i] = crm_result(row, i + 2, &nulls[i]);
	due = crm_expression_due(rule->expression, values, nulls, as_of);
	for (int i = 0; i < rule->nwindows; i++)
	{
		bool isnull;
		Datum oldest = crm_result(row, rule->nvalues + i + 2, &isnull);

		TimestampTz moment = DT_NOEND;

		if (!isnull)
			moment = crm_lookback_due(DatumGetTimestampTz(oldest), rule->within[i], as_of);
		/* what has left an interval of months may come into it again at midnight */
		if (crm_lookback_has_months(rule->within[i]))
			moment = Min(moment, crm_next_midnight(as_of));
		due = Min(due, moment);
	}
	pfree(values);
	pfree(nulls);
	return due;
}

static void
ask_part(Timed *rule, const int64 *contacts, int ncontacts, TimestampTz as_of, TimestampTz *due)
{
	Datum values[CRM_RULE_PARAMETERS];
	int code;
	int place = 0;

	crm_rule_values(as_of, values);
	values[CRM_RULE_CONTACTS - 1] = crm_int64_array(contacts, ncontacts);
	code =
		SPI_execute_plan(rule->kept.plans[ncontacts > LARGE_BATCH ? CRM_RULE_MANY : CRM_RULE_FEW],
						 values, NULL, true, 0);
	if (code < 0)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(code));
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		int64 contact_id = crm_result_int64(row, 1);

		if (place >= ncontacts || contacts[place] != contact_id)
		{
			const int64 *found = bsearch(&contact_id, contacts, ncontacts, sizeof(int64),
										 crm_compare_int64);

			if (found == NULL)
				continue;
			place = found - contacts;
		}
		due[place++] = due_of(rule, row, as_of);
	}
	SPI_freetuptable(SPI_tuptable);
}

CrmRuleTime
crm_rule_time(const char *text)
{
	CrmActing acting;
	CrmRuleTime time;
	Timed *rule;

	crm_connect(&acting);
	rule = find_timed(text);
	time = crm_expression_time(rule->expression);
	if (time == CRM_TIME_NONE && rule->nwindows > 0)
		time = CRM_TIME_EXACT;
	for (int i = 0; i < rule->nwindows; i++)
		if (crm_lookback_has_months(rule->within[i]))
			time = CRM_TIME_DAILY;
	crm_disconnect(&acting);
	return time;
}

static void
ask_all(Timed *rule, const int64 *contacts, int ncontacts, TimestampTz as_of, TimestampTz *due)
{
	int nest_level = crm_rule_enter();

	if (rule->kept.plans[CRM_RULE_FEW] == NULL) /* it reads nothing but the time */
	{
		TimestampTz moment = crm_expression_due(rule->expression, NULL, NULL, as_of);

		for (int i = 0; i < ncontacts; i++)
			due[i] = moment;
	}
	else
		for (int start = 0; start < ncontacts; start += PART)
			ask_part(rule, contacts + start, Min(PART, ncontacts - start), as_of, due + start);
	crm_rule_leave(nest_level);
}

static void
ask(Timed *rule, const int64 *contacts, int ncontacts, TimestampTz as_of, TimestampTz *due)
{
	crm_kept_begin(&rule->kept);
	PG_TRY();
	{
		ask_all(rule, contacts, ncontacts, as_of, due);
	}
	PG_FINALLY();
	{
		crm_kept_end(&rule->kept);
	}
	PG_END_TRY();
}

void
crm_rule_due(const char *text, const int64 *contacts, int ncontacts, TimestampTz as_of,
			 TimestampTz *due)
{
	CrmActing acting;
	Timed *rule;

	for (int i = 0; i < ncontacts; i++)
		due[i] = DT_NOEND;
	crm_connect(&acting);
	rule = find_timed(text);
	if (crm_expression_time(rule->expression) != CRM_TIME_NONE || rule->nwindows > 0)
		ask(rule, contacts, ncontacts, as_of, due);
	crm_disconnect(&acting);
}
