# A copy of a database does not speak to customers until somebody says so.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmShop;
use PostgreSQL::Test::Utils;
use Test::More;

my $shop = CrmShop->new('copies');
my ($node, $sandbox) = ($shop->node, $shop->sandbox);
my $contact = $shop->person('o_copy');
my $silent = qr/pg_crm sends nothing: this database is a copy/;

$shop->send($contact, 'order', qq({"text": "$_"}), "due_at => now() + interval '1 day'") for 1 .. 2;
$shop->send($contact, 'tell', '{}', "due_at => now() + interval '1 day'");

# Everything is due in the copy; it says where it is
sub make_due { $node->safe_psql($_[0], 'UPDATE crm.outbox SET due_at = now() WHERE lease IS NULL') }

# The turns of a worker since it was asked: it looked, and left the queue as it was
sub has_turned
{
    my ($db) = @_;
    my $look = 'SELECT coalesce(max(turns), 0) FROM crm.worker_status';
    wait_for(sub { $node->safe_psql($db, "SELECT count(*) FROM crm.worker_status WHERE state = 'running'") eq '1' }, 60, "a worker runs in $db");
    my $before = $node->safe_psql($db, $look);
    $node->safe_psql($db, "SELECT crm.send($contact, 'order')");    # wakes it
    wait_for(sub { $node->safe_psql($db, $look) > $before }, 60, "the worker of $db turned");
    return $node->safe_psql($db, "SELECT string_agg(DISTINCT state, ',') FROM crm.message");
}

sub check_silent
{
    my ($db, $queued) = @_;
    my @before = $sandbox->ledger;
    my $logged = $shop->log_times($silent);
    make_due($db);
    is(has_turned($db), 'queued', 'all messages stay queued') for 1 .. 3;
    is(scalar(my @rows = $sandbox->ledger), scalar @before, 'not one request was made');
    is($shop->log_times($silent), 1, 'the log says so, once');
    is($node->safe_psql($db, 'SELECT count(*) FROM crm.outbox'), $queued + 3, 'they wait');
    $node->safe_psql($db, 'SELECT crm.resume_dispatch()');
    wait_for(sub { $node->safe_psql($db, 'SELECT count(*) FROM crm.outbox') eq '0' }, 60, 'the queue is empty');
    is($node->safe_psql($db, "SELECT string_agg(DISTINCT state, ',') FROM crm.message"), 'sent', 'after resume_dispatch() they go');
}

sub empty_log
{
    $node->rotate_logfile;
    $node->restart;
}

subtest 'CREATE DATABASE … TEMPLATE' => sub {
    $node->safe_psql('postgres', 'CREATE DATABASE twin TEMPLATE shop');
    check_silent('twin', 3);
    $node->safe_psql('postgres', 'DROP DATABASE twin WITH (FORCE)');
};

subtest 'dumped and restored' => sub {
    my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
    $node->command_ok([ 'pg_dump', '-f', $dump, 'shop' ], 'dumped');
    empty_log();
    $node->safe_psql('postgres', 'CREATE DATABASE restored');
    $node->command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-f', $dump, 'restored' ], 'restored');
    check_silent('restored', 3);
};

subtest 'restored on another server' => sub {
    my $dump = PostgreSQL::Test::Utils::tempdir() . '/other.sql';
    $node->command_ok([ 'pg_dump', '-f', $dump, 'shop' ], 'dumped');
    my $other = CrmTest::crm_node('other', worker => 1);
    $other->safe_psql('postgres', 'CREATE DATABASE shop');
    $other->command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-f', $dump, 'shop' ], 'restored');
    my $here = $node;
    $node = $shop->{node} = $other;
    check_silent('shop', 3);
    $node = $shop->{node} = $here;
    $other->stop;
};

subtest 'renamed' => sub {
    my @before = $sandbox->ledger;
    empty_log();
    $node->safe_psql('postgres', 'ALTER DATABASE shop RENAME TO boutique');
    $shop->{db} = 'boutique';
    is($shop->state($shop->send($contact, 'order')), 'sent', 'it goes on sending');
    unlike($shop->log_text, $silent, 'the log says nothing of it');
    is(scalar(my @rows = grep { $_->{api} ne 'stable_token' } $sandbox->ledger), 1 + grep({ $_->{api} ne 'stable_token' } @before), 'one request');
};

done_testing();
