/*
 * migrate.c
 *		Moving those who are in one version of a journey to another: each stays at
 *		his step, whose name and kind are the same there. Whose step is gone is
 *		stranded.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/table.h"
#include "journey/engine.h"
#include "journey/reading.h"

PG_FUNCTION_INFO_V1(crm_sql_migrate_journey);

/* contacts who are moved together */
#define CHUNK 5000

static CrmPlan count_steps = {
	"SELECT e.step, count(DISTINCT e.contact_id) FROM crm.enrolment e WHERE e.journey = $1"
	" AND e.version = $2 AND e.state = 'active' GROUP BY e.step ORDER BY e.step COLLATE \"C\"",
	2,
	{ TEXTOID, INT4OID }
};
static CrmPlan find_active = {
	"SELECT DISTINCT e.contact_id FROM crm.enrolment e WHERE e.journey = $1 AND e.version = $2"
	" AND e.state = 'active' AND e.contact_id > $3 ORDER BY e.contact_id LIMIT $4",
	4,
	{ TEXTOID, INT4OID, INT8OID, INT4OID }
};

typedef struct Migration
{
	CrmJourney *from;
	CrmJourney *to;
	int64 *contacts;
	int ncontacts;
} Migration;

/* The step of the same name, if it is of the same kind; where that is of none known here it is gone. */
static int
step_in(const CrmJourney *journey, const CrmStep *step)
{
	int found = crm_step_find(journey, step->name);

	if (found == CRM_NO_STEP || step->kind == NULL || journey->steps[found].kind != step->kind)
		return CRM_NO_STEP;
	return found;
}

static void
answer(ReturnSetInfo *result, const Migration *migration)
{
	Datum arguments[2] = { CStringGetTextDatum(migration->from->name),
						   Int32GetDatum(migration->from->version) };
	uint64 n = crm_read(&count_steps, arguments, NULL);

	for (uint64 row = 0; row < n; row++)
	{
		Datum values[4];
		bool nulls[4] = { false };
		char *name = crm_result_text(row, 1);
		int step = name == NULL ? CRM_NO_STEP : crm_step_find(migration->from, name);
		bool stranded = step == CRM_NO_STEP ||
			step_in(migration->to, &migration->from->steps[step]) == CRM_NO_STEP;

		values[0] = crm_result(row, 1, &nulls[0]);
		values[1] = values[0];
		nulls[1] = stranded;
		values[2] = crm_result(row, 2, &nulls[2]);
		values[3] = BoolGetDatum(stranded);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

/* The open visit goes on, as does the clock: what somebody waits for ends when it would have. */
static void
move(CrmEngine *engine, CrmRun *run, CrmJourney *to)
{
	int step = run->step == CRM_NO_STEP ? CRM_NO_STEP
										: step_in(to, &run->journey->steps[run->step]);

	run->changed = true;
	if (step == CRM_NO_STEP)
	{
		crm_run_end(run, CRM_RUN_EXITED, "stranded", engine->now);
		return;
	}
	run->journey = to;
	run->step = step;
	run->open->step = &to->steps[step];
}

static void
migrate(void *arg)
{
	Migration *migration = arg;
	CrmEngine *engine = crm_engine_create();
	bool again = false;
	int n = 0;

	crm_engine_load_all(engine, migration->contacts, migration->ncontacts);
	for (int i = 0; i < engine->nruns; i++)
	{
		CrmRun *run = engine->runs[i];

		if (run->journey->version != migration->from->version ||
			strcmp(run->journey->name, migration->from->name) != 0)
			continue;
		move(engine, run, migration->to);
		engine->runs[n++] = run;
	}
	/* of others nothing changes */
	engine->nruns = n;
	if (migration->to->state != CRM_JOURNEY_FROZEN)
		again = crm_engine_look_again(engine, false);
	crm_engine_run(engine);
	if (again)
		crm_look_again(migration->contacts, migration->ncontacts, false);
}

static void
migrate_all(Migration *migration)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm journey migrated",
												  ALLOCSET_DEFAULT_SIZES);
	int64 last = PG_INT64_MIN;

	do
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		Datum values[4] = { CStringGetTextDatum(migration->from->name),
							Int32GetDatum(migration->from->version), Int64GetDatum(last),
							Int32GetDatum(CHUNK) };

		CHECK_FOR_INTERRUPTS();
		/* an older snapshot may not show all who are in it */
		PushActiveSnapshot(GetLatestSnapshot());
		migration->ncontacts = crm_read(&find_active, values, NULL);
		PopActiveSnapshot();
		migration->contacts = palloc_array(int64, Max(migration->ncontacts, 1));
		for (int i = 0; i < migration->ncontacts; i++)
			last = migration->contacts[i] = crm_result_int64(i, 1);
		SPI_freetuptable(SPI_tuptable);
		if (migration->ncontacts > 0)
			crm_journeys_work(migrate, migration);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	} while (migration->ncontacts == CHUNK);
	MemoryContextDelete(context);
}

static CrmJourney *
require_version(const char *name, int version)
{
	CrmJourney *journey = version < 1 ? NULL : crm_journey_find(name, version);

	if (journey == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("journey \"%s\" has no version %d", crm_shown(name), version),
				 errhint("Versions are counted from 1; they stand in crm.journey_version.")));
	return journey;
}

static void
require_arguments(FunctionCallInfo fcinfo)
{
	static const char *const names[] = { "journey", "from_version", "to_version", "dry_run" };

	for (int i = 0; i < lengthof(names); i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument %s of crm.migrate_journey() must not be NULL", names[i]),
					 errhint("Name a journey and two of its versions.")));
}

/*
 * The lock waits for everybody who moves contacts, and keeps others away until
 * the new versions are committed. What is said of a dry run is said of the move
 * too, before it is made.
 */
Datum
crm_sql_migrate_journey(PG_FUNCTION_ARGS)
{
	Migration migration = { 0 };
	CrmActing acting;
	char *name;

	require_arguments(fcinfo);
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	if (PG_GETARG_INT32(1) == PG_GETARG_INT32(2))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("from_version and to_version are both %d", PG_GETARG_INT32(1)),
				 errhint("Name the version to leave and another one.")));
	InitMaterializedSRF(fcinfo, 0);
	crm_connect(&acting);
	(void) crm_journey_require(name);
	if (!PG_GETARG_BOOL(3))
		LockRelationOid(crm_table_oid("profile_counter"), ExclusiveLock);
	migration.from = require_version(name, PG_GETARG_INT32(1));
	migration.to = require_version(name, PG_GETARG_INT32(2));
	answer((ReturnSetInfo *) fcinfo->resultinfo, &migration);
	if (!PG_GETARG_BOOL(3))
	{
		migrate_all(&migration);
		/* which versions somebody is in has changed */
		CacheInvalidateRelcacheByRelid(crm_table_oid("journey"));
	}
	crm_disconnect(&acting);
	return (Datum) 0;
}
