/*
 * map_define.c
 *		Saving maps, each change as a new version, and giving them back.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/table.h"
#include "insight/map.h"
#include "insight/period.h"
#include "journey/reading.h"
#include "pg_crm.h"

PG_FUNCTION_INFO_V1(crm_sql_define_map);
PG_FUNCTION_INFO_V1(crm_sql_export_map);

static CrmPlan find_equal = {
	"SELECT m.version FROM crm.map m JOIN crm.map_version v ON v.map = m.map"
	" AND v.version = m.version WHERE m.map = $1 AND v.definition = $2",
	2,
	{ TEXTOID, JSONBOID }
};
static CrmPlan insert_version = {
	"INSERT INTO crm.map_version (map, version, definition, defined_at, defined_by)"
	" SELECT $1, coalesce(max(v.version), 0) + 1, $2, $3, $4 FROM crm.map_version v"
	" WHERE v.map = $1 RETURNING version",
	4,
	{ TEXTOID, JSONBOID, TIMESTAMPTZOID, TEXTOID }
};
static CrmPlan save_map = {
	"INSERT INTO crm.map (map, version, changed_at) VALUES ($1, $2, $3)"
	" ON CONFLICT (map) DO UPDATE SET version = EXCLUDED.version, changed_at = EXCLUDED.changed_at",
	3,
	{ TEXTOID, INT4OID, TIMESTAMPTZOID }
};

static int
save(Jsonb *document, const char *name)
{
	Datum values[4] = { CStringGetTextDatum(name), JsonbPGetDatum(document),
						TimestampTzGetDatum(crm_now()),
						CStringGetTextDatum(GetUserNameFromId(crm_caller(), false)) };
	bool isnull;
	int version;

	/* versions are counted one after the other */
	LockRelationOid(crm_table_oid("map"), ShareRowExclusiveLock);
	if (crm_run(&find_equal, values, NULL) > 0)
		return DatumGetInt32(crm_result(0, 1, &isnull));
	crm_run(&insert_version, values, NULL);
	version = DatumGetInt32(crm_result(0, 1, &isnull));
	values[1] = Int32GetDatum(version);
	crm_run(&save_map, values, NULL);
	return version;
}

Datum
crm_sql_define_map(PG_FUNCTION_ARGS)
{
	Jsonb *document;
	CrmMap *map;
	List *faults;
	CrmActing acting;
	int version;
	int n;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument definition of crm.define_map() must not be NULL"),
				 errhint("Give a document as doc/maps.md describes it.")));
	document = PG_GETARG_JSONB_P(0);
	if (VARSIZE_ANY_EXHDR(document) > CRM_MAX_DOCUMENT_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("definition of %zu bytes is larger than %d",
						(size_t) VARSIZE_ANY_EXHDR(document), CRM_MAX_DOCUMENT_BYTES),
				 errhint("Split it into several maps.")));
	if (!JB_ROOT_IS_OBJECT(document))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("definition of a map is %s, not an object",
						JB_ROOT_IS_SCALAR(document) ? "a scalar" : "an array"),
				 errhint("Give a document as doc/maps.md describes it.")));
	crm_connect(&acting);
	map = crm_map_load(document, true, CurrentMemoryContext, &faults);
	n = list_length(faults);
	if (n > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 map->name == NULL
					 ? errmsg_plural("definition of a map has %d fault",
									 "definition of a map has %d faults", n, n)
					 : errmsg_plural("definition of map \"%s\" has %d fault",
									 "definition of map \"%s\" has %d faults", n, map->name, n),
				 errdetail("%s", crm_faults_text(faults)),
				 errhint("Each line is a place in the document and what is wrong there; nothing"
						 " was changed.")));
	version = save(document, map->name);
	crm_disconnect(&acting);
	PG_RETURN_INT32(version);
}

static CrmPlan find_version = {
	"SELECT v.definition, v.version FROM crm.map_version v LEFT JOIN crm.map m ON m.map = v.map"
	" WHERE v.map = $1 AND v.version = coalesce($2, m.version)",
	2,
	{ TEXTOID, INT4OID }
};
static CrmPlan list_versions = {
	"SELECT string_agg(v.version::text, ', ' ORDER BY v.version) FROM crm.map_version v"
	" WHERE v.map = $1",
	1,
	{ TEXTOID }
};

Jsonb *
crm_map_document(const char *name, int *version, MemoryContext context)
{
	Datum values[2] = { CStringGetTextDatum(name), Int32GetDatum(*version) };
	MemoryContext old;
	Jsonb *document;
	bool isnull;

	if (crm_read(&find_version, values, *version == CRM_MAP_CURRENT ? " n" : NULL) == 0)
	{
		char *versions;

		crm_read(&list_versions, values, NULL);
		versions = crm_result_text(0, 1);
		if (versions == NULL || *version == CRM_MAP_CURRENT)
			ereport(ERROR,
					(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
					 errmsg("map \"%s\" does not exist", crm_shown(name)),
					 errhint("Maps are the rows of crm.map.")));
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("map \"%s\" has no version %d", crm_shown(name), *version),
				 errhint("Versions are: %s. NULL stands for the newest one.", versions)));
	}
	*version = DatumGetInt32(crm_result(0, 2, &isnull));
	old = MemoryContextSwitchTo(context);
	document = DatumGetJsonbPCopy(crm_result(0, 1, &isnull));
	MemoryContextSwitchTo(old);
	return document;
}

CrmMap *
crm_map_find(const char *name, int version, MemoryContext context)
{
	Jsonb *document = crm_map_document(name, &version, context);
	List *faults;
	CrmMap *map = crm_map_load(document, false, context, &faults);

	map->name = MemoryContextStrdup(context, name);
	map->version = version;
	return map;
}

Datum
crm_sql_export_map(PG_FUNCTION_ARGS)
{
	int version = crm_version_argument(fcinfo, 1, CRM_MAP_CURRENT);
	MemoryContext context = CurrentMemoryContext;
	Jsonb *document;
	CrmActing acting;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument map of crm.export_map() must not be NULL"),
				 errhint("Name a map of crm.map.")));
	crm_connect(&acting);
	document = crm_map_document(text_to_cstring(PG_GETARG_TEXT_PP(0)), &version, context);
	crm_disconnect(&acting);
	PG_RETURN_JSONB_P(document);
}
