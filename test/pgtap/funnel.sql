-- crm.funnel(): what counts as a level, what is refused, and states that nobody's rows made
BEGIN;
SET client_min_messages = warning;
CREATE EXTENSION pg_crm;
SET search_path = public, pg_catalog;
SET timezone = 'America/New_York';
SELECT no_plan();

-- 'a@5 bc@7': rows that match these steps, at seconds of a minute
CREATE FUNCTION pg_temp.level(story text, within interval, OUT level integer, OUT times integer[]) LANGUAGE sql AS $$
SELECT crm.funnel(within, at, k ~ 'a', k ~ 'b', k ~ 'c', k ~ 'd'),
       ARRAY(SELECT extract(second FROM t)::integer FROM unnest(crm.funnel_times(within, at, k ~ 'a', k ~ 'b', k ~ 'c', k ~ 'd')) AS t)
  FROM (SELECT split_part(r, '@', 1) AS k, '2024-05-01 12:00'::timestamptz + split_part(r, '@', 2)::integer * interval '1 second' AS at
          FROM regexp_split_to_table(story, ' ') AS r) AS rows
$$;
SELECT is((pg_temp.level(story, within))::text, expected, story || ' in ' || within || ': ' || why)
  FROM (VALUES
    ('a@1 b@2 c@3 d@4', '3 s'::interval, '(4,"{1,2,3,4}")', 'the last moment of the window counts'),
    ('a@1 b@2 c@3 d@5', '3 s', '(3,"{1,2,3}")', 'the moment after it does not'),
    ('a@1 b@2 a@3 c@4 d@5', '3 s', '(3,"{1,2,4}")', 'a new first row does not forget the old one'),
    ('a@1 a@3 b@4 c@5 d@6', '3 s', '(4,"{3,4,5,6}")', 'any row may be the first'),
    ('a@1 b@2 a@4 b@5 c@6', '2 s', '(3,"{4,5,6}")', 'and a later one may come further'),
    ('b@1 a@2 c@3', '9 s', '(1,{2})', 'no step is left out'),
    ('a@1 x@2 d@3 b@4 x@5 c@6', '9 s', '(3,"{1,4,6}")', 'others in between do not matter'),
    ('ab@1', '9 s', '(1,{1})', 'a row serves one step'),
    ('ab@1 ab@2', '9 s', '(2,"{1,2}")', 'two rows serve two'),
    ('abc@1 abc@2 abc@3', '9 s', '(3,"{1,2,3}")', 'three serve three'),
    ('c@1 b@1 a@1', '0 s', '(3,"{1,1,1}")', 'rows of one time in any order'),
    ('ab@1 ab@1 c@1', '0 s', '(3,"{1,1,1}")', 'of one time and of several steps'),
    ('abc@1 a@1 a@1', '0 s', '(2,"{1,1}")', 'but only as many as have rows'),
    ('bc@1 b@1 a@1', '0 s', '(3,"{1,1,1}")', 'a step gives its row up for another'),
    ('a@1 bc@2 bc@2 cd@2', '1 s', '(4,"{1,2,2,2}")', 'after an earlier first row'),
    ('a@1 bcd@2 bc@2', '1 s', '(3,"{1,2,2}")', 'with one row too few'),
    ('a@1 ab@2', '9 s', '(2,"{1,2}")', 'a row is second though it could be first'),
    ('x@1 y@2', '9 s', '(0,{})', 'nothing matches')
  ) AS v(story, within, expected, why);

SELECT is(crm.funnel('1 day', at, true), 0, 'no row is level 0') FROM (SELECT now() AS at WHERE false) AS r;
SELECT is(crm.funnel('1 day', at, s1, s2), 1, 'NULL steps are false, NULL times are no rows')
  FROM (VALUES ('2024-05-01'::timestamptz, true, NULL::boolean), ('2024-05-01', NULL, NULL), (NULL, NULL, true)) AS v(at, s1, s2);
SELECT is(crm.funnel('1 day', at, true, true), 2, 'infinite times are in order too')
  FROM (VALUES ('-infinity'::timestamptz), ('-infinity'), ('infinity')) AS v(at);
SELECT is(crm.funnel('200000 years', at, k = 1, k = 2), 2, 'a window may end after all times')
  FROM (VALUES ('200000-05-01'::timestamptz, 1), ('290000-05-01', 2)) AS v(at, k);

-- calendars: the change to summer time is on 10 March
SELECT is(crm.funnel(within, first, true, false) * 10 + crm.funnel(within, at, at = first, at > first), 10 + levels, within || ' from ' || first || ' to ' || second)
  FROM (VALUES ('1 day'::interval, '2024-03-09 12:00'::timestamptz, '2024-03-10 12:00'::timestamptz, 2),
               ('1 day', '2024-03-09 12:00', '2024-03-10 12:00:01', 1),
               ('24 hours', '2024-03-09 12:00', '2024-03-10 13:00', 2),
               ('24 hours', '2024-03-09 12:00', '2024-03-10 13:00:01', 1),
               ('1 day', '2024-11-02 12:00', '2024-11-03 12:00', 2),
               ('1 day', '2024-07-02 12:00', '2024-07-03 12:00', 2),
               ('1 day', '2024-07-02 12:00', '2024-07-03 12:00:01', 1),
               ('1 month', '2024-01-31 12:00', '2024-02-29 12:00', 2),
               ('1 month', '2024-01-31 12:00', '2024-02-29 12:00:01', 1),
               ('1 month -1 day', '2024-04-15 12:00', '2024-05-14 12:00', 2),
               ('1 day -1 hour', '2024-04-15 12:00', '2024-04-16 11:00:01', 1)) AS v(within, first, second, levels)
 CROSS JOIN LATERAL (VALUES (first), (second)) AS r(at) GROUP BY within, first, second, levels;
SELECT is(crm.funnel('1 month', at, k = 1, k = 2), 2, 'the later entry may have the window that ends first')
  FROM (VALUES ('2024-01-30 23:00'::timestamptz, 1), ('2024-01-31 01:00', 1), ('2024-02-29 22:00', 2)) AS v(at, k);

-- sixty-four steps, many rows
SELECT is(crm.funnel('63 s', '2024-05-01'::timestamptz + n * interval '1 s', VARIADIC ARRAY(SELECT i = n FROM generate_series(0, 63) AS i)), 64, '64 steps')
  FROM generate_series(0, 63) AS n;
SELECT is(crm.funnel('0', '2024-05-01'::timestamptz, VARIADIC ARRAY(SELECT i <= n FROM generate_series(0, 63) AS i ORDER BY i)), 64, '64 rows of one time, each with one step more')
  FROM generate_series(0, 63) AS n;
SELECT is(crm.funnel('0', '2024-05-01'::timestamptz, VARIADIC ARRAY(SELECT i <= n FROM generate_series(0, 63) AS i ORDER BY i)), 63, 'one of them missing')
  FROM generate_series(0, 63) AS n WHERE n <> 63;
SELECT is(crm.funnel('0', '2024-05-01'::timestamptz, VARIADIC array_fill(true, ARRAY[64])), 64, '200 000 rows of one time that match all')
  FROM generate_series(1, 200000);
CREATE AGGREGATE pg_temp.gather(interval, timestamptz, VARIADIC boolean[]) (SFUNC = crm.funnel_add, STYPE = crm.funnel_state);
SELECT cmp_ok(pg_column_size(pg_temp.gather('1 s', '2024-05-01'::timestamptz + n % 10 * interval '1 s', true, n % 2 = 0)), '<', 40000, 'equal rows take no room')
  FROM generate_series(1, 200000) AS n;
SELECT is(crm.funnel('10 s', '2024-05-01'::timestamptz - n * interval '1 s', n = 900, n = 895, n = 5), 2, 'rows from the last to the first')
  FROM generate_series(1, 100000) AS n;

-- a level that grows with the rows
SELECT is(array_agg(level ORDER BY at), ARRAY[1, 1, 2, 3, 3], 'over a window of rows')
  FROM (SELECT at, crm.funnel('9 s', '2024-05-01'::timestamptz + at * interval '1 s', k = 'a', k = 'b', k = 'c') OVER (ORDER BY at) AS level
          FROM (VALUES (1, 'a'), (2, 'x'), (3, 'b'), (4, 'c'), (5, 'a')) AS v(at, k)) AS w;

-- refused
SELECT throws_ok(sql, state, message, sql)
  FROM (VALUES
    ('SELECT crm.funnel(''-1 s'', now(), true)', '22023', 'the window of a funnel must not be negative: -00:00:01'),
    ('SELECT crm.funnel(''1 day -25 hours'', NULL, true)', '22023', 'the window of a funnel must not be negative: 1 day -25:00:00'),
    ('SELECT crm.funnel(NULL, now(), true)', '22004', 'the window of a funnel must not be NULL'),
    ('SELECT crm.funnel(''1 s'', now(), VARIADIC NULL)', '22004', 'the list of steps of a funnel must not be NULL'),
    ('SELECT crm.funnel(''1 s'', now(), VARIADIC ''{}'')', '22023', 'a funnel has 1 to 64 steps, not 0'),
    ('SELECT crm.funnel(''1 s'', now(), VARIADIC array_fill(false, ARRAY[65]))', '22023', 'a funnel has 1 to 64 steps, not 65'),
    ('SELECT crm.funnel(''1 s'', now(), VARIADIC ''{{t},{f}}'')', '2202E', 'the steps of a funnel are an array of 2 dimensions'),
    ('SELECT crm.funnel(n * interval ''1 s'', now(), true) FROM generate_series(1, 2) AS n', '22023', 'a funnel has windows of 00:00:01 and of 00:00:02'),
    ('SELECT crm.funnel(''1 s'', now(), VARIADIC array_fill(true, ARRAY[n])) FROM generate_series(1, 2) AS n', '22023', 'a funnel of 1 steps has a row with 2'),
    ('SELECT crm.funnel_merge(''2 0 0 1 1:1'', ''2 0 0 2 1:1'')', '22023', 'a funnel has windows of 00:00:00.000001 and of 00:00:00.000002'),
    ('SELECT crm.funnel_merge(''2 0 0 1 1:1'', ''3 0 0 1 1:1'')', '22023', 'a funnel of 2 steps has a row with 3')
  ) AS v(sql, state, message);

-- states by hand
SELECT is('2 1 -3 9223372036854775807 9:3 -5:1'::crm.funnel_state::text, '2 1 -3 9223372036854775807 9:3 -5:1', 'a state is its text');
SELECT is(crm.funnel_level('2 0 0 1000000 1000009:2 5:1 9:1'), 2, 'its rows have no order');
SELECT is(crm.funnel_level(crm.funnel_merge(NULL, '2 0 0 9 1:1')), 1, 'joined with none');
SELECT is(crm.funnel_level(crm.funnel_merge('2 0 0 9 1:1', NULL)), 1, 'none joined');
SELECT is(crm.funnel_level(crm.funnel_merge(NULL, NULL)), 0, 'none at all');
SELECT is(crm.funnel_reached(NULL), '{}', 'no times of none');
SELECT is((crm.funnel_add(s, '9 microseconds', '2000-01-01 UTC', true, false))::text || ', ' || s::text, '2 0 0 9 1:1 0:1, 2 0 0 9 1:1', 'outside an aggregate a state stays as it was')
  FROM (SELECT '2 0 0 9 1:1'::crm.funnel_state AS s) AS v;
SELECT throws_ok(format('SELECT %L::crm.funnel_state', state), '22P02', 'invalid input syntax for type crm.funnel_state', 'no state: ' || left(state, 40))
  FROM unnest(ARRAY['', ' ', '2', '2 0 0', '2 0 0 x', '2 0 0 1 ', '2 0 0 1 5', '2 0 0 1 5:', '2 0 0 1 5:1 ', '2 0 0 1 5:0', '2 0 0 1 5:4', '2 0 0 1 5:-1',
    '0 0 0 1 5:1', '65 0 0 1 5:1', '-1 0 0 1', '70000 0 0 1', '2 0 0 -1', '2 -1 0 1', '2 99999999999 0 1', '2 0 0 9999999999999999999', '2 0 0 1 9223372036854775806:1',
    '2 0 0 1 5:18446744073709551616', '2 0 0 1 5:1,6:1', '+2 0 0 1', '2  0 0 1', '2 0 0 1 5:1x', E'2\n0 0 1', repeat('9', 100000)]) AS state;

-- binary, as COPY reads it: header, then of one row one field
CREATE FUNCTION pg_temp.copied(bytes bytea) RETURNS text LANGUAGE plpgsql AS $$
DECLARE found text;
BEGIN
	CREATE TEMP TABLE IF NOT EXISTS state_in (state crm.funnel_state);
	CREATE TEMP TABLE IF NOT EXISTS bytes_in (state bytea);
	TRUNCATE state_in, bytes_in;
	PERFORM lo_unlink(998877) FROM pg_largeobject_metadata WHERE oid = 998877;
	PERFORM lo_from_bytea(998877, '\x5047434f50590aff0d0a00'::bytea || '\x0000000000000000'::bytea || '\x0001'::bytea || int4send(length(bytes)) || bytes || '\xffff'::bytea);
	PERFORM lo_export(998877, current_setting('data_directory') || '/funnel_state.bin');
	EXECUTE format('COPY state_in FROM %L (FORMAT binary)', current_setting('data_directory') || '/funnel_state.bin');
	SELECT state::text INTO found FROM state_in;
	RETURN found;
END $$;
SELECT is(pg_temp.copied(crm.funnel_state_send('3 1 2 3 9:3 5:1')), '3 1 2 3 9:3 5:1', 'binary output is binary input');
SELECT is(crm.funnel_state_send('3 1 2 3 9:3 5:1'),
    '\x0003000000010000000200000000000000030000000200000000000000090000000000000003'::bytea || '\x00000000000000050000000000000001'::bytea, 'its form');
CREATE FUNCTION pg_temp.head(nsteps integer, length bigint, nrows integer) RETURNS bytea LANGUAGE sql AS $$
SELECT int2send(nsteps::int2) || int4send(0) || int4send(0) || int8send(length) || int4send(nrows) $$;
SELECT throws_ok(format('SELECT pg_temp.copied(%L)', bytes), state, NULL, 'no state: ' || why)
  FROM (VALUES ('\x'::bytea, '08P01', 'nothing'), ('\x0003', '08P01', 'steps alone'),
               (pg_temp.head(3, 1, 1), '22P03', 'fewer rows than it says'),
               (pg_temp.head(3, 1, -1), '22P03', 'less than no rows'),
               (pg_temp.head(3, 1, 2147483647), '22P03', 'more rows than there can be'),
               (pg_temp.head(0, 1, 0), '22P03', 'no steps'),
               (pg_temp.head(65, 1, 0), '22P03', '65 steps'),
               (pg_temp.head(-1, 1, 0), '22P03', 'less than no steps'),
               (pg_temp.head(3, -1, 0), '22P03', 'a negative window'),
               (pg_temp.head(3, 1, 1) || int8send(5) || int8send(8), '22P03', 'a fourth step of three'),
               (pg_temp.head(3, 1, 1) || int8send(5) || int8send(0), '22P03', 'a row of no step'),
               (pg_temp.head(3, 1, 1) || int8send(9223372036854775806) || int8send(1), '22P03', 'no time'),
               (pg_temp.head(3, 1, 0) || int8send(0), '22P03', 'more than a state')) AS v(bytes, state, why);

-- a state in a table, shortened and compressed
CREATE TEMP TABLE kept AS
SELECT pg_temp.gather('1 day', '2024-05-01'::timestamptz + i * interval '1 s', i = 0, i = 1, i = n) AS state, n
  FROM (VALUES (1), (2), (1000)) AS v(n), generate_series(0, n) AS i GROUP BY n;
CREATE AGGREGATE pg_temp.joined(crm.funnel_state) (SFUNC = crm.funnel_merge, STYPE = crm.funnel_state);
SELECT results_eq('SELECT n, crm.funnel_level(state) FROM kept ORDER BY n', 'VALUES (1, 2), (2, 3), (1000, 3)', 'states from a table');
SELECT is(crm.funnel_level(pg_temp.joined(state)), 3, 'and joined') FROM kept;

SELECT finish();
ROLLBACK;
