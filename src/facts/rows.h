/*
 * rows.h
 *		The rows that a statement trigger is given.
 */
#ifndef CRM_ROWS_H
#define CRM_ROWS_H

#include "postgres.h"

#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "fmgr.h"

typedef struct CrmRows
{
	TriggerData *trigger;
	TupleTableSlot *slot;
	bool copy; /* values do not outlive their row */
} CrmRows;

/* Checks that a function runs as a statement trigger. */
extern TriggerData *crm_check_trigger(FunctionCallInfo fcinfo, const char *function);

/* The new rows of an AFTER INSERT trigger. */
extern void crm_rows_open(CrmRows *rows, FunctionCallInfo fcinfo, const char *function);
extern void crm_rows_close(CrmRows *rows);
extern bool crm_rows_next(CrmRows *rows);

/* Numbers of columns, in the order of a static list of names. */
extern const AttrNumber *crm_rows_attributes(const CrmRows *rows, const char *const *columns,
											 int ncolumns);
extern Datum crm_rows_value(const CrmRows *rows, AttrNumber attno, bool *isnull);
extern char *crm_rows_text(const CrmRows *rows, AttrNumber attno);
extern bool crm_text_equals(Datum value, const char *expected, int len);

#endif /* CRM_ROWS_H */
