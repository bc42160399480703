/*
 * send.c
 *		Queuing messages: a row of message and one of outbox each, set-based, in
 *		the transaction of what asks for them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/wake.h"
#include "channels/channel.h"
#include "outbox/outbox.h"
#include "outbox/send.h"

static CrmPlan find_template = {
	"SELECT t.version, t.channel, t.message_type, t.class, t.lane, a.account_id,"
	" (SELECT count(*) FROM crm.account k WHERE k.kind = t.channel),"
	" (SELECT min(k.account_id) FROM crm.account k WHERE k.kind = t.channel), t.account,"
	" t.valid_for"
	" FROM crm.template t LEFT JOIN crm.account a ON a.name = t.account WHERE t.name = $1",
	1,
	{ TEXTOID }
};

#define INSERT_MESSAGES                                                                          \
	"WITH m AS (INSERT INTO crm.message (contact_id, account_id, template, template_version,"    \
	" channel, class, params, send_key, due_at, expires_at)"                                     \
	" SELECT n.contact_id, $2, $3, $4, $5, $6, $7, $8, $9, $10 FROM unnest($1) AS n(contact_id)" \
	" ON CONFLICT (contact_id, send_key) DO NOTHING"                                             \
	" RETURNING contact_id, message_id)"                                                         \
	" INSERT INTO crm.outbox (contact_id, message_id, account_id, lane, due_at)"                 \
	" SELECT m.contact_id, m.message_id, $2, $11, $9 FROM m"

static CrmPlan insert_messages = { INSERT_MESSAGES,
								   11,
								   { INT8ARRAYOID, INT8OID, TEXTOID, INT4OID, TEXTOID, TEXTOID,
									 JSONBOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID } };
static CrmPlan insert_message = { INSERT_MESSAGES " RETURNING message_id",
								  11,
								  { INT8ARRAYOID, INT8OID, TEXTOID, INT4OID, TEXTOID, TEXTOID,
									JSONBOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID } };
/* a key that stands for another content, by the contact it does so for */
static CrmPlan find_clash = {
	"SELECT m.contact_id, m.template FROM crm.message m WHERE m.contact_id = ANY ($1)"
	" AND m.send_key = $2 AND (m.template <> $3 OR m.params <> $4)"
	" ORDER BY m.contact_id LIMIT 1",
	4,
	{ INT8ARRAYOID, TEXTOID, TEXTOID, JSONBOID }
};
static CrmPlan find_message = {
	"SELECT m.message_id FROM crm.message m WHERE m.contact_id = $1 AND m.send_key = $2",
	2,
	{ INT8OID, TEXTOID }
};

/* Messages that answer within a minute go first, those that persuade last. */
static const char *
default_lane(const char *channel, const char *message_type, const char *class)
{
	const CrmChannel *adapter = crm_channel_find(channel);

	if (strcmp(class, "marketing") == 0)
		return CRM_LANE_BULK;
	for (int i = 0; adapter != NULL && i < adapter->ntypes; i++)
		if (strcmp(adapter->types[i].name, message_type) == 0 && adapter->types[i].needs_window)
			return CRM_LANE_URGENT;
	return CRM_LANE_NORMAL;
}

void
crm_send_template(const char *name, CrmSendTemplate *template)
{
	Datum value = CStringGetTextDatum(name);
	char *channel;
	char *account;
	bool no_account;
	bool isnull;

	if (crm_run(&find_template, &value, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("template \"%s\" does not exist",
						pnstrdup(name, pg_mbcliplen(name, strlen(name), 40))),
				 errhint("Define it with crm.define_template() first.")));
	template->version = crm_result(0, 1, &isnull);
	template->channel = crm_result(0, 2, &isnull);
	template->class = crm_result(0, 4, &isnull);
	channel = crm_result_text(0, 2);
	template->lane = crm_result_text(0, 5);
	if (template->lane == NULL)
		template->lane = default_lane(channel, crm_result_text(0, 3), crm_result_text(0, 4));
	template->valid_for = crm_result(0, 10, &template->never_expires);

	account = crm_result_text(0, 9);
	template->account_id = DatumGetInt64(crm_result(0, 6, &no_account));
	if (account != NULL && no_account)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("account \"%s\" of template \"%s\" does not exist", account, name),
				 errhint("Define the template with an account that there is.")));
	if (account == NULL && crm_result_int64(0, 7) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("template \"%s\" names no account, and there are %lld of kind %s", name,
						(long long) crm_result_int64(0, 7), channel),
				 errhint("Define the template with the name of the account that sends it.")));
	if (account == NULL)
		template->account_id = crm_result_int64(0, 8);
}

/* Days and months count on the clock of pg_crm.time_zone. */
TimestampTz
crm_send_expires(const CrmSendTemplate *template, TimestampTz due_at)
{
	Datum zone;
	Datum local;

	if (template->never_expires)
		return DT_NOEND;
	zone = CStringGetTextDatum(crm_guc_time_zone);
	local = DirectFunctionCall2(timestamptz_zone, zone, TimestampTzGetDatum(due_at));
	local = DirectFunctionCall2(timestamp_pl_interval, local, template->valid_for);
	return DatumGetTimestampTz(DirectFunctionCall2(timestamp_zone, zone, local));
}

void
crm_send_clash(const char *send_key, int64 contact_id, const char *template)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNIQUE_VIOLATION),
			 errmsg("send_key \"%s\" of contact %lld stands for another message", send_key,
					(long long) contact_id),
			 errdetail("It was given for template \"%s\".", template),
			 errhint("Repeat a call with the same template and params, or use another key.")));
}

static void
refuse_clash(const CrmSending *sending)
{
	Datum values[4] = { crm_int64_array(sending->contacts, sending->ncontacts),
						CStringGetTextDatum(sending->send_key),
						CStringGetTextDatum(sending->template), sending->params };

	if (crm_run(&find_clash, values, NULL) > 0)
		crm_send_clash(sending->send_key, crm_result_int64(0, 1), crm_result_text(0, 2));
}

static int64
queue(CrmPlan *plan, const CrmSending *sending)
{
	CrmSendTemplate template;
	TimestampTz expires_at = sending->expires_at;
	Datum values[11];
	char nulls[12] = "           ";
	int64 n;

	crm_send_template(sending->template, &template);
	if (expires_at == DT_NOEND)
		expires_at = crm_send_expires(&template, sending->due_at);
	values[0] = crm_int64_array(sending->contacts, sending->ncontacts);
	values[1] = Int64GetDatum(template.account_id);
	values[2] = CStringGetTextDatum(sending->template);
	values[3] = template.version;
	values[4] = template.channel;
	values[5] = template.class;
	values[6] = sending->params;
	values[7] = sending->send_key == NULL ? (Datum) 0 : CStringGetTextDatum(sending->send_key);
	nulls[7] = sending->send_key == NULL ? 'n' : ' ';
	values[8] = TimestampTzGetDatum(sending->due_at);
	values[9] = TimestampTzGetDatum(expires_at);
	nulls[9] = expires_at == DT_NOEND ? 'n' : ' ';
	values[10] = CStringGetTextDatum(template.lane);
	n = crm_run(plan, values, nulls);
	if (n > 0)
		crm_wake_at_commit();
	return n;
}

int64
crm_outbox_send(const CrmSending *sending)
{
	int64 n = queue(&insert_messages, sending);

	if (n < sending->ncontacts)
		refuse_clash(sending);
	return n;
}

int64
crm_outbox_message(int64 contact_id, const char *send_key)
{
	Datum values[2] = { Int64GetDatum(contact_id), CStringGetTextDatum(send_key) };

	return crm_run(&find_message, values, NULL) == 0 ? 0 : crm_result_int64(0, 1);
}

int64
crm_outbox_send_one(const CrmSending *sending)
{
	if (queue(&insert_message, sending) > 0)
		return crm_result_int64(0, 1);
	refuse_clash(sending);
	return crm_outbox_message(sending->contacts[0], sending->send_key);
}
