-- why somebody could enter a journey or go on from a step, and eligible() as the sum of it
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET pg_crm.clock = '2026-03-10 00:00Z';
SELECT no_plan();

INSERT INTO crm.account (kind, name) VALUES ('official_account', 'shop');
SELECT crm.define_template('{"name": "hello", "channel": "official_account", "message_type": "text", "body": {"content": "Hi"}}'),
       crm.define_template('{"name": "gone", "channel": "official_account", "message_type": "text", "body": {"content": "Hi"}}') \g /dev/null
SELECT crm.publish_journey(d) FROM unnest(ARRAY[$${"journey": "care", "reentry": "cooldown", "cooldown": "2 days", "goal": "tags @> '{done}'", "exit": [{"on": "leave"}],
    "entry": [{"on": "buy", "when": "(fact.properties->>'price')::int >= 100 AND NOT tags @> '{staff}'"}, {"on": "stage_move", "stage": "loyal"},
              {"on": "date", "property": "birthday", "when": "orders > 0"}, {"on": "api"}], "start": "way", "steps": {
    "way": {"kind": "branch", "branches": [{"when": "tags @> '{nap}'", "next": "nap"}, {"when": "tags @> '{until}' AND orders = 0", "next": "until"}], "default": "click"},
    "nap": {"kind": "wait", "for": "1 day", "next": "arms"},
    "until": {"kind": "wait_until", "when": "tags @> '{now}'", "within": "1 day", "on_timeout": "arms"},
    "click": {"kind": "wait_for", "on": "click", "when": "fact.properties->>'where' = 'here'", "within": "12 hours", "next": "ask", "on_timeout": "bad"},
    "ask": {"kind": "ask", "field": "city", "within": "1 hour"},
    "arms": {"kind": "split", "arms": {"a": {"weight": 1, "next": "say"}, "b": {"weight": 1, "next": null}}},
    "say": {"kind": "send", "template": "hello", "on_failed": null},
    "bad": {"kind": "wait", "date": "entry.when", "next": "lost"},
    "lost": {"kind": "send", "template": "gone"}}}$$,
    '{"journey": "held", "hold_out": 100, "reentry": "once", "start": "x", "steps": {"x": {"kind": "wait", "for": "1 day"}}}',
    '{"journey": "keyed", "reentry": "per_key", "key": "k", "entry": [{"on": "ticket"}], "start": "x", "steps": {"x": {"kind": "wait", "for": "1 day"}}}']::jsonb[]) AS d \g /dev/null
INSERT INTO crm.contact (contact_id, name, tags) SELECT i, 'c' || i, CASE i WHEN 2 THEN '{nap}' WHEN 3 THEN '{until}' WHEN 5 THEN '{staff}' WHEN 6 THEN '{done}' ELSE '{}' END::text[] FROM generate_series(1, 9) AS i;

CREATE FUNCTION pg_temp.why(contact bigint, journey text, step text DEFAULT NULL, as_of timestamptz DEFAULT NULL) RETURNS SETOF text LANGUAGE sql AS
    $$SELECT concat(e.part, ' ', coalesce(e.holds::text, '?'), ' | ' || e.found) FROM crm.explain($1, $2, $3, $4) AS e$$;

-- which function is meant
SELECT results_eq($$SELECT part, holds FROM crm.explain(1, 'orders = 0')$$, $$VALUES ('orders = 0', true), ('orders = 0', true)$$, 'two arguments: a rule');
SELECT results_eq($$SELECT part FROM crm.explain(1, 'orders = 0', now())$$, $$VALUES ('orders = 0'), ('orders = 0')$$, 'a time: a rule');
SELECT results_eq($$SELECT part FROM crm.explain(1, 'orders = 0', as_of => '2026-01-01')$$, $$VALUES ('orders = 0'), ('orders = 0')$$, 'named as one: a rule');
SELECT is((SELECT part FROM crm.explain(1, 'held', NULL) LIMIT 1), 'journey', 'three: a journey, and NULL is to enter it');
SELECT is((SELECT part FROM crm.explain(1, 'held', 'x') LIMIT 1), 'here', 'or a step');
SELECT is((SELECT part FROM crm.explain(1, 'held', step => 'x', as_of => '2026-01-01') LIMIT 1), 'here', 'by names');
SELECT is((SELECT part FROM crm.explain(contact_id => 1, journey => 'held', step => NULL) LIMIT 1), 'journey', 'all by names');
SELECT throws_like($$SELECT * FROM crm.explain(1, 'orders = 0', '2026-01-01')$$, 'journey "orders = 0" does not exist', 'a rule with a time that is not named is taken for a journey');

-- entering
SELECT results_eq($$SELECT * FROM pg_temp.why(1, 'care')$$, ARRAY[
    'journey true | open, version 1', 'entry 1 on buy false | no buy',
    $$entry 1: (fact.properties->>'price')::int >= 100 AND NOT tags @> '{staff}' false$$, $$entry 1: (fact.properties->>'price')::int >= 100 ? | fact.properties IS NULL$$,
    $$entry 1: tags @> '{staff}' false | tags = {}$$,
    'entry 2 on stage_move false | stage_move of 2026-03-10 00:00:00+00', $$entry 2: fact.properties ->> 'stage' = 'loyal' false$$,
    $$entry 2: fact.properties ->> 'stage' = 'loyal' false | fact.properties = {"from": null, "stage": "user", "reason": "opening"}$$,
    'entry 3 on date true | the date is birthday', 'entry 3: orders > 0 false', 'entry 3: orders > 0 false | orders = 0', 'entry 4 on api false | no api',
    'reentry true | cooldown', $$goal: tags @> '{done}' false$$, $$goal: tags @> '{done}' false | tags = {}$$], 'nothing has happened');
SELECT ok(crm.eligible(1, 'care'), 'and yet he could enter');
INSERT INTO crm.event (contact_id, kind, occurred_at, properties) SELECT i, 'buy', crm.now() - CASE i WHEN 7 THEN interval '3 days' ELSE '0' END,
    jsonb_build_object('price', CASE i WHEN 4 THEN 50 ELSE 150 END, 'when', 'some day') FROM unnest('{1,2,3,4,5,6,7,9}'::int[]) AS i;
SELECT results_eq($$SELECT w FROM pg_temp.why(4, 'care') AS w WHERE w LIKE 'entry 1%'$$, ARRAY[
    format('entry 1 on buy false | buy %s of 2026-03-10 00:00:00+00', (SELECT event_id FROM crm.event WHERE contact_id = 4)),
    $$entry 1: (fact.properties->>'price')::int >= 100 AND NOT tags @> '{staff}' false$$,
    $$entry 1: (fact.properties->>'price')::int >= 100 false | fact.properties = {"when": "some day", "price": 50}$$, $$entry 1: tags @> '{staff}' false | tags = {}$$],
    'a fact that was not enough');
SELECT results_eq($$SELECT w FROM pg_temp.why(5, 'care') AS w WHERE w LIKE 'entry 1: tags%'$$, ARRAY[$$entry 1: tags @> '{staff}' true | tags = {staff}$$], 'a contact who is not meant');
SELECT results_eq($$SELECT regexp_replace(w, 'enrolment \d+', 'enrolment N') FROM pg_temp.why(1, 'care') AS w WHERE w ~ '^(entry 1 |reentry|max|refused)'$$, ARRAY[
    format('entry 1 on buy true | buy %s of 2026-03-10 00:00:00+00', (SELECT event_id FROM crm.event WHERE contact_id = 1)),
    'reentry false | cooldown: enrolment N is active since 2026-03-10 00:00:00+00', 'max_lateness true | buy of 2026-03-10 00:00:00+00 was recorded 00:00:00 later, at most 1 day is in time'],
    'who is in it');
SELECT ok(NOT crm.eligible(1, 'care'), 'could not enter');
SELECT results_eq($$SELECT w FROM pg_temp.why(7, 'care') AS w WHERE w ~ '^(reentry|max)'$$, ARRAY['reentry true | cooldown',
    'max_lateness false | buy of 2026-03-07 00:00:00+00 was recorded 3 days later, at most 1 day is in time'], 'a fact that came too late');
SELECT results_eq($$SELECT w FROM pg_temp.why(6, 'care') AS w WHERE w LIKE 'goal%'$$, ARRAY[$$goal: tags @> '{done}' true$$, $$goal: tags @> '{done}' true | tags = {done}$$], 'the goal is reached');
SELECT ok(NOT crm.eligible(6, 'care'), 'so he could not enter');
SELECT crm.unenrol(1, 'care') \g /dev/null
SELECT is(crm.enrol(1, 'care'), NULL, 'too early');
SELECT results_eq($$SELECT regexp_replace(w, 'enrolment \d+', 'enrolment N') FROM pg_temp.why(1, 'care') AS w WHERE w ~ '^(reentry|refused)'$$, ARRAY[
    'reentry false | cooldown: after enrolment N of 2026-03-10 00:00:00+00 not before 2026-03-12 00:00:00+00',
    'refused: cooldown false | 1 times from 2026-03-10 00:00:00+00 to 2026-03-10 00:00:00+00'], 'until when, and that it was refused');
SELECT is(crm.eligible(1, 'care'), false, 'he could not enter');
SELECT is(crm.eligible(1, 'care', as_of => '2026-03-12 00:00Z'), true, 'but then');
SELECT is(crm.eligible(1, 'held'), false, 'held out');
SELECT alike((SELECT found FROM crm.explain(1, 'held', NULL) WHERE part = 'hold_out'), 'drawn 0.%, held out below 1', 'by a draw');
SELECT crm.set_journey('held', 'closed') \g /dev/null
SELECT results_eq($$SELECT w FROM pg_temp.why(1, 'held') AS w LIMIT 1$$, ARRAY['journey false | closed, version 1'], 'closed');
SELECT is(crm.eligible(1, 'keyed'), true, 'under a key that is not known yet');
INSERT INTO crm.event (contact_id, kind, occurred_at, properties) VALUES (1, 'ticket', crm.now(), '{"k": "a"}');
SELECT is(crm.eligible(1, 'keyed'), false, 'not under that of the latest fact');
SELECT is((SELECT holds FROM crm.explain(1, 'keyed', NULL) WHERE part = 'reentry'), false, 'which is in it');
-- eligible() and enrol() are of one opinion
CREATE TEMP TABLE opinion AS SELECT c.contact_id, crm.eligible(c.contact_id, 'care') FROM crm.contact c WHERE c.contact_id IN (3, 4, 6, 8);
SELECT crm.enrol(contact_id, 'care') FROM opinion \g /dev/null
SELECT results_eq($$SELECT contact_id, eligible FROM opinion ORDER BY 1$$, $$SELECT o.contact_id, bool_or(e.state = 'active' AND e.entered_by = 'api') FROM opinion o
    JOIN crm.enrolment e USING (contact_id) WHERE e.journey = 'care' GROUP BY 1 ORDER BY 1$$, 'who is eligible can be enrolled, and nobody else');
SELECT results_eq('SELECT eligible FROM opinion ORDER BY contact_id', 'VALUES (false), (true), (false), (true)', 'some of each');

-- steps
SELECT results_eq($$SELECT w FROM pg_temp.why(2, 'care', 'nap') AS w WHERE w !~ '^here|^goal|^exit'$$, ARRAY['deadline false | 2026-03-11 00:00:00+00'], 'a wait');
SELECT is(crm.eligible(2, 'care', 'nap'), false, 'is not over');
SELECT is(crm.eligible(2, 'care', 'nap', '2026-03-11 00:00Z'), true, 'but then');
SELECT results_eq($$SELECT w FROM pg_temp.why(2, 'care', 'nap', '2026-03-11 00:00Z') AS w WHERE w !~ '^here|^goal|^exit'$$,
    ARRAY['deadline true | 2026-03-11 00:00:00+00', 'goes to true | "arms", by next'], 'where he goes');
SELECT alike((SELECT found FROM crm.explain(2, 'care', 'nap') WHERE part = 'here'), 'enrolment %, version 1, since 2026-03-10 00:00:00+00', 'where he is');
SELECT alike((SELECT found FROM crm.explain(2, 'care', 'click') WHERE part = 'here'), 'enrolment % is at step "nap"', 'where he is else');
SELECT is((SELECT found FROM crm.explain(7, 'care', 'click') WHERE part = 'here'), 'never entered the journey', 'who was never there');
SELECT alike((SELECT found FROM crm.explain(1, 'care', 'click') WHERE part = 'here'), 'enrolment % exited by unenrolled at 2026-03-10 00:00:00+00', 'who has left');
SELECT results_eq($$SELECT w FROM pg_temp.why(3, 'care', 'until') AS w WHERE w !~ '^here|^goal|^exit'$$,
    ARRAY[$$waits until: tags @> '{now}' false$$, $$waits until: tags @> '{now}' false | tags = {until}$$, 'deadline false | 2026-03-11 00:00:00+00'], 'a condition');
SELECT results_eq($$SELECT w FROM pg_temp.why(3, 'care', 'way') AS w WHERE w ~ '^branch|^goes'$$, ARRAY[
    $$branch 1: tags @> '{nap}' false$$, $$branch 1: tags @> '{nap}' false | tags = {until}$$,
    $$branch 2: tags @> '{until}' AND orders = 0 true$$, $$branch 2: tags @> '{until}' true | tags = {until}$$, 'branch 2: orders = 0 true | orders = 0',
    'goes to true | "until", by 2'], 'a branch, for who has left it too');
SELECT is(crm.eligible(3, 'care', 'way'), true, 'lets everybody through');
INSERT INTO crm.event (contact_id, kind, occurred_at, properties) VALUES (8, 'click', crm.now(), '{"where": "there"}');
SELECT results_eq($$SELECT w FROM pg_temp.why(8, 'care', 'click') AS w WHERE w !~ '^here|^goal|^exit'$$, ARRAY[
    format('waits on click false | click %s of 2026-03-10 00:00:00+00', (SELECT event_id FROM crm.event WHERE kind = 'click')),
    $$waits: fact.properties->>'where' = 'here' false$$, $$waits: fact.properties->>'where' = 'here' false | fact.properties = {"where": "there"}$$,
    'deadline false | 2026-03-10 12:00:00+00'], 'a wait for a fact');
SELECT results_eq($$SELECT w FROM pg_temp.why(8, 'care', 'click') AS w WHERE w LIKE 'exit%'$$, ARRAY['exit on leave false | no leave since 2026-03-10 00:00:00+00'], 'a fact to leave by');
SELECT results_eq($$SELECT w FROM pg_temp.why(8, 'care', 'click', '2026-03-10 12:00Z') AS w WHERE w ~ '^goes'$$, ARRAY['goes to true | "bad", by timeout'], 'in the end it goes on');
SELECT matches((SELECT string_agg(w, ', ') FROM pg_temp.why(8, 'care', 'arms') AS w WHERE w ~ '^goes'), '^goes to true \| ("say", by a|the end, by b)$', 'a split');
SELECT results_eq($$SELECT w FROM pg_temp.why(8, 'care', 'say') AS w WHERE w ~ '^reach'$$, ARRAY['reachable by shop, message/custom/send false | no_recipient'], 'who cannot be written to');
SELECT is(crm.eligible(8, 'care', 'say'), false, 'is not let through');
SELECT is(crm.eligible(8, 'care', 'lost'), false, 'nor by another template');
SET session_replication_role = replica;
DELETE FROM crm.template WHERE name = 'gone';
DELETE FROM crm.account WHERE name = 'shop';
SET session_replication_role = origin;
SELECT results_eq($$SELECT w FROM pg_temp.why(8, 'care', 'say') AS w WHERE w ~ '^reach'$$, ARRAY['reachable false | no account of the channel official_account can send'],
    'without an account');
SELECT results_eq($$SELECT w FROM pg_temp.why(8, 'care', 'lost') AS w WHERE w ~ '^(reach|temp)'$$, ARRAY['template false | "gone" does not exist'], 'without the template');
SELECT results_eq($$SELECT w FROM pg_temp.why(8, 'care', 'ask') AS w WHERE w !~ '^here|^goal|^exit'$$, ARRAY['deadline false | it begins when the contact comes'], 'a question');
-- stuck
SET pg_crm.clock = '2026-03-10 12:00Z';
SELECT crm.tick() \g /dev/null
SELECT results_eq($$SELECT w FROM pg_temp.why(9, 'care', 'bad') AS w WHERE w ~ '^(stuck|deadline)'$$,
    ARRAY['stuck false | invalid input syntax for type timestamp with time zone: "some day"; tried again at 2026-03-10 12:01:00+00', 'deadline false | none'], 'a step that fails');
SELECT is(crm.eligible(9, 'care', 'bad'), false, 'lets nobody through');
CREATE ROLE explain_marketer;
SELECT crm.grant_access('explain_marketer', 'marketer') \g /dev/null
SET ROLE explain_marketer;
SELECT results_eq($$SELECT found FROM crm.explain(9, 'care', NULL) WHERE part LIKE 'entry 1: (fact.properties->>''price'')::int >= 100'$$,
    ARRAY['fact.properties IS NOT NULL'], 'what who asks may not read is not told');
RESET ROLE;
SELECT crm.set_journey('care', 'frozen') \g /dev/null
SELECT results_eq($$SELECT w FROM pg_temp.why(2, 'care', 'nap') AS w LIMIT 1$$, ARRAY['journey false | frozen: nobody moves'], 'a frozen journey');
SELECT is(crm.eligible(2, 'care', 'nap', '2026-03-20'), false, 'lets nobody through');

SELECT throws_ok($$SELECT * FROM crm.explain(1, 'care', 'no')$$, '23503', 'journey "care" has no step "no"', 'no step');
SELECT throws_ok($$SELECT crm.eligible(1, 'nothing')$$, '23503', 'journey "nothing" does not exist', 'no journey');
SELECT throws_ok($$SELECT crm.eligible(99, 'care')$$, '23503', 'contact 99 does not exist', 'no contact');
SELECT throws_ok($$SELECT crm.eligible(NULL, 'care')$$, '22004', 'argument "contact_id" of crm.eligible() must not be NULL', 'nobody');
SELECT throws_ok($$SELECT crm.eligible(1, 'care', as_of => 'infinity')$$, '22008', 'as_of must be finite, not infinity', 'never');
SELECT finish();
ROLLBACK;
