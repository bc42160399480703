# Real orders as reports see them: the cells of recency, frequency and monetary value of the CDNOW
# sample as its truth file has them, and monthly cohorts of it, counted a second time here.
use strict;
use warnings;
use IPC::Run;
use JSON::PP;
use Test::More;

my $folder = $ENV{PG_CRM_DATA} or BAIL_OUT('PG_CRM_DATA is not set');

sub psql
{
    my ($in) = @_;
    my ($out, $err) = ('', '');
    IPC::Run::run([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', 'reports' ], '<', \$in, '>', \$out, '2>', \$err)
      or die "psql: $err";
    chomp $out;
    return $out;
}

open my $lines, '-|', 'gzip', '-dc', "$folder/cdnow_sample.csv.gz" or die "$folder/cdnow_sample.csv.gz: $!";
<$lines>;
my @orders = map { chomp; [ (split /,/)[ 0, 1, 3 ] ] } <$lines>;
close $lines or die 'the orders cannot be read';
open my $file, '<', "$folder/cdnow_sample_truth.json" or die "$folder/cdnow_sample_truth.json: $!";
my $truth = decode_json(do { local $/; <$file> });

IPC::Run::run([ 'psql', '-Xq', '-d', 'postgres', '-c', 'CREATE DATABASE reports' ]) or die 'no database';
psql('SET client_min_messages = warning; CREATE EXTENSION pg_crm; SELECT crm.install();');
psql(q{INSERT INTO crm.contact (contact_id, created_at) VALUES } . join(', ', map { "($_, '1996-12-31')" } sort keys %{ { map { $_->[0] + 0 => 1 } @orders } }));
my $n = 0;
psql(join "\n", "SET TimeZone = 'UTC';", 'COPY crm.transaction (contact_id, occurred_at, amount, external_ref) FROM stdin;',
    (map { join "\t", $_->[0] + 0, @$_[ 1, 2 ], sprintf('%05d', ++$n) } @orders), "\\.\n");
is(psql('SELECT count(*) FROM crm.transaction'), $truth->{orders}, 'all orders');

# ---- recency, frequency, monetary value
my %cells = %{ $truth->{rfm_cells} };
is(psql(q{SELECT string_agg(cell || ' ' || contacts, ', ' ORDER BY cell) FROM crm.rfm_cells('1998-06-30Z', time_zone => 'UTC')}),
    join(', ', map { "$_ $cells{$_}" } sort keys %cells), 'the cells of the truth');
is(psql(q{SELECT sum(contacts), sum(orders), sum(spend) FROM crm.rfm_cells('1998-06-30Z', time_zone => 'UTC')}),
    join('|', @$truth{qw(customers orders spend)}), 'are everybody and everything');

# ---- cohorts by month
is(psql(q{SELECT string_agg(to_char(cohort_start, 'YYYY-MM') || ' ' || contacts, ', ' ORDER BY 1)
            FROM crm.cohort('purchase', 'purchase', '1996-01-01', '1999-01-01', 'month', 1, time_zone => 'UTC')}),
    join(', ', map { "$_ $truth->{first_orders_by_month}{$_}" } sort keys %{ $truth->{first_orders_by_month} }), 'first orders by month, as in the truth');
my (%months, %came);
push @{ $months{ $_->[0] } }, 12 * substr($_->[1], 0, 4) + substr($_->[1], 5, 2) for @orders;
for my $customer (values %months)
{
    my ($first, @others) = sort { $a <=> $b } @$customer;
    my %in = map { $_ - $first => 1 } @others;
    my ($latest) = sort { $b <=> $a } keys %in;
    $came{classic}{$first}{$_}++ for keys %in;
    $came{rolling}{$first}{$_}++ for defined $latest ? 0 .. $latest : ();
}
for my $retention (qw(classic rolling))
{
    my @want;
    for my $first (sort { $a <=> $b } keys %{ $came{$retention} })
    {
        push @want, join ' ', $first, $_, $came{$retention}{$first}{$_} // 0 for 0 .. 12 * 1998 + 6 - $first;
    }
    is(psql(qq{SELECT string_agg(concat_ws(' ', extract(year FROM cohort_start) * 12 + extract(month FROM cohort_start), unit_offset, returned), ', ' ORDER BY cohort_start, unit_offset)
                 FROM crm.cohort('purchase', 'purchase', '1997-01-01', '1998-01-01', 'month', 24, time_zone => 'UTC', retention => '$retention', as_of => '1998-06-30 23:00Z')}),
        join(', ', @want), "$retention retention by month, " . @want . ' cells');
}
done_testing();
