-- who enters a journey and who may not: re-entry, lateness, hold-out, states
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET TimeZone = 'UTC';
SET pg_crm.clock = '2026-03-01 12:00Z';
SELECT no_plan();

CREATE FUNCTION pg_temp.publish(name text, entry jsonb, more jsonb DEFAULT '{}', rest jsonb DEFAULT '{"kind": "wait", "for": "100 days"}') RETURNS integer LANGUAGE sql AS
$$SELECT crm.publish_journey(crm.journey_document(name, 'rest', jsonb_build_object('rest', rest), entry, more))$$;
-- newest last: state of each enrolment, and of each refusal how often
CREATE FUNCTION pg_temp.fate(contact bigint, name text) RETURNS text LANGUAGE sql AS
$$SELECT concat_ws(' | ', (SELECT string_agg(e.state || coalesce(' ' || e.end_reason, '') || CASE e.version WHEN 1 THEN '' ELSE ' v' || e.version END, ', ' ORDER BY e.enrolment_id)
            FROM crm.enrolment e WHERE e.contact_id = contact AND e.journey = name),
    (SELECT string_agg(r.reason || ' ' || r.refusals, ', ' ORDER BY r.reason, r.day) FROM crm.refusal r WHERE r.contact_id = contact AND r.object = name AND r.kind = 'journey'))$$;
CREATE FUNCTION pg_temp.unbalanced() RETURNS SETOF crm.journey_summary LANGUAGE sql AS
$$SELECT * FROM crm.journey_summary s WHERE started <> active + finished + exited OR started <> (SELECT count(*) FROM crm.enrolment e WHERE e.journey = s.journey)$$;
CREATE FUNCTION pg_temp.come(contact bigint, properties jsonb DEFAULT '{}', at timestamptz DEFAULT NULL) RETURNS void LANGUAGE sql AS
$$SELECT crm.track(contact, 'come', properties, at)$$;

-- ---- the re-entry matrix: each policy against somebody who is in, was in, was in another version, came with another key
SELECT pg_temp.publish('once', '[{"on": "come"}]', '{"reentry": "once"}'),
       pg_temp.publish('after_exit', '[{"on": "come"}]', '{"reentry": "after_exit"}'),
       pg_temp.publish('cooldown', '[{"on": "come"}]', '{"reentry": "cooldown", "cooldown": "7 days"}'),
       pg_temp.publish('per_key', '[{"on": "come"}]', '{"reentry": "per_key", "key": "order"}'),
       pg_temp.publish('always', '[{"on": "come"}]', '{"reentry": "always"}') \g /dev/null
CREATE VIEW pg_temp.policy AS SELECT unnest('{once,after_exit,cooldown,per_key,always}'::text[]) AS name;
INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2025-01-01' FROM generate_series(1, 99) n;

SELECT pg_temp.come(1, '{"order": "a"}') \g /dev/null
SELECT is(pg_temp.fate(1, name), 'active', name || ': enters') FROM pg_temp.policy;
SELECT pg_temp.come(1, '{"order": "a"}') \g /dev/null
SELECT results_eq('SELECT name, pg_temp.fate(1, name) FROM pg_temp.policy', $$VALUES ('once', 'active | active 1'), ('after_exit', 'active | active 1'),
    ('cooldown', 'active | active 1'), ('per_key', 'active | active 1'), ('always', 'active, active')$$, 'who is active, again');
SELECT pg_temp.come(1, '{"order": "b"}') \g /dev/null
SELECT results_eq('SELECT name, pg_temp.fate(1, name) FROM pg_temp.policy', $$VALUES ('once', 'active | active 2'), ('after_exit', 'active | active 2'),
    ('cooldown', 'active | active 2'), ('per_key', 'active, active | active 1'), ('always', 'active, active, active')$$, 'with another key');
SELECT is((SELECT array_agg(key ORDER BY enrolment_id) FROM crm.enrolment WHERE contact_id = 1 AND journey = 'always'),
    (SELECT array_agg('come ' || event_id ORDER BY event_id) FROM crm.event WHERE contact_id = 1 AND kind = 'come'), 'always: the key is the fact');
SELECT results_eq($$SELECT journey, key FROM crm.enrolment WHERE contact_id = 1 AND journey <> 'always' ORDER BY enrolment_id$$,
    $$VALUES ('after_exit', ''), ('cooldown', ''), ('once', ''), ('per_key', 'a'), ('per_key', 'b')$$, 'keys of the others');
SELECT is_empty('SELECT * FROM pg_temp.unbalanced()', 'the balance');

SET pg_crm.clock = '2026-03-02 12:00Z';
SELECT crm.unenrol(1, name) FROM pg_temp.policy \g /dev/null
SELECT pg_temp.come(1, '{"order": "a"}') \g /dev/null
SELECT results_eq('SELECT name, pg_temp.fate(1, name) FROM pg_temp.policy', $$VALUES ('once', 'exited unenrolled | active 2, once 1'),
    ('after_exit', 'exited unenrolled, active | active 2'), ('cooldown', 'exited unenrolled | active 2, cooldown 1'),
    ('per_key', 'exited unenrolled, exited unenrolled | active 1, key 1'), ('always', 'exited unenrolled, exited unenrolled, exited unenrolled, active')$$
    , 'after the end') ;
SELECT pg_temp.publish(name, '[{"on": "come"}]', '{"label": "two"}' || (crm.export_journey(name) - '{journey,start,steps,entry}'::text[])) FROM pg_temp.policy \g /dev/null
SELECT pg_temp.come(1, '{"order": "c"}') \g /dev/null
SELECT results_eq('SELECT name, pg_temp.fate(1, name) FROM pg_temp.policy', $$VALUES ('once', 'exited unenrolled | active 2, once 2'),
    ('after_exit', 'exited unenrolled, active | active 2, active 1'), ('cooldown', 'exited unenrolled | active 2, cooldown 2'),
    ('per_key', 'exited unenrolled, exited unenrolled, active v2 | active 1, key 1'), ('always', 'exited unenrolled, exited unenrolled, exited unenrolled, active, active v2')$$
    , 'in another version: it is one journey');
SELECT is_empty('SELECT * FROM pg_temp.unbalanced()', 'the balance');
-- the cooldown counts from the last entry, and its very end lets in
SET pg_crm.clock = '2026-03-08 11:59:59.999999Z';
SELECT pg_temp.come(1) \g /dev/null
SELECT is(pg_temp.fate(1, 'cooldown'), 'exited unenrolled | active 2, cooldown 2, cooldown 1', 'a microsecond before');
SET pg_crm.clock = '2026-03-08 12:00Z';
SELECT pg_temp.come(1) \g /dev/null
SELECT is(pg_temp.fate(1, 'cooldown'), 'exited unenrolled, active v2 | active 2, cooldown 2, cooldown 1', 'as it is over');
SELECT is(pg_temp.fate(1, 'per_key'), 'exited unenrolled, exited unenrolled, active v2 | active 1, key 1, key 2', 'per_key: no fact without the key lets in');
SELECT crm.unenrol(1, 'cooldown') \g /dev/null
SET pg_crm.clock = '2026-03-15 11:59Z';
SELECT pg_temp.come(1) \g /dev/null
SET pg_crm.clock = '2026-03-15 12:00Z';
SELECT pg_temp.come(1) \g /dev/null
SELECT is(pg_temp.fate(1, 'cooldown'), 'exited unenrolled, exited unenrolled v2, active v2 | active 2, cooldown 2, cooldown 1, cooldown 1', 'from the last one on');

-- refusals: day of the brand, first and last
SELECT results_eq($$SELECT reason, day, refusals, first_at, last_at FROM crm.refusal WHERE contact_id = 1 AND object = 'cooldown' ORDER BY day, reason$$,
    $$VALUES ('active', '2026-03-01'::date, 2::bigint, '2026-03-01 12:00Z'::timestamptz, '2026-03-01 12:00Z'::timestamptz),
             ('cooldown', '2026-03-02', 2, '2026-03-02 12:00Z', '2026-03-02 12:00Z'), ('cooldown', '2026-03-08', 1, '2026-03-08 11:59:59.999999Z', '2026-03-08 11:59:59.999999Z'),
             ('cooldown', '2026-03-15', 1, '2026-03-15 11:59Z', '2026-03-15 11:59Z')$$, 'refusals: reason, day, number, times');
SET pg_crm.clock = '2026-03-16 15:59Z';
SELECT pg_temp.come(1) \g /dev/null
SET pg_crm.clock = '2026-03-16 16:00Z';
SELECT pg_temp.come(1) \g /dev/null
SELECT results_eq($$SELECT day FROM crm.refusal WHERE contact_id = 1 AND object = 'cooldown' AND reason = 'active' AND day > '2026-03-15' ORDER BY 1$$,
    $$VALUES ('2026-03-16'::date), ('2026-03-17')$$, 'the day is one of pg_crm.time_zone');

-- the same by hand
SELECT ok(crm.enrol(2, name) IS NOT NULL, name || ': by hand') FROM pg_temp.policy WHERE name <> 'per_key';
SELECT is(crm.enrol(2, name), NULL, name || ': is refused') FROM pg_temp.policy WHERE name NOT IN ('always');
SELECT is(pg_temp.fate(2, 'per_key'), 'key 1', 'per_key: not without one');
SELECT ok(crm.enrol(2, 'always') IS NOT NULL, 'always: again');
SELECT is((SELECT count(DISTINCT key)::int FROM crm.enrolment WHERE contact_id = 2 AND journey = 'always'), 2, 'always: two that run at a time');
SELECT crm.enrol(2, 'per_key', 'a') AS first \gset
SELECT ok(:first IS NOT NULL, 'per_key: with a key');
SELECT is(crm.enrol(2, 'per_key', 'a'), (:first)::bigint, 'the same key is the same enrolment');
SELECT isnt(crm.enrol(2, 'per_key', 'b'), (:first)::bigint, 'another one another');
SELECT crm.enrol(2, 'always', 'mine') AS first \gset
SELECT is(crm.enrol(2, 'always', 'mine'), (:first)::bigint, 'always: a key of the caller stands for one enrolment');
SELECT pg_temp.come(2, '{"order": "a"}') \g /dev/null
SELECT is(pg_temp.fate(2, 'per_key'), 'active v2, active v2 | active 1, key 1', 'a key given by hand is that of facts, too');
SELECT is((SELECT entered_by || ' ' || (source_id IS NULL) || ' ' || context FROM crm.enrolment WHERE contact_id = 2 AND journey = 'once'), 'api true {}', 'by hand there is no entry');
SELECT is((SELECT entered_by || ' ' || (context -> 'entry' ->> 'order') || ' ' || (context #>> '{entry,kind}') FROM crm.enrolment WHERE contact_id = 1 AND key = 'b'), 'come b come', 'by a fact it is the entry');

-- always: facts of several kinds may have the same id, signals have none
SELECT pg_temp.publish('any', '[{"on": "come"}, {"on": "purchase"}, {"on": "award"}]', '{"reentry": "always"}') \g /dev/null
INSERT INTO crm.event (contact_id, event_id, kind) VALUES (3, 900001, 'come');
INSERT INTO crm.transaction (contact_id, transaction_id, amount) VALUES (3, 900001, 100);
SELECT is((SELECT string_agg(entered_by, ' ' ORDER BY enrolment_id) FROM crm.enrolment WHERE contact_id = 3 AND journey = 'any'), 'come award award purchase', 'an order with the id of an event, two awards at once')
    UNION ALL SELECT is((SELECT count(*)::int FROM crm.refusal WHERE contact_id = 3 AND object = 'any'), 0, 'none of them is refused');
SELECT pg_temp.publish('caller', '[{"on": "call"}]', '{"reentry": "always"}', '{"kind": "journey", "journey": "always"}') \g /dev/null
SELECT crm.track(4, 'call'), crm.track(4, 'call') \g /dev/null
SELECT is(pg_temp.fate(4, 'always'), 'active v2, active v2', 'from another journey, each time');
SELECT pg_temp.publish('keyed', '[{"on": "call"}]', '{"reentry": "always"}', '{"kind": "journey", "journey": "per_key"}') \g /dev/null
SELECT crm.track(5, 'call', '{"order": "x"}'), crm.track(5, 'call', '{"order": "x"}'), crm.track(5, 'call', '{"order": "y"}'), crm.track(5, 'call') \g /dev/null
SELECT is(pg_temp.fate(5, 'per_key'), 'active v2, active v2 | active 1, key 1', 'per_key: by the entry of the other journey');
SELECT is((SELECT string_agg(key, ' ' ORDER BY enrolment_id) FROM crm.enrolment WHERE contact_id = 5 AND journey = 'per_key'), 'x y', 'which has the key');

-- ---- one statement of many facts is the same as one by one
CREATE TEMP TABLE facts AS SELECT place, ('{a,b,a,c,b,a}'::text[])[place] AS k FROM generate_series(1, 6) AS place;
DO $$DECLARE f record; BEGIN FOR f IN SELECT * FROM facts ORDER BY place LOOP PERFORM crm.track(10, 'come', jsonb_build_object('order', f.k)); END LOOP; END$$;
INSERT INTO crm.event (contact_id, kind, properties) SELECT 11, 'come', jsonb_build_object('order', k) FROM facts ORDER BY place;
SELECT is(pg_temp.fate(11, name), pg_temp.fate(10, name), name || ': one statement') FROM pg_temp.policy;
SELECT is(pg_temp.fate(11, 'per_key'), 'active v2, active v2, active v2 | active 3', 'which is');
-- journeys that end at once may be entered by the next fact of the statement
SELECT pg_temp.publish('short', '[{"on": "come"}]', '{"reentry": "after_exit"}', '{"kind": "exit", "reason": "done"}'),
       pg_temp.publish('buy', '[{"on": "come"}]', '{"reentry": "after_exit"}', '{"kind": "wait_for", "on": "come", "when": "fact.properties ->> ''order'' = ''b''", "within": "1 day"}') \g /dev/null
DO $$DECLARE f record; BEGIN FOR f IN SELECT * FROM facts ORDER BY place LOOP PERFORM crm.track(12, 'come', jsonb_build_object('order', f.k)); END LOOP; END$$;
INSERT INTO crm.event (contact_id, kind, properties) SELECT c, 'come', jsonb_build_object('order', k) FROM facts, unnest('{13,14}'::bigint[]) c ORDER BY place;
SELECT is(pg_temp.fate(c, 'short'), 'finished done, finished done, finished done, finished done, finished done, finished done', 'short ' || c) FROM generate_series(12, 14) c;
SELECT is(pg_temp.fate(c, 'buy'), pg_temp.fate(12, 'buy'), 'buy ' || c) FROM generate_series(13, 14) c;
-- a fact that moves somebody on lets nobody in who was still there: the wait is left first, then who enters is asked
SELECT is(pg_temp.fate(12, 'buy'), 'finished, finished, finished, finished | active 2', 'what satisfies a wait may let in again');
SELECT is_empty('SELECT * FROM pg_temp.unbalanced()', 'the balance');

-- ---- lateness
CREATE FUNCTION pg_temp.late(contact bigint, by interval) RETURNS void LANGUAGE sql AS $$SELECT crm.track(contact, 'late', '{}', crm.now() - by)$$;
SELECT pg_temp.publish('default', '[{"on": "late"}]'), pg_temp.publish('strict', '[{"on": "late"}]', '{"max_lateness": "1 hour"}'),
       pg_temp.publish('lenient', '[{"on": "late"}]', '{"max_lateness": "10 days"}') \g /dev/null
SELECT pg_temp.late(20, '1 hour'), pg_temp.late(21, '1 hour 1 second'), pg_temp.late(22, '1 day'), pg_temp.late(23, '1 day 1 second'), pg_temp.late(24, '10 days'), pg_temp.late(25, '10 days 1 second') \g /dev/null
SELECT results_eq($$SELECT c, pg_temp.fate(c, 'default'), pg_temp.fate(c, 'strict'), pg_temp.fate(c, 'lenient') FROM generate_series(20, 24) c$$,
    $$VALUES (20, 'active', 'active', 'active'), (21, 'active', 'late 1', 'active'), (22, 'active', 'late 1', 'active'), (23, '', 'late 1', 'active'), (24, '', 'late 1', 'active')$$,
    'max_lateness of the journey, else the setting: the bound itself is not late');
SELECT is(pg_temp.fate(25, 'lenient'), '', 'history is not even refused');
SELECT pg_temp.publish('waiting', '[{"on": "wait here"}]', '{"max_lateness": "1 hour", "goal": {"on": "early"}}', '{"kind": "wait_for", "on": "late", "within": "10 days"}') \g /dev/null
SELECT crm.track(c, 'wait here', '{}', crm.now() - interval '30 minutes') FROM generate_series(26, 29) c \g /dev/null
SET pg_crm.clock = '2026-03-16 18:00Z';
SELECT pg_temp.late(26, '61 minutes'), pg_temp.late(27, '60 minutes'), crm.track(28, 'early', '{}', crm.now() - interval '61 minutes'), crm.track(29, 'early', '{}', crm.now() - interval '60 minutes') \g /dev/null
SELECT results_eq($$SELECT c, pg_temp.fate(c, 'waiting') FROM generate_series(26, 29) c$$, $$VALUES (26, 'active'), (27, 'finished'), (28, 'active'), (29, 'exited goal')$$,
    'a late fact moves nobody: neither out of a wait nor to an end');
SELECT crm.set_journey('waiting', 'frozen'), crm.set_journey('waiting', 'open') \g /dev/null
SELECT results_eq($$SELECT c, pg_temp.fate(c, 'waiting') FROM generate_series(26, 29) c$$, $$VALUES (26, 'active'), (27, 'finished'), (28, 'active'), (29, 'exited goal')$$, 'nor when it is looked back');

-- ten years of orders: nobody enters, nothing is sent, nothing is refused
INSERT INTO crm.account (kind, name) VALUES ('official_account', 'shop');
SELECT crm.define_template('{"name": "hello", "channel": "official_account", "message_type": "text", "body": {"content": "Hello"}}') \g /dev/null
SELECT crm.define_segment('{"name": "buyers", "rule": "orders >= 3"}') \g /dev/null
SELECT pg_temp.publish('thanks', '[{"on": "purchase"}, {"on": "award"}, {"on": "stage_move"}, {"on": "follow"}, {"on": "scan"}, {"on": "refund"}]', '{"reentry": "always"}', '{"kind": "send", "template": "hello"}') \g /dev/null
INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref)
    SELECT 40 + n % 50, 100 + n, '2016-03-01'::timestamptz + n * interval '25 hours', 'h' || n FROM generate_series(1, 3480) n;
INSERT INTO crm.event (contact_id, kind, occurred_at) SELECT 40 + n % 50, 'follow', '2016-03-01'::timestamptz + n * interval '25 days' FROM generate_series(0, 140) n;
SELECT is((SELECT count(*)::int FROM crm.award WHERE contact_id >= 40), 600, 'history awards');
SELECT is((SELECT count(*)::int FROM crm.enrolment WHERE journey = 'thanks'), 0, 'ten years of orders enter nobody');
SELECT is((SELECT count(*)::int FROM crm.message), 0, 'and send nothing');
SELECT is((SELECT count(*)::int FROM crm.refusal WHERE object = 'thanks'), 0, 'and are not refused');
SELECT crm.tick() \g /dev/null
SELECT is((SELECT count(*)::int FROM crm.message), 0, 'nor with time');
SELECT is_empty($$SELECT * FROM crm.enrolment WHERE journey = 'thanks'$$, 'nobody');

-- ---- hold-out
INSERT INTO crm.contact (contact_id) SELECT n FROM generate_series(1001, 5000) n;
SELECT pg_temp.publish('held', '[{"on": "come"}]', '{"reentry": "always", "hold_out": 25}'), pg_temp.publish('nobody', '[{"on": "come"}]', '{"hold_out": 100}') \g /dev/null
INSERT INTO crm.event (contact_id, kind) SELECT n, 'come' FROM generate_series(1001, 5000) n;
CREATE FUNCTION pg_temp.draw(journey text, step text, contact bigint) RETURNS float8 LANGUAGE sql AS
$$SELECT (('x' || encode(substr(sha256(convert_to(journey || '/' || step || '/' || contact, 'UTF8')), 1, 8), 'hex'))::bit(64) >> 11)::bigint / 9007199254740992.0$$;
SELECT set_eq($$SELECT contact_id FROM crm.refusal WHERE object = 'held' AND reason = 'hold_out' AND contact_id > 1000$$,
    $$SELECT n FROM generate_series(1001, 5000) n WHERE pg_temp.draw('held', 'hold_out', n) < 0.25$$, 'who is held out, is so by the formula');
-- 4000 draws of 1/4: mean 1000, deviation 27.4; five of them
SELECT ok((SELECT count(*) BETWEEN 863 AND 1137 FROM crm.refusal WHERE object = 'held' AND contact_id > 1000), 'as many as asked for');
SELECT is((SELECT count(*)::int FROM crm.enrolment WHERE journey = 'nobody'), 0, '100: nobody');
INSERT INTO crm.event (contact_id, kind) SELECT n, 'come' FROM generate_series(1001, 5000) n;
SELECT is_empty($$SELECT contact_id FROM crm.enrolment WHERE journey = 'held' AND contact_id > 1000 GROUP BY 1 HAVING count(*) <> 2$$, 'the same are let in again');
SELECT is_empty($$SELECT contact_id FROM crm.refusal WHERE object = 'held' AND reason = 'hold_out' AND contact_id > 1000 AND refusals <> 2$$, 'and the same are not');
SELECT is((SELECT crm.enrol(contact_id, 'held') FROM crm.refusal WHERE object = 'held' LIMIT 1), NULL, 'nor by hand');

-- ---- states
SELECT pg_temp.publish('state', '[{"on": "knock"}]', '{"reentry": "always"}') \g /dev/null
SELECT crm.track(30, 'knock') \g /dev/null
SELECT crm.set_journey('state', 'closed'); SELECT crm.track(31, 'knock') \g /dev/null
SELECT crm.set_journey('state', 'frozen'); SELECT crm.track(31, 'knock') \g /dev/null
SELECT is(crm.enrol(31, 'state'), NULL, 'by hand');
SELECT crm.set_journey('state', 'cancelled'); SELECT crm.track(31, 'knock') \g /dev/null
SELECT is(pg_temp.fate(31, 'state'), 'cancelled 1, closed 1, frozen 2', 'closed, frozen, cancelled');
SELECT is(pg_temp.fate(30, 'state'), 'exited cancelled', 'who was in it');
SELECT crm.set_journey('state', 'open'); SELECT crm.track(31, 'knock') \g /dev/null
SELECT is(pg_temp.fate(31, 'state'), 'active | cancelled 1, closed 1, frozen 2', 'open again');

SELECT is_empty('SELECT * FROM pg_temp.unbalanced()', 'started = active + finished + exited');
SELECT is_empty('SELECT * FROM crm.verify()', 'all of it sound');
SELECT * FROM finish();
ROLLBACK;
