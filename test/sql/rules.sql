-- the rule language: who is meant, why, and what is refused with which words
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_crm;
SELECT crm.install();
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SET pg_crm.clock = '2024-06-15 10:30Z';
\pset format unaligned

INSERT INTO crm.account (kind, name) VALUES ('official_account', 'wx');
INSERT INTO crm.contact (contact_id, created_at, city, time_zone, tags, attributes) VALUES
	(1, '2024-01-01', 'Shanghai', NULL, '{}', '{"size": "42"}'),
	(2, '2024-01-01', 'Köln', 'Europe/Berlin', '{staff}', '{"size": "tall"}'),
	(3, '2024-01-01', NULL, NULL, '{vip,new}', '{}');
INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref) VALUES
	(1, 30, '2024-06-14 09:00Z', 'A'), (1, 20, '2024-03-01', 'B'), (2, 600, '2024-06-15 10:30Z', 'C'), (2, 5, '2024-06-08 10:30Z', 'D');
SELECT crm.refund(1, 'A', 30, '2024-06-14 10:00Z') > 0 AS refunded;
INSERT INTO crm.event (contact_id, kind, occurred_at) VALUES
	(1, 'cart', '2024-06-15 10:00Z'), (1, 'cart', '2024-06-01'), (3, 'cart', '2024-05-01'), (3, 'cart', '2024-06-15 10:31Z');

-- everybody, in words
SELECT r.rule, (SELECT coalesce(array_agg(a ORDER BY a), '{}') FROM crm.audience(r.rule) AS a) AS audience
  FROM (VALUES ('true'), ('false'), ('NULL'), ('orders >= 1'), ('spend > 100 AND NOT tags @> ''{staff}'''),
               ('times(''purchase'') >= 1'), ('times(''purchase'', ''7 days'') = 1'), ('times(''cart'') = 2'),
               ('did(''cart'', ''1 hour'')'), ('spent() > 0'), ('spent(''30 days'') >= 600'), ('did(''refund'')'),
               ('awarded(''first_purchase'')'), ('awarded(''spend_milestone'', 500)'),
               ('stage_rank >= rank(''paying'')'), ('last_order_at < as_of - interval ''7 days'''),
               ('local_time() > ''18:00'''), ('local_date() = today'), ('today = date ''2024-06-15'''),
               ('city LIKE ''K%'' OR city IS NULL'), ('''vip'' = ANY (tags)'),
               ('(attributes->>''size'')::int > 40'), ('CASE WHEN orders > 1 THEN city = ''Köln'' END'),
               ('mobile IS NULL')) AS r(rule);
-- as of another time
SELECT * FROM crm.audience('did(''cart'', ''1 hour'')', '2024-06-15 10:31Z') AS a ORDER BY a;
-- who fails is counted, and nobody else is touched
SELECT contact_id, object_kind, day, times, sqlstate, message FROM crm.rule_error ORDER BY 1, 2;
SELECT crm.rule_holds(1, '(attributes->>''size'')::int > 40'), crm.rule_holds(2, '(attributes->>''size'')::int > 40'), crm.rule_holds(99, 'true');
SELECT object_kind, times FROM crm.rule_error WHERE contact_id = 2 ORDER BY 1;

-- why
SELECT * FROM crm.explain(2, 'orders >= 1 AND (NOT tags @> ''{staff}'' OR spent(''30 days'') > 1000) AND city IS NOT NULL');
SELECT * FROM crm.explain(2, '(attributes->>''size'')::int > 40 OR local_time() BETWEEN ''09:00'' AND ''13:00'' OR today > birthday');

-- who may not read who a contact is does not read it here either
CREATE ROLE regress_rules_marketer;
SELECT crm.grant_access('regress_rules_marketer', 'marketer');
SET ROLE regress_rules_marketer;
SELECT * FROM crm.explain(2, 'name IS NULL AND city LIKE ''K%'' AND attributes->>''size'' = ''42'' AND (attributes->>''size'')::int > 40');
SELECT * FROM crm.rule_error;
RESET ROLE;
DROP OWNED BY regress_rules_marketer;
DROP ROLE regress_rules_marketer;

-- columns that the brand added
ALTER TABLE crm.contact ADD COLUMN shoe int;
SELECT crm.rule_holds(1, 'shoe > 40');
SELECT crm.install();
UPDATE crm.contact SET shoe = 41 WHERE contact_id = 1;
SELECT crm.rule_holds(1, 'shoe > 40'), crm.rule_holds(2, 'shoe > 40');

-- what is refused
SELECT crm.audience('orders >');
SELECT crm.audience('nonsense = 1');
SELECT crm.audience('(SELECT true)');
SELECT crm.audience('now() > last_order_at');
SELECT crm.audience('last_order_at < ''yesterday''');
SELECT crm.audience('count(*) > 1');
SELECT crm.audience('pg_sleep(1) IS NULL');
SELECT crm.audience('pg_read_file(''/etc/passwd'') IS NULL');
SELECT crm.audience('crm.verify() IS NULL');
SELECT crm.audience('''crm.contact''::regclass IS NULL');
SELECT crm.audience('repeat(''x'', 1000) = city');
SELECT crm.audience('orders');
SELECT crm.audience('true; SELECT 1');
SELECT crm.audience('times(city) > 1');
SELECT crm.audience('times(''cart'', ''-1 day'') > 1');
SELECT crm.audience('times() > 1');
SELECT crm.audience('awarded(''nothing'')');
SELECT crm.audience('rank(''nirvana'') = 1');
SELECT crm.audience(NULL);
SELECT crm.audience('true', 'infinity');
SELECT crm.audience(repeat('x', 9000));
SELECT * FROM crm.explain(99, 'true');
SELECT * FROM crm.explain(1, NULL);
SELECT crm.rule_holds(NULL, 'true');

-- the time zone and the date style of the session are nobody's business
SET timezone = 'America/New_York';
SET datestyle = 'SQL, DMY';
SET intervalstyle = 'iso_8601';
SELECT found FROM crm.explain(2, 'last_order_at > ''2024-06-15 18:00'' AND today = ''2024-06-15'' AND as_of - last_order_at >= ''0''');
-- nor does it matter by which plan a rule is answered: for all, for some (one fails, so it is asked in parts), for one
SET intervalstyle = 'sql_standard';
SELECT r.rule, (SELECT array_agg(a ORDER BY a) FROM crm.audience(r.rule) AS a) AS everybody,
       (SELECT array_agg(a ORDER BY a) FROM crm.audience(r.rule || ' AND (attributes->>''size'')::int IS DISTINCT FROM 0') AS a) AS some,
       ARRAY(SELECT c FROM generate_series(1, 3) AS c WHERE crm.rule_holds(c, r.rule)) AS one,
       ARRAY(SELECT c FROM generate_series(1, 3) AS c WHERE (SELECT e.holds FROM crm.explain(c, r.rule) AS e LIMIT 1)) AS explained
  FROM (VALUES ('created_at::text = ''2024-01-01 08:00:00+08'''), ('created_at >= ''2024-01-01 08:00'''),
               ('''-1 1:00''::text::interval = interval ''-23 hours'''),
               ('''03-04-05''::text::date = date ''2003-04-05'''), ('created_at::date < as_of - interval ''1 month'''),
               ('((attributes->>''size'')::int > 0 OR created_at::time = ''08:00'')')) AS r(rule);
-- a failure leaves the session as it was, and the transaction alive
BEGIN;
SET LOCAL search_path = public;
SELECT crm.rule_holds(2, '(attributes->>''size'')::int > 40 AND today > ''2024-01-01''');
SELECT timestamptz '2024-06-15 10:30Z' AS at, interval '26 hours' AS lasting, current_schemas(false), current_user = session_user AS myself;
SELECT crm.rule_holds(2, 'nonsense') AS holds;
ROLLBACK;
SELECT timestamptz '2024-06-15 10:30Z' AS at, interval '26 hours' AS lasting, current_schemas(false), current_user = session_user AS myself;
-- in another zone of the brand the same words are another time
SELECT crm.rule_holds(2, 'last_order_at > ''2024-06-15 18:00''');
SET pg_crm.time_zone = 'UTC';
SELECT crm.rule_holds(2, 'last_order_at > ''2024-06-15 18:00''');
RESET pg_crm.time_zone;
SELECT crm.rule_holds(2, 'last_order_at > ''2024-06-15 18:00''');
DROP SCHEMA crm CASCADE;

-- a frozen clock goes to parallel workers
SET pg_crm.clock = '2024-05-01 12:00Z';
SELECT set_config(CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'debug_parallel_query' ELSE 'force_parallel_mode' END, 'on', false);
SELECT count(*) > 100 AS many FROM pg_class;
RESET pg_crm.clock;
