# CrmSandbox::Server - joins the parts: a request goes to the official account, a webhook or the admin
# API; on its way faults happen, and the ledger notes it.
package CrmSandbox::Server;

use strict;
use warnings;
use CrmSandbox::Admin;
use CrmSandbox::Faults;
use CrmSandbox::Http;
use CrmSandbox::Json;
use CrmSandbox::Ledger;
use CrmSandbox::OfficialAccount;
use CrmSandbox::Webhook;
use Time::HiRes ();

my $json_type = 'application/json; encoding=utf-8';

sub new
{
    my ($class, %opt) = @_;
    my $self = bless { set => {}, seed => $opt{seed}, accounts => $opt{accounts}, webhooks => $opt{webhooks} }, $class;
    $self->{ledger}  = CrmSandbox::Ledger->new($opt{ledger});
    $self->{faults}  = CrmSandbox::Faults->new;
    $self->{oa}      = CrmSandbox::OfficialAccount->new($self);
    $self->{webhook} = CrmSandbox::Webhook->new($self);
    my $ledger = $self->{ledger};
    $self->{http} = CrmSandbox::Http->new(
        port => $opt{port}, head => sub { $self->head(@_) }, request => sub { $self->request(@_) },
        ended => sub { $ledger->ended(@_) }, idle => sub { $ledger->flush });
    $self->start_over(0);
    if ($opt{'until-eof'})
    {
        my $http = $self->{http};
        $http->watch(\*STDIN, sub { $http->{stop} = 1 if !sysread STDIN, my $some, 4096 });
    }
    return $self;
}

# as after the start
sub start_over
{
    my ($self, $and_ledger) = @_;
    %{ $self->{set} } = (
        %{ CrmSandbox::OfficialAccount::defaults() },
        clock_offset_s => 0, latency_ms => 0, latency_ms_of => {}, keepalive_idle_s => 0, reply_chunked => 0,
    );
    $_->clear for @$self{qw(faults oa webhook)};
    $self->{ledger}->clear if $and_ledger;
    srand $self->{seed};
    $self->{oa}->account(appid => $_->[0], secret => $_->[1] // '') for @{ $self->{accounts} };
    $self->{webhook}->hook(name => $_->[0], secret => $_->[1] // '') for @{ $self->{webhooks} };
    $self->settings_changed;
}

sub settings_changed
{
    my ($self) = @_;
    $self->{offset} = $self->{set}{clock_offset_s};
    @{ $self->{http} }{qw(idle_s reply_chunked)} = @{ $self->{set} }{qw(keepalive_idle_s reply_chunked)};
}

# the clock of the platform
sub now { return Time::HiRes::time() + $_[0]{offset} }

# a number below N; not from rand(), whose numbers are for the faults
sub draw
{
    my ($self, $n) = @_;
    $self->{drawn} //= (int(Time::HiRes::time() * 1e6) ^ $$ << 16) & 0x7fff_ffff;
    $self->{drawn} = ($self->{drawn} * 1_103_515_245 + 12_345) & 0x7fff_ffff;
    return ($self->{drawn} >> 12) % $n;
}

# name_of(PATH): what faults, latencies and the ledger call it
sub name_of
{
    my ($path) = @_;
    my $api = CrmSandbox::OfficialAccount::api_of($path);
    return $api if defined $api;
    $path =~ s/\A\/(?:cgi-bin\/(?:message\/)?)?//;
    return $path;
}

sub row_of
{
    my ($c, $r) = @_;
    my $body = $r->{method} eq 'GET' ? undef : $r->{body};
    return {
        t => Time::HiRes::time(), conn => $c->{id}, nth => $c->{nth}, method => $r->{method}, path => $r->{path},
        api => $r->{api}, body => $body, received => 1, fault => $r->{fault} && $r->{fault}{name},
    };
}

# the header is there
sub head
{
    my ($self, $c, $r) = @_;
    return if index($r->{path}, '/sandbox/') == 0;
    $r->{api} = name_of($r->{path});
    my $fault = $r->{fault} = $self->{faults}->pick($r->{api}, $c->{nth}) // return;
    return if $fault->{kind} ne 'reset_before_body';
    delete $c->{seq};
    $c->{seq} = $self->{ledger}->add({ %{ row_of($c, $r) }, received => 0 });
    $self->{http}->drop($c, 1);
}

# all of it is there
sub request
{
    my ($self, $c, $r) = @_;
    my $http = $self->{http};
    if (!defined $r->{api})
    {
        my ($status, $body) = CrmSandbox::Admin::handle($self, $r);
        return $http->reply($c, $status, $json_type, $body);
    }
    my $row = row_of($c, $r);
    my $json;
    ($json, $row->{is_json}) = json_read($r->{body}) if defined $row->{body} && $r->{body} ne '';
    undef $row->{body} if defined $row->{body} && $row->{body} eq '';
    my $fault = $r->{fault};
    my ($status, $type, $body, $headers) = (200, $json_type);
    if ($fault && !$fault->{received})
    {
        # the message goes nowhere
        $row->{received} = 0;
        $row->{touser} = $json->{touser} if ref $json eq 'HASH' && !ref $json->{touser};
        $row->{key} = $r->{header}{'idempotency-key'} // (ref $json eq 'HASH' ? $json->{client_msg_id} : undef);
        $body = '{"errcode":-1,"errmsg":"system error"}';
    }
    elsif (index($r->{path}, '/webhook/') == 0) { ($status, $body, $headers) = $self->{webhook}->handle($row, $r) }
    else { $body = $self->{oa}->handle($row, $r, $json) }
    return $self->send($c, $r, $row, $status, $type, $body, $headers) if !$fault;

    my $kind = $fault->{kind};
    if ($kind eq 'errcode') { $body = $self->{oa}->fail($row, $fault->{errcode}) }
    elsif ($kind =~ /\Ahttp_(\d+)/)
    {
        ($status, $type) = ($1, 'text/html');
        $body = "<html><head><title>$status</title></head><body><center>nginx</center></body></html>\r\n";
        undef $row->{errcode};
    }
    elsif ($kind eq 'garbage') { ($type, $body) = ('text/html', "<html>\x00\xff\xfe{\"errcode\":0,\"errm") }
    elsif ($kind eq 'huge')
    {
        my $bytes = $fault->{bytes} // 5 * 1_048_576;
        $body =~ s/\}\z/',"pad":"' . 'x' x $bytes . '"}'/e or $body .= ' ' x $bytes;
    }
    $self->send($c, $r, $row, $status, $type, $body, $headers);
}

# send(...): note it, and reply now or later
sub send
{
    my ($self, $c, $r, $row, $status, $type, $body, $headers) = @_;
    my ($http, $fault) = ($self->{http}, $r->{fault});
    $row->{status} = $status + 0;
    if (length $body > 4096) { $row->{reply} = 'too long' }
    else
    {
        $row->{reply} = $body;
        # what a webhook replies was written by a test
        $row->{reply_is_json} =
          index($r->{path}, '/webhook/') == 0 ? $body !~ /[\r\n]/ && (json_read($body))[1] : $type eq $json_type;
    }
    $c->{seq} = $self->{ledger}->add($row);
    my $page = $http->page($c, $status, $type, $body, $headers);
    my $ms = $self->{set}{latency_ms_of}{ $r->{api} } // $self->{set}{latency_ms};
    if (!$fault)
    {
        return $http->raw($c, $page) if !$ms;
        return $http->after($ms / 1000, sub { $http->raw($c, $page) });
    }
    if ($ms) { $http->after($ms / 1000, sub { $self->faulty($c, $fault, $page) }) }
    else { $self->faulty($c, $fault, $page) }
}

sub faulty
{
    my ($self, $c, $fault, $page) = @_;
    my ($http, $kind) = ($self->{http}, $fault->{kind});
    if ($kind eq 'reset_before_reply') { $http->drop($c, 1, 'none') }
    elsif ($kind eq 'close_reused')    { $http->drop($c, 0, 'none') }
    elsif ($kind eq 'half_reply')
    {
        my $head = index($page, "\r\n\r\n") + 4;
        $c->{close} = $c->{cut} = 1;
        $http->raw($c, substr $page, 0, $head + ((length($page) - $head) >> 1));
    }
    elsif ($kind eq 'silent') { $http->after($fault->{seconds} // 30, sub { $http->raw($c, $page) }) }
    elsif ($kind eq 'slow_drip')
    {
        my $ticks = int(($fault->{seconds} // 3) / 0.02) || 1;
        my $size = int(length($page) / $ticks) + 1;
        my $drip;
        $drip = sub {
            return undef $drip if $c->{closed};
            my $piece = substr $page, 0, $size, '';
            if ($page eq '')
            {
                undef $drip;
                return $http->raw($c, $piece);
            }
            $http->piece($c, $piece);
            $http->after(0.02, $drip);
        };
        $drip->();
    }
    else { $http->raw($c, $page) }
}

1;
