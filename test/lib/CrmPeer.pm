# CrmPeer - an HTTP server that misbehaves on demand, in a child process.
#
#   my $peer = CrmPeer->new;            # listens on a port of 127.0.0.1
#   $peer->url('/delay/50');            # http://127.0.0.1:PORT/delay/50
#   my @seen = $peer->seen('/a');       # requests whose path begins so: { connection, nth, method,
#                                       #   path, headers, body }, whole ones only
#   $peer->connections;                 # how many were accepted
#   $peer->stop;
#
# What a path does: /ok answers; /delay/MS does so after a while; /status/CODE; /big/BYTES;
# /reply answers with the request's body; /silent reads and never answers; /close reads and
# closes; /reset reads and resets; /half promises more than it sends; /headers never ends its
# headers; /garbage is no HTTP; /slow sends a byte a second; /once answers the first request of a
# connection and closes after reading the second; /double answers twice; /redirect leads to /ok.
package CrmPeer;

use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use Socket qw(SOL_SOCKET SO_LINGER);
use Time::HiRes qw(time);

sub new
{
    my ($class) = @_;
    my $listen = IO::Socket::INET->new(
        LocalAddr => '127.0.0.1', Listen => 1024, ReuseAddr => 1, Blocking => 0)
      or die "no port: $!";
    my $self = bless { port => $listen->sockport }, $class;
    my $parent = $$;
    defined($self->{pid} = fork) or die "fork: $!";
    if ($self->{pid} == 0)
    {
        $SIG{$_} = 'DEFAULT' for qw(INT TERM);
        eval { serve($listen, $parent) };
        print STDERR "peer: $@" if $@;
        require POSIX;
        POSIX::_exit(0);
    }
    close $listen;
    return $self;
}

sub url  { "http://127.0.0.1:$_[0]{port}$_[1]" }
sub port { $_[0]{port} }

sub stop
{
    my ($self) = @_;
    my $pid = delete $self->{pid} or return;
    local $?;
    kill 'KILL', $pid;
    waitpid $pid, 0;
}
sub DESTROY { $_[0]->stop }

sub ask
{
    my ($self, $path) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}) or die "$!";
    print $socket "GET $path HTTP/1.0\r\n\r\n";
    my $reply = do { local $/; <$socket> };
    $reply =~ s/.*?\r\n\r\n//s;
    return decode_json($reply);
}
sub seen        { my ($self, $path) = @_; grep { index($_->{path}, $path) == 0 } @{ $self->ask('/seen') } }
sub connections { $_[0]->ask('/connections')->[0] }

# ----- the child -----

my (%of, @seen, @timers, $select, $waiting, $accepted);

sub serve
{
    my ($listen, $parent) = @_;
    $SIG{PIPE} = 'IGNORE';
    ($select, $waiting, $accepted) = (IO::Select->new($listen), IO::Select->new, 0);
    while (getppid == $parent)
    {
        @timers = sort { $a->[0] <=> $b->[0] } @timers if @timers > 1;
        my $wait = @timers ? $timers[0][0] - time : 1;
        my ($readable, $writable) = IO::Select->select($select, $waiting, undef, $wait < 0 ? 0 : $wait);
        write_some($_) for @{ $writable || [] };
        for my $socket (@{ $readable || [] })
        {
            if ($socket == $listen)
            {
                while (my $new = $listen->accept)
                {
                    $new->blocking(0);
                    $select->add($new);
                    $of{ fileno $new } = { socket => $new, in => '', out => '', number => ++$accepted, nth => 0 };
                }
            }
            elsif ($of{ fileno $socket }) { read_some($socket) }
        }
        while (@timers && $timers[0][0] <= time) { (shift @timers)->[1]->() }
    }
}

sub gone
{
    my ($c) = @_;
    my $socket = delete $c->{socket} or return;
    $select->remove($socket);
    $waiting->remove($socket);
    delete $of{ fileno $socket };
    close $socket;
}

sub read_some
{
    my ($socket) = @_;
    my $c = $of{ fileno $socket };
    my $n = sysread $socket, $c->{in}, 65536, length $c->{in};
    return if !defined $n && $!{EAGAIN};
    return gone($c) if !$n;
    while ($c->{socket} && $c->{in} =~ /^(.*?)\r\n\r\n/s)
    {
        my ($head, $begin) = ($1, length($1) + 4);
        my ($first, @lines) = split /\r\n/, $head;
        my %headers = map { /^(.*?): *(.*)/ ? (lc $1 => $2) : () } @lines;
        my $length = $headers{'content-length'} || 0;
        last if length $c->{in} < $begin + $length;
        my ($method, $path) = split / /, $first;
        my $body = substr $c->{in}, $begin, $length;
        substr($c->{in}, 0, $begin + $length) = '';
        $c->{nth}++;
        answer($c, { connection => $c->{number}, nth => $c->{nth}, method => $method, path => $path,
                headers => \%headers, body => $body });
    }
}

sub write_some
{
    my ($socket) = @_;
    my $c = $of{ fileno $socket } or return;
    while (length $c->{out})
    {
        my $n = syswrite $socket, $c->{out};
        return gone($c) if !defined $n && !$!{EAGAIN};
        last if !$n;
        substr($c->{out}, 0, $n) = '';
    }
    if (length $c->{out}) { $waiting->add($socket) }
    elsif ($c->{last}) { gone($c) }
    else { $waiting->remove($socket) }
}

sub send_raw
{
    my ($c, $bytes, $last) = @_;
    return if !$c->{socket};
    $c->{out} .= $bytes;
    $c->{last} = 1 if $last;
    write_some($c->{socket});
}

sub reply
{
    my ($c, $status, $body, %extra) = @_;
    send_raw($c, "HTTP/1.1 $status Said\r\nContent-Length: " . length($body) . "\r\n" .
          join('', map { "$_: $extra{$_}\r\n" } keys %extra) . "\r\n$body");
}

sub answer
{
    my ($c, $request) = @_;
    my ($what, $argument) = $request->{path} =~ m{^/([a-z]+)(?:/(\d+))?} or return reply($c, 404, '');
    if ($what =~ /^(seen|connections)$/)
    {
        send_raw($c, "HTTP/1.0 200 OK\r\n\r\n" . encode_json($what eq 'seen' ? \@seen : [ $accepted - 1 ]), 1);
        $accepted--;    # this connection is not one of the client's
        return;
    }
    push @seen, $request;
    my $ok = '{"errcode":0,"errmsg":"ok"}';
    if    ($what eq 'ok')     { reply($c, 200, $ok) }
    elsif ($what eq 'reply')  { reply($c, 200, $request->{body}) }
    elsif ($what eq 'delay')  { push @timers, [ time + $argument / 1000, sub { reply($c, 200, $ok) } ] }
    elsif ($what eq 'status') { reply($c, $argument, $ok) }
    elsif ($what eq 'big')    { reply($c, 200, 'x' x $argument) }
    elsif ($what eq 'silent') { }
    elsif ($what eq 'close')  { gone($c) }
    elsif ($what eq 'reset')
    {
        setsockopt $c->{socket}, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0);
        gone($c);
    }
    elsif ($what eq 'half')    { send_raw($c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"errcode\":0", 1) }
    elsif ($what eq 'headers') { send_raw($c, "HTTP/1.1 200 OK\r\n" . "X-Filler: " . ('y' x 1000) . "\r\n" x 1); endless($c) }
    elsif ($what eq 'garbage') { send_raw($c, "SSH-2.0-OpenSSH_9.2\r\n", 1) }
    elsif ($what eq 'slow')    { send_raw($c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"); drip($c) }
    elsif ($what eq 'once')    { $c->{nth} == 1 ? reply($c, 200, $ok) : gone($c) }
    elsif ($what eq 'double')
    {
        reply($c, 200, $ok);
        push @timers, [ time + 0.02, sub { reply($c, 200, '{"errcode":45015,"errmsg":"nobody asked"}') } ];
    }
    elsif ($what eq 'redirect') { reply($c, 302, '', Location => '/ok') }
    else { reply($c, 404, '') }
}

sub endless
{
    my ($c) = @_;
    return if !$c->{socket};
    send_raw($c, join '', map { "X-$_: " . ('y' x 1000) . "\r\n" } 1 .. 50);
    push @timers, [ time + 0.005, sub { endless($c) } ];
}

sub drip
{
    my ($c) = @_;
    send_raw($c, 'x');
    push @timers, [ time + 1, sub { drip($c) } ];
}

1;
