# A late queue and a worker that is off: seen at once, logged once by the worker, and over when it is over.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmSandbox;
use CrmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $sandbox = CrmSandbox->start(webhooks => { crm => 'whsec' });
my $node = crm_node('alarms', worker => 1, conf => "pg_crm.alarm_after = 1\n");
my $db = crm_database($node, 'shop');

sub sql { return $node->safe_psql($db, shift) }
sub alarms { return sql("SELECT string_agg(kind || ' ' || object, ', ' ORDER BY kind) FROM crm.active_alarm WHERE kind <> 'worker_down'") }
sub logged { my $pattern = shift; return scalar(() = slurp_file($node->logfile) =~ /$pattern/g) }

sql(<<SQL);
INSERT INTO crm.account (kind, name, base_url) VALUES ('webhook', 'till', '@{[ $sandbox->url('/webhook/crm') ]}');
INSERT INTO crm.account_secret SELECT account_id, 'signing_key', 'whsec' FROM crm.account;
SELECT crm.define_template('{"name": "tell", "channel": "webhook", "message_type": "post", "body": {"text": "x"}}');
INSERT INTO crm.contact (name) VALUES ('Wang');
SELECT crm.pause_account('till', 'a test');
SELECT crm.send(1, 'tell');
SQL
wait_for(sub { alarms() eq 'queue_late till' }, 60, 'the late queue is seen');
wait_for(sub { logged('WARNING: +pg_crm alarm queue_late of "till"') }, 60, 'it is logged');
is(sql("SELECT problem FROM crm.queue_health WHERE lane = 'normal'"), 'stopped until resume_account(): a test', 'and why');
is(sql("SELECT state FROM crm.message"), 'queued', 'a stopped account sends nothing');

sql("SELECT crm.resume_account('till')");
wait_for(sub { sql('SELECT state FROM crm.message') eq 'sent' }, 60, 'it is let go on, which wakes the worker');
is(alarms(), '', 'nothing is wrong any more');
wait_for(sub { logged('LOG: +pg_crm alarm queue_late of "till" is over') }, 60, 'the end is logged');
is(logged('WARNING: +pg_crm alarm queue_late of "till"'), 1, 'the beginning once');
is(scalar $sandbox->ledger, 1, 'the message came once');

sql("ALTER DATABASE $db SET pg_crm.worker = off");
wait_for(sub { sql("SELECT count(*) FROM crm.active_alarm WHERE kind = 'worker_down' AND detail ~ 'off for this database'") eq '1' }, 60, 'a worker that is off is seen');
sql('SELECT crm.send(1, \'tell\')');
is(sql("SELECT problem FROM crm.queue_health WHERE lane = 'normal'"), 'no worker: pg_crm.worker is off for this database', 'and named where messages wait');
wait_for(sub { alarms() eq 'queue_late till' }, 60, 'the queue is late, though nobody is there to say so');
sql("ALTER DATABASE $db RESET pg_crm.worker");
wait_for(sub { sql('SELECT count(*) FROM crm.active_alarm') eq '0' }, 60, 'all is well again');

done_testing();
