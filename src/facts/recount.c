/*
 * recount.c
 *		What follows from scans is found anew when that changes by which they are
 *		counted: a code's scope, window, campaign or store, its account's time
 *		zone, a limit.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/table.h"
#include "facts/facts.h"
#include "facts/rows.h"
#include "facts/scans.h"
#include "profile/profile.h"
#include "profile/segment.h"

#define CHUNK 2000

PG_FUNCTION_INFO_V1(crm_codes_changed);
PG_FUNCTION_INFO_V1(crm_scan_limits_changed);

/* text, as an interval of 24 hours equals one of a day, and is another window */
#define KEY(code)                                                                             \
	"(" code ".dedup_scope, CASE " code ".dedup_scope WHEN 'campaign' THEN " code ".campaign" \
	" WHEN 'store' THEN " code ".store_id::text END, " code ".dedup_window::text,"            \
	" CASE WHEN " code ".dedup_window IS NOT NULL THEN (" code ".valid_from, " code           \
	".account_id)::text END)"

static const char *const changed_codes =
	"SELECT array_agg(n.qr_code_id) FROM new_rows n JOIN old_rows o ON o.qr_code_id = n.qr_code_id"
	" WHERE " KEY("n") " IS DISTINCT FROM " KEY("o");
static const char *const changed_stores =
	"SELECT true FROM new_rows n JOIN old_rows o ON o.qr_code_id = n.qr_code_id"
	" WHERE n.store_id IS DISTINCT FROM o.store_id"
	" AND EXISTS (SELECT FROM crm.scan_limit l WHERE 'store' = ANY (l.per)) LIMIT 1";
static const char *const changed_accounts =
	"SELECT array_agg(q.qr_code_id) FROM new_rows n"
	" JOIN old_rows o ON o.account_id = n.account_id"
	" JOIN crm.qr_code q ON q.account_id = n.account_id"
	" WHERE n.time_zone IS DISTINCT FROM o.time_zone AND q.dedup_window IS NOT NULL";
static const char *const replaced_codes =
	"SELECT array_agg(o.qr_code_id) FROM old_rows o"
	" WHERE NOT EXISTS (SELECT FROM new_rows n WHERE n.qr_code_id = o.qr_code_id)";
static const char *const deleted_codes = "SELECT array_agg(o.qr_code_id) FROM old_rows o";

static CrmPlan find_scanned = {
	"SELECT c.qr_code_id FROM unnest($1) AS c(qr_code_id)"
	" WHERE EXISTS (SELECT FROM crm.scan s WHERE s.qr_code_id = c.qr_code_id) ORDER BY 1 LIMIT 1",
	1,
	{ INT8ARRAYOID }
};
static CrmPlan find_contacts = {
	"SELECT DISTINCT s.contact_id FROM crm.scan s WHERE s.qr_code_id = ANY ($1) ORDER BY 1",
	1,
	{ INT8ARRAYOID }
};
static CrmPlan find_all_contacts = { "SELECT DISTINCT s.contact_id FROM crm.scan s ORDER BY 1", 0 };

/* The value of a query over the rows of the trigger; nothing where there is none. */
static bool
ask(const char *sql, Datum *value)
{
	bool isnull = true;
	int code = SPI_execute(sql, false, 0);

	if (code < 0)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(code));
	if (SPI_processed > 0)
		*value = crm_result(0, 1, &isnull);
	return !isnull;
}

/* Whoever is recording scans ends first, whoever comes later sees the change. */
static void
stop_recording(void)
{
	LockRelationOid(crm_table_oid("profile_counter"), ExclusiveLock);
	if (IsolationUsesXactSnapshot())
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("definitions cannot be changed in a transaction with a fixed snapshot"),
			 errhint(
				 "Use the isolation level READ COMMITTED, so that all scans recorded by now are seen.")));
}

/* The contacts of the current result, some thousands at a time. */
static void
recount_found(uint64 n, bool profiles)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm recount",
												  ALLOCSET_DEFAULT_SIZES);
	int64 *contacts = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(int64) * Max(n, 1));
	MemoryContext old;

	for (uint64 row = 0; row < n; row++)
		contacts[row] = crm_result_int64(row, 1);
	SPI_freetuptable(SPI_tuptable);
	old = MemoryContextSwitchTo(context);
	for (uint64 start = 0; start < n; start += CHUNK)
	{
		int nchunk = Min(CHUNK, n - start);

		CHECK_FOR_INTERRUPTS();
		if (profiles)
		{
			crm_scan_count(contacts + start, nchunk);
			crm_profile_recompute(contacts + start, nchunk, crm_now());
			crm_segments_refresh(contacts + start, nchunk, "scan_count", crm_now());
		}
		else
		{
			CrmActing acting;

			crm_connect(&acting);
			crm_scan_flag_again(contacts + start, nchunk);
			crm_disconnect(&acting);
		}
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

static void
refuse_if_scanned(Datum codes)
{
	stop_recording();
	if (crm_run(&find_scanned, &codes, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("QR code %lld has scans", (long long) crm_result_int64(0, 1)),
				 errhint(
					 "Let the code end by valid_until; its scans keep what they are counted by.")));
}

Datum
crm_codes_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = crm_check_trigger(fcinfo, "codes_changed");
	bool of_code = RelationGetRelid(trigger->tg_relation) == crm_table_oid_if_any("qr_code");
	CrmActing acting;
	Datum codes;

	if (!of_code)
		crm_require_table(trigger->tg_relation, "account");
	crm_connect(&acting);
	if (SPI_register_trigger_data(trigger) < 0)
		elog(ERROR, "SPI_register_trigger_data failed");
	if (TRIGGER_FIRED_BY_DELETE(trigger->tg_event))
	{
		if (of_code && ask(deleted_codes, &codes))
			refuse_if_scanned(codes);
	}
	else
	{
		if (of_code && ask(replaced_codes, &codes))
			refuse_if_scanned(codes);
		if (ask(of_code ? changed_codes : changed_accounts, &codes))
		{
			stop_recording();
			recount_found(crm_run(&find_contacts, &codes, NULL), true);
		}
		if (of_code && ask(changed_stores, &codes))
		{
			stop_recording();
			recount_found(crm_run(&find_all_contacts, NULL, NULL), false);
		}
	}
	crm_disconnect(&acting);
	return PointerGetDatum(NULL);
}

Datum
crm_scan_limits_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = crm_check_trigger(fcinfo, "scan_limits_changed");
	CrmActing acting;

	crm_require_table(trigger->tg_relation, "scan_limit");
	crm_connect(&acting);
	stop_recording();
	crm_scan_limits_forget();
	recount_found(crm_run(&find_all_contacts, NULL, NULL), false);
	crm_disconnect(&acting);
	return PointerGetDatum(NULL);
}
