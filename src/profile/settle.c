/*
 * settle.c
 *		A batch of new facts into the profiles. Contacts whose facts all come
 *		after what is known continue their walk from the stored counters: one
 *		update of the profile, inserts of awards and moves, written without the
 *		executor. All others take the general lane (recompute.c), which gives
 *		the same rows. Profiles are locked in id order in one pass, whichever
 *		lane their contact takes.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/guc.h"
#include "base/table.h"
#include "pg_crm.h"
#include "profile/recompute.h"
#include "profile/walk.h"

static const char *const award_columns[] = {
	"contact_id", "achievement", "threshold", "awarded_at", "recorded_at", "source_id", "revoked_at"
};
static const char *const move_columns[] = {"contact_id", "since", "stage", "reason"};

/* rows waiting to be written by the direct lane */
typedef struct Slots
{
	CrmTarget  *target;
	int			n;
	int			size;
	TupleTableSlot **slots;
} Slots;

typedef struct Settling
{
	const CrmDefinitions *definitions;
	CrmWalk    *walk;
	CrmTarget  *profile;
	Slots		awards;
	Slots		moves;
	IndexScanDesc scan;
	TupleTableSlot *found;		/* the stored profile */
	MemoryContext row_context;	/* reset for each contact */

	/* contacts for the general lane, and when each was last heard of */
	int			ngeneral;
	int64	   *general;
	TimestampTz *general_causes;

	/* contacts that moved, for the kept copy in crm.contact */
	int			nmoved;
	int64	   *moved;
	int		   *moved_to;
} Settling;

static int
compare_facts(const void *a, const void *b)
{
	const CrmFact *left = a;
	const CrmFact *right = b;

	if (left->contact_id != right->contact_id)
		return left->contact_id < right->contact_id ? -1 : 1;
	if (left->occurred_at != right->occurred_at)
		return left->occurred_at < right->occurred_at ? -1 : 1;
	if (left->type != right->type)
		return (int) left->type - (int) right->type;
	if (left->reference != NULL && right->reference != NULL)
	{
		int			order = strcmp(left->reference, right->reference);

		if (order != 0)
			return order;
	}
	else if (left->reference != NULL || right->reference != NULL)
		return left->reference != NULL ? -1 : 1;
	return (left->id > right->id) - (left->id < right->id);
}

void
crm_facts_sort(CrmFact *facts, int64 nfacts)
{
	for (int64 i = 1; i < nfacts; i++)
		if (compare_facts(&facts[i - 1], &facts[i]) > 0)
		{
			qsort(facts, nfacts, sizeof(CrmFact), compare_facts);
			return;
		}
}

static TupleTableSlot *
next_slot(Slots *slots)
{
	TupleTableSlot *slot;

	if (slots->n == slots->size)
	{
		slots->size = slots->size == 0 ? 4 : slots->size * 2;
		slots->slots = slots->slots == NULL ?
			palloc_array(TupleTableSlot *, slots->size) :
			repalloc_huge(slots->slots, sizeof(TupleTableSlot *) * slots->size);
	}
	slot = MakeSingleTupleTableSlot(RelationGetDescr(slots->target->rel),
									table_slot_callbacks(slots->target->rel));
	slots->slots[slots->n++] = slot;
	return slot;
}

static void
fill_slot(CrmTarget *target, TupleTableSlot *slot, const Datum *values, const bool *nulls)
{
	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, sizeof(bool) * slot->tts_tupleDescriptor->natts);
	for (int i = 0; i < target->ncolumns; i++)
		if (target->attno[i] > 0)
		{
			slot->tts_values[target->attno[i] - 1] = values[i];
			slot->tts_isnull[target->attno[i] - 1] = nulls[i];
		}
	ExecStoreVirtualTuple(slot);
}

/* Opens all tables for direct writing, or none. */
static bool
open_targets(Settling *settling)
{
	if (!crm_guc_direct_access)
		return false;
	settling->profile = crm_target_open("profile_counter", crm_profile_column_names,
										CRM_PROFILE_COLUMNS, true);
	if (settling->profile == NULL)
		return false;
	for (int i = 0; i < CRM_PROFILE_COLUMNS; i++)
		if (settling->profile->attno[i] == 0)
			goto step_aside;
	settling->awards.target = crm_target_open("award", award_columns, lengthof(award_columns), false);
	settling->moves.target = crm_target_open("stage_move", move_columns, lengthof(move_columns), false);
	if (settling->awards.target != NULL && settling->moves.target != NULL)
		return true;

step_aside:
	if (settling->moves.target != NULL)
		crm_target_close(settling->moves.target);
	if (settling->awards.target != NULL)
		crm_target_close(settling->awards.target);
	crm_target_close(settling->profile);
	return false;
}

static void
close_targets(Settling *settling)
{
	for (int i = 0; i < settling->awards.n; i++)
		ExecDropSingleTupleTableSlot(settling->awards.slots[i]);
	for (int i = 0; i < settling->moves.n; i++)
		ExecDropSingleTupleTableSlot(settling->moves.slots[i]);
	crm_target_close(settling->moves.target);
	crm_target_close(settling->awards.target);
	crm_target_close(settling->profile);
}

/* Does the fact only say that the contact was seen? */
static bool
is_plain_event(const CrmDefinitions *definitions, const CrmFact *fact)
{
	return fact->type == CRM_FACT_EVENT && fact->kind < 0 && !definitions->every_fact_matters;
}

/* May the walk go on from the stored counters with these facts? */
static bool
can_continue(const Settling *settling, const CrmWalk *walk, const CrmFact *facts, int nfacts)
{
	const CrmDefinitions *definitions = settling->definitions;
	TimestampTz settled_at = DatumGetTimestampTz(walk->values[CRM_P_SETTLED_AT]);
	TimestampTz begin = walk->nulls[CRM_P_FIRST_SEEN_AT] ? settled_at :
		DatumGetTimestampTz(walk->values[CRM_P_FIRST_SEEN_AT]);

	for (int i = 0; i < nfacts; i++)
	{
		const CrmFact *fact = &facts[i];

		if (is_plain_event(definitions, fact))
		{
			if (fact->occurred_at < begin)
				return false;
		}
		else if (fact->type == CRM_FACT_PURCHASE ? !definitions->orders_continue :
				 (fact->type != CRM_FACT_EVENT || fact->kind >= 0))
			return false;
		else if (fact->occurred_at <= settled_at)
			return false;
	}
	return true;
}

/* Reads the stored profile out of the slot; by-reference values stay in it. */
static void
read_profile(const Settling *settling, TupleTableSlot *slot)
{
	CrmWalk    *walk = settling->walk;

	slot_getallattrs(slot);
	for (int i = 0; i < CRM_PROFILE_COLUMNS; i++)
	{
		AttrNumber	attno = settling->profile->attno[i];

		walk->values[i] = slot->tts_values[attno - 1];
		walk->nulls[i] = slot->tts_isnull[attno - 1];
	}
}

/*
 * Finds a contact's profile, newest version, as far as a snapshot of this
 * moment shows it. False if there is none.
 */
static bool
fetch_profile(Settling *settling, int64 contact_id)
{
	ScanKeyData key;

	ScanKeyInit(&key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(contact_id));
	index_rescan(settling->scan, &key, 1, NULL, 0);
	return index_getnext_slot(settling->scan, ForwardScanDirection, settling->found);
}

/*
 * Locks the newest version of the profile in the slot and leaves it there.
 */
static void
lock_profile(Settling *settling, int64 contact_id)
{
	TM_FailureData failure;
	ItemPointerData tid = settling->found->tts_tid;
	TM_Result	result;
	uint8		flags = TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS;

	if (!IsolationUsesXactSnapshot())
		flags |= TUPLE_LOCK_FLAG_FIND_LAST_VERSION;
	result = table_tuple_lock(settling->profile->rel, &tid, GetActiveSnapshot(), settling->found,
							  GetCurrentCommandId(true), LockTupleNoKeyExclusive, LockWaitBlock,
							  flags, &failure);
	switch (result)
	{
		case TM_Ok:
			return;
		case TM_Updated:
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not serialize access to contact %lld due to concurrent update",
							(long long) contact_id),
					 errhint("Repeat the transaction.")));
			break;
		case TM_Deleted:
			if (IsolationUsesXactSnapshot())
				ereport(ERROR,
						(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						 errmsg("could not serialize access to contact %lld due to concurrent merge",
								(long long) contact_id),
						 errhint("Repeat the transaction.")));
			crm_unknown_contact(contact_id);
			break;
		default:
			elog(ERROR, "unexpected result %d of locking a profile", result);
	}
}

static void
take_general_lane(Settling *settling, int64 contact_id, TimestampTz cause)
{
	if (settling->ngeneral > 0 && settling->general[settling->ngeneral - 1] == contact_id)
		return;
	settling->general[settling->ngeneral] = contact_id;
	settling->general_causes[settling->ngeneral] = cause;
	settling->ngeneral++;
}

static void
walk_new_facts(Settling *settling, const CrmFact *facts, int nfacts)
{
	crm_walk_continue(settling->walk);
	for (int i = 0; i < nfacts; i++)
	{
		if (is_plain_event(settling->definitions, &facts[i]))
			crm_walk_seen(settling->walk, facts[i].occurred_at);
		else
			crm_walk_step(settling->walk, &facts[i]);
	}
}

/* Writes the walked state over the stored row. False if somebody was faster. */
static bool
update_profile(Settling *settling)
{
	CrmTarget  *target = settling->profile;
	CrmWalk    *walk = settling->walk;
	TupleTableSlot *slot = target->slot;
	ItemPointerData tid = settling->found->tts_tid;
	TM_FailureData failure;
	LockTupleMode lock_mode;
	CrmUpdateIndexes update_indexes;
	TM_Result	result;

	ExecClearTuple(slot);
	memcpy(slot->tts_values, settling->found->tts_values,
		   sizeof(Datum) * slot->tts_tupleDescriptor->natts);
	memcpy(slot->tts_isnull, settling->found->tts_isnull,
		   sizeof(bool) * slot->tts_tupleDescriptor->natts);
	for (int i = 0; i < CRM_PROFILE_COLUMNS; i++)
	{
		slot->tts_values[target->attno[i] - 1] = walk->values[i];
		slot->tts_isnull[target->attno[i] - 1] = walk->nulls[i];
	}
	ExecStoreVirtualTuple(slot);
	result = table_tuple_update(target->rel, &tid, slot, GetCurrentCommandId(true),
								GetActiveSnapshot(), InvalidSnapshot, true, &failure, &lock_mode,
								&update_indexes);
	if (result != TM_Ok)
		return false;
	if (CRM_UPDATES_INDEXES(update_indexes))
	{
		crm_exec_insert_index_tuples(target->result, slot, target->estate,
									 CRM_ONLY_SUMMARIZING(update_indexes));
		ResetPerTupleExprContext(target->estate);
	}
	return true;
}

/* False if an award already stands in the way: then history must decide. */
static bool
queue_awards(Settling *settling)
{
	CrmWalk    *walk = settling->walk;
	int			before = settling->awards.n;

	for (int i = 0; i < walk->nawards; i++)
	{
		const CrmAwardStep *step = &walk->awards[i];
		const CrmAchievement *achievement = &settling->definitions->achievements[step->achievement];
		TupleTableSlot *slot = next_slot(&settling->awards);
		Datum		values[lengthof(award_columns)] = {
			walk->values[CRM_P_CONTACT_ID],
			achievement->name_text,
			achievement->thresholds[step->threshold],
			TimestampTzGetDatum(step->awarded_at),
			TimestampTzGetDatum(crm_now()),
			Int64GetDatum(step->source_id),
			(Datum) 0
		};
		bool		nulls[lengthof(award_columns)] = {false, false, false, false, false, false, true};

		fill_slot(settling->awards.target, slot, values, nulls);
		if (crm_target_conflicts(settling->awards.target, slot))
		{
			while (settling->awards.n > before)
				ExecDropSingleTupleTableSlot(settling->awards.slots[--settling->awards.n]);
			return false;
		}
	}
	return true;
}

static void
queue_moves(Settling *settling)
{
	CrmWalk    *walk = settling->walk;

	for (int i = 0; i < walk->nmoves; i++)
	{
		const CrmStageStep *step = &walk->moves[i];
		static const bool nulls[lengthof(move_columns)] = {false, false, false, false};
		Datum		values[lengthof(move_columns)] = {
			walk->values[CRM_P_CONTACT_ID],
			TimestampTzGetDatum(step->since),
			settling->definitions->stages[step->stage].stage_text,
			CStringGetTextDatum(step->reason)
		};

		fill_slot(settling->moves.target, next_slot(&settling->moves), values, nulls);
	}
	if (walk->nmoves > 0)
	{
		settling->moved[settling->nmoved] = DatumGetInt64(walk->values[CRM_P_CONTACT_ID]);
		settling->moved_to[settling->nmoved] = walk->stage;
		settling->nmoved++;
	}
}

static void
settle_contact(Settling *settling, const CrmFact *facts, int nfacts)
{
	int64		contact_id = facts[0].contact_id;
	TimestampTz cause = facts[nfacts - 1].occurred_at;
	MemoryContext batch = CurrentMemoryContext;
	bool		locked = false;

	if (!fetch_profile(settling, contact_id))
		crm_unknown_contact(contact_id);
	for (;;)
	{
		MemoryContextReset(settling->row_context);
		read_profile(settling, settling->found);
		if (!can_continue(settling, settling->walk, facts, nfacts))
		{
			if (!locked)
				lock_profile(settling, contact_id);
			take_general_lane(settling, contact_id, cause);
			return;
		}
		MemoryContextSwitchTo(settling->row_context);
		walk_new_facts(settling, facts, nfacts);
		MemoryContextSwitchTo(batch);
		if (update_profile(settling))
			break;
		/* somebody else updated, moved or merged the contact meanwhile */
		lock_profile(settling, contact_id);
		locked = true;
	}
	if (settling->walk->nawards > 0 && !queue_awards(settling))
	{
		take_general_lane(settling, contact_id, cause);
		return;
	}
	queue_moves(settling);
}

/* The kept copy of the stage; its row may be held by somebody who edits it. */
static void
update_contact_stages(Settling *settling)
{
	static CrmPlan update_stages = {
		"UPDATE crm.contact c SET stage = n.stage FROM unnest($1, $2) AS n(contact_id, stage)"
		" WHERE c.contact_id = n.contact_id", 2, {INT8ARRAYOID, TEXTARRAYOID}
	};
	CrmActing	acting;
	CrmColumn	stages;
	Datum		values[2];

	if (settling->nmoved == 0)
		return;
	crm_connect(&acting);
	crm_column_init(&stages, TEXTOID);
	for (int i = 0; i < settling->nmoved; i++)
		crm_column_add(&stages, settling->definitions->stages[settling->moved_to[i]].stage_text, false);
	values[0] = crm_int64_array(settling->moved, settling->nmoved);
	values[1] = crm_column_array(&stages);
	crm_run_protected(&update_stages, values, NULL);
	crm_disconnect(&acting);
}

static void
settle_directly(Settling *settling, CrmFact *facts, int64 nfacts)
{
	Relation	index = index_open(settling->profile->primary_key, AccessShareLock);

	settling->walk = crm_walk_create(settling->definitions);
	settling->row_context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm settle row",
												  ALLOCSET_SMALL_SIZES);
	settling->found = table_slot_create(settling->profile->rel, NULL);

	/* see what this transaction wrote before, and what others committed */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	settling->scan = crm_index_beginscan(settling->profile->rel, index, GetActiveSnapshot(), 1);
	for (int64 start = 0, end; start < nfacts; start = end)
	{
		CHECK_FOR_INTERRUPTS();
		for (end = start + 1; end < nfacts && facts[end].contact_id == facts[start].contact_id;)
			end++;
		settle_contact(settling, facts + start, end - start);
	}
	index_endscan(settling->scan);
	crm_target_insert(settling->awards.target, settling->awards.slots, settling->awards.n);
	crm_target_insert(settling->moves.target, settling->moves.slots, settling->moves.n);
	PopActiveSnapshot();
	ExecDropSingleTupleTableSlot(settling->found);
	index_close(index, AccessShareLock);
	update_contact_stages(settling);
}

void
crm_profile_settle(CrmFact *facts, int64 nfacts)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm settle",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	Settling	settling = {0};
	int64		ncontacts = 1;
	int64		nrefunds = 0;
	bool		direct;

	for (int64 i = 1; i < nfacts; i++)
		ncontacts += facts[i].contact_id != facts[i - 1].contact_id;
	settling.general = MemoryContextAllocHuge(context, sizeof(int64) * ncontacts);
	settling.general_causes = MemoryContextAllocHuge(context, sizeof(TimestampTz) * ncontacts);
	settling.moved = MemoryContextAllocHuge(context, sizeof(int64) * ncontacts);
	settling.moved_to = MemoryContextAllocHuge(context, sizeof(int) * ncontacts);

	/* the lock that opening takes also makes the definitions current */
	direct = open_targets(&settling);
	settling.definitions = crm_definitions();
	if (direct)
	{
		settle_directly(&settling, facts, nfacts);
		close_targets(&settling);
	}
	else
		for (int64 i = 0; i < nfacts; i++)
			if (i + 1 == nfacts || facts[i + 1].contact_id != facts[i].contact_id)
				take_general_lane(&settling, facts[i].contact_id, facts[i].occurred_at);

	if (settling.ngeneral > 0)
	{
		CrmNews		news = {
			.ncontacts = settling.ngeneral,.contacts = settling.general,
			.causes = settling.general_causes
		};

		for (int64 i = 0; i < nfacts; i++)
			nrefunds += facts[i].type == CRM_FACT_REFUND;
		news.refunds = palloc(sizeof(int64) * Max(nrefunds, 1));
		for (int64 i = 0; i < nfacts; i++)
			if (facts[i].type == CRM_FACT_REFUND)
				news.refunds[news.nrefunds++] = facts[i].id;
		qsort(news.refunds, news.nrefunds, sizeof(int64), crm_compare_int64);
		crm_recompute(settling.general, settling.ngeneral, &news);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}
