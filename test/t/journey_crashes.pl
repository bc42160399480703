# Whoever moves people dies with -9 in the middle of it: a backend in tick(), the clock, the postmaster, a backend that
# records thousands of facts that enter. Afterwards everybody has gone the way of an undisturbed run, each step has done
# what it does once, and the sandbox received nothing twice. SEED repeats the moments, as far as the machine lets it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmShop;
use CrmTest;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $seed = $ENV{SEED} || int(time * 1000) % 1_000_000;
srand $seed;
$_->("SEED=$seed") for \&note, \&diag;

my $many = 1500;      # people who are due
my $entering = 10_000;
# what is asked for is safe, what the clock does may be lost and is done again
my $shop = CrmShop->new('journey_crashes', conf => <<'CONF');
fsync = on
restart_after_crash = on
wal_writer_delay = 10s
pg_crm.poll_interval = 1
pg_crm.send_timeout = 5s
max_worker_processes = 16
log_statement = none
CONF
my $node = $shop->node;
sub sql { return $shop->sql(shift) }
sub publish { my ($document) = @_; $document =~ s/'/''/g; return sql("SELECT crm.publish_journey('$document')") }

# ---- who and what

sql(q{INSERT INTO crm.loyalty_program (name) VALUES ('club');
    SELECT crm.define_coupon('{"name": "tea"}');
    SELECT crm.define_achievement('{"name": "cared", "on_kind": "care"}')});
publish(q({"journey": "after", "entry": [{"on": "journey"}], "start": "pause", "steps": {
    "pause": {"kind": "wait", "for": "5 minutes", "next": "tag"},
    "tag": {"kind": "tag", "add": ["after"], "next": "more"},
    "more": {"kind": "points", "program": "club", "points": 3, "next": null}}}));
publish(q({"journey": "care", "account": "maison", "entry": [{"on": "signup"}], "start": "wait", "steps": {
    "wait": {"kind": "wait", "for": "10 minutes", "next": "look"},
    "look": {"kind": "branch", "branches": [{"when": "city = 'Suzhou'", "next": "gift"}], "default": "book"},
    "gift": {"kind": "coupon", "coupon": "tea", "next": "book"},
    "book": {"kind": "points", "program": "club", "points": 5, "next": "mark"},
    "mark": {"kind": "award", "achievement": "cared", "threshold": 1, "next": "tell"},
    "tell": {"kind": "webhook", "template": "tell", "params": {"text": "care"}, "next": "visit"},
    "visit": {"kind": "wait_for", "on": "visit", "within": "10 minutes", "next": "say", "on_timeout": "other"},
    "other": {"kind": "journey", "journey": "after", "next": "say"},
    "say": {"kind": "send", "template": "order", "params": {"text": "care"}, "on_failed": null, "on_refused": null, "next": "end"},
    "end": {"kind": "exit", "reason": "cared"}}}));
publish(q({"journey": "bulk", "entry": [{"on": "import"}], "start": "tag", "steps": {
    "tag": {"kind": "tag", "add": ["imported"], "next": "look"},
    "look": {"kind": "branch", "branches": [{"when": "city = 'Wuxi'", "next": "tell"}], "default": "wait"},
    "tell": {"kind": "webhook", "template": "tell", "params": {"text": "bulk"}, "next": "wait"},
    "wait": {"kind": "wait", "for": "1 day", "next": null}}}));

sub set_worker
{
    my ($on) = @_;
    $node->safe_psql('postgres', 'ALTER DATABASE shop ' . ($on ? 'RESET pg_crm.worker' : 'SET pg_crm.worker = off'));
    $shop->becomes('SELECT state' . ($on ? '' : ' || coalesce(clock_pid, 0)') . ' FROM crm.worker_status', $on ? 'running' : 'off0', 'the worker is ' . ($on ? 'on' : 'off'));
    return;
}

set_worker(0);
# two hours ago, so that all of it is due
my $began = sql(q{SELECT date_trunc('second', now() - interval '2 hours')});
my $account = sql(q{SELECT account_id FROM crm.account WHERE name = 'maison'});
sql(qq{SET pg_crm.clock = '$began';
    INSERT INTO crm.contact (contact_id, city, created_at)
        SELECT n, CASE WHEN n % 2 = 0 THEN 'Suzhou' END, crm.now() FROM generate_series(1, $many) AS n;
    INSERT INTO crm.contact (contact_id, city, created_at)
        SELECT 100000 + n, CASE WHEN n % 20 = 0 THEN 'Wuxi' END, crm.now() FROM generate_series(1, $entering) AS n;
    INSERT INTO crm.identity (kind, account_id, external_id, contact_id) SELECT 'openid', $account, 'o' || n, n FROM generate_series(1, $many) AS n;
    INSERT INTO crm.membership (contact_id, loyalty_program_id, joined_at) SELECT n, 1, crm.now() FROM generate_series(1, $many) AS n;
    INSERT INTO crm.event (contact_id, kind) SELECT n, 'signup' FROM generate_series(1, $many) AS n;
    SET pg_crm.clock = '@{[ sql("SELECT '$began'::timestamptz + interval '1 minute'") ]}';
    INSERT INTO crm.event (contact_id, kind) SELECT n, 'visit' FROM generate_series(1, $many) AS n WHERE n % 3 = 0});
is(sql(q{SELECT count(*) FROM crm.enrolment WHERE step = 'wait' AND due_at < now()}), $many, "$many people are due");

# ids are given again to whoever comes after a crash, and times stand still; a message that is waited for ends when it does
my $ways = q{SELECT contact_id, journey, e.state, e.end_reason, e.entered_at, (SELECT string_agg(concat_ws(' ', v.visit, v.step, v.outcome,
        CASE WHEN v.step <> 'end' THEN v.entered_at - e.entered_at END), ', ' ORDER BY v.visit)
    FROM crm.step_visit v WHERE v.contact_id = e.contact_id AND v.enrolment_id = e.enrolment_id) FROM crm.enrolment e WHERE journey <> 'bulk' ORDER BY 1, 2};
my $effects = qq{SELECT c.contact_id, c.tags, (SELECT count(*) FROM crm.coupon_grant g WHERE g.contact_id = c.contact_id),
    (SELECT string_agg(p.points::text, ' ' ORDER BY p.point_entry_id) FROM crm.point_entry p WHERE p.contact_id = c.contact_id),
    (SELECT count(*) FROM crm.event v WHERE v.contact_id = c.contact_id AND v.kind = 'care'),
    (SELECT count(*) FROM crm.award a WHERE a.contact_id = c.contact_id AND a.achievement = 'cared'),
    (SELECT string_agg(m.template || ' ' || (m.due_at - '$began'), ', ' ORDER BY m.message_id) FROM crm.message m WHERE m.contact_id = c.contact_id)
    FROM crm.contact c WHERE c.contact_id <= $many ORDER BY 1};

# a copy sends nothing, but tick() moves its people
$node->safe_psql('postgres', 'CREATE DATABASE quiet TEMPLATE shop');
sub quiet { return $node->safe_psql('quiet', shift) }
quiet(q{SELECT crm.tick();
    UPDATE crm.message SET state = 'sent', sent_at = now(), ended_at = now() WHERE template = 'order';
    INSERT INTO crm.message_end SELECT contact_id, message_id, now() FROM crm.message WHERE template = 'order';
    DELETE FROM crm.outbox o USING crm.message m WHERE m.contact_id = o.contact_id AND m.message_id = o.message_id AND m.template = 'order';
    SELECT crm.tick()});
is(quiet(q{SELECT count(*) FILTER (WHERE journey = 'care'), count(*) FILTER (WHERE journey = 'after') FROM crm.enrolment WHERE state = 'finished'}),
    join('|', $many, $many - int($many / 3)), 'undisturbed, all come to the end');
is(quiet('SELECT * FROM crm.verify()'), '', 'and it is sound');
my ($quiet_ways, $quiet_effects) = (quiet($ways), quiet($effects));
# what they draw from sequences on the way, which shows how far somebody is who has not committed
my $steps = q{(SELECT sum(last_value) FROM pg_sequences WHERE schemaname = 'crm'
    AND sequencename ~ '^(coupon_grant|point_entry|event|message|enrolment)_')};
my $all = quiet("SELECT $steps") - sql("SELECT $steps");

# ---- crashes

# until so much was drawn, or it is done: who is at it
sql(qq{CREATE FUNCTION until_drawn(target bigint, who text) RETURNS integer LANGUAGE plpgsql AS \$\$
    DECLARE
        found record;
    BEGIN
        WHILE clock_timestamp() < now() + interval '60 seconds' LOOP
            PERFORM pg_stat_clear_snapshot();
            IF who = 'clock' THEN
                SELECT clock_pid AS pid, NOT EXISTS (SELECT FROM crm.enrolment e WHERE e.state = 'active' AND e.due_at < now()) AS done
                  INTO found FROM crm.worker_status;
            ELSE
                SELECT a.pid, a.state = 'idle' AND a.query NOT LIKE 'SET%' AS done INTO found FROM pg_stat_activity a WHERE a.application_name = who;
            END IF;
            EXIT WHEN found.done OR found.pid IS NOT NULL AND $steps >= target;
            PERFORM pg_sleep(0.001);
        END LOOP;
        RETURN CASE WHEN NOT found.done THEN found.pid END;
    END \$\$});
my $killed = 0;

sub beside
{
    my ($name, $statement) = @_;
    my $session = $shop->session;
    $session->query_safe("SET application_name = '$name'");
    $session->query_until(qr/begun/, "\\echo begun\n$statement;\n");
    return $session;
}

sub crash
{
    my ($who, $of, $whole) = @_;
    my $target = sql("SELECT $steps") + int rand $of;
    my $beside = $who eq 'clock' ? undef : beside(@$who);
    my $pid = sql("SELECT until_drawn($target, '" . ($beside ? $who->[0] : $who) . "')");
    my $at_work = $pid ne '';
    my $offset = -s $node->logfile;
    if ($whole)
    {
        $node->kill9;
        # which without it would go on to the end of its statement
        kill KILL => $pid if $at_work;
        my @start = ('pg_ctl', '-s', '-w', '-D', $node->data_dir, '-l', $node->logfile, 'start');
        wait_for(sub { IPC::Run::run(\@start, '>', \my $out, '2>', \my $err) }, 60, 'the server starts again');
        $node->_update_pid(1);
    }
    elsif ($at_work)
    {
        $at_work = kill KILL => $pid;
        $node->wait_for_log(qr/all server processes terminated; reinitializing/, $offset) if $at_work;
    }
    eval { local $SIG{PIPE} = 'IGNORE'; $beside->quit } if $beside;
    wait_for(sub { eval { ($node->psql('shop', 'SELECT'))[0] == 0 } }, 60, 'the server serves');
    $killed++ if $at_work;
    note(($beside ? $who->[0] : $who) . ($whole ? ' and postmaster' : '') . ($at_work ? ' killed' : ' had ended') . " at $target");
    return $at_work;
}

sub nobody_moved { is(sql(q{SELECT count(*) FROM crm.enrolment WHERE step <> 'wait' OR journey <> 'care'}), '0', "$_[0]: nobody has moved") }

subtest 'a backend in tick()' => sub {
    for my $round (1 .. 2)
    {
        my $in_it = crash([ 'tick', 'SELECT crm.tick()' ], $all * 0.9);
        ok($in_it, 'killed in tick()');
        nobody_moved('it was one transaction');
    }
};

subtest 'the clock' => sub {
    set_worker(1);
    for my $whole (0, 0, 1)
    {
        crash('clock', $all * 0.2, $whole);
        is(sql('SELECT * FROM crm.verify()'), '', 'sound');
    }
    # and both at once
    for my $whole (1, 0)
    {
        crash([ 'tick', 'SELECT crm.tick(max_steps => 1000)' ], $all * 0.2, $whole);
        is(sql('SELECT * FROM crm.verify()'), '', 'sound');
    }
};

subtest 'the end' => sub {
    $shop->becomes(q{SELECT count(*) FROM crm.enrolment WHERE state = 'active'}, '0', 'everybody comes to the end');
    cmp_ok($killed, '>=', 2, "$killed were at work when they were killed");
    is(sql($ways), $quiet_ways, 'by the way of an undisturbed run');
    is(sql($effects), $quiet_effects, 'each step did once what it does');
    is(sql(q{SELECT string_agg(DISTINCT n::text, ' ') FROM (SELECT count(*) AS n FROM crm.step_visit v JOIN crm.message m USING (contact_id)
        WHERE v.step IN ('tell', 'say') AND m.send_key = 'journey ' || v.enrolment_id || '/' || v.visit GROUP BY v.contact_id, v.enrolment_id, v.visit) x}), '1', 'a visit has one message');
    is(sql(q{SELECT count(*) FROM crm.step_visit v FULL JOIN crm.message m USING (contact_id, message_id) WHERE (v.step IN ('tell', 'say')) IS DISTINCT FROM (m.message_id IS NOT NULL)}), '0', 'and no other has one');
    ok($shop->empty, 'all is sent');
    is(sql(q{SELECT string_agg(DISTINCT state, ' ') FROM crm.message}), 'sent', 'and known to be');
    my (%arrived, %person);
    for my $row (grep { $_->{delivered} } $shop->sandbox->ledger_file_rows)
    {
        $arrived{"$row->{api} " . ($row->{key} // '')}++;
        $person{ $row->{touser} }++ if $row->{touser};
    }
    is(join(' ', grep { $arrived{$_} > 1 } sort keys %arrived), '', 'nothing arrived twice');
    is(scalar(keys %arrived), 2 * $many, 'and each message did');
    is(join(' ', scalar keys %person, grep { $person{$_} > 1 } sort keys %person), $many, 'one to each person');
    is(sql('SELECT * FROM crm.verify()'), '', 'sound');
};

# ---- many who enter at once

subtest 'facts that enter' => sub {
    my $enter = "INSERT INTO crm.event (contact_id, kind) SELECT 100000 + n, 'import' FROM generate_series(1, $entering) AS n";
    my $found = q{SELECT (SELECT count(*) FROM crm.event WHERE kind = 'import'), (SELECT count(*) FROM crm.enrolment WHERE journey = 'bulk'),
        (SELECT count(*) FROM crm.contact WHERE 'imported' = ANY (tags)), (SELECT count(*) FROM crm.message WHERE params ->> 'text' = 'bulk')};
    for my $whole (0, 1)
    {
        my $in_it = crash([ 'import', $enter ], $entering * 1.6, $whole);
        ok($in_it, 'killed among them');
        is(sql($found), '0|0|0|0', 'nothing is left of it');
    }
    sql($enter);
    is(sql($found), join('|', ($entering) x 3, $entering / 20), 'then all of them enter');
    is(sql(q{SELECT count(DISTINCT contact_id), count(*) FILTER (WHERE state = 'active' AND step = 'wait') FROM crm.enrolment WHERE journey = 'bulk'}), "$entering|$entering", 'once, and wait');
    ok($shop->empty, 'their messages are sent');
    my %arrived;
    $arrived{ $_->{key} }++ for grep { $_->{delivered} && ($_->{body}{data}{text} // '') eq 'bulk' } $shop->sandbox->ledger_file_rows;
    is(join(' ', scalar keys %arrived, grep { $arrived{$_} > 1 } keys %arrived), $entering / 20, 'and arrived once');
    is(sql('SELECT * FROM crm.verify()'), '', 'sound');
};

unlike(slurp_file($node->logfile), qr/PANIC|TRAP|signal 11|signal 6/, 'nothing crashed by itself');
$node->stop;
done_testing();
