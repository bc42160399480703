/*
 * report.c
 *		Running the statement of a report.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tstoreReceiver.h"
#include "fmgr.h"
#include "nodes/execnodes.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/rights.h"
#include "insight/report.h"
#include "rules/language.h"

static void
run(const char *zone, const char *sql, int nparameters, const Oid *types, const Datum *values,
	const char *nulls, Tuplestorestate *store)
{
	/* an interval of days before a time depends on the zone */
	int nest_level = crm_rule_enter();
	SPIPlanPtr plan;
	ParamListInfo parameters = makeParamList(nparameters);
	SPIExecuteOptions options = { .params = parameters, .read_only = true };
	int code;

	if (zone != NULL)
		(void) set_config_option("TimeZone", zone, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
								 true, 0, false);
	plan = SPI_prepare_cursor(sql, nparameters, unconstify(Oid *, types),
							  CURSOR_OPT_PARALLEL_OK | CURSOR_OPT_CUSTOM_PLAN);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare_cursor failed: %s", SPI_result_code_string(SPI_result));
	for (int i = 0; i < nparameters; i++)
		crm_rule_set_parameter(parameters, i, types[i], values[i], nulls[i] == 'n');
	if (store != NULL)
	{
		options.dest = CreateDestReceiver(DestTuplestore);
		SetTuplestoreDestReceiverParams(options.dest, store, CurrentMemoryContext, false, NULL,
										NULL);
	}
	code = SPI_execute_plan_extended(plan, &options);
	if (code < 0)
		elog(ERROR, "SPI_execute_plan_extended failed: %s", SPI_result_code_string(code));
	SPI_freeplan(plan);
	crm_rule_leave(nest_level);
}

void
crm_report_run(const char *sql, int nparameters, const Oid *types, const Datum *values,
			   const char *nulls, Tuplestorestate *store)
{
	run(NULL, sql, nparameters, types, values, nulls, store);
}

void
crm_report_require_rules(const char *what_for)
{
	static CrmPlan plan = {
		"SELECT pg_catalog.has_function_privilege($1, 'crm.audience(text, timestamptz)', 'EXECUTE')",
		1,
		{ OIDOID },
	};
	Datum values[1] = { ObjectIdGetDatum(crm_caller()) };

	crm_read(&plan, values, NULL);
	if (!crm_result_true(0, 1))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("permission denied %s", what_for),
				 errhint(
					 "It takes the right to execute crm.audience(), which level marketer has.")));
}

const char *
crm_report_value(CrmReport *report, Oid type, Datum value, bool isnull)
{
	Assert(report->n < CRM_REPORT_PARAMETERS);
	report->types[report->n] = type;
	report->values[report->n] = value;
	report->nulls[report->n] = isnull ? 'n' : ' ';
	report->n++;
	return psprintf("$%d", report->n);
}

const char *
crm_report_text(CrmReport *report, const char *value)
{
	return crm_report_value(report, TEXTOID, value == NULL ? (Datum) 0 : CStringGetTextDatum(value),
							value == NULL);
}

const char *
crm_report_time(CrmReport *report, TimestampTz value)
{
	return crm_report_value(report, TIMESTAMPTZOID, TimestampTzGetDatum(value), false);
}

void
crm_report_return(const CrmReport *report, const char *sql, FunctionCallInfo fcinfo)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	run(report->zone, sql, report->n, report->types, report->values, report->nulls,
		result->setResult);
}
