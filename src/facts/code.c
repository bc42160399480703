/*
 * code.c
 *		The codes of a batch of scans, read once for all of them.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/guc.h"
#include "base/table.h"
#include "facts/scans.h"

typedef struct CodePlace
{
	int64 qr_code_id;
	int place;
	char status;
} CodePlace;

#define SH_PREFIX         code_places
#define SH_ELEMENT_TYPE   CodePlace
#define SH_KEY_TYPE       int64
#define SH_KEY            qr_code_id
#define SH_HASH_KEY(t, k) murmurhash32((uint32) (k) ^ (uint32) ((uint64) (k) >> 32))
#define SH_EQUAL(t, a, b) ((a) == (b))
#define SH_SCOPE          static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* columns of codes */
enum
{
	QR_CODE_ID,
	DEDUP_SCOPE,
	DEDUP_WINDOW,
	VALID_FROM,
	ACCOUNT_ID,
	STORE_ID,
	ASSOCIATE_ID,
	CAMPAIGN,
	CODE_COLUMNS,
	TIME_ZONE = CODE_COLUMNS, /* of the account */
	ALL_COLUMNS
};

static const char *const code_columns[CODE_COLUMNS] = {
	"qr_code_id", "dedup_scope", "dedup_window", "valid_from",
	"account_id", "store_id",    "associate_id", "campaign",
};
static const char *const account_columns[] = { "account_id", "time_zone" };

static CrmPlan select_codes = {
	"SELECT q.qr_code_id, q.dedup_scope, q.dedup_window, q.valid_from, q.account_id, q.store_id,"
	" q.associate_id, q.campaign, a.time_zone"
	" FROM crm.qr_code q JOIN crm.account a ON a.account_id = q.account_id"
	" WHERE q.qr_code_id = ANY ($1)",
	1,
	{ INT8ARRAYOID }
};

/* What tells versions of the codes apart, as a snapshot shows them. */
static char *
versions_of(Datum codes, Snapshot snapshot)
{
	Oid type = INT8ARRAYOID;
	SPIPlanPtr plan = SPI_prepare(
		"SELECT string_agg(q.xmin::text || ' ' || a.xmin::text, ' ' ORDER BY q.qr_code_id)"
		" FROM crm.qr_code q JOIN crm.account a ON a.account_id = q.account_id"
		" WHERE q.qr_code_id = ANY ($1)",
		1, &type);
	char *versions;
	int code;

	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	code = SPI_execute_snapshot(plan, &codes, NULL, snapshot, InvalidSnapshot, false, false, 1);
	if (code < 0)
		elog(ERROR, "SPI_execute_snapshot failed: %s", SPI_result_code_string(code));
	versions = crm_result_text(0, 1);
	SPI_freeplan(plan);
	return versions == NULL ? "" : versions;
}

/*
 * A transaction that reads by an older snapshot would count by codes as they
 * no longer are; then it must be tried again. Nobody changes them from here on,
 * as that waits for whoever is recording.
 */
static void
check_codes_current(Datum codes)
{
	if (strcmp(versions_of(codes, GetTransactionSnapshot()),
			   versions_of(codes, GetLatestSnapshot())) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("could not serialize access to QR codes due to concurrent change"),
				 errhint("Repeat the transaction.")));
}

CrmScanCodes *
crm_scan_codes_create(void)
{
	CrmScanCodes *codes = palloc0(sizeof(CrmScanCodes));

	codes->context = CurrentMemoryContext;
	codes->size = 4;
	codes->codes = palloc_array(CrmScanCode, codes->size);
	codes->places = code_places_create(codes->context, codes->size, NULL);
	return codes;
}

int
crm_scan_codes_place(CrmScanCodes *codes, int64 qr_code_id)
{
	bool found;
	CodePlace *entry = code_places_insert(codes->places, qr_code_id, &found);

	if (!found)
	{
		if (codes->n == codes->size)
		{
			codes->size *= 2;
			codes->codes = repalloc_huge(codes->codes, sizeof(CrmScanCode) * codes->size);
		}
		memset(&codes->codes[codes->n], 0, sizeof(CrmScanCode));
		codes->codes[codes->n].qr_code_id = qr_code_id;
		entry->place = codes->n++;
	}
	return entry->place;
}

static bool
is_scope(const CrmScanCode *code, const char *name)
{
	text *scope = DatumGetTextPP(code->scope);

	return VARSIZE_ANY_EXHDR(scope) == strlen(name) &&
		memcmp(VARDATA_ANY(scope), name, strlen(name)) == 0;
}

/* As in CRM_SCAN_KEY. */
static Datum
scope_id_of(const CrmScanCode *code)
{
	bool by_campaign = is_scope(code, "campaign");
	bool by_store = is_scope(code, "store");
	char number[MAXINT8LEN + 1];

	if ((by_campaign && code->campaign == (Datum) 0) || (by_store && !code->has_store))
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("QR code %lld has no %s", (long long) code->qr_code_id,
						by_campaign ? "campaign" : "store"),
				 errhint("Its scans count once for each; give it one with crm.define_qr_code().")));
	if (by_campaign)
		return code->campaign;
	pg_lltoa(by_store ? code->store_id : code->qr_code_id, number);
	return CStringGetTextDatum(number);
}

static void
read_code(CrmScanCode *code, const Datum *values, const bool *nulls)
{
	TimestampTz from = nulls[VALID_FROM] ? DT_NOBEGIN : DatumGetTimestampTz(values[VALID_FROM]);

	crm_windows_init(&code->windows,
					 nulls[DEDUP_WINDOW] ? NULL : DatumGetIntervalP(values[DEDUP_WINDOW]), &from,
					 nulls[TIME_ZONE] ? NULL : TextDatumGetCString(values[TIME_ZONE]));
	code->account_id = DatumGetInt64(values[ACCOUNT_ID]);
	code->store_id = nulls[STORE_ID] ? 0 : DatumGetInt64(values[STORE_ID]);
	code->has_store = !nulls[STORE_ID];
	code->associate_id = nulls[ASSOCIATE_ID] ? 0 : DatumGetInt64(values[ASSOCIATE_ID]);
	code->has_associate = !nulls[ASSOCIATE_ID];
	if (!nulls[CAMPAIGN])
		code->campaign = PointerGetDatum(PG_DETOAST_DATUM_COPY(values[CAMPAIGN]));
	code->scope = PointerGetDatum(PG_DETOAST_DATUM_COPY(values[DEDUP_SCOPE]));
	code->scope_id = scope_id_of(code);
}

static void
fetch_columns(CrmTarget *target, int n, Datum *values, bool *nulls)
{
	for (int i = 0; i < n; i++)
		values[i] = slot_getattr(target->found, target->attno[i], &nulls[i]);
}

/* False where one of the tables asks for the executor. */
static bool
load_directly(CrmScanCodes *codes)
{
	CrmTarget *code = crm_target_open_to_read("qr_code", code_columns, CODE_COLUMNS);
	CrmTarget *account = crm_target_open_to_read("account", account_columns,
												 lengthof(account_columns));
	bool done = code != NULL && account != NULL;

	if (done)
	{
		CommandCounterIncrement();
		PushActiveSnapshot(GetTransactionSnapshot());
	}
	for (int i = 0; done && i < codes->n; i++)
	{
		Datum values[ALL_COLUMNS];
		bool nulls[ALL_COLUMNS];

		if (!crm_target_find(code, codes->codes[i].qr_code_id))
			continue;
		fetch_columns(code, CODE_COLUMNS, values, nulls);
		if (!crm_target_find(account, DatumGetInt64(values[ACCOUNT_ID])))
			continue;
		values[TIME_ZONE] = slot_getattr(account->found, account->attno[1], &nulls[TIME_ZONE]);
		read_code(&codes->codes[i], values, nulls);
	}
	if (account != NULL)
		crm_target_close(account);
	if (code != NULL)
		crm_target_close(code);
	if (done)
		PopActiveSnapshot();
	return done;
}

static void
load_by_executor(CrmScanCodes *codes, Datum array)
{
	uint64 n = crm_run(&select_codes, &array, NULL);
	MemoryContext old = MemoryContextSwitchTo(codes->context);

	for (uint64 row = 0; row < n; row++)
	{
		Datum values[ALL_COLUMNS];
		bool nulls[ALL_COLUMNS];

		for (int i = 0; i < ALL_COLUMNS; i++)
			values[i] = crm_result(row, i + 1, &nulls[i]);
		read_code(&codes->codes[crm_scan_codes_place(codes, DatumGetInt64(values[QR_CODE_ID]))],
				  values, nulls);
	}
	MemoryContextSwitchTo(old);
}

static int
compare_text(Datum a, Datum b)
{
	text *left = DatumGetTextPP(a);
	text *right = DatumGetTextPP(b);
	int nleft = VARSIZE_ANY_EXHDR(left);
	int nright = VARSIZE_ANY_EXHDR(right);
	int order = memcmp(VARDATA_ANY(left), VARDATA_ANY(right), Min(nleft, nright));

	return order != 0 ? order : nleft - nright;
}

static int
compare_subjects(const void *a, const void *b)
{
	const CrmScanCode *left = *(CrmScanCode *const *) a;
	const CrmScanCode *right = *(CrmScanCode *const *) b;
	int order = compare_text(left->scope, right->scope);

	return order != 0 ? order : compare_text(left->scope_id, right->scope_id);
}

static void
number_subjects(CrmScanCodes *codes)
{
	CrmScanCode **sorted = MemoryContextAllocHuge(codes->context, sizeof(CrmScanCode *) * codes->n);

	for (int i = 0; i < codes->n; i++)
		sorted[i] = &codes->codes[i];
	qsort(sorted, codes->n, sizeof(CrmScanCode *), compare_subjects);
	for (int i = 1; i < codes->n; i++)
		sorted[i]->subject = sorted[i - 1]->subject +
			(compare_subjects(&sorted[i - 1], &sorted[i]) != 0);
	pfree(sorted);
}

void
crm_scan_codes_load(CrmScanCodes *codes)
{
	if (IsolationUsesXactSnapshot() || !crm_guc_direct_access || !load_directly(codes))
	{
		CrmActing acting;
		CrmColumn ids;
		Datum array;

		crm_connect(&acting);
		crm_column_init(&ids, INT8OID);
		for (int i = 0; i < codes->n; i++)
			crm_column_add(&ids, Int64GetDatum(codes->codes[i].qr_code_id), false);
		array = crm_column_array(&ids);
		if (IsolationUsesXactSnapshot())
			check_codes_current(array);
		load_by_executor(codes, array);
		crm_disconnect(&acting);
	}
	for (int i = 0; i < codes->n; i++)
		if (codes->codes[i].scope == (Datum) 0)
			ereport(ERROR,
					(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
					 errmsg("QR code %lld does not exist", (long long) codes->codes[i].qr_code_id),
					 errhint("Define the code with crm.define_qr_code() first.")));
	if (codes->n > 1)
		number_subjects(codes);
}

void
crm_scan_arrays(const CrmScanCodes *codes, const CrmFact *facts, int64 nfacts,
				const int64 *contacts, int ncontacts, Datum *arrays)
{
	CrmColumn columns[CRM_SCAN_COLUMNS];
	int contact = 0;

	for (int i = 0; i < CRM_SCAN_COLUMNS; i++)
		crm_column_init(&columns[i], i == 3 ? TIMESTAMPTZOID : INT8OID);
	for (int64 i = 0; i < nfacts; i++)
	{
		const CrmFact *fact = &facts[i];

		if (contacts != NULL)
		{
			while (contact < ncontacts && contacts[contact] < fact->contact_id)
				contact++;
			if (contact == ncontacts)
				break;
			if (contacts[contact] != fact->contact_id)
				continue;
		}
		crm_column_add(&columns[0], Int64GetDatum(fact->contact_id), false);
		crm_column_add(&columns[1], Int64GetDatum(fact->id), false);
		crm_column_add(&columns[2], Int64GetDatum(codes->codes[fact->code].qr_code_id), false);
		crm_column_add(&columns[3], TimestampTzGetDatum(fact->occurred_at), false);
	}
	for (int i = 0; i < CRM_SCAN_COLUMNS; i++)
		arrays[i] = crm_column_array(&columns[i]);
}
