/*
 * segment_news.c
 *		What brings contacts into segments: new facts, and time alone.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/table.h"
#include "journey/journey.h"
#include "profile/definition.h"
#include "profile/recompute.h"
#include "profile/segment_work.h"

/* contacts that are due, at a time */
#define DUE_BATCH 10000

/* whom another transaction has is left to the next tick(): waiting might be for each other */
static CrmPlan find_due = {
	"SELECT s.contact_id, s.due_at FROM crm.segment_state s WHERE s.due_at <= $1"
	" ORDER BY s.due_at, s.contact_id LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED",
	2,
	{ TIMESTAMPTZOID, INT4OID }
};

static const char *
kind_of(const CrmDefinitions *definitions, const CrmFact *fact)
{
	switch (fact->type)
	{
		case CRM_FACT_PURCHASE:
			return "purchase";
		case CRM_FACT_REFUND:
			return "refund";
		case CRM_FACT_SCAN:
			return "scan";
		case CRM_FACT_MANUAL_STAGE:
			return "set_stage";
		case CRM_FACT_MOBILE:
			return "bind_mobile";
		case CRM_FACT_EVENT:
			break;
	}
	return fact->kind >= 0 ? definitions->kinds[fact->kind] : fact->detail;
}

static void
add_kind(CrmSegmentNews *news, const char *kind)
{
	ListCell *cell;

	foreach(cell, news->kinds)
		if (strcmp(lfirst(cell), kind) == 0)
			return;
	news->kinds = lappend(news->kinds, unconstify(char *, kind));
	if (strcmp(kind, "follow") == 0 || strcmp(kind, "unfollow") == 0)
		news->topics |= CRM_READS_FOLLOWS;
	else if (strcmp(kind, "suppress") == 0 || strcmp(kind, "unsuppress") == 0)
		news->topics |= CRM_READS_SUPPRESSION;
	else if (strcmp(kind, "scan") == 0)
		news->topics |= CRM_READS_SCANS;
	else if (strcmp(kind, "purchase") == 0 || strcmp(kind, "refund") == 0)
		news->topics |= CRM_READS_ORDERS;
}

void
crm_segments_settle_facts(const CrmFact *facts, int64 nfacts)
{
	MemoryContext context;
	MemoryContext old;
	const CrmDefinitions *definitions;
	CrmSegmentNews news = { .topics = CRM_READS_SEEN | CRM_READS_STAGE | CRM_READS_AWARDS };
	int64 *contacts;
	const char **causes;
	TimestampTz *times;
	TimestampTz *ahead = NULL;
	TimestampTz now = crm_now();
	const char *kind = NULL;

	if (!crm_segments_defined())
		return;
	context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm news for segments",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	definitions = crm_definitions();
	contacts = MemoryContextAllocHuge(context, sizeof(int64) * nfacts);
	causes = MemoryContextAllocHuge(context, sizeof(char *) * nfacts);
	times = MemoryContextAllocHuge(context, sizeof(TimestampTz) * nfacts);
	for (int64 i = 0; i < nfacts; i++)
	{
		const char *next = kind_of(definitions, &facts[i]);

		if (kind == NULL || strcmp(kind, next) != 0)
			add_kind(&news, next);
		kind = next;
		if (news.ncontacts == 0 || contacts[news.ncontacts - 1] != facts[i].contact_id)
			contacts[news.ncontacts++] = facts[i].contact_id;
		causes[news.ncontacts - 1] = next;
		times[news.ncontacts - 1] = facts[i].occurred_at;
		if (facts[i].occurred_at > now)
		{
			if (ahead == NULL)
			{
				ahead = MemoryContextAllocHuge(context, sizeof(TimestampTz) * nfacts);
				for (int64 k = 0; k < nfacts; k++)
					ahead[k] = DT_NOEND;
			}
			ahead[news.ncontacts - 1] = Min(ahead[news.ncontacts - 1], facts[i].occurred_at);
		}
	}
	news.ahead = ahead;
	news.contacts = contacts;
	news.causes = causes;
	news.times = times;
	crm_segments_settle(&news);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

/* Contacts with one moment, as of it. */
static void
decide_due(const CrmSegments *segments, const bool *affected, const int64 *contacts, int ncontacts,
		   TimestampTz due_at)
{
	CrmSegmentNews news = { .ncontacts = ncontacts,
							.contacts = contacts,
							.cause = "time",
							.at = due_at };

	crm_segments_work(segments, &news, affected, due_at, CRM_SEGMENTS_EXACT);
}

/* Those of them that nobody is busy with, in their order. */
static int
lock_profiles(int64 *contacts, TimestampTz *due, int n)
{
	int64 *sorted = palloc_array(int64, n);
	int64 *locked;
	int nlocked;
	int left = 0;

	memcpy(sorted, contacts, sizeof(int64) * n);
	qsort(sorted, n, sizeof(int64), crm_compare_int64);
	locked = crm_due_lock(sorted, n, &nlocked);
	for (int i = 0; i < n; i++)
		if (bsearch(&contacts[i], locked, nlocked, sizeof(int64), crm_compare_int64) != NULL)
		{
			contacts[left] = contacts[i];
			due[left++] = due[i];
		}
	pfree(sorted);
	pfree(locked);
	return left;
}

static void
settle_journeys(const int64 *contacts, int n)
{
	int64 *sorted = palloc_array(int64, n);

	memcpy(sorted, contacts, sizeof(int64) * n);
	qsort(sorted, n, sizeof(int64), crm_compare_int64);
	crm_journeys_settle(sorted, n);
	pfree(sorted);
}

int
crm_segments_due(TimestampTz as_of, int limit)
{
	const CrmSegments *segments;
	CrmActing acting;
	bool *affected;
	int64 *contacts;
	TimestampTz *due;
	int batch = limit == 0 ? DUE_BATCH : limit;
	Datum values[2] = { TimestampTzGetDatum(as_of), Int32GetDatum(batch) };
	bool journeys = crm_journeys_read_contacts();
	int total = 0;
	int n;

	/* whoever changes definitions waits for this lock, and this for him */
	LockRelationOid(crm_table_oid("profile_counter"), RowExclusiveLock);
	if (!crm_segments_defined())
		return 0;
	crm_connect(&acting);
	segments = crm_segments();
	affected = palloc_array(bool, segments->n);
	contacts = palloc_array(int64, batch);
	due = palloc_array(TimestampTz, batch);
	for (int i = 0; i < segments->n; i++)
		affected[i] = segments->list[i].timely;
	while ((n = crm_run(&find_due, values, NULL)) > 0)
	{
		for (int row = 0; row < n; row++)
		{
			bool isnull;

			contacts[row] = crm_result_int64(row, 1);
			due[row] = DatumGetTimestampTz(crm_result(row, 2, &isnull));
		}
		SPI_freetuptable(SPI_tuptable);
		/* who is busy is left: his profile comes before his segments, and nobody is waited for */
		if (journeys)
			n = lock_profiles(contacts, due, n);
		if (n == 0)
			break;
		for (int first = 0, end; first < n; first = end)
		{
			CHECK_FOR_INTERRUPTS();
			for (end = first + 1; end < n && due[end] == due[first];)
				end++;
			decide_due(segments, affected, contacts + first, end - first, due[first]);
		}
		if (journeys)
			settle_journeys(contacts, n);
		total += n;
		if (limit > 0)
			break;
	}
	crm_disconnect(&acting);
	return total;
}
