/*
 * tally.c
 *		Steps counted by day, in the transaction that enters and leaves them: as rows
 *		of crm.visit_tail, which the worker adds to crm.visit_day. Rows are counted
 *		as they stand in crm.step_visit, before they change with a minus.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "base/db.h"
#include "base/roll_up.h"
#include "journey/engine.h"

static CrmPlan count_visits = {
	"INSERT INTO crm.visit_tail (zone, day, journey, version, step, state, outcome, next_step,"
	"  visits)"
	" SELECT z.zone, timezone(z.zone, v.entered_at)::date, v.journey, v.version, v.step,"
	"  crm.visit_state(v.outcome), CASE v.outcome WHEN 'arm' THEN v.arm ELSE v.outcome END,"
	"  v.next_step, $5 * count(*)"
	" FROM unnest($1, $2, $3, $4) AS n(contact_id, enrolment_id, visit, recorded_at)"
	" JOIN crm.step_visit v ON v.contact_id = n.contact_id AND v.enrolment_id = n.enrolment_id"
	"  AND v.visit = n.visit AND v.recorded_at = n.recorded_at"
	" CROSS JOIN (SELECT crm.default_time_zone() AS zone) z GROUP BY 1, 2, 3, 4, 5, 6, 7, 8",
	5,
	{ INT8ARRAYOID, INT8ARRAYOID, INT4ARRAYOID, TIMESTAMPTZARRAYOID, INT8OID },
	.by_index = true
};

void
crm_visit_keys_init(CrmVisitKeys *keys)
{
	static const Oid types[CRM_VISIT_KEYS] = { INT8OID, INT8OID, INT4OID, TIMESTAMPTZOID };

	keys->kept = crm_roll_ups_kept();
	for (int i = 0; i < CRM_VISIT_KEYS; i++)
		crm_column_init(&keys->columns[i], types[i]);
}

void
crm_visit_keys_add(CrmVisitKeys *keys, const CrmVisit *visit, TimestampTz recorded_at)
{
	if (!keys->kept)
		return;
	crm_column_add(&keys->columns[0], Int64GetDatum(visit->run->contact_id), false);
	crm_column_add(&keys->columns[1], Int64GetDatum(visit->run->enrolment_id), false);
	crm_column_add(&keys->columns[2], Int32GetDatum(visit->visit), false);
	crm_column_add(&keys->columns[3], TimestampTzGetDatum(recorded_at), false);
}

void
crm_visits_tally(CrmVisitKeys *keys, int sign)
{
	Datum values[CRM_VISIT_KEYS + 1];

	if (keys->columns[0].n == 0)
		return;
	for (int i = 0; i < CRM_VISIT_KEYS; i++)
		values[i] = crm_column_array(&keys->columns[i]);
	values[CRM_VISIT_KEYS] = Int64GetDatum(sign);
	crm_run(&count_visits, values, NULL);
}
