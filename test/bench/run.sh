#!/bin/bash
# run.sh - make bench: pg_crm, rivals in PL/pgSQL and the bare table, one after the other.
#
# Called by test/lib/inside.sh with $RUN, $PG_CONFIG and $TEMP_CONFIG; runs a cluster of its own,
# since what it measures depends on the settings. See README.md.
#
# QUICK=1 fewer runs; LONG=1 also up to 5 million orders; ONLY='bulk copy small one seven tps memory rules segments scans journeys funnel reports send enqueue idle latency' a part.
# SERVER=1 takes the running server of PGHOST, PGPORT and PGUSER, on this machine, with pg_crm installed and no databases
# but the bench's, and leaves them there, so that the next run need not make them again; FRESH=1 makes them anew.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
SERVER=${SERVER:-} FRESH=${FRESH:-}
if [ -n "$SERVER" ]; then
    : "${PG_CONFIG:=pg_config}" "${RUN:=$(mktemp -d /tmp/crm_bench.XXXXXX)}"
    chmod 755 "$RUN"
fi
. "$here/../lib/cluster.sh"
. "$here/send.sh"
. "$here/journeys.sh"
. "$here/funnel.sh"
. "$here/reports.sh"
QUICK=${QUICK:-} LONG=${LONG:-}
FACT_PARTS="bulk copy small one seven tps memory rules segments scans journeys funnel reports${LONG:+ growth}"
ONLY=${ONLY:-$FACT_PARTS $SEND_PARTS}
[ -n "$QUICK" ] && RUNS=${RUNS:-1} || RUNS=${RUNS:-3}
CONTACTS=100000 ORDERS=500000
dir=$RUN/benchmark
results=$dir/results

# ---- cluster

start() {
    mkdir -p "$dir"
    if [ -n "$SERVER" ]; then
        export PGUSER=${PGUSER:-postgres} PGDATABASE=postgres PGCLIENTENCODING=UTF8
        chmod 777 "$dir"        # the server writes there
        export PGOPTIONS='-c client_min_messages=warning'
        [ "$(sql postgres -c "SELECT count(*) FROM pg_database WHERE datname !~
            '^((bare|pg_crm|row|statement|hand|ready)_[012hrsc]|now|postgres|template[01])$'")" = 0 ] ||
            { echo "this server has databases of others: SERVER=1 wants one that may be thrown away" >&2; exit 1; }
        # what an earlier run left half made goes too
        sql postgres -v fresh="${FRESH:+1}" <<'SQL'
SELECT format('DROP DATABASE %I WITH (FORCE)', datname) FROM pg_database AS d
 WHERE datname ~ '^(bare|pg_crm|row|statement|hand|ready)_[012hrsc]$' AND (:'fresh' <> '' OR
       NOT EXISTS (SELECT FROM pg_database WHERE datname = CASE WHEN d.datname ~ '0$' THEN 'ready_0' ELSE 'ready_1' END))
UNION ALL
SELECT 'DROP DATABASE now WITH (FORCE)' FROM pg_database WHERE datname = 'now' \gexec
SQL
        return
    fi
    "$BINDIR/initdb" -D "$dir/data" -A trust -U postgres -E UTF8 --locale=C --no-sync >"$dir/initdb.log" 2>&1
    socket=$(mktemp -d /tmp/crm.XXXXXX)
    cat - "${TEMP_CONFIG:-$RUN/extension.conf}" >>"$dir/data/postgresql.conf" <<CONF
unix_socket_directories = '$socket'
listen_addresses = ''
shared_buffers = 2GB
max_wal_size = 8GB
min_wal_size = 4GB
checkpoint_timeout = 1h
synchronous_commit = off
autovacuum = off
jit = off
timezone = 'UTC'
lc_messages = 'C'
client_min_messages = warning
CONF
    export PGHOST=$socket PGPORT=5432 PGUSER=postgres PGDATABASE=postgres PGCLIENTENCODING=UTF8
    unset PGOPTIONS
    "$BINDIR/pg_ctl" -D "$dir/data" -l "$dir/server.log" -s -w start </dev/null ||
        { tail -n 20 "$dir/server.log" >&2; exit 1; }
}

stop() {
    if [ -n "$SERVER" ]; then
        rm -rf "$dir" && rmdir "$RUN" 2>/dev/null || true
        return
    fi
    "$BINDIR/pg_ctl" -D "$dir/data" -s -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$dir/data" "$socket"
}

sql() {         # sql DATABASE [psql's arguments]
    local db=$1
    shift
    "$BINDIR/psql" -qXAt -v ON_ERROR_STOP=1 -d "$db" "$@"
}

exists() { [ "$(sql postgres -c "SELECT count(*) FROM pg_database WHERE datname = '$1'")" = 1 ]; }
has() { case " $ONLY " in *" $1 "*) true ;; *) false ;; esac; }
say() { [ ! -t 2 ] || printf '\r\033[K%s' "$*" >&2; }
note() { printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$results"; }       # note MEASURE VARIANT VALUE

# ---- variants

ALL='bare pg_crm row statement'

# templates of the empty tables: variant_0
make_templates() {
    say "templates"
    if exists ready_0; then
        sql bare_0 -c "COPY (SELECT contact_id, amount, occurred_at, external_ref FROM bench.orders ORDER BY id) TO '$dir/orders.copy'"
        return
    fi
    sql postgres -c 'CREATE DATABASE bare_0'
    sql bare_0 -f "$here/bare.sql" -f "$here/load.sql"
    sql bare_0 <<SQL
SELECT setseed(0.5) \g /dev/null
INSERT INTO bench.orders
SELECT n, 1 + floor(random() * $CONTACTS), round((random() * 40)::numeric, 2),
       '2020-01-01'::timestamptz + n * interval '30 s', 'R' || lpad(n::text, 9, '0')
  FROM generate_series(1, $ORDERS) AS n;
COPY (SELECT contact_id, amount, occurred_at, external_ref FROM bench.orders ORDER BY id) TO '$dir/orders.copy';
COPY (SELECT * FROM bench.orders ORDER BY id) TO '$dir/bench.copy';
SQL
    sql postgres -c 'CREATE DATABASE pg_crm_0'
    sql pg_crm_0 -v contacts=$CONTACTS -f "$here/pg_crm.sql" -f "$here/load.sql" >/dev/null 2>&1
    sql pg_crm_0 -c "COPY bench.orders FROM '$dir/bench.copy'"
    make_rivals 0
    local v
    for v in $ALL; do sql ${v}_0 -c 'VACUUM ANALYZE'; done
    [ -z "$SERVER" ] || sql postgres -c 'CREATE DATABASE ready_0'
}

# make_rivals N: row_N and statement_N out of pg_crm_N
make_rivals() {
    local v
    for v in row statement; do
        sql postgres -c "CREATE DATABASE ${v}_$1 TEMPLATE pg_crm_$1"
        sql ${v}_$1 -f "$here/plpgsql.sql" -f "$here/plpgsql_$v.sql"
    done
}

# variant_1: 12 to 18 orders a contact (even ids), and as many contacts that have none (odd ids):
# who buys first may have registered any time
make_history() {
    say "history of 1 500 000 orders"
    local v insert
    if exists ready_1; then
        for v in $ALL; do
            sql postgres -c "DROP DATABASE IF EXISTS ${v}_1" -c "CREATE DATABASE ${v}_1 TEMPLATE ${v}_h"
        done
        sql postgres -c CHECKPOINT
        return
    fi
    insert="INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref)
SELECT 2 * (1 + (c * 7919 + r * 13) % $CONTACTS), 10, '2020-01-01'::timestamptz + (r * $CONTACTS + c) * interval '10 s',
       'H' || lpad((r * $CONTACTS + c)::text, 9, '0')
  FROM generate_series(0, 17) AS r, generate_series(1, $CONTACTS) AS c
 WHERE r < 12 + (1 + (c * 7919 + r * 13) % $CONTACTS) % 7"
    for v in bare pg_crm; do
        sql postgres -c "CREATE DATABASE ${v}_1 TEMPLATE ${v}_0"
        [ $v = bare ] || sql ${v}_1 -c "INSERT INTO crm.contact (contact_id, created_at)
            SELECT $CONTACTS + n, '2019-01-01' FROM generate_series(1, $CONTACTS) AS n"
        sql ${v}_1 -c "$insert" -c 'VACUUM ANALYZE'
    done
    make_rivals 1
    for v in row statement; do sql ${v}_1 -c 'VACUUM ANALYZE crm.profile_counter, crm.contact, crm.transaction'; done
    for v in $ALL; do       # later orders of those that have some, for small_steady
        sql ${v}_1 <<SQL
SELECT setseed(0.25) \g /dev/null
INSERT INTO bench.orders
SELECT n, 2 * (1 + floor(random() * $CONTACTS)), round((random() * 40)::numeric, 2),
       '2020-08-01'::timestamptz + n * interval '1 s', 'L' || lpad(n::text, 9, '0')
  FROM generate_series($((ORDERS + 1)), $((ORDERS * 2))) AS n;
VACUUM ANALYZE bench.orders
SQL
    done
    if [ -n "$SERVER" ]; then       # what later runs begin with
        for v in $ALL; do sql postgres -c "CREATE DATABASE ${v}_h TEMPLATE ${v}_1"; done
        sql postgres -c 'CREATE DATABASE ready_1'
    fi
    sql postgres -c CHECKPOINT
}

# order_of RUN VARIANT...: the variants, beginning with another one each time
order_of() {
    local n=$1 v=() i
    shift
    v=("$@")
    for ((i = 0; i < ${#v[@]}; i++)); do echo "${v[(i + n) % ${#v[@]}]}"; done
}

# ---- measures

# on_empty MEASURE FACTOR SQL VARIANT...: ms of one statement on empty tables, times FACTOR; $EMPTY says which tables,
# $BY_HAND what variant hand does instead
on_empty() {
    local measure=$1 factor=$2 statement=$3 run v ms cpu
    shift 3
    for ((run = 0; run < RUNS; run++)); do
        for v in $(order_of $run "$@"); do
            say "$measure: run $((run + 1)) of $RUNS, $v"
            sql postgres -c "CREATE DATABASE now TEMPLATE ${v}_${EMPTY:-0}" -c CHECKPOINT
            read -r ms cpu < <(sql now <<SQL | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p; s/^cpu //p' | tr '\n' ' '
SELECT coalesce(bench.cpu(), 0) AS cpu \gset
\\timing on
$([ $v = hand ] && echo "$BY_HAND" || echo "$statement");
\\timing off
SELECT 'cpu ' || bench.cpu() - :cpu;
SQL
) || true
            note "$measure" $v "$(awk -v ms="$ms" -v f="$factor" 'BEGIN { print ms * f }')"
            [ -z "$cpu" ] || note "${measure}_cpu" $v "$(awk -v ms="$cpu" -v f="$factor" 'BEGIN { print ms * f }')"
            [ "$measure $run" != "bulk 0" ] || [ $v = bare ] || rows_written $v
            [ "$measure $run $v" != "scans 0 pg_crm" ] || scans_written
            sql postgres -c 'DROP DATABASE now'
        done
    done
}

rows_written() {
    sql now -F ' ' -c "SELECT '$1', round(count(*) / $ORDERS.0, 3), (SELECT round(count(*) / $ORDERS.0, 3) FROM crm.award),
        round(count(*) FILTER (WHERE achievement = 'spend_milestone') / $ORDERS.0, 3),
        (SELECT round(count(*) / $ORDERS.0, 3) FROM crm.stage_move WHERE reason = 'rule') FROM crm.award" \
        | while read -r v _ awards spend moves; do
            echo "$v: $awards awards ($spend of them spend_milestone) and $moves moves an order" >>"$dir/written"
        done
    # the rivals must have come to the same rows, or it is no comparison
    sql now >"$dir/derived_$1" <<'SQL'
SELECT 'award', count(*), sum(hashtextextended(ROW (contact_id, achievement, threshold, awarded_at, source_id)::text, 0)) FROM crm.award;
SELECT 'stage_move', count(*), sum(hashtextextended(ROW (contact_id, since, stage, reason)::text, 0)) FROM crm.stage_move;
SELECT 'profile_counter', count(*), sum(hashtextextended(ROW (contact_id, orders, spend, first_order_at, last_order_at,
	first_seen_at, last_seen_at, stage, stage_since, ranked_stage)::text, 0)) FROM crm.profile_counter;
SELECT 'contact', count(*), sum(hashtextextended(ROW (contact_id, stage)::text, 0)) FROM crm.contact;
SQL
    [ ! -e "$dir/derived_pg_crm" ] || cmp -s "$dir/derived_pg_crm" "$dir/derived_$1" ||
        echo "$1: its rows ARE NOT THOSE of pg_crm" >>"$dir/written"
    [ "$1" != pg_crm ] || [ "$(sql now -c 'SELECT count(*) FROM crm.verify()')" = 0 ] ||
        echo "$1: crm.verify() FOUND DIFFERENCES" >>"$dir/written"
}

scans_written() {
    sql now -F ' ' -c "SELECT count(*), (SELECT count(*) FROM crm.award), (SELECT count(*) FROM crm.acquisition),
        (SELECT count(*) FROM crm.verify()) FROM crm.first_scan" \
        | while read -r counted awards sources differences; do
            echo "scans: $counted count, $awards awards, $sources sources; crm.verify() finds $differences differences" >>"$dir/written"
        done
}

# many short turns, so that what else the machine does hits all alike; each in a session that has warmed up
one_row() {
    local turn v a b c k=0 turns=15 n=4000 fresh what first
    [ -z "$QUICK" ] || { turns=7; n=3000; }
    fresh=$((CONTACTS / turns))
    for v in $ALL; do       # the first touch of these pages is not measured
        sql ${v}_1 -c "CALL bench.one_by_one('W', 2, 2, $CONTACTS, false, 20000, '2020-12-01')" >/dev/null
    done
    for ((turn = 0; turn < turns; turn++)); do
        for v in $(order_of $turn $ALL); do
            say "one row: turn $((turn + 1)) of $turns, $v"
            k=$((k + 1))
            first=$((1 + 2 * turn))
            while IFS='|' read -r a b c; do
                read -r what
                [ $what != warm ] || continue
                note $what $v "$a"
                note ${what}_commit $v "$b"
                [ -z "$c" ] || note ${what}_cpu $v "$c"
            done < <(sql ${v}_1 <<SQL
CALL bench.one_by_one('V$k-', 2, 2, $CONTACTS, false, 300, '2021-01-01'::timestamptz + $k * interval '1 day');
\echo warm
CALL bench.one_by_one('S$k-', 2, 2, $CONTACTS, false, $n, '2021-01-01 06:00'::timestamptz + $k * interval '1 day');
\echo one
CALL bench.one_by_one('E$k-', $first, $((2 * turns)), 200, true, 200, '2021-01-01 12:00'::timestamptz + $k * interval '1 day');
\echo warm
CALL bench.one_by_one('F$k-', $((first + 400 * turns)), $((2 * turns)), $((fresh - 200)), true, $n, '2021-01-01 18:00'::timestamptz + $k * interval '1 day');
\echo first
SQL
)
        done
    done
}

# The same statements for contacts that have bought before, in short turns.
small_steady() {
    local turn v n i=$ORDERS turns=5 orders=20000
    for ((turn = -1; turn < turns; turn++)); do     # the first touch of these pages is not measured
        for n in 10 1000; do
            for v in $(order_of $((turn + 1)) $ALL); do
                say "statements of $n: turn $((turn + 1)) of $turns, $v"
                while IFS='|' read -r a b; do
                    [ $turn -ge 0 ] || continue
                    note steady_$n $v "$a"
                    [ -z "$b" ] || note steady_${n}_cpu $v "$b"
                done < <(sql ${v}_1 <<SQL
SELECT coalesce(bench.cpu(), 0) AS cpu, clock_timestamp() AS begun \gset
CALL bench.in_statements($i, $orders, $n);
SELECT extract(epoch FROM clock_timestamp() - :'begun') * 1e6 / $orders, (bench.cpu() - :cpu) * 1e3 / $orders;
SQL
)
            done
            i=$((i + orders))
        done
    done
}

tps() {
    local run v
    for ((run = 0; run < RUNS + (RUNS == 1); run++)); do
        for v in $(order_of $run bare pg_crm row); do
            say "tps: run $((run + 1)), $v"
            note tps $v "$("$BINDIR/pgbench" -n -M prepared -c 2 -j 1 -T $([ -n "$QUICK" ] && echo 4 || echo 8) \
                -f "$here/one_row.pgbench" ${v}_1 2>/dev/null | sed -n 's/^tps = \([0-9.]*\).*/\1/p')"
        done
    done
}

memory() {
    local n=$([ -n "$QUICK" ] && echo 20 || echo 100) look
    say "memory: $n x 10 000 rows"
    look="SELECT substring(pg_read_file('/proc/self/status') FROM 'RssAnon:\\s+(\\d+)'), (sum(total_bytes) / 1024)::bigint FROM pg_backend_memory_contexts"
    {
        echo "SET synchronous_commit = off;"
        for ((i = 1; i <= n; i++)); do
            echo "CALL bench.one_by_one('M$i-', 2, 2, $CONTACTS, false, 10000, NULL) \\g /dev/null"
            [ $i != 1 ] && [ $i != $n ] || echo "$look;"
        done
    } | sql pg_crm_1 -F ' ' >"$dir/memory"
    MEMORY_N=$((n * 10000))
}

# What a rule costs in the insert path: single orders with the rules that ship, and with seven more, all asked and none true.
seven() {
    local turn v n=4000 turns=$([ -n "$QUICK" ] && echo 7 || echo 15) a b c
    sql postgres -c 'DROP DATABASE IF EXISTS pg_crm_7' -c 'CREATE DATABASE pg_crm_7 TEMPLATE pg_crm_1' -c CHECKPOINT
    sql pg_crm_7 >/dev/null <<'SQL'
SELECT crm.define_stage_rule(jsonb_build_object('stage', 'asked_' || n, 'position', n, 'rule', rule))
  FROM unnest(ARRAY['orders > 100000 OR spend < 0', 'last_order_at < ''2000-01-01''', 'scans >= 100 AND followed_at IS NOT NULL',
       'first_order_at > last_order_at', 'CASE WHEN orders > 50000 THEN raw_scans > 3 ELSE false END',
       'mobile IS NOT NULL AND spend BETWEEN 1000000 AND 2000000', 'orders IN (777777, 888888, 999999)']) WITH ORDINALITY AS r(rule, n);
VACUUM ANALYZE crm.profile_counter;
SQL
    for ((turn = 0; turn <= turns; turn++)); do      # the first one warms up
        for v in $(order_of $turn pg_crm_1 pg_crm_7); do
            say "seven more rules: turn $turn of $turns, $v"
            IFS='|' read -r a b c < <(sql $v -c "CALL bench.one_by_one('R$turn-', 2, 2, $CONTACTS, false, $n, '2022-01-01'::timestamptz + $turn * interval '1 day')")
            [ $turn -gt 0 ] || continue
            note seven $v "$a"
            [ -z "$c" ] || note seven_cpu $v "$c"
        done
    done
    sql postgres -c 'DROP DATABASE pg_crm_7'
}

# A million contacts, a third of them with an order: pg_crm_r.
million() {
    local million=1000000
    ! exists pg_crm_r || return 0
    sql postgres -c 'CREATE DATABASE pg_crm_r TEMPLATE pg_crm_0'
    say "rules: $million contacts"
    sql pg_crm_r <<SQL
INSERT INTO crm.contact (contact_id, created_at, city, tags)
SELECT $CONTACTS + n, '2019-01-01', (ARRAY['Shanghai', 'Beijing', 'Chengdu'])[1 + n % 3], CASE WHEN n % 50 = 0 THEN '{staff}'::text[] ELSE '{}' END
  FROM generate_series(1, $million - $CONTACTS) AS n;
INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref)
SELECT n, 20 + n % 50, '2023-01-01'::timestamptz + n % 700 * interval '1 day', 'X' || n FROM generate_series(1, $million) AS n WHERE n % 3 = 0;
VACUUM ANALYZE;
SQL
}

# A rule over a million contacts beside the SELECT that says the same, and for one contact at a time.
rules() {
    local run rule v a b c million=1000000
    million
    sql pg_crm_r <<SQL
-- One call, of contacts in no order; the same SELECT as a static statement of PL/pgSQL; and a turn of the loop that
-- calls next to nothing. In short turns, so that what else the machine does hits all alike.
CREATE OR REPLACE PROCEDURE bench.rule_for_one(rows_n int, among int, rule text, INOUT us double precision DEFAULT 0,
	INOUT select_us double precision DEFAULT 0, INOUT loop_us double precision DEFAULT 0) LANGUAGE plpgsql AS \$\$
DECLARE
	begun timestamptz;
	holds boolean := crm.rule_holds(1, rule, '2024-12-01');
	as_of timestamptz := '2024-12-01';
	c bigint;
BEGIN
	FOR turn IN 0 .. rows_n / 200 - 1 LOOP
		begun := clock_timestamp();
		FOR i IN turn * 200 .. turn * 200 + 199 LOOP
			c := i % among * 7919::bigint % $million + 1;
			holds := crm.rule_holds(c, rule, as_of);
		END LOOP;
		us := us + extract(epoch FROM clock_timestamp() - begun) * 1e6 / rows_n;
		begun := clock_timestamp();
		FOR i IN turn * 200 .. turn * 200 + 199 LOOP
			c := (i + among / 2) % among * 7919::bigint % $million + 1;
			SELECT p.orders >= 1 AND p.last_order_at < as_of - interval '90 days' AND NOT p.tags @> '{staff}' INTO holds
			  FROM crm.profile AS p WHERE p.contact_id = c;
		END LOOP;
		select_us := select_us + extract(epoch FROM clock_timestamp() - begun) * 1e6 / rows_n;
		begun := clock_timestamp();
		FOR i IN turn * 200 .. turn * 200 + 199 LOOP
			c := i % among * 7919::bigint % $million + 1;
			holds := pg_catalog.int8gt(c, 0);
		END LOOP;
		loop_us := loop_us + extract(epoch FROM clock_timestamp() - begun) * 1e6 / rows_n;
	END LOOP;
END \$\$;
SQL
    rule="orders >= 1 AND last_order_at < as_of - interval ''90 days'' AND NOT tags @> ''{staff}''"
    for ((run = 0; run < RUNS + 2; run++)); do
        for v in $(order_of $run bare pg_crm facts); do
            say "rules: run $((run + 1)), $v"
            case $v in
                bare)   statement="SELECT count(*) FROM (SELECT contact_id FROM crm.profile WHERE $(sed "s/''/'/g; s/as_of/'2024-12-01'::timestamptz/" <<<"$rule") OFFSET 0) AS a" ;;
                pg_crm) statement="SELECT count(*) FROM crm.audience('$rule', '2024-12-01')" ;;
                facts)  statement="SELECT count(*) FROM crm.audience('$rule AND times(''purchase'', ''1 year'') >= 1', '2024-12-01')" ;;
            esac
            note audience $v "$(sql pg_crm_r <<SQL | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p'
\\timing on
$statement;
SQL
)"
        done
        # pages that the session has not touched, the same again, and few contacts
        while IFS='|' read -r a b c; do
            read -r v
            note rule_one_$v pg_crm "$a"
            note rule_one_$v select "$b"
            note rule_one_$v loop "$c"
        done < <(sql pg_crm_r <<SQL
CALL bench.rule_for_one(20000, $million, '$rule');
\echo first
CALL bench.rule_for_one(20000, $million, '$rule');
\echo again
CALL bench.rule_for_one(20000, 1000, '$rule');
\echo few
SQL
)
    done
}

# Scans, nine of ten of them repeats: with all that follows from them; counted only, with the primary key alone, beside the
# same by hand; and one by one, by contacts that have scanned and by others.
scans() {
    local v what a b c turn k=0 turns=9 n=3000 columns='crm.scan (contact_id, qr_code_id, occurred_at)'
    say "scans: templates"
    for v in bare pg_crm; do
        sql postgres -c "DROP DATABASE IF EXISTS ${v}_s" -c "CREATE DATABASE ${v}_s TEMPLATE ${v}_0"
        [ $v = pg_crm ] || sql ${v}_s -f "$here/bare_scan.sql"
        sql ${v}_s -f "$here/scans.sql"
    done
    sql pg_crm_s -c "INSERT INTO crm.account (account_id, kind, name) VALUES (1, 'official_account', 'brand')" \
        -c "INSERT INTO crm.qr_code (qr_code_id, account_id, scene) SELECT n, 1, 'scene ' || n FROM generate_series(1, 20) AS n"
    for v in bare pg_crm; do
        sql ${v}_s -c 'VACUUM ANALYZE'
        sql postgres -c "DROP DATABASE IF EXISTS ${v}_c" -c "CREATE DATABASE ${v}_c TEMPLATE ${v}_s"
        sql ${v}_c -c 'DROP INDEX crm.scan_qr_code_id_occurred_at_idx'
    done
    sql pg_crm_c -c "DELETE FROM crm.achievement WHERE on_kind = 'scan'" -c 'DELETE FROM crm.stage_rule' -c 'VACUUM ANALYZE'
    sql postgres -c 'DROP DATABASE IF EXISTS hand_c' -c 'CREATE DATABASE hand_c TEMPLATE bare_c' \
        -c 'DROP DATABASE IF EXISTS three_s' -c 'CREATE DATABASE three_s TEMPLATE bare_s'
    # the third index of pg_crm is that of crm.first_scan; on one table it is the one that finds a contact's scans of a code
    sql three_s -c 'CREATE INDEX ON crm.scan (contact_id, qr_code_id, occurred_at)'

    insert="INSERT INTO $columns SELECT contact_id, qr_code_id, occurred_at FROM bench.scans"
    EMPTY=s on_empty scans 0.001 "$insert" bare three pg_crm
    BY_HAND="DO \$\$ BEGIN $insert; INSERT INTO crm.first_scan SELECT contact_id, 'code', qr_code_id::text, '-infinity', scan_id, occurred_at
        FROM crm.scan ON CONFLICT DO NOTHING; END \$\$" EMPTY=c on_empty scans_alone 0.001 "$insert" bare hand pg_crm

    for v in bare pg_crm; do sql ${v}_s -c "$insert" -c 'VACUUM ANALYZE'; done
    for ((turn = 0; turn < turns; turn++)); do
        for v in $(order_of $turn bare pg_crm); do
            say "one scan: turn $((turn + 1)) of $turns, $v"
            k=$((k + 1))
            while IFS='|' read -r a b c; do
                read -r what
                [ $what != warm ] || continue
                note $what $v "$a"
                note ${what}_commit $v "$b"
                [ -z "$c" ] || note ${what}_cpu $v "$c"
            done < <(sql ${v}_s <<SQL
CALL bench.scan_by_scan(0, $((turn * n)), 300, '2021-01-01'::timestamptz + $k * interval '1 day');
\echo warm
CALL bench.scan_by_scan(0, $((turn * n)), $n, '2021-01-01 06:00'::timestamptz + $k * interval '1 day');
\echo scan_again
CALL bench.scan_by_scan(1, $((turn * (n + 200))), 200, '2021-01-01 12:00'::timestamptz + $k * interval '1 day');
\echo warm
CALL bench.scan_by_scan(1, $((turn * (n + 200) + 200)), $n, '2021-01-01 18:00'::timestamptz + $k * interval '1 day');
\echo scan_first
SQL
)
        done
    done
}

# Ten of a million contacts change: the statement with all that it does to a segment over the profile.
segments() {
    local turn what ms first turns=$([ -n "$QUICK" ] && echo 10 || echo 40)
    local rule="orders >= 1 AND spend >= 30 AND city = ''Shanghai''"
    million
    say "segments: defined over a million contacts"
    note segment_define pg_crm "$(sql pg_crm_r <<SQL | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p'
DELETE FROM crm.segment;
\\timing on
SELECT crm.define_segment('{"name": "bench", "rule": "$rule"}') \\g /dev/null
SQL
)"
    sql pg_crm_r -c 'VACUUM ANALYZE crm.segment_member, crm.segment_state, crm.segment_change'
    for what in fields orders; do
        {
            echo '\timing on'
            for ((turn = 0; turn < turns + 5; turn++)); do
                first=$((turn * 77777 % 90000 + $([ $what = fields ] && echo 150000 || echo 250000)))
                [ $what = orders ] ||
                    echo "UPDATE crm.contact SET city = CASE city WHEN 'Shanghai' THEN 'Beijing' ELSE 'Shanghai' END
                        WHERE contact_id = ANY ('{$(seq -s , $first 7919 $((first + 9 * 7919)))}');"
                [ $what = fields ] ||
                    echo "INSERT INTO crm.transaction (contact_id, amount, occurred_at) SELECT c, 40, '2025-01-01'::timestamptz + $turn * interval '1 hour'
                        FROM unnest('{$(seq -s , $first 7919 $((first + 9 * 7919)))}'::bigint[]) AS c;"
            done
        } >"$dir/segments.sql"
        say "segments: $what"
        # the first statements of a session are not measured
        for ms in $(sql pg_crm_r -f "$dir/segments.sql" | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' | tail -n +6); do
            note segment_$what pg_crm "$ms"
        done
    done
    [ "$(sql pg_crm_r -c "SELECT count(*) FROM (SELECT a FROM crm.audience('$rule') AS a EXCEPT SELECT contact_id FROM crm.segment_member) AS x")" = 0 ] ||
        echo "segments: members ARE MISSING" >>"$dir/written"
}

# The pipeline's share per row: pg_crm less bare, for statements of 100 000 rows by contacts that are
# new, two orders each, so that the work is the same; at 10 000 and at 5 million orders.
growth() {
    local v run at i runs=3
    for v in bare pg_crm; do
        sql postgres -c "DROP DATABASE IF EXISTS ${v}_2" -c "CREATE DATABASE ${v}_2 TEMPLATE ${v}_0"
        [ $v = bare ] || sql ${v}_2 -c "INSERT INTO crm.contact (contact_id, created_at)
            SELECT $CONTACTS + n, '2019-01-01' FROM generate_series(1, $((2 * runs * 50000))) AS n" -c 'VACUUM ANALYZE'
    done
    for at in 10k 5M; do
        for v in bare pg_crm; do
            say "growth: $v up to $at orders"
            if [ $at = 10k ]; then
                sql ${v}_2 -c "INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref)
                    SELECT contact_id, amount, occurred_at, external_ref FROM bench.orders WHERE id <= 10000"
            else
                for ((i = 1; i <= 10; i++)); do
                    sql ${v}_2 -c "INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref)
                        SELECT contact_id, amount, occurred_at + interval '180 days' * $i, external_ref || '-$i'
                          FROM bench.orders WHERE $i < 10 OR id <= $ORDERS - 10000 - $((runs * 100000))"
                done
            fi
            sql ${v}_2 -c 'VACUUM ANALYZE'
        done
        for ((run = 0; run < runs; run++)); do
            i=$((CONTACTS + (run + ($([ $at = 10k ] && echo 0 || echo $runs))) * 50000))
            for v in $(order_of $run bare pg_crm); do
                say "growth: at $at, run $((run + 1)) of $runs, $v"
                sql postgres -c CHECKPOINT
                note growth_$at $v "$(sql ${v}_2 <<SQL | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p'
CREATE TEMP TABLE s AS SELECT $i + c AS contact_id, 20::numeric AS amount,
    '2025-06-01'::timestamptz + (r * 50000 + c) * interval '1 s' AS occurred_at, 'G' || r AS external_ref
  FROM generate_series(0, 1) AS r, generate_series(1, 50000) AS c ORDER BY r, hashint8(c);
ANALYZE s;
\timing on
INSERT INTO crm.transaction (contact_id, amount, occurred_at, external_ref) SELECT * FROM s;
SQL
)"
            done
        done
    done
}

# ---- report

report() {
    awk -F '\t' -v quick="$QUICK" '
    function sorted(m, v,   n, i, j, t) {
        n = split(values[m, v], a, " ")
        for (i = 2; i <= n; i++)
            for (j = i; j > 1 && a[j - 1] + 0 > a[j] + 0; j--) { t = a[j]; a[j] = a[j - 1]; a[j - 1] = t }
        return n
    }
    function median(m, v,   n) {
        n = sorted(m, v)
        return n == 0 ? "" : n % 2 ? a[(n + 1) / 2] + 0 : (a[n / 2] + a[n / 2 + 1]) / 2
    }
    function cell(m, v, f,   n, x) {
        x = median(m, v)
        if (x == "") return "-"
        n = sorted(m, v)
        return n == 1 ? sprintf(f, x) : sprintf(f " (" f "-" f ")", x, a[1], a[n])
    }
    function row(title, m, f) {
        if (median(m, "bare") == "") return
        printf "%-34s %-21s %-21s %-21s %s\n", title, cell(m, "bare", f), cell(m, "pg_crm", f), cell(m, "row", f), cell(m, "statement", f)
    }
    function rule_one(title, m, limit,   x) {
        if (median(m, "pg_crm") == "") return
        printf "%-34s %-21s %-21s by SELECT %s, a turn of the loop %s\n", title, "", cell(m, "pg_crm", "%.1f"), cell(m, "select", "%.1f"), cell(m, "loop", "%.2f")
        if (!limit) return
        x = median(m, "pg_crm") - median(m, "loop")
        judged[++nj] = sprintf("%-54s %6.1f   <= %d us  %-4s   %.2f times the SELECT", title ", less the loop", x, limit,
            x <= limit ? "ok" : "MISS", x / (median(m, "select") - median(m, "loop")))
    }
    function processor(m, top, w,   x, y) {
        x = median(m "_cpu", top); y = median(m "_cpu", w)
        return x == "" || y == "" || y == 0 ? "-" : sprintf("%.2f", x / y)
    }
    function judge(title, m, top, w, limit, most,   x, y) {
        x = median(m, top); y = median(m, w)
        if (x == "" || y == "" || y == 0) return
        judged[++nj] = sprintf("%-54s %6.2f   %s %.2f   %-4s   %s", title, x / y, most ? "<=" : ">=", limit,
            (most ? x / y <= limit : x / y >= limit) ? "ok" : "MISS", processor(m, top, w))
    }
    function tell(title, m, top, w,   x, y) {
        x = median(m, top); y = median(m, w)
        if (x == "" || y == "" || y == 0) return
        judged[++nj] = sprintf("%-54s %6.2f                  %s", title, x / y, processor(m, top, w))
    }
    function most(title, m, limit,   x) {
        x = median(m, "pg_crm")
        if (x == "") return
        judged[++nj] = sprintf("%-54s %6.2f   <= %.2f   %s", title, x, limit, x <= limit ? "ok" : "MISS")
    }
    { values[$1, $2] = values[$1, $2] " " $3 }
    END {
        printf "%-34s %-21s %-21s %-21s %s\n", "median (min-max)", "bare", "pg_crm", "PL/pgSQL row", "PL/pgSQL statement"
        row("INSERT ... SELECT of 500 000, s", "bulk", "%.2f")
        row("COPY of 500 000, s", "copy", "%.2f")
        row("statements of 1000, us a row", "small_1000", "%.1f")
        row("statements of 10, us a row", "small_10", "%.1f")
        row("of contacts with orders: of 1000", "steady_1000", "%.1f")
        row("of contacts with orders: of 10", "steady_10", "%.1f")
        row("one row, us", "one", "%.1f")
        row("  with commit and loop", "one_commit", "%.1f")
        row("first purchase, us", "first", "%.1f")
        row("  with commit and loop", "first_commit", "%.1f")
        row("2 clients, transactions a second", "tps", "%.0f")
        row("100 000 at 10 000 orders, ms", "growth_10k", "%.0f")
        row("100 000 at 5 million orders, ms", "growth_5M", "%.0f")
        row("audience() of 1 million contacts, ms", "audience", "%.0f")
        if (median("audience", "facts") != "") printf "  with times(purchase, 1 year), ms %s\n", cell("audience", "facts", "%.0f")
        if (median("segment_define", "pg_crm") != "") printf "define_segment() over 1 million, ms  %s\n", cell("segment_define", "pg_crm", "%.0f")
        most("10 changed fields of 1 million contacts, ms", "segment_fields", 5)
        most("10 orders of 1 million contacts, ms", "segment_orders", 5)
        rule_one("rule_holds() of 1 million, us", "rule_one_again", 15)
        rule_one("  pages new to the session", "rule_one_first", 0)
        rule_one("rule_holds() of 1000, us", "rule_one_few", 15)
        if (median("seven_cpu", "pg_crm_7") != "") {
            x = (median("seven_cpu", "pg_crm_7") - median("seven_cpu", "pg_crm_1")) / 7
            printf "one row, us of processor time: rules that ship %s, seven more %s\n", cell("seven_cpu", "pg_crm_1", "%.1f"), cell("seven_cpu", "pg_crm_7", "%.1f")
            printf "  a rule over the profile, us       %.2f   <= 3   %s\n", x, x <= 3 ? "ok" : "MISS"
        }
        row("500 000 scans, 9 of 10 repeats, s", "scans", "%.2f")
        if (median("scans", "three") != "") printf "  the bare table with a third index, s %s\n", cell("scans", "three", "%.2f")
        row("  counted only, PK only, s", "scans_alone", "%.2f")
        if (median("scans_alone", "hand") != "") printf "  and ON CONFLICT by hand, s         %s\n", cell("scans_alone", "hand", "%.2f")
        row("one scan that repeats, us", "scan_again", "%.1f")
        row("one scan, the contact\047s first, us", "scan_first", "%.1f")
        judge("scans, pg_crm / bare", "scans", "pg_crm", "bare", 1.6, 1)
        judge("scans, pg_crm / bare with three indexes", "scans", "pg_crm", "three", 1.6, 1)
        judge("scans counted only, pg_crm / bare", "scans_alone", "pg_crm", "bare", 1.5, 1)
        judge("scans counted only, pg_crm / by hand", "scans_alone", "pg_crm", "hand", 1, 1)
        tell("one scan that repeats, pg_crm / bare", "scan_again", "pg_crm", "bare")
        tell("one scan, the contact\047s first, pg_crm / bare", "scan_first", "pg_crm", "bare")
        judge("audience() / the same SELECT by hand", "audience", "pg_crm", "bare", 1.3, 1)
        judge("INSERT ... SELECT, pg_crm / bare", "bulk", "pg_crm", "bare", 1.5, 1)
        judge("INSERT ... SELECT, PL/pgSQL row / pg_crm", "bulk", "row", "pg_crm", 3, 0)
        judge("COPY, pg_crm / bare", "copy", "pg_crm", "bare", 1.5, 1)
        judge("COPY, PL/pgSQL row / pg_crm", "copy", "row", "pg_crm", 3, 0)
        judge("statements of 1000, pg_crm / bare", "small_1000", "pg_crm", "bare", 1.6, 1)
        judge("statements of 10, pg_crm / bare", "small_10", "pg_crm", "bare", 1.6, 1)
        judge("the same, contacts with orders: 1000, pg_crm / bare", "steady_1000", "pg_crm", "bare", 1.6, 1)
        judge("the same, contacts with orders: 10, pg_crm / bare", "steady_10", "pg_crm", "bare", 1.6, 1)
        judge("one row, pg_crm / bare", "one", "pg_crm", "bare", 1.5, 1)
        judge("one row, pg_crm / PL/pgSQL row", "one", "pg_crm", "row", 1, 1)
        judge("first purchase, pg_crm / bare", "first", "pg_crm", "bare", 1.9, 1)
        judge("first purchase, pg_crm / PL/pgSQL row", "first", "pg_crm", "row", 1, 1)
        judge("tps, pg_crm / bare", "tps", "pg_crm", "bare", 0.7, 0)
        if (median("growth_5M", "bare") != "") {
            x = (median("growth_5M", "pg_crm") - median("growth_5M", "bare")) / 100
            y = (median("growth_10k", "pg_crm") - median("growth_10k", "bare")) / 100
            judged[++nj] = sprintf("%-54s %6.2f   <= 1.30   %s", sprintf("share a row: %.2f us at 5 M orders / %.2f at 10 000", x, y), x / y, x <= 1.3 * y ? "ok" : "MISS")
        }
        printf "\n%-54s %6s   %-7s        %s\n", "ratio of medians", "time", "target", "processor time"
        for (i = 1; i <= nj; i++) print judged[i]
    }' "$results"
    if [ -s "$dir/memory" ]; then
        { read -r rss1 ctx1; read -r rss2 ctx2; } <"$dir/memory"
        printf '%-54s %6.1f   <= 10 MB  %s\n' "memory of a backend: MB more after $MEMORY_N rows than 10 000" \
            "$(awk -v a=$rss1 -v b=$rss2 'BEGIN { print (b - a) / 1024 }')" "$([ $((rss2 - rss1)) -le 10240 ] && echo ok || echo MISS)"
        printf '%-54s %6.1f\n' "  of that in memory contexts" "$(awk -v a=$ctx1 -v b=$ctx2 'BEGIN { print (b - a) / 1024 }')"
    fi
    [ ! -s "$dir/written" ] || { echo; cat "$dir/written"; }
}

fact_parts() {
    start
    make_templates
    columns='crm.transaction (contact_id, amount, occurred_at, external_ref)'
    rivals='row statement'
    # what made the WAL files that the others use again
    sql postgres -c 'CREATE DATABASE now TEMPLATE bare_0'
    sql now -c "INSERT INTO $columns SELECT contact_id, amount, occurred_at, external_ref FROM bench.orders"
    sql postgres -c 'DROP DATABASE now' -c CHECKPOINT
    ! has bulk || on_empty bulk 0.001 "INSERT INTO $columns SELECT contact_id, amount, occurred_at, external_ref FROM bench.orders" bare pg_crm $rivals
    [ -z "$QUICK" ] || rivals=''
    ! has copy || on_empty copy 0.001 "COPY $columns FROM '$dir/orders.copy'" bare pg_crm ${rivals:+row}
    ! has small || on_empty small_1000 0.002 "CALL bench.in_statements(0, $ORDERS, 1000)" bare pg_crm $rivals
    small=$([ -n "$QUICK" ] && echo 200000 || echo $ORDERS)
    ! has small || on_empty small_10 "$(awk -v n=$small 'BEGIN { print 1000 / n }')" "CALL bench.in_statements(0, $small, 10)" bare pg_crm $rivals
    if has small || has one || has seven || has tps || has memory; then make_history; fi
    ! has small || small_steady
    ! has one || one_row
    ! has seven || seven
    ! has tps || tps
    ! has memory || memory
    ! has growth || growth
    ! has rules || rules
    ! has scans || scans
    ! has segments || segments
    ! has journeys || journeys
    ! has funnel || funnel
    ! has reports || reports
}

ends() {
    sender_stop
    [ -z "$facts" ] || stop
}

settings() {        # settings TITLE
    echo "$1: PostgreSQL $("$PG_CONFIG" --version | sed 's/^PostgreSQL //'), $(nproc) cores, $RUNS run(s),$(for s in shared_buffers max_wal_size fsync synchronous_commit; do
        printf ' %s %s' $s "$(sql postgres -c "SHOW $s")"; done)"
    echo
}

begun=$SECONDS
mkdir -p "$dir"
: >"$results"
facts='' socket=''
trap ends EXIT
for part in $FACT_PARTS growth; do ! has $part || facts=1; done
if [ -n "$facts" ]; then
    fact_parts
    say
    settings 'facts'
    report
    ! has journeys || journeys_report
    ! has funnel || funnel_report
    ! has reports || reports_report
    stop
    facts=''
    mkdir -p "$dir"
    rm -f "$dir/written"
    echo
fi
sender_parts
if [ -n "$sender" ]; then
    say
    settings 'sender'
    sender_report
    [ ! -s "$dir/written" ] || { echo; cat "$dir/written"; }
fi
cat <<TEXT

$((SECONDS - begun)) s. Another process on the machine shifts single figures by 15 % and more; runs alternate so that
it hits all alike. Judge by the ratios, and by more than one run of the bench where a ratio is near its target.
TEXT
