-- enrolments of contacts that become one, and two again
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET search_path = public, pg_catalog;
SET pg_crm.clock = '2026-03-10 10:00+08';
SELECT no_plan();
INSERT INTO crm.account (kind, name) VALUES ('official_account', 'maison');
SELECT crm.define_template('{"name": "hello", "channel": "official_account", "message_type": "text", "body": {"content": "Hello"}}') \g /dev/null
SELECT crm.publish_journey(crm.journey_document('welcome', 'first', '{
  "first": {"kind": "wait", "for": "1 day", "next": "second"}, "second": {"kind": "wait", "for": "10 days", "next": "third"},
  "third": {"kind": "exit"}}', '[{"on": "follow"}]', '{"reentry": "once"}')) \g /dev/null
SELECT crm.publish_journey(crm.journey_document('order', 'first', '{
  "first": {"kind": "wait", "for": "5 days"}}', '[{"on": "purchase"}]', '{"reentry": "per_key", "key": "ref"}')) \g /dev/null
SELECT crm.publish_journey(crm.journey_document('again', 'first', '{
  "first": {"kind": "wait", "for": "5 days"}}', '[]', '{"reentry": "after_exit"}')) \g /dev/null
SELECT crm.publish_journey(crm.journey_document('sent', 'hello', '{
  "hello": {"kind": "send", "template": "hello", "next": "rest", "on_refused": "refused"}, "rest": {"kind": "wait", "for": "5 days"}, "refused": {"kind": "wait", "for": "6 days"}}')) \g /dev/null
SELECT crm.publish_journey(crm.journey_document('cart', 'rest', '{"rest": {"kind": "wait", "for": "5 days"}}', '[{"on": "cart"}]', '{"goal": {"on": "purchase"}}')) \g /dev/null

CREATE FUNCTION pg_temp.enrolments(VARIADIC contacts bigint[]) RETURNS jsonb LANGUAGE sql AS
$$SELECT jsonb_build_object('enrolment', (SELECT jsonb_agg(to_jsonb(e) ORDER BY enrolment_id) FROM crm.enrolment e WHERE contact_id = ANY ($1)),
    'step_visit', (SELECT jsonb_agg(to_jsonb(v) ORDER BY enrolment_id, visit) FROM crm.step_visit v WHERE contact_id = ANY ($1)),
    'refusal', (SELECT jsonb_agg(to_jsonb(r) ORDER BY contact_id, object, reason, day) FROM crm.refusal r WHERE contact_id = ANY ($1)))$$;
CREATE FUNCTION pg_temp.told(contact bigint, name text) RETURNS text LANGUAGE sql AS
$$SELECT string_agg(concat_ws(' ', state, end_reason, step, nullif(key, '')), ', ' ORDER BY enrolment_id) FROM crm.enrolment WHERE contact_id = $1 AND journey = $2$$;

-- the survivor's is the earlier one
INSERT INTO crm.contact (contact_id, created_at) VALUES (1, '2024-01-01Z'), (2, '2025-01-01Z');
SELECT crm.enrol(1, 'welcome') AS e1 \gset
SET pg_crm.clock = '2026-03-10 12:00+08';
SELECT crm.enrol(2, 'welcome') AS e2, crm.enrol(2, 'order', 'A') AS a2, crm.enrol(1, 'order', 'B') AS b1 \gset
SET pg_crm.clock = '2026-03-10 14:00+08';
SELECT pg_temp.enrolments(1, 2) AS before \gset
SELECT is(crm.merge(1, 2), 1::bigint, 'one contact');
SELECT is(pg_temp.told(1, 'welcome'), 'active first, exited merged first', 'the earlier one stays');
SELECT is((SELECT ended_at FROM crm.enrolment WHERE enrolment_id = :e2), '2026-03-10 14:00+08', 'the other ends now');
SELECT is((SELECT outcome || ' ' || left_at FROM crm.step_visit WHERE enrolment_id = :e2), 'merged ' || '2026-03-10 14:00+08'::timestamptz, 'and leaves its step');
SELECT is(pg_temp.told(1, 'order'), 'active first A, active first B', 'under different keys both stay');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
SELECT is(crm.enrol(1, 'welcome'), NULL::bigint, 'once for both');
SELECT is(crm.enrol(1, 'order', 'A'), :a2::bigint, 'a key of the other is taken');
DELETE FROM crm.refusal;
SELECT crm.unmerge(2) \g /dev/null
SELECT is(pg_temp.enrolments(1, 2), :'before'::jsonb, 'two again, as they were');
SELECT is((SELECT contact_id FROM crm.enrolment WHERE enrolment_id = :e2), 2::bigint, 'each with its own');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
SET pg_crm.clock = '2026-03-11 15:00+08';
SELECT crm.tick() \g /dev/null
SELECT is(pg_temp.told(1, 'welcome') || ', ' || pg_temp.told(2, 'welcome'), 'active second, active second', 'and both go on');

-- the loser's is the earlier one, and goes on as the survivor's
INSERT INTO crm.contact (contact_id, created_at) VALUES (11, '2024-01-01Z'), (12, '2025-01-01Z');
SELECT crm.enrol(12, 'welcome') AS e12 \gset
SET pg_crm.clock = '2026-03-11 16:00+08';
SELECT crm.enrol(11, 'welcome') AS e11 \gset
SELECT crm.merge(11, 12) \g /dev/null
SELECT is(pg_temp.told(11, 'welcome'), 'active first, exited merged first', 'the earlier one stays');
SET pg_crm.clock = '2026-03-12 15:30+08';
SELECT cmp_ok(crm.tick(), '>=', 1, 'moved');
SELECT is((SELECT contact_id || ' ' || step FROM crm.enrolment WHERE enrolment_id = :e12), '11 second', 'goes on');
SELECT is((SELECT string_agg(contact_id || ' ' || visit || ' ' || step, ', ' ORDER BY visit) FROM crm.step_visit WHERE enrolment_id = :e12), '11 1 first, 11 2 second', 'with its steps');
SELECT crm.unmerge(12) \g /dev/null
SELECT is((SELECT string_agg(contact_id || ' ' || visit || ' ' || step, ', ' ORDER BY visit) FROM crm.step_visit WHERE enrolment_id = :e12), '12 1 first, 12 2 second', 'which follow it back, those since, too');
SELECT is(pg_temp.told(11, 'welcome'), 'active first', 'the other is active again');
SELECT is((SELECT due_at FROM crm.enrolment WHERE enrolment_id = :e11), '2026-03-12 16:00+08', 'until it would have been');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
SET pg_crm.clock = '2026-03-12 17:00+08';
SELECT crm.tick() \g /dev/null
SELECT is((SELECT step FROM crm.enrolment WHERE enrolment_id = :e11), 'second', 'and goes on');

-- what has begun anew under the same key, and a cancelled journey
INSERT INTO crm.contact (contact_id, created_at) VALUES (21, '2024-01-01Z'), (22, '2025-01-01Z');
SELECT crm.enrol(22, 'again'), crm.enrol(21, 'again') AS e21, crm.enrol(22, 'order', 'X'), crm.enrol(21, 'order', 'X') AS x21 \gset
SELECT crm.merge(21, 22) \g /dev/null
SELECT crm.unenrol(21, 'again') \g /dev/null
SELECT crm.enrol(21, 'again') \g /dev/null
SELECT crm.set_journey('order', 'cancelled') \g /dev/null
SELECT crm.unmerge(22) \g /dev/null
SELECT is(pg_temp.told(21, 'again'), 'exited merged first, active first', 'stays ended where another has begun');
SELECT is((SELECT end_reason FROM crm.enrolment WHERE enrolment_id = :x21), 'merged', 'or everybody has left');
SELECT is(pg_temp.told(22, 'again'), 'exited unenrolled first', 'what ended since is not undone');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- messages: one person gets one, and what is awaited is not waited for in vain
INSERT INTO crm.contact (contact_id, created_at) VALUES (31, '2024-01-01Z'), (32, '2025-01-01Z');
SELECT crm.enrol(31, 'sent') AS s31 \gset
SET pg_crm.clock = '2026-03-12 18:00+08';
SELECT crm.enrol(32, 'sent') AS s32 \gset
SELECT crm.merge(31, 32) \g /dev/null
SELECT is((SELECT string_agg(state || coalesce(' ' || reason, ''), ', ' ORDER BY message_id) FROM crm.message WHERE contact_id = 31), 'queued, cancelled merged', 'the message of the one that ended is taken back');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
SELECT crm.tick() \g /dev/null
SELECT is((SELECT count(*)::integer FROM crm.message_end), 0, 'its end is nobody''s');
SELECT crm.unmerge(32) \g /dev/null
SELECT is((SELECT contact_id || ' ' || state || ' ' || step FROM crm.enrolment WHERE enrolment_id = :s32), '32 active hello', 'active again');
SELECT is((SELECT count(*)::integer FROM crm.message_end WHERE contact_id = 32), 1, 'and told of the end');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
SELECT crm.tick() \g /dev/null
SELECT is((SELECT step FROM crm.enrolment WHERE enrolment_id = :s32), 'refused', 'by which it goes on');
SELECT is((SELECT step FROM crm.enrolment WHERE enrolment_id = :s31), 'hello', 'the other still waits');

-- a message queued after the merge goes back with its enrolment
INSERT INTO crm.contact (contact_id, created_at) VALUES (41, '2024-01-01Z'), (42, '2025-01-01Z');
SELECT crm.publish_journey(crm.journey_document('slow', 'rest', '{
  "rest": {"kind": "wait", "for": "1 hour", "next": "hello"},
  "hello": {"kind": "send", "template": "hello", "next": "end", "on_refused": "refused"}, "end": {"kind": "exit"}, "refused": {"kind": "exit", "reason": "refused"}}')) \g /dev/null
SELECT crm.enrol(42, 'slow') AS e42 \gset
SELECT crm.merge(41, 42) \g /dev/null
SET pg_crm.clock = '2026-03-12 19:30+08';
SELECT crm.tick() \g /dev/null
SELECT message_id AS m FROM crm.enrolment WHERE enrolment_id = :e42 \gset
SELECT is((SELECT contact_id FROM crm.message WHERE message_id = :m), 41::bigint, 'queued for the survivor');
SELECT crm.unmerge(42) \g /dev/null
SELECT is((SELECT m.contact_id || ' ' || o.contact_id || ' ' || e.contact_id FROM crm.message m JOIN crm.outbox o USING (message_id) JOIN crm.enrolment e USING (message_id) WHERE message_id = :m), '42 42 42', 'and given back');
SELECT crm.cancel_message(42, :m) \g /dev/null
SELECT crm.tick() \g /dev/null
SELECT is(pg_temp.told(42, 'slow'), 'finished refused refused', 'its end moves the enrolment');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- refusals are added up and parted
INSERT INTO crm.contact (contact_id, created_at) VALUES (51, '2024-01-01Z'), (52, '2025-01-01Z');
SELECT crm.enrol(c, 'welcome') FROM unnest('{51,51,51,52,52}'::bigint[]) c \g /dev/null
SET pg_crm.clock = '2026-03-12 20:00+08';
SELECT crm.enrol(52, 'welcome') \g /dev/null
SELECT pg_temp.enrolments(51, 52) AS before \gset
SELECT crm.merge(51, 52) \g /dev/null
SELECT is((SELECT refusals || ' ' || first_at || ' ' || last_at FROM crm.refusal WHERE contact_id = 51), '4 ' || '2026-03-12 19:30+08'::timestamptz || ' ' || '2026-03-12 20:00+08'::timestamptz, 'added up');
SELECT crm.unmerge(52) \g /dev/null
SELECT is(pg_temp.enrolments(51, 52), :'before'::jsonb, 'and parted');
SELECT crm.merge(51, 52) \g /dev/null
SET pg_crm.clock = '2026-03-12 21:00+08';
SELECT crm.enrol(51, 'welcome') \g /dev/null
SELECT crm.unmerge(52) \g /dev/null
SELECT is((SELECT string_agg(contact_id || ' ' || refusals || ' ' || last_at, ', ' ORDER BY contact_id) FROM crm.refusal WHERE contact_id IN (51, 52)),
  '51 3 ' || '2026-03-12 21:00+08'::timestamptz || ', 52 2 ' || '2026-03-12 20:00+08'::timestamptz, 'those since stay with the survivor');

-- what the other had done counts for the one
INSERT INTO crm.contact (contact_id, created_at) VALUES (61, '2024-01-01Z'), (62, '2025-01-01Z'), (63, '2025-02-01Z');
SELECT crm.track(61, 'cart') \g /dev/null
SELECT crm.purchase(62, 100, at => '2026-03-12 20:30+08'), crm.purchase(63, 100, at => '2026-03-12 21:00+08') \g /dev/null
SELECT crm.merge(61, 62) \g /dev/null
SELECT is(pg_temp.told(61, 'cart'), 'active rest', 'an order before the cart does not');
SELECT crm.merge(61, 63) \g /dev/null
SELECT is(pg_temp.told(61, 'cart'), 'exited goal rest', 'one since is the goal');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- a chain: three into one, and apart again
INSERT INTO crm.contact (contact_id, created_at) VALUES (71, '2023-01-01Z'), (72, '2024-01-01Z'), (73, '2025-01-01Z');
SELECT crm.enrol(73, 'again'), crm.enrol(72, 'again'), crm.enrol(71, 'again') \g /dev/null
SELECT pg_temp.enrolments(71, 72, 73) AS before \gset
SELECT crm.merge(72, 73), crm.merge(71, 72) \g /dev/null
SELECT is(pg_temp.told(71, 'again'), 'active first, exited merged first, exited merged first', 'the first of three');
SELECT crm.unmerge(72), crm.unmerge(73) \g /dev/null
SELECT is(pg_temp.enrolments(71, 72, 73), :'before'::jsonb, 'three again');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
SELECT * FROM finish();
ROLLBACK;
