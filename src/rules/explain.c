/*
 * explain.c
 *		Why a rule holds for a contact or does not: every condition with its
 *		truth and the values it found.
 */
#include "postgres.h"

#include <ctype.h>

#include "executor/spi.h"
#include "funcapi.h"
#include "nodes/makefuncs.h"
#include "parser/scanner.h"
#include "parser/scansup.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/table.h"
#include "pg_crm.h"
#include "rules/language.h"
#include "rules/fact_rule.h"
#include "rules/rules.h"

PG_FUNCTION_INFO_V1(crm_sql_explain_rule);

typedef struct Token
{
	int token;
	int begin;
	int end;
} Token;

/* The text in tokens, so that brackets and words inside strings do not count. */
static Token *
read_tokens(const char *text, int *ntokens)
{
	core_yy_extra_type extra;
	core_yyscan_t scanner = scanner_init(text, &extra, &ScanKeywords, ScanKeywordTokens);
	Token *tokens = palloc_array(Token, strlen(text) + 1);
	int n = 0;

	for (;;)
	{
		core_YYSTYPE value;
		YYLTYPE location;
		int token = core_yylex(&value, &location, scanner);

		if (n > 0)
			tokens[n - 1].end = location;
		if (token == 0)
			break;
		tokens[n].token = token;
		tokens[n++].begin = location;
	}
	if (n > 0)
		tokens[n - 1].end = strlen(text);
	scanner_finish(scanner);
	*ntokens = n;
	return tokens;
}

/* AND, OR, NOT, or a bracket that is opened */
static bool
joins_conditions(const char *text, const Token *token)
{
	static const char *const words[] = { "and", "or", "not" };

	for (int i = 0; i < lengthof(words); i++)
	{
		int length = strlen(words[i]);
		unsigned char after;

		if (pg_strncasecmp(text + token->begin, words[i], length) != 0)
			continue;
		after = text[token->begin + length];
		if (after != '_' && !IS_HIGHBIT_SET(after) && !isalnum(after))
			return true;
	}
	return token->token == '(';
}

/*
 * The text of a condition: from its first token to the one before the next
 * condition, less what joins the two, with as many brackets as it opens.
 */
static char *
leaf_text(const char *text, int begin, int until)
{
	int ntokens;
	Token *tokens = read_tokens(text, &ntokens);
	int first = 0;
	int last;
	int depth = 0;
	int lowest = 0;

	while (first < ntokens - 1 && tokens[first].begin < begin)
		first++;
	last = first;
	while (last < ntokens - 1 && tokens[last + 1].begin < until)
		last++;
	while (last > first && joins_conditions(text, &tokens[last]))
		last--;
	for (int i = first; i <= last; i++)
	{
		depth += (tokens[i].token == '(') - (tokens[i].token == ')');
		lowest = Min(lowest, depth);
	}
	/* brackets closed but not opened: the condition's own, or those of AND and OR around it */
	for (; lowest < 0; lowest++)
	{
		if (tokens[last].token == ')')
			last--;
		else if (first > 0 && tokens[first - 1].token == '(')
			first--;
		else
			break;
	}
	begin = tokens[first].begin;
	until = tokens[last].end;
	while (until > begin && scanner_isspace(text[until - 1]))
		until--;
	return pnstrdup(text + begin, until - begin);
}

static Node *
cast_to(Node *node, const char *type)
{
	TypeCast *cast = makeNode(TypeCast);

	cast->arg = copyObject(node);
	cast->typeName = SystemTypeName(pstrdup(type));
	cast->location = -1;
	return (Node *) cast;
}

/* A condition: its truth, then what its columns and functions gave. */
typedef struct Question
{
	char *sql;
	CrmExplainFunction function;
	void *arg;
	int nvalues;
	Oid types[CRM_RULE_FACT_PARAMETERS];
	Datum values[CRM_RULE_FACT_PARAMETERS];
	MemoryContext context;
	bool whole; /* not one condition but the rule, as it is asked of everybody */
	bool isnull;
	bool holds;
	int nfound;
	char **found;
} Question;

static bool
ask_once(void *arg)
{
	Question *question = arg;
	int code = SPI_execute_with_args(question->sql, question->nvalues, question->types,
									 question->values, NULL, true, 1);

	if (code < 0)
		elog(ERROR, "SPI_execute_with_args failed: %s", SPI_result_code_string(code));
	if (question->whole)
	{
		question->holds = SPI_processed > 0;
		return true;
	}
	if (SPI_processed == 0)
		return true;
	question->holds = DatumGetBool(crm_result(0, 2, &question->isnull));
	for (int i = 0; i < question->nfound; i++)
	{
		bool isnull;
		Datum value = crm_result(0, 3 + i, &isnull);

		question->found[i] = isnull ? NULL : crm_text_copy(question->context, value);
	}
	SPI_freetuptable(SPI_tuptable);
	return true;
}

static void
answer(const Question *question, const char *part, const char *found)
{
	CrmExplained explained = { .part = part,
							   .known = !question->isnull,
							   .holds = question->holds && !question->isnull,
							   .found = found };

	question->function(question->arg, &explained);
}

/* References of the text between two places, each once. */
static List *
references_between(const CrmRuleTree *rule, int begin, int until)
{
	List *list = NIL;
	ListCell *cell;
	ListCell *other;

	foreach(cell, rule->references)
	{
		CrmRuleReference *reference = lfirst(cell);
		bool known = reference->location < begin || reference->location >= until;

		foreach(other, list)
			known = known ||
				strcmp(((CrmRuleReference *) lfirst(other))->label, reference->label) == 0;
		if (!known)
			list = lappend(list, reference);
	}
	return list;
}

static bool
may_see_column(const char *table, const char *name)
{
	Oid relation = crm_table_oid(table);
	AttrNumber column = get_attnum(relation, name);

	return column <= 0 || pg_class_aclcheck(relation, crm_caller(), ACL_SELECT) == ACLCHECK_OK ||
		pg_attribute_aclcheck(relation, column, crm_caller(), ACL_SELECT) == ACLCHECK_OK;
}

/* Whether who asks may read the value; a rule function gives counts, not what is in the facts. */
static bool
may_see(const CrmRuleReference *reference)
{
	switch (crm_fact_column(reference->label))
	{
		case -1:
			return may_see_column("profile", reference->label);
		case CRM_F_EXTERNAL_REF:
			return may_see_column("transaction", "external_ref");
		case CRM_F_ITEMS:
			return may_see_column("transaction", "items");
		case CRM_F_PROPERTIES:
		case CRM_F_FIELD:
		case CRM_F_OLD:
		case CRM_F_NEW:
			return may_see_column("event", "properties");
		default:
			return true;
	}
}

/* The message may quote a value. */
static char *
describe_failure(const ErrorData *error, List *references)
{
	ListCell *cell;

	foreach(cell, references)
		if (!may_see(lfirst(cell)))
			return psprintf("error: SQLSTATE %s", unpack_sql_state(error->sqlerrcode));
	return psprintf("error: %s", error->message);
}

/* Where the condition fails, the answer is the failure. */
static void
ask(CrmRuleTree *rule, Question *question, Node *node, const char *part, List *references)
{
	List *columns = NIL;
	StringInfoData found;
	ErrorData *error;
	ListCell *cell;

	question->whole = node == NULL;
	question->nfound = list_length(references);
	question->found = palloc_array(char *, Max(question->nfound, 1));
	question->isnull = false;
	if (node != NULL)
		columns = list_make1(cast_to(node, "bool"));
	foreach(cell, references)
		columns = lappend(columns, cast_to(((CrmRuleReference *) lfirst(cell))->node, "text"));
	/* as for many: this plan knows the values too */
	question->sql = crm_rule_compile(rule, CRM_RULE_MANY, columns);
	if (!crm_attempt(ask_once, question, &error))
	{
		if (!crm_rule_is_contained(error))
			ReThrowError(error);
		question->holds = false;
		answer(question, part,
			   describe_failure(error, node == NULL ? rule->references : references));
		FreeErrorData(error);
		return;
	}
	initStringInfo(&found);
	for (int i = 0; i < question->nfound; i++)
	{
		const CrmRuleReference *reference = list_nth(references, i);

		appendStringInfo(&found, "%s%s", i > 0 ? ", " : "", reference->label);
		if (question->found[i] == NULL)
			appendStringInfoString(&found, " IS NULL");
		else if (!may_see(reference))
			appendStringInfoString(&found, " IS NOT NULL");
		else
			appendStringInfo(&found, " = %s", question->found[i]);
	}
	answer(question, part, question->nfound > 0 ? found.data : NULL);
}

void
crm_rule_require_contact(int64 contact_id)
{
	static CrmPlan find = { "SELECT FROM crm.profile p WHERE p.contact_id = $1", 1, { INT8OID } };
	Datum value = Int64GetDatum(contact_id);

	if (crm_read(&find, &value, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("contact %lld does not exist", (long long) contact_id),
				 errhint("Ask for a contact of crm.profile.")));
}

static Datum
array_of(Datum value, bool isnull, Oid type)
{
	CrmColumn column;

	crm_column_init(&column, type);
	crm_column_add(&column, value, isnull);
	return crm_column_array(&column);
}

/* The contact and the moment, and the fact where there is one. */
static void
set_values(Question *question, int64 contact_id, TimestampTz as_of, const CrmFactValues *fact)
{
	question->nvalues = fact == NULL ? CRM_RULE_PARAMETERS : CRM_RULE_FACT_PARAMETERS;
	memcpy(question->types, crm_rule_types, sizeof(crm_rule_types));
	crm_rule_values(as_of, question->values);
	question->values[CRM_RULE_CONTACTS - 1] = crm_int64_array(&contact_id, 1);
	if (fact == NULL)
		return;
	crm_rule_fact_types(true, question->types);
	question->values[CRM_RULE_AS_OF - 1] = array_of(question->values[CRM_RULE_AS_OF - 1], false,
													TIMESTAMPTZOID);
	question->values[CRM_RULE_TODAY - 1] = array_of(question->values[CRM_RULE_TODAY - 1], false,
													DATEOID);
	for (int i = 0; i < CRM_FACT_COLUMNS; i++)
		question->values[CRM_RULE_PARAMETERS + i] = array_of(fact->values[i], fact->nulls[i],
															 crm_fact_variables[i].type);
}

static CrmRuleTree *
read_rule(const char *text, bool over_fact)
{
	CrmRuleTree *tree = palloc0(sizeof(CrmRuleTree));

	tree->each = tree->over_fact = over_fact;
	crm_rule_read_into(tree, text);
	return tree;
}

/* The rule, and each of its conditions where they are several or read anything. */
static void
explain(const char *text, int64 contact_id, TimestampTz as_of, const CrmFactValues *fact,
		CrmExplainFunction function, void *arg)
{
	Question question = { .function = function, .arg = arg, .context = CurrentMemoryContext };
	bool over_fact = fact != NULL;
	ErrorContextCallback callback;
	CrmRuleTree *rule;
	int nest_level = crm_rule_enter();

	set_values(&question, contact_id, as_of, fact);
	crm_rule_point(&callback, text);
	rule = read_rule(text, over_fact);
	(void) crm_rule_compile(read_rule(text, over_fact), CRM_RULE_FEW, NIL); /* checked as a whole */
	crm_rule_point_end(&callback);
	ask(read_rule(text, over_fact), &question, NULL, text, NIL);
	if (list_length(rule->leaves) > 1 || rule->references != NIL)
		for (int i = 0; i < list_length(rule->leaves); i++)
		{
			CrmRuleLeaf *leaf = list_nth(rule->leaves, i);
			int until = i + 1 < list_length(rule->leaves)
				? ((CrmRuleLeaf *) list_nth(rule->leaves, i + 1))->location
				: (int) strlen(text) + 1;

			ask(rule, &question, leaf->node, leaf_text(text, leaf->location, until),
				references_between(rule, leaf->location, until));
		}
	crm_rule_leave(nest_level);
}

void
crm_rule_explain(const char *text, int64 contact_id, TimestampTz as_of, CrmExplainFunction function,
				 void *arg)
{
	explain(text, contact_id, as_of, NULL, function, arg);
}

void
crm_fact_rule_explain(const CrmFactRule *rule, const CrmFactValues *fact,
					  CrmExplainFunction function, void *arg)
{
	explain(crm_fact_rule_text(rule), fact->contact_id, fact->as_of, fact, function, arg);
}

static void
put(void *arg, const CrmExplained *explained)
{
	ReturnSetInfo *result = arg;
	Datum values[3] = { CStringGetTextDatum(explained->part), BoolGetDatum(explained->holds),
						(Datum) 0 };
	bool nulls[3] = { false, !explained->known, explained->found == NULL };

	if (explained->found != NULL)
		values[2] = CStringGetTextDatum(explained->found);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

Datum
crm_sql_explain_rule(PG_FUNCTION_ARGS)
{
	TimestampTz as_of;
	CrmActing acting;
	char *rule_text;
	int64 contact_id;

	for (int i = 0; i < 2; i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument \"%s\" of crm.explain() must not be NULL",
							i == 0 ? "contact_id" : "rule"),
					 errhint("Name a contact and a rule.")));
	contact_id = PG_GETARG_INT64(0);
	rule_text = text_to_cstring(PG_GETARG_TEXT_PP(1));
	as_of = crm_as_of_argument(fcinfo, 2);
	InitMaterializedSRF(fcinfo, 0);
	crm_connect(&acting);
	crm_rule_require_contact(contact_id);
	crm_rule_explain(rule_text, contact_id, as_of, put, fcinfo->resultinfo);
	crm_disconnect(&acting);
	return (Datum) 0;
}
