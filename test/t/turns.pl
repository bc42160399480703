# Turns of the worker that fail: it pauses ever longer, gives up, is started anew, and loses nothing
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmShop;
use CrmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $shop = CrmShop->new('turns', conf => "pg_crm.poll_interval = 1\n");
my $node = $shop->node;
sub sql { return $shop->sql(shift) }
sub becomes
{
    my ($query, $name) = @_;
    ok($node->poll_query_until('shop', $query), $name);
    return;
}

my $offset = 0;
sub mark { $offset = -s $node->logfile; return }
sub times_logged { return scalar(() = slurp_file($node->logfile, $offset) =~ /$_[0]/g) }
sub logged
{
    my ($pattern, $name) = @_;
    $node->wait_for_log($pattern, $offset);
    pass("$name: logged");
    return;
}

# what a turn needs, and others do not: it writes outcomes and claims what is due
my $break = 'ALTER TABLE crm.account_token RENAME COLUMN token TO lost';
my $mend  = 'ALTER TABLE crm.account_token RENAME COLUMN lost TO token';
my $outcomes = [ 'ALTER TABLE crm.delivery_attempt RENAME COLUMN http_status TO lost', 'ALTER TABLE crm.delivery_attempt RENAME COLUMN lost TO http_status' ];

my $contact = $shop->person('o_wang');
$shop->window($contact);
is($shop->state($shop->send($contact, 'note')), 'sent', 'a message');
my $pid = sql('SELECT pid FROM crm.worker_status');

subtest 'mended in time' => sub {
    mark();
    my $message = sql("BEGIN; $break; SELECT crm.send($contact, 'note', '{\"text\": \"first\"}'); COMMIT");
    logged(qr/ERROR:  column .*token.* does not exist/, 'a turn that fails');
    becomes(q{SELECT state = 'running' AND problem LIKE 'its last 2 turns failed, SQLSTATE 42703:%' FROM crm.worker_status}, 'the status says so');
    is(times_logged('ERROR:  column'), 1, 'one and the same error is reported once');
    is(sql("SELECT state FROM crm.message WHERE message_id = $message"), 'queued', 'the message waits');
    my $turns = sql('SELECT turns FROM crm.worker_status');
    sql('SELECT crm.resume_dispatch()') for 1 .. 10;
    cmp_ok(sql('SELECT turns FROM crm.worker_status') - $turns, '<=', 1, 'a pause is not shortened by those who wake');
    sql($mend);
    is($shop->state($message), 'sent', 'mended, it goes');
    is(sql('SELECT pid FROM crm.worker_status'), $pid, 'by the same process');
    becomes('SELECT problem IS NULL AND failures = 0 FROM crm.worker_status', 'of which nothing is wrong any more');
};

subtest 'replies are kept while they cannot be written' => sub {
    $shop->sandbox->admin(settings => { latency_ms => 1500 });
    my $message = $shop->send($contact, 'note', '{"text": "second"}');
    is($shop->state($message, 'sending'), 'sending', 'it is on its way');
    sql($outcomes->[0]);
    becomes(q{SELECT problem LIKE 'its last % turns failed, SQLSTATE 42703:%' FROM crm.worker_status}, 'its outcome cannot be written');
    is(sql("SELECT state FROM crm.message WHERE message_id = $message"), 'sending', 'nobody knows of it');
    sql($outcomes->[1]);
    is($shop->state($message), 'sent', 'until it can');
    is(scalar(grep { $_->{body}{text}{content} eq 'second' } $shop->received('o_wang')), 1, 'it was sent once');
    is(sql('SELECT pid FROM crm.worker_status'), $pid, 'by the same process');
    $shop->sandbox->admin(settings => { latency_ms => 0 });
};

subtest 'not mended' => sub {
    mark();
    my $message = sql("BEGIN; $break; SELECT crm.send($contact, 'note', '{\"text\": \"third\"}'); COMMIT");
    logged(qr/WARNING:  pg_crm worker of database "shop" gives up after 5 failed turns\n.*DETAIL:  The last error was 42703/, 'it gives up');
    logged(qr/WARNING:  pg_crm worker of database "shop" ended by an error\n.*DETAIL:  Failures in a row: 1\./, 'and ends');
    my @at = slurp_file($node->logfile, $offset) =~ /(\d\d):(\d\d):(\d\d\.\d+) UTC \[\d+\] (?:ERROR:  column|WARNING:  pg_crm worker of database "shop" gives up)/g;
    my ($first, $last) = map { $at[$_] * 3600 + $at[ $_ + 1 ] * 60 + $at[ $_ + 2 ] } 0, 3;
    cmp_ok(($last - $first) % 86400, '>=', 14, 'after pauses of 1, 2, 4 and 8 s');
    becomes("SELECT state = 'running' AND pid <> $pid AND problem IS NOT NULL FROM crm.worker_status", 'another process tries it');
    is(sql("SELECT state FROM crm.message WHERE message_id = $message"), 'queued', 'the message waits');
    sql($mend);
    is($shop->state($message), 'sent', 'mended, it goes');
    is(scalar(grep { $_->{body}{text}{content} eq 'third' } $shop->received('o_wang')), 1, 'once');
    is(sql('SELECT count(*) FROM crm.outbox'), '0', 'nothing is left');
};

$node->stop;
done_testing();
