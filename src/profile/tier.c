/*
 * tier.c
 *		The tiers of members. A tier is reached when what was earned in its period
 *		reaches its threshold; time alone ends it, at a moment that is known
 *		beforehand and kept with the membership.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "profile/history.h"
#include "profile/loyalty.h"

/*
 * For members (m), each as of a moment and of what had happened until another:
 * the highest tier that is reached, and when it ends by itself. What was earned
 * ends to count one period later; a refund ends with its order. Peers of the
 * window, that is what ends in one moment, end together.
 */
#define TIERS(members)                                                                            \
	"SELECT m.contact_id, m.loyalty_program_id, m.tier AS old_tier, m.tier_due_at AS old_due_at," \
	" b.tier, b.due_at, m.as_of, m.cause FROM (" members ") m"                                    \
	" JOIN crm.loyalty_program p ON p.loyalty_program_id = m.loyalty_program_id"                  \
	" LEFT JOIN LATERAL (SELECT t.tier, v.due_at FROM crm.tier t"                                 \
	"  CROSS JOIN LATERAL (SELECT coalesce(sum(w.value), 0) AS total, min(w.ends_at)"             \
	"    FILTER (WHERE w.ends_at < 'infinity' AND w.remaining < t.threshold) AS due_at"           \
	"   FROM (SELECT f.value, f.ends_at, sum(f.value) OVER ()"                                    \
	"     - sum(f.value) OVER (ORDER BY f.ends_at) AS remaining"                                  \
	"    FROM (SELECT s.value, CASE WHEN t.period IS NULL THEN 'infinity'::timestamptz"           \
	"      ELSE timezone(crm.default_time_zone(),"                                                \
	"       timezone(crm.default_time_zone(), s.at) + t.period) END AS ends_at"                   \
	"     FROM (SELECT e.source_at, e.points::numeric FROM crm.point_entry e"                     \
	"       WHERE t.measure = 'points' AND e.contact_id = m.contact_id"                           \
	"       AND e.loyalty_program_id = m.loyalty_program_id AND e.kind <> 'spent'"                \
	"      UNION ALL SELECT o.occurred_at, o.amount - coalesce(r.refunded, 0)"                    \
	"       FROM crm.transaction o LEFT JOIN (SELECT r.refund_of, sum(r.amount) AS refunded"      \
	"         FROM crm.transaction r WHERE r.contact_id = m.contact_id AND r.kind = 'refund'"     \
	"         GROUP BY 1) r ON r.refund_of = o.transaction_id"                                    \
	"       WHERE t.measure = 'spend' AND o.contact_id = m.contact_id AND o.kind = 'purchase'"    \
	"       AND o.currency = crm.default_currency() AND o.occurred_at >= m.joined_at"             \
	"       AND (m.left_at IS NULL OR o.occurred_at < m.left_at)) AS s(at, value)"                \
	"     WHERE s.at <= m.until) f"                                                               \
	"    WHERE f.ends_at > m.as_of) w) v"                                                         \
	"  WHERE t.program = p.name AND v.total >= t.threshold"                                       \
	"   AND (m.left_at IS NULL OR m.left_at > m.as_of)"                                           \
	"  ORDER BY t.rank DESC, t.threshold DESC, t.tier COLLATE \"C\" LIMIT 1) b ON true"

/*
 * Stores them, and a row for each change; how many members there were. The array
 * of contacts stands beside the joins for the sake of the index.
 */
#define MOVES(members, reason, now)                                                                        \
	"WITH n AS (" TIERS(                                                                                   \
		members) "), u AS (UPDATE crm.membership m SET tier = n.tier,"                                     \
				 "  tier_since = CASE WHEN n.tier IS DISTINCT FROM n.old_tier THEN n.cause"                \
				 "   ELSE m.tier_since END, tier_due_at = n.due_at, tier_checked_at = n.as_of"             \
				 "  FROM n WHERE m.contact_id = ANY ($1) AND m.contact_id = n.contact_id"                  \
				 "  AND m.loyalty_program_id = n.loyalty_program_id"                                       \
				 "  AND (n.tier IS DISTINCT FROM n.old_tier OR n.due_at IS DISTINCT FROM n.old_due_at)),"  \
				 " c AS (INSERT INTO crm.tier_change (contact_id, loyalty_program_id, old_tier, new_tier," \
				 "   occurred_at, recorded_at, reason)"                                                    \
				 "  SELECT n.contact_id, n.loyalty_program_id, n.old_tier, n.tier, n.cause, " now          \
				 ", " reason                                                                               \
				 "  FROM n WHERE n.tier IS DISTINCT FROM n.old_tier ORDER BY n.cause, n.contact_id)"       \
				 " SELECT count(*) FROM n"

/* A tier that ended before what is new now is ended first, as of its own moment. */
static CrmPlan end_due = {
	MOVES("SELECT d.*, d.tier_due_at AS as_of, d.tier_due_at AS until, d.tier_due_at AS cause"
		  " FROM crm.membership d WHERE d.contact_id = ANY ($1) AND d.tier_due_at <= $2",
		  "'period'", "$3"),
	3,
	{ INT8ARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID }
};
static CrmPlan move_tiers = {
	MOVES("SELECT d.*, greatest($3, d.tier_checked_at) AS as_of, 'infinity'::timestamptz AS until,"
		  " greatest(u.cause, d.tier_since, d.joined_at) AS cause"
		  " FROM unnest($1, $2) AS u(contact_id, cause)"
		  " JOIN crm.membership d ON d.contact_id = u.contact_id AND d.contact_id = ANY ($1)",
		  "$4", "$3"),
	4,
	{ INT8ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZOID, TEXTOID }
};

/* Members whose time is over are as they are until that is done. */
static CrmPlan find_differences = {
	"SELECT n.contact_id, n.tier, n.old_tier, n.due_at, n.old_due_at, n.loyalty_program_id FROM (" TIERS(
		"SELECT d.*, greatest($2, d.tier_checked_at) AS as_of, 'infinity'::timestamptz AS until,"
		" $2 AS cause FROM crm.membership d WHERE d.contact_id = ANY ($1)"
		" AND (d.tier_due_at IS NULL OR d.tier_due_at > greatest($2, d.tier_checked_at))") ") n WHERE n.tier IS DISTINCT FROM n.old_tier OR n.due_at IS DISTINCT FROM n.old_due_at"
																						   " ORDER BY n.contact_id, n.loyalty_program_id",
	2,
	{ INT8ARRAYOID, TIMESTAMPTZOID }
};

/* Cheap, as it is asked at each order, and without LIMIT, which would cost the index. */
static CrmPlan is_due = {
	"SELECT FROM crm.membership d WHERE d.contact_id = ANY ($1) AND d.tier_due_at <= $2",
	2,
	{ INT8ARRAYOID, TIMESTAMPTZOID }
};
static CrmPlan find_due = {
	"SELECT DISTINCT m.contact_id FROM crm.membership m"
	" WHERE m.contact_id = ANY ($1) AND m.tier_due_at <= $2 ORDER BY m.contact_id",
	2,
	{ INT8ARRAYOID, TIMESTAMPTZOID }
};

/* contacts whose tiers end together */
#define BATCH 1000

static void
end_tiers(Datum contacts, TimestampTz as_of)
{
	Datum values[3] = { contacts, TimestampTzGetDatum(as_of), TimestampTzGetDatum(crm_now()) };

	while (crm_run(&is_due, values, NULL) > 0)
	{
		CHECK_FOR_INTERRUPTS();
		crm_run(&end_due, values, NULL);
	}
}

void
crm_tiers_settle(const int64 *contacts, const TimestampTz *causes, int ncontacts,
				 const char *reason)
{
	Datum values[4];
	CrmColumn times;

	values[0] = crm_int64_array(contacts, ncontacts);
	end_tiers(values[0], crm_now());
	crm_column_init(&times, TIMESTAMPTZOID);
	for (int i = 0; i < ncontacts; i++)
		crm_column_add(&times, TimestampTzGetDatum(causes[i]), false);
	values[1] = crm_column_array(&times);
	values[2] = TimestampTzGetDatum(crm_now());
	values[3] = CStringGetTextDatum(reason);
	crm_run(&move_tiers, values, NULL);
}

void
crm_tiers_due(const int64 *contacts, int ncontacts, TimestampTz as_of)
{
	Datum values[2] = { crm_int64_array(contacts, ncontacts), TimestampTzGetDatum(as_of) };
	CrmActing acting;
	int64 *due;
	int ndue;

	crm_connect(&acting);
	ndue = crm_run(&find_due, values, NULL);
	due = palloc_array(int64, Max(ndue, 1));
	for (int row = 0; row < ndue; row++)
		due[row] = crm_result_int64(row, 1);
	SPI_freetuptable(SPI_tuptable);
	for (int start = 0; start < ndue; start += BATCH)
		end_tiers(crm_int64_array(due + start, Min(BATCH, ndue - start)), as_of);
	crm_disconnect(&acting);
}

static char *
tier_text(uint64 row, int tier, int due_at)
{
	char *name = crm_result_text(row, tier);
	bool isnull;
	Datum due = crm_result(row, due_at, &isnull);

	if (name == NULL)
		return NULL;
	return isnull ? name
				  : psprintf("%s until %s", name, timestamptz_to_str(DatumGetTimestampTz(due)));
}

void
crm_tiers_verify(const int64 *contacts, int ncontacts, CrmDifference differs, void *arg)
{
	Datum values[2] = { crm_int64_array(contacts, ncontacts), TimestampTzGetDatum(crm_now()) };
	uint64 n = crm_read(&find_differences, values, NULL);

	for (uint64 row = 0; row < n; row++)
		differs(arg, crm_result_int64(row, 1),
				psprintf("tier in programme %lld", (long long) crm_result_int64(row, 6)),
				tier_text(row, 2, 4), tier_text(row, 3, 5));
	SPI_freetuptable(SPI_tuptable);
}
