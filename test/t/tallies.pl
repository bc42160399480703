# days counted as facts come in: what is rolled up and what is not yet come to the exact rows, at every
# moment, whatever comes late, is refunded, merged, open, rolled back or killed; SEED=N draws the same again
use strict;
use warnings;

use CrmTest;
use List::Util qw(shuffle);
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{SEED} // int(rand(1 << 30));
srand $seed;
note "SEED=$seed";

my $node = crm_node('tallies', conf => "pg_crm.time_zone = 'Asia/Shanghai'\n");
my $db = crm_database($node, 'shop');

sub sql { return $node->safe_psql('shop', $_[0]) }

sub is_exact
{
    my ($name, $session) = @_;
    my $query = q{SELECT string_agg(d::text, E'\n') FROM (
        (SELECT day, kind, account_id, qr_code_id, store_id, currency, sum(facts) AS facts, sum(voided) AS voided,
                sum(amount) AS amount, coalesce(sum(refunded), 0) AS refunded FROM crm.fact_exact GROUP BY 1, 2, 3, 4, 5, 6
         EXCEPT ALL SELECT day, kind, account_id, qr_code_id, store_id, currency, facts, voided, amount, coalesce(refunded, 0) FROM crm.fact_count)
        UNION ALL
        (SELECT day, kind, account_id, qr_code_id, store_id, currency, facts, voided, amount, coalesce(refunded, 0) FROM crm.fact_count
         EXCEPT ALL SELECT day, kind, account_id, qr_code_id, store_id, currency, sum(facts), sum(voided), sum(amount),
                coalesce(sum(refunded), 0) FROM crm.fact_exact GROUP BY 1, 2, 3, 4, 5, 6)) AS d};
    my $found = $session ? $session->query_safe($query) : sql($query);
    is($found, '', "$name (SEED=$seed)");
    # contacts won, for what they have bought
    my $key = 'day, source, campaign, qr_code_id, store_id, associate_id';
    my $won = "SELECT $key, count(*) AS won, sum(buyers) AS buyers, sum(revenue) AS revenue FROM crm.won_contact GROUP BY $key";
    my $counted = "SELECT $key, won, buyers, revenue FROM crm.won_count";
    $query = "SELECT string_agg(d::text, E'\n') FROM (($won EXCEPT ALL $counted) UNION ALL ($counted EXCEPT ALL $won)) AS d";
    $found = $session ? $session->query_safe($query) : sql($query);
    is($found, '', "$name: contacts won (SEED=$seed)");
}

sql('SELECT crm.keep_roll_ups()');
sql(q{
INSERT INTO crm.account (kind, name) VALUES ('official_account', 'maison');
INSERT INTO crm.store (name) VALUES ('north'), ('south');
INSERT INTO crm.associate (userid, store_id) VALUES ('li', 1), ('wu', 2);
INSERT INTO crm.qr_code (account_id, scene, store_id, associate_id) SELECT 1, 'c' || n, 1 + n % 2, nullif(n % 3, 0) FROM generate_series(1, 4) AS n;
INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2024-01-01' FROM generate_series(1, 40) AS n;
});
is_exact('nothing');

my $order = 0;
my @orders;

sub at { return sprintf "'2024-0%d-%02d %02d:%02d+08'", 1 + int rand 3, 1 + int rand 28, int rand 24, int rand 60 }

sub fact
{
    my $contact = 1 + int rand 40;
    my $draw = rand;
    if ($draw < 0.3)
    {
        return "INSERT INTO crm.event (contact_id, kind, occurred_at, account_id) SELECT 1 + (n * $contact) % 40, (ARRAY['view','cart','like'])[1 + n % 3], "
            . at() . "::timestamptz + n * interval '5 hours', nullif(n % 2, 0) FROM generate_series(1, " . (1 + int rand 5) . ") AS n";
    }
    return "INSERT INTO crm.acquisition (contact_id, source, occurred_at) VALUES ($contact, 'fair', " . at() . ") ON CONFLICT DO NOTHING" if $draw < 0.35;
    return "INSERT INTO crm.event (contact_id, kind, occurred_at, account_id) VALUES ($contact, 'follow', " . at() . ", 1)" if $draw < 0.4;
    return "INSERT INTO crm.scan (contact_id, qr_code_id, occurred_at) VALUES ($contact, " . (1 + int rand 4) . ", " . at() . ")" if $draw < 0.5;
    if ($draw < 0.75 || !@orders)
    {
        my $amount = 1 + int rand 500;
        $order++;
        push @orders, [ $contact, "r$order", $amount ];
        my $currency = rand() < 0.2 ? "'USD'" : "'CNY'";
        my $store = rand() < 0.3 ? 'NULL' : 1 + int rand 2;
        return "INSERT INTO crm.transaction (contact_id, amount, currency, occurred_at, store_id, external_ref) VALUES ($contact, $amount, $currency, " . at() . ", $store, 'r$order')";
    }
    my $sold = $orders[ rand @orders ];
    return 'SELECT 1' if $sold->[2] <= 0;
    my $part = rand() < 0.5 ? $sold->[2] : 1 + int rand $sold->[2];
    $sold->[2] -= $part;
    # whose order it is now, after merges; one that was rolled back is not there
    return "INSERT INTO crm.transaction (contact_id, kind, amount, currency, occurred_at, refund_of) SELECT contact_id, 'refund', $part, currency, "
        . at() . ", transaction_id FROM crm.transaction AS t WHERE external_ref = '$sold->[1]' AND kind = 'purchase'"
        . " AND amount >= $part + coalesce((SELECT sum(r.amount) FROM crm.transaction AS r WHERE r.contact_id = t.contact_id AND r.refund_of = t.transaction_id), 0)";
}

my @open;
for my $round (1 .. 30)
{
    my $session = $node->background_psql('shop', on_error_stop => 0);
    $session->query_safe('SET pg_crm.direct_access = off') if rand() < 0.3;
    $session->query_safe('BEGIN');
    my $statements = join '; ', map { fact() } 1 .. 3;
    # others may hold the contact: who does not get it in time leaves it
    eval { $session->query_safe("SET LOCAL lock_timeout = '50ms'"); $session->query("$_") for split /; /, $statements; 1 };
    is_exact("round $round: as its own transaction sees it", $session) if $session->query('SELECT 1') eq '1';
    push @open, $session;
    @open = shuffle @open;
    if (@open > 3 || rand() < 0.5)
    {
        my $done = shift @open;
        if (rand() < 0.2)
        {
            my $pid = $done->query('SELECT pg_backend_pid()');
            sql("SELECT pg_terminate_backend($pid)") if $pid =~ /^\d+$/;
            eval { $done->quit };
        }
        else
        {
            $done->query(rand() < 0.2 ? 'ROLLBACK' : 'COMMIT');
            $done->quit;
        }
    }
    sql('SELECT crm.roll_up()') if rand() < 0.4;
    if (rand() < 0.1)
    {
        my ($one, $other) = (1 + int rand 40, 1 + int rand 40);
        $node->psql('shop', "SET lock_timeout = '50ms'; SELECT crm.merge($one, $other)");
    }
    elsif (rand() < 0.1)
    {
        $node->psql('shop', "SET lock_timeout = '50ms'; SELECT crm.unmerge(other) FROM crm.merge_ledger WHERE unmerged_at IS NULL ORDER BY merge_id DESC LIMIT 1");
    }
    is_exact("round $round");
}
for my $session (@open) { $session->query('COMMIT'); $session->quit }
sql(q{INSERT INTO crm.acquisition (contact_id, source, occurred_at) SELECT contact_id, 'fair', '2024-01-02' FROM crm.contact ON CONFLICT DO NOTHING;
    SELECT crm.purchase(min(contact_id), 10, '2024-05-01', 'bought') FROM crm.contact});
sql('SELECT crm.roll_up()');
is(sql('SELECT (SELECT count(*) FROM crm.fact_tail) + (SELECT count(*) FROM crm.won_tail)'), '0', 'all is added up');
cmp_ok(sql('SELECT sum(buyers) FROM crm.won_total'), '>', 0, 'and some of those who were won have bought');
is_exact('at the end');
sql(q{SELECT crm.purchase(min(contact_id), 10, '2024-02-01', 'whole') FROM crm.contact;
    SELECT crm.refund(min(contact_id), 'whole', n, NULL, 'part ' || n) FROM crm.contact, unnest('{4,6}'::int[]) AS n GROUP BY n});
is_exact('an order refunded in parts');
cmp_ok(sql('SELECT sum(voided) FROM crm.fact_count'), '>', 0, 'until nothing is left');
sql('SELECT crm.roll_up()');
is(sql('SELECT count(*) FROM crm.verify()'), '0', 'verify() agrees');

# two who add up at once, one of them killed
my $first = $node->background_psql('shop', on_error_stop => 0);
sql(join '; ', map { "SELECT crm.track($_, 'view')" } grep { sql("SELECT count(*) FROM crm.contact WHERE contact_id = $_") } 1 .. 3);
$first->query_safe('BEGIN; SELECT crm.roll_up()');
is($node->psql('shop', "SET lock_timeout = '50ms'; SELECT crm.roll_up()"), 3, 'who adds up is alone');
is_exact('while somebody adds up');
sql('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = ' . $first->query_safe('SELECT pg_backend_pid()'));
eval { $first->quit };
is_exact('after he was killed');
is($node->psql('shop', 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT crm.roll_up()'), 3, 'an old snapshot adds nothing up');

# another zone
sql("ALTER DATABASE shop SET pg_crm.time_zone = 'America/New_York'");
is_exact('in another zone, before it is counted anew');
sql("SELECT crm.track(contact_id, 'view') FROM crm.contact LIMIT 3");
is_exact('with facts of that zone');
sql('SELECT crm.roll_up()');
is(sql(q{SELECT string_agg(DISTINCT zone, ' ') FROM crm.fact_day}), 'America/New_York', 'then it is counted anew');
is_exact('in the other zone');

# what went past the triggers
sql(q{SELECT crm.restoring(true); INSERT INTO crm.event (contact_id, kind) SELECT contact_id, 'view' FROM crm.contact LIMIT 1; SELECT crm.restoring(false)});
like(sql('SELECT string_agg(check_name, E\'\n\') FROM crm.verify()'), qr/^fact_count of view on /m, 'verify() tells of facts that were not counted');
sql('SELECT crm.recompute(); SELECT crm.roll_up(true)');
is(sql('SELECT count(*) FROM crm.verify()'), '0', 'counted anew all is sound');

# asked for while a fact is not yet committed: it is counted, whoever came first
sql('SELECT crm.keep_roll_ups(false)');
is_exact('without counts');
my $before = $node->background_psql('shop', on_error_stop => 0);
$before->query_safe(q{BEGIN; SELECT crm.track(min(contact_id), 'view') FROM crm.contact});
is($node->psql('shop', "SET lock_timeout = '50ms'; SELECT crm.keep_roll_ups()"), 3, 'who has recorded uncounted facts ends first');
$before->query_safe('COMMIT');
my $known = $before->query_safe(q{SELECT crm.track(min(contact_id), 'view') FROM crm.contact});
sql('SELECT crm.keep_roll_ups()');
is_exact('with counts again');
$before->query_safe(q{SELECT crm.track(min(contact_id), 'view') FROM crm.contact});
cmp_ok(sql('SELECT count(*) FROM crm.fact_tail'), '>', 0, 'a session that was there before counts too');
$before->quit;
is_exact('with facts of a session that was there before');

# a month goes
sql(q{UPDATE crm.retention SET keep = '1 month'; SELECT crm.maintain_partitions()});
is_exact('before months go');
done_testing();
