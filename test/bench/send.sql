-- A brand with :contacts followers, whose account has its token and no limits of calls; :url is the platform.
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
INSERT INTO crm.account (account_id, kind, name, app_id, base_url) VALUES (1, 'official_account', 'maison', 'wx01', :'url');
INSERT INTO crm.account_token (account_id, token, fetched_at, refresh_at, expires_at)
VALUES (1, 'bench_token', now(), now() + interval '1 day', now() + interval '2 days');
DELETE FROM crm.api_limit;
SELECT count(*) FROM crm.identify_many('maison', (SELECT array_agg('o_' || n) FROM generate_series(1, :contacts) AS n)) \g /dev/null
-- who wrote a moment ago may be answered, and who follows may be told of what is sold
INSERT INTO crm.follower (contact_id, account_id, followed_at) SELECT contact_id, 1, now() - interval '1 day' FROM crm.contact;
INSERT INTO crm.window_grant (contact_id, account_id, kind, opened_at, expires_at)
SELECT contact_id, 1, 'message', now() - interval '1 hour', now() + interval '1 day' FROM crm.contact;
SELECT crm.define_template('{"name": "order", "channel": "official_account", "message_type": "template",
  "body": {"template_id": "T1", "data": {"thing1": {"value": "{{item}}"}}}}') \g /dev/null
SELECT crm.define_template('{"name": "answer", "channel": "official_account", "message_type": "text",
  "body": {"content": "Your code is {{code}}"}}') \g /dev/null
SELECT crm.define_template('{"name": "campaign", "channel": "official_account", "message_type": "template", "class": "marketing",
  "body": {"template_id": "T2", "data": {"thing1": {"value": "New in the shop"}}}}') \g /dev/null
VACUUM ANALYZE;

CREATE SCHEMA bench;
-- the same columns, indexes, constraints and fill, and nothing else
CREATE TABLE bench.message (LIKE crm.message INCLUDING ALL) WITH (fillfactor = 80);
CREATE TABLE bench.outbox (LIKE crm.outbox INCLUDING ALL) WITH (fillfactor = 70);
CREATE TABLE bench.asked (openid text, committed_at timestamptz);
CREATE TABLE bench.arrival (openid text, at bigint);

CREATE PROCEDURE bench.until_sent(INOUT seconds double precision DEFAULT 0) LANGUAGE plpgsql AS $$
DECLARE
	begun timestamptz := clock_timestamp();
	gone boolean;
BEGIN
	LOOP
		SELECT NOT EXISTS (SELECT FROM crm.outbox) INTO gone;
		EXIT WHEN gone OR clock_timestamp() > begun + interval '10 min';
		COMMIT;
		PERFORM pg_sleep(0.01);
	END LOOP;
	seconds := extract(epoch FROM clock_timestamp() - begun);
END $$;

-- n messages, each in a transaction of its own and some time after the last one, to contacts from the first on
CREATE PROCEDURE bench.ask(n integer, first bigint, template text) LANGUAGE plpgsql AS $$
DECLARE
	person record;
	openids text[];
	times timestamptz[];
BEGIN
	FOR person IN SELECT i.contact_id, i.external_id FROM crm.identity AS i WHERE i.kind = 'openid'
	        AND i.contact_id >= first ORDER BY i.contact_id LIMIT n LOOP
		PERFORM crm.send(person.contact_id, template, '{"item": "Scarf", "code": "A1"}');
		COMMIT;
		openids := openids || person.external_id;
		times := times || clock_timestamp();
		PERFORM pg_sleep(0.02 + random() * 0.02);
	END LOOP;
	INSERT INTO bench.asked SELECT * FROM unnest(openids, times);
END $$;
