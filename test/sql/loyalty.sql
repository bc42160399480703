-- points, tiers and coupons: what is refused, with its words; the names of the tables
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_crm;
SELECT crm.install();
SET timezone = 'Asia/Shanghai';
SET datestyle = 'ISO, YMD';
SET pg_crm.clock = '2024-06-01 12:00+08';
CREATE FUNCTION pg_temp.refusal(statement text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    message text;
    detail text;
    hint text;
BEGIN
    EXECUTE statement;
    RETURN 'NOT REFUSED';
EXCEPTION WHEN others THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN sqlstate || ' ' || message || coalesce(' / ' || nullif(detail, ''), '')
        || CASE WHEN hint = '' THEN ' / NO HINT' ELSE ' / ' || hint END;
END
$$;
\pset format unaligned
\pset tuples_only

INSERT INTO crm.store (store_id, name) VALUES (1, 'Bund'), (2, 'Pudong');
INSERT INTO crm.loyalty_program (name) VALUES ('club');
INSERT INTO crm.contact (contact_id) VALUES (1), (2);
SELECT crm.join_loyalty(1, 'club');
SELECT crm.earn_points(1, 'club', 30, 'gift', 'g1'), crm.spend_points(1, 'club', 10, 'mug', 's1');
SELECT crm.define_coupon('{"name": "tea", "one_per": "contact", "valid_for": "1 day"}'),
       crm.define_coupon('{"name": "shirt", "one_per": "store"}'),
       crm.define_coupon('{"name": "here", "codes": "pool", "stores": [1]}'),
       crm.define_coupon('{"name": "two", "codes": "pool", "max_grants": 2}'),
       crm.define_coupon('{"name": "june", "codes": "pool", "valid_from": "2024-06-02 00:00+08"}'),
       crm.define_coupon('{"name": "may", "valid_until": "2024-06-01 00:00+08"}');
INSERT INTO crm.coupon_code (code, coupon) VALUES ('HERE1', 'here'), ('TWO1', 'two'), ('TWO2', 'two'), ('TWO3', 'two');
SELECT crm.issue_coupon(1, 'here', 'i1'), crm.issue_coupon(1, 'two') IN ('TWO1', 'TWO2', 'TWO3'), crm.issue_coupon(2, 'two') IS NOT NULL;
SELECT crm.issue_coupon(1, 'tea') <> crm.issue_coupon(2, 'tea'), crm.issue_coupon(1, 'shirt', store_id => 1) IS NOT NULL;
-- known codes, to have them in messages
UPDATE crm.coupon_code SET code = 'TEA' || contact_id WHERE coupon = 'tea';
UPDATE crm.coupon_grant SET code = 'TEA' || contact_id WHERE coupon = 'tea';
UPDATE crm.coupon_code SET code = 'SHIRT' WHERE coupon = 'shirt';
UPDATE crm.coupon_grant SET code = 'SHIRT' WHERE coupon = 'shirt';
SELECT crm.redeem_coupon(2, 'TEA2', 1, key => 'r1');

\echo -- points
SELECT statement || E'\n  ' || pg_temp.refusal(statement) FROM (VALUES
    ($$SELECT crm.earn_points(99, 'club', 1)$$),
    ($$SELECT crm.earn_points(1, 'no club', 1)$$),
    ($$SELECT crm.earn_points(1, '', 1)$$),
    ($$SELECT crm.earn_points(1, 'club', 0)$$),
    ($$SELECT crm.earn_points(1, 'club', -5)$$),
    ($$SELECT crm.earn_points(1, 'club', 1000000000000001)$$),
    ($$SELECT crm.earn_points(1, 'club', 31, 'gift', 'g1')$$),
    ($$SELECT crm.earn_points(1, 'club', 30, NULL, 'g1')$$),
    ($$SELECT crm.earn_points(NULL, 'club', 1)$$),
    ($$SELECT crm.earn_points(1, NULL, 1)$$),
    ($$SELECT crm.earn_points(1, 'club', NULL)$$),
    ($$SELECT crm.spend_points(1, 'club', 21)$$),
    ($$SELECT crm.spend_points(2, 'club', 1)$$),
    ($$SELECT crm.spend_points(1, 'club', 11, 'mug', 's1')$$),
    ($$SELECT crm.spend_points(99, 'club', 1)$$),
    ($$UPDATE crm.point_entry SET points = 31$$),
    ($$DELETE FROM crm.point_entry$$),
    ($$INSERT INTO crm.point_entry (contact_id, point_entry_id, loyalty_program_id, kind, points, balance_after, source_at, occurred_at, recorded_at) VALUES (1, 100, 1, 'spent', -30, -10, '2024-06-01', '2024-06-01', '2024-06-01')$$)) AS v (statement);

\echo -- coupons
SELECT statement || E'\n  ' || pg_temp.refusal(statement) FROM (VALUES
    ($$SELECT crm.issue_coupon(99, 'tea')$$),
    ($$SELECT crm.issue_coupon(1, 'no tea')$$),
    ($$SELECT crm.issue_coupon(1, 'tea')$$),
    ($$SELECT crm.issue_coupon(1, 'tea', 'i1')$$),
    ($$SELECT crm.issue_coupon(1, 'shirt')$$),
    ($$SELECT crm.issue_coupon(1, 'shirt', store_id => 1)$$),
    ($$SELECT crm.issue_coupon(1, 'shirt', store_id => 99)$$),
    ($$SELECT crm.issue_coupon(1, 'here')$$),
    ($$SELECT crm.issue_coupon(1, 'two')$$),
    ($$SELECT crm.issue_coupon(1, 'june')$$),
    ($$SELECT crm.issue_coupon(1, 'may')$$),
    ($$SELECT crm.redeem_coupon(99, 'TEA1', 1)$$),
    ($$SELECT crm.redeem_coupon(1, 'NOTEA', 1)$$),
    ($$SELECT crm.redeem_coupon(1, 'TWO3x', 1)$$),
    ($$SELECT crm.redeem_coupon(2, 'TEA1', 1)$$),
    ($$SELECT crm.redeem_coupon(2, 'TEA2', 1)$$),
    ($$SELECT crm.redeem_coupon(2, 'tea-2', 2, key => 'r1')$$),
    ($$SELECT crm.redeem_coupon(2, 'TEA2', 1, '2024-06-01 11:00+08', 'r1')$$),
    ($$SELECT crm.redeem_coupon(1, 'TEA1', 1, '2024-06-02 12:00+08')$$),
    ($$SELECT crm.redeem_coupon(1, 'TEA1', 1, '2024-06-01 11:59+08')$$),
    ($$SELECT crm.redeem_coupon(1, 'TEA1', 99)$$),
    ($$SELECT crm.redeem_coupon(1, 'HERE1', 2)$$),
    ($$SELECT crm.redeem_coupon(1, 'HERE1')$$),
    ($$SELECT crm.redeem_coupon(1, 'SHIRT', 2)$$),
    ($$SELECT crm.track(1, 'redeem_coupon')$$)) AS v (statement);

\echo -- definitions
SELECT statement || E'\n  ' || pg_temp.refusal(statement) FROM (VALUES
    ($$SELECT crm.define_coupon('{}')$$),
    ($$SELECT crm.define_coupon('{"name": ""}')$$),
    ($$SELECT crm.define_coupon('{"name": "x", "price": 1}')$$),
    ($$SELECT crm.define_coupon('{"name": "x", "code_length": 4}')$$),
    ($$SELECT crm.define_coupon('{"name": "x", "code_prefix": "été"}')$$),
    ($$SELECT crm.define_coupon('{"name": "x", "max_grants": 0}')$$),
    ($$SELECT crm.define_coupon('{"name": "x", "valid_for": "-1 day"}')$$),
    ($$SELECT crm.define_coupon('{"name": "x", "stores": []}')$$),
    ($$SELECT crm.define_coupon('{"name": "x", "stores": [1, 99]}')$$),
    ($$SELECT crm.define_earning_rule('{"name": "x"}')$$),
    ($$SELECT crm.define_earning_rule('{"name": "x", "program": "club", "points": 0}')$$),
    ($$SELECT crm.define_earning_rule('{"name": "x", "program": "club", "per_amount": -1}')$$),
    ($$SELECT crm.define_earning_rule('{"name": "x", "program": "club", "on_kind": "cart", "per_amount": 1}')$$),
    ($$SELECT crm.define_earning_rule('{"name": "x", "program": "club", "on_kind": "refund"}')$$),
    ($$SELECT crm.define_earning_rule('{"name": "x", "program": "club", "valid_from": "2024-01-02 00:00+08", "valid_until": "2024-01-01 00:00+08"}')$$),
    ($$INSERT INTO crm.tier (program, tier, threshold) VALUES ('club', 'x', -1)$$),
    ($$INSERT INTO crm.tier (program, tier, period) VALUES ('club', 'x', '-1 day')$$),
    ($$INSERT INTO crm.tier (program, tier) VALUES ('club', '')$$)) AS v (statement);
SELECT * FROM crm.verify();
