-- What came in past the triggers is made good by recompute(); events that bear
-- the name of another kind of fact are only events.
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_crm;
SELECT crm.install();
SELECT plan(20);

INSERT INTO crm.account (kind, name) VALUES ('official_account', 'brand');
SELECT crm.define_qr_code('{"account": "brand", "scene": "door"}');
INSERT INTO crm.contact (contact_id, created_at) VALUES (1, '2026-01-01'), (2, '2026-01-01');

-- as a replica, or a load with triggers off
SET session_replication_role = replica;
INSERT INTO crm.contact (contact_id, created_at, mobile) VALUES (3, '2026-01-02', '13800138000');
INSERT INTO crm.identity (kind, external_id, contact_id, bound_at) VALUES ('mobile', '+8613800138000', 3, '2026-01-02');
INSERT INTO crm.transaction (contact_id, amount, occurred_at)
SELECT c, 60, '2026-02-01'::timestamptz + n * interval '1 day' FROM generate_series(1, 3) AS c, generate_series(1, 2) AS n;
INSERT INTO crm.scan (contact_id, qr_code_id, occurred_at) SELECT 2, qr_code_id, '2026-02-05' FROM crm.qr_code;
SET session_replication_role = origin;

SELECT isnt_empty('SELECT * FROM crm.verify()', 'verify() sees what the triggers did not');
SELECT is((SELECT count(*) FROM crm.verify() WHERE check_name = 'contact without profile'), 1::bigint, 'also a contact without profile');
SELECT is(crm.recompute(1), 1::bigint, 'one contact is made anew');
SELECT is((SELECT orders FROM crm.profile WHERE contact_id = 1), 2::bigint, 'and has its orders');
SELECT is((SELECT count(*) FROM crm.verify() WHERE contact_id = 1), 0::bigint, 'it is sound');
SELECT is(crm.recompute(), 3::bigint, 'all contacts are made anew');
SELECT is_empty('SELECT * FROM crm.verify()', 'nothing differs');
SELECT is((SELECT count(*) FROM crm.award WHERE achievement = 'first_scan'), 1::bigint, 'the scan counts');
SELECT throws_ok('SELECT crm.recompute(99)', '23503', 'contact 99 does not exist', 'an unknown contact is an error');

INSERT INTO crm.event (contact_id, kind, occurred_at) VALUES (1, 'purchase', '2026-03-01'), (1, 'scan', '2026-03-02');
SELECT is((SELECT orders FROM crm.profile WHERE contact_id = 1), 2::bigint, 'an event named purchase is no order');
SELECT is((SELECT count(*) FROM crm.award WHERE contact_id = 1 AND achievement IN ('first_scan', 'purchase_milestone')), 0::bigint,
	'and an event named scan no scan');
SELECT throws_ok($$INSERT INTO crm.event (contact_id, kind, properties) VALUES (1, 'cart', '[1]')$$, '22023', NULL,
	'properties are an object in plain rows too');
-- a late order and an event in one statement: the walk sees the event before its trigger does
WITH e AS (INSERT INTO crm.event (contact_id, kind, occurred_at) VALUES (3, 'page', '2026-06-01')),
     o AS (INSERT INTO crm.transaction (contact_id, amount, occurred_at) VALUES (3, 5, '2026-01-10')) SELECT;
SELECT is((SELECT events FROM crm.profile WHERE contact_id = 3), 1::bigint, 'an event beside a late order counts once');
SELECT is_empty('SELECT * FROM crm.verify()', 'verify() agrees');
-- a stage set by hand: rules overtake it at the next fact, of whatever kind
INSERT INTO crm.event (contact_id, kind, occurred_at, properties)
VALUES (3, 'set_stage', '2026-07-01', '{"stage": "user", "reason": "by hand"}');
SELECT is((SELECT stage FROM crm.contact WHERE contact_id = 3), 'user', 'a stage set by hand holds at first');
INSERT INTO crm.event (contact_id, kind, occurred_at) VALUES (3, 'page', '2026-07-02');
SELECT is((SELECT stage || ' ' || since FROM crm.stage_history WHERE contact_id = 3 AND until IS NULL), 'paying ' || '2026-07-02'::timestamptz,
	'until a rule says higher at the next fact');
CREATE TEMP TABLE before AS SELECT * FROM crm.stage_move;
SELECT crm.define_achievement('{"name": "pages", "on_kind": "page"}');
SELECT set_eq('SELECT * FROM crm.stage_move', 'SELECT * FROM before', 'an achievement on such a fact moves nobody');
SELECT is_empty('SELECT * FROM crm.verify()', 'verify() agrees');
SELECT crm.merge(1, 2);
SELECT throws_ok($$INSERT INTO crm.identity (kind, external_id, contact_id) VALUES ('customer', 'C-2', 2)$$, '23503',
	'contact 2 does not exist', 'a contact that was merged away gets no identifier');
SELECT is_empty('SELECT * FROM crm.verify()', 'verify() agrees');
SELECT * FROM finish();
ROLLBACK;
