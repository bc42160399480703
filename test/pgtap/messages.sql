-- what follows from send(), from facts on accounts and from what people say about being written to, row by row
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET timezone = 'UTC';
SET pg_crm.clock = '2024-06-01 12:00Z';
SELECT no_plan();

INSERT INTO crm.account (account_id, kind, name) VALUES (1, 'official_account', 'oa'), (2, 'webhook', 'till'), (3, 'mini_program', 'mini'), (4, 'official_account', 'oa2');
INSERT INTO crm.contact (contact_id) VALUES (1), (2), (3);
CREATE FUNCTION pg_temp.define(name text, change jsonb) RETURNS int LANGUAGE sql AS
$$SELECT crm.define_template('{"channel": "official_account", "message_type": "text", "account": "oa", "body": {"content": "Hello"}}' || jsonb_build_object('name', name) || change)$$;
SELECT pg_temp.define('text', '{}'), pg_temp.define('offer', '{"class": "marketing"}'),
       pg_temp.define('order', '{"message_type": "template", "body": {"template_id": "T", "data": {"a": {"value": "b"}}}}'),
       pg_temp.define('order offer', '{"class": "marketing", "message_type": "template", "body": {"template_id": "T", "data": {"a": {"value": "b"}}}}'),
       pg_temp.define('tell', '{"channel": "webhook", "account": null, "message_type": "post", "body": {"a": "b"}}'),
       pg_temp.define('urgent offer', '{"class": "marketing", "lane": "urgent"}'), pg_temp.define('bulk text', '{"lane": "bulk"}'),
       pg_temp.define('hour', '{"valid_for": "1 hour"}'), pg_temp.define('day', '{"valid_for": "1 day"}'), pg_temp.define('month', '{"valid_for": "1 month"}') \g /dev/null

-- a message and its place in the queue
SELECT crm.send(1, 'text', '{"a": [1, null]}', 'k', '2024-06-02Z', '2024-06-03Z') AS message \gset
SELECT results_eq(format('SELECT contact_id, account_id, template, template_version, channel, class, state, reason, params, send_key, recorded_at, due_at, expires_at, '
    'attempt_id, tried_at, grant_id, sent_at, ended_at FROM crm.message WHERE message_id = %s', :message),
    $$VALUES (1::bigint, 1::bigint, 'text', 1, 'official_account', 'service', 'queued', NULL::text, '{"a": [1, null]}'::jsonb, 'k', '2024-06-01 12:00Z'::timestamptz,
              '2024-06-02Z'::timestamptz, '2024-06-03Z'::timestamptz, NULL::bigint, NULL::timestamptz, NULL::bigint, NULL::timestamptz, NULL::timestamptz)$$, 'the message');
SELECT results_eq(format('SELECT contact_id, account_id, lane, due_at, lease, attempt_id, attempts FROM crm.outbox WHERE message_id = %s', :message),
    $$VALUES (1::bigint, 1::bigint, 'urgent', '2024-06-02Z'::timestamptz, NULL::timestamptz, NULL::bigint, 0)$$, 'and its place');
SELECT is(crm.send(1, 'text', '{"a": [1, null]}', 'k'), :message::bigint, 'its key returns it');
SELECT is((SELECT count(*) FROM crm.message), 1::bigint, 'and makes no other');
SELECT is((SELECT count(*) FROM crm.outbox), 1::bigint);
SELECT is(crm.cancel_message(1, :message), true);
SELECT is(crm.send(1, 'text', '{"a": [1, null]}', 'k'), :message::bigint, 'also when it was cancelled');
SELECT is((SELECT count(*) FROM crm.outbox), 0::bigint, 'and queues nothing anew');
SELECT isnt(crm.send(1, 'text'), crm.send(1, 'text'), 'without a key each call is a message');

-- lanes
SELECT crm.send(2, t.name, send_key => 'lane ' || t.name) FROM unnest(ARRAY['text', 'offer', 'order', 'order offer', 'tell', 'urgent offer', 'bulk text']) AS t(name) \g /dev/null
SELECT results_eq($$SELECT m.template, o.lane FROM crm.outbox o JOIN crm.message m USING (contact_id, message_id) WHERE m.send_key LIKE 'lane %' ORDER BY m.template COLLATE "C"$$,
    $$VALUES ('bulk text', 'bulk'), ('offer', 'bulk'), ('order', 'normal'), ('order offer', 'bulk'), ('tell', 'normal'), ('text', 'urgent'), ('urgent offer', 'urgent')$$,
    'what persuades goes last, what answers first, unless the template says otherwise');

-- until when
SET pg_crm.time_zone = 'Europe/Berlin';
SET timezone = 'America/New_York';
SELECT crm.send(3, t.name, send_key => t.name, due_at => t.at::timestamptz)
  FROM (VALUES ('hour', '2024-03-30 23:30Z'), ('day', '2024-03-30 12:00Z'), ('month', '2024-01-30 23:30Z'), ('text', '2024-03-30 12:00Z')) AS t(name, at) \g /dev/null
SELECT results_eq('SELECT send_key, expires_at FROM crm.message WHERE contact_id = 3 ORDER BY 1',
    $$VALUES ('day', '2024-03-31 11:00Z'::timestamptz), ('hour', '2024-03-31 00:30Z'), ('month', '2024-02-28 23:30Z'), ('text', NULL)$$,
    'from when it is due, days and months on the clock of pg_crm.time_zone');
SELECT crm.send(3, 'hour', send_key => 'longer', expires_at => '2024-07-01Z') \g /dev/null
SELECT is((SELECT expires_at FROM crm.message WHERE send_key = 'longer'), '2024-07-01Z'::timestamptz, 'what the caller says comes first');
RESET pg_crm.time_zone;
SET timezone = 'UTC';

-- a message keeps the version that it was queued with
SELECT is(pg_temp.define('text', '{"body": {"content": "Good day"}}'), 2);
SELECT crm.send(1, 'text') AS newer \gset
SELECT results_eq(format('SELECT m.template_version, v.body ->> ''content'' FROM crm.message m JOIN crm.template_version v ON v.name = m.template AND v.version = m.template_version '
    'WHERE message_id IN (%s, %s) ORDER BY message_id', :message, :newer), $$VALUES (1, 'Hello'), (2, 'Good day')$$);

-- many
SELECT is(crm.send_many('{3,1,2,2}', 'text', '{"a": 1}', 'many', '2024-06-05Z'), 3::bigint, 'one each');
SELECT is(crm.send_many('{3,1}', 'text', '{"a": 1}', 'many'), 0::bigint, 'once');
INSERT INTO crm.contact (contact_id) VALUES (9);
SELECT is(crm.send_many('{9,3,1}', 'text', '{"a": 1}', 'many'), 1::bigint, 'only to whom it is new');
SELECT results_eq($$SELECT m.contact_id, m.due_at, o.due_at FROM crm.message m JOIN crm.outbox o USING (contact_id, message_id) WHERE send_key = 'many' ORDER BY 1$$,
    $$SELECT n::bigint, d, d FROM (VALUES (1, '2024-06-05Z'::timestamptz), (2, '2024-06-05Z'), (3, '2024-06-05Z'), (9, '2024-06-01 12:00Z')) AS v(n, d)$$);

-- windows: by kind of fact and of account
CREATE FUNCTION pg_temp.windows(contact bigint) RETURNS text LANGUAGE sql AS
$$SELECT string_agg(format('%s@%s %s %s-%s', g.kind, a.name, coalesce(g.quota::text, 'any'), to_char(g.opened_at, 'DD HH24:MI:SS'), to_char(g.expires_at, 'DD HH24:MI:SS')),
        ', ' ORDER BY g.opened_at, a.name, g.kind, g.grant_id) FROM crm.window_grant g JOIN crm.account a USING (account_id) WHERE g.contact_id = contact$$;
CREATE FUNCTION pg_temp.follows(contact bigint) RETURNS text LANGUAGE sql AS
$$SELECT string_agg(format('%s %s/%s', a.name, to_char(f.followed_at, 'DD HH24:MI'), to_char(f.unfollowed_at, 'DD HH24:MI')), ', ' ORDER BY a.name)
    FROM crm.follower f JOIN crm.account a USING (account_id) WHERE f.contact_id = contact$$;
INSERT INTO crm.contact (contact_id) SELECT generate_series(11, 40);
SELECT crm.track(11, k.kind, at => '2024-06-01 11:59:30Z', account => a.name, key => k.kind || a.name)
  FROM unnest(ARRAY['cart', 'enter_session', 'menu_click', 'message']) AS k(kind), unnest(ARRAY['oa', 'mini']) AS a(name) \g /dev/null
SELECT is(pg_temp.windows(11), 'enter_session@mini 2 01 11:59:30-01 12:00:30, message@mini 5 01 11:59:30-03 11:59:30, '
    'menu_click@oa 3 01 11:59:30-01 12:00:30, message@oa 5 01 11:59:30-03 11:59:30', 'kinds that the platform knows, wider ones too');
SELECT is(pg_temp.follows(11), NULL);
SELECT crm.track(12, 'message', at => '2024-06-01 11:00Z'), crm.track(12, 'message', at => '2024-06-01 11:00Z', account => 'till') \g /dev/null
SELECT is(pg_temp.windows(12), NULL, 'none without an account, nor on one that has none');
SELECT crm.track(12, 'message', at => '2024-06-01 11:00Z', key => 'one', account => 'oa') FROM generate_series(1, 3) \g /dev/null
SELECT is(pg_temp.windows(12), 'message@oa 5 01 11:00:00-03 11:00:00', 'one for a fact told three times');
SELECT crm.track(12, 'message', at => '2024-06-01 11:00:01Z', account => 'oa') \g /dev/null
SELECT is(pg_temp.windows(12), 'message@oa 5 01 11:00:00-03 11:00:00, message@oa 5 01 11:00:01-03 11:00:01', 'another for another fact');
UPDATE crm.window_rule SET quota = NULL, valid_for = '1 hour' WHERE account_kind = 'official_account' AND kind = 'menu_click';
INSERT INTO crm.window_rule VALUES ('official_account', 'payment', NULL, '48 hours');
SELECT crm.track(13, 'menu_click', at => '2024-06-01 11:59Z', account => 'oa'), crm.track(13, 'payment', at => '2024-06-01 11:30Z', account => 'oa') \g /dev/null
INSERT INTO crm.contact (contact_id) VALUES (140);
INSERT INTO crm.event (contact_id, kind, occurred_at, account_id) VALUES (140, 'menu_click', '2024-06-01 11:30Z', 1), (140, 'message', '2024-06-01 11:30Z', 1);
SELECT is(pg_temp.windows(140), 'menu_click@oa any 01 11:30:00-01 12:30:00, message@oa 5 01 11:30:00-03 11:30:00', 'of two facts of one second each opens its window where neither is as wide as the other');
SELECT is(pg_temp.windows(13), 'payment@oa any 01 11:30:00-03 11:30:00, menu_click@oa any 01 11:59:00-01 12:59:00', 'the numbers are rows');

-- follows and scans
INSERT INTO crm.qr_code (account_id, scene) VALUES (1, 'door');
SELECT crm.follow('oa', 'o21', '2024-06-01 11:59:30Z', 'door') AS o21 \gset
SELECT is(pg_temp.windows(:o21), 'follow@oa 3 01 11:59:30-01 12:00:30', 'a follow by a scan is one act');
SELECT is(pg_temp.follows(:o21), 'oa 01 11:59/');
SELECT crm.scan('door', 'oa', 'o21', '2024-06-01 11:59:40Z', 's') FROM generate_series(1, 2) \g /dev/null
SELECT is(pg_temp.windows(:o21), 'follow@oa 3 01 11:59:30-01 12:00:30, scan@oa 3 01 11:59:40-01 12:00:40', 'a scan another, told twice');
SELECT crm.track(:o21, 'message', at => '2024-06-01 11:59:50Z', account => 'oa'), crm.track(:o21, 'message', at => '2024-06-01 11:59:50Z', account => 'oa2') \g /dev/null
SELECT crm.unfollow('oa', 'o21', '2024-06-01 11:59:55Z') \g /dev/null
SELECT is(pg_temp.windows(:o21), 'follow@oa 3 01 11:59:30-01 11:59:55, scan@oa 3 01 11:59:40-01 11:59:55, '
    'message@oa 5 01 11:59:50-01 11:59:55, message@oa2 5 01 11:59:50-03 11:59:50', 'who leaves closes the windows of that account');
SELECT is(pg_temp.follows(:o21), 'oa 01 11:59/01 11:59');
SELECT crm.track(:o21, 'message', at => '2024-06-01 11:59:20Z', account => 'oa') \g /dev/null
SELECT is((SELECT count(*) FROM crm.window_grant WHERE contact_id = :o21), 4::bigint, 'what is told after the leave, of before, opens none');
SELECT crm.follow('oa', 'o21', '2024-06-01 11:59:58Z') \g /dev/null
SELECT matches(pg_temp.windows(:o21), 'follow@oa 3 01 11:59:58-01 12:00:58$', 'who comes back opens one');
SELECT is(pg_temp.follows(:o21), 'oa 01 11:59/01 11:59');

-- rows by INSERT and COPY open the same
INSERT INTO crm.scan (contact_id, qr_code_id, occurred_at) SELECT n, 1, '2024-06-01 11:59:30Z' FROM generate_series(22, 24) AS n;
COPY crm.scan (contact_id, qr_code_id, occurred_at) FROM STDIN;
23	1	2024-06-01 11:59:40Z
25	1	2024-06-01 11:59:30Z
\.
COPY crm.event (contact_id, kind, occurred_at, account_id) FROM STDIN;
26	follow	2024-06-01 11:59:30Z	1
26	unfollow	2024-06-01 11:59:40Z	1
26	message	2024-06-01 11:59:20Z	1
26	follow	2024-06-01 11:59:50Z	4
27	message	2024-06-01 11:00:00Z	\N
\.
SELECT results_eq('SELECT contact_id, count(*) FROM crm.window_grant WHERE contact_id BETWEEN 22 AND 27 GROUP BY 1 ORDER BY 1',
    'VALUES (22::bigint, 1::bigint), (23, 2), (24, 1), (25, 1), (26, 3)', 'INSERT and COPY');
SELECT is(pg_temp.windows(26), 'message@oa 5 01 11:59:20-01 11:59:40, follow@oa 3 01 11:59:30-01 11:59:40, follow@oa2 3 01 11:59:50-01 12:00:50', 'all of one statement, in the order of their times');
SELECT is(pg_temp.follows(26), 'oa 01 11:59/01 11:59, oa2 01 11:59/');

-- history does not speak
SET pg_crm.max_lateness = '1h';
UPDATE crm.window_rule SET valid_for = '48 hours' WHERE account_kind = 'official_account';
SELECT crm.track(28, 'message', at => '2024-06-01 11:00:00Z', account => 'oa'), crm.track(28, 'message', at => '2024-06-01 10:59:59Z', account => 'oa'),
       crm.follow('oa', 'o29', '2024-05-01Z') \g /dev/null
SELECT is(pg_temp.windows(28), 'message@oa 5 01 11:00:00-03 11:00:00', 'an hour is not too late, a second more is');
SELECT is((SELECT pg_temp.windows(contact_id) || pg_temp.follows(contact_id) FROM crm.identity WHERE external_id = 'o29'), NULL, 'a follow of long ago opens none');
SELECT is((SELECT pg_temp.follows(contact_id) FROM crm.identity WHERE external_id = 'o29'), 'oa 01 00:00/', 'but is one');
RESET pg_crm.max_lateness;
SELECT crm.unfollow('oa', 'o30', '2024-05-03Z'), crm.follow('oa', 'o30', '2024-05-01Z'), crm.follow('oa', 'o30', '2024-04-01Z'), crm.unfollow('oa', 'o30', '2024-04-02Z') \g /dev/null
SELECT is((SELECT pg_temp.follows(contact_id) FROM crm.identity WHERE external_id = 'o30'), 'oa 01 00:00/03 00:00', 'the last of each, in whatever order they are told');

-- recompute() finds followers anew
CREATE TABLE followers AS TABLE crm.follower;
DELETE FROM crm.follower WHERE contact_id = 26;
UPDATE crm.follower SET unfollowed_at = NULL;
INSERT INTO crm.follower VALUES (27, 1, crm.now(), NULL);
SELECT crm.recompute() \g /dev/null
SELECT set_eq('TABLE crm.follower', 'TABLE followers', 'recompute() finds who follows');

-- consent
CREATE FUNCTION pg_temp.said(contact bigint) RETURNS text LANGUAGE sql AS
$$SELECT string_agg(format('%s %s %s %s %s', channel, class, CASE WHEN granted THEN 'yes' ELSE 'no' END, to_char(since, 'DD HH24:MI'), proof), ', ' ORDER BY channel, class)
    FROM crm.consent WHERE contact_id = contact$$;
SELECT crm.grant_consent(31, 'sms', 'marketing', '2024-05-10Z', '{"form": 7, "page": null}'), crm.grant_consent(31, 'sms', 'service') \g /dev/null
SELECT is(pg_temp.said(31), 'sms marketing yes 10 00:00 {"form": 7, "page": null}, sms service yes 01 12:00 {}', 'what was said, when, on what proof');
SELECT results_eq($$SELECT kind, occurred_at, account_id, properties FROM crm.event WHERE contact_id = 31 ORDER BY event_id$$,
    $$VALUES ('grant_consent', '2024-05-10Z'::timestamptz, NULL::bigint, '{"class": "marketing", "channel": "sms", "proof": {"form": 7, "page": null}}'::jsonb),
             ('grant_consent', '2024-06-01 12:00Z', NULL, '{"class": "service", "channel": "sms"}')$$, 'and an event each time');
SELECT crm.withdraw_consent(31, 'sms', 'marketing', '2024-05-09Z') \g /dev/null
SELECT is(pg_temp.said(31), 'sms marketing yes 10 00:00 {"form": 7, "page": null}, sms service yes 01 12:00 {}', 'an earlier word does not count');
SELECT crm.withdraw_consent(31, 'sms', 'marketing', '2024-05-10Z') \g /dev/null
SELECT is(pg_temp.said(31), 'sms marketing no 10 00:00 {}, sms service yes 01 12:00 {}', 'of two at one instant the no');
SELECT crm.grant_consent(31, 'sms', 'marketing', '2024-05-10Z') \g /dev/null
SELECT is(pg_temp.said(31), 'sms marketing no 10 00:00 {}, sms service yes 01 12:00 {}', 'whatever was said first');
SELECT crm.grant_consent(31, 'sms', 'marketing', '2024-05-11Z', '{"form": 8}') \g /dev/null
SELECT is(pg_temp.said(31), 'sms marketing yes 11 00:00 {"form": 8}, sms service yes 01 12:00 {}', 'a later word counts');
SELECT is((SELECT count(*) FROM crm.event WHERE contact_id = 31), 6::bigint, 'all of them are kept');

-- who was merged gets its messages as the survivor
SELECT crm.merge(33, 34) AS survivor \gset
SELECT crm.send(34, 'text', send_key => 'to 34') AS message \gset
SELECT is((SELECT contact_id FROM crm.message WHERE message_id = :message), :survivor::bigint, 'send()');
SELECT is(crm.send_many('{34,33,35}', 'text', send_key => 'both'), 2::bigint, 'send_many(), once for the two');
SELECT crm.withdraw_consent(34, 'wecom', 'service') \g /dev/null
SELECT is(pg_temp.said(:survivor), 'wecom service no 01 12:00 {}');
SELECT is(crm.cancel_message(34, :message), true, 'cancel_message()');

-- rights
CREATE ROLE plain; CREATE ROLE backend; CREATE ROLE marketing; CREATE ROLE sender; CREATE ROLE bi;
SELECT crm.grant_access('backend', 'app'), crm.grant_access('marketing', 'marketer'), crm.grant_access('sender', 'dispatcher'), crm.grant_access('bi', 'analyst') \g /dev/null
GRANT USAGE ON SCHEMA crm TO plain;
INSERT INTO crm.account_secret VALUES (1, 'app_secret', 'hush');
INSERT INTO crm.account_token (account_id, token) VALUES (1, 'hush');
CREATE TABLE calls AS SELECT * FROM (VALUES
    ('send', $$SELECT crm.send(1, 'text')$$), ('send_many', $$SELECT crm.send_many('{1}', 'text')$$),
    ('cancel_message', $$SELECT crm.cancel_message(1, 1)$$), ('resolve_message', $$SELECT crm.resolve_message(1, 1, 'sent')$$),
    ('grant_consent', $$SELECT crm.grant_consent(1, 'sms', 'marketing')$$), ('withdraw_consent', $$SELECT crm.withdraw_consent(1, 'sms', 'marketing')$$),
    ('define_template', $$SELECT crm.define_template('{"name": "t", "channel": "webhook", "message_type": "post", "body": {}}')$$),
    ('secrets', 'SELECT FROM crm.account_secret'), ('tokens', 'SELECT FROM crm.account_token'), ('what messages say', 'SELECT params FROM crm.message'),
    ('a message', 'UPDATE crm.message SET state = ''sent'''), ('the queue', 'DELETE FROM crm.outbox'), ('a message of one''s own',
    'INSERT INTO crm.message (contact_id, account_id, template, template_version, channel, class) VALUES (1, 1, ''text'', 1, ''official_account'', ''service'')')) AS v (what, statement);
CREATE FUNCTION pg_temp.allowed(as_role text, statement text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SET LOCAL ROLE %I', as_role);
    BEGIN
        EXECUTE statement;
    EXCEPTION WHEN insufficient_privilege THEN
        RESET ROLE;
        RETURN false;
    WHEN others THEN
        NULL;
    END;
    RESET ROLE;
    RETURN true;
END $$;
CREATE FUNCTION pg_temp.may(as_role text) RETURNS text[] LANGUAGE sql AS
$$SELECT array_agg(what ORDER BY what COLLATE "C") FROM calls WHERE pg_temp.allowed(as_role, statement)$$;
SELECT is(pg_temp.may('plain'), NULL, 'a plain role may do nothing of this');
SELECT is(pg_temp.may('backend'), '{cancel_message,grant_consent,send,send_many,what messages say,withdraw_consent}', 'the backend sends and records what people say');
SELECT is(pg_temp.may('marketing'), '{cancel_message,define_template,send_many}', 'the marketer defines and sends to many');
SELECT is(pg_temp.may('sender'), '{resolve_message,secrets,tokens}', 'the dispatcher reads secrets and settles, and reads no words');
SELECT is(pg_temp.may('bi'), NULL, 'the analyst reads no words to people');

SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
SELECT * FROM finish();
ROLLBACK;
