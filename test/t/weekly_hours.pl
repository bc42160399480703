# Random timetables of crm.weekly_hours against a slow and obvious reading, minute by minute.
#
# A timetable is made as a list of rules and written as text. What it means is found a second time
# from the rules: for each minute of the week, which rule said the last word about it. The server
# must agree in every minute, read what it writes, and find the same openings and closings at
# instants around the days on which clocks are put forward or back, as somebody who looks at the
# clock on the wall every minute.
#
# CRM_SEED=n repeats a run; CRM_TIMETABLES=n says how many.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use CrmTimetable;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed       = $ENV{CRM_SEED}       // int(rand(1_000_000));
my $timetables = $ENV{CRM_TIMETABLES} // 200;
note("CRM_SEED=$seed");
diag("CRM_SEED=$seed") if $ENV{CRM_SEED};
srand($seed);

my $node = crm_node('weekly_hours');
$node->safe_psql('postgres', 'CREATE DATABASE hours');
$node->safe_psql('hours', q{
    CREATE EXTENSION pg_crm;
    CREATE TABLE timetable (id integer PRIMARY KEY, text text, minutes text, hours crm.weekly_hours);
    CREATE TABLE minute (id integer, minute integer, open text);
});

my @timetables = map { crm_timetable() } 1 .. $timetables;
my $file = PostgreSQL::Test::Utils::tempdir() . '/timetables';
append_to_file($file, join '', map { "$_\t$timetables[$_]{text}\t" . crm_minutes($timetables[$_]) . "\n" } 0 .. $#timetables);
$node->safe_psql('hours', qq{\\copy timetable (id, text, minutes) FROM '$file'
    UPDATE timetable SET hours = text::crm.weekly_hours;
    INSERT INTO minute SELECT t.id, o.n - 1, o.open FROM timetable AS t, string_to_table(t.minutes, NULL) WITH ORDINALITY AS o(open, n);
    CREATE INDEX ON minute (id);
    ANALYZE;});

# every minute of the week, as a clock on the wall shows it
is($node->safe_psql('hours', q{
    SELECT t.id, t.text, t.hours, min(m.minute), count(*) FROM timetable AS t JOIN minute AS m USING (id)
     WHERE m.open <> crm.is_open(t.hours, '2024-01-01'::timestamp + m.minute * interval '1 minute')::int::text
     GROUP BY t.id ORDER BY length(t.text) LIMIT 5}), '', "$timetables timetables are open in the same minutes, seed $seed");
is($node->safe_psql('hours', q{SELECT id, text FROM timetable WHERE hours::text::crm.weekly_hours OPERATOR(crm.<>) hours ORDER BY length(text) LIMIT 5}), '',
    'each reads what it writes');
is($node->safe_psql('hours', q{
    SELECT a.text, b.text FROM timetable AS a JOIN timetable AS b ON a.id < b.id
     WHERE (a.minutes = b.minutes) <> (a.hours OPERATOR(crm.=) b.hours) OR (a.minutes = b.minutes) <> (a.hours::text = b.hours::text) LIMIT 5}), '',
    'equal minutes are equal values and equal texts, and no others');
cmp_ok($node->safe_psql('hours', 'SELECT count(DISTINCT minutes) FROM timetable'), '>', $timetables / 2, 'and most of them differ');
cmp_ok($node->safe_psql('hours', q{SELECT count(*) FROM timetable WHERE hours::text ~ '(2[0-3]|1[0-9]):[0-5][0-9]-0'}), '>', 0, 'some of them end late');

# instants around the days on which the clocks of a zone jump, and any others
for my $zone ('Asia/Shanghai', 'Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe', 'Pacific/Apia', 'America/St_Johns', 'Africa/Casablanca', 'America/Havana')
{
    my $jumps = $node->safe_psql('hours', qq{
        SELECT extract(epoch FROM h) FROM (SELECT h, h AT TIME ZONE '$zone' - lag(h) OVER (ORDER BY h) AT TIME ZONE '$zone' AS step
                  FROM generate_series('2009-01-01Z'::timestamptz, '2026-01-01Z', '1 hour') AS h) AS s WHERE step <> interval '1 hour'});
    my @days = ((split /\n/, $jumps), map { 1230768000 + int(rand(17 * 365)) * 86400 } 1 .. 3);
    cmp_ok(scalar(@days), $zone eq 'Asia/Shanghai' ? '==' : '>=', $zone eq 'Asia/Shanghai' ? 3 : 7, "$zone: days to look at");
    for my $round (1 .. 2)
    {
        my $jump  = $days[ int(rand(@days)) ];
        my @some  = map { int(rand(@timetables)) } 1 .. 8;
        my $begin = $jump - 86400 * int(rand(3)) - 60 * int(rand(1440));
        # the clock is read every minute for 13 days; asked is for instants of the first 4, and for each
        # minute at which something changes, and the one before
        my $differ = $node->safe_psql('hours', qq{
            WITH clock AS MATERIALIZED (
                SELECT m, to_timestamp($begin + 60 * m) AS instant,
                       mod(mod(floor(extract(epoch FROM to_timestamp($begin + 60 * m) AT TIME ZONE '$zone') / 60)::bigint - 4 * 1440, 10080) + 10080, 10080)::int AS minute
                  FROM generate_series(-1, 13 * 1440) AS m),
            state AS (
                SELECT t.id, t.hours, c.m, c.instant, s.open AS now, lag(s.open) OVER w AS before, lead(s.open) OVER w AS after
                  FROM timetable AS t JOIN minute AS s USING (id) JOIN clock AS c USING (minute)
                 WHERE t.id IN (@{[join ',', @some]}) WINDOW w AS (PARTITION BY t.id ORDER BY c.m)),
            change AS (
                SELECT *, min(instant) FILTER (WHERE now > before) OVER w AS opening, min(instant) FILTER (WHERE now < before) OVER w AS closing
                  FROM state WINDOW w AS (PARTITION BY id ORDER BY m DESC)),
            found AS (
                SELECT id, hours, instant, now = '1' AS is_open, crm.is_open(hours, instant, '$zone') AS crm_open,
                       opening, crm.next_opening(hours, instant, '$zone') AS crm_opening, closing, crm.next_closing(hours, instant, '$zone') AS crm_closing
                  FROM change WHERE m BETWEEN 0 AND 4 * 1440 AND (hashint8(m * 1000 + id + $round * 31) % 140 = 0 OR now <> before OR now <> after))
            SELECT 0, id, hours, instant, is_open, crm_open, opening, crm_opening, closing, crm_closing FROM found
             WHERE is_open IS DISTINCT FROM crm_open
                OR (opening IS DISTINCT FROM crm_opening AND NOT (opening IS NULL AND crm_opening > to_timestamp($begin + 60 * 13 * 1440)))
                OR (closing IS DISTINCT FROM crm_closing AND NOT (closing IS NULL AND crm_closing > to_timestamp($begin + 60 * 13 * 1440)))
            UNION ALL SELECT count(*), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM found LIMIT 6});
        my @lines = split /\n/, $differ;
        my $count = $lines[-1] =~ /^(\d+)\|{9}$/ ? $1 : 0;
        pop @lines if $count;
        is(join("\n", @lines), '', "$zone, $count instants from $begin: open, opening and closing as by the clock, seed $seed");
        cmp_ok($count, '>', 100, 'many instants') or diag($differ);
    }
}

$node->stop;
done_testing();
