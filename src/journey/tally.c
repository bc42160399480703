/*
 * tally.c
 *		Steps counted by day, in the transaction that enters and leaves them: as rows
 *		of crm.visit_tail, which the worker adds to crm.visit_day. They are counted
 *		in memory as they are written, those of a batch by their key.
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
crm_visit_tally_init(CrmVisitTally *tally)
{
	memset(tally, 0, sizeof(*tally));
	tally->kept = crm_roll_ups_kept();
	tally->last_at = DT_NOBEGIN;
}

void
crm_visit_tally_add(CrmVisitTally *tally, const CrmCounted *visit, int sign)
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
	for (int i = tally->n - 1; i >= Max(tally->n - LOOKED_THROUGH, 0); i--)
		if (is_same(&tally->counts[i], &count))
		{
			tally->counts[i].visits += sign;
			return;
		}
	if (tally->n == tally->size)
	{
		tally->size = Max(8, tally->size * 2);
		tally->counts = tally->counts == NULL
			? palloc_array(CrmVisitCount, tally->size)
			: repalloc_huge(tally->counts, sizeof(CrmVisitCount) * tally->size);
	}
	tally->counts[tally->n++] = count;
}

/* Of each key one that is not 0. */
static void
add_up(CrmVisitTally *tally)
{
	CrmVisitCount *counts = tally->counts;
	int n = 0;

	qsort(counts, tally->n, sizeof(CrmVisitCount), compare_counts);
	for (int i = 0; i < tally->n; i++)
	{
		if (n > 0 && compare_counts(&counts[n - 1], &counts[i]) == 0)
			counts[n - 1].visits += counts[i].visits;
		else
			counts[n++] = counts[i];
		if (counts[n - 1].visits == 0 &&
			(i + 1 == tally->n || compare_counts(&counts[n - 1], &counts[i + 1]) != 0))
			n--;
	}
	tally->n = n;
}

static const char *const columns[] = {
	"day",   "version", "visits",    "journey", "step",
	"state", "outcome", "next_step", "zone",    "visit_tail_id"
};
enum
{
	T_DAY,
	T_VERSION,
	T_VISITS,
	T_JOURNEY,
	T_STEP,
	T_STATE,
	T_OUTCOME,
	T_NEXT_STEP,
	T_COUNTED,
	T_ZONE = T_COUNTED,
	T_ID,
	T_COLUMNS
};
StaticAssertDecl(lengthof(columns) == T_COLUMNS, "a name for each column");

static CrmPlan insert_counts = {
	"INSERT INTO crm.visit_tail (day, version, visits, journey, step, state, outcome, next_step,"
	" zone) SELECT n.*, $9 FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) AS n",
	T_ZONE + 1,
	{ DATEARRAYOID, INT4ARRAYOID, INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
	  TEXTARRAYOID, TEXTARRAYOID, TEXTOID }
};

static void
put_text(Datum *value, bool *isnull, const char *text)
{
	*isnull = text == NULL;
	*value = text == NULL ? (Datum) 0 : CStringGetTextDatum(text);
}

static void
put_count(Datum *values, bool *nulls, const CrmVisitCount *count)
{
	memset(nulls, false, sizeof(bool) * T_COUNTED);
	values[T_DAY] = DateADTGetDatum(count->day);
	values[T_VERSION] = Int32GetDatum(count->version);
	values[T_VISITS] = Int64GetDatum(count->visits);
	put_text(&values[T_JOURNEY], &nulls[T_JOURNEY], count->journey);
	put_text(&values[T_STEP], &nulls[T_STEP], count->step);
	put_text(&values[T_STATE], &nulls[T_STATE], count->state);
	put_text(&values[T_OUTCOME], &nulls[T_OUTCOME], count->outcome);
	put_text(&values[T_NEXT_STEP], &nulls[T_NEXT_STEP], count->next_step);
}

/* False where that would pass over something. */
static bool
write_directly(const CrmVisitTally *tally, Datum zone)
{
	CrmTarget *target;
	Datum values[T_COLUMNS];
	bool nulls[T_COLUMNS] = { false };
	Oid sequence;

	if (!crm_guc_direct_access)
		return false;
	target = crm_target_open("visit_tail", columns, T_COLUMNS, false);
	if (target == NULL)
		return false;
	target->strict = true;
	sequence = crm_table_oid("visit_tail_visit_tail_id_seq");
	values[T_ZONE] = zone;
	for (int i = 0; i < tally->n; i++)
	{
		put_count(values, nulls, &tally->counts[i]);
		values[T_ID] = Int64GetDatum(nextval_internal(sequence, false));
		crm_target_insert(target, values, nulls);
	}
	crm_target_flush(target);
	crm_target_close(target);
	return true;
}

static void
write_by_statement(const CrmVisitTally *tally, Datum zone)
{
	static const Oid types[T_COUNTED] = { DATEOID, INT4OID, INT8OID, TEXTOID,
										  TEXTOID, TEXTOID, TEXTOID, TEXTOID };
	CrmColumn lists[T_COUNTED];
	Datum values[T_COLUMNS];
	bool nulls[T_COLUMNS];

	for (int i = 0; i < T_COUNTED; i++)
		crm_column_init(&lists[i], types[i]);
	for (int i = 0; i < tally->n; i++)
	{
		put_count(values, nulls, &tally->counts[i]);
		for (int column = 0; column < T_COUNTED; column++)
			crm_column_add(&lists[column], values[column], nulls[column]);
	}
	for (int i = 0; i < T_COUNTED; i++)
		values[i] = crm_column_array(&lists[i]);
	values[T_ZONE] = zone;
	crm_run(&insert_counts, values, NULL);
}

void
crm_visit_tally_write(CrmVisitTally *tally)
{
	Datum zone;

	if (tally->n == 0)
		return;
	add_up(tally);
	if (tally->n == 0)
		return;
	zone = CStringGetTextDatum(crm_guc_time_zone);
	if (!write_directly(tally, zone))
		write_by_statement(tally, zone);
	tally->n = 0;
}
