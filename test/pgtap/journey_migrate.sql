-- people moved between versions of a journey: who goes where, who is stranded, what goes on as it was
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET pg_crm.clock = '2026-03-01 00:00Z';
SELECT no_plan();

CREATE FUNCTION pg_temp.document(more jsonb, steps jsonb) RETURNS jsonb LANGUAGE sql RETURN
    jsonb_build_object('journey', 'care', 'reentry', 'per_key', 'key', 'k', 'start', 'way', 'entry', '[{"on": "come"}]'::jsonb, 'steps', jsonb_build_object(
        'way', '{"kind": "branch", "branches": [{"when": "tags @> ''{nap}''", "next": "nap"}, {"when": "tags @> ''{gone}''", "next": "gone"},
                 {"when": "tags @> ''{other}''", "next": "other"}, {"when": "tags @> ''{bad}''", "next": "bad"}], "default": "shop"}'::jsonb) || steps) || more;
CREATE VIEW pg_temp.people AS
    SELECT c.name, e.version, e.state, e.end_reason, e.step, e.step_due_at, e.due_at, e.ended_at,
        v.outcome, v.next_step, v.left_at, v.visit, v.version AS visit_version
    FROM crm.enrolment e JOIN crm.contact c USING (contact_id)
    LEFT JOIN crm.step_visit v ON v.contact_id = e.contact_id AND v.enrolment_id = e.enrolment_id AND v.visit = e.visit;

SELECT is(crm.publish_journey(pg_temp.document('{}', '{
    "nap": {"kind": "wait", "for": "10 days", "next": "shop"},
    "gone": {"kind": "wait", "for": "10 days"},
    "other": {"kind": "wait", "for": "10 days"},
    "bad": {"kind": "wait", "date": "entry.when"},
    "shop": {"kind": "wait_for", "on": "purchase", "within": "20 days", "on_timeout": null}}')), 1, 'a version');
INSERT INTO crm.contact (contact_id, name, tags, city)
    SELECT i, n, ARRAY[regexp_replace(n, '\d', '')], CASE WHEN n IN ('nap3', 'gone2') THEN 'Rome' END
    FROM unnest('{nap1,nap2,nap3,gone1,gone2,other1,bad1,shop1,shop2,shop3}'::text[]) WITH ORDINALITY AS u(n, i);
INSERT INTO crm.event (contact_id, kind, occurred_at, properties)
    SELECT contact_id, 'come', crm.now(), '{"k": "a", "when": "some day"}' FROM crm.contact WHERE name <> 'shop3';
-- twice at one step
INSERT INTO crm.event (contact_id, kind, occurred_at, properties) SELECT contact_id, 'come', crm.now(), '{"k": "b"}' FROM crm.contact WHERE name = 'nap1';
SELECT is((SELECT count(*)::int FROM crm.enrolment WHERE state = 'active'), 10, 'who is there');
SELECT is((SELECT stuck IS NOT NULL FROM crm.enrolment JOIN crm.contact USING (contact_id) WHERE name = 'bad1'), true, 'one of them stuck');
SELECT is(crm.publish_journey(pg_temp.document('{"goal": "city = ''Rome''", "exit": {"on": "tea"}}', '{
    "nap": {"kind": "wait", "for": "1 day", "next": "end"},
    "other": {"kind": "wait_for", "on": "visit", "within": "1 day"},
    "bad": {"kind": "wait", "for": "1 hour", "next": "end"},
    "shop": {"kind": "wait_for", "on": "visit", "within": "30 days", "next": "end"},
    "end": {"kind": "tag", "add": ["moved"]}, "gone_too": {"kind": "exit"}}')
    #- '{steps,gone_too}' #- '{steps,way,branches,1}'), 2, 'another one');
SET pg_crm.clock = '2026-03-02 00:00Z';
INSERT INTO crm.event (contact_id, kind, occurred_at, properties) VALUES (10, 'come', crm.now(), '{"k": "a"}');
SELECT is((SELECT version FROM pg_temp.people WHERE name = 'shop3'), 2, 'who comes now is in the new one');
SET pg_crm.clock = '2026-03-03 00:00Z';
-- shop2 has done what the new wait is for, nap2 what the new version is left for
INSERT INTO crm.event (contact_id, kind, occurred_at) SELECT contact_id, CASE name WHEN 'shop2' THEN 'visit' ELSE 'tea' END, crm.now()
    FROM crm.contact WHERE name IN ('shop2', 'nap2');
CREATE TEMP TABLE before AS SELECT * FROM pg_temp.people;
CREATE TEMP TABLE said AS SELECT * FROM crm.migrate_journey('care', 1, 2);
SELECT results_eq('TABLE said', $$VALUES ('bad', 'bad', 1::bigint, false), ('gone', NULL, 2, true), ('nap', 'nap', 3, false), ('other', NULL, 1, true), ('shop', 'shop', 2, false)$$,
    'said: a step that is gone, one of another kind, and who is twice at one counts once');
SELECT results_eq('SELECT * FROM pg_temp.people ORDER BY name, version, state', 'SELECT * FROM before ORDER BY name, version, state', 'and nothing done');

SET pg_crm.clock = '2026-03-04 00:00Z';
SELECT results_eq($$SELECT * FROM crm.migrate_journey(journey => 'care', from_version => 1, to_version => 2, dry_run => false)$$, 'TABLE said', 'done as it was said');
SELECT results_eq($$SELECT step, CASE WHEN NOT stranded THEN step END, count(DISTINCT name), stranded
    FROM (SELECT name, step, end_reason IS NOT DISTINCT FROM 'stranded' AS stranded FROM pg_temp.people WHERE name <> 'shop3'
        UNION ALL SELECT name, 'shop', false FROM pg_temp.people WHERE name = 'shop2' AND step <> 'shop') x GROUP BY step, stranded HAVING step <> 'end' ORDER BY step$$,
    'TABLE said', 'and as it is');
SELECT is_empty($$SELECT * FROM crm.migrate_journey('care', 1, 2)$$, 'nobody is left');
SELECT is_empty($$SELECT * FROM pg_temp.people WHERE (version = 1) <> (end_reason IS NOT DISTINCT FROM 'stranded')$$, 'all but those who are stranded are in the new version');
SELECT results_eq($$SELECT name, end_reason, outcome, next_step, left_at, ended_at FROM pg_temp.people WHERE state = 'exited' ORDER BY name$$,
    $$VALUES ('gone1', 'stranded', 'stranded', NULL::text, '2026-03-04 00:00Z'::timestamptz, '2026-03-04 00:00Z'::timestamptz),
        ('gone2', 'stranded', 'stranded', NULL, '2026-03-04 00:00Z', '2026-03-04 00:00Z'),
        ('nap2', 'rule', 'rule', NULL, '2026-03-03 00:00Z', '2026-03-03 00:00Z'),
        ('nap3', 'goal', 'goal', NULL, '2026-03-04 00:00Z', '2026-03-04 00:00Z'),
        ('other1', 'stranded', 'stranded', NULL, '2026-03-04 00:00Z', '2026-03-04 00:00Z')$$,
    'stranded, or out by the goal or the rule of the new version');
SELECT results_eq($$SELECT step, step_due_at, due_at, visit, visit_version, outcome FROM pg_temp.people WHERE name = 'nap1'$$,
    $$VALUES ('nap', '2026-03-11 00:00Z'::timestamptz, '2026-03-11 00:00Z'::timestamptz, 2, 1, NULL::text), ('nap', '2026-03-11 00:00Z', '2026-03-11 00:00Z', 2, 1, NULL)$$,
    'whoever waits does so as long as before, in the visit that is open');
SELECT results_eq($$SELECT step, step_due_at FROM pg_temp.people WHERE name = 'shop1'$$, $$VALUES ('shop', '2026-03-21 00:00Z'::timestamptz)$$, 'for a fact too');
SELECT results_eq($$SELECT state, step, outcome, ended_at FROM pg_temp.people WHERE name = 'shop2'$$, $$VALUES ('finished', 'end', 'next', '2026-03-03 00:00Z'::timestamptz)$$,
    'who did before what is waited for now goes on as of then');
SELECT is((SELECT tags FROM crm.contact WHERE name = 'shop2'), '{shop,moved}', 'through the steps of the new version');
SELECT results_eq($$SELECT stuck IS NOT NULL, state FROM crm.enrolment JOIN crm.contact USING (contact_id) WHERE name = 'bad1'$$, $$VALUES (true, 'active')$$, 'who was stuck still is');
SELECT crm.resume(enrolment_id) FROM crm.enrolment JOIN crm.contact USING (contact_id) WHERE name = 'bad1' \g /dev/null
SELECT results_eq($$SELECT stuck, due_at FROM crm.enrolment JOIN crm.contact USING (contact_id) WHERE name = 'bad1'$$, $$VALUES (NULL::text, '2026-03-01 01:00Z'::timestamptz)$$,
    'and tries the step of the new version');
INSERT INTO crm.event (contact_id, kind, occurred_at) SELECT contact_id, 'visit', crm.now() FROM crm.contact WHERE name = 'shop1';
SELECT is((SELECT state FROM pg_temp.people WHERE name = 'shop1'), 'finished', 'facts are noticed by the new version');

-- back, into a version that nobody was in
SELECT results_eq($$SELECT * FROM crm.migrate_journey('care', 2, 1, false)$$, $$VALUES ('bad', 'bad', 1::bigint, false), ('nap', 'nap', 1, false), ('shop', 'shop', 1, false)$$, 'back');
INSERT INTO crm.transaction (contact_id, kind, amount, currency, occurred_at, external_ref) VALUES (10, 'purchase', 10, 'CNY', crm.now(), 'r1');
SELECT is((SELECT state FROM pg_temp.people WHERE name = 'shop3'), 'finished', 'its facts are noticed though nobody was there before');

-- frozen: moved, but looked at after the thaw
SELECT crm.set_journey('care', 'frozen') \g /dev/null
INSERT INTO crm.event (contact_id, kind, occurred_at) VALUES (1, 'tea', crm.now());
SELECT lives_ok($$SELECT crm.migrate_journey('care', 1, 2, false)$$, 'a frozen journey is migrated');
SELECT is((SELECT count(*)::int FROM pg_temp.people WHERE version = 2 AND state = 'active'), 3, 'nobody moves');
SELECT crm.set_journey('care', 'open') \g /dev/null
SELECT is((SELECT count(*)::int FROM pg_temp.people WHERE version = 2 AND end_reason = 'rule' AND name = 'nap1'), 2, 'before it thaws');

SELECT throws_ok($$SELECT crm.migrate_journey('nothing', 1, 2)$$, '23503', 'journey "nothing" does not exist', 'a journey that is not');
SELECT throws_ok($$SELECT crm.migrate_journey('care', 1, 3)$$, '23503', 'journey "care" has no version 3', 'a version that is not');
SELECT throws_ok($$SELECT crm.migrate_journey('care', 0, 1)$$, '23503', 'journey "care" has no version 0', 'no version');
SELECT throws_ok($$SELECT crm.migrate_journey('care', 1, 1)$$, '22023', 'from_version and to_version are both 1', 'the same one');
SELECT throws_ok($$SELECT crm.migrate_journey('care', 1, 2, NULL)$$, '22004', 'argument dry_run of crm.migrate_journey() must not be NULL', 'neither dry nor not');
SELECT is_empty($$SELECT * FROM crm.verify()$$, 'all is as it should be');
SELECT finish();
ROLLBACK;
