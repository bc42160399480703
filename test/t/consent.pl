# Who may be written to: consent, follows, suppression, and what platforms say of people.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmShop;
use Test::More;

my $shop = CrmShop->new('consent');
my $sandbox = $shop->sandbox;

# Both template messages, so that windows do not matter
sub tries
{
    my ($contact) = @_;
    return $shop->state($shop->send($contact, 'order')) . ', ' . $shop->state($shop->send($contact, 'advert'));
}

subtest 'without a word' => sub {
    my $contact = $shop->person('o_stranger');
    is(tries($contact), 'sent, refused no_consent', 'service goes, marketing does not');
    $contact = $shop->sql("SELECT crm.follow('maison', 'o_fan')");
    is(tries($contact), 'sent, sent', 'a follow is proof enough for marketing');
    $shop->sql("SELECT crm.unfollow('maison', 'o_fan')");
    is(tries($contact), 'sent, refused no_consent', 'until the unfollow');
    $shop->sql("SELECT crm.follow('maison', 'o_fan')");
    is(tries($contact), 'sent, sent', 'and from the next follow on');
    my $old = $shop->sql("SELECT crm.follow('maison', 'o_old', now() - interval '3 years')");
    is(tries($old), 'sent, sent', 'a follow of years ago, recorded today, is proof too');
    $shop->sql("SELECT crm.unfollow('maison', 'o_old', now() - interval '2 years')");
    is(tries($old), 'sent, refused no_consent', 'as is the unfollow after it');
};

subtest 'said and taken back' => sub {
    my $contact = $shop->sql("SELECT crm.follow('maison', 'o_says')");
    $shop->sql("SELECT crm.withdraw_consent($contact, 'official_account', 'marketing')");
    is(tries($contact), 'sent, refused no_consent', 'a withdrawal counts more than the follow');
    $shop->sql("SELECT crm.grant_consent($contact, 'official_account', 'marketing', proof => '{\"form\": 7}')");
    is(tries($contact), 'sent, sent', 'a grant counts again');
    $shop->sql("SELECT crm.withdraw_consent($contact, 'official_account', 'service')");
    is(tries($contact), 'refused no_consent, sent', 'each class has its own');
    $shop->sql("SELECT crm.grant_consent($contact, 'official_account', 'service')");

    $shop->sql("SELECT crm.withdraw_consent($contact, 'official_account', 'marketing', now() - interval '1 hour')");
    is(tries($contact), 'sent, sent', 'a withdrawal from before the last word changes nothing');
    $shop->sql(qq{BEGIN; SELECT crm.withdraw_consent($contact, 'official_account', 'marketing', now());
      SELECT crm.grant_consent($contact, 'official_account', 'marketing', now()); COMMIT;});
    is(tries($contact), 'sent, refused no_consent', 'of two words at one instant the no counts');
    is($shop->sql("SELECT count(*) FROM crm.event WHERE contact_id = $contact AND kind ~ 'consent'"), '7', 'every word is an event');

    $contact = $shop->person('o_granted');
    $shop->sql("SELECT crm.grant_consent($contact, 'official_account', 'marketing')");
    is(tries($contact), 'sent, sent', 'a grant needs no follow');
    $contact = $shop->person('o_elsewhere');
    $shop->sql("SELECT crm.grant_consent($contact, 'sms', 'marketing')");
    is(tries($contact), 'sent, refused no_consent', 'a grant on another channel is none here');
};

subtest 'suppressed' => sub {
    my $contact = $shop->sql("SELECT crm.follow('maison', 'o_quiet')");
    $shop->sql("SELECT crm.suppress($contact, 'official_account', 'asked for it')");
    is(tries($contact), 'refused suppressed, refused suppressed', 'on its channel nothing goes');
    is($shop->state($shop->send($contact, 'tell')), 'sent', 'on another it does');
    $shop->sql("SELECT crm.unsuppress($contact, 'official_account')");
    is(tries($contact), 'sent, sent', 'after unsuppress() it does');
    $shop->sql("SELECT crm.suppress($contact)");
    is(tries($contact), 'refused suppressed, refused suppressed', 'on all channels');
    is($shop->state($shop->send($contact, 'tell')), 'refused suppressed', 'a webhook too');
    $shop->sql("SELECT crm.unsuppress($contact, 'official_account')");
    is($shop->state($shop->send($contact, 'order')), 'refused suppressed', 'one of all channels is not ended for one');
    $shop->sql("SELECT crm.unsuppress($contact)");
    is($shop->state($shop->send($contact, 'order')), 'sent', 'but for all');
    is(scalar(grep { $_->{delivered} } $shop->received('o_quiet')), 3, 'what was refused was not sent');
};

subtest 'between asking and sending' => sub {
    my $contact = $shop->sql("SELECT crm.follow('maison', 'o_between')");
    my $soon = "due_at => now() + interval '2 s'";
    my @messages = map { $shop->send($contact, 'advert', '{}', $soon) } 1 .. 2;
    $shop->sql("SELECT crm.withdraw_consent($contact, 'official_account', 'marketing')");
    is($shop->state($_), 'refused no_consent', 'a word in between counts') for @messages;
    my $message = $shop->send($contact, 'order', '{}', $soon);
    $shop->sql("SELECT crm.suppress($contact)");
    is($shop->state($message), 'refused suppressed', 'so does a suppression');
    $shop->sql("SELECT crm.suppress($contact)");
    $message = $shop->send($contact, 'order', '{}', $soon);
    $shop->sql("SELECT crm.unsuppress($contact)");
    is($shop->state($message), 'sent', 'and its end');
};

subtest 'what the platform says of people' => sub {
    my $contact = $shop->sql("SELECT crm.follow('maison', 'o_gone_away')");
    $sandbox->admin(contacts => { openid => 'o_gone_away', follow => 0 });
    is($shop->state($shop->send($contact, 'order')), 'failed unfollowed', '43004');
    $shop->becomes("SELECT count(*) FROM crm.event WHERE contact_id = $contact AND kind = 'unfollow'"
              . " AND properties = '{\"by\": \"platform\", \"errcode\": 43004}'", '1', 'is an unfollow that nobody reported');
    is($shop->sql("SELECT count(*) FROM crm.window_grant WHERE contact_id = $contact AND expires_at > now()"), '0', 'closes windows');
    is($shop->state($shop->send($contact, 'advert')), 'refused no_consent', 'and ends the proof for marketing');
    is($shop->state($shop->send($contact, 'order')), 'failed unfollowed', 'said once more');
    is($shop->sql("SELECT count(*) FROM crm.event WHERE contact_id = $contact AND kind = 'unfollow'"), '1', 'it is still one event');

    for my $case ([ optout => 48002, 'opted_out' ], [ blocked => 43019, 'blacklisted' ])
    {
        my ($field, $code, $reason) = @$case;
        $contact = $shop->sql("SELECT crm.follow('maison', 'o_$field')");
        $sandbox->admin(contacts => { openid => "o_$field", $field => 1 });
        is($shop->state($shop->send($contact, 'order')), "failed $reason", "errcode $code");
        $shop->becomes("SELECT channel || ' ' || reason FROM crm.suppression WHERE contact_id = $contact"
                  . ' AND ended_at IS NULL', "official_account platform: $code", 'is a suppression');
        is($shop->sql("SELECT properties->>'reason' FROM crm.event WHERE contact_id = $contact AND kind = 'suppress'"),
            "platform: $code", 'and an event');
        is($shop->state($shop->send($contact, 'order')), 'refused suppressed', 'the next is not tried');
        is(scalar(my @rows = $shop->received("o_$field")), 1, 'so there was one request');
    }

    $contact = $shop->person('o_bad');
    $sandbox->admin(faults => { api => 'template/send', fault => 'errcode_40003', times => 1 });
    is($shop->state($shop->send($contact, 'order')), 'failed bad_recipient', 'errcode 40003');
    is($shop->sql("SELECT errcode || ' ' || outcome FROM crm.delivery_attempt WHERE contact_id = $contact"),
        '40003 bad_recipient', 'the attempt says so');
    is($shop->sql("SELECT count(*) FROM crm.suppression WHERE contact_id = $contact"), '0', 'which is no wish of the contact');
    my $nobody = $shop->sql('INSERT INTO crm.contact DEFAULT VALUES RETURNING contact_id');
    is($shop->state($shop->send($nobody, 'order')), 'refused no_recipient', 'who has no identifier there is not tried');
};

done_testing();
