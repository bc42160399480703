/*
 * ingest.c
 *		The trigger of the fact tables. The rows of one statement become one batch of facts:
 *		checked, de-duplicated, sorted, and handed to the profile room.
 */
#include "postgres.h"

#include "catalog/partition.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/guc.h"
#include "base/table.h"
#include "facts/facts.h"
#include "facts/rows.h"
#include "facts/scans.h"
#include "facts/signals.h"
#include "facts/tally.h"
#include "journey/journey.h"
#include "outbox/outbox.h"
#include "pg_crm.h"
#include "profile/definition.h"
#include "profile/loyalty.h"
#include "profile/profile.h"
#include "profile/segment.h"

PG_FUNCTION_INFO_V1(crm_ingest);

typedef struct Batch
{
	CrmRows rows;
	int64 n;
	int64 size;
	CrmFact *facts;
	bool has_refunds;
	bool details;        /* rules read more of facts than a walk needs */
	CrmScanCodes *codes; /* NULL: no scans */
	CrmColumn follows[CRM_FOLLOW_COLUMNS];
	CrmTouches touches; /* what opens and closes windows */
	CrmTally tally;     /* what days are counted by */
} Batch;

static CrmFact *
add_fact(Batch *batch)
{
	CrmFact *fact;

	if (batch->n == batch->size)
	{
		batch->size = batch->size == 0 ? 8 : batch->size * 2;
		batch->facts = batch->facts == NULL
			? palloc(sizeof(CrmFact) * batch->size)
			: repalloc_huge(batch->facts, sizeof(CrmFact) * batch->size);
	}
	fact = &batch->facts[batch->n++];
	memset(fact, 0, sizeof(CrmFact));
	fact->kind = -1;
	return fact;
}

static TimestampTz
time_of(const Batch *batch, AttrNumber attno)
{
	bool isnull;
	TimestampTz at = DatumGetTimestampTz(crm_rows_value(&batch->rows, attno, &isnull));

	crm_check_time("occurred_at", at);
	return at;
}

/* What rules read of a fact beside what a walk needs, where they read any of it. */
static void
add_detail(Batch *batch, CrmFact *fact, CrmFactColumn column, AttrNumber attno, bool by_value)
{
	bool isnull;
	Datum value;

	if (!batch->details)
		return;
	value = crm_rows_value(&batch->rows, attno, &isnull);
	crm_fact_set(fact, column, value, isnull, by_value);
}

static void
read_transactions(Batch *batch)
{
	static const char *const columns[] = { "contact_id",   "transaction_id", "kind",
										   "amount",       "currency",       "occurred_at",
										   "external_ref", "refund_of",      "items",
										   "store_id" };
	const AttrNumber *attno = crm_rows_attributes(&batch->rows, columns, lengthof(columns));
	AttrNumber contact_id = attno[0];
	AttrNumber id = attno[1];
	AttrNumber kind = attno[2];
	AttrNumber amount = attno[3];
	AttrNumber currency = attno[4];
	AttrNumber occurred_at = attno[5];
	AttrNumber reference = attno[6];
	AttrNumber refund_of = attno[7];
	AttrNumber items = attno[8];
	AttrNumber store_id = attno[9];
	int currency_length = strlen(crm_guc_currency);
	bool isnull;

	batch->details = crm_definitions()->reads_details ||
		crm_signals_wanted(CRM_FACT_PURCHASE, NULL) || crm_signals_wanted(CRM_FACT_REFUND, NULL);

	while (crm_rows_next(&batch->rows))
	{
		CrmFact *fact = add_fact(batch);
		CrmTallied tallied = { 0 };
		Datum value;

		slot_getallattrs(batch->rows.slot);
		fact->contact_id = DatumGetInt64(crm_rows_value(&batch->rows, contact_id, &isnull));
		fact->id = DatumGetInt64(crm_rows_value(&batch->rows, id, &isnull));
		fact->occurred_at = time_of(batch, occurred_at);
		fact->counted = true;

		value = crm_rows_value(&batch->rows, kind, &isnull);
		if (crm_text_equals(value, "purchase", 8))
			fact->type = CRM_FACT_PURCHASE;
		else if (crm_text_equals(value, "refund", 6))
			fact->type = CRM_FACT_REFUND;
		else
		{
			char *given = TextDatumGetCString(value);

			crm_check_kind(given);
			ereport(ERROR,
					(errcode(ERRCODE_CHECK_VIOLATION),
					 errmsg("kind of a transaction must be purchase or refund, not \"%s\"", given),
					 errhint("Record other facts with crm.track().")));
		}

		value = crm_rows_value(&batch->rows, currency, &isnull);
		fact->own_currency = crm_text_equals(value, crm_guc_currency, currency_length);
		if (batch->tally.kept)
			tallied.currency = fact->own_currency ? crm_guc_currency : TextDatumGetCString(value);
		value = crm_rows_value(&batch->rows, amount, &isnull);
		crm_check_amount(value, fact->type == CRM_FACT_REFUND);
		fact->amount = batch->rows.copy ? datumCopy(value, false, -1) : value;

		fact->reference = crm_rows_text(&batch->rows, reference);
		if (fact->reference != NULL)
			crm_check_key("external_ref", fact->reference);
		value = crm_rows_value(&batch->rows, items, &isnull);
		if (!isnull)
			crm_check_document("items", value);
		add_detail(batch, fact, CRM_F_CURRENCY, currency, false);
		add_detail(batch, fact, CRM_F_STORE_ID, store_id, true);
		add_detail(batch, fact, CRM_F_ITEMS, items, false);

		value = crm_rows_value(&batch->rows, refund_of, &isnull);
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

		tallied.kind = fact->type == CRM_FACT_REFUND ? "refund" : "purchase";
		tallied.occurred_at = fact->occurred_at;
		tallied.amount = fact->amount;
		value = crm_rows_value(&batch->rows, store_id, &isnull);
		tallied.store_id = isnull ? 0 : DatumGetInt64(value);
		crm_tally_add(&batch->tally, &tallied);
	}
}

/* Many facts in a row often have the same: then they share it. */
static void
add_properties(Batch *batch, CrmFact *fact, AttrNumber attno)
{
	const CrmFactDetail *last = batch->n > 1 ? batch->facts[batch->n - 2].details : NULL;
	bool isnull;
	Datum value;

	if (batch->details && last != NULL)
	{
		value = crm_rows_value(&batch->rows, attno, &isnull);
		if (!isnull && datum_image_eq(value, last->value, false, -1))
		{
			fact->details = last;
			return;
		}
	}
	add_detail(batch, fact, CRM_F_PROPERTIES, attno, false);
}

/* A stage set by an event row names one that there is, or none to give the stage back to the rules. */
static void
check_manual_stage(const CrmDefinitions *definitions, Datum properties)
{
	Jsonb *document = DatumGetJsonbP(properties);
	JsonbValue stage;

	if (getKeyJsonValueFromContainer(&document->root, "stage", 5, &stage) == NULL ||
		stage.type == jbvNull)
		return;
	if (stage.type == jbvString)
		for (int i = 0; i < definitions->nstages; i++)
		{
			const char *name = definitions->stages[i].stage;

			if (strlen(name) == stage.val.string.len &&
				memcmp(name, stage.val.string.val, stage.val.string.len) == 0)
				return;
		}
	if (stage.type != jbvString)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("\"stage\" of a set_stage event must be a string or null"),
				 errhint("Name a stage, or null to give the stage back to the rules.")));
	ereport(ERROR,
			(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
			 errmsg("stage \"%s\" does not exist",
					pnstrdup(stage.val.string.val,
							 pg_mbcliplen(stage.val.string.val, stage.val.string.len,
										  CRM_MAX_KEY_BYTES))),
			 errhint("Use a stage of crm.stage, or NULL to let the rules decide again.")));
}

static void
add_follow(Batch *batch, const CrmFact *fact, Datum properties)
{
	char *scene = crm_text_member(properties, "scene");

	crm_column_add(&batch->follows[0], Int64GetDatum(fact->contact_id), false);
	crm_column_add(&batch->follows[1], Int64GetDatum(fact->id), false);
	crm_column_add(&batch->follows[2], Int64GetDatum(fact->account_id), fact->account_id == 0);
	crm_column_add(&batch->follows[3], TimestampTzGetDatum(fact->occurred_at), false);
	crm_column_add(&batch->follows[4], scene == NULL ? (Datum) 0 : CStringGetTextDatum(scene),
				   scene == NULL);
}

/* A row of this kind is what the trigger of changed contacts found. */
static void
check_field_change(void)
{
	if (!crm_recording_changes)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("events of kind \"" CRM_FIELD_CHANGE
						"\" are recorded by the extension only"),
				 errhint("UPDATE crm.contact: each field that changes becomes such an event.")));
}

static void
read_events(Batch *batch)
{
	static const char *const columns[] = { "contact_id",  "event_id",   "kind",
										   "occurred_at", "account_id", "properties" };
	const AttrNumber *attno = crm_rows_attributes(&batch->rows, columns, lengthof(columns));
	AttrNumber contact_id = attno[0];
	AttrNumber id = attno[1];
	AttrNumber kind = attno[2];
	AttrNumber occurred_at = attno[3];
	AttrNumber account_id = attno[4];
	AttrNumber properties = attno[5];
	const CrmDefinitions *definitions = crm_definitions();
	bool segments = crm_segments_defined();
	char *last_kind = NULL;
	bool isnull;

	batch->details = definitions->reads_details;
	crm_column_init(&batch->follows[0], INT8OID);
	crm_column_init(&batch->follows[1], INT8OID);
	crm_column_init(&batch->follows[2], INT8OID);
	crm_column_init(&batch->follows[3], TIMESTAMPTZOID);
	crm_column_init(&batch->follows[4], TEXTOID);

	while (crm_rows_next(&batch->rows))
	{
		CrmFact *fact = add_fact(batch);
		char *kind_text;
		Datum value;
		bool told;

		fact->type = CRM_FACT_EVENT;
		fact->contact_id = DatumGetInt64(crm_rows_value(&batch->rows, contact_id, &isnull));
		fact->id = DatumGetInt64(crm_rows_value(&batch->rows, id, &isnull));
		fact->occurred_at = time_of(batch, occurred_at);
		kind_text = crm_rows_text(&batch->rows, kind);
		if (last_kind != NULL && strcmp(kind_text, last_kind) == 0)
		{
			pfree(kind_text);
			kind_text = last_kind;
		}
		crm_check_kind(kind_text);
		fact->kind = crm_definition_event_kind(definitions, kind_text);
		value = crm_rows_value(&batch->rows, account_id, &isnull);
		fact->account_id = isnull ? 0 : DatumGetInt64(value);
		crm_tally_add(&batch->tally,
					  &(CrmTallied){ .kind = kind_text,
									 .occurred_at = fact->occurred_at,
									 .account_id = fact->account_id });
		value = crm_rows_value(&batch->rows, properties, &isnull);
		if (strcmp(kind_text, CRM_FIELD_CHANGE) == 0)
		{
			check_field_change();
			fact->unseen = true;
		}
		else
		{
			crm_check_document("properties", value);
			crm_check_object("properties", value);
		}
		if (fact->kind == CRM_KIND_SET_STAGE)
		{
			fact->type = CRM_FACT_MANUAL_STAGE;
			check_manual_stage(definitions, value);
		}
		if (fact->kind == CRM_KIND_FOLLOW)
			add_follow(batch, fact, value);
		if (fact->account_id != 0)
			crm_touches_add(&batch->touches, fact->contact_id, fact->account_id, kind_text,
							fact->occurred_at);
		fact->earns = definitions->earning_from[CRM_EARN_EVENT] &&
			crm_definition_earns(definitions, kind_text);
		told = crm_signals_wanted(fact->type, kind_text);
		batch->details = (fact->earns && definitions->reads_details) || told;
		add_properties(batch, fact, properties);
		if (fact->earns || told || (segments && fact->type == CRM_FACT_EVENT))
			fact->detail = last_kind = kind_text;
		else if (kind_text != last_kind)
			pfree(kind_text);
		/* who updates the contact tells what reads it */
		if (fact->unseen && fact->kind < 0 && !fact->earns && !told)
			batch->n--;
	}
}

static void
read_scans(Batch *batch)
{
	static const char *const columns[] = { "contact_id", "scan_id", "qr_code_id", "occurred_at" };
	const AttrNumber *attno = crm_rows_attributes(&batch->rows, columns, lengthof(columns));
	AttrNumber contact_id = attno[0];
	AttrNumber id = attno[1];
	AttrNumber qr_code_id = attno[2];
	AttrNumber occurred_at = attno[3];
	bool isnull;

	batch->codes = crm_scan_codes_create();
	while (crm_rows_next(&batch->rows))
	{
		CrmFact *fact = add_fact(batch);
		int64 code;

		slot_getallattrs(batch->rows.slot);
		fact->type = CRM_FACT_SCAN;
		fact->contact_id = DatumGetInt64(crm_rows_value(&batch->rows, contact_id, &isnull));
		fact->id = DatumGetInt64(crm_rows_value(&batch->rows, id, &isnull));
		fact->occurred_at = time_of(batch, occurred_at);
		code = DatumGetInt64(crm_rows_value(&batch->rows, qr_code_id, &isnull));
		fact->code = crm_scan_codes_place(batch->codes, code);
		crm_tally_add(&batch->tally,
					  &(CrmTallied){ .kind = "scan",
									 .occurred_at = fact->occurred_at,
									 .qr_code_id = code });
	}
}

/* Ids of the contacts of a sorted batch. */
static int64 *
contacts_of(const Batch *batch, int *ncontacts)
{
	int64 *contacts = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(int64) * batch->n);
	int n = 0;

	for (int64 i = 0; i < batch->n; i++)
		if (n == 0 || contacts[n - 1] != batch->facts[i].contact_id)
			contacts[n++] = batch->facts[i].contact_id;
	*ncontacts = n;
	return contacts;
}

static void
lock_contacts_first(const Batch *batch)
{
	int ncontacts;
	int64 *contacts = contacts_of(batch, &ncontacts);

	crm_contact_lock_first(contacts, ncontacts);
	pfree(contacts);
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
	2,
	{ INT8ARRAYOID, INT8ARRAYOID }
};

/* A refund names an order of its contact and takes back no more than is left, on the order's day. */
static void
take_refunds(const Batch *batch)
{
	CrmActing acting;
	CrmColumn contacts;
	CrmColumn ids;
	Datum values[2];
	bool isnull;

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
	crm_tally_refunds(values[0], values[1]);
	crm_disconnect(&acting);
}

/* Scans open windows of their codes' accounts. */
static void
add_scan_touches(Batch *batch)
{
	for (int64 i = 0; i < batch->n; i++)
	{
		const CrmFact *fact = &batch->facts[i];
		int64 account_id = batch->codes->codes[fact->code].account_id;

		crm_touches_add(&batch->touches, fact->contact_id, account_id, "scan", fact->occurred_at);
	}
}

/* Marks scans that come too fast. */
static void
take_scans(const Batch *batch)
{
	CrmActing acting;
	Datum arrays[CRM_SCAN_COLUMNS];

	crm_connect(&acting);
	crm_scan_arrays(batch->codes, batch->facts, batch->n, NULL, 0, arrays);
	crm_scan_flag_new(arrays);
	crm_disconnect(&acting);
}

static void
take_touches(Batch *batch)
{
	CrmActing acting;

	if (batch->touches.columns[0].n == 0)
		return;
	crm_connect(&acting);
	crm_touches_settle(&batch->touches);
	crm_disconnect(&acting);
}

static void
take_follows(Batch *batch)
{
	CrmActing acting;
	Datum arrays[CRM_FOLLOW_COLUMNS];

	crm_connect(&acting);
	for (int i = 0; i < CRM_FOLLOW_COLUMNS; i++)
		arrays[i] = crm_column_array(&batch->follows[i]);
	crm_acquisition_by_follows(arrays);
	crm_disconnect(&acting);
}

/* The fact table that fired: itself, or a partition of it. */
static bool
fires_for(const TriggerData *trigger, const char *table)
{
	Relation rel = trigger->tg_relation;
	Oid relid = RelationGetRelid(rel);

	if (rel->rd_rel->relispartition)
		relid = get_partition_parent(relid, true);
	return relid == crm_table_oid_if_any(table);
}

Datum
crm_ingest(PG_FUNCTION_ARGS)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm ingest",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	CrmActing acting;
	Batch batch = { 0 };

	crm_rows_open(&batch.rows, fcinfo, "ingest");
	crm_touches_init(&batch.touches);
	crm_act_as_owner_unnamed(&acting);
	/* whoever changes definitions waits for this lock, and this for him */
	LockRelationOid(crm_table_oid("profile_counter"), RowExclusiveLock);
	crm_tally_init(&batch.tally);
	if (fires_for(batch.rows.trigger, "transaction"))
		read_transactions(&batch);
	else if (fires_for(batch.rows.trigger, "event"))
		read_events(&batch);
	else if (fires_for(batch.rows.trigger, "scan"))
		read_scans(&batch);
	else
		crm_require_table(batch.rows.trigger->tg_relation, "transaction");

	if (batch.n > 0)
	{
		CrmScanCounting *counting = NULL;

		crm_facts_sort(batch.facts, batch.n);
		if (crm_contact_first())
			lock_contacts_first(&batch);
		if (batch.codes != NULL)
		{
			crm_scan_codes_load(batch.codes);
			add_scan_touches(&batch);
			counting = crm_scan_counting(batch.codes, batch.facts, batch.n);
		}
		if (batch.has_refunds)
		{
			int ncontacts;
			int64 *contacts = contacts_of(&batch, &ncontacts);

			crm_profile_lock(contacts, ncontacts);
			take_refunds(&batch);
		}
		crm_profile_settle(batch.facts, batch.n, counting);
		/* their contacts are locked by now */
		if (batch.codes != NULL && crm_scan_limits_exist())
			take_scans(&batch);
		crm_loyalty_settle(batch.facts, batch.n);
		if (batch.follows[0].n > 0)
			take_follows(&batch);
		take_touches(&batch);
		crm_segments_settle_facts(batch.facts, batch.n);
		if (crm_journeys_exist())
			crm_facts_signal(batch.facts, batch.n, batch.codes);
	}
	crm_tally_write(&batch.tally);
	crm_rows_close(&batch.rows);
	crm_act_end(&acting);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return PointerGetDatum(NULL);
}
