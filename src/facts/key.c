/*
 * key.c
 *		Idempotency keys of scans and events. Callers hold the contact's lock,
 *		so a key is either there, committed, or nobody else is about to add it.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "facts/record.h"

/* hexadecimal digits kept of a SHA-256: 128 bits tell contents apart */
#define DIGEST_LENGTH 32

static CrmPlan find_key = { "SELECT k.id, k.digest, k.occurred_at, k.is_first FROM crm.fact_key k"
							" WHERE k.contact_id = $1 AND k.source = $2 AND k.key = $3",
							3,
							{ INT8OID, TEXTOID, TEXTOID } };
static CrmPlan insert_key = {
	"INSERT INTO crm.fact_key (contact_id, source, key, id, digest, occurred_at, is_first)"
	" VALUES ($1, $2, $3, $4, $5, $6, $7)",
	7,
	{ INT8OID, TEXTOID, TEXTOID, INT8OID, TEXTOID, TIMESTAMPTZOID, BOOLOID }
};

void
crm_check_optional_key(const char *key)
{
	if (key != NULL)
		crm_check_key("key", key);
}

char *
crm_digest(const char *content)
{
	Datum bytes = PointerGetDatum(cstring_to_text(content));
	bytea *hash = DatumGetByteaPP(DirectFunctionCall1(sha256_bytea, bytes));
	char *digest = palloc(DIGEST_LENGTH + 1);

	hex_encode(VARDATA_ANY(hash), DIGEST_LENGTH / 2, digest);
	digest[DIGEST_LENGTH] = '\0';
	return digest;
}

bool
crm_key_replayed(int64 contact_id, const char *source, const char *key, const char *digest,
				 TimestampTz at, bool at_given, CrmReplay *replay)
{
	CrmActing acting;
	Datum values[3];
	bool found;
	bool isnull;

	if (key == NULL)
		return false;
	crm_connect(&acting);
	values[0] = Int64GetDatum(contact_id);
	values[1] = CStringGetTextDatum(source);
	values[2] = CStringGetTextDatum(key);
	found = crm_run(&find_key, values, NULL) > 0;
	if (found)
	{
		TimestampTz recorded = DatumGetTimestampTz(crm_result(0, 3, &isnull));

		if (strcmp(crm_result_text(0, 2), digest) != 0)
			ereport(
				ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg(
					 "key \"%s\" was used with other content for a fact of kind %s of contact %lld",
					 key, source, (long long) contact_id),
				 errhint(
					 "Repeat a call with the same arguments, or give the new fact a key of its own.")));
		if (at_given && recorded != at)
			ereport(
				ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg(
					 "key \"%s\" was used at %s, not at %s, for a fact of kind %s of contact %lld",
					 key, pstrdup(timestamptz_to_str(recorded)), pstrdup(timestamptz_to_str(at)),
					 source, (long long) contact_id),
				 errhint(
					 "Repeat a call with the same time or without one, or give the new fact a key of its own.")));
		replay->id = crm_result_int64(0, 1);
		replay->is_first = DatumGetBool(crm_result(0, 4, &isnull)) && !isnull;
	}
	crm_disconnect(&acting);
	return found;
}

void
crm_key_record(int64 contact_id, const char *source, const char *key, const char *digest,
			   TimestampTz at, int64 id, const bool *is_first)
{
	CrmActing acting;
	Datum values[7];

	if (key == NULL)
		return;
	crm_connect(&acting);
	values[0] = Int64GetDatum(contact_id);
	values[1] = CStringGetTextDatum(source);
	values[2] = CStringGetTextDatum(key);
	values[3] = Int64GetDatum(id);
	values[4] = CStringGetTextDatum(digest);
	values[5] = TimestampTzGetDatum(at);
	values[6] = BoolGetDatum(is_first != NULL && *is_first);
	crm_run(&insert_key, values, is_first == NULL ? "      n" : NULL);
	crm_disconnect(&acting);
}
