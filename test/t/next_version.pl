# A next version: its library runs on the tables of this one, while orders come in, before and
# after ALTER EXTENSION UPDATE and crm.migrate().
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use IPC::Run;
use POSIX ();
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use Test::More;

my $now    = crm_version();
my $next   = '99.0.0';
my $stage  = crm_stage();
my $config = $ENV{PG_CONFIG} || 'pg_config';
my $tree   = PostgreSQL::Test::Utils::tempdir() . '/next';
my @make   = ('make', '-s', '-C', $tree, 'with_llvm=no', "PG_CONFIG=$config");

sub edit
{
    my ($file, $change) = @_;
    my $text = slurp_file("$tree/$file");
    local $_ = $text;
    $change->();
    isnt($_, $text, "$file of the next version");
    open my $out, '>', "$tree/$file" or die $!;
    print $out $_;
    close $out;
}

# one more column of a table that every order writes
my $step = 'ALTER TABLE crm.profile_counter ADD COLUMN next_version integer NOT NULL DEFAULT 0';
PostgreSQL::Test::RecursiveCopy::copypath("$ENV{RUN}/tree", $tree);
edit('pg_crm.control', sub { s/^default_version = '.*'/default_version = '$next'/m });
edit('sql/extension/base_install.sql', sub { s/\(ARRAY\[0, 0, 0\], ''\)/$& , (ARRAY[99, 0, 0], '$step')/ });
edit('sql/install/profile.sql', sub {
    s/(CREATE TABLE IF NOT EXISTS crm\.profile_counter \(.*?stage_manual boolean NOT NULL DEFAULT false)/$1,\n\tnext_version integer NOT NULL DEFAULT 0/s;
    $_ .= "COMMENT ON COLUMN crm.profile_counter.next_version IS 'Of the next version.';\n";
});
PostgreSQL::Test::Utils::system_or_bail(@make, '-j2', 'all');

# its update script: what changed in functions, made anew
my $script = slurp_file("$tree/sql/pg_crm--$next.sql");
my ($migration) = $script =~ /(CREATE FUNCTION crm\.migration_script.*?\n\$\$;)/s or die;
my ($install)   = $script =~ /(CREATE FUNCTION crm\.install_script.*?\$install\$ \$script\$;)/s or die;
append_to_file("$tree/sql/pg_crm--$now--$next.sql", join "\n", map { s/^CREATE FUNCTION/CREATE OR REPLACE FUNCTION/r } $migration, $install);

# not preloaded, so that a new session finds the new library without a restart
my $node = crm_node('next', stage => $stage, preload => 0);
crm_database($node, 'shop');
$node->safe_psql('shop', q{SELECT crm.identify('customer', n::text) FROM generate_series(1, 50) AS n});
$node->safe_psql('shop', q{SELECT crm.purchase(n, 20, external_ref => 'first') FROM generate_series(1, 50) AS n});
is($node->safe_psql('shop', 'SELECT crm.version()'), $now, 'this version to begin with');

# sessions that stay, with the library they began with, and sessions that come and go
my $work = PostgreSQL::Test::Utils::tempdir() . '/work.sql';
append_to_file($work, q{\set contact random(1, 50)
\set amount random(1, 90)
SELECT crm.purchase(:contact, :amount);
INSERT INTO crm.transaction (contact_id, amount) VALUES (:contact, :amount);
INSERT INTO crm.transaction (contact_id, amount, occurred_at) SELECT n, 1, '2024-01-01' FROM generate_series(1, 3) AS n WHERE :contact < 5;
SELECT crm.track(:contact, 'cart');
INSERT INTO crm.event (contact_id, kind) VALUES (:contact, 'form');
BEGIN;
SELECT crm.identify('customer', 'r' || (random() * 1000)::integer);
SELECT crm.purchase(:contact, :amount);
END;
\sleep 10 ms
});
my @loads = map {
    my ($out, $err) = ('', '');
    +{ out => \$out, err => \$err, run => IPC::Run::start([ 'pgbench', '-n', @$_, '-T', '900', '-f', $work, $node->connstr('shop') ], '>', \$out, '2>', \$err) };
} [ '-c', '3', '-M', 'prepared' ], [ '-c', '2', '-C' ];

sub sound
{
    my ($when) = @_;
    is($node->safe_psql('shop', 'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM crm.verify(); COMMIT'), '', "sound $when");
    my $orders = $node->safe_psql('shop', 'SELECT count(*) FROM crm.transaction');
    ok($node->poll_query_until('shop', "SELECT count(*) > $orders + 50 FROM crm.transaction"), "orders come in $when");
}
sub columns
{
    return $node->safe_psql($_[0], q{SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = 'crm.profile'::regclass AND attnum > 0});
}

sound('with this version');
my $columns = columns('shop');

# the library is there and whole at any moment, for whoever connects just then
chomp(my $lib = `$config --pkglibdir`);
my %sizes = map { (-s $_) => 1 } "$stage$lib/pg_crm.so", "$tree/pg_crm.so";
my %found;
for (1 .. 5)
{
    my $child = fork // die $!;
    exec @make, 'install', "DESTDIR=$stage" or POSIX::_exit(127) if $child == 0;
    $found{ -s "$stage$lib/pg_crm.so" // 'nothing' }++ until waitpid($child, POSIX::WNOHANG);
    is($?, 0, 'make install');
}
delete @found{ keys %sizes };
is(join(' ', %found), '', 'the library changes in one step');
is($node->safe_psql('shop', 'SELECT crm.version()'), $next, 'the next library is there');
sound('with the next library on functions and tables of this version');
my ($rc, $out, $err) = $node->psql('shop', 'SELECT crm.migrate()');
like($err, qr/library of pg_crm is of version $next, the extension is of version $now/, 'migrate() waits for the extension');

$node->safe_psql('shop', 'ALTER EXTENSION pg_crm UPDATE');
is($node->safe_psql('shop', q{SELECT extversion FROM pg_extension WHERE extname = 'pg_crm'}), $next, 'ALTER EXTENSION UPDATE');
sound('with the next library and functions on tables of this version');
is(columns('shop'), $columns, 'which are as they were');
($rc, $out, $err) = $node->psql('shop', 'SELECT crm.install()');
like($err, qr/tables of pg_crm are of version \Q$now\E, the extension is of version $next/, 'install() points to migrate()');

is($node->safe_psql('shop', 'SELECT crm.migrate()'), $next, 'migrate()');
is(columns('shop'), "$columns next_version", 'the profile has one more column');
is($node->safe_psql('shop', 'SELECT version, migrated_at IS NOT NULL FROM crm.installation'), "$next|t", 'the installation says so');
sound('after migrate()');
is($node->safe_psql('shop', 'SELECT crm.migrate()'), $next, 'once more');
$node->psql('shop', 'SELECT crm.install()', on_error_die => 1);
sound('after install()');

# a client that met an error would have said so and gone; the rest is stopped here
for my $load (@loads)
{
    ok($load->{run}->pumpable, 'the load still runs');
    $load->{run}->signal('TERM');
    $load->{run}->finish;
    is(${ $load->{err} } =~ s/^pgbench \(.*\n//r, '', 'and no client of it had an error');
}
is($node->safe_psql('shop', 'SELECT * FROM crm.verify()'), '', 'sound at the end');

# what migrate() makes is what install() makes
crm_database($node, 'fresh');
is(columns('fresh'), columns('shop'), 'a fresh installation has the same columns');
my $shape = q{SELECT string_agg(t, E'\n' ORDER BY t) FROM (
    SELECT 'column ' || a.attrelid::regclass || ' ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || a.attnotnull
           || coalesce(pg_get_expr(d.adbin, d.adrelid), '') || coalesce(col_description(a.attrelid, a.attnum), '')
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
     WHERE c.relnamespace = 'crm'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT 'trigger ' || pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT 'function ' || pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'crm'::regnamespace AND prokind <> 'a'
    UNION ALL SELECT concat_ws(' ', 'aggregate', aggfnoid::regprocedure, aggtransfn, aggcombinefn, aggfinalfn) FROM pg_aggregate JOIN pg_proc ON oid = aggfnoid
     WHERE pronamespace = 'crm'::regnamespace) AS x(t)};
is($node->safe_psql('shop', $shape), $node->safe_psql('fresh', $shape), 'and the same everything');

$node->stop;
done_testing();
