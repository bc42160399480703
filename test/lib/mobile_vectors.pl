#!/usr/bin/perl
# Feeds the published phone numbers of phone_vectors_half.json to crm.mobile.
#
# Reads $PG_CRM_DATA/phone_vectors_half.json (verdicts of libphonenumber) and
# asks the database that the PG* environment names, which has the extension.
# Prints TAP.  Without PG_CRM_DATA there is nothing to do.
use strict;
use warnings;

use File::Temp qw(tempdir);
use JSON::PP;

my $file = 'phone_vectors_half.json';

# the plans whose ranges are checked, and the codes to read national forms by
my %code_of = (
    CN => 86, HK => 852, MO => 853, TW => 886, SG => 65, US => 1,
    GB => 44, FR => 33, DE => 49, JP => 81, KR => 82);

# A form that may be refused, but not be read as another number: the exit
# codes 011 and those of Singapore, and a trunk 1 after 00 1.
sub may_be_refused
{
    my ($case) = @_;

    return $case->{input} =~ /^011 /
      || ($case->{default_region} // '') eq 'SG' && $case->{input} =~ /^0\d\d1/
      || $case->{input} =~ /^0011/;
}

sub quoted
{
    my ($text) = @_;

    return 'NULL' if !defined $text;
    $text =~ s/'/''/g;
    return "'$text'";
}

# Have the database read all cases; returns id => number or SQLSTATE
sub read_cases
{
    my ($cases) = @_;
    my $dir = tempdir(CLEANUP => 1);
    my %outcome;

    open my $script, '>:encoding(UTF-8)', "$dir/cases.sql"
      or die "cannot write $dir/cases.sql: $!\n";
    print $script <<'SQL';
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT '+8613800138000'::crm.mobile;
CREATE FUNCTION pg_temp.outcome(input text, code integer) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.set_config('pg_crm.default_country_code', code::text, false);
    RETURN input::crm.mobile::text;
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE;
END
$$;
SQL
    for my $case (@$cases)
    {
        my $code = $code_of{ $case->{default_region} // 'CN' } // 86;

        printf $script "SELECT %s, pg_temp.outcome(%s, %d);\n",
          quoted($case->{id}), quoted($case->{input}), $code;
    }
    close $script;

    open my $psql, '-|', 'psql', '-XqAt', '-F', '|', '-v', 'ON_ERROR_STOP=1',
      '-f', "$dir/cases.sql"
      or die "cannot run psql: $!\n";
    while (my $line = <$psql>)
    {
        chomp $line;
        my ($id, $result) = split /\|/, $line, 2;
        $outcome{$id} = $result if defined $result;
    }
    close $psql or die "psql failed\n";
    return \%outcome;
}

if (!$ENV{PG_CRM_DATA})
{
    print "1..0 # SKIP set PG_CRM_DATA to the directory that has $file\n";
    exit 0;
}

open my $json, '<:raw', "$ENV{PG_CRM_DATA}/$file"
  or die "cannot read $ENV{PG_CRM_DATA}/$file: $!\n";
my $cases = do { local $/; decode_json(<$json>)->{cases} };
close $json;

my $outcome = read_cases($cases);
my $tests = 0;
my $failures = 0;
my $wider = 0;

sub check
{
    my ($holds, $name, $found) = @_;

    $tests++;
    $failures++ if !$holds;
    printf "%s %d - %s\n", $holds ? 'ok' : 'not ok', $tests, $name;
    printf "# found: %s\n", $found // 'nothing' if !$holds;
}

for my $case (@$cases)
{
    my $found = $outcome->{ $case->{id} } // 'nothing';
    my $plain = $case->{input} =~ /^[+]?[0-9 ()-]*\z/;
    my $of_plan = $code_of{ $case->{region} // '' }
      && (!defined $case->{default_region}
        || $code_of{ $case->{default_region} });
    my $name = sprintf "%s '%s' under %s", $case->{id},
      $case->{input} =~ s/[^ -~]/?/gr =~ s/#/?/gr,
      $case->{default_region} // 'none';

    if ($plain && $of_plan && $case->{valid} && $case->{mobile})
    {
        if (may_be_refused($case))
        {
            check($found eq '22P02' || $found eq $case->{e164},
                "$name is refused or $case->{e164}", $found);
        }
        else
        {
            check($found eq $case->{e164}, "$name is $case->{e164}", $found);
        }
    }
    elsif ($plain && !$case->{parsed})
    {
        check($found eq '22P02', "$name is refused", $found);
    }
    else
    {
        check($found eq '22P02' || $found =~ /^\+[1-9][0-9]{6,14}$/,
            "$name is refused or a number", $found);
        $wider++ if $of_plan && $found ne '22P02';
    }
}

print "# taken, though no valid mobile number to libphonenumber: $wider\n";
print "1..$tests\n";
exit($failures ? 1 : 0);
