/*
 * table.c
 *		The tables of schema crm: finding them, and writing them without the
 *		executor where that is safe.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "rewrite/prs2lock.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/table.h"
#include "pg_crm.h"

#define INSERT_BATCH 500

Oid
crm_schema_oid(void)
{
	return get_namespace_oid(CRM_SCHEMA, true);
}

Oid
crm_table_oid_if_any(const char *name)
{
	Oid			schema = crm_schema_oid();

	return OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;
}

Oid
crm_table_oid(const char *name)
{
	Oid			relid = crm_table_oid_if_any(name);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("table crm.%s does not exist", name),
				 errhint("Run SELECT crm.install() in this database.")));
	return relid;
}

void
crm_require_table(Relation rel, const char *name)
{
	if (RelationGetRelid(rel) != crm_table_oid_if_any(name))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger on table \"%s\" belongs to crm.%s", RelationGetRelationName(rel), name),
				 errhint("The triggers of pg_crm are made by crm.install(); use them on no other table.")));
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
		if (!(for_update ? TRIGGER_FOR_UPDATE(trigger->tgtype) : TRIGGER_FOR_INSERT(trigger->tgtype)))
			continue;
		if (get_func_namespace(trigger->tgfoid) != crm_schema_oid())
			return true;
	}
	return false;
}

static bool
is_plain(Relation rel, bool for_update)
{
	return rel->rd_rel->relkind == RELKIND_RELATION &&
		!rel->rd_rel->relispartition &&
		!rel->rd_rel->relrowsecurity &&
		!rel->rd_rel->relhassubclass &&
		rel->rd_rules == NULL &&
		rel->rd_rel->relpersistence == RELPERSISTENCE_PERMANENT &&
		(rel->rd_att->constr == NULL ||
		 (rel->rd_att->constr->num_check == 0 && !rel->rd_att->constr->has_generated_stored)) &&
		!has_foreign_triggers(rel, for_update);
}

CrmTarget *
crm_target_open(const char *table, const char *const *columns, int ncolumns, bool for_update)
{
	Relation	rel = table_open(crm_table_oid(table), RowExclusiveLock);
	CrmTarget  *target;
	Bitmapset  *known = NULL;

	if (!is_plain(rel, for_update))
	{
		table_close(rel, NoLock);
		return NULL;
	}

	target = palloc0(sizeof(CrmTarget));
	target->rel = rel;
	target->ncolumns = ncolumns;
	Assert(ncolumns <= lengthof(target->attno));
	for (int i = 0; i < ncolumns; i++)
	{
		target->attno[i] = 0;
		for (int att = 0; att < rel->rd_att->natts; att++)
		{
			Form_pg_attribute attribute = TupleDescAttr(rel->rd_att, att);

			if (!attribute->attisdropped && strcmp(NameStr(attribute->attname), columns[i]) == 0)
			{
				target->attno[i] = att + 1;
				known = bms_add_member(known, att);
				break;
			}
		}
	}

	/* an insert must fill what the extension does not know: the executor can */
	if (!for_update)
		for (int att = 0; att < rel->rd_att->natts; att++)
		{
			Form_pg_attribute attribute = TupleDescAttr(rel->rd_att, att);

			if (!attribute->attisdropped && !bms_is_member(att, known) &&
				(attribute->atthasdef || attribute->attidentity || attribute->attnotnull))
			{
				table_close(rel, NoLock);
				return NULL;
			}
		}

	target->estate = CreateExecutorState();
	target->result = makeNode(ResultRelInfo);
	InitResultRelInfo(target->result, rel, 0, NULL, 0);
	ExecOpenIndices(target->result, !for_update);
	for (int i = 0; i < target->result->ri_NumIndices; i++)
	{
		Relation	index = target->result->ri_IndexRelationDescs[i];
		IndexInfo  *info = target->result->ri_IndexRelationInfo[i];

		if (index->rd_index->indisprimary)
			target->primary_key = RelationGetRelid(index);
		if (info->ii_Expressions != NIL || info->ii_Predicate != NIL ||
			info->ii_ExclusionOps != NULL || !index->rd_index->indimmediate)
		{
			crm_target_close(target);
			return NULL;
		}
	}
	if (!OidIsValid(target->primary_key))
	{
		crm_target_close(target);
		return NULL;
	}
	target->slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	if (for_update)
	{
		target->found = table_slot_create(rel, NULL);
		target->index = index_open(target->primary_key, AccessShareLock);
	}
	else
		target->waiting = palloc0_array(TupleTableSlot *, INSERT_BATCH);
	return target;
}

void
crm_target_close(CrmTarget *target)
{
	if (target->scan != NULL)
		index_endscan(target->scan);
	if (target->index != NULL)
		index_close(target->index, AccessShareLock);
	if (target->found != NULL)
		ExecDropSingleTupleTableSlot(target->found);
	if (target->slot != NULL)
		ExecDropSingleTupleTableSlot(target->slot);
	for (int i = 0; target->waiting != NULL && i < INSERT_BATCH && target->waiting[i] != NULL; i++)
		ExecDropSingleTupleTableSlot(target->waiting[i]);
	if (target->bulk != NULL)
		FreeBulkInsertState(target->bulk);
	ExecCloseIndices(target->result);
	FreeExecutorState(target->estate);
	table_close(target->rel, NoLock);
	pfree(target);
}

bool
crm_target_find(CrmTarget *target, int64 key)
{
	ScanKeyData scan_key;

	ScanKeyInit(&scan_key, 1, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum(key));
	if (target->scan == NULL)
		target->scan = crm_index_beginscan(target->rel, target->index, GetActiveSnapshot(), 1);
	index_rescan(target->scan, &scan_key, 1, NULL, 0);
	return index_getnext_slot(target->scan, ForwardScanDirection, target->found);
}

TM_Result
crm_target_lock(CrmTarget *target)
{
	TM_FailureData failure;
	ItemPointerData tid = target->found->tts_tid;
	uint8		flags = TUPLE_LOCK_FLAG_LOCK_UPDATE_IN_PROGRESS;

	if (!IsolationUsesXactSnapshot())
		flags |= TUPLE_LOCK_FLAG_FIND_LAST_VERSION;
	return table_tuple_lock(target->rel, &tid, GetActiveSnapshot(), target->found,
							GetCurrentCommandId(true), LockTupleNoKeyExclusive, LockWaitBlock,
							flags, &failure);
}

bool
crm_target_update(CrmTarget *target, const Datum *values, const bool *nulls)
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
						   InvalidSnapshot, true, &failure, &lock_mode, &update_indexes) != TM_Ok)
		return false;
	if (CRM_UPDATES_INDEXES(update_indexes))
	{
		crm_exec_insert_index_tuples(target->result, slot, target->estate,
									 CRM_ONLY_SUMMARIZING(update_indexes));
		ResetPerTupleExprContext(target->estate);
	}
	return true;
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

bool
crm_target_conflicts(CrmTarget *target, const Datum *values, const bool *nulls)
{
	ItemPointerData conflict;
	bool		free_key;

	fill_slot(target, target->slot, values, nulls);
	ItemPointerSetInvalid(&target->slot->tts_tid);
	free_key = crm_exec_check_index_constraints(target->result, target->slot, target->estate,
												&conflict, list_make1_oid(target->primary_key));
	ResetPerTupleExprContext(target->estate);
	return !free_key;
}

void
crm_target_insert(CrmTarget *target, const Datum *values, const bool *nulls)
{
	if (target->nwaiting == INSERT_BATCH)
		crm_target_flush(target);
	if (target->waiting[target->nwaiting] == NULL)
		target->waiting[target->nwaiting] =
			MakeSingleTupleTableSlot(RelationGetDescr(target->rel), table_slot_callbacks(target->rel));
	fill_slot(target, target->waiting[target->nwaiting], values, nulls);
	target->nwaiting++;
}

void
crm_target_flush(CrmTarget *target)
{
	CommandId	command = GetCurrentCommandId(true);

	if (target->nwaiting == 1 && target->bulk == NULL)
		table_tuple_insert(target->rel, target->waiting[0], command, 0, NULL);
	else if (target->nwaiting > 0)
	{
		if (target->bulk == NULL)
			target->bulk = GetBulkInsertState();
		table_multi_insert(target->rel, target->waiting, target->nwaiting, command, 0, target->bulk);
	}
	for (int i = 0; i < target->nwaiting; i++)
	{
		crm_exec_insert_index_tuples(target->result, target->waiting[i], target->estate, false);
		ResetPerTupleExprContext(target->estate);
	}
	target->nwaiting = 0;
}
