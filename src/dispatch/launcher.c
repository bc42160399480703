/*
 * launcher.c
 *		Starts a worker in each database that has the extension. The launcher is
 *		connected to no database and cannot see extensions: it has a worker
 *		look, which ends at once where there is none.
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/shmem.h"
#include "base/wake.h"
#include "compat.h"
#include "dispatch/launcher.h"
#include "dispatch/worker.h"

/* seconds */
#define LAUNCHER_RESTART 5
#define POLL             60  /* the list of databases */
#define LOOK_AGAIN       600 /* at a database that had no extension, or was off */
#define RETRY_NO_SLOT    5
#define START_TIMEOUT    60 /* from asking to the worker's first sign */
#define ALARM_AFTER      60 /* without a worker */

/* workers that may be on their way at once: looking at many databases takes turns */
#define MAX_STARTING 4

/* What the launcher remembers of a database besides its slot. */
typedef struct Known
{
	Oid oid;
	char name[NAMEDATALEN];
	bool seen; /* in this pass */
	bool allowed;
	bool alarmed;
	TimestampTz looked_at;          /* found without the extension; 0 to look */
	uint32 generation;              /* of the worker asked for last */
	BackgroundWorkerHandle *handle; /* until it has ended */
} Known;

static HTAB *databases = NULL;
static bool no_slot_told = false;
static bool full_told = false;
static int starting = 0; /* workers on their way */

static TimestampTz
after(TimestampTz from, int seconds)
{
	return TimestampTzPlusMilliseconds(from, INT64CONST(1000) * seconds);
}

static void
read_databases(void)
{
	HASH_SEQ_STATUS scan;
	Known *known;
	Relation rel;
	TableScanDesc rows;
	HeapTuple tuple;

	hash_seq_init(&scan, databases);
	while ((known = hash_seq_search(&scan)) != NULL)
		known->seen = false;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	rows = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(rows, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		bool found;

		known = hash_search(databases, &form->oid, HASH_ENTER, &found);
		if (!found)
		{
			memset(known, 0, sizeof(Known));
			known->oid = form->oid;
		}
		strlcpy(known->name, NameStr(form->datname), NAMEDATALEN);
		known->seen = true;
		known->allowed = !form->datistemplate && form->datallowconn &&
			form->datconnlimit != CRM_INVALID_DATABASE;
	}
	table_endscan(rows);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
}

/* Slots and notes of databases that are gone. */
static void
forget_dropped(void)
{
	HASH_SEQ_STATUS scan;
	Known *known;

	LWLockAcquire(crm_lock, LW_EXCLUSIVE);
	for (int i = 0; i < crm_shared->nslots; i++)
	{
		CrmSlot *slot = &crm_shared->slots[i];

		if (!OidIsValid(slot->database) || slot->pid != 0 || slot->clock.pid != 0 || slot->held > 0)
			continue;
		known = hash_search(databases, &slot->database, HASH_FIND, NULL);
		if (known == NULL || !known->seen)
			crm_slot_free(slot);
	}
	LWLockRelease(crm_lock);

	hash_seq_init(&scan, databases);
	while ((known = hash_seq_search(&scan)) != NULL)
	{
		if (known->seen)
			continue;
		if (known->handle != NULL)
			pfree(known->handle);
		hash_search(databases, &known->oid, HASH_REMOVE, NULL);
	}
}

/* Has the postmaster done with the worker that was asked for? */
static void
follow_handle(Known *known)
{
	pid_t pid;
	bool never_came = false;
	CrmSlot *slot;

	if (known->handle != NULL && GetBackgroundWorkerPid(known->handle, &pid) == BGWH_STOPPED)
	{
		pfree(known->handle);
		known->handle = NULL;
		never_came = true;
	}
	LWLockAcquire(crm_lock, LW_EXCLUSIVE);
	slot = crm_slot_find(known->oid);
	if (slot != NULL && slot->state == CRM_WORKER_STARTING && slot->pid == 0 &&
		((never_came && slot->generation == known->generation) ||
		 TimestampDifferenceExceeds(slot->changed_at, GetCurrentTimestamp(), START_TIMEOUT * 1000)))
	{
		slot->failures++;
		slot->told_failure = false;
		slot->last_error = 0;
		slot->next_start_at = after(GetCurrentTimestamp(),
									Min(60, 1 << Min(slot->failures - 1, 10)));
		crm_slot_state(slot, CRM_WORKER_FAILED);
	}
	if (known->handle != NULL && (slot == NULL || slot->state != CRM_WORKER_RUNNING))
		starting++;
	LWLockRelease(crm_lock);
}

/* A worker that wants a slot comes before clocks that have one: one of them leaves. */
static bool
take_clock_slot(void)
{
	bool found = false;

	LWLockAcquire(crm_lock, LW_EXCLUSIVE);
	for (int i = 0; i < crm_shared->nslots && !found; i++)
	{
		found = crm_shared->slots[i].clock.pid != 0;
		crm_clock_stop(&crm_shared->slots[i]);
	}
	LWLockRelease(crm_lock);
	return found;
}

/* Asks the postmaster for a worker; the slot is in state starting. */
static void
start_worker(Known *known, int slotno)
{
	BackgroundWorker worker;
	CrmWorkerOrder order = { .database = known->oid,
							 .generation = known->generation,
							 .slot = slotno };
	CrmSlot *slot = &crm_shared->slots[slotno];
	bool soon;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART; /* the launcher does it, ever more slowly */
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_library_name, "pg_crm", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "crm_worker_main", BGW_MAXLEN);
	snprintf(worker.bgw_name, BGW_MAXLEN, "pg_crm worker of database %u", known->oid);
	strlcpy(worker.bgw_type, "pg_crm worker", BGW_MAXLEN);
	memcpy(worker.bgw_extra, &order, sizeof(order));

	if (known->handle != NULL)
	{
		pfree(known->handle);
		known->handle = NULL;
	}
	if (RegisterDynamicBackgroundWorker(&worker, &known->handle))
	{
		starting++;
		if (no_slot_told)
			ereport(LOG,
					(errmsg("pg_crm found a free worker slot again, for database \"%s\"",
							known->name)));
		no_slot_told = false;
		return;
	}
	known->handle = NULL;
	soon = starting > 0 || take_clock_slot();
	LWLockAcquire(crm_lock, LW_EXCLUSIVE);
	slot->next_start_at = after(GetCurrentTimestamp(), starting > 0 ? 0 : soon ? 1 : RETRY_NO_SLOT);
	crm_slot_state(slot, soon ? CRM_WORKER_WANTED : CRM_WORKER_NO_SLOT);
	LWLockRelease(crm_lock);

	/* those on their way may leave their slots at once */
	if (!soon && !no_slot_told)
	{
		no_slot_told = true;
		ereport(
			WARNING,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("pg_crm found no free worker slot for database \"%s\"", known->name),
			 errdetail(
				 "All %d slots of max_worker_processes are in use; it is tried again every %d seconds.",
				 max_worker_processes, RETRY_NO_SLOT),
			 errhint("Raise max_worker_processes and restart the server.")));
	}
}

/* Says what befell the worker, once each time. */
static void
tell(Known *known, const CrmSlot *slot, bool told_failure)
{
	static const char *const reasons[] = {
		[CRM_WORKER_WANTED] = "It is waiting for its turn to start.",
		[CRM_WORKER_STARTING] = "It is being started.",
		[CRM_WORKER_NO_SLOT] = "No worker slot is free.",
		[CRM_WORKER_FAILED] = "It ends by an error each time.",
	};

	if (slot->state == CRM_WORKER_FAILED && !told_failure)
		ereport(WARNING,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("pg_crm worker of database \"%s\" ended by an error", known->name),
				 errdetail("Failures in a row: %d. It is started again in %d s.", slot->failures,
						   Min(60, 1 << Min(slot->failures - 1, 10)))));
	if (slot->state == CRM_WORKER_RUNNING)
	{
		if (known->alarmed)
			ereport(LOG, (errmsg("pg_crm has a worker in database \"%s\" again", known->name)));
		known->alarmed = false;
	}
	else if (slot->down_since != 0 && !known->alarmed && slot->state < lengthof(reasons) &&
			 slot->has_extension &&
			 TimestampDifferenceExceeds(slot->down_since, GetCurrentTimestamp(),
										ALARM_AFTER * 1000))
	{
		known->alarmed = true;
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_crm has had no worker in database \"%s\" for a minute", known->name),
				 errdetail("%s",
						   slot->held > 0 ? "A command needs the database to itself."
										  : reasons[slot->state]),
				 errhint("See crm.worker_status in that database.")));
	}
}

/* What this database needs now; the time at which to look again. */
static TimestampTz
consider(Known *known)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next = after(now, POLL);
	CrmStop stop = crm_shared->off ? CRM_STOP_OFF
		: !known->allowed          ? CRM_STOP_REFUSED
								   : CRM_STOP_NOT;
	CrmSlot *slot;
	CrmSlot copy;
	bool start = false;
	bool wake = false;
	bool told_failure;

	LWLockAcquire(crm_lock, LW_EXCLUSIVE);
	slot = crm_slot_find(known->oid);
	if (slot == NULL)
	{
		/* while others are on their way their slots, too, may become free */
		if (stop != CRM_STOP_NOT || starting >= MAX_STARTING ||
			(known->looked_at != 0 && now < after(known->looked_at, LOOK_AGAIN)))
		{
			LWLockRelease(crm_lock);
			return next;
		}
		slot = crm_slot_take(known->oid);
		if (slot == NULL)
		{
			crm_shared->full = starting == 0;
			LWLockRelease(crm_lock);
			if (starting > 0)
				return next;
			if (!full_told)
				ereport(WARNING,
						(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						 errmsg("pg_crm has no room to look at database \"%s\"", known->name),
						 errdetail("pg_crm.max_databases is %d.", crm_shared->nslots),
						 errhint("Raise pg_crm.max_databases and restart the server.")));
			full_told = true;
			return next;
		}
	}

	/* as it was found: what follows may start it */
	copy = *slot;
	told_failure = slot->told_failure;
	slot->told_failure = true;
	if (slot->pid != 0)
	{
		if (stop != CRM_STOP_NOT && slot->stop == CRM_STOP_NOT)
		{
			slot->stop = stop;
			wake = true;
		}
	}
	else if (slot->held == 0) /* else the end of the command wakes the launcher */
	{
		TimestampTz due = slot->next_start_at;

		if (slot->state == CRM_WORKER_STARTING)
			;
		else if (stop == CRM_STOP_OFF)
		{
			if (slot->state != CRM_WORKER_OFF)
				crm_slot_state(slot, CRM_WORKER_OFF);
			slot->down_since = 0;
		}
		else if (stop == CRM_STOP_REFUSED)
			crm_slot_state(slot, CRM_WORKER_REFUSED);
		else if (slot->look)
		{
			slot->look = false;
			crm_slot_state(slot, CRM_WORKER_WANTED);
			due = now;
		}
		switch (slot->state)
		{
			case CRM_WORKER_ABSENT:
				known->looked_at = now;
				if (slot->clock.pid == 0) /* its end wakes the launcher */
					crm_slot_free(slot);
				LWLockRelease(crm_lock);
				return next;
			case CRM_WORKER_REFUSED:
				if (stop == CRM_STOP_REFUSED && slot->clock.pid == 0)
				{
					known->looked_at = 0;
					crm_slot_free(slot);
					LWLockRelease(crm_lock);
					return next;
				}
				due = after(slot->changed_at,
							RETRY_NO_SLOT); /* it was one when the worker looked */
				break;
			case CRM_WORKER_OFF:
				if (!crm_shared->off)
					due = after(slot->changed_at, LOOK_AGAIN);
				break;
			default:
				break;
		}
		if (slot->state == CRM_WORKER_STARTING)
			next = Min(next, after(slot->changed_at, START_TIMEOUT));
		else if (stop == CRM_STOP_NOT)
		{
			if (due > now)
				next = Min(next, due);
			else if (starting >= MAX_STARTING)
				; /* the end of one of them wakes the launcher */
			else
			{
				start = true;
				known->generation = slot->generation = ++crm_shared->generation;
				slot->next_start_at = now;
				if (slot->down_since == 0)
					slot->down_since = now;
				crm_slot_state(slot, CRM_WORKER_STARTING);
			}
		}
	}
	if (slot->down_since != 0 && !known->alarmed)
	{
		TimestampTz alarm = after(slot->down_since, ALARM_AFTER);

		if (alarm > now)
			next = Min(next, alarm);
	}
	LWLockRelease(crm_lock);

	if (wake)
		crm_wake_worker(known->oid);
	tell(known, &copy, told_failure);
	if (start)
	{
		start_worker(known, slot - crm_shared->slots);
		next = Min(next, after(now, RETRY_NO_SLOT));
	}
	return next;
}

/* Looks at every database; the time at which to do so again. */
static TimestampTz
consider_all(void)
{
	TimestampTz next = after(GetCurrentTimestamp(), POLL);
	bool look_all;
	HASH_SEQ_STATUS scan;
	Known *known;

	SetCurrentStatementStartTimestamp();
	read_databases();
	MemoryContextSwitchTo(TopMemoryContext);
	forget_dropped();

	LWLockAcquire(crm_lock, LW_EXCLUSIVE);
	look_all = crm_shared->look_all;
	crm_shared->look_all = false;
	LWLockRelease(crm_lock);

	starting = 0;
	hash_seq_init(&scan, databases);
	while ((known = hash_seq_search(&scan)) != NULL)
	{
		if (look_all)
			known->looked_at = 0;
		follow_handle(known);
	}
	hash_seq_init(&scan, databases);
	while ((known = hash_seq_search(&scan)) != NULL)
		next = Min(next, consider(known));
	return next;
}

/* The setting of the server, at the start and after each reload. */
static void
heed_setting(bool at_start)
{
	bool was_off = crm_shared->off;

	LWLockAcquire(crm_lock, LW_EXCLUSIVE);
	crm_shared->off = !crm_guc_worker;
	if (!crm_shared->off)
	{
		/* what was off, for the server or a database, may be on now */
		crm_shared->look_all = true;
		for (int i = 0; i < crm_shared->nslots; i++)
			if (OidIsValid(crm_shared->slots[i].database) &&
				crm_shared->slots[i].state == CRM_WORKER_OFF)
				crm_shared->slots[i].look = true;
	}
	LWLockRelease(crm_lock);
	if (crm_shared->off && (at_start || !was_off))
		ereport(LOG, (errmsg("pg_crm starts no workers: pg_crm.worker is off")));
	else if (!crm_shared->off && was_off && !at_start)
		ereport(LOG, (errmsg("pg_crm starts workers: pg_crm.worker is on")));
}

static void
leave(int code, Datum arg)
{
	pg_atomic_write_u32(&crm_shared->launcher, CRM_NO_PROCESS);
}

void
crm_launcher_main(Datum arg)
{
	HASHCTL control = { .keysize = sizeof(Oid), .entrysize = sizeof(Known) };

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	before_shmem_exit(leave, (Datum) 0);
	pg_atomic_write_u32(&crm_shared->launcher, CRM_MY_PROC_NUMBER);
	databases = hash_create("pg_crm databases", 64, &control, HASH_ELEM | HASH_BLOBS);
	ereport(LOG, (errmsg("pg_crm launcher started")));
	heed_setting(true);

	while (!ShutdownRequestPending)
	{
		TimestampTz next = consider_all();
		long timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next);

		/* at least a moment: what is due and cannot be done must not keep it turning */
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout + 10,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			heed_setting(false);
		}
	}
	/* 0 would say that it is never to be started again */
	proc_exit(1);
}

void
crm_launcher_init(void)
{
	BackgroundWorker worker;

	if (!process_shared_preload_libraries_in_progress || IsBinaryUpgrade)
		return;
	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished; /* a standby waits for its promotion */
	worker.bgw_restart_time = LAUNCHER_RESTART;
	strlcpy(worker.bgw_library_name, "pg_crm", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "crm_launcher_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "pg_crm launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "pg_crm launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}
