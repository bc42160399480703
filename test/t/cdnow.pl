# Real orders: those of the CDNOW sample in every load order, alone and by several clients, with
# and without refunds. What is expected comes from a file computed apart from the extension, and
# from plain SQL over the orders.
#
# CRM_SEED=n repeats a run's shuffles and refunds.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use IPC::Run;
use List::Util qw(shuffle sum min);
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = defined $ENV{CRM_SEED} ? $ENV{CRM_SEED} : int(rand(1_000_000));
srand($seed);
diag("CRM_SEED=$seed");

my $dir  = PostgreSQL::Test::Utils::tempdir();
my $node = crm_node('cdnow');

sub fixture
{
    my ($name) = @_;
    open my $in, '-|', 'gzip', '-dc', "test/fixtures/$name" or die "$name: $!";
    chomp(my ($header, @lines) = <$in>);
    close $in or die "$name cannot be read";
    my @names = split /,/, $header;
    return map { my %row; @row{@names} = split /,/, $_, -1; \%row } @lines;
}

sub sorted
{
    my ($db, $sql) = @_;
    return sort split /\n/, $node->safe_psql($db, $sql);
}

# the same rows; shows the first that differ
sub same
{
    my ($got, $expected, $name) = @_;
    my %count;
    $count{$_}++ for @$got;
    $count{$_}-- for @$expected;
    my @more = sort grep { $count{$_} > 0 } keys %count;
    my @less = sort grep { $count{$_} < 0 } keys %count;
    ok(!@more && !@less && @$expected, sprintf '%s (%d rows)', $name, scalar @$expected)
      or diag(join "\n", scalar(@more) . ' not expected:', @more[ 0 .. min(9, $#more) ],
        scalar(@less) . ' missing:', @less[ 0 .. min(9, $#less) ]);
}

# all of the files at once, each by a client of its own; none may fail or say a word
sub load
{
    my ($db, $name, @files) = @_;
    my @runs = map {
        my ($out, $err) = ('', '');
        +{ out => \$out, err => \$err, run => IPC::Run::start([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db), '-f', $_ ], '<', \undef, '>', \$out, '2>', \$err) };
    } @files;
    my @bad;
    for my $run (@runs)
    {
        $run->{run}->finish;
        push @bad, ${ $run->{err} } || 'failed' if $run->{run}->result(0) != 0 || ${ $run->{err} } ne '';
    }
    is(join("\n", @bad), '', "$name is loaded by " . @files . ' at once');
}

sub copy_text
{
    my ($table, @rows) = @_;
    return join("\n", "COPY $table FROM stdin;", (map { join "\t", @$_ } @rows), '\.') . "\n";
}

sub file
{
    my ($name, $text) = @_;
    append_to_file("$dir/$name", $text);
    return "$dir/$name";
}

# ---- the base of all databases: the customers, of whom every other is known before the first
# order and the rest only when all is over, so that their histories begin with their orders
my @cdnow = fixture('cdnow_sample.csv.gz');
my @truth = fixture('cdnow_sample_truth_per_customer.csv.gz');
my @early = map { $_->{customer_id} } grep { $_->{customer_id} % 2 == 0 } @truth;
my @late  = map { $_->{customer_id} } grep { $_->{customer_id} % 2 == 1 } @truth;
crm_database($node, 'base');
my %clock = ('1996-12-31Z' => \@early, '1998-07-01Z' => \@late);
for my $clock (sort keys %clock)
{
    my @some = @{ $clock{$clock} };
    is($node->safe_psql('base', "SET pg_crm.clock = '$clock'; SELECT count(DISTINCT contact_id) FROM crm.identify_many('customer', '{" . join(',', @some) . "}')"),
        scalar @some, scalar(@some) . " customers known on $clock");
}
my %contact = map { split /\|/ } split /\n/, $node->safe_psql('base', q{SELECT external_id, contact_id FROM crm.identity WHERE kind = 'customer'});
is(scalar keys %contact, 2357, 'all customers are contacts');

my $columns = 'crm.transaction (contact_id, amount, occurred_at, external_ref)';
my @orders;
push @orders, [ $contact{ $_->{customer_id} }, $_->{dollars}, "$_->{date} 00:00Z", sprintf('%05d', @orders + 1) ] for @cdnow;
is(scalar @orders, 6919, 'all orders');

# ---- what can be seen of a database, apart from ids and the time of recording
my $awards = q{SELECT a.contact_id, a.achievement, a.threshold, a.awarded_at, a.revoked_at, t.external_ref
    FROM crm.award a LEFT JOIN crm.transaction t ON t.contact_id = a.contact_id AND t.transaction_id = a.source_id};
my $live     = "$awards WHERE a.revoked_at IS NULL";
my $stages   = 'SELECT contact_id, since, until, stage, reason FROM crm.stage_history';
my $counters = 'SELECT * FROM crm.profile_counter';
my $current  = 'SELECT c.contact_id, c.stage, p.stage FROM crm.contact c JOIN crm.profile_counter p USING (contact_id)';

# and what plain SQL makes of the orders: net amounts at the orders' times
my $walk = q{WITH net AS (
    SELECT o.contact_id, o.transaction_id, o.external_ref, o.occurred_at, o.amount,
           o.amount - coalesce((SELECT sum(r.amount) FROM crm.transaction r WHERE r.contact_id = o.contact_id AND r.refund_of = o.transaction_id), 0) AS net
      FROM crm.transaction o WHERE o.kind = 'purchase'
), running AS (
    SELECT *, count(*) OVER w AS nth, sum(net) OVER w AS spent, sum(net) OVER w - net AS before
      FROM net WHERE NOT (amount > 0 AND net = 0)
    WINDOW w AS (PARTITION BY contact_id ORDER BY occurred_at, external_ref COLLATE "C", transaction_id ROWS UNBOUNDED PRECEDING)
), began AS (
    SELECT c.contact_id, least(c.created_at, min(o.occurred_at)) AS since FROM crm.contact c LEFT JOIN net o USING (contact_id) GROUP BY 1
) };
my $true_awards = $walk . q{SELECT contact_id, name, threshold, occurred_at, NULL, external_ref
    FROM running JOIN (SELECT name, measure, unnest(thresholds) AS threshold FROM crm.achievement WHERE on_kind = 'purchase') a
      ON CASE measure WHEN 'count' THEN nth = threshold ELSE before < threshold AND threshold <= spent END};
my $true_counters = $walk . q{SELECT contact_id, count(transaction_id), coalesce(sum(net), 0), min(occurred_at), max(occurred_at)
    FROM crm.contact LEFT JOIN running USING (contact_id) GROUP BY 1};
my $some_counters = q{SELECT contact_id, orders, spend, first_order_at, last_order_at FROM crm.profile_counter};
my $true_stages = $walk . q{, move AS (
    SELECT contact_id, since, 'user' AS stage, 1 AS rank FROM began
    UNION ALL SELECT contact_id, occurred_at, 'paying', 2 FROM running WHERE nth = 1
    UNION ALL SELECT contact_id, occurred_at, 'loyal', 3 FROM running WHERE nth = 5
), last AS (SELECT DISTINCT ON (contact_id, since) * FROM move ORDER BY contact_id, since, rank DESC)
SELECT contact_id, since, lead(since) OVER (PARTITION BY contact_id ORDER BY since), stage, CASE stage WHEN 'user' THEN 'opening' ELSE 'rule' END FROM last};

sub sound
{
    my ($db) = @_;
    is($node->safe_psql($db, 'SELECT * FROM crm.verify()'), '', "$db: verify() finds nothing");
}

sub equals_plain_sql
{
    my ($db) = @_;
    same([ sorted($db, $live) ],          [ sorted($db, $true_awards) ],   "$db: awards are those of plain SQL");
    same([ sorted($db, $some_counters) ], [ sorted($db, $true_counters) ], "$db: counters");
    same([ sorted($db, $stages) ],        [ sorted($db, $true_stages) ],   "$db: stages");
    is($node->safe_psql($db, "SELECT count(*) FROM ($current) AS x(contact_id, a, b) WHERE a <> b"), 0, "$db: the contact shows its stage");
    sound($db);
}

# ---- file order, one COPY
$node->safe_psql('postgres', 'CREATE DATABASE in_order TEMPLATE base');
load('in_order', 'file order', file('in_order.sql', copy_text($columns, @orders)));

is($node->safe_psql('in_order', q{SELECT count(*) FILTER (WHERE orders >= 1), count(*) FILTER (WHERE orders >= 2),
        count(*) FILTER (WHERE orders >= 5), count(*) FILTER (WHERE orders >= 10), sum(spend) FROM crm.profile}),
    '2357|1152|388|111|244091.94', 'customers with 1, 2, 5, 10 orders; spend');
is($node->safe_psql('in_order', q{SELECT string_agg(threshold || ':' || n, ' ' ORDER BY threshold) FROM
        (SELECT threshold, count(*) AS n FROM crm.award WHERE achievement = 'spend_milestone' AND revoked_at IS NULL GROUP BY 1) AS x}),
    '100:615 500:76 1000:20 5000:1', 'spend of 100, 500, 1000, 5000');
is($node->safe_psql('in_order', q{SELECT string_agg(stage || ' ' || contacts, ' ' ORDER BY rank) FROM crm.lifecycle_funnel WHERE contacts > 0}),
    'paying 1969 loyal 388', 'stages');
my %column = (
    'first_purchase|1' => 'order_1_at', 'second_purchase|2' => 'order_2_at', 'purchase_milestone|5' => 'order_5_at',
    'purchase_milestone|10' => 'order_10_at', 'purchase_milestone|20' => 'order_20_at', 'spend_milestone|100' => 'spend_100_at',
    'spend_milestone|500' => 'spend_500_at', 'spend_milestone|1000' => 'spend_1000_at');
my (@dates, %seen);
for my $row (@truth)
{
    for my $award (sort grep { $row->{ $column{$_} } ne '' } keys %column)
    {
        push @dates, "$contact{ $row->{customer_id} }|$award|$row->{ $column{$award} } 00:00:00+00";
        $seen{$award}++;
    }
}
is(scalar(keys %seen), 8, 'the truth has dates of every award it knows');
same([ grep { !/\|purchase_milestone\|(50|100)\||\|spend_milestone\|(5000|10000)\|/ }
        sorted('in_order', 'SELECT contact_id, achievement, threshold, awarded_at FROM crm.award WHERE revoked_at IS NULL') ],
    \@dates, 'every award has the date of the truth');
same([ sorted('in_order', 'SELECT contact_id, orders, spend, first_order_at, last_order_at FROM crm.profile') ],
    [ map { "$contact{ $_->{customer_id} }|$_->{orders}|$_->{spend}|$_->{order_1_at} 00:00:00+00|$_->{last_order_at} 00:00:00+00" } @truth ],
    'every profile that of the truth');
sub digit
{
    my ($reached, @bounds) = @_;
    return 1 + grep { $reached->($_) } @bounds;
}
same([ sorted('in_order', q{SELECT contact_id, cell, recency_days, orders, spend FROM crm.rfm('1998-06-30Z', time_zone => 'UTC')}) ],
    [ map { my $row = $_; join '|', $contact{ $row->{customer_id} },
              digit(sub { $row->{recency_days} <= $_[0] }, 30, 90, 180) . digit(sub { $row->{orders} >= $_[0] }, 2, 5, 10) . digit(sub { $row->{spend} >= $_[0] }, 50, 200, 1000),
              @$row{qw(recency_days orders spend)} } @truth ],
    'recency, frequency and monetary value of every customer');
equals_plain_sql('in_order');

my %in_order = map { $_ => [ sorted('in_order', $_) ] } $awards, $stages, $counters;

# ---- other load orders
sub batches
{
    my ($size, @rows) = @_;
    my @batches;
    push @batches, [ splice @rows, 0, $size ] while @rows;
    return @batches;
}

sub statement
{
    my ($batch) = @_;
    return copy_text($columns, @$batch) if @$batch > 1 && rand() < 0.5;
    return "INSERT INTO $columns VALUES " . join(', ', map { "($_->[0], $_->[1], '$_->[2]', '$_->[3]')" } @$batch) . ";\n";
}

sub load_order
{
    my ($db, $clients, @batches) = @_;
    my @texts = ('') x $clients;
    $texts[ $_ % $clients ] .= statement($batches[$_]) for 0 .. $#batches;
    $node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE base");
    load($db, $db, map { file("$db$_.sql", $texts[$_]) } 0 .. $#texts);
    same([ sorted($db, $awards) ],   $in_order{$awards},   "$db: awards as in file order");
    same([ sorted($db, $stages) ],   $in_order{$stages},   "$db: stage_history as in file order");
    same([ sorted($db, $counters) ], $in_order{$counters}, "$db: counters as in file order");
    sound($db);
}

load_order('reversed', 1, [ reverse @orders ]);
load_order('reversed_single', 1, batches(1, reverse @orders));
load_order("shuffled_$_", 4, batches($_, shuffle @orders)) for 1, 7, 1000;
cmp_ok($node->safe_psql('shuffled_7', q{SELECT count(*) FROM crm.award_change WHERE change = 'moved'}), '>', 100, 'late orders moved awards');

# ---- refunds: partial ones, full ones, several of one order
my @refunds;
for my $order (shuffle grep { $_->[1] > 0 } @orders)
{
    last if @refunds > 2500;
    my $left = sprintf '%.0f', $order->[1] * 100;
    my $full = rand() < 0.5;
    my $n    = 1 + int(rand(3));
    for my $k (1 .. $n)
    {
        my $cents = $full && $k == $n ? $left : 1 + int(rand($left * 0.6));
        last if $left < 1 || $cents > $left;
        $left -= $cents;
        push @refunds, [ $order, sprintf('%.2f', $cents / 100), sprintf("%s + interval '%d hours'", "timestamptz '$order->[2]'", rand(24 * 200)), 'r' . @refunds ];
    }
}
@refunds = shuffle @refunds;

sub refund_statement
{
    my (@batch) = @_;
    return join '', map { "SELECT crm.refund($_->[0][0], '$_->[0][3]', $_->[1], $_->[2], '$_->[3]');\n" } @batch if @batch < 3;
    return "INSERT INTO crm.transaction (contact_id, kind, amount, occurred_at, external_ref, refund_of)\n"
      . "SELECT v.c, 'refund', v.a, v.t, v.k, o.transaction_id FROM (VALUES "
      . join(', ', map { "($_->[0][0], $_->[1], $_->[2], '$_->[3]', '$_->[0][3]')" } @batch)
      . ") AS v(c, a, t, k, r) JOIN crm.transaction o ON o.contact_id = v.c AND o.external_ref = v.r;\n";
}

sub refund_statements
{
    my @left = @_;
    my $text = '';
    $text .= refund_statement(splice @left, 0, rand() < 0.6 ? 1 + int(rand(2)) : 3 + int(rand(200))) while @left;
    return $text;
}

my @quarters = ([], [], [], []);
push @{ $quarters[ $_ % 4 ] }, $refunds[$_] for 0 .. $#refunds;
load('in_order', 'refunds of the file order', file('refunds.sql', refund_statements(@refunds)));
load('shuffled_7', 'refunds in another order', map { file("refunds$_.sql", refund_statements(@{ $quarters[$_] })) } 0 .. 3);

# orders and refunds mixed, each refund somewhere after its order, later orders of its contact
# before and after it
my (%of, $mixed);
push @{ $of{ $_->[0][3] } }, $_ for @refunds;
my @waiting;
for my $batch (batches(7, shuffle @orders))
{
    $mixed .= statement($batch);
    push @waiting, map { @{ $of{ $_->[3] } || [] } } @$batch;
    @waiting = shuffle @waiting;
    $mixed .= refund_statement(splice @waiting, 0, 1 + int(rand(8))) if @waiting && rand() < 0.7;
}
$mixed .= refund_statements(@waiting);
$node->safe_psql('postgres', 'CREATE DATABASE mixed TEMPLATE base');
load('mixed', 'mixed with the orders', file('mixed.sql', $mixed));

for my $db ('in_order', 'shuffled_7', 'mixed')
{
    is($node->safe_psql($db, q{SELECT count(*), sum(amount) FROM crm.transaction WHERE kind = 'refund'}),
        sprintf('%d|%.2f', scalar @refunds, sum(map { $_->[1] } @refunds)), "$db: all refunds");
    equals_plain_sql($db);
}
cmp_ok($node->safe_psql('in_order', "SELECT count(*) FROM crm.award WHERE revoked_at IS NOT NULL"), '>', 100, 'awards were revoked');
cmp_ok($node->safe_psql('in_order', "SELECT count(*) FROM crm.award_change WHERE change = 'moved'"), '>', 100, 'and moved');
cmp_ok($node->safe_psql('in_order', "SELECT count(*) FROM crm.contact WHERE stage = 'user'"), '>', 30, 'contacts without an order left');
same([ sorted($_, $counters) ], [ sorted('in_order', $counters) ], "$_: all counters as with refunds after the file order") for 'shuffled_7', 'mixed';
same([ sorted($_, $stages) ], [ sorted('in_order', $stages) ], "$_: stage_history, too") for 'shuffled_7', 'mixed';

$node->stop;
done_testing();
