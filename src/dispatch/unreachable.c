/*
 * unreachable.c
 *		What a platform says of a contact becomes what the CRM knows: an unfollow
 *		that nobody reported, or a person who wants no messages. Written after
 *		the outcomes, as it waits for the contact like any other fact.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "dispatch/dispatch.h"

static CrmPlan record_unfollow = {
	"INSERT INTO crm.event (contact_id, kind, account_id, properties)"
	" SELECT f.contact_id, 'unfollow', f.account_id,"
	"  jsonb_build_object('by', 'platform', 'errcode', $3)"
	" FROM crm.follower f WHERE f.contact_id = $1 AND f.account_id = $2"
	" AND f.followed_at > coalesce(f.unfollowed_at, '-infinity') AND f.followed_at < $4",
	4,
	{ INT8OID, INT8OID, INT4OID, TIMESTAMPTZOID }
};
static CrmPlan record_suppression = {
	"INSERT INTO crm.suppression (contact_id, channel, reason)"
	" SELECT c.contact_id, $2, $3 FROM crm.contact c WHERE c.contact_id = $1"
	" ON CONFLICT (contact_id, channel) WHERE ended_at IS NULL DO NOTHING RETURNING contact_id",
	3,
	{ INT8OID, TEXTOID, TEXTOID }
};
static CrmPlan record_suppress = {
	"INSERT INTO crm.event (contact_id, kind, properties)"
	" VALUES ($1, 'suppress', jsonb_build_object('channel', $2, 'reason', $3))",
	3,
	{ INT8OID, TEXTOID, TEXTOID }
};

typedef struct Unreachable
{
	int64 contact_id;
	int64 account_id;
	const CrmChannel *channel;
	bool unfollowed;
	int errcode;
	TimestampTz sent_at; /* what the contact did later is newer than what the platform said */
} Unreachable;

static List *noted = NIL; /* in TopMemoryContext */

void
crm_note_unreachable(const CrmDelivery *delivery)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	Unreachable *note;

	if (delivery->outcome.reaction != CRM_USER)
	{
		note = palloc_object(Unreachable);
		note->contact_id = delivery->contact_id;
		note->account_id = delivery->account_id;
		note->channel = delivery->channel;
		note->unfollowed = delivery->outcome.reaction == CRM_USER_UNFOLLOWED;
		note->errcode = delivery->outcome.errcode;
		note->sent_at = delivery->started_at;
		noted = lappend(noted, note);
	}
	MemoryContextSwitchTo(old);
}

bool
crm_unreachable_noted(void)
{
	return noted != NIL;
}

void
crm_unreachable_record(void)
{
	ListCell *cell;

	foreach(cell, noted)
	{
		Unreachable *note = lfirst(cell);

		if (note->unfollowed)
		{
			Datum values[4] = { Int64GetDatum(note->contact_id), Int64GetDatum(note->account_id),
								Int32GetDatum(note->errcode), TimestampTzGetDatum(note->sent_at) };

			crm_run(&record_unfollow, values, NULL);
		}
		else
		{
			Datum values[3] = { Int64GetDatum(note->contact_id),
								CStringGetTextDatum(note->channel->name),
								CStringGetTextDatum(psprintf("platform: %d", note->errcode)) };

			if (crm_run(&record_suppression, values, NULL) > 0)
				crm_run(&record_suppress, values, NULL);
		}
	}
}

void
crm_unreachable_forget(void)
{
	list_free_deep(noted);
	noted = NIL;
}
