/*
 * target_find.c
 *		Rows of a table found by its primary key, or where they are known to be.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/relscan.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/table.h"
#include "compat.h"

/* bytes by which the next version of a row may be longer */
#define ROOM_FOR_GROWTH 64

/*
 * The row updated last, which whoever comes after often wants next. Only in the same
 * subtransaction: one that is rolled back frees the table to be cut off before it.
 */
static struct
{
	LocalTransactionId transaction;
	SubTransactionId subtransaction;
	Oid relid;
	int64 key;
	ItemPointerData place;
} last_updated = { InvalidLocalTransactionId };

/* The operator by which a row is found; 0 for types that no key of ours has. */
RegProcedure
crm_target_equality(Oid type)
{
	return type == INT8OID       ? F_INT8EQ
		: type == INT4OID        ? F_INT4EQ
		: type == TEXTOID        ? F_TEXTEQ
		: type == TIMESTAMPTZOID ? F_TIMESTAMPTZ_EQ
								 : InvalidOid;
}

void
crm_target_find_forget(Oid relid)
{
	/* its pages may be gone */
	if (relid == InvalidOid || last_updated.relid == relid)
		last_updated.transaction = InvalidLocalTransactionId;
}

void
crm_target_note_updated(const CrmTarget *target, Datum key)
{
	last_updated.transaction = CRM_MY_LXID;
	last_updated.subtransaction = GetCurrentSubTransactionId();
	last_updated.relid = RelationGetRelid(target->rel);
	last_updated.key = DatumGetInt64(key);
	last_updated.place = target->slot->tts_tid;
}

static void
open_scan(CrmTarget *target, int nkeys)
{
	if (target->found == NULL)
		target->found = table_slot_create(target->rel, NULL);
	target->index = index_open(target->primary_key, AccessShareLock);
	target->scan = crm_index_beginscan(target->rel, target->index, GetActiveSnapshot(), nkeys);
}

/*
 * Fetches a row of a heap without pruning its page each time: an index fetch
 * prunes whenever the page is fuller than the fillfactor, which after one
 * update it always is. Here that waits until the next version would no longer
 * fit, and so is paid once for several updates.
 */
static bool
fetch_heap_row(CrmTarget *target, ItemPointer tid, bool *all_dead)
{
	BufferHeapTupleTableSlot *slot = (BufferHeapTupleTableSlot *) target->found;
	Buffer buffer = ReadBuffer(target->rel, ItemPointerGetBlockNumber(tid));
	bool pruned = false;
	bool found;

	for (;;)
	{
		HeapTuple tuple = &slot->base.tupdata;
		ItemPointerData here = *tid;
		Size space;

		LockBuffer(buffer, BUFFER_LOCK_SHARE);
		found = heap_hot_search_buffer(&here, target->rel, buffer, GetActiveSnapshot(), tuple,
									   all_dead, true);
		tuple->t_self = here;
		space = PageGetHeapFreeSpace(BufferGetPage(buffer));
		LockBuffer(buffer, BUFFER_LOCK_UNLOCK);
		if (!found || pruned || space >= MAXALIGN(tuple->t_len) + ROOM_FOR_GROWTH)
			break;
		heap_page_prune_opt(target->rel, buffer);
		pruned = true;
	}
	if (found)
	{
		target->found->tts_tableOid = RelationGetRelid(target->rel);
		ExecStoreBufferHeapTuple(&slot->base.tupdata, target->found, buffer);
	}
	ReleaseBuffer(buffer);
	return found;
}

/* The next row of a scan. */
static bool
fetch_next(CrmTarget *target)
{
	ItemPointer tid;

	if (target->rel->rd_tableam != GetHeapamTableAmRoutine() || !TTS_IS_BUFFERTUPLE(target->found))
		return index_getnext_slot(target->scan, ForwardScanDirection, target->found);

	ExecClearTuple(target->found);
	while ((tid = index_getnext_tid(target->scan, ForwardScanDirection)) != NULL)
	{
		bool all_dead;

		if (fetch_heap_row(target, tid, &all_dead))
			return true;
		/* as an index fetch does: tells the index that nobody needs the entry */
		if (!target->scan->xactStartedInRecovery)
			target->scan->kill_prior_tuple = all_dead;
	}
	return false;
}

static bool
find_last_updated(CrmTarget *target, int64 key)
{
	ItemPointerData tid = last_updated.place;
	bool all_dead;
	bool isnull;

	if (target->nkeys != 1 || last_updated.key != key ||
		last_updated.relid != RelationGetRelid(target->rel) ||
		last_updated.transaction != CRM_MY_LXID ||
		last_updated.subtransaction != GetCurrentSubTransactionId())
		return false;
	if (target->found == NULL)
		target->found = table_slot_create(target->rel, NULL);
	ExecClearTuple(target->found);
	return fetch_heap_row(target, &tid, &all_dead) &&
		DatumGetInt64(crm_target_value(target, 0, &isnull)) == key;
}

bool
crm_target_find(CrmTarget *target, int64 key)
{
	ScanKeyData scan_key;

	if (find_last_updated(target, key))
		return true;
	if (target->scan == NULL)
		open_scan(target, 1);
	ScanKeyInit(&scan_key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(key));
	index_rescan(target->scan, &scan_key, 1, NULL, 0);
	return fetch_next(target);
}

bool
crm_target_find_row(CrmTarget *target, const Datum *values)
{
	ScanKeyData scan_keys[INDEX_MAX_KEYS];

	Assert(target->nkeys > 0);
	if (target->scan == NULL)
		open_scan(target, target->nkeys);
	for (int key = 0; key < target->nkeys; key++)
		ScanKeyEntryInitialize(&scan_keys[key], 0, key + 1, BTEqualStrategyNumber, InvalidOid,
							   target->index->rd_indcollation[key],
							   crm_target_equality(target->index->rd_opcintype[key]),
							   values[target->keys[key]]);
	index_rescan(target->scan, scan_keys, target->nkeys, NULL, 0);
	return fetch_next(target);
}

/* Keys of by-reference types are left to the index. */
static bool
has_keys(CrmTarget *target, const Datum *values)
{
	for (int key = 0; key < target->nkeys; key++)
	{
		int column = target->keys[key];
		bool isnull;
		Datum value = crm_target_value(target, column, &isnull);

		if (isnull || value != values[column] ||
			!TupleDescAttr(RelationGetDescr(target->rel), target->attno[column] - 1)->attbyval)
			return false;
	}
	return true;
}

bool
crm_target_find_at(CrmTarget *target, const ItemPointerData *place, const Datum *values)
{
	ItemPointerData tid = *place;
	bool all_dead;

	/* who empties a table waits until it is closed, so pages that are there stay */
	if (ItemPointerIsValid(&tid) && target->npages <= ItemPointerGetBlockNumber(&tid))
		target->npages = RelationGetNumberOfBlocks(target->rel);
	ExecClearTuple(target->found);
	if (ItemPointerIsValid(&tid) && ItemPointerGetBlockNumber(&tid) < target->npages &&
		target->rel->rd_tableam == GetHeapamTableAmRoutine() &&
		fetch_heap_row(target, &tid, &all_dead) && has_keys(target, values))
		return true;
	return crm_target_find_row(target, values);
}
