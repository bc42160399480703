/*
 * ddl.c
 *		Statements that make and change the tables of schema crm, in the name of
 *		their owner and nobody else.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/install.h"
#include "base/table.h"

/* pauses between two attempts to lock everything, each twice the one before */
#define FIRST_LOCK_PAUSE_MS   100
#define LONGEST_LOCK_PAUSE_MS 5000

bool
crm_is_installed(void)
{
	return OidIsValid(crm_table_oid_if_any("contact"));
}

void
crm_require_installed(void)
{
	(void) crm_table_oid("contact");
}

static void
set_option(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
							 false);
}

void
crm_ddl_begin(CrmDdl *ddl, const char *function)
{
	Oid caller = GetUserId();

	ddl->switched = function != NULL && crm_is_installed();
	if (ddl->switched)
	{
		Oid owner = crm_owner();
		Oid userid;
		int security_context;

		if (!has_privs_of_role(caller, owner))
			ereport(
				ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not call crm.%s()", GetUserNameFromId(caller, false),
						function),
				 errhint("Call it as role \"%s\", which owns crm.contact, or as a member of it.",
						 GetUserNameFromId(owner, false))));
		crm_act_as_owner(&ddl->acting);

		/* what the owner planted can leave nothing behind that runs later as the caller */
		GetUserIdAndSecContext(&userid, &security_context);
		if (caller != owner)
			SetUserIdAndSecContext(userid, security_context | SECURITY_RESTRICTED_OPERATION);
	}
	ddl->guc_nest_level = NewGUCNestLevel();
	set_option("search_path", "pg_catalog, pg_temp");
	/* a GRANT that grants nothing warns; the caller looks for itself */
	set_option("client_min_messages", function != NULL ? "warning" : "error");
	set_option("standard_conforming_strings", "on");
	set_option("check_function_bodies", "on");
	SPI_connect();
}

void
crm_ddl_end(CrmDdl *ddl)
{
	SPI_finish();
	AtEOXact_GUC(true, ddl->guc_nest_level);
	if (ddl->switched)
		crm_act_end(&ddl->acting);
}

static void
run(const char *sql)
{
	int code = SPI_execute(sql, false, 0);

	if (code < 0)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(code));
}

void
crm_ddl(const char *format, ...)
{
	StringInfoData sql;

	initStringInfo(&sql);
	for (;;)
	{
		va_list args;
		int needed;

		va_start(args, format);
		needed = appendStringInfoVA(&sql, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&sql, needed);
	}
	run(sql.data);
	pfree(sql.data);
}

int
crm_ddl_each(const char *query)
{
	SPITupleTable *table;
	uint64 n;

	run(query);
	table = SPI_tuptable;
	n = SPI_processed;
	for (uint64 row = 0; row < n; row++)
		run(SPI_getvalue(table->vals[row], table->tupdesc, 1));
	SPI_freetuptable(table);
	return n;
}

char *
crm_ddl_text(const char *query)
{
	run(query);
	if (SPI_processed == 0)
		return NULL;
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

typedef struct LockAttempt
{
	const Oid *relations;
	int n;
	int budget_ms;
} LockAttempt;

static bool
lock_relations(void *arg)
{
	const LockAttempt *attempt = arg;
	TimestampTz start = GetCurrentTimestamp();

	for (int i = 0; i < attempt->n; i++)
	{
		long spent = TimestampDifferenceMilliseconds(start, GetCurrentTimestamp());
		char timeout[32];

		snprintf(timeout, sizeof(timeout), "%ldms", Max(attempt->budget_ms - spent, 1));
		set_option("lock_timeout", timeout);
		LockRelationOid(attempt->relations[i], AccessExclusiveLock);
	}
	return true;
}

/* One attempt; false, and nothing is held, if the locks did not come in time. */
static bool
try_lock(const Oid *relations, int n, int budget_ms)
{
	LockAttempt attempt = { relations, n, budget_ms };
	ErrorData *error;

	if (crm_attempt(lock_relations, &attempt, &error))
		return true;
	if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
		error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED)
		ReThrowError(error);
	FreeErrorData(error);
	return false;
}

/*
 * DDL on many tables in use would run into deadlocks with transactions that
 * lock them in another order, and the server might choose those to die. So all
 * is locked first, in attempts shorter than the time after which a waiting
 * writer looks for deadlocks; between two attempts nothing is held.
 */
void
crm_lock_schema(void)
{
	static CrmPlan select_relations = {
		"SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
		" WHERE n.nspname = 'crm' AND c.relkind IN ('r', 'p', 'v', 'm') ORDER BY c.oid",
		0
	};
	int budget_ms = Max(Min(DeadlockTimeout / 2, 500), 1);
	int pause_ms = FIRST_LOCK_PAUSE_MS;
	int give_up_ms = LockTimeout;
	TimestampTz start = GetCurrentTimestamp();
	uint64 n = crm_run(&select_relations, NULL, NULL);
	Oid *relations = palloc(sizeof(Oid) * Max(n, 1));
	int nest_level = NewGUCNestLevel();

	for (uint64 row = 0; row < n; row++)
	{
		bool isnull;

		relations[row] = DatumGetObjectId(crm_result(row, 1, &isnull));
	}
	while (!try_lock(relations, n, budget_ms))
	{
		CHECK_FOR_INTERRUPTS();
		if (give_up_ms > 0 &&
			TimestampDifferenceMilliseconds(start, GetCurrentTimestamp()) > give_up_ms)
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("tables of schema crm are in use by long transactions"),
					 errhint("Try again when they have ended, or raise lock_timeout.")));
		pg_usleep(pause_ms * 1000L);
		pause_ms = Min(pause_ms * 2, LONGEST_LOCK_PAUSE_MS);
	}
	AtEOXact_GUC(true, nest_level);
	pfree(relations);
}
