/*
 * shmem.h
 *		What the processes of pg_crm know of each other: a slot for each database
 *		that has, or may get, a worker. Numbers only, no pointers. All but the
 *		atomic members is read and written under crm_lock. src/dispatch/README.md
 *		draws the states.
 */
#ifndef CRM_SHMEM_H
#define CRM_SHMEM_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/lwlock.h"

typedef enum CrmWorkerState
{
	CRM_WORKER_WANTED,   /* to be started at next_start_at */
	CRM_WORKER_STARTING, /* asked of the postmaster */
	CRM_WORKER_RUNNING,
	CRM_WORKER_NO_SLOT, /* max_worker_processes is used up; tried again at next_start_at */
	CRM_WORKER_FAILED,  /* ended by an error; tried again at next_start_at */
	CRM_WORKER_OFF,     /* pg_crm.worker is off, for the server or for this database */
	CRM_WORKER_REFUSED, /* a template, or no connections allowed */
	CRM_WORKER_ABSENT,  /* no extension there; the launcher frees the slot */
} CrmWorkerState;

/* Why a worker is to stop. */
typedef enum CrmStop
{
	CRM_STOP_NOT,
	CRM_STOP_OFF,
	CRM_STOP_REFUSED,
	CRM_STOP_HELD,     /* a command needs the database to itself */
	CRM_STOP_SETTINGS, /* of the database, which a session reads at its start */
	CRM_STOP_ABSENT,
	CRM_STOP_TERMINATED, /* by a signal */
} CrmStop;

#define CRM_NO_PROCESS PG_UINT32_MAX

/* The process that does what time brings: it comes when something is due, and goes. */
typedef struct CrmClock
{
	int pid;       /* 0 where none is attached */
	uint32 procno; /* of it */
	bool stopping;
	bool held; /* what was left to do was held by others when the last one ended */
	bool told_failure;
	bool no_room;        /* max_worker_processes has been used up for a minute */
	int failures;        /* ends by error, in a row */
	int last_error;      /* SQLSTATE, 0 where none is known */
	TimestampTz done_at; /* when last nothing was left to do */
	TimestampTz
		maintain_at; /* when partitions and windows are looked at next; 0 until the worker has said */
	TimestampTz next_start_at;
} CrmClock;

typedef struct CrmSlot
{
	Oid database; /* invalid: the slot is free */
	CrmWorkerState state;
	CrmStop stop;
	uint32 generation;              /* of the worker that was asked for last */
	int pid;                        /* 0 where none is attached */
	pg_atomic_uint32 procno;        /* CRM_NO_PROCESS where none is attached */
	pg_atomic_uint32 woken;         /* a wake is under way: more are not needed */
	pg_atomic_uint32 clock_woken;   /* something will soon be due: the worker is to look */
	pg_atomic_uint32 clock_hurried; /* the same, told to the clock that is there */
	int held;                       /* commands that need the database to themselves */
	bool look;                      /* something changed: look again */
	bool has_extension;             /* seen by a worker */
	bool told_off;                  /* that it is off was logged */
	bool told_failure;
	int failures;           /* ends by error, in a row */
	int failed_turns;       /* in a row */
	int last_error;         /* SQLSTATE, 0 where none is known */
	uint64 turns;           /* of the running worker */
	TimestampTz changed_at; /* of state */
	TimestampTz started_at;
	TimestampTz last_turn_at;
	TimestampTz down_since; /* 0 while a worker runs, or none should */
	TimestampTz next_start_at;
	CrmClock clock;
} CrmSlot;

typedef struct CrmShared
{
	pg_atomic_uint32 launcher;  /* its proc number */
	ConditionVariable detached; /* a worker has left its database */
	uint32 generation;
	bool look_all; /* an event found no free slot: look at every database */
	bool off;      /* pg_crm.worker is off for the server */
	bool full;     /* databases without a slot: pg_crm.max_databases is too small */
	int nslots;
	CrmSlot slots[FLEXIBLE_ARRAY_MEMBER];
} CrmShared;

/* NULL where the module is not preloaded. */
extern CrmShared *crm_shared;
extern LWLock *crm_lock;

/* Called by _PG_init(). */
extern void crm_shmem_init(void);

/* The slot of a database, NULL where it has none; under crm_lock. */
extern CrmSlot *crm_slot_find(Oid database);

/* The same, or a new one in state wanted; NULL where all are in use. */
extern CrmSlot *crm_slot_take(Oid database);
extern void crm_slot_free(CrmSlot *slot);

extern void crm_slot_state(CrmSlot *slot, CrmWorkerState state);

/* Has the clock of the slot end what it does, and leave. */
extern void crm_clock_stop(CrmSlot *slot);

#endif /* CRM_SHMEM_H */
