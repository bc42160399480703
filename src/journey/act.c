/*
 * act.c
 *		Steps at which no time passes. What they do is written for all runs at
 *		once; where that fails it is done for halves, until it fails for one.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/guc.h"
#include "journey/engine.h"
#include "journey/kinds.h"
#include "journey/match.h"
#include "journey/carried.h"
#include "outbox/outbox.h"

/* ---- send, webhook */

/* One message a visit, whatever happens to the step. */
static char *
send_key_of(const CrmRun *run)
{
	return psprintf("journey %lld/%d", (long long) run->enrolment_id, run->visit);
}

int64 *
crm_moves_send(const CrmMoves *moves, bool awaited)
{
	const CrmStep *step = moves->step;
	CrmSendEach sending = { .template = step->template, .n = moves->n, .awaited = awaited };
	int64 *contacts = palloc_array(int64, moves->n);
	Datum *params = palloc_array(Datum, moves->n);
	const char **keys = palloc_array(const char *, moves->n);
	TimestampTz *due_at = palloc_array(TimestampTz, moves->n);
	TimestampTz *expires_at = palloc_array(TimestampTz, moves->n);

	sending.message_ids = palloc_array(int64, moves->n);
	for (int i = 0; i < moves->n; i++)
	{
		const CrmRun *run = moves->runs[i];

		contacts[i] = run->contact_id;
		params[i] = JsonbPGetDatum(crm_run_params(run, step->params));
		keys[i] = send_key_of(run);
		due_at[i] = run->at;
		expires_at[i] = step->expires_in == NULL
			? DT_NOEND
			: crm_add_interval(run->at, step->expires_in, moves->journey->zone);
	}
	sending.contacts = contacts;
	sending.params = params;
	sending.send_keys = keys;
	sending.due_at = due_at;
	sending.expires_at = expires_at;
	crm_outbox_send_each(&sending);
	return sending.message_ids;
}

/* Does the way on depend on what becomes of the message? */
bool
crm_step_awaits_message(const CrmStep *step)
{
	return step->has_refused || step->has_failed || step->save_as != NULL;
}

void
crm_step_send(CrmMoves *moves)
{
	bool awaited = crm_step_awaits_message(moves->step);
	int64 *message_ids = crm_moves_send(moves, awaited);

	for (int i = 0; i < moves->n; i++)
	{
		CrmRun *run = moves->runs[i];

		if (run->open != NULL)
			run->open->message_id = message_ids[i];
		if (!awaited)
		{
			crm_run_leave(run, "next", moves->step->next);
			continue;
		}
		crm_run_stay(run, DT_NOBEGIN);
		run->message_id = message_ids[i];
	}
}

/* What a webhook answered, for later steps. */
static void
save_reply(CrmRun *run, const CrmStep *step)
{
	static CrmPlan find_reply = { "SELECT d.reply FROM crm.delivery_attempt d JOIN crm.message m"
								  "  ON m.contact_id = d.contact_id AND m.attempt_id = d.attempt_id"
								  " WHERE m.contact_id = $1 AND m.message_id = $2",
								  2,
								  { INT8OID, INT8OID } };
	Datum values[2] = { Int64GetDatum(run->contact_id), Int64GetDatum(run->message_id) };
	char *reply = crm_run(&find_reply, values, NULL) == 0 ? NULL : crm_result_text(0, 1);

	if (reply != NULL)
		crm_run_save_json(run, step->save_as, reply);
}

void
crm_leave_by_message(CrmRun *run)
{
	const CrmStep *step = &run->journey->steps[run->step];
	const char *state = run->message_state == NULL ? "failed" : run->message_state;

	run->at = Max(run->step_at, run->message_ended_at);
	if (strcmp(state, "sent") == 0 || strcmp(state, "waiting") == 0)
	{
		if (step->save_as != NULL)
			save_reply(run, step);
		crm_run_leave(run, "next", step->next);
	}
	else if (strcmp(state, "failed") == 0 || strcmp(state, "unknown") == 0)
		crm_run_leave(run, "failed", step->has_failed ? step->on_failed : step->next);
	else
		crm_run_leave(run, "refused", step->has_refused ? step->on_refused : step->next);
}

/* ---- branch, split */

/* The first branch that holds, asked of those for whom none before did. */
void
crm_step_branch(CrmMoves *moves)
{
	CrmMatch *matches = palloc_array(CrmMatch, moves->n);
	int n = moves->n;

	for (int i = 0; i < n; i++)
		matches[i].run = moves->runs[i];
	for (int k = 0; k < moves->step->nbranches && n > 0; k++)
	{
		const CrmBranch *branch = &moves->step->branches[k];
		int left = 0;

		crm_ask_branch(branch, moves->journey, matches, n);
		for (int i = 0; i < n; i++)
			if (matches[i].holds)
				crm_run_leave(matches[i].run, branch->outcome, branch->next);
			else
				matches[left++].run = matches[i].run;
		n = left;
	}
	for (int i = 0; i < n; i++)
		crm_run_leave(matches[i].run, "default", moves->step->next);
	pfree(matches);
}

const CrmArm *
crm_split_draw(const CrmJourney *journey, const CrmStep *step, int64 contact_id)
{
	double draw = crm_draw(journey->name, step->name, contact_id);
	int arm = 0;

	while (arm < step->narms - 1 && draw >= step->arms[arm].weight)
		draw -= step->arms[arm++].weight;
	return &step->arms[arm];
}

void
crm_step_split(CrmMoves *moves)
{
	const CrmStep *step = moves->step;

	for (int i = 0; i < moves->n; i++)
	{
		CrmRun *run = moves->runs[i];
		const CrmArm *arm = crm_split_draw(moves->journey, step, run->contact_id);

		if (run->open != NULL)
			run->open->arm = arm->name;
		crm_run_leave(run, "arm", arm->next);
	}
}

/* ---- what is written */

static void
leave_all(CrmMoves *moves)
{
	for (int i = 0; i < moves->n; i++)
		crm_run_leave(moves->runs[i], "next", moves->step->next);
}

typedef struct Columns
{
	CrmColumn contacts;
	CrmColumn at;
	CrmColumn values;
} Columns;

/* Contacts, the times of their runs or now where that is to come, and a value each. */
static void
init_columns(Columns *columns, Oid type)
{
	crm_column_init(&columns->contacts, INT8OID);
	crm_column_init(&columns->at, TIMESTAMPTZOID);
	crm_column_init(&columns->values, type);
}

static void
add_row(Columns *columns, const CrmMoves *moves, const CrmRun *run, Datum value)
{
	crm_column_add(&columns->contacts, Int64GetDatum(run->contact_id), false);
	crm_column_add(&columns->at, TimestampTzGetDatum(Min(run->at, moves->engine->now)), false);
	crm_column_add(&columns->values, value, false);
}

/* Writes a fact of each run: the columns of its properties are one document. */
static void
record_events(CrmMoves *moves, const char *kind, Datum *properties)
{
	static CrmPlan insert_events = {
		"INSERT INTO crm.event (contact_id, kind, occurred_at, properties)"
		" SELECT n.contact_id, $4, n.at, n.properties"
		" FROM unnest($1, $2, $3) WITH ORDINALITY AS n(contact_id, at, properties, place)"
		" ORDER BY n.place",
		4,
		{ INT8ARRAYOID, TIMESTAMPTZARRAYOID, JSONBARRAYOID, TEXTOID }
	};
	Columns columns;
	Datum values[4];

	init_columns(&columns, JSONBOID);
	for (int i = 0; i < moves->n; i++)
		add_row(&columns, moves, moves->runs[i], properties[i]);
	values[0] = crm_column_array(&columns.contacts);
	values[1] = crm_column_array(&columns.at);
	values[2] = crm_column_array(&columns.values);
	values[3] = CStringGetTextDatum(kind);
	crm_run(&insert_events, values, NULL);
}

static Datum
describe_run(const CrmRun *run, const char *name, const char *value)
{
	Jsonb *document = crm_empty_document();

	document = crm_document_with(document, "journey", crm_text_json(run->journey->name));
	document = crm_document_with(document, "step",
								 crm_text_json(run->journey->steps[run->step].name));
	if (name != NULL)
		document = crm_document_with(document, name, crm_text_json(value));
	return JsonbPGetDatum(document);
}

/* Attributes are joined with those that the contact has. */
void
crm_contacts_set(const Jsonb *names, CrmColumn *contacts, CrmColumn *documents)
{
	StringInfoData sql;
	Oid types[2] = { INT8ARRAYOID, JSONBARRAYOID };
	Datum values[2];
	JsonbIterator *iterator = JsonbIteratorInit(&unconstify(Jsonb *, names)->root);
	JsonbIteratorToken token;
	JsonbValue name;
	const char *comma = "";
	int code;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "UPDATE crm.contact c SET ");
	while ((token = JsonbIteratorNext(&iterator, &name, true)) != WJB_DONE)
	{
		const char *column;

		if (token != WJB_KEY)
			continue;
		column = quote_identifier(pnstrdup(name.val.string.val, name.val.string.len));
		if (strcmp(column, "attributes") == 0)
			appendStringInfo(&sql, "%sattributes = c.attributes || r.attributes", comma);
		else
			appendStringInfo(&sql, "%s%s = r.%s", comma, column, column);
		comma = ", ";
	}
	appendStringInfoString(&sql,
						   " FROM unnest($1, $2) AS n(contact_id, fields) CROSS JOIN LATERAL"
						   " jsonb_populate_record(NULL::crm.contact, n.fields) AS r"
						   " WHERE c.contact_id = n.contact_id");
	values[0] = crm_column_array(contacts);
	values[1] = crm_column_array(documents);
	code = SPI_execute_with_args(sql.data, 2, types, values, NULL, false, 0);
	if (code < 0)
		elog(ERROR, "SPI_execute_with_args failed: %s", SPI_result_code_string(code));
}

void
crm_step_set(CrmMoves *moves)
{
	Columns columns;

	init_columns(&columns, JSONBOID);
	for (int i = 0; i < moves->n; i++)
		add_row(&columns, moves, moves->runs[i],
				JsonbPGetDatum(crm_run_fill(moves->runs[i], moves->step->fields)));
	crm_contacts_set(moves->step->fields, &columns.contacts, &columns.values);
	leave_all(moves);
}

static Datum
names_array(const char *const *names, int n)
{
	CrmColumn column;

	crm_column_init(&column, TEXTOID);
	for (int i = 0; i < n; i++)
		crm_column_add(&column, CStringGetTextDatum(names[i]), false);
	return crm_column_array(&column);
}

void
crm_step_tag(CrmMoves *moves)
{
	static CrmPlan change_tags = {
		"UPDATE crm.contact c SET tags = t.tags FROM unnest($1) AS n(contact_id)"
		" JOIN crm.contact o ON o.contact_id = n.contact_id CROSS JOIN LATERAL"
		"  (SELECT coalesce(array_agg(x.tag ORDER BY x.place), '{}') AS tags FROM"
		"   (SELECT u.tag, min(u.place) AS place FROM unnest(o.tags || $2)"
		"     WITH ORDINALITY AS u(tag, place) WHERE NOT u.tag = ANY ($3) GROUP BY u.tag) x) t"
		" WHERE c.contact_id = n.contact_id AND c.tags IS DISTINCT FROM t.tags",
		3,
		{ INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID }
	};
	Datum values[3];
	int64 *contacts = palloc_array(int64, moves->n);

	for (int i = 0; i < moves->n; i++)
		contacts[i] = moves->runs[i]->contact_id;
	values[0] = crm_int64_array(contacts, moves->n);
	values[1] = names_array(moves->step->add, moves->step->nadd);
	values[2] = names_array(moves->step->remove, moves->step->nremove);
	crm_run(&change_tags, values, NULL);
	leave_all(moves);
}

/* An award follows from facts: the step records one of the kind that the achievement counts. */
void
crm_step_award(CrmMoves *moves)
{
	static CrmPlan find_kind = { "SELECT a.on_kind FROM crm.achievement a WHERE a.name = $1",
								 1,
								 { TEXTOID } };
	Datum name = CStringGetTextDatum(moves->step->object);
	Datum *properties = palloc_array(Datum, moves->n);
	char *kind;

	if (crm_run(&find_kind, &name, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("achievement \"%s\" does not exist", moves->step->object),
				 errhint(
					 "Define it with crm.define_achievement() again, or move the enrolments.")));
	kind = crm_result_text(0, 1);
	for (int i = 0; i < moves->n; i++)
		properties[i] = describe_run(moves->runs[i], NULL, NULL);
	record_events(moves, kind, properties);
	leave_all(moves);
}

void
crm_step_stage(CrmMoves *moves)
{
	Datum *properties = palloc_array(Datum, moves->n);

	for (int i = 0; i < moves->n; i++)
	{
		Jsonb *document = DatumGetJsonbP(
			describe_run(moves->runs[i], "stage", moves->step->object));
		const char *reason = moves->step->reason != NULL
			? moves->step->reason
			: psprintf("journey %s", moves->journey->name);

		properties[i] = JsonbPGetDatum(
			crm_document_with(document, "reason", crm_text_json(reason)));
	}
	record_events(moves, "set_stage", properties);
	leave_all(moves);
}

/* A key for what is given once a visit. */
static Datum
key_datum(const CrmRun *run)
{
	return CStringGetTextDatum(send_key_of(run));
}

/* The step's own way where it could not be given, else the contact is stuck. */
static void
give(CrmMoves *moves, void (*work)(CrmMoves *moves))
{
	CrmMoves one = *moves;

	if (!moves->step->has_failed)
	{
		crm_moves_attempt(moves, work);
		return;
	}
	for (int i = 0; i < moves->n; i++)
	{
		CrmRun *run = moves->runs[i];

		one.n = 1;
		one.runs = &run;
		crm_moves_attempt(&one, work);
		if (run->stuck != NULL)
			crm_run_leave(run, "failed", moves->step->on_failed);
	}
}

static void
issue_coupons(CrmMoves *moves)
{
	static CrmPlan issue = {
		"SELECT crm.issue_coupon(n.contact_id, $3, n.key)"
		" FROM unnest($1, $2) WITH ORDINALITY AS n(contact_id, key, place) ORDER BY n.place",
		3,
		{ INT8ARRAYOID, TEXTARRAYOID, TEXTOID }
	};
	Columns columns;
	Datum values[3];
	char **codes = palloc_array(char *, moves->n);

	init_columns(&columns, TEXTOID);
	for (int i = 0; i < moves->n; i++)
		add_row(&columns, moves, moves->runs[i], key_datum(moves->runs[i]));
	values[0] = crm_column_array(&columns.contacts);
	values[1] = crm_column_array(&columns.values);
	values[2] = CStringGetTextDatum(moves->step->object);
	crm_run(&issue, values, NULL);
	for (int i = 0; i < moves->n; i++)
		codes[i] = crm_result_text(i, 1);
	for (int i = 0; i < moves->n; i++)
		crm_run_save(moves->runs[i], moves->step->save_as != NULL ? moves->step->save_as : "coupon",
					 codes[i]);
	leave_all(moves);
}

void
crm_step_coupon(CrmMoves *moves)
{
	give(moves, issue_coupons);
}

static void
move_points(CrmMoves *moves)
{
	static CrmPlan move = {
		"SELECT CASE WHEN $3 > 0 THEN crm.earn_points(n.contact_id, $4, $3, $5, n.key)"
		" ELSE crm.spend_points(n.contact_id, $4, -$3, $5, n.key) END"
		" FROM unnest($1, $2) WITH ORDINALITY AS n(contact_id, key, place) ORDER BY n.place",
		5,
		{ INT8ARRAYOID, TEXTARRAYOID, INT8OID, TEXTOID, TEXTOID }
	};
	Columns columns;
	Datum values[5];

	init_columns(&columns, TEXTOID);
	for (int i = 0; i < moves->n; i++)
		add_row(&columns, moves, moves->runs[i], key_datum(moves->runs[i]));
	values[0] = crm_column_array(&columns.contacts);
	values[1] = crm_column_array(&columns.values);
	values[2] = DirectFunctionCall1(numeric_int8, moves->step->points);
	values[3] = CStringGetTextDatum(moves->step->object);
	values[4] = CStringGetTextDatum(moves->step->reason != NULL
										? moves->step->reason
										: psprintf("journey %s", moves->journey->name));
	crm_run(&move, values, NULL);
	leave_all(moves);
}

void
crm_step_points(CrmMoves *moves)
{
	give(moves, move_points);
}

/* ---- other journeys, the end */

void
crm_step_journey(CrmMoves *moves)
{
	CrmJourney *journey = crm_journey_find(moves->step->object, 0);
	CrmEntering *entering = palloc0_array(CrmEntering, moves->n);

	if (journey == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("journey \"%s\" does not exist", moves->step->object),
				 errhint("Publish it with crm.publish_journey() first.")));
	for (int i = 0; i < moves->n; i++)
	{
		CrmRun *run = moves->runs[i];

		entering[i].journey = journey;
		entering[i].contact_id = run->contact_id;
		entering[i].at = run->at;
		entering[i].entered_by = "journey";
		entering[i].source_id = run->enrolment_id;
		entering[i].source_at = DT_NOBEGIN;
		entering[i].parent_id = run->enrolment_id;
		entering[i].depth = crm_run_next_depth(run);
		entering[i].entry = run->context;
	}
	crm_enter_all(moves->engine, entering, moves->n, true);
	pfree(entering);
	leave_all(moves);
}

void
crm_step_exit(CrmMoves *moves)
{
	for (int i = 0; i < moves->n; i++)
		crm_run_end(moves->runs[i], CRM_RUN_FINISHED, moves->step->reason, moves->runs[i]->at);
}
