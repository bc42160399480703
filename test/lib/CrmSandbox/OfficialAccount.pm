# CrmSandbox::OfficialAccount - the part of an official account's API that sends to people.
#
# handle(ROW, REQUEST, JSON) returns the reply's body and puts into the row what the ledger should say.
package CrmSandbox::OfficialAccount;

use strict;
use warnings;
use CrmSandbox::Json;
use CrmSandbox::Messages;

# path => api, method, needs a token, what does it
my %route = (
    '/cgi-bin/token'                      => [ 'token',                'GET',  0, \&token ],
    '/cgi-bin/stable_token'               => [ 'stable_token',         'POST', 0, \&stable_token ],
    '/cgi-bin/clear_quota/v2'             => [ 'clear_quota/v2',       'POST', 0, \&clear_quota_by_secret ],
    '/cgi-bin/clear_quota'                => [ 'clear_quota',          'POST', 1, \&clear_quota ],
    '/cgi-bin/openapi/quota/get'          => [ 'openapi/quota/get',    'POST', 1, \&quota_get ],
    '/cgi-bin/user/info'                  => [ 'user/info',            'GET',  1, \&user_info ],
    '/cgi-bin/user/info/batchget'         => [ 'user/info/batchget',   'POST', 1, \&user_info_batch ],
    '/cgi-bin/message/custom/send'        => [ 'custom/send',          'POST', 1, \&CrmSandbox::Messages::custom_send ],
    '/cgi-bin/message/custom/typing'      => [ 'custom/typing',        'POST', 1, \&CrmSandbox::Messages::custom_typing ],
    '/cgi-bin/message/template/send'      => [ 'template/send',        'POST', 1, \&CrmSandbox::Messages::template_send ],
    '/cgi-bin/message/template/subscribe' => [ 'template/subscribe',   'POST', 1, \&CrmSandbox::Messages::template_subscribe ],
    '/cgi-bin/message/subscribe/bizsend'  => [ 'subscribe/bizsend',    'POST', 1, \&CrmSandbox::Messages::subscribe_send ],
    '/cgi-bin/message/subscribe/send'     => [ 'subscribe/send',       'POST', 1, \&CrmSandbox::Messages::subscribe_send ],
);
my %path_of = map { $route{$_}[0] => $_ } keys %route;

my %meaning = (
    -1    => 'system error',
    40001 => 'invalid credential, access_token is invalid or not latest',
    40002 => 'invalid grant_type',
    40003 => 'invalid openid',
    40007 => 'invalid media_id',
    40008 => 'invalid message type',
    40013 => 'invalid appid',
    40014 => 'invalid access_token',
    40033 => 'invalid charset. please check your request, if include \\\\uxxxx will create fail!',
    40037 => 'invalid template_id',
    40066 => 'invalid url',
    40125 => 'invalid appsecret',
    40164 => 'invalid ip 127.0.0.1, not in whitelist',
    40243 => 'AppSecret has been frozen',
    41001 => 'access_token missing',
    41002 => 'appid missing',
    41004 => 'appsecret missing',
    42001 => 'access_token expired',
    43001 => 'require GET method',
    43002 => 'require POST method',
    43004 => 'require subscribe',
    43019 => 'the user is in the blacklist',
    43101 => 'user refuse to accept the msg',
    44002 => 'empty post data',
    44004 => 'empty content',
    45002 => 'content size out of limit',
    45003 => 'title size out of limit',
    45004 => 'description size out of limit',
    45005 => 'url size out of limit',
    45006 => 'picurl size out of limit',
    45008 => 'article size out of limit',
    45009 => 'reach max api daily quota limit',
    45011 => 'api minute-quota reach limit, must slower, retry next minute',
    45015 => 'response out of time limit or subscription is canceled',
    45047 => 'out of response count limit',
    45072 => 'invalid command',
    45080 => 'no message from this user of late',
    45081 => 'already typing',
    45162 => 'invalid articles format',
    46004 => 'user not exist',
    47001 => 'data format error',
    47003 => 'argument invalid',
    48001 => 'api unauthorized',
    48002 => 'user block receive message',
    48004 => 'api forbidden for irregularities',
    48006 => 'forbid to clear quota because of reaching the limit',
    48008 => 'no permission for this msgtype',
    50002 => 'user limited',
    61452 => 'invalid kf_account',
    76021 => 'cgi_path not found',
);

my %daily = (
    token => 2000, stable_token => 500_000, 'custom/send' => 500_000, 'template/send' => 100_000, 'user/info' => 5_000_000,
    'subscribe/bizsend' => 100_000, 'subscribe/send' => 100_000, 'template/subscribe' => 100_000, 'custom/typing' => 500_000,
    'user/info/batchget' => 5_000_000, 'openapi/quota/get' => 1_000_000, clear_quota => 1_000_000, 'clear_quota/v2' => 1_000_000,
);

sub defaults
{
    return {
        token_lifetime_s => 7200, token_overlap_s => 300, force_refresh_s => 30, force_refresh_daily => 20, bad_secret_code => 40125,
        clear_quota_monthly => 10, daily_quota => {%daily}, minute_quota => { stable_token => 10_000 },
        # without these, who and what is not registered is taken as following and as valid
        strict_contacts => 0, strict_templates => 0, check_windows => 1, check_accepts => 1, unfollowed_code => 43004,
        windows => {
            message => [ 5, 172_800 ], menu => [ 3, 60 ], follow => [ 3, 60 ], scan => [ 3, 60 ], enter_session => [ 2, 60 ],
            payment => [ -1, 172_800 ],
        },
        dedup_s => 600,
        # bytes; 0: not looked at
        limits => { text => 2048, title => 0, description => 0, url => 0, picurl => 0, articles => 1, client_msg_id => 32 },
    };
}

sub new
{
    my ($class, $sandbox) = @_;
    my $self = bless { sandbox => $sandbox, set => $sandbox->{set} }, $class;
    $self->clear;
    return $self;
}

sub clear
{
    my ($self) = @_;
    @$self{qw(accounts first tokens sent msgids rids)} = ({}, undef, {}, {}, 0, 0);
}

sub now { return $_[0]{sandbox}->now }

sub api_of
{
    my ($path) = @_;
    return $route{$path} ? $route{$path}[0] : undef;
}

# account(HASH): made or changed
sub account
{
    my ($self, %is) = @_;
    my $appid = delete $is{appid} // die "appid is missing\n";
    my $account = $self->{accounts}{$appid} ||= {
        appid => $appid, secret => '', kind => 'service', contacts => {}, templates => {}, blocks => {}, types => {}, media => {},
        kf_accounts => {}, daily_quota => {}, used => {}, minute => {}, forced => {}, cleared => {}, stable => undef, plain => undef,
    };
    $self->{first} //= $appid;
    for my $name (keys %is)
    {
        die "an account has no $name\n"
          if !grep { $_ eq $name } qw(secret kind templates blocks types media kf_accounts daily_quota);
        $account->{$name} = $is{$name};
    }
    return $account;
}

# the account called APPID, or the first
sub account_of
{
    my ($self, $appid) = @_;
    $appid //= $self->{first} // die "there is no account\n";
    return $self->{accounts}{$appid} // die "no account is called $appid\n";
}

sub fail
{
    my ($self, $row, $code, $detail) = @_;
    $row->{errcode} = $code;
    my $rid = sprintf '%08x-%08x-%08x', $self->now, ++$self->{rids} * 2_654_435_761 % 4_294_967_296, $self->{rids};
    my $meaning = $meaning{$code} // 'error';
    $meaning .= " $detail" if defined $detail;
    return qq({"errcode":$code,"errmsg":"$meaning rid: $rid"});
}

sub done
{
    my ($self, $row, $more) = @_;
    $row->{errcode} = 0;
    return '{"errcode":0,"errmsg":"ok"' . ($more // '') . '}';
}

sub handle
{
    my ($self, $row, $r, $json) = @_;
    my $route = $route{ $r->{path} } // return $self->fail($row, 40066);
    my ($api, $method, $needs_token, $code) = @$route;
    return $self->fail($row, $method eq 'GET' ? 43001 : 43002) if $r->{method} ne $method;
    my $account;
    if ($needs_token)
    {
        my $wrong;
        ($account, $wrong) = $self->account_by_token(parameter($r, 'access_token'));
        return $self->fail($row, $wrong) if !$account;
        $row->{account} = $account->{appid};
        $wrong = $self->refused($account, $api);
        return $self->fail($row, $wrong) if $wrong;
    }
    if ($method eq 'POST')
    {
        return $self->fail($row, 44002) if $r->{body} eq '';
        return $self->fail($row, 47001) if ref $json ne 'HASH';
        return $self->fail($row, 40033) if $needs_token && index($r->{body}, '\\u') >= 0 && $r->{body} =~ /(?<!\\)(?:\\\\)*\\u/;
    }
    return $code->($self, $row, $account, $json // $r);
}

# parameter(REQUEST, NAME) of the query
sub parameter
{
    my ($r, $name) = @_;
    $r->{query} =~ /(?:\A|&)\Q$name\E=([^&]*)/ or return;
    my $value = $1;
    $value =~ tr/+/ /;
    $value =~ s/%([0-9a-fA-F]{2})/chr hex $1/ge;
    return $value;
}

# refused(ACCOUNT, API): a code, where it is blocked or its quota is used up
sub refused
{
    my ($self, $account, $api) = @_;
    return $account->{blocks}{$api} if $account->{blocks}{$api};
    return $account->{blocks}{'*'}  if $account->{blocks}{'*'};
    my $now = $self->now;
    my $daily = $account->{daily_quota}{$api} // $self->{set}{daily_quota}{$api};
    my $used = $account->{used}{$api} ||= [ 0, 0 ];
    my $day = int(($now + 28_800) / 86_400);    # midnight in China
    @$used = ($day, 0) if $used->[0] != $day;
    return 45009 if defined $daily && $used->[1] >= $daily;
    if (defined(my $quota = $self->{set}{minute_quota}{$api}))
    {
        my $minute = int($now / 60);
        my $count = $account->{minute}{$api} ||= [ 0, 0 ];
        @$count = ($minute, 0) if $count->[0] != $minute;
        return 45011 if $count->[1] >= $quota;
        $count->[1]++;
    }
    $used->[1]++;
    return 0;
}

# --- tokens ---------------------------------------------------------------------------------------

sub account_by_token
{
    my ($self, $token) = @_;
    return (undef, 41001) if !defined $token || $token eq '';
    my $is = $self->{tokens}{$token};
    return (undef, $token =~ /\A[0-9]+_SBX[0-9A-Za-z_-]{100,}\z/ ? 40001 : 40014) if !$is;
    my $now = $self->now;
    return (undef, 42001) if $now >= $is->{expires};
    return (undef, 40001) if $now >= $is->{valid_until};
    return ($self->{accounts}{ $is->{appid} } // return (undef, 40014), 0);
}

sub new_token
{
    my ($self, $account, $family) = @_;
    my $now = $self->now;
    my @chars = ('0' .. '9', 'A' .. 'Z', 'a' .. 'z', '_', '-');
    my $token = (80 + int($now / 86_400) % 20) . '_SBX' . join '', map { $chars[ $self->{sandbox}->draw(64) ] } 1 .. 132;
    my $expires = $now + $self->{set}{token_lifetime_s};
    $self->{tokens}{$token} = { appid => $account->{appid}, expires => $expires, valid_until => $expires };
    $account->{$family} = $token;
    # those that nobody can hold any more
    if (keys %{ $self->{tokens} } > 1000)
    {
        my $tokens = $self->{tokens};
        delete @$tokens{ grep { $tokens->{$_}{expires} < $now - 86_400 } keys %$tokens };
    }
    return $token;
}

sub overlap
{
    my ($self) = @_;
    my ($overlap, $half) = ($self->{set}{token_overlap_s}, $self->{set}{token_lifetime_s} / 2);
    return $overlap < $half ? $overlap : $half;
}

sub asked_by
{
    my ($self, $row, $api, $grant, $appid, $secret) = @_;
    $row->{account} = $appid if defined $appid && !ref $appid;
    return $self->fail($row, 40002) if ($grant // '') ne 'client_credential';
    return $self->fail($row, 41002) if !defined $appid || $appid eq '';
    my $account = $self->{accounts}{$appid} // return $self->fail($row, 40013);
    return $self->fail($row, 41004) if !defined $secret || $secret eq '';
    return $self->fail($row, $self->{set}{bad_secret_code}) if $secret ne $account->{secret};
    my $wrong = $self->refused($account, $api);
    return $self->fail($row, $wrong) if $wrong;
    return $account;
}

sub token_reply
{
    my ($self, $token) = @_;
    my $left = int($self->{tokens}{$token}{expires} - $self->now + 0.5);
    return qq({"access_token":"$token","expires_in":$left});
}

# each call gives a new one; the last one stays usable for a while
sub token
{
    my ($self, $row, undef, $r) = @_;
    my $account = $self->asked_by($row, 'token', map { parameter($r, $_) // '' } qw(grant_type appid secret));
    return $account if !ref $account;
    if (my $old = $account->{plain} && $self->{tokens}{ $account->{plain} })
    {
        my $until = $self->now + $self->overlap;
        $old->{valid_until} = $until if $old->{valid_until} > $until;
    }
    return $self->token_reply($self->new_token($account, 'plain'));
}

# the same one until it is about to expire; then both are valid
sub stable_token
{
    my ($self, $row, undef, $json) = @_;
    my $account = $self->asked_by($row, 'stable_token', @$json{qw(grant_type appid secret)});
    return $account if !ref $account;
    my $now = $self->now;
    my $token = $account->{stable};
    my $is = defined $token ? $self->{tokens}{$token} : undef;
    if ($json->{force_refresh})
    {
        my $forced = $account->{forced};
        my $day = int(($now + 28_800) / 86_400);
        @$forced{qw(day count)} = ($day, 0) if ($forced->{day} // -1) != $day;
        return $self->fail($row, 45009) if $forced->{count} >= $self->{set}{force_refresh_daily};
        if (!defined $forced->{at} || $now - $forced->{at} >= $self->{set}{force_refresh_s})
        {
            $forced->{count}++;
            $forced->{at} = $now;
            $is->{valid_until} = $now if $is;
            return $self->token_reply($self->new_token($account, 'stable'));
        }
    }
    $token = $self->new_token($account, 'stable')
      if !$is || $is->{valid_until} < $is->{expires} || $now >= $is->{expires} - $self->overlap;
    return $self->token_reply($token);
}

# --- quotas and people ----------------------------------------------------------------------------

sub clear_used
{
    my ($self, $row, $account) = @_;
    my $month = join '-', (gmtime($self->now + 28_800))[ 5, 4 ];
    my $cleared = $account->{cleared};
    %$cleared = (month => $month, count => 0) if ($cleared->{month} // '') ne $month;
    return $self->fail($row, 48006) if $cleared->{count}++ >= $self->{set}{clear_quota_monthly};
    $account->{used} = {};
    return $self->done($row);
}

sub clear_quota
{
    my ($self, $row, $account, $json) = @_;
    return $self->fail($row, 40013) if ($json->{appid} // '') ne $account->{appid};
    return $self->clear_used($row, $account);
}

sub clear_quota_by_secret
{
    my ($self, $row, undef, $json) = @_;
    my $account = $self->{accounts}{ $json->{appid} // '' } // return $self->fail($row, 40013);
    $row->{account} = $account->{appid};
    return $self->fail($row, 40125) if ($json->{appsecret} // '') ne $account->{secret};
    return $self->clear_used($row, $account);
}

sub quota_get
{
    my ($self, $row, $account, $json) = @_;
    my $api = api_of($json->{cgi_path} // '') // return $self->fail($row, 76021);
    my $limit = $account->{daily_quota}{$api} // $self->{set}{daily_quota}{$api} // 0;
    my ($day, $used) = @{ $account->{used}{$api} || [ 0, 0 ] };
    $used = 0 if $day != int(($self->now + 28_800) / 86_400);
    my $minute = $self->{set}{minute_quota}{$api};
    my $rate = defined $minute ? qq(,"rate_limit":{"call_count":$minute,"refresh_second":60}) : '';
    return $self->done($row, sprintf ',"quota":{"daily_limit":%d,"used":%d,"remain":%d}%s', $limit, $used, $limit - $used, $rate);
}

# contact(ACCOUNT, OPENID): where contacts are not strict, who is unknown follows
sub contact
{
    my ($self, $account, $openid) = @_;
    return if !defined $openid || ref $openid || $openid eq '';
    my $contact = $account->{contacts}{$openid};
    return $contact if $contact || $self->{set}{strict_contacts};
    return $account->{contacts}{$openid} = { follow => 1, windows => [] };
}

sub info_of
{
    my ($self, $account, $openid, $lang) = @_;
    my $contact = $self->contact($account, $openid);
    return if !$contact || $contact->{gone};
    my $id = json_quote($openid);
    my $union = defined $contact->{unionid} ? ',"unionid":' . json_quote($contact->{unionid}) : '';
    return qq({"subscribe":0,"openid":$id$union}) if !$contact->{follow};
    return sprintf '{"subscribe":1,"openid":%s,"language":%s,"subscribe_time":%d%s,"remark":%s,"groupid":0,"tagid_list":[],'
      . '"subscribe_scene":"ADD_SCENE_OTHERS","qr_scene":0,"qr_scene_str":""}',
      $id, json_quote($contact->{language} // $lang // 'zh_CN'), $contact->{since} // 0, $union, json_quote($contact->{remark} // '');
}

sub user_info
{
    my ($self, $row, $account, $r) = @_;
    $row->{touser} = parameter($r, 'openid');
    return $self->info_of($account, $row->{touser}, parameter($r, 'lang')) // $self->fail($row, 40003);
}

sub user_info_batch
{
    my ($self, $row, $account, $json) = @_;
    my $list = $json->{user_list};
    return $self->fail($row, 47001) if ref $list ne 'ARRAY' || grep { ref ne 'HASH' } @$list;
    return $self->fail($row, 40032, 'at most 100') if !@$list || @$list > 100;
    my @info = map { $self->info_of($account, $_->{openid}, $_->{lang}) } @$list;
    return $self->fail($row, 40003) if grep { !defined } @info;
    return '{"user_info_list":[' . join(',', @info) . ']}';
}

# opened(ACCOUNT, OPENID, EVENT): what somebody did, which allows some messages for a while
sub opened
{
    my ($self, $account, $openid, $event) = @_;
    my $contact = $account->{contacts}{$openid} ||= { follow => 1, windows => [] };
    my $now = $self->now;
    if ($event eq 'unfollow')
    {
        @$contact{qw(follow windows)} = (0, []);
        return $contact;
    }
    my $window = $self->{set}{windows}{$event}
      // die "no event is called $event: unfollow, " . join(', ', sort keys %{ $self->{set}{windows} }) . "\n";
    if ($event eq 'follow') { @$contact{qw(follow since)} = (1, int $now) }
    $contact->{spoke} = $now if $event eq 'message';
    my ($quota, $seconds) = @$window;
    my $windows = $contact->{windows} = [ grep { $_->{expires} > $now } @{ $contact->{windows} } ];
    push @$windows, { event => $event, quota => $quota + 0, used => 0, expires => $now + $seconds };
    @$windows = sort { $a->{expires} <=> $b->{expires} } @$windows;
    return $contact;
}

1;
