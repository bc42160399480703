/*
 * execute.c
 *		Rules answered for a batch of contacts by a kept plan. A contact for
 *		whom the rule fails is found by halving the batch; for it the rule is
 *		false, and the failure is counted.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "common/hashfn.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/guc.h"
#include "base/table.h"
#include "pg_crm.h"
#include "rules/language.h"
#include "rules/rules.h"

const Oid crm_rule_types[CRM_RULE_PARAMETERS] = { INT8ARRAYOID, TIMESTAMPTZOID, DATEOID, TEXTOID };

/* rows from which on a batch is worth a plan of its own */
#define LARGE_BATCH 64
#define MAX_KEPT    200

typedef struct KeptRule
{
	uint32 hash;
	char *text;
	bool reads_zone;
	SPIPlanPtr generic;    /* small batches */
	SPIPlanPtr custom;     /* large ones */
	MemoryContext context; /* of all of it */
} KeptRule;

static int nkept = 0;
static KeptRule *kept[MAX_KEPT];
static bool kept_valid = true;
static Oid profile_oid = InvalidOid;

/* The columns of a rule are those of crm.profile; plans look after themselves. */
static void
forget_rules(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == profile_oid)
		kept_valid = false;
}

/* Dates and intervals are read and written in one way, whatever the session says. */
int
crm_rule_enter(void)
{
	int nest_level = NewGUCNestLevel();

	(void) set_config_option("DateStyle", "ISO, YMD", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
	(void) set_config_option("IntervalStyle", "postgres", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	(void) set_config_option("TimeZone", crm_guc_time_zone, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	return nest_level;
}

void
crm_rule_leave(int nest_level)
{
	AtEOXact_GUC(true, nest_level);
}

/* All but the contacts. */
void
crm_rule_values(TimestampTz as_of, Datum *values)
{
	Datum zone = CStringGetTextDatum(crm_guc_time_zone);
	Datum local = DirectFunctionCall2(timestamptz_zone, zone, TimestampTzGetDatum(as_of));

	values[CRM_RULE_AS_OF - 1] = TimestampTzGetDatum(as_of);
	values[CRM_RULE_TODAY - 1] = DirectFunctionCall1(timestamp_date, local);
	values[CRM_RULE_ZONE - 1] = zone;
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

static void
forget(KeptRule *rule)
{
	if (rule->generic != NULL)
		SPI_freeplan(rule->generic);
	if (rule->custom != NULL)
		SPI_freeplan(rule->custom);
	MemoryContextDelete(rule->context);
}

static KeptRule *
find_rule(const char *text)
{
	static bool registered = false;
	uint32 hash = string_hash(text, strlen(text) + 1);
	MemoryContext context;
	MemoryContext old;
	ErrorContextCallback callback;
	KeptRule *rule;
	CrmRuleTree *tree;
	char *few;
	char *many;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(forget_rules, (Datum) 0);
		registered = true;
	}
	if (!kept_valid || nkept == MAX_KEPT)
	{
		while (nkept > 0)
			forget(kept[--nkept]);
		kept_valid = true;
	}
	profile_oid = crm_table_oid("profile");
	for (int i = 0; i < nkept; i++)
		if (kept[i]->hash == hash && strcmp(kept[i]->text, text) == 0)
			return kept[i];

	crm_rule_point(&callback, text);
	tree = crm_rule_read(text);
	few = crm_rule_compile(tree, CRM_RULE_FEW, NIL);
	many = crm_rule_compile(crm_rule_read(text), CRM_RULE_MANY, NIL);
	crm_rule_point_end(&callback);
	context = AllocSetContextCreate(CacheMemoryContext, "pg_crm rule", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(context);
	rule = palloc0(sizeof(KeptRule));
	rule->hash = hash;
	rule->text = pstrdup(text);
	rule->reads_zone = tree->reads_zone;
	rule->context = context;
	MemoryContextSwitchTo(old);
	rule->generic = prepare(few, CURSOR_OPT_GENERIC_PLAN);
	rule->custom = prepare(many, CURSOR_OPT_CUSTOM_PLAN);
	SPI_keepplan(rule->generic);
	SPI_keepplan(rule->custom);
	kept[nkept++] = rule;
	return rule;
}

typedef struct Run
{
	KeptRule *rule;
	const CrmRuleUser *user;
	const int64 *contacts;
	int ncontacts;
	bool *holds;
	Datum values[CRM_RULE_PARAMETERS];
} Run;

static bool
run_once(void *arg)
{
	Run *run = arg;
	int code;
	int place = 0;

	run->values[CRM_RULE_CONTACTS - 1] = crm_int64_array(run->contacts, run->ncontacts);
	code = SPI_execute_plan(run->ncontacts > LARGE_BATCH ? run->rule->custom : run->rule->generic,
							run->values, NULL, true, 0);
	if (code < 0)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(code));
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

	if (XactReadOnly || user == NULL)
		return;
	values[0] = Int64GetDatum(contact_id);
	values[1] = CStringGetTextDatum(user->kind);
	values[2] = CStringGetTextDatum(user->name);
	values[3] = CStringGetTextDatum(unpack_sql_state(sqlerrcode));
	values[4] = CStringGetTextDatum(message);
	values[5] = TimestampTzGetDatum(crm_now());
	values[6] = CStringGetTextDatum(crm_guc_time_zone);
	crm_run(&count, values, NULL);
}

static void
run_contained(Run *run)
{
	ErrorData *error;
	int half = run->ncontacts / 2;
	Run part = *run;

	if (run->ncontacts == 0 || crm_attempt(run_once, run, &error))
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
	part.ncontacts = half;
	run_contained(&part);
	part.contacts += half;
	part.holds += half;
	part.ncontacts = run->ncontacts - half;
	run_contained(&part);
}

void
crm_rule_evaluate(const char *text, const CrmRuleUser *user, const int64 *contacts, int ncontacts,
				  TimestampTz as_of, bool *holds)
{
	CrmActing acting;
	int nest_level = 0;
	Run run = { .user = user, .contacts = contacts, .ncontacts = ncontacts, .holds = holds };

	crm_connect(&acting);
	crm_rule_values(as_of, run.values);
	run.rule = find_rule(text);
	if (run.rule->reads_zone)
		nest_level = crm_rule_enter();
	run_contained(&run);
	if (run.rule->reads_zone)
		crm_rule_leave(nest_level);
	crm_disconnect(&acting);
}
