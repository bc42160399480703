# CrmSandbox::Webhook - somebody's own server, which is told of things by signed calls to /webhook/NAME.
package CrmSandbox::Webhook;

use strict;
use warnings;
use CrmSandbox::Json;
use Digest::SHA qw(hmac_sha256_hex);

sub new
{
    my ($class, $sandbox) = @_;
    my $self = bless { sandbox => $sandbox }, $class;
    $self->clear;
    return $self;
}

sub clear { $_[0]{hooks} = {} }

# hook(HASH): made or changed
sub hook
{
    my ($self, %is) = @_;
    my $name = delete $is{name} // die "name is missing\n";
    my $hook = $self->{hooks}{$name} ||=
      { name => $name, secret => '', status => 200, body => '{"ok":true}', tolerance_s => 300, headers => {}, keys => {} };
    for my $field (keys %is)
    {
        die "a webhook has no $field\n" if !grep { $_ eq $field } qw(secret status body tolerance_s headers);
        $hook->{$field} = $field eq 'body' && ref $is{body} ? json_write($is{body}) : $is{$field};
    }
    return $hook;
}

# handle(ROW, REQUEST): status, body, further headers
sub handle
{
    my ($self, $row, $r) = @_;
    my ($name) = $r->{path} =~ /\A\/webhook\/([^\/]+)\z/;
    my $hook = $self->{hooks}{ $name // '' } // return (404, '{"error":"no such webhook"}');
    $row->{account} = $name;
    return (405, '{"error":"POST only"}') if $r->{method} ne 'POST';
    my $h = $r->{header};
    my $key = $row->{key} = $h->{'idempotency-key'};
    my $timestamp = $h->{'x-crm-timestamp'} // '';
    return (401, '{"error":"timestamp missing"}') if $timestamp !~ /\A[0-9]{1,12}\z/;
    return (401, '{"error":"timestamp out of range"}')
      if $hook->{tolerance_s} && abs($self->{sandbox}->now - $timestamp) > $hook->{tolerance_s};
    return (401, '{"error":"bad signature"}')
      if ($h->{'x-crm-signature'} // '') ne 'sha256=' . hmac_sha256_hex("$timestamp.$r->{body}", $hook->{secret});
    return (400, '{"error":"idempotency key missing"}') if !defined $key || $key eq '';
    my $headers = join '', map { "$_: $hook->{headers}{$_}\r\n" } sort keys %{ $hook->{headers} };
    if ($hook->{status} >= 200 && $hook->{status} < 300)
    {
        if ($hook->{keys}{$key}++) { $row->{duplicate} = 1 }
        else { $row->{delivered} = 1 }
    }
    return ($hook->{status}, $hook->{body}, $headers);
}

1;
