# The sandbox against the npm package co-wechat-api: does a client that was written for WeChat take it for
# WeChat? Tokens, messages inside and outside the window, templates, quotas, and what the client does when
# its token is refused or the reply is lost. $PG_CRM_PEERS has the node_modules.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmSandbox;
use IPC::Open2;
use JSON::PP ();
use Test::More;

my $sandbox = CrmSandbox->start(accounts => { wx01 => 's1' });
my $json = JSON::PP->new->utf8->canonical;

local $ENV{NODE_PATH} = "$ENV{PG_CRM_PEERS}/node_modules";
my $pid = open2(my $from, my $to, 'node', "$FindBin::RealBin/co_wechat_api.cjs", $sandbox->url, 'wx01', 's1');

# peer(METHOD, ARGUMENTS): what the package gives back, or throws
sub peer
{
    print $to $json->encode([@_]), "\n";
    $to->flush;
    return $json->decode(scalar(<$from>) // die "node has ended\n");
}

sub rows { return $sandbox->ledger(@_) }

my $token = peer('getAccessToken')->{result};
like($token->{accessToken}, qr/^\d\d_SBX/, 'gets a token');
cmp_ok($token->{expireTime} / 1000 - time, '>', 7000, 'for two hours');

is(peer('sendText', 'o1', 'too early')->{code}, 45015, 'no window: 45015 is thrown');
$sandbox->admin(windows => { openid => 'o1', event => 'message' });
is_deeply(peer('sendText', 'o1', "\x{4f60}\x{597d} \x{1f600} \"<a href=\\\"x\\\">\" $_"), { result => { errcode => 0, errmsg => 'ok' } }, "inside: $_")
  for 1 .. 5;
my $refused = peer('sendText', 'o1', 'one too many');
is($refused->{code}, 45047, 'used up: 45047');
is($refused->{name}, 'WeChatAPIError', 'as an error of the API');
like($refused->{message}, qr/^out of response count limit rid: /, 'with its text');
my @rows = rows(touser => 'o1');
is(join(' ', map { $_->{errcode} } @rows), '45015 0 0 0 0 0 45047', 'the ledger has them all');
is($rows[1]{body}{text}{content}, "\x{4f60}\x{597d} \x{1f600} \"<a href=\\\"x\\\">\" 1", 'as they were written');

$sandbox->admin(windows => { openid => 'o2', event => 'message' });
is(peer('sendImage', 'o2', 'media')->{result}{errcode}, 0, 'an image');
is(peer('sendNews', 'o2', [ { title => 'a', description => 'b', url => 'http://x', picurl => 'http://y' } ])->{result}{errcode}, 0, 'news');
is(peer('sendNews', 'o2', [ ({ title => 'a' }) x 2 ])->{code}, 45008, 'two articles');
is(peer('sendText', 'o2', '')->{code}, 44004, 'an empty text');

my @template = ('o3', 'T', 'https://crm.example', undef, { thing1 => { value => "\x{8336}" } });
my $sent = peer('sendTemplate', @template);
is($sent->{result}{errcode}, 0, 'a template message');
like($sent->{result}{msgid}, qr/^34\d{17}$/, 'its msgid is longer than a double holds');
$sandbox->admin(templates => { template_id => 'U', keys => ['thing1'] });
is(peer('sendTemplate', @template)->{code}, 40037, 'unknown template');
$sandbox->admin(windows => { openid => 'o3', event => 'unfollow' });
is(peer('sendTemplate', 'o3', 'U', @template[ 2 .. 4 ])->{code}, 43004, 'unfollowed');
is(peer('getUser', 'o3')->{result}{subscribe}, 0, 'user/info says so');
is(peer('getUser', 'o1')->{result}{subscribe}, 1, 'and of who follows');

my $quota = peer('POST openapi/quota/get', { cgi_path => '/cgi-bin/message/custom/send' })->{result}{quota};
is_deeply($quota, { daily_limit => 500_000, used => 11, remain => 499_989 }, 'the quota, of which eleven calls are used');
is(peer('POST clear_quota', { appid => 'wx01' })->{result}{errcode}, 0, 'is cleared');
is(peer('POST openapi/quota/get', { cgi_path => '/cgi-bin/message/custom/send' })->{result}{quota}{used}, 0, 'to nothing');

# the package fetches another token by itself
for my $how ('revoke', 'expire')
{
    $sandbox->admin(tokens => { $how => 1 });
    $sandbox->admin(windows => { openid => 'o4', event => 'message' });
    is(peer('sendText', 'o4', $how)->{result}{errcode}, 0, "$how: the client gets another token and sends");
}
is(join(' ', map { $_->{errcode} } rows(touser => 'o4')), '0 0', 'each once');
is(join(' ', map { $_->{errcode} // 'token' } grep { $_->{api} =~ /^(?:token|custom\/send)$/ } (rows())[ -6 .. -1 ]),
    '40001 token 0 42001 token 0', 'after it was refused');

# what it makes of faults
$sandbox->admin(windows => { openid => 'o5', event => 'message' });
for my $case ([ 'http_502', qr/status code: 502/ ], [ 'reset_before_reply', qr/./ ], [ 'half_reply', qr/./ ], [ 'errcode_-1', qr/system error/ ])
{
    my ($fault, $message) = @$case;
    $sandbox->admin(faults => { api => 'custom/send', fault => $fault });
    my $said = peer('sendText', 'o5', $fault);
    ok(!$said->{result}, "$fault: the client throws");
    like($said->{message}, $message, "  $said->{message}");
}
is(join(' ', map { $_->{fault} . ($_->{delivered} ? ' delivered' : '') } rows(api => 'custom/send', since => (rows(touser => 'o4'))[-1]{seq})),
    'http_502 reset_before_reply delivered half_reply delivered errcode_-1', 'two of four are delivered nevertheless');

close $to;
waitpid $pid, 0;
is($?, 0, 'node ends well');
done_testing();
