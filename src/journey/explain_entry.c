/*
 * explain_entry.c
 *		Why a contact could enter a journey, or could not.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/guc.h"
#include "journey/carried.h"
#include "journey/explain.h"

/* how many days back refusals are told */
#define REFUSAL_DAYS 30

static CrmPlan find_refusals = {
	"SELECT r.reason, r.refusals, r.first_at, r.last_at FROM crm.refusal r"
	" WHERE r.contact_id = $1 AND r.kind = 'journey' AND r.object = $2"
	" AND r.last_at > $3 AND r.first_at <= $4 ORDER BY r.last_at DESC, r.reason COLLATE \"C\"",
	4,
	{ INT8OID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID }
};

static const char *const state_names[] = { [CRM_JOURNEY_OPEN] = "open",
										   [CRM_JOURNEY_CLOSED] = "closed",
										   [CRM_JOURNEY_FROZEN] = "frozen",
										   [CRM_JOURNEY_CANCELLED] = "cancelled" };
static const char *const policy_names[] = { [CRM_REENTRY_ONCE] = "once",
											[CRM_REENTRY_AFTER_EXIT] = "after_exit",
											[CRM_REENTRY_COOLDOWN] = "cooldown",
											[CRM_REENTRY_PER_KEY] = "per_key",
											[CRM_REENTRY_ALWAYS] = "always" };

/* The latest fact that fits any entry; NULL: none does. */
static const CrmSignal *
explain_entries(CrmExplanation *explanation)
{
	const CrmJourney *journey = explanation->journey;
	const CrmSignal *latest = NULL;

	for (int i = 0; i < journey->nentries; i++)
	{
		const CrmEntry *entry = &journey->entries[i];
		char *prefix = psprintf("entry %d", i + 1);
		const CrmSignal *fact;
		bool fits;

		if (entry->timed != NULL)
		{
			char *part = psprintf("%s on %s", prefix, entry->timed->by_date ? "date" : "schedule");

			if (entry->timed->by_date)
				crm_explain_add(explanation, part, true, "the date is %s", entry->timed->property);
			else
				crm_explain_add(explanation, part, true, "for an audience");
			if (entry->timed->audience != NULL)
				(void) crm_explain_rule(explanation, prefix, entry->timed->audience);
			continue;
		}
		fact = crm_explain_trigger(explanation, prefix, &entry->trigger, NULL, DT_NOBEGIN, DT_NOEND,
								   &fits);
		if (fits && (latest == NULL || fact->fact.as_of > latest->fact.as_of))
			latest = fact;
	}
	return latest;
}

static void
explain_policy(CrmExplanation *explanation, const CrmEntering *entering,
			   const CrmEntryObstacle *obstacle)
{
	const CrmJourney *journey = explanation->journey;
	const char *policy = policy_names[journey->reentry];

	if (obstacle->reason == NULL)
		crm_explain_add(explanation, "reentry", true, "%s", policy);
	else if (obstacle->active)
		crm_explain_add(explanation, "reentry", false, "%s: enrolment %lld is active since %s",
						policy, (long long) obstacle->enrolment_id,
						crm_explain_time(obstacle->entered_at));
	else if (journey->reentry == CRM_REENTRY_COOLDOWN)
		crm_explain_add(explanation, "reentry", false,
						"%s: after enrolment %lld of %s not before %s", policy,
						(long long) obstacle->enrolment_id, crm_explain_time(obstacle->entered_at),
						crm_explain_time(crm_add_interval(obstacle->entered_at, journey->cooldown,
														  journey->zone)));
	else
		crm_explain_add(explanation, "reentry", false, "%s: enrolment %lld entered at %s", policy,
						(long long) obstacle->enrolment_id, crm_explain_time(obstacle->entered_at));
}

static char *
interval_text(int64 duration)
{
	Interval interval = { .time = duration };
	Datum justified = DirectFunctionCall1(interval_justify_hours, IntervalPGetDatum(&interval));

	return DatumGetCString(DirectFunctionCall1(interval_out, justified));
}

static void
explain_lateness(CrmExplanation *explanation, const CrmSignal *fact)
{
	const CrmJourney *journey = explanation->journey;
	int64 most = journey->max_lateness >= 0 ? journey->max_lateness
											: (int64) crm_guc_max_lateness * USECS_PER_SEC;
	int64 late = fact->fact.as_of - fact->occurred_at;

	crm_explain_add(explanation, "max_lateness", late <= most,
					"%s of %s was recorded %s later, at most %s is in time", fact->kind,
					crm_explain_time(fact->occurred_at), interval_text(late), interval_text(most));
}

static void
explain_hold_out(CrmExplanation *explanation)
{
	const CrmJourney *journey = explanation->journey;
	double draw = crm_draw(journey->name, "hold_out", explanation->contact_id);

	if (journey->hold_out > 0)
		crm_explain_add(explanation, "hold_out", draw >= journey->hold_out,
						"drawn %.4f, held out below %g", draw, journey->hold_out);
}

/* What was refused on the days before; it says nothing of now. */
static void
explain_refusals(CrmExplanation *explanation)
{
	Datum values[4] = { Int64GetDatum(explanation->contact_id),
						CStringGetTextDatum(explanation->journey->name),
						TimestampTzGetDatum(explanation->as_of - REFUSAL_DAYS * USECS_PER_DAY),
						TimestampTzGetDatum(explanation->as_of) };
	uint64 n = crm_run(&find_refusals, values, NULL);

	for (uint64 row = 0; row < n; row++)
		crm_explain_add(explanation, psprintf("refused: %s", crm_result_text(row, 1)), false,
						"%lld times from %s to %s", (long long) crm_result_int64(row, 2),
						crm_explain_time(crm_result_time(row, 3, DT_NOBEGIN)),
						crm_explain_time(crm_result_time(row, 4, DT_NOBEGIN)));
	SPI_freetuptable(SPI_tuptable);
}

/* As by the latest fact that would let the contact in; without one as by hand, under a key of its own. */
static void
fill_entering(CrmEntering *entering, const CrmExplanation *explanation, const CrmSignal *fact)
{
	entering->journey = explanation->journey;
	entering->contact_id = explanation->contact_id;
	entering->at = explanation->as_of;
	entering->entered_by = "api";
	entering->source_at = DT_NOBEGIN;
	if (explanation->journey->reentry == CRM_REENTRY_PER_KEY && fact != NULL)
		entering->key = crm_member_text(crm_signal_entry(fact), explanation->journey->key);
	if (entering->key == NULL)
		entering->key = "";
}

void
crm_explain_entry(CrmExplanation *explanation)
{
	const CrmJourney *journey = explanation->journey;
	CrmEntering entering = { 0 };
	CrmEntryObstacle obstacle;
	const CrmSignal *fact;

	crm_explain_add(explanation, "journey", journey->state == CRM_JOURNEY_OPEN, "%s, version %d",
					state_names[journey->state], journey->version);
	fact = explain_entries(explanation);
	fill_entering(&entering, explanation, fact);
	if (crm_entry_refusal(explanation->engine, &entering, &obstacle) != NULL)
		explanation->goes = false;
	explain_policy(explanation, &entering, &obstacle);
	explain_hold_out(explanation);
	if (fact != NULL)
		explain_lateness(explanation, fact);
	crm_explain_endings(explanation, journey, NULL);
	explain_refusals(explanation);
}
