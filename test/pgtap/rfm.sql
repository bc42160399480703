-- recency, frequency, monetary value: at the bounds, with refunds, as of other times, refused thresholds
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install();
SET search_path = public, pg_catalog;
SET TimeZone = 'UTC';
SET pg_crm.clock = '2024-07-01 00:30+08';
SELECT no_plan();

SELECT is_empty('SELECT * FROM crm.rfm()', 'nobody');
SELECT is_empty('SELECT * FROM crm.rfm_cells()', 'no cell');
INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2023-01-01' FROM generate_series(1, 12) AS n;
-- so many orders of so much, the last of them so many days before the 1st of July, one minute before midnight in Shanghai
CREATE FUNCTION pg_temp.orders(who bigint, orders integer, amount numeric, days integer) RETURNS void LANGUAGE sql AS $$
    INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref)
    SELECT who, amount, '2024-07-01 23:59+08'::timestamptz - (days + (orders - k) * 2) * interval '1 day', k FROM generate_series(1, orders) AS k
$$;
SELECT pg_temp.orders(1, 1, 49.99, 30), pg_temp.orders(2, 2, 25, 31), pg_temp.orders(3, 4, 50, 90), pg_temp.orders(4, 5, 39.99, 91),
       pg_temp.orders(5, 9, 0, 180), pg_temp.orders(6, 10, 100, 181), pg_temp.orders(7, 10, 99.99, 1), pg_temp.orders(8, 1, 1000, 400) \g /dev/null
SELECT results_eq('SELECT contact_id, cell, recency_days, orders, spend FROM crm.rfm()', $$VALUES
    (1::bigint, '411', 30, 1::bigint, 49.99), (2, '322', 31, 2, 50), (3, '323', 90, 4, 200), (4, '232', 91, 5, 199.95),
    (5, '231', 180, 9, 0), (6, '144', 181, 10, 1000), (7, '443', 1, 10, 999.90), (8, '114', 400, 1, 1000)$$, 'the bounds belong to the better score');
SELECT results_eq($$SELECT contact_id, recency_days FROM crm.rfm(time_zone => 'UTC') WHERE contact_id < 3$$, $$VALUES (1::bigint, 29), (2, 30)$$, 'days of another zone');

-- refunds: what is left counts, at the time of the order, whenever it was given back; nothing left is no order
SELECT crm.refund(2, '2', 25, '2024-06-30', 'r1'), crm.refund(3, '4', 0.01, '2024-06-30', 'r2'), crm.refund(8, '1', 1000, '2024-06-30', 'r3') \g /dev/null
SELECT results_eq('SELECT contact_id, cell, recency_days, orders, spend FROM crm.rfm() WHERE contact_id IN (2, 3, 8)', $$VALUES
    (2::bigint, '311', 33, 1::bigint, 25::numeric), (3, '322', 90, 4, 199.99)$$, 'refunds');
SELECT set_eq('SELECT contact_id, orders, spend, last_order_at FROM crm.rfm()', 'SELECT contact_id, orders, spend, last_order_at FROM crm.profile_counter WHERE orders > 0', 'as the profile counts them');
INSERT INTO crm.transaction (contact_id, amount, currency, occurred_at) VALUES (9, 5000, 'USD', '2024-06-20');
SELECT results_eq('SELECT cell, orders, spend FROM crm.rfm() WHERE contact_id = 9', $$VALUES ('411', 1::bigint, 0::numeric)$$, 'an order in another currency is an order of no amount');

-- as of another time
SELECT is_empty($$SELECT * FROM crm.rfm('2020-01-01')$$, 'before all orders');
SELECT results_eq($$SELECT recency_days, orders, spend FROM crm.rfm('2024-06-16 12:00+08') WHERE contact_id = 7$$,
    $$SELECT '2024-06-16'::date - max((occurred_at AT TIME ZONE 'Asia/Shanghai')::date), count(*), sum(amount) FROM crm.transaction WHERE contact_id = 7 AND occurred_at <= '2024-06-16 12:00+08'$$, 'the orders by then');
SELECT is((SELECT orders FROM crm.rfm((SELECT min(occurred_at) FROM crm.transaction WHERE contact_id = 7)) WHERE contact_id = 7), 1::bigint, 'an order of that moment is one');

-- cells are their rows; thresholds are parameters, in either order
SELECT set_eq('SELECT cell, contacts, orders, spend FROM crm.rfm_cells()', 'SELECT cell, count(*) AS contacts, sum(orders)::bigint AS orders, sum(spend) AS spend FROM crm.rfm() GROUP BY cell', 'cells are their rows');
SELECT is((SELECT sum(contacts) FROM crm.rfm_cells()), (SELECT count(*)::numeric FROM crm.profile_counter WHERE orders > 0), 'everybody who ordered is in one');
SELECT set_eq($$SELECT * FROM crm.rfm(NULL, '{180,90,30}', '{10,5,2}', '{1000,200,50}')$$, 'SELECT * FROM crm.rfm()', 'falling thresholds mean the same');
SELECT results_eq($$SELECT cell FROM crm.rfm(NULL, '{365}', '{1,2,3,4,5,6,7,8}', '{0.5}') WHERE contact_id IN (1, 5, 6)$$, $$VALUES ('222'), ('291'), ('292')$$, 'other thresholds');

SELECT throws_ok(format('SELECT * FROM crm.rfm(NULL, %s)', arguments), state, said, said) FROM (VALUES
    ($$NULL$$, '22004', 'argument "recency" of crm.rfm() must not be NULL'),
    ($$'{}'$$, '22023', 'thresholds of recency are none'),
    ($$'{30,NULL}'$$, '22023', 'thresholds of recency hold a NULL'),
    ($$'{30,30}'$$, '22023', 'thresholds of recency neither grow nor fall'),
    ($$'{30,90,60}'$$, '22023', 'thresholds of recency neither grow nor fall'),
    ($$'{-1}'$$, '22023', 'thresholds of recency hold -1'),
    ($$'{NaN}'$$, '22023', 'thresholds of recency hold NaN'),
    ($$'{30,Infinity}'$$, '22023', 'thresholds of recency hold Infinity'),
    ($$'{{30},{90}}'$$, '22023', 'thresholds of recency are an array of arrays'),
    ($$'{1,2,3,4,5,6,7,8,9}'$$, '22023', 'thresholds of recency are 9'),
    ($$'{30}', monetary => '{5,5}'$$, '22023', 'thresholds of monetary neither grow nor fall'),
    ($$'{30}', time_zone => 'Mars'$$, '22023', 'time zone "Mars" is not known')) AS t(arguments, state, said);
SELECT throws_ok($$SELECT * FROM crm.rfm_cells('infinity')$$, '22008', 'as_of must be finite, not infinity', 'an infinite time');
CREATE ROLE crm_test_analyst;
SELECT crm.grant_access('crm_test_analyst', 'analyst') \g /dev/null
SET ROLE crm_test_analyst;
SELECT isnt_empty('SELECT * FROM crm.rfm_cells()', 'an analyst may');
RESET ROLE;
SELECT * FROM finish();
ROLLBACK;
