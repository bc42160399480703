/*
 * reachable.c
 *		crm.reachable(): by which accounts a contact can be written to.
 */
#include "postgres.h"

#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "facts/record.h"
#include "outbox/outbox.h"
#include "outbox/reachable.h"

PG_FUNCTION_INFO_V1(crm_sql_reachable);

static void
add_reach(void *arg, const CrmReach *reach)
{
	ReturnSetInfo *result = arg;
	Datum values[6];
	bool nulls[6] = { false };

	values[0] = CStringGetTextDatum(reach->channel);
	values[1] = TimestampTzGetDatum(reach->valid_until);
	nulls[1] = reach->valid_until == DT_NOBEGIN;
	values[2] = Int32GetDatum(reach->remaining);
	nulls[2] = reach->remaining < 0;
	nulls[3] = reach->reason == NULL;
	values[3] = nulls[3] ? (Datum) 0 : CStringGetTextDatum(reach->reason);
	values[4] = CStringGetTextDatum(reach->account);
	values[5] = CStringGetTextDatum(reach->api);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

Datum
crm_sql_reachable(PG_FUNCTION_ARGS)
{
	TimestampTz at = crm_as_of_argument(fcinfo, 1);
	char *class;
	CrmActing acting;

	crm_require_argument("reachable", "contact_id", PG_ARGISNULL(0));
	crm_require_argument("reachable", "class", PG_ARGISNULL(2));
	class = crm_text_argument(fcinfo, 2);
	crm_check_class(class);
	InitMaterializedSRF(fcinfo, 0);
	crm_connect(&acting);
	crm_outbox_reachable(crm_contact_resolve(PG_GETARG_INT64(0)), class, at, add_reach,
						 fcinfo->resultinfo);
	crm_disconnect(&acting);
	return (Datum) 0;
}
