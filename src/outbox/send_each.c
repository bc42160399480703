/*
 * send_each.c
 *		Queuing many messages that differ. What stands under their keys already is
 *		found first, as the contacts are locked; the others are written without
 *		the executor where the tables allow that, which takes two thirds of the time.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/guc.h"
#include "base/reader.h"
#include "base/table.h"
#include "base/wake.h"
#include "outbox/outbox.h"
#include "outbox/send.h"

/* messages of one statement, so that their params do not become too large an array */
#define STATEMENT_BATCH 1000

static CrmPlan find_messages = {
	"SELECT n.place, m.message_id, m.template, m.params"
	" FROM unnest($1, $2) WITH ORDINALITY AS n(contact_id, send_key, place)"
	" CROSS JOIN LATERAL (SELECT * FROM crm.message f"
	"  WHERE f.contact_id = n.contact_id AND f.send_key = n.send_key OFFSET 0) m",
	2,
	{ INT8ARRAYOID, TEXTARRAYOID },
	.always_generic = true,
	.by_index = true
};
static CrmPlan insert_messages = {
	"WITH n AS (SELECT * FROM unnest($1, $2, $3, $4, $5, $6)"
	"  AS n(contact_id, message_id, params, send_key, due_at, expires_at)),"
	" m AS (INSERT INTO crm.message (contact_id, message_id, account_id, template,"
	"  template_version, channel, class, params, send_key, awaited, due_at, expires_at)"
	"  SELECT n.contact_id, n.message_id, $7, $8, $9, $10, $11, n.params, n.send_key, $12,"
	"  n.due_at, n.expires_at FROM n)"
	" INSERT INTO crm.outbox (contact_id, message_id, account_id, lane, due_at)"
	" SELECT n.contact_id, n.message_id, $7, $13, n.due_at FROM n",
	13,
	{ INT8ARRAYOID, INT8ARRAYOID, JSONBARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID,
	  TIMESTAMPTZARRAYOID, INT8OID, TEXTOID, INT4OID, TEXTOID, TEXTOID, BOOLOID, TEXTOID }
};

static const char *const message_columns[] = {
	"contact_id", "message_id", "account_id",  "template",   "template_version",
	"channel",    "class",      "state",       "reason",     "params",
	"send_key",   "awaited",    "due_at",      "expires_at", "attempt_id",
	"tried_at",   "grant_id",   "recorded_at", "sent_at",    "ended_at",
};
enum
{
	M_CONTACT_ID,
	M_MESSAGE_ID,
	M_ACCOUNT_ID,
	M_TEMPLATE,
	M_TEMPLATE_VERSION,
	M_CHANNEL,
	M_CLASS,
	M_STATE,
	M_REASON,
	M_PARAMS,
	M_SEND_KEY,
	M_AWAITED,
	M_DUE_AT,
	M_EXPIRES_AT,
	M_ATTEMPT_ID,
	M_TRIED_AT,
	M_GRANT_ID,
	M_RECORDED_AT,
	M_SENT_AT,
	M_ENDED_AT,
	M_COLUMNS
};
static const char *const outbox_columns[] = {
	"contact_id", "message_id", "account_id", "lane", "due_at", "lease", "attempt_id", "attempts"
};
enum
{
	O_CONTACT_ID,
	O_MESSAGE_ID,
	O_ACCOUNT_ID,
	O_LANE,
	O_DUE_AT,
	O_LEASE,
	O_ATTEMPT_ID,
	O_ATTEMPTS,
	O_COLUMNS
};

/* The messages that are new, by their places, and what else is to be written. */
typedef struct Queuing
{
	const CrmSendEach *sending;
	CrmSendTemplate template;
	TimestampTz *expires_at; /* by place */
	int n;
	int *places;
} Queuing;

static int
compare_places(const void *a, const void *b, void *arg)
{
	const CrmSendEach *sending = arg;
	int left = *(const int *) a;
	int right = *(const int *) b;
	int by_contact = crm_compare_int64(&sending->contacts[left], &sending->contacts[right]);
	int by_key = by_contact != 0 ? by_contact
								 : strcmp(sending->send_keys[left], sending->send_keys[right]);

	return by_key != 0 ? by_key : left - right;
}

static bool
equal_params(Datum left, Datum right)
{
	return compareJsonbContainers(&DatumGetJsonbP(left)->root, &DatumGetJsonbP(right)->root) == 0;
}

/* Keys that come twice for a contact: places get that of the first with the same key. */
static int *
find_firsts(const CrmSendEach *sending)
{
	int *first = palloc_array(int, sending->n);
	int *sorted = palloc_array(int, sending->n);
	int nkeys = 0;

	for (int i = 0; i < sending->n; i++)
	{
		first[i] = i;
		if (sending->send_keys[i] != NULL)
			sorted[nkeys++] = i;
	}
	qsort_arg(sorted, nkeys, sizeof(int), compare_places, unconstify(CrmSendEach *, sending));
	for (int i = 1; i < nkeys; i++)
	{
		int place = sorted[i];
		int before = first[sorted[i - 1]];

		if (sending->contacts[place] != sending->contacts[before] ||
			strcmp(sending->send_keys[place], sending->send_keys[before]) != 0)
			continue;
		if (!equal_params(sending->params[place], sending->params[before]))
			crm_send_clash(sending->send_keys[place], sending->contacts[place], sending->template);
		first[place] = before;
	}
	pfree(sorted);
	return first;
}

static Datum
key_datum(const char *key)
{
	return key == NULL ? (Datum) 0 : CStringGetTextDatum(key);
}

/* A message that stands under the key of the one at this place. */
static void
take_existing(const CrmSendEach *sending, int place, int64 message_id, const char *template,
			  Datum params)
{
	if (strcmp(template, sending->template) != 0 || !equal_params(params, sending->params[place]))
		crm_send_clash(sending->send_keys[place], sending->contacts[place], template);
	sending->message_ids[place] = message_id;
}

static bool
find_directly(const CrmSendEach *sending)
{
	static const char *const columns[] = { "contact_id", "send_key", "message_id", "template",
										   "params" };
	CrmReader *reader;

	if (!crm_guc_direct_access)
		return false;
	reader = crm_reader_open("message", columns, lengthof(columns), 2);
	if (reader == NULL)
		return false;
	for (int i = 0; i < sending->n; i++)
	{
		Datum keys[2] = { Int64GetDatum(sending->contacts[i]), key_datum(sending->send_keys[i]) };
		bool isnull;

		if (sending->send_keys[i] == NULL)
			continue;
		crm_reader_find(reader, keys);
		if (crm_reader_next(reader))
			take_existing(sending, i, DatumGetInt64(crm_reader_value(reader, 2, &isnull)),
						  TextDatumGetCString(crm_reader_value(reader, 3, &isnull)),
						  crm_reader_value(reader, 4, &isnull));
	}
	crm_reader_close(reader);
	return true;
}

static void
find_by_statement(const CrmSendEach *sending)
{
	CrmColumn keys;
	Datum values[2];
	uint64 found;

	crm_column_init(&keys, TEXTOID);
	for (int i = 0; i < sending->n; i++)
		crm_column_add(&keys, key_datum(sending->send_keys[i]), sending->send_keys[i] == NULL);
	values[0] = crm_int64_array(sending->contacts, sending->n);
	values[1] = crm_column_array(&keys);
	found = crm_read(&find_messages, values, NULL);
	for (uint64 row = 0; row < found; row++)
	{
		bool isnull;

		take_existing(sending, crm_result_int64(row, 1) - 1, crm_result_int64(row, 2),
					  crm_result_text(row, 3), crm_result(row, 4, &isnull));
	}
	SPI_freetuptable(SPI_tuptable);
}

/* Sets the ids of messages that are there, also of those that an older snapshot does not show. */
static void
find_existing(const CrmSendEach *sending)
{
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	if (!find_directly(sending))
		find_by_statement(sending);
	PopActiveSnapshot();
}

static void
close_target(CrmTarget *target)
{
	if (target != NULL)
		crm_target_close(target);
}

static void
insert_message(CrmTarget *target, const Queuing *queuing, int place, Datum *values, bool *nulls)
{
	const CrmSendEach *sending = queuing->sending;

	values[M_CONTACT_ID] = Int64GetDatum(sending->contacts[place]);
	values[M_MESSAGE_ID] = Int64GetDatum(sending->message_ids[place]);
	values[M_PARAMS] = sending->params[place];
	values[M_SEND_KEY] = key_datum(sending->send_keys[place]);
	nulls[M_SEND_KEY] = sending->send_keys[place] == NULL;
	values[M_DUE_AT] = TimestampTzGetDatum(sending->due_at[place]);
	values[M_EXPIRES_AT] = TimestampTzGetDatum(queuing->expires_at[place]);
	nulls[M_EXPIRES_AT] = queuing->expires_at[place] == DT_NOEND;
	crm_target_insert(target, values, nulls);
}

static void
insert_all_messages(CrmTarget *target, const Queuing *queuing)
{
	const CrmSendEach *sending = queuing->sending;
	Datum values[M_COLUMNS] = { 0 };
	bool nulls[M_COLUMNS] = { 0 };

	values[M_ACCOUNT_ID] = Int64GetDatum(queuing->template.account_id);
	values[M_TEMPLATE] = CStringGetTextDatum(sending->template);
	values[M_TEMPLATE_VERSION] = queuing->template.version;
	values[M_CHANNEL] = queuing->template.channel;
	values[M_CLASS] = queuing->template.class;
	values[M_STATE] = CStringGetTextDatum("queued");
	values[M_AWAITED] = BoolGetDatum(sending->awaited);
	values[M_RECORDED_AT] = TimestampTzGetDatum(crm_now());
	nulls[M_REASON] = true;
	nulls[M_ATTEMPT_ID] = true;
	nulls[M_TRIED_AT] = true;
	nulls[M_GRANT_ID] = true;
	nulls[M_SENT_AT] = true;
	nulls[M_ENDED_AT] = true;
	for (int i = 0; i < queuing->n; i++)
		insert_message(target, queuing, queuing->places[i], values, nulls);
	crm_target_flush(target);
}

static void
insert_all_places(CrmTarget *target, const Queuing *queuing)
{
	const CrmSendEach *sending = queuing->sending;
	Datum values[O_COLUMNS] = { 0 };
	bool nulls[O_COLUMNS] = { 0 };

	values[O_ACCOUNT_ID] = Int64GetDatum(queuing->template.account_id);
	values[O_LANE] = CStringGetTextDatum(queuing->template.lane);
	values[O_ATTEMPTS] = Int32GetDatum(0);
	nulls[O_LEASE] = true;
	nulls[O_ATTEMPT_ID] = true;
	for (int i = 0; i < queuing->n; i++)
	{
		int place = queuing->places[i];

		values[O_CONTACT_ID] = Int64GetDatum(sending->contacts[place]);
		values[O_MESSAGE_ID] = Int64GetDatum(sending->message_ids[place]);
		values[O_DUE_AT] = TimestampTzGetDatum(sending->due_at[place]);
		crm_target_insert(target, values, nulls);
	}
	crm_target_flush(target);
}

/* Rows that stand there already can only be of ids that somebody gave by hand. */
static void
refuse_conflicts(CrmTarget *target)
{
	if (target->nconflicts > 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("a message of contact %lld has an id that crm.%s holds already",
						(long long) target->conflicts[0], RelationGetRelationName(target->rel)),
				 errhint(
					 "Let ids come from their sequence; set it beyond those that were given.")));
}

static bool
insert_directly(const Queuing *queuing)
{
	CrmTarget *message = NULL;
	CrmTarget *outbox = NULL;
	bool direct;

	if (!crm_guc_direct_access)
		return false;
	message = crm_target_open("message", message_columns, M_COLUMNS, false);
	if (message != NULL)
		outbox = crm_target_open("outbox", outbox_columns, O_COLUMNS, false);
	direct = outbox != NULL;
	if (direct)
	{
		insert_all_messages(message, queuing);
		refuse_conflicts(message);
		insert_all_places(outbox, queuing);
		refuse_conflicts(outbox);
	}
	close_target(message);
	close_target(outbox);
	return direct;
}

/* The same rows, for whatever tables there are. */
static void
insert_by_statement(const Queuing *queuing, int from, int to)
{
	static const Oid types[] = {
		INT8OID, INT8OID, JSONBOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID
	};
	const CrmSendEach *sending = queuing->sending;
	CrmColumn columns[lengthof(types)];
	Datum values[13];

	for (int i = 0; i < lengthof(types); i++)
		crm_column_init(&columns[i], types[i]);
	for (int i = from; i < to; i++)
	{
		int place = queuing->places[i];
		const char *key = sending->send_keys[place];
		TimestampTz expires_at = queuing->expires_at[place];

		crm_column_add(&columns[0], Int64GetDatum(sending->contacts[place]), false);
		crm_column_add(&columns[1], Int64GetDatum(sending->message_ids[place]), false);
		crm_column_add(&columns[2], sending->params[place], false);
		crm_column_add(&columns[3], key_datum(key), key == NULL);
		crm_column_add(&columns[4], TimestampTzGetDatum(sending->due_at[place]), false);
		crm_column_add(&columns[5], TimestampTzGetDatum(expires_at), expires_at == DT_NOEND);
	}
	for (int i = 0; i < lengthof(types); i++)
		values[i] = crm_column_array(&columns[i]);
	values[6] = Int64GetDatum(queuing->template.account_id);
	values[7] = CStringGetTextDatum(sending->template);
	values[8] = queuing->template.version;
	values[9] = queuing->template.channel;
	values[10] = queuing->template.class;
	values[11] = BoolGetDatum(sending->awaited);
	values[12] = CStringGetTextDatum(queuing->template.lane);
	crm_run(&insert_messages, values, NULL);
}

/* What the template says, worked out once for those due together. */
static void
find_expiries(Queuing *queuing)
{
	const CrmSendEach *sending = queuing->sending;
	TimestampTz due_at = DT_NOBEGIN;
	TimestampTz expires_at = DT_NOEND;

	for (int i = 0; i < queuing->n; i++)
	{
		int place = queuing->places[i];

		queuing->expires_at[place] = sending->expires_at[place];
		if (sending->expires_at[place] != DT_NOEND)
			continue;
		if (sending->due_at[place] != due_at)
		{
			due_at = sending->due_at[place];
			expires_at = crm_send_expires(&queuing->template, due_at);
		}
		queuing->expires_at[place] = expires_at;
	}
}

void
crm_outbox_send_each(const CrmSendEach *sending)
{
	Queuing queuing = { .sending = sending };
	Oid sequence;
	int *first;

	if (sending->n == 0)
		return;
	crm_send_template(sending->template, &queuing.template);
	first = find_firsts(sending);
	memset(sending->message_ids, 0, sizeof(int64) * sending->n);
	find_existing(sending);

	sequence = crm_table_oid("message_message_id_seq");
	queuing.places = palloc_array(int, sending->n);
	for (int i = 0; i < sending->n; i++)
	{
		if (sending->message_ids[i] != 0 || first[i] != i)
			continue;
		sending->message_ids[i] = nextval_internal(sequence, false);
		queuing.places[queuing.n++] = i;
	}
	for (int i = 0; i < sending->n; i++)
		sending->message_ids[i] = sending->message_ids[first[i]];
	if (queuing.n == 0)
		return;

	queuing.expires_at = palloc_array(TimestampTz, sending->n);
	find_expiries(&queuing);
	if (!insert_directly(&queuing))
		for (int from = 0; from < queuing.n; from += STATEMENT_BATCH)
			insert_by_statement(&queuing, from, Min(from + STATEMENT_BATCH, queuing.n));
	crm_wake_at_commit();
}
