# 64 clients on five contacts for as long as CRM_TIMES transactions each take (pgbench; scripts in
# test/lib/crowd): orders, refunds, follows, scans, rows in any order, stages by hand, numbers that
# join and merges that part, while names are edited and an achievement is saved again and again.
# Nothing fails but by a refusal that is meant, nothing is in a deadlock, and at the end all is as
# CrmReference finds it from the facts. Once more without direct access.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmReference;
use CrmTest;
use IPC::Run;
use List::Util qw(min);
use PostgreSQL::Test::Utils;
use Test::More;

my $times = $ENV{CRM_TIMES} // 80;
my %weight = (purchase => 30, refund => 20, follow => 8, scan => 8, track => 10, stage => 5, rows => 10, bind => 4, merge => 5, unmerge => 6, edit => 3, define => 1);
my $node   = crm_node('crowd', conf => "max_connections = 80\n");

for my $direct ('on', 'off')
{
    my $db  = crm_database($node, "crowd_$direct");
    my $one = sub { return $node->safe_psql($db, $_[0]) };
    $one->("ALTER DATABASE $db SET pg_crm.direct_access = $direct");
    $one->(q{
        INSERT INTO crm.account (kind, name) VALUES ('official_account', 'oa');
        INSERT INTO crm.qr_code (account_id, scene) VALUES (1, 'banner');
        INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2024-01-01Z'::timestamptz + n * interval '1 day' FROM generate_series(1, 5) AS n;
        INSERT INTO crm.identity (kind, account_id, external_id, contact_id) SELECT 'openid', 1, 'h' || n, n FROM generate_series(1, 5) AS n;
        CREATE SEQUENCE refused;
        -- who an openid belongs to, now that contacts come and go
        CREATE FUNCTION hot(n bigint) RETURNS bigint LANGUAGE sql VOLATILE AS $$ SELECT crm.identify('oa', 'h' || n) $$;
        CREATE FUNCTION hot(n integer) RETURNS bigint LANGUAGE sql VOLATILE AS $$ SELECT crm.identify('oa', 'h' || n) $$;
        -- refusals that are meant end no client; whatever else goes wrong does
        CREATE FUNCTION attempt(statement text) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN
            EXECUTE statement;
        EXCEPTION WHEN foreign_key_violation OR unique_violation OR check_violation OR object_not_in_prerequisite_state OR invalid_parameter_value THEN
            PERFORM nextval('refused');
        END $$});

    my @scripts = map { ('-f', "test/lib/crowd/$_.sql\@$weight{$_}") } sort keys %weight;
    my ($out, $err) = ('', '');
    IPC::Run::run([ 'pgbench', '-n', '-c', 64, '-j', 2, '-t', $times, @scripts, $node->connstr($db) ], '>', \$out, '2>', \$err);
    is($? >> 8, 0, "direct access $direct: pgbench ends well") or diag($err);
    like($out, qr{number of transactions actually processed: (\d+)/\1$}m, "direct access $direct: all " . 64 * $times . ' transactions');
    unlike($err, qr/ERROR|aborted/, "direct access $direct: no error");
    diag('refused: ' . $one->('SELECT last_value FROM refused'));

    my @differences = crm_differences($one);
    is(scalar @differences, 0, "direct access $direct: all is as found a second time") or diag(join "\n", @differences[ 0 .. min(9, $#differences) ]);
    is($one->('SELECT * FROM crm.verify()'), '', "direct access $direct: verify() finds nothing");
    cmp_ok($one->("SELECT count(*) FROM crm.transaction WHERE kind = 'refund'"), '>', $times, 'refunds');
    cmp_ok($one->('SELECT count(*) FROM crm.transaction'), '>', 10 * $times, 'orders');
    cmp_ok($one->('SELECT count(*) FROM crm.merge_ledger'), '>', 5, 'merges');
    cmp_ok($one->('SELECT count(*) FROM crm.merge_ledger WHERE unmerged_at IS NOT NULL'), '>', 5, 'undone ones');
    cmp_ok($one->('SELECT count(*) FROM crm.scan'), '>', $times, 'scans');
}
is(join("\n", grep { /deadlock detected|PANIC|FATAL|terminated by signal|XX000/ } split /\n/, slurp_file($node->logfile)), '', 'no deadlock in the log, nor worse');

$node->stop;
done_testing();
