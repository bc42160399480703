# Where a row was written is known while its subtransaction lasts, and not after it: a savepoint that is rolled back leaves
# the end of the table to VACUUM, which cuts it off.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use Test::More;

my $node   = crm_node('last_updated');
my $db     = crm_database($node, 'shop');
my $vacuum = sprintf q{psql -qX -d "%s" -c 'VACUUM crm.profile_counter'}, $node->connstr($db);
my $pages  = q{SELECT pg_relation_size('crm.profile_counter') / 8192};

$node->safe_psql($db, 'ALTER TABLE crm.profile_counter SET (autovacuum_enabled = off); INSERT INTO crm.contact (contact_id) SELECT generate_series(1, 40);
    INSERT INTO crm.transaction (contact_id, amount) SELECT generate_series(1, 40), 5');
my $before = $node->safe_psql($db, $pages);
my $orders = join "\n", ('INSERT INTO crm.transaction (contact_id, amount) VALUES (7, 1);') x 300;
my ($out, $err);
$node->psql($db, <<"SQL", stdout => \$out, stderr => \$err, on_error_stop => 1);
BEGIN;
SAVEPOINT one;
$orders
$pages;
ROLLBACK TO one;
\\! $vacuum
$pages;
INSERT INTO crm.transaction (contact_id, amount) VALUES (7, 2);
COMMIT;
SQL
is($err, '', 'an order after the savepoint finds the row');
my ($long, $cut) = split /\n/, $out;
cmp_ok($long, '>', $before, 'the rows of the savepoint made the table longer');
cmp_ok($cut, '<', $long, 'and VACUUM cut it off');
is($node->safe_psql($db, 'SELECT orders, spend FROM crm.profile_counter WHERE contact_id = 7'), '2|7', 'nothing of the savepoint counts');
is($node->safe_psql($db, 'SELECT * FROM crm.verify()'), '', 'sound');
$node->stop;
done_testing();
