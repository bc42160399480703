-- crm.merge() and crm.unmerge(): who survives, what changes hands, and how it is given back
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SET pg_crm.clock = '2024-06-01 12:00Z';
SELECT no_plan();

INSERT INTO crm.account (kind, name) VALUES ('official_account', 'oa');
INSERT INTO crm.qr_code (account_id, scene) SELECT account_id, 'banner' FROM crm.account;
INSERT INTO crm.loyalty_program (name) VALUES ('club'), ('gold');
ALTER TABLE crm.contact ADD shoe_size numeric, ADD vip_since date, ADD email text UNIQUE,
    ADD referred_by bigint REFERENCES crm.contact;

CREATE FUNCTION pg_temp.awards(contact bigint) RETURNS text LANGUAGE sql AS
$$SELECT string_agg(format('%s/%s %s', achievement, threshold, to_char(awarded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')),
                    ', ' ORDER BY awarded_at, achievement, threshold)
    FROM crm.award WHERE contact_id = $1 AND revoked_at IS NULL$$;
-- everything that is kept of a contact; an award gained by a merge stays, revoked, when it is undone
CREATE FUNCTION pg_temp.portrait(contact bigint) RETURNS jsonb LANGUAGE sql AS
$$SELECT jsonb_build_object(
    'contact', (SELECT to_jsonb(c) FROM crm.contact c WHERE contact_id = $1),
    'profile', (SELECT to_jsonb(p) FROM crm.profile_counter p WHERE contact_id = $1),
    'identity', (SELECT jsonb_agg(i ORDER BY kind, external_id) FROM crm.identity i WHERE contact_id = $1),
    'transaction', (SELECT jsonb_agg(t ORDER BY transaction_id) FROM crm.transaction t WHERE contact_id = $1),
    'event', (SELECT jsonb_agg(e ORDER BY event_id) FROM crm.event e WHERE contact_id = $1),
    'scan', (SELECT jsonb_agg(s ORDER BY scan_id) FROM crm.scan s WHERE contact_id = $1),
    'first_scan', (SELECT jsonb_agg(f ORDER BY scan_id) FROM crm.first_scan f WHERE contact_id = $1),
    'acquisition', (SELECT to_jsonb(a) FROM crm.acquisition a WHERE contact_id = $1),
    'fact_key', (SELECT jsonb_agg(k ORDER BY source, key) FROM crm.fact_key k WHERE contact_id = $1),
    'membership', (SELECT jsonb_agg(m ORDER BY loyalty_program_id) FROM crm.membership m WHERE contact_id = $1),
    'point_balance', (SELECT jsonb_agg(p ORDER BY loyalty_program_id) FROM crm.point_balance p WHERE contact_id = $1),
    'point_entry', (SELECT jsonb_agg(p ORDER BY point_entry_id) FROM crm.point_entry p WHERE contact_id = $1),
    'award', (SELECT jsonb_agg(a ORDER BY achievement, threshold) FROM crm.award a WHERE contact_id = $1 AND revoked_at IS NULL),
    'stage_move', (SELECT jsonb_agg(m ORDER BY since) FROM crm.stage_move m WHERE contact_id = $1))$$;

-- the rights and the signatures
SELECT function_returns('crm', 'merge', ARRAY['bigint', 'bigint', 'text'], 'bigint');
SELECT function_returns('crm', 'unmerge', ARRAY['bigint'], 'bigint');
SELECT function_privs_are('crm', 'merge', ARRAY['bigint', 'bigint', 'text'], 'public', '{}');
SELECT function_privs_are('crm', 'unmerge', ARRAY['bigint'], 'public', '{}');

-- bad input
INSERT INTO crm.contact (contact_id, created_at) VALUES (1, '2020-01-01Z'), (2, '2021-01-01Z');
SELECT throws_ok('SELECT crm.merge(NULL, 1)', '22004', 'argument contact_id of crm.merge() must not be NULL');
SELECT throws_ok('SELECT crm.merge(1, NULL)', '22004', 'argument other of crm.merge() must not be NULL');
SELECT throws_ok('SELECT crm.unmerge(NULL)', '22004', 'argument other of crm.unmerge() must not be NULL');
SELECT throws_ok('SELECT crm.merge(1, 404)', '23503', 'contact 404 does not exist');
SELECT throws_ok('SELECT crm.merge(404, 1)', '23503', 'contact 404 does not exist');
SELECT throws_ok('SELECT crm.merge(404, 404)', '23503', 'contact 404 does not exist');
SELECT throws_ok('SELECT crm.unmerge(404)', '23503', 'contact 404 has not been merged into another');
SELECT throws_ok('SELECT crm.unmerge(1)', '23503', 'contact 1 has not been merged into another');
SELECT throws_ok($$SELECT crm.merge(1, 2, repeat('x', 1100000))$$, '54000', NULL, 'a reason of a megabyte');
SELECT is(crm.merge(1, 1), 1::bigint, 'a contact with itself is that contact');
SELECT is_empty('SELECT FROM crm.merge_ledger', 'and nothing happened');

-- who survives
SELECT is(crm.merge(2, 1, 'same person'), 1::bigint, 'the older one, whatever the order');
SELECT is(crm.merge(2, 1), 1::bigint, 'once merged, they are one');
SELECT is(crm.merge(2, 2), 1::bigint, 'an ended contact is its survivor');
SELECT results_eq('SELECT contact_id, other, merged_at, reason, unmerged_at FROM crm.merge_ledger',
    $$VALUES (1::bigint, 2::bigint, '2024-06-01 12:00Z'::timestamptz, 'same person', NULL::timestamptz)$$);
INSERT INTO crm.contact (contact_id, created_at) VALUES (4, '2021-01-01Z'), (3, '2021-01-01Z');
SELECT is(crm.merge(4, 3), 3::bigint, 'of one age, the smaller id');
INSERT INTO crm.contact (contact_id, created_at) VALUES (5, '2019-01-01Z'), (6, '2021-01-01Z');
SELECT crm.bind_mobile(6, '13800000006', '2022-01-01Z') \g /dev/null
SELECT is(crm.merge(5, 6), 6::bigint, 'a verified mobile comes before age');
SELECT is((SELECT created_at FROM crm.contact WHERE contact_id = 6), '2019-01-01Z', 'created_at is the earlier');
SELECT is((SELECT since FROM crm.stage_move WHERE contact_id = 6 ORDER BY since LIMIT 1), '2019-01-01Z',
    'and the history of stages begins there');
INSERT INTO crm.contact (contact_id, created_at, mobile) VALUES (7, '2018-01-01Z', '13800000007');
SELECT is(crm.merge(7, 6), 6::bigint, 'a number that is only known is not verified');
SELECT is((SELECT mobile::text FROM crm.contact WHERE contact_id = 6), '+8613800000006', 'the survivor keeps its number');

-- two verified people
INSERT INTO crm.contact (contact_id, created_at) VALUES (8, '2017-01-01Z');
SELECT crm.bind_mobile(8, '13800000008', '2022-01-01Z') \g /dev/null
SELECT throws_ok('SELECT crm.merge(6, 8)', '23514',
    'contacts 6 and 8 cannot be merged: both have a verified mobile');
SELECT throws_ok($$SELECT crm.merge(8, 6, 'a guess')$$, '23514',
    'contacts 6 and 8 cannot be merged (a guess): both have a verified mobile');
SELECT is(crm.bind_mobile(6, '13800000008', '2024-05-01Z'), 8::bigint,
    'unless one proves the number of the other: then the older survives');
SELECT is((SELECT array_agg(external_id ORDER BY external_id) FROM crm.identity WHERE contact_id = 8),
    '{+8613800000006,+8613800000007,+8613800000008}');

-- ended contacts lead to the survivor, over several merges
SELECT is(crm.merge(7, 1), 8::bigint, 'a chain of merges is followed');
SELECT is(crm.purchase(7, 1, '2024-05-02Z') > 0, true, 'functions redirect');
SELECT is((SELECT count(*) FROM crm.transaction WHERE contact_id = 8), 1::bigint);
SELECT throws_ok('INSERT INTO crm.transaction (contact_id, amount) VALUES (5, 1)', '23503', 'contact 5 does not exist');
SELECT is((SELECT array_agg(DISTINCT contact_id) FROM crm.merge_ledger WHERE other IN (1, 2, 5, 6, 7)), '{8}',
    'the ledger names the last survivor');
SELECT throws_ok('SELECT crm.unmerge(7)', '55000',
    'contact 7 was merged into contact 6, which has been merged into contact 8 since');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound so far');
SELECT is(crm.unmerge(6), 6::bigint);
SELECT is((SELECT array_agg(external_id ORDER BY external_id) FROM crm.identity WHERE contact_id = 6),
    '{+8613800000006,+8613800000007}', 'the middle one comes back with what it had');
SELECT is(crm.unmerge(7), 7::bigint, 'and then the first');
SELECT is((SELECT created_at FROM crm.contact WHERE contact_id = 6), '2019-01-01Z', 'created_at without the first');
SELECT is(crm.unmerge(5), 5::bigint);
SELECT is((SELECT created_at FROM crm.contact WHERE contact_id = 6), '2021-01-01Z', 'and without any');
SELECT throws_ok('SELECT crm.unmerge(5)', '55000', 'merge of contact 5 has been undone already');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- the story of two old orders, the survivor being the one with the younger history
INSERT INTO crm.contact (contact_id, created_at, mobile) VALUES (20, '2021-01-01Z', '13800000020');
INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref)
VALUES (20, 10, '2021-02-01Z', 'o1'), (20, 10, '2021-03-01Z', 'o2');
SELECT crm.follow('oa', 'openid21', '2024-01-01Z', 'banner') AS w \gset
SELECT crm.bind_mobile(:w, '13800000021', '2024-01-02Z') \g /dev/null
CREATE TEMP TABLE held AS SELECT * FROM crm.award WHERE contact_id = 20;
SET pg_crm.clock = '2024-06-02 12:00Z';
SELECT is(crm.bind_mobile(:w, '13800000020', '2024-05-01Z'), :w::bigint, 'the verified one survives');
SELECT is(pg_temp.awards(:w), 'first_purchase/1 2021-02-01, second_purchase/2 2021-03-01, first_scan/1 2024-01-01, '
    'follow/1 2024-01-01, bind_mobile/1 2024-01-02');
SELECT results_eq(format('SELECT achievement, threshold, awarded_at, recorded_at, source_id FROM crm.award '
    'WHERE contact_id = %s AND achievement LIKE ''%%purchase'' ORDER BY 1', :w),
    'SELECT achievement, threshold, awarded_at, recorded_at, source_id FROM held ORDER BY 1', 'unchanged since the load');
SELECT is_empty(format('SELECT FROM crm.award_change WHERE contact_id = %s', :w), 'no award moved');
SELECT crm.purchase(:w, 40, '2024-06-01Z') \g /dev/null
SELECT is(pg_temp.awards(:w), 'first_purchase/1 2021-02-01, second_purchase/2 2021-03-01, first_scan/1 2024-01-01, '
    'follow/1 2024-01-01, bind_mobile/1 2024-01-02', 'the third order gives no award');
SELECT is((SELECT mobile::text FROM crm.contact WHERE contact_id = :w), '+8613800000020', 'the number bound last');
SELECT is(crm.unmerge(20), 20::bigint);
SELECT is(pg_temp.awards(20), 'first_purchase/1 2021-02-01, second_purchase/2 2021-03-01');
SELECT is(pg_temp.awards(:w), 'first_scan/1 2024-01-01, follow/1 2024-01-01, bind_mobile/1 2024-01-02, '
    'first_purchase/1 2024-06-01', 'the order made since stays, and is the first one again');
SELECT is((SELECT mobile::text FROM crm.contact WHERE contact_id = :w), '+8613800000021', 'its own number again');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- everything that a contact can have, there and back
CREATE TABLE crm.pet (pet_id bigint PRIMARY KEY, contact_id bigint NOT NULL REFERENCES crm.contact ON DELETE CASCADE, name text);
CREATE TABLE crm.survey (contact_id bigint, topic text, answer text, UNIQUE (contact_id, topic));
CREATE UNIQUE INDEX ON crm.survey (lower(answer), contact_id) WHERE answer LIKE 'unique %';
CREATE TABLE crm.visit (contact_id bigint, at date, note jsonb) PARTITION BY LIST (contact_id);
CREATE TABLE crm.visit_30 PARTITION OF crm.visit FOR VALUES IN (30);
CREATE TABLE crm.visit_other PARTITION OF crm.visit DEFAULT;
CREATE TABLE public.ticket (ticket_id int PRIMARY KEY, person bigint REFERENCES crm.contact);

INSERT INTO crm.contact (contact_id, created_at, mobile, name, city, attributes, tags, shoe_size) VALUES
    (30, '2020-05-05Z', '13800000030', 'Li', NULL, '{"a": 1, "b": 1}', '{x,y}', NULL);
INSERT INTO crm.contact (contact_id, created_at, mobile, name, city, attributes, tags, shoe_size, vip_since, email) VALUES
    (31, '2020-06-06Z', '13800000031', 'Li Lei', 'Hangzhou', '{"b": 2, "c": 2}', '{y,z}', 42.5, '2022-02-02', 'li@example.com');
INSERT INTO crm.contact (contact_id, created_at, referred_by) VALUES (32, '2020-07-07Z', 31);
INSERT INTO crm.identity (kind, account_id, external_id, contact_id) VALUES
    ('openid', 1, 'o30', 30), ('openid', 1, 'o31', 31), ('customer', 0, 'c31', 31);
INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref) VALUES
    (30, 30, '2022-03-01Z', 'r1'), (30, 30, '2022-04-01Z', 'r1#31'),
    (31, 80, '2022-01-01Z', 'r1'), (31, 20, '2022-02-01Z', 'r2'), (31, 5, '2022-02-02Z', NULL);
SELECT crm.refund(31, 'r2', 5, '2022-02-03Z', 'back') \g /dev/null
SELECT crm.scan('banner', 'oa', 'o30', '2022-05-02Z', 'k') \g /dev/null
SELECT crm.scan('banner', 'oa', 'o31', '2022-05-01Z', 'k') \g /dev/null
SELECT crm.scan('banner', 'oa', 'o31', '2022-05-03Z') \g /dev/null
SELECT crm.track(30, 'cart', '{}', '2022-06-02Z', 'e'), crm.track(31, 'cart', '{}', '2022-06-01Z', 'e') \g /dev/null
SELECT crm.follow('oa', 'o31', '2022-06-05Z') \g /dev/null
SELECT crm.join_loyalty(30, 'club', '2022-07-02Z'), crm.join_loyalty(31, 'club', '2022-07-01Z'),
       crm.join_loyalty(31, 'gold', '2022-07-03Z') \g /dev/null
SELECT crm.earn_points(30, 'club', 30, 'card', 'p'), crm.earn_points(31, 'club', 31, 'card', 'q'), crm.earn_points(31, 'gold', 31) \g /dev/null
SELECT crm.set_stage(31, 'intent', 'asked for a fitting') \g /dev/null
INSERT INTO crm.pet VALUES (1, 30, 'cat'), (2, 31, 'dog');
INSERT INTO crm.survey VALUES (30, 'tea', 'green'), (31, 'tea', 'black'), (31, 'milk', 'no'), (31, NULL, 'null'),
    (30, NULL, 'null'), (30, 'u', 'unique A'), (31, 'v', 'UNIQUE a'), (31, 'w', 'unique a');
INSERT INTO crm.visit VALUES (30, '2022-01-01', '{}'), (31, '2022-01-01', '{"n": 1}'), (31, '2022-01-02', '{}');
INSERT INTO public.ticket VALUES (1, 31), (2, 30);
SELECT is_empty('SELECT * FROM crm.verify()', 'sound before');

CREATE TEMP TABLE before AS
SELECT c AS contact_id, pg_temp.portrait(c) AS portrait FROM (VALUES (30::bigint), (31)) AS v (c);
CREATE TEMP TABLE survey_before AS TABLE crm.survey;
CREATE TEMP TABLE visit_before AS TABLE crm.visit;
SET timezone = 'Asia/Shanghai';
SELECT is(crm.merge(31, 30, 'card found'), 30::bigint, 'all of it merged');

SELECT results_eq('SELECT created_at, mobile::text, name, city, attributes, tags, shoe_size, vip_since, email FROM crm.contact WHERE contact_id = 30',
    $$VALUES ('2020-05-05Z'::timestamptz, '+8613800000030', 'Li', 'Hangzhou', '{"a": 1, "b": 1, "c": 2}'::jsonb, '{x,y,z}'::text[],
              42.5, '2022-02-02'::date, 'li@example.com')$$, 'what the survivor lacked is filled');
SELECT is((SELECT referred_by FROM crm.contact WHERE contact_id = 32), 30::bigint, 'columns of other contacts follow');
SELECT is((SELECT array_agg(external_ref ORDER BY transaction_id) FROM crm.transaction WHERE contact_id = 30 AND kind = 'purchase'),
    ARRAY['r1', 'r1#31', 'r1#31#' || (SELECT min(transaction_id) FROM crm.transaction t WHERE t.contact_id = 30 AND t.amount = 80), 'r2', NULL],
    'equal references are kept apart');
SELECT results_eq('SELECT orders, spend, refunds, scans, raw_scans, events FROM crm.profile_counter WHERE contact_id = 30',
    'VALUES (5::bigint, 160::numeric, 1::bigint, 1::bigint, 3::bigint, 7::bigint)', 'all orders count, and one scan');
SELECT is((SELECT occurred_at FROM crm.first_scan WHERE contact_id = 30), '2022-05-01Z', 'the earlier of the first scans counts');
SELECT is(pg_temp.awards(30), 'first_purchase/1 2022-01-01, second_purchase/2 2022-02-01, spend_milestone/100 2022-02-02, purchase_milestone/5 2022-04-01, '
    'first_scan/1 2022-05-01, follow/1 2022-06-05, join_loyalty/1 2022-07-01');
SELECT results_eq('SELECT joined_at, points FROM crm.membership JOIN crm.point_balance USING (contact_id, loyalty_program_id) WHERE contact_id = 30 ORDER BY loyalty_program_id',
    $$VALUES ('2022-07-01Z'::timestamptz, 61::bigint), ('2022-07-03Z', 31)$$, 'earlier membership, points of both');
SELECT results_eq('SELECT pet_id, contact_id FROM crm.pet ORDER BY 1', 'VALUES (1::bigint, 30::bigint), (2, 30)', 'a table of the brand''s');
SELECT results_eq('SELECT ticket_id, person FROM public.ticket ORDER BY 1', 'VALUES (1, 30::bigint), (2, 30)', 'a foreign key elsewhere');
SELECT results_eq('SELECT contact_id, topic, answer FROM crm.survey ORDER BY 2, 3',
    $$VALUES (30::bigint, 'milk', 'no'), (30, 'tea', 'green'), (30, 'u', 'unique A'), (30, 'v', 'UNIQUE a'),
             (30, NULL, 'null'), (30, NULL, 'null')$$, 'where rows would be equal, the survivor''s stays');
SELECT is((SELECT count(*) FROM crm.visit_30), 3::bigint, 'rows of a table partitioned by contact');
SELECT is_empty('SELECT FROM crm.visit_other');
SELECT results_eq('SELECT source, key FROM crm.fact_key WHERE contact_id = 30 ORDER BY 1, 2',
    $$VALUES ('cart', 'e'), ('earn_points', 'p'), ('earn_points', 'q'), ('scan', 'k')$$, 'one key each');
SELECT is((SELECT jsonb_array_length(moved -> 'fact_key') FROM crm.merge_ledger WHERE other = 31), 3, 'the other keys are in the ledger');
SELECT is((SELECT other_before ->> 'name' FROM crm.merge_ledger WHERE other = 31), 'Li Lei', 'and the contact''s row');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound when merged');

SET timezone = 'America/New_York';
SELECT is(crm.unmerge(31), 31::bigint, 'all of it unmerged');
SET timezone = 'UTC';
SELECT is(pg_temp.portrait(b.contact_id) -> k.key, k.value, format('%s of %s as before', k.key, b.contact_id))
  FROM before b, jsonb_each(b.portrait) k ORDER BY b.contact_id, k.key;
SELECT set_eq('TABLE crm.survey', 'TABLE survey_before', 'survey as before');
SELECT set_eq('TABLE crm.visit', 'TABLE visit_before', 'visit as before');
SELECT results_eq('SELECT pet_id, contact_id FROM crm.pet ORDER BY 1', 'VALUES (1::bigint, 30::bigint), (2, 31)');
SELECT results_eq('SELECT ticket_id, person FROM public.ticket ORDER BY 1', 'VALUES (1, 31::bigint), (2, 30)');
SELECT is((SELECT referred_by FROM crm.contact WHERE contact_id = 32), 31::bigint);
SELECT is((SELECT unmerged_at FROM crm.merge_ledger WHERE other = 31), '2024-06-02 12:00Z');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound when unmerged');

-- what was done since the merge stays
SELECT crm.merge(30, 31) \g /dev/null
SELECT crm.track(31, 'cart', '{}', '2024-05-03Z') \g /dev/null
SELECT crm.purchase(31, 7, '2024-05-03Z', 'since') \g /dev/null
SELECT crm.refund(30, 'r2', 6, '2024-05-04Z', 'later') \g /dev/null
UPDATE crm.contact SET city = 'Suzhou', attributes = attributes || '{"d": 4, "c": 3}', tags = tags || '{new}' WHERE contact_id = 30;
SELECT is(crm.spend_points(30, 'club', 40, 'gift'), 21::bigint, 'points of both are spent');
INSERT INTO crm.contact (contact_id, created_at, name, vip_since, attributes, tags) VALUES
    (33, '2019-03-03Z', 'Wang', '2023-03-03', '{"c": 7, "e": 5}', '{z}');
SELECT crm.bind_mobile(30, '13800000030', '2024-05-03Z') \g /dev/null
SELECT is(crm.merge(30, 33), 30::bigint, 'another merge on top');
SELECT is(crm.unmerge(31), 31::bigint, 'the earlier of two merges undone');
SELECT results_eq('SELECT created_at, name, city, attributes, tags, shoe_size, vip_since, email FROM crm.contact WHERE contact_id = 30',
    $$VALUES ('2019-03-03Z'::timestamptz, 'Li', 'Suzhou', '{"a": 1, "b": 1, "c": 3, "d": 4, "e": 5}'::jsonb, '{x,y,z,new}'::text[],
              NULL::numeric, '2023-03-03'::date, NULL::text)$$, 'what somebody changed stays, what the other merge gives comes in');
SELECT is((SELECT array_agg(external_ref ORDER BY external_ref) FROM crm.transaction WHERE contact_id = 30), '{r1,r1#31,since}',
    'the new order stays');
SELECT is((SELECT array_agg(external_ref ORDER BY external_ref) FROM crm.transaction WHERE contact_id = 31), '{back,later,r1,r2,NULL}',
    'a new refund goes with its order');
SELECT results_eq('SELECT contact_id, points FROM crm.point_balance WHERE contact_id IN (30, 31) ORDER BY 1, 2',
    'VALUES (30::bigint, -10::bigint), (31, 31), (31, 31)', 'what was spent together stays with the survivor');
SELECT is(crm.unmerge(33), 33::bigint);
SELECT results_eq('SELECT created_at, attributes, tags, vip_since FROM crm.contact WHERE contact_id = 30',
    $$VALUES ('2020-05-05Z'::timestamptz, '{"a": 1, "b": 1, "c": 3, "d": 4}'::jsonb, '{x,y,new}'::text[], NULL::date)$$,
    'nothing of either is left');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound');

-- ids of their own that meet
INSERT INTO crm.transaction (contact_id, transaction_id, amount) VALUES (32, 900001, 1), (33, 900001, 2);
SELECT throws_ok('SELECT crm.merge(32, 33)', '23505', 'contacts 33 and 32 both have a row with id 900001 in crm.transaction');

-- an ended contact's id in use again
SELECT crm.merge(4, 3) \g /dev/null
INSERT INTO crm.contact (contact_id) VALUES (4);
SELECT throws_ok('SELECT crm.unmerge(4)', '23505', 'contact 4 exists');

-- an application that may call merge() and nothing else
CREATE ROLE merge_app;
GRANT USAGE ON SCHEMA crm TO merge_app;
GRANT EXECUTE ON FUNCTION crm.merge(bigint, bigint, text), crm.unmerge(bigint) TO merge_app;
SET ROLE merge_app;
SELECT is(crm.merge(31, 30), 30::bigint, 'without rights on the tables');
SELECT throws_ok('DELETE FROM crm.contact', '42501');
SELECT is(crm.unmerge(31), 31::bigint);
RESET ROLE;
SELECT throws_ok('UPDATE crm.transaction SET amount = 0', '42501', 'UPDATE of crm.transaction is refused', 'facts are closed again');
SELECT is_empty('SELECT * FROM crm.verify()', 'sound at the end');

SELECT * FROM finish();
ROLLBACK;
