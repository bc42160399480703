/*
 * permission.h
 *		May a contact be written to by an account? What the worker asks of each
 *		message that is due, and crm.reachable() of nobody's message, is the same
 *		SQL and the same order of questions.
 */
#ifndef CRM_PERMISSION_H
#define CRM_PERMISSION_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

#include "channels/channel.h"

/* a window with messages left, as g; the arguments are SQL expressions, here and below */
#define CRM_WINDOW_IS_OPEN(contact, account, at)                                       \
	"g.contact_id = " contact " AND g.account_id = " account " AND g.opened_at <= " at \
	" AND g.expires_at > " at " AND (g.quota IS NULL OR g.used < g.quota)"

/* the window of which a message uses one: that which ends first */
#define CRM_WINDOW_TO_USE(contact, account, at)                                             \
	"(SELECT g.grant_id FROM crm.window_grant g"                                            \
	" WHERE " CRM_WINDOW_IS_OPEN(contact, account, at) " ORDER BY g.expires_at, g.grant_id" \
													   " LIMIT 1)"

/*
 * The columns that crm_permission_read() reads; c is the contact. but leaves
 * messages (s) out of what caps count.
 */
#define CRM_PERMISSION_COLUMNS(contact, account, channel, class, at, recipient_kind, but) \
	/* the identifier bound last */                                                       \
	" (SELECT i.external_id FROM crm.identity i WHERE i.contact_id = " contact            \
	"   AND i.kind = " recipient_kind " AND i.account_id = " account                      \
	"   ORDER BY i.bound_at DESC LIMIT 1),"                                               \
	" EXISTS (SELECT FROM crm.suppression s WHERE s.contact_id = " contact                \
	"   AND s.ended_at IS NULL AND s.channel IN ('', " channel ")),"                      \
	" (SELECT k.granted FROM crm.consent k WHERE k.contact_id = " contact                 \
	"   AND k.channel = " channel " AND k.class = " class "),"                            \
														  " CASE WHEN " class             \
		" = 'marketing' THEN EXISTS (SELECT FROM crm.follower f"                          \
		"   WHERE f.contact_id = " contact " AND f.account_id = " account                 \
		"   AND f.followed_at > coalesce(f.unfollowed_at, '-infinity')) END,"             \
		" c.time_zone,"                                                                   \
		" (SELECT min(p.name) FROM crm.frequency_cap p"                                   \
		"   WHERE (p.channel IS NULL OR p.channel = " channel ")"                         \
		"   AND (p.class IS NULL OR p.class = " class                                     \
		")"                                                                               \
		"   AND (SELECT count(*) FROM crm.message s WHERE s.contact_id = " contact but    \
		"    AND s.state IN ('sending', 'sent', 'waiting', 'unknown')"                    \
		"    AND (p.channel IS NULL OR s.channel = p.channel)"                            \
		"    AND (p.class IS NULL OR s.class = p.class)"                                  \
		"    AND coalesce(s.sent_at, s.tried_at) > " at " - p.period) >= p.max_messages)"
#define CRM_NPERMISSION_COLUMNS 6

/* Of a contact, an account and a class. */
typedef struct CrmPermission
{
	char *recipient; /* or NULL */
	bool suppressed;
	bool asked;   /* the contact said something */
	bool granted; /* and this */
	bool follows; /* where the class is marketing */
	char *zone;   /* of the contact, or NULL */
	char *cap;    /* that is reached, or NULL */
} CrmPermission;

/* Of the current result; first is the column at which they begin. */
extern void crm_permission_read(uint64 row, int first, CrmPermission *permission);

/*
 * The same for one contact after the other, found by indexes and without a plan,
 * at one time and as the active snapshot shows them; between crm_connect() and
 * crm_disconnect(). NULL where the tables ask for the executor. but is a message
 * that caps do not count.
 */
typedef struct CrmPermissionTables CrmPermissionTables;
extern CrmPermissionTables *crm_permission_open(TimestampTz at);
extern void crm_permission_find(CrmPermissionTables *tables, int64 contact_id, int64 account_id,
								const char *channel, const char *class, const char *recipient_kind,
								int64 but, CrmPermission *permission);
extern void crm_permission_close(CrmPermissionTables *tables);

/* Quiet hours of a channel, to be read before the result that they are asked with. */
extern List *crm_quiet_hours(const char *channel);

/*
 * Why the contact may not be written to, NULL where it may. "quiet" ends, and
 * *quiet_until says when; DT_NOEND where it never does.
 */
extern char *crm_permission_refusal(const CrmPermission *permission, const CrmChannel *channel,
									const char *class, bool window_lacking, List *quiet_hours,
									const char *account_zone, TimestampTz at,
									TimestampTz *quiet_until);

#endif /* CRM_PERMISSION_H */
