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
#include "commands/sequence.h"
#include "fmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/inval.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/install.h"
#include "base/roll_up.h"
#include "base/table.h"
#include "facts/facts.h"
#include "facts/tally.h"
#include "profile/won.h"

PG_FUNCTION_INFO_V1(crm_sql_keep_roll_ups);
PG_FUNCTION_INFO_V1(crm_sql_roll_up);

#define OF_ZONE " CROSS JOIN (SELECT crm.default_time_zone() AS zone) z"

static CrmPlan count_new = {
	"INSERT INTO crm.fact_tail (zone, day, kind, account_id, qr_code_id, store_id, currency, facts,"
	" amount) SELECT z.zone, timezone(z.zone, f.at)::date, f.kind, f.account_id, f.qr_code_id,"
	" f.store_id, f.currency, count(*), sum(f.amount) FROM unnest($1, $2, $3, $4, $5, $6, $7)"
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
	tally->kept = crm_roll_ups_kept();
	if (!tally->kept)
		return;
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

	if (!tally->kept)
		return;
	crm_column_add(&columns[0], text_of(tally, fact->kind), false);
	crm_column_add(&columns[1], TimestampTzGetDatum(fact->occurred_at), false);
	crm_column_add(&columns[2], Int64GetDatum(fact->account_id), fact->account_id == 0);
	crm_column_add(&columns[3], Int64GetDatum(fact->qr_code_id), fact->qr_code_id == 0);
	crm_column_add(&columns[4], Int64GetDatum(fact->store_id), fact->store_id == 0);
	crm_column_add(&columns[5], no_amount ? (Datum) 0 : text_of(tally, fact->currency), no_amount);
	crm_column_add(&columns[6], fact->amount, no_amount);
}

enum
{
	T_ID,
	T_DAY,
	T_KIND,
	T_ACCOUNT_ID,
	T_QR_CODE_ID,
	T_STORE_ID,
	T_CURRENCY,
	T_FACTS,
	T_VOIDED,
	T_AMOUNT,
	T_ZONE,
	T_COLUMNS
};

/* A single fact without the executor; false where that would pass over something. */
static bool
write_one(const CrmTally *tally)
{
	static const char *const names[T_COLUMNS] = { "fact_tail_id", "day",        "kind",
												  "account_id",   "qr_code_id", "store_id",
												  "currency",     "facts",      "voided",
												  "amount",       "zone" };
	const CrmColumn *columns = tally->columns;
	CrmTarget *target;
	Datum values[T_COLUMNS];
	bool nulls[T_COLUMNS] = { false };

	if (!crm_guc_direct_access)
		return false;
	target = crm_target_open("fact_tail", names, T_COLUMNS, false);
	if (target == NULL)
		return false;
	target->strict = true;
	values[T_ID] = Int64GetDatum(
		nextval_internal(crm_table_oid("fact_tail_fact_tail_id_seq"), false));
	values[T_KIND] = columns[0].values[0];
	values[T_DAY] = DateADTGetDatum(crm_day_of(DatumGetTimestampTz(columns[1].values[0])));
	for (int i = 2; i < CRM_TALLY_COLUMNS - 1; i++)
	{
		values[T_KIND + i - 1] = columns[i].values[0];
		nulls[T_KIND + i - 1] = columns[i].nulls[0];
	}
	values[T_FACTS] = Int64GetDatum(1);
	values[T_VOIDED] = Int64GetDatum(0);
	values[T_AMOUNT] = columns[CRM_TALLY_COLUMNS - 1].values[0];
	nulls[T_AMOUNT] = columns[CRM_TALLY_COLUMNS - 1].nulls[0];
	values[T_ZONE] = CStringGetTextDatum(crm_guc_time_zone);
	crm_target_insert(target, values, nulls);
	crm_target_flush(target);
	crm_target_close(target);
	return true;
}

void
crm_tally_write(CrmTally *tally)
{
	CrmActing acting;
	Datum values[CRM_TALLY_COLUMNS];
	int n = tally->kept ? tally->columns[0].n : 0;

	if (n == 0 || (n == 1 && write_one(tally)))
		return;
	crm_connect(&acting);
	for (int i = 0; i < CRM_TALLY_COLUMNS; i++)
		values[i] = crm_column_array(&tally->columns[i]);
	crm_run(&count_new, values, NULL);
	crm_disconnect(&acting);
}

void
crm_tally_refunds(Datum contacts, Datum refunds)
{
	Datum values[2] = { contacts, refunds };

	if (!crm_roll_ups_kept())
		return;
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

#define FACT_KEY  "zone, day, kind, account_id, qr_code_id, store_id, currency"
#define MONTH_KEY "zone, month, kind, account_id, qr_code_id, store_id, currency"
#define KIND_KEY  "zone, day, event, kind, currency"
#define VISIT_KEY "zone, day, journey, version, step, state, outcome, next_step"

/* What is known of each key of a table, and what the rows t add to it. */
#define ADD_FACTS(table, key)                                                      \
	"INSERT INTO crm." table " AS d (" key ", facts, voided, amount, refunded)"    \
	" SELECT " key ", sum(t.facts), sum(t.voided), sum(t.amount), sum(t.refunded)" \
	" FROM t GROUP BY " key " ON CONFLICT (" key ") DO UPDATE"                     \
	" SET facts = d.facts + EXCLUDED.facts, voided = d.voided + EXCLUDED.voided,"  \
	" amount = coalesce(d.amount + EXCLUDED.amount, d.amount, EXCLUDED.amount),"   \
	" refunded = coalesce(d.refunded + EXCLUDED.refunded, d.refunded, EXCLUDED.refunded)"
#define TO_MONTHS  ADD_FACTS("fact_month", MONTH_KEY)
#define TO_KINDS   ADD_FACTS("kind_day", KIND_KEY)
#define TO_DAYS    ADD_FACTS("fact_day", FACT_KEY)
#define ADD_TO_ALL " m AS (" TO_MONTHS "), k AS (" TO_KINDS ") " TO_DAYS
/* of a day, and of the columns of a key */
#define MONTH_OF "date_trunc('month', day::timestamp)::date AS month"
#define IS_EVENT "qr_code_id IS NULL AND currency IS NULL AS event"

#define ADD_VISITS                                                                               \
	" INSERT INTO crm.visit_day AS d (" VISIT_KEY ", visits)"                                    \
	" SELECT " VISIT_KEY ", sum(t.visits) FROM t GROUP BY " VISIT_KEY " ON CONFLICT (" VISIT_KEY \
	") DO UPDATE SET visits = d.visits + EXCLUDED.visits"

#define ENROLMENT_KEY "journey, state, end_reason"
#define ADD_ENROLMENTS                                                            \
	" INSERT INTO crm.enrolment_sum AS d (" ENROLMENT_KEY                         \
	", enrolments, first_entered_at, last_entered_at) SELECT " ENROLMENT_KEY      \
	", sum(t.enrolments), min(t.first_entered_at), max(t.last_entered_at) FROM t" \
	" GROUP BY " ENROLMENT_KEY " ON CONFLICT (" ENROLMENT_KEY ") DO UPDATE"       \
	" SET enrolments = d.enrolments + EXCLUDED.enrolments,"                       \
	" first_entered_at = least(d.first_entered_at, EXCLUDED.first_entered_at),"   \
	" last_entered_at = greatest(d.last_entered_at, EXCLUDED.last_entered_at)"

/* of the days the first and the last in the index that begins with the zone */
#define OF_ANOTHER_ZONE(tallies)                                                                  \
	"SELECT FROM (SELECT min(d.zone) AS first, max(d.zone) AS last FROM crm." tallies "_day d) d" \
	" WHERE d.first <> crm.default_time_zone() OR d.last <> crm.default_time_zone()"              \
	" UNION ALL SELECT FROM crm." tallies "_tail t"                                               \
	"  WHERE t.zone <> crm.default_time_zone() LIMIT 1"

typedef struct Tallies
{
	CrmPlan find_other;
	CrmPlan clear; /* what is added up; only who has the lock writes there */
	CrmPlan count; /* all of it out of the rows, and away with the tail, both as of one moment */
	CrmPlan add_up;
	CrmPlan forget_tail;
} Tallies;

static Tallies all_tallies[] = {
	{ { OF_ANOTHER_ZONE("fact"), 0 },
	  { "WITH m AS (DELETE FROM crm.fact_month), k AS (DELETE FROM crm.kind_day)"
		" DELETE FROM crm.fact_day",
		0 },
	  { "WITH g AS (DELETE FROM crm.fact_tail), t AS MATERIALIZED"
		" (SELECT x.*, " MONTH_OF ", " IS_EVENT ", crm.default_time_zone() AS zone"
		"  FROM crm.fact_exact x)," ADD_TO_ALL,
		0 },
	  { "WITH t AS (DELETE FROM crm.fact_tail RETURNING *, " MONTH_OF ", " IS_EVENT ")," ADD_TO_ALL,
		0 },
	  { "DELETE FROM crm.fact_tail", 0 } },
	{ { OF_ANOTHER_ZONE("visit"), 0 },
	  { "DELETE FROM crm.visit_day", 0 },
	  { "WITH g AS (DELETE FROM crm.visit_tail),"
		" t AS (SELECT x.*, crm.default_time_zone() AS zone FROM crm.visit_exact x)" ADD_VISITS,
		0 },
	  { "WITH t AS (DELETE FROM crm.visit_tail RETURNING *)" ADD_VISITS, 0 },
	  { "DELETE FROM crm.visit_tail", 0 } },
	/* of all times */
	{ { "SELECT WHERE false", 0 },
	  { "DELETE FROM crm.enrolment_sum", 0 },
	  { "WITH g AS (DELETE FROM crm.enrolment_tail), t AS (SELECT * FROM crm.enrolment_exact)" ADD_ENROLMENTS,
		0 },
	  { "WITH t AS (DELETE FROM crm.enrolment_tail RETURNING *)" ADD_ENROLMENTS, 0 },
	  { "DELETE FROM crm.enrolment_tail", 0 } },
};

static uint64
add_up(bool again)
{
	uint64 n = 0;

	for (int i = 0; i < lengthof(all_tallies); i++)
	{
		Tallies *tallies = &all_tallies[i];

		if (!again && crm_run(&tallies->find_other, NULL, NULL) == 0)
			n += crm_run(&tallies->add_up, NULL, NULL);
		else
		{
			crm_run(&tallies->clear, NULL, NULL);
			n += crm_run(&tallies->count, NULL, NULL);
		}
	}
	return n + crm_won_add_up(again);
}

Datum
crm_sql_roll_up(PG_FUNCTION_ARGS)
{
	bool again = !PG_ARGISNULL(0) && PG_GETARG_BOOL(0);
	CrmActing acting;
	uint64 n = 0;

	crm_require_installed();
	crm_connect(&acting);
	lock_roll_up();
	if (crm_roll_ups_kept())
		n = add_up(again);
	crm_disconnect(&acting);
	PG_RETURN_INT64(n);
}

/* Who counts or does not by what was set before ends first, and who comes later does as is set now. */
Datum
crm_sql_keep_roll_ups(PG_FUNCTION_ARGS)
{
	static CrmPlan set = { "INSERT INTO crm.roll_up_setting (kept) VALUES ($1)"
						   " ON CONFLICT (one) DO UPDATE SET kept = EXCLUDED.kept",
						   1,
						   { BOOLOID } };
	Datum kept;
	CrmActing acting;

	crm_require_argument("keep_roll_ups", "kept", PG_ARGISNULL(0));
	kept = PG_GETARG_DATUM(0);
	crm_require_installed();
	crm_connect(&acting);
	LockRelationOid(crm_table_oid("profile_counter"), ExclusiveLock);
	lock_roll_up();
	if (crm_roll_ups_kept() != DatumGetBool(kept))
	{
		crm_run(&set, &kept, NULL);
		CacheInvalidateRelcacheByRelid(crm_table_oid("roll_up_setting"));
		CommandCounterIncrement();
		if (DatumGetBool(kept))
			(void) add_up(true);
		else
		{
			for (int i = 0; i < lengthof(all_tallies); i++)
			{
				crm_run(&all_tallies[i].clear, NULL, NULL);
				crm_run(&all_tallies[i].forget_tail, NULL, NULL);
			}
			crm_won_forget();
		}
	}
	crm_disconnect(&acting);
	PG_RETURN_VOID();
}

static void
list_differences(CrmPlan *compare, CrmAddDifference add, void *arg)
{
	uint64 n = crm_read(compare, NULL, NULL);

	for (uint64 row = 0; row < n; row++)
		add(arg, 0, crm_result_text(row, 1), crm_result_text(row, 2), crm_result_text(row, 3));
	SPI_freetuptable(SPI_tuptable);
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
	/* both are made of the same rows */
	static CrmPlan compare_months = {
		"SELECT 'fact_month of ' || kind || ' in ' || to_char(month, 'YYYY-MM'),"
		" format('%s, %s void, amount %s, refunded %s', d.facts, d.voided, d.amount, d.refunded),"
		" format('%s, %s void, amount %s, refunded %s', m.facts, m.voided, m.amount, m.refunded)"
		" FROM (SELECT zone, date_trunc('month', day::timestamp)::date AS month, kind, coalesce(account_id, 0) AS a,"
		"  coalesce(qr_code_id, 0) AS q, coalesce(store_id, 0) AS s, coalesce(currency, '') AS c,"
		"  sum(facts) AS facts, sum(voided) AS voided, sum(amount) AS amount,"
		"  sum(refunded) AS refunded FROM crm.fact_day GROUP BY 1, 2, 3, 4, 5, 6, 7) d"
		" FULL JOIN (SELECT zone, month, kind, coalesce(account_id, 0) AS a,"
		"  coalesce(qr_code_id, 0) AS q, coalesce(store_id, 0) AS s, coalesce(currency, '') AS c,"
		"  facts, voided, amount, refunded FROM crm.fact_month) m USING (zone, month, kind, a, q, s, c)"
		" WHERE (d.facts, d.voided, d.amount, d.refunded) IS DISTINCT FROM"
		"  (m.facts::numeric, m.voided::numeric, m.amount, m.refunded)",
		0
	};
	static CrmPlan compare_kinds = {
		"SELECT 'kind_day of ' || kind || ' on ' || day,"
		" format('%s, %s void, amount %s, refunded %s', d.facts, d.voided, d.amount, d.refunded),"
		" format('%s, %s void, amount %s, refunded %s', k.facts, k.voided, k.amount, k.refunded)"
		" FROM (SELECT zone, day, qr_code_id IS NULL AND currency IS NULL AS event, kind,"
		"  coalesce(currency, '') AS c, sum(facts) AS facts, sum(voided) AS voided,"
		"  sum(amount) AS amount, sum(refunded) AS refunded FROM crm.fact_day GROUP BY 1, 2, 3, 4, 5) d"
		" FULL JOIN (SELECT zone, day, event, kind, coalesce(currency, '') AS c, facts, voided, amount, refunded"
		"  FROM crm.kind_day) k USING (zone, day, event, kind, c)"
		" WHERE (d.facts, d.voided, d.amount, d.refunded) IS DISTINCT FROM"
		"  (k.facts::numeric, k.voided::numeric, k.amount, k.refunded)",
		0
	};
	static CrmPlan compare_visits = {
		"SELECT 'visit_count of step ' || coalesce(x.step, c.step) || ' of journey '"
		" || coalesce(x.journey, c.journey) || ' on ' || coalesce(x.day, c.day),"
		" x.visits || ' ' || x.state || coalesce(' by ' || x.outcome, ''),"
		" c.visits || ' ' || c.state || coalesce(' by ' || c.outcome, '')"
		" FROM (SELECT x.day, x.journey, x.version, x.step, x.state, x.outcome, x.next_step,"
		"  sum(x.visits) AS visits FROM crm.visit_exact x GROUP BY 1, 2, 3, 4, 5, 6, 7) x"
		" FULL JOIN crm.visit_count c ON (c.day, c.journey, c.version, c.step, c.state,"
		"  coalesce(c.outcome, ''), coalesce(c.next_step, '')) = (x.day, x.journey, x.version,"
		"  x.step, x.state, coalesce(x.outcome, ''), coalesce(x.next_step, ''))"
		" WHERE x.visits IS DISTINCT FROM c.visits",
		0
	};
	static CrmPlan compare_enrolments = {
		"SELECT 'enrolment_count of journey ' || coalesce(x.journey, c.journey),"
		" format('%s %s%s, %s to %s', x.enrolments, x.state, ' by ' || x.end_reason,"
		"  x.first_entered_at, x.last_entered_at),"
		" format('%s %s%s, %s to %s', c.enrolments, c.state, ' by ' || c.end_reason,"
		"  c.first_entered_at, c.last_entered_at)"
		" FROM crm.enrolment_exact x FULL JOIN crm.enrolment_count c"
		"  ON (c.journey, c.state, coalesce(c.end_reason, ''))"
		"  = (x.journey, x.state, coalesce(x.end_reason, ''))"
		" WHERE (x.enrolments, x.first_entered_at, x.last_entered_at)"
		"  IS DISTINCT FROM (c.enrolments, c.first_entered_at, c.last_entered_at)",
		0
	};

	if (!crm_roll_ups_kept())
		return;
	list_differences(&compare, add, arg);
	list_differences(&compare_months, add, arg);
	list_differences(&compare_kinds, add, arg);
	list_differences(&compare_visits, add, arg);
	list_differences(&compare_enrolments, add, arg);
	crm_won_verify(add, arg);
}
