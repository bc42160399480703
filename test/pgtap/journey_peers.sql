-- journeys of other systems in our format (test/fixtures/journeys). What a test of theirs asserts is marked "peer";
-- the rest is what their documents say.
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
ALTER TABLE crm.contact ADD COLUMN plan text, ADD COLUMN onboarding text;
SELECT crm.install() \g /dev/null
SET pg_crm.clock = '2026-03-01 10:00+08';
SELECT no_plan();

INSERT INTO crm.account (kind, name) VALUES ('official_account', 'shop'), ('webhook', 'figures');
SELECT crm.define_template(jsonb_build_object('name', name, 'channel', 'official_account', 'message_type', 'text', 'body', jsonb_build_object('content', body)))
  FROM (VALUES ('peer_hello', 'Hello'), ('peer_thanks', 'Thanks'), ('peer_departure', '{{entry.city}} tomorrow'),
               ('peer_summary', 'Sold: {{context.stats.sold|nothing yet}}')) AS t(name, body) \g /dev/null
SELECT crm.define_template('{"name": "peer_stats", "channel": "webhook", "message_type": "post", "body": {"of": "vendors"}}'),
       crm.define_segment('{"name": "just_created", "rule": "created_at > as_of - interval ''30 minutes''"}'),
       crm.define_segment('{"name": "first_step", "rule": "onboarding = ''step1''"}') \g /dev/null

\set welcome `cat test/fixtures/journeys/welcome.json`
\set onboarding `cat test/fixtures/journeys/onboarding.json`
\set wait_for_plan `cat test/fixtures/journeys/wait_for_plan.json`
\set leave `cat test/fixtures/journeys/leave.json`
\set reservation `cat test/fixtures/journeys/reservation.json`
\set weekly_summary `cat test/fixtures/journeys/weekly_summary.json`
SELECT is(crm.publish_journey(document::jsonb), 1, document::jsonb ->> 'label')
  FROM unnest(ARRAY[:'welcome', :'onboarding', :'wait_for_plan', :'leave', :'reservation', :'weekly_summary']) AS document;

-- the steps of a contact with the outcome of each, how often, and what was sent
CREATE FUNCTION pg_temp.way(who bigint, of text) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg((SELECT string_agg(v.step || coalesce(':' || v.outcome, ''), ' ' ORDER BY v.visit) FROM crm.step_visit AS v
                        WHERE v.contact_id = e.contact_id AND v.enrolment_id = e.enrolment_id) || ' ' || e.state, '; ' ORDER BY e.enrolment_id)
      FROM crm.enrolment AS e WHERE e.contact_id = who AND e.journey = of
$$;
CREATE FUNCTION pg_temp.sends(who bigint, of text) RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FROM crm.step_visit AS v JOIN crm.message AS m USING (contact_id, message_id) WHERE v.contact_id = who AND v.journey = of
$$;
CREATE FUNCTION pg_temp.until(moment timestamptz) RETURNS void LANGUAGE sql AS $$
    SELECT set_config('pg_crm.clock', moment::text, false);
    SELECT crm.tick(moment);
$$;

-- all of them are created at ten
INSERT INTO crm.contact (contact_id) SELECT * FROM generate_series(1, 9);
SELECT is(count(*), 9::bigint, 'who is created enters') FROM crm.enrolment WHERE journey = 'peer_onboarding';

/* welcome */
SELECT crm.follow('shop', 'ada') AS ada \gset
SELECT crm.track(:ada, 'user_created'), crm.track(:ada, 'user_created'), crm.track(1, 'user_created') \g /dev/null
SELECT is(pg_temp.sends(:ada, 'peer_welcome'), 1::bigint, 'an event that comes twice: one message');
SELECT is(pg_temp.way(1, 'peer_welcome'), NULL, 'who cannot be written to never enters');

/* onboarding */
UPDATE crm.contact SET plan = 'paid' WHERE contact_id = 1;
SELECT pg_temp.until('2026-03-05 10:00+08') \g /dev/null
UPDATE crm.contact SET plan = 'paid' WHERE contact_id = 2;
UPDATE crm.contact SET plan = NULL WHERE contact_id = 1;
SELECT pg_temp.until('2026-03-08 09:59:59+08') \g /dev/null
SELECT is(pg_temp.way(3, 'peer_onboarding'), 'wait active', 'not before the week is over');
SELECT pg_temp.until('2026-03-08 10:00+08') \g /dev/null
SELECT is(pg_temp.way(2, 'peer_onboarding'), 'wait:next paid:1 finished', 'peer: paid when the week is over');
SELECT is(pg_temp.sends(2, 'peer_onboarding'), 0::bigint, 'peer: nothing is sent');
SELECT is(pg_temp.way(3, 'peer_onboarding'), 'wait:next paid:default mail:next finished', 'peer: never paid');
SELECT is(pg_temp.sends(3, 'peer_onboarding'), 1::bigint, 'peer: a message is sent');
SELECT is(pg_temp.way(1, 'peer_onboarding'), 'wait:next paid:default mail:next finished', 'what counts is how it is then');

/* wait for an upgrade */
UPDATE crm.contact SET onboarding = 'step1' WHERE contact_id IN (2, 4, 5);
SELECT is(pg_temp.way(2, 'peer_wait_for_plan'), 'wait:next mail_2:next finished', 'peer: paid before entering');
SELECT is(pg_temp.way(4, 'peer_wait_for_plan'), 'wait active', 'the others wait');
SELECT pg_temp.until('2026-03-08 20:00+08') \g /dev/null
UPDATE crm.contact SET plan = 'paid' WHERE contact_id = 5;
SELECT is(pg_temp.way(5, 'peer_wait_for_plan'), 'wait:next mail_2:next finished', 'peer: paid while waiting');
SELECT pg_temp.until('2026-03-09 09:59:59+08') \g /dev/null
SELECT is(pg_temp.way(4, 'peer_wait_for_plan'), 'wait active', 'not before the day is over');
SELECT pg_temp.until('2026-03-09 10:00+08') \g /dev/null
SELECT is(pg_temp.way(4, 'peer_wait_for_plan'), 'wait:timeout mail_1:next finished', 'peer: never paid');
SELECT results_eq($$SELECT m.contact_id, m.template FROM crm.step_visit AS v JOIN crm.message AS m USING (contact_id, message_id) WHERE v.journey = 'peer_wait_for_plan' ORDER BY 1$$,
    $$VALUES (2::bigint, 'peer_thanks'), (4, 'peer_hello'), (5, 'peer_thanks')$$, 'each got his one message');

/* leave */
SELECT crm.track(6, 'exit_test') \g /dev/null
SELECT pg_temp.until('2026-03-09 11:00+08') \g /dev/null
SELECT crm.track(6, 'enter_test'), crm.track(7, 'enter_test') \g /dev/null
SELECT pg_temp.until('2026-03-09 12:00+08') \g /dev/null
SELECT crm.track(6, 'exit_test') \g /dev/null
SELECT is(pg_temp.way(6, 'peer_leave'), 'wait:rule exited', 'the event ends it at the step, one before the entry does not');
SELECT pg_temp.until('2026-03-10 11:00+08') \g /dev/null
SELECT is(pg_temp.way(6, 'peer_leave'), 'wait:rule exited', 'and nothing happens when the wait would be over');
SELECT is(pg_temp.way(7, 'peer_leave'), 'wait:next send:next finished', 'as it does for others');

/* reservations */
SELECT crm.track(8, 'ticket_purchased', '{"departs_at": "2026-03-20T18:00:00+08:00", "city": "Xiamen"}'),
       crm.track(8, 'ticket_purchased', '{"departs_at": "2026-03-15T07:30:00+08:00", "city": "Suzhou"}'),
       crm.track(9, 'ticket_purchased', '{"departs_at": "2026-03-10T20:00:00+08:00", "city": "Wuxi"}') \g /dev/null
SELECT is(pg_temp.way(8, 'peer_reservation'), 'until active; until active', 'two tickets: two runs');
SELECT is(pg_temp.way(9, 'peer_reservation'), 'until:next send:next finished', 'a time that is past is not waited for');
SELECT pg_temp.until('2026-03-14 07:30+08') \g /dev/null
SELECT is(pg_temp.way(8, 'peer_reservation'), 'until active; until:next send:next finished', 'each has its own time');
SELECT pg_temp.until('2026-03-19 18:00+08') \g /dev/null
SELECT results_eq($$SELECT m.params #>> '{entry,city}', m.due_at FROM crm.message AS m WHERE m.contact_id = 8 AND m.template = 'peer_departure' ORDER BY m.message_id$$,
    $$VALUES ('Suzhou', '2026-03-14 07:30+08'::timestamptz), ('Xiamen', '2026-03-19 18:00+08')$$, 'and its own words');

/* every Monday */
UPDATE crm.contact SET tags = '{vendor}' WHERE contact_id IN (1, 2);
SELECT is((SELECT count(*) FROM crm.enrolment WHERE journey = 'peer_weekly_summary'), 0::bigint, 'nobody is on the list, nobody enters');
SELECT pg_temp.until('2026-03-23 12:00+08'), pg_temp.until('2026-03-24 12:00+08') \g /dev/null
SELECT pg_temp.until('2026-03-30 12:00+08') \g /dev/null
SELECT results_eq($$SELECT contact_id, entered_at FROM crm.enrolment WHERE journey = 'peer_weekly_summary' ORDER BY 2, 1$$,
    $$VALUES (1::bigint, '2026-03-23 09:00+08'::timestamptz), (2, '2026-03-23 09:00+08'), (1, '2026-03-30 09:00+08'), (2, '2026-03-30 09:00+08')$$, 'the whole list, on Mondays');
SELECT is(pg_temp.way(1, 'peer_weekly_summary'), 'stats active; stats active', 'the figures are asked for');
SELECT crm.cancel_message(contact_id, message_id) FROM crm.message WHERE template = 'peer_stats' AND contact_id = 1 ORDER BY message_id LIMIT 1 \g /dev/null
SELECT pg_temp.until('2026-03-30 12:01+08') \g /dev/null
SELECT is(pg_temp.way(1, 'peer_weekly_summary'), 'stats:refused send:next finished; stats active', 'and without an answer it goes on all the same');

SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
SELECT * FROM finish();
ROLLBACK;
