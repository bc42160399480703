/*
 * touch.c
 *		What contacts did on accounts, as it says who may be written to: windows
 *		that open, and who follows. The rules are rows of crm.window_rule.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clock.h"
#include "base/guc.h"
#include "base/table.h"
#include "base/watch.h"
#include "outbox/outbox.h"

PG_FUNCTION_INFO_V1(crm_window_rules_changed);

/*
 * One grant an instant: a follow that came by a scan is one act of the person,
 * though two facts. What opens a wider window opens it all the same: platforms
 * give whole seconds, in which people may do two things. A fact that came late
 * may be told of after the leave that closed its window.
 */
#define OPENS(contact, account, at)                                                                \
	at " + r.valid_for > $5 AND " at " >= $6 AND NOT EXISTS (SELECT FROM crm.window_grant g"       \
	   "  WHERE g.contact_id = " contact " AND g.account_id = " account " AND g.opened_at = " at   \
	   "  AND g.expires_at >= " at "   + r.valid_for AND (g.quota IS NULL OR g.quota >= r.quota))" \
	   " AND NOT EXISTS (SELECT FROM crm.follower f WHERE f.contact_id = " contact                 \
	   "  AND f.account_id = " account " AND f.unfollowed_at > " at ")"

/* of facts of one instant each opens its window, unless another one's is as wide */
static CrmPlan open_windows = {
	"WITH c AS MATERIALIZED (SELECT DISTINCT n.contact_id, n.account_id, n.kind, n.at,"
	"  n.at + r.valid_for AS expires_at, r.quota"
	"  FROM unnest($1, $2, $3, $4) AS n(contact_id, account_id, kind, at)"
	"  JOIN crm.account a ON a.account_id = n.account_id"
	"  JOIN crm.window_rule r ON r.account_kind = a.kind AND r.kind = n.kind"
	"  WHERE " OPENS(
		"n.contact_id", "n.account_id",
		"n.at") ")"
				" INSERT INTO crm.window_grant (contact_id, account_id, kind, opened_at, expires_at, quota)"
				" SELECT c.* FROM c WHERE NOT EXISTS (SELECT FROM c w WHERE w.contact_id = c.contact_id"
				"  AND w.account_id = c.account_id AND w.at = c.at AND w.expires_at >= c.expires_at"
				"  AND (w.quota IS NULL OR w.quota >= c.quota)"
				"  AND (w.expires_at > c.expires_at OR w.quota IS DISTINCT FROM c.quota OR w.kind < c.kind))"
				" ORDER BY c.contact_id, c.account_id, c.at, c.kind",
	6,
	{ INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZOID,
	  TIMESTAMPTZOID }
};
/* the same for a single fact, which most statements are of; test/pgtap/messages.sql holds both equal */
static CrmPlan open_window = {
	"INSERT INTO crm.window_grant (contact_id, account_id, kind, opened_at, expires_at, quota)"
	" SELECT $1, $2, $3, $4, $4 + r.valid_for, r.quota"
	" FROM crm.account a, crm.window_rule r"
	" WHERE a.account_id = $2 AND r.account_kind = a.kind AND r.kind = $3 AND " OPENS("$1", "$2",
																					  "$4"),
	6,
	{ INT8OID, INT8OID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID }
};
static CrmPlan keep_followers = {
	"INSERT INTO crm.follower AS f (contact_id, account_id, followed_at, unfollowed_at)"
	" SELECT n.contact_id, n.account_id, max(n.at) FILTER (WHERE n.kind = 'follow'),"
	"  max(n.at) FILTER (WHERE n.kind = 'unfollow')"
	" FROM unnest($1, $2, $3, $4) AS n(contact_id, account_id, kind, at)"
	" WHERE n.kind IN ('follow', 'unfollow') GROUP BY n.contact_id, n.account_id"
	" ORDER BY n.contact_id, n.account_id"
	" ON CONFLICT (contact_id, account_id) DO UPDATE SET"
	"  followed_at = greatest(f.followed_at, EXCLUDED.followed_at),"
	"  unfollowed_at = greatest(f.unfollowed_at, EXCLUDED.unfollowed_at)",
	4,
	{ INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID }
};
static CrmPlan close_windows = {
	"UPDATE crm.window_grant g SET expires_at = greatest(g.opened_at, n.at)"
	" FROM (SELECT u.contact_id, u.account_id, max(u.at) AS at"
	"  FROM unnest($1, $2, $3, $4) AS u(contact_id, account_id, kind, at)"
	"  WHERE u.kind = 'unfollow' GROUP BY u.contact_id, u.account_id) AS n"
	" WHERE g.contact_id = n.contact_id AND g.account_id = n.account_id"
	" AND g.opened_at <= n.at AND g.expires_at > n.at",
	4,
	{ INT8ARRAYOID, INT8ARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID }
};

static CrmPlan forget_followers = { "DELETE FROM crm.follower f WHERE f.contact_id = ANY ($1)",
									1,
									{ INT8ARRAYOID } };
static CrmPlan find_followers = {
	"INSERT INTO crm.follower (contact_id, account_id, followed_at, unfollowed_at)"
	" SELECT e.contact_id, e.account_id, max(e.occurred_at) FILTER (WHERE e.kind = 'follow'),"
	"  max(e.occurred_at) FILTER (WHERE e.kind = 'unfollow')"
	" FROM crm.event e WHERE e.contact_id = ANY ($1) AND e.kind IN ('follow', 'unfollow')"
	" AND e.account_id IS NOT NULL GROUP BY e.contact_id, e.account_id",
	1,
	{ INT8ARRAYOID }
};

/* The kinds of facts that open a window somewhere; most facts do not, and pass by. */
static CrmPlan find_kinds = { "SELECT DISTINCT r.kind FROM crm.window_rule r", 0 };
static MemoryContext kinds_context = NULL;
static List *kinds = NIL;
static bool kinds_known = false;
static Oid rule_table = InvalidOid;

static void
forget_kinds(Datum arg, Oid relid)
{
	if (relid == InvalidOid || relid == rule_table)
		kinds_known = false;
}

void
crm_touch_init(void)
{
	crm_on_table_change(forget_kinds);
}

/* Tells every session, at commit. */
Datum
crm_window_rules_changed(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("crm.window_rules_changed() must be called as a trigger"),
				 errhint("The triggers of pg_crm are made by crm.install().")));
	CacheInvalidateRelcacheByRelid(crm_table_oid("window_rule"));
	return PointerGetDatum(NULL);
}

static void
read_kinds(void)
{
	CrmActing acting;
	MemoryContext old;
	uint64 n;

	rule_table = crm_table_oid("window_rule");
	if (kinds_context == NULL)
		kinds_context = AllocSetContextCreate(CacheMemoryContext, "pg_crm window kinds",
											  ALLOCSET_SMALL_SIZES);
	crm_connect(&acting);
	/* as committed now: what is known outlives the snapshot of the transaction */
	PushActiveSnapshot(GetLatestSnapshot());
	kinds = NIL;
	MemoryContextReset(kinds_context);
	/* an invalidation while reading must not be lost, nor may a failure be taken for an answer */
	kinds_known = true;
	PG_TRY();
	{
		n = crm_read(&find_kinds, NULL, NULL);
	}
	PG_CATCH();
	{
		kinds_known = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
	old = MemoryContextSwitchTo(kinds_context);
	for (uint64 i = 0; i < n; i++)
		kinds = lappend(kinds, crm_result_text(i, 1));
	MemoryContextSwitchTo(old);
	PopActiveSnapshot();
	crm_disconnect(&acting);
}

static bool
opens_windows(const char *kind)
{
	ListCell *cell;

	if (!kinds_known)
		read_kinds();
	foreach(cell, kinds)
		if (strcmp(lfirst(cell), kind) == 0)
			return true;
	return false;
}

/* A fact that happened before came too late to speak. */
static TimestampTz
earliest(void)
{
	return crm_now() - (int64) crm_guc_max_lateness * USECS_PER_SEC;
}

void
crm_touches_init(CrmTouches *touches)
{
	touches->follows = false;
	crm_column_init(&touches->columns[0], INT8OID);
	crm_column_init(&touches->columns[1], INT8OID);
	crm_column_init(&touches->columns[2], TEXTOID);
	crm_column_init(&touches->columns[3], TIMESTAMPTZOID);
}

void
crm_touches_add(CrmTouches *touches, int64 contact_id, int64 account_id, const char *kind,
				TimestampTz occurred_at)
{
	bool follow = strcmp(kind, "follow") == 0 || strcmp(kind, "unfollow") == 0;

	/* history never speaks, but who follows is history too */
	if (!follow && (occurred_at < earliest() || !opens_windows(kind)))
		return;
	touches->follows = touches->follows || follow;
	crm_column_add(&touches->columns[0], Int64GetDatum(contact_id), false);
	crm_column_add(&touches->columns[1], Int64GetDatum(account_id), false);
	crm_column_add(&touches->columns[2], CStringGetTextDatum(kind), false);
	crm_column_add(&touches->columns[3], TimestampTzGetDatum(occurred_at), false);
}

void
crm_touches_settle(CrmTouches *touches)
{
	Datum values[CRM_TOUCH_COLUMNS + 2];

	if (touches->columns[0].n == 0)
		return;
	values[CRM_TOUCH_COLUMNS] = TimestampTzGetDatum(crm_now());
	values[CRM_TOUCH_COLUMNS + 1] = TimestampTzGetDatum(earliest());
	if (touches->columns[0].n == 1 && !touches->follows && crm_guc_direct_access)
	{
		for (int i = 0; i < CRM_TOUCH_COLUMNS; i++)
			values[i] = touches->columns[i].values[0];
		crm_run(&open_window, values, NULL);
		return;
	}
	for (int i = 0; i < CRM_TOUCH_COLUMNS; i++)
		values[i] = crm_column_array(&touches->columns[i]);
	crm_run(&open_windows, values, NULL);
	if (touches->follows)
	{
		crm_run(&keep_followers, values, NULL);
		crm_run(&close_windows, values, NULL);
	}
}

void
crm_followers_again(const int64 *contacts, int ncontacts)
{
	Datum value = crm_int64_array(contacts, ncontacts);

	crm_run(&forget_followers, &value, NULL);
	crm_run(&find_followers, &value, NULL);
}
