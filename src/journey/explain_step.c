/*
 * explain_step.c
 *		Why a step of a journey lets a contact through, or does not.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "journey/carried.h"
#include "journey/explain.h"
#include "journey/kinds.h"
#include "journey/reading.h"
#include "outbox/reachable.h"

static CrmPlan find_last = {
	"SELECT e.enrolment_id, e.state, coalesce(e.end_reason, ''), e.step, e.ended_at"
	" FROM crm.enrolment e WHERE e.contact_id = $1 AND e.journey = $2"
	" ORDER BY e.entered_at DESC, e.enrolment_id DESC LIMIT 1",
	2,
	{ INT8OID, TEXTOID }
};
static CrmPlan find_message = {
	"SELECT m.state, coalesce(m.reason, ''),"
	" m.state IN ('sent', 'waiting', 'failed', 'refused', 'expired', 'cancelled', 'unknown')"
	" FROM crm.message m WHERE m.contact_id = $1 AND m.message_id = $2",
	2,
	{ INT8OID, INT8OID }
};
static CrmPlan find_template = {
	"SELECT t.channel, t.class, t.account, t.message_type FROM crm.template t WHERE t.name = $1",
	1,
	{ TEXTOID }
};

/* What is asked about. */
typedef struct Asked
{
	CrmExplanation *explanation;
	const CrmJourney *journey;
	const CrmStep *step;
	const CrmRun *run; /* NULL: the contact is not there */
} Asked;

/* Of those that are at the step the one that came last. */
static const CrmRun *
find_run(CrmExplanation *explanation, const char *step)
{
	const CrmRun *found = NULL;

	crm_engine_load_all(explanation->engine, &explanation->contact_id, 1);
	for (int i = 0; i < explanation->engine->nruns; i++)
	{
		const CrmRun *run = explanation->engine->runs[i];

		if (strcmp(run->journey->name, explanation->journey->name) == 0 &&
			run->step != CRM_NO_STEP && strcmp(run->journey->steps[run->step].name, step) == 0 &&
			(found == NULL || run->step_at >= found->step_at))
			found = run;
	}
	return found;
}

static void
explain_place(const Asked *asked)
{
	CrmExplanation *explanation = asked->explanation;
	const CrmRun *run = asked->run;
	Datum values[2] = { Int64GetDatum(explanation->contact_id),
						CStringGetTextDatum(asked->journey->name) };
	const char *state;

	if (run != NULL)
	{
		crm_explain_add(explanation, "here", true, "enrolment %lld, version %d, since %s",
						(long long) run->enrolment_id, run->journey->version,
						crm_explain_time(run->step_at));
		return;
	}
	if (crm_run(&find_last, values, NULL) == 0)
	{
		crm_explain_add(explanation, "here", false, "never entered the journey");
		return;
	}
	state = crm_result_text(0, 2);
	if (strcmp(state, "active") == 0)
		crm_explain_add(explanation, "here", false, "enrolment %lld is at step \"%s\"",
						(long long) crm_result_int64(0, 1), crm_result_text(0, 4));
	else
		crm_explain_add(explanation, "here", false, "enrolment %lld %s%s%s at %s",
						(long long) crm_result_int64(0, 1), state,
						*crm_result_text(0, 3) == '\0' ? "" : " by ", crm_result_text(0, 3),
						crm_explain_time(crm_result_time(0, 5, DT_NOBEGIN)));
}

static void
explain_stuck(const Asked *asked)
{
	const CrmRun *run = asked->run;

	if (run == NULL || run->stuck == NULL)
		return;
	asked->explanation->goes = false;
	crm_explain_add(asked->explanation, "stuck", false, "%s; tried again at %s", run->stuck,
					crm_explain_time(run->due_at));
}

static void
explain_way(const Asked *asked, const char *outcome, int next)
{
	if (next == CRM_NO_STEP)
		crm_explain_add(asked->explanation, "goes to", true, "the end, by %s", outcome);
	else
		crm_explain_add(asked->explanation, "goes to", true, "\"%s\", by %s",
						asked->journey->steps[next].name, outcome);
}

/* Is the wait over, because nothing came? */
static bool
explain_deadline(const Asked *asked)
{
	const CrmRun *run = asked->run;
	bool over = run != NULL && run->step_due_at != DT_NOBEGIN &&
		run->step_due_at <= asked->explanation->as_of;

	if (run == NULL)
		crm_explain_add(asked->explanation, "deadline", false, "it begins when the contact comes");
	else if (run->step_due_at == DT_NOBEGIN)
		crm_explain_add(asked->explanation, "deadline", false, "none");
	else
		crm_explain_add(asked->explanation, "deadline", over, "%s",
						crm_explain_time(run->step_due_at));
	return over;
}

static void
explain_timeout(const Asked *asked, bool satisfied)
{
	const CrmStep *step = asked->step;
	bool over = explain_deadline(asked);

	if (satisfied)
		explain_way(asked, "next", step->next);
	else if (over)
		explain_way(asked, "timeout", step->has_timeout ? step->on_timeout : step->next);
	else
		asked->explanation->goes = false;
}

static void
explain_wait(const Asked *asked)
{
	if (explain_deadline(asked))
		explain_way(asked, "next", asked->step->next);
	else
		asked->explanation->goes = false;
}

static void
explain_wait_for(const Asked *asked)
{
	CrmExplanation *explanation = asked->explanation;
	const CrmRun *run = asked->run;
	bool fits;

	(void) crm_explain_trigger(explanation, "waits", &asked->step->trigger, run,
							   run == NULL ? explanation->as_of : crm_wait_since(run, asked->step),
							   run == NULL ? DT_NOEND : run->step_due_at, &fits);
	explain_timeout(asked, fits && run != NULL);
}

static void
explain_branches(const Asked *asked)
{
	const CrmStep *step = asked->step;
	const CrmBranch *taken = NULL;

	for (int i = 0; i < step->nbranches; i++)
	{
		const CrmBranch *branch = &step->branches[i];
		char *prefix = psprintf("branch %s", branch->outcome);
		CrmFactValues fact;
		bool holds;

		if (branch->fact == NULL)
			holds = crm_explain_rule(asked->explanation, prefix, branch->when);
		else
		{
			if (asked->run != NULL)
				crm_run_fact(asked->run, &fact);
			holds = crm_explain_fact_rule(asked->explanation, prefix, branch->fact,
										  asked->run == NULL ? NULL : &fact);
		}
		if (holds && taken == NULL)
			taken = branch;
	}
	if (taken != NULL)
		explain_way(asked, taken->outcome, taken->next);
	else
		explain_way(asked, "default", step->next);
}

typedef struct Reaching
{
	CrmExplanation *explanation;
	const char *channel;
	const char *api;
	const char *account; /* NULL: any */
	int n;
	bool any;
} Reaching;

static void
add_reach(void *arg, const CrmReach *reach)
{
	Reaching *reaching = arg;
	char *part;

	if (strcmp(reach->channel, reaching->channel) != 0 || reaching->api == NULL ||
		strcmp(reach->api, reaching->api) != 0 ||
		(reaching->account != NULL && strcmp(reach->account, reaching->account) != 0))
		return;
	reaching->n++;
	part = psprintf("reachable by %s, %s", reach->account, reach->api);
	reaching->any |= reach->reason == NULL;
	if (reach->reason != NULL)
		crm_explain_add(reaching->explanation, part, false, "%s", reach->reason);
	else if (reach->valid_until != DT_NOBEGIN)
		crm_explain_add(reaching->explanation, part, true, "until %s",
						crm_explain_time(reach->valid_until));
	else
		crm_explain_add(reaching->explanation, part, true, "without end");
}

static void
explain_channel(const Asked *asked)
{
	CrmExplanation *explanation = asked->explanation;
	Reaching reaching = { .explanation = explanation };
	Datum name = CStringGetTextDatum(asked->step->template);
	const char *class;

	if (crm_run(&find_template, &name, NULL) == 0)
	{
		explanation->goes = false;
		crm_explain_add(explanation, "template", false, "\"%s\" does not exist",
						asked->step->template);
		return;
	}
	reaching.channel = crm_result_text(0, 1);
	class = crm_result_text(0, 2);
	reaching.account = crm_result_text(0, 3);
	reaching.api = crm_outbox_api(reaching.channel, crm_result_text(0, 4));
	crm_outbox_reachable(explanation->contact_id, class, explanation->as_of, add_reach, &reaching);
	/* webhooks are not written to people */
	if (strcmp(reaching.channel, "webhook") == 0)
		return;
	if (!reaching.any)
		explanation->goes = false;
	if (reaching.n == 0)
		crm_explain_add(explanation, "reachable", false, "no account of the channel %s can send",
						reaching.channel);
}

/* Where the message is on its way, its end decides; before, whether it may go. */
static void
explain_send(const Asked *asked)
{
	const CrmRun *run = asked->run;
	Datum values[2];

	if (run == NULL || run->message_id == 0)
	{
		explain_channel(asked);
		return;
	}
	values[0] = Int64GetDatum(run->contact_id);
	values[1] = Int64GetDatum(run->message_id);
	if (crm_run(&find_message, values, NULL) == 0)
		return;
	crm_explain_add(asked->explanation, "message", crm_result_true(0, 3), "message %lld is %s%s%s",
					(long long) run->message_id, crm_result_text(0, 1),
					*crm_result_text(0, 2) == '\0' ? "" : ": ", crm_result_text(0, 2));
	if (!crm_result_true(0, 3))
		asked->explanation->goes = false;
}

static void
explain_kind(const Asked *asked)
{
	const CrmStep *step = asked->step;
	void (*enter)(CrmMoves * moves) = step->kind->enter;

	if (enter == crm_step_wait)
		explain_wait(asked);
	else if (enter == crm_step_wait_for)
		explain_wait_for(asked);
	else if (enter == crm_step_wait_until)
		explain_timeout(asked, crm_explain_rule(asked->explanation, "waits until", step->rule));
	else if (enter == crm_step_ask)
		explain_timeout(asked, false);
	else if (enter == crm_step_branch)
		explain_branches(asked);
	else if (enter == crm_step_split)
	{
		const CrmArm *arm = crm_split_draw(asked->journey, step, asked->explanation->contact_id);

		explain_way(asked, arm->name, arm->next);
	}
	else if (enter == crm_step_send)
		explain_send(asked);
}

void
crm_explain_step(CrmExplanation *explanation, const char *name)
{
	Asked asked = { .explanation = explanation, .run = find_run(explanation, name) };
	int step;

	asked.journey = asked.run != NULL ? asked.run->journey : explanation->journey;
	step = crm_step_find(asked.journey, name);
	if (step == CRM_NO_STEP)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("journey \"%s\" has no step \"%s\"", asked.journey->name, crm_shown(name)),
				 errhint("crm.journey_step lists the steps.")));
	asked.step = &asked.journey->steps[step];
	if (asked.journey->state == CRM_JOURNEY_FROZEN)
	{
		explanation->goes = false;
		crm_explain_add(explanation, "journey", false, "frozen: nobody moves");
	}
	explain_place(&asked);
	explain_stuck(&asked);
	crm_explain_endings(explanation, asked.journey, asked.run);
	if (asked.step->kind == NULL)
	{
		explanation->goes = false;
		crm_explain_add(explanation, "kind", false, "not known to this version of pg_crm");
		return;
	}
	explain_kind(&asked);
}
