/*
 * channel.c
 *		Which adapters there are.
 */
#include "postgres.h"

#include "lib/stringinfo.h"

#include "channels/channel.h"

static const CrmChannel *const channels[] = { &crm_official_account, &crm_webhook };

const CrmChannel *
crm_channel_find(const char *name)
{
	for (int i = 0; i < lengthof(channels); i++)
		if (strcmp(channels[i]->name, name) == 0)
			return channels[i];
	return NULL;
}

const CrmMessageType *
crm_channel_type(const CrmChannel *channel, const char *name)
{
	for (int i = 0; i < channel->ntypes; i++)
		if (strcmp(channel->types[i].name, name) == 0)
			return &channel->types[i];
	return NULL;
}

void
crm_channel_check(const char *name, const char *message_type, Jsonb *body)
{
	const CrmChannel *channel = crm_channel_find(name);
	StringInfoData known;

	initStringInfo(&known);
	if (channel == NULL)
	{
		for (int i = 0; i < lengthof(channels); i++)
			appendStringInfo(&known, "%s%s", i > 0 ? ", " : "", channels[i]->name);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("nothing can be sent on channel \"%s\"", name),
				 errhint("Channels that send are %s.", known.data)));
	}
	if (crm_channel_type(channel, message_type) == NULL)
	{
		for (int i = 0; i < channel->ntypes; i++)
			appendStringInfo(&known, "%s%s", i > 0 ? ", " : "", channel->types[i].name);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("channel \"%s\" has no message type \"%s\"", name, message_type),
				 errhint("Its types are %s.", known.data)));
	}
	channel->check(message_type, body);
}
