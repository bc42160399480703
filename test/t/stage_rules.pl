# Stage rules against a second opinion. A random rule over the profile is given to a stage, time is
# let pass by tick(), and then:
# - who is in the stage now is who audience() means now: both ways to run a rule say the same;
# - when a contact came into it and left it is what is found by asking rule and counters anew, in SQL
#   written here, at every moment at which anything may change: each fact, that moment and the one
#   after plus each interval that rules use, each midnight.
#
# CRM_SEED=n repeats a run; CRM_RULES=n says how much of it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed  = $ENV{CRM_SEED}  // int(rand(1_000_000));
my $rules = $ENV{CRM_RULES} // 120;
srand($seed);
diag("CRM_SEED=$seed");

my $contacts = 30;
my $node     = crm_node('stage_rules');
my ($db, $base, $end);    # of the facts, midnight of Greenwich

sub pick { return $_[ int(rand(@_)) ] }
sub sql
{
    return $node->safe_psql($db,
        "SET client_min_messages = warning; SET TimeZone = 'Asia/Shanghai'; SET pg_crm.clock = '$end 00:00Z';\n" . $_[0], timeout => 600);
}

sub at { return sprintf "'$base 00:00Z'::timestamptz + %d * interval '1 minute'", rand(4 * 24 * 60) }

sub fact
{
    my $c    = 1 + int(rand($contacts - 2));
    my $luck = rand();
    return sprintf 'SELECT crm.purchase(%d, %d, %s);', $c, pick(0, rand(20), rand(300)), at() if $luck < 0.5;
    return sprintf 'INSERT INTO crm.scan (contact_id, qr_code_id, occurred_at) VALUES (%d, %d, %s);', $c, pick(1, 2, 3), at() if $luck < 0.65;
    return sprintf "SELECT crm.track(%d, '%s', '{}', %s, account => 'wx');", $c, pick('cart', 'cart', 'page', 'follow', 'unfollow'), at();
}

sub record
{
    sql(join "\n",
        "INSERT INTO crm.account (account_id, kind, name) OVERRIDING SYSTEM VALUE VALUES (1, 'official_account', 'wx');",
        (map { qq(SELECT crm.define_qr_code('{"account": "wx", "scene": "door$_"}');) } 1 .. 3),
        "INSERT INTO crm.contact (contact_id, created_at) SELECT n, '$base 00:00Z'::timestamptz - interval '1 day' FROM generate_series(1, $contacts) n;",
        (map { fact() } 1 .. 260),
        q(INSERT INTO crm.transaction (contact_id, kind, amount, occurred_at, refund_of)
          SELECT contact_id, 'refund', CASE WHEN transaction_id % 2 = 0 THEN amount ELSE round(amount / 2, 2) END,
                 occurred_at + interval '30 minutes', transaction_id
            FROM crm.transaction WHERE kind = 'purchase' AND amount > 1 AND transaction_id % 5 < 2;));
    is(sql('SELECT count(*) FROM crm.verify()'), 0, 'what was recorded is sound');
}

# ---- rules
my $interval = sub { return pick("'90 minutes'", "'1 day'", "'26 hours'", "'10 hours'", "'2 days'", "'1 month'") };
my %values;
my $values_of = sub { %values = (
    number => [ qw(orders spend scans raw_scans events 0 1 2 3), '2.5', '(orders + 1) * 2', 'CASE WHEN orders > 2 THEN scans ELSE -1 END' ],
    at     => [ qw(first_order_at last_order_at followed_at last_seen_at first_seen_at), "('$base'::date + 2 + time '07:13') AT TIME ZONE 'Asia/Shanghai'" ]) };

sub value
{
    my ($type) = @_;
    if ($type eq 'number' && rand() < 0.3)
    {
        my $kind   = pick('purchase', 'scan', 'cart', 'page', 'refund');
        my $within = rand() < 0.8 ? ', ' . $interval->() : '';
        return pick("times('$kind'$within)", 'spent(' . (rand() < 0.8 ? $interval->() : '') . ')');
    }
    return pick(@{ $values{$type} });
}

sub condition
{
    my $luck = rand();
    my $operator = pick('<', '<=', '>=', '>');
    return pick('mobile IS NULL', 'followed_at IS NOT NULL', 'last_order_at IS NULL', 'true') if $luck < 0.1;
    return sprintf "did('%s', %s)", pick('purchase', 'cart', 'scan'), $interval->() if $luck < 0.25;
    return 'as_of - ' . value('at') . " $operator interval " . $interval->() if $luck < 0.45;
    return value('at') . " $operator as_of - interval " . $interval->() if $luck < 0.6;
    return value('at') . " + interval " . $interval->() . " $operator as_of" if $luck < 0.65;
    return "today $operator date '$base' + " . pick(1 .. 6) if $luck < 0.7;
    return value('at') . " $operator " . value('at') if $luck < 0.8;
    return value('number') . " $operator " . value('number');
}

sub rule
{
    my ($depth) = @_;
    my $luck = rand();
    return condition() if $depth == 0 || $luck > 0.6;
    return 'NOT (' . rule($depth - 1) . ')' if $luck < 0.15;
    return '(' . rule($depth - 1) . ') ' . pick('AND', 'OR') . ' (' . rule($depth - 1) . ')';
}

# ---- the second opinion: a profile of every contact at every moment at which something may change
sub prepare
{
    sql(<<SQL);
CREATE TABLE moment AS
SELECT c.contact_id, m.at
  FROM crm.contact c, LATERAL (
       SELECT '$base 00:00Z'::timestamptz - interval '1 day' AS at
       UNION SELECT generate_series('$base 16:00Z'::timestamptz - interval '1 day', '$end 00:00Z', '1 day')
       UNION SELECT f.occurred_at + d.i + k * interval '1 microsecond'
         FROM (SELECT occurred_at FROM crm.transaction t WHERE t.contact_id = c.contact_id
               UNION SELECT occurred_at FROM crm.event e WHERE e.contact_id = c.contact_id
               UNION SELECT occurred_at FROM crm.scan s WHERE s.contact_id = c.contact_id
               UNION SELECT ('$base'::date + 2 + time '07:13') AT TIME ZONE 'Asia/Shanghai') f,
              unnest('{0, 90 minutes, 10 hours, 1 day, 26 hours, 2 days, 1 month -3 days, 1 month -2 days, 1 month -1 day,
                       1 month, 1 month 1 day, 1 month 2 days, 1 month 3 days, 1 month 4 days}'::interval[]) AS d(i), generate_series(0, 1) k) m
 WHERE m.at >= '$base 00:00Z'::timestamptz - interval '1 day' AND m.at <= '$end 00:00Z';
CREATE TABLE net AS
SELECT o.contact_id, o.occurred_at, o.amount - coalesce(sum(r.amount), 0) AS amount
  FROM crm.transaction o LEFT JOIN crm.transaction r ON r.refund_of = o.transaction_id AND r.contact_id = o.contact_id
 WHERE o.kind = 'purchase' GROUP BY o.contact_id, o.transaction_id
HAVING o.amount = 0 OR o.amount > coalesce(sum(r.amount), 0);
CREATE TABLE state AS
SELECT m.contact_id, m.at AS as_of, (m.at AT TIME ZONE 'Asia/Shanghai')::date AS today, NULL::text AS mobile,
       (SELECT count(*) FROM net n WHERE n.contact_id = m.contact_id AND n.occurred_at <= m.at) AS orders,
       (SELECT coalesce(sum(n.amount), 0) FROM net n WHERE n.contact_id = m.contact_id AND n.occurred_at <= m.at) AS spend,
       (SELECT min(n.occurred_at) FROM net n WHERE n.contact_id = m.contact_id AND n.occurred_at <= m.at) AS first_order_at,
       (SELECT max(n.occurred_at) FROM net n WHERE n.contact_id = m.contact_id AND n.occurred_at <= m.at) AS last_order_at,
       (SELECT count(*) FROM crm.first_scan s WHERE s.contact_id = m.contact_id AND s.occurred_at <= m.at) AS scans,
       (SELECT count(*) FROM crm.scan s WHERE s.contact_id = m.contact_id AND s.occurred_at <= m.at) AS raw_scans,
       (SELECT count(*) FROM crm.event e WHERE e.contact_id = m.contact_id AND e.occurred_at <= m.at) AS events,
       (SELECT min(f.occurred_at) FROM (SELECT contact_id, occurred_at FROM crm.transaction WHERE kind = 'purchase' UNION ALL SELECT contact_id, occurred_at FROM crm.event
         UNION ALL SELECT contact_id, occurred_at FROM crm.scan) f WHERE f.contact_id = m.contact_id AND f.occurred_at <= m.at) AS first_seen_at,
       (SELECT max(f.occurred_at) FROM (SELECT contact_id, occurred_at FROM crm.transaction WHERE kind = 'purchase' UNION ALL SELECT contact_id, occurred_at FROM crm.event
         UNION ALL SELECT contact_id, occurred_at FROM crm.scan) f WHERE f.contact_id = m.contact_id AND f.occurred_at <= m.at) AS last_seen_at,
       NULL::timestamptz AS followed_at
  FROM moment m;
-- one account: followed since the follow after the last unfollow
UPDATE state s SET followed_at = (SELECT min(e.occurred_at) FROM crm.event e WHERE e.contact_id = s.contact_id AND e.kind = 'follow' AND e.occurred_at <= s.as_of
  AND NOT EXISTS (SELECT FROM crm.event u WHERE u.contact_id = e.contact_id AND u.kind = 'unfollow' AND u.occurred_at <= s.as_of
                  AND (u.occurred_at, u.event_id) > (e.occurred_at, e.event_id)));
ANALYZE;
SQL
}

my %facts = (
    purchase => 'net f WHERE true', scan => 'crm.scan f WHERE true', refund => q(crm.transaction f WHERE f.kind = 'refund'),
    map { $_ => "crm.event f WHERE f.kind = '$_'" } qw(cart page));

# what a rule function stands for
sub plain
{
    my ($rule) = @_;
    my $since = sub {
        my ($within) = @_;
        return ' AND f.contact_id = s.contact_id AND f.occurred_at <= s.as_of' . ($within ? " AND f.occurred_at > s.as_of - interval $within" : '');
    };
    $rule =~ s/times\('(\w+)'(?:, ('[^']*'))?\)/"(SELECT count(*) FROM $facts{$1}" . $since->($2) . ')'/ge;
    $rule =~ s/did\('(\w+)'(?:, ('[^']*'))?\)/"EXISTS (SELECT FROM $facts{$1}" . $since->($2) . ')'/ge;
    $rule =~ s/spent\(('[^']*')?\)/"coalesce((SELECT sum(f.amount) FROM net f WHERE true" . $since->($1) . '), 0)'/ge;
    return $rule;
}

sub compare
{
    my ($rules) = @_;
    my ($wrong, $moves, $timed) = (0, 0, 0);
    for my $n (1 .. $rules)
    {
    my $rule   = rule(2);
    my $plain  = plain($rule);
    my $quoted = $rule =~ s/'/''/gr;
    $quoted =~ s/"/\\"/g;
    my $out = sql(<<SQL);
DELETE FROM crm.stage_rule WHERE stage = 'asked';
SELECT crm.define_stage_rule('{"stage": "asked", "rule": "$quoted"}') \\g /dev/null
SELECT crm.tick() \\g /dev/null
SELECT 'now ' || p.contact_id FROM crm.profile p
 WHERE (p.stage = 'asked') IS DISTINCT FROM (p.contact_id IN (SELECT * FROM crm.audience(\$\$$rule\$\$)));
WITH asked AS MATERIALIZED (SELECT contact_id, as_of, coalesce($plain, false) AS holds FROM state s),
looked AS (SELECT a.*, lag(a.holds) OVER (PARTITION BY a.contact_id ORDER BY a.as_of) AS before FROM asked a),
expected AS (SELECT contact_id, as_of, holds FROM looked WHERE holds IS DISTINCT FROM before AND (before IS NOT NULL OR holds)),
found AS (SELECT m.contact_id, m.since AS as_of, m.stage = 'asked' AS holds, m.reason,
                 lag(m.stage = 'asked') OVER (PARTITION BY m.contact_id ORDER BY m.since) AS before FROM crm.stage_move m),
changes AS (SELECT contact_id, as_of, holds, reason FROM found WHERE holds IS DISTINCT FROM before AND (before IS NOT NULL OR holds))
SELECT 'history of ' || coalesce(e.contact_id, f.contact_id) || ': expected ' || coalesce(e.holds || ' ' || e.as_of, 'nothing')
       || ', found ' || coalesce(f.holds || ' ' || f.as_of || ' ' || f.reason, 'nothing')
  FROM expected e FULL JOIN changes f ON f.contact_id = e.contact_id AND f.as_of = e.as_of AND f.holds = e.holds
 WHERE e.contact_id IS NULL OR f.contact_id IS NULL;
SELECT 'verify ' || check_name || ' ' || coalesce(expected, '') || ' ' || coalesce(found, '') FROM crm.verify();
SELECT '= ' || count(*) || ' ' || count(*) FILTER (WHERE reason = 'time') FROM crm.stage_move WHERE stage = 'asked';
SQL
    if ($out =~ s/^= (\d+) (\d+)\n?//m) { $moves += $1; $timed += $2; }
    next if $out =~ /^\s*$/;
    diag("rule $n: $rule\n" . join("\n", (split /\n/, $out)[ 0 .. 5 ])) if $wrong++ < 5;
    }
    is($wrong, 0, "$db, $rules stage rules: who is in, when they came and when they left");
    cmp_ok($timed, '>', 0, "of $moves moves into the stage, $timed by time alone");
}

# months of one length, and months that end
for (['june', '2024-06-20', '2024-07-25'], ['february', '2024-02-25', '2024-04-05'])
{
    ($db, $base, $end) = @$_;
    crm_database($node, $db);
    $values_of->();
    record();
    prepare();
    compare($rules / 2);
}

$node->stop;
done_testing();
