/*
 * acquisition.c
 *		By what a contact was won: the first scan or follow that was recorded,
 *		written once. What comes later, a late earlier one too, is in the facts
 *		and changes nothing here, so that a source once reported stays.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/table.h"
#include "facts/rows.h"
#include "facts/scans.h"
#include "profile/won.h"

PG_FUNCTION_INFO_V1(crm_acquisition_added);

#define STAMP(touches)                                                                  \
	"INSERT INTO crm.acquisition (contact_id, source, source_id, qr_code_id, campaign," \
	" store_id, associate_id, account_id, occurred_at)"                                 \
	" SELECT DISTINCT ON (t.contact_id) t.contact_id, t.source, t.id, q.qr_code_id,"    \
	"  q.campaign, q.store_id, q.associate_id, coalesce(q.account_id, t.account_id),"   \
	"  t.occurred_at"                                                                   \
	" FROM (" touches ")"                                                               \
	"  AS t(contact_id, source, id, account_id, occurred_at, qr_code_id)"               \
	" LEFT JOIN crm.qr_code q ON q.qr_code_id = t.qr_code_id"                           \
	" WHERE NOT EXISTS"                                                                 \
	"  (SELECT FROM crm.acquisition a WHERE a.contact_id = t.contact_id)"               \
	" ORDER BY t.contact_id, t.occurred_at, t.source, t.id ON CONFLICT DO NOTHING"

/* the code of a follow e is that of its scene, if it was valid then */
#define CODE_OF_SCENE(scene)                                                             \
	"(SELECT c.qr_code_id FROM crm.qr_code c WHERE c.account_id = e.account_id"          \
	"  AND c.scene = " scene " AND e.occurred_at >= coalesce(c.valid_from, '-infinity')" \
	"  AND e.occurred_at < coalesce(c.valid_until, 'infinity'))"

static CrmPlan stamp_by_scans = {
	STAMP("SELECT s.contact_id, 'scan', s.scan_id, NULL::bigint, s.occurred_at, s.qr_code_id"
		  " FROM unnest($1, $2, $3, $4) AS s(contact_id, scan_id, qr_code_id, occurred_at)"),
	4,
	{ INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID }
};
/* clang-format off */
static CrmPlan stamp_by_follows = {
	STAMP("SELECT e.contact_id, 'follow', e.event_id, e.account_id, e.occurred_at, "
		  CODE_OF_SCENE("e.scene")
		  " FROM unnest($1, $2, $3, $4, $5)"
		  " AS e(contact_id, event_id, account_id, occurred_at, scene)"),
	5,
	{ INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID, TEXTARRAYOID }
};
static CrmPlan stamp_again = {
	STAMP("SELECT s.contact_id, 'scan', s.scan_id, NULL::bigint, s.occurred_at, s.qr_code_id"
		  " FROM crm.scan s WHERE s.contact_id = ANY ($1)"
		  " UNION ALL SELECT e.contact_id, 'follow', e.event_id, e.account_id, e.occurred_at, "
		  CODE_OF_SCENE("e.properties ->> 'scene'")
		  " FROM crm.event e WHERE e.contact_id = ANY ($1) AND e.kind = 'follow'"),
	1,
	{ INT8ARRAYOID }
};
/* clang-format on */

/* Whole rows change hands, whatever columns they have; nobody's id is the smallest number. */
#define NOBODY "'-9223372036854775808'::bigint"

static CrmPlan is_earlier = {
	"SELECT CASE WHEN (l.occurred_at, l.recorded_at) < (s.occurred_at, s.recorded_at)"
	" THEN '[true]'::jsonb END"
	" FROM crm.acquisition l, crm.acquisition s WHERE l.contact_id = $1 AND s.contact_id = $2",
	2,
	{ INT8OID, INT8OID }
};
static CrmPlan has_both = { "SELECT FROM crm.acquisition l, crm.acquisition s"
							" WHERE l.contact_id = $1 AND s.contact_id = $2",
							2,
							{ INT8OID, INT8OID } };
static CrmPlan swap[] = {
	{ "UPDATE crm.acquisition SET contact_id = " NOBODY
	  " WHERE contact_id = $1 AND contact_id <> $2",
	  2,
	  { INT8OID, INT8OID } },
	{ "UPDATE crm.acquisition SET contact_id = $1 WHERE contact_id = $2", 2, { INT8OID, INT8OID } },
	{ "UPDATE crm.acquisition SET contact_id = $2"
	  " WHERE contact_id = " NOBODY " AND $1 <> $2",
	  2,
	  { INT8OID, INT8OID } },
};

static const char *const acquisition_columns[] = { "contact_id",   "source",     "source_id",
												   "qr_code_id",   "campaign",   "store_id",
												   "associate_id", "account_id", "occurred_at",
												   "recorded_at" };

CrmTarget *
crm_acquisition_open(void)
{
	return crm_target_open("acquisition", acquisition_columns, lengthof(acquisition_columns),
						   false);
}

void
crm_acquisition_add(CrmTarget *target, const CrmFact *scan, const CrmScanCode *code)
{
	Datum values[lengthof(acquisition_columns)] = {
		Int64GetDatum(scan->contact_id),
		PointerGetDatum(cstring_to_text("scan")),
		Int64GetDatum(scan->id),
		Int64GetDatum(code->qr_code_id),
		code->campaign,
		Int64GetDatum(code->store_id),
		Int64GetDatum(code->associate_id),
		Int64GetDatum(code->account_id),
		TimestampTzGetDatum(scan->occurred_at),
		TimestampTzGetDatum(crm_now()),
	};
	bool nulls[lengthof(acquisition_columns)] = {
		[4] = code->campaign == (Datum) 0,
		[5] = !code->has_store,
		[6] = !code->has_associate,
	};

	crm_target_insert(target, values, nulls);
}

void
crm_acquisition_by_scans(const Datum *scans)
{
	crm_run(&stamp_by_scans, scans, NULL);
}

void
crm_acquisition_by_follows(const Datum *follows)
{
	crm_run(&stamp_by_follows, follows, NULL);
}

void
crm_acquisition_again(const int64 *contacts, int ncontacts)
{
	Datum value = crm_int64_array(contacts, ncontacts);

	crm_run(&stamp_again, &value, NULL);
}

void
crm_acquisition_swap(int64 contact_id, int64 other)
{
	Datum values[2] = { Int64GetDatum(contact_id), Int64GetDatum(other) };

	if (crm_run(&has_both, values, NULL) == 0)
		return;
	for (int i = 0; i < lengthof(swap); i++)
		crm_run_protected(&swap[i], values, NULL);
}

Datum
crm_acquisition_merge(int64 loser, int64 survivor, bool *isnull)
{
	Datum values[2] = { Int64GetDatum(loser), Int64GetDatum(survivor) };
	Datum note = (Datum) 0;

	*isnull = true;
	if (crm_run(&is_earlier, values, NULL) > 0)
		note = crm_result(0, 1, isnull);
	if (!*isnull)
		crm_acquisition_swap(loser, survivor);
	return note;
}

/* Rows that came by the executor, those of a brand too. */
Datum
crm_acquisition_added(PG_FUNCTION_ARGS)
{
	static const char *const columns[] = { "contact_id" };
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm acquisition",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	CrmActing acting;
	CrmRows rows;
	CrmWon won;
	AttrNumber contact_id;
	int64 *contacts;
	int n = 0;
	bool isnull;

	crm_rows_open(&rows, fcinfo, "acquisition_added");
	crm_require_table(rows.trigger->tg_relation, "acquisition");
	contact_id = crm_rows_attributes(&rows, columns, lengthof(columns))[0];
	contacts = MemoryContextAllocHuge(context,
									  sizeof(int64) *
										  tuplestore_tuple_count(rows.trigger->tg_newtable));
	while (crm_rows_next(&rows))
		contacts[n++] = DatumGetInt64(crm_rows_value(&rows, contact_id, &isnull));
	if (n > 0)
	{
		/* there is no foreign key; each is there once, by its primary key */
		qsort(contacts, n, sizeof(int64), crm_compare_int64);
		crm_connect(&acting);
		crm_profile_lock(contacts, n);
		crm_disconnect(&acting);
		crm_won_init(&won);
		for (int i = 0; i < n; i++)
			crm_won_changed(&won, contacts[i]);
		crm_won_write(&won);
	}
	crm_rows_close(&rows);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return PointerGetDatum(NULL);
}
