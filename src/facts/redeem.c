/*
 * redeem.c
 *		A coupon used at a shop. Each reason to refuse it has words of its own
 *		for the attendant.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "facts/coupon.h"
#include "facts/record.h"

PG_FUNCTION_INFO_V1(crm_sql_redeem_coupon);

/* the code as given, or as it is when typed in with spaces, hyphens and small letters */
static CrmPlan find_code = {
	"SELECT c.code, c.contact_id FROM crm.coupon_code c WHERE c.code = ANY (ARRAY[$1, $2])"
	" AND c.contact_id IS NOT NULL ORDER BY c.code = $1 DESC LIMIT 1",
	2,
	{ TEXTOID, TEXTOID }
};
/* of grants that are one since a merge, the one that was redeemed speaks for all */
static CrmPlan find_grant = {
	"SELECT g.coupon_grant_id, g.coupon, g.issued_at, g.expires_at, g.store_id, c.one_per,"
	" $3 = ANY (c.stores), c.stores IS NOT NULL, c.valid_from,"
	" r.redeemed_at, r.coupon_grant_id = g.coupon_grant_id"
	" FROM crm.coupon_grant g LEFT JOIN crm.coupon c ON c.name = g.coupon"
	" LEFT JOIN LATERAL (SELECT o.redeemed_at, o.coupon_grant_id FROM crm.coupon_grant o"
	"  WHERE o.contact_id = g.contact_id AND o.redeemed_at IS NOT NULL"
	"   AND (o.coupon_grant_id = g.coupon_grant_id OR (o.coupon = g.coupon AND o.once = g.once))"
	"  ORDER BY o.coupon_grant_id = g.coupon_grant_id DESC, o.redeemed_at LIMIT 1) r ON true"
	" WHERE g.contact_id = $1 AND g.code = $2",
	3,
	{ INT8OID, TEXTOID, INT8OID }
};
static CrmPlan set_redeemed = {
	"UPDATE crm.coupon_grant SET redeemed_at = $3, redeemed_store_id = $4"
	" WHERE contact_id = $1 AND coupon_grant_id = $2",
	4,
	{ INT8OID, INT8OID, TIMESTAMPTZOID, INT8OID }
};

static char *
plain_code(const char *code)
{
	char *plain = palloc(strlen(code) + 1);
	char *end = plain;

	for (const char *c = code; *c != '\0'; c++)
		if (*c != ' ' && *c != '-')
			*end++ = pg_ascii_toupper((unsigned char) *c);
	*end = '\0';
	return plain;
}

/* The code as it is kept, of this contact. */
static char *
owned_code(const char *code, int64 contact_id)
{
	Datum values[2] = { CStringGetTextDatum(code), CStringGetTextDatum(plain_code(code)) };

	if (crm_run(&find_code, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("coupon code \"%s\" does not exist", code),
				 errhint("Read it again from the customer's screen.")));
	if (crm_result_int64(0, 2) != contact_id)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("coupon code \"%s\" belongs to somebody else", code),
				 errhint("A coupon is used by the customer who was given it.")));
	return crm_result_text(0, 1);
}

static void
check_time(const char *code, TimestampTz at)
{
	bool isnull;
	TimestampTz issued_at = DatumGetTimestampTz(crm_result(0, 3, &isnull));
	TimestampTz limit;

	if (at < issued_at)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("coupon code \"%s\" was issued at %s, after the %s given", code,
						pstrdup(timestamptz_to_str(issued_at)), pstrdup(timestamptz_to_str(at))),
				 errhint("Give the time at which it was redeemed, or NULL for now.")));
	limit = DatumGetTimestampTz(crm_result(0, 9, &isnull));
	if (!isnull && at < limit)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("coupon code \"%s\" is not valid before %s", code,
						timestamptz_to_str(limit)),
				 errhint("Ask the customer to come back then.")));
	limit = DatumGetTimestampTz(crm_result(0, 4, &isnull));
	if (!isnull && at >= limit)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("coupon code \"%s\" expired at %s", code, timestamptz_to_str(limit)),
				 errhint("An expired coupon is not redeemed; the brand may issue another one.")));
}

static void
check_place(const char *code, const int64 *store_id)
{
	char *one_per = crm_result_text(0, 6);
	bool for_store = one_per != NULL && strcmp(one_per, "store") == 0;
	bool isnull;
	bool listed = DatumGetBool(crm_result(0, 7, &isnull)) && !isnull;
	bool some_only = DatumGetBool(crm_result(0, 8, &isnull));
	int64 granted_for = crm_result_int64(0, 5);

	if (!some_only && !for_store)
		return;
	if (store_id == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			 errmsg("argument store_id of crm.redeem_coupon() must not be NULL: coupon \"%s\" is"
					" not valid everywhere",
					crm_result_text(0, 2)),
			 errhint("Give the shop where it is redeemed.")));
	if ((some_only && !listed) || (for_store && granted_for != *store_id))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("coupon code \"%s\" is not valid at store %lld", code,
						(long long) *store_id),
				 for_store ? errhint("It was issued for store %lld.", (long long) granted_for)
						   : errhint("Its shops are listed in column stores of crm.coupon.")));
}

/* Returns the id of the grant, after the coupon may be redeemed. */
static int64
check_grant(int64 contact_id, const char *code, TimestampTz at, const int64 *store_id,
			char **coupon)
{
	Datum values[3] = { Int64GetDatum(contact_id), CStringGetTextDatum(code),
						Int64GetDatum(store_id == NULL ? 0 : *store_id) };
	Datum redeemed_at;
	bool unused;
	bool isnull;

	if (crm_run(&find_grant, values, store_id == NULL ? "  n" : NULL) == 0)
		crm_row_missing("coupon_grant of a code of contact", contact_id);
	redeemed_at = crm_result(0, 10, &unused);
	if (!unused)
		ereport(
			ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 DatumGetBool(crm_result(0, 11, &isnull))
				 ? errmsg("coupon code \"%s\" was redeemed at %s", code,
						  timestamptz_to_str(DatumGetTimestampTz(redeemed_at)))
				 : errmsg("coupon code \"%s\" is the second of a coupon that was redeemed at %s",
						  code, timestamptz_to_str(DatumGetTimestampTz(redeemed_at))),
			 errhint("A coupon is redeemed once.")));
	check_time(code, at);
	check_place(code, store_id);
	*coupon = crm_result_text(0, 2);
	return crm_result_int64(0, 1);
}

Datum
crm_sql_redeem_coupon(PG_FUNCTION_ARGS)
{
	bool at_given;
	TimestampTz at;
	char *code;
	char *key;
	char *digest;
	char *coupon;
	int64 store_id = 0;
	const int64 *store = NULL;
	int64 contact_id;
	int64 coupon_grant_id;
	Datum values[4];
	CrmReplay replay;
	CrmActing acting;

	crm_require_argument("redeem_coupon", "contact_id", PG_ARGISNULL(0));
	crm_require_argument("redeem_coupon", "code", PG_ARGISNULL(1));
	code = crm_text_argument(fcinfo, 1);
	crm_check_key("code", code);
	if (!PG_ARGISNULL(2))
	{
		store_id = PG_GETARG_INT64(2);
		store = &store_id;
	}
	at = crm_time_argument(fcinfo, 3, &at_given);
	key = crm_text_argument(fcinfo, 4);
	crm_check_optional_key(key);
	digest = crm_digest(psprintf("%s %lld", plain_code(code), (long long) store_id));

	crm_connect(&acting);
	contact_id = crm_contact_lock(PG_GETARG_INT64(0));
	if (!crm_key_replayed(contact_id, "redeem_coupon", key, digest, at, at_given, &replay))
	{
		if (store != NULL)
			crm_coupon_check_store(store_id);
		code = owned_code(code, contact_id);
		coupon_grant_id = check_grant(contact_id, code, at, store, &coupon);
		values[0] = Int64GetDatum(contact_id);
		values[1] = Int64GetDatum(coupon_grant_id);
		values[2] = TimestampTzGetDatum(at);
		values[3] = Int64GetDatum(store_id);
		crm_run(&set_redeemed, values, store == NULL ? "   n" : NULL);
		crm_coupon_record(contact_id, "redeem_coupon", at, coupon, coupon_grant_id, store);
		crm_key_record(contact_id, "redeem_coupon", key, digest, at, coupon_grant_id, NULL);
	}
	crm_disconnect(&acting);
	PG_RETURN_VOID();
}
