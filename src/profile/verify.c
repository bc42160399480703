/*
 * verify.c
 *		Everything derived, recomputed from the facts and compared with what is
 *		stored. One snapshot sees both, so a busy database gives no false alarm.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "journey/definition.h"
#include "profile/history.h"
#include "profile/loyalty.h"
#include "profile/recompute.h"
#include "profile/segment.h"
#include "profile/walk.h"

PG_FUNCTION_INFO_V1(crm_sql_verify);

void (*crm_verify_more)(CrmAddDifference add, void *arg) = NULL;

static CrmPlan next_contacts = {
	"SELECT p.contact_id FROM crm.profile_counter p WHERE $1 IS NULL OR p.contact_id > $1"
	" ORDER BY p.contact_id LIMIT $2",
	2,
	{ INT8OID, INT8OID }
};

/* What needs no walk: one statement, one row a difference. */
static CrmPlan find_differences = {
	"SELECT 'contact without profile', c.contact_id, 'a profile', NULL"
	" FROM crm.contact c WHERE NOT EXISTS"
	" (SELECT FROM crm.profile_counter p WHERE p.contact_id = c.contact_id)"
	" UNION ALL"
	" SELECT 'profile without contact', p.contact_id, NULL, 'a profile'"
	" FROM crm.profile_counter p WHERE NOT EXISTS"
	" (SELECT FROM crm.contact c WHERE c.contact_id = p.contact_id)"
	" UNION ALL"
	" SELECT f.what || ' without contact', f.contact_id, NULL, f.n || ' rows'"
	" FROM (SELECT 'transaction', t.contact_id, count(*) FROM crm.transaction t GROUP BY t.contact_id"
	"  UNION ALL SELECT 'event', e.contact_id, count(*) FROM crm.event e GROUP BY e.contact_id"
	"  UNION ALL SELECT 'scan', s.contact_id, count(*) FROM crm.scan s GROUP BY s.contact_id"
	"  UNION ALL SELECT 'identity', i.contact_id, count(*) FROM crm.identity i GROUP BY i.contact_id"
	"  UNION ALL SELECT 'membership', m.contact_id, count(*) FROM crm.membership m GROUP BY m.contact_id"
	"  UNION ALL SELECT 'award', a.contact_id, count(*) FROM crm.award a GROUP BY a.contact_id"
	"  UNION ALL SELECT 'stage_move', v.contact_id, count(*) FROM crm.stage_move v GROUP BY v.contact_id"
	"  UNION ALL SELECT 'point_entry', p.contact_id, count(*) FROM crm.point_entry p GROUP BY p.contact_id"
	"  UNION ALL SELECT 'tier_change', h.contact_id, count(*) FROM crm.tier_change h GROUP BY h.contact_id"
	"  UNION ALL SELECT 'coupon_grant', g.contact_id, count(*) FROM crm.coupon_grant g GROUP BY g.contact_id"
	"  UNION ALL SELECT 'opening_balance', o.contact_id, count(*) FROM crm.opening_balance o GROUP BY o.contact_id"
	"  UNION ALL SELECT 'acquisition', q.contact_id, count(*) FROM crm.acquisition q GROUP BY q.contact_id"
	" ) AS f(what, contact_id, n)"
	" WHERE NOT EXISTS (SELECT FROM crm.contact c WHERE c.contact_id = f.contact_id)"
	" UNION ALL"
	" SELECT 'contact.mobile', c.contact_id, 'a mobile of the contact in crm.identity',"
	" 'a number that is none of them'"
	" FROM crm.contact c WHERE c.mobile IS NOT NULL AND NOT EXISTS"
	" (SELECT FROM crm.identity i WHERE i.contact_id = c.contact_id AND i.kind = 'mobile'"
	"   AND i.external_id = c.mobile::text)"
	" UNION ALL"
	" SELECT 'first_scan', coalesce(e.contact_id, f.contact_id),"
	" e.scope || ' ' || e.scope_id || ' from ' || e.window_start || ': scan ' || e.scan_id || ' at '"
	" || e.occurred_at,"
	" f.scope || ' ' || f.scope_id || ' from ' || f.window_start || ': scan ' || f.scan_id || ' at '"
	" || f.occurred_at"
	" FROM (SELECT DISTINCT ON (k.contact_id, k.scope, k.scope_id, k.window_start) k.*"
	"        FROM (SELECT s.contact_id, s.scan_id, s.occurred_at, " CRM_SCAN_KEY
	"         FROM crm.scan s" CRM_SCAN_CODE ") k"
	"        ORDER BY k.contact_id, k.scope, k.scope_id, k.window_start, k.occurred_at, k.scan_id) e"
	" FULL JOIN crm.first_scan f ON f.contact_id = e.contact_id AND f.scope = e.scope"
	"  AND f.scope_id = e.scope_id AND f.window_start = e.window_start"
	" WHERE e.scan_id IS DISTINCT FROM f.scan_id OR e.occurred_at IS DISTINCT FROM f.occurred_at"
	" UNION ALL"
	" SELECT 'scan without code', s.contact_id, NULL, count(*) || ' scans of code ' || s.qr_code_id"
	" FROM crm.scan s WHERE NOT EXISTS"
	" (SELECT FROM crm.qr_code q WHERE q.qr_code_id = s.qr_code_id)"
	" GROUP BY s.contact_id, s.qr_code_id"
	" UNION ALL"
	/* over a limit: the scan max_scans places before is less than the period ago */
	" SELECT 'scan_flag ' || coalesce(e.name, f.scan_limit), coalesce(e.contact_id, f.contact_id),"
	" 'scan ' || e.scan_id, 'scan ' || f.scan_id"
	" FROM (SELECT w.* FROM (SELECT l.name, s.contact_id, s.scan_id, s.occurred_at,"
	"         make_interval(secs => extract(epoch FROM l.period)::float8) AS period,"
	"         lag(s.occurred_at, l.max_scans) OVER (PARTITION BY l.name,"
	"          CASE WHEN 'contact' = ANY (l.per) THEN s.contact_id END,"
	"          CASE WHEN 'code' = ANY (l.per) THEN s.qr_code_id END,"
	"          CASE WHEN 'store' = ANY (l.per) THEN q.store_id END"
	"          ORDER BY s.occurred_at, s.scan_id, s.contact_id) AS before"
	"         FROM crm.scan_limit l CROSS JOIN crm.scan s"
	"         JOIN crm.qr_code q ON q.qr_code_id = s.qr_code_id"
	"         WHERE 'code' = ANY (l.per) OR NOT 'store' = ANY (l.per) OR q.store_id IS NOT NULL) w"
	"        WHERE w.before > w.occurred_at - w.period) e"
	" FULL JOIN crm.scan_flag f ON f.contact_id = e.contact_id AND f.scan_id = e.scan_id"
	"  AND f.scan_limit = e.name"
	" WHERE e.scan_id IS NULL OR f.scan_id IS NULL OR f.occurred_at <> e.occurred_at"
	" UNION ALL"
	" SELECT 'acquisition', t.contact_id, 'a source', NULL"
	" FROM (SELECT s.contact_id FROM crm.scan s UNION"
	"  SELECT e.contact_id FROM crm.event e WHERE e.kind = 'follow') t"
	" WHERE NOT EXISTS (SELECT FROM crm.acquisition a WHERE a.contact_id = t.contact_id)"
	" UNION ALL"
	" SELECT 'refunds of order ' || o.transaction_id, o.contact_id, 'at most ' || o.amount,"
	" sum(r.amount)::text"
	" FROM crm.transaction r JOIN crm.transaction o ON o.contact_id = r.contact_id"
	"  AND o.transaction_id = r.refund_of WHERE r.kind = 'refund'"
	" GROUP BY o.contact_id, o.transaction_id, o.amount HAVING sum(r.amount) > o.amount",
	0
};

/* Points by their entries, and coupons by what was granted. */
static CrmPlan find_loyalty_differences = {
	"SELECT 'points in programme ' || coalesce(s.loyalty_program_id, b.loyalty_program_id),"
	" coalesce(s.contact_id, b.contact_id), s.points::text, b.points::text"
	" FROM (SELECT e.contact_id, e.loyalty_program_id, sum(e.points)::bigint AS points"
	"   FROM crm.point_entry e GROUP BY 1, 2) s"
	" FULL JOIN crm.point_balance b ON b.contact_id = s.contact_id"
	"  AND b.loyalty_program_id = s.loyalty_program_id"
	" WHERE s.points IS DISTINCT FROM b.points"
	" UNION ALL"
	" SELECT 'code of coupon_grant ' || g.coupon_grant_id, g.contact_id, 'a code of ' || g.coupon"
	"  || ' of the contact', 'contact ' || coalesce(c.contact_id::text, 'none') || ', coupon '"
	"  || coalesce(c.coupon, 'none')"
	" FROM crm.coupon_grant g LEFT JOIN crm.coupon_code c ON c.code = g.code"
	" WHERE c.contact_id IS DISTINCT FROM g.contact_id OR c.coupon IS DISTINCT FROM g.coupon"
	" UNION ALL"
	" SELECT 'coupon_code of ' || c.coupon, c.contact_id, 'a grant', NULL FROM crm.coupon_code c"
	" WHERE c.contact_id IS NOT NULL AND NOT EXISTS (SELECT FROM crm.coupon_grant g"
	"  WHERE g.contact_id = c.contact_id AND g.code = c.code)"
	" UNION ALL"
	" SELECT 'coupon_counter of ' || n.coupon, NULL, g.granted::text, n.granted::text"
	" FROM crm.coupon_counter n JOIN crm.coupon c ON c.name = n.coupon AND c.version = n.version"
	" CROSS JOIN LATERAL (SELECT count(*) AS granted FROM crm.coupon_grant g"
	"  WHERE g.coupon = n.coupon) g"
	" WHERE n.granted <> g.granted"
	" UNION ALL"
	" SELECT 'coupon_grant ' || d.coupon_grant_id || ' duplicates', d.contact_id,"
	"  'another grant of the contact', 'grant ' || d.duplicate_of"
	" FROM crm.coupon_grant d WHERE d.duplicate_of IS NOT NULL AND NOT EXISTS"
	"  (SELECT FROM crm.coupon_grant g WHERE g.contact_id = d.contact_id"
	"   AND g.coupon_grant_id = d.duplicate_of AND g.coupon = d.coupon"
	"   AND g.once IS NOT DISTINCT FROM d.once)",
	0
};

typedef struct Report
{
	ReturnSetInfo *result;
	int64 contact_id;
} Report;

static void
add_difference(Report *report, const char *check, const char *expected, const char *found)
{
	Datum values[4] = { CStringGetTextDatum(check), Int64GetDatum(report->contact_id),
						expected == NULL ? (Datum) 0 : CStringGetTextDatum(expected),
						found == NULL ? (Datum) 0 : CStringGetTextDatum(found) };
	bool nulls[4] = { false, report->contact_id == 0, expected == NULL, found == NULL };

	tuplestore_putvalues(report->result->setResult, report->result->setDesc, values, nulls);
}

static char *
time_text(TimestampTz at)
{
	return pstrdup(timestamptz_to_str(at));
}

static char *
column_text(CrmProfileColumn column, Datum value, bool isnull)
{
	if (isnull)
		return NULL;
	switch (column)
	{
		case CRM_P_SPEND:
			return DatumGetCString(DirectFunctionCall1(numeric_out, value));
		case CRM_P_STAGE:
		case CRM_P_RANKED_STAGE:
			return TextDatumGetCString(value);
		case CRM_P_STAGE_MANUAL:
			return DatumGetBool(value) ? "true" : "false";
		case CRM_P_CONTACT_ID:
		case CRM_P_ORDERS:
		case CRM_P_REFUNDS:
		case CRM_P_SCANS:
		case CRM_P_RAW_SCANS:
		case CRM_P_EVENTS:
			return psprintf("%lld", (long long) DatumGetInt64(value));
		default:
			return time_text(DatumGetTimestampTz(value));
	}
}

static void
verify_profile(Report *report, const CrmHistory *history, const CrmWalk *walk)
{
	const char *stage = walk->stage < 0 ? NULL : walk->definitions->stages[walk->stage].stage;

	for (int column = 0; column < CRM_PROFILE_COLUMNS; column++)
		if (crm_profile_differs(history, walk, column))
			add_difference(report, psprintf("profile_counter.%s", crm_profile_column_names[column]),
						   column_text(column, walk->values[column], walk->nulls[column]),
						   column_text(column, history->values[column], history->nulls[column]));
	if ((stage == NULL) != (history->contact_stage == NULL) ||
		(stage != NULL && strcmp(stage, history->contact_stage) != 0))
		add_difference(report, "contact.stage", stage, history->contact_stage);
}

static char *
award_name(const char *achievement, Datum threshold)
{
	return psprintf("award %s %s", achievement,
					DatumGetCString(DirectFunctionCall1(numeric_out, threshold)));
}

static void
verify_awards(Report *report, CrmHistory *history, const CrmWalk *walk)
{
	const CrmDefinitions *definitions = walk->definitions;

	for (int i = 0; i < walk->nawards; i++)
	{
		const CrmAwardStep *step = &walk->awards[i];
		const CrmAchievement *achievement = &definitions->achievements[step->achievement];
		CrmStoredAward *award = crm_history_award(history, achievement, step->threshold);
		char *expected = psprintf("%s by %lld", time_text(step->awarded_at),
								  (long long) step->source_id);

		if (award == NULL || award->revoked)
			add_difference(report,
						   award_name(achievement->name, achievement->thresholds[step->threshold]),
						   expected, award == NULL ? NULL : "revoked");
		else if (achievement->revocable &&
				 (award->awarded_at != step->awarded_at || award->source_id != step->source_id))
			add_difference(report, award_name(achievement->name, award->threshold), expected,
						   psprintf("%s by %lld", time_text(award->awarded_at),
									(long long) award->source_id));
		if (award != NULL)
			award->found = true;
	}
	for (int i = 0; i < history->nawards; i++)
	{
		const CrmStoredAward *award = &history->awards[i];

		if (!award->found && !award->revoked && crm_award_is_revocable(definitions, award))
			add_difference(report, award_name(award->achievement, award->threshold), NULL,
						   time_text(award->awarded_at));
	}
}

static void
verify_moves(Report *report, const CrmHistory *history, const CrmWalk *walk)
{
	int stored = 0;

	for (int i = 0; i < walk->nmoves || stored < history->nmoves;)
	{
		const CrmStageStep *step = i < walk->nmoves ? &walk->moves[i] : NULL;
		const CrmStoredMove *move = stored < history->nmoves ? &history->moves[stored] : NULL;
		char *expected = NULL;
		char *found = NULL;
		TimestampTz since;

		if (step != NULL && (move == NULL || step->since <= move->since))
			since = step->since;
		else
			since = move->since;
		if (step != NULL && step->since == since)
		{
			expected = psprintf("%s (%s)", walk->definitions->stages[step->stage].stage,
								step->reason);
			i++;
		}
		if (move != NULL && move->since == since)
		{
			found = psprintf("%s (%s)", move->stage, move->reason);
			stored++;
		}
		if (expected == NULL || found == NULL || strcmp(expected, found) != 0)
			add_difference(report, psprintf("stage_move %s", time_text(since)), expected, found);
	}
}

/* A moment may be kept that is too early, but none that is too late. */
static void
verify_due(Report *report, CrmWalk *walk)
{
	static CrmPlan find_due = { "SELECT d.due_at FROM crm.stage_due d WHERE d.contact_id = $1",
								1,
								{ INT8OID } };
	Datum contact = Int64GetDatum(report->contact_id);
	TimestampTz kept = DT_NOEND;
	TimestampTz settled_at = DatumGetTimestampTz(walk->values[CRM_P_SETTLED_AT]);
	bool isnull;

	if (!walk->definitions->stages_read_time)
		return;
	if (crm_read(&find_due, &contact, NULL) > 0)
		kept = DatumGetTimestampTz(crm_result(0, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	/* looks that change nothing are not kept: what counts is the first move */
	crm_walk_advance(walk, Min(kept - 1, crm_now()));
	if (DatumGetTimestampTz(walk->values[CRM_P_SETTLED_AT]) != settled_at)
		add_difference(report, "stage_due",
					   time_text(DatumGetTimestampTz(walk->values[CRM_P_SETTLED_AT])),
					   kept == DT_NOEND ? NULL : time_text(kept));
}

static void
add_broken_rule(void *arg, const char *table, const char *name, const char *why)
{
	Report *report = arg;

	report->contact_id = 0;
	add_difference(report, psprintf("rule of %s %s", table, name), "a rule that compiles", why);
}

static void
add_contact_difference(void *arg, int64 contact_id, const char *check, const char *expected,
					   const char *found)
{
	Report *report = arg;

	report->contact_id = contact_id;
	add_difference(report, check, expected, found);
}

static void
verify_histories(Report *report)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm verify",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	int64 contacts[CRM_HISTORY_CHUNK];
	int64 last = 0;
	bool first = true;

	for (;;)
	{
		Datum values[2] = { Int64GetDatum(last), Int64GetDatum(CRM_HISTORY_CHUNK) };
		uint64 n = crm_read(&next_contacts, values, first ? "n " : NULL);
		const CrmDefinitions *definitions;
		CrmHistory *histories;
		CrmWalk *walk;
		int nhistories;
		int nest_level;

		if (n == 0)
			break;
		for (uint64 row = 0; row < n; row++)
			contacts[row] = crm_result_int64(row, 1);
		SPI_freetuptable(SPI_tuptable);
		last = contacts[n - 1];
		first = false;

		definitions = crm_definitions();
		walk = crm_walk_create(definitions);
		histories = crm_history_load(definitions, contacts, n, true, &nhistories);
		nest_level = crm_definitions_enter(definitions);
		for (int i = 0; i < nhistories; i++)
		{
			CHECK_FOR_INTERRUPTS();
			report->contact_id = histories[i].contact_id;
			crm_history_walk(&histories[i], walk, NULL, 0, 0);
			verify_profile(report, &histories[i], walk);
			verify_awards(report, &histories[i], walk);
			verify_moves(report, &histories[i], walk);
			verify_due(report, walk);
		}
		crm_definitions_leave(nest_level);
		crm_points_verify(contacts, n, add_contact_difference, report);
		crm_tiers_verify(contacts, n, add_contact_difference, report);
		crm_segments_verify(contacts, n, add_contact_difference, report);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
}

static void
add_found(Report *report, CrmPlan *plan)
{
	uint64 n = crm_read(plan, NULL, NULL);

	for (uint64 row = 0; row < n; row++)
	{
		report->contact_id = crm_result_int64(row, 2);
		add_difference(report, crm_result_text(row, 1), crm_result_text(row, 3),
					   crm_result_text(row, 4));
	}
	SPI_freetuptable(SPI_tuptable);
}

Datum
crm_sql_verify(PG_FUNCTION_ARGS)
{
	Report report = { 0 };
	CrmActing acting;

	InitMaterializedSRF(fcinfo, 0);
	report.result = (ReturnSetInfo *) fcinfo->resultinfo;
	crm_connect(&acting);
	add_found(&report, &find_differences);
	add_found(&report, &find_loyalty_differences);
	crm_segments_verify_all(add_contact_difference, &report);
	verify_histories(&report);
	if (crm_verify_more != NULL)
		crm_verify_more(add_contact_difference, &report);
	crm_definitions_broken(add_broken_rule, &report);
	crm_journeys_broken(add_broken_rule, &report);
	crm_disconnect(&acting);
	return (Datum) 0;
}
