#!/bin/bash
# one.sh FILE - run one test file and speak TAP.  Each file that needs a server gets a cluster
# of its own, so no test sees another's roles, settings or workers.
# What went wrong goes to standard error, at the end and in one piece.
set -euo pipefail
file=$1
. "$(dirname "$0")/cluster.sh"
base=${file##*/}
name=${base%.*}
kind=$(basename "$(dirname "$file")")
out=$RUN/out/$kind.$name
mkdir -p "$out"
trap 'cluster_stop "$out"' EXIT
trap 'exit 130' INT TERM

# a test that hangs is a failure
limit=(timeout -k 10 "${TEST_TIMEOUT:-900}")

database() {
    "$BINDIR/createdb" "$1"
    PGDATABASE=$1
}

case $file in
    test/sql/*.sql | test/specs/*.spec)
        tool=regress/pg_regress
        [ "$kind" = sql ] || tool=isolation/pg_isolation_regress
        mkdir -p "$out/in" expected
        ln -sfn "$PWD/test/sql" "$out/in/sql"
        ln -sfn "$PWD/test/specs" "$out/in/specs"
        ln -sfn "$PWD/expected" "$out/in/expected"
        # a test without expected output fails with all of its output as the difference
        [ -e "expected/$name.out" ] || : >"expected/$name.out"
        expected=()
        [ "$VERSION" -lt 16 ] || expected=(--expecteddir="$out/in")
        cluster_start "$out"
        echo 1..1
        if "${limit[@]}" "$PGXS_SRC/test/$tool" --bindir="$BINDIR" --inputdir="$out/in" \
            --outputdir="$out" "${expected[@]}" --host="$PGHOST" --port="$PGPORT" \
            --user=postgres --dbname=crm_test --load-extension=pg_crm "$name" \
            >"$out/regress.log" 2>&1; then
            rc=0
            echo "ok 1 - $name"
        else
            rc=1
            echo "not ok 1 - $name"
            if [ -s "$out/regression.diffs" ]; then
                cat "$out/regression.diffs"
            else
                cat "$out/regress.log"
            fi >&2
        fi ;;
    *)
        case $file in
            test/t/* | test/faults/*) command=(perl -I "$PGXS_SRC/test/perl" -I test/lib "$file") ;;
            test/lib/checks.sh) command=(bash "$file") ;;
            *.sql)
                cluster_start "$out"
                database crm_test
                "$BINDIR/psql" -qXc 'CREATE EXTENSION pgtap' >/dev/null
                command=("$BINDIR/psql" -qXAt --pset pager=off --pset null= --set ON_ERROR_STOP=1
                    --set VERBOSITY=verbose -f "$file") ;;
            *)
                cluster_start "$out"
                database crm_test
                "$BINDIR/psql" -qXc 'CREATE EXTENSION pg_crm' >/dev/null
                command=(perl -I "$PGXS_SRC/test/perl" -I test/lib "$file")
                [[ $file != *.sh ]] || command=(bash "$file") ;;
        esac
        # PostgreSQL::Test: where to put clusters and logs, and settings of every node
        export TESTDIR=$out TESTLOGDIR=$out/log TESTDATADIR=$out/tmp_check
        export TEMP_CONFIG=$RUN/extension.conf
        export PG_REGRESS=$PGXS_SRC/test/regress/pg_regress
        mkdir -p "$TESTLOGDIR"
        rc=0
        "${limit[@]}" "${command[@]}" </dev/null 2>"$out/stderr" | tee "$out/stdout" || rc=$?
        if [ $rc != 0 ] || grep -q '^not ok' "$out/stdout"; then
            case $file in *.sql) grep -E '^(not ok|#)' "$out/stdout" >&2 || true ;; esac
            cat "$out/stderr" >&2
        fi
        # the data folders of passed tests are not kept
        if [ $rc = 0 ] && ! grep -q '^not ok' "$out/stdout"; then rm -rf "$out/tmp_check"; fi ;;
esac

if cluster_crashed "$out" >&2; then
    rc=1
    echo "# the server's log ends with:"
    tail -n 30 "$out/server.log" | sed 's/^/#   /'
fi >&2
exit $rc
