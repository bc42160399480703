# CrmSandbox::Json - reads JSON about ten times as fast as JSON::PP, which is all that core Perl has.
#
# Bytes in, bytes out: strings stay UTF-8. true is 1, false 0, null undef. Numbers keep their digits.
# Writing is by hand in the hot path, with json_quote(), and by JSON::PP where it does not matter.
package CrmSandbox::Json;

use strict;
use warnings;
use Exporter 'import';
use JSON::PP ();

our @EXPORT = qw(json_read json_quote json_write);

my %escape = ('"' => '"', '\\' => '\\', '/' => '/', b => "\b", f => "\f", n => "\n", r => "\r", t => "\t");
my %quoted = ('"' => '\\"', '\\' => '\\\\', "\n" => '\\n', "\r" => '\\r', "\t" => '\\t');
my $writer = JSON::PP->new->canonical->allow_nonref;

# json_read(TEXT): the value and 1, or nothing where TEXT is not JSON in UTF-8
sub json_read
{
    my ($text) = @_;
    utf8::decode(my $copy = $text) or return;
    local $_ = $text;
    pos = 0;
    my $value;
    return unless eval { $value = value(0); /\G[ \t\r\n]*\z/gc or die "trailing\n"; 1 };
    return ($value, 1);
}

sub value
{
    my ($depth) = @_;
    die "too deep\n" if $depth > 256;
    /\G[ \t\r\n]+/gc;
    return $1 if /\G"([^"\\\x00-\x1f]*)"/gc;
    if (/\G\{/gc)
    {
        my %object;
        return \%object if /\G[ \t\r\n]*\}/gc;
        while (1)
        {
            my $key = /\G[ \t\r\n]*"([^"\\\x00-\x1f]*)"[ \t\r\n]*:/gc ? $1 : key();
            $object{$key} = value($depth + 1);
            next if /\G[ \t\r\n]*,/gc;
            return \%object if /\G[ \t\r\n]*\}/gc;
            die "object\n";
        }
    }
    if (/\G\[/gc)
    {
        my @array;
        return \@array if /\G[ \t\r\n]*\]/gc;
        while (1)
        {
            push @array, scalar value($depth + 1);
            next if /\G[ \t\r\n]*,/gc;
            return \@array if /\G[ \t\r\n]*\]/gc;
            die "array\n";
        }
    }
    return string() if /\G(?=")/gc;
    return $1 if /\G(-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)/gc;
    return 1 if /\Gtrue/gc;
    return 0 if /\Gfalse/gc;
    return undef if /\Gnull/gc;
    die "no value\n";
}

sub key
{
    /\G[ \t\r\n]+/gc;
    my $key = string();
    /\G[ \t\r\n]*:/gc or die "no colon\n";
    return $key;
}

# a string that has escapes
sub string
{
    /\G"/gc or die "no string\n";
    my $string = '';
    while (1)
    {
        $string .= $1 if /\G([^"\\\x00-\x1f]+)/gc;
        return $string if /\G"/gc;
        if (/\G\\(["\\\/bfnrt])/gc) { $string .= $escape{$1} }
        elsif (/\G\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})/gc)
        {
            $string .= utf8_of(0x10000 + ((hex($1) & 0x3ff) << 10) + (hex($2) & 0x3ff));
        }
        elsif (/\G\\u(?![dD][89a-fA-F])([0-9a-fA-F]{4})/gc) { $string .= utf8_of(hex $1) }
        else { die "string\n" }
    }
}

sub utf8_of
{
    my $char = chr $_[0];
    utf8::encode($char);
    return $char;
}

# json_quote(BYTES): a JSON string; bytes that are not UTF-8 come out as Latin 1
sub json_quote
{
    my ($text) = @_;
    return 'null' unless defined $text;
    return "\"$text\"" unless $text =~ /[^\x20-\x21\x23-\x5b\x5d-\x7e]/;
    if (!utf8::decode(my $copy = $text)) { utf8::encode($text) }
    $text =~ s/([\x00-\x1f"\\])/$quoted{$1} || sprintf '\\u%04x', ord $1/ge;
    return "\"$text\"";
}

# json_write(VALUE): strings that are bytes stay as they are
sub json_write { return $writer->encode($_[0]) }

1;
