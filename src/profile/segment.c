/*
 * segment.c
 *		Who is in which segment, brought up to date for the contacts of a batch:
 *		the rules of the segments that read what changed are asked, and what
 *		differs from the members stored is written.
 *
 *		The rows of crm.segment_state are taken in id order, after every other
 *		lock, and written each time: whoever comes second for a contact sees, by
 *		a new snapshot, what the first one did, or ends with 40001 where the
 *		transaction keeps its snapshot.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "journey/journey.h"
#include "profile/segment_work.h"

static CrmPlan lock_states = {
	"INSERT INTO crm.segment_state AS s (contact_id, checked_at)"
	" SELECT n.contact_id, $2 FROM unnest($1) AS n(contact_id) ORDER BY n.contact_id"
	" ON CONFLICT (contact_id) DO UPDATE SET checked_at = greatest(s.checked_at, excluded.checked_at)"
	" RETURNING s.contact_id, s.checked_at, s.due_at",
	2,
	{ INT8ARRAYOID, TIMESTAMPTZOID }
};
static CrmPlan read_states = {
	"SELECT n.contact_id, greatest(s.checked_at, $2), s.due_at FROM unnest($1) AS n(contact_id)"
	" LEFT JOIN crm.segment_state s ON s.contact_id = n.contact_id ORDER BY n.contact_id",
	2,
	{ INT8ARRAYOID, TIMESTAMPTZOID }
};
static CrmPlan select_members = { "SELECT m.contact_id, m.segment FROM crm.segment_member m"
								  " WHERE m.contact_id = ANY ($1) AND m.segment = ANY ($2)",
								  2,
								  { INT8ARRAYOID, TEXTARRAYOID } };
static CrmPlan delete_members = {
	"DELETE FROM crm.segment_member m USING unnest($1, $2, $3) AS n(contact_id, segment, change)"
	" WHERE n.change = 'left' AND m.contact_id = n.contact_id AND m.segment = n.segment",
	3,
	{ INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID }
};
/* nothing happens before what happened last to the contact in this segment */
static CrmPlan insert_changes = {
	"WITH c AS (INSERT INTO crm.segment_change"
	"   (contact_id, segment, change, occurred_at, recorded_at, cause)"
	"  SELECT n.contact_id, n.segment, n.change, greatest(n.at, (SELECT max(h.occurred_at)"
	"    FROM crm.segment_change h WHERE h.contact_id = n.contact_id AND h.segment = n.segment)),"
	"   $6, n.cause"
	"  FROM unnest($1, $2, $3, $4, $5) WITH ORDINALITY"
	"   AS n(contact_id, segment, change, at, cause, place) ORDER BY n.place"
	"  RETURNING contact_id, segment, change, occurred_at, cause)"
	" INSERT INTO crm.segment_member (contact_id, segment, since, cause, partition)"
	" SELECT c.contact_id, c.segment, c.occurred_at, c.cause, s.partition"
	" FROM c JOIN crm.segment s ON s.name = c.segment WHERE c.change = 'entered'",
	6,
	{ INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TEXTARRAYOID, TIMESTAMPTZOID }
};
static CrmPlan write_due = {
	"INSERT INTO crm.segment_state AS s (contact_id, checked_at, due_at)"
	" SELECT n.* FROM unnest($1, $2, $3) AS n(contact_id, checked_at, due_at)"
	" ORDER BY n.contact_id"
	" ON CONFLICT (contact_id) DO UPDATE SET due_at = excluded.due_at",
	3,
	{ INT8ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID }
};

static CrmPlan select_ahead = {
	"SELECT n.contact_id, f.at FROM unnest($1, $2) AS n(contact_id, as_of) CROSS JOIN LATERAL"
	" (SELECT least((SELECT min(e.occurred_at) FROM crm.event e"
	"    WHERE e.contact_id = n.contact_id AND e.occurred_at > n.as_of),"
	"   (SELECT min(t.occurred_at) FROM crm.transaction t"
	"    WHERE t.contact_id = n.contact_id AND t.occurred_at > n.as_of),"
	"   (SELECT min(s.occurred_at) FROM crm.scan s"
	"    WHERE s.contact_id = n.contact_id AND s.occurred_at > n.as_of)) AS at) f"
	" WHERE f.at IS NOT NULL",
	2,
	{ INT8ARRAYOID, TIMESTAMPTZARRAYOID }
};

/* ---- what is affected */

static bool
have_common(List *a, List *b)
{
	ListCell *cell;
	ListCell *other;

	foreach(cell, a)
		foreach(other, b)
			if (strcmp(lfirst(cell), lfirst(other)) == 0)
				return true;
	return false;
}

void
crm_segments_spread(const CrmSegments *segments, bool *affected)
{
	for (int i = 0; i < segments->n; i++)
		for (int k = 0; k < segments->list[i].nneeds && !affected[i]; k++)
			affected[i] = affected[segments->list[i].needs[k]];
}

static bool
find_affected(const CrmSegments *segments, const CrmSegmentNews *news, bool *affected)
{
	bool any = false;

	for (int i = 0; i < segments->n; i++)
	{
		const CrmRuleReads *reads = &segments->list[i].reads;

		affected[i] = news->topics == CRM_READS_ANYTHING || segments->list[i].broken != NULL ||
			(reads->topics & news->topics) != 0 || have_common(reads->kinds, news->kinds) ||
			have_common(reads->columns, news->columns);
		any |= affected[i];
	}
	crm_segments_spread(segments, affected);
	return any;
}

/* ---- asking */

/* Of the contacts that are left, those that are asked about as of the same time as the first. */
static int
take_moment(const int64 *contacts, const TimestampTz *as_of, int first, int ncontacts, bool *done,
			int64 *some, int *places)
{
	int n = 0;

	for (int i = first; i < ncontacts; i++)
		if (!done[i] && as_of[i] == as_of[first])
		{
			done[i] = true;
			some[n] = contacts[i];
			places[n++] = i;
		}
	return n;
}

/* The rule of a segment for contacts of a batch, each as of its time; the others' answer is no. */
void
crm_segment_ask(const CrmSegment *segment, const CrmRuleUser *user, const int64 *contacts,
				const TimestampTz *as_of, const bool *excluded, int ncontacts, bool *holds)
{
	int64 *some = palloc_array(int64, ncontacts);
	int *places = palloc_array(int, ncontacts);
	bool *answers = palloc_array(bool, ncontacts);
	bool *done = palloc0_array(bool, ncontacts);

	memset(holds, 0, sizeof(bool) * ncontacts);
	if (excluded != NULL)
		memcpy(done, excluded, sizeof(bool) * ncontacts);
	for (int first = 0; first < ncontacts && segment->broken == NULL; first++)
	{
		int n;

		if (done[first])
			continue;
		n = take_moment(contacts, as_of, first, ncontacts, done, some, places);
		crm_rule_evaluate(segment->rule, user, some, n, as_of[first], answers);
		for (int i = 0; i < n; i++)
			holds[places[i]] = answers[i];
	}
	pfree(some);
	pfree(places);
	pfree(answers);
	pfree(done);
}

/* The earliest moment at which time may change the answer; DT_NOEND where it never will. */
void
crm_segment_ask_due(const CrmSegment *segment, const int64 *contacts, const TimestampTz *as_of,
					int ncontacts, TimestampTz *due)
{
	int64 *some = palloc_array(int64, ncontacts);
	int *places = palloc_array(int, ncontacts);
	TimestampTz *moments = palloc_array(TimestampTz, ncontacts);
	bool *done = palloc0_array(bool, ncontacts);

	for (int first = 0; first < ncontacts; first++)
	{
		int n;

		if (done[first])
			continue;
		n = take_moment(contacts, as_of, first, ncontacts, done, some, places);
		crm_rule_due(segment->rule, some, n, as_of[first], moments);
		for (int i = 0; i < n; i++)
			due[places[i]] = Min(due[places[i]], moments[i]);
	}
	pfree(some);
	pfree(places);
	pfree(moments);
	pfree(done);
}

bool
crm_segments_share_partition(const CrmSegment *a, const CrmSegment *b)
{
	return a->partition != NULL && b->partition != NULL && strcmp(a->partition, b->partition) == 0;
}

/* Who is in the segments that are wanted: an array for each of them, by place. */
bool **
crm_segments_members(const CrmSegments *segments, const bool *wanted, const int64 *contacts,
					 int ncontacts, bool read_only)
{
	bool **members = palloc0_array(bool *, Max(segments->n, 1));
	CrmColumn names;
	Datum values[2];
	uint64 n;

	crm_column_init(&names, TEXTOID);
	for (int i = 0; i < segments->n; i++)
		if (wanted[i])
		{
			members[i] = palloc0_array(bool, ncontacts);
			crm_column_add(&names, CStringGetTextDatum(segments->list[i].name), false);
		}
	values[0] = crm_int64_array(contacts, ncontacts);
	values[1] = crm_column_array(&names);
	n = read_only ? crm_read(&select_members, values, NULL)
				  : crm_run(&select_members, values, NULL);
	for (uint64 row = 0; row < n; row++)
	{
		int64 contact_id = crm_result_int64(row, 1);
		const int64 *found = bsearch(&contact_id, contacts, ncontacts, sizeof(int64),
									 crm_compare_int64);

		members[crm_segment_place(segments, crm_result_text(row, 2))][found - contacts] = true;
	}
	SPI_freetuptable(SPI_tuptable);
	return members;
}

/* ---- writing */

typedef enum ChangeColumn
{
	C_CONTACT_ID,
	C_SEGMENT,
	C_CHANGE,
	C_AT,
	C_CAUSE,
	C_COLUMNS
} ChangeColumn;

/* A batch at work. */
typedef struct Settling
{
	const CrmSegments *segments;
	const CrmSegmentNews *news;
	const int64 *contacts;
	int first; /* place of the chunk in the news */
	int n;
	TimestampTz *as_of;
	TimestampTz *due; /* stored, DT_NOEND for none */
	bool **members;
	CrmColumn changes[C_COLUMNS];
} Settling;

static void
init_changes(Settling *settling)
{
	static const Oid types[C_COLUMNS] = { INT8OID, TEXTOID, TEXTOID, TIMESTAMPTZOID, TEXTOID };

	for (int i = 0; i < C_COLUMNS; i++)
		crm_column_init(&settling->changes[i], types[i]);
}

static void
add_change(Settling *settling, int place, int segment, bool entered)
{
	const CrmSegmentNews *news = settling->news;
	const char *cause = news->causes == NULL ? news->cause : news->causes[settling->first + place];
	TimestampTz at = news->times == NULL ? news->at : news->times[settling->first + place];
	CrmColumn *changes = settling->changes;

	crm_column_add(&changes[C_CONTACT_ID], Int64GetDatum(settling->contacts[place]), false);
	crm_column_add(&changes[C_SEGMENT], CStringGetTextDatum(settling->segments->list[segment].name),
				   false);
	crm_column_add(&changes[C_CHANGE], CStringGetTextDatum(entered ? "entered" : "left"), false);
	crm_column_add(&changes[C_AT], TimestampTzGetDatum(at), false);
	crm_column_add(&changes[C_CAUSE], CStringGetTextDatum(cause), false);
	settling->members[segment][place] = entered;
}

static void
tell_journeys(Settling *settling)
{
	const CrmColumn *changes = settling->changes;

	if (!crm_journey_listens(CRM_SIGNAL_SEGMENT_ENTER) &&
		!crm_journey_listens(CRM_SIGNAL_SEGMENT_LEAVE))
		return;
	for (int i = 0; i < changes[0].n; i++)
	{
		bool entered = strcmp(TextDatumGetCString(changes[C_CHANGE].values[i]), "entered") == 0;
		CrmSignalName name = { "segment", TextDatumGetCString(changes[C_SEGMENT].values[i]) };

		crm_journey_signal_named(entered ? CRM_SIGNAL_SEGMENT_ENTER : CRM_SIGNAL_SEGMENT_LEAVE,
								 DatumGetInt64(changes[C_CONTACT_ID].values[i]),
								 DatumGetTimestampTz(changes[C_AT].values[i]), &name, 1);
	}
}

/* Who leaves goes first: a partition has room for one. */
static void
write_changes(Settling *settling)
{
	Datum values[C_COLUMNS + 1];

	if (settling->changes[0].n == 0)
		return;
	for (int i = 0; i < C_COLUMNS; i++)
		values[i] = crm_column_array(&settling->changes[i]);
	values[C_COLUMNS] = TimestampTzGetDatum(crm_now());
	crm_run(&delete_members, values, NULL);
	crm_run_protected(&insert_changes, values, NULL);
	tell_journeys(settling);
	init_changes(settling);
}

static void
decide(Settling *settling, int segment)
{
	const CrmSegments *segments = settling->segments;
	const CrmSegment *known = &segments->list[segment];
	const CrmRuleUser user = { "segment", known->name };
	bool *excluded = palloc0_array(bool, settling->n);
	bool *holds = palloc_array(bool, settling->n);

	for (int k = 0; k < known->nneeds; k++)
		if (crm_segments_share_partition(known, &segments->list[known->needs[k]]))
			for (int i = 0; i < settling->n; i++)
				excluded[i] |= settling->members[known->needs[k]][i];
	if (known->reads.segments != NIL)
		write_changes(settling);

	/* all that was written, here and by those who had these contacts before */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	crm_segment_ask(known, &user, settling->contacts, settling->as_of, excluded, settling->n,
					holds);
	PopActiveSnapshot();

	for (int i = 0; i < settling->n; i++)
	{
		if (holds[i] == settling->members[segment][i])
			continue;
		/* who enters leaves the later ones of the partition, which come to the same answer */
		if (holds[i] && known->partition != NULL)
			for (int later = segment + 1; later < segments->n; later++)
				if (settling->members[later] != NULL && settling->members[later][i] &&
					crm_segments_share_partition(known, &segments->list[later]))
					add_change(settling, i, later, false);
		add_change(settling, i, segment, holds[i]);
	}
	pfree(excluded);
	pfree(holds);
}

/* Facts that are dated ahead of the contacts' times: a look is due then. */
static void
find_ahead(const Settling *settling, TimestampTz *due)
{
	CrmColumn times;
	Datum values[2];
	uint64 n;

	crm_column_init(&times, TIMESTAMPTZOID);
	for (int i = 0; i < settling->n; i++)
		crm_column_add(&times, TimestampTzGetDatum(settling->as_of[i]), false);
	values[0] = crm_int64_array(settling->contacts, settling->n);
	values[1] = crm_column_array(&times);
	n = crm_run(&select_ahead, values, NULL);
	for (uint64 row = 0; row < n; row++)
	{
		int64 contact_id = crm_result_int64(row, 1);
		const int64 *found = bsearch(&contact_id, settling->contacts, settling->n, sizeof(int64),
									 crm_compare_int64);
		int place = found - settling->contacts;
		bool isnull;

		due[place] = Min(due[place], DatumGetTimestampTz(crm_result(row, 2, &isnull)));
	}
	SPI_freetuptable(SPI_tuptable);
}

/*
 * When to look again. Where the moment is not found anew it only comes nearer:
 * a look too early costs little, while each order would put it off.
 */
static void
decide_due(Settling *settling, const bool *affected, bool exact)
{
	TimestampTz *due = palloc_array(TimestampTz, settling->n);
	CrmColumn columns[3];
	Datum values[3];

	for (int i = 0; i < settling->n; i++)
		due[i] = settling->news->ahead == NULL ? DT_NOEND
											   : settling->news->ahead[settling->first + i];
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	for (int i = 0; i < settling->segments->n; i++)
	{
		const CrmSegment *segment = &settling->segments->list[i];

		exact = exact && (affected[i] || !segment->timely);
		if (affected[i] && segment->time != CRM_TIME_NONE)
			crm_segment_ask_due(segment, settling->contacts, settling->as_of, settling->n, due);
	}
	PopActiveSnapshot();
	if (exact)
		find_ahead(settling, due);

	crm_column_init(&columns[0], INT8OID);
	crm_column_init(&columns[1], TIMESTAMPTZOID);
	crm_column_init(&columns[2], TIMESTAMPTZOID);
	for (int i = 0; i < settling->n; i++)
	{
		if (exact ? due[i] == settling->due[i] : due[i] >= settling->due[i])
			continue;
		crm_column_add(&columns[0], Int64GetDatum(settling->contacts[i]), false);
		crm_column_add(&columns[1], TimestampTzGetDatum(settling->as_of[i]), false);
		crm_column_add(&columns[2], TimestampTzGetDatum(due[i]), TIMESTAMP_IS_NOEND(due[i]));
	}
	if (columns[0].n == 0)
		return;
	for (int i = 0; i < 3; i++)
		values[i] = crm_column_array(&columns[i]);
	crm_run(&write_due, values, NULL);
}

static void
take_states(Settling *settling, CrmPlan *plan, TimestampTz as_of)
{
	Datum values[2] = { crm_int64_array(settling->contacts, settling->n),
						TimestampTzGetDatum(as_of) };
	uint64 n = crm_run(plan, values, NULL);

	settling->as_of = palloc_array(TimestampTz, settling->n);
	settling->due = palloc_array(TimestampTz, settling->n);
	for (uint64 row = 0; row < n; row++)
	{
		int64 contact_id = crm_result_int64(row, 1);
		const int64 *found = bsearch(&contact_id, settling->contacts, settling->n, sizeof(int64),
									 crm_compare_int64);
		int place = found - settling->contacts;
		bool isnull;
		Datum due = crm_result(row, 3, &isnull);

		settling->due[place] = isnull ? DT_NOEND : DatumGetTimestampTz(due);
		settling->as_of[place] = DatumGetTimestampTz(crm_result(row, 2, &isnull));
	}
	SPI_freetuptable(SPI_tuptable);
}

void
crm_segments_work(const CrmSegments *segments, const CrmSegmentNews *news, const bool *affected,
				  TimestampTz as_of, int flags)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm segments at work",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	bool *wanted;

	for (int first = 0; first < news->ncontacts; first += CRM_SEGMENT_CHUNK)
	{
		Settling settling = { segments, news, news->contacts + first, first,
							  Min(CRM_SEGMENT_CHUNK, news->ncontacts - first) };

		CHECK_FOR_INTERRUPTS();
		init_changes(&settling);
		take_states(&settling, (flags & CRM_SEGMENTS_LOCKED) != 0 ? &read_states : &lock_states,
					as_of);
		wanted = palloc0_array(bool, Max(segments->n, 1));
		for (int i = 0; i < segments->n; i++)
			if (affected[i])
			{
				wanted[i] = true;
				for (int k = 0; k < segments->list[i].nneeds; k++)
					if (crm_segments_share_partition(&segments->list[i],
													 &segments->list[segments->list[i].needs[k]]))
						wanted[segments->list[i].needs[k]] = true;
			}
		settling.members = crm_segments_members(segments, wanted, settling.contacts, settling.n,
												false);
		for (int i = 0; i < segments->n; i++)
			if (affected[i])
				decide(&settling, i);
		write_changes(&settling);
		decide_due(&settling, affected, (flags & CRM_SEGMENTS_EXACT) != 0);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

void
crm_segments_settle(const CrmSegmentNews *news)
{
	const CrmSegments *segments;
	CrmActing acting;
	bool *affected;

	if (news->ncontacts == 0 || !crm_segments_defined())
		return;
	crm_connect(&acting);
	segments = crm_segments();
	affected = palloc_array(bool, Max(segments->n, 1));
	if (find_affected(segments, news, affected))
	{
		if (IsolationUsesXactSnapshot())
			crm_segments_check_snapshot(segments);
		crm_segments_work(segments, news, affected, crm_now(),
						  news->exact ? CRM_SEGMENTS_EXACT : 0);
	}
	crm_disconnect(&acting);
}

void
crm_segments_refresh(const int64 *contacts, int ncontacts, const char *cause, TimestampTz at)
{
	CrmSegmentNews news = { .ncontacts = ncontacts,
							.contacts = contacts,
							.cause = cause,
							.at = at,
							.topics = CRM_READS_ANYTHING,
							.exact = true };

	crm_segments_settle(&news);
	crm_journeys_settle(contacts, ncontacts);
}
