/*
 * entry.c
 *		Entering a journey: by a fact, by hand, from another journey, by time. One
 *		place decides whether it may be, and records where it may not.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/guc.h"
#include "base/reader.h"
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

static bool
is_entered(const CrmEntering *entering, int n, const char *journey)
{
	const CrmJourney *last = NULL;

	for (int i = 0; i < n; i++)
	{
		if (entering[i].journey != last && strcmp(entering[i].journey->name, journey) == 0)
			return true;
		last = entering[i].journey;
	}
	return false;
}

/* Finds them without the executor, contact by contact; NULL where it is asked for. */
static Earlier *
read_earlier_directly(const CrmEntering *entering, int n, int *nearlier)
{
	static const char *const columns[] = { "contact_id", "enrolment_id", "journey",
										   "key",        "state",        "entered_at" };
	CrmReader *reader;
	Earlier *earlier = NULL;
	int64 *contacts;
	int size = 0;
	int ncontacts = 0;

	/* by an older snapshot they are looked at with the executor, which says when they have changed */
	if (!crm_guc_direct_access || IsolationUsesXactSnapshot())
		return NULL;
	reader = crm_reader_open("enrolment", columns, lengthof(columns), 1);
	if (reader == NULL)
		return NULL;
	contacts = palloc_array(int64, n);
	for (int i = 0; i < n; i++)
		contacts[i] = entering[i].contact_id;
	qsort(contacts, n, sizeof(int64), crm_compare_int64);
	for (int i = 0; i < n; i++)
		if (i == 0 || contacts[i] != contacts[i - 1])
			contacts[ncontacts++] = contacts[i];
	size = ncontacts;
	earlier = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(Earlier) * size);
	*nearlier = 0;
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	for (int i = 0; i < ncontacts && !crm_reader_empty(reader); i++)
	{
		Datum key = Int64GetDatum(contacts[i]);

		crm_reader_find(reader, &key);
		while (crm_reader_next(reader))
		{
			bool isnull;
			char *journey = TextDatumGetCString(crm_reader_value(reader, 2, &isnull));
			Earlier *one;

			if (!is_entered(entering, n, journey))
			{
				pfree(journey);
				continue;
			}
			if (*nearlier == size)
			{
				size *= 2;
				earlier = repalloc_huge(earlier, sizeof(Earlier) * size);
			}
			one = &earlier[(*nearlier)++];
			one->contact_id = contacts[i];
			one->enrolment_id = DatumGetInt64(crm_reader_value(reader, 1, &isnull));
			one->journey = journey;
			one->key = TextDatumGetCString(crm_reader_value(reader, 3, &isnull));
			one->active = crm_reader_is(reader, 4, "active");
			one->entered_at = DatumGetTimestampTz(crm_reader_value(reader, 5, &isnull));
		}
	}
	PopActiveSnapshot();
	crm_reader_close(reader);
	pfree(contacts);
	return earlier;
}

/* Enrolments of the contacts in these journeys, by contact; those at work come on top. */
static Earlier *
read_earlier(const CrmEntering *entering, int n, int *nearlier)
{
	CrmColumn contacts;
	CrmColumn journeys;
	Datum values[2];
	Earlier *earlier = read_earlier_directly(entering, n, nearlier);
	const CrmJourney *last = NULL;
	uint64 found;

	if (earlier != NULL)
		return earlier;

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
	crm_enrolments_check_current(values[0]);
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

/* The tables of facts count their ids each for itself. */
static int
table_of(const char *kind)
{
	if (strcmp(kind, "purchase") == 0 || strcmp(kind, "refund") == 0)
		return 1;
	if (strcmp(kind, "scan") == 0)
		return 2;
	return strcmp(kind, CRM_SIGNAL_SEGMENT_ENTER) == 0 ||
			strcmp(kind, CRM_SIGNAL_SEGMENT_LEAVE) == 0
		? 3
		: 0;
}

static bool
ids_are_unique(const CrmJourney *journey)
{
	for (int i = 1; i < journey->nentries; i++)
		if (journey->entries[i].timed == NULL && journey->entries[0].timed == NULL &&
			table_of(journey->entries[i].trigger.on) != table_of(journey->entries[0].trigger.on))
			return false;
	return true;
}

/*
 * The key of the enrolment: empty where the policy needs none, NULL where it is
 * missing. With "always" it is the fact's id, with its kind where facts of several
 * tables let in, which may have the same; what is no fact gets the id of the enrolment.
 */
static const char *
key_of(const CrmEntering *entering)
{
	const CrmJourney *journey = entering->journey;

	if (journey->reentry != CRM_REENTRY_PER_KEY && journey->reentry != CRM_REENTRY_ALWAYS)
		return "";
	if (entering->key != NULL)
		return entering->key;
	if (journey->reentry == CRM_REENTRY_ALWAYS)
		return entering->source_id == 0 || entering->source_at == DT_NOBEGIN ? ""
			: ids_are_unique(journey)
			? psprintf("%lld", (long long) entering->source_id)
			: psprintf("%s %lld", entering->entered_by, (long long) entering->source_id);
	if (entering->entry == NULL)
		return NULL;
	/* another journey hands over its whole context */
	return crm_member_text(entering->entry,
						   strcmp(entering->entered_by, "journey") == 0
							   ? psprintf("entry.%s", journey->key)
							   : journey->key);
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
	if (*key != '\0')
		run->key = pstrdup(key);
	else if (run->journey->reentry == CRM_REENTRY_ALWAYS)
		run->key = psprintf("%lld", (long long) run->enrolment_id);
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
	crm_engine_name_path(engine);
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
	if (fact->nulls[CRM_F_PROPERTIES] ||
		JB_ROOT_COUNT(DatumGetJsonbP(fact->values[CRM_F_PROPERTIES])) == 0)
		return entry;
	return DatumGetJsonbP(
		DirectFunctionCall2(jsonb_concat, JsonbPGetDatum(entry), fact->values[CRM_F_PROPERTIES]));
}

/* An entry by facts of a kind. */
typedef struct Door
{
	CrmJourney *journey;
	CrmRuleUser user;
	int rule; /* its place among the rules; -1: it has none */
} Door;

/* Those of a kind, in the order of the journeys. */
typedef struct Doors
{
	const char *kind;
	int n;
	Door *list;
	const CrmRuleUser **users; /* of the rules */
	int nrules;
	CrmFactRules *rules;
} Doors;

static void
add_door(Doors *doors, CrmJourney *journey, const CrmEntry *entry, CrmFactRule **rules)
{
	Door *door = &doors->list[doors->n++];

	door->journey = journey;
	door->user.kind = "journey";
	door->user.name = journey->name;
	door->rule = -1;
	if (entry->trigger.when == NULL)
		return;
	door->rule = doors->nrules;
	doors->users[doors->nrules] = &door->user;
	rules[doors->nrules++] = entry->trigger.when;
}

/* In the current context. */
static Doors *
make_doors(CrmJourney *const *journeys, int njourneys, const char *kind)
{
	Doors *doors = palloc0(sizeof(Doors));
	CrmFactRule **rules;
	int most = 1;

	for (int i = 0; i < njourneys; i++)
		most += journeys[i]->nentries;
	doors->kind = pstrdup(kind);
	doors->list = palloc_array(Door, most);
	doors->users = palloc_array(const CrmRuleUser *, most);
	rules = palloc_array(CrmFactRule *, most);
	for (int i = 0; i < njourneys; i++)
		for (int k = 0; k < journeys[i]->nentries && journeys[i]->is_current; k++)
		{
			const CrmEntry *entry = &journeys[i]->entries[k];

			if (entry->timed == NULL && strcmp(entry->trigger.on, kind) == 0)
				add_door(doors, journeys[i], entry, rules);
		}
	doors->rules = crm_fact_rules_create(rules, doors->nrules);
	pfree(rules);
	return doors;
}

/* Kept as long as the journeys are. */
static Doors *
find_doors(const CrmJourneys *journeys, const char *kind)
{
	MemoryContext old;
	ListCell *cell;
	Doors *doors;

	foreach(cell, *journeys->doors)
		if (strcmp(((Doors *) lfirst(cell))->kind, kind) == 0)
			return lfirst(cell);
	if (journeys->context == NULL || !crm_journey_listens(kind))
		return NULL;
	old = MemoryContextSwitchTo(journeys->context);
	doors = make_doors(journeys->list, journeys->n, kind);
	*journeys->doors = lappend(*journeys->doors, doors);
	MemoryContextSwitchTo(old);
	return doors;
}

/* For which facts does the rule of each door hold? holds[rule][fact]; NULL: there are no rules. */
static bool **
ask_doors(const Doors *doors, CrmSignal *const *signals, int nsignals)
{
	bool **holds;
	CrmFactValues *facts;

	if (doors->nrules == 0)
		return NULL;
	holds = palloc_array(bool *, doors->nrules);
	holds[0] = MemoryContextAllocHuge(CurrentMemoryContext, (Size) doors->nrules * nsignals);
	for (int r = 1; r < doors->nrules; r++)
		holds[r] = holds[r - 1] + nsignals;
	facts = palloc_array(CrmFactValues, nsignals);
	for (int i = 0; i < nsignals; i++)
		facts[i] = signals[i]->fact;
	crm_see_now();
	crm_fact_rules_evaluate(doors->rules, doors->users, facts, nsignals, holds);
	PopActiveSnapshot();
	pfree(facts);
	return holds;
}

static void
enter_by_fact(CrmEntering *entering, CrmJourney *journey, const CrmSignal *signal)
{
	memset(entering, 0, sizeof(*entering));
	entering->journey = journey;
	entering->contact_id = signal->fact.contact_id;
	entering->at = signal->fact.as_of;
	entering->entered_by = signal->kind;
	entering->source_id = signal->source_id;
	entering->source_at = signal->occurred_at;
	entering->depth = signal->depth;
	entering->entry = crm_signal_entry(signal);
}

/* By the setting, though another journey takes it: that is not even refused. */
static bool
is_history(const CrmJourney *journey, const CrmSignal *signal)
{
	return journey->max_lateness < 0 &&
		signal->fact.as_of - signal->occurred_at > crm_journey_lateness(journey);
}

static bool
is_open(const Door *door, bool *const *holds, int place)
{
	return door->rule < 0 || holds[door->rule][place];
}

/* Of a journey's entries the first that fits. */
static void
enter_by_doors(CrmEngine *engine, const Doors *doors, CrmSignal *const *signals, int nsignals)
{
	bool **holds = ask_doors(doors, signals, nsignals);
	CrmEntering *entering = NULL;
	int last;

	for (int first = 0; first < doors->n; first = last)
	{
		CrmJourney *journey = doors->list[first].journey;
		int n = 0;

		for (last = first + 1; last < doors->n && doors->list[last].journey == journey;)
			last++;
		for (int k = first; k < last; k++)
			for (int i = 0; i < nsignals; i++)
			{
				bool is_in = !is_open(&doors->list[k], holds, i) || is_history(journey, signals[i]);

				for (int before = first; before < k && !is_in; before++)
					is_in = is_open(&doors->list[before], holds, i);
				if (is_in)
					continue;
				if (entering == NULL)
					entering = palloc_array(CrmEntering, nsignals);
				enter_by_fact(&entering[n++], journey, signals[i]);
			}
		crm_enter_all(engine, entering, n, true);
	}
	if (entering != NULL)
		pfree(entering);
	if (holds == NULL)
		return;
	pfree(holds[0]);
	pfree(holds);
}

/* Signals of one kind after the other; doors_of() gives the entries by facts of it, NULL: none. */
static void
enter_by_signals(CrmEngine *engine, Doors *(*doors_of)(const void *arg, const char *kind),
				 const void *arg, CrmSignal *const *signals, int nsignals)
{
	CrmSignal **left = palloc_array(CrmSignal *, Max(nsignals, 1));
	CrmSignal **alike = palloc_array(CrmSignal *, Max(nsignals, 1));
	int nleft = nsignals;

	memcpy(left, signals, sizeof(CrmSignal *) * nsignals);
	while (nleft > 0)
	{
		const char *kind = left[0]->kind;
		const Doors *doors;
		int kept = 0;
		int n = 0;

		for (int i = 0; i < nleft; i++)
			if (strcmp(left[i]->kind, kind) == 0)
				alike[n++] = left[i];
			else
				left[kept++] = left[i];
		nleft = kept;
		doors = doors_of(arg, kind);
		if (doors != NULL && doors->n > 0)
			enter_by_doors(engine, doors, alike, n);
	}
	pfree(left);
	pfree(alike);
}

static Doors *
doors_of_one(const void *arg, const char *kind)
{
	CrmJourney *const journey = unconstify(CrmJourney *, (const CrmJourney *) arg);

	return make_doors(&journey, 1, kind);
}

static Doors *
doors_of_all(const void *arg, const char *kind)
{
	return find_doors(arg, kind);
}

void
crm_entries_into(CrmEngine *engine, CrmJourney *journey, CrmSignal *const *signals, int nsignals)
{
	enter_by_signals(engine, doors_of_one, journey, signals, nsignals);
}

void
crm_entries_by_signals(CrmEngine *engine, CrmSignal *const *signals, int nsignals)
{
	enter_by_signals(engine, doors_of_all, crm_journeys(), signals, nsignals);
}
