-- what each kind of step does, which way it goes on, and what happens to who cannot do it
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET TimeZone = 'UTC';
SET search_path = public, pg_catalog;
SET pg_crm.clock = '2026-03-02 12:00Z';
SELECT no_plan();
ALTER TABLE crm.contact ADD size numeric CHECK (size < 60), ADD wedding date, ADD vip boolean;
SELECT crm.build_profile_view() \g /dev/null
INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2026-01-01' FROM generate_series(1, 99) n;
CREATE FUNCTION pg_temp.publish(name text, steps jsonb, more jsonb DEFAULT '{}') RETURNS integer LANGUAGE sql AS
$$SELECT crm.publish_journey(crm.journey_document(name, 'a', steps, '[{"on": "go"}]', '{"reentry": "always"}'::jsonb || more))$$;
CREATE FUNCTION pg_temp.fate(contact bigint, name text) RETURNS text LANGUAGE sql AS
$$SELECT state || coalesce(' ' || end_reason, '') || ' at ' || coalesce(step, 'none') || coalesce(' stuck ' || stuck, '') FROM crm.enrolment WHERE contact_id = contact AND journey = name ORDER BY enrolment_id DESC LIMIT 1$$;
CREATE FUNCTION pg_temp.way(contact bigint, name text) RETURNS text LANGUAGE sql AS
$$SELECT string_agg(v.step || to_char(v.entered_at, ' DD HH24:MI') || coalesce(' ' || v.outcome, ''), ', ' ORDER BY v.visit) FROM crm.step_visit v
   WHERE (v.contact_id, v.enrolment_id) = (SELECT contact_id, enrolment_id FROM crm.enrolment e WHERE e.contact_id = contact AND e.journey = name ORDER BY enrolment_id DESC LIMIT 1)$$;
CREATE FUNCTION pg_temp.at(at timestamptz) RETURNS void LANGUAGE sql AS $$SELECT set_config('pg_crm.clock', at::text, false)$$;
CREATE FUNCTION pg_temp.unbalanced() RETURNS SETOF crm.journey_summary LANGUAGE sql AS
$$SELECT * FROM crm.journey_summary s WHERE started <> active + finished + exited OR started <> (SELECT count(*) FROM crm.enrolment e WHERE e.journey = s.journey)$$;
CREATE VIEW pg_temp.ends AS SELECT '{"end": {"kind": "exit", "reason": "end"}, "none": {"kind": "exit", "reason": "none"}}'::jsonb AS steps;

-- ---- branch: the first that holds; NULL and failing rules do not; the entry is known
SELECT pg_temp.publish('branch', '{"a": {"kind": "branch", "branches": [{"when": "size > 50", "next": "one"}, {"when": "1 / (orders - 1) > 0", "next": "two"}, {"when": "city = ''Rome''", "next": "three"}, {"when": "city = ''Rome'' OR city = ''Bonn''", "next": "four"}, {"when": "fact.properties ->> ''how'' = ''fast''", "next": "five"}, {"when": "vip", "next": null}], "default": "six"},
    "one": {"kind": "exit", "reason": "one"}, "two": {"kind": "exit", "reason": "two"}, "three": {"kind": "exit", "reason": "three"}, "four": {"kind": "exit", "reason": "four"}, "five": {"kind": "exit", "reason": "five"}, "six": {"kind": "exit"}}') \g /dev/null
UPDATE crm.contact SET size = 55 WHERE contact_id = 1;
UPDATE crm.contact SET city = 'Rome' WHERE contact_id IN (1, 2, 3);
UPDATE crm.contact SET city = 'Bonn', vip = true WHERE contact_id IN (4, 8);
UPDATE crm.contact SET vip = true WHERE contact_id IN (5, 6);
SELECT crm.purchase(3, 10), crm.purchase(8, 10), crm.purchase(8, 10) \g /dev/null
INSERT INTO crm.event (contact_id, kind, properties) SELECT c, 'go', CASE c WHEN 5 THEN '{"how": "fast"}' ELSE '{}' END::jsonb FROM generate_series(1, 8) c;
SELECT is((SELECT string_agg(coalesce(e.end_reason, '-') || ' ' || v.outcome, ', ' ORDER BY contact_id) FROM crm.enrolment e JOIN crm.step_visit v USING (contact_id, enrolment_id) WHERE e.journey = 'branch' AND v.step = 'a'),
    'one 1, three 3, three 3, four 4, five 5, - 6, - default, two 2', 'branches in order');
SELECT is((SELECT sum(times)::int FROM crm.rule_error WHERE object_kind = 'journey' AND object = 'branch'), 1, 'a rule that fails is counted');

-- ---- split: ten thousand contacts, as the formula says, and the same again
CREATE FUNCTION pg_temp.draw(journey text, step text, contact bigint) RETURNS float8 LANGUAGE sql AS
$$SELECT (('x' || encode(substr(sha256(convert_to(journey || '/' || step || '/' || contact, 'UTF8')), 1, 8), 'hex'))::bit(64) >> 11)::bigint / 9007199254740992.0$$;
SELECT pg_temp.publish('split', '{"a": {"kind": "split", "arms": {"x": {"weight": 1, "next": "b"}, "y": {"weight": 2, "next": null}, "z": {"weight": 7, "next": null}}}, "b": {"kind": "split", "arms": {"l": {"weight": 1, "next": null}, "r": {"weight": 1, "next": null}}}}', '{"entry": [{"on": "draw"}]}') \g /dev/null
INSERT INTO crm.contact (contact_id) SELECT n FROM generate_series(10001, 20000) n;
INSERT INTO crm.event (contact_id, kind) SELECT n, 'draw' FROM generate_series(10001, 20000) n;
-- five deviations of the binomial: 30 of 1000, 40 of 2000, 45.8 of 7000
SELECT ok(count(*) FILTER (WHERE arm = 'x') BETWEEN 850 AND 1150 AND count(*) FILTER (WHERE arm = 'y') BETWEEN 1800 AND 2200 AND count(*) FILTER (WHERE arm = 'z') BETWEEN 6770 AND 7230, 'arms by their weights: ' || string_agg(DISTINCT arm, ' '))
    FROM crm.step_visit WHERE journey = 'split' AND step = 'a';
SELECT is_empty($$SELECT contact_id, arm FROM crm.step_visit WHERE journey = 'split' AND step = 'a'
    AND arm <> CASE WHEN pg_temp.draw('split', 'a', contact_id) < 0.1 THEN 'x' WHEN pg_temp.draw('split', 'a', contact_id) < 0.3 THEN 'y' ELSE 'z' END$$, 'as the formula says');
SELECT ok(abs(count(*) FILTER (WHERE arm = 'l') - count(*) / 2.0) < 5 * sqrt(count(*)) / 2, 'another step draws anew') FROM crm.step_visit WHERE journey = 'split' AND step = 'b';
INSERT INTO crm.event (contact_id, kind) SELECT n, 'draw' FROM generate_series(10001, 20000) n;
SELECT is_empty($$SELECT contact_id FROM crm.step_visit WHERE journey = 'split' GROUP BY contact_id, step HAVING count(DISTINCT arm) <> 1 OR count(*) <> 2$$, 'the same arm again');
SELECT is((SELECT string_agg(DISTINCT outcome, ' ') FROM crm.step_visit WHERE journey = 'split'), 'arm', 'the outcome');

-- ---- set, tag, stage, award, exit
SELECT crm.define_achievement('{"name": "tester", "on_kind": "tested"}') \g /dev/null
SELECT pg_temp.publish('set', '{"a": {"kind": "set", "fields": {"city": "{{entry.city|Nowhere}}", "size": 42.5, "wedding": "2026-05-01", "vip": true, "attributes": {"skin": "dry", "n": 1}}, "next": "b"}, "b": {"kind": "tag", "add": ["new", "vip", "new"], "remove": ["old"], "next": "c"}, "c": {"kind": "stage", "stage": "other", "reason": "said so", "next": "d"}, "d": {"kind": "award", "achievement": "tester", "next": "e"}, "e": {"kind": "exit", "reason": "bye"}}') \g /dev/null
UPDATE crm.contact SET attributes = '{"hair": "red", "n": 0}', tags = '{old,vip,kept}' WHERE contact_id = 10;
SELECT crm.track(10, 'go', '{"city": "Pisa"}'), crm.track(11, 'go') \g /dev/null
SELECT results_eq('SELECT city, size, wedding, vip, attributes, tags, stage FROM crm.contact WHERE contact_id IN (10, 11) ORDER BY contact_id',
    $$VALUES ('Pisa', 42.5, '2026-05-01'::date, true, '{"hair": "red", "n": 1, "skin": "dry"}'::jsonb, '{vip,kept,new}'::text[], 'other'), ('Nowhere', 42.5, '2026-05-01', true, '{"n": 1, "skin": "dry"}', '{new,vip}', 'other')$$, 'what was set, tagged, moved');
SELECT is(pg_temp.fate(10, 'set'), 'finished bye at e', 'the end with its reason');
SELECT is((SELECT string_agg(outcome, ' ' ORDER BY visit) FROM crm.step_visit WHERE contact_id = 10 AND journey = 'set'), 'next next next next next', 'the edges');
SELECT results_eq($$SELECT kind, properties ->> 'stage', properties ->> 'reason', properties ->> 'journey', properties ->> 'step' FROM crm.event WHERE contact_id = 10 AND kind IN ('set_stage', 'tested') ORDER BY event_id$$,
    $$VALUES ('set_stage', 'other', 'said so', 'set', 'c'), ('tested', NULL, NULL, 'set', 'd')$$, 'the facts');
SELECT is((SELECT string_agg(achievement, ' ') FROM crm.award WHERE contact_id = 10), 'tester', 'awarded by the fact');
SELECT crm.track(10, 'go') \g /dev/null
SELECT is((SELECT tags FROM crm.contact WHERE contact_id = 10), '{vip,kept,new}'::text[], 'no tag twice');

-- ---- coupon and points: once a visit, and where they cannot be given
SELECT crm.define_coupon('{"name": "pool", "codes": "pool"}'), crm.define_coupon('{"name": "made"}'), crm.define_coupon('{"name": "one", "one_per": "contact"}') \g /dev/null
INSERT INTO crm.coupon_code (coupon, code) VALUES ('pool', 'P1'), ('pool', 'P2'), ('pool', 'P3');
SELECT pg_temp.publish('edge', '{"a": {"kind": "coupon", "coupon": "pool", "save_as": "code", "next": "end", "on_failed": "none"}}' || steps, '{"entry": [{"on": "edge"}]}'),
       pg_temp.publish('noedge', '{"a": {"kind": "coupon", "coupon": "pool", "next": "end"}, "end": {"kind": "exit", "reason": "end"}}', '{"entry": [{"on": "noedge"}]}') FROM pg_temp.ends \g /dev/null
INSERT INTO crm.event (contact_id, kind) SELECT n, 'edge' FROM generate_series(20, 21) n;
INSERT INTO crm.event (contact_id, kind) SELECT n, 'noedge' FROM generate_series(22, 24) n;
INSERT INTO crm.event (contact_id, kind) VALUES (25, 'edge');
SELECT is((SELECT string_agg(coalesce(context ->> 'code', context ->> 'coupon', end_reason, 'stuck'), ' ' ORDER BY contact_id) FROM crm.enrolment WHERE contact_id BETWEEN 20 AND 25), 'P1 P2 P3 stuck stuck none', 'as long as there are codes; then failed, or stuck');
SELECT is(pg_temp.way(25, 'edge'), 'a 02 12:00 failed, none 02 12:00 next', 'the edge');
SELECT matches(pg_temp.fate(23, 'noedge'), 'active at a stuck coupon "pool" has no free code left', 'stuck says why');
SELECT is((SELECT failures || to_char(due_at, ' HH24:MI') FROM crm.enrolment WHERE contact_id = 23), '1 12:01', 'tried again after a minute');
SELECT is(crm.resume(enrolment_id), true, 'tried by hand') FROM crm.enrolment WHERE contact_id = 23;
SELECT is((SELECT failures || to_char(due_at, ' HH24:MI') FROM crm.enrolment WHERE contact_id = 23), '2 12:02', 'later the next time');
SELECT pg_temp.at('2026-03-02 12:02Z') \g /dev/null
SELECT is(crm.tick(), 0, 'it is looked at, and enters no step');
SELECT is((SELECT string_agg(failures || to_char(due_at, ' HH24:MI'), ', ' ORDER BY contact_id) FROM crm.enrolment WHERE contact_id IN (23, 24)), '3 12:06, 2 12:04', 'by tick, ever more seldom');
SELECT is(crm.tick('2026-03-03 12:00Z'), 0, 'a tick that goes far tries once');
SELECT is((SELECT string_agg(failures || to_char(due_at, ' DD HH24:MI'), ', ' ORDER BY contact_id) FROM crm.enrolment WHERE contact_id IN (23, 24)), '4 03 12:08, 3 03 12:04', 'and puts off from there');
INSERT INTO crm.coupon_code (coupon, code) VALUES ('pool', 'P4');
SELECT is(crm.resume(enrolment_id), true, 'there is one now') FROM crm.enrolment WHERE contact_id = 24;
SELECT is(crm.resume(enrolment_id), false, 'not stuck: nothing to resume') FROM crm.enrolment WHERE contact_id = 24;
SELECT is(pg_temp.way(24, 'noedge'), 'a 02 12:00 next, end 02 12:00 next', 'it goes on when it was due: the same visit');
SELECT is((SELECT count(*)::int FROM crm.coupon_grant WHERE contact_id = 24), 1, 'one coupon');
SELECT is_empty('SELECT * FROM pg_temp.unbalanced()', 'the balance');
INSERT INTO crm.loyalty_program (name) VALUES ('club');
SELECT pg_temp.publish('earn', '{"a": {"kind": "points", "program": "club", "points": 30, "next": "b"}, "b": {"kind": "points", "program": "club", "points": -20, "reason": "gift", "next": "c"}, "c": {"kind": "points", "program": "club", "points": -20, "next": "end", "on_failed": "none"}}' || steps, '{"entry": [{"on": "earn"}]}'),
       pg_temp.publish('spend', '{"a": {"kind": "points", "program": "club", "points": -20, "next": "end"}, "end": {"kind": "exit", "reason": "end"}}', '{"entry": [{"on": "spend"}]}') FROM pg_temp.ends \g /dev/null
SELECT crm.join_loyalty(c, 'club') FROM generate_series(30, 33) c \g /dev/null
SELECT crm.track(30, 'earn'), crm.track(31, 'spend') \g /dev/null
SELECT is((SELECT string_agg(points || ' ' || coalesce(reason, '-'), ', ' ORDER BY point_entry_id) FROM crm.point_entry WHERE contact_id = 30), '30 journey earn, -20 gift', 'earned and spent');
SELECT is(pg_temp.fate(30, 'earn'), 'finished none at none', 'more than there is: failed');
SELECT matches(pg_temp.fate(31, 'spend'), '^active at a stuck ', 'or stuck');
SELECT crm.earn_points(31, 'club', 25, 'found', 'k'), crm.resume(enrolment_id), crm.resume(enrolment_id) FROM crm.enrolment WHERE contact_id = 31 AND journey = 'spend' \g /dev/null
SELECT is((SELECT sum(points)::int FROM crm.point_entry WHERE contact_id = 31), 5, 'resumed, spent once');

-- ---- one of many fails: only he is stuck
INSERT INTO crm.contact (contact_id) SELECT n FROM generate_series(1001, 1300) n;
SELECT pg_temp.publish('many', '{"a": {"kind": "set", "fields": {"size": "{{entry.size}}"}, "next": "b"}, "b": {"kind": "tag", "add": ["sized"], "next": "end"}, "end": {"kind": "exit", "reason": "end"}}', '{"entry": [{"on": "many"}]}') \g /dev/null
INSERT INTO crm.event (contact_id, kind, properties) SELECT n, 'many', jsonb_build_object('size', CASE n WHEN 1077 THEN '70' WHEN 1222 THEN 'large' ELSE '40' END) FROM generate_series(1001, 1300) n;
SELECT is((SELECT count(*) FILTER (WHERE state = 'finished') || ' ' || string_agg(contact_id || ' ' || step, ', ' ORDER BY contact_id) FILTER (WHERE state = 'active') FROM crm.enrolment WHERE journey = 'many'), '298 1077 a, 1222 a', 'who breaks a CHECK, or says nonsense, is stuck; the others go on');
SELECT is((SELECT count(*)::int FROM crm.contact WHERE size = 40 AND tags = '{sized}'), 298, 'and have it');
SELECT set_eq($$SELECT contact_id, kind, step FROM crm.stuck WHERE object = 'many'$$, $$VALUES (1077::bigint, 'enrolment', 'a'), (1222, 'enrolment', 'a')$$, 'listed');
SELECT is((SELECT active || ' ' || stuck FROM crm.journey_summary WHERE journey = 'many'), '2 2', 'and active');
ALTER TABLE crm.contact DROP CONSTRAINT contact_size_check;
SELECT pg_temp.at('2026-03-03 13:00Z') \g /dev/null
SELECT crm.tick() \g /dev/null
SELECT is((SELECT string_agg(contact_id::text, ' ') FROM crm.enrolment WHERE journey = 'many' AND state = 'active'), '1222', 'tried again when it can be done');
SELECT is_empty('SELECT * FROM pg_temp.unbalanced()', 'the balance');

-- ---- send and webhook, where no worker runs: ends of messages are put in by hand
INSERT INTO crm.account (kind, name) VALUES ('official_account', 'shop'), ('webhook', 'erp');
SELECT crm.define_template('{"name": "hello", "channel": "official_account", "message_type": "text", "body": {"content": "Hello {{entry.name|you}} {{context.coupon|-}}"}}'),
       crm.define_template('{"name": "erp", "channel": "webhook", "message_type": "post", "body": {"x": 1}}') \g /dev/null
SELECT pg_temp.publish('send', '{"a": {"kind": "coupon", "coupon": "made", "next": "b"}, "b": {"kind": "send", "template": "hello", "params": {"who": "{{entry.name|nobody}}", "code": "{{context.coupon}}"}, "expires_in": "2 days", "next": "c"}, "c": {"kind": "send", "template": "hello", "next": "end", "on_refused": "no", "on_failed": "none"}, "no": {"kind": "exit", "reason": "no"}}' || steps, '{"entry": [{"on": "send"}]}'),
       pg_temp.publish('refusable', '{"a": {"kind": "send", "template": "hello", "next": "end", "on_refused": "none"}}' || steps, '{"entry": [{"on": "send"}]}'),
       pg_temp.publish('call', '{"a": {"kind": "webhook", "template": "erp", "save_as": "answer", "next": "b"}, "b": {"kind": "branch", "branches": [{"when": "orders >= 0", "next": "end"}], "default": "end"}, "end": {"kind": "exit", "reason": "end"}}', '{"entry": [{"on": "call"}]}') FROM pg_temp.ends \g /dev/null
SELECT crm.track(c, 'send', CASE c WHEN 40 THEN '{"name": "Mei"}' ELSE '{}' END::jsonb) FROM generate_series(40, 47) c \g /dev/null

SELECT is_empty($$SELECT v.step, m.send_key, m.due_at, m.awaited FROM crm.message m JOIN crm.step_visit v USING (contact_id, message_id) WHERE v.journey = 'send'
    AND (m.send_key, m.due_at, m.awaited, m.state, m.expires_at) IS DISTINCT FROM ('journey ' || v.enrolment_id || '/' || v.visit, v.entered_at, v.step = 'c', 'queued', CASE v.step WHEN 'b' THEN v.entered_at + interval '2 days' ELSE m.expires_at END)$$, 'a message a visit, under its key');
SELECT is((SELECT count(*)::int FROM crm.message WHERE contact_id BETWEEN 40 AND 47 AND template = 'hello'), 24, 'three each');
SELECT results_eq($$SELECT m.params ->> 'who', m.params ->> 'code' = e.context ->> 'coupon', m.params #>> '{entry,name}', m.params #>> '{context,coupon}' = e.context ->> 'coupon'
    FROM crm.enrolment e JOIN crm.step_visit v USING (contact_id, enrolment_id) JOIN crm.message m ON (m.contact_id, m.message_id) = (v.contact_id, v.message_id)
    WHERE e.journey = 'send' AND v.step = 'b' AND e.contact_id IN (40, 41) ORDER BY e.contact_id$$, $$VALUES ('Mei', true, 'Mei', true), ('nobody', true, NULL, true)$$, 'params, the entry and the context');
SELECT is((SELECT string_agg(DISTINCT pg_temp.fate(c, 'send'), ', ') FROM generate_series(40, 47) c), 'active at c', 'who has edges waits for the end');
-- an end of each kind
CREATE FUNCTION pg_temp.end_message(contact bigint, name text, state text, due timestamptz) RETURNS void LANGUAGE sql AS $$
    WITH m AS (UPDATE crm.message m SET state = $3 FROM crm.enrolment e WHERE e.contact_id = contact AND e.journey = name AND m.contact_id = e.contact_id AND m.message_id = e.message_id RETURNING m.contact_id, m.message_id),
    o AS (DELETE FROM crm.outbox o USING m WHERE o.contact_id = m.contact_id AND o.message_id = m.message_id)
    INSERT INTO crm.message_end (contact_id, message_id, due_at) SELECT contact_id, message_id, due FROM m $$;
SELECT pg_temp.end_message(c, 'send', s, CASE s WHEN 'unknown' THEN '2026-03-03 14:10Z'::timestamptz ELSE '2026-03-03 13:10Z' END), pg_temp.end_message(c, 'refusable', s, '2026-03-03 13:10Z')
  FROM unnest('{sent,waiting,failed,refused,expired,cancelled,unknown}'::text[]) WITH ORDINALITY AS s(s, n), LATERAL (SELECT 39 + n AS c) c \g /dev/null
SELECT pg_temp.at('2026-03-03 13:30Z') \g /dev/null
SELECT crm.tick() \g /dev/null
SELECT results_eq($$SELECT c, substr(pg_temp.way(c, 'send'), 46) FROM generate_series(40, 45) c$$, $$VALUES (40, 'next, end 03 13:10 next'), (41, 'next, end 03 13:10 next'), (42, 'failed, none 03 13:10 next'), (43, 'refused, no 03 13:10 next'), (44, 'refused, no 03 13:10 next'), (45, 'refused, no 03 13:10 next')$$, 'by what became of the message, when that was so');
SELECT is(pg_temp.fate(46, 'send'), 'active at c', 'of an unknown one it waits');
SELECT results_eq($$SELECT c, pg_temp.way(c, 'refusable') FROM generate_series(40, 47) c$$, $$VALUES (40, 'a 03 13:00 next, end 03 13:10 next'), (41, 'a 03 13:00 next, end 03 13:10 next'), (42, 'a 03 13:00 failed, end 03 13:10 next'), (43, 'a 03 13:00 refused, none 03 13:10 next'),
    (44, 'a 03 13:00 refused, none 03 13:10 next'), (45, 'a 03 13:00 refused, none 03 13:10 next'), (46, 'a 03 13:00 failed, end 03 13:10 next'), (47, 'a 03 13:00')$$, 'without an edge it goes on as next says');
SELECT pg_temp.at('2026-03-03 14:30Z') \g /dev/null
SELECT crm.tick() \g /dev/null
SELECT is(substr(pg_temp.way(46, 'send'), 46), 'failed, none 03 14:10 next', 'unknown goes by failed, an unknown_after later');
SELECT is_empty('SELECT * FROM crm.message_end', 'each end is looked at once');
SELECT crm.track(50, 'call'), crm.track(51, 'call') \g /dev/null
WITH d AS (INSERT INTO crm.delivery_attempt (contact_id, message_id, occurred_at, outcome, reply) SELECT contact_id, message_id, crm.now(), 'sent', CASE contact_id WHEN 50 THEN '{"score": 7}' ELSE 'no json' END FROM crm.enrolment WHERE journey = 'call' RETURNING contact_id, message_id, attempt_id)
UPDATE crm.message m SET attempt_id = d.attempt_id FROM d WHERE (m.contact_id, m.message_id) = (d.contact_id, d.message_id);
SELECT pg_temp.end_message(c, 'call', 'sent', crm.now()) FROM generate_series(50, 51) c \g /dev/null
SELECT crm.tick() \g /dev/null
SELECT results_eq($$SELECT pg_temp.fate(contact_id, 'call'), context -> 'answer' FROM crm.enrolment WHERE journey = 'call' ORDER BY contact_id$$, $$VALUES ('finished end at end', '{"score": 7}'::jsonb), ('finished end at end', '"no json"')$$, 'what a webhook answers is kept');
-- a template that is gone: who should send it is stuck until it is back
SELECT pg_temp.publish('gone', '{"a": {"kind": "send", "template": "bye", "next": "end"}, "end": {"kind": "exit", "reason": "end"}}', '{"entry": [{"on": "gone"}]}') FROM (SELECT crm.define_template('{"name": "bye", "channel": "official_account", "message_type": "text", "body": {"content": "Bye"}}')) x \g /dev/null
DELETE FROM crm.template WHERE name = 'bye';
SELECT crm.track(52, 'gone') \g /dev/null
SELECT matches(pg_temp.fate(52, 'gone'), '^active at a stuck .*bye', 'a template that is gone');
SELECT crm.define_template('{"name": "bye", "channel": "official_account", "message_type": "text", "body": {"content": "Bye"}}'), crm.resume(enrolment_id) FROM crm.enrolment WHERE contact_id = 52 \g /dev/null
SELECT is(pg_temp.fate(52, 'gone'), 'finished end at end', 'and is back');
SELECT is_empty('SELECT * FROM pg_temp.unbalanced()', 'started = active + finished + exited');
UPDATE crm.message SET state = 'failed' WHERE state = 'unknown'; -- put there by hand, without its row of message_unknown
SELECT is_empty('SELECT * FROM crm.verify()', 'all of it sound');
SELECT * FROM finish();
ROLLBACK;
