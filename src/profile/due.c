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
	"SELECT d.contact_id FROM (SELECT s.contact_id FROM crm.stage_due s WHERE s.due_at <= $1"
	"  ORDER BY s.due_at, s.contact_id LIMIT $2) d ORDER BY d.contact_id",
	2,
	{ TIMESTAMPTZOID, INT4OID }
};
/* somebody may have been merged since */
static CrmPlan lock_contacts = {
	"SELECT p.contact_id FROM crm.profile_counter p WHERE p.contact_id = ANY ($1)"
	" ORDER BY p.contact_id FOR NO KEY UPDATE",
	1,
	{ INT8ARRAYOID }
};
static CrmPlan forget_others = {
	"DELETE FROM crm.stage_due d WHERE d.contact_id = ANY ($1) AND NOT d.contact_id = ANY ($2)",
	2,
	{ INT8ARRAYOID, INT8ARRAYOID }
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

static int64 *
found_contacts(int *ncontacts)
{
	int64 *contacts;

	*ncontacts = SPI_processed;
	contacts = palloc_array(int64, Max(*ncontacts, 1));
	for (int i = 0; i < *ncontacts; i++)
		contacts[i] = crm_result_int64(i, 1);
	SPI_freetuptable(SPI_tuptable);
	return contacts;
}

static CrmPlan select_since = {
	"SELECT p.contact_id, p.stage_since FROM crm.profile_counter p WHERE p.contact_id = ANY ($1)",
	1,
	{ INT8ARRAYOID }
};

/* Segments that read the stage, as of the moments of the moves. */
static void
settle_segments(const int64 *contacts, int ncontacts, TimestampTz as_of)
{
	CrmSegmentNews news = { .ncontacts = ncontacts,
							.contacts = contacts,
							.cause = "time",
							.topics = CRM_READS_STAGE | CRM_READS_AWARDS };
	TimestampTz *times;
	Datum array;
	uint64 n;

	if (ncontacts == 0 || !crm_segments_defined())
		return;
	times = palloc_array(TimestampTz, ncontacts);
	for (int i = 0; i < ncontacts; i++)
		times[i] = as_of;
	array = crm_int64_array(contacts, ncontacts);
	n = crm_run(&select_since, &array, NULL);
	for (uint64 row = 0; row < n; row++)
	{
		int64 contact_id = crm_result_int64(row, 1);
		const int64 *found = bsearch(&contact_id, contacts, ncontacts, sizeof(int64),
									 crm_compare_int64);
		bool isnull;
		Datum since = crm_result(row, 2, &isnull);

		if (!isnull)
			times[found - contacts] = DatumGetTimestampTz(since);
	}
	SPI_freetuptable(SPI_tuptable);
	news.times = times;
	crm_segments_settle(&news);
}

int
crm_stages_due(TimestampTz as_of, int limit)
{
	Datum values[2] = { TimestampTzGetDatum(as_of), Int32GetDatum(limit) };
	CrmNews news = { .cause = as_of, .until = as_of };
	CrmActing acting;
	int64 *contacts;
	int ndue = 0;
	int ncontacts;

	crm_connect(&acting);
	if (!crm_definitions()->stages_read_time)
		crm_run(&forget_all, NULL, NULL);
	else if (crm_run(&find_due, values, NULL) > 0)
	{
		contacts = found_contacts(&ndue);
		values[0] = crm_int64_array(contacts, ndue);
		crm_contact_lock_first(contacts, ndue);
		crm_run(&lock_contacts, values, NULL);
		contacts = found_contacts(&ncontacts);
		if (ncontacts < ndue)
		{
			values[1] = crm_int64_array(contacts, ncontacts);
			crm_run(&forget_others, values, NULL);
		}
		crm_recompute(contacts, ncontacts, &news);
		settle_segments(contacts, ncontacts, as_of);
	}
	crm_disconnect(&acting);
	return ndue;
}
