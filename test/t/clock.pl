# What time alone brings, with nobody calling tick(): the clock of a database comes when something is due, and goes
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmShop;
use CrmTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $many = 20_000;
my $fewer = 10_000;
my $shop = CrmShop->new('clock', conf => "pg_crm.poll_interval = 1\nrestart_after_crash = on\nmax_worker_processes = 16\n");
my $node = $shop->node;
sub sql { return $shop->sql(shift) }
sub becomes
{
    my ($query, $name, $database) = @_;
    ok($node->poll_query_until($database // 'shop', $query), $name);
    return;
}

my $offset = 0;
sub mark { $offset = -s $node->logfile; return }
sub logged { return scalar(() = slurp_file($node->logfile, $offset) =~ /$_[0]/g) }

sub set_worker
{
    my ($on) = @_;
    $node->safe_psql('postgres', 'ALTER DATABASE shop ' . ($on ? 'RESET pg_crm.worker' : 'SET pg_crm.worker = off'));
    becomes('SELECT ' . ($on ? q{state = 'running'} : q{state = 'off' AND clock_pid IS NULL}) . ' FROM crm.worker_status',
        'the worker is ' . ($on ? 'on' : 'off'));
    return;
}

# contacts after an id that have just become due, with one order each: $dormant tells how many were moved
sub make_due
{
    my ($after, $n) = @_;
    sql(qq{INSERT INTO crm.contact (contact_id) SELECT $after + n FROM generate_series(1, $n) AS n;
        INSERT INTO crm.transaction (contact_id, amount, occurred_at)
            SELECT $after + n, 10, now() - interval '90 days' + interval '2 seconds' FROM generate_series(1, $n) AS n});
    becomes("SELECT count(*) = $n FROM crm.stage_due WHERE contact_id BETWEEN $after + 1 AND $after + $n AND due_at < now()", "$n are due");
    return;
}
my $dormant = q{(SELECT count(*) FROM crm.contact WHERE stage = 'dormant' AND contact_id BETWEEN 100001 AND 900000)};

subtest 'a stage, a tier and a segment end by time' => sub {
    sql(q{SELECT crm.define_stage_rule('{"stage": "dormant", "rule": "orders >= 1 AND as_of - last_order_at >= interval ''90 days''"}');
        SELECT crm.define_stage_rule('{"stage": "loyal", "rule": "orders >= 2 AND as_of - last_order_at >= interval ''2 seconds''"}');
        SELECT crm.define_segment('{"name": "fresh", "rule": "orders >= 1 AND as_of - last_order_at < interval ''2 seconds''"}');
        INSERT INTO crm.loyalty_program (name) VALUES ('club');
        INSERT INTO crm.tier (program, tier) VALUES ('club', 'member');
        INSERT INTO crm.tier (program, tier, rank, threshold, period) VALUES ('club', 'silver', 1, 100, '2 seconds')});
    my $contact = sql(q{SELECT crm.identify('customer', 'c1')});
    sql(qq{BEGIN; SELECT crm.join_loyalty($contact, 'club'); SELECT crm.purchase($contact, 10, now() - interval '1 hour');
        SELECT crm.earn_points($contact, 'club', 150); SELECT crm.purchase($contact, 10); COMMIT});
    is(sql("SELECT tier FROM crm.membership WHERE contact_id = $contact"), 'silver', 'a tier was reached');
    is(sql("SELECT string_agg(change, ' ') FROM crm.segment_change WHERE contact_id = $contact"), 'entered', 'a segment was entered');
    becomes("SELECT stage = 'loyal' FROM crm.contact WHERE contact_id = $contact", 'a stage came by itself');
    is(sql("SELECT m.reason, m.since - (SELECT max(occurred_at) FROM crm.transaction WHERE contact_id = $contact)
        FROM crm.stage_move m WHERE m.contact_id = $contact AND m.stage = 'loyal'"), 'time|00:00:02', 'dated by its moment');
    becomes("SELECT tier = 'member' FROM crm.membership WHERE contact_id = $contact", 'the tier ended');
    is(sql("SELECT reason FROM crm.tier_change WHERE contact_id = $contact ORDER BY tier_change_id DESC LIMIT 1"), 'period', 'as its period did');
    becomes("SELECT count(*) = 0 FROM crm.segment_member WHERE contact_id = $contact", 'the segment was left');
    is(sql("SELECT cause FROM crm.segment_change WHERE contact_id = $contact AND change = 'left'"), 'time', 'for the sake of time');
    becomes(q{SELECT clock_pid IS NULL AND clock_done_at > started_at AND clock_problem IS NULL FROM crm.worker_status}, 'then the clock is gone');
    is(sql('SELECT count(*) FROM crm.verify()'), '0', 'all is sound');
};

subtest 'nobody waits for whom somebody else holds' => sub {
    set_worker(0);
    make_due(50_000, 2);
    my $session = $shop->session;
    $session->query_safe('BEGIN; SELECT FROM crm.profile_counter WHERE contact_id = 50001 FOR UPDATE');
    set_worker(1);
    becomes(q{SELECT stage = 'dormant' FROM crm.contact WHERE contact_id = 50002}, 'the other one is moved');
    is(sql('SELECT stage FROM crm.contact WHERE contact_id = 50001'), 'paying', 'the one that is held is not');
    $session->query_safe('COMMIT');
    becomes(q{SELECT stage = 'dormant' FROM crm.contact WHERE contact_id = 50001}, 'until it is free');
    $session->quit;
};

subtest 'a contact that cannot be moved does not keep the others' => sub {
    set_worker(0);
    sql(q{CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
            IF NEW.contact_id = 51007 AND NEW.stage = 'dormant' THEN RAISE 'not this one'; END IF; RETURN NEW; END$$;
        CREATE TRIGGER refuse BEFORE INSERT ON crm.stage_move FOR EACH ROW EXECUTE FUNCTION refuse()});
    make_due(51_000, 50);
    mark();
    set_worker(1);
    becomes(q{SELECT count(*) = 49 FROM crm.contact WHERE stage = 'dormant' AND contact_id BETWEEN 51001 AND 51050}, 'the others are moved');
    $node->wait_for_log(qr/WARNING:  pg_crm clock of database "shop" ended by an error\n.*DETAIL:  Failures in a row: 2\. The last error was P0001/, $offset);
    like(slurp_file($node->logfile, $offset), qr/ERROR:  not this one\n(?:.*\n){1,3}?\ttime of contact 51007\n/, 'the log names it');
    is(sql('SELECT count(*) FROM crm.contact WHERE contact_id = 51007 AND stage = \'dormant\''), '0', 'it is where it was');
    is(sql(q{SELECT state, problem FROM crm.worker_status}), 'running|', 'the worker goes on');
    like(sql(q{SELECT detail FROM crm.active_alarm WHERE kind = 'clock_down'}), qr/^it ended by an error, failures in a row: \d+, SQLSTATE P0001/, 'an alarm says so');
    cmp_ok(logged(qr/ended by an error/), '<=', 4, 'more and more slowly');
    sql('DROP TRIGGER refuse ON crm.stage_move');
    becomes(q{SELECT stage = 'dormant' FROM crm.contact WHERE contact_id = 51007}, 'mended, it is moved too');
    becomes('SELECT clock_problem IS NULL FROM crm.worker_status', 'and nothing is wrong any more');
};

subtest 'partitions and windows' => sub {
    my $last = sql(q{SELECT max(c.relname) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'crm.event'::regclass AND c.relname <> 'event_default'});
    my $account = sql(q{SELECT account_id FROM crm.account WHERE name = 'maison'});
    sql(qq{DROP TABLE crm.$last; INSERT INTO crm.window_grant (contact_id, account_id, kind, opened_at, expires_at)
        SELECT 50001, $account, 'message', now() - d, now() - d + interval '2 days' FROM unnest('{10 days,8 days}'::interval[]) AS d});
    set_worker(0);
    $node->restart;    # after which it looks
    my $session = $shop->session;
    $session->query_safe('BEGIN; SELECT count(*) FROM crm.event_default');
    mark();
    set_worker(1);
    becomes('SELECT clock_done_at IS NOT NULL FROM crm.worker_status', 'the clock runs after a restart');
    is(sql("SELECT to_regclass('crm.$last')"), '', 'whoever holds a table is not waited for');
    my $begin = time;
    sql("SELECT crm.track(50002, 'visit')") for 1 .. 10;
    cmp_ok(time - $begin, '<', 5, 'nor does anybody wait behind');
    $session->query_safe('COMMIT');
    becomes("SELECT to_regclass('crm.$last') IS NOT NULL", 'the missing partition comes');
    becomes('SELECT count(*) = 1 FROM crm.window_grant WHERE contact_id = 50001', 'a window that ended long ago goes');
    is(logged(qr/(ERROR|WARNING|FATAL):/), 0, 'without a word');
    $session->quit;
};

subtest 'rows that are being restored' => sub {
    set_worker(0);
    make_due(52_000, 3);
    sql('SELECT crm.restoring(true)');
    set_worker(1);
    my $turns = sql('SELECT turns FROM crm.worker_status');
    becomes("SELECT turns > $turns + 2 FROM crm.worker_status", 'the worker looks');
    is(sql('SELECT count(*) FROM crm.stage_due WHERE contact_id BETWEEN 52001 AND 52003'), '3', 'time stands still');
    sql('SELECT crm.restoring(false)');
    becomes(q{SELECT count(*) = 3 FROM crm.contact WHERE stage = 'dormant' AND contact_id BETWEEN 52001 AND 52003}, 'and goes on');
};

my $customer = $shop->person('o_customer');
$shop->window($customer);
sql(q{SELECT crm.define_template('{"name": "code", "channel": "official_account", "message_type": "text", "lane": "urgent",
    "body": {"content": "Your code"}}')});
is($shop->state($shop->send($customer, 'code')), 'sent', 'an urgent message');
set_worker(0);
make_due(100_000, $many);
is(sql("SELECT $dormant"), '0', 'the worker is off: nobody is moved');

subtest 'a copy stands still, until it takes over' => sub {
    $node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE shop');
    becomes('SELECT turns > 3 FROM crm.worker_status', 'its worker looks', 'copy');
    is($node->safe_psql('copy', "SELECT $dormant"), '0', 'and moves nobody');
    mark();
    $node->safe_psql('copy', 'SELECT crm.resume_dispatch()');
    for my $command ([ 'ALTER DATABASE copy RENAME TO copied', 'copy' ], [ 'DROP DATABASE copied', 'copied' ])
    {
        my ($statement, $database) = @$command;
        my $before = $node->safe_psql($database, "SELECT $dormant");
        becomes("SELECT clock_pid IS NOT NULL AND $dormant > $before FROM crm.worker_status", 'it moves many', $database);
        cmp_ok($node->safe_psql($database, "SELECT $dormant"), '<', $many, 'which takes long');
        my $begin = time;
        my ($rc, $out, $err) = $node->psql('postgres', $statement);
        is("$rc$err", '0', $statement);
        cmp_ok(time - $begin, '<', 4, 'soon');
    }
    is(logged(qr/(ERROR|FATAL):/), 0, 'and in order');
};

subtest 'messages go out meanwhile' => sub {
    set_worker(1);
    becomes("SELECT $dormant > 0", 'many are being moved');
    my $during = 0;
    my $longest = 0;
    while (1)
    {
        my $message = $shop->send($customer, 'code');
        $shop->state($message);
        my ($moved, $seconds) = split /\|/, sql("SELECT $dormant, extract(epoch FROM sent_at - recorded_at) FROM crm.message WHERE message_id = $message");
        last if $moved == $many;
        $during++;
        $longest = $seconds if $seconds > $longest;
    }
    cmp_ok($during, '>', 0, "$during urgent messages");
    cmp_ok($longest, '<', 1, "each within a second, the slowest in $longest s");
    is(sql("SELECT count(*) FROM crm.stage_due s WHERE s.due_at <= now()"), '0', 'all is done');
};

subtest 'off, and crashes' => sub {
    set_worker(0);
    make_due(200_000, $fewer);
    set_worker(1);
    becomes("SELECT clock_pid IS NOT NULL AND $dormant > $many FROM crm.worker_status", 'more are being moved');
    set_worker(0);
    my $moved = sql("SELECT $dormant");
    cmp_ok($moved, '<', $many + $fewer, 'off in the middle of it');
    set_worker(1);
    becomes("SELECT clock_pid IS NOT NULL AND $dormant > $moved FROM crm.worker_status", 'on again');
    my $pid = sql('SELECT clock_pid FROM crm.worker_status');
    mark();
    $node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
    becomes("SELECT clock_pid IS DISTINCT FROM $pid FROM crm.worker_status", 'told to go, it goes');
    becomes("SELECT clock_pid <> $pid AND $dormant < $many + $fewer FROM crm.worker_status", 'and comes again');
    is(logged(qr/(ERROR|FATAL|WARNING):/), 0, 'in order');
    $pid = sql('SELECT clock_pid FROM crm.worker_status');
    like($pid, qr/^\d+\z/, 'still at it') or return;
    kill 'KILL', $pid;
    $node->wait_for_log(qr/all server processes terminated; reinitializing/, $offset);
    $node->poll_query_until('postgres', 'SELECT true');
    becomes("SELECT $dormant = $many + $fewer", 'after a crash of the clock the rest is moved');
    is(sql('SELECT count(*) FROM crm.verify()'), '0', 'and all is sound');
};

$node->stop;
done_testing();
