/*
 * map_document.c
 *		The document of a map: read, with everything that is wrong with it told at
 *		once.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "insight/map.h"
#include "journey/reading.h"
#include "pg_crm.h"

#define MAX_NAME_BYTES 63
/* after so long nothing that follows belongs to it, unless the map says otherwise */
#define DEFAULT_WITHIN_DAYS 30

const char *const crm_measure_names[CRM_MEASURES] = {
	[CRM_MEASURE_CONTACTS] = "contacts",
	[CRM_MEASURE_FACTS] = "facts",
	[CRM_MEASURE_AMOUNT] = "amount",
};

typedef struct MapReading
{
	CrmReading reading;
	CrmMap *map;
	List *known_touchpoints; /* char *; those of the registry */
	List *complaints;        /* those of them that are no steps of a path */
	List *known_personas;
	bool names_too;
} MapReading;

static bool
is_among(List *names, const char *name)
{
	ListCell *cell;

	foreach(cell, names)
		if (strcmp(lfirst(cell), name) == 0)
			return true;
	return false;
}

static List *
read_names(CrmPlan *plan, MemoryContext context)
{
	uint64 n = crm_run(plan, NULL, NULL);
	MemoryContext old = MemoryContextSwitchTo(context);
	List *names = NIL;

	for (uint64 row = 0; row < n; row++)
		names = lappend(names, crm_result_text(row, 1));
	MemoryContextSwitchTo(old);
	return names;
}

/* Labels and descriptions: any text. */
static const char *
read_words(CrmReading *reading, CrmObject *object, const char *key)
{
	JsonbValue *value = crm_object_offer(reading, object, key);

	return value == NULL ? NULL : crm_read_text(reading, key, value, CRM_MAX_DOCUMENT_BYTES);
}

static const char *
read_name(CrmReading *reading, CrmObject *object, const char *key)
{
	JsonbValue *value = crm_object_require(reading, object, key);

	return value == NULL ? NULL : crm_read_text(reading, key, value, MAX_NAME_BYTES);
}

static const char *
read_persona(MapReading *of, const char *key, const JsonbValue *value)
{
	const char *persona = crm_read_text(&of->reading, key, value, MAX_NAME_BYTES);

	if (persona != NULL && of->names_too && !is_among(of->known_personas, persona))
		crm_fault_at(&of->reading, key, "persona \"%s\" does not exist", crm_shown(persona));
	return persona;
}

static void
read_personas(MapReading *of, CrmObject *object)
{
	CrmReading *reading = &of->reading;
	JsonbValue *value = crm_object_offer(reading, object, "personas");
	List *seen = NIL;
	int n = 0;
	JsonbValue *elements = value == NULL ? NULL : crm_array_open(reading, "personas", value, &n);
	int before = crm_path_enter(reading, "personas");

	of->map->personas = palloc_array(const char *, Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		int outside = crm_path_enter_place(reading, i);
		const char *persona = read_persona(of, NULL, &elements[i]);

		if (persona != NULL && is_among(seen, persona))
			crm_fault(reading, "persona \"%s\" comes twice", crm_shown(persona));
		else if (persona != NULL)
		{
			of->map->personas[of->map->npersonas++] = persona;
			seen = lappend(seen, unconstify(char *, persona));
		}
		crm_path_leave(reading, outside);
	}
	crm_path_leave(reading, before);
}

/* A number that is not below 0. */
static Numeric
read_positive(CrmReading *reading, const char *key, const JsonbValue *value)
{
	Numeric number = crm_read_number(reading, key, value);

	if (number == NULL)
		return NULL;
	if (DatumGetBool(DirectFunctionCall2(numeric_ge, NumericGetDatum(number),
										 NumericGetDatum(int64_to_numeric(0)))))
		return number;
	crm_fault_at(reading, key, "%s is below 0", crm_shown(numeric_normalize(number)));
	return NULL;
}

static void
read_weights(CrmReading *reading, CrmObject *object)
{
	static const char *const parts[] = { "loss", "delay", "complaint", "note" };
	JsonbValue *value = crm_object_offer(reading, object, "weights");
	int before = crm_path_enter(reading, "weights");
	CrmObject weights;

	if (value != NULL && crm_object_open(reading, value, &weights))
	{
		for (int i = 0; i < lengthof(parts); i++)
		{
			JsonbValue *weight = crm_object_offer(reading, &weights, parts[i]);

			if (weight != NULL)
				(void) read_positive(reading, parts[i], weight);
		}
		crm_object_close(reading, &weights);
	}
	crm_path_leave(reading, before);
}

/* ---------- goals ---------- */

static void
read_measure(CrmReading *reading, CrmObject *object, CrmMapGoal *goal)
{
	JsonbValue *value = crm_object_offer(reading, object, "measure");
	const char *text;

	if (value == NULL)
		return;
	text = crm_read_text(reading, "measure", value, MAX_NAME_BYTES);
	if (text == NULL)
		return;
	for (int i = 0; i < CRM_MEASURES; i++)
		if (strcmp(text, crm_measure_names[i]) == 0)
		{
			goal->measure = i;
			if (i == CRM_MEASURE_FACTS && goal->rule != NULL)
				crm_fault_at(reading, "measure", "a rule over the profile counts contacts only");
			if (i == CRM_MEASURE_AMOUNT && (goal->on == NULL || strcmp(goal->on, "purchase") != 0))
				crm_fault_at(reading, "measure", "only facts on \"purchase\" have an amount");
			return;
		}
	crm_fault_at(reading, "measure", "\"%s\" is not contacts, facts or amount", crm_shown(text));
}

static void
read_direction(CrmReading *reading, CrmObject *object, CrmMapGoal *goal)
{
	JsonbValue *value = crm_object_offer(reading, object, "direction");
	const char *text = value == NULL ? NULL
									 : crm_read_text(reading, "direction", value, MAX_NAME_BYTES);

	if (text == NULL)
		return;
	goal->at_most = strcmp(text, "at_most") == 0;
	if (!goal->at_most && strcmp(text, "at_least") != 0)
		crm_fault_at(reading, "direction", "\"%s\" is not at_least or at_most", crm_shown(text));
}

/* What is counted: one of three. */
static void
read_counted(MapReading *of, CrmObject *object, CrmMapGoal *goal)
{
	CrmReading *reading = &of->reading;
	JsonbValue *rule = crm_object_offer(reading, object, "rule");
	JsonbValue *touchpoint = crm_object_offer(reading, object, "touchpoint");
	JsonbValue *on = crm_object_offer(reading, object, "on");
	JsonbValue *when = crm_object_offer(reading, object, "when");
	CrmRuleTime ignored;

	if ((rule != NULL) + (touchpoint != NULL) + (on != NULL) != 1)
		crm_fault(reading, "needs one of rule, on and touchpoint: what is counted");
	if (rule != NULL)
		goal->broken |= !crm_read_rule(reading, "rule", rule, &goal->rule, &ignored, NULL);
	if (touchpoint != NULL)
	{
		goal->touchpoint = crm_read_text(reading, "touchpoint", touchpoint, MAX_NAME_BYTES);
		if (goal->touchpoint != NULL && of->names_too &&
			!is_among(of->known_touchpoints, goal->touchpoint))
			crm_fault_at(reading, "touchpoint", "touchpoint \"%s\" does not exist",
						 crm_shown(goal->touchpoint));
	}
	if (on != NULL)
		goal->on = crm_read_text(reading, "on", on, CRM_MAX_KIND_BYTES);
	if (when != NULL)
		goal->broken |= !crm_read_fact_rule(reading, "when", when, &goal->when);
	if (when != NULL && on == NULL)
		crm_fault_at(reading, "when", "goes with \"on\" only");
}

static void
read_goal(MapReading *of, const JsonbValue *value, CrmMapGoal *goal, List **names)
{
	CrmReading *reading = &of->reading;
	JsonbValue *part;
	CrmObject object;

	goal->target = NumericGetDatum(int64_to_numeric(0));
	if (!crm_object_open(reading, value, &object))
		return;
	goal->name = read_name(reading, &object, "name");
	if (goal->name != NULL && is_among(*names, goal->name))
		crm_fault_at(reading, "name", "goal \"%s\" comes twice", crm_shown(goal->name));
	else if (goal->name != NULL)
		*names = lappend(*names, unconstify(char *, goal->name));
	goal->label = read_words(reading, &object, "label");
	read_counted(of, &object, goal);
	read_measure(reading, &object, goal);
	read_direction(reading, &object, goal);
	if ((part = crm_object_offer(reading, &object, "persona")) != NULL)
		goal->persona = read_persona(of, "persona", part);
	if ((part = crm_object_require(reading, &object, "target")) != NULL)
	{
		Numeric target = read_positive(reading, "target", part);

		if (target != NULL)
			goal->target = NumericGetDatum(target);
	}
	part = crm_object_offer(reading, &object, "period");
	if (part != NULL)
		goal->period = crm_read_interval(reading, "period", part, 1);
	if (part != NULL && goal->rule != NULL)
		crm_fault_at(reading, "period", "does not go with a rule, which is asked of now");
	if (part == NULL && !crm_object_has(&object, "period") &&
		(goal->on != NULL || goal->touchpoint != NULL))
		crm_fault_at(reading, "period", "is missing: facts are counted over a period");
	crm_object_close(reading, &object);
}

static void
read_goals(MapReading *of, CrmObject *object)
{
	CrmReading *reading = &of->reading;
	JsonbValue *value = crm_object_offer(reading, object, "goals");
	JsonbValue *elements = value == NULL
		? NULL
		: crm_array_open(reading, "goals", value, &of->map->ngoals);
	int before = crm_path_enter(reading, "goals");
	List *names = NIL;

	of->map->goals = palloc0_array(CrmMapGoal, Max(of->map->ngoals, 1));
	for (int i = 0; i < of->map->ngoals; i++)
	{
		int outside = crm_path_enter_place(reading, i);

		read_goal(of, &elements[i], &of->map->goals[i], &names);
		crm_path_leave(reading, outside);
	}
	crm_path_leave(reading, before);
}

/* ---------- stages and transitions ---------- */

static void
read_touchpoints(MapReading *of, CrmObject *stage, List **drawn)
{
	CrmReading *reading = &of->reading;
	JsonbValue *value = crm_object_require(reading, stage, "touchpoints");
	int n = 0;
	JsonbValue *elements = value == NULL ? NULL : crm_array_open(reading, "touchpoints", value, &n);
	int before = crm_path_enter(reading, "touchpoints");

	for (int i = 0; i < n; i++)
	{
		int outside = crm_path_enter_place(reading, i);
		char *name = crm_read_text(reading, NULL, &elements[i], MAX_NAME_BYTES);

		if (name != NULL && is_among(*drawn, name))
			crm_fault(reading, "touchpoint \"%s\" stands on the map already", crm_shown(name));
		else if (name != NULL)
		{
			if (of->names_too && !is_among(of->known_touchpoints, name))
				crm_fault(reading, "touchpoint \"%s\" does not exist", crm_shown(name));
			else if (is_among(of->complaints, name))
				crm_fault(
					reading,
					"touchpoint \"%s\" is a complaint, which counts against the one before it",
					crm_shown(name));
			*drawn = lappend(*drawn, name);
		}
		crm_path_leave(reading, outside);
	}
	crm_path_leave(reading, before);
}

static List *
read_stages(MapReading *of, CrmObject *object)
{
	CrmReading *reading = &of->reading;
	JsonbValue *value = crm_object_require(reading, object, "stages");
	int n = 0;
	JsonbValue *elements = value == NULL ? NULL : crm_array_open(reading, "stages", value, &n);
	int before = crm_path_enter(reading, "stages");
	List *names = NIL;
	List *drawn = NIL;

	if (elements != NULL && n == 0)
		crm_fault(reading, "is empty: a map has at least one stage");
	for (int i = 0; i < n; i++)
	{
		int outside = crm_path_enter_place(reading, i);
		CrmObject stage;

		if (crm_object_open(reading, &elements[i], &stage))
		{
			const char *name = read_name(reading, &stage, "name");

			if (name != NULL && is_among(names, name))
				crm_fault_at(reading, "name", "stage \"%s\" comes twice", crm_shown(name));
			else if (name != NULL)
				names = lappend(names, unconstify(char *, name));
			(void) read_words(reading, &stage, "label");
			(void) read_words(reading, &stage, "description");
			read_touchpoints(of, &stage, &drawn);
			crm_object_close(reading, &stage);
		}
		crm_path_leave(reading, outside);
	}
	crm_path_leave(reading, before);
	return drawn;
}

static const char *
read_end(CrmReading *reading, CrmObject *object, const char *key, List *drawn)
{
	const char *name = read_name(reading, object, key);

	if (name != NULL && !is_among(drawn, name))
	{
		crm_fault_at(reading, key, "touchpoint \"%s\" stands in no stage of the map",
					 crm_shown(name));
		return NULL;
	}
	return name;
}

static void
read_transitions(CrmReading *reading, CrmObject *object, List *drawn)
{
	JsonbValue *value = crm_object_offer(reading, object, "transitions");
	int n = 0;
	JsonbValue *elements = value == NULL ? NULL : crm_array_open(reading, "transitions", value, &n);
	int before = crm_path_enter(reading, "transitions");
	List *seen = NIL;

	for (int i = 0; i < n; i++)
	{
		int outside = crm_path_enter_place(reading, i);
		CrmObject transition;

		if (crm_object_open(reading, &elements[i], &transition))
		{
			const char *from = read_end(reading, &transition, "from", drawn);
			const char *to = read_end(reading, &transition, "to", drawn);
			/* its length says where the first name ends */
			char *pair = from == NULL || to == NULL ? NULL
													: psprintf("%zu %s %s", strlen(from), from, to);

			if (pair != NULL && strcmp(from, to) == 0)
				crm_fault(reading, "leads from \"%s\" to itself", crm_shown(from));
			else if (pair != NULL && is_among(seen, pair))
				crm_fault(reading, "\"%s\" to \"%s\" comes twice", crm_shown(from), crm_shown(to));
			else if (pair != NULL)
				seen = lappend(seen, pair);
			(void) read_words(reading, &transition, "label");
			(void) read_words(reading, &transition, "description");
			crm_object_close(reading, &transition);
		}
		crm_path_leave(reading, outside);
	}
	crm_path_leave(reading, before);
}

static void
read_map(MapReading *of, const JsonbValue *root)
{
	CrmReading *reading = &of->reading;
	CrmMap *map = of->map;
	Interval *within = palloc0(sizeof(Interval));
	JsonbValue *value;
	CrmObject object;
	List *drawn;
	ListCell *cell;

	within->day = DEFAULT_WITHIN_DAYS;
	map->within = within;
	if (!crm_object_open(reading, root, &object))
		return;
	map->name = read_name(reading, &object, "map");
	(void) read_words(reading, &object, "label");
	(void) read_words(reading, &object, "description");
	if ((value = crm_object_offer(reading, &object, "within")) != NULL &&
		(within = crm_read_interval(reading, "within", value, 1)) != NULL)
		map->within = within;
	read_weights(reading, &object);
	read_personas(of, &object);
	read_goals(of, &object);
	drawn = read_stages(of, &object);
	map->touchpoints = palloc_array(const char *, Max(list_length(drawn), 1));
	foreach(cell, drawn)
		map->touchpoints[map->ntouchpoints++] = lfirst(cell);
	read_transitions(reading, &object, drawn);
	crm_object_close(reading, &object);
}

CrmMap *
crm_map_load(Jsonb *document, bool names_too, MemoryContext context, List **faults)
{
	static CrmPlan list_touchpoints = { "SELECT t.name FROM crm.touchpoint t", 0 };
	static CrmPlan list_complaints = { "SELECT t.name FROM crm.touchpoint t WHERE t.complaint", 0 };
	static CrmPlan list_personas = { "SELECT p.name FROM crm.persona p", 0 };
	MapReading of = { .names_too = names_too };
	JsonbValue root = crm_document_root(document);

	if (names_too)
	{
		of.known_touchpoints = read_names(&list_touchpoints, context);
		of.complaints = read_names(&list_complaints, context);
		of.known_personas = read_names(&list_personas, context);
	}
	crm_reading_begin(&of.reading, context);
	of.map = palloc0(sizeof(CrmMap));
	read_map(&of, &root);
	*faults = crm_reading_end(&of.reading);
	return of.map;
}
