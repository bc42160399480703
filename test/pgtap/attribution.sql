-- attribution: each model by hand, each kind of touch, credits that add up to one, what is refused
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install();
SET search_path = public, pg_catalog;
SET TimeZone = 'UTC';
SET pg_crm.clock = '2025-03-31 12:00+08';
SELECT no_plan();

INSERT INTO crm.account (account_id, kind, name) VALUES (1, 'official_account', 'maison'), (2, 'sms', 'texts');
INSERT INTO crm.store (store_id, name) VALUES (1, 'Nanjing Road');
INSERT INTO crm.associate (associate_id, userid, store_id) VALUES (7, 'lin', 1);
INSERT INTO crm.qr_code (qr_code_id, account_id, scene, store_id, campaign, associate_id)
VALUES (1, 1, 'door', 1, NULL, NULL), (2, 1, 'poster', NULL, 'spring', NULL), (3, 1, 'lin', 1, 'spring', 7), (4, 1, 'plain', NULL, NULL, NULL);
INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2024-01-01' FROM generate_series(1, 9) AS n;
INSERT INTO crm.campaign (name, template, label) VALUES ('spring', 'hello', 'Spring'), ('odd#1', 'hello', NULL);
INSERT INTO crm.scan (contact_id, scan_id, qr_code_id, occurred_at)
SELECT n, id, code, (at || '+08')::timestamptz
  FROM (VALUES (1, 11, 1, '2025-03-01 10:00'), (1, 12, 2, '2025-03-02 10:00'), (1, 13, 4, '2025-03-03 10:00'),
               (2, 21, 3, '2025-02-08 12:00'), (2, 22, 4, '2025-02-08 11:59:59'), (2, 23, 4, '2025-03-10 12:00:01'),
               (3, 31, 4, '2025-03-05 10:00'), (3, 32, 4, '2025-03-06 10:00'), (3, 33, 1, '2025-03-06 10:00'),
               (5, 51, 4, '2025-03-05 10:00')) AS t(n, id, code, at);
INSERT INTO crm.message (contact_id, message_id, account_id, template, template_version, channel, class, state, send_key, sent_at)
SELECT n, id, 2, 'hello', 1, 'sms', 'marketing', state, key, (at || '+08')::timestamptz
  FROM (VALUES (1, 101, 'sent', 'campaign:spring', '2025-03-03 09:00'), (4, 104, 'sent', 'campaign:odd#1', '2025-03-03 09:00'),
               (4, 105, 'sent', 'campaign:spring#17', '2025-03-04 09:00'), (4, 106, 'waiting', 'campaign:late', '2025-03-05 09:00'),
               (4, 107, 'failed', 'campaign:spring', NULL), (4, 108, 'sent', 'receipt', '2025-03-05 10:00'),
               (5, 109, 'sent', NULL, '2025-03-06 09:00')) AS t(n, id, state, key, at);
INSERT INTO crm.step_visit (contact_id, enrolment_id, visit, version, journey, step, entered_at, message_id)
VALUES (5, 1, 1, 1, 'welcome', 'hello', '2025-03-06', 109), (5, 1, 2, 2, 'welcome', 'hello', '2025-03-06', 109);
INSERT INTO crm.transaction (contact_id, transaction_id, amount, currency, occurred_at)
SELECT n, id, amount, currency, (at || '+08')::timestamptz
  FROM (VALUES (1, 1001, 90, 'CNY', '2025-03-10 12:00'), (2, 1002, 100, 'CNY', '2025-03-10 12:00'), (3, 1003, 10, 'CNY', '2025-03-06 10:00'),
               (4, 1004, 40, 'CNY', '2025-03-10 12:00'), (5, 1005, 70, 'USD', '2025-03-10 12:00'), (6, 1006, 60, 'CNY', '2025-03-10 12:00'),
               (7, 1007, 20, 'CNY', '2025-02-28 23:59:59'), (8, 1008, 20, 'CNY', '2025-04-01 00:00')) AS t(n, id, amount, currency, at);
INSERT INTO crm.transaction (contact_id, kind, amount, occurred_at, refund_of) VALUES (1, 'refund', 30, '2025-03-20', 1001);

SELECT is(crm.define_attribution('{"name": "orders", "on_kind": "purchase"}'), 1, 'a rule with what is usual');
SELECT results_eq('SELECT touches, model, look_back FROM crm.attribution', $$VALUES ('{associate,campaign,journey,code}'::text[], 'last', '30 days'::interval)$$, 'that is the last touch of thirty days');
CREATE FUNCTION pg_temp.credits(rule text) RETURNS TABLE (line text) LANGUAGE sql AS $$
    SELECT concat_ws(' ', contact_id, touch, object, touch_id, round(credit, 4), round(amount, 2))
      FROM crm.attribution_rows($1, '2025-03-01 00:00+08', '2025-04-01 00:00+08') ORDER BY contact_id, touched_at, touch_id
$$;
SELECT results_eq($$SELECT * FROM pg_temp.credits('orders')$$, $$VALUES
    ('1 code 4 13 1.0000 60.00'), ('2 associate 7 21 1.0000 100.00'), ('3 code 1 33 1.0000 10.00'),
    ('4 campaign spring 105 1.0000 40.00'), ('5 journey welcome 109 1.0000'), ('6 none 1.0000 60.00')$$,
    'last: of equal times the greater id; a message that did not arrive touches nobody; the bound of the look-back belongs to it');
SELECT is(crm.define_attribution('{"name": "orders", "on_kind": "purchase", "model": "first"}'), 2, 'its next version');
SELECT results_eq($$SELECT * FROM pg_temp.credits('orders')$$, $$VALUES
    ('1 code 1 11 1.0000 60.00'), ('2 associate 7 21 1.0000 100.00'), ('3 code 4 31 1.0000 10.00'),
    ('4 campaign odd#1 104 1.0000 40.00'), ('5 code 4 51 1.0000'), ('6 none 1.0000 60.00')$$, 'first');
SELECT crm.define_attribution('{"name": "orders", "on_kind": "purchase", "model": "linear", "touches": ["store", "campaign", "journey", "code"]}') \g /dev/null
SELECT results_eq($$SELECT * FROM pg_temp.credits('orders')$$, $$VALUES
    ('1 store 1 11 0.2500 15.00'), ('1 campaign spring 12 0.2500 15.00'), ('1 campaign spring 101 0.2500 15.00'), ('1 code 4 13 0.2500 15.00'),
    ('2 store 1 21 1.0000 100.00'), ('3 code 4 31 0.3333 3.33'), ('3 code 4 32 0.3333 3.33'), ('3 store 1 33 0.3333 3.33'),
    ('4 campaign odd#1 104 0.5000 20.00'), ('4 campaign spring 105 0.5000 20.00'), ('5 code 4 51 0.5000'), ('5 journey welcome 109 0.5000'),
    ('6 none 1.0000 60.00')$$, 'linear: in equal parts; a scan is one touch, the first of those listed that its code has');
SELECT is_empty($$SELECT conversion_id FROM crm.attribution_rows('orders', '2025-03-01', '2025-04-01') GROUP BY conversion_id HAVING sum(credit) <> 1$$, 'each conversion once, exactly');
SELECT results_eq($$SELECT touch, object, label, conversions, contacts, share, round(amount, 2) FROM crm.attribution_report('orders', '2025-03-01 00:00+08', '2025-04-01 00:00+08')$$, $$VALUES
    ('store', '1', 'Nanjing Road', 1.583333334, 3::bigint, 0.2639, 118.33), ('code', '4', 'plain', 1.416666666, 3, 0.2361, 21.67),
    ('campaign', 'spring', 'Spring', 1.0, 2, 0.1667, 50.00), ('none', NULL, NULL, 1.0, 1, 0.1667, 60.00),
    ('campaign', 'odd#1', NULL, 0.5, 1, 0.0833, 20.00), ('journey', 'welcome', NULL, 0.5, 1, 0.0833, NULL)$$, 'the report');
SELECT set_eq($$SELECT touch, object, conversions, contacts, amount FROM crm.attribution_report('orders', '2025-03-01', '2025-04-01')$$,
    $$SELECT touch, object, sum(credit) AS a, count(DISTINCT contact_id) AS b, sum(amount) AS c FROM crm.attribution_rows('orders', '2025-03-01', '2025-04-01') GROUP BY 1, 2$$, 'is its rows added up');
SELECT is((SELECT sum(conversions) FROM crm.attribution_report('orders', '2025-03-01 00:00+08', '2025-04-01 00:00+08')), 6::numeric, 'and all conversions of the period');
SELECT crm.define_attribution('{"name": "all", "on_kind": "purchase", "model": "every", "rule": "fact.amount >= 10 AND fact.currency = ''CNY''"}') \g /dev/null
SELECT results_eq($$SELECT * FROM pg_temp.credits('all') WHERE line ~ '^[1356]'$$, $$VALUES
    ('1 code 1 11 1.0000 60.00'), ('1 campaign spring 101 1.0000 60.00'), ('1 code 4 13 1.0000 60.00'),
    ('3 code 4 32 1.0000 10.00'), ('3 code 1 33 1.0000 10.00'), ('6 none 1.0000 60.00')$$, 'every: each of them in full, an object once; by a rule over the order');
-- a conversion does not touch itself; one at the time of a touch is touched
SELECT crm.define_attribution('{"name": "scans", "on_kind": "scan", "touches": ["code"], "model": "last"}') \g /dev/null
SELECT results_eq($$SELECT conversion_id, touch_id FROM crm.attribution_rows('scans', '2025-03-01', '2025-04-01') WHERE contact_id = 3 ORDER BY 1$$,
    $$VALUES (31::bigint, NULL::bigint), (32, 33), (33, 32)$$, 'a scan is touched by others');
SELECT is_empty($$SELECT * FROM crm.attribution_report('orders', '2020-01-01', '2021-01-01')$$, 'no conversions, no rows');
SELECT is_empty($$SELECT * FROM crm.attribution_report('orders', '2025-03-10', '2025-03-10')$$, 'an empty period');

-- who is merged keeps both touches; who is gone is not counted
SELECT crm.merge(6, 5, 'the same') \g /dev/null
SELECT results_eq($$SELECT contact_id, conversion_id, count(*) FROM crm.attribution_rows('orders', '2025-03-01', '2025-04-01') WHERE conversion_id IN (1005, 1006) GROUP BY 1, 2 ORDER BY 2$$,
    $$SELECT contact_id, transaction_id, 2::bigint FROM crm.transaction WHERE transaction_id IN (1005, 1006) ORDER BY 2$$, 'two who were merged');
ALTER TABLE crm.contact DISABLE TRIGGER USER;
DELETE FROM crm.contact WHERE contact_id = 1;
ALTER TABLE crm.contact ENABLE TRIGGER USER;
SELECT is_empty($$SELECT * FROM crm.attribution_rows('orders', '2025-03-01', '2025-04-01') WHERE contact_id = 1$$, 'one who was deleted');

-- a rule that fails, and one that is broken
SELECT crm.define_attribution('{"name": "orders", "on_kind": "purchase", "rule": "1 / (fact.amount - 10) > -1"}') \g /dev/null
SELECT is((SELECT count(*) FROM crm.attribution_rows('orders', '2025-03-06 01:00', '2025-03-06 03:00')), 0::bigint, 'a rule that fails is false');
SELECT results_eq('SELECT contact_id, object_kind, object FROM crm.rule_error', $$VALUES (3::bigint, 'attribution', 'orders')$$, 'and counted');
ALTER TABLE crm.contact ADD COLUMN grade integer;
SELECT crm.install();
SELECT crm.define_attribution('{"name": "graded", "on_kind": "purchase", "rule": "grade > 1"}') \g /dev/null
ALTER TABLE crm.contact DROP COLUMN grade CASCADE;
SELECT crm.install();
SELECT results_eq($$SELECT check_name, contact_id, expected FROM crm.verify() WHERE check_name ~ 'attribution'$$, $$VALUES ('rule of attribution graded', NULL::bigint, 'a rule that compiles; crm.define_attribution() saves another')$$, 'verify() lists a broken rule');
SELECT throws_ok($$SELECT * FROM crm.attribution_report('graded', '2025-03-01', '2025-04-01')$$, '42703', 'rule names unknown column "grade"', 'and nobody counts by it');

-- definitions: logged, checked
SELECT results_eq($$SELECT name, change, count(*) FROM crm.definition_log WHERE table_name = 'attribution' GROUP BY 1, 2 ORDER BY 1, 2$$,
    $$VALUES ('all', 'insert', 1::bigint), ('graded', 'insert', 1), ('orders', 'insert', 1), ('orders', 'update', 3), ('scans', 'insert', 1)$$, 'every change is logged');
SELECT throws_ok(format('SELECT crm.define_attribution(%L)', definition), state, said, said) FROM (VALUES
    ('{"name": "x"}', '22004', 'key "on_kind" of the definition given to crm.define_attribution() is missing'),
    ('{"name": "", "on_kind": "purchase"}', '23514', NULL),
    ('{"name": "x", "on_kind": ""}', '23514', NULL),
    ('{"name": "x", "on_kind": "purchase", "model": "u-shaped"}', '23514', NULL),
    ('{"name": "x", "on_kind": "purchase", "touches": []}', '23514', NULL),
    ('{"name": "x", "on_kind": "purchase", "touches": ["banner"]}', '23514', NULL),
    ('{"name": "x", "on_kind": "purchase", "look_back": "-1 day"}', '22023', 'look_back -1 days is not above zero'),
    ('{"name": "x", "on_kind": "purchase", "look_back": "0"}', '22023', 'look_back 00:00:00 is not above zero'),
    ('{"name": "x", "on_kind": "purchase", "look_back": "101 years"}', '22023', 'look_back 101 years is longer than 100 years'),
    ('{"name": "x", "on_kind": "purchase", "rule": "amount > 1"}', '42703', 'rule names unknown column "amount"'),
    ('{"name": "x", "on_kind": "purchase", "window": 1}', '22023', NULL)) AS t(definition, state, said);
SELECT throws_ok(format('SELECT * FROM crm.attribution_report(%s)', arguments), state, said, said) FROM (VALUES
    ($$'nobody', '2025-03-01', '2025-04-01'$$, '23503', 'rule of attribution "nobody" does not exist'),
    ($$NULL, '2025-03-01', '2025-04-01'$$, '22004', 'argument "attribution" of crm.attribution_report() must not be NULL'),
    ($$'all', '2025-03-01', NULL$$, '22004', 'argument "period_end" of crm.attribution_report() must not be NULL'),
    ($$'all', '2025-04-01', '2025-03-01'$$, '22023', NULL),
    ($$'all', '2025-04-01', 'infinity'$$, '22008', NULL)) AS t(arguments, state, said);
SELECT crm.define_attribution('{"name": "typo", "on_kind": "purchse"}') \g /dev/null
SELECT throws_ok($$SELECT * FROM crm.attribution_rows('typo', '2025-03-01', '2025-04-01')$$, '23503', 'there is no fact of kind "purchse"', 'a kind of which there is nothing');

-- who may: marketers define, analysts read, also by a rule that they could not give
CREATE ROLE crm_test_analyst;
CREATE ROLE crm_test_marketer;
SELECT crm.grant_access('crm_test_analyst', 'analyst'), crm.grant_access('crm_test_marketer', 'marketer') \g /dev/null
SET ROLE crm_test_marketer;
SELECT lives_ok($$SELECT crm.define_attribution('{"name": "hers", "on_kind": "purchase", "rule": "fact.amount > 50"}')$$, 'a marketer defines');
SET ROLE crm_test_analyst;
SELECT is((SELECT sum(conversions) FROM crm.attribution_report('hers', '2025-03-01', '2025-04-01')), 3::numeric, 'an analyst reads');
SELECT throws_ok($$SELECT crm.define_attribution('{"name": "his", "on_kind": "purchase"}')$$, '42501', NULL, 'and does not define');
RESET ROLE;
SELECT * FROM finish();
ROLLBACK;
