/*
 * channel.c
 *		The channels on which contacts are written to: kinds of crm.account.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"

#include "base/channel.h"

static const char *const channels[] = { "official_account", "mini_program", "wecom", "sms", "email",
										"webhook" };

void
crm_check_channel(const char *channel)
{
	for (int i = 0; i < lengthof(channels); i++)
		if (strcmp(channels[i], channel) == 0)
			return;
	ereport(ERROR,
			(errcode(ERRCODE_CHECK_VIOLATION),
			 errmsg("channel \"%s\" is not known",
					pnstrdup(channel, pg_mbcliplen(channel, strlen(channel), 40))),
			 errhint("Channels are official_account, mini_program, wecom, sms, email, webhook.")));
}
