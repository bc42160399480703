/*
 * compile.c
 *		A rule as a statement over crm.profile and the joins of its functions.
 *		PostgreSQL analyses it, what came out is checked, and is written out
 *		again with every name resolved: the text that runs.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

#include "pg_crm.h"
#include "rules/language.h"

static void
append_restriction(StringInfo sql, char alias, const CrmRuleTree *rule, CrmRuleScope scope)
{
	if (rule->each)
		appendStringInfo(sql, "%c.contact_id = t.contact_id", alias);
	else
		appendStringInfo(sql,
						 scope == CRM_RULE_ONE ? "%c.contact_id = $%d"
											   : "%c.contact_id = ANY ($%d)",
						 alias, CRM_RULE_CONTACTS);
}

/* {x} becomes the restriction of x.contact_id to the contacts of a batch. */
static void
append_join(StringInfo sql, const CrmRuleTree *rule, const CrmRuleJoin *join, CrmRuleScope scope)
{
	appendStringInfo(sql, " LEFT JOIN %s(", rule->each ? "LATERAL " : "");
	for (const char *c = join->sql; *c != '\0'; c++)
	{
		if (c[0] == '{' && c[1] != '\0' && c[2] == '}')
		{
			if (scope != CRM_RULE_ALL)
			{
				append_restriction(sql, c[1], rule, scope);
				appendStringInfoString(sql, " AND");
			}
			c += 2;
		}
		else
			appendStringInfoChar(sql, *c);
	}
	appendStringInfo(sql, ") AS %s ON %s.contact_id = p.contact_id", join->alias, join->alias);
}

/*
 * The conditions that AND joins, each IS TRUE: so the planner may ask them in
 * the order it likes, which changes no answer, but takes none of them apart: a
 * part evaluated earlier than written might fail, one left out would not.
 */
static List *
list_conditions(Node *node, List *conditions)
{
	BooleanTest *holds;

	if (IsA(node, BoolExpr) && ((BoolExpr *) node)->boolop == AND_EXPR)
	{
		ListCell *cell;

		foreach(cell, ((BoolExpr *) node)->args)
			conditions = list_conditions(lfirst(cell), conditions);
		return conditions;
	}
	holds = makeNode(BooleanTest);
	holds->arg = (Expr *) node;
	holds->booltesttype = IS_TRUE;
	holds->location = -1;
	return lappend(conditions, holds);
}

/* The columns of the profile that the statement names, as p.column. */
static bool
collect_columns(Node *node, void *context)
{
	List **columns = context;
	List *fields;
	ListCell *cell;

	if (node == NULL)
		return false;
	if (!IsA(node, ColumnRef))
		return raw_expression_tree_walker(node, collect_columns, context);
	fields = ((ColumnRef *) node)->fields;
	if (list_length(fields) != 2 || !IsA(lsecond(fields), String) ||
		strcmp(strVal(linitial(fields)), "p") != 0)
		return false;
	foreach(cell, *columns)
		if (strcmp(lfirst(cell), strVal(lsecond(fields))) == 0)
			return false;
	*columns = lappend(*columns, strVal(lsecond(fields)));
	return false;
}

static bool
find_fence(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeSubselect) && ((RangeSubselect *) node)->alias != NULL &&
		strcmp(((RangeSubselect *) node)->alias->aliasname, "p") == 0)
	{
		*(SelectStmt **) context = castNode(SelectStmt, ((RangeSubselect *) node)->subquery);
		return true;
	}
	return raw_expression_tree_walker(node, find_fence, context);
}

/* The fence brings what is read of the profile: of a plan's start each column is a part. */
static void
narrow_fence(SelectStmt *select)
{
	SelectStmt *fence = NULL;
	List *columns = list_make1("contact_id");
	ListCell *cell;

	(void) find_fence((Node *) select->fromClause, &fence);
	(void) collect_columns((Node *) select, &columns);
	foreach(cell, columns)
	{
		ResTarget *target = makeNode(ResTarget);
		ColumnRef *column = makeNode(ColumnRef);

		column->fields = list_make2(makeString("q"), makeString(lfirst(cell)));
		column->location = -1;
		target->val = (Node *) column;
		target->location = -1;
		fence->targetList = lappend(fence->targetList, target);
	}
}

/*
 * t has a row for each contact, with its moment and its fact; then the profile of
 * each, fenced, so that the rule is asked of nobody's profile with somebody else's fact.
 */
static void
append_each(StringInfo sql, const CrmRuleTree *rule)
{
	appendStringInfo(sql, "SELECT t.n FROM unnest($%d, $%d, $%d", CRM_RULE_CONTACTS, CRM_RULE_AS_OF,
					 CRM_RULE_TODAY);
	for (int i = 0; i < CRM_FACT_COLUMNS; i++)
		if (rule->facts & ((uint32) 1 << i))
			appendStringInfo(sql, ", $%d", CRM_RULE_PARAMETERS + i + 1);
	appendStringInfoString(sql, ") WITH ORDINALITY AS t(contact_id, as_of, today");
	for (int i = 0; i < CRM_FACT_COLUMNS; i++)
		if (rule->facts & ((uint32) 1 << i))
			appendStringInfo(sql, ", \"%s\"", crm_fact_variables[i].name);
	appendStringInfoString(sql, ", n) CROSS JOIN LATERAL (SELECT FROM crm.profile AS q WHERE ");
	append_restriction(sql, 'q', rule, CRM_RULE_MANY);
	appendStringInfoString(sql, " OFFSET 0) AS p");
}

static void
append_profile(StringInfo sql, const CrmRuleTree *rule, CrmRuleScope scope)
{
	/* OFFSET 0 keeps the rule from being asked about others: it might fail for them */
	if (scope == CRM_RULE_FEW || scope == CRM_RULE_MANY)
	{
		appendStringInfoString(sql,
							   "SELECT p.contact_id FROM (SELECT FROM crm.profile AS q WHERE ");
		append_restriction(sql, 'q', rule, scope);
		appendStringInfoString(sql, " OFFSET 0) AS p");
	}
	else
		appendStringInfoString(sql, "SELECT p.contact_id FROM crm.profile AS p");
	/*
	 * A plan that knows the values, as that for many contacts does, would leave
	 * out parts that another plan evaluates, and that fail; it does not look
	 * into functions in FROM.
	 */
	if (rule->reads_time)
		appendStringInfo(sql,
						 scope == CRM_RULE_MANY
							 ? " CROSS JOIN ROWS FROM (unnest(ARRAY[$%d]), unnest(ARRAY[$%d]))"
							   " AS t(as_of, today)"
							 : " CROSS JOIN (SELECT $%d AS as_of, $%d AS today) AS t",
						 CRM_RULE_AS_OF, CRM_RULE_TODAY);
}

static SelectStmt *
make_statement(const CrmRuleTree *rule, CrmRuleScope scope, List *columns)
{
	StringInfoData sql;
	SelectStmt *select;
	ListCell *cell;

	initStringInfo(&sql);
	if (rule->each)
		append_each(&sql, rule);
	else
		append_profile(&sql, rule, scope);
	if (rule->reads_rank)
		appendStringInfoString(&sql, " LEFT JOIN crm.stage AS r ON r.stage = p.stage");
	foreach(cell, rule->joins)
		append_join(&sql, rule, lfirst(cell), scope);
	if (scope == CRM_RULE_ONE)
	{
		appendStringInfoString(&sql, " WHERE ");
		append_restriction(&sql, 'p', rule, scope);
	}
	select = castNode(SelectStmt,
					  linitial_node(RawStmt, raw_parser(sql.data, RAW_PARSE_DEFAULT))->stmt);
	if (columns == NIL)
	{
		List *conditions = select->whereClause == NULL ? NIL : list_make1(select->whereClause);

		conditions = list_conditions(rule->tree, conditions);
		select->whereClause = list_length(conditions) == 1
			? linitial(conditions)
			: (Node *) makeBoolExpr(AND_EXPR, conditions, -1);
	}
	foreach(cell, columns)
	{
		ResTarget *target = makeNode(ResTarget);

		target->val = lfirst(cell);
		target->location = -1;
		select->targetList = lappend(select->targetList, target);
	}
	if (scope == CRM_RULE_FEW || scope == CRM_RULE_MANY)
		narrow_fence(select);
	return select;
}

/*
 * For one contact the conditions after the first, which names him, are made the
 * result: so they are asked of the row that was found, whatever the plan, and
 * no fence is needed, which is a third of the plan's start.
 */
static void
make_conditions_the_result(Query *query)
{
	BoolExpr *where = castNode(BoolExpr, query->jointree->quals);
	List *conditions = list_copy_tail(where->args, 1);
	Expr *rule = list_length(conditions) == 1 ? linitial(conditions)
											  : makeBoolExpr(AND_EXPR, conditions, -1);

	query->jointree->quals = linitial(where->args);
	query->targetList = list_make1(makeTargetEntry(rule, 1, pstrdup("holds"), false));
}

/* An error's position is one in the text of the rule. */
static void
point_into_rule(void *arg)
{
	int position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(arg);
	}
}

void
crm_rule_point(ErrorContextCallback *callback, const char *text)
{
	callback->callback = point_into_rule;
	callback->arg = unconstify(char *, text);
	callback->previous = error_context_stack;
	error_context_stack = callback;
}

void
crm_rule_point_end(ErrorContextCallback *callback)
{
	error_context_stack = callback->previous;
}

/*
 * The names of PostgreSQL first, then this extension's, nobody else's; dates are
 * read in one way. Analysis points into the text given here, so columns added
 * by us have no place.
 */
Query *
crm_rule_analyze(CrmRuleTree *rule, SelectStmt *select, const Oid *types, int ntypes)
{
	const char *search_path = pstrdup(namespace_search_path);
	RawStmt *raw = makeNode(RawStmt);
	Query *query;

	(void) set_config_option("search_path", "pg_catalog, crm, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	raw->stmt = (Node *) select;
	raw->stmt_location = -1;
	query = parse_analyze_fixedparams(raw, rule->text, types, ntypes, NULL);
	if (query->jointree->quals != NULL)
		crm_rule_check_tree(rule, query->jointree->quals);
	(void) set_config_option("search_path", search_path, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	return query;
}

void
crm_rule_fact_types(bool each, Oid *types)
{
	for (int i = 0; i < CRM_RULE_PARAMETERS; i++)
		types[i] = each && i != CRM_RULE_ZONE - 1 ? get_array_type(crm_rule_one_types[i])
												  : crm_rule_one_types[i];
	for (int i = 0; i < CRM_FACT_COLUMNS; i++)
		types[CRM_RULE_PARAMETERS + i] = each ? get_array_type(crm_fact_variables[i].type)
											  : crm_fact_variables[i].type;
}

Query *
crm_rule_query(CrmRuleTree *rule, CrmRuleScope scope, List *columns)
{
	int nest_level = crm_rule_enter();
	Oid types[CRM_RULE_FACT_PARAMETERS];
	int ntypes = CRM_RULE_PARAMETERS;
	Query *query;

	if (rule->each || rule->over_fact)
	{
		crm_rule_fact_types(rule->each, types);
		ntypes = CRM_RULE_FACT_PARAMETERS;
	}
	else
		memcpy(types, scope == CRM_RULE_ONE ? crm_rule_one_types : crm_rule_types,
			   sizeof(Oid) * CRM_RULE_PARAMETERS);
	query = crm_rule_analyze(rule, make_statement(rule, scope, columns), types, ntypes);

	if (scope == CRM_RULE_ONE)
		make_conditions_the_result(query);
	crm_rule_leave(nest_level);
	return query;
}

/*
 * What is written out is read again whatever the settings then are: names are
 * qualified, dates are ISO.
 */
char *
crm_rule_write(Query *query)
{
	int nest_level = crm_rule_enter();
	char *sql = pg_get_querydef(query, false);

	crm_rule_leave(nest_level);
	return sql;
}

char *
crm_rule_compile(CrmRuleTree *rule, CrmRuleScope scope, List *columns)
{
	return crm_rule_write(crm_rule_query(rule, scope, columns));
}
