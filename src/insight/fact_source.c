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
	" ON r.contact_id = t.contact_id AND r.refund_of = t.transaction_id"
#define IS_NET_ORDER "t.kind = 'purchase' AND (t.amount = 0 OR t.amount > coalesce(r.refunded, 0))"

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
	const char *from;
	const char *where; /* of every other kind its name comes after it */
} Place;

static const Place places[] = {
	{ "purchase", "t.contact_id", "transaction", "t.transaction_id", "t.occurred_at",
	  "CASE WHEN t.currency = crm.default_currency() THEN " NET " END", CRM_PAST_ORDER(NET),
	  NET_ORDERS, IS_NET_ORDER },
	{ "refund", "t.contact_id", "transaction", "t.transaction_id", "t.occurred_at", "NULL::numeric",
	  CRM_PAST_ORDER("t.amount"), "crm.transaction t", "t.kind = 'refund'" },
	{ "scan", "s.contact_id", "scan", "s.scan_id", "s.occurred_at", "NULL::numeric", CRM_PAST_SCAN,
	  "crm.scan s LEFT JOIN crm.qr_code q ON q.qr_code_id = s.qr_code_id", "true" },
	/* what has no id is told apart by its time, or by what it is about */
	{ CRM_SIGNAL_STAGE, "m.contact_id", "stage_move",
	  "(extract(epoch FROM m.since) * 1000000)::bigint", "m.since", "NULL::numeric", CRM_PAST_STAGE,
	  "crm.stage_move m", "isfinite(m.since)" },
	{ CRM_SIGNAL_AWARD, "a.contact_id", "award",
	  "hashtextextended(a.achievement || ' ' || a.threshold, 0)", "a.awarded_at", "NULL::numeric",
	  CRM_PAST_AWARD, "crm.award a", "a.revoked_at IS NULL" },
	{ CRM_SIGNAL_SEGMENT_ENTER, "c.contact_id", "segment_change", "c.segment_change_id",
	  "c.occurred_at", "NULL::numeric", CRM_PAST_SEGMENT, "crm.segment_change c",
	  "c.change = 'entered'" },
	{ CRM_SIGNAL_SEGMENT_LEAVE, "c.contact_id", "segment_change", "c.segment_change_id",
	  "c.occurred_at", "NULL::numeric", CRM_PAST_SEGMENT, "crm.segment_change c",
	  "c.change = 'left'" },
	{ NULL, "e.contact_id", "event", "e.event_id", "e.occurred_at", "NULL::numeric", CRM_PAST_EVENT,
	  "crm.event e", "e.kind = " },
};

static const Place *
place_of(const char *kind)
{
	const Place *place = places;

	while (place->kind != NULL && strcmp(place->kind, kind) != 0)
		place++;
	return place;
}

/*
 * A misspelt kind would count nobody. Kinds of the extension's own may have no
 * facts yet, and before the first fact no other kind can be told from a misspelt one.
 */
static void
check_kind(const char *kind)
{
	static const char *const own[] = { "follow",       "unfollow",      "message",
									   "menu_click",   "enter_session", "join_loyalty",
									   "bind_mobile",  "set_stage",     "field_change",
									   "issue_coupon", "redeem_coupon", "suppress",
									   "unsuppress",   "grant_consent", "withdraw_consent" };
	static CrmPlan plan = {
		"SELECT FROM (SELECT FROM crm.event e WHERE e.kind = $1"
		" UNION ALL SELECT FROM crm.opening_fact o WHERE o.kind = $1 AND o.kind <> 'scan'"
		" UNION ALL SELECT WHERE $1 <> '' AND NOT EXISTS (SELECT FROM crm.event)"
		"   AND NOT EXISTS (SELECT FROM crm.scan) AND NOT EXISTS (SELECT FROM crm.transaction)"
		"   AND NOT EXISTS (SELECT FROM crm.opening_fact)) k LIMIT 1",
		1,
		{ TEXTOID },
	};
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

static const char *
condition_of(const Place *place, const char *kind)
{
	return place->kind != NULL ? place->where
							   : psprintf("%s%s", place->where, quote_literal_cstr(kind));
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
	appendStringInfo(sql, " FROM %s WHERE %s", place->from, condition_of(place, source->kind));
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

/* A fact of the current result as rules read it, its columns beginning at one; it lives as long as the result. */
static void
read_fact(CrmFactValues *fact, Datum kind, uint64 row, int at, int first)
{
	bool isnull;

	fact->contact_id = crm_result_int64(row, 1);
	fact->as_of = DatumGetTimestampTz(crm_result(row, at, &isnull));
	fact->values[CRM_F_KIND] = kind;
	fact->values[CRM_F_OCCURRED_AT] = TimestampTzGetDatum(fact->as_of);
	for (int column = CRM_F_AMOUNT; column < CRM_FACT_COLUMNS; column++)
		fact->values[column] = crm_result(row, first + column - CRM_F_AMOUNT, &fact->nulls[column]);
}

static void
keep_facts(Kept *kept, CrmFactRule *rule, const CrmFactSource *source, uint64 n)
{
	SPITupleTable *result = SPI_tuptable;
	CrmFactValues *facts = palloc0_array(CrmFactValues, n);
	Datum kind = CStringGetTextDatum(source->kind);
	bool *holds = palloc0_array(bool, n);

	for (uint64 row = 0; row < n; row++)
		read_fact(&facts[row], kind, row, 4, KEPT_COLUMNS + 1);
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

/* Facts read in batches, by the snapshot of the calling statement; what is made of one lies in its context. */
typedef struct Batches
{
	Portal portal;
	MemoryContext context;
	MemoryContext old;
	SPITupleTable *rows;
	uint64 n;
} Batches;

static void
begin_batches(Batches *batches, StringInfo sql, const Place *place, TimestampTz from,
			  TimestampTz until)
{
	static const Oid types[2] = { TIMESTAMPTZOID, TIMESTAMPTZOID };
	Datum values[2] = { TimestampTzGetDatum(from), TimestampTzGetDatum(until) };

	appendStringInfo(sql, " AND %s BETWEEN $1 AND $2", place->at);
	batches->context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm facts of a report",
											 ALLOCSET_DEFAULT_SIZES);
	batches->old = CurrentMemoryContext;
	batches->portal = SPI_cursor_open_with_args(NULL, sql->data, lengthof(types),
												unconstify(Oid *, &types[0]), values, NULL, true,
												0);
	batches->rows = NULL;
}

static bool
next_batch(Batches *batches)
{
	CHECK_FOR_INTERRUPTS();
	MemoryContextSwitchTo(batches->old);
	SPI_freetuptable(batches->rows);
	MemoryContextReset(batches->context);
	SPI_cursor_fetch(batches->portal, true, BATCH);
	batches->rows = SPI_tuptable;
	batches->n = SPI_processed;
	MemoryContextSwitchTo(batches->context);
	return batches->n > 0;
}

static void
end_batches(Batches *batches)
{
	MemoryContextSwitchTo(batches->old);
	SPI_freetuptable(batches->rows);
	SPI_cursor_close(batches->portal);
	MemoryContextDelete(batches->context);
}

static void
load(Kept *kept, CrmFactRule *rule, const CrmFactSource *source, const Place *place)
{
	StringInfoData sql;
	Batches batches;

	initStringInfo(&sql);
	append_select(&sql, source, place, true);
	begin_batches(&batches, &sql, place, source->from, source->until);
	while (next_batch(&batches))
		keep_facts(kept, rule, source, batches.n);
	end_batches(&batches);
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

/* ---------- facts of several steps ---------- */

/* Kinds of one table that are read together. */
typedef struct Shared
{
	const Place *place;
	const CrmFactStep *asked; /* what the steps ask for, by kind and rule */
	int nasked;
	const char **kinds;
	int nkinds;
	bool ruled; /* any of the steps of each of its kinds has a rule */
} Shared;

static bool
is_ruled(const CrmFactStep *asked, int n, const char *kind)
{
	for (int i = 0; i < n; i++)
		if (asked[i].rule != NULL && strcmp(asked[i].kind, kind) == 0)
			return true;
	return false;
}

static bool
has_kind(const Shared *shared, const char *kind)
{
	for (int i = 0; i < shared->nkinds; i++)
		if (strcmp(shared->kinds[i], kind) == 0)
			return true;
	return false;
}

/* The steps that all facts of a kind match. */
static uint64
steps_without_rule(const Shared *shared, const char *kind)
{
	for (int i = 0; i < shared->nasked; i++)
		if (shared->asked[i].rule == NULL && strcmp(shared->asked[i].kind, kind) == 0)
			return shared->asked[i].steps;
	return 0;
}

static const char *
where_of(const Shared *shared)
{
	StringInfoData sql;

	if (shared->nkinds == 1)
		return condition_of(shared->place, shared->kinds[0]);
	initStringInfo(&sql);
	if (shared->place->kind == NULL)
	{
		appendStringInfoString(&sql, "e.kind IN (");
		for (int i = 0; i < shared->nkinds; i++)
			appendStringInfo(&sql, "%s%s", i > 0 ? ", " : "", quote_literal_cstr(shared->kinds[i]));
	}
	else
		for (int i = 0; i < shared->nkinds; i++)
			appendStringInfo(&sql, "%s%s", i > 0 ? " OR " : "(", place_of(shared->kinds[i])->where);
	appendStringInfoChar(&sql, ')');
	return sql.data;
}

/* A number for each kind: of its steps, or which of the kinds it is. */
static const char *
number_of(const Shared *shared, bool of_steps)
{
	StringInfoData sql;

	if (shared->nkinds == 1)
		return psprintf("'" INT64_FORMAT "'::bigint",
						of_steps ? (int64) steps_without_rule(shared, shared->kinds[0]) : 0);
	initStringInfo(&sql);
	appendStringInfoString(&sql, "CASE");
	for (int i = 0; i < shared->nkinds; i++)
		appendStringInfo(&sql, " WHEN %s THEN '" INT64_FORMAT "'::bigint",
						 condition_of(place_of(shared->kinds[i]), shared->kinds[i]),
						 of_steps ? (int64) steps_without_rule(shared, shared->kinds[i]) : i);
	appendStringInfoString(&sql, " END");
	return sql.data;
}

#define MATCHED_COLUMNS 3

static Kept *
make_matched(void)
{
	Kept *kept = palloc(sizeof(Kept));

	kept->descriptor = CreateTemplateTupleDesc(MATCHED_COLUMNS);
	TupleDescInitEntry(kept->descriptor, 1, "contact_id", INT8OID, -1, 0);
	TupleDescInitEntry(kept->descriptor, 2, "at", TIMESTAMPTZOID, -1, 0);
	TupleDescInitEntry(kept->descriptor, 3, "steps", INT8OID, -1, 0);
	kept->rows = tuplestore_begin_heap(true, false, work_mem);
	return kept;
}

/* The rules of the steps of a kind, asked together. */
typedef struct KindRules
{
	CrmFactRules *set;
	int n;
	uint64 *steps; /* of each rule */
	const CrmRuleUser **users;
	uint64 always; /* the steps without a rule */
} KindRules;

static KindRules
rules_of(const Shared *shared, const char *kind, const CrmRuleUser *user)
{
	CrmFactRule **rules = palloc_array(CrmFactRule *, shared->nasked);
	KindRules of_kind = { .always = steps_without_rule(shared, kind) };

	of_kind.steps = palloc_array(uint64, shared->nasked);
	of_kind.users = palloc_array(const CrmRuleUser *, shared->nasked);
	for (int i = 0; i < shared->nasked; i++)
	{
		if (shared->asked[i].rule == NULL || strcmp(shared->asked[i].kind, kind) != 0)
			continue;
		rules[of_kind.n] = crm_fact_rule_compile(shared->asked[i].rule);
		of_kind.users[of_kind.n] = user;
		of_kind.steps[of_kind.n++] = shared->asked[i].steps;
	}
	of_kind.set = crm_fact_rules_create(rules, of_kind.n);
	pfree(rules);
	return of_kind;
}

/* Asked of the facts of the kind in the current result. */
static void
match_kind(Kept *kept, const Shared *shared, const KindRules *rules, int kind, uint64 n)
{
	CrmFactValues *facts = palloc0_array(CrmFactValues, n);
	bool **holds = palloc_array(bool *, rules->n);
	Datum kind_value = CStringGetTextDatum(shared->kinds[kind]);
	int nfacts = 0;

	for (uint64 row = 0; row < n; row++)
		if (crm_result_int64(row, 3) == kind)
			read_fact(&facts[nfacts++], kind_value, row, 2, MATCHED_COLUMNS + 1);
	for (int i = 0; i < rules->n; i++)
		holds[i] = palloc_array(bool, nfacts);
	crm_fact_rules_evaluate(rules->set, rules->users, facts, nfacts, holds);
	for (int i = 0; i < nfacts; i++)
	{
		uint64 matched = rules->always;
		Datum values[MATCHED_COLUMNS];
		bool nulls[MATCHED_COLUMNS] = { false };

		for (int k = 0; k < rules->n; k++)
			if (holds[k][i])
				matched |= rules->steps[k];
		if (matched == 0)
			continue;
		values[0] = Int64GetDatum(facts[i].contact_id);
		values[1] = TimestampTzGetDatum(facts[i].as_of);
		values[2] = Int64GetDatum((int64) matched);
		tuplestore_putvalues(kept->rows, kept->descriptor, values, nulls);
	}
}

static void
match_shared(Kept *kept, const Shared *shared, TimestampTz from, TimestampTz until,
			 const CrmRuleUser *user)
{
	KindRules *rules = palloc_array(KindRules, shared->nkinds);
	StringInfoData sql;
	Batches batches;

	for (int kind = 0; kind < shared->nkinds; kind++)
		rules[kind] = rules_of(shared, shared->kinds[kind], user);
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s, %s, %s, %s FROM %s WHERE %s", shared->place->contact_id,
					 shared->place->at, number_of(shared, false), shared->place->columns,
					 shared->place->from, where_of(shared));
	begin_batches(&batches, &sql, shared->place, from, until);
	while (next_batch(&batches))
		for (int kind = 0; kind < shared->nkinds; kind++)
		{
			SPI_tuptable = batches.rows; /* rules may have read other rows */
			match_kind(kept, shared, &rules[kind], kind, batches.n);
		}
	end_batches(&batches);
}

const char *
crm_fact_steps(const CrmFactStep *asked, int n, TimestampTz from, TimestampTz until,
			   const CrmRuleUser *user, const char *prefix)
{
	Shared *shared = palloc_array(Shared, n);
	int nshared = 0;
	StringInfoData sql;

	for (int i = 0; i < n; i++)
	{
		const Place *place = place_of(asked[i].kind);
		bool ruled = is_ruled(asked, n, asked[i].kind);
		Shared *with = NULL;

		if (place->kind == NULL)
			check_kind(asked[i].kind);
		for (int k = 0; k < nshared; k++)
			if (shared[k].ruled == ruled && strcmp(shared[k].place->from, place->from) == 0)
				with = &shared[k];
		if (with == NULL)
		{
			with = &shared[nshared++];
			with->place = place;
			with->asked = asked;
			with->nasked = n;
			with->kinds = palloc_array(const char *, n);
			with->nkinds = 0;
			with->ruled = ruled;
		}
		if (!has_kind(with, asked[i].kind))
			with->kinds[with->nkinds++] = asked[i].kind;
	}
	initStringInfo(&sql);
	for (int k = 0; k < nshared; k++)
	{
		const Place *place = shared[k].place;

		appendStringInfoString(&sql, k > 0 ? " UNION ALL " : "");
		if (shared[k].ruled)
		{
			Kept *kept = make_matched();
			const char *name = psprintf("%s_%d", prefix, k);

			match_shared(kept, &shared[k], from, until, user);
			name_kept(kept, name);
			appendStringInfo(&sql, "SELECT g.contact_id, g.at, g.steps FROM %s g", name);
		}
		else
			appendStringInfo(&sql,
							 "SELECT %s AS contact_id, %s AS at, %s AS steps FROM %s WHERE %s",
							 place->contact_id, place->at, number_of(&shared[k], true), place->from,
							 where_of(&shared[k]));
	}
	return sql.data;
}
