/*
 * follow.c
 *		People who follow an account, and those who leave.
 */
#include "postgres.h"

#include "utils/builtins.h"

#include "facts/record.h"

PG_FUNCTION_INFO_V1(crm_sql_follow);
PG_FUNCTION_INFO_V1(crm_sql_unfollow);

/* what the platform puts before the scene of a code that led to a follow */
/* scene: NULL or that of the code which led here */
static int64
record_follow(const char *kind, const char *account_name, const char *external_id,
			  const char *scene, TimestampTz at, bool at_given, const char *key)
{
	static const char *const names[] = { "scene" };
	CrmAccount account = crm_account_of_people(account_name);
	int64 contact_id;
	bool replayed;
	Datum properties = crm_text_object(scene == NULL ? 0 : 1, names, &scene);

	external_id = crm_identity_form(&account, external_id);
	contact_id = crm_contact_lock(crm_identify(&account, external_id, NULL));
	crm_event_record_once(contact_id, kind, at, at_given, account.account_id, properties, key,
						  &replayed);
	if (scene != NULL && !replayed)
	{
		int64 qr_code_id = crm_scan_find_code(scene, account.account_id, at);
		bool is_first;

		if (qr_code_id != 0)
			crm_scan_record(contact_id, qr_code_id, at, &is_first);
	}
	return contact_id;
}

Datum
crm_sql_follow(PG_FUNCTION_ARGS)
{
	const char *scene;
	const char *key;
	bool at_given;
	TimestampTz at;
	int64 contact_id;
	CrmActing acting;

	crm_require_argument("follow", "account", PG_ARGISNULL(0));
	crm_require_argument("follow", "external_id", PG_ARGISNULL(1));
	at = crm_time_argument(fcinfo, 2, &at_given);
	scene = crm_text_argument(fcinfo, 3);
	if (scene != NULL)
	{
		/* the platform sends an empty one with a follow that came from no code */
		scene = crm_bare_scene(scene);
		if (*scene == '\0')
			scene = NULL;
		else
			crm_check_key("scene", scene);
	}
	key = crm_text_argument(fcinfo, 4);
	crm_check_optional_key(key);

	crm_act_as_owner(&acting);
	contact_id = record_follow("follow", crm_text_argument(fcinfo, 0), crm_text_argument(fcinfo, 1),
							   scene, at, at_given, key);
	crm_act_end(&acting);
	PG_RETURN_INT64(contact_id);
}

Datum
crm_sql_unfollow(PG_FUNCTION_ARGS)
{
	const char *key;
	bool at_given;
	TimestampTz at;
	int64 contact_id;
	CrmActing acting;

	crm_require_argument("unfollow", "account", PG_ARGISNULL(0));
	crm_require_argument("unfollow", "external_id", PG_ARGISNULL(1));
	at = crm_time_argument(fcinfo, 2, &at_given);
	key = crm_text_argument(fcinfo, 3);
	crm_check_optional_key(key);

	crm_act_as_owner(&acting);
	contact_id = record_follow("unfollow", crm_text_argument(fcinfo, 0),
							   crm_text_argument(fcinfo, 1), NULL, at, at_given, key);
	crm_act_end(&acting);
	PG_RETURN_INT64(contact_id);
}
