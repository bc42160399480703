/*
 * funnel_steps.c
 *		The steps of a funnel over facts, and the arm of a split, read from jsonb.
 */
#include "postgres.h"

#include "insight/funnel.h"
#include "insight/funnel_steps.h"
#include "journey/reading.h"
#include "pg_crm.h"

/* of names in a document */
#define MAX_NAME_BYTES 255

static JsonbValue
begin(CrmReading *reading, Jsonb *document)
{
	JsonbValue root;

	memset(reading, 0, sizeof(CrmReading));
	reading->context = CurrentMemoryContext;
	initStringInfo(&reading->path);
	root.type = jbvBinary;
	root.val.binary.data = &document->root;
	root.val.binary.len = VARSIZE_ANY_EXHDR(document);
	if (JB_ROOT_IS_SCALAR(document))
		(void) JsonbExtractScalar(&document->root, &root);
	return root;
}

static void
end(CrmReading *reading, const char *what, const char *hint)
{
	StringInfoData text;
	ListCell *cell;

	if (reading->faults == NIL)
		return;
	initStringInfo(&text);
	foreach(cell, reading->faults)
	{
		const CrmFault *fault = lfirst(cell);

		appendStringInfo(&text, "%s%s%s%s", text.len > 0 ? "\n" : "", fault->path,
						 fault->path[0] != '\0' ? ": " : "It ", fault->what);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg_plural("%s has %d fault", "%s has %d faults", list_length(reading->faults),
						   what, list_length(reading->faults)),
			 errdetail("%s", text.data), errhint("%s", hint)));
}

static void
add_kind(CrmFunnelStep *step, const char *kind)
{
	if (kind == NULL)
		return;
	for (int i = 0; i < step->nkinds; i++)
		if (strcmp(step->kinds[i], kind) == 0)
			return;
	step->kinds[step->nkinds++] = kind;
}

/* A kind, or a list of them. */
static void
read_kinds(CrmReading *reading, CrmFunnelStep *step, const JsonbValue *value)
{
	JsonbValue *elements;
	int n;

	if (value->type == jbvString)
	{
		step->kinds = palloc_array(const char *, 1);
		add_kind(step, crm_read_text(reading, "on", value, CRM_MAX_KIND_BYTES));
		return;
	}
	elements = crm_array_open(reading, "on", value, &n);
	if (elements != NULL && n == 0)
		crm_fault_at(reading, "on", "is an empty list");
	step->kinds = palloc_array(const char *, Max(n, 1));
	for (int i = 0; i < n; i++)
		add_kind(step, crm_read_text(reading, "on", &elements[i], CRM_MAX_KIND_BYTES));
}

static const char *
name_by_kinds(const CrmFunnelStep *step)
{
	StringInfoData name;

	initStringInfo(&name);
	for (int i = 0; i < step->nkinds; i++)
		appendStringInfo(&name, "%s%s", i > 0 ? ", " : "", step->kinds[i]);
	return name.data;
}

static void
read_step(CrmReading *reading, CrmFunnelStep *step, const JsonbValue *value)
{
	CrmObject object;
	JsonbValue *part;

	/* a kind alone stands for the step */
	if (value->type == jbvString)
	{
		read_kinds(reading, step, value);
		step->name = name_by_kinds(step);
		return;
	}
	if (!crm_object_open(reading, value, &object))
		return;
	if ((part = crm_object_offer(reading, &object, "name")) != NULL)
		step->name = crm_read_text(reading, "name", part, MAX_NAME_BYTES);
	if ((part = crm_object_require(reading, &object, "on")) != NULL)
		read_kinds(reading, step, part);
	if ((part = crm_object_offer(reading, &object, "when")) != NULL)
		step->rule = crm_read_text(reading, "when", part, CRM_MAX_DOCUMENT_BYTES);
	crm_object_close(reading, &object);
	if (step->name == NULL)
		step->name = name_by_kinds(step);
}

CrmFunnelStep *
crm_funnel_steps_read(Jsonb *document, int *nsteps)
{
	CrmReading reading;
	JsonbValue root = begin(&reading, document);
	CrmFunnelStep *steps = NULL;
	JsonbValue *elements;

	*nsteps = 0;
	if (root.type != jbvBinary || !JsonContainerIsArray(root.val.binary.data))
		crm_fault(&reading, "is %s, not an array", crm_json_type(&root));
	else
	{
		elements = crm_array_open(&reading, NULL, &root, nsteps);
		crm_funnel_check_steps(*nsteps);
		steps = palloc0_array(CrmFunnelStep, *nsteps);
		for (int i = 0; i < *nsteps; i++)
		{
			int before = crm_path_enter_place(&reading, i + 1);

			read_step(&reading, &steps[i], &elements[i]);
			crm_path_leave(&reading, before);
		}
	}
	end(&reading, "the list of steps of a funnel",
		"Its form is: [{\"name\": \"put in the cart\", \"on\": \"cart\", \"when\": \"rule over the fact\"}, ...]; only \"on\" must be there.");
	return steps;
}

static const char *
read_name(CrmReading *reading, CrmObject *object, const char *key, bool required)
{
	JsonbValue *value = required ? crm_object_require(reading, object, key)
								 : crm_object_offer(reading, object, key);

	return value == NULL ? NULL : crm_read_text(reading, key, value, MAX_NAME_BYTES);
}

CrmFunnelArm *
crm_funnel_arm_read(Jsonb *document)
{
	CrmReading reading;
	JsonbValue root = begin(&reading, document);
	CrmFunnelArm *arm = palloc0_object(CrmFunnelArm);
	CrmObject object;

	if (crm_object_open(&reading, &root, &object))
	{
		arm->journey = read_name(&reading, &object, "journey", true);
		arm->step = read_name(&reading, &object, "step", true);
		arm->arm = read_name(&reading, &object, "arm", false);
		crm_object_close(&reading, &object);
	}
	end(&reading, "the arm of a funnel",
		"Its form is: {\"journey\": \"welcome\", \"step\": \"test\", \"arm\": \"b\"}; without \"arm\" it is whoever is in any of them.");
	return arm;
}
