# The program of test/t/faults.pl with 10 000 sends.
use strict;
use warnings FATAL => 'all';
use FindBin;

$ENV{CRM_SENDS} ||= 10_000;
exec $^X, (map { "-I$_" } @INC), "$FindBin::RealBin/../t/faults.pl" or die "perl: $!";
