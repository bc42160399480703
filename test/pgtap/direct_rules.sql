-- a rule for one contact, answered off its rows without a plan; and where a plan is asked all the same
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SET search_path = public, pg_catalog;
SET pg_crm.clock = '2024-06-15 10:30Z';
SELECT no_plan();
CREATE ROLE brand;
CREATE ROLE app;
SELECT crm.grant_access('brand', 'owner') \g /dev/null
GRANT CREATE ON SCHEMA public TO brand;
SET ROLE brand;
SELECT crm.install(), crm.grant_access('app', 'app') \g /dev/null
INSERT INTO crm.contact (contact_id, created_at, city, tags, time_zone) SELECT n, '2024-01-01Z', CASE WHEN n > 1 THEN 'Shanghai' END, '{new}', 'Europe/Berlin' FROM generate_series(1, 4) AS n;
SELECT crm.purchase(c, 10, at => '2024-06-01Z') FROM unnest('{2, 2, 3}'::int[]) AS c \g /dev/null
RESET ROLE;

-- the plans that ask rules of one contact
CREATE FUNCTION pg_temp.plans() RETURNS bigint LANGUAGE sql AS
$$SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'CachedPlanSource' AND ident ~ 'contact_id = [$]1'$$;
-- the contacts for whom it holds, and whether that took a new plan
CREATE FUNCTION pg_temp.holds(rule text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	before bigint := pg_temp.plans();
	answer text;
BEGIN
	SELECT string_agg(c::text, ',' ORDER BY c) INTO answer FROM generate_series(0, 5) AS c WHERE crm.rule_holds(c, rule);
	RETURN coalesce(answer, '-') || CASE WHEN pg_temp.plans() > before THEN ' by a plan' ELSE '' END;
END $$;

SELECT is(pg_temp.holds('true'), '1,2,3,4', 'a rule that reads nothing, of contacts that are there');
SELECT is(pg_temp.holds('city = ''Shanghai'''), '2,3,4', 'a column of the contact');
SELECT is(pg_temp.holds('orders = 1 AND last_order_at < as_of - interval ''2 weeks'' AND NOT tags @> ''{staff}'''), '3', 'counters');
SELECT is(pg_temp.holds('NULL::boolean'), '-', 'NULL is no');
SELECT is(pg_temp.holds('stage_rank >= 6'), '2,3', 'the rank of the stage');
SELECT is(pg_temp.holds('stage_rank IS NULL'), '-', 'everybody has one');
SELECT is(pg_temp.holds('local_time() = ''12:30'' AND today = ''2024-06-15'''), '1,2,3,4', 'the time where the contact lives');
SELECT is(pg_temp.holds('did(''purchase'', ''1 year'')'), '2,3 by a plan', 'rule functions that read facts take a plan');
SELECT is(pg_temp.holds('did(''purchase'', ''1 year'')'), '2,3', 'which is kept');
SELECT is(pg_temp.holds('stage_rank >= rank(''paying'')'), '2,3 by a plan', 'so does the rank of a stage that is named');

-- the row at hand is that of the statement
WITH p AS (UPDATE crm.contact SET city = 'Wuhan' WHERE contact_id = 4 RETURNING 1) SELECT is(crm.rule_holds(4, 'city = ''Shanghai'''), true, 'what the statement does itself is not seen') FROM p;
SELECT is(crm.rule_holds(4, 'city = ''Wuhan'''), true, 'what came before it is');
SAVEPOINT s;
UPDATE crm.contact SET city = 'X' WHERE contact_id = 4;
ROLLBACK TO s;
SELECT is(crm.rule_holds(4, 'city = ''Wuhan'''), true, 'and nothing that was undone');
UPDATE crm.contact SET attributes = jsonb_build_object('long', (SELECT string_agg(md5(n::text), '') FROM generate_series(1, 5000) AS n)) WHERE contact_id = 1;
SELECT is(pg_temp.holds('length(attributes->>''long'') = 160000'), '1', 'a value stored apart');

-- failures
SELECT is(pg_temp.holds('10 / (orders - 1) > 0'), '2', 'a failing rule is false, for whom it fails');
SELECT results_eq('SELECT contact_id, object_kind, sqlstate, times FROM crm.rule_error', $$VALUES (3::bigint, 'rule_holds', '22012', 1::bigint)$$, 'and counted once');
SELECT crm.rule_holds(3, '10 / (orders - 1) > 0') \g /dev/null
SELECT results_eq('SELECT contact_id, times FROM crm.rule_error', 'VALUES (3::bigint, 2::bigint)', 'each time');
SELECT is(pg_temp.holds('NULL AND 1 / (orders - orders) = 1'), '-', 'a part that decides alone');
SELECT is((SELECT count(*) FROM crm.rule_error), 1::bigint, 'leaves nothing to fail');
SELECT is(pg_temp.holds('orders = 0 OR 1 / 0 = 1'), '- by a plan', 'constants that fail when the plan is made');
SELECT results_eq('SELECT contact_id, times FROM crm.rule_error ORDER BY 1', 'VALUES (0::bigint, 1::bigint), (1, 1), (2, 1), (3, 3), (4, 1), (5, 1)', 'fail for each');
SELECT throws_ok('SELECT crm.rule_holds(1, ''nonsense > 1'')', '42703', 'rule names unknown column "nonsense"', 'what is no rule is an error');

-- rights
SET ROLE app;
SELECT throws_ok('SELECT count(*) FROM crm.profile_counter', '42501', NULL, 'who may not read the table');
SELECT is(crm.rule_holds(3, 'orders = 1'), true, 'may ask');
SET ROLE brand;
REVOKE SELECT ON crm.profile_counter FROM brand;
SELECT throws_ok('SELECT crm.rule_holds(3, ''orders = 1'')', '42501', NULL, 'an owner who may not read it gets no answer');
SELECT is(crm.rule_holds(3, 'city = ''Shanghai'''), true, 'of that table');
GRANT SELECT ON crm.profile_counter TO brand;
SELECT is(crm.rule_holds(3, 'orders = 1'), true, 'until he may again');
RESET ROLE;

-- tables that only the executor may read
ALTER TABLE crm.profile_counter ENABLE ROW LEVEL SECURITY;
SELECT is(pg_temp.holds('orders >= 1'), '2,3 by a plan', 'row security');
ALTER TABLE crm.profile_counter FORCE ROW LEVEL SECURITY;
SELECT is(pg_temp.holds('orders >= 1'), '2,3', 'of the owner neither');
ALTER TABLE crm.profile_counter NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY;
SELECT is(pg_temp.holds('orders >= 1'), '2,3', 'and none again');
CREATE TABLE crm.child () INHERITS (crm.contact);
SELECT is(pg_temp.holds('city = ''Wuhan'' AND orders = 0'), '4 by a plan', 'a table with children');
DROP TABLE crm.child;
ANALYZE crm.contact;
DELETE FROM crm.profile_counter WHERE contact_id = 4;
SELECT is(pg_temp.holds('orders IS NULL AND city = ''Wuhan'''), '4', 'a contact without counters');

-- columns that come and go, tables that are rewritten
SET ROLE brand;
SELECT crm.rule_holds(1, 'city IS NULL AND orders = 0') \g /dev/null
ALTER TABLE crm.contact DROP COLUMN gender CASCADE;
SELECT throws_ok('SELECT crm.rule_holds(1, ''true'')', '42P01', NULL, 'the view goes with its column');
ALTER TABLE crm.contact ADD COLUMN gender text, ADD COLUMN shoe int DEFAULT 42;
SELECT crm.install() \g /dev/null
RESET ROLE;
SELECT is(pg_temp.holds('shoe = 42 AND gender IS NULL AND orders = 1'), '3', 'a new column of rows that were there before');
ALTER TABLE crm.contact ALTER COLUMN mobile SET STATISTICS 10;
UPDATE crm.contact SET shoe = 43 WHERE contact_id = 2;
SELECT is(pg_temp.holds('shoe = 43 AND orders = 2'), '2', 'a changed table');
SELECT is(pg_temp.holds('city IS NULL AND orders = 0'), '1', 'and a rule of before');
CLUSTER crm.contact USING contact_pkey;
SELECT is(pg_temp.holds('shoe = 43 AND orders = 2'), '2', 'a rewritten one');

-- a view of the owner's own making means what it says
SET ROLE brand;
CREATE OR REPLACE FUNCTION own_view(source text) RETURNS void LANGUAGE plpgsql AS $$BEGIN
	EXECUTE format('CREATE OR REPLACE VIEW crm.profile AS %s', replace(pg_get_viewdef('crm.profile'::regclass), ';', source));
END$$;
SELECT own_view(' WHERE c.contact_id < 3') \g /dev/null
RESET ROLE;
SELECT crm.rule_holds(1, 'true') \g /dev/null
SELECT is(pg_temp.holds('shoe IN (42, 43) AND orders >= 1'), '2 by a plan', 'a narrower profile');
SELECT is(pg_temp.holds('city IS NULL AND orders = 0'), '1 by a plan', 'also of rules kept before');
-- errors in between leave nothing behind
SELECT is(current_setting('search_path') || ' ' || current_user || ' ' || current_setting('TimeZone'), 'public, pg_catalog ' || session_user || ' UTC', 'nothing is left behind');

SELECT * FROM finish();
ROLLBACK;
