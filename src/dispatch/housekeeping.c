/*
 * housekeeping.c
 *		What the worker looks at now and then: whether the queue is late.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "dispatch/dispatch.h"

#define EVERY_SECONDS 20

static CrmPlan find_late = {
	"SELECT a.name, min(o.due_at) FROM crm.account a CROSS JOIN LATERAL (SELECT o.due_at"
	"  FROM crm.outbox o WHERE o.account_id = a.account_id AND o.lane = ANY ($1)"
	"  AND o.due_at < $2 AND o.lease IS NULL ORDER BY o.due_at LIMIT 1) o GROUP BY a.name",
	2,
	{ TEXTARRAYOID, TIMESTAMPTZOID }
};
static CrmPlan find_alarms = {
	"SELECT a.object FROM crm.alarm a WHERE a.kind = 'queue_late' AND a.cleared_at IS NULL", 0
};

static TimestampTz next_at = DT_NOBEGIN;

TimestampTz
crm_housekeeping_due(void)
{
	return next_at;
}

static void
look_for_late(TimestampTz now)
{
	Datum values[2];
	CrmColumn lanes;
	List *late = NIL;
	List *over = NIL;
	List *details = NIL;
	ListCell *cell;
	ListCell *detail;
	uint64 n;

	crm_column_init(&lanes, TEXTOID);
	for (int i = 0; i < CRM_NLANES; i++)
		crm_column_add(&lanes, CStringGetTextDatum(crm_lanes[i]), false);
	values[0] = crm_column_array(&lanes);
	values[1] = TimestampTzGetDatum(now - (int64) crm_guc_alarm_after * USECS_PER_SEC);
	n = crm_run(&find_late, values, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		bool isnull;
		TimestampTz due_at = DatumGetTimestampTz(crm_result(i, 2, &isnull));

		late = lappend(late, makeString(crm_result_text(i, 1)));
		details = lappend(details,
						  psprintf("the oldest message is due since %s",
								   timestamptz_to_str(due_at)));
	}
	n = crm_run(&find_alarms, NULL, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		String *object = makeString(crm_result_text(i, 1));

		if (!list_member(late, object))
			over = lappend(over, object);
	}
	forboth(cell, late, detail, details)
		crm_alarm_raise("queue_late", strVal(lfirst(cell)), lfirst(detail));
	foreach(cell, over)
		crm_alarm_clear("queue_late", strVal(lfirst(cell)));
}

void
crm_housekeeping(TimestampTz now)
{
	look_for_late(now);
	next_at = now + EVERY_SECONDS * USECS_PER_SEC;
}
