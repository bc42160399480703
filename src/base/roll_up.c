/*
 * roll_up.c
 *		Whether facts and steps are counted by day as they come in: a row of
 *		crm.roll_up_setting, kept in memory until it changes.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/guc.h"
#include "base/roll_up.h"
#include "base/table.h"
#include "base/watch.h"

static CrmPlan find_setting = { "SELECT s.kept FROM crm.roll_up_setting s", 0 };

static Oid setting_table = InvalidOid;
static bool known = false;
static bool kept = false;

static void
forget_setting(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == setting_table)
		known = false;
}

void
crm_roll_up_init(void)
{
	crm_on_table_change(forget_setting);
}

bool
crm_roll_ups_kept(void)
{
	CrmActing acting;
	bool isnull;

	if (known)
		return kept;
	setting_table = crm_table_oid("roll_up_setting");
	crm_connect(&acting);
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	/* a change while it is read must not be lost, nor may a failure be taken for an answer */
	known = true;
	PG_TRY();
	{
		kept = crm_read(&find_setting, NULL, NULL) > 0 && DatumGetBool(crm_result(0, 1, &isnull));
	}
	PG_CATCH();
	{
		known = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
	PopActiveSnapshot();
	crm_disconnect(&acting);
	return kept;
}

/* As SQL has it, which counts the rows: CET is an abbreviation to it, without summer time. */
DateADT
crm_day_of(TimestampTz at)
{
	Datum local = DirectFunctionCall2(timestamptz_zone, CStringGetTextDatum(crm_guc_time_zone),
									  TimestampTzGetDatum(at));

	return DatumGetDateADT(DirectFunctionCall1(timestamp_date, local));
}
