/*
 * row.h
 *		A row under a trigger of the definition tables, by column names.
 */
#ifndef CRM_ROW_H
#define CRM_ROW_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"

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

#endif /* CRM_ROW_H */
