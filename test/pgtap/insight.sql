-- views against plain recounts, and pictures at their limits
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET search_path = public, pg_catalog;
SET TimeZone = 'UTC';
SET pg_crm.clock = '2024-06-30 20:00+08';
SELECT no_plan();

-- 60 people who order, follow and pay back at any hour of 2024-01 to 2024-06
INSERT INTO crm.account (account_id, kind, name) VALUES (1, 'official_account', 'maison');
INSERT INTO crm.contact (contact_id, created_at)
SELECT n, '2024-01-01 00:00+08'::timestamptz + n * interval '37 hours' FROM generate_series(1, 60) AS n;
INSERT INTO crm.event (contact_id, kind, occurred_at, account_id)
SELECT n, CASE k WHEN 1 THEN 'unfollow' ELSE 'follow' END, '2024-02-01 00:00+08'::timestamptz + (n * 7 + k * 331) * interval '1 hour', 1
  FROM generate_series(1, 60) AS n, generate_series(0, 2) AS k WHERE n % 3 = k OR n % 5 = 0;
INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref)
SELECT n, 20 + n + k, '2024-03-01 00:00+08'::timestamptz + (n * 13 + k * 191) * interval '1 hour', k
  FROM generate_series(1, 40) AS n, generate_series(1, 8) AS k WHERE k <= n % 9;
INSERT INTO crm.transaction (contact_id, kind, amount, occurred_at, refund_of)
SELECT contact_id, 'refund', amount, occurred_at + interval '3 days', transaction_id
  FROM crm.transaction WHERE contact_id % 4 = 0 AND external_ref IN ('1', '5');

-- stages
SELECT is((SELECT sum(contacts) FROM crm.lifecycle_funnel), 60::numeric, 'the funnel holds everybody');
SELECT is((SELECT count(*) FROM crm.lifecycle_funnel), 8::bigint, 'and every stage, also empty ones');
SELECT results_eq('SELECT stage FROM crm.lifecycle_funnel',
    $$VALUES ('user'), ('lead'), ('qualified_lead'), ('opportunity'), ('intent'), ('paying'), ('loyal'), ('other')$$,
    'in order of rank');
SELECT set_eq('SELECT stage, contacts FROM crm.lifecycle_funnel WHERE contacts > 0',
    'SELECT stage, count(*) FROM crm.contact GROUP BY stage', 'its numbers are those of crm.contact');
SELECT set_eq('SELECT stage, contacts FROM crm.lifecycle_funnel WHERE contacts > 0',
    'SELECT stage, count(*) FROM crm.stage_history WHERE until IS NULL GROUP BY stage', 'and of the open rows of the history');
SELECT is_empty('SELECT contact_id FROM crm.stage_history GROUP BY contact_id HAVING count(*) FILTER (WHERE until IS NULL) <> 1',
    'one open row each');
SELECT set_eq($$SELECT day, stage, contacts FROM crm.stage_daily$$,
    $$SELECT d.day::date, s.stage, count(h.contact_id)
        FROM generate_series('2024-01-01'::timestamp, '2024-06-30', '1 day') AS d(day)
       CROSS JOIN crm.stage AS s
        LEFT JOIN crm.stage_history AS h ON h.stage = s.stage
             AND h.since < ((d.day + interval '1 day') AT TIME ZONE 'Asia/Shanghai')
             AND (h.until IS NULL OR h.until >= ((d.day + interval '1 day') AT TIME ZONE 'Asia/Shanghai'))
       WHERE d.day >= (SELECT min(since) AT TIME ZONE 'Asia/Shanghai' FROM crm.stage_history)::date
       GROUP BY 1, 2$$, 'stage_daily equals a count of contacts × days');
SET pg_crm.time_zone = 'America/New_York';
SELECT set_eq($$SELECT day, stage, contacts FROM crm.stage_daily WHERE day = '2024-04-10'$$,
    $$SELECT '2024-04-10'::date, s.stage, count(h.contact_id)
        FROM crm.stage AS s LEFT JOIN crm.stage_history AS h ON h.stage = s.stage
             AND h.since < '2024-04-11 00:00-04' AND (h.until IS NULL OR h.until >= '2024-04-11 00:00-04')
       GROUP BY 2$$, 'days are those of pg_crm.time_zone');
RESET pg_crm.time_zone;
SELECT set_eq($$SELECT stage, contacts FROM crm.stage_daily WHERE day = '2024-06-30'$$,
    'SELECT stage, contacts FROM crm.lifecycle_funnel', 'today is the funnel');
SET pg_crm.clock = '2024-03-10 20:00+08';
SELECT is((SELECT max(day) FROM crm.stage_daily), '2024-03-10'::date, 'the last day is today');
SET pg_crm.clock = '2024-06-30 20:00+08';

-- achievements
SELECT is((SELECT count(*) FROM crm.achievement_timeline), 60 * 16::bigint, 'a line for each contact, achievement and threshold');
SELECT set_eq('SELECT contact_id, achievement, threshold, awarded_at FROM crm.achievement_timeline WHERE awarded_at IS NOT NULL',
    'SELECT contact_id, achievement, threshold, awarded_at FROM crm.award WHERE revoked_at IS NULL', 'awarded where an award holds');
SELECT cmp_ok((SELECT count(*) FROM crm.award WHERE revoked_at IS NOT NULL), '>', 0::bigint, 'some were taken back');
SELECT set_eq('SELECT DISTINCT contact_id, started_at FROM crm.achievement_timeline',
    'SELECT contact_id, min(since) FROM crm.stage_history GROUP BY contact_id', 'started_at is the start of the history');
SELECT set_eq($$SELECT contact_id, occurred_at, kind, source_id FROM crm.contact_timeline WHERE source_table = 'transaction'$$,
    'SELECT contact_id, occurred_at, kind, transaction_id FROM crm.transaction', 'every order and refund is on the timeline');
SELECT set_eq($$SELECT contact_id, occurred_at, kind, source_id FROM crm.contact_timeline WHERE source_table = 'event'$$,
    'SELECT contact_id, occurred_at, kind, event_id FROM crm.event', 'and every event');
SELECT is((SELECT count(*) FROM crm.contact_timeline WHERE kind = 'award'), (SELECT count(*) FROM crm.award), 'and every award');
SELECT is((SELECT count(*) FROM crm.contact_timeline WHERE kind ~ '^award_'), (SELECT count(*) FROM crm.award_change), 'and its changes');
SELECT is((SELECT count(*) FROM crm.contact_timeline WHERE kind = 'stage'), (SELECT count(*) FROM crm.stage_move), 'and stages');

-- one contact's rows are found by index
CREATE FUNCTION pg_temp.seq_scans(query text) RETURNS setof text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
        IF line ~ 'Seq Scan' AND line !~ 'Seq Scan on (achievement|stage) ' THEN RETURN NEXT line; END IF;
    END LOOP;
END $$;
SET LOCAL enable_seqscan = off;
SELECT is_empty(format('SELECT pg_temp.seq_scans(%L)', 'SELECT * FROM crm.' || v || ' WHERE contact_id = 7'),
    v || ' finds a contact''s rows by index')
  FROM unnest('{stage_history,achievement_timeline,contact_timeline}'::text[]) AS v;
SET LOCAL enable_seqscan = on;

-- pictures
CREATE FUNCTION pg_temp.parts(svg text, path text) RETURNS text[] LANGUAGE sql AS $$
SELECT xpath(path, svg::xml, ARRAY[ARRAY['s', 'http://www.w3.org/2000/svg']])::text[] $$;
CREATE TEMP TABLE picture AS SELECT contact_id, crm.timeline_svg(contact_id) AS svg FROM crm.contact;
SELECT ok(bool_and(xml_is_well_formed_document(svg)), 'pictures are well-formed') FROM picture;
SELECT is_empty($$SELECT p.contact_id FROM picture AS p JOIN crm.award AS w ON w.contact_id = p.contact_id AND w.revoked_at IS NULL
    GROUP BY p.contact_id, p.svg HAVING cardinality(pg_temp.parts(p.svg, '//s:circle')) <> count(*)$$,
    'one mark for each award that holds');
SELECT is(cardinality(pg_temp.parts(svg, '//s:line[@class="crm-empty"]')) + cardinality(pg_temp.parts(svg, '//s:circle')),
    16, 'one line for each achievement of contact ' || contact_id) FROM picture WHERE contact_id IN (1, 8, 39);
SELECT is(pg_temp.parts(svg, '/s:svg/s:title/text()'), '{Achievements of contact 8}', 'a title for screen readers') FROM picture WHERE contact_id = 8;
SELECT is(pg_temp.parts(svg, '/s:svg/@viewBox'), ARRAY['0 0 960 ' || (pg_temp.parts(svg, '/s:svg/@height'))[1]], 'the view box is the size') FROM picture WHERE contact_id = 8;

-- the axis over spans from seconds to millennia
CREATE FUNCTION pg_temp.ticks_after(span text) RETURNS text[] LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('pg_crm.clock', (timestamptz '2024-01-01 00:00+08' + span::interval)::text, false);
    RETURN pg_temp.parts(crm.timeline_svg(1000), '//s:text[@text-anchor="middle"]/text()');
END $$;
INSERT INTO crm.contact (contact_id, created_at) VALUES (1000, '2024-01-01 00:00+08');
SELECT is(pg_temp.ticks_after(span), ticks, span || ' of history')
  FROM (VALUES ('0 s', '{}'::text[]),
               ('4 s', '{00:00:00,00:00:01,00:00:02,00:00:03,00:00:04}'),
               ('50 s', '{00:00:00,00:00:10,00:00:20,00:00:30,00:00:40,00:00:50}'),
               ('25 min', '{00:00,00:05,00:10,00:15,00:20,00:25}'),
               ('9 h', '{00:00,01:00,02:00,03:00,04:00,05:00,06:00,07:00,08:00,09:00}'),
               ('2 days', '{01-01 00:00,01-01 12:00,01-02 00:00,01-02 12:00,01-03 00:00}'),
               ('5 days', '{2024-01-01,2024-01-02,2024-01-03,2024-01-04,2024-01-05,2024-01-06}'),
               ('40 days', '{2024-01-01,2024-01-08,2024-01-15,2024-01-22,2024-01-29,2024-02-05}'),
               ('7 months', '{2024-01,2024-02,2024-03,2024-04,2024-05,2024-06,2024-07,2024-08}'),
               ('3 years', '{2024-01,2024-07,2025-01,2025-07,2026-01,2026-07,2027-01}'),
               ('8 years', '{2024,2025,2026,2027,2028,2029,2030,2031,2032}'),
               ('900 years', '{2100,2200,2300,2400,2500,2600,2700,2800,2900}')) AS t(span, ticks);
SELECT ok(xml_is_well_formed_document(crm.timeline_svg(1000)), 'a clock before the creation')
  FROM (SELECT set_config('pg_crm.clock', '2023-01-01 00:00+08', false) OFFSET 0) AS clock;

-- a night on which clocks are put back has no label twice
SET pg_crm.time_zone = 'Europe/Paris';
SET pg_crm.clock = '2024-10-27 06:00+01';
INSERT INTO crm.contact (contact_id, created_at) VALUES (1002, '2024-10-26 20:00+02');
SELECT is(pg_temp.parts(crm.timeline_svg(1002), '//s:text[@text-anchor="middle"]/text()'),
    '{20:00,21:00,22:00,23:00,00:00,01:00,02:00,03:00,04:00,05:00,06:00}', 'the night on which clocks go back');
RESET pg_crm.time_zone;

-- 60 lines, among them ugly labels; all gained at one moment
SET pg_crm.clock = '2024-06-30 20:00+08';
DELETE FROM crm.achievement;
INSERT INTO crm.achievement (name, on_kind, thresholds, label)
SELECT 'a' || n, 'purchase', CASE WHEN n = 57 THEN '{1,2,3,4}' ELSE '{1}'::numeric[] END,
       CASE n WHEN 1 THEN E'<b a="x()">&\x01\x1f\x7f\n\t\'' || U&'\FFFE' || '</b>'
              WHEN 2 THEN repeat('购', 100) WHEN 3 THEN repeat('W', 100) WHEN 4 THEN '' WHEN 5 THEN NULL
              WHEN 6 THEN repeat('i', 100) WHEN 57 THEN 'many' ELSE 'label ' || n END
  FROM generate_series(1, 57) AS n;
INSERT INTO crm.contact (contact_id, created_at) VALUES (1003, '2024-01-01 00:00+08');
INSERT INTO crm.award (contact_id, achievement, threshold, awarded_at, recorded_at)
SELECT 1003, name, 1, '2024-06-01 00:00+08', '2024-06-01 00:00+08' FROM crm.achievement WHERE name <> 'a57';
CREATE TEMP TABLE crowd AS SELECT crm.timeline_svg(1003) AS svg;
SELECT ok(xml_is_well_formed_document(svg), 'ugly labels, well-formed') FROM crowd;
SELECT is(cardinality(pg_temp.parts(svg, '//s:circle')), 56, 'a mark each') FROM crowd;
SELECT is((SELECT count(DISTINCT y) FROM unnest(pg_temp.parts(svg, '//s:circle/@cy')) AS y), 56::bigint,
    'on a line of its own') FROM crowd;
SELECT is((SELECT count(DISTINCT x) FROM unnest(pg_temp.parts(svg, '//s:circle/@cx')) AS x), 1::bigint,
    'at one moment') FROM crowd;
SELECT is((SELECT min(d) FROM (SELECT y::numeric - lag(y::numeric) OVER (ORDER BY y::numeric) AS d
                                 FROM unnest(pg_temp.parts(svg, '//s:text[@x="24.0"]/@y')) AS y) AS g),
    20.0, 'texts on the left are never closer than their height') FROM crowd;
SELECT is((SELECT count(*) FROM unnest(pg_temp.parts(svg, '//s:text/text()')) AS t WHERE t LIKE '%…'), 3::bigint,
    'labels that are too long are cut') FROM crowd;
SELECT is((SELECT length(t) FROM unnest(pg_temp.parts(svg, '//s:text/text()')) AS t WHERE t ~ '^购'), 16,
    'Chinese characters count as wide as they are') FROM crowd;
SELECT ok('{a4,a5}' <@ pg_temp.parts(svg, '//s:text/text()'), 'without a label the name') FROM crowd;
SELECT ok('{many 1,many 4}' <@ pg_temp.parts(svg, '//s:text/text()'), 'several thresholds are told apart') FROM crowd;
SELECT ok(svg LIKE '%>&lt;b a=&quot;x()&quot;&gt;&amp;&#65533;&#65533;&#65533;  &#39;&#65533;&lt;/b&gt;<%',
    'a label cannot break out') FROM crowd;

-- times without limits
INSERT INTO crm.contact (contact_id) VALUES (1004);
DELETE FROM crm.stage_move WHERE contact_id = 1004;
INSERT INTO crm.stage_move VALUES (1004, '-infinity', 'user', 'opening');
SELECT ok(xml_is_well_formed_document(crm.timeline_svg(1004)), 'a history since for ever');

-- who was merged is redirected; others are not there
INSERT INTO crm.merge_ledger (contact_id, other, merged_at, survivor_before, other_before, moved)
VALUES (2001, 2002, now(), '{}', '{}', '{}'), (1000, 2001, now(), '{}', '{}', '{}');
SELECT is(crm.timeline_svg(2002), crm.timeline_svg(1000), 'through two merges');
UPDATE crm.merge_ledger SET unmerged_at = now() WHERE other = 2001;
SELECT throws_ok('SELECT crm.timeline_svg(2002)', '23503', 'contact 2002 does not exist', 'not through one that was undone');
SELECT throws_ok('SELECT crm.timeline_svg(NULL)', '22004', NULL, 'NULL');
SELECT finish();
ROLLBACK;
