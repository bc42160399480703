# The story whole, live: the script of the demo, with a worker and the sandbox as WeChat. What the journeys
# send arrives, once, in order, in time; what the facts bring about is there.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmSandbox;
use CrmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $sandbox = CrmSandbox->start(accounts => { wx_boutique => 'boutique_secret' });
my $node = crm_node('story', worker => 1);
my $db = crm_database($node, 'shop');
$ENV{SANDBOX} = $sandbox->url;

my $out = '';
for my $script (qw(story_setup story))
{
    my ($rc, $stdout, $stderr) = $node->psql($db, '', extra_params => [ '-f', "test/demo/$script.sql" ], timeout => 120);
    is($rc, 0, "$script.sql runs") or diag($stderr);
    is($stderr, '', 'without a complaint');
    $out .= $stdout;
}

my @arrived = $sandbox->ledger(touser => 'o_wu');
is(scalar @arrived, 4, 'four messages arrived');
is(scalar(grep { $_->{delivered} } @arrived), 4, 'each of them for the first time');
like($arrived[0]{body}{text}{content}, qr/Reply with your mobile/, 'first the ask for the mobile');
like($arrived[1]{body}{text}{content}, qr/Thank you, dear customer/, 'then thanks');
my $code = $node->safe_psql($db, 'SELECT code FROM crm.coupon_grant');
is($arrived[2]{body}{text}{content}, "10 % off today. Show $code at the checkout.", 'the coupon with its code');
is($arrived[3]{body}{news}{articles}[0]{title}, 'Join our friends', 'and the invitation');

# as the brand sees it
is($node->safe_psql($db, q{SELECT string_agg(template || ' ' || state, ', ' ORDER BY message_id) FROM crm.message}),
    'ask_mobile sent, thanks sent, coupon sent, invitation sent', 'all of them are sent');
is($node->safe_psql($db, q{SELECT count(*) FROM crm.message WHERE sent_at - recorded_at > interval '1 minute'}), '0',
    'each within the minute that the platform gives');
is($node->safe_psql($db, q{SELECT string_agg(kind || ' ' || quota || ' ' || used, ', ' ORDER BY grant_id) FROM crm.window_grant}),
    'follow 3 3, message 5 1', 'the windows that end first were used first');
is($node->safe_psql($db, q{SELECT string_agg(achievement, ', ' ORDER BY awarded_at, achievement COLLATE "C") FROM crm.award}),
    'first_scan, follow, bind_mobile, first_purchase, join_loyalty, second_purchase', 'the six awards');
is($node->safe_psql($db, q{SELECT string_agg(e.journey || ' ' || e.state || coalesce(' ' || e.end_reason, '') || ': '
        || (SELECT string_agg(v.step || coalesce(' (' || m.template || ')', ''), ', ' ORDER BY v.visit)
              FROM crm.step_visit AS v LEFT JOIN crm.message AS m USING (contact_id, message_id) WHERE v.enrolment_id = e.enrolment_id),
        '; ' ORDER BY e.enrolment_id) FROM crm.enrolment AS e}),
    'welcome finished: known, ask (ask_mobile), thanks (thanks); checkout finished: coupon, tell (coupon); club exited goal: invite (invitation), decide',
    'by the three journeys, whole');
is($node->safe_psql($db, q{SELECT count(DISTINCT contact_id) FROM crm.contact}), '1', 'of one person');
is($node->safe_psql($db, 'SELECT count(*) FROM crm.verify()'), '0', 'verify() finds nothing');
is(scalar(() = $out =~ /ms after COMMIT/g), 4, 'the script printed each as it arrived') or diag($out);

done_testing();
