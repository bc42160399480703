/*
 * audience.c
 *		Everybody for whom a rule holds, by one statement over all contacts; and
 *		whether it holds for one of them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tstoreReceiver.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

#include "base/clock.h"
#include "base/db.h"
#include "pg_crm.h"
#include "rules/language.h"
#include "rules/rules.h"

PG_FUNCTION_INFO_V1(crm_sql_audience);
PG_FUNCTION_INFO_V1(crm_sql_rule_holds);

/* contacts that are asked about together where the rule fails for some */
#define PART 10000

typedef struct Audience
{
	const char *sql;
	Tuplestorestate *store;
	TupleDesc descriptor;
	Datum values[CRM_RULE_PARAMETERS];
} Audience;

static bool
run_once(void *arg)
{
	Audience *audience = arg;
	SPIPlanPtr plan = SPI_prepare_cursor(audience->sql, CRM_RULE_PARAMETERS,
										 unconstify(Oid *, &crm_rule_types[0]),
										 CURSOR_OPT_PARALLEL_OK | CURSOR_OPT_CUSTOM_PLAN);
	ParamListInfo parameters = makeParamList(CRM_RULE_PARAMETERS);
	SPIExecuteOptions options = { 0 };
	int code;

	for (int i = 0; i < CRM_RULE_PARAMETERS; i++)
	{
		ParamExternData *parameter = &parameters->params[i];

		parameter->value = audience->values[i];
		parameter->isnull = i + 1 == CRM_RULE_CONTACTS;
		/* not PARAM_FLAG_CONST: the plan is not to leave out what depends on them */
		parameter->pflags = 0;
		parameter->ptype = crm_rule_types[i];
	}
	options.params = parameters;
	options.read_only = true;
	options.dest = CreateDestReceiver(DestTuplestore);
	SetTuplestoreDestReceiverParams(options.dest, audience->store, CurrentMemoryContext, false,
									NULL, NULL);
	code = SPI_execute_plan_extended(plan, &options);
	if (code < 0)
		elog(ERROR, "SPI_execute_plan_extended failed: %s", SPI_result_code_string(code));
	SPI_freeplan(plan);
	return true;
}

/* The same in parts, so that the contacts for whom the rule fails are found and counted. */
static void
run_in_parts(Audience *audience, const char *rule, TimestampTz as_of)
{
	static CrmPlan list = { "SELECT c.contact_id FROM crm.contact c WHERE c.contact_id > $1"
							" ORDER BY c.contact_id LIMIT " CppAsString2(PART),
							1,
							{ INT8OID } };
	static const CrmRuleUser user = { "audience", "" };
	int64 *contacts = palloc_array(int64, PART);
	bool *holds = palloc_array(bool, PART);
	Datum after = Int64GetDatum(PG_INT64_MIN);
	int n;

	tuplestore_clear(audience->store);
	while ((n = crm_read(&list, &after, NULL)) > 0)
	{
		for (int i = 0; i < n; i++)
			contacts[i] = crm_result_int64(i, 1);
		SPI_freetuptable(SPI_tuptable);
		crm_rule_evaluate(rule, &user, contacts, n, as_of, holds);
		for (int i = 0; i < n; i++)
			if (holds[i])
			{
				Datum value = Int64GetDatum(contacts[i]);
				bool isnull = false;

				tuplestore_putvalues(audience->store, audience->descriptor, &value, &isnull);
			}
		after = Int64GetDatum(contacts[n - 1]);
	}
}

Datum
crm_sql_audience(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Audience audience = { 0 };
	TimestampTz as_of;
	CrmActing acting;
	ErrorContextCallback callback;
	ErrorData *error;
	char *rule;
	int nest_level;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"rule\" of crm.audience() must not be NULL"),
				 errhint("Everybody is crm.audience('true').")));
	rule = text_to_cstring(PG_GETARG_TEXT_PP(0));
	as_of = crm_as_of_argument(fcinfo, 1);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	audience.store = result->setResult;
	audience.descriptor = result->setDesc;

	crm_connect(&acting);
	nest_level = crm_rule_enter();
	crm_rule_point(&callback, rule);
	audience.sql = crm_rule_compile(crm_rule_read(rule), CRM_RULE_ALL, NIL);
	crm_rule_point_end(&callback);
	crm_rule_values(as_of, audience.values);
	if (!crm_attempt(run_once, &audience, &error))
	{
		if (!crm_rule_is_contained(error))
			ReThrowError(error);
		FreeErrorData(error);
		run_in_parts(&audience, rule, as_of);
	}
	crm_rule_leave(nest_level);
	crm_disconnect(&acting);
	return (Datum) 0;
}

Datum
crm_sql_rule_holds(PG_FUNCTION_ARGS)
{
	static const CrmRuleUser user = { "rule_holds", "" };
	TimestampTz as_of;
	int64 contact_id;
	bool holds;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"%s\" of crm.rule_holds() must not be NULL",
						PG_ARGISNULL(0) ? "contact_id" : "rule"),
				 errhint("Name a contact and a rule.")));
	contact_id = PG_GETARG_INT64(0);
	as_of = crm_as_of_argument(fcinfo, 2);
	crm_rule_evaluate(text_to_cstring(PG_GETARG_TEXT_PP(1)), &user, &contact_id, 1, as_of, &holds);
	PG_RETURN_BOOL(holds);
}
