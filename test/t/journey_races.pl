# Many at once on the same people: who enters once enters once, whoever comes first at a deadline the other finds it done,
# nobody deadlocks, and every entry is an enrolment or a refusal. SEED repeats what was drawn, not the order.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmSandbox;
use CrmTest;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $seed = $ENV{SEED} || int(time * 1000) % 1_000_000;
diag("SEED=$seed");

my $dir  = PostgreSQL::Test::Utils::tempdir();
my $node = crm_node('journey_races', worker => 1, conf => "max_connections = 100\nmax_worker_processes = 16\nlog_statement = none\nlog_min_error_statement = error\ndeadlock_timeout = 500ms\npg_crm.poll_interval = 1\n");
$node->safe_psql('postgres', 'CREATE DATABASE shop');
$node->safe_psql('postgres', 'ALTER DATABASE shop SET pg_crm.worker = off');
sub sql { return $node->safe_psql('shop', shift) }
sql('CREATE EXTENSION pg_crm; SELECT crm.install();');
sub publish { my ($document) = @_; $document =~ s/'/''/g; return sql("SELECT crm.publish_journey('$document')") }
sub becomes { my ($query, $name) = @_; ok($node->poll_query_until('shop', $query), $name); return }
sub sound { is(sql('SELECT * FROM crm.verify()'), '', "$_[0]: sound"); return }

# each of these scripts, so often as its weight says
my $scripts = 0;
sub together
{
    my ($name, $clients, $times, @weighted) = @_;
    my @files;
    while (my ($script, $weight) = splice @weighted, 0, 2)
    {
        my $file = "$dir/" . ++$scripts . '.sql';
        append_to_file($file, "$script\n");
        push @files, '-f', "$file\@$weight";
    }
    my ($out, $err) = ('', '');
    IPC::Run::run([ 'pgbench', '-n', "--random-seed=$seed", '--max-tries=1000', '-c', $clients, '-j', 2, '-t', $times, @files, $node->connstr('shop') ], '>', \$out, '2>', \$err);
    $err =~ s/^pgbench(:| \().*(setting random seed|\n)//mg;
    $err =~ s/^.*random seed.*\n//mg;
    is(($? >> 8) . $err, '0', "$clients clients: $name");
    return $out;
}

my $began = sql(q{SELECT date_trunc('second', now() - interval '3 hours')});
sub at { my ($after) = @_; return sql("SELECT '$began'::timestamptz + interval '$after'") }

sql(q{INSERT INTO crm.account (kind, name) VALUES ('official_account', 'oa');
    INSERT INTO crm.loyalty_program (name) VALUES ('club');
    SELECT crm.define_coupon('{"name": "tea"}'), crm.define_segment('{"name": "wuxi", "rule": "city = ''Wuxi''"}');
    INSERT INTO crm.contact (contact_id, created_at) SELECT n, now() - interval '1 day' FROM generate_series(1, 9000) AS n;
    INSERT INTO crm.membership (contact_id, loyalty_program_id, joined_at) SELECT n, 1, now() - interval '1 day' FROM generate_series(1, 9000) AS n;
    CREATE TABLE given (what text, id bigint);
    CREATE SEQUENCE turn});

subtest '64 clients and one entry' => sub {
    my $steps = q("start": "wait", "steps": {"wait": {"kind": "wait", "for": "1 hour", "next": null}}});
    publish(qq({"journey": "once", "reentry": "once", "entry": [{"on": "go"}, {"on": "follow"}], $steps));
    publish(qq({"journey": "after_exit", "reentry": "after_exit", "entry": [{"on": "go"}], $steps));
    publish(qq({"journey": "cooldown", "reentry": "cooldown", "cooldown": "1 day", "entry": [{"on": "go"}], $steps));
    publish(qq({"journey": "per_key", "reentry": "per_key", "key": "ticket", "entry": [{"on": "go"}], $steps));
    publish(qq({"journey": "always", "reentry": "always", "entry": [{"on": "go"}], $steps));
    my $entered = sub { return sql("SELECT string_agg(journey || ' ' || n, ', ' ORDER BY journey) FROM (SELECT journey, count(*) AS n FROM crm.enrolment WHERE contact_id = $_[0] AND state = 'active' GROUP BY journey) x") };
    my $refused = sub { return sql("SELECT string_agg(object || ' ' || reason || ' ' || n, ', ' ORDER BY object, reason) FROM (SELECT object, reason, sum(refusals) AS n FROM crm.refusal WHERE contact_id = $_[0] GROUP BY object, reason) x") };

    together('the same kind of fact', 64, 2, q{SELECT crm.track(1, 'go', '{"ticket": "a"}');}, 1);
    is($entered->(1), 'after_exit 1, always 128, cooldown 1, once 1, per_key 1', 'each let in as often as it may');
    is($refused->(1), 'after_exit active 127, cooldown active 127, once active 127, per_key active 127', 'the others are counted');

    together('enrol()', 64, 2, q{INSERT INTO given SELECT j, crm.enrol(2, j) FROM unnest('{once,after_exit,cooldown}'::text[]) AS j;}, 1);
    is($entered->(2), 'after_exit 1, cooldown 1, once 1', 'enrol() lets in once');
    is($refused->(2), 'after_exit active 127, cooldown active 127, once active 127', 'and tells so');
    is(sql('SELECT count(*), count(id) FROM given'), '384|3', 'by NULL, too');

    together('enrol() with a key', 64, 2, q{INSERT INTO given SELECT 'key', crm.enrol(3, 'per_key', 'k');}, 1);
    is(sql(q{SELECT count(*), count(DISTINCT id) FROM given WHERE what = 'key'}), '128|1', 'one key, one enrolment, for all');
    together('enrol() with a key each', 64, 2, q{INSERT INTO given SELECT 'keys', crm.enrol(4, 'per_key', 'k' || :client_id);}, 1);
    is(sql(q{SELECT count(*), count(DISTINCT id) FROM given WHERE what = 'keys'}), '128|64', 'another key, another one');
    is($entered->(3) . ', ' . $entered->(4), 'per_key 1, per_key 64', 'so many there are');
    is($refused->(3) . $refused->(4), '', 'and nothing was refused');

    together('somebody new', 64, 2, q{SELECT crm.follow('oa', 'o_new', key => 'f');}, 1);
    is(sql(q{SELECT count(*), count(DISTINCT contact_id) FROM crm.enrolment WHERE entered_by = 'follow'}), '1|1', 'one who follows is one enrolment');
    sound('entries');
};

# those after the first, who entered at the beginning and wait for an hour
publish(q({"journey": "race", "entry": [{"on": "start"}], "start": "wait", "steps": {
    "wait": {"kind": "wait_for", "on": "visit", "within": "1 hour", "next": "came", "on_timeout": "stayed"},
    "came": {"kind": "points", "program": "club", "points": 1, "next": "end"},
    "stayed": {"kind": "points", "program": "club", "points": 2, "next": "end"},
    "end": {"kind": "exit"}}}));
sub start_race
{
    my ($first, $n) = @_;
    sql(qq{SET pg_crm.clock = '$began'; ALTER SEQUENCE turn RESTART; INSERT INTO crm.event (contact_id, kind) SELECT $first + n, 'start' FROM generate_series(1, $n) AS n});
    return;
}
sub race_ended
{
    my ($name, $first, $n) = @_;
    my $of = "contact_id > $first AND contact_id <= $first + $n";
    is(sql("SELECT count(*), count(DISTINCT contact_id) FROM crm.enrolment WHERE journey = 'race' AND $of AND state = 'finished'"), "$n|$n", "$name: all have ended");
    is(sql(qq{SELECT count(*) FROM (SELECT count(*) AS visits, max(outcome) FILTER (WHERE step = 'wait') AS outcome, contact_id FROM crm.step_visit WHERE journey = 'race' AND $of GROUP BY contact_id) v
        JOIN (SELECT contact_id, count(*) AS entries, sum(points) AS points FROM crm.point_entry WHERE $of GROUP BY 1) p USING (contact_id)
        WHERE visits = 3 AND entries = 1 AND points = CASE outcome WHEN 'next' THEN 1 WHEN 'timeout' THEN 2 END}), $n, "$name: by one way, once");
    note("$name: " . sql("SELECT string_agg(outcome || ' ' || n, ', ') FROM (SELECT outcome, count(*) AS n FROM crm.step_visit WHERE step = 'wait' AND journey = 'race' AND $of GROUP BY 1) x"));
    sound($name);
    return;
}

subtest 'a fact and the deadline' => sub {
    my $at = at('1 hour');
    start_race(1000, 600);
    together('facts that are waited for, and tick()', 10, 60, "SET pg_crm.clock = '$at'; INSERT INTO crm.event (contact_id, kind) SELECT 1000 + least(nextval('turn'), 600), 'visit';", 30,
        "SET pg_crm.clock = '$at'; SELECT crm.tick('$at', 5);", 1, "SET pg_crm.clock = '$at'; UPDATE crm.contact SET city = 'Suzhou' WHERE contact_id = 1000 + random() * 599 + 1;", 5);
    sql("SELECT crm.tick('$at')");
    race_ended('facts and tick()', 1000, 600);
};

subtest 'tick(), tick() and the clock' => sub {
    my $at = at('2 hours');
    start_race(2000, 1000);
    together('tick() by all', 8, 2, "SELECT crm.tick('$at');", 1);
    sql("SELECT crm.tick('$at')");
    race_ended('ticks', 2000, 1000);
    start_race(3000, 1500);
    $node->safe_psql('postgres', 'ALTER DATABASE shop RESET pg_crm.worker');
    becomes("SELECT state = 'running' FROM crm.worker_status", 'the worker runs');
    together('tick() beside the clock', 4, 20, 'SELECT crm.tick(max_steps => 1);', 1);
    becomes("SELECT count(*) = 0 FROM crm.enrolment WHERE journey = 'race' AND state = 'active'", 'all is moved');
    race_ended('tick() and the clock', 3000, 1500);
};

# the clock goes on beside it all
subtest 'whatever changes a contact' => sub {
    publish(q({"journey": "moved", "reentry": "after_exit", "entry": [{"on": "field_change", "field": "city"}], "exit": "tags @> '{gone}'", "goal": [{"on": "purchase", "when": "fact.amount > 90"}], "start": "tag", "steps": {
        "tag": {"kind": "tag", "add": ["moved"], "next": "wait"},
        "wait": {"kind": "wait_for", "on": "purchase", "within": "10 milliseconds", "since": "step", "next": "set", "on_timeout": "back"},
        "set": {"kind": "set", "fields": {"attributes": {"bought": "yes"}}, "next": "gift"},
        "gift": {"kind": "coupon", "coupon": "tea", "next": "back"},
        "back": {"kind": "tag", "remove": ["moved"], "next": "end"},
        "end": {"kind": "exit"}}}));
    publish(q({"journey": "wuxi", "reentry": "after_exit", "entry": [{"on": "segment_entered", "segment": "wuxi"}], "exit": [{"on": "segment_left", "segment": "wuxi"}], "start": "book", "steps": {
        "book": {"kind": "points", "program": "club", "points": 1, "next": "wait"},
        "wait": {"kind": "wait", "for": "10 milliseconds", "next": "say"},
        "say": {"kind": "stage", "stage": "intent", "next": "until"},
        "until": {"kind": "wait_until", "when": "orders >= 3", "within": "1 day", "next": null}}}));
    publish(q({"journey": "bought", "reentry": "always", "entry": [{"on": "purchase"}], "start": "wait", "steps": {
        "wait": {"kind": "wait", "for": "5 milliseconds", "next": "to"},
        "to": {"kind": "set", "fields": {"city": "Wuxi"}, "next": null}}}));
    my $who = "\\set c random(8001, 8040)\n\\set d random(8001, 8040)\n\\set amount random(1, 100)\n";
    my $tell = together('edits, orders, ticks and definitions', 16, 40,
        "${who}UPDATE crm.contact SET city = (ARRAY['Wuxi', 'Suzhou', 'Shanghai'])[1 + :amount % 3] WHERE contact_id = :c;", 8,
        "${who}UPDATE crm.contact SET tags = CASE WHEN :amount % 10 = 0 THEN '{gone}'::text[] ELSE '{}' END WHERE contact_id = :c;", 3,
        "${who}SELECT crm.purchase(:c, :amount);", 8,
        "${who}INSERT INTO crm.transaction (contact_id, amount) SELECT DISTINCT x, :amount FROM unnest(ARRAY[:c, :d, 8001 + :amount % 40]) AS x;", 4,
        "${who}BEGIN; UPDATE crm.contact SET city = 'Wuxi' WHERE contact_id = :c; SELECT crm.purchase(:c, :amount); COMMIT;", 3,
        "${who}BEGIN; SELECT crm.purchase(:c, :amount); UPDATE crm.contact SET city = 'Suzhou' WHERE contact_id = :c; COMMIT;", 3,
        "${who}BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM crm.enrolment; SELECT crm.purchase(:c, :amount); COMMIT;", 4,
        "${who}BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM crm.enrolment; UPDATE crm.contact SET city = 'Wuxi' WHERE contact_id = :c; COMMIT;", 3,
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM crm.enrolment; SELECT crm.tick(); COMMIT;", 1,
        "SELECT crm.tick();", 5,
        "${who}SELECT crm.unenrol(:c, 'moved');", 2,
        "BEGIN; TRUNCATE crm.enrolment; ROLLBACK;", 1);
    note($tell =~ /(number of transactions.*?)latency/s);
    becomes("SELECT count(*) = 0 FROM crm.enrolment WHERE state = 'active' AND due_at < now() - interval '1 second'", 'all that was due is done');
    is(sql(q{SELECT count(*) FROM (SELECT contact_id, count(*) AS visits FROM crm.step_visit WHERE step = 'gift' AND journey = 'moved' GROUP BY 1) v
        FULL JOIN (SELECT contact_id, count(*) AS grants FROM crm.coupon_grant GROUP BY 1) g USING (contact_id) WHERE visits IS DISTINCT FROM grants}), '0', 'a visit is a coupon');
    is(sql(q{SELECT count(*) FROM (SELECT contact_id, count(*) AS visits FROM crm.step_visit WHERE step = 'book' GROUP BY 1) v
        FULL JOIN (SELECT contact_id, count(*) AS entries FROM crm.point_entry WHERE contact_id > 8000 GROUP BY 1) p USING (contact_id) WHERE visits IS DISTINCT FROM entries}), '0', 'and an entry of points');
    is(sql(q{SELECT (SELECT count(*) FROM crm.transaction) - (SELECT count(*) FROM crm.enrolment WHERE journey = 'bought')}), '0', 'each order is in its journey');
    sound('a mix');
};

subtest 'definitions while facts come in' => sub {
    my $document = q({"journey": "stream", "description": "VERSION", "reentry": "always", "entry": [{"on": "tap"}], "start": "wait", "steps": {"wait": {"kind": "wait", "for": "1 millisecond", "next": "book"}, "book": {"kind": "points", "program": "club", "points": 1, "next": null}}});
    publish($document);
    together('facts, states and versions', 12, 40, "\\set c random(7001, 7020)\nSELECT crm.track(:c, 'tap');", 20,
        "\\set s random(1, 4)\nSELECT crm.set_journey('stream', (ARRAY['open', 'closed', 'frozen', 'open'])[:s]);", 1,
        "\\set v random(1, 1000)\nSELECT crm.publish_journey(replace('$document', 'VERSION', 'v' || :v)::jsonb);", 1,
        'SELECT crm.tick();', 1);
    sql(q{SELECT crm.set_journey('stream', 'open')});
    becomes("SELECT count(*) = 0 FROM crm.enrolment WHERE journey = 'stream' AND state = 'active'", 'opened again, all go on');
    is(sql(q{SELECT (SELECT count(*) FROM crm.event WHERE kind = 'tap') - (SELECT count(*) FROM crm.enrolment WHERE journey = 'stream')
        - (SELECT sum(refusals) FROM crm.refusal WHERE object = 'stream')}), '0', 'each fact is an enrolment or a refusal');
    is(sql(q{SELECT (SELECT count(*) FROM crm.enrolment WHERE journey = 'stream') - (SELECT count(*) FROM crm.point_entry WHERE contact_id BETWEEN 7001 AND 7020)}), '0', 'and has booked once');
    note(sql(q{SELECT string_agg(version || ': ' || n, ', ') FROM (SELECT version, count(*) AS n FROM crm.enrolment WHERE journey = 'stream' GROUP BY 1 ORDER BY 1) x}));
    sound('definitions');
};

subtest 'two become one while they are due' => sub {
    $node->safe_psql('postgres', 'ALTER DATABASE shop SET pg_crm.worker = off');
    becomes("SELECT state = 'off' AND clock_pid IS NULL FROM crm.worker_status", 'the worker is off');
    start_race(5000, 400);
    together('merge() and tick()', 8, 50, "SELECT count(crm.merge(5000 + 2 * x::bigint, 5000 + 2 * x::bigint - 1, 'same')) FROM nextval('turn') AS x WHERE x <= 200;", 6, 'SELECT crm.tick(max_steps => 20);', 1);
    sql('SELECT crm.tick()');
    is(sql('SELECT count(*) FROM crm.contact WHERE contact_id BETWEEN 5001 AND 5400'), sql("SELECT 400 - least(last_value, 200) FROM turn"), 'they were merged');
    is(sql(q{SELECT count(*) FROM crm.enrolment WHERE journey = 'race' AND contact_id BETWEEN 5001 AND 5400 AND NOT (state = 'finished' OR state = 'exited' AND end_reason = 'merged')}), '0', 'all have ended');
    is(sql(q{SELECT count(*) FROM (SELECT contact_id, count(*) AS ended FROM crm.enrolment WHERE journey = 'race' AND state = 'finished' AND contact_id BETWEEN 5001 AND 5400 GROUP BY 1) e
        FULL JOIN (SELECT contact_id, count(*) AS entries FROM crm.point_entry WHERE contact_id BETWEEN 5001 AND 5400 GROUP BY 1) p USING (contact_id) WHERE ended IS DISTINCT FROM entries}), '0', 'whoever came to the end has booked once');
    note(sql(q{SELECT string_agg(state || ' ' || n, ', ') FROM (SELECT state, count(*) AS n FROM crm.enrolment WHERE journey = 'race' AND contact_id BETWEEN 5001 AND 5400 GROUP BY 1) x}));
    sound('merging');
};

subtest 'what is not to be dropped' => sub {
    my %refused = ('TRUNCATE crm.journey_version' => '42501', 'DELETE FROM crm.journey_version' => '42501', 'DROP TABLE crm.enrolment' => '2BP01', 'DROP TABLE crm.journey' => '2BP01',
        'DROP FUNCTION crm.journeys_changed()' => '2BP01', 'DROP EXTENSION pg_crm' => '2BP01');
    for my $statement (sort keys %refused)
    {
        my ($rc, $out, $err) = $node->psql('shop', "\\set VERBOSITY verbose\n$statement");
        my ($code) = $err =~ /ERROR:\s+(\w{5}):/;
        is($code, $refused{$statement}, $statement);
    }
};

subtest 'time that goes back' => sub {
    my ($back, $noon, $later) = map { at($_) } '30 minutes', '1 hour', '90 minutes';
    my $ticked = sql('SELECT ticked_at FROM crm.journey_clock');
    start_race(6000, 3);
    is(sql("SELECT crm.tick('$later')"), '0', 'as of an earlier time nobody is moved');
    is(sql(qq{SET pg_crm.clock = '$later'; SELECT crm.tick()}), '0', 'nor where the clock was set back');
    is(sql('SELECT ticked_at FROM crm.journey_clock'), $ticked, 'nor is it forgotten');
    is(sql("SELECT string_agg(step, ' ') FROM crm.enrolment WHERE contact_id BETWEEN 6001 AND 6003"), 'wait wait wait', 'all three wait');
    # a fact is a fact, whatever its clock says; it goes on from where the contact is, and not before
    sql(qq{SET pg_crm.clock = '$back'; INSERT INTO crm.event (contact_id, kind) VALUES (6001, 'visit')});
    sql(qq{SET pg_crm.clock = '@{[ at('-1 hour') ]}'; INSERT INTO crm.event (contact_id, kind) VALUES (6001, 'visit'), (6002, 'visit')});
    is(sql("SELECT crm.tick()"), '4', 'now the others go on');
    is(sql('SELECT crm.tick()'), '0', 'once');
    is(sql(q{SELECT contact_id, string_agg(step || ' ' || outcome, ', ' ORDER BY visit), bool_and(left_at >= entered_at) FROM crm.step_visit WHERE contact_id BETWEEN 6001 AND 6003 GROUP BY 1 ORDER BY 1}),
        "6001|wait next, came next, end next|t\n6002|wait timeout, stayed next, end next|t\n6003|wait timeout, stayed next, end next|t", 'each by its way, forwards');

    # somebody has moved them as of tomorrow
    my $tomorrow = sql("SELECT date_trunc('second', now() + interval '1 day')");
    sql("SELECT crm.tick('$tomorrow')");
    start_race(6100, 3);
    $node->safe_psql('postgres', 'ALTER DATABASE shop RESET pg_crm.worker');
    becomes("SELECT state = 'running' AND turns > 3 AND clock_pid IS NULL FROM crm.worker_status", 'the worker looks, and has nothing for its clock');
    is(sql("SELECT string_agg(step, ' ') FROM crm.enrolment WHERE contact_id BETWEEN 6101 AND 6103"), 'wait wait wait', 'the clock moves nobody until then');
    is(sql('SELECT crm.tick()'), '0', 'nor does tick()');
    sql('UPDATE crm.journey_clock SET ticked_at = now()');
    becomes("SELECT count(*) = 3 FROM crm.enrolment WHERE contact_id BETWEEN 6101 AND 6103 AND state = 'finished'", 'set right, all go on');
    race_ended('time', 6100, 3);
};

my $log = slurp_file($node->logfile);
is(scalar(() = $log =~ /deadlock detected/g), 0, 'nobody deadlocked');
is(join("\n", grep { !/could not serialize access|cannot drop|are append-only|Versions are immutable|refused/ } $log =~ /ERROR:  (.*)/g), '', 'and nothing else went wrong');
$node->stop;
done_testing();
