/*
 * send.c
 *		Queuing messages: a row of message and one of outbox each, set-based, in
 *		the transaction of what asks for them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "base/wake.h"
#include "outbox/outbox.h"
#include "outbox/send.h"

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
