/*
 * won.c
 *		Contacts won, counted by day and by what won them, with what they have
 *		bought to date. Whoever changes a contact's source, orders or spend names
 *		the contact in crm.won_tail, in the same transaction. So what readers count
 *		is at any moment what was added up, less what it has of contacts in the
 *		tail, and what these are now. No number is carried from one to the other,
 *		and so it does not matter who changed what in which order.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/sequence.h"

#include "base/db.h"
#include "base/guc.h"
#include "base/roll_up.h"
#include "base/table.h"
#include "profile/won.h"

#define KEY "zone, unit, day, source, campaign, qr_code_id, store_id, associate_id"
/* of a contact */
#define WHERE_WON "day, source, campaign, qr_code_id, store_id, associate_id"

/* What the rows t add to each key. */
#define ADD_TO_TOTALS                                                                               \
	" INSERT INTO crm.won_total AS d (" KEY ", won, buyers, revenue)"                               \
	" SELECT z.zone, u.unit, u.day, t.source, t.campaign, t.qr_code_id, t.store_id,"                \
	"  t.associate_id, sum(t.won), sum(t.buyers), sum(t.revenue) FROM t"                            \
	" CROSS JOIN (SELECT crm.default_time_zone() AS zone OFFSET 0) z"                               \
	" CROSS JOIN LATERAL (VALUES ('day', t.day),"                                                   \
	"  ('month', date_trunc('month', t.day::timestamp)::date)) AS u(unit, day)"                     \
	" GROUP BY 1, 2, 3, 4, 5, 6, 7, 8"                                                              \
	" HAVING (sum(t.won), sum(t.buyers), sum(t.revenue)) IS DISTINCT FROM (0::numeric, 0::numeric," \
	"  0::numeric) ON CONFLICT (" KEY ") DO UPDATE"                                                 \
	" SET won = d.won + EXCLUDED.won, buyers = d.buyers + EXCLUDED.buyers,"                         \
	"  revenue = d.revenue + EXCLUDED.revenue"

static CrmPlan insert_changed = { "INSERT INTO crm.won_tail (contact_id) SELECT unnest($1)",
								  1,
								  { INT8ARRAYOID } };
static CrmPlan find_other = {
	"SELECT FROM (SELECT min(w.zone) AS first, max(w.zone) AS last FROM crm.won_total w) w"
	" WHERE w.first <> crm.default_time_zone() OR w.last <> crm.default_time_zone()",
	0
};
/* what is added up; only who adds up writes there */
static CrmPlan clear = { "WITH k AS (DELETE FROM crm.won_counted) DELETE FROM crm.won_total", 0 };
static CrmPlan forget_tail = { "DELETE FROM crm.won_tail", 0 };
/* all of it out of the rows, and away with the tail, both as of one moment */
static CrmPlan count_all = { "WITH g AS (DELETE FROM crm.won_tail),"
							 " n AS MATERIALIZED (SELECT * FROM crm.won_contact),"
							 " k AS (INSERT INTO crm.won_counted (contact_id, " WHERE_WON
							 ", buyers, revenue)"
							 "  SELECT n.contact_id, " WHERE_WON ", n.buyers, n.revenue FROM n),"
							 " t AS (SELECT " WHERE_WON
							 ", 1 AS won, n.buyers, n.revenue FROM n)" ADD_TO_TOTALS,
							 0 };
static CrmPlan add_up = {
	"WITH c AS (DELETE FROM crm.won_tail RETURNING contact_id),"
	" c1 AS MATERIALIZED (SELECT DISTINCT contact_id FROM c),"
	" o AS MATERIALIZED (SELECT k.* FROM c1 CROSS JOIN LATERAL"
	"  (SELECT k.* FROM crm.won_counted k WHERE k.contact_id = c1.contact_id OFFSET 0) k),"
	" n AS MATERIALIZED (SELECT w.* FROM c1 CROSS JOIN LATERAL"
	"  (SELECT w.* FROM crm.won_contact w WHERE w.contact_id = c1.contact_id OFFSET 0) w),"
	" k AS (INSERT INTO crm.won_counted (contact_id, " WHERE_WON ", buyers, revenue)"
	"  SELECT n.contact_id, " WHERE_WON ", n.buyers, n.revenue FROM n"
	"  ON CONFLICT (contact_id) DO UPDATE SET day = EXCLUDED.day, source = EXCLUDED.source,"
	"  campaign = EXCLUDED.campaign, qr_code_id = EXCLUDED.qr_code_id,"
	"  store_id = EXCLUDED.store_id, associate_id = EXCLUDED.associate_id,"
	"  buyers = EXCLUDED.buyers, revenue = EXCLUDED.revenue),"
	" g AS (DELETE FROM crm.won_counted k USING o WHERE k.contact_id = o.contact_id"
	"  AND NOT EXISTS (SELECT FROM n WHERE n.contact_id = o.contact_id)),"
	" t AS (SELECT " WHERE_WON ", 1 AS won, n.buyers, n.revenue FROM n"
	"  UNION ALL SELECT " WHERE_WON ", -1, -o.buyers, -o.revenue FROM o)" ADD_TO_TOTALS,
	0
};

void
crm_won_init(CrmWon *won)
{
	memset(won, 0, sizeof(*won));
	won->kept = crm_roll_ups_kept();
	won->context = CurrentMemoryContext;
}

void
crm_won_changed(CrmWon *won, int64 contact_id)
{
	if (!won->kept)
		return;
	if (won->n == won->size)
	{
		won->size = won->size == 0 ? 8 : won->size * 2;
		won->contacts = won->contacts == NULL
			? MemoryContextAlloc(won->context, sizeof(int64) * won->size)
			: repalloc_huge(won->contacts, sizeof(int64) * won->size);
	}
	won->contacts[won->n++] = contact_id;
}

/* Without the executor; false where that would pass over something. */
static bool
write_directly(const CrmWon *won)
{
	static const char *const names[] = { "won_tail_id", "contact_id" };
	static const bool nulls[lengthof(names)] = { false, false };
	CrmTarget *target;
	Oid sequence;

	if (!crm_guc_direct_access)
		return false;
	target = crm_target_open("won_tail", names, lengthof(names), false);
	if (target == NULL)
		return false;
	target->strict = true;
	sequence = crm_table_oid("won_tail_won_tail_id_seq");
	for (int64 i = 0; i < won->n; i++)
	{
		Datum values[lengthof(names)] = { Int64GetDatum(nextval_internal(sequence, false)),
										  Int64GetDatum(won->contacts[i]) };

		crm_target_insert(target, values, nulls);
	}
	crm_target_flush(target);
	crm_target_close(target);
	return true;
}

void
crm_won_write(const CrmWon *won)
{
	CrmActing acting;
	Datum value;

	if (won->n == 0 || write_directly(won))
		return;
	crm_connect(&acting);
	value = crm_int64_array(won->contacts, won->n);
	crm_run(&insert_changed, &value, NULL);
	crm_disconnect(&acting);
}

void
crm_won_rekeyed(const int64 *contacts)
{
	CrmWon won;

	crm_won_init(&won);
	crm_won_changed(&won, contacts[0]);
	crm_won_changed(&won, contacts[1]);
	crm_won_write(&won);
}

uint64
crm_won_add_up(bool again)
{
	if (!again && crm_run(&find_other, NULL, NULL) == 0)
		return crm_run(&add_up, NULL, NULL);
	crm_run(&clear, NULL, NULL);
	return crm_run(&count_all, NULL, NULL);
}

void
crm_won_forget(void)
{
	crm_run(&clear, NULL, NULL);
	crm_run(&forget_tail, NULL, NULL);
}

/* What the contacts come to, and what is counted; and days against months. */
void
crm_won_verify(CrmAddDifference add, void *arg)
{
#define NUMBERS(rows)                                                                  \
	"format('%s, %s of them bought for %s', coalesce(" rows ".won, 0), coalesce(" rows \
	".buyers, 0),"                                                                     \
	" coalesce(" rows ".revenue, 0))"
/* as text, in which NULL is equal to itself and to nothing else */
#define KEY_OF(rows, day)                                                                  \
	"ROW(" rows "." day ", " rows ".source, " rows ".campaign, " rows ".qr_code_id, " rows \
	".store_id, " rows ".associate_id)::text"
	static CrmPlan compare = {
		"SELECT 'won_count of ' || coalesce(x.source, c.source) || ' on ' || coalesce(x.day, c.day)"
		" || coalesce(' by code ' || coalesce(x.qr_code_id, c.qr_code_id), ''),"
		" " NUMBERS("x") ", " NUMBERS(
			"c") " FROM (SELECT " WHERE_WON
				 ", count(*) AS won, sum(buyers) AS buyers, sum(revenue) AS revenue"
				 "  FROM crm.won_contact GROUP BY " WHERE_WON ") x"
				 " FULL JOIN crm.won_count c ON " KEY_OF("c", "day") " = " KEY_OF(
					 "x",
					 "day") " WHERE (x.won, x.buyers, x.revenue) IS DISTINCT FROM (c.won, c.buyers::numeric, c.revenue)",
		0
	};
	static CrmPlan compare_months = {
		"SELECT 'won_total of ' || coalesce(d.source, m.source) || ' in '"
		" || to_char(coalesce(d.month, m.day), 'YYYY-MM'), " NUMBERS("d") ", " NUMBERS(
			"m") " FROM (SELECT zone, date_trunc('month', day::timestamp)::date AS month, source, campaign,"
				 "  qr_code_id, store_id, associate_id, sum(won) AS won, sum(buyers) AS buyers,"
				 "  sum(revenue) AS revenue FROM crm.won_total WHERE unit = 'day'"
				 "  GROUP BY 1, 2, 3, 4, 5, 6, 7) d"
				 " FULL JOIN (SELECT * FROM crm.won_total WHERE unit = 'month') m"
				 "  ON m.zone = d.zone AND " KEY_OF("m", "day") " = " KEY_OF(
					 "d",
					 "month") " WHERE (coalesce(d.won, 0), coalesce(d.buyers, 0), coalesce(d.revenue, 0)) IS DISTINCT FROM"
							  "  (coalesce(m.won, 0)::numeric, coalesce(m.buyers, 0)::numeric, coalesce(m.revenue, 0))",
		0
	};
	CrmPlan *plans[] = { &compare, &compare_months };

	for (int i = 0; i < lengthof(plans); i++)
	{
		uint64 n = crm_read(plans[i], NULL, NULL);

		for (uint64 row = 0; row < n; row++)
			add(arg, 0, crm_result_text(row, 1), crm_result_text(row, 2), crm_result_text(row, 3));
		SPI_freetuptable(SPI_tuptable);
	}
}
