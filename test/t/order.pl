# In which order messages of a contact go, one at a time.
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

done_testing();
