/*
 * bind.c
 *		A person proves a mobile number. That may join two contacts: the one who
 *		follows and the one whom the shop knows by the number.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "facts/record.h"
#include "profile/profile.h"
#include "profile/segment.h"
#include "types/mobile.h"

PG_FUNCTION_INFO_V1(crm_sql_bind_mobile);

/* owner of the number until its contact is locked */
#define NOBODY 0

static CrmPlan find_number = {
	"SELECT i.contact_id, i.verified_at IS NOT NULL FROM crm.identity i"
	" WHERE i.kind = 'mobile' AND i.account_id = 0 AND i.external_id = $1",
	1,
	{ TEXTOID }
};
static CrmPlan give_number = {
	"UPDATE crm.identity i SET contact_id = $2, bound_at = $3, verified_at = $3"
	" WHERE i.kind = 'mobile' AND i.account_id = 0 AND i.external_id = $1",
	3,
	{ TEXTOID, INT8OID, TIMESTAMPTZOID }
};
static CrmPlan verify_number = {
	"UPDATE crm.identity i SET verified_at = least(i.verified_at, $2),"
	" bound_at = least(i.bound_at, $2)"
	" WHERE i.kind = 'mobile' AND i.account_id = 0 AND i.external_id = $1"
	" AND (i.verified_at IS NULL OR i.verified_at > $2 OR i.bound_at > $2)",
	2,
	{ TEXTOID, TIMESTAMPTZOID }
};

/*
 * The number becomes the contact's, which is locked; is_verified says whether
 * it was proved before. 0 where somebody else came in between.
 */
static int64
obtain(int64 contact_id, const char *mobile, TimestampTz at, bool *is_verified)
{
	Datum values[3];
	int64 owner;
	bool isnull;

	values[0] = CStringGetTextDatum(mobile);
	owner = crm_identity_owner("mobile", 0, mobile);
	if (owner == 0)
	{
		if (!crm_identity_claim("mobile", 0, mobile, NOBODY))
			return 0;
		contact_id = crm_contact_lock(contact_id);
		values[1] = Int64GetDatum(contact_id);
		values[2] = TimestampTzGetDatum(at);
		crm_run_protected(&give_number, values, NULL);
		crm_profile_recompute(&contact_id, 1, at);
		*is_verified = false;
		return contact_id;
	}

	if (crm_contact_resolve(contact_id) != owner)
		contact_id = crm_merge(contact_id, owner, "bind_mobile", mobile);
	contact_id = crm_contact_lock(contact_id);
	if (crm_run(&find_number, values, NULL) == 0 || crm_result_int64(0, 1) != contact_id)
		return 0;
	*is_verified = DatumGetBool(crm_result(0, 2, &isnull));
	values[1] = TimestampTzGetDatum(at);
	if (crm_run_protected(&verify_number, values, NULL) > 0)
		crm_profile_recompute(&contact_id, 1, at);
	return contact_id;
}

Datum
crm_sql_bind_mobile(PG_FUNCTION_ARGS)
{
	bool at_given;
	TimestampTz at;
	char *mobile;
	int64 given;
	int64 contact_id;
	bool is_verified;
	CrmActing acting;

	crm_require_argument("bind_mobile", "contact_id", PG_ARGISNULL(0));
	crm_require_argument("bind_mobile", "mobile", PG_ARGISNULL(1));
	mobile = crm_mobile_text(PG_GETARG_MOBILE(1));
	at = crm_time_argument(fcinfo, 2, &at_given);

	crm_connect(&acting);
	given = crm_contact_resolve(PG_GETARG_INT64(0));
	do
	{
		CHECK_FOR_INTERRUPTS();
		contact_id = obtain(given, mobile, at, &is_verified);
	} while (contact_id == 0);
	crm_contact_set_mobile(contact_id, mobile, false);
	crm_segments_refresh(&contact_id, 1, "bind_mobile", at);
	/* the number itself stays out of the event */
	if (!is_verified)
		crm_event_record(contact_id, "bind_mobile", at, 0, crm_text_object(0, NULL, NULL));
	crm_disconnect(&acting);
	PG_RETURN_INT64(contact_id);
}
