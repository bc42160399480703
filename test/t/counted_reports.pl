# what reports say of whole days is the same whether it is read out of the rows or out of what was counted as they came in:
# after late facts, refunds, merges and retention, rolled up or not; SEED=N draws the same again
use strict;
use warnings;

use CrmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{SEED} // int(rand(1 << 30));
srand $seed;
note "SEED=$seed";

my $node = crm_node('counted_reports', conf => "pg_crm.time_zone = 'Asia/Shanghai'\n");
crm_database($node, 'shop');
my $clock = '2024-07-10 12:00+08';
sub sql { return $node->safe_psql('shop', "SET pg_crm.clock = '$clock'; $_[0]") }

my @measures = qw(stages contacts facts scans orders amounts awards points messages journeys);
my @periods = (
    [ "'2024-01-01 00:00+08'", "'2024-07-01 00:00+08'" ],
    [ "'2024-02-10 00:00+08'", "'2024-03-05 00:00+08'" ],
    [ "'2024-05-01 00:00+08'", "'2024-07-11 00:00+08'" ],
    [ "'2024-03-03 00:00+08'", "'2024-03-04 00:00+08'" ],
    [ "'2024-03-03 00:00+08'", "'2024-03-03 00:00+08'" ],
    [ "'2023-01-01 00:00+08'", "'2024-01-20 00:00+08'" ],
    # no whole days: the rows are read
    [ "'2024-02-10 06:30+08'", "'2024-03-05 00:00+08'" ],
    [ "'2024-02-10 00:00+08'", "'2024-03-05 00:00:00.000001+08'" ],
);

# everything that may be answered by counts: name => what it says, as text
sub said
{
    my %query;
    my $rows = sub { my ($name, $from, $order) = @_; $query{$name} = "SELECT string_agg(t::text, E'\\n'" . ($order // '') . ") FROM $from AS t" };
    my $any_order = ' ORDER BY t::text';
    for my $period (@periods)
    {
        my $p = join ', ', @$period;
        for my $measure (@measures)
        {
            $rows->("trend of $measure, $p, $_", "crm.trend('$measure', $p, $_)") for 'NULL', "'America/New_York'";
        }
        $rows->("trend of facts by month, $p", "crm.trend('facts', $p, NULL, 'month')");
        $query{"trend of orders as a picture, $p"} = "SELECT crm.trend_svg('orders', $p)";
        $query{"report, $p"} = "SELECT crm.report_html($p)";
        my ($first, $until) = map { s/ .*//r . "'" } @$period;
        $rows->("$_, $p", "crm.$_($first, $until)") for qw(scan_report store_report associate_report step_report);
        $rows->("period by key, $p", "(SELECT event, kind, account_id, qr_code_id, store_id, currency, sum(facts), sum(voided), sum(amount),
            coalesce(sum(refunded), 0) FROM crm.fact_period($first, $until) GROUP BY 1, 2, 3, 4, 5, 6 HAVING sum(facts) <> 0)", $any_order);
    }
    $rows->($_, "crm.$_", $any_order) for qw(journey_step journey_edge journey_summary);
    $rows->('steps of a journey', "(SELECT step, entered, here, left_on, ended, drop_off FROM crm.journey_step WHERE journey = 'tale')", $any_order);
    $rows->('by kind', '(SELECT day, event, kind, currency, facts, voided, amount, coalesce(refunded, 0) FROM crm.kind_count)', $any_order);
    my @names = sort keys %query;
    my @said = split /\x1e\n?/, sql(join '; ', map { "SELECT coalesce(($query{$_}), '') || E'\\x1e'" } @names), -1;
    return { map { $names[$_] => $said[$_] } 0 .. $#names };
}

sub is_same
{
    my ($what) = @_;
    my $counted = said();
    is(sql('SELECT kept FROM crm.roll_up_setting'), 't', "$what: counts are kept");
    # the rows say what they would without counts; the counts stay as they came
    sql("UPDATE crm.roll_up_setting SET kept = false");
    my $exact = said();
    sql("UPDATE crm.roll_up_setting SET kept = true");
    my @different = grep { $counted->{$_} ne $exact->{$_} } sort keys %$exact;
    is("@different[0 .. ($#different < 3 ? $#different : 3)]", '', "$what: nothing differs of " . keys(%$exact) . " answers (SEED=$seed)");
    for (@different[0 .. ($#different < 1 ? $#different : 1)]) { diag("$_\ncounted:\n", substr($counted->{$_}, 0, 2000), "\nexact:\n", substr($exact->{$_}, 0, 2000)) }
}

sql('SELECT crm.keep_roll_ups()');
sql(q{
INSERT INTO crm.account (kind, name) VALUES ('official_account', 'maison');
INSERT INTO crm.store (name) VALUES ('north'), ('south');
INSERT INTO crm.associate (userid, store_id) VALUES ('li', 1), ('wu', 2);
INSERT INTO crm.qr_code (account_id, scene, store_id, associate_id) SELECT 1, 'c' || n, 1 + n % 2, nullif(n % 3, 0) FROM generate_series(1, 4) AS n;
INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2024-01-01'::timestamptz + n * interval '3 days' FROM generate_series(1, 40) AS n;
});
is_same('nothing');

# ---------- facts ----------

my ($order, @orders) = (0);
my $month = 6;
sub at { return sprintf "'2024-0%d-%02d %02d:%02d+08'", 1 + int rand $month, 1 + int rand 28, int rand 24, int rand 60 }

sub fact
{
    my $contact = 1 + int rand 40;
    my $draw = rand;
    # an event may have the name of another fact
    return "INSERT INTO crm.event (contact_id, kind, occurred_at, account_id) SELECT 1 + (n * $contact) % 40, (ARRAY['view','scan','purchase','refund','cart'])[1 + n % 5], "
        . at() . "::timestamptz + n * interval '5 hours', nullif(n % 2, 0) FROM generate_series(1, " . (1 + int rand 9) . ") AS n" if $draw < 0.25;
    return "SELECT crm." . (rand() < 0.7 ? 'follow' : 'unfollow') . "('maison', 'o$contact', " . at() . ")" if $draw < 0.35;
    return "SELECT crm.scan('c" . (1 + int rand 4) . "', 'maison', 'o$contact', " . at() . ")" if $draw < 0.55;
    if ($draw < 0.8 || !@orders)
    {
        my $amount = (1 + int rand 50000) / 100;
        $order++;
        push @orders, [ $contact, "r$order", $amount ];
        return "INSERT INTO crm.transaction (contact_id, amount, currency, occurred_at, store_id, external_ref) VALUES ($contact, $amount, "
            . (rand() < 0.2 ? "'USD'" : "'CNY'") . ', ' . at() . ', ' . (rand() < 0.3 ? 'NULL' : 1 + int rand 2) . ", 'r$order')";
    }
    my $sold = $orders[ rand @orders ];
    my $part = rand() < 0.5 ? $sold->[2] : int($sold->[2] * 50) / 100;
    return 'SELECT 1' if $part <= 0;
    $sold->[2] = sprintf '%.2f', $sold->[2] - $part;
    return "INSERT INTO crm.transaction (contact_id, kind, amount, currency, occurred_at, refund_of) SELECT contact_id, 'refund', $part, currency, "
        . at() . ", transaction_id FROM crm.transaction AS t WHERE external_ref = '$sold->[1]' AND kind = 'purchase'"
        . " AND amount >= $part + coalesce((SELECT sum(r.amount) FROM crm.transaction AS r WHERE r.contact_id = t.contact_id AND r.refund_of = t.transaction_id), 0)";
}

sql(q{SELECT crm.publish_journey('{"journey": "tale", "entry": [{"on": "cart"}], "exit": {"on": "purchase", "when": "spend > 900"}, "start": "pause", "steps": {
    "pause": {"kind": "wait", "for": "3 days", "next": "arm"},
    "arm": {"kind": "split", "arms": {"a": {"weight": 1, "next": "rest"}, "b": {"weight": 1, "next": null}}},
    "rest": {"kind": "wait_for", "on": "order", "within": "20 days", "next": "end", "on_timeout": "end"},
    "end": {"kind": "exit"}}}')});
for my $now (1 .. 6)
{
    $month = $now;
    $clock = sprintf '2024-%02d-28 23:59+08', $month;
    sql("SELECT crm.maintain_partitions(); SELECT crm.track(n, 'cart') FROM generate_series($month, 40, 3) AS n; SELECT crm.tick()");
    sql(join '; ', map { fact() } 1 .. 20);
    sql('SELECT crm.roll_up()') if $month % 2;
}
$clock = '2024-07-10 12:00+08';
sql(join '; ', map { fact() } 1 .. 60);
is_same('facts that came late, not rolled up');
sql('SELECT crm.roll_up()');
is_same('rolled up');
sql(join '; ', map { fact() } 1 .. 40);
sql('SELECT crm.merge(1, 2); SELECT crm.merge(3, 4); SELECT crm.tick()');
is_same('some rolled up, some not, and people merged');
is(sql('SELECT count(*) FROM crm.verify()'), '0', 'verify() agrees');

# ---------- retention ----------

sql(q{UPDATE crm.retention SET keep = '2 months'});
sql('SELECT crm.maintain_partitions()');
sql('SELECT crm.enforce_retention()') for 1 .. 40;
cmp_ok(sql('SELECT coalesce(sum(facts), 0) FROM crm.opening_fact'), '>', 0, 'facts were dropped');
is_same('months went');
sql('SELECT crm.roll_up(true)');
is_same('counted anew');
is(sql('SELECT count(*) FROM crm.verify()'), '0', 'verify() agrees');

# what is read where: with counts that are wrong
my $right = said();
sql('UPDATE crm.fact_month SET facts = facts + 1; UPDATE crm.kind_day SET facts = facts + 1, amount = amount + 1; UPDATE crm.visit_day SET visits = visits + 1; UPDATE crm.enrolment_sum SET enrolments = enrolments + 1');
my $wrong = said();
my ($whole) = map { join ', ', @$_ } $periods[0];
my ($part) = map { join ', ', @$_ } $periods[6];
isnt($wrong->{$_}, $right->{$_}, "counts are read: $_") for (map { "trend of $_, $whole, NULL" } qw(facts contacts scans orders amounts)),
    "trend of orders as a picture, $whole", "report, $whole", 'journey_step', 'journey_edge', 'journey_summary', 'steps of a journey', "store_report, $whole";
is($wrong->{$_}, $right->{$_}, "rows are read: $_") for (map { ("trend of $_, $part, NULL", "trend of $_, $whole, 'America/New_York'") } qw(facts contacts scans orders amounts)), "report, $part";
sql('SELECT crm.roll_up(true)');
is_same('counted anew once more');

# verify() finds what months and kinds do not add up to
sql(q{UPDATE crm.fact_month SET facts = facts + 1 WHERE fact_month_id = (SELECT min(fact_month_id) FROM crm.fact_month);
    UPDATE crm.kind_day SET facts = facts + 1 WHERE kind_day_id = (SELECT min(kind_day_id) FROM crm.kind_day);
    UPDATE crm.enrolment_sum SET enrolments = enrolments + 1 WHERE state = 'entered'});
is(sql(q{SELECT string_agg(split_part(check_name, ' ', 1), ' ' ORDER BY check_name) FROM crm.verify()}), 'enrolment_count fact_month kind_day', 'verify() tells of months, kinds and enrolments that are wrong');
sql('SELECT crm.roll_up(true)');
is(sql('SELECT count(*) FROM crm.verify()'), '0', 'until all is counted anew');

# another zone: what is counted is of no use, and not used
sql("ALTER DATABASE shop SET pg_crm.time_zone = 'America/New_York'");
@periods = ([ "'2024-02-10 00:00-05'", "'2024-06-05 00:00-04'" ]);
is_same('in another zone');
done_testing();
