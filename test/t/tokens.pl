# Access tokens: fetched once, replaced in time and when the platform refuses them, shown to nobody; and secrets.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmShop;
use PostgreSQL::Test::Utils;
use Test::More;

$ENV{CRM_TEST_SECRET} = 's1';
my $shop = CrmShop->new('tokens', conf => "log_statement = none\nlog_min_messages = debug1\nlog_min_error_statement = error\n");
my $sandbox = $shop->sandbox;
my $contact = $shop->person('o_token');
my %seen;    # every token that there was

sub fetches
{
    my @rows = $sandbox->ledger(api => 'stable_token');
    return scalar @rows;
}

sub remember { $seen{ $_->{token} } = 1 for @{ $sandbox->get('tokens')->{tokens} } }

sub alarms { return $shop->sql("SELECT string_agg(kind || ' ' || object || ': ' || detail, E'\\n') FROM crm.alarm WHERE cleared_at IS NULL") }

# as somebody who has set it right
# what the worker remembers goes before the account may go on
sub resume
{
    $shop->restart_worker;
    $shop->sql("UPDATE crm.api_usage SET blocked_until = NULL, blocked_reason = NULL; UPDATE crm.alarm SET cleared_at = now()"
          . " WHERE cleared_at IS NULL; UPDATE crm.outbox SET due_at = now() WHERE lease IS NULL");
    $shop->restart_worker;
}

sub secret
{
    my ($value) = @_;
    $shop->sql("UPDATE crm.account_secret SET value = '$value' WHERE name = 'app_secret'; DELETE FROM crm.account_token");
}

subtest 'one for all' => sub {
    my $list = $shop->sql("SELECT crm.identify_many('maison', ARRAY(SELECT 'o_t' || i FROM generate_series(1, 200) i)); "
          . "SELECT string_agg(contact_id::text, ',') FROM crm.identity WHERE external_id LIKE 'o\\_t%'");
    $list =~ s/.*\n//s;
    $shop->sql("SELECT crm.send_many(ARRAY[$list], 'order')");
    ok($shop->empty, 'many messages are sent');
    is(fetches(), 1, 'with one token');
    for (1 .. 2)
    {
        $shop->restart_worker;
        is($shop->state($shop->send($contact, 'order')), 'sent', 'another worker');
    }
    $shop->node->restart;
    is($shop->state($shop->send($contact, 'order')), 'sent', 'and after a restart of the server');
    is(fetches(), 1, 'use the same one');
    remember();
};

subtest 'replaced before its end' => sub {
    $sandbox->admin(settings => { token_lifetime_s => 20, token_overlap_s => 10 });
    $sandbox->admin(tokens => { expire => JSON::PP::true });
    is($shop->state($shop->send($contact, 'order')), 'sent', '42001 is handled');
    is(fetches(), 2, 'by another token');
    remember();
    my $token = $shop->sql('SELECT token FROM crm.account_token');
    cmp_ok($shop->sql('SELECT extract(epoch FROM expires_at - refresh_at) FROM crm.account_token'), '>=', 3, 'which is to be replaced in time');
    # the fetch takes a while, in which messages go out by the old one
    $sandbox->admin(settings => { latency_ms_of => { stable_token => 2500 } });
    $shop->sql('UPDATE crm.account_token SET refresh_at = now()');
    my $message = $shop->send($contact, 'order');
    is($shop->state($message), 'sent', 'a message goes out');
    is($shop->sql('SELECT token FROM crm.account_token'), $token, 'by the old token, while another is fetched');
    $shop->becomes('SELECT refreshing_until IS NULL FROM crm.account_token', 't', 'which comes');
    is(fetches(), 3, 'after one request');
    $sandbox->admin(settings => { latency_ms_of => { stable_token => 0 }, token_lifetime_s => 7200, token_overlap_s => 300 });
    remember();
    secret('s1');
    $sandbox->admin(tokens => { expire => JSON::PP::true });
};

subtest 'revoked' => sub {
    is($shop->state($shop->send($contact, 'order')), 'sent', 'a first message');
    my $before = fetches();
    $sandbox->admin(tokens => { revoke => JSON::PP::true });
    $sandbox->admin(settings => { latency_ms => 200 });
    my @messages;
    for my $i (1 .. 10)
    {
        my $one = $shop->person("o_revoked$i");
        push @messages, [ $one ];
    }
    $shop->sql('SELECT crm.send_many(ARRAY[' . join(',', map { $_->[0] } @messages) . "], 'order')");
    ok($shop->empty, 'ten at once are sent');
    is($shop->sql("SELECT count(*) FROM crm.message WHERE state <> 'sent'"), '0', 'each of them');
    is(fetches(), $before + 1, 'by one new token');
    is(alarms(), '', 'which alarms nobody');
    $sandbox->admin(settings => { latency_ms => 0 });
    remember();
};

subtest 'a platform that refuses what it gives' => sub {
    my $before = fetches();
    $sandbox->admin(accounts => { appid => 'wx01', blocks => { 'template/send' => 40001 } });
    my $message = $shop->send($contact, 'order');
    ok(wait_for(sub { alarms() ne '' }, 60), 'an alarm');
    like(alarms(), qr/^account_paused maison: /, 'that the account is paused');
    is($shop->state($message, 'queued'), 'queued token', 'the message stays queued');
    my @fetched = $sandbox->ledger(api => 'stable_token');
    is(scalar(grep { $_->{body}{force_refresh} } @fetched), 1, 'a new token was forced once');
    cmp_ok(scalar @fetched, '<=', $before + 3, 'few were asked for');
    cmp_ok(scalar(my @rows = $sandbox->ledger(api => 'template/send', since => $fetched[$before]{seq})), '<=', 3, 'and few messages tried');
    is($shop->log_times('pg_crm alarm account_paused of "maison"'), 1, 'one line in the log');
    remember();
    $sandbox->admin(accounts => { appid => 'wx01', blocks => {} });
    resume();
    is($shop->state($message), 'sent', 'once it is set right, the message is sent');
};

subtest 'a wrong secret' => sub {
    secret('no_secret_of_this_account');
    my $message = $shop->send($contact, 'order');
    ok(wait_for(sub { alarms() ne '' }, 60), 'an alarm');
    like(alarms(), qr/^account_paused maison: invalid appsecret/, 'says what the platform said');
    is($shop->sql("SELECT blocked_until || ' ' || blocked_reason FROM crm.api_usage WHERE api = ''"), 'infinity bad_secret', 'the account is paused');
    is($shop->state($message, 'queued'), 'queued', 'the message stays queued');
    my $before = fetches();
    $shop->send($contact, 'order');
    $shop->restart_worker;
    is(fetches(), $before, 'nothing more is asked of the platform');
    secret('s1');
    resume();
    is($shop->state($message), 'sent', 'the right one lets it go');
    remember();
};

subtest 'secrets elsewhere' => sub {
    my $file = PostgreSQL::Test::Utils::tempdir() . '/secret';
    append_to_file($file, "s1\n");
    chmod 0644, $file;
    for my $case ([ "file:$file", 'a file' ], [ 'env:CRM_TEST_SECRET', 'the environment' ])
    {
        secret($case->[0]);
        is($shop->state($shop->send($contact, 'order')), 'sent', "a secret of $case->[1]");
    }
    my %missing = (
        "file:$file.none" => qr/could not open secret file "\Q$file.none\E"/,
        'file:relative' => qr/secret file "relative" has no absolute path/,
        'env:CRM_TEST_NO_SECRET' => qr/environment variable "CRM_TEST_NO_SECRET" of a secret is not set/,
    );
    my $before = fetches();
    for my $value (sort keys %missing)
    {
        secret($value);
        my $message = $shop->send($contact, 'order');
        ok(wait_for(sub { alarms() ne '' }, 60), "an alarm for $value");
        like(alarms(), qr/^account_paused maison: $missing{$value}/, 'says where it looked');
        is($shop->state($message, 'queued'), 'queued', 'the message stays');
        secret('s1');
        resume();
        is($shop->state($message), 'sent', 'and is sent once the secret is there');
    }
    $shop->sql("DELETE FROM crm.account_secret WHERE name = 'app_secret'; DELETE FROM crm.account_token");
    my $message = $shop->send($contact, 'order');
    ok(wait_for(sub { alarms() ne '' }, 60), 'an alarm where there is none');
    like(alarms(), qr/^account_paused maison: crm.account_secret has no app_secret of it/, 'says so');
    $shop->sql("INSERT INTO crm.account_secret SELECT account_id, 'app_secret', 's1' FROM crm.account WHERE name = 'maison'");
    resume();
    is($shop->state($message), 'sent', 'given one, it is sent');

    $shop->sql("UPDATE crm.account_secret SET value = 'env:CRM_TEST_NO_SECRET' WHERE name = 'signing_key'");
    $message = $shop->send($contact, 'tell');
    ok(wait_for(sub { alarms() ne '' }, 60), 'a webhook without its secret');
    like(alarms(), qr/^account_paused till: environment variable "CRM_TEST_NO_SECRET"/, 'is paused too');
    is($shop->state($shop->send($contact, 'order')), 'sent', 'which stops no other account');
    remember();
};

subtest 'never shown' => sub {
    my $log = $shop->log_text;
    my @tables = qw(crm.alarm crm.delivery_attempt crm.message crm.api_usage crm.event);
    my $rows = join "\n", map { $shop->sql("SELECT t FROM $_ t") } @tables;
    cmp_ok(scalar keys %seen, '>=', 4, 'tokens were used');
    is(scalar(grep { index($log, $_) >= 0 } keys %seen), 0, 'no token is in the log');
    is(scalar(grep { index($rows, $_) >= 0 } keys %seen), 0, 'nor in a table but its own');
    # the statements of this test are not logged, so no secret may be
    is(index("$log\n$rows", 'no_secret_of_this_account'), -1, 'no secret is');
    unlike($log, qr/access_token=/, 'no address with a token is');
};

done_testing();
