/*
 * assume.c
 *		What a simulation takes for granted of steps that act: {"steps": {name:
 *		outcome, or {outcome: share of contacts}}}.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "compat.h"
#include "journey/kinds.h"
#include "journey/reading.h"
#include "journey/simulation.h"

/* shares are decimal, their sum need not be */
#define SHARE_ERROR 1e-9

CRM_NORETURN static void refuse(const char *format, ...) pg_attribute_printf(1, 2);

static void
refuse(const char *format, ...)
{
	StringInfoData message;
	va_list arguments;
	int needed;

	initStringInfo(&message);
	for (;;)
	{
		va_start(arguments, format);
		needed = appendStringInfoVA(&message, format, arguments);
		va_end(arguments);
		if (needed == 0)
			break;
		enlargeStringInfo(&message, needed);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg_internal("assume: %s", message.data),
			 errhint("Give {\"steps\": {\"name\": \"failed\"}}, or shares of contacts, as"
					 " {\"steps\": {\"name\": {\"failed\": 0.1}}}.")));
}

/* Each way on of which the kind has a key, and next. */
static bool
has_outcome(const CrmStep *step, const char *outcome)
{
	if (strcmp(outcome, "next") == 0)
		return true;
	for (int i = 0; i < step->kind->nfields; i++)
		if (strncmp(step->kind->fields[i].key, "on_", 3) == 0 &&
			strcmp(step->kind->fields[i].key + 3, outcome) == 0)
			return true;
	return false;
}

static char *
text_of(const JsonbValue *value)
{
	return pnstrdup(value->val.string.val, value->val.string.len);
}

static void
add_outcome(CrmAssumed *assumed, const CrmStep *step, char *outcome, double share)
{
	if (!has_outcome(step, outcome))
		refuse("a step of kind %s is not left by \"%s\"", step->kind->name, crm_shown(outcome));
	assumed->outcomes[assumed->n] = outcome;
	assumed->shares[assumed->n++] = share;
}

static double
read_share(const CrmStep *step, const JsonbValue *value)
{
	double share = -1;

	if (value->type == jbvNumeric)
		share = DatumGetFloat8(
			DirectFunctionCall1(numeric_float8_no_overflow, NumericGetDatum(value->val.numeric)));
	if (!(share >= 0 && share <= 1))
		refuse("a share of step \"%s\" is not a number between 0 and 1", step->name);
	return share;
}

static void
read_shares(CrmAssumed *assumed, const CrmStep *step, const JsonbValue *value)
{
	JsonbIterator *iterator = JsonbIteratorInit(value->val.binary.data);
	JsonbIteratorToken token;
	JsonbValue member;
	int n = JsonContainerSize(value->val.binary.data);
	char *outcome = NULL;
	double sum = 0;

	assumed->outcomes = palloc_array(const char *, Max(n, 1));
	assumed->shares = palloc_array(double, Max(n, 1));
	while ((token = JsonbIteratorNext(&iterator, &member, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			outcome = text_of(&member);
		else if (token == WJB_VALUE)
		{
			double share = read_share(step, &member);

			add_outcome(assumed, step, outcome, share);
			sum += share;
		}
	}
	if (sum > 1 + SHARE_ERROR)
		refuse("the shares of step \"%s\" are more than 1 together", step->name);
}

static void
read_step(CrmAssumed *assumed, const CrmStep *step, const JsonbValue *value)
{
	if (!step->kind->writes)
		refuse("step \"%s\" of kind %s goes as the facts say", step->name, step->kind->name);
	if (value->type == jbvString)
	{
		assumed->outcomes = palloc_array(const char *, 1);
		assumed->shares = palloc_array(double, 1);
		add_outcome(assumed, step, text_of(value), 1);
	}
	else if (value->type == jbvBinary && JsonContainerIsObject(value->val.binary.data))
		read_shares(assumed, step, value);
	else
		refuse("what is said of step \"%s\" is neither an outcome nor an object", step->name);
}

static void
read_steps(CrmAssumed *assumed, const CrmJourney *journey, const JsonbValue *value)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue member;
	int step = CRM_NO_STEP;

	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		refuse("steps is not an object");
	iterator = JsonbIteratorInit(value->val.binary.data);
	while ((token = JsonbIteratorNext(&iterator, &member, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			char *name = text_of(&member);

			step = crm_step_find(journey, name);
			if (step == CRM_NO_STEP)
				refuse("step \"%s\" does not exist", crm_shown(name));
		}
		else if (token == WJB_VALUE)
			read_step(&assumed[step], &journey->steps[step], &member);
	}
}

CrmAssumed *
crm_assume_read(const CrmJourney *journey, Jsonb *document)
{
	CrmAssumed *assumed = palloc0_array(CrmAssumed, journey->nsteps);
	JsonbIterator *iterator = JsonbIteratorInit(&document->root);
	JsonbIteratorToken token;
	JsonbValue member;

	if (!JB_ROOT_IS_OBJECT(document))
		refuse("it is not an object");
	while ((token = JsonbIteratorNext(&iterator, &member, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			char *key = text_of(&member);

			if (strcmp(key, "steps") != 0)
				refuse("\"%s\" is not known", crm_shown(key));
		}
		else if (token == WJB_VALUE)
			read_steps(assumed, journey, &member);
	}
	return assumed;
}

const char *
crm_assumed_outcome(const CrmAssumed *assumed, const CrmJourney *journey, const CrmStep *step,
					int64 contact_id)
{
	const CrmAssumed *of_step = &assumed[step - journey->steps];
	double draw;

	if (of_step->n == 0)
		return NULL;
	draw = crm_draw(journey->name, psprintf("assume/%s", step->name), contact_id);
	for (int i = 0; i < of_step->n; i++)
	{
		if (draw < of_step->shares[i])
			return of_step->outcomes[i];
		draw -= of_step->shares[i];
	}
	return NULL;
}
