/*
 * simulate.c
 *		simulate(): what a definition would have done with the facts of a period.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "journey/simulation.h"

PG_FUNCTION_INFO_V1(crm_sql_simulate);

static const CrmJourney *sorted_journey;

/* Entries first, then steps by name; of each by outcome, those who are still there last. */
static int
compare_counts(const void *a, const void *b)
{
	const CrmCount *left = a;
	const CrmCount *right = b;

	if (left->step != right->step)
	{
		if (left->step == CRM_NO_STEP || right->step == CRM_NO_STEP)
			return left->step == CRM_NO_STEP ? -1 : 1;
		return strcmp(sorted_journey->steps[left->step].name,
					  sorted_journey->steps[right->step].name);
	}
	if (left->outcome == NULL || right->outcome == NULL)
		return (left->outcome == NULL) - (right->outcome == NULL);
	if (strcmp(left->outcome, right->outcome) != 0)
		return strcmp(left->outcome, right->outcome);
	if (left->next_step == NULL || right->next_step == NULL)
		return (left->next_step == NULL) - (right->next_step == NULL);
	return strcmp(left->next_step, right->next_step);
}

/* Steps that nobody entered have a row too. */
static void
add_others(CrmCounts *counts, const CrmJourney *journey)
{
	bool *known = palloc0_array(bool, journey->nsteps);
	int n = counts->n;

	for (int i = 0; i < n; i++)
		if (counts->list[i].step != CRM_NO_STEP)
			known[counts->list[i].step] = true;
	counts->list = repalloc_array(counts->list, CrmCount, n + journey->nsteps);
	for (int step = 0; step < journey->nsteps; step++)
		if (!known[step])
			counts->list[counts->n++] = (CrmCount){ .step = step };
}

static void
answer(ReturnSetInfo *result, const CrmJourney *journey, CrmCounts *counts)
{
	add_others(counts, journey);
	sorted_journey = journey;
	qsort(counts->list, counts->n, sizeof(CrmCount), compare_counts);
	for (int i = 0; i < counts->n; i++)
	{
		const CrmCount *count = &counts->list[i];
		Datum values[5] = { 0 };
		bool nulls[5] = { false };
		int64 entered = 0;

		for (int k = 0; k < counts->n; k++)
			if (counts->list[k].step == count->step)
				entered += counts->list[k].moves;
		nulls[0] = count->step == CRM_NO_STEP;
		if (!nulls[0])
			values[0] = CStringGetTextDatum(journey->steps[count->step].name);
		values[1] = Int64GetDatum(entered);
		nulls[2] = count->outcome == NULL;
		if (!nulls[2])
			values[2] = CStringGetTextDatum(count->outcome);
		nulls[3] = count->next_step == NULL;
		if (!nulls[3])
			values[3] = CStringGetTextDatum(count->next_step);
		values[4] = Int64GetDatum(count->moves);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
}

static void
require_arguments(FunctionCallInfo fcinfo)
{
	static const char *const names[] = { "definition", "period_start", "period_end", "assume" };

	for (int i = 0; i < lengthof(names); i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument %s of crm.simulate() must not be NULL", names[i]),
					 errhint("Give a document, and the times between which facts were recorded.")));
	if (TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(1)) ||
		TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(2)) ||
		PG_GETARG_TIMESTAMPTZ(1) >= PG_GETARG_TIMESTAMPTZ(2))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the period from %s to %s is none",
						pstrdup(timestamptz_to_str(PG_GETARG_TIMESTAMPTZ(1))),
						pstrdup(timestamptz_to_str(PG_GETARG_TIMESTAMPTZ(2)))),
				 errhint("It ends after it begins, and both are finite times.")));
}

Datum
crm_sql_simulate(PG_FUNCTION_ARGS)
{
	Jsonb *definition;
	Jsonb *assume;
	CrmCounts counts = { 0 };
	CrmJourney *journey;
	CrmActing acting;
	bool before = crm_only_reads;

	require_arguments(fcinfo);
	definition = PG_GETARG_JSONB_P(0);
	assume = PG_GETARG_JSONB_P(3);
	InitMaterializedSRF(fcinfo, 0);
	crm_connect(&acting);
	crm_only_reads = true;
	PG_TRY();
	{
		journey = crm_journey_read(definition, CurrentMemoryContext);
		journey->is_current = true;
		crm_simulate(journey, crm_assume_read(journey, assume), PG_GETARG_TIMESTAMPTZ(1),
					 PG_GETARG_TIMESTAMPTZ(2), &counts);
	}
	PG_FINALLY();
	{
		crm_only_reads = before;
	}
	PG_END_TRY();
	answer((ReturnSetInfo *) fcinfo->resultinfo, journey, &counts);
	crm_disconnect(&acting);
	return (Datum) 0;
}
