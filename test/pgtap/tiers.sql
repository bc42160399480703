-- tiers: reached by what is earned or spent, ended by refunds and by time
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET pg_crm.clock = '2024-01-01 00:00Z';
SELECT no_plan();
CREATE FUNCTION pg_temp.tier(contact bigint) RETURNS text LANGUAGE sql AS
$$SELECT coalesce(tier, '-') || coalesce(to_char(tier_since AT TIME ZONE 'Asia/Shanghai', ' MM-DD'), '') || coalesce(to_char(tier_due_at AT TIME ZONE 'Asia/Shanghai', '" until "YYYY-MM-DD'), '')
    FROM crm.membership WHERE contact_id = $1$$;
CREATE FUNCTION pg_temp.changes(contact bigint) RETURNS text LANGUAGE sql AS
$$SELECT string_agg(format('%s>%s %s %s', coalesce(old_tier, '-'), coalesce(new_tier, '-'), to_char(occurred_at AT TIME ZONE 'Asia/Shanghai', 'YYYY-MM-DD'), reason), ', ' ORDER BY tier_change_id)
    FROM crm.tier_change WHERE contact_id = $1$$;

INSERT INTO crm.loyalty_program (name) VALUES ('club'), ('spenders');
INSERT INTO crm.contact (contact_id) SELECT generate_series(1, 9);
INSERT INTO crm.tier (program, tier) VALUES ('club', 'member');
INSERT INTO crm.tier (program, tier, rank, threshold, period) VALUES ('club', 'silver', 1, 100, '6 months'), ('club', 'gold', 2, 300, '1 year');
INSERT INTO crm.tier (program, tier, rank, measure, threshold, period) VALUES ('spenders', 'big', 1, 'spend', 1000, '30 days');
SELECT crm.define_earning_rule('{"name": "yuan", "program": "club", "per_amount": 1}') \g /dev/null

SELECT crm.join_loyalty(1, 'club') \g /dev/null
SELECT is(pg_temp.tier(1), 'member 01-01', 'a member begins with the tier that asks for nothing');
SET pg_crm.clock = '2024-02-01 00:00Z';
SELECT crm.purchase(1, 120) \g /dev/null
SELECT is(pg_temp.tier(1), 'silver 02-01 until 2024-08-01', 'reached by an order, until its points count no more');
SET pg_crm.clock = '2024-03-01 00:00Z';
SELECT crm.purchase(1, 200, external_ref => 'g') \g /dev/null
SELECT is(pg_temp.tier(1), 'gold 03-01 until 2025-02-01', 'and the next');
SELECT crm.spend_points(1, 'club', 320) \g /dev/null
SELECT is(pg_temp.tier(1), 'gold 03-01 until 2025-02-01', 'spending takes no tier');
SET pg_crm.clock = '2024-03-05 00:00Z';
SELECT crm.refund(1, 'g', 30) \g /dev/null
SELECT is(pg_temp.tier(1), 'silver 03-05 until 2024-09-01', 'a refund does');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
SET pg_crm.clock = '2024-03-06 00:00Z';
SELECT crm.earn_points(1, 'club', 10) \g /dev/null
SELECT is(pg_temp.tier(1), 'gold 03-06 until 2025-02-01', 'points by hand count');

-- due moments: gold ends on 2025-02-01; what falls to silver would have ended before
SET pg_crm.clock = '2025-03-10 00:00Z';
SELECT is_empty('SELECT * FROM crm.verify()', 'a tier that is due is no difference');
SELECT crm.recompute(1) \g /dev/null
SELECT is(pg_temp.tier(1), 'member 02-01', 'a tier ends when it is due, and falls as far as it must');
SELECT is(pg_temp.changes(1), '->member 2024-01-01 join_loyalty, member>silver 2024-02-01 purchase, silver>gold 2024-03-01 purchase, '
    'gold>silver 2024-03-05 refund, silver>gold 2024-03-06 earn_points, gold>member 2025-02-01 period', 'each change is a row, dated when it was due');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- what is due comes before what is new
SET pg_crm.clock = '2024-01-01 00:00Z';
SELECT crm.join_loyalty(2, 'club'), crm.earn_points(2, 'club', 150) \g /dev/null
SELECT is(pg_temp.tier(2), 'silver 01-01 until 2024-07-01');
SET pg_crm.clock = '2024-10-01 00:00Z';
SELECT crm.purchase(2, 100, '2024-09-01Z') \g /dev/null
SELECT is(pg_temp.changes(2), '->member 2024-01-01 join_loyalty, member>silver 2024-01-01 earn_points, silver>member 2024-07-01 period, member>silver 2024-09-01 purchase',
    'a tier that ended before the order ends first');
SELECT is(pg_temp.tier(2), 'silver 09-01 until 2025-03-01');
-- a late order that keeps the tier
SET pg_crm.clock = '2024-01-01 00:00Z';
SELECT crm.join_loyalty(3, 'club'), crm.earn_points(3, 'club', 150) \g /dev/null
SET pg_crm.clock = '2024-10-01 00:00Z';
SELECT crm.purchase(3, 100, '2024-06-30Z') \g /dev/null
SELECT is(pg_temp.tier(3), 'silver 01-01 until 2024-12-30', 'a late order from before the end keeps the tier');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- what orders cost, in a rolling period
SELECT crm.join_loyalty(4, 'spenders', '2024-09-01Z') \g /dev/null
SELECT crm.purchase(4, 5000, '2024-08-31Z') \g /dev/null
SELECT is(pg_temp.tier(4), '-', 'orders before joining do not count');
SELECT crm.purchase(4, 600, '2024-09-10Z', 'a'), crm.purchase(4, 600, '2024-09-20Z', 'b') \g /dev/null
SELECT is(pg_temp.tier(4), 'big 09-20 until 2024-10-10', 'two orders in 30 days');
INSERT INTO crm.transaction (contact_id, amount, currency) VALUES (4, 5000, 'EUR');
SELECT is(pg_temp.tier(4), 'big 09-20 until 2024-10-10', 'another currency does not count');
SELECT crm.refund(4, 'a', 300) \g /dev/null
SELECT is(pg_temp.tier(4), '- 10-01', 'net amounts');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- definitions
UPDATE crm.tier SET threshold = 900 WHERE tier = 'big';
SELECT is(pg_temp.tier(4), 'big 10-01 until 2024-10-10', 'a changed tier applies to all');
SELECT matches((SELECT reason FROM crm.tier_change WHERE contact_id = 4 ORDER BY tier_change_id DESC LIMIT 1), 'definition');
DELETE FROM crm.tier WHERE tier = 'big';
SELECT is(pg_temp.tier(4), '- 10-01', 'and so does one that is gone');
SELECT throws_ok(format('INSERT INTO crm.tier (program, tier, %s) VALUES (%L, %L, %L)', c, 'club', 'x', v), '23514', NULL, c || ' ' || v)
  FROM (VALUES ('threshold', '-1'), ('threshold', 'NaN'), ('period', '0'), ('period', '-1 day'), ('period', '2000 years'), ('measure', 'steps')) AS x (c, v);
SELECT throws_ok($$INSERT INTO crm.tier (program, tier) VALUES ('none', 'x')$$, '23503', NULL, 'an unknown programme');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- merging: the joined history decides
SET pg_crm.clock = '2025-06-01 00:00Z';
SELECT crm.join_loyalty(5, 'club'), crm.join_loyalty(6, 'club'), crm.earn_points(5, 'club', 60), crm.earn_points(6, 'club', 60) \g /dev/null
SELECT is(pg_temp.tier(5), 'member 06-01');
SELECT is(pg_temp.tier(6), 'member 06-01');
SELECT crm.merge(5, 6) \g /dev/null
SELECT is(pg_temp.tier(5), 'silver 06-01 until 2025-12-01', 'together they reach more');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound when merged');
SELECT crm.unmerge(6) \g /dev/null
SELECT is(pg_temp.tier(5), 'member 06-01');
SELECT is(pg_temp.tier(6), 'member 06-01', 'than apart');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound when unmerged');

-- what time alone brings
SET pg_crm.clock = '2025-12-01 00:00Z';
SELECT crm.join_loyalty(7, 'club'), crm.earn_points(7, 'club', 150) \g /dev/null
SELECT is(crm.tick('2026-05-31 23:59:59Z'), 0, 'tick() enters no journey steps');
SELECT is(pg_temp.tier(7), 'silver 12-01 until 2026-06-01', 'not due yet');
SELECT crm.tick('2026-06-01Z') \g /dev/null
SELECT is(pg_temp.tier(7), 'member 06-01', 'due at its moment');
SELECT crm.tick('2020-01-01Z') \g /dev/null
SELECT is(pg_temp.tier(7), 'member 06-01', 'a time before moves nobody');
SELECT throws_ok($$SELECT crm.tick('infinity')$$, '22008');
SELECT throws_ok($$SELECT crm.tick(NULL, -1)$$, '22023');
SET pg_crm.clock = '2026-06-01 00:00Z';
SELECT is_empty('SELECT * FROM crm.verify() WHERE contact_id = 7', 'sound');
SET pg_crm.clock = '2025-06-01 00:00Z';

-- found and mended
UPDATE crm.membership SET tier = 'gold' WHERE contact_id = 5;
SELECT results_eq('SELECT check_name, contact_id, expected, found FROM crm.verify()', $$VALUES ('tier in programme 1', 5::bigint, 'member', 'gold')$$, 'a wrong tier is found');
SELECT crm.recompute(5) \g /dev/null
SELECT is_empty('SELECT * FROM crm.verify()', 'and mended');
SELECT results_eq($$SELECT kind, detail FROM crm.contact_timeline WHERE contact_id = 1 AND source_table = 'tier_change' ORDER BY source_id DESC LIMIT 1$$,
    $$VALUES ('tier', '{"program": "club", "old_tier": "gold", "new_tier": "member", "reason": "period"}'::jsonb)$$, 'in the timeline');

SELECT * FROM finish();
ROLLBACK;
