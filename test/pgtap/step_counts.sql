-- steps counted by day: against the rows, as they are entered, left, ended, merged, parted, rolled up and dropped
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SELECT crm.install();
SET TimeZone = 'UTC';
SET pg_crm.clock = '2024-01-10 10:00Z';
SELECT no_plan();
SELECT crm.keep_roll_ups();

INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2024-01-01' FROM generate_series(1, 30) AS n;
SELECT crm.publish_journey('{"journey": "tale", "entry": [{"on": "cart"}], "exit": {"on": "purchase", "when": "spend > 100"}, "start": "pause", "steps": {
    "pause": {"kind": "wait", "for": "3 days", "next": "arm"},
    "arm": {"kind": "split", "arms": {"a": {"weight": 1, "next": "rest"}, "b": {"weight": 1, "next": null}}},
    "rest": {"kind": "wait_for", "on": "order", "within": "20 days", "next": "end", "on_timeout": "end"},
    "end": {"kind": "exit"}}}');

PREPARE counted AS SELECT day, journey, version, step, state, outcome, next_step, visits FROM crm.visit_count;
PREPARE exact AS SELECT day, journey, version, step, state, outcome, next_step, sum(visits)::bigint AS visits FROM crm.visit_exact GROUP BY 1, 2, 3, 4, 5, 6, 7;
PREPARE moves AS SELECT step, outcome, next_step, moves FROM crm.journey_edge WHERE moves > 0;
PREPARE counted_moves AS SELECT step, outcome, next_step, sum(visits)::bigint AS moves FROM crm.visit_count WHERE state = 'left' GROUP BY 1, 2, 3;
PREPARE reported AS SELECT journey, version, step, entered, here, left_on, ended, drop_off FROM crm.step_report('2024-01-01', '2025-01-01');
PREPARE steps AS SELECT journey, version, step, entered, here, left_on, ended, drop_off FROM crm.journey_step WHERE entered > 0;
SELECT set_eq('counted', 'EXECUTE exact', 'nobody has entered a step');

SELECT crm.track(n, 'cart') FROM generate_series(1, 25) AS n;
SELECT results_eq('SELECT step, state, visits FROM crm.visit_count', $$VALUES ('pause', 'here', 25::bigint)$$, 'steps entered');
SET pg_crm.clock = '2024-01-14 10:00Z';
SELECT crm.tick();
SELECT set_eq('counted', 'EXECUTE exact', 'left by time');
SELECT crm.roll_up();
SELECT set_eq('counted', 'EXECUTE exact', 'rolled up');
SELECT crm.purchase(n, 200) FROM generate_series(1, 6) AS n;
SELECT crm.unenrol(7, 'tale', 'asked');
SELECT crm.track(n, 'order') FROM generate_series(8, 12) AS n;
SELECT set_eq('counted', 'EXECUTE exact', 'ended by a rule and by hand, left by a fact');
SELECT cmp_ok((SELECT count(*) FROM crm.visit_count WHERE state = 'ended'), '>', 0::bigint, 'some ended');

-- of two enrolments of one person one ends
SELECT crm.track(n, 'cart') FROM generate_series(26, 27) AS n;
SELECT crm.merge(26, 27);
SELECT is((SELECT visits FROM crm.visit_count WHERE outcome = 'merged'), 1::bigint, 'a merge ends one');
SELECT set_eq('counted', 'EXECUTE exact', 'which is counted');
SELECT crm.unmerge(27);
SELECT set_eq('counted', 'EXECUTE exact', 'and taken back');
SELECT is_empty($$SELECT FROM crm.visit_count WHERE outcome = 'merged'$$, 'without a trace');

SET pg_crm.clock = '2024-02-20 10:00Z';
SELECT crm.tick();
SELECT set_eq('counted', 'EXECUTE exact', 'time passes');
SELECT set_eq('counted_moves', 'EXECUTE moves', 'moves are those of journey_edge');
SELECT set_eq('reported', 'EXECUTE steps', 'the report is that of journey_step');
SELECT is_empty('SELECT * FROM crm.verify()', 'verify() agrees');

-- months go
CREATE TEMP TABLE before AS SELECT journey, step, entered, here, left_on, ended, drop_off FROM crm.journey_step;
CREATE TEMP TABLE before_edges AS SELECT * FROM crm.journey_edge;
CREATE TEMP TABLE before_counts AS SELECT * FROM crm.visit_count;
SET pg_crm.clock = '2024-06-20 10:00Z';
SELECT crm.tick();
UPDATE crm.retention SET keep = '1 month' WHERE name = 'step_visit';
SELECT crm.maintain_partitions();
SELECT is((SELECT count(crm.enforce_retention()) FROM generate_series(1, 5)), 2::bigint, 'two months go');
SELECT cmp_ok((SELECT dropped FROM crm.retention_horizon WHERE name = 'step_visit'), '>', 50::bigint, 'with most of their rows');
SELECT set_eq('SELECT journey, step, entered, here, left_on, ended, drop_off FROM crm.journey_step', 'SELECT * FROM before', 'journey_step is what it was');
SELECT set_eq('SELECT * FROM crm.journey_edge', 'SELECT * FROM before_edges', 'so is journey_edge');
SELECT set_eq('SELECT * FROM crm.visit_count', 'SELECT * FROM before_counts', 'so are the counts');
SELECT set_eq('counted', 'EXECUTE exact', 'which are exact');
SELECT crm.roll_up(true);
SELECT set_eq('counted', 'EXECUTE exact', 'counted anew too');
SELECT is_empty('SELECT * FROM crm.verify()', 'all is sound');

-- to SQL CET is an abbreviation, without summer time
SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = 'CET') AS has_cet \gset
\if :has_cet
SET pg_crm.time_zone = 'CET';
SELECT crm.roll_up();
SET pg_crm.clock = '2024-07-01 22:30Z';
SELECT crm.track(28, 'cart');
SELECT results_eq($$SELECT day FROM crm.visit_count WHERE step = 'pause' AND state = 'here'$$, $$VALUES ('2024-07-01'::date)$$, 'a step in a summer night');
SELECT set_eq('counted', 'EXECUTE exact', 'is counted on the day that the rows have');
SELECT is_empty('SELECT * FROM crm.verify()', 'and so is the fact');
RESET pg_crm.time_zone;
\else
SELECT skip('the time zones of this machine have no CET', 3);
\endif

SELECT throws_ok($$SELECT * FROM crm.step_report('2024-02-01', '2024-01-01')$$, '22023', NULL, 'a reversed period');
SELECT throws_ok($$SELECT * FROM crm.step_report('2024-01-01', '2024-02-01', 'no such')$$, '23503', 'journey "no such" does not exist', 'a journey that is not known');
SELECT * FROM finish();
ROLLBACK;
