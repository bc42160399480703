-- what lets people in, of every kind, and what ends it: goals and rules to leave by
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET TimeZone = 'UTC';
SET pg_crm.clock = '2026-03-02 12:00Z';
SELECT no_plan();
INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2026-01-01' FROM generate_series(1, 99) n;
CREATE FUNCTION pg_temp.publish(name text, entry jsonb, more jsonb DEFAULT '{}', steps jsonb DEFAULT '{"rest": {"kind": "wait", "for": "100 days"}}') RETURNS integer LANGUAGE sql AS
$$SELECT crm.publish_journey(crm.journey_document(name, 'rest', steps, entry, '{"reentry": "always"}'::jsonb || more))$$;
CREATE FUNCTION pg_temp.entries(name text) RETURNS text LANGUAGE sql AS
$$SELECT string_agg(contact_id || ' ' || entered_by, ', ' ORDER BY contact_id, enrolment_id) FROM crm.enrolment WHERE journey = name$$;
CREATE FUNCTION pg_temp.fate(contact bigint, name text) RETURNS text LANGUAGE sql AS
$$SELECT state || coalesce(' ' || end_reason, '') || ' at ' || coalesce(step, 'none') || coalesce(to_char(ended_at, ' DD HH24:MI'), '') || coalesce(' stuck ' || stuck, '') FROM crm.enrolment WHERE contact_id = contact AND journey = name ORDER BY enrolment_id DESC LIMIT 1$$;
CREATE FUNCTION pg_temp.at(at timestamptz) RETURNS void LANGUAGE sql AS $$SELECT set_config('pg_crm.clock', at::text, false)$$;
CREATE FUNCTION pg_temp.unbalanced() RETURNS SETOF crm.journey_summary LANGUAGE sql AS
$$SELECT * FROM crm.journey_summary s WHERE started <> active + finished + exited OR started <> (SELECT count(*) FROM crm.enrolment e WHERE e.journey = s.journey)$$;

INSERT INTO crm.account (kind, name) VALUES ('official_account', 'shop');
INSERT INTO crm.store (store_id, name) VALUES (1, 'one'), (2, 'two');
INSERT INTO crm.qr_code (qr_code_id, account_id, scene, store_id, campaign) SELECT n, account_id, 's' || n, CASE n WHEN 3 THEN NULL ELSE n END, CASE n WHEN 2 THEN 'spring' END FROM crm.account, generate_series(1, 3) n;
SELECT crm.define_coupon('{"name": "tea"}'), crm.define_coupon('{"name": "cake"}'), crm.define_segment('{"name": "roman", "rule": "city = ''Rome''"}'), crm.define_segment('{"name": "buyer", "rule": "orders >= 2"}'),
       crm.define_segment('{"name": "old", "rule": "as_of - created_at > interval ''61 days''"}') \g /dev/null
SELECT pg_temp.publish('rich order', '[{"on": "purchase", "when": "fact.amount >= 100 AND orders >= 2 AND city = ''Rome''"}]'),
       pg_temp.publish('code', '[{"on": "scan", "qr_code_id": 1}]'), pg_temp.publish('campaign', '[{"on": "scan", "campaign": "spring"}]'), pg_temp.publish('store', '[{"on": "scan", "store_id": 2}, {"on": "purchase", "store_id": 2}]'),
       pg_temp.publish('moved', '[{"on": "field_change", "field": "city", "old": "Rome", "new": "Bonn"}]'), pg_temp.publish('first city', '[{"on": "field_change", "field": "city", "old": null}]'), pg_temp.publish('no city', '[{"on": "field_change", "field": "city", "new": null}]'),
       pg_temp.publish('in', '[{"on": "segment_entered", "segment": "roman"}]'), pg_temp.publish('out', '[{"on": "segment_left", "segment": "roman"}]'), pg_temp.publish('buyer', '[{"on": "segment_entered", "segment": "buyer"}]'),
       pg_temp.publish('old', '[{"on": "segment_entered", "segment": "old"}]'),
       pg_temp.publish('stage', '[{"on": "stage_move", "stage": "paying"}]'), pg_temp.publish('from', '[{"on": "stage_move", "when": "fact.properties ->> ''from'' = ''user''"}]'),
       pg_temp.publish('award', '[{"on": "award", "achievement": "purchase_milestone", "threshold": 5}]'), pg_temp.publish('redeemed', '[{"on": "redeem_coupon", "coupon": "tea"}]'),
       pg_temp.publish('refund', '[{"on": "refund", "when": "fact.amount >= 10"}]'), pg_temp.publish('close', '[{"on": "close_page", "when": "fact.properties ->> ''page'' = ''checkout''"}]'),
       pg_temp.publish('several', '[{"on": "scan"}, {"on": "follow"}, {"on": "purchase", "when": "fact.amount > 500"}, {"on": "purchase"}]'),
       pg_temp.publish('broken', '[{"on": "purchase", "when": "1 / (fact.amount - 7) > 0"}]') \g /dev/null
UPDATE crm.contact SET city = 'Rome' WHERE contact_id IN (1, 2);
SELECT is(pg_temp.entries('first city'), '1 field_change, 2 field_change', 'a field that had no value');
SELECT is(pg_temp.entries('in'), '1 segment_entered, 2 segment_entered', 'into a segment by UPDATE');
SELECT crm.purchase(c, a, external_ref => 'o' || c || a) FROM (VALUES (1, 100), (1, 120), (1, 99), (2, 50), (3, 100), (3, 101)) v(c, a) \g /dev/null
SELECT is(pg_temp.entries('rich order'), '1 purchase', 'a rule over the fact and the profile');
SELECT is(pg_temp.entries('buyer'), '1 segment_entered, 3 segment_entered', 'into a segment by a fact');
SELECT is(pg_temp.entries('stage'), '1 stage_move, 2 stage_move, 3 stage_move', 'into a stage');
SELECT is(pg_temp.entries('from'), '1 stage_move, 2 stage_move, 3 stage_move', 'from a stage');
INSERT INTO crm.scan (contact_id, qr_code_id) VALUES (4, 1), (5, 2), (6, 3), (4, 1);
SELECT crm.purchase(6, 20, store_id => 2), crm.purchase(7, 20, store_id => 1), crm.purchase(8, 20) \g /dev/null
SELECT is(pg_temp.entries('code'), '4 scan, 4 scan', 'a code');
SELECT is(pg_temp.entries('campaign'), '5 scan', 'a campaign');
SELECT is(pg_temp.entries('store'), '5 scan, 6 purchase', 'a store, of codes and of orders');
UPDATE crm.contact SET city = CASE contact_id WHEN 1 THEN 'Bonn' WHEN 2 THEN NULL ELSE 'Bonn' END WHERE contact_id IN (1, 2, 3);
SELECT is(pg_temp.entries('moved'), '1 field_change', 'from one value to another');
SELECT is(pg_temp.entries('no city'), '2 field_change', 'to none');
SELECT is(pg_temp.entries('out'), '1 segment_left, 2 segment_left', 'out of a segment');
SELECT crm.purchase(9, 10, external_ref => 'n' || n) FROM generate_series(1, 6) n \g /dev/null
SELECT is(pg_temp.entries('award'), '9 award', 'a threshold');
SELECT crm.redeem_coupon(10, crm.issue_coupon(10, 'tea')), crm.redeem_coupon(11, crm.issue_coupon(11, 'cake')) \g /dev/null
SELECT is(pg_temp.entries('redeemed'), '10 redeem_coupon', 'a coupon that was redeemed');
SELECT crm.refund(9, 'n1', 10), crm.refund(9, 'n2', 9) \g /dev/null
SELECT is(pg_temp.entries('refund'), '9 refund', 'a refund');
SELECT crm.track(12, 'close_page', '{"page": "checkout"}'), crm.track(13, 'close_page', '{"page": "home"}') \g /dev/null
SELECT is(pg_temp.entries('close'), '12 close_page', 'a page that was closed');
SELECT crm.follow('shop', 'x1') AS follower \gset
SELECT crm.purchase(14, 600), crm.purchase(15, 10) \g /dev/null
SELECT is((SELECT count(*)::int FROM crm.enrolment WHERE journey = 'several' AND contact_id = 14), 1, 'of several entries that fit one lets in');
SELECT is((SELECT string_agg(DISTINCT entered_by, ' ') FROM crm.enrolment WHERE journey = 'several'), 'follow purchase scan', 'several entries');
-- a rule that fails is false, and counted
SELECT crm.purchase(16, 7), crm.purchase(17, 8) \g /dev/null
SELECT is((SELECT string_agg(contact_id::text, ' ') FROM crm.enrolment WHERE journey = 'broken' AND contact_id IN (16, 17)), '17', 'a rule that fails is false');
SELECT results_eq($$SELECT object_kind, object, times, sqlstate FROM crm.rule_error WHERE contact_id = 16$$, $$VALUES ('journey', 'broken', 1::bigint, '22012')$$, 'and counted');
-- by time, and by a definition
SELECT is(pg_temp.entries('old'), NULL, 'not yet');
SELECT pg_temp.at('2026-03-05 12:00Z') \g /dev/null
SELECT crm.tick() \g /dev/null
SELECT is((SELECT count(*)::int FROM crm.enrolment WHERE journey = 'old'), 0, 'days later that is history');
INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2026-01-04 13:00Z'::timestamptz FROM generate_series(201, 203) n;
SELECT pg_temp.at('2026-03-06 14:00Z') \g /dev/null
SELECT crm.tick() \g /dev/null
SELECT is(pg_temp.entries('old'), '201 segment_entered, 202 segment_entered, 203 segment_entered', 'into a segment by time');
UPDATE crm.contact SET city = 'Lodi' WHERE contact_id IN (20, 21);
SELECT crm.define_segment('{"name": "roman", "rule": "city IN (''Rome'', ''Lodi'')"}') \g /dev/null
SELECT is(pg_temp.entries('in'), '1 segment_entered, 2 segment_entered, 20 segment_entered, 21 segment_entered', 'by define_segment()');
SELECT is_empty('SELECT * FROM pg_temp.unbalanced()', 'the balance');
-- from another journey: everything that is known goes along; journeys that start each other
SELECT pg_temp.publish('one', '[{"on": "start"}]', '{}', '{"rest": {"kind": "coupon", "coupon": "tea", "save_as": "code", "next": "go"}, "go": {"kind": "journey", "journey": "old", "next": "end"}, "end": {"kind": "exit", "reason": "end"}}') \g /dev/null
SELECT crm.track(22, 'start', '{"how": "fast"}') \g /dev/null
SELECT is((SELECT entered_by || ' ' || (parent_id = (SELECT enrolment_id FROM crm.enrolment WHERE contact_id = 22 AND journey = 'one')) || ' ' || depth || ' ' || (context #>> '{entry,how}') || ' ' || (context ? 'code') FROM crm.enrolment WHERE contact_id = 22 AND journey = 'old'),
    'journey true 1 fast true', 'by a step of another journey');
SELECT pg_temp.publish('ping', '[{"on": "start"}]', '{"reentry": "always"}', '{"rest": {"kind": "tag", "add": ["ping"]}}') \g /dev/null
SELECT pg_temp.publish('pong', '[]', '{"reentry": "always"}', '{"rest": {"kind": "journey", "journey": "ping"}}') \g /dev/null
SELECT pg_temp.publish('ping', '[{"on": "start"}]', '{"reentry": "always"}', '{"rest": {"kind": "journey", "journey": "pong"}}') \g /dev/null
SELECT crm.track(23, 'start') \g /dev/null
SELECT is((SELECT count(*) || ' ' || count(*) FILTER (WHERE state = 'finished') || ' ' || max(depth) FROM crm.enrolment WHERE contact_id = 23 AND journey IN ('ping', 'pong')), '17 17 16', 'journeys that start each other end');
SELECT results_eq($$SELECT object, reason, refusals FROM crm.refusal WHERE contact_id = 23 AND object IN ('ping', 'pong')$$, $$VALUES ('pong', 'loop', 1::bigint)$$, 'as a loop');
SELECT pg_temp.publish('echo', '[{"on": "field_change", "field": "city"}]', '{"reentry": "always"}', '{"rest": {"kind": "set", "fields": {"city": "{{entry.old|Nowhere}}"}}}') \g /dev/null
UPDATE crm.contact SET city = 'Here' WHERE contact_id = 24;
SELECT is((SELECT count(*) || ' ' || max(depth) FROM crm.enrolment WHERE contact_id = 24 AND journey = 'echo'), '17 16', 'so do those whose effects let in');
SELECT crm.set_journey('echo', 'closed') \g /dev/null
SELECT is_empty('SELECT * FROM pg_temp.unbalanced()', 'the balance');

-- ---- goals and rules to leave by
CREATE FUNCTION pg_temp.three() RETURNS jsonb LANGUAGE sql AS $$SELECT '{"rest": {"kind": "wait", "for": "10 days", "next": "end"}, "end": {"kind": "exit", "reason": "end"}}'::jsonb$$;
SELECT pg_temp.at('2026-03-10 12:00Z') \g /dev/null
SELECT crm.tick() \g /dev/null
SELECT pg_temp.publish('rules', '[{"on": "begin"}]', '{"goal": "city = ''Goal'' OR city = ''Both''", "exit": "city = ''Exit'' OR city = ''Both''"}', pg_temp.three()),
       pg_temp.publish('facts', '[{"on": "begin"}, {"on": "won"}]', '{"goal": [{"on": "won", "when": "coalesce(fact.properties ->> ''ok'', '''') <> ''no''"}, {"on": "both"}], "exit": [{"on": "lost"}, {"on": "both"}]}', pg_temp.three()),
       pg_temp.publish('clock', '[{"on": "begin"}]', '{"goal": "as_of - created_at >= interval ''72 days''", "exit": "as_of - created_at >= interval ''71 days'' AND city = ''Exit''"}', pg_temp.three()) \g /dev/null
UPDATE crm.contact SET city = 'Both' WHERE contact_id = 40;
UPDATE crm.contact SET city = 'Exit' WHERE contact_id = 41;
SELECT crm.track(c, 'begin') FROM generate_series(40, 50) c \g /dev/null
SELECT is(pg_temp.fate(40, 'rules'), 'exited goal at none 10 12:00', 'at the entry: goal and rule both, the goal');
SELECT is(pg_temp.fate(41, 'rules'), 'exited rule at none 10 12:00', 'at the entry: the rule');
SELECT is((SELECT count(*)::int FROM crm.step_visit WHERE contact_id IN (40, 41) AND journey = 'rules'), 0, 'and no step is entered');
SELECT pg_temp.at('2026-03-10 13:00Z') \g /dev/null
UPDATE crm.contact SET city = CASE contact_id WHEN 42 THEN 'Goal' WHEN 43 THEN 'Exit' ELSE 'Both' END WHERE contact_id IN (42, 43, 44);
SELECT results_eq($$SELECT c, pg_temp.fate(c, 'rules') FROM generate_series(42, 45) c$$, $$VALUES (42, 'exited goal at rest 10 13:00'), (43, 'exited rule at rest 10 13:00'), (44, 'exited goal at rest 10 13:00'), (45, 'active at rest')$$, 'rules, at once');
SELECT crm.track(45, 'won', at => '2026-03-10 12:30Z'), crm.track(46, 'lost'), crm.track(47, 'both'), crm.track(48, 'won', '{"ok": "no"}'), crm.track(49, 'won', at => '2026-03-10 11:59Z') \g /dev/null
SELECT is((SELECT string_agg(state || coalesce(' ' || end_reason, ''), ', ' ORDER BY enrolment_id) FROM crm.enrolment WHERE journey = 'facts' AND contact_id = 45), 'exited goal, active', 'a fact that ends and lets in again does both, and does not end what it let in');
SELECT results_eq($$SELECT c, pg_temp.fate(c, 'facts') FROM generate_series(46, 48) c$$, $$VALUES (46, 'exited rule at rest 10 13:00'), (47, 'exited goal at rest 10 13:00'), (48, 'active at rest')$$, 'facts, at once');
SELECT is((SELECT string_agg(state, ', ' ORDER BY enrolment_id) FROM crm.enrolment WHERE journey = 'facts' AND contact_id = 49), 'active, active', 'what was before the entry is no goal');
SELECT is((SELECT outcome || ' ' || coalesce(next_step, '-') || to_char(left_at, ' HH24:MI') FROM crm.step_visit WHERE contact_id = 46 AND journey = 'facts'), 'rule - 13:00', 'the visit says why');
-- by time alone, long after it was so
SELECT pg_temp.at('2026-03-15 12:00Z') \g /dev/null
SELECT crm.tick() \g /dev/null
SELECT results_eq($$SELECT c, pg_temp.fate(c, 'clock') FROM unnest('{43, 45}'::int[]) c$$, $$VALUES (43, 'exited rule at rest 13 00:00'), (45, 'exited goal at rest 14 00:00')$$, 'by time alone, at the moment');
-- from any step: one that waits for a message, and one that is stuck
SELECT crm.define_template('{"name": "hello", "channel": "official_account", "message_type": "text", "body": {"content": "Hello"}}') \g /dev/null
SELECT pg_temp.publish('sending', '[{"on": "begin"}]', '{"goal": {"on": "won"}}', '{"rest": {"kind": "send", "template": "hello", "on_failed": null, "next": "end"}, "end": {"kind": "exit"}}'),
       pg_temp.publish('stuck', '[{"on": "begin"}]', '{"goal": {"on": "won"}}', '{"rest": {"kind": "wait", "date": "entry.when", "next": "end"}, "end": {"kind": "exit"}}') \g /dev/null
SELECT crm.track(60, 'begin', '{"when": "soon"}') \g /dev/null
SELECT is(pg_temp.fate(60, 'sending'), 'active at rest', 'waits for the message');
SELECT matches(pg_temp.fate(60, 'stuck'), 'active at rest stuck .*soon', 'is stuck');
SELECT results_eq($$SELECT object, step, kind FROM crm.stuck WHERE contact_id = 60$$, $$VALUES ('stuck', 'rest', 'enrolment')$$, 'active, and listed');
SELECT is((SELECT active || ' ' || stuck FROM crm.journey_summary WHERE journey = 'stuck'), '1 1', 'counted');
SELECT crm.track(60, 'won') \g /dev/null
SELECT is(pg_temp.fate(60, 'sending'), 'exited goal at rest 15 12:00', 'the goal ends it');
SELECT is(pg_temp.fate(60, 'stuck'), 'exited goal at rest 15 12:00', 'there, too');
SELECT is((SELECT state FROM crm.message WHERE contact_id = 60), 'queued', 'what is queued goes out all the same');
SELECT is_empty($$SELECT * FROM crm.stuck WHERE contact_id = 60$$, 'nobody is stuck');

-- who is taken out takes what is queued along
SELECT crm.track(61, 'begin') \g /dev/null
SELECT is(crm.unenrol(61, 'sending'), true, 'taken out');
SELECT is((SELECT state || ' ' || reason FROM crm.message WHERE contact_id = 61), 'cancelled unenrolled', 'and the message, too');

-- ---- closed, frozen, cancelled
SELECT pg_temp.publish('pause', '[{"on": "enter"}]', '{"goal": {"on": "won"}, "exit": {"on": "lost"}}', '{"rest": {"kind": "wait_for", "on": "tea", "within": "6 hours", "next": "more", "on_timeout": "late"}, "more": {"kind": "wait", "for": "2 hours", "next": "say"}, "say": {"kind": "send", "template": "hello", "next": "last"}, "last": {"kind": "wait", "for": "1 day", "next": "end"}, "late": {"kind": "wait", "for": "1 hour", "next": "end"}, "end": {"kind": "exit", "reason": "end"}}') \g /dev/null
CREATE FUNCTION pg_temp.way(contact bigint) RETURNS text LANGUAGE sql AS
$$SELECT string_agg(step || to_char(entered_at, ' DD HH24:MI') || coalesce(' ' || outcome || to_char(left_at, ' DD HH24:MI'), ''), ', ' ORDER BY visit) FROM crm.step_visit WHERE contact_id = contact AND journey = 'pause'$$;
CREATE FUNCTION pg_temp.meanwhile() RETURNS void LANGUAGE sql AS $$
    SELECT pg_temp.at('2026-03-15 13:00Z'); SELECT crm.track(70, 'tea'); SELECT crm.track(71, 'won');
    SELECT pg_temp.at('2026-03-15 13:30Z'); SELECT crm.track(72, 'lost');
    SELECT pg_temp.at('2026-03-15 14:00Z'); SELECT crm.track(72, 'won'); SELECT crm.track(73, 'tea', at => '2026-03-15 13:50Z');
    SELECT pg_temp.at('2026-03-15 14:30Z'); SELECT crm.track(73, 'tea', at => '2026-03-15 13:10Z'); SELECT crm.track(74, 'tea', at => '2026-03-15 11:59Z') $$;
SELECT crm.track(c, 'enter') FROM generate_series(70, 76) c \g /dev/null
SAVEPOINT never_frozen;
SELECT pg_temp.meanwhile() \g /dev/null
SELECT pg_temp.at('2026-03-15 15:00Z') \g /dev/null
SELECT crm.tick() \g /dev/null
SELECT string_agg(c || ': ' || pg_temp.way(c) || ' | ' || pg_temp.fate(c, 'pause'), E'\n' ORDER BY c) AS never FROM generate_series(70, 76) c \gset
SELECT pg_temp.at('2026-03-18 15:00Z') \g /dev/null
SELECT crm.tick() \g /dev/null
SELECT string_agg(c || ': ' || pg_temp.way(c) || ' | ' || pg_temp.fate(c, 'pause'), E'\n' ORDER BY c) AS never_later FROM generate_series(70, 76) c \gset
ROLLBACK TO never_frozen;
SELECT crm.set_journey('pause', 'frozen') \g /dev/null
SELECT pg_temp.meanwhile() \g /dev/null
SELECT pg_temp.at('2026-03-15 14:45Z') \g /dev/null
SELECT crm.tick() \g /dev/null
SELECT is((SELECT string_agg(DISTINCT pg_temp.fate(c, 'pause'), ', ') FROM generate_series(70, 76) c), 'active at rest', 'frozen: nobody moves');
SELECT crm.set_journey('pause', 'open') \g /dev/null
SELECT pg_temp.at('2026-03-15 15:00Z') \g /dev/null
SELECT crm.tick() \g /dev/null
SELECT is((SELECT string_agg(c || ': ' || pg_temp.way(c) || ' | ' || pg_temp.fate(c, 'pause'), E'\n' ORDER BY c) FROM generate_series(70, 76) c), :'never'::text, 'thawed: as if it had never been frozen');
SELECT pg_temp.at('2026-03-18 15:00Z') \g /dev/null
SELECT crm.tick() \g /dev/null
SELECT is((SELECT string_agg(c || ': ' || pg_temp.way(c) || ' | ' || pg_temp.fate(c, 'pause'), E'\n' ORDER BY c) FROM generate_series(70, 76) c), :'never_later'::text, 'and as it goes on');
ROLLBACK TO never_frozen;
SELECT crm.set_journey('pause', 'frozen') \g /dev/null
SELECT pg_temp.meanwhile() \g /dev/null
SELECT pg_temp.at('2026-03-18 15:00Z') \g /dev/null
SELECT is(crm.tick(), 0, 'frozen: no deadline passes');
SELECT crm.set_journey('pause', 'open') \g /dev/null
SELECT crm.tick() \g /dev/null
SELECT is((SELECT string_agg(c || ': ' || pg_temp.way(c) || ' | ' || pg_temp.fate(c, 'pause'), E'\n' ORDER BY c) FROM generate_series(70, 76) c), :'never_later'::text, 'deadlines that passed run in order');
SELECT is_empty('SELECT * FROM pg_temp.unbalanced()', 'the balance');
-- what a fact ends is ended at the step to which time had led by then
ROLLBACK TO never_frozen;
SELECT crm.set_journey('pause', 'frozen') \g /dev/null
SELECT pg_temp.at('2026-03-15 13:00Z') \g /dev/null
SELECT crm.track(c, 'tea') FROM generate_series(70, 71) c \g /dev/null
SELECT pg_temp.at('2026-03-15 16:00Z') \g /dev/null
SELECT crm.track(c, 'lost') FROM generate_series(70, 72) c \g /dev/null
SELECT pg_temp.at('2026-03-15 18:30Z') \g /dev/null
SELECT crm.track(73, 'won') \g /dev/null
SELECT pg_temp.at('2026-03-15 20:00Z') \g /dev/null
SELECT crm.set_journey('pause', 'open') \g /dev/null
SELECT is(pg_temp.way(70), 'rest 15 12:00 next 15 13:00, more 15 13:00 next 15 15:00, say 15 15:00 next 15 15:00, last 15 15:00 rule 15 16:00', 'steps that were due before the end are made');
SELECT is(pg_temp.way(72), 'rest 15 12:00 rule 15 16:00', 'others are not');
SELECT is(pg_temp.way(73), 'rest 15 12:00 timeout 15 18:00, late 15 18:00 goal 15 18:30', 'timeouts, too');
SELECT is_empty('SELECT * FROM pg_temp.unbalanced()', 'the balance');
-- closed: who is in it goes on
ROLLBACK TO never_frozen;
SELECT crm.set_journey('pause', 'closed') \g /dev/null
SELECT pg_temp.meanwhile() \g /dev/null
SELECT pg_temp.at('2026-03-15 15:00Z') \g /dev/null
SELECT crm.tick() \g /dev/null
SELECT is((SELECT string_agg(c || ': ' || pg_temp.way(c) || ' | ' || pg_temp.fate(c, 'pause'), E'\n' ORDER BY c) FROM generate_series(70, 76) c), :'never'::text, 'closed: who is in it goes on');
-- cancelled: everybody leaves, and what is queued is taken back
SELECT is((SELECT state FROM crm.message WHERE contact_id = 70), 'queued', 'a message is queued');
SELECT crm.set_journey('pause', 'cancelled') \g /dev/null
SELECT is((SELECT string_agg(DISTINCT pg_temp.fate(c, 'pause'), ', ' ORDER BY pg_temp.fate(c, 'pause')) FROM generate_series(70, 76) c), 'exited cancelled at last 15 15:00, exited cancelled at more 15 15:00, exited cancelled at rest 15 15:00, exited goal at rest 15 13:00, exited rule at rest 15 13:30', 'everybody leaves');
SELECT is((SELECT state FROM crm.message WHERE contact_id = 70), 'cancelled', 'and the message with them');
SELECT crm.set_journey('pause', 'open') \g /dev/null
SELECT is((SELECT active FROM crm.journey_summary WHERE journey = 'pause'), 0::bigint, 'opened again nobody is back');

-- ---- versions: nobody moves, and who enters is in the new one
SELECT crm.track(80, 'enter') \g /dev/null
SELECT pg_temp.publish('pause', '[{"on": "enter"}]', '{}', '{"rest": {"kind": "wait_for", "on": "cake", "within": "6 hours"}}') \g /dev/null
SELECT crm.track(81, 'enter'), crm.track(80, 'cake'), crm.track(81, 'tea') \g /dev/null
SELECT results_eq($$SELECT contact_id, version, state, step FROM crm.enrolment WHERE journey = 'pause' AND contact_id IN (80, 81) ORDER BY 1$$, $$VALUES (80::bigint, 1, 'active', 'rest'), (81, 2, 'active', 'rest')$$, 'each by his version');
SELECT crm.track(80, 'tea'), crm.track(81, 'cake') \g /dev/null
SELECT results_eq($$SELECT contact_id, version, state, step FROM crm.enrolment WHERE journey = 'pause' AND contact_id IN (80, 81) ORDER BY 1$$, $$VALUES (80::bigint, 1, 'active', 'more'), (81, 2, 'finished', 'rest')$$, 'and goes on by it');
SELECT is_empty('SELECT * FROM pg_temp.unbalanced()', 'started = active + finished + exited');
SELECT is_empty('SELECT * FROM crm.verify()', 'all of it sound');
SELECT * FROM finish();
ROLLBACK;
