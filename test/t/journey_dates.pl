# Entries by date and by schedule against a slow and obvious reference: every day of the years in question, asked of every
# contact. Zones with and without summer time, leap days, offsets and ticks are drawn; SEED draws the same again.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use JSON::PP;
use Test::More;

my $seed = $ENV{SEED} // int(rand(1_000_000));
srand($seed);
diag("SEED=$seed");
sub one_of { return $_[ int(rand(@_)) ] }
sub between { return $_[0] + int(rand($_[1] - $_[0] + 1)) }

my $contacts = 80;
my $node     = crm_node('dates');
my $db       = crm_database($node, 'shop');
sub sql { return $node->safe_psql($db, shift) }

my @zones = ('Asia/Shanghai', 'Europe/Paris', 'America/New_York', 'Pacific/Auckland', 'Asia/Kathmandu', 'Australia/Lord_Howe',
    'Pacific/Kiritimati', 'Pacific/Pago_Pago', 'America/St_Johns', 'Africa/Cairo');
my $json = JSON::PP->new->canonical;

my @days = ('02-28', '02-29', '03-01', '12-31', '01-01', '03-31', '10-27', '11-03', '04-06', '03-10');
sub random_day
{
    my ($first, $last, $leap) = @_;
    my $year = between($first, $last);
    my $day = rand() < 0.6 ? one_of(@days) : sprintf('%02d-%02d', between(1, 12), between(1, 28));
    $year -= $year % 4 if $day eq '02-29';
    return "$year-$day";
}
sub random_instant { return random_day(@_) . sprintf(' %02d:%02d:%02d.%d', between(0, 23), between(0, 59), between(0, 59), between(0, 9)) . one_of(@zones[ 0 .. 3 ], 'UTC') =~ s/^/ /r }
sub maybe { my ($share, $value) = @_; return rand() < $share ? "'$value'" : 'NULL' }

sql(q{ALTER TABLE crm.contact ADD COLUMN wedding date, ADD COLUMN trial_ends timestamptz, ADD COLUMN first_visit timestamptz; SELECT crm.build_profile_view();
    INSERT INTO crm.account (kind, name, time_zone) VALUES ('official_account', 'paris', 'Europe/Paris'), ('official_account', 'york', 'America/New_York'), ('official_account', 'none', NULL)});
sql("INSERT INTO crm.contact (contact_id, birthday, wedding, trial_ends, first_visit, time_zone, city) VALUES " . join ', ',
    map { "($_, " . join(', ', maybe(0.9, random_day(1930, 2024)), maybe(0.9, random_day(2022, 2025)), maybe(0.9, random_instant(2023, 2025)),
        maybe(0.9, random_instant(2010, 2024)), maybe(0.6, one_of(@zones)), maybe(0.7, one_of('Paris', 'Lyon'))) . ')' } 1 .. $contacts);
sql(q{UPDATE crm.contact SET birthday = 'infinity', trial_ends = '-infinity' WHERE contact_id = 1});

my %zone_of = (paris => 'Europe/Paris', york => 'America/New_York', none => 'Asia/Shanghai');
my @offsets = ('0', '-3 days', '2 days', '1 month', '-1 month', '-1 month -1 day', '26 hours', '-5 hours', '1 year', '-14 days', '90 minutes');

# what a journey is published with, and the SQL of the reference
my @entries;
for my $i (1 .. 14)
{
    my $column = one_of(qw(birthday birthday wedding trial_ends first_visit));
    my $is_date = $column =~ /birthday|wedding/;
    my %entry = (on => 'date', property => $column, yearly => rand() < ($column =~ /birthday|first/ ? 0.9 : 0.3) ? JSON::PP::true : JSON::PP::false);
    $entry{offset} = one_of(@offsets) if rand() < 0.6;
    $entry{at} = sprintf('%02d:%02d', between(0, 23), one_of(0, 30, 7, 45, 30)) if rand() < ($is_date ? 0.7 : 0.5);
    $entry{at} = '02:30' if $entry{at} && rand() < 0.2;
    $entry{leap_day} = one_of(qw(feb28 mar1 skip)) if rand() < 0.7;
    $entry{when} = "city = 'Paris'" if rand() < 0.4;
    push @entries, { name => "d$i", account => one_of(sort keys %zone_of), entry => \%entry };
}
for my $i (1 .. 6)
{
    my %entry = (on => 'schedule', every => one_of('1 day', '7 days', '1 month', '6 hours', '1 hour', '2 months', '45 minutes', '1 day'));
    $entry{start} = random_day(2022, 2024) . 'T' . one_of('09:00', '02:30', '00:00', '23:45') if rand() < 0.8;
    $entry{hours} = one_of('Mo-Fr 08:00-18:00', 'Sa-Su 22:00-04:00', 'Mo 02:00-03:00', '24/7') if rand() < 0.6;
    $entry{audience} = "city = 'Lyon'" if rand() < 0.5;
    push @entries, { name => "s$i", account => one_of(sort keys %zone_of), entry => \%entry };
}

sub publish
{
    my ($name, $account, $entry, $more, $clock) = @_;
    my $document = $json->encode({ journey => $name, account => $account, reentry => 'always', max_lateness => '30 years', start => 'w',
            entry => [$entry], steps => { w => { kind => 'wait', for => '1 hour', next => undef } }, %{ $more // {} } });
    $document =~ s/'/''/g;
    return sql("SET pg_crm.clock = '$clock'; SELECT crm.publish_journey('$document')");
}

# the ticks: by themselves, in small pieces, and after pauses of months
my @ticks;
my $at = sql(sprintf q{SELECT extract(epoch FROM '2023-%02d-%02d %02d:%02d:%02dZ'::timestamptz)::bigint}, between(1, 3), between(1, 28), between(0, 23), between(0, 59), between(0, 59));
my $begin = sql("SELECT to_timestamp($at)");
for my $tick (1 .. 20)
{
    $at += rand() < 0.5 ? between(60, 4 * 86400) : rand() < 0.8 ? between(86400, 40 * 86400) : between(60 * 86400, 420 * 86400);
    push @ticks, sql("SELECT to_timestamp($at)");
}
publish($_->{name}, $_->{account}, $_->{entry}, {}, $begin) for @entries;
for my $tick (@ticks)
{
    my $steps = rand() < 0.3 ? between(1, 9) : undef;
    if (!defined $steps) { sql("SET pg_crm.clock = '$tick'; SELECT crm.tick('$tick')") }
    else { 1 while sql("SET pg_crm.clock = '$tick'; SELECT crm.tick('$tick', $steps)") > 0 }
}

# moments of a date: every day of the period is asked whether it is one
sub by_date
{
    my ($journey) = @_;
    my %entry = %{ $journey->{entry} };
    my $zone = "coalesce(c.time_zone, '$zone_of{$journey->{account}}')";
    my $is_date = $entry{property} =~ /birthday|wedding/;
    my $base = $is_date ? "c.$entry{property}::timestamp" : "c.$entry{property} AT TIME ZONE $zone";
    my $time = $entry{at} // ($is_date ? '10:00' : undef);
    my $offset = $entry{offset} // '0';
    my $of_day = defined $time ? "'0'" : '(b.base - b.base::date::timestamp)';
    my $match;
    if ($entry{yearly})
    {
        my $leap = $entry{leap_day} // 'feb28';
        my $other = $leap eq 'feb28' ? "to_char(d.day, 'MM-DD') = '02-28' AND to_char(d.day + 1, 'MM-DD') = '03-01'"
          : $leap eq 'mar1' ? "to_char(d.day, 'MM-DD') = '03-01' AND to_char(d.day - 1, 'MM-DD') = '02-28'" : 'false';
        $match = "(to_char(d.day, 'MM-DD') = to_char(b.base, 'MM-DD') OR to_char(b.base, 'MM-DD') = '02-29' AND $other) AND extract(year FROM d.day) >= extract(year FROM b.base)";
    }
    else { $match = 'd.day = b.base::date' }
    my $moment = "d.day + $of_day\::interval + '$offset'::interval";
    my $absolute = !$is_date && !defined $time && !$entry{yearly};
    my $instant = $absolute ? "moved(c.$entry{property}, '$offset', $zone)"
      : defined $time ? "((CASE WHEN l.at::time <= '$time' THEN l.at::date ELSE l.at::date + 1 END + '$time'::time) AT TIME ZONE $zone)" : "(l.at AT TIME ZONE $zone)";
    my $when = $entry{when} // 'true';
    return "SELECT c.contact_id, '$journey->{name}', $instant AS at FROM crm.contact c CROSS JOIN LATERAL (SELECT $base AS base) b
        CROSS JOIN (SELECT day::date AS day FROM generate_series('$begin'::date - interval '420 days', '$ticks[-1]'::date + interval '60 days', '1 day') AS day) d
        CROSS JOIN LATERAL (SELECT $moment AS at) l WHERE isfinite(c.$entry{property}) AND $match AND $when";
}

# of a schedule: of each tick the last moment since the one before
sub by_schedule
{
    my ($journey) = @_;
    my %entry = %{ $journey->{entry} };
    my $zone = $zone_of{ $journey->{account} };
    my $start = $entry{start} ? "('$entry{start}'::timestamp AT TIME ZONE '$zone')" : "(date_trunc('day', '$begin'::timestamptz AT TIME ZONE '$zone') AT TIME ZONE '$zone')";
    my $open = $entry{hours} ? "crm.is_open('$entry{hours}', m.at, '$zone')" : 'true';
    my $who = $entry{audience} // 'true';
    my $ticks = join ', ', map { "('$_'::timestamptz)" } @ticks;
    return "SELECT c.contact_id, '$journey->{name}', t.last FROM crm.contact c CROSS JOIN
        (SELECT max(m.at) AS last FROM (SELECT at, lag(at, 1, '$begin') OVER (ORDER BY at) AS before FROM (VALUES $ticks) v(at)) t
          CROSS JOIN (SELECT moved($start, '$entry{every}'::interval * k, '$zone') AS at FROM generate_series(0, " . ($entry{every} =~ /min|hour/ ? 140_000 : 5000) . ") k) m
          WHERE m.at > t.before AND m.at <= t.at AND $open GROUP BY t.at) t WHERE $who";
}

sql(q{CREATE FUNCTION moved(at timestamptz, i interval, zone text) RETURNS timestamptz IMMUTABLE LANGUAGE plpgsql AS $$
    BEGIN PERFORM set_config('TimeZone', zone, true); RETURN at + i; END$$});
my $total = 0;
for my $journey (@entries)
{
    my $reference = $journey->{name} =~ /^d/ ? by_date($journey) : by_schedule($journey);
    my $shown = "$journey->{name} $journey->{account} " . $json->encode($journey->{entry});
    my $found = sql(qq{SELECT r.* FROM ((SELECT 'missing', * FROM expected EXCEPT ALL SELECT 'missing', * FROM found)
          UNION ALL (SELECT 'too many', * FROM found EXCEPT ALL SELECT 'too many', * FROM expected)) r ORDER BY 2, 4 LIMIT 5}
          =~ s/SELECT r/WITH expected (contact_id, journey, at) AS MATERIALIZED (SELECT * FROM ($reference) x (contact_id, journey, at) WHERE x.at > '$begin' AND x.at <= '$ticks[-1]'),
          found AS MATERIALIZED (SELECT contact_id, journey, entered_at FROM crm.enrolment WHERE journey = '$journey->{name}') SELECT r/r);
    is($found, '', $shown);
    $total += my $n = sql("SELECT count(*) FROM crm.enrolment WHERE journey = '$journey->{name}'");
    note("$n enrolments");
}
cmp_ok($total, '>', 200, "$total enrolments");
is(sql('SELECT count(*) FROM crm.refusal'), '0', 'nothing was refused');
is(sql(q{SELECT count(*) FROM crm.enrolment e JOIN crm.step_visit v USING (contact_id, enrolment_id) WHERE v.visit = 1 AND v.entered_at <> e.entered_at}), '0', 'each by its own clock');
is(sql(q{SELECT count(*) FROM crm.enrolment WHERE state = 'finished' AND ended_at <> entered_at + interval '1 hour'}), '0', 'to the end');
sql(q{SELECT crm.set_journey(journey, 'cancelled') FROM crm.journey});

# a few contacts, and journeys by date at noon of Shanghai
sub fresh
{
    sql(q{DELETE FROM crm.enrolment; DELETE FROM crm.step_visit; DELETE FROM crm.refusal; UPDATE crm.contact SET birthday = NULL, time_zone = NULL});
    return;
}
sub tick { my ($at) = @_; return sql("SET pg_crm.clock = '$at'; SELECT crm.tick('$at')") }
sub entered { return sql(q{SELECT string_agg(contact_id || ' ' || to_char(entered_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), ', ' ORDER BY contact_id, entered_at) FROM crm.enrolment}) }
my %noon = (on => 'date', property => 'birthday', at => '12:00');

subtest 'whom somebody else holds' => sub {
    fresh();
    sql(q{UPDATE crm.contact SET birthday = '1990-06-01' WHERE contact_id IN (2, 3, 4)});
    publish('held', 'none', \%noon, { max_lateness => '1 day' }, '2040-01-01Z');
    my $session = $node->background_psql($db);
    $session->query_safe('BEGIN; SELECT FROM crm.profile_counter WHERE contact_id IN (3, 4) FOR UPDATE');
    is(tick('2040-06-01 05:00Z'), '1', 'does not keep the others');
    is(entered(), '2 2040-06-01 04:00', 'who enter');
    is(tick('2040-06-01 05:30Z'), '0', 'while it is held nothing more happens');
    is(sql('SELECT count(*) FROM crm.entry_due'), '2', 'those are kept in mind');
    $session->query_safe('COMMIT');
    $session->quit;
    is(tick('2040-06-01 06:00Z'), '2', 'then it is their turn, as of their moment, and its steps are made up for');
    is(entered(), '2 2040-06-01 04:00, 3 2040-06-01 04:00, 4 2040-06-01 04:00', 'once');
    is(sql('SELECT count(*) FROM crm.entry_due'), '0', 'nothing is left');
};

subtest 'late' => sub {
    fresh();
    sql(q{UPDATE crm.contact SET birthday = '1990-06-01' WHERE contact_id = 5; UPDATE crm.contact SET birthday = '1990-06-10' WHERE contact_id = 6});
    tick('2041-06-10 05:00Z');
    is(entered(), '6 2041-06-10 04:00', 'who was due long ago does not enter');
    is(sql(q{SELECT contact_id, reason, to_char(first_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') FROM crm.refusal ORDER BY 1}), "5|late|2041-06-01 04:00\n6|late|2040-06-10 04:00", 'which is recorded');
};

subtest 'closed, frozen and published anew' => sub {
    fresh();
    sql(q{UPDATE crm.contact SET birthday = '1990-07-01' WHERE contact_id = 7});
    sql(q{SET pg_crm.clock = '2042-07-01 03:00Z'; SELECT crm.set_journey('held', 'frozen')});
    tick('2042-07-01 05:00Z');
    sql(q{SET pg_crm.clock = '2042-07-01 06:00Z'; SELECT crm.set_journey('held', 'open')});
    tick('2042-07-01 07:00Z');
    is(entered(), '', 'what passes while a journey is frozen is not made up for');
    sql(q{UPDATE crm.contact SET birthday = '1990-07-02' WHERE contact_id = 7});
    publish('held', 'none', \%noon, { max_lateness => '2 days' }, '2042-07-02 05:00Z');
    tick('2042-07-02 07:00Z');
    is(entered(), '7 2042-07-02 04:00', 'an entry that stays as it is goes on in the next version');
    sql(q{UPDATE crm.contact SET birthday = '1990-07-03' WHERE contact_id IN (7, 8)});
    publish('held', 'none', { %noon, at => '11:00' }, { max_lateness => '2 days' }, '2042-07-03 05:00Z');
    tick('2042-07-03 07:00Z');
    is(entered(), '7 2042-07-02 04:00', 'of a new one nobody enters who was due before');
    is(sql(q{SET pg_crm.clock = '2042-07-03 06:00Z'; SELECT crm.tick('2042-07-03 06:00Z')}), '0', 'a time before the last moves nobody');
};

subtest 'a schedule after a pause' => sub {
    fresh();
    sql(q{SELECT crm.set_journey('held', 'closed')});
    publish('hourly', 'none', { on => 'schedule', every => '1 hour', audience => 'contact_id IN (9, 10)' }, { max_lateness => '30 minutes' }, '2043-01-01 00:30Z');
    tick('2043-01-01 00:59Z');
    is(entered(), '', 'not before its moment');
    tick('2043-01-01 01:00Z');
    is(entered(), '9 2043-01-01 01:00, 10 2043-01-01 01:00', 'at it');
    tick('2043-01-01 05:10Z');
    is(entered(), join(', ', map { ("$_ 2043-01-01 01:00", "$_ 2043-01-01 05:00") } 9, 10), 'of those that were missed the last');
    tick('2043-01-01 06:45Z');
    is(sql(q{SELECT count(*) FROM crm.enrolment}), '4', 'and none that was long ago');
    is(sql(q{SELECT string_agg(DISTINCT entered_by || ' ' || key || ' ' || (context -> 'entry' ->> 'occurred_at'), ', ') FROM crm.enrolment WHERE contact_id = 9 AND entered_at = '2043-01-01 05:00Z'}),
        'schedule 2043-01-01T13:00:00+08:00 2043-01-01T13:00:00+08:00', 'its moment is the key');
};

is(sql('SELECT count(*) FROM crm.verify()'), '0', 'all is sound');
$node->stop;
done_testing();
