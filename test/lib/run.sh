#!/bin/bash
# run.sh COMMAND - the frame of make test, test-one, demo, bench and the like.
#
# Installs missing packages, copies the tree to a work folder outside it, and goes on there
# as a user that is not root (PostgreSQL refuses root): build, staged install, cluster, tests.
# Nothing is installed into the system's PostgreSQL and nothing is written into the tree.
#
# PG_CONFIG or PG_MAJOR choose the PostgreSQL; PG_CRM_WORK the work folder; JOBS how many test
# files run at once; T what test-one and accept run; PG_CRM_DATA the data of test-data.
set -euo pipefail
export LC_ALL=C.UTF-8
lib=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$lib/../.." && pwd)
command=${1:?test|test-one|accept|test-data|test-long|test-faults|test-peers|test-clean|bench|psql|demo|demo-stop}
shift
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
unset MAKEFLAGS MAKELEVEL MFLAGS    # the calling make's are not for those called here
. "$lib/packages.sh"
if [ -n "${PG_CONFIG:-}" ]; then
    PG_CONFIG=$(command -v "$PG_CONFIG") || { echo "no pg_config there: PG_CONFIG is wrong" >&2; exit 1; }
fi

if [ "$command" = test-data ] && [ -z "${PG_CRM_DATA:-}" ]; then
    echo "test-data: PG_CRM_DATA is not set, so the tests against data that may not be carried" \
        "here are left out"
    exit 0
fi

# npm is not installed by this frame: it is there with the configuration of who uses it, or not
if [ "$command" = test-peers ] || [[ " ${T:-}" = *" peers"* ]]; then
    for program in npm node; do
        command -v $program >/dev/null ||
            { echo "test-peers: $program is missing; it fetches and runs what pg_crm is compared with" >&2; exit 1; }
    done
fi

case $command in
    test-clean | demo-stop) MAJOR=$(pg_major) ;;
    *) ensure_packages ;;
esac
: "${PG_CONFIG:=/usr/lib/postgresql/$MAJOR/bin/pg_config}"
[ -x "$PG_CONFIG" ] || PG_CONFIG=$(command -v pg_config) ||
    { echo "pg_config is missing: say where it is by PG_CONFIG" >&2; exit 1; }

# who runs the server
if [ "$(id -u)" = 0 ]; then
    for user in postgres nobody; do ! id "$user" >/dev/null 2>&1 || break; done
    as_user() { (cd / && runuser -u "$user" -- "$@"); }
else
    user=$(id -un)
    as_user() { "$@"; }
fi

WORK=${PG_CRM_WORK:-${TMPDIR:-/tmp}/pg_crm-$user-$(printf %s "$root" | cksum | cut -d' ' -f1)}-$MAJOR
mkdir -p -m 755 "$WORK" 2>/dev/null || true
if [ -L "$WORK" ] || [ ! -d "$WORK" ]; then
    echo "$WORK is no folder" >&2; exit 1
fi
[ "$(id -u)" != 0 ] || chown "$user:" "$WORK"
[ "$(stat -c %U "$WORK")" = "$user" ] || { echo "$WORK belongs to another user" >&2; exit 1; }
export PG_CONFIG WORK JOBS="${JOBS:-$(nproc)}"

# every file of the tree that is not a build product, NUL-separated
tree_files() {
    if ! git -C "$root" -c safe.directory='*' ls-files -z -co --exclude-standard 2>/dev/null; then
        cd "$root" && find . -name .git -prune -o -type f ! -name '*.[od]' ! -name '*.bc' \
            ! -name '*.so' -printf '%P\0'
    fi | while IFS= read -r -d '' f; do [ ! -e "$root/$f" ] || printf '%s\0' "$f"; done
}

# bring $WORK/build up to date; make then builds only what changed
sync_tree() {
    local list
    list=$(mktemp)
    tree_files | sort -z >"$list"
    as_user mkdir -p "$WORK/build"
    [ ! -e "$WORK/manifest" ] ||
        comm -z -23 "$WORK/manifest" "$list" | as_user xargs -0r sh -c \
            'for f; do rm -f "$0/$f"; case $f in *.c) rm -f "$0/${f%.c}.o" "$0/${f%.c}.d";; esac; done' "$WORK/build"
    tar -C "$root" --null -T "$list" -cf - | as_user tar -C "$WORK/build" --no-same-owner -xf -
    as_user tee "$WORK/manifest" <"$list" >/dev/null
    rm -f "$list"
}

case $command in
    demo-stop)
        as_user "$lib/demo.sh" stop 2>/dev/null || as_user bash -s stop <"$lib/demo.sh"
        exit ;;
    test-clean)
        as_user bash -s stop <"$lib/demo.sh"
        rm -rf "$WORK"
        exit ;;
esac

find "$WORK" -maxdepth 1 -name 'run.*' -mmin +1440 -exec rm -rf {} +
RUN=$(as_user mktemp -d "$WORK/run.XXXXXX")
export RUN
trap 'rm -rf "$RUN" 2>/dev/null || { sleep 1; rm -rf "$RUN"; }' EXIT

# data that the other user cannot read is copied for the run
if [ -n "${PG_CRM_DATA:-}" ]; then
    PG_CRM_DATA=$(cd "$PG_CRM_DATA" && pwd) || exit 1
    if ! as_user test -r "$PG_CRM_DATA/." -a -x "$PG_CRM_DATA/."; then
        as_user mkdir "$RUN/data"
        tar -C "$PG_CRM_DATA" -cf - . | as_user tar -C "$RUN/data" --no-same-owner -xf -
        PG_CRM_DATA=$RUN/data
    fi
    export PG_CRM_DATA
fi

# packages, by the caller's npm, into folders of this run: packages_by_npm FOLDER PACKAGE.JSON
packages_by_npm() {
    mkdir "$1"
    cp "$2" "$1"
    npm install --prefix "$1" --ignore-scripts --no-audit --no-fund --no-package-lock --loglevel=error ||
        { echo "test-peers: npm could not install $(tr -d '\n' <"$2" | sed 's/.*"dependencies": *{ *//; s/ *}.*//')" >&2; exit 1; }
    [ "$(id -u)" != 0 ] || chown -R "$user:" "$1"
}
# what pg_crm is compared with, and the tool that shows the dashboard
if [ "$command" = test-peers ] || [[ " ${T:-}" = *" peers"* ]]; then
    export PG_CRM_PEERS=$RUN/peers PG_CRM_DASHBOARD=$RUN/dashboard
    packages_by_npm "$PG_CRM_PEERS" "$root/test/peers/package.json"
    if [ "$command" = test-peers ] || [[ " $T " = *" peers "* || " $T " = *" peers:dashboard "* ]]; then
        packages_by_npm "$PG_CRM_DASHBOARD" "$root/examples/dashboard/package.json"
    fi
fi

# two runs from one tree share the build, one after the other; the rest is each run's own
exec 9>>"$WORK/lock"
flock 9
sync_tree
as_user env RUN="$RUN" bash "$WORK/build/test/lib/inside.sh" build 9>&-
flock -u 9
exec 9>&-

rc=0
case $command in
    accept)
        as_user bash "$RUN/tree/test/lib/inside.sh" test-one ${T:-} >/dev/null 2>&1 || true
        shopt -s nullglob
        for f in "$RUN"/out/*/results/*.out; do
            mkdir -p "$root/expected"
            cat "$f" >"$root/expected/${f##*/}"
            echo "expected/${f##*/}"
        done ;;
    *) as_user bash "$RUN/tree/test/lib/inside.sh" "$command" ${T:-} || rc=$? ;;
esac
exit $rc
