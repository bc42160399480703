# CrmSandbox::Faults - what goes wrong, and when: the next N requests of an API, or some at random.
package CrmSandbox::Faults;

use strict;
use warnings;

# kind => does the message count as received?
our %kinds = (
    reset_before_body  => 0,    # the header is read, then RST
    reset_before_reply => 1,    # all is read and done, then RST
    half_reply         => 1,    # done; half of the reply, then closed
    garbage            => 1,    # done; the reply is not JSON
    silent             => 1,    # done; the reply comes after "seconds" (30)
    slow_drip          => 1,    # done; the reply takes "seconds" (3), some bytes at a time
    huge               => 1,    # done; the reply has "bytes" (5 MB)
    http_500           => 0,
    http_502           => 0,
    http_503           => 0,
    close_reused       => 0,    # a request other than the first of its connection is read, then closed
    errcode            => 0,    # "errcode": nothing else looked at; also written "errcode_45009"
);

sub new
{
    my ($class) = @_;
    my $self = bless {}, $class;
    $self->clear;
    return $self;
}

sub clear
{
    my ($self) = @_;
    @$self{qw(next random some)} = ([], [], 0);
}

# a fault as it was asked for, complete; dies with what is wrong
sub checked
{
    my ($asked) = @_;
    my $fault = { api => '*', %$asked };
    my $kind = delete $fault->{fault} // die "fault is missing\n";
    if ($kind =~ /\A(?:errcode_)?(-?\d+)\z/) { ($kind, $fault->{errcode}) = ('errcode', $1) }
    die "no fault is called $kind: " . join(', ', sort keys %kinds) . "\n" if !exists $kinds{$kind};
    die "errcode is missing\n" if $kind eq 'errcode' && !defined $fault->{errcode};
    $fault->{kind} = $kind;
    $fault->{name} = $kind eq 'errcode' ? "errcode_$fault->{errcode}" : $kind;
    $fault->{received} = $fault->{received} // $kinds{$kind} ? 1 : 0;
    return $fault;
}

# next_times(FAULT): {"api", "fault", "times", "seconds", "bytes", "errcode", "received"}
sub next_times
{
    my ($self, $asked) = @_;
    my $fault = checked($asked);
    $fault->{times} //= 1;
    push @{ $self->{next} }, $fault;
    $self->{some} = 1;
}

# at_random(FAULT): as next_times, with "probability"
sub at_random
{
    my ($self, $asked) = @_;
    my $fault = checked($asked);
    die "probability is missing\n" if !defined $fault->{probability};
    @{ $self->{random} } = grep { "$_->{api} $_->{name}" ne "$fault->{api} $fault->{name}" } @{ $self->{random} };
    push @{ $self->{random} }, $fault if $fault->{probability} > 0;
    $self->{some} = @{ $self->{random} } || @{ $self->{next} };
}

sub matches
{
    my ($fault, $api) = @_;
    return $fault->{api} eq '*' || $fault->{api} eq $api || index($api, "$fault->{api}/") == 0;
}

# pick(API, NTH): what goes wrong with the NTH request of a connection, or undef
sub pick
{
    my ($self, $api, $nth) = @_;
    return if !$self->{some};
    my $next = $self->{next};
    for my $i (0 .. $#$next)
    {
        my $fault = $next->[$i];
        next if !matches($fault, $api) || ($fault->{kind} eq 'close_reused' && $nth < 2);
        splice @$next, $i, 1 if --$fault->{times} <= 0;
        $self->{some} = @{ $self->{random} } || @$next;
        return $fault;
    }
    for my $fault (@{ $self->{random} })
    {
        next if !matches($fault, $api) || ($fault->{kind} eq 'close_reused' && $nth < 2);
        return $fault if rand() < $fault->{probability};
    }
    return;
}

1;
