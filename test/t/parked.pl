# What waits behind another message of its contact goes on, however that one ends.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmShop;
use Test::More;

my $shop = CrmShop->new('parked', conf => "pg_crm.connections = 4\npg_crm.send_timeout = 10s\n");
my $sandbox = $shop->sandbox;

sub latency { $sandbox->admin(settings => { latency_ms => $_[0] }) }

subtest 'what waited behind goes on' => sub {
    my $contact = $shop->person('o_parked');
    my ($first, @others);
    my $queue = sub {
        my ($template, @more) = @_;
        $first = $shop->send($contact, $template, '{"text": "first"}');
        wait_for(sub { $shop->sql("SELECT lease IS NOT NULL FROM crm.outbox WHERE message_id = $first") ne 'f' }, 30);
        @others = split /\n/, $shop->sql(join ';', map { "SELECT crm.send($contact, $_)" } @more);
        wait_for(sub { $shop->sql("SELECT count(*) FROM crm.outbox WHERE due_at = 'infinity'") eq scalar @others }, 30, 'they wait');
    };
    latency(3000);
    $queue->('order', ("'order'") x 3);
    is($shop->sql("SELECT crm.cancel_message($contact, $others[0])"), 't', 'one that waits is cancelled');
    is($shop->sql("SELECT crm.cancel_message($contact, $first)"), 'f', 'one on its way cannot be');
    ok($shop->empty, 'the rest goes');
    is(join(' ', map { $shop->state($_) } $first, @others), 'sent cancelled sent sent', 'all but the cancelled one');

    # of those behind, none may go: each ends without a request
    $shop->sql("UPDATE crm.window_grant SET expires_at = opened_at WHERE contact_id = $contact");
    $queue->('order', ("'note'") x 4);
    ok($shop->empty(20), 'refused ones let the next on');
    is(join(' ', map { $shop->state($_) } @others), join(' ', ('refused window_closed') x 4), 'all four');

    $queue->('order', ("'order', expires_at => now() + interval '300 ms'") x 4);
    ok($shop->empty(20), 'expired ones too');
    is(join(' ', map { $shop->state($_) } @others), join(' ', ('expired expired') x 4), 'all four');

    $sandbox->admin(faults => { api => 'template/send', fault => 'errcode_47003', times => 1 });
    $queue->('order', ("'order'") x 2);
    ok($shop->empty(20), 'a failed one lets them on');
    is(join(' ', map { $shop->state($_) } $first, @others), 'failed bad_data sent sent', 'and they are sent');

    # the urgent one fails for the moment; what waited behind is of another lane
    $shop->window($contact);
    $sandbox->admin(faults => { api => 'custom/send', fault => 'errcode_45009', times => 1 });
    $queue->('note', ("'order'") x 2);
    is(join(' ', map { $shop->state($_) } @others), 'sent sent', 'one that is put off does not hold other lanes');
    is($shop->state($first, 'queued quota_day'), 'queued quota_day', 'it is put off');
    $shop->sql("UPDATE crm.api_usage SET blocked_until = NULL; UPDATE crm.outbox SET due_at = now()");
    $shop->restart_worker;
    ok($shop->empty, 'until its quota is there again');

    latency(60_000);
    $queue->('note', ("'order'") x 2);
    latency(0);
    $shop->restart_worker;
    is(join(' ', map { $shop->state($_) } @others), 'sent sent', 'a worker that ended lets them on');
    is($shop->state($first), 'unknown no_reply', 'of what it had sent nobody knows');
};

subtest 'quiet hours hold nobody else' => sub {
    my $contact = $shop->sql("SELECT crm.follow('maison', 'o_hush')");
    $shop->sql("INSERT INTO crm.quiet_hours (name, hours) SELECT 'now', format('%s-%s', to_char(t - interval '2 hours', 'HH24:MI'),"
          . " to_char(t + interval '2 hours', 'HH24:MI'))::crm.weekly_hours FROM (SELECT timezone(crm.default_time_zone(), now())) x(t)");
    $shop->sql("UPDATE crm.template SET lane = 'normal' WHERE name = 'advert'");
    latency(500);
    my $first = $shop->send($contact, 'order', '{"text": "1"}');
    wait_for(sub { scalar(my @rows = $shop->received('o_hush')) }, 30);
    my $quiet = $shop->send($contact, 'advert', '{"text": "2"}');
    my $last = $shop->send($contact, 'order', '{"text": "3"}');
    is($shop->state($last), 'sent', 'what is behind a message that waits for the morning goes');
    is($shop->state($quiet, 'queued quiet'), 'queued quiet', 'which waits');
    $shop->sql("DELETE FROM crm.quiet_hours; SELECT crm.cancel_message($contact, $quiet)");
};

done_testing();
