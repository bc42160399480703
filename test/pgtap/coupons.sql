-- coupons: issued by generated codes or from a pool, once where so defined, redeemed at a shop
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET pg_crm.clock = '2024-06-01 12:00Z';
SELECT no_plan();

SELECT function_returns('crm', 'define_coupon', ARRAY['jsonb'], 'integer');
SELECT function_returns('crm', 'issue_coupon', ARRAY['bigint', 'text', 'text', 'bigint'], 'text');
SELECT function_returns('crm', 'redeem_coupon', ARRAY['bigint', 'text', 'bigint', 'timestamp with time zone', 'text'], 'void');

CREATE TEMP TABLE code (name text PRIMARY KEY, code text);
CREATE FUNCTION pg_temp.code(name text) RETURNS text LANGUAGE sql AS 'SELECT code FROM pg_temp.code WHERE code.name = $1';
CREATE FUNCTION pg_temp.state(contact bigint) RETURNS text LANGUAGE sql AS
$$SELECT string_agg(coupon || CASE WHEN redeemed_at IS NULL THEN '' ELSE ' redeemed' END || CASE WHEN duplicate_of IS NULL THEN '' ELSE ' duplicate' END, ', ' ORDER BY coupon_grant_id)
    FROM crm.coupon_grant WHERE contact_id = $1$$;

INSERT INTO crm.store (store_id, name) VALUES (1, 'Bund'), (2, 'Jing An'), (3, 'Pudong');
INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2024-01-01'::timestamptz + n * interval '1 day' FROM generate_series(1, 30) AS n;
SELECT is(crm.define_coupon('{"name": "tea"}'), 1, 'a coupon');
SELECT is(crm.define_coupon('{"name": "tea", "label": "Tea"}'), 2, 'saved anew');
SELECT is(crm.define_coupon('{"name": "tea"}'), 3);
SELECT crm.define_coupon('{"name": "welcome", "one_per": "contact", "valid_for": "30 days", "code_prefix": "WE", "code_length": 10}'),
       crm.define_coupon('{"name": "shirt", "one_per": "store"}'),
       crm.define_coupon('{"name": "spring", "valid_from": "2024-05-01Z", "valid_until": "2024-07-01Z", "valid_for": "1 year", "stores": [1, 2]}'),
       crm.define_coupon('{"name": "few", "max_grants": 2}'),
       crm.define_coupon('{"name": "pool", "codes": "pool"}'),
       crm.define_coupon('{"name": "over", "valid_until": "2024-06-01 12:00Z"}'),
       crm.define_coupon('{"name": "soon", "valid_from": "2024-06-01 12:00:01Z"}') \g /dev/null

-- issuing
INSERT INTO code SELECT 'tea', crm.issue_coupon(1, 'tea', 'k');
SELECT matches(pg_temp.code('tea'), '^[ACDEFGHJKMNPQRTVWXY3479]{12}$', 'twelve characters that cannot be taken for each other');
SELECT is(crm.issue_coupon(1, 'tea', 'k'), pg_temp.code('tea'), 'a replay returns the first code');
SELECT throws_ok($$SELECT crm.issue_coupon(1, 'welcome', 'k')$$, '23505', NULL, 'the key for another coupon');
SELECT isnt(crm.issue_coupon(1, 'tea'), pg_temp.code('tea'), 'another one has another code');
SELECT is(pg_temp.state(1), 'tea, tea');
SELECT results_eq('SELECT coupon, issued_at, recorded_at, expires_at, redeemed_at, once FROM crm.coupon_grant WHERE contact_id = 1 LIMIT 1',
    $$VALUES ('tea', '2024-06-01 12:00Z'::timestamptz, '2024-06-01 12:00Z'::timestamptz, NULL::timestamptz, NULL::timestamptz, NULL)$$, 'the grant');
INSERT INTO code SELECT 'welcome', crm.issue_coupon(1, 'welcome');
SELECT matches(pg_temp.code('welcome'), '^WE[ACDEFGHJKMNPQRTVWXY3479]{10}$', 'a prefix');
SELECT throws_ok($$SELECT crm.issue_coupon(1, 'welcome')$$, '23505', NULL, 'one per contact');
SELECT throws_ok($$SELECT crm.issue_coupon(1, 'welcome', 'other', 2)$$, '23505', NULL, 'whatever the key and the shop');
SELECT lives_ok($$SELECT crm.issue_coupon(2, 'welcome')$$, 'others get theirs');
SELECT is((SELECT expires_at FROM crm.coupon_grant WHERE contact_id = 2), '2024-07-01 12:00Z', 'valid for 30 days');
SELECT throws_ok($$SELECT crm.issue_coupon(1, 'shirt')$$, '22004', NULL, 'one per shop needs the shop');
SELECT lives_ok($$SELECT crm.issue_coupon(1, 'shirt', store_id => 1)$$);
SELECT lives_ok($$SELECT crm.issue_coupon(1, 'shirt', store_id => 2)$$, 'one for each shop');
SELECT throws_ok($$SELECT crm.issue_coupon(1, 'shirt', store_id => 2)$$, '23505', NULL, 'not two');
SELECT throws_ok($$INSERT INTO crm.coupon_grant (contact_id, coupon, code, once, issued_at, recorded_at) VALUES (1, 'shirt', 'x', 'store 2', now(), now())$$, '23505', NULL, 'past the function neither');
SELECT lives_ok($$SELECT crm.issue_coupon(3, 'few'), crm.issue_coupon(4, 'few')$$, 'two of two');
SELECT throws_ok($$SELECT crm.issue_coupon(5, 'few')$$, '23514', 'all 2 of coupon "few" have been issued', 'no third');
SELECT crm.define_coupon('{"name": "few", "max_grants": 3}') \g /dev/null
SELECT lives_ok($$SELECT crm.issue_coupon(5, 'few')$$, 'but with a larger number');
SELECT throws_ok($$SELECT crm.issue_coupon(5, 'few')$$, '23514', NULL, 'just one');
SELECT crm.define_coupon('{"name": "few"}') \g /dev/null
SELECT lives_ok($$SELECT crm.issue_coupon(5, 'few')$$, 'any number');
SELECT crm.define_coupon('{"name": "few", "max_grants": 4}') \g /dev/null
SELECT throws_ok($$SELECT crm.issue_coupon(5, 'few')$$, '23514', NULL, 'those are counted');
SELECT crm.define_coupon('{"name": "few", "max_grants": 5}') \g /dev/null
SELECT lives_ok($$SELECT crm.issue_coupon(5, 'few')$$, 'and one more');
SELECT throws_ok($$SELECT crm.issue_coupon(1, 'pool')$$, '23514', 'coupon "pool" has no free code left', 'an empty pool');
INSERT INTO crm.coupon_code (code, coupon) VALUES ('till-1', 'pool'), ('till-2', 'pool');
SELECT set_eq($$SELECT crm.issue_coupon(n, 'pool') FROM generate_series(6, 7) AS n$$, ARRAY['till-1', 'till-2'], 'codes of a pool');
SELECT throws_ok($$SELECT crm.issue_coupon(8, 'pool')$$, '23514', NULL, 'no third');
SELECT throws_ok($$INSERT INTO crm.coupon_code (code, coupon) VALUES ('till-1', 'tea')$$, '23505', NULL, 'a code is there once');
SELECT throws_ok(format('INSERT INTO crm.coupon_code (code, coupon) VALUES (%L, %L)', pg_temp.code('tea'), 'pool'), '23505', NULL, 'also one that was generated');
SELECT throws_ok($$SELECT crm.issue_coupon(1, 'over')$$, '23514', NULL, 'ended');
SELECT throws_ok($$SELECT crm.issue_coupon(1, 'soon')$$, '23514', NULL, 'not begun');
SELECT throws_ok(s, code, NULL, s) FROM (VALUES
    ($$SELECT crm.issue_coupon(99, 'tea')$$, '23503'), ($$SELECT crm.issue_coupon(1, 'none')$$, '23503'), ($$SELECT crm.issue_coupon(1, 'tea', store_id => 99)$$, '23503'),
    ($$SELECT crm.issue_coupon(NULL, 'tea')$$, '22004'), ($$SELECT crm.issue_coupon(1, NULL)$$, '22004'), ($$SELECT crm.issue_coupon(1, '')$$, '23514'),
    ($$SELECT crm.issue_coupon(1, 'tea', '')$$, '23514'), ($$SELECT crm.issue_coupon(1, repeat('c', 256))$$, '22001'),
    ($$SELECT crm.issue_coupon(1, 'tea', repeat('k', 256))$$, '22001'), ($$SELECT crm.track(1, 'issue_coupon')$$, '22023'), ($$SELECT crm.track(1, 'redeem_coupon')$$, '22023')) AS v (s, code);
SELECT is((SELECT count(DISTINCT crm.issue_coupon(9, 'tea')) FROM generate_series(1, 1000)), 1000::bigint, 'a thousand codes, all different');
SELECT cmp_ok((SELECT count(DISTINCT substr(code, n, 1)) FROM crm.coupon_grant, generate_series(1, 12) AS n WHERE contact_id = 9 GROUP BY n ORDER BY 1 LIMIT 1), '=', 23::bigint, 'of every character at every place');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- redeeming
INSERT INTO code SELECT 'spring', crm.issue_coupon(10, 'spring');
SELECT is((SELECT expires_at FROM crm.coupon_grant WHERE contact_id = 10), '2024-07-01Z', 'the earlier of two ends');
SELECT throws_ok($$SELECT crm.redeem_coupon(10, 'NOSUCHCODE', 1)$$, '23503', 'coupon code "NOSUCHCODE" does not exist', 'unknown');
INSERT INTO crm.coupon_code (code, coupon) VALUES ('free', 'pool');
SELECT throws_ok($$SELECT crm.redeem_coupon(10, 'free', 1)$$, '23503', NULL, 'one that nobody has is unknown too');
SELECT throws_ok(format('SELECT crm.redeem_coupon(11, %L, 1)', pg_temp.code('spring')), '42501', format('coupon code "%s" belongs to somebody else', pg_temp.code('spring')), 'foreign, without telling whose');
SELECT throws_ok(format('SELECT crm.redeem_coupon(10, %L)', pg_temp.code('spring')), '22004', NULL, 'the shop is needed where not all are good');
SELECT throws_ok(format('SELECT crm.redeem_coupon(10, %L, 3)', pg_temp.code('spring')), '23514', format('coupon code "%s" is not valid at store 3', pg_temp.code('spring')), 'another shop');
SELECT throws_ok(format('SELECT crm.redeem_coupon(10, %L, 99)', pg_temp.code('spring')), '23503', NULL, 'no shop');
SELECT throws_ok(format('SELECT crm.redeem_coupon(10, %L, 1, %L)', pg_temp.code('spring'), '2024-05-31Z'), '23514', NULL, 'before it was issued');
SELECT throws_ok(format('SELECT crm.redeem_coupon(10, %L, 1, %L)', pg_temp.code('spring'), 'infinity'), '22008', NULL, 'at no time');
SET pg_crm.clock = '2024-07-01 00:00Z';
SELECT throws_ok(format('SELECT crm.redeem_coupon(10, %L, 1)', pg_temp.code('spring')), '23514', format('coupon code "%s" expired at %s', pg_temp.code('spring'), '2024-07-01 00:00:00+00'), 'expired')
  WHERE current_setting('TimeZone') = 'UTC';
SELECT lives_ok(format('SELECT crm.redeem_coupon(10, %L, 1, %L, %L)', pg_temp.code('spring'), '2024-06-30 23:59:59Z', 'r'), 'redeemed in the last second, told later');
SELECT lives_ok(format('SELECT crm.redeem_coupon(10, %L, 1, %L, %L)', pg_temp.code('spring'), '2024-06-30 23:59:59Z', 'r'), 'a replay does nothing');
SELECT lives_ok(format('SELECT crm.redeem_coupon(10, %L, 1, key => %L)', pg_temp.code('spring'), 'r'), 'also without the time');
SELECT throws_ok(format('SELECT crm.redeem_coupon(10, %L, 2, key => %L)', pg_temp.code('spring'), 'r'), '23505', NULL, 'the key with another shop');
SELECT throws_ok(format('SELECT crm.redeem_coupon(10, %L, 1)', pg_temp.code('spring')), '23505', format('coupon code "%s" was redeemed at %s', pg_temp.code('spring'), '2024-06-30 23:59:59+00'), 'used')
  WHERE current_setting('TimeZone') = 'UTC';
SELECT results_eq('SELECT redeemed_at, redeemed_store_id FROM crm.coupon_grant WHERE contact_id = 10', $$VALUES ('2024-06-30 23:59:59Z'::timestamptz, 1::bigint)$$, 'when and where');
SELECT is((SELECT count(*) FROM crm.event WHERE contact_id = 10 AND kind = 'redeem_coupon'), 1::bigint, 'an event that others can follow');
SELECT lives_ok(format('SELECT crm.redeem_coupon(1, %L)', lower(regexp_replace(pg_temp.code('tea'), '(....)', '\1-', 'g')) || ' '), 'typed in with small letters, hyphens and a space, at no shop in particular');
SELECT is(pg_temp.state(1), 'tea redeemed, tea, welcome, shirt, shirt');
INSERT INTO code SELECT 'shirt', code FROM crm.coupon_grant WHERE contact_id = 1 AND coupon = 'shirt' AND store_id = 1;
SELECT throws_ok(format('SELECT crm.redeem_coupon(1, %L, 2)', pg_temp.code('shirt')), '23514', NULL, 'one per shop is for that shop');
SELECT lives_ok(format('SELECT crm.redeem_coupon(1, %L, 1)', pg_temp.code('shirt')));
SELECT throws_ok(s, code, NULL, s) FROM (VALUES
    ($$SELECT crm.redeem_coupon(99, 'x')$$, '23503'), ($$SELECT crm.redeem_coupon(NULL, 'x')$$, '22004'), ($$SELECT crm.redeem_coupon(1, NULL)$$, '22004'),
    ($$SELECT crm.redeem_coupon(1, '')$$, '23514'), ($$SELECT crm.redeem_coupon(1, repeat('c', 256))$$, '22001'), ($$SELECT crm.redeem_coupon(1, 'x', key => '')$$, '23514')) AS v (s, code);
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
SELECT results_eq($$SELECT kind, occurred_at, detail - 'coupon_grant_id' FROM crm.contact_timeline WHERE contact_id = 10 AND kind ~ 'coupon' ORDER BY occurred_at$$,
    $$VALUES ('issue_coupon', '2024-06-01 12:00Z'::timestamptz, '{"coupon": "spring"}'::jsonb),
             ('redeem_coupon', '2024-06-30 23:59:59Z', '{"coupon": "spring", "store_id": 1}')$$, 'both are in the timeline');
SELECT crm.define_achievement('{"name": "redeemer", "on_kind": "redeem_coupon"}') \g /dev/null
SELECT is((SELECT awarded_at FROM crm.award WHERE contact_id = 10 AND achievement = 'redeemer'), '2024-06-30 23:59:59Z', 'and may be awarded');

-- definitions
SELECT throws_ok(format('SELECT crm.define_coupon(%L)', d), code, NULL, d) FROM (VALUES
    ('{}', '22004'), ('{"name": ""}', '23514'), ('{"name": "x", "codes": "secret"}', '23514'), ('{"name": "x", "one_per": "year"}', '23514'),
    ('{"name": "x", "code_length": 7}', '23514'), ('{"name": "x", "code_length": 41}', '23514'), ('{"name": "x", "code_prefix": "a-"}', '23514'),
    ('{"name": "x", "max_grants": 0}', '23514'), ('{"name": "x", "valid_for": "-1 day"}', '23514'), ('{"name": "x", "colour": 1}', '22023'),
    ('{"name": "x", "valid_from": "2024-01-02", "valid_until": "2024-01-01"}', '23514'), ('{"name": "x", "stores": []}', '23514')) AS v (d, code);

-- merging: two grants of what is given once stay readable and are redeemed once
SET pg_crm.clock = '2024-06-02 12:00Z';
INSERT INTO code SELECT 'first', crm.issue_coupon(20, 'welcome', 'k');
INSERT INTO code SELECT 'second', crm.issue_coupon(21, 'welcome', 'k');
SELECT crm.issue_coupon(20, 'tea'), crm.issue_coupon(21, 'tea') \g /dev/null
SELECT crm.merge(20, 21) \g /dev/null
SELECT is(pg_temp.state(20), 'welcome, welcome duplicate, tea, tea', 'both are there, one is marked');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound when merged');
SELECT throws_ok($$SELECT crm.issue_coupon(21, 'welcome')$$, '23505', NULL, 'no third');
SELECT lives_ok(format('SELECT crm.redeem_coupon(21, %L)', pg_temp.code('second')), 'either is redeemed');
SELECT throws_ok(format('SELECT crm.redeem_coupon(20, %L)', pg_temp.code('first')), '23505', NULL, 'and then neither');
SELECT crm.unmerge(21) \g /dev/null
SELECT is(pg_temp.state(20), 'welcome, tea', 'unmerged: each has its own');
SELECT is(pg_temp.state(21), 'welcome redeemed, tea');
SELECT is((SELECT contact_id FROM crm.coupon_code WHERE code = pg_temp.code('second')), 21::bigint, 'and the code');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound when unmerged');
SELECT lives_ok(format('SELECT crm.redeem_coupon(20, %L)', pg_temp.code('first')), 'two people, two coupons');
-- three, and the first goes
SELECT crm.issue_coupon(n, 'welcome') FROM generate_series(23, 25) AS n \g /dev/null
SELECT crm.merge(22, 23), crm.merge(22, 24), crm.merge(22, 25) \g /dev/null
SELECT is(pg_temp.state(22), 'welcome, welcome duplicate, welcome duplicate');
SELECT crm.unmerge(23) \g /dev/null
SELECT is(pg_temp.state(22), 'welcome, welcome duplicate', 'the next is the first');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
SELECT crm.unmerge(24), crm.unmerge(25) \g /dev/null
SELECT is(pg_temp.state(24), 'welcome');
SELECT is(pg_temp.state(25), 'welcome');
SELECT is(pg_temp.state(22), NULL);
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- the same person with two openids of one mobile: bound, it is one
SELECT crm.bind_mobile(26, '13800138000'), crm.bind_mobile(27, '13800138000') \g /dev/null
SELECT lives_ok($$SELECT crm.issue_coupon(26, 'shirt', store_id => 1)$$);
SELECT throws_ok($$SELECT crm.issue_coupon(27, 'shirt', store_id => 1)$$, '23505', NULL, 'the other openid gets no second');

-- found
DELETE FROM crm.coupon_code WHERE code = pg_temp.code('first');
UPDATE crm.coupon_counter SET granted = granted - 1 WHERE coupon = 'few';
SELECT results_eq('SELECT count(*) FROM crm.verify()', 'VALUES (2::bigint)', 'verify() finds a code that is gone and a wrong counter');

SELECT * FROM finish();
ROLLBACK;
