/*
 * rfm.c
 *		crm.rfm() and crm.rfm_cells(): recency, frequency and monetary value of
 *		the orders of each contact, as scores by thresholds.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "insight/fact_source.h"
#include "insight/period.h"
#include "insight/report.h"

PG_FUNCTION_INFO_V1(crm_sql_rfm);
PG_FUNCTION_INFO_V1(crm_sql_rfm_cells);

/* scores have one digit */
#define MAX_THRESHOLDS 8

static void
refuse_thresholds(const char *name, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("thresholds of %s %s", name, why),
			 errhint("Give 1 to %d numbers that grow or fall, for example {30,90,180}.",
					 MAX_THRESHOLDS)));
}

/* Numbers from 0 on, in rising or falling order; both mean the same. */
static const char *
thresholds_argument(CrmReport *report, FunctionCallInfo fcinfo, int argument, const char *name,
					const char *function)
{
	ArrayType *array;
	Datum *values;
	bool *nulls;
	int direction = 0;
	int n;

	crm_require_value(fcinfo, argument, name, function);
	array = PG_GETARG_ARRAYTYPE_P(argument);
	deconstruct_array(array, NUMERICOID, -1, false, TYPALIGN_INT, &values, &nulls, &n);
	if (ARR_NDIM(array) != 1 || n > MAX_THRESHOLDS)
		refuse_thresholds(name,
						  n == 0                    ? "are none"
							  : n <= MAX_THRESHOLDS ? "are an array of arrays"
													: psprintf("are %d", n));
	for (int i = 0; i < n; i++)
	{
		int order;

		if (nulls[i])
			refuse_thresholds(name, "hold a NULL");
		if (numeric_is_nan(DatumGetNumeric(values[i])) ||
			numeric_is_inf(DatumGetNumeric(values[i])) ||
			DatumGetBool(
				DirectFunctionCall2(numeric_lt, values[i], NumericGetDatum(int64_to_numeric(0)))))
			refuse_thresholds(name,
							  psprintf("hold %s",
									   DatumGetCString(
										   DirectFunctionCall1(numeric_out, values[i]))));
		if (i == 0)
			continue;
		order = DatumGetInt32(DirectFunctionCall2(numeric_cmp, values[i], values[i - 1]));
		if (order == 0 || (direction != 0 && (order > 0) != (direction > 0)))
			refuse_thresholds(name, "neither grow nor fall");
		direction = order;
	}
	return crm_report_value(report, NUMERICARRAYOID, PointerGetDatum(array), false);
}

/*
 * Contacts with an order that counts, as r. A score is one more than the number of
 * thresholds that are reached.
 */
static void
append_scores(StringInfo sql, CrmReport *report, FunctionCallInfo fcinfo, const char *function)
{
	TimestampTz as_of = crm_as_of_argument(fcinfo, 0);
	const CrmFactSource orders = { .kind = "purchase", .from = DT_NOBEGIN, .until = as_of };
	const char *recency = thresholds_argument(report, fcinfo, 1, "recency", function);
	const char *frequency = thresholds_argument(report, fcinfo, 2, "frequency", function);
	const char *monetary = thresholds_argument(report, fcinfo, 3, "monetary", function);
	const char *moment = crm_report_time(report, as_of);
	pg_tz *zone;
	const char *zone_value = crm_report_text(report, crm_time_zone_argument(fcinfo, 4, &zone));

	appendStringInfo(sql,
					 "(SELECT o.*,"
					 " (SELECT 1 + count(*) FROM unnest(%s) n WHERE o.recency_days <= n)::integer"
					 " AS recency,"
					 " (SELECT 1 + count(*) FROM unnest(%s) n WHERE o.orders >= n)::integer"
					 " AS frequency,"
					 " (SELECT 1 + count(*) FROM unnest(%s) n WHERE o.spend >= n)::integer"
					 " AS monetary"
					 " FROM (SELECT f.contact_id, timezone(%s, %s)::date"
					 " - timezone(%s, max(f.occurred_at))::date AS recency_days,"
					 " count(*) AS orders, coalesce(sum(f.amount), 0) AS spend,"
					 " max(f.occurred_at) AS last_order_at"
					 " FROM %s f WHERE f.occurred_at <= %s"
					 " AND EXISTS (SELECT FROM crm.contact c WHERE c.contact_id = f.contact_id)"
					 " GROUP BY f.contact_id) o) r",
					 recency, frequency, monetary, zone_value, moment, zone_value,
					 crm_fact_source(&orders, "crm_report_orders"), moment);
}

static void
return_scores(FunctionCallInfo fcinfo, const char *function, const char *select, const char *rest)
{
	CrmReport report = { 0 };
	StringInfoData sql;
	CrmActing acting;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	crm_connect(&acting);
	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT %s FROM ", select);
	append_scores(&sql, &report, fcinfo, function);
	appendStringInfoString(&sql, rest);
	crm_report_return(&report, sql.data, fcinfo);
	crm_disconnect(&acting);
}

#define CELL "concat(r.recency, r.frequency, r.monetary)"

Datum
crm_sql_rfm(PG_FUNCTION_ARGS)
{
	return_scores(fcinfo, "rfm",
				  "r.contact_id, " CELL ", r.recency, r.frequency, r.monetary, r.recency_days,"
				  " r.orders, r.spend, r.last_order_at",
				  " ORDER BY r.contact_id");
	return (Datum) 0;
}

Datum
crm_sql_rfm_cells(PG_FUNCTION_ARGS)
{
	return_scores(fcinfo, "rfm_cells",
				  CELL ", r.recency, r.frequency, r.monetary, count(*),"
					   " round(count(*) / sum(count(*)) OVER (), 4),"
					   " sum(r.orders)::bigint, sum(r.spend)",
				  " GROUP BY r.recency, r.frequency, r.monetary"
				  " ORDER BY r.recency, r.frequency, r.monetary");
	return (Datum) 0;
}
