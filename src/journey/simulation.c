/*
 * simulation.c
 *		Facts recorded in a period, sent through a definition as if it had been the
 *		only journey then. Each contact has a clock of its own: of every contact
 *		what happens to him next goes through the executor, all of them together,
 *		until nothing is left of the period. What steps do is not done; they are
 *		left as is assumed.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/guc.h"
#include "journey/kinds.h"
#include "journey/simulation.h"

/* contacts whose facts are in memory at a time */
#define CHUNK 500
/* after facts and what they bring */
#define LAST_RANK 10
/* a fact may be recorded before the time that it tells, by a clock that is ahead */
#define MOST_AHEAD USECS_PER_DAY

static CrmPlan find_contacts = {
	"SELECT c.contact_id FROM crm.contact c WHERE c.contact_id > $1 ORDER BY c.contact_id LIMIT $2",
	2,
	{ INT8OID, INT4OID }
};

/* Who is simulated: his facts to come, and his enrolments. */
typedef struct Person
{
	int64 contact_id;
	int next;
	int end;
	int nruns;
	int size;
	CrmRun **runs;
} Person;

/* What came to him: a fact, or the time to enter. */
typedef struct Past
{
	int person;
	int rank; /* among what comes at one time */
	TimestampTz at;
	CrmSignal *signal;     /* NULL: none */
	CrmEntering *entering; /* else */
} Past;

typedef struct Simulation
{
	CrmSink sink; /* the first: the engine knows no more of it */
	CrmJourney *journey;
	const CrmAssumed *assumed;
	TimestampTz from;
	TimestampTz until;
	List *kinds; /* that anything is on, char * */
	CrmCounts *counts;
	int64 last_id;

	/* of a chunk */
	Person *persons;
	int npersons;
	Past *pasts;
	int64 npasts;
	int64 pasts_size;
	CrmEngine *engine;
} Simulation;

/* ---- counting */

static bool
is_same(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static void
count(Simulation *simulation, int step, const char *outcome, const char *next_step)
{
	CrmCounts *counts = simulation->counts;
	CrmCount *found;

	for (int i = 0; i < counts->n; i++)
	{
		found = &counts->list[i];
		if (found->step == step && is_same(found->outcome, outcome) &&
			is_same(found->next_step, next_step))
		{
			found->moves++;
			return;
		}
	}
	if (counts->n == counts->size)
	{
		counts->size *= 2;
		counts->list = repalloc_array(counts->list, CrmCount, counts->size);
	}
	found = &counts->list[counts->n++];
	found->step = step;
	found->outcome = outcome == NULL
		? NULL
		: MemoryContextStrdup(GetMemoryChunkContext(counts->list), outcome);
	found->next_step = next_step; /* the journey's */
	found->moves = 1;
}

static void
count_visit(Simulation *simulation, const CrmVisit *visit)
{
	const char *outcome = visit->arm != NULL && is_same(visit->outcome, "arm") ? visit->arm
																			   : visit->outcome;

	count(simulation, visit->step - simulation->journey->steps, outcome, visit->next_step);
}

/* ---- the sink */

static int64
next_id(CrmEngine *engine)
{
	/* of no enrolment that there is */
	return ++((Simulation *) engine->sink)->last_id;
}

static void
refused(CrmEngine *engine, const CrmEntering *entering, int n)
{
	for (int i = 0; i < n; i++)
		if (entering[i].reason != NULL)
			count((Simulation *) engine->sink, CRM_NO_STEP, entering[i].reason, NULL);
}

static bool
is_ask(const CrmStep *step)
{
	return step->kind->enter == crm_step_ask;
}

static void
leave_assumed(CrmRun *run, const CrmStep *step, const char *outcome)
{
	bool by_message = step->kind->enter == crm_step_send;

	if (by_message && !crm_step_awaits_message(step))
		outcome = "next";
	if (strcmp(outcome, "refused") == 0)
		crm_run_leave(run, outcome, step->has_refused ? step->on_refused : step->next);
	else if (strcmp(outcome, "failed") == 0 && (step->has_failed || by_message))
		crm_run_leave(run, outcome, step->has_failed ? step->on_failed : step->next);
	else if (strcmp(outcome, "failed") == 0 && !is_ask(step))
	{
		run->stuck = "assumed";
		run->step_due_at = DT_NOBEGIN;
	}
	else if (strcmp(outcome, "next") == 0)
		crm_run_leave(run, outcome, step->next);
}

static void
act(CrmMoves *moves)
{
	const Simulation *simulation = (const Simulation *) moves->engine->sink;
	const CrmStep *step = moves->step;

	for (int i = 0; i < moves->n; i++)
	{
		CrmRun *run = moves->runs[i];
		const char *outcome = crm_assumed_outcome(simulation->assumed, moves->journey, step,
												  run->contact_id);

		if (is_ask(step))
			crm_run_stay(run, crm_add_interval(run->at, step->within, moves->journey->zone));
		if (outcome != NULL)
			leave_assumed(run, step, outcome);
		else if (!is_ask(step))
			crm_run_leave(run, "next", step->next);
	}
}

static int
compare_person(const void *key, const void *element)
{
	return crm_compare_int64(key, &((const Person *) element)->contact_id);
}

static Person *
find_person(const Simulation *simulation, int64 contact_id)
{
	return bsearch(&contact_id, simulation->persons, simulation->npersons, sizeof(Person),
				   compare_person);
}

static bool
is_to_come(const CrmEngine *engine, const CrmPastFact *fact, TimestampTz now)
{
	const Simulation *simulation = (const Simulation *) engine->sink;
	const Person *person = find_person(simulation, fact->signal.fact.contact_id);

	/* what no turn is for, as what came too late to be noticed, is there when it was recorded */
	for (int64 i = person->next; i < person->end && simulation->pasts[i].at <= now; i++)
		if (simulation->pasts[i].signal != NULL &&
			crm_signal_is_same(simulation->pasts[i].signal, &fact->signal))
			return true;
	return fact->recorded_at > now;
}

static void
add_run(Simulation *simulation, CrmRun *run)
{
	Person *person = find_person(simulation, run->contact_id);

	if (person->nruns == person->size)
	{
		person->size = Max(4, person->size * 2);
		person->runs = person->runs == NULL ? palloc_array(CrmRun *, person->size)
											: repalloc_array(person->runs, CrmRun *, person->size);
	}
	person->runs[person->nruns++] = run;
}

/* Those who ended are no longer looked at; that they were there the engine knows. */
static void
forget_ended(Person *person)
{
	int n = 0;

	for (int i = 0; i < person->nruns; i++)
		if (person->runs[i]->state == CRM_RUN_ACTIVE)
			person->runs[n++] = person->runs[i];
	person->nruns = n;
}

static void
write_counts(CrmEngine *engine)
{
	Simulation *simulation = (Simulation *) engine->sink;
	const CrmJourney *journey = simulation->journey;

	for (int i = 0; i < engine->nruns; i++)
	{
		CrmRun *run = engine->runs[i];

		if (run->begun)
		{
			/* the goal may be reached before the first step */
			if (run->visit == 0)
				count(simulation, CRM_NO_STEP, run->end_reason, NULL);
			else
				count(simulation, CRM_NO_STEP, "next", journey->steps[journey->start].name);
			run->begun = false;
			add_run(simulation, run);
		}
		if (run->stored_visit != NULL && run->stored_visit->left_at != DT_NOBEGIN)
		{
			count_visit(simulation, run->stored_visit);
			pfree(run->stored_visit);
			run->stored_visit = NULL;
		}
		run->changed = false;
	}
	for (int64 i = 0; i < engine->nvisits; i++)
	{
		CrmVisit *visit = engine->visits[i];

		if (visit->left_at == DT_NOBEGIN)
			visit->run->stored_visit = visit;
		else
		{
			count_visit(simulation, visit);
			pfree(visit);
		}
	}
	engine->nvisits = 0;
}

/* ---- facts */

static void
add_kind(List **kinds, const char *kind)
{
	ListCell *cell;

	foreach(cell, *kinds)
		if (strcmp(lfirst(cell), kind) == 0)
			return;
	*kinds = lappend(*kinds, unconstify(char *, kind));
}

static void
add_kinds_read(List **kinds, const CrmRuleReads *reads)
{
	ListCell *cell;

	if (reads != NULL)
		foreach(cell, reads->kinds)
			add_kind(kinds, lfirst(cell));
}

static void
add_ending_kinds(List **kinds, const CrmEnding *ending)
{
	if (ending == NULL)
		return;
	add_kinds_read(kinds, ending->reads);
	for (int i = 0; i < ending->ntriggers; i++)
		add_kind(kinds, ending->triggers[i].on);
}

/* What lets in, is waited for or ends, and what rules that are asked at each fact count. */
static List *
find_kinds(const CrmJourney *journey)
{
	List *kinds = NIL;

	for (int i = 0; i < journey->nentries; i++)
		if (journey->entries[i].timed == NULL)
			add_kind(&kinds, journey->entries[i].trigger.on);
	add_ending_kinds(&kinds, journey->goal);
	add_ending_kinds(&kinds, journey->exit);
	for (int i = 0; i < journey->nsteps; i++)
	{
		const CrmStep *step = &journey->steps[i];

		if (step->trigger.on != NULL)
			add_kind(&kinds, step->trigger.on);
		if (step->kind->enter == crm_step_wait_until)
			add_kinds_read(&kinds, step->reads);
		if (is_ask(step))
			add_kind(&kinds, "message");
	}
	return kinds;
}

/* Facts come before what they bring. */
static int
rank_of(const char *kind)
{
	static const char *const order[] = { CRM_SIGNAL_AWARD, CRM_SIGNAL_STAGE,
										 CRM_SIGNAL_SEGMENT_ENTER, CRM_SIGNAL_SEGMENT_LEAVE };

	for (int i = 0; i < lengthof(order); i++)
		if (strcmp(order[i], kind) == 0)
			return i + 1;
	return 0;
}

static Past *
add_past(Simulation *simulation, int person, TimestampTz at)
{
	Past *past;

	if (simulation->npasts == simulation->pasts_size)
	{
		simulation->pasts_size = Max(1024, simulation->pasts_size * 2);
		simulation->pasts = simulation->pasts == NULL
			? palloc_array(Past, simulation->pasts_size)
			: repalloc_huge(simulation->pasts, sizeof(Past) * simulation->pasts_size);
	}
	past = &simulation->pasts[simulation->npasts++];
	memset(past, 0, sizeof(Past));
	past->person = person;
	past->at = at;
	return past;
}

/* Of those recorded in the period, and not too late for anybody to notice. */
static void
add_facts(Simulation *simulation, CrmPastFact *found, int nfound)
{
	int64 lateness = (int64) crm_guc_max_lateness * USECS_PER_SEC;

	for (int i = 0; i < nfound; i++)
	{
		CrmPastFact *fact = &found[i];
		Past *past;

		if (fact->recorded_at < simulation->from || fact->recorded_at >= simulation->until ||
			fact->recorded_at - fact->signal.occurred_at > lateness)
			continue;
		fact->signal.fact.as_of = fact->recorded_at;
		past = add_past(simulation, fact->place, fact->recorded_at);
		past->rank = rank_of(fact->signal.kind);
		past->signal = &fact->signal;
	}
}

static void
add_timed(Simulation *simulation, const int64 *contacts)
{
	int n;
	CrmEntering *entering = crm_timed_entries_within(simulation->journey, contacts,
													 simulation->npersons, simulation->from - 1,
													 simulation->until - 1, &n);

	for (int i = 0; i < n; i++)
	{
		const int64 *found = bsearch(&entering[i].contact_id, contacts, simulation->npersons,
									 sizeof(int64), crm_compare_int64);
		Past *past;

		if (found == NULL)
			continue;
		past = add_past(simulation, found - contacts, entering[i].at);
		past->rank = LAST_RANK;
		past->entering = &entering[i];
	}
}

static int64
id_of(const Past *past)
{
	return past->signal == NULL ? 0 : past->signal->source_id;
}

static int
compare_past(const void *a, const void *b)
{
	const Past *left = a;
	const Past *right = b;
	int64 left_id = id_of(left);
	int64 right_id = id_of(right);

	if (left->person != right->person)
		return left->person < right->person ? -1 : 1;
	if (left->at != right->at)
		return left->at < right->at ? -1 : 1;
	if (left->rank != right->rank)
		return left->rank < right->rank ? -1 : 1;
	return crm_compare_int64(&left_id, &right_id);
}

/* From when on facts that were recorded in the period may have happened. */
static TimestampTz
earliest(const Simulation *simulation)
{
	int64 lateness = (int64) crm_guc_max_lateness * USECS_PER_SEC;

	return simulation->from < MIN_TIMESTAMP + lateness ? MIN_TIMESTAMP
													   : simulation->from - lateness;
}

static void
find_pasts(Simulation *simulation)
{
	CrmLookBack *asking = palloc_array(CrmLookBack, simulation->npersons);
	int64 *contacts = palloc_array(int64, simulation->npersons);
	TimestampTz until = simulation->until < END_TIMESTAMP - MOST_AHEAD
		? simulation->until + MOST_AHEAD
		: END_TIMESTAMP - 1;
	ListCell *cell;
	int64 next = 0;

	for (int i = 0; i < simulation->npersons; i++)
	{
		asking[i].contact_id = contacts[i] = simulation->persons[i].contact_id;
		asking[i].from = earliest(simulation);
		asking[i].until = until;
	}
	foreach(cell, simulation->kinds)
	{
		int nfound;
		CrmPastFact *found = crm_history_find(lfirst(cell), asking, simulation->npersons, &nfound);

		CHECK_FOR_INTERRUPTS();
		add_facts(simulation, found, nfound);
	}
	add_timed(simulation, contacts);
	if (simulation->npasts > 0)
		qsort(simulation->pasts, simulation->npasts, sizeof(Past), compare_past);
	for (int i = 0; i < simulation->npersons; i++)
	{
		simulation->persons[i].next = next;
		while (next < simulation->npasts && simulation->pasts[next].person == i)
			next++;
		simulation->persons[i].end = next;
	}
}

/* ---- what happens next */

static bool
lets_in(const CrmJourney *journey, const char *kind)
{
	for (int i = 0; i < journey->nentries; i++)
		if (journey->entries[i].timed == NULL && strcmp(journey->entries[i].trigger.on, kind) == 0)
			return true;
	return false;
}

/* The next that may do something for the person. */
static Past *
next_past(Simulation *simulation, Person *person)
{
	for (; person->next < person->end; person->next++)
	{
		Past *past = &simulation->pasts[person->next];

		if (person->nruns > 0 || past->entering != NULL ||
			lets_in(simulation->journey, past->signal->kind))
			return past;
	}
	return NULL;
}

static CrmRun *
next_due(const Simulation *simulation, const Person *person)
{
	CrmRun *due = NULL;

	for (int i = 0; i < person->nruns; i++)
	{
		CrmRun *run = person->runs[i];

		/* what fails now would fail again */
		if (run->stuck == NULL && run->due_at != DT_NOBEGIN && run->due_at < simulation->until &&
			(due == NULL || run->due_at < due->due_at))
			due = run;
	}
	return due;
}

static void
take(CrmEngine *engine, CrmRun *run, TimestampTz now)
{
	run->now = now;
	run->at = Max(run->step_at, now);
	crm_engine_put(engine, run);
}

/* Of those who are asked: where an end is assumed, a message is no reply. */
static void
take_replies(const Simulation *simulation, CrmSignal **signals)
{
	CrmEngine *engine = simulation->engine;

	for (int i = 0; i < engine->nruns; i++)
	{
		const CrmRun *run = engine->runs[i];

		if (crm_run_is_at(run, crm_step_ask) &&
			crm_assumed_outcome(simulation->assumed, run->journey, &run->journey->steps[run->step],
								run->contact_id) != NULL)
			signals[i] = NULL;
	}
	crm_asks_by_signals(engine, signals);
}

/* As a settled statement does: of each person one fact. */
static void
work_signals(Simulation *simulation, Person **persons, CrmSignal **signals, int n)
{
	CrmEngine *engine = simulation->engine;
	CrmSignal **of_runs;
	int nruns = 0;

	engine->nruns = 0;
	for (int i = 0; i < n; i++)
		nruns += persons[i]->nruns;
	of_runs = palloc_array(CrmSignal *, Max(nruns, 1));
	for (int i = 0; i < n; i++)
		for (int k = 0; k < persons[i]->nruns; k++)
		{
			of_runs[engine->nruns] = signals[i];
			take(engine, persons[i]->runs[k], signals[i]->fact.as_of);
		}
	if (nruns > 0)
	{
		crm_endings_by_signals(engine, of_runs);
		crm_endings_by_rules(engine);
		crm_waits_by_signals(engine, of_runs);
		take_replies(simulation, of_runs);
		crm_waits_by_rules(engine, true);
	}
	crm_entries_into(engine, simulation->journey, signals, n);
	crm_engine_run(engine);
	pfree(of_runs);
}

/* Those whose time it is to enter. */
static void
work_entering(Simulation *simulation, CrmEntering *entering, int n)
{
	simulation->engine->nruns = 0;
	crm_enter_all(simulation->engine, entering, n, true);
	crm_engine_run(simulation->engine);
}

/* As tick() does: of each person what is due first. */
static void
work_due(Simulation *simulation, CrmRun **due, int n)
{
	CrmEngine *engine = simulation->engine;

	engine->nruns = 0;
	for (int i = 0; i < n; i++)
		take(engine, due[i], due[i]->due_at);
	crm_endings_by_rules(engine);
	crm_waits_by_rules(engine, false);
	for (int i = 0; i < n; i++)
		crm_run_go_on(due[i], due[i]->now);
	crm_engine_run(engine);
}

/* Until nothing happens to anybody. At one moment a fact comes before the end of a wait, and that before who enters by time. */
static void
replay(Simulation *simulation)
{
	Person **persons = palloc_array(Person *, simulation->npersons);
	CrmSignal **signals = palloc_array(CrmSignal *, simulation->npersons);
	Person **waiting = palloc_array(Person *, simulation->npersons);
	CrmRun **due = palloc_array(CrmRun *, simulation->npersons);
	CrmEntering *entering = palloc_array(CrmEntering, simulation->npersons);
	int nwaiting = simulation->npersons;

	for (int i = 0; i < nwaiting; i++)
		waiting[i] = &simulation->persons[i];
	while (nwaiting > 0)
	{
		int nsignals = 0;
		int nentering = 0;
		int ndue = 0;
		int left = 0;

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < nwaiting; i++)
		{
			Person *person = waiting[i];
			Past *past;
			CrmRun *run;

			forget_ended(person);
			past = next_past(simulation, person);
			run = next_due(simulation, person);
			if (past != NULL &&
				(run == NULL || past->at < run->due_at ||
				 (past->at == run->due_at && past->signal != NULL)))
			{
				person->next++;
				if (past->entering != NULL)
					entering[nentering++] = *past->entering;
				else
				{
					persons[nsignals] = person;
					signals[nsignals++] = past->signal;
				}
			}
			else if (run != NULL)
				due[ndue++] = run;
			else
				continue; /* nothing comes any more */
			waiting[left++] = person;
		}
		nwaiting = left;
		if (nsignals > 0)
			work_signals(simulation, persons, signals, nsignals);
		if (nentering > 0)
			work_entering(simulation, entering, nentering);
		if (ndue > 0)
			work_due(simulation, due, ndue);
	}
}

static void
count_those_left(Simulation *simulation)
{
	for (int i = 0; i < simulation->npersons; i++)
		for (int k = 0; k < simulation->persons[i].nruns; k++)
			if (simulation->persons[i].runs[k]->open != NULL)
				count_visit(simulation, simulation->persons[i].runs[k]->open);
}

static void
simulate_chunk(Simulation *simulation)
{
	simulation->pasts = NULL;
	simulation->npasts = simulation->pasts_size = 0;
	find_pasts(simulation);
	if (simulation->npasts == 0)
		return;
	simulation->engine = crm_engine_create();
	simulation->engine->sink = &simulation->sink;
	replay(simulation);
	count_those_left(simulation);
}

void
crm_simulate(CrmJourney *journey, const CrmAssumed *assumed, TimestampTz from, TimestampTz until,
			 CrmCounts *counts)
{
	Simulation simulation = {
		.sink = { next_id, refused, act, write_counts, is_to_come },
		.journey = journey,
		.assumed = assumed,
		.from = from,
		.until = until,
		.kinds = find_kinds(journey),
		.counts = counts,
		.last_id = PG_INT64_MIN,
	};
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm simulation",
												  ALLOCSET_DEFAULT_SIZES);
	int64 last = PG_INT64_MIN;

	counts->n = 0;
	counts->size = 64;
	counts->list = palloc_array(CrmCount, counts->size);
	do
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		Datum values[2] = { Int64GetDatum(last), Int32GetDatum(CHUNK) };

		CHECK_FOR_INTERRUPTS();
		simulation.npersons = crm_run(&find_contacts, values, NULL);
		simulation.persons = palloc0_array(Person, Max(simulation.npersons, 1));
		for (int i = 0; i < simulation.npersons; i++)
			last = simulation.persons[i].contact_id = crm_result_int64(i, 1);
		SPI_freetuptable(SPI_tuptable);
		if (simulation.npersons > 0)
			simulate_chunk(&simulation);
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	} while (simulation.npersons == CHUNK);
	MemoryContextDelete(context);
}
