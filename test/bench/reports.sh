# reports.sh - the part `reports` of run.sh: reports of a quarter out of 10 million visits and 20 million facts, from what
# is counted by day, and the same counts out of the rows.

REPORT_VARIANTS='store_report scan_report associate_report step_report facts trend journey_step report_html'

# the period: a quarter of the year that is loaded, in days of the zone by which they are counted
WHOLE_DAYS="timezone(crm.default_time_zone(), timestamp '2024-04-01'), timezone(crm.default_time_zone(), timestamp '2024-07-01')"
report_query() {
    case $1 in
        facts) echo "SELECT kind, sum(facts) FROM crm.kind_count WHERE day >= '2024-04-01' AND day < '2024-07-01' GROUP BY kind ORDER BY kind" ;;
        trend) echo "SELECT * FROM crm.trend('amounts', $WHOLE_DAYS, NULL, 'week')" ;;
        journey_step) echo "SELECT journey, version, step, entered, here, left_on, ended, drop_off FROM crm.journey_step ORDER BY 1, 2, 3" ;;
        report_html) echo "SELECT crm.report_html($WHOLE_DAYS)" ;;
        *) echo "SELECT * FROM crm.$1('2024-04-01', '2024-07-01')" ;;
    esac
}

# all that the reports above read of facts, visits and contacts won, as counted or out of the rows
counted_query() {
    local won='won_count' n='sum(won)'
    [ $1 = count ] || won='won_contact' n='count(*)'
    cat <<SQL
SELECT day, kind, account_id, qr_code_id, store_id, currency, sum(facts), sum(voided), sum(amount), coalesce(sum(refunded), 0)
  FROM crm.fact_$1 WHERE day >= '2024-04-01' AND day < '2024-07-01' GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6;
SELECT day, journey, version, step, state, outcome, next_step, sum(visits)
  FROM crm.visit_$1 WHERE day >= '2024-04-01' AND day < '2024-07-01' GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5, 6, 7;
SELECT day, source, qr_code_id, store_id, associate_id, $n, sum(buyers), sum(revenue)
  FROM crm.$won WHERE day >= '2024-04-01' AND day < '2024-07-01' GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5;
SQL
}

reports() {
    local facts=20000000 visits=10000000 run v ms
    [ -z "$QUICK" ] || { facts=1000000; visits=500000; }
    R_FACTS=$facts R_VISITS=$visits
    say "reports: $facts facts, $visits visits"
    sql postgres -c 'DROP DATABASE IF EXISTS now' -c 'CREATE DATABASE now'
    sql now <<SQL
CREATE EXTENSION pg_crm;
SELECT crm.install() \g /dev/null
INSERT INTO crm.account (kind, name) VALUES ('official_account', 'maison');
INSERT INTO crm.store (name) SELECT 'store ' || n FROM generate_series(1, 100) AS n;
INSERT INTO crm.associate (userid, store_id) SELECT 'a' || n, 1 + n % 100 FROM generate_series(1, 300) AS n;
INSERT INTO crm.qr_code (account_id, scene, store_id, associate_id) SELECT 1, 'c' || n, 1 + n % 100, 1 + n % 300 FROM generate_series(1, 1000) AS n;
-- rows go in as they would stand there: the triggers, which settle each contact, are off
SELECT crm.restoring(true) \g /dev/null
SET pg_crm.clock = '2024-12-31';
INSERT INTO crm.installation SELECT 1, crm.version(), 0, 0, '' WHERE NOT EXISTS (SELECT FROM crm.installation);
SELECT setseed(0.5) \g /dev/null
INSERT INTO crm.contact (contact_id, created_at) SELECT n, '2024-01-01' FROM generate_series(1, $((facts / 40))) AS n;
INSERT INTO crm.acquisition (contact_id, source, qr_code_id, store_id, associate_id, occurred_at)
SELECT n, 'scan', 1 + code, 1 + (1 + code) % 100, 1 + (1 + code) % 300, '2024-01-01'::timestamptz + random() * interval '365 days'
  FROM (SELECT n, floor(random() * 1000)::bigint AS code FROM generate_series(1, $((facts / 40))) AS n) AS c;
INSERT INTO crm.event (contact_id, kind, occurred_at, recorded_at, account_id)
SELECT 1 + floor(random() * $((facts / 40))), (ARRAY['view', 'cart', 'message', 'form', 'like'])[1 + floor(random() * 5)], at, at, 1
  FROM (SELECT '2024-01-01'::timestamptz + n * (interval '365 days' / $((facts / 2))) AS at FROM generate_series(1, $((facts / 2))) AS n) AS e;
INSERT INTO crm.scan (contact_id, qr_code_id, occurred_at, recorded_at)
SELECT 1 + floor(random() * $((facts / 40))), 1 + floor(random() * 1000), at, at
  FROM (SELECT '2024-01-01'::timestamptz + n * (interval '365 days' / $((facts / 4))) AS at FROM generate_series(1, $((facts / 4))) AS n) AS e;
INSERT INTO crm.transaction (contact_id, amount, occurred_at, recorded_at, store_id)
SELECT 1 + floor(random() * $((facts / 40))), floor(random() * 50000) / 100, at, at, 1 + floor(random() * 100)
  FROM (SELECT '2024-01-01'::timestamptz + n * (interval '365 days' / $((facts / 5))) AS at FROM generate_series(1, $((facts / 5))) AS n) AS e;
INSERT INTO crm.transaction (contact_id, kind, amount, occurred_at, recorded_at, store_id, refund_of)
SELECT contact_id, 'refund', amount, occurred_at + interval '9 days', occurred_at + interval '9 days', store_id, transaction_id
  FROM crm.transaction WHERE transaction_id % 4 = 0 AND amount > 0;
INSERT INTO crm.profile_counter (contact_id, orders, spend, settled_at)
SELECT c.contact_id, coalesce(t.orders, 0), coalesce(t.spend, 0), '2024-12-31'
  FROM crm.contact AS c LEFT JOIN (SELECT contact_id, count(*) AS orders, sum(amount) AS spend FROM crm.transaction WHERE kind = 'purchase'
                                    GROUP BY contact_id) AS t ON t.contact_id = c.contact_id;
INSERT INTO crm.step_visit (contact_id, enrolment_id, visit, version, journey, step, entered_at, recorded_at, left_at, outcome, next_step)
SELECT 1 + n % $((facts / 40)), n, 1 + n % 5, 1, 'journey ' || n % 20, 'step ' || n % 5, at, at, at, (ARRAY['next', 'timeout', 'goal'])[1 + floor(random() * 3)],
       'step ' || (n + 1) % 5
  FROM (SELECT n, '2024-01-01'::timestamptz + n * (interval '365 days' / $visits) AS at FROM generate_series(1, $visits) AS n) AS v;
SELECT crm.restoring(false) \g /dev/null
SELECT crm.keep_roll_ups() \g /dev/null
SQL
    sql postgres -c CHECKPOINT
    ms=$(sql now <<SQL | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p'
\\timing on
SELECT crm.roll_up(true) \\g /dev/null
SQL
)
    note reports_ms roll_up "$ms"
    # what is not rolled up yet: ten thousand facts, one by one; a fifth of all are orders, which change what was bought
    sql now <<SQL
INSERT INTO crm.fact_tail (zone, day, kind, account_id, facts) SELECT crm.default_time_zone(), '2024-06-30', 'view', 1, 1 FROM generate_series(1, 10000);
INSERT INTO crm.opening_fact (day, kind, account_id, facts) VALUES ('2024-06-30', 'view', 1, 10000);
UPDATE crm.profile_counter SET orders = orders + 1, spend = spend + 10 WHERE contact_id % ($((facts / 40)) / 2000) = 0;
INSERT INTO crm.won_tail (contact_id) SELECT contact_id FROM crm.profile_counter WHERE contact_id % ($((facts / 40)) / 2000) = 0;
VACUUM ANALYZE;
SQL
    for ((run = -1; run < RUNS; run++)); do     # the first touch of these pages is not measured
        for v in $(order_of $((run + 1)) $REPORT_VARIANTS); do
            ms=$(sql now <<SQL | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p'
\\timing on
$(report_query $v) \\g $dir/report_$v
SQL
)
            [ $run -lt 0 ] || note reports_ms $v "$ms"
        done
    done
    for v in count exact; do
        ms=$(sql now <<SQL | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' | awk '{ sum += $1 } END { print sum }'
\\timing on
\\o $dir/reports_$v
$(counted_query $v)
SQL
)
        note reports_ms "all by $v" "$ms"
    done
    cmp -s "$dir/reports_count" "$dir/reports_exact" && [ -s "$dir/reports_count" ] ||
        echo "reports: what is counted by day and what the rows come to are NOT THE SAME" >>"$dir/written"
    sql postgres -c 'DROP DATABASE now'
}

reports_report() {
    awk -F '\t' -v facts="$R_FACTS" -v visits="$R_VISITS" '
    function median(v,   n, i, j, t, a) {
        n = split(values[v], a, " ")
        for (i = 2; i <= n; i++)
            for (j = i; j > 1 && a[j - 1] + 0 > a[j] + 0; j--) { t = a[j]; a[j] = a[j - 1]; a[j - 1] = t }
        return n % 2 ? a[(n + 1) / 2] + 0 : (a[n / 2] + a[n / 2 + 1]) / 2
    }
    function judge(title, x, limit) { printf "%-54s %9.2f   <= %-7s %s\n", title, x, limit, x <= limit ? "ok" : "MISS" }
    $1 == "reports_ms" { values[$2] = values[$2] " " $3 }
    END {
        printf "reports: %d facts, %d visits, ms: all counted anew %.0f; a quarter by day, key and step out of the rows %.0f, as counted %.0f\n",
            facts, visits, median("roll_up"), median("all by exact"), median("all by count")
        n = split("store_report scan_report associate_report step_report facts trend journey_step", names, " ")
        for (i = 1; i <= n; i++)
            judge(names[i] " of a quarter, ms", median(names[i]), 200)
        printf "%-54s %9.2f   (it also says what only rows know: different contacts)\n", "report_html of a quarter, ms", median("report_html")
        print ""
    }' "$results"
}
