#!/bin/bash
# versions.sh check [MAJOR...] - make test on other majors (17 and 18 unless named), each in a
# Debian tree of its own made by debootstrap.  Nothing is installed on the machine but
# debootstrap, and nothing is mounted.  Needs root, by sudo for other users.
# versions.sh tree [MAJOR...] only makes the trees; versions.sh clean removes them.
#
# TREES   where they are: ${XDG_CACHE_HOME:-/var/cache}/pg_crm-trees; about 0.6 GB each
# MIRROR  the Debian mirror; the one of this machine's apt unless given
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
lib=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$lib/../.." && pwd)
TREES=${TREES:-${XDG_CACHE_HOME:-/var/cache}/pg_crm-trees}
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
suite_15=bookworm suite_17=trixie suite_18=forky

if [ "$(id -u)" != 0 ]; then
    exec sudo env TREES="$TREES" MIRROR="${MIRROR:-}" TESTS="${TESTS:-}" bash "$lib/versions.sh" "$@"
fi
. "$lib/trees.sh"

make_tree() {   # make_tree MAJOR
    local tree=$TREES/pg$1 v=$1 suite=suite_$1
    suite=${!suite:-}
    [ -n "$suite" ] || { echo "PostgreSQL $v is in no Debian suite known here" >&2; return 1; }
    # a tree that was made with other packages is made anew
    local packages="postgresql-$v postgresql-$v-pgtap make gcc libc6-dev perl git util-linux binutils
        libcurl4-openssl-dev librsvg2-bin libxml2-utils libipc-run-perl"
    packages=$(echo $packages)
    [ "$(cat "$tree/.ready" 2>/dev/null)" != "$packages" ] || return 0
    echo "making a tree with PostgreSQL $v in $tree"
    bare_tree "$suite" "$tree"
    # clang comes with the -dev package only for bitcode, which the tests do without
    in_tree "$tree" "
        apt-get -q update
        apt-get -y -q --no-install-recommends install $packages
        cd /tmp
        apt-get -q -o APT::Sandbox::User=root download postgresql-server-dev-$v
        dpkg --force-depends -i postgresql-server-dev-$v*.deb
        rm postgresql-server-dev-$v*.deb
        apt-get clean; rm -rf /var/lib/apt/lists/*" >>"$tree.log" 2>&1 ||
        { tail -n 20 "$tree.log" >&2; return 1; }
    echo "$packages" >"$tree/.ready"
}

check() {       # check MAJOR
    local tree=$TREES/pg$1 rc=0
    rm -rf "$tree/srv/pg_crm"
    mkdir -p "$tree/srv/pg_crm"
    copy_source "$root" "$tree/srv/pg_crm"
    echo "PostgreSQL $1:"
    in_tree "$tree" "cd /srv/pg_crm; PG_MAJOR=$1 make ${TESTS:-test}" || rc=1
    return $rc
}

command=${1:?check|tree|clean}
shift
[ $# -gt 0 ] || set -- 17 18
rc=0
case $command in
    tree) for v; do make_tree "$v" || rc=1; done ;;
    check)
        failed=()
        for v; do make_tree "$v" && check "$v" || { rc=1; failed+=("$v"); }; done
        echo "majors checked: $*; failed: ${failed[*]:-none}" ;;
    clean) for tree in "$TREES"/pg[0-9][0-9]; do remove_tree "$tree"; done ;;
    *) echo "versions.sh check|tree|clean [MAJOR...]" >&2; exit 2 ;;
esac
exit $rc
