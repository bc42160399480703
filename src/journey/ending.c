/*
 * ending.c
 *		Goals, and rules to leave by. They hold at every step, and end the
 *		enrolment at once.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "journey/engine.h"
#include "journey/match.h"

static const CrmEnding *
ending_of(const CrmRun *run, bool goal)
{
	return goal ? run->journey->goal : run->journey->exit;
}

static void
end_matched(const CrmMatch *matches, int n, bool goal)
{
	for (int i = 0; i < n; i++)
		if (matches[i].holds && matches[i].run->state == CRM_RUN_ACTIVE)
			crm_run_end(matches[i].run, CRM_RUN_EXITED, goal ? "goal" : "rule",
						matches[i].run->now);
}

/* Facts that count are those after the entry, and not the one that let the contact in. */
static void
match_triggers(CrmEngine *engine, CrmSignal *const *signals, bool goal)
{
	for (int first = 0; first < engine->nruns; first++)
	{
		const CrmRun *run = engine->runs[first];
		const CrmEnding *ending = ending_of(run, goal);

		/* once a journey: by the first of its runs */
		if (ending == NULL || crm_is_repeated(engine, 0, first))
			continue;
		for (int i = 0; i < ending->ntriggers; i++)
		{
			CrmMatch *matches = palloc_array(CrmMatch, engine->nruns);
			int n = 0;

			for (int k = first; k < engine->nruns; k++)
				if (engine->runs[k]->journey == run->journey &&
					engine->runs[k]->state == CRM_RUN_ACTIVE &&
					crm_signal_counts(engine->runs[k], signals[k], &ending->triggers[i],
									  crm_run_since(engine->runs[k])))
				{
					matches[n].run = engine->runs[k];
					matches[n++].signal = signals[k];
				}
			crm_match(&ending->triggers[i], run->journey, matches, n);
			end_matched(matches, n, goal);
			pfree(matches);
		}
	}
}

void
crm_endings_by_signals(CrmEngine *engine, CrmSignal *const *signals)
{
	match_triggers(engine, signals, true);
	match_triggers(engine, signals, false);
}

/* Asks the rules of runs that are active, each as of its clock. */
static void
ask_rules(CrmEngine *engine, int from, bool goal)
{
	for (int first = from; first < engine->nruns; first++)
	{
		const CrmRun *run = engine->runs[first];
		const CrmEnding *ending = ending_of(run, goal);
		CrmMatch *matches;
		int n = 0;

		if (ending == NULL || ending->rule == NULL || crm_is_repeated(engine, from, first))
			continue;
		matches = palloc_array(CrmMatch, engine->nruns);
		for (int k = first; k < engine->nruns; k++)
			if (engine->runs[k]->journey == run->journey &&
				engine->runs[k]->state == CRM_RUN_ACTIVE && engine->runs[k]->ends_at == DT_NOEND)
				matches[n++].run = engine->runs[k];
		crm_ask(ending->rule, run->journey, matches, n);
		for (int i = 0; i < n; i++)
			if (matches[i].holds)
				crm_run_end(matches[i].run, CRM_RUN_EXITED, goal ? "goal" : "rule",
							matches[i].run->at);
		pfree(matches);
	}
}

void
crm_endings_by_rules(CrmEngine *engine)
{
	ask_rules(engine, 0, true);
	ask_rules(engine, 0, false);
}

/* Who enters with the goal reached, or against the rule, is there for no step. */
void
crm_endings_of_begun(CrmEngine *engine, int first)
{
	ask_rules(engine, first, true);
	ask_rules(engine, first, false);
}

static void
end_by_past(CrmEngine *engine, const CrmTrigger *trigger, const CrmLookBack *asking,
			const int *places, int n, bool goal)
{
	int nfound;
	CrmPastFact *found = crm_history_find(trigger->on, asking, n, &nfound);
	CrmMatch *matches = palloc_array(CrmMatch, Max(nfound, 1));
	int m = 0;

	for (int i = 0; i < nfound; i++)
	{
		CrmRun *run = engine->runs[places[found[i].place]];

		if (!crm_signal_counts(run, &found[i].signal, trigger, asking[found[i].place].from))
			continue;
		matches[m].run = run;
		found[m++] = found[i];
	}
	for (int i = 0; i < m; i++)
		matches[i].signal = &found[i].signal;
	if (m > 0)
		crm_match(trigger, matches[0].run->journey, matches, m);
	for (int i = 0; i < m; i++)
		if (matches[i].holds && found[i].recorded_at < matches[i].run->ends_at)
		{
			matches[i].run->ends_at = found[i].recorded_at;
			matches[i].run->ends_by = goal ? "goal" : "rule";
		}
	pfree(matches);
}

/* Facts of the past: the first that was recorded ends the enrolment, where two were at once the goal. */
static void
look_back(CrmEngine *engine, bool goal)
{
	for (int first = 0; first < engine->nruns; first++)
	{
		const CrmRun *run = engine->runs[first];
		const CrmEnding *ending = ending_of(run, goal);
		CrmLookBack *asking;
		int *places;
		int n = 0;

		if (ending == NULL || ending->ntriggers == 0 || crm_is_repeated(engine, 0, first))
			continue;
		asking = palloc_array(CrmLookBack, engine->nruns);
		places = palloc_array(int, engine->nruns);
		for (int k = first; k < engine->nruns; k++)
			if (engine->runs[k]->journey == run->journey &&
				engine->runs[k]->state == CRM_RUN_ACTIVE)
			{
				asking[n].contact_id = engine->runs[k]->contact_id;
				asking[n].from = crm_run_since(engine->runs[k]);
				asking[n].until = DT_NOEND;
				places[n++] = k;
			}
		for (int i = 0; i < ending->ntriggers; i++)
			end_by_past(engine, &ending->triggers[i], asking, places, n, goal);
		pfree(asking);
		pfree(places);
	}
}

void
crm_endings_look_back(CrmEngine *engine)
{
	look_back(engine, true);
	look_back(engine, false);
}
