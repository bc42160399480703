/*
 * segment_verify.c
 *		Who is in which segment, asked anew and compared with what is stored.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "profile/segment_work.h"

static CrmPlan read_states = {
	"SELECT s.contact_id, greatest(s.checked_at, $2), s.due_at FROM crm.segment_state s"
	" WHERE s.contact_id = ANY ($1)",
	2,
	{ INT8ARRAYOID, TIMESTAMPTZOID }
};
static CrmPlan find_differences = {
	"SELECT 'segment_member of ' || m.segment, m.contact_id, NULL, 'in a segment that is not defined'"
	" FROM crm.segment_member m WHERE NOT EXISTS (SELECT FROM crm.segment s WHERE s.name = m.segment)"
	" UNION ALL"
	" SELECT 'partition of segment ' || m.segment, m.contact_id, s.partition, m.partition"
	" FROM crm.segment_member m JOIN crm.segment s ON s.name = m.segment"
	" WHERE m.partition IS DISTINCT FROM s.partition"
	" UNION ALL"
	" SELECT f.what || ' without contact', f.contact_id, NULL, f.n || ' rows'"
	" FROM (SELECT 'segment_member', m.contact_id, count(*) FROM crm.segment_member m"
	"   GROUP BY m.contact_id"
	"  UNION ALL SELECT 'segment_change', h.contact_id, count(*) FROM crm.segment_change h"
	"   GROUP BY h.contact_id"
	"  UNION ALL SELECT 'segment_state', t.contact_id, count(*) FROM crm.segment_state t"
	"   GROUP BY t.contact_id"
	"  UNION ALL SELECT 'suppression', u.contact_id, count(*) FROM crm.suppression u"
	"   GROUP BY u.contact_id) AS f(what, contact_id, n)"
	" WHERE NOT EXISTS (SELECT FROM crm.contact c WHERE c.contact_id = f.contact_id)",
	0
};

void
crm_segments_verify_all(CrmDifference differs, void *arg)
{
	const CrmSegments *segments = crm_segments();
	uint64 n;

	for (int i = 0; i < segments->n; i++)
		if (segments->list[i].broken != NULL)
			differs(arg, 0, psprintf("segment %s", segments->list[i].name),
					"a rule that can be read", segments->list[i].broken);
	n = crm_read(&find_differences, NULL, NULL);
	for (uint64 row = 0; row < n; row++)
		differs(arg, crm_result_int64(row, 2), crm_result_text(row, 1), crm_result_text(row, 3),
				crm_result_text(row, 4));
	SPI_freetuptable(SPI_tuptable);
}

typedef struct States
{
	TimestampTz *as_of;
	TimestampTz *due; /* DT_NOEND for none */
	bool *overdue;
} States;

static States
load_states(const int64 *contacts, int ncontacts)
{
	Datum values[2] = { crm_int64_array(contacts, ncontacts), TimestampTzGetDatum(crm_now()) };
	uint64 n = crm_read(&read_states, values, NULL);
	States states = { palloc_array(TimestampTz, ncontacts), palloc_array(TimestampTz, ncontacts),
					  palloc0_array(bool, ncontacts) };

	for (int i = 0; i < ncontacts; i++)
	{
		states.as_of[i] = crm_now();
		states.due[i] = DT_NOEND;
	}
	for (uint64 row = 0; row < n; row++)
	{
		int64 contact_id = crm_result_int64(row, 1);
		const int64 *found = bsearch(&contact_id, contacts, ncontacts, sizeof(int64),
									 crm_compare_int64);
		int place = found - contacts;
		bool isnull;
		Datum due = crm_result(row, 3, &isnull);

		if (!isnull)
			states.due[place] = DatumGetTimestampTz(due);
		states.as_of[place] = DatumGetTimestampTz(crm_result(row, 2, &isnull));
		states.overdue[place] = states.due[place] <= states.as_of[place];
	}
	SPI_freetuptable(SPI_tuptable);
	return states;
}

static char *
moment_text(TimestampTz at)
{
	return TIMESTAMP_IS_NOEND(at) ? NULL : pstrdup(timestamptz_to_str(at));
}

void
crm_segments_verify(const int64 *contacts, int ncontacts, CrmDifference differs, void *arg)
{
	const CrmSegments *segments = crm_segments();
	bool *wanted;
	bool **members;
	bool **expected;
	TimestampTz *due;
	States states;

	if (!crm_segments_defined())
		return;
	wanted = palloc_array(bool, segments->n);
	expected = palloc_array(bool *, segments->n);
	due = palloc_array(TimestampTz, ncontacts);
	memset(wanted, true, sizeof(bool) * segments->n);
	states = load_states(contacts, ncontacts);
	members = crm_segments_members(segments, wanted, contacts, ncontacts, true);
	for (int i = 0; i < ncontacts; i++)
		due[i] = DT_NOEND;
	for (int segment = 0; segment < segments->n; segment++)
	{
		const CrmSegment *known = &segments->list[segment];
		bool *excluded = palloc0_array(bool, ncontacts);

		CHECK_FOR_INTERRUPTS();
		for (int k = 0; k < known->nneeds; k++)
			if (crm_segments_share_partition(known, &segments->list[known->needs[k]]))
				for (int i = 0; i < ncontacts; i++)
					excluded[i] |= expected[known->needs[k]][i];
		expected[segment] = palloc_array(bool, ncontacts);
		crm_segment_ask(known, NULL, contacts, states.as_of, excluded, ncontacts,
						expected[segment]);
		if (known->time != CRM_TIME_NONE)
			crm_segment_ask_due(known, contacts, states.as_of, ncontacts, due);
		for (int i = 0; i < ncontacts; i++)
		{
			/* who is due is as he is until that is done */
			if (known->timely && states.overdue[i])
				expected[segment][i] = members[segment][i];
			if (expected[segment][i] != members[segment][i])
				differs(arg, contacts[i], psprintf("segment %s", known->name),
						expected[segment][i] ? "in it" : NULL,
						members[segment][i] ? "in it" : NULL);
		}
	}
	for (int i = 0; i < ncontacts; i++)
		if (!states.overdue[i] && due[i] < states.due[i])
			differs(arg, contacts[i], "segment_state.due_at",
					psprintf("%s or before", moment_text(due[i])), moment_text(states.due[i]));
}
