#!/usr/bin/perl
# sandbox.pl - a server that plays WeChat's, and somebody's webhook, for the tests. See test/lib/CrmSandbox/README.md.
#
#   perl test/lib/sandbox.pl --port-file FILE --ledger FILE --account wx01:secret --webhook crm:secret
#
# --port N (0: any), --seed N (random faults and tokens; printed), --until-eof (ends when standard input does).
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use Getopt::Long;
use CrmSandbox::Server;

my %opt = (port => 0, account => [], webhook => [], seed => 1 + int rand 1_000_000);
GetOptions(\%opt, 'port=i', 'port-file=s', 'ledger=s', 'seed=i', 'account=s@', 'webhook=s@', 'until-eof') && !@ARGV
  or die "usage: sandbox.pl [--port N] [--port-file FILE] [--ledger FILE] [--seed N] [--account APPID:SECRET]...\n"
  . "                  [--webhook NAME:SECRET]... [--until-eof]\n";
$opt{"${_}s"} = [ map { [ split /:/, $_, 2 ] } @{ delete $opt{$_} } ] for qw(account webhook);

my $sandbox = CrmSandbox::Server->new(%opt);
$SIG{TERM} = $SIG{INT} = sub { $sandbox->{http}{stop} = 1 };
$| = 1;
print "http://127.0.0.1:$sandbox->{http}{port} seed $sandbox->{seed}\n";
if (defined(my $file = $opt{'port-file'}))
{
    open my $out, '>', "$file.new" or die "cannot write $file.new: $!\n";
    print $out "$sandbox->{http}{port}\n";
    close $out or die "cannot write $file.new: $!\n";
    rename "$file.new", $file or die "cannot write $file: $!\n";
}
$sandbox->{http}->run;
$sandbox->{ledger}->flush;
