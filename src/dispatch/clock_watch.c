/*
 * clock_watch.c
 *		What the worker does about the clock: it looks, cheaply, whether something
 *		is due, and starts it. An error here is no failed turn, lest it keep
 *		messages from going out.
 */
#include "postgres.h"

#include <limits.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/lmgr.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/guc.h"
#include "base/install.h"
#include "base/table.h"
#include "base/wake.h"
#include "dispatch/clock.h"
#include "dispatch/worker.h"

/* while somebody holds the tables; between two starts; while no worker slot is free */
#define BUSY_MILLISECONDS    1000
#define RESTART_MILLISECONDS 1000
#define NO_ROOM_MILLISECONDS 5000
/* without a slot, before somebody is told: others come and go */
#define TOLD_AFTER_SECONDS 60

static CrmPlan find_disabled = { "SELECT" CRM_EXTENSION_TRIGGERS " AND t.tgenabled = 'D'"
								 " AND t.tgrelid = 'crm.contact'::regclass",
								 0 };

const CrmTimeWork *crm_time_work = NULL;

static BackgroundWorkerHandle *handle = NULL; /* until it has ended */
static TimestampTz look_at = DT_NOBEGIN;
static TimestampTz started_at = DT_NOBEGIN;
static TimestampTz no_room_since = DT_NOEND;
static bool failed = false; /* the look before this one */
static bool hurry = false;  /* somebody said that something will soon be due */

bool
crm_clock_may_run(void)
{
	return crm_dispatch_allowed() && crm_run(&find_disabled, NULL, NULL) == 0;
}

/* The milliseconds until something is due, at most INT_MAX; INT_MAX too where time stands still. */
static int
find_due(TimestampTz maintain_at)
{
	CrmActing acting;
	int64 due = INT_MAX;

	if (!crm_is_installed())
		return INT_MAX;
	for (int i = 0; i < CRM_TIME_TABLES; i++)
	{
		Oid table = crm_table_oid_if_any(crm_time_work->tables[i]);

		if (!OidIsValid(table))
			return INT_MAX; /* they are being restored */
		if (!ConditionalLockRelationOid(table, AccessShareLock))
			return BUSY_MILLISECONDS;
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	crm_connect(&acting);
	if (crm_clock_may_run())
	{
		TimestampTz next = crm_time_work->next();

		due = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), maintain_at);
		if (next != DT_NOEND)
			due = Min(due, TimestampDifferenceMilliseconds(crm_now(), next));
	}
	crm_disconnect(&acting);
	PopActiveSnapshot();
	return Min(due, INT_MAX);
}

static int
look(TimestampTz maintain_at)
{
	volatile int due = INT_MAX;
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		due = find_due(maintain_at);
		CommitTransactionCommand();
		failed = false;
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		error_context_stack = NULL;
		if (!failed)
			EmitErrorReport();
		failed = true;
		AbortOutOfAnyTransaction();
		LWLockReleaseAll();
		pgstat_report_wait_end();
		MemoryContextSwitchTo(context);
		FlushErrorState();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return due;
}

static bool
start(CrmSlot *slot, const char *database)
{
	BackgroundWorker worker;
	CrmWorkerOrder order = { .database = MyDatabaseId, .slot = slot - crm_shared->slots };
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	bool told = slot->clock.no_room;
	bool room;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid; /* it looks again when the clock has ended */
	strlcpy(worker.bgw_library_name, "pg_crm", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "crm_clock_main", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "pg_crm clock of database %u", MyDatabaseId);
	strlcpy(worker.bgw_type, "pg_crm clock", BGW_MAXLEN);
	memcpy(worker.bgw_extra, &order, sizeof(order));
	room = RegisterDynamicBackgroundWorker(&worker, &handle);
	MemoryContextSwitchTo(old);
	if (room)
		no_room_since = DT_NOEND;
	else
	{
		handle = NULL;
		no_room_since = Min(no_room_since, started_at);
	}

	LWLockAcquire(crm_lock, LW_EXCLUSIVE);
	slot->clock.no_room = no_room_since <= started_at - TOLD_AFTER_SECONDS * USECS_PER_SEC;
	LWLockRelease(crm_lock);
	if (told && room)
		ereport(LOG,
				(errmsg("pg_crm found a worker slot for the clock of database \"%s\" again",
						database)));
	else if (slot->clock.no_room && !told)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("pg_crm found no free worker slot for the clock of database \"%s\"",
						database),
				 errdetail(
					 "All %d slots of max_worker_processes are in use; what is due by time waits.",
					 max_worker_processes),
				 errhint("Raise max_worker_processes and restart the server.")));
	return room;
}

/* Says that it ended by an error, once each time. */
static void
tell(const CrmClock *clock, const char *database)
{
	if (clock->failures > 0 && !clock->told_failure)
		ereport(WARNING,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("pg_crm clock of database \"%s\" ended by an error", database),
				 errdetail("Failures in a row: %d. The last error was %s.", clock->failures,
						   unpack_sql_state(clock->last_error))));
}

/* What it waits for may be later than what is due now. */
static void
hurry_clock(CrmSlot *slot)
{
	uint32 procno;

	pg_atomic_write_u32(&slot->clock_hurried, 1);
	LWLockAcquire(crm_lock, LW_SHARED);
	procno = slot->clock.pid == 0 ? CRM_NO_PROCESS : slot->clock.procno;
	LWLockRelease(crm_lock);
	crm_wake_process(procno);
	hurry = false;
}

int
crm_clock_watch(CrmSlot *slot, const char *database)
{
	TimestampTz now = GetCurrentTimestamp();
	CrmClock clock;
	pid_t pid;
	int64 due;

	hurry |= pg_atomic_exchange_u32(&slot->clock_woken, 0) != 0;

	if (handle != NULL)
	{
		if (GetBackgroundWorkerPid(handle, &pid) != BGWH_STOPPED)
		{
			if (hurry)
				hurry_clock(slot);
			return INT_MAX; /* its end comes with a signal */
		}
		pfree(handle);
		handle = NULL;
		look_at = TimestampTzPlusMilliseconds(started_at, RESTART_MILLISECONDS);
	}
	/* it may have left before it was told */
	if (slot->clock.pid == 0)
		hurry |= pg_atomic_exchange_u32(&slot->clock_hurried, 0) != 0;
	if (hurry)
		look_at = Min(look_at, TimestampTzPlusMilliseconds(started_at, RESTART_MILLISECONDS));
	if (now < look_at)
		return TimestampDifferenceMilliseconds(now, look_at);

	LWLockAcquire(crm_lock, LW_EXCLUSIVE);
	if (slot->clock.maintain_at == 0) /* not while all workers of the server start */
		slot->clock.maintain_at =
			TimestampTzPlusMilliseconds(now, crm_guc_poll_interval * INT64CONST(1000));
	clock = slot->clock;
	slot->clock.told_failure = true;
	LWLockRelease(crm_lock);
	tell(&clock, database);
	if (clock.pid != 0) /* an earlier worker started it */
	{
		if (hurry)
			hurry_clock(slot);
		due = INT_MAX;
	}
	else if (clock.next_start_at > now && !(hurry && clock.held))
		due = TimestampDifferenceMilliseconds(now, clock.next_start_at);
	else
	{
		due = look(clock.maintain_at);
		if (due == 0)
		{
			started_at = now;
			due = start(slot, database) ? INT_MAX : NO_ROOM_MILLISECONDS;
		}
	}
	hurry = false;
	due = Min(due, crm_guc_poll_interval * INT64CONST(1000));
	look_at = TimestampTzPlusMilliseconds(now, due);
	return due;
}
