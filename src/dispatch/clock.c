/*
 * clock.c
 *		The clock of a database: what time alone brings, in transactions so short
 *		that nobody notices: partitions of the next months, windows that ended
 *		long ago, months that need not be kept, then tiers, stages, segments and journeys that are due. What
 *		somebody else holds is left and tried again; a contact that cannot be moved
 *		does not keep the others.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/guc.h"
#include "base/install.h"
#include "base/shmem.h"
#include "base/table.h"
#include "base/wake.h"
#include "compat.h"
#include "dispatch/clock.h"
#include "dispatch/worker.h"

/* contacts in a transaction: so many that it takes about so long, in milliseconds */
#define FIRST_BATCH  100
#define LEAST_BATCH  10
#define MOST_BATCH   1000
#define MOST_ENTRIES 5000
#define SHORT_BATCH  25
#define LONG_BATCH   100
/* contacts found at once */
#define MOST_FOUND 100000
/* windows deleted in a transaction */
#define MOST_WINDOWS 5000
/* contacts that cannot be moved, after which it is no longer them */
#define MOST_FAILED  10
#define MOST_REPORTS 3
/* seconds for which it waits for what is due next, or is held, before it leaves */
#define STAYS 10
/* seconds after a signal until it is started again */
#define SIGNALLED 5
/* between two runs, so that what is due one by one is done together */
#define PAUSE_MILLISECONDS 1000
#define MAINTAIN_SECONDS   (6 * SECS_PER_HOUR)
/* whoever waits for a table keeps others waiting behind */
#define LOCK_TIMEOUT "100ms"

/* A piece of work, in a transaction of its own. */
typedef struct Piece
{
	const int64 *contacts;
	int n;
	TimestampTz as_of;
	bool is_back; /* before a time as of which journeys were moved */
	int done;     /* of how much something came */
	int64 *found;
	TimestampTz next;
} Piece;

typedef void (*Work)(Piece *piece);

typedef enum Outcome
{
	WORKED,
	BUSY,  /* somebody holds what it needs */
	STILL, /* time stands still here, or nothing is installed */
	FAILED,
} Outcome;

static CrmPlan make_partitions = { "SELECT crm.maintain_partitions()", 0 };
static CrmPlan roll_up = { "SELECT crm.roll_up()", 0 };
static CrmPlan enforce_retention = { "SELECT crm.enforce_retention()", 0 };
static CrmPlan delete_windows = {
	"DELETE FROM crm.window_grant g USING (SELECT w.contact_id, w.account_id, w.grant_id"
	" FROM crm.window_grant w WHERE w.expires_at < $1 - interval '7 days' LIMIT $2) w"
	" WHERE g.contact_id = w.contact_id AND g.account_id = w.account_id"
	" AND g.grant_id = w.grant_id",
	2,
	{ TIMESTAMPTZOID, INT4OID }
};

static CrmSlot *slot = NULL;
static MemoryContext run_context = NULL;   /* what was found */
static MemoryContext piece_context = NULL; /* of a transaction */
static volatile sig_atomic_t terminated = false;
static volatile sig_atomic_t interruptible = false; /* an error would be caught */

static int batch = FIRST_BATCH;
static int journey_batch = FIRST_BATCH;
static int entry_batch = FIRST_BATCH;
static int moved = 0;   /* in this run */
static int nfailed = 0; /* contacts, in this run */
static int last_error = 0;

/* how the process ends */
static bool ends_well = false;
static bool ends_held = false;
static int rest = 0; /* seconds until the next start */

/* The first signal ends the statement, and the clock leaves in order; the second ends it at once. */
static void
handle_sigterm(SIGNAL_ARGS)
{
	int saved_errno = errno;

	if (terminated || !interruptible)
		die(postgres_signal_arg);
	else
	{
		InterruptPending = true;
		QueryCancelPending = true;
		SetLatch(MyLatch);
	}
	terminated = true;
	errno = saved_errno;
}

/* As that of the worker: registered before the process connects. */
static void
detach(int code, Datum arg)
{
	TimestampTz now = GetCurrentTimestamp();
	CrmClock *clock = &slot->clock;

	LWLockAcquire(crm_lock, LW_EXCLUSIVE);
	clock->pid = 0;
	clock->stopping = false;
	clock->held = ends_held;
	if (terminated)
		clock->next_start_at = TimestampTzPlusMilliseconds(now, INT64CONST(1000) * SIGNALLED);
	else if (ends_well)
	{
		clock->failures = 0;
		clock->next_start_at = TimestampTzPlusMilliseconds(now, INT64CONST(1000) * rest);
	}
	else
	{
		clock->failures++;
		clock->last_error = last_error;
		clock->told_failure = false;
		clock->next_start_at =
			TimestampTzPlusMilliseconds(now,
										INT64CONST(1000) *
											Min(60, 1 << Min(clock->failures - 1, 10)));
	}
	LWLockRelease(crm_lock);
	ConditionVariableBroadcast(&crm_shared->detached);
	crm_wake_launcher();
	crm_wake_worker(slot->database); /* there may be more to do by now */
}

static bool
attach(const CrmWorkerOrder *order)
{
	bool taken;

	slot = &crm_shared->slots[order->slot];
	LWLockAcquire(crm_lock, LW_EXCLUSIVE);
	taken = slot->database == order->database && slot->pid != 0 && slot->stop == CRM_STOP_NOT &&
		slot->clock.pid == 0 && slot->held == 0 && !crm_shared->off;
	if (taken)
	{
		slot->clock.pid = MyProcPid;
		slot->clock.procno = CRM_MY_PROC_NUMBER;
		slot->clock.stopping = false;
		on_shmem_exit(detach, (Datum) 0);
	}
	LWLockRelease(crm_lock);
	return taken;
}

static void
leave(int seconds)
{
	ends_well = true;
	rest = seconds;
	HOLD_INTERRUPTS();
	proc_exit(0);
}

static void
heed_requests(void)
{
	if (terminated)
		leave(0);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	if (!crm_guc_worker)
		leave(0);
}

/* As long as that, or until something new is due, but not less than the pause between two runs. */
static void
pause_for(long milliseconds)
{
	TimestampTz began = GetCurrentTimestamp();

	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
	for (;;)
	{
		bool hurried = pg_atomic_read_u32(&slot->clock_hurried) != 0;
		TimestampTz until =
			TimestampTzPlusMilliseconds(began, hurried ? PAUSE_MILLISECONDS : milliseconds);
		long left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), until);

		if (left <= 0)
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, left,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		heed_requests();
	}
	pgstat_report_activity(STATE_RUNNING, "pg_crm: clock");
}

/* ---- a piece of work */

/* In a transaction. Holds what keeps definitions and the restoring of rows away until its end. */
static Outcome
try_work(Work work, Piece *piece)
{
	CrmActing acting;
	Oid profiles;
	Outcome outcome = STILL;

	if (!OidIsValid(get_extension_oid("pg_crm", true)))
		return STILL;
	profiles = crm_table_oid_if_any("profile_counter");
	if (!OidIsValid(profiles))
		return STILL;
	if (!ConditionalLockRelationOid(profiles, RowExclusiveLock))
		return BUSY;
	PushActiveSnapshot(GetTransactionSnapshot());
	crm_connect(&acting);
	if (crm_clock_may_run())
	{
		work(piece);
		outcome = WORKED;
	}
	crm_disconnect(&acting);
	PopActiveSnapshot();
	return outcome;
}

static void
name_contact(void *arg)
{
	const Piece *piece = arg;

	if (piece->contacts != NULL && piece->n == 1)
		errcontext("time of contact " INT64_FORMAT, piece->contacts[0]);
}

static void
recover(bool report)
{
	HOLD_INTERRUPTS();
	last_error = geterrcode();
	if (report && !terminated && !crm_error_passes(last_error))
		EmitErrorReport();
	error_context_stack = NULL;
	AbortOutOfAnyTransaction();
	LWLockReleaseAll();
	pgstat_report_wait_end();
	MemoryContextSwitchTo(piece_context);
	FlushErrorState();
	RESUME_INTERRUPTS();
}

static Outcome
do_piece(Work work, Piece *piece, bool report)
{
	volatile Outcome outcome = FAILED;
	ErrorContextCallback context = { .callback = name_contact, .arg = piece };

	heed_requests();
	piece->done = 0;
	MemoryContextSwitchTo(piece_context);
	interruptible = true;
	PG_TRY();
	{
		context.previous = error_context_stack;
		error_context_stack = &context;
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		outcome = try_work(work, piece);
		CommitTransactionCommand();
		error_context_stack = context.previous;
	}
	PG_CATCH();
	{
		recover(report);
		outcome = crm_error_passes(last_error) ? BUSY : FAILED;
	}
	PG_END_TRY();
	interruptible = false;
	MemoryContextSwitchTo(TopMemoryContext);
	MemoryContextReset(piece_context);
	heed_requests();
	if (outcome == STILL)
		leave(0);
	return outcome;
}

/* ---- the work */

static void
forget_windows(Piece *piece)
{
	Datum values[2] = { TimestampTzGetDatum(GetCurrentTimestamp()), Int32GetDatum(MOST_WINDOWS) };

	piece->done = crm_run(&delete_windows, values, NULL);
}

static void
maintain_partitions(Piece *piece)
{
	crm_run(&make_partitions, NULL, NULL);
}

static void
add_up(Piece *piece)
{
	crm_run(&roll_up, NULL, NULL);
}

/* One partition in a transaction. */
static void
drop_partition(Piece *piece)
{
	crm_run(&enforce_retention, NULL, NULL);
	piece->done = crm_result_text(0, 1) != NULL;
}

static void
keep_found(Piece *piece, const int64 *found)
{
	piece->found = MemoryContextAlloc(run_context, sizeof(int64) * Max(piece->n, 1));
	memcpy(piece->found, found, sizeof(int64) * piece->n);
}

static void
find_contacts(Piece *piece)
{
	int64 *found;

	piece->as_of = crm_now();
	found = crm_time_work->find_contacts(piece->as_of, MOST_FOUND, &piece->n);
	keep_found(piece, found);
}

static void
move_contacts(Piece *piece)
{
	piece->done = crm_time_work->move_contacts(piece->contacts, piece->n, piece->as_of);
}

static void
move_segments(Piece *piece)
{
	piece->done = crm_time_work->move_segments(piece->as_of, batch);
}

static void
find_next(Piece *piece)
{
	piece->as_of = crm_now();
	piece->next = crm_time_work->next();
}

static void
find_enrolments(Piece *piece)
{
	int64 *found;

	piece->as_of = crm_now();
	piece->n = 0;
	piece->is_back = crm_time_work->is_back(piece->as_of);
	if (piece->is_back)
		return;
	found = crm_time_work->find_enrolments(piece->as_of, MOST_FOUND, &piece->n);
	keep_found(piece, found);
}

static void
move_enrolments(Piece *piece)
{
	piece->done = crm_time_work->move_enrolments(piece->contacts, piece->n, piece->as_of);
}

static void
make_entries(Piece *piece)
{
	piece->done = crm_time_work->make_entries(piece->as_of, piece->n);
}

static void
adapt_batch(int *size, int most, TimestampTz began)
{
	long took = TimestampDifferenceMilliseconds(began, GetCurrentTimestamp());

	if (took < SHORT_BATCH)
		*size = Min(*size * 2, most);
	else if (took > LONG_BATCH)
		*size = Max(*size / 2, LEAST_BATCH);
}

static void
give_up(void)
{
	HOLD_INTERRUPTS();
	proc_exit(1);
}

/* Where one of them cannot be moved, the others are. */
static void
move_some(Work work, const int64 *contacts, int n, TimestampTz as_of)
{
	Piece piece = { .contacts = contacts, .n = n, .as_of = as_of };

	switch (do_piece(work, &piece, n == 1 && nfailed < MOST_REPORTS))
	{
		case WORKED:
			moved += piece.done;
			break;
		case FAILED:
			if (n > 1)
			{
				move_some(work, contacts, n / 2, as_of);
				move_some(work, contacts + n / 2, n - n / 2, as_of);
			}
			else if (++nfailed >= MOST_FAILED)
				give_up();
			break;
		default:
			break;
	}
}

static void
move_found(Work work, const Piece *found, int *size)
{
	for (int first = 0, n; first < found->n; first += n)
	{
		TimestampTz began = GetCurrentTimestamp();

		n = Min(*size, found->n - first);
		move_some(work, found->found + first, n, found->as_of);
		adapt_batch(size, MOST_BATCH, began);
	}
}

/* Whom an error keeps out is set aside, for the next run to try alone. */
static void
enter_by_time(TimestampTz as_of)
{
	Piece piece = { .as_of = as_of, .n = entry_batch };
	int nset_aside = 0;
	Outcome outcome;

	do
	{
		TimestampTz began = GetCurrentTimestamp();

		outcome = do_piece(make_entries, &piece, piece.n == 0);
		if (outcome == FAILED)
		{
			if (piece.n == 0 || nset_aside == MOST_FAILED)
				give_up();
			piece.n /= 2;
			piece.done = 1;
			continue;
		}
		if (piece.n == 0)
		{
			nset_aside++;
			piece.n = 1;
		}
		moved += piece.done;
		adapt_batch(&piece.n, MOST_ENTRIES, began);
	} while (outcome != BUSY && piece.done > 0);
	entry_batch = Max(piece.n, LEAST_BATCH);
}

static void
do_maintenance(void)
{
	Piece piece = { 0 };
	TimestampTz now = GetCurrentTimestamp();
	Outcome outcome;

	if (slot->clock.maintain_at > now)
		return;
	outcome = do_piece(maintain_partitions, &piece, true);
	if (outcome == WORKED)
		do
			outcome = do_piece(forget_windows, &piece, true);
		while (outcome == WORKED && piece.done == MOST_WINDOWS);
	if (outcome == WORKED)
		do
			outcome = do_piece(drop_partition, &piece, true);
		while (outcome == WORKED && piece.done > 0);
	LWLockAcquire(crm_lock, LW_EXCLUSIVE);
	slot->clock.maintain_at = TimestampTzPlusMilliseconds(now,
														  INT64CONST(1000) *
															  (outcome == WORKED
																   ? MAINTAIN_SECONDS
																   : crm_guc_poll_interval));
	LWLockRelease(crm_lock);
	if (outcome == FAILED)
		nfailed++;
}

/* All that is due now; the milliseconds until more is, 0 where some is left. */
static int64
run(void)
{
	Piece piece = { 0 };
	Outcome outcome;
	int64 due;

	(void) pg_atomic_exchange_u32(&slot->clock_hurried, 0);
	MemoryContextReset(run_context);
	moved = nfailed = 0;
	do_maintenance();
	if (do_piece(add_up, &piece, true) == FAILED)
		nfailed++;

	outcome = do_piece(find_contacts, &piece, true);
	if (outcome == FAILED)
		give_up();
	if (outcome == BUSY)
		return 0;
	move_found(move_contacts, &piece, &batch);
	do
	{
		TimestampTz began = GetCurrentTimestamp();

		outcome = do_piece(move_segments, &piece, true);
		if (outcome == FAILED)
			give_up();
		if (outcome != WORKED)
			break;
		moved += piece.done;
		adapt_batch(&batch, MOST_BATCH, began);
	} while (piece.done > 0);

	outcome = do_piece(find_enrolments, &piece, true);
	if (outcome == FAILED)
		give_up();
	if (outcome == WORKED && !piece.is_back)
	{
		move_found(move_enrolments, &piece, &journey_batch);
		enter_by_time(piece.as_of);
	}

	outcome = do_piece(find_next, &piece, true);
	if (outcome == FAILED)
		give_up();
	if (outcome == BUSY)
		return 0;
	due = piece.next == DT_NOEND ? PG_INT64_MAX
								 : TimestampDifferenceMilliseconds(piece.as_of, piece.next);
	if (due > 0)
	{
		LWLockAcquire(crm_lock, LW_EXCLUSIVE);
		slot->clock.done_at = GetCurrentTimestamp();
		LWLockRelease(crm_lock);
	}
	return due;
}

/* ---- the process */

static void
prepare(void)
{
	run_context = AllocSetContextCreate(TopMemoryContext, "pg_crm clock", ALLOCSET_DEFAULT_SIZES);
	piece_context = AllocSetContextCreate(TopMemoryContext, "pg_crm clock at work",
										  ALLOCSET_DEFAULT_SIZES);
	SetConfigOption("jit", "off", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("lock_timeout", LOCK_TIMEOUT, PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("statement_timeout", "0", PGC_USERSET, PGC_S_OVERRIDE);
	/* what a crash loses is done again */
	SetConfigOption("synchronous_commit", "off", PGC_USERSET, PGC_S_OVERRIDE);
}

void
crm_clock_main(Datum arg)
{
	CrmWorkerOrder order;
	int64 waited = 0; /* milliseconds, for what others hold */

	memcpy(&order, MyBgworkerEntry->bgw_extra, sizeof(order));
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, handle_sigterm);
	BackgroundWorkerUnblockSignals();
	if (!attach(&order))
	{
		ConditionVariableBroadcast(&crm_shared->detached);
		proc_exit(0);
	}
	BackgroundWorkerInitializeConnectionByOid(order.database, InvalidOid,
											  BGWORKER_BYPASS_ALLOWCONN);
	prepare();
	pgstat_report_activity(STATE_RUNNING, "pg_crm: clock");
	for (;;)
	{
		int64 due = run();

		if (nfailed > 0)
			give_up();
		if (due > STAYS * 1000)
			leave(0);
		if (due == 0 && moved == 0)
		{
			/* what is left is held, and may be for long */
			if (waited >= STAYS * 1000)
			{
				ends_held = true;
				leave(crm_guc_poll_interval);
			}
			due = Max(waited, PAUSE_MILLISECONDS);
			waited += due;
		}
		else
			waited = 0;
		pause_for(Max(due, PAUSE_MILLISECONDS));
	}
}
