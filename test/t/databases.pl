# Commands that need a database to themselves, and workers in several databases
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = crm_node('databases', worker => 1, conf => "restart_after_crash = on\n");

sub running
{
    my ($database, $name, $in) = @_;
    ok(($in // $node)->poll_query_until($database, q{SELECT state = 'running' FROM crm.worker_status}), $name);
}
sub pid_of { return $node->safe_psql($_[0], 'SELECT pid FROM crm.worker_status') }

my $offset = 0;
sub mark { $offset = -s $_[0]->logfile; return }
sub logged
{
    my ($in, $pattern, $name) = @_;
    $in->wait_for_log($pattern, $offset);
    pass("$name: logged");
    return;
}
sub times_logged
{
    my ($in, $pattern) = @_;
    return scalar(() = slurp_file($in->logfile, $offset) =~ /$pattern/g);
}

# statement, done well before the server gives up on sessions of others (5 s)
sub quick
{
    my ($sql, $name) = @_;
    my $begin = time;
    my ($rc, $out, $err) = $node->psql('postgres', $sql);
    is("$rc$err", '0', $name);
    cmp_ok(time - $begin, '<', 4, "$name: soon");
    return;
}

crm_database($node, $_) for qw(one two);
running($_, "a worker in $_") for qw(one two);
isnt(pid_of('one'), pid_of('two'), 'each has its own');

# DROP DATABASE
mark($node);
quick('DROP DATABASE two', 'DROP DATABASE');
logged($node, qr/pg_crm worker of database "two" stopped: a command needs the database to itself/, 'its worker');
running('one', 'the other one goes on');
crm_database($node, 'two');
running('two', 'a database of that name again');
mark($node);
my ($rc, $out, $err) = $node->psql('postgres', 'CREATE TABLE t (); BEGIN; DROP DATABASE two');
like($err, qr/cannot run inside a transaction block/, 'a DROP DATABASE that fails');
running('two', 'brings the worker back');
my $session = $node->background_psql('two');
$session->query_safe('SELECT 1');
($rc, $out, $err) = $node->psql('postgres', 'DROP DATABASE two');
like($err, qr/database "two" is being accessed by other users/, 'a DROP DATABASE that others are in the way of');
running('two', 'brings it back, too');
# a session that is ended while it holds the database
my $dropper = $node->background_psql('postgres', on_error_stop => 0);
my $dropper_pid = $dropper->query_safe('SELECT pg_backend_pid()');
$dropper->query_until(qr/begun/, "\\echo begun\nDROP DATABASE two;\n");
my $held = '';
for (my $until = time + 5; $held !~ /held/ && time < $until;)
{
    # a new session would wait for the command
    $held = $session->query_safe('SELECT state, problem FROM crm.worker_status');
}
is($held, 'held|a command that needs the database to itself is running', 'meanwhile the status says so');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($dropper_pid)");
running('two', 'so does one whose session is terminated');
$session->quit;
eval { $dropper->quit }; # its server process is gone
my $pid = pid_of('two');
$node->safe_psql('postgres', 'CREATE ROLE plain LOGIN');
($rc, $out, $err) = $node->psql('postgres', 'DROP DATABASE two', extra_params => [ '-U', 'plain' ]);
like($err, qr/must be owner/, 'who may not drop it');
is(pid_of('two'), $pid, 'does not stop its worker');
($rc, $out, $err) = $node->psql('postgres', 'DROP DATABASE nowhere');
like($err, qr/database "nowhere" does not exist/, 'an unknown database is not of our business');
quick('DROP DATABASE two WITH (FORCE)', 'DROP DATABASE WITH (FORCE)');

# copies, renames, moves
mark($node);
quick('CREATE DATABASE copy TEMPLATE one', 'CREATE DATABASE … TEMPLATE');
running('one', 'the template has its worker again');
running('copy', 'the copy has one');
is($node->safe_psql('copy', 'SELECT crm.dispatch_allowed()'), 'f', 'which may not speak to customers');
quick('ALTER DATABASE copy RENAME TO renamed', 'ALTER DATABASE RENAME');
running('renamed', 'a worker after the renaming');
logged($node, qr/pg_crm worker of database "renamed" started/, 'its new name');
is($node->safe_psql('renamed', 'SELECT database FROM crm.worker_status'), 'renamed', 'the status has it');
my $folder = PostgreSQL::Test::Utils::tempdir();
quick("CREATE TABLESPACE elsewhere LOCATION '$folder'", 'a tablespace');
quick('ALTER DATABASE renamed SET TABLESPACE elsewhere', 'ALTER DATABASE SET TABLESPACE');
running('renamed', 'a worker after the move');
quick('CREATE DATABASE brief', 'a database that is dropped');
quick('DROP DATABASE brief', 'before it was looked at');

# templates, and databases without connections
mark($node);
$node->safe_psql('postgres', 'ALTER DATABASE renamed ALLOW_CONNECTIONS false');
logged($node, qr/pg_crm worker of database "renamed" stopped: the database is a template or allows no connections/, 'no connections');
$node->safe_psql('postgres', 'ALTER DATABASE renamed ALLOW_CONNECTIONS true');
running('renamed', 'connections again');
mark($node);
$node->safe_psql('postgres', 'ALTER DATABASE renamed IS_TEMPLATE true');
logged($node, qr/pg_crm worker of database "renamed" stopped: the database is a template/, 'a template');
$node->safe_psql('postgres', 'ALTER DATABASE renamed IS_TEMPLATE false');
running('renamed', 'no template any more');
is(times_logged($node, 'FATAL'), 0, 'no worker ended by an error');
$node->stop;

# more databases than pg_crm.max_databases
$node->append_conf('postgresql.conf', "pg_crm.max_databases = 1\n");
mark($node);
$node->start;
logged($node, qr/WARNING:  pg_crm has no room to look at database .*DETAIL:  pg_crm\.max_databases is 1\..*HINT:  Raise pg_crm\.max_databases/s, 'too many databases');
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'pg_crm worker'}), 'one has a worker');
my @states = sort map { $node->safe_psql($_, 'SELECT state FROM crm.worker_status') } qw(one renamed);
is_deeply(\@states, [ 'missing', 'running' ], 'the other one says that it is missing');
$node->stop;

# more databases than may be looked at at once
$node->append_conf('postgresql.conf', "pg_crm.max_databases = 64\nmax_worker_processes = 12\n");
$node->start;
crm_database($node, "many$_") for 1 .. 7;
mark($node);
$node->restart;
running("many$_", "many$_ has a worker") for 1 .. 7;
is(times_logged($node, 'WARNING:  pg_crm (found no|has no room|has had no worker)'), 0, 'nothing was short of anything');
$node->stop;

# no free worker slot: one for the launcher, one for a worker
my $small = crm_node('small', worker => 1, conf => "max_worker_processes = 2\nmax_logical_replication_workers = 0\n");
mark($small);
crm_database($small, 'one');
running('one', 'the only slot', $small);
crm_database($small, 'two');
logged($small, qr/WARNING:  pg_crm found no free worker slot for database "two".*DETAIL:  All 2 slots.*HINT:  Raise max_worker_processes/s, 'no free slot');
ok($small->poll_query_until('two', q{SELECT state = 'no_slot' AND problem LIKE 'no worker slot is free%' FROM crm.worker_status}), 'the status says so');
$small->safe_psql('postgres', 'DROP DATABASE one');
running('two', 'a slot that was freed is used', $small);
logged($small, qr/LOG:  pg_crm found a free worker slot again, for database "two"/, 'that');
is(times_logged($small, 'no free worker slot'), 1, 'the lack was logged once');
$small->stop;

# a standby, and its promotion
my $primary = crm_node('primary', worker => 1, start => 0, conf => "wal_level = replica\nmax_wal_senders = 5\n");
append_to_file($primary->data_dir . '/pg_hba.conf', "local replication all trust\n");
$primary->start;
crm_database($primary, 'shop');
running('shop', 'a worker of the primary', $primary);
$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby, 'replay');
is($standby->safe_psql('shop', q{SELECT state, problem FROM crm.worker_status}),
    'standby|the server is a standby: its worker starts at the promotion', 'a standby has no worker');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pg_crm%'}), '0', 'nor a launcher');
$primary->stop;
$standby->promote;
running('shop', 'after its promotion it has', $standby);
$standby->stop;

done_testing();
