# The orders of CDNOW, written directly and by the executor: batches of 1 to 300 rows in a random
# order, refunds among them. Both databases end with the same rows, the history of each award
# included.
#
# CRM_SEED=n repeats a run.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmReference;
use CrmTest;
use List::Util qw(shuffle min);
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{CRM_SEED} // int(rand(1_000_000));
srand($seed);
diag("CRM_SEED=$seed");

my $dir  = PostgreSQL::Test::Utils::tempdir();
my $node = crm_node('cdnow_lanes');
my $base = crm_database($node, 'base');

open my $in, '-|', 'gzip', '-dc', 'test/fixtures/cdnow_sample.csv.gz' or die $!;
chomp(my ($header, @lines) = <$in>);
close $in or die 'the fixture cannot be read';
my @orders = map { my ($customer, $date, undef, $dollars) = split /,/, $lines[$_]; +{ customer => $customer, date => $date, dollars => $dollars, ref => sprintf('%05d', $_ + 1) } } 0 .. $#lines;
is(scalar @orders, 6919, 'all orders');

my %customers = map { $_->{customer} => 1 } @orders;
is($node->safe_psql($base, "SET pg_crm.clock = '1997-02-01Z'; SELECT count(DISTINCT contact_id) FROM crm.identify_many('customer', '{" . join(',', sort keys %customers) . "}')"), 2357, 'all customers');
my %contact = map { split /\|/ } split /\n/, $node->safe_psql($base, q{SELECT external_id, contact_id FROM crm.identity WHERE kind = 'customer'});

# orders in batches, and refunds of what is in by then
my ($text, $refunds, @in) = ('', 0);
my @left = shuffle @orders;
while (@left)
{
    my @batch = splice @left, 0, rand() < 0.3 ? 1 : 1 + int(rand(300));
    push @in, @batch;
    $text .= 'INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref) VALUES '
      . join(', ', map { "($contact{ $_->{customer} }, $_->{dollars}, '$_->{date}Z', '$_->{ref}')" } @batch) . ";\n";
    my (%taken, @refunds);
    for my $order (map { $in[ int(rand(@in)) ] } 1 .. rand(2 * @batch) * 0.4)
    {
        my $cents = $order->{cents} //= sprintf '%.0f', $order->{dollars} * 100;
        next if !$cents || $taken{ $order->{ref} }++;
        my $back = rand() < 0.5 ? $cents : 1 + int(rand($cents));
        $order->{cents} -= $back;
        push @refunds, sprintf "(%d, '%s', %.2f, '%sZ'::timestamptz + interval '%d hours')", $contact{ $order->{customer} }, $order->{ref}, $back / 100, $order->{date}, rand(5000);
    }
    $refunds += @refunds;
    $text .= "INSERT INTO crm.transaction (contact_id, kind, amount, occurred_at, refund_of)\nSELECT v.c, 'refund', v.a, v.t, o.transaction_id FROM (VALUES "
      . join(', ', @refunds) . ") AS v(c, r, a, t) JOIN crm.transaction o ON o.contact_id = v.c AND o.external_ref = v.r ORDER BY v.c, v.r;\n"
      if @refunds;
}
cmp_ok($refunds, '>', 500, 'refunds');
append_to_file("$dir/load.sql", $text);

my @dbs = ('direct', 'general');
for my $db (@dbs)
{
    $node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE $base");
    $node->safe_psql('postgres', "ALTER DATABASE $db SET pg_crm.clock = '2024-01-01Z'");
    $node->safe_psql('postgres', "ALTER DATABASE $db SET pg_crm.direct_access = " . ($db eq 'direct' ? 'on' : 'off'));
    my ($out, $err) = run_command([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db), '-f', "$dir/load.sql" ]);
    is($err, '', "$db is loaded");
    is($node->safe_psql($db, q{SELECT count(*) FILTER (WHERE kind = 'purchase'), count(*) FILTER (WHERE kind = 'refund') FROM crm.transaction}), "6919|$refunds", "$db: all orders and refunds");
    my @differences = crm_differences(sub { $node->safe_psql($db, $_[0]) });
    is(scalar @differences, 0, "$db: all is as found a second time") or diag(join "\n", @differences[ 0 .. min(9, $#differences) ]);
    is($node->safe_psql($db, 'SELECT * FROM crm.verify()'), '', "$db: verify() finds nothing");
}
for my $sql (
    'SELECT * FROM crm.profile_counter', 'SELECT contact_id, stage FROM crm.contact', 'SELECT * FROM crm.stage_move',
    'SELECT contact_id, achievement, threshold, awarded_at, source_id, revoked_at FROM crm.award',
    'SELECT contact_id, achievement, threshold, change, old_awarded_at, new_awarded_at, occurred_at FROM crm.award_change')
{
    my @rows = map { join "\n", sort split /\n/, $node->safe_psql($_, $sql) } @dbs;
    cmp_ok($rows[0] =~ tr/\n//, '>', 300, $sql =~ s/.*FROM //r . ': rows');
    ok($rows[0] eq $rows[1], $sql =~ s/.*FROM //r . ': the same in both');
}
my %changes = map { split /\|/ } split /\n/, $node->safe_psql('direct', 'SELECT change, count(*) FROM crm.award_change GROUP BY 1');
cmp_ok($changes{$_} // 0, '>', 30, "awards $_") for 'moved', 'revoked', 'regranted';

$node->stop;
done_testing();
