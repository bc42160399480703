/*
 * explain.c
 *		crm.explain() and crm.eligible() of journeys: the same questions as the
 *		executor's, asked one by one, and nothing done.
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "journey/explain.h"
#include "journey/match.h"

PG_FUNCTION_INFO_V1(crm_sql_explain_journey);
PG_FUNCTION_INFO_V1(crm_sql_eligible);

/* ---- rows */

static void
put(CrmExplanation *explanation, const char *part, bool known, bool holds, const char *found)
{
	ReturnSetInfo *result = explanation->result;
	Datum values[3] = { CStringGetTextDatum(part), BoolGetDatum(holds), (Datum) 0 };
	bool nulls[3] = { false, !known, found == NULL };

	if (result == NULL)
		return;
	if (found != NULL)
		values[2] = CStringGetTextDatum(found);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

void
crm_explain_add(CrmExplanation *explanation, const char *part, bool holds, const char *format, ...)
{
	StringInfoData found;
	va_list arguments;
	int needed;

	initStringInfo(&found);
	for (;;)
	{
		va_start(arguments, format);
		needed = appendStringInfoVA(&found, format, arguments);
		va_end(arguments);
		if (needed == 0)
			break;
		enlargeStringInfo(&found, needed);
	}
	put(explanation, part, true, holds, found.data);
}

char *
crm_explain_time(TimestampTz at)
{
	return pstrdup(timestamptz_to_str(at));
}

typedef struct Prefixed
{
	CrmExplanation *explanation;
	const char *prefix;
	bool is_first;
	bool holds; /* all of it */
} Prefixed;

static void
put_prefixed(void *arg, const CrmExplained *explained)
{
	Prefixed *prefixed = arg;

	if (prefixed->is_first)
		prefixed->holds = explained->known && explained->holds;
	prefixed->is_first = false;
	put(prefixed->explanation, psprintf("%s: %s", prefixed->prefix, explained->part),
		explained->known, explained->holds, explained->found);
}

bool
crm_explain_rule(CrmExplanation *explanation, const char *prefix, const char *rule)
{
	Prefixed prefixed = { .explanation = explanation, .prefix = prefix, .is_first = true };

	crm_rule_explain(rule, explanation->contact_id, explanation->as_of, put_prefixed, &prefixed);
	return prefixed.holds;
}

bool
crm_explain_fact_rule(CrmExplanation *explanation, const char *prefix, const CrmFactRule *rule,
					  const CrmFactValues *fact)
{
	Prefixed prefixed = { .explanation = explanation, .prefix = prefix, .is_first = true };
	CrmFactValues nothing = { .contact_id = explanation->contact_id, .as_of = explanation->as_of };

	memset(nothing.nulls, true, sizeof(nothing.nulls));
	crm_fact_rule_explain(rule, fact == NULL ? &nothing : fact, put_prefixed, &prefixed);
	return prefixed.holds;
}

/* ---- facts */

static const CrmSignal *
find_fact(CrmExplanation *explanation, const CrmTrigger *trigger, const CrmRun *run,
		  TimestampTz from, TimestampTz until, bool *fits)
{
	CrmLookBack asking = { explanation->contact_id, from, Min(until, explanation->as_of) };
	int nfound;
	CrmPastFact *found = crm_history_find(trigger->on, &asking, 1, &nfound);
	CrmMatch *matches = palloc0_array(CrmMatch, Max(nfound, 1));
	int n = 0;

	for (int i = 0; i < nfound; i++)
		if (found[i].recorded_at <= explanation->as_of &&
			(run == NULL || crm_signal_counts(run, &found[i].signal, trigger, from)))
			matches[n++].signal = &found[i].signal;
	crm_match(trigger, explanation->journey, matches, n);
	*fits = false;
	for (int i = n - 1; i >= 0 && !*fits; i--)
		if (matches[i].holds)
		{
			*fits = true;
			return matches[i].signal;
		}
	return n == 0 ? NULL : matches[n - 1].signal;
}

const CrmSignal *
crm_explain_trigger(CrmExplanation *explanation, const char *prefix, const CrmTrigger *trigger,
					const CrmRun *run, TimestampTz from, TimestampTz until, bool *fits)
{
	const CrmSignal *fact = find_fact(explanation, trigger, run, from, until, fits);
	char *part = psprintf("%s on %s", prefix, trigger->on);

	if (fact == NULL && from == DT_NOBEGIN)
		crm_explain_add(explanation, part, false, "no %s", trigger->on);
	else if (fact == NULL)
		crm_explain_add(explanation, part, false, "no %s since %s", trigger->on,
						crm_explain_time(from));
	else if (fact->source_id == 0)
		crm_explain_add(explanation, part, *fits, "%s of %s", trigger->on,
						crm_explain_time(fact->occurred_at));
	else
		crm_explain_add(explanation, part, *fits, "%s %lld of %s", trigger->on,
						(long long) fact->source_id, crm_explain_time(fact->occurred_at));
	if (trigger->when != NULL && explanation->result != NULL)
		(void) crm_explain_fact_rule(explanation, prefix, trigger->when,
									 fact == NULL ? NULL : &fact->fact);
	return fact;
}

/* ---- endings */

static void
explain_ending(CrmExplanation *explanation, const char *name, const CrmEnding *ending,
			   const CrmRun *run)
{
	if (ending == NULL)
		return;
	if (ending->rule != NULL && crm_explain_rule(explanation, name, ending->rule))
		explanation->goes = false;
	for (int i = 0; i < ending->ntriggers && run != NULL; i++)
	{
		bool fits;

		(void) crm_explain_trigger(explanation, name, &ending->triggers[i], run, crm_run_since(run),
								   DT_NOEND, &fits);
		if (fits)
			explanation->goes = false;
	}
}

void
crm_explain_endings(CrmExplanation *explanation, const CrmJourney *journey, const CrmRun *run)
{
	explain_ending(explanation, "goal", journey->goal, run);
	explain_ending(explanation, "exit", journey->exit, run);
}

/* ---- functions */

static void
explain(CrmExplanation *explanation, const char *journey, const char *step)
{
	explanation->journey = crm_journey_find(journey, 0);
	if (explanation->journey == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("journey \"%s\" does not exist",
						pnstrdup(journey, pg_mbcliplen(journey, strlen(journey), NAMEDATALEN))),
				 errhint("Name a journey of crm.journey; of a rule name the time, as"
						 " explain(1, 'orders > 0', as_of => '2026-01-01').")));
	crm_rule_require_contact(explanation->contact_id);
	explanation->engine = crm_engine_create();
	if (step == NULL)
		crm_explain_entry(explanation);
	else
		crm_explain_step(explanation, step);
}

/* By the snapshot of the statement that asks, writing nothing. */
static bool
run_explanation(FunctionCallInfo fcinfo, const char *function, ReturnSetInfo *result)
{
	CrmExplanation explanation = { .result = result, .goes = true };
	bool before = crm_only_reads;
	CrmActing acting;
	char *journey;
	char *step;

	for (int i = 0; i < 2; i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument \"%s\" of crm.%s() must not be NULL",
							i == 0 ? "contact_id" : "journey", function),
					 errhint("Name a contact and a journey.")));
	explanation.contact_id = PG_GETARG_INT64(0);
	journey = text_to_cstring(PG_GETARG_TEXT_PP(1));
	step = PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2));
	explanation.as_of = crm_as_of_argument(fcinfo, 3);
	crm_connect(&acting);
	crm_only_reads = true;
	PG_TRY();
	{
		explain(&explanation, journey, step);
	}
	PG_FINALLY();
	{
		crm_only_reads = before;
	}
	PG_END_TRY();
	crm_disconnect(&acting);
	return explanation.goes;
}

Datum
crm_sql_explain_journey(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	(void) run_explanation(fcinfo, "explain", (ReturnSetInfo *) fcinfo->resultinfo);
	return (Datum) 0;
}

Datum
crm_sql_eligible(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(run_explanation(fcinfo, "eligible", NULL));
}
