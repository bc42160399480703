-- the journeys that ship ready to publish: each from end to end, and the ways that are not taken
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET pg_crm.clock = '2026-03-01 10:00+08';
SELECT no_plan();

INSERT INTO crm.account (kind, name) VALUES ('official_account', 'shop');
INSERT INTO crm.loyalty_program (name) VALUES ('club');
INSERT INTO crm.store (name) VALUES ('Nanjing Road');
INSERT INTO crm.qr_code (account_id, scene, store_id, campaign)
SELECT a.account_id, v.scene, CASE WHEN v.in_store THEN s.store_id END, 'spring'
  FROM crm.account AS a, crm.store AS s, (VALUES ('door', true), ('fair', false)) AS v(scene, in_store);
SELECT crm.define_template(jsonb_build_object('name', name, 'channel', 'official_account', 'message_type', 'text',
           'body', jsonb_build_object('content', coalesce(body, name))))
  FROM (VALUES ('welcome', NULL), ('welcome_store', NULL), ('welcome_fair', NULL), ('ask_mobile', NULL), ('thanks', NULL), ('welcome_later', NULL),
               ('remind_mobile', NULL), ('invitation', NULL), ('cart_reminder', NULL), ('cart_last', NULL), ('repurchase', NULL), ('upsell', NULL),
               ('birthday_last', NULL), ('cart_offer', 'Take {{context.coupon}}'), ('repurchase_offer', 'Take {{context.coupon}}'),
               ('birthday', 'To you, {{sign}}')) AS t(name, body) \g /dev/null
SELECT crm.define_coupon('{"name": "ten"}'), crm.define_coupon('{"name": "few", "max_grants": 1}') \g /dev/null

CREATE TEMP TABLE person (name text PRIMARY KEY, contact_id bigint);
-- the steps that somebody went through in a journey, what was sent at each, and how it ended
CREATE FUNCTION pg_temp.way(who text, of text) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg((SELECT string_agg(v.step || coalesce(' (' || m.template || ')', ''), ' > ' ORDER BY v.visit)
                         FROM crm.step_visit AS v LEFT JOIN crm.message AS m USING (contact_id, message_id)
                        WHERE v.contact_id = e.contact_id AND v.enrolment_id = e.enrolment_id)
                      || ': ' || e.state || coalesce(' ' || e.end_reason, ''), '; ' ORDER BY e.enrolment_id)
      FROM crm.enrolment AS e JOIN person AS p USING (contact_id) WHERE p.name = who AND e.journey = of
$$;
-- time goes on until then
CREATE FUNCTION pg_temp.until(moment timestamptz) RETURNS void LANGUAGE sql AS $$
    SELECT set_config('pg_crm.clock', moment::text, false);
    SELECT crm.tick(moment);
$$;
CREATE FUNCTION pg_temp.follow(who text, by text DEFAULT NULL) RETURNS void LANGUAGE sql AS $$
    INSERT INTO person SELECT who, crm.follow('shop', who, scene => by);
$$;

/* welcome */
SELECT crm.publish_journey(crm.welcome_journey('shop', hello_in_store => 'welcome_store', hello_at_event => 'welcome_fair')) \g /dev/null
SELECT pg_temp.follow('wei'), pg_temp.follow('shu', 'door'), pg_temp.follow('fan', 'fair') \g /dev/null
SELECT is(pg_temp.way('wei', 'welcome'), 'source > elsewhere (welcome) > known > ask (ask_mobile): active', 'who came by search is welcomed, and asked');
SELECT is(pg_temp.way('shu', 'welcome'), 'source > in_store (welcome_store) > known > ask (ask_mobile): active', 'who came by the code of a shop otherwise');
SELECT is(pg_temp.way('fan', 'welcome'), 'source > at_event (welcome_fair) > known > ask (ask_mobile): active', 'and by that of a campaign');
SELECT is_empty('SELECT * FROM crm.refusal', 'a follow by a code lets in once');
SELECT results_eq('SELECT DISTINCT due_at, expires_at FROM crm.message', $$VALUES ('2026-03-01 10:00+08'::timestamptz, '2026-03-01 10:01+08'::timestamptz)$$, 'all at once, and within the minute or never');
SELECT is((SELECT count(DISTINCT g.grant_id) FROM crm.window_grant AS g WHERE g.quota >= 2 AND g.expires_at = '2026-03-01 10:01+08'), 3::bigint, 'the platform lets them pass');

-- two of them answer
SELECT pg_temp.until('2026-03-01 10:00:30+08') \g /dev/null
SELECT crm.track(contact_id, 'message', CASE name WHEN 'fan' THEN '{"content": "138 0013 8009"}' ELSE '{"content": "Who are you?"}' END::jsonb, account => 'shop')
  FROM person WHERE name IN ('shu', 'fan') ORDER BY contact_id \g /dev/null
SELECT is(pg_temp.way('fan', 'welcome'), 'source > at_event (welcome_fair) > known > ask (ask_mobile) > thanks (thanks) > pause: active', 'who answers with his number is thanked');
SELECT is((SELECT c.mobile::text FROM crm.contact AS c JOIN person AS p USING (contact_id) WHERE p.name = 'fan'), '+8613800138009', 'it is his');
SELECT is(pg_temp.way('shu', 'welcome'), 'source > in_store (welcome_store) > known > ask (ask_mobile) > pause: active', 'who writes anything else is not asked again');

-- a shop's customer, whose mobile is known, is not asked; he writes the next day
INSERT INTO person SELECT 'old', crm.bind_mobile(crm.identify('shop', 'old'), '138 0013 8000');
SELECT pg_temp.follow('new') \g /dev/null
SELECT crm.follow('shop', 'old') \g /dev/null
SELECT is(pg_temp.way('old', 'welcome'), 'source > elsewhere (welcome) > known > talk: active', 'who is known is not asked');
SELECT pg_temp.until('2026-03-02 10:00+08') \g /dev/null
SELECT crm.track(contact_id, 'message', '{"content": "Hello"}', account => 'shop') FROM person WHERE name = 'old' \g /dev/null
SELECT is(pg_temp.way('old', 'welcome'), 'source > elsewhere (welcome) > known > talk > pause: active', 'he writes');
SELECT pg_temp.until('2026-03-03 05:59+08') \g /dev/null
SELECT is(pg_temp.way('old', 'welcome'), 'source > elsewhere (welcome) > known > talk > pause: active', 'and is left in peace');
SELECT pg_temp.until('2026-03-03 06:00+08') \g /dev/null
SELECT is(pg_temp.way('old', 'welcome'), 'source > elsewhere (welcome) > known > talk > pause > later (welcome_later): finished', 'for twenty hours');
SELECT is(pg_temp.way('fan', 'welcome'), 'source > at_event (welcome_fair) > known > ask (ask_mobile) > thanks (thanks) > pause > later (welcome_later): finished', 'as all who wrote');
SELECT results_eq($$SELECT m.due_at, m.expires_at FROM crm.message AS m JOIN person AS p USING (contact_id) WHERE m.template = 'welcome_later' AND p.name = 'old'$$,
    $$VALUES ('2026-03-03 06:00+08'::timestamptz, '2026-03-04 10:00+08'::timestamptz)$$, 'the message ends with the 48 hours after his');
SELECT pg_temp.until('2026-03-03 10:00+08') \g /dev/null
SELECT is(pg_temp.way('wei', 'welcome'), 'source > elsewhere (welcome) > known > ask (ask_mobile) > silent: finished silent', 'who never wrote is written to no more');
SELECT crm.follow('shop', 'wei') \g /dev/null
SELECT results_eq($$SELECT object, reason FROM crm.refusal$$, $$VALUES ('welcome', 'once')$$, 'nobody is welcomed twice');
SELECT pg_temp.follow('gone') \g /dev/null
SELECT crm.unfollow('shop', 'gone') \g /dev/null
SELECT is(pg_temp.way('gone', 'welcome'), 'source > elsewhere (welcome) > known > ask (ask_mobile): exited rule', 'and who leaves is let go');

-- by a scan, of somebody of whose follow nothing is known
INSERT INTO person SELECT 'sun', contact_id FROM crm.scan('door', 'shop', 'sun');
SELECT crm.scan('fair', 'shop', 'sun') \g /dev/null
SELECT is(pg_temp.way('sun', 'welcome'), 'source > in_store (welcome_store) > known > ask (ask_mobile): active', 'the first scan lets in, with the first source');
-- without the ask, and on to the next journey
SELECT crm.publish_journey(crm.member_binding_journey('shop', program => 'club', more => '{"entry": [{"on": "journey"}, {"on": "api"}]}')) \g /dev/null
SELECT crm.publish_journey(crm.welcome_journey('shop', ask => NULL, hand_over => 'member_binding')) \g /dev/null
SELECT pg_temp.follow('ann') \g /dev/null
SELECT is(pg_temp.way('ann', 'welcome'), 'source > elsewhere (welcome) > talk: active', 'the ask can be left out');
SELECT pg_temp.until('2026-03-05 10:00+08') \g /dev/null
SELECT is(pg_temp.way('ann', 'welcome'), 'source > elsewhere (welcome) > talk > silent: finished', 'who is silent is handed over');
SELECT is(pg_temp.way('ann', 'member_binding'), 'pause: active', 'to the next journey');
SELECT crm.set_journey('welcome', 'cancelled') \g /dev/null

/* member binding, into the programme */
SELECT pg_temp.until('2026-03-08 10:00+08') \g /dev/null
SELECT is(pg_temp.way('ann', 'member_binding'), 'pause > known > ask (ask_mobile): active', 'after some days he is asked');
SELECT pg_temp.until('2026-03-12 10:00+08') \g /dev/null
SELECT is(pg_temp.way('ann', 'member_binding'), 'pause > known > ask (ask_mobile) > still_unknown > remind (remind_mobile): active', 'and again');
SELECT crm.bind_mobile(contact_id, '138 0013 8001') FROM person WHERE name = 'ann' \g /dev/null
SELECT pg_temp.until('2026-03-19 10:00+08') \g /dev/null
SELECT is(pg_temp.way('ann', 'member_binding'), 'pause > known > ask (ask_mobile) > still_unknown > remind (remind_mobile) > unknown_at_last > invite (invitation) > decide: active',
    'who has given it somewhere else is invited');
SELECT crm.join_loyalty(contact_id, 'club') FROM person WHERE name = 'ann' \g /dev/null
SELECT is(pg_temp.way('ann', 'member_binding'), 'pause > known > ask (ask_mobile) > still_unknown > remind (remind_mobile) > unknown_at_last > invite (invitation) > decide: exited goal',
    'and the goal is reached when he joins');
SELECT crm.enrol(contact_id, 'member_binding') FROM person WHERE name = 'old' \g /dev/null
SELECT pg_temp.until('2026-03-22 10:00+08') \g /dev/null
SELECT is(pg_temp.way('old', 'member_binding'), 'pause > known > invite (invitation) > decide: active', 'whose mobile is known is invited at once');
SELECT pg_temp.until('2026-03-29 10:00+08') \g /dev/null
SELECT is(pg_temp.way('old', 'member_binding'), 'pause > known > invite (invitation) > decide > silent: finished silent', 'and let go in the end');
-- without a programme the mobile is the goal
SELECT crm.publish_journey(crm.member_binding_journey('shop', 'binding')) \g /dev/null
SELECT pg_temp.follow('bo'), pg_temp.follow('cy'), pg_temp.follow('di') \g /dev/null
SELECT crm.bind_mobile(contact_id, '138 0013 8002') FROM person WHERE name = 'bo' \g /dev/null
SELECT is(pg_temp.way('bo', 'binding'), 'pause: exited goal', 'who gives his mobile before he is asked is not asked');
SELECT pg_temp.until('2026-04-05 10:00+08') \g /dev/null
SELECT crm.bind_mobile(contact_id, '138 0013 8003') FROM person WHERE name = 'cy' \g /dev/null
SELECT is(pg_temp.way('cy', 'binding'), 'pause > ask (ask_mobile) > remind (remind_mobile): exited goal', 'nor any more afterwards');
SELECT pg_temp.until('2026-04-12 10:00+08') \g /dev/null
SELECT is(pg_temp.way('di', 'binding'), 'pause > ask (ask_mobile) > remind (remind_mobile) > silent: finished silent', 'who never does is let go');
SELECT crm.follow('shop', 'old') \g /dev/null
SELECT is(pg_temp.way('old', 'binding'), NULL, 'and whose mobile is known never enters');
SELECT crm.set_journey('binding', 'cancelled'), crm.set_journey('member_binding', 'cancelled') \g /dev/null

/* cart re-targeting */
SELECT crm.publish_journey(crm.cart_journey('shop', coupon => 'few', last => 'cart_last')) \g /dev/null
SELECT crm.track(contact_id, 'cart', CASE name WHEN 'bo' THEN '{"amount": 500}' WHEN 'cy' THEN '{"amount": 900}' WHEN 'di' THEN '{"amount": "dear"}' WHEN 'ann' THEN '{"amount": 499.99}' ELSE '{}' END::jsonb)
  FROM person WHERE name IN ('ann', 'bo', 'cy', 'di', 'old') ORDER BY contact_id \g /dev/null
SELECT crm.track(contact_id, 'cart') FROM person WHERE name = 'ann' \g /dev/null
SELECT is(pg_temp.way('ann', 'cart'), 'pause: active', 'who goes on filling his cart is in the journey once');
SELECT crm.purchase(contact_id, 20) FROM person WHERE name = 'old' \g /dev/null
SELECT is(pg_temp.way('old', 'cart'), 'pause: exited goal', 'who buys is not reminded');
SELECT pg_temp.until('2026-04-12 11:00+08') \g /dev/null
SELECT set_eq($$SELECT name, pg_temp.way(name, 'cart') FROM person WHERE name IN ('bo', 'cy')$$,
    $$VALUES ('bo', 'pause > worth > coupon > offer (cart_offer) > again: active'), ('cy', 'pause > worth > coupon > remind (cart_reminder) > again: active')$$,
    'a large cart is worth a coupon, while there are some');
SELECT is(pg_temp.way('ann', 'cart'), 'pause > worth > remind (cart_reminder) > again: active', 'a smaller one a word');
SELECT is(pg_temp.way('di', 'cart'), 'pause > worth > remind (cart_reminder) > again: active', 'one of which nothing can be read too');
SELECT is((SELECT m.params #>> '{context,coupon}' FROM crm.message AS m WHERE m.template = 'cart_offer'), (SELECT code FROM crm.coupon_grant), 'the code is in the message');
SELECT crm.purchase(contact_id, 700) FROM person WHERE name = 'bo' \g /dev/null
SELECT pg_temp.until('2026-04-13 11:00+08') \g /dev/null
SELECT is(pg_temp.way('bo', 'cart'), 'pause > worth > coupon > offer (cart_offer) > again: exited goal', 'who buys then has reached the goal');
SELECT is(pg_temp.way('cy', 'cart'), 'pause > worth > coupon > remind (cart_reminder) > again > last (cart_last): finished', 'the others hear once more');
SELECT crm.track(contact_id, 'cart') FROM person WHERE name = 'cy' \g /dev/null
SELECT is(pg_temp.way('cy', 'cart'), 'pause > worth > coupon > remind (cart_reminder) > again > last (cart_last): finished; pause: active', 'and enter with their next cart');
SELECT crm.publish_journey(crm.cart_journey('shop')) \g /dev/null
SELECT crm.track(contact_id, 'cart') FROM person WHERE name = 'bo' \g /dev/null
SELECT pg_temp.until('2026-04-13 12:00+08') \g /dev/null
SELECT is(pg_temp.way('bo', 'cart'), 'pause > worth > coupon > offer (cart_offer) > again: exited goal; pause > remind (cart_reminder): finished', 'the shortest of it is one reminder');
SELECT crm.set_journey('cart', 'cancelled') \g /dev/null

/* re-purchase, and more */
SELECT crm.publish_journey(crm.repurchase_journey('shop', upsell => 'upsell', coupon => 'ten')) \g /dev/null
INSERT INTO person SELECT n, crm.identify('shop', n) FROM unnest('{rich,poor,back,undo}'::text[]) AS n;
SELECT crm.purchase(contact_id, CASE name WHEN 'rich' THEN 1000 ELSE 50 END, external_ref => name || ' 1') FROM person WHERE name IN ('rich', 'poor', 'back', 'undo') ORDER BY contact_id \g /dev/null
SELECT is(pg_temp.way('rich', 'repurchase'), 'period: active', 'an order begins the time after which one buys again');
SELECT crm.refund(contact_id, 'undo 1', 50) FROM person WHERE name = 'undo' \g /dev/null
SELECT is(pg_temp.way('undo', 'repurchase'), 'period: exited rule', 'one taken back ends it');
SELECT pg_temp.until('2026-05-01 12:00+08') \g /dev/null
SELECT crm.purchase(contact_id, 60) FROM person WHERE name = 'back' \g /dev/null
SELECT is(pg_temp.way('back', 'repurchase'), 'period: exited goal; period: active', 'another one is the goal, and begins it anew');
SELECT pg_temp.until('2026-05-13 12:00+08') \g /dev/null
SELECT is(pg_temp.way('rich', 'repurchase'), 'period > worth > upsell (upsell) > again: active', 'then good customers are offered more');
SELECT is(pg_temp.way('poor', 'repurchase'), 'period > worth > remind (repurchase) > again: active', 'and the others reminded');
SELECT crm.purchase(contact_id, 800) FROM person WHERE name = 'rich' \g /dev/null
SELECT pg_temp.until('2026-05-20 12:00+08') \g /dev/null
SELECT is(pg_temp.way('rich', 'repurchase'), 'period > worth > upsell (upsell) > again: exited goal; period: active', 'who takes it has reached the goal');
SELECT is(pg_temp.way('poor', 'repurchase'), 'period > worth > remind (repurchase) > again > coupon > offer (repurchase_offer): finished', 'who does not is given a coupon');
SELECT crm.set_journey('repurchase', 'cancelled') \g /dev/null

/* birthday */
SELECT crm.publish_journey(crm.birthday_journey('shop', coupon => 'ten', remind => 'birthday_last', more => '{"account": "shop"}')) \g /dev/null
-- the first and the last day of each sign
INSERT INTO person SELECT 'born ' || day, crm.identify('shop', day)
  FROM unnest('{0321,0419,0420,0520,0521,0620,0621,0722,0723,0822,0823,0922,0923,1022,1023,1121,1122,1221,1222,0101,0119,0120,0218,0219,0229,0320}'::text[]) AS day;
UPDATE crm.contact AS c SET birthday = ('1992-' || substr(p.name, 6, 2) || '-' || substr(p.name, 8))::date FROM person AS p WHERE p.contact_id = c.contact_id AND p.name LIKE 'born %';
SELECT crm.enrol(contact_id, 'birthday') FROM person WHERE name LIKE 'born %' OR name = 'ann' ORDER BY contact_id \g /dev/null
SELECT results_eq($$SELECT string_agg(substr(p.name, 6), ' ' ORDER BY p.name), m.params ->> 'sign' FROM crm.message AS m JOIN person AS p USING (contact_id) WHERE m.template = 'birthday' GROUP BY 2 ORDER BY (m.params ->> 'sign') COLLATE "C"$$,
    $$VALUES ('0120 0218', 'Aquarius'), ('0321 0419', 'Aries'), ('0621 0722', 'Cancer'), ('0101 0119 1222', 'Capricorn'), ('0521 0620', 'Gemini'), ('0723 0822', 'Leo'),
             ('0923 1022', 'Libra'), ('0219 0229 0320', 'Pisces'), ('1122 1221', 'Sagittarius'), ('1023 1121', 'Scorpio'), ('0420 0520', 'Taurus'), ('0823 0922', 'Virgo')$$,
    'every day has its sign');
SELECT is(pg_temp.way('ann', 'birthday'), 'coupon > sign > unknown: finished no birthday', 'of whom no birthday is known is not congratulated');
SELECT crm.redeem_coupon(g.contact_id, g.code) FROM crm.coupon_grant AS g JOIN person AS p USING (contact_id) WHERE p.name = 'born 0321' AND g.coupon = 'ten' \g /dev/null
SELECT is(pg_temp.way('born 0321', 'birthday'), 'coupon > sign > aries (birthday) > day: exited goal', 'who comes for his present has reached the goal');
SELECT pg_temp.until('2026-05-27 12:00+08') \g /dev/null
SELECT is(pg_temp.way('born 0419', 'birthday'), 'coupon > sign > aries (birthday) > day > remind (birthday_last): finished', 'the others are reminded on the day');
-- by the date, a week before, at ten in the morning; whose birthday was in that week not before the next year
SELECT pg_temp.until('2026-06-14 09:59+08') \g /dev/null
SELECT is(pg_temp.way('born 0621', 'birthday'), 'coupon > sign > cancer (birthday) > day > remind (birthday_last): finished', 'nobody enters before the day');
SELECT is((SELECT count(*) FROM crm.enrolment WHERE entered_by = 'date'), 0::bigint, 'indeed');
INSERT INTO person SELECT 'june', crm.identify('shop', 'june');
INSERT INTO person SELECT 'leap', crm.identify('shop', 'leap');
UPDATE crm.contact AS c SET birthday = CASE p.name WHEN 'june' THEN '1990-06-21' ELSE '1996-02-29' END::date FROM person AS p WHERE p.contact_id = c.contact_id AND p.name IN ('june', 'leap');
SELECT pg_temp.until('2026-06-14 10:00+08') \g /dev/null
SELECT is(pg_temp.way('june', 'birthday'), 'coupon > sign > cancer (birthday) > day: active', 'who has a birthday in a week enters');
SELECT results_eq($$SELECT entered_at, entered_by FROM crm.enrolment JOIN person USING (contact_id) WHERE name = 'june'$$, $$VALUES ('2026-06-14 10:00+08'::timestamptz, 'date')$$, 'by the date');
SELECT set_eq($$SELECT p.name, r.reason FROM crm.refusal AS r JOIN person AS p USING (contact_id) WHERE r.object = 'birthday'$$, $$VALUES ('born 0620', 'cooldown'), ('born 0621', 'cooldown')$$, 'who was congratulated this year is not again');
SELECT pg_temp.until('2027-02-21 09:59+08') \g /dev/null
SELECT is(pg_temp.way('leap', 'birthday'), NULL, 'who was born on 29 February has no birthday yet');
SELECT pg_temp.until('2027-02-21 10:00+08') \g /dev/null
SELECT is(pg_temp.way('leap', 'birthday'), 'coupon > sign > pisces (birthday) > day: active', 'and has it on the 28th in other years');
SELECT crm.set_journey('birthday', 'cancelled') \g /dev/null
SELECT crm.publish_journey(crm.birthday_journey('shop', 'plain', signs => '{白羊座}')) \g /dev/null
SELECT crm.enrol(contact_id, 'plain') FROM person WHERE name IN ('born 0321', 'born 0420') ORDER BY contact_id \g /dev/null
SELECT is(pg_temp.way('born 0321', 'plain'), 'sign > aries (birthday): finished', 'the shortest of it is a wish');
SELECT set_eq($$SELECT params ->> 'sign' FROM crm.message AS m JOIN crm.step_visit AS v USING (contact_id, message_id) WHERE v.journey = 'plain'$$, '{白羊座,Taurus}'::text[], 'in the words of the brand');

-- rules about how somebody was won, and branches about what let him in
SELECT set_eq($$SELECT p.name FROM crm.audience('acquired(''store_id'') IS NOT NULL') AS a JOIN person AS p ON p.contact_id = a$$, '{shu,sun}'::text[], 'who was won in a shop');
SELECT set_eq($$SELECT p.name FROM crm.audience('acquired(''source'') = ''scan'' AND acquired(''campaign'') = ''spring''') AS a JOIN person AS p ON p.contact_id = a$$, '{sun}'::text[], 'by a scan');
SELECT is_empty($$SELECT crm.audience('acquired(''source'') IS NOT NULL', '2026-03-01 09:59+08')$$, 'and nobody before it happened');
SELECT results_eq($$SELECT part, holds, found FROM crm.explain((SELECT contact_id FROM person WHERE name = 'sun'), 'acquired(''campaign'') = ''spring''')$$,
    $$VALUES ('acquired(''campaign'') = ''spring''', true, NULL), ('acquired(''campaign'') = ''spring''', true, 'acquired(''campaign'') = spring')$$, 'explained');
SELECT throws_ok($$SELECT crm.audience('acquired(''colour'') = ''x''')$$, '42703', 'acquired() in a rule does not know "colour"', 'what is not known of it is told');
SELECT crm.define_segment('{"name": "fair", "rule": "acquired(''campaign'') = ''spring'' AND acquired(''store_id'') IS NULL"}') \g /dev/null
SELECT pg_temp.follow('zoe', 'fair') \g /dev/null
SELECT set_eq($$SELECT p.name FROM crm.segment_member AS s JOIN person AS p USING (contact_id) WHERE s.segment = 'fair'$$, '{fan,zoe}'::text[], 'segments know it at once');
SELECT throws_ok($$SELECT crm.define_stage_rule('{"stage": "intent", "rule": "acquired(''campaign'') = ''spring''"}')$$, '0A000', NULL, 'stage rules do not know it');
SELECT crm.publish_journey(crm.journey_document('fork', 'fork', jsonb_build_object('fork', jsonb_build_object('kind', 'branch', 'default', 'else', 'branches', jsonb_build_array(
           jsonb_build_object('when', 'fact.kind = ''purchase'' AND fact.amount > 100 AND orders >= 1', 'next', 'order'),
           jsonb_build_object('when', 'fact.campaign = ''spring'' AND fact.store_id IS NOT NULL AND fact.occurred_at = as_of', 'next', 'scan'),
           jsonb_build_object('when', 'fact.properties ->> ''colour'' = ''red''', 'next', 'red'))),
       'order', crm.step_exit('order'), 'scan', crm.step_exit('scan'), 'red', crm.step_exit('red'), 'else', crm.step_exit('else')),
       entry => '[{"on": "purchase"}, {"on": "scan"}, {"on": "paint"}]', more => '{"reentry": "after_exit"}')) \g /dev/null
SELECT crm.purchase(contact_id, 101) FROM person WHERE name = 'zoe' \g /dev/null
SELECT crm.scan('door', 'shop', 'zoe') \g /dev/null
SELECT crm.track(contact_id, 'paint', '{"colour": "red", "amount": "a lot", "store_id": 1e40, "occurred_at": "never", "items": 3}') FROM person WHERE name = 'zoe' \g /dev/null
SELECT crm.enrol(contact_id, 'fork') FROM person WHERE name = 'zoe' \g /dev/null
SELECT is(pg_temp.way('zoe', 'fork'), 'fork > order: finished order; fork > scan: finished scan; fork > red: finished red; fork > else: finished else', 'a branch sees the fact that let in, whatever its properties are called');
SELECT throws_ok($$SELECT crm.publish_journey('{"journey": "x", "start": "a", "steps": {"a": {"kind": "branch", "branches": [{"when": "fact.colour = 1"}], "default": null}}}')$$, '22023', NULL, 'what is not known of facts is a fault');

-- nobody but marketers
SELECT is_empty('SELECT * FROM crm.rule_error WHERE object <> ''cart''', 'only what cannot be read of a cart failed');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');
SELECT * FROM finish();
ROLLBACK;
