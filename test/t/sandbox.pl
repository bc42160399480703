# The sandbox itself (test/lib/CrmSandbox/README.md): what it answers, its windows, its de-duplication,
# each fault as a client on a bare socket sees it, and clients that would stall a lesser server.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmSandbox;
use CrmSandbox::Json;
use Digest::SHA qw(hmac_sha256_hex);
use IO::Select;
use IO::Socket::INET;
use JSON::PP ();
use Socket qw(SHUT_WR);
use Test::More;
use Time::HiRes qw(time);

my $sandbox = CrmSandbox->start(accounts => { wx01 => 's1', wx02 => 's2' }, webhooks => { crm => 'whsec' }, seed => 7);
my $token;

sub fresh
{
    $sandbox->admin('reset');
    fresh_token();
}

sub fresh_token
{
    my (undef, $json) = $sandbox->call(POST => '/cgi-bin/stable_token', { grant_type => 'client_credential', appid => 'wx01', secret => 's1' });
    $token = $json->{access_token};
}

# api(PATH, BODY): the reply to a POST with the token
sub api
{
    my ($path, $body) = @_;
    my ($status, $json) = $sandbox->call(POST => "/cgi-bin/$path?access_token=$token", $body);
    return $json;
}

sub code
{
    my $json = api(@_);
    return ref $json ? $json->{errcode} : $json;
}

sub text
{
    my ($openid, $content) = @_;
    return { touser => $openid, msgtype => 'text', text => { content => $content // 'hello' } };
}

sub custom { return code('message/custom/send', text(@_)) }

# bare sockets

sub dial { return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $sandbox->port) || die "cannot connect: $!\n" }

sub say_to
{
    my ($socket, $text) = @_;
    while (length $text)
    {
        my $n = syswrite($socket, $text) // die "cannot write: $!\n";
        substr $text, 0, $n, '';
    }
}

sub post
{
    my ($path, $body, $headers) = @_;
    $body = JSON::PP->new->utf8->encode($body) if ref $body;
    return "POST $path HTTP/1.1\r\nHost: sandbox\r\nContent-Type: application/json\r\n" . ($headers // '')
      . 'Content-Length: ' . length($body) . "\r\n\r\n$body";
}

sub send_post { return post("/cgi-bin/message/custom/send?access_token=$token", text(@_)) }

# hear(SOCKET, SECONDS): a reply, and how it ended: whole, eof, an error, or timeout
sub hear
{
    my ($socket, $seconds) = @_;
    my $until = time + ($seconds // 20);
    my $heard = '';
    while (1)
    {
        if ($heard =~ /\A(.*?\r\n\r\n)/s)
        {
            my $head = $1;
            my $body = substr $heard, length $head;
            my ($length) = $head =~ /^Content-Length: (\d+)/mi;
            return ($body, 'whole', $head) if defined $length && length $body >= $length;
            if ($head =~ /^Transfer-Encoding: chunked/mi && $body =~ /\r\n0\r\n\r\n\z|\A0\r\n\r\n\z/)
            {
                my $plain = '';
                $plain .= substr $body, 0, hex $1, '' while $body =~ s/\A(?:\r\n)?([0-9a-f]+)\r\n// && hex $1;
                return ($plain, 'whole', $head);
            }
        }
        my $left = $until - time;
        return ($heard, 'timeout') if $left <= 0 || !IO::Select->new($socket)->can_read($left);
        my $n = sysread $socket, $heard, 1_048_576, length $heard;
        return ($heard, $!{ECONNRESET} ? 'reset' : "$!") if !defined $n;
        return ($heard, 'eof') if !$n;
    }
}

# ask(TEXT, SECONDS): on a connection of its own
sub ask
{
    my ($text, $seconds) = @_;
    my $socket = dial();
    say_to($socket, $text);
    return hear($socket, $seconds);
}

sub last_row { return ($sandbox->ledger(@_))[-1] }

subtest 'JSON is read as JSON::PP reads it' => sub {
    my $theirs = JSON::PP->new->allow_nonref->utf8;
    for my $text ('{}', '[]', '{"a":1}', ' { "a" : [ 1 , -2.5e3, "x" ] , "b":{"c":[]}} ', '"a\\"b\\\\\\/\\b\\f\\n\\r\\t"', '"\\u4f60\\ud83d\\ude00"',
        '{"a\\n":"b"}', '"你好"', '', '{', '{"a"}', '{"a":}', '{"a":1,}', '[1,]', '[1 2]', "{'a':1}", '{"a":1}x', '01', '1.', '.5', '+1', '-',
        '"a', "\"a\nb\"", "\"\xff\"", '"\\x"', '"\\ud83d"', 'nul', 'NaN', '{"a":{"b":{"c":[[[{}]]]}}}', '12345678901234567890', "\xef\xbb\xbf{}")
    {
        my $value = eval { $theirs->decode($text) };
        my $ok = defined $value ? 1 : 0;
        my ($read, $reads) = json_read($text);
        is($reads ? 1 : 0, $ok, json_quote($text) . ($ok ? ' is' : ' is not'));
        next if !$ok || !ref $value;
        is($theirs->canonical->encode(JSON::PP->new->decode(json_write_text($read))), $theirs->encode($value), '  the same');
    }
};

# numbers come as text; for the comparison those that look like one are one
sub json_write_text
{
    my ($value) = @_;
    return '{' . join(',', map { json_quote($_) . ':' . json_write_text($value->{$_}) } sort keys %$value) . '}' if ref $value eq 'HASH';
    return '[' . join(',', map { json_write_text($_) } @$value) . ']' if ref $value eq 'ARRAY';
    return $value =~ /\A-?[0-9]/ ? $value : json_quote($value);
}

subtest 'tokens' => sub {
    fresh();
    my $asked = { grant_type => 'client_credential', appid => 'wx01', secret => 's1' };
    my $stable = sub { return ($sandbox->call(POST => '/cgi-bin/stable_token', { %$asked, @_ }))[1] };
    my $plain = sub {
        my %is = (%$asked, @_);
        return ($sandbox->call(GET => '/cgi-bin/token?' . join '&', map { "$_=$is{$_}" } grep { defined $is{$_} } sort keys %is))[1];
    };
    is($stable->()->{access_token}, $token, 'stable: the same again');
    cmp_ok($stable->()->{expires_in}, '>', 7100, 'expires in two hours');
    cmp_ok(length $token, '>', 128, 'a long one');
    for my $call ($stable, $plain)
    {
        is($call->(appid => 'wx99')->{errcode},    40013, 'unknown appid');
        is($call->(secret => 'no')->{errcode},     40125, 'wrong secret');
        is($call->(appid => undef)->{errcode},     41002, 'no appid');
        is($call->(secret => undef)->{errcode},    41004, 'no secret');
        is($call->(grant_type => 'x')->{errcode},  40002, 'wrong grant_type');
    }
    like($stable->(secret => 'no')->{errmsg}, qr/^invalid appsecret rid: [0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}$/, 'with a rid');
    is(($sandbox->call(GET  => '/cgi-bin/stable_token'))[1]{errcode}, 43002, 'stable_token by GET');
    is(($sandbox->call(POST => '/cgi-bin/token', {}))[1]{errcode}, 43001, 'token by POST');

    # the plain one
    my ($first, $second) = map { $plain->()->{access_token} } 1 .. 2;
    isnt($first, $second, 'plain: another each time');
    my $use = sub { ($sandbox->call(GET => "/cgi-bin/user/info?access_token=$_[0]&openid=o1"))[1]{errcode} // 0 };
    is($use->($_), 0, 'all are valid') for $first, $second, $token;
    $sandbox->admin(settings => { clock_offset_s => 270 });
    is($use->($first), 0, 'the old one for five minutes');
    $sandbox->admin(settings => { clock_offset_s => 301 });
    is($use->($first),  40001, 'and no longer');
    is($use->($second), 0,     'the new one is');
    $sandbox->admin(settings => { clock_offset_s => 6800 });
    is($stable->()->{access_token}, $token, 'stable: the same until five minutes before the end');
    $sandbox->admin(settings => { clock_offset_s => 7000 });
    my $next = $stable->();
    isnt($next->{access_token}, $token, 'then another');
    is($use->($_), 0, 'both are valid') for $token, $next->{access_token};
    $sandbox->admin(settings => { clock_offset_s => 7300 });
    is($use->($token), 42001, 'until the first expires');

    # force_refresh
    my $forced = $stable->(force_refresh => JSON::PP::true())->{access_token};
    isnt($forced, $next->{access_token}, 'forced: another');
    is($use->($next->{access_token}), 40001, 'the old one is dead');
    is($stable->(force_refresh => JSON::PP::true())->{access_token}, $forced, 'not twice within 30 s');
    $sandbox->admin(settings => { force_refresh_daily => 1 });
    is($stable->(force_refresh => JSON::PP::true())->{errcode}, 45009, 'and so often a day');

    is($use->(''),        41001, 'no token');
    is($use->('nonsense'), 40014, 'no such form');
    is($use->($forced =~ s/.\z/$& eq 'a' ? 'b' : 'a'/er), 40001, 'unknown');
    $sandbox->admin(tokens => { appid => 'wx01', expire => 1 });
    is($use->($forced), 42001, 'expired by the test');
    my $new = $stable->()->{access_token};
    $sandbox->admin(tokens => { revoke => 1 });
    is($use->($new), 40001, 'revoked by the test');
    is($use->($stable->()->{access_token}), 0, 'there is another then');
    $sandbox->admin(settings => { token_lifetime_s => 10 });
    $sandbox->admin(tokens => { expire => 1 });
    is($stable->()->{expires_in}, 10, 'a lifetime as set');
    $sandbox->admin(accounts => { appid => 'wx01', blocks => { stable_token => 40164 } });
    is($stable->()->{errcode}, 40164, 'blocked as set');
};

subtest 'shapes of customer-service messages' => sub {
    fresh();
    $sandbox->admin(settings => { check_windows => 0 });
    my $send = sub { my ($type, $object) = @_; return code('message/custom/send', { touser => 'o1', msgtype => $type, $type => $object }) };
    my %good = (
        text => { content => '你好' }, image => { media_id => 'm' }, voice => { media_id => 'm' }, mpnews => { media_id => 'm' },
        video => { media_id => 'm', thumb_media_id => 't', title => 'a', description => 'b' },
        music => { title => 'a', description => 'b', musicurl => 'http://x', hqmusicurl => 'http://y', thumb_media_id => 't' },
        news => { articles => [ { title => 'a', description => 'b', url => 'http://x', picurl => 'http://y' } ] },
        mpnewsarticle => { article_id => 'a' }, wxcard => { card_id => 'c' },
        msgmenu => { head_content => '?', list => [ { id => 1, content => 'yes' }, { id => 2, content => 'no' } ], tail_content => '.' },
        miniprogrampage => { title => 'a', appid => 'wxa', pagepath => 'p', thumb_media_id => 't' },
    );
    is($send->($_, $good{$_}), 0, $_) for sort keys %good;
    is($send->('link', { title => 'a', description => 'b', url => 'c', thumb_url => 'd' }), 48008, 'link is for mini programs');
    $sandbox->admin(accounts => { appid => 'wx01', kind => 'mini' });
    is($send->('link', { title => 'a', url => 'c' }), 0, 'which have it');
    is($send->('fax', {}), 40008, 'unknown msgtype');
    is(code('message/custom/send', { touser => 'o1' }), 40008, 'no msgtype');
    is($send->('text', { content => '' }), 44004, 'empty text');
    is($send->('text', {}), 44004, 'no text');
    is($send->('text', { content => 'x' x 2048 }), 0, 'as long as may be');
    is($send->('text', { content => 'x' x 2049 }), 45002, 'too long');
    is($send->('news', { articles => { title => 'a' } }), 45162, 'articles is no array');
    is($send->('news', { articles => [ ({ title => 'a' }) x 2 ] }), 45008, 'two articles');
    is($send->('image', {}), 40007, 'no media_id');
    is($send->('msgmenu', { list => {} }), 45162, 'a menu without a list');
    is(code('message/custom/send', '{"touser":"o1",'), 47001, 'not JSON');
    is(code('message/custom/send', "{\"touser\":\"\xff\"}"), 47001, 'not UTF-8');
    is(code('message/custom/send', '[]'), 47001, 'not an object');
    is(code('message/custom/send', ''), 44002, 'empty');
    my $escaped = '{"touser":"o1","msgtype":"text","text":{"content":"%s"}}';
    is(code('message/custom/send', sprintf $escaped, '\\u4f60'), 40033, '\uXXXX');
    is(code('message/custom/send', sprintf $escaped, '\\\\u4f60'), 0, '\\\\uXXXX is a backslash');
    is(($sandbox->call(GET => "/cgi-bin/message/custom/send?access_token=$token"))[1]{errcode}, 43002, 'by GET');
    is(code('message/nothing'), 40066, 'unknown path');
    $sandbox->admin(accounts => { appid => 'wx01', types => { msgmenu => 40200 }, media => { m => 1 }, kf_accounts => { 'a@b' => 1 } });
    is($send->('msgmenu', $good{msgmenu}), 40200, 'a type that the account has not');
    is($send->('image', { media_id => 'other' }), 40007, 'unknown media');
    is($send->('image', { media_id => 'm' }), 0, 'known media');
    is(code('message/custom/send', { %{ text('o1') }, customservice => { kf_account => 'x@b' } }), 61452, 'unknown agent');
    is(code('message/custom/send', { %{ text('o1') }, customservice => { kf_account => 'a@b' } }), 0, 'known agent');
    $sandbox->admin(settings => { limits => { title => 3, articles => 0 } });
    is($send->('news', { articles => [ ({ title => 'four' }) x 2 ] }), 45003, 'limits as set');
};

subtest 'windows and people' => sub {
    fresh();
    $sandbox->admin(settings => { token_lifetime_s => 1_000_000 });
    $sandbox->admin(tokens => { expire => 1 });
    fresh_token();
    is(custom('o1'), 45015, 'nothing open');
    my $open = sub { return $sandbox->admin(windows => { openid => $_[0], event => $_[1] })->{windows} };
    for my $case ([ message => 5, 172_800 ], [ menu => 3, 60 ], [ follow => 3, 60 ], [ scan => 3, 60 ], [ enter_session => 2, 60 ])
    {
        my ($event, $quota, $seconds) = @$case;
        $open->("o_$event", $event);
        is(custom("o_$event"), 0, "$event $_") for 1 .. $quota;
        is(custom("o_$event"), 45047, "$event: used up");
        $open->("p_$event", $event);
        $sandbox->admin(settings => { clock_offset_s => $seconds - 20 });
        is(custom("p_$event"), 0, "$event: just before the end");
        $sandbox->admin(settings => { clock_offset_s => $seconds });
        is(custom("p_$event"), 45015, "$event: over");
        $sandbox->admin(settings => { clock_offset_s => 0 });
    }
    $open->('o2', $_) for 'message', 'menu';
    is(custom('o2'), 0, 'two windows') for 1 .. 8;
    is(custom('o2'), 45047, 'together eight');
    $open->('o3', $_) for 'message', 'menu';
    is(custom('o3'), 0, 'one') for 1 .. 4;
    is_deeply([ map { "$_->{event} $_->{used}" } @{ $sandbox->get('windows', openid => 'o3')->{windows} } ],
        [ 'menu 3', 'message 1' ], 'the one that ends first is spent first');
    $sandbox->admin(windows => { openid => 'o3', close => 1 });
    is(custom('o3'), 45015, 'closed by the test');
    $open->('o4', 'message');
    $open->('o4', 'unfollow');
    is(custom('o4'), 43004, 'unfollowed');
    is(($sandbox->call(GET => "/cgi-bin/user/info?access_token=$token&openid=o4"))[1]{subscribe}, 0, 'user/info says so');
    $open->('o4', 'follow');
    is(custom('o4'), 0, 'follows again');
    $sandbox->admin(contacts => { openids => [ 'o5', 'o6', 'o7' ], blocked => 1 });
    is(custom('o5'), 43019, 'blocked');
    $sandbox->admin(contacts => [ { openid => 'o6', blocked => 0, optout => 1 }, { openid => 'o7', gone => 1 } ]);
    is(custom('o6'), 48002, 'opted out');
    is(custom('o7'), 46004, 'gone');
    $sandbox->admin(settings => { strict_contacts => 1 });
    is(custom('o9'), 40003, 'unknown');
    is_deeply($sandbox->admin(contacts => { prefix => 'p', from => 1, to => 1000, unionid => 'u' }), { count => 1000 }, 'many at once');
    is($sandbox->admin(windows => { prefix => 'p', from => 1, to => 1000, event => 'message' })->{count}, 1000, 'who all write');
    is(custom('p777'), 0, 'one of them');
    my $info = ($sandbox->call(GET => "/cgi-bin/user/info?access_token=$token&openid=p777&lang=zh_CN"))[1];
    is_deeply([ @$info{qw(subscribe openid language unionid)} ], [ 1, 'p777', 'zh_CN', 'u' ], 'user/info');
    is(($sandbox->call(GET => "/cgi-bin/user/info?access_token=$token&openid=o9"))[1]{errcode}, 40003, 'of somebody unknown');
    is(scalar @{ api('user/info/batchget', { user_list => [ { openid => 'p1' }, { openid => 'p2' } ] })->{user_info_list} }, 2, 'of two');
    is(code('message/custom/typing', { touser => 'p777', command => 'Typing' }),       0,     'typing');
    is(code('message/custom/typing', { touser => 'p777', command => 'Typing' }),       45081, 'again');
    is(code('message/custom/typing', { touser => 'p777', command => 'CancelTyping' }), 0,     'no longer');
    is(code('message/custom/typing', { touser => 'p777', command => 'Sing' }),         45072, 'no such command');
    is(code('message/custom/typing', { touser => 'o_scan', command => 'Typing' }),       45080, 'who has not written');
};

subtest 'templates, de-duplicated' => sub {
    fresh();
    my %message = (touser => 'o1', template_id => 'T', data => { thing1 => { value => '茶' }, amount2 => { value => '9.00' } });
    my $send = sub { return api('message/template/send', { %message, @_ }) };
    my $first = $send->(client_msg_id => 'k1');
    is($first->{errcode}, 0, 'sent');
    like($first->{msgid}, qr/^34\d{17}$/, 'a msgid of 19 digits');
    is($send->(client_msg_id => 'k1')->{msgid}, $first->{msgid}, 'again: the same msgid');
    isnt($send->(client_msg_id => 'k2')->{msgid}, $first->{msgid}, 'another id');
    isnt($send->(client_msg_id => 'k1', touser => 'o2')->{msgid}, $first->{msgid}, 'another person');
    isnt($send->()->{msgid}, $send->()->{msgid}, 'no id: two messages');
    my @rows = $sandbox->ledger(touser => 'o1', key => 'k1');
    is_deeply([ map { "$_->{delivered} $_->{duplicate}" } @rows ], [ '1 0', '0 1' ], 'delivered once');
    $sandbox->admin(settings => { clock_offset_s => 570 });
    is($send->(client_msg_id => 'k1')->{msgid}, $first->{msgid}, 'for ten minutes');
    $sandbox->admin(settings => { clock_offset_s => 601 });
    isnt($send->(client_msg_id => 'k1')->{msgid}, $first->{msgid}, 'and no longer');
    is($send->(client_msg_id => 'k' x 33)->{errcode}, 47003, 'too long an id');
    is($send->(data => {})->{errcode}, 47003, 'no data');
    is($send->(data => { thing1 => 'x' })->{errcode}, 47003, 'no value');
    is($send->(data => { thing1 => { value => "\x{8336}" x 20 } })->{errcode}, 0, '20 characters');
    like($send->(data => { thing1 => { value => "\x{8336}" x 21 } })->{errmsg}, qr/data\.thing1\.value/, '21 are too many');
    is($send->(template_id => '')->{errcode}, 40037, 'no template');
    $sandbox->admin(templates => { template_id => 'T', keys => [ 'thing1', 'date3' ] });
    is($send->(template_id => 'U')->{errcode}, 40037, 'unknown template');
    like($send->()->{errmsg}, qr/data\.date3\.value/, 'a key is missing');
    $sandbox->admin(windows => { openid => 'o1', event => 'unfollow' });
    is($send->(client_msg_id => 'k9')->{errcode}, 43004, 'unfollowed');

    my %notice = (touser => 'o3', template_id => 'T', data => { thing1 => { value => 'x' }, date3 => { value => '2026-11-22' } });
    is(code('message/subscribe/bizsend', \%notice), 43101, 'has not said yes');
    $sandbox->admin(contacts => { openid => 'o3', accepts => { T => 2, 'T/12' => 1 } });
    is(code('message/subscribe/bizsend', \%notice), 0, 'has, twice') for 1 .. 2;
    is(code('message/subscribe/bizsend', \%notice), 43101, 'and no more');
    my %once = (touser => 'o3', template_id => 'T', scene => 12, title => 'x', data => { content => { value => 'y' } });
    is(code('message/template/subscribe', { %once, title => '' }), 47003, 'no title');
    is(code('message/template/subscribe', \%once), 0, 'once');
    is(code('message/template/subscribe', \%once), 43101, 'not twice');
};

subtest 'quotas' => sub {
    fresh();
    $sandbox->admin(settings => { check_windows => 0, daily_quota => { 'custom/send' => 3 } });
    is(custom('o1'), 0, 'of three') for 1 .. 3;
    is(custom('o1'), 45009, 'used up');
    my $quota = api('openapi/quota/get', { cgi_path => '/cgi-bin/message/custom/send' });
    is_deeply($quota->{quota}, { daily_limit => 3, used => 3, remain => 0 }, 'as quota/get says');
    is(code('openapi/quota/get', { cgi_path => '/x' }), 76021, 'of an unknown path');
    is(code('clear_quota', { appid => 'wx02' }), 40013, "another's");
    is(code('clear_quota', { appid => 'wx01' }), 0, 'cleared');
    is(custom('o1'), 0, 'again') for 1 .. 3;
    is(($sandbox->call(POST => '/cgi-bin/clear_quota/v2', { appid => 'wx01', appsecret => 's1' }))[1]{errcode}, 0, 'cleared without a token');
    is(custom('o1'), 0, 'again') for 1 .. 3;
    is(code('clear_quota', { appid => 'wx01' }), 0, 'cleared') for 3 .. 10;
    is(code('clear_quota', { appid => 'wx01' }), 48006, 'ten times a month');
    $sandbox->admin(settings => { daily_quota => { 'custom/send' => 100 }, minute_quota => { 'custom/send' => 2 }, clock_offset_s => 30 - time % 60 });
    is(custom('o1'), 0, 'in this minute') for 1 .. 2;
    is(custom('o1'), 45011, 'slower');
    $sandbox->admin(settings => { clock_offset_s => 90 - time % 60 });
    is(custom('o1'), 0, 'in the next');
    $sandbox->admin(accounts => { appid => 'wx01', blocks => { 'custom/send' => 48001 } });
    is(custom('o1'), 48001, 'blocked as set');
};

subtest 'a webhook' => sub {
    fresh();
    my $call = sub {
        my ($body, %is) = @_;
        my $at = $is{at} // int time;
        return $sandbox->call(POST => '/webhook/' . ($is{name} // 'crm'), $body, {
            'X-Crm-Timestamp' => $at, 'X-Crm-Signature' => 'sha256=' . hmac_sha256_hex("$at.$body", $is{secret} // 'whsec'),
            exists $is{key} && !defined $is{key} ? () : ('Idempotency-Key' => $is{key} // 'e1'),
        });
    };
    my $body = '{"event":"stage","openid":"o1"}';
    is_deeply([ $call->($body) ], [ 200, { ok => JSON::PP::true() } ], 'taken');
    is(($call->($body))[0], 200, 'again');
    is_deeply([ map { "$_->{account} $_->{delivered} $_->{duplicate} $_->{body}{event}" } $sandbox->ledger(api => 'webhook/crm', key => 'e1') ],
        [ 'crm 1 0 stage', 'crm 0 1 stage' ], 'delivered once');
    is(($call->($body, secret => 'other'))[0], 401, 'wrong signature');
    is(($call->($body, at => int(time) - 400))[0], 401, 'too old');
    is(($call->($body, key => undef))[0], 400, 'no key');
    is(($call->($body, name => 'none'))[0], 404, 'unknown');
    $sandbox->admin(webhooks => { name => 'crm', status => 503, body => { wait => 5 }, headers => { 'Retry-After' => 5 } });
    is_deeply([ $call->($body, key => 'e2') ], [ 503, { wait => 5 } ], 'replies as set');
    is(last_row()->{delivered}, JSON::PP::false, 'which is not delivered');
    $sandbox->admin(webhooks => { name => 'crm', status => 204, body => '' });
    is(($call->($body, key => 'e2'))[0], 204, 'without a body');
    is(last_row()->{delivered}, JSON::PP::true, 'is delivered');
    $sandbox->admin(webhooks => { name => 'new', secret => 'x' });
    is(($call->('not JSON', name => 'new', secret => 'x'))[0], 200, 'another, with any body');
    is(last_row()->{body_text}, 'not JSON', 'which the ledger has');
};

subtest 'each fault, on a bare socket' => sub {
    fresh();
    $sandbox->admin(settings => { check_windows => 0 });
    my $fault = sub { $sandbox->admin(faults => { api => 'custom/send', fault => @_ }) };
    my $n = 0;
    # how it ended, what was heard, and what the ledger has: fault, received, delivered, replied
    my $case = sub {
        my ($kind, $ends, $heard, $received, $delivered, $replied, %more) = @_;
        my $who = 'f' . ++$n;
        $fault->($kind, %more);
        my ($text, $how, $head) = ask(send_post($who));
        is($how, $ends, "$kind: $ends");
        like(($head // '') . $text, $heard, '  what is heard');
        my $row = wait_for(sub { my $row = last_row(api => 'custom/send'); $row->{replied} ne 'pending' && $row }, 10);
        is_deeply([ map { "$_" } @$row{qw(fault received delivered replied)} ], [ $kind, $received, $delivered, $replied ], '  the ledger');
        is(custom($who), 0, '  the next one is well');
    };
    $case->('reset_before_body',  'reset', qr/\A\z/, 0, 0, 'none');
    $case->('reset_before_reply', 'reset', qr/\A\z/, 1, 1, 'none');
    $case->('half_reply', 'eof', qr/\AHTTP.*\r\n\r\n\{"errcode":0,\z/s, 1, 1, 'cut');
    $case->('garbage',   'whole', qr/<html>\x00\xff/, 1, 1, 'whole');
    $case->('slow_drip', 'whole', qr/"errcode":0/, 1, 1, 'whole', seconds => 0.5);
    $case->('silent',    'whole', qr/"errcode":0/, 1, 1, 'whole', seconds => 0.3);
    $case->('huge',      'whole', qr/\{"errcode":0,"errmsg":"ok","pad":"x{4000}/, 1, 1, 'whole');
    $case->("http_$_",   'whole', qr/\AHTTP\/1\.1 $_ .*<html>/s, 0, 0, 'whole') for 500, 502, 503;
    $case->("errcode_$_", 'whole', qr/"errcode":$_,/, 0, 0, 'whole') for -1, 45009, 40001, 45015, 43004;
    $case->('http_502',  'whole', qr/\AHTTP\/1\.1 502/, 1, 1, 'whole', received => 1);

    my $start = time;
    $fault->('slow_drip', seconds => 0.6);
    is((ask(send_post('f')))[1], 'whole', 'slow');
    cmp_ok(time - $start, '>', 0.4, 'takes its time');
    $fault->('silent', seconds => 30);
    is((ask(send_post('f'), 0.2))[1], 'timeout', 'silent for longer than the client waits');
    $fault->('huge', bytes => 10);
    is((ask(send_post('f')))[0], '{"errcode":0,"errmsg":"ok","pad":"xxxxxxxxxx"}', 'not so huge');

    # a reused connection
    my $socket = dial();
    $fault->('close_reused');
    say_to($socket, send_post('r'));
    is((hear($socket))[1], 'whole', 'close_reused: not the first request');
    say_to($socket, send_post('r'));
    is((hear($socket))[1], 'eof', 'but the second');
    is_deeply([ map { "$_->{nth} $_->{delivered}" } $sandbox->ledger(touser => 'r') ], [ '1 1', '2 0' ], 'the ledger');

    # which and how often
    $sandbox->admin(faults => { api => 'custom', fault => '45009', times => 2 });
    is(api('message/template/send', { touser => 'o', template_id => 'T', data => { a => { value => 1 } } })->{errcode}, 0, 'another API');
    is_deeply([ map { custom('o') } 1 .. 3 ], [ 45009, 45009, 0 ], 'the next two');
    ok(!eval { $fault->('flood'); 1 }, 'an unknown fault');
    like($@, qr/no fault is called flood: close_reused/, 'is refused');

    # at random, but the same for a seed
    my @series;
    for (1 .. 2)
    {
        fresh();
        $sandbox->admin(settings => { check_windows => 0 });
        $sandbox->admin(faults => [ { api => 'custom/send', fault => 'http_503', probability => 0.2 }, { api => 'custom/send', fault => '-1', probability => 0.2 } ]);
        push @series, join ' ', map { my $code = custom('o'); $code =~ /^-?\d+$/ ? $code : 503 } 1 .. 100;
    }
    is($series[0], $series[1], 'at random: the same again');
    my %count;
    $count{$_}++ for split / /, $series[0];
    cmp_ok($count{$_}, '>', 5, "$_: $count{$_} of 100") for -1, 503;
    my $counts = $sandbox->get('counts')->{apis}{'custom/send'};
    is_deeply([ @$counts{qw(requests received delivered)} ], [ 100, $count{0}, $count{0} ], 'counted');
    is($counts->{faults}{http_503}, $count{503}, 'each');
    $sandbox->clear_faults;
    is_deeply([ map { custom('o') } 1 .. 20 ], [ (0) x 20 ], 'none any more');
};

subtest 'clients of all kinds' => sub {
    fresh();
    $sandbox->admin(settings => { check_windows => 0 });
    my $path = "/cgi-bin/message/custom/send?access_token=$token";
    my $body = JSON::PP->new->utf8->encode(text('c1'));
    my $chunked = "POST $path HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
      . join('', map { sprintf "%X;x=y\r\n%s\r\n", length, $_ } $body =~ /(.{1,7})/gs) . "0\r\nTrailer: x\r\n\r\n";
    is((ask($chunked))[0], '{"errcode":0,"errmsg":"ok"}', 'chunks');
    my $socket = dial();
    for my $byte (split //, $chunked) { say_to($socket, $byte) }
    is((hear($socket))[0], '{"errcode":0,"errmsg":"ok"}', 'byte by byte');
    is((ask("POST $path HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"))[2] =~ /400/, 1, 'no chunk');
    like((ask("GET / HTTP/3\r\n\r\n"))[0], qr/Bad Request/, 'no HTTP');
    like((ask("GET / HTTP/1.1\r\nX: " . 'x' x 70_000))[2], qr/ 431 /, 'too long a header');
    like((ask("GET /cgi-bin/user/info?access_token=$token&openid=c1 HTTP/1.0\r\n\r\n"))[2], qr/^Connection: close/m, 'HTTP/1.0');
    $socket = dial();
    say_to($socket, "POST $path HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: " . length($body) . "\r\n\r\n");
    sysread $socket, my $continue, 100;
    is($continue, "HTTP/1.1 100 Continue\r\n\r\n", '100-continue');
    say_to($socket, $body);
    is((hear($socket))[1], 'whole', 'and on');
    my $big = 'x' x 3_000_000;
    is(JSON::PP::decode_json((ask(post($path, text('c1', $big))))[0])->{errcode}, 45002, 'three megabytes');

    # pipelined: the replies come in order
    my $many = 50;
    $sandbox->admin(settings => { latency_ms => 2 });
    $socket = dial();
    say_to($socket, join '', map { $_ % 2 ? send_post("q$_") : post($path, '[]') } 1 .. $many);
    my $heard = '';
    wait_for(sub { sysread($socket, $heard, 65_536, length $heard) // die "$!\n"; (() = $heard =~ /"errcode"/g) == $many }, 20);
    is(join(' ', $heard =~ /"errcode":(\d+)/g), join(' ', map { $_ % 2 ? 0 : 47001 } 1 .. $many), "$many pipelined");
    $sandbox->admin(settings => { latency_ms => 300 });
    my $start = time;
    my @waiting = map { my $s = dial(); say_to($s, send_post('l')); $s } 1 .. 20;
    is(scalar(grep { (hear($_))[1] eq 'whole' } @waiting), 20, 'twenty at once, slow');
    cmp_ok(time - $start, '>', 0.25, 'as slow as set');
    cmp_ok(time - $start, '<', 4,    'but all at the same time');
    $sandbox->admin(settings => { latency_ms => 0, latency_ms_of => { 'user/info' => 100 } });

    # a client that ends its sending still hears; one that has gone does not
    $sandbox->admin(settings => { latency_ms => 100 });
    $socket = dial();
    say_to($socket, send_post('h1'));
    shutdown $socket, SHUT_WR;
    is((hear($socket))[1], 'whole', 'half closed');
    $socket = dial();
    say_to($socket, send_post('h2'));
    close $socket;
    is(wait_for(sub { my ($row) = $sandbox->ledger(touser => 'h2'); $row && $row->{replied} ne 'pending' && $row->{replied} }, 10), 'none', 'gone');
    is(($sandbox->ledger(touser => 'h1'))[0]{replied}, 'whole', 'the other is whole');
    $sandbox->admin(settings => { latency_ms => 0, reply_chunked => 1 });
    my ($plain, $how, $head) = ask(send_post('h3'));
    is_deeply([ $plain, $how ], [ '{"errcode":0,"errmsg":"ok"}', 'whole' ], 'a reply in chunks');
    $sandbox->admin(settings => { reply_chunked => 0, keepalive_idle_s => 1 });
    is((hear(dial(), 10))[1], 'eof', 'an idle connection is closed');
    $sandbox->admin(settings => { keepalive_idle_s => 0 });

    # an outage
    my $kept = dial();
    say_to($kept, send_post('x1'));
    is((hear($kept))[1], 'whole', 'before the outage');
    $sandbox->admin(outage => { seconds => 0.5 });
    is((hear($kept))[1], 'reset', 'the connection is reset');
    ok(!IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $sandbox->port), 'another is refused');
    ok(wait_for(sub { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $sandbox->port) }, 20), 'until it is over');
    is(custom('x1'), 0, 'and all is known as before');

    # those who hang do not stall the others
    my @hang = map { dial() } 1 .. 30;
    say_to($hang[$_], ('', 'POST ', "POST $path HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")[ $_ % 3 ]) for 0 .. $#hang;
    $sandbox->admin(faults => { api => 'custom/send', fault => 'huge', times => 5, bytes => 20_000_000 });
    my @deaf = map { my $s = dial(); say_to($s, send_post('deaf')); $s } 1 .. 5;
    is(custom('c2'), 0, 'others are served') for 1 .. 20;
    is_deeply([ map { $_->{replied} } $sandbox->ledger(touser => 'deaf') ], [ ('pending') x 5 ], 'while five do not listen');
};

subtest 'five hundred connections' => sub {
    fresh();
    $sandbox->admin(settings => { check_windows => 0 });
    my $open = $sandbox->get('counts')->{connections}{open};
    my @sockets = map { dial() } 1 .. 500;
    my %of = map { fileno $_ => $_ } @sockets;
    my ($rounds, $whole, $start) = (10, 0, time);
    for my $round (1 .. $rounds)
    {
        say_to($sockets[$_], send_post("m$_", "round $round")) for 0 .. $#sockets;
        $whole += grep { (hear($_))[0] eq '{"errcode":0,"errmsg":"ok"}' } @sockets;
    }
    is($whole, 500 * $rounds, "all are answered, $rounds times");
    note(sprintf '%.0f requests a second, with this client', 500 * $rounds / (time - $start));
    is($sandbox->get('counts')->{connections}{open} - $open, 500, 'on the same connections');
    is_deeply([ map { "$_->{nth} $_->{body}{text}{content}" } $sandbox->ledger(touser => 'm77') ], [ map { "$_ round $_" } 1 .. $rounds ], 'in order');
};

subtest 'the ledger and the start' => sub {
    my @rows = $sandbox->ledger;
    my @file = $sandbox->ledger_file_rows;
    is(scalar(@file), scalar(@rows), 'the file has all rows');
    delete $_->{t_replied} for @file;
    is_deeply(\@file, \@rows, 'and says the same');
    is(scalar($sandbox->ledger(since => $rows[-1]{seq} - 5)), 5, 'since');
    is(scalar($sandbox->ledger(limit => 3)), 3, 'limit');
    cmp_ok(abs($rows[-1]{t} / 1e6 - time), '<', 600, 'microseconds');
    unlike(join('', map { JSON::PP::encode_json($_) } @rows[ 1 .. $#rows ]), qr/SBX/, 'has no tokens of requests');
    my ($status, $json) = $sandbox->call(POST => '/sandbox/settings', { nonsense => 1 });
    is($status, 400, 'an unknown setting');
    like($json->{error}, qr/^no setting is called nonsense: .*check_windows/, 'is named');
    is(($sandbox->call(GET => '/sandbox/nonsense'))[0], 404, 'an unknown call');
    ok(!eval { CrmSandbox->start(args => ['--nonsense']); 1 }, 'an unknown option');
    like($@, qr/did not start: .*usage: sandbox\.pl/s, 'is named');

    my $other = CrmSandbox->start(accounts => { wx03 => 's' });
    isnt($other->port, $sandbox->port, 'two at a time');
    like($other->log_text, qr/\Ahttp:\/\/127\.0\.0\.1:\d+ seed \d+\n\z/, 'the seed is printed');
    like($sandbox->log_text, qr/\Ahttp:\/\/127\.0\.0\.1:\d+ seed 7\n\z/, 'and nothing else: no warning in all this');
    my $pid = $other->pid;
    close $other->{pipe};
    is(wait_for(sub { waitpid $pid, 1 }, 20), $pid, 'ends with who started it');
    delete $other->{pid};
    $pid = $sandbox->pid;
    $sandbox->stop;
    is(kill(0 => $pid), 0, 'is stopped');
    is(scalar($sandbox->ledger_file_rows), scalar(@rows), 'and the ledger is left');
};

done_testing();
