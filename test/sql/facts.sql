-- the functions that record facts: identify, follow, scan, bind_mobile, track, purchase, refund,
-- join_loyalty, set_stage
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_crm;
SELECT crm.install();
SET timezone = 'Asia/Shanghai';
SET datestyle = 'ISO, YMD';
SET pg_crm.clock = '2024-06-01 12:00+08';

INSERT INTO crm.account (kind, name) VALUES
    ('official_account', 'oa'), ('mini_program', 'mini'), ('wecom', 'corp'), ('wechat_pay', 'pay'),
    ('sms', 'sms');
INSERT INTO crm.store (name) VALUES ('West Lake');
INSERT INTO crm.qr_code (account_id, scene, valid_from, valid_until)
SELECT account_id, s.scene, s.valid_from, s.valid_until
  FROM crm.account,
       (VALUES ('banner', NULL::timestamptz, NULL::timestamptz),
               ('may', '2024-05-01 00:00+08', '2024-06-01 00:00+08')) AS s (scene, valid_from, valid_until)
 WHERE name = 'oa';
INSERT INTO crm.loyalty_program (name, active) VALUES ('club', true), ('old club', false);

-- identify: one contact an identifier, per account or everywhere
SELECT crm.identify('oa', 'o1'), crm.identify('oa', 'o1'), crm.identify('mini', 'o1'),
       crm.identify('corp', 'w1'), crm.identify('pay', 'o1'), crm.identify('customer', 'c1');
SELECT crm.identify('mobile', '138 0013 8000') = crm.identify('mobile', '+8613800138000') AS same;
SELECT i.kind, a.name AS account, i.external_id, i.bound_at, i.verified_at, c.mobile, c.created_at, p.stage
  FROM crm.identity i
  JOIN crm.contact c USING (contact_id)
  JOIN crm.profile_counter p USING (contact_id)
  LEFT JOIN crm.account a USING (account_id)
 ORDER BY contact_id;

-- a unionid joins openids
SELECT crm.identify('oa', 'u-o', 'u') AS a, crm.identify('mini', 'u-m', 'u') AS b,
       crm.identify('unionid', 'u') AS c \gset
SELECT :a = :b AND :b = :c AS joined, :'a' = crm.identify('oa', 'u-o')::text AS kept;
SELECT crm.identify('oa', 'o1') = crm.identify('oa', 'o1', 'u1') AS added,
       crm.identify('oa', 'o1') = crm.identify('unionid', 'u1') AS by_unionid,
       crm.identify('unionid', 'u1', 'u1') = crm.identify('unionid', 'u1') AS twice;
SELECT crm.identify('mobile', '13900139000', 'u1') = crm.identify('oa', 'o1') AS mobile_too;
SELECT mobile FROM crm.contact WHERE contact_id = crm.identify('oa', 'o1');

-- two that were two until now
SELECT crm.identify('oa', 'two-a') AS a, crm.identify('unionid', 'two') AS b \gset
SELECT crm.identify('oa', 'two-a', 'two') = :a AS older_stays;
SELECT crm.identify('unionid', 'two') = :a AS rekeyed, crm.track(:b, 'look') > 0 AS redirected;
SELECT contact_id = :a AS joined FROM crm.event WHERE kind = 'look';

-- identify_many: order of the input, duplicates allowed, old and new ones
SELECT external_id, contact_id = crm.identify('customer', external_id) AS right_one
  FROM crm.identify_many('customer', ARRAY['c9', 'c1', 'c3', 'c9', 'c2']);
SELECT count(*), count(DISTINCT contact_id) FROM crm.identify_many('customer', ARRAY['c9', 'c1', 'c3', 'c9', 'c2']);
SELECT external_id, contact_id = crm.identify('mobile', external_id) AS right_one
  FROM crm.identify_many('mobile', ARRAY['13700137000', '+86 137 0013 7000', '+85251234567']);
SELECT mobile FROM crm.contact WHERE mobile::text IN ('+8613700137000', '+85251234567') ORDER BY mobile::text;
SELECT * FROM crm.identify_many('oa', '{}');

-- follow with and without a scene; the code of a known scene is scanned
SELECT crm.follow('oa', 'f1', '2024-05-02 10:00+08', 'qrscene_banner', 'm1') AS f1 \gset
SELECT crm.follow('oa', 'f1', NULL, 'banner', 'm1') = :f1 AS replayed,
       crm.follow('oa', 'f1', '2024-05-02 10:00+08', 'qrscene_banner', key => 'm1') = :f1 AS replayed_at;
SELECT crm.follow('oa', 'f2', at => '2024-05-03 10:00+08', scene => 'nowhere') AS f2 \gset
SELECT crm.follow('oa', 'f3', at => '2024-06-01 00:00+08', scene => 'may') AS f3 \gset
SELECT crm.follow('oa', 'f4', at => '2024-05-04 10:00+08', scene => '') AS f4 \gset
SELECT crm.unfollow('oa', 'f4', at => '2024-05-05 10:00+08', key => 'x') = :f4 AS unfollowed,
       crm.unfollow('oa', 'f4', key => 'x') = :f4 AS replayed;
SELECT i.external_id, e.kind, e.occurred_at, e.recorded_at, a.name AS account, e.properties
  FROM crm.event e JOIN crm.identity i USING (contact_id) JOIN crm.account a ON a.account_id = e.account_id
 WHERE i.external_id LIKE 'f_' ORDER BY i.external_id, e.occurred_at;
SELECT i.external_id, q.scene, s.occurred_at, f.scan_id IS NOT NULL AS counts
  FROM crm.scan s JOIN crm.identity i USING (contact_id) JOIN crm.qr_code q USING (qr_code_id)
  LEFT JOIN crm.first_scan f USING (contact_id, scan_id) ORDER BY s.scan_id;
SELECT achievement, awarded_at FROM crm.award WHERE contact_id = :f1 ORDER BY achievement;

-- scan: the first one counts, a replay gives the first result, an earlier one takes over
SELECT contact_id AS s1, scan_id AS id1, is_first FROM crm.scan('banner', 'oa', 's1', '2024-05-10 10:00+08', 'k1') \gset
SELECT :'is_first' AS is_first;
SELECT contact_id = :s1 AS same, scan_id = :id1 AS replayed, is_first
  FROM crm.scan('banner', 'oa', 's1', NULL, 'k1');
SELECT contact_id = :s1 AS same, scan_id > :id1 AS another, is_first
  FROM crm.scan('qrscene_banner', 'oa', 's1', '2024-05-11 10:00+08', 'k2');
SELECT scan_id > :id1 AS another, is_first FROM crm.scan('banner', 'oa', 's1', at => '2024-05-09 10:00+08');
SELECT scan_id = :id1 AS replayed, is_first FROM crm.scan('banner', 'oa', 's1', '2024-05-10 10:00+08', 'k1');
SELECT is_first FROM crm.scan('may', 'oa', 's1', '2024-05-31 23:59:59+08', 'may');
SELECT is_first FROM crm.scan('may', 'oa', 's1', key => 'may');
SELECT raw_scans, scans, first_seen_at FROM crm.profile_counter WHERE contact_id = :s1;

-- purchase and refund
SELECT crm.identify('customer', 'buyer') AS b \gset
SELECT crm.purchase(:b, 30, '2024-05-01 10:00+08', 'A1', 1, '[{"sku": "x"}]') AS t1 \gset
SELECT crm.purchase(:b, 30.00, NULL, 'A1', 1, '[{"sku": "x"}]') = :t1 AS replayed,
       crm.purchase(:b, 30.00, '2024-05-01 10:00+08', 'A1', 1, '[{"sku": "x"}]') = :t1 AS replayed_at;
SELECT crm.purchase(:b, 0) <> crm.purchase(:b, 0) AS without_reference_each_counts;
SELECT crm.refund(:b, 'A1', 12.5, '2024-05-02 10:00+08', 'R1') AS r1 \gset
SELECT crm.refund(:b, 'A1', 12.50, key => 'R1') = :r1 AS replayed;
SELECT crm.refund(:b, 'A1', 17.5) > :r1 AS the_rest;
SELECT kind, amount, currency, occurred_at, recorded_at, store_id, external_ref, refund_of = :t1 AS of_a1, items
  FROM crm.transaction WHERE contact_id = :b ORDER BY occurred_at, transaction_id;
SELECT orders, spend, refunds FROM crm.profile_counter WHERE contact_id = :b;
SELECT crm.refund(:b, 'A1', 12.5, key => 'R1') = :r1 AS still_replayed;

-- bind_mobile: a free number, again, a second one
SELECT crm.identify('oa', 'binder') AS m \gset
SELECT crm.bind_mobile(:m, '13600136000', '2024-05-20 10:00+08') = :m AS bound,
       crm.bind_mobile(:m, '+86 136 0013 6000') = :m AS again,
       crm.bind_mobile(:m, '13600136001', '2024-05-21 10:00+08') = :m AS second;
SELECT external_id, bound_at, verified_at FROM crm.identity WHERE contact_id = :m AND kind = 'mobile' ORDER BY external_id;
SELECT kind, occurred_at, properties FROM crm.event WHERE contact_id = :m ORDER BY occurred_at;
SELECT c.mobile, c.stage, p.mobile_at FROM crm.contact c JOIN crm.profile_counter p USING (contact_id) WHERE contact_id = :m;
-- known, not yet proved
SELECT crm.identify('mobile', '13600136002') AS k \gset
SELECT crm.bind_mobile(:k, '13600136002', '2024-05-22 10:00+08') = :k AS proved;
SELECT bound_at, verified_at FROM crm.identity WHERE external_id = '+8613600136002';
-- another contact's: they become one
SELECT crm.identify('oa', 'joiner') AS j, crm.identify('mobile', '13600136003') AS o \gset
SELECT crm.purchase(:o, 10, '2020-01-01 10:00+08', 'H1') > 0 AS old_order;
SELECT crm.bind_mobile(:j, '13600136003', '2024-05-23 10:00+08') AS survivor \gset
SELECT :survivor IN (:j, :o) AS one_of_them, crm.identify('oa', 'joiner') = :survivor AS joiner,
       crm.identify('mobile', '13600136003') = :survivor AS by_number,
       crm.bind_mobile(:j, '13600136003') = :survivor AND crm.bind_mobile(:o, '13600136003') = :survivor AS again;
SELECT kind, occurred_at FROM crm.event WHERE contact_id = :survivor;
SELECT achievement, awarded_at FROM crm.award WHERE contact_id = :survivor ORDER BY awarded_at, achievement;

-- track
SELECT crm.track(:b, 'cart', '{"sku": "A1"}', '2024-05-30 10:00+08', 'e1', 'mini') AS e1 \gset
SELECT crm.track(:b, 'cart', '{"sku":"A1"}', key => 'e1', account => 'mini') = :e1 AS replayed,
       crm.track(:b, 'other', key => 'e1') > :e1 AS other_kind;
SELECT crm.track(:b, 'message', account => 'sms') > 0 AS any_account;
SELECT e.kind, e.occurred_at, e.recorded_at, a.name AS account, e.properties
  FROM crm.event e LEFT JOIN crm.account a USING (account_id) WHERE contact_id = :b ORDER BY event_id;

-- join_loyalty: once
SELECT crm.join_loyalty(:b, 'club', '2024-05-03 10:00+08');
SELECT crm.join_loyalty(:b, 'club', '2024-05-02 10:00+08'), crm.join_loyalty(:b, 'club');
SELECT p.name, m.joined_at FROM crm.membership m JOIN crm.loyalty_program p USING (loyalty_program_id);
SELECT occurred_at, properties FROM crm.event WHERE kind = 'join_loyalty';
SELECT awarded_at FROM crm.award WHERE achievement = 'join_loyalty';

-- set_stage: held until released
SELECT crm.set_stage(:b, 'other', 'complaint');
SELECT stage FROM crm.contact WHERE contact_id = :b;
SET pg_crm.clock = '2024-06-01 12:00:01+08';
SELECT crm.set_stage(:b, NULL, NULL);
SELECT stage FROM crm.contact WHERE contact_id = :b;
SELECT properties FROM crm.event WHERE kind = 'set_stage' ORDER BY event_id;

SELECT * FROM crm.verify();
