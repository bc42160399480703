/*
 * rows.c
 *		The rows that a statement trigger is given: its transition table.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/tuplestore.h"

#include "base/table.h"
#include "facts/rows.h"
#include "pg_crm.h"

TriggerData *
crm_check_trigger(FunctionCallInfo fcinfo, const char *function)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("crm.%s() must be called as a statement trigger", function),
				 errhint("The triggers of pg_crm are made by crm.install().")));
	return trigger;
}

void
crm_rows_open(CrmRows *rows, FunctionCallInfo fcinfo, const char *function)
{
	memset(rows, 0, sizeof(CrmRows));
	rows->trigger = crm_check_trigger(fcinfo, function);
	if (!TRIGGER_FIRED_AFTER(rows->trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(rows->trigger->tg_event) || rows->trigger->tg_newtable == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("crm.%s() must fire after insert with a transition table", function),
				 errhint("The triggers of pg_crm are made by crm.install().")));
	tuplestore_rescan(rows->trigger->tg_newtable);
	rows->copy = !tuplestore_in_memory(rows->trigger->tg_newtable);
	rows->slot = MakeSingleTupleTableSlot(RelationGetDescr(rows->trigger->tg_relation),
										  &TTSOpsMinimalTuple);
}

void
crm_rows_close(CrmRows *rows)
{
	ExecDropSingleTupleTableSlot(rows->slot);
}

const AttrNumber *
crm_rows_attributes(const CrmRows *rows, const char *const *columns, int ncolumns)
{
	return crm_known_attributes(rows->trigger->tg_relation, columns, ncolumns);
}

Datum
crm_rows_value(const CrmRows *rows, AttrNumber attno, bool *isnull)
{
	return slot_getattr(rows->slot, attno, isnull);
}

char *
crm_rows_text(const CrmRows *rows, AttrNumber attno)
{
	bool isnull;
	Datum value = crm_rows_value(rows, attno, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

bool
crm_text_equals(Datum value, const char *expected, int len)
{
	text *given = DatumGetTextPP(value);

	return VARSIZE_ANY_EXHDR(given) == len && memcmp(VARDATA_ANY(given), expected, len) == 0;
}

bool
crm_rows_next(CrmRows *rows)
{
	return tuplestore_gettupleslot(rows->trigger->tg_newtable, true, false, rows->slot);
}
