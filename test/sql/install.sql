-- install, its partitions and its view, restoring, the installation's identity
\set SHOW_CONTEXT never
SELECT crm.install();

-- once more changes nothing and says nothing
CREATE VIEW snapshot AS
	SELECT pg_catalog.md5(pg_catalog.string_agg(thing, E'\n' ORDER BY thing COLLATE "C")) AS sum
	  FROM (SELECT 'r ' || oid || relname || relkind::text || relnatts FROM pg_class WHERE relnamespace = 'crm'::regnamespace
	        UNION ALL SELECT 't ' || oid || pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
	        UNION ALL SELECT 'd ' || objoid || ' ' || objsubid || description FROM pg_description WHERE classoid = 'pg_class'::regclass
	        UNION ALL SELECT 'a ' || a::text FROM crm.achievement a
	        UNION ALL SELECT 's ' || s::text FROM crm.stage s
	        UNION ALL SELECT 'q ' || r::text FROM crm.stage_rule r
	        UNION ALL SELECT 'i ' || i::text FROM crm.installation i) AS x(thing);
SELECT sum AS before FROM snapshot \gset
SELECT crm.install();
SELECT sum = :'before' AS same FROM snapshot;
SELECT crm.migrate() = crm.version() AS current, count(*), bool_and(migrated_at IS NULL) AS untouched
  FROM crm.installation;
SELECT extversion = crm.version() AS same_version FROM pg_extension WHERE extname = 'pg_crm';

-- a brand's own changes of what ships stay
UPDATE crm.stage_rule SET rule = 'orders >= 6' WHERE stage = 'loyal';
DELETE FROM crm.achievement WHERE name = 'spend_milestone';
SELECT crm.install();
SELECT rule, version FROM crm.stage_rule WHERE stage = 'loyal';
SELECT count(*) FROM crm.achievement WHERE name = 'spend_milestone';

-- everything is commented
SELECT c.oid::regclass AS relation FROM pg_class c
 WHERE c.relnamespace = 'crm'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND obj_description(c.oid, 'pg_class') IS NULL;
SELECT a.attrelid::regclass AS relation, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
 WHERE c.relnamespace = 'crm'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND a.attnum > 0 AND NOT a.attisdropped
   AND col_description(a.attrelid, a.attnum) IS NULL;
SELECT p.oid::regprocedure AS function FROM pg_proc p
 WHERE p.pronamespace = 'crm'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL;

-- partitions: this month (UTC) and three more, and a default
SET pg_crm.clock = '2031-11-15 00:00:00+00';
SELECT crm.maintain_partitions();
SELECT crm.maintain_partitions();
SELECT i.inhrelid::regclass AS partition, pg_get_expr(c.relpartbound, c.oid) AS bounds
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = 'crm.event'::regclass AND c.relname ~ '_20(31|32)_|default' ORDER BY c.relname;
SELECT r.tgname, count(*) = count(l.oid) AS on_every_partition
  FROM pg_trigger r JOIN pg_inherits i ON i.inhparent = r.tgrelid
  LEFT JOIN pg_trigger l ON l.tgrelid = i.inhrelid AND l.tgname = r.tgname AND l.tgenabled = r.tgenabled
   AND l.tgtype = r.tgtype AND l.tgargs = r.tgargs AND l.tgnewtable IS NOT DISTINCT FROM r.tgnewtable
 WHERE NOT r.tgisinternal AND r.tgrelid IN ('crm.event'::regclass, 'crm.scan'::regclass)
 GROUP BY r.tgname ORDER BY r.tgname;

-- a month whose rows lie in the default partition takes them over
SET pg_crm.clock = '2033-05-15 00:00:00+00';
INSERT INTO crm.contact (contact_id) VALUES (100);
INSERT INTO crm.event (contact_id, kind) VALUES (100, 'cart');
SELECT tableoid::regclass, kind FROM crm.event;
SELECT crm.maintain_partitions();
SELECT tableoid::regclass, kind FROM crm.event;
SELECT to_regclass('crm.event_2033_05_moved') AS left_behind, to_regclass('crm.event_2033_06') AS made;
-- a table in the way, and bounds in the way, are left alone
CREATE TABLE crm.event_2033_09 (note text);
CREATE TABLE crm.scan_all_2033 PARTITION OF crm.scan FOR VALUES FROM ('2033-09-01 00:00:00+00') TO ('2033-12-01 00:00:00+00');
SET pg_crm.clock = '2033-06-15 00:00:00+00';
SELECT crm.maintain_partitions();
DROP TABLE crm.event_2033_09;
SELECT crm.maintain_partitions();
-- a statement that names a partition counts like any other, and facts stay facts there
SET pg_crm.clock = '2033-06-16 00:00:00+00';
INSERT INTO crm.event_2033_06 (contact_id, event_id, kind) VALUES (100, 1000, 'cart');
SELECT events FROM crm.profile WHERE contact_id = 100;
UPDATE crm.event_2033_06 SET kind = 'form';
DELETE FROM crm.event_default;
TRUNCATE crm.event_2033_06;
RESET pg_crm.clock;

-- columns that users add appear in the profile, at its end
ALTER TABLE crm.contact ADD COLUMN shoe_size integer;
COMMENT ON COLUMN crm.contact.shoe_size IS 'Shoe size.';
ALTER TABLE crm.contact ADD COLUMN "select" text;
CREATE VIEW upon_profile AS SELECT * FROM crm.profile;
SELECT crm.install();
SELECT attnum > 20 AS late, attname, col_description(attrelid, attnum) FROM pg_attribute
 WHERE attrelid = 'crm.profile'::regclass AND attname IN ('shoe_size', 'select');
UPDATE crm.contact SET shoe_size = 42, "select" = 'x';
ALTER TABLE crm.contact RENAME COLUMN shoe_size TO shoe;
ALTER TABLE crm.contact ADD COLUMN hat_size integer;
SELECT crm.install();
SELECT contact_id, shoe_size, "select", hat_size, events FROM crm.profile;
DROP VIEW upon_profile;
DROP VIEW crm.profile;
SELECT crm.install();
SELECT contact_id, shoe, "select", hat_size, events FROM crm.profile;
DROP VIEW crm.profile;
CREATE VIEW crm.profile AS SELECT 1 AS one;
SELECT crm.install();
DROP VIEW crm.profile;
SELECT crm.install();

-- the identity of the installation
SELECT i.system_identifier = s.system_identifier AS this_server, i.database_oid = d.oid AS this_database,
       i.database_name = current_database() AS its_name, i.version = crm.version() AS its_version, i.resumed_at
  FROM crm.installation i, pg_control_system() s, pg_database d WHERE d.datname = current_database();
SELECT crm.dispatch_allowed();
UPDATE crm.installation SET system_identifier = 1;
SELECT crm.dispatch_allowed();
SELECT crm.resume_dispatch();
SELECT crm.dispatch_allowed(), resumed_at IS NOT NULL AS resumed FROM crm.installation;
UPDATE crm.installation SET database_oid = 1;
SELECT crm.dispatch_allowed();
SELECT crm.install();
SELECT crm.dispatch_allowed();
SELECT crm.resume_dispatch();

-- other versions
UPDATE crm.installation SET version = '0.0.9';
SELECT crm.install();
SELECT crm.migrate() = crm.version() AS current;
SELECT version = crm.version() AS current, migrated_at IS NOT NULL AS migrated FROM crm.installation;
DELETE FROM crm.installation;
SELECT crm.migrate();
SELECT crm.dispatch_allowed();
SELECT crm.resume_dispatch();

-- restoring(): off and on, with partitions, in sight, as part of the transaction
CREATE VIEW quiet AS SELECT count(*) FILTER (WHERE tgenabled = 'D') AS off, count(*) FILTER (WHERE tgenabled <> 'D') > 50 AS others
  FROM pg_trigger WHERE NOT tgisinternal;
SELECT crm.restoring(NULL);
BEGIN;
SELECT crm.restoring(true);
SELECT * FROM quiet WHERE others OR off < 50;
ROLLBACK;
SELECT off FROM quiet;
SELECT crm.restoring(true);
SELECT count(*) FROM crm.installation;
SELECT count(*) > 0 AS kept FROM crm.stage;
INSERT INTO crm.contact (contact_id) VALUES (500);
INSERT INTO crm.profile_counter (contact_id, events, settled_at) VALUES (500, 3, now());
INSERT INTO crm.event (contact_id, event_id, kind) VALUES (500, 5000, 'cart');
SELECT crm.restoring(false);
SELECT off FROM quiet;
SELECT count(*) FROM crm.installation;
SELECT events FROM crm.profile_counter WHERE contact_id = 500;
SELECT crm.identify('customer', 'next') > 500 AS moved_on;
SELECT nextval(pg_get_serial_sequence('crm.event', 'event_id')) > 5000 AS moved_on;

-- the app may be given a role that is none, or a level that is none
SELECT crm.grant_access('no_such_role', 'app');
SELECT crm.grant_access('public', 'app');
SELECT crm.grant_access(current_user, 'boss');
SELECT crm.grant_access(NULL, 'app');
SELECT crm.grant_access(current_user, NULL);
