-- What make demo shows. Run by psql in an empty database; :out is a folder for the files that it
-- writes, :fixtures the one of the data (default test/fixtures).
\set ON_ERROR_STOP on
\set QUIET on
\if :{?fixtures}
\else
\set fixtures test/fixtures
\endif
\setenv FIXTURES :fixtures
\setenv OUT :out
\pset pager off
\pset footer off
\pset null '-'
SET TimeZone = 'Asia/Shanghai';
SET client_min_messages = warning;

\echo
\echo '=== 1. Install ==='
\echo
\echo 'CREATE EXTENSION pg_crm;'
\echo 'SELECT crm.install();'
\echo
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
SELECT crm.version() AS version,
       count(*) FILTER (WHERE relkind IN ('r', 'p') AND NOT relispartition) AS tables,
       count(*) FILTER (WHERE relkind = 'v') AS views,
       (SELECT count(*) FROM crm.achievement) AS achievements, (SELECT count(*) FROM crm.stage) AS stages
  FROM pg_class WHERE relnamespace = 'crm'::regnamespace;

\echo '=== 2. Load: the orders of 2357 customers of CDNOW, 1997-01 to 1998-06, in one COPY ==='
\echo
-- the day after the last order is now, for this session
SET pg_crm.clock = '1998-07-01 00:00+08';
CREATE TEMP TABLE cdnow (place integer GENERATED ALWAYS AS IDENTITY, customer text, day date, cds integer, dollars numeric);
\copy cdnow (customer, day, cds, dollars) FROM PROGRAM 'gzip -dc "$FIXTURES/cdnow_sample.csv.gz"' CSV HEADER
-- each customer becomes a contact; in file order, so that every demo has the same ids
CREATE TEMP TABLE customer AS
SELECT m.external_id, m.contact_id
  FROM (SELECT array_agg(customer ORDER BY place) AS ids
          FROM (SELECT customer, min(place) AS place FROM cdnow GROUP BY customer) AS c) AS c,
       crm.identify_many('customer', c.ids) AS m;
\copy (SELECT c.contact_id, o.dollars, o.day::timestamp AT TIME ZONE 'Asia/Shanghai', to_char(o.place, 'FM00000') FROM cdnow AS o JOIN customer AS c ON c.external_id = o.customer ORDER BY o.place) TO PROGRAM 'cat > "$OUT/orders.tmp"'
SELECT clock_timestamp() AS started \gset
\copy crm.transaction (contact_id, amount, occurred_at, external_ref) FROM PROGRAM 'cat "$OUT/orders.tmp" && rm "$OUT/orders.tmp"'
SELECT count(*) AS orders, count(DISTINCT contact_id) AS customers,
       round(extract(epoch FROM clock_timestamp() - :'started') * 1000) || ' ms' AS "copy took",
       (SELECT count(*) FROM crm.award) AS awards, (SELECT count(*) FROM crm.stage_move) AS stage_moves
  FROM crm.transaction;
\echo 'Counted in the same statement as the orders came in (left), and known of this data (right):'
\echo
SELECT v.what, v.found, v.known, CASE WHEN v.found = v.known THEN 'equal' ELSE 'DIFFERENT' END AS " "
  FROM (SELECT count(*) FILTER (WHERE orders >= 1) AS o1, count(*) FILTER (WHERE orders >= 2) AS o2,
               count(*) FILTER (WHERE orders >= 5) AS o5, count(*) FILTER (WHERE orders >= 10) AS o10,
               sum(spend) AS spend
          FROM crm.profile_counter) AS p,
       (SELECT count(*) FILTER (WHERE threshold = 100) AS s100, count(*) FILTER (WHERE threshold = 500) AS s500,
               count(*) FILTER (WHERE threshold = 1000) AS s1000, count(*) FILTER (WHERE threshold = 5000) AS s5000
          FROM crm.award WHERE achievement = 'spend_milestone' AND revoked_at IS NULL) AS a,
       (SELECT sum(contacts) FILTER (WHERE stage = 'paying') AS paying,
               sum(contacts) FILTER (WHERE stage = 'loyal') AS loyal
          FROM crm.lifecycle_funnel) AS l,
       LATERAL (VALUES ('customers with an order', p.o1, 2357), ('with 2 or more', p.o2, 1152),
                       ('with 5 or more', p.o5, 388), ('with 10 or more', p.o10, 111),
                       ('spend', p.spend, 244091.94), ('spent 100 or more', a.s100, 615),
                       ('500 or more', a.s500, 76), ('1000 or more', a.s1000, 20),
                       ('5000 or more', a.s5000, 1), ('stage paying', l.paying, 1969),
                       ('stage loyal', l.loyal, 388)) AS v(what, found, known);

\echo '=== 3. One of them: customer 08496, as text and as a picture ==='
\echo
SELECT contact_id AS picked FROM crm.identity WHERE kind = 'customer' AND external_id = '08496' \gset
SELECT to_char(occurred_at, 'YYYY-MM-DD') AS day,
       string_agg(CASE kind WHEN 'purchase' THEN 'order ' || (detail->>'amount')
                            WHEN 'award' THEN (detail->>'achievement')
                                 || CASE WHEN detail->>'achievement' LIKE '%milestone' THEN ' ' || (detail->>'threshold') ELSE '' END
                            ELSE 'becomes ' || (detail->>'stage') END, ', '
                  ORDER BY source_table DESC, source_id, (detail->>'threshold')::numeric) AS "what happened (orders, stages, awards)"
  FROM crm.contact_timeline WHERE contact_id = :picked
 GROUP BY 1 HAVING bool_or(kind <> 'purchase') ORDER BY 1;
\pset format unaligned
\pset tuples_only on
\set file :out '/timeline_cdnow.svg'
SELECT crm.timeline_svg(:picked) \g :file
\pset tuples_only off
\pset format aligned

\echo '=== 4. A story: Mr Wang, whom a shop knows by his mobile, meets the brand on WeChat ==='
\echo
INSERT INTO crm.account (kind, name) VALUES ('official_account', 'maison');
INSERT INTO crm.store (name) VALUES ('Nanjing Road');
INSERT INTO crm.qr_code (account_id, store_id, scene, campaign)
SELECT a.account_id, s.store_id, 'banner', 'spring' FROM crm.account AS a, crm.store AS s;
INSERT INTO crm.loyalty_program (name) VALUES ('club');
\echo '05-01 09:00  the shop writes down a mobile     identify(''mobile'', ''138 0013 8000'')'
\echo '05-03 14:00  a WeChat user scans the banner     follow(''maison'', ''o_wang'', scene => ''banner'')'
\echo '05-03 14:05  and replies with that mobile      bind_mobile(...): two contacts become one'
\echo '05-10 11:00  buys for 30                       purchase(...)'
\echo '05-10 11:02  joins the club                    join_loyalty(...)'
\echo '06-02 16:00  buys for 40                       purchase(...)'
\echo
SET pg_crm.clock = '2024-05-01 09:00+08';
SELECT crm.identify('mobile', '138 0013 8000') AS shop_contact \gset
SET pg_crm.clock = '2024-06-08 12:00+08';
SELECT crm.follow('maison', 'o_wang', '2024-05-03 14:00+08', scene => 'banner') AS wechat_contact \gset
SELECT crm.bind_mobile(:wechat_contact, '13800138000', '2024-05-03 14:05+08') AS wang \gset
SELECT crm.purchase(:wang, 30, '2024-05-10 11:00+08', 'A-1001') \g /dev/null
SELECT crm.join_loyalty(:wang, 'club', '2024-05-10 11:02+08') \g /dev/null
SELECT crm.purchase(:wang, 40, '2024-06-02 16:00+08', 'A-1002') \g /dev/null
\echo 'His six awards (crm.achievement_timeline):'
\echo
SELECT achievement, to_char(awarded_at, 'YYYY-MM-DD HH24:MI') AS awarded_at
  FROM crm.achievement_timeline WHERE contact_id = :wang AND awarded_at IS NOT NULL
 ORDER BY achievement_timeline.awarded_at, achievement;
\echo 'His stages (crm.stage_history):'
\echo
SELECT stage, to_char(since, 'YYYY-MM-DD HH24:MI') AS since, to_char(until, 'YYYY-MM-DD HH24:MI') AS until
  FROM crm.stage_history WHERE contact_id = :wang ORDER BY stage_history.since;
\pset format unaligned
\pset tuples_only on
\set file :out '/timeline_story.svg'
SELECT crm.timeline_svg(:wang) \g :file
\pset tuples_only off
\pset format aligned

\echo 'Ms Li bought twice in the shop, long ago. On WeChat she binds her mobile: that history is hers'
\echo 'at once, unchanged, and the order that follows is her third, without an award.'
\echo
SELECT crm.identify('mobile', '139 0013 9000') AS li_shop \gset
SELECT crm.purchase(:li_shop, 10, '2022-10-01 10:00+08', 'B-1'), crm.purchase(:li_shop, 10, '2023-01-15 10:00+08', 'B-2') \g /dev/null
SELECT crm.bind_mobile(crm.follow('maison', 'o_li', '2024-06-07 10:00+08'), '13900139000', '2024-06-07 10:01+08') AS li \gset
SELECT crm.purchase(:li, 25, '2024-06-08 10:00+08', 'B-3') \g /dev/null
SELECT achievement, to_char(awarded_at, 'YYYY-MM-DD HH24:MI') AS awarded_at
  FROM crm.achievement_timeline WHERE contact_id = :li AND awarded_at IS NOT NULL
 ORDER BY achievement_timeline.awarded_at, achievement;

RESET pg_crm.clock;
\echo '=== 5. The same, live: what the journeys of the brand say is queued with the fact and sent at once ==='
\echo
\ir story_setup.sql
\ir story.sql
\echo
\echo 'Every message, and what became of it (crm.message):'
\echo
SELECT template, state, round(1000 * extract(epoch FROM sent_at - recorded_at), 1) || ' ms' AS "after"
  FROM crm.message ORDER BY message_id;

\echo '=== 6. Everybody: the lifecycle now (crm.lifecycle_funnel), and the proof ==='
\echo
SELECT stage, rank, contacts, repeat('#', ceil(40.0 * contacts / sum(contacts) OVER ())::integer) AS " "
  FROM crm.lifecycle_funnel ORDER BY lifecycle_funnel.rank;
SELECT count(*) AS differences FROM crm.verify() \gset
\echo 'crm.verify() recomputes all of it from the facts. Differences found:' :differences
\echo
\echo '=== 7. What analysts ask: who comes back, and a page for the board ==='
\echo
\echo 'Of those who first bought in early 1997, who bought again within 90 days (crm.fact_funnel):'
\echo
SELECT name AS "order", reached AS contacts, repeat('#', ceil(40.0 * reached / max(reached) OVER ())::integer) AS " ",
       round(median_seconds / 86400) AS "days to the next"
  FROM crm.fact_funnel('[{"on": "purchase", "name": "first"}, {"on": "purchase", "name": "second"}, {"on": "purchase", "name": "third"}]',
                       '90 days', '1997-01-01', '1997-04-01')
 ORDER BY step;
\echo 'and in which months they were back (crm.cohort):'
\echo
SELECT to_char(cohort_start, 'YYYY-MM') AS "first order", contacts, round(100 * max(share) FILTER (WHERE unit_offset = 1), 1) AS "a month on, %",
       round(100 * max(share) FILTER (WHERE unit_offset = 6), 1) AS "half a year on, %", round(100 * max(share) FILTER (WHERE unit_offset = 12), 1) AS "a year on, %"
  FROM crm.cohort('purchase', 'purchase', '1997-01-01', '1997-04-01', 'month', 13)
 GROUP BY cohort_start, contacts ORDER BY cohort_start;
\pset format unaligned
\pset tuples_only on
\set file :out '/report_1998.html'
SELECT crm.report_html('1998-01-01', '1998-07-01', title => 'CDNOW, the first half of 1998') \g :file
\pset tuples_only off
\pset format aligned
\echo 'The first half of 1998 as one page with figures, tables and pictures (crm.report_html), for any browser:'
\echo '    ':file
\echo
\echo 'To go on:'
\echo '    SELECT * FROM crm.contact_timeline WHERE contact_id = ':wang' ORDER BY occurred_at;'
\echo '    SELECT * FROM crm.profile WHERE contact_id = ':wang';'
\echo '    SELECT crm.refund(':wang', ''A-1002'', 40);       -- and look at the awards again'
