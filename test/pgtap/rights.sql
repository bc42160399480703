-- who may do what: levels, owners who plant things, hijacked search paths
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SET search_path = public, pg_catalog;
SELECT no_plan();
-- tests run as other roles too
GRANT ALL ON SCHEMA public TO PUBLIC;
GRANT ALL ON ALL TABLES IN SCHEMA pg_temp TO PUBLIC;
GRANT ALL ON ALL SEQUENCES IN SCHEMA pg_temp TO PUBLIC;
SET ROLE NONE;

CREATE ROLE brand;
CREATE ROLE stranger;
CREATE ROLE planter;
CREATE ROLE backend;
CREATE ROLE bi;
CREATE ROLE marketing;
CREATE ROLE shop_staff;
CREATE ROLE sender;
CREATE ROLE bare;

-- before anything is granted
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p
    WHERE p.pronamespace = 'crm'::regnamespace AND p.prosecdef$$, 'no function is SECURITY DEFINER');
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
    WHERE p.pronamespace = 'crm'::regnamespace AND l.lanname NOT IN ('c', 'internal', 'sql')$$, 'none is PL/pgSQL');
SELECT set_eq($$SELECT p.proname::text FROM pg_proc p
    WHERE p.pronamespace = 'crm'::regnamespace AND has_function_privilege('public', p.oid, 'EXECUTE')
      AND p.proname NOT LIKE 'mobile\_%' AND p.proname NOT LIKE 'weekly\_hours\_%'
      AND p.proname NOT LIKE 'funnel\_state\_%'$$,
    ARRAY['funnel', 'funnel_times', 'is_open', 'next_opening', 'next_closing', 'now', 'default_currency', 'default_time_zone', 'alarm_after', 'wilson_interval', 'visit_state', 'version', 'install', 'migrate', 'uninstall', 'restoring'],
    'PUBLIC may execute what works with the caller''s rights, and nothing else');
SET ROLE stranger;
SELECT throws_ok('SELECT crm.install()', '42501', NULL, 'a role without rights installs nothing');
RESET ROLE;

-- level owner: a superuser makes the extension, a plain role the tables
SELECT lives_ok($$SELECT crm.grant_access('brand', 'owner')$$, 'level owner before anything is installed');
SET ROLE stranger;
SELECT throws_ok($$SELECT crm.grant_access('stranger', 'owner')$$, '42501', NULL, 'nobody makes himself an owner');
RESET ROLE;

-- nobody plants a table
GRANT CREATE, USAGE ON SCHEMA crm TO planter;
SET ROLE planter;
CREATE TABLE crm.stage (stage text PRIMARY KEY, rank integer, label text);
SET ROLE brand;
SELECT throws_ok('SELECT crm.install()', '42501', 'crm.stage belongs to role "planter"', 'a planted table is not taken over');
RESET ROLE;
SELECT throws_ok('SELECT crm.install()', '42501', NULL, 'by a superuser neither');
DROP TABLE crm.stage;
SET ROLE planter;
CREATE VIEW crm.profile AS SELECT 1 AS contact_id;
SET ROLE brand;
SELECT throws_ok('SELECT crm.install()', '42501', NULL, 'nor a planted view');
RESET ROLE;
DROP VIEW crm.profile;

SET ROLE brand;
SELECT lives_ok('SELECT crm.install()', 'a plain role installs');
RESET ROLE;
SELECT is_empty($$SELECT c.oid::regclass FROM pg_class c WHERE c.relnamespace = 'crm'::regnamespace
    AND c.relowner <> 'brand'::regrole AND c.relkind <> 'c'$$, 'and owns all of it');
SET ROLE planter;
CREATE TABLE crm.event_2040_01 (note text);
SET ROLE stranger;
SELECT throws_ok('SELECT crm.install()', '42501', NULL, 'a stranger may not install over it');
SELECT throws_ok('SELECT crm.migrate()', '42501', NULL, 'migrate');
SELECT throws_ok('SELECT crm.uninstall()', '42501', NULL, 'uninstall');
SELECT throws_ok('SELECT crm.restoring(true)', '42501', NULL, 'restore');
SELECT throws_ok('SELECT crm.resume_dispatch()', '42501', NULL, 'resume');
SELECT throws_ok('SELECT crm.maintain_partitions()', '42501', NULL, 'make partitions');
RESET ROLE;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA crm TO stranger;
GRANT USAGE ON SCHEMA crm TO stranger;
SET ROLE stranger;
SELECT throws_ok('SELECT crm.resume_dispatch()', '42501', NULL, 'also with the right to execute it');
SELECT throws_ok('SELECT crm.maintain_partitions()', '42501', NULL, 'and this');
SELECT throws_ok('SELECT crm.build_profile_view()', '42501', NULL, 'and this');
SELECT throws_ok($$SELECT crm.grant_access('stranger', 'app')$$, '42501', NULL, 'and this');
RESET ROLE;
SELECT lives_ok('SELECT crm.install()', 'a superuser may install again');
SELECT is((SELECT relowner::regrole::text FROM pg_class WHERE oid = 'crm.contact'::regclass), 'brand', 'in the owner''s name');
SET pg_crm.clock = '2039-12-05 00:00Z';
SELECT is(crm.maintain_partitions(), 15, 'a planted partition is passed over');
RESET pg_crm.clock;
DROP TABLE crm.event_2040_01;

-- the owner hands out levels, in his own name
SET ROLE brand;
SELECT lives_ok($$SELECT crm.grant_access('backend', 'app')$$, 'app');
SELECT lives_ok($$SELECT crm.grant_access('bi', 'analyst')$$, 'analyst');
SELECT lives_ok($$SELECT crm.grant_access('marketing', 'marketer')$$, 'marketer');
SELECT lives_ok($$SELECT crm.grant_access('shop_staff', 'associate')$$, 'associate');
SELECT lives_ok($$SELECT crm.grant_access('sender', 'dispatcher')$$, 'dispatcher');
SELECT lives_ok($$SELECT crm.grant_access('bi', 'analyst')$$, 'once more');
SELECT throws_ok($$SELECT crm.grant_access('bi', 'Analyst')$$, '22023', NULL, 'an unknown level');
SELECT throws_ok($$SELECT crm.grant_access('nobody at all', 'app')$$, '42704', NULL, 'an unknown role');
INSERT INTO crm.account (kind, name) VALUES ('official_account', 'shop');
INSERT INTO crm.loyalty_program (name) VALUES ('club');
SELECT lives_ok($$SELECT crm.define_qr_code('{"account": "shop", "scene": "door"}')$$, 'the owner defines');

-- a role that may only execute, without any right on a table
RESET ROLE;
GRANT USAGE ON SCHEMA crm TO bare;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA crm TO bare;
SET ROLE bare;
SELECT is(crm.identify('customer', 'c1'), 1::bigint, 'without table rights: identify');
SELECT lives_ok($$SELECT crm.follow('shop', 'o1', scene => 'door')$$, 'follow');
SELECT lives_ok($$SELECT crm.scan('door', 'shop', 'o1')$$, 'scan');
SELECT lives_ok($$SELECT crm.bind_mobile(crm.identify('shop', 'o1'), '13800138000')$$, 'bind_mobile');
SELECT lives_ok($$SELECT crm.purchase(1, 30, external_ref => 'r')$$, 'purchase');
SELECT lives_ok($$SELECT crm.refund(1, 'r', 10, key => 'k')$$, 'refund');
SELECT lives_ok($$SELECT crm.track(1, 'cart', '{"sku": 1}')$$, 'track');
SELECT lives_ok($$SELECT crm.join_loyalty(1, 'club')$$, 'join_loyalty');
SELECT lives_ok($$SELECT crm.set_stage(1, 'intent', 'asked')$$, 'set_stage');
SELECT lives_ok($$SELECT crm.unfollow('shop', 'o1')$$, 'unfollow');
SELECT lives_ok($$SELECT crm.define_earning_rule('{"name": "yuan", "program": "club"}')$$, 'define_earning_rule');
SELECT lives_ok($$SELECT crm.purchase(1, 30)$$, 'an order that earns');
SELECT is(crm.earn_points(1, 'club', 5), 6::bigint, 'earn_points');
SELECT is(crm.spend_points(1, 'club', 2), 4::bigint, 'spend_points');
SELECT lives_ok($$SELECT crm.define_coupon('{"name": "tea", "max_grants": 9}')$$, 'define_coupon');
SELECT lives_ok($$SELECT crm.redeem_coupon(1, crm.issue_coupon(1, 'tea'))$$, 'issue_coupon and redeem_coupon');
SELECT lives_ok($$SELECT crm.define_segment('{"name": "buyers", "rule": "orders > 0 OR city = ''X''", "partition": "p"}')$$, 'define_segment');
SELECT lives_ok($$SELECT crm.suppress(1, 'sms', 'asked'), crm.unsuppress(1, 'sms')$$, 'suppress and unsuppress');
SELECT lives_ok($$SELECT * FROM crm.segment_overlap('p')$$, 'segment_overlap');
SELECT lives_ok($$SELECT crm.define_template('{"name": "hello", "channel": "official_account", "message_type": "text", "body": {"content": "Hello"}}')$$, 'define_template');
SELECT lives_ok($$SELECT crm.send(1, 'hello', send_key => 'bare'), crm.send_many('{1}', 'hello')$$, 'send and send_many');
SELECT lives_ok('SELECT * FROM crm.reachable(1)', 'reachable');
SELECT lives_ok($$SELECT crm.grant_consent(1, 'sms', 'marketing'), crm.withdraw_consent(1, 'sms', 'marketing')$$, 'consent');
SELECT is_empty('SELECT * FROM crm.verify()', 'verify');
SELECT lives_ok($$SELECT crm.define_achievement('{"name": "bare", "on_kind": "cart"}')$$, 'define');
SELECT throws_ok('SELECT 1 FROM crm.contact', '42501', NULL, 'but sees no table');
SELECT throws_ok('INSERT INTO crm.transaction (contact_id, amount) VALUES (1, 1)', '42501', NULL, 'and writes none');
RESET ROLE;
SELECT is((SELECT changed_by FROM crm.definition_log WHERE name = 'bare'), 'bare', 'the log names who called');

-- app
SET ROLE backend;
SELECT lives_ok($$SELECT crm.purchase(1, 5)$$, 'the app buys by function');
SELECT lives_ok($$INSERT INTO crm.transaction (contact_id, amount) VALUES (1, 5)$$, 'and by INSERT');
SELECT lives_ok($$INSERT INTO crm.contact (name) VALUES ('Li')$$, 'adds contacts');
SELECT lives_ok($$UPDATE crm.contact SET name = 'Wang', attributes = '{"x": 1}' WHERE contact_id = 1$$, 'changes them');
SELECT lives_ok($$UPDATE crm.contact SET city = 'X' WHERE contact_id = 1$$, 'which moves them between segments');
SELECT results_eq($$SELECT segment FROM crm.segment_member WHERE contact_id = 1$$, $$VALUES ('buyers')$$, 'as it may read');
SELECT lives_ok($$SELECT crm.suppress(1), crm.unsuppress(1), count(reason) FROM crm.suppression$$, 'it suppresses');
SELECT throws_ok($$INSERT INTO crm.event (contact_id, kind) VALUES (1, 'field_change')$$, '42501', NULL, 'records no field changes');
SELECT throws_ok($$DELETE FROM crm.segment_member$$, '42501', NULL, 'and keeps out of the members');
SELECT throws_ok($$UPDATE crm.contact SET stage = 'loyal'$$, '42501', NULL, 'but not what the extension keeps');
SELECT throws_ok($$DELETE FROM crm.transaction$$, '42501', NULL, 'deletes no facts');
SELECT throws_ok($$INSERT INTO crm.award VALUES (1, 'x', 1, now(), now())$$, '42501', NULL, 'awards nothing');
SELECT throws_ok($$UPDATE crm.achievement SET on_kind = 'cart'$$, '42501', NULL, 'defines nothing');
SELECT throws_ok($$SELECT crm.define_achievement('{}')$$, '42501', NULL, 'by function neither');
SELECT throws_ok($$SELECT 1 FROM crm.merge_ledger$$, '42501', NULL, 'and reads no ledger');
SELECT throws_ok($$INSERT INTO crm.point_entry (contact_id, loyalty_program_id, kind, points, balance_after, source_at, occurred_at, recorded_at) VALUES (1, 1, 'earned', 1, 1, now(), now(), now())$$, '42501', NULL, 'writes no points');
SELECT throws_ok($$UPDATE crm.point_balance SET points = 1000$$, '42501', NULL, 'and no balance');
SELECT throws_ok($$UPDATE crm.coupon_grant SET redeemed_at = NULL$$, '42501', NULL, 'takes no redemption back');
SELECT lives_ok($$SELECT crm.issue_coupon(1, 'tea'), crm.earn_points(1, 'club', 1), count(*) FROM crm.coupon_grant$$, 'it issues coupons and gives points');
SELECT lives_ok($$SELECT * FROM crm.profile, crm.stage_rule, crm.store$$, 'it reads profiles and definitions');
SELECT ok(crm.cancel_message(1, crm.send(1, 'hello', '{"code": "7"}')), 'it sends and takes back');
SELECT lives_ok($$SELECT crm.send_many('{1}', 'hello'), crm.grant_consent(1, 'sms', 'service', proof => '{"form": 1}'), crm.withdraw_consent(1, 'email', 'service')$$, 'to many, and records consent');
SELECT lives_ok('SELECT params FROM crm.message', 'and reads messages');
SELECT throws_ok('SELECT ' || c, '42501', NULL, 'but not ' || c)
  FROM unnest(ARRAY['* FROM crm.account_secret', '* FROM crm.account_token', 'crm.resolve_message(1, 1, ''sent'')', 'crm.pause_account(''shop'', ''x'')', 'crm.define_template(''{}'')']) AS c;
SELECT throws_ok($$UPDATE crm.message SET state = 'sent'$$, '42501', NULL, 'and writes no state');

-- analyst, and who is an analyst and more
SET ROLE bi;
SELECT lives_ok('SELECT * FROM crm.' || v, 'an analyst reads ' || v)
  FROM unnest(ARRAY['lifecycle_funnel', 'stage_daily', 'achievement_timeline', 'scan_count', 'award', 'profile_counter', 'stage', 'segment', 'segment_member', 'segment_size', 'segment_change', 'segment_overlap(''p'')', 'outbox', 'message_unknown', 'message_end', 'window_grant', 'follower', 'frequency_cap', 'quiet_hours', 'api_usage', 'worker_status', 'queue_health', 'message_outcome']) AS v;
SELECT lives_ok('SELECT name, version, label FROM crm.template', 'and templates');
SELECT lives_ok('SELECT kind, object, since FROM crm.active_alarm', 'and alarms');
SELECT lives_ok('SELECT contact_id, stage, orders, spend, city FROM crm.profile', 'and profiles');
SELECT lives_ok('SELECT crm.timeline_svg(1)', 'and a timeline, which says no name');
SELECT lives_ok('SELECT contact_id, amount FROM crm.transaction', 'and orders');
SELECT lives_ok('SELECT template, state, reason, sent_at FROM crm.message', 'and what became of messages');
SELECT throws_ok('SELECT ' || c, '42501', NULL, 'but no ' || c)
  FROM unnest(ARRAY['mobile FROM crm.profile', 'name FROM crm.profile', 'birthday FROM crm.profile', 'attributes FROM crm.profile',
      'mobile FROM crm.contact', 'name FROM crm.contact', 'attributes FROM crm.contact', '* FROM crm.contact_timeline',
      'external_id FROM crm.identity', 'properties FROM crm.event', 'items FROM crm.transaction', 'external_ref FROM crm.transaction',
      'reason FROM crm.stage_move', 'reason FROM crm.stage_history', 'key FROM crm.fact_key', '* FROM crm.merge_ledger',
      'reason FROM crm.suppression', '* FROM crm.segment_state', 'code FROM crm.coupon_grant', 'code FROM crm.coupon_code', 'reason FROM crm.point_entry', 'settings FROM crm.account', '* FROM crm.definition_log',
      'body FROM crm.template', 'body FROM crm.template_version', 'detail FROM crm.alarm', 'detail FROM crm.active_alarm', 'stuck FROM crm.enrolment', 'reason FROM crm.stuck',
      'note FROM crm.touchpoint_note', 'interaction FROM crm.emotion', 'params FROM crm.message', 'send_key FROM crm.message', 'reply FROM crm.delivery_attempt', 'proof FROM crm.consent',
      '* FROM crm.account_secret', '* FROM crm.account_token', 'crm.send(1, ''hello'')', 'crm.send_many(''{1}'', ''hello'')']) AS c;
SELECT throws_ok('SELECT crm.purchase(1, 5)', '42501', NULL, 'and buys nothing');
SET ROLE marketing;
SELECT lives_ok($$SELECT crm.define_achievement('{"name": "m", "on_kind": "cart", "thresholds": [7]}')$$, 'a marketer defines');
SELECT lives_ok($$SELECT crm.define_segment('{"name": "m", "rule": "spend > 1"}'), crm.suppress(1, 'email'), crm.unsuppress(1, 'email')$$, 'also segments, and suppresses');
SELECT throws_ok($$DELETE FROM crm.segment$$, '42501', NULL, 'deletes none');
SELECT lives_ok('SELECT crm.timeline_svg(1)', 'sees a timeline');
SELECT lives_ok('SELECT * FROM crm.lifecycle_funnel', 'and the views');
SELECT throws_ok('SELECT mobile FROM crm.profile', '42501', NULL, 'but no mobile');
SELECT lives_ok($$SELECT crm.define_coupon('{"name": "pool", "codes": "pool"}')$$, 'defines coupons');
SELECT lives_ok($$INSERT INTO crm.coupon_code (coupon, code) VALUES ('pool', 'P1')$$, 'adds codes to a pool');
SELECT throws_ok($$INSERT INTO crm.coupon_code (coupon, code, contact_id) VALUES ('pool', 'P2', 1)$$, '42501', NULL, 'but gives them to nobody');
SELECT throws_ok($$SELECT crm.issue_coupon(1, 'pool')$$, '42501', NULL, 'nor by function');
SELECT throws_ok('UPDATE crm.stage SET rank = NULL', '42501', NULL, 'and changes no table');
SELECT lives_ok($$SELECT crm.define_template('{"name": "sale", "channel": "official_account", "message_type": "text", "class": "marketing", "body": {"content": "Sale"}}')$$, 'defines templates');
SELECT is(crm.send_many('{1}', 'sale', send_key => 'sale'), 1::bigint, 'and sends to an audience');
SELECT ok((SELECT crm.cancel_message(contact_id, message_id) FROM crm.message WHERE template = 'sale'), 'which it takes back');
SELECT throws_ok('SELECT ' || c, '42501', NULL, 'but not ' || c)
  FROM unnest(ARRAY['params FROM crm.message', '* FROM crm.account_secret', '* FROM crm.account_token', 'crm.send(1, ''sale'')', 'crm.grant_consent(1, ''sms'', ''marketing'')']) AS c;
SET ROLE shop_staff;
SELECT lives_ok('SELECT name, mobile FROM crm.profile', 'an associate knows the customer');
SELECT lives_ok('SELECT crm.timeline_svg(1), count(*) FROM crm.contact_timeline', 'and the history');
SELECT throws_ok('SELECT 1 FROM crm.contact', '42501', NULL, 'not the tables');
SELECT throws_ok('SELECT crm.purchase(1, 5)', '42501', NULL, 'and records nothing');
SELECT throws_ok($$SELECT crm.redeem_coupon(1, 'X')$$, '23503', NULL, 'but the use of a coupon');
SET ROLE sender;
SELECT ok(crm.dispatch_allowed(), 'the dispatcher asks whether it may');
SELECT throws_ok('SELECT ' || c, '42501', NULL, 'but not ' || c)
  FROM unnest(ARRAY['1 FROM crm.contact', 'params FROM crm.message', 'crm.send(1, ''hello'')', 'external_id FROM crm.identity']) AS c;
SELECT lives_ok($$INSERT INTO crm.account_secret SELECT account_id, 'app_secret', 'env:APP_SECRET' FROM crm.account$$, 'it writes secrets');
SELECT lives_ok($$UPDATE crm.account_secret SET value = 'file:/run/secret' WHERE name = 'app_secret'$$, 'changes them');
SELECT lives_ok('SELECT value FROM crm.account_secret, crm.account_token', 'and reads them');
SELECT lives_ok($$INSERT INTO crm.api_limit (channel, api, per_second) VALUES ('webhook', 'post', 50)$$, 'it says what a platform allows');
SELECT lives_ok('SELECT reply FROM crm.delivery_attempt, crm.alarm, crm.outbox, crm.message_unknown, crm.message_end', 'and watches the queue');
SELECT lives_ok($$SELECT crm.pause_account('shop', 'test'), crm.resume_account('shop') FROM crm.queue_health, crm.active_alarm$$, 'stops accounts and lets them go on');
SELECT throws_ok($$SELECT crm.resolve_message(1, 0, 'sent')$$, '23503', NULL, 'resolves messages');
RESET ROLE;
SELECT is_empty($$SELECT c.oid::regclass, r FROM pg_class c, unnest(ARRAY['backend', 'bi', 'marketing', 'shop_staff', 'sender', 'bare']) AS r
    WHERE c.relnamespace = 'crm'::regnamespace AND c.relkind IN ('r', 'p') AND has_table_privilege(r, c.oid, 'TRIGGER, TRUNCATE, DELETE, REFERENCES')$$,
    'no level may plant triggers or delete');

-- an owner who plants triggers, operators, functions and defaults
SET ROLE brand;
CREATE TABLE public.spied (what text, as_role text);
GRANT ALL ON public.spied TO PUBLIC;
CREATE FUNCTION public.spy() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN INSERT INTO public.spied VALUES (tg_name, current_user); RETURN NEW; END$$;
CREATE FUNCTION public.spy_default() RETURNS text LANGUAGE plpgsql AS
$$BEGIN INSERT INTO public.spied VALUES ('default', current_user); RETURN 'x'; END$$;
CREATE FUNCTION public.spy_equal(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS
$$BEGIN INSERT INTO public.spied VALUES ('operator', current_user); RETURN $1 OPERATOR(pg_catalog.=) $2; END$$;
CREATE OPERATOR public.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = public.spy_equal);
CREATE OPERATOR crm.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = public.spy_equal);
CREATE FUNCTION crm.unnest(bigint[]) RETURNS SETOF bigint LANGUAGE sql AS
$$INSERT INTO public.spied VALUES ('function', current_user); SELECT NULL::bigint WHERE false$$;
CREATE TRIGGER planted BEFORE INSERT OR UPDATE ON crm.profile_counter FOR EACH ROW EXECUTE FUNCTION public.spy();
CREATE TRIGGER planted_award AFTER INSERT OR UPDATE ON crm.award FOR EACH ROW EXECUTE FUNCTION public.spy();
CREATE TRIGGER planted_log AFTER INSERT ON crm.definition_log FOR EACH ROW EXECUTE FUNCTION public.spy();
ALTER TABLE crm.definition_log ADD COLUMN planted text DEFAULT public.spy_default();
ALTER TABLE crm.identity ADD COLUMN planted text DEFAULT public.spy_default();
DELETE FROM public.spied;
RESET ROLE;
SET search_path = public, crm, pg_catalog;
SELECT lives_ok($$SELECT crm.purchase(crm.identify('customer', 'c9'), 200)$$, 'a superuser buys at an owner''s who planted things');
SELECT lives_ok($$SELECT crm.define_achievement('{"name": "planted", "on_kind": "purchase"}')$$, 'defines');
SELECT lives_ok('SELECT crm.install()', 'installs');
SELECT lives_ok('SELECT * FROM crm.verify()', 'verifies');
SELECT lives_ok($$SELECT crm.bind_mobile(1, '13900139000')$$, 'binds');
SELECT lives_ok('SELECT crm.restoring(true)', 'restores');
SELECT lives_ok('SELECT crm.restoring(false)', 'to the end');
SELECT lives_ok($$SELECT crm.grant_access('bi', 'analyst')$$, 'grants');
SELECT ok((SELECT pg_catalog.count(*) > 0 FROM public.spied), 'what was planted did run');
SELECT is_empty($$SELECT DISTINCT what, as_role FROM public.spied WHERE as_role <> 'brand'$$, 'only ever as its owner');
SET search_path = public, pg_catalog;

-- a caller with a hijacked search path gains nothing from the owner
SET ROLE backend;
RESET ROLE;
DELETE FROM public.spied;
CREATE SCHEMA trap;
GRANT ALL ON SCHEMA trap TO backend;
SET ROLE backend;
CREATE FUNCTION trap.spy_equal(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS
$$BEGIN INSERT INTO public.spied VALUES ('trap', current_user); RETURN true; END$$;
CREATE OPERATOR trap.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = trap.spy_equal);
CREATE FUNCTION trap.count(anyelement) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint';
CREATE FUNCTION trap.now() RETURNS timestamptz LANGUAGE plpgsql AS
$$BEGIN INSERT INTO public.spied VALUES ('trap now', current_user); RETURN '2000-01-01'; END$$;
CREATE FUNCTION trap.coalesce(bigint, bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint';
CREATE TEMP TABLE contact (contact_id bigint);
CREATE TEMP TABLE pg_class (oid oid);
SET search_path = trap, pg_temp, crm, pg_catalog, public;
SELECT lives_ok($$SELECT crm.purchase(crm.identify('customer', 'c10'), 10)$$, 'with a hijacked search_path: purchase');
SELECT lives_ok($$SELECT crm.bind_mobile(crm.identify('customer', 'c10'), '13700137000')$$, 'bind_mobile');
SELECT lives_ok($$SELECT crm.follow('shop', 'o10', scene => 'door')$$, 'follow');
INSERT INTO crm.transaction (contact_id, amount) VALUES (1, 2);
SET search_path = public, pg_catalog;
RESET ROLE;
SELECT is_empty('SELECT * FROM public.spied WHERE as_role NOT IN (''backend'', ''brand'')', 'nothing of it ran as anybody else');
SELECT is_empty('SELECT * FROM public.spied WHERE what LIKE ''trap%''', 'nor at all');
SELECT is_empty('SELECT * FROM crm.verify()', 'and everything is as it should be');

-- rows that the session's role may not see are no way around
SET ROLE brand;
ALTER TABLE crm.transaction ENABLE ROW LEVEL SECURITY;
ALTER TABLE crm.transaction FORCE ROW LEVEL SECURITY;
SET ROLE bare;
SELECT lives_ok('SELECT crm.purchase(1, 1)', 'row security of the owner''s table does not hide it from the extension');
RESET ROLE;
SELECT is_empty('SELECT * FROM crm.verify()', 'nor does it spoil the sums');

SELECT * FROM finish();
ROLLBACK;
