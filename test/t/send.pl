# Messages from send() to the platform and back: real HTTP over loopback to the sandbox.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmSandbox;
use CrmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $sandbox = CrmSandbox->start(accounts => { wx01 => 's1' }, webhooks => { crm => 'whsec' });
my $node = crm_node('send', worker => 1, conf => "log_min_messages = info\n");
my $db = crm_database($node, 'shop');

sub sql { return $node->safe_psql($db, shift) }

sub refused
{
    my ($rc, $out, $err) = $node->psql($db, "\\set VERBOSITY verbose\n" . shift);
    return $err =~ /(?:ERROR|FATAL):\s+(\w{5}):/ ? $1 : "none: $out$err";
}

# the state of a message, once it is an end state or the one wanted
sub state
{
    my ($message, $wanted) = @_;
    my $state;
    wait_for(sub {
        $state = sql("SELECT state || coalesce(' ' || reason, '') FROM crm.message WHERE message_id = $message");
        return $wanted ? $state =~ /^$wanted/ : $state !~ /^(queued|sending)/;
    }, 20);
    return $state;
}

my $url = $sandbox->url('');
$url =~ s{/$}{};
sql(<<SQL);
INSERT INTO crm.account (kind, name, app_id, base_url) VALUES ('official_account', 'maison', 'wx01', '$url');
INSERT INTO crm.account (kind, name, base_url) VALUES ('webhook', 'till', '@{[ $sandbox->url('/webhook/crm') ]}');
INSERT INTO crm.account_secret SELECT account_id, 'app_secret', 's1' FROM crm.account WHERE name = 'maison';
INSERT INTO crm.account_secret SELECT account_id, 'signing_key', 'whsec' FROM crm.account WHERE name = 'till';
SELECT crm.define_template('{"name": "hello", "channel": "official_account", "message_type": "text",
  "body": {"content": "Hello {{name|there}}, your code is {{code}}"}}');
SELECT crm.define_template('{"name": "order", "channel": "official_account", "message_type": "template",
  "body": {"template_id": "T1", "data": {"thing1": {"value": "{{item|something}}"}}}}');
SELECT crm.define_template('{"name": "tell", "channel": "webhook", "message_type": "post",
  "body": {"text": "{{name|nobody}}"}}');
SQL

subtest 'a custom message inside its window' => sub {
    my $contact = sql(q{SELECT crm.follow('maison', 'o_wang')});
    $sandbox->admin(windows => { openid => 'o_wang', event => 'follow' });
    my $message = sql(qq{SELECT crm.send($contact, 'hello', '{"code": "A\\"1"}')});
    is(state($message), 'sent', 'it is sent');
    my @rows = $sandbox->ledger(touser => 'o_wang');
    is(scalar @rows, 1, 'and received once');
    is($rows[0]{body}{text}{content}, 'Hello there, your code is A"1', 'with its values in place');
    is(sql("SELECT count(*) FROM crm.outbox"), '0', 'the queue is empty');
    is(sql("SELECT quota, used FROM crm.window_grant"), '3|1', 'one of three is used');
    is(sql("SELECT outcome, http_status FROM crm.delivery_attempt"), 'sent|200', 'the attempt is kept');
};

subtest 'more at once than one turn claims' => sub {
    my $n = 600;
    sql("SELECT crm.send_many((SELECT array_agg(contact_id) FROM crm.identify_many('maison',
        (SELECT array_agg('o_many_' || n) FROM generate_series(1, $n) AS n))), 'order')");
    wait_for(sub { sql("SELECT count(*) FROM crm.outbox") == 0 }, 60);
    is(sql("SELECT count(*) FROM crm.message WHERE template = 'order' AND state = 'sent'"), $n, 'all are sent');
    my %times;
    $times{ $_->{body}{touser} }++ for grep { $_->{body}{touser} =~ /^o_many_/ } $sandbox->ledger();
    is(scalar keys %times, $n, 'each contact was written to');
    is_deeply([ grep { $times{$_} > 1 } keys %times ], [], 'and nobody twice');
};

subtest 'a worker that is told to end waits a moment for replies' => sub {
    $sandbox->admin(settings => { latency_ms => 500 });
    sql("SELECT crm.send_many((SELECT array_agg(contact_id) FROM crm.identify_many('maison',
        (SELECT array_agg('o_end_' || n) FROM generate_series(1, 20) AS n))), 'order', send_key => 'end')");
    wait_for(sub { sql("SELECT count(*) FROM crm.message WHERE send_key = 'end' AND state = 'sending'") == 20 }, 20);
    my $pid = sql('SELECT pid FROM crm.worker_status');
    kill TERM => $pid;
    wait_for(sub { sql("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid") == 0 }, 20);
    is(sql("SELECT string_agg(DISTINCT state, ', ') FROM crm.message WHERE send_key = 'end'"), 'sent',
        'the process is gone, and what came of its messages is written');
    $sandbox->admin(settings => { latency_ms => 0 });
};

subtest 'a message that cannot be made holds up no other' => sub {
    sql(<<SQL);
CREATE TYPE broken AS ENUM ('yes');
ALTER TABLE crm.contact ADD COLUMN oddity broken;
UPDATE crm.contact SET oddity = 'yes' WHERE contact_id = (SELECT crm.identify('maison', 'o_end_1'));
CREATE FUNCTION broken_json(broken) RETURNS json LANGUAGE sql IMMUTABLE AS \$\$ SELECT to_json(1 / (length(\$1::text) - 3)) \$\$;
CREATE CAST (broken AS json) WITH FUNCTION broken_json(broken);
SELECT crm.define_template('{"name": "city", "channel": "official_account", "message_type": "template",
  "body": {"template_id": "T1", "data": {"thing1": {"value": "{{city|nowhere}}"}}}}');
SELECT crm.send(crm.identify('maison', 'o_end_1'), 'city', send_key => 'odd');
SELECT crm.send(crm.identify('maison', 'o_end_2'), 'city', send_key => 'even');
SQL
    wait_for(sub { sql("SELECT count(*) FROM crm.message WHERE send_key IN ('odd', 'even') AND state IN ('queued', 'sending')") == 0 }, 30);
    is(sql("SELECT state || coalesce(' ' || reason, '') FROM crm.message WHERE send_key = 'odd'"), 'failed error:22012', 'it fails alone');
    is(sql("SELECT state FROM crm.message WHERE send_key = 'even'"), 'sent', 'the other goes');
};

subtest 'plans made while the queue is empty' => sub {
    my $explained = crm_node('plans', worker => 1, conf => <<CONF);
shared_preload_libraries = 'pg_crm,auto_explain'
auto_explain.log_min_duration = 0
auto_explain.log_nested_statements = on
pg_crm.direct_access = off
CONF
    my $shop = crm_database($explained, 'shop');
    $explained->safe_psql($shop, <<SQL);
INSERT INTO crm.account (kind, name, app_id, base_url) VALUES ('official_account', 'maison', 'wx01', '$url');
INSERT INTO crm.account_secret SELECT account_id, 'app_secret', 's1' FROM crm.account;
SELECT crm.define_template('{"name": "order", "channel": "official_account", "message_type": "template",
  "body": {"template_id": "T1", "data": {"thing1": {"value": "something"}}}}');
SELECT crm.send(crm.identify('maison', 'o_plan'), 'order');
SQL
    wait_for(sub { $explained->safe_psql($shop, "SELECT state FROM crm.message") eq 'sent' }, 20);
    my $log = slurp_file($explained->logfile);
    for my $statement ('UPDATE crm.outbox o SET lease = ', "UPDATE crm.message m SET state = 'sending'",
        'DELETE FROM crm.outbox o USING unnest', 'UPDATE crm.message m SET state = n.state') {
        my ($plan) = $log =~ /(Query Text: \Q$statement\E.*?)(?:\n\S|\z)/s;
        like($plan // '', qr/Index Scan using (outbox|message)_pkey on .*\n\s+Index Cond: \(\(contact_id = n\.contact_id\)/,
            "$statement…: goes by the key");
    }
};

done_testing();
