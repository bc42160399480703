# CrmSandbox::Http - HTTP/1.1 for many connections in one process: one loop around select().
#
#   my $http = CrmSandbox::Http->new(port => 0, head => sub { ($conn, $request) }, request => sub { ... });
#   $http->run;
#
# head is called when a request's header is there and may end the connection; request when all of it
# is. Requests of one connection come one after the other: the next is read when the reply to the last
# has been sent by reply(), raw() or drop(), now or later (after()).
#
# select() is not held to 1024 descriptors here: Perl hands bit strings of any length to the kernel.
package CrmSandbox::Http;

use strict;
use warnings;
use Errno qw(EAGAIN EINTR EWOULDBLOCK);
use Fcntl qw(F_GETFL F_SETFL O_NONBLOCK);
use Socket qw(AF_INET INADDR_LOOPBACK IPPROTO_TCP SOCK_STREAM SOL_SOCKET SO_ERROR SO_LINGER SO_REUSEADDR TCP_NODELAY
  pack_sockaddr_in unpack_sockaddr_in);
use Time::HiRes ();

use constant HEADER_MAX => 65_536;
use constant BODY_MAX   => 64 * 1_048_576;
use constant AHEAD_MAX  => 262_144;

my %reason = (
    200 => 'OK', 201 => 'Created', 202 => 'Accepted', 204 => 'No Content', 400 => 'Bad Request', 401 => 'Unauthorized',
    404 => 'Not Found', 405 => 'Method Not Allowed', 409 => 'Conflict', 410 => 'Gone', 413 => 'Content Too Large',
    429 => 'Too Many Requests', 431 => 'Request Header Fields Too Large', 500 => 'Internal Server Error',
    502 => 'Bad Gateway', 503 => 'Service Unavailable', 504 => 'Gateway Timeout',
);

sub new
{
    my ($class, %opt) = @_;
    my $self = bless {
        port => $opt{port} || 0, head => $opt{head}, request => $opt{request}, ended => $opt{ended} || sub { },
        idle => $opt{idle} || sub { }, rmask => '', wmask => '', conns => [], timers => [], watched => {}, open => 0,
        most => 0, accepted => 0, stop => 0, idle_s => 0, reply_chunked => 0,
    }, $class;
    $self->listen_at or die "cannot listen: $!\n";
    return $self;
}

sub listen_at
{
    my ($self) = @_;
    socket my $listen, AF_INET, SOCK_STREAM, 0 or return;
    setsockopt $listen, SOL_SOCKET, SO_REUSEADDR, 1;
    bind $listen, pack_sockaddr_in($self->{port}, INADDR_LOOPBACK) or return;
    listen $listen, 4096 or return;
    nonblocking($listen);
    $self->{listen} = $listen;
    ($self->{port}) = unpack_sockaddr_in(getsockname $listen);
    vec($self->{rmask}, fileno $listen, 1) = 1;
    return 1;
}

# outage(SECONDS): connections are reset, and further ones refused for that time
sub outage
{
    my ($self, $seconds) = @_;
    return if !$self->{listen};
    vec($self->{rmask}, fileno $self->{listen}, 1) = 0;
    close delete $self->{listen};
    for (grep { defined } @{ $self->{conns} }) { $self->drop($_, 1) }
    my $again;
    $again = sub { $self->listen_at ? undef $again : $self->after(0.05, $again) };
    $self->after($seconds, $again);
}

sub nonblocking
{
    my ($fh) = @_;
    fcntl $fh, F_SETFL, fcntl($fh, F_GETFL, 0) | O_NONBLOCK or die "fcntl: $!\n";
}

# watch(FH, CODE): called when FH can be read
sub watch
{
    my ($self, $fh, $code) = @_;
    vec($self->{rmask}, fileno $fh, 1) = 1;
    $self->{watched}{ fileno $fh } = $code;
}

sub unwatch
{
    my ($self, $fh) = @_;
    vec($self->{rmask}, fileno $fh, 1) = 0;
    delete $self->{watched}{ fileno $fh };
}

# after(SECONDS, CODE)
sub after
{
    my ($self, $seconds, $code) = @_;
    my $at = Time::HiRes::time() + $seconds;
    my $timers = $self->{timers};    # the soonest is the last
    my ($low, $high) = (0, scalar @$timers);
    while ($low < $high)
    {
        my $middle = ($low + $high) >> 1;
        if ($timers->[$middle][0] > $at) { $low = $middle + 1 }
        else { $high = $middle }
    }
    splice @$timers, $low, 0, [ $at, $code ];
}

sub run
{
    my ($self) = @_;
    local $SIG{PIPE} = 'IGNORE';
    my ($conns, $timers, $watched) = @$self{qw(conns timers watched)};
    while (!$self->{stop})
    {
        my $wait;
        if (@$timers)
        {
            $wait = $timers->[-1][0] - Time::HiRes::time();
            $wait = 0 if $wait < 0;
        }
        my $writes = $self->{wmask} =~ /[^\0]/;
        my $n = select my $readable = $self->{rmask}, my $writable = $writes ? $self->{wmask} : undef, undef, $wait;
        if (@$timers)
        {
            my $now = Time::HiRes::time();
            (pop @$timers)->[1]->() while @$timers && $timers->[-1][0] <= $now;
        }
        next if $n <= 0;
        for my $bits ($writes ? unpack 'b*', $writable : ())
        {
            my $fd = -1;
            while (($fd = index $bits, '1', $fd + 1) >= 0)
            {
                my $c = $conns->[$fd];
                $self->flush($c) if $c && length $c->{out};
            }
        }
        my $bits = unpack 'b*', $readable;
        my $fd = -1;
        while (($fd = index $bits, '1', $fd + 1) >= 0)
        {
            if (my $c = $conns->[$fd]) { $self->readable($c) }
            elsif ($self->{listen} && $fd == fileno $self->{listen}) { $self->accept_all }
            elsif ($watched->{$fd}) { $watched->{$fd}->() }
        }
        $self->{idle}->();
    }
}

sub accept_all
{
    my ($self) = @_;
    for (1 .. 256)
    {
        if (!accept my $fh, $self->{listen})
        {
            last if $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR;
            # no descriptor left: those who wait are let in when others have gone
            vec($self->{rmask}, fileno $self->{listen}, 1) = 0;
            $self->after(0.05, sub { vec($self->{rmask}, fileno $self->{listen}, 1) = 1 if $self->{listen} });
            last;
        }
        else
        {
            nonblocking($fh);
            setsockopt $fh, IPPROTO_TCP, TCP_NODELAY, 1;
            my $fd = fileno $fh;
            my $c = $self->{conns}[$fd] =
              { fh => $fh, fd => $fd, id => ++$self->{accepted}, in => '', out => '', nth => 0, busy => 0, seen => time };
            vec($self->{rmask}, $fd, 1) = 1;
            $self->{most} = $self->{open} if ++$self->{open} > $self->{most};
            $self->watch_idle($c) if $self->{idle_s};
        }
    }
}

# connections on which nothing happens are closed after idle_s seconds
sub watch_idle
{
    my ($self, $c) = @_;
    $self->after($self->{idle_s}, sub {
        return if $c->{closed};
        return $self->drop($c) if !$c->{busy} && time - $c->{seen} >= $self->{idle_s};
        $self->watch_idle($c) if $self->{idle_s};
    });
}

sub readable
{
    my ($self, $c) = @_;
    my $n = sysread $c->{fh}, $c->{in}, 131_072, length $c->{in};
    if (!defined $n)
    {
        return if $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR;
        return $self->drop($c);
    }
    if ($n == 0)
    {
        # the client sends no more; it may still read
        $c->{eof} = 1;
        vec($self->{rmask}, $c->{fd}, 1) = 0;
    }
    else { $c->{seen} = time if $self->{idle_s} }
    $self->process($c);
}

# read requests until one has to wait for something
sub process
{
    my ($self, $c) = @_;
    return if $c->{processing};
    $c->{processing} = 1;
    while (!$c->{busy} && !$c->{closed})
    {
        my $r = $c->{req} || $self->parse_head($c) || last;
        if (exists $r->{chunks})
        {
            my $done = $self->parse_chunks($c, $r);
            last if $c->{closed} || !$done;
        }
        else
        {
            last if length $c->{in} < $r->{length};
            $r->{body} = $r->{length} ? substr $c->{in}, 0, $r->{length}, '' : '';
        }
        delete $c->{req};
        $c->{busy} = 1;
        $c->{close} = $r->{close};
        $c->{head_only} = $r->{method} eq 'HEAD';
        $self->{request}->($c, $r);
    }
    $c->{processing} = 0;
    return if $c->{closed};
    if ($c->{eof}) { $self->drop($c) if !$c->{busy} }
    else { vec($self->{rmask}, $c->{fd}, 1) = $c->{busy} && length $c->{in} > AHEAD_MAX ? 0 : 1 }
}

sub parse_head
{
    my ($self, $c) = @_;
    $c->{in} =~ s/\A(?:\r\n)+// if substr($c->{in}, 0, 1) eq "\r";
    my $end = index $c->{in}, "\r\n\r\n";
    if ($end < 0)
    {
        $self->refuse($c, 431) if length $c->{in} > HEADER_MAX;
        return;
    }
    my $head = substr $c->{in}, 0, $end + 4, '';
    $head =~ /\G([A-Z]+) ([^ \r\n]+) HTTP\/1\.([01])\r\n/gc or return $self->refuse($c, 400);
    my ($method, $target, $minor) = ($1, $2, $3);
    my %header;
    while ($head =~ /\G([!#\$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*?)[ \t]*\r\n/gc)
    {
        my $name = lc $1;
        return $self->refuse($c, 400) if $name eq 'content-length' && exists $header{$name} && $header{$name} ne $2;
        $header{$name} = $2;
    }
    $head =~ /\G\r\n\z/gc or return $self->refuse($c, 400);
    $target =~ s/\Ahttp:\/\/[^\/]*//;
    my ($path, $query) = split /\?/, $target, 2;
    my $connection = lc($header{connection} // '');
    my $r = {
        method => $method, path => $path, query => $query // '', header => \%header, length => 0,
        close => $connection =~ /\bclose\b/ || (!$minor && $connection !~ /\bkeep-alive\b/) ? 1 : 0,
    };
    if (defined(my $encoding = $header{'transfer-encoding'}))
    {
        return $self->refuse($c, 400) if lc $encoding ne 'chunked' || exists $header{'content-length'};
        @$r{qw(chunks body)} = ('size', '');
    }
    elsif (defined(my $length = $header{'content-length'}))
    {
        return $self->refuse($c, 400) if $length !~ /\A[0-9]{1,15}\z/;
        return $self->refuse($c, 413) if $length > BODY_MAX;
        $r->{length} = $length + 0;
    }
    $c->{nth}++;
    $c->{req} = $r;
    $self->{head}->($c, $r);
    return if $c->{closed};
    syswrite $c->{fh}, "HTTP/1.1 100 Continue\r\n\r\n"
      if lc($header{expect} // '') eq '100-continue' && length $c->{in} < $r->{length};
    return $r;
}

# is the body complete?
sub parse_chunks
{
    my ($self, $c, $r) = @_;
    while (1)
    {
        if ($r->{chunks} eq 'size')
        {
            if ($c->{in} !~ s/\A([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n//)
            {
                $self->refuse($c, 400) if index($c->{in}, "\r\n") >= 0 || length $c->{in} > 4096;
                return 0;
            }
            $r->{left} = hex $1;
            return $self->refuse($c, 413) if length($r->{body}) + $r->{left} > BODY_MAX;
            $r->{chunks} = $r->{left} ? 'data' : 'trailer';
        }
        elsif ($r->{chunks} eq 'data')
        {
            return 0 if length $c->{in} < $r->{left} + 2;
            $r->{body} .= substr $c->{in}, 0, $r->{left}, '';
            return $self->refuse($c, 400) if substr($c->{in}, 0, 2, '') ne "\r\n";
            $r->{chunks} = 'size';
        }
        else
        {
            return 1 if $c->{in} =~ s/\A\r\n//;
            next if $c->{in} =~ s/\A[^\r\n]+\r\n//;
            $self->refuse($c, 431) if length $c->{in} > HEADER_MAX;
            return 0;
        }
    }
}

# not HTTP
sub refuse
{
    my ($self, $c, $status) = @_;
    $c->{busy} = $c->{close} = 1;
    $c->{head_only} = 0;
    delete $c->{seq};
    $self->reply($c, $status, 'text/plain', "$reason{$status}\n");
    return;
}

# page(CONN, STATUS, TYPE, BODY, HEADERS): the bytes of a reply
sub page
{
    my ($self, $c, $status, $type, $body, $headers) = @_;
    my $reason = $reason{$status} || 'Status';
    my $connection = $c->{close} ? 'close' : 'keep-alive';
    my $bare = $c->{head_only} || $status == 204;
    my $head = "HTTP/1.1 $status $reason\r\nContent-Type: $type\r\nConnection: $connection\r\n" . ($headers // '');
    return $head . "\r\n" if $status == 204;
    if ($self->{reply_chunked} && !$bare)
    {
        my $half = length($body) >> 1;
        my $chunks = join '', map { sprintf "%x\r\n%s\r\n", length, $_ }
          grep { length } substr($body, 0, $half), substr($body, $half);
        return "${head}Transfer-Encoding: chunked\r\n\r\n${chunks}0\r\n\r\n";
    }
    return $head . 'Content-Length: ' . length($body) . "\r\n\r\n" . ($bare ? '' : $body);
}

sub reply
{
    my ($self, $c, @page) = @_;
    return if $c->{closed};
    $self->raw($c, $self->page($c, @page));
}

# raw(CONN, BYTES): the last of a reply
sub raw
{
    my ($self, $c, $bytes) = @_;
    return if $c->{closed};
    $c->{out} .= $bytes;
    $c->{last} = 1;
    $self->flush($c);
}

# piece(CONN, BYTES): some of a reply, more will come
sub piece
{
    my ($self, $c, $bytes) = @_;
    return if $c->{closed};
    $c->{out} .= $bytes;
    $c->{last} = 0;
    $self->flush($c);
}

sub flush
{
    my ($self, $c) = @_;
    my $n = syswrite $c->{fh}, $c->{out};
    if (!defined $n)
    {
        return $self->drop($c) if $! != EAGAIN && $! != EWOULDBLOCK && $! != EINTR;
        $n = 0;
    }
    $c->{wrote} = 1 if $n;
    if ($n < length $c->{out})
    {
        substr $c->{out}, 0, $n, '';
        vec($self->{wmask}, $c->{fd}, 1) = 1;
        return;
    }
    $c->{out} = '';
    vec($self->{wmask}, $c->{fd}, 1) = 0 if vec($self->{wmask}, $c->{fd}, 1);
    # who has closed, and not only ended its sending, answers at once that nobody is there
    if ($c->{eof} && unpack 'i', getsockopt $c->{fh}, SOL_SOCKET, SO_ERROR) { return $self->drop($c, 0, 'none') }
    return if !$c->{last};
    $self->ended($c, $c->{cut} ? 'cut' : 'whole');
    $c->{busy} = 0;
    return $self->drop($c) if $c->{close};
    $self->process($c);
}

sub ended
{
    my ($self, $c, $how) = @_;
    $c->{wrote} = $c->{cut} = 0;
    my $seq = delete $c->{seq} // return;
    $self->{ended}->($seq, $how);
}

# drop(CONN, RESET): close; with a reset (RST) if asked for
sub drop
{
    my ($self, $c, $reset, $how) = @_;
    return if $c->{closed};
    $c->{closed} = 1;
    $self->ended($c, $how // ($c->{wrote} ? 'cut' : 'none'));
    vec($self->{rmask}, $c->{fd}, 1) = 0;
    vec($self->{wmask}, $c->{fd}, 1) = 0;
    $self->{conns}[ $c->{fd} ] = undef;
    $self->{open}--;
    setsockopt $c->{fh}, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0 if $reset;
    close $c->{fh};
}

1;
