#!/bin/bash
# bare.sh - make test and make demo from a clean clone on a bare Debian 12, once as root and
# once as a user with sudo, each in a fresh tree made by debootstrap.  Only what is committed
# is tested.  Needs root, by sudo for other users.
#
# TREES   where the trees are made: ${XDG_CACHE_HOME:-/var/cache}/pg_crm-trees
# KEEP=1  leaves them there
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
lib=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$lib/../.." && pwd)
TREES=${TREES:-${XDG_CACHE_HOME:-/var/cache}/pg_crm-trees}
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
if [ "$(id -u)" != 0 ]; then
    exec sudo env TREES="$TREES" MIRROR="${MIRROR:-}" KEEP="${KEEP:-}" bash "$lib/bare.sh" "$@"
fi
. "$lib/trees.sh"

session='
make 2>&1 | grep "postgres.h is missing: install postgresql-server-dev-15"
make test
make demo >demo.log 2>&1 || { cat demo.log; exit 1; }
tail -n 15 demo.log
psql=$(sed -n "s/^ *\(.*psql -h .*\)/\1/p" demo.log)
$psql -Atc "SELECT version()" </dev/null
make demo-stop
[ -z "$(git status --porcelain | grep -v demo.log)" ] || { git status --short; exit 1; }
make
$SUDO make install
'

run_as_root() {
    local tree=$TREES/bare-root
    bare_tree bookworm "$tree"
    # what the README asks for before the first command
    in_tree "$tree" 'apt-get -q update; apt-get -y -q --no-install-recommends install git make' >>"$tree.log" 2>&1
    mkdir -m 700 "$tree/srv/private"
    git clone -q --no-hardlinks "$root" "$tree/srv/private/pg_crm"
    in_tree "$tree" "export SUDO=; cd /srv/private/pg_crm; $session"
}

run_with_sudo() {
    local tree=$TREES/bare-sudo
    bare_tree bookworm "$tree"
    in_tree "$tree" '
        apt-get -q update; apt-get -y -q --no-install-recommends install git make sudo
        useradd -m -d /srv/dev -s /bin/bash dev
        echo "dev ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/dev' >>"$tree.log" 2>&1
    git clone -q --no-hardlinks "$root" "$tree/srv/dev/pg_crm"
    printf '%s\n' 'set -e; export SUDO=sudo; cd ~/pg_crm' "$session" >"$tree/srv/dev/session"
    in_tree "$tree" 'chown -R dev: /srv/dev; su - dev -c "sh ~/session"'
}

rc=0
for how in ${*:-run_as_root run_with_sudo}; do
    echo "$how:"
    start=$(date +%s)
    set +e
    (set -e; $how)
    if [ $? = 0 ]; then said=passed; else said=failed rc=1; fi
    set -e
    echo "$how: $said in $(($(date +%s) - start)) s"
done
[ -n "${KEEP:-}" ] || for tree in "$TREES"/bare-*; do [ ! -d "$tree" ] || remove_tree "$tree"; done
exit $rc
