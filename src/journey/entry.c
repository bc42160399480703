/*
 * entry.c
 *		Entering a journey: by a fact, by hand, from another journey, by time. One
 *		place decides whether it may be, and records where it may not.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/guc.h"
#include "base/table.h"
#include "journey/engine.h"
#include "journey/match.h"
#include "journey/carried.h"

/* journeys that start each other, one within the other: more are a loop */
#define MOST_DEPTH 16

static CrmPlan find_earlier = {
	"SELECT e.contact_id, e.enrolment_id, e.journey, e.key, e.state = 'active', e.entered_at"
	" FROM crm.enrolment e WHERE e.contact_id = ANY ($1) AND e.journey = ANY ($2)",
	2,
	{ INT8ARRAYOID, TEXTARRAYOID },
	.by_index = true
};
static CrmPlan record_refusals = {
	"INSERT INTO crm.refusal AS r"
	" (contact_id, kind, object, reason, day, refusals, first_at, last_at)"
	" SELECT n.contact_id, 'journey', n.object, n.reason, (n.at AT TIME ZONE $5)::date,"
	"  count(*), min(n.at), max(n.at)"
	" FROM unnest($1, $2, $3, $4) AS n(contact_id, object, reason, at)"
	" GROUP BY n.contact_id, n.object, n.reason, (n.at AT TIME ZONE $5)::date"
	" ORDER BY n.contact_id, n.object, n.reason, (n.at AT TIME ZONE $5)::date"
	" ON CONFLICT (contact_id, kind, object, reason, day) DO UPDATE"
	" SET refusals = r.refusals + excluded.refusals,"
	" first_at = least(r.first_at, excluded.first_at),"
	" last_at = greatest(r.last_at, excluded.last_at)",
	5,
	{ INT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TEXTOID }
};

/* What is known of a contact in a journey. */
typedef struct Earlier
{
	int64 contact_id;
	int64 enrolment_id;
	const char *journey;
	const char *key;
	bool active;
	TimestampTz entered_at;
} Earlier;

static int
compare_earlier(const void *a, const void *b)
{
	return crm_compare_int64(&((const Earlier *) a)->contact_id,
							 &((const Earlier *) b)->contact_id);
}

/* Enrolments of the contacts in these journeys, by contact; those at work come on top. */
static Earlier *
read_earlier(const CrmEntering *entering, int n, int *nearlier)
{
	CrmColumn contacts;
	CrmColumn journeys;
	Datum values[2];
	Earlier *earlier;
	const CrmJourney *last = NULL;
	uint64 found;

	crm_column_init(&contacts, INT8OID);
	crm_column_init(&journeys, TEXTOID);
	for (int i = 0; i < n; i++)
	{
		crm_column_add(&contacts, Int64GetDatum(entering[i].contact_id), false);
		if (entering[i].journey != last)
			crm_column_add(&journeys, CStringGetTextDatum(entering[i].journey->name), false);
		last = entering[i].journey;
	}
	values[0] = crm_column_array(&contacts);
	values[1] = crm_column_array(&journeys);
	found = crm_run(&find_earlier, values, NULL);
	earlier = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(Earlier) * Max(found, 1));
	for (uint64 row = 0; row < found; row++)
	{
		earlier[row].contact_id = crm_result_int64(row, 1);
		earlier[row].enrolment_id = crm_result_int64(row, 2);
		earlier[row].journey = crm_result_text(row, 3);
		earlier[row].key = crm_result_text(row, 4);
		earlier[row].active = crm_result_true(row, 5);
		earlier[row].entered_at = crm_result_time(row, 6, DT_NOBEGIN);
	}
	SPI_freetuptable(SPI_tuptable);
	qsort(earlier, found, sizeof(Earlier), compare_earlier);
	*nearlier = found;
	return earlier;
}

/* What the re-entry policy says to one enrolment that there is or was. */
static const char *
refuse_beside(const CrmEntering *entering, const char *key, const char *other_key, bool active,
			  TimestampTz entered_at)
{
	const CrmJourney *journey = entering->journey;

	switch (journey->reentry)
	{
		case CRM_REENTRY_ONCE:
			return active ? "active" : "once";
		case CRM_REENTRY_AFTER_EXIT:
			return active ? "active" : NULL;
		case CRM_REENTRY_COOLDOWN:
			if (active)
				return "active";
			return entering->at < crm_add_interval(entered_at, journey->cooldown, journey->zone)
				? "cooldown"
				: NULL;
		case CRM_REENTRY_PER_KEY:
			return strcmp(key, other_key) != 0 ? NULL : active ? "active" : "key";
		case CRM_REENTRY_ALWAYS:
			return strcmp(key, other_key) == 0 && active ? "active" : NULL;
	}
	return NULL;
}

/* The key of the enrolment: empty where the policy needs none, NULL where it is missing. */
static const char *
key_of(const CrmEntering *entering)
{
	const CrmJourney *journey = entering->journey;

	if (journey->reentry == CRM_REENTRY_ALWAYS)
		return entering->key != NULL ? entering->key
									 : psprintf("%lld", (long long) entering->source_id);
	if (journey->reentry != CRM_REENTRY_PER_KEY)
		return "";
	if (entering->key != NULL)
		return entering->key;
	return entering->entry == NULL ? NULL : crm_member_text(entering->entry, journey->key);
}

static const char *
refuse_at_all(const CrmEntering *entering, TimestampTz now)
{
	const CrmJourney *journey = entering->journey;

	switch (journey->state)
	{
		case CRM_JOURNEY_CLOSED:
			return "closed";
		case CRM_JOURNEY_FROZEN:
			return "frozen";
		case CRM_JOURNEY_CANCELLED:
			return "cancelled";
		case CRM_JOURNEY_OPEN:
			break;
	}
	if (entering->depth > MOST_DEPTH)
		return "loop";
	if (entering->late)
		return "late";
	if (journey->max_lateness >= 0 && entering->source_at != DT_NOBEGIN &&
		now - entering->source_at > journey->max_lateness)
		return "late";
	if (journey->hold_out > 0 &&
		crm_draw(journey->name, "hold_out", entering->contact_id) < journey->hold_out)
		return "hold_out";
	return NULL;
}

static bool
is_at_work(CrmEngine *engine, const Earlier *earlier)
{
	for (CrmRun *run = crm_engine_first(engine, earlier->contact_id); run != NULL;
		 run = run->next_of_contact)
		if (run->enrolment_id == earlier->enrolment_id)
			return true;
	return false;
}

static const char *
refuse(CrmEngine *engine, const CrmEntering *entering, const char *key, const Earlier *earlier,
	   int nearlier)
{
	const char *reason = refuse_at_all(entering, engine->sink != NULL ? entering->at : engine->now);
	int low = 0;
	int high = nearlier;

	if (reason == NULL && key == NULL)
		reason = "key";
	while (low < high)
	{
		int middle = (low + high) / 2;

		if (earlier[middle].contact_id < entering->contact_id)
			low = middle + 1;
		else
			high = middle;
	}
	for (int i = low; reason == NULL && i < nearlier; i++)
	{
		if (earlier[i].contact_id != entering->contact_id)
			break;
		if (strcmp(earlier[i].journey, entering->journey->name) == 0 &&
			!is_at_work(engine, &earlier[i]))
			reason = refuse_beside(entering, key, earlier[i].key, earlier[i].active,
								   earlier[i].entered_at);
	}
	/* those at work are newer than what is stored */
	for (CrmRun *run = crm_engine_first(engine, entering->contact_id);
		 reason == NULL && run != NULL; run = run->next_of_contact)
		if (strcmp(run->journey->name, entering->journey->name) == 0)
			reason = refuse_beside(entering, key, run->key, run->state == CRM_RUN_ACTIVE,
								   run->entered_at);
	return reason;
}

const char *
crm_entry_refusal(CrmEngine *engine, const CrmEntering *entering, CrmEntryObstacle *obstacle)
{
	int nearlier;
	Earlier *earlier = read_earlier(entering, 1, &nearlier);
	const char *key = key_of(entering);

	memset(obstacle, 0, sizeof(CrmEntryObstacle));
	for (int i = 0; i < nearlier && key != NULL; i++)
	{
		const char *reason = refuse_beside(entering, key, earlier[i].key, earlier[i].active,
										   earlier[i].entered_at);

		/* what is now before what was, and the last of that */
		if (reason == NULL ||
			(obstacle->reason != NULL &&
			 (obstacle->active > earlier[i].active ||
			  (obstacle->active == earlier[i].active &&
			   obstacle->entered_at >= earlier[i].entered_at))))
			continue;
		obstacle->reason = reason;
		obstacle->enrolment_id = earlier[i].enrolment_id;
		obstacle->active = earlier[i].active;
		obstacle->entered_at = earlier[i].entered_at;
	}
	return refuse(engine, entering, key, earlier, nearlier);
}

static Jsonb *
context_of(const CrmEntering *entering)
{
	if (entering->entry == NULL)
		return crm_empty_document();
	/* from another journey everything that was known there */
	if (strcmp(entering->entered_by, "journey") == 0)
		return entering->entry;
	return crm_document_with(crm_empty_document(), "entry", entering->entry);
}

static int64
next_id(CrmEngine *engine)
{
	if (engine->sink != NULL)
		return engine->sink->next_id(engine);
	return nextval_internal(crm_table_oid("enrolment_enrolment_id_seq"), false);
}

static CrmRun *
begin(CrmEngine *engine, const CrmEntering *entering, const char *key)
{
	CrmRun *run = crm_engine_add(engine);
	MemoryContext old = MemoryContextSwitchTo(engine->context);

	run->journey = entering->journey;
	run->contact_id = entering->contact_id;
	run->enrolment_id = next_id(engine);
	run->source_id = entering->source_id;
	run->source_at = entering->source_at;
	run->parent_id = entering->parent_id;
	run->depth = entering->depth;
	run->entered_by = pstrdup(entering->entered_by);
	run->entered_at = run->step_at = run->at = entering->at;
	run->recorded_at = engine->now;
	if (engine->sink != NULL)
		run->now = entering->at;
	run->key = *key == '\0' ? "" : pstrdup(key);
	run->context = context_of(entering);
	run->begun = run->changed = true;
	run->entering = entering->journey->start;
	run->moving = true;
	crm_engine_index(engine, run);
	MemoryContextSwitchTo(old);
	return run;
}

static void
record(const CrmEntering *entering, int n)
{
	CrmColumn columns[4];
	Datum values[5];

	crm_column_init(&columns[0], INT8OID);
	crm_column_init(&columns[1], TEXTOID);
	crm_column_init(&columns[2], TEXTOID);
	crm_column_init(&columns[3], TIMESTAMPTZOID);
	for (int i = 0; i < n; i++)
		if (entering[i].reason != NULL)
		{
			crm_column_add(&columns[0], Int64GetDatum(entering[i].contact_id), false);
			crm_column_add(&columns[1], CStringGetTextDatum(entering[i].journey->name), false);
			crm_column_add(&columns[2], CStringGetTextDatum(entering[i].reason), false);
			crm_column_add(&columns[3], TimestampTzGetDatum(entering[i].at), false);
		}
	if (columns[0].n == 0)
		return;
	for (int i = 0; i < 4; i++)
		values[i] = crm_column_array(&columns[i]);
	values[4] = CStringGetTextDatum(crm_guc_time_zone);
	crm_run(&record_refusals, values, NULL);
}

void
crm_enter_all(CrmEngine *engine, CrmEntering *entering, int n, bool record_refused)
{
	Earlier *earlier = NULL;
	int nearlier = 0;
	int first = engine->nruns;

	if (n == 0)
		return;
	if (engine->sink == NULL)
		earlier = read_earlier(entering, n, &nearlier);
	for (int i = 0; i < n; i++)
	{
		const char *key = key_of(&entering[i]);

		entering[i].reason = refuse(engine, &entering[i], key, earlier, nearlier);
		entering[i].run = entering[i].reason == NULL ? begin(engine, &entering[i], key) : NULL;
	}
	if (earlier != NULL)
		pfree(earlier);
	if (record_refused && engine->sink != NULL)
		engine->sink->refused(engine, entering, n);
	else if (record_refused)
		record(entering, n);
	if (engine->nruns > first)
		crm_endings_of_begun(engine, first);
}

/* ---- by facts */

/* In the zone of the brand, whatever the session's is. */
static char *
time_text(TimestampTz at)
{
	pg_tz *outside = session_timezone;
	char *text = palloc(MAXDATELEN + 1);

	session_timezone = crm_guc_zone;
	JsonEncodeDateTime(text, TimestampTzGetDatum(at), TIMESTAMPTZOID, NULL);
	session_timezone = outside;
	return text;
}

static void
add_member(JsonbParseState **state, const char *name, Oid type, Datum value)
{
	JsonbValue key = { .type = jbvString };
	JsonbValue member;
	Jsonb *document = NULL;

	key.val.string.val = unconstify(char *, name);
	key.val.string.len = strlen(name);
	switch (type)
	{
		case TEXTOID:
			member.type = jbvString;
			member.val.string.val = TextDatumGetCString(value);
			member.val.string.len = strlen(member.val.string.val);
			break;
		case INT8OID:
			member.type = jbvNumeric;
			member.val.numeric = DatumGetNumeric(DirectFunctionCall1(int8_numeric, value));
			break;
		case NUMERICOID:
			member.type = jbvNumeric;
			member.val.numeric = DatumGetNumeric(value);
			break;
		case TIMESTAMPTZOID:
			member.type = jbvString;
			member.val.string.val = time_text(DatumGetTimestampTz(value));
			member.val.string.len = strlen(member.val.string.val);
			break;
		default:
			document = DatumGetJsonbP(value);
			member.type = jbvBinary;
			member.val.binary.data = &document->root;
			member.val.binary.len = VARSIZE(document) - VARHDRSZ;
	}
	pushJsonbValue(state, WJB_KEY, &key);
	pushJsonbValue(state, WJB_VALUE, &member);
}

/* The fact as templates see it: its properties, and what every fact has. */
Jsonb *
crm_signal_entry(const CrmSignal *signal)
{
	JsonbParseState *state = NULL;
	const CrmFactValues *fact = &signal->fact;
	JsonbValue *object;
	Jsonb *entry;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < CRM_FACT_COLUMNS; i++)
	{
		const CrmVariable *variable = &crm_fact_variables[i];
		const char *dot = strchr(variable->name, '.');

		/* fact.amount is entry.amount */
		if (!fact->nulls[i] && i != CRM_F_PROPERTIES)
			add_member(&state, dot == NULL ? variable->name : dot + 1, variable->type,
					   fact->values[i]);
	}
	object = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	entry = JsonbValueToJsonb(object);
	if (fact->nulls[CRM_F_PROPERTIES])
		return entry;
	return DatumGetJsonbP(
		DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(entry), fact->values[CRM_F_PROPERTIES]));
}

static void
enter_by_trigger(CrmEngine *engine, CrmJourney *journey, const CrmTrigger *trigger,
				 CrmSignal *const *signals, int nsignals, bool *entered)
{
	CrmMatch *matches = palloc_array(CrmMatch, nsignals);
	CrmEntering *entering;
	int *places = palloc_array(int, nsignals);
	int n = 0;
	int m = 0;

	for (int i = 0; i < nsignals; i++)
		if (!entered[i] && strcmp(signals[i]->kind, trigger->on) == 0)
		{
			places[n] = i;
			matches[n++].signal = signals[i];
		}
	crm_match(trigger, journey, matches, n);
	entering = palloc0_array(CrmEntering, Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		const CrmSignal *signal = matches[i].signal;

		if (!matches[i].holds)
			continue;
		/* of a journey's entries the first that fits */
		entered[places[i]] = true;
		entering[m].journey = journey;
		entering[m].contact_id = signal->fact.contact_id;
		entering[m].at = signal->fact.as_of;
		entering[m].entered_by = signal->kind;
		entering[m].source_id = signal->source_id;
		entering[m].source_at = signal->occurred_at;
		entering[m].depth = signal->depth;
		entering[m++].entry = crm_signal_entry(signal);
	}
	crm_enter_all(engine, entering, m, true);
	pfree(matches);
	pfree(places);
	pfree(entering);
}

void
crm_entries_into(CrmEngine *engine, CrmJourney *journey, CrmSignal *const *signals, int nsignals)
{
	bool *entered = palloc0_array(bool, nsignals);

	for (int k = 0; k < journey->nentries; k++)
		if (journey->entries[k].timed == NULL)
			enter_by_trigger(engine, journey, &journey->entries[k].trigger, signals, nsignals,
							 entered);
	pfree(entered);
}

void
crm_entries_by_signals(CrmEngine *engine, CrmSignal *const *signals, int nsignals)
{
	const CrmJourneys *journeys = crm_journeys();

	for (int i = 0; i < journeys->n; i++)
		if (journeys->list[i]->is_current)
			crm_entries_into(engine, journeys->list[i], signals, nsignals);
}
