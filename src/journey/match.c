/*
 * match.c
 *		Asking the rules of triggers and of steps for many runs at a time.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "journey/carried.h"
#include "journey/match.h"

/*
 * Runs of one journey mostly lie together, so this looks at the neighbour first:
 * those of a batch are few journeys and many contacts.
 */
bool
crm_is_repeated(const CrmEngine *engine, int from, int place)
{
	for (int i = place - 1; i >= from; i--)
		if (engine->runs[i]->journey == engine->runs[place]->journey)
			return true;
	return false;
}

TimestampTz
crm_run_since(const CrmRun *run)
{
	return run->source_at == DT_NOBEGIN ? run->entered_at : Min(run->source_at, run->entered_at);
}

bool
crm_signal_counts(const CrmRun *run, const CrmSignal *signal, const CrmTrigger *trigger,
				  TimestampTz from)
{
	if (signal == NULL || strcmp(signal->kind, trigger->on) != 0)
		return false;
	if (signal->occurred_at < from ||
		signal->fact.as_of - signal->occurred_at > crm_journey_lateness(run->journey))
		return false;
	return signal->source_id == 0 || signal->source_id != run->source_id ||
		strcmp(run->entered_by, signal->kind) != 0;
}

/* With all that was written before; a simulation sees what its statement does. */
void
crm_see_now(void)
{
	if (!crm_only_reads)
		CommandCounterIncrement();
	PushActiveSnapshot(crm_only_reads ? GetActiveSnapshot() : GetTransactionSnapshot());
}

/* Asks a rule over the facts, one for each match. */
static void
ask_facts(CrmFactRule *rule, const CrmJourney *journey, const CrmFactValues *facts,
		  CrmMatch *matches, int n)
{
	const CrmRuleUser user = { "journey", journey->name };
	bool *holds = palloc_array(bool, n);

	crm_see_now();
	crm_fact_rule_evaluate(rule, &user, facts, n, holds);
	PopActiveSnapshot();
	for (int i = 0; i < n; i++)
		matches[i].holds = holds[i];
	pfree(holds);
}

void
crm_match(const CrmTrigger *trigger, const CrmJourney *journey, CrmMatch *matches, int n)
{
	CrmFactValues *facts;

	if (n == 0)
		return;
	if (trigger->when == NULL)
	{
		for (int i = 0; i < n; i++)
			matches[i].holds = true;
		return;
	}
	facts = palloc_array(CrmFactValues, n);
	for (int i = 0; i < n; i++)
		facts[i] = matches[i].signal->fact;
	ask_facts(trigger->when, journey, facts, matches, n);
	pfree(facts);
}

void
crm_ask(const char *rule, const CrmJourney *journey, CrmMatch *matches, int n)
{
	const CrmRuleUser user = { "journey", journey->name };
	int64 *contacts;
	TimestampTz *as_of;
	bool *holds;

	if (n == 0)
		return;
	contacts = palloc_array(int64, n);
	as_of = palloc_array(TimestampTz, n);
	holds = palloc_array(bool, n);
	for (int i = 0; i < n; i++)
	{
		contacts[i] = matches[i].run->contact_id;
		as_of[i] = matches[i].run->at;
	}
	crm_see_now();
	crm_rule_evaluate_at(rule, &user, contacts, n, as_of, holds);
	PopActiveSnapshot();
	for (int i = 0; i < n; i++)
		matches[i].holds = holds[i];
	pfree(contacts);
	pfree(as_of);
	pfree(holds);
}

void
crm_ask_branch(const CrmBranch *branch, const CrmJourney *journey, CrmMatch *matches, int n)
{
	CrmFactValues *facts;

	if (branch->fact == NULL)
	{
		crm_ask(branch->when, journey, matches, n);
		return;
	}
	if (n == 0)
		return;
	facts = palloc_array(CrmFactValues, n);
	for (int i = 0; i < n; i++)
		crm_run_fact(matches[i].run, &facts[i]);
	ask_facts(branch->fact, journey, facts, matches, n);
	pfree(facts);
}
