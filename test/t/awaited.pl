# Messages that a journey asks for: many at once that differ, and told of when they have ended. Each end state of an
# awaited message leaves one row of crm.message_end, by either lane; a message that nobody waits for leaves none.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmShop;
use CrmTest;
use JSON::PP ();
use Test::More;

my $shop    = CrmShop->new('awaited', conf => "pg_crm.send_timeout = 3s\n");
my $sandbox = $shop->sandbox;
crm_rooms($shop->node, 'shop');
$shop->sql(q{SELECT crm.define_template('{"name": "tale", "channel": "webhook", "message_type": "post", "valid_for": "1 day",
  "body": {"text": "{{entry.store|nowhere}} {{entry.amount}} {{context.vip}} {{context.a.b|none}} {{name|nobody}}"}}')});

# each(TEMPLATE, [contact, params, key, due_at, expires_at] ..., awaited): ids
sub each_of
{
    my ($template, $rows, $awaited) = @_;
    my $array = sub {
        my ($i, $type, $otherwise) = @_;
        return 'ARRAY[' . join(', ', map { defined $_->[$i] ? "'$_->[$i]'" : $otherwise } @$rows) . "]::$type\[]";
    };
    return "send_each('$template', " . join(', ', $array->(0, 'bigint'), $array->(1, 'jsonb', q('{}')), $array->(2, 'text', 'NULL'),
        $array->(3, 'timestamptz', 'now()'), $array->(4, 'timestamptz', q('infinity')), $awaited ? 'true' : 'false') . ')';
}
sub send_each { return split /,/, $shop->sql("SELECT array_to_string(" . each_of(@_) . ", ',')") }
# awaits(CONTACT, TEMPLATE, [params, key, due_at, expires_at]): its id
sub awaits
{
    my ($contact, $template, $more) = @_;
    my ($id) = send_each($template, [ [ $contact, @{ $more // [] } ] ], 1);
    return $id;
}

# how many rows, and when the journey goes on
sub told
{
    my ($message) = @_;
    return $shop->sql("SELECT count(*) || coalesce(' ' || CASE WHEN max(due_at) <= now() THEN 'now'
        WHEN max(due_at) BETWEEN now() + interval '59 min' AND now() + interval '1 h' THEN 'in an hour' ELSE max(due_at)::text END, '')
        FROM crm.message_end WHERE message_id = $message");
}
sub ends
{
    my ($message, $state, $told, $name) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    is($shop->state($message), $state, "$name: $state");
    is(told($message), $told, "$name: told");
    return;
}

subtest 'many that differ' => sub {
    my @people = map { $shop->person("o_each$_") } 1 .. 3;
    my $columns = 'account_id, template, template_version, channel, class, state, reason, params, send_key, awaited, recorded_at IS NULL,'
      . ' due_at, expires_at, attempt_id, tried_at, grant_id, sent_at, ended_at';
    my @rows = (
        [ $people[0], '{"entry": {"amount": 1}}', 'a', '2034-05-01Z', '2034-05-02Z' ],
        [ $people[1], '{"entry": {"amount": 2}}', 'a', '2034-05-01Z' ],
        [ $people[1], '{"entry": {"amount": 3}}', undef, '2034-05-03Z' ],
        [ $people[0], '{"entry": {"amount": 4}}', 'b', '2034-05-01Z' ],
        [ $people[0], '{"entry": {"amount": 1.0}}', 'a', '2034-05-09Z' ],
        [ $people[2], undef, 'c', '2034-05-01Z' ],
        [ $people[1], '{"entry": {"amount": 3}}', undef, '2034-05-03Z' ],
    );
    my %written;
    for my $lane ('on', 'off')
    {
        my $ids = $shop->sql("BEGIN; SET LOCAL pg_crm.direct_access = $lane; SELECT array_to_string(" . each_of('tale', \@rows, 1) . ", ','); COMMIT");
        my @ids = split /,/, $ids;
        is($ids[4], $ids[0], "lane $lane: a key that comes twice is one message");
        is(join(' ', sort { $a <=> $b } @ids[ 0 .. 3, 5, 6 ]), "@ids[0 .. 3, 5, 6]", "lane $lane: ids in the order given");
        $written{$lane} = $shop->sql("SELECT n.place, m.contact_id, $columns FROM unnest('{$ids}'::bigint[]) WITH ORDINALITY AS n(id, place) JOIN crm.message m ON m.message_id = n.id ORDER BY 1")
          . "\n" . $shop->sql("SELECT n.place, o.contact_id, account_id, lane, due_at, lease, attempt_id, attempts FROM unnest('{$ids}'::bigint[]) WITH ORDINALITY AS n(id, place) JOIN crm.outbox o ON o.message_id = n.id ORDER BY 1");
        is(scalar(() = $written{$lane} =~ /\n/g), 13, "lane $lane: a message and a place in the queue each");
        is($shop->sql("SELECT string_agg(to_char(expires_at AT TIME ZONE 'UTC', 'MM-DD'), ' ' ORDER BY message_id) FROM crm.message WHERE message_id IN ($ids)"),
            '05-02 05-02 05-04 05-02 05-02 05-04', "lane $lane: expires as given, else as the template says from when it is due");
        is(join(',', send_each('tale', [ @rows[ 4, 1, 3 ] ], 1)), join(',', @ids[ 0, 1, 3 ]), "lane $lane: said again, the messages that are there");
        my $clash = each_of('tale', [ $rows[2], [ $people[1], '{"entry": {"amount": 9}}', 'a' ] ]);
        is($shop->refused("SET pg_crm.direct_access = $lane; SELECT $clash"), '23505', "lane $lane: a key that stands for other values");
        is($shop->sql(sprintf "SELECT cancel_many('{%s}', '{%s}', 'gone')", join(',', map { $_->[0] } @rows), $ids), '6', "lane $lane: all taken back, once");
        is($shop->sql("SELECT string_agg(DISTINCT state || ' ' || reason, ',') || ' ' || count(*) FROM crm.message WHERE message_id IN ($ids)"),
            'cancelled gone 6', "lane $lane: by a reason");
        is($shop->sql("SELECT count(*) FROM crm.message_end WHERE message_id IN ($ids) AND due_at <= now()"), '6', "lane $lane: which their journeys are told");
        is($shop->sql("DELETE FROM crm.message_end; DELETE FROM crm.message WHERE message_id IN ($ids); SELECT count(*) FROM crm.outbox"), '0', "lane $lane: all gone");
    }
    is($written{off}, $written{on}, 'both lanes write the same');
    is($shop->refused('SELECT ' . each_of('tale', [ [ $people[0], '{"a": 1}', 'z' ], [ $people[0], '{"a": 2}', 'z' ] ])), '23505', 'two values under one new key');
    my $note = $shop->send($people[0], 'note', '{}', "send_key => 'n', due_at => now() + interval '1 day'");
    is($shop->refused('SELECT ' . each_of('tale', [ [ $people[0], undef, 'n' ] ])), '23505', 'a key of another template');
    is(join(',', send_each('note', [ [ $people[0], undef, 'n' ] ])), $note, 'a key that send() gave');
    is($shop->refused('SELECT ' . each_of('none', [ [ $people[0] ] ])), '23503', 'a template that there is not');
    is($shop->sql("SELECT crm.cancel_message($people[0], $note)"), 't');
    # a snapshot from before the message; ids that somebody gave by hand
    my $session = $shop->session;
    $session->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM crm.message');
    my ($unseen) = send_each('note', [ [ $people[2], undef, 'unseen', '2034-05-01Z' ] ]);
    is($session->query_safe('SELECT ' . each_of('note', [ [ $people[2], undef, 'unseen', '2034-05-01Z' ] ])), "{$unseen}", 'a message that the snapshot does not show');
    $session->query_safe('COMMIT');
    $session->quit;
    for my $lane ('on', 'off')
    {
        is($shop->refused("SET pg_crm.direct_access = $lane; BEGIN; SELECT setval('crm.message_message_id_seq', $unseen, false); SELECT "
              . each_of('note', [ [ $people[2], undef, 'by hand' ] ])), '23505', "lane $lane: an id that is taken");
        $shop->sql("SELECT setval('crm.message_message_id_seq', (SELECT max(message_id) FROM crm.message) + 1000)");
    }
    is($shop->sql("SELECT cancel_many('{$people[2]}', '{$unseen}', NULL)"), '1');
    is($shop->sql("SELECT send_each('tale', '{}', '{}', '{}', '{}', '{}', true)"), '{}', 'none');
};

subtest 'as large as a journey sends them' => sub {
    my $n = 3000;
    $shop->sql("INSERT INTO crm.contact (contact_id) SELECT 1000000 + generate_series(1, $n)");
    for my $lane ('on', 'off')
    {
        $shop->sql("SET pg_crm.direct_access = $lane;
            SELECT send_each('tale', array_agg(1000000 + n), array_agg(jsonb_build_object('n', n, 'fill', repeat('x', n % 3000))), array_agg('$lane' || n),
                array_agg('2034-05-01Z'::timestamptz), array_agg('infinity'::timestamptz), false) FROM generate_series(1, $n) n");
        is($shop->sql("SELECT count(*) FROM crm.message JOIN crm.outbox USING (contact_id, message_id)
            WHERE send_key = '$lane' || (contact_id - 1000000) AND params = jsonb_build_object('n', contact_id - 1000000, 'fill', repeat('x', (contact_id % 1000000)::int % 3000))"),
            $n, "lane $lane: each to its own");
    }
    is($shop->sql("SELECT cancel_many(array_agg(contact_id), array_agg(message_id), NULL) FROM crm.outbox"), 2 * $n, 'all taken back');
    is($shop->sql('SELECT count(*) FROM crm.message_end'), '0', 'nobody waits for them');
    is($shop->sql('SELECT * FROM crm.verify()'), '', 'sound');
};

subtest 'values out of objects' => sub {
    my $contact = $shop->person('o_tale');
    my $text = sub {
        my $message = awaits($contact, 'tale', [@_]);
        my $state = $shop->state($message);
        return $state if $state ne 'sent';
        my ($row) = grep { ($_->{body}{message_id} // 0) == $message } $sandbox->ledger(api => 'webhook/crm');
        return $row->{body}{data}{text};
    };
    is($text->('{"entry": {"store": "Paris", "amount": 12.50}, "context": {"vip": true, "a": {"b": "deep"}}}'), 'Paris 12.50 true deep nobody', 'text, numbers and booleans');
    is($text->('{"entry": {"store": null, "amount": 0}, "context": {"vip": false, "a": {"b": {"c": 1}}}}'), 'nowhere 0 false none nobody', 'null and objects are none');
    is($text->('{"entry": {"amount": [1]}, "context": {"vip": true}}'), 'failed missing_value:entry.amount', 'nor are lists');
    is($text->('{"entry.amount": 1, "context": {"vip": true}}'), 'failed missing_value:entry.amount', 'nor is a member whose name has a point');
    is($text->('{"entry": {"amount": 1}, "context": {"vip": 1}, "name": "Li"}'), 'nowhere 1 1 none Li', 'plain names beside them');
    is($shop->sql(q{SELECT template_fill('{{entry.store}}/{{context.n|0}}', '{"entry": {"store": "Paris"}}')}), 'Paris/0', 'a single text');
    is($shop->sql(q{SELECT template_fill('{{entry.store}}', '{"entry": {}}') IS NULL}), 't', 'without a value');
    is($shop->sql(q{SELECT template_fill('no {place}', '{}')}), 'no {place}', 'without a place');
};

# one lane of the worker after the other
for my $lane ('on', 'off')
{
    $shop->sql("ALTER SYSTEM SET pg_crm.direct_access = $lane; SELECT pg_reload_conf()");
    $shop->restart_worker;
    my $contact = $shop->person("o_$lane");
    my ($bystander, $closed) = map { $shop->person("o_${_}_$lane") } qw(bystander closed);
    $shop->window($_) for $contact, $bystander;
    $shop->sql('DELETE FROM crm.message_end');

    subtest "each end, direct_access $lane" => sub {
        ends(awaits($contact, 'note'), 'sent', '1 now', 'the platform took it');
        $sandbox->admin(faults => { api => 'template/send', fault => 'reset_before_reply', times => 2 });
        ends(awaits($contact, 'order'), 'sent', '1 now', 'at the third attempt');
        $sandbox->clear_faults;
        ends(awaits($contact, 'tale'), 'failed missing_value:entry.amount', '1 now', 'it cannot be made');
        $sandbox->admin(webhooks => { name => 'crm', status => 422, body => 'no' });
        ends(awaits($contact, 'tell'), 'failed http_422', '1 now', 'the other side refused it');
        $sandbox->admin(webhooks => { name => 'crm', status => 200, body => 'ok' });
        ends(awaits($closed, 'note'), 'refused window_closed', '1 now', 'it may not go');
        ends(awaits($contact, 'note', [ undef, undef, '2024-05-01Z', '2024-05-02Z' ]), 'expired expired', '1 now', 'its time is over');

        my $message = awaits($contact, 'note', [ undef, undef, '2034-05-01Z' ]);
        is(told($message), '0', 'one for later is not told of');
        is($shop->sql("SELECT crm.cancel_message($contact, $message)"), 't');
        ends($message, 'cancelled', '1 now', 'taken back');
        is($shop->sql("SELECT crm.cancel_message($contact, $message)"), 't');
        is(told($message), '1 now', 'twice');
        is($shop->sql("SELECT cancel_many('{$contact,$contact}', '{$message,99999999}', 'again')"), '0', 'what has ended, and what there is not, is passed by');

        $sandbox->admin(faults => { api => 'custom/send', fault => 'reset_before_reply', times => 1 });
        $message = awaits($contact, 'note');
        ends($message, 'unknown no_reply', '1 in an hour', 'nobody knows');
        $shop->sql("SELECT crm.resolve_message($contact, $message, 'failed')");
        ends($message, 'failed resolved', '1 now', 'somebody found out');
        $shop->sql("DELETE FROM crm.message_end WHERE message_id = $message; SELECT crm.resolve_message($contact, $message, 'failed')");
        is(told($message), '0', 'saying it again tells nobody');

        # its reply comes after somebody else has given up on it
        $sandbox->admin(settings => { latency_ms => 1500 });
        $message = awaits($contact, 'note');
        my $given_up = sub {
            return $shop->sql("WITH o AS (DELETE FROM crm.outbox WHERE message_id = $message AND lease IS NOT NULL RETURNING contact_id, message_id),
                  e AS (INSERT INTO crm.message_end SELECT contact_id, message_id, now() + interval '1 h' FROM o)
                UPDATE crm.message m SET state = 'unknown', reason = 'no_reply' FROM o WHERE m.message_id = o.message_id RETURNING 1");
        };
        wait_for(sub { $given_up->() }, 30, 'it is on its way');
        $shop->becomes("SELECT state FROM crm.message WHERE message_id = $message", 'sent', 'a late success');
        is(told($message), '1 now', 'is told');

        # as a worker leaves one that dies while it is on its way
        $sandbox->admin(settings => { latency_ms => 0 });
        $message = awaits($contact, 'note', [ undef, undef, '2034-05-01Z' ]);
        $shop->sql("UPDATE crm.message SET state = 'sending', attempt_id = 900000001, tried_at = now() WHERE message_id = $message;
            UPDATE crm.outbox SET lease = now() - interval '1 s', attempt_id = 900000001, attempts = 1 WHERE message_id = $message");
        $shop->restart_worker;
        ends($message, 'unknown no_reply', '1 in an hour', 'the next worker finds it');

        # somebody else's by the time its outcome is written
        my ($older, $younger) = map { $shop->person("o_${_}_$lane") } qw(older younger);
        $sandbox->admin(settings => { latency_ms => 1000 });
        $message = awaits($younger, 'order');
        $shop->becomes("SELECT state FROM crm.message WHERE message_id = $message", 'sending', 'on its way');
        $shop->sql("SELECT crm.merge($older, $younger)");
        ends($message, 'sent', '1 now', 'of a contact that was merged');
        $sandbox->admin(settings => { latency_ms => 0 });
        is($shop->sql("SELECT contact_id FROM crm.message_end WHERE message_id = $message"), $older, 'told of the survivor');

        # its key has become too old while it was put off
        $message = awaits($contact, 'order', [ undef, undef, '2034-05-01Z' ]);
        $shop->sql("UPDATE crm.message SET tried_at = now() - interval '11 min' WHERE message_id = $message;
            UPDATE crm.outbox SET due_at = now() WHERE message_id = $message");
        ends($shop->send($bystander, 'order'), 'sent', '0', 'nobody waits for this one');
        ends($message, 'unknown no_reply', '1 in an hour', 'it may have arrived');
    };

    subtest "nobody waits, direct_access $lane" => sub {
        my $before = $shop->sql('SELECT count(*) FROM crm.message_end');
        $sandbox->admin(faults => { api => 'custom/send', fault => 'reset_before_reply', times => 1 });
        my $unknown = $shop->send($bystander, 'note');
        is($shop->state($unknown), 'unknown no_reply');
        my @messages = ($shop->send($bystander, 'note'), $shop->send($bystander, 'tale'), $shop->send($closed, 'note'),
            $shop->send($bystander, 'note', '{}', "due_at => now() - interval '2 h', expires_at => now() - interval '1 h'"), send_each('tell', [ [ $bystander ] ]));
        is(join(', ', map { $shop->state($_) } @messages), 'sent, failed missing_value:entry.amount, refused window_closed, expired expired, sent');
        my $later = $shop->send($bystander, 'note', '{}', "due_at => now() + interval '1 day'");
        $shop->sql("SELECT crm.cancel_message($bystander, $later), crm.resolve_message($bystander, $unknown, 'sent')");
        is($shop->sql('SELECT count(*) FROM crm.message_end'), $before, 'no row');
        is($shop->sql('SELECT count(*) FROM crm.message_end JOIN crm.message USING (contact_id, message_id) WHERE NOT awaited'), '0', 'not one');
        is($shop->sql('SELECT * FROM crm.verify()'), '', 'sound');
    };
}

subtest 'how long to wait' => sub {
    $shop->sql("ALTER SYSTEM SET pg_crm.unknown_after = '5min'; SELECT pg_reload_conf()");
    $shop->restart_worker;
    my $contact = $shop->person('o_wait');
    $shop->window($contact);
    $sandbox->admin(faults => { api => 'custom/send', fault => 'reset_before_reply', times => 1 });
    my $message = awaits($contact, 'note');
    is($shop->state($message), 'unknown no_reply');
    is($shop->sql("SELECT due_at BETWEEN now() + interval '4 min' AND now() + interval '5 min' FROM crm.message_end WHERE message_id = $message"), 't', 'pg_crm.unknown_after');
};

done_testing();
