/*
 * history.c
 *		Facts that were recorded before, of a kind and in an interval for each who
 *		asks, as signals.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "journey/engine.h"
#include "journey/past.h"

/* contact_id, place, what they ask for, and the fact, see past.h */
#define ASKING " FROM unnest($1, $2, $3) WITH ORDINALITY AS n(contact_id, from_at, until_at, place)"
#define IN_TIME(alias, at) \
	alias ".contact_id = n.contact_id AND " at " >= n.from_at AND " at " <= n.until_at"
/* as they would have been noticed */
#define IN_ORDER " ORDER BY 1, 4, 3, 2"
#define ARGUMENTS                                                       \
	4,                                                                  \
	{                                                                   \
		INT8ARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TEXTOID \
	}
#define FIRST_COLUMN 6

static CrmPlan find_events = {
	"SELECT n.place, e.event_id, e.occurred_at, e.recorded_at,"
	" n.contact_id, " CRM_PAST_EVENT ASKING
	" JOIN crm.event e ON " IN_TIME("e", "e.occurred_at") " AND e.kind = $4" IN_ORDER,
	ARGUMENTS, .by_index = true
};
static CrmPlan find_orders = {
	"SELECT n.place, t.transaction_id, t.occurred_at, t.recorded_at,"
	" n.contact_id, " CRM_PAST_ORDER("t.amount") ASKING
	" JOIN crm.transaction t ON " IN_TIME("t", "t.occurred_at") " AND t.kind = $4" IN_ORDER,
	ARGUMENTS, .by_index = true
};
static CrmPlan find_scans = {
	"SELECT n.place, s.scan_id, s.occurred_at, s.recorded_at,"
	" n.contact_id, " CRM_PAST_SCAN ASKING " JOIN crm.scan s ON " IN_TIME(
		"s", "s.occurred_at") " JOIN crm.qr_code q ON q.qr_code_id = s.qr_code_id"
							  " WHERE $4 IS NOT NULL" IN_ORDER,
	ARGUMENTS, .by_index = true
};
static CrmPlan find_stages = {
	"SELECT n.place, 0::bigint, m.since, m.since, n.contact_id, " CRM_PAST_STAGE ASKING
	" JOIN crm.stage_move m ON " IN_TIME("m", "m.since") " WHERE $4 IS NOT NULL" IN_ORDER,
	ARGUMENTS, .by_index = true
};
static CrmPlan find_awards = {
	"SELECT n.place, 0::bigint, a.awarded_at, a.recorded_at,"
	" n.contact_id, " CRM_PAST_AWARD ASKING " JOIN crm.award a ON " IN_TIME(
		"a", "a.awarded_at") " WHERE $4 IS NOT NULL AND a.revoked_at IS NULL" IN_ORDER,
	ARGUMENTS, .by_index = true
};
static CrmPlan find_segments = { "SELECT n.place, c.segment_change_id, c.occurred_at,"
								 " c.recorded_at, n.contact_id, " CRM_PAST_SEGMENT ASKING
								 " JOIN crm.segment_change c ON " IN_TIME(
									 "c",
									 "c.occurred_at") " AND 'segment_' || c.change = $4" IN_ORDER,
								 ARGUMENTS, .by_index = true };

static CrmPlan *
plan_of(const char *kind)
{
	if (strcmp(kind, "purchase") == 0 || strcmp(kind, "refund") == 0)
		return &find_orders;
	if (strcmp(kind, "scan") == 0)
		return &find_scans;
	if (strcmp(kind, CRM_SIGNAL_STAGE) == 0)
		return &find_stages;
	if (strcmp(kind, CRM_SIGNAL_AWARD) == 0)
		return &find_awards;
	if (strcmp(kind, CRM_SIGNAL_SEGMENT_ENTER) == 0 || strcmp(kind, CRM_SIGNAL_SEGMENT_LEAVE) == 0)
		return &find_segments;
	return &find_events;
}

static void
read_fact(CrmPastFact *fact, uint64 row, const char *kind)
{
	CrmFactValues *values = &fact->signal.fact;
	bool isnull;

	fact->place = (int) DatumGetInt64(crm_result(row, 1, &isnull)) - 1;
	fact->signal.kind = kind;
	fact->signal.source_id = crm_result_int64(row, 2);
	fact->signal.occurred_at = crm_result_time(row, 3, DT_NOBEGIN);
	fact->recorded_at = crm_result_time(row, 4, DT_NOBEGIN);
	values->contact_id = crm_result_int64(row, 5);
	values->as_of = Max(fact->recorded_at, fact->signal.occurred_at);
	values->values[CRM_F_KIND] = CStringGetTextDatum(kind);
	values->values[CRM_F_OCCURRED_AT] = TimestampTzGetDatum(fact->signal.occurred_at);
	values->nulls[CRM_F_KIND] = values->nulls[CRM_F_OCCURRED_AT] = false;
	for (int column = CRM_F_AMOUNT; column < CRM_FACT_COLUMNS; column++)
	{
		Oid type = crm_fact_variables[column].type;
		Datum value = crm_result(row, FIRST_COLUMN + column - CRM_F_AMOUNT, &values->nulls[column]);

		if (!values->nulls[column])
			values->values[column] = datumCopy(value, get_typbyval(type), get_typlen(type));
	}
}

CrmPastFact *
crm_history_find(const char *kind, const CrmLookBack *asking, int n, int *nfound)
{
	CrmPlan *plan = plan_of(kind);
	CrmColumn columns[3];
	Datum values[4];
	CrmPastFact *found;

	crm_column_init(&columns[0], INT8OID);
	crm_column_init(&columns[1], TIMESTAMPTZOID);
	crm_column_init(&columns[2], TIMESTAMPTZOID);
	for (int i = 0; i < n; i++)
	{
		crm_column_add(&columns[0], Int64GetDatum(asking[i].contact_id), false);
		crm_column_add(&columns[1], TimestampTzGetDatum(asking[i].from), false);
		crm_column_add(&columns[2], TimestampTzGetDatum(asking[i].until), false);
	}
	for (int i = 0; i < 3; i++)
		values[i] = crm_column_array(&columns[i]);
	values[3] = CStringGetTextDatum(kind);
	*nfound = crm_run(plan, values, NULL);
	found = MemoryContextAllocExtended(CurrentMemoryContext, sizeof(CrmPastFact) * Max(*nfound, 1),
									   MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < *nfound; i++)
		read_fact(&found[i], i, kind);
	SPI_freetuptable(SPI_tuptable);
	return found;
}
