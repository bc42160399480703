/*
 * points.c
 *		Points given and taken by a call. The contact's lock makes the balance
 *		that is looked at the one that is changed.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "facts/record.h"
#include "profile/loyalty.h"

PG_FUNCTION_INFO_V1(crm_sql_earn_points);
PG_FUNCTION_INFO_V1(crm_sql_spend_points);

static CrmPlan find_balance = {
	"SELECT p.loyalty_program_id, coalesce(b.points, 0) FROM crm.loyalty_program p"
	" LEFT JOIN crm.point_balance b ON b.contact_id = $2"
	"  AND b.loyalty_program_id = p.loyalty_program_id WHERE p.name = $1",
	2,
	{ TEXTOID, INT8OID }
};
static CrmPlan find_entry = {
	"SELECT e.balance_after FROM crm.point_entry e WHERE e.contact_id = $1 AND e.point_entry_id = $2",
	2,
	{ INT8OID, INT8OID }
};

static int64
enter(int64 contact_id, const char *program, int64 points, const char *reason, int64 *entry)
{
	Datum values[2] = { CStringGetTextDatum(program), Int64GetDatum(contact_id) };
	int64 balance;
	int64 program_id;

	if (crm_run(&find_balance, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("loyalty program \"%s\" does not exist", program),
				 errhint("Insert it into crm.loyalty_program first.")));
	program_id = crm_result_int64(0, 1);
	balance = crm_result_int64(0, 2);
	if (points < 0 && balance + points < 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("contact %lld has %lld points in \"%s\", fewer than the %lld to spend",
						(long long) contact_id, (long long) balance, program, (long long) -points),
				 errhint("Points are spent down to 0.")));
	if (points > 0 && balance > PG_INT64_MAX - points)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("balance of contact %lld would be out of range", (long long) contact_id),
				 errhint("A balance is at most %lld.", (long long) PG_INT64_MAX)));
	return crm_points_enter(contact_id, program_id, points, reason, entry);
}

static Datum
move_points(FunctionCallInfo fcinfo, const char *function, int sign)
{
	char *program;
	char *reason;
	char *key;
	char *digest;
	int64 points;
	int64 contact_id;
	int64 entry;
	int64 balance;
	Datum values[2];
	CrmReplay replay;
	CrmActing acting;

	crm_require_argument(function, "contact_id", PG_ARGISNULL(0));
	crm_require_argument(function, "program", PG_ARGISNULL(1));
	crm_require_argument(function, "points", PG_ARGISNULL(2));
	program = crm_text_argument(fcinfo, 1);
	crm_check_key("program", program);
	points = PG_GETARG_INT64(2);
	if (points < 1 || points > CRM_MAX_POINTS)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("points must be from 1 to %lld, not %lld", (long long) CRM_MAX_POINTS,
						(long long) points),
				 errhint(
					 "Give points with crm.earn_points() and take them with crm.spend_points().")));
	if (!PG_ARGISNULL(3))
		crm_check_document("reason", PG_GETARG_DATUM(3));
	reason = crm_text_argument(fcinfo, 3);
	key = crm_text_argument(fcinfo, 4);
	crm_check_optional_key(key);
	digest = crm_digest(psprintf("%lld %s %s%s", (long long) points, program,
								 reason == NULL ? "" : "because ", reason == NULL ? "" : reason));

	crm_connect(&acting);
	contact_id = crm_contact_lock(PG_GETARG_INT64(0));
	if (crm_key_replayed(contact_id, function, key, digest, crm_now(), false, &replay))
	{
		values[0] = Int64GetDatum(contact_id);
		values[1] = Int64GetDatum(replay.id);
		if (crm_run(&find_entry, values, NULL) == 0)
			crm_row_missing("point_entry of a key", replay.id);
		balance = crm_result_int64(0, 1);
	}
	else
	{
		balance = enter(contact_id, program, sign * points, reason, &entry);
		crm_key_record(contact_id, function, key, digest, crm_now(), entry, NULL);
	}
	crm_disconnect(&acting);
	PG_RETURN_INT64(balance);
}

Datum
crm_sql_earn_points(PG_FUNCTION_ARGS)
{
	return move_points(fcinfo, "earn_points", 1);
}

Datum
crm_sql_spend_points(PG_FUNCTION_ARGS)
{
	return move_points(fcinfo, "spend_points", -1);
}
