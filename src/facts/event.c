/*
 * event.c
 *		Events: recorded by the extension's own functions and by crm.track().
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "facts/record.h"

PG_FUNCTION_INFO_V1(crm_sql_track);

/* kinds that mean more than an event, and the function that knows what */
static const struct
{
	const char *kind;
	const char *function;
} kept_kinds[] = {
	{ "purchase", "purchase" },
	{ "refund", "refund" },
	{ "set_stage", "set_stage" },
	{ "bind_mobile", "bind_mobile" },
	{ "join_loyalty", "join_loyalty" },
	{ "issue_coupon", "issue_coupon" },
	{ "redeem_coupon", "redeem_coupon" },
	{ "suppress", "suppress" },
	{ "unsuppress", "unsuppress" },
	{ "grant_consent", "grant_consent" },
	{ "withdraw_consent", "withdraw_consent" },
};

static CrmPlan insert_event = {
	"INSERT INTO crm.event (contact_id, kind, occurred_at, account_id, properties)"
	" VALUES ($1, $2, $3, $4, $5) RETURNING event_id",
	5,
	{ INT8OID, TEXTOID, TIMESTAMPTZOID, INT8OID, JSONBOID }
};

int64
crm_event_record(int64 contact_id, const char *kind, TimestampTz at, int64 account_id,
				 Datum properties)
{
	CrmActing acting;
	Datum values[5];
	int64 id;

	crm_connect(&acting);
	values[0] = Int64GetDatum(contact_id);
	values[1] = CStringGetTextDatum(kind);
	values[2] = TimestampTzGetDatum(at);
	values[3] = Int64GetDatum(account_id);
	values[4] = properties;
	crm_run(&insert_event, values, account_id == 0 ? "   n " : NULL);
	id = crm_result_int64(0, 1);
	crm_disconnect(&acting);
	return id;
}

int64
crm_event_record_once(int64 contact_id, const char *kind, TimestampTz at, bool at_given,
					  int64 account_id, Datum properties, const char *key, bool *replayed)
{
	CrmReplay replay;
	char *digest = NULL;
	int64 id;

	if (key != NULL)
	{
		Jsonb *document = DatumGetJsonbP(properties);
		char *text = JsonbToCString(NULL, &document->root, VARSIZE(document));

		digest = crm_digest(psprintf("%lld %s", (long long) account_id, text));
	}
	*replayed = crm_key_replayed(contact_id, kind, key, digest, at, at_given, &replay);
	if (*replayed)
		return replay.id;
	id = crm_event_record(contact_id, kind, at, account_id, properties);
	crm_key_record(contact_id, kind, key, digest, at, id, NULL);
	return id;
}

Datum
crm_text_object(int n, const char *const *keys, const char *const *values)
{
	JsonbParseState *state = NULL;
	JsonbValue *result;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < n; i++)
	{
		JsonbValue item;

		item.type = jbvString;
		item.val.string.val = unconstify(char *, keys[i]);
		item.val.string.len = strlen(keys[i]);
		pushJsonbValue(&state, WJB_KEY, &item);
		if (values[i] == NULL)
			item.type = jbvNull;
		else
		{
			item.val.string.val = unconstify(char *, values[i]);
			item.val.string.len = strlen(values[i]);
		}
		pushJsonbValue(&state, WJB_VALUE, &item);
	}
	result = pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbPGetDatum(JsonbValueToJsonb(result));
}

static void
check_kind(const char *kind)
{
	crm_check_kind(kind);
	for (int i = 0; i < lengthof(kept_kinds); i++)
		if (strcmp(kind, kept_kinds[i].kind) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("kind \"%s\" cannot be tracked", kind),
					 errhint("Use crm.%s(), which records all that belongs to it.",
							 kept_kinds[i].function)));
}

Datum
crm_sql_track(PG_FUNCTION_ARGS)
{
	bool at_given;
	TimestampTz at;
	char *kind;
	char *key;
	int64 account_id = 0;
	int64 contact_id;
	int64 id;
	bool replayed;
	CrmActing acting;

	crm_require_argument("track", "contact_id", PG_ARGISNULL(0));
	crm_require_argument("track", "kind", PG_ARGISNULL(1));
	crm_require_argument("track", "properties", PG_ARGISNULL(2));
	kind = crm_text_argument(fcinfo, 1);
	check_kind(kind);
	crm_check_document("properties", PG_GETARG_DATUM(2));
	crm_check_object("properties", PG_GETARG_DATUM(2));
	at = crm_time_argument(fcinfo, 3, &at_given);
	key = crm_text_argument(fcinfo, 4);
	crm_check_optional_key(key);

	crm_act_as_owner(&acting);
	if (!PG_ARGISNULL(5))
		account_id = crm_account_find(crm_text_argument(fcinfo, 5), false).account_id;
	contact_id = crm_contact_lock(PG_GETARG_INT64(0));
	id = crm_event_record_once(contact_id, kind, at, at_given, account_id, PG_GETARG_DATUM(2), key,
							   &replayed);
	crm_act_end(&acting);
	PG_RETURN_INT64(id);
}
