/*
 * template.c
 *		Saving templates: checked by the adapter of their channel, every version
 *		kept.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/channel.h"
#include "base/db.h"
#include "base/document.h"
#include "base/row.h"
#include "base/table.h"
#include "channels/channel.h"
#include "outbox/outbox.h"
#include "outbox/template.h"
#include "pg_crm.h"

PG_FUNCTION_INFO_V1(crm_define_template);
PG_FUNCTION_INFO_V1(crm_check_template);
PG_FUNCTION_INFO_V1(crm_keep_template);

static CrmPlan keep_version = {
	"INSERT INTO crm.template_version (name, version, channel, message_type, body, class)"
	" VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (name, version) DO NOTHING",
	6,
	{ TEXTOID, INT4OID, TEXTOID, TEXTOID, JSONBOID, TEXTOID }
};
/* a template that was deleted and is defined again goes on counting */
static CrmPlan last_version = {
	"SELECT max(v.version) FROM crm.template_version v WHERE v.name = $1",
	1,
	{ TEXTOID }
};
static CrmPlan find_account = { "SELECT a.kind FROM crm.account a WHERE a.name = $1",
								1,
								{ TEXTOID } };

Datum
crm_define_template(PG_FUNCTION_ARGS)
{
	static const char *const required[] = { "name", "channel", "message_type", "body" };

	PG_RETURN_INT32(
		crm_document_define(fcinfo, "define_template", "template", required, lengthof(required)));
}

void
crm_check_class(const char *class)
{
	if (strcmp(class, "service") != 0 && strcmp(class, "marketing") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("class \"%s\" is not known",
						pnstrdup(class, pg_mbcliplen(class, strlen(class), 40))),
				 errhint("A message is of class service or marketing.")));
}

static const CrmMessageType *
find_type(const CrmChannel *channel, const char *message_type)
{
	StringInfoData known;

	initStringInfo(&known);
	for (int i = 0; i < channel->ntypes; i++)
	{
		if (strcmp(channel->types[i].name, message_type) == 0)
			return &channel->types[i];
		appendStringInfo(&known, "%s%s", i > 0 ? ", " : "", channel->types[i].name);
	}
	ereport(ERROR,
			(errcode(ERRCODE_CHECK_VIOLATION),
			 errmsg("message_type \"%s\" is not known on channel %s",
					pnstrdup(message_type, pg_mbcliplen(message_type, strlen(message_type), 40)),
					channel->name),
			 errhint("It is one of: %s.", known.data)));
	return NULL; /* keep the compiler quiet */
}

static void
check_account(const char *account, const char *channel)
{
	Datum value = CStringGetTextDatum(account);
	char *kind;
	CrmActing acting;

	crm_connect(&acting);
	if (crm_run(&find_account, &value, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
				 errmsg("account \"%s\" does not exist",
						pnstrdup(account, pg_mbcliplen(account, strlen(account), 40))),
				 errhint("Insert it into crm.account first.")));
	kind = crm_result_text(0, 1);
	if (strcmp(kind, channel) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("account \"%s\" is of kind %s, the template of channel %s", account, kind,
						channel),
				 errhint("Name an account of that channel.")));
	crm_disconnect(&acting);
}

/* The body: one object that the channel takes, its places well formed. */
static void
check_body(const CrmChannel *channel, const char *message_type, Datum value)
{
	Jsonb *body;

	if (toast_raw_datum_size(value) > CRM_MAX_DOCUMENT_BYTES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("body of %zu bytes is larger than %d", (size_t) toast_raw_datum_size(value),
						CRM_MAX_DOCUMENT_BYTES),
				 errhint("Keep large content outside and refer to it.")));
	body = DatumGetJsonbP(value);
	if (!JB_ROOT_IS_OBJECT(body))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("body of a template is not a jsonb object"),
				 errhint("Give the object that the platform calls by the message type, for example"
						 " {\"content\": \"Hello {{name|there}}\"} for text.")));
	crm_template_check_places(body);
	channel->check(message_type, body);
}

/* A message that has expired when it becomes due is none. */
static void
check_valid_for(const CrmRow *row)
{
	Interval zero = { 0 };
	bool isnull;
	Datum value = crm_row_value(row, "valid_for", &isnull);

	if (isnull || DatumGetBool(DirectFunctionCall2(interval_gt, value, IntervalPGetDatum(&zero))))
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_CHECK_VIOLATION),
		 errmsg("valid_for of a template is %s, not longer than nothing",
				DatumGetCString(DirectFunctionCall1(interval_out, value))),
		 errhint(
			 "Say how long after it was due a message may still be sent; leave it out for ever.")));
}

static void
check_template(const CrmRow *row)
{
	char *channel_name = crm_row_text(row, "channel");
	char *message_type = crm_row_text(row, "message_type");
	char *class = crm_row_text(row, "class");
	char *lane = crm_row_text(row, "lane");
	char *account = crm_row_text(row, "account");
	const CrmChannel *channel;
	bool no_body;
	Datum body = crm_row_value(row, "body", &no_body);

	crm_check_length("name of a template", crm_row_text(row, "name"), CRM_MAX_KEY_BYTES);
	if (channel_name == NULL || message_type == NULL || class == NULL || no_body)
		return; /* the constraints speak */
	crm_check_channel(channel_name);
	channel = crm_channel_find(channel_name);
	if (channel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("channel %s cannot send messages yet", channel_name),
				 errhint(
					 "Use a template of an official_account, or a webhook to what sends them.")));
	(void) find_type(channel, message_type);
	crm_check_class(class);
	if (lane != NULL && strcmp(lane, CRM_LANE_URGENT) != 0 && strcmp(lane, CRM_LANE_NORMAL) != 0 &&
		strcmp(lane, CRM_LANE_BULK) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("lane \"%s\" is not known",
						pnstrdup(lane, pg_mbcliplen(lane, strlen(lane), 40))),
				 errhint("A lane is urgent, normal or bulk.")));
	check_valid_for(row);
	if (account != NULL)
		check_account(account, channel_name);
	check_body(channel, message_type, body);
}

Datum
crm_check_template(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = crm_row_trigger(fcinfo, "check_template", true);
	bool update = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	CrmRow old = { RelationGetDescr(trigger->tg_relation), trigger->tg_trigtuple };
	CrmRow new = { RelationGetDescr(trigger->tg_relation),
				   update ? trigger->tg_newtuple : trigger->tg_trigtuple };
	HeapTuple tuple;

	crm_require_table(trigger->tg_relation, "template");
	check_template(&new);
	tuple = crm_row_version(update ? &old : NULL, &new, false);
	if (!update)
	{
		char *name = crm_row_text(&new, "name");
		Datum value;
		Datum version;
		bool isnull;
		CrmActing acting;
		MemoryContext caller = CurrentMemoryContext;

		if (name == NULL)
			return PointerGetDatum(tuple);
		value = CStringGetTextDatum(name);
		crm_connect(&acting);
		crm_run(&last_version, &value, NULL);
		version = crm_result(0, 1, &isnull);
		crm_disconnect(&acting);
		MemoryContextSwitchTo(caller);
		if (!isnull)
		{
			int attno = SPI_fnumber(new.descriptor, "version");
			bool not_null = false;

			version = Int32GetDatum(DatumGetInt32(version) + 1);
			tuple = heap_modify_tuple_by_cols(tuple, new.descriptor, 1, &attno, &version,
											  &not_null);
		}
	}
	return PointerGetDatum(tuple);
}

Datum
crm_keep_template(PG_FUNCTION_ARGS)
{
	static const char *const columns[] = { "name",         "version", "channel",
										   "message_type", "body",    "class" };
	TriggerData *trigger = crm_row_trigger(fcinfo, "keep_template", false);
	CrmRow row = { RelationGetDescr(trigger->tg_relation),
				   TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple
															  : trigger->tg_trigtuple };
	Datum values[lengthof(columns)];
	bool isnull;
	CrmActing acting;

	crm_require_table(trigger->tg_relation, "template");
	crm_connect(&acting);
	for (int i = 0; i < lengthof(columns); i++)
		values[i] = crm_row_value(&row, columns[i], &isnull);
	crm_run(&keep_version, values, NULL);
	crm_disconnect(&acting);
	return PointerGetDatum(NULL);
}
