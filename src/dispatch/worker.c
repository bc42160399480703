/*
 * worker.c
 *		The worker of one database: its start, its loop, its end.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/shmem.h"
#include "base/wake.h"
#include "compat.h"
#include "dispatch/clock.h"
#include "dispatch/turn.h"
#include "dispatch/worker.h"

/* failed turns in a row after which a fresh process is tried */
#define MAX_FAILED_TURNS 5

/* a worker that has run for so long, in seconds, begins a new count of failures */
#define SOUND_AFTER 60

/* after an error that passes, in milliseconds */
#define PASSING_PAUSE 200

/* longest pause after failures, in seconds */
#define MAX_PAUSE 60

static CrmSlot *slot = NULL;
static uint32 generation = 0;
static CrmStop stopping = CRM_STOP_NOT;
static TimestampTz looked_at = 0; /* that the extension is there */
static char database_name[NAMEDATALEN];
static volatile sig_atomic_t terminated = false;

static WaitEventSet *waiting = NULL;
static pgsocket watched = PGINVALID_SOCKET;

static MemoryContext turn_context = NULL;
static int failed_turns = 0;
static int last_error = 0;
static TimestampTz not_before = 0; /* a pause after failed turns */

/* die() too, so that a turn in the middle of a long statement ends as well */
static void
handle_sigterm(SIGNAL_ARGS)
{
	terminated = true;
	die(postgres_signal_arg);
}

static bool
runs_soundly(TimestampTz now)
{
	return TimestampDifferenceExceeds(slot->started_at, now, SOUND_AFTER * 1000);
}

/*
 * Leaves the slot. Registered before the process connects, so it runs when the
 * process is no longer counted among those that use the database: whoever
 * waits for that may go on at once.
 */
static void
detach(int code, Datum arg)
{
	CrmStop reason = stopping;
	TimestampTz now = GetCurrentTimestamp();

	if (reason == CRM_STOP_NOT && terminated)
		reason = CRM_STOP_TERMINATED;
	LWLockAcquire(crm_lock, LW_EXCLUSIVE);
	slot->pid = 0;
	pg_atomic_write_u32(&slot->procno, CRM_NO_PROCESS);
	slot->stop = CRM_STOP_NOT;
	slot->failed_turns = failed_turns;
	if (slot->down_since == 0)
		slot->down_since = now;
	slot->next_start_at = now;
	if (reason != CRM_STOP_NOT && reason != CRM_STOP_TERMINATED)
		crm_clock_stop(slot);
	switch (reason)
	{
		case CRM_STOP_OFF:
			crm_slot_state(slot, CRM_WORKER_OFF);
			slot->down_since = 0;
			break;
		case CRM_STOP_REFUSED:
			crm_slot_state(slot, CRM_WORKER_REFUSED);
			slot->down_since = 0;
			break;
		case CRM_STOP_ABSENT:
			crm_slot_state(slot, CRM_WORKER_ABSENT);
			slot->has_extension = false;
			break;
		case CRM_STOP_HELD:
		case CRM_STOP_SETTINGS:
			crm_slot_state(slot, CRM_WORKER_WANTED);
			break;
		case CRM_STOP_TERMINATED:
			crm_slot_state(slot, CRM_WORKER_WANTED);
			slot->next_start_at = TimestampTzPlusMilliseconds(now, 1000);
			break;
		case CRM_STOP_NOT:
			slot->failures = runs_soundly(now) ? 1 : slot->failures + 1;
			slot->last_error = last_error;
			slot->told_failure = false;
			slot->next_start_at =
				TimestampTzPlusMilliseconds(now,
											1000 *
												Min(MAX_PAUSE, 1 << Min(slot->failures - 1, 10)));
			crm_slot_state(slot, CRM_WORKER_FAILED);
			break;
	}
	LWLockRelease(crm_lock);
	ConditionVariableBroadcast(&crm_shared->detached);
	crm_wake_launcher();
}

/* Takes the slot, unless the order was taken back since it was given. */
static bool
attach(const CrmWorkerOrder *order)
{
	bool taken;

	slot = &crm_shared->slots[order->slot];
	generation = order->generation;
	LWLockAcquire(crm_lock, LW_EXCLUSIVE);
	taken = slot->database == order->database && slot->generation == generation && slot->pid == 0 &&
		slot->held == 0 && !crm_shared->off;
	if (taken)
	{
		slot->pid = MyProcPid;
		slot->stop = CRM_STOP_NOT;
		slot->started_at = GetCurrentTimestamp();
		slot->last_turn_at = 0;
		slot->turns = 0;
		slot->failed_turns = 0;
		pg_atomic_write_u32(&slot->woken, 0);
		pg_atomic_write_u32(&slot->procno, CRM_MY_PROC_NUMBER);
		on_shmem_exit(detach, (Datum) 0);
	}
	else if (slot->database == order->database && slot->generation == generation && slot->pid == 0)
		crm_slot_state(slot, CRM_WORKER_WANTED);
	LWLockRelease(crm_lock);
	return taken;
}

static void
end_turns(int code, Datum arg)
{
	crm_turn_end();
}

/* The signal that ends the process was heeded; another one while it drains is not waited out. */
static void
drain(void)
{
	ProcDiePending = false;
	InterruptPending = false;
	MemoryContextSwitchTo(turn_context);
	PG_TRY();
	{
		crm_turn_drain();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		EmitErrorReport();
		AbortOutOfAnyTransaction();
		FlushErrorState();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
}

/* An orderly end; the launcher reads from the slot what follows. */
static void
stop(CrmStop reason)
{
	static const char *const reasons[] = {
		[CRM_STOP_OFF] = "pg_crm.worker is off",
		[CRM_STOP_REFUSED] = "the database is a template or allows no connections",
		[CRM_STOP_HELD] = "a command needs the database to itself",
		[CRM_STOP_SETTINGS] = "settings of the database changed",
		[CRM_STOP_ABSENT] = "extension pg_crm is gone",
		[CRM_STOP_TERMINATED] = "it was told to by a signal",
	};

	stopping = reason;
	if (turn_context != NULL && reason != CRM_STOP_ABSENT && reason != CRM_STOP_REFUSED)
		drain();
	HOLD_INTERRUPTS(); /* reporting would heed the signal that was heeded here */
	if (slot->state == CRM_WORKER_RUNNING)
		ereport(LOG,
				(errmsg("pg_crm worker of database \"%s\" stopped: %s", database_name,
						reasons[reason])));
	else if (reason == CRM_STOP_OFF && !slot->told_off)
	{
		slot->told_off = true;
		ereport(LOG,
				(errmsg("pg_crm worker of database \"%s\" not started: %s", database_name,
						reasons[reason])));
	}
	proc_exit(0);
}

/*
 * Looks whether this database is one to work in; ends the process otherwise.
 * Whoever changed that has woken this process before telling the caches, so
 * what these hold is not asked then.
 */
static void
look(bool changed)
{
	HeapTuple tuple;
	CrmStop reason = CRM_STOP_NOT;

	LWLockAcquire(crm_lock, LW_EXCLUSIVE);
	slot->look = false; /* before the snapshot: a later change raises it again */
	LWLockRelease(crm_lock);

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (changed)
		InvalidateSystemCaches();
	PushActiveSnapshot(GetTransactionSnapshot());
	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(MyDatabaseId));
	if (!HeapTupleIsValid(tuple))
		reason = CRM_STOP_REFUSED;
	else
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);

		strlcpy(database_name, NameStr(form->datname), NAMEDATALEN);
		if (form->datistemplate || !form->datallowconn)
			reason = CRM_STOP_REFUSED;
		ReleaseSysCache(tuple);
	}
	if (reason == CRM_STOP_NOT && !OidIsValid(get_extension_oid("pg_crm", true)))
		reason = CRM_STOP_ABSENT;
	if (reason == CRM_STOP_NOT && !crm_guc_worker)
		reason = CRM_STOP_OFF;
	PopActiveSnapshot();
	CommitTransactionCommand();
	looked_at = GetCurrentTimestamp();
	if (reason != CRM_STOP_NOT)
		stop(reason);
}

static void
start(void)
{
	LWLockAcquire(crm_lock, LW_EXCLUSIVE);
	slot->has_extension = true;
	slot->told_off = false;
	slot->down_since = 0;
	crm_slot_state(slot, CRM_WORKER_RUNNING);
	LWLockRelease(crm_lock);
	crm_wake_launcher(); /* others wait until this one is no longer on its way */
	ereport(LOG, (errmsg("pg_crm worker of database \"%s\" started", database_name)));
}

/* What came in while the worker waited, or worked. */
static void
heed_requests(void)
{
	CrmStop reason;
	bool look_again;

	if (terminated)
		stop(CRM_STOP_TERMINATED);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
		if (!crm_guc_worker)
			stop(CRM_STOP_OFF);
	}
	LWLockAcquire(crm_lock, LW_SHARED);
	reason = slot->stop;
	look_again = slot->look;
	LWLockRelease(crm_lock);
	if (reason != CRM_STOP_NOT)
		stop(reason);
	if (look_again ||
		TimestampDifferenceExceeds(looked_at, GetCurrentTimestamp(), crm_guc_poll_interval * 1000))
		look(look_again);
}

void
crm_worker_watch(pgsocket descriptor)
{
	if (descriptor == watched && waiting != NULL)
		return;
	watched = descriptor;
	if (waiting != NULL)
		FreeWaitEventSet(waiting);
	waiting = crm_create_wait_event_set(3);
	AddWaitEventToSet(waiting, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(waiting, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	if (watched != PGINVALID_SOCKET)
		AddWaitEventToSet(waiting, WL_SOCKET_READABLE, watched, NULL, NULL);
}

/*
 * Somebody else holds what the turn needs. The process keeps what it knows of
 * messages under way: a fresh one would have to call them unknown.
 */
bool
crm_error_passes(int code)
{
	return code == ERRCODE_LOCK_NOT_AVAILABLE || code == ERRCODE_T_R_DEADLOCK_DETECTED ||
		code == ERRCODE_T_R_SERIALIZATION_FAILURE;
}

/*
 * After an error in a turn: reports it, unless it is the one of the turn
 * before, puts the session in order and says for how long to pause.
 */
static int
recover(void)
{
	int code = geterrcode();

	HOLD_INTERRUPTS();
	error_context_stack = NULL;
	if (failed_turns == 0 || code != last_error)
		EmitErrorReport();
	AbortOutOfAnyTransaction();
	LWLockReleaseAll(); /* an error outside a transaction left them */
	pgstat_report_wait_end();
	MemoryContextSwitchTo(turn_context);
	FlushErrorState();
	RESUME_INTERRUPTS();

	last_error = code;
	if (crm_error_passes(code))
	{
		failed_turns = Max(failed_turns, 1);
		return PASSING_PAUSE;
	}
	failed_turns++;
	if (failed_turns >= MAX_FAILED_TURNS)
	{
		ereport(WARNING,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("pg_crm worker of database \"%s\" gives up after %d failed turns",
						database_name, failed_turns),
				 errdetail("The last error was %s.", unpack_sql_state(code))));
		proc_exit(1);
	}
	return 1000 << (failed_turns - 1);
}

/* One turn; the milliseconds until the next. */
static int
run_turn(void)
{
	volatile int pause = 0;
	volatile bool failed = false;

	/* a full barrier, before any snapshot */
	bool woken = pg_atomic_exchange_u32(&slot->woken, 0) != 0;

	MemoryContextSwitchTo(turn_context);
	SetCurrentStatementStartTimestamp();
	pgstat_report_activity(STATE_RUNNING, "pg_crm: turn");
	PG_TRY();
	{
		pause = crm_turn(woken);
		if (IsTransactionState())
			elog(ERROR, "a turn of the pg_crm worker left its transaction open");
		failed_turns = 0;
	}
	PG_CATCH();
	{
		pause = recover();
		failed = true;
	}
	PG_END_TRY();
	if (!failed)
		pause = Min(pause, crm_clock_watch(slot, database_name));
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextReset(turn_context);

	LWLockAcquire(crm_lock, LW_EXCLUSIVE);
	slot->last_turn_at = GetCurrentTimestamp();
	slot->turns++;
	slot->failed_turns = failed_turns;
	if (failed)
		slot->last_error = last_error;
	else if (runs_soundly(slot->last_turn_at))
		slot->failures = 0;
	LWLockRelease(crm_lock);
	not_before = failed ? TimestampTzPlusMilliseconds(slot->last_turn_at, pause) : 0;
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
	return Max(0, Min(pause, crm_guc_poll_interval * 1000));
}

/* Waits, at least as long as a pause after failures lasts. */
static void
wait_for_work(int milliseconds)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), milliseconds);

	for (;;)
	{
		WaitEvent event; /* which one does not matter */
		TimestampTz now;

		/* in a pause a descriptor that stays ready must not keep it turning */
		if (not_before != 0)
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, milliseconds,
							 PG_WAIT_EXTENSION);
		else
			(void) WaitEventSetWait(waiting, milliseconds, &event, 1, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		heed_requests();
		now = GetCurrentTimestamp();
		if (not_before <= now)
			return;
		milliseconds = TimestampDifferenceMilliseconds(now, Max(not_before, until));
	}
}

void
crm_worker_main(Datum arg)
{
	CrmWorkerOrder order;

	memcpy(&order, MyBgworkerEntry->bgw_extra, sizeof(order));
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, handle_sigterm);
	BackgroundWorkerUnblockSignals();

	if (!attach(&order))
	{
		ConditionVariableBroadcast(&crm_shared->detached);
		crm_wake_launcher();
		proc_exit(0);
	}
	/* whether connections are allowed is asked in look(), to end without an error */
	BackgroundWorkerInitializeConnectionByOid(order.database, InvalidOid,
											  BGWORKER_BYPASS_ALLOWCONN);
	look(false);
	start();

	turn_context = AllocSetContextCreate(TopMemoryContext, "pg_crm turn", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(TopMemoryContext);
	crm_worker_watch(PGINVALID_SOCKET);
	before_shmem_exit(end_turns, (Datum) 0);
	crm_turn_init();
	for (;;)
	{
		heed_requests();
		wait_for_work(run_turn());
	}
}
