/*
 * hand.c
 *		What people do to enrolments: let somebody in, take him out, let a stuck
 *		one go on, end or thaw a whole journey.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/wake.h"
#include "journey/carried.h"
#include "journey/engine.h"
#include "outbox/outbox.h"

static CrmPlan find_of_key = { "SELECT e.enrolment_id FROM crm.enrolment e WHERE e.contact_id = $1"
							   " AND e.journey = $2 AND e.key = $3 ORDER BY e.enrolment_id LIMIT 1",
							   3,
							   { INT8OID, TEXTOID, TEXTOID },
							   .by_index = true };
static CrmPlan find_queued = {
	"SELECT v.contact_id, v.message_id FROM crm.enrolment e"
	" JOIN crm.step_visit v ON v.contact_id = e.contact_id AND v.enrolment_id = e.enrolment_id"
	" JOIN crm.outbox o ON o.contact_id = v.contact_id AND o.message_id = v.message_id"
	" WHERE e.contact_id = ANY ($1) AND e.journey = $2 AND e.state = 'active'",
	2,
	{ INT8ARRAYOID, TEXTOID },
	.by_index = true
};

CrmJourney *
crm_journey_require(const char *name)
{
	CrmJourney *journey = crm_journey_find(name, 0);

	if (journey == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("journey \"%s\" does not exist",
						pnstrdup(name, pg_mbcliplen(name, strlen(name), NAMEDATALEN))),
				 errhint("Publish it with crm.publish_journey() first.")));
	return journey;
}

typedef struct Enrolling
{
	CrmEntering entering;
	int64 enrolment_id;
} Enrolling;

static void
enrol(void *arg)
{
	Enrolling *enrolling = arg;
	CrmEngine *engine = crm_engine_create();

	enrolling->entering.at = engine->now;
	crm_enter_all(engine, &enrolling->entering, 1, true);
	if (enrolling->entering.run != NULL)
		enrolling->enrolment_id = enrolling->entering.run->enrolment_id;
	crm_engine_run(engine);
}

/* A key that stands for an enrolment gives that one, however it went on. */
int64
crm_journey_enrol(int64 contact_id, const char *name, const char *key)
{
	Enrolling enrolling = { .entering = { .journey = crm_journey_require(name),
										  .contact_id = contact_id,
										  .entered_by = "api",
										  .source_at = DT_NOBEGIN,
										  .key = key } };
	Datum values[3] = { Int64GetDatum(contact_id), CStringGetTextDatum(name),
						CStringGetTextDatum(key == NULL ? "" : key) };

	if (key != NULL && crm_run(&find_of_key, values, NULL) > 0)
		return crm_result_int64(0, 1);
	crm_journeys_work(enrol, &enrolling);
	return enrolling.enrolment_id;
}

typedef struct Changing
{
	const int64 *contacts;
	int ncontacts;
	const char *journey; /* NULL: any */
	int64 enrolment_id;  /* 0: any */
	const char *reason;  /* of the end */
	const char *comment; /* of whoever ends it, or NULL */
	bool replies_too;    /* looks at messages, too */
	int64 changed;
} Changing;

static bool
is_meant(const Changing *changing, const CrmRun *run)
{
	return (changing->journey == NULL || strcmp(run->journey->name, changing->journey) == 0) &&
		(changing->enrolment_id == 0 || run->enrolment_id == changing->enrolment_id);
}

/* What waits in the queue for them would come from a journey that they left. */
static void
take_messages_back(const Changing *changing)
{
	Datum values[2] = { crm_int64_array(changing->contacts, changing->ncontacts),
						CStringGetTextDatum(changing->journey) };
	int n = crm_run(&find_queued, values, NULL);
	int64 *contacts = palloc_array(int64, Max(n, 1));
	int64 *messages = palloc_array(int64, Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		contacts[i] = crm_result_int64(i, 1);
		messages[i] = crm_result_int64(i, 2);
	}
	if (n > 0)
		crm_outbox_cancel_many(contacts, messages, n, changing->reason);
}

static void
end_all(void *arg)
{
	Changing *changing = arg;
	CrmEngine *engine = crm_engine_create();

	take_messages_back(changing);
	crm_engine_load_all(engine, changing->contacts, changing->ncontacts);
	for (int i = 0; i < engine->nruns; i++)
	{
		if (!is_meant(changing, engine->runs[i]))
			continue;
		if (changing->comment != NULL)
			crm_run_save(engine->runs[i], "unenrolled", changing->comment);
		crm_run_end(engine->runs[i], CRM_RUN_EXITED, changing->reason, engine->now);
		changing->changed++;
	}
	crm_engine_run(engine);
}

int64
crm_journey_end(const int64 *contacts, int ncontacts, const char *journey, const char *reason,
				const char *comment)
{
	Changing changing = { .contacts = contacts,
						  .ncontacts = ncontacts,
						  .journey = journey,
						  .reason = reason,
						  .comment = comment };

	crm_journeys_work(end_all, &changing);
	return changing.changed;
}

static void
retry(void *arg)
{
	Changing *changing = arg;
	CrmEngine *engine = crm_engine_create();

	crm_engine_load(engine, changing->contacts, changing->ncontacts);
	for (int i = 0; i < engine->nruns; i++)
	{
		CrmRun *run = engine->runs[i];

		if (!is_meant(changing, run) || run->stuck == NULL)
			continue;
		run->entering = run->step;
		run->again = run->moving = true;
		changing->changed++;
	}
	crm_engine_run(engine);
}

bool
crm_journey_resume(int64 contact_id, int64 enrolment_id)
{
	Changing changing = { .contacts = &contact_id, .ncontacts = 1, .enrolment_id = enrolment_id };

	crm_journeys_work(retry, &changing);
	return changing.changed > 0;
}

/*
 * Whom a fact of the past ends is ended when that was recorded. What he would
 * have done until then comes first: true where it is to be looked at again.
 */
static bool
end_in_time(CrmRun *run)
{
	if (run->state != CRM_RUN_ACTIVE || run->ends_at == DT_NOEND)
		return false;
	if (!run->moving && run->stuck == NULL && run->reply == NULL &&
		run->step_due_at != DT_NOBEGIN && run->step_due_at < run->ends_at)
		crm_leave_by_time(run);
	if (run->moving)
		return true;
	crm_run_end(run, CRM_RUN_EXITED, run->ends_by, run->ends_at);
	return false;
}

/* Facts that nobody has looked at go on as if they had been noticed when they came. */
bool
crm_engine_look_again(CrmEngine *engine, bool replies_too)
{
	bool again = false;

	for (int i = 0; i < engine->nruns; i++)
		engine->runs[i]->at = Max(engine->runs[i]->step_at, engine->now);
	crm_endings_look_back(engine);
	crm_endings_by_rules(engine);
	crm_waits_by_rules(engine, false);
	for (int i = 0; i < engine->nruns; i++)
		if (!engine->runs[i]->moving && engine->runs[i]->state == CRM_RUN_ACTIVE)
			engine->runs[i]->at = engine->runs[i]->step_at;
	crm_waits_look_back(engine);
	if (replies_too)
		crm_asks_look_back(engine);
	for (int i = 0; i < engine->nruns; i++)
		again |= end_in_time(engine->runs[i]);
	return again;
}

void
crm_look_again(const int64 *contacts, int ncontacts, bool replies_too)
{
	bool again;

	do
	{
		CrmActing acting;
		CrmEngine *engine;

		CHECK_FOR_INTERRUPTS();
		crm_connect(&acting); /* whose memory goes with it */
		engine = crm_engine_create();
		crm_engine_load(engine, contacts, ncontacts);
		again = crm_engine_look_again(engine, replies_too);
		crm_engine_run(engine);
		crm_disconnect(&acting);
	} while (again);
}

/* Facts that nobody took notice of: what they satisfy goes on as if it had been noticed. */
static void
look_again(void *arg)
{
	Changing *changing = arg;

	crm_look_again(changing->contacts, changing->ncontacts, changing->replies_too);
}

void
crm_journey_thaw(const int64 *contacts, int ncontacts)
{
	Changing changing = { .contacts = contacts, .ncontacts = ncontacts, .replies_too = true };

	crm_journeys_work(look_again, &changing);
}

/* What one of the two wrote was no reply to the other. */
void
crm_journey_joined(int64 contact_id)
{
	Changing changing = { .contacts = &contact_id, .ncontacts = 1 };

	if (crm_journeys_exist())
		crm_journeys_work(look_again, &changing);
}
