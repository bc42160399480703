/*
 * execute.c
 *		Rules answered for a batch of contacts by a kept plan, or for one
 *		contact off its rows where that can be done. A contact for whom the
 *		rule fails is found by halving the batch; for it the rule is false, and
 *		the failure is counted.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/guc.h"
#include "base/table.h"
#include "pg_crm.h"
#include "rules/direct.h"
#include "rules/kept.h"
#include "rules/language.h"
#include "rules/rules.h"

const Oid crm_rule_types[CRM_RULE_PARAMETERS] = { INT8ARRAYOID, TIMESTAMPTZOID, DATEOID, TEXTOID };
const Oid crm_rule_one_types[CRM_RULE_PARAMETERS] = { INT8OID, TIMESTAMPTZOID, DATEOID, TEXTOID };

/* rows from which on a batch is worth a plan of its own */
#define LARGE_BATCH 64

static CrmKeptRules kept = { .tables = { "profile", "stage" } };

typedef struct Compiled
{
	CrmKeptRule kept;
	bool tried;            /* to do without a plan for one contact */
	CrmDirectRule *direct; /* NULL where that cannot be done */
} Compiled;

/*
 * Dates and intervals are read and written in one way, whatever the session
 * says: as settings, which parallel workers get too.
 */
int
crm_rule_enter(void)
{
	int nest_level = NewGUCNestLevel();

	if (DateStyle != USE_ISO_DATES || DateOrder != DATEORDER_YMD)
		(void) set_config_option("DateStyle", "ISO, YMD", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	if (IntervalStyle != INTSTYLE_POSTGRES)
		(void) set_config_option("IntervalStyle", "postgres", PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	if (session_timezone != crm_guc_zone)
		(void) set_config_option("TimeZone", crm_guc_time_zone, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	return nest_level;
}

void
crm_rule_leave(int nest_level)
{
	AtEOXact_GUC(true, nest_level);
}

void
crm_rule_style_begin(CrmRuleStyle *outside)
{
	outside->zone = session_timezone;
	outside->date_style = DateStyle;
	outside->date_order = DateOrder;
	outside->interval_style = IntervalStyle;
	session_timezone = crm_guc_zone;
	DateStyle = USE_ISO_DATES;
	DateOrder = DATEORDER_YMD;
	IntervalStyle = INTSTYLE_POSTGRES;
}

void
crm_rule_style_end(const CrmRuleStyle *outside)
{
	session_timezone = outside->zone;
	DateStyle = outside->date_style;
	DateOrder = outside->date_order;
	IntervalStyle = outside->interval_style;
}

DateADT
crm_rule_today(TimestampTz as_of)
{
	struct pg_tm local;
	fsec_t fraction;
	int offset;

	if (timestamp2tm(as_of, &offset, &local, &fraction, NULL, crm_guc_zone) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
	return date2j(local.tm_year, local.tm_mon, local.tm_mday) - POSTGRES_EPOCH_JDATE;
}

/* All but the contacts. */
void
crm_rule_values(TimestampTz as_of, Datum *values)
{
	values[CRM_RULE_AS_OF - 1] = TimestampTzGetDatum(as_of);
	values[CRM_RULE_TODAY - 1] = DateADTGetDatum(crm_rule_today(as_of));
	values[CRM_RULE_ZONE - 1] = CStringGetTextDatum(crm_guc_time_zone);
}

static Query *
analyze(const char *text, CrmRuleScope scope)
{
	ErrorContextCallback callback;
	CrmActing acting;
	Query *query;

	crm_act_as_owner(&acting); /* for the path */
	crm_rule_point(&callback, text);
	query = crm_rule_query(crm_rule_read(text), scope, NIL);
	crm_rule_point_end(&callback);
	crm_act_end(&acting);
	return query;
}

SPIPlanPtr
crm_rule_prepare(Query *query, CrmRuleScope scope, const Oid *types, int ntypes)
{
	char *sql = crm_rule_write(query);
	/* under the path under which it runs, or it would be made anew then */
	int path = crm_catalog_path_begin();
	SPIPlanPtr plan = SPI_prepare_cursor(sql, ntypes, unconstify(Oid *, types),
										 scope == CRM_RULE_MANY ? CURSOR_OPT_CUSTOM_PLAN
																: CURSOR_OPT_GENERIC_PLAN);

	crm_catalog_path_end(path);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare_cursor failed: %s", SPI_result_code_string(SPI_result));
	return plan;
}

static SPIPlanPtr
make_plan(Query *query, CrmRuleScope scope)
{
	return crm_rule_prepare(query, scope,
							scope == CRM_RULE_ONE ? crm_rule_one_types : crm_rule_types,
							CRM_RULE_PARAMETERS);
}

static SPIPlanPtr
find_plan(Compiled *rule, CrmRuleScope scope)
{
	SPIPlanPtr plan = rule->kept.plans[scope];

	if (plan == NULL)
	{
		plan = make_plan(analyze(rule->kept.text, scope), scope);
		SPI_keepplan(plan);
		rule->kept.plans[scope] = plan;
	}
	return plan;
}

/* For one contact, without a plan where that can be done. */
static void
compile_for_one(Compiled *rule)
{
	rule->direct = crm_direct_compile(analyze(rule->kept.text, CRM_RULE_ONE), rule->kept.context);
	rule->tried = true;
}

static Compiled *
compile(const char *text, CrmRuleScope scope)
{
	Compiled *rule = (Compiled *) crm_kept_create(sizeof(Compiled), text);

	if (scope == CRM_RULE_ONE)
		compile_for_one(rule);
	else
		rule->kept.plans[scope] = make_plan(analyze(text, scope), scope);
	crm_kept_add(&kept, &rule->kept);
	return rule;
}

typedef struct Run
{
	Compiled *rule;
	CrmRuleScope scope;
	SPIPlanPtr plan;
	const CrmRuleUser *user;
	const int64 *contacts;
	int ncontacts;
	bool *holds;
	Datum values[CRM_RULE_PARAMETERS];
} Run;

static CrmRuleScope
scope_for(int ncontacts)
{
	if (ncontacts == 1)
		return CRM_RULE_ONE;
	return ncontacts > LARGE_BATCH ? CRM_RULE_MANY : CRM_RULE_FEW;
}

void
crm_rule_set_parameter(ParamListInfo parameters, int place, Oid type, Datum value, bool isnull)
{
	ParamExternData *parameter = &parameters->params[place];

	parameter->value = value;
	parameter->isnull = isnull;
	parameter->pflags = PARAM_FLAG_CONST;
	parameter->ptype = type;
}

/* The only row of a plan for one contact is whether the rule holds. */
typedef struct OneReceiver
{
	DestReceiver receiver;
	bool holds;
} OneReceiver;

static bool
receive_one(TupleTableSlot *slot, DestReceiver *receiver)
{
	bool isnull;

	((OneReceiver *) receiver)->holds = DatumGetBool(slot_getattr(slot, 1, &isnull));
	return true;
}

static void
receive_nothing(DestReceiver *receiver)
{
}

static void
receive_no_tuples(DestReceiver *receiver, int operation, TupleDesc descriptor)
{
}

static const OneReceiver one_receiver = { { receive_one, receive_no_tuples, receive_nothing,
											receive_nothing, DestNone } };

static void
execute_plan(SPIPlanPtr plan, CrmRuleScope scope, ParamListInfo parameters, bool *holds)
{
	SPIExecuteOptions options = { .params = parameters, .read_only = true };
	OneReceiver one = one_receiver;
	int path = crm_catalog_path_begin();
	int code;

	if (scope == CRM_RULE_ONE)
		options.dest = &one.receiver;
	code = SPI_execute_plan_extended(plan, &options);
	if (code < 0)
		elog(ERROR, "SPI_execute_plan_extended failed: %s", SPI_result_code_string(code));
	crm_catalog_path_end(path);
	if (scope == CRM_RULE_ONE)
		*holds = one.holds;
}

void
crm_rule_run(SPIPlanPtr plan, CrmRuleScope scope, ParamListInfo parameters, bool *holds)
{
	CrmRuleStyle outside;

	crm_rule_style_begin(&outside);
	PG_TRY();
	{
		execute_plan(plan, scope, parameters, holds);
	}
	PG_FINALLY();
	{
		crm_rule_style_end(&outside);
	}
	PG_END_TRY();
}

static void
execute_fixed(Run *run)
{
	ParamListInfo parameters = makeParamList(CRM_RULE_PARAMETERS);
	const Oid *types = run->scope == CRM_RULE_ONE ? crm_rule_one_types : crm_rule_types;

	for (int i = 0; i < CRM_RULE_PARAMETERS; i++)
		crm_rule_set_parameter(parameters, i, types[i], run->values[i], false);
	crm_rule_run(run->plan, run->scope, parameters, run->holds);
}

static bool
run_once(void *arg)
{
	Run *run = arg;
	int place = 0;

	if (run->scope == CRM_RULE_ONE)
	{
		run->values[CRM_RULE_CONTACTS - 1] = Int64GetDatum(run->contacts[0]);
		execute_fixed(run);
		return true;
	}
	run->values[CRM_RULE_CONTACTS - 1] = crm_int64_array(run->contacts, run->ncontacts);
	execute_fixed(run);
	memset(run->holds, 0, sizeof(bool) * run->ncontacts);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		int64 contact_id = crm_result_int64(i, 1);

		/* the plan returns them in any order */
		if (place >= run->ncontacts || run->contacts[place] != contact_id)
		{
			const int64 *found = bsearch(&contact_id, run->contacts, run->ncontacts, sizeof(int64),
										 crm_compare_int64);

			if (found == NULL)
				continue;
			place = found - run->contacts;
		}
		run->holds[place++] = true;
	}
	SPI_freetuptable(SPI_tuptable);
	return true;
}

bool
crm_rule_is_contained(const ErrorData *error)
{
	return ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_DATA_EXCEPTION ||
		error->sqlerrcode == ERRCODE_PROGRAM_LIMIT_EXCEEDED;
}

/* for reasons of its own, and not of the server or the transaction */
bool
crm_rule_is_broken(const ErrorData *error)
{
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION:
		case ERRCODE_DATA_EXCEPTION:
		case ERRCODE_FEATURE_NOT_SUPPORTED:
		case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
		case ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION:
			return true;
		default:
			return false;
	}
}

void
crm_rule_count_error(const CrmRuleUser *user, int64 contact_id, int sqlerrcode, const char *message)
{
	static CrmPlan count = {
		"INSERT INTO crm.rule_error AS e"
		" (contact_id, object_kind, object, day, sqlstate, message, first_at, last_at)"
		" VALUES ($1, $2, $3, ($6 AT TIME ZONE $7)::date, $4, $5, $6, $6)"
		" ON CONFLICT (contact_id, object_kind, object, day) DO UPDATE SET times = e.times + 1,"
		" sqlstate = excluded.sqlstate, message = excluded.message,"
		" last_at = greatest(e.last_at, excluded.last_at)",
		7,
		{ INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TEXTOID }
	};
	Datum values[7];
	CrmActing acting;

	if (XactReadOnly || crm_only_reads || user == NULL)
		return;
	crm_act_as_owner(&acting); /* for the path */
	values[0] = Int64GetDatum(contact_id);
	values[1] = CStringGetTextDatum(user->kind);
	values[2] = CStringGetTextDatum(user->name);
	values[3] = CStringGetTextDatum(unpack_sql_state(sqlerrcode));
	values[4] = CStringGetTextDatum(message);
	values[5] = TimestampTzGetDatum(crm_now());
	values[6] = CStringGetTextDatum(crm_guc_time_zone);
	crm_run(&count, values, NULL);
	crm_act_end(&acting);
}

static void
run_contained(Run *run)
{
	ErrorData *error;
	int half = run->ncontacts / 2;
	Run part;

	if (run->ncontacts == 0)
		return;
	run->scope = scope_for(run->ncontacts);
	run->plan = find_plan(run->rule, run->scope);
	if (crm_attempt(run_once, run, &error))
		return;
	if (!crm_rule_is_contained(error))
		ReThrowError(error);
	if (run->ncontacts == 1)
	{
		run->holds[0] = false;
		crm_rule_count_error(run->user, run->contacts[0], error->sqlerrcode, error->message);
		FreeErrorData(error);
		return;
	}
	FreeErrorData(error);
	CHECK_FOR_INTERRUPTS();
	part = *run;
	part.ncontacts = half;
	run_contained(&part);
	part.contacts += half;
	part.holds += half;
	part.ncontacts = run->ncontacts - half;
	run_contained(&part);
}

static void
run_plans(Run *run, TimestampTz as_of)
{
	SPI_connect();
	crm_rule_values(as_of, run->values);
	/* counting a failure may run triggers, which may ask for other rules */
	crm_kept_begin(&run->rule->kept);
	PG_TRY();
	{
		run_contained(run);
	}
	PG_FINALLY();
	{
		crm_kept_end(&run->rule->kept);
	}
	PG_END_TRY();
	SPI_finish();
}

static Compiled *
find_rule(const char *text, CrmRuleScope scope)
{
	Compiled *rule = (Compiled *) crm_kept_find(&kept, text);

	if (rule != NULL && (scope != CRM_RULE_ONE || rule->tried))
		return rule;
	SPI_connect();
	if (rule == NULL)
		rule = compile(text, scope);
	else
		compile_for_one(rule);
	SPI_finish();
	return rule;
}

void
crm_rule_evaluate(const char *text, const CrmRuleUser *user, const int64 *contacts, int ncontacts,
				  TimestampTz as_of, bool *holds)
{
	CrmActing acting;
	Run run = { .user = user, .contacts = contacts, .ncontacts = ncontacts, .holds = holds };
	CrmAsked asked = { user, 1, contacts, &as_of, NULL, holds };

	crm_act_as_owner_unnamed(&acting);
	run.rule = find_rule(text, scope_for(ncontacts));
	if (ncontacts != 1 || run.rule->direct == NULL ||
		!crm_direct_ask(run.rule->direct, &kept.stale, &asked))
		run_plans(&run, as_of);
	crm_act_end(&acting);
}
