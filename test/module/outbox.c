/*
 * outbox.c
 *		SQL functions that queue and take back messages as journeys do, by the
 *		pg_crm that is loaded.
 */
#include "pg_crm.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "outbox/outbox.h"

PG_FUNCTION_INFO_V1(rooms_send_each);
PG_FUNCTION_INFO_V1(rooms_cancel_many);

static void *
function_of_pg_crm(const char *name)
{
	return load_external_function("$libdir/pg_crm", name, true, NULL);
}

/* The elements; all arrays of a call are as long as the first. */
static Datum *
elements(FunctionCallInfo fcinfo, int argument, Oid type, bool **nulls, int *n)
{
	int16 length;
	bool by_value;
	char align;
	Datum *values;
	int found;

	get_typlenbyvalalign(type, &length, &by_value, &align);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(argument), type, length, by_value, align, &values,
					  nulls, &found);
	if (argument > 1 && found != *n)
		elog(ERROR, "array %d has %d elements, not %d", argument, found, *n);
	*n = found;
	return values;
}

static int64 *
ids(FunctionCallInfo fcinfo, int argument, int *n)
{
	bool *nulls;

	/* a Datum has 64 bits, as pg_crm asks for */
	return (int64 *) elements(fcinfo, argument, INT8OID, &nulls, n);
}

/*
 * send_each(template, contacts, params, send_keys, due_at, expires_at, awaited):
 * message_ids. A key may be NULL, an expires_at infinity. The caller has locked
 * the contacts, where that matters.
 */
Datum
rooms_send_each(PG_FUNCTION_ARGS)
{
	void (*send_each)(const CrmSendEach *) = function_of_pg_crm("crm_outbox_send_each");
	CrmSendEach sending = { 0 };
	bool *nulls;
	bool *no_key;
	Datum *keys;
	const char **send_keys;
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext spi;
	ArrayType *result;

	sending.template = text_to_cstring(PG_GETARG_TEXT_PP(0));
	sending.contacts = ids(fcinfo, 1, &sending.n);
	sending.params = elements(fcinfo, 2, JSONBOID, &nulls, &sending.n);
	keys = elements(fcinfo, 3, TEXTOID, &no_key, &sending.n);
	send_keys = palloc0_array(const char *, sending.n + 1);
	for (int i = 0; i < sending.n; i++)
		send_keys[i] = no_key[i] ? NULL : TextDatumGetCString(keys[i]);
	sending.send_keys = send_keys;
	sending.due_at = (TimestampTz *) elements(fcinfo, 4, TIMESTAMPTZOID, &nulls, &sending.n);
	sending.expires_at = (TimestampTz *) elements(fcinfo, 5, TIMESTAMPTZOID, &nulls, &sending.n);
	sending.awaited = PG_GETARG_BOOL(6);
	sending.message_ids = palloc_array(int64, sending.n + 1);
	SPI_connect();
	send_each(&sending);
	spi = MemoryContextSwitchTo(caller);
	result = construct_array((Datum *) sending.message_ids, sending.n, INT8OID, sizeof(int64),
							 FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
	MemoryContextSwitchTo(spi);
	SPI_finish();
	PG_RETURN_ARRAYTYPE_P(result);
}

/* cancel_many(contacts, message_ids, reason): how many were taken back */
Datum
rooms_cancel_many(PG_FUNCTION_ARGS)
{
	int64 (*cancel_many)(const int64 *, const int64 *, int,
						 const char *) = function_of_pg_crm("crm_outbox_cancel_many");
	char *reason = PG_ARGISNULL(2) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(2));
	int n;
	int64 *contacts = ids(fcinfo, 0, &n);
	int64 *messages = ids(fcinfo, 1, &n);
	int64 cancelled;

	SPI_connect();
	cancelled = cancel_many(contacts, messages, n, reason);
	SPI_finish();
	PG_RETURN_INT64(cancelled);
}
