/*
 * shmem.c
 *		Shared memory: the slots of the workers.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/shmem.h"

#define TRANCHE "pg_crm"

CrmShared *crm_shared = NULL;
LWLock *crm_lock = NULL;

static shmem_request_hook_type next_shmem_request_hook = NULL;
static shmem_startup_hook_type next_shmem_startup_hook = NULL;

static Size
shared_size(void)
{
	return add_size(offsetof(CrmShared, slots), mul_size(crm_guc_max_databases, sizeof(CrmSlot)));
}

static void
request_memory(void)
{
	if (next_shmem_request_hook)
		next_shmem_request_hook();
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche(TRANCHE, 1);
}

static void
make_memory(void)
{
	bool found;

	if (next_shmem_startup_hook)
		next_shmem_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	crm_shared = ShmemInitStruct("pg_crm", shared_size(), &found);
	if (!found)
	{
		memset(crm_shared, 0, shared_size());
		pg_atomic_init_u32(&crm_shared->launcher, CRM_NO_PROCESS);
		ConditionVariableInit(&crm_shared->detached);
		crm_shared->nslots = crm_guc_max_databases;
		for (int i = 0; i < crm_shared->nslots; i++)
		{
			pg_atomic_init_u32(&crm_shared->slots[i].procno, CRM_NO_PROCESS);
			pg_atomic_init_u32(&crm_shared->slots[i].woken, 0);
			pg_atomic_init_u32(&crm_shared->slots[i].clock_woken, 0);
			pg_atomic_init_u32(&crm_shared->slots[i].clock_hurried, 0);
		}
	}
	crm_lock = &GetNamedLWLockTranche(TRANCHE)->lock;
	LWLockRelease(AddinShmemInitLock);
}

void
crm_shmem_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;
	next_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_memory;
	next_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = make_memory;
}

CrmSlot *
crm_slot_find(Oid database)
{
	for (int i = 0; i < crm_shared->nslots; i++)
		if (crm_shared->slots[i].database == database)
			return &crm_shared->slots[i];
	return NULL;
}

CrmSlot *
crm_slot_take(Oid database)
{
	CrmSlot *slot = crm_slot_find(database);

	if (slot != NULL)
		return slot;
	slot = crm_slot_find(InvalidOid);
	if (slot == NULL)
		return NULL;
	slot->database = database;
	crm_slot_state(slot, CRM_WORKER_WANTED);
	return slot;
}

void
crm_slot_free(CrmSlot *slot)
{
	Assert(slot->pid == 0 && slot->clock.pid == 0 && slot->held == 0);
	/* the atomic members may be looked at meanwhile: they stay what they are */
	slot->database = InvalidOid;
	slot->state = CRM_WORKER_WANTED;
	slot->stop = CRM_STOP_NOT;
	slot->look = slot->has_extension = slot->told_off = slot->told_failure = false;
	slot->failures = slot->failed_turns = slot->last_error = 0;
	slot->turns = 0;
	slot->changed_at = slot->started_at = slot->last_turn_at = 0;
	slot->down_since = slot->next_start_at = 0;
	memset(&slot->clock, 0, sizeof(slot->clock));
	crm_shared->full = false;
}

void
crm_slot_state(CrmSlot *slot, CrmWorkerState state)
{
	slot->state = state;
	slot->changed_at = GetCurrentTimestamp();
}

/* Its work is done again from where it was committed last, so nothing is lost by a signal. */
void
crm_clock_stop(CrmSlot *slot)
{
	if (slot->clock.pid != 0 && !slot->clock.stopping)
	{
		slot->clock.stopping = true;
		(void) kill(slot->clock.pid, SIGTERM);
	}
}
