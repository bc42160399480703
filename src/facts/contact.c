/*
 * contact.c
 *		The contact that a call is about: merges followed, locked.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "base/clock.h"
#include "base/db.h"
#include "facts/record.h"
#include "profile/profile.h"
#include "profile/segment.h"

static CrmPlan lock_profiles = {
	"SELECT p.contact_id FROM crm.profile_counter p WHERE p.contact_id = ANY ($1)"
	" ORDER BY p.contact_id FOR NO KEY UPDATE",
	1,
	{ INT8ARRAYOID }
};
static CrmPlan lock_contact = {
	"SELECT p.contact_id FROM crm.profile_counter p WHERE p.contact_id = $1 FOR NO KEY UPDATE",
	1,
	{ INT8OID }
};
static CrmPlan find_contact = { "SELECT c.contact_id FROM crm.contact c WHERE c.contact_id = $1",
								1,
								{ INT8OID } };
static CrmPlan set_mobile = {
	"UPDATE crm.contact c SET mobile = $2::crm.mobile WHERE c.contact_id = $1"
	" AND CASE WHEN $3 THEN c.mobile IS NULL ELSE c.mobile::text IS DISTINCT FROM $2 END",
	3,
	{ INT8OID, TEXTOID, BOOLOID }
};

/*
 * Whoever waits for a contact that is just being merged finds it gone and goes
 * on to the survivor; hence the loop, and no look at the ledger beforehand.
 */
static int64
follow_merges(CrmPlan *find, int64 contact_id)
{
	int64 current = contact_id;
	CrmActing acting;

	crm_connect(&acting);
	for (;;)
	{
		Datum value = Int64GetDatum(current);

		CHECK_FOR_INTERRUPTS();
		if (find == &lock_contact)
			crm_contact_lock_first(&current, 1);
		if (crm_run(find, &value, NULL) > 0)
			break;
		current = crm_profile_survivor(current);
		if (current == 0)
			crm_unknown_contact(contact_id);
	}
	crm_disconnect(&acting);
	return current;
}

int64
crm_contact_lock(int64 contact_id)
{
	return follow_merges(&lock_contact, contact_id);
}

int64
crm_contact_resolve(int64 contact_id)
{
	return follow_merges(&find_contact, contact_id);
}

void
crm_contact_set_mobile(int64 contact_id, const char *mobile, bool only_if_none)
{
	CrmActing acting;
	Datum values[3];

	crm_connect(&acting);
	values[0] = Int64GetDatum(contact_id);
	values[1] = CStringGetTextDatum(mobile);
	values[2] = BoolGetDatum(only_if_none);
	if (crm_run_protected(&set_mobile, values, NULL) > 0)
	{
		CrmSegmentNews news = { .ncontacts = 1,
								.contacts = &contact_id,
								.cause = "bind_mobile",
								.at = crm_now(),
								.columns = list_make1("mobile") };

		crm_segments_settle(&news);
	}
	crm_disconnect(&acting);
}

typedef struct LockAttempt
{
	const int64 *contacts;
	int ncontacts;
	bool (*still)(void *arg);
	void *arg;
} LockAttempt;

static bool
lock_contacts(void *arg)
{
	LockAttempt *attempt = arg;
	Datum value = crm_int64_array(attempt->contacts, attempt->ncontacts);

	crm_contact_lock_first(attempt->contacts, attempt->ncontacts);
	return crm_run(&lock_profiles, &value, NULL) == attempt->ncontacts &&
		(attempt->still == NULL || attempt->still(attempt->arg));
}

bool
crm_contact_try_lock(const int64 *contacts, int ncontacts, bool (*still)(void *arg), void *arg)
{
	LockAttempt attempt = { contacts, ncontacts, still, arg };
	ErrorData *error;
	bool locked = crm_attempt(lock_contacts, &attempt, &error);

	if (error != NULL)
		ReThrowError(error);
	return locked;
}
