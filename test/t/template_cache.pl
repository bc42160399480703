# What a session knows of templates when it queues messages: as committed, with what its own transaction changed, whoever
# changes them and by what statement.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use Test::More;

my $node = crm_node('template_cache');
my $db   = crm_database($node, 'shop');
$node->safe_psql($db, q{
    SELECT crm.install();
    CREATE FUNCTION define(name text, account text DEFAULT NULL, valid_for interval DEFAULT NULL) RETURNS integer LANGUAGE sql AS $$
        SELECT crm.define_template(jsonb_strip_nulls(jsonb_build_object('name', name, 'channel', 'official_account', 'message_type', 'text',
            'account', account, 'valid_for', valid_for, 'body', jsonb_build_object('content', 'Hello'))))$$;
    CREATE FUNCTION queued() RETURNS text LANGUAGE sql AS $$
        SELECT m.template || ' ' || m.template_version || ' ' || a.name || coalesce(' ' || (m.expires_at - m.due_at), '')
            FROM crm.message m JOIN crm.account a USING (account_id) ORDER BY m.message_id DESC LIMIT 1$$;
    INSERT INTO crm.contact (contact_id) VALUES (1);
    INSERT INTO crm.account (kind, name) VALUES ('official_account', 'shop');
    SELECT define('hello')});

# one session that stays; another one changes what it knows
my $connection = $node->connstr($db);
my (@script, @expected, @names);
sub here  { push @script, "$_[0];" }
sub there { push @script, qq{\\! psql -Xqt -v ON_ERROR_STOP=1 -d "$connection" -c "$_[0]" >/dev/null} }
sub queues
{
    my ($template, $expected, $name) = @_;
    # an error is shown by its code
    push @script, "SELECT crm.send(1, '$template');", q{\echo :SQLSTATE}, "SELECT '\@' || queued();";
    push @expected, $expected;
    push @names, $name;
}

queues('hello', '00000 hello 1 shop', 'a template');
here('SELECT define($$hello$$, valid_for => $$2 hours$$)');
queues('hello', '00000 hello 2 shop 02:00:00', 'a new version');
there(q{SELECT define('hello', valid_for => '3 hours')});
queues('hello', '00000 hello 3 shop 03:00:00', 'one of another session');
here('BEGIN'); here('SELECT define($$hello$$)');
queues('hello', '00000 hello 4 shop', 'one that is not committed');
here('SAVEPOINT s'); here('SELECT define($$hello$$, valid_for => $$5 hours$$)');
queues('hello', '00000 hello 5 shop 05:00:00', 'in a subtransaction');
here('ROLLBACK TO s');
queues('hello', '00000 hello 4 shop', 'which is taken back');
here('ROLLBACK');
queues('hello', '00000 hello 3 shop 03:00:00', 'with all of it');
there(q{UPDATE crm.account SET name = 'house'});
queues('hello', '00000 hello 3 house 03:00:00', 'the account has another name');
there(q{INSERT INTO crm.account (kind, name) VALUES ('official_account', 'other')});
queues('hello', '23503 hello 3 house 03:00:00', 'which of two accounts it is for nobody says');
here('SELECT define($$hello$$, $$other$$)');
queues('hello', '00000 hello 4 other', 'until the template does');
there(q{UPDATE crm.template SET account = 'house'});
queues('hello', '00000 hello 5 house', 'by UPDATE');
there(q{DELETE FROM crm.template});
queues('hello', '23503 hello 5 house', 'there is none any more');
there(q{SELECT define('hello', 'other')});
queues('hello', '00000 hello 6 other', 'but again');
here('BEGIN ISOLATION LEVEL REPEATABLE READ'); here('SELECT 1');
there(q{SELECT define('hello', 'house')});
queues('hello', '00000 hello 7 house', 'as committed, whatever the snapshot');
here('ROLLBACK');
there(q{SELECT define('t' || n, 'other') FROM generate_series(1, 300) AS n});
queues("t$_", "00000 t$_ 1 other", "one of many, $_") for 1, 150, 300, 1;
# more than are kept
here(q{SELECT count(crm.send(1, 't' || n)) FROM generate_series(1, 300) AS n});
queues('t7', '00000 t7 1 other', 'and after all of them');

my ($out, $err);
$node->psql($db, join("\n", '\set ON_ERROR_STOP 0', @script), stdout => \$out, stderr => \$err);
my @found;
my $code;
for (split /\n/, $out)
{
    $code = $_ if /^[0-9A-Z]{5}$/;
    push @found, "$code " . substr $_, 1 if /^@/;
}
is(scalar(@found), scalar(@expected), 'all was answered') or diag($err);
is($found[$_], $expected[$_], $names[$_]) for 0 .. $#expected;
is($node->safe_psql($db, 'SELECT count(*) FROM crm.verify()'), '0', 'sound');
$node->stop;
done_testing();
