/*
 * segment_definition.c
 *		Segments as a backend keeps them: dropped as a whole by a relcache
 *		invalidation of their table or of those that rules read, read again at the
 *		next use, put into the order in which they are decided.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/db.h"
#include "base/table.h"
#include "base/watch.h"
#include "pg_crm.h"
#include "profile/segment.h"
#include "profile/segment_definition.h"

static MemoryContext cache_context = NULL;
static CrmSegments *cache = NULL;
static bool cache_valid = false;
static Oid cache_tables[4];

static CrmPlan select_segments = {
	"SELECT s.name, s.rule, s.partition FROM crm.segment s"
	" ORDER BY s.partition COLLATE \"C\", s.position, s.name COLLATE \"C\"",
	0
};
static CrmPlan select_digest = {
	"SELECT coalesce(md5(string_agg(s.name || ' ' || s.version, ',' ORDER BY s.name COLLATE \"C\")),"
	" '') FROM crm.segment s",
	0
};

static void
forget_segments(Datum arg, Oid relid)
{
	/* whatever is made where one was missing may be that one */
	for (int i = 0; i < lengthof(cache_tables); i++)
		if (relid == InvalidOid || relid == cache_tables[i] || !OidIsValid(cache_tables[i]))
			cache_valid = false;
}

void
crm_segment_init(void)
{
	crm_on_table_change(forget_segments);
}

int
crm_segment_place(const CrmSegments *segments, const char *name)
{
	for (int i = 0; i < segments->n; i++)
		if (strcmp(segments->list[i].name, name) == 0)
			return i;
	return -1;
}

typedef struct Reading
{
	CrmSegment *segment;
	MemoryContext context; /* for what is kept */
} Reading;

static List *
copy_names(List *names)
{
	List *copy = NIL;
	ListCell *cell;

	foreach(cell, names)
		copy = lappend(copy, pstrdup(lfirst(cell)));
	return copy;
}

static bool
read_rule(void *arg)
{
	Reading *reading = arg;
	CrmSegment *segment = reading->segment;
	CrmRuleReads *reads = crm_rule_reads(segment->rule);
	MemoryContext old;

	segment->time = crm_rule_time(segment->rule);
	old = MemoryContextSwitchTo(reading->context);
	segment->reads.topics = reads->topics;
	segment->reads.kinds = copy_names(reads->kinds);
	segment->reads.columns = copy_names(reads->columns);
	segment->reads.segments = copy_names(reads->segments);
	MemoryContextSwitchTo(old);
	return true;
}

/* A segment that was deleted while a rule still names it. */
static void
refuse_broken(const CrmSegment *segment, const ErrorData *error)
{
	if (error->sqlerrcode == ERRCODE_FOREIGN_KEY_VIOLATION &&
		strncmp(error->message, "segment ", 8) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("rule of segment \"%s\" names a segment that would be gone", segment->name),
				 errdetail("%s.", error->message),
				 errhint("Change that rule first, or delete both in one statement.")));
}

static void
load(CrmSegments *build, MemoryContext context, bool strict)
{
	uint64 n = crm_read(&select_segments, NULL, NULL);
	MemoryContext old = MemoryContextSwitchTo(context);
	SPITupleTable *rows = SPI_tuptable;

	build->n = n;
	build->list = palloc0_array(CrmSegment, Max(n, 1));
	for (uint64 row = 0; row < n; row++)
	{
		build->list[row].name = crm_result_text(row, 1);
		build->list[row].rule = crm_result_text(row, 2);
		build->list[row].partition = crm_result_text(row, 3);
	}
	MemoryContextSwitchTo(old);
	SPI_freetuptable(rows);
	for (int i = 0; i < build->n; i++)
	{
		Reading reading = { &build->list[i], context };
		ErrorData *error;

		if (crm_attempt(read_rule, &reading, &error))
			continue;
		if (!crm_rule_is_broken(error))
			ReThrowError(error);
		if (strict)
			refuse_broken(&build->list[i], error);
		build->list[i].broken = MemoryContextStrdup(context, error->message);
		memset(&build->list[i].reads, 0, sizeof(CrmRuleReads));
		build->list[i].time = CRM_TIME_NONE;
		FreeErrorData(error);
	}
	crm_read(&select_digest, NULL, NULL);
	old = MemoryContextSwitchTo(context);
	build->digest = crm_result_text(0, 1);
	MemoryContextSwitchTo(old);
}

typedef struct Ordering
{
	CrmSegments *segments;
	bool strict;
	char *visit; /* 0 not yet, 1 under way, 2 done */
	int *order;
	int n;
	List **needs; /* int, places as loaded */
} Ordering;

static void
refuse_circle(const Ordering *ordering, int place, int needed)
{
	ereport(ERROR,
			(errcode(ERRCODE_CHECK_VIOLATION),
			 errmsg("segments \"%s\" and \"%s\" need each other",
					ordering->segments->list[place].name, ordering->segments->list[needed].name),
			 errhint("A segment needs those that its rule names and those before it in its"
					 " partition; take one of the names out of a rule.")));
}

static void
visit(Ordering *ordering, int place)
{
	ListCell *cell;
	List *kept = NIL;

	check_stack_depth();
	ordering->visit[place] = 1;
	foreach(cell, ordering->needs[place])
	{
		int needed = lfirst_int(cell);

		if (ordering->visit[needed] == 1)
		{
			if (ordering->strict)
				refuse_circle(ordering, place, needed);
			ordering->segments->list[place].broken = "it is part of a circle of segments";
			continue;
		}
		if (ordering->visit[needed] == 0)
			visit(ordering, needed);
		kept = lappend_int(kept, needed);
	}
	ordering->needs[place] = kept;
	ordering->visit[place] = 2;
	ordering->order[ordering->n++] = place;
}

static List *
find_needs(const CrmSegments *segments, int place)
{
	const CrmSegment *segment = &segments->list[place];
	List *needs = NIL;
	ListCell *cell;

	for (int i = 0; i < place && segment->partition != NULL; i++)
		if (segments->list[i].partition != NULL &&
			strcmp(segments->list[i].partition, segment->partition) == 0)
			needs = lappend_int(needs, i);
	foreach(cell, segment->reads.segments)
	{
		int needed = crm_segment_place(segments, lfirst(cell));

		if (needed >= 0)
			needs = list_append_unique_int(needs, needed);
	}
	return needs;
}

/* Each after those it needs. Of a circle that got past the check, one is broken. */
static void
put_in_order(CrmSegments *build, MemoryContext context, bool strict)
{
	int n = Max(build->n, 1);
	Ordering ordering = { build,      strict,
						  palloc0(n), palloc_array(int, n),
						  0,          palloc0_array(List *, n) };
	int *place_of = palloc_array(int, n);
	CrmSegment *list = MemoryContextAllocZero(context, sizeof(CrmSegment) * n);

	for (int i = 0; i < build->n; i++)
		ordering.needs[i] = find_needs(build, i);
	for (int i = 0; i < build->n; i++)
		if (ordering.visit[i] == 0)
			visit(&ordering, i);
	for (int i = 0; i < build->n; i++)
		place_of[ordering.order[i]] = i;
	for (int i = 0; i < build->n; i++)
	{
		CrmSegment *segment = &list[i];
		List *needs = ordering.needs[ordering.order[i]];
		ListCell *cell;

		*segment = build->list[ordering.order[i]];
		/* facts that are dated ahead, and what they award, are there from their time on */
		segment->timely = segment->time != CRM_TIME_NONE || segment->reads.kinds != NIL ||
			(segment->reads.topics & CRM_READS_AWARDS) != 0;
		segment->needs = MemoryContextAlloc(context, sizeof(int) * Max(list_length(needs), 1));
		foreach(cell, needs)
		{
			int needed = place_of[lfirst_int(cell)];

			segment->needs[segment->nneeds++] = needed;
			segment->timely |= list[needed].timely;
		}
	}
	build->list = list;
}

static const CrmSegments *
read_segments(bool strict)
{
	MemoryContext context;
	CrmSegments *build;
	CrmActing acting;

	cache_tables[0] = crm_table_oid("segment");
	/* a column of it that is dropped takes the view with it, until the next install() */
	cache_tables[1] = crm_table_oid_if_any("profile");
	/* what rules name */
	cache_tables[2] = crm_table_oid("achievement");
	cache_tables[3] = crm_table_oid("stage");
	crm_connect(&acting);
	context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm segments", ALLOCSET_SMALL_SIZES);
	build = MemoryContextAllocZero(context, sizeof(CrmSegments));
	build->profile_missing = !OidIsValid(cache_tables[1]);
	/* as committed now, however old the snapshot of the transaction is: the cache outlives it */
	PushActiveSnapshot(GetLatestSnapshot());
	/* an invalidation while reading must not be lost */
	cache_valid = true;
	PG_TRY();
	{
		load(build, context, strict);
		put_in_order(build, context, strict);
	}
	PG_CATCH();
	{
		cache_valid = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
	PopActiveSnapshot();
	/* somebody up the stack may be at work with what was read before */
	if (cache_context != NULL)
		MemoryContextSetParent(cache_context, TopTransactionContext);
	MemoryContextSetParent(context, CacheMemoryContext);
	cache_context = context;
	cache = build;
	crm_disconnect(&acting);
	return cache;
}

const CrmSegments *
crm_segments(void)
{
	return cache_valid ? cache : read_segments(false);
}

const CrmSegments *
crm_segments_reload(void)
{
	return read_segments(true);
}

bool
crm_segments_defined(void)
{
	/* tables of an older version have none */
	if (!cache_valid && !OidIsValid(crm_table_oid_if_any("segment")))
		return false;
	return crm_segments()->n > 0 && !crm_segments()->profile_missing;
}

void
crm_segments_check_snapshot(const CrmSegments *segments)
{
	crm_run(&select_digest, NULL, NULL);
	if (strcmp(crm_result_text(0, 1), segments->digest) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access due to a concurrent change of segments"),
				 errhint("Repeat the transaction.")));
}
