/*
 * write.c
 *		Runs written back to crm.enrolment, with the steps they entered: without the
 *		executor where that is safe, else by a statement. Both get the same values.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/guc.h"
#include "base/table.h"
#include "journey/engine.h"

/* the keys, what changes on the way, and what does not */
static const char *const enrolment_columns[] = {
	"contact_id", "enrolment_id", "due_at",     "step_at",     "step_due_at", "visit_recorded_at",
	"ended_at",   "message_id",   "version",    "visit",       "failures",    "step",
	"state",      "end_reason",   "stuck",      "reply",       "context",     "source_id",
	"parent_id",  "source_at",    "entered_at", "recorded_at", "journey",     "key",
	"entered_by", "depth",
};
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
StaticAssertDecl(lengthof(enrolment_columns) == W_COLUMNS, "a name for each column");
static const char *const changing_columns[] = {
	"contact_id", "enrolment_id", "due_at",  "step_at", "step_due_at", "visit_recorded_at",
	"ended_at",   "message_id",   "version", "visit",   "failures",    "step",
	"state",      "end_reason",   "stuck",   "reply",   "context",
};
StaticAssertDecl(lengthof(changing_columns) == W_CHANGING, "a name for each column");

#define CHANGING_COLUMNS                                                                     \
	"due_at, step_at, step_due_at, visit_recorded_at, ended_at, message_id, version, visit," \
	" failures, step, state, end_reason, stuck, reply, context"
#define CHANGING_TYPES                                                                         \
	INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, \
		TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, INT8ARRAYOID, INT4ARRAYOID, INT4ARRAYOID,    \
		INT4ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID,    \
		JSONBARRAYOID

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
	"INSERT INTO crm.enrolment (contact_id, enrolment_id, " CHANGING_COLUMNS ", source_id,"
	"  parent_id, source_at, entered_at, recorded_at, journey, key, entered_by, depth)"
	" SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,"
	" $17, $18, $19, $20, $21, $22, $23, $24, $25, $26)",
	W_COLUMNS,
	{ CHANGING_TYPES, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID,
	  TIMESTAMPTZARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, INT4ARRAYOID }
};

static const char *const visit_columns[] = {
	"contact_id", "enrolment_id", "visit",   "recorded_at", "left_at", "outcome", "next_step",
	"message_id", "entered_at",   "version", "journey",     "step",    "arm",
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
StaticAssertDecl(lengthof(visit_columns) == V_COLUMNS, "a name for each column");
static const char *const closing_columns[] = {
	"contact_id", "enrolment_id", "visit",     "recorded_at",
	"left_at",    "outcome",      "next_step", "message_id",
};
StaticAssertDecl(lengthof(closing_columns) == V_CLOSING, "a name for each column");

static CrmPlan insert_visits = {
	"INSERT INTO crm.step_visit (contact_id, enrolment_id, visit, recorded_at, left_at, outcome,"
	"  next_step, message_id, entered_at, version, journey, step, arm)"
	" SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
	V_COLUMNS,
	{ INT8ARRAYOID, INT8ARRAYOID, INT4ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID,
	  TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID, INT4ARRAYOID, TEXTARRAYOID,
	  TEXTARRAYOID, TEXTARRAYOID }
};
/* the partition is found by the time of recording */
#define CLOSE_VISITS                                                                             \
	"UPDATE crm.step_visit v SET left_at = n.left_at, outcome = n.outcome,"                      \
	" next_step = n.next_step,"                                                                  \
	" message_id = coalesce(n.message_id, v.message_id)" /* that of a question is not awaited */ \
	" FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) AS n(contact_id, enrolment_id, visit,"         \
	"  recorded_at, left_at, outcome, next_step, message_id)"                                    \
	" WHERE v.contact_id = n.contact_id AND v.enrolment_id = n.enrolment_id"                     \
	" AND v.visit = n.visit AND v.recorded_at = n.recorded_at"
#define CLOSING_TYPES                                                                   \
	INT8ARRAYOID, INT8ARRAYOID, INT4ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, \
		TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID

static CrmPlan close_visits = { CLOSE_VISITS, V_CLOSING, { CLOSING_TYPES }, .by_index = true };
/* the same where steps are counted */
static CrmPlan close_and_tell = { CLOSE_VISITS
								  " RETURNING v.entered_at, v.version, v.journey, v.step,"
								  " v.outcome, v.arm, v.next_step",
								  V_CLOSING,
								  { CLOSING_TYPES },
								  .by_index = true };
/* what is counted of a row, as the statement returns it */
static const char *const counted_columns[] = { "entered_at", "version", "journey",  "step",
											   "outcome",    "arm",     "next_step" };
enum
{
	C_ENTERED_AT,
	C_VERSION,
	C_JOURNEY,
	C_STEP,
	C_OUTCOME,
	C_ARM,
	C_NEXT_STEP,
	C_COLUMNS
};
StaticAssertDecl(lengthof(counted_columns) == C_COLUMNS, "a name for each column");

/* Rows of one kind on their way into a table. */
typedef struct Writer
{
	const char *table;
	const char *const *names; /* of the columns */
	bool updates;             /* rows that are found by their keys; else they are new */
	int partitioned_by;       /* the place of the column, -1: it is not */
	CrmPlan *statement;       /* for those that are not written directly */
	List *targets;            /* CrmTarget *, of partitions those that were needed */

	/* of visits that are closed */
	CrmJourneyTally *tally;
	const CrmVisit *closing; /* that of the row at hand */

	/* the row at hand */
	Datum values[W_COLUMNS];
	bool nulls[W_COLUMNS];

	/* texts of each column: rows that follow each other mostly have the same one */
	const char *last_texts[W_COLUMNS];
	Datum last_datums[W_COLUMNS];

	CrmColumn columns[W_COLUMNS]; /* of the statement */
} Writer;

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
begin_writing(Writer *writer, const char *table, const char *const *names, bool updates,
			  int partitioned_by, CrmPlan *statement)
{
	memset(writer, 0, sizeof(*writer));
	writer->table = table;
	writer->names = names;
	writer->updates = updates;
	writer->partitioned_by = partitioned_by;
	writer->statement = statement;
	for (int i = 0; i < statement->nargs; i++)
		crm_column_init(&writer->columns[i], element_type(statement->argtypes[i]));
}

static void
put_time(Writer *writer, int column, TimestampTz time)
{
	writer->values[column] = TimestampTzGetDatum(time);
	writer->nulls[column] = time == DT_NOBEGIN;
}

static void
put_id(Writer *writer, int column, int64 id)
{
	writer->values[column] = Int64GetDatum(id);
	writer->nulls[column] = id == 0;
}

static void
put_int(Writer *writer, int column, int value)
{
	writer->values[column] = Int32GetDatum(value);
}

static void
put_text(Writer *writer, int column, const char *text)
{
	writer->nulls[column] = text == NULL;
	if (text == NULL)
		return;
	if (text != writer->last_texts[column])
	{
		writer->last_texts[column] = text;
		writer->last_datums[column] = CStringGetTextDatum(text);
	}
	writer->values[column] = writer->last_datums[column];
}

/* NULL where the row at hand asks for the statement. */
static CrmTarget *
target_of(Writer *writer)
{
	int ncolumns = writer->statement->nargs;
	CrmTarget *target;
	Datum key;

	if (!crm_guc_direct_access)
		return NULL;
	if (writer->partitioned_by < 0)
	{
		if (writer->targets != NIL)
			return linitial(writer->targets);
		target = crm_target_open(writer->table, writer->names, ncolumns, writer->updates);
	}
	else
	{
		ListCell *cell;

		key = writer->values[writer->partitioned_by];
		foreach(cell, writer->targets)
			if (crm_target_takes(lfirst(cell), key))
				return lfirst(cell);
		target = crm_target_open_partition(writer->table, writer->names, ncolumns, writer->updates,
										   writer->partitioned_by, key);
	}
	if (target == NULL)
		return NULL;
	target->strict = true;
	writer->targets = lappend(writer->targets, target);
	return target;
}

/* Rows mostly have the texts that are in memory, which then stand for theirs. */
static const char *
text_of(Datum value, bool isnull, const char *expected)
{
	text *found;

	if (isnull)
		return NULL;
	found = DatumGetTextPP(value);
	if (strlen(expected) == VARSIZE_ANY_EXHDR(found) &&
		memcmp(expected, VARDATA_ANY(found), VARSIZE_ANY_EXHDR(found)) == 0)
		return expected;
	return text_to_cstring(found);
}

static CrmCounted
counted_of(const Datum *values, const bool *nulls, const CrmVisit *expected)
{
	return (CrmCounted){
		.entered_at = DatumGetTimestampTz(values[C_ENTERED_AT]),
		.version = DatumGetInt32(values[C_VERSION]),
		.journey = text_of(values[C_JOURNEY], false, expected->run->journey->name),
		.step = text_of(values[C_STEP], false, expected->step->name),
		.outcome = text_of(values[C_OUTCOME], nulls[C_OUTCOME], ""),
		.arm = text_of(values[C_ARM], nulls[C_ARM], ""),
		.next_step = text_of(values[C_NEXT_STEP], nulls[C_NEXT_STEP], ""),
	};
}

/* A step may have been entered in another version than its run is in now. */
static void
count_found(Writer *writer, const CrmTarget *target)
{
	const AttrNumber *attributes;
	CrmCounted counted;
	Datum values[C_COLUMNS];
	bool nulls[C_COLUMNS];

	if (writer->tally == NULL || !writer->tally->kept)
		return;
	attributes = crm_known_attributes(target->rel, counted_columns, C_COLUMNS);
	for (int i = 0; i < C_COLUMNS; i++)
		values[i] = slot_getattr(target->found, attributes[i], &nulls[i]);
	counted = counted_of(values, nulls, writer->closing);
	crm_journey_tally_visit(writer->tally, &counted, -1);
	counted.outcome = writer->closing->outcome;
	counted.next_step = writer->closing->next_step;
	crm_journey_tally_visit(writer->tally, &counted, 1);
}

/* Whatever the statement closed was open. */
static void
count_returned(Writer *writer)
{
	SPITupleTable *table = SPI_tuptable;

	for (uint64 row = 0; row < table->numvals; row++)
	{
		CrmCounted counted;
		Datum values[C_COLUMNS];
		bool nulls[C_COLUMNS];

		for (int i = 0; i < C_COLUMNS; i++)
			values[i] = crm_result(row, i + 1, &nulls[i]);
		counted = counted_of(values, nulls, writer->closing);
		crm_journey_tally_visit(writer->tally, &counted, 1);
		counted.outcome = counted.next_step = NULL;
		crm_journey_tally_visit(writer->tally, &counted, -1);
	}
	SPI_freetuptable(table);
}

/* Rows that are no more, or that others are changing, are the statement's. */
static void
write_row(Writer *writer)
{
	CrmTarget *target = target_of(writer);

	if (target != NULL && !writer->updates)
	{
		crm_target_insert(target, writer->values, writer->nulls);
		return;
	}
	if (target != NULL && target->nkeys > 0 && crm_target_find_row(target, writer->values))
	{
		/* the message of a question is not awaited, and stays */
		if (writer->closing != NULL && writer->nulls[V_MESSAGE_ID])
			writer->values[V_MESSAGE_ID] = crm_target_value(target, V_MESSAGE_ID,
															&writer->nulls[V_MESSAGE_ID]);
		if (crm_target_update(target, writer->values, writer->nulls))
		{
			count_found(writer, target);
			return;
		}
	}
	for (int i = 0; i < writer->statement->nargs; i++)
		crm_column_add(&writer->columns[i], writer->values[i], writer->nulls[i]);
}

static void
end_writing(Writer *writer)
{
	Datum values[CRM_MAX_PLAN_ARGS];
	ListCell *cell;

	foreach(cell, writer->targets)
	{
		crm_target_flush(lfirst(cell));
		crm_target_close(lfirst(cell));
	}
	if (writer->columns[0].n == 0)
		return;
	for (int i = 0; i < writer->statement->nargs; i++)
		values[i] = crm_column_array(&writer->columns[i]);
	crm_run(writer->statement, values, NULL);
	if (writer->statement == &close_and_tell)
		count_returned(writer);
}

static const char *const state_names[] = {
	[CRM_RUN_ACTIVE] = "active",
	[CRM_RUN_FINISHED] = "finished",
	[CRM_RUN_EXITED] = "exited",
};

static void
put_changing(Writer *writer, const CrmRun *run)
{
	put_id(writer, W_CONTACT_ID, run->contact_id);
	put_id(writer, W_ENROLMENT_ID, run->enrolment_id);
	put_time(writer, W_DUE_AT, run->due_at);
	put_time(writer, W_STEP_AT, run->step_at);
	put_time(writer, W_STEP_DUE_AT, run->step_due_at);
	put_time(writer, W_VISIT_RECORDED_AT, run->visit_recorded_at);
	put_time(writer, W_ENDED_AT, run->ended_at);
	put_id(writer, W_MESSAGE_ID, run->message_id);
	put_int(writer, W_VERSION, run->journey->version);
	put_int(writer, W_VISIT, run->visit);
	put_int(writer, W_FAILURES, run->failures);
	put_text(writer, W_STEP, run->step == CRM_NO_STEP ? NULL : run->journey->steps[run->step].name);
	put_text(writer, W_STATE, state_names[run->state]);
	put_text(writer, W_END_REASON, run->end_reason);
	put_text(writer, W_STUCK, run->stuck);
	put_text(writer, W_REPLY, run->reply);
	writer->values[W_CONTEXT] = JsonbPGetDatum(run->context);
}

static void
put_lasting(Writer *writer, const CrmRun *run)
{
	put_id(writer, W_SOURCE_ID, run->source_id);
	put_id(writer, W_PARENT_ID, run->parent_id);
	put_time(writer, W_SOURCE_AT, run->source_at);
	put_time(writer, W_ENTERED_AT, run->entered_at);
	put_time(writer, W_RECORDED_AT, run->recorded_at);
	put_text(writer, W_JOURNEY, run->journey->name);
	put_text(writer, W_KEY, run->key);
	put_text(writer, W_ENTERED_BY, run->entered_by);
	put_int(writer, W_DEPTH, run->depth);
}

static void
put_closing(Writer *writer, const CrmVisit *visit, TimestampTz recorded_at)
{
	put_id(writer, V_CONTACT_ID, visit->run->contact_id);
	put_id(writer, V_ENROLMENT_ID, visit->run->enrolment_id);
	put_int(writer, V_VISIT, visit->visit);
	put_time(writer, V_RECORDED_AT, recorded_at);
	put_time(writer, V_LEFT_AT, visit->left_at);
	put_text(writer, V_OUTCOME, visit->outcome);
	put_text(writer, V_NEXT_STEP, visit->next_step);
	put_id(writer, V_MESSAGE_ID, visit->message_id);
}

static void
close_stored_visits(CrmEngine *engine, CrmJourneyTally *tally)
{
	Writer writer;

	begin_writing(&writer, "step_visit", closing_columns, true, V_RECORDED_AT,
				  tally->kept ? &close_and_tell : &close_visits);
	writer.tally = tally;
	for (int i = 0; i < engine->nruns; i++)
	{
		CrmRun *run = engine->runs[i];

		if (run->stored_visit != NULL && run->stored_visit->left_at != DT_NOBEGIN)
		{
			writer.closing = run->stored_visit;
			put_closing(&writer, run->stored_visit, run->visit_recorded_at);
			write_row(&writer);
			run->stored_visit = NULL;
		}
	}
	end_writing(&writer);
}

static void
add_visits(CrmEngine *engine, CrmJourneyTally *tally)
{
	Writer writer;

	begin_writing(&writer, "step_visit", visit_columns, false, V_RECORDED_AT, &insert_visits);
	for (int64 i = 0; i < engine->nvisits; i++)
	{
		const CrmVisit *visit = engine->visits[i];
		CrmCounted counted = { .entered_at = visit->entered_at,
							   .version = visit->run->journey->version,
							   .journey = visit->run->journey->name,
							   .step = visit->step->name,
							   .outcome = visit->outcome,
							   .arm = visit->arm,
							   .next_step = visit->next_step };

		crm_journey_tally_visit(tally, &counted, 1);
		put_closing(&writer, visit, engine->now);
		put_time(&writer, V_ENTERED_AT, visit->entered_at);
		put_int(&writer, V_VERSION, counted.version);
		put_text(&writer, V_JOURNEY, counted.journey);
		put_text(&writer, V_STEP, counted.step);
		put_text(&writer, V_ARM, visit->arm);
		write_row(&writer);
		visit->run->visit_recorded_at = engine->now;
	}
	end_writing(&writer);
	engine->nvisits = 0;
}

static void
write_enrolments(CrmEngine *engine, bool begun, CrmJourneyTally *tally)
{
	Writer writer;

	if (begun)
		begin_writing(&writer, "enrolment", enrolment_columns, false, -1, &insert_enrolments);
	else
		begin_writing(&writer, "enrolment", changing_columns, true, -1, &update_enrolments);
	for (int i = 0; i < engine->nruns; i++)
	{
		CrmRun *run = engine->runs[i];

		if (!run->changed || run->begun != begun)
			continue;
		put_changing(&writer, run);
		if (begun)
		{
			put_lasting(&writer, run);
			crm_journey_tally_entered(tally, run);
		}
		if (run->state != CRM_RUN_ACTIVE)
			crm_journey_tally_ended(tally, run, state_names[run->state]);
		write_row(&writer);
		run->begun = run->changed = false;
	}
	end_writing(&writer);
}

void
crm_engine_write(CrmEngine *engine)
{
	bool any_stored = false;
	bool any_begun = false;
	CrmJourneyTally tally;

	crm_journey_tally_init(&tally);
	for (int i = 0; i < engine->nruns; i++)
		if (engine->runs[i]->begun)
			any_begun = true;
		else
			any_stored = true;
	/* the rows as all that was written before has left them */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (any_stored)
		close_stored_visits(engine, &tally);
	add_visits(engine, &tally);
	/* who leaves first: of one journey and key there is one at a time */
	if (any_stored)
		write_enrolments(engine, false, &tally);
	if (any_begun)
		write_enrolments(engine, true, &tally);
	crm_journey_tally_write(&tally);
	PopActiveSnapshot();
	CommandCounterIncrement();
}
