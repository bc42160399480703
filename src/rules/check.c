/*
 * check.c
 *		What a rule may call, once every name in it is resolved: functions of
 *		PostgreSQL whose result depends on their arguments alone, a list of
 *		those that also depend on the time zone, and this extension's own.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/dependency.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"

#include "pg_crm.h"
#include "rules/language.h"

/* STABLE for the sake of TimeZone, which is fixed while a rule runs, or of an element type. */
static const char *const stable_functions[] = {
	"anytextcat",
	"array_in",
	"array_out",
	"array_to_string",
	"concat",
	"concat_ws",
	"date",
	"date_cmp_timestamptz",
	"date_eq_timestamptz",
	"date_ge_timestamptz",
	"date_gt_timestamptz",
	"date_in",
	"date_le_timestamptz",
	"date_lt_timestamptz",
	"date_ne_timestamptz",
	"date_out",
	"date_part",
	"date_trunc",
	"enum_in",
	"enum_out",
	"extract",
	"interval_in",
	"interval_pl_timestamptz",
	"make_timestamptz",
	"textanycat",
	"time",
	"time_in",
	"timestamp",
	"timestamp_cmp_timestamptz",
	"timestamp_eq_timestamptz",
	"timestamp_ge_timestamptz",
	"timestamp_gt_timestamptz",
	"timestamp_in",
	"timestamp_le_timestamptz",
	"timestamp_lt_timestamptz",
	"timestamp_ne_timestamptz",
	"timestamp_out",
	"timestamptz",
	"timestamptz_cmp_date",
	"timestamptz_cmp_timestamp",
	"timestamptz_eq_date",
	"timestamptz_eq_timestamp",
	"timestamptz_ge_date",
	"timestamptz_ge_timestamp",
	"timestamptz_gt_date",
	"timestamptz_gt_timestamp",
	"timestamptz_in",
	"timestamptz_le_date",
	"timestamptz_le_timestamp",
	"timestamptz_lt_date",
	"timestamptz_lt_timestamp",
	"timestamptz_mi_interval",
	"timestamptz_ne_date",
	"timestamptz_ne_timestamp",
	"timestamptz_out",
	"timestamptz_pl_interval",
	"timetz",
	"timetz_in",
	"timezone",
	"to_char",
	"to_date",
	"to_timestamp",
};

/* immutable, but a short text asks for a gigabyte */
static const char *const greedy_functions[] = { "lpad", "repeat", "rpad" };

/* their names are looked up in the catalog or in files */
static const Oid refused_types[] = { REGPROCOID,       REGPROCEDUREOID, REGOPEROID,
									 REGOPERATOROID,   REGCLASSOID,     REGTYPEOID,
									 REGROLEOID,       REGNAMESPACEOID, REGCONFIGOID,
									 REGDICTIONARYOID, REGCOLLATIONOID, XMLOID,
									 REFCURSOROID };

/* words that timestamptz, date and time read off the clock */
static const char *const clock_words[] = { "now", "today", "tomorrow", "yesterday" };

static bool
is_listed(const char *const *names, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return false;
}

static bool
is_refused_function(Oid function, void *context)
{
	char *name = get_func_name(function);
	char volatility = func_volatile(function);

	if (name == NULL)
		return true;
	if (function >= FirstNormalObjectId)
	{
		Oid extension = get_extension_oid("pg_crm", true);

		((CrmRuleTree *) context)->reads_zone = true;
		/* not the clock, a setting, or somebody else's rows */
		return volatility != PROVOLATILE_IMMUTABLE || !OidIsValid(extension) ||
			getExtensionOfObject(ProcedureRelationId, function) != extension;
	}
	if (get_func_namespace(function) != PG_CATALOG_NAMESPACE)
		return true;
	if (volatility == PROVOLATILE_IMMUTABLE)
		return is_listed(greedy_functions, lengthof(greedy_functions), name);
	((CrmRuleTree *) context)->reads_zone = true;
	return volatility != PROVOLATILE_STABLE ||
		!is_listed(stable_functions, lengthof(stable_functions), name);
}

static Oid
function_of(Node *node)
{
	switch (nodeTag(node))
	{
		case T_FuncExpr:
			return ((FuncExpr *) node)->funcid;
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
			return get_opcode(((OpExpr *) node)->opno);
		case T_ScalarArrayOpExpr:
			return get_opcode(((ScalarArrayOpExpr *) node)->opno);
		default:
			return InvalidOid;
	}
}

static void
refuse_function(const CrmRuleTree *rule, Node *node)
{
	Oid function = function_of(node);

	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 OidIsValid(function)
				 ? errmsg("function %s may not be called in a rule", format_procedure(function))
				 : errmsg("conversion to type %s may not be used in a rule",
						  format_type_be(exprType(node))),
			 errhint(
				 "Rules call functions whose result depends on their arguments alone; the time is"
				 " as_of, today, local_time() or local_date()."),
			 errposition(crm_rule_position(rule, exprLocation(node)))));
}

static void
check_type(const CrmRuleTree *rule, Node *node)
{
	Oid type = getBaseType(exprType(node));
	Oid element = get_element_type(type);
	char kind;

	if (OidIsValid(element))
		type = element;
	if (type == UNKNOWNOID) /* NULL, or a string that nothing is made of */
		return;
	kind = get_typtype(type);
	for (int i = 0; i < lengthof(refused_types); i++)
		if (type == refused_types[i])
			kind = TYPTYPE_PSEUDO;
	if (kind == TYPTYPE_COMPOSITE || kind == TYPTYPE_PSEUDO)
		crm_rule_refuse(
			rule, exprLocation(node),
			psprintf("a value of type %s", format_type_be(exprType(node))),
			"Use numbers, texts, dates and times, intervals, booleans, jsonb or arrays.");
}

/* 'now' and its like would freeze the moment at which the rule is read. */
static void
check_constant(const CrmRuleTree *rule, Const *constant)
{
	ListCell *cell;

	switch (constant->consttype)
	{
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			break;
		default:
			return;
	}
	foreach(cell, rule->strings)
	{
		A_Const *string = lfirst(cell);
		char *text;

		if (string->location != constant->location)
			continue;
		text = str_tolower(strVal(&string->val), strlen(strVal(&string->val)), C_COLLATION_OID);
		for (int i = 0; i < lengthof(clock_words); i++)
			if (strstr(text, clock_words[i]) != NULL)
				crm_rule_refuse(rule, string->location,
								psprintf("the clock ('%s')", clock_words[i]),
								"Time is an argument of a rule: as_of, today, local_time().");
	}
}

static bool
check_walker(Node *node, void *context)
{
	CrmRuleTree *rule = context;

	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_List:
			return expression_tree_walker(node, check_walker, context);
		case T_SubLink:
			/* of a rule function: the text's own are refused when it is read */
			return false;
		case T_CaseWhen:
			return expression_tree_walker(node, check_walker, context);
		case T_Const:
			check_constant(rule, (Const *) node);
			break;
		case T_Var:
		case T_Param:
		case T_FuncExpr:
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
		case T_ScalarArrayOpExpr:
		case T_BoolExpr:
		case T_CaseExpr:
		case T_CaseTestExpr:
		case T_ArrayExpr:
		case T_ArrayCoerceExpr:
		case T_CoalesceExpr:
		case T_MinMaxExpr:
		case T_NullTest:
		case T_BooleanTest:
		case T_RelabelType:
		case T_CoerceViaIO:
		case T_CollateExpr:
		case T_SubscriptingRef:
			break;
		default:
			crm_rule_refuse_node(rule, node);
	}
	if (check_functions_in_node(node, is_refused_function, context) ||
		(IsA(node, FuncExpr) && ((FuncExpr *) node)->funcretset))
		refuse_function(rule, node);
	if (!IsA(node, Var) && !IsA(node, CaseTestExpr))
		check_type(rule, node);
	return expression_tree_walker(node, check_walker, context);
}

void
crm_rule_check_tree(CrmRuleTree *rule, Node *node)
{
	(void) check_walker(node, rule);
}
