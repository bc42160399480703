# crm.funnel() over real streams: every figure of the truth files, which plain scripts found that
# know nothing of pg_crm; by user, user and item, and session.
use strict;
use warnings;
use IPC::Run;
use JSON::PP;
use POSIX qw(strftime);
use Test::More;

my $folder = $ENV{PG_CRM_DATA} or BAIL_OUT('PG_CRM_DATA is not set');

# columns: type, at, user, item, session
my %sets = (
    rees46 => {
        stream => 'rees46_events',
        row    => sub { my @f = @_; return @f[ 1, 0, 7, 2, 8 ] },
    },
    taobao => {
        stream => 'taobao_events_half',
        row    => sub { my @f = @_; return ($f[3], "epoch $f[4]", @f[ 0, 1 ], '') },
    });
my %keys = (user => 'u', 'user+item' => 'u, i', session => 's');

sub psql
{
    my ($in) = @_;
    my ($out, $err) = ('', '');
    IPC::Run::run([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1' ], '<', \$in, '>', \$out, '2>', \$err)
      or die "psql: $err";
    chomp $out;
    return $out;
}

for my $name (sort keys %sets)
{
    my $set = $sets{$name};
    open my $lines, '-|', 'gzip', '-dc', "$folder/$set->{stream}.csv.gz" or die "$set->{stream}: $!";
    <$lines>;
    my @rows;
    while (<$lines>)
    {
        chomp;
        my ($type, $at, @keys) = $set->{row}->(split /,/);
        $at = $at =~ /^epoch (.*)/ ? strftime('%Y-%m-%d %H:%M:%SZ', gmtime $1) : "${at}Z";
        push @rows, join "\t", $type, $at, @keys;
    }
    close $lines;
    psql(join "\n", "CREATE TABLE $name (k text, at timestamptz, u text, i text, s text);", "COPY $name FROM STDIN;", @rows, '\.', "ANALYZE $name;");

    open my $file, '<', "$folder/$set->{stream}_truth.json" or die $!;
    my $truth = decode_json(do { local $/; <$file> });
    cmp_ok(scalar @{ $truth->{funnels} }, '>', 50, "$name: figures are there");
    for my $funnel (@{ $truth->{funnels} })
    {
        my $key   = $keys{ $funnel->{grouped_by} } or die "grouped by $funnel->{grouped_by}";
        my $steps = join ', ', map { 'k IN (' . join(', ', map { "'$_'" } @$_) . ')' } @{ $funnel->{steps} };
        my $want  = $funnel->{default};
        my $n     = @{ $funnel->{steps} };
        is( psql("SELECT count(*)" . join('', map { ", count(*) FILTER (WHERE level = $_)" } 0 .. $n)
                  . " FROM (SELECT crm.funnel('$funnel->{window_seconds} seconds', at, $steps) AS level FROM $name GROUP BY $key) f"),
            join('|', $funnel->{groups}, map { $want->{"level_$_"} } 0 .. $n),
            "$name: $funnel->{funnel} by $funnel->{grouped_by} in $funnel->{window_seconds} s");
    }
}

# as they are told in the README of the data
is(psql("SELECT string_agg(n::text, ' / ' ORDER BY w) FROM (VALUES ('60 s'::interval), ('300 s'), ('1 h')) AS v(w)
    CROSS JOIN LATERAL (SELECT count(*) FILTER (WHERE l = 3) AS n FROM (SELECT crm.funnel(w, at, k = 'view', k = 'cart', k = 'purchase') AS l
    FROM rees46 GROUP BY u) f) c"), '16 / 54 / 62', 'REES46: 60 s, 300 s, 1 h');
is(psql("SELECT count(*) FILTER (WHERE l >= 2), count(*) FILTER (WHERE l = 3)
    FROM (SELECT crm.funnel('1 hour', at, k = 'pv', k = 'cart', k = 'buy') AS l FROM taobao GROUP BY u) f"), '893|8', 'Taobao: 1 h');

# without SQL: the same as facts of contacts
psql(q{SELECT crm.install();
    CREATE TABLE who AS SELECT u, row_number() OVER (ORDER BY u) AS contact_id FROM rees46 GROUP BY u;
    INSERT INTO crm.contact (contact_id) SELECT contact_id FROM who;
    INSERT INTO crm.event (contact_id, kind, occurred_at) SELECT contact_id, CASE k WHEN 'purchase' THEN 'pay' ELSE k END, at FROM rees46 JOIN who USING (u);
    ANALYZE crm.event;});
for my $figure ([ 60, '4504|91|16' ], [ 300, '4504|110|54' ], [ 3600, '4504|111|62' ], [ 604800, '4504|111|62' ])
{
    my ($seconds, $reached) = @$figure;
    for my $by_time ('entry', 'event')
    {
        is(psql("SELECT string_agg(reached::text, '|' ORDER BY step) FROM crm.fact_funnel('[\"view\", \"cart\", \"pay\"]', '$seconds s', '2019-10-01 UTC', '2019-10-02 UTC', '$by_time')"),
            $reached, "fact_funnel() by $by_time in $seconds s");
    }
    is(psql("SELECT count(*) FROM crm.fact_funnel_rows('[\"view\", {\"on\": \"cart\", \"when\": \"true\"}, \"pay\"]', '$seconds s', '2019-10-01 UTC', '2019-10-02 UTC', step => 3)"),
        (split /\|/, $reached)[2], "fact_funnel_rows(), a step by a rule, in $seconds s");
}
is(psql(q{SELECT string_agg(reached::text, '|' ORDER BY step) FROM crm.fact_funnel('["view", "cart", "pay"]', '1 hour', '2019-10-01 01:00 UTC', '2019-10-01 02:00 UTC')}),
    psql(q{SELECT concat_ws('|', count(*) FILTER (WHERE l >= 1), count(*) FILTER (WHERE l >= 2), count(*) FILTER (WHERE l >= 3))
        FROM (SELECT crm.funnel('1 hour', at, k = 'view' AND at >= '2019-10-01 01:00 UTC' AND at < '2019-10-01 02:00 UTC', k = 'cart', k = 'purchase') AS l FROM rees46 GROUP BY u) f}),
    'entries of an hour');

done_testing();
