# Contacts that are merged, or parted, while a message to them is on its way: its outcome is
# written where the message is by then.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmSandbox;
use CrmTest;
use Test::More;

my $sandbox = CrmSandbox->start(webhooks => { crm => 'whsec' });
my $node = crm_node('merge_messages', worker => 1, conf => "pg_crm.send_timeout = '30s'\n");
my $db = crm_database($node, 'shop');

sub sql { return $node->safe_psql($db, shift) }

sql(<<SQL);
INSERT INTO crm.account (kind, name, base_url) VALUES ('webhook', 'till', '@{[ $sandbox->url('/webhook/crm') ]}');
INSERT INTO crm.account_secret SELECT account_id, 'signing_key', 'whsec' FROM crm.account;
SELECT crm.define_template('{"name": "tell", "channel": "webhook", "message_type": "post", "body": {"text": "{{n}}"}}');
INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2020-01-01'::timestamptz + n * interval '1 day' FROM generate_series(1, 8) AS n;
SQL

# a message whose reply takes a while, and has been received
sub on_its_way
{
    my ($contact) = @_;
    my $before = () = $sandbox->ledger;
    $sandbox->admin(faults => { api => 'webhook/crm', fault => 'silent', seconds => 8, times => 1 });
    my $message = sql(qq{SELECT crm.send($contact, 'tell', '{"n": $contact}')});
    wait_for(sub { (() = $sandbox->ledger) > $before }, 30);
    is(sql("SELECT state FROM crm.message WHERE message_id = $message"), 'sending', 'it is on its way');
    return $message;
}

# all that is known of a message
sub found
{
    my ($message) = @_;
    wait_for(sub { sql("SELECT state FROM crm.message WHERE message_id = $message") ne 'sending' }, 30);
    return sql("SELECT contact_id, state, (SELECT string_agg(contact_id || ' ' || outcome, ', ') FROM crm.delivery_attempt d
        WHERE d.message_id = m.message_id), (SELECT count(*) FROM crm.outbox o WHERE o.message_id = m.message_id) FROM crm.message m WHERE message_id = $message");
}

# does the change in a transaction that is open when the reply comes and the worker would write it
sub during
{
    my ($change, $message) = @_;
    my $session = $node->background_psql($db);
    $session->query_safe("BEGIN; $change");
    wait_for(sub { !grep { $_->{replied} eq 'pending' } $sandbox->ledger }, 30, 'the reply is there');
    my $turns = sql('SELECT turns FROM crm.worker_status');
    sql("SELECT crm.send(1, 'tell', '{\"n\": 1}')");
    wait_for(sub { sql('SELECT turns FROM crm.worker_status') > $turns + 1 }, 30, 'the worker has seen it');
    is(sql("SELECT state FROM crm.message WHERE message_id = $message"), 'sending', 'which nobody can see while it is being given away');
    $session->query_safe('COMMIT');
    $session->quit;
}

my $message = on_its_way(2);
sql('SELECT crm.merge(1, 2)');
is(found($message), '1|sent|1 sent|0', 'merged meanwhile');

$message = on_its_way(4);
during('SELECT crm.merge(3, 4)', $message);
is(found($message), '3|sent|3 sent|0', 'being merged when the outcome is written');

$message = on_its_way(5);
during('SELECT crm.merge(5, 6)', $message);
is(found($message), '5|sent|5 sent|0', 'of the survivor');

$message = on_its_way(8);
sql('SELECT crm.merge(7, 8)');
during('SELECT crm.unmerge(8)', $message);
is(found($message), '8|sent|8 sent|0', 'being parted when the outcome is written');

wait_for(sub { sql('SELECT count(*) FROM crm.outbox') eq '0' }, 30, 'nothing is left in the queue');
is(sql(q{SELECT count(*) FROM crm.message WHERE state <> 'sent'}), '0', 'all were sent');
is(sql('SELECT count(*) FROM crm.message'), scalar(() = $sandbox->ledger), 'each once');
done_testing();
