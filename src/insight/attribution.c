/*
 * attribution.c
 *		crm.define_attribution(), and what conversions are credited to by such a
 *		rule: crm.attribution_report() and the rows that it adds up.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/db.h"
#include "base/document.h"
#include "base/row.h"
#include "base/table.h"
#include "insight/fact_source.h"
#include "insight/period.h"
#include "insight/report.h"
#include "pg_crm.h"
#include "rules/fact_rule.h"

PG_FUNCTION_INFO_V1(crm_define_attribution);
PG_FUNCTION_INFO_V1(crm_check_attribution);
PG_FUNCTION_INFO_V1(crm_sql_attribution_report);
PG_FUNCTION_INFO_V1(crm_sql_attribution_rows);

#define MAX_NAME_BYTES 63

/* ---------- definitions ---------- */

Datum
crm_define_attribution(PG_FUNCTION_ARGS)
{
	static const char *const required[] = { "name", "on_kind" };

	PG_RETURN_INT32(crm_document_define(fcinfo, "define_attribution", "attribution", required,
										lengthof(required)));
}

Datum
crm_check_attribution(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = crm_row_trigger(fcinfo, "check_attribution", true);
	bool update = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event);
	CrmRow old = { RelationGetDescr(trigger->tg_relation), trigger->tg_trigtuple };
	CrmRow new = { RelationGetDescr(trigger->tg_relation),
				   update ? trigger->tg_newtuple : trigger->tg_trigtuple };
	char *rule = crm_row_text(&new, "rule");
	bool isnull;
	Datum look_back = crm_row_value(&new, "look_back", &isnull);

	crm_require_table(trigger->tg_relation, "attribution");
	crm_check_length("name of a rule of attribution", crm_row_text(&new, "name"), MAX_NAME_BYTES);
	crm_check_length("on_kind", crm_row_text(&new, "on_kind"), CRM_MAX_KIND_BYTES);
	if (!isnull)
		crm_check_duration("look_back", DatumGetIntervalP(look_back));
	if (rule != NULL)
	{
		CrmActing acting;

		crm_connect(&acting);
		(void) crm_fact_rule_compile(rule);
		crm_disconnect(&acting);
	}
	return PointerGetDatum(crm_row_version(update ? &old : NULL, &new, false));
}

/* ---------- touches ---------- */

/* A kind of touch that scans have: where, and its object. */
static const struct
{
	const char *touch;
	const char *condition;
	const char *object;
} of_scans[] = {
	{ "associate", "q.associate_id IS NOT NULL", "q.associate_id::text" },
	{ "campaign", "q.campaign <> ''", "q.campaign" },
	{ "code", "true", "q.qr_code_id::text" },
	{ "store", "q.store_id IS NOT NULL", "q.store_id::text" },
};

typedef struct Attribution
{
	const char *name;
	CrmFactSource conversions;
	int ntouches;
	char **touches;
	const char *model;
	TimestampTz period_start;
	TimestampTz period_end;
	CrmReport report;
	CrmRuleUser user;
	const char *start_value; /* what stands for them in the statement */
	const char *end_value;
	const char *look_back_value;
} Attribution;

static bool
has_touch(const Attribution *attribution, const char *touch)
{
	for (int i = 0; i < attribution->ntouches; i++)
		if (strcmp(attribution->touches[i], touch) == 0)
			return true;
	return false;
}

/* A scan is one touch: the first of those listed that its code has. */
static void
append_scan_case(StringInfo sql, const Attribution *attribution, bool object)
{
	appendStringInfoString(sql, "CASE");
	for (int i = 0; i < attribution->ntouches; i++)
		for (int k = 0; k < lengthof(of_scans); k++)
			if (strcmp(attribution->touches[i], of_scans[k].touch) == 0)
				appendStringInfo(sql, " WHEN %s THEN %s", of_scans[k].condition,
								 object ? of_scans[k].object
										: quote_literal_cstr(of_scans[k].touch));
	appendStringInfoString(sql, " END");
}

static void
append_time(StringInfo sql, const Attribution *attribution, const char *at)
{
	appendStringInfo(sql, " AND %s >= %s - %s AND %s < %s", at, attribution->start_value,
					 attribution->look_back_value, at, attribution->end_value);
}

static void
append_scans(StringInfo sql, const Attribution *attribution)
{
	appendStringInfoString(sql, "SELECT s.contact_id, 'scan', s.scan_id, s.occurred_at, ");
	append_scan_case(sql, attribution, false);
	appendStringInfoString(sql, ", ");
	append_scan_case(sql, attribution, true);
	appendStringInfoString(sql,
						   " FROM crm.scan s"
						   " JOIN crm.qr_code q ON q.qr_code_id = s.qr_code_id WHERE true");
	append_time(sql, attribution, "s.occurred_at");
}

/*
 * Messages that were sent. The key of a campaign's has its name, and after a merge
 * perhaps a number that keeps it apart.
 */
static void
append_campaign_messages(StringInfo sql, const Attribution *attribution)
{
	appendStringInfoString(sql,
						   "SELECT m.contact_id, 'message', m.message_id, m.sent_at, 'campaign',"
						   " coalesce((SELECT c.name FROM crm.campaign c"
						   "  WHERE c.name = substr(m.send_key, 10)),"
						   " regexp_replace(substr(m.send_key, 10), '#[0-9]+$', ''))"
						   " FROM crm.message m WHERE m.send_key LIKE 'campaign:%'"
						   " AND m.state = 'sent'");
	append_time(sql, attribution, "m.sent_at");
}

static void
append_journey_messages(StringInfo sql, const Attribution *attribution)
{
	appendStringInfoString(sql,
						   "SELECT DISTINCT m.contact_id, 'message', m.message_id, m.sent_at,"
						   " 'journey', v.journey FROM crm.step_visit v JOIN crm.message m"
						   " ON m.contact_id = v.contact_id AND m.message_id = v.message_id"
						   " WHERE m.state = 'sent'");
	append_time(sql, attribution, "m.sent_at");
}

static void
append_touches(StringInfo sql, const Attribution *attribution)
{
	const char *between = "";

	for (int k = 0; k < lengthof(of_scans); k++)
		if (has_touch(attribution, of_scans[k].touch))
		{
			append_scans(sql, attribution);
			between = " UNION ALL ";
			break;
		}
	if (has_touch(attribution, "campaign"))
	{
		appendStringInfoString(sql, between);
		append_campaign_messages(sql, attribution);
		between = " UNION ALL ";
	}
	if (has_touch(attribution, "journey"))
	{
		appendStringInfoString(sql, between);
		append_journey_messages(sql, attribution);
	}
}

/* ---------- credits ---------- */

/*
 * What part of the conversion a touch has, as text of its place among them; parts of
 * one conversion are decimal numbers whose sum is exactly 1.
 */
static const char *
credit_of(const char *model)
{
	if (strcmp(model, "first") == 0)
		return "CASE WHEN l.place = 1 THEN 1.0 END";
	if (strcmp(model, "last") == 0)
		return "CASE WHEN l.place = l.touches THEN 1.0 END";
	if (strcmp(model, "linear") == 0)
		return "CASE WHEN l.place < l.touches THEN trunc(1.0 / l.touches, 9)"
			   " ELSE 1 - (l.touches - 1) * trunc(1.0 / l.touches, 9) END";
	/* every: an object once, by its last touch */
	return "CASE WHEN l.of_object = 1 THEN 1.0 END";
}

/*
 * conversion: the facts of the period; linked: each with the touches before it, at
 * most so long, and not the conversion itself; credit: each with its part.
 */
static void
append_credits(StringInfo sql, Attribution *attribution)
{
	appendStringInfo(sql,
					 "WITH conversion AS MATERIALIZED (SELECT f.* FROM %s f"
					 " WHERE f.occurred_at >= %s AND f.occurred_at < %s"
					 " AND EXISTS (SELECT FROM crm.contact c WHERE c.contact_id = f.contact_id)),"
					 " touch(contact_id, source_table, touch_id, touched_at, touch, object) AS (",
					 crm_fact_source(&attribution->conversions, "crm_report_conversions"),
					 attribution->start_value, attribution->end_value);
	append_touches(sql, attribution);
	appendStringInfo(sql,
					 "), linked AS (SELECT v.contact_id, v.source_id, v.occurred_at, v.amount,"
					 " t.touch, t.object, t.touch_id, t.touched_at,"
					 " count(*) OVER (PARTITION BY v.contact_id, v.source_id) AS touches,"
					 " row_number() OVER (PARTITION BY v.contact_id, v.source_id"
					 "  ORDER BY t.touched_at, t.source_table, t.touch_id) AS place,"
					 " row_number() OVER (PARTITION BY v.contact_id, v.source_id, t.touch, t.object"
					 "  ORDER BY t.touched_at DESC, t.source_table DESC, t.touch_id DESC)"
					 "  AS of_object"
					 " FROM conversion v JOIN touch t ON t.contact_id = v.contact_id"
					 " AND t.touched_at <= v.occurred_at AND t.touched_at >= v.occurred_at - %s"
					 " AND (t.source_table <> v.source_table OR t.touch_id <> v.source_id)"
					 " WHERE t.touch IS NOT NULL),"
					 " credit AS (SELECT v.contact_id, v.source_id, v.occurred_at, v.amount,"
					 " coalesce(l.touch, 'none') AS touch, l.object, l.touch_id, l.touched_at,"
					 " coalesce(l.credit, 1.0) AS credit"
					 " FROM conversion v LEFT JOIN (SELECT l.*, %s AS credit FROM linked l) l"
					 "  ON l.contact_id = v.contact_id AND l.source_id = v.source_id"
					 "  AND l.credit IS NOT NULL)",
					 attribution->look_back_value, credit_of(attribution->model));
}

static void
read_definition(Attribution *attribution)
{
	static CrmPlan find = { "SELECT a.on_kind, a.rule, a.touches, a.model, a.look_back"
							" FROM crm.attribution a WHERE a.name = $1",
							1,
							{ TEXTOID } };
	Datum name = CStringGetTextDatum(attribution->name);
	Datum *touches;
	bool isnull;

	if (crm_read(&find, &name, NULL) == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_FOREIGN_KEY_VIOLATION),
			 errmsg("rule of attribution \"%s\" does not exist",
					pnstrdup(attribution->name,
							 pg_mbcliplen(attribution->name, strlen(attribution->name),
										  MAX_NAME_BYTES))),
			 errhint(
				 "Save it with crm.define_attribution(); those that exist are the rows of crm.attribution.")));
	attribution->user = (CrmRuleUser){ "attribution", attribution->name };
	attribution->conversions = (CrmFactSource){ .kind = crm_result_text(0, 1),
												.rule = crm_result_text(0, 2),
												.from = attribution->period_start,
												.until = attribution->period_end,
												.user = &attribution->user };
	deconstruct_array(DatumGetArrayTypeP(crm_result(0, 3, &isnull)), TEXTOID, -1, false,
					  TYPALIGN_INT, &touches, NULL, &attribution->ntouches);
	attribution->touches = palloc_array(char *, attribution->ntouches);
	for (int i = 0; i < attribution->ntouches; i++)
		attribution->touches[i] = TextDatumGetCString(touches[i]);
	attribution->model = crm_result_text(0, 4);
	attribution->start_value = crm_report_time(&attribution->report, attribution->period_start);
	attribution->end_value = crm_report_time(&attribution->report, attribution->period_end);
	attribution->look_back_value = crm_report_value(&attribution->report, INTERVALOID,
													crm_result(0, 5, &isnull), false);
}

static void
return_credits(FunctionCallInfo fcinfo, const char *function, const char *select)
{
	Attribution attribution = { 0 };
	StringInfoData sql;
	CrmActing acting;

	crm_require_value(fcinfo, 0, "attribution", function);
	crm_require_value(fcinfo, 1, "period_start", function);
	crm_require_value(fcinfo, 2, "period_end", function);
	attribution.name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	attribution.period_start = PG_GETARG_TIMESTAMPTZ(1);
	attribution.period_end = PG_GETARG_TIMESTAMPTZ(2);
	crm_check_period(attribution.period_start, attribution.period_end);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	crm_connect(&acting);
	read_definition(&attribution);
	initStringInfo(&sql);
	append_credits(&sql, &attribution);
	appendStringInfoString(&sql, select);
	crm_report_return(&attribution.report, sql.data, fcinfo);
	crm_disconnect(&acting);
}

Datum
crm_sql_attribution_report(PG_FUNCTION_ARGS)
{
	return_credits(fcinfo, "attribution_report",
				   " SELECT g.touch, g.object, CASE g.touch"
				   " WHEN 'code' THEN (SELECT q.scene FROM crm.qr_code q"
				   "  WHERE q.qr_code_id = g.object::bigint)"
				   " WHEN 'store' THEN (SELECT s.name FROM crm.store s"
				   "  WHERE s.store_id = g.object::bigint)"
				   " WHEN 'associate' THEN (SELECT a.userid FROM crm.associate a"
				   "  WHERE a.associate_id = g.object::bigint)"
				   " WHEN 'campaign' THEN (SELECT c.label FROM crm.campaign c"
				   "  WHERE c.name = g.object) END, g.conversions, g.contacts,"
				   " round(g.conversions / (SELECT count(*) FROM conversion), 4), g.amount"
				   " FROM (SELECT r.touch, r.object, sum(r.credit) AS conversions,"
				   "  count(DISTINCT r.contact_id) AS contacts,"
				   "  sum(r.credit * r.amount) AS amount"
				   "  FROM credit r GROUP BY r.touch, r.object) g"
				   " ORDER BY g.conversions DESC, g.touch, g.object");
	return (Datum) 0;
}

Datum
crm_sql_attribution_rows(PG_FUNCTION_ARGS)
{
	return_credits(fcinfo, "attribution_rows",
				   " SELECT r.contact_id, r.source_id, r.occurred_at, r.touch, r.object,"
				   " r.touch_id, r.touched_at, r.credit, r.credit * r.amount FROM credit r"
				   " ORDER BY r.occurred_at, r.contact_id, r.source_id, r.touched_at, r.touch_id");
	return (Datum) 0;
}
