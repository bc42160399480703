/*
 * alarm.c
 *		What somebody has to look at: a row of crm.alarm while it lasts, and one
 *		line in the log when it begins and when it ends.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"

#include "dispatch/dispatch.h"

static CrmPlan raise_alarm = {
	"INSERT INTO crm.alarm AS a (kind, object, detail) VALUES ($1, $2, $3)"
	" ON CONFLICT (kind, object) WHERE cleared_at IS NULL DO UPDATE SET"
	" detail = EXCLUDED.detail, times = a.times + 1, last_at = EXCLUDED.last_at RETURNING a.times",
	3,
	{ TEXTOID, TEXTOID, TEXTOID }
};
static CrmPlan clear_alarm = { "UPDATE crm.alarm a SET cleared_at = pg_catalog.now()"
							   " WHERE a.kind = $1 AND a.object = $2 AND a.cleared_at IS NULL",
							   2,
							   { TEXTOID, TEXTOID } };

void
crm_alarm_raise(const char *kind, const char *object, const char *detail)
{
	Datum values[3] = { CStringGetTextDatum(kind), CStringGetTextDatum(object),
						CStringGetTextDatum(detail) };

	crm_run(&raise_alarm, values, NULL);
	if (crm_result_int64(0, 1) == 1)
		ereport(WARNING,
				(errmsg("pg_crm alarm %s of \"%s\": %s", kind, object, detail),
				 errhint("See crm.alarm.")));
}

void
crm_alarm_clear(const char *kind, const char *object)
{
	Datum values[2] = { CStringGetTextDatum(kind), CStringGetTextDatum(object) };

	if (crm_run(&clear_alarm, values, NULL) > 0)
		ereport(LOG, (errmsg("pg_crm alarm %s of \"%s\" is over", kind, object)));
}
