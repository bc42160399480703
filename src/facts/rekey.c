/*
 * rekey.c
 *		The rows of one contact given to another, in whatever tables there are.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/db.h"
#include "facts/rekey.h"

/*
 * The id of a contact's row among those of the contact is its primary key
 * without the contact; recorded_at is in some only because they are partitioned
 * by it. A table without primary key has its whole rows for keys.
 */
static CrmPlan find_referrers = {
	"SELECT c.oid, a.attnum, c.relowner,"
	" n.nspname = 'crm' AND c.relname IN ('transaction', 'event', 'scan', 'message', 'outbox',"
	"  'delivery_attempt', 'message_unknown', 'message_end', 'window_grant',"
	"  'enrolment', 'step_visit'),"
	" n.nspname = 'crm' AND c.relname IN ('transaction', 'event', 'scan', 'identity', 'contact',"
	"  'point_entry', 'acquisition', 'segment_change'),"
	" format('%I.%I', n.nspname, c.relname), quote_ident(a.attname),"
	" CASE WHEN n.nspname = 'crm' AND a.attname = 'contact_id' THEN c.relname::text"
	"  ELSE format('%s.%s.%s', n.nspname, c.relname, a.attname) END,"
	" coalesce(k.key, format('jsonb_build_array(to_jsonb(t) - %L)', a.attname))"
	" FROM (SELECT a.attrelid, a.attnum FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
	"   WHERE c.relnamespace = 'crm'::regnamespace AND a.attname = 'contact_id'"
	"   AND a.atttypid = 'int8'::regtype"
	"   AND c.relname NOT IN ('contact', 'profile_counter', 'stage_move', 'first_scan',"
	"    'point_balance', 'segment_member', 'segment_state', 'follower', 'won_counted',"
	"    'won_tail')"
	"  UNION SELECT f.conrelid, f.conkey[1] FROM pg_constraint f"
	"   WHERE f.contype = 'f' AND f.confrelid = 'crm.contact'::regclass AND cardinality(f.conkey) = 1"
	"   AND f.confkey = ARRAY(SELECT o.attnum FROM pg_attribute o"
	"    WHERE o.attrelid = 'crm.contact'::regclass AND o.attname = 'contact_id')"
	" ) r (relid, attnum)"
	" JOIN pg_class c ON c.oid = r.relid JOIN pg_namespace n ON n.oid = c.relnamespace"
	" JOIN pg_attribute a ON a.attrelid = r.relid AND a.attnum = r.attnum"
	" LEFT JOIN LATERAL (SELECT CASE count(*) FILTER (WHERE p.attnum <> a.attnum)"
	"   WHEN 1 THEN format('to_jsonb(t.%I)', min(m.attname) FILTER (WHERE p.attnum <> a.attnum))"
	"   ELSE format('jsonb_build_array(%s)', string_agg(format('t.%I', m.attname), ', ' ORDER BY p.place)"
	"     FILTER (WHERE p.attnum <> a.attnum)) END AS key"
	"  FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS p(attnum, place)"
	"  JOIN pg_attribute m ON m.attrelid = i.indrelid AND m.attnum = p.attnum"
	"  WHERE i.indrelid = c.oid AND i.indisprimary AND p.place <= i.indnkeyatts"
	"   AND NOT (n.nspname = 'crm' AND c.relname IN ('event', 'scan', 'delivery_attempt')"
	"    AND m.attname = 'recorded_at')"
	"  HAVING count(*) > 0) k ON true"
	" WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'"
	" AND a.attgenerated = ''"
	" ORDER BY n.nspname, c.relname, a.attname",
	0
};

/* The unique indexes in which the contact stands beside other columns. */
static CrmPlan find_unique = {
	"SELECT 'ROW(0' || coalesce(u.columns, '') || ')',"
	" CASE WHEN i.indnullsnotdistinct OR u.columns IS NULL THEN 'true'"
	"  ELSE format('num_nulls(%s) = 0', substr(u.columns, 3)) END,"
	" coalesce(pg_get_expr(i.indpred, i.indrelid), 'true'), i.indexrelid"
	" FROM pg_index i CROSS JOIN LATERAL (SELECT bool_or(p.attnum = $2) AS has_contact,"
	"   string_agg(', ' || pg_get_indexdef(i.indexrelid, p.place::integer, false), '' ORDER BY p.place)"
	"    FILTER (WHERE p.attnum <> $2) AS columns"
	"  FROM unnest(i.indkey) WITH ORDINALITY AS p(attnum, place) WHERE p.place <= i.indnkeyatts) u"
	" WHERE i.indrelid = $1 AND i.indisunique AND u.has_contact ORDER BY i.indexrelid",
	2,
	{ OIDOID, INT2OID }
};

static CrmPlan list_columns = {
	"SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute a"
	" WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''"
	" AND EXISTS (SELECT FROM jsonb_array_elements($2) e"
	"  WHERE jsonb_typeof(e.value) = 'object' AND e.value ? a.attname::text)",
	2,
	{ OIDOID, JSONBOID }
};

static CrmPlan as_document = { "SELECT to_jsonb($1)", 1, { JSONBARRAYOID } };

/* What is done to a table; with the table, the column and an index it names a plan. */
typedef enum Task
{
	CHECK_IDS,
	REMOVE_EQUAL,
	GIVE,
	GIVE_BACK,
	RESTORE
} Task;

typedef struct PlanKey
{
	Oid relid;
	Oid index;
	int32 attnum;
	int32 task;
} PlanKey;

typedef struct KeptPlan
{
	PlanKey key;
	char *sql; /* of the plan; another one replaces it */
	SPIPlanPtr plan;
} KeptPlan;

static HTAB *kept_plans = NULL;

static SPIPlanPtr
prepare(const CrmReferrer *referrer, Task task, Oid index, const char *sql)
{
	static Oid types[3] = { INT8OID, INT8OID, JSONBOID };
	PlanKey key = { referrer->relid, index, referrer->attnum, task };
	KeptPlan *kept;
	bool found;

	if (kept_plans == NULL)
	{
		HASHCTL info = { .keysize = sizeof(PlanKey), .entrysize = sizeof(KeptPlan) };

		kept_plans = hash_create("pg_crm plans of merges", 64, &info, HASH_ELEM | HASH_BLOBS);
	}
	kept = hash_search(kept_plans, &key, HASH_ENTER, &found);
	if (!found)
	{
		kept->sql = NULL;
		kept->plan = NULL;
	}
	if (kept->sql != NULL && strcmp(kept->sql, sql) != 0)
	{
		SPI_freeplan(kept->plan);
		pfree(kept->sql);
		kept->sql = NULL;
		kept->plan = NULL;
	}
	if (kept->sql == NULL)
	{
		SPIPlanPtr plan = SPI_prepare_cursor(sql, 3, types, CURSOR_OPT_GENERIC_PLAN);

		if (plan == NULL)
			elog(ERROR, "SPI_prepare_cursor failed: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		kept->plan = plan;
		kept->sql = MemoryContextStrdup(TopMemoryContext, sql);
	}
	return kept->plan;
}

/*
 * Runs as the owner of the table, as referential integrity does: whatever hangs
 * on the table gets no rights of ours.
 */
static void
run(const CrmReferrer *referrer, Task task, Oid index, const char *sql, int64 from, int64 to,
	const Datum *rows)
{
	Datum values[3];
	char nulls[4] = "   ";
	Oid userid;
	int security_context;
	bool before = crm_facts_may_change;
	int code = 0;

	values[0] = Int64GetDatum(from);
	values[1] = Int64GetDatum(to);
	values[2] = rows == NULL ? (Datum) 0 : *rows;
	nulls[2] = rows == NULL ? 'n' : ' ';
	GetUserIdAndSecContext(&userid, &security_context);
	if (!superuser_arg(referrer->owner))
		SetUserIdAndSecContext(referrer->owner,
							   security_context | SECURITY_LOCAL_USERID_CHANGE |
								   SECURITY_NOFORCE_RLS);
	crm_facts_may_change = referrer->protected;
	PG_TRY();
	{
		code = SPI_execute_plan(prepare(referrer, task, index, sql), values, nulls, false, 0);
	}
	PG_FINALLY();
	{
		crm_facts_may_change = before;
	}
	PG_END_TRY();
	if (code < 0)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(code));
	SetUserIdAndSecContext(userid, security_context);
}

CrmReferrer *
crm_referrers(int *n)
{
	CrmReferrer *referrers;
	bool isnull;

	*n = crm_run(&find_referrers, NULL, NULL);
	referrers = palloc_array(CrmReferrer, Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		CrmReferrer *referrer = &referrers[i];

		referrer->relid = DatumGetObjectId(crm_result(i, 1, &isnull));
		referrer->attnum = DatumGetInt16(crm_result(i, 2, &isnull));
		referrer->owner = DatumGetObjectId(crm_result(i, 3, &isnull));
		referrer->stays_whole = DatumGetBool(crm_result(i, 4, &isnull));
		referrer->protected = DatumGetBool(crm_result(i, 5, &isnull));
		referrer->table = crm_result_text(i, 6);
		referrer->column = crm_result_text(i, 7);
		referrer->label = crm_result_text(i, 8);
		referrer->key = crm_result_text(i, 9);
	}
	return referrers;
}

/* Rows given ids of their own by who inserted them may have the same for both. */
static void
check_ids(const CrmReferrer *referrer, int64 from, int64 to)
{
	run(referrer, CHECK_IDS, InvalidOid,
		psprintf("SELECT %s::text FROM %s t WHERE t.%s = $1 INTERSECT"
				 " SELECT %s::text FROM %s t WHERE t.%s = $2 LIMIT 1",
				 referrer->key, referrer->table, referrer->column, referrer->key, referrer->table,
				 referrer->column),
		from, to, NULL);
	if (SPI_processed > 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("contacts %lld and %lld both have a row with id %s in %s", (long long) to,
					(long long) from, crm_result_text(0, 1), referrer->table),
			 errhint(
				 "Let such ids come from their sequence; contacts with the same ones cannot be merged.")));
}

/* Deletes the rows that would meet an equal one, and collects them whole. */
static void
remove_equal(const CrmReferrer *referrer, int64 from, int64 to, CrmColumn *removed)
{
	Datum values[2];
	uint64 n;
	SPITupleTable *indexes;

	values[0] = ObjectIdGetDatum(referrer->relid);
	values[1] = Int16GetDatum(referrer->attnum);
	n = crm_run(&find_unique, values, NULL);
	indexes = SPI_tuptable;
	for (uint64 i = 0; i < n; i++)
	{
		char *key = SPI_getvalue(indexes->vals[i], indexes->tupdesc, 1);
		char *no_null = SPI_getvalue(indexes->vals[i], indexes->tupdesc, 2);
		char *predicate = SPI_getvalue(indexes->vals[i], indexes->tupdesc, 3);
		bool isnull;
		Oid index = DatumGetObjectId(SPI_getbinval(indexes->vals[i], indexes->tupdesc, 4, &isnull));

		run(referrer, REMOVE_EQUAL, index,
			psprintf(
				"DELETE FROM %1$s t USING (SELECT x.tableoid AS part, x.ctid AS place, %3$s AS key"
				"  FROM %1$s x WHERE x.%2$s = $1 AND %4$s AND (%5$s)) l"
				" WHERE t.tableoid = l.part AND t.ctid = l.place AND l.key IN"
				" (SELECT %3$s FROM %1$s x WHERE x.%2$s = $2 AND %4$s AND (%5$s))"
				" RETURNING to_jsonb(t)",
				referrer->table, referrer->column, key, no_null, predicate),
			from, to, NULL);
		for (uint64 row = 0; row < SPI_processed; row++)
		{
			Datum value = crm_result(row, 1, &isnull);

			crm_column_add(removed, value, isnull);
		}
	}
}

/*
 * A transaction that reads by an older snapshot may not see what a session
 * recorded that held the lock before; then it must be tried again.
 */
static void
check_nothing_left(const CrmReferrer *referrer, int64 from)
{
	char *sql = psprintf("SELECT FROM %s t WHERE t.%s = $1 LIMIT 1", referrer->table,
						 referrer->column);
	Oid type = INT8OID;
	Datum value = Int64GetDatum(from);
	SPIPlanPtr plan = SPI_prepare(sql, 1, &type);
	int code;

	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	code = SPI_execute_snapshot(plan, &value, NULL, GetLatestSnapshot(), InvalidSnapshot, true,
								false, 1);
	if (code < 0)
		elog(ERROR, "SPI_execute_snapshot failed: %s", SPI_result_code_string(code));
	if (SPI_processed > 0)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access to contact %lld due to concurrent facts",
						(long long) from),
				 errhint("The transaction might succeed if retried.")));
	SPI_freeplan(plan);
}

Datum
crm_rekey(const CrmReferrer *referrer, int64 from, int64 to, bool *isnull)
{
	CrmColumn rows;
	Datum all;
	uint64 n;

	crm_column_init(&rows, JSONBOID);
	if (referrer->stays_whole)
		check_ids(referrer, from, to);
	else
		remove_equal(referrer, from, to, &rows);
	run(referrer, GIVE, InvalidOid,
		psprintf("UPDATE %s t SET %s = $2 WHERE t.%s = $1 RETURNING %s", referrer->table,
				 referrer->column, referrer->column, referrer->key),
		from, to, NULL);
	n = SPI_processed;
	for (uint64 row = 0; row < n; row++)
	{
		bool null_key;
		Datum value = crm_result(row, 1, &null_key);

		crm_column_add(&rows, value, null_key);
	}
	if (IsolationUsesXactSnapshot())
		check_nothing_left(referrer, from);

	*isnull = rows.n == 0;
	if (*isnull)
		return (Datum) 0;
	all = crm_column_array(&rows);
	crm_run(&as_document, &all, NULL);
	return crm_result(0, 1, isnull);
}

void
crm_rekey_back(const CrmReferrer *referrer, int64 from, int64 to, Datum rows)
{
	char *columns = crm_stored_columns(referrer->relid, rows);

	/* of rows without any key that look the same, as many as were given */
	run(referrer, GIVE_BACK, InvalidOid,
		psprintf("UPDATE %1$s t SET %2$s = $2 FROM (SELECT t.tableoid AS part, t.ctid AS place,"
				 "   %3$s AS key, row_number() OVER (PARTITION BY %3$s) AS place_of_equal"
				 "  FROM %1$s t WHERE t.%2$s = $1) x"
				 " JOIN (SELECT e.value AS key, count(*) AS n FROM jsonb_array_elements($3) e"
				 "  WHERE jsonb_typeof(e.value) <> 'object' GROUP BY e.value) g"
				 " ON g.key = x.key AND x.place_of_equal <= g.n"
				 " WHERE t.tableoid = x.part AND t.ctid = x.place",
				 referrer->table, referrer->column, referrer->key),
		from, to, &rows);
	if (columns != NULL)
		run(referrer, RESTORE, InvalidOid,
			psprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE"
					 " SELECT %s FROM jsonb_array_elements($3) e,"
					 " jsonb_populate_record(NULL::%s, e.value)"
					 " WHERE jsonb_typeof(e.value) = 'object' ON CONFLICT DO NOTHING",
					 referrer->table, columns, columns, referrer->table),
			from, to, &rows);
}

char *
crm_stored_columns(Oid relid, Datum rows)
{
	Datum values[2];

	values[0] = ObjectIdGetDatum(relid);
	values[1] = rows;
	crm_run(&list_columns, values, NULL);
	return crm_result_text(0, 1);
}

int
crm_plain_output(void)
{
	static const char *const settings[][2] = {
		{ "TimeZone", "UTC" },
		{ "IntervalStyle", "postgres" },
		{ "extra_float_digits", "1" },
	};
	int nest_level = NewGUCNestLevel();

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	return nest_level;
}
