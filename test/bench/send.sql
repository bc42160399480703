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
