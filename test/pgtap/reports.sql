-- reports of a period, from facts counted by day, against the same counts made from the rows
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install();
SET TimeZone = 'UTC';
SET pg_crm.clock = '2024-06-30 12:00+08';
SELECT no_plan();
SELECT crm.keep_roll_ups();

-- nothing there
SELECT is_empty($$SELECT 1 FROM crm.scan_report('2024-01-01', '2024-02-01') UNION ALL SELECT 1 FROM crm.store_report('2024-01-01', '2024-02-01')
    UNION ALL SELECT 1 FROM crm.associate_report('2024-01-01', '2024-02-01') UNION ALL SELECT 1 FROM crm.coupon_report('2024-01-01', '2024-02-01')
    UNION ALL SELECT 1 FROM crm.loyalty_report('2024-01-01', '2024-02-01') UNION ALL SELECT 1 FROM crm.award_report('2024-01-01', '2024-02-01')$$, 'nothing gives nothing');

INSERT INTO crm.account (kind, name) VALUES ('official_account', 'maison');
INSERT INTO crm.store (name) VALUES ('north'), ('south'), ('closed');
INSERT INTO crm.associate (userid, store_id) VALUES ('li', 1), ('wu', 2);
INSERT INTO crm.qr_code (account_id, scene, store_id, associate_id, campaign) VALUES (1, 'a', 1, 1, 'spring'), (1, 'b', 2, 2, 'spring'), (1, 'c', NULL, NULL, NULL);
INSERT INTO crm.loyalty_program (name) VALUES ('club');
SELECT crm.define_earning_rule('{"name": "spend", "program": "club", "points": 1, "per_amount": 10}');
SELECT crm.define_coupon('{"name": "ten", "valid_for": "10 days"}');
SELECT crm.scan((ARRAY['a', 'b', 'c'])[1 + n % 3], 'maison', 'o' || n % 20, '2024-02-27 15:30Z'::timestamptz + n * interval '97 minutes') FROM generate_series(1, 200) AS n;
SELECT crm.join_loyalty(n, 'club', '2024-02-01Z'::timestamptz + n * interval '2 days') FROM generate_series(1, 10) AS n;
SELECT crm.purchase(1 + n % 20, 10 * n, '2024-02-28 15:00Z'::timestamptz + n * interval '5 hours', 'p' || n, CASE n % 3 WHEN 0 THEN NULL ELSE n % 3 END) FROM generate_series(1, 60) AS n;
SELECT crm.refund(1 + n % 20, 'p' || n, 10 * n / (1 + n % 2), '2024-06-01Z', 'r' || n) FROM generate_series(1, 60, 7) AS n;
SELECT crm.issue_coupon(n, 'ten') FROM generate_series(1, 5) AS n;
SELECT crm.redeem_coupon(contact_id, code, 1) FROM crm.coupon_grant WHERE contact_id < 3;
-- events that have the name of another fact are none
INSERT INTO crm.event (contact_id, kind, occurred_at) SELECT 1, kind, '2024-03-01 12:00Z' FROM unnest('{purchase,scan,refund}'::text[]) AS kind;

-- each number against the rows, before and after the counts are added up; days of Shanghai
CREATE FUNCTION pg_temp.within(at timestamptz) RETURNS boolean LANGUAGE sql
    AS $$SELECT at >= '2024-02-29 00:00+08' AND at < '2024-03-08 00:00+08'$$;
PREPARE scans AS SELECT qr_code_id, scans, won FROM crm.scan_report('2024-02-29', '2024-03-08');
PREPARE exact_scans AS SELECT q.qr_code_id, (SELECT count(*) FROM crm.scan AS s WHERE s.qr_code_id = q.qr_code_id AND pg_temp.within(s.occurred_at)) AS scans,
    (SELECT count(*) FROM crm.acquisition AS a WHERE a.qr_code_id = q.qr_code_id AND pg_temp.within(a.occurred_at)) AS won FROM crm.qr_code AS q;
PREPARE stores AS SELECT store_id, store, scans, won, orders, revenue, refunded, voided FROM crm.store_report('2024-02-29', '2024-03-08');
PREPARE exact_stores AS SELECT s.store_id, s.name,
    (SELECT count(*) FROM crm.scan AS x JOIN crm.qr_code AS q USING (qr_code_id) WHERE q.store_id = s.store_id AND pg_temp.within(x.occurred_at)) AS scans,
    (SELECT count(*) FROM crm.acquisition AS a WHERE a.store_id = s.store_id AND pg_temp.within(a.occurred_at)) AS won,
    count(o.net) FILTER (WHERE o.net > 0) AS orders, coalesce(sum(o.net), 0) AS revenue, coalesce(sum(o.amount - o.net), 0) AS refunded,
    count(o.net) FILTER (WHERE o.net = 0) AS voided
  FROM (SELECT store_id, name FROM crm.store UNION ALL SELECT NULL, NULL) AS s
  LEFT JOIN (SELECT t.store_id, t.amount, t.amount - coalesce((SELECT sum(r.amount) FROM crm.transaction AS r WHERE r.refund_of = t.transaction_id), 0) AS net
               FROM crm.transaction AS t WHERE t.kind = 'purchase' AND pg_temp.within(t.occurred_at)) AS o ON o.store_id IS NOT DISTINCT FROM s.store_id
 GROUP BY s.store_id, s.name;
SELECT results_eq('scans', 'EXECUTE exact_scans', 'scans by code');
SELECT set_eq('stores', 'EXECUTE exact_stores', 'shops: orders and revenue are net of refunds, on the day of the order');
SELECT cmp_ok((SELECT sum(voided) FROM crm.store_report('2024-01-01', '2024-12-31')), '>', 0::numeric, 'some orders were refunded in full');
SELECT cmp_ok((SELECT count(*) FROM crm.fact_tail), '>', 0::bigint, 'so far nothing is added up');
SELECT crm.roll_up();
SELECT is_empty('SELECT FROM crm.fact_tail', 'now all is');
SELECT results_eq('scans', 'EXECUTE exact_scans', 'scans by code, added up');
SELECT set_eq('stores', 'EXECUTE exact_stores', 'shops, added up');
SELECT crm.refund(2, 'p1', 5, '2024-06-02Z', 'late');
SELECT crm.scan('a', 'maison', 'o1', '2024-03-01 00:00+08');
SELECT results_eq('scans', 'EXECUTE exact_scans', 'a late scan counts at once');
SELECT set_eq('stores', 'EXECUTE exact_stores', 'so does a refund');
SELECT is_empty('SELECT * FROM crm.verify()', 'verify() agrees');
-- whole months and the days beside them, in all ways in which a period may lie
SELECT is_empty($$SELECT p.first, p.until, p.n, e.n FROM (SELECT f.first, u.until,
         (SELECT coalesce(sum(n.facts), 0) FROM crm.fact_period(f.first, u.until) AS n) AS n FROM
         unnest('{2024-02-01,2024-02-27,2024-02-28,2024-02-29,2024-03-01,2024-03-02,2024-03-31}'::date[]) AS f(first),
         unnest('{2024-02-28,2024-03-01,2024-03-02,2024-03-08,2024-03-31,2024-04-01,2024-07-01,2025-01-01}'::date[]) AS u(until) WHERE f.first <= u.until) AS p
  CROSS JOIN LATERAL (SELECT coalesce(sum(x.facts), 0) AS n FROM crm.fact_exact AS x WHERE x.day >= p.first AND x.day < p.until) AS e
 WHERE e.n <> p.n$$, 'months and days come to the rows');
SELECT set_eq('SELECT day, event, kind, currency, facts, voided, amount FROM crm.kind_count',
    $$SELECT day, qr_code_id IS NULL AND currency IS NULL AS event, kind, currency, sum(facts)::bigint AS facts, sum(voided)::bigint AS voided, sum(amount) AS amount FROM crm.fact_exact GROUP BY 1, 2, 3, 4$$, 'so do kinds');

SELECT results_eq($$SELECT associate_id, scans, won, buyers, revenue FROM crm.associate_report('2024-01-01', '2024-07-01')$$,
    $$SELECT p.associate_id, (SELECT count(*) FROM crm.scan AS s JOIN crm.qr_code AS q USING (qr_code_id) WHERE q.associate_id = p.associate_id),
             count(a.contact_id), count(*) FILTER (WHERE c.orders > 0), coalesce(sum(c.spend), 0)
        FROM crm.associate AS p LEFT JOIN crm.acquisition AS a USING (associate_id) LEFT JOIN crm.profile_counter AS c USING (contact_id)
       GROUP BY p.associate_id ORDER BY p.associate_id$$, 'associates');
SELECT results_eq($$SELECT coupon, granted, redeemed, expired, pending, duplicates, redemptions FROM crm.coupon_report('2024-06-30', '2024-07-01')$$,
    $$VALUES ('ten', 5::bigint, 2::bigint, 0::bigint, 3::bigint, 0::bigint, 2::bigint)$$, 'coupons of the day');
SET pg_crm.clock = '2024-07-30 12:00+08';
SELECT results_eq($$SELECT granted, redeemed, expired, pending FROM crm.coupon_report('2024-06-30', '2024-07-01')$$,
    $$VALUES (5::bigint, 2::bigint, 3::bigint, 0::bigint)$$, 'what has become of them');
SELECT results_eq($$SELECT granted, redeemed FROM crm.coupon_report('2024-07-01', '2024-08-01')$$, $$VALUES (0::bigint, 0::bigint)$$, 'a coupon of which none was granted');
SELECT results_eq($$SELECT program, joined, members, earned, reversed, balance FROM crm.loyalty_report('2024-02-01', '2024-03-01')$$,
    $$SELECT 'club', count(*) FILTER (WHERE m.joined_at < '2024-03-01 00:00+08'), count(*) FILTER (WHERE m.joined_at < '2024-03-01 00:00+08'),
             (SELECT coalesce(sum(points), 0)::bigint FROM crm.point_entry WHERE kind = 'earned' AND occurred_at >= '2024-02-01 00:00+08' AND occurred_at < '2024-03-01 00:00+08'),
             (SELECT -coalesce(sum(points), 0)::bigint FROM crm.point_entry WHERE kind = 'reversed' AND occurred_at >= '2024-02-01 00:00+08' AND occurred_at < '2024-03-01 00:00+08'),
             (SELECT sum(points)::bigint FROM crm.point_balance) FROM crm.membership AS m$$, 'loyalty');
SELECT is((SELECT sum(awarded + revoked) FROM crm.award_report('2020-01-01', '2030-01-01')), (SELECT count(*) FROM crm.award)::numeric, 'awards');

-- bad periods
SELECT throws_ok($$SELECT * FROM crm.scan_report('2024-02-01', '2024-01-01')$$, '22023', 'the period ends at 2024-01-01, before it starts at 2024-02-01', 'a reversed period');
SELECT throws_ok($$SELECT * FROM crm.store_report('-infinity', '2024-01-01')$$, '22008', NULL, 'an infinite one');
SELECT throws_ok($$SELECT * FROM crm.coupon_report(NULL, '2024-01-01')$$, '22004', 'period_start of a report must not be NULL', 'none');
SELECT throws_ok($$SELECT * FROM crm.loyalty_report('2024-01-01', NULL)$$, '22004', 'period_end of a report must not be NULL', 'half of one');
SELECT throws_ok($$SELECT * FROM crm.associate_report('2024-02-01', 'infinity')$$, '22008', NULL, 'one without end');
SELECT throws_ok($$SELECT * FROM crm.award_report('2024-02-01', '2024-01-31')$$, '22023', NULL, 'reversed by a day');
SELECT throws_ok(format('SELECT * FROM crm.%s(%L, %L)', report, first, until), '22008', format('the period from %s to %s is not in the years 1 to 9999', first, until),
    format('%s: an age that no timestamp has', report))
  FROM unnest(ARRAY['fact_period', 'won_period', 'scan_report', 'store_report', 'associate_report', 'coupon_report', 'loyalty_report', 'award_report', 'step_report']) AS report,
       (VALUES ('2024-01-01', '5874897-12-31'), ('4714-11-24 BC', '2024-01-01'), ('400000-01-01', '400001-01-01')) AS v(first, until);
SELECT results_eq($$SELECT crm.day_begins('2024-01-01'), crm.day_begins('10000-01-01'), crm.day_begins('10000-01-02'), crm.day_begins('0001-12-31 BC'), crm.day_begins(NULL)$$,
    $$VALUES (timezone(crm.default_time_zone(), '2024-01-01'::timestamp), timezone(crm.default_time_zone(), '10000-01-01'::timestamp), 'infinity'::timestamptz,
        '-infinity'::timestamptz, NULL::timestamptz)$$, 'when a day begins');
SELECT is((SELECT sum(scans) FROM crm.scan_report('2024-03-01', '2024-03-01')), 0::numeric, 'a period of no day is empty');

-- without counts the rows are read
SELECT crm.keep_roll_ups(false);
SELECT is_empty('SELECT FROM crm.fact_day UNION ALL SELECT FROM crm.fact_tail', 'nothing is kept any more');
SELECT crm.track(1, 'view');
SELECT is_empty('SELECT FROM crm.fact_tail', 'nothing is counted');
SELECT results_eq('scans', 'EXECUTE exact_scans', 'the same without counts: scans by code');
SELECT set_eq('stores', 'EXECUTE exact_stores', 'and shops');
SELECT is(crm.roll_up(), 0::bigint, 'there is nothing to add up');
SELECT is_empty('SELECT * FROM crm.verify()', 'verify() agrees');
SELECT crm.keep_roll_ups();
SELECT cmp_ok((SELECT sum(facts) FROM crm.fact_day), '=', (SELECT sum(facts) FROM crm.fact_exact), 'asked for again, all is counted');
SELECT set_eq('stores', 'EXECUTE exact_stores', 'to the same');
SELECT throws_ok('SELECT crm.keep_roll_ups(NULL)', '22004', NULL, 'yes or no');

-- no campaign is another one than one without a name
INSERT INTO crm.contact (contact_id) VALUES (901), (902);
INSERT INTO crm.acquisition (contact_id, source, campaign, occurred_at) VALUES (901, 'fair', NULL, '2022-02-02'), (902, 'fair', '', '2022-02-02');
SELECT crm.roll_up();
SELECT is_empty('SELECT * FROM crm.verify()', 'verify() tells them apart');
UPDATE crm.won_total SET buyers = buyers + 1 WHERE unit = 'month' AND campaign = '';
SELECT results_eq('SELECT check_name, expected, found FROM crm.verify()',
    $$VALUES ('won_total of fair in 2022-02', '1, 0 of them bought for 0', '1, 1 of them bought for 0')$$, 'and finds what is wrong with one of them');
UPDATE crm.won_total SET buyers = buyers - 1 WHERE unit = 'month' AND campaign = '';

-- CET is the name of a zone with summer time, and to SQL an abbreviation without
SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = 'CET') AS has_cet \gset
\if :has_cet
SET pg_crm.time_zone = 'CET';
SELECT crm.track(1, 'summer', at => '2023-07-02 22:30Z');
SELECT crm.roll_up();
SELECT results_eq($$SELECT day, value FROM crm.trend('facts', '2023-07-02 22:00Z', '2023-07-04 22:00Z') WHERE series = 'summer' AND value > 0$$,
    $$VALUES ('2023-07-02'::date, 1::numeric)$$, 'what is no whole day is read out of the rows');
SELECT results_eq($$SELECT day, value FROM crm.trend('facts', '2023-07-02 23:00Z', '2023-07-04 23:00Z') WHERE series = 'summer' AND value > 0$$,
    $$SELECT '2023-07-02'::date, 1::numeric WHERE false$$, 'and before a whole one nothing is counted');
SELECT crm.track(1, 'summer', at => '2023-07-02 22:30Z');
SELECT results_eq($$SELECT day, facts FROM crm.fact_count WHERE kind = 'summer'$$, $$VALUES ('2023-07-02'::date, 2::bigint)$$,
    'a single fact is counted on the same day as many are');
RESET pg_crm.time_zone;
\else
SELECT skip('the time zones of this machine have no CET', 3);
\endif

-- who may read them
CREATE ROLE bi;
SELECT crm.grant_access('bi', 'analyst');
SET ROLE bi;
SELECT lives_ok($$SELECT 1 FROM crm.scan_report('2024-01-01', '2024-02-01'), crm.store_report('2024-01-01', '2024-02-01'),
    crm.associate_report('2024-01-01', '2024-02-01'), crm.coupon_report('2024-01-01', '2024-02-01'), crm.loyalty_report('2024-01-01', '2024-02-01'),
    crm.award_report('2024-01-01', '2024-02-01'), crm.step_report('2024-01-01', '2024-02-01'), crm.fact_count, crm.retention_horizon$$, 'an analyst reads all of them');
SELECT throws_ok('SELECT crm.keep_roll_ups()', '42501', NULL, 'but asks for none to be kept');
SELECT throws_ok('SELECT crm.roll_up()', '42501', NULL, 'and adds nothing up');
SELECT throws_ok('SELECT crm.enforce_retention()', '42501', NULL, 'and drops nothing');
SELECT throws_ok($$UPDATE crm.retention SET keep = '1 month'$$, '42501', NULL, 'nor says what is dropped');
RESET ROLE;
SELECT * FROM finish();
ROLLBACK;
