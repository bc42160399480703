/*
 * target.c
 *		Tables written without the executor, where that passes over nothing which
 *		the executor does.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "rewrite/prs2lock.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/rights.h"
#include "base/table.h"
#include "compat.h"
#include "pg_crm.h"

#define INSERT_BATCH 500

/* What is known about the tables, until a relcache invalidation says that one of them changed. */
typedef struct KnownShape
{
	const char *const *columns; /* the caller's list tells shapes apart */
	Oid relid;
	bool for_update;
	bool direct;   /* may be written without the executor */
	bool readable; /* may be read without it */
	Oid primary_key;
	int nkeys;
	int keys[INDEX_MAX_KEYS];
	int nindexes;
	Oid indexes[CRM_MAX_INDEXES];
	AttrNumber attno[CRM_MAX_COLUMNS];
} KnownShape;

/* What is opened: a table, or a partition after the table that it belongs to. */
typedef enum Part
{
	TABLE,
	ROOT,
	PARTITION
} Part;

static int nknown_shapes = 0;
static KnownShape known_shapes[32];

void
crm_target_forget(Oid relid)
{
	crm_target_find_forget(relid);
	for (int i = 0; i < nknown_shapes; i++)
		if (relid == InvalidOid || known_shapes[i].relid == relid)
		{
			nknown_shapes = 0;
			break;
		}
}

/* Would a direct write pass over a trigger that is not the extension's? */
static bool
has_foreign_triggers(Relation rel, bool for_update)
{
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		const Trigger *trigger = &rel->trigdesc->triggers[i];

		if (trigger->tgenabled == TRIGGER_DISABLED)
			continue;
		if (!(for_update ? TRIGGER_FOR_UPDATE(trigger->tgtype)
						 : TRIGGER_FOR_INSERT(trigger->tgtype)))
			continue;
		if (get_func_namespace(trigger->tgfoid) != crm_schema_oid())
			return true;
	}
	return false;
}

static bool
is_plain(Relation rel, Part part, bool for_update)
{
	return rel->rd_rel->relkind == (part == ROOT ? RELKIND_PARTITIONED_TABLE : RELKIND_RELATION) &&
		rel->rd_rel->relispartition == (part == PARTITION) &&
		(part == ROOT || !rel->rd_rel->relhassubclass) && !rel->rd_rel->relrowsecurity &&
		rel->rd_rules == NULL && rel->rd_rel->relpersistence == RELPERSISTENCE_PERMANENT &&
		(rel->rd_att->constr == NULL ||
		 (rel->rd_att->constr->num_check == 0 && !rel->rd_att->constr->has_generated_stored)) &&
		!has_foreign_triggers(rel, for_update);
}

/* Must an insert fill columns that the extension does not know? */
static bool
has_unknown_columns(Relation rel, const KnownShape *shape, int ncolumns)
{
	for (int att = 0; att < rel->rd_att->natts; att++)
	{
		Form_pg_attribute attribute = TupleDescAttr(rel->rd_att, att);
		bool known = false;

		for (int i = 0; i < ncolumns && !known; i++)
			known = shape->attno[i] == att + 1;
		if (!known && !attribute->attisdropped &&
			(attribute->atthasdef || attribute->attidentity || attribute->attnotnull))
			return true;
	}
	return false;
}

/* Finds the columns of the primary key among those that were named. */
static void
know_keys(Relation index, KnownShape *shape, int ncolumns)
{
	int nkeys = IndexRelationGetNumberOfKeyAttributes(index);

	for (int key = 0; key < nkeys; key++)
	{
		int place = 0;

		while (place < ncolumns && shape->attno[place] != index->rd_index->indkey.values[key])
			place++;
		if (place == ncolumns ||
			!RegProcedureIsValid(crm_target_equality(index->rd_opcintype[key])))
			return;
		shape->keys[key] = place;
	}
	shape->nkeys = nkeys;
}

/* Lists the indexes; false if one of them needs the executor. */
static bool
know_indexes(Relation rel, KnownShape *shape, int ncolumns)
{
	List *indexes = RelationGetIndexList(rel);
	ListCell *cell;
	bool plain = list_length(indexes) <= CRM_MAX_INDEXES;

	shape->primary_key = crm_primary_key(rel);
	foreach(cell, indexes)
	{
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);

		plain = plain && index->rd_index->indimmediate && !index->rd_index->indisexclusion &&
			heap_attisnull(index->rd_indextuple, Anum_pg_index_indexprs, NULL);
		if (plain)
			shape->indexes[shape->nindexes++] = lfirst_oid(cell);
		if (lfirst_oid(cell) == shape->primary_key)
		{
			know_keys(index, shape, ncolumns);
			/* an index made lately may not know what an old snapshot sees */
			shape->readable = index->rd_index->indisvalid && !index->rd_index->indcheckxmin;
		}
		index_close(index, AccessShareLock);
	}
	list_free(indexes);
	return plain && OidIsValid(shape->primary_key);
}

static const KnownShape *
know_shape(Relation rel, Part part, const char *const *columns, int ncolumns, bool for_update)
{
	KnownShape shape = { .columns = columns,
						 .relid = RelationGetRelid(rel),
						 .for_update = for_update };

	for (int i = 0; i < nknown_shapes; i++)
		if (known_shapes[i].relid == shape.relid && known_shapes[i].columns == columns)
			return &known_shapes[i];

	crm_attributes(rel, columns, ncolumns, shape.attno);
	shape.direct = know_indexes(rel, &shape, ncolumns) && is_plain(rel, part, for_update) &&
		(for_update || !has_unknown_columns(rel, &shape, ncolumns));
	shape.readable = shape.readable && rel->rd_rel->relkind == RELKIND_RELATION &&
		!rel->rd_rel->relrowsecurity && !rel->rd_rel->relhassubclass && rel->rd_rules == NULL &&
		shape.nkeys == 1 && shape.keys[0] == 0 &&
		pg_class_aclcheck(shape.relid, crm_owner(), ACL_SELECT) == ACLCHECK_OK;
	for (int i = 0; i < ncolumns; i++)
	{
		shape.direct = shape.direct && shape.attno[i] > 0;
		shape.readable = shape.readable && shape.attno[i] > 0;
	}
	if (nknown_shapes == lengthof(known_shapes))
		nknown_shapes = 0;
	known_shapes[nknown_shapes] = shape;
	return &known_shapes[nknown_shapes++];
}

static CrmTarget *
make_target(Relation rel, const KnownShape *shape, int ncolumns)
{
	CrmTarget *target = palloc0(sizeof(CrmTarget));

	Assert(ncolumns <= CRM_MAX_COLUMNS);
	target->rel = rel;
	target->ncolumns = ncolumns;
	target->primary_key = shape->primary_key;
	target->nkeys = shape->nkeys;
	memcpy(target->keys, shape->keys, sizeof(target->keys));
	target->nindexes = shape->nindexes;
	memcpy(target->index_oids, shape->indexes, sizeof(target->index_oids));
	memcpy(target->attno, shape->attno, sizeof(target->attno));
	return target;
}

static CrmTarget *
open_target(Relation rel, Part part, const char *const *columns, int ncolumns, bool for_update)
{
	const KnownShape *shape = know_shape(rel, part, columns, ncolumns, for_update);
	CrmTarget *target;

	if (!shape->direct)
	{
		table_close(rel, NoLock);
		return NULL;
	}
	target = make_target(rel, shape, ncolumns);
	if (for_update)
	{
		target->slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
		target->found = table_slot_create(rel, NULL);
	}
	return target;
}

CrmTarget *
crm_target_open(const char *table, const char *const *columns, int ncolumns, bool for_update)
{
	Relation rel = table_open(crm_table_oid(table), RowExclusiveLock);

	return open_target(rel, TABLE, columns, ncolumns, for_update);
}

/* InvalidOid: none but the default one, or it has partitions itself. */
static Oid
partition_of(Relation root, AttrNumber attno, Datum value)
{
	PartitionKey key = RelationGetPartitionKey(root);
	PartitionDesc partitions;
	bool is_equal;
	int place;

	if (key->strategy != PARTITION_STRATEGY_RANGE || key->partnatts != 1 ||
		key->partattrs[0] != attno)
		return InvalidOid;
	/* those that are being detached as the executor takes them */
	partitions = RelationGetPartitionDesc(root, !IsolationUsesXactSnapshot());
	if (partitions->nparts == 0)
		return InvalidOid;
	place = partition_range_datum_bsearch(key->partsupfunc, key->partcollation,
										  partitions->boundinfo, 1, &value, &is_equal);
	place = partitions->boundinfo->indexes[place + 1];
	return place >= 0 && partitions->is_leaf[place] ? partitions->oids[place] : InvalidOid;
}

CrmTarget *
crm_target_open_partition(const char *table, const char *const *columns, int ncolumns,
						  bool for_update, int key, Datum value)
{
	Relation root = table_open(crm_table_oid(table), RowExclusiveLock);
	const KnownShape *shape = know_shape(root, ROOT, columns, ncolumns, for_update);
	AttrNumber attno = shape->attno[key];
	Oid relid = shape->direct ? partition_of(root, attno, value) : InvalidOid;
	CrmTarget *target = NULL;

	if (OidIsValid(relid))
		target = open_target(table_open(relid, RowExclusiveLock), PARTITION, columns, ncolumns,
							 for_update);
	if (target == NULL)
	{
		table_close(root, NoLock);
		return NULL;
	}
	target->root = root;
	target->root_key = attno;
	return target;
}

bool
crm_target_takes(CrmTarget *target, Datum value)
{
	return partition_of(target->root, target->root_key, value) == RelationGetRelid(target->rel);
}

CrmTarget *
crm_target_open_to_read(const char *table, const char *const *columns, int ncolumns)
{
	Relation rel = table_open(crm_table_oid(table), AccessShareLock);
	const KnownShape *shape = know_shape(rel, TABLE, columns, ncolumns, false);

	if (shape->readable)
		return make_target(rel, shape, ncolumns);
	table_close(rel, NoLock);
	return NULL;
}

/* Do updates leave its keys alone? They change no column of the primary key. */
static bool
is_kept(const CrmTarget *target, const IndexInfo *info)
{
	for (int key = 0; key < info->ii_NumIndexKeyAttrs; key++)
	{
		int column = 0;
		int place = 0;

		while (column < target->ncolumns && target->attno[column] != info->ii_IndexAttrNumbers[key])
			column++;
		while (place < target->nkeys && target->keys[place] != column)
			place++;
		if (column < target->ncolumns && place == target->nkeys)
			return false;
	}
	return true;
}

static void
open_indexes(CrmTarget *target)
{
	target->indexes = palloc_array(Relation, target->nindexes);
	target->index_infos = palloc_array(IndexInfo *, target->nindexes);
	target->kept = palloc0_array(bool, target->nindexes);
	for (int i = 0; i < target->nindexes; i++)
	{
		IndexInfo *info;

		target->indexes[i] = index_open(target->index_oids[i], RowExclusiveLock);
		target->index_infos[i] = info = BuildIndexInfo(target->indexes[i]);
		target->kept[i] = target->slot != NULL && is_kept(target, info);
		if (info->ii_Predicate == NIL)
			continue;
		if (target->estate == NULL)
			target->estate = CreateExecutorState();
		info->ii_PredicateState = ExecPrepareQual(info->ii_Predicate, target->estate);
	}
}

/* Does a row stand in an index on a part of the table? */
static bool
is_indexed(CrmTarget *target, const IndexInfo *info, TupleTableSlot *slot)
{
	ExprContext *context;

	if (info->ii_PredicateState == NULL)
		return true;
	ResetPerTupleExprContext(target->estate);
	context = GetPerTupleExprContext(target->estate);
	context->ecxt_scantuple = slot;
	return ExecQual(info->ii_PredicateState, context);
}

/*
 * The indexes are opened for the first row that goes into them. False if the
 * primary key stands in the table already; the row is in it twice then.
 */
static bool
insert_index_entries(CrmTarget *target, TupleTableSlot *slot, bool only_summarizing)
{
	Datum values[INDEX_MAX_KEYS];
	bool nulls[INDEX_MAX_KEYS];
	bool is_new = true;

	if (target->indexes == NULL)
		open_indexes(target);
	for (int i = 0; i < target->nindexes; i++)
	{
		Relation index = target->indexes[i];
		IndexInfo *info = target->index_infos[i];

		if (!info->ii_ReadyForInserts || (only_summarizing && !CRM_IS_SUMMARIZING(info)))
			continue;
		if (!is_indexed(target, info, slot))
			continue;
		/* no expressions, so nothing to evaluate them with */
		FormIndexDatum(info, slot, NULL, values, nulls);
		if (target->index_oids[i] == target->primary_key && !target->strict)
			is_new = index_insert(index, values, nulls, &slot->tts_tid, target->rel,
								  UNIQUE_CHECK_PARTIAL, target->kept[i], info);
		else
			index_insert(index, values, nulls, &slot->tts_tid, target->rel,
						 index->rd_index->indisunique ? UNIQUE_CHECK_YES : UNIQUE_CHECK_NO,
						 target->kept[i], info);
	}
	return is_new;
}

void
crm_target_close(CrmTarget *target)
{
	if (target->scan != NULL)
		index_endscan(target->scan);
	if (target->index != NULL)
		index_close(target->index, AccessShareLock);
	for (int i = 0; target->indexes != NULL && i < target->nindexes; i++)
	{
		crm_index_insert_cleanup(target->indexes[i], target->index_infos[i]);
		index_close(target->indexes[i], RowExclusiveLock);
	}
	if (target->found != NULL)
		ExecDropSingleTupleTableSlot(target->found);
	if (target->slot != NULL)
		ExecDropSingleTupleTableSlot(target->slot);
	for (int i = 0; i < target->nslots; i++)
		ExecDropSingleTupleTableSlot(target->waiting[i]);
	if (target->bulk != NULL)
		FreeBulkInsertState(target->bulk);
	if (target->estate != NULL)
		FreeExecutorState(target->estate);
	table_close(target->rel, NoLock);
	if (target->root != NULL)
		table_close(target->root, NoLock);
	pfree(target);
}

TM_Result
crm_target_lock(CrmTarget *target)
{
	TM_FailureData failure;
	ItemPointerData tid = target->found->tts_tid;
	uint8 flags = TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS;

	if (!IsolationUsesXactSnapshot())
		flags |= TUPLE_LOCK_FLAG_FIND_LAST_VERSION;
	return table_tuple_lock(target->rel, &tid, GetActiveSnapshot(), target->found,
							GetCurrentCommandId(true), LockTupleNoKeyExclusive, LockWaitBlock,
							flags, &failure);
}

static bool
update_found(CrmTarget *target, const Datum *values, const bool *nulls, bool wait)
{
	TupleTableSlot *slot = target->slot;
	ItemPointerData tid = target->found->tts_tid;
	TM_FailureData failure;
	LockTupleMode lock_mode;
	CrmUpdateIndexes update_indexes;

	slot_getallattrs(target->found);
	ExecClearTuple(slot);
	memcpy(slot->tts_values, target->found->tts_values,
		   sizeof(Datum) * slot->tts_tupleDescriptor->natts);
	memcpy(slot->tts_isnull, target->found->tts_isnull,
		   sizeof(bool) * slot->tts_tupleDescriptor->natts);
	for (int i = 0; i < target->ncolumns; i++)
		if (target->attno[i] > 0)
		{
			slot->tts_values[target->attno[i] - 1] = values[i];
			slot->tts_isnull[target->attno[i] - 1] = nulls[i];
		}
	ExecStoreVirtualTuple(slot);
	if (table_tuple_update(target->rel, &tid, slot, GetCurrentCommandId(true), GetActiveSnapshot(),
						   InvalidSnapshot, wait, &failure, &lock_mode, &update_indexes) != TM_Ok)
		return false;
	if (CRM_UPDATES_INDEXES(update_indexes))
		(void) insert_index_entries(target, slot, CRM_ONLY_SUMMARIZING(update_indexes));
	if (target->nkeys == 1 && target->rel->rd_tableam == GetHeapamTableAmRoutine())
		crm_target_note_updated(target, values[0]);
	return true;
}

bool
crm_target_update(CrmTarget *target, const Datum *values, const bool *nulls)
{
	return update_found(target, values, nulls, true);
}

bool
crm_target_try_update(CrmTarget *target, const Datum *values, const bool *nulls)
{
	return update_found(target, values, nulls, false);
}

bool
crm_target_try_delete(CrmTarget *target)
{
	ItemPointerData tid = target->found->tts_tid;
	TM_FailureData failure;

	return table_tuple_delete(target->rel, &tid, GetCurrentCommandId(true), GetActiveSnapshot(),
							  InvalidSnapshot, false, &failure, false) == TM_Ok;
}

Datum
crm_target_value(CrmTarget *target, int column, bool *isnull)
{
	return slot_getattr(target->found, target->attno[column], isnull);
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

void
crm_target_insert(CrmTarget *target, const Datum *values, const bool *nulls)
{
	if (target->nwaiting == INSERT_BATCH)
		crm_target_flush(target);
	if (target->nwaiting == target->nslots)
	{
		/* few rows are the rule: the list grows with them */
		if (target->waiting == NULL)
		{
			target->waiting = palloc_array(TupleTableSlot *, 4);
			target->descriptor = RelationGetDescr(target->rel);
		}
		else if (target->nslots >= 4 && (target->nslots & (target->nslots - 1)) == 0)
		{
			target->waiting = repalloc_array(target->waiting, TupleTableSlot *, target->nslots * 2);
			/* hundreds of slots that pin a counted descriptor are slow */
			if (target->nslots == 4)
				target->descriptor = CreateTupleDescCopy(target->descriptor);
		}
		target->waiting[target->nslots++] =
			MakeSingleTupleTableSlot(target->descriptor, table_slot_callbacks(target->rel));
	}
	fill_slot(target, target->waiting[target->nwaiting], values, nulls);
	target->nwaiting++;
}

/* The first column is the bigint key by which the caller knows the row. */
static void
note_conflict(CrmTarget *target, TupleTableSlot *slot)
{
	bool isnull;

	if (target->conflicts == NULL)
	{
		target->conflicts = palloc_array(int64, 1);
		target->conflict_tids = palloc_array(ItemPointerData, 1);
	}
	else
	{
		target->conflicts = repalloc_array(target->conflicts, int64, target->nconflicts + 1);
		target->conflict_tids = repalloc_array(target->conflict_tids, ItemPointerData,
											   target->nconflicts + 1);
	}
	target->conflicts[target->nconflicts] = DatumGetInt64(
		slot_getattr(slot, target->attno[0], &isnull));
	target->conflict_tids[target->nconflicts++] = slot->tts_tid;
}

void
crm_target_flush(CrmTarget *target)
{
	CommandId command;

	if (target->nwaiting == 0)
		return;
	command = GetCurrentCommandId(true);
	if (target->nwaiting == 1 && target->bulk == NULL)
		table_tuple_insert(target->rel, target->waiting[0], command, 0, NULL);
	else
	{
		if (target->bulk == NULL)
			target->bulk = GetBulkInsertState();
		table_multi_insert(target->rel, target->waiting, target->nwaiting, command, 0,
						   target->bulk);
	}
	for (int i = 0; i < target->nwaiting; i++)
		if (!insert_index_entries(target, target->waiting[i], false))
			note_conflict(target, target->waiting[i]);
	target->nwaiting = 0;
}

int64 *
crm_target_undo_conflicts(CrmTarget *target, int *nconflicts)
{
	*nconflicts = target->nconflicts;
	if (target->nconflicts == 0)
		return NULL;
	/* rows of this command can be deleted by the next one */
	CommandCounterIncrement();
	for (int i = 0; i < target->nconflicts; i++)
	{
		TM_FailureData failure;

		if (table_tuple_delete(target->rel, &target->conflict_tids[i], GetCurrentCommandId(true),
							   GetActiveSnapshot(), InvalidSnapshot, true, &failure,
							   false) != TM_Ok)
			elog(ERROR, "could not take back a row of \"%s\"",
				 RelationGetRelationName(target->rel));
	}
	target->nconflicts = 0;
	return target->conflicts;
}
