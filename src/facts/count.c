/*
 * count.c
 *		Which scans count: of a contact, in a code's scope and window, the
 *		earliest (crm.first_scan). Set-based, for what mark.c leaves.
 */
#include "postgres.h"

#include "catalog/pg_type.h"

#include "base/db.h"
#include "facts/facts.h"
#include "facts/scans.h"
#include "profile/profile.h"

static CrmPlan count_scans = {
	"INSERT INTO crm.first_scan AS f"
	" (contact_id, scope, scope_id, window_start, scan_id, occurred_at)"
	" SELECT DISTINCT ON (k.contact_id, k.scope, k.scope_id, k.window_start)"
	"  k.contact_id, k.scope, k.scope_id, k.window_start, k.scan_id, k.occurred_at"
	" FROM (SELECT s.contact_id, s.scan_id, s.occurred_at, " CRM_SCAN_KEY
	"  FROM unnest($1, $2, $3, $4) AS s(contact_id, scan_id, qr_code_id, occurred_at)" CRM_SCAN_CODE
	" ) k"
	" ORDER BY k.contact_id, k.scope, k.scope_id, k.window_start, k.occurred_at, k.scan_id"
	" ON CONFLICT (contact_id, scope, scope_id, window_start) DO UPDATE"
	" SET scan_id = excluded.scan_id, occurred_at = excluded.occurred_at"
	" WHERE (excluded.occurred_at, excluded.scan_id) < (f.occurred_at, f.scan_id)",
	4,
	{ INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID }
};
static CrmPlan forget_counts = { "DELETE FROM crm.first_scan f WHERE f.contact_id = ANY ($1)",
								 1,
								 { INT8ARRAYOID } };
static CrmPlan count_again = {
	"INSERT INTO crm.first_scan (contact_id, scope, scope_id, window_start, scan_id, occurred_at)"
	" SELECT DISTINCT ON (k.contact_id, k.scope, k.scope_id, k.window_start)"
	"  k.contact_id, k.scope, k.scope_id, k.window_start, k.scan_id, k.occurred_at"
	" FROM (SELECT s.contact_id, s.scan_id, s.occurred_at, " CRM_SCAN_KEY
	"  FROM crm.scan s" CRM_SCAN_CODE " WHERE s.contact_id = ANY ($1)) k"
	" ORDER BY k.contact_id, k.scope, k.scope_id, k.window_start, k.occurred_at, k.scan_id",
	1,
	{ INT8ARRAYOID }
};

void
crm_scan_count_new(const Datum *scans)
{
	crm_run(&count_scans, scans, NULL);
}

/* What is derived of the contacts' scans alone, found anew from all of them. */
void
crm_scan_count(const int64 *contacts, int ncontacts)
{
	CrmActing acting;
	Datum value;

	crm_connect(&acting);
	value = crm_int64_array(contacts, ncontacts);
	crm_run(&forget_counts, &value, NULL);
	crm_run(&count_again, &value, NULL);
	crm_scan_flag_again(contacts, ncontacts);
	crm_acquisition_again(contacts, ncontacts);
	crm_disconnect(&acting);
}
