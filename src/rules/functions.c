/*
 * functions.c
 *		Rule functions: each stands for a join that brings one value a contact,
 *		so that a million contacts cost one pass over the facts.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "base/channel.h"
#include "base/db.h"
#include "base/guc.h"
#include "pg_crm.h"
#include "rules/language.h"

#define MAX_ARGUMENTS 2
/* as far as a rule function looks back */
#define MAX_YEARS 100

typedef struct RuleCall
{
	CrmRuleTree *rule;
	int location;
	const char *label;
	const char *arguments[MAX_ARGUMENTS]; /* NULL where not given */
} RuleCall;

typedef struct RuleFunction
{
	const char *name;
	int required;
	int allowed;
	Node *(*build)(RuleCall *call);
	Oid type;   /* of its value; InvalidOid: made of other values, not found by a join */
	int within; /* the argument that says how far to look back, -1 if none */
	const char *usage;
} RuleFunction;

/* Orders with what was refunded of them; one refunded in full counts nowhere. */
#define NET_ORDERS                                                                     \
	" FROM crm.transaction AS o LEFT JOIN (SELECT b.contact_id, b.refund_of,"          \
	" sum(b.amount) AS refunded FROM crm.transaction AS b WHERE {b} b.kind = 'refund'" \
	" GROUP BY b.contact_id, b.refund_of) AS n"                                        \
	" ON n.contact_id = o.contact_id AND n.refund_of = o.transaction_id"               \
	" WHERE {o} o.kind = 'purchase' AND (o.amount = 0 OR o.amount > coalesce(n.refunded, 0))"

/* The join of this call, shared by calls that say the same; \"otherwise\" where it has no row. */
static Node *
join(RuleCall *call, const char *sql, const char *within, const char *otherwise)
{
	CrmRuleTree *rule = call->rule;
	CrmRuleJoin *made = NULL;
	ListCell *cell;
	CoalesceExpr *value;

	foreach(cell, rule->joins)
		if (strcmp(((CrmRuleJoin *) lfirst(cell))->label, call->label) == 0)
			made = lfirst(cell);
	if (made == NULL)
	{
		made = palloc(sizeof(CrmRuleJoin));
		made->label = call->label;
		made->alias = psprintf("f%d", list_length(rule->joins) + 1);
		made->sql = sql;
		made->within = within;
		rule->joins = lappend(rule->joins, made);
	}
	value = castNode(CoalesceExpr,
					 crm_rule_fragment(psprintf("COALESCE(%s.value, %s)", made->alias, otherwise)));
	value->location = call->location;
	return (Node *) value;
}

/* The moment for which a contact is asked. */
static const char *
as_of(CrmRuleTree *rule)
{
	rule->reads_as_of = true;
	return rule->each ? "t.as_of" : psprintf("$%d", CRM_RULE_AS_OF);
}

/* AND of the facts that lie in the interval before as_of. */
static char *
in_time(RuleCall *call, const char *within)
{
	const char *moment = as_of(call->rule);
	char *until = psprintf(" AND o.occurred_at <= %s", moment);

	if (within == NULL)
		return until;
	return psprintf("%s AND o.occurred_at > %s - %s::interval", until, moment,
					quote_literal_cstr(within));
}

static void
check_within(RuleCall *call, const char *within)
{
	Interval *interval;

	if (within == NULL)
		return;
	interval = DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(within),
													 ObjectIdGetDatum(InvalidOid),
													 Int32GetDatum(-1)));
	if (DatumGetInt32(DirectFunctionCall2(interval_cmp, IntervalPGetDatum(interval),
										  IntervalPGetDatum(palloc0(sizeof(Interval))))) <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("interval \"%s\" of a rule function is not above zero", within),
				 errhint("Say how far to look back, for example '7 days'."),
				 errposition(crm_rule_position(call->rule, call->location))));
	if (interval->month > MAX_YEARS * MONTHS_PER_YEAR || interval->day > MAX_YEARS * 366 ||
		interval->time > MAX_YEARS * 366 * USECS_PER_DAY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("interval \"%s\" of a rule function is longer than %d years", within,
						MAX_YEARS),
				 errhint("Leave the interval out to look at all facts."),
				 errposition(crm_rule_position(call->rule, call->location))));
}

/* The value of a join, and beside it the fact that is the first to leave the interval. */
static const char *
value_of(const RuleCall *call, const char *what, const char *within)
{
	return psprintf("%s AS value%s", what,
					within != NULL && call->rule->wants_oldest ? ", min(o.occurred_at) AS oldest"
															   : "");
}

/* Facts of a kind as FROM and WHERE, over an alias whose contact_id and occurred_at count. */
static char *
facts_of(RuleCall *call, const char *what)
{
	const char *kind = call->arguments[0];
	const char *within = call->arguments[1];

	what = value_of(call, what, within);
	if (strcmp(kind, "purchase") == 0)
		return psprintf("SELECT o.contact_id, %s" NET_ORDERS "%s GROUP BY o.contact_id", what,
						in_time(call, within));
	if (strcmp(kind, "refund") == 0)
		return psprintf("SELECT o.contact_id, %s FROM crm.transaction AS o"
						" WHERE {o} o.kind = 'refund'%s GROUP BY o.contact_id",
						what, in_time(call, within));
	if (strcmp(kind, "scan") == 0)
		return psprintf("SELECT o.contact_id, %s FROM crm.scan AS o"
						" WHERE {o} true%s GROUP BY o.contact_id",
						what, in_time(call, within));
	return psprintf("SELECT o.contact_id, %s FROM crm.event AS o"
					" WHERE {o} o.kind = %s%s GROUP BY o.contact_id",
					what, quote_literal_cstr(kind), in_time(call, within));
}

static Node *
build_times(RuleCall *call)
{
	return join(call, facts_of(call, "count(*)"), call->arguments[1], "0::pg_catalog.int8");
}

static Node *
build_did(RuleCall *call)
{
	return join(call, facts_of(call, "true"), call->arguments[1], "false");
}

static Node *
build_spent(RuleCall *call)
{
	const char *within = call->arguments[0];

	return join(call,
				psprintf("SELECT o.contact_id, %s" NET_ORDERS
						 " AND o.currency = crm.default_currency()%s"
						 " GROUP BY o.contact_id",
						 value_of(call, "sum(o.amount - coalesce(n.refunded, 0))", within),
						 in_time(call, within)),
				within, "0::pg_catalog.numeric");
}

static void
require(RuleCall *call, CrmPlan *find, const char *what, const char *name)
{
	Datum value = CStringGetTextDatum(name);

	if (crm_read(find, &value, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("%s \"%s\" of a rule does not exist", what, name),
				 errhint("Define it first, or correct the name."),
				 errposition(crm_rule_position(call->rule, call->location))));
}

static Node *
build_awarded(RuleCall *call)
{
	static CrmPlan find = { "SELECT FROM crm.achievement a WHERE a.name = $1", 1, { TEXTOID } };
	const char *threshold = call->arguments[1];
	char *reached = "";

	require(call, &find, "achievement", call->arguments[0]);
	if (threshold != NULL)
		reached = psprintf(" AND o.threshold = %s::numeric",
						   quote_literal_cstr(DatumGetCString(
							   DirectFunctionCall1(numeric_out,
												   DirectFunctionCall3(numeric_in,
																	   CStringGetDatum(threshold),
																	   ObjectIdGetDatum(InvalidOid),
																	   Int32GetDatum(-1))))));
	return join(call,
				psprintf("SELECT o.contact_id, true AS value FROM crm.award AS o"
						 " WHERE {o} o.achievement = %s AND o.revoked_at IS NULL"
						 " AND o.awarded_at <= %s%s GROUP BY o.contact_id",
						 quote_literal_cstr(call->arguments[0]), as_of(call->rule), reached),
				NULL, "false");
}

/* What is known of how the contact was won, as text. */
static Node *
build_acquired(RuleCall *call)
{
	static const char *const columns[] = { "source",       "campaign",   "store_id",
										   "associate_id", "qr_code_id", "account_id" };
	const char *asked = call->arguments[0];
	StringInfoData known;

	initStringInfo(&known);
	for (int i = 0; i < lengthof(columns); i++)
	{
		if (strcmp(columns[i], asked) == 0)
			return join(call,
						psprintf("SELECT o.contact_id, o.%s::pg_catalog.text AS value"
								 " FROM crm.acquisition AS o WHERE {o} o.occurred_at <= %s",
								 columns[i], as_of(call->rule)),
						NULL, "NULL::pg_catalog.text");
		appendStringInfo(&known, "%s%s", i > 0 ? ", " : "", columns[i]);
	}
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("acquired() in a rule does not know \"%s\"",
					pnstrdup(asked, pg_mbcliplen(asked, strlen(asked), NAMEDATALEN - 1))),
			 errhint("It knows %s.", known.data),
			 errposition(crm_rule_position(call->rule, call->location))));
	return NULL; /* keep the compiler quiet */
}

static Node *
build_in_segment(RuleCall *call)
{
	static CrmPlan find = { "SELECT FROM crm.segment s WHERE s.name = $1", 1, { TEXTOID } };

	require(call, &find, "segment", call->arguments[0]);
	return join(call,
				psprintf("SELECT o.contact_id, true AS value FROM crm.segment_member AS o"
						 " WHERE {o} o.segment = %s",
						 quote_literal_cstr(call->arguments[0])),
				NULL, "false");
}

/* A suppression of all channels is one of each of them. */
static Node *
build_suppressed(RuleCall *call)
{
	const char *channel = call->arguments[0];
	const char *moment = as_of(call->rule);

	if (channel != NULL)
		crm_check_channel(channel);
	return join(call,
				psprintf("SELECT o.contact_id, true AS value FROM crm.suppression AS o"
						 " WHERE {o} o.channel IN ('', %s) AND o.since <= %s"
						 " AND (o.ended_at IS NULL OR o.ended_at > %s) GROUP BY o.contact_id",
						 quote_literal_cstr(channel == NULL ? "" : channel), moment, moment),
				NULL, "false");
}

static Node *
build_rank(RuleCall *call)
{
	static CrmPlan find = { "SELECT s.rank FROM crm.stage s WHERE s.stage = $1", 1, { TEXTOID } };
	SubLink *rank;

	require(call, &find, "stage", call->arguments[0]);
	if (call->rule->inputs != NULL)
	{
		char *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);

		/* whoever changes a stage drops what was compiled */
		return crm_rule_fragment(psprintf("(%s)::pg_catalog.int4", value == NULL ? "NULL" : value));
	}
	rank = castNode(SubLink,
					crm_rule_fragment(
						psprintf("(SELECT s.rank FROM crm.stage AS s WHERE s.stage = %s)",
								 quote_literal_cstr(call->arguments[0]))));
	rank->location = call->location;
	return (Node *) rank;
}

static Node *
at_home(RuleCall *call, const char *type)
{
	if (call->rule->inputs != NULL)
		return crm_rule_rewrite(call->rule,
								crm_rule_fragment(
									psprintf("(as_of AT TIME ZONE %s%s%s)::pg_catalog.%s",
											 crm_input_knows(call->rule, "time_zone")
												 ? "COALESCE(time_zone, "
												 : "(",
											 quote_literal_cstr(crm_guc_time_zone), ")", type)));
	return crm_rule_fragment(psprintf("(%s AT TIME ZONE COALESCE(p.time_zone, $%d))::pg_catalog.%s",
									  as_of(call->rule), CRM_RULE_ZONE, type));
}

static Node *
build_local_time(RuleCall *call)
{
	return at_home(call, "time");
}

static Node *
build_local_date(RuleCall *call)
{
	return at_home(call, "date");
}

static const RuleFunction functions[] = {
	{ "times", 1, 2, build_times, INT8OID, 1, "times(kind), times(kind, within)" },
	{ "did", 1, 2, build_did, BOOLOID, 1, "did(kind), did(kind, within)" },
	{ "spent", 0, 1, build_spent, NUMERICOID, 0, "spent(), spent(within)" },
	{ "awarded", 1, 2, build_awarded, BOOLOID, -1,
	  "awarded(achievement), awarded(achievement, threshold)" },
	{ "acquired", 1, 1, build_acquired, TEXTOID, -1, "acquired(what)" },
	{ "in_segment", 1, 1, build_in_segment, BOOLOID, -1, "in_segment(segment)" },
	{ "suppressed", 0, 1, build_suppressed, BOOLOID, -1, "suppressed(), suppressed(channel)" },
	{ "rank", 1, 1, build_rank, InvalidOid, -1, "rank(stage)" },
	{ "local_time", 0, 0, build_local_time, InvalidOid, -1, "local_time()" },
	{ "local_date", 0, 0, build_local_date, InvalidOid, -1, "local_date()" },
};

static const char *
constant_of(const RuleFunction *function, RuleCall *call, Node *node)
{
	A_Const *constant = (A_Const *) node;

	if (IsA(node, A_Const) && !constant->isnull)
		switch (nodeTag(&constant->val))
		{
			case T_String:
				return strVal(&constant->val);
			case T_Integer:
				return psprintf("%d", intVal(&constant->val));
			case T_Float:
				return constant->val.fval.fval;
			default:
				break;
		}
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s() in a rule takes constants only", function->name),
			 errhint("Use %s with names and intervals as strings.", function->usage),
			 errposition(crm_rule_position(call->rule, exprLocation(node)))));
	return NULL; /* keep the compiler quiet */
}

static const RuleFunction *
find_function(const char *name)
{
	for (int i = 0; i < lengthof(functions); i++)
		if (strcmp(functions[i].name, name) == 0)
			return &functions[i];
	return NULL;
}

bool
crm_rule_is_function(const FuncCall *call)
{
	return list_length(call->funcname) == 1 &&
		find_function(strVal(linitial(call->funcname))) != NULL;
}

Node *
crm_rule_function(CrmRuleTree *rule, FuncCall *called)
{
	const char *name = strVal(linitial(called->funcname));
	const RuleFunction *function = find_function(name);
	RuleCall call = { .rule = rule, .location = called->location };
	CrmRuleReference *reference;
	StringInfoData label;
	int n = 0;
	ListCell *cell;

	if (function == NULL)
		return NULL;
	if (list_length(called->args) < function->required ||
		list_length(called->args) > function->allowed || called->func_variadic)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("%s() in a rule does not take %d arguments", name,
						list_length(called->args)),
				 errhint("Use %s.", function->usage),
				 errposition(crm_rule_position(rule, called->location))));
	initStringInfo(&label);
	appendStringInfo(&label, "%s(", name);
	foreach(cell, called->args)
	{
		call.arguments[n] = constant_of(function, &call, lfirst(cell));
		appendStringInfo(&label, "%s%s", n > 0 ? ", " : "", quote_literal_cstr(call.arguments[n]));
		n++;
	}
	appendStringInfoChar(&label, ')');
	call.label = label.data;
	if (function->within >= 0)
		check_within(&call, call.arguments[function->within]);

	reference = palloc(sizeof(CrmRuleReference));
	reference->location = called->location;
	reference->label = call.label;
	reference->node = rule->inputs != NULL && OidIsValid(function->type)
		? crm_input_function(rule, name, call.arguments, call.label, function->type,
							 called->location)
		: function->build(&call);
	rule->references = lappend(rule->references, reference);
	return reference->node;
}
