/*
 * row.c
 *		A row under a trigger of the definition tables, by column names.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "profile/row.h"

Datum
crm_row_value(const CrmRow *row, const char *column, bool *isnull)
{
	int attno = SPI_fnumber(row->descriptor, column);

	*isnull = true;
	return attno <= 0 ? (Datum) 0 : heap_getattr(row->tuple, attno, row->descriptor, isnull);
}

char *
crm_row_text(const CrmRow *row, const char *column)
{
	bool isnull;
	Datum value = crm_row_value(row, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

void
crm_check_length(const char *what, const char *value, int most)
{
	if (value == NULL)
		return; /* the constraint speaks */
	if (*value == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION), errmsg("%s must not be empty: \"\"", what),
				 errhint("Give a text of 1 to %d bytes.", most)));
	if (strlen(value) > most)
		ereport(ERROR,
				(errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				 errmsg("%s of %zu bytes is longer than %d: \"%s…\"", what, strlen(value), most,
						pnstrdup(value, pg_mbcliplen(value, strlen(value), 40))),
				 errhint("Give a text of 1 to %d bytes.", most)));
}
