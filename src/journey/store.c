/*
 * store.c
 *		Runs read from crm.enrolment.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "journey/engine.h"

#define RUN_COLUMNS                                                                              \
	"e.contact_id, e.enrolment_id, e.source_id, e.parent_id, e.source_at, e.entered_at,"         \
	" e.recorded_at, e.due_at, e.step_at, e.step_due_at, e.visit_recorded_at, e.message_id,"     \
	" e.version, e.visit, e.depth, e.failures, e.journey, e.key, e.step, e.entered_by, e.stuck," \
	" e.reply, e.context"
enum
{
	R_CONTACT_ID = 1,
	R_ENROLMENT_ID,
	R_SOURCE_ID,
	R_PARENT_ID,
	R_SOURCE_AT,
	R_ENTERED_AT,
	R_RECORDED_AT,
	R_DUE_AT,
	R_STEP_AT,
	R_STEP_DUE_AT,
	R_VISIT_RECORDED_AT,
	R_MESSAGE_ID,
	R_VERSION,
	R_VISIT,
	R_DEPTH,
	R_FAILURES,
	R_JOURNEY,
	R_KEY,
	R_STEP,
	R_ENTERED_BY,
	R_STUCK,
	R_REPLY,
	R_CONTEXT,
	R_MESSAGE_ENDED_AT,
	R_MESSAGE_STATE
};

static CrmPlan find_replied = {
	"SELECT " RUN_COLUMNS ", NULL::timestamptz, NULL::text FROM crm.enrolment e"
	" WHERE e.contact_id = ANY ($1) AND e.state = 'active' AND e.reply IS NOT NULL"
	" ORDER BY e.contact_id, e.enrolment_id",
	1,
	{ INT8ARRAYOID },
	.by_index = true
};
static CrmPlan find_active = { "SELECT " RUN_COLUMNS
							   ", NULL::timestamptz, NULL::text FROM crm.enrolment e"
							   " WHERE e.contact_id = ANY ($1) AND e.state = 'active'"
							   " ORDER BY e.contact_id, e.enrolment_id",
							   1,
							   { INT8ARRAYOID },
							   .by_index = true };
/* of each contact the first; an enrolment is due by its time, or by the end of its message */
static CrmPlan find_due = {
	"SELECT DISTINCT ON (e.contact_id) " RUN_COLUMNS ", m.due_at, s.state FROM crm.enrolment e"
	" JOIN unnest($3) AS j(journey) ON j.journey = e.journey"
	" LEFT JOIN crm.message_end m ON m.contact_id = e.contact_id AND m.message_id = e.message_id"
	"  AND m.due_at <= $2"
	" LEFT JOIN crm.message s ON s.contact_id = m.contact_id AND s.message_id = m.message_id"
	" WHERE e.contact_id = ANY ($1) AND e.state = 'active'"
	" AND (e.due_at <= $2 OR m.due_at IS NOT NULL) AND e.reply IS NULL"
	" ORDER BY e.contact_id, least(e.due_at, m.due_at), e.enrolment_id",
	3,
	{ INT8ARRAYOID, TIMESTAMPTZOID, TEXTARRAYOID },
	.by_index = true
};
static CrmPlan forget_message_ends = {
	"DELETE FROM crm.message_end d USING unnest($1, $2) AS n(contact_id, message_id)"
	" WHERE d.contact_id = n.contact_id AND d.message_id = n.message_id",
	2,
	{ INT8ARRAYOID, INT8ARRAYOID },
	.by_index = true
};

/* The open visit of the step at which the run is, as it stands in the table. */
static void
open_stored_visit(CrmRun *run)
{
	CrmVisit *visit;

	if (run->step == CRM_NO_STEP)
		return;
	visit = palloc0_object(CrmVisit);
	visit->run = run;
	visit->visit = run->visit;
	visit->step = &run->journey->steps[run->step];
	visit->entered_at = run->step_at;
	visit->left_at = DT_NOBEGIN;
	visit->message_id = run->message_id;
	run->open = run->stored_visit = visit;
}

static void
read_run(CrmEngine *engine, SPITupleTable *table, uint64 row, bool frozen_too)
{
	MemoryContext old;
	CrmJourney *journey;
	CrmRun *run;
	Datum context;
	char *step;
	char *name;
	int version;
	bool isnull;

	SPI_tuptable = table;
	name = crm_result_text(row, R_JOURNEY);
	version = DatumGetInt32(crm_result(row, R_VERSION, &isnull));
	step = crm_result_text(row, R_STEP);
	/* which may read tables itself */
	journey = crm_journey_find(name, version);
	SPI_tuptable = table;
	/* of a frozen journey nobody moves */
	if (journey == NULL || (journey->state == CRM_JOURNEY_FROZEN && !frozen_too))
		return;
	run = crm_engine_add(engine);
	old = MemoryContextSwitchTo(engine->context);
	run->journey = journey;
	run->contact_id = crm_result_int64(row, R_CONTACT_ID);
	run->enrolment_id = crm_result_int64(row, R_ENROLMENT_ID);
	run->source_id = crm_result_int64(row, R_SOURCE_ID);
	run->parent_id = crm_result_int64(row, R_PARENT_ID);
	run->source_at = crm_result_time(row, R_SOURCE_AT, DT_NOBEGIN);
	run->entered_at = crm_result_time(row, R_ENTERED_AT, DT_NOBEGIN);
	run->recorded_at = crm_result_time(row, R_RECORDED_AT, DT_NOBEGIN);
	run->due_at = crm_result_time(row, R_DUE_AT, DT_NOBEGIN);
	run->step_at = crm_result_time(row, R_STEP_AT, DT_NOBEGIN);
	run->step_due_at = crm_result_time(row, R_STEP_DUE_AT, DT_NOBEGIN);
	run->visit_recorded_at = crm_result_time(row, R_VISIT_RECORDED_AT, DT_NOBEGIN);
	run->message_id = crm_result_int64(row, R_MESSAGE_ID);
	run->visit = DatumGetInt32(crm_result(row, R_VISIT, &isnull));
	run->depth = DatumGetInt32(crm_result(row, R_DEPTH, &isnull));
	run->failures = DatumGetInt32(crm_result(row, R_FAILURES, &isnull));
	run->key = crm_result_text(row, R_KEY);
	run->entered_by = crm_result_text(row, R_ENTERED_BY);
	run->stuck = crm_result_text(row, R_STUCK);
	run->reply = crm_result_text(row, R_REPLY);
	run->step = step == NULL ? CRM_NO_STEP : crm_step_find(journey, step);
	context = crm_result(row, R_CONTEXT, &isnull);
	run->context = DatumGetJsonbPCopy(context);
	run->message_ended_at = crm_result_time(row, R_MESSAGE_ENDED_AT, DT_NOBEGIN);
	run->message_state = crm_result_text(row, R_MESSAGE_STATE);
	run->at = run->step_at;
	open_stored_visit(run);
	crm_engine_index(engine, run);
	MemoryContextSwitchTo(old);
}

/* What tells versions of these contacts' enrolments apart, as a snapshot shows them. */
static const char *
versions_of(Datum contacts, Snapshot snapshot)
{
	static CrmPlan find_versions = {
		"SELECT string_agg(e.ctid::text, ' ' ORDER BY e.contact_id, e.enrolment_id)"
		" FROM crm.enrolment e WHERE e.contact_id = ANY ($1)",
		1,
		{ INT8ARRAYOID },
		.by_index = true
	};
	const char *versions;

	PushActiveSnapshot(snapshot);
	(void) crm_read(&find_versions, &contacts, NULL);
	PopActiveSnapshot();
	versions = crm_result_text(0, 1);
	return versions == NULL ? "" : versions;
}

/*
 * The lock on a contact says nothing of enrolments that somebody else has moved
 * since an older snapshot: by it people would enter twice, or stay behind.
 */
void
crm_enrolments_check_current(Datum contacts)
{
	if (!IsolationUsesXactSnapshot() || crm_only_reads)
		return;
	if (strcmp(versions_of(contacts, GetTransactionSnapshot()),
			   versions_of(contacts, GetLatestSnapshot())) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access to enrolments due to concurrent change"),
				 errhint("Repeat the transaction.")));
}

static void
load(CrmEngine *engine, CrmPlan *plan, const int64 *contacts, int ncontacts, bool frozen_too)
{
	Datum array = crm_int64_array(contacts, ncontacts);
	SPITupleTable *table;
	uint64 n;

	crm_enrolments_check_current(array);
	n = crm_run(plan, &array, NULL);
	table = SPI_tuptable;
	for (uint64 row = 0; row < n; row++)
		read_run(engine, table, row, frozen_too);
	SPI_freetuptable(table);
}

void
crm_engine_load(CrmEngine *engine, const int64 *contacts, int ncontacts)
{
	load(engine, &find_active, contacts, ncontacts, false);
}

void
crm_engine_load_replied(CrmEngine *engine, const int64 *contacts, int ncontacts)
{
	load(engine, &find_replied, contacts, ncontacts, false);
}

void
crm_engine_load_all(CrmEngine *engine, const int64 *contacts, int ncontacts)
{
	load(engine, &find_active, contacts, ncontacts, true);
}

/* Ends of messages that were looked at are not looked at again. */
static void
take_message_ends(CrmEngine *engine, int first)
{
	CrmColumn columns[2];
	Datum values[2];

	crm_column_init(&columns[0], INT8OID);
	crm_column_init(&columns[1], INT8OID);
	for (int i = first; i < engine->nruns; i++)
		if (engine->runs[i]->message_ended_at != DT_NOBEGIN)
		{
			crm_column_add(&columns[0], Int64GetDatum(engine->runs[i]->contact_id), false);
			crm_column_add(&columns[1], Int64GetDatum(engine->runs[i]->message_id), false);
		}
	if (columns[0].n == 0)
		return;
	values[0] = crm_column_array(&columns[0]);
	values[1] = crm_column_array(&columns[1]);
	crm_run(&forget_message_ends, values, NULL);
}

void
crm_engine_load_due(CrmEngine *engine, const int64 *contacts, int ncontacts, TimestampTz as_of)
{
	Datum values[3] = { crm_int64_array(contacts, ncontacts), TimestampTzGetDatum(as_of),
						crm_moving_journeys() };
	int first = engine->nruns;
	SPITupleTable *table;
	uint64 n;

	crm_enrolments_check_current(values[0]);
	n = crm_run(&find_due, values, NULL);
	table = SPI_tuptable;
	for (uint64 row = 0; row < n; row++)
		read_run(engine, table, row, false);
	SPI_freetuptable(table);
	take_message_ends(engine, first);
}
