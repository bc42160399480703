# report_html(): a page that is well-formed, holds nothing from elsewhere and nothing that says who a contact is,
# and whose numbers are those of the tables.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmPicture;
use CrmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = crm_node('report');
my $db = crm_database($node, 'shop');
my $clock = "SET pg_crm.clock = '2024-06-30 20:00+08'; ";
sub sql { return $node->safe_psql($db, $clock . shift) }
sub fails { my ($statement, $state, $what) = @_; my (undef, undef, $err) = $node->psql($db, "\\set VERBOSITY verbose\n$clock$statement"); like($err, qr/ERROR:  $state: .*HINT: /s, $what) }

my @sections = qw(glance stages contacts scans orders journeys maps messages campaigns loyalty quality);

sub look_at
{
    my ($name, $html) = @_;
    is(xml_errors($html), '', "$name: is XML");
    like($html, qr/^<!DOCTYPE html>\n<html lang="en"/, "$name: is HTML");
    is(join(' ', $html =~ /<section id="(\w+)">/g), "@sections", "$name: has all sections");
    is(join(' ', $html =~ /<a href="#(\w+)">/g), "@sections", "$name: and a list of them");
    is_deeply([ grep { $_ ne 'http://www.w3.org/1999/xhtml' && $_ ne 'http://www.w3.org/2000/svg' } $html =~ /\b(?:xmlns|src|href)\s*=\s*["']?([^"'#\s>]+)/g ], [], "$name: nothing from elsewhere");
    unlike($html, qr/<(?:script|link|img|iframe|object|embed|form)\b|\bon\w+="|\@import|url\(/i, "$name: and nothing that runs");
    is(scalar(() = $html =~ /\.crm-paper\{fill:#ffffff\}/g), 1, "$name: one style sheet for all pictures");
    like($html, qr/prefers-color-scheme:dark.*\@media print/s, "$name: for dark screens and for paper");
    for my $svg ($html =~ /(<svg .*?<\/svg>)/gs)
    {
        my ($title) = $svg =~ /<title>(.*?)<\/title>/;
        my @texts = texts_of($svg);
        is_deeply([ overlaps(\@texts, \@texts) ], [], "$name: no text on another in $title");
    }
    return $html;
}

# rows of the table with this caption: cells
sub table
{
    my ($html, $caption) = @_;
    my ($table) = $html =~ /<caption>\Q$caption\E<\/caption>\n<thead>\n(.*?)<\/table>/s or return;
    return map { [ map { s/<[^>]*>//gr } /<t[dh][^>]*>(.*?)<\/t[dh]>/g ] } $table =~ /<tr>(.*?)<\/tr>/g;
}

# ---------- before there is anything ----------

my $html = look_at('nothing', sql("SELECT crm.report_html('2024-05-01 00:00+08', '2024-06-01 00:00+08')"));
like($html, qr/<p class="subtitle">from 2024-05-01 until before 2024-06-01, Asia\/Shanghai\. Made 2024-06-30 20:00\.<\/p>/, 'period and zone are named');
like($html, qr/no code was scanned in this period/, 'it says that there is nothing');
like($html, qr/there is nothing in this period/, 'pictures too');
like($html, qr/<section id="maps">\n<h2>Maps of the customers&#39; journey<\/h2>\n<p class="note">Maps: no map is defined<\/p>\n<p class="note">Personas: no persona is defined<\/p>\n<\/section>/, 'a brand without maps');
look_at('a period of no length', sql("SELECT crm.report_html('2024-05-01', '2024-05-01')"));
look_at('the future', sql("SELECT crm.report_html('2030-05-01', '2030-06-01')"));

# ---------- a brand with everything ----------

my $hostile = q{<script>alert(1)</script>]]>"'&\001};
sql("INSERT INTO crm.account (account_id, kind, name) VALUES (1, 'official_account', 'maison')");
sql("INSERT INTO crm.store (store_id, name) VALUES (1, E'$hostile'), (2, '上海南京西路旗舰店')" =~ s/"'&/"''&/r);
sql("SELECT crm.define_qr_code(jsonb_build_object('account_id', 1, 'scene', 'window-' || n, 'store_id', 1 + n % 2, 'campaign', CASE n % 2 WHEN 0 THEN '<b>618</b>' ELSE 'spring' END)) FROM generate_series(1, 30) AS n");
sql("SELECT crm.follow('maison', 'oSECRET' || n, '2024-04-20 00:00+08'::timestamptz + n * interval '5 hours') FROM generate_series(1, 200) AS n");
sql("SELECT crm.scan('window-' || (1 + n % 30), 'maison', 'oSECRET' || (1 + n % 200), '2024-05-02 00:00+08'::timestamptz + n * interval '1 hour') FROM generate_series(1, 500) AS n");
sql("SELECT crm.bind_mobile(contact_id, ('1380013' || (1000 + contact_id))::crm.mobile) FROM crm.contact WHERE contact_id <= 50");
sql("UPDATE crm.contact SET name = 'Wang Secret', city = 'Shanghai'");
sql("SELECT crm.purchase(contact_id, 100 + contact_id, '2024-05-10 00:00+08'::timestamptz + contact_id * interval '2 hours', 'ORDER-SECRET-' || contact_id, 1 + contact_id % 2) FROM crm.contact WHERE contact_id <= 120");
sql("SELECT crm.refund(contact_id, 'ORDER-SECRET-' || contact_id, 50, '2024-05-28 00:00+08', 'r' || contact_id) FROM crm.contact WHERE contact_id <= 10");
sql("INSERT INTO crm.loyalty_program (name, label) VALUES ('club', 'Club <i>十周年</i>'); INSERT INTO crm.tier (program, tier, rank, threshold) VALUES ('club', 'gold', 1, 100)");
sql("SELECT crm.join_loyalty(contact_id, 'club', '2024-05-25'), crm.earn_points(contact_id, 'club', contact_id, 'gift') FROM crm.contact WHERE contact_id <= 150");
sql("SELECT crm.define_coupon('{\"name\": \"hello\"}'); SELECT crm.issue_coupon(contact_id, 'hello') FROM crm.contact WHERE contact_id <= 20");
sql("SELECT crm.define_template('{\"name\": \"sale\", \"channel\": \"official_account\", \"message_type\": \"text\", \"class\": \"marketing\", \"body\": {\"content\": \"BODY-SECRET\"}}')");
sql("INSERT INTO crm.campaign (name, template, audience, label) VALUES ('summer', 'sale', 'orders > 0', 'Summer & more'); SELECT crm.send_campaign('summer')");
sql(slurp_file('test/fixtures/journeys.sql'));
sql("SELECT setseed(0.3), walk_journey(three_steps(), 80, '2024-05-01'), walk_journey(chinese_steps(), 60, '2024-05-01'), walk_journey(sixty_steps(), 30, '2024-05-01')");

my $period = "'2024-05-01 00:00+08', '2024-07-01 00:00+08'";
$html = look_at('all', sql("SELECT crm.report_html($period, title => 'Maison <&> 上海')"));
like($html, qr/<h1>Maison &lt;&amp;&gt; 上海<\/h1>/, 'its title');
unlike($html, qr/SECRET|Secret|1380013|<script|<b>618|<i>/, 'nothing says who a contact is, and nothing breaks out of a name');
like($html, qr/&lt;script&gt;alert\(1\)&lt;\/script&gt;\]\]&gt;&quot;&#39;&amp;&#65533;/, 'which is text');

my %figure = $html =~ /<div class="figure-name"[^>]*>(.*?)<\/div><div class="figure-value">(.*?)<\/div>/g;
sub figure { my ($name, $count) = @_; is($figure{$name} =~ tr/,//dr, sql("SELECT $count"), "$name at a glance") }
my $in = "BETWEEN '2024-05-01 00:00+08' AND '2024-06-30 23:59:59+08'";
figure('New contacts', "count(*) FROM crm.contact WHERE created_at $in");
figure('Follows', "count(*) FROM crm.event WHERE kind = 'follow' AND occurred_at $in");
figure('Scans', "count(*) FROM crm.scan WHERE occurred_at $in");
figure('Orders', "count(*) FROM crm.transaction WHERE kind = 'purchase' AND occurred_at $in");
figure('Sales, CNY', "round(sum(amount)) FROM crm.transaction WHERE kind = 'purchase' AND occurred_at $in");
figure('Refunded, CNY', "round(sum(amount)) FROM crm.transaction WHERE kind = 'refund' AND occurred_at $in");
figure('Entries into journeys', "count(*) FROM crm.enrolment WHERE entered_at $in");
figure('Points earned', "sum(points) FROM crm.point_entry WHERE kind = 'earned' AND occurred_at $in");
like($html, qr/Follows<\/div>.*?before: (\d+)/s, 'with what was before');
my ($before) = $html =~ /Follows<\/div>.*?before: (\d+)/s;
is($before, sql("SELECT count(*) FROM crm.event WHERE kind = 'follow' AND occurred_at >= '2024-03-01 00:00+08' AND occurred_at < '2024-05-01 00:00+08'"), 'which is as long');

my @rows = table($html, 'Contacts in each stage');
is_deeply([ map { $_->[5] } @rows[ 1 .. $#rows ] ], [ split /\n/, sql('SELECT contacts FROM crm.lifecycle_funnel') ], 'stages now');
is_deeply([ map { $_->[2] - $_->[1] - $_->[3] } @rows[ 1 .. $#rows ] ], [ (0) x $#rows ], 'the change is the difference');
@rows = table($html, 'Codes');
is(scalar @rows, 21, 'twenty codes');
like($html, qr/<p class="note">The first 20 of 30\.<\/p>/, 'of thirty');
@rows = table($html, 'Shops');
is(eval { my $n = 0; $n += $_->[2] for @rows[ 1 .. $#rows ]; $n }, 120, 'orders by shop');
@rows = table($html, 'Journeys');
is_deeply([ map { $_->[2] } @rows[ 1 .. $#rows ] ], [ split /\n/, sql("SELECT count(*) FROM crm.enrolment WHERE entered_at $in GROUP BY journey ORDER BY 1 DESC") ], 'journeys by entries');
is(scalar(() = $html =~ /<title>Funnel of journey /g), 3, 'a funnel each');
@rows = table($html, 'Campaigns sent or scheduled in the period');
is($rows[1][0], 'Summer &amp; more', 'the campaign by its label');
is($rows[1][4], 120, 'with its messages');
@rows = table($html, 'Tiers');
is(join(' ', map { "$_->[1] $_->[2]" } @rows[ 1 .. $#rows ]), 'gold 51 no tier 99', 'tiers');
@rows = table($html, 'What to know of the numbers above');
is(scalar @rows, 10, 'the quality of the data');

# ---------- maps: one, of sixty touchpoints, and sixty ----------

sql(qq{SELECT crm.define_persona(jsonb_build_object('name', 'regular', 'label', E'$hostile', 'rule', 'orders > 0')), crm.define_touchpoint(jsonb_build_object('name', 'window', 'on_kind', 'scan', 'label', '橱窗海报')),
    crm.define_touchpoint(jsonb_build_object('name', 'order', 'on_kind', 'purchase', 'label', E'$hostile'))} =~ s/"'&/"''&/gr);
sql(qq{SELECT crm.define_map(jsonb_build_object('map', 'first', 'label', E'首单 $hostile', 'stages', jsonb_build_array(jsonb_build_object('name', '发现', 'touchpoints', '["window"]'::jsonb),
    jsonb_build_object('name', 'buy', 'touchpoints', '["order"]'::jsonb)), 'transitions', '[{"from": "window", "to": "order"}]'::jsonb))} =~ s/"'&/"''&/gr);
$html = look_at('a map', sql("SELECT crm.report_html($period)"));
@rows = table($html, 'Maps');
is(join(' ', @{ $rows[1] }[ 1, 3, 4 ]), '1 2 2', 'a map: version, stages, touchpoints');
my ($map) = $html =~ /(<svg [^>]*>\n<title>Map 首单 .*?<\/svg>)/s;
my @shown = map { $_->{text} } texts_of($map);
is(join(' ', sort grep { /visits/ } @shown), join(' ', sort split /\n/, sql("SELECT visits || ' visits' FROM crm.map_touchpoint('first', $period)")), 'its visits in the period');
is(scalar(grep { /^[-+]\d\.\d/ } @shown[ (grep { $shown[$_] eq 'Score' } 0 .. $#shown)[0] .. $#shown ]), 2, 'and its scores');
@rows = table($html, 'Personas');
is($rows[1][2], sql("SELECT members FROM crm.persona_size()"), 'a persona with its size');
unlike($html, qr/<script|<b>618/, 'nothing breaks out of a name');

sql(q{SELECT crm.define_touchpoint(jsonb_build_object('name', 'k' || n, 'on_kind', CASE n % 3 WHEN 0 THEN 'follow' WHEN 1 THEN 'unfollow' ELSE 'k' || n END, 'label', 'Touch ' || n)) FROM generate_series(1, 60) AS n});
sql(q{SELECT crm.define_map(jsonb_build_object('map', 'long', 'stages', jsonb_build_array(jsonb_build_object('name', 's', 'touchpoints', (SELECT jsonb_agg('k' || k) FROM generate_series(1, 60) AS k)))))});
$html = look_at('a map of sixty', sql("SELECT crm.report_html($period)"));
is(scalar(() = $html =~ /<title>Map /g), 2, 'two maps are drawn');
is(scalar(() = ($html =~ /<title>Map long(.*?)<\/svg>/s)[0] =~ />(?:[\d,]+ visits|nobody yet)</g), 60, 'with all touchpoints');

sql(q{SELECT crm.define_map(jsonb_build_object('map', 'map ' || n, 'stages', '[{"name": "s", "touchpoints": ["window"]}]'::jsonb)) FROM generate_series(1, 58) AS n});
$html = look_at('sixty maps', sql("SELECT crm.report_html($period)"));
is(scalar(() = $html =~ /<title>Map /g), 6, 'six of sixty maps are drawn');
like($html, qr/<p class="note">54 more maps: crm\.map_svg\(\) draws each of them\.<\/p>/, 'and it says how many more there are');
is(scalar(table($html, 'Maps')), 21, 'twenty are listed');

# another zone moves the days, not the figures
my $other = look_at('in another zone', sql("SELECT crm.report_html($period, 'America/New_York')"));
like($other, qr/from 2024-04-30 12:00 until before 2024-06-30 12:00, America\/New_York/, 'the period is that of the zone');
is_deeply({ $other =~ /<div class="figure-name"[^>]*>(.*?)<\/div><div class="figure-value">(.*?)<\/div>/g }, \%figure, 'figures are the same');

# ---------- who may, and bad input ----------

sql("CREATE ROLE shop_bi; SELECT crm.grant_access('shop_bi', 'analyst'); CREATE ROLE shop_nobody; GRANT USAGE ON SCHEMA crm TO shop_nobody");
is($node->psql($db, "SET ROLE shop_bi; SELECT crm.report_html($period)"), 0, 'an analyst may');
like(($node->psql($db, "SET ROLE shop_nobody; SELECT crm.report_html($period)"))[2], qr/permission denied/, 'nobody else');
fails("SELECT crm.report_html('2024-06-01', '2024-05-01')", '22023', 'a reversed period');
fails("SELECT crm.report_html('2024-06-01', 'infinity')", '22008', 'an infinite one');
fails("SELECT crm.report_html(NULL, '2024-06-01')", '22004', 'none');
fails("SELECT crm.report_html('1024-06-01', '2024-06-01')", '22023', 'a thousand years');
fails("SELECT crm.report_html($period, 'Asia/Nowhere')", '22023', 'an unknown zone');

done_testing();
