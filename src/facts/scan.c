/*
 * scan.c
 *		Scans of QR codes. Every scan is stored; which of them counts is decided
 *		by the trigger, which keeps crm.first_scan.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "facts/record.h"

PG_FUNCTION_INFO_V1(crm_sql_scan);

typedef struct Code
{
	int64 qr_code_id; /* 0: there is none */
	bool has_from;
	bool has_until;
	TimestampTz from;
	TimestampTz until;
} Code;

static CrmPlan find_code = { "SELECT q.qr_code_id, q.valid_from, q.valid_until FROM crm.qr_code q"
							 " WHERE q.account_id = $1 AND q.scene = $2",
							 2,
							 { INT8OID, TEXTOID } };
static CrmPlan insert_scan = {
	"INSERT INTO crm.scan (contact_id, qr_code_id, occurred_at) VALUES ($1, $2, $3)"
	" RETURNING scan_id",
	3,
	{ INT8OID, INT8OID, TIMESTAMPTZOID }
};
static CrmPlan counts_now = {
	"SELECT FROM crm.first_scan f WHERE f.contact_id = $1 AND f.scan_id = $2",
	2,
	{ INT8OID, INT8OID }
};
static Code
read_code(const char *scene, int64 account_id)
{
	Code code = { 0 };
	CrmActing acting;
	Datum values[2];

	crm_connect(&acting);
	values[0] = Int64GetDatum(account_id);
	values[1] = CStringGetTextDatum(scene);
	if (crm_run(&find_code, values, NULL) > 0)
	{
		bool isnull;

		code.qr_code_id = crm_result_int64(0, 1);
		code.from = DatumGetTimestampTz(crm_result(0, 2, &isnull));
		code.has_from = !isnull;
		code.until = DatumGetTimestampTz(crm_result(0, 3, &isnull));
		code.has_until = !isnull;
	}
	crm_disconnect(&acting);
	return code;
}

static bool
is_valid(const Code *code, TimestampTz at)
{
	return (!code->has_from || code->from <= at) && (!code->has_until || at < code->until);
}

/* 0 where no code of the account has the scene and is valid at the time */
int64
crm_scan_find_code(const char *scene, int64 account_id, TimestampTz at)
{
	Code code = read_code(scene, account_id);

	return code.qr_code_id != 0 && is_valid(&code, at) ? code.qr_code_id : 0;
}

#define SCENE_PREFIX "qrscene_"

const char *
crm_bare_scene(const char *scene)
{
	int length = strlen(SCENE_PREFIX);

	return strncmp(scene, SCENE_PREFIX, length) == 0 ? scene + length : scene;
}

int64
crm_scan_record(int64 contact_id, int64 qr_code_id, TimestampTz at, bool *is_first)
{
	CrmActing acting;
	Datum values[3];
	int64 id;

	crm_connect(&acting);
	values[0] = Int64GetDatum(contact_id);
	values[1] = Int64GetDatum(qr_code_id);
	values[2] = TimestampTzGetDatum(at);
	crm_run(&insert_scan, values, NULL);
	id = crm_result_int64(0, 1);
	values[1] = Int64GetDatum(id);
	*is_first = crm_run(&counts_now, values, NULL) > 0;
	crm_disconnect(&acting);
	return id;
}

static void
check_valid(const Code *code, const char *scene, TimestampTz at)
{
	const char *from = code->has_from ? pstrdup(timestamptz_to_str(code->from)) : "ever";
	const char *until = code->has_until ? pstrdup(timestamptz_to_str(code->until))
										: "further notice";

	if (!is_valid(code, at))
		ereport(
			ERROR,
			(errcode(ERRCODE_CHECK_VIOLATION),
			 errmsg("QR code of scene \"%s\" is not valid at %s, only from %s until %s", scene,
					timestamptz_to_str(at), from, until),
			 errhint(
				 "Change valid_from or valid_until with crm.define_qr_code(), or give the time of the scan.")));
}

Datum
crm_sql_scan(PG_FUNCTION_ARGS)
{
	const char *scene;
	const char *key;
	char *account_name;
	char *external_id;
	char *digest;
	bool at_given;
	TimestampTz at;
	CrmAccount account;
	Code code;
	CrmReplay replay;
	int64 contact_id;
	CrmActing acting;
	TupleDesc descriptor;
	Datum values[3];
	bool nulls[3] = { false, false, false };

	crm_require_argument("scan", "scene", PG_ARGISNULL(0));
	crm_require_argument("scan", "account", PG_ARGISNULL(1));
	crm_require_argument("scan", "external_id", PG_ARGISNULL(2));
	scene = crm_bare_scene(crm_text_argument(fcinfo, 0));
	if (*scene != '\0')
		crm_check_key("scene", scene);
	account_name = crm_text_argument(fcinfo, 1);
	at = crm_time_argument(fcinfo, 3, &at_given);
	key = crm_text_argument(fcinfo, 4);
	crm_check_optional_key(key);
	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "crm.scan() must return a row");

	crm_act_as_owner(&acting);
	account = crm_account_of_people(account_name);
	external_id = crm_identity_form(&account, crm_text_argument(fcinfo, 2));
	code = read_code(scene, account.account_id);
	if (code.qr_code_id == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("account \"%s\" has no QR code with scene \"%s\"", account_name, scene),
				 errhint("Define the code with crm.define_qr_code() first.")));
	contact_id = crm_contact_lock(crm_identify(&account, external_id, NULL));

	/* a replay of a scan made in time stays good when the code has ended */
	digest = crm_digest(psprintf("%lld %s", (long long) account.account_id, scene));
	if (!crm_key_replayed(contact_id, "scan", key, digest, at, at_given, &replay))
	{
		check_valid(&code, scene, at);
		replay.id = crm_scan_record(contact_id, code.qr_code_id, at, &replay.is_first);
		crm_key_record(contact_id, "scan", key, digest, at, replay.id, &replay.is_first);
	}
	crm_act_end(&acting);

	values[0] = Int64GetDatum(contact_id);
	values[1] = Int64GetDatum(replay.id);
	values[2] = BoolGetDatum(replay.is_first);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls)));
}
