/*
 * due.c
 *		Moves that time alone brings. Each contact whose stage may change without a
 *		fact has a row in crm.stage_due with a moment that is never after the
 *		first such change; tick() looks at those whose moment has come.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "profile/recompute.h"
#include "profile/segment.h"
#include "rules/rules.h"

static CrmPlan add_due = {
	"INSERT INTO crm.stage_due AS d (contact_id, due_at)"
	" SELECT n.contact_id, n.due_at FROM unnest($1, $2) AS n(contact_id, due_at)"
	" ORDER BY n.contact_id"
	" ON CONFLICT (contact_id) DO UPDATE SET due_at = excluded.due_at"
	"  WHERE d.due_at > excluded.due_at",
	2,
	{ INT8ARRAYOID, TIMESTAMPTZARRAYOID }
};
static CrmPlan set_due = {
	"INSERT INTO crm.stage_due AS d (contact_id, due_at)"
	" SELECT n.contact_id, n.due_at FROM unnest($1, $2) AS n(contact_id, due_at)"
	" WHERE n.due_at IS NOT NULL ORDER BY n.contact_id"
	" ON CONFLICT (contact_id) DO UPDATE SET due_at = excluded.due_at"
	"  WHERE d.due_at <> excluded.due_at",
	2,
	{ INT8ARRAYOID, TIMESTAMPTZARRAYOID }
};
static CrmPlan end_due = {
	"DELETE FROM crm.stage_due d USING unnest($1, $2) AS n(contact_id, due_at)"
	" WHERE d.contact_id = n.contact_id AND n.due_at IS NULL",
	2,
	{ INT8ARRAYOID, TIMESTAMPTZARRAYOID }
};
static CrmPlan find_due = {
	"(SELECT s.contact_id FROM crm.stage_due s WHERE s.due_at <= $1 ORDER BY s.due_at LIMIT $2)"
	" UNION (SELECT m.contact_id FROM crm.membership m WHERE m.tier_due_at <= $1"
	"  ORDER BY m.tier_due_at LIMIT $2) ORDER BY 1",
	2,
	{ TIMESTAMPTZOID, INT8OID }
};
static CrmPlan find_next = { "SELECT least((SELECT min(s.due_at) FROM crm.stage_due s WHERE $1),"
							 " (SELECT min(m.tier_due_at) FROM crm.membership m),"
							 " (SELECT min(s.due_at) FROM crm.segment_state s WHERE $2))",
							 2,
							 { BOOLOID, BOOLOID } };
static CrmPlan lock_contacts = {
	"SELECT c.contact_id FROM crm.contact c WHERE c.contact_id = ANY ($1)"
	" ORDER BY c.contact_id FOR NO KEY UPDATE SKIP LOCKED",
	1,
	{ INT8ARRAYOID },
	.by_index = true
};
static CrmPlan lock_profiles = {
	"SELECT p.contact_id FROM crm.profile_counter p WHERE p.contact_id = ANY ($1)"
	" ORDER BY p.contact_id FOR NO KEY UPDATE SKIP LOCKED",
	1,
	{ INT8ARRAYOID },
	.by_index = true
};
/* of those found and not locked: who was merged */
static CrmPlan forget_gone = {
	"DELETE FROM crm.stage_due d WHERE d.contact_id = ANY ($1) AND NOT d.contact_id = ANY ($2)"
	" AND NOT EXISTS (SELECT FROM crm.profile_counter p WHERE p.contact_id = d.contact_id)",
	2,
	{ INT8ARRAYOID, INT8ARRAYOID }
};
static CrmPlan find_stages = {
	"SELECT s.contact_id FROM crm.stage_due s WHERE s.contact_id = ANY ($1) AND s.due_at <= $2"
	" ORDER BY s.contact_id",
	2,
	{ INT8ARRAYOID, TIMESTAMPTZOID }
};
static CrmPlan forget_all = { "DELETE FROM crm.stage_due", 0 };

void
crm_stage_due_add(CrmColumn *due)
{
	Datum values[2];

	if (due[0].n == 0)
		return;
	values[0] = crm_column_array(&due[0]);
	values[1] = crm_column_array(&due[1]);
	crm_run(&add_due, values, NULL);
}

void
crm_stage_due_set(CrmColumn *due)
{
	Datum values[2];

	if (due[0].n == 0)
		return;
	values[0] = crm_column_array(&due[0]);
	values[1] = crm_column_array(&due[1]);
	crm_run(&set_due, values, NULL);
	crm_run(&end_due, values, NULL);
}

/* Contacts that a plan finds, in the order it gives. */
static int64 *
find_contacts(CrmPlan *plan, const Datum *values, int *ncontacts)
{
	int64 *contacts;

	*ncontacts = crm_run(plan, values, NULL);
	contacts = palloc_array(int64, Max(*ncontacts, 1));
	for (int i = 0; i < *ncontacts; i++)
		contacts[i] = crm_result_int64(i, 1);
	SPI_freetuptable(SPI_tuptable);
	return contacts;
}

int64 *
crm_due_find(TimestampTz as_of, int64 limit, int *ncontacts)
{
	Datum values[2] = { TimestampTzGetDatum(as_of), Int64GetDatum(limit) };

	if (!crm_definitions()->stages_read_time)
		crm_run(&forget_all, NULL, NULL);
	return find_contacts(&find_due, values, ncontacts);
}

TimestampTz
crm_due_next(void)
{
	Datum values[2] = { BoolGetDatum(crm_definitions()->stages_read_time),
						BoolGetDatum(crm_segments_defined()) };
	TimestampTz next;
	bool isnull;

	crm_run(&find_next, values, NULL);
	next = DatumGetTimestampTz(crm_result(0, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	return isnull ? DT_NOEND : next;
}

int64 *
crm_due_lock(const int64 *found, int nfound, int *ncontacts)
{
	bool contact_first = crm_contact_first();
	Datum values[2] = { crm_int64_array(found, nfound) };
	int64 *contacts;

	/* in the order of everybody, lest who waits for the second lock of a contact meet us there */
	contacts = find_contacts(contact_first ? &lock_contacts : &lock_profiles, values, ncontacts);
	values[1] = crm_int64_array(contacts, *ncontacts);
	contacts = find_contacts(contact_first ? &lock_profiles : &lock_contacts, &values[1],
							 ncontacts);
	if (*ncontacts < nfound)
	{
		values[1] = crm_int64_array(contacts, *ncontacts);
		crm_run(&forget_gone, values, NULL);
	}
	return contacts;
}

void
crm_stages_due(const int64 *contacts, int ncontacts, TimestampTz as_of)
{
	Datum values[2] = { crm_int64_array(contacts, ncontacts), TimestampTzGetDatum(as_of) };
	CrmMoved moved = { .n = 0 };
	CrmNews news = { .cause = as_of, .until = as_of, .time_alone = true, .moved = &moved };
	CrmSegmentNews segments = { .cause = "time", .topics = CRM_READS_STAGE };
	int64 *due;
	int ndue;

	due = find_contacts(&find_stages, values, &ndue);
	moved.contacts = palloc_array(int64, Max(ndue, 1));
	moved.since = palloc_array(TimestampTz, Max(ndue, 1));
	crm_recompute(due, ndue, &news);

	/* each as of the moment of its move; the last lock comes after all others */
	segments.ncontacts = moved.n;
	segments.contacts = moved.contacts;
	segments.times = moved.since;
	crm_segments_settle(&segments);
}
