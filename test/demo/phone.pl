#!/usr/bin/perl
# phone.pl - the WeChat of one person in the story: what he does there, and what arrives.
#
#   phone.pl OPENID does EVENT...      follow, scan, message, menu: as the sandbox's windows take it
#   phone.pl OPENID gets N SINCE       waits until N messages have arrived in all, and prints the
#                                      last one with its delay since that second
#
# SANDBOX is the sandbox's address.
use strict;
use warnings;

use HTTP::Tiny;
use JSON::PP ();
use Time::HiRes qw(sleep time);

my ($openid, $verb, @rest) = @ARGV;
my $http = HTTP::Tiny->new(timeout => 10);

sub call
{
    my ($method, $path, $content) = @_;
    my $reply = $http->request($method, "$ENV{SANDBOX}/sandbox/$path",
        $content ? { content => JSON::PP::encode_json($content), headers => { 'Content-Type' => 'application/json' } } : {});
    die "the sandbox refused $path: $reply->{status} $reply->{content}\n" unless $reply->{success};
    return JSON::PP::decode_json($reply->{content});
}

sub text_of
{
    my ($body) = @_;
    my $type = $body->{msgtype} or return join ' / ', map { $_->{value} } values %{ $body->{data} };
    my $content = $body->{$type};
    return $content->{content} if $type eq 'text';
    return join ' / ', map { "$_->{title}: $_->{description}" } @{ $content->{articles} } if $type eq 'news';
    return $type;
}

binmode STDOUT, ':utf8';
if ($verb eq 'does')
{
    call(POST => 'windows', { openid => $openid, event => $_ }) for @rest;
}
elsif ($verb eq 'gets')
{
    my ($n, $since) = @rest;
    my $until = time + 30;
    my @rows;
    while (1)
    {
        my $answer = call(GET => "ledger?touser=$openid");
        @rows = grep { $_->{delivered} } @{ ref $answer eq 'HASH' ? $answer->{rows} : $answer };
        last if @rows >= $n;
        die "nothing has arrived on the phone of $openid within 30 s\n" if time > $until;
        sleep 0.01;
    }
    my $row = $rows[$n - 1];
    printf "    %s's phone, %.1f ms after COMMIT: %s\n", $openid, 1000 * ($row->{t} / 1e6 - $since), text_of($row->{body});
}
else { die "phone.pl OPENID does EVENT... | gets N SINCE\n" }
