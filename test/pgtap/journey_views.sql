-- what analysts see of journeys: every number against the tables, and against the rows behind it
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install();
SET TimeZone = 'UTC';
SET pg_crm.clock = '2024-06-30 20:00+08';
\i test/fixtures/journeys.sql
SELECT no_plan();

-- by hand: seven people of whom all is known
INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2024-01-01' FROM generate_series(1, 120) AS n;
INSERT INTO crm.journey_version (journey, version, definition) VALUES ('welcome', 1, three_steps());
INSERT INTO crm.journey (journey, version) VALUES ('welcome', 1);
SELECT results_eq($$SELECT step, kind, entered, here, left_on, ended, drop_off, median_seconds, sent, messages FROM crm.journey_step ORDER BY step$$,
    $$VALUES ('hello', 'send', 0::bigint, 0::bigint, 0::bigint, 0::bigint, NULL::numeric, NULL::float8, 0::bigint, 0::bigint),
             ('offer', 'send', 0, 0, 0, 0, NULL, NULL, 0, 0), ('pause', 'wait', 0, 0, 0, 0, NULL, NULL, 0, 0)$$, 'steps that nobody entered');
SELECT results_eq('SELECT step, outcome, next_step, moves FROM crm.journey_edge ORDER BY step, place',
    $$VALUES ('hello', 'next', 'pause', 0::bigint), ('offer', 'next', NULL, 0), ('offer', 'failed', NULL, 0), ('pause', 'next', 'offer', 0)$$,
    'edges that nobody took');
SELECT results_eq('SELECT journey, version, state, started, active, finished, exited, refused, first_entered_at FROM crm.journey_summary',
    $$VALUES ('welcome', 1, 'open', 0::bigint, 0::bigint, 0::bigint, 0::bigint, 0::bigint, NULL::timestamptz)$$, 'a journey without people');
SELECT is_empty($$SELECT * FROM crm.journey_rows('welcome') UNION ALL SELECT * FROM crm.journey_rows('welcome', 'hello')$$, 'and no rows behind it');
SELECT results_eq($$SELECT version, step, "position", entered, converted, dropped, still_open, median_seconds FROM crm.journey_funnel('welcome', '2024-01-01', '2025-01-01')$$,
    $$VALUES (1, 'hello', 1, 0::bigint, 0::bigint, 0::bigint, 0::bigint, NULL::float8), (1, 'pause', 2, 0, 0, 0, 0, NULL), (1, 'offer', 3, 0, 0, 0, 0, NULL)$$,
    'a funnel of nobody, in the order of the way');

INSERT INTO crm.enrolment (contact_id, enrolment_id, journey, version, key, step, state, end_reason, entered_at, step_at, due_at, ended_at, stuck, entered_by)
SELECT n, n, 'welcome', 1, '', step, state, reason, '2024-03-01'::timestamptz + n * interval '1 day', '2024-04-01', due, ended, stuck, 'follow'
  FROM (VALUES (1, 'offer', 'finished', NULL, NULL::timestamptz, '2024-03-04'::timestamptz, NULL),
               (2, 'offer', 'finished', NULL, NULL, '2024-03-05', NULL),
               (3, 'pause', 'exited', 'goal', NULL, '2024-03-05', NULL),
               (4, 'pause', 'exited', 'rule', NULL, '2024-03-06', NULL),
               (5, 'pause', 'active', NULL, '2024-03-07', NULL, NULL),
               (6, 'hello', 'active', NULL, NULL, NULL, 'no account sends sms'),
               (7, 'hello', 'active', NULL, '2024-07-01', NULL, NULL)) AS t(n, step, state, reason, due, ended, stuck);
INSERT INTO crm.message (contact_id, message_id, account_id, template, template_version, channel, class, state)
VALUES (1, 1, 1, 'hello', 1, 'sms', 'service', 'sent'), (1, 2, 1, 'offer', 1, 'sms', 'service', 'failed'),
       (2, 3, 1, 'hello', 1, 'sms', 'service', 'sending'), (3, 4, 1, 'hello', 1, 'sms', 'service', 'waiting');
INSERT INTO crm.step_visit (contact_id, enrolment_id, visit, version, journey, step, entered_at, left_at, outcome, next_step, message_id)
SELECT n, n, visit, 1, 'welcome', step, '2024-03-01'::timestamptz + n * interval '1 day' + visit * interval '1 hour',
       '2024-03-01'::timestamptz + n * interval '1 day' + visit * interval '1 hour' + minutes * interval '1 minute', outcome, next_step, message
  FROM (VALUES (1, 1, 'hello', 10, 'next', 'pause', 1), (1, 2, 'pause', 60, 'next', 'offer', NULL), (1, 3, 'offer', 5, 'failed', NULL, 2),
               (2, 1, 'hello', 20, 'next', 'pause', 3), (2, 2, 'pause', 60, 'next', 'offer', NULL), (2, 3, 'offer', 5, 'next', NULL, NULL),
               (3, 1, 'hello', 30, 'next', 'pause', 4), (3, 2, 'pause', 10, 'goal', NULL, NULL),
               (4, 1, 'hello', 40, 'next', 'pause', NULL), (4, 2, 'pause', 10, 'rule', NULL, NULL),
               (5, 1, 'hello', 50, 'next', 'pause', NULL), (5, 2, 'pause', NULL, NULL, NULL, NULL),
               (6, 1, 'hello', NULL, NULL, NULL, NULL), (7, 1, 'hello', NULL, NULL, NULL, NULL)) AS t(n, visit, step, minutes, outcome, next_step, message);
INSERT INTO crm.refusal (contact_id, kind, object, reason, day, refusals, first_at, last_at)
VALUES (1, 'journey', 'welcome', 'once', '2024-03-09', 3, '2024-03-09', '2024-03-09'), (2, 'journey', 'welcome', 'late', '2024-03-09', 1, '2024-03-09', '2024-03-09'),
       (1, 'journey', 'other', 'once', '2024-03-09', 9, '2024-03-09', '2024-03-09');
SELECT results_eq($$SELECT started, active, finished, exited, exited_goal, exited_rule, exited_unenrolled, stuck, refused, first_entered_at, last_entered_at FROM crm.journey_summary$$,
    $$VALUES (7::bigint, 3::bigint, 2::bigint, 2::bigint, 1::bigint, 1::bigint, 0::bigint, 1::bigint, 4::bigint, '2024-03-02'::timestamptz, '2024-03-08'::timestamptz)$$, 'the summary');
SELECT results_eq($$SELECT step, entered, here, left_on, ended, drop_off, median_seconds, p90_seconds, queued, sent, failed, waiting, messages, ended_goal FROM crm.journey_step ORDER BY step$$,
    $$VALUES ('hello', 7::bigint, 2::bigint, 5::bigint, 0::bigint, 0::numeric, 1800::float8, 2760::float8, 1::bigint, 1::bigint, 0::bigint, 1::bigint, 3::bigint, 0::bigint),
             ('offer', 2, 0, 2, 0, 0, 300, 300, 0, 0, 1, 0, 1, 0), ('pause', 5, 1, 2, 2, 0.5, 2100, 3600, 0, 0, 0, 0, 0, 1)$$, 'the steps');
SELECT results_eq('SELECT step, outcome, next_step, moves FROM crm.journey_edge ORDER BY step, place',
    $$VALUES ('hello', 'next', 'pause', 5::bigint), ('offer', 'next', NULL, 1), ('offer', 'failed', NULL, 1), ('pause', 'next', 'offer', 2)$$, 'the edges');
SELECT results_eq($$SELECT step, "position", entered, converted, dropped, still_open, median_seconds FROM crm.journey_funnel('welcome', '2024-03-02', '2024-03-07')$$,
    $$VALUES ('hello', 1, 5::bigint, 5::bigint, 0::bigint, 0::bigint, 1800::float8), ('pause', 2, 5, 2, 2, 1, 2100), ('offer', 3, 2, 2, 0, 0, 300)$$,
    'the funnel: the period has its first moment and not its last');
SELECT results_eq($$SELECT step, entered FROM crm.journey_funnel('welcome', '2024-03-02 02:30', '2024-03-04 01:30', 'event')$$,
    $$VALUES ('hello', 2::bigint), ('pause', 1), ('offer', 2)$$, 'by the time of the step');
SELECT results_eq($$SELECT contact_id, outcome, times FROM crm.journey_rows('welcome', counted => 'refused') ORDER BY 1$$,
    $$VALUES (1::bigint, 'once', 3::bigint), (2, 'late', 1)$$, 'refusals with their number');

-- stuck, and gaps
SELECT results_eq('SELECT kind, contact_id, object, enrolment_id, step, since, reason FROM crm.stuck',
    $$VALUES ('enrolment', 6::bigint, 'welcome', 6::bigint, 'hello', '2024-04-01'::timestamptz, 'no account sends sms')$$, 'who is stuck');
UPDATE crm.enrolment SET due_at = NULL WHERE contact_id IN (5, 7);
UPDATE crm.enrolment SET message_id = 99 WHERE contact_id = 7;
INSERT INTO crm.enrolment (contact_id, enrolment_id, journey, version, step, entered_at, step_at, entered_by)
VALUES (8, 8, 'welcome', 1, 'gone', now(), now(), 'api'), (9, 9, 'welcome', 2, 'hello', now(), now(), 'api');
INSERT INTO crm.rule_error VALUES (1, 'segment', 'rich', '2024-06-30', 2, '2024-06-30 19:00+08', '2024-06-30 19:30+08', '22012', 'division by zero'),
    (2, 'segment', 'rich', '2024-06-30', 1, '2024-06-30 18:00+08', '2024-06-30 18:00+08', '22012', 'division by zero'),
    (2, 'segment', 'old', '2024-06-01', 1, '2024-06-01', '2024-06-01', '22012', 'division by zero');
SELECT set_eq($$SELECT kind, contact_id, object, step, reason FROM crm.stuck WHERE kind <> 'enrolment'$$,
    $$VALUES ('standstill', 5::bigint, 'welcome', 'pause', 'no_deadline'), ('standstill', 7, 'welcome', 'hello', 'no_message'),
             ('standstill', 8, 'welcome', 'gone', 'no_step'), ('standstill', 9, 'welcome', 'hello', 'no_step'),
             ('rule', NULL, 'segment rich', NULL, 'failed for 2 contacts with SQLSTATE 22012')$$, 'what nothing can move, and rules that failed');
INSERT INTO crm.message (contact_id, message_id, account_id, template, template_version, channel, class, state) VALUES (7, 99, 1, 'x', 1, 'sms', 'service', 'queued');
UPDATE crm.enrolment SET state = 'exited', end_reason = 'stranded', ended_at = '2024-05-01' WHERE contact_id IN (8, 9);
UPDATE crm.enrolment SET due_at = '2024-07-01' WHERE contact_id = 5;
SELECT is_empty($$SELECT * FROM crm.stuck WHERE kind = 'standstill'$$, 'what waits for a message or a time is not at a standstill');
SELECT set_eq('SELECT contact_id, last_journey, last_ended_at FROM crm.journey_gap WHERE contact_id <= 10',
    $$VALUES (1::bigint, 'welcome', '2024-03-04'::timestamptz), (2, 'welcome', '2024-03-05'), (3, 'welcome', '2024-03-05'), (4, 'welcome', '2024-03-06'),
             (8, 'welcome', '2024-05-01'), (9, 'welcome', '2024-05-01'), (10, NULL, NULL)$$, 'contacts in no journey');
SELECT is((SELECT count(*) FROM crm.journey_gap), 117::bigint, 'all but the three who are in one');

-- at random, two versions of one journey among them
SELECT setval(pg_get_serial_sequence('crm.enrolment', 'enrolment_id'), 1000), setval(pg_get_serial_sequence('crm.message', 'message_id'), 1000) \gset
SELECT diag('seed ' || seed) FROM (SELECT round(random() * 1000)::text AS seed) AS s, LATERAL (SELECT setseed(seed::numeric / 1000)) AS t;
SELECT walk_journey(twelve_steps(), 120);
SELECT walk_journey(twelve_steps(), 80);
SELECT walk_journey(sixty_steps(), 60);
SELECT walk_journey(chinese_steps(), 120);
SELECT walk_journey(one_step(), 3);
SELECT is_empty('SELECT * FROM crm.journey_summary WHERE started <> active + finished + exited
    OR exited <> exited_goal + exited_rule + exited_unenrolled + exited_cancelled + exited_merged + exited_erased + exited_stranded',
    'started = active + finished + exited, and exited by reasons');
SELECT is((SELECT sum(started) FROM crm.journey_summary)::bigint, (SELECT count(*) FROM crm.enrolment), 'everybody is counted');
SELECT set_eq('SELECT journey, started, active, exited_goal FROM crm.journey_summary',
    $$SELECT j.journey, (SELECT count(*) FROM crm.enrolment AS e WHERE e.journey = j.journey) AS started,
             (SELECT count(*) FROM crm.enrolment AS e WHERE e.journey = j.journey AND e.state = 'active') AS active,
             (SELECT count(*) FROM crm.enrolment AS e WHERE e.journey = j.journey AND e.end_reason = 'goal') AS goal FROM crm.journey AS j$$, 'as the tables say');
SELECT is_empty('SELECT * FROM crm.journey_step WHERE entered <> here + left_on + ended', 'entered = here + left_on + ended');
SELECT is_empty('SELECT * FROM crm.journey_step WHERE messages <> queued + waiting + sent + refused + failed + expired + cancelled + unknown', 'messages by state');
SELECT set_eq($$SELECT journey, version, step, kind, label, entered, here, ended, messages FROM crm.journey_step$$,
    $$SELECT v.journey, v.version, s.key, s.value ->> 'kind' AS kind, s.value ->> 'label' AS label,
             (SELECT count(*) FROM crm.step_visit AS n WHERE (n.journey, n.version, n.step) = (v.journey, v.version, s.key)) AS a,
             (SELECT count(*) FROM crm.step_visit AS n WHERE (n.journey, n.version, n.step) = (v.journey, v.version, s.key) AND n.left_at IS NULL) AS b,
             (SELECT count(*) FROM crm.enrolment AS n WHERE (n.journey, n.version, n.step) = (v.journey, v.version, s.key) AND n.state = 'exited') AS c,
             (SELECT count(n.message_id) FROM crm.step_visit AS n WHERE (n.journey, n.version, n.step) = (v.journey, v.version, s.key)) AS d
        FROM crm.journey_version AS v, jsonb_each(v.definition -> 'steps') AS s$$, 'steps as the tables say');
SELECT set_eq($$SELECT journey, sum(here)::bigint FROM crm.journey_step GROUP BY 1$$, 'SELECT journey, active FROM crm.journey_summary', 'who is active is at a step');
SELECT set_eq($$SELECT journey, version, step, sum(moves)::bigint FROM crm.journey_edge GROUP BY 1, 2, 3$$,
    'SELECT journey, version, step, left_on FROM crm.journey_step', 'edges of a step are what left it');
SELECT set_eq($$SELECT journey, sum(moves)::bigint FROM crm.journey_edge WHERE next_step IS NULL GROUP BY 1$$,
    'SELECT journey, finished FROM crm.journey_summary', 'edges that lead nowhere are the finished');
SELECT set_eq($$SELECT e.journey, e.version, e.next_step, sum(moves)::bigint FROM crm.journey_edge AS e WHERE e.next_step IS NOT NULL GROUP BY 1, 2, 3$$,
    $$SELECT s.journey, s.version, s.step, s.entered - CASE WHEN s.step = v.definition ->> 'start' THEN
             (SELECT count(*) FROM crm.enrolment AS n WHERE (n.journey, n.version) = (s.journey, s.version) AND n.visit > 0) ELSE 0 END
        FROM crm.journey_step AS s JOIN crm.journey_version AS v USING (journey, version)
       WHERE EXISTS (SELECT FROM crm.journey_edge AS e WHERE (e.journey, e.version, e.next_step) = (s.journey, s.version, s.step))
         AND s.journey <> 'welcome'
       UNION ALL VALUES ('welcome', 1, 'pause', 5::bigint), ('welcome', 1, 'offer', 2)$$,
    'whoever enters a step came by an edge, or began there');
SELECT is((SELECT count(*) FROM crm.journey_edge WHERE journey = 'spring' AND version = 2), 23::bigint, 'each edge is there once');
SELECT results_eq($$SELECT outcome, next_step, rule FROM crm.journey_edge WHERE journey = 'spring' AND version = 2 AND step IN ('ab', 'who') ORDER BY step, place$$,
    $$VALUES ('card', 'card', NULL), ('goal', 'cart', NULL), ('video', 'video', NULL), ('1', 'coupon_big', 'spend >= 1000'),
             ('2', 'ab', 'orders > 0 AND last_order_at > as_of - interval ''90 days'''), ('default', 'ask_mobile', NULL)$$, 'arms and branches, in order');
SELECT set_eq($$SELECT outcome, moves FROM crm.journey_edge WHERE journey = 'spring' AND version = 2 AND step = 'ab'$$,
    $$SELECT arm, count(*) FROM crm.step_visit WHERE journey = 'spring' AND version = 2 AND outcome = 'arm' GROUP BY 1$$, 'an arm may be called goal');

-- the rows behind every number
CREATE FUNCTION pg_temp.numbers(view text, columns text[]) RETURNS TABLE (row_of jsonb, counted text, number bigint) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE format('SELECT to_jsonb(v), c.name, (to_jsonb(v) ->> c.name)::bigint FROM %s AS v, unnest($1) AS c(name)', view) USING columns;
END $$;
SELECT is_empty($$SELECT n.* FROM pg_temp.numbers('crm.journey_summary', '{started,active,finished,exited,exited_goal,exited_rule,exited_unenrolled,exited_cancelled,exited_merged,exited_erased,exited_stranded,stuck,refused}') AS n
    WHERE n.number <> (SELECT COALESCE(sum(r.times), 0) FROM crm.journey_rows(n.row_of ->> 'journey', counted => n.counted) AS r)$$, 'of journey_summary');
SELECT is_empty($$SELECT n.* FROM pg_temp.numbers('(SELECT * FROM crm.journey_step WHERE journey <> ''programme'')', '{entered,here,left_on,ended,ended_goal,messages,queued,waiting,sent,refused,failed,expired,cancelled,unknown}') AS n
    WHERE n.number <> (SELECT COALESCE(sum(r.times), 0) FROM crm.journey_rows(n.row_of ->> 'journey', n.row_of ->> 'step', version => (n.row_of ->> 'version')::integer, counted => n.counted) AS r)$$, 'of journey_step');
SELECT is_empty($$SELECT n.* FROM pg_temp.numbers('(SELECT * FROM crm.journey_edge WHERE journey <> ''programme'')', '{moves}') AS n
    WHERE n.number <> (SELECT COALESCE(sum(r.times), 0) FROM crm.journey_rows(n.row_of ->> 'journey', n.row_of ->> 'step', n.row_of ->> 'outcome', (n.row_of ->> 'version')::integer, n.counted) AS r
                        WHERE r.next_step IS NOT DISTINCT FROM n.row_of ->> 'next_step')$$, 'of journey_edge');
SELECT is_empty(format($$SELECT n.* FROM pg_temp.numbers('crm.journey_funnel(''spring'', ''2024-03-11'', ''2024-04-20'', %1$s, %2$s)', '{entered,converted,dropped,still_open}') AS n
    WHERE n.number <> (SELECT COALESCE(sum(r.times), 0) FROM crm.journey_rows('spring', n.row_of ->> 'step', NULL, (n.row_of ->> 'version')::integer, n.counted, '2024-03-11', '2024-04-20', %3$s, %4$s) AS r)$$,
        replace(quote_literal(by_time), '''', ''''''), replace(quote_nullable(filter), '''', ''''''), quote_literal(by_time), quote_nullable(filter)), 'of journey_funnel by ' || by_time || COALESCE(' where ' || filter, ''))
  FROM (VALUES ('entry', NULL), ('event', NULL), ('entry', 'contact_id < 50'), ('event', 'contact_id < 50')) AS t(by_time, filter);

-- funnels by themselves
SELECT set_eq($$SELECT version, step, entered, converted, dropped, still_open FROM crm.journey_funnel('spring', '2024-03-11', '2024-04-20') WHERE entered > 0$$,
    $$SELECT version, step, count(*) AS a, count(*) FILTER (WHERE state = 'left') AS b, count(*) FILTER (WHERE state = 'ended') AS c, count(*) FILTER (WHERE state = 'here') AS d
        FROM (SELECT DISTINCT ON (v.enrolment_id, v.step) v.* FROM crm.journey_visit AS v JOIN crm.enrolment AS e USING (contact_id, enrolment_id)
               WHERE v.journey = 'spring' AND e.entered_at >= '2024-03-11' AND e.entered_at < '2024-04-20' ORDER BY v.enrolment_id, v.step, v.visit DESC) AS last
       GROUP BY 1, 2$$, 'an enrolment counts once at a step, by its last visit');
SELECT is_empty($$SELECT * FROM crm.journey_funnel('spring', '2000-01-01', '2100-01-01') AS f
    WHERE entered > (SELECT count(*) FROM crm.enrolment AS e WHERE e.journey = 'spring' AND e.version = f.version)$$, 'so no step has more than started');
SELECT results_eq($$SELECT step FROM crm.journey_funnel('spring', '2024-03-11', '2024-04-20', version => 2) ORDER BY "position"$$,
    $$VALUES ('greet'), ('who'), ('tell_shop'), ('coupon_big'), ('ab'), ('ask_mobile'), ('bye'), ('cart'), ('card'), ('video'), ('remind'), ('label')$$, 'steps in the order of first reach');
SELECT set_eq($$SELECT DISTINCT version FROM crm.journey_funnel('spring', '2024-03-11', '2024-04-20')$$, '{1,2}'::integer[], 'of every version in which somebody was');
SELECT set_eq($$SELECT DISTINCT version FROM crm.journey_funnel('spring', '1999-03-11', '1999-04-20')$$, '{2}'::integer[], 'or of the current one');
SELECT set_eq($$SELECT DISTINCT version FROM crm.journey_funnel('spring', '2024-03-11', '2024-04-20', 'entry', NULL, 1)$$, '{1}'::integer[], 'or of one');
SELECT is((SELECT sum(entered) FROM crm.journey_funnel('spring', '2024-03-11', '2024-04-20', 'entry', 'contact_id < 0')), 0::numeric, 'of nobody');
SELECT is((SELECT sum(entered) FROM crm.journey_funnel('spring', '2024-03-11', '2024-03-11')), 0::numeric, 'over no time');

SELECT lives_ok($$SELECT * FROM crm.journey_rows('spring', 'greet', 'erased')$$, 'by an end that perhaps nobody came to');

-- errors
SELECT throws_ok(call, state, message, call)
  FROM (VALUES ($$SELECT * FROM crm.journey_funnel('nope', '2024-01-01', '2025-01-01')$$, '23503', 'journey "nope" does not exist'),
               ($$SELECT * FROM crm.journey_funnel('spring', '2024-01-01', '2025-01-01', version => 7)$$, '23503', 'version 7 of journey "spring" does not exist'),
               ($$SELECT * FROM crm.journey_rows('spring', 'who', 'nope')$$, '23503', 'journey "spring" has no outcome "nope" of that step'),
               ($$SELECT * FROM crm.journey_rows('spring', outcome => 'nope')$$, '23503', 'journey "spring" has no outcome "nope"'),
               ($$SELECT * FROM crm.journey_funnel('spring', '2025-01-01', '2024-01-01')$$, '22023', 'the period ends at 2024-01-01 00:00:00+00, before it starts at 2025-01-01 00:00:00+00'),
               ($$SELECT * FROM crm.journey_funnel('spring', '-infinity', '2024-01-01')$$, '22008', 'a period must be finite, not from -infinity to 2024-01-01 00:00:00+00'),
               ($$SELECT * FROM crm.journey_funnel('spring', '2024-01-01', 'infinity')$$, '22008', NULL),
               ($$SELECT * FROM crm.journey_funnel('spring', '2024-01-01', '2025-01-01', 'step')$$, '22023', 'by_time "step" is not known'),
               ($$SELECT * FROM crm.journey_funnel('spring', '2024-01-01', '2025-01-01', NULL)$$, '22004', NULL),
               ($$SELECT * FROM crm.journey_funnel(NULL, '2024-01-01', '2025-01-01')$$, '22004', NULL),
               ($$SELECT * FROM crm.journey_funnel('spring', '2024-01-01', '2025-01-01', filter => 'wrong >')$$, '42601', NULL),
               ($$SELECT * FROM crm.journey_rows('nope')$$, '23503', 'journey "nope" does not exist'),
               ($$SELECT * FROM crm.journey_rows('spring', 'nope')$$, '23503', 'journey "spring" has no step "nope"'),
               ($$SELECT * FROM crm.journey_rows('spring', version => 0)$$, '23503', 'version 0 of journey "spring" does not exist'),
               ($$SELECT * FROM crm.journey_rows('spring', counted => 'sent')$$, '22023', '"sent" is not counted of a journey'),
               ($$SELECT * FROM crm.journey_rows('spring', 'ab', counted => 'exited')$$, '22023', '"exited" is not counted of a step'),
               ($$SELECT * FROM crm.journey_rows('spring', period_start => '2024-01-01')$$, '22004', NULL),
               ($$SELECT * FROM crm.journey_rows(NULL)$$, '22004', NULL),
               ($$SELECT crm.journey_svg('nope')$$, '23503', 'journey "nope" does not exist'),
               ($$SELECT crm.journey_svg('spring', 0)$$, '23503', 'version 0 of journey "spring" does not exist'),
               ($$SELECT crm.journey_svg(NULL)$$, '22004', NULL),
               ($$SELECT crm.journey_mermaid('spring', -1)$$, '23503', 'version -1 of journey "spring" does not exist'),
               ($$SELECT crm.journey_mermaid(NULL)$$, '22004', NULL)) AS t(call, state, message);

-- documents that no publisher would take do no harm
INSERT INTO crm.journey_version (journey, version, definition)
SELECT 'bad', n, d FROM (VALUES (1, '{}'::jsonb), (2, '[]'), (3, '{"steps": []}'), (4, '{"steps": {"a": 1, "b": {"next": 7}}, "start": "c", "entry": {}}'),
    (5, '{"start": 5, "steps": {"a": {"kind": "branch", "branches": {}, "arms": []}, "": {"kind": "send", "next": ""}}}'), (6, '"x"')) AS t(n, d);
SELECT lives_ok(format('SELECT crm.journey_svg(%L, %s), crm.journey_mermaid(%1$L, %2$s)', 'bad', n), 'document ' || n) FROM generate_series(1, 6) AS n;
SELECT lives_ok($$SELECT * FROM crm.journey_funnel('bad', '2024-01-01', '2025-01-01')$$, 'and funnels of them');

-- a condition on a journey or a contact reaches the tables
CREATE FUNCTION pg_temp.plan(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE line text; whole text := '';
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP whole := whole || line || E'\n'; END LOOP;
    RETURN whole;
END $$;
SELECT matches(pg_temp.plan('SELECT * FROM crm.' || v || $$ WHERE journey = 'spring'$$), t || '\S*( \w+)?\n +Filter: .*journey = ''spring''', v || ' looks at one journey only')
  FROM (VALUES ('journey_step', 'step_visit'), ('journey_edge', 'step_visit'), ('journey_summary', 'enrolment')) AS t(v, t);
SELECT unalike(pg_temp.plan('SELECT step, entered FROM crm.journey_step'), '%message%', 'where messages are not asked for, nobody looks at them');
SET LOCAL enable_seqscan = off;
SELECT unalike(pg_temp.plan('SELECT * FROM crm.journey_gap WHERE contact_id = 7'), '%Seq Scan%', 'journey_gap finds a contact by index');
SET LOCAL enable_seqscan = on;

-- who may
CREATE ROLE bi;
CREATE ROLE marketing;
SELECT crm.grant_access('bi', 'analyst'), crm.grant_access('marketing', 'marketer');
GRANT ALL ON ALL TABLES IN SCHEMA pg_temp TO PUBLIC;
GRANT ALL ON ALL SEQUENCES IN SCHEMA pg_temp TO PUBLIC;
SET ROLE bi;
SELECT lives_ok('SELECT * FROM crm.' || v, 'an analyst reads ' || v)
  FROM unnest(ARRAY['journey_summary', 'journey_step', 'journey_edge', 'journey_outline', 'journey_visit', 'journey_gap',
      'journey_rows(''spring'')', 'journey_funnel(''spring'', ''2024-01-01'', ''2025-01-01'')', 'journey_svg(''spring'')', 'journey_mermaid(''spring'')']) AS v;
SELECT lives_ok('SELECT kind, contact_id, object, step, since FROM crm.stuck', 'also what is stuck');
SELECT throws_ok('SELECT reason FROM crm.stuck', '42501', NULL, 'but not why, which may quote what somebody wrote');
SELECT throws_ok($$SELECT * FROM crm.journey_rows('spring', filter => 'mobile = ''+8613800138000''')$$, '42501', 'permission denied to count by a rule over the profile', 'but asks by no rule');
SELECT throws_ok($$SELECT * FROM crm.journey_funnel('spring', '2024-01-01', '2025-01-01', filter => 'true')$$, '42501', NULL, 'in funnels neither');
SET ROLE marketing;
SELECT lives_ok($$SELECT * FROM crm.journey_rows('spring', filter => 'orders = 0')$$, 'a marketer does');
RESET ROLE;

SELECT * FROM finish();
ROLLBACK;
