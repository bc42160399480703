/*
 * ask.c
 *		The step that asks for something, and stores what the contact answers: the
 *		next message that can be read, until the deadline.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/wake.h"
#include "journey/carried.h"
#include "journey/engine.h"
#include "journey/kinds.h"
#include "journey/match.h"
#include "journey/reply.h"

#define CONTEXT "context."

static const CrmTrigger message = { .on = "message" };

typedef enum Outcome
{
	STORED,
	REFUSED, /* it cannot be stored */
	LATER    /* somebody else has to be asked first */
} Outcome;

/* What a run was answered. */
typedef struct Reply
{
	CrmRun *run;
	TimestampTz at; /* when it moves the run */
	Jsonb *value;   /* NULL: it cannot be read */
	Outcome outcome;
} Reply;

typedef struct Replies
{
	const CrmStep *step;
	Reply **list; /* of runs that are distinct */
	int n;
} Replies;

/* WeChat tells whole seconds: what is of the same one as the step may have come after it. */
static TimestampTz
replies_from(const CrmRun *run)
{
	TimestampTz fraction = run->step_at % USECS_PER_SEC;

	return run->step_at - (fraction < 0 ? fraction + USECS_PER_SEC : fraction);
}

/* ---- storing */

static bool
is_in_context(const CrmStep *step)
{
	return strncmp(step->field, CONTEXT, strlen(CONTEXT)) == 0;
}

static char *
text_of(Jsonb *value)
{
	JsonbValue scalar;

	(void) JsonbExtractScalar(&value->root, &scalar);
	return pnstrdup(scalar.val.string.val, scalar.val.string.len);
}

static void
bind_mobiles(const Replies *replies)
{
	CrmColumn contacts;
	CrmColumn mobiles;
	CrmColumn times;

	crm_column_init(&contacts, INT8OID);
	crm_column_init(&mobiles, TEXTOID);
	crm_column_init(&times, TIMESTAMPTZOID);
	for (int i = 0; i < replies->n; i++)
	{
		const Reply *reply = replies->list[i];

		crm_column_add(&contacts, Int64GetDatum(reply->run->contact_id), false);
		crm_column_add(&mobiles, CStringGetTextDatum(text_of(reply->value)), false);
		crm_column_add(&times, TimestampTzGetDatum(reply->at), false);
	}
	crm_mobiles_bind(&contacts, &mobiles, &times);
}

static void
set_columns(const Replies *replies)
{
	CrmColumn contacts;
	CrmColumn documents;
	Jsonb *document = NULL;

	crm_column_init(&contacts, INT8OID);
	crm_column_init(&documents, JSONBOID);
	for (int i = 0; i < replies->n; i++)
	{
		document = crm_document_with(crm_empty_document(), replies->step->field,
									 replies->list[i]->value);
		crm_column_add(&contacts, Int64GetDatum(replies->list[i]->run->contact_id), false);
		crm_column_add(&documents, JsonbPGetDatum(document), false);
	}
	crm_contacts_set(document, &contacts, &documents);
}

static bool
store(void *arg)
{
	const Replies *replies = arg;

	if (strcmp(replies->step->field, "mobile") == 0)
		bind_mobiles(replies);
	else
		set_columns(replies);
	return true;
}

/* All at once; where that fails halves, so that it fails only for whom it must. */
static void
store_all(const Replies *replies)
{
	Replies half = *replies;
	ErrorData *error;
	bool later;

	if (replies->n == 0 || is_in_context(replies->step) ||
		crm_attempt(store, unconstify(Replies *, replies), &error))
		return;
	/* a number that somebody else is just getting, or has got */
	later = error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		error->sqlerrcode == ERRCODE_OBJECT_IN_USE;
	if (!later && !crm_error_is_contained(error->sqlerrcode))
		ReThrowError(error);
	FreeErrorData(error);
	if (replies->n == 1)
	{
		replies->list[0]->outcome = later ? LATER : REFUSED;
		return;
	}
	half.n = replies->n / 2;
	store_all(&half);
	half.list += half.n;
	half.n = replies->n - half.n;
	store_all(&half);
}

/* The number of another contact is bound by whoever moves journeys by time: the two are merged. */
static void
find_foreign(const Replies *replies)
{
	static CrmPlan find_others = {
		"SELECT n.place FROM unnest($1, $2) WITH ORDINALITY AS n(contact_id, mobile, place)"
		" JOIN crm.identity i ON i.kind = 'mobile' AND i.account_id = 0"
		"  AND i.external_id = n.mobile WHERE i.contact_id <> n.contact_id",
		2,
		{ INT8ARRAYOID, TEXTARRAYOID },
		.by_index = true
	};
	CrmColumn contacts;
	CrmColumn mobiles;
	Datum values[2];
	uint64 n;

	crm_column_init(&contacts, INT8OID);
	crm_column_init(&mobiles, TEXTOID);
	for (int i = 0; i < replies->n; i++)
	{
		crm_column_add(&contacts, Int64GetDatum(replies->list[i]->run->contact_id), false);
		crm_column_add(&mobiles, CStringGetTextDatum(text_of(replies->list[i]->value)), false);
	}
	values[0] = crm_column_array(&contacts);
	values[1] = crm_column_array(&mobiles);
	n = crm_run(&find_others, values, NULL);
	for (uint64 row = 0; row < n; row++)
		replies->list[crm_result_int64(row, 1) - 1]->outcome = LATER;
}

/* ---- going on */

void
crm_leave_by_reply(CrmRun *run, bool stored)
{
	const CrmStep *step = &run->journey->steps[run->step];

	if (stored)
		crm_run_leave(run, "next", step->next);
	else if (step->has_failed)
		crm_run_leave(run, "failed", step->on_failed);
	else
		crm_run_stay(run, run->step_due_at);
}

static void
go_on(const Replies *replies, Reply *reply)
{
	CrmRun *run = reply->run;
	bool stored = reply->value != NULL && reply->outcome == STORED;

	if (!stored && reply->outcome != LATER && !replies->step->has_failed)
		return; /* as if nothing had been said */
	run->at = reply->at;
	if (reply->value != NULL && reply->outcome == LATER)
	{
		run->reply = text_of(reply->value);
		run->due_at = reply->at;
		run->changed = true;
		crm_wake_at_commit();
		return;
	}
	if (stored && is_in_context(replies->step))
	{
		run->context = crm_document_with(run->context, replies->step->field + strlen(CONTEXT),
										 reply->value);
		run->changed = true;
	}
	crm_leave_by_reply(run, stored);
}

static void
take_replies(const CrmEngine *engine, const Replies *replies)
{
	Replies storing = { .step = replies->step, .list = palloc_array(Reply *, replies->n) };
	CrmRun **runs = palloc_array(CrmRun *, replies->n);
	int depth = crm_effects_depth;
	int n;

	/* a simulation stores nothing, and it goes well */
	for (int i = 0; i < replies->n && engine->sink == NULL; i++)
		if (replies->list[i]->value != NULL)
			storing.list[storing.n++] = replies->list[i];
	if (strcmp(replies->step->field, "mobile") == 0 && storing.n > 0)
	{
		find_foreign(&storing);
		n = storing.n;
		storing.n = 0;
		for (int i = 0; i < n; i++)
			if (storing.list[i]->outcome == STORED)
				storing.list[storing.n++] = storing.list[i];
	}
	for (int i = 0; i < storing.n; i++)
		runs[i] = storing.list[i]->run;
	crm_effects_begin(runs, storing.n);
	store_all(&storing);
	crm_effects_depth = depth;
	for (int i = 0; i < replies->n; i++)
		go_on(replies, replies->list[i]);
}

static Reply *
read_reply(CrmRun *run, const CrmSignal *signal, TimestampTz at)
{
	Reply *reply = palloc0_object(Reply);
	char *text = crm_reply_text(signal);

	reply->run = run;
	reply->at = at;
	run->moved_by = signal;
	if (text != NULL)
		reply->value = crm_reply_read(&run->journey->steps[run->step], text, at,
									  run->journey->zone);
	return reply;
}

/* ---- what comes while they wait */

static bool
is_asked(const CrmRun *run)
{
	return run->reply == NULL && crm_run_is_at(run, crm_step_ask);
}

void
crm_asks_by_signals(CrmEngine *engine, CrmSignal *const *signals)
{
	crm_looks_forget(engine);
	for (int i = 0; i < engine->nruns; i++)
		engine->runs[i]->batch_place = i;
	for (int first = 0; first < engine->nruns; first++)
	{
		CrmMoves moves;
		Replies replies = { 0 };

		if (engine->runs[first]->looked || !is_asked(engine->runs[first]))
			continue;
		crm_moves_take(engine, first, &moves);
		replies.step = moves.step;
		replies.list = palloc_array(Reply *, moves.n);
		for (int i = 0; i < moves.n; i++)
		{
			CrmRun *run = moves.runs[i];
			const CrmSignal *signal = signals[run->batch_place];

			/* at the very moment of the deadline the reply wins */
			if (is_asked(run) && crm_signal_counts(run, signal, &message, replies_from(run)) &&
				signal->occurred_at <= run->step_due_at)
				replies.list[replies.n++] = read_reply(run, signal, Max(run->step_at, run->now));
		}
		if (replies.n > 0)
			take_replies(engine, &replies);
	}
	crm_looks_forget(engine);
}

/* ---- what came before anybody looked */

/*
 * The messages of a run one by one, until one is taken. What was recorded before
 * it came here cannot be a reply; it may be the very message that led here.
 */
static void
look_back(CrmMoves *moves)
{
	CrmLookBack *asking = palloc_array(CrmLookBack, moves->n);
	CrmPastFact *found;
	int nfound;
	int next = 0;
	int *places = palloc_array(int, moves->n);

	for (int i = 0; i < moves->n; i++)
	{
		asking[i].contact_id = moves->runs[i]->contact_id;
		asking[i].from = replies_from(moves->runs[i]);
		asking[i].until = moves->runs[i]->step_due_at;
	}
	found = crm_history_find(message.on, asking, moves->n, &nfound);
	for (int i = 0; i < moves->n; i++)
	{
		while (next < nfound && found[next].place < i)
			next++;
		places[i] = next;
	}
	for (bool any = nfound > 0; any;)
	{
		Replies replies = { .step = moves->step, .list = palloc_array(Reply *, moves->n) };

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < moves->n; i++)
		{
			CrmRun *run = moves->runs[i];
			bool taken = false;

			while (!taken && is_asked(run) && places[i] < nfound && found[places[i]].place == i)
			{
				const CrmPastFact *fact = &found[places[i]++];

				taken = fact->recorded_at > run->step_at && fact->recorded_at < run->ends_at &&
					crm_signal_counts(run, &fact->signal, &message, asking[i].from);
				if (taken)
					replies.list[replies.n++] = read_reply(run, &fact->signal, fact->recorded_at);
			}
		}
		any = replies.n > 0;
		if (any)
			take_replies(moves->engine, &replies);
	}
}

void
crm_asks_look_back(CrmEngine *engine)
{
	crm_looks_forget(engine);
	for (int first = 0; first < engine->nruns; first++)
	{
		CrmMoves moves;
		int n = 0;

		if (engine->runs[first]->looked || !is_asked(engine->runs[first]))
			continue;
		crm_moves_take(engine, first, &moves);
		for (int i = 0; i < moves.n; i++)
			if (is_asked(moves.runs[i]))
				moves.runs[n++] = moves.runs[i];
		moves.n = n;
		look_back(&moves);
	}
	crm_looks_forget(engine);
}

/*
 * Who comes here late, as time is moved on after a while in which nobody did,
 * may have been answered already; whoever comes now has not.
 */
void
crm_step_ask(CrmMoves *moves)
{
	CrmMoves late = *moves;

	late.n = 0;
	late.runs = palloc_array(CrmRun *, moves->n);
	if (moves->step->template != NULL)
	{
		int64 *message_ids = crm_moves_send(moves, false);

		for (int i = 0; i < moves->n; i++)
			if (moves->runs[i]->open != NULL)
				moves->runs[i]->open->message_id = message_ids[i];
	}
	for (int i = 0; i < moves->n; i++)
	{
		CrmRun *run = moves->runs[i];

		crm_run_stay(run, crm_add_interval(run->at, moves->step->within, moves->journey->zone));
		if (run->step_at < moves->engine->now)
			late.runs[late.n++] = run;
	}
	if (late.n > 0)
		look_back(&late);
}
