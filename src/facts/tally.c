/*
 * tally.c
 *		Facts counted by day, kind, account, code, shop and currency, in the
 *		transaction that records them: so what is counted is what others see, at any
 *		moment and after any crash, however long a transaction stays open. A late fact
 *		is counted on the day on which it happened, a refund on that of its order.
 *		Merges change none of it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/install.h"
#include "base/table.h"
#include "facts/tally.h"

PG_FUNCTION_INFO_V1(crm_sql_roll_up);

#define COUNTED                                                                               \
	"INSERT INTO crm.fact_tail (zone, day, kind, account_id, qr_code_id, store_id, currency," \
	" facts, amount) SELECT z.zone, timezone(z.zone, f.at)::date, f.kind, f.account_id,"      \
	" f.qr_code_id, f.store_id, f.currency, "
#define OF_ZONE " CROSS JOIN (SELECT crm.default_time_zone() AS zone) z"

static CrmPlan count_one = {
	COUNTED "1, f.amount FROM (VALUES ($1, $2, $3, $4, $5, $6, $7))"
			" AS f(kind, at, account_id, qr_code_id, store_id, currency, amount)" OF_ZONE,
	CRM_TALLY_COLUMNS,
	{ TEXTOID, TIMESTAMPTZOID, INT8OID, INT8OID, INT8OID, TEXTOID, NUMERICOID },
	.always_generic = true
};
static CrmPlan count_many = {
	COUNTED "count(*), sum(f.amount) FROM unnest($1, $2, $3, $4, $5, $6, $7)"
			" AS f(kind, at, account_id, qr_code_id, store_id, currency, amount)" OF_ZONE
			" GROUP BY 1, 2, 3, 4, 5, 6, 7",
	CRM_TALLY_COLUMNS,
	{ TEXTARRAYOID, TIMESTAMPTZARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID,
	  NUMERICARRAYOID }
};
/* An order is void once its refunds, which never exceed it, come to its amount. */
static CrmPlan count_refunds = {
	"INSERT INTO crm.fact_tail (zone, day, kind, store_id, currency, refunded, voided)"
	" SELECT z.zone, timezone(z.zone, o.occurred_at)::date, 'purchase', o.store_id, o.currency,"
	" n.amount, ((SELECT sum(a.amount) FROM crm.transaction a WHERE a.contact_id = o.contact_id"
	"  AND a.kind = 'refund' AND a.refund_of = o.transaction_id) = o.amount)::integer"
	" FROM (SELECT r.contact_id, r.refund_of, sum(r.amount) AS amount"
	"  FROM unnest($1, $2) AS t(contact_id, transaction_id) JOIN crm.transaction r"
	"  ON r.contact_id = t.contact_id AND r.transaction_id = t.transaction_id GROUP BY 1, 2) n"
	" JOIN crm.transaction o ON o.contact_id = n.contact_id AND o.transaction_id = n.refund_of" OF_ZONE,
	2,
	{ INT8ARRAYOID, INT8ARRAYOID }
};

void
crm_tally_init(CrmTally *tally)
{
	static const Oid types[CRM_TALLY_COLUMNS] = { TEXTOID, TIMESTAMPTZOID, INT8OID,   INT8OID,
												  INT8OID, TEXTOID,        NUMERICOID };

	memset(tally, 0, sizeof(*tally));
	for (int i = 0; i < CRM_TALLY_COLUMNS; i++)
		crm_column_init(&tally->columns[i], types[i]);
}

/* Rows that follow each other mostly have the same few names. */
static Datum
text_of(CrmTally *tally, const char *name)
{
	int place;

	for (int i = 0; i < Min(tally->nnames, CRM_TALLY_NAMES); i++)
		if (strcmp(tally->names[i], name) == 0)
			return tally->texts[i];
	place = tally->nnames++ % CRM_TALLY_NAMES;
	tally->names[place] = pstrdup(name);
	tally->texts[place] = CStringGetTextDatum(name);
	return tally->texts[place];
}

void
crm_tally_add(CrmTally *tally, const CrmTallied *fact)
{
	CrmColumn *columns = tally->columns;
	bool no_amount = fact->currency == NULL;

	crm_column_add(&columns[0], text_of(tally, fact->kind), false);
	crm_column_add(&columns[1], TimestampTzGetDatum(fact->occurred_at), false);
	crm_column_add(&columns[2], Int64GetDatum(fact->account_id), fact->account_id == 0);
	crm_column_add(&columns[3], Int64GetDatum(fact->qr_code_id), fact->qr_code_id == 0);
	crm_column_add(&columns[4], Int64GetDatum(fact->store_id), fact->store_id == 0);
	crm_column_add(&columns[5], no_amount ? (Datum) 0 : text_of(tally, fact->currency), no_amount);
	crm_column_add(&columns[6], fact->amount, no_amount);
}

void
crm_tally_write(CrmTally *tally)
{
	CrmActing acting;
	Datum values[CRM_TALLY_COLUMNS];
	char nulls[CRM_TALLY_COLUMNS + 1] = { 0 };
	int n = tally->columns[0].n;

	if (n == 0)
		return;
	crm_connect(&acting);
	for (int i = 0; i < CRM_TALLY_COLUMNS; i++)
	{
		const CrmColumn *column = &tally->columns[i];

		nulls[i] = n == 1 && column->nulls[0] ? 'n' : ' ';
		values[i] = n == 1 ? column->values[0] : crm_column_array(&tally->columns[i]);
	}
	crm_run(n == 1 ? &count_one : &count_many, values, nulls);
	crm_disconnect(&acting);
}

void
crm_tally_refunds(Datum contacts, Datum refunds)
{
	Datum values[2] = { contacts, refunds };

	crm_run(&count_refunds, values, NULL);
}

/*
 * The one who adds up is alone, as what he has moved must not be seen by another in
 * both places.
 */
static void
lock_roll_up(void)
{
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("roll_up() needs isolation level READ COMMITTED"),
				 errhint("Call it in a transaction of its own.")));
	LockRelationOid(crm_table_oid("fact_day"), ShareRowExclusiveLock);
}

Datum
crm_sql_roll_up(PG_FUNCTION_ARGS)
{
	/* what is of another zone is counted again, and goes where what is new goes */
	static CrmPlan find_other = {
		"SELECT FROM crm.fact_day d WHERE d.zone <> crm.default_time_zone()"
		" UNION ALL SELECT FROM crm.fact_tail t WHERE t.zone <> crm.default_time_zone() LIMIT 1",
		0
	};
	static CrmPlan count_again = {
		"WITH d AS (DELETE FROM crm.fact_day), t AS (DELETE FROM crm.fact_tail)"
		" INSERT INTO crm.fact_tail (zone, day, kind, account_id, qr_code_id, store_id, currency,"
		" facts, voided, amount, refunded) SELECT crm.default_time_zone(), x.day, x.kind,"
		" x.account_id, x.qr_code_id, x.store_id, x.currency, x.facts, x.voided, x.amount,"
		" x.refunded FROM crm.fact_exact x",
		0
	};
	static CrmPlan add_up = {
		"WITH t AS (DELETE FROM crm.fact_tail RETURNING *)"
		" INSERT INTO crm.fact_day AS d (zone, day, kind, account_id, qr_code_id, store_id,"
		" currency, facts, voided, amount, refunded)"
		" SELECT t.zone, t.day, t.kind, t.account_id, t.qr_code_id, t.store_id, t.currency,"
		" sum(t.facts), sum(t.voided), sum(t.amount), sum(t.refunded) FROM t"
		" GROUP BY 1, 2, 3, 4, 5, 6, 7"
		" ON CONFLICT (zone, day, kind, account_id, qr_code_id, store_id, currency) DO UPDATE"
		" SET facts = d.facts + EXCLUDED.facts, voided = d.voided + EXCLUDED.voided,"
		" amount = coalesce(d.amount + EXCLUDED.amount, d.amount, EXCLUDED.amount),"
		" refunded = coalesce(d.refunded + EXCLUDED.refunded, d.refunded, EXCLUDED.refunded)",
		0
	};
	bool again = !PG_ARGISNULL(0) && PG_GETARG_BOOL(0);
	CrmActing acting;
	uint64 n;

	crm_require_installed();
	crm_connect(&acting);
	lock_roll_up();
	if (again || crm_run(&find_other, NULL, NULL) > 0)
		crm_run(&count_again, NULL, NULL);
	n = crm_run(&add_up, NULL, NULL);
	crm_disconnect(&acting);
	PG_RETURN_INT64(n);
}

/* What the days are counted to, and what they are. */
void
crm_tally_verify(CrmAddDifference add, void *arg)
{
	static CrmPlan compare = {
		"SELECT 'fact_count of ' || coalesce(x.kind, c.kind) || ' on ' || coalesce(x.day, c.day)"
		" || coalesce(' in shop ' || coalesce(x.store_id, c.store_id), '')"
		" || coalesce(' by code ' || coalesce(x.qr_code_id, c.qr_code_id), ''),"
		" format('%s, %s void, amount %s, refunded %s', x.facts, x.voided, x.amount, x.refunded),"
		" format('%s, %s void, amount %s, refunded %s', c.facts, c.voided, c.amount, c.refunded)"
		" FROM (SELECT x.day, x.kind, x.account_id, x.qr_code_id, x.store_id, x.currency,"
		"  sum(x.facts) AS facts, sum(x.voided) AS voided, sum(x.amount) AS amount,"
		"  sum(x.refunded) AS refunded FROM crm.fact_exact x GROUP BY 1, 2, 3, 4, 5, 6) x"
		" FULL JOIN crm.fact_count c ON (c.day, c.kind, coalesce(c.account_id, 0),"
		"  coalesce(c.qr_code_id, 0), coalesce(c.store_id, 0), coalesce(c.currency, ''))"
		"  = (x.day, x.kind, coalesce(x.account_id, 0), coalesce(x.qr_code_id, 0),"
		"  coalesce(x.store_id, 0), coalesce(x.currency, ''))"
		" WHERE (x.facts, x.voided, coalesce(x.amount, 0), coalesce(x.refunded, 0)) IS DISTINCT FROM"
		"  (c.facts::numeric, c.voided::numeric, coalesce(c.amount, 0), coalesce(c.refunded, 0))",
		0
	};
	uint64 n = crm_read(&compare, NULL, NULL);

	for (uint64 row = 0; row < n; row++)
		add(arg, 0, crm_result_text(row, 1), crm_result_text(row, 2), crm_result_text(row, 3));
	SPI_freetuptable(SPI_tuptable);
}
