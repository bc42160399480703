# How often contacts are written to (caps), and when they are not (quiet hours).
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmShop;
use PostgreSQL::Test::Utils;
use Test::More;

my $shop = CrmShop->new('caps', conf => "max_connections = 60\n");
my $sandbox = $shop->sandbox;

sub follower
{
    my ($openid) = @_;
    return $shop->sql("SELECT crm.follow('maison', '$openid')");
}

subtest 'many sessions, one contact' => sub {
    $shop->sql("INSERT INTO crm.frequency_cap VALUES ('weekly', NULL, 'marketing', 3, '7 days')");
    my $contact = follower('o_capped');
    my $file = PostgreSQL::Test::Utils::tempdir() . '/send.sql';
    append_to_file($file, "SELECT crm.send($contact, 'advert');\n");
    $shop->node->command_ok([ 'pgbench', '-n', '-c', 32, '-j', 4, '-t', 1, '-f', $file, 'shop' ], '32 sessions ask at once');
    ok($shop->empty, 'all have ended');
    is($shop->sql("SELECT string_agg(n || ' ' || s, ', ' ORDER BY s DESC) FROM (SELECT count(*) n, state || coalesce(' ' || reason, '') s"
          . " FROM crm.message WHERE contact_id = $contact GROUP BY 2) x"), '3 sent, 29 refused cap:weekly', 'three go, the others are refused');
    is(scalar(grep { $_->{delivered} } $shop->received('o_capped')), 3, 'three arrived');
    is($shop->state($shop->send($contact, 'order')), 'sent', 'a cap of marketing does not hold service');
    is($shop->state($shop->send($contact, 'advert')), 'refused cap:weekly', 'nor does service use it');
};

subtest 'the period rolls' => sub {
    my $contact = follower('o_rolling');
    is($shop->state($shop->send($contact, 'advert')), 'sent', "message $_") for 1 .. 3;
    is($shop->state($shop->send($contact, 'advert')), 'refused cap:weekly', 'the fourth is refused');
    $shop->sql("UPDATE crm.message SET sent_at = sent_at - interval '7 days' WHERE message_id ="
          . " (SELECT min(message_id) FROM crm.message WHERE contact_id = $contact)");
    is($shop->state($shop->send($contact, 'advert')), 'sent', 'a week after the first, one more goes');
    is($shop->state($shop->send($contact, 'advert')), 'refused cap:weekly', 'and one only');
    $contact = follower('o_others');
    $sandbox->admin(faults => { api => 'template/send', fault => 'errcode_47003', times => 3 });
    is($shop->state($shop->send($contact, 'advert')), 'failed bad_data', 'one that failed') for 1 .. 3;
    is($shop->state($shop->send($contact, 'advert')), 'sent', 'does not count');
    $shop->sql("SELECT crm.define_template('{\"name\": \"spree\", \"channel\": \"official_account\", \"message_type\": \"text\","
          . " \"class\": \"marketing\", \"body\": {\"content\": \"x\"}}')");
    for (1 .. 2)
    {
        $sandbox->admin(faults => { api => 'custom/send', fault => 'reset_before_reply', times => 1 });
        is($shop->state($shop->send($contact, 'spree')), 'unknown no_reply', 'one that may have arrived');
    }
    is($shop->state($shop->send($contact, 'advert')), 'refused cap:weekly', 'counts');
};

subtest 'channels and classes' => sub {
    $shop->sql("DELETE FROM crm.frequency_cap; INSERT INTO crm.frequency_cap VALUES ('hooks', 'webhook', NULL, 1, '1 day'),"
          . " ('all', NULL, NULL, 4, '1 hour')");
    my $contact = follower('o_channels');
    is($shop->state($shop->send($contact, 'tell')), 'sent', 'a webhook');
    is($shop->state($shop->send($contact, 'tell')), 'refused cap:hooks', 'is capped by its channel');
    is($shop->state($shop->send($contact, $_)), 'sent', "$_ is not") for qw(order advert order);
    is($shop->state($shop->send($contact, $_)), 'refused cap:all', "the cap of all counts all: $_") for qw(order advert);
    $shop->sql('DELETE FROM crm.frequency_cap');
    is($shop->state($shop->send($contact, 'tell')), 'sent', 'without a cap all goes');
};

# Quiet hours from so many hours ago until so many hours from now, by the clock of a zone
sub hours
{
    my ($zone, $from, $to) = @_;
    return $shop->sql("SELECT to_char(t + interval '$from h', 'HH24:MI') || '-' || to_char(t + interval '$to h', 'HH24:MI')"
          . " FROM timezone('$zone', now()) t");
}

sub quiet
{
    my ($name, $hours, $class, $channel) = @_;
    $_ = defined $_ ? "'$_'" : 'NULL' for $class, $channel;
    $shop->sql("INSERT INTO crm.quiet_hours VALUES ('$name', $channel, $class, '$hours')");
}

subtest 'quiet hours, by the clock of the contact' => sub {
    quiet('night', hours('Asia/Shanghai', -1, 2), 'marketing');
    my $soon = "expires_at => now() + interval '1 hour'";
    my $contact = follower('o_here');
    my $message = $shop->send($contact, 'advert');
    is($shop->state($message, 'queued quiet'), 'queued quiet', 'in the zone of the account it is quiet: the message waits');
    cmp_ok($shop->sql("SELECT round(extract(epoch FROM due_at - now()) / 60) FROM crm.outbox WHERE message_id = $message"), '>=', 118,
        'until the end of the hours');
    cmp_ok($shop->sql("SELECT round(extract(epoch FROM due_at - now()) / 60) FROM crm.outbox WHERE message_id = $message"), '<=', 120,
        'and not longer');
    is($shop->state($shop->send($contact, 'advert', '{}', $soon)), 'expired quiet', 'one that would be too late then expires at once');
    is($shop->state($shop->send($contact, 'order')), 'sent', 'service goes');

    my $abroad = follower('o_abroad');
    $shop->sql("UPDATE crm.contact SET time_zone = 'America/Los_Angeles' WHERE contact_id = $abroad");
    is($shop->state($shop->send($abroad, 'advert')), 'sent', 'where the contact lives it is not quiet');
    my $nowhere = follower('o_nowhere');
    for my $zone ('Mars/Olympus', '', 'x' x 300, '../../etc/passwd', 'posix/right')
    {
        $shop->sql("UPDATE crm.contact SET time_zone = '$zone' WHERE contact_id = $nowhere");
        is($shop->state($shop->send($nowhere, 'advert', '{}', $soon)), 'expired quiet', 'what is no zone is that of the account: ' . substr $zone, 0, 20);
    }
    $shop->sql("UPDATE crm.account SET time_zone = 'America/Los_Angeles' WHERE name = 'maison'");
    is($shop->state($shop->send($nowhere, 'advert')), 'sent', 'the account has its own');
    $shop->sql("UPDATE crm.account SET time_zone = NULL WHERE name = 'maison'");

    $shop->sql("UPDATE crm.quiet_hours SET hours = '" . hours('America/Los_Angeles', -1, 2) . "'");
    is($shop->state($shop->send($abroad, 'advert', '{}', $soon)), 'expired quiet', 'when it is quiet there');
    is($shop->state($shop->send($contact, 'advert')), 'sent', 'it is not here');
    is($shop->state($message, 'queued quiet'), 'queued quiet', 'the first still waits');
    $shop->sql("UPDATE crm.outbox SET due_at = now() WHERE message_id = $message; SELECT crm.send($contact, 'order')");
    is($shop->state($message), 'sent', 'until it is looked at');
};

subtest 'the end comes' => sub {
    # quiet until the next full minute, which is as fine as hours go
    my $clock = $shop->sql("SELECT extract(second FROM now())::integer");
    $shop->sql('DELETE FROM crm.quiet_hours');
    my $zone = 'Asia/Shanghai';
    my ($from, $to) = split / /, $shop->sql("SELECT to_char(t - interval '1 h', 'HH24:MI') || ' ' || to_char(t + interval '65 s', 'HH24:MI')"
          . " FROM timezone('$zone', now()) t");
    quiet('minute', "$from-$to", 'marketing');
    my $contact = follower('o_minute');
    my $message = $shop->send($contact, 'advert');
    is($shop->state($message, 'queued quiet'), 'queued quiet', 'it waits');
    local $CrmShop::patience = 150;
    is($shop->state($message), 'sent', 'and is sent');
    is($shop->sql("SELECT to_char(timezone('$zone', sent_at), 'HH24:MI') FROM crm.message WHERE message_id = $message"), $to,
        'at the end of the quiet hours');
};

subtest 'classes, channels, more than one' => sub {
    $shop->sql('DELETE FROM crm.quiet_hours');
    my $soon = "expires_at => now() + interval '3 hours'";
    quiet('hooks', hours('Asia/Shanghai', -1, 4), undef, 'webhook');
    my $contact = follower('o_more');
    is($shop->state($shop->send($contact, 'tell', '{}', $soon)), 'expired quiet', 'of any class on a channel');
    is($shop->state($shop->send($contact, $_, '{}', $soon)), 'sent', "not on another: $_") for qw(order advert);
    $shop->sql('DELETE FROM crm.quiet_hours');
    quiet('short', hours('Asia/Shanghai', -1, 1), 'marketing');
    quiet('long', hours('Asia/Shanghai', -2, 2), 'marketing');
    my $message = $shop->send($contact, 'advert');
    is($shop->state($message, 'queued quiet'), 'queued quiet', 'of two the later end counts');
    cmp_ok($shop->sql("SELECT round(extract(epoch FROM due_at - now()) / 60) FROM crm.outbox WHERE message_id = $message"), '>=', 118,
        'of the longer one');
    $shop->sql("SELECT crm.cancel_message($contact, $message); DELETE FROM crm.quiet_hours");
    quiet('always', '24/7', 'marketing');
    is($shop->state($shop->send($contact, 'advert')), 'expired quiet', 'hours without an end leave no moment');
    $shop->sql('DELETE FROM crm.quiet_hours');
    quiet('other', hours('Asia/Shanghai', 2, 4), 'marketing');
    is($shop->state($shop->send($contact, 'advert')), 'sent', 'outside of them all goes');
};

# The zone's rules are PostgreSQL's own here, the hours by plain comparison of the wall clock
subtest 'across midnight and the change of clocks' => sub {
    my $differences = $shop->sql(<<'SQL');
WITH z(zone, day) AS (VALUES ('America/New_York', '2026-03-08'), ('America/New_York', '2026-11-01'), ('Europe/Berlin', '2026-03-29'),
       ('Europe/Berlin', '2026-10-25'), ('Australia/Lord_Howe', '2026-04-05'), ('Asia/Shanghai', '2026-06-01')),
     h(hours, opens, closes) AS (VALUES ('22:00-08:00', '22:00'::time, '08:00'::time), ('23:30-02:30', '23:30', '02:30'), ('01:30-02:15', '01:30', '02:15')),
     i AS (SELECT zone, hours, opens, closes, at, timezone(zone, at)::time AS clock FROM z, h,
       generate_series(timezone(zone, day::timestamp) - interval '1 day', timezone(zone, day::timestamp) + interval '2 days', '5 minutes') at)
SELECT coalesce(string_agg(zone || ' ' || hours || ' ' || at, ', '), 'none'), count(*) FROM i
 WHERE crm.is_open(hours::crm.weekly_hours, at, zone) <>
       CASE WHEN opens < closes THEN clock >= opens AND clock < closes ELSE clock >= opens OR clock < closes END
SQL
    is($differences, 'none|0', 'hours are those of the clock on the wall');
};

done_testing();
