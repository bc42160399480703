-- the clock of an enrolment: when steps are entered, what is waited for, what a late tick may change
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET TimeZone = 'UTC';
SET pg_crm.clock = '2026-03-02 12:00Z';
SELECT no_plan();
INSERT INTO crm.contact (contact_id, created_at, city) SELECT n, '2025-01-01', 'Rome' FROM generate_series(1, 99) n;

CREATE FUNCTION pg_temp.publish(name text, start text, steps jsonb, more jsonb DEFAULT '{}') RETURNS integer LANGUAGE sql AS
$$SELECT crm.publish_journey(crm.journey_document(name, start, steps, more => '{"reentry": "always"}'::jsonb || more))$$;
-- the way of the newest enrolment: step, day and time at which it was entered, and how it was left; then how it is
CREATE FUNCTION pg_temp.way(contact bigint, name text) RETURNS text LANGUAGE sql AS
$$SELECT concat_ws(', ', (SELECT string_agg(v.step || ' ' || to_char(v.entered_at, 'DD HH24:MI') || coalesce(' ' || v.outcome, ''), ', ' ORDER BY v.visit)
        FROM crm.step_visit v WHERE v.contact_id = e.contact_id AND v.enrolment_id = e.enrolment_id),
    nullif(e.state, 'active') || coalesce(' ' || e.end_reason, '') || to_char(e.ended_at, ' DD HH24:MI'), 'stuck: ' || e.stuck)
FROM crm.enrolment e WHERE e.contact_id = contact AND e.journey = name ORDER BY e.enrolment_id DESC LIMIT 1$$;
CREATE FUNCTION pg_temp.at(at timestamptz) RETURNS void LANGUAGE sql AS $$SELECT set_config('pg_crm.clock', at::text, false)$$;
CREATE FUNCTION pg_temp.hourly(until timestamptz) RETURNS void LANGUAGE plpgsql AS
$$BEGIN WHILE crm.now() < until LOOP PERFORM pg_temp.at(least(until, crm.now() + interval '17 minutes')); PERFORM crm.tick(); END LOOP; END$$;
CREATE FUNCTION pg_temp.unbalanced() RETURNS SETOF crm.journey_summary LANGUAGE sql AS
$$SELECT * FROM crm.journey_summary s WHERE started <> active + finished + exited OR started <> (SELECT count(*) FROM crm.enrolment e WHERE e.journey = s.journey)$$;

-- ---- several waits in one tick; a tick three days late says what ticks all the time say
SELECT pg_temp.publish('walk', 'hour', '{
  "hour": {"kind": "wait", "for": "1 hour", "next": "draw"},
  "draw": {"kind": "split", "arms": {"a": {"weight": 1, "next": "nine"}, "b": {"weight": 1, "next": "buy"}}},
  "nine": {"kind": "wait", "at": "09:00", "next": "buy"},
  "buy":  {"kind": "wait_for", "on": "purchase", "within": "5 hours", "next": "end", "on_timeout": "old"},
  "old":  {"kind": "wait_until", "when": "as_of - created_at > interval ''426 days 3 hours''", "within": "3 days", "next": "tag", "on_timeout": "end"},
  "tag":  {"kind": "tag", "add": ["walked"], "next": "sure"},
  "sure": {"kind": "branch", "branches": [{"when": "tags @> ''{walked}''", "next": "last"}], "default": "end"},
  "last": {"kind": "wait", "for": "30 minutes", "next": "end"},
  "end":  {"kind": "exit", "reason": "end"}}') \g /dev/null
SELECT crm.enrol(c, 'walk') FROM generate_series(1, 8) c \g /dev/null
SAVEPOINT late;
SELECT pg_temp.hourly('2026-03-05 12:00Z') \g /dev/null
SELECT string_agg(pg_temp.way(c, 'walk'), E'\n' ORDER BY c) AS always FROM generate_series(1, 8) c \gset
ROLLBACK TO late;
SELECT pg_temp.at('2026-03-05 12:00Z') \g /dev/null
SELECT cmp_ok(crm.tick(), '>', 30, 'one tick takes them all the way');
SELECT is((SELECT string_agg(pg_temp.way(c, 'walk'), E'\n' ORDER BY c) FROM generate_series(1, 8) c), :'always'::text, 'three days late, the same');
SELECT matches(:'always'::text, 'hour 02 12:00 next, draw 02 13:00 arm, nine 02 13:00 next, buy 03 01:00 timeout, old 03 06:00 next, tag 03 06:00 next, sure 03 06:00 1, last 03 06:00 next, end 03 06:30 next, finished end 03 06:30', 'steps are entered when they are due');
SELECT matches(:'always'::text, 'draw 02 13:00 arm, buy 02 13:00 timeout, old 02 18:00 next, tag 03 03:00 next, sure 03 03:00 1', 'a rule of time alone holds at its moment');
SELECT is((SELECT count(*)::int FROM crm.step_visit WHERE journey = 'walk' AND recorded_at <> '2026-03-05 12:00Z' AND visit > 1), 0, 'recorded as it was done');
SELECT is_empty('SELECT * FROM pg_temp.unbalanced()', 'the balance');

-- before the last tick nobody is moved; max_steps
SELECT pg_temp.publish('steps', 'a', '{"a": {"kind": "wait", "for": "1 hour", "next": "b"}, "b": {"kind": "wait", "for": "1 hour", "next": "c"}, "c": {"kind": "wait", "for": "1 hour", "next": "d"}, "d": {"kind": "exit"}}') \g /dev/null
SELECT pg_temp.at('2026-03-02 12:00Z') \g /dev/null
SELECT crm.enrol(10, 'steps') \g /dev/null
SELECT pg_temp.at('2026-03-05 12:00Z') \g /dev/null
SELECT is(crm.tick('2026-03-05 11:59:59Z'), 0, 'a time before the last one');
SELECT is(pg_temp.way(10, 'steps'), 'a 02 12:00', 'moves nobody');
SELECT is(crm.tick(max_steps => 0), 0, 'no step');
SELECT is(crm.tick(max_steps => 1), 1, 'one step');
SELECT is(pg_temp.way(10, 'steps'), 'a 02 12:00 next, b 02 13:00', 'and not a second one');
SELECT is(crm.tick(max_steps => 5), 2, 'the others');
SELECT is(pg_temp.way(10, 'steps'), 'a 02 12:00 next, b 02 13:00 next, c 02 14:00 next, d 02 15:00 next, finished 02 15:00', 'all of them');
SELECT is(crm.tick(), 0, 'nothing is left');

-- two enrolments of one contact go in the order of their due times; things that are given go to who is due first
SELECT pg_temp.publish('first', 'a', '{"a": {"kind": "wait", "for": "2 hours", "next": "b"}, "b": {"kind": "set", "fields": {"city": "Bonn"}, "next": "c"}, "c": {"kind": "wait", "for": "2 hours", "next": "d"}, "d": {"kind": "set", "fields": {"city": "Kiel"}}}'),
       pg_temp.publish('second', 'a', '{"a": {"kind": "wait", "for": "3 hours", "next": "b"}, "b": {"kind": "set", "fields": {"city": "Jena"}}}'),
       pg_temp.publish('third', 'a', '{"a": {"kind": "wait", "for": "1 hour", "next": "b"}, "b": {"kind": "set", "fields": {"city": "Gera"}, "next": "c"}, "c": {"kind": "wait", "for": "4 hours", "next": "d"}, "d": {"kind": "set", "fields": {"city": "Suhl"}}}') \g /dev/null
SELECT crm.enrol(11, j) FROM unnest('{first,second,third}'::text[]) j \g /dev/null
SELECT crm.tick('2026-03-07 12:00Z') \g /dev/null
SELECT is((SELECT string_agg(properties ->> 'new', ' ' ORDER BY event_id) FROM crm.event WHERE contact_id = 11 AND kind = 'field_change' AND properties ->> 'field' = 'city'), 'Gera Bonn Jena Kiel Suhl', 'in the order of their due times');
SELECT crm.define_coupon('{"name": "few", "codes": "pool"}') \g /dev/null
INSERT INTO crm.coupon_code (coupon, code) VALUES ('few', 'A'), ('few', 'B');
SELECT pg_temp.publish('gift', 'a', '{"a": {"kind": "wait", "date": "entry.at", "next": "b"}, "b": {"kind": "coupon", "coupon": "few", "on_failed": "none"}, "none": {"kind": "exit", "reason": "none"}}', '{"entry": [{"on": "wish"}]}') \g /dev/null
INSERT INTO crm.event (contact_id, kind, properties) VALUES (12, 'wish', '{"at": "2026-03-09 12:00Z"}'), (13, 'wish', '{"at": "2026-03-08 12:00Z"}'), (14, 'wish', '{"at": "2026-03-07 13:00Z"}');
SELECT crm.tick('2026-03-10 12:00Z') \g /dev/null
SELECT is((SELECT string_agg(coalesce(e.context ->> 'coupon', e.end_reason), ' ' ORDER BY contact_id) FROM crm.enrolment e WHERE journey = 'gift'), 'none B A', 'who is due first is served first');

-- ---- waits in the past go on at once; a wait for a time of the day alone is for the next one
SELECT pg_temp.at('2026-03-10 12:00Z') \g /dev/null
SELECT pg_temp.publish('past', 'a', '{"a": {"kind": "wait", "until": "2026-03-01T00:00Z", "next": "b"}, "b": {"kind": "wait", "date": "created_at", "offset": "1 day", "next": "c"}, "c": {"kind": "wait", "date": "entry.none", "next": "d"}, "d": {"kind": "wait", "for": "0 s", "next": "e"}, "e": {"kind": "wait", "until": "2026-03-10T12:00Z", "next": "f"}, "f": {"kind": "exit"}}') \g /dev/null
SELECT crm.enrol(15, 'past') \g /dev/null
SELECT is(pg_temp.way(15, 'past'), 'a 10 12:00 next, b 10 12:00 next, c 10 12:00 next, d 10 12:00 next, e 10 12:00 next, f 10 12:00 next, finished 10 12:00', 'past, or no date at all');
SELECT pg_temp.publish('daily', 'a', '{"a": {"kind": "wait", "at": "20:00", "next": "b"}, "b": {"kind": "tag", "add": ["daily"], "next": "a"}}') \g /dev/null
SELECT crm.enrol(16, 'daily') \g /dev/null
SELECT crm.tick('2026-03-12 13:00Z') \g /dev/null
SELECT is(pg_temp.way(16, 'daily'), 'a 10 12:00 next, b 11 12:00 next, a 11 12:00 next, b 12 12:00 next, a 12 12:00', 'at alone is after now: a circle through it does not spin');
SELECT is((SELECT due_at FROM crm.enrolment WHERE contact_id = 16), '2026-03-13 12:00Z', 'and waits for the next day');
SELECT crm.unenrol(16, 'daily') \g /dev/null
SELECT is_empty('SELECT * FROM pg_temp.unbalanced()', 'the balance');

-- ---- clocks that are put forward and back; the contact's zone comes before the account's
INSERT INTO crm.account (kind, name, time_zone) VALUES ('official_account', 'berlin', 'Europe/Berlin'), ('official_account', 'york', 'America/New_York');
CREATE FUNCTION pg_temp.ends(account text, at timestamptz, wait jsonb, zone text DEFAULT NULL) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE c bigint; due timestamptz; day text;
BEGIN
	day := wait ->> 'day';
	PERFORM pg_temp.at(at);
	INSERT INTO crm.contact (created_at, time_zone) VALUES ('2025-01-01', zone) RETURNING contact_id INTO c;
	PERFORM pg_temp.publish('zone', 'a', jsonb_build_object('a', '{"kind": "wait", "next": "b"}'::jsonb || wait - 'day', 'b', '{"kind": "exit"}'::jsonb),
		jsonb_build_object('account', account, 'entry', '[{"on": "zone"}]'::jsonb));
	PERFORM crm.track(c, 'zone', CASE WHEN day IS NULL THEN '{}' ELSE jsonb_build_object('day', day) END);
	SELECT coalesce(due_at, ended_at) INTO due FROM crm.enrolment WHERE contact_id = c;
	RETURN due;
END $$;
-- Berlin: on 2026-03-29 02:00 is 03:00, on 2026-10-25 03:00 is 02:00; New York: on 2026-03-08, and on 2026-11-01 an hour earlier
SELECT is(pg_temp.ends(account, at::timestamptz, wait::jsonb, zone), ends::timestamptz, concat_ws(' ', account, at, wait, zone)) FROM (VALUES
    ('berlin', '2026-03-28 12:00Z', '{"at": "02:30"}', NULL, '2026-03-29 01:30Z'), -- shown as 03:30
    ('berlin', '2026-03-29 01:30Z', '{"at": "02:30"}', NULL, '2026-03-30 00:30Z'),
    ('berlin', '2026-03-28 12:00Z', '{"at": "03:00"}', NULL, '2026-03-29 01:00Z'),
    ('berlin', '2026-03-28 12:00Z', '{"for": "1 day"}', NULL, '2026-03-29 11:00Z'), -- a day of the calendar
    ('berlin', '2026-03-28 12:00Z', '{"for": "24 hours"}', NULL, '2026-03-29 12:00Z'),
    ('berlin', '2026-03-29 00:59Z', '{"hours": "Mo-Su 02:00-03:00"}', NULL, '2026-03-30 00:00Z'), -- an hour that there is not
    ('berlin', '2026-03-28 22:00Z', '{"hours": "Mo-Su 01:00-04:00"}', NULL, '2026-03-29 00:00Z'),
    ('berlin', '2026-10-24 12:00Z', '{"at": "02:30"}', NULL, '2026-10-25 01:30Z'), -- the second time
    ('berlin', '2026-10-25 00:30Z', '{"at": "02:30"}', NULL, '2026-10-25 01:30Z'),
    ('berlin', '2026-10-25 01:30Z', '{"at": "02:30"}', NULL, '2026-10-26 01:30Z'),
    ('berlin', '2026-10-24 12:00Z', '{"for": "1 day"}', NULL, '2026-10-25 13:00Z'),
    ('berlin', '2026-10-24 21:00Z', '{"hours": "Mo-Su 02:00-03:00"}', NULL, '2026-10-25 00:00Z'),
    ('berlin', '2026-10-25 00:30Z', '{"hours": "Mo-Su 02:00-03:00"}', NULL, '2026-10-25 00:30Z'),
    ('berlin', '2026-10-25 01:30Z', '{"hours": "Mo-Su 02:00-03:00"}', NULL, '2026-10-25 01:30Z'), -- open both times
    ('york', '2026-03-07 12:00Z', '{"at": "02:30"}', NULL, '2026-03-08 07:30Z'),
    ('york', '2026-03-07 12:00Z', '{"for": "1 day", "at": "02:00"}', NULL, '2026-03-09 06:00Z'),
    ('york', '2026-10-31 12:00Z', '{"at": "01:30"}', NULL, '2026-11-01 06:30Z'),
    ('york', '2026-10-31 12:00Z', '{"for": "1 day"}', NULL, '2026-11-01 13:00Z'),
    ('york', '2026-03-07 12:00Z', '{"at": "09:00"}', 'Europe/Berlin', '2026-03-08 08:00Z'),
    ('york', '2026-03-06 12:00Z', '{"hours": "Mo-Fr 10:00-19:00"}', 'Europe/Berlin', '2026-03-06 12:00Z'),
    ('york', '2026-03-06 12:00Z', '{"hours": "Mo-Fr 10:00-19:00"}', NULL, '2026-03-06 15:00Z'),
    ('york', '2026-03-06 23:00Z', '{"for": "2 hours", "hours": "Mo-Fr 10:00-19:00"}', NULL, '2026-03-09 14:00Z'),
    ('york', '2026-03-06 12:00Z', '{"date": "entry.day", "day": "2026-03-08"}', NULL, '2026-03-08 05:00Z'),
    ('york', '2026-03-06 12:00Z', '{"date": "entry.day", "day": "2026-03-08"}', 'Europe/Berlin', '2026-03-07 23:00Z'),
    ('york', '2026-03-06 12:00Z', '{"date": "entry.day", "day": "2026-03-08", "at": "02:30"}', NULL, '2026-03-08 07:30Z'),
    ('york', '2026-03-06 12:00Z', '{"date": "entry.day", "day": "2026-03-08", "offset": "1 day", "at": "09:00"}', NULL, '2026-03-09 13:00Z'),
    ('york', '2026-03-06 12:00Z', '{"date": "entry.day", "day": "2026-03-08", "offset": "-1 day", "hours": "Su 12:00-13:00"}', NULL, '2026-03-08 16:00Z'),
    ('york', '2026-03-06 12:00Z', '{"date": "entry.day", "day": "2026-03-08T10:15+01:00"}', NULL, '2026-03-08 09:15Z'),
    ('berlin', '2026-03-06 12:00Z', '{"until": "2026-03-08T10:15:00Z", "at": "12:00"}', NULL, '2026-03-08 11:00Z'),
    ('berlin', '2026-03-06 12:00Z', '{"until": "2026-03-01T10:15:00Z", "at": "12:00"}', NULL, '2026-03-07 11:00Z')) AS t(account, at, wait, zone, ends);
SELECT crm.set_journey('zone', 'cancelled') \g /dev/null

-- ---- wait_for
SELECT pg_temp.at('2026-04-01 12:00Z') \g /dev/null
SELECT crm.tick('2026-04-01 12:00Z') \g /dev/null
SELECT pg_temp.publish('fact', 'a', '{"a": {"kind": "wait", "for": "1 hour", "next": "b"}, "b": {"kind": "wait_for", "on": "go", "when": "coalesce(fact.properties ->> ''ok'', ''yes'') = ''yes''", "within": "2 hours", "next": "good", "on_timeout": "over"},
    "good": {"kind": "exit", "reason": "good"}, "over": {"kind": "exit", "reason": "over"}}', '{"entry": [{"on": "go"}]}') \g /dev/null
CREATE FUNCTION pg_temp.go(contact bigint, recorded timestamptz, occurred timestamptz DEFAULT NULL, ok text DEFAULT 'yes') RETURNS void LANGUAGE sql AS
$$SELECT pg_temp.at(recorded); SELECT crm.track(contact, 'came', jsonb_build_object('ok', ok), coalesce(occurred, recorded))$$;
CREATE FUNCTION pg_temp.into_fact(VARIADIC contacts bigint[]) RETURNS void LANGUAGE sql AS
$$SELECT pg_temp.at('2026-04-01 12:00Z'); SELECT crm.track(c, 'go') FROM unnest(contacts) c$$;
-- as entries are on go, too, what is waited for is another kind from here on
SELECT pg_temp.publish('fact', 'a', '{"a": {"kind": "wait", "for": "1 hour", "next": "b"}, "b": {"kind": "wait_for", "on": "came", "when": "coalesce(fact.properties ->> ''ok'', ''yes'') = ''yes''", "within": "2 hours", "next": "good", "on_timeout": "over"},
    "good": {"kind": "exit", "reason": "good"}, "over": {"kind": "exit", "reason": "over"}}', '{"entry": [{"on": "go"}, {"on": "came", "when": "fact.properties @> ''{\"in\": 1}''"}]}') \g /dev/null
SELECT pg_temp.into_fact(20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34) \g /dev/null
SELECT crm.track(35, 'came', '{"in": 1}') \g /dev/null
SELECT pg_temp.go(20, '2026-04-01 12:30Z'), pg_temp.go(21, '2026-04-01 12:30Z', '2026-04-01 11:59:59Z'), pg_temp.go(22, '2026-04-01 12:30Z', '2026-04-01 12:00Z'), pg_temp.go(23, '2026-04-01 12:30Z', ok => 'no') \g /dev/null
SELECT crm.tick('2026-04-01 13:00Z') \g /dev/null
SELECT is(pg_temp.way(20, 'fact'), 'a 01 12:00 next, b 01 13:00 next, good 01 13:00 next, finished good 01 13:00', 'before the wait, and after the entry');
SELECT is(pg_temp.way(21, 'fact'), 'a 01 12:00 next, b 01 13:00', 'before the entry');
SELECT is(pg_temp.way(22, 'fact'), 'a 01 12:00 next, b 01 13:00 next, good 01 13:00 next, finished good 01 13:00', 'at the moment of the entry');
SELECT is(pg_temp.way(23, 'fact'), 'a 01 12:00 next, b 01 13:00', 'another one');
SELECT is(pg_temp.way(35, 'fact'), 'a 01 12:00 next, b 01 13:00', 'the fact that let in does not count');
SELECT pg_temp.go(24, '2026-04-01 15:00Z'), pg_temp.go(25, '2026-04-01 15:00:01Z'), pg_temp.go(26, '2026-04-01 15:10Z', '2026-04-01 14:59Z'), pg_temp.go(27, '2026-04-01 15:10Z', '2026-04-01 15:00Z'), pg_temp.go(28, '2026-04-01 13:30Z'), pg_temp.go(23, '2026-04-01 13:40Z', ok => 'no'), pg_temp.go(23, '2026-04-01 13:50Z') \g /dev/null
SELECT is(pg_temp.way(24, 'fact'), 'a 01 12:00 next, b 01 13:00 next, good 01 15:00 next, finished good 01 15:00', 'at the deadline itself it wins');
SELECT is(pg_temp.way(25, 'fact'), 'a 01 12:00 next, b 01 13:00', 'after it it does not');
SELECT is(pg_temp.way(26, 'fact'), 'a 01 12:00 next, b 01 13:00 next, good 01 15:10 next, finished good 01 15:10', 'in time, and recorded before the timeout was taken');
SELECT is(pg_temp.way(27, 'fact'), 'a 01 12:00 next, b 01 13:00 next, good 01 15:10 next, finished good 01 15:10', 'the same at the deadline');
SELECT is(pg_temp.way(28, 'fact'), 'a 01 12:00 next, b 01 13:00 next, good 01 13:30 next, finished good 01 13:30', 'while it waits');
SELECT is(pg_temp.way(23, 'fact'), 'a 01 12:00 next, b 01 13:00 next, good 01 13:50 next, finished good 01 13:50', 'the first one that holds');
SELECT crm.tick('2026-04-01 15:30Z') \g /dev/null
SELECT is(pg_temp.way(25, 'fact'), 'a 01 12:00 next, b 01 13:00 timeout, over 01 15:00 next, finished over 01 15:00', 'the timeout is at the deadline');
SELECT pg_temp.go(29, '2026-04-01 15:40Z', '2026-04-01 14:00Z') \g /dev/null
SELECT is(pg_temp.way(29, 'fact'), 'a 01 12:00 next, b 01 13:00 timeout, over 01 15:00 next, finished over 01 15:00', 'what is recorded after that changes nothing');
-- a late tick through both steps
SELECT pg_temp.at('2026-04-02 12:00Z') \g /dev/null
SELECT crm.track(c, 'go') FROM generate_series(40, 46) c \g /dev/null
SELECT pg_temp.go(40, '2026-04-02 14:00Z'), pg_temp.go(41, '2026-04-02 15:00Z'), pg_temp.go(42, '2026-04-02 15:30Z'), pg_temp.go(43, '2026-04-02 15:30Z', '2026-04-02 14:00Z'), pg_temp.go(44, '2026-04-02 15:20Z', '2026-04-02 12:10Z'), pg_temp.go(44, '2026-04-02 14:10Z', '2026-04-02 14:05Z'), pg_temp.go(45, '2026-04-02 12:00Z') \g /dev/null
SELECT crm.tick('2026-04-02 16:00Z') \g /dev/null
SELECT results_eq($$SELECT c, substr(pg_temp.way(c, 'fact'), 29) FROM generate_series(40, 46) c$$, $$VALUES
    (40, 'next, good 02 14:00 next, finished good 02 14:00'), (41, 'next, good 02 15:00 next, finished good 02 15:00'), (42, 'timeout, over 02 15:00 next, finished over 02 15:00'),
    (43, 'next, good 02 15:30 next, finished good 02 15:30'), (44, 'next, good 02 14:10 next, finished good 02 14:10'), (45, 'next, good 02 13:00 next, finished good 02 13:00'),
    (46, 'timeout, over 02 15:00 next, finished over 02 15:00')$$, 'a late tick: what happened in time counts when it was recorded');
SELECT is_empty('SELECT * FROM pg_temp.unbalanced()', 'the balance');

-- since the step before: each fact moves once
SELECT pg_temp.at('2026-04-03 12:00Z') \g /dev/null
SELECT pg_temp.publish('three', 'a', '{"a": {"kind": "wait_for", "on": "tea", "within": "1 day", "since": "step", "next": "b"}, "b": {"kind": "wait_for", "on": "tea", "within": "1 day", "since": "step", "next": "c"}, "c": {"kind": "wait_for", "on": "tea", "within": "1 day", "since": "step", "next": "d"}, "d": {"kind": "exit"}}', '{"entry": [{"on": "guest"}]}'),
       pg_temp.publish('once', 'a', '{"a": {"kind": "wait_for", "on": "tea", "within": "1 day", "next": "b"}, "b": {"kind": "wait_for", "on": "tea", "within": "1 day", "next": "c"}, "c": {"kind": "exit"}}', '{"entry": [{"on": "guest"}]}'),
       pg_temp.publish('round', 'a', '{"a": {"kind": "wait_for", "on": "tea", "within": "1 day", "since": "step", "next": "b", "on_timeout": null}, "b": {"kind": "tag", "add": ["tea"], "next": "a"}}', '{"entry": [{"on": "guest"}]}'),
       pg_temp.publish('until now', 'a', '{"a": {"kind": "wait_for", "on": "cake", "within": "1 day", "next": "b"}, "b": {"kind": "wait_for", "on": "tea", "within": "1 day", "since": "step", "next": "c"}, "c": {"kind": "exit"}}', '{"entry": [{"on": "guest"}]}') \g /dev/null
CREATE FUNCTION pg_temp.step(contact bigint) RETURNS text LANGUAGE sql AS
$$SELECT string_agg(e.journey || ' ' || CASE state WHEN 'active' THEN step ELSE state END || coalesce(' ' || stuck, '') || CASE journey WHEN 'round' THEN ' ' || visit ELSE '' END, ', ' ORDER BY enrolment_id) FROM crm.enrolment e WHERE contact_id = contact AND entered_by = 'guest'$$;
SELECT crm.track(c, 'guest') FROM generate_series(50, 56) c \g /dev/null
SELECT pg_temp.at('2026-04-03 12:01Z') \g /dev/null
SELECT crm.track(c, 'tea') FROM generate_series(50, 52) c \g /dev/null
SELECT is(pg_temp.step(50), 'once finished, round a 3, three b, until now a', 'a fact moves to the next wait and not past it; since the entry it does');
SELECT crm.track(50, 'tea') \g /dev/null
SELECT is(pg_temp.step(50), 'once finished, round a 5, three c, until now a', 'a second one of the same moment');
INSERT INTO crm.event (contact_id, kind) VALUES (53, 'tea'), (53, 'tea');
SELECT is(pg_temp.step(53), pg_temp.step(50), 'two of one statement are the same');
INSERT INTO crm.event (contact_id, kind) VALUES (54, 'tea'), (54, 'tea'), (54, 'tea'), (54, 'cake');
SELECT is(pg_temp.step(54), 'once finished, round a 7, three finished, until now finished', 'three; and what came before the cake, in the step before');
SELECT crm.track(51, 'cake') \g /dev/null
SELECT is(pg_temp.step(51), 'once finished, round a 3, three b, until now finished', 'one by one');
INSERT INTO crm.event (contact_id, kind) VALUES (55, 'guest'), (55, 'tea'), (55, 'tea');
SELECT crm.track(56, 'guest'), crm.track(56, 'tea'), crm.track(56, 'tea') \g /dev/null
SELECT is((SELECT string_agg(journey || ' ' || step || ' ' || visit, ', ' ORDER BY enrolment_id) FROM crm.enrolment WHERE contact_id = 55), (SELECT string_agg(journey || ' ' || step || ' ' || visit, ', ' ORDER BY enrolment_id) FROM crm.enrolment WHERE contact_id = 56), 'entry and facts of one statement');
SELECT crm.set_journey('three', 'frozen'), crm.set_journey('three', 'open'), crm.set_journey('round', 'frozen'), crm.set_journey('round', 'open') \g /dev/null
SELECT is(pg_temp.step(51), 'once finished, round a 3, three b, until now finished', 'looking back does not find it again');
SELECT is_empty($$SELECT * FROM crm.stuck$$, 'nobody goes round in circles');

-- ---- wait_until
SELECT pg_temp.at('2026-04-05 12:00Z') \g /dev/null
SELECT pg_temp.publish('cond', 'a', '{"a": {"kind": "wait_until", "when": "city = ''Oslo'' OR orders >= 1", "within": "1 day", "next": "good", "on_timeout": "over"}, "good": {"kind": "exit", "reason": "good"}, "over": {"kind": "exit", "reason": "over"}}'),
       pg_temp.publish('grown', 'a', '{"a": {"kind": "wait_until", "when": "as_of - created_at >= interval ''10 hours''", "within": "1 day", "next": "good", "on_timeout": "over"}, "good": {"kind": "exit", "reason": "good"}, "over": {"kind": "exit", "reason": "over"}}') \g /dev/null
UPDATE crm.contact SET city = 'Oslo' WHERE contact_id = 60;
SELECT crm.enrol(c, 'cond') FROM generate_series(60, 65) c \g /dev/null
SELECT is(pg_temp.way(60, 'cond'), 'a 05 12:00 next, good 05 12:00 next, finished good 05 12:00', 'true already');
SELECT pg_temp.at('2026-04-05 13:00Z') \g /dev/null
UPDATE crm.contact SET city = 'Oslo' WHERE contact_id = 61;
SELECT crm.purchase(62, 10, '2026-04-05 12:30Z') \g /dev/null
SELECT is(pg_temp.way(61, 'cond'), 'a 05 12:00 next, good 05 13:00 next, finished good 05 13:00', 'by an UPDATE');
SELECT is(pg_temp.way(62, 'cond'), 'a 05 12:00 next, good 05 13:00 next, finished good 05 13:00', 'by a fact, when it is recorded');
SELECT pg_temp.at('2026-04-06 12:00Z') \g /dev/null
UPDATE crm.contact SET city = 'Oslo' WHERE contact_id = 63;
SELECT is(pg_temp.way(63, 'cond'), 'a 05 12:00 next, good 06 12:00 next, finished good 06 12:00', 'at the very deadline');
SELECT pg_temp.at('2026-04-06 12:01Z') \g /dev/null
UPDATE crm.contact SET city = 'Oslo' WHERE contact_id = 64;
SELECT is(pg_temp.way(64, 'cond'), 'a 05 12:00 timeout, over 06 12:00 next, finished over 06 12:00', 'too late, though nobody has looked: the timeout is taken');
SELECT crm.tick() \g /dev/null
SELECT is(pg_temp.way(65, 'cond'), 'a 05 12:00 timeout, over 06 12:00 next, finished over 06 12:00', 'the timeout');
SELECT is(pg_temp.way(64, 'cond'), 'a 05 12:00 timeout, over 06 12:00 next, finished over 06 12:00', 'for who came too late it stays so');
INSERT INTO crm.contact (contact_id, created_at) VALUES (9101, '2026-04-06 04:00Z'), (9102, '2026-04-05 02:00Z'), (9103, '2026-04-07 02:00Z'), (9104, '2026-04-07 04:00Z'), (9105, '2026-04-07 02:01Z');
SELECT crm.enrol(c, 'grown') FROM generate_series(9101, 9105) c \g /dev/null
SELECT is((SELECT due_at FROM crm.enrolment WHERE contact_id = 9101), '2026-04-06 14:00Z', 'it is looked at again at the moment');
SELECT pg_temp.at('2026-04-08 12:00Z') \g /dev/null
SELECT crm.tick() \g /dev/null
SELECT results_eq($$SELECT c, pg_temp.way(c, 'grown') FROM generate_series(9101, 9105) c$$, $$VALUES (9101, 'a 06 12:01 next, good 06 14:00 next, finished good 06 14:00'), (9102, 'a 06 12:01 next, good 06 12:01 next, finished good 06 12:01'),
    (9103, 'a 06 12:01 next, good 07 12:00 next, finished good 07 12:00'), (9104, 'a 06 12:01 timeout, over 07 12:01 next, finished over 07 12:01'), (9105, 'a 06 12:01 next, good 07 12:01 next, finished good 07 12:01')$$, 'by time alone, at its moment, before the deadline or with it');
SELECT is_empty('SELECT * FROM pg_temp.unbalanced()', 'started = active + finished + exited');
SELECT is_empty('SELECT * FROM crm.verify()', 'all of it sound');
SELECT * FROM finish();
ROLLBACK;
