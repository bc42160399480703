# Sends while everything fails: worker and postmaster are killed, connections reset, replies lost, late,
# garbled or refused, tokens revoked, calls stopped, the platform gone; all the while several clients ask
# for more. At the end the sandbox's ledger, which trusts nobody, and the database are compared message by
# message. CRM_SENDS=600 sends; SEED repeats what was drawn, though not when it met what.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmSandbox;
use CrmTest;
use IPC::Run ();
use JSON::PP ();
use List::Util qw(max min shuffle sum0);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $sends    = $ENV{CRM_SENDS} || 600;
my $seed     = $ENV{SEED} || int(time * 1000) % 1_000_000;
my $clients  = 4;
my $contacts = max(40, int($sends / 25));
my $slots    = 20;      # pg_crm.connections
my $timeout  = 2;       # pg_crm.send_timeout, in seconds: short, so that leases (15 s more) end soon
my $chunk    = 25;
my $waiting  = 300;     # the queue that clients leave
my %weight   = (hello => 5, order => 3, tell => 2);
srand $seed;
# the one where it passes, the other where it fails
$_->("$sends sends, SEED=$seed") for \&note, \&diag;

# --- the two sides --------------------------------------------------------------------------------

my $sandbox = CrmSandbox->start(accounts => { wx01 => 's1' }, webhooks => { crm => 'whsec' }, seed => $seed);
# without fsync what the claim promises would be nothing; synchronous_commit is off where it may be
my $node = crm_node('faults', worker => 1, conf => <<CONF);
fsync = on
restart_after_crash = on
synchronous_commit = off
wal_writer_delay = 10s
log_min_messages = info
log_statement = none
pg_crm.connections = $slots
pg_crm.send_timeout = ${timeout}s
CONF
my $db = crm_database($node, 'shop');
# a commit that was reported to a client is to be there after a crash
$ENV{PGOPTIONS} = '-c synchronous_commit=on';

sub sql { return $node->safe_psql($db, shift) }

# while servers come and go: undef where there was none
sub try_sql
{
    my ($sql) = @_;
    # it dies where its psql ends before it has read all
    my ($rc, $out) = eval { $node->psql($db, $sql, on_error_stop => 1) };
    return defined $rc && $rc == 0 ? $out : undef;
}

(my $url = $sandbox->url('')) =~ s{/$}{};
sql(<<SQL);
INSERT INTO crm.account (kind, name, app_id, base_url) VALUES ('official_account', 'maison', 'wx01', '$url');
INSERT INTO crm.account (kind, name, base_url) VALUES ('webhook', 'till', '@{[ $sandbox->url('/webhook/crm') ]}');
INSERT INTO crm.account_secret SELECT account_id, 'app_secret', 's1' FROM crm.account WHERE name = 'maison';
INSERT INTO crm.account_secret SELECT account_id, 'signing_key', 'whsec' FROM crm.account WHERE name = 'till';
SELECT crm.define_template('{"name": "hello", "channel": "official_account", "message_type": "text", "body": {"content": "{{n}}"}}');
SELECT crm.define_template('{"name": "order", "channel": "official_account", "message_type": "template",
  "body": {"template_id": "T1", "data": {"thing1": {"value": "{{n}}"}}}}');
SELECT crm.define_template('{"name": "tell", "channel": "webhook", "message_type": "post", "body": {"n": "{{n}}"}}');
SQL

# contacts 1 .. N, each with windows for more than it will get
my $windows = 3 + int($sends / $contacts / 5);
sql("SELECT crm.follow('maison', 'o' || n) FROM generate_series(1, $contacts) n");
sql("SELECT crm.track(i.contact_id, 'message', at => now() - w * interval '1 minute', account => 'maison')
       FROM crm.identity i, generate_series(1, $windows) w WHERE i.kind = 'openid'");
my %openids = (prefix => 'o', from => 1, to => $contacts);
$sandbox->admin(windows => { %openids, event => 'follow' });
$sandbox->admin(windows => { %openids, event => 'message' }) for 1 .. $windows + 1;
my %contact = map { split /\|/ } split /\n/, sql("SELECT external_id, contact_id FROM crm.identity WHERE kind = 'openid'");

# --- what is asked for ----------------------------------------------------------------------------

my @kinds = map { ($_) x $weight{$_} } sort keys %weight;
my @plan = map { { n => $_, kind => $kinds[ rand @kinds ], contact => $contact{ 'o' . (1 + int rand $contacts) }, keyed => rand() < 0.5 } } 1 .. $sends;
my $dir = PostgreSQL::Test::Utils::tempdir();

# One client: in a psql, a send a transaction. What was answered is committed. What was not is asked for
# again where it has a send_key; else nobody knows, and it may be there or not.
sub client
{
    my ($number) = @_;
    open my $file, '>', "$dir/client$number" or die "client$number: $!\n";
    my @left = grep { $_->{n} % $clients == $number } @plan;
    my $tries = 0;
    while (@left)
    {
        my $ready = try_sql("SELECT count(*) < $waiting FROM crm.outbox");
        if (($ready // '') ne 't')
        {
            die "client $number waits for too long\n" if ++$tries > 3000;
            sleep 0.1;
            next;
        }
        my @now = @left[ 0 .. min($chunk, scalar @left) - 1 ];
        my $script = join '', map {
            sprintf "SELECT 'n' || %d || ' ' || crm.send(%d, '%s', '{\"n\": \"n%d\"}'%s);\n", $_->{n}, $_->{contact}, $_->{kind}, $_->{n},
              $_->{keyed} ? ", 'k$_->{n}'" : ''
        } @now;
        # out of a file, as a psql that ends early would break a pipe
        open my $commands, '>', "$dir/commands$number" or die "commands$number: $!\n";
        print $commands $script;
        close $commands;
        my ($out, $err) = ('', '');
        IPC::Run::run([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db), '-f', "$dir/commands$number" ], '>', \$out, '2>', \$err);
        my %answered = $out =~ /^n(\d+) (\d+)$/mg;
        while (@left && $answered{ $left[0]{n} }) { printf $file "%d %d\n", $left[0]{n}, $answered{ (shift @left)->{n} } }
        # nobody was told what became of the next one
        if (@left && %answered < @now && !$left[0]{keyed} && $err !~ /^connection to server|could not connect/) { printf $file "%d ?\n", (shift @left)->{n} }
    }
    close $file;
}

# --- what goes wrong ------------------------------------------------------------------------------

my %random = (
    reset_before_body => 0.004, reset_before_reply => 0.008, http_503 => 0.005, half_reply => 0.005, garbage => 0.005, http_500 => 0.005,
    close_reused => 0.01, silent => 0.004,
);
for my $api (qw(custom/send template/send webhook/crm))
{
    $sandbox->admin(faults => { api => $api, fault => $_, probability => $random{$_}, $_ eq 'silent' ? (seconds => 2 * $timeout) : () })
      for sort keys %random;
}
# a webhook has no such codes
$sandbox->admin(faults => { api => "$_/send", fault => 'errcode_-1', probability => 0.01 }) for qw(custom template);
$sandbox->admin(faults => { api => 'custom/send', fault => 'errcode_45015', probability => 0.003 });
$sandbox->admin(faults => { api => "$_/send", fault => 'errcode_43004', probability => 0.002 }) for qw(custom template);
$sandbox->admin(settings => { latency_ms => 20 });

my (%did, $last_start, @let_go);

# someone looks at what was stopped, and lets it go on
sub let_go_on
{
    return if !try_sql('SELECT count(*) FROM crm.api_usage WHERE blocked_until > clock_timestamp()')
      && !try_sql("SELECT count(*) FROM crm.outbox o JOIN crm.message m USING (contact_id, message_id) WHERE o.due_at > now() + interval '1 minute'
           AND o.due_at < 'infinity' AND m.reason LIKE 'quota%'");
    return if !defined try_sql(<<'SQL');
BEGIN;
UPDATE crm.api_usage SET blocked_until = NULL WHERE blocked_until > clock_timestamp();
UPDATE crm.outbox o SET due_at = now() FROM crm.message m WHERE m.contact_id = o.contact_id AND m.message_id = o.message_id
   AND o.lease IS NULL AND o.due_at < 'infinity' AND m.reason LIKE 'quota%';
SELECT crm.resume_dispatch();
COMMIT;
SQL
    $did{'let go on'}++;
    push @let_go, time;
}

# the server serves, and the worker runs; returns its pid
sub up
{
    my $pid;
    wait_for(sub {
        $pid = try_sql("SELECT pid FROM crm.worker_status WHERE state = 'running'");
        return $pid && kill 0 => $pid;
    }, 60, 'the worker runs');
    return $pid;
}

sub crash_of_worker
{
    my $pid = up();
    kill KILL => $pid;
    wait_for(sub { !kill 0 => $pid }, 30, 'the worker is gone');
    up();
}

sub crash_of_server
{
    $node->kill9;
    # children end by themselves; until then the memory is theirs
    my @start = ('pg_ctl', '-s', '-w', '-D', $node->data_dir, '-l', $node->logfile, 'start');
    wait_for(sub { IPC::Run::run(\@start, '>', \my $out, '2>', \my $err) }, 60, 'the server starts again');
    $node->_update_pid(1);
    up();
}

sub end_of_worker
{
    my $pid = up();
    kill TERM => $pid;
    wait_for(sub { !kill 0 => $pid }, 30, 'the worker is gone');
    up();
}

my %event = (
    'worker killed'        => sub { crash_of_worker() },
    'server killed'        => sub { crash_of_server() },
    'worker terminated'    => sub { end_of_worker() },
    'platform gone for 1 s' => sub { $sandbox->admin(outage => { seconds => 1 }) },
    'token revoked'        => sub { $sandbox->admin(tokens => { revoke => JSON::PP::true() }) },
    'call stopped (45009)' => sub { $sandbox->admin(faults => { api => 'custom/send', fault => 'errcode_45009' }) },
    'bursts of lost replies' => sub { $sandbox->admin(faults => { api => 'custom/send', fault => 'reset_before_reply', times => 5 }) },
);
my @crashes = ('worker killed', 'server killed', 'worker terminated');
my $rounds = max(1, int($sends / 2000));
my @events = shuffle((@crashes) x $rounds, ('platform gone for 1 s', 'token revoked', 'call stopped (45009)', 'bursts of lost replies') x $rounds);

my $counted = {};
sub requests
{
    # during an outage it cannot be asked either
    my $apis = $counted = eval { $sandbox->get('counts')->{apis} } // $counted;
    return sum0(map { $apis->{$_}{requests} } grep { m{/send|^webhook} } keys %$apis);
}

my @children = map {
    my $number = $_;
    my $pid = fork // die "fork: $!\n";
    if (!$pid)
    {
        my $ok = eval { client($number); 1 };
        print STDERR $@ if !$ok;
        require POSIX;
        POSIX::_exit($ok ? 0 : 1);
    }
    $pid;
} 0 .. $clients - 1;

# each event as soon as the ledger has so many requests
my $between = $sends / (@events + 1);
my $at = 0;
for my $name (@events)
{
    $at += $between * (0.5 + rand);
    my $until = time + 60;
    wait_for(sub {
        let_go_on();
        return requests() >= $at || time > $until;
    }, 120, "$at requests");
    wait_for(sub { eval { $sandbox->get('sync') } }, 30, 'the sandbox listens');
    $event{$name}->();
    $did{$name}++;
    $last_start = time if grep { $name eq $_ } @crashes;
}
my %ended;
wait_for(sub {
    let_go_on();
    for my $pid (grep { !exists $ended{$_} } @children) { $ended{$pid} = $? if waitpid($pid, 1) > 0 }
    return keys %ended == @children;
}, 600, 'the clients have asked for all');
is(join(' ', grep { $_ } values %ended), '', 'every client came to its end');

# --- the end --------------------------------------------------------------------------------------

wait_for(sub { eval { $sandbox->clear_faults } }, 30, 'the sandbox listens');
my $grace = max(0, $last_start + 60 - time) + 5;
my $drained = eval {
    wait_for(sub { let_go_on(); return (try_sql('SELECT count(*) FROM crm.outbox') // 1) eq '0' }, $grace + 30, 'the queue is empty');
    1;
};
ok($drained, 'the queue is empty, a minute after the last start at the latest')
  or diag(sql("SELECT m.state, m.reason, o.lane, o.due_at - now() AS due, o.lease - now() AS lease, o.attempts, count(*) FROM crm.outbox o
                JOIN crm.message m USING (contact_id, message_id) GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 4 LIMIT 20"));
my $worker_log = slurp_file($node->logfile);
# what is still on its way back to the sandbox's ledger
wait_for(sub { !grep { $_->{replied} eq 'pending' } $sandbox->ledger }, 30, 'the sandbox has replied to all');

# --- who says what --------------------------------------------------------------------------------

my %plan = map { $_->{n} => $_ } @plan;
my (%asked, %perhaps);
for my $number (0 .. $clients - 1)
{
    for (split /\n/, slurp_file("$dir/client$number"))
    {
        my ($n, $id) = split / /;
        if ($id eq '?') { $perhaps{$n} = 1 } else { $asked{$n} = $id }
    }
}
my %message;
for (split /\n/, sql("SELECT substr(m.params->>'n', 2), m.message_id, m.contact_id, m.template, m.state, coalesce(m.reason, ''), extract(epoch FROM m.recorded_at),
    (SELECT count(*) FROM crm.delivery_attempt a WHERE a.contact_id = m.contact_id AND a.message_id = m.message_id),
    (u.message_id IS NOT NULL)::int FROM crm.message m LEFT JOIN crm.message_unknown u USING (contact_id, message_id) ORDER BY m.message_id"))
{
    my %row;
    (my $n, @row{qw(id contact template state reason asked_at attempts listed)}) = split /\|/;
    fail("message $row{id} is no second one of n$n") if $message{$n};
    $message{$n} = { %row, rows => [] };
}
my @unreadable;
for my $row (grep { $_->{api} =~ m{/send|^webhook} } $sandbox->ledger_file_rows)
{
    my $body = ref $row->{body} ? $row->{body} : {};
    my $tag = $body->{text} ? $body->{text}{content} : $body->{data} ? $body->{data}{n} // $body->{data}{thing1}{value} : undef;
    if (defined $tag && $tag =~ /^n(\d+)$/)
    {
        fail("n$1 was received and is no message"), next if !$message{$1};
        push @{ $message{$1}{rows} }, $row;
    }
    else { push @unreadable, $row }
}

sub none
{
    my ($name, @bad) = @_;
    @bad = sort { $a <=> $b } @bad;
    is(scalar @bad, 0, $name) or diag(map { "n$_: " . tell_of($_) . "\n" } @bad[ 0 .. min(9, $#bad) ]);
}

sub tell_of
{
    my $m = $message{ $_[0] } or return 'no message';
    return "message $m->{id} of $m->{contact}, $m->{template}, $m->{state} $m->{reason}, $m->{attempts} attempts; received: "
      . join '; ', map {
        join ' ', "seq $_->{seq}", ($_->{delivered} ? 'delivered' : ()), ($_->{duplicate} ? 'again' : ()), $_->{fault} // (), $_->{errcode} // (),
          $_->{replied}
      } @{ $m->{rows} };
}

my @all = keys %message;
sub delivered { return scalar grep { $_->{delivered} } @{ $message{ $_[0] }{rows} } }
# a reply that says what became of the message, and arrived whole
sub clear_reply { return $_[0]{replied} eq 'whole' && (!$_[0]{fault} || $_[0]{fault} =~ /^errcode/) }

none('every send that was committed is a message', grep { !$message{$_} || $message{$_}{id} != $asked{$_} } keys %asked);
none('and no other', grep { !$asked{$_} && !$perhaps{$_} } @all);
none('each is in an end state, or unknown', grep { $message{$_}{state} =~ /^(queued|sending)$/ } @all);
none('nothing was received twice', grep { delivered($_) > 1 } @all);
none('what is sent was received, once', grep { $message{$_}{state} eq 'sent' && delivered($_) != 1 } @all);
none('what was received is sent or unknown', grep { delivered($_) && $message{$_}{state} !~ /^(sent|unknown)$/ } @all);
none('what is failed or refused was said to be, or never left', grep {
    my $m = $message{$_};
    my $last = $m->{rows}[-1];
    $m->{state} =~ /^(failed|refused)$/ && !($m->{reason} eq 'window_closed' && !grep { !clear_reply($_) } @{ $m->{rows} })
      && !($last && (clear_reply($last) ? $last->{errcode} // $last->{status} != 200 : $last->{fault} eq 'http_500'));
} @all);
none('nothing expired or was cancelled', grep { $message{$_}{state} !~ /^(sent|unknown|failed|refused)$/ } @all);
none('each unknown message is listed, and no other', grep { $message{$_}{listed} != ($message{$_}{state} eq 'unknown') } @all);
none('no request without its attempt', grep { $message{$_}{attempts} < @{ $message{$_}{rows} } } @all);

my $crashes = sum0(map { $did{$_} // 0 } @crashes);
my @unclear = grep { !clear_reply($_) } (@unreadable, map { @{ $message{$_}{rows} } } @all);
my @unknown = grep { $message{$_}{state} eq 'unknown' } @all;
my $most = $slots * $crashes + @unclear;
cmp_ok(scalar @unknown, '<=', $most, "at most $most are unknown: a crash makes $slots, a lost reply one");
is(sql('SELECT count(*) FROM crm.delivery_attempt GROUP BY attempt_id HAVING count(*) > 1 LIMIT 1'), '', 'an attempt has one row');
is(sql("SELECT count(*) FROM crm.outbox"), '0', 'no row of the queue is left');
is(sql("SELECT count(*) FROM crm.window_grant g WHERE g.used > g.quota OR g.used <> (SELECT count(*) FROM crm.message m
    WHERE m.contact_id = g.contact_id AND m.grant_id = g.grant_id)"), '0', 'windows were used by the messages that say so');
is(scalar(grep { ($_->{errcode} // 0) =~ /^(45015|45047)$/ && !$_->{fault} } map { @{ $message{$_}{rows} } } @all), 0, 'and never beyond what they allow');
# messages that a stopped call held back may be overtaken by those that came when it was let go on
my @stops = map { $_->{t} / 1e6 } grep { ($_->{fault} // '') eq 'errcode_45009' } map { @{ $message{$_}{rows} } } @all;
sub held_back
{
    my ($m, $row) = @_;
    return scalar grep { my $stop = $_; $row->{t} / 1e6 > $stop && grep { $_ > $stop && $m->{asked_at} < $_ } @let_go } @stops;
}
my %order;
for my $n (sort { $message{$a}{id} <=> $message{$b}{id} } grep { $message{$_}{template} eq 'hello' && $message{$_}{state} eq 'sent' } @all)
{
    my ($row) = grep { $_->{delivered} } @{ $message{$n}{rows} };
    push @{ $order{ $message{$n}{contact} } }, [ $n, $row->{seq} ] if $row && !held_back($message{$n}, $row);
}
cmp_ok(sum0(map { scalar @$_ } values %order), '>', $sends / 10, 'enough are left to compare');
none('a contact got its messages in order', map { my $of = $_; map { $of->[$_][1] < $of->[ $_ - 1 ][1] ? $of->[$_][0] : () } 1 .. $#$of } values %order);
is(sql('SELECT * FROM crm.verify()'), '', 'verify() finds nothing');
unlike($worker_log, qr/PANIC|TRAP|signal 11|signal 6|gives up after/, 'nothing crashed by itself');

# --- the table ------------------------------------------------------------------------------------

my (%faults, %states);
my $tell = Test::More->builder->is_passing ? \&note : \&diag;
$faults{ $_->{fault} // ($_->{replied} eq 'whole' ? 'none' : "none, reply $_->{replied}") }++ for @unreadable, map { @{ $message{$_}{rows} } } @all;
$states{"$message{$_}{template} $message{$_}{state}" . ($message{$_}{state} eq 'sent' ? '' : " $message{$_}{reason}")}++ for @all;
for (['what happened', \%did], ['requests by fault', \%faults], ['messages by state', \%states])
{
    my ($title, $of) = @$_;
    $tell->("$title:");
    $tell->(sprintf '  %-40s %6d', $_, $of->{$_}) for sort keys %$of;
}
$tell->(sprintf '%d messages, %d of them perhaps asked for; %d received; %d unknown of at most %d', scalar @all, scalar keys %perhaps,
    scalar(grep { delivered($_) } @all), scalar @unknown, $most);

$node->stop;
done_testing();
