/*
 * publish.c
 *		Publishing journeys, and what SQL asks of their definitions.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/table.h"
#include "base/wake.h"
#include "journey/engine.h"
#include "journey/reading.h"

PG_FUNCTION_INFO_V1(crm_sql_publish_journey);
PG_FUNCTION_INFO_V1(crm_sql_export_journey);
PG_FUNCTION_INFO_V1(crm_sql_journey_step_kinds);
PG_FUNCTION_INFO_V1(crm_journeys_changed);

static CrmPlan find_equal = {
	"SELECT j.version FROM crm.journey j JOIN crm.journey_version v"
	" ON v.journey = j.journey AND v.version = j.version WHERE j.journey = $1 AND v.definition = $2",
	2,
	{ TEXTOID, JSONBOID }
};
static CrmPlan insert_version = {
	"INSERT INTO crm.journey_version (journey, version, definition, published_at, published_by)"
	" SELECT $1, coalesce(max(v.version), 0) + 1, $2, $3, $4 FROM crm.journey_version v"
	/* a conflict is with what an older snapshot does not show, and says so */
	" WHERE v.journey = $1 ON CONFLICT DO NOTHING RETURNING version",
	4,
	{ TEXTOID, JSONBOID, TIMESTAMPTZOID, TEXTOID }
};
static CrmPlan save_journey = {
	"INSERT INTO crm.journey (journey, version, changed_at) VALUES ($1, $2, $3)"
	" ON CONFLICT (journey) DO UPDATE SET version = EXCLUDED.version, changed_at = EXCLUDED.changed_at",
	3,
	{ TEXTOID, INT4OID, TIMESTAMPTZOID }
};

static int
publish(Jsonb *document, const char *name)
{
	Datum values[4] = { CStringGetTextDatum(name), JsonbPGetDatum(document),
						TimestampTzGetDatum(crm_now()),
						CStringGetTextDatum(GetUserNameFromId(crm_caller(), false)) };
	bool isnull;
	int version;

	/* nobody is kept waiting for what changes nothing */
	if (crm_run(&find_equal, values, NULL) > 0)
		return DatumGetInt32(crm_result(0, 1, &isnull));
	/* versions are counted one after the other; before any row, as set_journey() takes it */
	LockRelationOid(crm_table_oid("profile_counter"), ExclusiveLock);
	if (crm_run(&find_equal, values, NULL) > 0)
		return DatumGetInt32(crm_result(0, 1, &isnull));
	crm_run(&insert_version, values, NULL);
	version = DatumGetInt32(crm_result(0, 1, &isnull));
	values[1] = Int32GetDatum(version);
	crm_run(&save_journey, values, NULL);
	crm_timed_entries_replan(name);
	return version;
}

Datum
crm_sql_publish_journey(PG_FUNCTION_ARGS)
{
	MemoryContext context;
	CrmJourney *journey;
	Jsonb *document;
	CrmActing acting;
	int version;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument definition of crm.publish_journey() must not be NULL"),
				 errhint("Give a document as doc/journeys.md describes it.")));
	document = PG_GETARG_JSONB_P(0);
	crm_connect(&acting);
	context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm published journey",
									ALLOCSET_DEFAULT_SIZES);
	journey = crm_journey_read(document, context);
	version = publish(document, journey->name);
	crm_disconnect(&acting);
	PG_RETURN_INT32(version);
}

/*
 * Who moves people by the old definitions ends first, and who comes later sees
 * the new ones: the lock is that of other definitions, for the same reason.
 */
Datum
crm_journeys_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	CrmActing acting;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("crm.journeys_changed() must be called for a statement"),
				 errhint("The triggers of pg_crm are made by crm.install().")));
	crm_require_table(trigger->tg_relation, "journey");
	/* before any row is locked, as publish_journey() takes it first too */
	LockRelationOid(crm_table_oid("profile_counter"), ExclusiveLock);
	if (TRIGGER_FIRED_BEFORE(trigger->tg_event))
		return PointerGetDatum(NULL);
	CacheInvalidateRelcacheByRelid(RelationGetRelid(trigger->tg_relation));
	crm_connect(&acting);
	crm_timed_entries_forget();
	crm_disconnect(&acting);
	crm_wake_clock_at_commit();
	return PointerGetDatum(NULL);
}

static CrmPlan find_version = {
	"SELECT v.definition FROM crm.journey j JOIN crm.journey_version v ON v.journey = j.journey"
	" AND v.version = coalesce($2, j.version) WHERE j.journey = $1",
	2,
	{ TEXTOID, INT4OID }
};
static CrmPlan find_journey = { "SELECT FROM crm.journey j WHERE j.journey = $1", 1, { TEXTOID } };

Datum
crm_sql_export_journey(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	char nulls[] = { ' ', PG_ARGISNULL(1) ? 'n' : ' ' };
	Datum values[2];
	Datum document;
	CrmActing acting;
	MemoryContext old;
	bool isnull;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument journey of crm.export_journey() must not be NULL"),
				 errhint("Name a journey of crm.journey.")));
	values[0] = PG_GETARG_DATUM(0);
	values[1] = PG_ARGISNULL(1) ? (Datum) 0 : PG_GETARG_DATUM(1);
	crm_connect(&acting);
	if (crm_read(&find_version, values, nulls) == 0)
	{
		char *name = crm_shown(text_to_cstring(PG_GETARG_TEXT_PP(0)));

		if (PG_ARGISNULL(1) || crm_read(&find_journey, values, NULL) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
					 errmsg("journey \"%s\" does not exist", name),
					 errhint("Name a journey of crm.journey.")));
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("journey \"%s\" has no version %d", name, PG_GETARG_INT32(1)),
				 errhint("Versions are counted from 1; NULL is the current one.")));
	}
	document = crm_result(0, 1, &isnull);
	old = MemoryContextSwitchTo(caller);
	document = JsonbPGetDatum(DatumGetJsonbPCopy(document));
	MemoryContextSwitchTo(old);
	crm_disconnect(&acting);
	PG_RETURN_DATUM(document);
}

static void
put_key(ReturnSetInfo *result, const char *kind, const char *key, const char *type, bool required,
		const char *description)
{
	Datum values[5] = { CStringGetTextDatum(kind), CStringGetTextDatum(key),
						CStringGetTextDatum(type), BoolGetDatum(required),
						CStringGetTextDatum(description) };
	bool nulls[5] = { false };

	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

static void
put_fields(ReturnSetInfo *result, const CrmStepKind *kind, const CrmStepField *fields, int nfields)
{
	for (int i = 0; i < nfields; i++)
	{
		const CrmStepField *field = &fields[i];
		int nkeys;
		const CrmTriggerKey *keys = crm_trigger_keys(&nkeys);

		put_key(result, kind->name, field->key, crm_field_type_name(field->type), field->required,
				strcmp(field->key, "kind") == 0 ? kind->description : field->description);
		for (int k = 0; k < nkeys && field->type == CRM_FIELD_TRIGGER; k++)
			put_key(result, kind->name, keys[k].key, keys[k].type, false, keys[k].description);
	}
}

Datum
crm_sql_journey_step_kinds(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < crm_nstep_kinds; i++)
	{
		const CrmStepKind *kind = &crm_step_kinds[i];

		put_fields(result, kind, crm_step_common_fields, crm_nstep_common_fields);
		put_fields(result, kind, kind->fields, kind->nfields);
	}
	return (Datum) 0;
}
