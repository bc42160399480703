/*
 * record.c
 *		Facts that are more than an event: joining a loyalty programme, and a
 *		stage set by hand.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "facts/record.h"
#include "profile/loyalty.h"

PG_FUNCTION_INFO_V1(crm_sql_join_loyalty);
PG_FUNCTION_INFO_V1(crm_sql_set_stage);

static CrmPlan find_program = {
	"SELECT p.loyalty_program_id, p.active, EXISTS (SELECT FROM crm.membership m"
	"  WHERE m.contact_id = $2 AND m.loyalty_program_id = p.loyalty_program_id)"
	" FROM crm.loyalty_program p WHERE p.name = $1",
	2,
	{ TEXTOID, INT8OID }
};
static CrmPlan insert_membership = {
	"INSERT INTO crm.membership (contact_id, loyalty_program_id, joined_at) VALUES ($1, $2, $3)",
	3,
	{ INT8OID, INT8OID, TIMESTAMPTZOID }
};
static CrmPlan find_stage = { "SELECT FROM crm.stage s WHERE s.stage = $1", 1, { TEXTOID } };

/* A name of a definition; an empty one is simply unknown. */
static void
check_name(const char *what, const char *name)
{
	if (*name != '\0')
		crm_check_key(what, name);
}

Datum
crm_sql_join_loyalty(PG_FUNCTION_ARGS)
{
	static const char *const names[] = { "program" };
	const char *program;
	bool at_given;
	TimestampTz at;
	bool active;
	bool is_member;
	bool isnull;
	Datum values[3];
	int64 contact_id;
	CrmActing acting;

	crm_require_argument("join_loyalty", "contact_id", PG_ARGISNULL(0));
	crm_require_argument("join_loyalty", "program", PG_ARGISNULL(1));
	program = crm_text_argument(fcinfo, 1);
	check_name("program", program);
	at = crm_time_argument(fcinfo, 2, &at_given);

	crm_connect(&acting);
	contact_id = crm_contact_lock(PG_GETARG_INT64(0));
	values[0] = CStringGetTextDatum(program);
	values[1] = Int64GetDatum(contact_id);
	if (crm_run(&find_program, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("loyalty program \"%s\" does not exist", program),
				 errhint("Insert it into crm.loyalty_program first.")));
	values[1] = crm_result(0, 1, &isnull);
	active = DatumGetBool(crm_result(0, 2, &isnull));
	is_member = DatumGetBool(crm_result(0, 3, &isnull));
	if (!is_member && !active)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("loyalty program \"%s\" takes no new members", program),
				 errhint("Set active of its row in crm.loyalty_program.")));
	if (!is_member)
	{
		values[0] = Int64GetDatum(contact_id);
		values[2] = TimestampTzGetDatum(at);
		crm_run(&insert_membership, values, NULL);
		crm_event_record(contact_id, "join_loyalty", at, 0, crm_text_object(1, names, &program));
		/* what happened since then earns, and there may be a tier to begin with */
		crm_loyalty_recompute(&contact_id, 1, at, "join_loyalty");
	}
	crm_disconnect(&acting);
	PG_RETURN_VOID();
}

Datum
crm_sql_set_stage(PG_FUNCTION_ARGS)
{
	static const char *const names[] = { "stage", "reason" };
	const char *details[2];
	int64 contact_id;
	CrmActing acting;

	crm_require_argument("set_stage", "contact_id", PG_ARGISNULL(0));
	details[0] = crm_text_argument(fcinfo, 1);
	details[1] = crm_text_argument(fcinfo, 2);
	if (details[0] != NULL)
		check_name("stage", details[0]);

	crm_connect(&acting);
	contact_id = crm_contact_lock(PG_GETARG_INT64(0));
	if (details[0] != NULL)
	{
		Datum value = CStringGetTextDatum(details[0]);

		if (crm_run(&find_stage, &value, NULL) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
					 errmsg("stage \"%s\" does not exist", details[0]),
					 errhint("Use a stage of crm.stage, or NULL to let the rules decide again.")));
	}
	crm_event_record(contact_id, "set_stage", crm_now(), 0, crm_text_object(2, names, details));
	crm_disconnect(&acting);
	PG_RETURN_VOID();
}
