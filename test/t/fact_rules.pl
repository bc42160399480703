# Rules over a fact and the profile of its contact against a second opinion: random rules over random
# facts give what the rule pasted into a SELECT gives, its fact being a row of literals and its rule
# functions replaced by sub-selects written here: off the rows, by plans, and in a session that writes
# dates another way. Then rules over the profile, of contacts each as of a time of its own, against the
# same contacts asked one by one.
#
# CRM_SEED=n repeats a run; CRM_RULES=n says how much of it.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed  = $ENV{CRM_SEED}  // int(rand(1_000_000));
my $rules = $ENV{CRM_RULES} // 800;
srand($seed);
diag("CRM_SEED=$seed");

my $contacts = 40;
my $node     = crm_node('fact_rules');
my $db       = crm_database($node, 'shop');
my $zone     = 'Asia/Shanghai';
my $json     = JSON::PP->new->canonical->allow_nonref;
crm_rooms($node, $db);

sub pick { return $_[ int(rand(@_)) ] }
sub sql { return $node->safe_psql($db, $_[0], timeout => 600) }
sub quote { my ($text) = @_; $text =~ s/'/''/g; return "'$text'" }

# ---- contacts and what is recorded of them
sub at { return sprintf "'2024-06-15 10:30Z'::timestamptz - %d * interval '1 minute'", pick(rand(60), rand(2000), rand(20_000), rand(400_000)) }

sub fact_row
{
    my $c = 1 + int(rand($contacts - 3));
    return sprintf 'INSERT INTO crm.transaction (contact_id, amount, occurred_at) VALUES (%d, %d, %s);', $c, pick(0, rand(20), rand(300)), at()
      if rand() < 0.5;
    return sprintf "INSERT INTO crm.event (contact_id, kind, occurred_at, account_id) VALUES (%d, '%s', %s, 1);", $c, pick('cart', 'page', 'follow', 'unfollow'), at();
}
sql(join "\n",
    "INSERT INTO crm.account (account_id, kind, name) OVERRIDING SYSTEM VALUE VALUES (1, 'official_account', 'wx');",
    'ALTER TABLE crm.contact ADD COLUMN nick text, ADD COLUMN size integer; SELECT crm.install();',
    q(SELECT crm.define_segment('{"name": "buyers", "rule": "orders > 0"}');),
    (map { sprintf "INSERT INTO crm.contact (contact_id, created_at, city, time_zone, birthday, attributes, tags, nick, size) VALUES (%d, '2022-01-01', %s, %s, %s, '%s', '%s', %s, %s);",
            $_, pick("'Shanghai'", "'Köln'", 'NULL'), pick("'Europe/Berlin'", "'Nowhere/Land'", 'NULL'), pick("'1990-02-28'", 'NULL'),
            pick('{}', '{"size": "42"}', '{"size": "tall"}'), pick('{}', '{staff}'), pick("'spring'", "'x'", 'NULL'), pick(0, 2, 'NULL') } 1 .. $contacts),
    (map { fact_row() } 1 .. 400));
is(sql('SELECT count(*) FROM crm.verify()'), 0, 'what was recorded is sound');

# ---- facts as they come
sub moment { return sprintf '2024-06-%02d %02d:%02d:%02dZ', 1 + rand(28), rand(24), rand(60), pick(0, rand(60)) }

sub fact
{
    my %fact = (contact_id => 1 + int(rand($contacts)), as_of => moment());
    my $kind = pick('purchase', 'cart', 'scan', 'field_change');
    $fact{'fact.kind'}        = $kind;
    $fact{'fact.occurred_at'} = rand() < 0.5 ? $fact{as_of} : moment();
    $fact{'fact.account_id'}  = pick(1, 2) if rand() < 0.5;
    if ($kind eq 'purchase')
    {
        $fact{'fact.amount'}       = pick('0', '19.90', '100', int(rand(400)) . '.00');
        $fact{'fact.currency'}     = pick('CNY', 'EUR');
        $fact{'fact.external_ref'} = 'o' . int(rand(100)) if rand() < 0.7;
        $fact{'fact.items'}        = [ { sku => pick('a', 'b') } ] if rand() < 0.5;
        $fact{'fact.store_id'}     = pick(1, 2, 3);
    }
    if ($kind eq 'scan')
    {
        $fact{'fact.qr_code_id'} = pick(1, 2);
        $fact{'fact.campaign'}   = pick('spring', 'Köln');
    }
    $fact{'fact.properties'} = pick({}, { n => '3', to => 'staff' }, { n => 7 }, { n => 'x', deep => { a => [ 1, 2 ] } }) if $kind ne 'purchase';
    @fact{qw(field old new)} = ('city', pick('Köln', 'Shanghai'), pick('Shanghai', '42')) if $kind eq 'field_change';
    return \%fact;
}
sub facts { my ($n) = @_; return 'ARRAY[' . join(', ', map { quote($json->encode(fact())) } 1 .. $n) . ']::jsonb[]' }

# ---- rules: what is written, and what stands for it in plain SQL
my $refunded = q{coalesce((SELECT sum(r.amount) FROM crm.transaction r WHERE r.kind = 'refund' AND r.contact_id = f.contact_id AND r.refund_of = f.transaction_id), 0)};
my %recorded = (
    purchase => "crm.transaction f WHERE f.kind = 'purchase' AND NOT (f.amount > 0 AND f.amount <= $refunded)",
    map { $_ => "crm.event f WHERE f.kind = '$_'" } qw(cart page nothing));

sub since { my ($within) = @_; return 'AND f.contact_id = p.contact_id AND f.occurred_at <= as_of' . ($within ? " AND f.occurred_at > as_of - interval '$within'" : '') }

sub function
{
    my $within = pick('', '7 days', '1 hour', '30 days', '1 month');
    my $kind   = pick(sort keys %recorded);
    my $args   = $within ? ", '$within'" : '';
    my $stage  = pick(qw(user lead paying other));
    return pick(
        [ "times('$kind'$args)", "(SELECT count(*) FROM $recorded{$kind} " . since($within) . ')', 'number' ],
        [ "did('$kind'$args)",   "EXISTS (SELECT FROM $recorded{$kind} " . since($within) . ')',   'truth' ],
        [ 'spent(' . ($within ? "'$within'" : '') . ')', "coalesce((SELECT sum(f.amount - $refunded) FROM $recorded{purchase} " . since($within) . '), 0)', 'number' ],
        [ q{awarded('first_purchase')}, q{EXISTS (SELECT FROM crm.award a WHERE a.contact_id = p.contact_id AND a.achievement = 'first_purchase' AND a.revoked_at IS NULL AND a.awarded_at <= as_of)}, 'truth' ],
        [ q{in_segment('buyers')}, q{EXISTS (SELECT FROM crm.segment_member m WHERE m.contact_id = p.contact_id AND m.segment = 'buyers')}, 'truth' ],
        [ 'suppressed()', 'false', 'truth' ],
        [ "rank('$stage')", "(SELECT s.rank FROM crm.stage s WHERE s.stage = '$stage')", 'number' ],
        [ 'local_time()', "(as_of AT TIME ZONE coalesce(p.time_zone, '$zone'))::time",   'time' ],
        [ 'local_date()', "(as_of AT TIME ZONE coalesce(p.time_zone, '$zone'))::date",   'date' ]);
}
my %profile = (
    number => [ qw(orders spend stage_rank size), 'spend / 2', '100 / size', '(orders + 1) * 2', "(attributes->>'size')::int" ],
    text   => [ 'city', 'nick', 'stage', "attributes->>'size'" ],
    at     => [ qw(first_order_at last_order_at followed_at created_at stage_since) ],
    date   => [ 'birthday', 'last_order_at::date' ],
    time   => ["'09:00'::time"],
    truth  => [ 'stage_manual', "tags @> '{staff}'", 'mobile IS NOT NULL' ]);
my %of_fact = (
    number => [ 'fact.amount', 'fact.amount * 2', '100 / fact.amount', 'fact.store_id', 'fact.qr_code_id', 'fact.account_id', "(fact.properties->>'n')::int", 'jsonb_array_length(fact.items)' ],
    text   => [ qw(fact.kind fact.campaign fact.currency fact.external_ref field old new), "fact.properties->>'to'", 'coalesce(new, old)' ],
    at     => ['fact.occurred_at'],
    date   => ['fact.occurred_at::date'],
    time   => ['fact.occurred_at::time'],
    truth  => [ "fact.kind = 'purchase'", "fact.properties ? 'n'", "fact.items @> '[{\"sku\": \"a\"}]'", 'fact.amount IS NULL', "fact.campaign LIKE 'spr%'" ]);
my %neutral = (
    number => [ 0, 1, 2, 5, '2.5', 'extract(day from today)' ],
    text   => [ "'Köln'", "'spring'", "'city'", 'NULL' ],
    at     => [ 'as_of', "as_of - interval '30 days'", "'2024-06-01'::timestamptz" ],
    date   => [ 'today', "date '2024-06-15'" ],
    time   => ["time '18:30'"],
    truth  => [ 'true', 'false', 'NULL' ]);
my $with_fact;

sub value_of
{
    my ($type, @from) = @_;
    my $luck = rand();
    if ($luck < 0.2)
    {
        for (1 .. 10)
        {
            my $function = function();
            return @$function[ 0, 1 ] if $function->[2] eq $type;
        }
    }
    my $from = $with_fact && $luck < 0.65 ? \%of_fact : $luck < 0.85 ? \%profile : \%neutral;
    my $value = pick(@{ $from->{$type} });
    return ($value, $value);
}

sub condition
{
    my $luck = rand();
    return value_of('truth') if $luck < 0.3;
    my $type = pick(qw(number number text text at date time));
    my ($a, $b) = value_of($type);
    return ("$a IS NULL", "$b IS NULL") if $luck < 0.4 && $a ne 'NULL';
    my ($c, $d) = value_of($type);
    my $operator = pick('<', '<=', '=', '<>', '>=', '>');
    return ("$a $operator $c", "$b $operator $d");
}

sub rule
{
    my ($depth) = @_;
    my $luck = rand();
    return condition() if $depth == 0 || $luck > 0.75;
    my ($a, $b) = rule($depth - 1);
    return ("NOT ($a)", "NOT ($b)") if $luck < 0.12;
    my ($c, $d) = rule($depth - 1);
    my $word = pick('AND', 'AND', 'OR');
    return ("($a) $word ($c)", "($b) $word ($d)");
}

sub filled
{
    my ($table, @rows) = @_;
    sql(join "\n", map { "INSERT INTO $table VALUES (" . join(', ', @$_) . ');' } splice @rows, 0, 200) while @rows;
    return;
}
$with_fact = 1;
sql('CREATE TABLE rule (n int, rule text, plain text, facts jsonb[], found boolean[], answer boolean[], planned boolean[], odd boolean[])');
filled('rule', map { my ($rule, $plain) = rule(int(rand(4))); [ $_, quote($rule), quote($plain), facts($_ % 50 == 0 ? 100 : $_ % 3 == 0 ? 1 : 2 + int(rand(8))) ] } 1 .. $rules);
sql(<<'SQL');
-- whether the condition holds, of each fact; false where it fails
CREATE FUNCTION plain(condition text, facts jsonb[]) RETURNS boolean[] LANGUAGE plpgsql
SET TimeZone = 'Asia/Shanghai' SET search_path = pg_catalog, crm AS $$
DECLARE
	f jsonb;
	answer boolean[] := '{}';
	holds boolean;
BEGIN
	FOREACH f IN ARRAY facts LOOP
		BEGIN
			EXECUTE format('SELECT EXISTS (SELECT FROM (SELECT p.*, (SELECT s.rank FROM crm.stage s WHERE s.stage = p.stage) AS stage_rank,
				%L::timestamptz AS as_of, %L::timestamptz::date AS today FROM crm.profile p WHERE p.contact_id = %L OFFSET 0) AS p,
				(SELECT %L::text AS kind, %L::timestamptz AS occurred_at, %L::numeric AS amount, %L::text AS currency, %L::text AS external_ref,
					%L::jsonb AS items, %L::bigint AS store_id, %L::bigint AS account_id, %L::jsonb AS properties, %L::bigint AS qr_code_id,
					%L::text AS campaign OFFSET 0) AS fact,
				(SELECT %L::text AS field, %L::text AS old, %L::text AS new OFFSET 0) AS change WHERE (%s) IS TRUE)',
				f->>'as_of', f->>'as_of', f->>'contact_id', f->>'fact.kind', f->>'fact.occurred_at', f->>'fact.amount', f->>'fact.currency',
				f->>'fact.external_ref', f->'fact.items', f->>'fact.store_id', f->>'fact.account_id', f->'fact.properties',
				f->>'fact.qr_code_id', f->>'fact.campaign', f->>'field', f->>'old', f->>'new', condition) INTO holds;
		EXCEPTION WHEN data_exception THEN
			holds := false;
		END;
		answer := answer || holds;
	END LOOP;
	RETURN answer;
END $$;
SQL

sub by_plan
{
    my ($how) = @_;
    # row security, although it hides nothing of the owner, asks for a plan
    sql("ALTER TABLE $_ $how ROW LEVEL SECURITY") for qw(crm.contact crm.profile_counter crm.stage);
    return;
}

sub none_differs
{
    my ($what, $table, $condition, $shown) = @_;
    is(sql("SELECT string_agg(n || ': ' || rule || ' gave ' || $shown, E'\\n') FROM (SELECT * FROM $table WHERE $condition ORDER BY length(rule) LIMIT 3) AS r"), '', $what);
    return;
}
my $odd = "SET timezone = 'America/New_York'; SET datestyle = 'SQL, DMY'; SET intervalstyle = 'sql_standard';\n";
sql('UPDATE rule SET found = plain(plain, facts)');
sql('UPDATE rule SET answer = fact_rule(rule, facts)');
sql("${odd}UPDATE rule SET odd = fact_rule(rule, facts) WHERE n % 4 = 0");
by_plan('ENABLE');
sql('UPDATE rule SET planned = fact_rule(rule, facts)');
by_plan('DISABLE');
cmp_ok(sql('SELECT count(*) FROM rule WHERE true = ANY (found) AND false = ANY (found)'), '>', $rules / 8, 'many rules hold for some facts and not for others');
none_differs("$rules rules: a fact is asked as plain SQL says", 'rule', 'answer IS DISTINCT FROM found', "answer::text || ' not ' || found::text || ' for ' || facts::text");
none_differs('and by plans', 'rule', 'planned IS DISTINCT FROM found', "planned::text || ' not ' || found::text || ' for ' || facts::text");
none_differs('and in a session that writes dates another way', 'rule', 'n % 4 = 0 AND odd IS DISTINCT FROM answer', "odd::text || ' not ' || answer::text");

# many rules of the same facts, asked together
sql('CREATE TABLE many (n int, rule text, facts jsonb[], together boolean[], alone boolean[])');
filled('many', map { [ $_, "(SELECT array_agg(rule)::text FROM (SELECT rule FROM rule ORDER BY random() LIMIT 1 + $_ % 12) r)", facts(1 + int(rand(5))) ] } 1 .. $rules / 10);
sql('UPDATE many SET together = fact_rules(rule::text[], facts)');
sql('UPDATE many SET alone = (SELECT array_agg(h ORDER BY r, f) FROM unnest(rule::text[]) WITH ORDINALITY u(one, r), unnest(fact_rule(one, facts)) WITH ORDINALITY v(h, f))');
none_differs('many rules together say what each says alone', 'many', 'together IS DISTINCT FROM alone', "together::text || ' not ' || alone::text || ' for ' || facts::text");

# many that want the same values on some side of a constant, so that those that cannot hold are searched for
sub guarded
{
    my ($value, @bounds) = @{ pick(
        [ 'fact.amount', map { int(rand(120)) . pick('', '.5') } 1 .. 3 ], [ 'orders', 0 .. 5 ], [ 'spend', map { int(rand(200)) } 1 .. 3 ], [ 'size', 0, 1, 2, '2::bigint' ],
        [ 'city', "'Köln'", "'Shanghai'", "'X'" ], [ 'fact.campaign', "'spring'", "'Köln'" ], [ 'stage_rank', 1, 2, 3 ], [ 'fact.store_id', 1, 2, 3, '2.5' ],
        [ 'last_order_at', "'2024-06-01Z'::timestamptz", "'2024-05-01Z'::timestamptz" ], [ 'fact.occurred_at', "'2024-06-10Z'::timestamptz", "'2024-06-20Z'::timestamptz" ],
        [ 'birthday', "'1990-02-28'::date", "'2000-01-01'::date" ]) };
    my $bound    = pick(@bounds);
    my $operator = pick('<', '<=', '=', '=', '>=', '>');
    my $guard    = rand() < 0.3 ? "$bound $operator $value" : "$value $operator $bound";
    my $luck     = rand();
    return $guard if $luck < 0.5;
    my ($other) = condition();
    return $luck < 0.7 ? "$guard AND ($other)" : $luck < 0.9 ? "($other) AND $guard" : "NOT ($guard)";
}
sub array { return 'ARRAY[' . join(', ', map { quote($_) } @_) . ']::text[]' }
sql('CREATE TABLE alike (n int, rule text[], facts jsonb[], together boolean[], alone boolean[], by_plan boolean[])');
filled('alike', map { [ $_, array(map { guarded() } 1 .. 20 + int(rand(80))), facts(pick(1, 1, 5, 20)) ] } 1 .. $rules / 40);
my $alone = '(SELECT array_agg(h ORDER BY r, f) FROM unnest(rule) WITH ORDINALITY u(one, r), unnest(fact_rule(one, facts)) WITH ORDINALITY v(h, f))';
sql('UPDATE alike SET together = fact_rules(rule, facts)');
sql("UPDATE alike SET alone = $alone");
by_plan('ENABLE');
sql("UPDATE alike SET by_plan = $alone");
by_plan('DISABLE');
cmp_ok(sql('SELECT count(*) FROM alike, unnest(alone) AS h WHERE h'), '>', $rules / 4, 'many of those searched for hold');
my $first = '(SELECT string_agg(one || chr(32) || f::text, chr(10)) FROM (SELECT one, facts[f] AS f FROM unnest(rule) WITH ORDINALITY u(one, r), generate_subscripts(facts, 1) AS f
    WHERE together[(r - 1) * cardinality(facts) + f] IS DISTINCT FROM by_plan[(r - 1) * cardinality(facts) + f] LIMIT 3) AS d)';
is(sql("SELECT string_agg($first, E'\\n') FROM alike WHERE together IS DISTINCT FROM alone"), '', 'rules that are searched for say what each says alone');
is(sql("SELECT string_agg($first, E'\\n') FROM alike WHERE together IS DISTINCT FROM by_plan"), '', 'and what plans say');

# ---- what a rule may not say
sub refused
{
    my ($rule, $error, $at, $what) = @_;
    my ($out, $err);
    $node->psql($db, "\\set VERBOSITY verbose\nSELECT fact_rule(" . quote($rule) . ", '{}')", stdout => \$out, stderr => \$err);
    like($err, qr/ERROR:  $error/, $what);
    my ($line, $caret) = $err =~ /^(LINE 1: .*)\n( *)\^/m;
    is(substr($line // '', length($caret // ''), length $at), $at, '  and points at it');
    return $err;
}
like(refused("orders > 1 AND fact.amont > 100", '42703: rule names unknown column "fact.amont"', 'fact.amont', 'an unknown column of a fact is refused'),
    qr/HINT:  Known are fact\.kind, .*fact\.amount, .*field, old, new, .*city, .*nick, .*stage_rank, as_of, today\./, '  and those that there are are named');
refused('orderz > fact.amount', '42703: rule names unknown column "orderz"', 'orderz', 'so is one of the profile');
refused('fact.amount > 1 AND EXISTS (SELECT 1)', '0A000: a rule may not hold a sub-select', 'EXISTS', 'a sub-select is');
refused("times(fact.kind) > 1", '0A000: times\(\) in a rule takes constants only', 'fact.kind', 'a fact is no argument of a rule function');
refused('fact.amount', '42804: ', 'fact.amount', 'a rule is true or false');
refused('fact.kind > 7', '42883: operator does not exist: text > integer', '> 7', 'types are checked');
refused("orders > 1 AND fact.amount > 'much'", '22P02: invalid input syntax for type numeric', "'much'", 'constants are read when the rule is');
refused('fact.occurred_at < now()', '0A000: function now\(\) may not be called', 'now()', 'the clock is not read');
refused('fact.* IS NULL', '0A000: a rule may not hold an asterisk', 'fact.*', 'nor all of a fact at once');
refused('orders = $5', '0A000: a rule may not hold a parameter', '$5', 'nor a parameter of a name');

# ---- NULL, and failures
sub holds
{
    my ($rule, @facts) = @_;
    return sql('SELECT fact_rule(' . quote($rule) . ', ARRAY[' . join(', ', map { quote($json->encode({ contact_id => 1, as_of => '2024-06-01Z', %$_ })) } @facts) . ']::jsonb[])');
}
sql("INSERT INTO crm.contact (contact_id, nick) VALUES (1001, 'n')");
is(holds('fact.amount > 5', {}, { 'fact.amount' => 6 }, { 'fact.amount' => 4 }), '{f,t,f}', 'an amount that there is not is not above');
is(holds('NOT fact.amount > 5', {}, { 'fact.amount' => 6 }, { 'fact.amount' => 4 }), '{f,f,t}', 'nor below');
is(holds('fact.amount > 5 OR orders >= 0', {}, { 'fact.amount' => 6 }), '{t,t}', 'OR needs one of two');
is(holds("(fact.amount > 5 OR nick = 'n') IS NULL AND fact.kind IS NULL", { contact_id => 1001 }, { contact_id => 1001, 'fact.kind' => 'x' }), '{f,f}', 'and is known then');
is(holds("fact.campaign = nick", { contact_id => 1001, 'fact.campaign' => 'n' }, { contact_id => 1001 }), '{t,f}', 'nothing equals what is not there');
is(holds('fact.amount > 0', ()), '{}', 'of no facts none holds');
is(holds("NULL"), '{}', 'a rule may be NULL');

sub failures { return sql(q(SELECT string_agg(concat_ws(' ', contact_id, object_kind, object, times, sqlstate), ', ' ORDER BY contact_id) FROM crm.rule_error)) }
my @four = ({ 'fact.amount' => 0 }, { 'fact.amount' => 2 }, { 'fact.amount' => 0 }, { contact_id => 1001, 'fact.amount' => 0 });
for my $rule ('100 / fact.amount > 20', '100 / fact.amount > orders - 1000', "100 / fact.amount > 20 AND times('cart') >= 0", "100 / fact.amount > times('cart') - 1000")
{
    sql('TRUNCATE crm.rule_error');
    is(holds($rule, @four), '{f,t,f,f}', "$rule is false where it fails");
    is(failures(), '1 test rule 2 22012, 1001 test rule 1 22012', '  which is counted each time');
}
sql('TRUNCATE crm.rule_error');
is(holds("fact.kind = 'purchase' AND 100 / fact.amount > 20 AND spend / fact.amount >= 0", { 'fact.kind' => 'cart', 'fact.amount' => 0 }), '{f}',
    'what a condition before it refuses is not asked');
is(failures(), '', '  and cannot fail');
is(sql('BEGIN READ ONLY; SELECT fact_rule(' . quote('1 / fact.amount > orders') . ", ARRAY['{\"contact_id\": 1, \"as_of\": \"2024-06-01Z\", \"fact.amount\": 0}']::jsonb[]); COMMIT"),
    '{f}', 'where nothing may be written a failure is false all the same');

# ---- what it reads
is(sql(q{SELECT fact_rule_reads($$fact.amount > 5 AND city = fact.campaign AND NOT did('cart') AND in_segment('buyers') AND new = nick AND stage_rank > 1$$)}),
    'topics,32 kinds,cart columns,city,nick segments,buyers', 'a rule knows what it reads of the contact, and that the fact is not of it');

# ---- what changes while a rule is kept
my $facts = q{ARRAY['{"contact_id": 1001, "as_of": "2024-06-01Z", "fact.campaign": "n", "fact.amount": 3}']::jsonb[]};
my ($out, $err);
$node->psql($db, <<"SQL", stdout => \$out, stderr => \$err, on_error_stop => 0);
SELECT fact_rule_keep('fact.amount <= rank(''paying'') AND fact.amount > orders AND stage_rank IS NOT NULL');
SELECT fact_rule_kept($facts);
BEGIN; UPDATE crm.stage SET rank = rank - 10; SELECT fact_rule_kept($facts); ROLLBACK;
SELECT fact_rule_kept($facts);
SELECT fact_rule_keep('fact.campaign = nick');
SELECT fact_rule_kept($facts);
ALTER TABLE crm.contact ADD COLUMN colour text;
SELECT crm.install() \\g /dev/null
SELECT fact_rule_kept($facts);
ALTER TABLE crm.contact DROP COLUMN nick CASCADE;
SELECT fact_rule_kept($facts);
SELECT crm.install() \\g /dev/null
SELECT fact_rule_kept($facts);
SELECT fact_rule_kept($facts);
ALTER TABLE crm.contact ADD COLUMN nick text;
SELECT crm.install() \\g /dev/null
SELECT fact_rule_kept($facts);
SQL
is(join(' ', grep { /\S/ } split /\n/, $out), '{t} {f} {t} {t} {t} {f}', 'a rule that is kept follows the tables');
is(join(', ', $err =~ /ERROR:  (.*)/g), join(', ', 'table crm.profile does not exist', ('rule names unknown column "nick"') x 2), 'and says each time why it cannot be asked');

# ---- contacts each as of a time of its own
$with_fact = 0;
sql('CREATE TABLE asked (n int, rule text, contacts bigint[], as_of timestamptz[], together boolean[], planned boolean[], alone boolean[])');
filled('asked', map {
        my ($rule) = rule(int(rand(4)));
        my $n = $_ % 20 == 0 ? 300 : int(rand(12));
        my $same = rand() < 0.2 ? moment() : undef;
        [ $_, quote($rule), "'{" . join(',', map { 1 + int(rand($contacts + 2)) } 1 .. $n) . "}'", "'{" . join(',', map { '"' . ($same // moment()) . '"' } 1 .. $n) . "}'" ]
} 1 .. $rules);
sql('UPDATE asked SET together = rule_at(rule, contacts, as_of, false)');
sql('UPDATE asked SET alone = rule_at(rule, contacts, as_of, true)');
by_plan('ENABLE');
sql('UPDATE asked SET planned = rule_at(rule, contacts, as_of, false)');
by_plan('DISABLE');
cmp_ok(sql('SELECT count(*) FROM asked WHERE true = ANY (alone) AND false = ANY (alone)'), '>', $rules / 10, 'many hold for some contacts and moments');
none_differs("$rules rules: contacts at their moments are asked as each alone", 'asked', 'together IS DISTINCT FROM alone', "together::text || ' not ' || alone::text || ' for ' || contacts::text || as_of::text");
none_differs('and by plans', 'asked', 'planned IS DISTINCT FROM alone', "planned::text || ' not ' || alone::text || ' for ' || contacts::text || as_of::text");

done_testing();
