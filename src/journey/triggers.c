/*
 * triggers.c
 *		Rules, and what lets in, is waited for, or ends a journey.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "journey/journey.h"
#include "journey/reading.h"
#include "pg_crm.h"

/* in place of a rule that cannot be read: it counts as false */
#define NEVER "false"

/* when who has a date enters, unless the document says so */
#define DEFAULT_MINUTE (10 * MINS_PER_HOUR)

static List *
copy_names(List *names)
{
	List *copy = NIL;
	ListCell *cell;

	foreach(cell, names)
		copy = lappend(copy, pstrdup(lfirst(cell)));
	return copy;
}

typedef struct RuleReading
{
	CrmReading *reading;
	const char *text;
	CrmRuleTime time;
	CrmRuleReads *reads;
	CrmFactRule *compiled;
} RuleReading;

static bool
read_profile_rule(void *arg)
{
	RuleReading *rule = arg;
	CrmRuleReads *reads;

	MemoryContextSwitchTo(rule->reading->scratch);
	reads = crm_rule_reads(rule->text);
	rule->time = crm_rule_time(rule->text);
	MemoryContextSwitchTo(rule->reading->context);
	rule->reads = palloc0(sizeof(CrmRuleReads));
	rule->reads->topics = reads->topics;
	rule->reads->kinds = copy_names(reads->kinds);
	rule->reads->columns = copy_names(reads->columns);
	rule->reads->segments = copy_names(reads->segments);
	return true;
}

static bool
read_fact_rule(void *arg)
{
	RuleReading *rule = arg;

	MemoryContextSwitchTo(rule->reading->context);
	rule->compiled = crm_fact_rule_compile(rule->text);
	return true;
}

/* The fault of a rule, with the hint of the rule language. */
static void
add_rule_fault(CrmReading *reading, const char *key, const ErrorData *error)
{
	if (error->hint != NULL)
		crm_fault_at(reading, key, "%s (%s)", crm_error_text(error), error->hint);
	else
		crm_fault_at(reading, key, "%s", crm_error_text(error));
}

static bool
try_rule(CrmReading *reading, const char *key, bool (*work)(void *arg), RuleReading *rule)
{
	ErrorData *error;
	bool done = crm_attempt(work, rule, &error);

	MemoryContextSwitchTo(reading->context);
	MemoryContextReset(reading->scratch);
	if (done)
		return true;
	if (!crm_rule_is_broken(error))
		ReThrowError(error);
	add_rule_fault(reading, key, error);
	FreeErrorData(error);
	return false;
}

bool
crm_read_rule(CrmReading *reading, const char *key, const JsonbValue *value, const char **text,
			  CrmRuleTime *time, const CrmRuleReads **reads)
{
	RuleReading rule = { .reading = reading };

	*text = NEVER;
	*time = CRM_TIME_NONE;
	if (reads != NULL)
		*reads = palloc0(sizeof(CrmRuleReads));
	rule.text = crm_read_text(reading, key, value, CRM_MAX_DOCUMENT_BYTES);
	if (rule.text == NULL || !try_rule(reading, key, read_profile_rule, &rule))
		return false;
	*text = rule.text;
	*time = rule.time;
	if (reads != NULL)
		*reads = rule.reads;
	return true;
}

bool
crm_read_fact_rule(CrmReading *reading, const char *key, const JsonbValue *value,
				   CrmFactRule **compiled)
{
	RuleReading rule = { .reading = reading };

	rule.text = crm_read_text(reading, key, value, CRM_MAX_DOCUMENT_BYTES);
	if (rule.text == NULL || !try_rule(reading, key, read_fact_rule, &rule))
		return false;
	*compiled = rule.compiled;
	return true;
}

bool
crm_read_branch_rule(CrmReading *reading, const char *key, const JsonbValue *value,
					 const char **text, CrmFactRule **fact)
{
	RuleReading rule = { .reading = reading };
	CrmRuleTime ignored;

	*text = NEVER;
	*fact = NULL;
	rule.text = crm_read_text(reading, key, value, CRM_MAX_DOCUMENT_BYTES);
	if (rule.text == NULL)
		return false;
	/* as a rule over both means the same of the profile, a mere mention does no harm */
	if (strstr(rule.text, "fact.") == NULL)
		return crm_read_rule(reading, key, value, text, &ignored, NULL);
	if (!try_rule(reading, key, read_fact_rule, &rule))
		return false;
	*text = rule.text;
	*fact = rule.compiled;
	return true;
}

/* how a key beside "on" becomes a condition */
typedef enum Condition
{
	BY_COLUMN,   /* name = 'text', or IS NULL */
	BY_NUMBER,   /* name = number */
	BY_PROPERTY, /* fact.properties ->> 'key' = 'text' */
	BY_CONTENT   /* fact.properties holds the number */
} Condition;

/* on which kinds */
#define ON_FACTS   "facts" /* every kind but signals */
#define ON_CHANGES "field_change"
#define ON_SEGMENT "segment"

static const struct
{
	CrmTriggerKey shown;
	Condition condition;
	const char *name;      /* of the column */
	const char *on;        /* the kind, or one of the above */
	const char *reference; /* NULL: no name of something defined */
} conditions[] = {
	{ { "campaign", "text", "Of the code that was scanned." },
	  BY_COLUMN,
	  "fact.campaign",
	  ON_FACTS },
	{ { "store_id", "number", "Of the order, or of the code that was scanned." },
	  BY_NUMBER,
	  "fact.store_id",
	  ON_FACTS },
	{ { "qr_code_id", "number", "Of the code that was scanned." },
	  BY_NUMBER,
	  "fact.qr_code_id",
	  ON_FACTS },
	{ { "external_ref", "text", "Of the order." }, BY_COLUMN, "fact.external_ref", ON_FACTS },
	{ { "field", "text", "Of field_change: the column that changed." },
	  BY_COLUMN,
	  "field",
	  ON_CHANGES },
	{ { "old", "text or null", "Of field_change: the value before, as text." },
	  BY_COLUMN,
	  "old",
	  ON_CHANGES },
	{ { "new", "text or null", "Of field_change: the value after, as text." },
	  BY_COLUMN,
	  "new",
	  ON_CHANGES },
	{ { "stage", "stage", "Of stage_move: where the contact is now." },
	  BY_PROPERTY,
	  "stage",
	  CRM_SIGNAL_STAGE,
	  "stage" },
	{ { "segment", "segment", "Of segment_entered and segment_left." },
	  BY_PROPERTY,
	  "segment",
	  ON_SEGMENT,
	  "segment" },
	{ { "achievement", "achievement", "Of award." },
	  BY_PROPERTY,
	  "achievement",
	  CRM_SIGNAL_AWARD,
	  "achievement" },
	{ { "threshold", "number", "Of award." }, BY_CONTENT, "threshold", CRM_SIGNAL_AWARD },
	{ { "coupon", "coupon", "Of an event with this property." },
	  BY_PROPERTY,
	  "coupon",
	  ON_FACTS,
	  "coupon" },
	{ { "program", "loyalty program", "Of an event with this property." },
	  BY_PROPERTY,
	  "program",
	  ON_FACTS,
	  "program" },
};

const CrmTriggerKey *
crm_trigger_keys(int *n)
{
	static CrmTriggerKey keys[lengthof(conditions) + 1];

	keys[0] = (CrmTriggerKey){ "when", "rule", "A rule over the fact and the profile." };
	for (int i = 0; i < lengthof(conditions); i++)
		keys[i + 1] = conditions[i].shown;
	*n = lengthof(keys);
	return keys;
}

static bool
is_signal(const char *kind)
{
	return strcmp(kind, CRM_SIGNAL_STAGE) == 0 || strcmp(kind, CRM_SIGNAL_AWARD) == 0 ||
		strcmp(kind, CRM_SIGNAL_SEGMENT_ENTER) == 0 || strcmp(kind, CRM_SIGNAL_SEGMENT_LEAVE) == 0;
}

static bool
goes_with(const char *on, const char *kind)
{
	if (strcmp(on, ON_FACTS) == 0)
		return !is_signal(kind);
	if (strcmp(on, ON_SEGMENT) == 0)
		return strcmp(kind, CRM_SIGNAL_SEGMENT_ENTER) == 0 ||
			strcmp(kind, CRM_SIGNAL_SEGMENT_LEAVE) == 0;
	return strcmp(on, kind) == 0;
}

static const char *
kinds_for(const char *on)
{
	return strcmp(on, ON_FACTS) == 0  ? "facts"
		: strcmp(on, ON_SEGMENT) == 0 ? CRM_SIGNAL_SEGMENT_ENTER " and " CRM_SIGNAL_SEGMENT_LEAVE
									  : on;
}

static bool
is_whole(Numeric number)
{
	Datum datum = NumericGetDatum(number);

	return DatumGetBool(
		DirectFunctionCall2(numeric_eq, datum,
							DirectFunctionCall2(numeric_trunc, datum, Int32GetDatum(0))));
}

/* The condition of a key, NULL where its value is a fault. */
static char *
condition_of(CrmReading *reading, int place, const JsonbValue *value)
{
	const char *key = conditions[place].shown.key;
	const char *name = conditions[place].name;

	switch (conditions[place].condition)
	{
		case BY_COLUMN:
		case BY_PROPERTY:
		{
			bool nullable = strcmp(conditions[place].on, ON_CHANGES) == 0 &&
				strcmp(key, "field") != 0;
			char *text;

			if (value->type == jbvNull && nullable)
				return psprintf("%s IS NULL", name);
			text = crm_read_text(reading, key, value, CRM_MAX_DOCUMENT_BYTES);
			if (text == NULL)
				return NULL;
			if (conditions[place].reference != NULL)
				crm_reference(reading, conditions[place].reference, text, NULL, key,
							  psprintf("%s \"%s\" does not exist",
									   strcmp(conditions[place].reference, "program") == 0
										   ? "loyalty program"
										   : conditions[place].reference,
									   crm_shown(text)));
			if (conditions[place].condition == BY_COLUMN)
				return psprintf("%s = %s", name, quote_literal_cstr(text));
			return psprintf("fact.properties ->> '%s' = %s", name, quote_literal_cstr(text));
		}
		case BY_NUMBER:
		case BY_CONTENT:
		{
			Numeric number = crm_read_number(reading, key, value);

			if (number == NULL)
				return NULL;
			if (conditions[place].condition == BY_CONTENT)
				return psprintf("fact.properties @> '{\"%s\": %s}'", name,
								numeric_normalize(number));
			if (!is_whole(number) ||
				DatumGetBool(
					DirectFunctionCall2(numeric_gt,
										DirectFunctionCall1(numeric_abs, NumericGetDatum(number)),
										NumericGetDatum(int64_to_numeric(PG_INT64_MAX)))))
			{
				crm_fault_at(reading, key, "%s is no id", crm_shown(numeric_normalize(number)));
				return NULL;
			}
			return psprintf("%s = %s", name,
							DatumGetCString(
								DirectFunctionCall1(numeric_out,
													DirectFunctionCall2(numeric_trunc,
																		NumericGetDatum(number),
																		Int32GetDatum(0)))));
		}
	}
	return NULL;
}

/* The rule and the conditions of an object in which "on" has been read. */
static void
read_conditions(CrmReading *reading, CrmObject *object, CrmTrigger *trigger)
{
	RuleReading rule = { .reading = reading };
	RuleReading all = { .reading = reading };
	JsonbValue *when = crm_object_offer(reading, object, "when");
	bool sound = true;
	int nconditions = 0;
	StringInfoData text;

	initStringInfo(&text);
	if (when != NULL)
	{
		rule.text = crm_read_text(reading, "when", when, CRM_MAX_DOCUMENT_BYTES);
		sound = rule.text != NULL && try_rule(reading, "when", read_fact_rule, &rule);
		if (sound)
			appendStringInfo(&text, "(%s\n)", rule.text);
	}
	for (int i = 0; i < lengthof(conditions); i++)
	{
		const char *key = conditions[i].shown.key;
		JsonbValue *value = crm_object_take(object, key);
		char *condition;

		if (value == NULL)
			continue;
		if (trigger->on != NULL && !goes_with(conditions[i].on, trigger->on))
			crm_fault_at(reading, key, "goes with %s, not with \"%s\"", kinds_for(conditions[i].on),
						 crm_shown(trigger->on));
		condition = condition_of(reading, i, value);
		if (condition == NULL)
		{
			sound = false;
			continue;
		}
		appendStringInfo(&text, "%s%s", text.len > 0 ? " AND " : "", condition);
		nconditions++;
	}
	all.text = text.data;
	if (!sound || (nconditions > 0 && !try_rule(reading, "on", read_fact_rule, &all)))
	{
		all.text = NEVER;
		(void) try_rule(reading, "on", read_fact_rule, &all);
		trigger->when = all.compiled;
	}
	else
		trigger->when = nconditions > 0 ? all.compiled : rule.compiled;
}

/* What brings people into a journey without a fact. */
static bool
is_of_entries(const char *kind)
{
	return strcmp(kind, "date") == 0 || strcmp(kind, "schedule") == 0 || strcmp(kind, "api") == 0 ||
		strcmp(kind, "journey") == 0;
}

static const char *
read_kind(CrmReading *reading, CrmObject *object)
{
	JsonbValue *on = crm_object_require(reading, object, "on");

	return on == NULL ? NULL : crm_read_text(reading, "on", on, CRM_MAX_KIND_BYTES);
}

void
crm_read_trigger(CrmReading *reading, CrmObject *object, CrmTrigger *trigger)
{
	trigger->on = read_kind(reading, object);
	if (trigger->on != NULL && is_of_entries(trigger->on))
		crm_fault_at(reading, "on", "\"%s\" only lets in: it is no fact", trigger->on);
	read_conditions(reading, object, trigger);
	if (trigger->on == NULL)
		trigger->on = "";
}

static void
read_leap_day(CrmReading *reading, const JsonbValue *value, CrmTimedEntry *timed)
{
	char *text = crm_read_text(reading, "leap_day", value, CRM_MAX_KEY_BYTES);

	if (text == NULL)
		return;
	if (strcmp(text, "feb28") == 0)
		timed->leap_day = 28;
	else if (strcmp(text, "mar1") == 0)
		timed->leap_day = 1;
	else if (strcmp(text, "skip") == 0)
		timed->leap_day = 0;
	else
		crm_fault_at(reading, "leap_day", "\"%s\" is not feb28, mar1 or skip", crm_shown(text));
}

static void
read_date_entry(CrmReading *reading, CrmObject *object, CrmTimedEntry *timed)
{
	JsonbValue *value = crm_object_require(reading, object, "property");
	CrmRuleTime ignored;

	timed->by_date = true;
	timed->property = value == NULL ? NULL
									: crm_read_text(reading, "property", value, CRM_MAX_KEY_BYTES);
	timed->property_type = timed->property == NULL ? InvalidOid : crm_profile_date(timed->property);
	if (timed->property != NULL && !OidIsValid(timed->property_type))
		crm_fault_at(reading, "property",
					 "\"%s\" is no column of crm.profile of type date or timestamptz",
					 crm_shown(timed->property));
	if ((value = crm_object_offer(reading, object, "offset")) != NULL)
		timed->offset = crm_read_interval(reading, "offset", value, -1);
	timed->minute_of_day = timed->property_type == TIMESTAMPTZOID ? -1 : DEFAULT_MINUTE;
	if ((value = crm_object_offer(reading, object, "at")) != NULL)
		timed->minute_of_day = crm_read_time_of_day(reading, "at", value);
	timed->yearly = timed->property_type != TIMESTAMPTZOID;
	if ((value = crm_object_offer(reading, object, "yearly")) != NULL)
		(void) crm_read_bool(reading, "yearly", value, &timed->yearly);
	timed->leap_day = 28;
	if ((value = crm_object_offer(reading, object, "leap_day")) != NULL)
		read_leap_day(reading, value, timed);
	if ((value = crm_object_offer(reading, object, "when")) != NULL)
		(void) crm_read_rule(reading, "when", value, &timed->audience, &ignored, NULL);
}

/* The beginning of the day in the zone. */
static TimestampTz
midnight_before(TimestampTz at, const pg_tz *zone)
{
	return DatumGetTimestampTz(
		DirectFunctionCall3(timestamptz_trunc_zone, CStringGetTextDatum("day"),
							TimestampTzGetDatum(at),
							CStringGetTextDatum(pg_get_timezone_name(unconstify(pg_tz *, zone)))));
}

static void
read_schedule_entry(CrmReading *reading, CrmObject *object, CrmTimedEntry *timed)
{
	JsonbValue *value = crm_object_require(reading, object, "every");
	CrmRuleTime ignored;

	if (value != NULL)
	{
		Interval *every = crm_read_interval(reading, "every", value, 1);

		if (every != NULL && every->month == 0 && every->day == 0 && every->time < USECS_PER_MINUTE)
			crm_fault_at(reading, "every", "is less than a minute");
		timed->every = every;
	}
	timed->start = midnight_before(reading->published_at, reading->journey->zone);
	if ((value = crm_object_offer(reading, object, "start")) != NULL)
		(void) crm_read_instant(reading, "start", value, &timed->start);
	if ((value = crm_object_offer(reading, object, "hours")) != NULL)
		timed->hours = crm_read_hours(reading, "hours", value);
	if ((value = crm_object_offer(reading, object, "audience")) != NULL)
		(void) crm_read_rule(reading, "audience", value, &timed->audience, &ignored, NULL);
}

void
crm_read_entry(CrmReading *reading, const JsonbValue *value, CrmEntry *entry)
{
	CrmObject object;

	entry->trigger.on = "";
	if (!crm_object_open(reading, value, &object))
		return;
	entry->trigger.on = read_kind(reading, &object);
	if (entry->trigger.on != NULL &&
		(strcmp(entry->trigger.on, "date") == 0 || strcmp(entry->trigger.on, "schedule") == 0))
	{
		entry->timed = palloc0(sizeof(CrmTimedEntry));
		if (strcmp(entry->trigger.on, "date") == 0)
			read_date_entry(reading, &object, entry->timed);
		else
			read_schedule_entry(reading, &object, entry->timed);
	}
	else
		read_conditions(reading, &object, &entry->trigger);
	if (entry->trigger.on == NULL)
		entry->trigger.on = "";
	crm_object_close(reading, &object);
}

static void
read_ending_trigger(CrmReading *reading, const JsonbValue *value, CrmTrigger *trigger)
{
	CrmObject object;

	trigger->on = "";
	if (!crm_object_open(reading, value, &object))
		return;
	crm_read_trigger(reading, &object, trigger);
	crm_object_close(reading, &object);
}

CrmEnding *
crm_read_ending(CrmReading *reading, const char *key, const JsonbValue *value)
{
	CrmEnding *ending = palloc0(sizeof(CrmEnding));
	int before;

	if (value->type == jbvString)
	{
		(void) crm_read_rule(reading, key, value, &ending->rule, &ending->time, &ending->reads);
		return ending;
	}
	if (value->type != jbvBinary)
	{
		crm_fault_at(reading, key, "is %s, not a rule, a trigger or an array of triggers",
					 crm_json_type(value));
		return NULL;
	}
	before = crm_path_enter(reading, key);
	if (JsonContainerIsArray(value->val.binary.data))
	{
		int n;
		JsonbValue *elements = crm_array_open(reading, NULL, value, &n);

		if (n == 0)
			crm_fault(reading, "is empty; leave it out instead");
		ending->ntriggers = n;
		ending->triggers = palloc0_array(CrmTrigger, Max(n, 1));
		for (int i = 0; i < n; i++)
		{
			int outside = crm_path_enter_place(reading, i);

			read_ending_trigger(reading, &elements[i], &ending->triggers[i]);
			crm_path_leave(reading, outside);
		}
	}
	else
	{
		ending->ntriggers = 1;
		ending->triggers = palloc0(sizeof(CrmTrigger));
		read_ending_trigger(reading, value, ending->triggers);
	}
	crm_path_leave(reading, before);
	return ending;
}
