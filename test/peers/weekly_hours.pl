# crm.weekly_hours against the npm package opening_hours, the reference implementation of the syntax.
#
# Random timetables, at random instants and around the days on which clocks jump: is it open, and when
# does that change? The package counts in local dates, so it runs once in each time zone.
#
# Two cases are not compared, where a clock jumps:
#
# - the change, where the search for it passes a time that the clock skips or shows twice, and the text
#   has a time in it. pg_crm says when is_open() changes. The package turns the written time into an
#   instant, as JavaScript does: one that is skipped comes as much later, one that is shown twice means
#   the first.
# - what is open past midnight, in the first hour after a day of 23 hours and the last hour of a day of
#   25, and changes for which the search passes it. The package takes 24 hours off to see which day
#   began the span, and there that is another day.
#
# CRM_SEED=n repeats a run; CRM_TIMETABLES=n says how many. $PG_CRM_PEERS has the node_modules.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmTimetable;
use File::Temp qw(tempdir);
use List::Util qw(max);
use Test::More;

my $seed       = $ENV{CRM_SEED}       // int(rand(1_000_000));
my $timetables = $ENV{CRM_TIMETABLES} // 300;
my $instants   = 40;
diag("CRM_SEED=$seed");
srand($seed);

my $dir = tempdir(CLEANUP => 1);

sub psql
{
    my ($sql) = @_;
    open my $script, '>', "$dir/script.sql" or die "cannot write: $!\n";
    print $script $sql;
    close $script;
    my @lines = `psql -XqAt -F '\t' -v ON_ERROR_STOP=1 -f $dir/script.sql`;
    die "psql failed\n" if $? != 0;
    chomp @lines;
    return @lines;
}

sub peer
{
    my ($zone) = @_;
    local $ENV{TZ}        = $zone;
    local $ENV{NODE_PATH} = "$ENV{PG_CRM_PEERS}/node_modules";
    my @lines = `node $FindBin::RealBin/opening_hours.cjs <$dir/asked`;
    die "node failed\n" if $? != 0;
    chomp @lines;
    return @lines;
}

# times of the day that a text names
sub times_of
{
    my ($text) = @_;
    my %times;
    $times{ ($1 * 60 + $2) % 1440 } = 1 while $text =~ /(\d+):(\d+)/g;
    return keys %times;
}

# does a span go past midnight?
sub ends_late
{
    my ($text) = @_;
    while ($text =~ /(\d+):(\d+)-(\d+):(\d+)/g)
    {
        my ($from, $until) = ($1 * 60 + $2, $3 * 60 + $4);
        $until += 1440 if $until <= $from;
        return 1 if $until > 1440;
    }
    return 0;
}

for my $zone ('Asia/Shanghai', 'Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe')
{
    # when the clock jumps, and from what to what minute of the day
    my @jumps = map { [ split /\t/ ] } psql(qq{
        SELECT extract(epoch FROM h)::bigint, extract(epoch FROM old)::int / 60, extract(epoch FROM new)::int / 60
          FROM (SELECT h, (h - interval '1 second') AT TIME ZONE '$zone' - (h - interval '1 second') AT TIME ZONE 'UTC' AS old,
                       h AT TIME ZONE '$zone' - h AT TIME ZONE 'UTC' AS new
                  FROM generate_series('2022-01-01Z'::timestamptz, '2032-01-01Z', '30 minutes') AS h) AS o WHERE old <> new});
    is(scalar(@jumps), $zone eq 'Asia/Shanghai' ? 0 : 20, "$zone: jumps of the clock in ten years");

    my (@texts, @asked);
    open my $file, '>', "$dir/asked" or die "cannot write: $!\n";
    for my $n (0 .. $timetables - 1)
    {
        my $text = crm_timetable()->{text};
        my %at;
        while (keys %at < $instants)
        {
            my $at = 1672531200 + int(rand(6 * 365 * 86400));
            # half of them within three days of a jump; most at a whole minute or next to one
            $at = $jumps[ int(rand(@jumps)) ][0] - 3 * 86400 + int(rand(4 * 86400)) if @jumps && rand() < 0.5;
            $at -= $at % 60 + (rand() < 0.2 ? 1 : 0) if rand() < 0.8;
            $at -= $at % 900 if rand() < 0.4;
            $at{$at} = 1;
        }
        my @at = sort { $a <=> $b } keys %at;
        print $file "$text\t", join(',', @at), "\n";
        push @texts, $text;
        push @asked, map { [ $n, $_ ] } @at;
    }
    close $file;

    my @theirs = map { [ split /\t/ ] } peer($zone);
    open my $ours, '>', "$dir/ours" or die "cannot write: $!\n";
    print $ours "$_\t$texts[$asked[$_][0]]\t$asked[$_][1]\n" for 0 .. $#asked;
    close $ours;
    my @ours = map { [ split /\t/ ] } psql(qq{
        CREATE TEMP TABLE asked (n integer, text text, second bigint);
        \\copy asked FROM '$dir/ours'
        SELECT is_open::int, coalesce(extract(epoch FROM CASE WHEN is_open THEN crm.next_closing(hours, instant, '$zone')
                                                              ELSE crm.next_opening(hours, instant, '$zone') END)::bigint::text, 'never')
          FROM (SELECT n, hours, instant, crm.is_open(hours, instant, '$zone') AS is_open
                  FROM (SELECT n, text::crm.weekly_hours AS hours, to_timestamp(second) AS instant FROM asked) AS t) AS o ORDER BY n});
    is(scalar(@ours), scalar(@asked), "$zone: pg_crm answers at each instant");
    is(scalar(@theirs), scalar(@asked), 'and so does the package');

    my ($left_out, $compared, @open, @change) = (0, 0);
    my %times = map { $_ => [ times_of($_) ] } @texts;
    my %late  = map { $_ => ends_late($_) } @texts;
    my $unsure = 0;
    for my $i (0 .. $#asked)
    {
        my ($n, $at) = @{ $asked[$i] };
        my ($open, $change)             = @{ $ours[$i] };
        my ($their_open, $their_change) = @{ $theirs[$i] };
        my $where = "$texts[$n] at $at: ours $open $change, theirs $their_open $their_change";
        my $is_unsure = 0;
        my $until = max($at, grep { /^\d+$/ } $change, $their_change);
        my $excused = 0;
        for my $jump (@jumps)
        {
            my ($second, $old, $new) = @$jump;
            my $length = abs($new - $old);

            if ($late{ $texts[$n] })
            {
                my $midnight = (int(($second + 60 * $new) / 86400) + 1) * 86400 - 60 * $new;
                my ($first, $end) = $new > $old ? ($midnight, $midnight + 60 * $length) : ($midnight - 60 * $length, $midnight);
                $is_unsure = 1 if $at >= $first && $at < $end;
                $excused   = 1 if $until >= $first && $at <= $end;
            }

            # by the clock, the minutes that are skipped or come twice: up to the later of the two readings
            my $last = ($second / 60 + max($old, $new)) % 1440;
            next if $until < $second - 60 * $length || $at > $second + 60 * $length;
            $excused = 1 if grep { ($last - $_) % 1440 <= $length } @{ $times{ $texts[$n] } };
        }
        $unsure++ if $is_unsure;
        push @open, $where if !$is_unsure && $open ne $their_open;
        if ($excused) { $left_out++ }
        else
        {
            $compared++;
            push @change, $where if $change ne $their_change;
        }
    }
    is(join("\n", @open[ 0 .. ($#open > 4 ? 4 : $#open) ]), '', "$zone: open at the same of " . (@asked - $unsure) . " instants, $unsure left out, seed $seed");
    is(join("\n", @change[ 0 .. ($#change > 4 ? 4 : $#change) ]), '', "$zone: the same next change at $compared instants; $left_out left out");
    cmp_ok($compared, '>', @asked * 0.7, 'most are compared');
    cmp_ok($unsure, '<', @asked * 0.02, 'and nearly all of the other');
}

done_testing();
