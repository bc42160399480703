-- define_achievement(), define_stage_rule(), define_qr_code(), and changes by hand
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET search_path = public, pg_catalog;
SET pg_crm.clock = '2024-06-30 12:00Z';
SELECT no_plan();

-- some history: contact n has n orders of n * 10
INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2024-01-01 00:00Z' FROM generate_series(1, 12) AS n;
INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref)
SELECT n, n * 10, '2024-02-01 00:00Z'::timestamptz + k * interval '1 day', k
  FROM generate_series(1, 12) AS n, generate_series(1, 12) AS k WHERE k <= n;
SELECT is_empty('SELECT * FROM crm.verify()', 'sound before');

-- achievements: defined late, awarded at historic dates
SELECT is(crm.define_achievement('{"name": "third", "on_kind": "purchase", "thresholds": [3]}'), 1, 'a new achievement is version 1');
SELECT is((SELECT count(*) FROM crm.award WHERE achievement = 'third'), 10::bigint, 'it is awarded to whom it is due');
SELECT is((SELECT awarded_at FROM crm.award WHERE achievement = 'third' AND contact_id = 7), '2024-02-04 00:00Z', 'at the third order');
SELECT is((SELECT recorded_at FROM crm.award WHERE achievement = 'third' AND contact_id = 7), '2024-06-30 12:00Z', 'recorded now');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound with it');
SELECT is(crm.define_achievement('{"on_kind": "purchase", "thresholds": [3.0], "name": "third"}'), 1, 'the same content is the same version');
SELECT is((SELECT count(*) FROM crm.definition_log WHERE name = 'third'), 1::bigint, 'and is not logged');
SELECT is(crm.define_achievement('{"name": "third", "on_kind": "purchase", "thresholds": [3], "label": "Third"}'), 2, 'a label makes version 2');
SELECT is((SELECT count(*) FROM crm.award_change WHERE achievement = 'third'), 0::bigint, 'and moves no award');
SELECT is(crm.define_achievement('{"name": "third", "on_kind": "purchase", "thresholds": [3, 6]}'), 3, 'another threshold makes version 3');
SELECT is((SELECT label FROM crm.achievement WHERE name = 'third'), NULL, 'what a document leaves out has its default');
SELECT is((SELECT array_agg(threshold ORDER BY threshold) FROM crm.award WHERE achievement = 'third' AND contact_id = 8), '{3,6}', 'and is awarded');
SELECT is(crm.define_achievement('{"name": "third", "on_kind": "purchase", "rule": "fact.amount >= 100", "thresholds": [3]}'), 4, 'a rule makes version 4');
SELECT is((SELECT count(*) FROM crm.award WHERE achievement = 'third' AND revoked_at IS NULL), 3::bigint, 'awards that no longer hold are revoked');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound with a rule');
INSERT INTO crm.transaction (contact_id, amount) VALUES (2, 100), (2, 100), (2, 100);
SELECT is((SELECT awarded_at FROM crm.award WHERE achievement = 'third' AND contact_id = 2 AND revoked_at IS NULL), '2024-06-30 12:00Z', 'new orders go by the new rule');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound after new orders');
SELECT is(crm.define_achievement('{"name": "big", "on_kind": "purchase", "measure": "amount", "thresholds": [555.5]}'), 1, 'an amount may be broken');
DELETE FROM crm.achievement WHERE name = 'third';
SELECT is((SELECT count(*) FROM crm.award WHERE achievement = 'third' AND revoked_at IS NULL), 0::bigint, 'a deleted achievement holds no more');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound without it');

-- by hand, with the same checks, versions and log
UPDATE crm.achievement SET thresholds = '{1, 4}', version = 77 WHERE name = 'big';
SELECT is((SELECT version FROM crm.achievement WHERE name = 'big'), 2, 'an UPDATE counts the version itself');
UPDATE crm.achievement SET thresholds = '{1, 4}' WHERE name = 'big';
SELECT is((SELECT version FROM crm.achievement WHERE name = 'big'), 2, 'one that changes nothing does not');
INSERT INTO crm.achievement (name, on_kind, version) VALUES ('hand', 'cart', 9);
SELECT is((SELECT version FROM crm.achievement WHERE name = 'hand'), 1, 'an INSERT begins at 1');
SELECT is((SELECT array_agg(change || ' ' || (before ->> 'version') || ' ' || (after ->> 'version') ORDER BY definition_log_id)
             FROM crm.definition_log WHERE name = 'big' AND change = 'update'), '{update 1 2}', 'the log holds before and after');
SELECT is((SELECT DISTINCT changed_by FROM crm.definition_log), current_user::text, 'and who it was');
SELECT throws_ok($$UPDATE crm.achievement SET rule = 'random() > 0' WHERE name = 'big'$$, '0A000', NULL, 'a rule is checked in an UPDATE too');
TRUNCATE crm.achievement;
SELECT is((SELECT count(*) FROM crm.award WHERE revoked_at IS NULL), 0::bigint, 'TRUNCATE of the achievements leaves no award');
SELECT is_empty('SELECT * FROM crm.verify()', 'and all is sound');

-- stages
SELECT is(crm.define_stage_rule('{"stage": "vip", "rule": "spend >= 500", "rank": 8, "label": "VIP"}'), 1, 'a new stage and its rule');
SELECT is((SELECT (rank, label)::text FROM crm.stage WHERE stage = 'vip'), '(8,VIP)', 'rank and label are the stage''s');
SELECT is((SELECT array_agg(contact_id ORDER BY contact_id) FROM crm.profile WHERE stage = 'vip'), '{8,9,10,11,12}', 'who is due is in it');
SELECT is((SELECT since FROM crm.stage_move WHERE contact_id = 12 AND stage = 'vip'), '2024-02-06 00:00Z', 'since the order that made it so');
SELECT is(crm.define_stage_rule('{"stage": "vip", "rule": "spend >= 500"}'), 1, 'rank and label stay unless named');
SELECT is((SELECT (rank, label)::text FROM crm.stage WHERE stage = 'vip'), '(8,VIP)', 'they stayed');
SELECT is(crm.define_stage_rule('{"stage": "vip", "rule": "spend >= 500", "rank": 8, "label": "Very"}'), 2, 'another label is another version');
SELECT is(crm.define_stage_rule('{"stage": "vip", "rule": "spend >= 1000"}'), 3, 'another rule too');
SELECT is((SELECT array_agg(contact_id ORDER BY contact_id) FROM crm.profile WHERE stage = 'vip'), '{10,11,12}', 'and moves everybody');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound with another rule');
SELECT is(crm.define_stage_rule('{"stage": "watched", "rule": "orders >= 11", "position": 3}'), 1, 'a stage outside the ranking');
SELECT is((SELECT rank FROM crm.stage WHERE stage = 'watched'), NULL, 'has no rank');
SELECT is((SELECT array_agg(contact_id ORDER BY contact_id) FROM crm.profile WHERE stage = 'watched'), '{11,12}', 'and wins over it');
SELECT is(crm.define_stage_rule('{"stage": "watched", "rule": "orders >= 11", "allow_regress": true}'), 2, 'allow_regress');
DELETE FROM crm.stage WHERE stage = 'vip';
SELECT is((SELECT count(*) FROM crm.profile WHERE stage = 'vip'), 0::bigint, 'nobody is left in a deleted stage');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound without it');
UPDATE crm.stage SET rank = 70 WHERE stage = 'loyal';
SELECT is_empty('SELECT * FROM crm.verify()', 'sound with another rank');
SELECT throws_ok($$SELECT crm.define_stage_rule('{"stage": "x", "rule": "orders >= 1", "rank": 70}')$$, '23505', NULL, 'a rank is taken once');

-- codes
INSERT INTO crm.account (account_id, kind, name) VALUES (1, 'official_account', 'shop');
INSERT INTO crm.store (store_id, name) VALUES (5, 'Bund');
SELECT is(crm.define_qr_code('{"account": "shop", "scene": "door", "store_id": 5}'), 1, 'a new code');
SELECT is(crm.define_qr_code('{"account_id": 1, "scene": "door", "store_id": 5}'), 1, 'the account by its id');
SELECT is(crm.define_qr_code('{"account": "shop", "scene": "door", "valid_from": "2024-01-01 00:00Z", "valid_until": "2025-01-01 00:00Z"}'), 2, 'another version');
SELECT is((SELECT count(*) FROM crm.qr_code), 1::bigint, 'of one code');
SELECT is((SELECT count(*) FROM crm.definition_log WHERE table_name = 'qr_code' AND name = 'door'), 2::bigint, 'logged');

-- what is refused
PREPARE achievement(jsonb) AS SELECT crm.define_achievement($1);
PREPARE stage(jsonb) AS SELECT crm.define_stage_rule($1);
PREPARE code(jsonb) AS SELECT crm.define_qr_code($1);
SELECT throws_ok(format('EXECUTE %s(%L)', f, d), e, NULL, coalesce(f || ' ' || left(d, 60), 'NULL'))
  FROM (VALUES
    ('achievement', NULL, '22004'),
    ('achievement', '[]', '22023'),
    ('achievement', '"name"', '22023'),
    ('achievement', '{}', '22004'),
    ('achievement', '{"name": "a"}', '22004'),
    ('achievement', '{"name": null, "on_kind": "cart"}', '22004'),
    ('achievement', '{"name": "a", "on_kind": "cart", "version": 3}', '22023'),
    ('achievement', '{"name": "a", "on_kind": "cart", "tresholds": [1]}', '22023'),
    ('achievement', '{"name": 7, "on_kind": "cart"}', '22023'),
    ('achievement', '{"name": "a", "on_kind": ["cart"]}', '22023'),
    ('achievement', '{"name": "a", "on_kind": "cart", "thresholds": 1}', '22023'),
    ('achievement', '{"name": "a", "on_kind": "cart", "thresholds": "{1}"}', '22023'),
    ('achievement', '{"name": "a", "on_kind": "cart", "thresholds": [null]}', '22023'),
    ('achievement', '{"name": "a", "on_kind": "cart", "thresholds": ["NaN"]}', '22023'),
    ('achievement', '{"name": "a", "on_kind": "cart", "thresholds": [[1]]}', '22023'),
    ('achievement', '{"name": "a", "on_kind": "cart", "thresholds": null}', '22004'),
    ('achievement', '{"name": "a", "on_kind": "cart", "thresholds": []}', '23514'),
    ('achievement', '{"name": "a", "on_kind": "cart", "thresholds": [0]}', '23514'),
    ('achievement', '{"name": "a", "on_kind": "cart", "thresholds": [-1]}', '23514'),
    ('achievement', '{"name": "a", "on_kind": "cart", "thresholds": [1.5]}', '23514'),
    ('achievement', '{"name": "a", "on_kind": "cart", "thresholds": [2, 2.0]}', '23514'),
    ('achievement', '{"name": "a", "on_kind": "cart", "thresholds": [1e19]}', '23514'),
    ('achievement', '{"name": "a", "on_kind": "cart", "revocable": "yes"}', '22023'),
    ('achievement', '{"name": "a", "on_kind": "cart", "measure": "amount"}', '23514'),
    ('achievement', '{"name": "a", "on_kind": "cart", "measure": "weight"}', '23514'),
    ('achievement', '{"name": "", "on_kind": "cart"}', '23514'),
    ('achievement', '{"name": "a", "on_kind": ""}', '23514'),
    ('achievement', format('{"name": "%s", "on_kind": "cart"}', repeat('n', 64)), '22001'),
    ('achievement', format('{"name": "a", "on_kind": "%s"}', repeat('k', 64)), '22001'),
    ('achievement', format('{"name": "a", "on_kind": "%s"}', repeat('k', 1024 * 1024)), '54000'),
    ('achievement', '{"name": "a", "on_kind": "purchase", "rule": "fact.amount >"}', '42601'),
    ('achievement', '{"name": "a", "on_kind": "purchase", "rule": "events > 1"}', '42703'),
    ('achievement', '{"name": "a", "on_kind": "purchase", "rule": "fact.amount > (SELECT 1)"}', '0A000'),
    ('achievement', format('{"name": "a", "on_kind": "cart", "thresholds": %s}', (SELECT jsonb_agg(n) FROM generate_series(1, 101) AS n)), '23514'),
    ('stage', '{"stage": "loyal"}', '22004'),
    ('stage', '{"stage": "loyal", "rule": null}', '22004'),
    ('stage', '{"stage": "loyal", "rule": true}', '22023'),
    ('stage', '{"stage": "loyal", "rule": "true", "rank": "8"}', '22023'),
    ('stage', '{"stage": "loyal", "rule": "true", "rank": 8.5}', '22023'),
    ('stage', '{"stage": "loyal", "rule": "true", "rank": 1e12}', '22003'),
    ('stage', '{"stage": "loyal", "rule": "true", "colour": "red"}', '22023'),
    ('stage', '{"stage": "loyal", "rule": "no_such_column > 1"}', '42703'),
    ('stage', '{"stage": "loyal", "rule": "true; DROP TABLE crm.contact"}', '42601'),
    ('stage', '{"stage": "", "rule": "true"}', '23514'),
    ('code', '{"scene": "x"}', '22004'),
    ('code', '{"account": "shop"}', '22004'),
    ('code', '{"account": "shop", "account_id": 1, "scene": "x"}', '22023'),
    ('code', '{"account": "nowhere", "scene": "x"}', '23503'),
    ('code', '{"account": 1, "scene": "x"}', '22023'),
    ('code', '{"account": null, "scene": "x"}', '22004'),
    ('code', '{"account_id": 9, "scene": "x"}', '23503'),
    ('code', '{"account": "shop", "scene": "x", "store_id": 9}', '23503'),
    ('code', '{"account": "shop", "scene": "x", "store_id": 1e30}', '22003'),
    ('code', '{"account": "shop", "scene": "x", "store_id": "5"}', '22023'),
    ('code', '{"account": "shop", "scene": "x", "qr_code_id": 5}', '22023'),
    ('code', '{"account": "shop", "scene": ""}', '23514'),
    ('code', format('{"account": "shop", "scene": "%s"}', repeat('s', 65)), '22001'),
    ('code', '{"account": "shop", "scene": "x", "dedup_scope": "store"}', '23514'),
    ('code', '{"account": "shop", "scene": "x", "dedup_scope": "planet"}', '23514'),
    ('code', '{"account": "shop", "scene": "x", "dedup_window": "0 days"}', '23514'),
    ('code', '{"account": "shop", "scene": "x", "valid_from": "nonsense"}', '22007'),
    ('code', '{"account": "shop", "scene": "x", "valid_from": "2025-01-01", "valid_until": "2024-01-01"}', '23514')
  ) AS t(f, d, e);
SELECT throws_ok($$INSERT INTO crm.achievement (name, on_kind) VALUES (NULL, 'cart')$$, '23502', NULL, 'NULL in a row');
SELECT throws_ok($$INSERT INTO crm.achievement (name, on_kind, thresholds) VALUES ('a', 'cart', '{NULL}')$$, '23514', NULL, 'NULL in thresholds');
SELECT throws_ok($$INSERT INTO crm.achievement (name, on_kind, thresholds) VALUES ('a', 'cart', '{NaN}')$$, '23514', NULL, 'NaN in thresholds');
SELECT throws_ok($$INSERT INTO crm.achievement (name, on_kind, thresholds) VALUES ('a', 'cart', '{Infinity}')$$, '23514', NULL, 'infinity in thresholds');
SELECT throws_ok($$INSERT INTO crm.achievement (name, on_kind, thresholds) VALUES ('a', 'cart', '{{1,2},{3,4}}')$$, '23514', NULL, 'two dimensions of thresholds');
SELECT is_empty($$SELECT name FROM crm.achievement WHERE name = 'a'$$, 'nothing of it is stored');

-- names are data
SELECT is(crm.define_achievement('{"name": "a''; DROP TABLE crm.award; --", "on_kind": "\\\" OR"}'), 1, 'quotes in names');
ALTER TABLE crm.achievement ADD COLUMN "odd "" name" integer;
SELECT is(crm.define_achievement('{"name": "odd", "on_kind": "cart", "odd \" name": 3}'), 1, 'a column that a user added');
SELECT is((SELECT "odd "" name" FROM crm.achievement WHERE name = 'odd'), 3, 'is stored');

SELECT * FROM finish();
ROLLBACK;
