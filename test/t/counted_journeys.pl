# steps of random journeys counted as they are entered and left, and enrolments: the same journeys, facts, merges and migrations in three
# databases, one that is written directly, one by statements, and one that changes over; at any moment the counts are those
# of the rows, and of all three the same; SEED=N draws the same again
use strict;
use warnings;

use CrmTest;
use JSON::PP ();
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{SEED} // int(rand(1 << 30));
srand $seed;
note "SEED=$seed";

my $node     = crm_node('counted_journeys', conf => "pg_crm.time_zone = 'Asia/Shanghai'\n");
my @lanes    = qw(direct general changing);
my $people   = 60;
my $journeys = 5;
my $json     = JSON::PP->new->canonical;

sub pick { return $_[ int rand @_ ] }
sub contact { return 1 + int rand $people }

# ---------- journeys: each step leads to the next one, or by its other edges further on ----------

sub later
{
    my ($i, $last) = @_;
    return $i < $last && rand() < 0.7 ? 's' . ($i + 1 + int rand($last - $i)) : undef;
}

sub step
{
    my ($i, $last) = @_;
    my $next = $i < $last ? 's' . ($i + 1) : undef;
    return pick(
        { kind => 'wait', for => pick('20 minutes', '9 hours', '2 days'), next => $next },
        { kind => 'wait_for', on => pick('cart', 'purchase'), within => pick('2 hours', '3 days'), next => $next, on_timeout => later($i, $last) },
        { kind => 'wait_until', when => 'orders > 2', within => '1 day', next => $next, on_timeout => later($i, $last) },
        { kind => 'branch', branches => [ { when => 'spend > 200', next => later($i, $last) } ], default => $next },
        # an arm that has the name of an end
        { kind => 'split', arms => { a => { weight => 1, next => $next }, goal => { weight => 1, next => later($i, $last) } } },
        { kind => 'send', template => 'hello', next => $next, on_refused => later($i, $last) },
        { kind => 'tag', add => ['a'], next => $next });
}

sub journey
{
    my ($name) = @_;
    my $last = 3 + int rand 4;
    return { journey => $name, account => 'shop', start => 's1', steps => { map { ("s$_" => step($_, $last)) } 1 .. $last },
        reentry => pick(qw(after_exit per_key always)) =~ s/per_key/always/r, entry => [ map { { on => $_ } } pick([ 'cart', 'purchase' ], ['cart'], ['purchase'])->@* ],
        rand() < 0.5 ? (goal => pick('orders > 5', { on => 'purchase', when => 'fact.amount > 90' })) : (),
        rand() < 0.5 ? (exit => { on => 'leave' }) : () };
}

# ---------- what happens, over the days ----------

my $at = 0;
my %version = map { ("j$_" => 1) } 1 .. $journeys;
# one with which everything happens
my $tale = { journey => 'tale', account => 'shop', entry => [ { on => 'cart' } ], goal => { on => 'purchase', when => 'fact.amount > 90' }, exit => { on => 'leave' },
    reentry => 'after_exit', start => 'arm', steps => {
        arm => { kind => 'split', arms => { a => { weight => 1, next => 'rest' }, goal => { weight => 1, next => 'rest' } } },
        rest => { kind => 'wait_for', on => 'purchase', within => '3 hours', next => 'pause', on_timeout => 'pause' },
        pause => { kind => 'wait', for => '20 minutes', next => undef } } };

sub facts
{
    my $values = sub { my ($row) = @_; my %of = map { (contact() => 1) } 1 .. pick(1, 2, 5, 30); return join ', ', map { $row->($_) } sort { $a <=> $b } keys %of };
    return rand() < 0.4
        # the contacts there still are
        ? 'INSERT INTO crm.transaction (contact_id, amount) SELECT v.* FROM (VALUES ' . $values->(sub { "($_[0], " . int(rand 100) . ')' }) . ') AS v(contact_id, amount) JOIN crm.contact USING (contact_id)'
        : 'INSERT INTO crm.event (contact_id, kind) SELECT v.* FROM (VALUES ' . $values->(sub { "($_[0], '" . pick(qw(cart cart cart leave)) . "')" }) . ') AS v(contact_id, kind) JOIN crm.contact USING (contact_id)';
}

sub happening
{
    my $name = pick('tale', sort keys %version);
    my $draw = rand;
    return facts() if $draw < 0.45;
    return "SELECT crm.enrol(contact_id, '$name') FROM crm.contact WHERE contact_id = " . contact() if $draw < 0.52;
    return "SELECT crm.unenrol(contact_id, '$name') FROM crm.contact WHERE contact_id = " . contact() if $draw < 0.57;
    return 'SELECT crm.merge(a.contact_id, b.contact_id) FROM crm.contact AS a, crm.contact AS b WHERE a.contact_id <> b.contact_id AND a.contact_id = '
        . contact() . ' AND b.contact_id = ' . contact() if $draw < 0.7;
    return 'SELECT crm.unmerge(other) FROM (SELECT other FROM crm.merge_ledger WHERE unmerged_at IS NULL ORDER BY merge_id DESC LIMIT 1) AS m' if $draw < 0.78;
    if ($draw < 0.88 && $name ne 'tale')
    {
        my $from = $version{$name}++;
        my $document = journey($name);
        return 'SELECT crm.publish_journey($j$' . $json->encode($document) . '$j$)'
            . (rand() < 0.7 ? "; SELECT * FROM crm.migrate_journey('$name', $from, " . ($from + 1) . ', dry_run => false)' : '');
    }
    return "SELECT crm.set_journey('$name', '" . pick(qw(frozen closed open open)) . "')" if $draw < 0.94;
    return "SELECT crm.set_journey('$name', 'cancelled'); SELECT crm.set_journey('$name', 'open')" if $draw < 0.96;
    return 'SELECT crm.roll_up()';
}

my @script;

sub then_do
{
    my ($sql) = @_;
    note "$at: " . substr($sql, 0, 200);
    push @script, [ $at, $sql ];
}

# all that is to be done, in each lane
sub run
{
    then_do($_) for @_;
    for my $lane (@lanes)
    {
        $node->safe_psql($lane, join '', map {
            my ($when, $sql) = @$_;
            my $direct = $lane eq 'direct' ? 'on' : $lane eq 'general' ? 'off' : pick(qw(on off));
            "SET pg_crm.direct_access = $direct; SELECT set_config('pg_crm.clock', ('2026-01-28 08:00Z'::timestamptz + '$when min')::text, false); $sql;\n" } @script);
    }
    @script = ();
}

my $counts = 'SELECT day, journey, version, step, state, outcome, next_step, %s FROM crm.%s';
my $counted = sprintf $counts, 'visits', 'visit_count';
my $exact = sprintf("$counts GROUP BY 1, 2, 3, 4, 5, 6, 7", 'sum(visits)::bigint', 'visit_exact');

my @enrolments = map { "SELECT journey, state, end_reason, enrolments, first_entered_at, last_entered_at FROM crm.enrolment_$_" } qw(count exact);
# as it is defined
my @summary = ('SELECT journey, started, active, finished, exited, exited_goal, exited_rule, exited_unenrolled, exited_cancelled, exited_merged, exited_stranded, stuck,
        first_entered_at, last_entered_at FROM crm.journey_summary WHERE started > 0',
    "SELECT journey, count(*), count(*) FILTER (WHERE state = 'active'), count(*) FILTER (WHERE state = 'finished'), count(*) FILTER (WHERE state = 'exited'), "
    . join(', ', map { "count(*) FILTER (WHERE state = 'exited' AND end_reason = '$_')" } qw(goal rule unenrolled cancelled merged stranded))
    . ", count(stuck) FILTER (WHERE state = 'active'), min(entered_at), max(entered_at) FROM crm.enrolment GROUP BY journey");

sub differs
{
    my ($lane) = @_;
    return join "\n", map { my ($is, $must) = @$_; $node->safe_psql($lane, "SELECT d FROM ((($is) EXCEPT ALL ($must)) UNION ALL (($must) EXCEPT ALL ($is))) AS d") || () }
        [ $counted, $exact ], \@enrolments, \@summary;
}

sub is_counted
{
    my ($name) = @_;
    my %said;
    for my $lane (@lanes)
    {
        is(differs($lane), '', "$name: $lane (SEED=$seed)");
        $said{$lane} = $node->safe_psql($lane, "$counted ORDER BY 1, 2, 3, 4, 5, 6, 7; $summary[0] ORDER BY 1");
    }
    is($said{$_}, $said{direct}, "$name: $_ counts as direct does") for @lanes[ 1, 2 ];
}

for my $lane (@lanes)
{
    crm_database($node, $lane);
    $node->safe_psql($lane, q{SELECT crm.keep_roll_ups();
        INSERT INTO crm.account (kind, name) VALUES ('official_account', 'shop');
        SELECT crm.define_template('{"name": "hello", "channel": "official_account", "message_type": "text", "body": {"content": "Hello"}}');
        INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2026-01-01' FROM generate_series(1, 60) AS n});
}
run(map { 'SELECT crm.publish_journey($j$' . $json->encode($_) . '$j$)' } $tale, map { journey("j$_") } 1 .. $journeys);
then_do(q{INSERT INTO crm.event (contact_id, kind) SELECT n, 'cart' FROM generate_series(1, 50) AS n});
$at = 30;
then_do(q{INSERT INTO crm.event (contact_id, kind) SELECT n, 'leave' FROM generate_series(1, 5) AS n});
then_do('INSERT INTO crm.transaction (contact_id, amount) SELECT n, 80 + n FROM generate_series(6, 15) AS n');
then_do("SELECT crm.unenrol(20, 'tale'); SELECT crm.merge(30, 31); SELECT crm.unmerge(31); SELECT crm.merge(32, 33)");
$at = 240;
then_do('SELECT crm.tick()');
then_do(q{INSERT INTO crm.event (contact_id, kind) SELECT n, 'cart' FROM generate_series(40, 50) AS n});
run();
is_counted('with all kinds of ends');
my $kinds = $node->safe_psql('direct', q{SELECT string_agg(DISTINCT state || coalesce(' ' || outcome, ''), ', ') FROM crm.visit_count WHERE journey = 'tale'});
is($kinds, 'ended goal, ended merged, ended rule, ended unenrolled, here, left a, left goal, left next, left timeout', 'which are these');

for my $round (1 .. 12)
{
    for (1 .. 10)
    {
        $at += pick(1, 20, 90, 300, 900);
        then_do(happening());
        then_do('SELECT crm.tick()') if rand() < 0.6;
    }
    run();
    is_counted("round $round");
}
note $node->safe_psql('direct', q{SELECT string_agg(DISTINCT state || coalesce(' ' || outcome, ''), ', ') FROM crm.visit_exact});
cmp_ok($node->safe_psql('direct', 'SELECT count(*) FROM crm.step_visit'), '>', 200, 'many steps were entered');
for my $lane (@lanes)
{
    is($node->safe_psql($lane, 'SELECT count(*) FROM crm.verify()'), 0, "$lane: sound");
}

run("SELECT crm.set_journey(journey, 'cancelled') FROM crm.journey");
is_counted('all cancelled');
run('SELECT crm.roll_up()');
is_counted('rolled up');
is($node->safe_psql($_, 'SELECT count(*) FROM (SELECT FROM crm.visit_tail UNION ALL SELECT FROM crm.enrolment_tail) AS t'), 0, "$_: all is added up") for @lanes;

# each database has gone the way that it is for
for my $lane (@lanes)
{
    my $said;
    $node->psql($lane, q{SELECT crm.publish_journey('{"journey": "probe", "start": "w", "entry": [], "steps": {"w": {"kind": "wait", "for": "1 day"}}}')});
    $node->psql($lane, "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on;
        SET auto_explain.log_level = notice; SET pg_crm.clock = '2026-03-15 08:00Z'; SET pg_crm.direct_access = " . ($lane eq 'direct' ? 'on' : 'off') . ";
        INSERT INTO crm.contact (contact_id, created_at) VALUES (1000, '2026-01-01'); SELECT crm.enrol(1000, 'probe'); SELECT crm.unenrol(1000, 'probe')", stderr => \$said);
    my $statement = qr/INSERT INTO crm\.(visit|enrolment)_tail/;
    $lane eq 'direct' ? unlike($said, $statement, "$lane: counts without statements") : like($said, $statement, "$lane: counts by statements");
}
is_counted('entered and left by hand');

# where a table asks for the executor, the one that does not is written directly still
for my $table (qw(step_visit visit_tail enrolment_tail))
{
    $node->safe_psql($_, "CREATE TABLE public.seen_$table (n bigint); CREATE FUNCTION public.see_$table() RETURNS trigger LANGUAGE plpgsql AS
        \$\$ BEGIN INSERT INTO public.seen_$table VALUES (1); RETURN NULL; END \$\$;
        CREATE TRIGGER see AFTER INSERT OR UPDATE ON crm.$table FOR EACH ROW EXECUTE FUNCTION public.see_$table()") for @lanes;
    run("SELECT crm.set_journey(journey, 'open') FROM crm.journey");
    for (1 .. 8) { $at += 300; then_do(facts()); then_do('SELECT crm.tick()') }
    run();
    is_counted("beside a trigger of $table");
    my @n = map { $node->safe_psql($_, "SELECT count(*) FROM public.seen_$table") } @lanes;
    cmp_ok($n[0], '>', 0, 'which saw rows');
    is("@n", "$n[0] $n[0] $n[0]", 'in all lanes the same');
    $node->safe_psql($_, "DROP TRIGGER see ON crm.$table") for @lanes;
}

done_testing();
