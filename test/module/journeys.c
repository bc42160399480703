/*
 * journeys.c
 *		For tests only: what a backend knows of journeys, asked of the pg_crm that
 *		is loaded in it.
 */
#include "pg_crm.h"

#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "journey/definition.h"

PG_FUNCTION_INFO_V1(rooms_journeys);
PG_FUNCTION_INFO_V1(rooms_journey_find);
PG_FUNCTION_INFO_V1(rooms_journey_listens);

static void *
symbol(const char *name)
{
	return load_external_function("$libdir/pg_crm", name, true, NULL);
}

static void
describe(StringInfo text, const CrmJourney *journey)
{
	static const char *const states[] = { "open", "closed", "frozen", "cancelled" };

	appendStringInfo(text, "%s%s %d %s%s", text->len > 0 ? ", " : "", journey->name,
					 journey->version, states[journey->state],
					 journey->is_current ? " current" : "");
	for (int i = 0; i < journey->nsteps; i++)
		if (journey->steps[i].rule != NULL)
			appendStringInfo(text, " (%s)", journey->steps[i].rule);
}

Datum
rooms_journeys(PG_FUNCTION_ARGS)
{
	const CrmJourneys *(*known)(void) = symbol("crm_journeys");
	const CrmJourneys *journeys = known();
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < journeys->n; i++)
		describe(&text, journeys->list[i]);
	PG_RETURN_TEXT_P(cstring_to_text(text.data));
}

/* The journey, and where its steps are in memory: the same place is not compiled anew. */
Datum
rooms_journey_find(PG_FUNCTION_ARGS)
{
	CrmJourney *(*find)(const char *, int) = symbol("crm_journey_find");
	int (*find_step)(const CrmJourney *, const char *) = symbol("crm_step_find");
	CrmJourney *journey = find(text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_INT32(1));
	StringInfoData text;

	if (journey == NULL)
		PG_RETURN_NULL();
	for (int i = 0; i < journey->nsteps; i++)
		if (find_step(journey, journey->steps[i].name) != i)
			elog(ERROR, "step \"%s\" is not found", journey->steps[i].name);
	if (find_step(journey, "no such step") != CRM_NO_STEP)
		elog(ERROR, "a step is found that is not there");
	initStringInfo(&text);
	describe(&text, journey);
	if (PG_GETARG_BOOL(2))
		appendStringInfo(&text, " %p", journey->steps);
	PG_RETURN_TEXT_P(cstring_to_text(text.data));
}

Datum
rooms_journey_listens(PG_FUNCTION_ARGS)
{
	bool (*listens)(const char *) = symbol("crm_journey_listens");

	PG_RETURN_BOOL(listens(text_to_cstring(PG_GETARG_TEXT_PP(0))));
}
