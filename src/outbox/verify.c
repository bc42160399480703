/*
 * verify.c
 *		What crm.verify() says of messages: the queue and what is kept beside it
 *		agree with the messages, windows, follows and consent with the facts.
 */
#include "postgres.h"

#include "base/db.h"
#include "outbox/outbox.h"

/* A message leaves its window as it goes back into the queue; a platform may call one spent before. */
static CrmPlan find_differences = {
	"SELECT 'message ' || m.message_id || ' in the queue', m.contact_id,"
	" CASE WHEN m.state IN ('queued', 'sending') THEN 'a row of crm.outbox' END,"
	" CASE WHEN o.message_id IS NOT NULL THEN 'a row of crm.outbox, the message ' || m.state END"
	" FROM crm.message m"
	" LEFT JOIN crm.outbox o ON o.contact_id = m.contact_id AND o.message_id = m.message_id"
	" WHERE (m.state IN ('queued', 'sending')) <> (o.message_id IS NOT NULL)"
	" UNION ALL"
	" SELECT 'queue without message ' || o.message_id, o.contact_id, NULL, 'a row of crm.outbox'"
	" FROM crm.outbox o WHERE NOT EXISTS (SELECT FROM crm.message m"
	"  WHERE m.contact_id = o.contact_id AND m.message_id = o.message_id)"
	" UNION ALL"
	" SELECT 'state of message ' || m.message_id, m.contact_id,"
	" CASE WHEN o.lease IS NULL THEN 'queued' ELSE 'sending, attempt ' || o.attempt_id END,"
	" m.state || coalesce(', attempt ' || m.attempt_id, '')"
	" FROM crm.message m"
	" JOIN crm.outbox o ON o.contact_id = m.contact_id AND o.message_id = m.message_id"
	" WHERE m.state IN ('queued', 'sending') AND ((m.state = 'sending') <> (o.lease IS NOT NULL)"
	"  OR o.lease IS NOT NULL AND o.attempt_id IS DISTINCT FROM m.attempt_id)"
	" UNION ALL"
	" SELECT 'unknown message ' || coalesce(m.message_id, u.message_id),"
	" coalesce(m.contact_id, u.contact_id),"
	" CASE WHEN m.message_id IS NOT NULL THEN 'a row of crm.message_unknown' END,"
	" CASE WHEN u.message_id IS NOT NULL THEN 'a row of crm.message_unknown' END"
	" FROM (SELECT m.contact_id, m.message_id FROM crm.message m WHERE m.state = 'unknown') m"
	" FULL JOIN crm.message_unknown u ON u.contact_id = m.contact_id"
	"  AND u.message_id = m.message_id"
	" WHERE m.message_id IS NULL OR u.message_id IS NULL"
	" UNION ALL"
	/* of those that ended there is a row until the journey has gone on, so one may be missing */
	" SELECT 'end of message ' || e.message_id, e.contact_id,"
	" CASE WHEN m.message_id IS NOT NULL THEN m.state END, 'a row of crm.message_end'"
	" FROM crm.message_end e LEFT JOIN crm.message m ON m.contact_id = e.contact_id"
	"  AND m.message_id = e.message_id"
	" WHERE m.message_id IS NULL OR NOT m.awaited OR m.state IN ('queued', 'sending')"
	" UNION ALL"
	" SELECT 'window ' || g.grant_id, g.contact_id,"
	" CASE WHEN g.used > g.quota THEN 'at most ' || g.quota || ' used'"
	"  ELSE n.messages || ' used' END, g.used || ' used'"
	" FROM crm.window_grant g"
	" LEFT JOIN (SELECT m.contact_id, m.grant_id, count(*) AS messages FROM crm.message m"
	"  WHERE m.grant_id IS NOT NULL GROUP BY m.contact_id, m.grant_id) n"
	"  ON n.contact_id = g.contact_id AND n.grant_id = g.grant_id"
	" WHERE g.used > g.quota OR g.used < n.messages"
	"  OR g.used > coalesce(n.messages, 0) AND g.used IS DISTINCT FROM g.quota"
	" UNION ALL"
	" SELECT 'follower of account ' || coalesce(e.account_id, f.account_id),"
	" coalesce(e.contact_id, f.contact_id),"
	" 'followed ' || coalesce(e.followed::text, 'never') || ', unfollowed '"
	"  || coalesce(e.unfollowed::text, 'never'),"
	" 'followed ' || coalesce(f.followed_at::text, 'never') || ', unfollowed '"
	"  || coalesce(f.unfollowed_at::text, 'never')"
	" FROM (SELECT e.contact_id, e.account_id,"
	"  max(e.occurred_at) FILTER (WHERE e.kind = 'follow') AS followed,"
	"  max(e.occurred_at) FILTER (WHERE e.kind = 'unfollow') AS unfollowed"
	"  FROM crm.event e WHERE e.kind IN ('follow', 'unfollow') AND e.account_id IS NOT NULL"
	"  GROUP BY e.contact_id, e.account_id) e"
	" FULL JOIN crm.follower f ON f.contact_id = e.contact_id AND f.account_id = e.account_id"
	" WHERE e.followed IS DISTINCT FROM f.followed_at"
	"  OR e.unfollowed IS DISTINCT FROM f.unfollowed_at"
	" UNION ALL"
	/* of merged contacts the stricter word holds, not the last */
	" SELECT 'consent ' || coalesce(e.channel, c.channel) || ' ' || coalesce(e.class, c.class),"
	" coalesce(e.contact_id, c.contact_id),"
	" CASE WHEN e.granted THEN 'granted ' ELSE 'withdrawn ' END || e.occurred_at,"
	" CASE WHEN c.granted THEN 'granted ' ELSE 'withdrawn ' END || c.since"
	" FROM (SELECT DISTINCT ON (e.contact_id, e.properties->>'channel', e.properties->>'class')"
	"  e.contact_id, e.properties->>'channel' AS channel, e.properties->>'class' AS class,"
	"  e.kind = 'grant_consent' AS granted, e.occurred_at FROM crm.event e"
	"  WHERE e.kind IN ('grant_consent', 'withdraw_consent')"
	"  ORDER BY e.contact_id, e.properties->>'channel', e.properties->>'class',"
	"  e.occurred_at DESC, e.kind DESC) e"
	" FULL JOIN crm.consent c ON c.contact_id = e.contact_id AND c.channel = e.channel"
	"  AND c.class = e.class"
	" WHERE (e.granted IS DISTINCT FROM c.granted OR e.occurred_at IS DISTINCT FROM c.since)"
	" AND NOT EXISTS (SELECT FROM crm.merge_ledger l"
	"  WHERE coalesce(e.contact_id, c.contact_id) IN (l.contact_id, l.other))",
	0
};

void
crm_outbox_verify(CrmOutboxDifference add, void *arg)
{
	uint64 n = crm_read(&find_differences, NULL, NULL);

	for (uint64 row = 0; row < n; row++)
		add(arg, crm_result_int64(row, 2), crm_result_text(row, 1), crm_result_text(row, 3),
			crm_result_text(row, 4));
	SPI_freetuptable(SPI_tuptable);
}
