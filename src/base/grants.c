/*
 * grants.c
 *		What each kind of user may do, by plain GRANTs: functions in the name of
 *		the caller, tables in that of their owner.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "base/install.h"
#include "base/table.h"

PG_FUNCTION_INFO_V1(crm_grant_access);

#define APP        (1 << 0)
#define MARKETER   (1 << 1)
#define ANALYST    (1 << 2)
#define ASSOCIATE  (1 << 3)
#define DISPATCHER (1 << 4)
#define OWNER      (1 << 5)

static const struct
{
	const char *name;
	int level;
} levels[] = {
	{ "app", APP },
	{ "marketer", MARKETER },
	{ "analyst", ANALYST },
	{ "associate", ASSOCIATE },
	{ "dispatcher", DISPATCHER },
	{ "owner", OWNER },
};

static const struct
{
	const char *name;
	int levels;
} functions[] = {
	{ "identify", APP },
	{ "identify_many", APP },
	{ "follow", APP },
	{ "unfollow", APP },
	{ "scan", APP },
	{ "bind_mobile", APP },
	{ "track", APP },
	{ "purchase", APP },
	{ "refund", APP },
	{ "join_loyalty", APP },
	{ "issue_coupon", APP },
	{ "redeem_coupon", APP | ASSOCIATE },
	{ "earn_points", APP },
	{ "spend_points", APP },
	{ "merge", APP },
	{ "unmerge", APP },
	{ "set_stage", APP },
	{ "dispatch_allowed", APP | ANALYST | MARKETER | DISPATCHER },
	{ "journey_funnel_svg", ANALYST | MARKETER },
	{ "trend", ANALYST | MARKETER },
	{ "trend_svg", ANALYST | MARKETER },
	{ "report_html", ANALYST | MARKETER },
	{ "funnel_svg", ANALYST | MARKETER },
	{ "map_svg", ANALYST | MARKETER },
	{ "timeline_svg", APP | ANALYST | MARKETER | ASSOCIATE },
	{ "journey_funnel", ANALYST | MARKETER },
	{ "journey_rows", ANALYST | MARKETER },
	{ "fact_funnel", ANALYST | MARKETER },
	{ "fact_funnel_rows", ANALYST | MARKETER },
	{ "journey_svg", ANALYST | MARKETER },
	{ "journey_mermaid", ANALYST | MARKETER },
	{ "cohort", ANALYST | MARKETER },
	{ "cohort_rows", ANALYST | MARKETER },
	{ "time_in_stage", ANALYST | MARKETER },
	{ "stage_conversion", ANALYST | MARKETER },
	{ "stage_conversion_rows", ANALYST | MARKETER },
	{ "define_attribution", MARKETER },
	{ "attribution_report", ANALYST | MARKETER },
	{ "attribution_rows", ANALYST | MARKETER },
	{ "split_results", ANALYST | MARKETER },
	{ "split_rows", ANALYST | MARKETER },
	{ "rfm", ANALYST | MARKETER },
	{ "rfm_cells", ANALYST | MARKETER },
	{ "check_days", ANALYST | MARKETER },
	{ "check_journey", ANALYST | MARKETER },
	{ "day_begins", ANALYST | MARKETER },
	{ "fact_period", ANALYST | MARKETER },
	{ "won_period", ANALYST | MARKETER },
	{ "scan_report", ANALYST | MARKETER },
	{ "store_report", ANALYST | MARKETER },
	{ "associate_report", ANALYST | MARKETER },
	{ "coupon_report", ANALYST | MARKETER },
	{ "loyalty_report", ANALYST | MARKETER },
	{ "award_report", ANALYST | MARKETER },
	{ "step_report", ANALYST | MARKETER },
	{ "define_persona", MARKETER },
	{ "define_touchpoint", MARKETER },
	{ "define_map", MARKETER },
	{ "export_map", ANALYST | MARKETER },
	{ "note_touchpoint", ASSOCIATE | MARKETER },
	{ "record_emotion", APP | ASSOCIATE },
	{ "persona_members", ANALYST | MARKETER },
	{ "persona_size", ANALYST | MARKETER },
	{ "touchpoint_rows", ANALYST | MARKETER },
	{ "touchpoint_moves", ANALYST | MARKETER },
	{ "touchpoint_actions", ANALYST | MARKETER },
	{ "map_path", ANALYST | MARKETER },
	{ "map_touchpoint", ANALYST | MARKETER },
	{ "map_emotion", ANALYST | MARKETER },
	{ "map_goal", ANALYST | MARKETER },
	{ "map_mermaid", ANALYST | MARKETER },
	{ "map_dot", ANALYST | MARKETER },
	{ "audience", MARKETER },
	{ "explain", MARKETER },
	{ "rule_holds", APP | MARKETER },
	{ "define_achievement", MARKETER },
	{ "define_stage_rule", MARKETER },
	{ "define_qr_code", MARKETER },
	{ "define_scan_limit", MARKETER },
	{ "scan_window_start", ANALYST | MARKETER },
	{ "define_coupon", MARKETER },
	{ "define_earning_rule", MARKETER },
	{ "define_segment", MARKETER },
	{ "segment_overlap", ANALYST | MARKETER },
	{ "suppress", APP | MARKETER },
	{ "unsuppress", APP | MARKETER },
	{ "send", APP },
	{ "send_many", APP | MARKETER },
	{ "send_campaign", MARKETER },
	{ "cancel_message", APP | MARKETER },
	{ "grant_consent", APP },
	{ "withdraw_consent", APP },
	{ "reachable", APP | MARKETER },
	{ "define_template", MARKETER },
	{ "publish_journey", MARKETER },
	{ "export_journey", ANALYST | MARKETER },
	{ "journey_step_kinds", ANALYST | MARKETER },
	{ "journey_document", MARKETER },
	{ "step_send", MARKETER },
	{ "step_wait", MARKETER },
	{ "step_wait_for", MARKETER },
	{ "step_branch", MARKETER },
	{ "step_exit", MARKETER },
	{ "welcome_journey", MARKETER },
	{ "member_binding_journey", MARKETER },
	{ "cart_journey", MARKETER },
	{ "repurchase_journey", MARKETER },
	{ "birthday_journey", MARKETER },
	{ "enrol", APP | MARKETER },
	{ "unenrol", APP | MARKETER },
	{ "resume", MARKETER },
	{ "set_journey", MARKETER },
	{ "migrate_journey", MARKETER },
	{ "eligible", APP | MARKETER },
	{ "simulate", MARKETER },
	{ "resolve_message", DISPATCHER },
	{ "pause_account", DISPATCHER },
	{ "resume_account", DISPATCHER },
	{ "worker_state", APP | MARKETER | ANALYST | DISPATCHER },
};

/* what says nothing of who the contact is, and no free text */
#define OPEN_CONTACT "contact_id, created_at, gender, language, time_zone, city, tags, stage"
#define COUNTERS                                                                               \
	"orders, spend, first_order_at, last_order_at, refunds, scans, raw_scans,"                 \
	" followed_at, mobile_at, events, first_seen_at, last_seen_at, stage_since, stage_manual," \
	" ranked_stage, settled_at"
/* every column but those that the extension keeps */
#define CHANGEABLE "*"

static const struct
{
	const char *privilege;
	const char *table;
	const char *columns; /* NULL for all */
	int levels;
} tables[] = {
	{ "INSERT", "transaction", NULL, APP },
	{ "INSERT", "event", NULL, APP },
	{ "INSERT", "scan", NULL, APP },
	{ "INSERT", "contact", NULL, APP },
	{ "UPDATE", "contact", CHANGEABLE, APP },
	{ "SELECT", "contact", NULL, APP },
	{ "SELECT", "profile", NULL, APP | ASSOCIATE },
	{ "SELECT", "contact_timeline", NULL, APP | ASSOCIATE },
	{ "SELECT", "achievement_timeline", NULL, APP | ASSOCIATE | ANALYST | MARKETER },
	{ "SELECT", "account", NULL, APP },
	{ "SELECT", "store", NULL, APP | ASSOCIATE | ANALYST | MARKETER },
	{ "SELECT", "associate", NULL, APP | ASSOCIATE | ANALYST | MARKETER },
	{ "SELECT", "qr_code", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "loyalty_program", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "tier", NULL, APP | ASSOCIATE | ANALYST | MARKETER },
	{ "SELECT", "earning_rule", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "coupon", NULL, APP | ASSOCIATE | ANALYST | MARKETER },
	{ "SELECT", "coupon_counter", NULL, ANALYST | MARKETER },
	{ "INSERT", "coupon_code", "code, coupon", MARKETER },
	{ "SELECT", "coupon_code", "coupon, contact_id", ANALYST | MARKETER },
	{ "SELECT", "achievement", NULL, APP | ASSOCIATE | ANALYST | MARKETER },
	{ "SELECT", "stage", NULL, APP | ASSOCIATE | ANALYST | MARKETER },
	{ "SELECT", "stage_rule", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "account", "account_id, kind, name, time_zone", ANALYST | MARKETER },
	{ "SELECT", "contact", OPEN_CONTACT, ANALYST | MARKETER },
	{ "SELECT", "profile", OPEN_CONTACT ", " COUNTERS, ANALYST | MARKETER },
	{ "SELECT", "profile_counter", NULL, ANALYST | MARKETER },
	{ "SELECT", "transaction",
	  "contact_id, transaction_id, kind, amount, currency, occurred_at,"
	  " recorded_at, store_id, refund_of",
	  ANALYST | MARKETER },
	{ "SELECT", "event", "contact_id, event_id, kind, occurred_at, recorded_at, account_id",
	  ANALYST | MARKETER },
	{ "SELECT", "scan", NULL, ANALYST | MARKETER },
	{ "SELECT", "first_scan", NULL, ANALYST | MARKETER },
	{ "SELECT", "retention_horizon", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "fact_count", NULL, ANALYST | MARKETER },
	{ "SELECT", "fact_span", NULL, ANALYST | MARKETER },
	{ "SELECT", "kind_count", NULL, ANALYST | MARKETER },
	{ "SELECT", "won_contact", NULL, ANALYST | MARKETER },
	{ "SELECT", "won_count", NULL, ANALYST | MARKETER },
	{ "SELECT", "won_span", NULL, ANALYST | MARKETER },
	{ "SELECT", "visit_count", NULL, ANALYST | MARKETER },
	{ "SELECT", "visit_total", NULL, ANALYST | MARKETER },
	{ "SELECT", "enrolment_count", NULL, ANALYST | MARKETER },
	{ "SELECT", "scan_limit", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "scan_flag", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "scan_purchase", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "acquisition", NULL, APP | ASSOCIATE | ANALYST | MARKETER },
	{ "SELECT", "membership", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "point_balance", NULL, APP | ASSOCIATE | ANALYST | MARKETER },
	{ "SELECT", "point_entry",
	  "contact_id, point_entry_id, loyalty_program_id, kind, points, balance_after, earning_rule,"
	  " source_table, source_id, correction, source_at, occurred_at, recorded_at, cause_id",
	  ANALYST | MARKETER },
	{ "SELECT", "point_entry", NULL, APP },
	{ "SELECT", "tier_change", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "coupon_grant",
	  "contact_id, coupon_grant_id, coupon, store_id, once, issued_at, recorded_at, expires_at,"
	  " redeemed_at, redeemed_store_id, duplicate_of",
	  ANALYST | MARKETER },
	{ "SELECT", "coupon_grant", NULL, APP },
	{ "SELECT", "award", NULL, ANALYST | MARKETER },
	{ "SELECT", "award_change", NULL, ANALYST | MARKETER },
	{ "SELECT", "stage_move", "contact_id, since, stage", ANALYST | MARKETER },
	{ "SELECT", "stage_history", "contact_id, since, until, stage", ANALYST | MARKETER },
	{ "SELECT", "lifecycle_funnel", NULL, ANALYST | MARKETER },
	{ "SELECT", "stage_daily", NULL, ANALYST | MARKETER },
	{ "SELECT", "scan_count", NULL, ANALYST | MARKETER },
	{ "SELECT", "segment", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "segment_member", NULL, APP | ASSOCIATE | ANALYST | MARKETER },
	{ "SELECT", "segment_change", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "segment_size", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "suppression", NULL, APP | ASSOCIATE },
	{ "SELECT", "suppression", "contact_id, suppression_id, channel, since, ended_at",
	  ANALYST | MARKETER },
	{ "SELECT", "template", NULL, APP | MARKETER },
	{ "SELECT", "template",
	  "name, version, channel, message_type, class, account, lane, valid_for, label", ANALYST },
	{ "SELECT", "template_version", NULL, APP | MARKETER },
	{ "SELECT", "template_version", "name, version, channel, message_type, class, saved_at",
	  ANALYST },
	{ "SELECT", "message", NULL, APP },
	{ "SELECT", "message",
	  "contact_id, message_id, account_id, template, template_version, channel, class, state, reason,"
	  " awaited, recorded_at, due_at, expires_at, attempt_id, tried_at, grant_id, sent_at, ended_at",
	  ANALYST | MARKETER | DISPATCHER },
	{ "SELECT", "outbox", NULL, APP | ANALYST | MARKETER | DISPATCHER },
	{ "SELECT", "delivery_attempt", NULL, APP | DISPATCHER },
	{ "SELECT", "delivery_attempt",
	  "contact_id, attempt_id, message_id, occurred_at, recorded_at, outcome, errcode, http_status",
	  ANALYST | MARKETER },
	{ "SELECT", "message_unknown", NULL, APP | ANALYST | MARKETER | DISPATCHER },
	{ "SELECT", "message_end", NULL, APP | ANALYST | MARKETER | DISPATCHER },
	{ "SELECT", "window_rule", NULL, APP | ANALYST | MARKETER | DISPATCHER },
	{ "SELECT", "window_grant", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "follower", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "consent", NULL, APP | ASSOCIATE },
	{ "SELECT", "consent", "contact_id, channel, class, granted, since", ANALYST | MARKETER },
	{ "SELECT", "frequency_cap", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "quiet_hours", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "account", NULL, DISPATCHER },
	{ "SELECT, INSERT, UPDATE", "account_secret", NULL, DISPATCHER },
	{ "SELECT, INSERT, UPDATE", "account_token", NULL, DISPATCHER },
	{ "SELECT, INSERT, UPDATE", "api_limit", NULL, DISPATCHER },
	{ "SELECT", "api_limit", NULL, ANALYST | MARKETER },
	{ "SELECT", "api_usage", NULL, ANALYST | MARKETER | DISPATCHER },
	/* details of alarms, and why a step cannot be done, may quote what somebody wrote */
	{ "SELECT", "alarm", NULL, APP | MARKETER | DISPATCHER },
	{ "SELECT", "alarm", "alarm_id, kind, object, raised_at, times, last_at, cleared_at", ANALYST },
	{ "SELECT", "active_alarm", NULL, APP | MARKETER | DISPATCHER },
	{ "SELECT", "active_alarm", "kind, object, since, times", ANALYST },
	{ "SELECT", "queue_health", NULL, APP | ANALYST | MARKETER | DISPATCHER },
	{ "SELECT", "message_outcome", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "campaign", NULL, APP | ANALYST | MARKETER },
	{ "INSERT", "campaign", "name, template, audience, stage, params, scheduled_at, label",
	  MARKETER },
	{ "UPDATE", "campaign", "name, template, audience, stage, params, scheduled_at, label",
	  MARKETER },
	{ "SELECT", "campaign_report", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "journey", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "journey_version", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "journey_schedule", NULL, MARKETER },
	{ "SELECT", "enrolment", NULL, APP },
	{ "SELECT", "enrolment",
	  "contact_id, enrolment_id, source_id, source_at, parent_id, entered_at, recorded_at, due_at,"
	  " step_at, step_due_at, ended_at, message_id, version, visit, depth, failures, journey, step,"
	  " state, entered_by, end_reason",
	  ANALYST | MARKETER },
	{ "SELECT", "enrolment", "stuck", MARKETER },
	{ "SELECT", "step_visit", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "refusal", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "journey_visit", NULL, ANALYST | MARKETER },
	{ "SELECT", "journey_summary", NULL, ANALYST | MARKETER },
	{ "SELECT", "journey_outline", NULL, ANALYST | MARKETER },
	{ "SELECT", "journey_step", NULL, ANALYST | MARKETER },
	{ "SELECT", "journey_edge", NULL, ANALYST | MARKETER },
	{ "SELECT", "journey_gap", NULL, ANALYST | MARKETER },
	{ "SELECT", "stuck", NULL, MARKETER },
	{ "SELECT", "stuck", "kind, contact_id, object, enrolment_id, step, since", ANALYST },
	{ "SELECT", "attribution", NULL, APP | ANALYST | MARKETER },
	{ "SELECT", "persona", NULL, APP | ASSOCIATE | ANALYST | MARKETER },
	{ "SELECT", "touchpoint", NULL, APP | ASSOCIATE | ANALYST | MARKETER },
	{ "SELECT", "touchpoint_note", NULL, ASSOCIATE | MARKETER },
	{ "SELECT", "touchpoint_note", "touchpoint_note_id, touchpoint, score, noted_at, noted_by",
	  ANALYST },
	{ "SELECT", "emotion", NULL, APP | ASSOCIATE },
	{ "SELECT", "emotion",
	  "contact_id, emotion_id, touchpoint, source, score, confidence, occurred_at, recorded_at",
	  ANALYST | MARKETER },
	{ "SELECT", "map", NULL, ANALYST | MARKETER },
	{ "SELECT", "map_version", NULL, ANALYST | MARKETER },
	{ "SELECT", "map_outline", NULL, ANALYST | MARKETER },
	{ "SELECT", "map_transition", NULL, ANALYST | MARKETER },
	{ "SELECT", "definition_log", NULL, MARKETER },
	{ "SELECT", "worker_status", NULL, APP | MARKETER | ANALYST | DISPATCHER },
	{ "SELECT", "rule_error",
	  "contact_id, object_kind, object, day, times, first_at, last_at, sqlstate",
	  ANALYST | MARKETER },
};

static int
level_of(const char *name)
{
	StringInfoData known;

	initStringInfo(&known);
	for (int i = 0; i < lengthof(levels); i++)
	{
		if (strcmp(levels[i].name, name) == 0)
			return levels[i].level;
		appendStringInfo(&known, "%s%s", i > 0 ? ", " : "", levels[i].name);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("level \"%s\" is not known", name),
			 errhint("Levels are: %s.", known.data)));
	return 0;
}

/* Runs a query that yields what a role still lacks. */
static void
require_nothing(const char *query, const char *role)
{
	char *lacking = crm_ddl_text(query);

	if (lacking != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not grant %s to role \"%s\"",
						GetUserNameFromId(GetUserId(), false), lacking, role),
				 errhint("Call crm.grant_access() as a superuser, or as a role of level owner.")));
}

static void
grant_functions(const char *role, int level)
{
	const char *grantee = quote_identifier(role);
	const char *literal = quote_literal_cstr(role);
	StringInfoData names;
	StringInfoData which;

	if (level == OWNER)
	{
		crm_ddl("GRANT CREATE ON SCHEMA crm TO %s", grantee);
		crm_ddl("GRANT USAGE ON SCHEMA crm TO %s WITH GRANT OPTION", grantee);
	}
	else
		crm_ddl("GRANT USAGE ON SCHEMA crm TO %s", grantee);
	require_nothing(
		psprintf("SELECT 'the use of schema crm' WHERE NOT has_schema_privilege(%s, 'crm', %s)",
				 literal, level == OWNER ? "'CREATE'" : "'USAGE'"),
		role);

	initStringInfo(&names);
	for (int i = 0; i < lengthof(functions); i++)
		if ((functions[i].levels & level) != 0)
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "",
							 quote_literal_cstr(functions[i].name));
	initStringInfo(&which);
	appendStringInfo(
		&which,
		" FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid"
		"  AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'"
		" JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'pg_crm'"
		" WHERE %s",
		level == OWNER ? "true" : psprintf("p.proname = ANY (ARRAY[%s]::name[])", names.data));
	crm_ddl_each(psprintf(
		"SELECT format('GRANT EXECUTE ON ROUTINE %%s TO %%I%s', p.oid::regprocedure, %s)%s",
		level == OWNER ? " WITH GRANT OPTION" : "", literal, which.data));
	require_nothing(psprintf("SELECT format('execution of %%s', p.oid::regprocedure)%s"
							 " AND NOT has_function_privilege(%s, p.oid, 'EXECUTE%s') LIMIT 1",
							 which.data, literal, level == OWNER ? " WITH GRANT OPTION" : ""),
					role);
}

static char *
changeable_columns(const char *table)
{
	return crm_ddl_text(
		psprintf("SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum)"
				 " FROM pg_attribute WHERE attrelid = 'crm.%s'::regclass AND attnum > 0"
				 " AND NOT attisdropped AND attgenerated = '' AND attname"
				 " NOT IN ('contact_id', 'created_at', 'mobile', 'stage')",
				 table));
}

static void
grant_tables(const char *role, int level)
{
	for (int i = 0; i < lengthof(tables); i++)
	{
		const char *columns = tables[i].columns;

		if ((tables[i].levels & level) == 0 || !OidIsValid(crm_table_oid_if_any(tables[i].table)))
			continue;
		if (columns != NULL && strcmp(columns, CHANGEABLE) == 0)
			columns = changeable_columns(tables[i].table);
		if (columns == NULL)
			crm_ddl("GRANT %s ON crm.%s TO %s", tables[i].privilege, tables[i].table,
					quote_identifier(role));
		else
			crm_ddl("GRANT %s (%s) ON crm.%s TO %s", tables[i].privilege, columns, tables[i].table,
					quote_identifier(role));
	}
}

Datum
crm_grant_access(PG_FUNCTION_ARGS)
{
	char *role;
	int level;
	CrmDdl ddl;

	for (int i = 0; i < 2; i++)
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument %s of crm.grant_access() must not be NULL",
							i == 0 ? "role_name" : "level"),
					 errhint("Name a role and a level.")));
	role = NameStr(*PG_GETARG_NAME(0));
	level = level_of(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	(void) get_role_oid(role, false);
	if (level != OWNER)
		crm_require_installed();

	/* the tables first: only their owner gets further */
	if (level != OWNER)
	{
		crm_ddl_begin(&ddl, "grant_access");
		grant_tables(role, level);
		crm_ddl_end(&ddl);
	}
	crm_ddl_begin(&ddl, NULL);
	grant_functions(role, level);
	crm_ddl_end(&ddl);
	PG_RETURN_VOID();
}
