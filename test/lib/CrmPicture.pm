# CrmPicture - pictures as an SVG reader sees them, for TAP tests.
#
#   is(xml_errors($svg), '');                   # well-formed, says xmllint
#   boxes_of($svg, 'box|entry')                 # rectangles of these classes
#   texts_of($svg)                              # texts: where they are, by an estimate of their widths
#   overlaps(\@some, \@others)                  # pairs of both that lie on each other; of one list with itself
#   missing_styles($svg)                        # classes that the style sheet knows not, or not for dark screens
#   look_at($name, $svg, 'box|entry');         # all of these at once, as tests; boxes of these classes lie apart
#   look_at_all_in_browser();                   # and what was looked at again, as Chromium measures it
#   in_browser({name => $svg, …})               # what headless Chromium measures: texts on each other or outside;
#                                               # undef and a reason where it is not there
package CrmPicture;

use strict;
use warnings;

use Encode;
use Exporter 'import';
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(attributes boxes_of in_browser look_at look_at_all_in_browser missing_styles overlaps points_of texts_of xml_errors);

sub attributes { my %a = $_[0] =~ /([\w-]+)="([^"]*)"/g; return \%a }

sub xml_errors
{
    my ($xml) = @_;
    my ($out, $err);
    IPC::Run::run([ 'xmllint', '--noout', '-' ], '<', \$xml, '>', \$out, '2>', \$err);
    return $err;
}

sub boxes_of
{
    my ($svg, $class) = @_;
    return map { { %$_, x2 => $_->{x} + $_->{width}, y2 => $_->{y} + $_->{height} } }
      grep { defined $_->{x} && $_->{class} =~ /^crm-(?:$class)$/ } map { attributes($_) } $svg =~ /<rect ([^>]*)>/g;
}

# ems, rather too few than too many: what is said to overlap does
sub width_of
{
    my $width = 0;
    for my $c (split //, $_[0])
    {
        $width += $c =~ /[\x{1100}-\x{115f}\x{2e80}-\x{a4cf}\x{ac00}-\x{d7a3}\x{f900}-\x{faff}\x{fe30}-\x{fe6f}\x{ff00}-\x{ff60}\x{1f300}-\x{1faff}]/ ? 1
          : $c =~ /[il.,:;'|! jtfr()\[\]I]/ ? 0.3
          : $c =~ /\p{Mn}|\p{Cf}/           ? 0
          :                                   0.55;
    }
    return $width;
}

sub texts_of
{
    my ($svg) = @_;
    my %size = (title => 17, text => 13, name => 13);
    my @texts;
    while ($svg =~ /<text ([^>]*)>(.*?)<\/text>/gs)
    {
        my ($at, $text) = (attributes($1), $2);
        $text =~ s/<title>.*?<\/title>//gs;
        $text =~ s/<[^>]*>//g;
        my $shown = decode_utf8($text);
        my %entity = (lt => '<', gt => '>', amp => '&', quot => '"');
        $shown =~ s/&(?:#(\d+)|(\w+));/$1 ? chr $1 : $entity{$2}/ge;
        next if $shown eq '';
        my $size = $size{ $at->{class} =~ s/^crm-//r } || 12;
        my $width = width_of($shown) * $size;
        my $anchor = $at->{'text-anchor'} || 'start';
        my $x = $at->{x} - ($anchor eq 'end' ? $width : $anchor eq 'middle' ? $width / 2 : 0);
        push @texts, { class => "text '$text'", text => $text, x => $x, x2 => $x + $width, y => $at->{y} - 0.7 * $size, y2 => $at->{y} + 0.1 * $size };
    }
    return @texts;
}

sub overlap { my ($a, $b) = @_; return $a->{x} < $b->{x2} && $b->{x} < $a->{x2} && $a->{y} < $b->{y2} && $b->{y} < $a->{y2} }

sub overlaps
{
    my ($some, $others) = @_;
    my @found;
    for my $i (0 .. $#$some)
    {
        for my $k ($some == $others ? $i + 1 .. $#$some : 0 .. $#$others)
        {
            push @found, "$some->[$i]{class} at $some->[$i]{x},$some->[$i]{y} and $others->[$k]{class} at $others->[$k]{x},$others->[$k]{y}"
              if overlap($some->[$i], $others->[$k]);
        }
    }
    return @found;
}

# points along a path of M, L, V and C
sub points_of
{
    my ($data) = @_;
    my ($x, $y, @points);
    while ($data =~ /([MLVC])([-\d. ]+)/g)
    {
        my ($command, @n) = ($1, split ' ', $2);
        ($command, @n) = ('L', $x, @n) if $command eq 'V';
        if ($command eq 'C')
        {
            for my $step (1 .. 24)
            {
                my $t = $step / 24;
                my $u = 1 - $t;
                push @points, [ map { $u**3 * [ $x, $y ]->[$_] + 3 * $u * $u * $t * $n[$_] + 3 * $u * $t * $t * $n[ 2 + $_ ] + $t**3 * $n[ 4 + $_ ] } 0, 1 ];
            }
        }
        elsif ($command eq 'L') { push @points, map { my $t = $_ / 24; [ $x + $t * ($n[0] - $x), $y + $t * ($n[1] - $y) ] } 1 .. 24 }
        else                    { push @points, [@n] }
        ($x, $y) = @n[ -2, -1 ];
    }
    return @points;
}

sub missing_styles
{
    my ($svg) = @_;
    my ($style) = $svg =~ /<style>(.*?)<\/style>/s;
    my ($light, $dark) = split /\@media/, $style;
    my %used = map { $_ => 1 } map { split ' ' } $svg =~ /class="([^"]*)"/g;
    return grep { $style !~ /\.$_\b/ || ($light =~ /\.$_\b[^{]*\{[^}]*(?:fill|stroke|color):#/ && $dark !~ /\.$_\b/) } sort keys %used;
}

my $script = <<'EOS';
const found = {};
for (const svg of document.querySelectorAll('svg')) {
    const said = found[svg.parentNode.id] = [];
    const page = svg.getBoundingClientRect();
    const boxes = [...svg.querySelectorAll('text')].map(t => ({ t: t.textContent, b: t.getBoundingClientRect() })).filter(x => x.b.width > 0);
    for (const x of boxes)
        if (x.b.left < page.left - 1 || x.b.right > page.right + 1 || x.b.top < page.top - 1 || x.b.bottom > page.bottom + 1) said.push('outside: ' + x.t);
    for (let i = 0; i < boxes.length; i++)
        for (let k = i + 1; k < boxes.length; k++) {
            const a = boxes[i].b, b = boxes[k].b;
            // the box of a line has room above and below its letters
            if (a.left + 1 < b.right && b.left + 1 < a.right && a.top + 4 < b.bottom - 4 && b.top + 4 < a.bottom - 4) said.push(boxes[i].t + ' and ' + boxes[k].t);
        }
}
document.body.textContent = 'FOUND' + btoa(unescape(encodeURIComponent(JSON.stringify(found)))) + 'END';
EOS

sub in_browser
{
    my ($pictures) = @_;
    my ($browser) = grep { -x } map { my $dir = $_; map { "$dir/$_" } qw(chromium chromium-browser google-chrome) } split /:/, $ENV{PATH};
    return (undef, 'Chromium is not installed') unless $browser;
    my $dir = PostgreSQL::Test::Utils::tempdir();
    my $page = '<!DOCTYPE html><html><head><meta charset="utf-8"></head><body>'
      . join('', map { "<div id=\"$_\">$pictures->{$_}</div>" } sort keys %$pictures) . "<script>$script</script></body></html>";
    open my $file, '>:raw', "$dir/page.html" or die $!;
    print $file $page;
    close $file;
    local $ENV{HOME} = $dir;
    my ($out, $err);
    my $done = eval
    {
        IPC::Run::run([ $browser, qw(--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --virtual-time-budget=60000),
                "--user-data-dir=$dir/profile", '--dump-dom', "file://$dir/page.html" ], '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(240));
    };
    return (undef, "Chromium did not run: $@") if $@;
    return (undef, 'Chromium did not run: ' . substr $err, 0, 300) unless $out =~ /FOUND([\w+\/=]+)END/;
    require MIME::Base64;
    return decode_json(MIME::Base64::decode_base64($1));
}

my %seen;

sub look_at
{
    my ($name, $svg, $apart) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    $seen{ 'p' . keys %seen } = $svg;
    is(xml_errors($svg), '', "$name: is XML");
    my ($width, $height) = $svg =~ /viewBox="0 0 (\d+) (\d+)"/;
    my @texts = texts_of($svg);
    my @boxes = $apart ? boxes_of($svg, $apart) : ();
    ok(@texts > 1, "$name: has texts");
    is_deeply([ overlaps(\@texts, \@texts) ], [], "$name: no text lies on another");
    is_deeply([ overlaps(\@boxes, \@boxes) ], [], "$name: nor a box") if $apart;
    is_deeply([ map { $_->{class} } grep { $_->{x} < 0 || $_->{y} < 0 || $_->{x2} > $width || $_->{y2} > $height } @texts ], [], "$name: all texts are in it");
    is_deeply([ grep { $_->{x} < 0 || $_->{y} < 0 || $_->{x2} > $width + 0.1 || $_->{y2} > $height } boxes_of($svg, '[\w-]+') ], [], "$name: so are the boxes");
    is_deeply([ missing_styles($svg) ], [], "$name: the style says how all of it looks, also on a dark screen");
    like($svg, qr/^<svg [^>]*role="img"[^>]*>\n<title>[^<]+<\/title>\n<desc>[^<]+<\/desc>/, "$name: says what it is");
    unlike($svg, qr/<script|<foreignObject|\bon\w+=|href=|nan\b|inf\b|\x{01}/i, "$name: holds nothing that runs, nor what is no number");
    return $svg;
}

sub look_at_all_in_browser
{
    my ($found, $why) = in_browser(\%seen);
SKIP:
    {
        skip $why, 2 unless $found;
        is_deeply({ map { @{ $found->{$_} } ? ($_ => $found->{$_}) : () } keys %$found }, {}, 'no text on another, and none outside, in Chromium');
        is(scalar keys %$found, scalar keys %seen, 'of all pictures');
    }
    return;
}

1;
