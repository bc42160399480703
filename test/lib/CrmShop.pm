# CrmShop - a database whose worker sends to a sandbox, for TAP tests of what is sent and what is not.
#
#   my $shop = CrmShop->new('windows', conf => "pg_crm.connections = 4\n");
#   my $id = $shop->person('o1');                    # a contact with that openid, who did nothing yet
#   my $message = $shop->send($id, 'note', '{}', 'due_at => now()');
#   is($shop->state($message), 'sent');              # waits for an end state
#
# It has the account maison (wx01, secret s1), the webhook till, and the templates: note (text, service), offer
# (text, marketing), order (template message, service), advert (template message, marketing), tell (webhook).
package CrmShop;

use strict;
use warnings;

use CrmSandbox;
use CrmTest;
use Exporter 'import';
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(wait_for);

our $patience = 60;    # seconds; a loaded machine is slow

my $definitions = <<'SQL';
CREATE FUNCTION public.state_of(message bigint, wanted text, patience interval) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    state text;
BEGIN
    LOOP
        SELECT m.state || coalesce(' ' || m.reason, '') INTO state FROM crm.message m WHERE m.message_id = message;
        EXIT WHEN state ~ wanted OR clock_timestamp() > now() + patience;
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN state;
END $$;
INSERT INTO crm.account (kind, name, app_id, base_url) VALUES ('official_account', 'maison', 'wx01', '@URL@');
INSERT INTO crm.account (kind, name, base_url) VALUES ('webhook', 'till', '@URL@/webhook/crm');
INSERT INTO crm.account_secret SELECT account_id, 'app_secret', 's1' FROM crm.account WHERE name = 'maison';
INSERT INTO crm.account_secret SELECT account_id, 'signing_key', 'whsec' FROM crm.account WHERE name = 'till';
SELECT crm.define_template(t) FROM unnest(ARRAY[
  '{"name": "note", "channel": "official_account", "message_type": "text", "body": {"content": "{{text|hello}}"}}',
  '{"name": "offer", "channel": "official_account", "message_type": "text", "class": "marketing",
    "body": {"content": "{{text|sale}}"}}',
  '{"name": "order", "channel": "official_account", "message_type": "template",
    "body": {"template_id": "T1", "data": {"thing1": {"value": "{{text|order}}"}}}}',
  '{"name": "advert", "channel": "official_account", "message_type": "template", "class": "marketing",
    "body": {"template_id": "T1", "data": {"thing1": {"value": "{{text|advert}}"}}}}',
  '{"name": "tell", "channel": "webhook", "message_type": "post", "body": {"text": "{{text|told}}"}}']::jsonb[]) t;
SQL

sub new
{
    my ($class, $name, %opt) = @_;
    my $sandbox = CrmSandbox->start(accounts => { wx01 => 's1' }, webhooks => { crm => 'whsec' });
    my $node = crm_node($name, worker => 1, %opt);
    my $self = bless { sandbox => $sandbox, node => $node, db => crm_database($node, 'shop') }, $class;
    (my $url = $sandbox->url('')) =~ s{/\z}{};
    (my $sql = $definitions) =~ s/\@URL\@/$url/g;
    $self->sql($sql);
    $sandbox->admin(settings => { check_windows => 0 }) unless $opt{check_windows};
    return $self;
}

sub sandbox { return $_[0]{sandbox} }
sub node    { return $_[0]{node} }

sub sql
{
    my ($self, $sql) = @_;
    utf8::encode($sql) if utf8::is_utf8($sql);
    return $self->{node}->safe_psql($self->{db}, $sql);
}

# A session that stays: ->query_safe(SQL), ->quit
sub session { return $_[0]{node}->background_psql($_[0]{db}) }

# The SQLSTATE of what is refused
sub refused
{
    my ($self, $sql) = @_;
    my ($rc, $out, $err) = $self->{node}->psql($self->{db}, "\\set VERBOSITY verbose\n$sql");
    return $err =~ /(?:ERROR|FATAL):\s+(\w{5}):/ ? $1 : "none: $out$err";
}

sub person
{
    my ($self, $openid) = @_;
    return $self->sql("SELECT crm.identify('maison', '$openid')");
}

# send(CONTACT, TEMPLATE, PARAMS, MORE ARGUMENTS): message_id
sub send
{
    my ($self, $contact, $template, $params, $more) = @_;
    ($params //= '{}') =~ s/'/''/g;
    return $self->sql("SELECT crm.send($contact, '$template', '$params'" . ($more ? ", $more" : '') . ')');
}

# Opens a window that stays open: so many messages, for so long
sub window
{
    my ($self, $contact, $quota, $valid_for) = @_;
    $quota //= 'NULL';
    $valid_for //= '1 day';
    return $self->sql(
        "INSERT INTO crm.window_grant (contact_id, account_id, kind, opened_at, expires_at, quota)"
          . " SELECT $contact, account_id, 'message', now(), now() + interval '$valid_for', $quota"
          . " FROM crm.account WHERE name = 'maison' RETURNING grant_id");
}

# state(MESSAGE, PATTERN): state and reason, as soon as they match, or the message has ended
sub state
{
    my ($self, $message, $wanted) = @_;
    $wanted //= '(?!queued|sending)';
    return $self->sql("SELECT public.state_of($message, '^$wanted', '$patience s')");
}

# Waits until no message is in the queue; false where that lasts too long
sub empty
{
    my ($self, $seconds) = @_;
    return eval { wait_for(sub { $self->sql('SELECT count(*) FROM crm.outbox') eq '0' }, $seconds // $patience) } || 0;
}

# becomes(SQL, WANTED, NAME): like is(), as soon as the query returns that
sub becomes
{
    my ($self, $sql, $wanted, $name) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my $found;
    eval { wait_for(sub { ($found = $self->sql($sql)) eq $wanted }, $patience) };
    is($found, $wanted, $name);
}

# Requests that carried a message to this openid, first to last
sub received
{
    my ($self, $openid) = @_;
    return $self->{sandbox}->ledger(touser => $openid);
}

sub log_text { return slurp_file($_[0]{node}->logfile) }

sub log_times
{
    my ($self, $pattern) = @_;
    my $n = () = $self->log_text =~ /$pattern/g;
    return $n;
}

# Ends the worker and waits for the next one
sub restart_worker
{
    my ($self) = @_;
    my $pid = $self->sql('SELECT pid FROM crm.worker_status');
    $self->sql("SELECT pg_terminate_backend($pid)");
    wait_for(sub {
        $self->sql("SELECT count(*) FROM crm.worker_status WHERE state = 'running' AND pid <> $pid") eq '1';
    }, $patience, 'there is another worker');
}

1;
