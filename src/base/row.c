/*
 * row.c
 *		A row under a trigger of the definition tables, by column names.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/datum.h"

#include "base/row.h"

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
				 errmsg("%s of %zu bytes is longer than %d: \"%s...\"", what, strlen(value), most,
						pnstrdup(value, pg_mbcliplen(value, strlen(value), 40))),
				 errhint("Give a text of 1 to %d bytes.", most)));
}

TriggerData *
crm_row_trigger(FunctionCallInfo fcinfo, const char *function, bool before)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		(before ? !TRIGGER_FIRED_BEFORE(trigger->tg_event)
				: !TRIGGER_FIRED_AFTER(trigger->tg_event)))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("crm.%s() must be called as a row trigger", function),
				 errhint("The triggers of pg_crm are made by crm.install().")));
	return trigger;
}

bool
crm_rows_differ(const CrmRow *old, const CrmRow *new, const char *const *ignored, int nignored)
{
	for (int i = 0; i < new->descriptor->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(new->descriptor, i);
		bool skip = attribute->attisdropped;
		bool old_null;
		bool new_null;
		Datum old_value;
		Datum new_value;

		for (int k = 0; k < nignored; k++)
			skip = skip || strcmp(NameStr(attribute->attname), ignored[k]) == 0;
		if (skip)
			continue;
		old_value = heap_getattr(old->tuple, i + 1, old->descriptor, &old_null);
		new_value = heap_getattr(new->tuple, i + 1, new->descriptor, &new_null);
		if (old_null != new_null ||
			(!new_null &&
			 !datum_image_eq(old_value, new_value, attribute->attbyval, attribute->attlen)))
			return true;
	}
	return false;
}

HeapTuple
crm_row_version(const CrmRow *old, const CrmRow *new, bool next)
{
	static const char *const version_column[] = { "version" };
	int attno = SPI_fnumber(new->descriptor, "version");
	bool isnull = false;
	bool replace_null = false;
	Datum version = Int32GetDatum(1);

	if (attno <= 0)
		return new->tuple;
	if (old != NULL)
	{
		version = crm_row_value(old, "version", &isnull);
		if (next || crm_rows_differ(old, new, version_column, 1))
			version = Int32GetDatum(DatumGetInt32(version) + 1);
	}
	return heap_modify_tuple_by_cols(new->tuple, new->descriptor, 1, &attno, &version,
									 &replace_null);
}
