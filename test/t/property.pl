# Whatever is recorded, in whatever way: what is derived is what CrmReference finds a second time
# from the facts alone.
#
# First one client does everything, twice: written directly and by the executor. Orders, refunds,
# events, scans, stages by hand, in rows, batches and by functions, late and early, many at one
# instant; statements that fail and are rolled back to a savepoint; contacts that are merged and
# parted; definitions that change on the way. Both databases end with the same rows. Then four
# clients go on at once, statement by statement.
#
# CRM_SEED=n repeats the first part of a run; CRM_FACTS=n, CRM_ROUNDS=n say how much of it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmReference;
use CrmTest;
use IPC::Run;
use List::Util qw(min sum0);
use PostgreSQL::Test::Utils;
use Test::More;

my $seed   = $ENV{CRM_SEED}   // int(rand(1_000_000));
my $facts  = $ENV{CRM_FACTS}  // 10_000;
my $rounds = $ENV{CRM_ROUNDS} // 1;
my $contacts = 250;
my $dir      = PostgreSQL::Test::Utils::tempdir();
my $node     = crm_node('property', conf => "max_connections = 20\n");

sub pick { return $_[ int(rand(@_)) ] }
sub who  { return 1 + int(rand($contacts)) }

# ---- random statements; $n counts facts and is the clock by which most of them come in order
my ($n, $ref);

# some late ones, and some in their turn, at one of few instants
sub at
{
    my $luck = rand();
    my $hour = $luck < 0.6 ? $n / 60 : rand($n / 60 + 200) - 200;
    $hour = 24 * int($hour / 24) if $luck > 0.5 && $luck < 0.8;
    return sprintf "'2023-01-01Z'::timestamptz + %.4f * interval '1 hour'", $hour;
}

sub amount { return rand() < 0.1 ? 0 : rand() < 0.1 ? 100 : sprintf '%.2f', rand(pick(30, 300)) }
sub text   { return defined $_[0] ? "'$_[0]'" : 'NULL' }

# an order number; letters sort apart in other collations than "C", and some are used twice
sub reference
{
    return undef if rand() < 0.2;
    return pick('a', 'B', 'b', '9', '10') . ($ref > 10 && rand() < 0.03 ? int(rand($ref)) : ++$ref);
}

my $stages = q{'user', 'lead', 'intent', 'loyal', 'other'};
my %row = (
    transaction => sub { sprintf '(%d, %s, %s, %s, %s)', who(), amount(), pick(("'CNY'") x 9, "'USD'"), at(), text(reference()) },
    event       => sub {
        my $kind = pick(qw(cart cart cart page page form follow follow unfollow set_stage));
        my $what = $kind ne 'set_stage' ? '{}' : rand() < 0.3 ? '{"stage": null}' : sprintf '{"stage": "%s", "reason": "n%d"}', pick(qw(user lead intent loyal other)), $n;
        return sprintf "(%d, '%s', %s, %s, '%s'::jsonb)", who(), $kind, at(), $kind =~ /follow/ ? pick(1, 2, 'NULL::bigint') : 'NULL::bigint', $what;
    },
    scan => sub { sprintf '(%d, %d, %s)', who(), pick(1, 2, 3), at() });
my %columns = (
    transaction => 'contact_id, amount, currency, occurred_at, external_ref',
    event       => 'contact_id, kind, occurred_at, account_id, properties',
    scan        => 'contact_id, qr_code_id, occurred_at');

# rows of one table in one statement; those of contacts merged away are left out, or refused
sub rows_of
{
    my ($table, $size) = @_;
    my @values = map { $n++; $row{$table}->() } 1 .. $size;
    my $rows   = 'VALUES ' . join ', ', @values;
    # in the order given, so that they get the same ids in every database
    $rows = "SELECT $columns{$table} FROM (VALUES " . join(', ', map { $values[$_] =~ s/\)\z/, $_)/r } 0 .. $#values)
      . ") AS v($columns{$table}, place) WHERE contact_id IN (SELECT contact_id FROM crm.contact) ORDER BY place"
      if $size > 1 || rand() < 0.5;
    my $conflict = $table eq 'transaction' && ($size > 1 || rand() < 0.5) ? ' ON CONFLICT DO NOTHING' : '';
    return "INSERT INTO crm.$table ($columns{$table}) $rows$conflict;\n";
}

sub copied
{
    my ($size) = @_;
    my $lines = join '', map { $n++; sprintf "%d\t%s\t%s\t\\N\n", who(), sprintf('2023-01-01 00:00:00Z'), amount() } 1 .. $size;
    # COPY knows no ON CONFLICT and no join: a table of one's own takes the rows first
    return "CREATE TEMP TABLE IF NOT EXISTS came (contact_id bigint, occurred_at timestamptz, amount numeric, ref text);\nTRUNCATE came;\nCOPY came FROM stdin;\n$lines\\.\n"
      . "INSERT INTO crm.transaction (contact_id, occurred_at, amount) SELECT contact_id, occurred_at + contact_id * interval '3 days', amount FROM came WHERE contact_id IN (SELECT contact_id FROM crm.contact) ORDER BY contact_id, amount;\n";
}

# refunds of orders that the database chooses: all that is left, a part, or a little too much
sub refunds
{
    my ($size, $share) = (pick(1, 1, 2, 10), pick(1, 1, 0.5, 0.25));
    my $from = who();
    my $too_much = rand() < 0.05 ? 0.01 : 0;
    $n += $size;
    return sprintf q{INSERT INTO crm.transaction (contact_id, kind, amount, currency, occurred_at, external_ref, refund_of)
SELECT o.contact_id, 'refund', round(o.left * %s, 2) + %s, o.currency, %s + (o.transaction_id %% 3 - 1) * interval '90 days', %s, o.transaction_id
  FROM (SELECT t.*, t.amount - coalesce((SELECT sum(r.amount) FROM crm.transaction r WHERE r.contact_id = t.contact_id AND r.refund_of = t.transaction_id), 0) AS left
          FROM crm.transaction t WHERE t.kind = 'purchase' AND t.amount > 0 AND t.contact_id BETWEEN %d AND %d) AS o
 WHERE round(o.left * %s, 2) > 0 ORDER BY hashint8(o.transaction_id + %d), o.transaction_id LIMIT %d;
}, $share, $too_much, at(), rand() < 0.5 ? "'r$n-' || o.transaction_id" : 'NULL', $from, $from + 7, $share, rand(1_000_000), $size;
}

my @calls = (
    sub { sprintf 'SELECT crm.purchase(%d, %s, %s, %s);', who(), amount(), at(), text(reference()) },
    sub { sprintf 'SELECT crm.purchase(%d, %s, %s, %s);', who(), amount(), at(), text(reference()) },
    sub { sprintf "SELECT crm.track(%d, '%s', '{}', %s, %s);", who(), pick('cart', 'page'), at(), rand() < 0.3 ? "'k" . int(rand(500)) . "'" : 'NULL' },
    sub { sprintf "SELECT crm.follow('%s', 'o%d', %s, %s);", pick('oa', 'mini'), who(), at(), pick('NULL', "'banner'") },
    sub { sprintf "SELECT crm.unfollow('%s', 'o%d', %s);", pick('oa', 'mini'), who(), at() },
    sub { sprintf "SELECT crm.scan('banner', 'oa', 'o%d', %s, %s);", who(), at(), rand() < 0.5 ? "'s" . int(rand(200)) . "'" : 'NULL' },
    sub { sprintf 'SELECT crm.set_stage(%d, %s, %s);', who(), pick("'intent'", "'user'", "'other'", 'NULL'), "'by hand $n'" },
    sub { sprintf "SELECT crm.join_loyalty(%d, 'club', %s);", who(), at() },
    sub { sprintf "SELECT crm.bind_mobile(%d, '1380%07d', %s);", who(), rand(60), at() },
    sub { sprintf "SELECT crm.identify('%s', '1390%07d');", 'mobile', rand(80) },
    sub { sprintf "SELECT crm.identify('oa', 'o%d', 'union%d');", who(), rand(150) });

sub merging
{
    return rand() < 0.4 ? sprintf("SELECT crm.merge(%d, %d);\n", who(), who())
      : sprintf "SELECT crm.unmerge(other) FROM (SELECT other FROM crm.merge_ledger WHERE unmerged_at IS NULL ORDER BY merge_id DESC LIMIT 1 OFFSET %d) AS x;\n", rand(2);
}

my @definitions = (
    q{SELECT crm.define_achievement('{"name": "pages", "on_kind": "page", "thresholds": [2, 5]}')},
    q{SELECT crm.define_achievement('{"name": "carts", "on_kind": "cart", "thresholds": [1, 4, 12]}')},
    q{SELECT crm.define_achievement('{"name": "carts", "on_kind": "cart", "thresholds": [1, 3, 10]}')},
    q{DELETE FROM crm.achievement WHERE name = 'pages'},
    q{SELECT crm.define_achievement('{"name": "large", "on_kind": "purchase", "thresholds": [1, 3], "rule": "fact.amount >= 100"}')},
    q{SELECT crm.define_achievement('{"name": "large", "on_kind": "purchase", "thresholds": [1, 2], "rule": "fact.amount >= 100"}')},
    q{DELETE FROM crm.achievement WHERE name = 'large'},
    q{SELECT crm.define_achievement('{"name": "kept", "on_kind": "purchase", "measure": "amount", "thresholds": [150], "revocable": false}')},
    q{SELECT crm.define_stage_rule('{"stage": "intent", "rule": "events >= 4"}')},
    q{DELETE FROM crm.stage_rule WHERE stage = 'intent'},
    q{SELECT crm.define_stage_rule('{"stage": "lead", "rule": "followed_at IS NOT NULL", "allow_regress": true}')},
    q{SELECT crm.define_stage_rule('{"stage": "lead", "rule": "followed_at IS NOT NULL", "allow_regress": false}')},
    q{SELECT crm.define_stage_rule('{"stage": "paying", "rule": "orders >= 1", "allow_regress": true}')},
    q{SELECT crm.define_stage_rule('{"stage": "odd", "rule": "orders >= 3 AND spend < 150", "position": 2}')},
    q{DELETE FROM crm.stage_rule WHERE stage = 'odd'});

# what one client at a time may do: fail and go on
sub broken { return pick('INSERT INTO crm.transaction (contact_id, amount) VALUES (1, -1)', 'INSERT INTO crm.event (contact_id, kind) VALUES (1, \'cart\'), (999999, \'cart\')', 'INSERT INTO crm.scan (contact_id, qr_code_id) VALUES (1, 1), (2, 99)', 'DELETE FROM crm.event', "SELECT crm.refund(1, 'no such order', 1)", 'SELECT crm.merge(1, 999999)') }

sub block
{
    my $one = sub { my $text = single(); return $text };
    my $text = "BEGIN;\n";
    for (1 .. 1 + int(rand(3)))
    {
        $text .= 'SAVEPOINT s;' . "\n" . $one->() . pick("ROLLBACK TO s;\n", broken() . ";\nROLLBACK TO s;\n", broken() . ";\nROLLBACK TO s;\nRELEASE s;\n") if rand() < 0.7;
        # one that fails would end the block
        $text .= "SAVEPOINT t;\n" . $one->() . "\\if :ERROR\nROLLBACK TO t;\n\\endif\n";
    }
    return $text . pick(('COMMIT') x 4, 'ROLLBACK') . ";\n";
}

sub caught
{
    my $statement = single();
    chomp $statement;
    $statement =~ s/;\z//;
    $statement =~ s/\ASELECT/PERFORM/;
    return "DO \$do\$ BEGIN BEGIN $statement; " . pick('', broken() =~ s/\ASELECT/PERFORM/r . ';') . " EXCEPTION WHEN OTHERS THEN NULL; END; $statement; EXCEPTION WHEN OTHERS THEN NULL; END \$do\$;\n";
}

# a statement that may stand alone
sub single
{
    my $luck = rand();
    return $luck < 0.3 ? rows_of(pick('transaction', 'transaction', 'event', 'scan'), 1)
      : $luck < 0.4 ? rows_of(pick('transaction', 'transaction', 'event', 'scan'), 1 + int(rand(50)))
      : $luck < 0.5 ? refunds()
      :               do { $n++; pick(@calls)->() . "\n" };
}

sub statements
{
    my ($until, $alone) = @_;
    my $text = '';
    while ($n < $until)
    {
        my $luck = rand();
        $text .= $luck < 0.012 ? merging()
          : $luck < 0.016          ? pick(@definitions) . ";\n"
          : !$alone                ? single()
          : $luck < 0.05           ? block()
          : $luck < 0.07           ? caught()
          : $luck < 0.08           ? copied(1 + int(rand(100)))
          : $luck < 0.085          ? "SELECT crm.recompute();\n"
          : $luck < 0.09           ? sprintf("INSERT INTO crm.contact (created_at, mobile) VALUES (%s, '1390%07d');\n", at(), rand(80))
          : $luck < 0.1            ? sprintf("INSERT INTO crm.identity (kind, external_id, contact_id, bound_at) VALUES ('mobile', '+861390%07d', %d, %s);\n", rand(80), who(), at())
          :                          single();
    }
    return $text;
}

# ---- to the server; refusals that are meant, by SQLSTATE
my $meant = qr/23503|23505|23514|55000|22023/;
my $settings = "\\set QUIET on\n\\set VERBOSITY sqlstate\nSET client_min_messages = error;\n";

sub begin
{
    my ($db, $text) = @_;
    my $file = "$dir/" . int(rand(1_000_000_000)) . '.sql';
    append_to_file($file, $settings . $text);
    my ($out, $err) = ('', '');
    return { file => $file, err => \$err, run => IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr($db), '-f', $file ], '<', \undef, '>', \$out, '2>', \$err) };
}

sub finish
{
    my ($name, $also, @runs) = @_;
    my (%refused, @bad);
    for my $run (@runs)
    {
        $run->{run}->finish;
        for my $line (split /\n/, ${ $run->{err} })
        {
            if    ($line =~ /ERROR:  ($meant)$/)     { $refused{$1}++ }
            elsif ($also && $line =~ /ERROR:  $also$/) { $refused{also}++ }
            else                                     { push @bad, $line }
        }
    }
    is(join("\n", @bad[ 0 .. min(9, $#bad) ]), '', "$name: no error but refusals");
    diag("$name: refused " . join(', ', map { "$_ $refused{$_} times" } sort keys %refused));
}

sub right
{
    my ($db) = @_;
    my @differences = crm_differences(sub { $node->safe_psql($db, $_[0]) });
    is(scalar @differences, 0, "$db: all is as found a second time") or diag(join "\n", "CRM_SEED=$seed", @differences[ 0 .. min(9, $#differences) ]);
    is($node->safe_psql($db, 'SELECT * FROM crm.verify()'), '', "$db: verify() finds nothing");
}

my @derived = (
    'SELECT * FROM crm.profile_counter', 'SELECT contact_id, stage, mobile FROM crm.contact', 'SELECT * FROM crm.first_scan', 'SELECT * FROM crm.stage_move',
    'SELECT contact_id, source, source_id, qr_code_id, occurred_at FROM crm.acquisition',
    'SELECT contact_id, achievement, threshold, awarded_at, source_id, revoked_at FROM crm.award',
    'SELECT contact_id, achievement, threshold, change, old_awarded_at, new_awarded_at, occurred_at FROM crm.award_change',
    'SELECT * FROM crm.point_balance',
    'SELECT contact_id, transaction_id, kind, amount, occurred_at, external_ref, refund_of FROM crm.transaction');

for my $round (1 .. $rounds)
{
    srand($seed);
    diag("CRM_SEED=$seed CRM_FACTS=$facts");
    ($n, $ref) = (0, 0);
    my $base = crm_database($node, "base$round");
    $node->safe_psql($base, qq{
        INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2022-12-20Z'::timestamptz + n % 50 * interval '1 day' FROM generate_series(1, $contacts) AS n;
        INSERT INTO crm.account (kind, name) VALUES ('official_account', 'oa'), ('mini_program', 'mini');
        INSERT INTO crm.identity (kind, account_id, external_id, contact_id) SELECT 'openid', a, 'o' || n, n FROM generate_series(1, $contacts) AS n, generate_series(1, 2) AS a;
        INSERT INTO crm.qr_code (account_id, scene) VALUES (1, 'banner');
        INSERT INTO crm.qr_code (account_id, scene, campaign, dedup_scope, dedup_window) VALUES (1, 'door', 'spring', 'campaign', '1 day'), (2, 'shelf', 'spring', 'campaign', '1 day');
        INSERT INTO crm.loyalty_program (name) VALUES ('club');
        INSERT INTO crm.tier (program, tier, rank, threshold, period) VALUES ('club', 'silver', 1, 10, '1 month'), ('club', 'gold', 2, 500, NULL);
        INSERT INTO crm.earning_rule (name, program, on_kind, per_amount, rule) VALUES ('yuan', 'club', 'purchase', 3, NULL),
            ('large', 'club', 'purchase', NULL, 'fact.amount >= 50'), ('cart', 'club', 'cart', NULL, NULL), ('scan', 'club', 'scan', NULL, NULL);
        INSERT INTO crm.stage (stage) VALUES ('odd');
        SELECT crm.define_achievement('{"name": "carts", "on_kind": "cart", "thresholds": [1, 3, 10]}')});

    my @dbs = ("direct$round", "general$round");
    my $text = statements($facts, 1);
    for my $db (@dbs)
    {
        $node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE $base");
        $node->safe_psql('postgres', "ALTER DATABASE $db SET pg_crm.clock = '2026-01-01Z'");
        $node->safe_psql('postgres', "ALTER DATABASE $db SET pg_crm.direct_access = off") if $db =~ /general/;
    }
    # what is tried in a block that has failed is refused as such
    my $failed = qr/25P02|42501|25P01|3B001/;
    finish("one client of $_", $failed, begin($_, $text)) for @dbs;
    right($_) for @dbs;
    for my $sql (@derived)
    {
        my @rows = map { join "\n", sort split /\n/, $node->safe_psql($_, $sql) } @dbs;
        ok($rows[0] eq $rows[1] && $rows[0] =~ /\n/, sprintf '%s: equal, %d rows', $sql =~ s/.*FROM //r, $rows[0] =~ tr/\n// + 1);
    }

    # what would make all of that empty
    my $count = sub { return $node->safe_psql($dbs[0], "SELECT count(*) FROM $_[0]") };
    cmp_ok($count->('crm.transaction'), '>', $facts / 10, 'orders');
    cmp_ok($count->("crm.transaction WHERE kind = 'refund'"), '>', $facts / 200, 'refunds');
    cmp_ok($count->("crm.award_change WHERE change = '$_'"), '>', 20, "awards $_") for 'moved', 'revoked', 'regranted';
    cmp_ok($count->('crm.merge_ledger'), '>', 2, 'merges');
    cmp_ok($count->("crm.point_entry WHERE kind = '$_'"), '>', 20, "points $_") for 'earned', 'reversed';
    cmp_ok($count->('crm.merge_ledger WHERE unmerged_at IS NOT NULL'), '>', $facts / 10_000 - 1, 'some undone');
    cmp_ok($count->('crm.definition_log'), '>', $facts / 2000, 'definitions');
    cmp_ok($count->('crm.stage_move'), '>', 2 * $contacts, 'stage moves');

    # ---- four at once
    my $start = $n;
    my @texts = map { $n = $start; statements($start + $facts / 16) } 1 .. 4;
    finish("four clients of $dbs[0]", undef, map { begin($dbs[0], $_) } @texts);
    right($dbs[0]);

    $node->safe_psql('postgres', "DROP DATABASE $_") for @dbs, $base;
    $seed++;
}
is(join("\n", grep { /deadlock detected|PANIC|terminated by signal|XX000|XX001/ } split /\n/, slurp_file($node->logfile)), '', 'no deadlock in the log, nor worse');

$node->stop;
done_testing();
