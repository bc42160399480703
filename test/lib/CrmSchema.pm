# CrmSchema - looks whether a document, as JSON::PP decodes it, is as a JSON Schema says: what
# doc/journey.schema.json uses of draft 2020-12, and a word that is not known here is an error.
#
#   my @faults = crm_schema_faults($schema, $document);
package CrmSchema;

use strict;
use warnings;

use Exporter 'import';
use B;
use JSON::PP;

our @EXPORT = qw(crm_schema_faults);

my %annotations = map { $_ => 1 } qw($schema $id $defs title description default);
my $canonical   = JSON::PP->new->canonical->allow_nonref;

sub type_of
{
    my ($value) = @_;
    return 'null' if !defined $value;
    return 'boolean' if JSON::PP::is_bool($value);
    return { HASH => 'object', ARRAY => 'array' }->{ ref $value } if ref $value;
    my $flags = B::svref_2object(\$value)->FLAGS;
    return 'string' if $flags & B::SVf_POK;
    return $value == int($value) ? 'integer' : 'number';
}

my %checks = (
    type => sub {
        my ($wanted, $value) = @_;
        my $type = type_of($value);
        return grep({ $_ eq $type || $_ eq 'number' && $type eq 'integer' } ref $wanted ? @$wanted : $wanted) ? () : "is $type";
    },
    enum  => sub { my ($options, $value) = @_; my $is = $canonical->encode($value); return grep({ $canonical->encode($_) eq $is } @$options) ? () : 'is none of those' },
    const => sub { my ($option, $value) = @_; return $canonical->encode($option) eq $canonical->encode($value) ? () : 'is another' },
    pattern   => sub { my ($pattern, $value) = @_; return type_of($value) ne 'string' || $value =~ /$pattern/ ? () : "does not match $pattern" },
    minLength => sub { my ($least, $value) = @_; return type_of($value) ne 'string' || length $value >= $least ? () : 'is too short' },
    maxLength => sub { my ($most, $value) = @_; return type_of($value) ne 'string' || length $value <= $most ? () : 'is too long' },
    minimum   => sub { my ($least, $value) = @_; return type_of($value) !~ /^(integer|number)$/ || $value >= $least ? () : 'is too small' },
    maximum   => sub { my ($most, $value) = @_; return type_of($value) !~ /^(integer|number)$/ || $value <= $most ? () : 'is too large' },
    exclusiveMinimum => sub { my ($bound, $value) = @_; return type_of($value) !~ /^(integer|number)$/ || $value > $bound ? () : 'is too small' },
    minItems      => sub { my ($least, $value) = @_; return ref $value ne 'ARRAY' || @$value >= $least ? () : 'has too few' },
    maxItems      => sub { my ($most, $value) = @_; return ref $value ne 'ARRAY' || @$value <= $most ? () : 'has too many' },
    minProperties => sub { my ($least, $value) = @_; return ref $value ne 'HASH' || keys %$value >= $least ? () : 'has too few' },
    maxProperties => sub { my ($most, $value) = @_; return ref $value ne 'HASH' || keys %$value <= $most ? () : 'has too many' },
    required => sub { my ($keys, $value) = @_; return ref $value ne 'HASH' ? () : map { exists $value->{$_} ? () : "lacks $_" } @$keys },
    dependentRequired => sub {
        my ($needs, $value) = @_;
        return ref $value ne 'HASH' ? () : map { my $key = $_; exists $value->{$key} ? map { exists $value->{$_} ? () : "lacks $_" } @{ $needs->{$key} } : () } keys %$needs;
    },
    properties => sub {
        my ($schemas, $value, @rest) = @_;
        return ref $value ne 'HASH' ? () : map { exists $value->{$_} ? faults($schemas->{$_}, $value->{$_}, $rest[0], "$rest[1].$_") : () } sort keys %$schemas;
    },
    additionalProperties => sub {
        my ($schema, $value, $root, $at, $whole) = @_;
        return () if ref $value ne 'HASH';
        my @others = grep { !exists(($whole->{properties} // {})->{$_}) } sort keys %$value;
        return map { "has unknown $_" } @others if JSON::PP::is_bool($schema);
        return map { faults($schema, $value->{$_}, $root, "$at.$_") } @others;
    },
    propertyNames => sub { my ($schema, $value, $root, $at) = @_; return ref $value ne 'HASH' ? () : map { faults($schema, $_, $root, "$at ($_)") } sort keys %$value },
    items => sub { my ($schema, $value, $root, $at) = @_; return ref $value ne 'ARRAY' ? () : map { faults($schema, $value->[$_], $root, "$at\[$_]") } 0 .. $#$value },
    '$ref' => sub { my ($name, $value, $root, $at) = @_; $name =~ m{^#/\$defs/(\w+)$} or die "reference $name"; return faults($root->{'$defs'}{$1} // die("no $name"), $value, $root, $at) },
    not   => sub { my ($schema, $value, @rest) = @_; return faults($schema, $value, @rest[ 0, 1 ]) ? () : 'is what it may not be' },
    allOf => sub { my ($schemas, $value, @rest) = @_; return map { faults($_, $value, @rest[ 0, 1 ]) } @$schemas },
    anyOf => sub { my ($schemas, $value, @rest) = @_; return grep({ !faults($_, $value, @rest[ 0, 1 ]) } @$schemas) ? () : 'is none of several' },
    oneOf => sub { my ($schemas, $value, @rest) = @_; my $n = grep { !faults($_, $value, @rest[ 0, 1 ]) } @$schemas; return $n == 1 ? () : "is $n of several" },
);

sub faults
{
    my ($schema, $value, $root, $at) = @_;
    my @faults;
    for my $word (sort keys %$schema)
    {
        next if $annotations{$word};
        my $check = $checks{$word} or die "schema word \"$word\" is not known";
        push @faults, map { /^\.|^\(/ || /: / ? $_ : "$at: $_" } $check->($schema->{$word}, $value, $root, $at, $schema);
    }
    return @faults;
}

sub crm_schema_faults
{
    my ($schema, $document) = @_;
    return faults($schema, $document, $schema, '');
}

1;
