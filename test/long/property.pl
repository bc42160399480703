# test/t/property.pl with more facts, and three times over.
use strict;
use warnings FATAL => 'all';
use FindBin;

$ENV{CRM_FACTS}  ||= 20_000;
$ENV{CRM_ROUNDS} ||= 3;
exec $^X, (map { "-I$_" } @INC), "$FindBin::RealBin/../t/property.pl" or die "perl: $!";
