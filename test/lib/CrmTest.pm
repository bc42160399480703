# CrmTest - servers with pg_crm for TAP tests in test/t.
#
#   use CrmTest;
#   my $node = crm_node('name');                     # started; preloaded
#   my $node = crm_node('name', preload => 0, conf => "work_mem = '1MB'\n", start => 0);
#   my $node = crm_node('name', worker => 1);        # with workers, which are off otherwise
#   my $db   = crm_database($node, 'shop');          # CREATE EXTENSION and crm.install()
#   my ($rc, $out, $err) = $node->psql('shop', 'SELECT 1');
#
# Where a test needs an extension directory that it may write to (a next version):
#
#   my $dir = crm_stage();                           # a private copy of the staged extension
#   my $node = crm_node('name', stage => $dir);
#   crm_next_version($dir, '0.2.0', 'CREATE FUNCTION ...');  # pg_crm--<now>--0.2.0.sql
#
# What only the worker calls, as SQL functions of a module of its own (test/module):
#
#   crm_rooms($node, 'postgres');                    # builds it and makes its functions there
package CrmTest;

use strict;
use warnings;

use Exporter 'import';
use File::Basename;
use File::Find;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(crm_node crm_database crm_stage crm_extension_dir crm_next_version crm_version
    crm_rooms);

my $stages = 0;

sub crm_node
{
    my ($name, %opt) = @_;
    my $node = PostgreSQL::Test::Cluster->new($name);
    $node->init(extra => [ '--encoding=UTF8', '--no-locale' ]);
    $node->append_conf('postgresql.conf', "jit = off\ntimezone = 'UTC'\nlc_messages = 'C'\n");
    if (my $stage = $opt{stage})
    {
        my $conf = slurp_file("$ENV{RUN}/extension.conf");
        $conf =~ s/\Q$ENV{RUN}\E\/stage/$stage/g;
        $node->append_conf('postgresql.conf', $conf);
    }
    $node->append_conf('postgresql.conf', 'pg_crm.worker = ' . ($opt{worker} ? "on\n" : "off\n"));
    $node->append_conf('postgresql.conf', "shared_preload_libraries = ''\n")
      if exists $opt{preload} && !$opt{preload};
    $node->append_conf('postgresql.conf', $opt{conf}) if $opt{conf};
    $node->start unless exists $opt{start} && !$opt{start};
    return $node;
}

sub crm_database
{
    my ($node, $name) = @_;
    $node->safe_psql('postgres', "CREATE DATABASE $name");
    $node->safe_psql($name, 'CREATE EXTENSION pg_crm; SELECT crm.install();');
    return $name;
}

sub crm_stage
{
    my $to = sprintf '%s/stage%d', PostgreSQL::Test::Utils::tempdir(), ++$stages;
    PostgreSQL::Test::RecursiveCopy::copypath("$ENV{RUN}/stage", $to);
    return $to;
}

# the folder that holds the control file and the scripts
sub crm_extension_dir
{
    my ($stage) = @_;
    my $dir;
    find(sub { $dir = $File::Find::dir if $_ eq 'pg_crm.control' }, $stage);
    return $dir;
}

sub crm_version
{
    my ($stage) = @_;
    my $dir = crm_extension_dir($stage || "$ENV{RUN}/stage");
    slurp_file("$dir/pg_crm.control") =~ /^default_version = '(.*)'/m or die 'no version';
    return $1;
}

sub crm_next_version
{
    my ($stage, $version, $sql) = @_;
    my $dir  = crm_extension_dir($stage);
    my $file = sprintf '%s/pg_crm--%s--%s.sql', $dir, crm_version($stage), $version;
    append_to_file($file, $sql);
    return $file;
}

sub crm_rooms
{
    my ($node, $database) = @_;
    my $module = PostgreSQL::Test::Utils::tempdir() . '/rooms.so';
    my $config = $ENV{PG_CONFIG} || 'pg_config';
    chomp(my $include = `$config --includedir-server`);
    my @curl = map { split ' ' } `curl-config --cflags`, `curl-config --libs`;
    # -Bsymbolic: a preloaded pg_crm does not lend it its functions
    system($ENV{CC} || 'cc', qw(-shared -fPIC -O2 -g -Wall -Werror -D_GNU_SOURCE -fwrapv),
        '-fno-strict-aliasing', '-Wl,-Bsymbolic', '-DPG_CRM_VERSION="' . crm_version() . '"', '-Isrc',
        "-I$include", '-o', $module, glob('test/module/*.c src/dispatch/http*.c src/outbox/render.c src/channels/*.c src/rules/*.c'),
        (map { "src/base/$_.c" } qw(channel clock db guc rights row table target target_find watch)), @curl) == 0
      or die 'the module of the tests cannot be built';
    my $sql = slurp_file('test/module/rooms.sql');
    $sql =~ s/MODULE_PATH/$module/g;
    $node->safe_psql($database, $sql);
}

1;
