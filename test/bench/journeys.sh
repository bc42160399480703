# journeys.sh - the part `journeys` of run.sh: people let in by the million, moved when their time has come, and what
# journeys cost a single order.

# journeys_make DATABASE TEMPLATE: with an account and a template of messages
journeys_make() {
    sql postgres -c "DROP DATABASE IF EXISTS $1" -c "CREATE DATABASE $1 TEMPLATE $2" -c CHECKPOINT
    sql $1 -f "$here/journeys.sql" >/dev/null
}

# Entry in bulk, ticks while nothing is due, and the tick in which many are.
journeys_many() {
    local people=1000000 due=100000 run what value ticks=7
    [ -z "$QUICK" ] || { people=200000 due=20000; }
    J_PEOPLE=$people J_DUE=$due
    for ((run = 0; run < RUNS; run++)); do
        say "journeys: run $((run + 1)) of $RUNS, $people people"
        journeys_make now pg_crm_0
        sql now -c "SELECT bench.publish_waits('later', 'register', '30 days')" \
            -c "INSERT INTO crm.contact (contact_id) SELECT $CONTACTS + n FROM generate_series(1, $people - $CONTACTS) AS n" \
            -c 'VACUUM ANALYZE' -c CHECKPOINT >/dev/null
        # a backend of its own, whose memory is that of this statement
        while read -r what value; do
            note journeys_$what pg_crm "$value"
        done < <(
            sql now -F ' ' <<SQL
SELECT bench.cpu() AS cpu, clock_timestamp() AS begun \gset
INSERT INTO crm.event (contact_id, kind) SELECT n, 'register' FROM generate_series(1, $people) AS n;
SELECT 'enter', $people / extract(epoch FROM clock_timestamp() - :'begun');
SELECT 'enter_cpu', $people / (bench.cpu() - :cpu) * 1000;
SELECT 'enter_memory', bench.peak_mb();
SQL
            sql now -c "SELECT bench.publish_waits('soon', 'cart', '1 hour')" \
                -c "INSERT INTO crm.event (contact_id, kind) SELECT 1 + n * ($people / $due), 'cart' FROM generate_series(0, $due - 1) AS n" \
                -c 'SELECT bench.make_bare()' -c 'VACUUM ANALYZE' -c CHECKPOINT >/dev/null
            sql now -F ' ' <<SQL
SELECT crm.tick() \g /dev/null
SELECT 'idle', ms FROM generate_series(1, $ticks) AS n, bench.tick_ms(crm.now() + n * interval '1 us') AS ms;
SELECT bench.cpu() AS cpu, clock_timestamp() AS begun \gset
SELECT crm.tick(now() + '61 min') AS steps \gset
SELECT 'advance', :steps / extract(epoch FROM clock_timestamp() - :'begun');
SELECT 'advance_cpu', :steps / (bench.cpu() - :cpu) * 1000;
SQL
            sql now -F ' ' <<SQL
SELECT bench.cpu() AS cpu, clock_timestamp() AS begun \gset
CALL bench.advance_bare();
SELECT 'advance_bare', 2 * $due / extract(epoch FROM clock_timestamp() - :'begun');
SELECT 'advance_bare_cpu', 2 * $due / (bench.cpu() - :cpu) * 1000;
SELECT bench.cpu() AS cpu, clock_timestamp() AS begun \gset
CALL bench.enter_bare();
SELECT 'enter_bare', $people / extract(epoch FROM clock_timestamp() - :'begun');
SELECT 'enter_bare_cpu', $people / (bench.cpu() - :cpu) * 1000;
SQL
        )
        value=$(sql now -F ' ' -c "SELECT count(*) FILTER (WHERE journey = 'later' AND state = 'active'), count(*) FILTER (WHERE journey = 'soon' AND state = 'finished'),
            (SELECT count(*) FROM crm.message) FROM crm.enrolment")
        value="$value $(sql now -F ' ' -c 'SELECT count(*), (SELECT count(*) FROM bare.message) FROM bare.step_visit')"
        [ "$value" = "$people $due $due $((people + 3 * due)) $due" ] || echo "journeys: $value ARE NOT $people waiting, $due through it with a message each" >>"$dir/written"
        sql postgres -c 'DROP DATABASE now'
    done
}

# Single orders without journeys, with fifty that they do not concern, and with one that sends for each.
journeys_one() {
    local turn v a b c n=3000 turns=15
    [ -z "$QUICK" ] || { n=2000 turns=7; }
    for v in none fifty matching; do journeys_make j_$v pg_crm_0; done
    sql j_fifty -c 'SELECT bench.publish_fifty()' >/dev/null
    sql j_matching -c 'SELECT bench.publish_thanks()' >/dev/null
    for ((turn = 0; turn <= turns; turn++)); do      # the first one warms up
        for v in $(order_of $turn none fifty matching); do
            say "journeys: one order, turn $turn of $turns, $v"
            IFS='|' read -r a b c < <(sql j_$v <<SQL
CALL bench.one_by_one('W$turn-', 2, 2, $((CONTACTS / 2 - 1)), false, 300, NULL) \g /dev/null
CALL bench.one_by_one('J$turn-', 2, 2, $((CONTACTS / 2 - 1)), false, $n, NULL);
SQL
)
            [ $turn -gt 0 ] || continue
            note journeys_one $v "$a"
            [ -z "$c" ] || note journeys_one_cpu $v "$c"
        done
    done
    for v in none fifty matching; do sql postgres -c "DROP DATABASE j_$v"; done
}

journeys() {
    journeys_many
    journeys_one
}

journeys_report() {
    awk -F '\t' -v people="$J_PEOPLE" -v due="$J_DUE" '
    function median(m, v,   n, i, j, t) {
        n = split(values[m, v], a, " ")
        for (i = 2; i <= n; i++)
            for (j = i; j > 1 && a[j - 1] + 0 > a[j] + 0; j--) { t = a[j]; a[j] = a[j - 1]; a[j - 1] = t }
        return n == 0 ? "" : n % 2 ? a[(n + 1) / 2] + 0 : (a[n / 2] + a[n / 2 + 1]) / 2
    }
    function judge(title, x, limit, most, more) {
        if (x == "") return
        printf "%-54s %9.2f   %s %-7s %-4s   %s\n", title, x, most ? "<=" : ">=", limit, (most ? x <= limit : x >= limit) ? "ok" : "MISS", more
    }
    function bare(title, m,   x) {
        x = median(m "_bare", "pg_crm")
        if (x != "" && x > 0)
            printf "  %-52s %9.2f   pg_crm is at %.2f of it, %.2f by processor time\n", title, x, median(m, "pg_crm") / x, median(m "_cpu", "pg_crm") / median(m "_bare_cpu", "pg_crm")
    }
    function by_processor(x) { return x == "" ? "" : sprintf("%.2f by processor time", x) }
    function ratio(m, v,   x) { x = median(m, "none"); return x == "" || x == 0 ? "" : median(m, v) / x }
    { values[$1, $2] = values[$1, $2] " " $3 }
    END {
        printf "journeys: %d people, %d due; median\n", people, due
        judge("steps a second: wait, branch, send", median("journeys_advance", "pg_crm"), 50000, 0, by_processor(median("journeys_advance_cpu", "pg_crm")))
        bare("the same rows alone, by one statement a table", "journeys_advance")
        judge("a tick when nobody is due, ms", median("journeys_idle", "pg_crm"), 5, 1, "")
        judge("enrolments a second, in one statement", median("journeys_enter", "pg_crm"), 100000, 0, by_processor(median("journeys_enter_cpu", "pg_crm")))
        bare("the same rows alone, by one statement a table", "journeys_enter")
        judge("  memory of its backend, MB", median("journeys_enter_memory", "pg_crm"), 256, 1, "")
        printf "one order without journeys, us: %.1f\n", median("journeys_one", "none")
        judge("one order, with 50 journeys / with none", ratio("journeys_one", "fifty"), 1.1, 1, by_processor(ratio("journeys_one_cpu", "fifty")))
        judge("one order, with one that sends / with none", ratio("journeys_one", "matching"), 2, 1, by_processor(ratio("journeys_one_cpu", "matching")))
        print ""
    }' "$results"
}
