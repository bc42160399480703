# What a session knows of journeys: as committed, with what its own transaction changed, whoever
# changes them and by what statement.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use Test::More;

my $node = crm_node('journey_cache');
my $db   = crm_database($node, 'journeys');
crm_rooms($node, $db);
$node->safe_psql($db, q{
    CREATE FUNCTION publish(name text, rule text, kind text DEFAULT 'cart') RETURNS integer LANGUAGE sql AS $$
        SELECT crm.publish_journey(jsonb_build_object('journey', name, 'start', 'a', 'entry', jsonb_build_array(jsonb_build_object('on', kind)),
            'steps', jsonb_build_object('a', jsonb_build_object('kind', 'wait_until', 'when', rule, 'within', '1 day', 'next', 'b'),
                'b', '{"kind": "wait_for", "on": "visit", "within": "1 day"}'::jsonb)))$$;
    ALTER TABLE crm.contact ADD COLUMN shoe numeric;
    SELECT crm.install(); SELECT crm.define_segment('{"name": "vip", "rule": "orders > 9"}');
});

# one session that stays; ! is said by another one meanwhile
my $connection = $node->connstr($db);
my (@script, @expected, @names);
sub here  { push @script, "$_[0];" }
sub there { push @script, qq{\\! psql -Xqt -v ON_ERROR_STOP=1 -d "$connection" -c "$_[0]" >/dev/null} }
sub shows
{
    my ($query, $expected, $name) = @_;
    push @script, "SELECT '\@' || coalesce(($query)::text, '-');";
    push @expected, $expected;
    push @names, $name;
}

shows('journeys()', '', 'there is none');
shows(q{journey_listens('cart')}, 'false', 'and nobody listens');
there(q{SELECT publish('x', 'orders > 1')});
shows('journeys()', 'x 1 open current (orders > 1)', 'another session publishes one');
shows(q{journey_listens('cart') AND journey_listens('visit')}, 'true', 'for whose facts it listens');
shows(q{journey_listens('purchase')}, 'false', 'for no others');
here('BEGIN'); here(q{SELECT publish('y', 'orders > 2', 'call')});
shows('journeys()', 'x 1 open current (orders > 1), y 1 open current (orders > 2)', 'one of its own, not committed');
here('SAVEPOINT s'); here(q{SELECT publish('x', 'orders > 3')});
shows('journeys()', 'x 2 open current (orders > 3), y 1 open current (orders > 2)', 'a new version');
here('ROLLBACK TO s');
shows('journeys()', 'x 1 open current (orders > 1), y 1 open current (orders > 2)', 'taken back');
here('ROLLBACK');
shows('journeys()', 'x 1 open current (orders > 1)', 'all of it');
shows(q{journey_listens('call')}, 'false', 'nobody listens for it');
here(q{CREATE TEMP TABLE place AS SELECT journey_find('x', 1, true)});
for my $state (qw(closed frozen cancelled open))
{
    there("UPDATE crm.journey SET state = '$state'");
    shows('journeys()', "x 1 $state current (orders > 1)", "$state by UPDATE");
}
there(q{SELECT publish('x', 'orders > 3', 'order')});
shows('journeys()', 'x 2 open current (orders > 3)', 'the old version is in nobody\'s way');
shows(q{journey_listens('cart')}, 'false', 'its entry is over');
shows(q{journey_find('x', 1)}, 'x 1 open (orders > 1)', 'but found');
shows(q{journey_find('x', 0)}, 'x 2 open current (orders > 3)', 'as the current one is');
shows(q{journey_find('x', 3)}, '-', 'no version');
shows(q{journey_find('z', 0)}, '-', 'no journey');
there(q{INSERT INTO crm.contact (contact_id) VALUES (1); INSERT INTO crm.enrolment (contact_id, entered_at, step_at, version, journey, step, entered_by) VALUES (1, now(), now(), 1, 'x', 'a', 'cart'); UPDATE crm.journey SET state = 'open'});
shows('journeys()', 'x 1 open (orders > 1), x 2 open current (orders > 3)', 'with somebody in it it is known again');
shows(q{journey_listens('cart')}, 'false', 'but lets nobody in');

# what was compiled stays until something changes that rules read
here(q{UPDATE place SET journey_find = journey_find('x', 2, true)});
there(q{SELECT publish('y', 'shoe > 40 AND NOT in_segment(' || quote_literal('vip') || ')')});
shows(q{SELECT journey_find('x', 2, true) = journey_find FROM place}, 'true', 'what is compiled stays when another is published');
shows(q{journey_find('y', 0)}, q{y 1 open current (shoe > 40 AND NOT in_segment('vip'))}, 'which is there');
there('DELETE FROM crm.segment');
shows(q{journey_find('y', 0)}, 'y 1 open current (false)', 'a rule that names what is gone is false');
there(q{SELECT crm.define_segment('{\"name\": \"vip\", \"rule\": \"orders > 9\"}')});
shows(q{journey_find('y', 0)}, q{y 1 open current (shoe > 40 AND NOT in_segment('vip'))}, 'until it is there again');
there('DROP VIEW crm.profile CASCADE; ALTER TABLE crm.contact DROP COLUMN shoe; SELECT crm.install()');
shows('journeys()', 'x 1 open (orders > 1), x 2 open current (orders > 3), y 1 open current (false)', 'so it is with a column');
there(q{DELETE FROM crm.enrolment; DELETE FROM crm.journey WHERE journey = 'y'});
shows('journeys()', 'x 2 open current (orders > 3)', 'a journey deleted by its owner');
here('BEGIN ISOLATION LEVEL REPEATABLE READ'); here('SELECT count(*) FROM crm.journey');
there(q{SELECT publish('x', 'orders > 4')});
# as whoever records a fact does
here('LOCK TABLE crm.profile_counter IN ROW SHARE MODE');
shows('journeys()', 'x 3 open current (orders > 4)', 'however old the snapshot');
here('COMMIT');
here('TRUNCATE crm.journey');
shows('journeys()', '', 'all of them at once');
here(q{SELECT publish('x', 'orders > 5')});
shows('journeys()', 'x 4 open current (orders > 5)', 'versions go on being counted');

my ($rc, $out, $err) = $node->psql($db, join("\n", @script), on_error_stop => 1);
is($err, '', 'all of it was said');
my @shown = map { /^\@(.*)/ ? $1 : () } split /\n/, $out;
is($shown[$_], $expected[$_], $names[$_]) for 0 .. $#expected;
is($node->safe_psql($db, 'SELECT * FROM crm.verify()'), '', 'sound');
done_testing();
