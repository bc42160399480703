/*
 * report_tables.c
 *		What is in a report: sections, and the statements of their tables.
 *
 * Parameters: $1 start and $2 end of the period, $3 time zone, $4 now, $5 whether
 * the period and the one before it are of whole days of pg_crm.time_zone. Of a contact they
 * show nothing but that there is one.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"

#include "insight/report_tables.h"

#define ARGUMENTS                                                        \
	CRM_REPORT_TABLE_PARAMETERS,                                         \
	{                                                                    \
		TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, TIMESTAMPTZOID, BOOLOID \
	}

#define TABLE(title, nothing, sql)        \
	{                                     \
		CRM_REPORT_TABLE, title, nothing, \
		{                                 \
			sql, ARGUMENTS                \
		}                                 \
	}
#define TREND(measure)            \
	{                             \
		CRM_REPORT_TREND, measure \
	}
#define NOTE(words)            \
	{                          \
		CRM_REPORT_NOTE, words \
	}
#define END            \
	{                  \
		CRM_REPORT_END \
	}

/* of a time, in words */
#define MINUTE(at)         "pg_catalog.to_char(pg_catalog.timezone($3, " at "), 'YYYY-MM-DD HH24:MI')"
#define IN_PERIOD(at)      at " >= $1 AND " at " < $2"
#define SHARE(part, whole) "pg_catalog.round(100.0 * " part " / NULLIF(" whole ", 0), 1)"
#define FIRST_20           " LIMIT 20"

/* ---------- at a glance ---------- */

/* facts have place, at and amount: each place beside the same of as long a time before */
#define GLANCE(facts)                                                                                     \
	"WITH since AS (SELECT pg_catalog.timezone($3, pg_catalog.timezone($3, $1) - ($2 - $1)) AS at),"      \
	" fact AS ("                                                                                          \
	"SELECT 1 AS place, c.created_at AS at, 1::numeric AS amount FROM crm.contact AS c" facts             \
	" UNION ALL SELECT 8, m.sent_at, 1 FROM crm.message AS m"                                             \
	" UNION ALL SELECT 9, m.ended_at, 1 FROM crm.message AS m"                                            \
	"   WHERE m.state IN ('failed', 'refused', 'expired')"                                                \
	" UNION ALL SELECT 10, n.entered_at, 1 FROM crm.enrolment AS n"                                       \
	" UNION ALL SELECT 11, p.occurred_at, p.points FROM crm.point_entry AS p WHERE p.kind = 'earned'"     \
	" UNION ALL SELECT 12, g.redeemed_at, 1 FROM crm.coupon_grant AS g),"                                 \
	" counted AS (SELECT f.place,"                                                                        \
	"   pg_catalog.round(COALESCE(pg_catalog.sum(f.amount) FILTER (WHERE f.at >= $1), 0)) AS here,"       \
	"   pg_catalog.round(COALESCE(pg_catalog.sum(f.amount) FILTER (WHERE f.at < $1), 0)) AS before"       \
	"  FROM fact AS f, since AS s WHERE f.at >= s.at AND f.at < $2 GROUP BY f.place)"                     \
	" SELECT v.name, COALESCE(c.here, 0),"                                                                \
	"  'before: ' || pg_catalog.to_char(COALESCE(c.before, 0), 'FM999,999,999,999,990')"                  \
	"  || COALESCE(pg_catalog.to_char(pg_catalog.round(100 * (c.here - c.before) / NULLIF(c.before, 0))," \
	"       '\" (\"FMSG999,999,990\"%)\"'), '')"                                                          \
	" FROM (VALUES (1, 'New contacts'), (2, 'Follows'), (3, 'Unfollows'), (4, 'Scans'),"                  \
	"  (5, 'Orders'), (6, 'Sales, ' || crm.default_currency()),"                                          \
	"  (7, 'Refunded, ' || crm.default_currency()), (8, 'Messages sent'),"                                \
	"  (9, 'Messages not sent'), (10, 'Entries into journeys'), (11, 'Points earned'),"                   \
	"  (12, 'Coupons redeemed')) AS v(place, name)"                                                       \
	" LEFT JOIN counted AS c ON c.place = v.place ORDER BY v.place"

#define DAY(day) "pg_catalog.timezone($3, " day "::timestamp)"

static CrmReportPart glance[] = {
	{ CRM_REPORT_FIGURES,
	  "",
	  "",
	  { GLANCE(
			" UNION ALL SELECT CASE e.kind WHEN 'follow' THEN 2 ELSE 3 END, e.occurred_at, 1"
			"   FROM crm.event AS e WHERE e.kind IN ('follow', 'unfollow')"
			" UNION ALL SELECT 4, s.occurred_at, 1 FROM crm.scan AS s"
			/* what retention has dropped is known by day */
			" UNION ALL SELECT CASE WHEN o.qr_code_id IS NOT NULL THEN 4 WHEN o.kind = 'follow' THEN 2 ELSE 3 END,"
			"   " DAY(
				"o.day") ", o.facts FROM crm.opening_fact AS o"
						 "   WHERE $5 AND (o.qr_code_id IS NOT NULL OR o.kind IN ('follow', 'unfollow'))"
						 " UNION ALL SELECT 5, t.occurred_at, 1 FROM crm.transaction AS t WHERE t.kind = 'purchase'"
						 " UNION ALL SELECT CASE t.kind WHEN 'purchase' THEN 6 ELSE 7 END, t.occurred_at, t.amount"
						 "   FROM crm.transaction AS t WHERE t.currency = crm.default_currency()"),
		ARGUMENTS },
	  { GLANCE(
			" UNION ALL SELECT CASE WHEN NOT k.event THEN 4 WHEN k.kind = 'follow' THEN 2 ELSE 3 END,"
			"   " DAY(
				"k.day") ", k.facts FROM crm.kind_count AS k"
						 "   WHERE CASE WHEN k.event THEN k.kind IN ('follow', 'unfollow') ELSE k.kind = 'scan' END"
						 " UNION ALL SELECT 5, " DAY(
							 "k.day") ", k.facts FROM crm.kind_count AS k"
									  "   WHERE k.kind = 'purchase' AND k.currency IS NOT NULL"
									  " UNION ALL SELECT CASE k.kind WHEN 'purchase' THEN 6 ELSE 7 END, " DAY(
										  "k.day") ", k.amount"
												   "   FROM crm.kind_count AS k WHERE k.currency = crm.default_currency()"),
		ARGUMENTS } },
	NOTE("Before is as long a time right before the period."),
	END,
};

/* ---------- stages ---------- */

static CrmReportPart stages[] = {
	TREND("stages"),
	TABLE(
		"Contacts in each stage", "no stages are defined",
		"SELECT COALESCE(NULLIF(t.label, ''), s.stage) AS \"Stage\","
		" COALESCE(h.first, 0) AS \"At the start\", COALESCE(h.last, 0) AS \"At the end\","
		" COALESCE(h.last, 0) - COALESCE(h.first, 0) AS \"Change\","
		" COALESCE(h.came, 0) AS \"Came to it\", s.contacts AS \"Now\","
		" " SHARE(
			"s.contacts",
			"pg_catalog.sum(s.contacts) OVER ()") " AS \"Now, %\""
												  " FROM crm.lifecycle_funnel AS s LEFT JOIN crm.stage AS t ON t.stage = s.stage"
												  " LEFT JOIN (SELECT m.stage,"
												  "  pg_catalog.count(*) FILTER (WHERE m.since < $1 AND (m.until IS NULL OR m.until >= $1)) AS first,"
												  "  pg_catalog.count(*) FILTER (WHERE m.since < $2 AND (m.until IS NULL OR m.until >= $2)) AS last,"
												  "  pg_catalog.count(*) FILTER (WHERE " IN_PERIOD(
													  "m.since") ") AS came"
																 "  FROM crm.stage_history AS m GROUP BY m.stage) AS h ON h.stage = s.stage"
																 " ORDER BY s.rank, s.stage"),
	END,
};

/* ---------- contacts ---------- */

/* of rows a that count for so many contacts */
#define WON(contacts, rows)                                                                      \
	"SELECT a.source AS \"Source\", a.campaign AS \"Campaign\", s.name AS \"Shop\","             \
	" " contacts " AS \"Contacts\","                                                             \
	" " SHARE(contacts,                                                                          \
			  "pg_catalog.sum(" contacts                                                         \
			  ") OVER ()") " AS \"%\","                                                          \
						   " pg_catalog.count(*) OVER () AS of FROM " rows                       \
						   " LEFT JOIN crm.store AS s ON s.store_id = a.store_id"                \
						   " GROUP BY a.source, a.campaign, a.store_id, s.name HAVING " contacts \
						   " <> 0"                                                               \
						   " ORDER BY " contacts                                                 \
						   " DESC, a.source, a.campaign, s.name, a.store_id" FIRST_20

static CrmReportPart contacts[] = {
	TREND("contacts"),
	{ CRM_REPORT_TABLE,
	  "By what contacts were won",
	  "nobody was won in this period",
	  { WON("pg_catalog.count(*)",
			"(SELECT w.* FROM crm.won_contact AS w WHERE " IN_PERIOD("w.occurred_at") ") AS a"),
		ARGUMENTS },
	  { WON("pg_catalog.sum(a.won)::bigint",
			"crm.won_period(pg_catalog.timezone($3, $1)::date, pg_catalog.timezone($3, $2)::date) AS a"),
		ARGUMENTS } },
	END,
};

/* ---------- scans ---------- */

static CrmReportPart scans[] = {
	TREND("scans"),
	TABLE(
		"Codes", "no code was scanned in this period",
		"SELECT COALESCE(q.scene, s.qr_code_id::text) AS \"Code\", q.campaign AS \"Campaign\","
		" t.name AS \"Shop\", pg_catalog.count(*) AS \"Scans\","
		" pg_catalog.count(DISTINCT s.contact_id) AS \"Contacts\","
		" pg_catalog.count(f.scan_id) AS \"Counted\", pg_catalog.count(g.scan_id) AS \"Too fast\","
		" pg_catalog.count(*) OVER () AS of"
		" FROM crm.scan AS s LEFT JOIN crm.qr_code AS q ON q.qr_code_id = s.qr_code_id"
		" LEFT JOIN crm.store AS t ON t.store_id = q.store_id"
		" LEFT JOIN (SELECT DISTINCT c.contact_id, c.scan_id FROM crm.first_scan AS c) AS f"
		"  ON f.contact_id = s.contact_id AND f.scan_id = s.scan_id"
		" LEFT JOIN (SELECT DISTINCT c.contact_id, c.scan_id FROM crm.scan_flag AS c) AS g"
		"  ON g.contact_id = s.contact_id AND g.scan_id = s.scan_id"
		" WHERE " IN_PERIOD(
			"s.occurred_at") " GROUP BY s.qr_code_id, q.scene, q.campaign, t.name"
							 " ORDER BY pg_catalog.count(*) DESC, s.qr_code_id" FIRST_20),
	END,
};

/* ---------- orders ---------- */

static CrmReportPart orders[] = {
	TREND("amounts"),
	TABLE(
		"Shops", "there was no order in this period",
		"SELECT COALESCE(s.name, CASE WHEN t.store_id IS NULL THEN 'no shop' ELSE t.store_id::text END) AS \"Shop\","
		" t.currency AS \"Currency\","
		" pg_catalog.count(*) FILTER (WHERE t.kind = 'purchase') AS \"Orders\","
		" pg_catalog.count(DISTINCT t.contact_id) FILTER (WHERE t.kind = 'purchase') AS \"Buyers\","
		" pg_catalog.round(pg_catalog.sum(t.amount) FILTER (WHERE t.kind = 'purchase'), 2) AS \"Sales\","
		" pg_catalog.round(pg_catalog.avg(t.amount) FILTER (WHERE t.kind = 'purchase'), 2) AS \"Per order\","
		" pg_catalog.count(*) FILTER (WHERE t.kind = 'refund') AS \"Refunds\","
		" pg_catalog.round(pg_catalog.sum(t.amount) FILTER (WHERE t.kind = 'refund'), 2) AS \"Refunded\","
		" pg_catalog.count(*) OVER () AS of"
		" FROM crm.transaction AS t LEFT JOIN crm.store AS s ON s.store_id = t.store_id"
		" WHERE " IN_PERIOD(
			"t.occurred_at") " GROUP BY t.store_id, s.name, t.currency"
							 " ORDER BY 5 DESC NULLS LAST, t.store_id, t.currency" FIRST_20),
	END,
};

/* ---------- journeys ---------- */

static CrmReportPart journeys[] = {
	TREND("journeys"),
	TABLE(
		"Journeys", "there are no journeys",
		"SELECT s.journey AS \"Journey\", COALESCE(s.state, 'deleted') AS \"State\","
		" COALESCE(p.entered, 0) AS \"Entered\", COALESCE(p.finished, 0) AS \"Finished\","
		" COALESCE(p.goal, 0) AS \"Reached the goal\", COALESCE(p.other, 0) AS \"Left otherwise\","
		" COALESCE(r.refusals, 0) AS \"Refused\", s.active AS \"In it now\", s.stuck AS \"Stuck now\","
		" pg_catalog.count(*) OVER () AS of"
		" FROM crm.journey_summary AS s"
		" LEFT JOIN (SELECT e.journey, pg_catalog.count(*) FILTER (WHERE " IN_PERIOD(
			"e.entered_at") ") AS entered,"
							"  pg_catalog.count(*) FILTER (WHERE e.state = 'finished' AND " IN_PERIOD(
								"e.ended_at") ") AS finished,"
											  "  pg_catalog.count(*) FILTER (WHERE e.state = 'exited' AND e.end_reason = 'goal' AND " IN_PERIOD(
												  "e.ended_at") ") AS goal,"
																"  pg_catalog.count(*) FILTER (WHERE e.state = 'exited' AND e.end_reason <> 'goal' AND " IN_PERIOD(
																	"e.ended_at") ") AS other"
																				  "  FROM crm.enrolment AS e GROUP BY e.journey) AS p ON p.journey = s.journey"
																				  " LEFT JOIN (SELECT f.object, pg_catalog.sum(f.refusals)::bigint AS refusals FROM crm.refusal AS f"
																				  "  WHERE f.kind = 'journey' AND " IN_PERIOD(
																					  "f.first_at") " GROUP BY f.object) AS r ON r.object = s.journey"
																									" ORDER BY 3 DESC, s.active DESC, s.journey LIMIT 60"),
	{ CRM_REPORT_FUNNELS,
	  "",
	  "",
	  { "SELECT e.journey FROM crm.enrolment AS e"
		" JOIN crm.journey AS j ON j.journey = e.journey"
		" WHERE " IN_PERIOD("e.entered_at") " GROUP BY e.journey"
											" ORDER BY pg_catalog.count(*) DESC, e.journey",
		ARGUMENTS } },
	END,
};

/* ---------- maps ---------- */

#define FROM_MAPS \
	" FROM crm.map AS m JOIN crm.map_version AS v ON v.map = m.map AND v.version = m.version"

static CrmReportPart maps[] = {
	TABLE(
		"Maps", "no map is defined",
		"SELECT COALESCE(NULLIF(v.definition ->> 'label', ''), m.map) AS \"Map\","
		" m.version AS \"Version\", " MINUTE(
			"m.changed_at") " AS \"Defined\","
							" COALESCE(o.stages, 0) AS \"Stages\", COALESCE(o.touchpoints, 0) AS \"Touchpoints\","
							" pg_catalog.count(*) OVER () AS of" FROM_MAPS
							" LEFT JOIN (SELECT p.map, pg_catalog.count(DISTINCT p.stage_place) AS stages,"
							"  pg_catalog.count(*) AS touchpoints FROM crm.map_outline AS p WHERE p.is_current"
							"  GROUP BY p.map) AS o ON o.map = m.map"
							" ORDER BY m.changed_at DESC, m.map" FIRST_20),
	{ CRM_REPORT_MAPS,
	  "",
	  "",
	  { "SELECT m.map FROM crm.map AS m ORDER BY m.changed_at DESC, m.map", ARGUMENTS } },
	TABLE("Personas", "no persona is defined",
		  "SELECT COALESCE(NULLIF(p.label, ''), p.name) AS \"Persona\","
		  " p.description AS \"Who they are\", s.members AS \"Contacts now\","
		  " pg_catalog.round(100 * s.share, 1) AS \"Of all, %\","
		  " pg_catalog.count(*) OVER () AS of"
		  " FROM crm.persona_size() AS s JOIN crm.persona AS p ON p.name = s.persona"
		  " ORDER BY s.members DESC NULLS LAST, p.name" FIRST_20),
	END,
};

/* ---------- messages ---------- */

static CrmReportPart messages[] = {
	TREND("messages"),
	TABLE(
		"Templates, by messages that were due in the period", "no message was due in this period",
		"SELECT m.template AS \"Template\", m.channel AS \"Channel\", m.class AS \"Class\","
		" pg_catalog.count(*) AS \"Messages\","
		" pg_catalog.count(*) FILTER (WHERE m.state IN ('queued', 'sending')) AS \"To be sent\","
		" pg_catalog.count(*) FILTER (WHERE m.state IN ('sent', 'waiting')) AS \"Sent\","
		" " SHARE(
			"pg_catalog.count(*) FILTER (WHERE m.state IN ('sent', 'waiting'))",
			"pg_catalog.count(*)") " AS \"Sent, %\","
								   " pg_catalog.count(*) FILTER (WHERE m.state = 'refused') AS \"Refused\","
								   " pg_catalog.count(*) FILTER (WHERE m.state = 'failed') AS \"Failed\","
								   " pg_catalog.count(*) FILTER (WHERE m.state = 'expired') AS \"Expired\","
								   " pg_catalog.count(*) FILTER (WHERE m.state = 'cancelled') AS \"Cancelled\","
								   " pg_catalog.count(*) FILTER (WHERE m.state = 'unknown') AS \"Not known\","
								   " pg_catalog.count(*) OVER () AS of"
								   " FROM crm.message AS m WHERE " IN_PERIOD(
									   "m.due_at") " GROUP BY m.template, m.channel, m.class"
												   " ORDER BY pg_catalog.count(*) DESC, m.template, m.channel, m.class" FIRST_20),
	TABLE(
		"Why messages were not sent", "every message that was due was sent, or is on its way",
		"SELECT m.state AS \"State\", COALESCE(m.reason, 'not told') AS \"Reason\","
		" pg_catalog.count(*) AS \"Messages\", pg_catalog.count(DISTINCT m.contact_id) AS \"Contacts\","
		" pg_catalog.count(*) OVER () AS of"
		" FROM crm.message AS m WHERE " IN_PERIOD(
			"m.due_at") " AND m.state NOT IN ('queued', 'sending', 'sent', 'waiting')"
						" GROUP BY m.state, m.reason ORDER BY pg_catalog.count(*) DESC, m.state, m.reason" FIRST_20),
	END,
};

/* ---------- campaigns ---------- */

static CrmReportPart campaigns[] = {
	TABLE(
		"Campaigns sent or scheduled in the period", "no campaign was sent in this period",
		"SELECT COALESCE(NULLIF(c.label, ''), r.campaign) AS \"Campaign\", r.template AS \"Template\","
		" r.state AS \"State\", " MINUTE(
			"COALESCE(r.scheduled_at, r.sent_at)") " AS \"Due\","
												   " r.messages AS \"Messages\", r.queued AS \"To be sent\", r.sent AS \"Sent\", r.refused AS \"Refused\","
												   " r.failed AS \"Failed\", r.expired AS \"Expired\", r.unknown AS \"Not known\","
												   " pg_catalog.count(*) OVER () AS of"
												   " FROM crm.campaign_report AS r JOIN crm.campaign AS c ON c.name = r.campaign"
												   " WHERE " IN_PERIOD(
													   "COALESCE(r.scheduled_at, r.sent_at)") " ORDER BY COALESCE(r.scheduled_at, r.sent_at), r.campaign LIMIT 60"),
	END,
};

/* ---------- loyalty ---------- */

static CrmReportPart loyalty[] = {
	TREND("points"),
	TABLE(
		"Programmes", "there is no loyalty programme",
		"SELECT COALESCE(NULLIF(p.label, ''), p.name) AS \"Programme\","
		" COALESCE(m.members, 0) AS \"Members now\", COALESCE(m.joined, 0) AS \"Joined\", COALESCE(m.gone, 0) AS \"Left\","
		" COALESCE(e.earned, 0) AS \"Earned\", COALESCE(e.spent, 0) AS \"Spent\", COALESCE(e.reversed, 0) AS \"Taken back\","
		" COALESCE(b.points, 0) AS \"Points held now\""
		" FROM crm.loyalty_program AS p"
		" LEFT JOIN (SELECT n.loyalty_program_id, pg_catalog.count(*) FILTER (WHERE n.left_at IS NULL) AS members,"
		"  pg_catalog.count(*) FILTER (WHERE " IN_PERIOD(
			"n.joined_at") ") AS joined,"
						   "  pg_catalog.count(*) FILTER (WHERE " IN_PERIOD(
							   "n.left_at") ") AS gone"
											"  FROM crm.membership AS n GROUP BY n.loyalty_program_id) AS m ON m.loyalty_program_id = p.loyalty_program_id"
											" LEFT JOIN (SELECT n.loyalty_program_id, pg_catalog.sum(n.points) FILTER (WHERE n.kind = 'earned') AS earned,"
											"  -pg_catalog.sum(n.points) FILTER (WHERE n.kind = 'spent') AS spent,"
											"  -pg_catalog.sum(n.points) FILTER (WHERE n.kind = 'reversed') AS reversed"
											"  FROM crm.point_entry AS n WHERE " IN_PERIOD(
												"n.occurred_at") " GROUP BY n.loyalty_program_id) AS e"
																 "  ON e.loyalty_program_id = p.loyalty_program_id"
																 " LEFT JOIN (SELECT n.loyalty_program_id, pg_catalog.sum(n.points) AS points FROM crm.point_balance AS n"
																 "  GROUP BY n.loyalty_program_id) AS b ON b.loyalty_program_id = p.loyalty_program_id"
																 " ORDER BY m.members DESC NULLS LAST, p.name LIMIT 60"),
	TABLE(
		"Tiers", "nobody has a tier",
		"SELECT COALESCE(NULLIF(p.label, ''), p.name) AS \"Programme\","
		" COALESCE(NULLIF(t.label, ''), m.tier, 'no tier') AS \"Tier\", pg_catalog.count(*) AS \"Members now\","
		" " SHARE(
			"pg_catalog.count(*)",
			"pg_catalog.sum(pg_catalog.count(*)) OVER (PARTITION BY p.name)") " AS \"%\""
																			  " FROM crm.membership AS m JOIN crm.loyalty_program AS p ON p.loyalty_program_id = m.loyalty_program_id"
																			  " LEFT JOIN crm.tier AS t ON t.program = p.name AND t.tier = m.tier"
																			  " WHERE m.left_at IS NULL GROUP BY p.name, p.label, m.tier, t.label, t.rank"
																			  " ORDER BY p.name, t.rank DESC NULLS LAST, m.tier LIMIT 60"),
	TABLE(
		"Coupons", "no coupon was issued or redeemed in this period",
		"SELECT COALESCE(NULLIF(c.label, ''), g.coupon) AS \"Coupon\","
		" pg_catalog.count(*) FILTER (WHERE " IN_PERIOD(
			"g.issued_at") ") AS \"Issued\","
						   " pg_catalog.count(*) FILTER (WHERE " IN_PERIOD(
							   "g.redeemed_at") ") AS \"Redeemed\","
												" pg_catalog.count(*) FILTER (WHERE g.redeemed_at IS NULL AND " IN_PERIOD(
													"g.expires_at") " AND g.expires_at <= $4) AS \"Expired\","
																	" pg_catalog.count(*) OVER () AS of"
																	" FROM crm.coupon_grant AS g LEFT JOIN crm.coupon AS c ON c.name = g.coupon"
																	" WHERE (" IN_PERIOD("g.issued_at") ") OR (" IN_PERIOD(
																		"g.redeemed_at") ")"
																						 " GROUP BY g.coupon, c.label ORDER BY 2 DESC, g.coupon" FIRST_20),
	TREND("awards"),
	END,
};

/* ---------- data quality ---------- */

static CrmReportPart quality[] = {
	TABLE(
		"What to know of the numbers above", "",
		"SELECT v.name AS \"What\", v.n AS \"How many\", v.meaning AS \"What it means\" FROM (VALUES"
		" (1, 'Facts that came more than a day late',"
		"  (SELECT pg_catalog.count(*) FROM (SELECT t.occurred_at, t.recorded_at FROM crm.transaction AS t"
		"    UNION ALL SELECT e.occurred_at, e.recorded_at FROM crm.event AS e"
		"    UNION ALL SELECT s.occurred_at, s.recorded_at FROM crm.scan AS s) AS f"
		"   WHERE " IN_PERIOD(
			"f.occurred_at") " AND f.recorded_at > f.occurred_at + '1 day'::interval),"
							 "  'They count on their day; an earlier report did not have them, and they moved nobody in a journey.'),"
							 " (2, 'Scans without a code', (SELECT pg_catalog.count(*) FROM crm.scan AS s"
							 "   WHERE " IN_PERIOD(
								 "s.occurred_at") " AND NOT EXISTS (SELECT FROM crm.qr_code AS q WHERE q.qr_code_id = s.qr_code_id)),"
												  "  'Their code was deleted: they belong to no shop and no campaign.'),"
												  " (3, 'Orders without a shop', (SELECT pg_catalog.count(*) FROM crm.transaction AS t"
												  "   WHERE t.kind = 'purchase' AND " IN_PERIOD(
													  "t.occurred_at") " AND t.store_id IS NULL),"
																	   "  'They count, but for no shop.'),"
																	   " (4, 'Orders in another currency', (SELECT pg_catalog.count(*) FROM crm.transaction AS t"
																	   "   WHERE t.kind = 'purchase' AND " IN_PERIOD(
																		   "t.occurred_at") " AND t.currency <> crm.default_currency()),"
																							"  'They count as orders, and add nothing to what a contact spent.'),"
																							" (5, 'New contacts of whom no mobile is known', (SELECT pg_catalog.count(*) FROM crm.contact AS c"
																							"   WHERE " IN_PERIOD(
																								"c.created_at") " AND c.mobile IS NULL),"
																												"  'Known by an identifier of a platform only.'),"
																												" (6, 'Contacts merged', (SELECT pg_catalog.count(*) FROM crm.merge_ledger AS m"
																												"   WHERE " IN_PERIOD(
																													"m.merged_at") " AND m.unmerged_at IS NULL),"
																																   "  'Two that were one; their facts count for the one that stayed.'),"
																																   " (7, 'Rules that failed', (SELECT pg_catalog.count(DISTINCT (r.object_kind, r.object)) FROM crm.rule_error AS r"
																																   "   WHERE " IN_PERIOD(
																																	   "r.first_at") "),"
																																					 "  'Where a rule fails it counts as false: crm.rule_error lists them.'),"
																																					 " (8, 'Enrolments that do not go on, now', (SELECT pg_catalog.count(*) FROM crm.stuck AS s WHERE s.enrolment_id IS NOT NULL),"
																																					 "  'crm.stuck says why.'),"
																																					 " (9, 'Messages of which nobody knows whether they arrived, now', (SELECT pg_catalog.count(*) FROM crm.message_unknown),"
																																					 "  'crm.resolve_message() settles them.')"
																																					 ") AS v(place, name, n, meaning) ORDER BY v.place"),
	TABLE(
		"Rules that failed in the period", "no rule failed",
		"SELECT r.object_kind AS \"Of\", r.object AS \"Name\", pg_catalog.string_agg(DISTINCT r.sqlstate, ', ') AS \"SQLSTATE\","
		" pg_catalog.count(DISTINCT r.contact_id) AS \"Contacts\", pg_catalog.sum(r.times) AS \"Times\","
		" pg_catalog.count(*) OVER () AS of"
		" FROM crm.rule_error AS r WHERE " IN_PERIOD(
			"r.first_at") " GROUP BY r.object_kind, r.object ORDER BY 4 DESC, 1, 2" FIRST_20),
	END,
};

static CrmReportSection sections[] = {
	{ "glance", "At a glance", glance },
	{ "stages", "Stages", stages },
	{ "contacts", "Contacts", contacts },
	{ "scans", "Scans and codes", scans },
	{ "orders", "Orders", orders },
	{ "journeys", "Journeys", journeys },
	{ "maps", "Maps of the customers' journey", maps },
	{ "messages", "Messages", messages },
	{ "campaigns", "Campaigns", campaigns },
	{ "loyalty", "Loyalty", loyalty },
	{ "quality", "Data quality", quality },
};

CrmReportSection *
crm_report_sections(int *n)
{
	*n = lengthof(sections);
	return sections;
}
