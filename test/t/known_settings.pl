# What a session keeps in mind of settings: where they could not be read, as somebody held them, the statement fails and the
# next one reads them again.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use Test::More;

my $node = crm_node('known_settings');
my $db   = crm_database($node, 'shop');
$node->safe_psql($db, q{
    SELECT crm.install(), crm.keep_roll_ups();
    INSERT INTO crm.account (kind, name) VALUES ('official_account', 'shop');
    SELECT crm.define_qr_code('{"account_id": 1, "scene": "door"}');
    SELECT crm.define_scan_limit('{"name": "one", "max_scans": 1, "period": "1 hour"}');
    INSERT INTO crm.contact (contact_id) VALUES (1)});

for my $case (
    [ roll_up_setting => q{INSERT INTO crm.event (contact_id, kind) VALUES (1, 'view')}, q{SELECT sum(facts) FROM crm.fact_tail WHERE kind = 'view'}, '1', 'facts are counted' ],
    [ window_rule => q{INSERT INTO crm.event (contact_id, kind, account_id) VALUES (1, 'message', 1)}, 'SELECT count(*) FROM crm.window_grant', '1', 'a message opens its window' ],
    [ scan_limit => q{INSERT INTO crm.scan (contact_id, qr_code_id) SELECT 1, 1 FROM generate_series(1, 3)}, 'SELECT count(*) > 0 FROM crm.scan_flag', 't', 'scans that come too fast are flagged' ])
{
    my ($table, $fact, $query, $expected, $name) = @$case;
    my $holder = $node->background_psql($db, on_error_stop => 0);
    my $session = $node->background_psql($db, on_error_stop => 0);
    $session->query_safe("LOAD 'pg_crm'; SET lock_timeout = '50ms'");
    $holder->query_safe("BEGIN; LOCK TABLE crm.$table");
    my $before = $node->safe_psql($db, 'SELECT (SELECT count(*) FROM crm.event) + (SELECT count(*) FROM crm.scan)');
    $session->query($fact);
    like($session->{stderr}, qr/canceling statement due to lock timeout/, "$table: who holds it is in the way");
    $session->{stderr} = '';
    is($node->safe_psql($db, 'SELECT (SELECT count(*) FROM crm.event) + (SELECT count(*) FROM crm.scan)'), $before, "$table: a fact waits no longer than it may");
    $holder->query_safe('ROLLBACK');
    $session->query_safe($fact);
    is($node->safe_psql($db, $query), $expected, "$table: then $name");
    $holder->quit;
    $session->quit;
}
is($node->safe_psql($db, 'SELECT * FROM crm.verify()'), '', 'sound');
$node->stop;
done_testing();
