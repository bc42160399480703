/*
 * install.c
 *		Making the tables of schema crm and bringing them to a new version.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/db.h"
#include "base/install.h"
#include "base/table.h"
#include "base/wake.h"
#include "pg_crm.h"

PG_FUNCTION_INFO_V1(crm_install);
PG_FUNCTION_INFO_V1(crm_migrate);
PG_FUNCTION_INFO_V1(crm_version);

bool crm_preloaded = false;

void
crm_install_init(void)
{
	crm_preloaded = process_shared_preload_libraries_in_progress;
}

static char *
install_script(void)
{
	return crm_ddl_text("SELECT crm.install_script()");
}

static char *
extension_version(void)
{
	char *version = crm_ddl_text("SELECT extversion FROM pg_extension WHERE extname = 'pg_crm'");

	if (version == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension pg_crm is not created in this database"),
				 errhint("Run CREATE EXTENSION pg_crm.")));
	return version;
}

/* Version of the tables; NULL where no row says so. */
static char *
installed_version(void)
{
	if (!OidIsValid(crm_table_oid_if_any("installation")))
		return NULL;
	return crm_ddl_text("SELECT version FROM crm.installation");
}

List *
crm_script_relations(bool views_only)
{
	List *names = list_make1("profile");
	ListCell *cell;

	foreach(cell, raw_parser(install_script(), RAW_PARSE_DEFAULT))
	{
		Node *statement = lfirst_node(RawStmt, cell)->stmt;

		if (IsA(statement, ViewStmt))
			names = lappend(names, ((ViewStmt *) statement)->view->relname);
		else if (views_only)
			continue;
		else if (IsA(statement, CreateStmt))
			names = lappend(names, ((CreateStmt *) statement)->relation->relname);
		else if (IsA(statement, IndexStmt) && ((IndexStmt *) statement)->idxname != NULL)
			names = lappend(names, ((IndexStmt *) statement)->idxname);
	}
	return names;
}

/*
 * What the script finds in place must be the owner's: it would take a table
 * that somebody else planted, and its triggers, for its own.
 */
static void
refuse_planted_relations(void)
{
	ListCell *cell;

	foreach(cell, crm_script_relations(false))
	{
		Oid relid = crm_table_oid_if_any(lfirst(cell));
		HeapTuple tuple;
		Oid owner;

		if (!OidIsValid(relid))
			continue;
		tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
		if (!HeapTupleIsValid(tuple))
			continue;
		owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
		ReleaseSysCache(tuple);
		if (owner != GetUserId())
			ereport(
				ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("crm.%s belongs to role \"%s\"", (char *) lfirst(cell),
						GetUserNameFromId(owner, true)),
				 errhint(
					 "All tables of pg_crm belong to one role; drop or rename this one, or give it to role \"%s\".",
					 GetUserNameFromId(GetUserId(), false))));
	}
}

/* The name of an object of schema crm, NULL for any other. */
static const char *
own_name(List *names)
{
	if (list_length(names) != 2 || strcmp(strVal(linitial(names)), CRM_SCHEMA) != 0)
		return NULL;
	return strVal(lsecond(names));
}

/*
 * Tables that crm.uninstall() freed are taken back: columns of the extension's
 * types, and defaults that call its functions, as the install script has them.
 */
static void
take_back(void)
{
	ListCell *statement_cell;

	foreach(statement_cell, raw_parser(install_script(), RAW_PARSE_DEFAULT))
	{
		CreateStmt *create = (CreateStmt *) lfirst_node(RawStmt, statement_cell)->stmt;
		Oid relid;
		ListCell *element_cell;

		if (!IsA(create, CreateStmt))
			continue;
		relid = crm_table_oid_if_any(create->relation->relname);
		foreach(element_cell, OidIsValid(relid) ? create->tableElts : NIL)
		{
			ColumnDef *column = lfirst(element_cell);
			const char *table = quote_identifier(create->relation->relname);
			const char *type;
			ListCell *constraint_cell;

			if (!IsA(column, ColumnDef) || get_attnum(relid, column->colname) <= 0)
				continue;
			type = own_name(column->typeName->names);
			if (type != NULL)
				crm_ddl("ALTER TABLE crm.%s ALTER COLUMN %s TYPE crm.%s USING %s::crm.%s", table,
						quote_identifier(column->colname), quote_identifier(type),
						quote_identifier(column->colname), quote_identifier(type));
			foreach(constraint_cell, column->constraints)
			{
				Constraint *constraint = lfirst_node(Constraint, constraint_cell);
				FuncCall *call = (FuncCall *) constraint->raw_expr;

				if (constraint->contype == CONSTR_DEFAULT && IsA(call, FuncCall) &&
					own_name(call->funcname) != NULL && call->args == NIL)
					crm_ddl("ALTER TABLE crm.%s ALTER COLUMN %s SET DEFAULT crm.%s()", table,
							quote_identifier(column->colname),
							quote_identifier(own_name(call->funcname)));
			}
		}
	}
}

static bool
is_freed(void)
{
	Oid relid = crm_table_oid("contact");
	AttrNumber mobile = get_attnum(relid, "mobile");

	return mobile > 0 && get_atttype(relid, mobile) == TEXTOID;
}

static void
add_installation(const char *version)
{
	crm_ddl("INSERT INTO crm.installation (version, system_identifier, database_oid, database_name)"
			" SELECT %s, " INT64_FORMAT ", %u, %s WHERE NOT EXISTS (SELECT FROM crm.installation)",
			quote_literal_cstr(version), (int64) GetSystemIdentifier(), MyDatabaseId,
			quote_literal_cstr(get_database_name(MyDatabaseId)));
}

static void
run_script(const char *version)
{
	crm_ddl("%s", install_script());
	crm_make_profile_view();
	(void) crm_make_partitions();
	add_installation(version);
}

Datum
crm_install(PG_FUNCTION_ARGS)
{
	CrmDdl ddl;
	char *version;
	char *found;

	crm_ddl_begin(&ddl, "install");
	refuse_planted_relations();
	version = extension_version();
	found = installed_version();
	if (found != NULL && strcmp(found, version) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("tables of pg_crm are of version %s, the extension is of version %s", found,
						version),
				 errhint(
					 "Run SELECT crm.migrate() to bring the tables to the extension's version.")));
	if (ddl.switched)
	{
		crm_lock_schema();
		if (is_freed())
			take_back();
		/* the script adds what ships only where there is no row yet */
		if (OidIsValid(crm_table_oid_if_any("installation")))
			add_installation(version);
	}
	run_script(version);
	crm_ddl_end(&ddl);
	crm_wake_at_commit();

	if (!crm_preloaded)
		ereport(
			NOTICE,
			(errmsg("pg_crm is installed but not preloaded"),
			 errhint(
				 "Sending will need shared_preload_libraries = 'pg_crm' and a restart of the server; everything else works without.")));
	PG_RETURN_VOID();
}

Datum
crm_migrate(PG_FUNCTION_ARGS)
{
	CrmDdl ddl;
	char *version;
	char *found;
	char *steps;

	crm_require_installed();
	crm_ddl_begin(&ddl, "migrate");
	refuse_planted_relations();
	version = extension_version();
	if (strcmp(version, PG_CRM_VERSION) != 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the library of pg_crm is of version %s, the extension is of version %s",
					PG_CRM_VERSION, version),
			 errhint(
				 "Run ALTER EXTENSION pg_crm UPDATE, then SELECT crm.migrate() in a new session.")));
	crm_lock_schema();
	found = installed_version();
	if (found == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("crm.installation does not say of which version the tables are"),
				 errhint("End a restore with SELECT crm.restoring(false).")));
	steps = crm_ddl_text(
		psprintf("SELECT crm.migration_script(%s::text)", quote_literal_cstr(found)));
	if (steps != NULL && *steps != '\0')
		crm_ddl("%s", steps);
	run_script(version);
	crm_ddl("UPDATE crm.installation SET version = %s, migrated_at = pg_catalog.now()"
			" WHERE version <> %s",
			quote_literal_cstr(version), quote_literal_cstr(version));
	crm_ddl_end(&ddl);
	crm_wake_at_commit();
	PG_RETURN_TEXT_P(cstring_to_text(PG_CRM_VERSION));
}

Datum
crm_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(PG_CRM_VERSION));
}
