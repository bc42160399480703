/*
 * count.c
 *		Which scans count: of a contact, in a code's scope and window, the
 *		earliest (crm.first_scan).
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "utils/snapmgr.h"

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
static CrmPlan find_unknown_code = {
	"SELECT s.qr_code_id FROM unnest($1) AS s(qr_code_id)"
	" WHERE NOT EXISTS (SELECT FROM crm.qr_code q WHERE q.qr_code_id = s.qr_code_id) LIMIT 1",
	1,
	{ INT8ARRAYOID }
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

/* What tells versions of the codes apart, as a snapshot shows them. */
static char *
versions_of(Datum codes, Snapshot snapshot)
{
	Oid type = INT8ARRAYOID;
	SPIPlanPtr plan = SPI_prepare(
		"SELECT string_agg(q.xmin::text || ' ' || a.xmin::text, ' ' ORDER BY q.qr_code_id)"
		" FROM crm.qr_code q JOIN crm.account a ON a.account_id = q.account_id"
		" WHERE q.qr_code_id = ANY ($1)",
		1, &type);
	char *versions;
	int code;

	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	code = SPI_execute_snapshot(plan, &codes, NULL, snapshot, InvalidSnapshot, false, false, 1);
	if (code < 0)
		elog(ERROR, "SPI_execute_snapshot failed: %s", SPI_result_code_string(code));
	versions = crm_result_text(0, 1);
	SPI_freeplan(plan);
	return versions == NULL ? "" : versions;
}

/*
 * A transaction that reads by an older snapshot would count by codes as they
 * no longer are; then it must be tried again. Nobody changes them from here on,
 * as that waits for whoever is recording.
 */
static void
check_codes_current(Datum codes)
{
	if (strcmp(versions_of(codes, GetTransactionSnapshot()),
			   versions_of(codes, GetLatestSnapshot())) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access to QR codes due to concurrent change"),
				 errhint("Repeat the transaction.")));
}

void
crm_scan_count_new(const Datum *scans)
{
	const Datum *codes = &scans[2];

	if (IsolationUsesXactSnapshot())
		check_codes_current(codes[0]);
	if (crm_run(&find_unknown_code, codes, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("QR code %lld does not exist", (long long) crm_result_int64(0, 1)),
				 errhint("Define the code with crm.define_qr_code() first.")));
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
