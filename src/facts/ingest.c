/*
 * ingest.c
 *		The triggers. The rows of one statement become one batch of facts:
 *		checked, de-duplicated, sorted, and handed to the profile room.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/partition.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "storage/lmgr.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/guc.h"
#include "base/table.h"
#include "facts/facts.h"
#include "pg_crm.h"
#include "profile/definition.h"
#include "profile/profile.h"

PG_FUNCTION_INFO_V1(crm_ingest);
PG_FUNCTION_INFO_V1(crm_contact_added);
PG_FUNCTION_INFO_V1(crm_identity_added);
PG_FUNCTION_INFO_V1(crm_refuse_change);

typedef struct Batch
{
	TriggerData *trigger;
	TupleTableSlot *slot;
	bool		copy;			/* values do not outlive their row */
	int64		n;
	int64		size;
	CrmFact    *facts;
	bool		has_refunds;
	bool		has_orders;
} Batch;

static AttrNumber
attribute(const Batch *batch, const char *name)
{
	TupleDesc	descriptor = batch->slot->tts_tupleDescriptor;

	for (int i = 0; i < descriptor->natts; i++)
		if (!TupleDescAttr(descriptor, i)->attisdropped &&
			strcmp(NameStr(TupleDescAttr(descriptor, i)->attname), name) == 0)
			return i + 1;
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_COLUMN),
			 errmsg("column \"%s\" of \"%s\" does not exist", name,
					RelationGetRelationName(batch->trigger->tg_relation)),
			 errhint("The columns that pg_crm made must stay; run SELECT crm.migrate() after an upgrade.")));
	return 0;
}

static Datum
value_of(const Batch *batch, AttrNumber attno, bool *isnull)
{
	return slot_getattr(batch->slot, attno, isnull);
}

static char *
text_of(const Batch *batch, AttrNumber attno)
{
	bool		isnull;
	Datum		value = value_of(batch, attno, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

static bool
text_equals(Datum value, const char *expected, int len)
{
	text	   *given = DatumGetTextPP(value);

	return VARSIZE_ANY_EXHDR(given) == len && memcmp(VARDATA_ANY(given), expected, len) == 0;
}

static CrmFact *
add_fact(Batch *batch)
{
	CrmFact    *fact;

	if (batch->n == batch->size)
	{
		batch->size = batch->size == 0 ? 8 : batch->size * 2;
		batch->facts = batch->facts == NULL ? palloc(sizeof(CrmFact) * batch->size) :
			repalloc_huge(batch->facts, sizeof(CrmFact) * batch->size);
	}
	fact = &batch->facts[batch->n++];
	memset(fact, 0, sizeof(CrmFact));
	fact->kind = -1;
	return fact;
}

static bool
next_row(Batch *batch)
{
	return tuplestore_gettupleslot(batch->trigger->tg_newtable, true, false, batch->slot);
}

static TimestampTz
time_of(const Batch *batch, AttrNumber attno)
{
	bool		isnull;
	TimestampTz at = DatumGetTimestampTz(value_of(batch, attno, &isnull));

	crm_check_time("occurred_at", at);
	return at;
}

static void
read_transactions(Batch *batch)
{
	AttrNumber	contact_id = attribute(batch, "contact_id");
	AttrNumber	id = attribute(batch, "transaction_id");
	AttrNumber	kind = attribute(batch, "kind");
	AttrNumber	amount = attribute(batch, "amount");
	AttrNumber	currency = attribute(batch, "currency");
	AttrNumber	occurred_at = attribute(batch, "occurred_at");
	AttrNumber	reference = attribute(batch, "external_ref");
	AttrNumber	refund_of = attribute(batch, "refund_of");
	AttrNumber	items = attribute(batch, "items");
	int			currency_length = strlen(crm_guc_currency);
	bool		isnull;

	while (next_row(batch))
	{
		CrmFact    *fact = add_fact(batch);
		Datum		value;

		slot_getallattrs(batch->slot);
		fact->contact_id = DatumGetInt64(value_of(batch, contact_id, &isnull));
		fact->id = DatumGetInt64(value_of(batch, id, &isnull));
		fact->occurred_at = time_of(batch, occurred_at);
		fact->counted = true;

		value = value_of(batch, kind, &isnull);
		if (text_equals(value, "purchase", 8))
			fact->type = CRM_FACT_PURCHASE;
		else if (text_equals(value, "refund", 6))
			fact->type = CRM_FACT_REFUND;
		else
		{
			char	   *given = TextDatumGetCString(value);

			crm_check_kind(given);
			ereport(ERROR,
					(errcode(ERRCODE_CHECK_VIOLATION),
					 errmsg("kind of a transaction must be purchase or refund, not \"%s\"", given),
					 errhint("Record other facts with crm.track().")));
		}

		value = value_of(batch, currency, &isnull);
		fact->own_currency = text_equals(value, crm_guc_currency, currency_length);
		value = value_of(batch, amount, &isnull);
		crm_check_amount(value, fact->type == CRM_FACT_REFUND);
		fact->amount = batch->copy ? datumCopy(value, false, -1) : value;

		fact->reference = text_of(batch, reference);
		if (fact->reference != NULL)
			crm_check_key("external_ref", fact->reference);
		value = value_of(batch, items, &isnull);
		if (!isnull)
			crm_check_document("items", value);

		value = value_of(batch, refund_of, &isnull);
		if (fact->type == CRM_FACT_REFUND)
		{
			if (isnull)
				ereport(ERROR,
						(errcode(ERRCODE_NOT_NULL_VIOLATION),
						 errmsg("refund_of of a refund must not be NULL"),
						 errhint("Name the transaction_id of the order, or use crm.refund().")));
			fact->refund_of = DatumGetInt64(value);
			batch->has_refunds = true;
		}
		else if (!isnull)
			ereport(ERROR,
					(errcode(ERRCODE_CHECK_VIOLATION),
					 errmsg("purchase names refund_of %lld", (long long) DatumGetInt64(value)),
					 errhint("Only a row of kind refund belongs to another transaction.")));
	}
}

static void
read_events(Batch *batch)
{
	AttrNumber	contact_id = attribute(batch, "contact_id");
	AttrNumber	id = attribute(batch, "event_id");
	AttrNumber	kind = attribute(batch, "kind");
	AttrNumber	occurred_at = attribute(batch, "occurred_at");
	AttrNumber	account_id = attribute(batch, "account_id");
	AttrNumber	properties = attribute(batch, "properties");
	const CrmDefinitions *definitions = crm_definitions();
	bool		isnull;

	while (next_row(batch))
	{
		CrmFact    *fact = add_fact(batch);
		char	   *kind_text;
		Datum		value;

		fact->type = CRM_FACT_EVENT;
		fact->contact_id = DatumGetInt64(value_of(batch, contact_id, &isnull));
		fact->id = DatumGetInt64(value_of(batch, id, &isnull));
		fact->occurred_at = time_of(batch, occurred_at);
		kind_text = text_of(batch, kind);
		crm_check_kind(kind_text);
		fact->kind = crm_definition_kind(definitions, kind_text, strlen(kind_text));
		value = value_of(batch, account_id, &isnull);
		fact->account_id = isnull ? 0 : DatumGetInt64(value);
		value = value_of(batch, properties, &isnull);
		crm_check_document("properties", value);
		if (fact->kind == CRM_KIND_SET_STAGE)
			fact->type = CRM_FACT_MANUAL_STAGE;
		pfree(kind_text);
	}
}

static void
read_scans(Batch *batch)
{
	AttrNumber	contact_id = attribute(batch, "contact_id");
	AttrNumber	id = attribute(batch, "scan_id");
	AttrNumber	occurred_at = attribute(batch, "occurred_at");
	bool		isnull;

	while (next_row(batch))
	{
		CrmFact    *fact = add_fact(batch);

		fact->type = CRM_FACT_SCAN;
		fact->contact_id = DatumGetInt64(value_of(batch, contact_id, &isnull));
		fact->id = DatumGetInt64(value_of(batch, id, &isnull));
		fact->occurred_at = time_of(batch, occurred_at);
	}
}

/* Ids of the contacts of a sorted batch. */
static int64 *
contacts_of(const Batch *batch, int *ncontacts)
{
	int64	   *contacts = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(int64) * batch->n);
	int			n = 0;

	for (int64 i = 0; i < batch->n; i++)
		if (n == 0 || contacts[n - 1] != batch->facts[i].contact_id)
			contacts[n++] = batch->facts[i].contact_id;
	*ncontacts = n;
	return contacts;
}

static CrmPlan find_bad_refund = {
	"SELECT r.transaction_id, r.refund_of, o.transaction_id IS NULL, r.currency <> o.currency,"
	" r.amount, o.amount - coalesce(s.refunded, 0) + r.amount"
	" FROM unnest($1, $2) AS n(contact_id, transaction_id)"
	" JOIN crm.transaction r ON r.contact_id = n.contact_id AND r.transaction_id = n.transaction_id"
	" LEFT JOIN crm.transaction o ON o.contact_id = r.contact_id"
	"  AND o.transaction_id = r.refund_of AND o.kind = 'purchase'"
	" LEFT JOIN LATERAL (SELECT sum(a.amount) AS refunded FROM crm.transaction a"
	"  WHERE a.contact_id = r.contact_id AND a.kind = 'refund' AND a.refund_of = r.refund_of) s ON true"
	" WHERE o.transaction_id IS NULL OR r.currency <> o.currency OR s.refunded > o.amount"
	" ORDER BY r.contact_id, r.occurred_at, r.transaction_id LIMIT 1",
	2, {INT8ARRAYOID, INT8ARRAYOID}
};

/* A refund names an order of its contact and takes back no more than is left. */
static void
check_refunds(const Batch *batch)
{
	CrmActing	acting;
	CrmColumn	contacts;
	CrmColumn	ids;
	Datum		values[2];
	bool		isnull;

	crm_connect(&acting);
	crm_column_init(&contacts, INT8OID);
	crm_column_init(&ids, INT8OID);
	for (int64 i = 0; i < batch->n; i++)
		if (batch->facts[i].type == CRM_FACT_REFUND)
		{
			crm_column_add(&contacts, Int64GetDatum(batch->facts[i].contact_id), false);
			crm_column_add(&ids, Int64GetDatum(batch->facts[i].id), false);
		}
	values[0] = crm_column_array(&contacts);
	values[1] = crm_column_array(&ids);
	if (crm_run(&find_bad_refund, values, NULL) > 0)
	{
		if (DatumGetBool(crm_result(0, 3, &isnull)))
			ereport(ERROR,
					(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
					 errmsg("order %lld of the refund does not exist",
							(long long) crm_result_int64(0, 2)),
					 errhint("A refund belongs to a purchase of the same contact.")));
		if (DatumGetBool(crm_result(0, 4, &isnull)))
			ereport(ERROR,
					(errcode(ERRCODE_CHECK_VIOLATION),
					 errmsg("refund of order %lld is in another currency than the order",
							(long long) crm_result_int64(0, 2)),
					 errhint("Refund in the currency of the order.")));
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("refund of %s is larger than the %s left of order %lld",
						SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 5),
						SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 6),
						(long long) crm_result_int64(0, 2)),
				 errhint("All refunds of an order together are at most its amount.")));
	}
	crm_disconnect(&acting);
}

static CrmPlan count_scans = {
	"INSERT INTO crm.first_scan AS f (contact_id, scope, scope_id, window_start, scan_id, occurred_at)"
	" SELECT DISTINCT ON (s.contact_id, s.qr_code_id) s.contact_id, 'code', s.qr_code_id::text,"
	" '-infinity'::timestamptz, s.scan_id, s.occurred_at"
	" FROM unnest($1, $2) AS n(contact_id, scan_id)"
	" JOIN crm.scan s ON s.contact_id = n.contact_id AND s.scan_id = n.scan_id"
	" ORDER BY s.contact_id, s.qr_code_id, s.occurred_at, s.scan_id"
	" ON CONFLICT (contact_id, scope, scope_id, window_start) DO UPDATE"
	" SET scan_id = excluded.scan_id, occurred_at = excluded.occurred_at"
	" WHERE (excluded.occurred_at, excluded.scan_id) < (f.occurred_at, f.scan_id)",
	2, {INT8ARRAYOID, INT8ARRAYOID}
};
static CrmPlan find_unknown_code = {
	"SELECT s.qr_code_id FROM unnest($1, $2) AS n(contact_id, scan_id)"
	" JOIN crm.scan s ON s.contact_id = n.contact_id AND s.scan_id = n.scan_id"
	" WHERE NOT EXISTS (SELECT FROM crm.qr_code q WHERE q.qr_code_id = s.qr_code_id) LIMIT 1",
	2, {INT8ARRAYOID, INT8ARRAYOID}
};

static void
deduplicate_scans(const Batch *batch)
{
	CrmActing	acting;
	CrmColumn	contacts;
	CrmColumn	ids;
	Datum		values[2];

	crm_connect(&acting);
	crm_column_init(&contacts, INT8OID);
	crm_column_init(&ids, INT8OID);
	for (int64 i = 0; i < batch->n; i++)
	{
		crm_column_add(&contacts, Int64GetDatum(batch->facts[i].contact_id), false);
		crm_column_add(&ids, Int64GetDatum(batch->facts[i].id), false);
	}
	values[0] = crm_column_array(&contacts);
	values[1] = crm_column_array(&ids);
	if (crm_run(&find_unknown_code, values, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("QR code %lld does not exist", (long long) crm_result_int64(0, 1)),
				 errhint("Define the code with crm.define_qr_code() first.")));
	crm_run(&count_scans, values, NULL);
	crm_disconnect(&acting);
}

static TriggerData *
check_trigger(FunctionCallInfo fcinfo, const char *function)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("crm.%s() must be called as a statement trigger", function),
				 errhint("The triggers of pg_crm are made by crm.install().")));
	return trigger;
}

/* The fact table that fired: itself, or a partition of it. */
static bool
fires_for(TriggerData *trigger, const char *table)
{
	Relation	rel = trigger->tg_relation;
	Oid			relid = RelationGetRelid(rel);

	if (rel->rd_rel->relispartition)
		relid = get_partition_parent(relid, true);
	return relid == crm_table_oid_if_any(table);
}

static void
open_batch(Batch *batch, FunctionCallInfo fcinfo, const char *function)
{
	memset(batch, 0, sizeof(Batch));
	batch->trigger = check_trigger(fcinfo, function);
	if (!TRIGGER_FIRED_AFTER(batch->trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(batch->trigger->tg_event) ||
		batch->trigger->tg_newtable == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("crm.%s() must fire after insert with a transition table", function),
				 errhint("The triggers of pg_crm are made by crm.install().")));
	tuplestore_rescan(batch->trigger->tg_newtable);
	batch->copy = !tuplestore_in_memory(batch->trigger->tg_newtable);
	batch->slot = MakeSingleTupleTableSlot(RelationGetDescr(batch->trigger->tg_relation),
										   &TTSOpsMinimalTuple);
}

Datum
crm_ingest(PG_FUNCTION_ARGS)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm ingest",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	CrmActing	acting;
	Batch		batch;

	open_batch(&batch, fcinfo, "ingest");
	crm_act_as_owner_unnamed(&acting);
	if (fires_for(batch.trigger, "transaction"))
		read_transactions(&batch);
	else if (fires_for(batch.trigger, "event"))
		read_events(&batch);
	else if (fires_for(batch.trigger, "scan"))
		read_scans(&batch);
	else
		crm_require_table(batch.trigger->tg_relation, "transaction");

	if (batch.n > 0)
	{
		crm_facts_sort(batch.facts, batch.n);
		if (batch.has_refunds || batch.facts[0].type == CRM_FACT_SCAN)
		{
			int			ncontacts;
			int64	   *contacts = contacts_of(&batch, &ncontacts);

			crm_profile_lock(contacts, ncontacts);
			if (batch.has_refunds)
				check_refunds(&batch);
			else
				deduplicate_scans(&batch);
		}
		crm_profile_settle(batch.facts, batch.n);
	}
	ExecDropSingleTupleTableSlot(batch.slot);
	crm_act_end(&acting);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return PointerGetDatum(NULL);
}

static CrmPlan insert_mobiles = {
	"INSERT INTO crm.identity AS i (kind, account_id, external_id, contact_id, bound_at)"
	" SELECT 'mobile', 0, n.mobile, n.contact_id, n.created_at"
	" FROM unnest($1, $2, $3) AS n(contact_id, mobile, created_at) ORDER BY n.mobile"
	" ON CONFLICT (kind, account_id, external_id) DO NOTHING",
	3, {INT8ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID}
};
static CrmPlan find_foreign_mobile = {
	"SELECT n.contact_id, i.contact_id, n.mobile FROM unnest($1, $2) AS n(contact_id, mobile)"
	" JOIN crm.identity i ON i.kind = 'mobile' AND i.account_id = 0 AND i.external_id = n.mobile"
	" WHERE i.contact_id <> n.contact_id LIMIT 1",
	2, {INT8ARRAYOID, TEXTARRAYOID}
};
static CrmPlan advance_ids = {
	"SELECT setval(s.id, $1) FROM (SELECT pg_get_serial_sequence('crm.contact', 'contact_id')::regclass) AS s(id)"
	" WHERE coalesce(pg_sequence_last_value(s.id), 0) < $1", 1, {INT8OID}
};
static CrmPlan last_id = {
	"SELECT coalesce(pg_sequence_last_value(s.id), 0), s.id::oid"
	" FROM (SELECT pg_get_serial_sequence('crm.contact', 'contact_id')::regclass) AS s(id)", 0
};

/* Ids given by who inserts: the sequence must not come upon them later. */
static void
move_sequence_past(int64 contact_id)
{
	Datum		value = Int64GetDatum(contact_id);
	bool		isnull;

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
	Datum		values[3] = {
		crm_column_array(contacts), crm_column_array(mobiles), crm_column_array(times)
	};

	crm_run(&insert_mobiles, values, NULL);
	if (crm_run(&find_foreign_mobile, values, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("mobile %s belongs to contact %lld", crm_mask(crm_result_text(0, 3)),
						(long long) crm_result_int64(0, 2)),
				 errhint("Use that contact, or bind the number with crm.bind_mobile().")));
}

Datum
crm_contact_added(PG_FUNCTION_ARGS)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm contacts",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	CrmActing	acting;
	Batch		batch;
	AttrNumber	contact_id;
	AttrNumber	created_at;
	AttrNumber	mobile;
	FmgrInfo	mobile_out;
	Oid			out_function;
	bool		is_varlena;
	bool		isnull;
	CrmColumn	contacts;
	CrmColumn	mobiles;
	CrmColumn	times;
	int64	   *ids = NULL;
	TimestampTz *created = NULL;
	int			size = 0;
	int			n = 0;
	int64		largest = 0;

	open_batch(&batch, fcinfo, "contact_added");
	crm_require_table(batch.trigger->tg_relation, "contact");
	contact_id = attribute(&batch, "contact_id");
	created_at = attribute(&batch, "created_at");
	mobile = attribute(&batch, "mobile");
	getTypeOutputInfo(TupleDescAttr(batch.slot->tts_tupleDescriptor, mobile - 1)->atttypid,
					  &out_function, &is_varlena);
	fmgr_info(out_function, &mobile_out);
	crm_column_init(&contacts, INT8OID);
	crm_column_init(&mobiles, TEXTOID);
	crm_column_init(&times, TIMESTAMPTZOID);

	while (next_row(&batch))
	{
		Datum		value;

		if (n == size)
		{
			size = size == 0 ? 8 : size * 2;
			ids = ids == NULL ? palloc(sizeof(int64) * size) : repalloc_huge(ids, sizeof(int64) * size);
			created = created == NULL ? palloc(sizeof(TimestampTz) * size) :
				repalloc_huge(created, sizeof(TimestampTz) * size);
		}
		ids[n] = DatumGetInt64(value_of(&batch, contact_id, &isnull));
		created[n] = DatumGetTimestampTz(value_of(&batch, created_at, &isnull));
		crm_check_time("created_at", created[n]);
		largest = Max(largest, ids[n]);
		value = value_of(&batch, mobile, &isnull);
		if (!isnull)
		{
			crm_column_add(&contacts, Int64GetDatum(ids[n]), false);
			crm_column_add(&mobiles, CStringGetTextDatum(OutputFunctionCall(&mobile_out, value)), false);
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
		crm_profile_open(ids, created, n);
		crm_disconnect(&acting);
	}
	ExecDropSingleTupleTableSlot(batch.slot);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return PointerGetDatum(NULL);
}

static CrmPlan find_walked = {
	"SELECT DISTINCT p.contact_id FROM crm.profile_counter p WHERE p.contact_id = ANY ($1)"
	" ORDER BY p.contact_id", 1, {INT8ARRAYOID}
};

/* A mobile that becomes known is something the walk must hear of. */
Datum
crm_identity_added(PG_FUNCTION_ARGS)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm identities",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	CrmActing	acting;
	Batch		batch;
	AttrNumber	kind;
	AttrNumber	contact_id;
	CrmColumn	contacts;
	bool		isnull;

	open_batch(&batch, fcinfo, "identity_added");
	crm_require_table(batch.trigger->tg_relation, "identity");
	kind = attribute(&batch, "kind");
	contact_id = attribute(&batch, "contact_id");
	crm_column_init(&contacts, INT8OID);
	while (next_row(&batch))
		if (text_equals(value_of(&batch, kind, &isnull), "mobile", 6))
			crm_column_add(&contacts, value_of(&batch, contact_id, &isnull), false);
	if (contacts.n > 0)
	{
		Datum		value = crm_column_array(&contacts);
		uint64		n;
		int64	   *ids;

		crm_connect(&acting);
		/* contacts still to be inserted get theirs when they are */
		n = crm_run(&find_walked, &value, NULL);
		ids = palloc(sizeof(int64) * Max(n, 1));
		for (uint64 row = 0; row < n; row++)
			ids[row] = crm_result_int64(row, 1);
		if (n > 0)
			crm_profile_recompute(ids, n, crm_now());
		crm_disconnect(&acting);
	}
	ExecDropSingleTupleTableSlot(batch.slot);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return PointerGetDatum(NULL);
}

/*
 * Facts are append-only. The trigger's argument is the hint.
 */
Datum
crm_refuse_change(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = check_trigger(fcinfo, "refuse_change");
	const char *operation =
		TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? "UPDATE" :
		TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ? "DELETE" : "TRUNCATE";

	if (!crm_facts_may_change)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("%s of crm.%s is refused", operation,
						RelationGetRelationName(trigger->tg_relation)),
				 trigger->tg_trigger->tgnargs > 0 ?
				 errhint("%s", trigger->tg_trigger->tgargs[0]) : 0));
	return PointerGetDatum(NULL);
}
