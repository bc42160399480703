# Templates filled with whatever there may be in them, against a slow reference: what comes out is
# JSON, the same as the body but for its strings, and these are the reference's.
# SEED=n repeats a run, CASES=n makes it longer.
use strict;
use warnings;
use utf8;
use CrmTest;
use JSON::PP;
use Test::More;

my $seed  = $ENV{SEED}  // time;
my $cases = $ENV{CASES} // 1500;
diag("SEED=$seed");
srand $seed;

my $node = crm_node('render', preload => 0);
crm_rooms($node, 'postgres');

# a value is [kind, content], so that numbers stay as they are written
my @parts = ('{{', '}}', '{', '}', '|', '.', ' ', 'a', 'b', 'a.b', 'name', '"', '\\', "\n", "\t", "\x01", '\\u0041', '你好', "\x{1F600}",
    "\x{2028}", '","x":"', '{{a}}', '{{b|}}', '{{ name | there }}', '{{a.b|x}}', '{{a.b.c}}', '{{missing}}', '{{missing|{}', '{{a|"\\', '\'', ';--', '$1', '%s', '&amp;');
my @keys = ('a', 'b', 'name', 'a.b', '你好', '{{a}}', '"', ' a', '');
my @places = ('{{a}}', '{{b}}', '{{name}}', '{{a.b}}', '{{a.b.c}}', '{{ a }}', '{{a|}}', '{{b| b }}', '{{a.b|x|y}}', '{{你好|"\\}}', '{{name|}}');

sub one_of { return $_[ rand @_ ] }
sub junk { return join '', map { one_of(@parts) } 1 .. rand 6 }
# mostly well formed
sub text { return rand() < 0.2 ? junk() : join '', map { rand() < 0.5 ? one_of(@places) : one_of('x', '"', '\\', '你', '}', '|', ' {', "\n") . '' } 1 .. rand 5 }

sub value
{
    my ($depth, $string) = @_;
    my $dice = rand 10;
    return [ o => { map { one_of(@keys) => value($depth - 1, $string) } 1 .. rand 4 } ] if $depth > 0 && $dice < 2;
    return [ a => [ map { value($depth - 1, $string) } 1 .. rand 4 ] ] if $depth > 0 && $dice < 3;
    return [ n => one_of('0', '-1', '1.50', '12345678901234567890123456789', '0.000000000000000000001', '-0.10') ] if $dice < 4;
    return [ b => one_of('true', 'false') ] if $dice < 5;
    return [ z => 'null' ] if $dice < 5.5;
    return [ s => $string->() ];
}
sub object { my $string = shift; return [ o => { map { one_of(@keys) => value(3, $string) } 1 .. 1 + rand 6 } ] }

my $encoder = JSON::PP->new->allow_nonref->canonical;
sub json
{
    my ($kind, $content) = @{ $_[0] };
    return '{' . join(',', map { $encoder->encode($_) . ':' . json($content->{$_}) } sort keys %$content) . '}' if $kind eq 'o';
    return '[' . join(',', map { json($_) } @$content) . ']' if $kind eq 'a';
    return $encoder->encode("$content") if $kind eq 's';
    return $content;
}

# ----- the reference -----
# every place of a string: [name, fallback]; dies where one is ill formed
sub places
{
    my ($s) = @_;
    my @found;
    while ($s =~ /\G.*?\{\{/gcs)
    {
        $s =~ /\G(.*?)\}\}/gcs or die "open\n";
        my ($name, @rest) = split /\|/, $1, -1;
        my $fallback = @rest ? join('|', @rest) : undef;
        $name //= '';
        $name =~ s/^ +| +\z//g;
        die "name\n" if $name eq '' || $name =~ /\{|^\.|\.\z|\.\./ || ($fallback // '') =~ /\{/;
        push @found, [ $name, $fallback ];
    }
    return @found;
}

sub look_up
{
    my ($node, $name) = @_;
    for my $part (split /\./, $name)
    {
        return undef unless $node->[0] eq 'o' && exists $node->[1]{$part};
        $node = $node->[1]{$part};
    }
    return $node->[0] =~ /[snb]/ ? $node->[1] : undef;
}

sub fill
{
    my ($s, $params, $contact) = @_;
    my @places = places($s);
    my $filled = '';
    for my $piece (split /(\{\{.*?\}\})/s, $s, -1)
    {
        if ($piece =~ /^\{\{/)
        {
            my ($name, $fallback) = @{ shift @places };
            $filled .= look_up($params, $name) // ($contact && look_up($contact, $name)) // $fallback // die "?$name\n";
        }
        else { $filled .= $piece }
    }
    return $filled;
}

sub rendered
{
    my ($node, @from) = @_;
    my ($kind, $content) = @$node;
    # members in the order of jsonb: shorter keys first, then bytewise; the first that is missing is named
    return [ o => { map { $_ => rendered($content->{$_}, @from) } sort { jsonb_order($a, $b) } keys %$content } ] if $kind eq 'o';
    return [ a => [ map { rendered($_, @from) } @$content ] ] if $kind eq 'a';
    return $kind eq 's' ? [ s => fill($content, @from) ] : $node;
}
sub bytes { my $s = shift; utf8::encode($s); return $s }
sub jsonb_order { my ($l, $r) = map { bytes($_) } @_; return length $l <=> length $r || $l cmp $r }

sub well_formed
{
    my ($kind, $content) = @{ $_[0] };
    return !grep { !well_formed($_) } values %$content if $kind eq 'o';
    return !grep { !well_formed($_) } @$content if $kind eq 'a';
    return $kind ne 's' || (eval { places($content); 1 } // 0);
}

# ----- both -----
sub lit { my $s = shift; $s =~ s/'/''/g; return "'$s'" }
sub run_sql
{
    my $sql = join '', map { "$_;\n" } @_;
    utf8::encode($sql);
    my $out = $node->safe_psql('postgres', $sql);
    return map { JSON::PP->new->utf8->allow_nonref->decode($_) } split /\n/, $out;
}

my (@good, @bad);
while (@good + @bad < $cases)
{
    my $body = object(\&text);
    push @{ well_formed($body) ? \@good : \@bad },
        [ $body, object(rand() < 0.5 ? \&junk : \&text), rand() < 0.2 ? undef : object(\&junk) ];
}
ok(@good > 100 && @bad > 100, 'there are ' . @good . ' templates and ' . @bad . ' that are none');

my %seen;
my @wrong;
my @got = run_sql(map { 'SELECT to_jsonb(template_render(' . join(', ', map { defined $_ ? lit(json($_)) : 'NULL' } @$_) . '))' } @good);
my @equal;
for my $i (0 .. $#good)
{
    my ($body, $params, $contact) = @{ $good[$i] };
    my $want = eval { rendered($body, $params, $contact) };
    if (!$want)
    {
        chomp(my $missing = $@);
        $seen{missing}++;
        push @wrong, "case $i: $got[$i], not $missing: " . json($body) if $got[$i] ne $missing;
        next;
    }
    $seen{filled}++ if json($want) ne json($body);
    $seen{plain}++ if json($want) eq json($body);
    if ($got[$i] !~ /^=/ || !eval { JSON::PP->new->decode(substr $got[$i], 1); 1 })
    {
        push @wrong, "case $i is no JSON: $got[$i]";
        next;
    }
    push @equal, [ $i, substr($got[$i], 1), json($want) ];
}
my @same = run_sql(map { 'SELECT to_jsonb(' . lit($_->[1]) . '::jsonb = ' . lit($_->[2]) . '::jsonb)' } @equal);
$same[$_] or push @wrong, "case $equal[$_][0]: $equal[$_][1], not $equal[$_][2]" for 0 .. $#equal;
is(join("\n", @wrong[ 0 .. ($#wrong < 4 ? $#wrong : 4) ]), '', "what comes out is the reference's (SEED=$seed)");
ok(($seen{$_} // 0) > 30, "of them $_: " . ($seen{$_} // 0)) for qw(filled plain missing);

# a text by itself, without a contact
my @texts = map { [ text(), object(\&junk) ] } 1 .. $cases / 3;
my @filled = run_sql(map { 'SELECT coalesce(to_jsonb(template_fill(' . lit($_->[0]) . ', ' . lit(json($_->[1])) . ')), \'null\')' } @texts);
my @other = grep {
    my $want = eval { fill(@{ $texts[$_] }) };
    # one that is ill formed is left as it is from there on
    (defined $want || $@ =~ /^\?/) && ($want // "\0") ne ($filled[$_] // "\0")
} 0 .. $#texts;
is(join("\n", map { "$texts[$_][0] => " . ($filled[$_] // 'NULL') } @other[ 0 .. ($#other < 4 ? $#other : 4) ]), '', "so are single texts (SEED=$seed)");
ok((grep { defined } @filled) > 30 && (grep { !defined } @filled) > 30, 'some of which miss a value');

# what is ill formed is refused, and what was well formed is not
is(scalar(grep { !defined $_ } run_sql(map { 'SELECT to_jsonb(template_check(' . lit(json($_->[0])) . '))' } @good)), 0, 'templates are taken');
my $refuse = q{CREATE FUNCTION refused(body jsonb) RETURNS text LANGUAGE plpgsql AS $$
    BEGIN PERFORM template_check(body); RETURN 'taken'; EXCEPTION WHEN others THEN RETURN SQLSTATE; END $$};
run_sql($refuse);
my @refused = run_sql(map { 'SELECT to_jsonb(refused(' . lit(json($_->[0])) . '))' } @bad);
my @taken = map { json($bad[$_][0]) } grep { $refused[$_] ne '22023' } 0 .. $#refused;
is("@taken[ 0 .. ($#taken < 2 ? $#taken : 2) ]", '', "what is none is refused (SEED=$seed)");
# one that got past the check is rendered all the same, to JSON
my @past = run_sql(map { 'SELECT to_jsonb(template_render(' . join(', ', map { defined $_ ? lit(json($_)) : 'NULL' } @$_) . '))' } @bad);
is(scalar(grep { !/^\?/ && !(/^=/ && eval { JSON::PP->new->decode(substr $_, 1); 1 }) } @past), 0, 'and breaks nothing');

done_testing();
