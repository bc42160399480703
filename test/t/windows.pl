# Windows: which facts open them, how they are used up, and what closes them.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmShop;
use Test::More;

my $shop = CrmShop->new('windows');
my $sandbox = $shop->sandbox;
my $url = $sandbox->url('');
$url =~ s{/\z}{};

$shop->sql(<<SQL);
SELECT crm.define_qr_code('{"account": "maison", "scene": "door"}');
INSERT INTO crm.account (kind, name, app_id, base_url) VALUES ('mini_program', 'mini', 'wx02', '$url');
SQL

my $seconds = "kind || ' ' || coalesce(quota::text, 'any') || ' ' || extract(epoch FROM expires_at - opened_at)::integer";

sub grants
{
    my ($contact) = @_;
    return $shop->sql("SELECT string_agg($seconds, ', ' ORDER BY grant_id) FROM crm.window_grant WHERE contact_id = $contact");
}

sub used
{
    my ($contact) = @_;
    return $shop->sql("SELECT string_agg(used || '/' || coalesce(quota::text, 'any'), ' ' ORDER BY grant_id)"
          . " FROM crm.window_grant WHERE contact_id = $contact");
}

subtest 'facts open windows by the rules' => sub {
    my $contact = $shop->sql("SELECT crm.follow('maison', 'o_follow')");
    is(grants($contact), 'follow 3 60', 'a follow');
    $contact = $shop->sql("SELECT contact_id FROM crm.scan('door', 'maison', 'o_scan')");
    is(grants($contact), 'scan 3 60', 'a scan');
    $contact = $shop->sql("SELECT crm.follow('maison', 'o_both', now(), 'qrscene_door')");
    is(grants($contact), 'follow 3 60', 'a follow by a scan is one act');
    for my $case ([ message => 'message 5 172800' ], [ menu_click => 'menu_click 3 60' ])
    {
        $contact = $shop->person("o_$case->[0]");
        $shop->sql("SELECT crm.track($contact, '$case->[0]', account => 'maison')");
        is(grants($contact), $case->[1], "$case->[0]");
        $shop->sql("SELECT crm.track($contact, '$case->[0]')");
        is(grants($contact), $case->[1], '… but not without an account');
    }
    $contact = $shop->person('o_view');
    $shop->sql("SELECT crm.track($contact, 'view', account => 'maison')");
    is(grants($contact), '', 'another fact opens none');
    $contact = $shop->sql("SELECT crm.identify('mini', 'm1')");
    $shop->sql("SELECT crm.track($contact, 'enter_session', account => 'mini')");
    is(grants($contact), 'enter_session 2 60', 'enter_session of a mini program');
    $shop->sql("SELECT crm.track($contact, 'message', account => 'mini')");
    is(grants($contact), 'enter_session 2 60, message 5 172800', 'a message to one');
    $contact = $shop->person('o_session');
    $shop->sql("SELECT crm.track($contact, 'enter_session', account => 'maison')");
    is(grants($contact), '', 'enter_session of an official account opens none');
    $contact = $shop->person('o_click_message');
    $shop->sql(qq{BEGIN; SELECT crm.track($contact, 'menu_click', at => now(), account => 'maison');
      SELECT crm.track($contact, 'message', at => now(), account => 'maison'); COMMIT;});
    is(grants($contact), 'menu_click 3 60, message 5 172800', 'a message in the second of a click opens its own');
    $shop->sql("UPDATE crm.window_rule SET quota = 20, valid_for = '2 days' WHERE kind = 'menu_click'");
    $contact = $shop->person('o_new_rule');
    $shop->sql("SELECT crm.track($contact, 'menu_click', account => 'maison')");
    is(grants($contact), 'menu_click 20 172800', 'the rules are rows');
};

subtest 'what came too late' => sub {
    my $contact = $shop->person('o_late');
    $shop->sql("SELECT crm.track($contact, 'message', at => now() - interval '23 hours', account => 'maison')");
    is(grants($contact), 'message 5 172800', 'a fact of 23 hours ago opens a window');
    $contact = $shop->person('o_later');
    $shop->sql("SELECT crm.track($contact, 'message', at => now() - interval '25 hours', account => 'maison')");
    is(grants($contact), '', 'one of 25 hours ago does not, though it would still be open');
    $shop->sql(qq{SET pg_crm.max_lateness = '30h';
      SELECT crm.track($contact, 'message', at => now() - interval '26 hours', account => 'maison')});
    is(grants($contact), 'message 5 172800', 'pg_crm.max_lateness says what is too late');
    $contact = $shop->sql("SELECT crm.follow('maison', 'o_late_follow', now() - interval '2 minutes')");
    is(grants($contact), '', 'a window that has ended is not opened');
    is($shop->state($shop->send($contact, 'note')), 'refused window_closed', 'and nothing goes out');
};

subtest 'counted exactly, the soonest-ending first' => sub {
    my $contact = $shop->person('o_count');
    my $long = $shop->window($contact, 2, '2 days');
    my $short = $shop->window($contact, 2, '1 hour');
    my @messages = map { $shop->send($contact, 'note') } 1 .. 6;
    ok($shop->empty, 'all have ended');
    my @states = map { $shop->state($_) } @messages;
    is_deeply(\@states, [ ('sent') x 4, ('refused window_closed') x 2 ], 'four went out, then the windows were used up');
    is(scalar(grep { $_->{delivered} } $shop->received('o_count')), 4, 'which is what was received');
    is(used($contact), '2/2 2/2', 'each window was used to its number');
    is($shop->sql("SELECT string_agg((grant_id = $short)::text, ',' ORDER BY message_id) FROM crm.message"
          . " WHERE contact_id = $contact AND state = 'sent'"), 'true,true,false,false', 'the one that ends first was spent first');
};

subtest 'a window that ended' => sub {
    my $contact = $shop->person('o_ended');
    $shop->sql("INSERT INTO crm.window_grant (contact_id, account_id, kind, opened_at, expires_at, quota)"
          . " SELECT $contact, account_id, 'message', now() - interval '2 days', now(), 5 FROM crm.account WHERE name = 'maison'");
    is($shop->state($shop->send($contact, 'note')), 'refused window_closed', 'lets nothing go');
    is($shop->state($shop->send($contact, 'order')), 'sent', 'but a template message');
    $shop->window($contact);
    is($shop->state($shop->send($contact, 'note')), 'sent', 'a window without a number lets messages go');
    $shop->sql("INSERT INTO crm.window_grant (contact_id, account_id, kind, opened_at, expires_at, quota)"
          . " SELECT $contact, account_id, 'message', now(), now() + interval '1 day', 5 FROM crm.account WHERE name = 'till'");
    $shop->sql("UPDATE crm.window_grant SET expires_at = opened_at WHERE contact_id = $contact AND quota IS NULL");
    is($shop->state($shop->send($contact, 'note')), 'refused window_closed', 'a window of another account lets none');
};

subtest 'what the platform says of windows' => sub {
    my $contact = $shop->person('o_spent');
    $shop->window($contact, 5, '1 hour');
    $shop->window($contact, 5, '2 hours');
    $sandbox->admin(faults => { api => 'custom/send', fault => 'errcode_45047', times => 1 });
    is($shop->state($shop->send($contact, 'note')), 'sent', '45047: another window is used');
    is(used($contact), '5/5 1/5', 'the spent one is written off');
    is(scalar(my @rows = $shop->received('o_spent')), 2, 'in two requests');

    $sandbox->admin(faults => { api => 'custom/send', fault => 'errcode_45047', times => 1 });
    is($shop->state($shop->send($contact, 'note')), 'refused window_closed', '45047 and no other window');
    is(used($contact), '5/5 5/5', 'both are written off');

    $contact = $shop->person('o_closed');
    $shop->window($contact, 5, '1 hour');
    $shop->window($contact, 5, '2 hours');
    $sandbox->admin(faults => { api => 'custom/send', fault => 'errcode_45015', times => 1 });
    is($shop->state($shop->send($contact, 'note')), 'refused window_closed', '45015 closes');
    is($shop->sql("SELECT count(*) FROM crm.window_grant WHERE contact_id = $contact AND expires_at > now()"), '0', 'all windows');
    is($shop->state($shop->send($contact, 'note')), 'refused window_closed', 'the next is not even tried');
    is(scalar(@rows = $shop->received('o_closed')), 1, 'so one request was made');
    $shop->sql("SELECT crm.track($contact, 'message', account => 'maison')");
    is($shop->state($shop->send($contact, 'note')), 'sent', 'until the contact writes again');

    $contact = $shop->person('o_43101');
    $sandbox->admin(faults => { api => 'template/send', fault => 'errcode_43101', times => 3 });
    is($shop->state($shop->send($contact, 'order')), 'refused not_accepted', 'without a window there is no other to try');
    is(scalar(@rows = $shop->received('o_43101')), 1, 'after one request');
    $sandbox->clear_faults;
};

subtest 'an unfollow closes' => sub {
    my $contact = $shop->sql("SELECT crm.follow('maison', 'o_leaves')");
    $shop->sql("SELECT crm.track($contact, 'message', account => 'maison')");
    $shop->sql("SELECT crm.unfollow('maison', 'o_leaves')");
    is($shop->sql("SELECT count(*) FROM crm.window_grant WHERE contact_id = $contact AND expires_at > now()"), '0', 'every window');
    is($shop->state($shop->send($contact, 'note')), 'refused window_closed', 'nothing goes out');
    $shop->sql("SELECT crm.follow('maison', 'o_leaves')");
    is($shop->state($shop->send($contact, 'note')), 'sent', 'who comes back is written to');
    $shop->sql("SELECT crm.unfollow('maison', 'o_leaves', now() - interval '1 hour')");
    is($shop->state($shop->send($contact, 'note')), 'sent', 'an unfollow before the last follow closes nothing');
};

subtest 'attempts that surely reached nobody' => sub {
    my $contact = $shop->person('o_retry');
    $shop->window($contact, 2);
    $sandbox->admin(faults => { api => 'custom/send', fault => 'errcode_-1', times => 2 });
    is($shop->state($shop->send($contact, 'note')), 'sent', 'sent at the third attempt');
    is(used($contact), '1/2', 'uses the window once');
    is($shop->state($shop->send($contact, 'note')), 'sent', 'and another one goes');
    is(used($contact), '2/2', 'by the same window');

    $contact = $shop->person('o_unknown');
    $shop->window($contact, 2);
    $sandbox->admin(faults => { api => 'custom/send', fault => 'reset_before_reply', times => 1 });
    my $message = $shop->send($contact, 'note');
    is($shop->state($message), 'unknown no_reply', 'one that may have arrived');
    is(used($contact), '1/2', 'used it');

    $contact = $shop->person('o_outage');
    $shop->window($contact, 2);
    $sandbox->admin(outage => { seconds => 2 });
    is($shop->state($shop->send($contact, 'note')), 'sent', 'after an outage it is sent');
    is(used($contact), '1/2', 'having used the window once');
};

is($shop->sql('SELECT count(*) FROM crm.window_grant WHERE used > quota'), '0', 'no window was used beyond its number');

done_testing();
