-- The story's first half: a contact known by mobile, a follower who turns out
-- to be the same person, and the six awards of their first two days.
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_crm;
SELECT crm.install();
SELECT plan(22);

INSERT INTO crm.account (kind, name) VALUES ('official_account', 'brand');
INSERT INTO crm.loyalty_program (name) VALUES ('club');
SELECT crm.define_qr_code('{"account": "brand", "scene": "banner"}');

-- what is awarded to a contact, in the order of time
CREATE FUNCTION pg_temp.awards(id bigint) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(format('%s %s', achievement, to_char(awarded_at AT TIME ZONE 'Asia/Shanghai', 'MM-DD HH24:MI')), ', '
	                  ORDER BY awarded_at, achievement COLLATE "C")
	  FROM crm.award WHERE contact_id = id AND revoked_at IS NULL
$$;

-- Mr. Wu, as the shop knows him
SELECT crm.identify('mobile', '13800138000') AS known \gset
SELECT is((SELECT count(*) FROM crm.award), 0::bigint, 'a mobile known to the shop awards nothing');
SELECT is((SELECT count(*) FROM crm.contact_timeline WHERE contact_id = :known AND kind NOT IN ('stage')), 0::bigint,
	'and is no fact');
SELECT is((SELECT count(*) FROM crm.identity WHERE verified_at IS NOT NULL), 0::bigint, 'nobody proved the number yet');

-- he follows by the banner's code
SELECT crm.follow('brand', 'openid-wu', '2026-03-01 10:00+08', 'qrscene_banner') AS follower \gset
SELECT isnt(:follower::bigint, :known::bigint, 'the follower is a contact of their own at first');
SELECT is(pg_temp.awards(:follower), 'first_scan 03-01 10:00, follow 03-01 10:00',
	'a follow by a code awards follow and first_scan, at the same time');
SELECT is((SELECT stage FROM crm.contact WHERE contact_id = :follower), 'lead', 'a follower is a lead');

-- he replies with the mobile
SELECT crm.bind_mobile(:follower, '138 0013 8000', '2026-03-01 10:01+08') AS wu \gset
SELECT is(:wu::bigint, :known::bigint, 'the older contact survives');
SELECT is((SELECT count(*) FROM crm.contact), 1::bigint, 'one person, one contact');
SELECT is((SELECT verified_at FROM crm.identity WHERE kind = 'mobile'), '2026-03-01 10:01+08'::timestamptz,
	'the number is proved');
SELECT is((SELECT stage FROM crm.contact), 'opportunity', 'scanned and with a mobile: an opportunity');

SELECT lives_ok(format('SELECT crm.purchase(%s, 30, ''2026-03-01 18:30+08'', ''T-1'')', :follower),
	'the old id still leads to the survivor');
SELECT crm.join_loyalty(:wu, 'club', '2026-03-01 18:31+08');
SELECT crm.purchase(:wu, 40, '2026-03-02 12:00+08', 'T-2');
SELECT is(pg_temp.awards(:wu),
	'first_scan 03-01 10:00, follow 03-01 10:00, bind_mobile 03-01 10:01, first_purchase 03-01 18:30, '
	'join_loyalty 03-01 18:31, second_purchase 03-02 12:00',
	'exactly six awards, at the times given');
SELECT is((SELECT count(*) FROM crm.award), 6::bigint, 'and no other');
SELECT is((SELECT array_agg(stage ORDER BY since) FROM crm.stage_history WHERE contact_id = :wu),
	'{lead,opportunity,paying}', 'lead, opportunity, paying');

-- a second contact: two old orders under another mobile
SELECT crm.identify('mobile', '13900139000') AS old_customer \gset
INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref)
VALUES (:old_customer, 10, '2024-05-01 12:00+08', 'OLD-1'), (:old_customer, 10, '2024-06-01 12:00+08', 'OLD-2');
SELECT is(pg_temp.awards(:old_customer), 'first_purchase 05-01 12:00, second_purchase 06-01 12:00',
	'old orders hold their awards at their historic dates since the load');
SELECT crm.follow('brand', 'openid-li', '2026-03-03 09:00+08') AS li \gset
SELECT crm.bind_mobile(:li, '13900139000', '2026-03-03 09:05+08') AS joined \gset
SELECT is(pg_temp.awards(:joined),
	'first_purchase 05-01 12:00, second_purchase 06-01 12:00, follow 03-03 09:00, bind_mobile 03-03 09:05',
	'after binding the survivor holds them unchanged');
SELECT is((SELECT count(*) FROM crm.award_change), 0::bigint, 'nothing moved');
SELECT crm.purchase(:joined, 25, '2026-03-04 09:00+08', 'T-3');
SELECT is((SELECT count(*) FROM crm.award WHERE contact_id = :joined), 4::bigint, 'the third order gives no award');

-- an unknown scene
SELECT throws_ok($$SELECT crm.scan('poster', 'brand', 'openid-wu')$$, '23503', NULL,
	'scan() refuses an unknown scene');
SELECT crm.follow('brand', 'openid-zhao', '2026-03-05 09:00+08', 'poster') AS zhao \gset
SELECT is((SELECT properties ->> 'scene' FROM crm.event WHERE contact_id = :zhao AND kind = 'follow'), 'poster',
	'follow() keeps the follow, with the scene in its properties');
SELECT is(pg_temp.awards(:zhao), 'follow 03-05 09:00', 'and awards no scan');

SELECT is_empty('SELECT * FROM crm.verify()', 'verify() finds no difference');
SELECT * FROM finish();
ROLLBACK;
