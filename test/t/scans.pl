# 200 000 random scans, of every scope and window, in zones whose clocks change, counted a second
# time by plain loops: which of them count, and which came too fast.
#
# They come by COPY in shuffled order from four sessions. Then codes get other windows, and
# contacts are merged and parted, and all is counted again each time.
#
# CRM_SEED=n repeats a run; CRM_SCANS=n says how many.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use IPC::Run;
use List::Util qw(min shuffle);
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{CRM_SEED} // int(rand(1_000_000));
srand($seed);
diag("CRM_SEED=$seed");
my $nscans    = $ENV{CRM_SCANS} // 200_000;
my $ncontacts = 40;

my $node = crm_node('scans', conf => "max_connections = 20\nfsync = off\n");
my $db   = crm_database($node, 'shop');
sub ask { return $node->safe_psql($db, $_[0]) }
sub rows { return map { [ split /\|/, $_, -1 ] } split /\n/, ask($_[0]) }

my $usec = sub { "(extract(epoch FROM $_[0]) * 1000000)::bigint" };

# ---- codes: each scope with each window, beginning with 1970 or in the hour that is left out in
# March and comes twice in November; campaigns and stores have two codes each
my @zones   = ('Asia/Shanghai', 'America/New_York', 'Australia/Lord_Howe');
my @windows = (undef, '1 second', '60 seconds', '1 hour', '7 hours', '1 day', '36 hours', '1 day 12 hours', '1 week', '1 month', '3 months');
my @froms   = (undef, '2024-01-31 02:30 America/New_York', '2024-01-31 01:45 Australia/Lord_Howe');
ask(join ';', map { "INSERT INTO crm.account (account_id, kind, name, time_zone) VALUES ($_, 'official_account', 'a$_', '$zones[$_ - 1]')" } 1 .. @zones);
ask("INSERT INTO crm.contact (contact_id) SELECT generate_series(1, $ncontacts)");
sub literal { return defined $_[0] ? "'$_[0]'" : 'NULL' }
my (@stores, @codes);
for my $zone (1 .. @zones)
{
    for my $window (@windows)
    {
        for my $from (@froms)
        {
            push @stores, '(' . (1 + @stores) . ", 's')";
            my $store = @stores;
            push @codes, [ $zone, "'c$store'", $store, $_, $window, $from ] for qw(code campaign campaign store store);
        }
    }
}
ask('INSERT INTO crm.store (store_id, name) VALUES ' . join ', ', @stores);
my $code = 0;
ask('INSERT INTO crm.qr_code (qr_code_id, scene, account_id, campaign, store_id, dedup_scope, dedup_window, valid_from) VALUES ' . join ', ',
    map { $code++; "($code, 'q$code', $_->[0], $_->[1], $_->[2], '$_->[3]', " . literal($_->[4]) . ', ' . literal($_->[5]) . ')' } @codes);
ask(q{INSERT INTO crm.scan_limit (name, per, max_scans, period) VALUES
    ('contact', '{contact}', 3, '10 minutes'), ('code', '{code}', 5, '1 minute'), ('store', '{store}', 8, '5 seconds'),
    ('contact and code', '{contact,code}', 1, '1 day'), ('contact and store', '{contact,store}', 2, '1 hour')});
my %limits = (
    'contact'           => [ 3, 600,   sub { $_[0]{contact} } ],
    'code'              => [ 5, 60,    sub { $_[0]{code} } ],
    'store'             => [ 8, 5,     sub { $_[1]{store} } ],
    'contact and code'  => [ 1, 86400, sub { "$_[0]{contact} $_[0]{code}" } ],
    'contact and store' => [ 2, 3600,  sub { "$_[0]{contact} $_[1]{store}" } ]);

# ---- scans: near changes of clocks and turns of days and months, and anywhere
my @turns = map { $_->[0] } rows('SELECT ' . $usec->('t') . q{ FROM unnest(ARRAY['2024-03-10 07:00Z', '2024-03-10 06:30Z', '2024-03-10 07:30Z', '2024-11-03 05:30Z',
    '2024-11-03 06:00Z', '2024-11-03 06:30Z', '2024-04-06 15:00Z', '2024-04-06 14:45Z', '2024-04-06 15:15Z', '2024-10-05 15:30Z', '2024-10-05 15:15Z', '2024-02-28 16:00Z', '2024-02-29 16:00Z',
    '2024-01-31 07:30Z', '2024-05-31 05:30Z', '2024-06-30 06:30Z', '2023-12-31 16:00Z', '2024-06-15 04:00Z', '2024-06-15 10:00Z', '2024-09-30 16:00Z']::timestamptz[]) AS t});
my $begin = (rows('SELECT ' . $usec->(q{'2023-12-01Z'::timestamptz})))[0][0];
sub at
{
    my $luck = rand();
    return $begin + int(rand(350 * 86400)) * 1_000_000 if $luck < 0.2;
    my $turn = $turns[ int(rand(@turns)) ];
    return $turn + (int(rand(3)) - 1) if $luck < 0.3;
    my $reach = (2, 30, 3600, 2 * 86400, 40 * 86400)[ int(rand(5)) ];
    return $turn + int(rand(2 * $reach) - $reach) * 1_000_000 + ($luck < 0.5 ? int(rand(1_000_000)) : 0);
}
my @scans = map { { id => $_, contact => 1 + int(rand($ncontacts)), code => 1 + int(rand(@codes)), at => at() } } 1 .. $nscans;

sub load
{
    my @shuffled = shuffle(@_);
    my @runs;
    my $text = sub { my $s = int($_[0] / 1_000_000); my @t = gmtime $s; sprintf '%04d-%02d-%02d %02d:%02d:%02d.%06dZ', $t[5] + 1900, $t[4] + 1, @t[ 3, 2, 1, 0 ], $_[0] - $s * 1_000_000 };
    for my $session (0 .. 3)
    {
        my @own = @shuffled[ grep { $_ % 4 == $session } 0 .. $#shuffled ];
        my $in  = '';
        while (my @batch = splice @own, 0, rand() < 0.1 ? 100 : 10_000)
        {
            $in .= join "\n", 'COPY crm.scan (contact_id, scan_id, qr_code_id, occurred_at) FROM STDIN;',
              (map { join "\t", @$_{qw(contact id code)}, $text->($_->{at}) } @batch), '\.', '';
        }
        my ($out, $err) = ('', '');
        push @runs, { err => \$err, run => IPC::Run::start([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db) ], '<', \$in, '>', \$out, '2>', \$err) };
    }
    for my $run (@runs)
    {
        $run->{run}->finish;
        is(${ $run->{err} }, '', 'loaded by COPY');
    }
}

# ---- the second count; bounds of days and months by PostgreSQL's own dates
sub windows_of
{
    my ($zone, $window, $from) = @_;
    return sub { '-infinity' } if $window eq '';
    my ($length, $days) = @{ (rows("SELECT " . $usec->("'$window'::interval") . ", extract(month FROM i) + extract(year FROM i) + extract(day FROM i) FROM (SELECT interval '$window') AS x(i)"))[0] };
    my $first = $from eq '' ? "'1970-01-01'::timestamp AT TIME ZONE '$zone'" : "'$from'::timestamptz";
    if ($days == 0)
    {
        my $origin = (rows('SELECT ' . $usec->($first)))[0][0];
        return sub { $_[0] - ($_[0] - $origin) % $length };
    }
    my @bounds = map { $_->[0] } rows(qq{
        SELECT DISTINCT } . $usec->("((f AT TIME ZONE '$zone') + k * interval '$window') AT TIME ZONE '$zone'") . qq{ AS bound
          FROM (SELECT $first) AS x(f), LATERAL (SELECT extract(epoch FROM '2023-08-01Z'::timestamptz - f) / extract(epoch FROM interval '$window'),
                                                        extract(epoch FROM '2025-04-01Z'::timestamptz - f) / extract(epoch FROM interval '$window')) AS y(a, b),
               generate_series(floor(least(a * 0.98, a * 1.02))::integer - 3, ceil(greatest(b * 0.98, b * 1.02))::integer + 3) AS k
         ORDER BY bound});
    return sub {
        my ($low, $high) = (0, $#bounds);
        die 'bounds end too early' if $_[0] < $bounds[0] || $_[0] >= $bounds[-1];
        while ($high - $low > 1)
        {
            my $middle = int(($low + $high) / 2);
            if ($bounds[$middle] <= $_[0]) { $low = $middle }
            else                           { $high = $middle }
        }
        return $bounds[$low];
    };
}

sub same
{
    my ($what, $got, $expected) = @_;
    my %n;
    $n{$_}++ for @$got;
    $n{$_}-- for @$expected;
    my @wrong = map { ($n{$_} > 0 ? 'not expected: ' : 'missing: ') . $_ } grep { $n{$_} } sort keys %n;
    ok(!@wrong && @$expected, sprintf '%s (%d rows)', $what, scalar @$expected)
      or diag(join "\n", "CRM_SEED=$seed", scalar(@wrong) . ' differences', @wrong[ 0 .. min(9, $#wrong) ]);
}

my %kept_windows;

sub compare
{
    my ($when) = @_;
    my %code = map { my %c; @c{qw(id zone campaign store scope window from)} = @$_; $c{id} => \%c }
      rows('SELECT qr_code_id, time_zone, campaign, store_id, dedup_scope, dedup_window, valid_from FROM crm.qr_code JOIN crm.account USING (account_id)');
    for my $c (values %code)
    {
        $c->{start} = $kept_windows{"$c->{zone}|$c->{window}|$c->{from}"} ||= windows_of(@$c{qw(zone window from)});
        $c->{key} = $c->{scope} eq 'code' ? $c->{id} : $c->{scope} eq 'campaign' ? $c->{campaign} : $c->{store};
    }
    my %first;
    for my $scan (@scans)
    {
        my $c   = $code{ $scan->{code} };
        my $key = join '|', $scan->{contact}, $c->{scope}, $c->{key}, $c->{start}->($scan->{at});
        my $now = $first{$key};
        $first{$key} = $scan if !$now || $scan->{at} < $now->{at} || $scan->{at} == $now->{at} && $scan->{id} < $now->{id};
    }
    my $start = "CASE WHEN isfinite(window_start) THEN " . $usec->('window_start') . "::text ELSE window_start::text END";
    same("$when: scans that count", [ split /\n/, ask("SELECT contact_id, scope, scope_id, $start, scan_id FROM crm.first_scan") ], [ map { "$_|$first{$_}{id}" } keys %first ]);
    my (%counted, %raw, %of_contact);
    $counted{ $_->{code} }++, $of_contact{ $_->{contact} }++ for values %first;
    $raw{ $_->{code} }++ for @scans;
    same("$when: raw and counted by code", [ split /\n/, ask('SELECT qr_code_id, sum(scans), sum(counted) FROM crm.scan_count GROUP BY 1') ], [ map { join '|', $_, $raw{$_}, $counted{$_} // 0 } keys %raw ]);
    same("$when: in the profiles", [ split /\n/, ask('SELECT contact_id, scans FROM crm.profile_counter WHERE scans > 0') ], [ map { "$_|$of_contact{$_}" } keys %of_contact ]);

    my @marks;
    for my $limit (sort keys %limits)
    {
        my ($max, $period, $subject) = @{ $limits{$limit} };
        my %together;
        push @{ $together{ $subject->($_, $code{ $_->{code} }) } }, $_ for @scans;
        for my $group (values %together)
        {
            my @sorted = sort { $a->{at} <=> $b->{at} || $a->{id} <=> $b->{id} } @$group;
            for my $i ($max .. $#sorted)
            {
                push @marks, "$limit|$sorted[$i]{contact}|$sorted[$i]{id}" if $sorted[ $i - $max ]{at} > $sorted[$i]{at} - $period * 1_000_000;
            }
        }
    }
    same("$when: scans that came too fast", [ split /\n/, ask('SELECT scan_limit, contact_id, scan_id FROM crm.scan_flag') ], \@marks);
    is(ask('SELECT * FROM crm.verify()'), '', "$when: verify() finds nothing");
    return scalar keys %first;
}

load(@scans);
my $counted = compare('loaded');
cmp_ok($counted, '<', $nscans, "$counted of $nscans count");
is(ask('SELECT count(*) FROM crm.acquisition'), ask('SELECT count(DISTINCT contact_id) FROM crm.scan'), 'each contact has a source');

# limits of all who scan are looked at scan by scan when everything is counted anew: those are for
# a shorter run, with CRM_SCANS
if ($nscans > 50_000)
{
    ask(q{DELETE FROM crm.scan_limit WHERE name IN ('code', 'store')});
    delete @limits{qw(code store)};
}

# other windows, beginnings and scopes for all codes
ask(q{UPDATE crm.qr_code c SET dedup_window = n.dedup_window, valid_from = n.valid_from, dedup_scope = n.dedup_scope
        FROM (SELECT qr_code_id, lead(dedup_window, 7) OVER (ORDER BY qr_code_id), lead(valid_from, 7) OVER (ORDER BY qr_code_id), lead(dedup_scope, 7) OVER (ORDER BY qr_code_id)
                FROM crm.qr_code) AS n(qr_code_id, dedup_window, valid_from, dedup_scope)
       WHERE c.qr_code_id = n.qr_code_id AND n.dedup_scope IS NOT NULL});
isnt(compare('defined anew'), $counted, 'other windows count otherwise');

# a tenth of the contacts is merged into others, and parted again
my %before = map { $_->{id} => $_->{contact} } @scans;
my %merged = map { $_->[1] => $_->[0] } rows("SELECT n, n + $ncontacts / 2 FROM generate_series(1, $ncontacts / 10) AS n");
ask("SELECT crm.merge($merged{$_}, $_)") for sort { $a <=> $b } keys %merged;
$_->{contact} = $merged{ $_->{contact} } // $_->{contact} for @scans;
compare('merged');
ask("SELECT crm.unmerge($_)") for sort { $a <=> $b } keys %merged;
$_->{contact} = $before{ $_->{id} } for @scans;
compare('parted');

is(join("\n", grep { /deadlock detected|could not serialize|PANIC|FATAL|XX000/ } split /\n/, slurp_file($node->logfile)), '', 'no deadlock in the log, nor worse');
$node->stop;
done_testing();
