# examples/dashboard against a real database, as a brand's analyst has it: built by the role of an analyst, without a network,
# and looked at in Chromium. Numbers on its pages are those of the tables; nothing says who a contact is; nothing is asked of
# anybody else; nothing lies on something else. $PG_CRM_DASHBOARD has the node_modules. Pictures of the pages are left in
# $WORK/dashboard.
use strict;
use warnings;
use utf8;
use Encode qw(decode_utf8 encode_utf8);
use File::Copy qw(copy);
use File::Find;
use File::Path qw(make_path remove_tree);
use FindBin;
use IO::Socket::INET;
use JSON::PP qw(decode_json);
use Test::More;
use Time::HiRes qw(sleep time);

binmode $_, ':encoding(UTF-8)' for map { Test::More->builder->$_ } qw(output failure_output todo_output);

# all of it in a network of its own, which leads nowhere; the database is reached by its socket
my $alone = $ENV{CRM_ALONE} // (system('unshare -rn true 2>/dev/null') == 0 ? 'wanted' : 'no');
if ($alone eq 'wanted')
{
    $ENV{CRM_ALONE} = 'yes';
    exec 'unshare', '-rn', $^X, $0 or die "cannot run unshare: $!\n";
}
if ($alone eq 'yes')
{
    # its lo is down at first: SIOCGIFFLAGS, SIOCSIFFLAGS
    socket my $socket, AF_INET, SOCK_DGRAM, 0 or die "no socket: $!\n";
    my $request = pack 'a16 s x14', 'lo', 0;
    ioctl $socket, 0x8913, $request or die "lo is not there: $!\n";
    my ($name, $flags) = unpack 'a16 s', $request;
    $request = pack 'a16 s x14', 'lo', $flags | 1;
    ioctl $socket, 0x8914, $request or die "lo does not come up: $!\n";
}
SKIP:
{
    skip 'this machine has no network namespaces for users', 1 if $alone ne 'yes';
    ok(!IO::Socket::INET->new(PeerAddr => '192.0.2.1:80', Timeout => 5), 'there is no network: ' . $!);
}

my $dir = "$ENV{TESTDIR}/dashboard";
# so that as long a time before is known too
my ($first, $until) = ('2025-05-17', '2025-07-01');
local $ENV{HOME} = $dir;

sub psql
{
    my (@arguments) = @_;
    open my $out, '-|', 'psql', '-XqAt', '-F', "\t", '-v', 'ON_ERROR_STOP=1', @arguments or die "psql: $!\n";
    my @lines = map { chomp; decode_utf8($_) } <$out>;
    close $out or die "psql failed\n";
    return @lines;
}
sub sql { return psql('-c', encode_utf8("SET TimeZone = 'Asia/Shanghai'; SET pg_crm.clock = '2025-07-01 09:00+08'; $_[0]")) }

# ---------- the database and the analyst ----------

psql('-c', 'SELECT crm.install()');
psql('-f', "$FindBin::RealBin/dashboard.sql");
is(join("\n", sql('SELECT check_name, expected, found FROM crm.verify()')), '', 'verify() finds nothing');
psql('-c', 'CREATE DATABASE crm_empty');
psql('-d', 'crm_empty', '-c', "CREATE EXTENSION pg_crm; SELECT crm.install(); CREATE ROLE shop_bi LOGIN; SELECT crm.grant_access('shop_bi', 'analyst')");
psql('-c', "SELECT crm.grant_access('shop_bi', 'analyst'); ALTER ROLE shop_bi SET pg_crm.clock = '2025-07-01 09:00+08'");
is((sql("SET ROLE shop_bi; SELECT has_column_privilege('crm.contact', 'mobile', 'SELECT')"))[0], 'f', 'the analyst may not read mobiles');

# ---------- it is built ----------

my $source = "$FindBin::RealBin/../../examples/dashboard";
make_path($dir);
system('cp', '-R', "$source/.", $dir) == 0 or die "cannot copy $source\n";
remove_tree("$dir/dist", "$dir/src/.observablehq");
symlink "$ENV{PG_CRM_DASHBOARD}/node_modules", "$dir/node_modules" or die "cannot link: $!\n";
my $log = "$ENV{TESTDIR}/build.log";

sub build
{
    my ($what, %of) = @_;
    local @ENV{ 'PGUSER', keys %of } = ('shop_bi', values %of);
    my $since = time;
    is(system("cd '$dir' && npm run build >'$log' 2>&1 </dev/null"), 0, "$what: is built") or diag(`tail -n 40 '$log'`), BAIL_OUT('no dashboard');
    diag(sprintf '%s: built in %.0f s', $what, time - $since);
    return;
}

build('empty', PGDATABASE => 'crm_empty');
rename "$dir/dist", "$dir/empty" or die "cannot rename: $!\n";
build('brand', PG_CRM_FROM => $first, PG_CRM_UNTIL => $until, PG_CRM_TITLE => encode_utf8('梅森 Maison'));

my %built;
find({ no_chdir => 1, wanted => sub { -f or return; open my $file, '<:raw', $_ or die; local $/; $built{s/^\Q$dir\E\/dist\///r} = <$file> } }, "$dir/dist");
is(join(' ', grep { /\.html$/ } sort keys %built), 'index.html journeys.html messages.html shops.html', 'its pages');
my $codes = join '|', sql('SELECT code FROM crm.coupon_grant');
my $said_who = qr/SECRET|1381000\d{4}|$codes/;
is(join(' ', grep { $built{$_} =~ $said_who } sort keys %built), '', 'nothing in its files says who a contact is, or what was written to him');
is(join(' ', grep { $built{$_} =~ /(?:src|href)\s*=\s*["']?(?:https?:)?\/\//i && /\.html$/ } sort keys %built), '', 'no page names a file from elsewhere');
is(join(' ', grep { $built{$_} =~ /\@import\s*["(u]|url\(["']?+(?!data:)/ && /\.css$/ } sort keys %built), '', 'nor does a style');

# ---------- it is looked at ----------

my ($browser) = grep { -x } map { my $path = $_; map { "$path/$_" } qw(chromium chromium-browser google-chrome) } split /:/, $ENV{PATH};
if (!$browser)
{
SKIP: { skip 'Chromium is not installed: nobody looks at the pages', 1 }
    done_testing();
    exit;
}

my $server = fork // die "cannot fork: $!\n";
if (!$server)
{
    exec 'node', "$FindBin::RealBin/serve.cjs", $dir, "$dir/port", "$dir/requests", "$FindBin::RealBin/look.js" or die "node: $!\n";
}
END { if ($server) { my $code = $?; kill TERM => $server; waitpid $server, 0; $? = $code } }
my $patience = time + 60;
sleep 0.1 while !-s "$dir/port" && time < $patience;
my $port = do { open my $file, '<', "$dir/port" or die "the server did not start\n"; <$file> };

# the DOM of a page, or a picture of it
sub browse
{
    my ($page, @how) = @_;
    local $SIG{ALRM} = sub { die "Chromium hangs\n" };
    alarm 180;
    my $pid = open my $out, '-|', 'sh', '-c', 'exec "$@" 2>>"$0"', "$dir/browser.log", $browser, qw(--headless --no-sandbox --disable-gpu --disable-dev-shm-usage
      --hide-scrollbars --no-first-run --disable-background-networking --disable-component-update --disable-sync --disable-default-apps --disable-extensions
      --no-pings --virtual-time-budget=30000), '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1', "--user-data-dir=$dir/profile", @how, "http://127.0.0.1:$port/$page"
      or die "Chromium: $!\n";
    my $dom = decode_utf8(do { local $/; <$out> });
    close $out;
    alarm 0;
    return $dom;
}

# what the page said of itself, by look.js
sub said
{
    my ($said) = $_[0] =~ / data-said="([^"]*)"/;
    return decode_json(encode_utf8(($said // '{"said": ["nothing was drawn"]}') =~ s/&quot;/"/gr =~ s/&amp;/&/gr));
}

my $no_number = qr/\b(?:NaN|undefined|Infinity|null)\b|\[object /;
sub texts_of { my ($main) = $_[0] =~ /<main\b(.*)<\/main>/s; return ($main // 'no page') =~ s/<style>.*?<\/style>//gsr =~ s/<[^>]*>/ /gr }

for my $name (qw(index shops messages journeys))
{
    my $dom = browse("empty/$name.html?look", '--dump-dom', '--window-size=1400,3000');
    is_deeply(said($dom)->{said}, [], "$name of an empty database: all is drawn");
    unlike(texts_of($dom), $no_number, 'without an error');
    like(texts_of($dom), qr/There is nothing in this period/, 'it says so');
    is_deeply([ grep { $_ > 0 } $dom =~ /<rect [^>]*width="([^"]*)"/g ], [], 'and no bar is longer than nothing');
}

my $pictures = ($ENV{WORK} // $dir) . '/dashboard';
make_path($pictures);
my (%page, %asked);
for my $name (qw(index shops messages journeys))
{
    $page{$name} = browse("dist/$name.html?look", '--dump-dom', '--window-size=1400,3000', "--log-net-log=$dir/net.json");
    my $said = said($page{$name});
    is_deeply($said->{said}, [], "$name: all is drawn, no text lies on another, none is cut off");
    cmp_ok($said->{charts} // 0, '>=', 1, 'there are charts');
    unlike(texts_of($page{$name}), $no_number, 'and no error');
    unlike($page{$name}, $said_who, 'nothing says who a contact is');
    open my $file, '<', "$dir/net.json" or die "no log of requests\n";
    while (<$file>)
    {
        # what Chromium asks by itself has no page that began it
        my ($from, $address) = /"initiator":"([^"]*)".*"url":"([^"]+)"/ or next;
        $asked{$address}++ if $from ne 'not an origin';
    }

    $said = said(browse("dist/$name.html?look", '--dump-dom', '--window-size=700,3000'));
    is_deeply([ grep { !/^cut off/ } @{ $said->{said} } ], [], 'nor on a narrow screen');
    for my $look ([ light => 1 ], [ dark => 0 ])
    {
        my $picture = "$pictures/$name-$look->[0].png";
        unlink $picture;
        browse("dist/$name.html", "--screenshot=$picture", '--window-size=1400,2900', "--blink-settings=preferredColorScheme=$look->[1]");
        cmp_ok(-s $picture // 0, '>', 50_000, "a picture of it, $look->[0]");
    }
}
is(join(' ', grep { !/^http:\/\/127\.0\.0\.1:$port\// } sort keys %asked), '', 'nothing is asked of anybody else');
cmp_ok(scalar(keys %asked), '>', 20, 'of ' . keys(%asked) . ' addresses');
open my $requests, '<', "$dir/requests" or die;
is(join('', grep { !/^200\t/ } <$requests>), '', 'and all is there');
diag("pictures: $pictures");

# ---------- its numbers ----------

sub text { return $_[0] =~ s/<[^>]*>//gr =~ s/&lt;/</gr =~ s/&gt;/>/gr =~ s/&amp;/&/gr =~ s/(?<=\d),(?=\d)//gr }

# is the figure of the overview what this counts?
sub figure
{
    my ($key, $sql) = @_;
    my ($found) = $page{index} =~ /data-figure="\Q$key\E">([^<]*)</;
    is(text($found // 'none'), (sql("SELECT round($sql"))[0], "figure: $key");
}
my $in = "BETWEEN '2025-05-17 00:00+08' AND '2025-06-30 23:59:59.999999+08'";
figure(contacts => 'count(*)) FROM crm.contact');
figure(new => "count(*)) FROM crm.contact WHERE created_at $in");
figure(follow => "count(*)) FROM crm.event WHERE kind = 'follow' AND occurred_at $in");
figure(scan => "count(*)) FROM crm.scan WHERE occurred_at $in");
figure(purchase => "count(*)) FROM crm.transaction WHERE kind = 'purchase' AND occurred_at $in");
figure(join_loyalty => "count(*)) FROM crm.event WHERE kind = 'join_loyalty' AND occurred_at $in");
figure('purchase CNY' => "sum(amount)) FROM crm.transaction WHERE kind = 'purchase' AND occurred_at $in");
figure('refund CNY' => "sum(amount)) FROM crm.transaction WHERE kind = 'refund' AND occurred_at $in");
is(join(' ', map { text($_) } $page{index} =~ /<div class="remark">before: ([\d,]+)/g), join(' ', map { sql("SELECT round($_ BETWEEN '2025-04-02 00:00+08' AND '2025-05-16 23:59:59.999999+08'") }
    'count(*)) FROM crm.contact WHERE created_at', (map { "count(*)) FROM crm.event WHERE kind = '$_' AND occurred_at" } 'follow'), 'count(*)) FROM crm.scan WHERE occurred_at',
    "count(*)) FROM crm.transaction WHERE kind = 'purchase' AND occurred_at", "count(*)) FROM crm.event WHERE kind = 'join_loyalty' AND occurred_at",
    map { "sum(amount)) FROM crm.transaction WHERE kind = '$_' AND occurred_at" } 'purchase', 'refund'), 'and those of before');

# do these columns of a table say what this selects, row for row? In any order if that is not said
sub report
{
    my ($page, $key, $columns, $sql, $sorted) = @_;
    my ($table) = $page{$page} =~ /<table class="report" data-report="\Q$key\E">.*?<tbody>(.*?)<\/tbody>/s;
    my @found = map { my @cells = map { text($_) } /<td[^>]*>(.*?)<\/td>/g; join "\t", @cells[@$columns] } ($table // '') =~ /<tr>(.*?)<\/tr>/g;
    my @wanted = sql($sql);
    if (!$sorted) { @found = sort @found; @wanted = sort @wanted }
    cmp_ok(scalar @wanted, '>', 0, "$page: $key has rows");
    is_deeply(\@found, \@wanted, 'which are those of the database');
}

report('index', 'lifecycle', [ 0, 1 ], 'SELECT s.label, (SELECT count(*) FROM crm.contact AS c WHERE c.stage = s.stage) FROM crm.stage AS s ORDER BY rank', 1);
report('index', 'facts', [1], "SELECT count(*) FROM (SELECT kind, occurred_at FROM crm.event WHERE kind <> 'field_change' UNION ALL SELECT kind, occurred_at FROM crm.transaction
        UNION ALL SELECT 'scan', occurred_at FROM crm.scan) AS f WHERE occurred_at $in GROUP BY kind ORDER BY 1 DESC", 1);
report('index', 'awards', [ 0, 1, 2 ], "SELECT a.label, CASE WHEN cardinality(a.thresholds) > 1 THEN w.threshold::integer::text ELSE '–' END, count(*) FROM crm.award AS w JOIN crm.achievement AS a ON a.name = w.achievement
    WHERE w.awarded_at $in AND w.revoked_at IS NULL GROUP BY 1, 2");
report('shops', 'stores', [ 0 .. 7 ], "SELECT coalesce(store, 'no shop'), scans, won, orders, round(revenue), round(refunded), voided, redeemed
    FROM crm.store_report('$first', '$until') ORDER BY revenue DESC", 1);
report('shops', 'funnel', [1], "SELECT count(*) FROM crm.acquisition AS a RIGHT JOIN (SELECT DISTINCT contact_id FROM crm.event WHERE kind = 'follow' AND occurred_at $in) AS f
    USING (contact_id) GROUP BY store_id");
report('shops', 'codes', [ 0, 1, 3, 4 ], "SELECT c.scene, c.campaign, count(s.scan_id), count(DISTINCT f.scan_id) FROM crm.qr_code AS c
    LEFT JOIN crm.scan AS s ON s.qr_code_id = c.qr_code_id AND s.occurred_at $in LEFT JOIN crm.first_scan AS f ON f.contact_id = s.contact_id AND f.scan_id = s.scan_id GROUP BY c.qr_code_id");
report('shops', 'code_campaigns', [ 0, 1 ], "SELECT campaign, count(*) FROM crm.scan JOIN crm.qr_code USING (qr_code_id) WHERE campaign IS NOT NULL AND occurred_at $in GROUP BY 1");
report('shops', 'associates', [ 0, 1, 2, 3, 4, 6 ], "SELECT a.userid, s.name, a.scans, a.won, a.buyers, round(a.revenue) FROM crm.associate_report('$first', '$until') AS a JOIN crm.store AS s USING (store_id)");
report('messages', 'campaigns', [ 0, 2, 3, 6, 7 ], "SELECT c.label, count(*), count(*) FILTER (WHERE m.state = 'sent'), count(*) FILTER (WHERE m.state = 'refused'), count(*) FILTER (WHERE m.state = 'failed')
    FROM crm.campaign AS c JOIN crm.message AS m ON m.send_key = 'campaign:' || c.name WHERE c.sent_at $in GROUP BY 1");
report('messages', 'templates', [ 0, 2, 3 ], "SELECT t.label, count(*), count(*) FILTER (WHERE state = 'sent') FROM crm.message AS m JOIN crm.template AS t ON t.name = m.template WHERE due_at $in GROUP BY 1");
report('messages', 'reasons', [ 0, 1, 2 ], "SELECT state, reason, count(*) FROM crm.message WHERE state IN ('refused', 'failed') AND due_at $in GROUP BY 1, 2");
report('messages', 'coupons', [ 0, 1, 2, 4, 5 ], "SELECT c.label, count(*), count(redeemed_at), count(*) FILTER (WHERE redeemed_at IS NULL AND expires_at <= crm.now()),
    count(*) FILTER (WHERE redeemed_at IS NULL AND expires_at > crm.now()) FROM crm.coupon_grant AS g JOIN crm.coupon AS c ON c.name = g.coupon WHERE issued_at $in GROUP BY 1");
report('messages', 'programs', [ 0, 1, 3, 7 ], "SELECT p.label, (SELECT count(*) FROM crm.event WHERE kind = 'join_loyalty' AND occurred_at $in), (SELECT count(*) FROM crm.membership),
    (SELECT sum(points) FROM crm.point_entry) FROM crm.loyalty_program AS p");
report('journeys', 'journeys', [ 0, 2, 3, 4, 5 ], "SELECT journey, count(*), count(*) FILTER (WHERE state = 'active'), count(*) FILTER (WHERE state = 'finished'), count(*) FILTER (WHERE end_reason = 'goal')
    FROM crm.enrolment GROUP BY 1");
report('journeys', 'steps', [ 0, 2, 4, 5 ], "SELECT journey, step, count(*), count(*) FILTER (WHERE outcome IS NULL) FROM crm.step_visit WHERE entered_at $in GROUP BY 1, 2");

# the charts have them as texts
my @charts = map { text($_) } $page{index} =~ /<text[^>]*>(.*?)<\/text>/gs;
my %has = map { $_ => 1 } map { /^(\d+)/ } @charts;
is(join(' ', grep { !$has{$_} } sql('SELECT contacts FROM crm.lifecycle_funnel')), '', 'bars have the numbers of stages');
my @steps = sql(q{SELECT reached || ' · ' || round(100.0 * reached / first_value(reached) OVER (ORDER BY step), 1) || ' %' FROM crm.fact_funnel('["follow", "bind_mobile", "purchase", "purchase"]',
    '30 days', '2025-05-17 00:00+08', '2025-07-01 00:00+08') ORDER BY step});
is_deeply([ grep { / %$/ } @charts ], \@steps, 'those of the funnel its shares');
is(join(' ', map { text($_) } $page{journeys} =~ /<title>(Funnel of journey .*?)<\/title>/g), join(' ', sql("SELECT 'Funnel of journey ' || journey FROM crm.journey_summary ORDER BY started DESC")), 'each journey has its picture');
unlike($page{$_}, qr/<b>大促/, "$_: names are texts") for qw(shops messages);
like($page{shops}, qr/618 &lt;b&gt;大促&lt;\/b&gt; &amp; friends/, 'and are there');

done_testing();
