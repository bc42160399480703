/*
 * wait.c
 *		Steps at which time passes: until a moment, a fact, or a condition.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "journey/engine.h"
#include "journey/kinds.h"
#include "journey/match.h"
#include "journey/carried.h"

bool
crm_run_is_at(const CrmRun *run, void (*enter)(CrmMoves *moves))
{
	return run->state == CRM_RUN_ACTIVE && !run->moving && run->step != CRM_NO_STEP &&
		run->stuck == NULL && run->journey->steps[run->step].kind->enter == enter;
}

/* Until then, or at once where that is past. */
static void
wait_until(CrmRun *run, TimestampTz until, int next)
{
	if (until <= run->at)
		crm_run_leave(run, "next", next);
	else
		crm_run_stay(run, until);
}

/* ---- wait */

/* "2026-12-01" is a day of the zone, anything else an instant. */
static TimestampTz
read_moment(const char *text, const CrmStep *step, const pg_tz *zone)
{
	pg_tz *outside = session_timezone;
	TimestampTz moment = 0;
	bool is_day = strlen(text) == strlen("2026-12-01");

	session_timezone = unconstify(pg_tz *, zone);
	PG_TRY();
	{
		moment = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(text),
														 ObjectIdGetDatum(InvalidOid),
														 Int32GetDatum(-1)));
	}
	PG_FINALLY();
	{
		session_timezone = outside;
	}
	PG_END_TRY();
	if (step->offset != NULL)
		moment = crm_add_interval(moment, step->offset, zone);
	if (is_day && step->minute_of_day < 0 && step->hours == NULL)
		return moment;
	return crm_next_local(moment, step->minute_of_day, step->hours, zone);
}

static void
wait_for_dates(CrmMoves *moves)
{
	const CrmStep *step = moves->step;
	const pg_tz **zones = crm_zones_of(moves);
	char **texts = crm_run_values(moves, step->date);

	for (int i = 0; i < moves->n; i++)
	{
		CrmRun *run = moves->runs[i];

		/* no date to wait for goes on, as one in the past does */
		wait_until(run, texts[i] == NULL ? run->at : read_moment(texts[i], step, zones[i]),
				   step->next);
	}
}

void
crm_step_wait(CrmMoves *moves)
{
	const CrmStep *step = moves->step;
	bool by_clock = step->minute_of_day >= 0 || step->hours != NULL;
	/* who comes just at the time of the day that stands alone waits for the next one */
	int later = step->minute_of_day >= 0 && step->within == NULL && step->until == DT_NOBEGIN;
	const pg_tz **zones;

	if (step->date != NULL)
	{
		/* an event may say anything for a date */
		crm_moves_attempt(moves, wait_for_dates);
		return;
	}
	zones = by_clock ? crm_zones_of(moves) : NULL;
	for (int i = 0; i < moves->n; i++)
	{
		CrmRun *run = moves->runs[i];
		TimestampTz until = step->until != DT_NOBEGIN ? step->until : run->at;

		if (step->within != NULL)
			until = crm_add_interval(run->at, step->within, moves->journey->zone);
		if (by_clock)
			until = crm_next_local(Max(until, run->at + later), step->minute_of_day, step->hours,
								   zones[i]);
		wait_until(run, until, step->next);
	}
}

/* ---- wait_for */

static CrmPlan find_step_before = {
	"SELECT v.entered_at FROM crm.step_visit v WHERE v.contact_id = $1 AND v.enrolment_id = $2"
	" AND v.visit = $3",
	3,
	{ INT8OID, INT8OID, INT4OID }
};

/* When the step before was entered; the step itself where there was none. */
static TimestampTz
step_before_at(const CrmRun *run)
{
	Datum values[3] = { Int64GetDatum(run->contact_id), Int64GetDatum(run->enrolment_id),
						Int32GetDatum(run->visit - 1) };

	if (run->previous_at != DT_NOBEGIN)
		return run->previous_at;
	return crm_run(&find_step_before, values, NULL) == 0 ? run->step_at
														 : crm_result_time(0, 1, run->step_at);
}

TimestampTz
crm_wait_since(const CrmRun *run, const CrmStep *step)
{
	if (step->since_step)
		return step_before_at(run);
	return crm_run_since(run);
}

/*
 * With since "step" each fact moves a run once: not the one that led here, and
 * none that led to the step before. Who has been here for a while has looked
 * already at what was recorded before.
 */
static bool
is_since_step(const CrmRun *run, const CrmPastFact *fact, TimestampTz from)
{
	if (run->previous_at == DT_NOBEGIN)
		return fact->recorded_at > run->step_at;
	return fact->recorded_at > from &&
		(run->moved_by == NULL || !crm_signal_is_same(&fact->signal, run->moved_by));
}

static bool
is_to_come(const CrmEngine *engine, const CrmRun *run, const CrmPastFact *fact)
{
	if (engine->sink != NULL)
		return engine->sink->is_to_come(engine, fact, run->now);
	return crm_signal_is_waiting(&fact->signal);
}

/*
 * What was recorded before may satisfy the wait: the first fact of its interval
 * that does. It moves the run when it was recorded, not before the run came here.
 * What the same statement recorded and nobody has noticed yet has its own turn.
 */
static void
look_back(CrmMoves *moves)
{
	const CrmStep *step = moves->step;
	CrmLookBack *asking = palloc_array(CrmLookBack, moves->n);
	CrmMatch *matches;
	CrmPastFact *found;
	int nfound;
	int n = 0;

	for (int i = 0; i < moves->n; i++)
	{
		asking[i].contact_id = moves->runs[i]->contact_id;
		asking[i].from = crm_wait_since(moves->runs[i], step);
		asking[i].until = moves->runs[i]->step_due_at;
	}
	found = crm_history_find(step->trigger.on, asking, moves->n, &nfound);
	matches = palloc_array(CrmMatch, Max(nfound, 1));
	for (int i = 0; i < nfound; i++)
	{
		CrmRun *run = moves->runs[found[i].place];

		TimestampTz from = asking[found[i].place].from;

		if (!crm_signal_counts(run, &found[i].signal, &step->trigger, from) ||
			(step->since_step && !is_since_step(run, &found[i], from)) ||
			is_to_come(moves->engine, run, &found[i]))
			continue;
		matches[n].run = run;
		found[n] = found[i];
		n++;
	}
	for (int i = 0; i < n; i++)
		matches[i].signal = &found[i].signal;
	crm_match(&step->trigger, moves->journey, matches, n);
	for (int i = 0; i < n; i++)
	{
		CrmRun *run = matches[i].run;

		if (!matches[i].holds || run->moving || run->state != CRM_RUN_ACTIVE ||
			found[i].recorded_at >= run->ends_at)
			continue;
		run->at = Max(run->at, found[i].recorded_at);
		run->moved_by = matches[i].signal;
		crm_run_leave(run, "next", step->next);
	}
	pfree(asking);
	pfree(matches);
}

void
crm_step_wait_for(CrmMoves *moves)
{
	for (int i = 0; i < moves->n; i++)
		crm_run_stay(moves->runs[i],
					 crm_add_interval(moves->runs[i]->at, moves->step->within,
									  moves->journey->zone));
	look_back(moves);
}

void
crm_waits_by_signals(CrmEngine *engine, CrmSignal *const *signals)
{
	for (int first = 0; first < engine->nruns; first++)
	{
		CrmRun *run = engine->runs[first];
		const CrmStep *step;
		CrmMatch *matches;
		int n = 0;

		if (!crm_run_is_at(run, crm_step_wait_for) || signals[first] == NULL || run->looked)
			continue;
		step = &run->journey->steps[run->step];
		matches = palloc_array(CrmMatch, engine->nruns);
		for (int k = first; k < engine->nruns; k++)
		{
			CrmRun *other = engine->runs[k];

			if (!crm_run_is_at(other, crm_step_wait_for) ||
				&other->journey->steps[other->step] != step)
				continue;
			other->looked = true;
			/* at the very moment of the deadline the fact wins */
			if (!crm_signal_counts(other, signals[k], &step->trigger,
								   crm_wait_since(other, step)) ||
				signals[k]->occurred_at > other->step_due_at)
				continue;
			matches[n].run = other;
			matches[n++].signal = signals[k];
		}
		crm_match(&step->trigger, run->journey, matches, n);
		for (int i = 0; i < n; i++)
			if (matches[i].holds)
			{
				matches[i].run->at = Max(matches[i].run->step_at, matches[i].run->now);
				matches[i].run->moved_by = matches[i].signal;
				crm_run_leave(matches[i].run, "next", step->next);
			}
		pfree(matches);
	}
}

/* ---- wait_until */

static void
ask_conditions(CrmMoves *moves)
{
	CrmMatch *matches = palloc_array(CrmMatch, moves->n);

	for (int i = 0; i < moves->n; i++)
		matches[i].run = moves->runs[i];
	crm_ask(moves->step->rule, moves->journey, matches, moves->n);
	for (int i = 0; i < moves->n; i++)
		if (matches[i].holds)
			crm_run_leave(matches[i].run, "next", moves->step->next);
	pfree(matches);
}

void
crm_step_wait_until(CrmMoves *moves)
{
	for (int i = 0; i < moves->n; i++)
		crm_run_stay(moves->runs[i],
					 crm_add_interval(moves->runs[i]->at, moves->step->within,
									  moves->journey->zone));
	ask_conditions(moves);
}

void
crm_moves_take(CrmEngine *engine, int first, CrmMoves *moves)
{
	const CrmRun *run = engine->runs[first];

	moves->engine = engine;
	moves->journey = run->journey;
	moves->step = &run->journey->steps[run->step];
	moves->n = 0;
	moves->runs = palloc_array(CrmRun *, engine->nruns - first);
	for (int k = first; k < engine->nruns; k++)
	{
		CrmRun *other = engine->runs[k];

		if (other->looked || !crm_run_is_at(other, moves->step->kind->enter) ||
			&other->journey->steps[other->step] != moves->step)
			continue;
		other->looked = true;
		moves->runs[moves->n++] = other;
	}
}

void
crm_looks_forget(CrmEngine *engine)
{
	for (int i = 0; i < engine->nruns; i++)
		engine->runs[i]->looked = false;
}

void
crm_waits_by_rules(CrmEngine *engine, bool noticed)
{
	CrmMoves moves;

	crm_looks_forget(engine);
	for (int first = 0; first < engine->nruns; first++)
	{
		CrmRun *run = engine->runs[first];

		if (run->looked || !crm_run_is_at(run, crm_step_wait_until))
			continue;
		crm_moves_take(engine, first, &moves);
		/* what becomes true after the deadline comes too late, though nobody has looked since */
		for (int i = 0; i < moves.n; i++)
		{
			CrmRun *late = moves.runs[i];

			if (late->at <= late->step_due_at)
				continue;
			/* unless time alone has made it true before */
			if (noticed && late->step_due_at != DT_NOBEGIN && late->due_at == late->step_due_at)
				crm_leave_by_time(late);
			moves.runs[i--] = moves.runs[--moves.n];
		}
		ask_conditions(&moves);
	}
	crm_looks_forget(engine);
}

void
crm_waits_look_back(CrmEngine *engine)
{
	CrmMoves moves;

	crm_looks_forget(engine);
	for (int first = 0; first < engine->nruns; first++)
	{
		CrmRun *run = engine->runs[first];

		if (run->looked || !crm_run_is_at(run, crm_step_wait_for))
			continue;
		crm_moves_take(engine, first, &moves);
		look_back(&moves);
	}
	crm_looks_forget(engine);
}

void
crm_leave_by_time(CrmRun *run)
{
	const CrmStep *step = &run->journey->steps[run->step];

	run->at = Max(run->step_at, run->step_due_at);
	if (step->kind->enter == crm_step_wait)
		crm_run_leave(run, "next", step->next);
	else
		crm_run_leave(run, "timeout", step->on_timeout);
}

/* ---- when to look next */

static void
come_nearer(CrmRun *run, TimestampTz *due, const char *rule, CrmRuleTime time)
{
	TimestampTz moment;

	if (rule == NULL || time == CRM_TIME_NONE)
		return;
	crm_rule_due(rule, &run->contact_id, 1, run->at, &moment);
	*due = Min(*due, moment);
}

void
crm_runs_plan(CrmEngine *engine)
{
	for (int i = 0; i < engine->nruns; i++)
	{
		CrmRun *run = engine->runs[i];
		const CrmEnding *goal = run->journey->goal;
		const CrmEnding *leave = run->journey->exit;
		TimestampTz due = DT_NOEND;

		/* a reply is bound at the moment it came */
		if (run->state != CRM_RUN_ACTIVE || run->stuck != NULL || run->reply != NULL)
			continue;
		if (run->step_due_at != DT_NOBEGIN)
			due = run->step_due_at;
		if (goal != NULL)
			come_nearer(run, &due, goal->rule, goal->time);
		if (leave != NULL)
			come_nearer(run, &due, leave->rule, leave->time);
		if (crm_run_is_at(run, crm_step_wait_until))
			come_nearer(run, &due, run->journey->steps[run->step].rule,
						run->journey->steps[run->step].time);
		if (due == DT_NOEND)
			due = DT_NOBEGIN;
		run->changed |= due != run->due_at;
		run->due_at = due;
	}
}
