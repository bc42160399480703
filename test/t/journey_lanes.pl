# Rows of journeys written directly and by statements: the same random journeys and facts in two databases, one
# with pg_crm.direct_access and one without it. Every row that journeys write is the same, and where direct writing
# would pass over something the statement writes.
#
# CRM_SEED=n repeats a run.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use JSON::PP ();
use Test::More;

my $seed = defined $ENV{CRM_SEED} ? $ENV{CRM_SEED} : int(rand(1_000_000));
srand($seed);
diag("CRM_SEED=$seed");

my $node     = crm_node('journey_lanes');
my @lanes    = qw(direct general);
my $people   = 120;
my $journeys = 8;
my $json     = JSON::PP->new->canonical;

sub pick { return $_[ int(rand(@_)) ] }
sub chance { return rand() < $_[0] }

# ---- journeys at random: each step leads to the one after it, and by its other edges further on

sub later
{
    my ($i, $last) = @_;
    return $i < $last && chance(0.7) ? 's' . ($i + 1 + int(rand($last - $i))) : undef;
}

sub random_step
{
    my ($i, $last, $n) = @_;
    my $next = $i < $last ? 's' . ($i + 1) : undef;
    my $rule = pick('orders > 1', 'orders > 3', 'spend > 200', "contact_id % 3 = 0");
    return pick(
        { kind => 'wait', for => pick('20 minutes', '3 hours', '2 days'), next => $next },
        { kind => 'wait', for => '1 hour', next => $next },
        { kind => 'wait_for', on => pick('cart', 'purchase'), within => pick('2 hours', '3 days'), next => $next, on_timeout => later($i, $last) },
        { kind => 'wait_until', when => $rule, within => pick('2 hours', '3 days'), next => $next, on_timeout => later($i, $last) },
        { kind => 'branch', branches => [ { when => $rule, next => later($i, $last) } ], default => $next },
        { kind => 'split', arms => { a => { weight => 1, next => $next }, b => { weight => 2, next => later($i, $last) } } },
        { kind => 'send', template => pick('hello', 'code'), params => { code => 'x' }, next => $next, on_refused => later($i, $last) },
        { kind => 'tag', add => [ pick('a', 'b', 'c') ], next => $next },
        $n > 1 ? { kind => 'journey', journey => 'j' . (1 + int(rand($n - 1))), next => $next } : { kind => 'tag', remove => ['a'], next => $next });
}

sub random_journey
{
    my ($n) = @_;
    my $last = 2 + int(rand(6));
    my %steps = map { ("s$_" => random_step($_, $last, $n)) } 1 .. $last;
    my $reentry = pick(qw(once after_exit cooldown per_key always));
    my %document = (journey => "j$n", account => 'shop', start => 's1', steps => \%steps, reentry => $reentry,
        entry => [ map { { on => $_, chance(0.4) ? (when => pick('orders > 0', $_ eq 'purchase' ? 'fact.amount > 50' : 'tags = \'a\'')) : () } }
              (chance(0.5) ? qw(cart purchase) : pick(qw(cart purchase))) ]);
    delete $_->{when} for grep { ($_->{when} // '') =~ /tags/ } @{ $document{entry} };
    $document{cooldown} = '5 hours' if $reentry eq 'cooldown';
    $document{key} = 'cart' if $reentry eq 'per_key';
    $document{hold_out} = 10 if chance(0.3);
    $document{goal} = pick('orders > 5', { on => 'purchase', when => 'fact.amount > 90' }) if chance(0.4);
    $document{exit} = { on => 'leave' } if chance(0.4);
    return \%document;
}

# ---- what happens: by day and by night, over the end of a month

my @script;
my $at = 0;
my @documents = map { random_journey($_) } 1 .. $journeys;

sub facts
{
    my $n = pick(1, 1, 2, 40, $people);
    my %of = map { (1 + int(rand($people)) => 1) } 1 .. $n;
    my @of = sort { $a <=> $b } keys %of;
    my $what = rand();
    return 'INSERT INTO crm.transaction (contact_id, amount) VALUES ' . join(', ', map { "($_, " . int(rand(100)) . ')' } @of) . ';' if $what < 0.4;
    return "INSERT INTO crm.event (contact_id, kind, properties) VALUES "
      . join(', ', map { "($_, '" . ($what < 0.5 ? 'leave' : 'cart') . "', '" . $json->encode(chance(0.8) ? { cart => 'c' . int(rand(4)) } : {}) . "')" } @of) . ';';
}

for (1 .. 60)
{
    $at += pick(5, 30, 90, 200, 900);
    push @script, { at => $at, sql => pick((\&facts) x 3, sub { 'SELECT crm.enrol(' . (1 + int(rand($people))) . ", 'j" . (1 + int(rand($journeys))) . "');" },
            sub { 'SELECT crm.unenrol(' . (1 + int(rand($people))) . ", 'j" . (1 + int(rand($journeys))) . "');" })->() };
    push @script, { at => $at, sql => 'SELECT crm.tick();' } if chance(0.6);
}

my @tables = (
    enrolment  => 'contact_id, enrolment_id',
    step_visit => 'contact_id, enrolment_id, visit, recorded_at',
    message    => 'contact_id, message_id',
    outbox     => 'contact_id, message_id',
    refusal    => 'contact_id, kind, object, reason, day');

sub run
{
    my ($db, @steps) = @_;
    my $sql = '';
    for my $step (@steps)
    {
        $sql .= "SELECT set_config('pg_crm.clock', ('2026-01-29 08:00Z'::timestamptz + '$step->{at} min')::text, false);\n";
        $sql .= "$step->{sql}\n";
    }
    $node->safe_psql($db, $sql);
}

sub rows_of
{
    my ($db, $table, $key) = @_;
    return [ split /\n/, $node->safe_psql($db, "SELECT to_jsonb(t) FROM crm.$table AS t ORDER BY $key") ];
}

sub same
{
    my ($name) = @_;
    my %queries = @tables;
    for my $table (sort keys %queries)
    {
        my ($direct, $general) = map { rows_of($_, $table, $queries{$table}) } @lanes;
        is_deeply($direct, $general, "$name: $table, " . scalar(@$general) . ' rows');
    }
}

for my $db (@lanes)
{
    crm_database($node, $db);
    $node->safe_psql('postgres', "ALTER DATABASE $db SET pg_crm.direct_access = " . ($db eq 'direct' ? 'on' : 'off'));
    my $publish = join "\n", map { 'SELECT crm.publish_journey($j$' . $json->encode($_) . '$j$);' } @documents;
    $node->safe_psql($db, qq{
        SET pg_crm.clock = '2026-01-29 08:00Z';
        SELECT crm.install();
        INSERT INTO crm.account (kind, name) VALUES ('official_account', 'shop');
        SELECT crm.define_template('{"name": "hello", "channel": "official_account", "message_type": "text", "body": {"content": "Hello"}}');
        SELECT crm.define_template('{"name": "code", "channel": "official_account", "message_type": "text", "body": {"content": "{{code}}"}}');
        INSERT INTO crm.contact (contact_id) SELECT generate_series(1, $people);
        $publish});
}

run($_, @script) for @lanes;
same('written at random');
cmp_ok($node->safe_psql('direct', 'SELECT count(*) FROM crm.step_visit'), '>', 100, 'many steps were entered');
is($node->safe_psql('direct', 'SELECT count(*) FROM crm.verify()'), 0, 'sound');
is($node->safe_psql('direct', 'SELECT count(DISTINCT tableoid) > 1 FROM crm.step_visit'), 't', 'in more than one month');

# each database has gone the way that it is for
for my $db (@lanes)
{
    my $said;
    $node->safe_psql($db, q{SELECT crm.publish_journey('{"journey": "probe", "start": "w", "entry": [], "steps": {"w": {"kind": "wait", "for": "1 day"}}}')});
    $node->psql($db, qq{LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on;
        SET auto_explain.log_level = notice; SELECT set_config('pg_crm.clock', ('2026-01-29 08:00Z'::timestamptz + '$at min')::text, false);
        INSERT INTO crm.contact (contact_id) VALUES (1000); SELECT crm.enrol(1000, 'probe'); SELECT crm.unenrol(1000, 'probe')}, stderr => \$said);
    my $statements = qr/(INSERT INTO|UPDATE) crm\.(enrolment|step_visit)/;
    $db eq 'direct' ? unlike($said, $statements, "$db: rows without statements") : like($said, $statements, "$db: rows by statements");
}

# ---- where the statement writes: what is asked for besides rows happens in both lanes

my $more = sub { my ($n) = @_; return map { $at += 100; { at => $at, sql => facts() }, { at => $at, sql => 'SELECT crm.tick();' } } 1 .. $n };
$node->safe_psql($_, 'CREATE INDEX ON crm.enrolment (step) WHERE visit % 2 = 0; CREATE INDEX ON crm.step_visit (journey) WHERE left_at IS NULL') for @lanes;
my @these = $more->(4);
run($_, @these) for @lanes;
same('beside an index on a part');
$node->safe_psql($_, q{CREATE TABLE public.seen (place text, contact_id bigint);
        CREATE FUNCTION public.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (TG_TABLE_NAME, NEW.contact_id); RETURN NULL; END $$;
        CREATE TRIGGER see AFTER INSERT OR UPDATE ON crm.enrolment FOR EACH ROW EXECUTE FUNCTION public.see();
        CREATE TRIGGER see AFTER INSERT OR UPDATE ON crm.step_visit FOR EACH ROW EXECUTE FUNCTION public.see()}) for @lanes;
@these = $more->(8);
run($_, @these) for @lanes;
same('beside a trigger');
is($node->safe_psql('direct', 'SELECT place, contact_id, count(*) FROM public.seen GROUP BY 1, 2 ORDER BY 1, 2'),
    $node->safe_psql('general', 'SELECT place, contact_id, count(*) FROM public.seen GROUP BY 1, 2 ORDER BY 1, 2'), 'the trigger saw the same rows');
cmp_ok($node->safe_psql('direct', 'SELECT count(*) FROM public.seen'), '>', 0, 'and some');
$node->safe_psql($_, q{DROP TRIGGER see ON crm.enrolment; DROP TRIGGER see ON crm.step_visit; ALTER TABLE crm.step_visit ADD CHECK (visit > 0)}) for @lanes;
@these = $more->(4);
run($_, @these) for @lanes;
same('beside a constraint');

# months that have no partition: the default one takes the rows
$node->safe_psql($_, 'ALTER TABLE crm.step_visit DROP CONSTRAINT step_visit_visit_check') for @lanes;
$at += 400 * 24 * 60;
@these = $more->(6);
run($_, @these) for @lanes;
same('in no month');
is($node->safe_psql('direct', "SELECT count(*) > 0 FROM crm.step_visit_default"), 't', 'the default partition has rows');

# an index on a part answers as the table does
for my $db (@lanes)
{
    is($node->safe_psql($db, "SET enable_seqscan = off; SET enable_bitmapscan = off; SELECT count(*) FROM crm.enrolment WHERE visit % 2 = 0 AND step >= ''"),
        $node->safe_psql($db, "SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off; SELECT count(*) FROM crm.enrolment WHERE visit % 2 = 0 AND step >= ''"),
        "$db: the index on a part has the rows of it");
}

# ---- an id that stands in the table already, and a second enrolment that is active
for my $db (@lanes)
{
    my ($code) = $node->safe_psql($db, q{
        SELECT crm.publish_journey('{"journey": "late", "start": "w", "entry": [], "steps": {"w": {"kind": "wait", "for": "1 day"}}}') \g /dev/null
        INSERT INTO crm.contact (contact_id) VALUES (1001) \g /dev/null
        INSERT INTO crm.enrolment (contact_id, enrolment_id, entered_at, step_at, version, journey, entered_by, state)
            SELECT 1001, last_value + 1, now(), now(), 1, 'other', 'api', 'finished' FROM crm.enrolment_enrolment_id_seq \g /dev/null
        \set ON_ERROR_STOP 0
        SELECT crm.enrol(1001, 'late') \g /dev/null
        \echo :SQLSTATE});
    is($code, '23505', "$db: an id that is taken is an error");
    is($node->safe_psql($db, "SELECT count(*) FROM crm.enrolment WHERE contact_id = 1001"), 1, "$db: nothing is written");
}

done_testing();
