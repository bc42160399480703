-- cohorts: numbers by hand, the rows behind them, who is not counted, what is refused
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install();
SET search_path = public, pg_catalog;
SET TimeZone = 'UTC';
SET pg_crm.clock = '2025-03-12 12:00+08';
SELECT no_plan();

SELECT is_empty($$SELECT * FROM crm.cohort('purchase', 'purchase', '2025-01-01', '2025-02-01')$$, 'nobody, no cohort');
SELECT is_empty($$SELECT * FROM crm.cohort_rows('follow', 'scan', '2025-01-01', '2025-02-01', unit_offset => 0)$$, 'and no rows');

-- times are those of Shanghai: 6th of January 2025 is a Monday, 00:00 there is 16:00Z the day before
INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2024-01-01' FROM generate_series(1, 9) AS n;
INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref)
SELECT n, amount, (at || '+08')::timestamptz, ref
  FROM (VALUES (1, 10, '2025-01-06 00:00', 'a'), (1, 10, '2025-01-12 23:59:59.999999', 'b'), (1, 10, '2025-01-20 00:00', 'c'),
               (2, 10, '2025-01-12 12:00', 'a'), (2, 10, '2025-01-12 12:00', 'b'),
               (3, 10, '2025-01-06 09:00', 'a'),
               (4, 10, '2025-01-05 23:59:59.999999', 'a'), (4, 10, '2025-01-08 10:00', 'b'),
               (5, 30, '2025-01-14 10:00', 'a'), (5, 30, '2025-03-10 10:00', 'b'),
               (6, 10, '2024-12-01 10:00', 'a'), (6, 10, '2025-01-07 10:00', 'b'),
               (7, 10, '2025-01-07 10:00', 'a'), (7, 10, '2025-01-09 10:00', 'b'), (7, 10, '2025-01-15 10:00', 'c')) AS t(n, amount, at, ref);
-- the first order of 7 is given back in full: its history begins with the second
INSERT INTO crm.transaction (contact_id, kind, amount, occurred_at, refund_of)
SELECT 7, 'refund', 10, '2025-03-01', transaction_id FROM crm.transaction WHERE contact_id = 7 AND external_ref = 'a';

CREATE FUNCTION pg_temp.weeks(retention text DEFAULT 'classic', as_of timestamptz DEFAULT NULL) RETURNS TABLE (line text) LANGUAGE sql AS $$
    SELECT concat_ws(' ', cohort_start, contacts, unit_offset, returned, coalesce(share::text, '-'), complete)
      FROM crm.cohort('purchase', 'purchase', '2025-01-01 00:00+08', '2025-02-01 00:00+08', periods => 3, retention => $1, as_of => $2)
$$;
SELECT results_eq($$SELECT * FROM pg_temp.weeks()$$, $$VALUES
    ('2024-12-30 1 0 0 0.0000 t'), ('2024-12-30 1 1 1 1.0000 t'), ('2024-12-30 1 2 0 0.0000 t'),
    ('2025-01-06 4 0 2 0.5000 t'), ('2025-01-06 4 1 1 0.2500 t'), ('2025-01-06 4 2 1 0.2500 t'),
    ('2025-01-13 1 0 0 0.0000 t'), ('2025-01-13 1 1 0 0.0000 t'), ('2025-01-13 1 2 0 0.0000 t')$$,
    'weeks of Shanghai, by the first order that counts; who began before the period is in none');
SELECT results_eq($$SELECT * FROM pg_temp.weeks('rolling')$$, $$VALUES
    ('2024-12-30 1 0 1 1.0000 t'), ('2024-12-30 1 1 1 1.0000 t'), ('2024-12-30 1 2 0 0.0000 t'),
    ('2025-01-06 4 0 3 0.7500 t'), ('2025-01-06 4 1 2 0.5000 t'), ('2025-01-06 4 2 1 0.2500 t'),
    ('2025-01-13 1 0 1 1.0000 t'), ('2025-01-13 1 1 1 1.0000 t'), ('2025-01-13 1 2 1 1.0000 t')$$,
    'rolling: in that week or later, also after the last one shown');
SELECT results_eq($$SELECT * FROM pg_temp.weeks('classic', '2025-01-19 23:59:59.999999+08')$$, $$VALUES
    ('2024-12-30 1 0 0 0.0000 t'), ('2024-12-30 1 1 1 1.0000 t'), ('2024-12-30 1 2 0 - f'),
    ('2025-01-06 4 0 2 0.5000 t'), ('2025-01-06 4 1 1 - f'),
    ('2025-01-13 1 0 0 - f')$$,
    'as of the last moment of a week it is not over, and the next has not begun');
SELECT results_eq($$SELECT * FROM pg_temp.weeks('classic', '2025-01-20 00:00+08')$$, $$VALUES
    ('2024-12-30 1 0 0 0.0000 t'), ('2024-12-30 1 1 1 1.0000 t'), ('2024-12-30 1 2 0 0.0000 t'),
    ('2025-01-06 4 0 2 0.5000 t'), ('2025-01-06 4 1 1 0.2500 t'), ('2025-01-06 4 2 1 - f'),
    ('2025-01-13 1 0 0 0.0000 t'), ('2025-01-13 1 1 0 - f')$$, 'a moment later it is');
SELECT results_eq($$SELECT cohort_start, contacts, returned, complete FROM crm.cohort('purchase', 'purchase', '2025-01-01', '2025-02-01', 'month', 2, time_zone => 'UTC')$$,
    $$VALUES ('2025-01-01'::date, 6::bigint, 4::bigint, true), ('2025-01-01', 6, 0, true)$$, 'months');
SELECT results_eq($$SELECT cohort_start, contacts, unit_offset, returned FROM crm.cohort('purchase', 'purchase', '2025-01-05', '2025-01-06', 'day', 8, time_zone => 'UTC') WHERE returned > 0$$,
    $$VALUES ('2025-01-05'::date, 2::bigint, 3, 1::bigint), ('2025-01-05', 2, 7, 1)$$, 'days of another zone');
SELECT results_eq($$SELECT cohort_start, contacts FROM crm.cohort('purchase', 'purchase', '2024-10-01', '2025-02-01', 'month', 1)$$,
    $$VALUES ('2024-12-01'::date, 1::bigint), ('2025-01-01', 6)$$, 'units without anybody are left out');
SELECT results_eq($$SELECT contacts, returned FROM crm.cohort('purchase', 'purchase', '2025-01-01', '2025-02-01', 'month', 1, start_rule => 'fact.amount > 10', return_rule => 'orders > 2')$$,
    $$VALUES (1::bigint, 0::bigint)$$, 'rules over the fact and its contact');
SELECT results_eq($$SELECT contacts, returned FROM crm.cohort('purchase', 'refund', '2025-01-01', '2025-02-01', 'month', 1, retention => 'rolling')$$,
    $$VALUES (6::bigint, 1::bigint)$$, 'a refund may be what is looked for');

-- the rows are the numbers
SELECT is_empty($$
    SELECT c.* FROM unnest(ARRAY['day', 'week', 'month']) AS u(unit), unnest(ARRAY['classic', 'rolling']) AS t(retention),
           LATERAL crm.cohort('purchase', 'purchase', '2024-11-01', '2025-02-01', unit, 9, retention => retention) AS c
     WHERE contacts <> (SELECT count(*) FROM crm.cohort_rows('purchase', 'purchase', '2024-11-01', '2025-02-01', unit, 9, retention => retention, cohort_start => c.cohort_start))
        OR returned <> (SELECT count(*) FROM crm.cohort_rows('purchase', 'purchase', '2024-11-01', '2025-02-01', unit, 9, retention => retention, cohort_start => c.cohort_start, unit_offset => c.unit_offset))$$,
    'each number is that of its rows');
SELECT results_eq($$SELECT contact_id, started_at, returned_at FROM crm.cohort_rows('purchase', 'purchase', '2025-01-01', '2025-02-01', 'month', unit_offset => 0)$$,
    $$VALUES (1::bigint, '2025-01-06 00:00+08'::timestamptz, '2025-01-12 23:59:59.999999+08'::timestamptz), (2, '2025-01-12 12:00+08', '2025-01-12 12:00+08'),
             (4, '2025-01-05 23:59:59.999999+08', '2025-01-08 10:00+08'), (7, '2025-01-09 10:00+08', '2025-01-15 10:00+08')$$,
    'who came back, and by what first');

-- who is merged is one, who is gone is none
SELECT crm.merge(1, 3, 'the same');
SELECT is((SELECT contacts FROM crm.cohort('purchase', 'purchase', '2025-01-06 00:00+08', '2025-01-13 00:00+08', periods => 1)), 3::bigint, 'two who were merged are one');
ALTER TABLE crm.contact DISABLE TRIGGER USER;
DELETE FROM crm.contact WHERE contact_id = 2;
ALTER TABLE crm.contact ENABLE TRIGGER USER;
SELECT is((SELECT contacts FROM crm.cohort('purchase', 'purchase', '2025-01-06 00:00+08', '2025-01-13 00:00+08', periods => 1)), 2::bigint, 'who was deleted is not counted');

-- other kinds: events, scans, stages, awards, segments
SELECT crm.track(8, 'cart', '{"sku": "x"}', '2025-02-03 10:00+08'), crm.track(8, 'cart', '{"sku": "y"}', '2025-02-05 10:00+08'), crm.track(9, 'cart', '{"sku": "y"}', '2025-02-03 11:00+08') \g /dev/null
SELECT results_eq($$SELECT contacts, returned FROM crm.cohort('cart', 'cart', '2025-02-01', '2025-03-01', periods => 1, start_rule => $x$fact.properties ->> 'sku' = 'x'$x$)$$,
    $$VALUES (1::bigint, 1::bigint)$$, 'events with what they say');
SELECT results_eq($$SELECT sum(contacts), sum(returned) FROM crm.cohort('award', 'stage_move', '2025-01-01', '2025-02-01', 'month', 1, retention => 'rolling')$$,
    $$SELECT count(*)::numeric, count(*) FILTER (WHERE EXISTS (SELECT FROM crm.stage_move m WHERE m.contact_id = a.contact_id AND m.since >= a.at))::numeric
        FROM (SELECT contact_id, min(awarded_at) AS at FROM crm.award WHERE revoked_at IS NULL AND contact_id <> 2 GROUP BY 1) AS a WHERE at >= '2025-01-01'$$, 'awards and stages');
SELECT crm.define_segment('{"name": "buyers", "rule": "orders > 0"}') \g /dev/null
SELECT is((SELECT contacts FROM crm.cohort('segment_entered', 'segment_left', '2025-03-01', '2025-04-01', 'month', 1)),
    (SELECT count(*) FROM crm.segment_member s JOIN crm.contact c USING (contact_id)), 'segments');

-- what is refused
CREATE FUNCTION pg_temp.refused(arguments text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE 'SELECT * FROM crm.cohort(' || arguments || ')';
    RETURN 'nothing is wrong';
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
SELECT is(pg_temp.refused(arguments), said, said) FROM (VALUES
    ($$NULL, 'purchase', '2025-01-01', '2025-02-01'$$, '22004 argument "start_kind" of crm.cohort() must not be NULL'),
    ($$'purchase', 'purchase', '2025-01-01', NULL$$, '22004 argument "period_end" of crm.cohort() must not be NULL'),
    ($$'purchase', 'purchase', '2025-02-01', '2025-01-01'$$, '22023 the period ends at 2025-01-01 00:00:00+00, before it starts at 2025-02-01 00:00:00+00'),
    ($$'purchase', 'purchase', '-infinity', '2025-01-01'$$, '22008 a period must be finite, not from -infinity to 2025-01-01 00:00:00+00'),
    ($$'purchase', 'purchase', '2025-01-01', '2025-02-01', 'fortnight'$$, '22023 unit "fortnight" is not known'),
    ($$'purchase', 'purchase', '2025-01-01', '2025-02-01', periods => 0$$, '22023 periods must be between 1 and 1000, not 0'),
    ($$'purchase', 'purchase', '2025-01-01', '2025-02-01', periods => 1001$$, '22023 periods must be between 1 and 1000, not 1001'),
    ($$'purchase', 'purchase', '2025-01-01', '2025-02-01', retention => 'forever'$$, '22023 retention "forever" is not known'),
    ($$'purchase', 'purchase', '2025-01-01', '2025-02-01', time_zone => 'Mars/Olympus'$$, '22023 time zone "Mars/Olympus" is not known'),
    ($$'purchase', 'purchase', '2025-01-01', '2025-02-01', as_of => 'infinity'$$, '22008 as_of must be finite, not infinity'),
    ($$'purchase', 'carts', '2025-01-01', '2025-02-01'$$, '23503 there is no fact of kind "carts"'),
    ($$'', 'purchase', '2025-01-01', '2025-02-01'$$, '23503 there is no fact of kind ""'),
    ($$'purchase', 'purchase', '2025-01-01', '2025-02-01', start_rule => 'amount > 1'$$, '42703 rule names unknown column "amount"'),
    ($$'purchase', 'purchase', '2025-01-01', '2025-02-01', return_rule => '(SELECT true)'$$, '0A000 a rule may not hold a sub-select')) AS t(arguments, said);
SELECT throws_ok($$SELECT * FROM crm.cohort_rows('purchase', 'purchase', '2025-01-01', '2025-02-01', unit_offset => 12)$$, '22023', 'unit_offset 12 is not between 0 and 11', 'an offset that is not looked at');
SELECT is_empty($$SELECT * FROM crm.cohort('purchase', 'purchase', '2025-01-01', '2025-01-01')$$, 'an empty period');
-- a rule that fails for a fact is false for it, and counted
SELECT is((SELECT sum(contacts) FROM crm.cohort('purchase', 'purchase', '2025-01-01', '2025-02-01', 'month', 1, start_rule => '1 / (fact.amount - 30) < 0')),
    (SELECT count(DISTINCT contact_id)::numeric FROM crm.transaction JOIN crm.contact USING (contact_id) WHERE amount < 30 AND contact_id NOT IN (5, 6)), 'others are counted');
SELECT results_eq('SELECT contact_id, object_kind, object, sqlstate FROM crm.rule_error', $$VALUES (5::bigint, 'report', 'cohort', '22012')$$, 'and the failure is');

-- who may: an analyst counts kinds; a rule takes the right of a marketer
CREATE ROLE crm_test_analyst;
CREATE ROLE crm_test_marketer;
SELECT crm.grant_access('crm_test_analyst', 'analyst'), crm.grant_access('crm_test_marketer', 'marketer') \g /dev/null
SET ROLE crm_test_analyst;
SELECT is((SELECT sum(contacts) FROM crm.cohort('purchase', 'purchase', '2025-01-01', '2025-02-01', 'month', 1)), 4::numeric, 'an analyst');
SELECT throws_ok($$SELECT * FROM crm.cohort('purchase', 'purchase', '2025-01-01', '2025-02-01', start_rule => 'fact.external_ref = ''a''')$$, '42501', 'permission denied to count by a rule over facts', 'but not by a rule');
SET ROLE crm_test_marketer;
SELECT is((SELECT sum(contacts) FROM crm.cohort('purchase', 'purchase', '2025-01-01', '2025-02-01', 'month', 1, start_rule => 'fact.external_ref = ''a''')), 3::numeric, 'a marketer does');
RESET ROLE;
SELECT * FROM finish();
ROLLBACK;
