/*
 * restore.c
 *		What a copy of the tables needs: triggers that keep quiet while rows are
 *		loaded as they were, and an installation that knows where it is.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

#include "base/db.h"
#include "base/install.h"
#include "base/table.h"
#include "base/wake.h"
#include "pg_crm.h"

PG_FUNCTION_INFO_V1(crm_restoring);
PG_FUNCTION_INFO_V1(crm_resume_dispatch);
PG_FUNCTION_INFO_V1(crm_sql_dispatch_allowed);

static void
begin_restoring(void)
{
	crm_ddl_each(
		"SELECT format('ALTER TABLE %s DISABLE TRIGGER %I', t.tgrelid::regclass, t.tgname)" CRM_EXTENSION_TRIGGERS
		" AND t.tgenabled <> 'D' ORDER BY t.oid");
	if (crm_ddl_text("SELECT contact_id FROM crm.contact LIMIT 1") == NULL)
	{
		/* what install() put there comes with the copy */
		crm_ddl("DELETE FROM crm.stage_rule");
		crm_ddl("DELETE FROM crm.stage");
		crm_ddl("DELETE FROM crm.achievement");
		crm_ddl("DELETE FROM crm.window_rule");
		crm_ddl("DELETE FROM crm.api_limit");
		crm_ddl("DELETE FROM crm.retention");
		crm_ddl("DELETE FROM crm.installation");
	}
}

static void
end_restoring(void)
{
	static const char *const definitions[] = { "achievement",  "stage",          "stage_rule",
											   "earning_rule", "tier",           "segment",
											   "scan_limit",   "window_rule",    "template",
											   "journey",      "roll_up_setting" };

	crm_ddl_each("SELECT format('SELECT setval(%L, m) FROM (SELECT max(%I) FROM %s) AS x(m)"
				 " WHERE m > coalesce(pg_sequence_last_value(%L), 0)',"
				 " s.name, a.attname, a.attrelid::regclass, s.name)"
				 " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
				 " JOIN pg_namespace n ON n.oid = c.relnamespace"
				 " CROSS JOIN LATERAL (SELECT pg_get_serial_sequence(a.attrelid::regclass::text,"
				 " a.attname)) AS s(name)"
				 " WHERE n.nspname = 'crm' AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
				 " AND a.attidentity <> '' AND s.name IS NOT NULL");
	crm_ddl("INSERT INTO crm.installation (version, system_identifier, database_oid, database_name)"
			" SELECT %s, " INT64_FORMAT ", %u, %s WHERE NOT EXISTS (SELECT FROM crm.installation)",
			quote_literal_cstr(PG_CRM_VERSION), (int64) GetSystemIdentifier(), MyDatabaseId,
			quote_literal_cstr(get_database_name(MyDatabaseId)));
	crm_ddl_each(
		"SELECT format('ALTER TABLE %s ENABLE TRIGGER %I', t.tgrelid::regclass, t.tgname)" CRM_EXTENSION_TRIGGERS
		" AND t.tgenabled = 'D' ORDER BY t.oid");
	/* a copy of tables that had none */
	for (int i = 0; i < CRM_NPARTITIONED; i++)
		crm_ddl("INSERT INTO crm.retention (name) VALUES ('%s') ON CONFLICT DO NOTHING",
				crm_partitioned[i]);
	for (int i = 0; i < lengthof(definitions); i++)
		CacheInvalidateRelcacheByRelid(crm_table_oid(definitions[i]));
}

Datum
crm_restoring(PG_FUNCTION_ARGS)
{
	CrmDdl ddl;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument active of crm.restoring() must not be NULL"),
				 errhint("Say true before rows are loaded and false afterwards.")));
	crm_require_installed();
	crm_ddl_begin(&ddl, "restoring");
	crm_lock_schema();
	if (PG_GETARG_BOOL(0))
		begin_restoring();
	else
		end_restoring();
	crm_ddl_end(&ddl);
	PG_RETURN_VOID();
}

Datum
crm_resume_dispatch(PG_FUNCTION_ARGS)
{
	CrmDdl ddl;

	crm_require_installed();
	crm_ddl_begin(&ddl, "resume_dispatch");
	crm_ddl("UPDATE crm.installation SET system_identifier = " INT64_FORMAT ", database_oid = %u,"
			" database_name = %s, resumed_at = pg_catalog.now()",
			(int64) GetSystemIdentifier(), MyDatabaseId,
			quote_literal_cstr(get_database_name(MyDatabaseId)));
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("crm.installation has no row"),
				 errhint("End a restore with SELECT crm.restoring(false).")));
	crm_ddl_end(&ddl);
	crm_wake_at_commit();
	PG_RETURN_VOID();
}

bool
crm_dispatch_allowed(void)
{
	static CrmPlan find_here = {
		"SELECT FROM crm.installation WHERE system_identifier = $1 AND database_oid = $2",
		2,
		{ INT8OID, OIDOID }
	};
	Datum values[2] = { Int64GetDatum((int64) GetSystemIdentifier()),
						ObjectIdGetDatum(MyDatabaseId) };
	CrmActing acting;
	bool allowed;

	if (!crm_is_installed())
		return false;
	crm_connect(&acting);
	allowed = crm_run(&find_here, values, NULL) > 0;
	crm_disconnect(&acting);
	return allowed;
}

Datum
crm_sql_dispatch_allowed(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(crm_dispatch_allowed());
}
