# The adapters (src/channels): what they send, what they make of replies, which bodies they refuse.
# Each reply is judged as it stands in the platform's list of errors.
use strict;
use warnings;
use CrmTest;
use Digest::SHA qw(hmac_sha256_hex);
use JSON::PP;
use Test::More;

my $node = crm_node('channels', preload => 0);
crm_rooms($node, 'postgres');

sub lit
{
    my ($s) = @_;
    return 'NULL' unless defined $s;
    $s =~ s/'/''/g;
    return "'$s'";
}
sub hex_lit { "'\\x" . unpack('H*', $_[0]) . "'" }

# Many calls in one session; each answer is one line of JSON.
sub answers
{
    my $sql = join ";\n", map { "SELECT to_jsonb($_)" } @_;
    return map { JSON::PP->new->allow_nonref->decode($_) } split /\n/, $node->safe_psql('postgres', $sql);
}
sub answer { (answers($_[0]))[0] }

# ----- outcomes of the official account -----
my @errors = (
    [ -1, 'retry', 'busy' ], [ 40001, 'token', 'token' ], [ 40014, 'token', 'token' ], [ 42001, 'token', 'token' ],
    [ 40002, 'pause' ], [ 40125, 'pause' ], [ 40164, 'pause', 'ip_not_allowed' ], [ 40243, 'pause' ],
    [ 41001, 'pause' ], [ 41002, 'pause' ], [ 41004, 'pause' ],
    [ 43001, 'pause' ], [ 43002, 'pause' ], [ 43003, 'pause' ],
    [ 45009, 'day', 'quota_day' ], [ 45011, 'minute', 'quota_minute' ],
    [ 48001, 'pause api' ], [ 48004, 'pause api' ], [ 50002, 'pause' ], [ 45103, 'pause api' ], [ 45109, 'pause api' ],
    [ 40003, 'user' ], [ 43004, 'unfollowed', 'unfollowed' ], [ 50005, 'unfollowed', 'unfollowed' ],
    [ 43019, 'opted out', 'blacklisted' ], [ 62751, 'opted out', 'blacklisted' ], [ 46004, 'user' ], [ 48002, 'opted out', 'opted_out' ],
    [ 45015, 'window closed', 'window_closed' ], [ 45047, 'window spent', 'window_spent' ], [ 43101, 'window spent' ],
    [ 40037, 'drop template' ], [ 41030, 'drop template' ], [ 43107, 'drop template' ], [ 43116, 'drop template' ],
    [ 47003, 'drop', 'bad_data' ], [ 40013, 'drop' ], [ 40165, 'drop' ], [ 40241, 'done before' ],
    (map { [ $_, 'drop', 'media' ] } 40007, 40118, 40121),
    (map { [ $_, 'drop', 'bad_media' ] } 40004 .. 40006, 40009 .. 40012, 45001, 45007),
    (map { [ $_, 'drop', 'too_long' ] } 45002 .. 45006, 45008),
    (map { [ $_, 'drop', 'bad_content' ] } 40033, 44002, 44004, 45162, 47001, 61451),
    [ 40008, 'drop', 'bad_type' ], [ 61452, 'drop' ], [ 40200, 'drop', 'type_not_allowed' ], [ 48008, 'drop', 'type_not_allowed' ],
    [ 99999, 'drop', 'refused' ]);
my @got = answers(map {
        "channel_outcome('official_account', 'text', 0, 200, " . hex_lit(qq({"errcode":$_->[0],"errmsg":"why rid: 1-2-3"})) . ')' } @errors);
for my $i (0 .. $#errors)
{
    my ($errcode, $reaction, $reason) = @{ $errors[$i] };
    my ($r, $e, $why, $detail) = split /\|/, $got[$i];
    is("$r $e $detail", "$reaction $errcode why rid: 1-2-3", "errcode $errcode: $reaction");
    defined $reason ? is($why, $reason, "errcode $errcode: $reason") : like($why, qr/^[a-z_]+$/, "errcode $errcode: $why");
}

my $bad_utf8 = "{\"errcode\":45015,\"errmsg\":\"\xff\xc3\x28 \x01\n \\u0000\\ud800 \\u4f60\\ud83d\\ude00\"}";
my @replies = (
    # reply, status, end => outcome
    [ '{"errcode":0,"errmsg":"ok"}', 200, 0, 'done|0|-|ok|-' ],
    [ '{"errcode":0,"errmsg":"ok","msgid":3428411849815000001}', 200, 0, 'done|0|-|ok|3428411849815000001' ],
    [ '{"errcode":"0","errmsg":"ok","msgid":"9223372036854775808"}', 200, 0, 'done|0|-|ok|9223372036854775808' ],
    [ '{"errmsg":"ok"}', 200, 0, 'done|0|-|ok|-' ],
    [ '{"msgid":5}', 200, 0, 'done|0|-|{"msgid":5}|5' ],
    [ '{"errcode":"45015","errmsg":"x"}', 200, 0, 'window closed|45015|window_closed|x|-' ],
    [ "\xEF\xBB\xBF { \"errcode\" : 45015 , \"errmsg\" : \"x\" } \r\n", 200, 0, 'window closed|45015|window_closed|x|-' ],
    [ '{"errcode":45015,"errmsg":"x"}', 500, 0, 'window closed|45015|window_closed|x|-' ],
    [ '{"errcode":1,"errcode":0,"errmsg":"ok"}', 200, 0, 'done|0|-|ok|-' ],
    [ '{"a":{"errcode":45015},"errcode":0,"errmsg":"ok"}', 200, 0, 'done|0|-|ok|-' ],
    [ $bad_utf8, 200, 0, "window closed|45015|window_closed|??(    ?? 你😀|-" ],
    # nobody knows
    [ '{}', 200, 0, 'unknown|0|bad_reply|{}|-' ],
    [ '', 200, 0, 'unknown|0|bad_reply|-|-' ],
    [ '<html>hello</html>', 200, 0, 'unknown|0|bad_reply|<html>hello</html>|-' ],
    [ '{"errcode":0', 200, 0, 'unknown|0|bad_reply|{"errcode":0|-' ],
    [ '{"errcode":0} {', 200, 0, 'unknown|0|bad_reply|{"errcode":0} {|-' ],
    [ '{"errcode":"no"}', 200, 0, 'unknown|0|bad_reply|{"errcode":"no"}|-' ],
    [ '{"errcode":99999999999999999999}', 200, 0, 'unknown|0|bad_reply|{"errcode":99999999999999999999}|-' ],
    [ '{"errcode":0,"errmsg":"ok"}', 502, 0, 'unknown|0|http_502|ok|-' ],
    [ 'busy', 500, 0, 'unknown|0|http_500|busy|-' ], [ '', 502, 0, 'unknown|0|http_502|-|-' ],
    [ '', 503, 0, 'unknown|0|http_503|-|-' ], [ '', 504, 0, 'unknown|0|http_504|-|-' ], [ '', 408, 0, 'unknown|0|http_408|-|-' ],
    [ '', 0, 2, 'unknown|0|no_reply|-|-' ],
    # surely not delivered
    [ '', 0, 1, 'retry|0|not_sent|-|-' ],
    [ '', 429, 0, 'minute|0|http_429|-|-' ],
    [ 'no', 400, 0, 'drop|0|http_400|no|-' ], [ '', 413, 0, 'drop|0|http_413|-|-' ],
    [ '', 401, 0, 'pause|0|http_401|-|-' ], [ '', 403, 0, 'pause|0|http_403|-|-' ], [ '', 404, 0, 'pause|0|http_404|-|-' ],
    [ '', 302, 0, 'pause|0|http_302|-|-' ]);
@got = answers(map { "channel_outcome('official_account', 'template', $_->[2], $_->[1], " . hex_lit($_->[0]) . ')' } @replies);
is($got[$_], $replies[$_][3], "reply $_: status $replies[$_][1]") for 0 .. $#replies;

is(answer("channel_outcome('official_account', 'text', 0, 404, " . hex_lit('no page /x?access_token=84_TOKEN here') . ", '84_TOKEN')"),
    'pause|0|http_404|(it repeats the token)|-', 'a page that repeats the token');
my $long = answer("channel_outcome('official_account', 'text', 0, 200, " . hex_lit('{"errcode":45015,"errmsg":"' . ('长' x 400) . '"}') . ')');
is((split /\|/, $long)[3], '长' x 166, 'a long errmsg is cut after a whole character');
# what would make PostgreSQL's parser raise
for my $hostile ('[' x 60000, '{"a":' x 10000, '{"errcode":45015,"a":' . '[' x 60000, '"' . '\\' x 9999, "\0" x 100, '{"a":"\\', '{"\\u00')
{
    like(answer("channel_outcome('official_account', 'text', 0, 200, " . hex_lit($hostile) . ')'), qr/^unknown\|0\|bad_reply/,
        'hostile: ' . substr($hostile, 0, 20) =~ s/\0/./gr);
}
# any bytes at all
srand 7;
my @junk = map { my $valid = '{"errcode":45015,"errmsg":"\\u4f60","a":[1.5e3,{"b":null}]}'; substr($valid, rand length $valid, 1) = chr int rand 256 for 1 .. 1 + rand 3; $valid } 1 .. 500;
is(scalar(answers(map { "channel_outcome('official_account', 'text', 0, 200, " . hex_lit($_) . ')' } @junk)), 500, '500 mangled replies raise nothing');
# the same as another parser says about what is JSON
my @wrong = grep {
    my $decoded = eval { JSON::PP->new->decode($junk[$_]) };
    my ($reaction) = split /\|/, answer("channel_outcome('official_account', 'text', 0, 200, " . hex_lit($junk[$_]) . ')');
    ref $decoded eq 'HASH' && defined $decoded->{errcode} && $decoded->{errcode} =~ /^45015$/ && $reaction ne 'window closed' } 0 .. 59;
is("@wrong", '', 'what JSON::PP reads is read alike');

# ----- tokens -----
is(answer("token_request('official_account', NULL, false)"), join("\n", 'https://api.weixin.qq.com/cgi-bin/stable_token',
    'Content-Type: application/json',
    '{"grant_type":"client_credential","appid":"wx0123456789abcdef","secret":"\\"secret\\"","force_refresh":false}'), 'the request for a token');
like(answer("token_request('official_account', 'http://127.0.0.1:1/wx/', true)"),
    qr{^http://127.0.0.1:1/wx/cgi-bin/stable_token\n.*"force_refresh":true}s, 'forced, of another server');
my @tokens = (
    [ 200, '{"access_token":"84_EXAMPLE","expires_in":6841}', '84_EXAMPLE 6841' ],
    [ 200, '{"access_token":"84_EXAMPLE","expires_in":"6841"}', '84_EXAMPLE 6841' ],
    [ 200, '{"errcode":0,"access_token":"a","expires_in":1}', 'a 1' ],
    [ 200, '{"errcode":40001,"errmsg":"invalid credential"}', 'pause|40001|bad_secret|invalid credential|-' ],
    [ 200, '{"errcode":40125,"errmsg":"x"}', 'pause|40125|bad_secret|x|-' ],
    [ 200, '{"errcode":40164,"errmsg":"invalid ip 10.0.0.1"}', 'pause|40164|ip_not_allowed|invalid ip 10.0.0.1|-' ],
    [ 200, '{"errcode":40013,"errmsg":"x"}', 'pause|40013|bad_appid|x|-' ],
    [ 200, '{"errcode":45009,"errmsg":"x"}', 'day|45009|quota_day|x|-' ],
    [ 200, '{"errcode":45011,"errmsg":"x"}', 'minute|45011|quota_minute|x|-' ],
    [ 200, '{"errcode":-1,"errmsg":"x"}', 'retry|-1|busy|x|-' ],
    [ 200, '{"errcode":77777,"errmsg":"x"}', 'pause|77777|refused|x|-' ],
    [ 200, '{"access_token":"SECRET","expires_in":0}', 'retry|0|bad_reply|-|-' ],
    [ 200, '{"access_token":"SECRET"', 'retry|0|bad_reply|-|-' ],
    [ 200, '{"access_token":"SEC RET","expires_in":7200}', 'retry|0|bad_reply|-|-' ],
    [ 200, '{"access_token":"","expires_in":7200}', 'retry|0|bad_reply|-|-' ],
    [ 502, '{"access_token":"a","expires_in":7200}', 'retry|0|http_502|-|-' ],
    [ 404, '', 'pause|0|http_404|-|-' ], [ 0, '', 'retry|0|no_reply|-|-' ]);
@got = answers(map { "token_outcome('official_account', $_->[0], " . hex_lit($_->[1]) . ')' } @tokens);
is($got[$_], $tokens[$_][2], "token reply $_") for 0 .. $#tokens;

# ----- requests of the official account -----
sub request
{
    my ($channel, $type, %m) = @_;
    return answer("channel_request('$channel', '$type', " . join(', ', map { lit($m{$_}) } qw(recipient base token body key template secret)) . ')');
}
my $base = 'https://api.weixin.qq.com/cgi-bin/message';
is(request('official_account', 'text', recipient => 'oUser_0001', token => '84_a/b+c', body => '{"content": "你好 \\"x\\" {"}', key => 'k'),
    "$base/custom/send?access_token=84_a%2Fb%2Bc\nContent-Type: application/json\n" .
      '{"touser":"oUser_0001","msgtype":"text","text":{"content":"你好 \\"x\\" {"}}', 'a text');
is(request('official_account', 'news', recipient => 'o"1', token => 't', base => 'http://127.0.0.1:8/', body =>
      '{"articles": [{"title": "a", "url": "u"}], "customservice": {"kf_account": "sales@gh_demo"}}'),
    "http://127.0.0.1:8/cgi-bin/message/custom/send?access_token=t\nContent-Type: application/json\n" .
      '{"touser":"o\\"1","msgtype":"news","news":{"articles":[{"title": "a", "url": "u"}]},"customservice":{"kf_account": "sales@gh_demo"}}',
    'news, as an agent');
is(request('official_account', 'text', recipient => 'o', token => 't', body => '{"customservice":{"kf_account":"a"}, "content":"x"}') =~ s/.*\n//sr,
    '{"touser":"o","msgtype":"text","text":{"content":"x"},"customservice":{"kf_account":"a"}}', 'the agent first');
is(request('official_account', 'template', recipient => 'o1', token => 't', key => 'pgcrm-42', body =>
      '{"template_id": "tmplA1", "data": {"thing1": {"value": "订单"}}, "url": "https://crm.example/o?a=1&b=2"}'),
    "$base/template/send?access_token=t\nContent-Type: application/json\n" .
      '{"touser":"o1","client_msg_id":"pgcrm-42","template_id":"tmplA1","data":{"thing1": {"value": "订单"}},"url":"https://crm.example/o?a=1&b=2"}',
    'a template message, with its key');
unlike(request('official_account', 'template', recipient => 'o1', token => 't', body => '{"template_id":"x","data":{}}'), qr/client_msg_id/, 'and without');
my ($rc, $out, $err) = $node->psql('postgres', "SELECT channel_request('official_account', 'text', 'o', NULL, 't', '{\"content', NULL, NULL, NULL)");
like($err, qr/no JSON object/, 'a body that is no JSON');
my @types = split /\n/, answer("channel_types('official_account')");
is(scalar(@types), 13, 'types of messages');
is(scalar(grep { m{^\w+ message/custom/send window 0$} } @types), 12, 'twelve need a window and know no key');
is($types[-1], 'template message/template/send - 600', 'template messages need none, their key lasts ten minutes');

# ----- bodies -----
sub refused
{
    my ($type, $body, $error, $hint, $what) = @_;
    my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT channel_check('official_account', '$type', " . lit($body) . ')');
    like($err, qr/ERROR:  22023: \Q$error\E/, $what || "$type: $error");
    like($err, qr/HINT:  .*\Q$hint\E/, "hint: $hint");
}
my %good = (
    text => '{"content":"你好 {{name}}"}', image => '{"media_id":"m"}', voice => '{"media_id":"{{m}}"}',
    video => '{"media_id":"m","thumb_media_id":"t","title":"","description":"d"}',
    music => '{"title":"t","description":"d","musicurl":"u","hqmusicurl":"h","thumb_media_id":"x"}',
    news => '{"articles":[{"title":"t","description":"d","url":"u","picurl":"p"}]}', mpnews => '{"media_id":"m"}',
    mpnewsarticle => '{"article_id":"a"}', wxcard => '{"card_id":"c"}',
    msgmenu => '{"head_content":"h","list":[{"id":"1","content":"满意"},{"id":"2","content":"一般"}],"tail_content":"谢谢"}',
    miniprogrampage => '{"title":"t","appid":"wx1","pagepath":"p?{{x}}","thumb_media_id":"x"}',
    link => '{"title":"t","description":"d","url":"u","thumb_url":"x"}',
    template => '{"template_id":"t","data":{"thing1":{"value":"{{a}}"},"x":{"value":"v","color":"#fff"}},"url":"u","miniprogram":{"appid":"wx1","pagepath":"p"}}');
for my $type (sort keys %good)
{
    is(answer("channel_check('official_account', '$type', " . lit($good{$type}) . ')::text'), '', "$type: a whole body");
    next if $type eq 'template';
    (my $body = $good{$type}) =~ s/\}$/,"customservice":{"kf_account":"a"}}/;
    is(answer("channel_check('official_account', '$type', " . lit($body) . ')::text'), '', "$type: as an agent");
}
is(scalar(keys %good), 13, 'every type');
refused('text', '{}', '$.content is missing', 'known in $ are content, customservice');
refused('text', '{"content":5}', '$.content is no string', 'Set $.content to a string');
refused('text', '{"content":""}', '$.content is empty', '$.content');
refused('text', '{"content":"a","text":"b"}', '$.text is not known', 'Known in $ are content');
refused('text', '{"text":{"content":"a"}}', '$.content is missing', 'Set $.content');
refused('text', '["a"]', '$ is no object', 'under "text"');
refused('text', '"a"', '$ is no object', 'under "text"');
refused('text', '{"content":"' . '长' x 683 . '"}', '$.content is too long', 'has 2049 bytes');
is(answer("channel_check('official_account', 'text', " . lit('{"content":"' . '长' x 682 . '{{' . 'x' x 500 . '}}"}') . ')::text'), '', 'placeholders do not count');
refused('news', '{"articles":{}}', '$.articles is no array', 'array of objects');
refused('news', '{"articles":[]}', '$.articles is empty', '$.articles');
refused('news', '{"articles":["a"]}', '$.articles[0] is no object', '$.articles[0]');
refused('news', '{"articles":[{"title":"a","url":"u"},{"title":"a"}]}', '$.articles[1].url is missing', '$.articles[1]');
refused('msgmenu', '{"head_content":"h","list":[{"id":1,"content":"c"}]}', '$.list[0].id is no string', '$.list[0].id');
refused('template', '{"data":{"a":{"value":"v"}}}', '$.template_id is missing', '$.template_id');
refused('template', '{"template_id":"t","data":{}}', '$.data is empty', '$.data');
refused('template', '{"template_id":"t","data":{"thing1":"v"}}', '$.data.thing1 is no object', '$.data.thing1');
refused('template', '{"template_id":"t","data":{"thing1":{"value":9}}}', '$.data.thing1.value is no string', '$.data.thing1.value');
refused('template', '{"template_id":"t","data":{"a":{"value":"v"}},"touser":"x"}', '$.touser is not known', 'Known in $');
refused('template', '{"template_id":"t","data":{"a":{"value":"v"}},"miniprogram":{"pagepath":"p"}}', '$.miniprogram.appid is missing', '$.miniprogram');
refused('template', '{"template_id":"t","data":{"a":{"value":"v"}},"customservice":{"kf_account":"a"}}', '$.customservice is not known', 'Known in $');
refused('fax', '{}', 'channel "official_account" has no message type "fax"', 'text, image');
($rc, $out, $err) = $node->psql('postgres', "SELECT channel_check('sms', 'text', '{}')");
like($err, qr/nothing can be sent on channel "sms"\n.*official_account, webhook/s, 'a channel without an adapter');

# ----- webhook -----
my $made = request('webhook', 'post', base => 'https://shop.example/in?x=1', body => '{"a": "你"}', key => "k 1\r\né%", template => 'a"b', secret => 's');
my ($url, $type, $time, $signature, $key, $body) = split /\n/, $made;
is($url, 'https://shop.example/in?x=1', 'webhook: the address as it is');
is("$type $time", 'Content-Type: application/json X-Crm-Timestamp: 1700000000', 'type and time');
is($body, '{"message_id":42,"contact_id":7,"template":"a\\"b","data":{"a": "你"}}', 'what is posted');
is($signature, 'X-Crm-Signature: sha256=' . hmac_sha256_hex('1700000000.' . $body, 's'), 'signed');
is($key, 'Idempotency-Key: k%201%0D%0A%C3%A9%25', 'a key can not begin another header');
$made = request('webhook', 'post', base => 'http://shop.example/', body => '{}');
unlike($made, qr/Signature|Idempotency/, 'neither secret nor key');
like($made, qr/"template":null,"data":\{\}\}$/, 'no template');
$made = request('webhook', 'post', base => 'http://shop.example/', body => '{}', secret => 'x' x 200);
is(($made =~ /sha256=(.*)/)[0], hmac_sha256_hex('1700000000.' . ($made =~ s/.*\n//sr), 'x' x 200), 'a secret longer than a block');
($rc, $out, $err) = $node->psql('postgres', "SELECT channel_request('webhook', 'post', NULL, NULL, NULL, '{}', NULL, NULL, NULL)");
like($err, qr/a webhook has no address/, 'no address');
my @webhook = (
    [ 0, 200, 'thanks', 'done|0|-|thanks|-' ], [ 0, 204, '', 'done|0|-|-|-' ],
    [ 0, 200, "\xff\x00", 'done|0|-|? |-' ],
    (map { [ 0, $_, 'x', "retry|0|http_$_|x|-" ] } 408, 500, 502, 503, 504, 599),
    [ 0, 429, '', 'minute|0|http_429|-|-' ],
    (map { [ 0, $_, '', "drop|0|http_$_|-|-" ] } 400, 401, 403, 404, 409, 410, 422), [ 0, 301, '', 'pause|0|http_301|-|-' ],
    [ 1, 0, '', 'retry|0|not_sent|-|-' ], [ 2, 0, '', 'unknown|0|no_reply|-|-' ]);
@got = answers(map { "channel_outcome('webhook', 'post', $_->[0], $_->[1], " . hex_lit($_->[2]) . ')' } @webhook);
is($got[$_], $webhook[$_][3], "webhook: status $webhook[$_][1]") for 0 .. $#webhook;
is(answer("channel_types('webhook')"), "post post - 86400\n", 'its key lasts a day');
is(answer("channel_check('webhook', 'post', '{\"a\": 1}')::text"), '', 'any object');
($rc, $out, $err) = $node->psql('postgres', "SELECT channel_check('webhook', 'post', '[1]')");
like($err, qr/is no JSON object/, 'nothing but an object');

$node->stop;
done_testing();
