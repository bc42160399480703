# Segments are at every moment whom their rules mean: random contacts, orders, refunds, events, field changes, merges,
# definitions and ticks, compared with audience() again and again; then many clients at once, whose segments verify()
# finds sound.
#
# CRM_SEED=n repeats a run; CRM_STEPS=n is its length.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed  = defined $ENV{CRM_SEED} ? $ENV{CRM_SEED} : int(rand(1_000_000));
my $steps = $ENV{CRM_STEPS} || 150;
srand($seed);
diag("CRM_SEED=$seed CRM_STEPS=$steps");

my $dir  = PostgreSQL::Test::Utils::tempdir();
my $node = crm_node('segments', conf => "max_connections = 40\nlog_statement = none\nlog_min_error_statement = panic\n");
my $contacts = 40;
sub pick { return $_[ int(rand(@_)) ] }

my @rules = (
    q{orders >= 2}, q{spend > 100 AND city = 'Shanghai'}, q{city IN ('Beijing', 'Xi''an')}, q{tags @> '{vip}'}, q{NOT tags @> '{vip}' AND orders = 0},
    q{times('cart') >= 2}, q{did('cart', '5 days')}, q{times('purchase', '10 days') >= 2}, q{spent('30 days') > 80}, q{last_order_at < as_of - interval '20 days'},
    q{last_seen_at >= as_of - interval '3 days' AND tags @> '{vip}'}, q{stage_rank >= rank('paying')}, q{stage = 'loyal'}, q{awarded('second_purchase')}, q{followed_at IS NOT NULL},
    q{mobile IS NOT NULL}, q{scans > 1 OR events > 3}, q{suppressed()}, q{NOT suppressed('sms') AND orders > 0}, q{attributes ->> 'level' = '3'}, q{times('field_change') > 2},
    q{did('field_change', '4 days')}, q{today > last_order_at::date + 7}, q{local_date() >= date '2024-02-15' AND city = 'Lhasa'}, q{100 / orders > 30}, q{refunds > 0}, q{true}, q{did('page') AND NOT did('cart')});

sub who { return 1 + int(rand($contacts)) }
my $place = 0;
my $order = 0;
my $clock = 0;
sub at { return sprintf q{crm.now() - interval '%d hours'}, rand() < 0.8 ? 0 : rand(600) }
sub field
{
    return pick(
        sprintf(q{city = '%s'}, pick('Shanghai', 'Beijing', "Xi''an", 'Lhasa')), q{tags = '{}'}, q{tags = '{vip}'}, q{tags = tags || 'x'::text}, q{name = name || 'x', city = 'Wuhan'},
        sprintf(q{attributes = '{"level": "%d"}'}, rand(5)), 'city = NULL', 'name = NULL');
}
my @some = (
    sub { sprintf 'INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref) SELECT c, %d, %s, %d FROM (VALUES (%d::bigint), (%d)) AS v(c) WHERE c IN (SELECT contact_id FROM crm.contact) GROUP BY c', 1 + rand(90), at(), $order++, who(), who() },
    sub { sprintf q{SELECT crm.purchase(%d, %d, %s, 'o%d')}, who(), 1 + rand(60), at(), $order++ },
    sub { sprintf q{INSERT INTO crm.transaction (contact_id, kind, amount, refund_of) SELECT contact_id, 'refund', amount / %d, transaction_id FROM crm.transaction t WHERE kind = 'purchase' AND amount > 0
        AND NOT EXISTS (SELECT FROM crm.transaction r WHERE r.contact_id = t.contact_id AND r.refund_of = t.transaction_id) ORDER BY hashint8(transaction_id + %d) LIMIT 2}, 1 + rand(2), rand(1000) },
    sub { sprintf q{SELECT crm.track(%d, '%s', at => %s)}, who(), pick(qw(cart cart page form)), at() },
    sub { sprintf q{UPDATE crm.contact SET %s WHERE contact_id = %d}, field(), who() },
    sub { sprintf q{UPDATE crm.contact SET %s WHERE contact_id = %d}, field(), who() },
    sub { sprintf q{SELECT crm.follow('oa', 'o%d')}, who() }, sub { sprintf q{SELECT crm.unfollow('oa', 'o%d')}, who() }, sub { sprintf q{SELECT crm.scan('door', 'oa', 'o%d')}, who() },
    sub { sprintf q{SELECT crm.bind_mobile(%d, '1380%07d')}, who(), rand(60) }, sub { sprintf q{SELECT crm.set_stage(%d, %s, 'x')}, who(), pick("'loyal'", "'user'", 'NULL') },
    sub { sprintf q{SELECT crm.suppress(%d, %s)}, who(), pick('NULL', "'sms'") }, sub { sprintf q{SELECT crm.unsuppress(%d, %s)}, who(), pick('NULL', "'sms'") });
my @more = (
    sub { sprintf q{UPDATE crm.contact SET %s WHERE contact_id %% %d = 0}, field(), 2 + rand(5) },
    sub { sprintf q{INSERT INTO crm.contact (city, tags, created_at) SELECT 'Lhasa', '{vip}', %s FROM generate_series(1, 2)}, at() },
    sub { sprintf 'SELECT crm.merge(%d, %d)', who(), who() }, sub { sprintf q{SELECT crm.unmerge(other) FROM crm.merge_ledger WHERE unmerged_at IS NULL ORDER BY hashint8(merge_id + %d) LIMIT 1}, rand(100) },
    sub { sprintf q{SELECT crm.recompute(%d)}, who() });
sub definition
{
    my $name = 's' . int(rand(12));
    return "DELETE FROM crm.segment WHERE name = '$name'" if rand() < 0.25;
    my $rule = pick(@rules);
    $rule = sprintf q{%s%s in_segment('s%d')}, rand() < 0.5 ? "($rule) AND" : '', rand() < 0.5 ? ' NOT' : '', rand(12) if rand() < 0.3;
    $rule =~ s/'/''/g;
    my $partition = rand() < 0.4 ? pick("'p'", "'q'") : 'NULL';
    return sprintf q{INSERT INTO crm.segment (name, rule, partition, position) VALUES ('%s', '%s', %s, %d) ON CONFLICT (name) DO UPDATE SET rule = excluded.rule, partition = excluded.partition, position = excluded.position}, $name, $rule, $partition, rand(3);
}
my @also = (
    q{SELECT crm.define_achievement('{"name": "movers", "on_kind": "field_change", "thresholds": [3]}')}, q{DELETE FROM crm.achievement WHERE name = 'movers'},
    q{SELECT crm.define_stage_rule('{"stage": "other", "rule": "last_order_at < as_of - interval ''25 days''"}')}, q{DELETE FROM crm.stage_rule WHERE stage = 'other'});

# whom the rules mean now, the first of a partition only, and who is in the segments
my $different = q{
    WITH holds AS MATERIALIZED (SELECT s.name, s.partition, s.position, a.contact_id FROM crm.segment s CROSS JOIN LATERAL crm.audience(s.rule) AS a(contact_id)),
    expected AS (SELECT h.contact_id, h.name FROM holds h WHERE h.partition IS NULL OR NOT EXISTS (SELECT FROM holds o WHERE o.contact_id = h.contact_id
        AND o.partition = h.partition AND (o.position, o.name COLLATE "C") < (h.position, h.name COLLATE "C"))),
    found AS (SELECT contact_id, segment FROM crm.segment_member)
    SELECT 'missing', * FROM (TABLE expected EXCEPT TABLE found) AS m UNION ALL SELECT 'wrong', * FROM (TABLE found EXCEPT TABLE expected) AS w};
my $history = q{SELECT contact_id, segment FROM (SELECT h.*, lag(change) OVER w AS before, lag(occurred_at) OVER w AS last FROM crm.segment_change h
    WHERE contact_id NOT IN (SELECT contact_id FROM crm.merge_ledger UNION SELECT other FROM crm.merge_ledger) WINDOW w AS (PARTITION BY contact_id, segment ORDER BY segment_change_id)) AS h
    WHERE coalesce(before, 'left') = change OR last > occurred_at};
my $setup = qq{
    INSERT INTO crm.account (kind, name) VALUES ('official_account', 'oa');
    INSERT INTO crm.qr_code (account_id, scene) VALUES (1, 'door');
    INSERT INTO crm.contact (contact_id, created_at, city) SELECT n, '2023-12-31Z', CASE WHEN n % 3 = 0 THEN 'Shanghai' END FROM generate_series(1, $contacts) AS n;
    INSERT INTO crm.identity (kind, account_id, external_id, contact_id) SELECT 'openid', 1, 'o' || n, n FROM generate_series(1, $contacts) AS n;
    ALTER DATABASE :db SET client_min_messages = error;
};
sub database
{
    my ($name) = @_;
    crm_database($node, $name);
    $node->safe_psql($name, $setup =~ s/:db/$name/r);
}
sub one { my ($db, $sql) = @_; return $node->safe_psql($db, $sql) }
my $meant = qr/23503|23505|23514|55000/;

# ---- one client; every step in a session that knows the time
database('alone');
my ($out, $err) = ('', '');
my ($bad, @done) = ('');
for my $step (1 .. $steps)
{
    $clock += pick(0, 0, 0, 1, 5, 24, 24 * 4);
    my $luck = rand();
    my $sql = $luck < 0.12 ? definition() : $luck < 0.14 ? pick(@also) : $luck < 0.3 ? pick(@more)->() : pick(@some)->();
    my $now = "SET pg_crm.clock = '2024-01-01Z'; SELECT set_config('pg_crm.clock', (timestamptz '2024-01-01Z' + interval '$clock hours')::text, false);";
    my ($result, $stdout, $stderr) = $node->psql('alone', "$now\n\\set VERBOSITY sqlstate\n$sql;", extra_params => ['-q']);
    push @done, "$clock: $sql";
    $bad .= "$stderr: $sql\n" if $stderr ne '' && $stderr !~ /ERROR:  $meant/;
    next if $step % 5 && $step != $steps && $luck >= 0.14;
    $node->psql('alone', "$now SELECT crm.tick();", extra_params => ['-q'], stdout => \$out, stderr => \$err);
    $bad .= "tick: $err\n" if $err ne '';
    $node->psql('alone', "SET client_min_messages = error; $now\n\\o\n\\echo ----\n$different;\nSELECT * FROM crm.verify();\n$history;", extra_params => ['-q'], stdout => \$out, stderr => \$err);
    $bad .= $err if $err ne '';
    $bad .= "after step $step ($sql) at $clock:\n$1" if $out =~ /----\n(.+)/s;
    last if $bad ne '';
}
is($bad, '', 'segments are whom their rules mean, after each step') or diag(join "\n", "CRM_SEED=$seed", grep { defined } @done[ -12 .. -1 ]);
cmp_ok(one('alone', 'SELECT count(*) FROM crm.segment_change'), '>=', $steps / 10, 'there was something to compare');
for my $cause ($steps >= 1000 ? qw(purchase field_change time definition created) : ())
{
    cmp_ok(one('alone', "SELECT count(*) FROM crm.segment_change WHERE cause = '$cause'"), '>', 0, "changes by $cause");
}

# ---- many clients: single statements of any kind, and ticks
for my $counted (0, 1)
{
    my $db = "crowd$counted";
    database($db);
    $node->safe_psql($db, definition_of($_)) for 0 .. $#rules;
    one($db, $also[0]) if $counted;
    my @runs = map {
        my ($stdout, $stderr) = ('', '');
        my $sql = "\\set VERBOSITY sqlstate\n" . join '', map {
            my $luck = rand();
            my $one = $luck < 0.02 ? 'SELECT crm.tick(crm.now() + interval \'1 day\')' : $luck < 0.03 ? definition_of(int(rand(@rules))) : $luck < 0.05 ? pick(@more[ 1 .. $#more ])->() : pick(@some)->();
            "$one;\n"
        } 1 .. 60;
        +{ err => \$stderr, run => IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr($db) ], '<', \$sql, '>', \$stdout, '2>', \$stderr) };
    } 1 .. 12;
    my @errors;
    for my $run (@runs)
    {
        $run->{run}->finish;
        push @errors, grep { !/ERROR:  $meant$/ } split /\n/, ${ $run->{err} };
    }
    is(join("\n", @errors), '', ($counted ? 'field changes counted, ' : '') . 'many clients: no error but refusals') or diag("CRM_SEED=$seed");
    is(one($db, 'SELECT * FROM crm.verify()'), '', 'and verify() finds nothing') or diag("CRM_SEED=$seed");
    one($db, "SELECT crm.tick(crm.now() + interval '2 days')");
    is(one($db, 'SELECT * FROM crm.verify()'), '', 'nor after a tick');
    cmp_ok(one($db, 'SELECT count(*) FROM crm.segment_change'), '>', 600, 'contacts moved');
}
sub definition_of
{
    my ($n) = @_;
    my $rule = $rules[$n] =~ s/'/''/gr;
    return sprintf q{INSERT INTO crm.segment (name, rule, partition, position) VALUES ('s%d', '%s', %s, %d) ON CONFLICT (name) DO UPDATE SET rule = excluded.rule, partition = excluded.partition, position = excluded.position},
      $n, $rule, $n % 4 ? 'NULL' : "'p'", rand(3);
}

is(join("\n", grep { /deadlock detected|could not serialize|PANIC|FATAL|terminated by signal|XX000/ } split /\n/, slurp_file($node->logfile)), '', 'no deadlock in the log, nor worse');
$node->stop;
done_testing();
