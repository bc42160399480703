/*
 * document.h
 *		Definitions that come as one jsonb object whose keys are the columns of
 *		a table.
 */
#ifndef CRM_DOCUMENT_H
#define CRM_DOCUMENT_H

#include "postgres.h"

#include "fmgr.h"
#include "utils/jsonb.h"

typedef struct CrmDocument
{
	const char *function; /* that was given it, for messages */
	int n;
	char **keys;
	JsonbValue *values;
} CrmDocument;

/* The only argument of a define function, as a document. */
extern CrmDocument *crm_document_open(FunctionCallInfo fcinfo, const char *function);

/* NULL where the key is missing. */
extern JsonbValue *crm_document_value(CrmDocument *document, const char *key);
extern void crm_document_set_int64(CrmDocument *document, const char *key, int64 value);
extern void crm_document_remove(CrmDocument *document, const char *key);

/* Raises 22004 unless the keys are there and not null. */
extern void crm_document_require(CrmDocument *document, const char *const *keys, int nkeys);

/* Raises 22023 for a key that is neither a column of the table nor one of the others. */
extern void crm_document_check_keys(CrmDocument *document, const char *table,
									const char *const *others, int nothers);

/* A value as an SQL constant of the column's type; raises 22023 where it is of another. */
extern char *crm_document_literal(CrmDocument *document, const char *key, const char *table,
								  const char *column);

/*
 * Inserts or replaces the row with the document's key columns, and returns its
 * version, which the table's trigger counts; a column left out gets its
 * default. As the owner, with SPI open.
 */
extern int crm_document_save(CrmDocument *document, const char *table,
							 const char *const *key_columns, int nkey_columns);

/*
 * All of it for a table whose keys are its columns: opened, checked, saved under
 * the first of the keys it needs. Returns the version.
 */
extern int crm_document_define(FunctionCallInfo fcinfo, const char *function, const char *table,
							   const char *const *required, int nrequired);

/* What a value is, for messages: "a string". */
extern const char *crm_json_type(const JsonbValue *value);

#endif /* CRM_DOCUMENT_H */
