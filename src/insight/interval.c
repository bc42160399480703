/*
 * interval.c
 *		crm.wilson_interval(): between which shares the true one lies, given how
 *		often something happened.
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"

#include "insight/interval.h"

PG_FUNCTION_INFO_V1(crm_sql_wilson_interval);

/* The share of a normal distribution that lies within z deviations of its middle. */
static double
share_within(double z)
{
	return erf(z / M_SQRT2);
}

void
crm_check_confidence(double confidence)
{
	if (!(confidence > 0 && confidence < 1))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("confidence %g is not between 0 and 1", confidence),
				 errhint("Give for example 0.95.")));
}

/* Halved until nothing is left to halve: erf() has no inverse in the library. */
static double
deviations(double confidence)
{
	double low = 0;
	double high = 40;

	for (;;)
	{
		double middle = (low + high) / 2;

		if (middle <= low || middle >= high)
			return middle;
		if (share_within(middle) < confidence)
			low = middle;
		else
			high = middle;
	}
}

Datum
crm_sql_wilson_interval(PG_FUNCTION_ARGS)
{
	int64 successes = PG_GETARG_INT64(0);
	int64 trials = PG_GETARG_INT64(1);
	double confidence = PG_GETARG_FLOAT8(2);
	TupleDesc descriptor;
	Datum values[2] = { 0 };
	bool nulls[2] = { true, true };

	crm_check_confidence(confidence);
	if (successes < 0 || trials < successes)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg(INT64_FORMAT " successes of " INT64_FORMAT " trials cannot be", successes,
						trials),
				 errhint("There are at most as many successes as trials, and no fewer than 0.")));
	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "crm.wilson_interval() returns no row");
	if (trials > 0)
	{
		double z = deviations(confidence);
		double n = (double) trials;
		double share = successes / n;
		double scale = 1 + z * z / n;
		double middle = (share + z * z / (2 * n)) / scale;
		double half = z * sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale;

		/* exact at the ends, where rounding leaves a trifle */
		values[0] = Float8GetDatum(successes == 0 ? 0 : Max(middle - half, 0));
		values[1] = Float8GetDatum(successes == trials ? 1 : Min(middle + half, 1));
		nulls[0] = nulls[1] = false;
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls)));
}
