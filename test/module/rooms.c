/*
 * rooms.c
 *		For tests only: SQL functions that call what pg_crm's worker alone calls,
 *		its HTTP client and its channels. Built by CrmTest.pm together with those
 *		sources; it does not need pg_crm to be loaded.
 */
#include "pg_crm.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "dispatch/http.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(rooms_http);
PG_FUNCTION_INFO_V1(rooms_http_load);
PG_FUNCTION_INFO_V1(rooms_http_end);

static void
end_http(int code, Datum arg)
{
	crm_http_end();
}

static void
begin_http(int max_connections)
{
	static bool registered = false;

	if (!registered)
		before_shmem_exit(end_http, 0);
	registered = true;
	crm_http_init(max_connections);
}

/* Waits as the worker does. */
static void
wait_and_step(void)
{
	int events = WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_SOCKET_READABLE | WL_EXIT_ON_PM_DEATH,
								   crm_http_descriptor(), 0, PG_WAIT_EXTENSION);

	if (events & WL_LATCH_SET)
		ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	crm_http_step();
}

static char **
strings(ArrayType *array, int *n)
{
	Datum *values;
	bool *nulls;
	char **result;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, n);
	result = palloc0(sizeof(char *) * (*n + 1));
	for (int i = 0; i < *n; i++)
		result[i] = nulls[i] ? NULL : TextDatumGetCString(values[i]);
	return result;
}

/*
 * http(urls, bodies, headers, timeout_ms, max_connections), all at once. Owners
 * are places in the array.
 */
Datum
rooms_http(PG_FUNCTION_ARGS)
{
	static const char *const results[] = { "reply", "not sent", "unknown" };
	ReturnSetInfo *set = (ReturnSetInfo *) fcinfo->resultinfo;
	int nurls;
	int nbodies;
	int nheaders;
	char **urls = strings(PG_GETARG_ARRAYTYPE_P(0), &nurls);
	char **bodies = strings(PG_GETARG_ARRAYTYPE_P(1), &nbodies);
	char **headers = strings(PG_GETARG_ARRAYTYPE_P(2), &nheaders);
	CrmHttpReply reply;

	InitMaterializedSRF(fcinfo, 0);
	begin_http(PG_GETARG_INT32(4));
	for (int i = 0; i < nurls; i++)
	{
		CrmHttpRequest request = { .url = urls[i],
								   .body = bodies[i],
								   .body_length = bodies[i] ? strlen(bodies[i]) : 0,
								   .headers = (const char *const *) headers,
								   .nheaders = nheaders,
								   .timeout_ms = PG_GETARG_INT32(3),
								   .owner = i + 1 };

		crm_http_start(&request);
		/* it was copied */
		memset(urls[i], '#', strlen(urls[i]));
		if (bodies[i])
			memset(bodies[i], '#', strlen(bodies[i]));
	}
	for (int left = nurls; left > 0;)
	{
		wait_and_step();
		while (crm_http_next(&reply))
		{
			Datum values[8];
			bool nulls[8] = { 0 };

			values[0] = Int64GetDatum(reply.owner);
			values[1] = CStringGetTextDatum(results[reply.result]);
			values[2] = Int32GetDatum((int32) reply.status);
			values[3] = PointerGetDatum(cstring_to_text_with_len(reply.body, reply.body_length));
			values[4] = BoolGetDatum(reply.truncated);
			if (reply.error)
				values[5] = CStringGetTextDatum(reply.error);
			nulls[5] = reply.error == NULL;
			values[6] = Float8GetDatum((GetCurrentTimestamp() - reply.started_at) / 1000.0);
			values[7] = Int32GetDatum(crm_http_running());
			tuplestore_putvalues(set->setResult, set->setDesc, values, nulls);
			left--;
		}
	}
	return (Datum) 0;
}

/* http_load(url, body, count, parallel): seconds taken, all must be answered by 200 */
Datum
rooms_http_load(PG_FUNCTION_ARGS)
{
	char *url = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char *body = text_to_cstring(PG_GETARG_TEXT_PP(1));
	int count = PG_GETARG_INT32(2);
	int parallel = PG_GETARG_INT32(3);
	int started = 0;
	int done = 0;
	const char *headers[] = { "Content-Type: application/json" };
	TimestampTz begin = GetCurrentTimestamp();
	CrmHttpReply reply;

	begin_http(parallel);
	while (done < count)
	{
		while (started < count && crm_http_running() < parallel)
		{
			CrmHttpRequest request = { .url = url,
									   .body = body,
									   .body_length = strlen(body),
									   .headers = headers,
									   .nheaders = 1,
									   .timeout_ms = 10000,
									   .owner = started++ };

			crm_http_start(&request);
		}
		wait_and_step();
		while (crm_http_next(&reply))
		{
			done++;
			if (reply.status != 200)
				elog(ERROR, "request " INT64_FORMAT ": status %ld, %s", reply.owner, reply.status,
					 reply.error ? reply.error : "");
		}
	}
	PG_RETURN_FLOAT8((GetCurrentTimestamp() - begin) / 1000000.0);
}

Datum
rooms_http_end(PG_FUNCTION_ARGS)
{
	crm_http_end();
	PG_RETURN_VOID();
}
