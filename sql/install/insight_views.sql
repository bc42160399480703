-- insight: what analysts read; every view is of plain SQL over the tables

CREATE OR REPLACE VIEW crm.stage_history AS
SELECT m.contact_id, m.since,
       pg_catalog.lead(m.since) OVER (PARTITION BY m.contact_id ORDER BY m.since) AS until,
       m.stage, m.reason
  FROM crm.stage_move AS m;
COMMENT ON VIEW crm.stage_history IS 'The stages of each contact, without gap or overlap.';
COMMENT ON COLUMN crm.stage_history.contact_id IS 'The contact.';
COMMENT ON COLUMN crm.stage_history.since IS 'When the contact came to this stage.';
COMMENT ON COLUMN crm.stage_history.until IS 'When the contact left it, the since of the next row; NULL in the last row.';
COMMENT ON COLUMN crm.stage_history.stage IS 'The stage.';
COMMENT ON COLUMN crm.stage_history.reason IS 'Why: opening, rule, or manual with the reason given.';

-- FULL JOIN: the sum is the number of contacts even where a stage was deleted
CREATE OR REPLACE VIEW crm.lifecycle_funnel AS
SELECT COALESCE(s.stage, p.stage) AS stage, s.rank, COALESCE(p.contacts, 0) AS contacts
  FROM crm.stage AS s
  FULL JOIN (SELECT c.stage, pg_catalog.count(*) AS contacts
               FROM crm.profile_counter AS c
              GROUP BY c.stage) AS p ON p.stage = s.stage
 ORDER BY s.rank, COALESCE(s.stage, p.stage);
COMMENT ON VIEW crm.lifecycle_funnel IS 'How many contacts are in each stage now; stages without contacts too, in order of rank.';
COMMENT ON COLUMN crm.lifecycle_funnel.stage IS 'The stage.';
COMMENT ON COLUMN crm.lifecycle_funnel.rank IS 'Its place in the ranking; NULL outside it.';
COMMENT ON COLUMN crm.lifecycle_funnel.contacts IS 'Contacts that are in this stage.';

-- A move adds one to its stage on the day it begins and takes one away on the
-- day it ends; the running sum of that over the days is the number of contacts.
CREATE OR REPLACE VIEW crm.stage_daily AS
WITH zone AS (
	SELECT crm.default_time_zone() AS name
), change AS (
	SELECT (pg_catalog.timezone((SELECT z.name FROM zone AS z), c.at))::date AS day, h.stage,
	       pg_catalog.sum(c.step) AS step
	  FROM crm.stage_history AS h
	 CROSS JOIN LATERAL (VALUES (h.since, 1), (h.until, -1)) AS c(at, step)
	 WHERE pg_catalog.isfinite(h.since) AND pg_catalog.isfinite(c.at)
	 GROUP BY 1, 2
), days AS (
	SELECT d.day::date AS day
	  FROM pg_catalog.generate_series(
	           (SELECT pg_catalog.min(c.day) FROM change AS c)::timestamp,
	           (pg_catalog.timezone((SELECT z.name FROM zone AS z), crm.now()))::date::timestamp,
	           '1 day'::interval) AS d(day)
), stages AS (
	SELECT s.stage FROM crm.stage AS s
	UNION
	SELECT c.stage FROM change AS c
)
SELECT d.day, s.stage,
       (pg_catalog.sum(COALESCE(c.step, 0)) OVER (PARTITION BY s.stage ORDER BY d.day))::bigint AS contacts
  FROM days AS d
 CROSS JOIN stages AS s
  LEFT JOIN change AS c ON c.day = d.day AND c.stage = s.stage;
COMMENT ON VIEW crm.stage_daily IS 'How many contacts were in each stage at the end of each day in the time zone pg_crm.time_zone, from the first day of any history to today.';
COMMENT ON COLUMN crm.stage_daily.day IS 'The day.';
COMMENT ON COLUMN crm.stage_daily.stage IS 'The stage; every stage has a row on every day.';
COMMENT ON COLUMN crm.stage_daily.contacts IS 'Contacts that were in this stage at the end of the day, of today at the moment.';

-- The second part lists awards whose definition has gone or changed.
CREATE OR REPLACE VIEW crm.achievement_timeline AS
SELECT c.contact_id, a.name AS achievement, t.threshold,
       COALESCE(h.since, c.created_at) AS started_at, w.awarded_at
  FROM crm.contact AS c
 CROSS JOIN LATERAL (SELECT pg_catalog.min(m.since) AS since
                       FROM crm.stage_move AS m
                      WHERE m.contact_id = c.contact_id) AS h
 CROSS JOIN crm.achievement AS a
 CROSS JOIN LATERAL pg_catalog.unnest(a.thresholds) AS t(threshold)
  LEFT JOIN crm.award AS w ON w.contact_id = c.contact_id AND w.achievement = a.name
                          AND w.threshold = t.threshold AND w.revoked_at IS NULL
UNION ALL
SELECT w.contact_id, w.achievement, w.threshold, COALESCE(h.since, c.created_at), w.awarded_at
  FROM crm.award AS w
  JOIN crm.contact AS c ON c.contact_id = w.contact_id
 CROSS JOIN LATERAL (SELECT pg_catalog.min(m.since) AS since
                       FROM crm.stage_move AS m
                      WHERE m.contact_id = c.contact_id) AS h
 WHERE w.revoked_at IS NULL
   AND NOT EXISTS (SELECT FROM crm.achievement AS a
                    CROSS JOIN LATERAL pg_catalog.unnest(a.thresholds) AS t(threshold)
                    WHERE a.name = w.achievement AND t.threshold = w.threshold);
COMMENT ON VIEW crm.achievement_timeline IS 'One line for each contact, achievement and threshold: when the timeline starts and when it was awarded.';
COMMENT ON COLUMN crm.achievement_timeline.contact_id IS 'The contact.';
COMMENT ON COLUMN crm.achievement_timeline.achievement IS 'Name of the achievement.';
COMMENT ON COLUMN crm.achievement_timeline.threshold IS 'The threshold.';
COMMENT ON COLUMN crm.achievement_timeline.started_at IS 'Start of the contact''s timeline: creation or the earliest fact.';
COMMENT ON COLUMN crm.achievement_timeline.awarded_at IS 'When the contact gained it; NULL while not, or no longer, awarded.';

CREATE OR REPLACE VIEW crm.contact_timeline AS
SELECT t.contact_id, t.occurred_at, t.kind, 'transaction'::text AS source_table, t.transaction_id AS source_id,
       pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
           'amount', t.amount, 'currency', t.currency, 'external_ref', t.external_ref,
           'refund_of', t.refund_of, 'store_id', t.store_id,
           'store', (SELECT s.name FROM crm.store AS s WHERE s.store_id = t.store_id))) AS detail
  FROM crm.transaction AS t
UNION ALL
SELECT e.contact_id, e.occurred_at, e.kind, 'event', e.event_id,
       pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
           'account', (SELECT a.name FROM crm.account AS a WHERE a.account_id = e.account_id)))
       || CASE pg_catalog.jsonb_typeof(e.properties) WHEN 'object' THEN e.properties - 'mobile' ELSE '{}' END
  FROM crm.event AS e
UNION ALL
SELECT s.contact_id, s.occurred_at, 'scan', 'scan', s.scan_id,
       pg_catalog.jsonb_build_object('qr_code_id', s.qr_code_id)
       || COALESCE((SELECT pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
                               'scene', q.scene, 'campaign', q.campaign, 'store_id', q.store_id))
                      FROM crm.qr_code AS q WHERE q.qr_code_id = s.qr_code_id), '{}')
  FROM crm.scan AS s
UNION ALL
SELECT g.contact_id, g.occurred_at, 'scan_flag', 'scan_flag', g.scan_id,
       pg_catalog.jsonb_build_object('scan_limit', g.scan_limit)
  FROM crm.scan_flag AS g
UNION ALL
SELECT w.contact_id, w.awarded_at, 'award', 'award', w.source_id,
       pg_catalog.jsonb_build_object('achievement', w.achievement, 'threshold', w.threshold)
  FROM crm.award AS w
UNION ALL
SELECT x.contact_id, x.occurred_at, 'award_' || x.change, 'award_change', x.award_change_id,
       pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
           'achievement', x.achievement, 'threshold', x.threshold,
           'old_awarded_at', x.old_awarded_at, 'new_awarded_at', x.new_awarded_at))
  FROM crm.award_change AS x
UNION ALL
SELECT m.contact_id, m.since, 'stage', 'stage_move', NULL::bigint,
       pg_catalog.jsonb_build_object('stage', m.stage, 'reason', m.reason)
  FROM crm.stage_move AS m
UNION ALL
SELECT p.contact_id, p.occurred_at, 'points_' || p.kind, 'point_entry', p.point_entry_id,
       pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
           'program', (SELECT l.name FROM crm.loyalty_program AS l WHERE l.loyalty_program_id = p.loyalty_program_id),
           'points', p.points, 'earning_rule', p.earning_rule, 'source_table', p.source_table,
           'source_id', p.source_id, 'reason', p.reason, 'cause_id', p.cause_id))
  FROM crm.point_entry AS p
UNION ALL
SELECT t.contact_id, t.occurred_at, 'tier', 'tier_change', t.tier_change_id,
       pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
           'program', (SELECT l.name FROM crm.loyalty_program AS l WHERE l.loyalty_program_id = t.loyalty_program_id),
           'old_tier', t.old_tier, 'new_tier', t.new_tier, 'reason', t.reason))
  FROM crm.tier_change AS t
UNION ALL
SELECT g.contact_id, g.occurred_at, 'segment_' || g.change, 'segment_change', g.segment_change_id,
       pg_catalog.jsonb_build_object('segment', g.segment, 'cause', g.cause)
  FROM crm.segment_change AS g
UNION ALL
SELECT l.contact_id, l.merged_at, 'merge', 'merge_ledger', l.merge_id,
       pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('other', l.other, 'reason', l.reason))
  FROM crm.merge_ledger AS l
UNION ALL
SELECT l.contact_id, l.unmerged_at, 'unmerge', 'merge_ledger', l.merge_id,
       pg_catalog.jsonb_build_object('other', l.other)
  FROM crm.merge_ledger AS l
 WHERE l.unmerged_at IS NOT NULL
UNION ALL
SELECT m.contact_id, COALESCE(m.sent_at, m.ended_at, m.tried_at, m.due_at), 'message_' || m.state, 'message', m.message_id,
       pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
           'template', m.template, 'template_version', m.template_version, 'class', m.class, 'reason', m.reason,
           'account', (SELECT a.name FROM crm.account AS a WHERE a.account_id = m.account_id)))
  FROM crm.message AS m;
COMMENT ON VIEW crm.contact_timeline IS 'Everything that happened to a contact, facts and what followed from them; read it for one contact_id, sorted by occurred_at.';
COMMENT ON COLUMN crm.contact_timeline.contact_id IS 'The contact.';
COMMENT ON COLUMN crm.contact_timeline.occurred_at IS 'When it happened.';
COMMENT ON COLUMN crm.contact_timeline.kind IS 'purchase, refund, scan, scan_flag, the kind of an event, award, award_moved, award_revoked, award_regranted, stage, points_earned, points_spent, points_reversed, tier, segment_entered, segment_left, merge, unmerge, or message_ with the state of a message.';
COMMENT ON COLUMN crm.contact_timeline.source_table IS 'Table of schema crm that holds the row.';
COMMENT ON COLUMN crm.contact_timeline.source_id IS 'Id of the row in that table; for an award the id of the fact that gained it; NULL for a stage.';
COMMENT ON COLUMN crm.contact_timeline.detail IS 'What the row says, one jsonb object, without mobile numbers that the extension recorded.';

CREATE OR REPLACE VIEW crm.scan_count AS
SELECT n.qr_code_id, q.campaign, q.store_id, q.associate_id, n.day, pg_catalog.sum(n.scans)::bigint AS scans,
       pg_catalog.sum(n.counted)::bigint AS counted, pg_catalog.sum(n.flagged)::bigint AS flagged
  FROM (SELECT s.qr_code_id,
               (pg_catalog.timezone(COALESCE(a.time_zone, crm.default_time_zone()), s.occurred_at))::date AS day,
               pg_catalog.count(*) AS scans, pg_catalog.count(f.scan_id) AS counted, pg_catalog.count(g.scan_id) AS flagged
          FROM crm.scan AS s
          LEFT JOIN crm.qr_code AS c ON c.qr_code_id = s.qr_code_id
          LEFT JOIN crm.account AS a ON a.account_id = c.account_id
          LEFT JOIN (SELECT DISTINCT c.contact_id, c.scan_id FROM crm.first_scan AS c) AS f
               ON f.contact_id = s.contact_id AND f.scan_id = s.scan_id
          LEFT JOIN (SELECT DISTINCT c.contact_id, c.scan_id FROM crm.scan_flag AS c) AS g
               ON g.contact_id = s.contact_id AND g.scan_id = s.scan_id
         GROUP BY 1, 2
        UNION ALL
        -- what retention has dropped
        SELECT o.qr_code_id, o.day, o.scans, 0, 0 FROM crm.opening_scan AS o) AS n
  LEFT JOIN crm.qr_code AS q ON q.qr_code_id = n.qr_code_id
 GROUP BY 1, 2, 3, 4, 5;
COMMENT ON VIEW crm.scan_count IS 'Scans of each code and day, all and those that count.';
COMMENT ON COLUMN crm.scan_count.qr_code_id IS 'The code.';
COMMENT ON COLUMN crm.scan_count.campaign IS 'Campaign the code belongs to.';
COMMENT ON COLUMN crm.scan_count.store_id IS 'Shop where the code hangs.';
COMMENT ON COLUMN crm.scan_count.associate_id IS 'Sales associate whose code it is.';
COMMENT ON COLUMN crm.scan_count.day IS 'Day in the time zone of the code''s account, else pg_crm.time_zone.';
COMMENT ON COLUMN crm.scan_count.scans IS 'Scans on that day.';
COMMENT ON COLUMN crm.scan_count.counted IS 'Those of them that count (crm.first_scan).';
COMMENT ON COLUMN crm.scan_count.flagged IS 'Those of them that came faster than a limit allows (crm.scan_flag).';

-- an order refunded in full counts nowhere, so not here either
CREATE OR REPLACE VIEW crm.scan_purchase AS
SELECT s.contact_id, s.scan_id, s.qr_code_id, q.store_id, s.occurred_at, o.transaction_id,
       o.occurred_at AS purchased_at, o.amount, s.occurred_at - o.occurred_at AS elapsed
  FROM crm.scan AS s
  JOIN crm.qr_code AS q ON q.qr_code_id = s.qr_code_id
 CROSS JOIN LATERAL (
       SELECT t.transaction_id, t.occurred_at, t.amount
         FROM crm.transaction AS t
        WHERE t.contact_id = s.contact_id AND t.store_id = q.store_id AND t.kind = 'purchase'
          AND t.occurred_at <= s.occurred_at
          AND (t.amount = 0 OR t.amount > (SELECT COALESCE(pg_catalog.sum(r.amount), 0)
                                             FROM crm.transaction AS r
                                            WHERE r.contact_id = t.contact_id AND r.kind = 'refund'
                                              AND r.refund_of = t.transaction_id))
        ORDER BY t.occurred_at DESC, t.transaction_id DESC
        LIMIT 1) AS o;
COMMENT ON VIEW crm.scan_purchase IS 'The last purchase of the contact at the code''s store before each scan; scans without one are left out. For those within a day: WHERE elapsed <= interval ''1 day''.';
COMMENT ON COLUMN crm.scan_purchase.contact_id IS 'Who scanned and bought.';
COMMENT ON COLUMN crm.scan_purchase.scan_id IS 'The scan.';
COMMENT ON COLUMN crm.scan_purchase.qr_code_id IS 'The code.';
COMMENT ON COLUMN crm.scan_purchase.store_id IS 'The shop.';
COMMENT ON COLUMN crm.scan_purchase.occurred_at IS 'When it was scanned.';
COMMENT ON COLUMN crm.scan_purchase.transaction_id IS 'The purchase, at the time of the scan or before; not one refunded in full.';
COMMENT ON COLUMN crm.scan_purchase.purchased_at IS 'When it was bought.';
COMMENT ON COLUMN crm.scan_purchase.amount IS 'Amount of the purchase.';
COMMENT ON COLUMN crm.scan_purchase.elapsed IS 'Time from the purchase to the scan.';

CREATE OR REPLACE VIEW crm.message_outcome AS
SELECT m.template, m.template_version, m.channel, m.class, m.state, m.reason,
       (pg_catalog.timezone(crm.default_time_zone(), m.due_at))::date AS day, pg_catalog.count(*) AS messages
  FROM crm.message AS m
 GROUP BY 1, 2, 3, 4, 5, 6, 7;
COMMENT ON VIEW crm.message_outcome IS 'What became of messages, by template and the day on which they were due.';
COMMENT ON COLUMN crm.message_outcome.template IS 'The template.';
COMMENT ON COLUMN crm.message_outcome.template_version IS 'Its version.';
COMMENT ON COLUMN crm.message_outcome.channel IS 'The channel.';
COMMENT ON COLUMN crm.message_outcome.class IS 'service or marketing.';
COMMENT ON COLUMN crm.message_outcome.state IS 'State, as in crm.message.';
COMMENT ON COLUMN crm.message_outcome.reason IS 'Why.';
COMMENT ON COLUMN crm.message_outcome.day IS 'Day in pg_crm.time_zone on which they were due.';
COMMENT ON COLUMN crm.message_outcome.messages IS 'How many.';
