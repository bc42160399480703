#!/bin/bash
# inside.sh COMMAND - what run.sh does in the work folder, as the user who runs the server.
# Needs $WORK, $RUN, $PG_CONFIG, $JOBS.
set -euo pipefail
export LC_ALL=C.UTF-8
command=$1
shift
lib=$(cd "$(dirname "$0")" && pwd)
. "$lib/cluster.sh"
if [ "$command" = build ]; then cd "$WORK/build"; else cd "$RUN/tree"; fi
MAKE=(make -s with_llvm=no PG_CONFIG="$PG_CONFIG")

build() {
    "${MAKE[@]}" -j"$JOBS" all
    if server_has extension_destdir || server_has extension_control_path; then
        "${MAKE[@]}" install DESTDIR="$RUN/stage" >/dev/null
    else
        "${MAKE[@]}" install >/dev/null ||
            { echo "this server can only load what is installed in it: install as its owner" >&2; exit 1; }
    fi
    mkdir "$RUN/tree" "$RUN/out"
    tar --null -T "$WORK/manifest" -cf - | tar -C "$RUN/tree" -xf -
    cluster_template
}

# files_of KIND [NAME]: the test files of that kind
files_of() {
    local name=${2:-*} dirs
    case $1 in
        regress)   dirs=(test/sql/$name.sql) ;;
        isolation) dirs=(test/specs/$name.spec) ;;
        pgtap)     dirs=(test/pgtap/$name.sql) ;;
        tap)       dirs=(test/t/$name.pl) ;;
        data)      dirs=(test/data/$name.sql test/data/$name.pl test/data/$name.sh)
                   [[ mobile_vectors != $name ]] || dirs+=(test/lib/mobile_vectors.pl) ;;
        long)      dirs=(test/long/$name.sql test/long/$name.pl test/long/$name.sh) ;;
        faults)    dirs=(test/faults/$name.pl) ;;
        peers)     dirs=(test/peers/$name.pl) ;;
        checks)    dirs=(test/lib/checks.sh) ;;
        *) echo "no tests are called $1: regress, isolation, pgtap, tap, data, long, faults, peers or checks" >&2
           return 1 ;;
    esac
    local f
    for f in "${dirs[@]}"; do [ ! -e "$f" ] || echo "$f"; done
}

run_files() {
    local rc=0
    [ $# -gt 0 ] || { echo "no test files"; return 0; }
    perl "$lib/harness.pl" "$@" || rc=$?
    [ $rc = 0 ] || [ -z "$(ls "$RUN/out")" ] || {
        rm -rf "$WORK/failed"
        cp -a "$RUN/out" "$WORK/failed"
        echo "logs and results: $WORK/failed"
    }
    return $rc
}

case $command in
    build) build ;;
    test)
        files=($(files_of checks; files_of tap; files_of regress; files_of isolation
            files_of pgtap; [ -z "${PG_CRM_DATA:-}" ] || files_of data))
        [ -n "${PG_CRM_DATA:-}" ] ||
            echo "PG_CRM_DATA is not set: make test-data's part is left out"
        run_files "${files[@]}" ;;
    test-one)
        [ $# -gt 0 ] || { echo "say which: make test-one T=regress:mobile (or T='pgtap tap:001_dump')" >&2; exit 2; }
        files=()
        for t; do
            kind=${t%%:*} name=
            [ "$kind" = "$t" ] || name=${t#*:}
            found=($(files_of "$kind" "$name"))
            [ ${#found[@]} -gt 0 ] || { echo "no test $t" >&2; exit 2; }
            files+=("${found[@]}")
        done
        VERBOSE=$([ ${#files[@]} -gt 1 ] || echo 1) run_files "${files[@]}" ;;
    test-data)
        files=($(files_of data))
        run_files "${files[@]}" ;;
    test-long)
        files=($(files_of long))
        run_files "${files[@]}" ;;
    test-faults)
        files=($(files_of faults))
        export TEST_TIMEOUT=${TEST_TIMEOUT:-3600}
        VERBOSE=1 run_files "${files[@]}" ;;
    test-peers)
        files=($(files_of peers))
        VERBOSE=1 run_files "${files[@]}" ;;
    bench)
        [ -e test/bench/run.sh ] || { echo "no test/bench/run.sh"; exit 1; }
        export TEMP_CONFIG=$RUN/extension.conf
        trap 'cluster_stop "$RUN/bench"' EXIT
        cluster_start "$RUN/bench" "shared_buffers = 512MB" "max_wal_size = 8GB" \
            "full_page_writes = on" "maintenance_work_mem = 256MB"
        bash test/bench/run.sh ;;
    psql)
        trap 'cluster_stop "$RUN/psql"' EXIT
        cluster_start "$RUN/psql" "pg_crm.worker = on"
        "$BINDIR/createdb" crm
        "$BINDIR/psql" -qX -d crm -c 'CREATE EXTENSION pg_crm'
        "$BINDIR/psql" -d crm ;;
    demo) exec bash "$lib/demo.sh" start ;;
    *) echo "unknown: $command" >&2; exit 2 ;;
esac
