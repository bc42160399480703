-- verify() about journeys: each contradiction, seen and gone
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET search_path = public, pg_catalog;
SET pg_crm.clock = '2026-03-10 10:00Z';
SELECT no_plan();
INSERT INTO crm.account (kind, name) VALUES ('official_account', 'maison');
SELECT crm.define_template('{"name": "hello", "channel": "official_account", "message_type": "text", "body": {"content": "Hello"}}') \g /dev/null
SELECT crm.publish_journey(crm.journey_document('tale', 'begin', '{
  "begin": {"kind": "wait", "for": "1 hour", "next": "hello"}, "hello": {"kind": "send", "template": "hello", "next": "size"},
  "size": {"kind": "ask", "field": "context.size", "within": "1 day", "next": "bye", "on_timeout": "bye"}, "bye": {"kind": "exit"}}')) \g /dev/null
SELECT crm.publish_journey(crm.journey_document('told', 'hello', '{
  "hello": {"kind": "send", "template": "hello", "next": "bye", "on_refused": "bye"}, "bye": {"kind": "exit"}}')) \g /dev/null
INSERT INTO crm.contact (contact_id) VALUES (1), (2), (3);
SELECT crm.enrol(c, 'tale') FROM generate_series(1, 3) c \g /dev/null
SET pg_crm.clock = '2026-03-10 12:00Z';
SELECT crm.tick() \g /dev/null
SELECT crm.track(2, 'message', '{"content": "40"}'), crm.unenrol(3, 'tale'), crm.enrol(3, 'told') \g /dev/null
SELECT is((SELECT string_agg(contact_id || ' ' || journey || ' ' || state || ' ' || step, ', ' ORDER BY enrolment_id) FROM crm.enrolment),
  '1 tale active size, 2 tale finished bye, 3 tale exited size, 3 told active hello', 'in a journey, through it, out of it');
SELECT is_empty('SELECT * FROM crm.verify()', 'what the functions did is sound');

CREATE FUNCTION pg_temp.checked(change text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE said text;
BEGIN
	BEGIN
		EXECUTE change;
		SELECT string_agg(regexp_replace(check_name, '\d+$', 'N') || ': ' || coalesce(v.expected, '-') || ' / ' || coalesce(v.found, '-'), '; ' ORDER BY check_name)
		  INTO said FROM crm.verify() AS v WHERE check_name NOT LIKE 'visit\_count %';
		RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = 'undone';
	EXCEPTION WHEN SQLSTATE 'ZZ000' THEN RETURN said;
	END;
END $$;
SELECT is(pg_temp.checked($$UPDATE crm.enrolment SET due_at = NULL WHERE contact_id = 1$$), 'due_at of enrolment N: at most ' || '2026-03-11 11:00Z'::timestamptz || ' / -', 'nobody would look');
SELECT is(pg_temp.checked($$UPDATE crm.enrolment SET due_at = due_at + interval '1 s' WHERE contact_id = 1$$), 'due_at of enrolment N: at most ' || '2026-03-11 11:00Z'::timestamptz || ' / ' || '2026-03-11 11:00:01Z'::timestamptz, 'somebody would look too late');
SELECT is(pg_temp.checked($$UPDATE crm.enrolment SET step_due_at = NULL, due_at = NULL WHERE contact_id = 1$$), 'due_at of enrolment N: the end of the wait / -', 'a wait without an end');
SELECT is(pg_temp.checked($$UPDATE crm.enrolment SET stuck = 'broken', step_due_at = NULL, due_at = NULL WHERE contact_id = 1$$), 'due_at of enrolment N: when the step is tried again / -', 'a step that is never tried again');
SELECT is(pg_temp.checked($$UPDATE crm.enrolment SET stuck = 'broken', step_due_at = NULL WHERE contact_id = 1$$), NULL, 'one that is stuck is no contradiction');
SELECT is(pg_temp.checked($$UPDATE crm.enrolment SET due_at = crm.now() WHERE contact_id = 2$$), 'due_at of enrolment N: - / ' || '2026-03-10 12:00Z'::timestamptz, 'one that has ended is due');
SELECT matches(pg_temp.checked($$UPDATE crm.enrolment SET step = 'gone' WHERE contact_id = 1$$), 'step of enrolment N: a step of version 1 of tale / gone$', 'a step that there is not');
SELECT is(pg_temp.checked($$UPDATE crm.enrolment SET step = 'gone', stuck = 'no step', step_due_at = NULL WHERE contact_id = 1$$), 'open visit of enrolment N: visit 3 of step gone / visit 3 of step size', 'unless stuck says so');
SELECT matches(pg_temp.checked($$UPDATE crm.enrolment SET version = 7 WHERE contact_id = 2$$), '^version of enrolment N: a published version of tale / 7$', 'a version that was never published');
SELECT is(pg_temp.checked($$UPDATE crm.enrolment SET state = 'asleep' WHERE contact_id = 2$$), 'state of enrolment N: active, finished or exited / asleep', 'a state that there is not');
SELECT is(pg_temp.checked($$UPDATE crm.enrolment SET ended_at = NULL WHERE contact_id = 2$$), 'end of enrolment N: a time / no time, no reason', 'an end without a time');
SELECT matches(pg_temp.checked($$UPDATE crm.enrolment SET end_reason = NULL WHERE contact_id = 3 AND journey = 'tale'$$), '^end of enrolment N: a time and a known reason / .*, no reason$', 'or a reason');
SELECT matches(pg_temp.checked($$UPDATE crm.enrolment SET end_reason = 'bored' WHERE contact_id = 3 AND journey = 'tale'$$), '^end of enrolment N: a time and a known reason / .*, bored$', 'that is one');
SELECT matches(pg_temp.checked($$UPDATE crm.enrolment SET ended_at = crm.now() WHERE contact_id = 1$$), '^end of enrolment N: none / ', 'an active one that has ended');
SELECT matches(pg_temp.checked($$UPDATE crm.enrolment SET state = 'finished', ended_at = crm.now(), due_at = NULL, step_due_at = NULL WHERE contact_id = 1$$), '^open visit of enrolment N: none / visit 3 of step size$', 'one that has ended and is still there');
SELECT is(pg_temp.checked($$UPDATE crm.step_visit SET left_at = crm.now(), outcome = 'next' WHERE contact_id = 1 AND visit = 3$$), 'open visit of enrolment N: visit 3 of step size / none', 'an active one that is nowhere');
SELECT is(pg_temp.checked($$UPDATE crm.step_visit SET left_at = NULL, outcome = NULL WHERE contact_id = 1 AND visit = 1$$), 'open visit of enrolment N: visit 3 of step size / visit 1 of step begin, visit 3 of step size', 'or at two places');
SELECT is(pg_temp.checked($$UPDATE crm.step_visit SET outcome = NULL WHERE contact_id = 1 AND visit = 1$$), 'visit 1 of enrolment N: left with an outcome, or neither / no outcome', 'a visit left by no edge');
SELECT is(pg_temp.checked($$DELETE FROM crm.step_visit WHERE contact_id = 1 AND visit = 2$$), 'visits of enrolment N: 1 to 3 / 2 from 1 to 3', 'a gap');
SELECT is(pg_temp.checked($$UPDATE crm.enrolment SET visit = 5 WHERE contact_id = 2$$), 'visits of enrolment N: 1 to 5 / 4 from 1 to 4', 'a number too high');
SELECT is(pg_temp.checked($$DELETE FROM crm.step_visit WHERE contact_id = 2$$), 'visits of enrolment N: 1 to 4 / none', 'no visits at all');
SELECT is(pg_temp.checked($$DELETE FROM crm.enrolment WHERE contact_id = 2$$), 'visits without enrolment N: - / 4 rows', 'visits of nobody');
SELECT matches(pg_temp.checked($$UPDATE crm.step_visit SET message_id = 404 WHERE contact_id = 1 AND visit = 2$$), '^message of visit 2 of enrolment N: message 404 / -$', 'a message that there is not');
SELECT is(pg_temp.checked($$UPDATE crm.step_visit SET message_id = NULL WHERE contact_id = 1 AND visit = 2$$), 'message of visit 2 of enrolment N: a message / -', 'a send that sent nothing');
SELECT is(pg_temp.checked($$UPDATE crm.message SET awaited = false WHERE contact_id = 3$$), (SELECT 'message that enrolment ' || enrolment_id || ' waits for: an awaited message / message ' || message_id FROM crm.enrolment WHERE message_id IS NOT NULL), 'a message of which nobody would be told');
SELECT is(pg_temp.checked($$UPDATE crm.enrolment SET reply = '+8613800138000' WHERE contact_id = 2$$), 'reply of enrolment N: - / a number to be bound', 'a reply to nothing');
SELECT is(pg_temp.checked($$UPDATE crm.enrolment SET reply = '+8613800138000' WHERE contact_id = 1$$), NULL, 'one to a question');
SELECT is(pg_temp.checked($$UPDATE crm.enrolment SET reply = '+8613800138000', due_at = NULL WHERE contact_id = 1$$), 'due_at of enrolment N: when the reply is bound / -', 'that nobody would bind');
SELECT is(pg_temp.checked($$DROP INDEX crm.enrolment_active_idx; UPDATE crm.enrolment SET contact_id = 1 WHERE contact_id = 3; UPDATE crm.step_visit SET contact_id = 1 WHERE contact_id = 3; UPDATE crm.message SET contact_id = 1 WHERE contact_id = 3; UPDATE crm.outbox SET contact_id = 1 WHERE contact_id = 3;
  UPDATE crm.enrolment SET state = 'active', ended_at = NULL, end_reason = NULL, due_at = e.due_at, step_due_at = e.due_at FROM (SELECT due_at FROM crm.enrolment WHERE contact_id = 1 AND journey = 'tale' AND state = 'active') e WHERE end_reason = 'unenrolled';
  UPDATE crm.step_visit SET left_at = NULL, outcome = NULL WHERE outcome = 'unenrolled'$$), 'enrolments in journey tale: one that is active / 2', 'two at once');
SELECT matches(pg_temp.checked($$UPDATE crm.enrolment SET contact_id = 9 WHERE contact_id = 2; UPDATE crm.step_visit SET contact_id = 9 WHERE contact_id = 2; UPDATE crm.message SET contact_id = 9 WHERE contact_id = 2; UPDATE crm.outbox SET contact_id = 9 WHERE contact_id = 2; INSERT INTO crm.refusal VALUES (9, 'journey', 'tale', 'once', '2026-03-10', 1, crm.now(), crm.now())$$),
  'enrolment without contact: - / 1 rows; refusal without contact: - / 1 rows; step_visit without contact: - / 4 rows', 'people who are not there');
SELECT is_empty('SELECT * FROM crm.verify()', 'all of it undone');
SELECT crm.keep_roll_ups();
UPDATE crm.step_visit SET next_step = 'elsewhere' WHERE contact_id = 1 AND visit = 1;
SELECT is((SELECT count(*) FROM crm.verify() WHERE check_name LIKE 'visit\_count of step %'), 2::bigint, 'steps that are counted otherwise');
SELECT * FROM finish();
ROLLBACK;
