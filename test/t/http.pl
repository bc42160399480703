# The HTTP client (src/dispatch/http.c) against a server that misbehaves: what it calls answered,
# not sent and unknown, that it sends nothing twice, and that nothing stalls it.
use strict;
use warnings;
use CrmPeer;
use CrmTest;
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $peer = CrmPeer->new;
my $node = crm_node('http', preload => 0, start => 0);
# none of these is for us
$ENV{http_proxy} = $ENV{https_proxy} = $ENV{ALL_PROXY} = 'http://127.0.0.1:1';
$node->start;
crm_rooms($node, 'postgres');

sub quoted { my ($s) = @_; return 'NULL' unless defined $s; $s =~ s/'/''/g; "'$s'" }

# Each call is a session of its own, so none meets connections of another.
sub call
{
    my ($requests, %opt) = @_;
    my $sql = sprintf "SELECT owner, result, status, length(body), truncated, left(body, 100), error, ms
        FROM http(ARRAY[%s]::text[], ARRAY[%s]::text[], ARRAY[%s]::text[], %d, %d) ORDER BY owner",
        join(',', map { quoted($_->[0]) } @$requests), join(',', map { quoted($_->[1]) } @$requests),
        join(',', map { quoted($_) } @{ $opt{headers} || ['Content-Type: application/json'] }),
        $opt{timeout} || 5000, $opt{max} || 100;
    $sql = "$sql;\n" x ($opt{times} || 1);
    my $out = $node->safe_psql('postgres', $sql);
    my @keys = qw(owner result status length truncated body error ms);
    return map { my %r; @r{@keys} = split /\|/, $_, -1; \%r } split /\n/, $out;
}
sub one { my ($url, $body, %opt) = @_; (call([ [ $url, $body ] ], %opt))[0] }

# ----- answers -----
my $r = one($peer->url('/ok/1'), '{"a":"你好"}');
is("$r->{result} $r->{status} $r->{body}", 'reply 200 {"errcode":0,"errmsg":"ok"}', 'an answer');
is($r->{error}, '', 'has no error');
my ($seen) = $peer->seen('/ok/1');
is($seen->{method}, 'POST', 'sent by POST');
is($seen->{body}, '{"a":"' . "\xe4\xbd\xa0\xe5\xa5\xbd" . '"}', 'the bytes that were given');
is($seen->{headers}{'user-agent'}, 'pg_crm/' . crm_version(), 'it says who asks');
is($seen->{headers}{'content-type'}, 'application/json', 'a header that was given');
ok(!exists $seen->{headers}{expect}, 'it does not ask before it sends');
ok(!exists $seen->{headers}{'transfer-encoding'}, 'no chunks');

my $long = 'x' x 300_000;
$r = one($peer->url('/ok/2'), $long);
is($r->{result}, 'reply', 'a body of 300 kB');
is(length(($peer->seen('/ok/2'))[0]{body}), 300_000, 'arrives whole');
$r = one($peer->url('/ok/3'), undef);
is(($peer->seen('/ok/3'))[0]{method}, 'GET', 'no body: GET');
$r = one($peer->url('/ok/4'), '');
is(join(' ', map { $_->{method}, $_->{headers}{'content-length'} } $peer->seen('/ok/4')), 'POST 0',
    'an empty body: POST');
$r = one($peer->url('/status/503'), '{}');
is("$r->{result} $r->{status}", 'reply 503', 'a status is an answer');
$r = one($peer->url('/redirect/1'), '{}');
is("$r->{result} $r->{status}", 'reply 302', 'a redirection is not followed');
$r = one($peer->url('/status/204'), '{}');
is("$r->{result} $r->{status} $r->{length}", 'reply 204 0', 'an answer without a body');

# ----- long ones -----
$r = one($peer->url('/big/65536'), '{}');
is("$r->{result} $r->{length} $r->{truncated}", 'reply 65536 f', '64 kB are kept');
my $begin = time;
$r = one($peer->url('/big/5000000'), '{}');
is("$r->{result} $r->{status} $r->{length} $r->{truncated}", 'reply 200 65536 t', 'of 5 MB the first 64 kB');
ok(time - $begin < 2, 'the rest is not waited for');
$r = one($peer->url('/headers'), '{}', timeout => 4000);
is($r->{result}, 'unknown', 'headers without end are not read');
ok($r->{ms} < 3500, 'and not waited for');

# ----- surely not sent -----
my $closed = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1);
my $port = $closed->sockport;
close $closed;
my $silent = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 5) or die;    # accepts nothing
my %not_sent = (
    'a refused connection'  => "http://127.0.0.1:$port/x?access_token=SECRET",
    'an unknown name'       => 'http://no-such-name.invalid/x?access_token=SECRET',
    'an unknown protocol'   => 'ftp://127.0.0.1/x?access_token=SECRET',
    'an address that is none' => 'http://[127.0.0.1/x?access_token=SECRET',
    'a bad port'            => 'http://127.0.0.1:99999999/x?access_token=SECRET',
    'a peer without TLS'    => 'https://127.0.0.1:' . $peer->port . '/x?access_token=SECRET',
    'no address'            => '',
    'an address with a header in it' => $peer->url("/ok HTTP/1.1\r\nX-SECRET: 1"),
    'a peer that is silent in TLS' => 'https://127.0.0.1:' . $silent->sockport . '/x?access_token=SECRET');
for my $what (sort keys %not_sent)
{
    $r = one($not_sent{$what}, '{}', timeout => 3000);
    is("$r->{result} $r->{status}", 'not sent 0', $what);
    unlike($r->{error}, qr/SECRET|access_token/, "$what: no token in its error ($r->{error})");
}
$r = one($peer->url('/ok/5'), '{}', headers => [ "X-A: 1\r\nX-B: 2" ]);
is($r->{result}, 'not sent', 'a header that would be two');
is(scalar($peer->seen('/ok/5')), 0, 'and nothing arrived');

# ----- unknown -----
for my $case ([ 'silent', 'silence' ], [ 'slow', 'an answer that drips' ], [ 'half', 'half an answer' ],
    [ 'close', 'a close without an answer' ], [ 'reset', 'a reset' ], [ 'garbage', 'what is no HTTP' ])
{
    my ($path, $what) = @$case;
    $r = one($peer->url("/$path/7?access_token=SECRET"), '{"n":1}', timeout => 800);
    is($r->{result}, 'unknown', $what);
    unlike($r->{error}, qr/SECRET|access_token/, "$what: no token in its error ($r->{error})");
    is(scalar($peer->seen("/$path/7")), 1, "$what: received once");
    ok($r->{ms} >= 750 && $r->{ms} < 1500, "$what: ends in its time ($r->{ms} ms)") if $path =~ /silent|slow/;
}

# ----- nothing is sent twice -----
# The second request goes out on the connection of the first; the peer reads it and closes.
my @r = call([ [ $peer->url('/once/1'), '{"n":1}' ] ], times => 2);
is("$r[0]{result}, $r[1]{result}", 'reply, unknown', 'a used connection that dies while the request is there');
my @seen = $peer->seen('/once/1');
is(scalar(@seen), 2, 'each request is received once');
is($seen[0]{connection}, $seen[1]{connection}, 'on one connection');
@r = call([ [ $peer->url('/once/2'), $long ] ], times => 2);
is(scalar($peer->seen('/once/2')), 2, 'so is a long one');
for my $case ([ 3, '', 'without content' ], [ 4, undef, 'by GET' ])
{
    my ($n, $body, $what) = @$case;
    # a first request with a body, so that a connection is there
    my $sql = join '', map { sprintf "SELECT result FROM http(ARRAY['%s'], ARRAY[%s]::text[], ARRAY[]::text[], 2000, 9);\n", @$_ }
      [ $peer->url("/ok/$n"), "'{}'" ], [ $peer->url("/close/$n"), quoted($body) ];
    is($node->safe_psql('postgres', $sql), "reply\nunknown", "a request $what that is not answered");
    is(scalar($peer->seen("/close/$n")), 1, 'is received once');
}
# an answer that nobody asked for is not taken for that of the next request
my $sql = join "SELECT pg_sleep(0.1);\n", map { sprintf "SELECT result || ' ' || body FROM http(ARRAY['%s'], ARRAY['{}'], ARRAY[]::text[], 2000, 9);\n", $_ }
  $peer->url('/double/1'), $peer->url('/reply/1');
# (libcurl 8.22 meets the dead connection only by sending)
like($node->safe_psql('postgres', $sql), qr/^reply \{"errcode":0,"errmsg":"ok"\}\n\n(reply \{\}|not sent )$/,
    'an answer too many is nobody\'s');
# a connection that the peer has closed while it was idle is noticed before anything is sent
@r = call([ [ $peer->url('/half/8'), '{}' ], ], times => 2);
is("$r[0]{result}, $r[1]{result}", 'unknown, unknown', 'closed ones');
is(scalar($peer->seen('/half/8')), 2, 'each is sent once');

# ----- many -----
my $before = $peer->connections;
$begin = time;
@r = call([ map { [ $peer->url("/delay/50"), "{\"n\":$_}" ] } 1 .. 500 ], max => 500);
my $took = time - $begin;
is(scalar(grep { $_->{result} eq 'reply' && $_->{status} == 200 } @r), 500, '500 at once are answered');
is(join(',', map { $_->{owner} } @r), join(',', 1 .. 500), 'each handed back to its owner');
ok($took < 10, sprintf('in %.2f s (one after the other: 25 s)', $took));
my %bodies = map { $_->{body} => 1 } $peer->seen('/delay/50');
is(scalar(keys %bodies), 500, 'each was received, none twice');
is($peer->connections - $before, 500, 'by a connection each');

$before = $peer->connections;
@r = call([ map { [ $peer->url('/ok/9'), '{}' ] } 1 .. 10 ], max => 10, times => 20);
is(scalar(grep { $_->{result} eq 'reply' } @r), 200, '200 requests, ten at once');
ok($peer->connections - $before <= 10, 'on ' . ($peer->connections - $before) . ' connections');
$before = $peer->connections;
@r = call([ map { [ $peer->url('/delay/5'), '{}' ] } 1 .. 40 ], max => 4);
is(scalar(grep { $_->{result} eq 'reply' } @r), 40, '40 at once where four connections are allowed');
is($peer->connections - $before, 4, 'use four');
# good and bad ones side by side
@r = call([ map { [ $peer->url($_ % 4 ? '/delay/20' : '/silent/20'), "$_" ] } 1 .. 40 ], timeout => 1000);
is(join(' ', map { "$_->{result}" } grep { $_->{owner} % 4 == 0 } @r), join(' ', ('unknown') x 10), 'silent ones');
ok(!(grep { $_->{owner} % 4 && ($_->{result} ne 'reply' || $_->{ms} > 800) } @r), 'hold no others up');

# ----- interrupted, ended, begun again -----
my ($rc, $out, $err) = $node->psql('postgres', "SET statement_timeout = 300;
    SELECT * FROM http(ARRAY['" . $peer->url('/silent/30') . "'], ARRAY['{}'], ARRAY[]::text[], 60000, 5)");
like($err, qr/statement timeout/, 'the caller can be cancelled while a request runs');
is($node->safe_psql('postgres', "SELECT result FROM http(ARRAY['" . $peer->url('/ok/31') . "'], ARRAY['{}'], ARRAY[]::text[], 2000, 5);
    SELECT http_end(); SELECT http_end();
    SELECT result FROM http(ARRAY['" . $peer->url('/ok/31') . "'], ARRAY['{}'], ARRAY[]::text[], 2000, 5)"),
    "reply\n\n\nreply", 'ended and begun again');

# ----- TLS -----
SKIP:
{
    my $dir = PostgreSQL::Test::Utils::tempdir();
    skip 'openssl is not installed', 2
      if system("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout $dir/key -out $dir/crt >$dir/log 2>&1");
    my $free = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1);
    my $tls_port = $free->sockport;
    close $free;
    my $pid = fork // die;
    if ($pid == 0)
    {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>', "$dir/tls";
        open STDERR, '>&', \*STDOUT;
        exec 'openssl', 's_server', '-www', '-accept', "127.0.0.1:$tls_port", '-key', "$dir/key", '-cert', "$dir/crt";
    }
    for (1 .. 50)
    {
        last if IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $tls_port);
        select undef, undef, undef, 0.1;
    }
    $r = one("https://127.0.0.1:$tls_port/?access_token=SECRET", '{}');
    is($r->{result}, 'not sent', 'a certificate that nobody signed');
    like($r->{error}, qr/cert/i, "is named ($r->{error})");
    kill 'KILL', $pid;
    waitpid $pid, 0;
}

# ----- how fast, for who reads the log -----
$took = $node->safe_psql('postgres', sprintf "SELECT http_load('%s', '{}', 2000, 50)", $peer->url('/ok'));
diag(sprintf '%d requests/s against the server of this test', 2000 / $took);
$node->stop;
done_testing();
