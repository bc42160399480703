# The warehouse feed of doc/warehouse.md: facts in a plain PostgreSQL, through merges, late facts, refunds and new months
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my @blocks = slurp_file('doc/warehouse.md') =~ /^```pgsql\n(.*?)^```$/gms;
is(scalar @blocks, 3, 'the document has its three statements');

my $crm = crm_node('crm', conf => "wal_level = logical\nmax_wal_senders = 10\nmax_replication_slots = 10\n");
my $warehouse = crm_node('warehouse', preload => 0);
crm_database($crm, 'shop');
$warehouse->safe_psql('postgres', 'CREATE DATABASE lake');

my $clock = q{SET pg_crm.clock = '2025-03-10 12:00+08';};
$crm->safe_psql('shop', qq{$clock
    SELECT crm.maintain_partitions();
    INSERT INTO crm.account (kind, name) VALUES ('official_account', 'oa');
    INSERT INTO crm.store (name, opening_hours) VALUES ('Bund', 'Mo-Su 10:00-22:00');
    SELECT crm.define_qr_code('{"account_id": 1, "scene": "poster", "store_id": 1}');
    SELECT crm.define_touchpoint('{"name": "order", "on_kind": "purchase"}');
    SELECT crm.scan('poster', 'oa', 'openid-of-one', at => '2025-03-01'), crm.follow('oa', 'openid-of-one', at => '2025-03-01');
    SELECT crm.purchase(1, 120, '2025-03-05', 'secret-ref', items => '[{"sku": "secret-item"}]');
    SELECT crm.bind_mobile(1, '13800138000');
    UPDATE crm.contact SET name = 'secret-name', attributes = '{"a": "secret-attribute"}', city = 'Shanghai' WHERE contact_id = 1;
    SELECT crm.track(1, 'cart', '{"sku": "secret-property"}')});
$crm->safe_psql('shop', $blocks[0]);
$crm->safe_psql('shop', $blocks[1]);
$warehouse->safe_psql('lake', $blocks[2]);
$warehouse->safe_psql('lake', sprintf q{CREATE SUBSCRIPTION crm_warehouse CONNECTION 'host=%s port=%s dbname=shop user=warehouse' PUBLICATION crm_warehouse},
    $crm->host, $crm->port);
$warehouse->wait_for_subscription_sync($crm, 'crm_warehouse', 'lake');

# every published column of every published table, compared
my %columns = map { split /\|/, $_, 2 } split /\n/, $crm->safe_psql('shop', q{
    SELECT p.tablename || '|' || array_to_string(p.attnames, ', ') FROM pg_publication_tables p WHERE p.pubname = 'crm_warehouse'});
cmp_ok(scalar keys %columns, '>=', 14, 'tables are published');
sub same
{
    my ($name) = @_;
    $crm->wait_for_catchup('crm_warehouse');
    my $query = join ';', map {"SELECT '$_', $columns{$_} FROM crm.$_ ORDER BY $columns{$_}"} sort keys %columns;
    my ($here, $there) = map { $_->[0]->safe_psql($_->[1], $query) } [ $crm, 'shop' ], [ $warehouse, 'lake' ];
    is($there, $here, $name);
    return $there;
}
like(same('what was there is copied'), qr/^transaction\|1\|1\|purchase\|120/m, 'an order is among it');
is($warehouse->safe_psql('lake', q{SELECT count(*) FROM pg_extension WHERE extname = 'pg_crm'}), '0', 'the warehouse has no pg_crm');

# rows of one statement, of COPY, and of functions
$crm->safe_psql('shop', qq{$clock
    SELECT crm.identify('customer', 'C-' || n) FROM generate_series(1, 50) n;
    INSERT INTO crm.event (contact_id, kind, occurred_at) SELECT 1 + n % 40, 'view', '2025-03-01'::timestamptz + n * interval '1 minute' FROM generate_series(1, 2000) n;
    INSERT INTO crm.transaction (contact_id, amount, occurred_at) SELECT 1 + n % 40, n, '2025-03-01'::timestamptz + n * interval '1 minute' FROM generate_series(1, 500) n;
    SELECT crm.record_emotion(1, 'order', 1, 'survey', 'secret-interaction', 0.5)});
like(same('statements of many rows'), qr/^emotion\|1\|1\|order\|survey\|1\|0.5/m, 'an emotion without what tells it apart');

# late facts and refunds: awards move, are revoked, stages are walked anew
my $before = $crm->safe_psql('shop', q{SELECT awarded_at FROM crm.award WHERE contact_id = 1 AND achievement = 'first_purchase'});
$crm->safe_psql('shop', qq{$clock SELECT crm.purchase(1, 5, '2019-01-01', 'late'), crm.scan('poster', 'oa', 'openid-of-one', at => '2019-01-01');
    SELECT crm.refund(1, 'secret-ref', 120, '2025-03-06', 'secret-key')});
same('late facts, and a refund');
isnt($warehouse->safe_psql('lake', q{SELECT awarded_at FROM crm.award WHERE contact_id = 1 AND achievement = 'first_purchase'}), $before, 'an award has moved there, too');
is($warehouse->safe_psql('lake', q{SELECT count(*) FROM crm.transaction WHERE kind = 'refund' AND refund_of = 1 AND contact_id = 1}), '1', 'a refund points to its order');

# a merge changes contacts of facts, and deletes one
my $ids = $warehouse->safe_psql('lake', 'SELECT count(*), count(DISTINCT event_id) FROM crm.event');
$crm->safe_psql('shop', qq{$clock SELECT crm.merge(1, 7, 'secret-reason')});
same('a merge');
is($warehouse->safe_psql('lake', 'SELECT count(*), count(DISTINCT event_id) FROM crm.event'), $ids, 'each fact is there once');
is($warehouse->safe_psql('lake', q{SELECT (SELECT count(*) FROM crm.contact WHERE contact_id = 7), (SELECT count(*) FROM crm.event WHERE contact_id = 7)}), '0|0', 'the contact that ended is gone');
$crm->safe_psql('shop', qq{$clock SELECT crm.unmerge(7)});
same('and parted');
cmp_ok($warehouse->safe_psql('lake', 'SELECT count(*) FROM crm.event WHERE contact_id = 7'), '>', 0, 'the other has facts again');

# a month that did not exist when the publication was made
$crm->safe_psql('shop', q{SET pg_crm.clock = '2026-01-05'; SELECT crm.maintain_partitions(); SELECT crm.track(2, 'cart'), crm.scan('poster', 'oa', 'openid-of-two')});
like(same('facts of a new month'), qr/^event\|2\|\d+\|cart\|2026-01-05/m, 'are among them');

# nothing that says who somebody is, in the feed or in the files of the warehouse
my $dump = join '', map { $warehouse->safe_psql('lake', "SELECT * FROM crm.$_") } sort keys %columns;
unlike($dump, qr/secret|openid|13800138000|C-1/, 'no identifier, name, reference, property or reason arrived');
my ($rc, $out, $err) = $crm->psql('shop', 'SELECT mobile FROM crm.contact', extra_params => [ '-U', 'warehouse' ]);
like($err, qr/permission denied/, 'nor could the role of the feed read them');

# the feed survives a restart of either end
$crm->restart;
$crm->safe_psql('shop', qq{$clock SELECT crm.track(3, 'cart')});
$warehouse->restart;
same('after a restart of both');

$warehouse->safe_psql('lake', 'DROP SUBSCRIPTION crm_warehouse');
done_testing();
