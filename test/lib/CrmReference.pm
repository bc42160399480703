# CrmReference - what crm derives from the facts, found a second time: slowly, in plain Perl, from
# section 3 of the design and nothing of the extension's code. It reads only what is recorded
# (contacts, identities, facts, definitions), so it can be asked after any history whatever,
# merges and definitions changed in between included.
#
#   use CrmReference;
#   my @differences = crm_differences(sub { $node->safe_psql('shop', $_[0]) });
#
# Amounts must have at most two decimals.
package CrmReference;

use strict;
use warnings;

use Exporter 'import';
use JSON::PP;
use List::Util qw(min max);

our @EXPORT = qw(crm_differences);

# the rules that tests use; s is the profile at that moment
my %stage_rules = (
    'true'                                           => sub { 1 },
    'followed_at IS NOT NULL'                        => sub { defined $_[0]{followed_at} },
    'mobile IS NOT NULL'                             => sub { defined $_[0]{mobile_at} },
    'scans > 0 AND mobile IS NOT NULL'               => sub { $_[0]{scans} > 0 && defined $_[0]{mobile_at} },
    'orders >= 1'                                    => sub { $_[0]{orders} >= 1 },
    'orders >= 5'                                    => sub { $_[0]{orders} >= 5 },
    'orders >= 3 AND spend < 150'                    => sub { $_[0]{orders} >= 3 && $_[0]{cents} < 15_000 },
    'events >= 4'                                    => sub { $_[0]{events} >= 4 });
my %amount_rules = ('fact.amount >= 100' => sub { $_[0] >= 10_000 });

sub rows
{
    my ($ask, $sql) = @_;
    return @{ decode_json($ask->("SELECT coalesce(json_agg(x), '[]') FROM ($sql) AS x")) };
}

sub usec { return "(extract(epoch FROM $_[0]) * 1000000)::bigint" }

# NULL references come last
sub by_order
{
    return $a->{at} <=> $b->{at}
      || !defined $a->{ref} <=> !defined $b->{ref}
      || ($a->{ref} // '') cmp($b->{ref} // '')
      || $a->{id} <=> $b->{id};
}

# at one instant: numbers, events, scans, orders, stages set by hand
my %place = (mobile => 0, event => 1, scan => 2, order => 3, refund => 4, set_stage => 5);

sub by_time
{
    return $a->{at} <=> $b->{at} || $place{ $a->{type} } <=> $place{ $b->{type} } || by_order();
}

sub one_contact
{
    my ($contact, $facts, $achievements, $stages) = @_;

    # orders less their refunds
    my %order = map { $_->{id} => $_ } grep { $_->{type} eq 'order' } @$facts;
    $_->{net} = $_->{cents} for values %order;
    for my $refund (grep { $_->{type} eq 'refund' } @$facts)
    {
        my $of = $order{ $refund->{refund_of} } or die "refund $refund->{id} of no order of its contact";
        $of->{net} -= $refund->{cents};
    }
    $_->{counts} = !($_->{cents} > 0 && $_->{net} == 0) for values %order;

    # the earliest scan of a code, campaign or store in a window counts; the zone is Asia/Shanghai
    my %first;
    for my $scan (sort { $a->{at} <=> $b->{at} || $a->{id} <=> $b->{id} } grep { $_->{type} eq 'scan' } @$facts)
    {
        my $start = $scan->{length} ? $scan->{at} - ($scan->{at} + 8 * 3_600_000_000) % $scan->{length} : '-infinity';
        $first{"$scan->{scope}|$start"} //= $scan;
    }
    $_->{counts} = 1 for values %first;

    # awards: the n-th of the facts that count, or the one that brings the sum there
    my @awards;
    for my $achievement (@$achievements)
    {
        my $kind = $achievement->{on_kind};
        my @some = sort by_order grep {
                $kind eq 'purchase' ? $_->{type} eq 'order' && $_->{counts}
              : $kind eq 'scan'     ? $_->{type} eq 'scan' && $_->{counts}
              : ($_->{type} eq 'event' || $_->{type} eq 'set_stage') && $_->{kind} eq $kind
        } @$facts;
        if (defined $achievement->{rule})
        {
            my $rule = $amount_rules{ $achievement->{rule} } or die "unknown rule $achievement->{rule}";
            @some = grep { $rule->($_->{net}) } @some;
        }
        for my $threshold (@{ $achievement->{thresholds} })
        {
            my $sum = 0;
            for my $fact (@some)
            {
                $sum += $achievement->{measure} eq 'count' ? 1 : $fact->{currency} eq 'CNY' ? $fact->{net} / 100 : 0;
                next if sprintf('%.2f', $sum) < $threshold;
                push @awards, { achievement => $achievement, row => join '|', $contact->{id}, $achievement->{name}, $threshold, $fact->{at}, $fact->{id} };
                last;
            }
        }
    }

    # the walk, state by state
    my %s = (orders => 0, cents => 0, refunds => 0, scans => 0, raw_scans => 0, events => 0, manual => 0);
    my (%following, @moves);
    my $begin = min($contact->{created_at}, map { $_->{at} } @$facts);
    my $decide = sub {
        my ($at, $reason, $set) = @_;
        my ($best)     = grep { $_->{ranked} && $_->{holds}->(\%s) } @$stages;
        my ($unranked) = grep { !$_->{ranked} && $_->{holds}->(\%s) } @$stages;
        $s{floor} = $best if $best && (!$s{floor} || $best->{rank} >= $s{floor}{rank} || $best->{allow_regress});
        my $by_rules = $unranked || $s{floor};
        my $to;
        if ($set)
        {
            $s{manual} = 1;
            $to = $set;
        }
        elsif (!$s{manual}) { $to = $by_rules }
        elsif ($by_rules
            && ($by_rules->{ranked}
                ? $s{stage}{ranked} && $by_rules->{rank} > $s{stage}{rank}
                : $s{stage}{ranked} || $by_rules->{position} < $s{stage}{position}))
        {
            $s{manual} = 0;
            $to = $by_rules;
        }
        return if !$to || $s{stage} && $s{stage} == $to;
        $s{stage} = $to;
        push @moves, { at => $at, stage => $to->{stage}, reason => $reason };
    };
    $decide->($begin, 'opening');
    for my $f (sort by_time @$facts)
    {
        my ($reason, $set) = ('rule');
        if ($f->{type} eq 'refund') { $s{refunds}++; next }
        if ($f->{type} eq 'mobile') { $s{mobile_at} = $f->{at} }
        else
        {
            $s{first_seen_at} //= $f->{at};
            $s{last_seen_at} = $f->{at};
        }
        if ($f->{type} eq 'order' && $f->{counts})
        {
            $s{orders}++;
            $s{cents} += $f->{net} if $f->{currency} eq 'CNY';
            $s{first_order_at} //= $f->{at};
            $s{last_order_at} = $f->{at};
        }
        elsif ($f->{type} eq 'scan')
        {
            $s{raw_scans}++;
            $s{scans}++ if $f->{counts};
        }
        elsif ($f->{type} eq 'event' || $f->{type} eq 'set_stage')
        {
            $s{events}++;
            $following{ $f->{account_id} // 0 } //= $f->{at} if $f->{kind} eq 'follow';
            delete $following{ $f->{account_id} // 0 } if $f->{kind} eq 'unfollow';
            $s{followed_at} = min(values %following);
        }
        if ($f->{type} eq 'set_stage')
        {
            $reason = defined $f->{reason} ? "manual: $f->{reason}" : 'manual';
            if (defined $f->{stage}) { ($set) = grep { $_->{stage} eq $f->{stage} } @$stages }
            else                     { $s{manual} = 0 }
        }
        $decide->($f->{at}, $reason, $set);
    }

    # what stands at the end of an instant is what was in it
    my (@history, $before);
    while (my $move = shift @moves)
    {
        next if @moves && $moves[0]{at} == $move->{at};
        next if defined $before && $before eq $move->{stage};
        push @history, join '|', $contact->{id}, $move->{at}, $move->{stage}, $move->{reason};
        $s{stage_since} = $move->{at};
        $before = $move->{stage};
    }

    my $profile = join '|', map { $_ // '' } $contact->{id}, $s{orders}, sprintf('%.2f', $s{cents} / 100), @s{qw(first_order_at last_order_at refunds scans raw_scans followed_at mobile_at events first_seen_at last_seen_at)},
      $s{stage}{stage}, $s{stage}{stage}, $s{stage_since}, $s{manual}, $s{floor} ? $s{floor}{stage} : '';
    return { profile => $profile, awards => \@awards, moves => \@history, scans => [ map { join '|', $contact->{id}, $_, $first{$_}{id}, $first{$_}{at} } keys %first ] };
}

sub compare
{
    my ($what, $got, $expected) = @_;
    my %n;
    $n{$_}++ for @$got;
    $n{$_}-- for @$expected;
    return map { ($n{$_} > 0 ? "$what not expected: " : "$what missing: ") . $_ } grep { $n{$_} } sort keys %n;
}

sub crm_differences
{
    my ($ask) = @_;
    my @achievements = rows($ask, 'SELECT name, on_kind, measure, thresholds, rule, revocable FROM crm.achievement');
    my @stages = rows($ask, 'SELECT s.stage, s.rank, r.rule, coalesce(r.allow_regress, false)::int AS allow_regress, coalesce(r.position, 0) AS position FROM crm.stage s LEFT JOIN crm.stage_rule r USING (stage)');
    for my $stage (@stages)
    {
        $stage->{ranked} = defined $stage->{rank};
        $stage->{holds} = defined $stage->{rule} ? $stage_rules{ $stage->{rule} } || die "unknown rule $stage->{rule}" : sub { 0 };
    }
    # from the highest rank; those outside the ranking by position, then by name
    @stages = sort { ($b->{rank} // 0) <=> ($a->{rank} // 0) || $a->{position} <=> $b->{position} || $a->{stage} cmp $b->{stage} } @stages;

    my %contact = map { $_->{id} => $_ } rows($ask, 'SELECT contact_id AS id, ' . usec('created_at') . ' AS created_at FROM crm.contact');
    my %facts;
    push @{ $facts{ $_->{contact_id} } }, { %$_, type => 'mobile', id => 0 }
      for rows($ask, 'SELECT contact_id, ' . usec('min(bound_at)') . q{ AS at FROM crm.identity WHERE kind = 'mobile' GROUP BY 1});
    push @{ $facts{ $_->{contact_id} } }, { %$_, type => $_->{kind} eq 'refund' ? 'refund' : 'order' }
      for rows($ask, 'SELECT contact_id, transaction_id AS id, kind, (amount * 100)::bigint AS cents, currency, ' . usec('occurred_at') . ' AS at, external_ref AS ref, refund_of FROM crm.transaction');
    push @{ $facts{ $_->{contact_id} } }, { %$_, type => $_->{kind} eq 'set_stage' ? 'set_stage' : 'event' }
      for rows($ask, 'SELECT contact_id, event_id AS id, kind, ' . usec('occurred_at') . q{ AS at, account_id, properties ->> 'stage' AS stage, properties ->> 'reason' AS reason FROM crm.event});
    push @{ $facts{ $_->{contact_id} } }, { %$_, type => 'scan' }
      for rows($ask, q{SELECT contact_id, scan_id AS id, dedup_scope || ' ' || CASE dedup_scope WHEN 'campaign' THEN campaign WHEN 'store' THEN store_id::text ELSE qr_code_id::text END AS scope, }
        . usec('dedup_window') . ' AS length, ' . usec('occurred_at') . ' AS at FROM crm.scan JOIN crm.qr_code USING (qr_code_id)');
    my @strangers = grep { !$contact{$_} } keys %facts;
    return "facts of contacts that do not exist: @strangers" if @strangers;

    my (@profiles, @awards, @kept, @moves, @scans);
    for my $id (keys %contact)
    {
        my $found = one_contact($contact{$id}, $facts{$id} || [], \@achievements, \@stages);
        push @profiles, $found->{profile};
        push @moves, @{ $found->{moves} };
        push @scans, @{ $found->{scans} };
        push @{ $_->{achievement}{revocable} ? \@awards : \@kept }, $_->{row} for @{ $found->{awards} };
    }

    my $stored = sub { return split /\n/, $ask->($_[0]) };
    my $award  = 'SELECT a.contact_id, a.achievement, trim_scale(a.threshold), ' . usec('a.awarded_at') . ', a.source_id FROM crm.award a LEFT JOIN crm.achievement d ON d.name = a.achievement WHERE a.revoked_at IS NULL AND ';
    # An award that is never taken back is there wherever it would be won, and perhaps elsewhere.
    my %kept = map { join('|', (split /\|/)[ 0 .. 2 ]) => 1 } $stored->("$award NOT d.revocable");
    return (
        compare('profile', [ $stored->('SELECT p.contact_id, p.orders, round(p.spend, 2), ' . join(', ', map { usec("p.$_") } 'first_order_at', 'last_order_at') . ', p.refunds, p.scans, p.raw_scans, ' . join(', ', map { usec("p.$_") } 'followed_at', 'mobile_at') . ', p.events, ' . join(', ', map { usec("p.$_") } 'first_seen_at', 'last_seen_at') . ', p.stage, c.stage, ' . usec('p.stage_since') . ', p.stage_manual::int, p.ranked_stage FROM crm.profile_counter p JOIN crm.contact c USING (contact_id)') ], \@profiles),
        compare('award', [ $stored->("$award d.revocable") ], \@awards),
        (map { "award missing: $_" } grep { !$kept{ join '|', (split /\|/)[ 0 .. 2 ] } } @kept),
        compare('stage', [ $stored->('SELECT contact_id, ' . usec('since') . ', stage, reason FROM crm.stage_move') ], \@moves),
        compare('scan', [ $stored->(q{SELECT contact_id, scope || ' ' || scope_id, CASE WHEN isfinite(window_start) THEN } . usec('window_start') . q{::text ELSE window_start::text END, scan_id, } . usec('occurred_at') . q{ FROM crm.first_scan}) ], \@scans));
}

1;
