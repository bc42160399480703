# send.sh - sourced by run.sh: the sender. A cluster of its own, as a sender is nothing without fsync and a worker.
#
# parts: send (throughput), latency (from COMMIT to the first byte), enqueue, idle

SEND_PARTS='send enqueue idle latency'
sender=                                 # its folder, once it is there

sender_port() { echo $((20000 + ($$ * 7 + $1) % 10000)); }

# platform_start PORT COMMAND...: starts a platform and waits until it answers; $platform_pid
platform_start() {
    local port=$1 tries=0
    shift
    "$@" >"$sender/platform.out" 2>&1 &
    platform_pid=$!
    until (exec 3<>/dev/tcp/127.0.0.1/"$port") 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || { cat "$sender/platform.out" >&2; return 1; }
        sleep 0.1
    done
}

platform_stop() {
    [ -z "${platform_pid:-}" ] || { kill "$platform_pid" && wait "$platform_pid"; } 2>/dev/null || true
    platform_pid=
}

sender_start() {
    local contacts=$1
    sender=$dir/sender
    mkdir -p "$sender/nginx"
    say "sender: $contacts contacts"
    cc -O2 -o "$sender/platform" "$here/platform.c"
    cc -O2 -o "$sender/bare_send" "$here/bare_send.c" $(curl-config --cflags --libs)
    "$BINDIR/initdb" -D "$sender/data" -A trust -U postgres -E UTF8 --locale=C --no-sync >"$sender/initdb.log" 2>&1
    sender_socket=$(mktemp -d /tmp/crm.XXXXXX)
    cat - "${TEMP_CONFIG:-$RUN/extension.conf}" >>"$sender/data/postgresql.conf" <<CONF
unix_socket_directories = '$sender_socket'
listen_addresses = ''
shared_buffers = 2GB
max_wal_size = 8GB
checkpoint_timeout = 1h
track_wal_io_timing = on
jit = off
timezone = 'UTC'
lc_messages = 'C'
client_min_messages = warning
pg_crm.worker = on
pg_crm.connections = 500
CONF
    export PGHOST=$sender_socket PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
    "$BINDIR/pg_ctl" -D "$sender/data" -l "$sender/server.log" -s -w start </dev/null ||
        { tail -n 20 "$sender/server.log" >&2; exit 1; }
    sql postgres -c 'CREATE DATABASE shop'
    sql shop -v contacts="$contacts" -v url=http://127.0.0.1:9 -f "$here/send.sql"
    if [ -n "${FINISHED:-}" ]; then
        say "sender: $FINISHED messages that were sent before"
        sql shop -c "INSERT INTO crm.message (contact_id, account_id, template, template_version, channel, class, state, params, due_at, tried_at, sent_at, ended_at)
            SELECT 1 + n % $contacts, 1, 'order', 1, 'official_account', 'service', 'sent', '{\"item\": \"Scarf\"}', at, at, at, at
              FROM (SELECT n, now() - interval '1 year' + n * (interval '360 days' / $FINISHED) AS at FROM generate_series(1, $FINISHED) AS n) AS m" \
            -c 'VACUUM ANALYZE crm.message' -c CHECKPOINT
    fi
    sender_worker
}

sender_stop() {
    platform_stop
    [ -n "$sender" ] || return 0
    "$BINDIR/pg_ctl" -D "$sender/data" -s -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$sender/data" "$sender_socket"
}

# sender_worker: waits for the worker of the shop; $worker_pid
sender_worker() {
    local tries=0
    until worker_pid=$(sql shop -c "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_crm worker' AND datname = 'shop'") &&
        [ -n "$worker_pid" ]; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || { tail -n 20 "$sender/server.log" >&2; exit 1; }
        sleep 0.1
    done
}

sender_switch() {       # sender_switch on|off: the worker
    sql postgres -c "ALTER SYSTEM SET pg_crm.worker = $1" -c 'SELECT pg_reload_conf()' >/dev/null
    [ "$1" = off ] || { sender_worker; return; }
    local tries=0
    until [ "$(sql shop -c "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_crm worker'")" = 0 ]; do
        tries=$((tries + 1)); [ $tries -lt 100 ] || exit 1
        sleep 0.1
    done
}

cpu_ns() { cut -d' ' -f1 "/proc/$1/schedstat"; }

# send_to MEASURE PORT: so many messages, by a bare client and by the worker, in turn
send_to() {
    local measure=$1 url=http://127.0.0.1:$2 run v n=20000 s cpu
    sql shop -c "UPDATE crm.account SET base_url = '$url'"
    for ((run = 0; run < RUNS + (RUNS == 1); run++)); do
        for v in $(order_of $run bare pg_crm); do
            say "$measure: run $((run + 1)), $v"
            if [ $v = bare ]; then
                read -r s cpu < <("$sender/bare_send" "$url/cgi-bin/message/template/send?access_token=bench_token" $n 500)
            else
                cpu=$(cpu_ns "$worker_pid")
                s=$(sql shop -c "SELECT crm.send_many((SELECT array_agg(contact_id) FROM (SELECT contact_id FROM crm.contact
                    ORDER BY contact_id OFFSET $((run % 4 * n)) LIMIT $n) AS c), 'order', '{\"item\": \"Scarf 17\"}')" -c 'CALL bench.until_sent()' | tail -n 1)
                cpu=$(awk -v a="$cpu" -v b="$(cpu_ns "$worker_pid")" 'BEGIN { print (b - a) / 1e9 }')
            fi
            note "$measure" $v "$(awk -v n=$n -v s="$s" 'BEGIN { print n / s }')"
            note "${measure}_cpu" $v "$(awk -v n=$n -v s="$cpu" 'BEGIN { print s * 1e6 / n }')"
        done
        [ "$(sql shop -c "SELECT count(*) FROM crm.message WHERE state <> 'sent'")" = 0 ] ||
            echo "$measure: messages ARE NOT SENT" >>"$dir/written"
    done
}

send_part() {
    local port
    port=$(sender_port 1)
    platform_start "$port" "$sender/platform" "$port" 50
    send_to send_50ms "$port"
    platform_stop
    port=$(sender_port 2)
    cat >"$sender/nginx.conf" <<CONF
daemon off;
master_process off;
pid $sender/nginx/pid;
error_log $sender/nginx/error.log;
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path $sender/nginx/body;
    proxy_temp_path $sender/nginx/proxy;
    fastcgi_temp_path $sender/nginx/fastcgi;
    uwsgi_temp_path $sender/nginx/uwsgi;
    scgi_temp_path $sender/nginx/scgi;
    server {
        listen 127.0.0.1:$port;
        location / { default_type application/json; return 200 '{"errcode":0,"errmsg":"ok","msgid":1}'; }
    }
}
CONF
    platform_start "$port" nginx -e "$sender/nginx/error.log" -c "$sender/nginx.conf"
    send_to send_now "$port"
    platform_stop
}

# latency_of MEASURE TEMPLATE N FIRST: ms from COMMIT to the first byte at the platform
latency_of() {
    local measure=$1 template=$2 n=$3 first=$4 port p
    port=$(sender_port "$first")
    rm -f "$sender/arrivals"
    platform_start "$port" "$sender/platform" "$port" 0 "$sender/arrivals"
    sql shop -c "UPDATE crm.account SET base_url = 'http://127.0.0.1:$port'" -c 'TRUNCATE bench.asked, bench.arrival' \
        -c 'SELECT pg_stat_reset_shared($$wal$$)' >/dev/null
    [ -z "${5:-}" ] || sql shop -c "$5" >/dev/null
    sql shop -c "CALL bench.ask($n, $first, '$template')"
    sql shop -c "SELECT count(*) FROM crm.outbox WHERE lane = 'bulk'" >"$sender/left"
    note "$measure" flush "$(sql shop -c 'SELECT (wal_sync_time + wal_write_time) / greatest(wal_sync, 1) FROM pg_stat_wal')"
    # whatever is still on its way arrives first
    [ -n "${5:-}" ] || sql shop -c 'CALL bench.until_sent()' >/dev/null
    platform_stop
    sql shop -c "\\copy bench.arrival FROM '$sender/arrivals'" -c ANALYZE
    for p in 0.5 0.99; do
        note "$measure" "p$p" "$(sql shop -c "SELECT percentile_cont($p) WITHIN GROUP (ORDER BY r.at / 1000.0 - extract(epoch FROM a.committed_at) * 1000)
            FROM bench.asked AS a LEFT JOIN bench.arrival AS r USING (openid)")"
    done
    [ "$(sql shop -c "SELECT count(*) FROM bench.asked AS a JOIN bench.arrival AS r USING (openid)")" = "$n" ] ||
        echo "$measure: messages DID NOT ARRIVE, or twice" >>"$dir/written"
}

latency_part() {
    local n=300 contacts=$1
    [ -z "$QUICK" ] || n=150
    say "latency: idle"
    latency_of first_byte order $n 1
    say "latency: urgent, beside $((contacts - 2000)) bulk"
    latency_of urgent answer $n $((contacts - 1999)) "SELECT crm.send_many((SELECT array_agg(contact_id) FROM crm.contact
        WHERE contact_id <= $((contacts - 2000))), 'campaign')"
    [ "$(cat "$sender/left")" -gt 0 ] || echo "urgent: the bulk lane WAS EMPTY before the end" >>"$dir/written"
}

enqueue_part() {
    local run v n=100000 ms
    sender_switch off
    for ((run = 0; run < RUNS + (RUNS == 1); run++)); do
        for v in $(order_of $run bare pg_crm row); do
            say "enqueue: run $((run + 1)), $v"
            sql shop -c 'TRUNCATE crm.message, crm.outbox, bench.message, bench.outbox' -c CHECKPOINT
            case $v in
                bare) statement="DO \$\$ BEGIN
                    INSERT INTO bench.message (contact_id, message_id, account_id, template, template_version, channel, class, params, due_at)
                    SELECT contact_id, contact_id, 1, 'order', 1, 'official_account', 'service', '{\"item\": \"Scarf\"}', now() FROM crm.contact WHERE contact_id <= $n;
                    INSERT INTO bench.outbox (contact_id, message_id, account_id, lane, due_at)
                    SELECT contact_id, contact_id, 1, 'normal', now() FROM crm.contact WHERE contact_id <= $n; END \$\$" ;;
                pg_crm) statement="SELECT crm.send_many((SELECT array_agg(contact_id) FROM crm.contact WHERE contact_id <= $n), 'order', '{\"item\": \"Scarf\"}')" ;;
                row) statement="SELECT count(crm.send(contact_id, 'order', '{\"item\": \"Scarf\"}')) FROM crm.contact WHERE contact_id <= $n" ;;
            esac
            ms=$(printf '%s\n' '\timing on' "$statement;" | sql shop | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p')
            note enqueue $v "$ms"
        done
    done
    sql shop -c 'TRUNCATE crm.message, crm.outbox'
    sender_switch on
}

idle_part() {
    local seconds=60 before
    [ -z "$QUICK" ] || seconds=20
    say "idle: $seconds s"
    sql shop -c 'CALL bench.until_sent()' >/dev/null
    sleep 5
    before=$(cpu_ns "$worker_pid")
    sleep $seconds
    note idle pg_crm "$(awk -v a="$before" -v b="$(cpu_ns "$worker_pid")" -v s=$seconds 'BEGIN { print (b - a) / 1e6 * 60 / s }')"
}

sender_parts() {
    local wanted='' part contacts=1000000
    for part in $SEND_PARTS; do ! has $part || wanted="$wanted $part"; done
    [ -n "$wanted" ] || return 0
    case $wanted in *latency*) ;; *) contacts=100000 ;; esac
    [ -z "$QUICK" ] || contacts=100000
    sender_start $contacts
    for part in $wanted; do ${part}_part $contacts; done
}

sender_report() {
    awk -F '\t' '
    function median(m, v,   n, i, j, t) {
        n = split(values[m, v], a, " ")
        for (i = 2; i <= n; i++)
            for (j = i; j > 1 && a[j - 1] + 0 > a[j] + 0; j--) { t = a[j]; a[j] = a[j - 1]; a[j - 1] = t }
        return n == 0 ? "" : n % 2 ? a[(n + 1) / 2] + 0 : (a[n / 2] + a[n / 2 + 1]) / 2
    }
    function judge(title, x, most, limit, more) {
        if (x != "") printf "%-54s %8.2f   %s %8.2f   %-4s   %s\n", title, x, most ? "<=" : ">=", limit, (most ? x <= limit : x >= limit) ? "ok" : "MISS", more
    }
    function rates(m) {
        return sprintf("%.0f and %.0f a second; processor %.0f and %.0f us each", median(m, "pg_crm"), median(m, "bare"), median(m "_cpu", "pg_crm"), median(m "_cpu", "bare"))
    }
    { values[$1, $2] = values[$1, $2] " " $3 }
    END {
        if (median("send_50ms", "pg_crm") != "") judge("sending at 50 ms, 500 connections: pg_crm / bare", median("send_50ms", "pg_crm") / median("send_50ms", "bare"), 0, 0.7, rates("send_50ms"))
        if (median("send_now", "pg_crm") != "") judge("sending without latency: messages a second", median("send_now", "pg_crm"), 0, 8000, rates("send_now"))
        x = median("first_byte", "flush")
        if (x != "") {
            judge("COMMIT to first byte, idle: ms, p50", median("first_byte", "p0.5"), 1, 1 + x, sprintf("a flush of WAL takes %.2f", x))
            judge("the same, p99", median("first_byte", "p0.99"), 1, 10)
            judge("the same, urgent beside bulk: p99", median("urgent", "p0.99"), 1, 50, sprintf("p50 %.2f", median("urgent", "p0.5")))
        }
        if (median("enqueue", "bare") != "") {
            judge("queuing 100 000 by send_many(): pg_crm / bare", median("enqueue", "pg_crm") / median("enqueue", "bare"), 1, 3, sprintf("%.0f and %.0f ms", median("enqueue", "pg_crm"), median("enqueue", "bare")))
            printf "%-54s %8.2f   %.0f ms\n", "the same, one send() a row: pg_crm / bare", median("enqueue", "row") / median("enqueue", "bare"), median("enqueue", "row")
        }
        judge("idle worker: ms of processor time in 60 s", median("idle", "pg_crm"), 1, 60)
    }' "$results"
}
