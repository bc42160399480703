/*
 * lifecycle.c
 *		Commands that make, end or disturb workers: CREATE and DROP EXTENSION,
 *		seen when they commit, and commands that need a database to themselves.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/timestamp.h"

#include "base/shmem.h"
#include "base/wake.h"
#include "compat.h"
#include "dispatch/lifecycle.h"

/* milliseconds until a worker that does not stop is ended by a signal, and until we go on */
#define SIGNAL_AFTER 2000
#define GO_ON_AFTER  10000

static object_access_hook_type next_object_access_hook = NULL;
static ProcessUtility_hook_type next_process_utility_hook = NULL;

/* what this transaction did, for its commit */
static bool extension_touched = false;
static bool databases_touched = false;
static int nsettings = 0;
static Oid settings_touched[8];

/* The extension may have come to this database, or gone from it. */
static void
look_at_database(void)
{
	CrmSlot *slot;

	LWLockAcquire(crm_lock, LW_EXCLUSIVE);
	slot = crm_slot_take(MyDatabaseId);
	if (slot != NULL)
		slot->look = true;
	else
		crm_shared->look_all = true;
	LWLockRelease(crm_lock);
	crm_wake_worker(MyDatabaseId);
	crm_wake_launcher();
}

/* A session reads the settings of its database at its start: the worker starts anew. */
static void
restart_worker(Oid database)
{
	CrmSlot *slot;

	if (!OidIsValid(database))
		return;
	LWLockAcquire(crm_lock, LW_EXCLUSIVE);
	slot = crm_slot_find(database);
	if (slot != NULL)
	{
		slot->look = true;
		if (slot->pid != 0 && slot->stop == CRM_STOP_NOT)
			slot->stop = CRM_STOP_SETTINGS;
		crm_clock_stop(slot);
	}
	LWLockRelease(crm_lock);
	crm_wake_worker(database);
	crm_wake_launcher();
}

static void
forget_events(void)
{
	extension_touched = databases_touched = false;
	nsettings = 0;
}

static void
transaction_ends(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			if (extension_touched)
				look_at_database();
			for (int i = 0; i < nsettings; i++)
				restart_worker(settings_touched[i]);
			if (databases_touched)
				crm_wake_launcher();
			forget_events();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			forget_events();
			break;
		default:
			break;
	}
}

/* Also of extensions that go by CASCADE, DROP OWNED or with what they need. */
static void
object_accessed(ObjectAccessType access, Oid classId, Oid objectId, int subId, void *arg)
{
	if (next_object_access_hook)
		next_object_access_hook(access, classId, objectId, subId, arg);
	if (classId != ExtensionRelationId || crm_shared == NULL)
		return;
	/* one that is being made has no name yet that could be looked up */
	if (access == OAT_POST_CREATE)
		extension_touched = true;
	else if (access == OAT_DROP)
	{
		const char *name = get_extension_name(objectId);

		if (name != NULL && strcmp(name, "pg_crm") == 0)
			extension_touched = true;
	}
}

/* The name of the database that the command needs to itself, NULL for none. */
static const char *
needed_database(Node *statement)
{
	ListCell *cell;

	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return ((DropdbStmt *) statement)->dbname;
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
				return ((RenameStmt *) statement)->subname;
			return NULL;
		case T_AlterDatabaseStmt:
			foreach(cell, ((AlterDatabaseStmt *) statement)->options)
				if (strcmp(lfirst_node(DefElem, cell)->defname, "tablespace") == 0)
					return ((AlterDatabaseStmt *) statement)->dbname;
			return NULL;
		case T_CreatedbStmt:
			foreach(cell, ((CreatedbStmt *) statement)->options)
			{
				DefElem *option = lfirst_node(DefElem, cell);

				if (strcmp(option->defname, "template") == 0 && option->arg != NULL)
					return defGetString(option);
			}
			return NULL;
		default:
			return NULL;
	}
}

static void
release_database(int code, Datum database)
{
	CrmSlot *slot;

	LWLockAcquire(crm_lock, LW_EXCLUSIVE);
	slot = crm_slot_find(DatumGetObjectId(database));
	if (slot != NULL && slot->held > 0)
		slot->held--;
	LWLockRelease(crm_lock);
	crm_wake_launcher();
}

/* Keeps workers away from the database; false where there is nothing to keep. */
static bool
hold_database(Oid database)
{
	CrmSlot *slot;

	LWLockAcquire(crm_lock, LW_EXCLUSIVE);
	slot = crm_slot_take(database);
	if (slot != NULL)
	{
		slot->held++;
		if (slot->pid != 0)
			slot->stop = CRM_STOP_HELD;
		crm_clock_stop(slot);
	}
	LWLockRelease(crm_lock);
	if (slot == NULL)
		return false;
	crm_wake_worker(database);
	return true;
}

/* The worker or the clock of a held database, 0 once both have left. */
static int
remaining_process(Oid database)
{
	CrmSlot *slot;
	int pid;

	LWLockAcquire(crm_lock, LW_SHARED);
	slot = crm_slot_find(database);
	pid = slot == NULL ? 0 : slot->pid != 0 ? slot->pid : slot->clock.pid;
	LWLockRelease(crm_lock);
	return pid;
}

static void
wait_until_left(Oid database)
{
	TimestampTz begin = GetCurrentTimestamp();
	int signalled = 0;
	int pid;

	ConditionVariablePrepareToSleep(&crm_shared->detached);
	while ((pid = remaining_process(database)) != 0)
	{
		TimestampTz now = GetCurrentTimestamp();

		if (TimestampDifferenceExceeds(begin, now, GO_ON_AFTER))
			break; /* the command will say that the database is in use */
		if (pid != signalled && TimestampDifferenceExceeds(begin, now, SIGNAL_AFTER))
		{
			(void) kill(pid, SIGTERM);
			signalled = pid;
		}
		(void) ConditionVariableTimedSleep(&crm_shared->detached, 200, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

static void
go_on(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree, ProcessUtilityContext context,
	  ParamListInfo params, QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	if (next_process_utility_hook)
		next_process_utility_hook(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest,
								  qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest,
								qc);
}

static void
process_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree,
				ProcessUtilityContext context, ParamListInfo params, QueryEnvironment *queryEnv,
				DestReceiver *dest, QueryCompletion *qc)
{
	Node *statement = pstmt->utilityStmt;
	const char *name = crm_shared == NULL ? NULL : needed_database(statement);
	Oid database = name == NULL ? InvalidOid : get_database_oid(name, true);

	/* who may not do it anyway is not to stop a worker by trying */
	if (OidIsValid(database) && crm_owns_database(database, GetUserId()) && hold_database(database))
	{
		/* also where the session itself is ended meanwhile */
		PG_ENSURE_ERROR_CLEANUP(release_database, ObjectIdGetDatum(database));
		{
			wait_until_left(database);
			go_on(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
		}
		PG_END_ENSURE_ERROR_CLEANUP(release_database, ObjectIdGetDatum(database));
		release_database(0, ObjectIdGetDatum(database));
	}
	else
		go_on(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);

	if (crm_shared == NULL)
		return;
	switch (nodeTag(statement))
	{
		case T_AlterDatabaseStmt: /* may allow connections, or forbid them */
		case T_CreatedbStmt:
		case T_DropdbStmt:
		case T_RenameStmt:
			databases_touched = true;
			break;
		case T_AlterDatabaseSetStmt:
			if (nsettings < lengthof(settings_touched))
				settings_touched[nsettings++] =
					get_database_oid(((AlterDatabaseSetStmt *) statement)->dbname, true);
			break;
		case T_TransactionStmt:
			/* what was prepared may have left work; this command is a transaction of its own */
			if (((TransactionStmt *) statement)->kind == TRANS_STMT_COMMIT_PREPARED)
			{
				crm_wake_at_commit();
				crm_wake_clock_at_commit();
			}
			break;
		default:
			break;
	}
}

void
crm_lifecycle_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	RegisterXactCallback(transaction_ends, NULL);
	next_object_access_hook = object_access_hook;
	object_access_hook = object_accessed;
	next_process_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
