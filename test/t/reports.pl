# Cohorts and attribution of random facts, against what slow and obvious code makes of them:
# cohorts against SQL that looks at every contact and unit by itself, attribution against a loop
# over conversions and touches.
#
# CRM_SEED=n repeats a run, CRM_ROUNDS=n says how many reports of each are compared.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use List::Util qw(min sum0 shuffle);
use Test::More;

my $seed   = $ENV{CRM_SEED}   // int(rand(1_000_000));
my $rounds = $ENV{CRM_ROUNDS} // 25;
srand($seed);
diag("CRM_SEED=$seed");

my $contacts = 60;
my $node     = crm_node('reports');
crm_database($node, 'reports');
my $start = '2024-02-20 00:00+08';

sub pick { return $_[ int(rand(@_)) ] }
sub sql  { return $node->safe_psql('reports', "SET pg_crm.clock = '2024-06-01 12:00+08'; SET TimeZone = 'UTC'; $_[0]") }

# times of which many are equal, around midnights and a change of clocks in New York
sub at
{
    my $hours = rand() < 0.5 ? 8 * int(rand(250)) : rand(2000);
    return sprintf q{'%s'::timestamptz + interval '%.6f hours'}, $start, $hours;
}

sub insert
{
    my ($into, $n, $row) = @_;
    return "INSERT INTO crm.$into VALUES " . join(', ', map { '(' . join(', ', $row->($_)) . ')' } 1 .. $n) . ';';
}

my $who = sub { return 1 + int(rand($contacts)) };
my $setup = join "\n",
  "INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2024-01-01' FROM generate_series(1, $contacts + 5) AS n;",
  "INSERT INTO crm.account (account_id, kind, name) VALUES (1, 'official_account', 'oa'), (2, 'sms', 'sms');",
  "INSERT INTO crm.store (store_id, name) VALUES (1, 'one'), (2, 'two');",
  insert('qr_code (qr_code_id, account_id, scene, store_id, campaign, associate_id)', 8,
    sub { return ($_[0], 1, "'s$_[0]'", pick(1, 2, 'NULL'), pick(q{'spring'}, q{'a#1'}, 'NULL'), pick(7, 8, 'NULL', 'NULL')) }),
  insert('transaction (contact_id, transaction_id, amount, currency, occurred_at)', 400,
    sub { return ($who->(), $_[0], pick(0, 10, 10, 25, 40), pick(q{'CNY'}, q{'CNY'}, q{'CNY'}, q{'USD'}), at()) }),
  insert('event (contact_id, event_id, kind, occurred_at, properties)', 400,
    sub { return ($who->(), $_[0], pick(q{'cart'}, q{'page'}), at(), sprintf q{'{"n": %d}'::jsonb}, rand(5)) }),
  insert('scan (contact_id, scan_id, qr_code_id, occurred_at)', 300, sub { return ($who->(), $_[0], 1 + int(rand(8)), at()) }),
  insert('message (contact_id, message_id, account_id, template, template_version, channel, class, state, send_key, sent_at)', 300,
    sub {
        my $state = pick(qw(sent sent sent waiting failed unknown));
        return ($who->(), $_[0], 2, q{'t'}, 1, q{'sms'}, q{'marketing'}, "'$state'", rand() < 0.5 ? sprintf(q{'campaign:%s#%d'}, pick('spring', 'gone'), $_[0]) : rand() < 0.2 ? "'own $_[0]'" : 'NULL',
            $state =~ /sent|waiting/ ? at() : 'NULL');
    }),
  "INSERT INTO crm.campaign (name, template) VALUES ('spring', 't'), ('spring#4', 't'), ('spring#8', 't');",
  "INSERT INTO crm.step_visit (contact_id, enrolment_id, visit, version, journey, step, entered_at, message_id)
   SELECT contact_id, message_id, 1, 1, 'journey' || message_id % 3, 'hello', '2024-03-01', message_id FROM crm.message WHERE send_key IS NULL;",
  "INSERT INTO crm.transaction (contact_id, transaction_id, kind, amount, currency, occurred_at, refund_of)
   SELECT contact_id, transaction_id + 10000, 'refund', CASE WHEN transaction_id % 2 = 0 THEN amount ELSE amount / 4 END, currency, occurred_at + interval '2 days', transaction_id
     FROM crm.transaction WHERE amount > 0 AND transaction_id % 5 < 2;";
sql($setup);
# some are merged, some are gone
sql(join '', map { "SELECT crm.merge($_, " . ($_ + 1) . ", 'the same');" } 1, 11, 21);
sql(q{ALTER TABLE crm.contact DISABLE TRIGGER USER; DELETE FROM crm.contact WHERE contact_id IN (31, 41); ALTER TABLE crm.contact ENABLE TRIGGER USER;});

# ---- facts and rules as plain SQL over alias f
my %facts = (
    purchase => q{(SELECT o.contact_id, o.transaction_id AS id, o.occurred_at, o.currency, o.amount - coalesce((SELECT sum(r.amount) FROM crm.transaction r WHERE r.refund_of = o.transaction_id), 0) AS amount, o.amount AS gross, NULL::jsonb AS properties FROM crm.transaction o WHERE o.kind = 'purchase')},
    refund => q{(SELECT contact_id, transaction_id AS id, occurred_at, currency, amount, 0 AS gross, NULL::jsonb AS properties FROM crm.transaction WHERE kind = 'refund')},
    scan => q{(SELECT contact_id, scan_id AS id, occurred_at, NULL AS currency, NULL::numeric AS amount, 0 AS gross, NULL::jsonb AS properties FROM crm.scan)},
    map { $_ => "(SELECT contact_id, event_id AS id, occurred_at, NULL AS currency, NULL::numeric AS amount, 0 AS gross, properties FROM crm.event WHERE kind = '$_')" } qw(cart page));
my %rules = (
    purchase => [ [ 'fact.amount > 9', 'f.amount > 9' ], [ q{fact.currency = 'CNY'}, q{f.currency = 'CNY'} ],
        [ q{fact.amount >= 10 AND spend > 60}, 'f.amount >= 10 AND (SELECT p.spend FROM crm.profile_counter p WHERE p.contact_id = f.contact_id) > 60' ] ],
    refund => [ [ 'fact.amount < 10', 'f.amount < 10' ] ],
    scan   => [ [ 'scans > 2', '(SELECT p.scans FROM crm.profile_counter p WHERE p.contact_id = f.contact_id) > 2' ] ],
    map { my $kind = $_; $kind => [ [ q{(fact.properties ->> 'n')::int < 3}, q{(f.properties ->> 'n')::int < 3} ],
        [ q{times('cart', '9 days') > 1}, q{(SELECT count(*) FROM crm.event e WHERE e.contact_id = f.contact_id AND e.kind = 'cart' AND e.occurred_at <= f.occurred_at
              AND e.occurred_at > (f.occurred_at AT TIME ZONE 'Asia/Shanghai' - interval '9 days') AT TIME ZONE 'Asia/Shanghai') > 1} ] ] } qw(cart page));

sub some_facts
{
    my ($kind) = @_;
    my $rule = rand() < 0.5 ? [ undef, 'true' ] : pick(@{ $rules{$kind} });
    return ($rule->[0], "SELECT f.* FROM $facts{$kind} f WHERE NOT (f.gross > 0 AND f.amount = 0) AND ($rule->[1])");
}

sub quoted { return defined $_[0] ? "'" . ($_[0] =~ s/'/''/gr) . "'" : 'NULL' }

sub same
{
    my ($got, $expected, $name) = @_;
    is($got, $expected, $name) or diag("CRM_SEED=$seed");
}

# ---- cohorts
my $cells = 0;
for my $round (1 .. $rounds)
{
    my ($from, $to) = (pick(keys %facts), pick(keys %facts));
    my ($start_rule, $start_sql)   = some_facts($from);
    my ($return_rule, $return_sql) = some_facts($to);
    my $unit      = pick(qw(day week month));
    my $zone      = pick('UTC', 'Asia/Shanghai', 'America/New_York', 'Pacific/Apia');
    my $retention = pick(qw(classic rolling));
    my $periods   = pick(1, 3, 8);
    my @days      = sort { $a <=> $b } map { int(rand(80)) } 1 .. 2;
    my ($begin, $end) = map { "('$start'::timestamptz + interval '$_ days')" } @days;
    my $as_of = rand() < 0.5 ? at() : q{'2024-06-01 12:00+08'::timestamptz};
    my $call  = join ', ', quoted($from), quoted($to), $begin, $end, quoted($unit), $periods, quoted($start_rule), quoted($return_rule), quoted($zone), quoted($retention), $as_of;
    my $got = sql("SELECT * FROM crm.cohort($call) ORDER BY 1, 3");
    my $slow = sql(qq{
        CREATE TEMP TABLE s AS $start_sql; CREATE TEMP TABLE r AS $return_sql;
        CREATE TEMP TABLE member AS
        SELECT c.contact_id, n.occurred_at, n.id, date_trunc('$unit', n.occurred_at AT TIME ZONE '$zone') AS unit
          FROM crm.contact c CROSS JOIN LATERAL (SELECT * FROM s WHERE s.contact_id = c.contact_id AND s.occurred_at <= $as_of ORDER BY s.occurred_at, s.id LIMIT 1) n
         WHERE n.occurred_at >= $begin AND n.occurred_at < $end;
        SELECT x.unit::date, x.contacts, x.k, x.returned, CASE WHEN x.complete THEN round(x.returned::numeric / x.contacts, 4) END, x.complete
          FROM (SELECT m.unit, k, count(*) AS contacts, (m.unit + (k + 1) * interval '1 $unit') AT TIME ZONE '$zone' <= $as_of AS complete,
                       count(*) FILTER (WHERE EXISTS (SELECT FROM r WHERE r.contact_id = m.contact_id AND r.occurred_at >= m.occurred_at AND r.occurred_at <= $as_of
                           AND NOT ('$from' = '$to' AND r.id = m.id)
                           AND CASE '$retention' WHEN 'classic' THEN date_trunc('$unit', r.occurred_at AT TIME ZONE '$zone') = m.unit + k * interval '1 $unit'
                                    ELSE date_trunc('$unit', r.occurred_at AT TIME ZONE '$zone') >= m.unit + k * interval '1 $unit' END)) AS returned
                  FROM member m, generate_series(0, $periods - 1) AS k
                 WHERE (m.unit + k * interval '1 $unit') AT TIME ZONE '$zone' <= $as_of GROUP BY m.unit, k) AS x ORDER BY 1, 3});
    same($got, $slow, "cohort($call)");
    $cells += () = $got =~ /\n/g;
    my $rows = sql(qq{SELECT count(*) FROM crm.cohort($call) c WHERE contacts <> (SELECT count(*) FROM crm.cohort_rows($call, c.cohort_start))
        OR returned <> (SELECT count(*) FROM crm.cohort_rows($call, c.cohort_start, c.unit_offset))}) if $round % 5 == 0 && $got !~ /(.*\n){60}/;
    is($rows, 0, 'the rows behind it') if defined $rows;
}
cmp_ok($cells, '>', $rounds, "$cells cells were compared");

# ---- attribution
sub table { return map { [ split /\|/, $_, -1 ] } split /\n/, sql($_[0]) }
my @codes    = table('SELECT qr_code_id, store_id, campaign, associate_id FROM crm.qr_code');
my %code     = map { $_->[0] => { code => $_->[0], store => $_->[1], campaign => $_->[2], associate => $_->[3] } } @codes;
my %campaign = map { $_->[0] => 1 } table('SELECT name FROM crm.campaign');
my @scans    = table('SELECT contact_id, scan_id, extract(epoch FROM occurred_at) * 1000000, qr_code_id FROM crm.scan');
my @messages = table(q{SELECT contact_id, message_id, extract(epoch FROM sent_at) * 1000000, send_key, (SELECT min(journey) FROM crm.step_visit v WHERE v.message_id = m.message_id) FROM crm.message m WHERE state = 'sent'});
my $credits = 0;

sub touch_of_message
{
    my ($key, $journey, %listed) = @_;
    return ('journey', $journey) if $journey ne '' && $listed{journey};
    return unless $listed{campaign} && $key =~ /^campaign:(.*)/s;
    my $name = $1;
    $name =~ s/#\d+$// if !$campaign{$name};
    return ('campaign', $name);
}

for my $round (1 .. $rounds)
{
    my $kind = pick(qw(purchase scan cart));
    my ($rule, $facts) = some_facts($kind);
    my @touches = (shuffle(qw(associate campaign code journey store)))[ 0 .. int(rand(5)) ];
    my %listed  = map { $_ => 1 } @touches;
    my $model   = pick(qw(first last linear linear every));
    my $hours   = pick(1, 48, 720);
    my @days    = sort { $a <=> $b } map { int(rand(90)) } 1 .. 2;
    my ($begin, $end) = map { "('$start'::timestamptz + interval '$_ days')" } @days;
    sql(sprintf q{SELECT crm.define_attribution(jsonb_strip_nulls(jsonb_build_object('name', 'r', 'on_kind', '%s', 'rule', %s, 'touches', '{%s}'::text[], 'model', '%s', 'look_back', '%d hours')))},
        $kind, quoted($rule), join(',', @touches), $model, $hours);
    my @got = sort split /\n/, sql("SELECT conversion_id, touch, coalesce(object, ''), coalesce(touch_id::text, ''), trunc(credit, 9) FROM crm.attribution_rows('r', $begin, $end)");

    my (@want, $n);
    for my $conversion (table("SELECT contact_id, id, extract(epoch FROM occurred_at) * 1000000 FROM ($facts) x WHERE occurred_at >= $begin AND occurred_at < $end AND contact_id IN (SELECT contact_id FROM crm.contact)"))
    {
        my ($contact, $id, $time) = @$conversion;
        my @linked;
        $n++;
        for my $scan (@scans)
        {
            next if $scan->[0] != $contact || $scan->[2] > $time || $scan->[2] < $time - $hours * 3600e6 || $kind eq 'scan' && $scan->[1] == $id;
            my ($touch) = grep { ($code{ $scan->[3] }{$_} // '') ne '' } @touches;
            push @linked, [ $scan->[2], 's', $scan->[1], $touch, $code{ $scan->[3] }{$touch} ] if defined $touch;
        }
        for my $message (@messages)
        {
            next if $message->[0] != $contact || $message->[2] > $time || $message->[2] < $time - $hours * 3600e6;
            my ($touch, $object) = touch_of_message(@$message[ 3, 4 ], %listed);
            push @linked, [ $message->[2], 'm', $message->[1], $touch, $object ] if defined $touch;
        }
        @linked = sort { $a->[0] <=> $b->[0] || $a->[1] cmp $b->[1] || $a->[2] <=> $b->[2] } @linked;
        my %last = map { ("$_->[3] $_->[4]" => $_) } @linked;
        my $part = @linked && int(1e9 / @linked);
        my @with =
            !@linked            ? ([ [ 0, '', '', 'none', '' ], 1e9 ])
          : $model eq 'first'   ? ([ $linked[0], 1e9 ])
          : $model eq 'last'    ? ([ $linked[-1], 1e9 ])
          : $model eq 'linear'  ? map { [ $linked[$_], $_ < $#linked ? $part : 1e9 - $part * $#linked ] } 0 .. $#linked
          :                       map { [ $_, 1e9 ] } values %last;
        push @want, map { sprintf '%s|%s|%s|%s|%d.%09d', $id, @{ $_->[0] }[ 3, 4, 2 ], $_->[1] / 1e9, $_->[1] % 1e9 } @with;
    }
    # as they are printed: 1.0 has no more digits
    s/\|1\.0$/|1.000000000/ for @got;
    same(join("\n", @got), join("\n", sort @want), sprintf 'attribution of %s%s, %s of %s within %d hours: %d credits', $kind, defined $rule ? " where $rule" : '', $model, join('+', @touches), $hours, scalar @want);
    $credits += @want;
    is(sql("SELECT coalesce(sum(conversions), 0) = " . ($n // 0) . " FROM crm.attribution_report('r', $begin, $end)"), 't', 'each conversion once') if $model ne 'every';
}
cmp_ok($credits, '>', $rounds, "$credits credits were compared");
done_testing();
