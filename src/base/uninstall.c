/*
 * uninstall.c
 *		Parting from the extension: afterwards no table needs it, and DROP
 *		EXTENSION leaves them all. What depends on it is read from the catalogue.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"

#include "base/guc.h"
#include "base/install.h"
#include "base/table.h"

PG_FUNCTION_INFO_V1(crm_uninstall);

/* oid, array type of every type of the extension but array types, which PostgreSQL 18 counts too */
#define EXTENSION_TYPES                                                        \
	"(SELECT y.oid, y.typarray FROM pg_type y"                                 \
	" JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.objid = y.oid" \
	"  AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'"        \
	" JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_crm'"      \
	" WHERE y.typarray <> 0)"

static void
refuse(const char *dependents)
{
	ereport(ERROR,
			(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
			 errmsg("other objects depend on pg_crm: %s", dependents),
			 errhint("Drop or change them, then run crm.uninstall() again.")));
}

static void
drop_views(void)
{
	StringInfoData names;
	StringInfoData oids;
	ListCell *cell;
	char *dependents;

	initStringInfo(&names);
	initStringInfo(&oids);
	foreach(cell, crm_script_relations(true))
	{
		Oid relid = crm_table_oid_if_any(lfirst(cell));

		if (!OidIsValid(relid))
			continue;
		appendStringInfo(&names, "%scrm.%s", names.len > 0 ? ", " : "",
						 quote_identifier(lfirst(cell)));
		appendStringInfo(&oids, "%s%u", oids.len > 0 ? ", " : "", relid);
	}
	if (names.len == 0)
		return;
	dependents = crm_ddl_text(psprintf("SELECT string_agg(DISTINCT pg_describe_object("
									   "'pg_class'::regclass, r.ev_class, 0), ', ')"
									   " FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid"
									   " WHERE d.classid = 'pg_rewrite'::regclass"
									   " AND d.refclassid = 'pg_class'::regclass"
									   " AND d.refobjid IN (%s) AND r.ev_class NOT IN (%s)",
									   oids.data, oids.data));
	if (dependents != NULL)
		refuse(dependents);
	crm_ddl("DROP VIEW %s", names.data);
}

static void
replace_types(void)
{
	crm_ddl_each("SELECT format('ALTER TABLE %s %s', r.relation, r.actions)"
				 " FROM (SELECT a.attrelid::regclass AS relation,"
				 " string_agg(format('ALTER COLUMN %1$I TYPE %2$s USING %1$I::%2$s', a.attname,"
				 " CASE WHEN a.atttypid = t.oid THEN 'text' ELSE 'text[]' END), ', ') AS actions"
				 " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
				 " JOIN pg_namespace n ON n.oid = c.relnamespace"
				 " JOIN " EXTENSION_TYPES " AS t ON a.atttypid IN (t.oid, t.typarray)"
				 " WHERE n.nspname = 'crm' AND c.relkind IN ('r', 'p') AND a.attnum > 0"
				 " AND NOT a.attisdropped AND a.attinhcount = 0"
				 " GROUP BY a.attrelid) AS r");
}

static void
replace_defaults(void)
{
	StringInfoData query;

	initStringInfo(&query);
	appendStringInfo(
		&query,
		"SELECT format('ALTER TABLE %%s ALTER COLUMN %%I SET DEFAULT %%s',"
		" a.attrelid::regclass, a.attname,"
		" replace(replace(pg_get_expr(f.adbin, f.adrelid), 'crm.now()', 'now()'),"
		" 'crm.default_currency()', %s))"
		" FROM pg_attrdef f JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum"
		" JOIN pg_class c ON c.oid = f.adrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
		" WHERE n.nspname = 'crm' AND a.attgenerated = ''"
		" AND pg_get_expr(f.adbin, f.adrelid) LIKE '%%crm.%%'",
		quote_literal_cstr(quote_literal_cstr(crm_guc_currency)));
	crm_ddl_each(query.data);
}

/* Whatever else would keep DROP EXTENSION from working, by its description. */
static void
refuse_dependents(void)
{
	char *dependents;

	dependents = crm_ddl_text(
		"WITH member AS (SELECT d.classid, d.objid FROM pg_depend d"
		" JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_crm'"
		" WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'),"
		" thing AS (SELECT * FROM member UNION"
		" SELECT 'pg_type'::regclass, t.typarray FROM " EXTENSION_TYPES " AS t)"
		" SELECT string_agg(DISTINCT pg_describe_object(d.classid, d.objid, d.objsubid), ', ')"
		" FROM pg_depend d JOIN thing m ON m.classid = d.refclassid AND m.objid = d.refobjid"
		" WHERE d.deptype IN ('n', 'a')"
		" AND d.classid NOT IN ('pg_amop'::regclass, 'pg_amproc'::regclass)"
		" AND NOT EXISTS (SELECT FROM thing o WHERE o.classid = d.classid AND o.objid = d.objid)");
	if (dependents != NULL)
		refuse(dependents);
}

Datum
crm_uninstall(PG_FUNCTION_ARGS)
{
	CrmDdl ddl;

	crm_require_installed();
	crm_ddl_begin(&ddl, "uninstall");
	crm_lock_schema();
	crm_ddl_each(
		"SELECT format('DROP TRIGGER %I ON %s', t.tgname, t.tgrelid::regclass)" CRM_EXTENSION_TRIGGERS
		" AND EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
		" WHERE c.oid = t.tgrelid AND n.nspname = 'crm') ORDER BY t.oid");
	drop_views();
	replace_types();
	replace_defaults();
	refuse_dependents();
	crm_ddl_end(&ddl);
	PG_RETURN_VOID();
}
