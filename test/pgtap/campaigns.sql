-- campaigns: who is meant, once each, now or later, and what became of it
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET pg_crm.clock = '2026-03-01 10:00+08';
SELECT no_plan();

INSERT INTO crm.account (kind, name) VALUES ('official_account', 'shop');
SELECT crm.define_template('{"name": "spring", "channel": "official_account", "message_type": "text", "class": "marketing", "valid_for": "2 days", "body": {"content": "{{what}} is here"}}'),
       crm.define_template('{"name": "autumn", "channel": "official_account", "message_type": "text", "body": {"content": "Leaves"}}') \g /dev/null
CREATE TEMP TABLE person AS SELECT n, crm.identify('shop', 'o' || n) AS contact_id FROM generate_series(1, 12) AS n;
SELECT crm.purchase(contact_id, 10 * n) FROM person WHERE n <= 6 ORDER BY contact_id \g /dev/null
SELECT crm.follow('shop', 'o' || n) FROM person WHERE n <= 9 \g /dev/null

INSERT INTO crm.campaign (name) VALUES ('bare');
SELECT results_eq('SELECT template, audience, stage, params, scheduled_at, state, sent_at, contacts FROM crm.campaign',
    $$VALUES (NULL::text, NULL::text, NULL::text, '{}'::jsonb, NULL::timestamptz, 'draft', NULL::timestamptz, 0::bigint)$$, 'a name is all that is needed');
SELECT throws_ok($$SELECT crm.send_campaign('bare')$$, '22004', 'campaign "bare" has no template', 'but for sending it');

/* an audience */
INSERT INTO crm.campaign (name, template, audience, params) VALUES ('spring', 'spring', 'orders > 0 AND spend >= 30', '{"what": "Spring"}');
SELECT is(crm.send_campaign('spring'), 4, 'those whom the rule means');
SELECT results_eq($$SELECT p.n, m.template, m.params, m.class, m.state, m.send_key, m.due_at, m.expires_at FROM crm.message AS m JOIN person AS p USING (contact_id) ORDER BY 1$$,
    $$SELECT n, 'spring', '{"what": "Spring"}'::jsonb, 'marketing', 'queued', 'campaign:spring', '2026-03-01 10:00+08'::timestamptz, '2026-03-03 10:00+08'::timestamptz FROM generate_series(3, 6) AS n$$, 'each has the message');
SELECT is((SELECT count(*) FROM crm.outbox WHERE lane = 'bulk'), 4::bigint, 'in the queue, behind what is urgent');
SELECT results_eq('SELECT state, sent_at, contacts FROM crm.campaign WHERE name = ''spring''', $$VALUES ('sent', '2026-03-01 10:00+08'::timestamptz, 4::bigint)$$, 'it is sent');
SELECT is(crm.send_campaign('spring'), 0, 'and never twice');
SET pg_crm.clock = '2026-03-02 10:00+08';
SELECT crm.purchase(contact_id, 500) FROM person WHERE n IN (1, 5, 10) ORDER BY contact_id \g /dev/null
SELECT is(crm.send_campaign('spring'), 2, 'again: who is new');
SELECT results_eq('SELECT state, sent_at, contacts FROM crm.campaign WHERE name = ''spring''', $$VALUES ('sent', '2026-03-01 10:00+08'::timestamptz, 6::bigint)$$, 'counted');
UPDATE crm.campaign SET template = 'autumn' WHERE name = 'spring';
SELECT crm.purchase(contact_id, 500) FROM person WHERE n = 11 \g /dev/null
SELECT is(crm.send_campaign('spring'), 1, 'another template goes to who is new, and to nobody else');
SELECT is((SELECT count(*) FROM crm.message WHERE template = 'autumn'), 1::bigint, 'indeed');

/* a stage, and later */
INSERT INTO crm.campaign (name, template, stage, scheduled_at) VALUES ('leads', 'autumn', 'lead', '2026-03-05 09:00+08');
SELECT is(crm.send_campaign('leads'), 3, 'those at the stage');
SELECT set_eq($$SELECT p.n FROM crm.message AS m JOIN person AS p USING (contact_id) WHERE m.send_key = 'campaign:leads'$$, '{7,8,9}'::int[], 'who follow and have not bought');
SELECT results_eq($$SELECT DISTINCT m.due_at, o.due_at FROM crm.message AS m JOIN crm.outbox AS o USING (contact_id, message_id) WHERE m.send_key = 'campaign:leads'$$,
    $$VALUES ('2026-03-05 09:00+08'::timestamptz, '2026-03-05 09:00+08'::timestamptz)$$, 'are written to when it is scheduled');
SELECT results_eq($$SELECT campaign, state FROM crm.campaign_report ORDER BY 1$$, $$VALUES ('bare', 'draft'), ('leads', 'scheduled'), ('spring', 'sent')$$, 'until then it is scheduled');
SET pg_crm.clock = '2026-03-05 09:00+08';
SELECT is((SELECT state FROM crm.campaign_report WHERE campaign = 'leads'), 'sent', 'and from then on sent');
INSERT INTO crm.campaign (name, template) VALUES ('all', 'autumn');
SELECT is(crm.send_campaign('all'), 12, 'without either everybody is meant');
INSERT INTO crm.campaign (name, template, audience, stage) VALUES ('both', 'autumn', 'followed_at IS NULL', 'user'), ('nobody', 'autumn', 'false', NULL), ('fails', 'autumn', '1 / (orders - 1) > 0', NULL);
SELECT is(crm.send_campaign('both'), 1, 'with both both must hold');
SELECT is(crm.send_campaign('nobody'), 0, 'nobody may be meant');
SELECT is(crm.send_campaign('fails'), 2, 'for whom the rule fails is not meant');
SELECT is((SELECT times FROM crm.rule_error WHERE object_kind = 'campaign' AND object = 'fails' LIMIT 1), 1::bigint, 'and counted');

/* a merged contact has it once */
SELECT crm.merge((SELECT contact_id FROM person WHERE n = 7), (SELECT contact_id FROM person WHERE n = 8), 'test') \g /dev/null
SELECT is(crm.send_campaign('leads'), 0, 'whoever was merged has it');

/* the report */
SELECT crm.cancel_message(m.contact_id, m.message_id) FROM crm.message AS m JOIN person AS p USING (contact_id) WHERE p.n = 3 AND m.send_key = 'campaign:spring' \g /dev/null
-- what the worker would write
UPDATE crm.message AS m SET state = v.state, reason = v.reason FROM (VALUES (4, 'refused', 'no_consent'), (5, 'sent', NULL), (6, 'refused', 'window_closed'), (1, 'expired', NULL), (10, 'failed', '40003'), (11, 'unknown', 'timeout')) AS v(n, state, reason)
  JOIN person AS p USING (n) WHERE m.contact_id = p.contact_id AND m.send_key = 'campaign:spring';
DELETE FROM crm.outbox AS o USING crm.message AS m WHERE m.contact_id = o.contact_id AND m.message_id = o.message_id AND m.state <> 'queued';
INSERT INTO crm.message_unknown SELECT contact_id, message_id, crm.now() FROM crm.message WHERE state = 'unknown';
SELECT results_eq($$SELECT messages, queued, sent, failed, refused, expired, cancelled, unknown, reasons FROM crm.campaign_report WHERE campaign = 'spring'$$,
    $$VALUES (7::bigint, 0::bigint, 1::bigint, 1::bigint, 2::bigint, 1::bigint, 1::bigint, 1::bigint,
      '{"refused no_consent": 1, "refused window_closed": 1, "failed 40003": 1, "unknown timeout": 1}'::jsonb)$$, 'tells what became of its messages, and why');
SELECT is_empty($$SELECT campaign FROM crm.campaign_report WHERE messages <> queued + sent + failed + refused + expired + cancelled + unknown$$, 'all are counted');
SELECT results_eq($$SELECT messages, queued FROM crm.campaign_report WHERE campaign = 'nobody'$$, 'VALUES (0::bigint, 0::bigint)', 'none where there are none');

/* what is refused */
SELECT throws_ok($$SELECT crm.send_campaign('none')$$, '23503', 'campaign "none" does not exist', 'an unknown campaign');
SELECT throws_ok($$SELECT crm.send_campaign(NULL)$$, '22004', NULL, 'none');
SELECT throws_ok($$INSERT INTO crm.campaign (name, audience) VALUES ('x', 'ordrs > 1')$$, '42703', NULL, 'a rule that does not compile, when it is saved');
SELECT throws_ok($$UPDATE crm.campaign SET audience = 'now() > as_of' WHERE name = 'bare'$$, '0A000', NULL, 'or changed');
SELECT throws_ok($$INSERT INTO crm.campaign (name, params) VALUES ('x', '[]')$$, '22023', NULL, 'values that are no object');
SELECT throws_ok($$INSERT INTO crm.campaign (name) VALUES ('')$$, '23514', NULL, 'an empty name');
SELECT throws_ok($$INSERT INTO crm.campaign (name) VALUES (repeat('x', 64))$$, '22001', NULL, 'a long one');
SELECT throws_ok($$INSERT INTO crm.campaign (name, state) VALUES ('x', 'gone')$$, '23514', NULL, 'a state that is none');
SELECT throws_ok($$INSERT INTO crm.campaign (name, scheduled_at) VALUES ('x', 'infinity')$$, '23514', NULL, 'a time that never comes');
UPDATE crm.campaign SET template = 'no' WHERE name = 'bare';
SELECT throws_ok($$SELECT crm.send_campaign('bare')$$, '23503', 'template "no" does not exist', 'an unknown template');
UPDATE crm.campaign SET template = 'autumn', stage = 'no' WHERE name = 'bare';
SELECT throws_ok($$SELECT crm.send_campaign('bare')$$, '23503', 'stage "no" of campaign "bare" does not exist', 'and an unknown stage, when it is sent');
SELECT set_eq($$SELECT change FROM crm.definition_log WHERE table_name = 'campaign' AND name = 'bare'$$, '{insert,update}'::text[], 'who changed what is kept');

-- marketers do it by themselves, but may not say that it is sent
CREATE ROLE campaigner;
SELECT crm.grant_access('campaigner', 'marketer') \g /dev/null
SET ROLE campaigner;
INSERT INTO crm.campaign (name, template, audience) VALUES ('mine', 'autumn', 'orders > 0');
SELECT is(crm.send_campaign('mine'), 8, 'a marketer sends');
SELECT is((SELECT messages FROM crm.campaign_report WHERE campaign = 'mine'), 8::bigint, 'and reads the report');
SELECT throws_ok($$UPDATE crm.campaign SET state = 'draft'$$, '42501', NULL, 'but says not what was sent');
RESET ROLE;

SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
SELECT * FROM finish();
ROLLBACK;
