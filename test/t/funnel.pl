# crm.funnel() and crm.funnel_times() against all choices of rows, one by one, on random rows: many at
# one time, many that match several steps, NULLs, windows by the calendar. CRM_SEED=n repeats a run.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use Test::More;

my $seed = $ENV{CRM_SEED} // int(rand(1_000_000));
srand($seed);
diag("CRM_SEED=$seed");

my $groups = 4000;
my $steps  = 5;
# windows by seconds, and by a calendar with a change to summer time
my @short = ('0', '1 second', '3 seconds', '8 seconds');
my @long  = ('1 day', '24 hours', '1 month', '1 month -1 day', '30 days', '1 day 2 hours', '2 days -3 hours');

sub one_of { return $_[ int(rand(@_)) ] }

my @rows;
for my $group (1 .. $groups)
{
    my $long   = $group % 2;
    my $within = one_of($long ? @long : @short);
    my $n      = one_of(0 .. 8);
    my $likely = one_of(0.15, 0.3, 0.6);
    for (1 .. $n)
    {
        # few times, so that many are equal; the long ones lie at the ends of months, about the change
        my $at = $long ? sprintf("2024-%s %02d:%02d:00", one_of('01-29', '01-30', '01-31', '02-28', '02-29', '03-09', '03-10', '03-11'),
            one_of(0, 1, 2, 3, 23), one_of(0, 30))
          : sprintf("2024-05-01 12:00:%02d", int(rand(6)));
        $at = '\N' if rand() < 0.05;
        push @rows, join "\t", $group, $within, $at,
          map { my $r = rand(); $r < $likely ? 't' : $r > 0.95 ? '\N' : 'f' } 1 .. $steps;
    }
    # a group that nothing is known of is a row that matches no step
    push @rows, join "\t", $group, $within, '2024-05-01 12:00:00', ('f') x $steps;
}

my $node = crm_node('funnel', conf => "timezone = 'America/New_York'\n");
$node->safe_psql('postgres', 'CREATE EXTENSION pg_crm');
my $copied = join "\n", q{CREATE TABLE r (grp integer, within interval, at timestamptz, s1 boolean, s2 boolean, s3 boolean, s4 boolean, s5 boolean)
    WITH (parallel_workers = 4);}, 'COPY r FROM STDIN;', @rows, '\.', 'ANALYZE r;';
$node->safe_psql('postgres', $copied);

# ---- all choices, one by one

my %found;
for (split /\n/, $node->safe_psql('postgres', q{SELECT grp, (extract(epoch FROM at) * 1000000)::bigint,
    (extract(epoch FROM at + within) * 1000000)::bigint, s1, s2, s3, s4, s5 FROM r WHERE at IS NOT NULL ORDER BY grp, at}))
{
    my ($group, $at, $until, @matches) = split /\|/, $_, -1;
    push @{ $found{$group} }, { at => $at, until => $until, matches => [ map { $_ eq 't' } @matches ] };
}

# The best of all choices: the highest level, complete first, whose window ends last, then begins last, then
# takes each step first.
my (@best, @chosen, %taken);
sub better
{
    my ($times, $until) = @_;
    return 1 if !@best;
    my ($old, $old_until) = @best;
    return @$times > @$old if @$times != @$old;
    return $times->[-1] < $old->[-1] if $times->[-1] != $old->[-1];
    return $until > $old_until if $until != $old_until;
    return $times->[0] > $old->[0] if $times->[0] != $old->[0];
    for my $i (1 .. $#$times)
    {
        return $times->[$i] < $old->[$i] if $times->[$i] != $old->[$i];
    }
    return 0;
}

sub choose
{
    my ($rows, $until) = @_;
    my $level = @chosen;
    @best = ([@chosen], $until) if $level > 0 && better(\@chosen, $until);
    return if $level == $steps;
    for my $i (0 .. $#$rows)
    {
        my $row = $rows->[$i];
        next if $taken{$i} || !$row->{matches}[$level] || $row->{at} > ($until // $row->{until});
        next if $level > 0 && $row->{at} < $chosen[-1];
        $taken{$i} = 1;
        push @chosen, $row->{at};
        choose($rows, $until // $row->{until});
        pop @chosen;
        delete $taken{$i};
    }
}

my @expected;
for my $group (1 .. $groups)
{
    @best = ();
    choose($found{$group} // []);
    my $times = $best[0] // [];
    push @expected, join '|', $group, scalar @$times, join ',', @$times;
}
my %levels;
$levels{ (split /\|/)[1] }++ for @expected;
cmp_ok($levels{$_} // 0, '>', 30, "random rows: level $_ is there") for 0 .. $steps;

# ---- the same of the aggregates

my $query = q{SELECT grp, level, array_to_string(ARRAY(SELECT (extract(epoch FROM t) * 1000000)::bigint
    FROM unnest(times) WITH ORDINALITY AS u(t, n) ORDER BY n), ',')
    FROM (SELECT grp, crm.funnel(within, at, s1, s2, s3, s4, s5) AS level,
        crm.funnel_times(within, at, s1, s2, s3, s4, s5) AS times FROM r GROUP BY grp) f ORDER BY grp};
my $serial   = 'SET max_parallel_workers_per_gather = 0;';
my $parallel = q{SET max_parallel_workers_per_gather = 4; SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0;
    SET parallel_tuple_cost = 0; SET parallel_leader_participation = off;};

sub compare
{
    my ($settings, $from, $name) = @_;
    (my $of = $query) =~ s/FROM r /FROM $from /;
    my @got   = split /\n/, $node->safe_psql('postgres', "$settings $of");
    my @wrong = grep { ($got[$_] // '') ne $expected[$_] } 0 .. $#expected;
    is(scalar @wrong, 0, $name);
    diag("group, level, times: $got[$_], not $expected[$_]") for @wrong[ 0 .. ($#wrong < 4 ? $#wrong : 4) ];
}

compare("$serial SET enable_hashagg = off;", 'r', 'sorted groups');
compare("$serial SET enable_sort = off; SET work_mem = '64kB';", 'r', 'hashed groups, with more of them than fit');
compare($serial, '(SELECT * FROM r ORDER BY grp, at DESC) r', 'from the last row to the first');
# with so few rows a group, only what is dear is given to several processes
$node->safe_psql('postgres', 'ALTER FUNCTION crm.funnel_add COST 2500');
my $plan = $node->safe_psql('postgres', "$parallel EXPLAIN (COSTS off) $query");
like($plan, qr/Finalize (?:Hash|Group)?Aggregate.*Gather.*Workers Planned: 4.*Partial (?:Hash|Group)?Aggregate/s, 'the plan is parallel');
compare($parallel, 'r', 'gathered by several processes');
$node->safe_psql('postgres', 'ALTER FUNCTION crm.funnel_add COST 25');
$node->safe_psql('postgres', q{CREATE TABLE e AS SELECT n % 2000 AS who, '2024-05-01'::timestamptz + n * interval '1 s' AS at, n % 3 AS kind
    FROM generate_series(1, 300000) AS n; ANALYZE e;});
like($node->safe_psql('postgres', q{EXPLAIN (COSTS off) SELECT who, crm.funnel('1 day', at, kind = 0, kind = 1, kind = 2) FROM e GROUP BY who}),
    qr/Finalize.*Partial/s, 'and so it is of more rows with the settings of a new server');

# the states of parts of the rows, joined in any order and read back from their text
$node->safe_psql('postgres', q{CREATE AGGREGATE gather(interval, timestamptz, VARIADIC boolean[]) (
    SFUNC = crm.funnel_add, STYPE = crm.funnel_state);
    CREATE AGGREGATE joined(crm.funnel_state) (SFUNC = crm.funnel_merge, STYPE = crm.funnel_state);
    CREATE TABLE parts AS SELECT grp, part, gather(within, at, s1, s2, s3, s4, s5)::text::crm.funnel_state AS state
      FROM (SELECT *, hashint4(grp + (extract(epoch FROM at) / 7)::integer) % 3 AS part FROM r) p GROUP BY grp, part;});
is($node->safe_psql('postgres', q{SELECT count(*) FROM (SELECT grp, crm.funnel_level(joined(state ORDER BY part DESC)) AS level
    FROM parts GROUP BY grp) m JOIN (SELECT grp, crm.funnel(within, at, s1, s2, s3, s4, s5) AS level FROM r GROUP BY grp) w USING (grp)
    WHERE m.level IS DISTINCT FROM w.level}), '0', 'states kept in a table and joined');

# states that were damaged: each is refused or gives a level, and the server goes on
my @made = split /\n/, $node->safe_psql('postgres', 'SELECT state::text FROM parts WHERE length(state::text) < 300 ORDER BY grp, part LIMIT 500');
my @damaged = map {
    my $text = one_of(@made);
    for (0 .. int(rand(4)))
    {
        my $at = int(rand(1 + length $text));
        substr($text, $at, one_of(0, 0, 1, 1, 5)) = one_of('', '-', ' ', ':', '0', '9', '64', '99999999999', '9223372036854775807', '18446744073709551615', '1:', ' 7:1');
    }
    $text
} 1 .. 4000;
$node->safe_psql('postgres', join "\n", 'CREATE TABLE damaged (state text);', 'COPY damaged FROM STDIN;', @damaged, '\.', q{
    CREATE FUNCTION level_of(state text) RETURNS text LANGUAGE plpgsql AS $$
    BEGIN
        RETURN crm.funnel_level(crm.funnel_merge(state::crm.funnel_state, state::crm.funnel_state)) + cardinality(crm.funnel_reached(state::crm.funnel_state)) * 0;
    EXCEPTION WHEN others THEN RETURN sqlstate;
    END $$;});
my %answers = map { split /\|/ } split /\n/, $node->safe_psql('postgres', q{SELECT level_of(state), count(*) FROM damaged GROUP BY 1});
# 22008: a window that ends beyond the calendar's last day
is(join(', ', grep { !/^([0-5]|22P02|22008)$/ } sort keys %answers), '', 'damaged states are refused, or have a level');
cmp_ok($answers{'22P02'}, '>', 500, 'many are refused');
cmp_ok($answers{1}, '>', 50, 'many are not');

done_testing();
