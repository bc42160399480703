/*
 * row.h
 *		A row under a trigger of the definition tables, by column names.
 */
#ifndef CRM_ROW_H
#define CRM_ROW_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "commands/trigger.h"
#include "fmgr.h"

typedef struct CrmRow
{
	TupleDesc descriptor;
	HeapTuple tuple;
} CrmRow;

/* NULL for a column that is not there. */
extern Datum crm_row_value(const CrmRow *row, const char *column, bool *isnull);
extern char *crm_row_text(const CrmRow *row, const char *column);

/* Raises 23514 for an empty text, 22001 for one that is too long; NULL passes. */
extern void crm_check_length(const char *what, const char *value, int most);

/* The trigger's data; raises 39P01 unless the function was called as such a row trigger. */
extern TriggerData *crm_row_trigger(FunctionCallInfo fcinfo, const char *function, bool before);

/* Do two rows differ in a column other than these? */
extern bool crm_rows_differ(const CrmRow *old, const CrmRow *new, const char *const *ignored,
							int nignored);

/*
 * The new row with its version: the next one if it differs from the old row or
 * next is set, the first where there is no old one.
 */
extern HeapTuple crm_row_version(const CrmRow *old, const CrmRow *new, bool next);

#endif /* CRM_ROW_H */
