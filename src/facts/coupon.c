/*
 * coupon.c
 *		Defining coupons and giving them to contacts. That a contact gets one
 *		once is a unique index of coupon_grant; the contact's lock only lets the
 *		call say so in words.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/document.h"
#include "facts/coupon.h"
#include "facts/record.h"

PG_FUNCTION_INFO_V1(crm_define_coupon);
PG_FUNCTION_INFO_V1(crm_sql_issue_coupon);

/* neither of two that look alike (0 O, 1 I L, 2 Z, 5 S, 8 B, U V), and a prime number of them */
static const char code_alphabet[] = "ACDEFGHJKMNPQRTVWXY3479";
#define CODE_ATTEMPTS 10

/* Shared by all who issue it; who changes the definition waits for them, and they for him. */
static CrmPlan find_coupon = {
	"SELECT c.codes, c.code_prefix, c.code_length, c.one_per, c.max_grants, c.valid_from,"
	" c.valid_until, c.version, least(c.valid_until, timezone(crm.default_time_zone(),"
	"  timezone(crm.default_time_zone(), $2) + c.valid_for))"
	" FROM crm.coupon c WHERE c.name = $1 FOR SHARE",
	2,
	{ TEXTOID, TIMESTAMPTZOID }
};
static CrmPlan find_grant = {
	"SELECT g.code, g.issued_at FROM crm.coupon_grant g"
	" WHERE g.contact_id = $1 AND g.coupon = $2 AND g.once = $3 ORDER BY g.coupon_grant_id LIMIT 1",
	3,
	{ INT8OID, TEXTOID, TEXTOID }
};
static CrmPlan find_code_of_grant = {
	"SELECT g.code FROM crm.coupon_grant g WHERE g.contact_id = $1 AND g.coupon_grant_id = $2",
	2,
	{ INT8OID, INT8OID }
};
static CrmPlan insert_grant = {
	"INSERT INTO crm.coupon_grant (contact_id, coupon, code, store_id, once, issued_at, recorded_at,"
	" expires_at) VALUES ($1, $2, $3, $4, $5, $6, $6, $7) RETURNING coupon_grant_id",
	7,
	{ INT8OID, TEXTOID, TEXTOID, INT8OID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID }
};

static CrmPlan make_counter = { "INSERT INTO crm.coupon_counter (coupon, version, granted)"
								" VALUES ($1, 0, 0) ON CONFLICT (coupon) DO NOTHING",
								1,
								{ TEXTOID } };
static CrmPlan lock_counter = {
	"SELECT n.version, n.granted FROM crm.coupon_counter n WHERE n.coupon = $1 FOR UPDATE",
	1,
	{ TEXTOID }
};
static CrmPlan count_grants = { "SELECT count(*) FROM crm.coupon_grant g WHERE g.coupon = $1",
								1,
								{ TEXTOID } };
static CrmPlan set_counter = {
	"UPDATE crm.coupon_counter SET version = $2, granted = $3 WHERE coupon = $1",
	3,
	{ TEXTOID, INT4OID, INT8OID }
};

#define TAKE_CODE(how)                                                                        \
	"UPDATE crm.coupon_code t SET contact_id = $2 FROM (SELECT c.code FROM crm.coupon_code c" \
	"  WHERE c.coupon = $1 AND c.contact_id IS NULL LIMIT 1 FOR UPDATE" how ") f"             \
	" WHERE t.code = f.code RETURNING t.code"

static CrmPlan take_free_code = { TAKE_CODE(" SKIP LOCKED"), 2, { TEXTOID, INT8OID } };
/* those left are being taken: by somebody who may yet give his back */
static CrmPlan take_last_code = { TAKE_CODE(""), 2, { TEXTOID, INT8OID } };
static CrmPlan has_free_code = {
	"SELECT FROM crm.coupon_code c WHERE c.coupon = $1 AND c.contact_id IS NULL LIMIT 1",
	1,
	{ TEXTOID }
};
static CrmPlan insert_code = {
	"INSERT INTO crm.coupon_code (code, coupon, contact_id) VALUES ($1, $2, $3)"
	" ON CONFLICT (code) DO NOTHING",
	3,
	{ TEXTOID, TEXTOID, INT8OID }
};
static CrmPlan find_store = { "SELECT FROM crm.store s WHERE s.store_id = $1", 1, { INT8OID } };
static CrmPlan find_unknown_store = {
	"SELECT u.store_id FROM crm.coupon c CROSS JOIN LATERAL unnest(c.stores) AS u(store_id)"
	" WHERE c.name = $1 AND NOT EXISTS (SELECT FROM crm.store s WHERE s.store_id = u.store_id) LIMIT 1",
	1,
	{ TEXTOID }
};
static CrmPlan describe_grant = {
	"SELECT jsonb_strip_nulls(jsonb_build_object('coupon', $1, 'coupon_grant_id', $2,"
	" 'store_id', $3))",
	3,
	{ TEXTOID, INT8OID, INT8OID }
};

typedef struct Coupon
{
	const char *name;
	Datum name_text;
	bool pool;
	char *prefix;
	int length;
	char *one_per;
	bool limited;
	int64 max_grants;
	int version;
	Datum expires_at;
	bool never_expires;
} Coupon;

static void
refuse_store(int64 store_id)
{
	ereport(ERROR,
			(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
			 errmsg("store %lld does not exist", (long long) store_id),
			 errhint("Insert it into crm.store first.")));
}

Datum
crm_define_coupon(PG_FUNCTION_ARGS)
{
	static const char *const required[] = { "name" };
	CrmDocument *document = crm_document_open(fcinfo, "define_coupon");
	JsonbValue *name;
	Datum value;
	CrmActing acting;
	int version;

	crm_document_check_keys(document, "coupon", NULL, 0);
	crm_document_require(document, required, lengthof(required));
	crm_connect(&acting);
	version = crm_document_save(document, "coupon", required, 1);
	name = crm_document_value(document, "name");
	value = PointerGetDatum(cstring_to_text_with_len(name->val.string.val, name->val.string.len));
	if (crm_run(&find_unknown_store, &value, NULL) > 0)
		refuse_store(crm_result_int64(0, 1));
	crm_disconnect(&acting);
	PG_RETURN_INT32(version);
}

void
crm_coupon_check_store(int64 store_id)
{
	Datum value = Int64GetDatum(store_id);

	if (crm_run(&find_store, &value, NULL) == 0)
		refuse_store(store_id);
}

void
crm_coupon_record(int64 contact_id, const char *kind, TimestampTz at, const char *coupon,
				  int64 coupon_grant_id, const int64 *store_id)
{
	Datum values[3] = { CStringGetTextDatum(coupon), Int64GetDatum(coupon_grant_id),
						Int64GetDatum(store_id == NULL ? 0 : *store_id) };
	bool isnull;

	crm_run(&describe_grant, values, store_id == NULL ? "  n" : NULL);
	crm_event_record(contact_id, kind, at, 0, crm_result(0, 1, &isnull));
}

static void
read_coupon(Coupon *coupon, const char *name, TimestampTz now)
{
	Datum values[2];
	bool isnull;
	Datum from;
	Datum until;

	coupon->name = name;
	coupon->name_text = values[0] = CStringGetTextDatum(name);
	values[1] = TimestampTzGetDatum(now);
	if (crm_run(&find_coupon, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("coupon \"%s\" does not exist", name),
				 errhint("Define it with crm.define_coupon() first.")));
	coupon->pool = strcmp(crm_result_text(0, 1), "pool") == 0;
	coupon->prefix = crm_result_text(0, 2);
	coupon->length = DatumGetInt32(crm_result(0, 3, &isnull));
	coupon->one_per = crm_result_text(0, 4);
	coupon->max_grants = crm_result_int64(0, 5);
	(void) crm_result(0, 5, &isnull);
	coupon->limited = !isnull;
	from = crm_result(0, 6, &isnull);
	if (!isnull && now < DatumGetTimestampTz(from))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("coupon \"%s\" is not issued before %s", name,
						timestamptz_to_str(DatumGetTimestampTz(from))),
				 errhint("Change valid_from with crm.define_coupon() to begin earlier.")));
	until = crm_result(0, 7, &isnull);
	if (!isnull && now >= DatumGetTimestampTz(until))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("coupon \"%s\" ended at %s", name,
						timestamptz_to_str(DatumGetTimestampTz(until))),
				 errhint("Change valid_until with crm.define_coupon() to go on.")));
	coupon->version = DatumGetInt32(crm_result(0, 8, &isnull));
	coupon->expires_at = crm_result(0, 9, &coupon->never_expires);
}

/* What it is given once for, NULL where it may be given often. */
static char *
scope_of(const Coupon *coupon, const int64 *store_id)
{
	if (coupon->one_per == NULL)
		return NULL;
	if (strcmp(coupon->one_per, "contact") == 0)
		return pstrdup("contact");
	if (store_id == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument store_id of crm.issue_coupon() must not be NULL: coupon \"%s\" is"
						" one per store",
						coupon->name),
				 errhint("Give the shop for which it is issued.")));
	return psprintf("store %lld", (long long) *store_id);
}

static void
refuse_second(const Coupon *coupon, int64 contact_id, const char *once)
{
	Datum values[3] = { Int64GetDatum(contact_id), coupon->name_text, CStringGetTextDatum(once) };
	bool isnull;

	if (crm_run(&find_grant, values, NULL) > 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("contact %lld got coupon \"%s\" at %s already", (long long) contact_id,
					coupon->name,
					timestamptz_to_str(DatumGetTimestampTz(crm_result(0, 2, &isnull)))),
			 errhint(
				 "It is one per %s; to repeat a call and get the first code, give the same key each time.",
				 coupon->one_per)));
}

/* The last ones are given one after the other. */
static void
count_grant(const Coupon *coupon)
{
	Datum values[3] = { coupon->name_text, Int32GetDatum(coupon->version), (Datum) 0 };
	int64 granted;
	bool isnull;

	if (!coupon->limited)
		return;
	while (crm_run(&lock_counter, values, NULL) == 0)
	{
		CHECK_FOR_INTERRUPTS();
		crm_run(&make_counter, values, NULL);
	}
	granted = crm_result_int64(0, 2);
	if (DatumGetInt32(crm_result(0, 1, &isnull)) != coupon->version)
	{
		crm_run(&count_grants, values, NULL);
		granted = crm_result_int64(0, 1);
	}
	if (granted >= coupon->max_grants)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("all %lld of coupon \"%s\" have been issued",
						(long long) coupon->max_grants, coupon->name),
				 errhint("Change max_grants with crm.define_coupon() to issue more.")));
	values[2] = Int64GetDatum(granted + 1);
	crm_run(&set_counter, values, NULL);
}

/* Every character is as likely as any other: bytes beyond the last multiple are passed over. */
static char *
random_code(const Coupon *coupon)
{
	const int size = sizeof(code_alphabet) - 1;
	const int limit = 256 - 256 % size;
	StringInfoData code;
	int made = 0;

	initStringInfo(&code);
	if (coupon->prefix != NULL)
		appendStringInfoString(&code, coupon->prefix);
	while (made < coupon->length)
	{
		uint8 bytes[64];

		if (!pg_strong_random(bytes, sizeof(bytes)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not generate a random code"),
					 errhint("The operating system gave no random numbers; try again.")));
		for (int i = 0; i < sizeof(bytes) && made < coupon->length; i++)
			if (bytes[i] < limit)
			{
				appendStringInfoChar(&code, code_alphabet[bytes[i] % size]);
				made++;
			}
	}
	return code.data;
}

static char *
take_code(const Coupon *coupon, int64 contact_id)
{
	Datum values[3] = { coupon->name_text, Int64GetDatum(contact_id), (Datum) 0 };

	if (crm_run(&take_free_code, values, NULL) > 0)
		return crm_result_text(0, 1);
	while (crm_run(&has_free_code, values, NULL) > 0)
	{
		CHECK_FOR_INTERRUPTS();
		if (crm_run(&take_last_code, values, NULL) > 0)
			return crm_result_text(0, 1);
	}
	ereport(ERROR,
			(errcode(ERRCODE_CHECK_VIOLATION),
			 errmsg("coupon \"%s\" has no free code left", coupon->name),
			 errhint("Insert more codes into crm.coupon_code.")));
	return NULL; /* keep the compiler quiet */
}

static char *
make_code(const Coupon *coupon, int64 contact_id)
{
	if (coupon->pool)
		return take_code(coupon, contact_id);
	for (int i = 0; i < CODE_ATTEMPTS; i++)
	{
		char *code = random_code(coupon);
		Datum values[3] = { CStringGetTextDatum(code), coupon->name_text,
							Int64GetDatum(contact_id) };

		if (crm_run(&insert_code, values, NULL) > 0)
			return code;
	}
	ereport(ERROR,
			(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
			 errmsg("no unused code of %d characters was found for coupon \"%s\"", coupon->length,
					coupon->name),
			 errhint("Give the coupon a larger code_length with crm.define_coupon().")));
	return NULL; /* keep the compiler quiet */
}

static int64
grant(const Coupon *coupon, int64 contact_id, const char *code, const char *once,
	  const int64 *store_id, TimestampTz now)
{
	Datum values[7] = {
		Int64GetDatum(contact_id),
		coupon->name_text,
		CStringGetTextDatum(code),
		Int64GetDatum(store_id == NULL ? 0 : *store_id),
		once == NULL ? (Datum) 0 : CStringGetTextDatum(once),
		TimestampTzGetDatum(now),
		coupon->expires_at,
	};
	char nulls[8] = "       ";

	nulls[3] = store_id == NULL ? 'n' : ' ';
	nulls[4] = once == NULL ? 'n' : ' ';
	nulls[6] = coupon->never_expires ? 'n' : ' ';
	crm_run(&insert_grant, values, nulls);
	return crm_result_int64(0, 1);
}

/* Returns the code, and the id of the grant. */
static char *
issue(int64 contact_id, const char *name, const int64 *store_id, int64 *coupon_grant_id)
{
	TimestampTz now = crm_now();
	Coupon coupon;
	char *once;
	char *code;

	if (store_id != NULL)
		crm_coupon_check_store(*store_id);
	read_coupon(&coupon, name, now);
	once = scope_of(&coupon, store_id);
	if (once != NULL)
		refuse_second(&coupon, contact_id, once);
	count_grant(&coupon);
	code = make_code(&coupon, contact_id);
	*coupon_grant_id = grant(&coupon, contact_id, code, once, store_id, now);
	crm_coupon_record(contact_id, "issue_coupon", now, name, *coupon_grant_id, store_id);
	return code;
}

Datum
crm_sql_issue_coupon(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	char *coupon;
	char *code;
	char *key;
	char *digest;
	int64 store_id = 0;
	bool has_store = !PG_ARGISNULL(3);
	CrmReplay replay;
	Datum values[2];
	Datum result;
	int64 contact_id;
	CrmActing acting;

	crm_require_argument("issue_coupon", "contact_id", PG_ARGISNULL(0));
	crm_require_argument("issue_coupon", "coupon", PG_ARGISNULL(1));
	coupon = crm_text_argument(fcinfo, 1);
	crm_check_key("coupon", coupon);
	key = crm_text_argument(fcinfo, 2);
	crm_check_optional_key(key);
	if (has_store)
		store_id = PG_GETARG_INT64(3);
	digest = crm_digest(psprintf("%s %lld", coupon, (long long) store_id));

	crm_connect(&acting);
	contact_id = crm_contact_lock(PG_GETARG_INT64(0));
	if (crm_key_replayed(contact_id, "issue_coupon", key, digest, crm_now(), false, &replay))
	{
		values[0] = Int64GetDatum(contact_id);
		values[1] = Int64GetDatum(replay.id);
		if (crm_run(&find_code_of_grant, values, NULL) == 0)
			crm_row_missing("coupon_grant of a key", replay.id);
		code = crm_result_text(0, 1);
	}
	else
	{
		int64 id;

		code = issue(contact_id, coupon, has_store ? &store_id : NULL, &id);
		crm_key_record(contact_id, "issue_coupon", key, digest, crm_now(), id, NULL);
	}
	/* it outlives SPI */
	MemoryContextSwitchTo(caller);
	result = CStringGetTextDatum(code);
	crm_disconnect(&acting);
	PG_RETURN_DATUM(result);
}
