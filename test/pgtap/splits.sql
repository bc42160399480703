-- splits and hold-outs: by hand, against intervals that were published, the rows behind the numbers
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install();
SET search_path = public, pg_catalog;
SET TimeZone = 'UTC';
SET pg_crm.clock = '2025-03-31 12:00+08';
SELECT no_plan();

-- intervals: Newcombe, Two-sided confidence intervals for the single proportion (1998), table I, method 3
SELECT is((SELECT round(low::numeric, 4) || ' ' || round(high::numeric, 4) FROM crm.wilson_interval(n, of)), said, format('%s of %s', n, of))
  FROM (VALUES (81, 263, '0.2553 0.3662'), (15, 148, '0.0624 0.1605'), (0, 20, '0.0000 0.1611'), (1, 29, '0.0061 0.1718')) AS t(n, of, said);
SELECT is((SELECT low || ' ' || high FROM crm.wilson_interval(20, 20, 0.9)), (SELECT 1 - high || ' 1' FROM crm.wilson_interval(0, 20, 0.9)), 'all is the other side of none');
SELECT results_eq('SELECT low, high FROM crm.wilson_interval(0, 0)', 'VALUES (NULL::float8, NULL::float8)', 'nothing tried, nothing known');
SELECT ok((SELECT low > 0 AND low < 0.5 AND high > 0.5 AND high < 1 FROM crm.wilson_interval(4000000000000000000, 8000000000000000000)), 'large numbers');
SELECT throws_ok('SELECT crm.wilson_interval(2, 1)', '22023', '2 successes of 1 trials cannot be', 'more than all');
SELECT throws_ok('SELECT crm.wilson_interval(-1, 1)', '22023', NULL, 'less than none');
SELECT throws_ok(format('SELECT crm.wilson_interval(1, 2, %L)', c), '22023', NULL, 'confidence ' || c) FROM unnest('{0,1,-1,2,NaN,Infinity}'::text[]) AS c;

-- 150 people in two arms of a third that nobody drew; Newcombe, Interval estimation for the difference (1998), example a: 56/70, 48/80
INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2024-01-01' FROM generate_series(1, 170) AS n;
INSERT INTO crm.journey_version (journey, version, definition) VALUES ('cart', 1, '{"journey": "cart", "start": "draw", "goal": "orders > 0", "steps": {
    "draw": {"kind": "split", "arms": {"plain": {"weight": 1, "next": "end"}, "gift": {"weight": 1, "next": "end"}, "none": {"weight": 0, "next": "end"}}},
    "end": {"kind": "exit"}}}');
INSERT INTO crm.journey (journey, version) VALUES ('cart', 1);
INSERT INTO crm.enrolment (contact_id, enrolment_id, journey, version, entered_at, step_at, state, end_reason, ended_at, entered_by)
SELECT n, n, 'cart', 1, at, at, CASE WHEN goal THEN 'exited' ELSE 'finished' END, CASE WHEN goal THEN 'goal' END, at + CASE WHEN goal THEN n * interval '1 hour' ELSE interval '0' END, 'cart'
  FROM (SELECT n, '2025-03-01 12:00+08'::timestamptz + (n % 7) * interval '1 day' AS at, n <= 56 OR n BETWEEN 71 AND 118 AS goal FROM generate_series(1, 150) AS n) AS t;
INSERT INTO crm.step_visit (contact_id, enrolment_id, visit, version, journey, step, entered_at, left_at, outcome, next_step, arm)
SELECT contact_id, enrolment_id, 1, 1, 'cart', 'draw', entered_at, entered_at, 'arm', 'end', CASE WHEN contact_id <= 70 THEN 'gift' ELSE 'plain' END FROM crm.enrolment;
-- a second time, in the other arm: the first one counts
INSERT INTO crm.step_visit (contact_id, enrolment_id, visit, version, journey, step, entered_at, left_at, outcome, next_step, arm)
VALUES (1, 1000, 1, 2, 'cart', 'draw', '2025-03-20', '2025-03-20', 'arm', 'end', 'plain');
CREATE FUNCTION pg_temp.results(arguments text DEFAULT '') RETURNS TABLE (line text) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE format($q$SELECT concat_ws(' ', arm, contacts, still_open, conversions, round(rate::numeric, 4), round(rate_low::numeric, 4), round(rate_high::numeric, 4),
        round(difference::numeric, 4), round(difference_low::numeric, 4), round(difference_high::numeric, 4))
      FROM crm.split_results('cart', 'draw', '2025-03-01', '2025-04-01'%s)$q$, $1);
END $$;
SELECT results_eq($$SELECT * FROM pg_temp.results($x$, baseline => 'plain'$x$)$$, $$VALUES
    ('plain 80 0 48 0.6000 0.4905 0.7004'), ('gift 70 0 56 0.8000 0.6918 0.8770 0.2000 0.0524 0.3339'), ('none 0 0 0')$$, 'the goal, and a difference as it was published');
SELECT results_eq($$SELECT line FROM pg_temp.results() LIMIT 1$$, $$VALUES ('gift 70 0 56 0.8000 0.6918 0.8770')$$, 'compared with the first arm by name');
SELECT is_empty($$SELECT * FROM crm.split_results('cart', 'draw', '2025-03-01', '2025-04-01', confidence => 0.5) n JOIN crm.split_results('cart', 'draw', '2025-03-01', '2025-04-01') w USING (arm)
    WHERE n.rate_low <= w.rate_low OR n.rate_high >= w.rate_high OR n.difference_low <= w.difference_low$$, 'less confidence, narrower intervals');

-- within: a day; who entered less than a day before as_of says nothing yet, converted or not
SELECT results_eq($$SELECT line FROM pg_temp.results($x$, within => '24 hours', baseline => 'plain'$x$)$$, $$VALUES
    ('plain 80 0 0 0.0000 0.0000 0.0458'), ('gift 70 0 24 0.3429 0.2425 0.4596 0.3429 0.2325 0.4596'), ('none 0 0 0')$$, 'in time, the bound included');
SELECT is_empty($$
    SELECT * FROM (SELECT arm, count(*) AS contacts, count(*) FILTER (WHERE entered_at + interval '2 days' > '2025-03-06 12:00+08') AS still_open,
                count(*) FILTER (WHERE entered_at + interval '2 days' <= '2025-03-06 12:00+08' AND ended_at <= entered_at + interval '2 days' AND ended_at <= '2025-03-06 12:00+08' AND end_reason = 'goal') AS conversions
           FROM (SELECT CASE WHEN contact_id <= 70 THEN 'gift' ELSE 'plain' END AS arm, * FROM crm.enrolment) e WHERE entered_at <= '2025-03-06 12:00+08' GROUP BY 1) AS slow
      FULL JOIN (SELECT arm, contacts, still_open, conversions FROM crm.split_results('cart', 'draw', '2025-03-01', '2025-04-01', within => '2 days', as_of => '2025-03-06 12:00+08') WHERE arm <> 'none') AS f USING (arm, contacts, still_open, conversions)
     WHERE slow.arm IS NULL OR f.arm IS NULL OR f.still_open = 0$$, 'as of a time at which some are open');

-- any fact: orders, by a rule, refunds taken off; the first after the arm was drawn
INSERT INTO crm.transaction (contact_id, transaction_id, amount, occurred_at)
SELECT n, n, n, e.entered_at + CASE WHEN n % 2 = 0 THEN interval '0' ELSE interval '-1 second' END FROM generate_series(1, 170) AS n LEFT JOIN crm.enrolment e ON e.contact_id = n WHERE n <= 150;
INSERT INTO crm.transaction (contact_id, kind, amount, occurred_at, refund_of) VALUES (2, 'refund', 2, '2025-03-30', 2), (4, 'refund', 3, '2025-03-30', 4);
SELECT results_eq($$SELECT arm, contacts, conversions FROM crm.split_results('cart', 'draw', '2025-03-01', '2025-04-01', 'purchase')$$, $$VALUES ('gift', 70::bigint, 34::bigint), ('none', 0, 0), ('plain', 80, 40)$$, 'orders at that moment or later; one given back is none');
SELECT results_eq($$SELECT arm, conversions FROM crm.split_results('cart', 'draw', '2025-03-01', '2025-04-01', 'purchase', 'fact.amount >= 60')$$, $$VALUES ('gift', 6::bigint), ('none', 0), ('plain', 40)$$, 'by a rule');

-- held out: they have no enrolment, only a refusal
INSERT INTO crm.refusal (contact_id, kind, object, reason, day, refusals, first_at, last_at)
SELECT n, 'journey', 'cart', 'hold_out', '2025-03-02', 3, '2025-03-02 08:00', '2025-03-02 20:00' FROM generate_series(151, 170) AS n;
INSERT INTO crm.refusal (contact_id, kind, object, reason, day, refusals, first_at, last_at)
VALUES (160, 'journey', 'cart', 'hold_out', '2025-03-09', 1, '2025-03-09', '2025-03-09'), (151, 'journey', 'other', 'hold_out', '2025-03-01', 1, '2025-03-01', '2025-03-01'),
       (150, 'journey', 'cart', 'once', '2025-03-01', 1, '2025-03-01', '2025-03-01');
INSERT INTO crm.transaction (contact_id, transaction_id, amount, occurred_at) SELECT n, n, 10, '2025-03-02 08:00' FROM generate_series(151, 155) AS n;
SELECT results_eq($$SELECT arm, contacts, conversions, round(rate::numeric, 4), round(difference::numeric, 4) FROM crm.split_results('cart', NULL, '2025-03-01', '2025-04-01', 'purchase')$$,
    $$VALUES ('hold_out', 20::bigint, 5::bigint, 0.25, NULL::numeric), ('entered', 150, 74, 0.4933, 0.2433)$$, 'who entered, compared with who was held out');

-- the rows are the numbers
SELECT set_eq(format('SELECT arm, contacts, still_open, conversions FROM crm.split_results(%s) WHERE contacts > 0', arguments),
    format('SELECT arm, count(*) AS a, count(*) FILTER (WHERE still_open) AS b, count(converted_at) FILTER (WHERE NOT still_open) AS c FROM crm.split_rows(%s) GROUP BY arm', arguments), arguments)
  FROM (VALUES ($$'cart', 'draw', '2025-03-01', '2025-04-01'$$), ($$'cart', 'draw', '2025-03-03', '2025-03-05', 'purchase', 'fact.amount > 20', '1 day', '2025-03-05'$$),
               ($$'cart', NULL, '2025-03-01', '2025-04-01', 'purchase', NULL, '30 days'$$)) AS t(arguments);
SELECT results_eq($$SELECT arm, contact_id, enrolment_id, entered_at, converted_at, conversion_id FROM crm.split_rows('cart', NULL, '2025-03-02', '2025-03-03', 'purchase') WHERE contact_id = 151$$,
    $$VALUES ('hold_out', 151::bigint, NULL::bigint, '2025-03-02 08:00'::timestamptz, '2025-03-02 08:00'::timestamptz, 151::bigint)$$, 'a row');
ALTER TABLE crm.contact DISABLE TRIGGER USER;
DELETE FROM crm.contact WHERE contact_id = 5;
ALTER TABLE crm.contact ENABLE TRIGGER USER;
SELECT is((SELECT contacts FROM crm.split_results('cart', 'draw', '2025-03-01', '2025-04-01') WHERE arm = 'gift'), 69::bigint, 'who was deleted is not counted');
SELECT results_eq($$SELECT arm, contacts, rate, difference FROM crm.split_results('cart', 'draw', '2020-03-01', '2020-04-01')$$,
    $$VALUES ('gift', 0::bigint, NULL::float8, NULL::float8), ('none', 0, NULL, NULL), ('plain', 0, NULL, NULL)$$, 'nobody: the arms');

INSERT INTO crm.journey_version (journey, version, definition) VALUES ('aimless', 1, '{"journey": "aimless", "start": "draw", "steps": {"draw": {"kind": "split", "arms": {"a": {"weight": 1, "next": "end"}}}, "end": {"kind": "exit"}}}');
INSERT INTO crm.journey (journey, version) VALUES ('aimless', 1);
SELECT throws_ok(format('SELECT * FROM crm.split_results(%s)', arguments), state, said, coalesce(said, arguments)) FROM (VALUES
    ($$NULL, 'draw', '2025-03-01', '2025-04-01'$$, '22004', 'argument "journey" of crm.split_results() must not be NULL'),
    ($$'card', 'draw', '2025-03-01', '2025-04-01'$$, '23503', NULL),
    ($$'cart', 'drew', '2025-03-01', '2025-04-01'$$, '23503', 'journey "cart" has no split "drew"'),
    ($$'cart', 'end', '2025-03-01', '2025-04-01'$$, '23503', 'journey "cart" has no split "end"'),
    ($$'cart', 'draw', '2025-04-01', '2025-03-01'$$, '22023', NULL),
    ($$'cart', 'draw', '2025-04-01', 'infinity'$$, '22008', NULL),
    ($$'cart', 'draw', '2025-03-01', '2025-04-01', within => '-1 day'$$, '22023', 'within -1 days is not above zero'),
    ($$'cart', 'draw', '2025-03-01', '2025-04-01', within => '0'$$, '22023', 'within 00:00:00 is not above zero'),
    ($$'cart', 'draw', '2025-03-01', '2025-04-01', rule => 'true'$$, '22023', 'a rule is given, but no kind of fact that it is about'),
    ($$'cart', 'draw', '2025-03-01', '2025-04-01', 'purchse'$$, '23503', 'there is no fact of kind "purchse"'),
    ($$'cart', NULL, '2025-03-01', '2025-04-01'$$, '22023', 'who was held out of journey "cart" has no goal in it'),
    ($$'cart', 'draw', '2025-03-01', '2025-04-01', baseline => 'plane'$$, '22023', 'there is no arm "plane" to compare with'),
    ($$'cart', 'draw', '2025-03-01', '2025-04-01', confidence => 95$$, '22023', 'confidence 95 is not between 0 and 1'),
    ($$'cart', 'draw', '2025-03-01', '2025-04-01', confidence => NULL$$, '22004', NULL),
    ($$'aimless', 'draw', '2025-03-01', '2025-04-01'$$, '22023', 'journey "aimless" has no goal')) AS t(arguments, state, said);
CREATE ROLE crm_test_analyst;
SELECT crm.grant_access('crm_test_analyst', 'analyst') \g /dev/null
SET ROLE crm_test_analyst;
SELECT isnt_empty($$SELECT * FROM crm.split_results('cart', 'draw', '2025-03-01', '2025-04-01', 'purchase')$$, 'an analyst may');
SELECT throws_ok($$SELECT * FROM crm.split_results('cart', 'draw', '2025-03-01', '2025-04-01', 'purchase', 'fact.amount > 1')$$, '42501', 'permission denied to count by a rule over facts', 'but not by a rule');
RESET ROLE;
SELECT * FROM finish();
ROLLBACK;
