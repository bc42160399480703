# What takes a minute of the worker: the alarm while it is down, and what an idle one costs
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = crm_node('long_worker', worker => 1);
crm_database($node, 'shop');
ok($node->poll_query_until('shop', q{SELECT state = 'running' FROM crm.worker_status}), 'a worker');
my $pid = $node->safe_psql('shop', 'SELECT pid FROM crm.worker_status');

# fields 14 and 15 of stat: user and system time, in ticks of 10 ms
my $ticks = sub { my @f = split ' ', slurp_file("/proc/$pid/stat") =~ s/^.*\) //sr; return $f[11] + $f[12] };
my $before = $ticks->();
$node->safe_psql('postgres', 'SELECT pg_sleep(60)');
cmp_ok($ticks->() - $before, '<=', 6, 'an idle worker uses at most 60 ms in 60 s');
is($node->safe_psql('shop', 'SELECT pid FROM crm.worker_status'), $pid, 'and is the same process');

# meant to be down, it is no alarm
$node->append_conf('postgresql.conf', "pg_crm.worker = off\n");
$node->reload;
$node->safe_psql('postgres', 'SELECT pg_sleep(62)');
$node->append_conf('postgresql.conf', "pg_crm.worker = on\n");
$node->reload;
ok($node->poll_query_until('shop', q{SELECT state = 'running' FROM crm.worker_status}), 'off and on again');
is(scalar(() = slurp_file($node->logfile) =~ /for a minute/g), 0, 'without an alarm');
$pid = $node->safe_psql('shop', 'SELECT pid FROM crm.worker_status');

$node->safe_psql('postgres', q{UPDATE pg_database SET datctype = 'no such' WHERE datname = 'shop'});
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
$node->wait_for_log(qr/WARNING:  pg_crm has had no worker in database "shop" for a minute\n.*DETAIL:  It ends by an error each time/);
pass('the alarm after a minute');
$node->safe_psql('postgres', q{UPDATE pg_database SET datctype = datcollate WHERE datname = 'shop'});
$node->wait_for_log(qr/LOG:  pg_crm has a worker in database "shop" again/);
pass('and its end');
is(scalar(() = slurp_file($node->logfile) =~ /for a minute/g), 1, 'once');
$node->stop;
done_testing();
