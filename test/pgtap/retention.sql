-- months that need not be kept: what goes, what stays, and that nothing derived changes
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install();
SET TimeZone = 'UTC';
SET pg_crm.time_zone = 'UTC';
SELECT no_plan();

SET pg_crm.clock = '2024-01-10 00:00Z';
SELECT crm.define_scan_limit('{"name": "fast", "max_scans": 2, "period": "1 hour"}');
INSERT INTO crm.account (kind, name) VALUES ('official_account', 'maison');
INSERT INTO crm.qr_code (account_id, scene) SELECT account_id, 'door' FROM crm.account;
SELECT crm.define_achievement('{"name": "looker", "on_kind": "look", "thresholds": [4]}');
SELECT crm.follow('maison', 'o' || n) FROM generate_series(1, 6) AS n;
SELECT crm.track(n, kind) FROM generate_series(1, 6) AS n, unnest('{view,view,look,note}'::text[]) AS kind;
SELECT crm.grant_consent(1, 'sms', 'marketing');
SELECT crm.scan('door', 'maison', 'o' || n, '2024-01-09 10:00Z'::timestamptz + k * n * interval '10 minutes')
  FROM generate_series(1, 4) AS n, generate_series(0, 3) AS k;
SET pg_crm.clock = '2024-02-10 00:00Z';
SELECT crm.track(n, kind) FROM generate_series(1, 6) AS n, unnest('{view,look,look}'::text[]) AS kind;
SELECT crm.set_stage(5, 'other', 'by hand');
SELECT crm.scan('door', 'maison', 'o' || n) FROM generate_series(1, 4) AS n;
SET pg_crm.clock = '2024-06-10 00:00Z';
SELECT crm.define_segment('{"name": "noted", "rule": "times(''note'') >= 1"}');

-- rows of past months lie in the default partition until somebody makes their months
SELECT cmp_ok((SELECT count(*) FROM crm.event_default), '>', 0::bigint, 'rows lie in the default partition');
SELECT cmp_ok(crm.maintain_partitions(), '>=', 4, 'months are made');
SELECT is_empty('SELECT FROM crm.event_default UNION ALL SELECT FROM crm.scan_default', 'and the rows move');
SELECT is((SELECT count(*) FROM crm.event_2024_01), 31::bigint, 'into their month');
SELECT is(crm.maintain_partitions(), 0, 'and stay there');
SELECT is_empty('SELECT * FROM crm.verify()', 'nothing is told twice');

CREATE TEMP TABLE before AS SELECT 'profile' AS what, to_jsonb(p) AS row FROM crm.profile AS p
    UNION ALL SELECT 'award', to_jsonb(a) FROM crm.award AS a UNION ALL SELECT 'stage', to_jsonb(m) FROM crm.stage_move AS m
    UNION ALL SELECT 'scans', to_jsonb(c) FROM crm.scan_count AS c UNION ALL SELECT 'flag', to_jsonb(g) - 'recorded_at' FROM crm.scan_flag AS g
    UNION ALL SELECT 'segment', to_jsonb(s) FROM crm.segment_member AS s;
CREATE TEMP VIEW after AS SELECT 'profile' AS what, to_jsonb(p) AS row FROM crm.profile AS p
    UNION ALL SELECT 'award', to_jsonb(a) FROM crm.award AS a UNION ALL SELECT 'stage', to_jsonb(m) FROM crm.stage_move AS m
    UNION ALL SELECT 'scans', to_jsonb(c) FROM crm.scan_count AS c UNION ALL SELECT 'flag', to_jsonb(g) - 'recorded_at' FROM crm.scan_flag AS g
    UNION ALL SELECT 'segment', to_jsonb(s) FROM crm.segment_member AS s;
SELECT cmp_ok((SELECT count(*) FROM before WHERE what = 'flag'), '>', 0::bigint, 'scans are flagged');

-- settings
SELECT throws_ok($$UPDATE crm.retention SET keep = '3 days'$$, '23514', NULL, 'less than a month is no retention');
SELECT throws_ok($$INSERT INTO crm.retention (name) VALUES ('contact')$$, '23514', NULL, 'other tables have no months');
SELECT is(crm.enforce_retention(), NULL, 'by default all is kept for ever');
SELECT is_empty('SELECT FROM crm.retention_horizon WHERE horizon IS NOT NULL', 'and lists have no horizon');

-- a publication holds it
UPDATE crm.retention SET keep = '3 months' WHERE name IN ('event', 'scan');
CREATE PUBLICATION feed FOR TABLE crm.scan_2024_01;
SELECT results_eq('SELECT crm.enforce_retention() FROM generate_series(1, 3)', $$VALUES ('event_2024_01'), ('event_2024_02'), (NULL)$$, 'what is published stays');
SELECT is((SELECT problem FROM crm.retention_horizon WHERE name = 'scan'), 'publication feed publishes crm.scan_2024_01', 'and it says why');
DROP PUBLICATION feed;
-- so does what depends on a month
CREATE VIEW public.january AS SELECT * FROM crm.scan_2024_01;
SELECT is(crm.enforce_retention(), NULL, 'a view on a month holds it');
SELECT matches((SELECT problem FROM crm.retention_horizon WHERE name = 'scan'), 'cannot drop table crm.scan_2024_01 because other objects depend on it', 'and it says so');
DROP VIEW public.january;
SELECT results_eq('SELECT crm.enforce_retention() FROM generate_series(1, 3)', $$VALUES ('scan_2024_01'), ('scan_2024_02'), (NULL)$$, 'then the months go');
SELECT results_eq('SELECT name, horizon, problem FROM crm.retention_horizon WHERE horizon IS NOT NULL ORDER BY name',
    $$VALUES ('event', '2024-03-01'::timestamptz, NULL::text), ('scan', '2024-03-01', NULL)$$, 'from when on lists are whole');

-- what goes and what stays
SELECT results_eq($$SELECT kind, count(*) FROM crm.event WHERE contact_id <> 5 GROUP BY kind ORDER BY kind$$,
    $$VALUES ('follow', 5::bigint), ('grant_consent', 1), ('look', 15), ('note', 5)$$, 'events on which something rests stay, those that only count go');
SELECT is((SELECT count(*) FROM crm.event WHERE contact_id = 5 AND kind = 'view'), 3::bigint, 'all of whose stage was set by hand stay');
SELECT is((SELECT sum(dropped) FROM crm.retention_horizon WHERE name = 'event'), 15::numeric, 'it is told how many went');
SELECT cmp_ok((SELECT dropped FROM crm.retention_horizon WHERE name = 'scan'), '>', 0::bigint, 'scans went too');
SELECT is_empty($$SELECT FROM crm.first_scan f WHERE NOT EXISTS (SELECT FROM crm.scan s WHERE s.contact_id = f.contact_id AND s.scan_id = f.scan_id)$$,
    'those that count stay');

-- nothing derived changes, not even made anew
SELECT set_eq('SELECT what, row::text FROM after', 'SELECT what, row::text FROM before', 'nothing derived has changed');
SELECT is_empty('SELECT * FROM crm.verify()', 'and it is sound');
SELECT crm.recompute();
SELECT set_eq('SELECT what, row::text FROM after', 'SELECT what, row::text FROM before', 'nor has it when it is made anew');

-- late facts, merges and what is new
SELECT crm.track(1, 'view', at => '2024-01-01Z');
SELECT is((SELECT (events, first_seen_at) FROM crm.profile WHERE contact_id = 1), (10::bigint, '2024-01-01Z'::timestamptz), 'a late fact adds to the opening balance');
SELECT crm.scan('door', 'maison', 'o1', '2024-01-02Z');
SELECT is((SELECT (scans, raw_scans) FROM crm.profile_counter WHERE contact_id = 1), (1::bigint, 6::bigint), 'a late scan takes over what counts');
SELECT crm.merge(1, 2);
SELECT is((SELECT events FROM crm.profile WHERE contact_id = 1), 18::bigint, 'a merge joins the balances');
SELECT is_empty('SELECT * FROM crm.verify()', 'and stays sound');
SELECT crm.unmerge(2);
SELECT is((SELECT events FROM crm.profile WHERE contact_id = 2), 8::bigint, 'and gives them back');
SELECT is_empty('SELECT * FROM crm.verify()', 'soundly');
INSERT INTO crm.event (contact_id, kind, recorded_at) VALUES (3, 'view', '2024-01-15Z');
SELECT is_empty('SELECT * FROM crm.verify()', 'what is told of a month that is gone finds a place');

-- a rule that reads what every fact changes keeps them all
SELECT crm.define_stage_rule('{"stage": "intent", "rule": "events >= 8"}');
SELECT is_empty('SELECT * FROM crm.verify()', 'a new rule begins with the balances');
SET pg_crm.clock = '2024-12-10 00:00Z';
SELECT crm.maintain_partitions();
SELECT crm.enforce_retention() FROM generate_series(1, 20);
SELECT is((SELECT sum(dropped) FROM crm.retired_partition WHERE table_name = 'event' AND recorded_until > '2024-03-01Z'), 0::numeric, 'where every fact matters none goes');
SELECT is_empty('SELECT * FROM crm.verify()', 'soundly');

SELECT * FROM finish();
ROLLBACK;
