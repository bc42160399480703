/*
 * table.c
 *		The tables of schema crm: finding them, and writing them without the
 *		executor where that is safe.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "rewrite/prs2lock.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
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
	TriggerDesc *triggers = rel->trigdesc;

	if (triggers == NULL)
		return false;
	if (for_update)
		return triggers->trig_update_before_row || triggers->trig_update_after_row ||
			triggers->trig_update_instead_row || triggers->trig_update_after_statement ||
			triggers->trig_update_new_table || triggers->trig_update_old_table;
	return triggers->trig_insert_before_row || triggers->trig_insert_after_row ||
		triggers->trig_insert_instead_row || triggers->trig_insert_before_statement ||
		triggers->trig_insert_after_statement || triggers->trig_insert_new_table;
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
	return target;
}

void
crm_target_close(CrmTarget *target)
{
	if (target->slot != NULL)
		ExecDropSingleTupleTableSlot(target->slot);
	ExecCloseIndices(target->result);
	FreeExecutorState(target->estate);
	table_close(target->rel, NoLock);
	pfree(target);
}

bool
crm_target_conflicts(CrmTarget *target, TupleTableSlot *slot)
{
	ItemPointerData conflict;
	bool		free_key;

	ItemPointerSetInvalid(&slot->tts_tid);
	free_key = crm_exec_check_index_constraints(target->result, slot, target->estate, &conflict,
												list_make1_oid(target->primary_key));
	ResetPerTupleExprContext(target->estate);
	return !free_key;
}

void
crm_target_insert(CrmTarget *target, TupleTableSlot **slots, int nslots)
{
	CommandId	command = GetCurrentCommandId(true);

	if (nslots == 1)
	{
		table_tuple_insert(target->rel, slots[0], command, 0, NULL);
		crm_exec_insert_index_tuples(target->result, slots[0], target->estate, false);
		ResetPerTupleExprContext(target->estate);
	}
	else if (nslots > 1)
	{
		BulkInsertState bulk = GetBulkInsertState();

		for (int start = 0; start < nslots; start += INSERT_BATCH)
		{
			int			n = Min(INSERT_BATCH, nslots - start);

			table_multi_insert(target->rel, slots + start, n, command, 0, bulk);
			for (int i = start; i < start + n; i++)
			{
				crm_exec_insert_index_tuples(target->result, slots[i], target->estate, false);
				ResetPerTupleExprContext(target->estate);
			}
		}
		FreeBulkInsertState(bulk);
	}
}
