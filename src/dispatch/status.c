/*
 * status.c
 *		What crm.worker_status says of the worker of this database.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/shmem.h"

PG_FUNCTION_INFO_V1(crm_sql_worker_state);

/* seconds by which the last turn may be older than the poll interval */
#define LATE_AFTER 60

/* The slot of this database, or one without a database, and what is wrong before any slot. */
static const char *
read_slot(CrmSlot *copy, const char **problem)
{
	CrmSlot *slot;
	bool launched;
	bool off;
	bool full;

	memset(copy, 0, sizeof(CrmSlot));
	if (crm_shared == NULL)
	{
		*problem = "pg_crm is not in shared_preload_libraries";
		return "not_preloaded";
	}
	if (RecoveryInProgress())
	{
		*problem = "the server is a standby: its worker starts at the promotion";
		return "standby";
	}
	LWLockAcquire(crm_lock, LW_SHARED);
	slot = crm_slot_find(MyDatabaseId);
	if (slot != NULL)
		*copy = *slot;
	launched = pg_atomic_read_u32(&crm_shared->launcher) != CRM_NO_PROCESS;
	off = crm_shared->off;
	full = crm_shared->full;
	LWLockRelease(crm_lock);

	if (slot != NULL && copy->pid != 0)
		return NULL;
	if (!launched)
	{
		*problem = "the pg_crm launcher is not running: see the server's log";
		return "no_launcher";
	}
	if (off)
	{
		*problem = "pg_crm.worker is off for the server";
		return "off";
	}
	if (slot == NULL)
	{
		*problem = full
			? "more databases are in use than pg_crm.max_databases: raise it and restart the server"
			: "the launcher has not found the extension in this database: it looks again within ten minutes";
		return "missing";
	}
	return NULL;
}

static const char *
state_of(const CrmSlot *slot, const char **problem)
{
	if (slot->pid == 0 && slot->held > 0)
	{
		*problem = "a command that needs the database to itself is running";
		return "held";
	}
	switch (slot->state)
	{
		case CRM_WORKER_WANTED:
			*problem = "it waits for its turn to start";
			return "wanted";
		case CRM_WORKER_STARTING:
			*problem = "it is being started";
			return "starting";
		case CRM_WORKER_RUNNING:
			if (slot->failed_turns > 0)
				*problem = psprintf("its last %d turns failed, SQLSTATE %s: see the server's log",
									slot->failed_turns, unpack_sql_state(slot->last_error));
			else if (slot->last_turn_at != 0 &&
					 TimestampDifferenceExceeds(slot->last_turn_at, GetCurrentTimestamp(),
												(crm_guc_poll_interval + LATE_AFTER) * 1000))
				*problem = "it has not ended a turn for longer than pg_crm.poll_interval";
			return "running";
		case CRM_WORKER_NO_SLOT:
			*problem = "no worker slot is free: raise max_worker_processes and restart the server";
			return "no_slot";
		case CRM_WORKER_FAILED:
			*problem =
				psprintf("it ended by an error, failures in a row: %d%s%s: see the server's log",
						 slot->failures, slot->last_error == 0 ? "" : ", SQLSTATE ",
						 slot->last_error == 0 ? "" : unpack_sql_state(slot->last_error));
			return "failed";
		case CRM_WORKER_OFF:
			*problem = "pg_crm.worker is off for this database";
			return "off";
		case CRM_WORKER_REFUSED:
			*problem = "the database is a template or allows no connections";
			return "refused";
		case CRM_WORKER_ABSENT:
			break;
	}
	*problem = "it is looking for the extension";
	return "wanted";
}

static const char *
problem_of_clock(const CrmClock *clock)
{
	if (clock->no_room)
		return "no worker slot is free: raise max_worker_processes and restart the server";
	if (clock->failures > 0)
		return psprintf("it ended by an error, failures in a row: %d%s%s: see the server's log",
						clock->failures, clock->last_error == 0 ? "" : ", SQLSTATE ",
						clock->last_error == 0 ? "" : unpack_sql_state(clock->last_error));
	return NULL;
}

static Datum
time_or_null(TimestampTz at, bool *isnull)
{
	*isnull = at == 0;
	return TimestampTzGetDatum(at);
}

Datum
crm_sql_worker_state(PG_FUNCTION_ARGS)
{
	TupleDesc descriptor;
	CrmSlot slot;
	const char *problem = NULL;
	const char *state = read_slot(&slot, &problem);
	Datum values[11];
	bool nulls[11] = { false };

	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (state == NULL)
		state = state_of(&slot, &problem);
	values[0] = DirectFunctionCall1(namein, CStringGetDatum(get_database_name(MyDatabaseId)));
	values[1] = Int32GetDatum(slot.pid);
	nulls[1] = slot.pid == 0;
	values[2] = CStringGetTextDatum(state);
	values[3] = time_or_null(slot.pid == 0 ? 0 : slot.started_at, &nulls[3]);
	values[4] = time_or_null(slot.last_turn_at, &nulls[4]);
	values[5] = Int64GetDatum((int64) slot.turns);
	values[6] = Int32GetDatum(slot.failures);
	values[7] = problem == NULL ? (Datum) 0 : CStringGetTextDatum(problem);
	nulls[7] = problem == NULL;
	values[8] = Int32GetDatum(slot.clock.pid);
	nulls[8] = slot.clock.pid == 0;
	values[9] = time_or_null(slot.clock.done_at, &nulls[9]);
	problem = problem_of_clock(&slot.clock);
	values[10] = problem == NULL ? (Datum) 0 : CStringGetTextDatum(problem);
	nulls[10] = problem == NULL;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls)));
}
