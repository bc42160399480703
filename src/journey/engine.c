/*
 * engine.c
 *		The executor of journeys: all runs that enter the same step go through it
 *		together, until nobody moves. A step that fails for one of them does so for
 *		him alone: it is tried again later, and he is shown in crm.stuck.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/guc.h"
#include "base/wake.h"
#include "journey/engine.h"
#include "journey/kinds.h"

/* steps entered without a wait, after which it goes round in circles */
#define MOST_STEPS_AT_ONCE 1000
/* seconds until a failed step is tried again, doubled by each failure */
#define FIRST_RETRY 60
#define LAST_RETRY  (6 * SECS_PER_HOUR)
/* a chain of journeys that start each other is one while this many seconds lie between two */
#define CHAIN_SECONDS SECS_PER_HOUR

int crm_effects_depth = 0;

CrmEngine *
crm_engine_create(void)
{
	CrmEngine *engine = palloc0_object(CrmEngine);

	engine->context = CurrentMemoryContext;
	engine->now = engine->as_of = crm_now();
	return engine;
}

void
crm_engine_name_path(CrmEngine *engine)
{
	if (!engine->unnamed)
		return;
	crm_act_as_owner(&engine->acting);
	engine->unnamed = false;
	engine->named = true;
}

void
crm_engine_end_path(CrmEngine *engine)
{
	if (engine->named)
		crm_act_end(&engine->acting);
	engine->unnamed = engine->named = false;
}

void
crm_engine_put(CrmEngine *engine, CrmRun *run)
{
	MemoryContext old = MemoryContextSwitchTo(engine->context);

	if (engine->nruns == engine->size)
	{
		engine->size = Max(16, engine->size * 2);
		engine->runs = engine->runs == NULL
			? palloc_array(CrmRun *, engine->size)
			: repalloc_huge(engine->runs, sizeof(CrmRun *) * engine->size);
	}
	engine->runs[engine->nruns++] = run;
	MemoryContextSwitchTo(old);
}

CrmRun *
crm_engine_add(CrmEngine *engine)
{
	MemoryContext old = MemoryContextSwitchTo(engine->context);
	CrmRun *run = palloc0_object(CrmRun);

	crm_engine_put(engine, run);
	run->now = engine->now;
	run->source_at = run->due_at = run->visit_recorded_at = run->ended_at = DT_NOBEGIN;
	run->step_due_at = run->message_ended_at = run->previous_at = DT_NOBEGIN;
	run->ends_at = DT_NOEND;
	run->step = run->entering = CRM_NO_STEP;
	run->key = "";
	MemoryContextSwitchTo(old);
	return run;
}

typedef struct OfContact
{
	int64 contact_id; /* the key */
	CrmRun *first;
} OfContact;

void
crm_engine_index(CrmEngine *engine, CrmRun *run)
{
	OfContact *found;
	bool is_found;

	if (engine->by_contact == NULL)
	{
		HASHCTL control = { .keysize = sizeof(int64),
							.entrysize = sizeof(OfContact),
							.hcxt = engine->context };

		engine->by_contact = hash_create("pg_crm runs by contact", 64, &control,
										 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	found = hash_search(engine->by_contact, &run->contact_id, HASH_ENTER, &is_found);
	run->next_of_contact = is_found ? found->first : NULL;
	found->first = run;
}

CrmRun *
crm_engine_first(CrmEngine *engine, int64 contact_id)
{
	OfContact *found;

	if (engine->by_contact == NULL)
		return NULL;
	found = hash_search(engine->by_contact, &contact_id, HASH_FIND, NULL);
	return found == NULL ? NULL : found->first;
}

int
crm_run_next_depth(const CrmRun *run)
{
	bool is_chain = run->at - run->entered_at < (int64) CHAIN_SECONDS * USECS_PER_SEC;

	return is_chain ? run->depth + 1 : 1;
}

void
crm_effects_begin(CrmRun *const *runs, int n)
{
	crm_effects_depth = 0;
	for (int i = 0; i < n; i++)
		crm_effects_depth = Max(crm_effects_depth, crm_run_next_depth(runs[i]));
}

/* ---- how a run goes on */

static void
close_visit(CrmRun *run, const char *outcome, const char *next_step)
{
	if (run->open == NULL)
		return;
	run->open->left_at = run->at;
	run->open->outcome = outcome;
	run->open->next_step = next_step;
	run->open = NULL;
}

void
crm_run_end(CrmRun *run, CrmRunState state, const char *reason, TimestampTz at)
{
	run->at = Max(at, run->step_at);
	close_visit(run, state == CRM_RUN_FINISHED ? "next" : reason, NULL);
	run->state = state;
	run->end_reason = reason;
	run->ended_at = run->at;
	run->due_at = run->step_due_at = DT_NOBEGIN;
	run->message_id = 0;
	run->stuck = run->reply = NULL;
	run->moving = false;
	run->changed = true;
}

void
crm_run_leave(CrmRun *run, const char *outcome, int next)
{
	run->changed = true;
	run->failures = 0;
	run->stuck = run->reply = NULL;
	run->message_id = 0;
	run->step_due_at = DT_NOBEGIN;
	run->again = false;
	if (next == CRM_NO_STEP)
	{
		close_visit(run, outcome, NULL);
		crm_run_end(run, CRM_RUN_FINISHED, NULL, run->at);
		return;
	}
	close_visit(run, outcome, run->journey->steps[next].name);
	run->entering = next;
	run->moving = true;
}

void
crm_run_stay(CrmRun *run, TimestampTz until)
{
	run->changed = true;
	run->failures = 0;
	run->stuck = run->reply = NULL;
	run->moving = false;
	run->again = false;
	run->step_due_at = until;
	run->steps_at_once = 0;
}

/* Tried again later, ever more seldom; resume() does it at once. */
static void
fail(CrmEngine *engine, CrmRun *run, const char *why)
{
	int seconds = FIRST_RETRY << Min(run->failures, 10);

	run->failures++;
	run->stuck = MemoryContextStrdup(engine->context, why);
	run->moving = false;
	run->again = false;
	run->changed = true;
	run->step_due_at = DT_NOBEGIN;
	/* not within the same tick, however far that goes */
	run->due_at = Max(run->now, engine->as_of) + (int64) Min(seconds, LAST_RETRY) * USECS_PER_SEC;
}

/* ---- steps */

typedef struct Attempt
{
	CrmMoves moves;
	void (*work)(CrmMoves *moves);
} Attempt;

static bool
work(void *arg)
{
	Attempt *attempt = arg;

	attempt->work(&attempt->moves);
	return true;
}

bool
crm_error_is_contained(int code)
{
	switch (ERRCODE_TO_CATEGORY(code))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
			return false;
		default:
			return code != ERRCODE_LOCK_NOT_AVAILABLE;
	}
}

void
crm_moves_attempt(CrmMoves *moves, void (*work_function)(CrmMoves *moves))
{
	Attempt attempt = { .moves = *moves, .work = work_function };
	ErrorData *error;
	int half = moves->n / 2;

	CHECK_FOR_INTERRUPTS();
	if (crm_attempt(work, &attempt, &error))
		return;
	if (!crm_error_is_contained(error->sqlerrcode))
		ReThrowError(error);
	if (moves->n == 1)
	{
		fail(moves->engine, moves->runs[0], error->message);
		FreeErrorData(error);
		return;
	}
	FreeErrorData(error);
	attempt.moves = *moves;
	attempt.moves.n = half;
	crm_moves_attempt(&attempt.moves, work_function);
	attempt.moves.n = moves->n - half;
	attempt.moves.runs = moves->runs + half;
	crm_moves_attempt(&attempt.moves, work_function);
}

static void
add_visit(CrmEngine *engine, CrmRun *run, const CrmStep *step)
{
	CrmVisit *visit = palloc0_object(CrmVisit);

	if (engine->nvisits == engine->visits_size)
	{
		engine->visits_size = Max(16, engine->visits_size * 2);
		engine->visits = engine->visits == NULL
			? palloc_array(CrmVisit *, engine->visits_size)
			: repalloc_huge(engine->visits, sizeof(CrmVisit *) * engine->visits_size);
	}
	engine->visits[engine->nvisits++] = visit;
	visit->run = run;
	visit->visit = ++run->visit;
	visit->step = step;
	visit->entered_at = run->at;
	visit->left_at = DT_NOBEGIN;
	run->open = visit;
}

/* A run that goes round without end is taken out before it enters once more. */
static bool
arrive(CrmEngine *engine, CrmRun *run, const CrmStep *step)
{
	run->moving = false;
	if (run->again)
		return true;
	if (++run->steps_at_once > MOST_STEPS_AT_ONCE)
	{
		fail(engine, run, psprintf("%d steps were entered without a wait", MOST_STEPS_AT_ONCE));
		return false;
	}
	if (run->step != CRM_NO_STEP)
		run->previous_at = run->step_at;
	run->step = run->entering;
	run->step_at = run->at;
	run->changed = true;
	add_visit(engine, run, step);
	engine->steps++;
	return true;
}

static int
compare_moving(const void *a, const void *b)
{
	const CrmRun *left = *(CrmRun *const *) a;
	const CrmRun *right = *(CrmRun *const *) b;

	if (left->journey != right->journey)
		return left->journey < right->journey ? -1 : 1;
	if (left->entering != right->entering)
		return left->entering < right->entering ? -1 : 1;
	/* who came first is served first, where there is not enough for all */
	if (left->at != right->at)
		return left->at < right->at ? -1 : 1;
	if (left->contact_id != right->contact_id)
		return left->contact_id < right->contact_id ? -1 : 1;
	return (left->enrolment_id > right->enrolment_id) - (left->enrolment_id < right->enrolment_id);
}

static void
enter_together(CrmEngine *engine, CrmRun **runs, int n)
{
	CrmMoves moves = { .engine = engine, .journey = runs[0]->journey, .runs = runs };

	moves.step = &moves.journey->steps[runs[0]->entering];
	for (int i = 0; i < n; i++)
		if (arrive(engine, runs[i], moves.step))
			runs[moves.n++] = runs[i];
	if (moves.n == 0)
		return;
	if (moves.step->kind == NULL)
	{
		/* of a document that a later version has published */
		for (int i = 0; i < moves.n; i++)
			fail(engine, runs[i], psprintf("step \"%s\" is of an unknown kind", moves.step->name));
		return;
	}
	crm_effects_begin(runs, moves.n);
	if (engine->sink != NULL && moves.step->kind->writes)
		engine->sink->act(&moves);
	else if (moves.step->kind->writes)
		crm_moves_attempt(&moves, moves.step->kind->enter);
	else
		moves.step->kind->enter(&moves);
	crm_effects_depth = 0;
}

static void
move_all(CrmEngine *engine)
{
	CrmRun **moving = NULL;
	int size = 0;

	for (;;)
	{
		int n = 0;
		int end;

		CHECK_FOR_INTERRUPTS();
		if (engine->nruns > size)
		{
			size = engine->nruns;
			moving = MemoryContextAllocHuge(engine->context, sizeof(CrmRun *) * size);
		}
		for (int i = 0; i < engine->nruns; i++)
			if (engine->runs[i]->moving)
				moving[n++] = engine->runs[i];
		if (n == 0)
			return;
		qsort(moving, n, sizeof(CrmRun *), compare_moving);
		for (int first = 0; first < n; first = end)
		{
			for (end = first + 1; end < n && moving[end]->journey == moving[first]->journey &&
				 moving[end]->entering == moving[first]->entering;)
				end++;
			enter_together(engine, moving + first, end - first);
		}
	}
}

/* What is due later than it looks by itself is found then. */
static void
wake_clock(const CrmEngine *engine)
{
	TimestampTz soon = engine->now + crm_guc_poll_interval * USECS_PER_SEC;

	for (int i = 0; i < engine->nruns; i++)
		if (engine->runs[i]->changed && engine->runs[i]->due_at != DT_NOBEGIN &&
			engine->runs[i]->due_at <= soon)
		{
			crm_wake_clock_at_commit();
			return;
		}
}

void
crm_engine_run(CrmEngine *engine)
{
	MemoryContext old = MemoryContextSwitchTo(engine->context);

	move_all(engine);
	crm_runs_plan(engine);
	if (engine->sink != NULL)
		engine->sink->write(engine);
	else
	{
		wake_clock(engine);
		crm_engine_write(engine);
	}
	MemoryContextSwitchTo(old);
}
