/*
 * unmerge.c
 *		A merge undone: the contact that had ended is back with what the ledger
 *		lists, and both are walked anew. What was recorded since the merge stays
 *		with the survivor.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/table.h"
#include "facts/record.h"
#include "facts/rekey.h"
#include "facts/scans.h"
#include "journey/journey.h"
#include "outbox/outbox.h"
#include "profile/loyalty.h"
#include "profile/profile.h"
#include "profile/segment.h"
#include "profile/won.h"

PG_FUNCTION_INFO_V1(crm_sql_unmerge);

static CrmPlan find_merge = {
	"SELECT l.merge_id, l.contact_id, (l.survivor_before ->> 'contact_id')::bigint, l.moved,"
	" jsonb_build_array(l.other_before) FROM crm.merge_ledger l"
	" WHERE l.other = $1 AND l.unmerged_at IS NULL ORDER BY l.merge_id DESC LIMIT 1",
	1,
	{ INT8OID }
};
static CrmPlan find_undone = { "SELECT FROM crm.merge_ledger l WHERE l.other = $1 LIMIT 1",
							   1,
							   { INT8OID } };
static CrmPlan find_contact = { "SELECT FROM crm.contact c WHERE c.contact_id = $1",
								1,
								{ INT8OID } };
static CrmPlan lock_contact = {
	"SELECT FROM crm.contact c WHERE c.contact_id = $1 FOR NO KEY UPDATE",
	1,
	{ INT8OID }
};

/*
 * The survivor's columns as all merges that still hold make them, with this
 * one and without it. Where the column is still what it became with it, it gets
 * what it would be without; of attributes and tags, each for itself. An earlier
 * merge undone since is in survivor_before of this one: it is begun before that.
 */
static CrmPlan find_patch = {
	"WITH RECURSIVE own AS (SELECT l.* FROM crm.merge_ledger l"
	"   WHERE l.contact_id = $1 AND (l.survivor_before ->> 'contact_id')::bigint = $1),"
	" start AS (SELECT o.merge_id, o.merged_at FROM own o WHERE o.merge_id = $2"
	"  UNION SELECT o.merge_id, o.merged_at FROM start s JOIN own o ON o.merge_id < s.merge_id"
	"   AND o.unmerged_at >= s.merged_at),"
	" m AS (SELECT 0::bigint AS n, o.survivor_before AS r, false AS gone FROM own o"
	"   WHERE o.merge_id = (SELECT min(s.merge_id) FROM start s)"
	"  UNION ALL SELECT o.merge_id, o.other_before, o.merge_id = $2 FROM own o"
	"   WHERE o.merge_id >= (SELECT min(s.merge_id) FROM start s) AND o.unmerged_at IS NULL),"
	" c AS (SELECT to_jsonb(c) AS r FROM crm.contact c WHERE c.contact_id = $1),"
	" plain AS (SELECT k.key, k.value,"
	"   (SELECT m.r -> k.key FROM m WHERE m.r ->> k.key IS NOT NULL ORDER BY m.n LIMIT 1) AS becoming,"
	"   (SELECT m.r -> k.key FROM m WHERE m.r ->> k.key IS NOT NULL AND NOT m.gone"
	"    ORDER BY m.n LIMIT 1) AS without"
	"  FROM c, jsonb_each(c.r) k JOIN pg_attribute a ON a.attrelid = 'crm.contact'::regclass"
	"   AND a.attname = k.key::name AND a.attgenerated = '' AND a.attidentity <> 'a'"
	"  WHERE k.key NOT IN ('contact_id', 'created_at', 'stage', 'attributes', 'tags')),"
	" attribute AS (SELECT m.n, m.gone, k.key, k.value FROM m, jsonb_each("
	"   CASE jsonb_typeof(m.r -> 'attributes') WHEN 'object' THEN m.r -> 'attributes' END) k),"
	" kept AS (SELECT k.key, CASE WHEN k.value = b.value AND b.gone THEN"
	"    (SELECT a.value FROM attribute a WHERE a.key = k.key AND NOT a.gone ORDER BY a.n LIMIT 1)"
	"    ELSE k.value END AS value"
	"  FROM c, jsonb_each(CASE jsonb_typeof(c.r -> 'attributes') WHEN 'object'"
	"    THEN c.r -> 'attributes' END) k"
	"  LEFT JOIN LATERAL (SELECT a.value, a.gone FROM attribute a WHERE a.key = k.key"
	"   ORDER BY a.n LIMIT 1) b ON true)"
	" SELECT jsonb_object_agg(p.key, p.value) FROM ("
	"  SELECT plain.key, coalesce(plain.without, 'null') AS value FROM plain"
	"   WHERE plain.value = plain.becoming AND plain.without IS DISTINCT FROM plain.becoming"
	"  UNION ALL SELECT 'created_at', to_jsonb(w.without) FROM c,"
	"   (SELECT min((m.r ->> 'created_at')::timestamptz) AS becoming,"
	"     min((m.r ->> 'created_at')::timestamptz) FILTER (WHERE NOT m.gone) AS without FROM m) w"
	"   WHERE (c.r ->> 'created_at')::timestamptz = w.becoming AND w.without <> w.becoming"
	"  UNION ALL SELECT 'attributes', (SELECT coalesce(jsonb_object_agg(kept.key, kept.value), '{}')"
	"    FROM kept WHERE kept.value IS NOT NULL)"
	"   FROM c WHERE jsonb_typeof(c.r -> 'attributes') = 'object'"
	"  UNION ALL SELECT 'tags', (SELECT coalesce(jsonb_agg(t.value ORDER BY t.place), '[]')"
	"    FROM jsonb_array_elements(c.r -> 'tags') WITH ORDINALITY AS t(value, place)"
	"    WHERE EXISTS (SELECT FROM m WHERE NOT m.gone AND m.r -> 'tags' @> jsonb_build_array(t.value))"
	"     OR NOT EXISTS (SELECT FROM m WHERE m.r -> 'tags' @> jsonb_build_array(t.value)))"
	"   FROM c WHERE jsonb_typeof(c.r -> 'tags') = 'array') p",
	2,
	{ INT8OID, INT8OID }
};
static CrmPlan list_patched = {
	"SELECT string_agg(format('%1$I = r.%1$I', a.attname), ', ') FROM pg_attribute a"
	" WHERE a.attrelid = 'crm.contact'::regclass AND a.attnum > 0 AND NOT a.attisdropped"
	" AND $1 ? a.attname::text",
	1,
	{ JSONBOID }
};

/* A refund made since belongs to its order. */
static CrmPlan give_refunds = {
	"UPDATE crm.transaction r SET contact_id = $2 WHERE r.contact_id = $1 AND r.kind = 'refund'"
	" AND EXISTS (SELECT FROM crm.transaction o WHERE o.contact_id = $2"
	"  AND o.transaction_id = r.refund_of)"
	" AND NOT EXISTS (SELECT FROM crm.transaction o WHERE o.contact_id = $1"
	"  AND o.transaction_id = r.refund_of)",
	2,
	{ INT8OID, INT8OID }
};
static CrmPlan give_references = {
	"UPDATE crm.transaction t SET external_ref = e.value ->> 1 FROM jsonb_array_elements($3) e"
	" WHERE t.contact_id = $2 AND t.transaction_id = (e.value ->> 0)::bigint",
	3,
	{ INT8OID, INT8OID, JSONBOID }
};
static CrmPlan give_identities = {
	"UPDATE crm.identity i SET bound_at = b.bound_at, verified_at = b.verified_at"
	" FROM jsonb_populate_recordset(NULL::crm.identity, $3) b"
	" WHERE i.contact_id = $2 AND i.kind = b.kind AND i.account_id = b.account_id"
	" AND i.external_id = b.external_id",
	3,
	{ INT8OID, INT8OID, JSONBOID }
};

#define UNCHANGED(column)                                                               \
	column " = CASE WHEN c." column " IS NOT DISTINCT FROM a." column " THEN b." column \
		   " ELSE c." column " END"

static CrmPlan part_memberships = {
	"UPDATE crm.membership c SET " UNCHANGED("joined_at") ", " UNCHANGED("left_at") ", " UNCHANGED("tier") ", " UNCHANGED(
		"tier_since") " FROM jsonb_array_elements($3) e,"
					  " jsonb_populate_record(NULL::crm.membership, e.value -> 'before') b,"
					  " jsonb_populate_record(NULL::crm.membership, e.value -> 'after') a"
					  " WHERE c.contact_id = $1 AND c.loyalty_program_id = b.loyalty_program_id",
	3,
	{ INT8OID, INT8OID, JSONBOID }
};
/*
 * Grants that were the second of two are with another contact than the first
 * now. Where several are left, the oldest is the first.
 */
static CrmPlan part_duplicates = {
	"UPDATE crm.coupon_grant g SET duplicate_of = nullif(f.first, g.coupon_grant_id) FROM"
	" (SELECT d.contact_id, d.coupon_grant_id, coalesce((SELECT o.coupon_grant_id"
	"    FROM crm.coupon_grant o WHERE o.contact_id = d.contact_id AND o.coupon = d.coupon"
	"     AND o.once = d.once AND o.duplicate_of IS NULL LIMIT 1),"
	"   min(d.coupon_grant_id) OVER (PARTITION BY d.contact_id, d.coupon, d.once)) AS first"
	"  FROM crm.coupon_grant d WHERE d.contact_id = ANY ($1) AND d.duplicate_of IS NOT NULL"
	"   AND NOT EXISTS (SELECT FROM crm.coupon_grant o WHERE o.contact_id = d.contact_id"
	"    AND o.coupon_grant_id = d.duplicate_of)) f"
	" WHERE g.contact_id = f.contact_id AND g.coupon_grant_id = f.coupon_grant_id",
	1,
	{ INT8ARRAYOID }
};
static CrmPlan give_mobile = {
	"UPDATE crm.contact c SET mobile = i.external_id::crm.mobile FROM crm.identity i"
	" WHERE c.contact_id = $1 AND i.contact_id = $1 AND i.kind = 'mobile'"
	" AND i.external_id = $2 -> 0 ->> 'mobile'",
	2,
	{ INT8OID, JSONBOID }
};
/* the kept copy is one of the contact's own numbers, the one bound last */
static CrmPlan mend_mobiles = {
	"UPDATE crm.contact c SET mobile = (SELECT i.external_id::crm.mobile FROM crm.identity i"
	"  WHERE i.contact_id = c.contact_id AND i.kind = 'mobile'"
	"  ORDER BY i.bound_at DESC, i.external_id LIMIT 1)"
	" WHERE c.contact_id = ANY ($1) AND NOT EXISTS (SELECT FROM crm.identity i"
	"  WHERE i.contact_id = c.contact_id AND i.kind = 'mobile' AND i.external_id = c.mobile::text)",
	1,
	{ INT8ARRAYOID }
};
static CrmPlan close_merge = {
	"UPDATE crm.merge_ledger SET unmerged_at = $3 WHERE contact_id = $1 AND merge_id = $2",
	3,
	{ INT8OID, INT8OID, TIMESTAMPTZOID }
};
static CrmPlan find_rows = { "SELECT $1 -> $2", 2, { JSONBOID, TEXTOID } };

typedef struct Merge
{
	int64 merge_id;
	int64 survivor;
	int64 other;
	Datum moved;
	Datum other_before; /* an array of one */
} Merge;

static void
run_protected(const char *sql, int nargs, Oid *types, Datum *values)
{
	bool before = crm_facts_may_change;
	int code = 0;

	crm_facts_may_change = true;
	PG_TRY();
	{
		code = SPI_execute_with_args(sql, nargs, types, values, NULL, false, 0);
	}
	PG_FINALLY();
	{
		crm_facts_may_change = before;
	}
	PG_END_TRY();
	if (code < 0)
		elog(ERROR, "SPI_execute_with_args failed: %s", SPI_result_code_string(code));
}

/* The newest merge of the contact that still holds; false if there is none. */
static bool
find_newest(Merge *merge, int64 *into)
{
	Datum value = Int64GetDatum(merge->other);
	bool isnull;

	if (crm_run(&find_merge, &value, NULL) == 0)
		return false;
	merge->merge_id = crm_result_int64(0, 1);
	merge->survivor = crm_result_int64(0, 2);
	*into = crm_result_int64(0, 3);
	merge->moved = crm_result(0, 4, &isnull);
	merge->other_before = crm_result(0, 5, &isnull);
	return true;
}

/* Is it still the one that was found before its survivor was locked? */
static bool
still_newest(void *arg)
{
	const Merge *merge = arg;
	Datum value = Int64GetDatum(merge->other);

	return crm_run(&find_merge, &value, NULL) > 0 && crm_result_int64(0, 1) == merge->merge_id &&
		crm_result_int64(0, 2) == merge->survivor;
}

/* The same with its survivor locked. */
static void
find_and_lock(Merge *merge, int64 other)
{
	Datum value = Int64GetDatum(other);
	int64 into;

	merge->other = other;
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		if (!find_newest(merge, &into))
		{
			bool undone = crm_run(&find_undone, &value, NULL) > 0;

			ereport(
				ERROR,
				(errcode(undone ? ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
								: ERRCODE_FOREIGN_KEY_VIOLATION),
				 undone
					 ? errmsg("merge of contact %lld has been undone already", (long long) other)
					 : errmsg("contact %lld has not been merged into another", (long long) other),
				 errhint(
					 "Give the id of the contact that ended; crm.merge_ledger lists them in column other.")));
		}
		if (crm_contact_try_lock(&merge->survivor, 1, still_newest, merge))
			break;
		crm_check_profiles(&merge->survivor, 1);
	}
	/* what was merged, as it stands under the lock */
	(void) find_newest(merge, &into);

	if (into != merge->survivor)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg(
				 "contact %lld was merged into contact %lld, which has been merged into contact %lld since",
				 (long long) other, (long long) into, (long long) merge->survivor),
			 errhint("Undo the later merge first: SELECT crm.unmerge(%lld).", (long long) into)));
	if (crm_run(&find_contact, &value, NULL) > 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION), errmsg("contact %lld exists", (long long) other),
			 errhint(
				 "Its id was given to a new contact after the merge, so the merge cannot be undone.")));
}

/* Columns that the merge filled and nobody changed since. */
static void
restore_survivor(const Merge *merge)
{
	Oid types[2] = { INT8OID, JSONBOID };
	Datum values[2];
	Datum patch;
	bool isnull;

	values[0] = Int64GetDatum(merge->survivor);
	crm_run(&lock_contact, values, NULL);
	values[1] = Int64GetDatum(merge->merge_id);
	crm_run(&find_patch, values, NULL);
	patch = crm_result(0, 1, &isnull);
	if (isnull)
		return;
	crm_run(&list_patched, &patch, NULL);
	values[1] = patch;
	run_protected(psprintf("UPDATE crm.contact c SET %s"
						   " FROM jsonb_populate_record(NULL::crm.contact, $2) r"
						   " WHERE c.contact_id = $1",
						   crm_result_text(0, 1)),
				  2, types, values);
}

/*
 * The row itself; a trigger opens its profile. The mobile comes last, when the
 * number is the contact's again.
 */
static void
restore_contact(Merge *merge)
{
	Oid type = JSONBOID;
	Oid contact = crm_table_oid("contact");
	char *columns = crm_stored_columns(contact, merge->other_before);

	run_protected(psprintf("INSERT INTO crm.contact (%s) OVERRIDING SYSTEM VALUE SELECT %s"
						   " FROM jsonb_populate_record(NULL::crm.contact, ($1 -> 0) - 'mobile')",
						   columns, columns),
				  1, &type, &merge->other_before);
}

/* What the ledger lists under a name; false if it lists nothing. */
static bool
find_listed(const Merge *merge, const char *label, Datum *rows)
{
	Datum values[2] = { merge->moved, CStringGetTextDatum(label) };
	bool isnull;

	crm_run(&find_rows, values, NULL);
	*rows = crm_result(0, 1, &isnull);
	return !isnull;
}

/* Runs a plan over that. */
static void
run_listed(const Merge *merge, const char *label, CrmPlan *plan, const CrmReferrer *referrer)
{
	Datum values[3] = { Int64GetDatum(merge->survivor), Int64GetDatum(merge->other) };

	if (!find_listed(merge, label, &values[2]))
		return;
	if (referrer != NULL)
		crm_rekey_back(referrer, merge->survivor, merge->other, values[2]);
	else
		crm_run_protected(plan, values, NULL);
}

static void
unmerge(Merge *merge)
{
	int nest_level = crm_plain_output();
	Datum values[3];
	CrmReferrer *referrers;
	int64 contacts[2];
	Datum rows;
	int n;

	crm_scan_flag_lock(&merge->survivor, 1);
	restore_survivor(merge);
	restore_contact(merge);
	referrers = crm_referrers(&n);
	for (int i = 0; i < n; i++)
		run_listed(merge, referrers[i].label, NULL, &referrers[i]);
	run_listed(merge, "*external_ref", &give_references, NULL);
	run_listed(merge, "*identity", &give_identities, NULL);
	run_listed(merge, "*membership", &part_memberships, NULL);
	if (find_listed(merge, "*acquisition", &rows))
		crm_acquisition_swap(merge->survivor, merge->other);
	if (find_listed(merge, "*consent", &rows))
		crm_consent_unmerge(merge->survivor, merge->other, rows);
	crm_journey_unmerge(merge->survivor, merge->other);
	crm_outbox_unmerge(merge->survivor, merge->other,
					   find_listed(merge, "*send_key", &rows) ? &rows : NULL);

	if (find_listed(merge, "*enrolment", &rows))
		crm_journey_reopen(merge->survivor, merge->other, rows);
	if (find_listed(merge, "*refusal", &rows))
		crm_refusals_unmerge(merge->survivor, rows);

	values[0] = Int64GetDatum(merge->survivor);
	values[1] = Int64GetDatum(merge->other);
	crm_run_protected(&give_refunds, values, NULL);
	values[0] = Int64GetDatum(merge->other);
	values[1] = merge->other_before;
	crm_run_protected(&give_mobile, values, NULL);
	contacts[0] = Min(merge->survivor, merge->other);
	contacts[1] = Max(merge->survivor, merge->other);
	values[0] = crm_int64_array(contacts, 2);
	crm_run_protected(&mend_mobiles, values, NULL);
	crm_run(&part_duplicates, values, NULL);
	values[0] = Int64GetDatum(merge->survivor);
	values[1] = Int64GetDatum(merge->merge_id);
	values[2] = TimestampTzGetDatum(crm_now());
	crm_run(&close_merge, values, NULL);
	crm_won_rekeyed(contacts);
	AtEOXact_GUC(true, nest_level);

	crm_scan_count(contacts, 2);
	crm_followers_again(contacts, 2);
	crm_outbox_rekeyed(contacts, 2);
	crm_profile_recompute(contacts, 2, crm_now());
	crm_loyalty_recompute(contacts, 2, crm_now(), "unmerge");
	crm_segments_refresh(contacts, 2, "unmerge", crm_now());
}

Datum
crm_sql_unmerge(PG_FUNCTION_ARGS)
{
	CrmActing acting;
	Merge merge;

	crm_require_argument("unmerge", "other", PG_ARGISNULL(0));
	crm_check_no_journeys_move();
	crm_connect(&acting);
	find_and_lock(&merge, PG_GETARG_INT64(0));
	unmerge(&merge);
	crm_disconnect(&acting);
	PG_RETURN_INT64(merge.other);
}
