# Maps as pictures: one touchpoint and sixty, hostile names, everything inside and no text on another.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmPicture;
use CrmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = crm_node('map_pictures');
my $db = crm_database($node, 'shop');
my $clock = "SET pg_crm.clock = '2024-06-30 20:00+08'; ";
sub sql { return $node->safe_psql($db, $clock . shift) }
sub fails { my ($statement, $state, $what) = @_; my (undef, undef, $err) = $node->psql($db, "\\set VERBOSITY verbose\n$clock$statement"); like($err, qr/ERROR:  $state: .*HINT: /s, $what) }

sql("INSERT INTO crm.account (account_id, kind, name) VALUES (1, 'official_account', 'brand')");
sql("INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2024-03-01' FROM generate_series(1, 200) AS n");
my @label = ("<script>alert(1)</script>", "]]>", "\x01\"quoted\"", 'W' x 60, '上海南京西路旗舰店周末沙龙邀请函与停车券', '&amp;');
sql("SELECT crm.define_touchpoint(jsonb_build_object('name', 'k' || n, 'on_kind', 'k' || n, 'label', COALESCE((ARRAY[" . join(', ', map { "'$_'" } @label) . "])[n], 'Touch ' || n))) FROM generate_series(1, 60) AS n");
sql("INSERT INTO crm.event (contact_id, kind, occurred_at) SELECT c, 'k' || k, '2024-04-01 00:00+08'::timestamptz + c * interval '3 hours' + k * interval '9 hours'
     FROM generate_series(1, 200) AS c, generate_series(1, 60) AS k WHERE (c * 7 + k * 13) % (k + 3) < 3 AND k <> 4");
sql("SELECT crm.record_emotion(c, 'k' || k, (k % 9 - 4) * 0.5, 'survey', 'i' || c, 0.8, '2024-05-01') FROM generate_series(1, 10) AS c, generate_series(1, 60) AS k WHERE k % 7 <> 3");
sql("SELECT crm.define_map(jsonb_build_object('map', 'first', 'label', 'To the first <order> 首单', 'within', '30 days', 'goals', '[{\"name\": \"buyers\", \"rule\": \"orders > 0\", \"target\": 500},
        {\"name\": \"met\", \"on\": \"k5\", \"measure\": \"facts\", \"target\": 10, \"period\": \"3 months\"}]'::jsonb,
     'stages', '[{\"name\": \"discover\", \"label\": \"Discover\", \"touchpoints\": [\"k1\", \"k2\"]}, {\"name\": \"buy\", \"touchpoints\": [\"k3\", \"k4\", \"k5\"]}]'::jsonb,
     'transitions', '[{\"from\": \"k1\", \"to\": \"k2\", \"label\": \"follows\"}, {\"from\": \"k2\", \"to\": \"k3\"}, {\"from\": \"k3\", \"to\": \"k4\"}, {\"from\": \"k4\", \"to\": \"k5\"}]'::jsonb))");
sql("SELECT crm.define_map(jsonb_build_object('map', 'long', 'stages', (SELECT jsonb_agg(jsonb_build_object('name', 'stage ' || s, 'touchpoints',
        (SELECT jsonb_agg('k' || k) FROM generate_series(s * 10 + 1, s * 10 + 10) AS k))) FROM generate_series(0, 5) AS s),
     'transitions', (SELECT jsonb_agg(jsonb_build_object('from', 'k' || k, 'to', 'k' || (k + 1))) FROM generate_series(1, 59) AS k)))");
sql(q{SELECT crm.define_map('{"map": "one", "stages": [{"name": "s", "touchpoints": ["k7"]}]}')});

my $svg = look_at('a map', sql("SELECT crm.map_svg('first')"), 'box|empty-box|entry');
my @texts = map { $_->{text} } texts_of($svg);
is_deeply([ map { /^(\d+) visits$/ ? $1 : $_ eq 'nobody yet' ? 0 : () } @texts ], [ split /\n/, sql("SELECT visits FROM crm.map_touchpoint('first') ORDER BY place") ], 'visits are those of map_touchpoint()');
my ($heading) = grep { $texts[$_] =~ /^Paths/ } 0 .. $#texts;
is_deeply([ map { /^(\d+)(?:, \d+%.*)?$/ ? $1 : () } @texts[ $heading .. $#texts ] ],
    [ split /\n/, sql("SELECT transitions FROM crm.map_path('first') WITH ORDINALITY ORDER BY transitions DESC, ordinality") ], 'paths are those of map_path()');
is(scalar(() = $svg =~ /<circle class="crm-mark"/g), sql("SELECT count(*) FROM crm.map_touchpoint('first') WHERE emotion IS NOT NULL"), 'a point for each touchpoint at which somebody felt something');
like($svg, qr/<path class="crm-curve" d="M[^"L]*L[^"M]*M[^"]*"/, 'and a gap where nobody did');
like($svg, qr/>0 of 500, not reached</, 'a goal');
like($svg, qr/&lt;script&gt;alert/, 'a hostile name is text');
is(scalar(grep { $_ eq 'drawn, not taken' } @texts), 2, 'what nobody took');
$svg = look_at('a map of sixty', sql("SELECT crm.map_svg('long', '2024-04-01', '2024-06-01')"), 'box|empty-box|entry');
is(scalar(boxes_of($svg, 'box|empty-box')), 60, 'has them all');
like($svg, qr/>stage 0 \(goes on\)</, 'its stages go on below');
like($svg, qr/more are in crm\.map_path\(\)/, 'and says where the rest of the paths is');
look_at('a map of one', sql("SELECT crm.map_svg('one')"), 'box|empty-box|entry');
$svg = look_at('a map of nobody', sql("SELECT crm.map_svg('one', '2020-01-01', '2020-02-01', time_zone => 'UTC')"), 'box|empty-box|entry');
like($svg, qr/version 1, from 2020-01-01 until before 2020-02-01, UTC/, 'in the zone asked for');
like($svg, qr/none in this time/, 'says so');
sql(q{SELECT crm.define_persona('{"name": "buyer", "rule": "orders > 0"}')});
like(look_at('a map for a persona', sql("SELECT crm.map_svg('first', persona => 'buyer')"), 'box|empty-box|entry'), qr/persona buyer, /, 'names it');

fails("SELECT crm.map_svg(NULL)", '22004', 'no map');
fails("SELECT crm.map_svg('onne')", '23503', 'an unknown one');
fails("SELECT crm.map_svg('one', version => 3)", '23503', 'an unknown version');
fails("SELECT crm.map_svg('one', persona => 'nobody')", '23503', 'an unknown persona');
fails("SELECT crm.map_svg('one', '2024-02-01', '2024-01-01')", '22023', 'a reversed period');
fails("SELECT crm.map_svg('one', '2024-02-01')", '22004', 'half a period');
fails("SELECT crm.map_svg('one', time_zone => 'Asia/Nowhere')", '22023', 'an unknown zone');
sql("CREATE ROLE shop_bi; SELECT crm.grant_access('shop_bi', 'analyst'); CREATE ROLE shop_nobody; GRANT USAGE ON SCHEMA crm TO shop_nobody");
is($node->psql($db, "SET ROLE shop_bi; SELECT crm.map_svg('first')"), 0, 'an analyst may');
like(($node->psql($db, "SET ROLE shop_nobody; SELECT crm.map_svg('first')"))[2], qr/permission denied/, 'nobody else');

look_at_all_in_browser();
done_testing();
