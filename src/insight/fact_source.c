/*
 * fact_source.c
 *		Facts of a kind for which a rule holds, as something that a statement
 *		reads. Without a rule that is a sub-select that the planner looks into;
 *		with one the facts are read, the rule is asked of them, and those for
 *		which it holds become a relation of the statement.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/db.h"
#include "insight/fact_source.h"
#include "journey/journey.h"
#include "journey/past.h"
#include "pg_crm.h"
#include "rules/fact_rule.h"

/* facts of which a rule is asked together */
#define BATCH 5000

/* Orders with what was refunded of them; one refunded in full counts nowhere. */
#define NET "t.amount - coalesce(r.refunded, 0)"
#define NET_ORDERS                                                                 \
	"crm.transaction t LEFT JOIN (SELECT b.contact_id, b.refund_of, sum(b.amount)" \
	" AS refunded FROM crm.transaction b WHERE b.kind = 'refund'"                  \
	" GROUP BY b.contact_id, b.refund_of) r"                                       \
	" ON r.contact_id = t.contact_id AND r.refund_of = t.transaction_id"           \
	" WHERE t.kind = 'purchase' AND (t.amount = 0 OR t.amount > coalesce(r.refunded, 0))"

/* Where facts of a kind are. */
typedef struct Place
{
	const char *kind; /* NULL: every other */
	const char *contact_id;
	const char *table; /* as the rows name it */
	const char *id;
	const char *at;
	const char *amount;  /* in pg_crm.currency */
	const char *columns; /* of the fact, for rules */
	const char *from; /* FROM and WHERE; of every other kind, that it is this one comes after it */
} Place;

static const Place places[] = {
	{ "purchase", "t.contact_id", "transaction", "t.transaction_id", "t.occurred_at",
	  "CASE WHEN t.currency = crm.default_currency() THEN " NET " END", CRM_PAST_ORDER(NET),
	  NET_ORDERS },
	{ "refund", "t.contact_id", "transaction", "t.transaction_id", "t.occurred_at", "NULL::numeric",
	  CRM_PAST_ORDER("t.amount"), "crm.transaction t WHERE t.kind = 'refund'" },
	{ "scan", "s.contact_id", "scan", "s.scan_id", "s.occurred_at", "NULL::numeric", CRM_PAST_SCAN,
	  "crm.scan s LEFT JOIN crm.qr_code q ON q.qr_code_id = s.qr_code_id WHERE true" },
	/* what has no id is told apart by its time, or by what it is about */
	{ CRM_SIGNAL_STAGE, "m.contact_id", "stage_move",
	  "(extract(epoch FROM m.since) * 1000000)::bigint", "m.since", "NULL::numeric", CRM_PAST_STAGE,
	  "crm.stage_move m WHERE isfinite(m.since)" },
	{ CRM_SIGNAL_AWARD, "a.contact_id", "award",
	  "hashtextextended(a.achievement || ' ' || a.threshold, 0)", "a.awarded_at", "NULL::numeric",
	  CRM_PAST_AWARD, "crm.award a WHERE a.revoked_at IS NULL" },
	{ CRM_SIGNAL_SEGMENT_ENTER, "c.contact_id", "segment_change", "c.segment_change_id",
	  "c.occurred_at", "NULL::numeric", CRM_PAST_SEGMENT,
	  "crm.segment_change c WHERE c.change = 'entered'" },
	{ CRM_SIGNAL_SEGMENT_LEAVE, "c.contact_id", "segment_change", "c.segment_change_id",
	  "c.occurred_at", "NULL::numeric", CRM_PAST_SEGMENT,
	  "crm.segment_change c WHERE c.change = 'left'" },
	{ NULL, "e.contact_id", "event", "e.event_id", "e.occurred_at", "NULL::numeric", CRM_PAST_EVENT,
	  "crm.event e WHERE e.kind = " },
};

static const Place *
place_of(const char *kind)
{
	const Place *place = places;

	while (place->kind != NULL && strcmp(place->kind, kind) != 0)
		place++;
	return place;
}

/* A misspelt kind would count nobody. Kinds of the extension's own may have no facts yet. */
static void
check_kind(const char *kind)
{
	static const char *const own[] = { "follow",       "unfollow",      "message",
									   "menu_click",   "enter_session", "join_loyalty",
									   "bind_mobile",  "set_stage",     "field_change",
									   "issue_coupon", "redeem_coupon", "suppress",
									   "unsuppress",   "grant_consent", "withdraw_consent" };
	static CrmPlan plan = { "SELECT FROM crm.event e WHERE e.kind = $1 LIMIT 1", 1, { TEXTOID } };
	Datum value = CStringGetTextDatum(kind);

	for (int i = 0; i < lengthof(own); i++)
		if (strcmp(own[i], kind) == 0)
			return;
	if (crm_read(&plan, &value, NULL) == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
			 errmsg("there is no fact of kind \"%s\"",
					pnstrdup(kind, pg_mbcliplen(kind, strlen(kind), CRM_MAX_KIND_BYTES))),
			 errhint(
				 "A kind is purchase, refund, scan, stage_move, award, segment_entered, segment_left, or that of an event that was recorded.")));
}

static void
append_select(StringInfo sql, const CrmFactSource *source, const Place *place, bool columns)
{
	appendStringInfo(sql,
					 "SELECT %s AS contact_id, '%s'::text AS source_table, %s AS source_id,"
					 " %s AS occurred_at, %s AS amount",
					 place->contact_id, place->table, place->id, place->at, place->amount);
	if (columns)
		appendStringInfo(sql, ", %s", place->columns);
	appendStringInfo(sql, " FROM %s%s", place->from,
					 place->kind == NULL ? quote_literal_cstr(source->kind) : "");
}

/* ---------- with a rule ---------- */

#define KEPT_COLUMNS 5

typedef struct Kept
{
	TupleDesc descriptor;
	Tuplestorestate *rows;
} Kept;

static Kept *
make_kept(void)
{
	static const struct
	{
		const char *name;
		Oid type;
	} columns[KEPT_COLUMNS] = {
		{ "contact_id", INT8OID },         { "source_table", TEXTOID }, { "source_id", INT8OID },
		{ "occurred_at", TIMESTAMPTZOID }, { "amount", NUMERICOID },
	};
	Kept *kept = palloc(sizeof(Kept));

	kept->descriptor = CreateTemplateTupleDesc(KEPT_COLUMNS);
	for (int i = 0; i < KEPT_COLUMNS; i++)
		TupleDescInitEntry(kept->descriptor, i + 1, columns[i].name, columns[i].type, -1, 0);
	kept->rows = tuplestore_begin_heap(true, false, work_mem);
	return kept;
}

/* The facts of the current result as the rule reads them; they live as long as it. */
static CrmFactValues *
read_facts(const char *kind, uint64 n)
{
	CrmFactValues *facts = palloc0_array(CrmFactValues, n);
	Datum kind_value = CStringGetTextDatum(kind);

	for (uint64 row = 0; row < n; row++)
	{
		CrmFactValues *fact = &facts[row];
		bool isnull;

		fact->contact_id = crm_result_int64(row, 1);
		fact->as_of = DatumGetTimestampTz(crm_result(row, 4, &isnull));
		fact->values[CRM_F_KIND] = kind_value;
		fact->values[CRM_F_OCCURRED_AT] = TimestampTzGetDatum(fact->as_of);
		for (int column = CRM_F_AMOUNT; column < CRM_FACT_COLUMNS; column++)
			fact->values[column] = crm_result(row, KEPT_COLUMNS + 1 + column - CRM_F_AMOUNT,
											  &fact->nulls[column]);
	}
	return facts;
}

static void
keep_facts(Kept *kept, CrmFactRule *rule, const CrmFactSource *source, uint64 n)
{
	SPITupleTable *result = SPI_tuptable;
	CrmFactValues *facts = read_facts(source->kind, n);
	bool *holds = palloc0_array(bool, n);

	crm_fact_rule_evaluate(rule, source->user, facts, n, holds);
	for (uint64 row = 0; row < n; row++)
	{
		Datum values[KEPT_COLUMNS];
		bool nulls[KEPT_COLUMNS];

		if (!holds[row])
			continue;
		for (int i = 0; i < KEPT_COLUMNS; i++)
			values[i] = SPI_getbinval(result->vals[row], result->tupdesc, i + 1, &nulls[i]);
		tuplestore_putvalues(kept->rows, kept->descriptor, values, nulls);
	}
}

/* Reads the facts in batches, by the snapshot of the calling statement. */
static void
load(Kept *kept, CrmFactRule *rule, const CrmFactSource *source, const Place *place)
{
	static const Oid types[2] = { TIMESTAMPTZOID, TIMESTAMPTZOID };
	Datum values[2] = { TimestampTzGetDatum(source->from), TimestampTzGetDatum(source->until) };
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm facts of a report",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old;
	StringInfoData sql;
	Portal portal;

	initStringInfo(&sql);
	append_select(&sql, source, place, true);
	appendStringInfo(&sql, " AND %s BETWEEN $1 AND $2", place->at);
	portal = SPI_cursor_open_with_args(NULL, sql.data, lengthof(types),
									   unconstify(Oid *, &types[0]), values, NULL, true, 0);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		SPI_cursor_fetch(portal, true, BATCH);
		if (SPI_processed == 0)
			break;
		old = MemoryContextSwitchTo(context);
		keep_facts(kept, rule, source, SPI_processed);
		MemoryContextSwitchTo(old);
		SPI_freetuptable(SPI_tuptable);
		MemoryContextReset(context);
	}
	SPI_cursor_close(portal);
	MemoryContextDelete(context);
}

static void
name_kept(const Kept *kept, const char *name)
{
	EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));
	int code;

	relation->md.name = pstrdup(name);
	relation->md.reliddesc = InvalidOid;
	relation->md.tupdesc = kept->descriptor;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = tuplestore_tuple_count(kept->rows);
	relation->reldata = kept->rows;
	code = SPI_register_relation(relation);
	if (code != SPI_OK_REL_REGISTER)
		elog(ERROR, "SPI_register_relation failed: %s", SPI_result_code_string(code));
}

const char *
crm_fact_source(const CrmFactSource *source, const char *name)
{
	const Place *place = place_of(source->kind);
	StringInfoData sql;
	Kept *kept;

	if (place->kind == NULL)
		check_kind(source->kind);
	if (source->rule == NULL)
	{
		initStringInfo(&sql);
		appendStringInfoChar(&sql, '(');
		append_select(&sql, source, place, false);
		appendStringInfoChar(&sql, ')');
		return sql.data;
	}
	kept = make_kept();
	load(kept, crm_fact_rule_compile(source->rule), source, place);
	name_kept(kept, name);
	return name;
}
