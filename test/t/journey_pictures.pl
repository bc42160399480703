# Pictures of journeys: well-formed, nothing overlaps, edges run round the boxes, nobody breaks out of a name.
# Fixed journeys and random ones; each is looked at as an SVG reader would.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmPicture;
use CrmTest;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{PG_CRM_SEED} || 1 + int rand 1_000_000;
note "PG_CRM_SEED=$seed";
srand $seed;

my $node = crm_node('journey_pictures');
my $db = crm_database($node, 'shop');
sub sql { return $node->safe_psql($db, shift) }
sub literal { my $s = shift; $s =~ s/'/''/g; return "'$s'" }

sql(slurp_file('test/fixtures/journeys.sql'));
sql("INSERT INTO crm.contact (contact_id) SELECT generate_series(1, 200)");

# ---------- reading a picture ----------

sub look_at
{
    my ($name, $svg, $steps, $edges) = @_;
    is(xml_errors($svg), '', "$name: is XML");
    my ($width, $height) = $svg =~ /viewBox="0 0 (\d+) (\d+)"/;
    my @boxes = boxes_of($svg, 'box|empty-box|entry');
    my @labels = boxes_of($svg, 'paper');
    my @ends = map { { class => 'end', x => $_->{cx} - $_->{r}, x2 => $_->{cx} + $_->{r}, y => $_->{cy} - $_->{r}, y2 => $_->{cy} + $_->{r} } }
      grep { $_->{class} eq 'crm-end' } map { attributes($_) } $svg =~ /<circle ([^>]*)>/g;
    is(scalar @boxes, $steps + 1, "$name: a box for each step, and the entry");
    is(scalar @labels, $edges + 1, "$name: a label for each edge, and the entry");
    is_deeply([ overlaps(\@boxes, \@boxes) ], [], "$name: no two boxes overlap");
    is_deeply([ overlaps(\@labels, \@labels) ], [], "$name: nor labels");
    is_deeply([ overlaps(\@labels, \@boxes), overlaps(\@ends, \@boxes), overlaps(\@ends, \@labels), overlaps(\@ends, \@ends) ],
        [], "$name: nor labels, boxes and ends");
    is_deeply([ grep { $_->{x} < 0 || $_->{y} < 0 || $_->{x2} > $width || $_->{y2} > $height } @boxes, @labels, @ends ],
        [], "$name: all of it is in the picture");
    my @inside;
    for my $path (map { attributes($_) } $svg =~ /<path ([^>]*)>/g)
    {
        for my $point (points_of($path->{d}))
        {
            my ($x, $y) = @$point;
            push @inside, "$path->{class} $path->{d} at $x,$y" if $x < 0 || $y < 0 || $x > $width || $y > $height;
            push @inside, map { "$path->{class} $path->{d} in the box at $_->{x},$_->{y}" }
              grep { $x > $_->{x} + 1 && $x < $_->{x2} - 1 && $y > $_->{y} + 1 && $y < $_->{y2} - 1 } @boxes;
        }
    }
    is_deeply(\@inside, [], "$name: no edge runs through a box, or out of the picture");
    is_deeply([ missing_styles($svg) ], [], "$name: the style says how all of it looks, also on a dark screen");
}

# each line of a flowchart is one of these, whatever the names are
sub look_at_mermaid
{
    my ($name, $chart, $steps) = @_;
    my $text = qr/"(?:[^"#;\[\]{}<>|`&]|#\d+;|<br\/>)*"/;
    my @lines = split /\n/, $chart;
    is(shift @lines, 'flowchart TD', "$name: a flowchart");
    is_deeply([ grep { !/^    (?:entry\(\[$text\]\)|s\d+(?:\[$text\]|\{\{$text\}\})|e\d+\(\(\($text\)\)\)|(?:entry|s\d+) (?:-->|-\.->)\|$text\| [se]\d+)$/ } @lines ],
        [], "$name: its lines are well-formed");
    my %defined = map { $_ => 1 } map { /^    (\w+)[(\[{]/ ? $1 : () } @lines;
    is_deeply([ grep { !$defined{$_} } map { /\|.* (\w+)$/ ? $1 : () } @lines ], [], "$name: what edges lead to is there");
    is(scalar(grep { /^    s\d+[\[{]/ } @lines), $steps, "$name: a node for each step");
}

sub look_at_journey
{
    my ($journey) = @_;
    my $quoted = literal($journey);
    my $of = "WHERE journey = $quoted AND version = (SELECT version FROM crm.journey WHERE journey = $quoted)";
    my $steps = sql("SELECT count(*) FROM crm.journey_step $of");
    # those from a step to itself have theirs beside the box
    my $edges = sql("SELECT count(*) FROM crm.journey_edge $of AND next_step IS DISTINCT FROM step");
    my $svg = sql("SELECT crm.journey_svg($quoted)");
    look_at($journey, $svg, $steps, $edges);
    look_at_mermaid($journey, sql("SELECT crm.journey_mermaid($quoted)"), $steps);
    return $svg;
}

# ---------- the fixed ones ----------

my %svg;
sql("SELECT setseed(0.$seed), walk_journey($_(), 80)") for qw(three_steps twelve_steps sixty_steps chinese_steps one_step);
$svg{$_} = look_at_journey($_) for 'welcome', 'spring', 'programme', '新会员欢迎旅程：扫码关注后的七天', 'one';

# numbers in the picture are those of the views
my @texts = map { $_->{text} } texts_of($svg{spring});
is(join("\n", sort grep { / entered$/ } @texts), sql("SELECT string_agg(entered || ' entered', E'\\n' ORDER BY (entered || ' entered') COLLATE \"C\")
    FROM crm.journey_step WHERE journey = 'spring' AND entered > 0"), 'what is entered');
is(join("\n", sort grep { / here$/ } @texts), sql("SELECT string_agg(here || ' here', E'\\n' ORDER BY (here || ' here') COLLATE \"C\")
    FROM crm.journey_step WHERE journey = 'spring' AND here > 0"), 'who is there');
for my $edge (split /\n/, sql("SELECT (CASE outcome WHEN 'next' THEN '' ELSE outcome || ' ' END) || moves FROM crm.journey_edge
    WHERE journey = 'spring' AND rule IS NULL"))
{
    ok((grep { $_ eq $edge } @texts), "an edge says $edge");
}
like($svg{spring}, qr/<title>who, 2, orders &gt; 0 AND last_order_at &gt; as_of - interval &#39;90 days&#39;: \d+, to ab<\/title>/,
    'a rule that is cut is the tooltip');
like($svg{programme}, qr/version 1 \(current\), open: 80 started, /, 'and of the whole');

# names
my $chinese = $svg{'新会员欢迎旅程：扫码关注后的七天'};
unlike($chinese, qr/<script|<\/text><\/text>/, 'a name does not break out');
like($chinese, qr/&lt;\/text&gt;&lt;script&gt;al&#8230;/, 'it is text, cut with an ellipsis');
like($chinese, qr/<title>[^<]*上海南京西路旗舰店周末沙龙邀请函与停车券/, 'the whole of a long one is the tooltip');
like($chinese, qr/>上海南京西路旗舰店&#8230;</, 'what is to be seen of it fits');
like($chinese, qr/>欢迎消息</, 'a label stands for the name');

# an older version, and one that nobody has entered
sql("SELECT walk_journey(jsonb_set(three_steps(), '{steps,hello,next}', 'null'), 0)");
like(sql("SELECT crm.journey_svg('welcome')"), qr/version 2 \(current\), open: 0 started/, 'the current version');
like(sql("SELECT crm.journey_svg('welcome', 1)"), qr/version 1, open: 80 started/, 'an older one');
like(sql("SELECT crm.journey_svg('welcome')"), qr/nobody yet/, 'nobody has entered it');

# ---------- random ones ----------

my $json = JSON::PP->new->canonical;
for my $round (1 .. 25)
{
    my $n = 1 + int rand($round < 6 ? 4 : 45);
    my @names = map { 'n' . $_ . ('长' x int rand 12) } 1 .. $n;
    my $any = sub { rand() < 0.15 ? undef : $names[ rand() < 0.7 ? min($n - 1, $_[0] + int rand 5) : int rand $n ] };
    my %steps;
    for my $i (0 .. $n - 1)
    {
        my $kind = (qw(send wait wait_for branch split tag exit))[ int rand 7 ];
        my %step = (kind => $kind);
        if ($kind eq 'branch')
        {
            $step{branches} = [ map { { when => 'x' x int(rand 60), next => $any->($i) } } 1 .. 1 + int rand 4 ];
            $step{default} = $any->($i);
        }
        elsif ($kind eq 'split') { $step{arms} = { map { ("arm $_" => { next => $any->($i) }) } 1 .. 1 + int rand 4 } }
        elsif ($kind ne 'exit')
        {
            $step{next} = $any->($i);
            for my $edge (qw(on_timeout on_refused on_failed)) { $step{$edge} = $any->($i) if rand() < 0.25 }
        }
        $steps{ $names[$i] } = \%step;
    }
    my $document = $json->encode({ journey => "random $round", start => $names[0], entry => [ { on => 'follow' } ], steps => \%steps });
    sql('SELECT setseed(' . rand() . '), walk_journey(' . literal($document) . "::jsonb, 15)");
    look_at_journey("random $round");
}
sub min { return $_[0] < $_[1] ? $_[0] : $_[1] }

# ---------- a large one is drawn in time ----------

sql("SELECT walk_journey((SELECT jsonb_build_object('journey', 'large', 'start', 's1', 'steps', jsonb_object_agg('s' || n,
    jsonb_build_object('kind', 'wait_for', 'next', 's' || (n + 1), 'on_timeout', 's' || (1 + n * 7919 % 500)))) FROM generate_series(1, 500) AS n), 0)");
is(sql("SET statement_timeout = '60s'; SELECT xml_is_well_formed_document(crm.journey_svg('large'))"), 't', '500 steps with 500 edges to anywhere');

done_testing();
