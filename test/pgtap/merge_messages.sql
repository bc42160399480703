-- crm.merge() and crm.unmerge(): messages, the queue, windows, consent and who follows
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET pg_crm.clock = '2024-06-01 12:00Z';
SELECT no_plan();

INSERT INTO crm.account (account_id, kind, name) VALUES (1, 'official_account', 'oa'), (2, 'webhook', 'till');
SELECT crm.define_template('{"name": "hello", "channel": "official_account", "message_type": "text", "body": {"content": "Hello"}}'),
       crm.define_template('{"name": "spring", "channel": "official_account", "message_type": "text", "class": "marketing", "body": {"content": "Spring"}}'),
       crm.define_template('{"name": "tell", "channel": "webhook", "message_type": "post", "body": {"a": "b"}}') \g /dev/null

-- every row of the tables of messages, by contact
CREATE FUNCTION pg_temp.portrait(contact bigint) RETURNS jsonb LANGUAGE sql AS
$$SELECT jsonb_build_object(
    'message', (SELECT jsonb_agg(m ORDER BY message_id) FROM crm.message m WHERE contact_id = $1),
    'outbox', (SELECT jsonb_agg(o ORDER BY message_id) FROM crm.outbox o WHERE contact_id = $1),
    'delivery_attempt', (SELECT jsonb_agg(d ORDER BY attempt_id) FROM crm.delivery_attempt d WHERE contact_id = $1),
    'message_unknown', (SELECT jsonb_agg(u ORDER BY message_id) FROM crm.message_unknown u WHERE contact_id = $1),
    'message_end', (SELECT jsonb_agg(e ORDER BY message_id) FROM crm.message_end e WHERE contact_id = $1),
    'window_grant', (SELECT jsonb_agg(w ORDER BY grant_id) FROM crm.window_grant w WHERE contact_id = $1),
    'follower', (SELECT jsonb_agg(f ORDER BY account_id) FROM crm.follower f WHERE contact_id = $1),
    'consent', (SELECT jsonb_agg(c ORDER BY channel, class) FROM crm.consent c WHERE contact_id = $1),
    'suppression', (SELECT jsonb_agg(s ORDER BY s.channel) FROM crm.suppression s WHERE contact_id = $1))$$;
CREATE FUNCTION pg_temp.messages(contact bigint) RETURNS text LANGUAGE sql AS
$$SELECT string_agg(concat_ws(' ', m.send_key, m.state, m.reason, o.lane), ', ' ORDER BY m.message_id)
    FROM crm.message m LEFT JOIN crm.outbox o USING (contact_id, message_id) WHERE m.contact_id = $1$$;
CREATE FUNCTION pg_temp.consents(contact bigint) RETURNS text LANGUAGE sql AS
$$SELECT string_agg(format('%s %s %s %s %s', channel, class, CASE WHEN granted THEN 'yes' ELSE 'no' END,
        extract(day FROM since AT TIME ZONE 'UTC'), proof), ', ' ORDER BY channel, class)
    FROM crm.consent WHERE contact_id = $1$$;
CREATE TABLE before AS SELECT 0::bigint AS contact_id, NULL::jsonb AS portrait LIMIT 0;
-- rows of the queue and of what it is about name the same contact
CREATE VIEW astray AS
SELECT 'outbox' AS found_in, message_id FROM crm.outbox o WHERE NOT EXISTS (SELECT FROM crm.message m WHERE m.contact_id = o.contact_id
    AND m.message_id = o.message_id AND m.state IN ('queued', 'sending'))
UNION ALL SELECT 'message', message_id FROM crm.message m WHERE m.state IN ('queued', 'sending')
    AND NOT EXISTS (SELECT FROM crm.outbox o WHERE m.contact_id = o.contact_id AND m.message_id = o.message_id)
UNION ALL SELECT 'delivery_attempt', message_id FROM crm.delivery_attempt d WHERE NOT EXISTS (SELECT FROM crm.message m
    WHERE m.contact_id = d.contact_id AND m.message_id = d.message_id)
UNION ALL SELECT 'message_unknown', message_id FROM crm.message_unknown u WHERE NOT EXISTS (SELECT FROM crm.message m
    WHERE m.contact_id = u.contact_id AND m.message_id = u.message_id AND m.state = 'unknown')
UNION ALL SELECT 'message_end', message_id FROM crm.message_end e WHERE NOT EXISTS (SELECT FROM crm.message m
    WHERE m.contact_id = e.contact_id AND m.message_id = e.message_id AND m.awaited AND m.state NOT IN ('queued', 'sending'))
UNION ALL SELECT 'grant', message_id FROM crm.message m WHERE m.grant_id IS NOT NULL AND NOT EXISTS (SELECT FROM crm.window_grant g
    WHERE m.contact_id = g.contact_id AND m.grant_id = g.grant_id);

-- everything that a contact can have, there and back
INSERT INTO crm.contact (contact_id, created_at) VALUES (1, '2020-01-01Z'), (2, '2021-01-01Z');
INSERT INTO crm.identity (kind, account_id, external_id, contact_id) VALUES ('openid', 1, 'o1', 1), ('openid', 1, 'o2', 2);
SELECT crm.follow('oa', 'o1', '2024-05-01Z'), crm.follow('oa', 'o2', '2024-06-01 11:59:30Z'), crm.unfollow('oa', 'o1', '2024-05-20Z') \g /dev/null
SELECT crm.track(1, 'message', at => '2024-06-01 11:00Z', account => 'oa'), crm.track(2, 'message', at => '2024-06-01 11:30Z', account => 'oa') \g /dev/null
SELECT crm.suppress(1, 'sms', 'asked'), crm.suppress(2, 'sms', 'asked too'), crm.suppress(2, 'email') \g /dev/null
SELECT crm.send(1, 'hello', send_key => 'alone'), crm.send(2, 'hello', send_key => 'other'), crm.send(2, 'tell', '{"n": 1}'),
       crm.send(2, 'spring', due_at => '2024-07-01Z', expires_at => '2024-08-01Z') \g /dev/null
SELECT crm.send(2, 'hello') AS lost, crm.send(2, 'hello') AS going \gset
-- as the worker leaves them: one unknown, one on its way
INSERT INTO crm.delivery_attempt (contact_id, attempt_id, message_id, occurred_at, outcome) VALUES (2, 900, :lost, crm.now(), 'no_reply');
UPDATE crm.message SET awaited = true, state = 'unknown', reason = 'no_reply', attempt_id = 900, tried_at = crm.now(),
    grant_id = (SELECT min(grant_id) FROM crm.window_grant WHERE contact_id = 2) WHERE message_id = :lost;
DELETE FROM crm.outbox WHERE message_id = :lost;
UPDATE crm.window_grant SET used = 1 WHERE contact_id = 2 AND grant_id = (SELECT min(grant_id) FROM crm.window_grant WHERE contact_id = 2);
INSERT INTO crm.message_unknown VALUES (2, :lost, crm.now());
INSERT INTO crm.message_end VALUES (2, :lost, crm.now() + interval '1 hour');
UPDATE crm.message SET state = 'sending', attempt_id = 901, tried_at = crm.now() WHERE message_id = :going;
UPDATE crm.outbox SET lease = crm.now() + interval '1 minute', attempt_id = 901, attempts = 1 WHERE message_id = :going;
SELECT is_empty('TABLE astray', 'sound before');
INSERT INTO before SELECT n, pg_temp.portrait(n) FROM generate_series(1, 2) AS n;
SELECT is((SELECT count(*) FROM before, jsonb_each(portrait) WHERE contact_id = 2 AND value = 'null' AND key <> 'consent'), 0::bigint, 'there is something of everything');

SELECT is(crm.merge(1, 2), 1::bigint);
SELECT is((SELECT count(*) FROM jsonb_each(pg_temp.portrait(2)) WHERE value <> 'null'), 0::bigint, 'nothing is left of the other');
SELECT is_empty('TABLE astray', 'messages, queue, attempts and windows went together');
SELECT is(pg_temp.messages(1), 'alone queued urgent, other queued urgent, queued normal, queued bulk, unknown no_reply, sending urgent');
SELECT results_eq('SELECT kind, opened_at FROM crm.window_grant WHERE contact_id = 1 ORDER BY grant_id',
    $$VALUES ('follow', '2024-06-01 11:59:30Z'::timestamptz), ('message', '2024-06-01 11:00Z'), ('message', '2024-06-01 11:30Z')$$, 'windows are joined');
SELECT results_eq('SELECT account_id, followed_at, unfollowed_at FROM crm.follower WHERE contact_id = 1',
    $$VALUES (1::bigint, '2024-06-01 11:59:30Z'::timestamptz, '2024-05-20Z'::timestamptz)$$, 'the last follow of both');
SELECT results_eq('SELECT channel, reason FROM crm.suppression WHERE contact_id = 1 ORDER BY channel',
    $$VALUES ('email', NULL), ('sms', 'asked')$$, 'who was suppressed stays so');
SELECT is(crm.send(2, 'hello', send_key => 'other'), crm.send(1, 'hello', send_key => 'other'), 'keys of the other are the survivor''s');
SELECT throws_ok($$SELECT crm.send(2, 'tell', send_key => 'other')$$, '23505', NULL, 'and stand for what they stood for');
SELECT is_empty('SELECT * FROM crm.verify()');
SELECT is(crm.unmerge(2), 2::bigint);
SELECT is(pg_temp.portrait(b.contact_id) -> k.key, k.value, format('%s of %s as before', k.key, b.contact_id))
  FROM before b, jsonb_each(b.portrait) k ORDER BY b.contact_id, k.key;
SELECT is_empty('TABLE astray');

-- one key of both
INSERT INTO crm.contact (contact_id, created_at) VALUES (11, '2020-01-01Z'), (12, '2021-01-01Z');
SELECT crm.send_many('{11,12}', 'hello', send_key => 'both queued'), crm.send_many('{11,12}', 'hello', send_key => 'loser sent'),
       crm.send_many('{11,12}', 'hello', send_key => 'survivor sent'), crm.send_many('{11,12}', 'hello', send_key => 'both sent'),
       crm.send_many('{11,12}', 'hello', send_key => 'survivor failed'), crm.send_many('{11,12}', 'hello', send_key => 'survivor perhaps'),
       crm.send(11, 'hello', send_key => 'other content'), crm.send(12, 'tell', send_key => 'other content'),
       crm.send(12, 'hello', send_key => 'both sent#12') \g /dev/null
CREATE FUNCTION pg_temp.ended(contact bigint, key text, new_state text) RETURNS void LANGUAGE sql AS
$$UPDATE crm.message SET state = new_state, tried_at = crm.now(), ended_at = crm.now() WHERE contact_id = contact AND send_key = key;
DELETE FROM crm.outbox USING crm.message m WHERE outbox.contact_id = contact AND m.message_id = outbox.message_id AND m.send_key = key$$;
SELECT pg_temp.ended(12, 'loser sent', 'sent'), pg_temp.ended(11, 'survivor sent', 'sent'), pg_temp.ended(11, 'both sent', 'sent'),
       pg_temp.ended(12, 'both sent', 'sent'), pg_temp.ended(11, 'survivor failed', 'failed') \g /dev/null
-- went out, and is queued again under the platform's key
UPDATE crm.message SET tried_at = crm.now(), reason = 'no_reply' WHERE contact_id = 11 AND send_key = 'survivor perhaps';
SELECT is_empty('TABLE astray');
UPDATE crm.message SET awaited = true WHERE contact_id = 12;
SELECT is(crm.merge(12, 11), 11::bigint);
SELECT results_eq('SELECT m.send_key, e.due_at FROM crm.message_end e JOIN crm.message m USING (contact_id, message_id) WHERE contact_id = 11 ORDER BY 1',
    $$VALUES ('both queued#12', crm.now()), ('survivor perhaps#12', crm.now()), ('survivor sent#12', crm.now())$$, 'who waited for one that was taken back is told');
SELECT results_eq($$SELECT m.send_key, m.state, m.reason, o.message_id IS NOT NULL FROM crm.message m LEFT JOIN crm.outbox o USING (contact_id, message_id)
    WHERE m.contact_id = 11 ORDER BY m.send_key COLLATE "C"$$,
    $$VALUES ('both queued', 'queued', NULL::text, true), ('both queued#12', 'cancelled', 'merged', false),
             ('both sent', 'sent', NULL, false), ('both sent#12', 'queued', NULL, true),
             (format('both sent#12#%s', (SELECT message_id FROM crm.message WHERE send_key LIKE 'both sent#12#%')), 'sent', NULL, false),
             ('loser sent', 'cancelled', 'merged', false), ('loser sent#12', 'sent', NULL, false),
             ('other content', 'queued', NULL, true), ('other content#12', 'queued', NULL, true),
             ('survivor failed', 'failed', NULL, false), ('survivor failed#12', 'queued', NULL, true),
             ('survivor perhaps', 'queued', 'no_reply', true), ('survivor perhaps#12', 'cancelled', 'merged', false),
             ('survivor sent', 'sent', NULL, false), ('survivor sent#12', 'cancelled', 'merged', false)$$,
    'no message is lost, and of two under one key one goes');
SELECT is_empty('TABLE astray');
SELECT is(crm.send(12, 'hello', send_key => 'both queued'), (SELECT message_id FROM crm.message WHERE send_key = 'both queued'), 'the key is used');
SELECT is(crm.unmerge(12), 12::bigint);
SELECT results_eq('SELECT send_key, state FROM crm.message WHERE contact_id = 12 ORDER BY send_key COLLATE "C"',
    $$VALUES ('both queued', 'cancelled'), ('both sent', 'sent'), ('both sent#12', 'queued'), ('loser sent', 'sent'), ('other content', 'queued'),
             ('survivor failed', 'queued'), ('survivor perhaps', 'cancelled'), ('survivor sent', 'cancelled')$$, 'the keys of before');
SELECT is_empty('TABLE astray');

-- what waited behind a message that is another contact's now is looked at again
INSERT INTO crm.contact (contact_id, created_at) VALUES (21, '2020-01-01Z'), (22, '2021-01-01Z');
SELECT crm.send(22, 'hello'), crm.send(21, 'hello') AS going \gset
UPDATE crm.message SET state = 'sending' WHERE message_id = :going;
UPDATE crm.outbox SET lease = 'infinity', attempts = 1 WHERE message_id = :going;
SELECT crm.merge(21, 22) \g /dev/null
UPDATE crm.outbox SET due_at = 'infinity' WHERE contact_id = 21 AND lease IS NULL;
SELECT crm.unmerge(22) \g /dev/null
SELECT is((SELECT isfinite(due_at) FROM crm.outbox WHERE contact_id = 22), true, 'when a merge is undone');
UPDATE crm.outbox SET due_at = 'infinity' WHERE contact_id = 22;
SELECT crm.merge(21, 22) \g /dev/null
SELECT is((SELECT isfinite(due_at) FROM crm.outbox WHERE contact_id = 21 AND lease IS NULL), true, 'and by a merge');

-- what became of a message while it was the survivor's goes back with it
INSERT INTO crm.contact (contact_id, created_at) VALUES (23, '2020-01-01Z'), (24, '2021-01-01Z');
SELECT crm.send(24, 'hello') AS lost, crm.send(24, 'hello') AS stays, crm.send(23, 'hello') AS own \gset
UPDATE crm.message SET awaited = true WHERE contact_id IN (23, 24);
SELECT crm.merge(23, 24) \g /dev/null
UPDATE crm.message SET state = 'unknown', tried_at = crm.now() WHERE message_id IN (:lost, :own);
DELETE FROM crm.outbox WHERE message_id IN (:lost, :own);
INSERT INTO crm.message_unknown VALUES (23, :lost, crm.now()), (23, :own, crm.now());
INSERT INTO crm.message_end VALUES (23, :lost, crm.now()), (23, :own, crm.now());
INSERT INTO crm.delivery_attempt (contact_id, message_id, occurred_at, outcome) VALUES (23, :lost, crm.now(), 'no_reply'), (23, :own, crm.now(), 'no_reply');
SELECT ok(crm.cancel_message(24, :stays));
SELECT crm.unmerge(24) \g /dev/null
SELECT is_empty('TABLE astray');
SELECT results_eq(format('SELECT contact_id, message_id = %s FROM crm.message_end WHERE contact_id IN (23, 24) ORDER BY contact_id, message_id', :lost),
    'VALUES (23::bigint, false), (24, true), (24, false)', 'ends too');

-- consent: a no of either stands
CREATE FUNCTION pg_temp.said(contact bigint, channel text, granted boolean, day int, what text) RETURNS void LANGUAGE sql AS
$$INSERT INTO crm.consent VALUES (contact, channel, 'marketing', granted, make_date(2024, 5, day) AT TIME ZONE 'UTC', jsonb_build_object(what, NULL))$$;
INSERT INTO crm.contact (contact_id, created_at) VALUES (31, '2020-01-01Z'), (32, '2021-01-01Z');
SELECT pg_temp.said(31, 'sms', true, 5, 's'), pg_temp.said(32, 'sms', false, 1, 'l'), pg_temp.said(31, 'email', false, 1, 's'), pg_temp.said(32, 'email', true, 5, 'l'),
       pg_temp.said(31, 'official_account', true, 3, 's'), pg_temp.said(32, 'official_account', true, 4, 'l'), pg_temp.said(31, 'webhook', false, 3, 's'),
       pg_temp.said(32, 'wecom', false, 3, 'l'), pg_temp.said(32, 'mini_program', true, 3, 'l') \g /dev/null
INSERT INTO before SELECT n, pg_temp.portrait(n) FROM generate_series(31, 32) AS n;
SELECT crm.merge(31, 32) \g /dev/null
SELECT is(pg_temp.consents(31), 'email marketing no 1 {"s": null}, mini_program marketing yes 3 {"l": null}, official_account marketing yes 3 {"s": null}, '
    'sms marketing no 1 {"l": null}, webhook marketing no 3 {"s": null}, wecom marketing no 3 {"l": null}', 'the stricter');
SELECT crm.unmerge(32) \g /dev/null
SELECT is(pg_temp.portrait(b.contact_id) -> 'consent', b.portrait -> 'consent', format('consent of %s as before', contact_id)) FROM before b WHERE contact_id > 30;
SELECT crm.merge(31, 32) \g /dev/null
-- words since: of what each had said, of what only one had
SELECT crm.grant_consent(32, 'sms', 'marketing', '2024-05-02Z', '{"new": 1}'), crm.withdraw_consent(31, 'mini_program', 'marketing', '2024-05-20Z'),
       crm.grant_consent(31, 'sms', 'service', '2024-05-20Z'), crm.grant_consent(31, 'wecom', 'marketing', '2024-05-02Z') \g /dev/null
SELECT is(pg_temp.consents(31), 'email marketing no 1 {"s": null}, mini_program marketing no 20 {}, official_account marketing yes 3 {"s": null}, '
    'sms marketing yes 2 {"new": 1}, sms service yes 20 {}, webhook marketing no 3 {"s": null}, wecom marketing no 3 {"l": null}', 'a later word counts, an earlier does not');
SELECT crm.unmerge(32) \g /dev/null
SELECT is(pg_temp.consents(31), 'email marketing no 1 {"s": null}, mini_program marketing no 20 {}, official_account marketing yes 3 {"s": null}, '
    'sms marketing yes 2 {"new": 1}, sms service yes 20 {}, webhook marketing no 3 {"s": null}', 'words since the merge stay with the survivor');
SELECT is(pg_temp.portrait(32) -> 'consent', portrait -> 'consent', 'the other says what it said') FROM before WHERE contact_id = 32;

-- ids that meet are no reason to lose a message
INSERT INTO crm.contact (contact_id, created_at) VALUES (41, '2020-01-01Z'), (42, '2021-01-01Z');
INSERT INTO crm.message (contact_id, message_id, account_id, template, template_version, channel, class, state)
SELECT n, 900001, 1, 'hello', 1, 'official_account', 'service', 'cancelled' FROM generate_series(41, 42) AS n;
SELECT throws_ok('SELECT crm.merge(41, 42)', '23505', 'contacts 41 and 42 both have a row with id 900001 in crm.message');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound at the end');

SELECT * FROM finish();
ROLLBACK;
