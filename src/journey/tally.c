/*
 * tally.c
 *		Steps counted by day, and enrolments by journey, in the transaction that enters
 *		and leaves them: as rows of crm.visit_tail and crm.enrolment_tail, which the
 *		worker adds to crm.visit_day and crm.enrolment_sum. They are counted in memory
 *		as they are written, those of a batch by their key.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "utils/builtins.h"

#include "base/db.h"
#include "base/guc.h"
#include "base/roll_up.h"
#include "base/table.h"
#include "journey/engine.h"

/* of what was added last is so much looked through, before all is sorted */
#define LOOKED_THROUGH 12

typedef struct CrmVisitCount
{
	DateADT day;
	int version;
	int64 visits;
	const char *journey;
	const char *step;
	const char *state;
	const char *outcome;
	const char *next_step;
} CrmVisitCount;

typedef struct CrmEnrolmentCount
{
	int64 enrolments;
	const char *journey;
	const char *state;
	const char *end_reason;
	TimestampTz first_at; /* of those that were entered; DT_NOBEGIN: of others */
	TimestampTz last_at;
} CrmEnrolmentCount;

/* NULL is the least. */
static int
compare_texts(const char *left, const char *right)
{
	if (left == right)
		return 0;
	if (left == NULL || right == NULL)
		return left == NULL ? -1 : 1;
	return strcmp(left, right);
}

static int
compare_counts(const void *a, const void *b)
{
	const CrmVisitCount *left = a;
	const CrmVisitCount *right = b;
	int order;

	if (left->day != right->day)
		return left->day < right->day ? -1 : 1;
	if ((order = compare_texts(left->journey, right->journey)) != 0)
		return order;
	if (left->version != right->version)
		return left->version < right->version ? -1 : 1;
	if ((order = compare_texts(left->step, right->step)) != 0)
		return order;
	/* the state follows from it, but that some have both the same name */
	if ((order = compare_texts(left->outcome, right->outcome)) != 0)
		return order;
	if ((order = compare_texts(left->state, right->state)) != 0)
		return order;
	return compare_texts(left->next_step, right->next_step);
}

static bool
is_same(const CrmVisitCount *left, const CrmVisitCount *right)
{
	return left->day == right->day && left->version == right->version &&
		left->step == right->step && left->outcome == right->outcome &&
		left->next_step == right->next_step && left->state == right->state &&
		left->journey == right->journey;
}

/* As crm.visit_state(). */
static const char *
state_of(const char *outcome)
{
	static const char *const ends[] = { "goal",   "rule",   "unenrolled", "cancelled",
										"merged", "erased", "stranded" };

	if (outcome == NULL)
		return "here";
	for (int i = 0; i < lengthof(ends); i++)
		if (strcmp(outcome, ends[i]) == 0)
			return "ended";
	return "left";
}

void
crm_journey_tally_init(CrmJourneyTally *tally)
{
	memset(tally, 0, sizeof(*tally));
	tally->kept = crm_roll_ups_kept();
	tally->last_at = DT_NOBEGIN;
}

void
crm_journey_tally_visit(CrmJourneyTally *tally, const CrmCounted *visit, int sign)
{
	bool by_arm = visit->outcome != NULL && strcmp(visit->outcome, "arm") == 0;
	CrmVisitCount count;

	if (!tally->kept)
		return;
	if (visit->entered_at != tally->last_at)
	{
		tally->last_at = visit->entered_at;
		tally->last_day = crm_day_of(visit->entered_at);
	}
	count = (CrmVisitCount){ .day = tally->last_day,
							 .version = visit->version,
							 .visits = sign,
							 .journey = visit->journey,
							 .step = visit->step,
							 .state = state_of(visit->outcome),
							 .outcome = by_arm ? visit->arm : visit->outcome,
							 .next_step = visit->next_step };
	for (int i = tally->nvisits - 1; i >= Max(tally->nvisits - LOOKED_THROUGH, 0); i--)
		if (is_same(&tally->visits[i], &count))
		{
			tally->visits[i].visits += sign;
			return;
		}
	if (tally->nvisits == tally->visits_size)
	{
		tally->visits_size = Max(8, tally->visits_size * 2);
		tally->visits = tally->visits == NULL
			? palloc_array(CrmVisitCount, tally->visits_size)
			: repalloc_huge(tally->visits, sizeof(CrmVisitCount) * tally->visits_size);
	}
	tally->visits[tally->nvisits++] = count;
}

/* Of each key one that is not 0. */
static void
add_up_visits(CrmJourneyTally *tally)
{
	CrmVisitCount *counts = tally->visits;
	int n = 0;

	qsort(counts, tally->nvisits, sizeof(CrmVisitCount), compare_counts);
	for (int i = 0; i < tally->nvisits; i++)
	{
		if (n > 0 && compare_counts(&counts[n - 1], &counts[i]) == 0)
			counts[n - 1].visits += counts[i].visits;
		else
			counts[n++] = counts[i];
		if (counts[n - 1].visits == 0 &&
			(i + 1 == tally->nvisits || compare_counts(&counts[n - 1], &counts[i + 1]) != 0))
			n--;
	}
	tally->nvisits = n;
}

/* of one journey in one state; reasons are few, so these are too */
static CrmEnrolmentCount *
enrolments_of(CrmJourneyTally *tally, const char *journey, const char *state, const char *reason)
{
	CrmEnrolmentCount *count;

	for (int i = tally->nenrolments - 1; i >= 0; i--)
	{
		count = &tally->enrolments[i];
		if (compare_texts(count->journey, journey) == 0 &&
			compare_texts(count->state, state) == 0 &&
			compare_texts(count->end_reason, reason) == 0)
			return count;
	}
	if (tally->nenrolments == tally->enrolments_size)
	{
		tally->enrolments_size = Max(4, tally->enrolments_size * 2);
		tally->enrolments = tally->enrolments == NULL
			? palloc_array(CrmEnrolmentCount, tally->enrolments_size)
			: repalloc_array(tally->enrolments, CrmEnrolmentCount, tally->enrolments_size);
	}
	count = &tally->enrolments[tally->nenrolments++];
	*count = (CrmEnrolmentCount){ .journey = journey,
								  .state = state,
								  .end_reason = reason,
								  .first_at = DT_NOBEGIN,
								  .last_at = DT_NOBEGIN };
	return count;
}

void
crm_journey_tally_entered(CrmJourneyTally *tally, const CrmRun *run)
{
	CrmEnrolmentCount *count;

	if (!tally->kept)
		return;
	count = enrolments_of(tally, run->journey->name, "entered", NULL);
	if (count->enrolments++ == 0 || run->entered_at < count->first_at)
		count->first_at = run->entered_at;
	count->last_at = Max(count->last_at, run->entered_at);
}

void
crm_journey_tally_ended(CrmJourneyTally *tally, const CrmRun *run, const char *state)
{
	bool exited = run->state == CRM_RUN_EXITED;

	if (tally->kept)
		enrolments_of(tally, run->journey->name, state, exited ? run->end_reason : NULL)
			->enrolments++;
}

/* ---- the tables */

#define MOST_COLUMNS 10

typedef struct Tail
{
	const char *table;
	const char *sequence;
	const char *const *columns; /* the id is the first */
	int ncolumns;
	void (*put)(const CrmJourneyTally *tally, int place, Datum *values, bool *nulls);
	CrmPlan *statement; /* takes a list for each column but the id */
	Oid types[MOST_COLUMNS];
} Tail;

static void
put_text(Datum *value, bool *isnull, const char *text)
{
	*isnull = text == NULL;
	*value = text == NULL ? (Datum) 0 : CStringGetTextDatum(text);
}

static void
put_visits(const CrmJourneyTally *tally, int place, Datum *values, bool *nulls)
{
	const CrmVisitCount *count = &tally->visits[place];

	values[1] = DateADTGetDatum(count->day);
	values[2] = Int32GetDatum(count->version);
	values[3] = Int64GetDatum(count->visits);
	put_text(&values[4], &nulls[4], count->journey);
	put_text(&values[5], &nulls[5], count->step);
	put_text(&values[6], &nulls[6], count->state);
	put_text(&values[7], &nulls[7], count->outcome);
	put_text(&values[8], &nulls[8], count->next_step);
	put_text(&values[9], &nulls[9], crm_guc_time_zone);
}

static void
put_enrolments(const CrmJourneyTally *tally, int place, Datum *values, bool *nulls)
{
	const CrmEnrolmentCount *count = &tally->enrolments[place];

	values[1] = Int64GetDatum(count->enrolments);
	values[2] = TimestampTzGetDatum(count->first_at);
	values[3] = TimestampTzGetDatum(count->last_at);
	nulls[2] = nulls[3] = count->first_at == DT_NOBEGIN;
	put_text(&values[4], &nulls[4], count->journey);
	put_text(&values[5], &nulls[5], count->state);
	put_text(&values[6], &nulls[6], count->end_reason);
}

static CrmPlan insert_visits = {
	"INSERT INTO crm.visit_tail (day, version, visits, journey, step, state, outcome, next_step,"
	" zone) SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9)",
	9,
	{ DATEARRAYOID, INT4ARRAYOID, INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
	  TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID }
};
static CrmPlan insert_enrolments = {
	"INSERT INTO crm.enrolment_tail (enrolments, first_entered_at, last_entered_at, journey, state,"
	" end_reason) SELECT * FROM unnest($1, $2, $3, $4, $5, $6)",
	6,
	{ INT8ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
	  TEXTARRAYOID }
};
static const char *const visit_columns[] = { "visit_tail_id", "day",  "version", "visits",
											 "journey",       "step", "state",   "outcome",
											 "next_step",     "zone" };
static const char *const enrolment_columns[] = { "enrolment_tail_id", "enrolments",
												 "first_entered_at",  "last_entered_at",
												 "journey",           "state",
												 "end_reason" };

static const Tail visit_tail = {
	"visit_tail",
	"visit_tail_visit_tail_id_seq",
	visit_columns,
	lengthof(visit_columns),
	put_visits,
	&insert_visits,
	{ INT8OID, DATEOID, INT4OID, INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID },
};
static const Tail enrolment_tail = {
	"enrolment_tail",
	"enrolment_tail_enrolment_tail_id_seq",
	enrolment_columns,
	lengthof(enrolment_columns),
	put_enrolments,
	&insert_enrolments,
	{ INT8OID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID },
};

/* False where that would pass over something. */
static bool
write_directly(const Tail *tail, const CrmJourneyTally *tally, int n)
{
	CrmTarget *target;
	Datum values[MOST_COLUMNS];
	bool nulls[MOST_COLUMNS] = { false };
	Oid sequence;

	if (!crm_guc_direct_access)
		return false;
	target = crm_target_open(tail->table, tail->columns, tail->ncolumns, false);
	if (target == NULL)
		return false;
	target->strict = true;
	sequence = crm_table_oid(tail->sequence);
	for (int i = 0; i < n; i++)
	{
		tail->put(tally, i, values, nulls);
		values[0] = Int64GetDatum(nextval_internal(sequence, false));
		crm_target_insert(target, values, nulls);
	}
	crm_target_flush(target);
	crm_target_close(target);
	return true;
}

static void
write_by_statement(const Tail *tail, const CrmJourneyTally *tally, int n)
{
	CrmColumn lists[MOST_COLUMNS];
	Datum values[MOST_COLUMNS];
	bool nulls[MOST_COLUMNS] = { false };

	for (int column = 1; column < tail->ncolumns; column++)
		crm_column_init(&lists[column], tail->types[column]);
	for (int i = 0; i < n; i++)
	{
		tail->put(tally, i, values, nulls);
		for (int column = 1; column < tail->ncolumns; column++)
			crm_column_add(&lists[column], values[column], nulls[column]);
	}
	for (int column = 1; column < tail->ncolumns; column++)
		values[column - 1] = crm_column_array(&lists[column]);
	crm_run(tail->statement, values, NULL);
}

static void
write_tail(const Tail *tail, const CrmJourneyTally *tally, int n)
{
	if (n > 0 && !write_directly(tail, tally, n))
		write_by_statement(tail, tally, n);
}

void
crm_journey_tally_write(CrmJourneyTally *tally)
{
	add_up_visits(tally);
	write_tail(&visit_tail, tally, tally->nvisits);
	write_tail(&enrolment_tail, tally, tally->nenrolments);
	tally->nvisits = tally->nenrolments = 0;
}
