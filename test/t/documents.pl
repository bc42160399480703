# The SQL in the documents runs from top to bottom in a new database, and prints what they say;
# doc/reference.md has an entry for all that the extension gives.
#
# A block ```sql is run; a block ``` right after it is how that what psql prints ends, without
# "(n rows)". The extension is made and installed beforehand, unless a document does so.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = crm_node('documents');
$ENV{PGTZ} = 'Asia/Shanghai';

# what psql prints, without what differs in width only
sub essence
{
    my ($text) = @_;
    return join "\n", map { s/[-+]{2,}/--/gr =~ s/\s+/ /gr =~ s/^ | $//gr }
      grep { !/^\s*$/ && !/^\(\d+ rows?\)$/ } split /\n/, $text;
}

# [line, sql, expected output or undef]
sub blocks_of
{
    my ($file) = @_;
    my ($fence, $after_sql, @blocks);
    my $n = 0;
    for my $line (split /\n/, slurp_file($file))
    {
        $n++;
        if (defined $fence)
        {
            if ($line =~ /^```\s*$/)
            {
                $after_sql = $fence eq 'sql';
                undef $fence;
            }
            elsif ($fence eq 'sql')      { $blocks[-1][1] .= "$line\n" }
            elsif ($fence eq 'expected') { $blocks[-1][2] .= "$line\n" }
        }
        elsif ($line =~ /^```(\w*)/)
        {
            $fence = $1 eq '' && $after_sql ? 'expected' : $1 eq '' ? 'other' : $1;
            push @blocks, [ $n, '', undef ] if $fence eq 'sql';
            $blocks[-1][2] = '' if $fence eq 'expected';
        }
        else { $after_sql = 0 if $line =~ /\S/ }
    }
    return @blocks;
}

my $database = 0;
for my $file ('README.md', glob('doc/*.md'))
{
    my @blocks = blocks_of($file) or next;
    my $name   = 'document' . ++$database;
    $node->safe_psql('postgres', "CREATE DATABASE $name");
    $node->safe_psql($name, 'CREATE EXTENSION pg_crm; SELECT crm.install();')
      unless grep { $_->[1] =~ /CREATE EXTENSION pg_crm/ } @blocks;

    my $script = join '', map { "\\echo \@\@ $_->[0]\n$_->[1]\n" } @blocks;
    my ($out, $err);
    IPC::Run::run([ 'psql', '-XqP', 'pager=off', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($name) ],
        '<', \$script, '>', \$out, '2>', \$err);
    my %printed = $out =~ /^\@\@ (\d+)\n(.*?)(?=^\@\@ |\z)/gms;
    my @failed = grep { !/^(NOTICE|HINT|DETAIL):/ } split /\n/, $err;
    is(join("\n", @failed), '', "$file: " . @blocks . ' blocks run')
      or diag('after the block of line ' . (sort { $a <=> $b } keys %printed)[-1]);
    for my $block (grep { defined $_->[2] } @blocks)
    {
        my $said  = essence($block->[2]);
        my @lines = split /\n/, essence($printed{ $block->[0] } // '');
        splice @lines, 0, -(1 + $said =~ tr/\n//) if @lines > 1 + $said =~ tr/\n//;
        is(join("\n", @lines), $said, "$file, line $block->[0]: prints what it says");
    }
}

# functions with their arguments, tables and views with their columns, types, settings
crm_database($node, 'catalogue');
my $reference = slurp_file('doc/reference.md');
my %sections = $reference =~ /^### (\w+)\n(.*?)(?=^##|\z)/gms;

sub missing_in_reference
{
    my ($what, $sql, $is_there) = @_;
    my @missing = grep { !$is_there->(split /\|/) } split /\n/, $node->safe_psql('catalogue', $sql);
    is(join("\n", @missing), '', "doc/reference.md has every $what");
}

missing_in_reference('function, as it is declared', q{
    SELECT p.proname || '|' || regexp_replace(replace(replace(
               regexp_replace(pg_get_function_arguments(p.oid), ',? ?OUT [^,]*', '', 'g'),
               'timestamp with time zone', 'timestamptz'), ' DEFAULT ', ' = '), '::[a-z ]+(\[\])?', '', 'g')
      FROM pg_proc p
     WHERE p.pronamespace = 'crm'::regnamespace ORDER BY 1
}, sub { my ($name, $arguments) = @_;
    $arguments = '' if !defined $arguments;
    return index($reference, "`crm.$name($arguments)") >= 0 || $name =~ /^(mobile|weekly_hours|funnel_state)_/ && index($reference, "`$name`") >= 0 });
missing_in_reference('table and view with its columns', q{
    SELECT c.relname || '|' || a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
     WHERE c.relnamespace = 'crm'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
       AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.relname, a.attnum
}, sub { my ($table, $column) = @_; ($sections{$table} // '') =~ /^\| `\Q$column\E` \|/m });
missing_in_reference('type', q{
    SELECT t.typname FROM pg_type t WHERE t.typnamespace = 'crm'::regnamespace AND t.typtype IN ('b', 'e', 'd', 'r')
       AND t.typcategory <> 'A' ORDER BY 1
}, sub { $reference =~ /`crm\.$_[0]`/ });
missing_in_reference('setting with its default', q{
    SELECT name || '|' || boot_val FROM pg_settings WHERE name LIKE 'pg\_crm.%' ORDER BY 1
}, sub { my ($name, $default) = @_;
    $reference =~ /^\| `\Q$name\E` \|.*\|/m && (!defined $default || $default eq '' || $reference =~ /^\| `\Q$name\E` \|.*`\Q$default\E` \|/m) });
my %known = map { $_ => 1 } split /\n/, $node->safe_psql('catalogue', q{
    SELECT proname FROM pg_proc WHERE pronamespace = 'crm'::regnamespace
     UNION SELECT relname FROM pg_class WHERE relnamespace = 'crm'::regnamespace
     UNION SELECT typname FROM pg_type WHERE typnamespace = 'crm'::regnamespace
});
for my $file ('README.md', glob('doc/*.md'))
{
    my %named = map { $_ => 1 } slurp_file($file) =~ /\bcrm\.([a-z_]+)\b(?![.…-])/g;
    is(join(', ', grep { !$known{$_} } sort keys %named), '', "$file names nothing that is not there");
}

done_testing();
