/*
 * campaign.c
 *		A push to an audience: queued for everyone in it at once, for nobody
 *		twice. Whether somebody may be written to is asked when it is sent.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/db.h"
#include "base/row.h"
#include "base/table.h"
#include "facts/record.h"
#include "outbox/outbox.h"
#include "rules/rules.h"

#define MAX_NAME_BYTES 63
/* contacts that are asked about together */
#define CHUNK 5000

PG_FUNCTION_INFO_V1(crm_check_campaign);
PG_FUNCTION_INFO_V1(crm_sql_send_campaign);

static CrmPlan find_campaign = {
	"SELECT c.template, c.audience, c.stage, c.params, c.scheduled_at,"
	" c.stage IS NULL OR EXISTS (SELECT FROM crm.stage s WHERE s.stage = c.stage)"
	" FROM crm.campaign c WHERE c.name = $1 FOR NO KEY UPDATE OF c",
	1,
	{ TEXTOID }
};
/* whoever has it already is passed by */
static CrmPlan list_contacts = {
	"SELECT c.contact_id FROM crm.contact c WHERE c.contact_id > $1"
	" AND ($2 IS NULL OR c.stage = $2) AND NOT EXISTS (SELECT FROM crm.message m"
	"  WHERE m.contact_id = c.contact_id AND m.send_key = $3)"
	" ORDER BY c.contact_id LIMIT " CppAsString2(CHUNK),
	3,
	{ INT8OID, TEXTOID, TEXTOID }
};
static CrmPlan note_sent = {
	"UPDATE crm.campaign SET state = $2, sent_at = coalesce(sent_at, $3), contacts = contacts + $4"
	" WHERE name = $1",
	4,
	{ TEXTOID, TEXTOID, TIMESTAMPTZOID, INT8OID }
};

/* What is wrong with a campaign is told when it is saved. */
Datum
crm_check_campaign(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = crm_row_trigger(fcinfo, "check_campaign", true);
	HeapTuple tuple = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple
																 : trigger->tg_trigtuple;
	CrmRow row = { RelationGetDescr(trigger->tg_relation), tuple };
	char *audience;
	Datum params;
	bool isnull;

	crm_require_table(trigger->tg_relation, "campaign");
	crm_check_length("name of a campaign", crm_row_text(&row, "name"), MAX_NAME_BYTES);
	params = crm_row_value(&row, "params", &isnull);
	if (!isnull)
	{
		crm_check_document("params", params);
		crm_check_object("params", params);
	}
	audience = crm_row_text(&row, "audience");
	if (audience != NULL)
	{
		CrmActing acting;

		crm_connect(&acting);
		(void) crm_rule_reads(audience);
		crm_disconnect(&acting);
	}
	return PointerGetDatum(tuple);
}

typedef struct Campaign
{
	const char *name;
	const char *audience; /* NULL: everybody */
	Datum stage;
	bool any_stage;
	CrmSending sending;
} Campaign;

static void
read_campaign(Campaign *campaign)
{
	Datum name = CStringGetTextDatum(campaign->name);
	TimestampTz now = crm_now();
	bool isnull;

	if (crm_run(&find_campaign, &name, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("campaign \"%s\" does not exist",
						pnstrdup(campaign->name,
								 pg_mbcliplen(campaign->name, strlen(campaign->name),
											  NAMEDATALEN))),
				 errhint("Insert it into crm.campaign first.")));
	campaign->sending.template = crm_result_text(0, 1);
	if (campaign->sending.template == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("campaign \"%s\" has no template", campaign->name),
				 errhint("UPDATE crm.campaign SET template = ... for it.")));
	campaign->audience = crm_result_text(0, 2);
	campaign->stage = crm_result(0, 3, &campaign->any_stage);
	if (!crm_result_true(0, 6))
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("stage \"%s\" of campaign \"%s\" does not exist",
						TextDatumGetCString(campaign->stage), campaign->name),
				 errhint("Use a stage of crm.stage, or NULL for all of them.")));
	campaign->sending.params = crm_result(0, 4, &isnull);
	campaign->sending.send_key = psprintf("campaign:%s", campaign->name);
	campaign->sending.due_at = Max(now, crm_result_time(0, 5, now));
	campaign->sending.expires_at = DT_NOEND;
}

/* The next contacts after one, at most CHUNK; how many. */
static int
read_contacts(const Campaign *campaign, int64 after, int64 *contacts)
{
	Datum values[3] = { Int64GetDatum(after), campaign->stage,
						CStringGetTextDatum(campaign->sending.send_key) };
	char nulls[3] = { ' ', campaign->any_stage ? 'n' : ' ', ' ' };
	int n = crm_run(&list_contacts, values, nulls);

	for (int i = 0; i < n; i++)
		contacts[i] = crm_result_int64(i, 1);
	SPI_freetuptable(SPI_tuptable);
	return n;
}

/* Leaves those whom the campaign means. */
static int
keep_audience(const Campaign *campaign, int64 *contacts, int n)
{
	const CrmRuleUser user = { "campaign", campaign->name };
	bool *holds;
	int kept = 0;

	if (campaign->audience == NULL)
		return n;
	holds = palloc_array(bool, n);
	crm_rule_evaluate(campaign->audience, &user, contacts, n, crm_now(), holds);
	for (int i = 0; i < n; i++)
		if (holds[i])
			contacts[kept++] = contacts[i];
	pfree(holds);
	return kept;
}

Datum
crm_sql_send_campaign(PG_FUNCTION_ARGS)
{
	Campaign campaign = { 0 };
	CrmActing acting;
	int64 *contacts;
	int64 last = PG_INT64_MIN;
	int64 queued = 0;
	Datum values[4];
	int n;

	crm_require_argument("send_campaign", "campaign", PG_ARGISNULL(0));
	campaign.name = crm_text_argument(fcinfo, 0);
	crm_connect(&acting);
	read_campaign(&campaign);
	contacts = palloc_array(int64, CHUNK);
	while ((n = read_contacts(&campaign, last, contacts)) > 0)
	{
		CHECK_FOR_INTERRUPTS();
		last = contacts[n - 1];
		n = keep_audience(&campaign, contacts, n);
		if (n == 0)
			continue;
		campaign.sending.ncontacts = crm_contacts_lock(contacts, n);
		campaign.sending.contacts = contacts;
		queued += crm_outbox_send(&campaign.sending);
	}
	values[0] = CStringGetTextDatum(campaign.name);
	values[1] = CStringGetTextDatum(campaign.sending.due_at > crm_now() ? "scheduled" : "sent");
	values[2] = TimestampTzGetDatum(crm_now());
	values[3] = Int64GetDatum(queued);
	crm_run(&note_sent, values, NULL);
	crm_disconnect(&acting);
	PG_RETURN_INT32(queued);
}
