/*
 * mark.c
 *		Which scans of a batch count, contact by contact, while the profile room
 *		settles them: of a scope and window the first in the batch, unless one
 *		stands in crm.first_scan already. Rows are found and written without the
 *		executor; contacts for which that will not do are counted set-based
 *		(count.c), which gives the same rows.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/table.h"
#include "facts/scans.h"
#include "profile/definition.h"
#include "profile/won.h"

enum
{
	F_CONTACT_ID,
	F_SCOPE,
	F_SCOPE_ID,
	F_WINDOW_START,
	F_SCAN_ID,
	F_OCCURRED_AT,
	F_COLUMNS
};

static const char *const first_scan_columns[F_COLUMNS] = {
	"contact_id", "scope", "scope_id", "window_start", "scan_id", "occurred_at"
};
#define F_KEYS 4

/* A scope and window met among the scans of a contact. */
typedef struct Met
{
	int64 round; /* in which it was met; entries of other rounds are free */
	TimestampTz window_start;
	int subject;
} Met;

typedef struct Counted
{
	const CrmFact *scan;
	TimestampTz window_start;
} Counted;

typedef struct Counting
{
	CrmScanCounting functions; /* first, as the profile room knows only these */
	const CrmScanCodes *codes;
	const CrmFact *facts;
	int64 nfacts;
	MemoryContext context;

	bool opened;
	CrmTarget *first_scan; /* NULL: by the executor */
	CrmTarget *acquisition;

	/* of the contact at hand */
	int64 round;
	uint32 nmet;
	uint32 met_size; /* a power of 2 */
	Met *met;
	int ncounted;
	int counted_size;
	Counted *counted;
	const CrmFact *won_by; /* NULL: the contact has a source */
	CrmWon won;
} Counting;

/* The entry of a scope and window, or a free one. */
static Met *
find_met(const Counting *counting, int subject, TimestampTz window_start)
{
	uint32 mask = counting->met_size - 1;
	uint32 place = hash_combine(murmurhash32(subject),
								murmurhash32((uint32) window_start ^
											 (uint32) ((uint64) window_start >> 32))) &
		mask;

	while (counting->met[place].round == counting->round &&
		   (counting->met[place].subject != subject ||
			counting->met[place].window_start != window_start))
		place = (place + 1) & mask;
	return &counting->met[place];
}

static void
allocate_met(Counting *counting, uint32 size)
{
	counting->met_size = size;
	counting->met = MemoryContextAllocExtended(counting->context, sizeof(Met) * size,
											   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
}

/* Is this the contact's first scan in the batch for the scope and window? */
static bool
is_first_met(Counting *counting, int subject, TimestampTz window_start)
{
	Met *met = find_met(counting, subject, window_start);

	if (met->round == counting->round)
		return false;
	met->round = counting->round;
	met->subject = subject;
	met->window_start = window_start;
	if (++counting->nmet > counting->met_size / 2)
	{
		Met *old = counting->met;
		uint32 old_size = counting->met_size;

		allocate_met(counting, old_size * 2);
		for (uint32 i = 0; i < old_size; i++)
			if (old[i].round == counting->round)
				*find_met(counting, old[i].subject, old[i].window_start) = old[i];
		pfree(old);
	}
	return true;
}

static void
add_counted(Counting *counting, const CrmFact *scan, TimestampTz window_start)
{
	if (counting->ncounted == counting->counted_size)
	{
		counting->counted_size *= 2;
		counting->counted = repalloc_huge(counting->counted,
										  sizeof(Counted) * counting->counted_size);
	}
	counting->counted[counting->ncounted].scan = scan;
	counting->counted[counting->ncounted].window_start = window_start;
	counting->ncounted++;
}

static void
fill_key(const Counting *counting, const CrmFact *scan, TimestampTz window_start, Datum *values)
{
	const CrmScanCode *code = &counting->codes->codes[scan->code];

	values[F_CONTACT_ID] = Int64GetDatum(scan->contact_id);
	values[F_SCOPE] = code->scope;
	values[F_SCOPE_ID] = code->scope_id;
	values[F_WINDOW_START] = TimestampTzGetDatum(window_start);
}

/* The scan that counts already, if there is one. */
static bool
find_counted(Counting *counting, const CrmFact *scan, TimestampTz window_start, int64 *scan_id,
			 TimestampTz *occurred_at)
{
	CrmTarget *target = counting->first_scan;
	Datum values[F_COLUMNS];
	bool isnull;

	fill_key(counting, scan, window_start, values);
	if (!crm_target_find_row(target, values))
		return false;
	*scan_id = DatumGetInt64(slot_getattr(target->found, target->attno[F_SCAN_ID], &isnull));
	*occurred_at = DatumGetTimestampTz(
		slot_getattr(target->found, target->attno[F_OCCURRED_AT], &isnull));
	return true;
}

/* False where the tables ask for the executor. */
static bool
open_targets(Counting *counting)
{
	if (!counting->opened)
	{
		counting->opened = true;
		counting->first_scan = crm_target_open("first_scan", first_scan_columns, F_COLUMNS, false);
		counting->acquisition = crm_acquisition_open();
	}
	return counting->first_scan != NULL && counting->first_scan->nkeys == F_KEYS &&
		counting->acquisition != NULL && counting->acquisition->nkeys == 1;
}

static bool
mark(CrmScanCounting *functions, CrmFact *facts, int nfacts, const Datum *values, const bool *nulls)
{
	Counting *counting = (Counting *) functions;
	bool has_counted = DatumGetInt64(values[CRM_P_SCANS]) > 0;

	if (!open_targets(counting))
		return false;
	counting->round++;
	counting->nmet = 0;
	counting->ncounted = 0;
	counting->won_by = NULL;
	for (int i = 0; i < nfacts; i++)
	{
		CrmFact *scan = &facts[i];
		const CrmScanCode *code = &counting->codes->codes[scan->code];
		TimestampTz window_start = crm_window_start(&code->windows, scan->occurred_at);
		TimestampTz occurred_at;
		int64 scan_id;

		scan->counted = false;
		if (nfacts > 1 && !is_first_met(counting, code->subject, window_start))
			continue;
		if (has_counted && find_counted(counting, scan, window_start, &scan_id, &occurred_at))
		{
			if (scan->occurred_at < occurred_at ||
				(scan->occurred_at == occurred_at && scan->id < scan_id))
				return false; /* takes its place */
			continue;
		}
		scan->counted = true;
		add_counted(counting, scan, window_start);
	}
	/* who has scanned before, or follows, has a source */
	if (DatumGetInt64(values[CRM_P_RAW_SCANS]) == 0 && nulls[CRM_P_FOLLOWED_AT] &&
		!crm_target_find(counting->acquisition, facts[0].contact_id))
		counting->won_by = &facts[0];
	return true;
}

static void
keep(CrmScanCounting *functions)
{
	Counting *counting = (Counting *) functions;
	static const bool nulls[F_COLUMNS] = { false };

	for (int i = 0; i < counting->ncounted; i++)
	{
		const Counted *counted = &counting->counted[i];
		Datum values[F_COLUMNS];

		fill_key(counting, counted->scan, counted->window_start, values);
		values[F_SCAN_ID] = Int64GetDatum(counted->scan->id);
		values[F_OCCURRED_AT] = TimestampTzGetDatum(counted->scan->occurred_at);
		crm_target_insert(counting->first_scan, values, nulls);
	}
	if (counting->won_by != NULL)
	{
		crm_acquisition_add(counting->acquisition, counting->won_by,
							&counting->codes->codes[counting->won_by->code]);
		crm_won_changed(&counting->won, counting->won_by->contact_id);
	}
}

/* Gives contacts a source that have none, whoever else is doing so. */
static void
stamp(const Counting *counting, const int64 *contacts, int ncontacts)
{
	CrmActing acting;
	Datum arrays[CRM_SCAN_COLUMNS];

	crm_connect(&acting);
	crm_scan_arrays(counting->codes, counting->facts, counting->nfacts, contacts, ncontacts,
					arrays);
	crm_acquisition_by_scans(arrays);
	crm_disconnect(&acting);
}

static int64 *
write_marked(CrmScanCounting *functions, int *nconflicts)
{
	Counting *counting = (Counting *) functions;
	int64 *conflicts = NULL;

	*nconflicts = 0;
	if (counting->first_scan != NULL)
	{
		crm_target_flush(counting->first_scan);
		conflicts = crm_target_undo_conflicts(counting->first_scan, nconflicts);
		crm_target_close(counting->first_scan);
	}
	if (counting->acquisition != NULL)
	{
		int64 *others;
		int nothers;

		crm_target_flush(counting->acquisition);
		others = crm_target_undo_conflicts(counting->acquisition, &nothers);
		crm_target_close(counting->acquisition);
		if (nothers > 0)
			stamp(counting, others, nothers);
		crm_won_write(&counting->won);
	}
	counting->first_scan = counting->acquisition = NULL;
	return conflicts;
}

static void
count(CrmScanCounting *functions, const int64 *contacts, int ncontacts)
{
	Counting *counting = (Counting *) functions;
	CrmActing acting;
	Datum arrays[CRM_SCAN_COLUMNS];

	crm_connect(&acting);
	crm_scan_arrays(counting->codes, counting->facts, counting->nfacts, contacts, ncontacts,
					arrays);
	crm_scan_count_new(arrays);
	crm_acquisition_by_scans(arrays);
	crm_disconnect(&acting);
}

CrmScanCounting *
crm_scan_counting(const CrmScanCodes *codes, const CrmFact *facts, int64 nfacts)
{
	Counting *counting = palloc0(sizeof(Counting));

	counting->functions.mark = mark;
	counting->functions.keep = keep;
	counting->functions.write = write_marked;
	counting->functions.count = count;
	counting->codes = codes;
	counting->facts = facts;
	counting->nfacts = nfacts;
	counting->context = CurrentMemoryContext;
	crm_won_init(&counting->won);
	allocate_met(counting, 16);
	counting->counted_size = 8;
	counting->counted = palloc_array(Counted, counting->counted_size);
	return &counting->functions;
}
