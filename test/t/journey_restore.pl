# A dump of a database in which people are on their way: whoever restores it moves nobody and sends nothing, until somebody
# says that it takes over; then all that was left is done, once.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmShop;
use CrmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $many = 200;
my $shop = CrmShop->new('journey_restore', conf => "pg_crm.poll_interval = 1\nmax_worker_processes = 24\n");
my $node = $shop->node;
sub in { my ($database, $sql) = @_; return $node->safe_psql($database, $sql) }
sub becomes { my ($database, $query, $name) = @_; ok($node->poll_query_until($database, $query), $name); return }
sub set_worker
{
    my ($on) = @_;
    in('postgres', 'ALTER DATABASE shop ' . ($on ? 'RESET pg_crm.worker' : 'SET pg_crm.worker = off'));
    becomes('shop', $on ? q{SELECT state = 'running' FROM crm.worker_status} : q{SELECT state = 'off' AND clock_pid IS NULL FROM crm.worker_status}, 'the worker is ' . ($on ? 'on' : 'off'));
    return;
}

set_worker(0);
my $account = in('shop', q{SELECT account_id FROM crm.account WHERE name = 'maison'});
my $began = in('shop', q{SELECT now() - interval '2 hours'});
in('shop', qq{SET pg_crm.clock = '$began';
    INSERT INTO crm.loyalty_program (name) VALUES ('club');
    SELECT crm.publish_journey('{"journey": "care", "account": "maison", "entry": [{"on": "signup"}], "start": "wait", "steps": {
        "wait": {"kind": "wait", "for": "1 hour", "next": "book"},
        "book": {"kind": "points", "program": "club", "points": 5, "next": "say"},
        "say": {"kind": "send", "template": "order", "params": {"text": "care"}, "on_failed": null, "on_refused": null, "next": "visit"},
        "visit": {"kind": "wait_for", "on": "visit", "within": "1 day", "next": null}}}');
    SELECT crm.publish_journey('{"journey": "club", "account": "maison", "entry": [{"on": "schedule", "every": "1 hour", "audience": "city = ''Wuxi''"}], "reentry": "once", "start": "tell", "steps": {
        "tell": {"kind": "webhook", "template": "tell", "params": {"text": "club"}, "next": null}}}');
    INSERT INTO crm.contact (contact_id, city) SELECT n, CASE WHEN n % 4 = 0 THEN 'Wuxi' END FROM generate_series(1, $many) AS n;
    INSERT INTO crm.membership (contact_id, loyalty_program_id, joined_at) SELECT n, 1, crm.now() FROM generate_series(1, $many) AS n;
    INSERT INTO crm.identity (kind, account_id, external_id, contact_id) SELECT 'openid', $account, 'o' || n, n FROM generate_series(1, $many) AS n;
    INSERT INTO crm.event (contact_id, kind) SELECT n, 'signup' FROM generate_series(1, $many / 2) AS n;
    SELECT crm.tick('$began'::timestamptz + interval '1 hour');
    INSERT INTO crm.event (contact_id, kind) SELECT n, 'signup' FROM generate_series($many / 2 + 1, $many) AS n});
is(in('shop', q{SELECT string_agg(step || ' ' || n, ', ' ORDER BY step) FROM (SELECT step, count(*) AS n FROM crm.enrolment WHERE journey = 'care' GROUP BY 1) x}),
    'say ' . $many / 2 . ', wait ' . $many / 2, 'half of them wait for their message, the others for time');

my $state = q{SELECT (SELECT count(*) || ' ' || md5(string_agg(e::text, ',' ORDER BY contact_id, enrolment_id)) FROM crm.enrolment e),
    (SELECT md5(string_agg(m::text, ',' ORDER BY contact_id, message_id)) FROM crm.message m), (SELECT count(*) FROM crm.step_visit), (SELECT count(*) FROM crm.point_entry),
    (SELECT ticked_at FROM crm.journey_clock), (SELECT string_agg(s::text, ',' ORDER BY journey) FROM crm.journey_schedule s)};
my $before = in('shop', $state);
my $file = PostgreSQL::Test::Utils::tempdir() . '/shop';
$node->command_ok([ 'pg_dump', '--no-sync', '-Fc', '-f', $file, $node->connstr('shop') ], 'dumped');
$node->command_ok([ 'pg_dump', '--no-sync', '--data-only', '--load-via-partition-root', '-f', "$file.data", $node->connstr('shop') ], 'and its rows alone');
in('postgres', 'CREATE DATABASE whole');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('whole'), $file ], 'restored');
crm_database($node, 'rows');
in('rows', 'SELECT crm.restoring(true)');
$node->command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-f', "$file.data", $node->connstr('rows') ], 'rows loaded between restoring(true) and restoring(false)');
is(in('rows', $state), $before, 'nobody moves while they are');
in('rows', 'SELECT crm.restoring(false)');

for my $database (qw(whole rows))
{
    becomes($database, q{SELECT state = 'running' AND turns > 5 FROM crm.worker_status}, "$database: its worker looks");
    is(in($database, $state), $before, "$database: nobody has moved");
    # one that began before may still wait for its next look, at which it leaves
    becomes($database, 'SELECT clock_pid IS NULL FROM crm.worker_status', "$database: its clock stands");
    is(in($database, $state), $before, "$database: nor has it moved anybody");
    is(in($database, 'SELECT * FROM crm.verify()'), '', "$database: sound");
}
is(scalar(grep { $_->{api} =~ m{/send|^webhook} } $shop->sandbox->ledger), 0, 'nothing was sent');

# one of the two takes over
in('rows', 'SELECT crm.resume_dispatch()');
becomes('rows', qq{SELECT count(*) = $many FROM crm.enrolment WHERE journey = 'care' AND step = 'visit'}, 'then all go on');
becomes('rows', qq{SELECT count(*) = $many / 4 FROM crm.enrolment WHERE journey = 'club' AND state = 'finished'}, 'and who was to enter has entered');
becomes('rows', 'SELECT count(*) = 0 FROM crm.outbox', 'all is sent');
is(in('rows', q{SELECT string_agg(DISTINCT n::text, ' ') FROM (SELECT count(*) AS n FROM crm.point_entry GROUP BY contact_id) x}), '1', 'points are booked once');
is(in('rows', q{SELECT count(*), count(DISTINCT send_key || contact_id) FROM crm.message}), join('|', (1.25 * $many) x 2), 'and a message is made once');
my (%person, %told);
for my $row (grep { $_->{delivered} } $shop->sandbox->ledger_file_rows)
{
    $person{ $row->{touser} }++ if $row->{touser};
    $told{ $row->{key} }++ if $row->{api} =~ /^webhook/;
}
is(join(' ', scalar keys %person, grep { $person{$_} > 1 } sort keys %person), $many, 'one arrived for each person');
is(join(' ', scalar keys %told, grep { $told{$_} > 1 } sort keys %told), $many / 4, 'and each webhook was called once');
in('rows', qq{INSERT INTO crm.event (contact_id, kind) SELECT n, 'visit' FROM generate_series(1, $many) AS n});
is(in('rows', q{SELECT count(*) FROM crm.enrolment WHERE state = 'active'}), '0', 'facts lead them to the end');
is(in('rows', 'SELECT * FROM crm.verify()'), '', 'sound');
is(in('whole', $state), $before, 'the other one stands still');
$node->stop;
done_testing();
