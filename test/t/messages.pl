# The life of one message: when it goes, taking it back, keys, templates and what they are filled with.
use strict;
use warnings;
use utf8;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmShop;
use JSON::PP ();
use Test::More;

my $shop = CrmShop->new('messages', conf => "pg_crm.send_timeout = 3s\n");
my $sandbox = $shop->sandbox;

subtest 'due and expired' => sub {
    my $contact = $shop->person('o_due');
    my $message = $shop->send($contact, 'order', '{}', "due_at => now() + interval '1500 ms'");
    is($shop->state($message), 'sent', 'a message for later is sent');
    is($shop->sql("SELECT sent_at >= due_at AND sent_at < due_at + interval '10 s' FROM crm.message WHERE message_id = $message"),
        't', 'not before it is due, nor long after');
    $message = $shop->send($contact, 'order', '{}', "due_at => now() - interval '2 h', expires_at => now() - interval '1 h'");
    is($shop->state($message), 'expired expired', 'one whose time is over is not sent');
    is($shop->refused("SELECT crm.send($contact, 'order', due_at => now(), expires_at => now() - interval '1 s')"), '22023',
        'one that expires before it is due is refused');
    $shop->sql("UPDATE crm.template SET valid_for = '1 hour' WHERE name = 'order'");
    $message = $shop->send($contact, 'order', '{}', "due_at => now() - interval '61 min'");
    is($shop->state($message), 'expired expired', 'a template says how long its messages are valid');
    $message = $shop->send($contact, 'order', '{}', "due_at => now() - interval '59 min'");
    is($shop->state($message), 'sent', 'from when they are due');
    $message = $shop->send($contact, 'order', '{}', "due_at => now() - interval '61 min', expires_at => now() + interval '1 h'");
    is($shop->state($message), 'sent', 'unless the call says otherwise');
    $shop->sql("UPDATE crm.template SET valid_for = NULL WHERE name = 'order'");
};

subtest 'taking back' => sub {
    my $contact = $shop->person('o_back');
    my $message = $shop->send($contact, 'order', '{}', "due_at => now() + interval '1 day'");
    is($shop->sql("SELECT crm.cancel_message($contact, $message)"), 't', 'before it is due');
    is($shop->state($message), 'cancelled', 'it is cancelled');
    is($shop->sql("SELECT crm.cancel_message($contact, $message)"), 't', 'said twice, the same');
    is($shop->sql('SELECT count(*) FROM crm.outbox'), '0', 'it has left the queue');

    $sandbox->admin(settings => { latency_ms => 1000 });
    $message = $shop->send($contact, 'order');
    wait_for(sub { scalar(my @rows = $shop->received('o_back')) }, 30, 'it is on its way');
    is($shop->sql("SELECT crm.cancel_message($contact, $message)"), 'f', 'on its way it is too late');
    is($shop->state($message), 'sent', 'it is sent');
    is($shop->sql("SELECT crm.cancel_message($contact, $message)"), 'f', 'and afterwards');
    $sandbox->admin(settings => { latency_ms => 0 });
    is($shop->refused("SELECT crm.cancel_message($contact, 999999)"), '23503', 'one that there is not');

    # it may have arrived, and is to be repeated under its key
    $sandbox->admin(faults => { api => 'template/send', fault => 'reset_before_reply', times => 2 });
    $message = $shop->send($contact, 'order');
    is($shop->state($message, 'queued no_reply'), 'queued no_reply', 'nobody knows whether it arrived');
    is($shop->sql("SELECT crm.cancel_message($contact, $message)"), 'f', 'then it cannot be taken back');
    is($shop->state($message), 'sent', 'it is sent');
    is(scalar(grep { $_->{delivered} } $shop->received('o_back')), 2, 'and arrived once, as the one before');
    $sandbox->clear_faults;
};

subtest 'unknown ones resolved' => sub {
    my $contact = $shop->person('o_unknown');
    $shop->window($contact);
    my @messages;
    for my $i (1 .. 2)
    {
        $sandbox->admin(faults => { api => 'custom/send', fault => 'reset_before_reply', times => 1 });
        push @messages, $shop->send($contact, 'note');
        is($shop->state($messages[-1]), 'unknown no_reply', 'no reply came');
    }
    is($shop->sql('SELECT count(*) FROM crm.message_unknown'), '2', 'they are listed');
    is($shop->refused("SELECT crm.resolve_message($contact, $messages[0], 'expired')"), '22023', 'only sent or failed');
    $shop->sql("SELECT crm.resolve_message($contact, $messages[0], 'sent', 'she says she has it')") for 1 .. 2;
    $shop->sql("SELECT crm.resolve_message($contact, $messages[1], 'failed')");
    is(join(' ', map { $shop->state($_) } @messages), 'sent resolved failed resolved', 'a person found out');
    is($shop->refused("SELECT crm.resolve_message($contact, $messages[1], 'sent')"), '55000', 'what is resolved stays');
    is($shop->sql('SELECT count(*) FROM crm.message_unknown'), '0', 'they are no longer listed');
    is($shop->sql("SELECT count(*) || ' ' || max(reply) FROM crm.delivery_attempt WHERE message_id = $messages[0]"
          . " AND outcome = 'resolved: sent'"), '1 postgres: she says she has it', 'who said so and why is kept, once');
    is($shop->sql("SELECT sent_at = tried_at FROM crm.message WHERE message_id = $messages[0]"), 't', 'sent when it was tried');
    is($shop->sql("SELECT sent_at IS NULL FROM crm.message WHERE message_id = $messages[1]"), 't', 'the other was not');
};

subtest 'keys' => sub {
    my $contact = $shop->person('o_key');
    my $message = $shop->send($contact, 'order', '{"text": "a"}', "send_key => 'k'");
    is($shop->send($contact, 'order', '{"text": "a"}', "send_key => 'k'"), $message, 'the same call is the same message');
    is($shop->state($message), 'sent', 'it is sent');
    is($shop->send($contact, 'order', '{"text": "a"}', "send_key => 'k'"), $message, 'also afterwards');
    is($shop->refused(qq{SELECT crm.send($contact, 'order', '{"text": "b"}', 'k')}), '23505', 'other values under it are refused');
    is($shop->refused("SELECT crm.send($contact, 'note', '{\"text\": \"a\"}', 'k')"), '23505', 'as is another template');
    my $other = $shop->person('o_key2');
    is($shop->state($shop->send($other, 'order', '{"text": "b"}', "send_key => 'k'")), 'sent', 'each contact has its own keys');
    is(scalar(my @rows = $shop->received('o_key')), 1, 'one request was made');
    $shop->sql("BEGIN; SELECT crm.send($contact, 'order', send_key => 'rolled back'); ROLLBACK");
    is($shop->sql("SELECT count(*) FROM crm.message WHERE send_key = 'rolled back'"), '0', 'what is rolled back was never asked for');
};

sub define
{
    my ($name, $body, $type) = @_;
    my $json = JSON::PP->new->canonical->encode({ name => $name, channel => 'official_account', message_type => $type // 'text', body => $body });
    $json =~ s/'/''/g;
    return $shop->sql("SELECT crm.define_template('$json')");
}

sub content
{
    my ($openid) = @_;
    my @rows = $shop->received($openid);
    return $rows[-1]{body}{text}{content};
}

subtest 'the version it was queued with' => sub {
    my $contact = $shop->person('o_version');
    $shop->window($contact);
    is(define(news => { content => 'old {{text}}' }), 1, 'the first version');
    my $soon = "due_at => now() + interval '2 s'";
    my $old = $shop->send($contact, 'news', '{"text": "a"}', $soon);
    is(define(news => { content => 'new {{text}}' }), 2, 'the second');
    my $new = $shop->send($contact, 'news', '{"text": "b"}', $soon);
    is(join(' ', map { $shop->state($_) } $old, $new), 'sent sent', 'both are sent');
    is(join(', ', map { $_->{body}{text}{content} } $shop->received('o_version')), 'old a, new b', 'each as it was queued');
};

subtest 'values' => sub {
    my $contact = $shop->person('o_value');
    $shop->window($contact);
    my $say = sub {
        my ($params) = @_;
        my $state = $shop->state($shop->send($contact, 'said', JSON::PP->new->canonical->encode($params)));
        return $state eq 'sent' ? content('o_value') : $state;
    };
    define(said => { content => '{{a}}' });
    for my $value ('"}, "touser": "o_other", "x": {"', "line\nand\ttab", '\\', '\\u0041', '{{b}}', '</script>', "'; DROP TABLE x --",
        '您好，张伟 🎉', "\x{2028}")
    {
        is($say->({ a => $value }), $value, 'stays the value: ' . JSON::PP->new->ascii->allow_nonref->encode($value));
    }
    is(scalar($shop->received('o_other')) // 0, 0, 'nobody else was written to');
    is($say->({ a => 12.50 }), '12.5', 'a number');
    is($say->({ a => JSON::PP::true }), 'true', 'a boolean');
    is($say->({}), 'failed missing_value:a', 'a value that is missing');
    is($say->({ a => undef }), 'failed missing_value:a', 'null is none');
    is($say->({ a => [ 1 ] }), 'failed missing_value:a', 'nor is a list');

    define(said => { content => '{{ a.b.c }}/{{x|nothing}}/{{y|}}' });
    is($say->({ a => { b => { c => 'deep' } } }), 'deep/nothing/', 'nested names and fallbacks');
    is($say->({ a => { b => 1 } }), 'failed missing_value:a.b.c', 'a path that ends early');

    define(said => { content => '{{name|dear customer}} {{城市|?}} {{attributes.size|?}} {{mobile|none}}' });
    is($say->({ '城市' => '上海' }), 'dear customer 上海 ? none', 'names in any script');
    $shop->sql("UPDATE crm.contact SET name = '王\"芳\"', attributes = '{\"size\": 38}' WHERE contact_id = $contact");
    is($say->({}), '王"芳" ? 38 none', 'columns of the contact');
    is($say->({ name => 'Wang' }), 'Wang ? 38 none', 'which params override');
    is($shop->sql("SELECT count(*) FROM crm.outbox"), '0', 'none stays in the queue');
    is($shop->sql("SELECT string_agg(DISTINCT state || coalesce(' ' || ended_at::text, ''), ',') FROM crm.message"
          . " WHERE state = 'failed' AND ended_at IS NULL"), '', 'what failed has ended');
};

subtest 'a webhook' => sub {
    my $contact = $shop->person('o_hook');
    my $sent = sub { grep { ($_->{body}{contact_id} // 0) == $contact } $sandbox->ledger(api => 'webhook/crm') };
    my $message = $shop->send($contact, 'tell', '{"text": "您好"}');
    is($shop->state($message), 'sent', 'signed so that it is taken');
    my ($row) = $sent->();
    is($row->{status} . ' ' . ($row->{delivered} ? 'delivered' : 'not'), '200 delivered', 'once');
    is_deeply($row->{body}, { message_id => $message + 0, contact_id => $contact + 0, template => 'tell', data => { text => '您好' } },
        'with what it is about');

    $sandbox->admin(faults => { api => 'webhook/crm', fault => 'http_500', received => JSON::PP::true, times => 2 });
    $message = $shop->send($contact, 'tell');
    is($shop->state($message), 'sent', 'after two failures');
    my @rows = grep { $_->{body}{message_id} == $message } $sent->();
    is(scalar @rows, 3, 'three requests');
    is(scalar(grep { $_->{key} eq $rows[0]{key} } @rows), 3, 'under one key');
    is(scalar(grep { $_->{delivered} } @rows), 1, 'which were one delivery');
    is($shop->sql("SELECT string_agg(http_status::text, ' ' ORDER BY attempt_id) FROM crm.delivery_attempt WHERE message_id = $message"),
        '500 500 200', 'and three attempts');

    $sandbox->admin(faults => { api => 'webhook/crm', fault => 'reset_before_reply', times => 1 });
    $message = $shop->send($contact, 'tell');
    is($shop->state($message), 'sent', 'without a reply it is repeated');
    is(scalar(grep { $_->{delivered} && $_->{body}{message_id} == $message } $sent->()), 1, 'and delivered once');

    $sandbox->admin(webhooks => { name => 'crm', status => 200, body => '{"ticket": "T-7"}' });
    $message = $shop->send($contact, 'tell');
    is($shop->state($message), 'sent', 'a reply');
    is($shop->sql("SELECT reply FROM crm.delivery_attempt WHERE message_id = $message"), '{"ticket": "T-7"}', 'is kept');
    $sandbox->admin(webhooks => { name => 'crm', status => 422, body => 'no such field' });
    $message = $shop->send($contact, 'tell');
    is($shop->state($message), 'failed http_422', 'a refusal is final');
    is($shop->sql("SELECT reply FROM crm.delivery_attempt WHERE message_id = $message"), 'no such field', 'and says why');
    $sandbox->admin(webhooks => { name => 'crm', status => 200, body => 'ok' });

    $shop->sql("UPDATE crm.account_secret SET value = 'wrong' WHERE name = 'signing_key'");
    like($shop->state($shop->send($contact, 'tell')), qr/^failed http_40/, 'another secret is not taken');
};

subtest 'merged on the way' => sub {
    my ($older, $younger) = map { $shop->person("o_merge$_") } 1, 2;
    $sandbox->admin(settings => { latency_ms => 1000 });
    my $message = $shop->send($younger, 'order');
    wait_for(sub { scalar(my @rows = $shop->received('o_merge2')) }, 30, 'it is on its way');
    $shop->sql("SELECT crm.merge($older, $younger, 'the same person')");
    is($shop->state($message), 'sent', 'it is sent');
    is($shop->sql("SELECT contact_id FROM crm.message WHERE message_id = $message"), $older, 'to the survivor');
    is($shop->sql("SELECT contact_id FROM crm.delivery_attempt WHERE message_id = $message"), $older, 'as is the attempt');

    # the reply comes while the merge is not yet committed, and for longer than anything waits for a lock
    $younger = $shop->person('o_merge3');
    $message = $shop->send($younger, 'order');
    wait_for(sub { scalar(my @rows = $shop->received('o_merge3')) }, 30, 'the next is on its way');
    my $session = $shop->session;
    $session->query_safe("BEGIN; SELECT crm.merge($older, $younger, 'the same person')");
    wait_for(sub { my ($row) = $shop->received('o_merge3'); $row->{replied} eq 'whole' }, 30, 'the reply is there');
    $sandbox->admin(settings => { latency_ms => 0 });
    my $bystander = $shop->person('o_bystander');
    is($shop->state($shop->send($bystander, 'order')), 'sent', 'a merge that takes its time holds nobody else up');
    $session->query_safe('COMMIT');
    $session->quit;
    is($shop->state($message), 'sent', 'its outcome is written when the merge is through');
    is($shop->sql("SELECT contact_id FROM crm.delivery_attempt WHERE message_id = $message"), $older, 'for the survivor');
    unlike($shop->log_text, qr/canceling statement due to lock timeout/, 'without an error');
};

done_testing();
