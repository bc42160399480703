# Funnels and trends as pictures: well-formed, no text on another, nothing outside, whatever the names are and
# however many there are. Chromium measures them too, where it is there.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmPicture;
use CrmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{PG_CRM_SEED} || 1 + int rand 1_000_000;
note "PG_CRM_SEED=$seed";
srand $seed;

my $node = crm_node('pictures');
my $db = crm_database($node, 'shop');
my $clock = "SET pg_crm.clock = '2024-06-30 20:00+08'; ";
sub sql { return $node->safe_psql($db, $clock . shift) }
sub literal { my $s = shift; $s =~ s/'/''/g; return "'$s'" }
sub fails { my ($statement, $state, $what) = @_; my (undef, undef, $err) = $node->psql($db, "\\set VERBOSITY verbose\n$clock$statement"); like($err, qr/ERROR:  $state: .*HINT: /s, $what) }

# names of all sorts; also as keys of steps and kinds of events
my @names = (
    '<script>alert(1)</script>', ']]>', q{"quoted" 'twice' & <b>}, "tab\tand\x01control", "\xd7\xa9\xd7\x9c\xd7\x95\xd7\x9d \xe2\x80\xae gnp.exe", 'x' x 60,
    "\xe4\xb8\x8a\xe6\xb5\xb7\xe5\x8d\x97\xe4\xba\xac\xe8\xa5\xbf\xe8\xb7\xaf\xe6\x97\x97\xe8\x88\xb0\xe5\xba\x97", 'WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW', "\xf0\x9f\x8e\x81\xf0\x9f\x8e\x81 gift",
);

# ---------- before there is anything ----------

look_at('a trend of nothing', sql("SELECT crm.trend_svg('$_', '2024-01-01', '2024-02-01')")) for qw(stages contacts facts scans orders amounts awards points messages journeys);
look_at('a funnel of nothing', sql(q{SELECT crm.funnel_svg('["view", "cart", "purchase"]', '1 hour', '2024-01-01', '2024-02-01')}));
is(sql("SELECT count(*) FROM crm.trend('orders', '2024-01-01', '2024-02-01')"), 0, 'no series');
like(sql("SELECT crm.trend_svg('orders', '2024-01-01', '2024-01-01')"), qr/there is nothing in this period/, 'a period of no length');

# ---------- funnels ----------

sql(slurp_file('test/fixtures/journeys.sql'));
sql("INSERT INTO crm.contact (contact_id) SELECT generate_series(1, 200)");
sql("SELECT setseed(0.$seed), walk_journey($_(), 80)") for qw(three_steps sixty_steps chinese_steps one_step);
sub funnel { my ($journey, @more) = @_; return "crm.journey_funnel_svg(" . join(', ', literal($journey), "'2024-03-01'", "'2024-06-01'", @more) . ')' }

my $svg = look_at('a funnel', sql('SELECT ' . funnel('welcome')));
my @texts = map { $_->{text} } texts_of($svg);
is(join(' ', sort { $b <=> $a } map { /^(\d+)$/ && $1 > 3 ? $1 : () } @texts),
    sql("SELECT string_agg(entered::text, ' ' ORDER BY entered DESC) FROM crm.journey_funnel('welcome', '2024-03-01', '2024-06-01')"), 'its numbers are those of journey_funnel()');
is_deeply([ map { s/; median .*//r } grep { /\d went on/ } @texts ],
    [ split /\n/, sql("SELECT converted || ' went on (' || round(100.0 * converted / entered) || '%)' || CASE WHEN still_open > 0 THEN ', ' || still_open || ' still there' ELSE '' END
        || CASE WHEN dropped > 0 THEN ', ' || dropped || ' left the journey' ELSE '' END FROM crm.journey_funnel('welcome', '2024-03-01', '2024-06-01')") ], 'and so are their parts');
my ($track) = boxes_of($svg, 'bar-track');
for my $part ([ 'talk', 'converted' ], [ 'wait', 'still_open' ], [ 'lost', 'dropped' ])
{
    my ($class, $column) = @$part;
    my @bars = grep { $_->{height} == $track->{height} } boxes_of($svg, $class);
    my @widths = split /\n/, sql("SELECT $column * $track->{width} / (SELECT max(entered) FROM crm.journey_funnel('welcome', '2024-03-01', '2024-06-01'))
        FROM crm.journey_funnel('welcome', '2024-03-01', '2024-06-01') WHERE $column > 0 ORDER BY position");
    is_deeply([ grep { abs($bars[$_]{width} - $widths[$_]) > 0.2 } 0 .. $#widths ], [], "bars are as long as $column says");
}
look_at('a funnel of 60 steps', sql('SELECT ' . funnel('programme')));
look_at('a funnel of one step', sql('SELECT ' . funnel('one')));
$svg = look_at('a funnel in Chinese', sql('SELECT ' . funnel('新会员欢迎旅程：扫码关注后的七天')));
like($svg, qr/>欢迎消息</, 'a label stands for the name');
$svg = look_at('a funnel by the time of steps', sql('SELECT ' . funnel('welcome', "'event'", 'NULL', 'NULL', "'America/New_York'")));
like($svg, qr/who came to the step from 2024-02-29 19:00 until before 2024-05-31 20:00, America\/New_York/, 'says so, with the period in the zone asked for');
unlike($svg, qr/of the first/, 'and compares no step with the first');
look_at('a funnel of nobody', sql("SELECT crm.journey_funnel_svg('welcome', '2020-01-01', '2020-02-01')"));
sql("SELECT walk_journey(jsonb_set(three_steps(), '{steps,hello,next}', 'null'), 40)");
$svg = look_at('a funnel of two versions', sql('SELECT ' . funnel('welcome')));
like($svg, qr/>version 1<.*>version 2</s, 'has both');
unlike(sql('SELECT ' . funnel('welcome', "'entry'", 'NULL', '2')), qr/version/, 'or one');

my $steps = join ', ', map { my $i = $_; "jsonb_build_object('kind', 'tag', 'label', " . literal($names[$i] =~ s/\x00//gr) . ", 'next', " . ($i < $#names ? "'s" . ($i + 1) . "'" : 'NULL') . ')' } 0 .. $#names;
sql("SELECT walk_journey(jsonb_build_object('journey', " . literal($names[0] . $names[6]) . ", 'start', 's0', 'entry', '[{\"on\": \"follow\"}]'::jsonb, 'steps',
    (SELECT jsonb_object_agg('s' || (n - 1), b) FROM unnest(ARRAY[$steps]) WITH ORDINALITY AS s(b, n))), 60)");
$svg = look_at('a funnel of hostile names', sql('SELECT ' . funnel($names[0] . $names[6])));
like($svg, qr/&lt;script&gt;alert\(1\)&lt;\/script&gt;/, 'they are text');
like($svg, qr/<title>W{40}<\/title>/, 'the whole of one that was cut is the tooltip');
unlike($svg, qr/\xe2\x80\xae/, 'and nothing turns what stands behind it');

fails("SELECT crm.journey_funnel_svg('welcom', '2024-03-01', '2024-06-01')", '23503', 'an unknown journey');
fails("SELECT crm.journey_funnel_svg('welcome', '2024-06-01', '2024-03-01')", '22023', 'a reversed period');
fails("SELECT crm.journey_funnel_svg('welcome', '2024-03-01', 'infinity')", '22008', 'an infinite one');
fails("SELECT crm.journey_funnel_svg('welcome', NULL, '2024-06-01')", '22004', 'none');
fails("SELECT crm.journey_funnel_svg('welcome', '2024-03-01', '2024-06-01', 'day')", '22023', 'an unknown time');
fails("SELECT crm.journey_funnel_svg('welcome', '2024-03-01', '2024-06-01', time_zone => 'Asia/Nowhere')", '22023', 'an unknown zone');
fails("SELECT crm.journey_funnel_svg('welcome', '2024-03-01', '2024-06-01', version => 7)", '23503', 'an unknown version');

# ---------- funnels of facts ----------

sub facts { my (@more) = @_; return 'crm.funnel_svg(' . facts_of(@more) }
sub facts_of { my (@more) = @_; return join(', ', q{'["follow", {"name": "买", "on": "purchase"}, {"name": "<script>", "on": "purchase"}]', '40 days', '2024-04-01 00:00+08', '2024-07-01 00:00+08'}, @more) . ')' }

look_at('a funnel of no facts', sql('SELECT ' . facts()));
sql("INSERT INTO crm.event (contact_id, kind, occurred_at) SELECT n, 'follow', '2024-04-05 00:00+08'::timestamptz + n * interval '9 hours' FROM generate_series(1, 200) AS n");
sql("INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref) SELECT n, 10, '2024-04-10 00:00+08'::timestamptz + n * interval '9 hours' + k * interval '3 days', 'f' || k
     FROM generate_series(1, 200) AS n, generate_series(1, 3) AS k WHERE k <= n % 4 AND n <= 190");
$svg = look_at('a funnel of facts', sql('SELECT ' . facts()));
@texts = map { $_->{text} } texts_of($svg);
is(join(' ', map { /^(\d\d+)$/ ? $1 : () } @texts), sql("SELECT string_agg(reached::text, ' ' ORDER BY step) FROM crm.fact_funnel(" . facts_of()), 'its numbers are those of fact_funnel()');
is_deeply([ map { /^(\d+) went on/ ? $1 : () } @texts ], [ split /\n/, sql('SELECT converted FROM crm.fact_funnel(' . facts_of() . ' WHERE step < 3 ORDER BY step') ], 'none goes on from the last step');
like($svg, qr/>&lt;script&gt;</, 'a hostile name is text');
$svg = look_at('a funnel by day', sql('SELECT ' . facts("split_by => 'day'", "time_zone => 'America/New_York'")));
is(scalar(grep { /^day / } map { $_->{text} } texts_of($svg)), sql('SELECT count(DISTINCT part) FROM crm.fact_funnel(' . facts_of("split_by => 'day'", "time_zone => 'America/New_York'")), 'has a heading for each');
$svg = look_at('a funnel of some', sql('SELECT ' . facts("stage => 'user'", "source => NULL", "by_time => 'event'", "filter => 'orders < 3'")));
like($svg, qr/; stage user; rule orders &lt; 3</, 'says of whom');
fails('SELECT ' . facts("by_time => 'day'"), '22023', 'an unknown time');
fails('SELECT ' . facts("stage => 'nobody'"), '23503', 'an unknown stage');
fails("SELECT crm.funnel_svg('[]', '1 day', '2024-03-01', '2024-06-01')", '22023', 'no steps');
fails("SELECT crm.funnel_svg('[\"follow\"]', '-1 day', '2024-03-01', '2024-06-01')", '22023', 'a negative window');
fails("SELECT crm.funnel_svg('[\"follow\"]', '1 day', '2024-03-01', '2024-02-01')", '22023', 'a reversed period');
fails("SELECT crm.funnel_svg('[\"follow\"]', NULL, '2024-03-01', '2024-04-01')", '22004', 'no window');

# ---------- trends ----------

sql("INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2024-02-01 00:00+08'::timestamptz + n * interval '5 hours' FROM generate_series(201, 600) AS n");
sql("INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref)
     SELECT n, 20 + n % 7 + 0.25, '2024-03-01 12:00+08'::timestamptz + (n * n * 7 % 2800) * interval '1 hour', k FROM generate_series(1, 300) AS n, generate_series(1, 3) AS k WHERE k <= n % 4");
sql("INSERT INTO crm.event (contact_id, kind, occurred_at) SELECT n, CASE n % 3 WHEN 0 THEN 'unfollow' ELSE 'follow' END, '2024-05-01 00:00+08'::timestamptz + (n * n % 1400) * interval '1 hour' FROM generate_series(1, 300) AS n");
my $days = "'2024-02-20 00:00+08', '2024-07-10 00:00+08'";

for my $zone (qw(Asia/Shanghai America/New_York Australia/Lord_Howe))
{
    for my $bucket (qw(day week month))
    {
        is(sql("SELECT count(*) FROM (SELECT day, value FROM crm.trend('orders', $days, '$zone', '$bucket') WHERE value <> 0
               EXCEPT ALL SELECT date_trunc('$bucket', occurred_at AT TIME ZONE '$zone')::date, count(*) FROM crm.transaction GROUP BY 1) AS d"), 0, "orders by $bucket in $zone are counted");
        is(sql("SELECT sum(value) FROM crm.trend('orders', $days, '$zone', '$bucket')"), sql("SELECT count(*) FROM crm.transaction"), 'all of them');
    }
}
is(sql("SELECT count(*) FROM (SELECT day, series, value::bigint FROM crm.trend('stages', $days) WHERE value IS NOT NULL
        EXCEPT SELECT day, stage, contacts FROM crm.stage_daily) AS d"), 0, 'stages are those of stage_daily');
is(sql("SELECT string_agg(series, ' ' ORDER BY n) FROM (SELECT DISTINCT ON (series) series, n FROM crm.trend('stages', $days) WITH ORDINALITY AS t(day, series, value, complete, n) ORDER BY series, n) AS s"),
    'user lead qualified_lead opportunity intent paying loyal other', 'in order of rank');
is(sql("SELECT sum(value) FROM crm.trend('amounts', '2024-04-01', '2024-05-01')"), sql("SELECT sum(amount) FROM crm.transaction WHERE occurred_at >= '2024-04-01' AND occurred_at < '2024-05-01'"), 'amounts are exact');
is(sql("SELECT string_agg(DISTINCT day::text, ' ') FROM crm.trend('orders', $days) WHERE value IS NULL AND day < '2024-03-04'"),
    join(' ', map { sprintf '2024-02-%02d', $_ } 20 .. 29), 'nothing is known before the first order');
is(sql("SELECT min(day) FROM crm.trend('orders', $days) WHERE value IS NULL AND day > '2024-03-04'"), '2024-07-01', 'nor of days to come');
is(sql("SELECT string_agg(day::text, ' ' ORDER BY day) FROM crm.trend('contacts', '2024-06-20 12:00+08', '2024-07-10') WHERE series = 'follow' AND NOT complete AND value IS NOT NULL"), '2024-06-20 2024-06-30', 'days of which a part counts are not complete');

$svg = look_at("a trend of $_", sql("SELECT crm.trend_svg('$_', $days)")) for qw(stages contacts facts orders amounts awards journeys messages);
$svg = sql("SELECT crm.trend_svg('orders', $days)");
is(scalar(() = $svg =~ /class="crm-unknown"/g), 2, 'what is not known is grey, before and behind');
like($svg, qr/class="crm-unfinished"/, 'and today is dashed');
is(scalar(() = $svg =~ /class="crm-area"/g), 1, 'one series is one area');
unlike($svg, qr/class="crm-curve" d="M[^"]*M/, 'in one piece');
$svg = look_at('a trend of stages with names set aside', sql("SELECT crm.trend_svg('stages', $days)"));
like($svg, qr/none at any time: .*intent/, 'stages that had nobody are named');
look_at("a trend of $_->[0]", sql("SELECT crm.trend_svg('facts', $_->[1])"))
  for [ 'one day', "'2024-05-05 00:00+08', '2024-05-06 00:00+08'" ], [ 'two days', "'2024-05-05 00:00+08', '2024-05-07 00:00+08'" ], [ 'an hour', "'2024-05-05 09:00+08', '2024-05-05 10:00+08'" ],
  [ 'ten years', "'2014-05-05', '2024-06-29'" ], [ 'a hundred years', "'1925-05-05', '2024-06-29'" ], [ 'the future', "'2030-01-01', '2030-02-01'" ], [ 'the day of the change of the clock', "'2024-03-09', '2024-03-12', 'America/New_York'" ];

sql("INSERT INTO crm.event (contact_id, kind, occurred_at) SELECT 1 + n % 300, 'kind ' || n % 60, '2024-05-01'::timestamptz + n * interval '20 minutes' FROM generate_series(1, 3000) AS n");
$svg = look_at('a trend of 60 kinds', sql("SELECT crm.trend_svg('facts', '2024-05-01', '2024-06-15')"));
is(scalar(grep { $_->{text} =~ /^kind \d+$/ } texts_of($svg)), 60, 'a row each');
for my $n (1 .. 8)
{
    sql("INSERT INTO crm.journey (journey, version) VALUES ('j$n', 1)");
    sql("INSERT INTO crm.enrolment (contact_id, journey, version, key, entered_at, recorded_at, step_at, entered_by)
         SELECT c, 'j$n', 1, c, at, at, at, 'follow' FROM (SELECT c, '2024-01-01'::timestamptz + $n * interval '10 days' + c * interval '3 hours' AS at FROM generate_series(1, 40) AS c) AS s");
    look_at("a trend of journeys, $n of them in a time of their own", sql("SELECT crm.trend_svg('journeys', '2024-01-01', '2024-02-29')"));
}
my $kind = 0;
sql("INSERT INTO crm.event (contact_id, kind, occurred_at) SELECT n, left(" . literal($_) . ", 20), '2023-05-01'::timestamptz + n * interval '5 hours' FROM generate_series(1, " . (60 - 3 * $kind++) . ") AS n") for @names;
$svg = look_at('a trend of hostile names', sql("SELECT crm.trend_svg('facts', '2023-04-25', '2023-05-15')"));
like($svg, qr/&lt;script&gt;alert/, 'they are text');

fails("SELECT * FROM crm.trend('sales', $days)", '22023', 'an unknown measure');
fails("SELECT crm.trend_svg('sales', $days)", '22023', 'of a picture too');
fails("SELECT crm.trend_svg('orders', $days, 'Asia/Nowhere')", '22023', 'an unknown zone');
fails("SELECT crm.trend_svg('orders', $days, bucket => 'year')", '22023', 'an unknown bucket');
fails("SELECT crm.trend_svg('orders', '2024-06-01', '2024-03-01')", '22023', 'a reversed period');
fails("SELECT crm.trend_svg('orders', '-infinity', '2024-03-01')", '22008', 'an infinite period');
fails("SELECT crm.trend_svg('orders', '1024-06-01', '2024-03-01')", '22023', 'a thousand years');
fails("SELECT crm.trend_svg(NULL, $days)", '22004', 'nothing');

# ---------- who may see them ----------

sql("CREATE ROLE shop_nobody; GRANT USAGE ON SCHEMA crm TO shop_nobody; CREATE ROLE shop_bi; SELECT crm.grant_access('shop_bi', 'analyst')");
for my $call (funnel('welcome'), facts(), "crm.trend_svg('facts', $days)", "(SELECT count(*) FROM crm.trend('facts', $days))")
{
    ok($node->psql($db, "SET ROLE shop_bi; SELECT $call") == 0, "an analyst sees $call");
    like(($node->psql($db, "SET ROLE shop_nobody; SELECT $call"))[2], qr/permission denied/, 'nobody else does');
}
fails("SET ROLE shop_bi; SELECT " . funnel('welcome', "'entry'", "'spend > 5'"), '42501', 'but asks for nobody by a rule');

# ---------- under any settings of the session ----------

{
    my $drawn = "SELECT crm.funnel_svg('[\"follow\", \"purchase\"]', '30 days 2 hours', $days, split_by => 'day'), crm.trend_svg('orders', $days), "
      . "crm.journey_funnel_svg('welcome', $days), crm.report_html('2024-04-01 00:00+08', '2024-06-01 00:00+08')";
    my $settings = "SET pg_crm.clock = '2024-06-30 20:00+08'; SET timezone = 'America/Sao_Paulo'; SET intervalstyle = 'iso_8601'; SET datestyle = 'German, DMY'; SET extra_float_digits = -10; SET search_path = '';";
    ok(sql($drawn) eq $node->safe_psql($db, "$settings $drawn"), 'pictures are the same under any settings');
}

# ---------- amounts of any size ----------

for my $amount ('1e30', '1e300', '1e400')
{
    sql("SELECT crm.purchase(1, $amount, '2019-05-05', 'of $amount')");
    my @texts = map { $_->{text} } texts_of(look_at("a trend with $amount", sql("SELECT crm.trend_svg('amounts', '2019-05-01', '2019-06-01')")));
    is(scalar(grep { /^\de\+(?:30|29|300|299)$/ } @texts) > 0, 1, 'a scale that can be read');
}
like(sql("SELECT crm.report_html('2019-05-01', '2019-06-01')"), qr/<title>Amounts of orders/, 'the page is drawn too');

# ---------- in an encoding that is not UTF8 ----------

$node->safe_psql('postgres', "CREATE DATABASE guobiao TEMPLATE template0 ENCODING 'EUC_CN' LOCALE 'C'");
$node->safe_psql('guobiao', "SET client_encoding = 'UTF8'; CREATE EXTENSION pg_crm; SET client_min_messages = error; SELECT crm.install();
    INSERT INTO crm.account (kind, name) VALUES ('official_account', '\xe6\x97\x97\xe8\x88\xb0\xe5\xba\x97');
    SELECT crm.define_achievement('{\"name\": \"\xe6\x97\x97\xe8\x88\xb0\xe5\xba\x97<\", \"on_kind\": \"x\"}');
    SELECT crm.follow('\xe6\x97\x97\xe8\x88\xb0\xe5\xba\x97', 'o1')");
look_at("$_ in EUC_CN", $node->safe_psql('guobiao', "SET client_encoding = 'UTF8'; SELECT crm.$_"))
  for "timeline_svg(1)", "trend_svg('contacts', '2024-06-01', '2024-07-01')", "funnel_svg('[\"follow\", {\"on\": \"scan\", \"name\": \"\xe6\x97\x97\xe8\x88\xb0\"}]', '1 day', '2024-06-01', '2024-07-01')";

# ---------- as a browser has them ----------

look_at_all_in_browser();
done_testing();
