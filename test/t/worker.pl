# The worker of a database: it comes with the extension, goes with it, and comes back
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = crm_node('worker', worker => 1, conf => "max_prepared_transactions = 5\nrestart_after_crash = on\n");

sub workers
{
    my ($database) = @_;
    return $node->safe_psql('postgres', qq{SELECT count(*) FROM pg_stat_activity
        WHERE backend_type = 'pg_crm worker' AND datname = '$database'});
}

# a condition on crm.worker_status becomes true
sub status_becomes
{
    my ($condition, $name, $database) = @_;
    ok($node->poll_query_until($database // 'shop', "SELECT $condition FROM crm.worker_status"), $name);
}

sub pid_of { return $node->safe_psql('shop', 'SELECT pid FROM crm.worker_status') }

# a line comes to the log behind an offset
my $offset = 0;
sub mark { $offset = -s $node->logfile }
sub logged
{
    my ($pattern, $name) = @_;
    $node->wait_for_log($pattern, $offset);
    pass("$name: logged");
    return;
}
sub times_logged
{
    my ($pattern) = @_;
    return scalar(() = slurp_file($node->logfile, $offset) =~ /$pattern/g);
}

# no extension, no worker
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'pg_crm launcher'}),
    'the launcher runs');
$node->safe_psql('postgres', 'CREATE DATABASE shop');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_crm worker' AND state IS NOT NULL}),
    '0', 'no extension, no worker');

# rolled back, or in a transaction that still runs
my $session = $node->background_psql('shop');
$session->query_safe('BEGIN; CREATE EXTENSION pg_crm');
is(workers('shop'), '0', 'no worker before the commit');
$session->query_safe('ROLLBACK');
is($node->safe_psql('shop', q{SELECT count(*) FROM pg_extension WHERE extname = 'pg_crm'}), '0', 'the extension was rolled back');
$session->quit;
is(times_logged('pg_crm worker of database'), 0, 'a rolled-back CREATE EXTENSION starts none');

# the extension without tables, then with them
mark();
$node->safe_psql('shop', 'CREATE EXTENSION pg_crm');
logged(qr/LOG:  pg_crm worker of database "shop" started/, 'a worker for a new extension');
is(workers('shop'), '1', 'it runs before install()');
$node->safe_psql('shop', 'SELECT crm.install()');
status_becomes(q{state = 'running' AND turns > 0 AND problem IS NULL AND pid IS NOT NULL AND age < '1 minute'}, 'and says so');
is($node->safe_psql('shop', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_crm worker'
    AND datname = 'shop' AND pid = (SELECT pid FROM crm.worker_status)}), '1', 'its process is in pg_stat_activity');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_crm worker'}), '1', 'no other database has one');

# woken by a commit, which install() asks for
sub turns { return $node->safe_psql('shop', 'SELECT turns FROM crm.worker_status') }
my $turns;

sub wakes_nobody
{
    my ($name, $sql, $undo) = @_;
    my $woken;
    # a turn for other reasons may come between
    for (1 .. 10)
    {
        $node->safe_psql('shop', $undo) if $woken && $undo;
        $turns = turns();
        $node->safe_psql('shop', $sql);
        $woken = turns() - $turns or last;
    }
    return is($woken, 0, "$name wakes nobody");
}
wakes_nobody('ROLLBACK', 'BEGIN; SELECT crm.install(); ROLLBACK');
$node->safe_psql('shop', 'SELECT crm.install()');
status_becomes("turns > $turns", 'a commit wakes the worker');
$turns = turns();
$node->safe_psql('shop', 'BEGIN; ' . 'SELECT crm.resume_dispatch(); ' x 50 . 'COMMIT');
status_becomes("turns > $turns", 'as one with many calls does');
cmp_ok(turns(), '<=', $turns + 2, 'once');
wakes_nobody('PREPARE TRANSACTION', q{BEGIN; SELECT crm.resume_dispatch(); PREPARE TRANSACTION 'one'}, q{ROLLBACK PREPARED 'one'});
$node->safe_psql('shop', q{COMMIT PREPARED 'one'});
status_becomes("turns > $turns", 'COMMIT PREPARED does');

# ends by a signal
my $pid = pid_of();
mark();
$node->safe_psql('shop', "SELECT pg_terminate_backend($pid)");
logged(qr/pg_crm worker of database "shop" stopped: it was told to by a signal/, 'a worker that was terminated');
is(times_logged('FATAL'), 0, 'ends in order');
status_becomes("state = 'running' AND pid <> $pid", 'is started again');
mark();
my $launcher = $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_crm launcher'});
$pid = pid_of();
$node->safe_psql('postgres', "SELECT pg_terminate_backend($launcher)");
status_becomes("state = 'running' AND pid = $pid", 'without the launcher the worker goes on');
logged(qr/pg_crm launcher started/, 'a launcher that was terminated comes back');
is(pid_of(), $pid, 'and finds the worker running');
mark();
$node->safe_psql('shop', "SELECT pg_terminate_backend($pid)");
status_becomes("state = 'running' AND pid <> $pid", 'which it starts again, too');

# settings
$pid = pid_of();
mark();
$node->append_conf('postgresql.conf', "pg_crm.worker = off\n");
$node->reload;
logged(qr/pg_crm worker of database "shop" stopped: pg_crm\.worker is off/, 'off for the server');
logged(qr/pg_crm starts no workers: pg_crm\.worker is off/, 'the launcher');
status_becomes(q{state = 'off' AND pid IS NULL AND problem = 'pg_crm.worker is off for the server'}, 'the status says why');
mark();
$node->append_conf('postgresql.conf', "pg_crm.worker = on\n");
$node->reload;
logged(qr/pg_crm starts workers: pg_crm\.worker is on/, 'on again');
status_becomes(q{state = 'running'}, 'the worker runs again');
mark();
$node->safe_psql('postgres', 'ALTER DATABASE shop SET pg_crm.worker = off');
logged(qr/pg_crm worker of database "shop" not started: pg_crm\.worker is off/, 'off for the database');
status_becomes(q{state = 'off' AND problem = 'pg_crm.worker is off for this database'}, 'the status says so');
$node->reload;
$node->safe_psql('postgres', 'BEGIN; ALTER DATABASE shop RESET pg_crm.worker; ROLLBACK');
status_becomes(q{state = 'off'}, 'a rolled-back change changes nothing');
is(times_logged('not started'), 1, 'that it is off is logged once');
$node->safe_psql('postgres', 'ALTER DATABASE shop RESET pg_crm.worker');
status_becomes(q{state = 'running'}, 'on for the database');
$pid = pid_of();
mark();
$node->safe_psql('postgres', q{ALTER DATABASE shop SET pg_crm.time_zone = 'UTC'});
logged(qr/pg_crm worker of database "shop" stopped: settings of the database changed/, 'another setting');
status_becomes("state = 'running' AND pid <> $pid", 'is read by a new process');
my ($rc, $out, $err) = $node->psql('shop', 'CREATE ROLE plain LOGIN; SET SESSION AUTHORIZATION plain; SET pg_crm.worker = off');
like($err, qr/permission denied to set parameter "pg_crm.worker"/, 'no plain role sets it');

# who may look
$node->safe_psql('shop', qq{CREATE ROLE $_ LOGIN; SELECT crm.grant_access('$_', '$_')}) for qw(app marketer analyst dispatcher associate);
is($node->safe_psql('shop', 'SELECT state FROM crm.worker_status', extra_params => [ '-U', $_ ]), 'running', "level $_ reads it")
  for qw(app marketer analyst dispatcher);
($rc, $out, $err) = $node->psql('shop', 'SELECT state FROM crm.worker_status', extra_params => [ '-U', 'associate' ]);
like($err, qr/permission denied/, 'level associate does not');

# restarts of the server
for my $mode (qw(fast immediate))
{
    $node->stop($mode);
    $node->start;
    status_becomes(q{state = 'running' AND failures = 0}, "after a stop $mode");
}
$pid = pid_of();
mark();
kill 'KILL', $pid;
logged(qr/all server processes terminated; reinitializing/, 'a worker killed');
$node->poll_query_until('postgres', 'SELECT true');
status_becomes("state = 'running' AND pid <> $pid", 'the server begins anew, with a worker');
$node->safe_psql('shop', 'SELECT crm.identify(\'customer\', \'c1\')');
is($node->safe_psql('shop', 'SELECT count(*) FROM crm.verify()'), '0', 'all is sound');

# a worker that cannot connect, as nobody can
$session = $node->background_psql('shop');
$session->query_safe('SELECT 1');
$pid = pid_of();
mark();
$node->safe_psql('postgres', q{UPDATE pg_database SET datctype = 'no such' WHERE datname = 'shop'});
$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
logged(qr/WARNING:  pg_crm worker of database "shop" ended by an error.*DETAIL:  Failures in a row: 2\. It is started again in 2 s\./s, 'a worker that fails twice');
like($session->query_safe('SELECT state, pid, failures > 1, problem FROM crm.worker_status'),
    qr/^(failed\|\|t\|it ended by an error, failures in a row: \d|starting\|)/, 'the status says so');
cmp_ok(times_logged('ended by an error'), '<=', 3, 'more and more slowly');
$node->safe_psql('postgres', q{UPDATE pg_database SET datctype = datcollate WHERE datname = 'shop'});
status_becomes(q{state = 'running' AND pid IS NOT NULL AND problem IS NULL}, 'it comes back by itself');
$session->quit;

# the extension goes, in every way
mark();
$node->safe_psql('shop', 'BEGIN; SELECT crm.uninstall(); DROP EXTENSION pg_crm; ROLLBACK');
status_becomes(q{state = 'running'}, 'a rolled-back DROP EXTENSION');
$node->safe_psql('shop', 'BEGIN; SAVEPOINT a; SELECT crm.uninstall(); DROP EXTENSION pg_crm; ROLLBACK TO a; COMMIT');
status_becomes(q{state = 'running'}, 'one in a subtransaction');
is(times_logged('stopped'), 0, 'does not stop the worker');
$node->safe_psql('shop', 'SELECT crm.uninstall(); DROP EXTENSION pg_crm');
logged(qr/pg_crm worker of database "shop" stopped: extension pg_crm is gone/, 'DROP EXTENSION');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pg_crm worker'}), 'the worker is gone');
for (['DROP EXTENSION … CASCADE', 'DROP EXTENSION pg_crm CASCADE; DROP SCHEMA crm CASCADE'],
    ['DROP OWNED', 'DROP OWNED BY maker CASCADE'])
{
    my ($name, $sql) = @$_;
    $node->safe_psql('shop', 'DROP SCHEMA IF EXISTS crm CASCADE');
    mark();
    $node->safe_psql('shop', $name eq 'DROP OWNED' ? 'CREATE ROLE maker SUPERUSER; SET ROLE maker; CREATE EXTENSION pg_crm' :
        'CREATE EXTENSION pg_crm; SELECT crm.install()');
    logged(qr/pg_crm worker of database "shop" started/, "$name: started");
    $node->safe_psql('shop', $sql);
    logged(qr/pg_crm worker of database "shop" stopped: extension pg_crm is gone/, $name);
}

# idle, a worker does nothing: ticks of 10 ms in /proc
SKIP:
{
    skip 'no /proc', 1 unless -r "/proc/$$/stat";
    crm_database($node, 'idle');
    status_becomes(q{state = 'running'}, 'a worker to watch', 'idle');
    my $watched = $node->safe_psql('idle', 'SELECT pid FROM crm.worker_status');
    my $ticks = sub { my @f = split ' ', slurp_file("/proc/$watched/stat") =~ s/^.*\) //sr; return $f[11] + $f[12] };
    my $before = $ticks->();
    $node->safe_psql('idle', 'SELECT pg_sleep(3)');
    cmp_ok($ticks->() - $before, '<=', 1, 'an idle worker takes no time');
}

# not preloaded
my $bare = crm_node('bare', preload => 0);
crm_database($bare, 'shop');
is($bare->safe_psql('shop', 'SELECT state, pid, problem FROM crm.worker_status'),
    'not_preloaded||pg_crm is not in shared_preload_libraries', 'not preloaded, the status says so');
is($bare->safe_psql('shop', 'SELECT crm.install(); SELECT crm.resume_dispatch(); SELECT 1'), "\n\n1", 'and waking does nothing');
$bare->stop;

$node->stop;
done_testing();
