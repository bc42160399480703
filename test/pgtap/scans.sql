-- Scans: windows, scopes, late ones, codes that change, marks, the purchase before, and by what a
-- contact was won.
BEGIN;
SET client_min_messages = error;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET pg_crm.clock = '2024-12-01 12:00Z';
SELECT no_plan();

-- windows
SELECT is(crm.scan_window_start(at, length::interval, valid_from, zone), start,
          format('%s from %s in %s: %s', length, coalesce(valid_from::text, '1970'), zone, at))
  FROM (VALUES
    ('2024-05-01 12:34:56.5Z'::timestamptz, NULL, NULL::timestamptz, 'UTC', '-infinity'::timestamptz),
    ('2024-05-01 12:34:56.5Z', '5 seconds', NULL, 'UTC', '2024-05-01 12:34:55Z'),
    ('2024-05-01 12:34:56.5Z', '5 seconds', '2024-05-01 00:00:02Z', 'UTC', '2024-05-01 12:34:52Z'),
    ('2024-05-01 12:34:55Z', '5 seconds', NULL, 'UTC', '2024-05-01 12:34:55Z'),
    ('1969-12-31 23:59:59Z', '10 seconds', NULL, 'UTC', '1969-12-31 23:59:50Z'),
    ('1969-12-31 23:59:50Z', '10 seconds', NULL, 'UTC', '1969-12-31 23:59:50Z'),
    -- six hours of Shanghai begin at its midnight
    ('2024-05-01 10:00:00Z', '6 hours', NULL, 'Asia/Shanghai', '2024-05-01 10:00Z'),
    ('2024-05-01 09:59:59Z', '6 hours', NULL, 'Asia/Shanghai', '2024-05-01 04:00Z'),
    -- a day of Shanghai
    ('2024-05-01 15:59:59.999999Z', '1 day', NULL, 'Asia/Shanghai', '2024-04-30 16:00Z'),
    ('2024-05-01 16:00Z', '1 day', NULL, 'Asia/Shanghai', '2024-05-01 16:00Z'),
    -- days of 23 and 25 hours in New York
    ('2024-03-11 03:59:59Z', '1 day', NULL, 'America/New_York', '2024-03-10 05:00Z'),
    ('2024-03-11 04:00Z', '1 day', NULL, 'America/New_York', '2024-03-11 04:00Z'),
    ('2024-11-04 04:59:59Z', '1 day', NULL, 'America/New_York', '2024-11-03 04:00Z'),
    ('2024-11-04 05:00Z', '1 day', NULL, 'America/New_York', '2024-11-04 05:00Z'),
    -- 24 hours are 24 hours
    ('2024-07-01 04:59:59Z', '24 hours', NULL, 'America/New_York', '2024-06-30 05:00Z'),
    ('2024-07-01 05:00Z', '24 hours', NULL, 'America/New_York', '2024-07-01 05:00Z'),
    -- a bound at 02:30, which is left out on that day, comes at 03:30
    ('2024-03-10 07:15Z', '1 day', '2024-01-01 07:30Z', 'America/New_York', '2024-03-09 07:30Z'),
    ('2024-03-10 07:30Z', '1 day', '2024-01-01 07:30Z', 'America/New_York', '2024-03-10 07:30Z'),
    ('2024-03-11 06:29:59Z', '1 day', '2024-01-01 07:30Z', 'America/New_York', '2024-03-10 07:30Z'),
    ('2024-03-11 06:30Z', '1 day', '2024-01-01 07:30Z', 'America/New_York', '2024-03-11 06:30Z'),
    -- a bound at 01:30, which comes twice, is the second
    ('2024-11-03 05:45Z', '1 day', '2024-01-01 06:30Z', 'America/New_York', '2024-11-02 05:30Z'),
    ('2024-11-03 06:29:59Z', '1 day', '2024-01-01 06:30Z', 'America/New_York', '2024-11-02 05:30Z'),
    ('2024-11-03 06:30Z', '1 day', '2024-01-01 06:30Z', 'America/New_York', '2024-11-03 06:30Z'),
    -- months from a 31st
    ('2024-02-28 23:59Z', '1 month', '2024-01-31 00:00Z', 'UTC', '2024-01-31 00:00Z'),
    ('2024-02-29 00:00Z', '1 month', '2024-01-31 00:00Z', 'UTC', '2024-02-29 00:00Z'),
    ('2024-03-30 23:59Z', '1 month', '2024-01-31 00:00Z', 'UTC', '2024-02-29 00:00Z'),
    ('2024-03-31 00:00Z', '1 month', '2024-01-31 00:00Z', 'UTC', '2024-03-31 00:00Z'),
    ('2024-04-30 12:00Z', '1 month', '2024-01-31 00:00Z', 'UTC', '2024-04-30 00:00Z'),
    ('2023-12-31 00:00Z', '1 month', '2024-01-31 00:00Z', 'UTC', '2023-12-31 00:00Z'),
    ('2023-12-30 00:00Z', '1 month', '2024-01-31 00:00Z', 'UTC', '2023-11-30 00:00Z'),
    ('2024-05-15 00:00Z', '3 months', NULL, 'Asia/Shanghai', '2024-03-31 16:00Z'),
    ('2024-05-15 00:00Z', '1 year', NULL, 'Asia/Shanghai', '2023-12-31 16:00Z'),
    -- weeks begin on a Thursday, as 1970 did
    ('2024-05-01 00:00Z', '1 week', NULL, 'UTC', '2024-04-25 00:00Z'),
    ('2024-05-01 00:00Z', '1 week', '2024-04-29 00:00Z', 'UTC', '2024-04-29 00:00Z'),
    ('2024-05-02 11:59Z', '36 hours', '2024-04-30 00:00Z', 'UTC', '2024-05-01 12:00Z'),
    ('2024-05-02 11:59Z', '1 day 12 hours', '2024-04-30 00:00Z', 'UTC', '2024-05-01 12:00Z'),
    -- Samoa left out December 30th, 2011: two bounds at one instant
    ('2011-12-30 21:59:59Z', '1 day', '2011-12-01 22:00Z', 'Pacific/Apia', '2011-12-29 22:00Z'),
    ('2011-12-30 22:00Z', '1 day', '2011-12-01 22:00Z', 'Pacific/Apia', '2011-12-30 22:00Z'),
    ('2011-12-31 22:00Z', '1 day', '2011-12-01 22:00Z', 'Pacific/Apia', '2011-12-31 22:00Z'),
    -- where time ends
    ('4714-11-24 00:00:05Z BC', '10 days', '2024-01-07Z', 'UTC', '-infinity'),
    ('4714-11-24 00:00:05Z BC', '7 seconds', '294276-12-31Z', 'UTC', '-infinity'),
    ('2024-05-01 00:00Z', '1 day', '-infinity', 'UTC', '2024-05-01 00:00Z'),
    ('infinity', '1 day', NULL, 'UTC', '-infinity')
  ) AS t(at, length, valid_from, zone, start);
SELECT is(crm.scan_window_start('2024-05-01 12:00Z', '1 day'), '2024-04-30 16:00Z', 'without a zone it is that of pg_crm.time_zone');
SELECT is(crm.scan_window_start(NULL, '1 day'), NULL, 'no time, no window');
SET TimeZone = 'America/New_York';
SET IntervalStyle = 'iso_8601';
SELECT is(crm.scan_window_start('2024-05-01 15:59Z', '1 day', NULL, 'Asia/Shanghai'), '2024-04-30 16:00Z', 'the session''s own zone does not matter');
RESET TimeZone;
RESET IntervalStyle;
SELECT throws_ok(format('SELECT crm.scan_window_start(now(), %L, NULL, %L)', length, zone), e, NULL, length || ' ' || zone)
  FROM (VALUES ('0 seconds', 'UTC', '22023'), ('-1 day', 'UTC', '22023'), ('1 month 1 day', 'UTC', '22023'), ('1 day', 'Mars/Olympus', '22023'),
               ('2000000000 days', 'UTC', '22008')) AS t(length, zone, e);

-- every instant is in one window, and the start of a window is in it
SELECT is_empty($$
    SELECT z, w, at FROM unnest(ARRAY['America/New_York', 'Asia/Shanghai', 'Australia/Lord_Howe', 'Africa/Cairo', 'America/Havana']) AS z,
           unnest(ARRAY['1 day', '3 days', '1 week', '1 month', '5 months', '1 day 01:00', '45 minutes']::interval[]) AS w,
           generate_series('2023-12-30Z'::timestamptz, '2024-12-01Z', '7 hours 13 minutes') AS at,
           LATERAL (SELECT crm.scan_window_start(at, w, '2022-10-31 06:30:00.5Z', z) AS start) s
     WHERE start > at OR crm.scan_window_start(start, w, '2022-10-31 06:30:00.5Z', z) <> start
        OR crm.scan_window_start(start - interval '1 microsecond', w, '2022-10-31 06:30:00.5Z', z) >= start$$,
    'windows follow each other without gap or overlap');

-- definitions
INSERT INTO crm.account (account_id, kind, name, time_zone) VALUES (1, 'official_account', 'sh', 'Asia/Shanghai'), (2, 'official_account', 'ny', 'America/New_York');
INSERT INTO crm.store (store_id, name) VALUES (1, 'Bund'), (2, 'Soho');
INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2024-01-01Z' FROM generate_series(1, 30) AS n;
INSERT INTO crm.identity (kind, account_id, external_id, contact_id) SELECT 'openid', 1, 'o' || n, n FROM generate_series(1, 30) AS n;
PREPARE code(jsonb) AS SELECT crm.define_qr_code($1);
SELECT throws_ok(format('EXECUTE code(%L)', '{"account": "sh", "scene": "x", ' || d || '}'), e, m, d)
  FROM (VALUES
    ('"dedup_scope": "store"', '23514', 'dedup_scope "store" of a code without a store'),
    ('"dedup_scope": "campaign"', '23514', 'dedup_scope "campaign" of a code without a campaign'),
    ('"dedup_scope": "campaign", "campaign": ""', '23514', NULL),
    ('"dedup_scope": "planet"', '23514', NULL),
    ('"dedup_window": "0 seconds"', '23514', 'dedup_window 00:00:00 is not above 0'),
    ('"dedup_window": "-1 day"', '23514', NULL),
    ('"dedup_window": "1 day -1 hour"', '23514', NULL),
    ('"dedup_window": "1 month 1 day"', '23514', 'dedup_window 1 mon 1 day mixes months with days'),
    ('"dedup_window": "101 years"', '23514', NULL),
    ('"dedup_window": "soon"', '22007', NULL),
    ('"campaign": "' || repeat('c', 256) || '"', '22001', NULL)
  ) AS t(d, e, m);
SELECT throws_ok($$INSERT INTO crm.account (kind, name, time_zone) VALUES ('sms', 'x', 'Mars/Olympus')$$, '22023', NULL, 'a time zone that is none');
SELECT throws_ok($$UPDATE crm.account SET time_zone = '' WHERE account_id = 1$$, '22023', NULL, 'an empty one');

-- scopes, by scan()
SELECT crm.define_qr_code(d) FROM (VALUES
    ('{"account": "sh", "scene": "c1", "store_id": 1, "campaign": "spring"}'::jsonb),
    ('{"account": "sh", "scene": "k1", "store_id": 1, "campaign": "spring", "dedup_scope": "campaign"}'),
    ('{"account": "sh", "scene": "k2", "store_id": 2, "campaign": "spring", "dedup_scope": "campaign"}'),
    ('{"account": "sh", "scene": "s1", "store_id": 1, "dedup_scope": "store"}'),
    ('{"account": "sh", "scene": "s2", "store_id": 1, "campaign": "autumn", "dedup_scope": "store"}'),
    ('{"account": "sh", "scene": "d1", "associate_id": 7, "dedup_window": "1 day"}'),
    ('{"account": "sh", "scene": "ended", "valid_from": "2024-02-01 00:00Z", "valid_until": "2024-03-01 00:00Z"}')) AS t(d) \g /dev/null
CREATE FUNCTION pg_temp.first(scene text, external_id text, at timestamptz) RETURNS boolean LANGUAGE sql AS $$SELECT is_first FROM crm.scan(scene, 'sh', external_id, at)$$;
SELECT is(pg_temp.first(scene, 'o1', at), first, format('%s at %s', scene, at))
  FROM (VALUES
    ('c1', '2024-05-01 00:00Z'::timestamptz, true), ('c1', '2024-05-02 00:00Z', false),
    ('k1', '2024-05-01 00:00Z', true), ('k2', '2024-05-01 00:00:01Z', false), ('k2', '2024-04-01Z', true),
    ('s1', '2024-05-01 00:00Z', true), ('s2', '2024-05-01 00:00Z', false),
    ('d1', '2024-05-01 00:00Z', true), ('d1', '2024-05-01 15:59:59Z', false), ('d1', '2024-05-01 16:00Z', true), ('qrscene_d1', '2024-05-02 16:00Z', true)
  ) AS t(scene, at, first);
SELECT is(pg_temp.first('k1', 'o2', '2024-05-01 00:00Z'), true, 'another contact in the same second counts too');
SELECT results_eq($$SELECT scope, scope_id, window_start, occurred_at FROM crm.first_scan WHERE contact_id = 1 ORDER BY scope, scope_id, window_start$$,
    $$VALUES ('campaign', 'spring', '-infinity'::timestamptz, '2024-04-01Z'::timestamptz),
             ('code', (SELECT qr_code_id::text FROM crm.qr_code WHERE scene = 'c1'), '-infinity', '2024-05-01Z'),
             ('code', (SELECT qr_code_id::text FROM crm.qr_code WHERE scene = 'd1'), '2024-04-30 16:00Z', '2024-05-01Z'),
             ('code', (SELECT qr_code_id::text FROM crm.qr_code WHERE scene = 'd1'), '2024-05-01 16:00Z', '2024-05-01 16:00Z'),
             ('code', (SELECT qr_code_id::text FROM crm.qr_code WHERE scene = 'd1'), '2024-05-02 16:00Z', '2024-05-02 16:00Z'),
             ('store', '1', '-infinity', '2024-05-01Z')$$, 'what counts, and under what');
SELECT is((SELECT (scans, raw_scans)::text FROM crm.profile_counter WHERE contact_id = 1), '(6,11)', 'in the profile too');
SELECT results_eq($$SELECT scene, day, scans, counted, c.associate_id FROM crm.scan_count c JOIN crm.qr_code USING (qr_code_id) WHERE scene IN ('k1', 'k2', 'd1') ORDER BY 1, 2$$,
    $$VALUES ('d1', '2024-05-01'::date, 2::bigint, 1::bigint, 7::bigint), ('d1', '2024-05-02', 1, 1, 7), ('d1', '2024-05-03', 1, 1, 7),
             ('k1', '2024-05-01', 2, 1, NULL), ('k2', '2024-04-01', 1, 1, NULL), ('k2', '2024-05-01', 1, 0, NULL)$$, 'raw and counted, by code and day');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- codes that are not valid
SELECT throws_ok(format($$SELECT crm.scan('ended', 'sh', 'o1', %L)$$, at), '23514', NULL, 'scanned at ' || at)
  FROM (VALUES ('2024-01-31 23:59:59Z'), ('2024-03-01 00:00Z')) AS t(at);
SELECT is(pg_temp.first('ended', 'o1', '2024-02-01 00:00Z'), true, 'valid from the first moment');
SELECT is(crm.follow('sh', 'o30', '2024-03-01 00:00Z', 'qrscene_ended'), 30::bigint, 'a follow by a code that has ended is kept');
SELECT is((SELECT (raw_scans, events)::text FROM crm.profile_counter WHERE contact_id = 30), '(0,1)', 'without a scan');
SELECT is((SELECT (source, qr_code_id, account_id)::text FROM crm.acquisition WHERE contact_id = 30), '(follow,,1)', 'and won nobody');

-- replays
SELECT array_agg(DISTINCT (s.contact_id, s.scan_id, s.is_first)::text) AS answers FROM generate_series(1, 3) AS n, LATERAL crm.scan('d1', 'sh', 'o' || (3 + 0 * n), '2024-05-01Z', 'key') AS s \gset
SELECT is(:'answers'::text[], (SELECT array_agg((3, scan_id, true)::text) FROM crm.scan WHERE contact_id = 3), 'a replay gives the first answer');
SELECT throws_ok($$SELECT crm.scan('c1', 'sh', 'o3', '2024-05-01Z', 'key')$$, '23505', NULL, 'another code under the key does not');

-- rows of one statement, in no order, and rows that come late
INSERT INTO crm.scan (contact_id, qr_code_id, occurred_at)
SELECT 4, qr_code_id, at FROM crm.qr_code, unnest(ARRAY['2024-05-03 03:00Z', '2024-05-03 01:00Z', '2024-05-03 02:00Z', '2024-05-04 01:00Z']::timestamptz[]) AS at WHERE scene = 'd1';
SELECT set_eq('SELECT occurred_at FROM crm.first_scan WHERE contact_id = 4', ARRAY['2024-05-03 01:00Z', '2024-05-04 01:00Z']::timestamptz[], 'the earliest of each window');
INSERT INTO crm.scan (contact_id, qr_code_id, occurred_at) SELECT 4, qr_code_id, '2024-05-02 16:00Z' FROM crm.qr_code WHERE scene = 'd1';
SELECT set_eq('SELECT occurred_at FROM crm.first_scan WHERE contact_id = 4', ARRAY['2024-05-02 16:00Z', '2024-05-04 01:00Z']::timestamptz[], 'a late one takes the window over');
SELECT throws_ok('INSERT INTO crm.scan (contact_id, qr_code_id) VALUES (4, 999)', '23503', 'QR code 999 does not exist', 'a code that is none');

-- codes that change: their scans are counted anew
SELECT is((SELECT scans FROM crm.profile_counter WHERE contact_id = 4), 2::bigint, 'two days');
SELECT crm.define_qr_code('{"account": "sh", "scene": "d1", "associate_id": 7, "dedup_window": "1 hour"}') \g /dev/null
SELECT is((SELECT scans FROM crm.profile_counter WHERE contact_id = 4), 5::bigint, 'five hours');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound by the hour');
SELECT crm.define_qr_code('{"account": "sh", "scene": "d1", "associate_id": 7, "dedup_window": "1 day", "valid_from": "2024-05-02 02:30Z"}') \g /dev/null
SELECT set_eq('SELECT occurred_at FROM crm.first_scan WHERE contact_id = 4', ARRAY['2024-05-02 16:00Z', '2024-05-03 03:00Z']::timestamptz[], 'from half past ten');
UPDATE crm.qr_code SET dedup_window = '24 hours', valid_from = NULL WHERE scene = 'd1';
UPDATE crm.account SET time_zone = 'America/New_York' WHERE account_id = 1;
SELECT set_eq('SELECT window_start FROM crm.first_scan WHERE contact_id = 4', ARRAY['2024-05-02 05:00Z', '2024-05-03 05:00Z']::timestamptz[], '24 hours of another zone');
UPDATE crm.qr_code SET dedup_window = '1 day' WHERE scene = 'd1';
SELECT set_eq('SELECT window_start FROM crm.first_scan WHERE contact_id = 4', ARRAY['2024-05-02 04:00Z', '2024-05-03 04:00Z']::timestamptz[], 'which a day is not');
UPDATE crm.account SET time_zone = 'Asia/Shanghai' WHERE account_id = 1;
SELECT is_empty('SELECT * FROM crm.verify()', 'sound again');
UPDATE crm.qr_code SET campaign = 'summer' WHERE scene = 'k2';
SELECT set_eq($$SELECT scope_id, occurred_at FROM crm.first_scan WHERE contact_id = 1 AND scope = 'campaign'$$,
    $$VALUES ('spring', '2024-05-01Z'::timestamptz), ('summer', '2024-04-01Z')$$, 'in another campaign');
UPDATE crm.qr_code SET store_id = 2 WHERE scene = 's2';
SELECT set_eq($$SELECT scope_id FROM crm.first_scan WHERE contact_id = 1 AND scope = 'store'$$, ARRAY['1', '2'], 'in another store');
UPDATE crm.qr_code SET dedup_scope = 'code' WHERE scene LIKE 's_';
SELECT is((SELECT count(*) FROM crm.first_scan WHERE contact_id = 1 AND scope = 'store'), 0::bigint, 'by code');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound each time');
SELECT throws_ok($$DELETE FROM crm.qr_code WHERE scene = 'd1'$$, '23503', NULL, 'a code with scans is not deleted');
SELECT throws_ok($$UPDATE crm.qr_code SET qr_code_id = 999 WHERE scene = 'd1'$$, '23503', NULL, 'nor renumbered');
SELECT throws_ok('TRUNCATE crm.qr_code', '42501', NULL, 'nor truncated');
INSERT INTO crm.qr_code (account_id, scene) VALUES (1, 'unused');
SELECT lives_ok($$DELETE FROM crm.qr_code WHERE scene = 'unused'$$, 'one without is');

-- merging counts anew, parting too
INSERT INTO crm.scan (contact_id, qr_code_id, occurred_at)
SELECT c, qr_code_id, at FROM crm.qr_code, (VALUES (5, '2024-05-03 03:00Z'::timestamptz), (5, '2024-05-05 03:00Z'), (6, '2024-05-03 02:00Z'), (6, '2024-05-04 02:00Z')) AS v(c, at) WHERE scene = 'd1';
SELECT is((SELECT array_agg((contact_id, source, occurred_at AT TIME ZONE 'UTC')::text ORDER BY contact_id) FROM crm.acquisition WHERE contact_id IN (5, 6)),
    '{"(5,scan,\"2024-05-03 03:00:00\")","(6,scan,\"2024-05-03 02:00:00\")"}', 'each was won by the first scan');
SELECT jsonb_agg(to_jsonb(a) ORDER BY contact_id) AS won FROM crm.acquisition a WHERE contact_id IN (5, 6) \gset
SELECT is(crm.merge(5, 6), 5::bigint, 'merged');
SELECT set_eq('SELECT occurred_at FROM crm.first_scan WHERE contact_id = 5', ARRAY['2024-05-03 02:00Z', '2024-05-04 02:00Z', '2024-05-05 03:00Z']::timestamptz[], 'three days together');
SELECT is((SELECT occurred_at FROM crm.acquisition WHERE contact_id = 5), '2024-05-03 02:00Z', 'the earlier source is kept');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound together');
SELECT is(crm.unmerge(6), 6::bigint, 'parted');
SELECT set_eq('SELECT contact_id, occurred_at FROM crm.first_scan WHERE contact_id IN (5, 6)',
    $$VALUES (5::bigint, '2024-05-03 03:00Z'::timestamptz), (5, '2024-05-05 03:00Z'), (6, '2024-05-03 02:00Z'), (6, '2024-05-04 02:00Z')$$, 'two days each');
SELECT is((SELECT jsonb_agg(to_jsonb(a) ORDER BY contact_id) FROM crm.acquisition a WHERE contact_id IN (5, 6)), :'won'::jsonb, 'and each has the source it had');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound apart');
-- who had no source gets it from the other, and gives it back; what came meanwhile is then the own one
SELECT is((SELECT count(*) FROM crm.acquisition WHERE contact_id = 7), 0::bigint, 'not won yet');
SELECT crm.merge(7, 8) \g /dev/null
INSERT INTO crm.scan (contact_id, qr_code_id, occurred_at) SELECT 7, qr_code_id, '2024-05-03 02:00Z' FROM crm.qr_code WHERE scene = 'c1';
SELECT crm.unmerge(8) \g /dev/null
SELECT is((SELECT array_agg(contact_id) FROM crm.acquisition WHERE contact_id IN (7, 8)), '{7}', 'a source of after the merge is the survivor''s');
SELECT crm.merge(8, 30) \g /dev/null
SELECT is((SELECT array_agg(contact_id) FROM crm.acquisition WHERE contact_id IN (8, 30)), '{8}', 'the only source is the survivor''s');
SELECT crm.unmerge(30) \g /dev/null
SELECT is((SELECT array_agg(contact_id) FROM crm.acquisition WHERE contact_id IN (8, 30)), '{30}', 'and the other''s again');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- by what a contact was won
SELECT throws_ok($$INSERT INTO crm.acquisition (contact_id, source, occurred_at) VALUES (987654, 'fair', '2024-01-01')$$, '23503', NULL, 'a source is somebody''s');
SELECT is((SELECT (source, q.scene, a.campaign, a.store_id)::text FROM crm.acquisition a JOIN crm.qr_code q USING (qr_code_id) WHERE contact_id = 1), '(scan,c1,spring,1)', 'by the first scan');
SELECT crm.follow('sh', 'o10', '2024-05-01Z', 'k1') \g /dev/null
SELECT is((SELECT (source, q.scene, a.campaign, a.account_id)::text FROM crm.acquisition a JOIN crm.qr_code q USING (qr_code_id) WHERE contact_id = 10), '(follow,k1,spring,1)', 'by a follow, with its code');
SELECT crm.follow('ny', 'new', '2024-05-01Z') AS new \gset
SELECT is((SELECT (source, qr_code_id, account_id)::text FROM crm.acquisition WHERE contact_id = :new), '(follow,,2)', 'by a follow from nowhere');
SELECT jsonb_agg(to_jsonb(a) ORDER BY contact_id) AS won FROM crm.acquisition a \gset
SELECT pg_temp.first('c1', 'o10', '2024-04-01Z') \g /dev/null
INSERT INTO crm.event (contact_id, kind, account_id, occurred_at) VALUES (1, 'follow', 1, '2024-01-01Z');
UPDATE crm.qr_code SET campaign = 'another' WHERE scene = 'c1';
SELECT is((SELECT jsonb_agg(to_jsonb(a) ORDER BY contact_id) FROM crm.acquisition a), :'won'::jsonb, 'what comes later changes nothing, nor if it happened earlier');
SELECT throws_ok('UPDATE crm.acquisition SET campaign = NULL', '42501', NULL, 'nobody changes a source');
SELECT throws_ok('DELETE FROM crm.acquisition', '42501', NULL, 'or deletes it');
SELECT lives_ok($$INSERT INTO crm.acquisition (contact_id, source, occurred_at) VALUES (11, 'fair', '2020-01-01Z')$$, 'the brand may know better');
SELECT pg_temp.first('c1', 'o11', '2024-04-01Z') \g /dev/null
SELECT is((SELECT source FROM crm.acquisition WHERE contact_id = 11), 'fair', 'and is not contradicted');
INSERT INTO crm.scan (contact_id, qr_code_id, occurred_at) SELECT 12, qr_code_id, CASE scene WHEN 'k1' THEN '2024-05-02Z'::timestamptz ELSE '2024-05-01Z' END FROM crm.qr_code WHERE scene IN ('k1', 'k2');
SELECT is((SELECT campaign FROM crm.acquisition WHERE contact_id = 12), 'summer', 'of one statement the earliest');

-- marks
SELECT is(crm.define_scan_limit('{"name": "fast", "max_scans": 2, "period": "1 minute"}'), 1, 'a limit');
PREPARE lim(jsonb) AS SELECT crm.define_scan_limit($1);
SELECT throws_ok(format('EXECUTE lim(%L)', d), e, NULL, d)
  FROM (VALUES ('{"name": "x", "max_scans": 0, "period": "1 minute"}', '23514'), ('{"name": "x", "max_scans": 100000, "period": "1 minute"}', '23514'),
    ('{"name": "x", "max_scans": 1, "period": "0"}', '23514'), ('{"name": "x", "max_scans": 1, "period": "1 month"}', '23514'),
    ('{"name": "x", "max_scans": 1, "period": "200 years"}', '23514'), ('{"name": "x", "max_scans": 1}', '22004'),
    ('{"name": "x", "max_scans": 1, "period": "1 day", "per": ["device"]}', '23514'), ('{"name": "x", "max_scans": 1, "period": "1 day", "per": []}', '23514'),
    ('{"name": "", "max_scans": 1, "period": "1 day"}', '23514'), ('{"name": "x", "max_scans": 1, "period": "1 day", "colour": 1}', '22023')) AS t(d, e);
CREATE FUNCTION pg_temp.marked(contact bigint) RETURNS text LANGUAGE sql AS
$$SELECT coalesce(string_agg(scan_limit || ' ' || to_char(occurred_at AT TIME ZONE 'UTC', 'MI:SS'), ', ' ORDER BY scan_limit, occurred_at), 'none') FROM crm.scan_flag WHERE contact_id = $1$$;
SELECT pg_temp.first('c1', 'o20', '2024-06-01Z'::timestamptz + n * interval '1 second') FROM unnest(ARRAY[0, 30, 60, 89, 90]) AS n \g /dev/null
SELECT is(pg_temp.marked(20), 'fast 01:29, fast 01:30', 'the third within a minute; what is a minute ago is not within it');
SELECT pg_temp.first('k1', 'o20', '2024-06-01 00:00:35Z') \g /dev/null
SELECT is(pg_temp.marked(20), 'fast 00:35, fast 01:00, fast 01:29, fast 01:30', 'a late one is one more for those after it, whatever the code');
SELECT is((SELECT raw_scans FROM crm.profile_counter WHERE contact_id = 20), 6::bigint, 'all are stored');
SELECT is((SELECT array_agg((scans, counted, flagged)::text) FROM crm.scan_count JOIN crm.qr_code USING (qr_code_id) WHERE scene = 'c1' AND day = '2024-06-01'), '{"(5,1,3)"}', 'and can be left out');
SELECT is((SELECT count(*) FROM crm.contact_timeline WHERE contact_id = 20 AND kind = 'scan_flag'), 4::bigint, 'the timeline shows them');
SELECT is(crm.define_scan_limit('{"name": "fast", "max_scans": 2, "period": "1 minute", "per": ["contact", "code"]}'), 2, 'the same for each code');
SELECT is(pg_temp.marked(20), 'fast 01:29, fast 01:30', 'another definition marks anew');
SELECT is(crm.define_scan_limit('{"name": "crowd", "max_scans": 3, "period": "10 seconds", "per": ["code"]}'), 1, 'one for all who scan a code');
SELECT is(crm.define_scan_limit('{"name": "shop", "max_scans": 4, "period": "10 seconds", "per": ["store"]}'), 1, 'one for a store');
SELECT is(crm.define_scan_limit('{"name": "mine", "max_scans": 1, "period": "1 day", "per": ["contact", "store"]}'), 1, 'one for a contact in a store');
SELECT pg_temp.first(CASE WHEN n < 25 THEN 'c1' ELSE 'k1' END, 'o' || n, '2024-07-01Z'::timestamptz + (n - 20) * interval '1 second') FROM generate_series(21, 27) AS n \g /dev/null
SELECT is((SELECT string_agg(scan_limit || ' ' || contact_id, ', ' ORDER BY scan_limit, contact_id) FROM crm.scan_flag WHERE contact_id BETWEEN 21 AND 27), 'crowd 24, shop 25, shop 26, shop 27', 'whoever they are');
SELECT pg_temp.first('k1', 'o28', '2024-07-01Z'::timestamptz + interval '1 second') \g /dev/null
SELECT is((SELECT string_agg(scan_limit || ' ' || contact_id, ', ' ORDER BY scan_limit, contact_id) FROM crm.scan_flag WHERE contact_id BETWEEN 21 AND 28), 'crowd 24, crowd 27, shop 24, shop 25, shop 26, shop 27', 'a late one marks scans of others');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
-- the marks follow a merge: two contacts with one scan each in a store in a day are one with two
SELECT is(pg_temp.marked(23) || ', ' || pg_temp.marked(24), 'none, crowd 00:04, shop 00:04', 'two contacts');
SELECT crm.merge(23, 24) \g /dev/null
SELECT is(pg_temp.marked(23), 'crowd 00:04, mine 00:04, shop 00:04', 'are one');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
SELECT crm.unmerge(24) \g /dev/null
SELECT is(pg_temp.marked(23) || ', ' || pg_temp.marked(24), 'none, crowd 00:04, shop 00:04', 'and two');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
UPDATE crm.qr_code SET store_id = 2 WHERE scene = 'k1';
SELECT is((SELECT count(*) FROM crm.scan_flag WHERE scan_limit = 'shop' AND contact_id BETWEEN 21 AND 28), 0::bigint, 'in another store they are not together');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
DELETE FROM crm.scan_limit WHERE name = 'crowd';
SELECT is((SELECT count(*) FROM crm.scan_flag WHERE scan_limit = 'crowd'), 0::bigint, 'without its limit a mark goes');
SELECT is((SELECT count(*) FROM crm.definition_log WHERE table_name = 'scan_limit'), 6::bigint, 'limits are logged');
-- verify() sees what does not belong there
DELETE FROM crm.scan_flag WHERE contact_id = 20;
INSERT INTO crm.scan_flag (contact_id, scan_id, scan_limit, occurred_at) SELECT contact_id, scan_id, 'shop', occurred_at FROM crm.scan WHERE contact_id = 21;
UPDATE crm.first_scan SET window_start = window_start - interval '1 day' WHERE contact_id = 4 AND occurred_at = '2024-05-02 16:00Z';
SELECT set_eq('SELECT DISTINCT check_name, contact_id FROM crm.verify()', $$VALUES ('scan_flag fast', 20::bigint), ('scan_flag mine', 20), ('scan_flag shop', 21), ('first_scan', 4)$$, 'verify() lists what is wrong');
SELECT crm.recompute() \g /dev/null
SELECT is_empty('SELECT * FROM crm.verify()', 'recompute() mends it');
TRUNCATE crm.scan_limit;
SELECT is((SELECT count(*) FROM crm.scan_flag), 0::bigint, 'no limits, no marks');

-- the purchase before a scan at the same store
SELECT is_empty('SELECT * FROM crm.scan_purchase WHERE contact_id = 20', 'nothing bought');
SELECT crm.purchase(20, 10, '2024-05-31 23:00Z', 'a', 1), crm.purchase(20, 20, '2024-05-31 23:30Z', 'b', 2), crm.purchase(20, 30, '2024-06-01 00:01Z', 'c', 1), crm.purchase(20, 0, '2024-05-31 01:00Z', 'd', 1), crm.purchase(20, 5, '2024-05-31 23:40Z', 'e') \g /dev/null
CREATE FUNCTION pg_temp.tied(within interval DEFAULT '1 year') RETURNS text LANGUAGE sql AS
$$SELECT string_agg(to_char(p.occurred_at AT TIME ZONE 'UTC', 'MI:SS ') || t.external_ref, ', ' ORDER BY p.occurred_at)
    FROM crm.scan_purchase p JOIN crm.transaction t USING (contact_id, transaction_id) JOIN crm.qr_code q USING (qr_code_id) WHERE p.contact_id = 20 AND scene = 'c1' AND elapsed <= within$$;
SELECT is(pg_temp.tied(), '00:00 a, 00:30 a, 01:00 c, 01:29 c, 01:30 c', 'the last one before, at the code''s store');
SELECT is(pg_temp.tied('30 seconds'), '01:00 c, 01:29 c, 01:30 c', 'within a time');
SELECT crm.purchase(20, 10, '2024-06-01 00:00:10Z', 'late', 1) \g /dev/null
SELECT is(pg_temp.tied(), '00:00 a, 00:30 late, 01:00 c, 01:29 c, 01:30 c', 'an order that comes late takes its place');
SELECT crm.refund(20, 'c', 30, '2024-06-02Z'), crm.refund(20, 'a', 5, '2024-06-02Z') \g /dev/null
SELECT is(pg_temp.tied(), '00:00 a, 00:30 late, 01:00 late, 01:29 late, 01:30 late', 'one refunded in full is none');
SELECT crm.refund(20, 'a', 5, '2024-06-03Z') \g /dev/null
SELECT is(pg_temp.tied(), '00:00 d, 00:30 late, 01:00 late, 01:29 late, 01:30 late', 'one of 0 is one');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- a scan that comes in time is counted without reading what its contact did before
CREATE FUNCTION pg_temp.reads() RETURNS bigint LANGUAGE sql AS
$$SELECT sum(coalesce(seq_scan, 0) + coalesce(idx_scan, 0)) FROM pg_stat_xact_user_tables WHERE schemaname = 'crm' AND relname ~ '^(scan_(default|\d)|event_|transaction)'$$;
CREATE FUNCTION pg_temp.reads_of(contacts bigint[], scene text, times timestamptz[]) RETURNS boolean LANGUAGE plpgsql AS
$$DECLARE
	before bigint := pg_temp.reads();
BEGIN
	INSERT INTO crm.scan (contact_id, qr_code_id, occurred_at)
	SELECT c, q.qr_code_id, t FROM unnest(contacts) AS c, unnest(times) AS t, crm.qr_code AS q WHERE q.scene = $2;
	RETURN pg_temp.reads() > before;
END$$;
INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2024-01-01Z' FROM generate_series(60, 63) AS n;
SELECT is(pg_temp.reads_of('{60,61}', 'd1', ARRAY(SELECT '2024-06-10Z'::timestamptz + n * interval '1 hour' FROM generate_series(1, 30) AS n)), false, 'scans that come in time');
SELECT results_eq('SELECT contact_id, scans, raw_scans FROM crm.profile_counter WHERE contact_id IN (60, 61) ORDER BY 1', 'VALUES (60::bigint, 2::bigint, 30::bigint), (61, 2, 30)', 'are counted by days');
SELECT is(pg_temp.reads_of('{60}', 'd1', '{2024-06-11 20:00Z}'), false, 'so is a new day');
SELECT is(pg_temp.reads_of('{60}', 'd1', '{2024-06-11 21:00Z}'), false, 'and one that repeats');
SELECT is(pg_temp.reads_of('{60}', 'd1', '{2024-06-10 00:30Z}'), true, 'a late one is not');
SELECT set_eq('SELECT occurred_at FROM crm.first_scan WHERE contact_id = 60', ARRAY['2024-06-10 00:30Z', '2024-06-10 16:00Z', '2024-06-11 20:00Z']::timestamptz[], 'and takes its day over');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
-- a row that stands in the way: all is counted again
INSERT INTO crm.first_scan (contact_id, scope, scope_id, window_start, scan_id, occurred_at)
SELECT 62, 'code', qr_code_id::text, '-infinity', 1, '2024-07-01Z' FROM crm.qr_code WHERE scene = 'c1';
SELECT is(pg_temp.reads_of('{61,62}', 'c1', '{2024-06-12Z}'), true, 'a row that should not be there');
SELECT results_eq('SELECT contact_id, scans, raw_scans FROM crm.profile_counter WHERE contact_id IN (61, 62) ORDER BY 1', 'VALUES (61::bigint, 3::bigint, 31::bigint), (62, 1, 1)', 'is replaced');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
-- a trigger of the brand's own sees every row
CREATE TABLE seen (contact_id bigint);
CREATE FUNCTION pg_temp.see() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.seen VALUES (NEW.contact_id); RETURN NULL; END$$;
CREATE TRIGGER see AFTER INSERT ON crm.first_scan FOR EACH ROW EXECUTE FUNCTION pg_temp.see();
SELECT pg_temp.reads_of('{63}', scene, '{2024-06-12Z}') FROM unnest(ARRAY['c1', 'd1']) AS scene \g /dev/null
SELECT results_eq('SELECT contact_id, count(*) FROM seen GROUP BY 1', 'VALUES (63::bigint, 2::bigint)', 'a trigger on first_scan fires');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound at the end');

SELECT * FROM finish();
ROLLBACK;
