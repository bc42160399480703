-- journey: journeys ready to publish. Each function gives a document; what is NULL in it is left out, with its steps.

CREATE FUNCTION crm.welcome_journey(account text, journey text DEFAULT 'welcome',
	hello text DEFAULT 'welcome', hello_in_store text DEFAULT NULL, hello_at_event text DEFAULT NULL,
	ask text DEFAULT 'ask_mobile', thanks text DEFAULT 'thanks',
	later text DEFAULT 'welcome_later', later_after interval DEFAULT '20 hours',
	in_store text DEFAULT 'acquired(''store_id'') IS NOT NULL',
	at_event text DEFAULT 'acquired(''campaign'') IS NOT NULL',
	hand_over text DEFAULT NULL, more jsonb DEFAULT '{}') RETURNS jsonb
LANGUAGE sql STABLE
RETURN (
	SELECT pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
		'journey', journey, 'account', account, 'reentry', 'once',
		'label', 'Welcome, by where the contact was won',
		-- who follows by a code has scanned it in the same moment: he comes in by the follow
		'entry', '[{"on": "follow"}, {"on": "scan", "when": "followed_at IS NULL AND raw_scans = 1"}]'::pg_catalog.jsonb,
		'exit', '{"on": "unfollow"}'::pg_catalog.jsonb,
		'start', CASE WHEN hello IS NULL THEN p.asked ELSE 'source' END,
		'steps', pg_catalog.jsonb_build_object(
			'source', CASE WHEN hello IS NOT NULL THEN pg_catalog.jsonb_build_object('kind', 'branch', 'default', 'elsewhere',
				'branches', pg_catalog.jsonb_build_array(
					pg_catalog.jsonb_build_object('when', in_store, 'next', 'in_store'),
					pg_catalog.jsonb_build_object('when', at_event, 'next', 'at_event'))) END,
			-- a follow or scan lets the account write within a minute, and no longer
			'in_store', CASE WHEN hello IS NOT NULL THEN crm.step_send(coalesce(hello_in_store, hello), p.asked, more => p.minute) END,
			'at_event', CASE WHEN hello IS NOT NULL THEN crm.step_send(coalesce(hello_at_event, hello), p.asked, more => p.minute) END,
			'elsewhere', CASE WHEN hello IS NOT NULL THEN crm.step_send(hello, p.asked, more => p.minute) END,
			'known', CASE WHEN ask IS NOT NULL THEN crm.step_branch('mobile IS NOT NULL', 'talk', 'ask') END,
			'ask', CASE WHEN ask IS NOT NULL THEN pg_catalog.jsonb_build_object('kind', 'ask', 'field', 'mobile', 'template', ask,
				'within', '48 hours', 'next', CASE WHEN thanks IS NULL THEN p.written ELSE 'thanks' END,
				'on_timeout', 'silent', 'on_failed', p.written) OPERATOR(pg_catalog.||) p.minute END,
			'thanks', CASE WHEN ask IS NOT NULL AND thanks IS NOT NULL THEN crm.step_send(thanks, p.written, more => '{"expires_in": "48 hours"}') END,
			'talk', crm.step_wait_for('message', '48 hours', p.written, 'silent'),
			-- a message lets it write for 48 hours
			'pause', CASE WHEN later IS NOT NULL THEN crm.step_wait(later_after, 'later') END,
			'later', CASE WHEN later IS NOT NULL THEN crm.step_send(later, p.over, more => pg_catalog.jsonb_build_object('expires_in',
				('48 hours'::pg_catalog.interval OPERATOR(pg_catalog.-) later_after)::pg_catalog.text)) END,
			'silent', CASE WHEN hand_over IS NULL THEN crm.step_exit('silent') ELSE p.another END,
			'hand_over', p.another))) OPERATOR(pg_catalog.||) more
	FROM (SELECT CASE WHEN ask IS NULL THEN 'talk' ELSE 'known' END AS asked,
			CASE WHEN later IS NOT NULL THEN 'pause' WHEN hand_over IS NOT NULL THEN 'hand_over' END AS written,
			CASE WHEN hand_over IS NOT NULL THEN 'hand_over' END AS over,
			CASE WHEN hand_over IS NOT NULL THEN pg_catalog.jsonb_build_object('kind', 'journey', 'journey', hand_over) END AS another,
			'{"expires_in": "1 minute"}'::pg_catalog.jsonb AS minute) AS p);
COMMENT ON FUNCTION crm.welcome_journey(text, text, text, text, text, text, text, text, interval, text, text, text, jsonb) IS 'A journey that welcomes who follows or scans within the minute, by where he was won, asks for the mobile, and writes again within 48 hours of his own message.';
REVOKE ALL ON FUNCTION crm.welcome_journey(text, text, text, text, text, text, text, text, interval, text, text, text, jsonb) FROM PUBLIC;

CREATE FUNCTION crm.member_binding_journey(account text, journey text DEFAULT 'member_binding',
	ask text DEFAULT 'ask_mobile', remind text DEFAULT 'remind_mobile', ask_after interval DEFAULT '3 days',
	remind_after interval DEFAULT '4 days', give_up_after interval DEFAULT '7 days',
	program text DEFAULT NULL, invite text DEFAULT 'invitation', more jsonb DEFAULT '{}') RETURNS jsonb
LANGUAGE sql STABLE
RETURN pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
	'journey', journey, 'account', account, 'reentry', 'once', 'start', 'pause',
	'label', 'Asks for the mobile until it is known, then into the loyalty programme',
	'entry', '[{"on": "follow", "when": "mobile IS NULL"}, {"on": "api"}, {"on": "journey"}]'::pg_catalog.jsonb,
	'exit', '{"on": "unfollow"}'::pg_catalog.jsonb,
	-- with a programme the goal is to join it, and a mobile only the way there
	'goal', CASE WHEN program IS NULL THEN pg_catalog.to_jsonb('mobile IS NOT NULL'::pg_catalog.text)
		ELSE pg_catalog.jsonb_build_object('on', 'join_loyalty', 'program', program) END,
	'steps', pg_catalog.jsonb_build_object(
		'pause', crm.step_wait(ask_after, CASE WHEN program IS NULL THEN 'ask' ELSE 'known' END),
		'known', CASE WHEN program IS NOT NULL THEN crm.step_branch('mobile IS NOT NULL', 'invite', 'ask') END,
		'ask', pg_catalog.jsonb_build_object('kind', 'ask', 'field', 'mobile', 'template', ask, 'within', remind_after::pg_catalog.text,
			'next', CASE WHEN program IS NOT NULL THEN 'invite' END,
			'on_timeout', CASE WHEN program IS NULL THEN 'remind' ELSE 'still_unknown' END),
		'still_unknown', CASE WHEN program IS NOT NULL THEN crm.step_branch('mobile IS NOT NULL', 'invite', 'remind') END,
		'remind', pg_catalog.jsonb_build_object('kind', 'ask', 'field', 'mobile', 'template', remind, 'within', give_up_after::pg_catalog.text,
			'next', CASE WHEN program IS NOT NULL THEN 'invite' END,
			'on_timeout', CASE WHEN program IS NULL THEN 'silent' ELSE 'unknown_at_last' END),
		'unknown_at_last', CASE WHEN program IS NOT NULL THEN crm.step_branch('mobile IS NOT NULL', 'invite', 'silent') END,
		'invite', CASE WHEN program IS NOT NULL THEN crm.step_send(invite, 'decide') END,
		'decide', CASE WHEN program IS NOT NULL THEN crm.step_wait(give_up_after, 'silent') END,
		'silent', crm.step_exit('silent'))))
	OPERATOR(pg_catalog.||) more;
COMMENT ON FUNCTION crm.member_binding_journey(text, text, text, text, interval, interval, interval, text, text, jsonb) IS 'A journey that asks for the mobile, and again, until it is known; with a loyalty programme it then invites into that.';
REVOKE ALL ON FUNCTION crm.member_binding_journey(text, text, text, text, interval, interval, interval, text, text, jsonb) FROM PUBLIC;

CREATE FUNCTION crm.cart_journey(account text, journey text DEFAULT 'cart', remind text DEFAULT 'cart_reminder',
	remind_after interval DEFAULT '1 hour', coupon text DEFAULT NULL, offer text DEFAULT 'cart_offer',
	worth text DEFAULT 'cast(fact.properties ->> ''amount'' AS numeric) >= 500',
	last text DEFAULT NULL, last_after interval DEFAULT '1 day', more jsonb DEFAULT '{}') RETURNS jsonb
LANGUAGE sql STABLE
RETURN pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
	'journey', journey, 'account', account, 'reentry', 'after_exit', 'start', 'pause',
	'label', 'A cart that was left',
	'entry', '[{"on": "cart"}]'::pg_catalog.jsonb, 'goal', '{"on": "purchase"}'::pg_catalog.jsonb,
	'steps', pg_catalog.jsonb_build_object(
		'pause', crm.step_wait(remind_after, CASE WHEN coupon IS NULL THEN 'remind' ELSE 'worth' END),
		'worth', CASE WHEN coupon IS NOT NULL THEN crm.step_branch(worth, 'coupon', 'remind') END,
		'coupon', CASE WHEN coupon IS NOT NULL THEN pg_catalog.jsonb_build_object('kind', 'coupon', 'coupon', coupon, 'save_as', 'coupon',
			'next', 'offer', 'on_failed', 'remind') END,
		'offer', CASE WHEN coupon IS NOT NULL THEN crm.step_send(offer, CASE WHEN last IS NOT NULL THEN 'again' END) END,
		'remind', crm.step_send(remind, CASE WHEN last IS NOT NULL THEN 'again' END),
		'again', CASE WHEN last IS NOT NULL THEN crm.step_wait(last_after, 'last') END,
		'last', CASE WHEN last IS NOT NULL THEN crm.step_send(last) END)))
	OPERATOR(pg_catalog.||) more;
COMMENT ON FUNCTION crm.cart_journey(text, text, text, interval, text, text, text, text, interval, jsonb) IS 'A journey that reminds of a cart, with a coupon where it is worth it, until something is bought.';
REVOKE ALL ON FUNCTION crm.cart_journey(text, text, text, interval, text, text, text, text, interval, jsonb) FROM PUBLIC;

CREATE FUNCTION crm.repurchase_journey(account text, journey text DEFAULT 'repurchase', remind text DEFAULT 'repurchase',
	period interval DEFAULT '30 days', upsell text DEFAULT NULL, worth text DEFAULT 'spend >= 1000',
	coupon text DEFAULT NULL, offer text DEFAULT 'repurchase_offer', offer_after interval DEFAULT '7 days',
	more jsonb DEFAULT '{}') RETURNS jsonb
LANGUAGE sql STABLE
RETURN pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
	'journey', journey, 'account', account, 'reentry', 'after_exit', 'start', 'period',
	'label', 'Another purchase, or a larger one',
	'entry', '[{"on": "purchase"}]'::pg_catalog.jsonb, 'goal', '{"on": "purchase"}'::pg_catalog.jsonb,
	-- all was taken back
	'exit', 'orders = 0',
	'steps', pg_catalog.jsonb_build_object(
		'period', crm.step_wait(period, CASE WHEN upsell IS NULL THEN 'remind' ELSE 'worth' END),
		'worth', CASE WHEN upsell IS NOT NULL THEN crm.step_branch(worth, 'upsell', 'remind') END,
		'upsell', CASE WHEN upsell IS NOT NULL THEN crm.step_send(upsell, CASE WHEN coupon IS NOT NULL THEN 'again' END) END,
		'remind', crm.step_send(remind, CASE WHEN coupon IS NOT NULL THEN 'again' END),
		'again', CASE WHEN coupon IS NOT NULL THEN crm.step_wait(offer_after, 'coupon') END,
		'coupon', CASE WHEN coupon IS NOT NULL THEN pg_catalog.jsonb_build_object('kind', 'coupon', 'coupon', coupon, 'save_as', 'coupon',
			'next', 'offer', 'on_failed', 'none_left') END,
		'offer', CASE WHEN coupon IS NOT NULL THEN crm.step_send(offer) END,
		'none_left', CASE WHEN coupon IS NOT NULL THEN crm.step_exit('no coupon left') END)))
	OPERATOR(pg_catalog.||) more;
COMMENT ON FUNCTION crm.repurchase_journey(text, text, text, interval, text, text, text, text, interval, jsonb) IS 'A journey that brings a customer back when the time after which one buys again is over, or offers more to who is worth it.';
REVOKE ALL ON FUNCTION crm.repurchase_journey(text, text, text, interval, text, text, text, text, interval, jsonb) FROM PUBLIC;

CREATE FUNCTION crm.birthday_journey(account text, journey text DEFAULT 'birthday', wish text DEFAULT 'birthday',
	days_before integer DEFAULT 7, at text DEFAULT '10:00', leap_day text DEFAULT 'feb28', coupon text DEFAULT NULL,
	signs text[] DEFAULT NULL,
	who text DEFAULT NULL, remind text DEFAULT NULL, more jsonb DEFAULT '{}') RETURNS jsonb
LANGUAGE sql STABLE
RETURN (
	SELECT pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
		'journey', journey, 'account', account, 'reentry', 'cooldown', 'cooldown', '300 days',
		'label', 'Birthday, by the sign of the zodiac',
		'start', CASE WHEN coupon IS NULL THEN 'sign' ELSE 'coupon' END,
		'entry', pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object('on', 'date', 'property', 'birthday', 'at', at,
			'offset', (pg_catalog.make_interval(days => OPERATOR(pg_catalog.-) days_before))::pg_catalog.text, 'leap_day', leap_day, 'when', who)),
		'goal', CASE WHEN coupon IS NOT NULL THEN pg_catalog.jsonb_build_object('on', 'redeem_coupon', 'coupon', coupon) END,
		'steps', pg_catalog.jsonb_build_object(
			'coupon', CASE WHEN coupon IS NOT NULL THEN pg_catalog.jsonb_build_object('kind', 'coupon', 'coupon', coupon, 'save_as', 'coupon',
				'next', 'sign', 'on_failed', 'no_gift') END,
			'no_gift', CASE WHEN coupon IS NOT NULL THEN crm.step_exit('no coupon left') END,
			'sign', pg_catalog.jsonb_build_object('kind', 'branch', 'default', 'unknown', 'branches', z.branches),
			'unknown', crm.step_exit('no birthday'),
			'day', CASE WHEN remind IS NOT NULL THEN crm.step_wait(pg_catalog.make_interval(days => days_before), 'remind') END,
			'remind', CASE WHEN remind IS NOT NULL THEN crm.step_send(remind) END) OPERATOR(pg_catalog.||) z.wishes)) OPERATOR(pg_catalog.||) more
	FROM (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
				'when', pg_catalog.format('extract(month FROM birthday) * 100 + extract(day FROM birthday) %s', v.days), 'next', v.step) ORDER BY v.place) AS branches,
			pg_catalog.jsonb_object_agg(v.step, crm.step_send(wish, CASE WHEN remind IS NOT NULL THEN 'day' END,
				pg_catalog.jsonb_build_object('sign', coalesce(signs[v.place], pg_catalog.initcap(v.step))))) AS wishes
		FROM (VALUES (1, 'aries', 'BETWEEN 321 AND 419'), (2, 'taurus', 'BETWEEN 420 AND 520'), (3, 'gemini', 'BETWEEN 521 AND 620'),
				(4, 'cancer', 'BETWEEN 621 AND 722'), (5, 'leo', 'BETWEEN 723 AND 822'), (6, 'virgo', 'BETWEEN 823 AND 922'),
				(7, 'libra', 'BETWEEN 923 AND 1022'), (8, 'scorpio', 'BETWEEN 1023 AND 1121'), (9, 'sagittarius', 'BETWEEN 1122 AND 1221'),
				(10, 'capricorn', 'NOT BETWEEN 120 AND 1221'), (11, 'aquarius', 'BETWEEN 120 AND 218'), (12, 'pisces', 'BETWEEN 219 AND 320'))
			AS v(place, step, days)) AS z);
COMMENT ON FUNCTION crm.birthday_journey(text, text, text, integer, text, text, text, text[], text, text, jsonb) IS 'A journey that congratulates some days before the birthday, with a coupon and by the sign of the zodiac.';
REVOKE ALL ON FUNCTION crm.birthday_journey(text, text, text, integer, text, text, text, text[], text, text, jsonb) FROM PUBLIC;
