# What reachable() says of random contacts is what the worker then does with their messages.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmSandbox;
use CrmTest;
use Test::More;

my $seed = $ENV{PG_CRM_SEED} || 1 + int rand 1_000_000;
note "PG_CRM_SEED=$seed";
srand $seed;
my $CONTACTS = 150;

my $sandbox = CrmSandbox->start(accounts => { wx01 => 's1', wx02 => 's2' }, webhooks => { crm => 'whsec' });
$sandbox->admin(settings => { check_windows => 0 });
my $node = crm_node('reachable', worker => 1);
my $db = crm_database($node, 'shop');
(my $url = $sandbox->url('')) =~ s{/$}{};

sub sql { return $node->safe_psql($db, shift) }
sub pick { return $_[rand @_] }

# accounts: one sends, of one the template call is stopped, one is stopped, one webhook
my %app = (open => 'wx01', half => 'wx02', stopped => 'wx01');
sql("INSERT INTO crm.account (kind, name, app_id, base_url) VALUES ('official_account', '$_', '$app{$_}', '$url');
     INSERT INTO crm.account_secret SELECT account_id, 'app_secret', '" . ($app{$_} eq 'wx01' ? 's1' : 's2') . "' FROM crm.account WHERE name = '$_'")
  for sort keys %app;
sql(<<SQL);
INSERT INTO crm.account (kind, name, base_url) VALUES ('webhook', 'till', '@{[ $sandbox->url('/webhook/crm') ]}'), ('webhook', 'nowhere', NULL);
INSERT INTO crm.account_secret SELECT account_id, 'signing_key', 'whsec' FROM crm.account WHERE name = 'till';
INSERT INTO crm.api_usage (account_id, api, blocked_until, blocked_reason)
SELECT account_id, CASE name WHEN 'half' THEN 'message/template/send' ELSE '' END, 'infinity', 'stopped by hand'
  FROM crm.account WHERE name IN ('half', 'stopped');
INSERT INTO crm.frequency_cap (name, channel, class, max_messages, period) VALUES
  ('a_sale', NULL, 'marketing', 2, '7 days'), ('b_day', 'official_account', NULL, 3, '1 day'), ('c_all', NULL, NULL, 5, '30 days');
INSERT INTO crm.quiet_hours (name, class, hours) VALUES ('night', 'marketing', '22:00-06:00'), ('small', NULL, '02:00-05:00');
SQL

my %ways = (
    'message/custom/send'   => [ qw(open half stopped) ],
    'message/template/send' => [ qw(open half stopped) ],
    post                    => ['till'],
);
for my $account (qw(open half stopped till))
{
    for my $class (qw(service marketing))
    {
        my $definition = sub {
            my ($api, $channel, $type, $body) = @_;
            sql(<<SQL);
SELECT crm.define_template('{"name": "$account $api $class", "channel": "$channel", "message_type": "$type",
    "class": "$class", "account": "$account", "body": $body}')
SQL
        };
        if ($account eq 'till') { $definition->('post', 'webhook', 'post', '{"text": "x"}') }
        else
        {
            $definition->('message/custom/send', 'official_account', 'text', '{"content": "x"}');
            $definition->('message/template/send', 'official_account', 'template', '{"template_id": "T1", "data": {"thing1": {"value": "x"}}}');
        }
    }
}

# everything that bears on a contact, at random
sub make_contact
{
    my ($n, $account) = @_;
    my $zone = 'Etc/GMT' . pick('+', '-') . int rand 12;
    my @facts = "INSERT INTO crm.contact (name, time_zone) VALUES ('c$n', " . (rand() < .8 ? "'$zone'" : "'nonsense'") . ');';
    my $contact = "(SELECT contact_id FROM crm.contact WHERE name = 'c$n')";
    my $id = "(SELECT account_id FROM crm.account WHERE name = '$account')";
    push @facts, "INSERT INTO crm.identity (kind, account_id, external_id, contact_id) VALUES ('openid', $id, 'o_$n', $contact);" if rand() < .9;
    push @facts, "INSERT INTO crm.follower VALUES ($contact, $id, now() - interval '2 days', " . pick('NULL', 'NULL', "now() - interval '3 days'", "now() - interval '1 day'") . ');' if rand() < .8;
    for (1 .. rand 4)
    {
        my $quota = pick('NULL', 1, 1, 2, 3);
        my $used = $quota eq 'NULL' ? int rand 9 : int rand 1 + $quota;
        push @facts, "INSERT INTO crm.window_grant (contact_id, account_id, kind, opened_at, expires_at, quota, used)
            SELECT $contact, $id, 'message', t.at, t.at + interval '48 hours', $quota, $used
              FROM (SELECT now() - make_interval(hours => @{[ pick(1, 20, 40, 50, 60) ]}, mins => @{[ int rand 60 ]}) AS at) t;";
    }
    push @facts, "SELECT crm.@{[ pick('grant', 'withdraw') ]}_consent($contact, '@{[ pick('official_account', 'webhook') ]}', '@{[ pick('service', 'marketing') ]}');" if rand() < .3;
    push @facts, "SELECT crm.suppress($contact, " . pick('NULL', "'sms'", "'official_account'", "'webhook'") . ');' if rand() < .15;
    for (1 .. rand 6)
    {
        push @facts, "INSERT INTO crm.message (contact_id, account_id, template, template_version, channel, class, state, tried_at, sent_at, ended_at)
            SELECT $contact, $id, 'old', 1, '@{[ pick('official_account', 'webhook') ]}', '@{[ pick('service', 'marketing') ]}',
                   '@{[ pick('sent', 'sent', 'waiting', 'failed', 'refused') ]}', t.at, t.at, t.at
              FROM (SELECT now() - make_interval(hours => @{[ pick(1, 20, 30, 100, 200, 800) ]}, mins => 30) AS at) t;";
    }
    return join "\n", @facts;
}

my $hour;
my (%asked, %happened, $round);
my $still = q{FROM crm.outbox o JOIN crm.account a USING (account_id)
    WHERE a.name <> 'stopped' AND (o.lease IS NOT NULL OR o.due_at <= clock_timestamp())};
do
{
    # quiet hours begin and end with the hour: within one hour nothing changes but by messages
    $hour = sql("SELECT date_trunc('hour', now())");
    $round++;
    my @cases = map {
        my $api = pick(sort keys %ways);
        [ "$round.$_", $api, pick(@{ $ways{$api} }), pick('service', 'marketing') ]
    } 1 .. $CONTACTS;
    sql(join "\n", 'BEGIN;', (map { make_contact($_->[0], $_->[2]) } @cases), 'COMMIT;');
    my $list = join ', ', map { "('c$_->[0]', '$_->[1]', '$_->[2]', '$_->[3]')" } @cases;
    my $columns = "c.name, k.account, k.api, k.class, coalesce(r.reason, ''), coalesce(r.remaining::text, ''), coalesce(r.valid_until::text, '')";
    my $from = "FROM (VALUES $list) AS k(name, api, account, class) JOIN crm.contact c ON c.name = k.name
        LEFT JOIN LATERAL crm.reachable(c.contact_id, NULL, k.class) r ON r.account = k.account AND r.api = k.api";
    my $said = sql(<<SQL);
BEGIN;
SELECT $columns $from ORDER BY 1;
DO \$\$ BEGIN PERFORM crm.send(c.contact_id, k.account || ' ' || k.api || ' ' || k.class, send_key => 'now')
  FROM (VALUES $list) AS k(name, api, account, class) JOIN crm.contact c ON c.name = k.name; END \$\$;
COMMIT;
SQL
    eval { wait_for(sub { sql("SELECT NOT EXISTS (SELECT $still)") eq 't' }, 30, 'everything is decided') }
      or die $@ . sql("SELECT m.*, o.* FROM crm.message m JOIN (SELECT o.* $still LIMIT 3) o USING (contact_id, message_id)") . "\n"
      . sql('SELECT * FROM crm.account_token') . "\n" . sql('SELECT * FROM crm.worker_status');
    my $found = sql(<<SQL);
SELECT c.name, m.state, coalesce(m.reason, ''), coalesce(o.due_at::text, ''), coalesce(o.attempts::text, ''), coalesce(r.remaining::text, '')
$from JOIN crm.message m ON m.contact_id = c.contact_id AND m.send_key = 'now'
LEFT JOIN crm.outbox o ON o.contact_id = m.contact_id AND o.message_id = m.message_id ORDER BY 1
SQL
    %asked = map { my ($name, @rest) = split /\|/, $_, -1; $name => \@rest } split /\n/, $said;
    %happened = map { my ($name, @rest) = split /\|/, $_, -1; $name => \@rest } split /\n/, $found;
} while (sql("SELECT date_trunc('hour', now())") ne $hour && $round < 3);

is(scalar keys %happened, $CONTACTS, 'every message has been looked at');
my (@different, %seen);
for my $name (sort keys %asked)
{
    my ($account, $api, $class, $reason, $remaining, $until) = @{ $asked{$name} };
    my ($state, $why, $due_at, $attempts, $left) = @{ $happened{$name} };
    my $expected =
        # of an account that is stopped nothing is looked at
        $account eq 'stopped' ? $state eq 'queued' && $attempts eq '0' && $reason ne ''
      : $reason eq ''        ? $state eq 'sent' && $left eq ($remaining eq '' ? '' : $remaining - 1)
      : $reason eq 'quiet'   ? $state eq 'queued' && $why eq 'quiet' && $due_at eq $until
      : $reason =~ /stopped/ ? $state eq 'queued' && $attempts eq '0' && $until eq 'infinity'
      :                        $state eq 'refused' && $why eq $reason && $left eq $remaining;
    $seen{$reason}++;
    push @different, "$name $account $api $class: said '$reason' $remaining $until, was $state $why $due_at $left" if !$expected;
}
is(join("\n", @different), '', 'and was treated as reachable() said');
ok($seen{$_}, "some are: " . ($_ || 'reachable')) for '', 'no_recipient', 'suppressed', 'no_consent', 'window_closed', 'stopped by hand';
ok((grep { /^cap:/ } keys %seen), 'some had their messages already');
# at any hour it is night somewhere
ok($seen{quiet}, 'some sleep');
is(sql("SELECT count(*) FROM crm.reachable((SELECT min(contact_id) FROM crm.contact)) WHERE account = 'nowhere'"), '0', 'an account without an address is none');

done_testing();
