/*
 * partition.c
 *		The month partitions of facts, by the time at which they were recorded.
 *		Months are those of UTC, so that their bounds depend on no setting.
 */
#include "postgres.h"

#include "catalog/partition.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/install.h"
#include "base/table.h"

#define MONTHS_AHEAD 3
/* months before this one that leave the default partition in one call */
#define MONTHS_BACK 24

PG_FUNCTION_INFO_V1(crm_maintain_partitions);

const char *const crm_partitioned[CRM_NPARTITIONED] = { "event", "scan", "delivery_attempt",
														"step_visit" };

typedef struct Month
{
	const char *root;
	const char *name; /* of the partition */
	int first;        /* months since the year 0 */
} Month;

static bool
run_ddl(void *arg)
{
	crm_ddl("%s", (const char *) arg);
	return true;
}

static char *
bound(int month)
{
	return psprintf("%04d-%02d-01 00:00:00+00", month / 12, month % 12 + 1);
}

/* A step is entered and left: the second version of its row finds room beside the first, and needs no index. */
static const char *
options_of(const char *root)
{
	return strcmp(root, "step_visit") == 0 ? " WITH (fillfactor = 50)" : "";
}

static char *
create_month(const Month *month)
{
	return psprintf("CREATE TABLE crm.%s PARTITION OF crm.%s FOR VALUES FROM ('%s') TO ('%s')%s",
					month->name, month->root, bound(month->first), bound(month->first + 1),
					options_of(month->root));
}

/*
 * Rows of the month lie in the default partition: they move. What they lie in
 * meanwhile is not logged, so that a publication of the schema does not show it.
 */
static bool
move_month(void *arg)
{
	const Month *month = arg;
	bool before = crm_facts_may_change;

	crm_ddl("LOCK TABLE crm.%s_default IN ACCESS EXCLUSIVE MODE", month->root);
	crm_ddl("CREATE UNLOGGED TABLE crm.%s_moved (LIKE crm.%s)", month->name, month->root);
	crm_facts_may_change = true;
	PG_TRY();
	{
		crm_ddl("WITH gone AS (DELETE FROM crm.%s_default WHERE recorded_at >= '%s'"
				" AND recorded_at < '%s' RETURNING *) INSERT INTO crm.%s_moved SELECT * FROM gone",
				month->root, bound(month->first), bound(month->first + 1), month->name);
	}
	PG_FINALLY();
	{
		crm_facts_may_change = before;
	}
	PG_END_TRY();
	crm_ddl("%s", create_month(month));
	/* it has no triggers yet: what they told of these rows has been told */
	crm_ddl("INSERT INTO crm.%s SELECT * FROM crm.%s_moved", month->name, month->name);
	crm_ddl("DROP TABLE crm.%s_moved", month->name);
	return true;
}

/* A partition statement that may be refused without harm to the rest. */
static bool
try_partition(bool (*work)(void *arg), void *arg, const char *name)
{
	ErrorData *error;

	if (crm_attempt(work, arg, &error))
		return true;
	/* rows in the default partition, or bounds that a user's partition has */
	if (error->sqlerrcode == ERRCODE_CHECK_VIOLATION && work != move_month)
	{
		FreeErrorData(error);
		return false;
	}
	if (error->sqlerrcode != ERRCODE_CHECK_VIOLATION &&
		error->sqlerrcode != ERRCODE_INVALID_OBJECT_DEFINITION)
		ReThrowError(error);
	ereport(LOG, (errmsg("partition crm.%s is left out: %s", name, error->message)));
	FreeErrorData(error);
	return false;
}

static bool
is_partition_of(const char *name, Oid root)
{
	Oid relid = crm_table_oid_if_any(name);

	return OidIsValid(relid) && get_rel_relispartition(relid) &&
		get_partition_parent(relid, true) == root;
}

/* Whether the name is free for a new partition of the table. */
static bool
is_free(const char *name, Oid root)
{
	if (!OidIsValid(crm_table_oid_if_any(name)))
		return true;
	if (!is_partition_of(name, root))
		ereport(WARNING,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("crm.%s is no partition of crm.%s", name, get_rel_name(root)),
				 errhint("Give it another name; until then the rows of its time go elsewhere.")));
	return false;
}

void
crm_describe_partition(const char *root, const char *name, const char *what)
{
	StringInfoData query;

	crm_ddl("COMMENT ON TABLE crm.%s IS %s", quote_identifier(name),
			quote_literal_cstr(psprintf("Partition of crm.%s: %s.", root, what)));

	initStringInfo(&query);
	appendStringInfo(
		&query,
		"SELECT format('COMMENT ON COLUMN crm.%%I.%%I IS %%L', '%s', a.attname,"
		" col_description(a.attrelid, a.attnum))"
		" FROM pg_attribute a WHERE a.attrelid = 'crm.%s'::regclass AND a.attnum > 0"
		" AND NOT a.attisdropped AND col_description(a.attrelid, a.attnum) IS NOT NULL",
		name, root);
	crm_ddl_each(query.data);
}

/*
 * A statement trigger of the root does not fire for a statement that names the
 * partition, so each partition has the same ones.
 */
void
crm_copy_partition_triggers(const char *root)
{
	StringInfoData query;
	const char *missing =
		" FROM pg_trigger t"
		" JOIN pg_inherits i ON i.inhparent = t.tgrelid"
		" JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = t.tgfoid"
		"  AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'"
		" JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_crm'"
		" WHERE NOT t.tgisinternal AND t.tgtype & 1 = 0";

	initStringInfo(&query);
	appendStringInfo(
		&query,
		"SELECT overlay(def PLACING ' ON ' || leaf || ' '"
		" FROM position(' ON crm.%s ' IN def) FOR length(' ON crm.%s '))"
		" FROM (SELECT pg_get_triggerdef(t.oid) AS def, i.inhrelid::regclass::text AS leaf"
		"%s AND t.tgrelid = 'crm.%s'::regclass AND NOT EXISTS (SELECT FROM pg_trigger o"
		" WHERE o.tgrelid = i.inhrelid AND o.tgname = t.tgname)) AS missing",
		root, root, missing, root);
	crm_ddl_each(query.data);

	/* while restoring(true) holds, new partitions keep quiet too */
	resetStringInfo(&query);
	appendStringInfo(
		&query,
		"SELECT format('ALTER TABLE %%s DISABLE TRIGGER %%I', i.inhrelid::regclass, t.tgname)"
		"%s AND t.tgrelid = 'crm.%s'::regclass AND t.tgenabled = 'D' AND EXISTS"
		" (SELECT FROM pg_trigger o WHERE o.tgrelid = i.inhrelid AND o.tgname = t.tgname"
		" AND o.tgenabled <> 'D')",
		missing, root);
	crm_ddl_each(query.data);
}

static bool
make_month(const char *root, Oid root_id, int first)
{
	Month month = { .root = root, .first = first };

	month.name = psprintf("%s_%04d_%02d", root, first / 12, first % 12 + 1);
	if (!is_free(month.name, root_id) ||
		(!try_partition(run_ddl, create_month(&month), month.name) &&
		 !try_partition(move_month, &month, month.name)))
		return false;
	crm_describe_partition(root, month.name,
						   psprintf("recorded in %04d-%02d (UTC)", first / 12, first % 12 + 1));
	return true;
}

/* Partitions for what lies in the default one though its month is over; before: the month of now. */
static int
make_past_months(const char *root, Oid root_id, int before)
{
	int *months;
	int made = 0;
	int n;

	SPI_execute(psprintf("SELECT DISTINCT (extract(year FROM d.at) * 12 + extract(month FROM d.at)"
						 " - 1)::integer FROM (SELECT timezone('UTC', recorded_at) AS at"
						 "  FROM crm.%s_default WHERE isfinite(recorded_at)) d"
						 " WHERE d.at >= '0001-01-01' ORDER BY 1 DESC LIMIT %d",
						 root, MONTHS_AHEAD + MONTHS_BACK),
				false, 0);
	n = SPI_processed;
	months = palloc_array(int, Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		bool isnull;

		months[i] = DatumGetInt32(crm_result(i, 1, &isnull));
	}
	for (int i = 0; i < n; i++)
		if (months[i] < before && make_month(root, root_id, months[i]))
			made++;
	return made;
}

static int
make_partitions_of(const char *root)
{
	Oid root_id = crm_table_oid_if_any(root);
	char *name = psprintf("%s_default", root);
	struct pg_tm now;
	fsec_t fsec;
	int month;
	int made = 0;

	if (!OidIsValid(root_id) || get_rel_relkind(root_id) != RELKIND_PARTITIONED_TABLE)
		return 0;
	if (is_free(name, root_id) &&
		try_partition(run_ddl,
					  psprintf("CREATE TABLE crm.%s PARTITION OF crm.%s DEFAULT%s", name, root,
							   options_of(root)),
					  name))
	{
		crm_describe_partition(root, name, "what no month takes");
		made++;
	}

	if (timestamp2tm(crm_now(), NULL, &now, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
	month = now.tm_year * 12 + now.tm_mon - 1;
	for (int ahead = 0; ahead <= MONTHS_AHEAD; ahead++)
		made += make_month(root, root_id, month + ahead);
	if (is_partition_of(name, root_id))
		made += make_past_months(root, root_id, month);
	crm_copy_partition_triggers(root);
	return made;
}

int
crm_make_partitions(void)
{
	int made = 0;

	for (int i = 0; i < CRM_NPARTITIONED; i++)
		made += make_partitions_of(crm_partitioned[i]);
	return made;
}

Datum
crm_maintain_partitions(PG_FUNCTION_ARGS)
{
	CrmDdl ddl;
	int made;

	crm_require_installed();
	crm_ddl_begin(&ddl, "maintain_partitions");
	made = crm_make_partitions();
	crm_ddl_end(&ddl);
	PG_RETURN_INT32(made);
}
