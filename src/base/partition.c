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

PG_FUNCTION_INFO_V1(crm_maintain_partitions);

static const char *const partitioned[] = { "event", "scan", "delivery_attempt", "step_visit" };

static bool
run_ddl(void *arg)
{
	crm_ddl("%s", (const char *) arg);
	return true;
}

/* A partition statement that may be refused without harm to the rest. */
static bool
try_partition(const char *sql, const char *name)
{
	ErrorData *error;

	if (crm_attempt(run_ddl, unconstify(char *, sql), &error))
		return true;
	/* rows in the default partition, or bounds that a user's partition has */
	if (error->sqlerrcode != ERRCODE_CHECK_VIOLATION &&
		error->sqlerrcode != ERRCODE_INVALID_OBJECT_DEFINITION)
		ReThrowError(error);
	ereport(LOG, (errmsg("partition crm.%s is left out: %s", name, error->message)));
	FreeErrorData(error);
	return false;
}

/* Whether the name is free for a new partition of the table. */
static bool
is_free(const char *name, Oid root)
{
	Oid relid = crm_table_oid_if_any(name);

	if (!OidIsValid(relid))
		return true;
	if (!get_rel_relispartition(relid) || get_partition_parent(relid, true) != root)
		ereport(WARNING,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("crm.%s is no partition of crm.%s", name, get_rel_name(root)),
				 errhint("Give it another name; until then the rows of its time go elsewhere.")));
	return false;
}

static void
describe(const char *root, const char *name, const char *what)
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
static void
copy_triggers(const char *root)
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

static int
make_partitions_of(const char *root)
{
	Oid root_id = crm_table_oid_if_any(root);
	char *name = psprintf("%s_default", root);
	struct pg_tm now;
	fsec_t fsec;
	int made = 0;

	if (!OidIsValid(root_id) || get_rel_relkind(root_id) != RELKIND_PARTITIONED_TABLE)
		return 0;
	if (is_free(name, root_id) &&
		try_partition(psprintf("CREATE TABLE crm.%s PARTITION OF crm.%s DEFAULT", name, root),
					  name))
	{
		describe(root, name, "what no month takes");
		made++;
	}

	if (timestamp2tm(crm_now(), NULL, &now, &fsec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
	for (int ahead = 0; ahead <= MONTHS_AHEAD; ahead++)
	{
		int first = now.tm_year * 12 + now.tm_mon - 1 + ahead;
		int next = first + 1;

		name = psprintf("%s_%04d_%02d", root, first / 12, first % 12 + 1);
		if (is_free(name, root_id) &&
			try_partition(
				psprintf("CREATE TABLE crm.%s PARTITION OF crm.%s FOR VALUES"
						 " FROM ('%04d-%02d-01 00:00:00+00') TO ('%04d-%02d-01 00:00:00+00')",
						 name, root, first / 12, first % 12 + 1, next / 12, next % 12 + 1),
				name))
		{
			describe(root, name,
					 psprintf("recorded in %04d-%02d (UTC)", first / 12, first % 12 + 1));
			made++;
		}
	}
	copy_triggers(root);
	return made;
}

int
crm_make_partitions(void)
{
	int made = 0;

	for (int i = 0; i < lengthof(partitioned); i++)
		made += make_partitions_of(partitioned[i]);
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
