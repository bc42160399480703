/*
 * recompute.c
 *		Everything derived, made anew from the facts: after rows came in past the
 *		triggers, or when verify() lists differences whose cause is gone.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "facts/record.h"
#include "outbox/outbox.h"
#include "profile/loyalty.h"
#include "profile/profile.h"
#include "profile/segment.h"

PG_FUNCTION_INFO_V1(crm_sql_recompute);

#define CHUNK 2000

/* contacts in id order, and since when those without a profile exist */
static CrmPlan next_contacts = {
	"SELECT c.contact_id, c.created_at, p.contact_id IS NULL FROM crm.contact c"
	" LEFT JOIN crm.profile_counter p ON p.contact_id = c.contact_id"
	" WHERE ($1 IS NULL OR c.contact_id > $1) AND ($2 IS NULL OR c.contact_id = $2)"
	" ORDER BY c.contact_id LIMIT $3",
	3,
	{ INT8OID, INT8OID, INT8OID }
};

/* One chunk after the contact last done; the number of contacts in it. */
static int
recompute_chunk(int64 *last, bool *first, int64 only, bool all)
{
	Datum values[3] = { Int64GetDatum(*last), Int64GetDatum(only), Int64GetDatum(CHUNK) };
	char nulls[4] = { *first ? 'n' : ' ', all ? 'n' : ' ', ' ', '\0' };
	uint64 n = crm_run(&next_contacts, values, nulls);
	int64 *contacts = palloc(sizeof(int64) * Max(n, 1));
	int64 *new_contacts = palloc(sizeof(int64) * Max(n, 1));
	TimestampTz *created_at = palloc(sizeof(TimestampTz) * Max(n, 1));
	int nnew = 0;
	bool isnull;

	for (uint64 row = 0; row < n; row++)
	{
		contacts[row] = crm_result_int64(row, 1);
		if (DatumGetBool(crm_result(row, 3, &isnull)))
		{
			new_contacts[nnew] = contacts[row];
			created_at[nnew++] = DatumGetTimestampTz(crm_result(row, 2, &isnull));
		}
	}
	SPI_freetuptable(SPI_tuptable);
	if (n == 0)
		return 0;
	*last = contacts[n - 1];
	*first = false;

	if (nnew > 0)
		crm_profile_open(new_contacts, created_at, nnew);
	crm_profile_lock(contacts, n);
	crm_scan_count(contacts, n);
	crm_followers_again(contacts, n);
	crm_profile_recompute(contacts, n, crm_now());
	crm_loyalty_recompute(contacts, n, crm_now(), "recompute");
	crm_segments_refresh(contacts, n, "recompute", crm_now());
	return n;
}

Datum
crm_sql_recompute(PG_FUNCTION_ARGS)
{
	bool all = PG_ARGISNULL(0);
	int64 only = all ? 0 : PG_GETARG_INT64(0);
	int64 last = 0;
	int64 total = 0;
	bool first = true;
	CrmActing acting;
	MemoryContext context;
	MemoryContext old;

	crm_connect(&acting);
	if (!all)
		only = crm_contact_resolve(only);
	context = AllocSetContextCreate(CurrentMemoryContext, "pg_crm recompute all",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(context);
	for (int n; (n = recompute_chunk(&last, &first, only, all)) > 0; total += n)
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old);
	crm_disconnect(&acting);
	if (total == 0 && !all)
		crm_unknown_contact(only);
	PG_RETURN_INT64(total);
}
