/*
 * journeys.c
 *		Enrolments by hand, and the state of whole journeys: what comes from outside
 *		is checked, merges are followed and contacts locked.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/table.h"
#include "facts/record.h"
#include "journey/journey.h"
#include "profile/profile.h"

PG_FUNCTION_INFO_V1(crm_sql_enrol);
PG_FUNCTION_INFO_V1(crm_sql_unenrol);
PG_FUNCTION_INFO_V1(crm_sql_resume);
PG_FUNCTION_INFO_V1(crm_sql_set_journey);

/* contacts whose enrolments are changed together */
#define CHUNK 5000

static CrmPlan find_enrolment = {
	"SELECT e.contact_id FROM crm.enrolment e WHERE e.enrolment_id = $1",
	1,
	{ INT8OID }
};
static CrmPlan find_active = {
	"SELECT DISTINCT e.contact_id FROM crm.enrolment e WHERE e.journey = $1"
	" AND e.state = 'active' AND e.contact_id > $2 ORDER BY e.contact_id LIMIT $3",
	3,
	{ TEXTOID, INT8OID, INT4OID }
};
static CrmPlan read_state = { "SELECT j.state FROM crm.journey j WHERE j.journey = $1 FOR UPDATE",
							  1,
							  { TEXTOID } };
static CrmPlan set_state = {
	"UPDATE crm.journey SET state = $2, changed_at = $3 WHERE journey = $1",
	3,
	{ TEXTOID, TEXTOID, TIMESTAMPTZOID }
};

Datum
crm_sql_enrol(PG_FUNCTION_ARGS)
{
	char *journey;
	char *key;
	int64 contact_id;
	int64 enrolment_id;
	CrmActing acting;

	crm_require_argument("enrol", "contact_id", PG_ARGISNULL(0));
	crm_require_argument("enrol", "journey", PG_ARGISNULL(1));
	journey = crm_text_argument(fcinfo, 1);
	key = crm_text_argument(fcinfo, 2);
	crm_check_optional_key(key);
	crm_connect(&acting);
	(void) crm_journey_require(journey);
	contact_id = PG_GETARG_INT64(0);
	if (crm_contact_first())
		crm_contact_lock_first(&contact_id, 1);
	contact_id = crm_contact_lock(contact_id);
	enrolment_id = crm_journey_enrol(contact_id, journey, key);
	crm_disconnect(&acting);
	if (enrolment_id == 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(enrolment_id);
}

Datum
crm_sql_unenrol(PG_FUNCTION_ARGS)
{
	char *journey;
	int64 contact_id;
	int64 n;
	CrmActing acting;

	crm_require_argument("unenrol", "contact_id", PG_ARGISNULL(0));
	crm_require_argument("unenrol", "journey", PG_ARGISNULL(1));
	journey = crm_text_argument(fcinfo, 1);
	if (!PG_ARGISNULL(2))
		crm_check_document("reason", PG_GETARG_DATUM(2));
	crm_connect(&acting);
	(void) crm_journey_require(journey);
	contact_id = crm_contact_lock(PG_GETARG_INT64(0));
	n = crm_journey_end(&contact_id, 1, journey, "unenrolled", crm_text_argument(fcinfo, 2));
	crm_disconnect(&acting);
	PG_RETURN_BOOL(n > 0);
}

Datum
crm_sql_resume(PG_FUNCTION_ARGS)
{
	Datum value;
	int64 contact_id;
	bool resumed;
	CrmActing acting;

	crm_require_argument("resume", "enrolment_id", PG_ARGISNULL(0));
	value = PG_GETARG_DATUM(0);
	crm_connect(&acting);
	if (crm_run(&find_enrolment, &value, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("enrolment %lld does not exist", (long long) PG_GETARG_INT64(0)),
				 errhint("Take the enrolment_id from the view crm.stuck.")));
	contact_id = crm_contact_lock(crm_result_int64(0, 1));
	resumed = crm_journey_resume(contact_id, PG_GETARG_INT64(0));
	crm_disconnect(&acting);
	PG_RETURN_BOOL(resumed);
}

/* Everybody who is in it, some thousand at a time. */
static void
for_everybody(const char *journey, void (*work)(const int64 *contacts, int n, const char *journey))
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm journey changed",
												  ALLOCSET_DEFAULT_SIZES);
	int64 last = PG_INT64_MIN;
	int n;

	do
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		Datum values[3] = { CStringGetTextDatum(journey), Int64GetDatum(last),
							Int32GetDatum(CHUNK) };
		int64 *contacts;

		CHECK_FOR_INTERRUPTS();
		/* an older snapshot may not show all who are in it */
		PushActiveSnapshot(GetLatestSnapshot());
		n = crm_read(&find_active, values, NULL);
		PopActiveSnapshot();
		contacts = palloc_array(int64, Max(n, 1));
		for (int i = 0; i < n; i++)
			contacts[i] = crm_result_int64(i, 1);
		SPI_freetuptable(SPI_tuptable);
		if (n > 0)
		{
			last = contacts[n - 1];
			work(contacts, n, journey);
		}
		MemoryContextSwitchTo(old);
		MemoryContextReset(context);
	} while (n == CHUNK);
	MemoryContextDelete(context);
}

static void
cancel(const int64 *contacts, int n, const char *journey)
{
	(void) crm_journey_end(contacts, n, journey, "cancelled", NULL);
}

static void
thaw(const int64 *contacts, int n, const char *journey)
{
	crm_journey_thaw(contacts, n);
}

/*
 * The lock waits for everybody who moves contacts by the old state, and keeps
 * others away until the new one is committed.
 */
Datum
crm_sql_set_journey(PG_FUNCTION_ARGS)
{
	static const char *const known[] = { "open", "closed", "frozen", "cancelled" };
	char *journey;
	char *state;
	char *before;
	bool is_known = false;
	Datum values[3];
	CrmActing acting;

	crm_require_argument("set_journey", "journey", PG_ARGISNULL(0));
	crm_require_argument("set_journey", "state", PG_ARGISNULL(1));
	journey = crm_text_argument(fcinfo, 0);
	state = crm_text_argument(fcinfo, 1);
	for (int i = 0; i < lengthof(known); i++)
		is_known |= strcmp(known[i], state) == 0;
	if (!is_known)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("state \"%s\" of a journey is not known", state),
				 errhint("It is open, closed, frozen or cancelled.")));
	crm_connect(&acting);
	(void) crm_journey_require(journey);
	LockRelationOid(crm_table_oid("profile_counter"), ExclusiveLock);
	values[0] = CStringGetTextDatum(journey);
	values[1] = CStringGetTextDatum(state);
	values[2] = TimestampTzGetDatum(crm_now());
	crm_run(&read_state, values, NULL);
	before = crm_result_text(0, 1);
	if (strcmp(before, state) != 0)
	{
		if (strcmp(state, "cancelled") == 0)
			for_everybody(journey, cancel);
		crm_run(&set_state, values, NULL);
		CacheInvalidateRelcacheByRelid(crm_table_oid("journey"));
		CommandCounterIncrement();
		if (strcmp(before, "frozen") == 0 && strcmp(state, "cancelled") != 0)
			for_everybody(journey, thaw);
	}
	crm_disconnect(&acting);
	PG_RETURN_VOID();
}
