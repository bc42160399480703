/*
 * open.c
 *		The profiles of contacts that have just been inserted.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "profile/profile.h"
#include "profile/walk.h"

static CrmPlan insert_profiles = {
	"INSERT INTO crm.profile_counter (contact_id, stage, stage_since, ranked_stage, settled_at)"
	" SELECT n.contact_id, $3, n.created_at, $4, n.created_at"
	" FROM unnest($1, $2) AS n(contact_id, created_at) ON CONFLICT DO NOTHING",
	4,
	{ INT8ARRAYOID, TIMESTAMPTZARRAYOID, TEXTOID, TEXTOID }
};
static CrmPlan insert_openings = {
	"INSERT INTO crm.stage_move (contact_id, since, stage, reason)"
	" SELECT n.contact_id, n.created_at, $3, 'opening'"
	" FROM unnest($1, $2) AS n(contact_id, created_at) ON CONFLICT DO NOTHING",
	3,
	{ INT8ARRAYOID, TIMESTAMPTZARRAYOID, TEXTOID }
};
static CrmPlan update_stages = { "UPDATE crm.contact c SET stage = $2"
								 " WHERE c.contact_id = ANY ($1) AND c.stage IS DISTINCT FROM $2",
								 2,
								 { INT8ARRAYOID, TEXTOID } };
static CrmPlan select_known = {
	"SELECT DISTINCT i.contact_id FROM crm.identity i"
	" WHERE i.contact_id = ANY ($1) AND i.kind = 'mobile' ORDER BY i.contact_id",
	1,
	{ INT8ARRAYOID }
};

void
crm_profile_open(const int64 *contacts, const TimestampTz *created_at, int ncontacts)
{
	const CrmDefinitions *definitions = crm_definitions();
	CrmWalk *walk = crm_walk_create(definitions);
	CrmActing acting;
	CrmColumn times;
	Datum values[4];
	char nulls[5] = "    ";
	uint64 nknown;
	int64 *known;

	crm_walk_begin(walk, 0, 0);
	crm_connect(&acting);
	crm_column_init(&times, TIMESTAMPTZOID);
	for (int i = 0; i < ncontacts; i++)
		crm_column_add(&times, TimestampTzGetDatum(created_at[i]), false);
	values[0] = crm_int64_array(contacts, ncontacts);
	values[1] = crm_column_array(&times);
	values[2] = walk->values[CRM_P_STAGE];
	values[3] = walk->values[CRM_P_RANKED_STAGE];
	nulls[2] = walk->nulls[CRM_P_STAGE] ? 'n' : ' ';
	nulls[3] = walk->nulls[CRM_P_RANKED_STAGE] ? 'n' : ' ';
	crm_run(&insert_profiles, values, nulls);
	if (nulls[2] == ' ')
		crm_run(&insert_openings, values, nulls);

	values[1] = values[2];
	nulls[1] = nulls[2];
	crm_run_protected(&update_stages, values, nulls);

	/* rules that read the time or the contact itself are asked for each of them */
	if (definitions->stages_read_time || definitions->reads_fields)
	{
		crm_profile_recompute(contacts, ncontacts, created_at[0]);
		crm_disconnect(&acting);
		return;
	}

	/* who came with a mobile number has something to walk */
	nknown = crm_run(&select_known, values, NULL);
	known = palloc(sizeof(int64) * Max(nknown, 1));
	for (uint64 row = 0; row < nknown; row++)
		known[row] = crm_result_int64(row, 1);
	if (nknown > 0)
		crm_profile_recompute(known, nknown, created_at[0]);
	crm_disconnect(&acting);
}
