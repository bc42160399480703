#!/bin/bash
# demo.sh start|stop - a cluster that stays up, with test/demo/demo.sql run in it.  Started by
# run.sh, which has made and staged the extension ($WORK, $RUN, $PG_CONFIG).
set -euo pipefail
demo=$WORK/demo

stop() {
    [ -d "$demo" ] || return 1
    [ ! -e "$demo/sandbox.pid" ] || kill "$(cat "$demo/sandbox.pid")" 2>/dev/null || true
    [ ! -e "$demo/data/postmaster.pid" ] ||
        "$("$PG_CONFIG" --bindir)/pg_ctl" -D "$demo/data" -s -m fast stop || true
    rm -rf "$(cat "$demo/socket" 2>/dev/null || echo "$demo/none")" "$demo"
}

case $1 in
    stop)
        if stop; then echo "the demo's server is stopped and removed"; else echo "no demo is running"; fi
        exit ;;
    start) ;;
    *) echo "demo.sh start|stop" >&2; exit 2 ;;
esac

lib=$(cd "$(dirname "$0")" && pwd)
stop || true
# the demo outlives this run: the staged extension and the template's settings move to its folder
mkdir -p "$demo/out"
run=$RUN
cp -a "$run/stage" "$demo/stage"
sed -i "s#$run/stage#$demo/stage#g" "$run/extension.conf" "$run/template/postgresql.conf"
. "$lib/cluster.sh"
cluster_start "$demo" "pg_crm.worker = on" || { stop; exit 1; }
chmod 700 "$PGHOST"
"$BINDIR/createdb" crm_demo

# what plays WeChat on this machine
perl "$lib/sandbox.pl" --port-file "$demo/port" --ledger "$demo/ledger.jsonl" \
    --account wx_boutique:boutique_secret >"$demo/sandbox.log" 2>&1 </dev/null 9>&- &
echo $! >"$demo/sandbox.pid"
for _ in $(seq 300); do [ ! -s "$demo/port" ] || break; sleep 0.1; done
[ -s "$demo/port" ] || { cat "$demo/sandbox.log" >&2; stop; exit 1; }
SANDBOX=http://127.0.0.1:$(cat "$demo/port")
export SANDBOX

rc=0
"$BINDIR/psql" -X -q -d crm_demo -v ON_ERROR_STOP=1 -v out="$demo/out" -P pager=off \
    -f test/demo/demo.sql 9>&- || rc=$?
echo
if [ $rc != 0 ]; then
    echo "the demo failed; the server's log: $demo/server.log" >&2
fi
[ -z "$(ls "$demo/out")" ] || { echo "files written:"; ls -d "$demo/out"/*; echo; }
cat <<END
The server is still up. To look around:
    $BINDIR/psql -h $PGHOST -U postgres crm_demo
To stop and remove it:
    make demo-stop
END
exit $rc
