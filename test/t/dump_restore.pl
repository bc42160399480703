# pg_dump and restore into a new database, data only into an installed one, uninstall and DROP EXTENSION
use strict;
use warnings;
use FindBin;
use lib "$FindBin::Bin/../lib";
use CrmTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = crm_node('dump');
crm_database($node, 'shop');
$node->safe_psql('shop', q{
    ALTER TABLE crm.contact ADD COLUMN shoe_size integer;
    ALTER TABLE crm.transaction ADD COLUMN till text DEFAULT 'main';
    CREATE INDEX ON crm.contact (mobile);
    SELECT crm.install();
    CREATE ROLE backend;
    SELECT crm.grant_access('backend', 'app');
    INSERT INTO crm.account (kind, name) VALUES ('official_account', 'shop');
    INSERT INTO crm.loyalty_program (name) VALUES ('club');
    INSERT INTO crm.store (store_id, name, opening_hours) VALUES (1000, 'Bund', 'Mo-Th 10:00-22:00; Fr,Sa 10:00-02:00');
    INSERT INTO crm.associate (store_id, userid, skills, working_hours) VALUES (1000, 'lin', '{bags}', 'Tu-Sa 10:00-12:00,13:00-19:00');
    CREATE INDEX ON crm.associate (working_hours);
    CREATE INDEX ON crm.associate USING hash (working_hours);
    SELECT crm.define_qr_code('{"account": "shop", "scene": "door", "store_id": 1000}');
    SELECT crm.define_qr_code('{"account": "shop", "scene": "till", "campaign": "spring", "store_id": 1000, "dedup_scope": "campaign", "dedup_window": "1 day"}');
    SELECT crm.define_scan_limit('{"name": "fast", "max_scans": 1, "period": "1 minute"}');
    SELECT crm.define_achievement('{"name": "vip", "on_kind": "purchase", "measure": "amount", "thresholds": [60]}');
    SELECT crm.define_stage_rule('{"stage": "vip", "rule": "spend >= 60", "rank": 9}');
    INSERT INTO crm.contact (contact_id, name, shoe_size, mobile, created_at) VALUES (70, 'Li', 42, '13800138000', '2024-01-01');
    SELECT crm.follow('shop', 'o' || n, at => '2024-02-01', scene => 'door') FROM generate_series(1, 5) AS n;
    SELECT crm.scan('till', 'shop', 'o1', ('2024-02-01 12:00:' || n)::timestamptz) FROM unnest(ARRAY['00+08', '30+08', '31+08']) AS n;
    SELECT crm.bind_mobile(crm.identify('shop', 'o1'), '13900139000');
    SELECT crm.purchase(crm.identify('shop', 'o1'), 30, '2024-03-01', 'a'), crm.purchase(70, 40, '2024-03-02', 'b');
    SELECT crm.purchase(70, 40, '2024-03-01', 'late', items => '[{"sku": 1}]');
    SELECT crm.refund(70, 'b', 10, '2024-03-05', 'back');
    INSERT INTO crm.tier (program, tier, rank, threshold, period) VALUES ('club', 'silver', 1, 0, NULL), ('club', 'gold', 2, 30, '100 years');
    SELECT crm.define_earning_rule('{"name": "yuan", "program": "club", "per_amount": 1}');
    SELECT crm.join_loyalty(70, 'club', '2024-03-02');
    SELECT crm.earn_points(70, 'club', 7, 'welcome', 'w'), crm.spend_points(70, 'club', 5, key => 's');
    SELECT crm.define_coupon('{"name": "tea", "max_grants": 3}'), crm.define_coupon('{"name": "pool", "codes": "pool"}');
    INSERT INTO crm.coupon_code (code, coupon) VALUES ('POOL1', 'pool'), ('POOL2', 'pool');
    SELECT crm.redeem_coupon(70, crm.issue_coupon(70, 'tea', 'k'), 1000), crm.issue_coupon(70, 'pool');
    SELECT crm.purchase(crm.identify('shop', 'o3'), 1, '2024-01-31', 'till', 1000);
    SELECT crm.set_stage(crm.identify('shop', 'o2'), 'intent', 'asked');
    SELECT crm.track(70, 'cart', '{"sku": 2}', '2024-04-01', 'k1');
    SELECT crm.define_segment('{"name": "buyers", "rule": "spend > 10 AND city IS NOT NULL", "partition": "worth"}'),
           crm.define_segment('{"name": "silent", "rule": "last_order_at < as_of - interval ''200 years''"}'),
           crm.define_segment('{"name": "named", "rule": "in_segment(''buyers'')"}');
    UPDATE crm.contact SET city = 'Shanghai', tags = '{vip}' WHERE contact_id = 70;
    SELECT crm.suppress(70, 'sms');
    INSERT INTO crm.account (kind, name, base_url) VALUES ('webhook', 'system', 'https://system.example');
    INSERT INTO crm.account_secret SELECT account_id, 'signing_key', 'env:KEY' FROM crm.account WHERE name = 'system';
    SELECT crm.define_template('{"name": "hello", "channel": "official_account", "message_type": "text", "body": {"content": "Hello"}, "valid_for": "2 days"}'),
           crm.define_template('{"name": "hello", "channel": "official_account", "message_type": "text", "body": {"content": "Hello {{name|}}"}, "valid_for": "2 days"}');
    INSERT INTO crm.quiet_hours (name, hours) VALUES ('night', '22:00-08:00');
    INSERT INTO crm.frequency_cap (name, max_messages, period) VALUES ('week', 3, '7 days');
    UPDATE crm.window_rule SET quota = 20 WHERE kind = 'message';
    DELETE FROM crm.api_limit WHERE api = 'message/template/send';
    SELECT crm.track(71, 'message', account => 'shop'), crm.withdraw_consent(71, 'email', 'marketing'), crm.grant_consent(71, 'sms', 'marketing');
    SELECT crm.send(71, 'hello', send_key => 'k'), crm.send(72, 'hello', due_at => now() + interval '1 day'), crm.send(73, 'hello');
    UPDATE crm.message SET state = 'unknown', tried_at = now() WHERE contact_id = 73;
    DELETE FROM crm.outbox WHERE contact_id = 73;
    INSERT INTO crm.message_unknown SELECT contact_id, message_id, now() FROM crm.message WHERE contact_id = 73;
    UPDATE crm.message SET awaited = true WHERE contact_id = 73;
    INSERT INTO crm.message_end SELECT contact_id, message_id, now() + interval '1 h' FROM crm.message WHERE contact_id = 73;
    INSERT INTO crm.delivery_attempt (contact_id, message_id, occurred_at, recorded_at, outcome)
    SELECT contact_id, message_id, now(), r.at, 'no_reply' FROM crm.message, (VALUES (now()), (now() + interval '1 month')) AS r (at) WHERE contact_id = 73;
    INSERT INTO crm.account_token (account_id, token) SELECT account_id, 'TOKEN' FROM crm.account WHERE name = 'shop';
    INSERT INTO crm.api_usage (account_id, api, used) SELECT account_id, '', 5 FROM crm.account WHERE name = 'shop';
    INSERT INTO crm.alarm (kind, object) VALUES ('account_paused', 'shop');
    DELETE FROM crm.stage_rule WHERE stage = 'loyal';
});
is($node->safe_psql('shop', 'SELECT * FROM crm.verify()'), '', 'sound before');

# every row of every table, and every trigger, default, comment and right

sub rows_of
{
    my ($database) = @_;
    my @tables = split /\n/, $node->safe_psql($database, q{SELECT c.relname FROM pg_class c
        WHERE c.relnamespace = 'crm'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
          AND c.relname NOT IN ('worker_status', 'queue_health', 'active_alarm') -- of the process and the moment, not of the tables
        ORDER BY 1});
    return join "\n", grep { $_ ne '' } map {
        $node->safe_psql($database, qq{SELECT '$_ ' || to_jsonb(r)::text FROM crm."$_" AS r ORDER BY 1})
    } @tables;
}

sub shape_of
{
    my ($database) = @_;
    return $node->safe_psql($database, q{
        SELECT 'column ' || a.attrelid::regclass || ' ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || a.attnotnull
               || coalesce(pg_get_expr(d.adbin, d.adrelid), '') || coalesce(col_description(a.attrelid, a.attnum), '')
          FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
         WHERE c.relnamespace = 'crm'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL SELECT 'trigger ' || pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT 'constraint ' || conrelid::regclass || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'crm'::regnamespace
        UNION ALL SELECT 'index ' || pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
         WHERE c.relnamespace = 'crm'::regnamespace
        UNION ALL SELECT 'view ' || oid::regclass || regexp_replace(pg_get_viewdef(oid), '\s+', ' ', 'g') FROM pg_class WHERE relnamespace = 'crm'::regnamespace AND relkind = 'v'
        UNION ALL SELECT 'right ' || c.oid::regclass || x.a FROM pg_class c, unnest(c.relacl::text[]) AS x(a) WHERE c.relnamespace = 'crm'::regnamespace
        UNION ALL SELECT 'right ' || p.oid::regprocedure || x.a FROM pg_proc p, unnest(p.proacl::text[]) AS x(a) WHERE p.pronamespace = 'crm'::regnamespace
        ORDER BY 1});
}

# lines that only one of two texts has
sub same
{
    my ($got, $expected, $name) = @_;
    my %count;
    $count{$_}++ for split /\n/, $got;
    $count{$_}-- for split /\n/, $expected;
    is(join("\n", map { ($count{$_} > 0 ? 'only now: ' : 'missing: ') . $_ } grep { $count{$_} } sort keys %count), '', $name);
}

my $before = rows_of('shop');
my $shape  = shape_of('shop');
like($before, qr/^contact \{.*"contact_id": 70,/m, 'there are rows to compare');

# whole, in two formats
my $dump = PostgreSQL::Test::Utils::tempdir() . '/shop.sql';
$node->command_ok([ 'pg_dump', '--no-sync', '-f', $dump, $node->connstr('shop') ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $node->connstr('copy') ], 'restored by psql');
same(rows_of('copy'), $before, 'the same rows');
same(shape_of('copy'), $shape, 'the same columns, triggers, views, comments and rights');

my $custom = "$dump.custom";
$node->command_ok([ 'pg_dump', '--no-sync', '-Fc', '-f', $custom, $node->connstr('shop') ], 'pg_dump -Fc');
$node->safe_psql('postgres', 'CREATE DATABASE copy2');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-j', '2', '-d', $node->connstr('copy2'), $custom ], 'restored by pg_restore -j');
same(rows_of('copy2'), $before, 'the same rows');
same(shape_of('copy2'), $shape, 'the same everything');

is($node->safe_psql('copy', 'SELECT * FROM crm.verify()'), '', 'the copy is sound');
is($node->safe_psql('copy', 'SELECT crm.dispatch_allowed()'), 'f', 'the copy does not speak to customers');
is($node->safe_psql('shop', 'SELECT crm.dispatch_allowed()'), 't', 'the original does');
is($node->safe_psql('copy', 'SELECT crm.resume_dispatch(); SELECT crm.dispatch_allowed()'), "\nt", 'the copy may be told to');
my $late = $node->safe_psql('shop', q{SELECT transaction_id FROM crm.transaction WHERE external_ref = 'late'});
is($node->safe_psql('copy', q{SET ROLE backend; SELECT crm.purchase(70, 5) > 4, crm.identify('customer', 'new') > 70,
    crm.purchase(70, 40, '2024-03-01', 'late', items => '[{"sku": 1}]')}), "t|t|$late", 'functions, ids, keys and rights work on');
is($node->safe_psql('copy', 'SELECT * FROM crm.verify()'), '', 'and keep it sound');
is($node->safe_psql('copy', 'SELECT crm.install(); SELECT shoe_size, orders FROM crm.profile WHERE contact_id = 70'), "\n42|3", 'install() finds all in place');

# data only, into an installed database
my $data = "$dump.data";
$node->command_ok([ 'pg_dump', '--no-sync', '--data-only', '--load-via-partition-root', '-f', $data, $node->connstr('shop') ], 'pg_dump --data-only');
crm_database($node, 'target');
$node->safe_psql('target', q{ALTER TABLE crm.contact ADD COLUMN shoe_size integer; ALTER TABLE crm.transaction ADD COLUMN till text DEFAULT 'main';
    SELECT crm.install(); SELECT crm.restoring(true);});
$node->command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-f', $data, $node->connstr('target') ], 'loaded between restoring(true) and restoring(false)');
$node->safe_psql('target', 'SELECT crm.restoring(false)');
same(rows_of('target'), $before, 'the same rows, nothing counted twice');
is($node->safe_psql('target', 'SELECT * FROM crm.verify()'), '', 'sound');
is($node->safe_psql('target', 'SELECT crm.dispatch_allowed()'), 'f', 'silent');
is($node->safe_psql('target', q{SELECT crm.purchase(70, 5) > 4, crm.identify('customer', 'new') > 70}), 't|t', 'and alive');
is($node->safe_psql('target', q{SELECT count(*) FROM crm.award WHERE contact_id = 70 AND achievement = 'vip'}), '1', 'by the definitions that came along');
is($node->safe_psql('target', 'SELECT * FROM crm.verify()'), '', 'still sound');

# without restoring(true) the load is refused rather than counted twice
crm_database($node, 'loud');
$node->command_fails([ 'psql', '-qX', '-1', '-v', 'ON_ERROR_STOP=1', '-f', $data, $node->connstr('loud') ], 'a load without restoring(true) fails');
is($node->safe_psql('loud', 'SELECT count(*) FROM crm.contact'), '0', 'as a whole');

# parting
my ($rc, $out, $err) = $node->psql('shop', 'DROP EXTENSION pg_crm');
isnt($rc, 0, 'DROP EXTENSION refuses');
like($err, qr/other objects depend on it/, 'because tables depend on it');
$node->safe_psql('shop', 'CREATE VIEW public.mine AS SELECT contact_id, mobile FROM crm.profile; CREATE TABLE public.note (m crm.mobile)');
($rc, $out, $err) = $node->psql('shop', 'SELECT crm.uninstall()');
like($err, qr/other objects depend on pg_crm: view (public\.)?mine/, 'uninstall() names a view upon its own');
$node->safe_psql('shop', 'DROP VIEW public.mine');
($rc, $out, $err) = $node->psql('shop', 'SELECT crm.uninstall()');
like($err, qr/other objects depend on pg_crm: column m of table (public\.)?note/, 'and a column of its type');
same(rows_of('shop'), $before, 'and leaves everything as it was');
$node->safe_psql('shop', 'DROP TABLE public.note');

my $tables = q{SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'crm'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1};
my $tables_before = $node->safe_psql('shop', $tables);
$node->safe_psql('shop', q{ALTER TABLE crm.store ADD COLUMN seasons crm.weekly_hours[]; UPDATE crm.store SET seasons = '{24/7, "Mo 9:00-18:00"}'});
my $views = join '|', split /\n/, $node->safe_psql('shop', q{SELECT relname FROM pg_class WHERE relnamespace = 'crm'::regnamespace AND relkind = 'v'});
my $table_rows    = join "\n", grep { !/^(?:$views) / } split /\n/, $before;
$node->safe_psql('shop', 'SELECT crm.uninstall()');
is($node->safe_psql('shop', 'SELECT opening_hours, pg_typeof(opening_hours), seasons, pg_typeof(seasons) FROM crm.store'),
    'Mo-Th 10:00-22:00; Fr-Sa 10:00-02:00|text|{24/7,"Mo 09:00-18:00"}|text[]', 'uninstall() makes text of timetables, and of lists of them');
is($node->safe_psql('shop', 'SELECT hours, pg_typeof(hours) FROM crm.quiet_hours'), 'Mo-Su 22:00-08:00|text', 'of quiet hours too');
is($node->safe_psql('shop', q{SELECT a.attrelid::regclass, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_type t ON t.oid = a.atttypid
    WHERE c.relnamespace = 'crm'::regnamespace AND c.relkind IN ('r', 'p') AND t.typnamespace = 'crm'::regnamespace AND a.attnum > 0}), '', 'and of every other type of the extension');
$node->safe_psql('shop', 'ALTER TABLE crm.store DROP COLUMN seasons');
$node->safe_psql('shop', 'DROP EXTENSION pg_crm');
is($node->safe_psql('shop', $tables), $tables_before, 'uninstall() and DROP EXTENSION leave every table');
same(rows_of('shop'), $table_rows, 'with every row');
is($node->safe_psql('shop', 'SELECT mobile, pg_typeof(mobile) FROM crm.contact WHERE contact_id = 70'), '+8613800138000|text', 'mobiles as text');
is($node->safe_psql('shop', q{INSERT INTO crm.transaction (contact_id, amount) VALUES (70, 3) RETURNING currency, occurred_at = now()}), 'CNY|t', 'and writable');
$node->safe_psql('shop', 'DELETE FROM crm.transaction WHERE amount = 3');

# and back again
$node->safe_psql('shop', 'CREATE EXTENSION pg_crm; SELECT crm.install();');
same(rows_of('shop'), $before, 'installed again, everything is as it was');
is($node->safe_psql('shop', 'SELECT * FROM crm.verify()'), '', 'and sound');
my ($shape_again, $shape_before) = map { s/^(right|view crm\.profile) .*\n?//mgr } shape_of('shop'), $shape;
same($shape_again, $shape_before, 'with the columns and triggers of before');

$node->stop;
done_testing();
