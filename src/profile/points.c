/*
 * points.c
 *		The ledger of points. What a fact is worth by a rule is a function of the
 *		rule and of the fact's net amount; what the ledger gave for it is the sum
 *		of its entries; the difference becomes an entry. So a refund takes back
 *		its part and nothing twice, whatever comes late, and verify() is the same
 *		comparison. New facts that nothing was given for yet skip the look-up.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/guc.h"
#include "profile/definition.h"
#include "profile/earning.h"
#include "profile/history.h"
#include "profile/loyalty.h"
#include "profile/recompute.h"

static const char *const source_tables[] = { "transaction", "event", "scan" };

static CrmPlan select_memberships = {
	"SELECT m.contact_id, m.loyalty_program_id, m.joined_at, m.left_at FROM crm.membership m"
	" WHERE m.contact_id = ANY ($1) ORDER BY m.contact_id, m.loyalty_program_id",
	1,
	{ INT8ARRAYOID }
};

/* orders with what is left of them, and the members' programmes */
#define ORDERS(which)                                                                              \
	"SELECT o.contact_id, m.loyalty_program_id, o.transaction_id, o.occurred_at, o.amount,"        \
	" o.amount - coalesce(r.refunded, 0), o.currency, o.external_ref, o.store_id, o.items"         \
	" FROM " which                                                                                 \
	" JOIN crm.membership m ON m.contact_id = o.contact_id AND o.occurred_at >= m.joined_at"       \
	"  AND (m.left_at IS NULL OR o.occurred_at < m.left_at)"                                       \
	" LEFT JOIN (SELECT r.contact_id, r.refund_of, sum(r.amount) AS refunded FROM crm.transaction" \
	"  r WHERE r.contact_id = ANY ($1) AND r.kind = 'refund' GROUP BY 1, 2) r"                     \
	" ON r.contact_id = o.contact_id AND r.refund_of = o.transaction_id WHERE o.kind = 'purchase'"

static CrmPlan select_some_orders = {
	ORDERS("(SELECT DISTINCT u.* FROM unnest($1, $2) AS u(contact_id, id)) n"
		   " JOIN crm.transaction o ON o.contact_id = n.contact_id AND o.transaction_id = n.id"
		   "  AND o.contact_id = ANY ($1)"),
	2,
	{ INT8ARRAYOID, INT8ARRAYOID }
};
static CrmPlan select_all_orders = { ORDERS("crm.transaction o") " AND o.contact_id = ANY ($1)",
									 1,
									 { INT8ARRAYOID } };
static CrmPlan select_all_events = {
	"SELECT e.contact_id, m.loyalty_program_id, e.event_id, e.occurred_at, e.kind, e.account_id,"
	" e.properties FROM crm.event e"
	" JOIN crm.membership m ON m.contact_id = e.contact_id AND e.occurred_at >= m.joined_at"
	"  AND (m.left_at IS NULL OR e.occurred_at < m.left_at)"
	" WHERE e.contact_id = ANY ($1) AND e.kind = ANY ($2)",
	2,
	{ INT8ARRAYOID, TEXTARRAYOID }
};
static CrmPlan select_all_scans = {
	"SELECT s.contact_id, m.loyalty_program_id, s.scan_id, s.occurred_at, s.qr_code_id, q.store_id,"
	" q.campaign FROM crm.scan s LEFT JOIN crm.qr_code q ON q.qr_code_id = s.qr_code_id"
	" JOIN crm.membership m ON m.contact_id = s.contact_id AND s.occurred_at >= m.joined_at"
	"  AND (m.left_at IS NULL OR s.occurred_at < m.left_at)"
	" WHERE s.contact_id = ANY ($1) AND EXISTS (SELECT FROM crm.first_scan f"
	"  WHERE f.contact_id = s.contact_id AND f.scan_id = s.scan_id)",
	1,
	{ INT8ARRAYOID }
};

#define SUMS                                                                  \
	"SELECT e.contact_id, e.loyalty_program_id, e.earning_rule, e.source_id," \
	" sum(e.points)::bigint, min(e.source_at), e.source_table FROM crm.point_entry e"

static CrmPlan select_some_sums = {
	SUMS " JOIN (SELECT DISTINCT u.* FROM unnest($1, $2) AS u(contact_id, id)) n"
		 " ON n.contact_id = e.contact_id AND n.id = e.source_id AND e.contact_id = ANY ($1)"
		 " WHERE e.earning_rule IS NOT NULL AND e.source_table = $3 GROUP BY 1, 2, 3, 4, 7",
	3,
	{ INT8ARRAYOID, INT8ARRAYOID, TEXTOID }
};
static CrmPlan select_all_sums = {
	SUMS " WHERE e.contact_id = ANY ($1) AND e.earning_rule IS NOT NULL"
		 " AND ($2 IS NULL OR e.source_table = $2) GROUP BY 1, 2, 3, 4, 7",
	2,
	{ INT8ARRAYOID, TEXTOID }
};

/* The balance after the last entry of a contact is known; those before it follow from it. */
static CrmPlan insert_entries = {
	"WITH n AS (SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
	"   WITH ORDINALITY AS n(contact_id, loyalty_program_id, kind, points, earning_rule,"
	"   source_table, source_id, correction, source_at, occurred_at, reason, cause_id, place)),"
	" b AS (INSERT INTO crm.point_balance AS b (contact_id, loyalty_program_id, points)"
	"  SELECT n.contact_id, n.loyalty_program_id, sum(n.points) FROM n GROUP BY 1, 2 ORDER BY 1, 2"
	"  ON CONFLICT (contact_id, loyalty_program_id) DO UPDATE SET points = b.points + excluded.points"
	"  RETURNING b.contact_id, b.loyalty_program_id, b.points)"
	" INSERT INTO crm.point_entry (contact_id, loyalty_program_id, kind, points, earning_rule,"
	"  source_table, source_id, correction, source_at, occurred_at, reason, cause_id, recorded_at,"
	"  balance_after)"
	" SELECT n.contact_id, n.loyalty_program_id, n.kind, n.points, n.earning_rule, n.source_table,"
	"  n.source_id, n.correction, n.source_at, n.occurred_at, n.reason, n.cause_id, $13,"
	"  b.points - coalesce(sum(n.points) OVER (PARTITION BY n.contact_id, n.loyalty_program_id"
	"   ORDER BY n.place DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)"
	" FROM n JOIN b ON b.contact_id = n.contact_id AND b.loyalty_program_id = n.loyalty_program_id"
	" ORDER BY n.place RETURNING point_entry_id, balance_after",
	13,
	{ INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID, INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
	  INT8ARRAYOID, BOOLARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TEXTARRAYOID,
	  INT8ARRAYOID, TIMESTAMPTZOID }
};
static CrmPlan rebuild_balances = {
	"WITH s AS (SELECT e.contact_id, e.loyalty_program_id, sum(e.points)::bigint AS points"
	"   FROM crm.point_entry e WHERE e.contact_id = ANY ($1) GROUP BY 1, 2),"
	" d AS (DELETE FROM crm.point_balance b WHERE b.contact_id = ANY ($1) AND NOT EXISTS"
	"  (SELECT FROM s WHERE s.contact_id = b.contact_id"
	"   AND s.loyalty_program_id = b.loyalty_program_id))"
	" INSERT INTO crm.point_balance AS b (contact_id, loyalty_program_id, points)"
	" SELECT s.contact_id, s.loyalty_program_id, s.points FROM s ORDER BY 1, 2"
	" ON CONFLICT (contact_id, loyalty_program_id) DO UPDATE SET points = excluded.points"
	"  WHERE b.points <> excluded.points",
	1,
	{ INT8ARRAYOID }
};

/* how the ledger at hand is read: crm_run or crm_read */
static uint64 (*run)(CrmPlan *plan, const Datum *values, const char *nulls);

/* what a fact is worth by a rule, and what the ledger gave for it */
typedef struct SumKey
{
	int64 contact_id;
	int64 source_id;
	int64 loyalty_program_id;
	int32 rule; /* place in the names */
	int32 source;
} SumKey;

typedef struct Sum
{
	SumKey key;
	int64 target;
	int64 stored;
	bool has_entries;
	TimestampTz source_at;
} Sum;

typedef struct CauseKey
{
	int64 contact_id;
	int64 source_id;
} CauseKey;

typedef struct Cause
{
	CauseKey key;
	TimestampTz at;
	int64 id;
	const char *reason;
} Cause;

typedef struct Ledger
{
	const CrmDefinitions *definitions;
	HTAB *sums;
	int nnames; /* earning rules, then those in the ledger that are gone */
	const char **names;

	/* what dates the entries: each fact its own cause, or all of them one */
	HTAB *causes;
	TimestampTz cause;
	const char *reason;
} Ledger;

enum
{
	E_CONTACT_ID,
	E_PROGRAM,
	E_KIND,
	E_POINTS,
	E_RULE,
	E_SOURCE_TABLE,
	E_SOURCE_ID,
	E_CORRECTION,
	E_SOURCE_AT,
	E_OCCURRED_AT,
	E_REASON,
	E_CAUSE_ID,
	E_COLUMNS
};

/* the last transaction in which facts may have been given points before their own trigger */
static FullTransactionId reconciled_in;

static void
ledger_init(Ledger *ledger)
{
	HASHCTL sums = { .keysize = sizeof(SumKey),
					 .entrysize = sizeof(Sum),
					 .hcxt = CurrentMemoryContext };
	HASHCTL causes = { .keysize = sizeof(CauseKey),
					   .entrysize = sizeof(Cause),
					   .hcxt = CurrentMemoryContext };

	memset(ledger, 0, sizeof(Ledger));
	ledger->definitions = crm_definitions();
	ledger->sums = hash_create("pg_crm points", 256, &sums, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ledger->causes = hash_create("pg_crm causes of points", 256, &causes,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ledger->nnames = ledger->definitions->nearning_rules;
	ledger->names = palloc_array(const char *, Max(ledger->nnames, 1));
	for (int i = 0; i < ledger->nnames; i++)
		ledger->names[i] = ledger->definitions->earning_rules[i].name;
}

static int
place_of_name(Ledger *ledger, const char *name)
{
	for (int i = 0; i < ledger->nnames; i++)
		if (strcmp(ledger->names[i], name) == 0)
			return i;
	ledger->names = repalloc_array(ledger->names, const char *, ledger->nnames + 1);
	ledger->names[ledger->nnames] = pstrdup(name);
	return ledger->nnames++;
}

static Sum *
find_sum(Ledger *ledger, int64 contact_id, int64 program, int rule, int source, int64 source_id,
		 TimestampTz source_at)
{
	SumKey key = { contact_id, source_id, program, rule, source };
	bool found;
	Sum *sum = hash_search(ledger->sums, &key, HASH_ENTER, &found);

	if (!found)
	{
		sum->target = 0;
		sum->stored = 0;
		sum->has_entries = false;
		sum->source_at = source_at;
	}
	return sum;
}

/* gross: of an order, before refunds */
static void
add_fact(Ledger *ledger, const CrmFact *fact, Datum gross, int64 program)
{
	CrmEarningSource source = fact->type == CRM_FACT_PURCHASE ? CRM_EARN_TRANSACTION
		: fact->type == CRM_FACT_SCAN                         ? CRM_EARN_SCAN
															  : CRM_EARN_EVENT;

	for (int i = 0; i < ledger->definitions->nearning_rules; i++)
	{
		const CrmEarningRule *earning = &ledger->definitions->earning_rules[i];

		if (!crm_earning_applies(earning, source, program, fact->occurred_at) ||
			(source == CRM_EARN_EVENT && strcmp(earning->kind, fact->detail) != 0))
			continue;
		find_sum(ledger, fact->contact_id, program, i, source, fact->id, fact->occurred_at)
			->target = crm_points_of_fact(ledger->definitions, earning, fact, gross);
	}
}

static TimestampTz
result_time(uint64 row, int column)
{
	bool isnull;

	return DatumGetTimestampTz(crm_result(row, column, &isnull));
}

static void
load_orders(Ledger *ledger, CrmPlan *plan, const Datum *values)
{
	uint64 n = run(plan, values, NULL);

	for (uint64 row = 0; row < n; row++)
	{
		bool isnull;
		CrmFact fact = { .contact_id = crm_result_int64(row, 1),
						 .id = crm_result_int64(row, 3),
						 .type = CRM_FACT_PURCHASE,
						 .kind = -1,
						 .occurred_at = result_time(row, 4),
						 .amount = crm_result(row, 6, &isnull),
						 .own_currency = strcmp(crm_result_text(row, 7), crm_guc_currency) == 0,
						 .reference = crm_result_text(row, 8) };

		if (ledger->definitions->reads_details)
		{
			crm_fact_detail(&fact, CRM_F_CURRENCY, row, 7, false);
			crm_fact_detail(&fact, CRM_F_STORE_ID, row, 9, true);
			crm_fact_detail(&fact, CRM_F_ITEMS, row, 10, false);
		}
		add_fact(ledger, &fact, crm_result(row, 5, &isnull), crm_result_int64(row, 2));
	}
	SPI_freetuptable(SPI_tuptable);
}

static void
load_events(Ledger *ledger, Datum contacts)
{
	Datum values[2] = { contacts };
	CrmColumn kinds;
	uint64 n;

	crm_column_init(&kinds, TEXTOID);
	for (int i = 0; i < ledger->definitions->nearning_rules; i++)
		if (ledger->definitions->earning_rules[i].source == CRM_EARN_EVENT)
			crm_column_add(&kinds, CStringGetTextDatum(ledger->definitions->earning_rules[i].kind),
						   false);
	values[1] = crm_column_array(&kinds);
	n = run(&select_all_events, values, NULL);
	for (uint64 row = 0; row < n; row++)
	{
		CrmFact fact = { .contact_id = crm_result_int64(row, 1),
						 .id = crm_result_int64(row, 3),
						 .type = CRM_FACT_EVENT,
						 .kind = -1,
						 .occurred_at = result_time(row, 4),
						 .detail = crm_result_text(row, 5),
						 .unseen = strcmp(crm_result_text(row, 5), "field_change") == 0,
						 .account_id = crm_result_int64(row, 6) };

		if (ledger->definitions->reads_details)
			crm_fact_detail(&fact, CRM_F_PROPERTIES, row, 7, false);
		add_fact(ledger, &fact, (Datum) 0, crm_result_int64(row, 2));
	}
	SPI_freetuptable(SPI_tuptable);
}

static void
load_scans(Ledger *ledger, Datum contacts)
{
	uint64 n = run(&select_all_scans, &contacts, NULL);

	for (uint64 row = 0; row < n; row++)
	{
		CrmFact fact = { .contact_id = crm_result_int64(row, 1),
						 .id = crm_result_int64(row, 3),
						 .type = CRM_FACT_SCAN,
						 .kind = -1,
						 .occurred_at = result_time(row, 4) };

		if (ledger->definitions->reads_details)
		{
			crm_fact_detail(&fact, CRM_F_QR_CODE_ID, row, 5, true);
			crm_fact_detail(&fact, CRM_F_STORE_ID, row, 6, true);
			crm_fact_detail(&fact, CRM_F_CAMPAIGN, row, 7, false);
		}
		add_fact(ledger, &fact, (Datum) 0, crm_result_int64(row, 2));
	}
	SPI_freetuptable(SPI_tuptable);
}

static void
load_sums(Ledger *ledger, CrmPlan *plan, const Datum *values, const char *nulls)
{
	uint64 n = run(plan, values, nulls);

	for (uint64 row = 0; row < n; row++)
	{
		char *table = crm_result_text(row, 7);
		int source = 0;
		Sum *sum;

		while (source < CRM_EARN_SCAN && strcmp(source_tables[source], table) != 0)
			source++;
		sum = find_sum(ledger, crm_result_int64(row, 1), crm_result_int64(row, 2),
					   place_of_name(ledger, crm_result_text(row, 3)), source,
					   crm_result_int64(row, 4), result_time(row, 6));
		sum->stored = crm_result_int64(row, 5);
		sum->has_entries = true;
	}
	SPI_freetuptable(SPI_tuptable);
}

/* All facts of the contacts, or those of one source. */
static void
load_all(Ledger *ledger, const int64 *contacts, int ncontacts, const CrmEarningSource *only)
{
	Datum array = crm_int64_array(contacts, ncontacts);
	Datum values[2] = { array, (Datum) 0 };
	const bool *from = ledger->definitions->earning_from;

	if (from[CRM_EARN_TRANSACTION] && (only == NULL || *only == CRM_EARN_TRANSACTION))
		load_orders(ledger, &select_all_orders, &array);
	if (from[CRM_EARN_EVENT] && (only == NULL || *only == CRM_EARN_EVENT))
		load_events(ledger, array);
	if (from[CRM_EARN_SCAN] && (only == NULL || *only == CRM_EARN_SCAN))
		load_scans(ledger, array);
	if (only != NULL)
		values[1] = CStringGetTextDatum(source_tables[*only]);
	load_sums(ledger, &select_all_sums, values, only == NULL ? " n" : NULL);
}

static int
compare_sums(const void *a, const void *b)
{
	const Sum *left = *(Sum *const *) a;
	const Sum *right = *(Sum *const *) b;

	if (left->key.contact_id != right->key.contact_id)
		return left->key.contact_id < right->key.contact_id ? -1 : 1;
	if (left->source_at != right->source_at)
		return left->source_at < right->source_at ? -1 : 1;
	if (left->key.source_id != right->key.source_id)
		return left->key.source_id < right->key.source_id ? -1 : 1;
	if (left->key.source != right->key.source)
		return left->key.source - right->key.source;
	if (left->key.loyalty_program_id != right->key.loyalty_program_id)
		return left->key.loyalty_program_id < right->key.loyalty_program_id ? -1 : 1;
	return left->key.rule - right->key.rule;
}

/* Those that differ, in the order of their facts. */
static Sum **
differing_sums(Ledger *ledger, int *n)
{
	Sum **sums = MemoryContextAllocHuge(CurrentMemoryContext,
										sizeof(Sum *) * Max(hash_get_num_entries(ledger->sums), 1));
	HASH_SEQ_STATUS status;
	Sum *sum;

	*n = 0;
	hash_seq_init(&status, ledger->sums);
	while ((sum = hash_seq_search(&status)) != NULL)
		if (sum->target != sum->stored)
			sums[(*n)++] = sum;
	qsort(sums, *n, sizeof(Sum *), compare_sums);
	return sums;
}

static void
init_entries(CrmColumn *columns)
{
	static const Oid types[E_COLUMNS] = { INT8OID,        INT8OID,        TEXTOID, INT8OID,
										  TEXTOID,        TEXTOID,        INT8OID, BOOLOID,
										  TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, INT8OID };

	for (int i = 0; i < E_COLUMNS; i++)
		crm_column_init(&columns[i], types[i]);
}

static void
write_entries(CrmColumn *columns)
{
	Datum values[E_COLUMNS + 1];

	for (int i = 0; i < E_COLUMNS; i++)
		values[i] = crm_column_array(&columns[i]);
	values[E_COLUMNS] = TimestampTzGetDatum(crm_now());
	crm_run(&insert_entries, values, NULL);
}

static void
add_entry(Ledger *ledger, CrmColumn *columns, const Sum *sum)
{
	int64 points = sum->target - sum->stored;
	CauseKey key = { sum->key.contact_id, sum->key.source_id };
	const Cause *cause = hash_search(ledger->causes, &key, HASH_FIND, NULL);
	TimestampTz at = cause != NULL ? cause->at : ledger->cause;
	const char *reason = cause != NULL ? cause->reason : ledger->reason;
	bool has_id = cause != NULL;

	crm_column_add(&columns[E_CONTACT_ID], Int64GetDatum(sum->key.contact_id), false);
	crm_column_add(&columns[E_PROGRAM], Int64GetDatum(sum->key.loyalty_program_id), false);
	crm_column_add(&columns[E_KIND], CStringGetTextDatum(points > 0 ? "earned" : "reversed"),
				   false);
	crm_column_add(&columns[E_POINTS], Int64GetDatum(points), false);
	crm_column_add(&columns[E_RULE], CStringGetTextDatum(ledger->names[sum->key.rule]), false);
	crm_column_add(&columns[E_SOURCE_TABLE], CStringGetTextDatum(source_tables[sum->key.source]),
				   false);
	crm_column_add(&columns[E_SOURCE_ID], Int64GetDatum(sum->key.source_id), false);
	crm_column_add(&columns[E_CORRECTION], BoolGetDatum(sum->has_entries), false);
	crm_column_add(&columns[E_SOURCE_AT], TimestampTzGetDatum(sum->source_at), false);
	crm_column_add(&columns[E_OCCURRED_AT], TimestampTzGetDatum(at), false);
	crm_column_add(&columns[E_REASON], CStringGetTextDatum(reason), false);
	crm_column_add(&columns[E_CAUSE_ID], Int64GetDatum(has_id ? cause->id : 0), !has_id);
}

/* Writes an entry for each difference. */
static void
write_differences(Ledger *ledger)
{
	CrmColumn columns[E_COLUMNS];
	int n;
	Sum **sums = differing_sums(ledger, &n);

	if (n == 0)
		return;
	init_entries(columns);
	for (int i = 0; i < n; i++)
		add_entry(ledger, columns, sums[i]);
	write_entries(columns);
}

static void
add_cause(Ledger *ledger, const CrmFact *fact, int64 source_id, const char *reason)
{
	CauseKey key = { fact->contact_id, source_id };
	bool found;
	Cause *cause = hash_search(ledger->causes, &key, HASH_ENTER, &found);

	/* facts come in their order: the last one that has to do with an order stays */
	cause->at = fact->occurred_at;
	cause->id = fact->id;
	cause->reason = reason;
}

/* New facts whose order nothing else has to do with. */
static void
load_new_facts(Ledger *ledger, const CrmFact *facts, int64 nfacts, Datum contacts)
{
	uint64 n = crm_run(&select_memberships, &contacts, NULL);
	SPITupleTable *memberships = SPI_tuptable;
	uint64 first = 0;

	for (int64 i = 0; i < nfacts; i++)
	{
		const CrmFact *fact = &facts[i];

		SPI_tuptable = memberships;
		while (first < n && crm_result_int64(first, 1) < fact->contact_id)
			first++;
		for (uint64 row = first; row < n && crm_result_int64(row, 1) == fact->contact_id; row++)
		{
			int64 program = crm_result_int64(row, 2);
			bool is_member;
			Datum left_at = crm_result(row, 4, &is_member);

			if (fact->occurred_at < result_time(row, 3) ||
				(!is_member && fact->occurred_at >= DatumGetTimestampTz(left_at)))
				continue;
			if (fact->type == CRM_FACT_PURCHASE || fact->earns)
				add_fact(ledger, fact, fact->amount, program);
		}
	}
	SPI_freetuptable(memberships);
}

/* Facts of which some may have been given points: the ledger is asked. */
static void
load_known_facts(Ledger *ledger, const CrmFact *facts, int64 nfacts, Datum contacts)
{
	CrmColumn owners;
	CrmColumn ids;
	Datum values[3];
	bool orders = false;

	crm_column_init(&owners, INT8OID);
	crm_column_init(&ids, INT8OID);
	for (int64 i = 0; i < nfacts; i++)
	{
		const CrmFact *fact = &facts[i];
		bool order = fact->type == CRM_FACT_PURCHASE || fact->type == CRM_FACT_REFUND;

		if (!order && !fact->earns)
			continue;
		orders |= order;
		crm_column_add(&owners, Int64GetDatum(fact->contact_id), false);
		crm_column_add(&ids,
					   Int64GetDatum(fact->type == CRM_FACT_REFUND ? fact->refund_of : fact->id),
					   false);
	}
	if (owners.n == 0)
		return;
	values[0] = crm_column_array(&owners);
	values[1] = crm_column_array(&ids);
	values[2] = CStringGetTextDatum(source_tables[orders ? CRM_EARN_TRANSACTION : CRM_EARN_EVENT]);
	if (orders)
		load_orders(ledger, &select_some_orders, values);
	else
		load_new_facts(ledger, facts, nfacts, contacts);
	load_sums(ledger, &select_some_sums, values, NULL);
}

/* Is a fact of a kind that points or tiers depend on? */
static bool
matters(const CrmDefinitions *definitions, const CrmFact *fact)
{
	switch (fact->type)
	{
		case CRM_FACT_PURCHASE:
		case CRM_FACT_REFUND:
			return definitions->earning_from[CRM_EARN_TRANSACTION] || definitions->has_spend_tiers;
		case CRM_FACT_SCAN:
			return definitions->earning_from[CRM_EARN_SCAN];
		default:
			return fact->earns;
	}
}

static bool
reconciled_in_transaction(void)
{
	FullTransactionId now = GetTopFullTransactionIdIfAny();

	return FullTransactionIdIsValid(now) && FullTransactionIdEquals(now, reconciled_in);
}

static const char *
reason_of(const CrmFact *fact)
{
	return fact->type == CRM_FACT_PURCHASE ? "purchase"
		: fact->type == CRM_FACT_REFUND    ? "refund"
		: fact->type == CRM_FACT_SCAN      ? "scan"
										   : fact->detail;
}

/* A part of a batch that holds all facts of its contacts, which matter all. */
static void
settle_part(const CrmFact *facts, int64 nfacts, const int64 *contacts, const TimestampTz *causes,
			int ncontacts, bool look_up)
{
	static const CrmEarningSource scans = CRM_EARN_SCAN;
	Ledger ledger;
	Datum array = crm_int64_array(contacts, ncontacts);

	ledger_init(&ledger);
	ledger.cause = facts[nfacts - 1].occurred_at;
	ledger.reason = reason_of(&facts[nfacts - 1]);
	for (int64 i = 0; i < nfacts; i++)
		add_cause(&ledger, &facts[i],
				  facts[i].type == CRM_FACT_REFUND ? facts[i].refund_of : facts[i].id,
				  reason_of(&facts[i]));

	if (facts[0].type == CRM_FACT_SCAN)
		load_all(&ledger, contacts, ncontacts, &scans);
	else if (look_up)
		load_known_facts(&ledger, facts, nfacts, array);
	else
		load_new_facts(&ledger, facts, nfacts, array);
	write_differences(&ledger);
	if (ledger.definitions->has_tiers)
		crm_tiers_settle(contacts, causes, ncontacts, ledger.reason);
}

void
crm_loyalty_settle(const CrmFact *facts, int64 nfacts)
{
	const CrmDefinitions *definitions = crm_definitions();
	MemoryContext context;
	MemoryContext old;
	CrmActing acting;
	CrmFact *some;
	int64 nsome = 0;
	bool look_up;

	if (definitions->nearning_rules == 0 && !definitions->has_tiers)
		return;
	look_up = reconciled_in_transaction();
	crm_connect(&acting);
	context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm points", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	some = MemoryContextAllocHuge(context, sizeof(CrmFact) * nfacts);
	for (int64 i = 0; i < nfacts; i++)
		if (matters(definitions, &facts[i]))
		{
			look_up |= facts[i].type == CRM_FACT_REFUND;
			some[nsome++] = facts[i];
		}
	if (look_up && nsome > 0)
		reconciled_in = GetTopFullTransactionId();
	run = crm_run;
	for (int64 start = 0, end = 0; start < nsome; start = end)
	{
		MemoryContext part = AllocSetContextCreate(context, "pg_crm points part",
												   ALLOCSET_DEFAULT_SIZES);
		int64 contacts[CRM_HISTORY_CHUNK];
		TimestampTz causes[CRM_HISTORY_CHUNK];
		int ncontacts = 0;

		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(part);
		for (; end < nsome; end++)
		{
			if (ncontacts == 0 || contacts[ncontacts - 1] != some[end].contact_id)
			{
				if (ncontacts == CRM_HISTORY_CHUNK)
					break;
				contacts[ncontacts++] = some[end].contact_id;
			}
			causes[ncontacts - 1] = some[end].occurred_at;
		}
		settle_part(some + start, end - start, contacts, causes, ncontacts, look_up);
		MemoryContextSwitchTo(context);
		MemoryContextDelete(part);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	crm_disconnect(&acting);
}

void
crm_loyalty_recompute(const int64 *contacts, int ncontacts, TimestampTz cause, const char *reason)
{
	CrmActing acting;
	MemoryContext context;
	MemoryContext old;

	crm_connect(&acting);
	context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm points anew",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	reconciled_in = GetTopFullTransactionId();
	run = crm_run;
	for (int start = 0; start < ncontacts; start += CRM_HISTORY_CHUNK)
	{
		int n = Min(CRM_HISTORY_CHUNK, ncontacts - start);
		Datum array = crm_int64_array(contacts + start, n);
		TimestampTz causes[CRM_HISTORY_CHUNK];
		Ledger ledger;

		CHECK_FOR_INTERRUPTS();
		ledger_init(&ledger);
		ledger.cause = cause;
		ledger.reason = reason;
		crm_run(&rebuild_balances, &array, NULL);
		load_all(&ledger, contacts + start, n, NULL);
		write_differences(&ledger);
		for (int i = 0; i < n; i++)
			causes[i] = cause;
		crm_tiers_settle(contacts + start, causes, n, reason);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	crm_disconnect(&acting);
}

int64
crm_points_enter(int64 contact_id, int64 loyalty_program_id, int64 points, const char *reason,
				 int64 *point_entry_id)
{
	TimestampTz now = crm_now();
	CrmColumn columns[E_COLUMNS];
	CrmActing acting;
	int64 balance;

	crm_connect(&acting);
	init_entries(columns);
	crm_column_add(&columns[E_CONTACT_ID], Int64GetDatum(contact_id), false);
	crm_column_add(&columns[E_PROGRAM], Int64GetDatum(loyalty_program_id), false);
	crm_column_add(&columns[E_KIND], CStringGetTextDatum(points > 0 ? "earned" : "spent"), false);
	crm_column_add(&columns[E_POINTS], Int64GetDatum(points), false);
	crm_column_add(&columns[E_RULE], (Datum) 0, true);
	crm_column_add(&columns[E_SOURCE_TABLE], (Datum) 0, true);
	crm_column_add(&columns[E_SOURCE_ID], (Datum) 0, true);
	crm_column_add(&columns[E_CORRECTION], BoolGetDatum(false), false);
	crm_column_add(&columns[E_SOURCE_AT], TimestampTzGetDatum(now), false);
	crm_column_add(&columns[E_OCCURRED_AT], TimestampTzGetDatum(now), false);
	crm_column_add(&columns[E_REASON], reason == NULL ? (Datum) 0 : CStringGetTextDatum(reason),
				   reason == NULL);
	crm_column_add(&columns[E_CAUSE_ID], (Datum) 0, true);
	write_entries(columns);
	*point_entry_id = crm_result_int64(0, 1);
	balance = crm_result_int64(0, 2);
	if (points > 0 && crm_definitions()->has_tiers)
		crm_tiers_settle(&contact_id, &now, 1, "earn_points");
	crm_disconnect(&acting);
	return balance;
}

void
crm_points_verify(const int64 *contacts, int ncontacts, CrmDifference differs, void *arg)
{
	Ledger ledger;
	Sum **sums;
	int n;

	ledger_init(&ledger);
	run = crm_read;
	load_all(&ledger, contacts, ncontacts, NULL);
	sums = differing_sums(&ledger, &n);
	for (int i = 0; i < n; i++)
		differs(arg, sums[i]->key.contact_id,
				psprintf("points by %s for %s %lld", ledger.names[sums[i]->key.rule],
						 source_tables[sums[i]->key.source], (long long) sums[i]->key.source_id),
				psprintf("%lld", (long long) sums[i]->target),
				psprintf("%lld", (long long) sums[i]->stored));
}
