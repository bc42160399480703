# simulate(): journeys move people by facts that come in with the clock; the same facts sent through the same documents
# afterwards give the same counts, of each step and way to leave it. Nothing is written, so a standby answers too.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmTest;
use PostgreSQL::Test::Cluster;
use Test::More;

my $seed = $ENV{SEED} // int(rand(1 << 30));
srand($seed);
note("SEED=$seed");

my $node = crm_node('simulate', conf => "max_wal_senders = 2\nwal_level = replica\n");
$node->safe_psql('postgres', 'CREATE DATABASE shop');
$node->safe_psql('shop', q{
    CREATE EXTENSION pg_crm;
    SET pg_crm.clock = '2026-02-01 00:00Z';
    SELECT crm.install();
    INSERT INTO crm.account (kind, name) VALUES ('official_account', 'shop');
    SELECT crm.define_template('{"name": "hello", "channel": "official_account", "message_type": "text", "body": {"content": "Hi"}}');
    SELECT crm.define_achievement('{"name": "clicker", "on_kind": "click", "thresholds": [2, 4]}');
    SELECT crm.define_segment('{"name": "busy", "rule": "times(''click'', ''1 day'') >= 2"}');
});

my $contacts = 60;
$node->safe_psql('shop', "INSERT INTO crm.contact (contact_id, tags, time_zone, birthday)
    SELECT i, CASE WHEN i % 3 = 0 THEN '{vip}'::text[] ELSE '{}' END, CASE WHEN i % 2 = 0 THEN 'Europe/Paris' END, date '1990-02-26' + i % 9 FROM generate_series(1, $contacts) AS i");

# name => [keys of the document, steps]; the first step is the start
my @shapes = (
    [ plain => '', 'nap: {"kind": "wait", "for": "5 hours", "next": "way"}',
        'way: {"kind": "branch", "branches": [{"when": "tags @> \'{vip}\'", "next": "hello"}, {"when": "times(\'click\', \'1 day\') >= 1", "next": null}], "default": "end"}',
        'hello: {"kind": "send", "template": "hello", "next": "end"}', 'end: {"kind": "exit", "reason": "done"}' ],
    [ waits => '"reentry": "after_exit"', 'click: {"kind": "wait_for", "on": "click", "within": "7 hours", "next": "again", "on_timeout": "late"}',
        'again: {"kind": "wait_for", "on": "click", "since": "step", "within": "90 minutes", "next": "tag"}',
        'tag: {"kind": "tag", "add": ["clicks"], "next": "late"}',
        'late: {"kind": "wait", "for": "20 minutes", "at": "09:30", "hours": "Mo-Su 08:00-20:00"}' ],
    [ draws => '"reentry": "once", "hold_out": 30', 'arms: {"kind": "split", "arms": {"a": {"weight": 1, "next": "nap"}, "b": {"weight": 2, "next": "nap"}, "c": {"weight": 1, "next": null}}}',
        'nap: {"kind": "wait", "for": "1 day"}' ],
    [ cools => '"reentry": "cooldown", "cooldown": "8 hours"', 'nap: {"kind": "wait", "for": "3 hours"}' ],
    [ keyed => '"reentry": "per_key", "key": "k"', 'nap: {"kind": "wait", "for": "6 hours", "next": "click"}',
        'click: {"kind": "wait_for", "on": "click", "when": "fact.properties->>\'k\' <> \'1\'", "within": "6 hours", "on_timeout": "end"}',
        'end: {"kind": "set", "fields": {"language": "fr"}}' ],
    [ always => '"reentry": "always"', 'until: {"kind": "wait_until", "when": "did(\'click\', \'2 hours\')", "within": "9 hours", "next": "nap", "on_timeout": "end"}',
        'nap: {"kind": "wait", "for": "1 hour"}', 'end: {"kind": "exit"}' ],
    [ goals => '"reentry": "after_exit", "goal": [{"on": "buy"}, {"on": "click", "when": "fact.properties->>\'k\' = \'2\'"}], "exit": "times(\'tea\', \'12 hours\') >= 2"',
        'nap: {"kind": "wait", "for": "4 hours", "next": "tea"}', 'tea: {"kind": "wait_for", "on": "tea", "within": "1 day", "next": "nap", "on_timeout": "nap"}' ],
    [ asks => '"reentry": "after_exit"', 'why: {"kind": "ask", "field": "context.why", "within": "2 hours", "next": "size", "on_timeout": "size"}',
        'size: {"kind": "ask", "field": "context.size", "reply": "choice", "choices": {"1": "S", "2": "M"}, "within": "6 hours", "on_timeout": "sorry", "on_failed": "sorry", "next": "nap"}',
        'sorry: {"kind": "wait", "for": "1 hour", "next": "size"}', 'nap: {"kind": "wait", "for": "30 minutes"}' ],
    [ fails => '"reentry": "after_exit"', 'day: {"kind": "wait", "date": "entry.day", "next": "end"}', 'end: {"kind": "exit"}' ],
);
my %entry = (map { $_->[0] => '[{"on": "come", "when": "fact.properties->>\'k\' <> \'3\'"}]' } @shapes);
for (
    [ awarded => '[{"on": "award", "achievement": "clicker"}]' ],
    [ dated => '[{"on": "date", "property": "birthday", "at": "10:00"}, {"on": "click"}]' ],
    [ planned => '[{"on": "schedule", "every": "7 hours", "start": "2026-03-01 01:00", "audience": "tags @> \'{vip}\' AND did(\'click\', \'12 hours\')"}]' ],
    [ segment => '[{"on": "segment_entered", "segment": "busy"}, {"on": "segment_left", "segment": "busy"}]' ],
    [ several => '[{"on": "tea", "when": "tags @> \'{vip}\'"}, {"on": "come"}, {"on": "buy"}]' ])
{
    push @shapes, [ $_->[0] => '"reentry": "after_exit"', 'nap: {"kind": "wait", "for": "2 hours", "next": "click"}', 'click: {"kind": "wait_for", "on": "click", "within": "3 hours"}' ];
    $entry{ $_->[0] } = $_->[1];
}
my %document;
for my $shape (@shapes)
{
    my ($name, $keys, @steps) = @$shape;
    my ($start) = $steps[0] =~ /^(\w+)/;
    my $steps = join ', ', map { s/^(\w+):/"$1":/r } @steps;
    $document{$name} = qq({"journey": "$name", "entry": $entry{$name}, "start": "$start", "steps": {$steps}) . ($keys ? ", $keys}" : '}');
}

sub quoted { return q(') . ($_[0] =~ s/'/''/gr) . q(') }

my ($from, $until) = ("'2026-03-01 00:00Z'", "'2026-03-05 00:00Z'");
my $script = "SET pg_crm.clock = '2026-02-28 12:00Z';\n";
$script .= "SELECT crm.publish_journey(${\quoted($document{$_})});\n" for sort keys %document;
# facts of the day before are seen by rules and by who looks back; nobody is in a journey then
$script .= "SELECT crm.set_journey('$_', 'closed');\n" for sort keys %document;
my $written = 0;
sub facts
{
    my @facts;
    for (1 .. int(rand 6))
    {
        my $kind = (qw(come come come click click click click tea tea buy message message))[ rand 12 ];
        # only what no rule counts comes late: rules would know it too early
        my $late = $kind eq 'buy' && rand() < 0.3 ? (rand() < 0.2 ? '25 hours' : '50 minutes') : '0';
        push @facts, '(' . (1 + int(rand $contacts)) . ", '$kind', crm.now() - interval '$late', '{\"k\": \"" . int(rand 4) . '", "content": "' . int(rand 4) . '", "day": "' . (rand() < 0.3 ? 'soon' : '2026-03-04') . "\"}')";
        $written++;
    }
    return @facts ? 'INSERT INTO crm.event (contact_id, kind, occurred_at, properties) VALUES ' . join(', ', @facts) . ";\n" : '';
}
for my $half_hour (-24 .. 191)
{
    my $at = "extract(epoch FROM timestamptz '2026-03-01 00:00Z') + $half_hour * 1800";
    $script .= join "\n", map { "SELECT set_config('pg_crm.clock', (to_timestamp($at) - interval '$_')::text, false);\n" . ($_ eq '0' ? facts() : "SELECT crm.tick();\n") } '1 us', '0';
    $script .= join '', map { "SELECT crm.set_journey('$_', 'open');\n" } sort keys %document if $half_hour == -1;
}
$script .= "SELECT set_config('pg_crm.clock', (timestamptz $until - interval '1 us')::text, false); SELECT crm.tick();\n";
$node->safe_psql('shop', $script);
note("$written facts");

sub live
{
    my ($name) = @_;
    return $node->safe_psql('shop', qq{
        SELECT NULL, 'next', (SELECT definition ->> 'start' FROM crm.journey_version WHERE journey = '$name'), count(*) FROM crm.enrolment
            WHERE journey = '$name' AND visit > 0 HAVING count(*) > 0
        UNION ALL SELECT NULL, end_reason, NULL, count(*) FROM crm.enrolment WHERE journey = '$name' AND visit = 0 GROUP BY end_reason
        UNION ALL SELECT NULL, reason, NULL, sum(refusals) FROM crm.refusal WHERE object = '$name' AND reason <> 'closed' GROUP BY reason
        UNION ALL SELECT step, CASE outcome WHEN 'arm' THEN arm ELSE outcome END, next_step, count(*) FROM crm.step_visit
            WHERE journey = '$name' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3});
}
sub simulated
{
    my ($name, $where, $assume, $columns) = @_;
    my $only = $columns ? ' AND step IS NOT NULL AND outcome IS NOT NULL' : '';
    $columns //= 'step, outcome, next_step, moves';
    $assume = defined $assume ? ', ' . quoted($assume) : '';
    return ($where // $node)->safe_psql('shop', "BEGIN READ ONLY;
        SELECT $columns FROM crm.simulate(${\quoted($document{$name})}, $from, $until$assume) WHERE moves > 0$only ORDER BY 1, 2, 3; COMMIT");
}

my %ways;
for my $name (map { $_->[0] } @shapes)
{
    my $live = live($name);
    is(simulated($name), $live, "$name: as it went (SEED=$seed)");
    $ways{$_} = 1 for map { (split /\|/)[1] } split /\n/, $live;
}
for my $way (qw(next timeout failed default 1 2 a b c goal rule once active cooldown key hold_out))
{
    ok($ways{$way}, "somebody went the way $way");
}

is($node->safe_psql('shop', "SELECT step, entered, moves FROM crm.simulate(${\quoted($document{plain})}, '2026-01-01', '2026-01-02') ORDER BY step"),
    "end|0|0\nhello|0|0\nnap|0|0\nway|0|0", 'a period without facts has rows of its steps');
is($node->safe_psql('shop', "SELECT count(*) FROM (SELECT step, entered, sum(moves) FROM crm.simulate(${\quoted($document{goals})}, $from, $until)
    GROUP BY step, entered HAVING entered <> sum(moves)) x"), 0, 'entered is the sum of the moves');

subtest 'nothing is written' => sub {
    my $state = q{SELECT (SELECT last_value FROM crm.enrolment_enrolment_id_seq), (SELECT count(*) FROM crm.step_visit), (SELECT sum(refusals) FROM crm.refusal),
        (SELECT count(*) FROM crm.message), (SELECT count(*) FROM crm.rule_error)};
    my $before = $node->safe_psql('shop', $state);
    my $division = $document{plain} =~ s/tags @> '\{vip\}'/1 \/ (events - events) > 0/r;
    is($node->safe_psql('shop', "BEGIN; SELECT count(*) > 0 FROM crm.simulate(${\quoted($division)}, $from, $until);
        SELECT pg_current_xact_id_if_assigned() IS NULL; COMMIT"), "t\nt", 'in a transaction that may write, with a rule that fails');
    is($node->safe_psql('shop', $state), $before, 'no row, no id');
};

subtest 'what is assumed' => sub {
    my $awaited = $document{plain} =~ s/"template": "hello"/"template": "hello", "on_failed": "nap2", "on_refused": null/r =~ s/"end": \{/"nap2": {"kind": "wait", "for": "1 minute"}, "end": {/r;
    $document{awaited} = $awaited;
    my $count = sub {
        my ($assume) = @_;
        my %found = map { split /=/ } split /\n/, $node->safe_psql('shop', "SELECT concat_ws(':', outcome, next_step) || '=' || moves FROM
            crm.simulate(${\quoted($awaited)}, $from, $until, '$assume') WHERE step = 'hello' AND moves > 0");
        return \%found;
    };
    my ($entered) = values %{ $count->('{}') };
    cmp_ok($entered, '>', 5, 'some came to the step');
    is_deeply($count->('{}'), { 'next:end' => $entered }, 'without a word they go on');
    is_deeply($count->('{"steps": {"hello": "failed"}}'), { 'failed:nap2' => $entered }, 'all fail');
    is_deeply($count->('{"steps": {"hello": "refused"}}'), { refused => $entered }, 'all are refused');
    is_deeply($count->('{"steps": {"hello": {"failed": 0, "refused": 1}}}'), { refused => $entered }, 'shares');
    my $some = $count->('{"steps": {"hello": {"failed": 0.4, "refused": 0.3}}}');
    is($some->{'next:end'} + $some->{'failed:nap2'} + $some->{refused}, $entered, 'some of each');
    is_deeply($count->('{"steps": {"hello": {"failed": 0.4, "refused": 0.3}}}'), $some, 'the same ones at each time');
    $document{ask} = q({"journey": "ask", "reentry": "after_exit", "entry": [{"on": "come"}], "start": "ask", "steps": {"ask": {"kind": "ask", "field": "city", "within": "20 hours", "on_timeout": "late"},
        "late": {"kind": "exit"}}});
    my $ways = 'DISTINCT step, outcome, next_step';
    is(simulated('ask', undef, undef, $ways), "ask|next|\nask|timeout|late\nlate|next|", 'what contacts wrote is a reply');
    is(simulated('ask', undef, '{"steps": {"ask": "timeout"}}', $ways), "ask|timeout|late\nlate|next|", 'unless nobody is to have replied');
    is(simulated('ask', undef, '{"steps": {"ask": "next"}}', $ways), "ask|next|", 'or all');
};

subtest 'what is refused' => sub {
    my $refused = sub {
        my ($arguments, $message, $name) = @_;
        my ($rc, $out, $err) = $node->psql('shop', "SELECT * FROM crm.simulate($arguments)");
        like($err, qr/ERROR:  $message/, $name);
    };
    my $plain = quoted($document{plain});
    $refused->("'{}', $from, $until", 'definition of a journey has ', 'a broken document');
    $refused->("NULL, $from, $until", 'argument definition of crm.simulate\(\) must not be NULL', 'none');
    $refused->("$plain, $until, $from", 'the period from 2026-03-05 00:00:00\+00 to 2026-03-01 00:00:00\+00 is none', 'a period that ends before it begins');
    $refused->("$plain, '-infinity', $until", 'the period from -infinity ', 'one without a beginning');
    $refused->("$plain, $from, $until, '$_->[0]'", "assume: $_->[1]", "assume $_->[0]")
      for [ '3', 'it is not an object' ], [ '{"x": 1}', '"x" is not known' ], [ '{"steps": []}', 'steps is not an object' ],
      [ '{"steps": {"no": "next"}}', 'step "no" does not exist' ], [ '{"steps": {"nap": "next"}}', 'step "nap" of kind wait goes as the facts say' ],
      [ '{"steps": {"hello": "timeout"}}', 'a step of kind send is not left by "timeout"' ], [ '{"steps": {"hello": 1}}', 'what is said of step "hello" is neither' ],
      [ '{"steps": {"hello": {"failed": 2}}}', 'a share of step "hello" is not a number' ], [ '{"steps": {"hello": {"failed": 0.7, "refused": 0.7}}}', 'the shares of step "hello" are more than 1' ];
};

$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
$node->wait_for_catchup($standby, 'replay');
is(simulated($_, $standby), simulated($_), "$_: a standby says the same") for sort keys %document;

# why and whether, which reads only too
my $why = q{BEGIN READ ONLY; SELECT count(*), count(*) FILTER (WHERE crm.eligible(contact_id, 'cools')), sum((SELECT count(*) FROM crm.explain(contact_id, 'goals', NULL))),
    sum((SELECT count(*) FROM crm.explain(contact_id, 'goals', 'tea'))) FROM crm.contact; COMMIT};
like($node->safe_psql('shop', $why), qr/^\d+\|\d+\|\d+\|\d+$/, 'explain() and eligible() in a transaction that reads only');
is($standby->safe_psql('shop', $why), $node->safe_psql('shop', $why), 'and on a standby');

done_testing();
