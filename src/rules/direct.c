/*
 * direct.c
 *		A rule asked of contacts without a plan: the contact's rows are found
 *		by their keys, and the analysed rule is evaluated on them, its columns
 *		of crm.profile taken from the tables that the view shows. To start and
 *		end a plan takes longer than all of that.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/guc.h"
#include "base/table.h"
#include "rules/direct.h"
#include "rules/inputs.h"
#include "rules/language.h"

/* the tables that a rule over the profile reads, one row each */
typedef enum Source
{
	CONTACT,
	COUNTER,
	STAGE,
	SOURCES
} Source;

static const char *const contact_key[] = { "contact_id" };
static const char *const counter_key[] = { "contact_id" };
static const char *const stage_key[] = { "stage" };
static const struct
{
	const char *table;
	const char *const *key;
	int varno; /* that stands for the row in the expression */
} sources[SOURCES] = {
	{ "contact", contact_key, 1 },
	{ "profile_counter", counter_key, INNER_VAR },
	{ "stage", stage_key, OUTER_VAR },
};

struct CrmDirectRule
{
	bool reads
		[SOURCES]; /* the contact's row in any case, as it may have to tell whether there is one */
	bool reads_contact; /* columns of it */
	Oid oids[SOURCES];
	Source stage_of; /* whose column the profile's stage is */
	AttrNumber stage_attno;
	bool reads_today;
	bool reads_zone;
	bool may_fail;
	ExprState *state;
	ExprContext *evaluation;
	ParamListInfo parameters;
	CrmGuard *guard;
};

/* ---- the view, and what its columns are */

static bool
is_column_of(Node *node, int varno, const Query *view, const char *name)
{
	Var *var = (Var *) node;

	return IsA(node, Var) && var->varno == varno && var->varlevelsup == 0 && var->varattno > 0 &&
		strcmp(get_attname(rt_fetch(varno, view->rtable)->relid, var->varattno, false), name) == 0;
}

static bool
is_table(const Query *view, Node *node, Oid relid)
{
	RangeTblEntry *entry;

	if (!IsA(node, RangeTblRef))
		return false;
	entry = rt_fetch(((RangeTblRef *) node)->rtindex, view->rtable);
	return entry->rtekind == RTE_RELATION && entry->relid == relid && entry->tablesample == NULL;
}

/* SELECT columns FROM crm.contact LEFT JOIN crm.profile_counter ON the contact, and no more? */
static bool
is_our_view(const Query *view)
{
	JoinExpr *join;
	OpExpr *equal;
	int contact;
	int counter;

	if (view->commandType != CMD_SELECT || view->hasAggs || view->hasWindowFuncs ||
		view->hasTargetSRFs || view->hasSubLinks || view->hasDistinctOn || view->hasRowSecurity ||
		view->cteList != NIL || view->groupClause != NIL || view->groupingSets != NIL ||
		view->havingQual != NULL || view->distinctClause != NIL || view->limitOffset != NULL ||
		view->limitCount != NULL || view->rowMarks != NIL || view->setOperations != NULL ||
		view->jointree->quals != NULL || list_length(view->jointree->fromlist) != 1)
		return false;
	join = linitial(view->jointree->fromlist);
	if (!IsA(join, JoinExpr) || join->jointype != JOIN_LEFT ||
		!is_table(view, join->larg, crm_table_oid("contact")) ||
		!is_table(view, join->rarg, crm_table_oid("profile_counter")))
		return false;
	contact = ((RangeTblRef *) join->larg)->rtindex;
	counter = ((RangeTblRef *) join->rarg)->rtindex;
	equal = (OpExpr *) join->quals;
	return equal != NULL && IsA(equal, OpExpr) && get_opcode(equal->opno) == F_INT8EQ &&
		((is_column_of(linitial(equal->args), counter, view, "contact_id") &&
		  is_column_of(lsecond(equal->args), contact, view, "contact_id")) ||
		 (is_column_of(linitial(equal->args), contact, view, "contact_id") &&
		  is_column_of(lsecond(equal->args), counter, view, "contact_id")));
}

/* The view, where whoever asks may read it and it is ours. */
static Query *
find_view(Relation profile)
{
	Oid owner = crm_owner();
	Query *view;

	/* the tables are read in the name of the view's owner */
	if (profile->rd_rel->relkind != RELKIND_VIEW || profile->rd_rel->relowner != owner ||
		pg_class_aclcheck(RelationGetRelid(profile), owner, ACL_SELECT) != ACLCHECK_OK)
		return NULL;
	view = get_view_query(profile);
	return is_our_view(view) ? view : NULL;
}

typedef struct Translation
{
	CrmDirectRule *rule;
	const Query *query;
	const Query *view;
	bool impossible;
} Translation;

/* A column of a table that can be read off its row. */
static Node *
column_of(Translation *translation, Source source, const Var *var)
{
	CrmDirectRule *rule = translation->rule;
	Relation rel = table_open(rule->oids[source], AccessShareLock);
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), var->varattno - 1);

	if (attribute->atttypid != var->vartype || attribute->attisdropped ||
		(attribute->attgenerated != '\0' && attribute->attgenerated != ATTRIBUTE_GENERATED_STORED))
		translation->impossible = true;
	table_close(rel, NoLock);
	rule->reads[source] = true;
	return (Node *) makeVar(sources[source].varno, var->varattno, var->vartype, var->vartypmod,
							var->varcollid, 0);
}

static Node *
profile_column(Translation *translation, AttrNumber attno)
{
	const Query *view = translation->view;
	TargetEntry *entry = get_tle_by_resno(view->targetList, attno);
	Var *var = entry == NULL ? NULL : (Var *) entry->expr;

	if (var != NULL && IsA(var, Var) && var->varlevelsup == 0 && var->varattno > 0)
		for (int i = CONTACT; i <= COUNTER; i++)
		{
			RangeTblEntry *from = rt_fetch(var->varno, view->rtable);

			if (from->rtekind == RTE_RELATION && from->relid == translation->rule->oids[i])
				return column_of(translation, i, var);
		}
	translation->impossible = true;
	return (Node *) makeBoolConst(false, true);
}

static Oid
type_of(int number)
{
	return number <= CRM_RULE_PARAMETERS
		? crm_rule_one_types[number - 1]
		: crm_fact_variables[number - CRM_RULE_PARAMETERS - 1].type;
}

static Node *
parameter(Translation *translation, int number)
{
	Param *param = makeNode(Param);

	param->paramkind = PARAM_EXTERN;
	param->paramid = number;
	param->paramtype = type_of(number);
	param->paramtypmod = -1;
	param->paramcollid = get_typcollation(param->paramtype);
	param->location = -1;
	return (Node *) param;
}

static Node *
translate_node(Node *node, void *context)
{
	Translation *translation = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var))
	{
		Var *var = (Var *) node;
		RangeTblEntry *entry = rt_fetch(var->varno, translation->query->rtable);

		if (entry->rtekind == RTE_RELATION && entry->relid == crm_table_oid("profile"))
			return profile_column(translation, var->varattno);
		if (entry->rtekind == RTE_RELATION && entry->relid == translation->rule->oids[STAGE])
			return column_of(translation, STAGE, var);
		/* as_of and today are columns of a row of parameters */
		if (entry->rtekind == RTE_SUBQUERY && strcmp(entry->eref->aliasname, "t") == 0)
			return translate_node((Node *) get_tle_by_resno(entry->subquery->targetList,
															var->varattno)
									  ->expr,
								  context);
		translation->impossible = true;
		return node;
	}
	if (IsA(node, Param))
	{
		int number = ((Param *) node)->paramid;

		if (((Param *) node)->paramkind != PARAM_EXTERN)
			translation->impossible = true;
		translation->rule->reads_today |= number == CRM_RULE_TODAY;
		translation->rule->reads_zone |= number == CRM_RULE_ZONE;
		return parameter(translation, number);
	}
	if (IsA(node, SubLink)) /* of a rule function */
	{
		translation->impossible = true;
		return node;
	}
	return expression_tree_mutator(node, translate_node, context);
}

/* Which of the profile's columns is the stage, by which its rank is found? */
static void
find_stage(Translation *translation)
{
	AttrNumber attno = get_attnum(crm_table_oid("profile"), "stage");
	Var *var = (Var *) profile_column(translation, attno);

	if (!IsA(var, Var) || var->vartype != TEXTOID)
	{
		translation->impossible = true;
		return;
	}
	translation->rule->stage_of = var->varno == sources[COUNTER].varno ? COUNTER : CONTACT;
	translation->rule->stage_attno = var->varattno;
}

/* The rule over rows of the tables; NULL if it takes more than these. */
static Node *
translate_rule(CrmDirectRule *rule, Query *query, const Query *view)
{
	Translation translation = { .rule = rule, .query = query, .view = view };
	ListCell *cell;
	Node *tree;

	/* joins of rule functions */
	foreach(cell, query->rtable)
	{
		RangeTblEntry *entry = lfirst(cell);

		if (entry->rtekind == RTE_SUBQUERY && strcmp(entry->eref->aliasname, "t") != 0)
			return NULL;
	}
	tree = translate_node((Node *) linitial_node(TargetEntry, query->targetList)->expr,
						  &translation);
	if (rule->reads[STAGE])
		find_stage(&translation);
	return translation.impossible ? NULL : tree;
}

/* ---- compiling */

typedef struct Preparation
{
	CrmDirectRule *rule;
	MemoryContext context;
	Node *tree;
} Preparation;

/* Is it a column of one of the rows? Numbered through all of them. */
static bool
is_row_column(const Node *node, const void *arg, int *column)
{
	const Var *var = (const Var *) node;

	/* the stage's is found for those rules only that are asked */
	if (!IsA(node, Var) || var->varno == sources[STAGE].varno)
		return false;
	*column = (var->varno == sources[CONTACT].varno ? CONTACT : COUNTER) * (MaxAttrNumber + 1) +
		var->varattno;
	return true;
}

static bool
prepare(void *arg)
{
	Preparation *preparation = arg;
	int path = crm_catalog_path_begin();
	Expr *planned = expression_planner((Expr *) preparation->tree);
	MemoryContext old = MemoryContextSwitchTo(preparation->context);

	crm_catalog_path_end(path);
	preparation->rule->state = ExecInitExpr(copyObject(planned), NULL);
	if (!preparation->rule->may_fail)
		preparation->rule->guard = crm_guard_find((Node *) planned, is_row_column, NULL);
	MemoryContextSwitchTo(old);
	return true;
}

/* Constants may fail when they are folded; a plan contains and counts that each time. */
static bool
prepare_contained(Preparation *preparation)
{
	ErrorData *error;

	if (!preparation->rule->may_fail)
		return prepare(preparation);
	if (crm_attempt(prepare, preparation, &error))
		return true;
	if (!crm_rule_is_contained(error))
		ReThrowError(error);
	FreeErrorData(error);
	return false;
}

static void
make_evaluation(CrmDirectRule *rule, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);

	rule->parameters = makeParamList(CRM_RULE_FACT_PARAMETERS);
	for (int i = 0; i < CRM_RULE_FACT_PARAMETERS; i++)
	{
		rule->parameters->params[i].ptype = type_of(i + 1);
		rule->parameters->params[i].isnull = true;
	}
	rule->evaluation = CreateStandaloneExprContext();
	rule->evaluation->ecxt_param_list_info = rule->parameters;
	MemoryContextSwitchTo(old);
}

CrmDirectRule *
crm_direct_compile(Query *query, MemoryContext context)
{
	CrmDirectRule *rule = MemoryContextAllocZero(context, sizeof(CrmDirectRule));
	Preparation preparation = { .rule = rule, .context = context };
	Relation profile = table_open(crm_table_oid("profile"), AccessShareLock);
	Query *view = find_view(profile);
	int nest_level;

	for (int i = 0; i < SOURCES; i++)
		rule->oids[i] = crm_table_oid(sources[i].table);
	if (view != NULL)
		preparation.tree = translate_rule(rule, query, view);
	table_close(profile, NoLock);
	if (preparation.tree == NULL)
		return NULL;
	rule->reads_contact = rule->reads[CONTACT];
	rule->reads[CONTACT] = true;
	rule->may_fail = crm_expression_may_fail(preparation.tree);
	nest_level = crm_rule_enter();
	if (prepare_contained(&preparation))
		make_evaluation(rule, context);
	crm_rule_leave(nest_level);
	return rule->evaluation == NULL ? NULL : rule;
}

/* ---- evaluation */

typedef struct Question
{
	CrmDirectRule *rule;
	CrmTarget *targets[SOURCES];
	bool reads_contact;
	bool holds;
} Question;

static void
close_sources(Question *question)
{
	for (int i = 0; i < SOURCES; i++)
		if (question->targets[i] != NULL)
			crm_target_close(question->targets[i]);
}

/* Locks and opens what is read; false where only the executor may read it. */
static bool
open_sources(Question *question, const bool *reads)
{
	for (int i = 0; i < SOURCES; i++)
	{
		if (!reads[i])
			continue;
		question->targets[i] = crm_target_open_to_read(sources[i].table, sources[i].key, 1);
		if (question->targets[i] == NULL ||
			RelationGetRelid(question->targets[i]->rel) != question->rule->oids[i])
			return false;
	}
	return true;
}

static void
find_rank(Question *question)
{
	CrmDirectRule *rule = question->rule;
	CrmTarget *target = question->targets[STAGE];
	bool isnull;
	Datum stage = slot_getattr(question->targets[rule->stage_of]->found, rule->stage_attno,
							   &isnull);

	if (isnull) /* looked for all the same, as that makes the row to be filled */
		stage = PointerGetDatum(cstring_to_text(""));
	if (!crm_target_find_row(target, &stage) || isnull)
		ExecStoreAllNullTuple(target->found);
}

/* False if there is no such contact: whoever has a row of counters is one. */
static bool
find_contact(Question *question, int64 contact_id)
{
	CrmTarget *counter = question->targets[COUNTER];
	bool counted = counter != NULL && crm_target_find(counter, contact_id);

	if ((question->reads_contact || !counted) &&
		!crm_target_find(question->targets[CONTACT], contact_id))
		return false;
	if (counter != NULL && !counted)
		ExecStoreAllNullTuple(counter->found);
	return true;
}

/* The same, and the row of its stage. */
static bool
find_rows(Question *question, int64 contact_id)
{
	if (!find_contact(question, contact_id))
		return false;
	if (question->targets[STAGE] != NULL)
		find_rank(question);
	return true;
}

static bool
evaluate(void *arg)
{
	Question *question = arg;
	CrmDirectRule *rule = question->rule;
	ExprContext *evaluation = rule->evaluation;
	CrmRuleStyle outside;
	bool isnull;

	crm_rule_style_begin(&outside);
	PG_TRY();
	{
		Datum result = ExecEvalExprSwitchContext(rule->state, evaluation, &isnull);

		question->holds = !isnull && DatumGetBool(result);
	}
	PG_FINALLY();
	{
		crm_rule_style_end(&outside);
	}
	PG_END_TRY();
	return true;
}

static void
set_parameter(CrmDirectRule *rule, int number, Datum value)
{
	rule->parameters->params[number - 1].value = value;
	rule->parameters->params[number - 1].isnull = false;
}

static TupleTableSlot *
row_of(const Question *question, Source source)
{
	return question->targets[source] == NULL ? NULL : question->targets[source]->found;
}

/* Of the rows that were found. */
static void
prepare_evaluation(Question *question, TimestampTz as_of, const CrmFactValues *fact)
{
	CrmDirectRule *rule = question->rule;
	ExprContext *evaluation = rule->evaluation;

	ResetExprContext(evaluation);
	evaluation->ecxt_scantuple = row_of(question, CONTACT);
	evaluation->ecxt_innertuple = row_of(question, COUNTER);
	evaluation->ecxt_outertuple = row_of(question, STAGE);
	set_parameter(rule, CRM_RULE_AS_OF, TimestampTzGetDatum(as_of));
	if (fact != NULL)
		for (int i = 0; i < CRM_FACT_COLUMNS; i++)
		{
			ParamExternData *parameter = &rule->parameters->params[CRM_RULE_PARAMETERS + i];

			parameter->value = fact->values[i];
			parameter->isnull = fact->nulls[i];
		}
	if (rule->reads_today)
		set_parameter(rule, CRM_RULE_TODAY, DateADTGetDatum(crm_rule_today(as_of)));
	if (rule->reads_zone)
	{
		MemoryContext old = MemoryContextSwitchTo(evaluation->ecxt_per_tuple_memory);

		set_parameter(rule, CRM_RULE_ZONE, CStringGetTextDatum(crm_guc_time_zone));
		MemoryContextSwitchTo(old);
	}
}

/* What is asked; the failure of one is an error. */
typedef struct Batch
{
	CrmDirectRule *rule;
	const bool *stale;
	const CrmAsked *asked;
	bool possible;
} Batch;

static const CrmFactValues *
fact_of(const CrmAsked *asked, int place)
{
	return asked->facts == NULL ? NULL : asked->facts[place];
}

static bool
ask_all(void *arg)
{
	Batch *batch = arg;
	const CrmAsked *asked = batch->asked;
	Question question = { .rule = batch->rule, .reads_contact = batch->rule->reads_contact };

	batch->possible = open_sources(&question, batch->rule->reads) && !*batch->stale;
	for (int i = 0; batch->possible && i < asked->n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		question.holds = false;
		if (find_rows(&question, asked->contacts[i]))
		{
			prepare_evaluation(&question, asked->as_of[i], fact_of(asked, i));
			(void) evaluate(&question);
		}
		asked->holds[i] = question.holds;
	}
	close_sources(&question);
	return true;
}

/* The rows are found outside the subtransaction, whose end would take them away. */
static bool
ask_one(const Batch *batch, const CrmAsked *asked)
{
	Question question = { .rule = batch->rule, .reads_contact = batch->rule->reads_contact };
	bool possible = open_sources(&question, batch->rule->reads) && !*batch->stale;
	ErrorData *error = NULL;

	if (possible && find_rows(&question, asked->contacts[0]))
	{
		prepare_evaluation(&question, asked->as_of[0], fact_of(asked, 0));
		if (!crm_attempt(evaluate, &question, &error))
			question.holds = false;
	}
	close_sources(&question);
	asked->holds[0] = question.holds;
	if (error != NULL)
		crm_asked_failed(asked, error);
	return possible;
}

bool
crm_direct_ask(CrmDirectRule *rule, const bool *stale, const CrmAsked *asked)
{
	Batch batch = { rule, stale, asked };
	ErrorData *error;

	if (!rule->may_fail)
	{
		(void) ask_all(&batch);
		return batch.possible;
	}
	/* all in one subtransaction, and one by one if any fails */
	if (asked->n > 1)
	{
		if (crm_attempt(ask_all, &batch, &error))
			return batch.possible;
		if (!crm_rule_is_contained(error))
			ReThrowError(error);
		FreeErrorData(error);
	}
	for (int i = 0; i < asked->n; i++)
	{
		CrmAsked one = crm_asked_part(asked, i, 1);

		CHECK_FOR_INTERRUPTS();
		if (!ask_one(&batch, &one))
			return false;
	}
	return true;
}

bool
crm_direct_may_fail(const CrmDirectRule *rule)
{
	return rule->may_fail;
}

const CrmGuard *
crm_direct_guard(const CrmDirectRule *rule)
{
	return rule->guard;
}

/* Of the rows found, by the number that is_row_column() gave it. */
static Datum
row_value(const void *arg, int column, bool *isnull)
{
	const Question *question = arg;

	return slot_getattr(row_of(question, column / (MaxAttrNumber + 1)),
						column % (MaxAttrNumber + 1), isnull);
}

static bool
is_asked(const CrmAskedTogether *asked, int place)
{
	for (int r = 0; r < asked->n; r++)
		if (asked->holds[r][place])
			return true;
	return false;
}

/* Of one fact; the rows of its contact are found once. */
static void
ask_fact(Question *questions, const CrmAskedTogether *asked, int place)
{
	const CrmFactValues *fact = &asked->facts[place];
	bool found;

	if (!is_asked(asked, place))
		return;
	found = find_contact(&questions[0], fact->contact_id);
	if (found && asked->screen != NULL)
		crm_screen_apply(asked->screen, row_value, &questions[0], asked->holds, place);
	for (int r = 0; r < asked->n; r++)
	{
		Question *question = &questions[r];

		if (!asked->holds[r][place])
			continue;
		question->holds = false;
		if (found)
		{
			if (question->rule->reads[STAGE])
				find_rank(question);
			prepare_evaluation(question, fact->as_of, fact);
			(void) evaluate(question);
		}
		asked->holds[r][place] = question->holds;
	}
}

bool
crm_direct_ask_together(const CrmAskedTogether *asked, const bool *stale)
{
	Question *questions = palloc0_array(Question, asked->n);
	bool reads[SOURCES] = { 0 };
	bool possible;

	for (int r = 0; r < asked->n; r++)
	{
		questions[r].rule = asked->rules[r];
		for (int i = 0; i < SOURCES; i++)
			reads[i] = reads[i] || asked->rules[r]->reads[i];
	}
	possible = open_sources(&questions[0], reads) && !*stale;
	for (int r = 0; r < asked->n; r++)
	{
		memcpy(questions[r].targets, questions[0].targets, sizeof(questions[0].targets));
		questions[0].reads_contact |= asked->rules[r]->reads_contact;
	}
	for (int i = 0; possible && i < asked->nfacts; i++)
	{
		CHECK_FOR_INTERRUPTS();
		ask_fact(questions, asked, i);
	}
	close_sources(&questions[0]);
	pfree(questions);
	return possible;
}

CrmAsked
crm_asked_part(const CrmAsked *asked, int start, int n)
{
	CrmAsked part = *asked;

	part.n = n;
	part.contacts += start;
	part.as_of += start;
	if (part.facts != NULL)
		part.facts += start;
	part.holds += start;
	return part;
}

void
crm_asked_failed(const CrmAsked *asked, ErrorData *error)
{
	if (!crm_rule_is_contained(error))
		ReThrowError(error);
	asked->holds[0] = false;
	SPI_connect();
	crm_rule_count_error(asked->user, asked->contacts[0], error->sqlerrcode, error->message);
	SPI_finish();
	FreeErrorData(error);
}
