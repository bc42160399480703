/*
 * send_template.c
 *		What queuing knows of a template, kept until templates or accounts change:
 *		to look it up takes longer than to write a message.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "mb/pg_wchar.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/guc.h"
#include "base/table.h"
#include "base/watch.h"
#include "channels/channel.h"
#include "outbox/outbox.h"
#include "outbox/send.h"

PG_FUNCTION_INFO_V1(crm_templates_changed);

/* more are not kept at once */
#define MOST_KEPT 256

static CrmPlan find_template = {
	"SELECT t.version, t.channel, t.message_type, t.class, t.lane, a.account_id,"
	" (SELECT count(*) FROM crm.account k WHERE k.kind = t.channel),"
	" (SELECT min(k.account_id) FROM crm.account k WHERE k.kind = t.channel), t.account,"
	" t.valid_for"
	" FROM crm.template t LEFT JOIN crm.account a ON a.name = t.account WHERE t.name = $1",
	1,
	{ TEXTOID }
};

typedef struct Kept
{
	const char *name;
	CrmSendTemplate template;
} Kept;

static MemoryContext kept_context = NULL;
static List *kept = NIL;
static bool changed = false; /* since they were kept */
static Oid template_table = InvalidOid;

static void
forget_templates(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == template_table)
		changed = true;
}

void
crm_send_init(void)
{
	crm_on_table_change(forget_templates);
}

/* Tells every session, at commit. */
Datum
crm_templates_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("crm.templates_changed() must be called as a trigger"),
				 errhint("The triggers of pg_crm are made by crm.install().")));
	CacheInvalidateRelcacheByRelid(crm_table_oid("template"));
	return PointerGetDatum(NULL);
}

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

static void
read_template(const char *name, CrmSendTemplate *template)
{
	Datum value = CStringGetTextDatum(name);
	char *channel;
	char *account;
	bool no_account;
	bool isnull;
	uint64 found;

	/* as committed now: what is known outlives the snapshot of the transaction */
	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	found = crm_read(&find_template, &value, NULL);
	PopActiveSnapshot();
	if (found == 0)
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

static void
keep(const char *name, const CrmSendTemplate *template)
{
	MemoryContext old = MemoryContextSwitchTo(kept_context);
	Kept *one = palloc_object(Kept);

	one->name = pstrdup(name);
	one->template = *template;
	one->template.channel = PointerGetDatum(PG_DETOAST_DATUM_COPY(template->channel));
	one->template.class = PointerGetDatum(PG_DETOAST_DATUM_COPY(template->class));
	one->template.lane = pstrdup(template->lane);
	if (!template->never_expires)
		one->template.valid_for = datumCopy(template->valid_for, false, sizeof(Interval));
	kept = lappend(kept, one);
	MemoryContextSwitchTo(old);
}

static void
forget_changed(void)
{
	if (kept_context == NULL)
		kept_context = AllocSetContextCreate(CacheMemoryContext, "pg_crm templates to send",
											 ALLOCSET_SMALL_SIZES);
	if (!changed && list_length(kept) < MOST_KEPT)
		return;
	kept = NIL;
	MemoryContextReset(kept_context);
	changed = false;
}

void
crm_send_template(const char *name, CrmSendTemplate *template)
{
	ListCell *cell;

	template_table = crm_table_oid("template");
	/* so that what others have committed is known */
	LockRelationOid(template_table, AccessShareLock);
	forget_changed();
	foreach(cell, kept)
	{
		const Kept *one = lfirst(cell);

		if (strcmp(one->name, name) == 0)
		{
			*template = one->template;
			return;
		}
	}
	read_template(name, template);
	/* what changed while it was read is read again next time */
	if (!changed)
		keep(name, template);
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
