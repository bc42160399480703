-- points: given and taken by calls, earned by rules on facts, taken back by refunds; tiers
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET pg_crm.clock = '2024-06-01 12:00Z';
SELECT no_plan();

CREATE FUNCTION pg_temp.points(contact bigint, program text = 'club') RETURNS bigint LANGUAGE sql AS
$$SELECT b.points FROM crm.point_balance b JOIN crm.loyalty_program p USING (loyalty_program_id)
   WHERE b.contact_id = $1 AND p.name = $2$$;
-- the ledger of a contact, in a line
CREATE FUNCTION pg_temp.ledger(contact bigint) RETURNS text LANGUAGE sql AS
$$SELECT string_agg(format('%s %s by %s (%s)', kind, points, coalesce(earning_rule, 'hand'), coalesce(reason, '-')), ', ' ORDER BY point_entry_id)
    FROM crm.point_entry WHERE contact_id = $1$$;

SELECT function_returns('crm', 'earn_points', ARRAY['bigint', 'text', 'bigint', 'text', 'text'], 'bigint');
SELECT function_returns('crm', 'spend_points', ARRAY['bigint', 'text', 'bigint', 'text', 'text'], 'bigint');
SELECT function_returns('crm', 'define_earning_rule', ARRAY['jsonb'], 'integer');

INSERT INTO crm.loyalty_program (name) VALUES ('club'), ('gold');
INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2024-01-01' FROM generate_series(1, 20) AS n;

-- by hand
SELECT is(crm.earn_points(1, 'club', 100, 'welcome', 'w'), 100::bigint, 'points are given');
SELECT is(crm.earn_points(1, 'club', 20), 120::bigint);
SELECT is(crm.spend_points(1, 'club', 50, 'mug', 'm'), 70::bigint, 'and taken');
SELECT is(crm.earn_points(1, 'club', 100, 'welcome', 'w'), 100::bigint, 'a replay returns the first result');
SELECT is(crm.spend_points(1, 'club', 50, 'mug', 'm'), 70::bigint);
SELECT is(pg_temp.points(1), 70::bigint, 'and moves nothing');
SELECT throws_ok($$SELECT crm.earn_points(1, 'club', 101, 'welcome', 'w')$$, '23505', NULL, 'the key with other points');
SELECT throws_ok($$SELECT crm.earn_points(1, 'club', 100, 'other', 'w')$$, '23505', NULL, 'another reason');
SELECT throws_ok($$SELECT crm.earn_points(1, 'gold', 100, 'welcome', 'w')$$, '23505', NULL, 'another programme');
SELECT lives_ok($$SELECT crm.spend_points(1, 'club', 1, 'welcome', 'w')$$, 'spending has keys of its own');
SELECT throws_ok($$SELECT crm.spend_points(1, 'club', 70)$$, '23514', 'contact 1 has 69 points in "club", fewer than the 70 to spend', 'never below zero');
SELECT throws_ok($$SELECT crm.spend_points(2, 'club', 1)$$, '23514', NULL, 'who has none spends none');
SELECT is(crm.spend_points(1, 'club', 69), 0::bigint, 'down to zero');
SELECT is(crm.earn_points(1, 'gold', 5), 5::bigint, 'each programme by itself');
SELECT results_eq('SELECT kind, points, balance_after, reason FROM crm.point_entry WHERE contact_id = 1 AND loyalty_program_id = 1 ORDER BY point_entry_id',
    $$VALUES ('earned', 100::bigint, 100::bigint, 'welcome'), ('earned', 20, 120, NULL), ('spent', -50, 70, 'mug'),
             ('spent', -1, 69, 'welcome'), ('spent', -69, 0, NULL)$$, 'the ledger');
SELECT throws_ok(s, code, NULL, s) FROM (VALUES
    ($$SELECT crm.earn_points(99, 'club', 1)$$, '23503'), ($$SELECT crm.earn_points(1, 'none', 1)$$, '23503'),
    ($$SELECT crm.earn_points(1, 'club', 0)$$, '23514'), ($$SELECT crm.earn_points(1, 'club', -1)$$, '23514'),
    ($$SELECT crm.spend_points(1, 'club', -1)$$, '23514'), ($$SELECT crm.earn_points(1, 'club', 9223372036854775807)$$, '23514'),
    ($$SELECT crm.earn_points(NULL, 'club', 1)$$, '22004'), ($$SELECT crm.earn_points(1, NULL, 1)$$, '22004'),
    ($$SELECT crm.spend_points(1, 'club', NULL)$$, '22004'), ($$SELECT crm.earn_points(1, 'club', 1, key => '')$$, '23514'),
    ($$SELECT crm.earn_points(1, 'club', 1, key => repeat('k', 256))$$, '22001'),
    ($$SELECT crm.earn_points(1, repeat('p', 256), 1)$$, '22001'),
    ($$SELECT crm.earn_points(1, 'club', 1, repeat('r', 1024 * 1024 + 1))$$, '54000'),
    ($$UPDATE crm.point_entry SET points = 1000 WHERE contact_id = 1$$, '42501'), ($$DELETE FROM crm.point_entry$$, '42501'),
    ($$TRUNCATE crm.point_entry$$, '42501')) AS v (s, code);
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- by rules: one point for each full 10 yuan, from joining on
SELECT crm.join_loyalty(3, 'club', '2024-02-01Z'), crm.join_loyalty(4, 'club', '2024-02-01Z') \g /dev/null
SELECT is(crm.define_earning_rule('{"name": "yuan", "program": "club", "per_amount": 10}'), 1, 'a rule');
SELECT is(crm.define_earning_rule('{"name": "yuan", "program": "club", "per_amount": 10}'), 1, 'saved again as it is');
SELECT crm.purchase(3, 99, '2024-01-31Z', 'before') \g /dev/null
SELECT is(pg_temp.points(3), NULL, 'an order before joining earns nothing');
SELECT crm.purchase(3, 99, '2024-03-01Z', 'o1') \g /dev/null
SELECT is(pg_temp.points(3), 9::bigint, 'an order of a member does');
SELECT crm.purchase(3, 99, '2024-03-01Z', 'o1') \g /dev/null
SELECT is(pg_temp.points(3), 9::bigint, 'delivered twice, it earns once');
SELECT crm.purchase(3, 1000, '2024-02-02Z', 'late') \g /dev/null
SELECT is(pg_temp.points(3), 109::bigint, 'a late order too');
SELECT crm.purchase(2, 1000, '2024-03-01Z', 'o1') \g /dev/null
SELECT is(pg_temp.points(2), NULL, 'who is no member earns nothing');
INSERT INTO crm.transaction (contact_id, amount, currency, occurred_at) VALUES (3, 1000, 'EUR', '2024-03-02Z');
SELECT is(pg_temp.points(3), 109::bigint, 'nor does another currency');
SELECT results_eq($$SELECT e.kind, e.points, e.balance_after, e.source_table, t.external_ref, e.occurred_at, e.reason, e.cause_id = e.source_id
    FROM crm.point_entry e JOIN crm.transaction t ON t.contact_id = e.contact_id AND t.transaction_id = e.source_id WHERE e.contact_id = 3 ORDER BY point_entry_id$$,
    $$VALUES ('earned', 9::bigint, 9::bigint, 'transaction', 'o1', '2024-03-01Z'::timestamptz, 'purchase', true),
             ('earned', 100, 109, 'transaction', 'late', '2024-02-02Z', 'purchase', true)$$, 'with time and cause');

-- refunds: a part takes a part, all of it all, nothing twice
SELECT crm.refund(3, 'o1', 40, '2024-03-05Z', 'r1') \g /dev/null
SELECT is(pg_temp.points(3), 105::bigint, '59 left are 5 points');
SELECT crm.refund(3, 'o1', 40, '2024-03-05Z', 'r1') \g /dev/null
SELECT is(pg_temp.points(3), 105::bigint, 'the refund again takes nothing again');
SELECT crm.refund(3, 'o1', 5, '2024-03-06Z', 'r2') \g /dev/null
SELECT is(pg_temp.points(3), 105::bigint, '54 left are 5 points too');
SELECT crm.refund(3, 'o1', 54, '2024-03-07Z', 'r3') \g /dev/null
SELECT is(pg_temp.points(3), 100::bigint, 'bought and given back: no points are kept');
SELECT is(pg_temp.ledger(3), 'earned 9 by yuan (purchase), earned 100 by yuan (purchase), reversed -4 by yuan (refund), reversed -5 by yuan (refund)', 'as entries');
SELECT is((SELECT array_agg(t.external_ref ORDER BY e.point_entry_id) FROM crm.point_entry e JOIN crm.transaction t ON t.contact_id = e.contact_id AND t.transaction_id = e.cause_id
    WHERE e.contact_id = 3 AND e.kind = 'reversed'), '{r1,r3}', 'that name their refunds');
SELECT is(crm.spend_points(3, 'club', 100), 0::bigint);
SELECT crm.refund(3, 'late', 1000, '2024-04-01Z') \g /dev/null
SELECT is(pg_temp.points(3), -100::bigint, 'points spent and then taken back: a debt');
SELECT throws_ok($$SELECT crm.spend_points(3, 'club', 1)$$, '23514', NULL, 'that is not spent from');
SELECT crm.purchase(3, 1200, '2024-04-02Z') \g /dev/null
SELECT is(pg_temp.points(3), 20::bigint, 'and paid by what is earned');
-- voided in the statement that sold it
WITH o AS (INSERT INTO crm.transaction (contact_id, transaction_id, amount, occurred_at) VALUES (4, 500, 300, '2024-03-01Z') RETURNING *)
INSERT INTO crm.transaction (contact_id, kind, amount, occurred_at, refund_of) SELECT contact_id, 'refund', 100, '2024-03-01Z', 500 FROM o;
SELECT is(pg_temp.points(4), 20::bigint, 'sold and partly voided in one statement');
INSERT INTO crm.transaction (contact_id, transaction_id, kind, amount, occurred_at, refund_of) VALUES
    (4, 501, 'purchase', 80, '2024-03-02Z', NULL), (4, 502, 'refund', 80, '2024-03-02Z', 501), (4, 503, 'purchase', 10, '2024-03-02Z', NULL);
SELECT is(pg_temp.points(4), 21::bigint, 'as rows of one INSERT');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- fixed points, rounding, conditions, validity, events, scans
SELECT crm.define_earning_rule('{"name": "bonus", "program": "club", "points": 50, "rule": "fact.amount >= 100", "valid_from": "2024-05-01Z", "valid_until": "2024-06-01Z"}'),
       crm.define_earning_rule('{"name": "half", "program": "gold", "points": 1.5, "per_amount": 1, "rounding": "up"}'),
       crm.define_earning_rule('{"name": "near", "program": "gold", "points": 0.5, "per_amount": 1, "rounding": "nearest"}'),
       crm.define_earning_rule('{"name": "review", "program": "club", "on_kind": "review", "points": 7}'),
       crm.define_earning_rule('{"name": "scan", "program": "club", "on_kind": "scan", "points": 3}'),
       crm.define_earning_rule('{"name": "welcome", "program": "gold", "on_kind": "join_loyalty", "points": 11}') \g /dev/null
SELECT crm.join_loyalty(5, 'club', '2024-04-01Z') \g /dev/null
SELECT crm.purchase(5, 100, '2024-04-30Z', 'a'), crm.purchase(5, 100, '2024-05-01Z', 'b'), crm.purchase(5, 99, '2024-05-02Z', 'c'), crm.purchase(5, 200, '2024-06-01Z', 'd') \g /dev/null
SELECT is(pg_temp.points(5), (10 + 10 + 50 + 9 + 20)::bigint, 'a bonus in May for orders of 100 and more');
SELECT crm.purchase(5, 400, '2024-05-10Z', 'e') \g /dev/null
SELECT is(pg_temp.points(5), 189::bigint);
SELECT crm.refund(5, 'e', 100, '2024-05-11Z') \g /dev/null
SELECT is(pg_temp.points(5), (189 - 10 - 13)::bigint, 'of fixed points, a quarter given back takes a quarter');
SELECT crm.refund(5, 'e', 250, '2024-05-12Z') \g /dev/null
SELECT is(pg_temp.points(5), (99 + 5)::bigint, 'what is left does not meet the condition');
SELECT crm.join_loyalty(6, 'gold', '2024-04-01Z') \g /dev/null
SELECT is(pg_temp.points(6, 'gold'), 11::bigint, 'joining earns');
SELECT crm.purchase(6, 3, '2024-04-02Z') \g /dev/null
SELECT is(pg_temp.points(6, 'gold'), (11 + 5 + 2)::bigint, '4.5 up and 1.5 to the nearest');
INSERT INTO crm.event (contact_id, kind, occurred_at) VALUES (5, 'review', '2024-05-01Z'), (5, 'review', '2024-03-01Z'), (5, 'purchase', '2024-05-01Z'), (6, 'review', '2024-05-01Z');
SELECT is(pg_temp.points(5), 111::bigint, 'an event since joining');
SELECT crm.track(5, 'review', key => 'k'), crm.track(5, 'review', key => 'k') \g /dev/null
SELECT is(pg_temp.points(5), 118::bigint, 'delivered twice, once');
INSERT INTO crm.account (kind, name) VALUES ('official_account', 'oa');
SELECT crm.define_qr_code('{"account": "oa", "scene": "door"}') \g /dev/null
INSERT INTO crm.scan (contact_id, qr_code_id, occurred_at) VALUES (5, 1, '2024-05-03Z'), (5, 1, '2024-05-04Z');
SELECT is(pg_temp.points(5), 121::bigint, 'a scan that counts');
INSERT INTO crm.scan (contact_id, qr_code_id, occurred_at) VALUES (5, 1, '2024-05-02Z');
SELECT is(pg_temp.points(5), 121::bigint, 'an earlier one takes over');
SELECT is((SELECT sum(points) FROM crm.point_entry WHERE contact_id = 5 AND source_table = 'scan' AND source_at = '2024-05-02Z'), 3::numeric);
INSERT INTO crm.scan (contact_id, qr_code_id, occurred_at) VALUES (5, 1, '2024-02-02Z');
SELECT is(pg_temp.points(5), 118::bigint, 'one before joining takes over, and earns nothing');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- joining in the past, a rule that comes later or changes, ends, goes
SELECT crm.purchase(7, 100, '2024-03-01Z', 'a'), crm.purchase(7, 100, '2024-05-01Z', 'b') \g /dev/null
SELECT crm.join_loyalty(7, 'club', '2024-04-01Z') \g /dev/null
SELECT is(pg_temp.points(7), 60::bigint, 'joined for an earlier time: orders since then earn');
SELECT crm.define_earning_rule('{"name": "yuan", "program": "club", "per_amount": 5}') \g /dev/null
SELECT is(pg_temp.points(7), 70::bigint, 'a changed rule changes what it gave');
UPDATE crm.earning_rule SET valid_until = '2024-05-01Z' WHERE name = 'yuan';
SELECT is(pg_temp.points(7), 50::bigint, 'one that ended earlier takes back');
UPDATE crm.earning_rule SET label = 'Yuan', valid_until = NULL, per_amount = 10 WHERE name = 'yuan';
SELECT is(pg_temp.points(7), 60::bigint);
SELECT is((SELECT count(*) FROM crm.point_entry WHERE contact_id = 7 AND NOT correction), 2::bigint, 'corrections are marked');
DELETE FROM crm.earning_rule WHERE name = 'bonus';
SELECT is(pg_temp.points(7), 10::bigint, 'one that is gone gives nothing');
SELECT is((SELECT count(*) FROM crm.definition_log WHERE table_name = 'earning_rule' AND name = 'yuan'), 4::bigint, 'logged');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
SELECT throws_ok(format('SELECT crm.define_earning_rule(%L)', d), code, NULL, d) FROM (VALUES
    ('{"name": "x"}', '22004'), ('{"name": "x", "program": "none"}', '23503'), ('{"name": "", "program": "club"}', '23514'),
    ('{"name": "x", "program": "club", "points": 0}', '23514'), ('{"name": "x", "program": "club", "points": -1}', '23514'),
    ('{"name": "x", "program": "club", "per_amount": 0}', '23514'), ('{"name": "x", "program": "club", "on_kind": "cart", "per_amount": 1}', '23514'),
    ('{"name": "x", "program": "club", "on_kind": "refund"}', '23514'), ('{"name": "x", "program": "club", "rounding": "sideways"}', '23514'),
    ('{"name": "x", "program": "club", "rule": "fact.price > 1"}', '42703'), ('{"name": "x", "program": "club", "colour": 1}', '22023'),
    ('{"name": "x", "program": "club", "valid_from": "2024-01-02", "valid_until": "2024-01-01"}', '23514')) AS v (d, code);
SELECT throws_ok($$INSERT INTO crm.earning_rule (name, program, points) VALUES ('x', 'club', 'NaN')$$, '23514', NULL, 'NaN points');
SELECT throws_ok($$INSERT INTO crm.earning_rule (name, program, points) VALUES ('x', 'club', 'Infinity')$$, '23514', NULL, 'infinite points');

-- an amount beyond all points does not stop the order
SELECT lives_ok($$SELECT crm.purchase(4, 1e40, '2024-05-01Z', 'huge')$$, 'a huge order is recorded');
SELECT is(pg_temp.points(4), 21 + 1000000000000000, 'its points have a limit');
SELECT crm.refund(4, 'huge', 1e40) \g /dev/null
SELECT is(pg_temp.points(4), 21::bigint);

-- a batch: many members, many orders, the same as one by one
SELECT crm.join_loyalty(n, 'club', '2024-01-01Z') FROM generate_series(8, 11) AS n \g /dev/null
INSERT INTO crm.transaction (contact_id, amount, occurred_at) SELECT 8 + n % 2, n, '2024-02-01Z'::timestamptz + n % 17 * interval '1 day' FROM generate_series(1, 300) AS n;
DO $$BEGIN FOR n IN 1 .. 300 LOOP
    INSERT INTO crm.transaction (contact_id, amount, occurred_at) VALUES (10 + n % 2, n, '2024-02-01Z'::timestamptz + n % 17 * interval '1 day');
END LOOP; END$$;
SELECT is(pg_temp.points(8), pg_temp.points(10), 'a batch earns what single rows earn');
SELECT is(pg_temp.points(9), pg_temp.points(11));
SELECT is(pg_temp.points(8), (SELECT sum(n / 10) FROM generate_series(2, 300, 2) AS n)::bigint);
SELECT is((SELECT balance_after FROM crm.point_entry WHERE contact_id = 8 ORDER BY point_entry_id DESC LIMIT 1), pg_temp.points(8), 'the last entry has the balance');
SELECT is_empty($$SELECT FROM (SELECT balance_after, sum(points) OVER (PARTITION BY contact_id, loyalty_program_id ORDER BY point_entry_id) AS running
    FROM crm.point_entry) AS e WHERE balance_after <> running$$, 'and every entry that at its time');

-- merging
SELECT crm.join_loyalty(12, 'club', '2024-03-01Z'), crm.join_loyalty(13, 'club', '2024-02-01Z') \g /dev/null
SELECT crm.purchase(12, 100, '2024-02-15Z', 'early'), crm.purchase(12, 100, '2024-03-15Z', 'a'), crm.purchase(13, 200, '2024-02-15Z', 'b') \g /dev/null
SELECT crm.earn_points(13, 'club', 5, 'gift', 'g') \g /dev/null
SELECT is(pg_temp.points(12), 10::bigint);
SELECT is(pg_temp.points(13), 25::bigint);
SELECT is(crm.merge(12, 13), 12::bigint, 'merged');
SELECT is(pg_temp.points(12), 45::bigint, 'points of both, and of an order since the earlier joining');
SELECT is(crm.earn_points(13, 'club', 5, 'gift', 'g'), 25::bigint, 'a replay for the old id');
SELECT is(pg_temp.points(12), 45::bigint, 'gives nothing');
SELECT crm.refund(12, 'b', 100, '2024-03-20Z') \g /dev/null
SELECT is(pg_temp.points(12), 35::bigint);
SELECT is_empty('SELECT * FROM crm.verify()', 'sound when merged');
SELECT crm.unmerge(13) \g /dev/null
SELECT is(pg_temp.points(12), 10::bigint, 'unmerged: its own points');
SELECT is(pg_temp.points(13), 15::bigint, 'and those of the other, less the refund');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound when unmerged');
SELECT crm.merge(12, 13) \g /dev/null
SELECT is(pg_temp.points(12), 35::bigint, 'merged again');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound when merged again');
SELECT crm.unmerge(13) \g /dev/null
SELECT is(pg_temp.points(12), 10::bigint);
SELECT is(pg_temp.points(13), 15::bigint, 'and again two');
-- a rule defined while they are one
SELECT crm.merge(12, 13) \g /dev/null
SELECT crm.define_earning_rule('{"name": "one", "program": "club", "rounding": "up"}') \g /dev/null
SELECT crm.unmerge(13) \g /dev/null
SELECT is(pg_temp.points(12), 11::bigint);
SELECT is(pg_temp.points(13), 16::bigint, 'a rule of the time between goes with its facts');
SELECT crm.merge(12, 13) \g /dev/null
SELECT is(pg_temp.points(12), 38::bigint, 'and comes back with them');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
DELETE FROM crm.earning_rule WHERE name = 'one';

-- what verify() finds, and recompute() mends
UPDATE crm.point_balance SET points = points + 1 WHERE contact_id = 8 AND loyalty_program_id = 1;
INSERT INTO crm.point_entry (contact_id, loyalty_program_id, kind, points, balance_after, earning_rule, source_table, source_id, correction, source_at, occurred_at, recorded_at)
SELECT 9, 1, 'earned', 3, 3, 'yuan', 'transaction', min(source_id), true, now(), now(), now() FROM crm.point_entry WHERE contact_id = 9;
SELECT results_eq('SELECT contact_id, check_name ~ ''^points'' FROM crm.verify() ORDER BY 1, 2', 'VALUES (8::bigint, true), (9, true), (9, true)', 'a wrong balance and a wrong entry are found');
SELECT crm.recompute() \g /dev/null
SELECT is_empty('SELECT * FROM crm.verify()', 'and mended');

-- the timeline
SELECT results_eq($$SELECT kind, occurred_at, detail FROM crm.contact_timeline WHERE contact_id = 1 AND source_table = 'point_entry' ORDER BY source_id LIMIT 3$$,
    $$VALUES ('points_earned', '2024-06-01 12:00Z'::timestamptz, '{"program": "club", "points": 100, "reason": "welcome"}'::jsonb),
             ('points_earned', '2024-06-01 12:00Z', '{"program": "club", "points": 20}'),
             ('points_spent', '2024-06-01 12:00Z', '{"program": "club", "points": -50, "reason": "mug"}')$$, 'in the timeline');

SELECT * FROM finish();
ROLLBACK;
