/*
 * table.h
 *		The tables of schema crm: finding them, and writing them without the
 *		executor where that is safe.
 */
#ifndef CRM_TABLE_H
#define CRM_TABLE_H

#include "postgres.h"

#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "utils/rel.h"

/* OID of a table of schema crm; an error with a hint where it is missing. */
extern Oid	crm_table_oid(const char *name);
extern Oid	crm_table_oid_if_any(const char *name);
extern Oid	crm_schema_oid(void);

/* Raises an error unless a trigger function runs on the crm table it is for. */
extern void crm_require_table(Relation rel, const char *name);

/*
 * A table opened for direct writing. Columns are known by name, so that the
 * library runs on tables with more, fewer or reordered columns.
 */
typedef struct CrmTarget
{
	Relation	rel;
	ResultRelInfo *result;
	EState	   *estate;
	TupleTableSlot *slot;		/* a virtual slot to fill */
	Oid			primary_key;	/* its index */
	int			ncolumns;
	AttrNumber	attno[24];		/* of the columns named at opening, 0 = missing */
} CrmTarget;

/*
 * Opens a table with its indexes. NULL where direct writing would skip
 * something that the executor does: triggers, row security, constraints,
 * partitions, defaults of columns the extension does not know, expression
 * indexes, rules.
 */
extern CrmTarget *crm_target_open(const char *table, const char *const *columns, int ncolumns,
								  bool for_update);
extern void crm_target_close(CrmTarget *target);

/* Does a row with the key of this slot already stand in the table? */
extern bool crm_target_conflicts(CrmTarget *target, TupleTableSlot *slot);
extern void crm_target_insert(CrmTarget *target, TupleTableSlot **slots, int nslots);

#endif							/* CRM_TABLE_H */
