/*
 * wake.c
 *		Waking the worker and the launcher. Proc numbers stand in shared memory,
 *		so a latch that is set may by then belong to somebody else, who takes it
 *		for one of the wakes without a reason that every process knows.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/proc.h"

#include "base/shmem.h"
#include "base/wake.h"

static bool wake_at_commit = false;
static bool wake_clock_at_commit = false;

static void
set_latch(uint32 procno)
{
	if (procno != CRM_NO_PROCESS)
		SetLatch(&GetPGProcByNumber((int) procno)->procLatch);
}

static CrmSlot *
find_slot(Oid database)
{
	static int known = 0; /* the slot found last, as a session stays in its database */
	CrmSlot *slot;

	if (crm_shared == NULL || !OidIsValid(database))
		return NULL;
	slot = &crm_shared->slots[known];
	if (slot->database == database)
		return slot;
	LWLockAcquire(crm_lock, LW_SHARED);
	slot = crm_slot_find(database);
	LWLockRelease(crm_lock);
	if (slot != NULL)
		known = slot - crm_shared->slots;
	return slot;
}

void
crm_wake_worker(Oid database)
{
	CrmSlot *slot = find_slot(database);

	if (slot != NULL)
		set_latch(pg_atomic_read_u32(&slot->procno));
}

/*
 * Of many that leave work only the one that finds the flag down sets the latch.
 * The worker takes the flag down before it looks at the tables, so what was
 * committed while the flag was up is seen by that look.
 */
static void
wake_for_work(void)
{
	CrmSlot *slot = find_slot(MyDatabaseId);

	if (slot != NULL && pg_atomic_exchange_u32(&slot->woken, 1) == 0)
		set_latch(pg_atomic_read_u32(&slot->procno));
}

/* The clock itself looks what is due next before it leaves. */
static void
wake_for_time(void)
{
	CrmSlot *slot = find_slot(MyDatabaseId);

	if (slot != NULL && slot->clock.pid != MyProcPid &&
		pg_atomic_exchange_u32(&slot->clock_woken, 1) == 0)
		set_latch(pg_atomic_read_u32(&slot->procno));
}

void
crm_wake_process(uint32 procno)
{
	set_latch(procno);
}

void
crm_wake_launcher(void)
{
	if (crm_shared != NULL)
		set_latch(pg_atomic_read_u32(&crm_shared->launcher));
}

void
crm_wake_at_commit(void)
{
	wake_at_commit = true;
}

void
crm_wake_clock_at_commit(void)
{
	wake_clock_at_commit = true;
}

static void
transaction_ends(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			if (wake_at_commit)
				wake_for_work();
			if (wake_clock_at_commit)
				wake_for_time();
			wake_at_commit = wake_clock_at_commit = false;
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			wake_at_commit = wake_clock_at_commit = false;
			break;
		default:
			break;
	}
}

void
crm_wake_init(void)
{
	RegisterXactCallback(transaction_ends, NULL);
}
