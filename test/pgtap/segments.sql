-- segments: kept as facts, fields, merges and definitions change; partitions, suppression
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET pg_crm.clock = '2024-01-01 00:00Z';
SELECT no_plan();
CREATE FUNCTION pg_temp.members(segment text) RETURNS text LANGUAGE sql AS
$$SELECT coalesce(string_agg(contact_id::text, ',' ORDER BY contact_id), '-') FROM crm.segment_member WHERE segment = $1$$;
CREATE FUNCTION pg_temp.changes(segment text, contact bigint) RETURNS text LANGUAGE sql AS
$$SELECT string_agg(format('%s %s %s', change, to_char(occurred_at AT TIME ZONE 'UTC', 'MM-DD'), cause), ', ' ORDER BY segment_change_id)
    FROM crm.segment_change WHERE segment = $1 AND contact_id = $2$$;

INSERT INTO crm.contact (contact_id, city) SELECT n, CASE WHEN n % 2 = 0 THEN 'Shanghai' ELSE 'Beijing' END FROM generate_series(1, 8) AS n;
SELECT crm.purchase(1, 100, '2023-12-01Z', 'old') \g /dev/null

-- definitions apply to everybody
SELECT is(crm.define_segment('{"name": "buyers", "rule": "orders >= 1"}'), 1, 'a segment is defined');
SELECT is(pg_temp.members('buyers'), '1', 'and has its members');
SELECT results_eq($$SELECT contact_id, since, cause, partition FROM crm.segment_member$$, $$VALUES (1::bigint, '2024-01-01Z'::timestamptz, 'definition', NULL::text)$$, 'since when and why');
SELECT is(crm.define_segment('{"name": "buyers", "rule": "orders >= 1"}'), 1, 'saved again it is the same');
SELECT is(pg_temp.changes('buyers', 1), 'entered 01-01 definition', 'and nobody moves');

-- orders, refunds
SELECT crm.purchase(2, 50, '2023-12-20Z', 'r') \g /dev/null
SELECT is(pg_temp.members('buyers'), '1,2', 'an order lets in');
SELECT is(pg_temp.changes('buyers', 2), 'entered 12-20 purchase', 'as of the order');
SELECT crm.refund(2, 'r', 50, '2023-12-25Z') \g /dev/null
SELECT is(pg_temp.changes('buyers', 2), 'entered 12-20 purchase, left 12-25 refund', 'a refund lets out');
SELECT crm.purchase(2, 50, '2023-12-22Z') \g /dev/null
SELECT is(pg_temp.changes('buyers', 2), 'entered 12-20 purchase, left 12-25 refund, entered 12-25 purchase', 'nothing happens before what happened last');
INSERT INTO crm.transaction (contact_id, amount) SELECT n, 10 FROM generate_series(3, 4) AS n;
SELECT is(pg_temp.members('buyers'), '1,2,3,4', 'by INSERT of many');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- fields and tags
SELECT crm.define_segment('{"name": "shanghai", "rule": "city = ''Shanghai''"}'), crm.define_segment('{"name": "vip", "rule": "tags @> ''{vip}''"}') \g /dev/null
SELECT is(pg_temp.members('shanghai'), '2,4,6,8');
UPDATE crm.contact SET city = 'Shanghai', name = 'Li' WHERE contact_id = 1;
SELECT is(pg_temp.members('shanghai'), '1,2,4,6,8', 'a changed field lets in');
SELECT is(pg_temp.changes('shanghai', 1), 'entered 01-01 field_change', 'and says so');
UPDATE crm.contact SET tags = tags || 'vip'::text WHERE contact_id IN (1, 3);
SELECT is(pg_temp.members('vip'), '1,3', 'tags');
UPDATE crm.contact SET city = CASE contact_id WHEN 1 THEN 'Beijing' ELSE city END, tags = '{}' WHERE contact_id < 4;
SELECT is(pg_temp.members('shanghai') || ' ' || pg_temp.members('vip'), '2,4,6,8 -', 'several fields of several contacts');
SELECT results_eq($$SELECT contact_id, properties FROM crm.event WHERE kind = 'field_change' ORDER BY event_id$$,
    $$VALUES (1::bigint, '{"field": "name", "old": null, "new": "Li"}'::jsonb), (1, '{"field": "city", "old": "Beijing", "new": "Shanghai"}'),
             (1, '{"field": "tags", "old": [], "new": ["vip"]}'), (3, '{"field": "tags", "old": [], "new": ["vip"]}'),
             (1, '{"field": "city", "old": "Shanghai", "new": "Beijing"}'), (1, '{"field": "tags", "old": ["vip"], "new": []}'), (3, '{"field": "tags", "old": ["vip"], "new": []}')$$,
    'each changed field is a fact, with old and new value');
SELECT results_eq('SELECT events, last_seen_at FROM crm.profile WHERE contact_id = 3', $$VALUES (0::bigint, '2024-01-01Z'::timestamptz)$$, 'which is no sighting');
SELECT is((SELECT count(*)::int FROM crm.contact_timeline WHERE contact_id = 1 AND kind = 'field_change'), 5, 'in the timeline');
SELECT is((SELECT count(*)::int FROM crm.contact_timeline WHERE contact_id = 2 AND kind LIKE 'segment%'), 4, 'with what followed');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
SELECT throws_ok($$INSERT INTO crm.event (contact_id, kind) VALUES (1, 'field_change')$$, '42501', 'events of kind "field_change" are recorded by the extension only', 'nobody else records them');
SELECT throws_ok($$SELECT crm.track(1, 'field_change')$$, '42501', NULL, 'by function neither');
ALTER TABLE crm.contact ADD COLUMN shoe numeric, ADD COLUMN spot point, ADD COLUMN twice numeric GENERATED ALWAYS AS (shoe * 2) STORED;
UPDATE crm.contact SET shoe = 42, spot = '(1,2)' WHERE contact_id = 5;
SELECT results_eq($$SELECT properties FROM crm.event WHERE kind = 'field_change' AND contact_id = 5 ORDER BY event_id$$,
    $$VALUES ('{"field": "shoe", "old": null, "new": 42}'::jsonb), ('{"field": "spot", "old": null, "new": "(1,2)"}')$$, 'columns of users too, not what follows from others');
UPDATE crm.contact SET shoe = shoe;
INSERT INTO crm.contact (contact_id, city) VALUES (5, 'Wuhan') ON CONFLICT (contact_id) DO UPDATE SET city = excluded.city;
SELECT is((SELECT count(*)::int FROM crm.event WHERE kind = 'field_change' AND contact_id = 5), 3, 'what stays as it is is no change; an upsert may be one');
SELECT crm.define_segment('{"name": "moved", "rule": "times(''field_change'') >= 3"}') \g /dev/null
SELECT is(pg_temp.members('moved'), '1,5', 'rules count field changes');
UPDATE crm.contact SET city = 'Xi''an' WHERE contact_id = 3;
SELECT is(pg_temp.members('moved'), '1,3,5', 'as they happen');

-- achievements and points by field changes
SELECT crm.define_achievement('{"name": "mover", "on_kind": "field_change", "thresholds": [4]}') \g /dev/null
UPDATE crm.contact SET city = 'Lhasa' WHERE contact_id IN (3, 5);
SELECT results_eq($$SELECT contact_id FROM crm.award WHERE achievement = 'mover' ORDER BY 1$$, 'VALUES (1::bigint), (3), (5)', 'an achievement counts field changes');
SELECT results_eq('SELECT events, last_seen_at FROM crm.profile WHERE contact_id = 5', 'VALUES (0::bigint, NULL::timestamptz)', 'which are still no sighting');
SELECT crm.define_segment('{"name": "movers", "rule": "awarded(''mover'')"}') \g /dev/null
UPDATE crm.contact SET city = 'Lhasa', name = 'x', gender = 'f', language = 'de' WHERE contact_id IN (2, 6);
SELECT is(pg_temp.members('movers'), '1,2,3,5,6', 'awards let in');
SELECT crm.track(7, 'cart') \g /dev/null
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
DELETE FROM crm.achievement WHERE name = 'mover';
SELECT is_empty($$SELECT * FROM crm.verify() WHERE check_name NOT LIKE 'segment movers'$$, 'sound but for');
SELECT is((SELECT found FROM crm.verify()), 'achievement "mover" of a rule does not exist', 'a rule that can no longer be read');
SELECT is(pg_temp.members('movers'), '-', 'which counts as false');
DELETE FROM crm.segment WHERE name = 'movers';

-- new contacts, stages, scans, events
SELECT crm.define_segment('{"name": "all", "rule": "true"}'), crm.define_segment('{"name": "paying", "rule": "stage_rank >= rank(''paying'')"}'),
       crm.define_segment('{"name": "carts", "rule": "did(''cart'')"}') \g /dev/null
INSERT INTO crm.contact (contact_id, created_at) VALUES (20, '2023-05-05Z'), (10, '2023-05-06Z');
SELECT is(pg_temp.members('all'), '1,2,3,4,5,6,7,8,10,20', 'new contacts');
SELECT is(pg_temp.changes('all', 20), 'entered 05-05 created');
SELECT is(pg_temp.members('paying'), '1,2,3,4');
SELECT crm.set_stage(10, 'loyal', 'friend') \g /dev/null
SELECT is(pg_temp.members('paying') || ' ' || pg_temp.changes('paying', 10), '1,2,3,4,10 entered 01-01 set_stage', 'a stage by hand');
DELETE FROM crm.stage_rule WHERE stage IN ('paying', 'loyal');
SELECT is(pg_temp.members('paying'), '10', 'stages by rules that are gone');
SELECT is(pg_temp.members('carts'), '7');
SELECT crm.track(20, 'cart', at => '2023-10-10Z') \g /dev/null
SELECT is(pg_temp.changes('carts', 20), 'entered 10-10 cart', 'events');
SELECT crm.define_segment('{"name": "reachable", "rule": "mobile IS NOT NULL"}') \g /dev/null
SELECT crm.bind_mobile(8, '13800138000') \g /dev/null
SELECT is(pg_temp.members('reachable'), '8', 'a number bound');
INSERT INTO crm.contact (contact_id, mobile) VALUES (30, '13800138001');
INSERT INTO crm.identity (kind, external_id, contact_id) VALUES ('mobile', '+8613800138002', 20);
SELECT is(pg_temp.members('reachable'), '8,30', 'a contact inserted with one');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- a partition: the first that holds
SELECT crm.define_segment('{"name": "big", "rule": "spend >= 100", "partition": "value", "position": 1}'),
       crm.define_segment('{"name": "small", "rule": "spend > 0", "partition": "value", "position": 2}'),
       crm.define_segment('{"name": "none", "rule": "true", "partition": "value", "position": 3}') \g /dev/null
SELECT is(pg_temp.members('big') || ' ' || pg_temp.members('small') || ' ' || pg_temp.members('none'), '1 2,3,4 5,6,7,8,10,20,30', 'everybody is in one');
SELECT crm.purchase(2, 70), crm.purchase(5, 1) \g /dev/null
SELECT is(pg_temp.members('big') || ' ' || pg_temp.members('small') || ' ' || pg_temp.members('none'), '1,2 3,4,5 6,7,8,10,20,30', 'and moves');
SELECT results_eq($$SELECT segment, change FROM crm.segment_change WHERE contact_id = 2 AND segment IN ('big', 'small') ORDER BY segment_change_id DESC LIMIT 2$$,
    $$VALUES ('big', 'entered'), ('small', 'left')$$, 'out of one, into the other');
SELECT results_eq($$SELECT * FROM crm.segment_overlap('value')$$, $$VALUES ('big', 'small', 2::bigint), ('big', 'none', 2), ('small', 'none', 5)$$, 'the overlap of their rules');
SELECT throws_ok($$INSERT INTO crm.segment_member VALUES (1, 'small', now(), 'x', 'value')$$, '23505', NULL, 'which is a constraint');
UPDATE crm.segment SET position = CASE name WHEN 'none' THEN 1 ELSE position + 1 END WHERE partition = 'value';
SELECT is(pg_temp.members('big') || ' ' || pg_temp.members('small') || ' ' || pg_temp.members('none'), '- - 1,2,3,4,5,6,7,8,10,20,30', 'another order');
DELETE FROM crm.segment WHERE name = 'none';
SELECT is(pg_temp.members('big') || ' ' || pg_temp.members('small') || ' ' || pg_temp.members('none'), '1,2 3,4,5 -', 'one less');
SELECT is(pg_temp.changes('none', 7), 'entered 01-01 definition, left 01-01 definition', 'who was in it left');
UPDATE crm.segment SET partition = 'value', position = 0 WHERE name = 'vip';
UPDATE crm.contact SET tags = '{vip}' WHERE contact_id IN (1, 6);
SELECT is(pg_temp.members('vip') || ' ' || pg_temp.members('big') || ' ' || pg_temp.members('small'), '1,6 2 3,4,5', 'one that joins goes first');
UPDATE crm.segment SET partition = NULL WHERE name = 'vip';
SELECT is(pg_temp.members('vip') || ' ' || pg_temp.members('big') || ' ' || pg_temp.members('small'), '1,6 1,2 3,4,5', 'and one that leaves stands alone');
UPDATE crm.segment SET name = 'very_important' WHERE name = 'vip';
SELECT is(pg_temp.members('vip') || ' ' || pg_temp.members('very_important'), '- 1,6', 'another name');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
SELECT results_eq($$SELECT segment, members FROM crm.segment_size WHERE partition = 'value' ORDER BY 1$$, $$VALUES ('big', 2::bigint), ('small', 3)$$, 'sizes');

-- segments that name others
SELECT crm.define_segment('{"name": "a", "rule": "in_segment(''very_important'') AND NOT in_segment(''small'')"}'),
       crm.define_segment('{"name": "b", "rule": "NOT in_segment(''a'')"}') \g /dev/null
SELECT is(pg_temp.members('a') || ' ' || pg_temp.members('b'), '1,6 2,3,4,5,7,8,10,20,30', 'chains');
UPDATE crm.contact SET tags = '{}' WHERE contact_id = 1;
SELECT is(pg_temp.members('a') || ' ' || pg_temp.members('b'), '6 1,2,3,4,5,7,8,10,20,30', 'follow');
SELECT crm.purchase(6, 5) \g /dev/null
SELECT is(pg_temp.members('a') || ' ' || pg_temp.members('b'), '- 1,2,3,4,5,6,7,8,10,20,30', 'one by one');
SELECT results_eq($$SELECT part, holds, found FROM crm.explain(6, 'in_segment(''small'') AND NOT in_segment(''b'')') OFFSET 1$$,
    $$VALUES ('in_segment(''small'')', true, 'in_segment(''small'') = true'), ('in_segment(''b'')', true, 'in_segment(''b'') = true')$$, 'explain() shows it');
SELECT results_eq($$SELECT * FROM crm.audience('in_segment(''small'')') ORDER BY 1$$, 'VALUES (3::bigint), (4), (5), (6)', 'audience() takes it');
SELECT throws_ok($$UPDATE crm.segment SET rule = 'in_segment(''b'')' WHERE name = 'small'$$, '23514', NULL, 'a circle is refused');
SELECT throws_ok($$SELECT crm.define_segment('{"name": "a", "rule": "in_segment(''a'')"}')$$, '23514', NULL, 'also the smallest');
SELECT throws_ok($$UPDATE crm.segment SET rule = 'in_segment(''small'')' WHERE name = 'big'$$, '23514', NULL, 'and one through the order of a partition');
SELECT throws_ok($$DELETE FROM crm.segment WHERE name = 'a'$$, '23503', NULL, 'one that is named stays');
SELECT throws_ok($$UPDATE crm.segment SET name = 'c' WHERE name = 'a'$$, '23503', NULL, 'under its name');
SELECT throws_ok('TRUNCATE crm.segment', '42501', NULL, 'nor all at once');
SELECT is(pg_temp.members('a') || ' ' || pg_temp.members('b'), '- 1,2,3,4,5,6,7,8,10,20,30', 'nothing happened');
SELECT lives_ok($$DELETE FROM crm.segment WHERE name IN ('a', 'b')$$, 'both go together');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- bad input
SELECT throws_ok(format('SELECT crm.define_segment(%L)', d), s, NULL, d)
  FROM (VALUES ('{"name": "x"}', '22004'), ('{"rule": "true"}', '22004'), ('{"name": "", "rule": "true"}', '23514'), ('{"name": "x", "rule": "true", "partition": ""}', '23514'),
      ('{"name": "x", "rule": "orders >"}', '42601'), ('{"name": "x", "rule": "nothing > 1"}', '42703'), ('{"name": "x", "rule": "in_segment(''no'')"}', '23503'),
      ('{"name": "x", "rule": "suppressed(''fax'')"}', '23514'), ('{"name": "x", "rule": "orders"}', '42804'), ('{"name": "x", "rule": null}', '22004'), ('{"name": "x", "rule": "now() > as_of"}', '0A000'),
      ('{"name": "x", "rule": "true", "position": "first"}', '22023'), ('{"name": "x", "rule": "true", "colour": 1}', '22023'), (format('{"name": "%s", "rule": "true"}', repeat('x', 64)), '22001')) AS v (d, s);
SELECT throws_ok($$INSERT INTO crm.segment (name, rule) VALUES ('x', 'orders >')$$, '42601', NULL, 'plain INSERTs are checked too');
SELECT throws_ok($$SELECT * FROM crm.segment_overlap(NULL)$$, '22004');
SELECT throws_ok($$SELECT * FROM crm.segment_overlap('no')$$, '23503');
SELECT is((SELECT count(*)::int FROM crm.segment WHERE name = 'x'), 0);
SELECT crm.define_segment('{"name": "fails", "rule": "100 / orders > 10"}') \g /dev/null
SELECT is(pg_temp.members('fails'), '1,2,3,4,5,6', 'a rule that fails is false for those it fails for');
SELECT crm.purchase(7, 5) \g /dev/null
SELECT is(pg_temp.members('fails'), '1,2,3,4,5,6,7');
SELECT isnt_empty($$SELECT FROM crm.rule_error WHERE object_kind = 'segment' AND object = 'fails'$$, 'and counted');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
DELETE FROM crm.segment WHERE name = 'fails';

-- suppression
SELECT crm.define_segment('{"name": "quiet", "rule": "suppressed()"}'), crm.define_segment('{"name": "no_sms", "rule": "suppressed(''sms'')"}') \g /dev/null
SELECT crm.suppress(1), crm.suppress(2, 'sms', 'asked us'), crm.suppress(2, 'sms', 'again') \g /dev/null
SELECT is(pg_temp.members('quiet') || ' ' || pg_temp.members('no_sms'), '1 1,2', 'all channels, or one');
SELECT results_eq('SELECT contact_id, channel, reason, ended_at FROM crm.suppression ORDER BY 1', $$VALUES (1::bigint, '', NULL::text, NULL::timestamptz), (2, 'sms', 'asked us', NULL)$$, 'once each');
SELECT results_eq($$SELECT contact_id, kind, properties FROM crm.event WHERE kind LIKE '%suppress' ORDER BY event_id$$,
    $$VALUES (1::bigint, 'suppress', '{"channel": "", "reason": null}'::jsonb), (2, 'suppress', '{"channel": "sms", "reason": "asked us"}')$$, 'each is an event');
SET pg_crm.clock = '2024-01-02 00:00Z';
SELECT crm.unsuppress(2, 'sms'), crm.unsuppress(2), crm.unsuppress(1, 'sms') \g /dev/null
SELECT is(pg_temp.members('quiet') || ' ' || pg_temp.members('no_sms'), '1 1', 'and back');
SELECT is(pg_temp.changes('no_sms', 2), 'entered 01-01 suppress, left 01-02 unsuppress');
SELECT results_eq($$SELECT * FROM crm.audience('suppressed(''sms'')', '2024-01-01 12:00Z') ORDER BY 1$$, 'VALUES (1::bigint), (2)', 'as of then');
SELECT throws_ok('SELECT crm.suppress(NULL)', '22004');
SELECT throws_ok('SELECT crm.suppress(99)', '23503');
SELECT throws_ok($$SELECT crm.suppress(1, 'fax')$$, '23514');
SELECT throws_ok($$SELECT crm.unsuppress(1, '')$$, '23514');
SELECT throws_ok($$SELECT crm.track(1, 'suppress')$$, '22023');
SELECT throws_ok($$INSERT INTO crm.suppression (contact_id) VALUES (1)$$, '23505', NULL, 'one at a time');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- merging
SELECT crm.suppress(3, 'sms'), crm.suppress(4, 'sms', 'other') \g /dev/null
UPDATE crm.contact SET tags = '{vip}' WHERE contact_id = 4;
SELECT crm.merge(3, 4) \g /dev/null
SELECT is(pg_temp.members('very_important') || ' ' || pg_temp.members('small') || ' ' || pg_temp.members('no_sms'), '3,6 3,5,6,7 1,3', 'merged');
SELECT is((SELECT since FROM crm.segment_member WHERE contact_id = 3 AND segment = 'very_important'), '2024-01-02Z'::timestamptz, 'who was in stays in');
SELECT is(pg_temp.changes('very_important', 3), 'entered 01-02 field_change', 'with its history');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound when merged');
SELECT crm.unmerge(4) \g /dev/null
SELECT is(pg_temp.members('very_important') || ' ' || pg_temp.members('small') || ' ' || pg_temp.members('no_sms'), '4,6 3,4,5,6,7 1,3,4', 'and parted');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound when parted');

-- found and mended
DELETE FROM crm.segment_member WHERE contact_id = 1 AND segment = 'buyers';
INSERT INTO crm.segment_member VALUES (20, 'buyers', now(), 'x'), (20, 'gone', now(), 'x');
SELECT results_eq('SELECT * FROM crm.verify() ORDER BY 1, 2', $$VALUES ('segment buyers', 1::bigint, 'in it', NULL), ('segment buyers', 20, NULL, 'in it'), ('segment_member of gone', 20, NULL, 'in a segment that is not defined')$$, 'wrong members are found');
SELECT crm.recompute() \g /dev/null
DELETE FROM crm.segment_member WHERE segment = 'gone';
SELECT is_empty('SELECT * FROM crm.verify()', 'and mended');

-- time: each at its own moment, by tick()
SET pg_crm.clock = '2024-03-01 00:00Z';
INSERT INTO crm.contact (contact_id) SELECT generate_series(41, 44);
SELECT crm.purchase(41, 1, '2024-02-01Z'), crm.purchase(42, 1, '2024-02-10 08:00Z'), crm.purchase(42, 1, '2024-02-20Z'), crm.track(43, 'cart', at => '2024-02-29Z') \g /dev/null
SET client_min_messages = notice;
SELECT crm.define_segment('{"name": "silent", "rule": "last_order_at < as_of - interval ''30 days''"}') \g /dev/null
SET client_min_messages = warning;
SELECT crm.define_segment('{"name": "week", "rule": "did(''cart'', ''7 days'')"}'), crm.define_segment('{"name": "gone", "rule": "in_segment(''silent'') AND NOT in_segment(''week'')"}') \g /dev/null
CREATE FUNCTION pg_temp.of(segment text) RETURNS text LANGUAGE sql AS
$$SELECT coalesce(string_agg(contact_id::text, ',' ORDER BY contact_id), '-') FROM crm.segment_member WHERE segment = $1 AND contact_id > 40$$;
SELECT is(pg_temp.of('silent') || ' ' || pg_temp.of('week') || ' ' || pg_temp.of('gone'), '- 43 -', 'nobody yet');
SELECT results_eq('SELECT contact_id, due_at FROM crm.segment_state WHERE contact_id > 40 AND due_at IS NOT NULL ORDER BY 1', $$VALUES (41::bigint, '2024-03-02 00:00:00.000001Z'::timestamptz), (42, '2024-03-21 00:00:00.000001Z'), (43, '2024-03-07Z')$$, 'each is due at its moment');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
SELECT is(crm.tick('2024-03-02Z'), 0, 'tick() enters no journey steps');
SELECT is(pg_temp.of('silent'), '-', 'too early');
SELECT crm.tick('2024-03-02 00:00:00.000001Z') \g /dev/null
SELECT is(pg_temp.of('silent') || ' ' || pg_temp.of('gone'), '41 41', 'in its moment');
SELECT results_eq($$SELECT since, cause FROM crm.segment_member WHERE contact_id = 41 AND segment = 'gone'$$, $$VALUES ('2024-03-02 00:00:00.000001Z'::timestamptz, 'time')$$, 'by time, with those that name it');
SELECT crm.tick('2024-04-10Z') \g /dev/null
SELECT is(pg_temp.of('silent') || ' ' || pg_temp.of('week') || ' ' || pg_temp.of('gone'), '41,42 - 41,42', 'all that is due');
SELECT results_eq($$SELECT contact_id, segment, change, occurred_at FROM crm.segment_change WHERE contact_id IN (42, 43) AND segment IN ('silent', 'week') ORDER BY segment_change_id$$,
    $$VALUES (43::bigint, 'week', 'entered', '2024-03-01Z'::timestamptz), (43, 'week', 'left', '2024-03-07Z'), (42, 'silent', 'entered', '2024-03-21 00:00:00.000001Z')$$, 'each dated by its own moment');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound ahead of the clock');
SELECT crm.tick('2024-03-05Z') \g /dev/null
SELECT is(pg_temp.of('silent') || ' ' || pg_temp.of('week'), '41,42 -', 'a time before moves nobody');
SELECT crm.purchase(41, 1) \g /dev/null
SELECT is(pg_temp.of('silent'), '42', 'an order is decided as of the last moment of its contact');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
SET pg_crm.clock = '2024-04-11 00:00Z';
SELECT crm.purchase(41, 1), crm.track(44, 'cart') \g /dev/null
SELECT is(pg_temp.of('silent') || ' ' || pg_temp.of('week') || ' ' || pg_temp.of('gone'), '42 44 42', 'a new order ends it');
SET pg_crm.clock = '2024-06-01 00:00Z';
SELECT is_empty('SELECT * FROM crm.verify()', 'who is due is no difference');
UPDATE crm.segment_state SET due_at = NULL WHERE contact_id = 44;
SELECT results_eq('SELECT contact_id, check_name FROM crm.verify() ORDER BY 2', $$VALUES (44::bigint, 'segment week')$$, 'a moment that is missing is found');
SET pg_crm.clock = '2024-04-12 00:00Z';
SELECT results_eq('SELECT contact_id, check_name, expected, found FROM crm.verify()', $$VALUES (44::bigint, 'segment_state.due_at', timestamptz '2024-04-18Z'::text || ' or before', NULL::text)$$, 'also before it has come');
SELECT crm.recompute(44) \g /dev/null
SELECT is_empty('SELECT * FROM crm.verify()', 'and mended');
SELECT crm.define_segment('{"name": "fails", "rule": "last_order_at + 10 / (orders - 1) * interval ''1 day'' < as_of"}') \g /dev/null
SELECT crm.tick() \g /dev/null
SELECT is_empty('SELECT * FROM crm.verify()', 'a rule that fails while its moment is sought');
DELETE FROM crm.segment WHERE name = 'fails';
SELECT crm.define_segment('{"name": "noon", "rule": "local_time() >= ''12:00''"}') \g /dev/null
SELECT is(pg_temp.of('noon'), '-');
SET pg_crm.clock = '2024-04-12 17:00Z';
SELECT crm.tick() \g /dev/null
SELECT is_empty('SELECT * FROM crm.verify()', 'what is looked at once a day');
SELECT crm.merge(41, 42) \g /dev/null
SELECT is_empty('SELECT * FROM crm.verify()', 'sound when merged');
-- facts dated ahead
SELECT crm.track(43, 'cart', at => '2024-04-12 20:00Z'), crm.track(43, 'cart', at => '2024-04-12 22:00Z') \g /dev/null
SELECT crm.define_segment('{"name": "carts2", "rule": "times(''cart'') >= 3"}') \g /dev/null
SELECT crm.track(44, 'cart', at => '2024-04-12 21:00Z'), crm.track(44, 'cart', at => '2024-04-12 23:00Z') \g /dev/null
SELECT is(pg_temp.of('carts2'), '-', 'facts dated ahead are not counted yet');
SET pg_crm.clock = '2024-04-12 22:00Z';
SELECT crm.tick() \g /dev/null
SELECT is(pg_temp.of('carts2'), '43', 'but from their time on');
SET pg_crm.clock = '2024-04-13 00:00Z';
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
SELECT crm.tick() \g /dev/null
SELECT is(pg_temp.of('carts2'), '43,44', 'each of them');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
DELETE FROM crm.segment WHERE name = 'carts2';
DELETE FROM crm.segment WHERE name IN ('silent', 'week', 'gone', 'noon');
SELECT crm.recompute() \g /dev/null
SELECT is((SELECT count(due_at)::int FROM crm.segment_state), 0, 'nothing is due where nothing reads the time');
-- a stage that time brings
SELECT crm.define_stage_rule('{"stage": "sleeping", "rule": "last_order_at < as_of - interval ''90 days''"}') \g /dev/null
SELECT crm.define_segment('{"name": "asleep", "rule": "stage = ''sleeping''"}') \g /dev/null
SELECT is(pg_temp.of('asleep'), '-');
SELECT crm.tick('2025-01-01Z') \g /dev/null
SELECT is(pg_temp.of('asleep'), '41', 'lets in');
SELECT results_eq($$SELECT since, cause FROM crm.segment_member WHERE segment = 'asleep' AND contact_id = 41$$, $$SELECT stage_since, 'time' FROM crm.profile WHERE contact_id = 41$$, 'as of the moment of the move');

SELECT * FROM finish();
ROLLBACK;
