/*
 * history.c
 *		Everything recorded about some contacts, and what a walk over it gives.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/guc.h"
#include "profile/history.h"

#define STORED                                                                                      \
	"p.contact_id, p.orders, p.spend, p.first_order_at, p.last_order_at, p.refunds, p.scans,"       \
	" p.raw_scans, p.followed_at, p.mobile_at, p.events, p.first_seen_at, p.last_seen_at, p.stage," \
	" p.stage_since, p.stage_manual, p.ranked_stage, p.settled_at, c.created_at, c.stage"

static CrmPlan select_profiles = {
	"SELECT " STORED ", (SELECT min(i.bound_at) FROM crm.identity i"
	"   WHERE i.contact_id = p.contact_id AND i.kind = 'mobile')"
	" FROM crm.profile_counter p JOIN crm.contact c ON c.contact_id = p.contact_id"
	" WHERE p.contact_id = ANY ($1) ORDER BY p.contact_id",
	1,
	{ INT8ARRAYOID }
};
static CrmPlan select_stored = { "SELECT " STORED ", d.due_at FROM crm.profile_counter p"
								 " JOIN crm.contact c ON c.contact_id = p.contact_id"
								 " JOIN crm.stage_due d ON d.contact_id = p.contact_id"
								 " WHERE p.contact_id = ANY ($1) ORDER BY p.contact_id",
								 1,
								 { INT8ARRAYOID } };
static CrmPlan select_transactions = {
	"SELECT t.contact_id, t.transaction_id, t.kind = 'refund', t.occurred_at, t.amount, t.currency,"
	" t.external_ref, t.refund_of, t.store_id, CASE WHEN $2 THEN t.items END"
	" FROM crm.transaction t WHERE t.contact_id = ANY ($1)",
	2,
	{ INT8ARRAYOID, BOOLOID }
};
static CrmPlan select_events = {
	"SELECT e.contact_id, e.event_id, e.kind, e.occurred_at, e.account_id,"
	" CASE WHEN e.kind = 'set_stage' THEN e.properties ->> 'stage' END,"
	" CASE WHEN e.kind = 'set_stage' THEN e.properties ->> 'reason' END,"
	" CASE WHEN $3 THEN e.properties END"
	" FROM crm.event e WHERE e.contact_id = ANY ($1)"
	" AND (e.kind <> 'field_change' OR 'field_change' = ANY ($2)) AND ($4 OR e.kind = ANY ($2)"
	"  OR e.contact_id = ANY (ARRAY(SELECT m.contact_id FROM crm.event m"
	"   WHERE m.contact_id = ANY ($1) AND m.kind = 'set_stage')))",
	4,
	{ INT8ARRAYOID, TEXTARRAYOID, BOOLOID, BOOLOID }
};
/* with what is gone of them, in one statement, as what goes from one comes into the other */
static CrmPlan summarize_events = {
	"SELECT e.contact_id, count(*), min(e.occurred_at), max(e.occurred_at), 0::bigint, 0::bigint"
	" FROM crm.event e WHERE e.contact_id = ANY ($1) AND e.kind <> 'field_change'"
	" GROUP BY e.contact_id"
	" UNION ALL SELECT b.contact_id, b.facts, b.first_at, b.last_at, b.facts, 0"
	" FROM crm.opening_balance b WHERE b.contact_id = ANY ($1) AND b.table_name = 'event'"
	" UNION ALL SELECT b.contact_id, 0, b.first_at, b.last_at, 0, b.facts"
	" FROM crm.opening_balance b WHERE b.contact_id = ANY ($1) AND b.table_name = 'scan'",
	1,
	{ INT8ARRAYOID }
};
static CrmPlan select_scans = {
	/* as a join: first_scan has no index by scan, and some contacts scan a thousand times */
	"SELECT s.contact_id, s.scan_id, s.occurred_at, f.scan_id IS NOT NULL, s.qr_code_id, q.store_id,"
	" q.campaign FROM crm.scan s LEFT JOIN crm.qr_code q ON $2 AND q.qr_code_id = s.qr_code_id"
	" LEFT JOIN (SELECT DISTINCT c.contact_id, c.scan_id FROM crm.first_scan c"
	"  WHERE c.contact_id = ANY ($1)) f ON f.contact_id = s.contact_id AND f.scan_id = s.scan_id"
	" WHERE s.contact_id = ANY ($1)",
	2,
	{ INT8ARRAYOID, BOOLOID }
};
static CrmPlan select_awards = {
	"SELECT a.contact_id, a.achievement, a.threshold, a.awarded_at, a.source_id, a.revoked_at"
	" FROM crm.award a WHERE a.contact_id = ANY ($1) ORDER BY a.contact_id",
	1,
	{ INT8ARRAYOID }
};
static CrmPlan select_moves = {
	"SELECT m.contact_id, m.since, m.stage, m.reason"
	" FROM crm.stage_move m WHERE m.contact_id = ANY ($1) ORDER BY m.contact_id, m.since",
	1,
	{ INT8ARRAYOID }
};

/* how the histories at hand are read: crm_run or crm_read */
static uint64 (*run)(CrmPlan *plan, const Datum *values, const char *nulls);

/* facts of all contacts of a chunk while they are gathered */
typedef struct FactList
{
	int64 n;
	int64 size;
	CrmFact *facts;
} FactList;

static CrmFact *
add_fact(FactList *list)
{
	if (list->n == list->size)
	{
		list->size = list->size == 0 ? 64 : list->size * 2;
		if (list->facts == NULL)
			list->facts = palloc(sizeof(CrmFact) * list->size);
		else
			list->facts = repalloc_huge(list->facts, sizeof(CrmFact) * list->size);
	}
	memset(&list->facts[list->n], 0, sizeof(CrmFact));
	return &list->facts[list->n++];
}

static TimestampTz
result_time(uint64 row, int column, bool *isnull)
{
	return DatumGetTimestampTz(crm_result(row, column, isnull));
}

void
crm_fact_detail(CrmFact *fact, CrmFactColumn column, uint64 row, int result_column, bool by_value)
{
	bool isnull;
	Datum value = crm_result(row, result_column, &isnull);

	crm_fact_set(fact, column, value, isnull, by_value);
}

static void
read_stored(CrmHistory *history, uint64 row)
{
	bool isnull;

	for (int column = 0; column < CRM_PROFILE_COLUMNS; column++)
	{
		Datum value = crm_result(row, column + 1, &history->nulls[column]);

		if (!history->nulls[column] &&
			(column == CRM_P_SPEND || column == CRM_P_STAGE || column == CRM_P_RANKED_STAGE))
			value = datumCopy(value, false, -1);
		history->values[column] = value;
	}
	history->contact_id = DatumGetInt64(history->values[CRM_P_CONTACT_ID]);
	history->created_at = result_time(row, CRM_PROFILE_COLUMNS + 1, &isnull);
	history->contact_stage = crm_result_text(row, CRM_PROFILE_COLUMNS + 2);
}

CrmHistory *
crm_history_load_stored(const int64 *contacts, int ncontacts, int *nhistories)
{
	Datum array = crm_int64_array(contacts, ncontacts);
	uint64 n = crm_run(&select_stored, &array, NULL);
	CrmHistory *histories = palloc0(sizeof(CrmHistory) * Max(n, 1));

	for (uint64 row = 0; row < n; row++)
	{
		bool isnull;

		read_stored(&histories[row], row);
		histories[row].due_at = result_time(row, CRM_PROFILE_COLUMNS + 3, &isnull);
	}
	SPI_freetuptable(SPI_tuptable);
	*nhistories = n;
	return histories;
}

static void
load_profiles(CrmHistory **histories, int *nhistories, Datum contacts, FactList *list,
			  MemoryContext context)
{
	uint64 n = run(&select_profiles, &contacts, NULL);
	MemoryContext old = MemoryContextSwitchTo(context);

	*nhistories = n;
	*histories = palloc0(sizeof(CrmHistory) * Max(n, 1));
	for (uint64 row = 0; row < n; row++)
	{
		CrmHistory *history = &(*histories)[row];
		bool isnull;
		TimestampTz mobile_at;

		read_stored(history, row);
		mobile_at = result_time(row, CRM_PROFILE_COLUMNS + 3, &isnull);
		if (!isnull)
		{
			CrmFact *fact = add_fact(list);

			fact->contact_id = history->contact_id;
			fact->type = CRM_FACT_MOBILE;
			fact->occurred_at = mobile_at;
		}
	}
	MemoryContextSwitchTo(old);
}

static void
load_transactions(const CrmDefinitions *definitions, Datum contacts, FactList *list,
				  MemoryContext context)
{
	Datum values[2] = { contacts, BoolGetDatum(definitions->reads_details) };
	uint64 n = run(&select_transactions, values, NULL);
	MemoryContext old = MemoryContextSwitchTo(context);

	for (uint64 row = 0; row < n; row++)
	{
		CrmFact *fact = add_fact(list);
		bool isnull;
		char *currency;

		fact->contact_id = crm_result_int64(row, 1);
		fact->id = crm_result_int64(row, 2);
		fact->type = DatumGetBool(crm_result(row, 3, &isnull)) ? CRM_FACT_REFUND
															   : CRM_FACT_PURCHASE;
		fact->occurred_at = result_time(row, 4, &isnull);
		fact->amount = datumCopy(crm_result(row, 5, &isnull), false, -1);
		currency = crm_result_text(row, 6);
		fact->own_currency = strcmp(currency, crm_guc_currency) == 0;
		fact->reference = crm_result_text(row, 7);
		fact->refund_of = crm_result_int64(row, 8);
		fact->counted = true;
		if (definitions->reads_details)
		{
			crm_fact_detail(fact, CRM_F_CURRENCY, row, 6, false);
			crm_fact_detail(fact, CRM_F_STORE_ID, row, 9, true);
			crm_fact_detail(fact, CRM_F_ITEMS, row, 10, false);
		}
	}
	MemoryContextSwitchTo(old);
}

static void
load_events(const CrmDefinitions *definitions, Datum contacts, FactList *list,
			MemoryContext context)
{
	Datum values[4] = { contacts, (Datum) 0, BoolGetDatum(definitions->reads_details),
						BoolGetDatum(definitions->every_fact_matters) };
	CrmColumn kinds;
	uint64 n;
	MemoryContext old;

	/* kinds that move nothing are summarized; all are read where a stage was set by hand */
	crm_column_init(&kinds, TEXTOID);
	for (int i = CRM_KIND_FOLLOW; i < definitions->nkinds; i++)
		crm_column_add(&kinds, CStringGetTextDatum(definitions->kinds[i]), false);
	values[1] = crm_column_array(&kinds);
	n = run(&select_events, values, NULL);

	old = MemoryContextSwitchTo(context);
	for (uint64 row = 0; row < n; row++)
	{
		CrmFact *fact = add_fact(list);
		bool isnull;
		char *kind = crm_result_text(row, 3);

		fact->contact_id = crm_result_int64(row, 1);
		fact->id = crm_result_int64(row, 2);
		fact->type = CRM_FACT_EVENT;
		fact->kind = crm_definition_event_kind(definitions, kind);
		fact->unseen = strcmp(kind, "field_change") == 0;
		fact->occurred_at = result_time(row, 4, &isnull);
		fact->account_id = crm_result_int64(row, 5);
		if (fact->kind == CRM_KIND_SET_STAGE)
		{
			char *reason = crm_result_text(row, 7);

			fact->type = CRM_FACT_MANUAL_STAGE;
			fact->detail = crm_result_text(row, 6);
			fact->reason = reason == NULL ? "manual" : psprintf("manual: %s", reason);
		}
		if (definitions->reads_details)
			crm_fact_detail(fact, CRM_F_PROPERTIES, row, 8, false);
	}
	MemoryContextSwitchTo(old);
}

static void
load_scans(const CrmDefinitions *definitions, Datum contacts, FactList *list, MemoryContext context)
{
	Datum values[2] = { contacts, BoolGetDatum(definitions->reads_details) };
	uint64 n = run(&select_scans, values, NULL);
	MemoryContext old = MemoryContextSwitchTo(context);

	for (uint64 row = 0; row < n; row++)
	{
		CrmFact *fact = add_fact(list);
		bool isnull;

		fact->contact_id = crm_result_int64(row, 1);
		fact->id = crm_result_int64(row, 2);
		fact->type = CRM_FACT_SCAN;
		fact->occurred_at = result_time(row, 3, &isnull);
		fact->counted = DatumGetBool(crm_result(row, 4, &isnull));
		if (definitions->reads_details)
		{
			crm_fact_detail(fact, CRM_F_QR_CODE_ID, row, 5, true);
			crm_fact_detail(fact, CRM_F_STORE_ID, row, 6, true);
			crm_fact_detail(fact, CRM_F_CAMPAIGN, row, 7, false);
		}
	}
	MemoryContextSwitchTo(old);
}

static int
compare_contact(const void *a, const void *b)
{
	int64 left = *(const int64 *) a;
	int64 right = ((const CrmHistory *) b)->contact_id;

	return (left > right) - (left < right);
}

static CrmHistory *
find_history(CrmHistory *histories, int nhistories, int64 contact_id)
{
	return bsearch(&contact_id, histories, nhistories, sizeof(CrmHistory), compare_contact);
}

static void
see(CrmHistory *history, TimestampTz first, TimestampTz last)
{
	if (!history->seen || first < history->first_seen_at)
		history->first_seen_at = first;
	if (!history->seen || last > history->last_seen_at)
		history->last_seen_at = last;
	history->seen = true;
}

static void
load_event_summary(CrmHistory *histories, int nhistories, Datum contacts)
{
	uint64 n = run(&summarize_events, &contacts, NULL);

	for (uint64 row = 0; row < n; row++)
	{
		CrmHistory *history = find_history(histories, nhistories, crm_result_int64(row, 1));
		bool isnull;

		if (history == NULL)
			continue;
		history->events += crm_result_int64(row, 2);
		history->opening_events += crm_result_int64(row, 5);
		history->opening_scans += crm_result_int64(row, 6);
		see(history, result_time(row, 3, &isnull), result_time(row, 4, &isnull));
	}
}

static void
load_awards(CrmHistory *histories, int nhistories, Datum contacts, MemoryContext context)
{
	uint64 n = run(&select_awards, &contacts, NULL);
	MemoryContext old = MemoryContextSwitchTo(context);

	for (uint64 row = 0; row < n; row++)
	{
		CrmHistory *history = find_history(histories, nhistories, crm_result_int64(row, 1));
		CrmStoredAward *award;
		bool isnull;

		if (history == NULL)
			continue;
		if (history->nawards == history->awards_size)
		{
			history->awards_size = history->awards_size == 0 ? 8 : history->awards_size * 2;
			history->awards = history->awards == NULL
				? palloc_array(CrmStoredAward, history->awards_size)
				: repalloc_array(history->awards, CrmStoredAward, history->awards_size);
		}
		award = &history->awards[history->nawards++];
		memset(award, 0, sizeof(CrmStoredAward));
		award->achievement = crm_result_text(row, 2);
		award->threshold = datumCopy(crm_result(row, 3, &isnull), false, -1);
		award->awarded_at = result_time(row, 4, &isnull);
		award->source_id = crm_result_int64(row, 5);
		award->revoked_at = result_time(row, 6, &isnull);
		award->revoked = !isnull;
	}
	MemoryContextSwitchTo(old);
}

static void
load_moves(CrmHistory *histories, int nhistories, Datum contacts, MemoryContext context)
{
	uint64 n = run(&select_moves, &contacts, NULL);
	MemoryContext old = MemoryContextSwitchTo(context);
	CrmStoredMove *moves = palloc(sizeof(CrmStoredMove) * Max(n, 1));

	for (uint64 row = 0; row < n; row++)
	{
		CrmHistory *history = find_history(histories, nhistories, crm_result_int64(row, 1));
		bool isnull;

		/* rows come contact by contact, so a contact's moves stand together */
		moves[row].since = result_time(row, 2, &isnull);
		moves[row].stage = crm_result_text(row, 3);
		moves[row].reason = crm_result_text(row, 4);
		if (history == NULL)
			continue;
		if (history->moves == NULL)
			history->moves = &moves[row];
		history->nmoves++;
	}
	MemoryContextSwitchTo(old);
}

CrmHistory *
crm_history_load(const CrmDefinitions *definitions, const int64 *contacts, int ncontacts,
				 bool read_only, int *nhistories)
{
	MemoryContext context = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(context, "pg_crm history rows",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	CrmHistory *histories;
	FactList list = { 0 };
	Datum array = crm_int64_array(contacts, ncontacts);
	int64 fact = 0;

	run = read_only ? crm_read : crm_run;
	load_profiles(&histories, nhistories, array, &list, context);
	SPI_freetuptable(SPI_tuptable);
	load_transactions(definitions, array, &list, context);
	SPI_freetuptable(SPI_tuptable);
	load_events(definitions, array, &list, context);
	SPI_freetuptable(SPI_tuptable);
	load_scans(definitions, array, &list, context);
	SPI_freetuptable(SPI_tuptable);
	load_event_summary(histories, *nhistories, array);
	SPI_freetuptable(SPI_tuptable);
	load_awards(histories, *nhistories, array, context);
	SPI_freetuptable(SPI_tuptable);
	load_moves(histories, *nhistories, array, context);
	SPI_freetuptable(SPI_tuptable);

	if (definitions->reads_fields)
	{
		crm_fields_load(definitions, histories, *nhistories, array, read_only, context);
		crm_field_changes_load(definitions, list.facts, list.n, array, read_only, context);
	}
	crm_facts_sort(list.facts, list.n);
	for (int i = 0; i < *nhistories; i++)
	{
		CrmHistory *history = &histories[i];

		while (fact < list.n && list.facts[fact].contact_id < history->contact_id)
			fact++;
		history->facts = &list.facts[fact];
		for (; fact < list.n && list.facts[fact].contact_id == history->contact_id; fact++)
		{
			history->nfacts++;
			if (list.facts[fact].type != CRM_FACT_MOBILE &&
				list.facts[fact].type != CRM_FACT_REFUND && !list.facts[fact].unseen)
				see(history, list.facts[fact].occurred_at, list.facts[fact].occurred_at);
		}
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	return histories;
}

static int
compare_id(const void *a, const void *b)
{
	int64 left = *(const int64 *) a;
	int64 right = *(const int64 *) b;

	return (left > right) - (left < right);
}

static int
compare_order_id(const void *a, const void *b)
{
	int64 left = (*(CrmFact *const *) a)->id;
	int64 right = (*(CrmFact *const *) b)->id;

	return (left > right) - (left < right);
}

/* Net amounts of the orders: the amount less all refunds that are let in. */
static CrmFact *
net_orders(CrmHistory *history, const int64 *left_out, int nleft_out)
{
	CrmFact *facts = palloc(sizeof(CrmFact) * Max(history->nfacts, 1));
	CrmFact **orders = palloc(sizeof(CrmFact *) * Max(history->nfacts, 1));
	int norders = 0;

	memcpy(facts, history->facts, sizeof(CrmFact) * history->nfacts);
	for (int i = 0; i < history->nfacts; i++)
		if (facts[i].type == CRM_FACT_PURCHASE)
			orders[norders++] = &facts[i];
	qsort(orders, norders, sizeof(CrmFact *), compare_order_id);

	for (int i = 0; i < history->nfacts; i++)
	{
		CrmFact key = { .id = facts[i].refund_of };
		CrmFact *sought = &key;
		CrmFact **order;

		if (facts[i].type != CRM_FACT_REFUND ||
			(nleft_out > 0 &&
			 bsearch(&facts[i].id, left_out, nleft_out, sizeof(int64), compare_id)))
			continue;
		order = bsearch(&sought, orders, norders, sizeof(CrmFact *), compare_order_id);
		if (order == NULL)
			continue;
		(*order)->amount = DirectFunctionCall2(numeric_sub, (*order)->amount, facts[i].amount);
		if (DatumGetInt32(DirectFunctionCall2(numeric_cmp, (*order)->amount,
											  NumericGetDatum(int64_to_numeric(0)))) <= 0)
			(*order)->counted = false;
	}
	return facts;
}

void
crm_history_walk(CrmHistory *history, CrmWalk *walk, const int64 *left_out, int nleft_out,
				 TimestampTz until)
{
	CrmFact *facts = history->facts;
	TimestampTz begin = history->created_at;
	bool refunds = false;

	for (int i = 0; i < history->nfacts && !refunds; i++)
		refunds = facts[i].type == CRM_FACT_REFUND;
	if (refunds)
		facts = net_orders(history, left_out, nleft_out);
	if (history->seen && history->first_seen_at < begin)
		begin = history->first_seen_at;
	if (history->nfacts > 0 && facts[0].occurred_at < begin)
		begin = facts[0].occurred_at; /* an identifier known before */

	if (walk->definitions->reads_fields)
		crm_fields_begin(history, walk);
	crm_walk_begin(walk, history->contact_id, begin);
	walk->counts_seen = walk->definitions->every_fact_matters;
	walk->values[CRM_P_RAW_SCANS] = Int64GetDatum(history->opening_scans);
	if (walk->counts_seen)
		walk->values[CRM_P_EVENTS] = Int64GetDatum(history->opening_events);
	for (int i = 0; i < history->nfacts; i++)
		crm_walk_step(walk, &facts[i]);
	if (!history->nulls[CRM_P_SETTLED_AT])
		until = Max(until, DatumGetTimestampTz(history->values[CRM_P_SETTLED_AT]));
	crm_walk_advance(walk, until);

	/* what is summarized holds at the end, whether each event was walked or not */
	walk->values[CRM_P_EVENTS] = Int64GetDatum(history->events);
	walk->nulls[CRM_P_FIRST_SEEN_AT] = walk->nulls[CRM_P_LAST_SEEN_AT] = !history->seen;
	walk->values[CRM_P_FIRST_SEEN_AT] = TimestampTzGetDatum(history->first_seen_at);
	walk->values[CRM_P_LAST_SEEN_AT] = TimestampTzGetDatum(history->last_seen_at);
}

CrmStoredAward *
crm_history_award(CrmHistory *history, const CrmAchievement *achievement, int threshold)
{
	for (int i = 0; i < history->nawards; i++)
	{
		CrmStoredAward *award = &history->awards[i];

		if (strcmp(award->achievement, achievement->name) == 0 &&
			DatumGetBool(DirectFunctionCall2(numeric_eq, award->threshold,
											 achievement->thresholds[threshold])))
			return award;
	}
	return NULL;
}

bool
crm_award_is_revocable(const CrmDefinitions *definitions, const CrmStoredAward *award)
{
	for (int i = 0; i < definitions->nachievements; i++)
		if (strcmp(definitions->achievements[i].name, award->achievement) == 0)
			return definitions->achievements[i].revocable;
	return true; /* the definition is gone */
}
