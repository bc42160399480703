# The fast lanes of sending against the statements: the same random sends in two databases, one with
# pg_crm.direct_access and one without it; what stands in the tables and what the platform received must be the
# same. The same of windows, which a single fact opens by a plan of its own. SEED repeats what was drawn.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmSandbox;
use CrmTest;
use JSON::PP ();
use List::Util qw(shuffle);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $seed     = $ENV{SEED} || int(time * 1000) % 1_000_000;
my $patience = 60;    # seconds; a loaded machine is slow
my @dbs      = qw(direct general);
srand $seed;
# the one where it passes, the other where it fails
$_->("SEED=$seed") for \&note, \&diag;

# Connections for all: in which order messages of a contact go must not depend on how fast replies come.
# Statements of the workers are logged, to see which lane they took.
my $node = crm_node('send_lanes', worker => 1, conf => <<CONF);
shared_preload_libraries = 'pg_crm,auto_explain'
auto_explain.log_nested_statements = on
pg_crm.connections = 300
pg_crm.alarm_after = '1h'
max_connections = 40
CONF
$ENV{PGOPTIONS} = '-c auto_explain.log_min_duration=-1';

# --- the two sides of both lanes -------------------------------------------------------------------

# What a platform says to each call of an account. By the letter of the kind: d it drops the message, u it cannot
# reach the contact, p the account or call stops, t the call stops for a while.
my %error = (
    (map { $_ => 'd' } 40007, 40037, 40241, 43101, 43107, 45002, 45015, 45047, 47003, 99999),
    (map { $_ => 'u' } 40003, 43004, 43019, 46004, 48002),
    (map { $_ => 'p' } 40001, 40164, 45009, 45103, 48001, 48004, 50002),
    45011 => 't');
my %status = (h400 => [ 400, 'd' ], h301 => [ 301, 'p' ], h429 => [ 429, 't' ], h500 => [ 500, 'r' ]);
my @apps   = ('maison', 'daily', 'slow', map { "e$_" } sort keys %error);
my @hooks  = ('till', sort keys %status);
my %sandbox;

sub sql
{
    my ($db, $sql) = @_;
    utf8::encode($sql) if utf8::is_utf8($sql);
    return $node->safe_psql($db, $sql);
}

sub both { my ($sql) = @_; return map { sql($_, $sql) } @dbs }
sub admin { $sandbox{$_}->admin(@_) for @dbs }

# Whom we write to, the same in both. {app} is the account that writes, {wave} the only wave in which it does.
my @people;

sub person
{
    my (%is) = @_;
    push @people, { n => scalar(@people) + 1, app => 'maison', %is };
    return $people[-1];
}

sub chance { return rand() < $_[0] }
sub pick   { return $_[ rand @_ ] }

# In which order the lanes of a contact go depends on how fast replies come, so where that makes a difference a
# contact has one lane; those with plenty have them all.
my %lane = (urgent => [qw(note note hurry)], normal => [qw(order order code)], bulk => [qw(offer advert advert)]);
my @lanes = sort keys %lane;
$lane{all} = [ map { @{ $lane{$_} } } @lanes ];
my @crowd = map { person(lane => pick(@lanes), known => !chance(0.08), follows => chance(0.8), windows => pick(0, 1, 1, 2, 3), their_windows => pick(0, 1, 1, 2),
    gone => pick(('') x 14, 'gone', 'blocked', 'optout', 'left'), consent => pick(('') x 5, 'granted', 'withdrawn', 'withdrawn service'),
    suppressed => pick(('') x 8, 'all', 'webhook', 'official_account'), abroad => chance(0.15),
    name => pick(undef, undef, 'Wang', "O'Hara \\ \"x\"", "\x{738B}\x{4E94}")) } 1 .. 45;
# what has to be there, whatever is drawn
$crowd[0]{known} = 0;
$crowd[1]{suppressed} = 'all';
@{ $crowd[2] }{qw(known suppressed lane consent)} = (1, '', 'bulk', 'withdrawn');
@{ $crowd[3] }{qw(known suppressed lane consent windows gone)} = (1, '', 'urgent', '', 0, '');
my $told = person(lane => 'all', plenty => 1, known => 1, follows => 1, windows => 0, their_windows => 0);
push @crowd, $told, map { person(lane => 'all', plenty => 1, known => 1, follows => 1, windows => 0, their_windows => 0, name => pick(undef, 'Zhou')) } 1 .. 12;
push @crowd, map { person(lane => 'bulk', known => 1, follows => 1, windows => 1, their_windows => 1, abroad => 1) } 1 .. 3;
my @of_errors = map { my $code = $_; map { person(app => "e$code", lane => pick(@lanes), code => $error{$code}, known => 1, follows => 1, windows => 1, their_windows => 1) }
      1 .. ($error{$code} eq 'd' ? 2 : 1) } sort keys %error;
my @of_hooks = map { person(hook => $_, code => $status{$_}[1], known => 1, follows => 1, windows => 0, their_windows => 0) } sort keys %status;
my ($few) = person(app => 'daily', lane => pick(@lanes), code => 'p', known => 1, follows => 1, windows => 1, their_windows => 1);
my @slow = map { person(app => 'slow', lane => pick(@lanes), code => 'u', known => 1, follows => 1, windows => 1, their_windows => 1) } 1 .. 8;
my @sure = map { person(known => 1, follows => 1, windows => 2, their_windows => 2) } 1 .. 60;

sub literal
{
    my ($s) = @_;
    return 'NULL' unless defined $s;
    $s =~ s/'/''/g;
    return "'$s'";
}

sub definitions
{
    my ($sandbox) = @_;
    my $sql = <<'SQL';
CREATE TABLE public.who (n integer PRIMARY KEY, contact_id bigint);
CREATE FUNCTION public.c(integer) RETURNS bigint LANGUAGE sql AS 'SELECT contact_id FROM public.who WHERE n = $1';
-- true as soon as nothing is left that will go on by itself; what is tried again for seconds is not waited for
CREATE FUNCTION public.settled(patience interval, but text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    LOOP
        IF NOT EXISTS (SELECT FROM crm.outbox o JOIN crm.account a USING (account_id)
            LEFT JOIN crm.api_usage u ON u.account_id = a.account_id AND u.api = ''
            WHERE a.name <> but AND (o.lease IS NOT NULL OR o.due_at < clock_timestamp() + interval '20 s'
             AND coalesce(u.blocked_until, '-infinity') < clock_timestamp())) THEN
            RETURN true;
        END IF;
        IF clock_timestamp() > now() + patience THEN
            RETURN false;
        END IF;
        PERFORM pg_sleep(0.02);
    END LOOP;
END $$;
-- how far it is, where moments differ
CREATE FUNCTION public.moment(timestamptz) RETURNS text LANGUAGE sql AS $$SELECT CASE WHEN $1 = 'infinity' THEN 'never'
    WHEN $1 > now() + interval '10 s' THEN 'later' WHEN $1 IS NOT NULL THEN 'past' END$$;
UPDATE crm.window_rule SET quota = 2, valid_for = '1 day' WHERE kind = 'menu_click';
INSERT INTO crm.frequency_cap VALUES ('few', 'official_account', 'marketing', 2, '1 day'), ('calls', 'webhook', NULL, 4, '1 day');
INSERT INTO crm.quiet_hours SELECT 'abroad', NULL, 'marketing', (to_char(t - interval '1 h', 'HH24:MI') || '-' || to_char(t + interval '2 h', 'HH24:MI'))::crm.weekly_hours
    FROM timezone('America/Los_Angeles', now()) t;
SQL
    (my $url = $sandbox->url('')) =~ s{/\z}{};
    for my $app (@apps)
    {
        $sql .= "INSERT INTO crm.account (kind, name, app_id, base_url) VALUES ('official_account', '$app', 'wx$app', '$url');\n"
          . "INSERT INTO crm.account_secret SELECT account_id, 'app_secret', 's' FROM crm.account WHERE name = '$app';\n";
        my %template = (
            note => [ 'text', 'service', undef, '{"content": "{{name|there}}, {{text|hello}}"}' ],
            offer => [ 'text', 'marketing', undef, '{"content": "{{text|sale}}"}' ],
            code => [ 'text', 'service', 'normal', '{"content": "{{code}}"}' ],
            order => [ 'template', 'service', undef, '{"template_id": "T1", "data": {"thing1": {"value": "{{text|order}}"}}}' ],
            hurry => [ 'template', 'service', 'urgent', '{"template_id": "T1", "data": {"thing1": {"value": "{{text|hurry}}"}}}' ],
            advert => [ 'template', 'marketing', undef, '{"template_id": "T1", "data": {"thing1": {"value": "now"}}}' ]);
        for my $name (sort keys %template)
        {
            my ($type, $class, $lane, $body) = @{ $template{$name} };
            $lane = $lane ? qq(, "lane": "$lane") : '';
            $sql .= qq|SELECT crm.define_template('{"name": "${name}_$app", "channel": "official_account", "account": "$app",|
              . qq| "message_type": "$type", "class": "$class"$lane, "body": $body}');\n|;
        }
    }
    for my $hook (@hooks)
    {
        $sql .= "INSERT INTO crm.account (kind, name, base_url) VALUES ('webhook', '$hook', '$url/webhook/$hook');\n"
          . "INSERT INTO crm.account_secret SELECT account_id, 'signing_key', 'w' FROM crm.account WHERE name = '$hook';\n"
          . qq|SELECT crm.define_template('{"name": "tell_$hook", "channel": "webhook", "account": "$hook", "message_type": "post",|
          . qq~ "body": {"text": "{{text|told}}", "who": "{{name|nobody}}"}}');\n~;
    }
    # three a day, thirty a second
    $sql .= "INSERT INTO crm.api_limit (channel, account_id, api, per_second, burst, per_day)"
      . " SELECT 'official_account', account_id, '', CASE name WHEN 'slow' THEN 30 END, CASE name WHEN 'slow' THEN 1 END, CASE name WHEN 'daily' THEN 3 END"
      . " FROM crm.account WHERE name IN ('slow', 'daily');\n";
    for my $p (@people)
    {
        my $n = $p->{n};
        $sql .= "INSERT INTO public.who SELECT $n, " . ($p->{known} ? "crm.identify('$p->{app}', 'o$n')" : "crm.identify('customer', 'k$n')") . ";\n";
        $sql .= "SELECT crm.follow('$p->{app}', 'o$n', now() - interval '1 hour');\n" if $p->{follows} && $p->{known};
        # one of the two gets fewer windows than the other may think
        $sql .= "SELECT crm.track(public.c($n), '" . (($n + $_) % 3 ? 'message' : 'menu_click') . "', at => now() - interval '$_ minutes', account => '$p->{app}');\n"
          for 1 .. $p->{windows};
        $sql .= "INSERT INTO crm.window_grant (contact_id, account_id, kind, opened_at, expires_at) SELECT public.c($n), account_id, 'payment',"
          . " now(), now() + interval '1 day' FROM crm.account WHERE name = '$p->{app}';\n" if $p->{plenty};
        $sql .= "UPDATE crm.contact SET name = " . literal($p->{name}) . " WHERE contact_id = public.c($n);\n" if defined $p->{name};
        $sql .= "UPDATE crm.contact SET time_zone = 'America/Los_Angeles' WHERE contact_id = public.c($n);\n" if $p->{abroad};
        my ($said, $class) = split / /, $p->{consent} // '';
        $class //= 'marketing';
        $sql .= "SELECT crm." . ($said eq 'granted' ? 'grant' : 'withdraw') . "_consent(public.c($n), 'official_account', '$class');\n" if $said;
        my $suppressed = $p->{suppressed};
        $sql .= "SELECT crm.suppress(public.c($n), " . ($suppressed eq 'all' ? 'NULL' : "'$suppressed'") . ");\n" if $suppressed;
    }
    return $sql;
}

for my $db (@dbs)
{
    $sandbox{$db} = CrmSandbox->start(accounts => { map { ("wx$_" => 's') } @apps }, webhooks => { map { ($_ => 'w') } @hooks }, seed => $seed);
    $node->safe_psql('postgres', "CREATE DATABASE $db");
    $node->safe_psql('postgres', "ALTER DATABASE $db SET pg_crm.direct_access = " . ($db eq 'direct' ? 'on' : 'off'));
    $node->safe_psql('postgres', "ALTER DATABASE $db SET auto_explain.log_min_duration = 0");
    sql($db, 'CREATE EXTENSION pg_crm; SELECT crm.install();');
    sql($db, definitions($sandbox{$db}));
    is(sql($db, 'SHOW pg_crm.direct_access'), $db eq 'direct' ? 'on' : 'off', "$db: direct access");
}

sub blocks { my ($errcode, @of) = @_; admin(accounts => [ map { { appid => "wx$_->[0]", blocks => $errcode ? { 'custom/send' => $_->[1], 'template/send' => $_->[1] } : {} } } @of ]) }
# a token that was refused is never the answer to the wish for another one
admin(settings => { force_refresh_s => 0 });
blocks(1, map { [ "e$_", $_ ] } sort keys %error);
admin(webhooks => [ map { { name => $_, status => $status{$_}[0] } } sort keys %status ]);
for my $p (grep { $_->{known} } @people)
{
    my %who = (appid => "wx$p->{app}", openid => "o$p->{n}");
    admin(windows => { %who, event => 'message' }) for 1 .. $p->{their_windows};
    admin(windows => { %who, event => 'payment' }) if $p->{plenty};
    my $gone = $p->{gone} || next;
    admin(contacts => { %who, $gone eq 'left' ? (follow => 0) : ($gone => 1) });
}

# --- what is compared -------------------------------------------------------------------------------

my %tables = (
    message => q{SELECT m.contact_id, m.message_id, m.account_id, m.template, m.template_version, m.channel, m.class, m.state, m.reason, m.params,
        m.send_key, public.moment(m.due_at), public.moment(m.expires_at), m.grant_id, m.tried_at IS NOT NULL, m.sent_at IS NOT NULL, m.ended_at IS NOT NULL,
        m.attempt_id IS NOT DISTINCT FROM (SELECT max(a.attempt_id) FROM crm.delivery_attempt a WHERE a.contact_id = m.contact_id AND a.message_id = m.message_id
          AND a.outcome NOT LIKE 'resolved%'), m.sent_at <= m.ended_at,
        m.sent_at = (SELECT max(a.occurred_at) FROM crm.delivery_attempt a WHERE a.contact_id = m.contact_id AND a.message_id = m.message_id AND a.outcome = 'sent'),
        (SELECT count(*) FROM crm.delivery_attempt a WHERE a.contact_id = m.contact_id AND a.message_id = m.message_id AND a.occurred_at >= m.tried_at)
        FROM crm.message m},
    # how many of those behind were looked at before an account stopped depends on how fast the reply came
    outbox => q{SELECT o.contact_id, o.message_id, o.account_id, o.lane, o.lease IS NULL, o.attempt_id IS NULL, o.attempts,
        CASE WHEN u.blocked_until > now() AND public.moment(o.due_at) IN ('past', 'never') THEN 'stopped' ELSE public.moment(o.due_at) END
        FROM crm.outbox o LEFT JOIN crm.api_usage u ON u.account_id = o.account_id AND u.api = ''},
    delivery_attempt => q{SELECT t.contact_id, t.message_id, row_number() OVER (PARTITION BY t.contact_id, t.message_id ORDER BY t.attempt_id), t.outcome, t.errcode,
        t.http_status, t.platform_id IS NOT NULL, CASE WHEN t.http_status IS NOT NULL THEN regexp_replace(t.reply, 'rid: \S+', 'rid') END FROM crm.delivery_attempt t},
    message_unknown => 'SELECT contact_id, message_id FROM crm.message_unknown',
    window_grant => q{SELECT contact_id, account_id, grant_id, kind, quota, used, CASE WHEN expires_at > now() THEN (expires_at - opened_at)::text END FROM crm.window_grant},
    follower => 'SELECT contact_id, account_id, followed_at IS NOT NULL, unfollowed_at IS NOT NULL, unfollowed_at > followed_at FROM crm.follower',
    suppression => 'SELECT contact_id, channel, reason, ended_at IS NULL FROM crm.suppression',
    consent => 'SELECT contact_id, channel, class, granted FROM crm.consent',
    event => 'SELECT contact_id, account_id, kind, properties FROM crm.event',
    api_usage => q{SELECT account_id, api, day IS NULL, used, tokens IS NULL, public.moment(blocked_until), blocked_reason FROM crm.api_usage},
    alarm => q{SELECT kind, object, regexp_replace(detail, 'rid: \S+', 'rid'), times, cleared_at IS NULL FROM crm.alarm},
    identity => 'SELECT kind, account_id, external_id, contact_id FROM crm.identity',
    merge_ledger => q{SELECT contact_id, other, moved -> 'message' FROM crm.merge_ledger},
);

# What was received, by account and contact, in the order in which it came
sub received
{
    my ($db) = @_;
    my %of;
    for my $row (grep { $_->{api} =~ m{^(?:custom|template)/send$|^webhook/} } $sandbox{$db}->ledger)
    {
        my $body = $row->{body};
        my $who = ref $body ? $body->{touser} // $body->{contact_id} : "$row->{api}, cut off";
        my $json = defined $body ? JSON::PP->new->canonical->allow_nonref->encode($body) : '-';
        s/\bc[0-9a-f]{8}-(\d+)/key $1/g for $json, my $key = $row->{key} // '-';
        push @{ $of{ join ' ', $row->{account} // '-', $who } },
          join ' ', $row->{api}, $key, (map { $row->{$_} // '-' } qw(received delivered duplicate status errcode)), $json;
    }
    my %unordered = map { ("o$_->{n}" => 1) } grep { $_->{plenty} } @people;
    return map { my $of = $_; my $n = 0; map { "$of " . ($unordered{ (split / /, $of)[1] } ? '' : ++$n) . ": $_" } @{ $of{$of} } } sort keys %of;
}

sub rows
{
    my ($db, $query) = @_;
    return sort split /\n/, sql($db, "COPY ($query) TO STDOUT");
}

sub equal
{
    my ($what, $direct, $general) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my (%n, @different);
    $n{$_}++ for @$direct;
    $n{$_}-- for @$general;
    push @different, map { ($n{$_} > 0 ? 'direct:  ' : 'general: ') . $_ } grep { $n{$_} } sort keys %n;
    my $ok = ok(!@different, "$what: " . @$direct . ' alike');
    diag(join "\n", splice @different, 0, 12) if !$ok;
    return $ok;
}


sub compare
{
    my ($when) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my @received = map { [ received($_) ] } @dbs;
    for my $table (sort keys %tables)
    {
        my $query = $tables{$table};
        # what is tried again for seconds is compared at the end
        $query .= " WHERE " . substr($table, 0, 1) . ".account_id <> (SELECT account_id FROM crm.account WHERE name = 'h500')" if $when ne 'at the end' && $table =~ /^(message|outbox)$/;
        $query .= " JOIN crm.message m USING (contact_id, message_id) WHERE m.account_id <> (SELECT account_id FROM crm.account WHERE name = 'h500')"
          if $when ne 'at the end' && $table eq 'delivery_attempt';
        equal("$when, $table", map { [ rows($_, $query) ] } @dbs);
    }
    equal("$when, received", map { [ $when eq 'at the end' ? @$_ : grep { !/^h500/ } @$_ ] } @received);
}

sub wait_settled
{
    my ($when, $but) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    for my $db (@dbs)
    {
        my $settled = sql($db, "SELECT public.settled('$patience s', '" . ($but // 'h500') . "')");
        is($settled, 't', "$when: $db has nothing left to do")
          or diag(sql($db, 'SELECT o.*, m.state, m.reason, m.template FROM crm.outbox o JOIN crm.message m USING (contact_id, message_id) LIMIT 12'));
    }
}

# --- sends ---------------------------------------------------------------------------------------------

my $keys = 0;

sub send_one
{
    my ($p, $template, %more) = @_;
    my $params = pick('{}', '{}', sprintf('{"text": "%d"}', ++$keys), '{"text": "a\\\\\\"b {{x}}"}', "{\"text\": \"\x{4F60}\x{597D}\"}", '{"name": "Li", "code": "7"}');
    $params =~ s/'/''/g;
    my @more = map { "$_ => $more{$_}" } grep { /_/ } sort keys %more;
    push @more, "send_key => 'k" . ++$keys . "'" if chance(0.5);
    my $send = "crm.send(" . join(', ', "public.c($p->{n})", "'$template'", "'$params'", @more) . ')';
    return $more{cancel} ? "SELECT crm.cancel_message(public.c($p->{n}), $send);" : "SELECT $send;";
}

# The sends of one transaction. Who may turn out to be out of reach gets one message: what a second one meets
# would depend on whether that was noted already.
sub wave
{
    my ($name, $n) = @_;
    my (@sends, %written);
    for my $p (@crowd, map { pick(@crowd) } 1 .. $n)
    {
        my $hook = chance(0.25);
        next if !$hook && $p->{gone} && $written{ $p->{n} }++;
        my $template = $hook ? 'tell_till' : pick(@{ $lane{ $p->{lane} } }) . '_maison';
        my %more;
        my $kind = rand;
        if ($kind < 0.05)    { $more{expires_at} = q{clock_timestamp() + interval '1 ms'} }
        elsif ($kind < 0.10) { $more{expires_at} = q{now() + interval '90 minutes'} }    # quiet for longer
        elsif ($kind < 0.16) { $more{due_at} = q{now() + interval '1 hour'} }
        elsif ($kind < 0.20) { $more{cancel} = 1 }
        push @sends, send_one($p, $template, %more);
    }
    push @sends, map { send_one($told, 'tell_till') } 1 .. 2;
    push @sends, map { send_one($_, 'advert_maison', expires_at => q{now() + interval '90 minutes'}) } @crowd[ -2, -1 ];
    for my $p (@of_errors, @of_hooks, $few, @slow)
    {
        next if $p->{code} eq 't' && $name ne 'second' || $p->{code} eq 'r' && $name ne 'first';
        my $times = $p->{code} =~ /[ur]/ ? 1 : 1 + int rand 4;
        push @sends, send_one($p, $p->{hook} ? "tell_$p->{hook}" : pick(@{ $lane{ $p->{lane} } }) . "_$p->{app}") for 1 .. $times;
    }
    my $many = join ',', map { "public.c($_->{n})" } (shuffle grep { !$_->{gone} && $_->{lane} =~ /normal|all/ } @crowd)[ 0 .. 9 ];
    return join "\n", 'BEGIN;', shuffle(@sends), "SELECT crm.send_many(ARRAY[$many], 'order_maison', '{\"text\": \"all\"}', 'many $name');",
      'SELECT pg_sleep(0.005);', 'COMMIT;';
}

my $bulk = 80;
for my $name (qw(first second))
{
    both(wave($name, $bulk));
    wait_settled($name);
    compare("the $name wave");
}

# what was stopped goes on, and what waited for its time goes or is cancelled
blocks(0, map { ["e$_"] } grep { $error{$_} =~ /[pt]/ } sort keys %error);
admin(webhooks => [ map { { name => $_, status => 200 } } grep { $status{$_}[1] =~ /[pt]/ } sort keys %status ]);
cmp_ok(sql('direct', "SELECT count(*) FROM crm.outbox WHERE due_at > now()"), '>', 30, 'many wait');
# in one transaction: a worker that is woken in between may put off again what has just been made due
both(join "\n", 'BEGIN;', (map { "SELECT crm.resume_account('$_');" } @apps, @hooks), q{
    DELETE FROM crm.quiet_hours;
    UPDATE crm.api_limit SET per_day = 1000 WHERE account_id > 0 AND per_day IS NOT NULL;
    SELECT crm.cancel_message(contact_id, message_id) FROM crm.outbox JOIN crm.account a USING (account_id)
        WHERE due_at > now() AND message_id % 4 = 0 AND a.name <> 'h500' ORDER BY message_id;
    UPDATE crm.outbox SET due_at = now() WHERE due_at > now() AND due_at < 'infinity'
        AND account_id <> (SELECT account_id FROM crm.account WHERE name = 'h500');
    COMMIT;});
wait_settled('what waited');
compare('what waited');

both(wave('third', $bulk));
wait_settled('third');
compare('the third wave');

# --- what a platform does once: one message of a call at a time --------------------------------------------

my @faults = ([ 'http_500', 1 ], [ 'errcode_-1', 2 ], [ 'reset_before_reply', 1 ], [ 'reset_before_body', 1 ], [ 'garbage', 1 ], [ 'half_reply', 1 ], [ 'errcode_40001', 1 ], [ 'errcode_45047', 1 ]);
for (@faults)
{
    my ($fault, $times) = @$_;
    my @calls = ([ 'custom/send', 'note_maison' ], [ 'template/send', 'advert_maison' ], [ 'webhook/till', 'tell_till' ]);
    @calls = $calls[0] if $fault =~ /40001/;
    pop @calls if $fault =~ /errcode/ && @calls > 1;
    admin(faults => { api => $_->[0], fault => $fault, times => $times }) for @calls;
    both(join "\n", 'BEGIN;', (map { send_one(shift @sure, $_->[1]) } @calls), 'COMMIT;');
    wait_settled($fault);
}
compare('faults');
both(q{SELECT crm.resolve_message(contact_id, message_id, CASE n % 2 WHEN 0 THEN 'sent' ELSE 'failed' END)
    FROM (SELECT *, row_number() OVER (ORDER BY message_id) AS n FROM crm.message_unknown) u});

# --- merged while messages are on their way -------------------------------------------------------------------

admin(settings => { latency_ms => 5000 });
my @pairs = map { [ shift @sure, shift @sure ] } 1 .. 8;
both(join "\n", 'BEGIN;', (map { send_one($_->[1], pick('note_maison', 'advert_maison')), send_one($_->[1], 'order_maison') } @pairs), 'COMMIT;');
wait_for(sub { 2 == grep { sql($_, "SELECT count(*) FROM crm.outbox WHERE lease IS NOT NULL AND attempts = 1") >= @pairs } @dbs }, $patience, 'they are on their way');
for my $db (@dbs)
{
    sql($db, join "\n", map { "SELECT crm.merge(public.c($_->[0]{n}), public.c($_->[1]{n}));" } @pairs);
}
admin(settings => { latency_ms => 0 });
wait_settled('merged');
both(q{SELECT crm.cancel_message(contact_id, message_id) FROM crm.outbox WHERE account_id = (SELECT account_id FROM crm.account WHERE name = 'h500') AND due_at = 'infinity'});
wait_settled('the end', '');
compare('at the end');

# --- what would make the test an empty one ------------------------------------------------------------------------

my %seen = map { split /\|/ } split /\n/, sql('direct', "SELECT state || coalesce(' ' || reason, ''), count(*) FROM crm.message GROUP BY 1");
note(join ', ', map { "$seen{$_} $_" } sort keys %seen);
cmp_ok($seen{sent} // 0, '>', 150, 'many are sent');
ok($seen{$_}, "some are $_") for 'cancelled', 'expired expired', 'expired quiet', 'refused cap:few', 'refused cap:calls', 'refused window_closed', 'refused no_consent',
  'refused suppressed', 'refused no_recipient', 'failed missing_value:code', 'failed bad_data', 'failed http_500', 'failed no_user', 'failed unfollowed',
  'failed opted_out', 'sent resolved';
my $log = slurp_file($node->logfile);
for my $db (@dbs)
{
    # there are several where settings changed before it was made
    my $pids = join '|', $log =~ /\[(\d+)\].*pg_crm worker of database "$db" started/g;
    for my $statement ('UPDATE crm.outbox o SET lease = $3', "UPDATE crm.message m SET state = 'sending'")
    {
        my $n = () = $log =~ /\[(?:$pids)\] .*LOG:  duration.*\n\s*Query Text: \Q$statement\E/g;
        $db eq 'direct' ? is($n, 0, "direct claims without: $statement") : cmp_ok($n, '>', 20, "general claims by: $statement");
    }
}
is(sql($_, 'SELECT * FROM crm.verify()'), '', "$_: verify() finds nothing") for @dbs;

$node->stop;

# --- windows: a fact at a time and many at once, with direct access and without -----------------------------------

my $facts   = 600;
my $windows = crm_node('windows');
my @kinds   = (qw(message message menu_click enter_session payment follow unfollow unfollow view cart), 'scan');
my (%taken, @facts);
while (@facts < $facts)
{
    # what happens in one second may be one act or two: which of them a statement is told of first decides
    my ($contact, $account, $kind) = (1 + int rand 20, pick(1, 1, 2, 3, 4), pick(@kinds));
    $account = 1 if $kind eq 'scan';
    my $ago = pick(int rand 120, int rand 10_000, int rand 100_000, 172_000 + int rand 2000);
    next if $taken{"$contact $account $ago"}++;
    push @facts, ([ $contact, $account, $kind, $ago ]) x (chance(0.1) ? 2 : 1);
}
# whose window is closed in any case
@facts = (shuffle(@facts), map { ([ $_, 1, 'message', 5000 ], [ $_, 1, 'unfollow', 1000 ]) } 21 .. 30);

sub at { return "'2024-06-01 12:00Z'::timestamptz - interval '$_[0] s'" }

sub insert
{
    my (@some) = @_;
    my @scans = map { "($_->[0], 1, " . at($_->[3]) . ')' } grep { $_->[2] eq 'scan' } @some;
    my @events = map { "($_->[0], '$_->[2]', " . at($_->[3]) . ", $_->[1])" } grep { $_->[2] ne 'scan' } @some;
    return join "\n", (@scans ? 'INSERT INTO crm.scan (contact_id, qr_code_id, occurred_at) VALUES ' . join(', ', @scans) . ';' : ()),
      (@events ? 'INSERT INTO crm.event (contact_id, kind, occurred_at, account_id) VALUES ' . join(', ', @events) . ';' : ());
}

my %load = (single => '', batch => '');
for (@facts)
{
    $load{single} .= $_->[2] =~ /scan|follow/ || chance(0.5) ? insert($_) . "\n"
      : "SELECT crm.track($_->[0], '$_->[2]', at => " . at($_->[3]) . ", account => (SELECT name FROM crm.account WHERE account_id = $_->[1]));\n";
}
for (my @left = @facts; @left;) { $load{batch} .= insert(splice @left, 0, 1 + int rand 60) . "\n" }
my %row = (
    window_grant => 'SELECT contact_id, account_id, kind, opened_at, expires_at, quota, used FROM crm.window_grant',
    open         => 'SELECT contact_id, account_id, kind, opened_at, expires_at, quota, used FROM crm.window_grant WHERE expires_at > crm.now()',
    follower     => 'SELECT * FROM crm.follower');
my %of;
for my $load (sort keys %load)
{
    for my $lane (@dbs)
    {
        my $db = "${load}_$lane";
        crm_database($windows, $db);
        $windows->safe_psql('postgres', "ALTER DATABASE $db SET pg_crm.direct_access = " . ($lane eq 'direct' ? 'on' : 'off'));
        $windows->safe_psql('postgres', "ALTER DATABASE $db SET pg_crm.clock = '2024-06-01 12:00Z'");
        $windows->safe_psql($db, <<SQL . $load{$load});
INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2024-01-01Z' FROM generate_series(1, 50) n;
INSERT INTO crm.account (kind, name) VALUES ('official_account', 'oa'), ('mini_program', 'mini'), ('webhook', 'till'), ('official_account', 'oa2');
INSERT INTO crm.qr_code (account_id, scene) VALUES (1, 'door');
UPDATE crm.window_rule SET quota = NULL, valid_for = '1 hour' WHERE account_kind = 'official_account' AND kind = 'menu_click';
INSERT INTO crm.window_rule VALUES ('official_account', 'payment', NULL, '48 hours');
SQL
        $of{$db}{$_} = [ sort split /\n/, $windows->safe_psql($db, "COPY ($row{$_}) TO STDOUT") ] for keys %row;
        is($windows->safe_psql($db, 'SELECT * FROM crm.verify()'), '', "$db: verify() finds nothing");
    }
    equal("windows, $load, $_", $of{"${load}_direct"}{$_}, $of{"${load}_general"}{$_}) for qw(window_grant follower);
}
# what was told of after the leave that closed it is there as a closed one or not at all
equal("windows, a fact at a time and many at once, $_", $of{single_direct}{$_}, $of{batch_direct}{$_}) for qw(open follower);
cmp_ok(scalar @{ $of{single_direct}{open} }, '>', 20, 'many windows are open');
cmp_ok(scalar @{ $of{single_direct}{window_grant} }, '>', @{ $of{single_direct}{open} } + 5, 'and some were closed');

$windows->stop;
done_testing();
