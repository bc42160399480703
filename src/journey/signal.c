/*
 * signal.c
 *		What happened to contacts, until journeys have taken notice. Signals that a
 *		journey's own steps cause wait until the batch at work is written, so each
 *		batch sees what the one before has done.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/guc.h"
#include "journey/engine.h"
#include "journey/carried.h"

/* contacts in a batch */
#define BATCH 5000

typedef struct Waiting
{
	CrmSignal *signal; /* NULL: something changed for the contact */
	int64 contact_id;
	int order;                 /* in which it came */
	SubTransactionId added_in; /* and with which it goes */
} Waiting;

/* of this transaction */
static MemoryContext waiting_context = NULL;
/* in it, the kind of the signal before: those that follow are mostly of the same */
static const char *last_kind = NULL;
static Datum last_kind_text;
static Waiting *waiting = NULL;
static int nwaiting = 0;
static int waiting_size = 0;
static bool settling = false;
/* those of settle_all() that come after the batch at work, by contact and order */
static const Waiting *later = NULL;
static int nlater = 0;

static void
add_waiting(int64 contact_id, CrmSignal *signal)
{
	if (nwaiting == waiting_size)
	{
		MemoryContext old = MemoryContextSwitchTo(waiting_context);

		waiting_size = Max(64, waiting_size * 2);
		waiting = waiting == NULL ? palloc_array(Waiting, waiting_size)
								  : repalloc_huge(waiting, sizeof(Waiting) * waiting_size);
		MemoryContextSwitchTo(old);
	}
	waiting[nwaiting].signal = signal;
	waiting[nwaiting].contact_id = contact_id;
	waiting[nwaiting].order = nwaiting;
	waiting[nwaiting].added_in = GetCurrentSubTransactionId();
	nwaiting++;
}

static void
ensure_context(void)
{
	if (waiting_context != NULL)
		return;
	waiting_context = AllocSetContextCreate(TopTransactionContext, "pg_crm journey signals",
											ALLOCSET_DEFAULT_SIZES);
	last_kind = NULL;
}

static void
keep_kind(CrmSignal *signal)
{
	if (last_kind == NULL || strcmp(last_kind, signal->kind) != 0)
	{
		last_kind = pstrdup(signal->kind);
		last_kind_text = CStringGetTextDatum(last_kind);
	}
	signal->kind = last_kind;
	signal->fact.values[CRM_F_KIND] = last_kind_text;
}

static Datum
copy_value(Datum value, Oid type)
{
	bool by_value = type == INT8OID || type == TIMESTAMPTZOID;

	return datumCopy(value, by_value, by_value ? sizeof(int64) : -1);
}

void
crm_journey_signal(const CrmSignal *signal)
{
	TimestampTz now = crm_now();
	MemoryContext old;
	CrmSignal *copy;

	/* history never shouts: what is late for every journey is not even refused */
	if (!crm_journey_listens(signal->kind) ||
		now - signal->occurred_at >
			Max((int64) crm_guc_max_lateness * USECS_PER_SEC, crm_journeys()->max_lateness))
		return;
	ensure_context();
	old = MemoryContextSwitchTo(waiting_context);
	copy = palloc_object(CrmSignal);
	*copy = *signal;
	keep_kind(copy);
	copy->depth = crm_effects_depth;
	copy->fact.as_of = now;
	copy->fact.values[CRM_F_OCCURRED_AT] = TimestampTzGetDatum(signal->occurred_at);
	copy->fact.nulls[CRM_F_KIND] = copy->fact.nulls[CRM_F_OCCURRED_AT] = false;
	for (int i = CRM_F_AMOUNT; i < CRM_FACT_COLUMNS; i++)
		if (!copy->fact.nulls[i])
			copy->fact.values[i] = copy_value(signal->fact.values[i], crm_fact_variables[i].type);
	add_waiting(signal->fact.contact_id, copy);
	MemoryContextSwitchTo(old);
}

/* A threshold is a number, as it is in crm.award and in documents. */
static Jsonb *
value_json(const CrmSignalName *name)
{
	if (strcmp(name->name, "threshold") != 0)
		return crm_text_json(name->value);
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(name->value)));
}

void
crm_journey_signal_named(const char *kind, int64 contact_id, TimestampTz at,
						 const CrmSignalName *names, int nnames)
{
	CrmSignal signal = { .kind = kind, .occurred_at = at };
	Jsonb *properties;

	if (!crm_journey_listens(kind))
		return;
	properties = crm_empty_document();
	for (int i = 0; i < nnames; i++)
		properties = crm_document_with(properties, names[i].name, value_json(&names[i]));
	memset(signal.fact.nulls, true, sizeof(signal.fact.nulls));
	signal.fact.contact_id = contact_id;
	signal.fact.values[CRM_F_PROPERTIES] = JsonbPGetDatum(properties);
	signal.fact.nulls[CRM_F_PROPERTIES] = false;
	crm_journey_signal(&signal);
}

static int
compare_waiting(const void *a, const void *b)
{
	const Waiting *left = a;
	const Waiting *right = b;

	if (left->contact_id != right->contact_id)
		return left->contact_id < right->contact_id ? -1 : 1;
	return (left->order > right->order) - (left->order < right->order);
}

/* Can any of it move, or end, what contacts are in? */
static bool
concerns_runs(CrmSignal *const *signals, int n)
{
	const char *last = NULL;

	if (crm_journeys_watch())
		return true;
	for (int i = 0; i < n; i++)
	{
		if (signals[i] == NULL || (last != NULL && strcmp(signals[i]->kind, last) == 0))
			continue;
		last = signals[i]->kind;
		if (crm_journeys_move_by(last))
			return true;
	}
	return false;
}

/* A signal of each contact, and what changed: rules are asked, facts are matched. */
static void
settle_batch(const int64 *contacts, CrmSignal **signals, int n)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm journey batch",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	CrmEngine *engine = crm_engine_create();
	CrmSignal **of_runs;
	CrmSignal **entering = palloc_array(CrmSignal *, n);
	int nentering = 0;

	engine->unnamed = true;
	if (concerns_runs(signals, n))
	{
		crm_engine_name_path(engine);
		crm_engine_load(engine, contacts, n);
	}
	of_runs = palloc_array(CrmSignal *, Max(engine->nruns, 1));
	for (int i = 0; i < engine->nruns; i++)
	{
		CrmRun *run = engine->runs[i];
		const int64 *found = bsearch(&run->contact_id, contacts, n, sizeof(int64),
									 crm_compare_int64);

		of_runs[i] = signals[found - contacts];
		run->at = Max(run->step_at, engine->now);
	}
	if (engine->nruns > 0)
	{
		crm_endings_by_signals(engine, of_runs);
		crm_endings_by_rules(engine);
		crm_waits_by_signals(engine, of_runs);
		crm_asks_by_signals(engine, of_runs);
		crm_waits_by_rules(engine, true);
	}
	for (int i = 0; i < n; i++)
		if (signals[i] != NULL)
			entering[nentering++] = signals[i];
	crm_entries_by_signals(engine, entering, nentering);
	if (engine->nruns > 0)
		crm_engine_run(engine);
	crm_engine_end_path(engine);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/* One signal of each contact at a time: the next may find what the one before has begun. */
static void
settle_all(void)
{
	while (nwaiting > 0)
	{
		MemoryContext taken_context = waiting_context;
		Waiting *taken = waiting;
		int n = nwaiting;
		int left = n;

		waiting_context = NULL;
		waiting = NULL;
		nwaiting = waiting_size = 0;
		qsort(taken, n, sizeof(Waiting), compare_waiting);
		while (left > 0)
		{
			int64 contacts[BATCH];
			CrmSignal *signals[BATCH];
			int batch = 0;
			int kept = 0;

			for (int i = 0; i < left; i++)
			{
				bool is_next = batch > 0 && contacts[batch - 1] == taken[i].contact_id;

				if (is_next && (taken[i].signal == NULL || signals[batch - 1] == NULL))
				{
					/* that something changed is asked with the first signal */
					if (taken[i].signal != NULL)
						signals[batch - 1] = taken[i].signal;
				}
				else if (is_next || batch == BATCH)
					taken[kept++] = taken[i];
				else
				{
					contacts[batch] = taken[i].contact_id;
					signals[batch++] = taken[i].signal;
				}
			}
			left = kept;
			later = taken;
			nlater = left;
			CHECK_FOR_INTERRUPTS();
			settle_batch(contacts, signals, batch);
		}
		nlater = 0;
		MemoryContextDelete(taken_context);
	}
}

bool
crm_signal_is_same(const CrmSignal *signal, const CrmSignal *other)
{
	return signal->source_id == other->source_id && signal->occurred_at == other->occurred_at &&
		strcmp(signal->kind, other->kind) == 0;
}

static bool
is_among(const Waiting *list, int from, int n, const CrmSignal *signal)
{
	for (int i = from; i < n; i++)
		if (list[i].contact_id == signal->fact.contact_id && list[i].signal != NULL &&
			crm_signal_is_same(list[i].signal, signal))
			return true;
	return false;
}

bool
crm_signal_is_waiting(const CrmSignal *signal)
{
	int64 contact_id = signal->fact.contact_id;
	int first = 0;
	int end = nlater;

	while (first < end)
	{
		int middle = (first + end) / 2;

		if (later[middle].contact_id < contact_id)
			first = middle + 1;
		else
			end = middle;
	}
	while (end < nlater && later[end].contact_id == contact_id)
		end++;
	return is_among(later, first, end, signal) || is_among(waiting, 0, nwaiting, signal);
}

void
crm_journeys_work(void (*work)(void *arg), void *arg)
{
	/* within a batch at work what is asked for here would not see it */
	if (settling)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("journeys are being moved by the statement that asks to move them"),
				 errhint("Do it in a statement of its own, not in a trigger.")));
	settling = true;
	PG_TRY();
	{
		work(arg);
		settle_all();
	}
	PG_FINALLY();
	{
		settling = false;
		nlater = 0;
		crm_effects_depth = 0;
	}
	PG_END_TRY();
}

bool
crm_journeys_at_work(void)
{
	return settling;
}

static void
do_nothing(void *arg)
{
}

void
crm_journeys_settle(const int64 *contacts, int ncontacts)
{
	if (ncontacts > 0 && crm_journeys_watch())
	{
		ensure_context();
		for (int i = 0; i < ncontacts; i++)
			add_waiting(contacts[i], NULL);
	}
	if (!settling && nwaiting > 0)
		crm_journeys_work(do_nothing, NULL);
}

Datum
crm_moving_journeys(void)
{
	const CrmJourneys *journeys = crm_journeys();
	CrmColumn names;

	crm_column_init(&names, TEXTOID);
	for (int i = 0; i < journeys->n; i++)
	{
		const CrmJourney *journey = journeys->list[i];

		if (journey->state != CRM_JOURNEY_FROZEN &&
			(i == 0 || strcmp(journeys->list[i - 1]->name, journey->name) != 0))
			crm_column_add(&names, CStringGetTextDatum(journey->name), false);
	}
	return crm_column_array(&names);
}

/* What a transaction that ends has left behind is nobody's. */
static void
forget(void)
{
	waiting_context = NULL;
	waiting = NULL;
	nwaiting = waiting_size = 0;
	later = NULL;
	nlater = 0;
	settling = false;
	crm_effects_depth = 0;
}

static void
at_end_of_transaction(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE ||
		event == XACT_EVENT_PARALLEL_COMMIT || event == XACT_EVENT_PARALLEL_ABORT)
		forget();
}

/* What was noticed in a subtransaction, or in one within it, goes with it. */
static void
at_end_of_subtransaction(SubXactEvent event, SubTransactionId id, SubTransactionId parent,
						 void *arg)
{
	if (event != SUBXACT_EVENT_ABORT_SUB)
		return;
	while (nwaiting > 0 && waiting[nwaiting - 1].added_in >= id)
		nwaiting--;
}

void
crm_journey_init(void)
{
	RegisterXactCallback(at_end_of_transaction, NULL);
	RegisterSubXactCallback(at_end_of_subtransaction, NULL);
	crm_journey_definition_init();
}
