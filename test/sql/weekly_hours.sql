-- crm.weekly_hours: what is read and written, what is refused, order, binary form, time zones
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_crm;
RESET client_min_messages;
SET search_path = public, crm;
SET TimeZone = 'UTC';
SET datestyle = 'ISO, YMD';

-- read, and written in one form
SELECT text, text::crm.weekly_hours AS hours
FROM unnest(ARRAY[
    '24/7', 'off', 'closed', 'Mo-Su 00:00-24:00', '00:00-00:00', 'Mo-Fr off', '24/7; 24/7',
    'Mo-Fr 09:00-18:00', 'mo-fr 9:00-18:00', ' Mo - Fr 09:00 - 18:00 ', 'Mo,Tu,We,Th,Fr 09:00-18:00',
    '09:00-18:00', 'Mo-Su 09:00-18:00', 'Sa-Mo 10:00-14:00', 'Fr-Th 10:00-14:00', 'Mo-Mo 10:00-14:00', 'Mo,We-Fr,Su 10:00-14:00',
    'Mo-Fr 09:00-12:00,13:00-18:00', 'Mo-Fr 13:00-18:00, 09:00-12:00', 'Mo 09:00-12:00,11:00-15:00,15:00-16:00',
    'Fr-Sa 22:00-02:00', 'Fr-Sa 22:00-26:00', 'Fr 18:00-00:00', 'Fr 18:00-24:00', 'Su 22:00-02:00',
    'Mo 10:00-10:00', 'Mo 10:00-34:00', 'Mo 00:00-48:00', 'Mo 23:59-48:00', '06:00-05:00',
    'Mo 09:00-24:00; Tu 00:00-24:00; We 00:00-18:00',
    -- later rules
    'Mo-Fr 09:00-18:00; We 10:00-16:00', 'Mo-Fr 09:00-18:00; We off', 'Mo-Fr 09:00-18:00; 12:00-13:00 off',
    'Mo-Fr 09:00-18:00; We 12:00-13:00 off', '09:00-18:00; Sa,Su closed', '09:00-18:00; 10:00-19:00', '24/7; Su off',
    '24/7; Su 03:00-05:00 off', 'Mo 10:00-12:00; 24/7', 'Mo 10:00-12:00; off', 'Mo-Fr 09:00-18:00; off; Sa 10:00-12:00',
    'Mo 10:00-12:00; 11:00-11:30 off; 15:00-16:00',
    -- what is open after midnight belongs to the next day
    'Mo-Fr 22:00-02:00; We 10:00-12:00', 'Mo-Fr 22:00-02:00; We off', 'Mo 22:00-03:00; Tu 10:00-12:00', 'Tu 10:00-12:00; Mo 22:00-03:00',
    'Mo-Su 22:00-04:00; Mo 23:00-03:00 off', 'Mo 06:00-15:00; Tu-Th 07:00-04:00; Fr-Su 09:00-17:00',
    'Mo-Th 11:00-22:00; Su 12:00-20:00; Fr-Sa 11:00-02:00', 'Mo,We 22:00-02:00; Tu 10:00-12:00',
    -- every day ends late: one night is written as two
    'Mo-Fr 18:00-24:00; Sa,Su 20:00-24:00; Tu-Sa 00:00-02:00,18:00-24:00; Mo,Su 00:00-03:00,20:00-24:00']) AS text;

-- the whole week as rows of days, to be seen at a glance: hours that are open
CREATE FUNCTION pg_temp.picture(hours crm.weekly_hours) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT to_char(day, 'Dy ') || string_agg(CASE WHEN crm.is_open(hours, day + hour * interval '1 hour') THEN '#' ELSE '.' END, '' ORDER BY hour)
      FROM generate_series('2024-01-01'::timestamp, '2024-01-07', '1 day') AS day, generate_series(0, 23) AS hour GROUP BY day ORDER BY day
$$;
SELECT pg_temp.picture('Mo-Fr 09:00-12:00,13:00-18:00; Sa 10:00-14:00; We 15:00-02:00; Su 22:00-30:00');

-- refused
CREATE FUNCTION pg_temp.refusal(text text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    message text;
    detail text;
    hint text;
BEGIN
    RETURN 'NOT REFUSED: ' || text::crm.weekly_hours::text;
EXCEPTION WHEN others THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RETURN sqlstate || ' ' || message || E'\n    ' || detail || E'\n    ' || hint;
END
$$;
\pset format unaligned
\pset tuples_only
-- not the syntax
SELECT pg_temp.refusal(text) FROM unnest(ARRAY[
    '', ' ', ';', 'Mo', 'Mo-Fr', 'Mo-Fr 09:00', 'Mo-Fr 09:00-', 'Mo-Fr 9-18', 'Mo-Fr 09:00-18', '09.00-18.00', '9:0-18:00', '009:00-18:00', '09:00-18:000',
    '09:60-18:00', '24:00-25:00', '09:00-48:01', '09:00-99:00', 'Mo-Fr 09:00-18:00;', ';Mo-Fr 09:00-18:00', 'Mo-Fr 09:00-18:00;; Sa off',
    'Mo-Fr 09:00-18:00,', 'Mo, 09:00-18:00', 'Mo- 09:00-18:00', 'Mon-Fri 09:00-18:00', 'Montag 09:00-18:00', 'Mo-Fr 09:00-18:00 Sa 10:00-14:00',
    'Mo-Fr: 09:00-18:00', '24/7 off', 'Mo 24/7', 'off Mo', 'offen', E'Mo-Fr\t09:00-18:00', E'Mo-Fr 09:00-18:00\n', 'Mo–Fr 09:00-18:00',
    '周一至周五 09:00-18:00', 'Mo-Fr 09:00-18:00; 周六 10:00-14:00']) AS text;
-- OpenStreetMap's, but not ours
SELECT pg_temp.refusal(text) FROM unnest(ARRAY[
    'Jan-Mar Mo-Fr 09:00-18:00', 'Mo-Fr 09:00-18:00; Dec 25 off', 'week 1-10 09:00-18:00', 'Mo-Fr 09:00-18:00; PH off', 'Mo-Sa,PH 09:00-18:00', 'SH off', 'easter off',
    'sunrise-sunset', 'Mo 10:00-sunset', '(sunrise+01:00)-18:00', 'Mo-Fr 09:00-18:00 "by appointment"', 'Mo-Fr 09:00-18:00 || "call us"',
    'Mo[1] 09:00-18:00', '10:00+', '10:00-12:00+', '10:00-16:00/90', '10:00/90', 'Mo-Fr 09:00-18:00 open', 'Mo-Fr 09:00-18:00 unknown',
    'Mo-Fr 09:00-18:00, We 19:00-21:00',
    'Mo-Fr 09:00-12:00; 14:00-18:00', 'Mo-Fr off; 14:00-18:00']) AS text;
-- long ones come shortened
SELECT pg_temp.refusal(text) FROM unnest(ARRAY[
    repeat('营业', 200), 'Mo ' || repeat('09:00-10:00,', 5000) || '营业营业营业营业营业', repeat(' ', 1000000), repeat('Mo 10:00-11:00;', 1000000), repeat('x', 1000000)]) AS text;
\pset tuples_only off
\pset format aligned

-- the longest that is written can be read
SELECT length(h::text) AS bytes, h::text::crm.weekly_hours = h AS same, length(crm.weekly_hours_send(h)) AS binary
  FROM (SELECT string_agg(day || ' ' || spans, '; ')::crm.weekly_hours AS h
          FROM (SELECT string_agg(to_char(m * interval '1 minute', 'HH24:MI-') || to_char((m + 1) * interval '1 minute', 'HH24:MI'), ',' ORDER BY m) AS spans
                  FROM generate_series(0, 1438, 2) AS m) AS s,
               unnest('{Mo,Tu,We,Th,Fr,Sa,Su}'::text[]) AS day) AS t;

-- equality is of the hours, not of the text; order, arrays, aggregates and indexes
SELECT a = b AS eq, a <> b AS ne, a < b AS lt, a <= b AS le, a >= b AS ge, a > b AS gt, crm.weekly_hours_cmp(a, b) AS cmp,
       crm.weekly_hours_hash(a) = crm.weekly_hours_hash(b) AS hash,
       crm.weekly_hours_hash_extended(a, 7) = crm.weekly_hours_hash_extended(b, 7) AS hash_extended
FROM (VALUES ('Mo-Fr 22:00-02:00'::crm.weekly_hours, 'Mo-Fr 22:00-26:00'::crm.weekly_hours), ('24/7', 'Mo-Su 00:00-24:00'), ('off', 'Mo off'),
             ('Mo 09:00-18:00', 'Mo 09:00-18:01'), ('Mo 09:00-18:00', 'Mo 08:00-18:00'), ('off', '24/7'), ('Mo 09:00-18:00', 'Mo-Tu 09:00-18:00')) AS t (a, b);
SELECT typlen, typbyval, typalign, typstorage FROM pg_type WHERE oid = 'crm.weekly_hours'::regtype;
CREATE TEMP TABLE timetables (id integer, hours crm.weekly_hours);
INSERT INTO timetables
SELECT i, format('Mo-Fr %s:%s-18:00', lpad((i % 18)::text, 2, '0'), lpad((i % 60)::text, 2, '0'))::crm.weekly_hours FROM generate_series(1, 2000) AS i;
INSERT INTO timetables VALUES (0, 'Mo,Tu,We,Th,Fr 07:07-12:00,12:00-18:00'), (-1, NULL), (-2, 'off');
CREATE INDEX timetables_btree ON timetables (hours);
SET enable_seqscan = off;
SELECT id FROM timetables WHERE hours = 'Mo-Fr 7:07-18:00' AND id < 200 ORDER BY id;
SELECT hours FROM timetables ORDER BY hours LIMIT 2;
RESET enable_seqscan;
SELECT count(*), count(hours), count(DISTINCT hours), (SELECT count(*) FROM (SELECT hours FROM timetables GROUP BY hours) AS g) AS groups FROM timetables;
SET enable_nestloop = off; SET enable_mergejoin = off;
SELECT count(*) FROM timetables AS a JOIN timetables AS b USING (hours);
SET enable_mergejoin = on; SET enable_hashjoin = off;
SELECT count(*) FROM timetables AS a JOIN timetables AS b USING (hours);
RESET enable_nestloop; RESET enable_mergejoin; RESET enable_hashjoin;
SELECT ARRAY['Mo 09:00-18:00', NULL, 'off']::crm.weekly_hours[], to_jsonb('Mo 9:00-18:00'::crm.weekly_hours), 'Mo 9:00-18:00'::text::crm.weekly_hours::text;

-- the binary form goes through a file and is not believed
SELECT crm.weekly_hours_send('off'), crm.weekly_hours_send('24/7'), crm.weekly_hours_send('Mo 00:01-00:02; Su 22:00-24:00');
DO $$
DECLARE
    file text := current_setting('data_directory') || '/crm_weekly_hours_test.bin';
    numbers text;
BEGIN
    CREATE TEMP TABLE copied (LIKE timetables);
    EXECUTE format('COPY timetables TO %L (FORMAT binary)', file);
    EXECUTE format('COPY copied FROM %L (FORMAT binary)', file);
    ASSERT (SELECT count(*) FROM copied JOIN timetables USING (id) WHERE copied.hours IS NOT DISTINCT FROM timetables.hours) = 2003;
    -- empty, backwards and outside of the week; more or fewer than announced; touching, overlapping, out of order
    FOREACH numbers IN ARRAY ARRAY['1 5 5', '1 6 5', '1 -1 5', '1 0 10081', '1 10080 10081', '2 0 5', '5041 0 5', '-1 0 5', '0 0 5', '',
                                   '2 0 5 5 9', '2 0 5 4 9', '2 7 9 0 5'] LOOP
        EXECUTE format('COPY (SELECT decode(%L, ''hex'')) TO %L (FORMAT binary)',
                       (SELECT coalesce(string_agg(encode(int2send(number::int2), 'hex'), '' ORDER BY n), '')
                          FROM regexp_split_to_table(numbers, ' ') WITH ORDINALITY AS u(number, n) WHERE number <> ''), file);
        BEGIN
            EXECUTE format('COPY copied (hours) FROM %L (FORMAT binary)', file);
            RAISE EXCEPTION 'a wrong value was received: %', numbers;
        EXCEPTION WHEN invalid_binary_representation OR protocol_violation OR bad_copy_file_format THEN
            NULL;
        END;
    END LOOP;
    EXECUTE format('COPY (SELECT decode(%L, ''hex'')) TO %L (FORMAT binary)', '00020000000500060009', file);
    EXECUTE format('COPY copied (hours) FROM %L (FORMAT binary)', file);
    ASSERT (SELECT hours FROM copied WHERE id IS NULL)::text = 'Mo 00:00-00:05,00:06-00:09';
    EXECUTE format('COPY (SELECT 1) TO %L', file);
END
$$;

-- soft errors came with 16
DO $$
DECLARE
    form text;
    valid boolean;
BEGIN
    IF current_setting('server_version_num')::integer < 160000 THEN
        RETURN;
    END IF;
    FOREACH form IN ARRAY ARRAY['', 'x', 'PH off', 'Mo 10:00-12:00; 13:00-14:00', repeat(' ', 100000), 'Mo 10:00-12:00'] LOOP
        EXECUTE 'SELECT pg_catalog.pg_input_is_valid($1, ''crm.weekly_hours'')' INTO valid USING form;
        ASSERT valid = (form = 'Mo 10:00-12:00'), form;
    END LOOP;
END
$$;

-- anything at all is either refused or a timetable that reads itself
DO $$
DECLARE
    parts text[] := '{Mo,Tu,Su,Fr,-,-,",",",",";","; "," "," ",off,closed,24/7,09:00,18:00,22:00,02:00,24:00,26:00,00:00,9,:,+,PH,x,"\""}';
    form text;
    hours crm.weekly_hours;
    taken integer := 0;
BEGIN
    PERFORM setseed(0.5);
    FOR i IN 1 .. 15000 LOOP
        SELECT string_agg(parts[1 + (random() * (array_length(parts, 1) - 1))::integer], '')
        INTO form FROM generate_series(1, 1 + (random() * 11)::integer) WHERE i > 0;
        BEGIN
            hours := form;
            taken := taken + 1;
            ASSERT hours::text::crm.weekly_hours = hours, form;
            ASSERT hours::text::crm.weekly_hours::text = hours::text, form;
        EXCEPTION WHEN invalid_text_representation OR feature_not_supported THEN
            NULL;
        END;
    END LOOP;
    ASSERT taken > 100, taken;
END
$$;

-- ---- at an instant
-- Monday 09:00 in Shanghai, to the microsecond
SELECT instant, crm.is_open('Mo-Fr 09:00-18:00', instant, 'Asia/Shanghai') AS open, crm.is_open('Mo-Fr 09:00-18:00', instant AT TIME ZONE 'Asia/Shanghai') AS local,
       crm.next_opening('Mo-Fr 09:00-18:00', instant, 'Asia/Shanghai'), crm.next_closing('Mo-Fr 09:00-18:00', instant, 'Asia/Shanghai')
  FROM unnest('{2024-06-02 00:00+08, 2024-06-03 08:59:59.999999+08, 2024-06-03 09:00+08, 2024-06-03 12:00+08, 2024-06-03 17:59:59.999999+08, 2024-06-03 18:00+08, 2024-06-07 18:00:00.000001+08}'::timestamptz[]) AS instant;
-- over midnight, over the end of the week
SELECT instant, crm.is_open('Su 22:00-02:00', instant, 'UTC') AS open, crm.next_opening('Su 22:00-02:00', instant, 'UTC'), crm.next_closing('Su 22:00-02:00', instant, 'UTC')
  FROM unnest('{2024-06-02 21:59, 2024-06-02 22:00, 2024-06-03 00:00, 2024-06-03 01:59:59, 2024-06-03 02:00}'::timestamptz[]) AS instant;
-- never, always, unknown
SELECT hours, crm.is_open(hours, '2024-06-03 09:00Z', 'UTC'), crm.next_opening(hours, '2024-06-03 09:00Z', 'UTC') IS NULL AS never_opens, crm.next_closing(hours, '2024-06-03 09:00Z', 'UTC') IS NULL AS never_closes
  FROM unnest('{off, 24/7, NULL}'::crm.weekly_hours[]) AS hours;
SELECT crm.is_open('24/7', NULL) IS NULL, crm.is_open('24/7', NULL, 'UTC') IS NULL, crm.is_open('24/7', '2024-06-03 09:00Z', NULL) IS NULL,
       crm.next_opening('24/7', NULL, 'UTC') IS NULL, crm.next_closing('24/7', '2024-06-03 09:00Z', NULL) IS NULL;

-- Berlin, 31 March 2024: 02:00 is 03:00; 27 October 2024: 03:00 is 02:00 again
SET TimeZone = 'Europe/Berlin';
SELECT hours, instant, crm.is_open(hours, instant, 'Europe/Berlin') AS open, crm.next_opening(hours, instant, 'Europe/Berlin'), crm.next_closing(hours, instant, 'Europe/Berlin')
  FROM (VALUES
    -- a beginning that the clock skips, an end that it skips, a span that it skips, one around
    ('Su 02:30-05:00'::crm.weekly_hours, '2024-03-31 01:00+01'::timestamptz), ('Su 02:30-05:00', '2024-03-31 03:00+02'), ('Su 02:30-05:00', '2024-03-31 03:15+02'),
    ('Su 01:00-02:30', '2024-03-31 01:30+01'), ('Su 02:10-02:50', '2024-03-31 00:00+01'), ('Sa 22:00-06:00', '2024-03-31 00:00+01'),
    -- both changes in the hour that is skipped: closed before and after
    ('Su 00:00-02:10,02:50-06:00', '2024-03-31 01:00+01'), ('Su 00:00-02:10,03:30-06:00', '2024-03-31 01:00+01'),
    -- the hour that comes twice: a beginning, an end, a span within, one around
    ('Su 02:30-05:00', '2024-10-27 01:00+02'), ('Su 02:30-05:00', '2024-10-27 02:45+02'), ('Su 02:30-05:00', '2024-10-27 02:00+01'), ('Su 02:30-05:00', '2024-10-27 02:45+01'),
    ('Su 01:00-02:30', '2024-10-27 01:30+02'), ('Su 01:00-02:30', '2024-10-27 02:45+02'), ('Su 01:00-02:30', '2024-10-27 02:15+01'),
    ('Su 02:10-02:50', '2024-10-27 00:00+02'), ('Su 02:10-02:50', '2024-10-27 02:50+02'), ('Sa 22:00-06:00', '2024-10-27 00:00+02'),
    ('Su 03:00-05:00', '2024-10-27 02:30+02'), ('Su 00:00-03:00', '2024-10-27 02:30+02'), ('Su 02:00-03:00', '2024-10-27 02:59+02')) AS t (hours, instant);
-- how long the night is
SELECT crm.next_closing('Sa 22:00-06:00', at, 'Europe/Berlin') - at AS night
  FROM unnest('{2024-03-23 22:00+01, 2024-03-30 22:00+01, 2024-10-26 22:00+02}'::timestamptz[]) AS at;
SET TimeZone = 'UTC';
-- a day that was left out, half an hour, Mean Time of before 1901
SELECT crm.next_opening('Fr 10:00-18:00', '2011-12-29 12:00-10', 'Pacific/Apia') AS apia, crm.next_opening('Su 01:45-05:00', '2024-04-06 13:00Z', 'Australia/Lord_Howe') AS lord_howe,
       crm.next_opening('Mo 09:00-18:00', '1899-12-31 00:00Z', 'Asia/Shanghai') AS mean_time;
-- the ends of time, and far from now
SELECT crm.is_open('Mo 00:00-24:00', '4714-11-24 00:00:00+00 BC', 'UTC'), crm.next_opening('Tu 09:00-18:00', '4714-11-24 00:00:00+00 BC', 'Europe/Berlin'),
       crm.is_open('24/7', '294276-12-31 23:59:59.999999+00', 'Europe/Berlin'), crm.next_opening('Mo 02:30-18:00', '5000-03-29 00:00Z', 'Europe/Berlin');
SELECT crm.next_opening('Mo 09:00-18:00', '294276-12-31 23:00+00', 'Europe/Berlin');

-- refused
SELECT crm.is_open('24/7', 'infinity'::timestamp);
SELECT crm.is_open('24/7', '-infinity', 'UTC');
SELECT crm.next_opening('24/7', 'infinity', 'UTC');
SELECT crm.next_closing('off', '-infinity', 'UTC');
SELECT crm.is_open('24/7', '2024-06-03 09:00Z', 'Mars/Olympus');
SELECT crm.next_opening('off', '2024-06-03 09:00Z', '');
SELECT crm.next_closing('off', '2024-06-03 09:00Z', repeat('x', 100000));

-- nothing but the zone that is named matters
SELECT crm.is_open(h, i, 'asia/shanghai') AS any_case, crm.is_open(h, i, '<+08>-8') AS posix FROM (VALUES ('Mo 09:00-18:00'::crm.weekly_hours, '2024-06-03 09:00+08'::timestamptz)) AS t (h, i);

-- the tables
SELECT crm.install();
INSERT INTO crm.store (store_id, name, opening_hours) VALUES (1, 'Bund', 'Mo-Su 10:00-22:00'), (2, 'Airport', '24/7'), (3, 'Old', NULL);
INSERT INTO crm.associate (store_id, userid, role_name, skills, working_hours) VALUES (1, 'lin', 'stylist', '{bags}', 'Tu-Sa 10:00-19:00');
INSERT INTO crm.associate (store_id) VALUES (2) RETURNING *;
SELECT s.name, a.userid, crm.is_open(s.opening_hours, t, 'Asia/Shanghai') AS shop, crm.is_open(a.working_hours, t, 'Asia/Shanghai') AS associate
  FROM crm.store AS s LEFT JOIN crm.associate AS a USING (store_id), CAST('2024-06-03 11:00+08' AS timestamptz) AS t ORDER BY store_id;
INSERT INTO crm.store (name, opening_hours) VALUES ('Wrong', 'daily');
