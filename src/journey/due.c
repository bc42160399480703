/*
 * due.c
 *		What time brings to enrolments: waits that are over, conditions that became
 *		true, messages that have ended, steps that are tried again.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "journey/engine.h"

/* the end of a message that somebody waits for in a journey where nobody moves */
#define IS_FROZEN(moving)                                                                      \
	"EXISTS (SELECT FROM crm.enrolment e WHERE e.contact_id = m.contact_id"                    \
	" AND e.message_id = m.message_id AND e.state = 'active' AND NOT e.journey = ANY (" moving \
	"))"

static CrmPlan find_due = {
	"SELECT x.contact_id FROM"
	" (SELECT d.contact_id, d.due_at FROM unnest($3) AS j(journey) CROSS JOIN LATERAL"
	"   (SELECT e.contact_id, e.due_at, e.enrolment_id FROM crm.enrolment e"
	"     WHERE e.journey = j.journey AND e.state = 'active' AND e.due_at <= $1"
	"     ORDER BY e.due_at, e.contact_id, e.enrolment_id LIMIT $2) d"
	"  UNION ALL"
	"  (SELECT m.contact_id, m.due_at FROM crm.message_end m WHERE m.due_at <= $1"
	"    AND NOT " IS_FROZEN(
		"$3") "    ORDER BY m.due_at, m.contact_id LIMIT $2)"
			  "  UNION ALL"
			  "  (SELECT d.contact_id, d.due_at FROM crm.entry_due d"
			  "    JOIN crm.contact c ON c.contact_id = d.contact_id WHERE d.due_at <= $1"
			  "    ORDER BY d.due_at, d.contact_id LIMIT $2)) x"
			  " GROUP BY x.contact_id ORDER BY min(x.due_at), x.contact_id LIMIT $2",
	3,
	{ TIMESTAMPTZOID, INT8OID, TEXTARRAYOID },
	.always_generic = true,
	.by_index = true
};
static CrmPlan find_next = {
	"SELECT least((SELECT min(d.due_at) FROM unnest($1) AS j(journey) CROSS JOIN LATERAL"
	"   (SELECT e.due_at FROM crm.enrolment e WHERE e.journey = j.journey"
	"     AND e.state = 'active' AND e.due_at IS NOT NULL ORDER BY e.due_at LIMIT 1) d),"
	" (SELECT m.due_at FROM crm.message_end m WHERE NOT " IS_FROZEN(
		"$1") "   ORDER BY m.due_at LIMIT 1),"
			  " (SELECT min(d.due_at) FROM crm.entry_due d JOIN crm.contact c"
			  "   ON c.contact_id = d.contact_id)), (SELECT c.ticked_at FROM crm.journey_clock c)",
	1,
	{ TEXTARRAYOID },
	.always_generic = true,
	.by_index = true
};
/* of messages for which nobody waits any more */
static CrmPlan forget_ends = {
	"DELETE FROM crm.message_end m WHERE m.contact_id = ANY ($1) AND m.due_at <= $2"
	" AND NOT EXISTS (SELECT FROM crm.enrolment e WHERE e.contact_id = m.contact_id"
	"  AND e.state = 'active' AND e.message_id = m.message_id)",
	2,
	{ INT8ARRAYOID, TIMESTAMPTZOID },
	.by_index = true
};
static CrmPlan read_clock = { "SELECT c.ticked_at FROM crm.journey_clock c", 0 };
static CrmPlan set_clock = { "INSERT INTO crm.journey_clock AS c (ticked_at) VALUES ($1)"
							 " ON CONFLICT (one) DO UPDATE SET ticked_at = excluded.ticked_at"
							 " WHERE c.ticked_at < excluded.ticked_at",
							 1,
							 { TIMESTAMPTZOID } };

int64 *
crm_journeys_due(TimestampTz as_of, int64 limit, int *ncontacts)
{
	Datum values[3] = { TimestampTzGetDatum(as_of), Int64GetDatum(limit), (Datum) 0 };
	int64 *contacts;

	*ncontacts = 0;
	if (!crm_journeys()->any)
		return NULL;
	values[2] = crm_moving_journeys();
	*ncontacts = crm_run(&find_due, values, NULL);
	contacts = palloc_array(int64, Max(*ncontacts, 1));
	for (int i = 0; i < *ncontacts; i++)
		contacts[i] = crm_result_int64(i, 1);
	SPI_freetuptable(SPI_tuptable);
	qsort(contacts, *ncontacts, sizeof(int64), crm_compare_int64);
	return contacts;
}

TimestampTz
crm_journeys_next(void)
{
	Datum names;
	TimestampTz next;
	TimestampTz ticked_at;

	if (!crm_journeys()->any)
		return DT_NOEND;
	names = crm_moving_journeys();
	crm_run(&find_next, &names, NULL);
	next = crm_result_time(0, 1, DT_NOEND);
	ticked_at = crm_result_time(0, 2, DT_NOBEGIN);
	SPI_freetuptable(SPI_tuptable);
	next = Min(next, crm_timed_entries_next());
	/* nobody is moved as of an earlier time than before */
	return next == DT_NOEND ? DT_NOEND : Max(next, ticked_at);
}

bool
crm_journeys_clock_back(TimestampTz as_of)
{
	Datum value = TimestampTzGetDatum(as_of);

	if (!crm_journeys()->any)
		return false;
	if (crm_run(&read_clock, NULL, NULL) > 0 && as_of < crm_result_time(0, 1, DT_NOBEGIN))
		return true;
	crm_run(&set_clock, &value, NULL);
	return false;
}

/* Each at its own moment, not before it came to its step. */
static void
set_clocks(CrmEngine *engine)
{
	for (int i = 0; i < engine->nruns; i++)
	{
		CrmRun *run = engine->runs[i];
		TimestampTz at = run->due_at;

		if (run->message_ended_at != DT_NOBEGIN && (at == DT_NOBEGIN || run->message_ended_at < at))
			at = run->message_ended_at;
		/* a failed step goes on when it was due, not when it is tried again */
		if (run->stuck != NULL)
			at = run->step_at;
		run->at = Max(run->step_at, at);
	}
}

void
crm_run_go_on(CrmRun *run, TimestampTz as_of)
{
	if (run->state != CRM_RUN_ACTIVE || run->moving)
		return;
	if (run->stuck != NULL)
	{
		run->entering = run->step == CRM_NO_STEP ? run->journey->start : run->step;
		run->again = run->step != CRM_NO_STEP;
		run->moving = true;
	}
	else if (run->message_ended_at != DT_NOBEGIN)
		crm_leave_by_message(run);
	else if (run->step_due_at != DT_NOBEGIN && run->step_due_at <= as_of &&
			 run->step_due_at <= run->at)
		crm_leave_by_time(run);
	else
		run->changed = true; /* it is looked at again at another moment */
}

typedef struct Moving
{
	const int64 *contacts;
	int ncontacts;
	TimestampTz as_of;
	const CrmBindings *bindings;
	int64 max_steps; /* 0: any number */
	int64 steps;
	int64 nmoved;
} Moving;

/* Whose reply was bound, or could not be, goes on. */
static void
follow_bindings(Moving *moving)
{
	CrmEngine *engine = crm_engine_create();

	engine->as_of = moving->as_of;
	moving->nmoved += crm_bindings_follow(engine, moving->bindings);
	crm_engine_run(engine);
	moving->steps += engine->steps;
}

/* Who was busy when it was his time. */
static void
enter_set_aside(Moving *moving)
{
	CrmActing acting;
	CrmEngine *engine;

	crm_connect(&acting);
	engine = crm_engine_create();
	engine->as_of = moving->as_of;
	moving->nmoved += crm_timed_entries_resume(engine, moving->contacts, moving->ncontacts,
											   moving->as_of);
	crm_engine_run(engine);
	moving->steps += engine->steps;
	crm_disconnect(&acting);
}

/* Of each contact what is due first, until nothing is. */
static void
move_due(void *arg)
{
	Moving *moving = arg;
	Datum values[2] = { crm_int64_array(moving->contacts, moving->ncontacts),
						TimestampTzGetDatum(moving->as_of) };
	int nruns;

	follow_bindings(moving);
	enter_set_aside(moving);
	do
	{
		CrmActing acting;
		CrmEngine *engine;

		CHECK_FOR_INTERRUPTS();
		crm_connect(&acting); /* whose memory goes with it */
		engine = crm_engine_create();
		engine->as_of = moving->as_of;
		crm_engine_load_due(engine, moving->contacts, moving->ncontacts, moving->as_of);
		nruns = engine->nruns;
		set_clocks(engine);
		crm_endings_by_rules(engine);
		crm_waits_by_rules(engine, false);
		for (int i = 0; i < nruns; i++)
			crm_run_go_on(engine->runs[i], moving->as_of);
		crm_engine_run(engine);
		moving->steps += engine->steps;
		moving->nmoved += nruns;
		crm_disconnect(&acting);
	} while (nruns > 0 && (moving->max_steps == 0 || moving->steps < moving->max_steps));
	crm_run(&forget_ends, values, NULL);
}

int64
crm_journeys_move(const int64 *contacts, int ncontacts, TimestampTz as_of, int64 max_steps,
				  int64 *nmoved)
{
	Moving moving = { .as_of = as_of, .max_steps = max_steps };

	*nmoved = 0;
	if (ncontacts == 0)
		return 0;
	moving.bindings = crm_replies_bind(contacts, ncontacts, as_of);
	moving.contacts = crm_bindings_contacts(moving.bindings, &moving.ncontacts);
	crm_journeys_work(move_due, &moving);
	*nmoved = moving.nmoved;
	return moving.steps;
}
