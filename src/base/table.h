/*
 * table.h
 *		The tables of schema crm: finding them, and writing them without the
 *		executor where that is safe.
 */
#ifndef CRM_TABLE_H
#define CRM_TABLE_H

#include "postgres.h"

#include "access/genam.h"
#include "access/tableam.h"
#include "executor/tuptable.h"
#include "utils/rel.h"

/* OID of a table of schema crm; an error with a hint where it is missing. */
extern Oid crm_table_oid(const char *name);
extern Oid crm_table_oid_if_any(const char *name);
extern Oid crm_table_owner(const char *name);
extern Oid crm_schema_oid(void);

/* Registers the callback of what is known about the tables. */
extern void crm_table_init(void);
/* target.c: forgets what is known of a table, InvalidOid: of all; called by it */
extern void crm_target_forget(Oid relid);

/* Raises an error unless a trigger function runs on the crm table it is for. */
extern void crm_require_table(Relation rel, const char *name);

#define CRM_MAX_COLUMNS 32
#define CRM_MAX_INDEXES 8

/* Numbers of the columns with these names, 0 where missing. */
extern void crm_attributes(Relation rel, const char *const *columns, int ncolumns,
						   AttrNumber *attno);

/* The same, kept until the table changes; an error where one is missing. */
extern const AttrNumber *crm_known_attributes(Relation rel, const char *const *columns,
											  int ncolumns);

/*
 * A table opened for direct writing. Columns are known by name, so that the
 * library runs on tables with more, fewer or reordered columns; the first one
 * named is the bigint key by which rows are found.
 */
typedef struct CrmTarget
{
	Relation rel;
	Oid primary_key; /* its index */
	int ncolumns;
	AttrNumber attno[CRM_MAX_COLUMNS]; /* of the columns named at opening */
	bool strict; /* a primary key that stands in the table is an error, no conflict to undo */

	/* of a partition: the table that it belongs to, and the column by which it does */
	Relation root;
	AttrNumber root_key;

	/* finding rows by the first column of the primary key, or by all of them */
	int nkeys;
	int keys[INDEX_MAX_KEYS]; /* their places among the columns named at opening */
	Relation index;
	IndexScanDesc scan;
	BlockNumber npages;    /* that it has at least, once that matters */
	TupleTableSlot *found; /* the row that was found */
	TupleTableSlot *slot;  /* its new version */

	/* all indexes, opened once a row goes into them */
	int nindexes;
	Oid index_oids[CRM_MAX_INDEXES];
	Relation *indexes;
	struct IndexInfo **index_infos;
	bool *kept;            /* updates leave its keys alone */
	struct EState *estate; /* where one is on a part of the table */

	/* rows waiting to be inserted together */
	int nwaiting;
	int nslots;
	TupleTableSlot **waiting;
	TupleDesc descriptor; /* of theirs */
	struct BulkInsertStateData *bulk;

	/* rows whose primary key stood in the table already */
	int nconflicts;
	int64 *conflicts;
	ItemPointerData *conflict_tids;
} CrmTarget;

/*
 * Opens a table with its indexes. NULL where direct writing would skip
 * something that the executor does: triggers, row security, constraints,
 * partitions, defaults of columns the extension does not know, expression
 * indexes, rules.
 */
extern CrmTarget *crm_target_open(const char *table, const char *const *columns, int ncolumns,
								  bool for_update);
/*
 * The same of the partition that takes this value of the key column, named by its
 * place among the columns; NULL also where only the default one does. The table is
 * partitioned by ranges of it.
 */
extern CrmTarget *crm_target_open_partition(const char *table, const char *const *columns,
											int ncolumns, bool for_update, int key, Datum value);
/* Does it take this value too? */
extern bool crm_target_takes(CrmTarget *target, Datum value);
/*
 * The same for finding rows only, by a key of one column. NULL where row
 * security, missing rights or another key ask for the executor.
 */
extern CrmTarget *crm_target_open_to_read(const char *table, const char *const *columns,
										  int ncolumns);
extern void crm_target_close(CrmTarget *target);

/*
 * Finds the row with this key, as the active snapshot shows it.
 * The snapshot stays pushed until the last call.
 */
extern bool crm_target_find(CrmTarget *target, int64 key);

/*
 * The same by the whole primary key, out of values for the columns named at
 * opening; of a target opened for insert, too. It has a key of nkeys columns
 * only where all of them are named, and of types that are compared here.
 */
extern bool crm_target_find_row(CrmTarget *target, const Datum *values);

/*
 * The same where the place of the row in the table is known, or was: the index is
 * asked only if it is there no more.
 */
extern bool crm_target_find_at(CrmTarget *target, const ItemPointerData *place,
							   const Datum *values);

/*
 * target_find.c, for target.c: the operator by which keys of a type are found; where
 * the row found is now; that the pages of a table may be gone.
 */
extern RegProcedure crm_target_equality(Oid type);
extern void crm_target_note_updated(const CrmTarget *target, Datum key);
extern void crm_target_find_forget(Oid relid);

/* Locks the newest version of the row found and puts it in its place. */
extern TM_Result crm_target_lock(CrmTarget *target);

/* Writes the columns named at opening; false if the row changed meanwhile. */
extern bool crm_target_update(CrmTarget *target, const Datum *values, const bool *nulls);

/* The same, and deleting the row found; false also where somebody holds it. */
extern bool crm_target_try_update(CrmTarget *target, const Datum *values, const bool *nulls);
extern bool crm_target_try_delete(CrmTarget *target);

/* A value of the row found, by the place of its column among those named at opening. */
extern Datum crm_target_value(CrmTarget *target, int column, bool *isnull);

/* For insert: queues a row; by-reference values must live until it is written. */
extern void crm_target_insert(CrmTarget *target, const Datum *values, const bool *nulls);
extern void crm_target_flush(CrmTarget *target);

/*
 * Takes back the rows whose primary key stood in the table already, and says
 * whose they were (the first column, a key may come twice).
 */
extern int64 *crm_target_undo_conflicts(CrmTarget *target, int *nconflicts);

#endif /* CRM_TABLE_H */
