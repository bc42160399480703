-- messages: what templates, send() and consent take and refuse, with SQLSTATE, message and hint
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_crm;
SELECT crm.install();
SET timezone = 'Asia/Shanghai';
SET datestyle = 'ISO, YMD';
SET pg_crm.clock = '2024-06-01 12:00+08';

CREATE FUNCTION pg_temp.refusal(statement text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    message text;
    detail text;
    hint text;
BEGIN
    EXECUTE statement;
    RETURN 'NOT REFUSED';
EXCEPTION WHEN others THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN sqlstate || ' ' || message || coalesce(' / ' || nullif(detail, ''), '')
        || CASE WHEN hint = '' THEN ' / NO HINT' ELSE ' / ' || hint END;
END
$$;
-- a template as define_template() takes it, but for what is changed
CREATE FUNCTION pg_temp.template(change jsonb) RETURNS jsonb LANGUAGE sql AS $$
SELECT '{"name": "t", "channel": "official_account", "message_type": "text", "body": {"content": "Hello"}}'::jsonb || change
$$;
CREATE FUNCTION pg_temp.define(change jsonb) RETURNS text LANGUAGE sql AS $$
SELECT pg_temp.refusal(format('SELECT crm.define_template(%L)', pg_temp.template(change)))
$$;
CREATE FUNCTION pg_temp.define_text(content text) RETURNS text LANGUAGE sql AS $$
SELECT pg_temp.define(jsonb_build_object('body', jsonb_build_object('content', content)))
$$;
\pset format unaligned
\pset tuples_only

INSERT INTO crm.account (account_id, kind, name, base_url) VALUES
    (1, 'official_account', 'oa', NULL), (2, 'webhook', 'till', 'https://till.example'), (3, 'sms', 'sms', NULL);
INSERT INTO crm.contact (contact_id) VALUES (1), (2), (3);

\echo -- definitions
SELECT change || E'\n  ' || pg_temp.define(change::jsonb) FROM (VALUES
    ('{"channel": "carrier_pigeon"}'),
    ('{"channel": "sms"}'),
    ('{"channel": "mini_program"}'),
    ('{"channel": ""}'),
    ('{"channel": null}'),
    ('{"channel": 5}'),
    ('{"message_type": "post"}'),
    ('{"message_type": ""}'),
    ('{"message_type": null}'),
    ('{"channel": "webhook"}'),
    ('{"colour": "red"}'),
    ('{"version": 7}'),
    ('{"name": ""}'),
    ('{"name": null}'),
    ('{"name": ["a"]}'),
    ('{"class": "spam"}'),
    ('{"class": null}'),
    ('{"class": true}'),
    ('{"lane": "express"}'),
    ('{"account": "nobody"}'),
    ('{"account": "till"}'),
    ('{"account": ""}'),
    ('{"valid_for": "soon"}'),
    ('{"valid_for": "-1 hour"}'),
    ('{"valid_for": "0"}'),
    ('{"valid_for": "1 mon -40 days"}'),
    ('{"valid_for": "999999999999 years"}'),
    ('{"valid_for": 5}'),
    ('{"label": {}}'),
    ('{"body": null}'),
    ('{"body": "Hello"}'),
    ('{"body": ["Hello"]}'),
    ('{"body": 5}'),
    ('{"body": {}}'),
    ('{"body": {"content": 5}}'),
    ('{"body": {"content": null}}'),
    ('{"body": {"content": ""}}'),
    ('{"body": {"content": ["Hello"]}}'),
    ('{"body": {"content": "Hello", "contents": "Hello"}}'),
    ('{"message_type": "news", "body": {"articles": []}}'),
    ('{"message_type": "news", "body": {"articles": [{"title": "a"}]}}'),
    ('{"message_type": "template", "body": {"template_id": "T", "data": {"a": "b"}}}'),
    ('{"channel": "webhook", "message_type": "post", "body": []}')) AS v (change);
SELECT pg_temp.refusal('SELECT crm.define_template(' || definition || ')') FROM (VALUES
    ('NULL'), ($$'[]'$$), ($$'"text"'$$), ($$'{}'$$), ($$'null'$$), ($$'{'$$),
    ($$'{"name": "t", "channel": "official_account", "message_type": "text"}'$$)) AS v (definition);
SELECT left(pg_temp.define(jsonb_build_object('name', repeat('n', 256))), 150);
SELECT left(pg_temp.define(jsonb_build_object('channel', repeat('好', 100))), 150);
SELECT left(pg_temp.define(jsonb_build_object('message_type', repeat('好', 100))), 150);
SELECT left(pg_temp.define(jsonb_build_object(repeat('k', 300), 1)), 150);

\echo -- places
SELECT content || E'\n  ' || pg_temp.define_text(content) FROM (VALUES
    ('{{'), ('{{}}'), ('{{ }}'), ('{{a'), ('{{a}'), ('a {{b}} {{'), ('{{|fallback}}'), ('{{ | }}'), ('{{a{{b}}}}'), ('{{{a}}}'),
    ('{{a|{b}}'), ('{{.a}}'), ('{{a.}}'), ('{{a..b}}'), ('{{.}}'), ('{{' || repeat('n', 256) || '}}'), ('{{' || repeat('好', 30)),
    -- those are none
    ('{a}'), ('}}'), ('{ {a} }'), ('{{a}}}'), ('{{a.b.c|d|e}}'), ('{{ a b | c }}'), ('{{a|}}'), ('{{好|世界}}')) AS v (content);
SELECT pg_temp.define('{"channel": "webhook", "message_type": "post", "body": {"a": [[{"b": "{{"}]]}}');
SELECT pg_temp.define('{"channel": "webhook", "message_type": "post", "body": {"{{": "{{a}}"}}');
SELECT pg_temp.define(jsonb_build_object('channel', 'webhook', 'message_type', 'post', 'body', jsonb_build_object('a', repeat('x', 1048576))));
SELECT pg_temp.refusal(format('INSERT INTO crm.template (name, channel, message_type, body) VALUES (''big'', ''webhook'', ''post'', jsonb_build_object(''a'', repeat(''x'', 1048576)))'));
SELECT pg_temp.define(jsonb_build_object('channel', 'webhook', 'message_type', 'post', 'body',
    (repeat('{"a":', 500) || '"{{"' || repeat('}', 500))::jsonb));
SELECT pg_temp.define_text(repeat('x', 2049));
SELECT pg_temp.define_text(repeat('x', 2048) || '{{name}}');

\echo -- versions
DELETE FROM crm.template;
SELECT crm.define_template(pg_temp.template('{"name": "v"}')), crm.define_template(pg_temp.template('{"name": "v"}'));
SELECT crm.define_template(pg_temp.template('{"name": "v", "body": {"content": "Good day"}}'));
SELECT crm.define_template(pg_temp.template('{"name": "v", "label": "Greeting", "body": {"content": "Good day"}}'));
UPDATE crm.template SET body = '{"content": "Good evening"}' WHERE name = 'v';
UPDATE crm.template SET body = '{"content": "Good evening"}' WHERE name = 'v';
SELECT pg_temp.refusal($$UPDATE crm.template SET body = '{"content": "{{"}' WHERE name = 'v'$$);
SELECT pg_temp.refusal($$UPDATE crm.template SET lane = 'express' WHERE name = 'v'$$);
DELETE FROM crm.template WHERE name = 'v';
SELECT crm.define_template(pg_temp.template('{"name": "v"}'));
SELECT name, version, body, label, lane FROM crm.template ORDER BY name;
SELECT version, body, saved_at FROM crm.template_version WHERE name = 'v' ORDER BY version;
SELECT statement || E'\n  ' || pg_temp.refusal(statement) FROM (VALUES
    ($$UPDATE crm.template_version SET body = '{}'$$),
    ($$DELETE FROM crm.template_version$$),
    ($$TRUNCATE crm.template_version$$)) AS v (statement);
BEGIN;
SET CONSTRAINTS ALL DEFERRED;
SELECT pg_temp.refusal($$INSERT INTO crm.template (name, channel, message_type, body) VALUES (NULL, 'webhook', 'post', '{}')$$);
SELECT pg_temp.refusal($$INSERT INTO crm.template (name, channel, message_type, body) VALUES ('x', NULL, 'post', '{}')$$);
SELECT pg_temp.refusal($$INSERT INTO crm.template (name, channel, message_type, body) VALUES ('x', 'webhook', 'post', NULL)$$);
COMMIT;

\echo -- send
SELECT crm.define_template(pg_temp.template('{"name": "hello"}')), crm.define_template(pg_temp.template('{"name": "lost", "account": "oa"}')),
       crm.define_template('{"name": "tell", "channel": "webhook", "message_type": "post", "body": {"a": "{{a}}"}}'),
       crm.define_template(pg_temp.template('{"name": "brief", "valid_for": "1 hour"}')),
       crm.define_template(pg_temp.template('{"name": "eternal", "valid_for": "200000 years"}'));
SELECT statement || E'\n  ' || pg_temp.refusal('SELECT ' || statement) FROM (VALUES
    ($$crm.send(NULL, 'hello')$$),
    ($$crm.send(1, NULL)$$),
    ($$crm.send(1, 'hello', NULL)$$),
    ($$crm.send(99, 'hello')$$),
    ($$crm.send(-1, 'hello')$$),
    ($$crm.send(1, 'nothing')$$),
    ($$crm.send(1, '')$$),
    ($$crm.send(1, 'hello', '[]')$$),
    ($$crm.send(1, 'hello', 'null')$$),
    ($$crm.send(1, 'hello', '"a"')$$),
    ($$crm.send(1, 'hello', '{')$$),
    ($$crm.send(1, 'hello', jsonb_build_object('a', repeat('x', 1048577)))$$),
    ($$crm.send(1, 'hello', due_at => 'infinity')$$),
    ($$crm.send(1, 'hello', due_at => '-infinity')$$),
    ($$crm.send(1, 'hello', expires_at => 'infinity')$$),
    ($$crm.send(1, 'hello', expires_at => '-infinity')$$),
    ($$crm.send(1, 'hello', expires_at => '2024-06-01 12:00+08')$$),
    ($$crm.send(1, 'hello', due_at => '2024-06-02', expires_at => '2024-06-01')$$),
    ($$crm.send(1, 'hello', send_key => '')$$),
    ($$crm.send(1, 'hello', send_key => repeat('k', 256))$$),
    ($$crm.send(1, 'eternal')$$),
    ($$crm.send(1, 'brief', due_at => '294276-12-31 23:59:59+00')$$),
    ($$crm.send_many(NULL, 'hello')$$),
    ($$crm.send_many('{1,NULL}', 'hello')$$),
    ($$crm.send_many('{1}', NULL)$$),
    ($$crm.send_many('{1,99}', 'hello')$$),
    ($$crm.send_many('{1}', 'nothing')$$),
    ($$crm.send_many('{}', 'hello', '[]')$$),
    ($$crm.send_many('{1}', 'hello', due_at => 'infinity')$$)) AS v (statement);
SELECT count(*) FROM crm.message;

\echo -- the account
INSERT INTO crm.account (account_id, kind, name) VALUES (4, 'official_account', 'oa2');
SELECT pg_temp.refusal($$SELECT crm.send(1, 'hello')$$);
SELECT crm.send(1, 'lost') > 0;
DELETE FROM crm.account WHERE name = 'oa2';
UPDATE crm.account SET name = 'oa3' WHERE name = 'oa';
SELECT pg_temp.refusal($$SELECT crm.send(1, 'lost')$$);
DELETE FROM crm.account WHERE name = 'till';
SELECT pg_temp.refusal($$SELECT crm.send(1, 'tell')$$);

\echo -- keys
SELECT crm.send(1, 'hello', '{"a": 1, "b": 2}', 'k') AS first \gset
SELECT crm.send(1, 'hello', '{"b": 2, "a": 1}', 'k') = :first, crm.send(1, 'hello', '{"a": 1.0, "b": 2}', 'k') = :first,
       crm.send(1, 'hello', '{"a": 1, "b": 2}', 'k', '2024-07-01', '2024-08-01') = :first;
SELECT crm.send(2, 'hello', '{}', 'k') > :first;
SELECT statement || E'\n  ' || pg_temp.refusal('SELECT ' || statement) FROM (VALUES
    ($$crm.send(1, 'hello', '{}', 'k')$$),
    ($$crm.send(1, 'brief', '{"a": 1, "b": 2}', 'k')$$),
    ($$crm.send_many('{3,2,1}', 'hello', '{}', 'k')$$)) AS v (statement);
SELECT count(*) FROM crm.message WHERE contact_id = 3;
-- a new version of a template under an old key is the old message; a deleted template stands in the way
SELECT crm.define_template(pg_temp.template('{"name": "hello", "body": {"content": "Hi"}}'));
SELECT crm.send(1, 'hello', '{"a": 1, "b": 2}', 'k') = :first, (SELECT template_version FROM crm.message WHERE message_id = :first);
SELECT crm.send(1, 'hello', send_key => repeat('k', 255)) > 0;

\echo -- many
SELECT crm.send_many('{}', 'hello'), crm.send_many('{3,3,3}', 'hello'), crm.send_many('{{1,2},{3,1}}', 'hello'),
       crm.send_many('[5:6]={1,2}', 'hello'), crm.send_many('{1,2,3}', 'hello', send_key => 'm'), crm.send_many('{1,2,3}', 'hello', send_key => 'm');
INSERT INTO crm.contact (contact_id) SELECT generate_series(1001, 11000);
SELECT crm.send_many(array_agg(n ORDER BY n DESC), 'hello', send_key => 'crowd') FROM generate_series(1001, 11000) AS n;
SELECT count(*), count(DISTINCT m.contact_id), count(o.message_id) FROM crm.message m LEFT JOIN crm.outbox o USING (contact_id, message_id) WHERE send_key = 'crowd';
SELECT pg_temp.refusal($$SELECT crm.send_many(array_fill(7::bigint, ARRAY[200, 500]), 'hello')$$);
SELECT crm.send_many(array_fill(1::bigint, ARRAY[300, 1000]), 'hello');

\echo -- cancel and resolve
SELECT crm.send(2, 'hello') AS message \gset
SELECT statement || E'\n  ' || pg_temp.refusal('SELECT ' || statement) FROM (VALUES
    ($$crm.cancel_message(NULL, 1)$$),
    ($$crm.cancel_message(1, NULL)$$),
    ($$crm.cancel_message(99, 1)$$),
    ($$crm.cancel_message(1, 0)$$),
    ($$crm.resolve_message(NULL, 1, 'sent')$$),
    ($$crm.resolve_message(1, NULL, 'sent')$$),
    ($$crm.resolve_message(1, 1, NULL)$$),
    ($$crm.resolve_message(99, 1, 'sent')$$),
    ($$crm.resolve_message(1, 0, 'sent')$$),
    ($$crm.resolve_message(1, 0, 'queued')$$),
    ($$crm.resolve_message(1, 0, '')$$),
    ($$crm.resolve_message(1, 0, repeat('好', 100))$$),
    ($$crm.resolve_message(1, 0, 'sent', repeat('x', 1048577))$$)) AS v (statement);
SELECT regexp_replace(pg_temp.refusal(format('SELECT crm.cancel_message(1, %s)', :message)), 'message \d+', 'message N');
SELECT regexp_replace(pg_temp.refusal(format('SELECT crm.resolve_message(2, %s, ''sent'')', :message)), 'message \d+', 'message N');
SELECT crm.cancel_message(2, :message), crm.cancel_message(2, :message);
SELECT state, reason, ended_at FROM crm.message WHERE message_id = :message;
SELECT regexp_replace(pg_temp.refusal(format('SELECT crm.resolve_message(2, %s, ''failed'')', :message)), 'message \d+', 'message N');
SELECT crm.send(2, 'hello') AS message \gset
UPDATE crm.outbox SET lease = 'infinity' WHERE message_id = :message;
SELECT crm.cancel_message(2, :message);
DELETE FROM crm.outbox WHERE message_id = :message;
UPDATE crm.message SET state = 'unknown', tried_at = '2024-06-01 11:00+08' WHERE message_id = :message;
INSERT INTO crm.message_unknown VALUES (2, :message, '2024-06-01 11:00+08');
SELECT crm.cancel_message(2, :message);
SELECT crm.resolve_message(2, :message, 'sent', 'she has it'), crm.resolve_message(2, :message, 'sent');
SELECT regexp_replace(pg_temp.refusal(format('SELECT crm.resolve_message(2, %s, ''failed'')', :message)), 'message \d+', 'message N');
SELECT m.state, m.reason, m.sent_at, m.ended_at, d.outcome, d.reply, (SELECT count(*) FROM crm.message_unknown)
  FROM crm.message m JOIN crm.delivery_attempt d USING (contact_id, message_id) WHERE message_id = :message;

\echo -- consent
SELECT statement || E'\n  ' || pg_temp.refusal('SELECT ' || statement) FROM (VALUES
    ($$crm.grant_consent(NULL, 'sms', 'marketing')$$),
    ($$crm.grant_consent(1, NULL, 'marketing')$$),
    ($$crm.grant_consent(1, 'sms', NULL)$$),
    ($$crm.grant_consent(1, 'sms', 'marketing', proof => NULL)$$),
    ($$crm.grant_consent(99, 'sms', 'marketing')$$),
    ($$crm.grant_consent(1, 'carrier_pigeon', 'marketing')$$),
    ($$crm.grant_consent(1, 'sms', 'spam')$$),
    ($$crm.grant_consent(1, 'sms', repeat('好', 100))$$),
    ($$crm.grant_consent(1, 'sms', 'marketing', 'infinity')$$),
    ($$crm.grant_consent(1, 'sms', 'marketing', '-infinity')$$),
    ($$crm.grant_consent(1, 'sms', 'marketing', '2024-06-03 12:00+08')$$),
    ($$crm.grant_consent(1, 'sms', 'marketing', proof => '[]')$$),
    ($$crm.grant_consent(1, 'sms', 'marketing', proof => jsonb_build_object('a', repeat('x', 1048577)))$$),
    ($$crm.grant_consent(1, 'sms', 'marketing', proof => jsonb_build_object('a', repeat('x', 1048550)))$$),
    ($$crm.withdraw_consent(NULL, 'sms', 'marketing')$$),
    ($$crm.withdraw_consent(1, NULL, 'marketing')$$),
    ($$crm.withdraw_consent(1, 'sms', NULL)$$),
    ($$crm.withdraw_consent(99, 'sms', 'marketing')$$),
    ($$crm.withdraw_consent(1, '', 'marketing')$$),
    ($$crm.withdraw_consent(1, 'sms', '')$$),
    ($$crm.track(1, 'grant_consent')$$),
    ($$crm.track(1, 'withdraw_consent')$$)) AS v (statement);
INSERT INTO crm.consent (contact_id, channel, class, granted, since) VALUES (3, 'sms', 'marketing', true, '2024-01-01');
SELECT pg_temp.refusal($$INSERT INTO crm.consent (contact_id, channel, class, granted, since) VALUES (3, 'sms', 'spam', true, '2024-01-01')$$);

\echo -- limits and quiet hours
SELECT statement || E'\n  ' || pg_temp.refusal(statement) FROM (VALUES
    ($$INSERT INTO crm.frequency_cap (name, max_messages, period) VALUES ('c', 0, '1 day')$$),
    ($$INSERT INTO crm.frequency_cap (name, max_messages, period) VALUES ('c', 1, '0')$$),
    ($$INSERT INTO crm.frequency_cap (name, max_messages, period) VALUES ('c', 1, '-1 day')$$),
    ($$INSERT INTO crm.frequency_cap (name, class, max_messages, period) VALUES ('c', 'spam', 1, '1 day')$$),
    ($$INSERT INTO crm.quiet_hours (name, hours) VALUES ('q', 'at night')$$),
    ($$INSERT INTO crm.quiet_hours (name, class, hours) VALUES ('q', 'spam', '22:00-08:00')$$),
    ($$INSERT INTO crm.window_rule VALUES ('official_account', 'wave', 0, '1 day')$$),
    ($$INSERT INTO crm.window_rule VALUES ('official_account', 'wave', 1, '0')$$),
    ($$INSERT INTO crm.api_limit (channel, api, per_second) VALUES ('sms', '', 0)$$),
    ($$INSERT INTO crm.api_limit (channel, api, per_second) VALUES ('sms', '', 'NaN')$$),
    ($$INSERT INTO crm.api_limit (channel, api, per_second) VALUES ('sms', '', 'infinity')$$)) AS v (statement);
