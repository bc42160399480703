# CrmSandbox::Ledger - what the sandbox has received, in a file of JSON lines.
#
# A line is there before the first byte of its reply is sent. How the reply ended comes as a line of its
# own, {"seq":N,"replied":"whole"|"cut"|"none","t_replied":µs}; CrmSandbox::ledger() joins the two.
package CrmSandbox::Ledger;

use strict;
use warnings;
no warnings 'portable';    # 64 bits
use CrmSandbox::Json;
use Fcntl qw(:seek);
use File::Temp ();
use Time::HiRes ();

my @how = qw(pending whole cut none);
my %how = map { $how[$_] => $_ } 0 .. $#how;

sub new
{
    my ($class, $file) = @_;
    my $self = bless { seq => 0 }, $class;
    if (defined $file)
    {
        open $self->{out}, '>>:raw', $file or die "cannot write $file: $!\n";
        open $self->{in}, '<:raw', $file or die "cannot read $file: $!\n";
    }
    else
    {
        $self->{temp} = File::Temp->new;
        open $self->{out}, '>>:raw', "$self->{temp}" or die "cannot write: $!\n";
        open $self->{in}, '<:raw', "$self->{temp}" or die "cannot read: $!\n";
    }
    $self->clear;
    return $self;
}

sub clear
{
    my ($self) = @_;
    truncate $self->{out}, 0;
    @$self{qw(first size ends)} = ($self->{seq} + 1, 0, '');
    # where the line of each seq begins, how its reply ended, and which are about whom
    @$self{qw(offset state of)} = ('', '', {});
    $self->{counts} = {};
}

# add(ROW): its seq
sub add
{
    my ($self, $row) = @_;
    my $seq = ++$self->{seq};
    my ($body, $reply) = @$row{qw(body reply)};
    if (!defined $body) { $body = '' }
    elsif ($row->{is_json})
    {
        $body =~ tr/\r\n/ /;
        $body = qq(,"body":$body);
    }
    else { $body = ',"body_text":' . json_quote(length $body > 16_384 ? substr $body, 0, 16_384 : $body) }
    if (!defined $reply) { $reply = '' }
    elsif ($row->{reply_is_json}) { $reply = qq(,"reply":$reply) }
    else { $reply = ',"reply_text":' . json_quote(length $reply > 1024 ? substr $reply, 0, 1024 : $reply) }
    my $line = sprintf
      '{"seq":%d,"t":%.0f,"conn":%d,"nth":%d,"method":"%s","path":%s,"api":%s,"account":%s,"touser":%s,"key":%s,'
      . '"received":%s,"delivered":%s,"duplicate":%s,"fault":%s,"status":%s,"errcode":%s%s%s}',
      $seq, $row->{t} * 1e6, $row->{conn}, $row->{nth}, $row->{method}, json_quote($row->{path}), json_quote($row->{api}),
      json_quote($row->{account}), json_quote($row->{touser}), json_quote($row->{key}),
      (map { $_ ? 'true' : 'false' } @$row{qw(received delivered duplicate)}), json_quote($row->{fault}),
      (map { $_ // 'null' } @$row{qw(status errcode)}), $body, $reply;
    vec($self->{offset}, $seq - $self->{first}, 64) = $self->{size} + length $self->{ends};
    push @{ $self->{of}{ $row->{touser} } }, $seq if defined $row->{touser};

    my $count = $self->{counts}{ $row->{api} } ||=
      { requests => 0, received => 0, delivered => 0, duplicates => 0, errcodes => {}, faults => {}, replied => {} };
    $count->{requests}++;
    $count->{received}++   if $row->{received};
    $count->{delivered}++  if $row->{delivered};
    $count->{duplicates}++ if $row->{duplicate};
    $count->{errcodes}{ $row->{errcode} }++ if defined $row->{errcode};
    $count->{faults}{ $row->{fault} }++     if defined $row->{fault};
    $self->{api}{$seq} = $count;
    $self->write("$line\n");
    return $seq;
}

sub write
{
    my ($self, $text) = @_;
    $text = $self->{ends} . $text;
    $self->{ends} = '';
    my $n = syswrite $self->{out}, $text;
    die "cannot write the ledger: $!\n" if !defined $n || $n != length $text;
    $self->{size} += $n;
}

# ended(SEQ, HOW): the reply has been sent, or not
sub ended
{
    my ($self, $seq, $how) = @_;
    my $count = delete $self->{api}{$seq};
    $count->{replied}{$how}++ if $count;
    return if $seq < $self->{first};
    vec($self->{state}, $seq - $self->{first}, 8) = $how{$how};
    $self->{ends} .= sprintf qq({"seq":%d,"replied":"%s","t_replied":%.0f}\n), $seq, $how, Time::HiRes::time() * 1e6;
    $self->flush if length $self->{ends} > 65_536;
}

sub flush
{
    my ($self) = @_;
    $self->write('') if length $self->{ends};
}

# rows(FILTER): lines, each with how its reply ended; FILTER is a hash of touser, api, account, key, since, limit
sub rows
{
    my ($self, $filter) = @_;
    $self->flush;
    my $since = $filter->{since} // 0;
    my $limit = $filter->{limit} // 1_000_000;
    my @test = grep { defined $filter->{$_} } qw(api account key path touser);
    my @seqs = defined $filter->{touser} ? @{ $self->{of}{ $filter->{touser} } || [] } : $self->{first} .. $self->{seq};
    my @rows;
    for my $seq (@seqs)
    {
        last if @rows >= $limit;
        next if $seq <= $since || $seq < $self->{first};
        seek $self->{in}, vec($self->{offset}, $seq - $self->{first}, 64), SEEK_SET;
        my $line = readline $self->{in};
        my $head = substr $line, 0, index $line, ',"received":';
        next if grep { index($head, qq("$_":) . json_quote($filter->{$_})) < 0 } @test;
        $line =~ s/\}\n\z//;
        my $state = $how[ vec($self->{state}, $seq - $self->{first}, 8) ];
        push @rows, qq($line,"replied":"$state"});
    }
    return @rows;
}

1;
