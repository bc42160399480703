-- what is refused: SQLSTATE, a message that names the value (personal ones masked), a hint
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_crm;
SELECT crm.install();
SET timezone = 'Asia/Shanghai';
SET datestyle = 'ISO, YMD';
SET pg_crm.clock = '2024-06-01 12:00+08';

CREATE FUNCTION pg_temp.refusal(statement text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    message text;
    detail text;
    hint text;
BEGIN
    EXECUTE statement;
    RETURN 'NOT REFUSED';
EXCEPTION WHEN others THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN sqlstate || ' ' || message || coalesce(' / ' || nullif(detail, ''), '')
        || CASE WHEN hint = '' THEN ' / NO HINT' ELSE ' / ' || hint END;
END
$$;
\pset format unaligned
\pset tuples_only

INSERT INTO crm.account (kind, name) VALUES ('official_account', 'oa'), ('sms', 'sms');
INSERT INTO crm.qr_code (account_id, scene, valid_from, valid_until)
SELECT account_id, s.scene, s.valid_from, s.valid_until
  FROM crm.account,
       (VALUES ('banner', NULL::timestamptz, NULL::timestamptz),
               ('may', '2024-05-01 00:00+08', '2024-06-01 00:00+08'),
               ('summer', '2024-07-01 00:00+08', NULL)) AS s (scene, valid_from, valid_until)
 WHERE name = 'oa';
INSERT INTO crm.loyalty_program (name, active) VALUES ('club', true), ('old club', false);
INSERT INTO crm.contact (contact_id) VALUES (1), (2);
SELECT crm.purchase(1, 30, '2024-05-01 10:00+08', 'A1'), crm.purchase(1, 0, '2024-05-01 10:00+08', 'Z'),
       crm.refund(1, 'A1', 10, '2024-05-02 10:00+08', 'R1');
SELECT crm.bind_mobile(1, '13600136000', '2024-05-01 10:00+08'), crm.bind_mobile(2, '13600136001', '2024-05-01 10:00+08');
SELECT crm.track(1, 'cart', '{"sku": "A1"}', '2024-05-03 10:00+08', 'e1');
SELECT count(*) FROM crm.scan('banner', 'oa', 'scanner', '2024-05-04 10:00+08', 'k1');
SELECT count(crm.follow('oa', 'follower', '2024-05-04 10:00+08', 'banner', 'k1'));
CREATE TEMPORARY TABLE before AS
SELECT (SELECT count(*) FROM crm.contact) AS contacts, (SELECT count(*) FROM crm.identity) AS identities,
       (SELECT count(*) FROM crm.event) AS events, (SELECT count(*) FROM crm.scan) AS scans,
       (SELECT count(*) FROM crm.transaction) AS transactions, (SELECT count(*) FROM crm.fact_key) AS keys;

\echo -- unknown names
SELECT statement || E'\n  ' || pg_temp.refusal(statement) FROM (VALUES
    ($$SELECT crm.identify('nobody', 'x')$$),
    ($$SELECT crm.identify('', 'x')$$),
    ($$SELECT crm.identify('sms', 'x')$$),
    ($$SELECT crm.identify_many('nobody', '{x}')$$),
    ($$SELECT crm.follow('nobody', 'x')$$),
    ($$SELECT crm.follow('customer', 'x')$$),
    ($$SELECT crm.unfollow('sms', 'x')$$),
    ($$SELECT crm.scan('banner', 'nobody', 'x')$$),
    ($$SELECT crm.scan('nowhere', 'oa', 'x')$$),
    ($$SELECT crm.scan('', 'oa', 'x')$$),
    ($$SELECT crm.scan('may', 'oa', 'x')$$),
    ($$SELECT crm.scan('summer', 'oa', 'x')$$),
    ($$SELECT crm.track(99, 'cart')$$),
    ($$SELECT crm.track(1, 'cart', account => 'nobody')$$),
    ($$SELECT crm.track(1, 'cart', account => 'customer')$$),
    ($$SELECT crm.purchase(99, 1)$$),
    ($$SELECT crm.purchase(1, 1, store_id => 99)$$),
    ($$SELECT crm.refund(99, 'A1', 1)$$),
    ($$SELECT crm.refund(1, 'A9', 1)$$),
    ($$SELECT crm.refund(2, 'A1', 1)$$),
    ($$SELECT crm.refund(1, 'R1', 1)$$),
    ($$SELECT crm.bind_mobile(99, '13600136009')$$),
    ($$SELECT crm.join_loyalty(99, 'club')$$),
    ($$SELECT crm.join_loyalty(1, 'no club')$$),
    ($$SELECT crm.join_loyalty(1, 'old club')$$),
    ($$SELECT crm.set_stage(99, 'lead', 'x')$$),
    ($$SELECT crm.set_stage(1, 'nirvana', 'x')$$),
    ($$INSERT INTO crm.event (contact_id, kind, properties) VALUES (1, 'set_stage', '{"stage": "nirvana"}')$$),
    ($$INSERT INTO crm.event (contact_id, kind, properties) VALUES (1, 'set_stage', '{"stage": 5}')$$)) AS v (statement);

\echo -- malformed values
SELECT statement || E'\n  ' || pg_temp.refusal(statement) FROM (VALUES
    ($$SELECT crm.identify('mobile', '13800138')$$),
    ($$SELECT crm.identify('mobile', 'Mr 13800138000')$$),
    ($$SELECT crm.identify('mobile', '')$$),
    ($$SELECT crm.identify_many('mobile', '{13800138000,12}')$$),
    ($$SELECT crm.bind_mobile(1, '12')$$),
    ($$SELECT crm.identify('oa', '')$$),
    ($$SELECT crm.identify('oa', 'x', '')$$),
    ($$SELECT crm.identify('unionid', 'unionid-a', 'unionid-b')$$),
    ($$SELECT crm.track(1, '')$$),
    ($$SELECT crm.track(1, 'cart', '[1]')$$),
    ($$SELECT crm.track(1, 'cart', 'null')$$),
    ($$SELECT crm.track(1, 'cart', '{')$$),
    ($$SELECT crm.track(1, 'cart', key => '')$$),
    ($$SELECT crm.track(1, 'purchase')$$),
    ($$SELECT crm.track(1, 'refund')$$),
    ($$SELECT crm.track(1, 'set_stage')$$),
    ($$SELECT crm.track(1, 'bind_mobile')$$),
    ($$SELECT crm.track(1, 'join_loyalty')$$),
    ($$SELECT crm.purchase(1, -1)$$),
    ($$SELECT crm.purchase(1, 'NaN')$$),
    ($$SELECT crm.purchase(1, 'Infinity')$$),
    ($$SELECT crm.purchase(1, 1, external_ref => '')$$),
    ($$SELECT crm.refund(1, 'A1', 0)$$),
    ($$SELECT crm.refund(1, 'A1', -1)$$),
    ($$SELECT crm.refund(1, 'A1', 'NaN')$$),
    ($$SELECT crm.refund(1, 'A1', 'Infinity')$$),
    ($$SELECT crm.refund(1, 'A1', 20.01)$$),
    ($$SELECT crm.refund(1, 'Z', 1)$$)) AS v (statement);

\echo -- the same key or reference with other content
SELECT statement || E'\n  ' || pg_temp.refusal(statement) FROM (VALUES
    ($$SELECT crm.purchase(1, 31, external_ref => 'A1')$$),
    ($$SELECT crm.purchase(1, 30, '2024-05-01 10:01+08', 'A1')$$),
    ($$SELECT crm.purchase(1, 30, external_ref => 'A1', items => '[]')$$),
    ($$SELECT crm.purchase(1, 10, external_ref => 'R1')$$),
    ($$SELECT crm.refund(1, 'A1', 11, key => 'R1')$$),
    ($$SELECT crm.refund(1, 'Z', 10, key => 'R1')$$),
    ($$SELECT crm.refund(1, 'A1', 10, '2024-05-03 10:00+08', 'R1')$$),
    ($$SELECT crm.refund(1, 'A1', 10, key => 'A1')$$),
    ($$INSERT INTO crm.transaction (contact_id, amount, external_ref) VALUES (1, 30, 'A1')$$),
    ($$SELECT crm.track(1, 'cart', '{"sku": "B1"}', key => 'e1')$$),
    ($$SELECT crm.track(1, 'cart', '{"sku": "A1"}', key => 'e1', account => 'oa')$$),
    ($$SELECT crm.track(1, 'cart', '{"sku": "A1"}', '2024-05-03 10:01+08', 'e1')$$),
    ($$SELECT crm.scan('may', 'oa', 'scanner', '2024-05-04 10:00+08', 'k1')$$),
    ($$SELECT crm.scan('banner', 'oa', 'scanner', '2024-05-05 10:00+08', 'k1')$$),
    ($$SELECT crm.follow('oa', 'follower', scene => 'may', key => 'k1')$$),
    ($$SELECT crm.follow('oa', 'follower', '2024-05-05 10:00+08', 'banner', 'k1')$$)) AS v (statement);

\echo -- times
SELECT statement || E'\n  ' || pg_temp.refusal(statement) FROM (VALUES
    ($$SELECT crm.track(1, 'cart', at => 'infinity')$$),
    ($$SELECT crm.track(1, 'cart', at => '-infinity')$$),
    ($$SELECT crm.track(1, 'cart', at => '2024-06-02 12:00:01+08')$$),
    ($$SELECT crm.follow('oa', 'x', at => 'infinity')$$),
    ($$SELECT crm.unfollow('oa', 'x', at => 'infinity')$$),
    ($$SELECT crm.scan('banner', 'oa', 'x', at => 'infinity')$$),
    ($$SELECT crm.purchase(1, 1, at => 'infinity')$$),
    ($$SELECT crm.refund(1, 'A1', 1, at => 'infinity')$$),
    ($$SELECT crm.bind_mobile(1, '13600136009', at => 'infinity')$$),
    ($$SELECT crm.join_loyalty(1, 'club', at => 'infinity')$$)) AS v (statement);

\echo -- NULL where a value is needed
SELECT statement || E'\n  ' || pg_temp.refusal(statement) FROM (VALUES
    ($$SELECT crm.identify(NULL, 'x')$$),
    ($$SELECT crm.identify('oa', NULL)$$),
    ($$SELECT crm.identify_many(NULL, '{x}')$$),
    ($$SELECT crm.identify_many('oa', NULL)$$),
    ($$SELECT crm.identify_many('oa', '{x,NULL}')$$),
    ($$SELECT crm.follow(NULL, 'x')$$),
    ($$SELECT crm.follow('oa', NULL)$$),
    ($$SELECT crm.unfollow(NULL, 'x')$$),
    ($$SELECT crm.unfollow('oa', NULL)$$),
    ($$SELECT crm.scan(NULL, 'oa', 'x')$$),
    ($$SELECT crm.scan('banner', NULL, 'x')$$),
    ($$SELECT crm.scan('banner', 'oa', NULL)$$),
    ($$SELECT crm.bind_mobile(NULL, '13600136009')$$),
    ($$SELECT crm.bind_mobile(1, NULL)$$),
    ($$SELECT crm.track(NULL, 'cart')$$),
    ($$SELECT crm.track(1, NULL)$$),
    ($$SELECT crm.track(1, 'cart', NULL)$$),
    ($$SELECT crm.purchase(NULL, 1)$$),
    ($$SELECT crm.purchase(1, NULL)$$),
    ($$SELECT crm.refund(NULL, 'A1', 1)$$),
    ($$SELECT crm.refund(1, NULL, 1)$$),
    ($$SELECT crm.refund(1, 'A1', NULL)$$),
    ($$SELECT crm.join_loyalty(NULL, 'club')$$),
    ($$SELECT crm.join_loyalty(1, NULL)$$),
    ($$SELECT crm.set_stage(NULL, 'lead', 'x')$$),
    ($$INSERT INTO crm.transaction (contact_id, amount) VALUES (NULL, 1)$$)) AS v (statement);

\echo -- too long: 256 bytes, 64 for a kind, a megabyte
SELECT statement || E'\n  ' || pg_temp.refusal(replace(replace(replace(statement,
    ':long', quote_literal(repeat('x', 256))), ':kind', quote_literal(repeat('x', 64))),
    ':huge', quote_literal(repeat('x', 1024 * 1024)))) FROM (VALUES
    ($$SELECT crm.identify(:long, 'x')$$),
    ($$SELECT crm.identify('oa', :long)$$),
    ($$SELECT crm.identify('oa', :huge)$$),
    ($$SELECT crm.identify('mobile', :huge)$$),
    ($$SELECT crm.identify('oa', 'x', :long)$$),
    ($$SELECT crm.identify_many('oa', ARRAY['x', :long])$$),
    ($$SELECT crm.follow('oa', :long)$$),
    ($$SELECT crm.follow('oa', 'x', scene => :huge)$$),
    ($$SELECT crm.follow('oa', 'x', key => :long)$$),
    ($$SELECT crm.unfollow('oa', 'x', key => :long)$$),
    ($$SELECT crm.scan(:long, 'oa', 'x')$$),
    ($$SELECT crm.scan('banner', 'oa', 'x', key => :long)$$),
    ($$SELECT crm.track(1, :kind)$$),
    ($$SELECT crm.track(1, :huge)$$),
    ($$SELECT crm.track(1, 'cart', key => :long)$$),
    ($$SELECT crm.track(1, 'cart', account => :huge)$$),
    ($$SELECT crm.track(1, 'cart', jsonb_build_object('a', :huge))$$),
    ($$SELECT crm.purchase(1, 1, external_ref => :long)$$),
    ($$SELECT crm.purchase(1, 1, items => to_jsonb(:huge::text))$$),
    ($$SELECT crm.refund(1, :long, 1)$$),
    ($$SELECT crm.refund(1, 'A1', 1, key => :long)$$),
    ($$SELECT crm.join_loyalty(1, :huge)$$),
    ($$SELECT crm.set_stage(1, :huge, 'x')$$),
    ($$SELECT crm.set_stage(1, 'lead', :huge)$$)) AS v (statement);

\echo -- facts are only added
SELECT statement || E'\n  ' || pg_temp.refusal(statement) FROM (VALUES
    ($$UPDATE crm.transaction SET amount = 1$$),
    ($$DELETE FROM crm.transaction$$),
    ($$TRUNCATE crm.transaction$$),
    ($$UPDATE crm.event SET kind = 'x'$$),
    ($$DELETE FROM crm.event$$),
    ($$TRUNCATE crm.event$$),
    ($$DELETE FROM crm.scan$$),
    ($$TRUNCATE crm.scan$$),
    ($$UPDATE crm.identity SET contact_id = 1$$),
    ($$DELETE FROM crm.identity$$),
    ($$DELETE FROM crm.contact$$),
    ($$UPDATE crm.contact SET mobile = NULL$$)) AS v (statement);

\echo -- nothing was half done
SELECT b = ROW((SELECT count(*) FROM crm.contact), (SELECT count(*) FROM crm.identity), (SELECT count(*) FROM crm.event),
       (SELECT count(*) FROM crm.scan), (SELECT count(*) FROM crm.transaction), (SELECT count(*) FROM crm.fact_key))
  FROM before b;
SELECT count(*) FROM crm.verify();
