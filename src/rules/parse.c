/*
 * parse.c
 *		A rule's text becomes PostgreSQL's raw parse tree. Only known kinds of
 *		nodes get through; columns and rule functions are replaced by what they
 *		stand for, before any name is looked up.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/table.h"
#include "pg_crm.h"
#include "rules/language.h"

#define MAX_RULE_BYTES 8192

static Node *rewrite(CrmRuleTree *rule, Node *node);

Node *
crm_rule_rewrite(CrmRuleTree *rule, Node *node)
{
	return rewrite(rule, node);
}

int
crm_rule_position(const CrmRuleTree *rule, int location)
{
	return location < 0 ? 0 : pg_mbstrlen_with_len(rule->text, location) + 1;
}

void
crm_rule_refuse(const CrmRuleTree *rule, int location, const char *what, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("a rule may not hold %s", what),
			 errhint("%s", hint), errposition(crm_rule_position(rule, location))));
	pg_unreachable();
}

void
crm_rule_refuse_node(const CrmRuleTree *rule, Node *node)
{
	crm_rule_refuse(rule, exprLocation(node), "this kind of expression",
					"A rule is made of columns, constants, operators, AND, OR, NOT, CASE, IN,"
					" built-in functions and rule functions.");
}

/* Our own SQL as a node; where it stands is not known to the text of the rule. */
Node *
crm_rule_fragment(const char *sql)
{
	List *trees = raw_parser(sql, RAW_PARSE_PLPGSQL_EXPR);
	SelectStmt *select = castNode(SelectStmt, linitial_node(RawStmt, trees)->stmt);

	return linitial_node(ResTarget, select->targetList)->val;
}

static Node *
refer_to(CrmRuleTree *rule, int location, const char *label, Node *node)
{
	CrmRuleReference *reference = palloc(sizeof(CrmRuleReference));

	reference->location = location;
	reference->label = pstrdup(label);
	reference->node = node;
	rule->references = lappend(rule->references, reference);
	return node;
}

static Node *
make_column(const char *table, const char *column, int location)
{
	ColumnRef *reference = makeNode(ColumnRef);

	reference->fields = list_make2(makeString(pstrdup(table)), makeString(pstrdup(column)));
	reference->location = location;
	return (Node *) reference;
}

static void
unknown_column(const CrmRuleTree *rule, const char *name, int location)
{
	Relation profile = table_open(crm_table_oid("profile"), AccessShareLock);
	TupleDesc descriptor = RelationGetDescr(profile);
	StringInfoData known;

	initStringInfo(&known);
	if (rule->over_fact)
		for (int i = 0; i < CRM_FACT_COLUMNS; i++)
			appendStringInfo(&known, "%s, ", crm_fact_variables[i].name);
	for (int i = 0; i < descriptor->natts; i++)
		if (!TupleDescAttr(descriptor, i)->attisdropped)
			appendStringInfo(&known, "%s, ", NameStr(TupleDescAttr(descriptor, i)->attname));
	table_close(profile, AccessShareLock);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("rule names unknown column \"%s\"", pnstrdup(name, NAMEDATALEN - 1)),
			 errhint("Known are %sstage_rank, as_of, today.", known.data),
			 errposition(crm_rule_position(rule, location))));
}

/* A parameter, or a column of the rows of parameters. */
static Node *
make_fact_column(CrmRuleTree *rule, int place, int location)
{
	ParamRef *parameter;

	rule->facts |= (uint32) 1 << place;
	if (rule->each)
		return make_column("t", crm_fact_variables[place].name, location);
	parameter = makeNode(ParamRef);
	parameter->number = CRM_RULE_PARAMETERS + place + 1;
	parameter->location = location;
	return (Node *) parameter;
}

static Node *
rewrite_column(CrmRuleTree *rule, ColumnRef *column)
{
	const char *name;

	if (!IsA(llast(column->fields), String))
		crm_rule_refuse(rule, column->location, "an asterisk", "Name the columns.");
	name = NameListToString(column->fields);
	if (rule->over_fact && crm_fact_column(name) >= 0)
		return refer_to(rule, column->location, name,
						make_fact_column(rule, crm_fact_column(name), column->location));
	if (rule->inputs != NULL)
		return refer_to(rule, column->location, name,
						crm_input_column(rule, name, column->location));
	if (list_length(column->fields) == 1)
	{
		if (strcmp(name, "as_of") == 0 || strcmp(name, "today") == 0)
		{
			rule->reads_time = rule->reads_as_of = true;
			return refer_to(rule, column->location, name, make_column("t", name, column->location));
		}
		if (strcmp(name, "stage_rank") == 0)
		{
			rule->reads_rank = true;
			return refer_to(rule, column->location, name,
							make_column("r", "rank", column->location));
		}
		name = strVal(linitial(column->fields));
		if (get_attnum(crm_table_oid("profile"), name) > 0)
			return refer_to(rule, column->location, name, make_column("p", name, column->location));
	}
	unknown_column(rule, name, column->location);
	return NULL; /* keep the compiler quiet */
}

static List *
rewrite_list(CrmRuleTree *rule, List *list)
{
	ListCell *cell;

	foreach(cell, list)
		lfirst(cell) = rewrite(rule, lfirst(cell));
	return list;
}

/* Operators and functions are those of pg_catalog and of this extension. */
static void
check_schema(CrmRuleTree *rule, List *name, int location)
{
	if (list_length(name) > 1 &&
		(list_length(name) > 2 ||
		 (strcmp(strVal(linitial(name)), "pg_catalog") != 0 &&
		  strcmp(strVal(linitial(name)), CRM_SCHEMA) != 0)))
		crm_rule_refuse(
			rule, location, psprintf("\"%s\"", NameListToString(name)),
			"Functions, operators and types of other schemas are not available in rules.");
}

static Node *
rewrite_call(CrmRuleTree *rule, FuncCall *call)
{
	Node *node;

	if (call->agg_order != NIL || call->agg_filter != NULL || call->over != NULL ||
		call->agg_within_group || call->agg_star || call->agg_distinct)
		crm_rule_refuse(rule, call->location, "an aggregate or window function",
						"Count facts with times(kind, within).");
	if (list_length(call->funcname) == 1 && (node = crm_rule_function(rule, call)) != NULL)
		return node;
	check_schema(rule, call->funcname, call->location);
	rewrite_list(rule, call->args);
	return (Node *) call;
}

static void
check_type(CrmRuleTree *rule, TypeName *type)
{
	if (type->setof || type->pct_type)
		crm_rule_refuse(rule, type->location, "a type taken from elsewhere", "Name the type.");
	check_schema(rule, type->names, type->location);
}

static Node *
rewrite_subscripts(CrmRuleTree *rule, A_Indirection *indirection)
{
	ListCell *cell;

	indirection->arg = rewrite(rule, indirection->arg);
	foreach(cell, indirection->indirection)
	{
		A_Indices *indices = lfirst(cell);

		if (!IsA(indices, A_Indices))
			crm_rule_refuse(rule, exprLocation(indirection->arg), "a field of a value",
							"Take a key of a jsonb value with ->> 'key'.");
		indices->lidx = rewrite(rule, indices->lidx);
		indices->uidx = rewrite(rule, indices->uidx);
	}
	return (Node *) indirection;
}

/* Every kind of node that a rule may hold; all others are refused. */
static Node *
rewrite(CrmRuleTree *rule, Node *node)
{
	if (node == NULL)
		return NULL;
	check_stack_depth();
	switch (nodeTag(node))
	{
		case T_A_Const:
			if (!((A_Const *) node)->isnull && nodeTag(&((A_Const *) node)->val) == T_String)
				rule->strings = lappend(rule->strings, node);
			return node;
		case T_ColumnRef:
			return rewrite_column(rule, (ColumnRef *) node);
		case T_FuncCall:
			return rewrite_call(rule, (FuncCall *) node);
		case T_A_Expr:
		{
			A_Expr *expression = (A_Expr *) node;

			check_schema(rule, expression->name, expression->location);
			expression->lexpr = rewrite(rule, expression->lexpr);
			expression->rexpr = rewrite(rule, expression->rexpr);
			return node;
		}
		case T_BoolExpr:
			rewrite_list(rule, ((BoolExpr *) node)->args);
			return node;
		case T_NullTest:
			((NullTest *) node)->arg = (Expr *) rewrite(rule, (Node *) ((NullTest *) node)->arg);
			return node;
		case T_BooleanTest:
			((BooleanTest *) node)->arg = (Expr *) rewrite(rule,
														   (Node *) ((BooleanTest *) node)->arg);
			return node;
		case T_CaseExpr:
		{
			CaseExpr *expression = (CaseExpr *) node;

			expression->arg = (Expr *) rewrite(rule, (Node *) expression->arg);
			rewrite_list(rule, expression->args);
			expression->defresult = (Expr *) rewrite(rule, (Node *) expression->defresult);
			return node;
		}
		case T_CaseWhen:
			((CaseWhen *) node)->expr = (Expr *) rewrite(rule, (Node *) ((CaseWhen *) node)->expr);
			((CaseWhen *) node)->result = (Expr *) rewrite(rule,
														   (Node *) ((CaseWhen *) node)->result);
			return node;
		case T_CoalesceExpr:
			rewrite_list(rule, ((CoalesceExpr *) node)->args);
			return node;
		case T_MinMaxExpr:
			rewrite_list(rule, ((MinMaxExpr *) node)->args);
			return node;
		case T_A_ArrayExpr:
			rewrite_list(rule, ((A_ArrayExpr *) node)->elements);
			return node;
		case T_List:
			return (Node *) rewrite_list(rule, (List *) node);
		case T_TypeCast:
			check_type(rule, ((TypeCast *) node)->typeName);
			((TypeCast *) node)->arg = rewrite(rule, ((TypeCast *) node)->arg);
			return node;
		case T_CollateClause:
			check_schema(rule, ((CollateClause *) node)->collname,
						 ((CollateClause *) node)->location);
			((CollateClause *) node)->arg = rewrite(rule, ((CollateClause *) node)->arg);
			return node;
		case T_A_Indirection:
			return rewrite_subscripts(rule, (A_Indirection *) node);
		case T_SubLink:
			crm_rule_refuse(rule, ((SubLink *) node)->location, "a sub-select",
							"Ask for facts with times(), did(), spent() or awarded().");
			break;
		case T_SQLValueFunction:
			crm_rule_refuse(rule, ((SQLValueFunction *) node)->location, "the clock or a role",
							"Time is an argument of a rule: as_of, today, local_time().");
			break;
		case T_ParamRef:
			crm_rule_refuse(rule, ((ParamRef *) node)->location, "a parameter",
							"Write the value into the rule.");
			break;
		default:
			crm_rule_refuse_node(rule, node);
	}
	return NULL; /* keep the compiler quiet */
}

/* The conditions that AND, OR and NOT join are what explain() shows one by one. */
static Node *
rewrite_condition(CrmRuleTree *rule, Node *node)
{
	CrmRuleLeaf *leaf;

	check_stack_depth();
	if (IsA(node, BoolExpr))
	{
		ListCell *cell;

		foreach(cell, ((BoolExpr *) node)->args)
			lfirst(cell) = rewrite_condition(rule, lfirst(cell));
		return node;
	}
	leaf = palloc(sizeof(CrmRuleLeaf));
	leaf->location = exprLocation(node);
	rule->leaves = lappend(rule->leaves, leaf);
	leaf->node = rewrite(rule, node);
	return leaf->node;
}

static List *
select_conditions(const CrmRuleTree *rule, Node *node, List *conditions)
{
	ListCell *cell;

	check_stack_depth();
	if (!IsA(node, BoolExpr) || ((BoolExpr *) node)->boolop != AND_EXPR)
		return rule->wants(node) ? lappend(conditions, node) : conditions;
	foreach(cell, ((BoolExpr *) node)->args)
		conditions = select_conditions(rule, lfirst(cell), conditions);
	return conditions;
}

/* The wanted ones of the conditions that AND joins. */
static Node *
wanted_part(const CrmRuleTree *rule, Node *node)
{
	List *conditions;

	if (rule->wants == NULL)
		return node;
	conditions = select_conditions(rule, node, NIL);
	return list_length(conditions) > 1 ? (Node *) makeBoolExpr(AND_EXPR, conditions, -1)
		: conditions == NIL            ? NULL
									   : linitial(conditions);
}

/* PostgreSQL's own messages say what it stumbled over, but not what a rule is. */
static void
add_hint(void *arg)
{
	if (geterrcode() == ERRCODE_SYNTAX_ERROR)
		errhint("A rule is one SQL expression, such as orders > 0 AND city = 'Shanghai'.");
}

static List *
parse(const char *text)
{
	ErrorContextCallback callback = { .callback = add_hint, .previous = error_context_stack };
	List *trees;

	error_context_stack = &callback;
	trees = raw_parser(text, RAW_PARSE_PLPGSQL_EXPR);
	error_context_stack = callback.previous;
	return trees;
}

CrmRuleTree *
crm_rule_read(const char *text)
{
	CrmRuleTree *rule = palloc0(sizeof(CrmRuleTree));

	crm_rule_read_into(rule, text);
	return rule;
}

void
crm_rule_read_into(CrmRuleTree *rule, const char *text)
{
	List *trees;
	SelectStmt *select;
	ResTarget *target;
	Node *part;

	rule->text = pstrdup(text);
	if (strlen(text) > MAX_RULE_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("rule is %zu bytes long, more than %d", strlen(text), MAX_RULE_BYTES),
				 errhint(
					 "Say it in fewer words, for example with IN instead of many comparisons.")));
	trees = parse(rule->text);
	select = castNode(SelectStmt, linitial_node(RawStmt, trees)->stmt);
	if (select->op != SETOP_NONE || list_length(select->targetList) != 1 ||
		select->fromClause != NIL || select->whereClause != NULL || select->groupClause != NIL ||
		select->havingClause != NULL || select->windowClause != NIL || select->sortClause != NIL ||
		select->limitOffset != NULL || select->limitCount != NULL || select->lockingClause != NIL ||
		select->withClause != NULL || select->distinctClause != NIL || select->intoClause != NULL)
		crm_rule_refuse(rule, -1, "more than one expression", "A rule is one boolean expression.");
	target = linitial_node(ResTarget, select->targetList);
	if (target->name != NULL)
		crm_rule_refuse(rule, target->location, "a column alias",
						"A rule is one boolean expression.");
	part = wanted_part(rule, target->val);
	rule->tree = part == NULL ? NULL : rewrite_condition(rule, part);
}
