# Visits, moves between touchpoints, and what maps make of them, against a plain reference on random facts: many
# at one instant, facts of several touchpoints, NULLs, people whom nothing is known of, intervals by the calendar
# over a change to summer time. CRM_SEED=n repeats a run, CRM_ROUNDS=n says how many questions are asked.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use List::Util qw(min shuffle sum0 uniq);
use Test::More;

my $seed   = $ENV{CRM_SEED}   // int(rand(1_000_000));
my $rounds = $ENV{CRM_ROUNDS} // 40;
my $contacts = 150;
my $zone     = 'America/New_York';
my $now      = '2024-03-13 12:00-04';
srand($seed);
diag("CRM_SEED=$seed CRM_ROUNDS=$rounds");

sub one_of { return $_[ int(rand(@_)) ] }
sub maybe { return rand() < 0.3 ? 'NULL' : one_of(@_) }

my $node = crm_node('map_moves', conf => "timezone = '$zone'\npg_crm.time_zone = '$zone'\n");
my $db   = crm_database($node, 'shop');
sub sql { return $node->safe_psql($db, "SET client_min_messages = error; SET pg_crm.clock = '$now'; " . shift) }

# ---- random facts

# few times, so that many are equal; some at the ends of months and about the change
sub at
{
    return sprintf "'2024-%s %02d:%02d'", one_of('01-29', '01-30', '01-31', '02-28', '02-29', ('03-09', '03-10', '03-11') x 2, '03-12'), one_of(0, 1, 2, 3, 23), one_of(0, 30, 45);
}

# some have none of it, some one or two, some many
my @busy = map { one_of(0, 1, 1, 2, 4, 8, 16) } 1 .. $contacts;
my @who  = shuffle map { ($_) x $busy[ $_ - 1 ] } 1 .. $contacts;
# a day later the clock shows 03:45, as there is no 02:45
my %rows = (event => [ "(1, 'view', '2024-03-09 02:45', NULL, '{}')", "(1, 'cart', '2024-03-10 03:30', NULL, '{}')" ]);
for my $who (@who)
{
    my $table = one_of(qw(event event event transaction scan message));
    push @{ $rows{$table} },
      $table eq 'event' ? sprintf(q{(%d, '%s', %s, %s, %s)}, $who, one_of(qw(view view cart angry)), at(), maybe(1, 2), one_of(q('{}'), q('{"page": null}'), q('{"page": "p/a?x=1"}'), q('{"page": "p/a"}'), q('{"page": "p/b"}')))
      : $table eq 'transaction' ? sprintf(q{(%d, %d, %s, %s)}, $who, one_of(0, 20, 50, 80), at(), maybe(q('CNY'), q('USD')) =~ s/NULL/'CNY'/r)
      : $table eq 'scan'        ? sprintf(q{(%d, %d, %s)}, $who, one_of(1, 2, 3), at())
      :   sprintf(q{(%d, %d, '%s', 1, 'official_account', 'service', %s)}, $who, one_of(1, 2), one_of('hello', 'news'), rand() < 0.8 ? "'sent', " . at() : "'failed', NULL");
}
sql(qq{INSERT INTO crm.contact (contact_id, created_at, city) SELECT n, '2024-01-01', (ARRAY['Shanghai', 'Beijing', NULL])[1 + (n * 7) % 3] FROM generate_series(1, $contacts) AS n;
    INSERT INTO crm.account (account_id, kind, name) VALUES (1, 'official_account', 'oa'), (2, 'official_account', 'other');
    INSERT INTO crm.qr_code (qr_code_id, account_id, scene, campaign) VALUES (1, 1, 'door', 'spring'), (2, 1, 'shelf', NULL), (3, 2, 'door', 'spring');
    INSERT INTO crm.template (name, channel, message_type, body) VALUES ('hello', 'official_account', 'text', '{"content": "a"}'), ('news', 'official_account', 'text', '{"content": "b"}');}
    . join ' ', map { "INSERT INTO crm.$_->[0] ($_->[1]) VALUES " . join(', ', @{ $rows{ $_->[0] } }) . ';' } [ event => 'contact_id, kind, occurred_at, account_id, properties' ],
    [ transaction => 'contact_id, amount, occurred_at, currency' ], [ scan => 'contact_id, qr_code_id, occurred_at' ],
    [ message => 'contact_id, account_id, template, template_version, channel, class, state, sent_at' ]);

# ---- touchpoints: as they are defined, and what that means

my %touchpoint = (
    view     => [ '"on_kind": "view"', sub { $_[0]{kind} eq 'view' } ],
    page_a   => [ '"on_kind": "view", "page": "p/a"', sub { $_[0]{kind} eq 'view' && $_[0]{page} =~ /^p\/a(\?|$)/ } ],
    page_b   => [ '"on_kind": "view", "page": "p/b", "account": "oa"', sub { $_[0]{kind} eq 'view' && $_[0]{page} eq 'p/b' && $_[0]{account} eq '1' } ],
    on_oa    => [ '"on_kind": "view", "account": "oa"', sub { $_[0]{kind} eq 'view' && $_[0]{account} eq '1' } ],
    local    => [ q("on_kind": "view", "rule": "city = 'Shanghai'"), sub { $_[0]{kind} eq 'view' && $_[0]{city} eq 'Shanghai' } ],
    elsewhere => [ q("on_kind": "cart", "rule": "NOT (city = 'Shanghai')"), sub { $_[0]{kind} eq 'cart' && $_[0]{city} eq 'Beijing' } ],
    Cart     => [ '"on_kind": "cart"', sub { $_[0]{kind} eq 'cart' } ],
    order    => [ '"on_kind": "purchase"', sub { $_[0]{kind} eq 'purchase' } ],
    large    => [ '"on_kind": "purchase", "rule": "fact.amount >= 50"', sub { $_[0]{kind} eq 'purchase' && $_[0]{amount} >= 50 } ],
    scan     => [ '"on_kind": "scan"', sub { $_[0]{kind} eq 'scan' } ],
    door     => [ '"on_kind": "scan", "scene": "door", "account": "oa"', sub { $_[0]{kind} eq 'scan' && $_[0]{code} eq '1' } ],
    spring   => [ '"on_kind": "scan", "campaign": "spring"', sub { $_[0]{kind} eq 'scan' && $_[0]{code} =~ /[13]/ } ],
    hello    => [ '"template": "hello"', sub { $_[0]{kind} eq 'message' && $_[0]{template} eq 'hello' } ],
    news     => [ '"template": "news", "account": "other"', sub { $_[0]{kind} eq 'message' && $_[0]{template} eq 'news' && $_[0]{account} eq '2' } ],
    never    => [ '"on_kind": "nothing of it"', sub { 0 } ]);
my $complains = sub { $_[0]{kind} eq 'angry' };
sql("SELECT crm.define_touchpoint(\$d\${\"name\": \"$_\", $touchpoint{$_}[0]}\$d\$)") for sort keys %touchpoint;
sql(q{SELECT crm.define_touchpoint('{"name": "angry", "on_kind": "angry", "complaint": true}'), crm.define_persona('{"name": "local", "rule": "city = ''Shanghai''"}')});
my @all = sort keys %touchpoint;

# ---- the reference

sub moment { return "(extract(epoch FROM $_[0]) * 1000000)::bigint" }

# every fact, and when an interval after it is over
my @columns = qw(table id contact kind account page amount code template city at);
sub facts
{
    my ($within) = @_;
    return map { my %fact; @fact{ @columns, 'until' } = split /\|/, $_, -1; \%fact } split /\n/, sql(
        'SELECT f.tab, f.id, contact_id, f.kind, f.account, f.page, f.amount, f.code, f.template, c.city, ' . moment('at') . ', ' . moment("at + '$within'::interval") . q{ FROM (
            SELECT 'event', event_id, contact_id, kind, account_id, COALESCE(properties ->> 'page', ''), NULL::numeric, NULL::bigint, NULL::text, occurred_at AS at FROM crm.event
            UNION ALL SELECT 'transaction', transaction_id, contact_id, kind, NULL, NULL, amount, NULL, NULL, occurred_at FROM crm.transaction
            UNION ALL SELECT 'scan', scan_id, contact_id, 'scan', NULL, NULL, NULL, qr_code_id, NULL, occurred_at FROM crm.scan
            UNION ALL SELECT 'message', message_id, contact_id, 'message', account_id, NULL, NULL, NULL, template, sent_at FROM crm.message WHERE state = 'sent')
            AS f(tab, id, contact_id, kind, account, page, amount, code, template, at) JOIN crm.contact AS c USING (contact_id)});
}

sub in_order { return $_[0]{at} <=> $_[1]{at} || $_[0]{table} cmp $_[1]{table} || $_[0]{id} <=> $_[1]{id} }

# those of a persona, by contact, in their order, each with the first touchpoint that it belongs to
sub visits
{
    my ($facts, $names, $persona) = @_;
    my %of;
    for my $fact (@$facts)
    {
        next if $persona && $fact->{city} ne 'Shanghai';
        my ($first) = grep { $touchpoint{$_}[1]->($fact) } @$names;
        push @{ $of{ $fact->{contact} } }, { %$fact, touchpoint => $first } if defined $first;
    }
    $_ = [ sort { in_order($a, $b) } @$_ ] for values %of;
    return \%of;
}

sub moves
{
    my ($visits, $start, $end, $clock) = @_;
    my @moves;
    for my $contact (sort keys %$visits)
    {
        my @visits = @{ $visits->{$contact} };
        for my $i (0 .. $#visits)
        {
            my ($visit, $next) = @visits[ $i, $i + 1 ];
            my $in_time = $next && $next->{at} <= $visit->{until};
            next if $visit->{at} < $start || $visit->{at} >= $end || $in_time && $next->{touchpoint} eq $visit->{touchpoint};
            my $outcome = $in_time ? 'went_on' : $visit->{until} >= $clock ? 'still_open' : 'lost';
            push @moves, { contact => $contact, from => $visit->{touchpoint}, at => $visit->{at}, outcome => $outcome, to => $in_time ? $next->{touchpoint} : '',
                seconds => $in_time ? ($next->{at} - $visit->{at}) / 1e6 : undef };
        }
    }
    return @moves;
}

# the numbers between which the share lies, as far as they stand apart
sub percentile
{
    my ($share, @seconds) = @_;
    return '' unless @seconds;
    @seconds = sort { $a <=> $b } @seconds;
    my $place = $share * $#seconds;
    my $below = int($place);
    return sprintf '%.3f', $seconds[$below] + ($place - $below) * ($seconds[ min($below + 1, $#seconds) ] - $seconds[$below]);
}

sub share { my ($part, $whole) = @_; return $whole ? sprintf '%.4f', int((2 * 10000 * $part + $whole) / (2 * $whole)) / 10000 : '' }

# from, to, outcome, contacts, transitions, share, loss, median, p90
sub actions
{
    my (@moves) = @_;
    my (%group, %decided, %lost);
    for my $move (@moves)
    {
        push @{ $group{ join '|', @$move{qw(from to outcome)} } }, $move;
        $decided{ $move->{from} }++ if $move->{outcome} ne 'still_open';
        $lost{ $move->{from} }++    if $move->{outcome} eq 'lost';
    }
    return map {
        my @of = @{ $group{$_} };
        my ($from, $open) = ($of[0]{from}, $of[0]{outcome} eq 'still_open');
        my @seconds = grep { defined } map { $_->{seconds} } @of;
        join '|', $_, scalar uniq(map { $_->{contact} } @of), scalar @of, $open ? '' : share(scalar @of, $decided{$from}),
          share($lost{$from} // 0, $decided{$from} // 0), percentile(0.5, @seconds), percentile(0.9, @seconds);
    } sort keys %group;
}

# ---- questions

my @withins = ('30 minutes', '2 hours', '24 hours', '1 day', '1 day 2 hours', '3 days', '1 month', '30 days');
my @periods = ([ '2024-01-31', '2024-03-01' ], [ '2024-03-09', '2024-03-09 03:00' ], [ '2024-03-09 03:00', '2024-03-10 00:30' ], [ '2024-03-10', '2024-03-12' ], [ '2024-02-28', '2024-02-28' ], [ '2024-03-10 02:45', '2024-03-13' ]);
my $clock = sql('SELECT ' . moment("'$now'::timestamptz"));
my (%seen, %wrong, %asked);
sub compare
{
    my ($what, $question, $got, $expected) = @_;
    my @got = sort @$got;
    my @expected = sort @$expected;
    $asked{$what}++;
    $seen{$what} += @expected;
    return if join("\n", @got) eq join("\n", @expected);
    my %count;
    $count{$_}++ for @got;
    $count{$_}-- for @expected;
    diag("$what of $question\n    " . join "\n    ", (map { $count{$_} > 0 ? "has $_" : $count{$_} < 0 ? "lacks $_" : () } sort keys %count)[ 0 .. 5 ]) if !$wrong{$what}++;
}
# columns of a row, joined
sub joined { return "concat_ws('|', " . join(', ', map { /seconds/ ? "COALESCE(to_char($_, 'FM99999999990.000'), '')" : "COALESCE($_\::text, '')" } @_) . ')' }

for my $round (1 .. $rounds)
{
    my $within  = $round == 1 ? '1 day' : one_of(@withins);
    my @facts   = facts($within);
    my @names   = $round == 1 || rand() < 0.2 ? () : (shuffle @all)[ 0 .. int(rand(@all)) ];
    my $period  = $round == 1 ? $periods[1] : rand() < 0.3 ? undef : one_of(@periods);
    my $persona = $round > 1 && rand() < 0.3 ? 'local' : undef;
    my ($start, $end) = $period ? split(/\|/, sql('SELECT ' . join ', ', map { moment("'$_'::timestamptz") } @$period)) : (-9e18, 9e18);
    my $asked = join ', ', ($period ? "'$period->[0]', '$period->[1]'" : 'NULL, NULL'), $persona ? "'$persona'" : 'NULL';
    my $list  = @names ? "'{" . join(',', @names) . "}'" : 'NULL';
    my $visits = visits(\@facts, @names ? \@names : \@all, $persona);
    my @moves  = moves($visits, $start, $end, $clock);
    my $question = "$list, '$within', $asked";

    compare('visits', $question, [ split /\n/, sql("SELECT contact_id, touchpoint, source_table, source_id FROM crm.touchpoint_rows($list, $asked)") ],
        [ map { join '|', @$_{qw(contact touchpoint table id)} } grep { $_->{at} >= $start && $_->{at} < $end } map { @$_ } values %$visits ]);
    compare('moves', $question,
        [ split /\n/, sql("SELECT contact_id, from_touchpoint, (extract(epoch FROM left_at) * 1000000)::bigint, outcome, to_touchpoint, seconds FROM crm.touchpoint_moves($question)") ],
        [ map { join '|', @$_{qw(contact from at outcome to)}, $_->{seconds} // '' } @moves ]);
    compare('actions', $question,
        [ split /\n/, sql('SELECT ' . joined(qw(from_touchpoint to_touchpoint outcome contacts transitions share loss median_seconds p90_seconds)) . " FROM crm.touchpoint_actions($question)") ], [ actions(@moves) ]);

    # a map of them, in stages, with some ways drawn
    next if @names < 2;
    my @pairs = grep { $_->[0] ne $_->[1] } map { [ one_of(@names), one_of(@names) ] } 1 .. @names;
    my %drawn = map { join('|', @$_) => 1 } @pairs;
    my %goes_on = map { $_->[0] => 1 } @pairs;
    my $cut = int(rand(@names));
    my @stages = grep { @$_ } [ @names[ 0 .. $cut ] ], [ @names[ $cut + 1 .. $#names ] ];
    sql(sprintf q(SELECT crm.define_map('{"map": "m", "within": "%s", "stages": [%s], "transitions": [%s]}')), $within,
        join(', ', map { sprintf '{"name": "s%d", "touchpoints": [%s]}', $_, join ', ', map { "\"$_\"" } @{ $stages[$_] } } 0 .. $#stages),
        join(', ', map { sprintf '{"from": "%s", "to": "%s"}', split /\|/ } sort keys %drawn));
    my %unseen = %drawn;
    my @path;
    for (actions(@moves))
    {
        my ($from, $to, $outcome, $people, $transitions, $share, undef, @seconds) = split /\|/, $_, -1;
        delete $unseen{"$from|$to"};
        my $state = $outcome eq 'went_on' ? ($drawn{"$from|$to"} ? 'as_drawn' : 'undrawn') : $outcome eq 'lost' && !$goes_on{$from} ? 'ended' : $outcome;
        push @path, join '|', $from, $to, $state, $people, $transitions, $share, @seconds;
    }
    compare('paths', "$question: " . join(' ', sort keys %drawn),
        [ split /\n/, sql('SELECT ' . joined(qw(from_touchpoint to_touchpoint state contacts transitions share median_seconds p90_seconds)) . " FROM crm.map_path('m', $asked)") ],
        [ @path, map { "$_|unseen|0|0|||" } sort keys %unseen ]);

    # complaints are about the last visit before, or at the same time
    my %complaints;
    for my $angry (grep { $complains->($_) && $_->{at} >= $start && $_->{at} < $end && (!$persona || $_->{city} eq 'Shanghai') } @facts)
    {
        my ($last) = reverse grep { $_->{at} <= $angry->{at} } @{ $visits->{ $angry->{contact} } // [] };
        $complaints{ $last->{touchpoint} }++ if $last && $angry->{at} <= $last->{until};
    }
    my @expected;
    for my $name (@names)
    {
        my @here  = grep { $_->{touchpoint} eq $name && $_->{at} >= $start && $_->{at} < $end } map { @$_ } values %$visits;
        my @left  = grep { $_->{from} eq $name } @moves;
        my %count = map { my $outcome = $_; $outcome => scalar grep { $_->{outcome} eq $outcome } @left } qw(went_on lost still_open);
        push @expected, join '|', $name, scalar @here, scalar uniq(map { $_->{contact} } @here), @count{qw(went_on lost still_open)},
          $goes_on{$name} ? share($count{lost}, $count{lost} + $count{went_on}) : '', $complaints{$name} // 0, percentile(0.5, grep { defined } map { $_->{seconds} } @left);
    }
    compare('touchpoints', $question,
        [ split /\n/, sql('SELECT ' . joined(qw(touchpoint visits contacts went_on lost still_open loss complaints median_seconds)) . " FROM crm.map_touchpoint('m', $asked)") ], \@expected);
    $seen{complaints} += sum0 values %complaints;
    $seen{ $_->{outcome} }++ for @moves;
}

is($wrong{$_} // 0, 0, "$_: right in each of $asked{$_} questions") for qw(visits moves actions paths touchpoints);
cmp_ok($seen{$_} // 0, '>', $rounds / 2, "$_ are there") for qw(visits moves actions paths touchpoints went_on lost still_open);
cmp_ok($seen{complaints}, '>', $rounds, 'complaints are there');
cmp_ok(scalar(grep { $_ == 0 } @busy), '>', 5, 'and people with nothing');
is(sql('SELECT count(*) FROM crm.verify()'), '0', 'all is sound');

$node->stop;
done_testing();
