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
#include "utils/timestamp.h"

#include "base/db.h"
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

/* is a scan one of the subject j? */
#define OF_CONTACT(scan) scan ".contact_id = j.contact_id"
#define OF_CODE(scan)    scan ".qr_code_id = j.qr_code_id"
#define OF_STORE(scan)                                                                \
	scan ".qr_code_id IN (SELECT c.qr_code_id FROM crm.qr_code c WHERE c.store_id = " \
		 "j.store_id)"
#define OF_CONTACT_AND_CODE(scan)  OF_CONTACT(scan) " AND " OF_CODE(scan)
#define OF_CONTACT_AND_STORE(scan) OF_CONTACT(scan) " AND " OF_STORE(scan)

#define UNNEST                     "unnest($1, $2, $3, $4) AS n(contact_id, scan_id, qr_code_id, occurred_at)"

/* reads no more scans than are needed to know */
#define MARK(scans, of_subject)                                                             \
	"INSERT INTO crm.scan_flag (contact_id, scan_id, scan_limit, occurred_at)"              \
	" SELECT s.contact_id, s.scan_id, $5, s.occurred_at FROM " scans                        \
	" WHERE (SELECT count(*) FROM (SELECT FROM crm.scan x WHERE " of_subject(               \
		"x") "   AND x.occurred_at > s.occurred_at - $7 AND x.occurred_at <= s.occurred_at" \
			 "   AND (x.occurred_at, x.scan_id, x.contact_id)"                              \
			 "    <= (s.occurred_at, s.scan_id, s.contact_id) LIMIT $6 + 1) w) > $6"        \
			 " ON CONFLICT DO NOTHING"

/* every scan of a subject that a new one may have brought over the limit */
#define AFFECTED(subject, of_subject)                                                         \
	"(SELECT " subject ", min(n.occurred_at) AS first_at, max(n.occurred_at) AS last_at"      \
	"  FROM " UNNEST " JOIN crm.qr_code q ON q.qr_code_id = n.qr_code_id GROUP BY 1, 2, 3) j" \
	" JOIN crm.scan s ON " of_subject(                                                        \
		"s") "  AND s.occurred_at >= j.first_at AND s.occurred_at < j.last_at + $7"

#define COLUMNS(contact, code, store) \
	contact " AS contact_id, " code " AS qr_code_id, " store " AS store_id"
#define UNUSED "NULL::bigint"

/* these scans alone */
#define GIVEN                                                \
	"(SELECT n.*, q.store_id FROM " UNNEST                   \
	"  JOIN crm.qr_code q ON q.qr_code_id = n.qr_code_id) j" \
	" CROSS JOIN LATERAL (SELECT j.contact_id, j.scan_id, j.occurred_at) s"

/* clang-format off */
#define ARGUMENTS \
	7, { INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID, TEXTOID, INT4OID, INTERVALOID }

static CrmPlan mark_new[] = {
	[CONTACT] = { MARK(AFFECTED(COLUMNS("n.contact_id", UNUSED, UNUSED), OF_CONTACT), OF_CONTACT), ARGUMENTS },
	[CODE] = { MARK(AFFECTED(COLUMNS(UNUSED, "n.qr_code_id", UNUSED), OF_CODE), OF_CODE), ARGUMENTS },
	[STORE] = { MARK(AFFECTED(COLUMNS(UNUSED, UNUSED, "q.store_id"), OF_STORE), OF_STORE), ARGUMENTS },
	[CONTACT_AND_CODE] = { MARK(AFFECTED(COLUMNS("n.contact_id", "n.qr_code_id", UNUSED), OF_CONTACT_AND_CODE), OF_CONTACT_AND_CODE), ARGUMENTS },
	[CONTACT_AND_STORE] = { MARK(AFFECTED(COLUMNS("n.contact_id", UNUSED, "q.store_id"), OF_CONTACT_AND_STORE), OF_CONTACT_AND_STORE), ARGUMENTS },
};
static CrmPlan mark_again[] = {
	[CONTACT] = { MARK(GIVEN, OF_CONTACT), ARGUMENTS },
	[CODE] = { MARK(GIVEN, OF_CODE), ARGUMENTS },
	[STORE] = { MARK(GIVEN, OF_STORE), ARGUMENTS },
	[CONTACT_AND_CODE] = { MARK(GIVEN, OF_CONTACT_AND_CODE), ARGUMENTS },
	[CONTACT_AND_STORE] = { MARK(GIVEN, OF_CONTACT_AND_STORE), ARGUMENTS },
};
/* clang-format on */

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

typedef struct Limit
{
	Subject subject;
	Datum name;
	Datum max_scans;
	Datum period;
} Limit;

static int
read_limits(Limit **limits)
{
	int n = crm_run(&select_limits, NULL, NULL);
	bool isnull;

	*limits = palloc(sizeof(Limit) * Max(n, 1));
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

static void
mark(CrmPlan *plans, const Limit *limits, int nlimits, const Datum *scans)
{
	for (int i = 0; i < nlimits; i++)
	{
		Datum values[7] = { scans[0],        scans[1],       scans[2],
							scans[3],        limits[i].name, limits[i].max_scans,
							limits[i].period };

		crm_run(&plans[limits[i].subject], values, NULL);
	}
}

static void
lock_for(const Limit *limits, int n, Datum codes)
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
	Limit *limits;
	int n = read_limits(&limits);

	if (n == 0)
		return;
	lock_for(limits, n, scans[2]);
	mark(mark_new, limits, n, scans);
}

void
crm_scan_flag_lock(const int64 *contacts, int ncontacts)
{
	Datum value = crm_int64_array(contacts, ncontacts);
	Limit *limits;
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
	Limit *limits;
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
		if (!isnull)
			mark(mark_again, limits, n, scans);
	}
}
