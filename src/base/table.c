/*
 * table.c
 *		The tables of schema crm by their names, and their columns.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/table.h"
#include "base/watch.h"
#include "pg_crm.h"

/*
 * What is known about the tables, until a relcache invalidation says that one
 * of them changed. A look-up by name costs as much as a tenth of an insert.
 */
typedef struct KnownTable
{
	char name[NAMEDATALEN];
	Oid relid;
	Oid owner;
} KnownTable;

typedef struct KnownColumns
{
	Oid relid;
	const char *const *columns;
	AttrNumber attno[CRM_MAX_COLUMNS];
} KnownColumns;

static KnownColumns known_columns[8];
static int nknown_tables = 0;
static KnownTable known_tables[32];

static void
forget_tables(Datum arg, Oid relid)
{
	for (int i = 0; i < nknown_tables; i++)
		if (relid == InvalidOid || known_tables[i].relid == relid)
		{
			nknown_tables = 0;
			break;
		}
	crm_target_forget(relid);
	for (int i = 0; i < lengthof(known_columns); i++)
		if (relid == InvalidOid || known_columns[i].relid == relid)
			known_columns[i].relid = InvalidOid;
}

void
crm_table_init(void)
{
	crm_on_table_change(forget_tables);
}

Oid
crm_schema_oid(void)
{
	return get_namespace_oid(CRM_SCHEMA, true);
}

static KnownTable
know_table(const char *name)
{
	KnownTable table = { 0 };
	Oid schema;
	HeapTuple tuple;

	for (int i = 0; i < nknown_tables; i++)
		if (strcmp(known_tables[i].name, name) == 0)
			return known_tables[i];

	schema = crm_schema_oid();
	if (OidIsValid(schema))
		table.relid = get_relname_relid(name, schema);
	if (!OidIsValid(table.relid))
		return table;
	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table.relid));
	if (!HeapTupleIsValid(tuple)) /* dropped just now */
	{
		table.relid = InvalidOid;
		return table;
	}
	table.owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	strlcpy(table.name, name, NAMEDATALEN);
	if (nknown_tables < lengthof(known_tables))
		known_tables[nknown_tables++] = table;
	return table;
}

Oid
crm_table_oid_if_any(const char *name)
{
	return know_table(name).relid;
}

static KnownTable
require_table(const char *name)
{
	KnownTable table = know_table(name);

	if (!OidIsValid(table.relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE), errmsg("table crm.%s does not exist", name),
				 errhint("Run SELECT crm.install() in this database.")));
	return table;
}

Oid
crm_table_oid(const char *name)
{
	return require_table(name).relid;
}

Oid
crm_table_owner(const char *name)
{
	return require_table(name).owner;
}

void
crm_require_table(Relation rel, const char *name)
{
	if (RelationGetRelid(rel) != crm_table_oid_if_any(name))
		ereport(
			ERROR,
			(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
			 errmsg("trigger on table \"%s\" belongs to crm.%s", RelationGetRelationName(rel),
					name),
			 errhint(
				 "The triggers of pg_crm are made by crm.install(); use them on no other table.")));
}

void
crm_attributes(Relation rel, const char *const *columns, int ncolumns, AttrNumber *attno)
{
	for (int i = 0; i < ncolumns; i++)
	{
		attno[i] = 0;
		for (int att = 0; att < rel->rd_att->natts && attno[i] == 0; att++)
		{
			Form_pg_attribute attribute = TupleDescAttr(rel->rd_att, att);

			if (!attribute->attisdropped && strcmp(NameStr(attribute->attname), columns[i]) == 0)
				attno[i] = att + 1;
		}
	}
}

const AttrNumber *
crm_known_attributes(Relation rel, const char *const *columns, int ncolumns)
{
	static int next = 0;
	KnownColumns *known;

	for (int i = 0; i < lengthof(known_columns); i++)
		if (known_columns[i].relid == RelationGetRelid(rel) && known_columns[i].columns == columns)
			return known_columns[i].attno;

	known = &known_columns[next++ % lengthof(known_columns)];
	known->relid = RelationGetRelid(rel);
	known->columns = columns;
	crm_attributes(rel, columns, ncolumns, known->attno);
	for (int i = 0; i < ncolumns; i++)
		if (known->attno[i] == 0)
		{
			known->relid = InvalidOid;
			ereport(
				ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of \"%s\" does not exist", columns[i],
						RelationGetRelationName(rel)),
				 errhint(
					 "The columns that pg_crm made must stay; run SELECT crm.migrate() after an upgrade.")));
		}
	return known->attno;
}
