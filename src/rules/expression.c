/*
 * expression.c
 *		A rule over values at hand. Its names become parameters, PostgreSQL
 *		analyses and plans it, and what comes out is evaluated on the values,
 *		without SQL.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/guc.h"
#include "pg_crm.h"
#include "rules/guard.h"
#include "rules/inputs.h"
#include "rules/language.h"

/* raise no error whatever they are given, beside those marked LEAKPROOF */
static const char *const safe_functions[] = {
	"bpchareq",     "bpcharne",
	"int4_numeric", "int8_numeric",
	"interval_eq",  "interval_ge",
	"interval_gt",  "interval_le",
	"interval_lt",  "interval_ne",
	"jsonb_eq",     "jsonb_exists",
	"jsonb_ne",     "jsonb_object_field",
	"numeric_cmp",  "numeric_eq",
	"numeric_ge",   "numeric_gt",
	"numeric_le",   "numeric_lt",
	"numeric_ne",   "jsonb_object_field_text",
	"text_ge",      "text_gt",
	"text_le",      "text_lt",
};

bool
crm_input_knows(const CrmRuleTree *rule, const char *name)
{
	const CrmScope *scope = rule->inputs->scope;

	for (int i = 0; i < scope->nvariables; i++)
		if (strcmp(scope->variables[i].name, name) == 0)
			return true;
	return false;
}

/* As a column of its own collation is read in SQL. */
static Node *
collate(Node *node, Oid type, Oid collation)
{
	CollateClause *clause;
	HeapTuple tuple;

	if (!OidIsValid(collation) || collation == get_typcollation(type))
		return node;
	tuple = SearchSysCache1(COLLOID, ObjectIdGetDatum(collation));
	if (!HeapTupleIsValid(tuple))
		return node;
	clause = makeNode(CollateClause);
	clause->arg = node;
	clause->collname = list_make2(makeString(get_namespace_name(
									  ((Form_pg_collation) GETSTRUCT(tuple))->collnamespace)),
								  makeString(get_collation_name(collation)));
	ReleaseSysCache(tuple);
	clause->location = -1;
	return (Node *) clause;
}

/* The parameter of a value; each value is one, however often it is named. */
static Node *
input(CrmExpressionInputs *inputs, CrmInputKind kind, int position, Oid type, bool presence,
	  int location)
{
	ParamRef *reference = makeNode(ParamRef);
	int place = 0;

	while (place < inputs->n &&
		   (inputs->list[place].kind != kind || inputs->list[place].position != position))
		place++;
	if (place == inputs->n)
	{
		if (inputs->n == CRM_MAX_INPUTS)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("rule names more than %d different values", CRM_MAX_INPUTS),
					 errhint("Split it into several definitions.")));
		inputs->list[inputs->n].kind = kind;
		inputs->list[inputs->n].position = position;
		inputs->list[inputs->n].type = type;
		inputs->list[inputs->n].presence = presence;
		inputs->n++;
	}
	reference->number = place + 1;
	reference->location = location;
	return (Node *) reference;
}

Node *
crm_input_column(CrmRuleTree *rule, const char *name, int location)
{
	CrmExpressionInputs *inputs = rule->inputs;
	const CrmScope *scope = inputs->scope;
	StringInfoData known;

	if (strcmp(name, "as_of") == 0)
		return input(inputs, CRM_INPUT_AS_OF, 0, TIMESTAMPTZOID, false, location);
	if (strcmp(name, "today") == 0)
		return input(inputs, CRM_INPUT_TODAY, 0, DATEOID, false, location);
	for (int i = 0; i < scope->nvariables; i++)
		if (strcmp(scope->variables[i].name, name) == 0)
			return collate(input(inputs, CRM_INPUT_VALUE, scope->variables[i].position,
								 scope->variables[i].type, scope->variables[i].presence, location),
						   scope->variables[i].type, scope->variables[i].collation);

	initStringInfo(&known);
	for (int i = 0; i < scope->nvariables; i++)
		appendStringInfo(&known, "%s, ", scope->variables[i].name);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("rule names unknown column \"%s\"", pnstrdup(name, NAMEDATALEN - 1)),
			 errhint("Known in %s are %sas_of, today.", scope->what, known.data),
			 errposition(crm_rule_position(rule, location))));
	return NULL; /* keep the compiler quiet */
}

Node *
crm_input_function(CrmRuleTree *rule, const char *name, const char *const *arguments,
				   const char *label, Oid type, int location)
{
	const CrmScope *scope = rule->inputs->scope;
	int position = scope->function == NULL ? -1
										   : scope->function(scope->arg, name, arguments, label);

	if (position < 0)
		crm_rule_refuse(rule, location, psprintf("%s() in %s", name, scope->what),
						"Use columns there, or make a segment of the rule.");
	return input(rule->inputs, CRM_INPUT_VALUE, position, type, false, location);
}

static SelectStmt *
make_select(Node *condition)
{
	SelectStmt *select = makeNode(SelectStmt);

	select->whereClause = condition;
	return select;
}

static bool
may_fail(Oid function, void *context)
{
	char *name;

	if (get_func_leakproof(function))
		return false;
	name = get_func_name(function);
	for (int i = 0; name != NULL && i < lengthof(safe_functions); i++)
		if (strcmp(name, safe_functions[i]) == 0)
			return false;
	return true;
}

static bool
may_fail_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_CoerceViaIO:
		case T_ArrayCoerceExpr:
		case T_SubscriptingRef:
			return true;
		default:
			break;
	}
	return check_functions_in_node(node, may_fail, context) ||
		expression_tree_walker(node, may_fail_walker, context);
}

bool
crm_expression_may_fail(Node *tree)
{
	return may_fail_walker(tree, NULL);
}

typedef struct PresenceCheck
{
	CrmRuleTree *rule;
	bool tested; /* directly under IS [NOT] NULL */
} PresenceCheck;

/* Of some values it is only known whether they are there. */
static bool
check_presence(Node *node, void *context)
{
	PresenceCheck *check = context;
	bool tested = check->tested;

	if (node == NULL)
		return false;
	check->tested = false;
	if (IsA(node, Param))
	{
		Param *param = (Param *) node;

		if (!tested && check->rule->inputs->list[param->paramid - 1].presence)
			crm_rule_refuse(
				check->rule, param->location,
				"the value of a column that can only be tested with IS NULL or IS NOT NULL",
				"Say for example: mobile IS NOT NULL.");
		return false;
	}
	check->tested = IsA(node, NullTest);
	return expression_tree_walker(node, check_presence, context);
}

static void
analyze(CrmRuleTree *rule, CrmExpression *expression)
{
	CrmExpressionInputs *inputs = rule->inputs;
	Oid types[CRM_MAX_INPUTS];
	PresenceCheck presence = { .rule = rule };
	Query *query;

	for (int i = 0; i < inputs->n; i++)
		types[i] = inputs->list[i].type;
	query = crm_rule_analyze(rule, make_select(rule->tree), types, inputs->n);
	expression->tree = query->jointree->quals;
	(void) check_presence(expression->tree, &presence);
	expression->may_fail = crm_expression_may_fail(expression->tree);
	expression->reads_settings = rule->reads_zone;
}

/* Is it one of the values that rules are asked on? */
static bool
is_value(const Node *node, const void *arg, int *column)
{
	const CrmExpressionInputs *inputs = arg;
	const Param *param = (const Param *) node;

	if (!IsA(node, Param) || inputs->list[param->paramid - 1].kind != CRM_INPUT_VALUE)
		return false;
	*column = inputs->list[param->paramid - 1].position;
	return true;
}

/* In the current context, with the analysed tree at hand. */
static void
make_evaluation(CrmExpression *expression, const CrmExpressionInputs *inputs, Node *planned)
{
	expression->ninputs = inputs->n;
	memcpy(expression->inputs, inputs->list, sizeof(CrmInput) * inputs->n);
	expression->parameters = makeParamList(inputs->n);
	for (int i = 0; i < inputs->n; i++)
	{
		expression->parameters->params[i].ptype = inputs->list[i].type;
		expression->parameters->params[i].pflags = 0;
	}
	expression->evaluation = CreateStandaloneExprContext();
	expression->evaluation->ecxt_param_list_info = expression->parameters;
	expression->state = ExecInitExpr((Expr *) copyObject(planned), NULL);
	crm_expression_find_moments(expression, expression->tree);
	expression->tree = NULL;
	/* a failure is counted, whatever else the rule asks */
	if (!expression->may_fail)
		expression->guard = crm_guard_find(planned, is_value, inputs);
}

CrmExpression *
crm_expression_compile(const char *text, const CrmScope *scope)
{
	return crm_expression_compile_part(text, scope, NULL);
}

CrmExpression *
crm_expression_compile_part(const char *text, const CrmScope *scope, bool (*wants)(Node *condition))
{
	CrmExpression *expression = palloc0(sizeof(CrmExpression));
	MemoryContext context = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(context, "pg_crm rule text",
												  ALLOCSET_DEFAULT_SIZES);
	CrmRuleTree *rule;
	ErrorContextCallback callback;
	int nest_level;
	Node *tree = NULL;

	MemoryContextSwitchTo(scratch);
	rule = palloc0(sizeof(CrmRuleTree));
	rule->inputs = palloc0(sizeof(CrmExpressionInputs));
	rule->inputs->scope = scope;
	rule->wants = wants;
	nest_level = crm_rule_enter();
	crm_rule_point(&callback, text);
	crm_rule_read_into(rule, text);
	if (rule->tree != NULL)
	{
		analyze(rule, expression);
		tree = (Node *) expression_planner((Expr *) expression->tree);
	}
	crm_rule_point_end(&callback);

	MemoryContextSwitchTo(context);
	if (rule->tree != NULL)
		make_evaluation(expression, rule->inputs, tree);
	else
		expression = NULL;
	crm_rule_leave(nest_level);
	MemoryContextDelete(scratch);
	return expression;
}

CrmExpression *
crm_expression_never(void)
{
	CrmExpression *expression = palloc0(sizeof(CrmExpression));

	expression->never = true;
	return expression;
}

void
crm_expression_fill(CrmExpression *expression, const Datum *values, const bool *nulls)
{
	for (int i = 0; i < expression->ninputs; i++)
		if (expression->inputs[i].kind == CRM_INPUT_VALUE)
		{
			ParamExternData *parameter = &expression->parameters->params[i];

			parameter->value = values[expression->inputs[i].position];
			parameter->isnull = nulls[expression->inputs[i].position];
		}
}

bool
crm_expression_evaluate(CrmExpression *expression, ExprState *state, TimestampTz as_of,
						bool *isnull)
{
	Datum result;

	for (int i = 0; i < expression->ninputs; i++)
		if (expression->inputs[i].kind != CRM_INPUT_VALUE)
		{
			ParamExternData *parameter = &expression->parameters->params[i];

			parameter->isnull = false;
			parameter->value = expression->inputs[i].kind == CRM_INPUT_AS_OF
				? TimestampTzGetDatum(as_of)
				: DateADTGetDatum(crm_rule_today(as_of));
		}
	result = ExecEvalExprSwitchContext(state, expression->evaluation, isnull);
	ResetExprContext(expression->evaluation);
	return !*isnull && DatumGetBool(result);
}

typedef struct Evaluation
{
	CrmExpression *expression;
	TimestampTz as_of;
	bool holds;
} Evaluation;

static bool
evaluate(void *arg)
{
	Evaluation *evaluation = arg;
	bool isnull;

	evaluation->holds = crm_expression_evaluate(evaluation->expression,
												evaluation->expression->state, evaluation->as_of,
												&isnull);
	return true;
}

bool
crm_expression_is_safe(const CrmExpression *expression)
{
	return !expression->may_fail;
}

bool
crm_expression_holds_or_fails(CrmExpression *expression, const Datum *values, const bool *nulls,
							  TimestampTz as_of)
{
	bool isnull;

	if (expression->never)
		return false;
	crm_expression_fill(expression, values, nulls);
	return crm_expression_evaluate(expression, expression->state, as_of, &isnull);
}

bool
crm_expression_holds(CrmExpression *expression, const Datum *values, const bool *nulls,
					 TimestampTz as_of, ErrorData **error)
{
	Evaluation evaluation = { .expression = expression, .as_of = as_of };
	ErrorData *failure;

	if (!expression->may_fail)
		return crm_expression_holds_or_fails(expression, values, nulls, as_of);
	crm_expression_fill(expression, values, nulls);
	if (crm_attempt(evaluate, &evaluation, &failure))
		return evaluation.holds;
	if (!crm_rule_is_contained(failure))
		ReThrowError(failure);
	if (error != NULL)
		*error = failure;
	else
		FreeErrorData(failure);
	return false;
}

bool
crm_expression_names(const CrmExpression *expression, int position)
{
	for (int i = 0; i < expression->ninputs; i++)
		if (expression->inputs[i].kind == CRM_INPUT_VALUE &&
			expression->inputs[i].position == position)
			return true;
	return false;
}

const CrmGuard *
crm_expression_guard(const CrmExpression *expression)
{
	return expression->guard;
}

bool
crm_expression_reads_settings(const CrmExpression *expression)
{
	return expression->reads_settings;
}

int
crm_expressions_enter(void)
{
	return crm_rule_enter();
}

void
crm_expressions_leave(int nest_level)
{
	crm_rule_leave(nest_level);
}
