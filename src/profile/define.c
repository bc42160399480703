/*
 * define.c
 *		Saving achievements and stage rules: checked before they are stored,
 *		logged, and applied to everybody's history in the same transaction.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/inval.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/document.h"
#include "base/install.h"
#include "base/table.h"
#include "pg_crm.h"
#include "journey/journey.h"
#include "profile/definition.h"
#include "profile/loyalty.h"
#include "profile/profile.h"
#include "profile/recompute.h"
#include "base/row.h"
#include "profile/segment.h"
#include "rules/rules.h"

#define MAX_THRESHOLDS  100
#define MAX_NAME_BYTES  63
#define MAX_SCENE_BYTES 64
/* thresholds are compared as integers too */
#define MAX_THRESHOLD   INT64CONST(1000000000000000000)
#define RECOMPUTE_CHUNK 10000
/* of a window or a period */
#define MAX_YEARS 100
/* so many scans may have to be looked at for each new one */
#define MAX_SCANS 10000

PG_FUNCTION_INFO_V1(crm_define_achievement);
PG_FUNCTION_INFO_V1(crm_define_stage_rule);
PG_FUNCTION_INFO_V1(crm_check_definition);
PG_FUNCTION_INFO_V1(crm_log_definition);
PG_FUNCTION_INFO_V1(crm_definitions_changed);

/* a stage was changed by define_stage_rule(), so its rule has a new version */
static bool stage_changed = false;

/* rows were changed in a way that profiles depend on, since the last recomputation */
static bool derivation_changed = false;

/* the same of points and tiers */
static bool loyalty_changed = false;

Datum
crm_define_achievement(PG_FUNCTION_ARGS)
{
	static const char *const required[] = { "name", "on_kind" };

	PG_RETURN_INT32(crm_document_define(fcinfo, "define_achievement", "achievement", required,
										lengthof(required)));
}

/* Makes the stage, or changes what the document says of it. */
static bool
save_stage(CrmDocument *document)
{
	const char *rank = "NULL::pg_catalog.int4";
	const char *label = "NULL::pg_catalog.text";
	bool has_rank = crm_document_value(document, "rank") != NULL;
	bool has_label = crm_document_value(document, "label") != NULL;

	if (has_rank)
		rank = crm_document_literal(document, "rank", "stage", "rank");
	if (has_label)
		label = crm_document_literal(document, "label", "stage", "label");
	return crm_ddl_text(psprintf(
			   "INSERT INTO crm.stage AS t (stage, rank, label) VALUES (%s, %s, %s)"
			   " ON CONFLICT (stage) DO UPDATE SET rank = CASE WHEN %s THEN EXCLUDED.rank ELSE t.rank END,"
			   " label = CASE WHEN %s THEN EXCLUDED.label ELSE t.label END"
			   " WHERE %s AND EXCLUDED.rank IS DISTINCT FROM t.rank"
			   " OR %s AND EXCLUDED.label IS DISTINCT FROM t.label RETURNING t.stage",
			   crm_document_literal(document, "stage", "stage", "stage"), rank, label,
			   has_rank ? "true" : "false", has_label ? "true" : "false",
			   has_rank ? "true" : "false", has_label ? "true" : "false")) != NULL;
}

Datum
crm_define_stage_rule(PG_FUNCTION_ARGS)
{
	static const char *const required[] = { "stage", "rule" };
	static const char *const of_stage[] = { "rank", "label" };
	CrmDocument *document = crm_document_open(fcinfo, "define_stage_rule");
	CrmActing acting;
	volatile int version = 0;

	crm_document_check_keys(document, "stage_rule", of_stage, lengthof(of_stage));
	crm_document_require(document, required, lengthof(required));
	crm_connect(&acting);
	PG_TRY();
	{
		stage_changed = save_stage(document);
		crm_document_remove(document, "rank");
		crm_document_remove(document, "label");
		version = crm_document_save(document, "stage_rule", required, 1);
	}
	PG_FINALLY();
	{
		stage_changed = false;
	}
	PG_END_TRY();
	crm_disconnect(&acting);
	PG_RETURN_INT32(version);
}

static void
refuse_thresholds(const char *what, Datum threshold)
{
	ereport(ERROR,
			(errcode(ERRCODE_CHECK_VIOLATION),
			 errmsg("threshold %s %s", DatumGetCString(DirectFunctionCall1(numeric_out, threshold)),
					what),
			 errhint(
				 "Thresholds are distinct numbers above 0, whole ones where facts are counted.")));
}

static void
check_thresholds(Datum array, bool counts)
{
	ArrayType *thresholds = DatumGetArrayTypeP(array);
	Datum *values;
	bool *nulls;
	int n;
	Datum zero = NumericGetDatum(int64_to_numeric(0));
	Datum most = NumericGetDatum(int64_to_numeric(MAX_THRESHOLD));

	deconstruct_array(thresholds, NUMERICOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	if (ARR_NDIM(thresholds) > 1 || n < 1 || n > MAX_THRESHOLDS)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("thresholds must be a list of 1 to %d numbers, not %s", MAX_THRESHOLDS,
						ARR_NDIM(thresholds) > 1 ? "an array of arrays" : psprintf("%d", n)),
				 errhint("Give for example {1}, or {5,10,20}.")));
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_CHECK_VIOLATION), errmsg("thresholds hold a NULL"),
					 errhint("Give for example {1}, or {5,10,20}.")));
		if (numeric_is_nan(DatumGetNumeric(values[i])) ||
			DatumGetBool(DirectFunctionCall2(numeric_le, values[i], zero)))
			refuse_thresholds("is not above 0", values[i]);
		if (DatumGetBool(DirectFunctionCall2(numeric_gt, values[i], most)))
			refuse_thresholds("is out of reach", values[i]);
		if (counts &&
			DatumGetBool(DirectFunctionCall2(numeric_ne, values[i],
											 DirectFunctionCall2(numeric_trunc, values[i],
																 Int32GetDatum(0)))))
			refuse_thresholds("is no whole number", values[i]);
		for (int other = 0; other < i; other++)
			if (DatumGetBool(DirectFunctionCall2(numeric_eq, values[i], values[other])))
				refuse_thresholds("comes twice", values[i]);
	}
}

static void
check_achievement(const CrmRow *row)
{
	char *on_kind = crm_row_text(row, "on_kind");
	char *measure = crm_row_text(row, "measure");
	char *rule = crm_row_text(row, "rule");
	bool isnull;
	Datum thresholds = crm_row_value(row, "thresholds", &isnull);

	crm_check_length("name of an achievement", crm_row_text(row, "name"), MAX_NAME_BYTES);
	crm_check_length("on_kind", on_kind, CRM_MAX_KIND_BYTES);
	if (!isnull)
		check_thresholds(thresholds, measure == NULL || strcmp(measure, "amount") != 0);
	if (measure != NULL && strcmp(measure, "amount") == 0 && on_kind != NULL &&
		strcmp(on_kind, "purchase") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("measure amount does not go with on_kind \"%s\"", on_kind),
				 errhint("Only purchases have an amount; use measure count.")));
	if (rule != NULL)
		crm_achievement_rule_check(rule, on_kind);
}

/* A length of time that is above 0; one value of months, or of days and hours. */
static void
check_interval(const char *what, const Interval *length, bool months, const char *hint)
{
	char *text = DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(length)));

	if (length->month < 0 || length->day < 0 || length->time < 0 ||
		(length->month == 0 && length->day == 0 && length->time == 0))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION), errmsg("%s %s is not above 0", what, text),
				 errhint("%s", hint)));
	if (length->month > 0 && (!months || length->day > 0 || length->time > 0))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 months ? errmsg("%s %s mixes months with days", what, text)
						: errmsg("%s %s is of months, which differ in length", what, text),
				 errhint("%s", hint)));
	if (length->month > MAX_YEARS * MONTHS_PER_YEAR || length->day > MAX_YEARS * DAYS_PER_YEAR ||
		length->time > MAX_YEARS * DAYS_PER_YEAR * USECS_PER_DAY)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("%s %s is longer than %d years", what, text, MAX_YEARS),
				 errhint("%s", hint)));
}

static void
check_qr_code(const CrmRow *row)
{
	char *scope = crm_row_text(row, "dedup_scope");
	char *campaign = crm_row_text(row, "campaign");
	bool no_store;
	bool no_window;
	bool no_start;
	bool no_end;
	Datum window = crm_row_value(row, "dedup_window", &no_window);
	TimestampTz start = DatumGetTimestampTz(crm_row_value(row, "valid_from", &no_start));
	TimestampTz end = DatumGetTimestampTz(crm_row_value(row, "valid_until", &no_end));

	(void) crm_row_value(row, "store_id", &no_store);
	crm_check_length("scene", crm_row_text(row, "scene"), MAX_SCENE_BYTES);
	if (campaign != NULL &&
		(*campaign != '\0' || (scope != NULL && strcmp(scope, "campaign") == 0)))
		crm_check_length("campaign", campaign, CRM_MAX_KEY_BYTES);
	if (scope != NULL &&
		((strcmp(scope, "campaign") == 0 && campaign == NULL) ||
		 (strcmp(scope, "store") == 0 && no_store)))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("dedup_scope \"%s\" of a code without a %s", scope, scope),
				 errhint("Give the code a %s, or use dedup_scope \"code\".",
						 strcmp(scope, "store") == 0 ? "store_id" : "campaign")));
	if (!no_window)
		check_interval(
			"dedup_window", DatumGetIntervalP(window), true,
			"Give for example 10 minutes, 1 day, 1 week or 3 months; without a window a scan counts once for ever.");
	if (!no_start && !no_end && start >= end)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("valid_from %s is not before valid_until %s",
						pstrdup(timestamptz_to_str(start)), pstrdup(timestamptz_to_str(end))),
				 errhint("A code is valid from valid_from until just before valid_until.")));
}

static void
check_account(const CrmRow *row)
{
	char *zone = crm_row_text(row, "time_zone");

	if (zone != NULL && pg_tzset(zone) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time_zone \"%s\" of an account is not known",
						pnstrdup(zone, pg_mbcliplen(zone, strlen(zone), 40))),
				 errhint("Name one of pg_timezone_names, for example Asia/Shanghai.")));
}

static void
check_scan_limit(const CrmRow *row)
{
	bool isnull;
	Datum value = crm_row_value(row, "max_scans", &isnull);

	crm_check_length("name of a scan limit", crm_row_text(row, "name"), MAX_NAME_BYTES);
	if (!isnull && (DatumGetInt32(value) < 1 || DatumGetInt32(value) > MAX_SCANS))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("max_scans %d is not between 1 and %d", DatumGetInt32(value), MAX_SCANS),
				 errhint("Say how many scans are allowed in the period; more are marked.")));
	value = crm_row_value(row, "period", &isnull);
	if (!isnull)
		check_interval("period", DatumGetIntervalP(value), false,
					   "Give for example 1 minute, 1 hour or 1 day (of 24 hours).");
}

/* When a stage may change without a fact; who saves the rule is told. */
static void
say_when(CrmRuleTime time)
{
	if (time == CRM_TIME_NONE)
		return;
	ereport(NOTICE,
			(time == CRM_TIME_EXACT
				 ? errmsg("the rule reads the time and yields its own moments")
				 : errmsg("the rule reads the time and is looked at once a day, at midnight"),
			 errhint("Moves that are due are made by crm.tick().")));
}

static bool
is_table(TriggerData *trigger, const char *name)
{
	return RelationGetRelid(trigger->tg_relation) == crm_table_oid_if_any(name);
}

Datum
crm_check_definition(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = crm_row_trigger(fcinfo, "check_definition", true);
	bool update = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	CrmRow old = { RelationGetDescr(trigger->tg_relation), trigger->tg_trigtuple };
	CrmRow new = { RelationGetDescr(trigger->tg_relation),
				   update ? trigger->tg_newtuple : trigger->tg_trigtuple };

	if (is_table(trigger, "achievement"))
		check_achievement(&new);
	else if (is_table(trigger, "qr_code"))
		check_qr_code(&new);
	else if (is_table(trigger, "account"))
		check_account(&new);
	else if (is_table(trigger, "segment"))
		crm_check_segment(new.descriptor, new.tuple);
	else if (is_table(trigger, "scan_limit"))
		check_scan_limit(&new);
	else if (is_table(trigger, "stage"))
		crm_check_length("name of a stage", crm_row_text(&new, "stage"), MAX_NAME_BYTES);
	else if (crm_is_loyalty_definition(RelationGetRelid(trigger->tg_relation)))
		crm_check_loyalty_definition(RelationGetRelid(trigger->tg_relation), new.descriptor,
									 new.tuple);
	else
	{
		char *rule = crm_row_text(&new, "rule");

		crm_require_table(trigger->tg_relation, "stage_rule");
		if (rule != NULL)
			say_when(crm_stage_rule_check(rule));
	}

	return PointerGetDatum(crm_row_version(update ? &old : NULL, &new, stage_changed));
}

static Datum
row_as_jsonb(const CrmRow *row)
{
	Datum record = heap_copy_tuple_as_datum(row->tuple, row->descriptor);
	char *json = TextDatumGetCString(DirectFunctionCall1(row_to_json, record));

	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json));
}

static CrmPlan insert_log = {
	"INSERT INTO crm.definition_log (table_name, name, change, before, after, changed_by)"
	" VALUES ($1, $2, $3, $4, $5, $6)",
	6,
	{ TEXTOID, TEXTOID, TEXTOID, JSONBOID, JSONBOID, TEXTOID }
};

/* Definitions of which nothing is derived are logged, and nothing else. */
static void
require_other(TriggerData *trigger)
{
	static const char *const others[] = { "qr_code",  "coupon",        "scan_limit",  "segment",
										  "template", "frequency_cap", "quiet_hours", "journey",
										  "campaign", "attribution",   "persona",     "touchpoint",
										  "map" };

	for (int i = 0; i < lengthof(others); i++)
		if (is_table(trigger, others[i]))
			return;
	crm_require_table(trigger->tg_relation, "loyalty_program");
}

Datum
crm_log_definition(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = crm_row_trigger(fcinfo, "log_definition", false);
	bool insert = TRIGGER_FIRED_BY_INSERT(trigger->tg_event);
	bool delete = TRIGGER_FIRED_BY_DELETE(trigger->tg_event);
	CrmRow old = { RelationGetDescr(trigger->tg_relation), trigger->tg_trigtuple };
	CrmRow new = { RelationGetDescr(trigger->tg_relation),
				   insert ? trigger->tg_trigtuple : trigger->tg_newtuple };
	static const char *const names[] = { "name", "stage", "scene", "tier", "journey", "map" };
	static const char *const no_effect[] = { "label", "version" };
	char *name = NULL;
	CrmActing acting;
	Datum values[6];
	char nulls[7] = "      ";

	if (!insert && !delete &&!crm_rows_differ(&old, &new, NULL, 0))
		return PointerGetDatum(NULL);
	if (is_table(trigger, "achievement") || is_table(trigger, "stage") ||
		is_table(trigger, "stage_rule"))
	{
		if (insert || delete || crm_rows_differ(&old, &new, no_effect, lengthof(no_effect)))
			derivation_changed = true;
	}
	else if (is_table(trigger, "earning_rule") || is_table(trigger, "tier"))
	{
		if (insert || delete || crm_rows_differ(&old, &new, no_effect, lengthof(no_effect)))
			loyalty_changed = true;
	}
	else
		require_other(trigger);

	for (int i = 0; i < lengthof(names) && name == NULL; i++)
		name = crm_row_text(delete ? &old : &new, names[i]);
	crm_connect(&acting);
	values[0] = CStringGetTextDatum(RelationGetRelationName(trigger->tg_relation));
	values[1] = CStringGetTextDatum(name == NULL ? "" : name);
	values[2] = CStringGetTextDatum(insert ? "insert" : delete ? "delete" : "update");
	values[3] = insert ? (Datum) 0 : row_as_jsonb(&old);
	values[4] = delete ? (Datum) 0 : row_as_jsonb(&new);
	values[5] = CStringGetTextDatum(GetUserNameFromId(crm_caller(), false));
	nulls[3] = insert ? 'n' : ' ';
	nulls[4] = delete ? 'n' : ' ';
	crm_run(&insert_log, values, nulls);
	crm_disconnect(&acting);
	return PointerGetDatum(NULL);
}

static CrmPlan next_contacts = {
	"SELECT contact_id FROM crm.profile_counter WHERE contact_id > $1 ORDER BY contact_id LIMIT $2",
	2,
	{ INT8OID, INT4OID }
};

void
crm_for_all_contacts(CrmPlan *next, void (*work)(const int64 *contacts, int ncontacts))
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "pg_crm definitions changed",
												  ALLOCSET_DEFAULT_SIZES);
	int64 last = PG_INT64_MIN;
	int n;

	do
	{
		CrmActing acting;
		MemoryContext old;
		int64 *contacts;
		Datum values[2] = { Int64GetDatum(last), Int32GetDatum(RECOMPUTE_CHUNK) };

		crm_connect(&acting);
		n = crm_run(next, values, NULL);
		if (n > 0 && IsolationUsesXactSnapshot())
			ereport(
				ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("definitions cannot be changed in a transaction with a fixed snapshot"),
				 errhint(
					 "Use the isolation level READ COMMITTED, so that all facts recorded by now are seen.")));
		old = MemoryContextSwitchTo(context);
		contacts = palloc_array(int64, Max(n, 1));
		for (int row = 0; row < n; row++)
			contacts[row] = crm_result_int64(row, 1);
		if (n > 0)
		{
			last = contacts[n - 1];
			work(contacts, n);
		}
		MemoryContextSwitchTo(old);
		crm_disconnect(&acting);
		MemoryContextReset(context);
	} while (n == RECOMPUTE_CHUNK);
	MemoryContextDelete(context);
}

/* Walks histories by the definitions as they are now. */
static void
walk_anew(const int64 *contacts, int ncontacts)
{
	CrmSegmentNews news = { .ncontacts = ncontacts,
							.contacts = contacts,
							.cause = "definition",
							.at = crm_now(),
							.topics = CRM_READS_STAGE | CRM_READS_AWARDS | CRM_READS_DEFINITIONS };

	crm_profile_recompute(contacts, ncontacts, crm_now());
	crm_segments_settle(&news);
	crm_journeys_settle(contacts, ncontacts);
}

/*
 * The lock waits for every transaction that has read or written profiles by
 * the old definitions, and keeps others away until the new ones are committed.
 * It must be EXCLUSIVE: the rows are locked (ROW SHARE) before they are written.
 */
Datum
crm_definitions_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	bool loyalty;
	CrmActing acting;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) ||
		!TRIGGER_FIRED_AFTER(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("crm.definitions_changed() must be called after a statement"),
				 errhint("The triggers of pg_crm are made by crm.install().")));
	loyalty = is_table(trigger, "earning_rule") || is_table(trigger, "tier");
	if (!loyalty && !is_table(trigger, "achievement") && !is_table(trigger, "stage"))
		crm_require_table(trigger->tg_relation, "stage_rule");
	if (!(loyalty ? loyalty_changed : derivation_changed) &&
		!TRIGGER_FIRED_BY_TRUNCATE(trigger->tg_event))
		return PointerGetDatum(NULL);

	crm_act_as_owner(&acting);
	LockRelationOid(crm_table_oid("profile_counter"), ExclusiveLock);
	CacheInvalidateRelcacheByRelid(RelationGetRelid(trigger->tg_relation));
	/* from here on this session sees the new definitions */
	CommandCounterIncrement();
	if (loyalty)
	{
		crm_loyalty_recompute_all();
		loyalty_changed = false;
	}
	else
	{
		crm_for_all_contacts(&next_contacts, walk_anew);
		derivation_changed = false;
	}
	crm_act_end(&acting);
	return PointerGetDatum(NULL);
}
