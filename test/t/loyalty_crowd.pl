# 64 clients at once: the last points, the last code, one coupon per contact; and random orders, refunds,
# merges of members in many sessions, whose points are in the end what the facts say.
#
# CRM_SEED=n repeats the statements of a run, though not their order.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = defined $ENV{CRM_SEED} ? $ENV{CRM_SEED} : int(rand(1_000_000));
srand($seed);
diag("CRM_SEED=$seed");

my $dir  = PostgreSQL::Test::Utils::tempdir();
my $node = crm_node('loyalty', conf => "max_connections = 80\nlog_statement = none\nlog_min_error_statement = panic\n");
crm_database($node, 'shop');
$node->safe_psql('shop', q{
    INSERT INTO crm.account (kind, name) VALUES ('official_account', 'oa'), ('mini_program', 'mini');
    INSERT INTO crm.store (store_id, name) VALUES (1, 'Bund'), (2, 'Pudong');
    INSERT INTO crm.qr_code (account_id, scene, store_id) VALUES (1, 'bund', 1);
    INSERT INTO crm.loyalty_program (name) VALUES ('club');
    INSERT INTO crm.tier (program, tier, rank, threshold, period) VALUES ('club', 'silver', 1, 50, '30 days'), ('club', 'gold', 2, 300, NULL);
    SELECT crm.define_earning_rule('{"name": "yuan", "program": "club", "per_amount": 1}'),
           crm.define_earning_rule('{"name": "cart", "program": "club", "on_kind": "cart", "points": 2}');
    SELECT crm.define_coupon('{"name": "tea", "one_per": "contact"}'), crm.define_coupon('{"name": "few", "max_grants": 40}'),
           crm.define_coupon('{"name": "pool", "codes": "pool"}'), crm.define_coupon('{"name": "shirt", "one_per": "store"}');
    INSERT INTO crm.coupon_code (code, coupon) SELECT 'P' || n, 'pool' FROM generate_series(1, 40) AS n;
    INSERT INTO crm.contact (contact_id) SELECT generate_series(1, 200);
    CREATE TABLE done (what text, result text);
});

sub one { return $node->safe_psql('shop', $_[0]) }

# a script in each of 64 sessions, %d being its number; errors by SQLSTATE
sub sessions
{
    my ($script) = @_;
    my @runs = map {
        my ($out, $err) = ('', '');
        my $sql = "\\set VERBOSITY sqlstate\n" . ($script =~ s/%d/$_/gr);
        +{ out => \$out, err => \$err, sql => \$sql };
    } 1 .. 64;
    $_->{run} = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('shop') ], '<', $_->{sql}, '>', $_->{out}, '2>', $_->{err}) for @runs;
    my %errors;
    for my $run (@runs)
    {
        $run->{run}->finish;
        $errors{ /ERROR:  (\S+)/ ? $1 : $_ }++ for grep { /\S/ } split /\n/, ${ $run->{err} };
    }
    return join ', ', map { "$_ $errors{$_} times" } sort keys %errors;
}

sub sound { is(one('SELECT * FROM crm.verify()'), '', "$_[0]: verify() finds nothing") }

# ---- points
one(q{SELECT crm.earn_points(1, 'club', 100)});
is(sessions(q{SELECT crm.spend_points(1, 'club', 7);}), '23514 50 times', 'the last points: 64 clients take 7 of 100');
is(one('SELECT points FROM crm.point_balance WHERE contact_id = 1'), 2, 'two are left');
is(one(q{SELECT count(*), count(DISTINCT balance_after) FROM crm.point_entry WHERE contact_id = 1 AND kind = 'spent'}), '14|14', 'fourteen were served');
is(sessions(q{SELECT crm.spend_points(1, 'club', 2, 'same', 'one');}), '', 'the same spending 64 times is one');
is(one('SELECT points FROM crm.point_balance WHERE contact_id = 1'), 0, 'and leaves none');
is(sessions(q{SELECT crm.earn_points(2, 'club', %d);}), '', '64 clients give points');
is(one('SELECT points FROM crm.point_balance WHERE contact_id = 2'), 64 * 65 / 2, 'all of them count');
one(q{SELECT crm.join_loyalty(3, 'club')});
is(sessions(q{SELECT crm.purchase(3, 10, external_ref => 'same');}), '', 'an order delivered 64 times');
is(one('SELECT points FROM crm.point_balance WHERE contact_id = 3'), 10, 'earns once');
is(sessions(q{SELECT crm.refund(3, 'same', 10, key => 'r');}), '', 'a refund delivered 64 times');
is(one('SELECT points FROM crm.point_balance WHERE contact_id = 3'), 0, 'takes back once');
sound('points');

# ---- coupons
is(sessions(q{SELECT crm.issue_coupon(4, 'tea');}), '23505 63 times', 'one coupon per contact');
is(one(q{SELECT count(*) FROM crm.coupon_grant WHERE contact_id = 4}), 1, 'one grant');
is(sessions(q{INSERT INTO done SELECT 'keyed', crm.issue_coupon(5, 'tea', 'k');}), '', 'one by key');
is(one(q{SELECT count(*), count(DISTINCT result) FROM done WHERE what = 'keyed'}), '64|1', 'one code for all');
is(sessions(q{SELECT crm.issue_coupon(10 + %d, 'few');}), '23514 24 times', '40 of 64 get one of 40');
is(one(q{SELECT count(*) FROM crm.coupon_grant WHERE coupon = 'few'}), 40);
is(sessions(q{SELECT crm.issue_coupon(10 + %d, 'pool');}), '23514 24 times', '40 of 64 get one of 40 codes of a pool');
is(one(q{SELECT count(*), count(DISTINCT code) FROM crm.coupon_grant WHERE coupon = 'pool'}), '40|40', 'each its own');
# who takes the last code may give it back: nobody is sent away before
one(q{INSERT INTO crm.coupon_code (code, coupon) VALUES ('LAST', 'pool')});
is(sessions(q{BEGIN; INSERT INTO done SELECT 'last', crm.issue_coupon(100 + %d, 'pool'); ROLLBACK;}), '', 'the last code, given back 64 times');
is(one(q{SELECT crm.issue_coupon(200, 'pool')}), 'LAST', 'is there');
my $code = one(q{SELECT code FROM crm.coupon_grant WHERE contact_id = 5});
is(sessions("SELECT crm.redeem_coupon(5, '$code', 1);"), '23505 63 times', 'redeemed once');
is(sessions("SELECT crm.redeem_coupon(5, '$code', 1, key => 'x');"), '23505 64 times', 'and never again');
sound('coupons');

# ---- a shirt once per person and shop after a purchase of electronics; 64 clients scan, some people have
# two openids of one mobile
one(q{SELECT crm.purchase(crm.identify('oa', 'p' || n), 3999, store_id => 1, items => '[{"category": "electronics"}]'),
             crm.bind_mobile(crm.identify('oa', 'p' || n), ('1380013800' || n)::crm.mobile) FROM generate_series(0, 7) AS n});
is(sessions(q{
    SELECT crm.bind_mobile(crm.identify('mini', 'm' || %d % 8), ('1380013800' || %d % 8)::crm.mobile) AS person \gset
    SELECT crm.scan('bund', 'oa', 'p' || %d % 8);
    SELECT crm.issue_coupon(crm.identify(CASE WHEN %d % 3 = 0 THEN 'mini' ELSE 'oa' END, CASE WHEN %d % 3 = 0 THEN 'm' ELSE 'p' END || %d % 8), 'shirt', store_id => 1);
    SELECT crm.issue_coupon(:person, 'shirt', store_id => 2);
}), '23505 112 times', 'cheaters with two openids of one mobile');
is(one(q{SELECT count(*), count(DISTINCT contact_id), count(duplicate_of) FROM crm.coupon_grant WHERE coupon = 'shirt'}), '16|8|0', 'eight people, a shirt each at each shop');
is(one(q{SELECT count(*) FROM crm.event WHERE kind = 'issue_coupon' AND properties ->> 'coupon' = 'shirt'}), 16, 'each an event');
sound('shirts');

# ---- a mix: orders, refunds, calls, merges, unmerges of five members
one(q{SELECT crm.join_loyalty(n, 'club', '2023-12-31') FROM generate_series(181, 185) AS n});
my @mix = (
    sub { sprintf "SELECT crm.purchase(%d, %d, '2024-01-01Z'::timestamptz + %d * interval '1 hour', 'o%d');", 181 + rand(5), 10 + rand(90), rand(50), rand(60) },
    sub { sprintf "SELECT crm.purchase(%d, %d);", 181 + rand(5), rand(50) },
    sub { sprintf "INSERT INTO crm.transaction (contact_id, amount) VALUES %s;", join ', ', map { sprintf '(%d, %d)', 181 + rand(5), rand(50) } 1 .. 1 + rand(6) },
    sub { sprintf "SELECT crm.refund(%d, 'o%d', %d);", 181 + rand(5), rand(60), 1 + rand(20) },
    sub { sprintf "SELECT crm.track(%d, 'cart', key => 'k%d');", 181 + rand(5), rand(50) },
    sub { sprintf "SELECT crm.earn_points(%d, 'club', %d, key => 'e%d');", 181 + rand(5), 1 + rand(3), rand(30) },
    sub { sprintf "SELECT crm.spend_points(%d, 'club', %d);", 181 + rand(5), 1 + rand(100) },
    sub { sprintf "SELECT crm.issue_coupon(%d, 'tea');", 181 + rand(5) },
    sub { sprintf "SELECT crm.merge(%d, %d);", 181 + rand(5), 181 + rand(5) },
    sub { sprintf "SELECT crm.unmerge(%d);", 181 + rand(5) });
my @runs = map {
    my ($out, $err) = ('', '');
    my $sql = "\\set VERBOSITY sqlstate\n" . join '', map { $mix[ int(rand(@mix)) ]->() . "\n" } 1 .. 30;
    +{ err => \$err, run => IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('shop') ], '<', \$sql, '>', \$out, '2>', \$err) };
} 1 .. 32;
my @bad;
for my $run (@runs)
{
    $run->{run}->finish;
    push @bad, grep { !/ERROR:  (23503|23505|23514|55000)$/ } split /\n/, ${ $run->{err} };
}
is(join("\n", @bad), '', 'a mix on five members: no error but refusals');
cmp_ok(one('SELECT count(*) FROM crm.merge_ledger WHERE unmerged_at IS NOT NULL'), '>', 5, 'members were merged and parted');
cmp_ok(one(q{SELECT count(*) FROM crm.point_entry WHERE kind = 'reversed'}), '>', 10, 'and points taken back');
sound('a mix on five members');
is(one(q{SELECT count(*) FROM (SELECT m.contact_id FROM crm.membership m
    LEFT JOIN (SELECT o.contact_id, sum(floor(o.amount - coalesce(r.refunded, 0))) AS points FROM crm.transaction o
        LEFT JOIN (SELECT contact_id, refund_of, sum(amount) AS refunded FROM crm.transaction WHERE kind = 'refund' GROUP BY 1, 2) r
          ON r.contact_id = o.contact_id AND r.refund_of = o.transaction_id WHERE o.kind = 'purchase' GROUP BY 1) o ON o.contact_id = m.contact_id
    LEFT JOIN (SELECT contact_id, 2 * count(*) AS points FROM crm.event WHERE kind = 'cart' GROUP BY 1) e ON e.contact_id = m.contact_id
    LEFT JOIN (SELECT contact_id, sum(points) AS points FROM crm.point_entry WHERE earning_rule IS NULL GROUP BY 1) h ON h.contact_id = m.contact_id
    LEFT JOIN crm.point_balance b ON b.contact_id = m.contact_id
    WHERE m.contact_id > 180 AND coalesce(b.points, 0) <> coalesce(o.points, 0) + coalesce(e.points, 0) + coalesce(h.points, 0)) AS differing}), 0,
    'and points are what orders, carts and calls give');

is(join("\n", grep { /deadlock detected|could not serialize|PANIC|FATAL|terminated by signal|XX000/ } split /\n/, slurp_file($node->logfile)), '', 'no deadlock in the log, nor worse');
$node->stop;
done_testing();
