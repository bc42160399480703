-- views and pictures of a few people, as they come out
\pset null -
SET client_min_messages = warning;
SET TimeZone = 'UTC';
SELECT crm.install();
SET pg_crm.clock = '2024-03-04 12:00+08';

INSERT INTO crm.account (account_id, kind, name, time_zone)
VALUES (1, 'official_account', 'maison', 'Europe/Paris'), (2, 'mini_program', 'shop', NULL);
INSERT INTO crm.store (store_id, name) VALUES (5, 'Nanjing Road');
INSERT INTO crm.qr_code (qr_code_id, account_id, scene, campaign, store_id)
VALUES (1, 1, 'banner', 'spring', NULL), (2, 2, 'till', NULL, 5);
INSERT INTO crm.contact (contact_id, created_at, mobile)
VALUES (1, '2024-03-01 10:00+08', '13800138000'), (2, '2024-03-02 23:59:59+08', NULL), (3, '2024-03-04 12:00+08', NULL);
INSERT INTO crm.event (contact_id, kind, occurred_at, account_id, properties)
VALUES (1, 'follow', '2024-03-01 12:00+08', 1, '{"scene": "banner", "mobile": "+8613800138000"}'),
       (1, 'form', '2024-03-01 13:00+08', NULL, '{"size": 42}');
-- 06:30 in Shanghai is the evening before in Paris
INSERT INTO crm.scan (contact_id, qr_code_id, occurred_at)
VALUES (1, 1, '2024-03-01 12:00+08'), (1, 1, '2024-03-02 06:30+08'), (2, 1, '2024-03-03 06:30+08'), (2, 2, '2024-03-03 06:30+08');
INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref, store_id)
VALUES (1, 60, '2024-03-02 00:00+08', 'A1', 5), (1, 60, '2024-03-03 00:00+08', 'A2', NULL);

SELECT contact_id, since, until, stage, reason FROM crm.stage_history ORDER BY contact_id, since;
SELECT * FROM crm.lifecycle_funnel;
SELECT * FROM crm.stage_daily WHERE contacts > 0 ORDER BY day, stage;
SELECT * FROM crm.achievement_timeline WHERE contact_id = 1 ORDER BY awarded_at, achievement, threshold;
SELECT occurred_at, kind, source_table, detail FROM crm.contact_timeline WHERE contact_id = 1
 ORDER BY occurred_at, source_table, detail::text;
SELECT * FROM crm.scan_count ORDER BY qr_code_id, day;

-- a picture in full
DELETE FROM crm.achievement WHERE name IN ('spend_milestone', 'purchase_milestone', 'join_loyalty');
\t on
\a
SELECT crm.timeline_svg(1);
\t off
\a

-- who is asked for
SELECT crm.timeline_svg(4);
SELECT crm.timeline_svg(NULL);

-- a role without rights gets nothing
CREATE ROLE crm_test_nobody;
GRANT USAGE ON SCHEMA crm TO crm_test_nobody;
SET ROLE crm_test_nobody;
SELECT crm.timeline_svg(1);
SELECT * FROM crm.contact_timeline;
RESET ROLE;
REVOKE USAGE ON SCHEMA crm FROM crm_test_nobody;
DROP ROLE crm_test_nobody;

-- every view and every column of a view has a comment
SELECT c.relname, a.attname
  FROM pg_class AS c LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
 WHERE c.relnamespace = 'crm'::regnamespace AND c.relkind = 'v' AND c.relname <> 'profile'
   AND (obj_description(c.oid, 'pg_class') IS NULL OR col_description(c.oid, a.attnum) IS NULL);
