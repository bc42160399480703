/*
 * recompute.c
 *		The general lane: contacts whose facts are walked from the beginning,
 *		because something happened before what is already known, because a
 *		refund changed an order, or because a definition changed. What the walk
 *		finds is compared with what is stored, and only differences are written,
 *		set-based. Contacts for whom nothing but time has passed are walked on
 *		from their counters, where these say all that rules read.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "journey/journey.h"
#include "profile/history.h"
#include "profile/recompute.h"
#include "profile/won.h"

static CrmPlan lock_profiles = {
	"SELECT contact_id FROM crm.profile_counter WHERE contact_id = ANY ($1)"
	" ORDER BY contact_id FOR NO KEY UPDATE",
	1,
	{ INT8ARRAYOID }
};
static CrmPlan find_survivor = {
	"SELECT contact_id FROM crm.merge_ledger WHERE other = $1 AND unmerged_at IS NULL"
	" ORDER BY merge_id DESC LIMIT 1",
	1,
	{ INT8OID }
};
static CrmPlan update_profiles = {
	"UPDATE crm.profile_counter p SET orders = n.orders, spend = n.spend,"
	" first_order_at = n.first_order_at, last_order_at = n.last_order_at, refunds = n.refunds,"
	" scans = n.scans, raw_scans = n.raw_scans, followed_at = n.followed_at,"
	" mobile_at = n.mobile_at, events = n.events, first_seen_at = n.first_seen_at,"
	" last_seen_at = n.last_seen_at, stage = n.stage, stage_since = n.stage_since,"
	" stage_manual = n.stage_manual, ranked_stage = n.ranked_stage, settled_at = n.settled_at"
	" FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)"
	" AS n(contact_id, orders, spend, first_order_at, last_order_at, refunds, scans, raw_scans,"
	" followed_at, mobile_at, events, first_seen_at, last_seen_at, stage, stage_since, stage_manual,"
	" ranked_stage, settled_at) WHERE p.contact_id = n.contact_id",
	CRM_PROFILE_COLUMNS,
	{ INT8ARRAYOID, INT8ARRAYOID, NUMERICARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID,
	  INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID,
	  INT8ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID,
	  BOOLARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID }
};
static CrmPlan update_stages = {
	"UPDATE crm.contact c SET stage = n.stage FROM unnest($1, $2) AS n(contact_id, stage)"
	" WHERE c.contact_id = n.contact_id",
	2,
	{ INT8ARRAYOID, TEXTARRAYOID }
};
static CrmPlan insert_awards = {
	"INSERT INTO crm.award (contact_id, achievement, threshold, awarded_at, source_id, revoked_at,"
	" recorded_at)"
	" SELECT n.*, $7 FROM unnest($1, $2, $3, $4, $5, $6)"
	" AS n(contact_id, achievement, threshold, awarded_at, source_id, revoked_at)",
	7,
	{ INT8ARRAYOID, TEXTARRAYOID, NUMERICARRAYOID, TIMESTAMPTZARRAYOID, INT8ARRAYOID,
	  TIMESTAMPTZARRAYOID, TIMESTAMPTZOID }
};
static CrmPlan update_awards = {
	"UPDATE crm.award a SET awarded_at = n.awarded_at, source_id = n.source_id,"
	" revoked_at = n.revoked_at"
	" FROM unnest($1, $2, $3, $4, $5, $6)"
	" AS n(contact_id, achievement, threshold, awarded_at, source_id, revoked_at)"
	" WHERE a.contact_id = n.contact_id AND a.achievement = n.achievement"
	" AND a.threshold = n.threshold",
	6,
	{ INT8ARRAYOID, TEXTARRAYOID, NUMERICARRAYOID, TIMESTAMPTZARRAYOID, INT8ARRAYOID,
	  TIMESTAMPTZARRAYOID }
};
static CrmPlan insert_award_changes = {
	"INSERT INTO crm.award_change (contact_id, achievement, threshold, change, old_awarded_at,"
	" new_awarded_at, occurred_at, recorded_at)"
	" SELECT n.*, $8 FROM unnest($1, $2, $3, $4, $5, $6, $7)"
	" AS n(contact_id, achievement, threshold, change, old_awarded_at, new_awarded_at, occurred_at)",
	8,
	{ INT8ARRAYOID, TEXTARRAYOID, NUMERICARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID,
	  TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZOID }
};
static CrmPlan delete_moves = {
	"DELETE FROM crm.stage_move m USING unnest($1, $2) AS n(contact_id, since)"
	" WHERE m.contact_id = n.contact_id AND m.since = n.since",
	2,
	{ INT8ARRAYOID, TIMESTAMPTZARRAYOID }
};
static CrmPlan upsert_moves = {
	"INSERT INTO crm.stage_move (contact_id, since, stage, reason)"
	" SELECT n.* FROM unnest($1, $2, $3, $4) AS n(contact_id, since, stage, reason)"
	" ON CONFLICT (contact_id, since) DO UPDATE SET stage = excluded.stage,"
	" reason = excluded.reason",
	4,
	{ INT8ARRAYOID, TIMESTAMPTZARRAYOID, TEXTARRAYOID, TEXTARRAYOID }
};

/* rows to write, column by column */
typedef struct Writes
{
	CrmColumn profiles[CRM_PROFILE_COLUMNS];
	CrmColumn stages[2];
	CrmColumn new_awards[6];
	CrmColumn awards[6];
	CrmColumn changes[7];
	CrmColumn old_moves[2];
	CrmColumn moves[4];
	CrmColumn due[2];
	CrmWon won;
} Writes;

static void
init_columns(CrmColumn *columns, const Oid *array_types, int n)
{
	for (int i = 0; i < n; i++)
	{
		Oid type = InvalidOid;

		switch (array_types[i])
		{
			case INT8ARRAYOID:
				type = INT8OID;
				break;
			case NUMERICARRAYOID:
				type = NUMERICOID;
				break;
			case TIMESTAMPTZARRAYOID:
				type = TIMESTAMPTZOID;
				break;
			case TEXTARRAYOID:
				type = TEXTOID;
				break;
			case BOOLARRAYOID:
				type = BOOLOID;
				break;
			default:
				elog(ERROR, "unexpected array type %u", array_types[i]);
		}
		crm_column_init(&columns[i], type);
	}
}

static void
init_writes(Writes *writes)
{
	init_columns(writes->profiles, update_profiles.argtypes, CRM_PROFILE_COLUMNS);
	init_columns(writes->stages, update_stages.argtypes, 2);
	init_columns(writes->new_awards, insert_awards.argtypes, 6);
	init_columns(writes->awards, update_awards.argtypes, 6);
	init_columns(writes->changes, insert_award_changes.argtypes, 7);
	init_columns(writes->old_moves, delete_moves.argtypes, 2);
	init_columns(writes->moves, upsert_moves.argtypes, 4);
	crm_column_init(&writes->due[0], INT8OID);
	crm_column_init(&writes->due[1], TIMESTAMPTZOID);
	crm_won_init(&writes->won);
}

static void
write_columns(CrmPlan *plan, CrmColumn *columns, int n, bool with_time)
{
	Datum values[CRM_MAX_PLAN_ARGS];

	if (columns[0].n == 0)
		return;
	for (int i = 0; i < n; i++)
		values[i] = crm_column_array(&columns[i]);
	if (with_time)
		values[n] = TimestampTzGetDatum(crm_now());
	crm_run_protected(plan, values, NULL);
}

static void
write_all(Writes *writes)
{
	write_columns(&update_profiles, writes->profiles, CRM_PROFILE_COLUMNS, false);
	write_columns(&update_stages, writes->stages, 2, false);
	write_columns(&insert_awards, writes->new_awards, 6, true);
	write_columns(&update_awards, writes->awards, 6, false);
	write_columns(&insert_award_changes, writes->changes, 7, true);
	write_columns(&delete_moves, writes->old_moves, 2, false);
	write_columns(&upsert_moves, writes->moves, 4, false);
	crm_stage_due_set(writes->due);
	crm_won_write(&writes->won);
}

static void
tell_award(const CrmHistory *history, const CrmStoredAward *award)
{
	CrmSignalName names[2] = {
		{ "achievement", award->achievement },
		{ "threshold", DatumGetCString(DirectFunctionCall1(numeric_out, award->threshold)) }
	};

	crm_journey_signal_named(CRM_SIGNAL_AWARD, history->contact_id, award->awarded_at, names, 2);
}

static void
add_change(Writes *writes, const CrmHistory *history, const CrmStoredAward *award,
		   const char *change, bool had_old, TimestampTz old, bool has_new, TimestampTz cause)
{
	crm_column_add(&writes->changes[0], Int64GetDatum(history->contact_id), false);
	crm_column_add(&writes->changes[1], CStringGetTextDatum(award->achievement), false);
	crm_column_add(&writes->changes[2], award->threshold, false);
	crm_column_add(&writes->changes[3], CStringGetTextDatum(change), false);
	crm_column_add(&writes->changes[4], TimestampTzGetDatum(old), !had_old);
	crm_column_add(&writes->changes[5], TimestampTzGetDatum(award->awarded_at), !has_new);
	crm_column_add(&writes->changes[6], TimestampTzGetDatum(cause), false);
}

/* Brings the stored awards to what a walk found; cause dates what changes. */
static void
compare_awards(CrmHistory *history, const CrmWalk *walk, TimestampTz cause, Writes *writes)
{
	const CrmDefinitions *definitions = walk->definitions;

	for (int i = 0; i < history->nawards; i++)
		history->awards[i].found = false;

	for (int i = 0; i < walk->nawards; i++)
	{
		const CrmAwardStep *step = &walk->awards[i];
		const CrmAchievement *achievement = &definitions->achievements[step->achievement];
		CrmStoredAward *award = crm_history_award(history, achievement, step->threshold);

		if (award == NULL)
		{
			if (history->nawards == history->awards_size)
			{
				history->awards_size = history->awards_size == 0 ? 8 : history->awards_size * 2;
				history->awards = history->awards == NULL
					? palloc_array(CrmStoredAward, history->awards_size)
					: repalloc_array(history->awards, CrmStoredAward, history->awards_size);
			}
			award = &history->awards[history->nawards++];
			memset(award, 0, sizeof(CrmStoredAward));
			award->achievement = achievement->name;
			award->threshold = achievement->thresholds[step->threshold];
			award->awarded_at = step->awarded_at;
			award->source_id = step->source_id;
			award->is_new = true;
			tell_award(history, award);
		}
		else if (award->revoked)
		{
			TimestampTz old = award->awarded_at;

			award->revoked = false;
			award->awarded_at = step->awarded_at;
			award->source_id = step->source_id;
			award->changed = true;
			add_change(writes, history, award, "regranted", true, old, true, cause);
			tell_award(history, award);
		}
		else if (achievement->revocable &&
				 (award->awarded_at != step->awarded_at || award->source_id != step->source_id))
		{
			TimestampTz old = award->awarded_at;

			award->awarded_at = step->awarded_at;
			award->source_id = step->source_id;
			award->changed = true;
			if (old != award->awarded_at)
				add_change(writes, history, award, "moved", true, old, true, cause);
		}
		award->found = true;
	}

	for (int i = 0; i < history->nawards; i++)
	{
		CrmStoredAward *award = &history->awards[i];

		if (award->found || award->revoked || !crm_award_is_revocable(definitions, award))
			continue;
		award->revoked = true;
		award->revoked_at = cause;
		award->changed = true;
		add_change(writes, history, award, "revoked", true, award->awarded_at, false, cause);
	}
}

static void
add_award(CrmColumn *columns, const CrmHistory *history, const CrmStoredAward *award)
{
	crm_column_add(&columns[0], Int64GetDatum(history->contact_id), false);
	crm_column_add(&columns[1], CStringGetTextDatum(award->achievement), false);
	crm_column_add(&columns[2], award->threshold, false);
	crm_column_add(&columns[3], TimestampTzGetDatum(award->awarded_at), false);
	crm_column_add(&columns[4], Int64GetDatum(award->source_id), award->source_id == 0);
	crm_column_add(&columns[5], TimestampTzGetDatum(award->revoked_at), !award->revoked);
}

/* Where another reason is all that changed, nobody moved. */
static void
tell_move(const CrmHistory *history, const CrmWalk *walk, int place, const CrmStoredMove *before)
{
	const CrmStage *stages = walk->definitions->stages;
	const char *stage = stages[walk->moves[place].stage].stage;
	CrmSignalName names[2] = { { "stage", stage },
							   { "from",
								 place == 0 ? "" : stages[walk->moves[place - 1].stage].stage } };

	if (place == 0 || (before != NULL && strcmp(before->stage, stage) == 0))
		return;
	crm_journey_signal_named(CRM_SIGNAL_STAGE, history->contact_id, walk->moves[place].since, names,
							 2);
}

static void
compare_moves(const CrmHistory *history, const CrmWalk *walk, Writes *writes)
{
	int stored = 0;

	for (int i = 0; i < walk->nmoves || stored < history->nmoves;)
	{
		const CrmStageStep *step = i < walk->nmoves ? &walk->moves[i] : NULL;
		const CrmStoredMove *move = stored < history->nmoves ? &history->moves[stored] : NULL;

		if (step == NULL || (move != NULL && move->since < step->since))
		{
			crm_column_add(&writes->old_moves[0], Int64GetDatum(history->contact_id), false);
			crm_column_add(&writes->old_moves[1], TimestampTzGetDatum(move->since), false);
			stored++;
			continue;
		}
		if (move == NULL || step->since < move->since ||
			strcmp(move->stage, walk->definitions->stages[step->stage].stage) != 0 ||
			strcmp(move->reason, step->reason) != 0)
		{
			crm_column_add(&writes->moves[0], Int64GetDatum(history->contact_id), false);
			crm_column_add(&writes->moves[1], TimestampTzGetDatum(step->since), false);
			crm_column_add(&writes->moves[2], walk->definitions->stages[step->stage].stage_text,
						   false);
			crm_column_add(&writes->moves[3], CStringGetTextDatum(step->reason), false);
			tell_move(history, walk, i, move != NULL && move->since == step->since ? move : NULL);
		}
		if (move != NULL && move->since == step->since)
			stored++;
		i++;
	}
}

static bool
same_value(CrmProfileColumn column, Datum a, Datum b)
{
	if (column == CRM_P_SPEND)
		return DatumGetBool(DirectFunctionCall2(numeric_eq, a, b));
	if (column == CRM_P_STAGE || column == CRM_P_RANKED_STAGE)
		return DatumGetBool(DirectFunctionCall2Coll(texteq, C_COLLATION_OID, a, b));
	return a == b;
}

bool
crm_profile_differs(const CrmHistory *history, const CrmWalk *walk, CrmProfileColumn column)
{
	return history->nulls[column] != walk->nulls[column] ||
		(!walk->nulls[column] &&
		 !same_value(column, history->values[column], walk->values[column]));
}

static void
compare_profile(const CrmHistory *history, const CrmWalk *walk, Writes *writes)
{
	const char *stage = walk->stage < 0 ? NULL : walk->definitions->stages[walk->stage].stage;
	bool differs = false;

	for (int column = 0; column < CRM_PROFILE_COLUMNS && !differs; column++)
		differs = crm_profile_differs(history, walk, column);
	if (differs)
		for (int column = 0; column < CRM_PROFILE_COLUMNS; column++)
		{
			Datum value = walk->values[column];

			/* the walk goes on to the next contact, the row waits */
			if (column == CRM_P_SPEND && !walk->nulls[column])
				value = datumCopy(value, false, -1);
			crm_column_add(&writes->profiles[column], value, walk->nulls[column]);
		}
	if (crm_profile_differs(history, walk, CRM_P_ORDERS) ||
		crm_profile_differs(history, walk, CRM_P_SPEND))
		crm_won_changed(&writes->won, history->contact_id);
	if ((stage == NULL) != (history->contact_stage == NULL) ||
		(stage != NULL && strcmp(stage, history->contact_stage) != 0))
	{
		crm_column_add(&writes->stages[0], Int64GetDatum(history->contact_id), false);
		crm_column_add(&writes->stages[1], stage == NULL ? (Datum) 0 : CStringGetTextDatum(stage),
					   stage == NULL);
	}
}

static TimestampTz
cause_of(const CrmNews *news, int64 contact_id)
{
	const int64 *place;

	if (news->causes == NULL)
		return news->cause;
	place = bsearch(&contact_id, news->contacts, news->ncontacts, sizeof(int64), crm_compare_int64);
	return news->causes[place - news->contacts];
}

static void
compare_walk(const CrmHistory *history, CrmWalk *walk, const CrmNews *news, Writes *writes)
{
	compare_moves(history, walk, writes);
	compare_profile(history, walk, writes);
	if (news->moved != NULL && !walk->nulls[CRM_P_STAGE_SINCE] &&
		(crm_profile_differs(history, walk, CRM_P_STAGE) ||
		 crm_profile_differs(history, walk, CRM_P_STAGE_SINCE)))
	{
		news->moved->contacts[news->moved->n] = history->contact_id;
		news->moved->since[news->moved->n++] = DatumGetTimestampTz(walk->values[CRM_P_STAGE_SINCE]);
	}
	if (walk->definitions->stages_read_time)
	{
		TimestampTz due = crm_walk_due(walk);

		crm_column_add(&writes->due[0], Int64GetDatum(history->contact_id), false);
		crm_column_add(&writes->due[1], TimestampTzGetDatum(due), due == DT_NOEND);
	}
}

/*
 * Refunds that have just been recorded take effect one after the other, in the
 * order of their time, so that each dates what it revokes, however many came
 * in one statement.
 */
static void
mend(CrmHistory *history, CrmWalk *walk, const CrmNews *news, Writes *writes)
{
	int64 *left_out = palloc(sizeof(int64) * Max(news->nrefunds, 1));
	int nleft_out = 0;
	CrmFact **fresh = palloc(sizeof(CrmFact *) * Max(news->nrefunds, 1));

	if (news->nrefunds > 0)
		for (int i = 0; i < history->nfacts; i++)
			if (history->facts[i].type == CRM_FACT_REFUND &&
				bsearch(&history->facts[i].id, news->refunds, news->nrefunds, sizeof(int64),
						crm_compare_int64))
				fresh[nleft_out++] = &history->facts[i];

	/* facts lie in the order of time; the last ones are let in last */
	for (int done = 0;; done++)
	{
		TimestampTz cause = cause_of(news, history->contact_id);
		int n = 0;

		for (int i = done; i < nleft_out; i++)
			left_out[n++] = fresh[i]->id;
		qsort(left_out, n, sizeof(int64), crm_compare_int64);
		if (done > 0)
			cause = fresh[done - 1]->occurred_at;
		crm_history_walk(history, walk, left_out, n, news->until);
		compare_awards(history, walk, cause, writes);
		if (done == nleft_out)
			break;
	}

	for (int i = 0; i < history->nawards; i++)
	{
		const CrmStoredAward *award = &history->awards[i];

		if (award->is_new)
			add_award(writes->new_awards, history, award);
		else if (award->changed)
			add_award(writes->awards, history, award);
	}
	compare_walk(history, walk, news, writes);
}

/* Goes on from the stored counters. Nothing changed before the moment that is kept. */
static void
go_on(CrmHistory *history, CrmWalk *walk, const CrmNews *news, Writes *writes)
{
	memcpy(walk->values, history->values, sizeof(history->values));
	memcpy(walk->nulls, history->nulls, sizeof(history->nulls));
	crm_walk_continue(walk);
	walk->decided_at = Max(walk->decided_at, history->due_at - 1);
	crm_walk_advance(walk, news->until);
	compare_walk(history, walk, news, writes);
}

/* the last transaction in which contacts were walked anew */
static FullTransactionId recomputed_in;

bool
crm_recomputed_in_transaction(void)
{
	FullTransactionId now = GetTopFullTransactionIdIfAny();

	return FullTransactionIdIsValid(now) && FullTransactionIdEquals(now, recomputed_in);
}

static void
recompute_chunk(const int64 *contacts, int ncontacts, const CrmNews *news)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm recompute",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	const CrmDefinitions *definitions;
	CrmHistory *histories;
	CrmWalk *walk;
	Writes writes;
	int nhistories;
	int nest_level;
	bool goes_on;

	crm_profile_lock(contacts, ncontacts);
	/* who waited for the lock may have waited for new definitions */
	definitions = crm_definitions();
	/* rule functions and fields as they were need the history of facts */
	goes_on = news->time_alone && definitions->nwindows == 0 && !definitions->reads_fields;
	if (!goes_on)
		recomputed_in = GetTopFullTransactionId();
	histories = goes_on ? crm_history_load_stored(contacts, ncontacts, &nhistories)
						: crm_history_load(definitions, contacts, ncontacts, false, &nhistories);
	walk = crm_walk_create(definitions);
	init_writes(&writes);
	nest_level = crm_definitions_enter(definitions);
	for (int i = 0; i < nhistories; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (goes_on)
			go_on(&histories[i], walk, news, &writes);
		else
			mend(&histories[i], walk, news, &writes);
	}
	crm_definitions_leave(nest_level);
	write_all(&writes);
	crm_walk_count_errors(walk);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

void
crm_recompute(const int64 *contacts, int ncontacts, const CrmNews *news)
{
	CrmActing acting;

	crm_connect(&acting);
	for (int start = 0; start < ncontacts; start += CRM_HISTORY_CHUNK)
		recompute_chunk(contacts + start, Min(CRM_HISTORY_CHUNK, ncontacts - start), news);
	crm_disconnect(&acting);
}

void
crm_profile_recompute(const int64 *contacts, int ncontacts, TimestampTz cause)
{
	CrmNews news = { .cause = cause };

	crm_recompute(contacts, ncontacts, &news);
}

int64
crm_profile_survivor(int64 contact_id)
{
	int64 survivor = 0;
	Datum value = Int64GetDatum(contact_id);
	CrmActing acting;

	crm_connect(&acting);
	if (crm_run(&find_survivor, &value, NULL) > 0)
		survivor = crm_result_int64(0, 1);
	crm_disconnect(&acting);
	return survivor;
}

void
crm_unknown_contact(int64 contact_id)
{
	int64 survivor = crm_profile_survivor(contact_id);

	ereport(ERROR,
			(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
			 errmsg("contact %lld does not exist", (long long) contact_id),
			 survivor != 0
				 ? errhint("It was merged into contact %lld; record the fact for that one.",
						   (long long) survivor)
				 : errhint("Create the contact first, for example with crm.identify().")));
}

void
crm_profile_lock(const int64 *contacts, int ncontacts)
{
	Datum array;
	uint64 n;
	CrmActing acting;

	crm_contact_lock_first(contacts, ncontacts);
	crm_connect(&acting);
	array = crm_int64_array(contacts, ncontacts);
	n = crm_run(&lock_profiles, &array, NULL);
	if (n != ncontacts)
	{
		uint64 row = 0;

		while (row < n && crm_result_int64(row, 1) == contacts[row])
			row++;
		crm_unknown_contact(contacts[row]);
	}
	crm_disconnect(&acting);
}
