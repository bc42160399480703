#!/bin/bash
# checks.sh - what can be said about the tree without running it.  TAP; run from the tree's top.
set -uo pipefail
n=0
# check NAME COMMAND...: passes when the command prints nothing
check() {
    local name=$1 said
    shift
    n=$((n + 1))
    said=$("$@" 2>&1 | head -n 60)
    if [ -z "$said" ]; then
        echo "ok $n - $name"
    else
        echo "not ok $n - $name"
        printf '%s\n' "$name:" "$said" | sed 's/^/# /' >&2
    fi
}
skip() {
    n=$((n + 1))
    echo "ok $n - $1 # SKIP $2"
}
sources() { find src -name '*.[ch]' | sort; }

version_agrees() {
    local v
    v=$(sed -n "s/^default_version = '\(.*\)'/\1/p" pg_crm.control)
    perl -MJSON::PP -e '
        local $/; open my $f, "<", "META.json" or die; my $m = decode_json(<$f>);
        for ($m->{version}, $m->{provides}{pg_crm}{version}) {
            print "META.json says $_, pg_crm.control $ARGV[0]: run make\n" if $_ ne $ARGV[0] }' "$v"
}

long_files() {
    find src sql test -type f \( -name '*.[ch]' -o -name '*.sql' -o -name '*.pl' -o -name '*.pm' \
        -o -name '*.sh' -o -name '*.spec' \) ! -name 'pg_crm--*.sql' ! -path 'test/fixtures/*' -print0 |
        xargs -0r wc -l | awk '$2 != "total" && $1 > 800 {print $2 " has " $1 " lines (800 at most)"}'
}

# a database in another encoding than UTF8 could not read them
not_ascii() { LC_ALL=C grep -nP '[^\x00-\x7F]' sql/extension/*.sql sql/install/*.sql; }

version_tests() {
    grep -nE 'PG_(MAJOR)?VERSION_NUM' $(sources) /dev/null | grep -v '^src/compat\.h:'
}

# room: rooms whose headers it may include, besides its own and those right under src/
import_rule='
base:
types:
rules: base types
profile: base types rules journey
journey: base types rules outbox
outbox: base types channels
facts: base types rules profile journey outbox
channels: base
dispatch: base types outbox channels
insight: base types rules profile journey facts outbox
'
imports() {
    local room others
    for room in $(find src -mindepth 1 -maxdepth 1 -type d -printf '%f\n'); do
        others=$(sed -n "s/^$room://p" <<<"$import_rule")
        grep -q "^$room:" <<<"$import_rule" || { echo "src/$room: unknown to the import rule"; continue; }
        grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' $(find "src/$room" -name '*.[ch]') /dev/null |
            awk -v room="$room" -v others=" $room $others " '{
                inc = $0; sub(/^[^"]*"/, "", inc); sub(/".*/, "", inc); gsub(/\.\.\//, "", inc)
                slash = index(inc, "/"); if (!slash) next
                to = substr(inc, 1, slash - 1)
                if ((getline line < ("src/" inc)) < 0) next     # a header of PostgreSQL
                close("src/" inc)
                if (index(others, " " to " ") == 0) print $0 " (" room " may include:" others ")" }'
    done
}

# functions of the library that are visible outside it
symbols() {
    local lib
    lib=$(find "$RUN/stage" -name pg_crm.so | head -1)
    [ -n "$lib" ] || return 0
    nm -D --defined-only "$lib" | awk '$2 ~ /[TBDR]/ {print $3}' |
        grep -vE '^(crm_|pg_finfo_crm_|Pg_magic_func$|_PG_init$|_PG_fini$|_init$|_fini$)'
}

rights_in_sql() {
    grep -rniE 'security[[:space:]]+definer|language[[:space:]]+.?plpgsql' sql --include='*.sql' |
        grep -vE '^[^:]*:[0-9]+:[[:space:]]*--'
}

clang_warnings() {
    local dir rc=0
    dir=$(mktemp -d "${RUN:-/tmp}/clang.XXXXXX")
    cp -a Makefile pg_crm.control META.json src sql "$dir"
    make -s -j"${JOBS:-1}" -C "$dir" PG_CONFIG="$PG_CONFIG" with_llvm=no CC="$1" COPT=-O0 \
        pg_crm.so >"$dir/log" 2>&1 || rc=1
    [ $rc = 0 ] || grep -vE '^make' "$dir/log"
    rm -rf "$dir"
}

dead_links() {
    local doc target
    for doc in *.md doc/*.md examples/*/README.md src/README.md src/*/README.md; do
        [ -e "$doc" ] || continue
        grep -oE '\]\([^)# ]+' "$doc" | sed 's/^](//' | grep -vE '^[a-z]+:' | while read -r target; do
            [ -e "$(dirname "$doc")/$target" ] || echo "$doc: $target is not there"
        done
    done
}

check 'META.json has the version of pg_crm.control' version_agrees
check 'no source file is longer than 800 lines' long_files
check 'only compat.h tests the PostgreSQL version' version_tests
check 'what CREATE EXTENSION and install() run is ASCII' not_ascii
check 'rooms include only what they may' imports
check 'visible symbols begin with crm_' symbols
check 'no SECURITY DEFINER and no PL/pgSQL in the extension' rights_in_sql
check 'links between the documents lead somewhere' dead_links
if [ "$VERSION" != 15 ]; then
    skip 'formatted' 'the pinned formatter belongs to Debian 12'
else
    check 'formatted (make format mends it)' make -s format-check
fi
clang=$(sed -n 's/^CLANG *= *//p' "$PGXS_SRC/Makefile.global")
if clang=$(command -v "${clang:-clang}" clang | head -1) && [ -n "$clang" ]; then
    check 'no warnings from clang' clang_warnings "$clang"
else
    skip 'no warnings from clang' 'clang is not installed'
fi
echo "1..$n"
