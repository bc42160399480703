/*
 * field_change.c
 *		The trigger of changed contacts: each field that users change becomes a
 *		fact, with its old and its new value; segments that read it are settled.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/table.h"
#include "facts/facts.h"
#include "facts/rekey.h"
#include "facts/rows.h"
#include "journey/journey.h"
#include "profile/profile.h"
#include "profile/segment.h"

/* changes recorded in one statement */
#define MAX_CHANGES 10000

PG_FUNCTION_INFO_V1(crm_contact_changed);

bool crm_recording_changes = false;

static CrmPlan insert_changes = {
	"INSERT INTO crm.event (contact_id, kind, occurred_at, properties)"
	" SELECT n.contact_id, '" CRM_FIELD_CHANGE "', $5,"
	"  jsonb_build_object('field', n.field, 'old', n.old, 'new', n.new)"
	" FROM unnest($1, $2, $3, $4) WITH ORDINALITY AS n(contact_id, field, old, new, place)"
	" ORDER BY n.contact_id, n.place",
	5,
	{ INT8ARRAYOID, TEXTARRAYOID, JSONBARRAYOID, JSONBARRAYOID, TIMESTAMPTZOID }
};

/* A column that users own. */
typedef struct Field
{
	const char *name;
	AttrNumber attno;
	bool byval;
	int16 len;
	bool changed; /* for somebody */
	Oid type;
	FmgrInfo to_jsonb; /* once something changed */
} Field;

typedef struct Changes
{
	int nfields;
	Field *fields;
	CrmColumn columns[4]; /* as insert_changes takes them */
	CrmColumn contacts;
	MemoryContext context; /* of what stays to the end */
	int nest_level;        /* of settings, once something changed */
} Changes;

static bool
is_kept(const char *name)
{
	static const char *const kept[] = { "contact_id", "created_at", "mobile", "stage" };

	for (int i = 0; i < lengthof(kept); i++)
		if (strcmp(name, kept[i]) == 0)
			return true;
	return false;
}

static void
find_fields(Changes *changes, TupleDesc descriptor)
{
	changes->fields = palloc0_array(Field, descriptor->natts);
	for (int i = 0; i < descriptor->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(descriptor, i);
		Field *field = &changes->fields[changes->nfields];

		if (attribute->attisdropped || attribute->attgenerated != '\0' ||
			is_kept(NameStr(attribute->attname)))
			continue;
		field->name = pstrdup(NameStr(attribute->attname));
		field->attno = i + 1;
		field->byval = attribute->attbyval;
		field->len = attribute->attlen;
		field->type = attribute->atttypid;
		changes->nfields++;
	}
}

static void
init_columns(Changes *changes)
{
	crm_column_init(&changes->columns[0], INT8OID);
	crm_column_init(&changes->columns[1], TEXTOID);
	crm_column_init(&changes->columns[2], JSONBOID);
	crm_column_init(&changes->columns[3], JSONBOID);
}

static void
record(Changes *changes)
{
	Datum values[5];
	bool before = crm_recording_changes;

	if (changes->columns[0].n == 0)
		return;
	for (int i = 0; i < 4; i++)
		values[i] = crm_column_array(&changes->columns[i]);
	values[4] = TimestampTzGetDatum(crm_now());
	crm_recording_changes = true;
	PG_TRY();
	{
		crm_run(&insert_changes, values, NULL);
	}
	PG_FINALLY();
	{
		crm_recording_changes = before;
	}
	PG_END_TRY();
	init_columns(changes);
}

static void
prepare_field(Changes *changes, Field *field)
{
	MemoryContext old = MemoryContextSwitchTo(changes->context);
	Const *argument = makeNullConst(field->type, -1, InvalidOid);

	fmgr_info(F_TO_JSONB, &field->to_jsonb);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(argument), InvalidOid,
											 InvalidOid, COERCE_EXPLICIT_CALL),
					   &field->to_jsonb);
	field->changed = true;
	/* dates and numbers as a merge writes them, whatever the session says */
	if (changes->nest_level == 0)
		changes->nest_level = crm_plain_output();
	MemoryContextSwitchTo(old);
}

static void
add_value(CrmColumn *column, Field *field, Datum value, bool isnull)
{
	crm_column_add(column, isnull ? (Datum) 0 : FunctionCall1(&field->to_jsonb, value), isnull);
}

static void
compare(Changes *changes, TupleTableSlot *old, TupleTableSlot *new, AttrNumber contact_id)
{
	bool any = false;
	bool isnull;
	Datum contact = slot_getattr(new, contact_id, &isnull);

	for (int i = 0; i < changes->nfields; i++)
	{
		Field *field = &changes->fields[i];
		bool old_null;
		bool new_null;
		Datum old_value = slot_getattr(old, field->attno, &old_null);
		Datum new_value = slot_getattr(new, field->attno, &new_null);

		if (old_null == new_null &&
			(new_null || datum_image_eq(old_value, new_value, field->byval, field->len)))
			continue;
		if (!field->changed)
			prepare_field(changes, field);
		any = true;
		crm_column_add(&changes->columns[0], contact, false);
		crm_column_add(&changes->columns[1], CStringGetTextDatum(field->name), false);
		add_value(&changes->columns[2], field, old_value, old_null);
		add_value(&changes->columns[3], field, new_value, new_null);
	}
	if (any)
	{
		MemoryContext part = MemoryContextSwitchTo(changes->context);

		crm_column_add(&changes->contacts, contact, false);
		MemoryContextSwitchTo(part);
	}
}

/* The rows before and after lie in one order. */
static void
compare_all(Changes *changes, TriggerData *trigger)
{
	static const char *const columns[] = { "contact_id" };
	const AttrNumber *attno = crm_known_attributes(trigger->tg_relation, columns, 1);
	TupleDesc descriptor = RelationGetDescr(trigger->tg_relation);
	TupleTableSlot *old = MakeSingleTupleTableSlot(descriptor, &TTSOpsMinimalTuple);
	TupleTableSlot *new = MakeSingleTupleTableSlot(descriptor, &TTSOpsMinimalTuple);
	MemoryContext context = CurrentMemoryContext;
	MemoryContext part = AllocSetContextCreate(context, "pg_crm changed fields",
											   ALLOCSET_DEFAULT_SIZES);

	tuplestore_rescan(trigger->tg_oldtable);
	tuplestore_rescan(trigger->tg_newtable);
	MemoryContextSwitchTo(part);
	init_columns(changes);
	while (tuplestore_gettupleslot(trigger->tg_oldtable, true, false, old) &&
		   tuplestore_gettupleslot(trigger->tg_newtable, true, false, new))
	{
		compare(changes, old, new, attno[0]);
		if (changes->columns[0].n < MAX_CHANGES)
			continue;
		CHECK_FOR_INTERRUPTS();
		record(changes);
		MemoryContextReset(part);
	}
	record(changes);
	MemoryContextSwitchTo(context);
	ExecDropSingleTupleTableSlot(old);
	ExecDropSingleTupleTableSlot(new);
}

static void
settle(const Changes *changes)
{
	CrmSegmentNews news = { .cause = CRM_FIELD_CHANGE,
							.at = crm_now(),
							.kinds = list_make1(CRM_FIELD_CHANGE) };
	int64 *contacts = MemoryContextAllocHuge(CurrentMemoryContext,
											 sizeof(int64) * changes->contacts.n);

	for (int i = 0; i < changes->contacts.n; i++)
		contacts[i] = DatumGetInt64(changes->contacts.values[i]);
	qsort(contacts, changes->contacts.n, sizeof(int64), crm_compare_int64);
	for (int i = 0; i < changes->contacts.n; i++)
		if (i == 0 || contacts[i] != contacts[i - 1])
			contacts[news.ncontacts++] = contacts[i];
	for (int i = 0; i < changes->nfields; i++)
		if (changes->fields[i].changed)
			news.columns = lappend(news.columns, unconstify(char *, changes->fields[i].name));
	news.contacts = contacts;
	/* its row comes before its segments */
	if (crm_journeys_read_contacts())
		crm_profile_lock(contacts, news.ncontacts);
	crm_segments_settle(&news);
	crm_journeys_settle(contacts, news.ncontacts);
}

/*
 * Before the statement the lock is taken for which changed definitions wait;
 * a row of crm.contact is locked after it. What the extension itself changes is
 * told by its own means.
 */
Datum
crm_contact_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = crm_check_trigger(fcinfo, "contact_changed");
	MemoryContext context;
	MemoryContext old;
	CrmActing acting;
	Changes changes = { 0 };

	crm_require_table(trigger->tg_relation, "contact");
	if (TRIGGER_FIRED_BEFORE(trigger->tg_event))
	{
		LockRelationOid(crm_table_oid("profile_counter"), RowExclusiveLock);
		return PointerGetDatum(NULL);
	}
	if (trigger->tg_oldtable == NULL || trigger->tg_newtable == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("crm.contact_changed() must fire after update with transition tables"),
				 errhint("The triggers of pg_crm are made by crm.install().")));
	if (crm_facts_may_change)
		return PointerGetDatum(NULL);

	context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm changed contacts",
									ALLOCSET_DEFAULT_SIZES);
	crm_connect(&acting);
	old = MemoryContextSwitchTo(context);
	find_fields(&changes, RelationGetDescr(trigger->tg_relation));
	crm_column_init(&changes.contacts, INT8OID);
	changes.context = context;
	compare_all(&changes, trigger);
	if (changes.nest_level > 0)
		AtEOXact_GUC(true, changes.nest_level);
	if (changes.contacts.n > 0)
		settle(&changes);
	MemoryContextSwitchTo(old);
	crm_disconnect(&acting);
	MemoryContextDelete(context);
	return PointerGetDatum(NULL);
}
