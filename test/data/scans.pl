# Views of real shops as scans: one code for each item, each user a contact, counted once in
# windows of several lengths. The numbers were found by plain scripts that know nothing of pg_crm.
#
# The rows come by COPY in shuffled order, from four sessions at once. CRM_SEED=n repeats a run.
use strict;
use warnings;
use IPC::Run;
use List::Util qw(shuffle);
use POSIX qw(strftime);
use Test::More;

my $folder = $ENV{PG_CRM_DATA} or BAIL_OUT('PG_CRM_DATA is not set');
my $seed = $ENV{CRM_SEED} // int(rand(1_000_000));
srand($seed);
diag("CRM_SEED=$seed");

my @windows = ('1 second', '5 seconds', '60 seconds', '600 seconds', '3600 seconds', undef);
my %sets = (
    taobao => {
        file     => 'taobao_events_half.csv.gz',
        view     => sub { my @f = split /,/, $_[0]; return $f[3] eq 'pv' ? [ @f[ 0, 1, 4 ] ] : () },
        time     => sub { return strftime('%Y-%m-%d %H:%M:%SZ', gmtime $_[0]) },
        expected => [ 48891, 48889, 48829, 48549, 48260, 48129 ],
        views    => 48891,
    },
    rees46 => {
        file     => 'rees46_events.csv.gz',
        view     => sub { my @f = split /,/, $_[0]; return $f[1] eq 'view' ? [ @f[ 7, 2, 0 ] ] : () },
        time     => sub { return "$_[0]Z" },
        expected => [ 17050, 17025, 15296, 12729, 12114, 12107 ],
        views    => 17055,
    });

sub psql
{
    my ($database, $in) = @_;
    my ($out, $err) = ('', '');
    IPC::Run::run([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $database ], '<', \$in, '>', \$out, '2>', \$err)
      or die "psql: $err";
    chomp $out;
    return $out;
}

for my $name (sort keys %sets)
{
    my $set = $sets{$name};
    open my $lines, '-|', 'gzip', '-dc', "$folder/$set->{file}" or die "$folder/$set->{file}: $!";
    <$lines>;
    my @views = map { chomp; $set->{view}->($_) } <$lines>;
    close $lines;
    is(scalar @views, $set->{views}, "$name: views");

    psql('postgres', "CREATE DATABASE $name");
    psql($name, q{CREATE EXTENSION pg_crm; SELECT crm.install(); INSERT INTO crm.account (kind, name) VALUES ('mini_program', 'shop');});
    my (%users, %items);
    $users{ $_->[0] } = 1, $items{ $_->[1] } = 1 for @views;
    psql($name, join "\n", 'COPY crm.contact (contact_id) FROM STDIN;',  sort(keys %users), '\.', '');
    psql($name, join "\n", 'COPY crm.qr_code (qr_code_id, account_id, scene, dedup_window) FROM STDIN;',
        (map { "$_\t1\t$_\t1 second" } sort keys %items), '\.', '');

    # four sessions, each with a quarter of the rows in batches
    my @rows = map { join "\t", @$_[ 0, 1 ], $set->{time}->($_->[2]) } shuffle @views;
    my @runs;
    for my $session (0 .. 3)
    {
        my @own = @rows[ grep { $_ % 4 == $session } 0 .. $#rows ];
        my $in  = '';
        while (my @batch = splice @own, 0, 3000)
        {
            $in .= join "\n", 'COPY crm.scan (contact_id, qr_code_id, occurred_at) FROM STDIN;', @batch, '\.', '';
        }
        my ($out, $err) = ('', '');
        push @runs, { err => \$err, run => IPC::Run::start([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $name ], '<', \$in, '>', \$out, '2>', \$err) };
    }
    for my $run (@runs)
    {
        $run->{run}->finish;
        is(${ $run->{err} }, '', "$name: loaded by COPY");
    }

    for my $i (0 .. $#windows)
    {
        my $window = $windows[$i];
        psql($name, 'UPDATE crm.qr_code SET dedup_window = ' . (defined $window ? "'$window'" : 'NULL')) if $i > 0;
        is(psql($name, 'SELECT sum(scans), sum(counted) FROM crm.scan_count'), "$set->{views}|$set->{expected}[$i]",
            "$name: " . ($window // 'for ever'));
    }
    is(psql($name, 'SELECT sum(scans), sum(raw_scans) FROM crm.profile_counter'), "$set->{expected}[-1]|$set->{views}", "$name: in the profiles");
    is(psql($name, 'SELECT * FROM crm.verify()'), '', "$name: verify() finds nothing");
}

done_testing();
