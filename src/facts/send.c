/*
 * send.c
 *		Asking for messages, and taking them back: what comes from outside is
 *		checked, merges are followed and contacts locked; the rest is the outbox.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "facts/record.h"
#include "outbox/outbox.h"
#include "profile/profile.h"

PG_FUNCTION_INFO_V1(crm_sql_send);
PG_FUNCTION_INFO_V1(crm_sql_send_many);
PG_FUNCTION_INFO_V1(crm_sql_cancel_message);
PG_FUNCTION_INFO_V1(crm_sql_resolve_message);

static TimestampTz
time_argument(FunctionCallInfo fcinfo, int argument, const char *name, TimestampTz otherwise)
{
	TimestampTz at;

	if (PG_ARGISNULL(argument))
		return otherwise;
	at = PG_GETARG_TIMESTAMPTZ(argument);
	if (TIMESTAMP_NOT_FINITE(at))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("%s must be finite, not %s", name,
						TIMESTAMP_IS_NOBEGIN(at) ? "-infinity" : "infinity"),
				 errhint("Leave it out, or give a time.")));
	return at;
}

/* The arguments of send() and send_many() behind the first. */
static void
read_arguments(FunctionCallInfo fcinfo, const char *function, CrmSending *sending)
{
	static const char *const names[] = { NULL, "template", "params" };
	char *key;

	for (int i = 0; i < lengthof(names); i++)
		if (names[i] != NULL)
			crm_require_argument(function, names[i], PG_ARGISNULL(i));
	sending->template = crm_text_argument(fcinfo, 1);
	sending->params = PG_GETARG_DATUM(2);
	crm_check_document("params", sending->params);
	crm_check_object("params", sending->params);
	key = crm_text_argument(fcinfo, 3);
	crm_check_optional_key(key);
	sending->send_key = key;
	sending->due_at = time_argument(fcinfo, 4, "due_at", crm_now());
	sending->expires_at = time_argument(fcinfo, 5, "expires_at", DT_NOEND);
	if (sending->expires_at <= sending->due_at)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("expires_at %s is not after due_at %s",
						pstrdup(timestamptz_to_str(sending->expires_at)),
						pstrdup(timestamptz_to_str(sending->due_at))),
				 errhint("A message is sent from due_at until just before expires_at.")));
}

Datum
crm_sql_send(PG_FUNCTION_ARGS)
{
	CrmSending sending = { 0 };
	CrmActing acting;
	int64 contact_id;
	int64 message_id;

	crm_require_argument("send", "contact_id", PG_ARGISNULL(0));
	read_arguments(fcinfo, "send", &sending);
	crm_connect(&acting);
	contact_id = crm_contact_lock(PG_GETARG_INT64(0));
	sending.contacts = &contact_id;
	sending.ncontacts = 1;
	message_id = crm_outbox_send_one(&sending);
	crm_disconnect(&acting);
	PG_RETURN_INT64(message_id);
}

static int
sort_contacts(int64 *contacts, int n)
{
	int unique = 0;

	qsort(contacts, n, sizeof(int64), crm_compare_int64);
	for (int i = 0; i < n; i++)
		if (unique == 0 || contacts[unique - 1] != contacts[i])
			contacts[unique++] = contacts[i];
	return unique;
}

int
crm_contacts_lock(int64 *contacts, int n)
{
	n = sort_contacts(contacts, n);
	while (!crm_contact_try_lock(contacts, n, NULL, NULL))
	{
		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < n; i++)
			contacts[i] = crm_contact_resolve(contacts[i]);
		n = sort_contacts(contacts, n);
	}
	return n;
}

Datum
crm_sql_send_many(PG_FUNCTION_ARGS)
{
	CrmSending sending = { 0 };
	CrmActing acting;
	ArrayType *array;
	Datum *values;
	bool *nulls;
	int n;
	int64 *contacts;
	int64 queued = 0;

	crm_require_argument("send_many", "contact_ids", PG_ARGISNULL(0));
	read_arguments(fcinfo, "send_many", &sending);
	array = PG_GETARG_ARRAYTYPE_P(0);
	deconstruct_array(array, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &values,
					  &nulls, &n);
	contacts = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(int64) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("contact_ids of crm.send_many() must not hold NULL"),
					 errhint("Leave out who is not known.")));
		contacts[i] = DatumGetInt64(values[i]);
	}
	crm_connect(&acting);
	if (n > 0)
	{
		sending.ncontacts = crm_contacts_lock(contacts, n);
		sending.contacts = contacts;
		queued = crm_outbox_send(&sending);
	}
	crm_disconnect(&acting);
	PG_RETURN_INT64(queued);
}

Datum
crm_sql_cancel_message(PG_FUNCTION_ARGS)
{
	CrmActing acting;
	bool cancelled;

	crm_require_argument("cancel_message", "contact_id", PG_ARGISNULL(0));
	crm_require_argument("cancel_message", "message_id", PG_ARGISNULL(1));
	crm_connect(&acting);
	cancelled = crm_outbox_cancel(crm_contact_lock(PG_GETARG_INT64(0)), PG_GETARG_INT64(1));
	crm_disconnect(&acting);
	PG_RETURN_BOOL(cancelled);
}

Datum
crm_sql_resolve_message(PG_FUNCTION_ARGS)
{
	CrmActing acting;
	char *note = crm_text_argument(fcinfo, 3);

	crm_require_argument("resolve_message", "contact_id", PG_ARGISNULL(0));
	crm_require_argument("resolve_message", "message_id", PG_ARGISNULL(1));
	crm_require_argument("resolve_message", "state", PG_ARGISNULL(2));
	if (note != NULL)
		crm_check_document("note", PG_GETARG_DATUM(3));
	crm_connect(&acting);
	crm_outbox_resolve(crm_contact_lock(PG_GETARG_INT64(0)), PG_GETARG_INT64(1),
					   crm_text_argument(fcinfo, 2), note);
	crm_disconnect(&acting);
	PG_RETURN_VOID();
}
