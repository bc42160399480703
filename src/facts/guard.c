/*
 * guard.c
 *		Facts are append-only, and so are the identifiers and what the extension
 *		keeps in crm.contact: only its own functions change them.
 */
#include "postgres.h"

#include "utils/rel.h"

#include "facts/facts.h"
#include "facts/rows.h"

PG_FUNCTION_INFO_V1(crm_refuse_change);

/* The trigger's argument is the hint. */
Datum
crm_refuse_change(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = crm_check_trigger(fcinfo, "refuse_change");
	const char *operation = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? "UPDATE"
		: TRIGGER_FIRED_BY_DELETE(trigger->tg_event)                   ? "DELETE"
																	   : "TRUNCATE";

	if (!crm_facts_may_change)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("%s of crm.%s is refused", operation,
						RelationGetRelationName(trigger->tg_relation)),
				 trigger->tg_trigger->tgnargs > 0 ? errhint("%s", trigger->tg_trigger->tgargs[0])
												  : 0));
	return PointerGetDatum(NULL);
}
