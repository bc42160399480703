-- A brand's spring, day by day, for the dashboard: 91 days, six shops, and facts drawn from digests, so that every run has
-- the same. What must not be seen has SECRET in it. Run by psql as a superuser in a database with pg_crm installed.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
SET TimeZone = 'Asia/Shanghai';
SET pg_crm.clock = '2025-04-01 00:00+08';

-- 0 to 1, the same for the same words
CREATE FUNCTION public.chance(VARIADIC words text[]) RETURNS double precision LANGUAGE sql IMMUTABLE
RETURN ('x' || left(md5(array_to_string(words, '/')), 8))::bit(32)::bigint / 4294967296.0;

INSERT INTO crm.account (kind, name) VALUES ('official_account', 'maison');
INSERT INTO crm.store (name) VALUES ('上海南京西路旗舰店'), ('北京三里屯店'), ('成都太古里店'), ('深圳万象城店'), ('杭州湖滨银泰店'), ('Hong Kong Canton Road');
INSERT INTO crm.associate (store_id, userid)
SELECT s.store_id, v.userid FROM crm.store AS s, LATERAL (VALUES ('wang.lei', 1), ('zhao.min', 1), ('li.na', 2), ('chen.jing', 3), ('liu.yang', 4),
    ('sun.qian', 5), ('ho.ka-yan', 6)) AS v(userid, store_id) WHERE v.store_id = s.store_id;
SELECT crm.define_qr_code(jsonb_build_object('account', 'maison', 'scene', 'door-' || store_id, 'store_id', store_id,
           'campaign', CASE WHEN store_id <= 3 THEN '春季新品' ELSE '会员日' END, 'dedup_scope', 'campaign', 'dedup_window', '1 day')) FROM crm.store ORDER BY store_id \g /dev/null
SELECT crm.define_qr_code(jsonb_build_object('account', 'maison', 'scene', 'associate-' || userid, 'store_id', store_id, 'associate_id', associate_id))
  FROM crm.associate ORDER BY associate_id \g /dev/null
-- a name that wants to break out of the page
SELECT crm.define_qr_code('{"account": "maison", "scene": "poster", "campaign": "618 <b>大促</b> & friends"}') \g /dev/null
SELECT crm.define_scan_limit('{"name": "too fast", "max_scans": 3, "period": "1 minute"}') \g /dev/null
INSERT INTO crm.loyalty_program (name, label) VALUES ('club', '梅森会');
INSERT INTO crm.tier (program, tier, rank, threshold) VALUES ('club', '银卡', 1, 100), ('club', '金卡', 2, 400);
SELECT crm.define_earning_rule('{"name": "yuan", "program": "club", "points": 1, "per_amount": 10}'),
       crm.define_coupon('{"name": "welcome_50", "label": "新客立减 50 元", "one_per": "contact", "valid_for": "14 days"}'),
       crm.define_coupon('{"name": "birthday", "label": "生日礼券", "valid_for": "30 days"}'),
       crm.define_coupon('{"name": "gift_618", "label": "618 满赠券", "valid_for": "20 days"}') \g /dev/null
SELECT crm.define_template(jsonb_build_object('name', name, 'channel', 'official_account', 'account', 'maison', 'message_type', 'text', 'class', class,
           'label', label, 'body', jsonb_build_object('content', 'BODY-SECRET ' || name)))
  FROM (VALUES ('hello', 'service', '欢迎'), ('ask_mobile', 'service', '请留手机号'), ('thanks', 'service', '感谢下单'), ('spring', 'marketing', '春季新品'),
               ('june', 'marketing', '618 大促')) AS t(name, class, label) \g /dev/null
SELECT crm.publish_journey('{"journey": "新会员欢迎旅程", "entry": [{"on": "follow"}], "reentry": "once", "goal": {"on": "purchase"}, "start": "欢迎", "steps": {
         "欢迎": {"kind": "send", "template": "hello", "next": "等待绑定", "on_failed": "等待绑定", "on_refused": "等待绑定"},
         "等待绑定": {"kind": "wait_for", "on": "bind_mobile", "within": "2 days", "next": "发券", "on_timeout": "请留手机号"},
         "请留手机号": {"kind": "send", "template": "ask_mobile", "next": "再等一周", "on_failed": null, "on_refused": null},
         "再等一周": {"kind": "wait", "for": "7 days", "next": null},
         "发券": {"kind": "coupon", "coupon": "welcome_50", "next": "等待下单", "on_failed": null},
         "等待下单": {"kind": "wait", "for": "14 days", "next": null}}}'),
       crm.publish_journey('{"journey": "after-purchase", "entry": [{"on": "purchase"}], "reentry": "once", "start": "thanks", "steps": {
         "thanks": {"kind": "send", "template": "thanks", "next": "rest", "on_failed": "rest", "on_refused": "rest"},
         "rest": {"kind": "wait", "for": "5 days", "next": "arms"},
         "arms": {"kind": "split", "arms": {"birthday": {"weight": 1, "next": "gift"}, "nothing": {"weight": 1, "next": null}}},
         "gift": {"kind": "coupon", "coupon": "birthday", "next": null, "on_failed": null}}}') \g /dev/null

-- what became of a message, as if it had been sent: nothing here sends
CREATE PROCEDURE public.send_all() LANGUAGE plpgsql AS $$
DECLARE
    m record;
    fate double precision;
BEGIN
    FOR m IN SELECT o.contact_id, o.message_id FROM crm.outbox AS o WHERE o.due_at <= crm.now() ORDER BY o.message_id LOOP
        fate := chance('message', m.message_id::text);
        UPDATE crm.message AS t
           SET state = CASE WHEN fate < 0.9 THEN 'sent' WHEN fate < 0.97 THEN 'refused' ELSE 'failed' END,
               reason = CASE WHEN fate < 0.9 THEN NULL WHEN fate < 0.97 THEN 'no_window' ELSE 'errcode 43004' END,
               sent_at = CASE WHEN fate < 0.9 THEN crm.now() END, ended_at = crm.now()
         WHERE t.contact_id = m.contact_id AND t.message_id = m.message_id;
        DELETE FROM crm.outbox AS o WHERE o.contact_id = m.contact_id AND o.message_id = m.message_id;
        INSERT INTO crm.message_end (contact_id, message_id, due_at)
        SELECT t.contact_id, t.message_id, crm.now() FROM crm.message AS t WHERE t.contact_id = m.contact_id AND t.message_id = m.message_id AND t.awaited;
    END LOOP;
END $$;

CREATE PROCEDURE public.live(day date, new_people integer) LANGUAGE plpgsql AS $$
DECLARE
    midnight timestamptz := day::timestamp AT TIME ZONE 'Asia/Shanghai';
    store bigint;
    person record;
    who text;
    contact bigint;
    at timestamptz;
    scene text;
    fate double precision;
    order_ref text;
    price numeric;
BEGIN
    PERFORM set_config('pg_crm.clock', (midnight + interval '23 hours')::text, false);
    FOR n IN 1 .. new_people LOOP
        who := to_char(day, 'MMDD') || '-' || n;
        at := midnight + interval '9 hours' + chance(who, 'at') * interval '12 hours';
        fate := chance(who, 'store');
        store := CASE WHEN fate < 0.30 THEN 1 WHEN fate < 0.5 THEN 2 WHEN fate < 0.66 THEN 3 WHEN fate < 0.8 THEN 4 WHEN fate < 0.92 THEN 5 ELSE 6 END;
        fate := chance(who, 'scene');
        scene := CASE WHEN fate < 0.2 AND day >= '2025-05-20' THEN 'poster' WHEN fate < 0.6 THEN 'door-' || store
                      WHEN fate < 0.85 THEN (SELECT min('associate-' || a.userid) FROM crm.associate AS a WHERE a.store_id = store) END;
        contact := crm.follow('maison', 'oSECRET-' || who, at, scene);
        INSERT INTO person VALUES (contact, who, store, chance(who, 'loyalty') ^ 2, at);
    END LOOP;
    FOR person IN SELECT * FROM person AS p WHERE p.since < midnight + interval '1 day' ORDER BY p.contact_id LOOP
        contact := person.contact_id;
        who := person.who || '/' || day;
        fate := chance(who);
        at := greatest(midnight + interval '10 hours' + chance(who, 'at') * interval '11 hours', person.since + interval '5 minutes');
        at := least(at, midnight + interval '22 hours');
        CONTINUE WHEN fate > 0.16 AND NOT (person.since >= midnight AND fate < 0.62);
        IF NOT person.known AND chance(who, 'mobile') < 0.5 THEN
            PERFORM crm.bind_mobile(contact, ('+86138' || to_char(10000000 + contact, 'FM00000000'))::crm.mobile, at);
            UPDATE person AS p SET known = true WHERE p.contact_id = contact;
        END IF;
        IF chance(who, 'scan') < 0.4 THEN
            PERFORM crm.scan('door-' || person.store_id, 'maison', 'oSECRET-' || person.who, at + k * interval '5 seconds')
               FROM generate_series(1, CASE WHEN chance(who, 'fast') < 0.03 THEN 5 ELSE 1 END) AS k;
        END IF;
        IF chance(who, 'cart') < 0.4 THEN
            PERFORM crm.track(contact, 'cart', '{"sku": "NOTE-SECRET"}', at + interval '5 minutes', account => 'maison');
        END IF;
        IF chance(who, 'buys') < person.loyalty * (CASE WHEN day BETWEEN '2025-06-14' AND '2025-06-18' THEN 0.9 ELSE 0.5 END) THEN
            order_ref := 'ORDER-SECRET-' || who;
            price := round((80 + 900 * chance(who, 'price') ^ 3)::numeric, 0);
            at := at + interval '20 minutes';
            PERFORM crm.purchase(contact, price, at, order_ref, CASE WHEN chance(who, 'shop') < 0.85 THEN person.store_id END);
            IF chance(who, 'joins') < 0.4 THEN
                PERFORM crm.join_loyalty(contact, 'club', at + interval '1 minute');
            END IF;
            IF chance(who, 'refund') < 0.06 THEN
                PERFORM crm.refund(contact, order_ref, CASE WHEN chance(who, 'part') < 0.5 THEN price ELSE round(price / 2) END, at + interval '30 minutes', 'r-' || who);
            END IF;
            PERFORM crm.redeem_coupon(contact, g.code, person.store_id, at)
               FROM crm.coupon_grant AS g WHERE g.contact_id = contact AND g.redeemed_at IS NULL AND g.issued_at <= at AND g.expires_at > at AND chance(who, 'redeems') < 0.6
              ORDER BY g.coupon_grant_id LIMIT 1;
        END IF;
        IF chance(who, 'leaves') < 0.015 THEN
            PERFORM crm.unfollow('maison', 'oSECRET-' || person.who, midnight + interval '22 hours 30 minutes');
        END IF;
    END LOOP;
    PERFORM crm.tick(crm.now());
    CALL public.send_all();
    PERFORM crm.tick(crm.now());
END $$;

CREATE TEMP TABLE person (contact_id bigint PRIMARY KEY, who text, store_id bigint, loyalty double precision, since timestamptz, known boolean DEFAULT false);
SELECT format('CALL public.live(%L, %s);', d::date, (5 + 8 * public.chance(d::date::text) + CASE WHEN extract(isodow FROM d) >= 6 THEN 5 ELSE 0 END
               + CASE WHEN d BETWEEN '2025-06-10' AND '2025-06-18' THEN 9 ELSE 0 END)::integer),
       CASE d WHEN '2025-04-25' THEN $$INSERT INTO crm.campaign (name, template, audience, label) VALUES ('spring', 'spring', 'mobile IS NOT NULL', '春季新品');
                                       SELECT crm.send_campaign('spring')$$
              WHEN '2025-06-13' THEN $$INSERT INTO crm.campaign (name, template, label) VALUES ('june', 'june', '618 大促'); SELECT crm.send_campaign('june');
                                       SELECT count(crm.issue_coupon(contact_id, 'gift_618')) FROM crm.profile_counter WHERE orders > 0$$ END
  FROM generate_series(timestamp '2025-04-01', '2025-06-30', '1 day') AS d ORDER BY d
\o /dev/null
\gexec
\o
UPDATE crm.contact SET name = 'NAME-SECRET', city = '上海';
SET pg_crm.clock = '2025-07-01 09:00+08';
SELECT crm.tick() \g /dev/null
ANALYZE;
