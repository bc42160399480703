# Lanes: urgent messages go out while thousands of others wait and connections are busy.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmShop;
use Test::More;

my $shop = CrmShop->new('urgent', conf => "pg_crm.connections = 4\n");
my $sandbox = $shop->sandbox;

sub latency { $sandbox->admin(settings => { latency_ms => $_[0] }) }

subtest 'an urgent one overtakes' => sub {
    my $contact = $shop->sql("SELECT crm.follow('maison', 'o_overtake')");
    latency(2000);
    $shop->sql("SELECT crm.send($contact, 'advert', jsonb_build_object('text', i)) FROM generate_series(1, 3) i");
    wait_for(sub { scalar(my @rows = $shop->received('o_overtake')) }, 30, 'the first is on its way');
    $shop->send($contact, 'note', '{"text": "urgent"}');
    ok($shop->empty, 'all are sent');
    is(join(' ', map { $_->{body}{text}{content} // $_->{body}{data}{thing1}{value} } $shop->received('o_overtake')),
        '1 urgent 2 3', 'next comes the urgent one');
};

subtest 'lanes under load' => sub {
    latency(100);
    $shop->sql("SELECT crm.identify_many('maison', ARRAY(SELECT 'o_bulk' || i FROM generate_series(1, 3000) i))");
    my $urgent = $shop->person('o_now');
    $shop->window($urgent);
    $shop->sql("UPDATE crm.template SET lane = 'bulk' WHERE name = 'order'");
    $shop->sql("SELECT crm.send_many(ARRAY(SELECT contact_id FROM crm.identity WHERE external_id LIKE 'o_bulk%'), 'order')");
    wait_for(sub { $shop->sql("SELECT count(*) FROM crm.outbox WHERE lease IS NOT NULL") eq '3' }, 30,
        'all connections but the one for urgent messages are busy');
    my $message = $shop->send($urgent, 'note');
    is($shop->state($message), 'sent', 'an urgent message goes out');
    cmp_ok($shop->sql("SELECT count(*) FROM crm.outbox"), '>', 1000, 'before thousands of others');
    cmp_ok($shop->sql("SELECT extract(epoch FROM sent_at - recorded_at) FROM crm.message WHERE message_id = $message"), '<', 5,
        'within seconds');
    is($shop->sql("SELECT count(*) FROM crm.message m JOIN crm.identity i USING (contact_id) WHERE i.external_id LIKE 'o_bulk%'"
          . " AND m.state NOT IN ('queued', 'sending', 'sent')"), '0', 'none of which was lost');
    $shop->sql('TRUNCATE crm.outbox');
    latency(0);
};

subtest 'one connection is enough' => sub {
    $shop->node->append_conf('postgresql.conf', "pg_crm.connections = 1\n");
    $shop->node->restart;
    my $contact = $shop->sql("SELECT crm.follow('maison', 'o_single')");
    is($shop->state($shop->send($contact, 'advert')), 'sent', 'for every lane');
};

done_testing();
