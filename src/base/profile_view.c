/*
 * profile_view.c
 *		The view crm.profile: a contact's columns, those that users added
 *		included, and the counters. Columns keep their places, new ones are
 *		appended, so that views upon it stay.
 */
#include "postgres.h"

#include "access/table.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "nodes/makefuncs.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/db.h"
#include "base/install.h"
#include "base/table.h"

PG_FUNCTION_INFO_V1(crm_build_profile_view);

typedef struct ViewColumns
{
	StringInfoData list; /* of the SELECT */
	List *names;         /* of the view's columns */
	List *sources;       /* "c.name" and "p.name", in the same order */
} ViewColumns;

static bool
contains(List *strings, const char *value)
{
	ListCell *cell;

	foreach(cell, strings)
		if (strcmp(lfirst(cell), value) == 0)
			return true;
	return false;
}

static void
add_column(ViewColumns *columns, const char *alias, const char *source, const char *name)
{
	if (columns->list.len > 0)
		appendStringInfoString(&columns->list, ", ");
	appendStringInfo(&columns->list, "%s.%s", alias, quote_identifier(source));
	if (strcmp(source, name) != 0)
		appendStringInfo(&columns->list, " AS %s", quote_identifier(name));
	columns->names = lappend(columns->names, pstrdup(name));
	columns->sources = lappend(columns->sources, psprintf("%s.%s", alias, source));
}

/* The columns that the view has, by the table columns that they show today. */
static void
keep_columns(ViewColumns *columns, Oid view_id, Oid contact_id, Oid counter_id)
{
	Relation view = table_open(view_id, AccessShareLock);
	Query *query = view->rd_rel->relkind == RELKIND_VIEW ? get_view_query(view) : NULL;
	int attno = 0;
	ListCell *cell;

	foreach(cell, query == NULL ? NIL : query->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);
		Var *var = (Var *) entry->expr;
		Oid relid = InvalidOid;

		if (entry->resjunk)
			continue;
		if (IsA(var, Var) && var->varattno > 0)
		{
			RangeTblEntry *rte = rt_fetch(var->varno, query->rtable);

			if (rte->rtekind == RTE_RELATION)
				relid = rte->relid;
		}
		if (relid != contact_id && relid != counter_id)
		{
			query = NULL;
			break;
		}
		add_column(columns, relid == contact_id ? "c" : "p",
				   get_attname(relid, var->varattno, false),
				   NameStr(TupleDescAttr(RelationGetDescr(view), attno)->attname));
		attno++;
	}
	if (query == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("crm.profile is not the view that pg_crm makes"),
				 errhint("Drop or rename crm.profile, then run crm.install() again.")));
	table_close(view, AccessShareLock);
}

static void
append_columns(ViewColumns *columns, Oid relid, const char *alias, Oid other)
{
	Relation rel = table_open(relid, AccessShareLock);
	TupleDesc descriptor = RelationGetDescr(rel);

	for (int i = 0; i < descriptor->natts; i++)
	{
		char *name = NameStr(TupleDescAttr(descriptor, i)->attname);

		if (TupleDescAttr(descriptor, i)->attisdropped || contains(columns->names, name) ||
			contains(columns->sources, psprintf("%s.%s", alias, name)))
			continue;
		/* of two columns of one name the counter is meant, but for the contact's own */
		if (OidIsValid(other) && get_attnum(other, name) > 0 && strcmp(name, "contact_id") != 0 &&
			strcmp(name, "stage") != 0)
			continue;
		add_column(columns, alias, name, name);
	}
	table_close(rel, AccessShareLock);
}

/* The view was gone, with a column that was dropped. */
static void
say_what_stood_still(void)
{
	static CrmPlan find = { "SELECT FROM crm.segment LIMIT 1", 0 };

	if (OidIsValid(crm_table_oid_if_any("segment")) && crm_run(&find, NULL, NULL) > 0)
		ereport(NOTICE,
				(errmsg("segments stood still while crm.profile was missing"),
				 errhint("Run SELECT crm.recompute().")));
}

void
crm_make_profile_view(void)
{
	Oid contact_id = crm_table_oid("contact");
	Oid counter_id = crm_table_oid("profile_counter");
	Oid view_id = crm_table_oid_if_any("profile");
	ViewColumns columns = { 0 };
	int kept;

	initStringInfo(&columns.list);
	if (OidIsValid(view_id))
		keep_columns(&columns, view_id, contact_id, counter_id);
	kept = list_length(columns.names);
	append_columns(&columns, contact_id, "c", counter_id);
	append_columns(&columns, counter_id, "p", InvalidOid);
	if (list_length(columns.names) > kept)
		crm_ddl("CREATE OR REPLACE VIEW crm.profile AS SELECT %s FROM crm.contact c"
				" LEFT JOIN crm.profile_counter p ON p.contact_id = c.contact_id",
				columns.list.data);

	if (!OidIsValid(view_id))
	{
		crm_ddl("COMMENT ON VIEW crm.profile IS 'A contact and its counters, one row a contact."
				" Columns added to crm.contact are in it after the next install().'");
		say_what_stood_still();
	}
	crm_ddl_each("SELECT format('COMMENT ON COLUMN crm.profile.%I IS %L', v.attname, w.wanted)"
				 " FROM pg_attribute v CROSS JOIN LATERAL (SELECT coalesce("
				 "(SELECT col_description(a.attrelid, a.attnum) FROM pg_attribute a"
				 " WHERE a.attname = v.attname AND NOT a.attisdropped"
				 " AND a.attrelid IN ('crm.contact'::regclass, 'crm.profile_counter'::regclass)"
				 " ORDER BY (a.attrelid = 'crm.contact'::regclass) ="
				 " (a.attname IN ('contact_id', 'stage')) DESC LIMIT 1),"
				 " format('Column %s of crm.contact.', v.attname)) AS wanted) AS w"
				 " WHERE v.attrelid = 'crm.profile'::regclass AND v.attnum > 0"
				 " AND col_description(v.attrelid, v.attnum) IS DISTINCT FROM w.wanted");
}

Datum
crm_build_profile_view(PG_FUNCTION_ARGS)
{
	CrmDdl ddl;

	crm_require_installed();
	crm_ddl_begin(&ddl, "build_profile_view");
	crm_make_profile_view();
	crm_ddl_end(&ddl);
	PG_RETURN_VOID();
}
