# A logical subscriber stores what the publisher derived and derives nothing itself, and can take over
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use Test::More;

my $conf = "wal_level = logical\nmax_wal_senders = 10\nmax_replication_slots = 10\n";
my $node = crm_node('publisher',  conf => $conf);
my $copy = crm_node('subscriber', conf => $conf);
crm_database($node, 'shop');
crm_database($copy, 'shop');
$node->safe_psql('shop', q{
    SELECT crm.purchase(crm.identify('customer', 'C-1'), 120, '2025-01-01', 'A-1');
    CREATE PUBLICATION crm FOR TABLES IN SCHEMA crm WITH (publish_via_partition_root = true);
});
$copy->safe_psql('shop', 'SELECT crm.restoring(true)');
$copy->safe_psql('shop', sprintf q{CREATE SUBSCRIPTION crm CONNECTION 'host=%s port=%s dbname=shop user=%s' PUBLICATION crm},
    $node->host, $node->port, scalar getpwuid $>);
$copy->wait_for_subscription_sync($node, 'crm', 'shop');
$node->safe_psql('shop', q{
    SELECT crm.purchase(1, 20, '2025-01-03', 'A-2'), crm.track(1, 'cart', at => '2025-01-04');
    SELECT crm.define_achievement('{"name": "cart_filler", "on_kind": "cart"}');
    SELECT crm.refund(1, 'A-1', 50, '2025-01-05');
});
$node->wait_for_catchup('crm');

my $state = q{SELECT orders, events, spend FROM crm.profile;
    SELECT * FROM crm.award ORDER BY achievement, threshold; SELECT * FROM crm.award_change; SELECT * FROM crm.stage_move;
    SELECT * FROM crm.achievement ORDER BY name; SELECT * FROM crm.verify()};
is($copy->safe_psql('shop', $state), $node->safe_psql('shop', $state), 'the same rows, each once');
is($copy->safe_psql('shop', 'SELECT crm.dispatch_allowed()'), 'f', 'a subscriber does not speak to customers');

# the subscriber takes over
$copy->safe_psql('shop', q{DROP SUBSCRIPTION crm; SELECT crm.restoring(false); SELECT crm.resume_dispatch()});
is($copy->safe_psql('shop', q{SELECT crm.purchase(1, 5, external_ref => 'A-3'), crm.identify('customer', 'C-2'), crm.track(1, 'cart')}),
    '4|2|2', 'the next ids follow those of the publisher');
is($copy->safe_psql('shop', 'SELECT orders, events, spend FROM crm.profile WHERE contact_id = 1; SELECT * FROM crm.verify(); SELECT crm.dispatch_allowed()'),
    "3|2|95\nt", 'facts count again');

done_testing();
