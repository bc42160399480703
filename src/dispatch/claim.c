/*
 * claim.c
 *		Claiming what is due in a lane of an account: candidates are taken in the
 *		order of their time, their contacts locked, each is decided about, and
 *		what may go gets a lease. Nothing here waits: rows and contacts that
 *		somebody else holds are left for later.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "base/table.h"
#include "dispatch/claim.h"
#include "dispatch/direct.h"
#include "dispatch/standing.h"
#include "outbox/queue.h"
#include "outbox/template.h"

static CrmPlan find_due = {
	"SELECT o.contact_id, o.message_id, o.due_at FROM crm.outbox o WHERE o.account_id = $1"
	" AND o.lane = $2 AND o.due_at <= $3 AND (o.due_at, o.message_id) >= ($5, $6)"
	" AND o.lease IS NULL ORDER BY o.due_at, o.message_id LIMIT $4 FOR UPDATE SKIP LOCKED",
	6,
	{ INT8OID, TEXTOID, TIMESTAMPTZOID, INT4OID, TIMESTAMPTZOID, INT8OID },
	.always_generic = true
};
/* what comes next in a lane, behind what was due */
static CrmPlan find_next = {
	"SELECT o.due_at FROM crm.outbox o WHERE o.account_id = $1 AND o.lane = $2"
	" AND o.due_at > $3 AND o.due_at < 'infinity' AND o.lease IS NULL"
	" ORDER BY o.due_at LIMIT 1",
	3,
	{ INT8OID, TEXTOID, TIMESTAMPTZOID },
	.always_generic = true
};
static CrmPlan lock_contacts = {
	"SELECT p.contact_id FROM crm.profile_counter p WHERE p.contact_id = ANY ($1)"
	" FOR NO KEY UPDATE SKIP LOCKED",
	1,
	{ INT8ARRAYOID },
	.always_generic = true
};
static CrmPlan find_content = {
	"SELECT v.body FROM crm.template_version v WHERE v.name = $1 AND v.version = $2",
	2,
	{ TEXTOID, INT4OID }
};
static CrmPlan find_contact = { "SELECT to_jsonb(c) FROM crm.contact c WHERE c.contact_id = $1",
								1,
								{ INT8OID } };
static CrmPlan lease_messages = {
	"UPDATE crm.outbox o SET lease = $3, attempts = o.attempts + 1,"
	" attempt_id = nextval('crm.delivery_attempt_attempt_id_seq')"
	" FROM unnest($1, $2) AS n(contact_id, message_id)"
	" WHERE o.contact_id = n.contact_id AND o.message_id = n.message_id"
	" RETURNING o.message_id, o.attempt_id",
	3,
	{ INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZOID },
	.always_generic = true
};
static CrmPlan mark_sending = {
	"UPDATE crm.message m SET state = 'sending', reason = NULL, attempt_id = n.attempt_id,"
	" grant_id = nullif(n.grant_id, 0), tried_at = coalesce(m.tried_at, $5)"
	" FROM unnest($1, $2, $3, $4) AS n(contact_id, message_id, attempt_id, grant_id)"
	" WHERE m.contact_id = n.contact_id AND m.message_id = n.message_id",
	5,
	{ INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZOID },
	.always_generic = true
};
static CrmPlan use_windows = {
	"UPDATE crm.window_grant g SET used = g.used + 1"
	" FROM unnest($1, $2) AS n(contact_id, grant_id)"
	" WHERE g.contact_id = n.contact_id AND g.account_id = $3 AND g.grant_id = n.grant_id",
	3,
	{ INT8ARRAYOID, INT8ARRAYOID, INT8OID },
	.always_generic = true
};
static CrmPlan put_off = { "UPDATE crm.outbox o SET due_at = n.until"
						   " FROM unnest($1, $2, $3) AS n(contact_id, message_id, until)"
						   " WHERE o.contact_id = n.contact_id AND o.message_id = n.message_id",
						   3,
						   { INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID },
						   .always_generic = true };
static CrmPlan say_why = { "UPDATE crm.message m SET reason = n.reason"
						   " FROM unnest($1, $2, $3) AS n(contact_id, message_id, reason)"
						   " WHERE m.contact_id = n.contact_id AND m.message_id = n.message_id"
						   " AND m.reason IS DISTINCT FROM n.reason",
						   3,
						   { INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID },
						   .always_generic = true };

/* The contents of the templates of a claim, each read once. */
typedef struct Content
{
	const char *template;
	int version;
	Jsonb *body;
	bool has_places;
	char *text; /* where it has none */
} Content;

static Content *
content_of(List **contents, const CrmCandidate *candidate)
{
	Datum values[2] = { CStringGetTextDatum(candidate->template),
						Int32GetDatum(candidate->template_version) };
	Content *content;
	ListCell *cell;
	bool isnull;

	foreach(cell, *contents)
	{
		content = lfirst(cell);
		if (content->version == candidate->template_version &&
			strcmp(content->template, candidate->template) == 0)
			return content;
	}
	content = palloc0_object(Content);
	content->template = candidate->template;
	content->version = candidate->template_version;
	if (crm_run(&find_content, values, NULL) > 0)
		content->body = DatumGetJsonbPCopy(crm_result(0, 1, &isnull));
	if (content->body != NULL)
		content->has_places = crm_template_has_places(content->body);
	if (content->body != NULL && !content->has_places)
		content->text = JsonbToCString(NULL, &content->body->root, VARSIZE(content->body));
	*contents = lappend(*contents, content);
	return content;
}

/* The body as the platform gets it; NULL where a value is missing, and which. */
static char *
render(List **contents, const CrmCandidate *candidate, char **missing)
{
	Content *content = content_of(contents, candidate);
	Datum value = Int64GetDatum(candidate->contact_id);
	Jsonb *contact = NULL;
	bool isnull;

	*missing = NULL;
	if (content->body == NULL)
		return NULL;
	if (!content->has_places)
		return content->text;
	if (crm_template_asks_contact(content->body, candidate->params) &&
		crm_run(&find_contact, &value, NULL) > 0)
		contact = DatumGetJsonbP(crm_result(0, 1, &isnull));
	return crm_template_render(content->body, candidate->params, contact, missing);
}

typedef struct SecretRead
{
	const CrmSender *sender;
	char *secret;
} SecretRead;

static bool
read_secret(void *arg)
{
	SecretRead *read = arg;

	read->secret = crm_account_secret(read->sender->account_id, read->sender->channel->secret_name);
	return true;
}

static void
stop_account(const CrmSender *sender, const char *reason, const char *detail)
{
	crm_quota_block(sender->account_id, "", DT_NOEND, reason);
	crm_alarm_raise("account_paused", sender->name, detail);
}

bool
crm_claim_prepare(CrmSender *sender)
{
	const CrmChannel *channel = sender->channel;
	SecretRead read = { sender, NULL };
	ErrorData *error;

	if (channel->needs_base_url && sender->base_url == NULL)
	{
		stop_account(sender, "base_url", "the account has no base_url");
		return false;
	}
	if (channel->needs_token && sender->token == NULL)
		return false;
	if (channel->secret_name == NULL)
		return true;
	if (crm_attempt(read_secret, &read, &error) && read.secret != NULL)
	{
		sender->secret = read.secret;
		return true;
	}
	stop_account(sender, "secret",
				 error != NULL
					 ? error->message
					 : psprintf("crm.account_secret has no %s of it", channel->secret_name));
	if (error != NULL)
		FreeErrorData(error);
	return false;
}

/* A key by which the platform knows a message again: of this server, database and message. */
static char *
platform_key(int64 message_id)
{
	return psprintf("c%08x-%lld", crm_installation_hash(), (long long) message_id);
}

static CrmDelivery *
make_delivery(const CrmSender *sender, const CrmCandidate *candidate, const char *body,
			  TimestampTz now)
{
	MemoryContext context = AllocSetContextCreate(crm_claimed_context, "pg_crm delivery",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	CrmDelivery *delivery = palloc0_object(CrmDelivery);

	delivery->context = context;
	delivery->contact_id = candidate->contact_id;
	delivery->message_id = candidate->message_id;
	delivery->account_id = sender->account_id;
	delivery->grant_id = candidate->grant_id;
	delivery->channel = sender->channel;
	delivery->type = candidate->type;
	delivery->account_name = pstrdup(sender->name);
	delivery->template = pstrdup(candidate->template);
	delivery->zone = pstrdup(sender->zone);
	delivery->token = sender->token == NULL ? NULL : pstrdup(sender->token);
	delivery->key = candidate->type->key_seconds > 0 ? platform_key(candidate->message_id) : NULL;
	delivery->attempts = candidate->attempts + 1;
	delivery->token_failed = candidate->token_failed;
	delivery->tried_at = candidate->tried_at == DT_NOBEGIN ? now : candidate->tried_at;
	delivery->tried_before = candidate->tried_at != DT_NOBEGIN;
	delivery->expires_at = candidate->expires_at;
	delivery->queue_place = candidate->queue_place;
	delivery->place = candidate->place;

	delivery->message.message_type = candidate->type->name;
	delivery->message.recipient = candidate->recipient == NULL ? NULL
															   : pstrdup(candidate->recipient);
	delivery->message.base_url = sender->base_url == NULL ? NULL : pstrdup(sender->base_url);
	delivery->message.app_id = sender->app_id == NULL ? NULL : pstrdup(sender->app_id);
	delivery->message.token = delivery->token;
	delivery->message.secret = sender->secret == NULL ? NULL : pstrdup(sender->secret);
	delivery->message.body = pstrdup(body);
	delivery->message.key = delivery->key;
	delivery->message.contact_id = delivery->contact_id;
	delivery->message.message_id = delivery->message_id;
	delivery->message.template_name = delivery->template;
	delivery->message.now = now / USECS_PER_SEC +
		(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;
	delivery->channel->request(&delivery->message, &delivery->request);
	MemoryContextSwitchTo(old);
	return delivery;
}

/* Ids of the candidates, and those of them whose contacts could be locked. */
static int
take_candidates(const CrmSender *sender, int lane, int room, TimestampTz now, int64 **contacts,
				int64 **messages, List **busy)
{
	Datum values[6] = { Int64GetDatum(sender->account_id),
						CStringGetTextDatum(crm_lanes[lane]),
						TimestampTzGetDatum(now),
						Int32GetDatum(room),
						TimestampTzGetDatum(sender->due[lane]),
						Int64GetDatum(sender->head[lane]) };
	int found = crm_run(&find_due, values, NULL);
	int64 *locked;
	int nlocked;
	int n = 0;
	bool isnull;

	*contacts = palloc_array(int64, Max(found, 1));
	*messages = palloc_array(int64, Max(found, 1));
	if (found == 0)
		return 0;
	/* whatever becomes of them, they will not be at the head; but see what is left */
	crm_head_set(sender->account_id, lane, DatumGetTimestampTz(crm_result(found - 1, 3, &isnull)),
				 crm_result_int64(found - 1, 2) + 1);
	for (int i = 0; i < found; i++)
	{
		(*contacts)[i] = crm_result_int64(i, 1);
		(*messages)[i] = crm_result_int64(i, 2);
	}
	values[0] = crm_int64_array(*contacts, found);
	nlocked = crm_run(&lock_contacts, values, NULL);
	locked = palloc_array(int64, Max(nlocked, 1));
	for (int i = 0; i < nlocked; i++)
		locked[i] = crm_result_int64(i, 1);
	qsort(locked, nlocked, sizeof(int64), crm_compare_int64);
	for (int i = 0; i < found; i++)
	{
		if (bsearch(&(*contacts)[i], locked, nlocked, sizeof(int64), crm_compare_int64) != NULL)
		{
			(*contacts)[n] = (*contacts)[i];
			(*messages)[n++] = (*messages)[i];
		}
		else
		{
			CrmCandidate *candidate = palloc0_object(CrmCandidate);

			candidate->contact_id = (*contacts)[i];
			candidate->message_id = (*messages)[i];
			candidate->verdict = CRM_PUT_OFF;
			candidate->until = now + CRM_BUSY(lane);
			*busy = lappend(*busy, candidate);
		}
	}
	return n;
}

/*
 * Returns whether others of these contacts are due now: who is put off for a
 * reason of its own does not hold them.
 */
static bool
put_off_candidates(List *candidates, TimestampTz now)
{
	CrmColumn columns[3];
	CrmColumn why[3];
	Datum values[3];
	ListCell *cell;

	crm_column_init(&columns[0], INT8OID);
	crm_column_init(&columns[1], INT8OID);
	crm_column_init(&columns[2], TIMESTAMPTZOID);
	crm_column_init(&why[0], INT8OID);
	crm_column_init(&why[1], INT8OID);
	crm_column_init(&why[2], TEXTOID);
	foreach(cell, candidates)
	{
		CrmCandidate *candidate = lfirst(cell);

		if (candidate->verdict != CRM_PUT_OFF && candidate->verdict != CRM_BEHIND)
			continue;
		crm_column_add(&columns[0], Int64GetDatum(candidate->contact_id), false);
		crm_column_add(&columns[1], Int64GetDatum(candidate->message_id), false);
		crm_column_add(&columns[2],
					   TimestampTzGetDatum(candidate->verdict == CRM_BEHIND ? DT_NOEND
																			: candidate->until),
					   false);
		if (candidate->reason == NULL)
			continue;
		crm_column_add(&why[0], Int64GetDatum(candidate->contact_id), false);
		crm_column_add(&why[1], Int64GetDatum(candidate->message_id), false);
		crm_column_add(&why[2], CStringGetTextDatum(candidate->reason), false);
	}
	if (columns[0].n > 0)
	{
		for (int i = 0; i < 3; i++)
			values[i] = crm_column_array(&columns[i]);
		crm_run(&put_off, values, NULL);
	}
	if (why[0].n == 0)
		return false;
	for (int i = 0; i < 3; i++)
		values[i] = crm_column_array(&why[i]);
	crm_run(&say_why, values, NULL);
	return crm_queue_release(values[0], now);
}

static int
compare_message(const ListCell *a, const ListCell *b)
{
	return crm_compare_int64(&((CrmDelivery *) lfirst(a))->message_id,
							 &((CrmDelivery *) lfirst(b))->message_id);
}

/* The same as crm_direct_claim(), for whatever tables there are. */
static void
claim_by_statements(List *deliveries, TimestampTz lease, TimestampTz now)
{
	CrmColumn columns[4];
	Datum values[5];
	ListCell *cell;
	uint64 n;

	for (int i = 0; i < 4; i++)
		crm_column_init(&columns[i], INT8OID);
	foreach(cell, deliveries)
	{
		CrmDelivery *delivery = lfirst(cell);

		crm_column_add(&columns[0], Int64GetDatum(delivery->contact_id), false);
		crm_column_add(&columns[1], Int64GetDatum(delivery->message_id), false);
	}
	values[0] = crm_column_array(&columns[0]);
	values[1] = crm_column_array(&columns[1]);
	values[2] = TimestampTzGetDatum(lease);
	n = crm_run(&lease_messages, values, NULL);
	for (uint64 i = 0; i < n; i++)
	{
		CrmDelivery key = { .message_id = crm_result_int64(i, 1) };
		int low = 0;
		int high = list_length(deliveries);

		while (low < high)
		{
			int middle = (low + high) / 2;

			if (((CrmDelivery *) list_nth(deliveries, middle))->message_id < key.message_id)
				low = middle + 1;
			else
				high = middle;
		}
		((CrmDelivery *) list_nth(deliveries, low))->attempt_id = crm_result_int64(i, 2);
	}
	foreach(cell, deliveries)
	{
		CrmDelivery *delivery = lfirst(cell);

		crm_column_add(&columns[2], Int64GetDatum(delivery->attempt_id), false);
		crm_column_add(&columns[3], Int64GetDatum(delivery->grant_id), false);
	}
	values[2] = crm_column_array(&columns[2]);
	values[3] = crm_column_array(&columns[3]);
	values[4] = TimestampTzGetDatum(now);
	crm_run(&mark_sending, values, NULL);
}

static void
lease_deliveries(const CrmSender *sender, List *deliveries, List *candidates, TimestampTz now)
{
	TimestampTz lease = now + crm_lease_length();
	CrmColumn grants[2];
	Datum values[3];
	ListCell *cell;

	for (int i = 0; i < 2; i++)
		crm_column_init(&grants[i], INT8OID);
	list_sort(deliveries, compare_message);
	foreach(cell, deliveries)
		((CrmDelivery *) lfirst(cell))->lease = lease;
	if (!crm_direct_claim(deliveries, now))
		claim_by_statements(deliveries, lease, now);

	foreach(cell, candidates)
	{
		CrmCandidate *candidate = lfirst(cell);

		if (candidate->verdict != CRM_GO || !candidate->new_grant)
			continue;
		crm_column_add(&grants[0], Int64GetDatum(candidate->contact_id), false);
		crm_column_add(&grants[1], Int64GetDatum(candidate->grant_id), false);
	}
	if (grants[0].n > 0)
	{
		values[0] = crm_column_array(&grants[0]);
		values[1] = crm_column_array(&grants[1]);
		values[2] = Int64GetDatum(sender->account_id);
		crm_run(&use_windows, values, NULL);
	}
}

/*
 * Calls that are only too fast wait where they are; what is stopped for longer
 * is put off, so that others come to the head of the lane.
 */
static bool
take_call(CrmCandidate *candidate, TimestampTz now, TimestampTz *next)
{
	const char *reason = NULL;
	TimestampTz until = now;

	if (crm_quota_take(candidate->type->api, now, &until, &reason))
		return true;
	candidate->verdict = CRM_LEFT;
	if (strcmp(reason, CRM_QUOTA_RATE) != 0)
	{
		candidate->verdict = CRM_PUT_OFF;
		candidate->until = Min(until, now + CRM_MAX_PUT_OFF);
		candidate->reason = pstrdup(reason);
	}
	*next = Min(*next, until);
	return false;
}

bool crm_claim_carefully = false;

typedef struct Making
{
	const CrmSender *sender;
	List **contents;
	CrmCandidate *candidate;
	TimestampTz now;
	TimestampTz *next;
	CrmDelivery *delivery; /* NULL: it does not go */
} Making;

static bool
make(void *arg)
{
	Making *making = arg;
	CrmCandidate *candidate = making->candidate;
	char *missing;
	char *body = render(making->contents, candidate, &missing);

	making->delivery = NULL;
	if (body == NULL)
	{
		candidate->verdict = CRM_FAILED;
		candidate->reason = missing == NULL ? pstrdup("no_template")
											: psprintf("missing_value:%s", missing);
	}
	else if (take_call(candidate, making->now, making->next))
		making->delivery = make_delivery(making->sender, candidate, body, making->now);
	return true;
}

/* Whatever is wrong with one message is said of that message and holds up no other. */
static void
make_carefully(Making *making)
{
	ErrorData *error;

	if (crm_attempt(make, making, &error))
		return;
	making->delivery = NULL;
	making->candidate->verdict = CRM_FAILED;
	making->candidate->reason = psprintf("error:%s", unpack_sql_state(error->sqlerrcode));
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("message %lld of template \"%s\" cannot be made: %s",
					(long long) making->candidate->message_id, making->candidate->template,
					error->message)));
	FreeErrorData(error);
}

List *
crm_claim(CrmSender *sender, int lane, int room, TimestampTz now, TimestampTz *next, int *found,
		  bool *more)
{
	List *deliveries = NIL;
	List *busy = NIL;
	List *contents = NIL;
	List *candidates;
	int64 *contacts;
	int64 *messages;
	ListCell *cell;
	bool released;
	int n = take_candidates(sender, lane, room, now, &contacts, &messages, &busy);

	*found = n + list_length(busy);
	*more = *found == room;
	if (busy != NIL)
		*next = Min(*next, ((CrmCandidate *) linitial(busy))->until);
	candidates = n == 0 ? NIL : crm_standing(sender, lane, contacts, messages, n, now);
	foreach(cell, candidates)
	{
		CrmCandidate *candidate = lfirst(cell);
		Making making = { sender, &contents, candidate, now, next, NULL };

		if (candidate->verdict == CRM_PUT_OFF)
			*next = Min(*next, candidate->until);
		if (candidate->verdict != CRM_GO)
			continue;
		if (crm_claim_carefully)
			make_carefully(&making);
		else
			(void) make(&making);
		if (making.delivery != NULL)
			deliveries = lappend(deliveries, making.delivery);
		else if (candidate->verdict == CRM_LEFT)
		{
			crm_head_set(sender->account_id, lane, sender->due[lane], sender->head[lane]);
			*more = false;
		}
	}
	if (deliveries != NIL)
		lease_deliveries(sender, deliveries, candidates, now);
	released = put_off_candidates(list_concat(busy, candidates), now);
	if (crm_end_unsent(candidates, now) || released)
	{
		crm_heads_woken();
		*next = now;
	}
	if (!*more)
	{
		Datum values[3] = { Int64GetDatum(sender->account_id), CStringGetTextDatum(crm_lanes[lane]),
							TimestampTzGetDatum(now) };
		bool isnull;

		if (crm_run(&find_next, values, NULL) > 0)
			*next = Min(*next, DatumGetTimestampTz(crm_result(0, 1, &isnull)));
	}
	return deliveries;
}
