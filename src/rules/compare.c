/*
 * compare.c
 *		Rules as comparisons of single columns with constants, joined by AND.
 *		PostgreSQL's own parser reads them; what is let through here is small.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "nodes/nodes.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "parser/scansup.h"
#include "utils/builtins.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "pg_crm.h"
#include "rules/compare.h"

#define MAX_TERMS      32
#define MAX_RULE_BYTES 8192

typedef struct RuleReader
{
	const char *text;
	const CrmRuleColumn *columns;
	int ncolumns;
	bool never;
	int nterms;
	CrmTerm terms[MAX_TERMS];
} RuleReader;

static void
refuse(RuleReader *reader, const char *what)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		 errmsg("rule \"%s\" holds %s", pnstrdup(reader->text, 100), what),
		 errhint(
			 "A rule compares columns with constants, joined by AND, for example: orders >= 5 AND mobile IS NOT NULL.")));
}

static const CrmRuleColumn *
find_column(RuleReader *reader, Node *node)
{
	ColumnRef *reference;
	StringInfoData name;
	ListCell *cell;
	StringInfoData known;

	if (!IsA(node, ColumnRef))
		refuse(reader, "something other than a column on the left of a comparison");
	reference = (ColumnRef *) node;
	initStringInfo(&name);
	foreach(cell, reference->fields)
	{
		if (!IsA(lfirst(cell), String))
			refuse(reader, "an asterisk");
		if (name.len > 0)
			appendStringInfoChar(&name, '.');
		appendStringInfoString(&name, strVal(lfirst(cell)));
	}
	for (int i = 0; i < reader->ncolumns; i++)
		if (strcmp(reader->columns[i].name, name.data) == 0)
			return &reader->columns[i];

	initStringInfo(&known);
	for (int i = 0; i < reader->ncolumns; i++)
		appendStringInfo(&known, "%s%s", i > 0 ? ", " : "", reader->columns[i].name);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("rule names unknown column \"%s\"", pnstrdup(name.data, 63)),
			 errhint("Known here are: %s.", known.data)));
	return NULL; /* keep the compiler quiet */
}

static char *
constant_text(RuleReader *reader, Node *node, bool *negative)
{
	*negative = false;
	if (IsA(node, TypeCast)) /* '2026-01-01'::timestamptz, DATE '…' */
		node = ((TypeCast *) node)->arg;
	if (IsA(node, A_Expr) && ((A_Expr *) node)->kind == AEXPR_OP &&
		((A_Expr *) node)->lexpr == NULL &&
		strcmp(strVal(linitial(((A_Expr *) node)->name)), "-") == 0)
	{
		*negative = true;
		node = ((A_Expr *) node)->rexpr;
	}
	if (!IsA(node, A_Const) || ((A_Const *) node)->isnull)
		refuse(reader, "something other than a constant on the right of a comparison");
	switch (nodeTag(&((A_Const *) node)->val))
	{
		case T_Integer:
			return psprintf("%d", intVal(&((A_Const *) node)->val));
		case T_Float:
			return ((A_Const *) node)->val.fval.fval;
		case T_String:
			return strVal(&((A_Const *) node)->val);
		case T_Boolean:
			return boolVal(&((A_Const *) node)->val) ? "true" : "false";
		default:
			refuse(reader, "a constant of a kind that cannot be compared");
	}
	return NULL;
}

static Datum
read_constant(RuleReader *reader, const CrmRuleColumn *column, Node *node, bool *widened)
{
	bool negative;
	char *text = constant_text(reader, node, &negative);

	*widened = false;

	if (negative)
		text = psprintf("-%s", text);
	switch (column->type)
	{
		case INT8OID:
		{
			char *end;
			int64 integer;

			errno = 0;
			integer = strtoll(text, &end, 10);
			if (errno == 0 && *text != '\0' && *end == '\0')
				return Int64GetDatum(integer);
		}
			/* as numeric, so that orders >= 2.5 means what it says */
			*widened = true;
			/* FALLTHROUGH */
		case NUMERICOID:
			return DirectFunctionCall3(numeric_in, CStringGetDatum(text),
									   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
		case TIMESTAMPTZOID:
			return DirectFunctionCall3(timestamptz_in, CStringGetDatum(text),
									   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
		case BOOLOID:
			return DirectFunctionCall1(boolin, CStringGetDatum(text));
		default:
			return CStringGetTextDatum(text);
	}
}

static void
add_term(RuleReader *reader, const CrmRuleColumn *column, CrmComparison comparison, Datum constant,
		 bool widened)
{
	CrmTerm *term;

	if (reader->nterms == MAX_TERMS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("rule holds more than %d comparisons", MAX_TERMS)));
	term = &reader->terms[reader->nterms++];
	term->position = column->position;
	term->comparison = comparison;
	/* the column's own type decides how its value is read */
	term->type = column->type;
	term->constant = constant;
	term->widened = widened;
}

static CrmComparison
comparison_of(RuleReader *reader, const char *operator)
{
	static const struct
	{
		const char *operator;
		CrmComparison comparison;
	} comparisons[] = { { "<", CRM_LT },  { "<=", CRM_LE }, { "=", CRM_EQ }, { "<>", CRM_NE },
						{ "!=", CRM_NE }, { ">=", CRM_GE }, { ">", CRM_GT } };

	for (int i = 0; i < lengthof(comparisons); i++)
		if (strcmp(operator, comparisons[i].operator) == 0)
			return comparisons[i].comparison;
	refuse(reader, "an operator that is no comparison");
	return CRM_EQ;
}

static void
read_condition(RuleReader *reader, Node *node)
{
	if (IsA(node, BoolExpr))
	{
		ListCell *cell;

		if (((BoolExpr *) node)->boolop != AND_EXPR)
			refuse(reader, "OR or NOT");
		foreach(cell, ((BoolExpr *) node)->args)
			read_condition(reader, lfirst(cell));
	}
	else if (IsA(node, NullTest))
	{
		NullTest *test = (NullTest *) node;

		add_term(reader, find_column(reader, (Node *) test->arg),
				 test->nulltesttype == IS_NULL ? CRM_IS_NULL : CRM_IS_NOT_NULL, (Datum) 0, false);
	}
	else if (IsA(node, A_Const))
	{
		A_Const *constant = (A_Const *) node;

		if (constant->isnull || nodeTag(&constant->val) != T_Boolean)
			refuse(reader, "a constant that is neither true nor false");
		if (!boolVal(&constant->val))
			reader->never = true;
	}
	else if (IsA(node, A_Expr) && ((A_Expr *) node)->kind == AEXPR_OP &&
			 ((A_Expr *) node)->lexpr != NULL && list_length(((A_Expr *) node)->name) == 1)
	{
		A_Expr *expression = (A_Expr *) node;
		const CrmRuleColumn *column = find_column(reader, expression->lexpr);
		CrmComparison comparison = comparison_of(reader, strVal(linitial(expression->name)));
		Datum constant;
		bool widened;

		if (column->null_test_only)
			refuse(reader,
				   "a comparison of a column that can only be tested with IS NULL or IS NOT NULL");
		constant = read_constant(reader, column, expression->rexpr, &widened);
		add_term(reader, column, comparison, constant, widened);
	}
	else
		refuse(reader, "something other than a comparison");
}

CrmRule *
crm_rule_parse(const char *text, const CrmRuleColumn *columns, int ncolumns)
{
	RuleReader reader = { .text = text, .columns = columns, .ncolumns = ncolumns };
	List *trees;
	SelectStmt *select;
	ResTarget *target;
	CrmRule *rule;

	if (strlen(text) > MAX_RULE_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("rule is %zu bytes long, more than %d", strlen(text), MAX_RULE_BYTES)));

	trees = raw_parser(text, RAW_PARSE_PLPGSQL_EXPR);
	select = castNode(SelectStmt, linitial_node(RawStmt, trees)->stmt);
	if (select->op != SETOP_NONE || list_length(select->targetList) != 1 ||
		select->fromClause != NIL || select->whereClause != NULL || select->groupClause != NIL ||
		select->havingClause != NULL || select->windowClause != NIL || select->sortClause != NIL ||
		select->limitOffset != NULL || select->limitCount != NULL || select->lockingClause != NIL ||
		select->withClause != NULL || select->distinctClause != NIL || select->intoClause != NULL)
		refuse(&reader, "more than one expression");
	target = linitial_node(ResTarget, select->targetList);
	if (target->name != NULL)
		refuse(&reader, "a column alias");
	read_condition(&reader, target->val);

	rule = palloc(offsetof(CrmRule, terms) + sizeof(CrmTerm) * reader.nterms);
	rule->never = reader.never;
	rule->nterms = reader.nterms;
	memcpy(rule->terms, reader.terms, sizeof(CrmTerm) * reader.nterms);
	return rule;
}

static int
compare(const CrmTerm *term, Datum value)
{
	switch (term->type)
	{
		case INT8OID:
			if (!term->widened)
			{
				int64 left = DatumGetInt64(value);
				int64 right = DatumGetInt64(term->constant);

				return (left > right) - (left < right);
			}
			value = NumericGetDatum(int64_to_numeric(DatumGetInt64(value)));
			/* FALLTHROUGH */
		case NUMERICOID:
			return DatumGetInt32(DirectFunctionCall2(numeric_cmp, value, term->constant));
		case TIMESTAMPTZOID:
			return timestamptz_cmp_internal(DatumGetTimestampTz(value),
											DatumGetTimestampTz(term->constant));
		case BOOLOID:
			return (int) DatumGetBool(value) - (int) DatumGetBool(term->constant);
		default:
		{
			text *left = DatumGetTextPP(value);
			text *right = DatumGetTextPP(term->constant);
			int bytes = Min(VARSIZE_ANY_EXHDR(left), VARSIZE_ANY_EXHDR(right));
			int order = memcmp(VARDATA_ANY(left), VARDATA_ANY(right), bytes);

			if (order != 0)
				return order;
			return (int) VARSIZE_ANY_EXHDR(left) - (int) VARSIZE_ANY_EXHDR(right);
		}
	}
}

bool
crm_rule_holds(const CrmRule *rule, const Datum *values, const bool *nulls)
{
	if (rule->never)
		return false;
	for (int i = 0; i < rule->nterms; i++)
	{
		const CrmTerm *term = &rule->terms[i];
		bool isnull = nulls[term->position];
		int order;

		if (term->comparison == CRM_IS_NULL || term->comparison == CRM_IS_NOT_NULL)
		{
			if (isnull != (term->comparison == CRM_IS_NULL))
				return false;
			continue;
		}
		if (isnull)
			return false;
		order = compare(term, values[term->position]);
		switch (term->comparison)
		{
			case CRM_LT:
				if (!(order < 0))
					return false;
				break;
			case CRM_LE:
				if (!(order <= 0))
					return false;
				break;
			case CRM_EQ:
				if (order != 0)
					return false;
				break;
			case CRM_NE:
				if (order == 0)
					return false;
				break;
			case CRM_GE:
				if (!(order >= 0))
					return false;
				break;
			default:
				if (!(order > 0))
					return false;
				break;
		}
	}
	return true;
}

bool
crm_rule_names(const CrmRule *rule, int position)
{
	for (int i = 0; i < rule->nterms; i++)
		if (rule->terms[i].position == position)
			return true;
	return false;
}
