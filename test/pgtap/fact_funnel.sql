-- crm.fact_funnel(): how many came through steps that are facts, and who they are
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SET search_path = public, pg_catalog;
SET timezone = 'UTC';
SELECT no_plan();
SELECT crm.install();
SET pg_crm.clock = '2025-06-10 00:00+00';
SELECT results_eq($$SELECT name, reached, still_open FROM crm.fact_funnel('["view", "cart", "purchase"]', '1 day', '2025-05-01', '2025-06-01')$$,
    $$VALUES ('view', 0::bigint, 0::bigint), ('cart', 0, 0), ('purchase', 0, 0)$$, 'before the first fact nobody came anywhere');
INSERT INTO crm.account (kind, name) VALUES ('official_account', 'main');
INSERT INTO crm.store (name) SELECT 'shop ' || n FROM generate_series(1, 12) AS n;
INSERT INTO crm.associate (store_id, userid) VALUES (2, 'li'), (10, 'wang');
INSERT INTO crm.qr_code (account_id, scene, store_id, associate_id, campaign) VALUES (1, 'a', 2, 1, 'spring'), (1, 'b', 10, 2, 'spring');
INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2025-05-01' FROM generate_series(1, 40) AS n;

-- 'who@day hour kind': facts of May 2025, UTC
CREATE FUNCTION pg_temp.happened(who bigint, at text, what text, details jsonb DEFAULT '{}') RETURNS void LANGUAGE sql AS $$
INSERT INTO crm.event (contact_id, kind, occurred_at, properties) VALUES (who, what, ('2025-' || at || '+00')::timestamptz, details) $$;
INSERT INTO crm.scan (contact_id, qr_code_id, occurred_at)
SELECT n, 1 + n % 2, '2025-05-02 00:00+00'::timestamptz + n * interval '1 minute' FROM generate_series(1, 20) AS n;

SELECT pg_temp.happened(1, '05-03 10:00', 'view'), pg_temp.happened(1, '05-03 11:00', 'cart', '{"value": 50}'), pg_temp.happened(1, '05-04 10:00', 'pay');
SELECT pg_temp.happened(2, '05-03 10:00', 'view'), pg_temp.happened(2, '05-03 13:00', 'cart', '{"value": 500}');
SELECT pg_temp.happened(3, '05-03 18:00', 'view'), pg_temp.happened(3, '05-11 18:00', 'cart');        -- too late
SELECT pg_temp.happened(4, '05-31 23:00', 'view'), pg_temp.happened(4, '06-01 01:00', 'cart'), pg_temp.happened(4, '06-02 01:00', 'pay');
SELECT pg_temp.happened(5, '06-05 10:00', 'view'), pg_temp.happened(5, '06-06 10:00', 'cart');         -- its window is open
SELECT pg_temp.happened(6, '05-20 10:00', 'view'), pg_temp.happened(6, '05-20 11:00', 'cart'), pg_temp.happened(6, '06-08 10:00', 'view'); -- that of a later view is
SELECT pg_temp.happened(7, '05-03 10:00', 'cart'), pg_temp.happened(7, '05-03 11:00', 'pay');
SELECT pg_temp.happened(21, '05-10 10:00', 'view'), pg_temp.happened(21, '05-10 10:00', 'cart'), pg_temp.happened(21, '05-10 10:00', 'pay');

CREATE FUNCTION pg_temp.counted(steps jsonb, within interval, first timestamptz, last timestamptz, by_time text DEFAULT 'entry', filter text DEFAULT NULL)
RETURNS text LANGUAGE sql AS $$
SELECT string_agg(concat_ws(' ', step, name, reached || '=' || converted || '+' || dropped || '+' || still_open, median_seconds || '/' || p90_seconds), '; ' ORDER BY step)
  FROM crm.fact_funnel(steps, within, first, last, by_time, filter => filter) $$;

SELECT is(pg_temp.counted('["view", "cart", "pay"]', '7 days', '2025-05-01', '2025-06-01'),
    '1 view 6=5+1+0 3600/9360; 2 cart 5=3+2+0 82800/85680; 3 pay 3=3+0+0', 'by entry: later steps may come after the period');
SELECT is(pg_temp.counted('["view", "cart", "pay"]', '7 days', '2025-05-01', '2025-06-01', 'event'),
    '1 view 6=4+2+0 3600/8640; 2 cart 4=2+2+0 41400/74520; 3 pay 2=2+0+0', 'by event: they may not');
SELECT is(pg_temp.counted('["view", "cart", "pay"]', '7 days', '2025-05-01', '2025-06-10'),
    '1 view 7=6+1+0 5400/48600; 2 cart 6=3+1+2 82800/85680; 3 pay 3=3+0+0', 'whose window is open is not lost, though it be that of another entry');
SELECT is(pg_temp.counted('["view", "cart", "pay"]', '7 days', '2025-06-01', '2025-06-10', 'event'),
    '1 view 2=1+1+0 86400/86400; 2 cart 1=0+1+0; 3 pay 0=0+0+0', 'by event nothing can follow once the period is over');
SELECT is(pg_temp.counted('["view", "cart", "pay"]', '7 days', '2025-06-01', '2025-06-11', 'event'),
    '1 view 2=1+0+1 86400/86400; 2 cart 1=0+0+1; 3 pay 0=0+0+0', 'and something can while it is not');
SELECT is(pg_temp.counted('[{"on": ["view", "cart"], "name": "interest"}, {"on": ["cart", "view"]}]', '1 day', '2025-05-01', '2025-06-01'),
    '1 interest 7=5+2+0 3600/9360; 2 cart, view 5=5+0+0', 'a fact that is of two steps serves one');
SELECT is((SELECT string_agg(reached || '>' || converted, ' ' ORDER BY step) FROM crm.fact_funnel('["scan", "view"]', '36 hours', '2025-05-01', '2025-06-01')), '20>2 2>2', 'scans are facts');

-- rules of facts and of those counted
SELECT is(pg_temp.counted('["view", {"on": "cart", "name": "large", "when": "(fact.properties->>''value'')::numeric > 100"}]', '7 days', '2025-05-01', '2025-06-01'),
    '1 view 6=1+5+0 10800/10800; 2 large 1=1+0+0', 'a step asks for facts by a rule');
SELECT is(pg_temp.counted('[{"on": "cart", "name": "any"}, {"on": "cart", "name": "large", "when": "(fact.properties->>''value'')::numeric > 100"}]', '7 days', '2025-05-01', '2025-06-01'),
    '1 any 6=0+6+0; 2 large 0=0+0+0', 'one fact that two rules let through is one');
SELECT is(pg_temp.counted('["view"]', '7 days', '2025-05-01', '2025-06-01', filter => 'scans > 0 AND orders = 0'), '1 view 5=5+0+0', 'a rule over the profile');
SELECT results_eq($$SELECT contact_id, level FROM crm.fact_funnel_rows('[{"on": ["view", "cart"], "when": "fact.kind = ''view''"},
        {"on": ["cart", "pay"], "when": "(fact.properties->>''value'')::numeric > 100 OR fact.kind = ''pay''"}, {"on": ["cart", "pay"]}, {"on": "cart", "when": "fact.properties ? ''value''"}]',
        '7 days', '2025-05-01', '2025-06-30', 'event') ORDER BY contact_id$$,
    $$SELECT contact_id, level FROM (SELECT contact_id, crm.funnel('7 days', occurred_at, kind = 'view', kind = 'cart' AND (properties->>'value')::numeric > 100 OR kind = 'pay',
        kind IN ('cart', 'pay'), kind = 'cart' AND properties ? 'value') AS level FROM crm.event WHERE occurred_at >= '2025-05-01' AND occurred_at < '2025-06-30' GROUP BY contact_id) AS f
      WHERE level > 0 ORDER BY contact_id$$, 'steps of several kinds with and without rules, as told by crm.funnel()');

-- however many steps read events, these are read once; beside it a look whether there is any of each kind
CREATE FUNCTION pg_temp.scans(steps jsonb) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	seen CONSTANT text := 'SELECT sum(s.seq_scan) FROM pg_stat_xact_all_tables AS s JOIN pg_inherits AS i ON i.inhrelid = s.relid AND i.inhparent = ''crm.event''::regclass
		WHERE s.relid = (SELECT tableoid FROM crm.event WHERE kind = ''pay'' LIMIT 1)';
	before bigint;
	after bigint;
BEGIN
	EXECUTE seen INTO before;
	PERFORM count(*) FROM crm.fact_funnel(steps, '7 days', '2025-05-01', '2025-06-01');
	EXECUTE seen INTO after;
	RETURN after - before;
END $$;
SELECT cmp_ok(pg_temp.scans('["view", "cart", "pay"]') - pg_temp.scans('["view"]'), '<=', 2::bigint, 'three kinds are one scan');
SELECT cmp_ok(pg_temp.scans('[{"on": "view", "when": "mobile IS NULL"}, {"on": "cart", "when": "mobile IS NULL"}, {"on": "view", "when": "fact.kind <> ''x''"}]')
    - pg_temp.scans('[{"on": "view", "when": "mobile IS NULL"}]'), '<=', 2::bigint, 'so are three rules');

-- orders, net
SELECT crm.purchase(30, 100, '2025-05-05', 'o1'), crm.purchase(31, 100, '2025-05-05', 'o2'), crm.purchase(32, 10, '2025-05-05', 'o3') \g /dev/null
SELECT crm.refund(31, 'o2', 100, '2025-05-06', 'r1') \g /dev/null
SELECT is(pg_temp.counted('["purchase", "refund"]', '7 days', '2025-05-01', '2025-06-01'), '1 purchase 2=0+2+0; 2 refund 0=0+0+0', 'an order refunded in full counts nowhere');
SELECT is(pg_temp.counted('[{"on": "purchase", "when": "fact.amount >= 50"}]', '7 days', '2025-05-01', '2025-06-01'), '1 purchase 1=1+0+0', 'a rule reads the amount');
SELECT crm.merge(30, 32, 'the same person') \g /dev/null
SELECT is(pg_temp.counted('["purchase", "purchase"]', '7 days', '2025-05-01', '2025-06-01'), '1 purchase 1=1+0+0 0/0; 2 purchase 1=1+0+0', 'merged contacts are one');

-- split
CREATE FUNCTION pg_temp.parts(by text, zone text DEFAULT NULL, arm jsonb DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
SELECT string_agg(coalesce(part, '-') || ' ' || reached || '>' || converted, ', ' ORDER BY n)
  FROM crm.fact_funnel('["view", "cart"]', '7 days', '2025-05-01', '2025-06-01', time_zone => zone, split_by => by, arm => arm) WITH ORDINALITY AS f(part, step, name, reached, converted, dropped, still_open, m, p, n)
 WHERE step = 1 $$;
SELECT is(pg_temp.parts('day', 'UTC'), '2025-05-03 3>2, 2025-05-10 1>1, 2025-05-20 1>1, 2025-05-31 1>1', 'by the day of entry');
SELECT is(pg_temp.parts('day', 'Asia/Shanghai'), '2025-05-03 2>2, 2025-05-04 1>0, 2025-05-10 1>1, 2025-05-20 1>1, 2025-06-01 1>1', 'in a zone');
SELECT is(pg_temp.parts('day'), pg_temp.parts('day', 'Asia/Shanghai'), 'which is that of pg_crm.time_zone');
SELECT is(pg_temp.parts('source'), 'scan 5>4, - 1>1', 'by source');
SELECT is(pg_temp.parts('store'), '2 3>3, 10 2>1, - 1>1', 'by store, in the order of their ids') ;
SELECT is(pg_temp.parts('code'), '1 3>3, 2 2>1, - 1>1', 'by code');
SELECT is(pg_temp.parts('associate'), '1 3>3, 2 2>1, - 1>1', 'by associate');
SELECT is(pg_temp.parts('stage'), (SELECT string_agg(stage || ' ' || n || '>' || m, ', ' ORDER BY stage COLLATE "C") FROM (
    SELECT (SELECT stage FROM crm.stage_move AS m WHERE m.contact_id = v.who AND m.since <= v.at ORDER BY since DESC LIMIT 1) AS stage, count(*) AS n, sum(went) AS m
      FROM (VALUES (1, '2025-05-03 10:00+00'::timestamptz, 1), (2, '2025-05-03 10:00+00', 1), (3, '2025-05-03 18:00+00', 0), (4, '2025-05-31 23:00+00', 1), (6, '2025-05-20 10:00+00', 1), (21, '2025-05-10 10:00+00', 1)) AS v(who, at, went) GROUP BY 1) AS s),
    'by the stage at entry');
SELECT crm.publish_journey('{"journey": "test", "entry": [{"on": "view"}], "start": "halves", "steps": {"halves": {"kind": "split", "arms": {"a": {"weight": 1, "next": "end"}, "b": {"weight": 1, "next": "end"}}}, "end": {"kind": "exit"}}}') \g /dev/null
INSERT INTO crm.step_visit (contact_id, enrolment_id, entered_at, visit, version, journey, step, outcome, arm)
SELECT who, 1000 + who, '2025-05-01', 1, 1, 'test', 'halves', 'arm', CASE WHEN who < 3 THEN 'a' ELSE 'b' END FROM generate_series(1, 5) AS who;
SELECT is(pg_temp.parts('arm', arm => '{"journey": "test", "step": "halves"}'), 'a 2>2, b 2>1, - 2>2', 'by arm');
SELECT is(pg_temp.parts(NULL, arm => '{"journey": "test", "step": "halves", "arm": "b"}'), '- 2>1', 'of an arm');

-- the day of 8 March has 23 hours in New York
SELECT pg_temp.happened(33, '03-08 17:00', 'view'), pg_temp.happened(33, '03-09 16:30', 'cart') \g /dev/null
SELECT is((SELECT string_agg(reached::text, ' ' ORDER BY step) FROM crm.fact_funnel('["view", "cart"]', '1 day', '2025-03-01', '2025-04-01', time_zone => zone)), expected, 'a window of a day, ' || zone)
  FROM (VALUES ('America/New_York', '1 0'), ('UTC', '1 1')) AS v(zone, expected);

-- of whom
SELECT is((SELECT reached FROM crm.fact_funnel('["view"]', '1 day', '2025-05-01', '2025-06-01', source => 'scan')), 5::bigint, 'of a source');
SELECT is((SELECT reached FROM crm.fact_funnel('["view"]', '1 day', '2025-05-01', '2025-06-01', store_id => 2)), 3::bigint, 'of a store');
SELECT is((SELECT reached FROM crm.fact_funnel('["view"]', '1 day', '2025-05-01', '2025-06-01', qr_code_id => 2)), 2::bigint, 'of a code');
SELECT is((SELECT reached FROM crm.fact_funnel('["view"]', '1 day', '2025-05-01', '2025-06-01', associate_id => 2)), 2::bigint, 'of an associate');
SELECT is((SELECT reached FROM crm.fact_funnel('["view"]', '1 day', '2025-05-01', '2025-06-01', stage => 'user')), (SELECT substring(pg_temp.parts('stage') FROM 'user (\d+)')::bigint), 'of a stage');
SELECT is((SELECT string_agg(reached::text, ' ' ORDER BY step) FROM crm.fact_funnel('["view", "cart"]', '1 day', '2024-05-01', '2024-06-01')), '0 0', 'nobody');
SELECT is((SELECT string_agg(reached::text, ' ' ORDER BY step) FROM crm.fact_funnel('["view", "cart"]', '1 day', '2025-05-01', '2025-05-01')), '0 0', 'an empty period');

-- rows
SELECT results_eq($$SELECT contact_id, level, state, entered_at, reached_at[2], open_until
    FROM crm.fact_funnel_rows('["view", "cart", "pay"]', '7 days', '2025-05-01', '2025-06-10')$$, $$VALUES
    (1::bigint, 3, 'completed', '2025-05-03 10:00+00'::timestamptz, '2025-05-03 11:00+00'::timestamptz, '2025-05-10 10:00+00'::timestamptz),
    (2, 2, 'dropped', '2025-05-03 10:00+00', '2025-05-03 13:00+00', '2025-05-10 10:00+00'),
    (3, 1, 'dropped', '2025-05-03 18:00+00', NULL, '2025-05-10 18:00+00'),
    (4, 3, 'completed', '2025-05-31 23:00+00', '2025-06-01 01:00+00', '2025-06-07 23:00+00'),
    (5, 2, 'still_open', '2025-06-05 10:00+00', '2025-06-06 10:00+00', '2025-06-12 10:00+00'),
    (6, 2, 'still_open', '2025-05-20 10:00+00', '2025-05-20 11:00+00', '2025-06-15 10:00+00'),
    (21, 3, 'completed', '2025-05-10 10:00+00', '2025-05-10 10:00+00', '2025-05-17 10:00+00')$$, 'the rows of the first step');
CREATE TEMP TABLE of AS SELECT b AS by_time, s AS split_by, f.* FROM (VALUES ('entry'), ('event')) AS b(b), (VALUES (NULL), ('day'), ('source'), ('store'), ('stage'), ('arm')) AS s(s),
    crm.fact_funnel('["view", {"on": "cart", "when": "true"}, "pay"]', '7 days', '2025-05-01', '2025-06-10', b, split_by => s, arm => '{"journey": "test", "step": "halves"}') AS f;
SELECT is_empty($$SELECT * FROM (
    SELECT o.*, c.counted, (to_jsonb(o) ->> c.counted)::bigint AS n, (SELECT count(*) FROM crm.fact_funnel_rows('["view", {"on": "cart", "when": "true"}, "pay"]', '7 days', '2025-05-01', '2025-06-10',
        o.by_time, split_by => o.split_by, arm => '{"journey": "test", "step": "halves"}', step => o.step, counted => c.counted) AS r WHERE r.part IS NOT DISTINCT FROM o.part) AS rows
      FROM of AS o CROSS JOIN (VALUES ('reached'), ('converted'), ('dropped'), ('still_open')) AS c(counted)) AS x WHERE n <> rows$$, 'every number is its rows');
SELECT is_empty('SELECT * FROM of WHERE reached <> converted + dropped + still_open', 'reached is converted, dropped and still open together');
SELECT cmp_ok((SELECT count(*) FROM of), '>', 60::bigint, 'and there were many');

INSERT INTO crm.opening_fact (day, kind, facts) VALUES ('2025-04-01', 'dropped', 3);
SELECT is((SELECT sum(reached) FROM crm.fact_funnel('["dropped"]', '1 day', '2025-05-01', '2025-06-01')), 0::numeric, 'a kind whose events were dropped is known');

-- refused
SELECT throws_ok(format('SELECT * FROM crm.fact_funnel(%s)', arguments), state, message, arguments)
  FROM (VALUES
    ($$'[]', '1 day', '2025-05-01', '2025-06-01'$$, '22023', 'a funnel has 1 to 64 steps, not 0'),
    ($$to_jsonb(array_fill('view'::text, ARRAY[65])), '1 day', '2025-05-01', '2025-06-01'$$, '22023', 'a funnel has 1 to 64 steps, not 65'),
    ($$'"view"', '1 day', '2025-05-01', '2025-06-01'$$, '22023', 'the list of steps of a funnel has 1 fault'),
    ($$'{"on": "view"}', '1 day', '2025-05-01', '2025-06-01'$$, '22023', 'the list of steps of a funnel has 1 fault'),
    ($$'[{"on": "view", "wen": "true"}, 7, {"name": "x"}, {"on": []}, {"on": 5}, {"on": ["view", null]}, ""]', '1 day', '2025-05-01', '2025-06-01'$$, '22023', 'the list of steps of a funnel has 7 faults'),
    ($$'["veiw"]', '1 day', '2025-05-01', '2025-06-01'$$, '23503', 'there is no fact of kind "veiw"'),
    ($$'[{"on": "view", "when": "fact.colour = 1"}]', '1 day', '2025-05-01', '2025-06-01'$$, '42703', NULL),
    ($$'[{"on": "view", "when": "true; drop table x"}]', '1 day', '2025-05-01', '2025-06-01'$$, NULL, NULL),
    ($$'["view"]', '-1 day', '2025-05-01', '2025-06-01'$$, '22023', 'the window of a funnel must not be negative: -1 days'),
    ($$'["view"]', '1 day', '2025-06-01', '2025-05-01'$$, '22023', NULL),
    ($$'["view"]', '1 day', '-infinity', '2025-05-01'$$, '22008', NULL),
    ($$'["view"]', '1 day', '2025-05-01', 'infinity'$$, '22008', NULL),
    ($$'["view"]', '1 day', NULL, '2025-05-01'$$, '22004', NULL),
    ($$NULL, '1 day', '2025-05-01', '2025-06-01'$$, '22004', NULL),
    ($$'["view"]', NULL, '2025-05-01', '2025-06-01'$$, '22004', NULL),
    ($$'["view"]', '1 day', '2025-05-01', '2025-06-01', 'arrival'$$, '22023', 'by_time "arrival" is not known'),
    ($$'["view"]', '1 day', '2025-05-01', '2025-06-01', time_zone => 'Mars'$$, '22023', NULL),
    ($$'["view"]', '1 day', '2025-05-01', '2025-06-01', split_by => 'colour'$$, '22023', 'split_by "colour" is not known'),
    ($$'["view"]', '1 day', '2025-05-01', '2025-06-01', split_by => 'arm'$$, '22004', NULL),
    ($$'["view"]', '1 day', '2025-05-01', '2025-06-01', arm => '{"journey": "test"}'$$, '22023', 'the arm of a funnel has 1 fault'),
    ($$'["view"]', '1 day', '2025-05-01', '2025-06-01', arm => '{"journey": "test", "step": "end"}'$$, '23503', 'journey "test" has no split "end"'),
    ($$'["view"]', '1 day', '2025-05-01', '2025-06-01', arm => '{"journey": "test", "step": "halves", "arm": "c"}'$$, '23503', 'journey "test" has no split "halves" with an arm "c"'),
    ($$'["view"]', '1 day', '2025-05-01', '2025-06-01', store_id => 99$$, '23503', 'store 99 is not known'),
    ($$'["view"]', '1 day', '2025-05-01', '2025-06-01', qr_code_id => 99$$, '23503', 'code 99 is not known'),
    ($$'["view"]', '1 day', '2025-05-01', '2025-06-01', associate_id => 99$$, '23503', 'associate 99 is not known'),
    ($$'["view"]', '1 day', '2025-05-01', '2025-06-01', source => 'tv'$$, '23503', 'source "tv" is not known'),
    ($$'["view"]', '1 day', '2025-05-01', '2025-06-01', stage => 'tv'$$, '23503', 'stage "tv" is not known'),
    ($$'["view"]', '1 day', '2025-05-01', '2025-06-01', filter => 'colour = 1'$$, '42703', NULL)
  ) AS v(arguments, state, message);
SELECT throws_ok($$SELECT * FROM crm.fact_funnel_rows('["view"]', '1 day', '2025-05-01', '2025-06-01', step => 2)$$, '22023', 'the funnel has no step 2', 'no such step');
SELECT throws_ok($$SELECT * FROM crm.fact_funnel_rows('["view"]', '1 day', '2025-05-01', '2025-06-01', counted => 'lost')$$, '22023', '"lost" is not counted of a step of a funnel', 'no such number');
SELECT lives_ok($$SELECT * FROM crm.fact_funnel('["view", "cart"]', '250000 years', '2025-05-01', '2025-06-01')$$, 'a window that does not end');

-- rights
CREATE ROLE funnel_analyst;
CREATE ROLE funnel_marketer;
SELECT crm.grant_access('funnel_analyst', 'analyst'), crm.grant_access('funnel_marketer', 'marketer');
GRANT ALL ON ALL SEQUENCES IN SCHEMA pg_temp TO PUBLIC;
GRANT ALL ON ALL TABLES IN SCHEMA pg_temp TO PUBLIC;
SET ROLE funnel_analyst;
SELECT is((SELECT reached FROM crm.fact_funnel('["view"]', '1 day', '2025-05-01', '2025-06-01')), 6::bigint, 'an analyst counts');
SELECT throws_ok($$SELECT * FROM crm.fact_funnel('[{"on": "view", "when": "mobile IS NOT NULL"}]', '1 day', '2025-05-01', '2025-06-01')$$, '42501', NULL, 'but asks nobody by rules of facts');
SELECT throws_ok($$SELECT * FROM crm.fact_funnel_rows('["view"]', '1 day', '2025-05-01', '2025-06-01', filter => 'mobile IS NOT NULL')$$, '42501', NULL, 'or of the profile');
SET ROLE funnel_marketer;
SELECT is((SELECT reached FROM crm.fact_funnel('[{"on": "view", "when": "mobile IS NULL"}]', '1 day', '2025-05-01', '2025-06-01', filter => 'orders = 0')), 6::bigint, 'a marketer does');
RESET ROLE;

SELECT finish();
ROLLBACK;
