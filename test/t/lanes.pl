# Three ways to the same end: random facts in batches, written directly or by the executor, and
# in another order one by one. Counters, live awards and stages are the same, and those of orders
# are what plain SQL makes of them.
#
# CRM_SEED=n repeats a run.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use List::Util qw(shuffle min);
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = defined $ENV{CRM_SEED} ? $ENV{CRM_SEED} : int(rand(1_000_000));
srand($seed);
diag("CRM_SEED=$seed");

my $dir      = PostgreSQL::Test::Utils::tempdir();
my $node     = crm_node('lanes');
my $contacts = $ENV{CRM_CONTACTS} || 200;
my $facts    = $ENV{CRM_FACTS} || 6000;

sub pick { return $_[ int(rand(@_)) ] }

sub quoted { return defined $_[0] ? "'$_[0]'" : 'NULL' }

# time of the n-th fact as it comes in
sub at
{
    my ($n) = @_;
    return sprintf "2023-01-01Z'::timestamptz + '%d min", $n * 10;
}

# ---- facts, in the order in which they happen to come in: 20 in 100 late, 10 in 100 at the very
# time of another one of their contact
sub random_facts
{
    my (@facts, %times, @open);
    my %reference;
    for my $n (1 .. $facts)
    {
        my $c    = 1 + int(rand($contacts));
        my $luck = rand();
        my $at   = $luck < 0.2 ? at(rand($n + 500) - 500) : $luck < 0.3 && $times{$c} ? pick(@{ $times{$c} }) : at($n);
        my %fact = (n => $n, c => $c, at => $at, table => 'event', account => undef, properties => '{}');
        my $what = rand();
        if ($what < 0.42)
        {
            %fact = (%fact, table => 'transaction', kind => 'purchase', currency => rand() < 0.1 ? 'USD' : 'CNY');
            $fact{cents} = rand() < 0.1 ? 0 : 1 + int(rand(20_000));
            $fact{ref} = pick('a', 'B', 'b', '9', '10') . $n if rand() < 0.8;
            $fact{left} = $fact{cents};
            push @open, \%fact if $fact{cents};
        }
        elsif ($what < 0.55 && @open)
        {
            my $order = pick(@open);
            my $cents = rand() < 0.5 ? $order->{left} : 1 + int(rand($order->{left}));
            $order->{left} -= $cents;
            @open = grep { $_->{left} } @open;
            %fact = (%fact, c => $order->{c}, table => 'transaction', kind => 'refund', cents => $cents, order => $order, currency => $order->{currency});
            $fact{ref} = "r$n" if rand() < 0.5;
        }
        elsif ($what < 0.64) { $fact{kind} = 'cart' }
        elsif ($what < 0.69) { $fact{kind} = pick('page', 'form') }
        elsif ($what < 0.75) { @fact{ 'kind', 'account' } = ('follow',   pick(1, 2)) }
        elsif ($what < 0.79) { @fact{ 'kind', 'account' } = ('unfollow', pick(1, 2)) }
        elsif ($what < 0.96)
        {
            # by a fifth of the contacts, so that many repeat
            @fact{ 'table', 'c', 'code' } = ('scan', 1 + 5 * int(rand($contacts / 5)), pick(1 .. 6));
        }
        else
        {
            my $stage = pick('user', 'lead', 'intent', 'paying', 'other', undef, undef);
            $fact{kind} = 'set_stage';
            $fact{properties} = defined $stage ? qq({"stage": "$stage", "reason": "by hand $n"}) : '{"stage": null}';
        }
        push @{ $times{ $fact{c} } }, $fact{at};
        push @facts, \%fact;
    }
    return @facts;
}

# the statements that record some facts, those of a table in one; ids are given, so that they are
# the same whatever the order
sub statements
{
    my (@some) = @_;
    my %values;
    for my $f (@some)
    {
        my $row =
          $f->{table} eq 'scan' ? "$f->{code}"
          : $f->{table} eq 'event' ? join(', ', quoted($f->{kind}), $f->{account} // 'NULL', quoted($f->{properties}))
          : join(', ', quoted($f->{kind}), sprintf('%.2f', $f->{cents} / 100), quoted($f->{currency}), quoted($f->{ref}), $f->{order} ? $f->{order}{n} : 'NULL::bigint');
        push @{ $values{ $f->{table} } }, "($f->{c}, $f->{n}, '$f->{at}', $row)";
    }
    my %columns = (
        transaction => 'transaction_id, occurred_at, kind, amount, currency, external_ref, refund_of',
        event       => 'event_id, occurred_at, kind, account_id, properties',
        scan        => 'scan_id, occurred_at, qr_code_id');
    return map { "INSERT INTO crm.$_ (contact_id, $columns{$_}) VALUES " . join(', ', @{ $values{$_} }) . ";\n" } sort keys %values;
}

sub batches
{
    my @left = @_;
    my $text = '';
    while (@left)
    {
        my @statements = statements(splice @left, 0, rand() < 0.3 ? 1 : 1 + int(rand(60)));
        $text .= rand() < 0.2 ? join('', "BEGIN;\n", @statements, "COMMIT;\n") : join('', @statements);
    }
    return $text;
}

# another order; only refunds stay behind their orders
sub singles
{
    my @facts = shuffle @_;
    my (%place, $text);
    $place{ $facts[$_]{n} } = $_ for 0 .. $#facts;
    my %late;
    my $known = sub { my ($f) = @_; return !$f->{order} || $place{ $f->{order}{n} } < $place{ $f->{n} } };
    push @{ $late{ $_->{order}{n} } }, $_ for grep { !$known->($_) } @facts;
    for my $f (grep { $known->($_) } @facts)
    {
        $text .= join '', statements($f);
        $text .= join '', statements($_) for @{ $late{ $f->{n} } || [] };
    }
    return $text;
}

sub sorted
{
    my ($db, $sql) = @_;
    return [ sort split /\n/, $node->safe_psql($db, $sql) ];
}

sub same
{
    my ($got, $expected, $name) = @_;
    my %count;
    $count{$_}++ for @$got;
    $count{$_}-- for @$expected;
    my @more = sort grep { $count{$_} > 0 } keys %count;
    my @less = sort grep { $count{$_} < 0 } keys %count;
    ok(!@more && !@less && @$expected, sprintf '%s (%d rows)', $name, scalar @$expected)
      or diag(join "\n", "CRM_SEED=$seed", scalar(@more) . ' not expected:', @more[ 0 .. min(9, $#more) ],
        scalar(@less) . ' missing:', @less[ 0 .. min(9, $#less) ]);
}

# the scale of a sum tells which orders it went over, not how much it is
my $counters = q{SELECT to_jsonb(p) - 'spend', trim_scale(spend), c.stage FROM crm.profile_counter p JOIN crm.contact c USING (contact_id)};
my $live     = 'SELECT contact_id, achievement, threshold, awarded_at FROM crm.award WHERE revoked_at IS NULL';
my $awards   = 'SELECT contact_id, achievement, threshold, awarded_at, source_id, revoked_at FROM crm.award';
my $changes  = 'SELECT contact_id, achievement, threshold, change, old_awarded_at, new_awarded_at, occurred_at FROM crm.award_change';
my $moves    = 'SELECT * FROM crm.stage_move';
my $scans    = 'SELECT * FROM crm.first_scan';
my $sources  = 'SELECT * FROM crm.acquisition';
my $flags    = 'SELECT * FROM crm.scan_flag';

# net amounts at the orders' times, in plain SQL
my $walk = q{WITH net AS (
    SELECT o.*, o.amount - coalesce((SELECT sum(r.amount) FROM crm.transaction r WHERE r.contact_id = o.contact_id AND r.refund_of = o.transaction_id), 0) AS net
      FROM crm.transaction o WHERE o.kind = 'purchase'
), counted AS (
    SELECT *, CASE currency WHEN 'CNY' THEN net ELSE 0 END AS value FROM net WHERE NOT (amount > 0 AND net = 0)
), running AS (
    SELECT *, count(*) OVER w AS nth, sum(value) OVER w AS spent, sum(value) OVER w - value AS before FROM counted
    WINDOW w AS (PARTITION BY contact_id ORDER BY occurred_at, external_ref COLLATE "C" NULLS LAST, transaction_id ROWS UNBOUNDED PRECEDING)
) };
my $true_awards = $walk . q{SELECT contact_id, name, threshold, occurred_at, transaction_id
    FROM running JOIN (SELECT name, measure, unnest(thresholds) AS threshold FROM crm.achievement WHERE on_kind = 'purchase' AND rule IS NULL) a
      ON CASE measure WHEN 'count' THEN nth = threshold ELSE before < threshold AND threshold <= spent END};
my $purchase_awards = q{SELECT contact_id, achievement, threshold, awarded_at, source_id FROM crm.award
    WHERE revoked_at IS NULL AND achievement IN (SELECT name FROM crm.achievement WHERE on_kind = 'purchase' AND rule IS NULL)};
my $true_counters = $walk . q{SELECT contact_id, count(transaction_id), trim_scale(coalesce(sum(value), 0)), min(occurred_at), max(occurred_at),
        (SELECT count(*) FROM crm.transaction r WHERE r.contact_id = c.contact_id AND r.kind = 'refund'),
        (SELECT count(*) FROM crm.event e WHERE e.contact_id = c.contact_id),
        (SELECT count(*) FROM crm.scan s WHERE s.contact_id = c.contact_id),
        (SELECT count(DISTINCT CASE WHEN qr_code_id <= 2 THEN qr_code_id::text
                                    WHEN qr_code_id <= 4 THEN 'spring ' || date_trunc('day', occurred_at AT TIME ZONE 'Asia/Shanghai')
                                    ELSE 'shop ' || date_bin('6 hours', occurred_at, '1970-01-01 00:00+08') END)
           FROM crm.scan s WHERE s.contact_id = c.contact_id)
    FROM crm.contact c LEFT JOIN running USING (contact_id) GROUP BY 1};
my $some_counters = 'SELECT contact_id, orders, trim_scale(spend), first_order_at, last_order_at, refunds, events, raw_scans, scans FROM crm.profile_counter';

# ---- a third of the contacts is known before the first fact, a third comes to be known in
# between, a third has been known all along when the last fact has happened; half has a mobile
my %definitions = (
    shipped => '',
    own     => q{
        SELECT crm.define_stage_rule('{"stage": "intent", "rule": "events >= 4"}');
        SELECT crm.define_stage_rule('{"stage": "lead", "rule": "followed_at IS NOT NULL", "allow_regress": true}');
        INSERT INTO crm.stage (stage) VALUES ('heavy');
        SELECT crm.define_stage_rule('{"stage": "heavy", "rule": "spend >= 700 AND orders < 9", "position": 1}');
        SELECT crm.define_achievement('{"name": "large", "on_kind": "purchase", "thresholds": [1, 2], "rule": "fact.amount >= 100"}');
        SELECT crm.define_scan_limit('{"name": "hasty", "per": ["contact"], "max_scans": 1, "period": "1 day"}');
    });

for my $rules (sort keys %definitions)
{
    my $base = crm_database($node, "${rules}_base");
    $node->safe_psql($base, qq{
        INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2022-12-01Z'::timestamptz + n % 3 * interval '25 days' FROM generate_series(1, $contacts) AS n;
        INSERT INTO crm.identity (kind, external_id, contact_id, bound_at)
        SELECT 'mobile', '+86138' || 10000000 + n, n, '2022-12-10Z'::timestamptz + n * interval '6 hours' FROM generate_series(1, $contacts, 2) AS n;
        INSERT INTO crm.account (kind, name) VALUES ('official_account', 'one'), ('mini_program', 'two');
        INSERT INTO crm.store (name) VALUES ('shop');
        INSERT INTO crm.qr_code (account_id, scene, campaign, store_id, dedup_scope, dedup_window)
        VALUES (1, 'banner', NULL, NULL, 'code', NULL), (2, 'door', 'spring', 1, 'code', NULL),
               (1, 'tram', 'spring', NULL, 'campaign', '1 day'), (2, 'bus', 'spring', 1, 'campaign', '1 day'),
               (1, 'till', NULL, 1, 'store', '6 hours'), (2, 'shelf', 'autumn', 1, 'store', '6 hours');
        SELECT crm.define_achievement('{"name": "scans", "on_kind": "scan", "thresholds": [2, 5, 10]}');
        SELECT crm.define_achievement('{"name": "carts", "on_kind": "cart", "thresholds": [1, 3, 10]}');
        $definitions{$rules}});

    my @facts  = random_facts();
    my $batches = batches(@facts);
    my %load = (direct => $batches, general => $batches, single => singles(@facts));
    my @dbs  = map { "${rules}_$_" } 'direct', 'general', 'single';
    for my $db (@dbs)
    {
        $node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE $base");
        $node->safe_psql('postgres', "ALTER DATABASE $db SET pg_crm.clock = '2024-01-01Z'");
        $node->safe_psql('postgres', "ALTER DATABASE $db SET pg_crm.direct_access = off") if $db =~ /general/;
        is($node->safe_psql($db, 'SHOW pg_crm.direct_access'), $db =~ /general/ ? 'off' : 'on', "$db: direct access");
        append_to_file("$dir/$db.sql", $load{ $db =~ s/.*_//r });
        my ($out, $err) = run_command([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($db), '-f', "$dir/$db.sql" ]);
        is($err, '', "$db is loaded");
        is($node->safe_psql($db, 'SELECT (SELECT count(*) FROM crm.transaction) + (SELECT count(*) FROM crm.event) + (SELECT count(*) FROM crm.scan)'), $facts, "$db: all facts");
        same(sorted($db, $purchase_awards), sorted($db, $true_awards),   "$db: awards for orders are those of plain SQL");
        same(sorted($db, $some_counters),   sorted($db, $true_counters), "$db: counters are those of plain SQL");
        is($node->safe_psql($db, 'SELECT * FROM crm.verify()'), '', "$db: verify() finds nothing");
    }
    my ($direct, $general, $single) = @dbs;
    for my $db ($general, $single)
    {
        same(sorted($db, $counters), sorted($direct, $counters), "$db: all counters as in $direct");
        same(sorted($db, $live),     sorted($direct, $live),     "$db: live awards");
        same(sorted($db, $moves),    sorted($direct, $moves),    "$db: stage moves");
        same(sorted($db, $scans),    sorted($direct, $scans),    "$db: scans that count");
    }
    same(sorted($general, $awards),  sorted($direct, $awards),  "$general: awards with those revoked");
    same(sorted($general, $changes), sorted($direct, $changes), "$general: what happened to awards");
    same(sorted($general, $sources), sorted($direct, $sources), "$general: by what contacts were won");
    same(sorted($general, $flags),   sorted($direct, $flags),   "$general: scans that came too fast") if $rules eq 'own';

    # what would make the test an empty one
    my $n = sub { return $node->safe_psql($direct, "SELECT count(*) FROM $_[0]") };
    cmp_ok($n->("crm.award_change WHERE change = '$_'"), '>', 20, "awards $_") for 'moved', 'revoked', 'regranted';
    cmp_ok($n->("crm.award WHERE achievement = '$_' AND revoked_at IS NULL"), '>', 20, "awards: $_") for 'carts', 'follow', 'first_scan', 'scans', 'spend_milestone', $rules eq 'own' ? 'large' : ();
    cmp_ok($n->("crm.stage_move WHERE reason LIKE '$_%'"), '>', 50, "moves: $_") for 'rule', 'manual: ', 'opening';
    cmp_ok($n->('crm.scan') - $n->('crm.first_scan'), '>', 200, 'scans that do not count');
    cmp_ok($n->("crm.stage_move WHERE stage = 'heavy'"), '>', 20, 'moves to the stage outside the ranking') if $rules eq 'own';
}

$node->stop;
done_testing();
