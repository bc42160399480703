/*
 * checks.c
 *		What the keys of a step say together.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "journey/reading.h"

void
crm_check_wait(CrmReading *reading, CrmObject *object, const CrmStep *step)
{
	static const char *const times[] = { "for", "until", "date" };
	int ntimes = 0;

	for (int i = 0; i < lengthof(times); i++)
		ntimes += crm_object_has(object, times[i]);
	if (ntimes > 1)
		crm_fault(reading, "has more than one of for, until and date");
	if (ntimes == 0 && !crm_object_has(object, "at") && !crm_object_has(object, "hours"))
		crm_fault(reading, "waits for nothing: it needs for, until, date, at or hours");
	if (crm_object_has(object, "offset") && !crm_object_has(object, "date"))
		crm_fault_at(reading, "offset", "goes with date only");
}

static void
check_choices(CrmReading *reading, const CrmStep *step)
{
	JsonbValue value;
	CrmObject object;
	int before;
	int32 typmod;
	bool not_null;
	Oid type;

	value.type = jbvBinary;
	value.val.binary.data = &step->choices->root;
	value.val.binary.len = VARSIZE_ANY_EXHDR(step->choices);
	before = crm_path_enter(reading, "choices");
	if (crm_object_open(reading, &value, &object) && object.n == 0)
		crm_fault(reading, "is empty");
	type = crm_contact_column(step->field, &typmod, &not_null);
	for (int i = 0; i < object.n && OidIsValid(type); i++)
	{
		char *fault = crm_value_fault(&object.values[i], type, typmod, not_null);

		if (fault != NULL)
			crm_fault_at(reading, object.keys[i], "%s", fault);
		else if (strcmp(step->field, "attributes") == 0 &&
				 (object.values[i].type != jbvBinary ||
				  !JsonContainerIsObject(object.values[i].val.binary.data)))
			crm_fault_at(reading, object.keys[i], "is %s, not an object",
						 crm_json_type(&object.values[i]));
	}
	crm_path_leave(reading, before);
}

void
crm_check_ask(CrmReading *reading, CrmObject *object, const CrmStep *step)
{
	bool choice = step->reply != NULL && strcmp(step->reply, "choice") == 0;
	bool mobile = step->reply != NULL && strcmp(step->reply, "mobile") == 0;

	if (choice && !crm_object_has(object, "choices"))
		crm_fault_at(reading, "choices", "is missing");
	if (!choice && crm_object_has(object, "choices"))
		crm_fault_at(reading, "choices", "goes with reply \"choice\" only");
	if (step->field != NULL && strcmp(step->field, "mobile") == 0 && !mobile)
		crm_fault_at(reading, "reply", "of field mobile is mobile, not %s", step->reply);
	if (step->field != NULL && strcmp(step->field, "attributes") == 0 && !choice)
		crm_fault_at(reading, "reply", "of field attributes is choice, not %s", step->reply);
	if (choice && step->choices != NULL && step->field != NULL)
		check_choices(reading, step);
	if (!crm_object_has(object, "template"))
		for (int i = 0; i < object->n; i++)
			if (strcmp(object->keys[i], "params") == 0 ||
				strcmp(object->keys[i], "expires_in") == 0)
				crm_fault_at(reading, object->keys[i], "goes with template only");
}

void
crm_check_branch(CrmReading *reading, CrmObject *object, const CrmStep *step)
{
	if (crm_object_take(object, "next") != NULL)
		crm_fault_at(reading, "next", "is not of a branch: say default");
}

void
crm_check_tag(CrmReading *reading, CrmObject *object, const CrmStep *step)
{
	if (!crm_object_has(object, "add") && !crm_object_has(object, "remove"))
		crm_fault(reading, "needs add or remove");
	for (int i = 0; i < step->nadd; i++)
		for (int k = 0; k < step->nremove; k++)
			if (strcmp(step->add[i], step->remove[k]) == 0)
				crm_fault_at(reading, "remove", "\"%s\" is added and removed",
							 crm_shown(step->add[i]));
}

void
crm_check_award(CrmReading *reading, CrmObject *object, const CrmStep *step)
{
	char *threshold;

	if (step->object == NULL)
		return;
	crm_reference(reading, "awardable", step->object, NULL, "achievement",
				  psprintf("achievement \"%s\" is on facts that no step may record",
						   crm_shown(step->object)));
	if (step->threshold == 0)
		return;
	threshold = numeric_normalize(DatumGetNumeric(step->threshold));
	crm_reference(reading, "threshold", step->object, threshold, "threshold",
				  psprintf("achievement \"%s\" has no threshold %s", crm_shown(step->object),
						   crm_shown(threshold)));
}

void
crm_check_points(CrmReading *reading, CrmObject *object, const CrmStep *step)
{
	Datum most = NumericGetDatum(int64_to_numeric(INT64CONST(1000000000000)));
	Datum points = step->points;

	if (points == 0)
		return;
	if (DatumGetBool(DirectFunctionCall2(numeric_eq, points, NumericGetDatum(int64_to_numeric(0)))))
		crm_fault_at(reading, "points", "is 0");
	else if (DatumGetBool(
				 DirectFunctionCall2(numeric_ne, points,
									 DirectFunctionCall2(numeric_trunc, points, Int32GetDatum(0)))))
		crm_fault_at(reading, "points", "%s is no whole number",
					 crm_shown(numeric_normalize(DatumGetNumeric(points))));
	else if (DatumGetBool(
				 DirectFunctionCall2(numeric_gt, DirectFunctionCall1(numeric_abs, points), most)))
		crm_fault_at(reading, "points", "%s is out of reach",
					 crm_shown(numeric_normalize(DatumGetNumeric(points))));
}
