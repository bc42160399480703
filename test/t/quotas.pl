# What a platform allows an account: calls in a second, in a minute, in a day; calls and accounts that are stopped.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmShop;
use Test::More;

my $shop = CrmShop->new('quotas');
my $sandbox = $shop->sandbox;
my $api = 'message/template/send';
my $maison = $shop->sql("SELECT account_id FROM crm.account WHERE name = 'maison'");

sub limit
{
    my ($columns, @values) = @_;
    $shop->sql("DELETE FROM crm.api_limit WHERE channel = 'official_account'; DELETE FROM crm.api_usage");
    $shop->sql("INSERT INTO crm.api_limit (channel, $columns) VALUES ('official_account', " . join(', ', @values) . ')') if @values;
}

sub people
{
    my ($prefix, $n) = @_;
    $shop->sql("SELECT crm.identify_many('maison', ARRAY(SELECT '$prefix' || i FROM generate_series(1, $n) i))");
    return 'ARRAY(SELECT contact_id FROM crm.identity WHERE external_id LIKE ' . "'$prefix%')";
}

sub requests
{
    my ($openid) = @_;
    # of what is refused before it is read the ledger has the body only
    my @rows = grep { ($_->{body}{touser} // '') =~ /^\Q$openid\E/ } map { $sandbox->ledger(api => $_) } 'template/send', 'custom/send';
    return scalar @rows;
}

# As a person who lets it go on
sub resume
{
    $shop->sql("UPDATE crm.api_usage SET blocked_until = NULL, blocked_reason = NULL; UPDATE crm.alarm SET cleared_at = now()"
          . " WHERE cleared_at IS NULL; UPDATE crm.outbox SET due_at = now() WHERE lease IS NULL");
    $shop->restart_worker;
}

# So often the worker looks in a second while nothing comes in
sub turns_in_a_second
{
    my ($first, $begin) = split /\|/, $shop->sql('SELECT turns, extract(epoch FROM clock_timestamp()) FROM crm.worker_status');
    my ($last, $end);
    do { ($last, $end) = split /\|/, $shop->sql('SELECT turns, extract(epoch FROM clock_timestamp()) FROM crm.worker_status') }
      while $end < $begin + 2;
    return ($last - $first) / ($end - $begin);
}

subtest 'calls in a second' => sub {
    limit('per_second, burst, api', 20, 5, "'$api'");
    my $people = people('o_rate', 85);
    $shop->sql("SELECT crm.send_many($people, 'order')");
    ok($shop->empty, 'all are sent');
    my @t = sort { $a <=> $b } map { $_->{t} } grep { ($_->{touser} // '') =~ /^o_rate/ } $sandbox->ledger(api => 'template/send');
    is(scalar @t, 85, 'each once');
    # 5 at once, then 80 in 4 s; a loaded machine may take longer, but nothing may be faster
    my $took = ($t[-1] - $t[0]) / ($t[0] > 1e12 ? 1e6 : 1);
    cmp_ok($took, '>', 3.6, 'not faster than is allowed');
    cmp_ok($took, '<', 12, 'nor much slower');
    my $fastest = 1e9;
    for my $i (0 .. $#t - 30)
    {
        my $span = ($t[ $i + 30 ] - $t[$i]) / ($t[0] > 1e12 ? 1e6 : 1);
        $fastest = $span if $span < $fastest;
    }
    cmp_ok($fastest, '>', 1.0, 'at no time are 30 calls made in a second');
    is($shop->sql("SELECT used FROM crm.api_usage WHERE api = '$api'"), '85', 'they are counted');
};

subtest 'a slow rate is waited for' => sub {
    limit('per_second, burst, api', 0.1, 1, "'$api'");
    my $people = people('o_slow', 200);
    $shop->sql("SELECT crm.send_many($people, 'order')");
    wait_for(sub { requests('o_slow') == 1 }, 60, 'the first one is sent');
    cmp_ok(turns_in_a_second(), '<', 20, 'without turning in vain');
    cmp_ok(requests('o_slow'), '<=', 2, 'the others wait');
    my $urgent = $shop->person('o_other_call');
    $shop->window($urgent);
    is($shop->state($shop->send($urgent, 'note')), 'sent', 'another call is not held up');
    limit('api');
    $shop->restart_worker;
    ok($shop->empty, 'without the limit all go');
};

subtest 'an account of its own, and all calls together' => sub {
    limit('account_id, per_day, api', 0, 1, "'$api'");
    $shop->sql("INSERT INTO crm.api_limit (channel, account_id, api, per_day) VALUES ('official_account', $maison, '$api', 2)");
    my $contact = $shop->person('o_own');
    is($shop->state($shop->send($contact, 'order'), '(sent|queued)'), $_, "the row of the account counts: $_") for qw(sent sent);
    is($shop->state($shop->send($contact, 'order'), 'queued quota'), 'queued quota_day', 'not that of the channel');
    limit('per_day, api', 3, "''");
    $shop->sql('UPDATE crm.outbox SET due_at = now()');
    $shop->window($contact);
    is($shop->state($shop->send($contact, $_), '(sent|queued quota)'), 'sent', "all calls together: $_") for qw(note note);
    ok($shop->empty, 'three go');
    is($shop->state($shop->send($contact, 'note'), 'queued quota'), 'queued quota_day', 'the fourth waits');
    limit('api');
    resume();
    ok($shop->empty, 'without the limit it goes');
};

subtest 'calls in a day' => sub {
    limit('per_day, api', 3, "'$api'");
    $shop->sql("UPDATE crm.account SET time_zone = 'Pacific/Auckland' WHERE name = 'maison'");
    my $people = people('o_day', 10);
    $shop->sql("SELECT crm.send_many($people, 'order')");
    $shop->becomes("SELECT count(*) FILTER (WHERE state = 'sent') || ' ' || count(*) FILTER (WHERE state = 'queued' AND reason = 'quota_day')"
              . " FROM crm.message JOIN crm.identity USING (contact_id) WHERE external_id LIKE 'o_day%'", '3 7', 'three go, the others are put off');
    is(requests('o_day'), 3, 'no more is tried');
    is($shop->sql("SELECT used || ' ' || (day = timezone('Pacific/Auckland', now())::date) FROM crm.api_usage WHERE api = '$api'"), '3 true',
        'counted on the day of the account');
    is($shop->sql("SELECT bool_and(due_at > now() AND due_at <= timezone('Pacific/Auckland', (timezone('Pacific/Auckland', now())::date + 1)::timestamp))"
          . ' FROM crm.outbox'), 't', 'until midnight there, or a look before');
    cmp_ok(turns_in_a_second(), '<', 20, 'the worker waits');
    $shop->sql("UPDATE crm.api_usage SET day = day - 1; UPDATE crm.outbox SET due_at = now()");
    $shop->sql("SELECT crm.send(contact_id, 'tell') FROM crm.identity WHERE external_id = 'o_day1'");
    $shop->becomes('SELECT count(*) FROM crm.outbox', '4', 'the next day three more go');
    is($shop->sql("SELECT used || ' ' || (day = timezone('Pacific/Auckland', now())::date) FROM crm.api_usage WHERE api = '$api'"), '3 true', 'and are counted anew');
    limit('api');
    $shop->sql("UPDATE crm.account SET time_zone = NULL WHERE name = 'maison'");
    resume();
    ok($shop->empty, 'the rest goes');
};

subtest 'the platform counts too' => sub {
    for my $case ([ 45011, 'quota_minute', "blocked_until BETWEEN now() + interval '20 s' AND now() + interval '61 s'" ],
        [ 45009, 'quota_day', "blocked_until = timezone('Asia/Shanghai', (timezone('Asia/Shanghai', now())::date + 1)::timestamp)" ])
    {
        my ($code, $reason, $until) = @$case;
        my $people = people("o_p$code", 40);
        $sandbox->admin(settings => { latency_ms => 100 });
        $sandbox->admin(accounts => { appid => 'wx01', blocks => { 'template/send' => $code } });
        my $first = $shop->person("o_first$code");
        my $message = $shop->send($first, 'order');
        is($shop->state($message, 'queued quota'), "queued $reason", "$code: it stays queued");
        is($shop->sql("SELECT $until FROM crm.api_usage WHERE api = '$api'"), 't', 'the call rests for so long');
        $shop->sql("SELECT crm.send_many($people, 'order')");
        $shop->becomes("SELECT count(*) FROM crm.message WHERE state = 'queued' AND reason = '$reason'", '41', 'others wait too');
        is(requests("o_p$code") + requests("o_first$code"), 1, 'one request was made');
        my $contact = $shop->person('o_free');
        $shop->window($contact);
        is($shop->state($shop->send($contact, 'note')), 'sent', 'other calls go');
        cmp_ok(turns_in_a_second(), '<', 20, 'the worker waits');
        is(requests("o_p$code") + requests("o_first$code"), 1, 'and makes no other request');
        $sandbox->admin(accounts => { appid => 'wx01', blocks => {} });
        $sandbox->admin(settings => { latency_ms => 0 });
        resume();
        ok($shop->empty, 'then all are sent');
        is($shop->sql("SELECT count(*) FROM crm.alarm WHERE kind LIKE '%paused'"), '0', 'nobody was alarmed');
    }
};

subtest 'a call is stopped' => sub {
    $sandbox->admin(accounts => { appid => 'wx01', blocks => { 'template/send' => 48001 } });
    my $contact = $shop->person('o_right');
    my $message = $shop->send($contact, 'order');
    is($shop->state($message, 'queued no_right'), 'queued no_right', '48001: the message is kept');
    is($shop->sql("SELECT blocked_until FROM crm.api_usage WHERE api = '$api'"), 'infinity', 'the call is stopped');
    is($shop->sql("SELECT kind || ' ' || object || ' ' || times FROM crm.alarm WHERE cleared_at IS NULL AND kind <> 'queue_late'"),
        "api_paused maison $api 1", 'there is an alarm');
    $shop->window($contact);
    is($shop->state($shop->send($contact, 'note')), 'sent', 'other calls go');
    is(requests('o_right'), 2, 'it was tried once');
    $sandbox->admin(accounts => { appid => 'wx01', blocks => {} });
    resume();
    is($shop->state($message), 'sent', 'let go on, it is sent');
};

subtest 'an account is stopped' => sub {
    for my $case ([ 50002, 'account_limited' ], [ 40164, 'ip_not_allowed' ], [ 41001, 'bad_request' ])
    {
        my ($code, $reason) = @$case;
        my $logged = $shop->log_times('pg_crm alarm account_paused of "maison"');
        my $people = people("o_stop$code", 30);
        $sandbox->admin(accounts => { appid => 'wx01', blocks => { '*' => $code } });
        $sandbox->admin(settings => { latency_ms => 200 });
        $shop->sql("SELECT crm.send_many($people, 'order')");
        ok(wait_for(sub { $shop->sql("SELECT count(*) FROM crm.outbox WHERE lease IS NULL AND contact_id = ANY ($people)") eq '30' }, 60),
            "$code: all stay queued");
        is($shop->sql("SELECT blocked_until || ' ' || blocked_reason FROM crm.api_usage WHERE api = '' AND account_id = $maison"),
            "infinity $reason", 'the account is stopped');
        is($shop->sql("SELECT count(*) FROM crm.alarm WHERE cleared_at IS NULL AND kind = 'account_paused'"), '1', 'one alarm');
        is($shop->log_times('pg_crm alarm account_paused of "maison"'), $logged + 1, 'one line in the log');
        my $before = requests("o_stop$code");
        $shop->restart_worker;
        cmp_ok(turns_in_a_second(), '<', 20, 'the worker waits');
        is(requests("o_stop$code"), $before, 'and makes no request');
        my ($one) = split /\n/, $shop->sql("SELECT unnest($people)");
        is($shop->state($shop->send($one, 'tell')), 'sent', 'other accounts send');
        $sandbox->admin(accounts => { appid => 'wx01', blocks => {} });
        $sandbox->admin(settings => { latency_ms => 0 });
        resume();
        ok($shop->empty, 'let go on, all are sent');
        is($shop->sql("SELECT count(*) FROM crm.message WHERE state <> 'sent' AND contact_id = ANY ($people)"), '0', 'and none was lost');
        is($shop->sql("SELECT count(*) FROM crm.message m WHERE contact_id = ANY ($people) AND template = 'order'"
              . " AND (SELECT count(*) FROM crm.delivery_attempt a WHERE a.message_id = m.message_id AND a.outcome = 'sent') <> 1"), '0', 'nor sent twice');
    }
};

done_testing();
