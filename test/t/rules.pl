# The rule language against a second opinion: random rules over random contacts give the same
# contacts by audience(), by rule_holds() for one at a time, off the rows and by a plan, by explain(),
# and by the rule pasted into a SELECT over the profile, its rule functions replaced by sub-selects
# written here. Then texts that no rule may be: none does anything but raise an error of its own.
#
# CRM_SEED=n repeats a run; CRM_RULES=n and CRM_TEXTS=n say how much of it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed  = $ENV{CRM_SEED}  // int(rand(1_000_000));
my $rules = $ENV{CRM_RULES} // 2000;
my $texts = $ENV{CRM_TEXTS} // 10_000;
srand($seed);
diag("CRM_SEED=$seed");

my $contacts = 120;
my $node     = crm_node('rules');
my $db       = crm_database($node, 'shop');
my $as_of    = '2024-06-15 10:30:00+00';
my $zone     = 'Asia/Shanghai';
my $clock    = "SET pg_crm.clock = '2024-06-20 00:00Z';\n";

sub pick { return $_[ int(rand(@_)) ] }
sub sql { return $node->safe_psql($db, $clock . $_[0], timeout => 600) }

# ---- contacts and facts
sub at
{
    return sprintf "'2024-06-15 10:30Z'::timestamptz - %d * interval '1 minute'",
      pick(rand(60), rand(2000), rand(20_000), rand(400_000), -rand(3000));
}

sub contact
{
    my ($n) = @_;
    return sprintf "(%d, '2022-01-01', %s, %s, %s, '%s'::jsonb, '%s'::text[])", $n,
      pick("'Shanghai'", "'Beijing'", "'Köln'", 'NULL'),
      pick("'Europe/Berlin'", "'America/New_York'", "'Nowhere/Land'", 'NULL', 'NULL'),
      pick("'1990-02-28'::date", "'2000-06-15'::date", 'NULL::date'),
      pick('{}', '{"size": "42"}', '{"size": "tall", "vip": true}', '{"size": 7, "vip": false}'),
      pick('{}', '{staff}', '{new,vip}');
}

sub fact
{
    my $c    = 1 + int(rand($contacts - 3));       # some have no facts
    my $luck = rand();
    return sprintf 'INSERT INTO crm.transaction (contact_id, amount, occurred_at) VALUES (%d, %d, %s);', $c,
      pick(0, rand(20), rand(300)), at()
      if $luck < 0.4;
    return sprintf 'INSERT INTO crm.scan (contact_id, qr_code_id, occurred_at) VALUES (%d, 1, %s);', $c, at() if $luck < 0.5;
    return sprintf "INSERT INTO crm.event (contact_id, kind, occurred_at, account_id) VALUES (%d, '%s', %s, 1);", $c,
      pick('cart', 'cart', 'page', 'follow', 'unfollow'), at();
}

sql(join "\n",
    "INSERT INTO crm.account (account_id, kind, name) OVERRIDING SYSTEM VALUE VALUES (1, 'official_account', 'wx');",
    q(SELECT crm.define_qr_code('{"account": "wx", "scene": "door"}');),
    'INSERT INTO crm.contact (contact_id, created_at, city, time_zone, birthday, attributes, tags) VALUES '
      . join(', ', map { contact($_) } 1 .. $contacts) . ';',
    (map { fact() } 1 .. 1500),
    q(INSERT INTO crm.transaction (contact_id, kind, amount, occurred_at, refund_of)
      SELECT contact_id, 'refund', CASE WHEN transaction_id % 2 = 0 THEN amount ELSE round(amount / 2, 2) END,
             occurred_at + interval '1 minute', transaction_id
        FROM crm.transaction WHERE kind = 'purchase' AND amount > 1 AND transaction_id % 5 < 2;),
    (map { sprintf "SELECT crm.bind_mobile(%d, '+86138%08d');", 3 * $_, 3 * $_ } 1 .. $contacts / 3 - 1));
is(sql('SELECT count(*) FROM crm.verify()'), 0, 'what was recorded is sound');

# ---- rules: what is written, and what stands for it in plain SQL
my $refunded = q{coalesce((SELECT sum(r.amount) FROM crm.transaction r WHERE r.kind = 'refund'}
  . q{ AND r.contact_id = f.contact_id AND r.refund_of = f.transaction_id), 0)};
my %facts = (
    purchase => "crm.transaction f WHERE f.kind = 'purchase' AND NOT (f.amount > 0 AND f.amount <= $refunded)",
    refund   => q(crm.transaction f WHERE f.kind = 'refund'),
    scan     => 'crm.scan f WHERE true',
    (map { $_ => "crm.event f WHERE f.kind = '$_'" } qw(cart page follow nothing)));

sub since
{
    my ($within) = @_;
    return 'AND f.contact_id = p.contact_id AND f.occurred_at <= as_of'
      . ($within ? " AND f.occurred_at > as_of - interval '$within'" : '');
}

# written, plain, type
sub function
{
    my $within  = pick('', '7 days', '1 hour', '30 days', '1 year', '90 minutes', '1 month');
    my $kind    = pick(sort keys %facts);
    my $args    = $within ? ", '$within'" : '';
    my $awarded = pick('first_purchase', 'purchase_milestone', 'first_scan', 'spend_milestone', 'follow');
    my $stage   = pick(qw(user lead paying loyal other));
    return pick(
        [ "times('$kind'$args)", "(SELECT count(*) FROM $facts{$kind} " . since($within) . ')', 'number' ],
        [ "did('$kind'$args)",   "EXISTS (SELECT FROM $facts{$kind} " . since($within) . ')',   'truth' ],
        [ 'spent(' . ($within ? "'$within'" : '') . ')',
          "coalesce((SELECT sum(f.amount - $refunded) FROM $facts{purchase} " . since($within) . '), 0)', 'number' ],
        [ "awarded('$awarded')",
          "EXISTS (SELECT FROM crm.award a WHERE a.contact_id = p.contact_id AND a.achievement = '$awarded'"
            . ' AND a.revoked_at IS NULL AND a.awarded_at <= as_of)', 'truth' ],
        [ "rank('$stage')", "(SELECT s.rank FROM crm.stage s WHERE s.stage = '$stage')",         'number' ],
        [ 'local_time()',   "(as_of AT TIME ZONE coalesce(p.time_zone, '$zone'))::time",         'time' ],
        [ 'local_date()',   "(as_of AT TIME ZONE coalesce(p.time_zone, '$zone'))::date",         'date' ]);
}

my %plain = (
    number => [ qw(orders spend scans raw_scans refunds events stage_rank 0 1 3 5), '2.5', 'cardinality(tags)',
        'length(city)', '100 / orders', 'extract(day from today)', "(attributes->>'size')::int", '(orders + 1) * 2',
        'CASE WHEN orders > 2 THEN scans ELSE -1 END' ],
    text => [ 'city', 'stage', "'Shanghai'", "'paying'", "attributes->>'size'", "coalesce(city, 'AND (')", 'upper(city)', 'NULL' ],
    at   => [ qw(first_order_at last_order_at followed_at last_seen_at created_at as_of mobile_at stage_since),
        "as_of - interval '30 days'", "'2024-06-01'::timestamptz", "date_trunc('month', as_of)" ],
    date  => [ 'birthday', 'today', "date '2000-06-15'", 'last_order_at::date' ],
    time  => [ "time '18:30'", "'09:00'::time" ],
    truth => [ 'true', 'false', 'stage_manual', "(attributes->>'vip')::boolean", 'NULL' ]);
my @tests = (
    "tags @> '{staff}'", "'vip' = ANY (tags)", "city IN ('Köln', 'Beijing')", "city LIKE 'S%'", "attributes ? 'vip'",
    'orders BETWEEN 1 AND 3', "stage IS DISTINCT FROM 'user'", 'mobile IS NOT NULL', "mobile = '+8613800000003'",
    "to_char(birthday, 'MM-DD') = to_char(today, 'MM-DD')", "age(as_of, created_at) > interval '2 years'",
    "(city = 'x' OR orders > 1)");

sub value_of
{
    my ($type) = @_;
    if (rand() < 0.35)
    {
        for (1 .. 10)
        {
            my $function = function();
            return @$function[ 0, 1 ] if $function->[2] eq $type;
        }
    }
    my $value = pick(@{ $plain{$type} });
    return ($value, $value);
}

sub condition
{
    my $luck = rand();
    return value_of('truth') if $luck < 0.15;
    if ($luck < 0.3)
    {
        my ($a, $b) = value_of(pick(qw(number text at date)));
        my $test = pick('IS NULL', 'IS NOT NULL');
        return ("$a $test", "$b $test");
    }
    if ($luck < 0.4)
    {
        my $test = pick(@tests);
        return ($test, $test);
    }
    my $type = pick(qw(number number number text at at date time));
    my ($a, $b) = value_of($type);
    my ($c, $d) = value_of($type);
    my $operator = pick('<', '<=', '=', '<>', '>=', '>');
    return ("$a $operator $c", "$b $operator $d");
}

sub rule
{
    my ($depth) = @_;
    my $luck = rand();
    return condition() if $depth == 0 || $luck > 0.7;
    my ($a, $b) = rule($depth - 1);
    return ("NOT ($a)", "NOT ($b)") if $luck < 0.15;
    my ($c, $d) = rule($depth - 1);
    my $word = pick('AND', 'OR');
    return ("($a) $word ($c)", "($b) $word ($d)");
}

# rows of a table by COPY
sub copied
{
    my ($table, @rows) = @_;
    my $file = PostgreSQL::Test::Utils::tempdir() . '/copied';
    my $text = '';
    for my $row (@rows)
    {
        my @fields = @$row;
        s/([\\\t\n\r])/'\\' . { "\\" => "\\", "\t" => 't', "\n" => 'n', "\r" => 'r' }->{$1}/ge for @fields;
        $text .= join("\t", @fields) . "\n";
    }
    append_to_file($file, $text);
    sql("COPY $table FROM '$file' (ENCODING 'UTF8')");
    return;
}

sql('CREATE TABLE rule (n int PRIMARY KEY, rule text, plain text, answer bigint[], found bigint[], alone bigint[],'
      . ' planned bigint[], one boolean, odd bigint[], odd_alone bigint[], odd_one boolean)');
copied('rule (n, rule, plain)', map { [ $_, rule(int(rand(4))) ] } 1 .. $rules);
sql(<<'SQL');
-- the contacts for whom the rule holds as a condition over the profile; false for whom it fails
CREATE FUNCTION plain(condition text, as_of timestamptz) RETURNS bigint[] LANGUAGE plpgsql
SET TimeZone = 'Asia/Shanghai' SET search_path = pg_catalog, crm AS $$
DECLARE
	source text := format('SELECT p.contact_id FROM (SELECT p.*, (SELECT s.rank FROM crm.stage s WHERE s.stage = p.stage) AS stage_rank,
		%L::timestamptz AS as_of, %L::timestamptz::date AS today FROM crm.profile p WHERE %%s) AS p WHERE (%s) IS TRUE',
		as_of, as_of, replace(condition, '%', '%%'));
	answer bigint[] := '{}';
	c bigint;
	holds boolean;
BEGIN
	BEGIN
		EXECUTE format('SELECT coalesce(array_agg(contact_id ORDER BY contact_id), ''{}'') FROM (%s) AS q', format(source, 'true OFFSET 0')) INTO answer;
		RETURN answer;
	EXCEPTION WHEN data_exception THEN
		answer := '{}';
	END;
	FOR c IN SELECT contact_id FROM crm.contact ORDER BY 1 LOOP
		BEGIN
			-- OFFSET: nobody else is asked, for whom it might fail
			EXECUTE format('SELECT EXISTS (%s)', format(source, format('p.contact_id = %s OFFSET 0', c))) INTO holds;
			IF holds THEN answer := answer || c; END IF;
		EXCEPTION WHEN data_exception THEN
		END;
	END LOOP;
	RETURN answer;
END $$;
SQL
sql("UPDATE rule SET found = plain(plain, '$as_of')");
sql("UPDATE rule SET answer = (SELECT coalesce(array_agg(a ORDER BY a), '{}') FROM crm.audience(rule, '$as_of') AS a)");
# which failure was the last depends on the order of the rules
my $failures = q{(SELECT string_agg(concat_ws(' ', contact_id, times), ', ' ORDER BY contact_id)}
  . q{ FROM crm.rule_error WHERE object_kind = 'rule_holds')};
my @failures;
for my $column (qw(alone planned))
{
    # row security, although it hides nothing of the owner, asks for a plan
    sql("ALTER TABLE $_ ENABLE ROW LEVEL SECURITY") for $column eq 'planned' ? qw(crm.contact crm.profile_counter crm.stage) : ();
    sql('TRUNCATE crm.rule_error');
    sql("UPDATE rule SET $column = (SELECT coalesce(array_agg(c.contact_id ORDER BY c.contact_id), '{}') FROM crm.contact c"
          . " WHERE c.contact_id % 4 = n % 4 AND crm.rule_holds(c.contact_id, rule, '$as_of'))");
    push @failures, sql("SELECT $failures");
    sql("ALTER TABLE $_ DISABLE ROW LEVEL SECURITY") for $column eq 'planned' ? qw(crm.contact crm.profile_counter crm.stage) : ();
}
my $plans = q{SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'CachedPlanSource' AND ident ~ 'contact_id = [$]1'};
my $planned = sql("SELECT crm.rule_holds(1, rule, '$as_of') FROM rule WHERE n <= 200 \\g /dev/null\n$plans");
sql("UPDATE rule SET one = coalesce((SELECT holds FROM crm.explain(1 + n % $contacts, rule, '$as_of'::timestamptz) LIMIT 1), false)");

# dates and intervals as the session has them are nobody's business, in any plan
my $odd = "SET timezone = 'America/New_York'; SET datestyle = 'SQL, DMY'; SET intervalstyle = 'sql_standard';\n";
sql("${odd}UPDATE rule SET odd = (SELECT coalesce(array_agg(a ORDER BY a), '{}') FROM crm.audience(rule, '$as_of') AS a),"
      . " odd_alone = (SELECT coalesce(array_agg(c.contact_id ORDER BY c.contact_id), '{}') FROM crm.contact c"
      . " WHERE c.contact_id % 4 = n % 4 AND crm.rule_holds(c.contact_id, rule, '$as_of')),"
      . " odd_one = coalesce((SELECT holds FROM crm.explain(1 + n % $contacts, rule, '$as_of'::timestamptz) LIMIT 1), false) WHERE n % 8 = 0");

sub none_differs
{
    my ($what, $condition, $shown) = @_;
    is(sql("SELECT string_agg(n || ': ' || rule || ' gave ' || $shown || ' not ' || found::text, E'\\n')"
              . " FROM (SELECT * FROM rule WHERE $condition ORDER BY length(rule) LIMIT 3) AS r"), '', $what);
    return;
}

cmp_ok(sql('SELECT count(*) FROM rule WHERE cardinality(found) BETWEEN 1 AND (SELECT count(*) - 1 FROM crm.contact)'),
    '>', $rules / 4, 'many rules hold for some and not for others');
none_differs("$rules rules: audience() is what plain SQL says", 'answer IS DISTINCT FROM found', 'answer::text');
none_differs('for one contact at a time it is the same',
    'alone IS DISTINCT FROM ARRAY(SELECT f FROM unnest(found) f WHERE f % 4 = n % 4 ORDER BY f)', 'alone::text');
none_differs('also by a plan', 'planned IS DISTINCT FROM alone', 'planned::text');
ok($failures[0] eq $failures[1], 'which fails for the same contacts, as often') or diag("$failures[0]\n$failures[1]");
cmp_ok($planned, '>', 20, 'some take a plan');
cmp_ok($planned, '<', 180, 'and some do not');
none_differs('explain() says the same', "one IS DISTINCT FROM (1 + n % $contacts = ANY (found))", "one::text || ' for ' || (1 + n % $contacts)");
none_differs('and in a session that writes dates another way',
    'n % 8 = 0 AND (odd, odd_alone, odd_one) IS DISTINCT FROM (answer, alone, one)', '(odd, odd_alone, odd_one)::text');
is(sql(q{SELECT string_agg(part, ' | ') FROM crm.explain(1, $r$((orders + 1) * 2 >= 4 AND NOT (city = 'a AND (b' OR (did('cart', '7 days')))) AND tags @> '{x}'$r$) WHERE part !~ '^\(\(orders'}),
    q{(orders + 1) * 2 >= 4 | city = 'a AND (b' | did('cart', '7 days') | tags @> '{x}'}, 'and shows each condition as it is written');

# ---- a rule that fails for one contact is false for this one, and counted once for each time
my $none = sql('SELECT count(*) FROM crm.profile WHERE orders = 0');
cmp_ok($none, '>', 0, 'some have no orders');
sql('TRUNCATE crm.rule_error');
is(sql(q{SELECT count(*) FROM crm.audience('100 / orders > 20 AND orders >= 0')}),
    sql('SELECT count(*) FROM crm.profile WHERE orders > 0 AND 100 / nullif(orders, 0) > 20'),
    'a division by zero is false, for these alone');
is(sql(q{SELECT count(*) || ' ' || sum(times) || ' ' || min(sqlstate) FROM crm.rule_error WHERE object_kind = 'audience'}),
    "$none $none 22012", 'and counted for each');

# ---- texts that are no rules
my @attacks = grep { !/^#/ } split /\n/, <<'TEXTS';
1; DROP TABLE crm.contact
true; SELECT 1
true) OR (true
(SELECT true)
EXISTS (SELECT FROM crm.contact)
orders IN (SELECT 1)
orders = ANY (SELECT 1)
ARRAY(SELECT 1) IS NOT NULL
true UNION SELECT true
true FROM crm.contact
true AS x
true, false
true ORDER BY 1
true LIMIT 1
*
p.*
p.orders > 0
crm.contact.orders > 0
current_setting('data_directory') <> ''
pg_read_file('/etc/passwd') <> ''
lo_import('/etc/passwd') > 0
pg_catalog.pg_read_file('x') = ''
pg_sleep(100) IS NULL
set_config('role', 'postgres', false) <> ''
dblink('x') IS NULL
now() > last_order_at
current_date > today
clock_timestamp() > as_of
'now'::timestamptz > as_of
date 'today' = today
as_of < ' NOW '
'yesterday'::date = today
age(created_at) > interval '1 day'
current_user = 'x'
session_user = 'x'
random() > 0.5
txid_current() > 0
nextval('crm.contact_contact_id_seq') > 0
'crm.contact'::regclass IS NOT NULL
'postgres'::regrole = 10
query_to_xml('select 1', true, true, '') IS NULL
xmlparse(document '<a/>') IS NULL
table_to_xml('crm.contact', true, true, '') IS NOT NULL
count(*) > 0
sum(orders) > 0
rank() OVER () = 1
row_number() OVER (ORDER BY orders) = 1
generate_series(1, 1000000000) > 0
unnest(tags) = 'x'
crm.verify() IS NULL
crm.recompute(1) IS NULL
public.evil()
evil()
orders OPERATOR(public.===) 1
ROW(orders, 1) = ROW(1, 1)
$1 IS NULL
orders = $2
repeat('x', 1000000000) = ''
lpad('x', 1000000000) = ''
GROUPING(orders) = 1
orders::public.evil_type IS NULL
'x'::crm.contact IS NULL
orders
1
'x'
NULL::int

((((
orders >
'
"
unknown_column = 1
times(orders) > 1
times('cart', orders::text) > 1
times('cart', '-1 day') > 1
times('cart', 'x') > 1
times() > 1
times('a', 'b', 'c') > 1
awarded('nothing')
rank('nirvana') > 1
rank('nothing''); DROP TABLE crm.contact; --') > 1
spent('1 day', '2 days') > 1
local_time(1) > '10:00'
as_of
did('cart') + 1
in_nothing('x')
CURRENT OF c
DEFAULT
jsonb_path_query(attributes, '$') IS NOT NULL
attributes.x = 1
(attributes).x = 1
pg_backend_pid() > 0
inet_client_addr() IS NULL
version() <> ''
has_table_privilege('crm.contact', 'SELECT')
pg_notify('x', 'y') IS NULL
pg_terminate_backend(1)
lo_unlink(1) > 0
pg_advisory_lock(1) IS NULL
convert_from('\x41', 'UTF8') = pg_ls_dir('.')
TEXTS

push @attacks, 'true; SELECT 2' if @attacks % 2 == 0;

sub hidden
{
    my ($text) = @_;
    return pick($text, uc $text, " $text ", "($text)", "true AND ($text)", "NOT ($text)", "CASE WHEN $text THEN true END",
        "/* x */ $text", "$text /* y */", "orders > 0 OR $text", "coalesce($text, false)", "($text) IS TRUE");
}
my @words = (
    qw{orders city AND OR NOT ( ( ) ) . ; :: + - * / = <> ->> IS NULL CASE WHEN THEN END SELECT FROM crm public},
    qw{pg_catalog times did rank $1 $$ E U& ARRAY [ ] IN BETWEEN true LIKE OPERATOR INTERVAL as_of 9999999999999999999},
    ',', "'x'", "'", '"', '--', '/*', "\x01", 'é', '字', "'{'");
sub noise { return join pick('', ' '), map { pick(@words) } 1 .. 1 + int(rand(30)) }

my @texts = (
    @attacks, '', '--', '/*',
    'NOT ' x 2000 . 'true', '(' x 4000 . 'true' . ')' x 4000, 'x' x 1_000_000, "'" . 'x' x 1_000_000 . "' = city",
    'orders' . '+1' x 4000 . ' > 0', 'true' . ' AND true' x 800, '[' x 2000, 'ARRAY[' x 1000 . ']' x 1000, 'CASE WHEN ' x 500);
push @texts, rand() < 0.4 ? hidden(pick(@attacks)) : noise() while @texts < $texts;
sql(<<'SQL');
CREATE FUNCTION public.evil() RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR public.=== (LEFTARG = bigint, RIGHTARG = integer, FUNCTION = int84eq);
CREATE TYPE public.evil_type AS (x int);
CREATE TABLE hostile (n int PRIMARY KEY, attack boolean, text text, sqlstate text);
CREATE PROCEDURE try() LANGUAGE plpgsql AS $$
DECLARE
	h record;
	state text;
BEGIN
	FOR h IN SELECT * FROM hostile ORDER BY n LOOP
		state := '00000';
		BEGIN
			IF h.n % 2 = 0 THEN
				PERFORM count(*) FROM crm.audience(h.text);
			ELSE
				PERFORM crm.rule_holds(1, h.text);
			END IF;
		EXCEPTION WHEN OTHERS THEN
			state := SQLSTATE;
		END;
		UPDATE hostile SET sqlstate = state WHERE n = h.n;
	END LOOP;
END $$;
SQL
@texts = (@attacks, @attacks, @texts[ @attacks .. $#texts ]);    # each attack at an even and at an odd place
copied('hostile (n, attack, text)', map { [ $_, $_ < 2 * @attacks ? 't' : 'f', $texts[$_] ] } 0 .. $#texts);
my $pid    = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'});
my $before = sql('SELECT count(*), sum(hashtextextended(c::text, 0)) FROM crm.contact c');
sql('CALL try()');
is(sql(q{SELECT string_agg(text, ' # ') FROM hostile WHERE attack AND sqlstate = '00000'}), '', 'no attack gets through');
my $strange = q{sqlstate !~ '^(00|22|42|0A|54|23503)'};
is(sql("SELECT string_agg(DISTINCT sqlstate || ' ' || left(text, 200), E'\\n') FROM hostile WHERE $strange"), '',
    'each is refused with an error of its own');
is(sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'}), $pid, "$texts texts: the server never went down");
is(sql('SELECT count(*), sum(hashtextextended(c::text, 0)) FROM crm.contact c'), $before, 'and the contacts are as before');
my ($rc, $out, $err) = $node->psql($db, q{SELECT crm.audience(E'city = ''\xff''')});
like($err, qr/invalid byte sequence/, 'bytes that are no text do not get that far');
($rc, $out, $err) = $node->psql($db, q{SELECT * FROM crm.audience('orders > 0 AND nonsense = 1')});
like($err, qr/unknown column "nonsense".*QUERY:  orders > 0 AND nonsense = 1/s, 'an error points into the rule');

$node->stop;
done_testing();
