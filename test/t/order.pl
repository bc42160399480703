# In which order messages go, what holds them up, and what lets them go on.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmShop;
use List::Util qw(max);
use Test::More;

my $shop = CrmShop->new('order', conf => "pg_crm.connections = 4\npg_crm.send_timeout = 10s\n");
my $sandbox = $shop->sandbox;

# What arrived, by the text of the messages
sub texts
{
    my ($openid) = @_;
    my @rows = grep { $_->{delivered} } $shop->received($openid);
    return join ' ', map { $_->{body}{text}{content} // $_->{body}{data}{thing1}{value} } @rows;
}

# How often one was on its way before the one before it was answered
sub overlaps
{
    my ($openid) = @_;
    my ($end, $n) = (0, 0);
    for my $row (grep { ($_->{touser} // '') eq $openid } $sandbox->ledger_file_rows)
    {
        $n++ if $row->{t} < $end;
        $end = max($end, $row->{t_replied} // 9e18);
    }
    return $n;
}

sub latency { $sandbox->admin(settings => { latency_ms => $_[0] }) }

subtest 'one after the other' => sub {
    my $contact = $shop->person('o_order');
    $shop->window($contact);
    latency(20);
    $shop->send($contact, 'note', qq({"text": "$_"})) for 1 .. 10;
    $shop->sql("SELECT crm.send($contact, 'note', jsonb_build_object('text', i)) FROM generate_series(11, 20) i");
    ok($shop->empty, 'all are sent');
    is(texts('o_order'), join(' ', 1 .. 20), 'in the order in which they were asked for');
    is(overlaps('o_order'), 0, 'never two at once');
};

subtest 'while sessions hold the contact' => sub {
    my $contact = $shop->person('o_busy');
    $shop->window($contact);
    latency(5);
    # each transaction keeps the contact locked until the worker has been woken by the one before
    my $session = $shop->session;
    for my $i (1 .. 20)
    {
        $session->query_safe("BEGIN; SELECT crm.send($contact, 'note', '{\"text\": \"$i\"}'); COMMIT;"
              . " BEGIN; SELECT crm.track($contact, 'view');");
        $shop->sql('SELECT 1');
        $session->query_safe('COMMIT');
    }
    $session->quit;
    ok($shop->empty, 'all are sent');
    is(texts('o_busy'), join(' ', 1 .. 20), 'in the order in which they were asked for');
};

subtest 'many at once' => sub {
    latency(10);
    $shop->sql("SELECT crm.identify_many('maison', ARRAY(SELECT 'o_crowd' || i FROM generate_series(1, 30) i))");
    my @contacts = split /\n/, $shop->sql("SELECT contact_id FROM crm.identity WHERE external_id LIKE 'o_crowd%'");
    $shop->window($_) for @contacts;
    my $list = join ',', @contacts;
    $shop->sql("SELECT crm.send_many(ARRAY[$list], 'note', '{\"text\": \"$_\"}')") for 1 .. 5;
    ok($shop->empty, 'all are sent');
    is(join('; ', sort { $a cmp $b } grep { $_ ne '1 2 3 4 5' } map { texts("o_crowd$_") } 1 .. 30), '', 'each contact has its order');
    is(join(' ', grep { overlaps("o_crowd$_") } 1 .. 30), '', 'and one at once');
};

subtest 'what fails holds the next of its lane' => sub {
    my $contact = $shop->person('o_backoff');
    latency(0);
    $sandbox->admin(faults => { api => 'template/send', fault => 'errcode_-1', times => 2 });
    $shop->sql("SELECT crm.send($contact, 'order', jsonb_build_object('text', i)) FROM generate_series(1, 3) i");
    ok($shop->empty, 'all are sent');
    is(texts('o_backoff'), '1 2 3', 'the first one first, though it failed twice');

    $sandbox->admin(faults => { api => 'template/send', fault => 'errcode_-1', times => 4 });
    $shop->window($contact);
    my $first = $shop->send($contact, 'order', '{"text": "slow"}');
    $shop->becomes("SELECT attempts FROM crm.outbox WHERE message_id = $first AND lease IS NULL", '4',
        'the first is in a long back-off');
    my $urgent = $shop->send($contact, 'note', '{"text": "urgent"}');
    is($shop->state($urgent), 'sent', 'an urgent one goes');
    ok($shop->empty, 'then the other');
    is(texts('o_backoff'), '1 2 3 urgent slow', 'in that order');
};

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
