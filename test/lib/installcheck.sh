#!/bin/bash
# installcheck.sh PG_CONFIG - the regression and isolation tests against the server that
# PGHOST, PGPORT and PGUSER lead to; each test in a database of its own.
set -euo pipefail
pg_config=$1
cd "$(dirname "$0")/../.."
tools=$(dirname "$(dirname "$("$pg_config" --pgxs)")")/test
bindir=$("$pg_config" --bindir)
out=$PWD/results
rc=0
run() {    # run TOOL NAME
    local dir=$out/$2 expected=()
    mkdir -p "$dir"
    ln -sfn "$PWD/test/sql" "$dir/sql"
    ln -sfn "$PWD/test/specs" "$dir/specs"
    ln -sfn "$PWD/expected" "$dir/expected"
    [ "$("$pg_config" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')" -lt 16 ] ||
        expected=(--expecteddir="$dir")
    "$tools/$1" --bindir="$bindir" --inputdir="$dir" --outputdir="$dir" "${expected[@]}" \
        --dbname=contrib_regression_crm --load-extension=pg_crm "$2" | grep '^test\|^ok\|^not ok' ||
        { rc=1; cat "$dir/regression.diffs" 2>/dev/null || true; }
}
for f in test/sql/*.sql; do
    [ ! -e "$f" ] || run regress/pg_regress "$(basename "$f" .sql)"
done
for f in test/specs/*.spec; do
    [ ! -e "$f" ] || run isolation/pg_isolation_regress "$(basename "$f" .spec)"
done
exit $rc
