#!/usr/bin/perl
# harness.pl FILE... - run test files through one.sh, several at once, and sum up.
use strict;
use warnings;
use File::Basename;
use TAP::Harness;

my $one = dirname(__FILE__) . '/one.sh';
my $harness = TAP::Harness->new(
    {
        exec      => sub { [ 'bash', $one, $_[1] ] },
        jobs      => $ENV{JOBS} || 1,
        timer     => 1,
        failures  => 1,
        verbosity => $ENV{VERBOSE} ? 1 : 0,
        color     => 0,
    });
my $all = $harness->runtests(@ARGV);

# a file that died before its first assertion counts as one failure
my %failed = map { $_ => 1 } $all->failed, ($all->can('parse_errors') ? $all->parse_errors : ()),
    $all->exit, $all->wait;
my $bad = 0;
for my $file (keys %failed)
{
    my ($parser) = $all->parsers($file);
    $bad += (scalar($parser->failed) || 1);
}
printf "%d passed, %d failed\n", scalar($all->passed), $bad;
exit($bad || !$all->all_passed ? 1 : 0);
