-- maps of the customers' journey: definitions, and every number against a slow obvious reference
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install();
SET TimeZone = 'UTC';
SET pg_crm.clock = '2025-03-01 00:00+00';
SELECT no_plan();

INSERT INTO crm.account (account_id, kind, name) VALUES (1, 'official_account', 'oa'), (2, 'official_account', 'other');
INSERT INTO crm.qr_code (qr_code_id, account_id, scene, campaign) VALUES (1, 1, 'poster', 'spring'), (2, 1, 'leaflet', 'spring'), (3, 2, 'poster', NULL);
INSERT INTO crm.template (name, channel, message_type, body) VALUES ('hello', 'official_account', 'text', '{"content": "hello"}');
INSERT INTO crm.contact (contact_id, created_at, city) SELECT n, '2024-12-01', CASE WHEN n <= 2 THEN 'Shanghai' ELSE 'Beijing' END FROM generate_series(1, 6) AS n;

-- personas
SELECT is(crm.define_persona('{"name": "shanghai", "rule": "city = ''Shanghai''", "label": "In Shanghai", "description": "Near the shop"}'), 1, 'a persona');
SELECT is(crm.define_persona('{"name": "shanghai", "rule": "city = ''Shanghai''", "label": "In Shanghai", "description": "Near the shop"}'), 1, 'again: the same version');
SELECT is(crm.define_persona('{"name": "buyer", "rule": "orders > 0"}'), 1, 'another one');
SELECT results_eq('SELECT * FROM crm.persona_size()', $$VALUES ('buyer', NULL, 0::bigint, 0.0000), ('shanghai', 'In Shanghai', 2, 0.3333)$$, 'live sizes');
SELECT results_eq($$SELECT * FROM crm.persona_members('shanghai') ORDER BY 1$$, $$VALUES (1::bigint), (2)$$, 'who they are');
SELECT throws_ok($$SELECT crm.persona_members('nobody')$$, '23503', 'persona "nobody" does not exist', 'an unknown persona');
SELECT throws_ok($$SELECT crm.define_persona('{"name": "x", "rule": "nix = 1"}')$$, '42703', 'rule names unknown column "nix"', 'a rule that cannot be');
SELECT throws_ok($$SELECT * FROM crm.persona_size('infinity')$$, '22008', NULL, 'sizes of no time');

-- touchpoints: what they may be tied to
SELECT is(crm.define_touchpoint('{"name": "poster", "on_kind": "scan", "scene": "poster", "account": "oa", "label": "Poster"}'), 1, 'of a code');
SELECT is(crm.define_touchpoint('{"name": "spring", "on_kind": "scan", "campaign": "spring"}'), 1, 'of a campaign');
SELECT is(crm.define_touchpoint('{"name": "follow", "on_kind": "follow", "account": "oa"}'), 1, 'of a kind on an account');
SELECT is(crm.define_touchpoint('{"name": "cart", "on_kind": "page_view", "page": "pages/cart"}'), 1, 'of a page');
SELECT is(crm.define_touchpoint('{"name": "order", "on_kind": "purchase", "rule": "fact.amount >= 10"}'), 1, 'of facts by a rule');
SELECT is(crm.define_touchpoint('{"name": "greeting", "template": "hello"}'), 1, 'of messages');
SELECT is(crm.define_touchpoint('{"name": "hotline", "on_kind": "complaint", "complaint": true}'), 1, 'a complaint');
SELECT throws_ok($$SELECT crm.define_touchpoint('{"name": "x"}')$$, '23514', 'a touchpoint is tied to nothing', 'tied to nothing');
SELECT throws_ok($$SELECT crm.define_touchpoint('{"name": "x", "on_kind": "cart", "template": "hello"}')$$, '23514', NULL, 'tied to two things');
SELECT throws_ok($$SELECT crm.define_touchpoint('{"name": "x", "template": "hello", "rule": "true"}')$$, '23514', NULL, 'messages by a rule');
SELECT throws_ok($$SELECT crm.define_touchpoint('{"name": "x", "on_kind": "scan", "scene": "nix"}')$$, '23503', NULL, 'an unknown code');
SELECT throws_ok($$SELECT crm.define_touchpoint('{"name": "x", "on_kind": "scan", "scene": "leaflet", "account": "other"}')$$, '23503', NULL, 'a code of another account');
SELECT throws_ok($$SELECT crm.define_touchpoint('{"name": "x", "on_kind": "scan", "campaign": "nix"}')$$, '23503', NULL, 'an unknown campaign');
SELECT throws_ok($$SELECT crm.define_touchpoint('{"name": "x", "on_kind": "cart", "account": "nix"}')$$, '23503', NULL, 'an unknown account');
SELECT throws_ok($$SELECT crm.define_touchpoint('{"name": "x", "template": "nix"}')$$, '23503', NULL, 'an unknown template');
SELECT throws_ok($$SELECT crm.define_touchpoint('{"name": "x", "on_kind": "cart", "scene": "poster"}')$$, '23514', NULL, 'a code of what is no scan');
SELECT throws_ok($$SELECT crm.define_touchpoint('{"name": "x", "on_kind": "purchase", "page": "a"}')$$, '23514', NULL, 'a page of what is no event');
SELECT throws_ok($$SELECT crm.define_touchpoint('{"name": "x", "on_kind": "view", "page": "a?b"}')$$, '23514', NULL, 'a page with a query');
SELECT throws_ok($$SELECT crm.define_touchpoint('{"name": "x", "on_kind": "purchase", "account": "oa"}')$$, '23514', NULL, 'orders of an account');
SELECT throws_ok($$INSERT INTO crm.touchpoint (name, on_kind, rule) VALUES ('x', 'cart', 'fact.nix')$$, '42703', NULL, 'INSERT is checked, too');
SELECT throws_ok($$SELECT crm.define_touchpoint('{"name": "x", "on_kind": "cart", "colour": 1}')$$, '22023', NULL, 'an unknown key');

-- facts whose ways are known
INSERT INTO crm.scan (contact_id, qr_code_id, occurred_at) VALUES (1, 1, '2025-01-01'), (2, 2, '2025-01-02'), (3, 1, '2025-02-25'), (4, 3, '2025-01-02');
INSERT INTO crm.event (contact_id, kind, occurred_at, account_id, properties)
VALUES (1, 'follow', '2025-01-02', 1, '{}'), (4, 'follow', '2025-01-02', 2, '{}'), (1, 'page_view', '2025-01-03', NULL, '{"page": "pages/cart?sku=1"}'),
       (1, 'page_view', '2025-01-03 01:00', NULL, '{"page": "pages/cart"}'), (1, 'page_view', '2025-01-03 02:00', NULL, '{"page": "pages/cart2"}'),
       (1, 'page_view', '2025-01-03 02:00', NULL, '{"page": 7}'), (1, 'complaint', '2025-01-03 03:00', NULL, '{}'), (5, 'complaint', '2025-01-03', NULL, '{}');
INSERT INTO crm.transaction (contact_id, amount, occurred_at) VALUES (1, 20, '2025-01-05'), (2, 5, '2025-01-05'), (2, 50, '2025-01-06');
INSERT INTO crm.message (contact_id, account_id, template, template_version, channel, class, state, sent_at)
VALUES (2, 1, 'hello', 1, 'official_account', 'service', 'sent', '2025-01-04'), (3, 1, 'hello', 1, 'official_account', 'service', 'failed', NULL);

SELECT results_eq($$SELECT contact_id, touchpoint, occurred_at, source_table FROM crm.touchpoint_rows(NULL) ORDER BY 1, 3$$,
    $$VALUES (1::bigint, 'poster', '2025-01-01'::timestamptz, 'scan'), (1, 'follow', '2025-01-02', 'event'), (1, 'cart', '2025-01-03', 'event'),
             (1, 'cart', '2025-01-03 01:00', 'event'), (1, 'order', '2025-01-05', 'transaction'), (2, 'spring', '2025-01-02', 'scan'),
             (2, 'greeting', '2025-01-04', 'message'), (2, 'order', '2025-01-06', 'transaction'), (3, 'poster', '2025-02-25', 'scan')$$,
    'who met what: page without query, code of the account, campaign, rule, sent messages; no complaint');
SELECT results_eq($$SELECT touchpoint, count(*) FROM crm.touchpoint_rows('{spring,poster}') GROUP BY 1$$, $$VALUES ('spring', 3::bigint)$$, 'what belongs to two is of the first');
SELECT results_eq($$SELECT contact_id, touchpoint FROM crm.touchpoint_rows('{cart,order}', '2025-01-03 01:00', '2025-01-06') ORDER BY 2$$,
    $$VALUES (1::bigint, 'cart'), (1, 'order')$$, 'a period holds its start and not its end');
SELECT results_eq($$SELECT DISTINCT contact_id FROM crm.touchpoint_rows('{order,poster}', persona => 'shanghai') ORDER BY 1$$, $$VALUES (1::bigint), (2)$$, 'of a persona');
SELECT is_empty($$SELECT * FROM crm.touchpoint_rows('{}')$$, 'no touchpoints, no rows');
SELECT throws_ok($$SELECT crm.touchpoint_rows('{nix}')$$, '23503', 'touchpoint "nix" does not exist', 'an unknown touchpoint');
SELECT throws_ok($$SELECT crm.touchpoint_rows('{NULL}')$$, '22004', NULL, 'a NULL among them');
SELECT throws_ok($$SELECT crm.touchpoint_rows(NULL, '2025-01-01')$$, '22004', NULL, 'half a period');
SELECT throws_ok($$SELECT crm.touchpoint_rows(NULL, '2025-01-02', '2025-01-01')$$, '22023', NULL, 'a reversed period');
SELECT throws_ok($$SELECT crm.touchpoint_rows(NULL, '-infinity', '2025-01-01')$$, '22008', NULL, 'an infinite one');
SELECT results_eq($$SELECT contact_id, from_touchpoint, left_at, outcome, to_touchpoint, seconds FROM crm.touchpoint_moves(NULL, '30 days') ORDER BY 1, 3$$,
    $$VALUES (1::bigint, 'poster', '2025-01-01'::timestamptz, 'went_on', 'follow', 86400::float8), (1, 'follow', '2025-01-02', 'went_on', 'cart', 86400),
             (1, 'cart', '2025-01-03 01:00', 'went_on', 'order', 169200), (1, 'order', '2025-01-05', 'lost', NULL, NULL),
             (2, 'spring', '2025-01-02', 'went_on', 'greeting', 172800), (2, 'greeting', '2025-01-04', 'went_on', 'order', 172800),
             (2, 'order', '2025-01-06', 'lost', NULL, NULL), (3, 'poster', '2025-02-25', 'still_open', NULL, NULL)$$,
    'where people went: from the last of several visits, lost only when the interval is over');
SELECT throws_ok($$SELECT crm.touchpoint_moves(NULL, '-1 day')$$, '22023', NULL, 'a negative interval');
SELECT throws_ok($$SELECT crm.touchpoint_moves(NULL, '0')$$, '22023', NULL, 'none');
SELECT throws_ok($$SELECT crm.touchpoint_moves(NULL, '101 years')$$, '22023', NULL, 'one without end');
SELECT throws_ok($$SELECT crm.touchpoint_moves(NULL, NULL)$$, '22004', NULL, 'and NULL');

-- the map
CREATE FUNCTION pg_temp.map() RETURNS jsonb LANGUAGE sql AS $$SELECT '{
    "map": "first_order", "label": "To the first order", "within": "30 days", "personas": ["shanghai", "buyer"],
    "goals": [{"name": "turnover", "on": "purchase", "when": "fact.amount > 10", "measure": "amount", "target": 100, "period": "90 days"},
              {"name": "orders", "on": "purchase", "measure": "facts", "target": 3, "period": "90 days"},
              {"name": "buyers", "rule": "orders > 0", "target": 2, "persona": "shanghai"},
              {"name": "carts", "touchpoint": "cart", "target": 0, "period": "1 year", "direction": "at_most"}],
    "stages": [{"name": "discover", "label": "发现", "touchpoints": ["poster", "follow"]}, {"name": "buy", "touchpoints": ["cart", "order"]}],
    "transitions": [{"from": "poster", "to": "follow", "label": "follows"}, {"from": "follow", "to": "cart"}, {"from": "cart", "to": "order"},
                    {"from": "follow", "to": "order"}]}'::jsonb$$;
SELECT is(crm.define_map(pg_temp.map()), 1, 'a map');
SELECT is(crm.define_map(crm.export_map('first_order')), 1, 'exported and defined again it is the same version');
SELECT is(crm.export_map('first_order'), pg_temp.map(), 'the document comes back');
SELECT is(crm.define_map(pg_temp.map() || '{"within": "1 day"}'), 2, 'a changed one is the next version');
SELECT is(crm.export_map('first_order', 1), pg_temp.map(), 'the first one stays');
SELECT throws_ok('UPDATE crm.map_version SET definition = ''{}''', '42501', NULL, 'versions are immutable');
SELECT results_eq($$SELECT stage, stage_place, touchpoint, label, place, goes_on FROM crm.map_outline WHERE is_current ORDER BY place$$,
    $$VALUES ('discover', 1, 'poster', 'Poster', 1, true), ('discover', 1, 'follow', 'follow', 2, true), ('buy', 2, 'cart', 'cart', 3, true), ('buy', 2, 'order', 'order', 4, false)$$, 'its outline');
SELECT results_eq($$SELECT from_touchpoint, to_touchpoint, state, label, place, contacts, transitions, share, median_seconds FROM crm.map_path('first_order', version => 1)$$,
    $$VALUES ('poster', 'follow', 'as_drawn', 'follows', 1, 1::bigint, 1::bigint, 1.0000, 86400::float8), ('poster', NULL, 'still_open', NULL, NULL, 1, 1, NULL, NULL),
             ('follow', 'cart', 'as_drawn', NULL, 2, 1, 1, 1.0000, 86400), ('follow', 'order', 'unseen', NULL, 4, 0, 0, NULL, NULL),
             ('cart', 'order', 'as_drawn', NULL, 3, 1, 1, 1.0000, 169200), ('order', NULL, 'ended', NULL, NULL, 2, 2, 1.0000, NULL)$$, 'paths against the map');
SELECT results_eq($$SELECT from_touchpoint, to_touchpoint, state FROM crm.map_path('first_order', '2025-01-03', '2025-01-05', version => 2) WHERE transitions > 0$$,
    $$VALUES ('cart', NULL, 'lost')$$, 'within a day nobody went on from the cart');
SELECT results_eq($$SELECT from_touchpoint, state FROM crm.map_path('first_order', persona => 'buyer', version => 1) WHERE to_touchpoint IS NULL$$,
    $$VALUES ('order', 'ended')$$, 'of a persona');

-- as text for other programs
SELECT is(crm.map_mermaid('first_order', version => 1), $$flowchart LR
    classDef high stroke:#2e7d32
    classDef low stroke:#c62828
    subgraph g1 ["发现"]
        t1["Poster<br/>2 visits, 0% lost<br/>score 1.93"]:::high
        t2["follow<br/>1 visit, 0% lost<br/>score 1.93"]:::high
    end
    subgraph g2 ["buy"]
        t3["cart<br/>2 visits, 0% lost<br/>score -0.13"]
        t4["order<br/>2 visits<br/>score 2.00"]:::high
    end
    t1 -->|"follows: 1, 1 d"| t2
    t2 -->|"1, 1 d"| t3
    t2 -.->|"0"| t4
    t3 -->|"1, 1 d 23 h"| t4
$$, 'Mermaid');
SELECT is(crm.map_dot('first_order', '2025-01-03', '2025-01-05', version => 1), $$digraph map {
    rankdir=LR;
    node [shape=box, style=rounded];
    subgraph cluster_1 {
        label="发现";
        t1 [label="Poster\n0 visits"];
        t2 [label="follow\n0 visits"];
    }
    subgraph cluster_2 {
        label="buy";
        t3 [label="cart\n2 visits, 0% lost\nscore -0.13"];
        t4 [label="order\n0 visits"];
    }
    t1 -> t2 [label="follows: 0", style=dotted];
    t2 -> t3 [label="0", style=dotted];
    t2 -> t4 [label="0", style=dotted];
    t3 -> t4 [label="1, 1 d 23 h"];
}
$$, 'DOT');
SELECT crm.define_map('{"map": "odd", "label": "x", "stages": [{"name": "a \"b\" \\ <i>", "touchpoints": ["spring", "greeting", "order"]}], "transitions": [{"from": "order", "to": "spring", "label": "]|`#"}]}');
SELECT ok(crm.map_dot('odd') ~ 'label="a \\"b\\" \\\\ <i>"', 'DOT: quotes and backslashes are escaped');
SELECT ok(crm.map_dot('odd') ~ 't1 -> t2 \[label="1, 2 d", style=dashed\]', 'what is not drawn is dashed');
SELECT ok(crm.map_mermaid('odd') ~ '"a #34;b#34; #92; #60;i#62;"' AND crm.map_mermaid('odd') ~ 't1 ==>\|"1, 2 d"\| t2' AND crm.map_mermaid('odd') ~ '"#93;#124;#96;#35;: 0"', 'and so in Mermaid');
SELECT throws_ok('SELECT crm.map_mermaid(''nix'')', '23503', NULL, 'an unknown map has no picture');

-- notes, emotions, complaints
SELECT is(crm.note_touchpoint('cart', -1, 'slow on old phones'), 1::bigint, 'a note');
SELECT is(crm.record_emotion(1, 'cart', -2, 'survey', 'answer 1', 0.5), 1::bigint, 'an emotion');
SELECT is(crm.record_emotion(1, 'cart', -2, 'survey', 'answer 1', 0.5), 1::bigint, 'a replay');
SELECT is(crm.record_emotion(3, 'poster', 2, 'associate', 'visit', at => '2025-02-26'), crm.record_emotion(3, 'poster', 2, 'associate', 'visit', at => '2025-02-26'), 'and with its time');
SELECT throws_ok($$SELECT crm.record_emotion(1, 'cart', -1, 'survey', 'answer 1', 0.5)$$, '23505', NULL, 'a source speaks once of an interaction');
SELECT throws_ok($$SELECT crm.record_emotion(3, 'poster', 2, 'associate', 'visit', at => '2025-02-27')$$, '23505', NULL, 'also of its time');
SELECT ok(crm.record_emotion(1, 'cart', 1, 'rule', 'answer 1', 0.5) > 2, 'another source of the same one');
SELECT throws_ok($$SELECT crm.record_emotion(1, 'cart', 3, 'rule', 'a')$$, '23514', NULL, 'too good');
SELECT throws_ok($$SELECT crm.record_emotion(1, 'cart', 'NaN', 'rule', 'a')$$, '23514', NULL, 'no number');
SELECT throws_ok($$SELECT crm.record_emotion(1, 'cart', 1, 'rule', 'a', 0)$$, '23514', NULL, 'without confidence');
SELECT throws_ok($$SELECT crm.record_emotion(1, 'cart', 1, 'me', 'a')$$, '23514', NULL, 'an unknown source');
SELECT throws_ok($$SELECT crm.record_emotion(1, 'nix', 1, 'rule', 'a')$$, '23503', NULL, 'an unknown touchpoint');
SELECT throws_ok($$SELECT crm.record_emotion(99, 'cart', 1, 'rule', 'a')$$, '23503', NULL, 'an unknown contact');
SELECT throws_ok($$SELECT crm.record_emotion(1, 'cart', NULL, 'rule', 'a')$$, '22004', NULL, 'NULL');
SELECT throws_ok($$SELECT crm.record_emotion(1, 'cart', 1, 'rule', 'a', at => 'infinity')$$, '22008', NULL, 'at no time');
SELECT throws_ok($$SELECT crm.note_touchpoint('cart', -3, 'x')$$, '23514', NULL, 'a note that moves too much');
SELECT throws_ok($$SELECT crm.note_touchpoint('cart', -1, '')$$, '23514', NULL, 'an empty one');
SELECT results_eq($$SELECT touchpoint, visits, contacts, went_on, lost, still_open, loss, delay, complaints, complaint_rate, notes, note_score, loss_part, delay_part,
                           complaint_part, note_part, score, peak, emotions, emotion FROM crm.map_touchpoint('first_order', version => 1)$$,
    $$VALUES ('poster', 2::bigint, 2::bigint, 1::bigint, 0::bigint, 1::bigint, 0.0000, 0.0333, 0::bigint, 0.0000, 0::bigint, NULL, 0.0000, -0.0666, 0.0000, NULL, 1.93, 'high', 1::bigint, 2.0000),
             ('follow', 1, 1, 1, 0, 0, 0.0000, 0.0333, 0, 0.0000, 0, NULL, 0.0000, -0.0666, 0.0000, NULL, 1.93, 'high', 0, NULL),
             ('cart', 2, 1, 1, 0, 0, 0.0000, 0.0653, 1, 0.5000, 1, -1.0000, 0.0000, -0.1306, -2.0000, -1.0000, -1.13, 'low', 2, -0.5000),
             ('order', 2, 2, 0, 2, 0, NULL, NULL, 0, 0.0000, 0, NULL, NULL, NULL, 0.0000, NULL, 2.00, 'high', 0, NULL)$$,
    'touchpoints: the score is 2 and its parts, nothing is lost where the map ends');
SELECT is(crm.define_map(pg_temp.map() || '{"weights": {"complaint": 0, "note": 2, "delay": 0}}'), 3, 'other weights');
SELECT results_eq($$SELECT complaint_part, note_part, delay_part, score FROM crm.map_touchpoint('first_order') WHERE touchpoint = 'cart'$$,
    $$VALUES (0.0000, -2.0000, 0.0000, 0.00)$$, 'weigh otherwise');
SELECT results_eq($$SELECT persona, touchpoint, source, emotions, mean, confidence FROM crm.map_emotion('first_order')$$,
    $$VALUES (NULL, 'poster', NULL, 1::bigint, 2.0000, 1.0000), (NULL, 'poster', 'associate', 1, 2.0000, 1.0000), (NULL, 'cart', NULL, 2, -0.5000, 0.5000),
             (NULL, 'cart', 'rule', 1, 1.0000, 0.5000), (NULL, 'cart', 'survey', 1, -2.0000, 0.5000), ('buyer', 'cart', NULL, 2, -0.5000, 0.5000),
             ('buyer', 'cart', 'rule', 1, 1.0000, 0.5000), ('buyer', 'cart', 'survey', 1, -2.0000, 0.5000), ('shanghai', 'cart', NULL, 2, -0.5000, 0.5000),
             ('shanghai', 'cart', 'rule', 1, 1.0000, 0.5000), ('shanghai', 'cart', 'survey', 1, -2.0000, 0.5000)$$, 'emotions by persona, touchpoint and source');

-- goals
SELECT results_eq($$SELECT goal, measure, persona, period_start, target, measured, direction, reached FROM crm.map_goal('first_order')$$,
    $$VALUES ('turnover', 'amount', NULL, '2024-12-01'::timestamptz, 100::numeric, 70::numeric, 'at_least', false), ('orders', 'facts', NULL, '2024-12-01', 3, 3, 'at_least', true),
             ('buyers', 'contacts', 'shanghai', NULL, 2, 2, 'at_least', true), ('carts', 'contacts', NULL, '2024-03-01', 0, 1, 'at_most', false)$$, 'goals, measured');
SELECT crm.purchase(2, 40, '2025-02-28', 'A-1');
SELECT crm.refund(2, 'A-1', 10, '2025-02-28 12:00', 'R-1');
SELECT results_eq($$SELECT goal, measured, reached FROM crm.map_goal('first_order') LIMIT 2$$,
    $$VALUES ('turnover', 100::numeric, true), ('orders', 4::numeric, true)$$, 'and measured again: less what was refunded');
SELECT results_eq($$SELECT goal, measured FROM crm.map_goal('first_order', '2025-01-06') LIMIT 2$$, $$VALUES ('turnover', 20::numeric), ('orders', 2::numeric)$$, 'as of another time');

-- every fault of a document at once
CREATE FUNCTION pg_temp.faults(document jsonb) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE said text;
BEGIN
	PERFORM crm.define_map(document);
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS said = PG_EXCEPTION_DETAIL;
	RETURN QUERY SELECT pg_catalog.regexp_replace(l, ' \(Known are.*', '') FROM pg_catalog.string_to_table(said, E'\n') AS l;
END $$;
SELECT results_eq($$SELECT * FROM pg_temp.faults('{"map": "", "stages": [{"name": "a", "touchpoints": ["poster", "poster", "nix", 3, "hotline"]}, {"name": "a"}, 7],
    "goals": [{"name": "g"}, {"name": "g", "rule": "nix > 1", "target": -1, "period": "1 day", "measure": "facts"}, {"name": "h", "on": "purchase", "when": "fact.x = 1", "target": "a"},
              {"name": "i", "on": "cart", "measure": "amount", "target": 1, "period": "-1 day", "direction": "up", "persona": "z"}],
    "transitions": [{"from": "poster", "to": "poster"}, {"from": "a"}], "personas": ["z", "buyer", "buyer"], "weights": {"los": 1, "note": -1}, "within": "0 days", "stagse": 1}')$$,
    $$VALUES ('map: is empty'), ('within: "0 days" is not above 0'), ('weights.note: -1 is below 0'), ('weights.los: unknown key; did you mean "loss"?'),
             ('personas[0]: persona "z" does not exist'), ('personas[2]: persona "buyer" comes twice'),
             ('goals[0]: needs one of rule, on and touchpoint: what is counted'), ('goals[0].target: is missing'), ('goals[1].name: goal "g" comes twice'),
             ('goals[1].rule: rule names unknown column "nix" at character 1'), ('goals[1].measure: a rule over the profile counts contacts only'),
             ('goals[1].target: -1 is below 0'), ('goals[1].period: does not go with a rule, which is asked of now'),
             ('goals[2].when: rule names unknown column "fact.x" at character 1'), ('goals[2].target: is a string, not a number'),
             ('goals[2].period: is missing: facts are counted over a period'), ('goals[3].measure: only facts on "purchase" have an amount'),
             ('goals[3].direction: "up" is not at_least or at_most'), ('goals[3].persona: persona "z" does not exist'), ('goals[3].period: "-1 day" is negative'),
             ('stages[0].touchpoints[1]: touchpoint "poster" stands on the map already'), ('stages[0].touchpoints[2]: touchpoint "nix" does not exist'),
             ('stages[0].touchpoints[3]: is a number, not a string'),
             ('stages[0].touchpoints[4]: touchpoint "hotline" is a complaint, which counts against the one before it'), ('stages[1].name: stage "a" comes twice'),
             ('stages[1].touchpoints: is missing'), ('stages[2]: is a number, not an object'), ('transitions[0]: leads from "poster" to itself'),
             ('transitions[1].from: touchpoint "a" stands in no stage of the map'), ('transitions[1].to: is missing'), ('stagse: unknown key; did you mean "stages"?')$$,
    'each fault with its place');
SELECT throws_ok('SELECT crm.define_map(NULL)', '22004', NULL, 'NULL is no map');
SELECT throws_ok('SELECT crm.define_map(''[]'')', '22023', 'definition of a map is an array, not an object', 'nor is an array');
SELECT throws_ok($$SELECT * FROM crm.map_path('nix')$$, '23503', 'map "nix" does not exist', 'an unknown map');
SELECT throws_ok($$SELECT * FROM crm.map_goal('first_order', version => 0)$$, '23503', 'map "first_order" has no version 0', 'an unknown version');
SELECT throws_ok($$SELECT * FROM crm.map_emotion(NULL)$$, '22004', NULL, 'no map');
SELECT throws_ok($$SELECT * FROM crm.map_touchpoint('first_order', persona => 'nix')$$, '23503', NULL, 'an unknown persona');
SELECT throws_ok($$SELECT * FROM crm.map_touchpoint('first_order', '2025-01-01', NULL)$$, '22004', NULL, 'half a period');

-- what a map names may go: it then counts nothing
DELETE FROM crm.touchpoint WHERE name = 'cart';
SELECT results_eq($$SELECT from_touchpoint, to_touchpoint, state FROM crm.map_path('first_order', version => 1) WHERE 'cart' IN (from_touchpoint, to_touchpoint)$$,
    $$VALUES ('follow', 'cart', 'unseen'), ('cart', 'order', 'unseen')$$, 'a touchpoint that is gone');
SELECT is((SELECT measured FROM crm.map_goal('first_order') WHERE goal = 'carts'), 0::numeric, 'also in a goal');
DELETE FROM crm.persona WHERE name = 'shanghai';
SELECT is((SELECT count(*) FROM crm.map_emotion('first_order') WHERE persona = 'shanghai'), 0::bigint, 'a persona that is gone');
ALTER TABLE crm.contact ADD COLUMN hobby text;
SELECT crm.install();
SELECT crm.define_persona('{"name": "gardener", "rule": "hobby = ''garden''"}');
SELECT crm.define_touchpoint('{"name": "garden", "on_kind": "follow", "rule": "hobby = ''garden''"}');
ALTER TABLE crm.contact DROP COLUMN hobby CASCADE;
SELECT crm.install();
SELECT is((SELECT members FROM crm.persona_size() WHERE persona = 'gardener'), NULL, 'a broken persona has no size');
SELECT is_empty($$SELECT * FROM crm.touchpoint_rows('{garden}')$$, 'nobody meets a broken touchpoint');
SELECT results_eq('SELECT check_name, contact_id, expected, found FROM crm.verify()',
    $$VALUES ('rule of persona gardener', NULL::bigint, 'a rule that compiles; crm.define_persona() saves another', 'rule names unknown column "hobby"'),
             ('rule of touchpoint garden', NULL, 'a rule that compiles; crm.define_touchpoint() saves another', 'rule names unknown column "hobby"'),
             ('map first_order at personas[0]', NULL, 'a document that fits; crm.define_map() saves another', 'persona "shanghai" does not exist'),
             ('map first_order at goals[2].persona', NULL, 'a document that fits; crm.define_map() saves another', 'persona "shanghai" does not exist'),
             ('map first_order at goals[3].touchpoint', NULL, 'a document that fits; crm.define_map() saves another', 'touchpoint "cart" does not exist'),
             ('map first_order at stages[1].touchpoints[0]', NULL, 'a document that fits; crm.define_map() saves another', 'touchpoint "cart" does not exist')$$,
    'verify() lists each, and what a map names that is gone');
SELECT crm.define_persona('{"name": "gardener", "rule": "city = ''garden''"}'), crm.define_persona('{"name": "shanghai", "rule": "city = ''Shanghai''"}'),
       crm.define_touchpoint('{"name": "garden", "on_kind": "follow"}'), crm.define_touchpoint('{"name": "cart", "on_kind": "page_view", "page": "pages/cart"}');

-- merged, emotions go to the survivor
SELECT crm.record_emotion(4, 'order', 1, 'survey', 'same'), crm.record_emotion(6, 'order', 2, 'survey', 'same'), crm.record_emotion(6, 'order', 2, 'survey', 'other');
SELECT crm.merge(4, 6, 'one person');
SELECT results_eq($$SELECT contact_id, interaction, score FROM crm.emotion WHERE touchpoint = 'order' ORDER BY 2$$, $$VALUES (4::bigint, 'other', 2::numeric), (4, 'same', 1)$$, 'merged');
SELECT is(crm.record_emotion(6, 'order', 2, 'survey', 'other'), (SELECT emotion_id FROM crm.emotion WHERE interaction = 'other'), 'a replay under the old id');
SELECT crm.unmerge(6);
SELECT results_eq($$SELECT contact_id, interaction, score FROM crm.emotion WHERE touchpoint = 'order' ORDER BY 2, 1$$,
    $$VALUES (6::bigint, 'other', 2::numeric), (4, 'same', 1), (6, 'same', 2)$$, 'and parted again');
SELECT is_empty('SELECT * FROM crm.verify()', 'all is sound');

SELECT * FROM finish();
ROLLBACK;
