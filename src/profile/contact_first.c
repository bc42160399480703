/*
 * contact_first.c
 *		The order of locks where definitions read what users change in crm.contact:
 *		the contact's row comes first, as an UPDATE of it has it first.
 */
#include "postgres.h"

#include "storage/lmgr.h"

#include "base/db.h"
#include "base/table.h"
#include "journey/journey.h"
#include "profile/definition.h"
#include "profile/profile.h"

static CrmPlan lock_contacts = { "SELECT FROM crm.contact c WHERE c.contact_id = ANY ($1)"
								 " ORDER BY c.contact_id FOR NO KEY UPDATE",
								 1,
								 { INT8ARRAYOID } };

bool
crm_contact_first(void)
{
	return crm_definitions()->contact_first || crm_journeys_read_contacts();
}

void
crm_contact_lock_first(const int64 *contacts, int ncontacts)
{
	CrmActing acting;
	Datum array;

	/* whoever changes that waits until this transaction ends */
	LockRelationOid(crm_table_oid("profile_counter"), RowExclusiveLock);
	if (!crm_contact_first())
		return;
	crm_connect(&acting);
	array = crm_int64_array(contacts, ncontacts);
	crm_run(&lock_contacts, &array, NULL);
	crm_disconnect(&acting);
}
