/*
 * merge.c
 *		Two contacts become one. The rows of the one that ends are given to the
 *		survivor, what could not stay goes into the ledger whole, and the awards
 *		and stages of the joined history are found by walking it anew.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "facts/record.h"
#include "facts/rekey.h"
#include "facts/scans.h"
#include "journey/journey.h"
#include "outbox/outbox.h"
#include "profile/loyalty.h"
#include "profile/profile.h"
#include "profile/segment.h"
#include "profile/won.h"

PG_FUNCTION_INFO_V1(crm_sql_merge);

static CrmPlan lock_contacts = {
	"SELECT c.contact_id FROM crm.contact c WHERE c.contact_id = ANY ($1)"
	" ORDER BY c.contact_id FOR NO KEY UPDATE",
	1,
	{ INT8ARRAYOID }
};
static CrmPlan lock_loser = {
	"SELECT c.contact_id FROM crm.contact c WHERE c.contact_id = $1 FOR UPDATE",
	1,
	{ INT8OID }
};

static CrmPlan find_unprofiled = {
	"SELECT c.contact_id FROM crm.contact c WHERE c.contact_id = ANY ($1) AND NOT EXISTS"
	" (SELECT FROM crm.profile_counter p WHERE p.contact_id = c.contact_id) LIMIT 1",
	1,
	{ INT8ARRAYOID }
};

/* the survivor first */
static CrmPlan compare = {
	"SELECT c.contact_id, v.others > 0, to_jsonb(c), c FROM crm.contact c"
	" CROSS JOIN LATERAL (SELECT count(*) AS n,"
	"   count(*) FILTER (WHERE i.external_id IS DISTINCT FROM $2) AS others"
	"  FROM crm.identity i WHERE i.contact_id = c.contact_id AND i.kind = 'mobile'"
	"   AND i.verified_at IS NOT NULL) v"
	" WHERE c.contact_id = ANY ($1)"
	" ORDER BY v.n > 0 DESC, c.created_at, c.contact_id",
	2,
	{ INT8ARRAYOID, TEXTOID }
};

/*
 * Orders of both under one reference: the loser's keeps counting under another,
 * the ledger keeps the one it had.
 */
static CrmPlan rename_references = {
	"WITH d AS (SELECT l.transaction_id, l.external_ref, l.external_ref || '#' || $1"
	"   || CASE WHEN EXISTS (SELECT FROM crm.transaction x WHERE x.contact_id IN ($1, $2)"
	"    AND x.external_ref = l.external_ref || '#' || $1) THEN '#' || l.transaction_id ELSE '' END"
	"   AS new_ref"
	"  FROM crm.transaction l JOIN crm.transaction s ON s.contact_id = $2"
	"   AND s.external_ref = l.external_ref WHERE l.contact_id = $1),"
	" u AS (UPDATE crm.transaction t SET external_ref = d.new_ref FROM d"
	"  WHERE t.contact_id = $1 AND t.transaction_id = d.transaction_id)"
	" SELECT jsonb_agg(jsonb_build_array(d.transaction_id, d.external_ref)) FROM d",
	2,
	{ INT8OID, INT8OID }
};
static CrmPlan join_memberships = {
	"WITH u AS (UPDATE crm.membership s SET joined_at = least(b.joined_at, l.joined_at),"
	"   left_at = CASE WHEN b.left_at IS NOT NULL AND l.left_at IS NOT NULL"
	"    THEN greatest(b.left_at, l.left_at) END,"
	"   tier = coalesce(b.tier, l.tier),"
	"   tier_since = CASE WHEN b.tier IS NULL THEN l.tier_since ELSE b.tier_since END"
	"  FROM crm.membership b JOIN crm.membership l ON l.loyalty_program_id = b.loyalty_program_id"
	"  WHERE l.contact_id = $1 AND b.contact_id = $2 AND s.contact_id = $2"
	"   AND s.loyalty_program_id = b.loyalty_program_id"
	"  RETURNING jsonb_build_object('before', to_jsonb(b), 'after', to_jsonb(s)) AS change)"
	" SELECT jsonb_agg(u.change) FROM u",
	2,
	{ INT8OID, INT8OID }
};
/*
 * Two grants of what is given once: both stay, the loser's as the duplicate, so
 * that they are redeemed once together.
 */
static CrmPlan mark_duplicates = {
	"UPDATE crm.coupon_grant l SET duplicate_of = s.coupon_grant_id FROM crm.coupon_grant s"
	" WHERE l.contact_id = $1 AND s.contact_id = $2 AND s.coupon = l.coupon AND s.once = l.once"
	" AND l.duplicate_of IS NULL AND s.duplicate_of IS NULL",
	2,
	{ INT8OID, INT8OID }
};
static CrmPlan select_identities = {
	"SELECT jsonb_agg(to_jsonb(i)) FROM crm.identity i WHERE i.contact_id = $1",
	1,
	{ INT8OID }
};

/* in id order, as everybody takes them */
static CrmPlan lock_segments = { "SELECT FROM crm.segment_state s WHERE s.contact_id IN ($1, $2)"
								 " ORDER BY s.contact_id FOR NO KEY UPDATE",
								 2,
								 { INT8OID, INT8OID } };
/* who was in a segment stays in it, since when he was */
static CrmPlan give_segments = {
	"UPDATE crm.segment_member m SET contact_id = $2 WHERE m.contact_id = $1"
	" AND NOT EXISTS (SELECT FROM crm.segment_member s WHERE s.contact_id = $2"
	"  AND (s.segment = m.segment OR s.partition = m.partition))",
	2,
	{ INT8OID, INT8OID }
};

static CrmPlan delete_derived = { "WITH m AS (DELETE FROM crm.stage_move WHERE contact_id = $1),"
								  " f AS (DELETE FROM crm.first_scan WHERE contact_id = $1),"
								  " b AS (DELETE FROM crm.point_balance WHERE contact_id = $1),"
								  " g AS (DELETE FROM crm.segment_member WHERE contact_id = $1),"
								  " t AS (DELETE FROM crm.segment_state WHERE contact_id = $1)"
								  " DELETE FROM crm.profile_counter WHERE contact_id = $1",
								  1,
								  { INT8OID } };
static CrmPlan delete_contact = { "DELETE FROM crm.contact WHERE contact_id = $1", 1, { INT8OID } };

/* What the survivor's row takes over, column by column, user-added ones too. */
static CrmPlan list_assignments = {
	"SELECT string_agg(format(CASE a.attname"
	"   WHEN 'created_at' THEN '%1$I = LEAST(s.%1$I, l.%1$I)'"
	"   WHEN 'attributes' THEN '%1$I = CASE WHEN jsonb_typeof(s.%1$I) = ''object'' AND"
	" jsonb_typeof(l.%1$I) = ''object'' THEN l.%1$I || s.%1$I ELSE s.%1$I END'"
	"   WHEN 'tags' THEN '%1$I = s.%1$I || ARRAY(SELECT u FROM unnest(l.%1$I) u"
	" WHERE u <> ALL (s.%1$I))'"
	"   ELSE '%1$I = COALESCE(s.%1$I, l.%1$I)' END, a.attname), ', ')"
	" FROM pg_attribute a WHERE a.attrelid = 'crm.contact'::regclass AND a.attnum > 0"
	" AND NOT a.attisdropped AND a.attgenerated = '' AND a.attidentity <> 'a'"
	" AND a.attname NOT IN ('contact_id', 'stage')",
	0
};
static CrmPlan insert_ledger = {
	"INSERT INTO crm.merge_ledger (contact_id, other, merged_at, reason, survivor_before,"
	" other_before, moved)"
	" SELECT $1, $2, $3, $4, $5, $6, coalesce((SELECT jsonb_object_agg(m.label, m.rows)"
	"  FROM unnest($7, $8) AS m(label, rows)), '{}')",
	8,
	{ INT8OID, INT8OID, TIMESTAMPTZOID, TEXTOID, JSONBOID, JSONBOID, TEXTARRAYOID, JSONBARRAYOID }
};

/* what the ledger lists, under the names it has there */
typedef struct Moved
{
	CrmColumn labels;
	CrmColumn rows;
} Moved;

static void
note(Moved *moved, const char *label, Datum rows, bool isnull)
{
	if (isnull)
		return;
	crm_column_add(&moved->labels, CStringGetTextDatum(label), false);
	crm_column_add(&moved->rows, rows, false);
}

static void
note_result(Moved *moved, const char *label)
{
	bool isnull;
	Datum rows = crm_result(0, 1, &isnull);

	note(moved, label, rows, isnull);
}

/* Contacts loaded without triggers have no profile yet, which is the lock. */
void
crm_check_profiles(const int64 *contacts, int ncontacts)
{
	Datum value = crm_int64_array(contacts, ncontacts);

	if (crm_run(&find_unprofiled, &value, NULL) > 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("contact %lld has no profile", (long long) crm_result_int64(0, 1)),
			 errhint(
				 "End the restore with crm.restoring(false); crm.verify() lists what is missing.")));
}

/* Runs of journeys that are in memory would be written back to a contact that is gone. */
void
crm_check_no_journeys_move(void)
{
	if (crm_journeys_at_work())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("contacts cannot be merged or parted by a statement that moves journeys"),
				 errhint("Do it in a statement of its own, not in a trigger.")));
}

/*
 * The two contacts as they are now, locked, in the order of their ids; false
 * where they are one.
 */
static bool
find_both(int64 contact_id, int64 other, int64 *contacts)
{
	for (;;)
	{
		int64 a = crm_contact_resolve(contact_id);
		int64 b = crm_contact_resolve(other);

		CHECK_FOR_INTERRUPTS();
		contacts[0] = Min(a, b);
		contacts[1] = Max(a, b);
		if (a == b)
			return false;
		if (crm_contact_try_lock(contacts, 2, NULL, NULL))
			return true;
		crm_check_profiles(contacts, 2);
	}
}

static void
refuse(const int64 *contacts, const char *reason)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_CHECK_VIOLATION),
		 reason == NULL
			 ? errmsg("contacts %lld and %lld cannot be merged: both have a verified mobile",
					  (long long) contacts[0], (long long) contacts[1])
			 : errmsg("contacts %lld and %lld cannot be merged (%s): both have a verified mobile",
					  (long long) contacts[0], (long long) contacts[1], reason),
		 errhint(
			 "If they are one person, let the person prove the other number with crm.bind_mobile().")));
}

static void
give_rows(int64 loser, int64 survivor, Moved *moved)
{
	Datum values[2];
	CrmReferrer *referrers;
	Datum rows;
	bool isnull;
	int n;

	values[0] = Int64GetDatum(loser);
	values[1] = Int64GetDatum(survivor);
	crm_run_protected(&rename_references, values, NULL);
	note_result(moved, "*external_ref");
	crm_run(&join_memberships, values, NULL);
	note_result(moved, "*membership");
	crm_run(&mark_duplicates, values, NULL);
	crm_run(&select_identities, values, NULL);
	note_result(moved, "*identity");
	rows = crm_acquisition_merge(loser, survivor, &isnull);
	note(moved, "*acquisition", rows, isnull);
	rows = crm_consent_merge(loser, survivor, &isnull);
	note(moved, "*consent", rows, isnull);
	rows = crm_journey_merge(loser, survivor, &isnull);
	note(moved, "*enrolment", rows, isnull);
	rows = crm_refusals_merge(loser, survivor, &isnull);
	note(moved, "*refusal", rows, isnull);
	rows = crm_outbox_merge(loser, survivor, &isnull);
	note(moved, "*send_key", rows, isnull);

	referrers = crm_referrers(&n);
	for (int i = 0; i < n; i++)
	{
		rows = crm_rekey(&referrers[i], loser, survivor, &isnull);
		note(moved, referrers[i].label, rows, isnull);
	}
	crm_run(&lock_segments, values, NULL);
	crm_run(&give_segments, values, NULL);
	crm_run(&delete_derived, values, NULL);
}

static void
fill_contact(int64 survivor, Datum loser_row, Oid row_type)
{
	Oid types[2] = { INT8OID, row_type };
	Datum values[2];
	char *sql;
	int code = 0;
	bool before = crm_facts_may_change;

	crm_run(&list_assignments, NULL, NULL);
	sql = psprintf("UPDATE crm.contact s SET %s FROM (SELECT ($2).*) l WHERE s.contact_id = $1",
				   crm_result_text(0, 1));
	values[0] = Int64GetDatum(survivor);
	values[1] = loser_row;
	crm_facts_may_change = true;
	PG_TRY();
	{
		code = SPI_execute_with_args(sql, 2, types, values, NULL, false, 0);
	}
	PG_FINALLY();
	{
		crm_facts_may_change = before;
	}
	PG_END_TRY();
	if (code < 0)
		elog(ERROR, "SPI_execute_with_args failed: %s", SPI_result_code_string(code));
}

/* Both are locked. Returns the survivor. */
static int64
join(const int64 *contacts, const char *reason, const char *shared_mobile)
{
	int nest_level = crm_plain_output();
	Moved moved;
	Datum values[8];
	char nulls[9] = "        ";
	int64 survivor;
	int64 loser;
	uint64 found;
	Datum loser_row;
	Oid row_type;
	bool isnull;

	crm_scan_flag_lock(contacts, 2);
	values[0] = crm_int64_array(contacts, 2);
	crm_run(&lock_contacts, values, NULL);
	values[1] = shared_mobile == NULL ? (Datum) 0 : CStringGetTextDatum(shared_mobile);
	found = crm_run(&compare, values, shared_mobile == NULL ? " n" : NULL);
	if (found != 2)
		crm_row_missing("contact of a profile",
						found == 1 && crm_result_int64(0, 1) == contacts[0] ? contacts[1]
																			: contacts[0]);
	if (DatumGetBool(crm_result(0, 2, &isnull)) && DatumGetBool(crm_result(1, 2, &isnull)))
		refuse(contacts, reason);
	survivor = crm_result_int64(0, 1);
	loser = crm_result_int64(1, 1);
	values[4] = crm_result(0, 3, &isnull);
	values[5] = crm_result(1, 3, &isnull);
	loser_row = crm_result(1, 4, &isnull);
	row_type = SPI_gettypeid(SPI_tuptable->tupdesc, 4);

	/* rows of users that refer to it are not being added from here on */
	values[0] = Int64GetDatum(loser);
	crm_run(&lock_loser, values, NULL);

	crm_column_init(&moved.labels, TEXTOID);
	crm_column_init(&moved.rows, JSONBOID);
	give_rows(loser, survivor, &moved);
	crm_run_protected(&delete_contact, values, NULL);
	fill_contact(survivor, loser_row, row_type);

	crm_won_rekeyed(contacts);
	values[0] = Int64GetDatum(survivor);
	values[1] = Int64GetDatum(loser);
	values[2] = TimestampTzGetDatum(crm_now());
	values[3] = reason == NULL ? (Datum) 0 : CStringGetTextDatum(reason);
	nulls[3] = reason == NULL ? 'n' : ' ';
	values[6] = crm_column_array(&moved.labels);
	values[7] = crm_column_array(&moved.rows);
	crm_run(&insert_ledger, values, nulls);
	AtEOXact_GUC(true, nest_level);

	crm_scan_count(&survivor, 1);
	crm_followers_again(contacts, 2);
	crm_outbox_rekeyed(contacts, 2);
	crm_profile_recompute(&survivor, 1, crm_now());
	crm_loyalty_recompute(&survivor, 1, crm_now(), "merge");
	crm_segments_refresh(&survivor, 1, "merge", crm_now());
	crm_journey_joined(survivor);
	return survivor;
}

int64
crm_merge(int64 contact_id, int64 other, const char *reason, const char *shared_mobile)
{
	CrmActing acting;
	int64 contacts[2];
	int64 survivor;

	crm_check_no_journeys_move();
	crm_connect(&acting);
	survivor = find_both(contact_id, other, contacts) ? join(contacts, reason, shared_mobile)
													  : contacts[0];
	crm_disconnect(&acting);
	return survivor;
}

Datum
crm_sql_merge(PG_FUNCTION_ARGS)
{
	crm_require_argument("merge", "contact_id", PG_ARGISNULL(0));
	crm_require_argument("merge", "other", PG_ARGISNULL(1));
	if (!PG_ARGISNULL(2))
		crm_check_document("reason", PG_GETARG_DATUM(2));
	PG_RETURN_INT64(
		crm_merge(PG_GETARG_INT64(0), PG_GETARG_INT64(1), crm_text_argument(fcinfo, 2), NULL));
}
