/*
 * schedule.c
 *		Entries by date and by schedule. Each has a row in crm.journey_schedule: a
 *		look as of a time lets in everybody whose moment lies between the look
 *		before and that time, in the order of their ids, a piece at a time; the row
 *		says how far that is. Who is busy elsewhere is set aside.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/guc.h"
#include "journey/carried.h"
#include "journey/engine.h"

/* zones differ by multiples of this; so moments told by the minute do */
#define ZONE_STEP (15 * USECS_PER_MINUTE)

static CrmPlan count_rows = {
	"SELECT count(*), min(s.next_at) FROM crm.journey_schedule s"
	" JOIN unnest($1, $2) AS n(journey, entry) ON n.journey = s.journey AND n.entry = s.entry",
	2,
	{ TEXTARRAYOID, INT4ARRAYOID },
	.always_generic = true,
	.by_index = true
};
/* from when the journey was published, or opened again */
static CrmPlan add_rows = {
	"INSERT INTO crm.journey_schedule (journey, entry, done_until, next_at)"
	" SELECT n.journey, n.entry, f.at, f.at FROM unnest($1, $2) AS n(journey, entry)"
	" JOIN crm.journey j ON j.journey = n.journey"
	" JOIN crm.journey_version v ON v.journey = j.journey AND v.version = j.version"
	" CROSS JOIN LATERAL (VALUES (greatest(j.changed_at, v.published_at))) AS f(at)"
	" ORDER BY n.journey, n.entry ON CONFLICT (journey, entry) DO NOTHING",
	2,
	{ TEXTARRAYOID, INT4ARRAYOID },
	.by_index = true
};
static CrmPlan take_row = {
	"SELECT s.journey, s.entry, s.done_until, s.working_until, s.working_after"
	" FROM crm.journey_schedule s"
	" JOIN unnest($1, $2) AS n(journey, entry) ON n.journey = s.journey AND n.entry = s.entry"
	" WHERE s.next_at <= $3 ORDER BY s.next_at, s.journey, s.entry LIMIT 1"
	" FOR NO KEY UPDATE OF s SKIP LOCKED",
	3,
	{ TEXTARRAYOID, INT4ARRAYOID, TIMESTAMPTZOID },
	.always_generic = true,
	.by_index = true
};
static CrmPlan keep_place = {
	"UPDATE crm.journey_schedule s SET working_until = $3, working_after = $4"
	" WHERE s.journey = $1 AND s.entry = $2",
	4,
	{ TEXTOID, INT4OID, TIMESTAMPTZOID, INT8OID },
	.by_index = true
};
static CrmPlan end_look = {
	"UPDATE crm.journey_schedule s SET done_until = $3, next_at = $4, working_until = NULL,"
	" working_after = NULL WHERE s.journey = $1 AND s.entry = $2",
	4,
	{ TEXTOID, INT4OID, TIMESTAMPTZOID, TIMESTAMPTZOID },
	.by_index = true
};
static CrmPlan forget_closed = {
	"DELETE FROM crm.journey_schedule s WHERE NOT EXISTS"
	" (SELECT FROM crm.journey j WHERE j.journey = s.journey AND j.state = 'open')",
	0
};
/* an entry that stays as it is goes on where it was */
static CrmPlan forget_changed = {
	"DELETE FROM crm.journey_schedule s USING crm.journey j WHERE s.journey = $1"
	" AND j.journey = s.journey"
	" AND (SELECT jsonb_build_array(v.definition -> 'account', v.definition -> 'entry' -> s.entry)"
	"   FROM crm.journey_version v WHERE v.journey = j.journey AND v.version = j.version)"
	"  IS DISTINCT FROM"
	"  (SELECT jsonb_build_array(v.definition -> 'account', v.definition -> 'entry' -> s.entry)"
	"   FROM crm.journey_version v WHERE v.journey = j.journey AND v.version = j.version - 1)",
	1,
	{ TEXTOID },
	.by_index = true
};
static CrmPlan find_everybody = {
	"SELECT c.contact_id FROM crm.contact c WHERE c.contact_id > $1 ORDER BY c.contact_id LIMIT $2",
	2,
	{ INT8OID, INT4OID },
	.by_index = true
};
static CrmPlan set_aside = {
	"INSERT INTO crm.entry_due (contact_id, journey, entry, due_at)"
	" SELECT n.contact_id, $3, $4, n.due_at FROM unnest($1, $2) AS n(contact_id, due_at)"
	" ORDER BY n.contact_id, n.due_at ON CONFLICT DO NOTHING",
	4,
	{ INT8ARRAYOID, TIMESTAMPTZARRAYOID, TEXTOID, INT4OID },
	.by_index = true
};
static CrmPlan take_aside = {
	"WITH taken AS (DELETE FROM crm.entry_due d WHERE d.contact_id = ANY ($1) AND d.due_at <= $2"
	"  RETURNING d.contact_id, d.due_at, d.journey, d.entry)"
	" SELECT t.contact_id, t.due_at, t.journey, t.entry FROM taken t"
	" ORDER BY t.journey, t.entry, t.due_at, t.contact_id",
	2,
	{ INT8ARRAYOID, TIMESTAMPTZOID },
	.by_index = true
};

/* Who is to enter, and when. */
typedef struct Candidate
{
	int64 contact_id;
	TimestampTz at;
} Candidate;

typedef struct CrmTimedWork
{
	CrmJourney *journey;
	int entry;
	TimestampTz as_of;
	TimestampTz from;
	TimestampTz until;
	int64 after;
	bool is_done; /* nobody comes after these */
	int n;
	Candidate *candidates; /* by contact */
} CrmTimedWork;

static const CrmTimedEntry *
timed_of(const CrmTimedWork *work)
{
	return work->journey->entries[work->entry].timed;
}

/* A column that is gone is a date of nobody. */
static bool
may_be_due(const CrmTimedEntry *timed)
{
	return timed != NULL &&
		(timed->by_date ? OidIsValid(timed->property_type) : timed->every != NULL);
}

/* The entries by time of journeys that are open, as arrays; how many. */
static int
timed_entries(Datum *values)
{
	const CrmJourneys *journeys = crm_journeys();
	CrmColumn names;
	CrmColumn places;

	crm_column_init(&names, TEXTOID);
	crm_column_init(&places, INT4OID);
	for (int i = 0; i < journeys->n; i++)
	{
		const CrmJourney *journey = journeys->list[i];

		if (!journey->is_current || journey->state != CRM_JOURNEY_OPEN)
			continue;
		for (int k = 0; k < journey->nentries; k++)
			if (may_be_due(journey->entries[k].timed))
			{
				crm_column_add(&names, CStringGetTextDatum(journey->name), false);
				crm_column_add(&places, Int32GetDatum(k), false);
			}
	}
	if (names.n == 0)
		return 0;
	values[0] = crm_column_array(&names);
	values[1] = crm_column_array(&places);
	return names.n;
}

TimestampTz
crm_timed_entries_next(void)
{
	Datum values[2];
	int n = timed_entries(values);
	TimestampTz next;

	if (n == 0)
		return DT_NOEND;
	crm_run(&count_rows, values, NULL);
	/* what is not planned is due */
	next = crm_result_int64(0, 1) < n ? crm_now() : crm_result_time(0, 2, DT_NOEND);
	SPI_freetuptable(SPI_tuptable);
	return next;
}

void
crm_timed_entries_replan(const char *journey)
{
	Datum name = CStringGetTextDatum(journey);

	crm_run(&forget_changed, &name, NULL);
}

void
crm_timed_entries_forget(void)
{
	crm_run(&forget_closed, NULL, NULL);
}

/* ---- who is due */

/* A plan for each column and way to look, as long as the session. */
static CrmPlan *
plan_of(const char *sql, Oid range)
{
	static List *plans = NIL;
	MemoryContext old;
	CrmPlan *plan;
	ListCell *cell;

	foreach(cell, plans)
	{
		plan = lfirst(cell);
		if (strcmp(plan->sql, sql) == 0)
			return plan;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	plan = palloc0_object(CrmPlan);
	plan->sql = pstrdup(sql);
	plan->nargs = 4;
	plan->argtypes[0] = INT8OID;
	plan->argtypes[1] = INT4OID;
	plan->argtypes[2] = plan->argtypes[3] = range;
	plan->always_generic = true;
	plans = lappend(plans, plan);
	MemoryContextSwitchTo(old);
	return plan;
}

/* The days of the year between two days, as month * 100 + day. */
static Datum
days_of_year(int first_day, int last_day)
{
	CrmColumn days;

	crm_column_init(&days, INT4OID);
	for (int day = first_day; day <= last_day && day - first_day <= 366; day++)
	{
		int year;
		int month;
		int of_month;

		j2date(day, &year, &month, &of_month);
		crm_column_add(&days, Int32GetDatum(month * 100 + of_month), false);
		/* of those born on a leap day, in other years */
		if (month == 2 && of_month == 28)
			crm_column_add(&days, Int32GetDatum(229), false);
		if (month == 3 && of_month == 1)
			crm_column_add(&days, Int32GetDatum(229), false);
	}
	return crm_column_array(&days);
}

/*
 * Those whose date lies about right, whatever their zone is: who exactly is due
 * is computed of these.
 */
static uint64
find_dates(const CrmTimedWork *work, const CrmMoments *moments, int limit)
{
	const CrmTimedEntry *timed = timed_of(work);
	bool is_date = timed->property_type == DATEOID;
	const char *column = psprintf("p.%s::%s", quote_identifier(timed->property),
								  is_date ? "date" : "timestamptz");
	Datum values[4] = { Int64GetDatum(work->after), Int32GetDatum(limit) };
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql,
					 "SELECT p.contact_id, %s, p.time_zone FROM crm.profile p"
					 " WHERE p.contact_id > $1 AND isfinite(%s) AND ",
					 column, column);
	if (timed->yearly)
	{
		const char *day = is_date ? column : psprintf("(%s AT TIME ZONE 'UTC')", column);

		appendStringInfo(&sql,
						 "(date_part('month', %s) * 100 + date_part('day', %s))::int4 = ANY ($3)"
						 " AND $4 IS NOT NULL",
						 day, day);
		values[2] = values[3] = days_of_year(moments->first_day, moments->last_day);
	}
	else
	{
		int first = moments->first_day - POSTGRES_EPOCH_JDATE;
		int last = moments->last_day - POSTGRES_EPOCH_JDATE;

		appendStringInfo(&sql, "%s BETWEEN $3 AND $4", column);
		values[2] = is_date ? DateADTGetDatum(first) : TimestampTzGetDatum(first * USECS_PER_DAY);
		values[3] = is_date ? DateADTGetDatum(last) : TimestampTzGetDatum(last * USECS_PER_DAY);
	}
	appendStringInfoString(&sql, " ORDER BY p.contact_id LIMIT $2");
	return crm_run(plan_of(sql.data, timed->yearly ? INT4ARRAYOID : timed->property_type), values,
				   NULL);
}

static void
add_candidate(CrmTimedWork *work, int *size, int64 contact_id, TimestampTz at)
{
	if (work->n == *size)
	{
		*size = Max(64, *size * 2);
		work->candidates = work->candidates == NULL
			? palloc_array(Candidate, *size)
			: repalloc_huge(work->candidates, sizeof(Candidate) * *size);
	}
	work->candidates[work->n].contact_id = contact_id;
	work->candidates[work->n++].at = at;
}

/* How many were looked at. */
static int
find_by_date(CrmTimedWork *work, int limit)
{
	const CrmTimedEntry *timed = timed_of(work);
	CrmMoments moments = crm_moments_within(timed, work->from, work->until);
	uint64 found = find_dates(work, &moments, limit);
	SPITupleTable *rows = SPI_tuptable;
	int size = 0;

	for (uint64 row = 0; row < found; row++)
	{
		int64 contact_id;
		char *name;
		const pg_tz *zone;
		TimestampTz *times;
		bool isnull;
		Datum date;
		int n;

		SPI_tuptable = rows;
		contact_id = crm_result_int64(row, 1);
		date = crm_result(row, 2, &isnull);
		name = crm_result_text(row, 3);
		zone = name == NULL ? NULL : pg_tzset(name);
		n = crm_moments_of(&moments, timed, date, zone == NULL ? work->journey->zone : zone,
						   &times);
		for (int i = 0; i < n; i++)
			add_candidate(work, &size, contact_id, times[i]);
		if (name != NULL)
			pfree(name);
		work->after = contact_id;
	}
	SPI_freetuptable(rows);
	work->is_done = found < limit;
	return (int) found;
}

static int
find_by_schedule(CrmTimedWork *work, int limit)
{
	/* of those that were missed only the last is made up for */
	TimestampTz moment = crm_schedule_last(timed_of(work), work->journey->zone,
										   Max(work->from,
											   work->until - crm_journey_lateness(work->journey)),
										   work->until);
	Datum values[2] = { Int64GetDatum(work->after), Int32GetDatum(limit) };
	uint64 found;

	work->is_done = moment == DT_NOBEGIN;
	if (work->is_done)
		return 0;
	found = crm_run(&find_everybody, values, NULL);
	work->candidates = palloc_array(Candidate, Max(found, 1));
	work->n = found;
	for (uint64 row = 0; row < found; row++)
	{
		work->candidates[row].contact_id = crm_result_int64(row, 1);
		work->candidates[row].at = moment;
	}
	SPI_freetuptable(SPI_tuptable);
	if (found > 0)
		work->after = work->candidates[found - 1].contact_id;
	work->is_done = found < limit;
	return (int) found;
}

/* Of those who are due, whom the rule lets in as of their moment. */
static void
ask_audience(CrmTimedWork *work)
{
	const CrmRuleUser user = { "journey", work->journey->name };
	const char *rule = timed_of(work)->audience;
	int64 *contacts;
	TimestampTz *times;
	bool *holds;
	int kept = 0;

	if (rule == NULL || work->n == 0)
		return;
	contacts = palloc_array(int64, work->n);
	times = palloc_array(TimestampTz, work->n);
	holds = palloc_array(bool, work->n);
	for (int i = 0; i < work->n; i++)
	{
		contacts[i] = work->candidates[i].contact_id;
		times[i] = work->candidates[i].at;
	}
	PushActiveSnapshot(crm_only_reads ? GetActiveSnapshot() : GetTransactionSnapshot());
	if (timed_of(work)->by_date || crm_only_reads)
		crm_rule_evaluate_at(rule, &user, contacts, work->n, times, holds);
	else
		crm_rule_evaluate(rule, &user, contacts, work->n, times[0], holds);
	PopActiveSnapshot();
	for (int i = 0; i < work->n; i++)
		if (holds[i])
			work->candidates[kept++] = work->candidates[i];
	work->n = kept;
	pfree(contacts);
	pfree(times);
	pfree(holds);
}

/* The row of one that is due and nobody else is at. */
static CrmTimedWork *
take_work(TimestampTz as_of)
{
	Datum values[3] = { 0, 0, TimestampTzGetDatum(as_of) };
	CrmTimedWork *work;
	int n = timed_entries(values);
	char *name;
	bool isnull;

	if (n == 0)
		return NULL;
	crm_run(&count_rows, values, NULL);
	if (crm_result_int64(0, 1) < n)
		crm_run(&add_rows, values, NULL);
	if (crm_run(&take_row, values, NULL) == 0)
		return NULL;
	work = palloc0_object(CrmTimedWork);
	name = crm_result_text(0, 1);
	work->entry = DatumGetInt32(crm_result(0, 2, &isnull));
	work->as_of = as_of;
	work->from = crm_result_time(0, 3, DT_NOBEGIN);
	work->until = crm_result_time(0, 4, as_of);
	work->after = DatumGetInt64(crm_result(0, 5, &isnull));
	if (isnull)
		work->after = PG_INT64_MIN;
	SPI_freetuptable(SPI_tuptable);
	work->journey = crm_journey_find(name, 0);
	if (work->journey == NULL || work->entry >= work->journey->nentries ||
		!may_be_due(timed_of(work)))
		return NULL;
	return work;
}

CrmTimedEntries *
crm_timed_entries_find(TimestampTz as_of, int limit)
{
	CrmTimedWork *work = take_work(as_of);
	CrmTimedEntries *entries;

	if (work == NULL)
		return NULL;
	entries = palloc0_object(CrmTimedEntries);
	entries->work = work;
	entries->nlooked = 1 +
		(timed_of(work)->by_date ? find_by_date(work, limit) : find_by_schedule(work, limit));
	ask_audience(work);
	entries->contacts = palloc_array(int64, Max(work->n, 1));
	for (int i = 0; i < work->n; i++)
		if (i == 0 || work->candidates[i].contact_id != work->candidates[i - 1].contact_id)
			entries->contacts[entries->ncontacts++] = work->candidates[i].contact_id;
	return entries;
}

/* ---- letting them in */

static TimestampTz
next_look(const CrmTimedWork *work)
{
	const CrmTimedEntry *timed = timed_of(work);
	int64 step = timed->minute_of_day < 0 ? USECS_PER_MINUTE : ZONE_STEP;
	int64 beyond;

	if (!timed->by_date)
		return crm_schedule_next(timed, work->journey->zone, work->until);
	beyond = (work->until - Max(timed->minute_of_day, 0) * USECS_PER_MINUTE) % step;
	return work->until - beyond + (beyond < 0 ? 0 : step);
}

static void
keep_row(const CrmTimedWork *work)
{
	Datum values[4] = { CStringGetTextDatum(work->journey->name), Int32GetDatum(work->entry),
						TimestampTzGetDatum(work->until) };

	values[3] = work->is_done ? TimestampTzGetDatum(next_look(work)) : Int64GetDatum(work->after);
	crm_run(work->is_done ? &end_look : &keep_place, values, NULL);
}

/* The moment, and of what. */
static Jsonb *
entry_of(const CrmJourney *journey, const CrmTimedEntry *timed, TimestampTz at)
{
	CrmSignal signal = { .kind = timed != NULL && timed->by_date ? "date" : "schedule" };

	memset(signal.fact.nulls, true, sizeof(signal.fact.nulls));
	signal.fact.values[CRM_F_KIND] = CStringGetTextDatum(signal.kind);
	signal.fact.values[CRM_F_OCCURRED_AT] = TimestampTzGetDatum(at);
	signal.fact.nulls[CRM_F_KIND] = signal.fact.nulls[CRM_F_OCCURRED_AT] = false;
	if (timed != NULL && timed->by_date)
	{
		Jsonb *properties = crm_document_with(crm_empty_document(), "property",
											  crm_text_json(timed->property));

		signal.fact.values[CRM_F_PROPERTIES] = JsonbPGetDatum(properties);
		signal.fact.nulls[CRM_F_PROPERTIES] = false;
	}
	return crm_signal_entry(&signal);
}

static void
fill_entering(CrmEntering *entering, const CrmEntering *before, CrmJourney *journey,
			  const CrmTimedEntry *timed, int64 contact_id, TimestampTz at, TimestampTz as_of)
{
	entering->journey = journey;
	entering->contact_id = contact_id;
	entering->at = at;
	entering->entered_by = timed != NULL && timed->by_date ? "date" : "schedule";
	entering->source_at = DT_NOBEGIN;
	entering->late = as_of - at > crm_journey_lateness(journey);
	if (before != NULL && before->journey == journey && before->at == at &&
		before->entered_by == entering->entered_by)
		entering->entry = before->entry;
	else
		entering->entry = entry_of(journey, timed, at);
	if (journey->reentry == CRM_REENTRY_ALWAYS)
		entering->key = before != NULL && before->entry == entering->entry
			? before->key
			: crm_member_text(entering->entry, "occurred_at");
}

/* Of a schedule: everybody, at each of its moments. */
static void
find_moments(CrmTimedWork *work, const int64 *contacts, int ncontacts)
{
	const CrmTimedEntry *timed = timed_of(work);
	TimestampTz at = work->from;
	int size = 0;

	while ((at = crm_schedule_next(timed, work->journey->zone, at)) <= work->until)
	{
		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < ncontacts; i++)
			add_candidate(work, &size, contacts[i], at);
	}
}

CrmEntering *
crm_timed_entries_within(CrmJourney *journey, const int64 *contacts, int ncontacts,
						 TimestampTz from, TimestampTz until, int *n)
{
	CrmEntering *entering = NULL;

	*n = 0;
	for (int entry = 0; entry < journey->nentries; entry++)
	{
		const CrmTimedEntry *timed = journey->entries[entry].timed;
		CrmTimedWork work = { .journey = journey,
							  .entry = entry,
							  .from = from,
							  .until = until,
							  .after = contacts[0] - 1 };

		if (!may_be_due(timed))
			continue;
		if (timed->by_date)
			(void) find_by_date(&work, ncontacts);
		else
			find_moments(&work, contacts, ncontacts);
		ask_audience(&work);
		if (work.n == 0)
			continue;
		entering = entering == NULL ? palloc_array(CrmEntering, work.n)
									: repalloc_huge(entering, sizeof(CrmEntering) * (*n + work.n));
		for (int i = 0; i < work.n; i++)
		{
			const Candidate *candidate = &work.candidates[i];

			/* of the next ones, who are found too */
			if (candidate->contact_id > contacts[ncontacts - 1])
				break;
			memset(&entering[*n], 0, sizeof(CrmEntering));
			fill_entering(&entering[*n], *n == 0 ? NULL : &entering[*n - 1], journey, timed,
						  candidate->contact_id, candidate->at, candidate->at);
			(*n)++;
		}
	}
	return entering;
}

typedef struct Making
{
	CrmTimedWork *work;
	const int64 *locked;
	int nlocked;
	int64 steps;
} Making;

static void
make_entries(void *arg)
{
	Making *making = arg;
	const CrmTimedWork *work = making->work;
	const CrmTimedEntry *timed = timed_of(work);
	CrmEngine *engine = crm_engine_create();
	CrmEntering *entering = palloc0_array(CrmEntering, Max(work->n, 1));
	CrmColumn aside[2];
	int n = 0;

	crm_column_init(&aside[0], INT8OID);
	crm_column_init(&aside[1], TIMESTAMPTZOID);
	for (int i = 0; i < work->n; i++)
	{
		const Candidate *candidate = &work->candidates[i];

		if (making->nlocked > 0 &&
			bsearch(&candidate->contact_id, making->locked, making->nlocked, sizeof(int64),
					crm_compare_int64) != NULL)
		{
			fill_entering(&entering[n], n == 0 ? NULL : &entering[n - 1], work->journey, timed,
						  candidate->contact_id, candidate->at, work->as_of);
			n++;
		}
		else
		{
			crm_column_add(&aside[0], Int64GetDatum(candidate->contact_id), false);
			crm_column_add(&aside[1], TimestampTzGetDatum(candidate->at), false);
		}
	}
	if (aside[0].n > 0)
	{
		Datum values[4] = { crm_column_array(&aside[0]), crm_column_array(&aside[1]),
							CStringGetTextDatum(work->journey->name), Int32GetDatum(work->entry) };

		crm_run(&set_aside, values, NULL);
	}
	crm_enter_all(engine, entering, n, true);
	crm_engine_run(engine);
	making->steps = engine->steps;
}

int64
crm_timed_entries_make(CrmTimedEntries *entries, const int64 *locked, int nlocked)
{
	Making making = { .work = entries->work, .locked = locked, .nlocked = nlocked };

	if (entries->work->n > 0)
		crm_journeys_work(make_entries, &making);
	keep_row(entries->work);
	return making.steps;
}

int64
crm_timed_entries_resume(CrmEngine *engine, const int64 *contacts, int ncontacts, TimestampTz as_of)
{
	Datum values[2] = { crm_int64_array(contacts, ncontacts), TimestampTzGetDatum(as_of) };
	uint64 found = crm_run(&take_aside, values, NULL);
	SPITupleTable *rows = SPI_tuptable;
	CrmEntering *entering = palloc0_array(CrmEntering, Max(found, 1));
	int n = 0;

	for (uint64 row = 0; row < found; row++)
	{
		const CrmTimedEntry *timed = NULL;
		CrmJourney *journey;
		bool isnull;
		int place;

		SPI_tuptable = rows;
		journey = crm_journey_find(crm_result_text(row, 3), 0);
		SPI_tuptable = rows;
		place = DatumGetInt32(crm_result(row, 4, &isnull));
		if (journey == NULL)
			continue;
		if (place < journey->nentries)
			timed = journey->entries[place].timed;
		fill_entering(&entering[n], n == 0 ? NULL : &entering[n - 1], journey, timed,
					  crm_result_int64(row, 1), crm_result_time(row, 2, as_of), as_of);
		n++;
	}
	SPI_freetuptable(rows);
	crm_enter_all(engine, entering, n, true);
	return (int64) found;
}
