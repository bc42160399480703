-- time in stages and where contacts go: against plain counts of stage_move, and by hand
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install();
SET search_path = public, pg_catalog;
SET TimeZone = 'UTC';
SET pg_crm.clock = '2024-06-30 20:00+08';
SELECT no_plan();

SELECT results_eq($$SELECT stage, stays, contacts, moved_on, still_there, median_seconds FROM crm.time_in_stage('2024-01-01', '2024-07-01') LIMIT 2$$,
    $$VALUES ('user', 0::bigint, 0::bigint, 0::bigint, 0::bigint, NULL::float8), ('lead', 0, 0, 0, 0, NULL)$$, 'every stage, also where nobody was');
SELECT is_empty($$SELECT * FROM crm.stage_conversion('2024-01-01', '2024-07-01')$$, 'nobody went anywhere');

-- 60 people who order at any hour of half a year, every fourth of whom pays some back, so that stages fall nowhere but change
INSERT INTO crm.account (account_id, kind, name) VALUES (1, 'official_account', 'maison');
INSERT INTO crm.contact (contact_id, created_at)
SELECT n, '2024-01-01 00:00+08'::timestamptz + n * interval '37 hours' FROM generate_series(1, 60) AS n;
INSERT INTO crm.event (contact_id, kind, occurred_at, account_id)
SELECT n, CASE k WHEN 1 THEN 'unfollow' ELSE 'follow' END, '2024-02-01 00:00+08'::timestamptz + (n * 7 + k * 331) * interval '1 hour', 1
  FROM generate_series(1, 60) AS n, generate_series(0, 2) AS k WHERE n % 3 = k OR n % 5 = 0;
INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref)
SELECT n, 20 + n + k, '2024-03-01 00:00+08'::timestamptz + (n * 13 + k * 191) * interval '1 hour', k
  FROM generate_series(1, 40) AS n, generate_series(1, 8) AS k WHERE k <= n % 9;
SELECT crm.set_stage(n, 'other', 'by hand') FROM generate_series(50, 55) AS n \g /dev/null

-- slowly: the stay after each, found for each
CREATE TEMP TABLE stay AS
SELECT m.contact_id, m.stage, m.since, (SELECT min(n.since) FROM crm.stage_move n WHERE n.contact_id = m.contact_id AND n.since > m.since) AS until
  FROM crm.stage_move m;
ALTER TABLE stay ADD next_stage text;
UPDATE stay s SET next_stage = m.stage FROM crm.stage_move m WHERE m.contact_id = s.contact_id AND m.since = s.until;
CREATE TEMP TABLE period (period_start timestamptz, period_end timestamptz);
INSERT INTO period VALUES ('2024-01-01', '2024-07-01'), ('2024-03-01', '2024-04-01'), ('2024-03-05 13:00', '2024-03-05 14:00'),
    ('2024-04-01', '2024-04-01'), ((SELECT min(until) FROM stay), (SELECT max(since) FROM stay)), ('2000-01-01', '2001-01-01');
SELECT set_eq(
    format('SELECT * FROM crm.time_in_stage(%L, %L)', period_start, period_end),
    format($$SELECT g.stage, g.rank, count(s.stage) AS a, count(DISTINCT s.contact_id) AS b, count(s.until) AS c, count(s.stage) FILTER (WHERE s.until IS NULL) AS d,
               percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM s.until - s.since)::float8) AS e,
               percentile_cont(0.9) WITHIN GROUP (ORDER BY extract(epoch FROM s.until - s.since)::float8) AS f
          FROM crm.stage g LEFT JOIN stay s ON s.stage = g.stage AND s.since >= %L AND s.since < %L GROUP BY 1, 2$$, period_start, period_end),
    format('time in stages, %s to %s', period_start, period_end)) FROM period;
SELECT set_eq(
    format('SELECT from_stage, to_stage, stays, contacts, median_seconds FROM crm.stage_conversion(%L, %L)', period_start, period_end),
    format($$SELECT stage, CASE WHEN until < %2$L THEN next_stage END AS went, count(*) AS a, count(DISTINCT contact_id) AS b,
                    percentile_cont(0.5) WITHIN GROUP (ORDER BY CASE WHEN until < %2$L THEN extract(epoch FROM until - since)::float8 END)
               FROM stay WHERE since < %2$L AND (until IS NULL OR until >= %1$L) GROUP BY 1, 2$$, period_start, period_end),
    format('where they went, %s to %s', period_start, period_end)) FROM period;
SELECT set_eq(
    format('SELECT from_stage, to_stage, stays FROM crm.stage_conversion(%L, %L)', period_start, period_end),
    format('SELECT from_stage, to_stage, count(*) FROM crm.stage_conversion_rows(%L, %L) GROUP BY 1, 2', period_start, period_end),
    'each number is that of its rows') FROM period;
SELECT is((SELECT sum(stays) FROM crm.stage_conversion(period_start, period_end) WHERE to_stage IS NOT NULL),
    (SELECT nullif(count(*), 0)::numeric FROM crm.stage_move m WHERE m.since >= period_start AND m.since < period_end
        AND EXISTS (SELECT FROM crm.stage_move b WHERE b.contact_id = m.contact_id AND b.since < m.since)),
    format('all moves, %s to %s', period_start, period_end)) FROM period;
SELECT is((SELECT sum(stays) FROM crm.time_in_stage('2024-01-01', '2024-07-01')), (SELECT count(*)::numeric FROM crm.stage_history), 'over all time: the rows of stage_history');
SELECT set_eq($$SELECT stage, still_there FROM crm.time_in_stage('2023-01-01', '2025-01-01')$$, 'SELECT stage, contacts FROM crm.lifecycle_funnel', 'who is still there is the funnel');
SELECT is_empty($$SELECT from_stage FROM crm.stage_conversion('2024-01-01', '2024-07-01') GROUP BY 1 HAVING abs(sum(share) - 1) > 0.0005$$, 'the shares of a stage are one');

-- a stage that was deleted keeps its stays
ALTER TABLE crm.stage DISABLE TRIGGER USER;
DELETE FROM crm.stage WHERE stage = 'other';
ALTER TABLE crm.stage ENABLE TRIGGER USER;
SELECT is((SELECT stays FROM crm.time_in_stage('2024-06-01', '2024-07-01') WHERE stage = 'other'), 6::bigint, 'a deleted stage');

SELECT throws_ok($$SELECT * FROM crm.time_in_stage('2024-02-01', '2024-01-01')$$, '22023', NULL, 'a reversed period');
SELECT throws_ok($$SELECT * FROM crm.stage_conversion('2024-02-01', 'infinity')$$, '22008', NULL, 'an infinite one');
SELECT throws_ok($$SELECT * FROM crm.stage_conversion_rows(NULL, '2024-01-01')$$, '22004', 'argument "period_start" of crm.stage_conversion_rows() must not be NULL', 'none');
CREATE ROLE crm_test_analyst;
SELECT crm.grant_access('crm_test_analyst', 'analyst') \g /dev/null
SET ROLE crm_test_analyst;
SELECT isnt_empty($$SELECT * FROM crm.stage_conversion('2024-01-01', '2024-07-01')$$, 'an analyst may');
SELECT isnt_empty($$SELECT * FROM crm.stage_conversion_rows('2024-01-01', '2024-07-01')$$, 'and sees the rows');
RESET ROLE;
SELECT * FROM finish();
ROLLBACK;
