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

/* The one place where the condition of an earning rule is evaluated. */
static bool
rule_holds(const CrmEarningRule *earning, Datum net, bool no_amount)
{
	return earning->rule == NULL || crm_rule_holds(earning->rule, &net, &no_amount);
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

int64
crm_points_of_order(const CrmEarningRule *earning, Datum amount, Datum net, bool own_currency)
{
	Datum points = earning->points;

	if (is_above_zero(amount) && !is_above_zero(net))
		return 0;
	if (!rule_holds(earning, net, false))
		return 0;
	if (earning->by_amount)
	{
		if (!own_currency)
			return 0;
		points = DirectFunctionCall2(numeric_div, DirectFunctionCall2(numeric_mul, points, net),
									 earning->per_amount);
	}
	else if (DatumGetBool(DirectFunctionCall2(numeric_ne, amount, net)))
		points = DirectFunctionCall2(numeric_div, DirectFunctionCall2(numeric_mul, points, net),
									 amount);
	return round_points(points, earning->rounding);
}

int64
crm_points_of_fact(const CrmEarningRule *earning)
{
	return rule_holds(earning, (Datum) 0, true) ? round_points(earning->points, earning->rounding)
												: 0;
}

bool
crm_earning_applies(const CrmEarningRule *earning, CrmEarningSource source, int64 program,
					TimestampTz at)
{
	return earning->source == source && earning->loyalty_program_id == program &&
		at >= earning->valid_from && at < earning->valid_until;
}
