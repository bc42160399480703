# months go while others work: nobody waits, nobody goes twice, and what is killed is done again
use strict;
use warnings;

use CrmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = crm_node('retention', worker => 1, conf => "pg_crm.poll_interval = 1\n");
my $db = crm_database($node, 'shop');

sub sql { return $node->safe_psql('shop', $_[0]) }

sub becomes
{
    my ($condition, $name) = @_;
    ok($node->poll_query_until('shop', "SELECT $condition"), $name);
}

# facts of months long over
sql(q{SELECT crm.restoring(true)});
sql(q{
INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2020-01-01' FROM generate_series(1, 200) AS n;
INSERT INTO crm.event (contact_id, kind, occurred_at, recorded_at)
SELECT 1 + n % 200, CASE WHEN n % 10 = 0 THEN 'follow' ELSE 'view' END, at, at
  FROM (SELECT n, '2020-01-05'::timestamptz + n * interval '1 hour' AS at FROM generate_series(1, 3000) AS n) AS f;
});
sql(q{SELECT crm.restoring(false)});
sql('SELECT crm.recompute(); SELECT crm.roll_up(true)');
my $profiles = sql('SELECT string_agg(p::text, E\'\n\' ORDER BY contact_id) FROM crm.profile_counter AS p');

sql('SELECT crm.maintain_partitions()');    # unless the clock has done so
is(sql('SELECT count(*) FROM crm.event_default'), '0', 'they lie in their months');

# somebody is in the way
sql("ALTER DATABASE shop SET pg_crm.worker = off");
my $reader = $node->background_psql('shop', on_error_stop => 0);
$reader->query_safe('BEGIN; SELECT count(*) FROM crm.event');
sql(q{UPDATE crm.retention SET keep = '2 years' WHERE name = 'event'});
my ($rc, $out, $err) = $node->psql('shop', 'SELECT crm.enforce_retention()');
like($err, qr/canceling statement due to lock timeout/, 'who reads the table is not waited for');
is(sql(q{SELECT count(*) FROM crm.event}), '3000', 'and nothing is gone');
is(sql(q{SELECT count(*) FROM crm.retired_partition}), '0', 'nor written down');
sql("SELECT crm.track(1, 'view')");
pass('nobody waits behind');

# one that is killed before its end, and two at once
$reader->query_safe('COMMIT');
my $one = $node->background_psql('shop', on_error_stop => 0);
is($one->query_safe('BEGIN; SELECT crm.enforce_retention()'), 'event_2020_01', 'a month goes');
isnt($node->psql('shop', 'SELECT crm.enforce_retention()'), 0, 'a second who would drop it is turned away');
sql('SELECT pg_terminate_backend(' . $one->query_safe('SELECT pg_backend_pid()') . ')');
eval { $one->quit };
is(sql(q{SELECT count(*) FROM crm.opening_balance}), '0', 'killed before its end, it is not gone');
is(sql('SELECT count(*) FROM crm.verify()'), '0', 'and all is sound');
$reader->quit;

# the clock
sql("ALTER DATABASE shop RESET pg_crm.worker");
$node->restart;    # after which it looks
becomes(q{count(*) = 5 FROM crm.retired_partition}, 'the clock drops all months that need not be kept');
is(sql(q{SELECT count(*) || ' ' || count(*) FILTER (WHERE kind = 'follow') FROM crm.event WHERE recorded_at < '2021-01-01'}), '300 300', 'what decides is kept');
is(sql(q{SELECT count(*) FROM crm.verify()}), '0', 'all is sound');
sql('SELECT crm.recompute()');
(my $expected = $profiles) =~ s/^\(1,.*\n//;
(my $found = sql('SELECT string_agg(p::text, E\'\n\' ORDER BY contact_id) FROM crm.profile_counter AS p')) =~ s/^\(1,.*\n//;
is($found, $expected, 'counters are what they were');
done_testing();
