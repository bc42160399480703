/*
 * reader.h
 *		Rows of a table of schema crm found by an index, without the executor.
 */
#ifndef CRM_READER_H
#define CRM_READER_H

#include "postgres.h"

#include "storage/itemptr.h"

typedef struct CrmReader CrmReader;

/* Registers the callback of what is known about the indexes. */
extern void crm_reader_init(void);

/*
 * Opens a table to find rows by the first nkeys of the columns named. NULL where
 * rights, row security, children, rules, missing columns or the lack of an index
 * that begins with these keys ask for the executor. The list of columns is static.
 */
extern CrmReader *crm_reader_open(const char *table, const char *const *columns, int ncolumns,
								  int nkeys);
extern void crm_reader_close(CrmReader *reader);

/* No page of the table was ever written: there is nothing to be found in it. */
extern bool crm_reader_empty(const CrmReader *reader);

/*
 * Finds the rows with these keys as the active snapshot shows them, which must be
 * the same until the reader is closed; crm_reader_next() then gives one after the other.
 */
extern void crm_reader_find(CrmReader *reader, const Datum *keys);
extern bool crm_reader_next(CrmReader *reader);

/* Where the row is in the table, for crm_target_find_at(). */
extern ItemPointerData crm_reader_place(CrmReader *reader);

/* A value of the row, by the place of its column among those named at opening. */
extern Datum crm_reader_value(CrmReader *reader, int column, bool *isnull);
extern bool crm_reader_is(CrmReader *reader, int column, const char *text);

#endif /* CRM_READER_H */
