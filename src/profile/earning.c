/*
 * earning.c
 *		What a fact is worth by an earning rule: a function of the rule and of
 *		the fact's net amount, so that it can be asked at any time.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/numeric.h"

#include "profile/earning.h"
#include "profile/loyalty.h"
#include "profile/walk.h"
#include "rules/rules.h"

/* The one place where the condition of an earning rule is evaluated. */
static bool
rule_holds(const CrmDefinitions *definitions, const CrmEarningRule *earning, const CrmFact *fact)
{
	Datum values[CRM_FIRST_WINDOW];
	bool nulls[CRM_FIRST_WINDOW];
	ErrorData *error = NULL;
	bool holds;

	if (earning->rule == NULL)
		return true;
	crm_fact_values(definitions, fact, values + CRM_PROFILE_COLUMNS, nulls + CRM_PROFILE_COLUMNS);
	holds = crm_expression_holds(earning->rule, values, nulls, fact->occurred_at, &error);
	if (error != NULL)
	{
		CrmRuleUser user = { "earning_rule", earning->name };

		crm_rule_count_error(&user, fact->contact_id, error->sqlerrcode, error->message);
		FreeErrorData(error);
	}
	return holds;
}

static int64
round_points(Datum points, CrmRounding rounding)
{
	Datum most = NumericGetDatum(int64_to_numeric(CRM_MAX_POINTS));

	switch (rounding)
	{
		case CRM_ROUND_DOWN:
			points = DirectFunctionCall1(numeric_floor, points);
			break;
		case CRM_ROUND_UP:
			points = DirectFunctionCall1(numeric_ceil, points);
			break;
		case CRM_ROUND_NEAREST:
			points = DirectFunctionCall2(numeric_round, points, Int32GetDatum(0));
			break;
	}
	if (DatumGetBool(DirectFunctionCall2(numeric_gt, points, most)))
		return CRM_MAX_POINTS;
	return DatumGetInt64(DirectFunctionCall1(numeric_int8, points));
}

static bool
is_above_zero(Datum number)
{
	return DatumGetBool(
		DirectFunctionCall2(numeric_gt, number, NumericGetDatum(int64_to_numeric(0))));
}

static int64
points_of_order(const CrmEarningRule *earning, Datum gross, Datum net, bool own_currency)
{
	Datum points = earning->points;

	if (earning->by_amount)
	{
		if (!own_currency)
			return 0;
		points = DirectFunctionCall2(numeric_div, DirectFunctionCall2(numeric_mul, points, net),
									 earning->per_amount);
	}
	else if (DatumGetBool(DirectFunctionCall2(numeric_ne, gross, net)))
		points = DirectFunctionCall2(numeric_div, DirectFunctionCall2(numeric_mul, points, net),
									 gross);
	return round_points(points, earning->rounding);
}

int64
crm_points_of_fact(const CrmDefinitions *definitions, const CrmEarningRule *earning,
				   const CrmFact *fact, Datum gross)
{
	bool order = fact->type == CRM_FACT_PURCHASE;

	if (order && is_above_zero(gross) && !is_above_zero(fact->amount))
		return 0;
	if (!rule_holds(definitions, earning, fact))
		return 0;
	return order ? points_of_order(earning, gross, fact->amount, fact->own_currency)
				 : round_points(earning->points, earning->rounding);
}

bool
crm_earning_applies(const CrmEarningRule *earning, CrmEarningSource source, int64 program,
					TimestampTz at)
{
	return earning->source == source && earning->loyalty_program_id == program &&
		at >= earning->valid_from && at < earning->valid_until;
}
