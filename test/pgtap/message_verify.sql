-- verify() about messages, and stopping accounts; the views on the queue
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install();
SET search_path = public, pg_catalog;
SELECT no_plan();

INSERT INTO crm.account (kind, name, app_id) VALUES ('official_account', 'maison', 'wx01');
SELECT crm.define_template('{"name": "hello", "channel": "official_account", "message_type": "text", "body": {"content": "Hello"}}');
SELECT crm.follow('maison', 'o1') AS c \gset
SELECT crm.track(:c, 'message', account => 'maison');
SELECT crm.grant_consent(:c, 'sms', 'marketing', at => now() - interval '1 hour');
SELECT crm.withdraw_consent(:c, 'sms', 'marketing', at => now() - interval '2 hours');
SELECT crm.send(:c, 'hello') AS m \gset
SELECT is_empty('SELECT * FROM crm.verify()', 'what the functions did is sound');

-- each difference, seen and gone
CREATE FUNCTION pg_temp.checked(change text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE said text;
BEGIN
	BEGIN
		EXECUTE change;
		SELECT string_agg(regexp_replace(check_name, '\d+', 'N') || ': ' || coalesce(v.expected, '-') || ' / ' || coalesce(v.found, '-'), '; ' ORDER BY check_name)
		  INTO said FROM crm.verify() AS v;
		RAISE EXCEPTION USING ERRCODE = 'ZZ000', MESSAGE = 'undone';
	EXCEPTION WHEN SQLSTATE 'ZZ000' THEN RETURN said;
	END;
END $$;
SELECT is(pg_temp.checked('DELETE FROM crm.outbox'), 'message N in the queue: a row of crm.outbox / -', 'a message that nobody will send');
SELECT is(pg_temp.checked($$UPDATE crm.message SET state = 'sent'$$), 'message N in the queue: - / a row of crm.outbox, the message sent', 'one that would be sent again');
SELECT is(pg_temp.checked('DELETE FROM crm.message'), 'queue without message N: - / a row of crm.outbox', 'a place in the queue of nothing');
SELECT is(pg_temp.checked($$UPDATE crm.message SET state = 'sending'$$), 'state of message N: queued / sending', 'a message on its way without a lease');
SELECT is(pg_temp.checked($$UPDATE crm.outbox SET lease = now(), attempt_id = 7$$), 'state of message N: sending, attempt 7 / queued', 'a lease of one that is queued');
SELECT is(pg_temp.checked(format('INSERT INTO crm.message_unknown VALUES (%s, %s, now())', :c, :m)), 'unknown message N: - / a row of crm.message_unknown', 'one that is not unknown');
SELECT is(pg_temp.checked($$DELETE FROM crm.outbox; UPDATE crm.message SET state = 'unknown'$$), 'unknown message N: a row of crm.message_unknown / -', 'one that nobody would find');
SELECT is(pg_temp.checked(format('INSERT INTO crm.message_end VALUES (%s, %s, now()); UPDATE crm.message SET awaited = true', :c, :m)), 'end of message N: queued / a row of crm.message_end', 'an end of one that goes on');
SELECT is(pg_temp.checked(format('INSERT INTO crm.message_end VALUES (%s, %s, now()); UPDATE crm.message SET state = ''sent''; DELETE FROM crm.outbox', :c, :m)), 'end of message N: sent / a row of crm.message_end', 'an end that nobody waits for');
SELECT is(pg_temp.checked(format('INSERT INTO crm.message_end VALUES (%s, %s + 1, now())', :c, :m)), 'end of message N: - / a row of crm.message_end', 'an end of nothing');
SELECT is(pg_temp.checked(format('INSERT INTO crm.message_end VALUES (%s, %s, now()); UPDATE crm.message SET awaited = true, state = ''sent''; DELETE FROM crm.outbox', :c, :m)), NULL, 'an end that is one');
SELECT is(pg_temp.checked($$UPDATE crm.window_grant SET used = 1 WHERE kind = 'message'$$), 'window N: - / 1 used', 'a window that no message used');
SELECT is(pg_temp.checked($$UPDATE crm.message SET grant_id = (SELECT grant_id FROM crm.window_grant WHERE kind = 'message')$$), 'window N: 1 used / 0 used', 'a message that used none');
SELECT is(pg_temp.checked($$UPDATE crm.window_grant SET used = 6 WHERE kind = 'message'$$), 'window N: at most 5 used / 6 used', 'more than a window has');
SELECT is(pg_temp.checked($$UPDATE crm.window_grant SET used = 5 WHERE kind = 'message'$$), NULL, 'but a platform may call it spent');
SELECT matches(pg_temp.checked('DELETE FROM crm.follower'), '^follower of account N: followed .*, unfollowed never / followed never, unfollowed never$', 'a follower who was forgotten');
SELECT matches(pg_temp.checked('UPDATE crm.consent SET granted = false'), '^consent sms marketing: granted .* / withdrawn ', 'a consent that was never said');
SELECT is_empty('SELECT * FROM crm.verify()', 'all of it undone');

-- the queue, and what is wrong with it; no worker runs in this server
SELECT is((SELECT queued || ' ' || due || ' ' || in_flight || ' ' || put_off || ' ' || parked FROM crm.queue_health WHERE lane = 'urgent'), '1 1 0 0 0', 'the queue');
SELECT matches((SELECT problem FROM crm.queue_health WHERE lane = 'urgent'), '^no worker: ', 'that nobody works at');
SELECT is((SELECT problem FROM crm.queue_health WHERE lane = 'bulk'), NULL, 'an empty lane has no problem');
SELECT is((SELECT count(*)::integer FROM crm.active_alarm WHERE kind = 'worker_down'), 1, 'which is an alarm at once');
SELECT is((SELECT count(*)::integer FROM crm.active_alarm WHERE kind = 'queue_late'), 0, 'nothing is late');
UPDATE crm.outbox SET due_at = now() - interval '61 seconds';
SELECT is((SELECT object FROM crm.active_alarm WHERE kind = 'queue_late'), 'maison', 'late after pg_crm.alarm_after');
UPDATE crm.outbox SET due_at = now() + interval '1 hour';
SELECT is((SELECT count(*)::integer FROM crm.active_alarm WHERE kind = 'queue_late'), 0, 'and no longer');
UPDATE crm.outbox SET due_at = 'infinity';
SELECT is((SELECT queued || ' ' || due || ' ' || put_off || ' ' || parked FROM crm.queue_health WHERE lane = 'urgent'), '1 0 0 1', 'one that waits behind another');
UPDATE crm.installation SET database_oid = 1;
SELECT is((SELECT count(*)::integer FROM crm.active_alarm WHERE kind = 'dispatch_paused'), 1, 'a copy says so');
SELECT crm.resume_dispatch();
SELECT is((SELECT count(*)::integer FROM crm.active_alarm WHERE kind = 'dispatch_paused'), 0, 'until it is let speak');

-- stopping an account
SELECT lives_ok($$SELECT crm.pause_account('maison', 'wrong prices')$$, 'an account is stopped');
SELECT is((SELECT blocked_until::text || ' ' || blocked_reason FROM crm.queue_health WHERE lane = 'bulk'), 'infinity wrong prices', 'until further notice');
SELECT is((SELECT problem FROM crm.queue_health WHERE lane = 'bulk'), 'stopped until resume_account(): wrong prices', 'in words');
SELECT is((SELECT string_agg(DISTINCT reason, ' ') FROM crm.reachable(:c)), 'wrong prices', 'reachable() knows');
INSERT INTO crm.api_usage (account_id, api, blocked_until, blocked_reason) SELECT account_id, 'message/custom/send', 'infinity', '48001' FROM crm.account;
INSERT INTO crm.alarm (kind, object) VALUES ('account_paused', 'maison'), ('api_paused', 'maison message/custom/send'), ('token', 'maison'), ('template_refused', 'maison'), ('account_paused', 'other');
SELECT lives_ok($$SELECT crm.resume_account('maison')$$, 'and goes on');
SELECT is_empty('SELECT * FROM crm.api_usage WHERE blocked_until IS NOT NULL', 'its calls too');
SELECT results_eq('SELECT kind, object FROM crm.alarm WHERE cleared_at IS NULL ORDER BY 1', $$VALUES ('account_paused', 'other'), ('template_refused', 'maison')$$, 'alarms of that are over, others stand');
SELECT throws_ok($$SELECT crm.pause_account('nobody', 'x')$$, '23503', NULL, 'an unknown account');
SELECT throws_ok($$SELECT crm.pause_account('maison', NULL)$$, '22004', NULL, 'no reason');
SELECT throws_ok($$SELECT crm.resume_account(NULL)$$, '22004', NULL, 'no account');

-- what became of messages
SELECT results_eq('SELECT template, state, messages FROM crm.message_outcome', $$VALUES ('hello', 'queued', 1::bigint)$$, 'outcomes are counted');
SELECT ok(crm.cancel_message(:c, :m));
SELECT results_eq($$SELECT state, messages, day FROM crm.message_outcome$$, $$VALUES ('cancelled', 1::bigint, (now() AT TIME ZONE 'Asia/Shanghai')::date)$$, 'by their state now and the day they were due');
SELECT results_eq($$SELECT kind, detail FROM crm.contact_timeline WHERE source_table = 'message'$$, $$VALUES ('message_cancelled', '{"class": "service", "account": "maison", "template": "hello", "template_version": 1}'::jsonb)$$, 'and are part of the contact''s story');

SELECT * FROM finish();
ROLLBACK;
