/*
 * added.c
 *		The triggers of contacts and identities: a new contact gets its profile,
 *		a new mobile number is told to the walk.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/table.h"
#include "facts/facts.h"
#include "facts/rows.h"
#include "journey/journey.h"
#include "profile/profile.h"
#include "profile/segment.h"
#include "rules/rules.h"

PG_FUNCTION_INFO_V1(crm_contact_added);
PG_FUNCTION_INFO_V1(crm_identity_added);

static CrmPlan insert_mobiles = {
	"INSERT INTO crm.identity AS i (kind, account_id, external_id, contact_id, bound_at)"
	" SELECT 'mobile', 0, n.mobile, n.contact_id, n.created_at"
	" FROM unnest($1, $2, $3) AS n(contact_id, mobile, created_at) ORDER BY n.mobile"
	" ON CONFLICT (kind, account_id, external_id) DO NOTHING",
	3,
	{ INT8ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID }
};
static CrmPlan find_foreign_mobile = {
	"SELECT n.contact_id, i.contact_id, n.mobile FROM unnest($1, $2) AS n(contact_id, mobile)"
	" JOIN crm.identity i ON i.kind = 'mobile' AND i.account_id = 0 AND i.external_id = n.mobile"
	" WHERE i.contact_id <> n.contact_id LIMIT 1",
	2,
	{ INT8ARRAYOID, TEXTARRAYOID }
};
static CrmPlan advance_ids = {
	"SELECT setval(s.id, $1) FROM (SELECT pg_get_serial_sequence('crm.contact', 'contact_id')::regclass) AS s(id)"
	" WHERE coalesce(pg_sequence_last_value(s.id), 0) < $1",
	1,
	{ INT8OID }
};
static CrmPlan last_id = {
	"SELECT coalesce(pg_sequence_last_value(s.id), 0), s.id::oid"
	" FROM (SELECT pg_get_serial_sequence('crm.contact', 'contact_id')::regclass) AS s(id)",
	0
};

/* Ids given by who inserts: the sequence must not come upon them later. */
static void
move_sequence_past(int64 contact_id)
{
	Datum value = Int64GetDatum(contact_id);
	bool isnull;

	crm_run(&last_id, NULL, NULL);
	if (crm_result_int64(0, 1) >= contact_id)
		return;
	/* nobody takes an id between the look and the move */
	LockRelationOid(DatumGetObjectId(crm_result(0, 2, &isnull)), ShareRowExclusiveLock);
	crm_run(&advance_ids, &value, NULL);
}

static void
record_mobiles(CrmColumn *contacts, CrmColumn *mobiles, CrmColumn *times)
{
	Datum values[3] = { crm_column_array(contacts), crm_column_array(mobiles),
						crm_column_array(times) };

	crm_run(&insert_mobiles, values, NULL);
	if (crm_run(&find_foreign_mobile, values, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("mobile %s belongs to contact %lld", crm_mask(crm_result_text(0, 3)),
						(long long) crm_result_int64(0, 2)),
				 errhint("Use that contact, or bind the number with crm.bind_mobile().")));
}

typedef struct Created
{
	int64 contact_id;
	TimestampTz at;
} Created;

static int
compare_created(const void *a, const void *b)
{
	return crm_compare_int64(&((const Created *) a)->contact_id,
							 &((const Created *) b)->contact_id);
}

static void
settle_segments(int64 *ids, TimestampTz *created, int n)
{
	Created *rows;
	CrmSegmentNews news = { .ncontacts = n,
							.contacts = ids,
							.cause = "created",
							.times = created,
							.topics = CRM_READS_ANYTHING };

	if (!crm_segments_defined())
		return;
	rows = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(Created) * n);
	for (int i = 0; i < n; i++)
		rows[i] = (Created){ ids[i], created[i] };
	qsort(rows, n, sizeof(Created), compare_created);
	for (int i = 0; i < n; i++)
	{
		ids[i] = rows[i].contact_id;
		created[i] = rows[i].at;
	}
	crm_segments_settle(&news);
}

Datum
crm_contact_added(PG_FUNCTION_ARGS)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm contacts",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	CrmActing acting;
	CrmRows rows;
	static const char *const columns[] = { "contact_id", "created_at", "mobile" };
	const AttrNumber *attno;
	AttrNumber contact_id;
	AttrNumber created_at;
	AttrNumber mobile;
	FmgrInfo mobile_out;
	Oid out_function;
	bool is_varlena;
	bool isnull;
	CrmColumn contacts;
	CrmColumn mobiles;
	CrmColumn times;
	int64 *ids = NULL;
	TimestampTz *created = NULL;
	int size = 0;
	int n = 0;
	int64 largest = 0;

	crm_rows_open(&rows, fcinfo, "contact_added");
	crm_require_table(rows.trigger->tg_relation, "contact");
	attno = crm_rows_attributes(&rows, columns, lengthof(columns));
	contact_id = attno[0];
	created_at = attno[1];
	mobile = attno[2];
	getTypeOutputInfo(TupleDescAttr(rows.slot->tts_tupleDescriptor, mobile - 1)->atttypid,
					  &out_function, &is_varlena);
	fmgr_info(out_function, &mobile_out);
	crm_column_init(&contacts, INT8OID);
	crm_column_init(&mobiles, TEXTOID);
	crm_column_init(&times, TIMESTAMPTZOID);

	while (crm_rows_next(&rows))
	{
		Datum value;

		if (n == size)
		{
			size = size == 0 ? 8 : size * 2;
			ids = ids == NULL ? palloc(sizeof(int64) * size)
							  : repalloc_huge(ids, sizeof(int64) * size);
			created = created == NULL ? palloc(sizeof(TimestampTz) * size)
									  : repalloc_huge(created, sizeof(TimestampTz) * size);
		}
		ids[n] = DatumGetInt64(crm_rows_value(&rows, contact_id, &isnull));
		created[n] = DatumGetTimestampTz(crm_rows_value(&rows, created_at, &isnull));
		crm_check_time("created_at", created[n]);
		largest = Max(largest, ids[n]);
		value = crm_rows_value(&rows, mobile, &isnull);
		if (!isnull)
		{
			crm_column_add(&contacts, Int64GetDatum(ids[n]), false);
			crm_column_add(&mobiles, CStringGetTextDatum(OutputFunctionCall(&mobile_out, value)),
						   false);
			crm_column_add(&times, TimestampTzGetDatum(created[n]), false);
		}
		n++;
	}
	if (n > 0)
	{
		crm_connect(&acting);
		MemoryContextSwitchTo(context);
		move_sequence_past(largest);
		if (contacts.n > 0)
			record_mobiles(&contacts, &mobiles, &times);
		/* whoever changes definitions waits for this lock, and this for him */
		LockRelationOid(crm_table_oid("profile_counter"), RowExclusiveLock);
		crm_profile_open(ids, created, n);
		settle_segments(ids, created, n);
		if (crm_journeys_exist())
		{
			qsort(ids, n, sizeof(int64), crm_compare_int64);
			crm_journeys_settle(ids, n);
		}
		crm_disconnect(&acting);
	}
	crm_rows_close(&rows);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return PointerGetDatum(NULL);
}

/*
 * Contacts still to be inserted are not there, and get what they need when they
 * are. The lock keeps a merge from ending a contact that gains an identifier.
 */
static CrmPlan lock_known = {
	"SELECT p.contact_id, p.contact_id = ANY ($2) FROM crm.profile_counter p"
	" WHERE p.contact_id = ANY ($1) ORDER BY p.contact_id FOR NO KEY UPDATE OF p",
	2,
	{ INT8ARRAYOID, INT8ARRAYOID }
};

/* Contacts that ended in a merge get no new identifiers. */
static CrmPlan find_ended = {
	"SELECT l.other FROM crm.merge_ledger l"
	" WHERE l.other = ANY ($1) AND l.unmerged_at IS NULL AND NOT EXISTS"
	" (SELECT FROM crm.profile_counter p WHERE p.contact_id = l.other) LIMIT 1",
	1,
	{ INT8ARRAYOID }
};

static void
lock_contacts_first(const CrmColumn *contacts)
{
	int64 *ids = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(int64) * contacts->n);

	for (int i = 0; i < contacts->n; i++)
		ids[i] = DatumGetInt64(contacts->values[i]);
	crm_contact_lock_first(ids, contacts->n);
	pfree(ids);
}

/* A mobile that becomes known is something the walk must hear of. */
Datum
crm_identity_added(PG_FUNCTION_ARGS)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm identities",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	CrmActing acting;
	CrmRows rows;
	static const char *const columns[] = { "kind", "contact_id" };
	const AttrNumber *attno;
	AttrNumber kind;
	AttrNumber contact_id;
	CrmColumn contacts;
	CrmColumn with_mobile;
	bool isnull;

	crm_rows_open(&rows, fcinfo, "identity_added");
	crm_require_table(rows.trigger->tg_relation, "identity");
	attno = crm_rows_attributes(&rows, columns, lengthof(columns));
	kind = attno[0];
	contact_id = attno[1];
	crm_column_init(&contacts, INT8OID);
	crm_column_init(&with_mobile, INT8OID);
	while (crm_rows_next(&rows))
	{
		Datum id = crm_rows_value(&rows, contact_id, &isnull);

		crm_column_add(&contacts, id, false);
		if (crm_text_equals(crm_rows_value(&rows, kind, &isnull), "mobile", 6))
			crm_column_add(&with_mobile, id, false);
	}
	if (contacts.n > 0)
	{
		Datum values[2] = { crm_column_array(&contacts), crm_column_array(&with_mobile) };
		uint64 n;
		int64 *ids;
		int nids = 0;

		crm_connect(&acting);
		lock_contacts_first(&contacts);
		n = crm_run(&lock_known, values, NULL);
		ids = palloc(sizeof(int64) * Max(n, 1));
		for (uint64 row = 0; row < n; row++)
			if (DatumGetBool(crm_result(row, 2, &isnull)))
				ids[nids++] = crm_result_int64(row, 1);
		if (n < contacts.n && crm_run(&find_ended, values, NULL) > 0)
			crm_unknown_contact(crm_result_int64(0, 1));
		if (nids > 0)
		{
			crm_profile_recompute(ids, nids, crm_now());
			crm_segments_refresh(ids, nids, "identify", crm_now());
		}
		crm_disconnect(&acting);
	}
	crm_rows_close(&rows);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return PointerGetDatum(NULL);
}
