/*
 * merge.c
 *		Enrolments of two contacts that become one, and of one that becomes two.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/wake.h"
#include "journey/engine.h"
#include "journey/journey.h"
#include "outbox/outbox.h"

/* Of two that are active in one journey under one key the later, whose it may be. */
#define LATER_TWINS                                                                             \
	"twin AS (SELECT CASE WHEN (l.entered_at, l.enrolment_id) < (s.entered_at, s.enrolment_id)" \
	"   THEN s.contact_id ELSE l.contact_id END AS contact_id,"                                 \
	"  CASE WHEN (l.entered_at, l.enrolment_id) < (s.entered_at, s.enrolment_id)"               \
	"   THEN s.enrolment_id ELSE l.enrolment_id END AS enrolment_id"                            \
	"  FROM crm.enrolment l JOIN crm.enrolment s ON s.journey = l.journey AND s.key = l.key"    \
	"  WHERE l.contact_id = $1 AND s.contact_id = $2"                                           \
	"  AND l.state = 'active' AND s.state = 'active')"

/* Steps v that change from one state to another, counted by day. */
#define TALLY(from, from_outcome, to, to_outcome)                                               \
	" tallied AS (INSERT INTO crm.visit_tail"                                                   \
	"  (zone, day, journey, version, step, state, outcome, visits)"                             \
	"  SELECT z.zone, timezone(z.zone, v.entered_at)::date, v.journey, v.version, v.step,"      \
	"   s.state, s.outcome, s.visits FROM v"                                                    \
	"  CROSS JOIN (VALUES (" from ", " from_outcome "::text, -1), (" to ", " to_outcome ", 1))" \
	"   AS s(state, outcome, visits)"                                                           \
	"  CROSS JOIN (SELECT crm.default_time_zone() AS zone) z)"

/* Enrolments e counted by journey: that have ended by the merge, or do so no more. */
#define TALLY_ENDS(sign)                                                                 \
	" ended AS (INSERT INTO crm.enrolment_tail (journey, state, end_reason, enrolments)" \
	"  SELECT e.journey, 'exited', 'merged', " sign "count(*) FROM e GROUP BY e.journey)"
#define TALLY_ENDED    TALLY_ENDS("")
#define TALLY_REOPENED TALLY_ENDS("-")

static CrmPlan find_queued = {
	"WITH " LATER_TWINS " SELECT v.contact_id, v.message_id FROM twin t"
	" JOIN crm.step_visit v ON v.contact_id = t.contact_id AND v.enrolment_id = t.enrolment_id"
	" JOIN crm.outbox o ON o.contact_id = v.contact_id AND o.message_id = v.message_id",
	2,
	{ INT8OID, INT8OID }
};
static CrmPlan end_twins = {
	"WITH " LATER_TWINS ","
	" b AS (SELECT e.* FROM twin t JOIN crm.enrolment e"
	"   ON e.contact_id = t.contact_id AND e.enrolment_id = t.enrolment_id),"
	" v AS (UPDATE crm.step_visit v SET left_at = greatest(b.step_at, $3), outcome = 'merged'"
	"  FROM b WHERE v.contact_id = b.contact_id AND v.enrolment_id = b.enrolment_id"
	"  AND v.visit = b.visit AND v.recorded_at = b.visit_recorded_at"
	"  RETURNING v.journey, v.version, v.step, v.entered_at)," TALLY(
		"'here'", "NULL", "'ended'",
		"'merged'") ","
					" e AS (UPDATE crm.enrolment e SET state = 'exited', end_reason = 'merged',"
					"   ended_at = greatest(b.step_at, $3), due_at = NULL, step_due_at = NULL, message_id = NULL,"
					"   stuck = NULL, reply = NULL"
					"  FROM b WHERE e.contact_id = b.contact_id AND e.enrolment_id = b.enrolment_id"
					"  RETURNING jsonb_build_object('enrolment_id', b.enrolment_id, 'due_at', b.due_at,"
					"   'step_due_at', b.step_due_at, 'message_id', b.message_id, 'stuck', b.stuck,"
					"   'reply', b.reply) AS was, b.journey)," TALLY_ENDED
					" SELECT jsonb_agg(e.was) FROM e",
	3,
	{ INT8OID, INT8OID, TIMESTAMPTZOID }
};
/* the loser's rows give way and go into the ledger whole */
static CrmPlan add_refusals = {
	"WITH u AS (UPDATE crm.refusal s SET refusals = b.refusals + l.refusals,"
	"   first_at = least(b.first_at, l.first_at), last_at = greatest(b.last_at, l.last_at)"
	"  FROM crm.refusal b JOIN crm.refusal l ON l.kind = b.kind AND l.object = b.object"
	"   AND l.reason = b.reason AND l.day = b.day"
	"  WHERE l.contact_id = $1 AND b.contact_id = $2 AND s.contact_id = $2 AND s.kind = b.kind"
	"   AND s.object = b.object AND s.reason = b.reason AND s.day = b.day"
	"  RETURNING jsonb_build_object('before', to_jsonb(b), 'after', to_jsonb(s)) AS change)"
	" SELECT jsonb_agg(u.change) FROM u",
	2,
	{ INT8OID, INT8OID }
};
static CrmPlan part_refusals = {
	"UPDATE crm.refusal c SET refusals = c.refusals - (a.refusals - b.refusals),"
	" first_at = CASE WHEN c.first_at = a.first_at THEN b.first_at ELSE c.first_at END,"
	" last_at = CASE WHEN c.last_at = a.last_at THEN b.last_at ELSE c.last_at END"
	" FROM jsonb_array_elements($2) r, jsonb_populate_record(NULL::crm.refusal, r.value -> 'before') b,"
	" jsonb_populate_record(NULL::crm.refusal, r.value -> 'after') a"
	" WHERE c.contact_id = $1 AND c.kind = b.kind AND c.object = b.object"
	" AND c.reason = b.reason AND c.day = b.day",
	2,
	{ INT8OID, JSONBOID }
};

/* Steps entered since the merge. */
static CrmPlan follow_visits = {
	"UPDATE crm.step_visit v SET contact_id = $2 FROM crm.enrolment e"
	" WHERE v.contact_id = $1 AND e.contact_id = $2 AND e.enrolment_id = v.enrolment_id",
	2,
	{ INT8OID, INT8OID }
};
/* Messages of these that are still to go, or are waited for; what was sent stays where it was. */
static CrmPlan follow_messages = {
	"WITH m AS (UPDATE crm.message m SET contact_id = $2 FROM crm.step_visit v"
	"  JOIN crm.enrolment e ON e.contact_id = v.contact_id AND e.enrolment_id = v.enrolment_id"
	"  WHERE v.contact_id = $2 AND m.contact_id = $1 AND m.message_id = v.message_id"
	"  AND (m.state = 'queued' OR e.message_id = m.message_id) RETURNING m.message_id)"
	" UPDATE crm.outbox o SET contact_id = $2 FROM m"
	" WHERE o.contact_id = $1 AND o.message_id = m.message_id",
	2,
	{ INT8OID, INT8OID }
};
/*
 * Not where another has begun since under the same key, or everybody has left the
 * journey. Of a message that has ended since nobody may have kept the end.
 */
static CrmPlan reopen = {
	"WITH e AS (UPDATE crm.enrolment e SET state = 'active', end_reason = NULL, ended_at = NULL,"
	"   due_at = w.due_at, step_due_at = w.step_due_at, message_id = w.message_id,"
	"   stuck = w.stuck, reply = w.reply"
	"  FROM jsonb_populate_recordset(NULL::crm.enrolment, $3) w"
	"  WHERE e.contact_id IN ($1, $2) AND e.enrolment_id = w.enrolment_id"
	"  AND e.state = 'exited' AND e.end_reason = 'merged'"
	"  AND NOT EXISTS (SELECT FROM crm.enrolment o WHERE o.contact_id = e.contact_id"
	"   AND o.journey = e.journey AND o.key = e.key AND o.state = 'active')"
	"  AND NOT EXISTS (SELECT FROM crm.journey j WHERE j.journey = e.journey"
	"   AND j.state = 'cancelled')"
	"  RETURNING e.contact_id, e.enrolment_id, e.visit, e.visit_recorded_at, e.message_id,"
	"   e.journey),"
	" v AS (UPDATE crm.step_visit v SET left_at = NULL, outcome = NULL FROM e"
	"  WHERE v.contact_id = e.contact_id AND v.enrolment_id = e.enrolment_id"
	"  AND v.visit = e.visit AND v.recorded_at = e.visit_recorded_at"
	"  RETURNING v.journey, v.version, v.step, v.entered_at)," TALLY(
		"'ended'", "'merged'", "'here'",
		"NULL") "," TALLY_REOPENED " INSERT INTO crm.message_end (contact_id, message_id, due_at)"
				" SELECT e.contact_id, e.message_id, $4 FROM e JOIN crm.message m"
				"  ON m.contact_id = e.contact_id AND m.message_id = e.message_id"
				" WHERE m.state NOT IN ('queued', 'sending') ON CONFLICT DO NOTHING",
	4,
	{ INT8OID, INT8OID, JSONBOID, TIMESTAMPTZOID }
};

/* One person gets what the journey has queued once. */
static void
take_messages_back(const Datum *values)
{
	int n = crm_run(&find_queued, values, NULL);
	int64 *contacts = palloc_array(int64, Max(n, 1));
	int64 *messages = palloc_array(int64, Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		contacts[i] = crm_result_int64(i, 1);
		messages[i] = crm_result_int64(i, 2);
	}
	if (n > 0)
		crm_outbox_cancel_many(contacts, messages, n, "merged");
}

Datum
crm_journey_merge(int64 loser, int64 survivor, bool *isnull)
{
	Datum values[3] = { Int64GetDatum(loser), Int64GetDatum(survivor),
						TimestampTzGetDatum(crm_now()) };

	crm_enrolments_check_current(crm_int64_array((const int64[]){ loser, survivor }, 2));
	take_messages_back(values);
	crm_run(&end_twins, values, NULL);
	return crm_result(0, 1, isnull);
}

Datum
crm_refusals_merge(int64 loser, int64 survivor, bool *isnull)
{
	Datum values[2] = { Int64GetDatum(loser), Int64GetDatum(survivor) };

	crm_run(&add_refusals, values, NULL);
	return crm_result(0, 1, isnull);
}

void
crm_journey_unmerge(int64 survivor, int64 other)
{
	Datum values[2] = { Int64GetDatum(survivor), Int64GetDatum(other) };

	crm_run(&follow_visits, values, NULL);
	crm_run(&follow_messages, values, NULL);
}

void
crm_journey_reopen(int64 survivor, int64 other, Datum ended)
{
	Datum values[4] = { Int64GetDatum(survivor), Int64GetDatum(other), ended,
						TimestampTzGetDatum(crm_now()) };

	crm_run(&reopen, values, NULL);
	/* what became due meanwhile */
	crm_wake_at_commit();
}

void
crm_refusals_unmerge(int64 survivor, Datum refusals)
{
	Datum values[2] = { Int64GetDatum(survivor), refusals };

	crm_run(&part_refusals, values, NULL);
}
