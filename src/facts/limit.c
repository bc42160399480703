/*
 * limit.c
 *		Scans that come too fast: crm.scan_limit says how many are allowed in a
 *		period, crm.scan_flag marks those beyond. A mark neither refuses nor
 *		deletes a scan, and does not keep it from counting.
 *
 *		A scan is marked if, of the scans of its contact, code or store (or of
 *		several of these at once) in the period that ends with it, it is one more
 *		than the limit allows. So a scan that comes late may mark later ones, and
 *		no scan takes a mark away.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/table.h"
#include "base/watch.h"
#include "facts/scans.h"

/* columns of limits */
enum
{
	NAME = 1,
	BY_CONTACT,
	BY_CODE,
	BY_STORE,
	MAX_SCANS,
	PERIOD
};

/* a day of a period is 24 hours */
static CrmPlan select_limits = {
	"SELECT l.name, 'contact' = ANY (l.per), 'code' = ANY (l.per), 'store' = ANY (l.per),"
	" l.max_scans, make_interval(secs => extract(epoch FROM l.period)::float8)"
	" FROM crm.scan_limit l ORDER BY l.name",
	0
};

/*
 * What is counted together. A code hangs in one store, so code and store together are the code.
 */
typedef enum Subject
{
	CONTACT,
	CODE,
	STORE,
	CONTACT_AND_CODE,
	CONTACT_AND_STORE
} Subject;

/*
 * Of the scans of the contacts $1, or codes $2, around the time from $6 to $7:
 * those from $6 on of which the scan $4 places before is less than $5 ago. Arrays
 * and times, no joins, as the tables may be many times as large as when they
 * were last analyzed.
 */
#define MARK(scans, subject)                                                                   \
	"INSERT INTO crm.scan_flag (contact_id, scan_id, scan_limit, occurred_at)"                 \
	" SELECT w.contact_id, w.scan_id, $3, w.occurred_at"                                       \
	" FROM (SELECT s.contact_id, s.scan_id, s.occurred_at,"                                    \
	"   lag(s.occurred_at, $4) OVER (PARTITION BY " subject                                    \
	"    ORDER BY s.occurred_at, s.scan_id, s.contact_id) AS before"                           \
	"  FROM crm.scan s " scans "   AND s.occurred_at > $6 - $5 AND s.occurred_at < $7 + $5) w" \
	" WHERE w.before > w.occurred_at - $5 AND w.occurred_at >= $6"                             \
	" ON CONFLICT DO NOTHING"

#define OF_CONTACTS " WHERE s.contact_id = ANY ($1)"
#define WITH_STORE  " JOIN crm.qr_code q ON q.qr_code_id = s.qr_code_id AND q.store_id IS NOT NULL"
#define OF_STORES                                                             \
	" WHERE s.qr_code_id = ANY (ARRAY(SELECT c.qr_code_id FROM crm.qr_code c" \
	"  JOIN crm.qr_code b ON b.store_id = c.store_id WHERE b.qr_code_id = ANY ($2)))"

#define ARGUMENTS                                                                                 \
	7,                                                                                            \
	{                                                                                             \
		INT8ARRAYOID, INT8ARRAYOID, TEXTOID, INT4OID, INTERVALOID, TIMESTAMPTZOID, TIMESTAMPTZOID \
	}

/* clang-format off */
static CrmPlan marks[] = {
	[CONTACT] = { MARK(OF_CONTACTS, "s.contact_id"), ARGUMENTS },
	[CODE] = { MARK(" WHERE s.qr_code_id = ANY ($2)", "s.qr_code_id"), ARGUMENTS },
	[STORE] = { MARK(WITH_STORE OF_STORES, "q.store_id"), ARGUMENTS },
	[CONTACT_AND_CODE] = { MARK(OF_CONTACTS, "s.contact_id, s.qr_code_id"), ARGUMENTS },
	[CONTACT_AND_STORE] = { MARK(WITH_STORE OF_CONTACTS, "s.contact_id, q.store_id"), ARGUMENTS },
};
/* clang-format on */

/*
 * The same for single scans among many of others: counts no more of them than
 * are needed to know.
 */
#define MARK_GIVEN(same_subject)                                                      \
	"INSERT INTO crm.scan_flag (contact_id, scan_id, scan_limit, occurred_at)"        \
	" SELECT s.contact_id, s.scan_id, $5, s.occurred_at"                              \
	" FROM unnest($1, $2, $3, $4) AS s(contact_id, scan_id, qr_code_id, occurred_at)" \
	" WHERE (SELECT count(*) FROM (SELECT FROM crm.scan x WHERE " same_subject        \
	"   AND x.occurred_at > s.occurred_at - $7 AND x.occurred_at <= s.occurred_at"    \
	"   AND (x.occurred_at, x.scan_id, x.contact_id)"                                 \
	"    <= (s.occurred_at, s.scan_id, s.contact_id) LIMIT $6 + 1) w) > $6"           \
	" ON CONFLICT DO NOTHING"

static CrmPlan mark_given_by_code = { MARK_GIVEN("x.qr_code_id = s.qr_code_id"),
									  7,
									  { INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID,
										TIMESTAMPTZARRAYOID, TEXTOID, INT4OID, INTERVALOID } };
static CrmPlan mark_given_by_store = {
	MARK_GIVEN(
		"x.qr_code_id = ANY (ARRAY(SELECT c.qr_code_id FROM crm.qr_code c"
		" JOIN crm.qr_code b ON b.store_id = c.store_id WHERE b.qr_code_id = s.qr_code_id))"),
	7,
	{ INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID, TEXTOID, INT4OID, INTERVALOID }
};

static CrmPlan find_period = { "SELECT min(t.at), max(t.at) FROM unnest($1) AS t(at)",
							   1,
							   { TIMESTAMPTZARRAYOID } };
static CrmPlan forget_marks = { "DELETE FROM crm.scan_flag f WHERE f.contact_id = ANY ($1)",
								1,
								{ INT8ARRAYOID } };
static CrmPlan select_scans = {
	"SELECT array_agg(s.contact_id), array_agg(s.scan_id), array_agg(s.qr_code_id),"
	" array_agg(s.occurred_at) FROM crm.scan s WHERE s.contact_id = ANY ($1)",
	1,
	{ INT8ARRAYOID }
};
static CrmPlan select_codes = {
	"SELECT array_agg(DISTINCT s.qr_code_id) FROM crm.scan s WHERE s.contact_id = ANY ($1)",
	1,
	{ INT8ARRAYOID }
};

/*
 * Who scans a code of many sees only what others have committed, so those who
 * are counted together come one after the other, until their transactions end.
 * Locks of our own, not of rows: a change of a code holds its row while it
 * waits for scans to end. A few for all codes, as a large batch has many.
 */
#define NLOCKS     64
#define CODE_LOCK  0x4351
#define STORE_LOCK 0x4352

#define DISTINCT_LOCKS(id)                                             \
	"SELECT DISTINCT (hashint8(" id                                    \
	")::bigint & 63) FROM crm.qr_code q WHERE q.qr_code_id = ANY ($1)" \
	" AND " id " IS NOT NULL ORDER BY 1"

static CrmPlan code_locks = { DISTINCT_LOCKS("q.qr_code_id"), 1, { INT8ARRAYOID } };
static CrmPlan store_locks = { DISTINCT_LOCKS("q.store_id"), 1, { INT8ARRAYOID } };

StaticAssertDecl(NLOCKS == 64, "the plans above name as many locks");

static void
lock_subjects(CrmPlan *plan, Datum codes, uint16 kind)
{
	uint64 n = crm_run(plan, &codes, NULL);

	for (uint64 row = 0; row < n; row++)
	{
		LOCKTAG tag;

		SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, (uint32) crm_result_int64(row, 1), kind);
		(void) LockAcquire(&tag, ExclusiveLock, false, false);
	}
}

/* Known until the table changes: most brands have no limit, and all record scans. */
static bool known_to_be_none = false;
static Oid limit_table = InvalidOid;

static void
forget_limits(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == limit_table)
		known_to_be_none = false;
}

void
crm_scan_limit_init(void)
{
	crm_on_table_change(forget_limits);
}

void
crm_scan_limits_forget(void)
{
	CacheInvalidateRelcacheByRelid(crm_table_oid("scan_limit"));
}

bool
crm_scan_limits_exist(void)
{
	static CrmPlan find_limit = { "SELECT FROM crm.scan_limit LIMIT 1", 0 };
	CrmActing acting;

	if (known_to_be_none)
		return false;
	limit_table = crm_table_oid("scan_limit");
	crm_connect(&acting);
	/* as committed now: what is known outlives the snapshot of the transaction */
	PushActiveSnapshot(GetLatestSnapshot());
	/* an invalidation while reading must not be lost, nor may a failure be taken for an answer */
	known_to_be_none = true;
	PG_TRY();
	{
		if (crm_read(&find_limit, NULL, NULL) > 0)
			known_to_be_none = false;
	}
	PG_CATCH();
	{
		known_to_be_none = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
	PopActiveSnapshot();
	crm_disconnect(&acting);
	return !known_to_be_none;
}

typedef struct ScanLimit
{
	Subject subject;
	Datum name;
	Datum max_scans;
	Datum period;
} ScanLimit;

static int
read_limits(ScanLimit **limits)
{
	int n = crm_run(&select_limits, NULL, NULL);
	bool isnull;

	*limits = palloc(sizeof(ScanLimit) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		bool by_contact = DatumGetBool(crm_result(i, BY_CONTACT, &isnull));
		bool by_code = DatumGetBool(crm_result(i, BY_CODE, &isnull));
		bool by_store = DatumGetBool(crm_result(i, BY_STORE, &isnull));

		if (by_contact)
			(*limits)[i].subject = by_code ? CONTACT_AND_CODE
				: by_store                 ? CONTACT_AND_STORE
										   : CONTACT;
		else
			(*limits)[i].subject = by_code ? CODE : STORE;
		(*limits)[i].name = crm_result(i, NAME, &isnull);
		(*limits)[i].max_scans = crm_result(i, MAX_SCANS, &isnull);
		(*limits)[i].period = crm_result(i, PERIOD, &isnull);
	}
	return n;
}

/* Marks by scans of whole subjects from one time to another. */
static void
mark(const ScanLimit *limit, Datum contacts, Datum codes, TimestampTz first, TimestampTz last)
{
	Datum values[7] = { contacts,
						codes,
						limit->name,
						limit->max_scans,
						limit->period,
						TimestampTzGetDatum(first),
						TimestampTzGetDatum(last) };

	crm_run(&marks[limit->subject], values, NULL);
}

static void
mark_given(const ScanLimit *limit, const Datum *scans)
{
	Datum values[7] = { scans[0],    scans[1],         scans[2],     scans[3],
						limit->name, limit->max_scans, limit->period };

	crm_run(limit->subject == CODE ? &mark_given_by_code : &mark_given_by_store, values, NULL);
}

static void
lock_for(const ScanLimit *limits, int n, Datum codes)
{
	bool by_code = false;
	bool by_store = false;

	for (int i = 0; i < n; i++)
	{
		by_code = by_code || limits[i].subject == CODE;
		by_store = by_store || limits[i].subject == STORE;
	}
	if (by_code)
		lock_subjects(&code_locks, codes, CODE_LOCK);
	if (by_store)
		lock_subjects(&store_locks, codes, STORE_LOCK);
}

void
crm_scan_flag_new(const Datum *scans)
{
	ScanLimit *limits;
	int n = read_limits(&limits);
	TimestampTz first;
	TimestampTz last;
	bool isnull;

	if (n == 0)
		return;
	lock_for(limits, n, scans[2]);
	crm_run(&find_period, &scans[3], NULL);
	first = DatumGetTimestampTz(crm_result(0, 1, &isnull));
	last = DatumGetTimestampTz(crm_result(0, 2, &isnull));
	for (int i = 0; i < n; i++)
		mark(&limits[i], scans[0], scans[2], first, last);
}

void
crm_scan_flag_lock(const int64 *contacts, int ncontacts)
{
	Datum value = crm_int64_array(contacts, ncontacts);
	ScanLimit *limits;
	int n = read_limits(&limits);
	bool isnull;

	if (n == 0)
		return;
	crm_run(&select_codes, &value, NULL);
	value = crm_result(0, 1, &isnull);
	if (!isnull)
		lock_for(limits, n, value);
}

void
crm_scan_flag_again(const int64 *contacts, int ncontacts)
{
	Datum value = crm_int64_array(contacts, ncontacts);
	ScanLimit *limits;
	int n;

	crm_run(&forget_marks, &value, NULL);
	n = read_limits(&limits);
	if (n > 0)
	{
		Datum scans[CRM_SCAN_COLUMNS];
		bool isnull = false;

		crm_run(&select_scans, &value, NULL);
		for (int i = 0; i < CRM_SCAN_COLUMNS; i++)
			scans[i] = crm_result(0, i + 1, &isnull);
		for (int i = 0; i < n && !isnull; i++)
		{
			if (limits[i].subject == CODE || limits[i].subject == STORE)
				mark_given(&limits[i], scans);
			else
				mark(&limits[i], value, scans[2], DT_NOBEGIN, DT_NOEND);
		}
	}
}
