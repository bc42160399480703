# A crowd: 64 clients do the same thing at once, and it happens once; a random mix on five contacts,
# and batches over many, end in no deadlock, no other error than the refusals that are meant, and
# profiles that verify() finds right.
#
# CRM_SEED=n repeats the statements of a run, though not their order.
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = defined $ENV{CRM_SEED} ? $ENV{CRM_SEED} : int(rand(1_000_000));
srand($seed);
diag("CRM_SEED=$seed");

my $dir  = PostgreSQL::Test::Utils::tempdir();
my $node = crm_node('crowd', conf => "max_connections = 80\nlog_statement = none\nlog_min_error_statement = error\n");
crm_database($node, 'shop');
$node->safe_psql('shop', q{
    INSERT INTO crm.account (kind, name) VALUES ('official_account', 'oa'), ('mini_program', 'mini');
    INSERT INTO crm.qr_code (account_id, scene) VALUES (1, 'banner');
    INSERT INTO crm.loyalty_program (name) VALUES ('club');
    CREATE TABLE seen (what text, id bigint, first boolean);
});

sub one { return $node->safe_psql('shop', $_[0]) }

my $scripts = 0;

sub pgbench
{
    my ($clients, $times, $script) = @_;
    my $file = "$dir/" . ++$scripts . '.sql';
    append_to_file($file, "$script\n");
    my ($out, $err) = ('', '');
    IPC::Run::run([ 'pgbench', '-n', '-c', $clients, '-j', 2, '-t', $times, '-f', $file, $node->connstr('shop') ], '>', \$out, '2>', \$err);
    $err =~ s/^pgbench \(.*\n//;
    return ($? >> 8, $out, $err);
}

# 64 clients, twice each
sub together
{
    my ($script, $what, %expected) = @_;
    my ($rc, $out, $err) = pgbench(64, 2, $script);
    is("$rc$err", '0', "64 clients: $what");
    is(one($_), $expected{$_}, "$what: $_") for sort keys %expected;
    sound($what);
}

sub sound
{
    my ($what) = @_;
    is(one('SELECT * FROM crm.verify()'), '', "$what: verify() finds nothing");
}

sub contact { return one("SELECT crm.identify('customer', '$_[0]')") }

# ---- the same thing
together(q{INSERT INTO seen SELECT 'identify', crm.identify('customer', 'new');}, 'identify() of somebody new',
    q{SELECT count(DISTINCT id), count(*) FROM seen WHERE what = 'identify'} => '1|128',
    'SELECT count(*) FROM crm.contact'                                       => 1);

together(q{INSERT INTO seen SELECT 'unionid', crm.identify(CASE :client_id % 2 WHEN 0 THEN 'oa' ELSE 'mini' END, 'u' || :client_id % 8, 'union');}, 'identify() of eight openids with one unionid',
    q{SELECT count(DISTINCT contact_id), count(*) FROM crm.identity WHERE external_id ~ '^u'} => '1|9',
    'SELECT count(*) FROM crm.contact'                                                        => 2);

my $c = contact('buyer');
together("SELECT crm.purchase($c, 120, external_ref => 'same');", 'the same purchase',
    "SELECT count(*), sum(amount) FROM crm.transaction WHERE contact_id = $c"                        => '1|120',
    "SELECT orders, spend FROM crm.profile_counter WHERE contact_id = $c"                            => '1|120',
    "SELECT string_agg(achievement || threshold, ' ' ORDER BY achievement) FROM crm.award WHERE contact_id = $c" => 'first_purchase1 spend_milestone100',
    "SELECT count(*) FROM crm.stage_move WHERE contact_id = $c AND stage = 'paying'"                 => 1);

together("SELECT crm.refund($c, 'same', 30, key => 'r');", 'the same refund',
    "SELECT count(*), sum(amount) FROM crm.transaction WHERE contact_id = $c AND kind = 'refund'" => '1|30',
    "SELECT refunds, spend FROM crm.profile_counter WHERE contact_id = $c"                        => '1|90',
    "SELECT count(*) FROM crm.award_change WHERE contact_id = $c AND change = 'revoked'"          => 1);

together(q{SELECT crm.follow('oa', 'follower', scene => 'banner', key => 'm1');}, 'the same follow of somebody new',
    q{SELECT count(*) FROM crm.identity WHERE external_id = 'follower'}                                                  => 1,
    q{SELECT count(*) FROM crm.event JOIN crm.identity USING (contact_id) WHERE external_id = 'follower'}                => 1,
    q{SELECT raw_scans, scans FROM crm.profile_counter JOIN crm.identity USING (contact_id) WHERE external_id = 'follower'} => '1|1',
    q{SELECT string_agg(achievement, ' ' ORDER BY achievement) FROM crm.award JOIN crm.identity USING (contact_id) WHERE external_id = 'follower'} => 'first_scan follow');

together(q{INSERT INTO seen SELECT 'keyed', scan_id, is_first FROM crm.scan('banner', 'oa', 'scanner', key => 's1');}, 'the same scan',
    q{SELECT count(DISTINCT id), bool_and(first) FROM seen WHERE what = 'keyed'}                            => '1|t',
    q{SELECT count(*) FROM crm.scan JOIN crm.identity USING (contact_id) WHERE external_id = 'scanner'}     => 1);

together(q{INSERT INTO seen SELECT 'scans', scan_id, is_first FROM crm.scan('banner', 'oa', 'scanners', '2024-01-01Z');}, 'scans in one instant',
    q{SELECT count(DISTINCT id), count(*) FILTER (WHERE first) FROM seen WHERE what = 'scans'}           => '128|1',
    q{SELECT scans, raw_scans FROM crm.profile_counter JOIN crm.identity USING (contact_id) WHERE external_id = 'scanners'} => '1|128');

one(q{INSERT INTO crm.qr_code (account_id, scene, campaign, dedup_scope) VALUES (1, 'k0', 'spring', 'campaign'), (1, 'k1', 'spring', 'campaign')});
together(q{SELECT crm.scan('k' || :client_id % 2, 'oa', 'campaigner');}, 'scans of two codes of one campaign',
    q{SELECT scans, raw_scans FROM crm.profile_counter JOIN crm.identity USING (contact_id) WHERE external_id = 'campaigner'} => '1|128',
    q{SELECT count(*) FROM crm.acquisition JOIN crm.identity USING (contact_id) WHERE external_id = 'campaigner'}          => 1);

# a limit for all who scan a code, kept through the mix below too
one(q{SELECT crm.define_scan_limit('{"name": "crowd", "per": ["code"], "max_scans": 10, "period": "1 day"}')});
one(q{INSERT INTO crm.qr_code (account_id, scene) VALUES (1, 'hot')});
together(q{SELECT crm.scan('hot', 'oa', 'x' || :client_id);}, 'one code scanned by 64 contacts',
    q{SELECT count(*), count(DISTINCT contact_id) FROM crm.scan JOIN crm.qr_code USING (qr_code_id) WHERE scene = 'hot'} => '128|64',
    q{SELECT sum(counted) FROM crm.scan_count JOIN crm.qr_code USING (qr_code_id) WHERE scene = 'hot'}                  => 64,
    q{SELECT count(*) FROM crm.scan_flag JOIN crm.scan USING (contact_id, scan_id) JOIN crm.qr_code USING (qr_code_id) WHERE scene = 'hot'} => 118);

together("SELECT crm.join_loyalty($c, 'club');", 'joining the programme',
    'SELECT count(*) FROM crm.membership'                                                            => 1,
    "SELECT count(*) FROM crm.event WHERE contact_id = $c AND kind = 'join_loyalty'"                 => 1);

together("SELECT crm.bind_mobile($c, '13800138000');", 'binding the same number',
    "SELECT count(*), count(verified_at) FROM crm.identity WHERE kind = 'mobile' AND contact_id = $c" => '1|1',
    "SELECT count(*) FROM crm.event WHERE contact_id = $c AND kind = 'bind_mobile'"                  => 1,
    "SELECT count(*) FROM crm.award WHERE contact_id = $c AND achievement = 'bind_mobile'"           => 1);

my $other = contact('other');
one("SELECT crm.purchase($other, 10, '2024-01-01Z', 'old')");
together("SELECT CASE :client_id % 2 WHEN 0 THEN crm.merge($c, $other) ELSE crm.merge($other, $c) END;", 'merging the same two',
    "SELECT count(*) FROM crm.merge_ledger WHERE unmerged_at IS NULL AND $c IN (contact_id, other)" => 1,
    "SELECT count(*) FROM crm.contact WHERE contact_id IN ($c, $other)"                       => 1,
    "SELECT orders, spend FROM crm.profile_counter WHERE contact_id IN ($c, $other)"          => '2|100',
    "SELECT crm.identify('customer', 'other') = crm.identify('customer', 'buyer')"            => 't');

# 64 people, one number: they are one person
one(q{SELECT crm.purchase(crm.identify('customer', 'p' || n), n, external_ref => 'x') FROM generate_series(0, 63) AS n});
together(q{SELECT crm.bind_mobile(crm.identify('customer', 'p' || :client_id), '13900139000');}, 'binding one number by 64 contacts',
    q{SELECT count(DISTINCT contact_id) FROM crm.identity WHERE external_id ~ '^p\d'}                                   => 1,
    q{SELECT orders, spend FROM crm.profile_counter WHERE contact_id = crm.identify('mobile', '13900139000')}           => '64|2016',
    q{SELECT count(*) FROM crm.merge_ledger WHERE contact_id = crm.identify('mobile', '13900139000')}                   => 63,
    q{SELECT count(*) FROM crm.event WHERE contact_id = crm.identify('mobile', '13900139000') AND kind = 'bind_mobile'} => 1);

# plain rows with one reference: one stays, all others are told
my $plain = contact('plain');
my ($rc, $out, $err) = pgbench(64, 1, "INSERT INTO crm.transaction (contact_id, amount, external_ref) VALUES ($plain, 5, 'plain');");
is(scalar(() = $err =~ /duplicate key value violates unique constraint "transaction_contact_id_external_ref_key"/g), 63, '64 clients: the same plain row: 63 refused');
is(scalar(() = $err =~ /ERROR:/g), 63, 'for no other reason');
is(one("SELECT orders, spend FROM crm.profile_counter WHERE contact_id = $plain"), '1|5', 'and one counted');
sound('the same plain row');

# ---- a random mix on five contacts
my @hot = map { contact("hot$_") } 1 .. 5;
one("SELECT crm.bind_mobile($hot[$_], '1370013700$_') FROM (SELECT 1) AS x") for 0, 1;
one(q{SELECT crm.identify('oa', 'h' || n, 'hu' || n), crm.identify('unionid', 'hu' || n) FROM generate_series(1, 5) AS n});
sub pick { return $_[ int(rand(@_)) ] }
sub hot  { return pick(@hot) }

# every mobile, openid and order number may come to any of the five
my @mix = (
    [ 30, sub { sprintf "SELECT crm.purchase(%d, %d, '2024-01-01Z'::timestamptz + %d * interval '1 hour', 'o%d');", hot(), 10, rand(50), rand(60) } ],
    [ 10, sub { sprintf "SELECT crm.purchase(%d, %d);", hot(), rand(200) } ],
    [ 15, sub { sprintf "SELECT crm.refund(%d, 'o%d', %d);", hot(), rand(60), 1 + rand(6) } ],
    [ 5,  sub { sprintf "SELECT crm.refund(%d, 'o%d', 5, key => 'r%d');", hot(), rand(60), rand(100) } ],
    [ 10, sub { sprintf "SELECT crm.track(%d, 'cart', key => 'k%d');", hot(), rand(50) } ],
    [ 10, sub { sprintf "SELECT crm.%s('oa', 'h%d');", pick('follow', 'unfollow'), 1 + rand(5) } ],
    [ 10, sub { sprintf "SELECT crm.scan('banner', 'oa', 'h%d');", 1 + rand(5) } ],
    [ 5,  sub { sprintf "SELECT crm.set_stage(%d, %s, 'mix');", hot(), pick('NULL', "'intent'", "'other'") } ],
    [ 10, sub { sprintf "INSERT INTO crm.transaction (contact_id, amount) VALUES %s;", join ', ', map { sprintf '(%d, %d)', hot(), rand(50) } 1 .. 1 + rand(6) } ],
    [ 5,  sub { sprintf "INSERT INTO crm.event (contact_id, kind) VALUES %s;", join ', ', map { sprintf "(%d, 'form')", hot() } 1 .. 1 + rand(6) } ],
    [ 5,  sub { sprintf "SELECT crm.bind_mobile(%d, '1370013700%d');", hot(), rand(4) } ],
    [ 8,  sub { sprintf "SELECT crm.merge(%d, %d);", hot(), hot() } ],
    [ 8,  sub { sprintf "SELECT crm.unmerge(%d);", hot() } ],
    [ 5,  sub { sprintf "SELECT crm.identify('oa', 'h%d', 'hu%d');", 1 + rand(5), 1 + rand(5) } ]);
my @weighted = map { ($_->[1]) x $_->[0] } @mix;

my @runs = map {
    my $file = "$dir/mix$_.sql";
    append_to_file($file, "\\set VERBOSITY sqlstate\n" . join '', map { pick(@weighted)->() . "\n" } 1 .. 40);
    my ($out, $err) = ('', '');
    +{ err => \$err, run => IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('shop'), '-f', $file ], '<', \undef, '>', \$out, '2>', \$err) };
} 1 .. 64;
my (%refused, @bad);
for my $run (@runs)
{
    $run->{run}->finish;
    for my $line (split /\n/, ${ $run->{err} })
    {
        if ($line =~ /: ERROR:  (23503|23505|23514|55000|22023)$/) { $refused{$1}++ }
        else                                           { push @bad, $line }
    }
}
is(join("\n", @bad), '', 'a mix on five contacts: no error but refusals');
diag('refused: ' . join(', ', map { "$_ $refused{$_} times" } sort keys %refused));
sound('a mix on five contacts');
cmp_ok(one('SELECT count(*) FROM crm.merge_ledger WHERE unmerged_at IS NOT NULL'), '>', 5, 'contacts were merged and parted');
cmp_ok(one(q{SELECT count(*) FROM crm.transaction WHERE kind = 'refund'}), '>', 20, 'and money given back');

# ---- batches over many contacts, in no order
one(q{SELECT count(*) FROM crm.identify_many('customer', (SELECT array_agg('many' || n) FROM generate_series(1, 1000) AS n))});
one(q{CREATE TABLE many AS SELECT row_number() OVER () AS n, contact_id FROM crm.identity WHERE external_id LIKE 'many%'; CREATE UNIQUE INDEX ON many (n)});
($rc, $out, $err) = pgbench(8, 40, q{\set seed random(1, 1000000)
INSERT INTO crm.transaction (contact_id, amount, occurred_at)
SELECT m.contact_id, (r.n * 7) % 90, now() - (r.n % 4 = 0)::integer * interval '1 day' * (r.n % 9)
  FROM (SELECT g AS n, 1 + hashint8(g + :seed)::bigint % 1000 AS k FROM generate_series(1, 100) AS g) AS r
  JOIN many AS m ON m.n = CASE WHEN r.k > 0 THEN r.k ELSE r.k + 1000 END
 ORDER BY hashint8(r.n * 31 + :seed);});
is("$rc$err", '0', '8 clients with batches of 100 over 1000 contacts');
like($out, qr/number of failed transactions: 0 /, 'none failed');
is(one('SELECT count(*), sum(amount) FROM crm.transaction JOIN many USING (contact_id)'),
    one('SELECT sum(orders), sum(spend) FROM crm.profile_counter JOIN many USING (contact_id)'), 'all rows are counted');
is(one('SELECT count(*) FROM crm.transaction JOIN many USING (contact_id)'), 8 * 40 * 100, 'each of them');
sound('batches over 1000 contacts');

my $log = slurp_file($node->logfile);
is(join("\n", grep { /deadlock detected|could not serialize|PANIC|FATAL|terminated by signal|XX000/ } split /\n/, $log), '', 'no deadlock in the log, nor worse');

$node->stop;
done_testing();
