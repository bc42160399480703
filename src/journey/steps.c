/*
 * steps.c
 *		Reading steps: each key as the table of its kind says.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "journey/reading.h"
#include "outbox/template.h"
#include "pg_crm.h"

#define MAX_STEPS    1000
#define MAX_BRANCHES 50
#define MIN_ARMS     2
#define MAX_ARMS     20

void
crm_read_edge(CrmReading *reading, const char *key, const JsonbValue *value, int *next)
{
	char *name;

	*next = CRM_NO_STEP;
	if (value == NULL || value->type == jbvNull)
		return;
	name = crm_read_text(reading, key, value, CRM_MAX_DOCUMENT_BYTES);
	if (name == NULL)
		return;
	*next = crm_step_find(reading->journey, name);
	if (*next == CRM_NO_STEP)
		crm_fault_at(reading, key, "step \"%s\" does not exist", crm_shown(name));
}

typedef struct Checked
{
	CrmReading *reading;
	Jsonb *jsonb;
} Checked;

static bool
check_places(void *arg)
{
	Checked *checked = arg;

	crm_template_check_places(checked->jsonb);
	return true;
}

/* An object whose strings may have places. */
static Jsonb *
read_filled(CrmReading *reading, const char *key, const JsonbValue *value)
{
	Checked checked = { reading };
	ErrorData *error;

	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
	{
		crm_fault_at(reading, key, "is %s, not an object", crm_json_type(value));
		return NULL;
	}
	checked.jsonb = JsonbValueToJsonb(unconstify(JsonbValue *, value));
	if (crm_template_has_places(checked.jsonb) && !crm_attempt(check_places, &checked, &error))
	{
		if (!crm_rule_is_broken(error))
			ReThrowError(error);
		crm_fault_at(reading, key, "%s", error->message);
		FreeErrorData(error);
	}
	return checked.jsonb;
}

static Jsonb *
read_columns(CrmReading *reading, const char *key, const JsonbValue *value)
{
	Jsonb *fields = read_filled(reading, key, value);
	int before = crm_path_enter(reading, key);
	CrmObject object;

	if (fields != NULL && crm_object_open(reading, value, &object))
	{
		if (object.n == 0)
			crm_fault(reading, "is empty");
		for (int i = 0; i < object.n; i++)
		{
			int32 typmod;
			bool not_null;
			Oid type = crm_contact_column(object.keys[i], &typmod, &not_null);
			char *fault;

			if (!OidIsValid(type))
				crm_fault_at(reading, object.keys[i],
							 "is no column of crm.contact that a step may set");
			else if ((fault = crm_value_fault(&object.values[i], type, typmod, not_null)) != NULL)
				crm_fault_at(reading, object.keys[i], "%s", fault);
		}
	}
	crm_path_leave(reading, before);
	return fields;
}

static const char **
read_texts(CrmReading *reading, const char *key, const JsonbValue *value, int *n)
{
	JsonbValue *elements = crm_array_open(reading, key, value, n);
	const char **texts = palloc0_array(const char *, Max(*n, 1));
	int before = crm_path_enter(reading, key);

	if (elements != NULL && *n == 0)
		crm_fault(reading, "is empty");
	for (int i = 0; i < *n; i++)
	{
		int outside = crm_path_enter_place(reading, i);

		texts[i] = crm_read_text(reading, NULL, &elements[i], CRM_MAX_KEY_BYTES);
		if (texts[i] == NULL)
			texts[i] = "";
		crm_path_leave(reading, outside);
	}
	crm_path_leave(reading, before);
	return texts;
}

static void
read_branches(CrmReading *reading, const char *key, const JsonbValue *value, CrmStep *step)
{
	JsonbValue *elements = crm_array_open(reading, key, value, &step->nbranches);
	int before = crm_path_enter(reading, key);

	if (elements != NULL && (step->nbranches < 1 || step->nbranches > MAX_BRANCHES))
		crm_fault(reading, "has %d elements, not 1 to %d", step->nbranches, MAX_BRANCHES);
	step->branches = palloc0_array(CrmBranch, Max(step->nbranches, 1));
	for (int i = 0; i < step->nbranches; i++)
	{
		int outside = crm_path_enter_place(reading, i);
		CrmBranch *branch = &step->branches[i];
		CrmObject object;

		branch->outcome = psprintf("%d", i + 1);
		branch->when = "false";
		branch->next = CRM_NO_STEP;
		if (crm_object_open(reading, &elements[i], &object))
		{
			JsonbValue *when = crm_object_require(reading, &object, "when");

			if (when != NULL)
				(void) crm_read_branch_rule(reading, "when", when, &branch->when, &branch->fact);
			crm_read_edge(reading, "next", crm_object_take(&object, "next"), &branch->next);
			crm_object_close(reading, &object);
		}
		crm_path_leave(reading, outside);
	}
	crm_path_leave(reading, before);
}

static double
read_weight(CrmReading *reading, CrmObject *object)
{
	JsonbValue *value = crm_object_require(reading, object, "weight");
	Numeric number = value == NULL ? NULL : crm_read_number(reading, "weight", value);
	double weight;

	if (number == NULL)
		return 0;
	weight = DatumGetFloat8(
		DirectFunctionCall1(numeric_float8_no_overflow, NumericGetDatum(number)));
	if (weight > 0 && weight <= 1e9)
		return weight;
	crm_fault_at(reading, "weight", "%s is not above 0 and at most 1000000000",
				 crm_shown(numeric_normalize(number)));
	return 0;
}

static void
read_arms(CrmReading *reading, const char *key, const JsonbValue *value, CrmStep *step)
{
	int before = crm_path_enter(reading, key);
	double all = 0;
	CrmObject object;

	if (crm_object_open(reading, value, &object) && (object.n < MIN_ARMS || object.n > MAX_ARMS))
		crm_fault(reading, "has %d members, not %d to %d", object.n, MIN_ARMS, MAX_ARMS);
	step->narms = object.n;
	step->arms = palloc0_array(CrmArm, Max(object.n, 1));
	for (int i = 0; i < object.n; i++)
	{
		int outside = crm_path_enter(reading, object.keys[i]);
		CrmArm *arm = &step->arms[i];
		CrmObject parts;

		arm->name = object.keys[i];
		arm->next = CRM_NO_STEP;
		if (strlen(arm->name) > CRM_MAX_JOURNEY_NAME || *arm->name == '\0')
			crm_fault(reading, "name has %zu bytes, not 1 to %d", strlen(arm->name),
					  CRM_MAX_JOURNEY_NAME);
		if (crm_object_open(reading, &object.values[i], &parts))
		{
			arm->weight = read_weight(reading, &parts);
			crm_read_edge(reading, "next", crm_object_take(&parts, "next"), &arm->next);
			crm_object_close(reading, &parts);
		}
		all += arm->weight;
		crm_path_leave(reading, outside);
	}
	for (int i = 0; i < step->narms && all > 0; i++)
		step->arms[i].weight /= all;
	crm_path_leave(reading, before);
}

/* A member of what the contact carries: entry.x or context.x. */
static bool
is_carried(const char *name, bool entry)
{
	return (entry && strncmp(name, "entry.", 6) == 0 && name[6] != '\0') ||
		(strncmp(name, "context.", 8) == 0 && name[8] != '\0');
}

static void
read_date(CrmReading *reading, const char *key, const JsonbValue *value, CrmStep *step)
{
	step->date = crm_read_text(reading, key, value, CRM_MAX_KEY_BYTES);
	if (step->date == NULL || is_carried(step->date, true))
		return;
	step->date_type = crm_profile_date(step->date);
	if (!OidIsValid(step->date_type))
		crm_fault_at(reading, key,
					 "\"%s\" is no column of crm.profile of type date or timestamptz, nor entry.x"
					 " or context.x",
					 crm_shown(step->date));
}

/* What a reply is of, where the document does not say so. */
static const char *
natural_reply(const char *field)
{
	int32 typmod;
	bool not_null;

	if (strcmp(field, "mobile") == 0)
		return "mobile";
	return crm_contact_column(field, &typmod, &not_null) == DATEOID ? "date" : "text";
}

static void
read_asked(CrmReading *reading, const char *key, const JsonbValue *value, CrmStep *step)
{
	int32 typmod;
	bool not_null;

	step->field = crm_read_text(reading, key, value, CRM_MAX_KEY_BYTES);
	if (step->field == NULL)
		return;
	step->reply = natural_reply(step->field);
	if (is_carried(step->field, false) &&
		(strcmp(step->field, "context.entry") == 0 || strpbrk(step->field + 8, ".{}|") != NULL))
		crm_fault_at(reading, key, "\"%s\" is no name for a member of the context",
					 crm_shown(step->field + 8));
	if (strcmp(step->field, "mobile") != 0 && !is_carried(step->field, false) &&
		!OidIsValid(crm_contact_column(step->field, &typmod, &not_null)))
		crm_fault_at(reading, key,
					 "\"%s\" is neither mobile nor a column of crm.contact that a step may set,"
					 " nor context.x",
					 crm_shown(step->field));
}

static const char *
read_one_of(CrmReading *reading, const char *key, const JsonbValue *value,
			const char *const *options, int noptions)
{
	char *text = crm_read_text(reading, key, value, CRM_MAX_KEY_BYTES);
	StringInfoData known;

	if (text == NULL)
		return NULL;
	initStringInfo(&known);
	for (int i = 0; i < noptions; i++)
	{
		if (strcmp(text, options[i]) == 0)
			return options[i];
		appendStringInfo(&known, "%s%s",
						 i == 0                  ? ""
							 : i == noptions - 1 ? " or "
												 : ", ",
						 options[i]);
	}
	crm_fault_at(reading, key, "\"%s\" is not %s", crm_shown(text), known.data);
	return NULL;
}

static char *
read_reference(CrmReading *reading, const CrmStepField *field, const JsonbValue *value,
			   const char *kind, const char *noun)
{
	char *name = crm_read_text(reading, field->key, value, CRM_MAX_KEY_BYTES);

	if (name == NULL)
		return NULL;
	if (strcmp(kind, "journey") != 0 || reading->journey->name == NULL ||
		strcmp(name, reading->journey->name) != 0)
		crm_reference(reading, kind, name, NULL, field->key,
					  psprintf("%s \"%s\" does not exist", noun, crm_shown(name)));
	return name;
}

static void
read_member(CrmReading *reading, const char *key, const JsonbValue *value, const char **name)
{
	*name = crm_read_text(reading, key, value, CRM_MAX_JOURNEY_NAME);
	if (*name != NULL && (strcmp(*name, "entry") == 0 || strpbrk(*name, ".{}|") != NULL))
		crm_fault_at(reading, key, "\"%s\" is no name for a member of the context", *name);
}

static void
read_field(CrmReading *reading, const CrmStepField *field, const JsonbValue *value, CrmStep *step)
{
	static const char *const since[] = { "entry", "step" };
	static const char *const replies[] = { "mobile", "date", "choice", "text" };
	void *place = (char *) step + field->offset;
	const char *key = field->key;

	switch (field->type)
	{
		case CRM_FIELD_STEP:
		case CRM_FIELD_DEFAULT:
			crm_read_edge(reading, key, value, place);
			break;
		case CRM_FIELD_TEXT:
		{
			char *text = crm_read_text(reading, key, value, CRM_MAX_DOCUMENT_BYTES);

			if (field->offset != 0)
				*(const char **) place = text;
			break;
		}
		case CRM_FIELD_MEMBER:
			read_member(reading, key, value, place);
			break;
		case CRM_FIELD_TEMPLATE:
			*(const char **) place = read_reference(reading, field, value, "template", "template");
			break;
		case CRM_FIELD_WEBHOOK:
			*(const char **) place = read_reference(reading, field, value, "webhook",
													"template of channel webhook");
			break;
		case CRM_FIELD_ACHIEVEMENT:
			*(const char **) place = read_reference(reading, field, value, "achievement",
													"achievement");
			break;
		case CRM_FIELD_STAGE:
			*(const char **) place = read_reference(reading, field, value, "stage", "stage");
			break;
		case CRM_FIELD_COUPON:
			*(const char **) place = read_reference(reading, field, value, "coupon", "coupon");
			break;
		case CRM_FIELD_PROGRAM:
			*(const char **) place = read_reference(reading, field, value, "program",
													"loyalty program");
			break;
		case CRM_FIELD_JOURNEY:
			*(const char **) place = read_reference(reading, field, value, "journey", "journey");
			break;
		case CRM_FIELD_INTERVAL:
			*(const Interval **) place = crm_read_interval(reading, key, value, 1);
			break;
		case CRM_FIELD_DELAY:
			*(const Interval **) place = crm_read_interval(reading, key, value, 0);
			break;
		case CRM_FIELD_OFFSET:
			*(const Interval **) place = crm_read_interval(reading, key, value, -1);
			break;
		case CRM_FIELD_INSTANT:
			(void) crm_read_instant(reading, key, value, place);
			break;
		case CRM_FIELD_DATE:
			read_date(reading, key, value, step);
			break;
		case CRM_FIELD_TIME_OF_DAY:
			*(int *) place = crm_read_time_of_day(reading, key, value);
			break;
		case CRM_FIELD_HOURS:
			*(const CrmWeeklyHours **) place = crm_read_hours(reading, key, value);
			break;
		case CRM_FIELD_TRIGGER:
			break; /* read with the keys beside it */
		case CRM_FIELD_SINCE:
		{
			const char *text = read_one_of(reading, key, value, since, lengthof(since));

			*(bool *) place = text != NULL && strcmp(text, "step") == 0;
			break;
		}
		case CRM_FIELD_RULE:
			(void) crm_read_rule(reading, key, value, &step->rule, &step->time, &step->reads);
			break;
		case CRM_FIELD_ASKED:
			read_asked(reading, key, value, step);
			break;
		case CRM_FIELD_REPLY:
		{
			const char *text = read_one_of(reading, key, value, replies, lengthof(replies));

			if (text != NULL)
				step->reply = text;
			break;
		}
		case CRM_FIELD_CHOICES:
			if (value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data))
				*(Jsonb **) place = JsonbValueToJsonb(unconstify(JsonbValue *, value));
			else
				crm_fault_at(reading, key, "is %s, not an object", crm_json_type(value));
			break;
		case CRM_FIELD_PARAMS:
			*(Jsonb **) place = read_filled(reading, key, value);
			break;
		case CRM_FIELD_NUMBER:
			*(Datum *) place = PointerGetDatum(crm_read_number(reading, key, value));
			break;
		case CRM_FIELD_COLUMNS:
			*(Jsonb **) place = read_columns(reading, key, value);
			break;
		case CRM_FIELD_ADD:
			step->add = read_texts(reading, key, value, &step->nadd);
			break;
		case CRM_FIELD_REMOVE:
			step->remove = read_texts(reading, key, value, &step->nremove);
			break;
		case CRM_FIELD_BRANCHES:
			read_branches(reading, key, value, step);
			break;
		case CRM_FIELD_ARMS:
			read_arms(reading, key, value, step);
			break;
	}
}

static void
read_fields(CrmReading *reading, CrmObject *object, const CrmStepField *fields, int nfields,
			CrmStep *step)
{
	for (int i = 0; i < nfields; i++)
	{
		const CrmStepField *field = &fields[i];
		JsonbValue *value;

		if (field->type == CRM_FIELD_TRIGGER)
		{
			crm_read_trigger(reading, object, &step->trigger);
			continue;
		}
		if (field->type == CRM_FIELD_STEP)
			value = crm_object_take(object, field->key);
		else if (field->type == CRM_FIELD_DEFAULT)
		{
			value = crm_object_take(object, field->key);
			if (value == NULL)
				crm_fault_at(reading, field->key, "is missing");
		}
		else if (field->required)
			value = crm_object_require(reading, object, field->key);
		else
			value = crm_object_offer(reading, object, field->key);
		if (value == NULL)
			continue;
		if (field->has_offset != 0)
			*(bool *) ((char *) step + field->has_offset) = true;
		read_field(reading, field, value, step);
	}
}

/* Where a step leads whose kind is not known, so that others are not found unreachable for that. */
static void
read_edges(CrmReading *reading, CrmObject *object, CrmStep *step)
{
	crm_read_edge(reading, "next", crm_object_take(object, "next"), &step->next);
	crm_read_edge(reading, "on_timeout", crm_object_take(object, "on_timeout"), &step->on_timeout);
	crm_read_edge(reading, "on_refused", crm_object_take(object, "on_refused"), &step->on_refused);
	crm_read_edge(reading, "on_failed", crm_object_take(object, "on_failed"), &step->on_failed);
}

/* The kind of the step, NULL where it is not known. */
static const CrmStepKind *
read_step_kind(CrmReading *reading, CrmObject *object)
{
	JsonbValue *value = crm_object_require(reading, object, "kind");
	char *name = value == NULL ? NULL : crm_read_text(reading, "kind", value, CRM_MAX_KEY_BYTES);
	const CrmStepKind *kind;
	StringInfoData known;

	if (name == NULL || (kind = crm_step_kind_find(name)) != NULL)
		return name == NULL ? NULL : kind;
	initStringInfo(&known);
	for (int i = 0; i < crm_nstep_kinds; i++)
		appendStringInfo(&known, "%s%s", i > 0 ? ", " : "", crm_step_kinds[i].name);
	crm_fault_at(reading, "kind", "\"%s\" is not one of %s", crm_shown(name), known.data);
	return NULL;
}

static void
read_step(CrmReading *reading, const JsonbValue *value, CrmStep *step)
{
	CrmObject object;

	if (!crm_object_open(reading, value, &object))
		return;
	step->kind = read_step_kind(reading, &object);
	if (step->kind == NULL)
	{
		read_edges(reading, &object, step);
		return;
	}
	/* the kind has been read */
	read_fields(reading, &object, crm_step_common_fields + 1, crm_nstep_common_fields - 1, step);
	read_fields(reading, &object, step->kind->fields, step->kind->nfields, step);
	if (step->kind->check != NULL)
		step->kind->check(reading, &object, step);
	crm_object_close(reading, &object);
}

void
crm_read_steps(CrmReading *reading, const JsonbValue *value)
{
	CrmJourney *journey = reading->journey;
	int before = crm_path_enter(reading, "steps");
	CrmObject object;

	if (crm_object_open(reading, value, &object) && (object.n < 1 || object.n > MAX_STEPS))
	{
		crm_fault(reading, "has %d members, not 1 to %d", object.n, MAX_STEPS);
		object.n = 0;
	}
	journey->nsteps = object.n;
	journey->steps = palloc0_array(CrmStep, Max(object.n, 1));
	for (int i = 0; i < object.n; i++)
	{
		CrmStep *step = &journey->steps[i];

		step->name = object.keys[i];
		step->next = step->on_timeout = step->on_refused = step->on_failed = CRM_NO_STEP;
		step->until = DT_NOBEGIN;
		step->minute_of_day = -1;
	}
	for (int i = 0; i < object.n; i++)
	{
		int outside = crm_path_enter(reading, object.keys[i]);

		if (strlen(object.keys[i]) > CRM_MAX_JOURNEY_NAME || *object.keys[i] == '\0')
			crm_fault(reading, "name has %zu bytes, not 1 to %d", strlen(object.keys[i]),
					  CRM_MAX_JOURNEY_NAME);
		read_step(reading, &object.values[i], &journey->steps[i]);
		crm_path_leave(reading, outside);
	}
	crm_path_leave(reading, before);
}
