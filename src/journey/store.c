/*
 * store.c
 *		Runs read from crm.enrolment, and written back with the steps they entered.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
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
/* the keys, what changes on the way, and what does not */
#define CHANGING_COLUMNS                                                                     \
	"due_at, step_at, step_due_at, visit_recorded_at, ended_at, message_id, version, visit," \
	" failures, step, state, end_reason, stuck, reply, context"
#define LASTING_COLUMNS \
	"source_id, parent_id, source_at, entered_at, recorded_at, journey, key, entered_by, depth"
#define CHANGING_TYPES                                                                         \
	INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, \
		TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, INT8ARRAYOID, INT4ARRAYOID, INT4ARRAYOID,    \
		INT4ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID,    \
		JSONBARRAYOID
enum
{
	W_CONTACT_ID,
	W_ENROLMENT_ID,
	W_DUE_AT,
	W_STEP_AT,
	W_STEP_DUE_AT,
	W_VISIT_RECORDED_AT,
	W_ENDED_AT,
	W_MESSAGE_ID,
	W_VERSION,
	W_VISIT,
	W_FAILURES,
	W_STEP,
	W_STATE,
	W_END_REASON,
	W_STUCK,
	W_REPLY,
	W_CONTEXT,
	W_CHANGING,
	W_SOURCE_ID = W_CHANGING,
	W_PARENT_ID,
	W_SOURCE_AT,
	W_ENTERED_AT,
	W_RECORDED_AT,
	W_JOURNEY,
	W_KEY,
	W_ENTERED_BY,
	W_DEPTH,
	W_COLUMNS
};

static CrmPlan update_enrolments = {
	"UPDATE crm.enrolment e SET (" CHANGING_COLUMNS ") = ROW(n.due_at, n.step_at, n.step_due_at,"
	" n.visit_recorded_at, n.ended_at, n.message_id, n.version, n.visit, n.failures, n.step,"
	" n.state, n.end_reason, n.stuck, n.reply, n.context)"
	" FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)"
	"  AS n(contact_id, enrolment_id, " CHANGING_COLUMNS ")"
	" WHERE e.contact_id = n.contact_id AND e.enrolment_id = n.enrolment_id",
	W_CHANGING,
	{ CHANGING_TYPES },
	.by_index = true
};
static CrmPlan insert_enrolments = {
	"INSERT INTO crm.enrolment (contact_id, enrolment_id, " CHANGING_COLUMNS ", " LASTING_COLUMNS
	") SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,"
	" $17, $18, $19, $20, $21, $22, $23, $24, $25, $26)",
	W_COLUMNS,
	{ CHANGING_TYPES, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID,
	  TIMESTAMPTZARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, INT4ARRAYOID }
};
static CrmPlan insert_visits = {
	"INSERT INTO crm.step_visit (contact_id, enrolment_id, visit, recorded_at, left_at, outcome,"
	"  next_step, message_id, entered_at, version, journey, step, arm)"
	" SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
	13,
	{ INT8ARRAYOID, INT8ARRAYOID, INT4ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID,
	  TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID, INT4ARRAYOID, TEXTARRAYOID,
	  TEXTARRAYOID, TEXTARRAYOID }
};
/* the partition is found by the time of recording */
static CrmPlan close_visits = {
	"UPDATE crm.step_visit v SET left_at = n.left_at, outcome = n.outcome,"
	" next_step = n.next_step,"
	" message_id = coalesce(n.message_id, v.message_id)" /* that of a question is not awaited */
	" FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) AS n(contact_id, enrolment_id, visit,"
	"  recorded_at, left_at, outcome, next_step, message_id)"
	" WHERE v.contact_id = n.contact_id AND v.enrolment_id = n.enrolment_id"
	" AND v.visit = n.visit AND v.recorded_at = n.recorded_at",
	8,
	{ INT8ARRAYOID, INT8ARRAYOID, INT4ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID,
	  TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID },
	.by_index = true
};
enum
{
	V_CONTACT_ID,
	V_ENROLMENT_ID,
	V_VISIT,
	V_RECORDED_AT,
	V_LEFT_AT,
	V_OUTCOME,
	V_NEXT_STEP,
	V_MESSAGE_ID,
	V_CLOSING,
	V_ENTERED_AT = V_CLOSING,
	V_VERSION,
	V_JOURNEY,
	V_STEP,
	V_ARM,
	V_COLUMNS
};

/* ---- reading */

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

/* ---- writing */

/* Texts of a column: rows that follow each other mostly have the same one. */
typedef struct Texts
{
	const char *last;
	Datum datum;
} Texts;

static void
add_text(CrmColumn *column, Texts *texts, const char *text)
{
	if (text != NULL && text != texts->last)
	{
		texts->last = text;
		texts->datum = CStringGetTextDatum(text);
	}
	crm_column_add(column, text == NULL ? (Datum) 0 : texts->datum, text == NULL);
}

static void
add_time(CrmColumn *column, TimestampTz at)
{
	crm_column_add(column, TimestampTzGetDatum(at), at == DT_NOBEGIN || at == DT_NOEND);
}

static void
add_id(CrmColumn *column, int64 id)
{
	crm_column_add(column, Int64GetDatum(id), id == 0);
}

static void
add_int(CrmColumn *column, int value)
{
	crm_column_add(column, Int32GetDatum(value), false);
}

static Oid
element_type(Oid array)
{
	return array == INT8ARRAYOID       ? INT8OID
		: array == INT4ARRAYOID        ? INT4OID
		: array == TIMESTAMPTZARRAYOID ? TIMESTAMPTZOID
		: array == JSONBARRAYOID       ? JSONBOID
									   : TEXTOID;
}

static void
init_columns(CrmColumn *columns, const CrmPlan *plan)
{
	for (int i = 0; i < plan->nargs; i++)
		crm_column_init(&columns[i], element_type(plan->argtypes[i]));
}

static void
run_columns(CrmPlan *plan, CrmColumn *columns)
{
	Datum values[CRM_MAX_PLAN_ARGS];

	if (columns[0].n == 0)
		return;
	for (int i = 0; i < plan->nargs; i++)
		values[i] = crm_column_array(&columns[i]);
	crm_run(plan, values, NULL);
}

static const char *const state_names[] = {
	[CRM_RUN_ACTIVE] = "active",
	[CRM_RUN_FINISHED] = "finished",
	[CRM_RUN_EXITED] = "exited",
};

static void
add_changing(CrmColumn *columns, Texts *texts, const CrmRun *run)
{
	add_id(&columns[W_CONTACT_ID], run->contact_id);
	add_id(&columns[W_ENROLMENT_ID], run->enrolment_id);
	add_time(&columns[W_DUE_AT], run->due_at);
	add_time(&columns[W_STEP_AT], run->step_at);
	add_time(&columns[W_STEP_DUE_AT], run->step_due_at);
	add_time(&columns[W_VISIT_RECORDED_AT], run->visit_recorded_at);
	add_time(&columns[W_ENDED_AT], run->ended_at);
	add_id(&columns[W_MESSAGE_ID], run->message_id);
	add_int(&columns[W_VERSION], run->journey->version);
	add_int(&columns[W_VISIT], run->visit);
	add_int(&columns[W_FAILURES], run->failures);
	add_text(&columns[W_STEP], &texts[W_STEP],
			 run->step == CRM_NO_STEP ? NULL : run->journey->steps[run->step].name);
	add_text(&columns[W_STATE], &texts[W_STATE], state_names[run->state]);
	add_text(&columns[W_END_REASON], &texts[W_END_REASON], run->end_reason);
	add_text(&columns[W_STUCK], &texts[W_STUCK], run->stuck);
	add_text(&columns[W_REPLY], &texts[W_REPLY], run->reply);
	crm_column_add(&columns[W_CONTEXT], JsonbPGetDatum(run->context), false);
}

static void
add_lasting(CrmColumn *columns, Texts *texts, const CrmRun *run)
{
	add_id(&columns[W_SOURCE_ID], run->source_id);
	add_id(&columns[W_PARENT_ID], run->parent_id);
	add_time(&columns[W_SOURCE_AT], run->source_at);
	add_time(&columns[W_ENTERED_AT], run->entered_at);
	add_time(&columns[W_RECORDED_AT], run->recorded_at);
	add_text(&columns[W_JOURNEY], &texts[W_JOURNEY], run->journey->name);
	add_text(&columns[W_KEY], &texts[W_KEY], run->key);
	add_text(&columns[W_ENTERED_BY], &texts[W_ENTERED_BY], run->entered_by);
	add_int(&columns[W_DEPTH], run->depth);
}

static void
add_closing(CrmColumn *columns, Texts *texts, const CrmVisit *visit, TimestampTz recorded_at)
{
	add_id(&columns[V_CONTACT_ID], visit->run->contact_id);
	add_id(&columns[V_ENROLMENT_ID], visit->run->enrolment_id);
	add_int(&columns[V_VISIT], visit->visit);
	add_time(&columns[V_RECORDED_AT], recorded_at);
	add_time(&columns[V_LEFT_AT], visit->left_at);
	add_text(&columns[V_OUTCOME], &texts[V_OUTCOME], visit->outcome);
	add_text(&columns[V_NEXT_STEP], &texts[V_NEXT_STEP], visit->next_step);
	add_id(&columns[V_MESSAGE_ID], visit->message_id);
}

static void
write_enrolments(CrmEngine *engine)
{
	CrmColumn changed[W_CHANGING];
	CrmColumn begun[W_COLUMNS];
	Texts texts[W_COLUMNS] = { 0 };

	init_columns(changed, &update_enrolments);
	init_columns(begun, &insert_enrolments);
	for (int i = 0; i < engine->nruns; i++)
	{
		CrmRun *run = engine->runs[i];

		if (!run->changed)
			continue;
		add_changing(run->begun ? begun : changed, texts, run);
		if (run->begun)
			add_lasting(begun, texts, run);
		run->begun = run->changed = false;
	}
	/* who leaves first: of one journey and key there is one at a time */
	run_columns(&update_enrolments, changed);
	run_columns(&insert_enrolments, begun);
}

static void
write_visits(CrmEngine *engine, CrmColumn *closed)
{
	CrmColumn columns[V_COLUMNS];
	Texts texts[V_COLUMNS] = { 0 };

	init_columns(columns, &insert_visits);
	for (int64 i = 0; i < engine->nvisits; i++)
	{
		const CrmVisit *visit = engine->visits[i];

		add_closing(columns, texts, visit, engine->now);
		add_time(&columns[V_ENTERED_AT], visit->entered_at);
		add_int(&columns[V_VERSION], visit->run->journey->version);
		add_text(&columns[V_JOURNEY], &texts[V_JOURNEY], visit->run->journey->name);
		add_text(&columns[V_STEP], &texts[V_STEP], visit->step->name);
		add_text(&columns[V_ARM], &texts[V_ARM], visit->arm);
	}
	run_columns(&insert_visits, columns);
	run_columns(&close_visits, closed);
	engine->nvisits = 0;
}

void
crm_engine_write(CrmEngine *engine)
{
	CrmColumn closed[V_CLOSING];
	Texts texts[V_CLOSING] = { 0 };

	init_columns(closed, &close_visits);
	for (int i = 0; i < engine->nruns; i++)
	{
		CrmRun *run = engine->runs[i];

		if (run->stored_visit != NULL && run->stored_visit->left_at != DT_NOBEGIN)
		{
			add_closing(closed, texts, run->stored_visit, run->visit_recorded_at);
			run->stored_visit = NULL;
		}
	}
	for (int64 i = 0; i < engine->nvisits; i++)
		engine->visits[i]->run->visit_recorded_at = engine->now;
	write_enrolments(engine);
	write_visits(engine, closed);
}
