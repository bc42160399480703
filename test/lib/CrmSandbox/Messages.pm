# CrmSandbox::Messages - sending: customer-service, template and subscribe messages of an official account.
#
# Each is called with the CrmSandbox::OfficialAccount, the ledger's row, the account and the JSON of the body.
package CrmSandbox::Messages;

use strict;
use warnings;
use CrmSandbox::Json;

# msgtype => fields that it must have, each with the code where it is missing
my %required = (
    text => { content => 44004 },
    image => { media_id => 40007 },
    voice => { media_id => 40007 },
    video => { media_id => 40007 },
    music => { thumb_media_id => 40007, musicurl => 47001 },
    news => {},
    mpnews => { media_id => 40007 },
    mpnewsarticle => { article_id => 40007 },
    msgmenu => {},
    wxcard => { card_id => 47001 },
    miniprogrampage => { appid => 47001, pagepath => 47001, thumb_media_id => 40007 },
    link => { title => 47001, url => 47001 },
);

my %too_long = (title => 45003, description => 45004, url => 45005, picurl => 45006);

# value limits by the prefix of a template's key, in characters
my %value_max = (
    thing => 20, number => 32, letter => 32, symbol => 5, character_string => 32, phrase => 5, name => 20, phone_number => 17,
    car_number => 8,
);

# shape(OA, ACCOUNT, JSON): a code and what is wrong, or nothing
sub shape
{
    my ($oa, $account, $json) = @_;
    my $type = $json->{msgtype} // '';
    return 40008 if ref $type || !$required{$type};
    return $account->{types}{$type} if $account->{types}{$type};
    return 48008 if $type eq 'link' && $account->{kind} ne 'mini';
    my $object = $json->{$type};
    return ($type eq 'text' ? 44004 : 47001) if !defined $object;
    return 47001 if ref $object ne 'HASH';
    my $required = $required{$type};
    for my $field (sort keys %$required)
    {
        my $value = $object->{$field};
        return ($required->{$field}, "hint: [$field]") if !defined $value || ref $value || $value eq '';
    }
    my $limits = $oa->{set}{limits};
    return 45002 if $type eq 'text' && $limits->{text} && length $object->{content} > $limits->{text};
    my @parts = ($object);
    if ($type eq 'news')
    {
        my $articles = $object->{articles};
        return 45162 if ref $articles ne 'ARRAY' || !@$articles || grep { ref ne 'HASH' } @$articles;
        return 45008 if $limits->{articles} && @$articles > $limits->{articles};
        push @parts, @$articles;
    }
    elsif ($type eq 'msgmenu')
    {
        my $list = $object->{list};
        return (45162, 'hint: [list]')
          if ref $list ne 'ARRAY' || !@$list || grep { ref ne 'HASH' || !defined $_->{id} || !defined $_->{content} } @$list;
    }
    for my $part (@parts)
    {
        for my $field (keys %too_long)
        {
            return $too_long{$field} if $limits->{$field} && length($part->{$field} // '') > $limits->{$field};
        }
    }
    my $media = $account->{media};
    if (%$media)
    {
        for my $field (grep { defined $object->{$_} } qw(media_id thumb_media_id))
        {
            return 40007 if !$media->{ $object->{$field} };
        }
    }
    if (defined(my $service = $json->{customservice}))
    {
        return 47001 if ref $service ne 'HASH' || !defined $service->{kf_account};
        return 61452 if %{ $account->{kf_accounts} } && !$account->{kf_accounts}{ $service->{kf_account} };
    }
    return;
}

# reachable(OA, ROW, ACCOUNT, OPENID): the contact, or the reply that says why not
sub reachable
{
    my ($oa, $row, $account, $openid) = @_;
    $row->{touser} = $openid if defined $openid && !ref $openid;
    my $contact = $oa->contact($account, $openid) // return $oa->fail($row, 40003);
    return $oa->fail($row, 46004)                      if $contact->{gone};
    return $oa->fail($row, $oa->{set}{unfollowed_code}) if !$contact->{follow};
    return $oa->fail($row, 43019)                      if $contact->{blocked};
    return $oa->fail($row, 48002)                      if $contact->{optout};
    return $contact;
}

sub custom_send
{
    my ($oa, $row, $account, $json) = @_;
    $row->{touser} = $json->{touser} if defined $json->{touser} && !ref $json->{touser};
    my ($code, $detail) = shape($oa, $account, $json);
    return $oa->fail($row, $code, $detail) if $code;
    my $contact = reachable($oa, $row, $account, $json->{touser});
    return $contact if !ref $contact;
    if ($oa->{set}{check_windows})
    {
        my $now = $oa->now;
        my @open = grep { $_->{expires} > $now } @{ $contact->{windows} };
        return $oa->fail($row, 45015) if !@open;
        # the one that ends first
        my ($window) = grep { $_->{quota} < 0 || $_->{used} < $_->{quota} } @open;
        return $oa->fail($row, 45047) if !$window;
        $window->{used}++;
    }
    $contact->{typing} = 0;
    $row->{delivered} = 1;
    return $oa->done($row);
}

sub custom_typing
{
    my ($oa, $row, $account, $json) = @_;
    my $contact = reachable($oa, $row, $account, $json->{touser});
    return $contact if !ref $contact;
    my $command = $json->{command} // '';
    my $now = $oa->now;
    return $oa->fail($row, 45072) if $command ne 'Typing' && $command ne 'CancelTyping';
    return $oa->fail($row, 45080) if $oa->{set}{check_windows} && $now - ($contact->{spoke} // 0) > 30;
    if ($command eq 'Typing')
    {
        return $oa->fail($row, 45081) if $now - ($contact->{typing} // 0) < 15;
        $contact->{typing} = $now;
    }
    else { $contact->{typing} = 0 }
    return $oa->done($row);
}

# data_wrong(TEMPLATE, DATA): what is wrong with the values
sub data_wrong
{
    my ($template, $data) = @_;
    return 'data is missing' if ref $data ne 'HASH' || !%$data;
    for my $key (sort keys %$data)
    {
        my $value = ref $data->{$key} eq 'HASH' ? $data->{$key}{value} : undef;
        return "data.$key.value is missing" if !defined $value || ref $value;
        my ($prefix) = $key =~ /\A([a-z_]+?)[0-9]*\z/;
        my $max = $value_max{ $prefix // '' } // next;
        utf8::decode(my $characters = $value);
        return "data.$key.value is too long" if length $characters > $max;
    }
    for my $key (@{ $template && ref $template eq 'HASH' && $template->{keys} || [] })
    {
        return "data.$key.value is empty" if ref $data->{$key} ne 'HASH' || ($data->{$key}{value} // '') eq '';
    }
    return;
}

# template_of(OA, ACCOUNT, ID): it, or undef where it is unknown and has to be known
sub template_of
{
    my ($oa, $account, $id) = @_;
    return if !defined $id || ref $id || $id eq '';
    return $account->{templates}{$id} // (%{ $account->{templates} } || $oa->{set}{strict_templates} ? undef : {});
}

sub msgid { return 3_428_411_849_815_000_000 + ++$_[0]{msgids} }

sub template_send
{
    my ($oa, $row, $account, $json) = @_;
    my ($openid, $key) = @$json{qw(touser client_msg_id)};
    undef $key if ref $key || ($key // '') eq '';
    $row->{key} = $key;
    my $contact = reachable($oa, $row, $account, $openid);
    return $contact if !ref $contact;
    my $template = template_of($oa, $account, $json->{template_id}) // return $oa->fail($row, 40037);
    my $wrong = data_wrong($template, $json->{data});
    return $oa->fail($row, 47003, "hint: [$wrong]") if $wrong;
    my $max = $oa->{set}{limits}{client_msg_id};
    return $oa->fail($row, 47003, 'hint: [client_msg_id is too long]') if defined $key && $max && length $key > $max;
    my $sent = $oa->{sent};
    my $now = $oa->now;
    my $msgid;
    if (defined $key)
    {
        my $known = $sent->{"$account->{appid} $openid $key"};
        if ($known && $now - $known->[1] < $oa->{set}{dedup_s})
        {
            $row->{duplicate} = 1;
            return $oa->done($row, qq(,"msgid":$known->[0]));
        }
        $msgid = msgid($oa);
        $sent->{"$account->{appid} $openid $key"} = [ $msgid, $now ];
        if (++$oa->{sent_since} >= 100_000)
        {
            $oa->{sent_since} = 0;
            delete @$sent{ grep { $now - $sent->{$_}[1] >= $oa->{set}{dedup_s} } keys %$sent };
        }
    }
    $msgid //= msgid($oa);
    $row->{delivered} = 1;
    return $oa->done($row, qq(,"msgid":$msgid));
}

# spend(OA, CONTACT, ID): one of the messages that somebody has said yes to
sub spend
{
    my ($oa, $contact, $id) = @_;
    return 1 if !$oa->{set}{check_accepts};
    return 0 if ($contact->{accepts}{$id} // 0) < 1;
    $contact->{accepts}{$id}--;
    return 1;
}

# the one message after a consent page; consent is kept by template and scene
sub template_subscribe
{
    my ($oa, $row, $account, $json) = @_;
    my $contact = reachable($oa, $row, $account, $json->{touser});
    return $contact if !ref $contact;
    template_of($oa, $account, $json->{template_id}) // return $oa->fail($row, 40037);
    my $content = ref $json->{data} eq 'HASH' && ref $json->{data}{content} eq 'HASH' ? $json->{data}{content}{value} : undef;
    return $oa->fail($row, 47003, 'hint: [data.content.value]') if !defined $content || ref $content || $content eq '';
    for my $field (qw(scene title))
    {
        return $oa->fail($row, 47003, "hint: [$field]") if !defined $json->{$field} || ref $json->{$field} || $json->{$field} eq '';
    }
    return $oa->fail($row, 43101) if !spend($oa, $contact, "$json->{template_id}/$json->{scene}");
    $row->{delivered} = 1;
    return $oa->done($row);
}

sub subscribe_send
{
    my ($oa, $row, $account, $json) = @_;
    $row->{touser} = $json->{touser} if defined $json->{touser} && !ref $json->{touser};
    # whoever has said yes need not follow
    my $contact = $oa->contact($account, $json->{touser}) // return $oa->fail($row, 40003);
    my $template = template_of($oa, $account, $json->{template_id}) // return $oa->fail($row, 40037);
    my $wrong = data_wrong($template, $json->{data});
    return $oa->fail($row, 47003, "hint: [$wrong]") if $wrong;
    return $oa->fail($row, 43101) if !spend($oa, $contact, $json->{template_id});
    my $msgid = msgid($oa);
    $row->{delivered} = 1;
    return $oa->done($row, qq(,"msgid":$msgid));
}

1;
