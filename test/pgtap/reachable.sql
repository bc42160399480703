-- reachable(): by which accounts a contact can be written to, until when, how often
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install();
SET search_path = public, pg_catalog;
SELECT no_plan();
SET pg_crm.clock = '2026-03-02 12:00+08';

INSERT INTO crm.account (kind, name, app_id) VALUES ('official_account', 'maison', 'wx01'), ('mini_program', 'mini', 'wx02');
INSERT INTO crm.account (kind, name, base_url) VALUES ('webhook', 'till', 'https://till.example');
SELECT crm.follow('maison', 'o1', at => '2026-03-01 12:00+08') AS c \gset
CREATE FUNCTION pg_temp.reach(text, timestamptz DEFAULT NULL, text DEFAULT 'service') RETURNS SETOF text LANGUAGE sql
  AS $$SELECT concat_ws(' ', r.account, r.api, coalesce(r.remaining::text, '-'), coalesce((r.valid_until AT TIME ZONE 'Asia/Shanghai')::text, '-'), r.reason)
         FROM crm.identity i CROSS JOIN LATERAL crm.reachable(i.contact_id, $2, $3) r WHERE i.external_id = $1$$;

SELECT results_eq($$SELECT pg_temp.reach('o1')$$, ARRAY['maison message/custom/send 0 - window_closed',
    'maison message/template/send - -', 'till post - -'], 'without a window: what needs none; a mini program cannot send yet');
SELECT crm.track(:c, 'message', account => 'maison');
SELECT is((SELECT array_agg(r) FROM pg_temp.reach('o1') r WHERE r ~ 'custom'), ARRAY['maison message/custom/send 5 2026-03-04 12:00:00'], 'a message opens one');
SELECT crm.track(:c, 'menu_click', account => 'maison', at => '2026-03-02 11:59:30+08');
SELECT is((SELECT array_agg(r) FROM pg_temp.reach('o1') r WHERE r ~ 'custom'), ARRAY['maison message/custom/send 8 2026-03-04 12:00:00'], 'of several the sum and the last end');
SELECT is((SELECT array_agg(r) FROM pg_temp.reach('o1', '2026-03-02 12:01+08') r WHERE r ~ 'custom'), ARRAY['maison message/custom/send 5 2026-03-04 12:00:00'], 'as of later: those still open');
SELECT is((SELECT array_agg(r) FROM pg_temp.reach('o1', '2026-03-04 12:00+08') r WHERE r ~ 'custom'), ARRAY['maison message/custom/send 0 - window_closed'], 'at its end none');
SELECT is((SELECT array_agg(r) FROM pg_temp.reach('o1', '2026-03-02 11:00+08') r WHERE r ~ 'custom'), ARRAY['maison message/custom/send 0 - window_closed'], 'nor before it opened');
UPDATE crm.window_grant SET quota = NULL WHERE kind = 'message';
SELECT is((SELECT array_agg(r) FROM pg_temp.reach('o1') r WHERE r ~ 'custom'), ARRAY['maison message/custom/send - 2026-03-04 12:00:00'], 'one without a quota allows any number');

INSERT INTO crm.quiet_hours (name, class, hours) VALUES ('noon', 'marketing', '12:00-14:00');
SELECT is((SELECT array_agg(r) FROM pg_temp.reach('o1', NULL, 'marketing') r WHERE r ~ 'custom'), ARRAY['maison message/custom/send - 2026-03-02 14:00:00 quiet'], 'quiet says until when');
SELECT is((SELECT array_agg(r) FROM pg_temp.reach('o1', '2026-03-02 14:00+08', 'marketing') r WHERE r ~ 'custom'), ARRAY['maison message/custom/send - 2026-03-04 12:00:00'], 'and then it is over');
UPDATE crm.contact SET time_zone = 'Europe/Paris';
SELECT is((SELECT array_agg(r) FROM pg_temp.reach('o1', NULL, 'marketing') r WHERE r ~ 'custom'), ARRAY['maison message/custom/send - 2026-03-04 12:00:00'], 'by the clock of the contact');

SELECT crm.withdraw_consent(:c, 'webhook', 'service');
SELECT is((SELECT array_agg(r) FROM pg_temp.reach('o1') r WHERE r ~ 'till'), ARRAY['till post - - no_consent'], 'who said no');
SELECT crm.unfollow('maison', 'o1');
SELECT is((SELECT array_agg(r) FROM pg_temp.reach('o1', NULL, 'marketing') r WHERE r ~ 'template'), ARRAY['maison message/template/send - - no_consent'], 'who does not follow');
SELECT crm.suppress(:c);
SELECT is((SELECT count(*)::integer FROM crm.reachable(:c) WHERE reason = 'suppressed'), 3, 'who is not to be written to at all');

SELECT crm.identify('customer', 'k2') AS other \gset
SELECT is((SELECT array_agg(r) FROM pg_temp.reach('k2') r WHERE r ~ 'maison'), ARRAY['maison message/custom/send 0 - no_recipient', 'maison message/template/send - - no_recipient'], 'whom the account does not know');
SELECT crm.merge(:c, :other, 'same');
SELECT is((SELECT count(*)::integer FROM crm.reachable(:other) WHERE reason = 'suppressed'), 3, 'the id of who was merged means the survivor');
SELECT throws_ok('SELECT * FROM crm.reachable(999)', '23503', NULL, 'an unknown contact');
SELECT throws_ok('SELECT * FROM crm.reachable(1, class => ''spam'')', '23514', NULL, 'an unknown class');
SELECT throws_ok('SELECT * FROM crm.reachable(1, ''infinity'')', '22008', NULL, 'an infinite time');
SELECT throws_ok('SELECT * FROM crm.reachable(NULL)', '22004', NULL, 'nobody');

SELECT * FROM finish();
ROLLBACK;
