/*
 * reader.c
 *		Rows of a table of schema crm found by an index, without the executor: to
 *		start a plan takes longer than to find the rows.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_am.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "storage/bufmgr.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/reader.h"
#include "base/rights.h"
#include "base/table.h"
#include "base/watch.h"
#include "compat.h"

#define MAX_KEYS 3

/* what is known of a table, until it changes; the caller's list tells shapes apart */
typedef struct Shape
{
	const char *const *columns;
	Oid relid;
	Oid index; /* none: it is to be read by the executor */
	AttrNumber attno[CRM_MAX_COLUMNS];
	RegProcedure equal[MAX_KEYS];
} Shape;

struct CrmReader
{
	Relation rel;
	Relation index;
	Shape shape;
	int nkeys;
	IndexScanDesc scan; /* once something was asked for */
	TupleTableSlot *slot;
};

static Shape shapes[16];

static void
forget_shapes(Datum arg, Oid relid)
{
	for (int i = 0; i < lengthof(shapes); i++)
		if (relid == InvalidOid || shapes[i].relid == relid)
			shapes[i].columns = NULL;
}

void
crm_reader_init(void)
{
	crm_on_table_change(forget_shapes);
}

static RegProcedure
equality_of(Oid type)
{
	return type == INT8OID ? F_INT8EQ
		: type == INT4OID  ? F_INT4EQ
		: type == TEXTOID  ? F_TEXTEQ
						   : InvalidOid;
}

/* Does the index find rows by these columns? */
static bool
suits(Relation index, Shape *shape, int nkeys)
{
	if (index->rd_rel->relam != BTREE_AM_OID || !index->rd_index->indisvalid ||
		/* an index made lately may not know what an old snapshot sees */
		index->rd_index->indcheckxmin || IndexRelationGetNumberOfKeyAttributes(index) < nkeys ||
		!heap_attisnull(index->rd_indextuple, Anum_pg_index_indexprs, NULL) ||
		!heap_attisnull(index->rd_indextuple, Anum_pg_index_indpred, NULL))
		return false;
	for (int key = 0; key < nkeys; key++)
	{
		Oid collation = index->rd_indcollation[key];

		shape->equal[key] = equality_of(index->rd_opcintype[key]);
		if (index->rd_index->indkey.values[key] != shape->attno[key] ||
			!RegProcedureIsValid(shape->equal[key]) ||
			(OidIsValid(collation) && !get_collation_isdeterministic(collation)))
			return false;
	}
	return true;
}

static Oid
find_index(Relation rel, Shape *shape, int nkeys)
{
	List *indexes = RelationGetIndexList(rel);
	Oid found = InvalidOid;
	ListCell *cell;

	foreach(cell, indexes)
	{
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);

		if (suits(index, shape, nkeys))
			found = lfirst_oid(cell);
		index_close(index, AccessShareLock);
		if (OidIsValid(found))
			break;
	}
	list_free(indexes);
	return found;
}

static const Shape *
know_shape(Relation rel, const char *const *columns, int ncolumns, int nkeys)
{
	static int next = 0;
	Shape shape = { .columns = columns, .relid = RelationGetRelid(rel) };
	bool readable;

	for (int i = 0; i < lengthof(shapes); i++)
		if (shapes[i].columns == columns && shapes[i].relid == shape.relid)
			return &shapes[i];

	Assert(nkeys <= MAX_KEYS && ncolumns <= CRM_MAX_COLUMNS);
	crm_attributes(rel, columns, ncolumns, shape.attno);
	readable = rel->rd_rel->relkind == RELKIND_RELATION && !rel->rd_rel->relrowsecurity &&
		!rel->rd_rel->relhassubclass && rel->rd_rules == NULL &&
		pg_class_aclcheck(shape.relid, crm_owner(), ACL_SELECT) == ACLCHECK_OK;
	for (int i = 0; i < ncolumns; i++)
		readable = readable && shape.attno[i] > 0;
	if (readable)
		shape.index = find_index(rel, &shape, nkeys);
	shapes[next % lengthof(shapes)] = shape;
	return &shapes[next++ % lengthof(shapes)];
}

CrmReader *
crm_reader_open(const char *table, const char *const *columns, int ncolumns, int nkeys)
{
	Relation rel = table_open(crm_table_oid(table), AccessShareLock);
	const Shape *shape = know_shape(rel, columns, ncolumns, nkeys);
	CrmReader *reader;

	if (!OidIsValid(shape->index))
	{
		table_close(rel, NoLock);
		return NULL;
	}
	reader = palloc0_object(CrmReader);
	reader->rel = rel;
	reader->nkeys = nkeys;
	reader->shape = *shape;
	return reader;
}

void
crm_reader_close(CrmReader *reader)
{
	if (reader->scan != NULL)
	{
		index_endscan(reader->scan);
		ExecDropSingleTupleTableSlot(reader->slot);
		index_close(reader->index, NoLock);
	}
	table_close(reader->rel, NoLock);
	pfree(reader);
}

bool
crm_reader_empty(const CrmReader *reader)
{
	return RelationGetNumberOfBlocks(reader->rel) == 0;
}

void
crm_reader_find(CrmReader *reader, const Datum *keys)
{
	ScanKeyData scan_keys[MAX_KEYS];

	if (reader->scan == NULL)
	{
		reader->slot = table_slot_create(reader->rel, NULL);
		reader->index = index_open(reader->shape.index, AccessShareLock);
		reader->scan = crm_index_beginscan(reader->rel, reader->index, GetActiveSnapshot(),
										   reader->nkeys);
	}
	for (int key = 0; key < reader->nkeys; key++)
		ScanKeyEntryInitialize(&scan_keys[key], 0, key + 1, BTEqualStrategyNumber, InvalidOid,
							   reader->index->rd_indcollation[key], reader->shape.equal[key],
							   keys[key]);
	index_rescan(reader->scan, scan_keys, reader->nkeys, NULL, 0);
}

bool
crm_reader_next(CrmReader *reader)
{
	return index_getnext_slot(reader->scan, ForwardScanDirection, reader->slot);
}

ItemPointerData
crm_reader_place(CrmReader *reader)
{
	return reader->scan->xs_heaptid;
}

Datum
crm_reader_value(CrmReader *reader, int column, bool *isnull)
{
	return slot_getattr(reader->slot, reader->shape.attno[column], isnull);
}

bool
crm_reader_is(CrmReader *reader, int column, const char *string)
{
	bool isnull;
	Datum value = crm_reader_value(reader, column, &isnull);
	text *found;
	bool same;

	if (isnull)
		return false;
	found = DatumGetTextPP(value);
	same = VARSIZE_ANY_EXHDR(found) == strlen(string) &&
		memcmp(VARDATA_ANY(found), string, strlen(string)) == 0;
	if ((Pointer) found != DatumGetPointer(value))
		pfree(found);
	return same;
}
