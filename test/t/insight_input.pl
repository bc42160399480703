# What the functions of room insight do with bad and hostile input: each of them, as its SQL file declares it, with each
# argument in turn given every value of its type's list, on a brand with data and on an empty one. Whatever is refused is
# refused with an SQLSTATE that says why, a message that names the value or the argument, and a hint; what is drawn is
# well-formed. Then the cases that must be refused in a certain way.
use strict;
use warnings;

use Encode;
use FindBin;
use lib "$FindBin::RealBin/../lib";
use CrmPicture;
use CrmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = crm_node('insight_input');
my @dbs  = map { crm_database($node, $_) } qw(shop empty);
my $clock = "SET client_min_messages = error; SET pg_crm.clock = '2024-06-30 20:00+08'; ";
sub sql { return $node->safe_psql($_[0], $clock . $_[1]) }

# ---------- the functions, as they are declared ----------

my %function;
for my $file (glob 'sql/extension/insight*.sql')
{
    my $text = slurp_file($file);
    while ($text =~ /^CREATE FUNCTION crm\.(\w+)\(([^()]*)\)\s*(?:RETURNS (?!trigger)|LANGUAGE)/gm)
    {
        my ($name, $arguments) = ($1, $2);
        next if $arguments =~ /funnel_state|cstring|internal/;
        $arguments =~ s/\bOUT .*//s;
        push @{ $function{$name} }, [ $1, $2 ] while $arguments =~ /(\w+) ((?:timestamptz|date|interval|jsonb|integer|bigint|double precision|text|numeric)(?:\[\])?)/g;
        $function{$name} //= [];
    }
}
cmp_ok(scalar keys %function, '>', 40, 'functions are found');

# ---------- values ----------

my %good = (
    contact_id => '1', touchpoint => "'order'", score => '1', source => "'survey'", interaction => "'i'", confidence => '0.9', note => "'a note'", persona => "'buyer'", map => "'first'",
    start_kind => "'purchase'", return_kind => "'purchase'", unit => "'month'", periods => '3', retention => "'classic'", attribution => "'spring'", journey => "'welcome'", step => "NULL",
    by_time => "'entry'", measure => "'facts'", successes => '3', trials => '10', touchpoints => "'{scan,order}'", within => "'30 days'", steps => q('[{"on": "scan"}, {"on": "purchase"}]'),
    recency => "'{30,90}'", frequency => "'{2,5}'", monetary => "'{50,200}'", period_start => "'2024-05-01'", period_end => "'2024-06-01'", conversion => "'purchase'", baseline => 'NULL');
my %good_of = (
    define_attribution => { definition => q('{"name": "x", "on_kind": "purchase"}') },
    define_persona     => { definition => q('{"name": "x", "rule": "orders > 0"}') },
    define_touchpoint  => { definition => q('{"name": "x", "on_kind": "follow"}') },
    define_map         => { definition => q('{"map": "x", "stages": [{"name": "s", "touchpoints": ["order"]}]}') },
    fact_funnel_rows   => { step => '1' },
    fact_funnel        => { source => 'NULL' }, funnel_svg => { source => 'NULL' });
$good_of{fact_funnel_rows}{source} = 'NULL';

my $hostile = q(E'<a href="x">&amp;\'\\x02\\n]]>%s');
my @jsonb = ('null', '1', '"x"', '[]', '{}', '[null]', '[[]]', '[{}]', '[1, "x"]', '{"name": null}', '{"name": {}, "rule": 7, "map": [], "stages": 1}', '{"name": 1e400, "on_kind": true, "rule": []}',
    '{"map": "x", "stages": [{"name": "s", "touchpoints": [null]}], "goals": {"a": 1}, "within": -1, "weights": [], "personas": "x", "transitions": [[]]}',
    '[{"on": 1}]', '[{"on": null, "rule": {}}]', '[{"on": "scan", "rule": "nix > 1"}]', '[{"on": "scan", "when": 3, "name": []}]', '{"journey": 1}', '{"journey": "welcome", "step": "x", "arm": {}}');
my %bad = (
    timestamptz => [ 'NULL', "'infinity'", "'-infinity'", "'294276-12-31 23:00+00'", "'4713-01-02 BC'", "'0001-01-01'", "'2024-05-15'", "'2030-01-01'" ],
    date        => [ 'NULL', "'infinity'", "'-infinity'", "'12000-12-31'", "'4713-01-01 BC'", "'5874897-12-31'", "'4714-11-24 BC'", "'2030-01-01'" ],
    interval    => [ 'NULL', "'-1 day'", "'0'", "'1 month -40 days'", "'100000000 years'", "'1000 years'", "'2147483647 days'", "'2000000000 hours'", "'1 microsecond'" ],
    text        => [ 'NULL', "''", "'nix'", $hostile, "repeat('x', 10000)", "repeat('海', 4000)", "'%s%n%d'", "' '" ],
    jsonb       => [ 'NULL', (map { "'$_'" } @jsonb), "to_jsonb($hostile\::text)", "repeat('[', 3000)::text || repeat(']', 3000)", map { "(SELECT jsonb_agg('{\"on\": \"scan\"}'::jsonb) FROM generate_series(1, $_))" } 65, 5000 ],
    integer     => [ 'NULL', '0', '-1', '2147483647', '-2147483648' ],
    bigint      => [ 'NULL', '0', '-1', '9223372036854775807', '-9223372036854775808' ],
    numeric     => [ 'NULL', "'NaN'", "'Infinity'", "'-Infinity'", '-3', '1e1000', '1e-1000' ],
    'numeric[]' => [ 'NULL', "'{}'", "'{NULL}'", "'{NaN}'", "'{3,2,1}'", "'{1,1}'", "'{{1,2},{3,4}}'", "'{-1}'", "'{Infinity}'", "'{1e1000}'", "'[0:1]={1,2}'", "(SELECT array_agg(n::numeric) FROM generate_series(1, 10000) AS n)" ],
    'text[]'    => [ 'NULL', "'{}'", "'{NULL}'", "'{{a},{b}}'", "'{order,order}'", "'[0:1]={scan,order}'", "'{nix}'", "ARRAY[$hostile]", "ARRAY[repeat('x', 10000)]" ],
    'double precision' => [ 'NULL', "'NaN'", "'Infinity'", '-1', '0', '1', '2', '1e-300' ]);

my (@attempts, %what);
sub attempt
{
    my ($name, $place, $value) = @_;
    my @arguments = map {
        my ($argument, $type) = @{ $function{$name}[$_] };
        my $given = defined $place && $_ == $place ? $value : $good_of{$name}{$argument} // ($type eq 'date' ? "'2024-0" . ($argument =~ /start/ ? 5 : 6) . "-01'" : undef) // $good{$argument} // 'NULL';
        "$argument => ($given)::$type"
    } 0 .. $#{ $function{$name} };
    push @attempts, [ $name, defined $place ? $function{$name}[$place][0] : '', $value // '', "SELECT * FROM crm.$name(" . join(', ', @arguments) . ')' ];
}
for my $name (sort keys %function)
{
    attempt($name);
    for my $place (0 .. $#{ $function{$name} })
    {
        my $type = $function{$name}[$place][1];
        ok($bad{$type}, "values of type $type") unless $bad{$type};
        attempt($name, $place, $_) for @{ $bad{$type} };
    }
}

# a period, either way round, and open on one side
for my $name (grep { my @names = map { $_->[0] } @{ $function{$_} }; grep { $_ eq 'period_start' } @names } sort keys %function)
{
    my ($place) = grep { $function{$name}[$_][0] eq 'period_end' } 0 .. $#{ $function{$name} };
    attempt($name, $place, "'2024-04-01'");
}

my $maker = q{
    CREATE TABLE attempt (id integer, statement text);
    CREATE FUNCTION try(statement text) RETURNS TABLE (state text, message text, hint text, result text) LANGUAGE plpgsql AS $$
    BEGIN
        EXECUTE 'SELECT string_agg(r::text, E''\n'') FROM (' || statement || ') AS r' INTO result;
        RAISE EXCEPTION USING ERRCODE = 'ZZZZZ';
    EXCEPTION
        WHEN SQLSTATE 'ZZZZZ' THEN state = ''; RETURN NEXT;
        WHEN OTHERS THEN GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
            state = sqlstate; RETURN NEXT;
    END $$;};

# ---------- brands ----------

sql('shop', q{
    INSERT INTO crm.account (account_id, kind, name) VALUES (1, 'official_account', 'brand');
    INSERT INTO crm.store (name) VALUES ('north');
    SELECT crm.define_qr_code('{"account_id": 1, "scene": "poster", "campaign": "spring"}');
    SELECT crm.scan('poster', 'brand', 'o' || n, at => '2024-04-28Z'::timestamptz + n * interval '7 hours') FROM generate_series(1, 50) AS n;
    SELECT crm.purchase(n, n, '2024-05-02Z'::timestamptz + n * interval '9 hours', 'p' || n) FROM generate_series(1, 30) AS n;
    SELECT crm.purchase(n, n, '2024-06-02Z'::timestamptz + n * interval '9 hours', 'q' || n) FROM generate_series(1, 10) AS n;});
sql('shop', slurp_file('test/fixtures/journeys.sql'));
sql('shop', q{SELECT walk_journey(three_steps(), 20, '2024-05-01')});
for my $db (@dbs)
{
    sql($db, q{SELECT crm.define_attribution('{"name": "spring", "on_kind": "purchase"}'), crm.define_persona('{"name": "buyer", "rule": "orders > 0"}'),
        crm.define_touchpoint('{"name": "scan", "on_kind": "scan"}'), crm.define_touchpoint('{"name": "order", "on_kind": "purchase"}'),
        crm.define_map('{"map": "first", "stages": [{"name": "s", "touchpoints": ["scan", "order"]}], "transitions": [{"from": "scan", "to": "order"}],
            "goals": [{"name": "g", "on": "purchase", "measure": "amount", "target": 1, "period": "1 month"}, {"name": "h", "rule": "orders > 0", "target": 1}]}');});
    sql($db, $maker . "COPY attempt FROM STDIN;\n" . join('', map { "$_\t" . ($attempts[$_][3] =~ s/\\/\\\\/gr) . "\n" } 0 .. $#attempts) . "\\.\n");
}

# ---------- each of them ----------

# what must be refused, of which arguments, and how; NULL where a default says all times is an open period with one end
my @must = (
    [ 'a period that ends before it starts', 'period_end', ["'2024-04-01'"], '22023' ],
    [ 'an infinite period', 'period_start|period_end', [ "'infinity'", "'-infinity'" ], '22008' ],
    [ 'a period of other ages', 'period_start|period_end', [ "'294276-12-31 23:00+00'", "'4713-01-02 BC'", "'12000-12-31'", "'4713-01-01 BC'", "'5874897-12-31'", "'4714-11-24 BC'" ], '22008' ],
    [ 'half a period', 'period_start|period_end', ['NULL'], '22004' ],
    [ 'an infinite time', 'as_of|at', [ "'infinity'", "'-infinity'" ], '22008' ],
    [ 'an unknown time zone', 'time_zone', [ "'nix'", "''", $hostile, "repeat('x', 10000)" ], '22023' ],
    [ 'steps of the wrong shape', 'steps', [ map({ "'$_'" } @jsonb), "repeat('[', 3000)::text || repeat(']', 3000)" ], '22023' ],
    [ 'no steps', 'steps', [ 'NULL', "'[]'" ], '2200[34]|22023' ],
    [ 'too many steps', 'steps', [ map { "(SELECT jsonb_agg('{\"on\": \"scan\"}'::jsonb) FROM generate_series(1, $_))" } 65, 5000 ], '22023|54000' ],
    [ 'a negative length of time', 'within', ["'-1 day'"], '22023' ],
    [ 'a length of time without end', 'within', [ "'100000000 years'", "'2147483647 days'" ], '22023' ],
    [ 'an unknown name', 'map|persona|journey|attribution|touchpoint|outcome', [ "'nix'", "''", $hostile ], '23503|2202.' ],
    [ 'an unknown word', 'measure|bucket|unit|by_time|retention|split_by|counted', [ "'nix'", "''", $hostile ], '22023' ],
    [ 'an unknown version', 'version', [ '0', '-1', '2147483647', '-2147483648' ], '23503' ],
    [ 'thresholds that are none', 'recency|frequency|monetary', [ "'{NULL}'", "'{NaN}'", "'{1,1}'", "'{{1,2},{3,4}}'" ], '22004|22023|2202E' ],
    [ 'a definition of the wrong shape', 'definition', [ 'NULL', map { "'$_'" } @jsonb ], '22004|22023|23502|23514|42.*|22P02' ],
    [ 'no certainty', 'confidence', [ "'NaN'", "'Infinity'", '-1', '0', '2' ], '22023|23514' ]);

for my $db (@dbs)
{
    # hex, so that a row of the answer is a line
    my $answers = sql($db, q{SELECT id, state, encode(convert_to(COALESCE(message, ''), 'UTF8'), 'hex'), encode(convert_to(COALESCE(hint, ''), 'UTF8'), 'hex'),
        encode(convert_to(COALESCE(result, ''), 'UTF8'), 'hex') FROM attempt, try(statement) ORDER BY id});
    my (%wrong, %states, %met, @documents);
    my $complain = sub { my ($why, $id, $more) = @_; push @{ $wrong{$why} }, "$attempts[$id][0]($attempts[$id][1] => " . substr($attempts[$id][2], 0, 60) . "): " . substr($more, 0, 300) };
    for (split /\n/, $answers)
    {
        my ($id, $state, @text) = split /\|/, $_, -1;
        my ($message, $hint, $result) = map { decode_utf8(pack 'H*', $_) } @text;
        my ($name, $argument, $value) = @{ $attempts[$id] };
        $states{ $state || 'answers' }++;
        for my $must ($db eq 'shop' ? @must : ())
        {
            my ($what, $of, $values, $wanted) = @$must;
            next unless $argument =~ /^(?:$of)$/ && grep { $_ eq $value } @$values;
            $met{$what}++;
            $complain->($what, $id, "$state $message") if $state !~ /^(?:$wanted)$/;
        }
        if ($state eq '')
        {
            push @documents, [ $id, $result ] if $name =~ /_svg$|^report_html$/ && $result ne '';
            $complain->('an answer holds a control character', $id, $result) if $name =~ /_svg$|_html$|_mermaid$|_dot$/ && $result =~ /[\x00-\x08\x0b-\x1f]/;
            next;
        }
        my $said = "$state $message / $hint";
        $complain->('no SQLSTATE of an error of the caller', $id, $said) if $state !~ /^(?:0A|22|23|42|54)/;
        $complain->('no hint', $id, $said) if $hint eq '';
        # the argument, or the beginning of the value without its quotes
        my $begins = quotemeta substr($value =~ s/^E?'//r =~ s/'$//r, 0, 3);
        $begins = 'x' if $value =~ /^repeat\('x|^ARRAY\[repeat/;
        $complain->('names neither the value nor the argument', $id, $said)
          if $argument ne '' && $message !~ /\b\Q$argument\E\b|period|NULL|touchpoint|syntax error at|has no goal|$begins/i && $value !~ /SELECT|jsonb|repeat/ && $argument ne 'definition' && $argument ne 'steps';
        $complain->('a very long message', $id, $said) if length $message > 500;
    }
    for my $document (@documents)
    {
        my ($id, $text) = @$document;
        # as text of a row: in brackets, with quotes doubled
        $text =~ s/^\("?|"?\)$//g;
        $text =~ s/""/"/g;
        $text =~ s/\\\\/\\/g;
        my $errors = xml_errors(encode_utf8($text));
        $complain->('not well-formed', $id, $errors) if $errors ne '';
    }
    diag("$db: " . join(', ', map { "$_ $states{$_}" } sort keys %states));
    cmp_ok($states{answers}, '>', 250, "$db: much is answered");
    cmp_ok(scalar @documents, '>', 30, "$db: pictures are among it");
    # where there is nothing, a name is refused before the value that comes after it
    delete $wrong{'names neither the value nor the argument'} if $db eq 'empty';
    for my $must ($db eq 'shop' ? @must : ())
    {
        my $what = $must->[0];
        is(join("\n", @{ $wrong{$what} // [] }), '', "$what is refused by $must->[3]");
        cmp_ok($met{$what}, '>', 0, "$what: by so many functions");
    }
    for my $why ('no SQLSTATE of an error of the caller', 'no hint', 'names neither the value nor the argument', 'a very long message', 'an answer holds a control character', 'not well-formed')
    {
        is(scalar @{ $wrong{$why} // [] }, 0, "$db: $why") or diag(join "\n", @{ $wrong{$why} }[ 0 .. ($#{ $wrong{$why} } < 400 ? $#{ $wrong{$why} } : 400) ]);
    }
}

$node->stop;
done_testing();
