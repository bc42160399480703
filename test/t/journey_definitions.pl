# Random documents of journeys. Sound ones must be published and come back as they were; ones broken
# in known ways must be refused with each fault at its place; where edges are led elsewhere at random,
# the server must say what a search of the graph in here says of it. And doc/journey.schema.json knows
# the same kinds and keys as the server, and takes the sound ones and the examples of doc/journeys.md.
#
# SEED=n draws the same again; CRM_JOURNEYS=n says how many.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmSchema;
use CrmTest;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{SEED}         // int(rand(1_000_000));
my $n    = $ENV{CRM_JOURNEYS} // 10_000;
note("SEED=$seed");
srand($seed);

sub one_of { return $_[ int(rand(@_)) ] }
sub chance { return rand() < $_[0] }

# a reference to a scalar is JSON already
sub json
{
    my ($value) = @_;
    return 'null' if !defined $value;
    return $$value if ref $value eq 'SCALAR';
    return '[' . join(',', map { json($_) } @$value) . ']' if ref $value eq 'ARRAY';
    return '{' . join(',', map { json($_) . ':' . json($value->{$_}) } sort keys %$value) . '}' if ref $value;
    return '"' . ($value =~ s/(["\\])/\\$1/gr =~ s/\n/\\n/gr) . '"';
}

my @rules = ('orders > 0', q{city = 'Shanghai'}, q{stage_rank >= rank('paying')}, q{times('cart', '7 days') >= 2}, q{tags @> '{vip}'},
    q{NOT in_segment('vip')}, q{last_order_at < as_of - interval '30 days'}, 'spend BETWEEN 1 AND 2 -- or so');
my @fact_rules = ('fact.amount > 10', q{fact.properties ->> 'x' = 'it''s'}, 'fact.amount > 10 AND orders > 0', 'true');
my @spans = ('1 second', '2 hours', '3 days', '1 mon', '1 week 2 days');

# What a step of each kind is, and the ways out of it: those that take time, and those that do not.
my %kinds = (
    send  => sub { { step => { template => 'hello', (chance(0.3) ? (params => { x => '{{entry.x|there}}' }) : ()) }, at_once => [qw(next on_refused on_failed)] } },
    wait  => sub {
        my $form = one_of('for', 'at', 'zero', 'until', 'date', 'hours');
        return { step => { for => one_of(@spans), (chance(0.3) ? (at => '09:30') : ()) }, later => ['next'] } if $form eq 'for';
        return { step => { at => '23:59', (chance(0.3) ? (hours => 'Mo-Fr 09:00-26:00') : ()) }, later => ['next'] } if $form eq 'at';
        return { step => { for => '0' }, at_once => ['next'] } if $form eq 'zero';
        return { step => { until => '2026-12-24 18:00' }, at_once => ['next'] } if $form eq 'until';
        return { step => { date => one_of('birthday', 'last_order_at', 'entry.at', 'context.at'), offset => '-3 days' }, at_once => ['next'] } if $form eq 'date';
        return { step => { hours => 'Mo-Fr 09:00-18:00' }, at_once => ['next'] };
    },
    wait_for => sub {
        my $step = { on => one_of('purchase', 'scan', 'cart'), within => one_of(@spans), (chance(0.4) ? (when => one_of(@fact_rules)) : ()) };
        $step->{store_id} = \7 if chance(0.2);
        return { step => { %$step, since => 'step' }, later => [qw(next on_timeout)] } if chance(0.5);
        return { step => $step, at_once => ['next'], later => ['on_timeout'] };
    },
    wait_until => sub { { step => { when => one_of(@rules), within => one_of(@spans) }, at_once => ['next'], later => ['on_timeout'] } },
    ask => sub { { step => { (chance(0.5) ? (field => 'mobile') : (field => 'city', reply => 'choice', choices => { 1 => 'Shanghai', 2 => 'Beijing' })), within => one_of(@spans) },
            later => [qw(next on_timeout on_failed)] } },
    branch => sub { my $k = 1 + int(rand(3)); return { step => { branches => [ map { { when => one_of(@rules) } } 1 .. $k ] }, at_once => [ 'default', map { "branches[$_].next" } 0 .. $k - 1 ] } },
    split  => sub { my $k = 2 + int(rand(3)); return { step => { arms => { map { ("arm$_" => { weight => \(0.5 + $_) }) } 1 .. $k } }, at_once => [ map { "arms.arm$_.next" } 1 .. $k ] } },
    set    => sub { { step => { fields => { city => one_of('Shanghai', '{{entry.city}}'), birthday => '2000-02-29', tags => ['a'] } }, at_once => ['next'] } },
    tag    => sub { { step => { one_of('add', 'remove') => [ 'a', 'b c' ] }, at_once => ['next'] } },
    award  => sub { { step => { achievement => 'fan', (chance(0.5) ? (threshold => \3) : ()) }, at_once => ['next'] } },
    stage  => sub { { step => { stage => 'intent', reason => q{it's "so"} }, at_once => ['next'] } },
    coupon => sub { { step => { coupon => 'ten', save_as => 'code' }, at_once => [qw(next on_failed)] } },
    points => sub { { step => { program => 'club', points => \one_of(-5, 10) }, at_once => [qw(next on_failed)] } },
    webhook => sub { { step => { template => 'erp' }, at_once => [qw(next on_failed)] } },
    journey => sub { { step => { journey => 'other' }, at_once => ['next'] } },
    exit    => sub { { step => { (chance(0.5) ? (reason => 'done') : ()) } } },
);

# where a way out stands in a step
sub place_of
{
    my ($step, $way) = @_;
    return ($step->{branches}[$1], 'next') if $way =~ /^branches\[(\d+)\]/;
    return ($step->{arms}{$1}, 'next') if $way =~ /^arms\.(\w+)/;
    return ($step, $way);
}

sub lead
{
    my ($step, $way, $to) = @_;
    my ($object, $key) = place_of($step, $way);
    $object->{$key} = $to;
}

sub trigger
{
    return one_of(
        sub { { on => 'follow' } },
        sub { { on => one_of('purchase', 'cart'), when => one_of(@fact_rules) } },
        sub { { on => 'scan', campaign => q{o'clock \\ spring} } },
        sub { { on => 'field_change', field => 'city', old => undef, new => 'x' } },
        sub { { on => 'stage_move', stage => 'lead' } },
        sub { { on => one_of('segment_entered', 'segment_left'), segment => 'vip' } },
        sub { { on => 'award', achievement => 'fan', threshold => \1 } })->();
}

sub timed_entry
{
    return one_of(
        sub { { on => 'api' } },
        sub { { on => 'date', property => 'birthday', offset => '-1 week', at => '08:00', leap_day => one_of('feb28', 'mar1', 'skip') } },
        sub { { on => 'date', property => 'last_order_at', offset => '30 days', (chance(0.3) ? (when => one_of(@rules)) : ()) } },
        sub { { on => 'schedule', every => '1 day', (chance(0.5) ? (start => '2026-01-01 09:00') : ()), (chance(0.3) ? (audience => one_of(@rules)) : ()) } })->();
}

# A sound document. Every step but the first is led to by one before it, so that all are reached;
# where no time passes, the ways lead forward, so that there is no circle.
sub document
{
    my ($name) = @_;
    my $size = 1 + int(rand(chance(0.05) ? 60 : 8));
    my (@parts, @names, @free);
    for my $i (0 .. $size - 1)
    {
        my $kind = $i < $size - 1 ? one_of(grep { $_ ne 'exit' } sort keys %kinds) : one_of(sort keys %kinds);
        my $part = $kinds{$kind}->();
        $part->{step}{kind}  = $kind;
        $part->{step}{label} = "Schritt $i \x{fc}" if chance(0.1);
        $names[$i] = one_of('s', 'step ', 'x.', '') . $i;
        if ($i > 0)
        {
            my ($from, $way) = @{ splice @free, int(rand(@free)), 1 };
            lead($parts[$from]{step}, $way, $names[$i]);
            $parts[$from]{led}{$way} = $i;
        }
        push @parts, $part;
        push @free, map { [ $i, $_ ] } @{ $part->{at_once} // [] }, @{ $part->{later} // [] };
    }
    for my $free (@free)
    {
        my ($from, $way) = @$free;
        my $later = grep { $_ eq $way } @{ $parts[$from]{later} // [] };
        my @to = $later ? 0 .. $size - 1 : $from + 1 .. $size - 1;
        if (@to && chance(0.5))
        {
            my $to = one_of(@to);
            lead($parts[$from]{step}, $way, $names[$to]);
            $parts[$from]{led}{$way} = $to;
        }
        elsif ($way eq 'default' || chance(0.3)) { lead($parts[$from]{step}, $way, undef) }
    }
    my %document = (journey => $name, start => $names[0], steps => { map { ($names[$_] => $parts[$_]{step}) } 0 .. $size - 1 });
    $document{entry} = [ map { chance(0.7) ? trigger() : timed_entry() } 1 .. int(rand(3)) ] if chance(0.9);
    $document{goal} = one_of(sub { one_of(@rules) }, \&trigger, sub { [ trigger(), trigger() ] })->() if chance(0.3);
    $document{exit} = trigger() if chance(0.2);
    $document{account} = 'shop' if chance(0.5);
    $document{hold_out} = \12.5 if chance(0.1);
    my $reentry = one_of(undef, 'once', 'after_exit', 'always', 'cooldown', 'per_key');
    $document{reentry}  = $reentry if defined $reentry;
    $document{cooldown} = '30 days' if ($reentry // '') eq 'cooldown';
    $document{key}      = one_of('entry.id', 'id') if ($reentry // '') eq 'per_key';
    return (\%document, \@parts, \@names);
}

# Breaks a step in one way; the place of the fault.
sub break_step
{
    my ($part, $name) = @_;
    my $step = $part->{step};
    my $at   = "steps.$name";
    my @at_once = @{ $part->{at_once} // [] };
    my @ways    = (@at_once, @{ $part->{later} // [] });
    my @breaks  = (
        sub { $step->{wibble} = \1; return "$at.wibble: unknown key" },
        sub { $step->{kind} = 'teleport'; return "$at.kind: \"teleport\" is not one of" },
        sub { delete $step->{kind}; return "$at.kind: is missing" },
        sub { $step->{label} = \3; return "$at.label: is a number, not a string" });
    push @breaks, sub { my $way = one_of(@ways); lead($step, $way, 'nowhere'); return "$at.$way: step \"nowhere\" does not exist" } if @ways;
    push @breaks, sub { my $way = one_of(@ways); lead($step, $way, \7); return "$at.$way: is a number, not a string" } if @ways;
    push @breaks, sub { my $way = one_of(@at_once); lead($step, $way, $name); return "$at: goes round without waiting: \"$name\" to \"$name\"" } if @at_once;
    push @breaks, sub { $step->{within} = '-1 day'; return "$at.within: \"-1 day\" is negative" } if defined $step->{within};
    push @breaks, sub { delete $step->{within}; return "$at.within: is missing" } if defined $step->{within};
    push @breaks, sub { $step->{when} = 'orders >'; return "$at.when: syntax error" } if defined $step->{when};
    for my $key (grep { defined $step->{$_} && !ref $step->{$_} } qw(template achievement stage coupon program journey))
    {
        push @breaks, sub { $step->{$key} = 'missing'; return "$at.$key: " };
        push @breaks, sub { delete $step->{$key}; return "$at.$key: is missing" };
    }
    push @breaks, sub { $step->{arms}{arm1}{weight} = \0; return "$at.arms.arm1.weight: 0 is not above 0" } if $step->{arms};
    push @breaks, sub { delete $step->{default}; return "$at.default: is missing" } if $step->{branches};
    push @breaks, sub { $step->{branches}[0]{when} = 'nothing_of_that'; return "$at.branches[0].when: " } if $step->{branches};
    push @breaks, sub { $step->{fields}{stage} = 'x'; return "$at.fields.stage: is no column" } if $step->{fields};
    push @breaks, sub { $step->{points} = \0; return "$at.points: is 0" } if $step->{points};
    return one_of(@breaks)->();
}

sub break_document
{
    my ($document) = @_;
    my @breaks = (
        sub { $document->{nonsense} = 'x'; return 'nonsense: unknown key' },
        sub { $document->{start} = 'nowhere'; return 'start: step "nowhere" does not exist' },
        sub { delete $document->{start}; return 'start: is missing' },
        sub { $document->{account} = 'nobody'; return 'account: account "nobody" does not exist' },
        sub { $document->{hold_out} = \-1; return 'hold_out: -1 is not between 0 and 100' },
        sub { $document->{goal} = \3; return 'goal: is a number' },
        sub { $document->{goal} = 'ordrs > 3'; return 'goal: ' },
        sub { $document->{exit} = { on => 'api' }; return 'exit.on: "api" only lets in' },
        sub { $document->{entry} = [ { on => 'follow', when => 'fact.amnt > 1' } ]; return 'entry[0].when: ' },
        sub { $document->{entry} = [ { on => 'date', property => 'city' } ]; return 'entry[0].property: "city" is no column' },
        sub { $document->{entry} = [ {} ]; return 'entry[0].on: is missing' },
        sub { $document->{reentry} = 'never'; delete @$document{qw(cooldown key)}; return 'reentry: "never" is not' },
        sub { $document->{steps}{lonely} = { kind => 'exit' }; return 'steps.lonely: is never reached' });
    # nobody knows what is reached where the start is not known
    my $at = one_of(@breaks)->();
    return $at =~ /lonely/ && !exists $document->{steps}{ $document->{start} // '' } ? 'start: ' : $at;
}

# Is every step reached, and no circle gone through at once?
sub graph_is_sound
{
    my ($parts) = @_;
    my (%seen, @next);
    @next = (0);
    while (defined(my $i = shift @next)) { push @next, values %{ $parts->[$i]{led} // {} } if !$seen{$i}++ }
    return 0 if keys %seen < @$parts;
    # take away whoever is left at once to nobody that stays, until all are gone, or a circle is left
    my %left = map { $_ => 1 } 0 .. $#$parts;
    while (1)
    {
        my @gone = grep { my $part = $parts->[$_]; !grep { defined $part->{led}{$_} && $left{ $part->{led}{$_} } } @{ $part->{at_once} // [] } } keys %left;
        return !%left if !@gone;
        delete @left{@gone};
    }
}

my (@rows, %expected, %count);
for my $id (1 .. $n)
{
    my ($document, $parts, $names) = document('journey ' . ($id % 3 ? $id : $id % 50));
    my $what = one_of('sound', 'sound', 'broken', 'led elsewhere');
    if ($what eq 'broken')
    {
        my %at;
        my @places = sort { rand() <=> 0.5 } 0 .. $#$parts;
        $at{ break_step($parts->[$_], $names->[$_]) } = 1 for splice @places, 0, 1 + int(rand(3));
        $at{ break_document($document) } = 1 if chance(0.3);
        $expected{$id} = [ sort keys %at ];
    }
    elsif ($what eq 'led elsewhere')
    {
        for (1 .. 1 + int(rand(3)))
        {
            my $i = int(rand(@$parts));
            my @ways = (@{ $parts->[$i]{at_once} // [] }, @{ $parts->[$i]{later} // [] }) or next;
            my ($way, $to) = (one_of(@ways), int(rand(@$parts)));
            lead($parts->[$i]{step}, $way, $names->[$to]);
            $parts->[$i]{led}{$way} = $to;
        }
        $expected{$id} = [''] if !graph_is_sound($parts);
        $what = 'led astray' if $expected{$id};
    }
    $count{$what}++;
    my $text = json($document);
    utf8::encode($text);
    push @rows, "$id\t" . ($text =~ s/\\/\\\\/gr) . "\n";
}
note(join ', ', map { "$count{$_} $_" } sort keys %count);

my $node = crm_node('journey_definitions');
crm_database($node, 'journeys');
my $file = PostgreSQL::Test::Utils::tempdir() . '/documents';
append_to_file($file, join '', @rows);
$node->safe_psql('journeys', qq{
    INSERT INTO crm.account (kind, name, time_zone) VALUES ('official_account', 'shop', 'America/New_York');
    INSERT INTO crm.loyalty_program (name) VALUES ('club');
    SELECT crm.define_template('{"name": "hello", "channel": "official_account", "message_type": "text", "body": {"content": "Hi"}}');
    SELECT crm.define_template('{"name": "erp", "channel": "webhook", "message_type": "post", "body": {"x": 1}}');
    SELECT crm.define_achievement('{"name": "fan", "on_kind": "applause", "thresholds": [1, 3]}');
    SELECT crm.define_coupon('{"name": "ten"}'), crm.define_segment('{"name": "vip", "rule": "orders > 3"}');
    SELECT crm.publish_journey('{"journey": "other", "start": "a", "steps": {"a": {"kind": "exit"}}}');
    CREATE TABLE document (id integer PRIMARY KEY, definition jsonb);
    CREATE TABLE result (id integer, version integer, faults text);
    CREATE FUNCTION publish(id integer, definition jsonb, OUT version integer, OUT faults text) LANGUAGE plpgsql AS \$\$
    BEGIN
        version := crm.publish_journey(definition);
    EXCEPTION WHEN invalid_parameter_value THEN
        GET STACKED DIAGNOSTICS faults = PG_EXCEPTION_DETAIL;
    END\$\$;
    \\copy document FROM '$file'
});
# any other error, or a crash, ends this
my $batch = 500;
$node->safe_psql('journeys', join '', map {
    "INSERT INTO result SELECT d.id, p.* FROM document AS d, publish(d.id, d.definition) AS p WHERE d.id BETWEEN $_ AND $_ + $batch - 1;\n"
} map { 1 + $batch * $_ } 0 .. int(($n - 1) / $batch));

my (@wrong, $published);
my %faults;
for my $line (split /\n/, $node->safe_psql('journeys', q{SELECT id, replace(coalesce(faults, ''), E'\n', E'\r') FROM result ORDER BY id}))
{
    my ($id, $faults) = split /\|/, $line, 2;
    $faults{$id} = $faults;
}
is(scalar(keys %faults), $n, "$n documents were looked at, seed $seed");
for my $id (1 .. $n)
{
    my @lines = split /\r/, $faults{$id};
    if (!$expected{$id}) { push @wrong, "$id is sound: $faults{$id}" if @lines }
    elsif (!@lines) { push @wrong, "$id was published in spite of: @{ $expected{$id} }" }
    else
    {
        for my $at (@{ $expected{$id} })
        {
            push @wrong, "$id is not told: $at, but: $faults{$id}" if !grep { index($_, $at) == 0 } @lines;
        }
    }
}
is(join("\n", @wrong[ 0 .. ($#wrong < 4 ? $#wrong : 4) ]), '', 'sound ones are published, others refused with each fault at its place');
cmp_ok($count{$_} // 0, '>', $n / 20, "some are $_") for 'sound', 'broken', 'led elsewhere', 'led astray';

is($node->safe_psql('journeys', q{SELECT d.id FROM document AS d JOIN result AS r USING (id)
     WHERE r.version IS NOT NULL AND crm.export_journey(d.definition ->> 'journey', r.version) <> d.definition LIMIT 5}), '',
    'each that was published is exported as it was');
is($node->safe_psql('journeys', q{SELECT count(*) FROM (SELECT journey, version, max(version) OVER w, count(*) OVER w FROM crm.journey_version
     WINDOW w AS (PARTITION BY journey)) AS v JOIN crm.journey AS j USING (journey) WHERE v.max <> v.count OR j.version <> v.max}), '0', 'versions are counted without gaps');
cmp_ok($node->safe_psql('journeys', q{SELECT max(version) FROM crm.journey_version}), '>', 5, 'some journeys have several') if $n >= 2000;
is($node->safe_psql('journeys', q{SELECT * FROM crm.verify() LIMIT 5}), '', 'read again they are as sound as when they were published');

# the schema says of kinds, keys and needed keys what the server does
my $schema = decode_json(slurp_file('doc/journey.schema.json'));
my %listed;
for my $line (split /\n/, $node->safe_psql('journeys', 'SELECT kind, key, required FROM crm.journey_step_kinds()'))
{
    my ($kind, $key, $needed) = split /\|/, $line;
    $listed{"$kind.$key" . ($needed eq 't' ? ' needed' : '')} = 1;
}
my %said;
for my $kind (map { $_->{'$ref'} =~ s{^#/\$defs/step_}{}r } @{ $schema->{'$defs'}{step}{oneOf} })
{
    my $step = $schema->{'$defs'}{"step_$kind"};
    my %needed = map { $_ => 1 } @{ $step->{required} };
    $said{ "$kind.$_" . ($needed{$_} ? ' needed' : '') } = 1 for keys %{ $step->{properties} };
}
is(join("\n", sort keys %said), join("\n", sort keys %listed), 'the schema has the kinds and keys of steps that the server has');

my @faulty;
for my $id (grep { !$expected{$_} } 1 .. ($n < 300 ? $n : 300))
{
    my $document = decode_json((split /\t/, $rows[ $id - 1 ], 2)[1] =~ s/\\\\/\\/gr);
    push @faulty, map { "$id$_" } crm_schema_faults($schema, $document);
}
is(join("\n", @faulty), '', 'it takes sound documents');
my $plain = { journey => 'x', start => 'a', steps => { a => { kind => 'exit' } } };
is(scalar(crm_schema_faults($schema, $plain)), 0, 'and a plain one');
for my $change (
    [ 'no start', sub { delete $_[0]{start} } ], [ 'an unknown key', sub { $_[0]{colour} = 1 } ],
    [ 'a key of another kind', sub { $_[0]{steps}{a}{next} = 'a' } ], [ 'an unknown kind', sub { $_[0]{steps}{a}{kind} = 'teleport' } ],
    [ 'a branch without default', sub { $_[0]{steps}{a} = { kind => 'branch', branches => [ { when => 'true' } ] } } ],
    [ 'one arm', sub { $_[0]{steps}{a} = { kind => 'split', arms => { x => { weight => 1 } } } } ],
    [ 'a wait for nothing', sub { $_[0]{steps}{a} = { kind => 'wait' } } ], [ 'an hour of the day', sub { $_[0]{steps}{a} = { kind => 'wait', at => '24:00' } } ],
    [ 'an entry on nothing', sub { $_[0]{entry} = [ {} ] } ], [ 'a goal on a date', sub { $_[0]{goal} = { on => 'date' } } ])
{
    my $document = decode_json(encode_json($plain));
    $change->[1]->($document);
    cmp_ok(scalar(crm_schema_faults($schema, $document)), '>', 0, "it refuses $change->[0]");
}
my @examples = slurp_file('doc/journeys.md') =~ /crm\.publish_journey\(\$\$(\{.*?\n\})\$\$/gs;
cmp_ok(scalar(@examples), '>=', 3, 'doc/journeys.md has examples');
is(join("\n", map { crm_schema_faults($schema, decode_json($_)) } @examples), '', 'which it takes');
done_testing();
