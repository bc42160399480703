# Journeys that the worker's clock moves: waits that end, messages that were awaited, entries by schedule, and a crash in
# the middle of many. Nobody calls tick(); the worker would look by itself once a minute only.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmShop;
use CrmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $shop = CrmShop->new('journey_clock', conf => "pg_crm.poll_interval = 60\nrestart_after_crash = on\nmax_worker_processes = 16\n");
my $node = $shop->node;
sub sql { return $shop->sql(shift) }
sub becomes { return $shop->becomes(@_) }
sub publish { my ($document) = @_; $document =~ s/'/''/g; return sql("SELECT crm.publish_journey('$document')") }
sub visits
{
    my ($contact) = @_;
    return qq{SELECT string_agg(v.step || ' ' || coalesce(v.outcome, '-'), ', ' ORDER BY v.enrolment_id, v.visit) FROM crm.step_visit v WHERE v.contact_id = $contact};
}

sub set_worker
{
    my ($on) = @_;
    $node->safe_psql('postgres', 'ALTER DATABASE shop ' . ($on ? 'RESET pg_crm.worker' : 'SET pg_crm.worker = off'));
    becomes('SELECT state' . ($on ? '' : ' || coalesce(clock_pid, 0)') . ' FROM crm.worker_status', $on ? 'running' : 'off0', 'the worker is ' . ($on ? 'on' : 'off'));
    return;
}

publish(q({"journey": "thanks", "account": "maison", "reentry": "always", "entry": [{"on": "purchase"}], "start": "soon", "steps": {
    "soon": {"kind": "wait", "for": "1 second", "next": "thank"},
    "thank": {"kind": "send", "template": "note", "params": {"text": "thanks"}, "on_refused": "refused", "next": "done"},
    "refused": {"kind": "tag", "add": ["unreached"], "next": "done"},
    "done": {"kind": "exit", "reason": "thanked"}}}));
set_worker(0);
set_worker(1);
becomes('SELECT turns > 0 FROM crm.worker_status', 't', 'the worker has looked once');

subtest 'an order is followed by a message' => sub {
    my $contact = $shop->person('o_thanks');
    $shop->window($contact);
    for my $n (1, 2)
    {
        sql("SELECT crm.purchase($contact, 10)");
        becomes("SELECT count(*) FROM crm.enrolment WHERE contact_id = $contact AND state = 'finished' AND end_reason = 'thanked'", $n, "order $n is thanked for");
        is(scalar($shop->received('o_thanks')), $n, 'the message arrived');
        becomes('SELECT clock_pid IS NULL FROM crm.worker_status', 't', 'and the clock left') if $n == 1;
    }
    is(sql(visits($contact)), join(', ', ('soon next, thank next, done next') x 2), 'by these steps');
    is(sql("SELECT bool_and(v.left_at = v.entered_at + interval '1 second') FROM crm.step_visit v WHERE step = 'soon'"), 't', 'each at its moment');
    # as fast as the worker wrote them, on a machine that may be loaded
    my $late = sql("SELECT max(extract(epoch FROM d.recorded_at - v.left_at)) FROM crm.step_visit v JOIN crm.step_visit d USING (contact_id, enrolment_id) WHERE v.step = 'soon' AND d.step = 'thank'");
    my $after = sql("SELECT max(extract(epoch FROM d.recorded_at - m.ended_at)) FROM crm.message m JOIN crm.step_visit v USING (contact_id, message_id) JOIN crm.step_visit d USING (contact_id, enrolment_id) WHERE d.step = 'done'");
    cmp_ok($late, '<', 20, "the wait was over $late s ago, and the worker looks once a minute");
    cmp_ok($after, '<', 20, "the journey went on $after s after the outcome");
};

subtest 'a message that is refused' => sub {
    my $contact = $shop->person('o_suppressed');
    sql("SELECT crm.suppress($contact, reason => 'asked for it'); SELECT crm.purchase($contact, 10)");
    becomes("SELECT state FROM crm.enrolment WHERE contact_id = $contact", 'finished', 'the journey goes on');
    is(sql(visits($contact)), 'soon next, thank refused, refused next, done next', 'by the edge for it');
    is(sql("SELECT tags FROM crm.contact WHERE contact_id = $contact"), '{unreached}', 'and its steps');
    is(scalar($shop->received('o_suppressed')), 0, 'nothing arrived');
};

subtest 'while somebody else is held' => sub {
    my ($held, $free) = map { $shop->person($_) } qw(o_held o_free);
    $shop->window($_) for $held, $free;
    set_worker(0);
    sql("SELECT crm.purchase($held, 10)");
    my $session = $shop->session;
    $session->query_safe("BEGIN; SELECT FROM crm.profile_counter WHERE contact_id = $held FOR UPDATE");
    set_worker(1);
    sql("SELECT crm.purchase($free, 10)");
    becomes("SELECT state FROM crm.enrolment WHERE contact_id = $free", 'finished', 'others go on');
    is(sql(visits($held)), 'soon -', 'the one that is held does not');
    $session->query_safe('COMMIT');
    $session->quit;
    sql("SELECT crm.purchase($free, 10)");
    becomes("SELECT state FROM crm.enrolment WHERE contact_id = $held", 'finished', 'until it is free');
};

subtest 'a contact that cannot be moved' => sub {
    set_worker(0);
    sql(q{INSERT INTO crm.contact (contact_id, city) SELECT 20000 + n, 'Nantes' FROM generate_series(1, 40) AS n;
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
            IF NEW.contact_id = 20007 THEN RAISE 'not this one'; END IF; RETURN NEW; END$$;
        CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON crm.enrolment FOR EACH ROW EXECUTE FUNCTION refuse()});
    my $offset = -s $node->logfile;
    sql(q{SET pg_crm.clock = 'NOW'; SELECT crm.publish_journey('{"journey": "nantes", "entry": [{"on": "schedule", "every": "1 day", "audience": "city = ''Nantes''"}],
        "start": "mark", "steps": {"mark": {"kind": "tag", "add": ["nantes"], "next": "wait"}, "wait": {"kind": "wait", "for": "1 second", "next": null}}}')}
        =~ s/NOW/sql("SELECT now() - interval '3 days'")/er);
    set_worker(1);
    becomes(q{SELECT count(*) || ' ' || count(DISTINCT contact_id) FROM crm.enrolment WHERE journey = 'nantes' AND state = 'finished'}, '39 39', 'all others enter by the schedule');
    becomes(q{SELECT string_agg(contact_id::text, ',') FROM crm.entry_due}, '20007', 'that one is set aside');
    $node->wait_for_log(qr/ERROR:  not this one\n(?:.*\n){1,3}?\ttime of contact 20007\n/, $offset);
    sql('DROP TRIGGER refuse ON crm.enrolment');
    becomes(q{SELECT count(*) || ' ' || count(DISTINCT entered_at) FROM crm.enrolment WHERE journey = 'nantes' AND state = 'finished'}, '40 1', 'and enters when that is mended, as of the same moment');
    becomes('SELECT clock_problem IS NULL FROM crm.worker_status', 't', 'nothing is wrong any more');
};

subtest 'a crash in the middle of many' => sub {
    my $many = 2000;
    set_worker(0);
    publish(q({"journey": "many", "account": "maison", "entry": [{"on": "purchase", "when": "fact.amount = 7"}], "start": "wait", "steps": {
        "wait": {"kind": "wait", "for": "1 second", "next": "mark"},
        "mark": {"kind": "tag", "add": ["many"], "next": "tell"},
        "tell": {"kind": "send", "template": "tell", "params": {"text": "many"}, "next": null}}}));
    sql(qq{SELECT crm.set_journey('thanks', 'closed'); INSERT INTO crm.contact (contact_id) SELECT 30000 + n FROM generate_series(1, $many) AS n;
        INSERT INTO crm.transaction (contact_id, amount, occurred_at) SELECT 30000 + n, 7, now() FROM generate_series(1, $many) AS n});
    my $of = 'contact_id BETWEEN 30001 AND 32000';
    is(sql("SELECT count(*) FROM crm.enrolment WHERE $of AND step = 'wait'"), $many, 'many wait');
    becomes("SELECT count(*) FROM crm.enrolment WHERE $of AND due_at <= clock_timestamp()", $many, 'and are due');
    my $offset = -s $node->logfile;
    sql(qq{SELECT crm.pause_account('till', 'nothing is to be under way');
        CREATE FUNCTION clock_at_work(OUT pid integer, OUT moved bigint) LANGUAGE plpgsql AS \$\$BEGIN
            FOR i IN 1 .. 60000 LOOP
                SELECT clock_pid, (SELECT count(*) FROM crm.message WHERE $of) INTO pid, moved FROM crm.worker_status;
                EXIT WHEN pid IS NOT NULL AND moved > 0;
                PERFORM pg_sleep(0.001);
            END LOOP; END\$\$});
    set_worker(1);
    my ($pid, $moved) = split /\|/, sql('SELECT * FROM clock_at_work()');
    my $killed = $pid && $moved < $many && kill('KILL', $pid);
    ok($killed, "the clock is killed when $moved have gone on") or return;
    $node->wait_for_log(qr/all server processes terminated; reinitializing/, $offset);
    $node->poll_query_until('postgres', 'SELECT true');
    becomes("SELECT count(*) FROM crm.enrolment WHERE $of AND step = 'tell'", $many, 'the rest goes on after it');
    sql("SELECT crm.resume_account('till')");
    becomes("SELECT count(*) FROM crm.enrolment WHERE $of AND state = 'finished'", $many, 'all come to the end');
    is(sql("SELECT count(*), count(DISTINCT contact_id), count(DISTINCT send_key) FROM crm.message WHERE $of"), "$many|$many|$many", 'with one message each');
    is(sql("SELECT string_agg(step || ' ' || n, ', ' ORDER BY step) FROM (SELECT step, count(*) || '/' || count(DISTINCT contact_id) AS n FROM crm.step_visit WHERE $of GROUP BY step) s"),
        "mark $many/$many, tell $many/$many, wait $many/$many", 'each step once');
    is(sql("SELECT count(*) FROM crm.step_visit WHERE $of AND outcome IS DISTINCT FROM 'next'"), '0', 'all left as they should be');
    becomes("SELECT count(*) FROM crm.outbox WHERE $of", 0, 'and all are sent');
    my %arrived;
    $arrived{ $_->{body}{message_id} // '' }++ for grep { ($_->{body}{data}{text} // "") eq "many" } $shop->sandbox->ledger_file_rows;
    is(scalar(keys %arrived), $many, 'all arrived');
    my @twice = grep { $arrived{$_} > 1 } keys %arrived;
    is("@twice", '', 'no message twice');
};

is(sql('SELECT count(*) FROM crm.verify()'), '0', 'all is sound');
$node->stop;
done_testing();
