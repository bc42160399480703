# What a crash leaves between two steps of a delivery, one step at a time: claimed and on its way, replied
# and not written, written. And what a reply says when it comes late, or after one that was lost.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmSandbox;
use CrmTest;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

my $sandbox = CrmSandbox->start(accounts => { wx01 => 's1' }, webhooks => { crm => 'whsec' });
# leases end 15 s after the timeout; what others may lose, claims may not
my $node = crm_node('crashes', worker => 1, conf => <<'CONF');
fsync = on
restart_after_crash = on
synchronous_commit = off
default_transaction_isolation = serializable
default_transaction_read_only = on
wal_writer_delay = 10s
log_min_messages = info
log_statement = none
pg_crm.send_timeout = 2s
CONF
$ENV{PGOPTIONS} = '-c synchronous_commit=on -c default_transaction_read_only=off -c default_transaction_isolation=read\ committed';
my $db = crm_database($node, 'shop');

sub sql { return $node->safe_psql($db, shift) }

(my $url = $sandbox->url('')) =~ s{/$}{};
sql(<<SQL);
INSERT INTO crm.account (kind, name, app_id, base_url) VALUES ('official_account', 'maison', 'wx01', '$url');
INSERT INTO crm.account (kind, name, base_url) VALUES ('webhook', 'till', '@{[ $sandbox->url('/webhook/crm') ]}');
INSERT INTO crm.account_secret SELECT account_id, 'app_secret', 's1' FROM crm.account WHERE name = 'maison';
INSERT INTO crm.account_secret SELECT account_id, 'signing_key', 'whsec' FROM crm.account WHERE name = 'till';
SELECT crm.define_template('{"name": "hello", "channel": "official_account", "message_type": "text", "body": {"content": "{{n|-}}"}}');
SELECT crm.define_template('{"name": "order", "channel": "official_account", "message_type": "template",
  "body": {"template_id": "T1", "data": {"thing1": {"value": "{{n|-}}"}}}}');
SELECT crm.define_template('{"name": "tell", "channel": "webhook", "message_type": "post", "body": {"n": "{{n|-}}"}}');
SQL

# a contact with an open window, as both sides see it
sub contact
{
    my ($openid) = @_;
    $sandbox->admin(windows => { openid => $openid, event => 'message' });
    my $contact = sql("SELECT crm.identify('maison', '$openid')");
    sql("SELECT crm.track($contact, 'message', account => 'maison')");
    return $contact;
}
sub send_to
{
    my ($contact, $template, $n) = @_;
    return sql("SELECT crm.send($contact, '$template', '{\"n\": \"" . ($n // '-') . "\"}')");
}
sub state_of { return sql("SELECT state FROM crm.message WHERE message_id = $_[0]") }
sub becomes
{
    my ($message, $wanted, $name, $seconds) = @_;
    my $state = '';
    eval { wait_for(sub { ($state = state_of($message)) =~ /^(?:$wanted)$/ }, $seconds // 45) };
    like($state, qr/^(?:$wanted)$/, $name);
}
sub until_sql
{
    my ($condition, $name) = @_;
    wait_for(sub { sql("SELECT $condition") eq 't' }, 45, $name);
}
sub received { my ($openid) = @_; return grep { $_->{touser} && $_->{touser} eq $openid && $_->{api} =~ m{/send} } $sandbox->ledger }
sub delivered { return scalar grep { $_->{delivered} } received(@_) }
sub worker
{
    my $gone = shift // 0; # which the status may name until the server has begun anew
    my $pid;
    wait_for(sub {
        my ($rc, $out) = eval { $node->psql($db, q{SELECT pid FROM crm.worker_status WHERE state = 'running'}) };
        $pid = defined $rc && $rc == 0 ? $out : undef;
        return $pid && $pid != $gone;
    }, 60, 'the worker runs');
    return $pid;
}
# between two turns, so that it holds nothing
sub stop_worker
{
    my $pid = worker();
    wait_for(sub {
        kill STOP => $pid;
        return 1 if sql("SELECT NOT EXISTS (SELECT FROM pg_locks WHERE pid = $pid) FROM pg_stat_activity WHERE pid = $pid AND state = 'idle'") eq 't';
        kill CONT => $pid;
        return 0;
    }, 20, 'the worker stands still');
    return $pid;
}
sub kill_worker
{
    my $pid = worker();
    kill KILL => $pid;
    wait_for(sub { !kill 0 => $pid }, 30, 'the worker is gone');
    worker($pid);
}
sub kill_server
{
    $node->kill9;
    my @start = ('pg_ctl', '-s', '-w', '-D', $node->data_dir, '-l', $node->logfile, 'start');
    wait_for(sub { IPC::Run::run(\@start, '>', \my $out, '2>', \my $err) }, 60, 'the server starts again');
    $node->_update_pid(1);
    worker();
}
sub let_go_on
{
    sql("UPDATE crm.api_usage SET blocked_until = NULL; UPDATE crm.outbox SET due_at = now() WHERE lease IS NULL AND due_at < 'infinity';
         SELECT crm.resume_dispatch()");
}
sub sound
{
    is(sql(q{SELECT count(*) FROM crm.message m FULL JOIN crm.outbox o USING (contact_id, message_id)
               WHERE (m.state IN ('queued', 'sending')) IS DISTINCT FROM (o.message_id IS NOT NULL)
                  OR (m.state = 'sending') IS DISTINCT FROM (coalesce(o.lease IS NOT NULL, false))}), '0', 'queue and messages agree');
    is(sql(q{SELECT count(*) FROM crm.message m FULL JOIN crm.message_unknown u USING (contact_id, message_id)
               WHERE (m.state = 'unknown') IS DISTINCT FROM (u.message_id IS NOT NULL)}), '0', 'the unknown ones are listed');
}

subtest 'the server dies while messages are on their way' => sub {
    my $contact = contact('o_way');
    my $keyed = contact('o_way_keyed');
    is(sql("SHOW synchronous_commit") , 'on', 'what is asked for is safe');
    becomes(send_to($contact, 'hello', 'first'), 'sent', 'a worker may write where transactions read only');
    $sandbox->admin(faults => { api => $_, fault => 'silent', seconds => 20 }) for qw(custom/send template/send);
    my ($one, $two) = (send_to($contact, 'hello', 'second'), send_to($keyed, 'order'));
    wait_for(sub { received('o_way') == 2 && received('o_way_keyed') == 1 }, 20, 'both were received');
    kill_server();
    is(state_of($_), 'sending', 'the claim is there, whatever synchronous_commit says') for $one, $two;
    becomes($one, 'unknown', 'without a key it is unknown');
    becomes($two, 'sent', 'with a key it is sent');
    is(delivered('o_way'), 2, 'and nothing went twice');
    is(delivered('o_way_keyed'), 1, 'nor arrived twice');
    sound();
};

subtest 'the worker dies between the reply and its record' => sub {
    my ($plain, $keyed, $till) = map { contact("o_record_$_") } qw(plain keyed till);
    my $locker = $node->background_psql($db);
    $locker->query_safe('BEGIN; LOCK TABLE crm.delivery_attempt IN ACCESS EXCLUSIVE MODE');
    # claimed by one turn, as the next one waits
    my @messages = split /\|/, sql("SELECT crm.send($plain, 'hello'), crm.send($keyed, 'order'), crm.send($till, 'tell')");
    wait_for(sub { received('o_record_plain') == 1 && received('o_record_keyed') == 1
        && grep { $_->{api} eq 'webhook/crm' && $_->{replied} eq 'whole' } $sandbox->ledger }, 20, 'the replies are there');
    is(state_of($_), 'sending', 'and not written') for @messages;
    kill_worker();
    eval { $locker->quit };
    becomes($messages[0], 'unknown', 'without a key it is unknown');
    becomes($messages[$_], 'sent', 'with a key it is sent') for 1, 2;
    is(delivered("o_record_$_"), 1, "$_: nothing arrived twice") for qw(plain keyed);
    is(scalar(grep { $_->{delivered} } $sandbox->ledger(api => 'webhook/crm')), 1, 'nor at the till');
    is(scalar(grep { $_->{duplicate} } received('o_record_keyed')), 1, 'the platform knew the key');
    is(sql("SELECT string_agg(outcome, ' ' ORDER BY attempt_id) FROM crm.delivery_attempt WHERE message_id = $messages[1]"),
        'no_reply sent', 'both attempts are kept');
    sound();
};

subtest 'leases, in isolation' => sub {
    my @contacts = map { contact("o_lease_$_") } 0 .. 4;
    # as a worker left them that died, at various times
    sql("ALTER DATABASE $db SET pg_crm.worker = off");
    until_sql(q{(SELECT state FROM crm.worker_status) = 'off'}, 'no worker runs');
    my @messages = map { send_to($contacts[ $_->[0] ], $_->[1]) } [ 0, 'hello' ], [ 1, 'order' ], [ 2, 'order' ], [ 0, 'hello' ], [ 3, 'hello' ], [ 4, 'tell' ];
    my $left = sub {
        my ($i, $lease, $tried) = @_;
        sql("UPDATE crm.outbox SET lease = now() + '$lease', attempts = 1, attempt_id = nextval('crm.delivery_attempt_attempt_id_seq') WHERE message_id = $messages[$i];
             UPDATE crm.message m SET state = 'sending', tried_at = now() - interval '$tried', attempt_id = o.attempt_id FROM crm.outbox o
              WHERE o.message_id = m.message_id AND m.message_id = $messages[$i]");
    };
    $left->(0, '-1 second', '20 seconds');
    $left->(1, '-1 second', '9 minutes');
    $left->(2, '-1 second', '10 minutes');
    $left->(4, '1 hour', '1 second');
    $left->(5, '-1 hour', '23 hours');
    sql("UPDATE crm.outbox SET due_at = 'infinity' WHERE message_id = $messages[3]");
    sql("ALTER DATABASE $db RESET pg_crm.worker");
    becomes($messages[0], 'unknown', 'without a key: unknown');
    becomes($messages[1], 'sent', 'within the time of its key: sent');
    becomes($messages[2], 'unknown', 'after it: unknown');
    becomes($messages[3], 'sent', 'what waited behind goes');
    becomes($messages[5], 'sent', 'a webhook keeps keys for a day');
    is(state_of($messages[4]), 'sending', 'a lease that lasts is left alone');
    is(delivered("o_lease_$_->[0]"), $_->[1], "contact $_->[0]: $_->[1] received") for [ 0, 1 ], [ 1, 1 ], [ 2, 0 ], [ 3, 0 ];
    is(sql("SELECT outcome FROM crm.delivery_attempt WHERE message_id = $messages[0]"), 'no_reply', 'the attempt is kept');
    sound();
    sql("UPDATE crm.outbox SET lease = now() - interval '1 second' WHERE message_id = $messages[4]");
    kill_worker();
    becomes($messages[4], 'unknown', 'until it ends');
};

subtest 'a worker that stood still, and a reply that is late' => sub {
    my ($late, $gone) = map { contact("o_still_$_") } qw(late gone);
    $sandbox->admin(settings => { latency_ms_of => { 'custom/send' => 1000 } });
    my ($one, $two) = (send_to($late, 'hello'), send_to($gone, 'hello'));
    until_sql("(SELECT count(*) = 2 FROM crm.outbox WHERE message_id IN ($one, $two) AND lease IS NOT NULL)", 'both are on their way');
    my $pid = stop_worker();
    wait_for(sub { 2 == grep { $_->{replied} eq 'whole' } received('o_still_late'), received('o_still_gone') }, 20, 'the platform has replied');
    until_sql("(SELECT max(lease) < clock_timestamp() FROM crm.outbox WHERE message_id IN ($one, $two))", 'the leases have ended');
    # somebody else, such as the worker of a server that took over, has given up on them
    sql("WITH o AS (DELETE FROM crm.outbox WHERE message_id IN ($one, $two) RETURNING contact_id, message_id),
              u AS (INSERT INTO crm.message_unknown SELECT contact_id, message_id, now() FROM o)
         UPDATE crm.message m SET state = 'unknown', reason = 'no_reply' FROM o WHERE m.message_id = o.message_id");
    sql("SELECT crm.resolve_message($gone, $two, 'failed', 'she says so')");
    kill CONT => $pid;
    becomes($one, 'sent|unknown', 'what was unknown is sent where its reply was still there');
    becomes($two, 'failed', 'what a person settled stays so');
    until_sql("(SELECT count(*) FROM crm.delivery_attempt WHERE message_id IN ($one, $two) AND outcome NOT LIKE 'resolved%') = 2", 'both replies were looked at');
    is(delivered('o_still_late'), 1, 'it arrived once');
    $sandbox->admin(settings => { latency_ms_of => { 'custom/send' => 0 } });
    sound();
};

subtest 'a key is bound to its first attempt' => sub {
    my $contact = contact('o_bound');
    $sandbox->admin(faults => [ { api => 'template/send', fault => 'reset_before_reply' }, { api => 'template/send', fault => 'errcode_45009' } ]);
    my $message = send_to($contact, 'order');
    until_sql("(SELECT state = 'queued' AND reason = 'quota_day' FROM crm.message WHERE message_id = $message)", 'the reply is lost, then the call is stopped');
    is(sql("SELECT tried_at IS NOT NULL FROM crm.message WHERE message_id = $message"), 't', 'the first attempt is remembered');
    sql("UPDATE crm.message SET tried_at = tried_at - interval '11 minutes' WHERE message_id = $message");
    let_go_on();
    becomes($message, 'unknown', 'after the time of its key it goes no more');
    is(scalar(received('o_bound')), 2, 'nor did it');

    my $left = contact('o_bound_left');
    $sandbox->admin(faults => [ { api => 'template/send', fault => 'reset_before_reply' }, { api => 'template/send', fault => 'errcode_43004' } ]);
    becomes($message = send_to($left, 'order'), 'unknown', 'a refusal does not say that an earlier attempt failed');
    is(delivered('o_bound_left'), 1, 'which did not');
    sound();
};

subtest 'order, when one comes while another is settled' => sub {
    my $contact = contact('o_order');
    $sandbox->admin(settings => { latency_ms_of => { 'custom/send' => 1000 } });
    my @messages = (send_to($contact, 'hello', 'a'));
    until_sql("(SELECT lease IS NOT NULL FROM crm.outbox WHERE message_id = $messages[0])", 'the first is on its way');
    push @messages, send_to($contact, 'hello', 'b');
    until_sql("(SELECT due_at = 'infinity' FROM crm.outbox WHERE message_id = $messages[1])", 'the second waits behind it');
    my $pid = stop_worker();
    wait_for(sub { grep { $_->{replied} eq 'whole' } received('o_order') }, 20, 'the first has its reply');
    push @messages, send_to($contact, 'hello', 'c');
    kill CONT => $pid;
    becomes($_, 'sent', 'sent') for @messages;
    is(join('', map { $_->{body}{text}{content} } received('o_order')), 'abc', 'in their order');

    # a call that is stopped stops nobody else
    my $other = contact('o_lanes');
    $sandbox->admin(faults => { api => 'custom/send', fault => 'errcode_45009' });
    my $stopped = send_to($other, 'hello');
    until_sql("(SELECT lease IS NOT NULL FROM crm.outbox WHERE message_id = $stopped)", 'it is on its way');
    my $behind = send_to($other, 'order');
    becomes($behind, 'sent', 'what waited goes while the first is put off');
    is(state_of($stopped), 'queued', 'which stays');
    cmp_ok(sql("SELECT extract(epoch FROM due_at - now()) FROM crm.outbox WHERE message_id = $stopped"), '<=', 600, 'and is looked at within ten minutes');
    $sandbox->admin(settings => { latency_ms_of => { 'custom/send' => 0 } });
    let_go_on();
    becomes($stopped, 'sent', 'and goes when the call is let go on');
    sound();
};

subtest 'a token that the platform takes for bad once' => sub {
    my $contact = contact('o_token');
    $sandbox->admin(faults => { api => 'template/send', fault => 'errcode_40001' });
    my $message = send_to($contact, 'order');
    until_sql("(SELECT reason IS NOT DISTINCT FROM 'token' FROM crm.message WHERE message_id = $message)", 'it was refused');
    until_sql("(SELECT state <> 'queued' OR EXISTS (SELECT FROM crm.alarm WHERE kind = 'account_paused' AND cleared_at IS NULL)
        FROM crm.message WHERE message_id = $message)", 'another token was fetched');
    is(sql("SELECT count(*) FROM crm.alarm WHERE kind = 'account_paused'"), '0', 'the account goes on');
    becomes($message, 'sent', 'with it the message goes');
};

subtest 'a fact that is refused stops no messages' => sub {
    my ($contact, $other) = (sql("SELECT crm.follow('maison', 'o_refused')"), contact('o_goes_on'));
    sql(q{CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no unfollows here'; END $$;
          CREATE TRIGGER refuse BEFORE INSERT ON crm.event FOR EACH ROW WHEN (NEW.kind = 'unfollow') EXECUTE FUNCTION refuse()});
    my $pid = worker();
    my $offset = -s $node->logfile;
    $sandbox->admin(faults => { api => 'template/send', fault => 'errcode_43004' });
    becomes(send_to($contact, 'order'), 'failed', 'the contact is gone');
    $node->wait_for_log(qr/no unfollows here/, $offset);
    becomes(send_to($other, 'hello'), 'sent', 'the next message goes');
    becomes(send_to($other, 'hello'), 'sent', 'and another');
    is(worker(), $pid, 'from the same worker');
    is(scalar(() = slurp_file($node->logfile, $offset) =~ /no unfollows here/g), 1, 'it was tried once');
    sound();
};

is(sql('SELECT * FROM crm.verify()'), '', 'verify() finds nothing');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|signal 11|signal 6|gives up after/, 'nothing crashed by itself');
$node->stop;
done_testing();
