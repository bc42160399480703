/*
 * segment_define.c
 *		Saving segments: checked before they are stored, applied to everybody in
 *		the same transaction, with everyone who changes contacts kept away.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "journey/journey.h"
#include "base/document.h"
#include "base/table.h"
#include "profile/recompute.h"
#include "base/row.h"
#include "profile/segment_work.h"

#define MAX_NAME_BYTES 63

PG_FUNCTION_INFO_V1(crm_define_segment);
PG_FUNCTION_INFO_V1(crm_segments_changed);
PG_FUNCTION_INFO_V1(crm_sql_segment_overlap);

void
crm_check_segment(TupleDesc descriptor, HeapTuple tuple)
{
	CrmRow row = { descriptor, tuple };
	char *rule = crm_row_text(&row, "rule");
	CrmActing acting;

	crm_check_length("name of a segment", crm_row_text(&row, "name"), MAX_NAME_BYTES);
	crm_check_length("partition", crm_row_text(&row, "partition"), MAX_NAME_BYTES);
	if (rule == NULL)
		return; /* the constraint speaks */
	crm_connect(&acting);
	(void) crm_rule_reads(rule);
	crm_disconnect(&acting);
}

static void
say_how_time_is_read(const char *name)
{
	const CrmSegments *segments = crm_segments();
	int place = crm_segment_place(segments, name);

	if (place < 0 || segments->list[place].time == CRM_TIME_NONE)
		return;
	ereport(
		NOTICE,
		(segments->list[place].time == CRM_TIME_EXACT
			 ? errmsg("segment \"%s\" reads the time: crm.tick() moves contacts at their moments",
					  name)
			 : errmsg("segment \"%s\" reads the time: crm.tick() looks at it once a day", name)));
}

Datum
crm_define_segment(PG_FUNCTION_ARGS)
{
	static const char *const required[] = { "name", "rule" };
	CrmDocument *document = crm_document_open(fcinfo, "define_segment");
	JsonbValue *name;
	CrmActing acting;
	int version;

	crm_document_check_keys(document, "segment", NULL, 0);
	crm_document_require(document, required, lengthof(required));
	crm_connect(&acting);
	version = crm_document_save(document, "segment", required, 1);
	name = crm_document_value(document, "name");
	say_how_time_is_read(pnstrdup(name->val.string.val, name->val.string.len));
	crm_disconnect(&acting);
	PG_RETURN_INT32(version);
}

/* The names that a statement changed, and the partitions they were or are in. */
#define DIFFERENCE(some, others)                                                              \
	"SELECT " some ".name, " some ".partition FROM " some "_rows " some                       \
	" WHERE NOT EXISTS (SELECT FROM " others "_rows " others " WHERE " others ".name = " some \
	".name AND " others ".rule = " some ".rule AND " others ".position = " some               \
	".position AND " others ".partition IS NOT DISTINCT FROM " some ".partition)"
#define LISTED(rows)                                                     \
	"SELECT array_agg(DISTINCT x.name), array_agg(DISTINCT x.partition)" \
	" FILTER (WHERE x.partition IS NOT NULL) FROM (" rows ") AS x"

static const char *const inserted = LISTED("SELECT n.name, n.partition FROM new_rows n");
static const char *const deleted = LISTED("SELECT o.name, o.partition FROM old_rows o");
static const char *const updated = LISTED(
	DIFFERENCE("old", "new") " UNION ALL " DIFFERENCE("new", "old"));

/* Members of segments that are gone, or of another partition than they were. */
static CrmPlan leave_deleted = {
	"WITH m AS (DELETE FROM crm.segment_member m WHERE m.segment = ANY ($1) AND NOT EXISTS"
	"  (SELECT FROM crm.segment s WHERE s.name = m.segment) RETURNING m.contact_id, m.segment, m.since)"
	" INSERT INTO crm.segment_change"
	"  (contact_id, segment, change, occurred_at, recorded_at, cause)"
	" SELECT m.contact_id, m.segment, 'left', greatest(m.since, $2), $2, 'definition' FROM m"
	" ORDER BY m.segment, m.contact_id",
	2,
	{ TEXTARRAYOID, TIMESTAMPTZOID }
};
static CrmPlan leave_partitions = {
	"UPDATE crm.segment_member m SET partition = NULL FROM crm.segment s"
	" WHERE m.segment = ANY ($1) AND s.name = m.segment AND m.partition IS DISTINCT FROM s.partition"
	" AND m.partition IS NOT NULL",
	1,
	{ TEXTARRAYOID }
};
static CrmPlan join_partitions = {
	"UPDATE crm.segment_member m SET partition = s.partition FROM crm.segment s"
	" WHERE m.segment = ANY ($1) AND s.name = m.segment AND m.partition IS DISTINCT FROM s.partition",
	1,
	{ TEXTARRAYOID }
};
static CrmPlan next_contacts = {
	"SELECT c.contact_id FROM crm.contact c WHERE c.contact_id > $1 ORDER BY c.contact_id LIMIT $2",
	2,
	{ INT8OID, INT4OID }
};

/* what is being applied to everybody */
static const CrmSegments *applied;
static const bool *applied_affected;

static void
apply(const int64 *contacts, int ncontacts)
{
	CrmSegmentNews news = { .ncontacts = ncontacts,
							.contacts = contacts,
							.cause = "definition",
							.at = crm_now() };

	crm_segments_work(applied, &news, applied_affected, crm_now(), CRM_SEGMENTS_LOCKED);
	crm_journeys_settle(contacts, ncontacts);
}

static bool
is_in(ArrayType *names, const char *name)
{
	Datum *values;
	bool *nulls;
	int n;

	if (names == NULL || name == NULL)
		return false;
	deconstruct_array(names, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	for (int i = 0; i < n; i++)
		if (strcmp(TextDatumGetCString(values[i]), name) == 0)
			return true;
	return false;
}

static void
apply_to_all(ArrayType *names, ArrayType *partitions)
{
	const CrmSegments *segments = crm_segments_reload();
	bool *affected = palloc_array(bool, Max(segments->n, 1));
	bool any = false;
	Datum values[2] = { PointerGetDatum(names), TimestampTzGetDatum(crm_now()) };

	for (int i = 0; i < segments->n; i++)
	{
		affected[i] = is_in(names, segments->list[i].name) ||
			is_in(partitions, segments->list[i].partition);
		any |= affected[i];
	}
	crm_segments_spread(segments, affected);
	crm_run_protected(&leave_deleted, values, NULL);
	crm_run(&leave_partitions, values, NULL);
	if (any)
	{
		applied = segments;
		applied_affected = affected;
		crm_for_all_contacts(&next_contacts, apply);
	}
	crm_run(&join_partitions, values, NULL);
}

Datum
crm_segments_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	CrmActing acting;
	bool no_names;
	bool no_partitions;
	Datum names;
	Datum partitions;
	int code;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_STATEMENT(trigger->tg_event) ||
		!TRIGGER_FIRED_AFTER(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("crm.segments_changed() must be called after a statement"),
				 errhint("The triggers of pg_crm are made by crm.install().")));
	crm_require_table(trigger->tg_relation, "segment");
	crm_connect(&acting);
	if (SPI_register_trigger_data(trigger) < 0)
		elog(ERROR, "SPI_register_trigger_data failed");
	code = SPI_execute(TRIGGER_FIRED_BY_INSERT(trigger->tg_event)       ? inserted
						   : TRIGGER_FIRED_BY_DELETE(trigger->tg_event) ? deleted
																		: updated,
					   false, 0);
	if (code < 0)
		elog(ERROR, "SPI_execute failed: %s", SPI_result_code_string(code));
	names = crm_result(0, 1, &no_names);
	partitions = crm_result(0, 2, &no_partitions);
	if (!no_names)
	{
		/* as for other definitions: who changes contacts ends first, who comes later sees the new ones */
		LockRelationOid(crm_table_oid("profile_counter"), ExclusiveLock);
		CacheInvalidateRelcacheByRelid(RelationGetRelid(trigger->tg_relation));
		CommandCounterIncrement();
		apply_to_all(DatumGetArrayTypeP(names),
					 no_partitions ? NULL : DatumGetArrayTypeP(partitions));
	}
	crm_disconnect(&acting);
	return PointerGetDatum(NULL);
}

static CrmPlan find_overlap = {
	"WITH s AS MATERIALIZED (SELECT s.name, s.rule, row_number() OVER (ORDER BY s.position,"
	"   s.name COLLATE \"C\") AS place FROM crm.segment s WHERE s.partition = $1),"
	" h AS MATERIALIZED (SELECT s.place, a.contact_id FROM s"
	"  CROSS JOIN LATERAL crm.audience(s.rule) AS a(contact_id))"
	" SELECT a.name, b.name, count(x.contact_id) FROM s a JOIN s b ON b.place > a.place"
	" LEFT JOIN (SELECT h.place, o.place AS other, h.contact_id FROM h JOIN h o"
	"   ON o.contact_id = h.contact_id AND o.place > h.place) x"
	"  ON x.place = a.place AND x.other = b.place"
	" GROUP BY a.place, b.place, a.name, b.name ORDER BY a.place, b.place",
	1,
	{ TEXTOID }
};
static CrmPlan find_partition = { "SELECT FROM crm.segment s WHERE s.partition = $1 LIMIT 1",
								  1,
								  { TEXTOID } };

Datum
crm_sql_segment_overlap(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	CrmActing acting;
	Datum partition;
	uint64 n;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"partition\" of crm.segment_overlap() must not be NULL"),
				 errhint("Name a partition of crm.segment.")));
	partition = PG_GETARG_DATUM(0);
	InitMaterializedSRF(fcinfo, 0);
	crm_connect(&acting);
	if (crm_read(&find_partition, &partition, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("no segment is in partition \"%s\"", text_to_cstring(PG_GETARG_TEXT_PP(0))),
				 errhint("Name a partition of crm.segment.")));
	n = crm_run(&find_overlap, &partition, NULL);
	for (uint64 row = 0; row < n; row++)
	{
		Datum values[3];
		bool nulls[3];

		for (int i = 0; i < 3; i++)
			values[i] = crm_result(row, i + 1, &nulls[i]);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	crm_disconnect(&acting);
	return (Datum) 0;
}
