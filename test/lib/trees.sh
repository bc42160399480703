# trees.sh - sourced by versions.sh and bare.sh: Debian trees for chroot, made by debootstrap.

MIRROR=${MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    grep -E '/debian/?$' | sed -n 1p || true)}

# bare_tree SUITE DIR: the smallest Debian; what it says goes to DIR.log
bare_tree() {
    local suite=$1 tree=$2 script=/usr/share/debootstrap/scripts/$1
    [ -n "$MIRROR" ] || { echo "no Debian mirror in apt's sources: set MIRROR" >&2; return 2; }
    command -v debootstrap >/dev/null ||
        { apt-get -q update && apt-get -y -q install debootstrap; } >/dev/null 2>&1 ||
        { echo "debootstrap is missing and cannot be installed" >&2; return 2; }
    # a suite newer than this debootstrap is made the way sid is
    [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
    remove_tree "$tree"
    mkdir -p "$tree"
    debootstrap --variant=minbase "$suite" "$tree" "$MIRROR" "$script" >"$tree.log" 2>&1 ||
        { tail -n 20 "$tree.log" >&2; return 1; }
    # No service starts, and a mirror's frozen Release file is accepted.  Nothing is mounted,
    # so systemd-tmpfiles, which wants /proc, is replaced (apt takes PATH from DPkg::Path).
    printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d"
    chmod 755 "$tree/usr/sbin/policy-rc.d"
    mkdir -p "$tree/usr/local/sbin" "$tree/etc/postgresql-common"
    echo 'create_main_cluster = false' >"$tree/etc/postgresql-common/createcluster.conf"
    printf 'path-exclude=/usr/share/%s/*\n' doc locale man >"$tree/etc/dpkg/dpkg.cfg.d/slim"
    printf 'Acquire::Check-Valid-Until "false";\nAcquire::Check-Date "false";\n' \
        >"$tree/etc/apt/apt.conf.d/99frozen"
    ln -sf /bin/true "$tree/usr/local/sbin/systemd-tmpfiles"
    cat >"$tree/etc/apt/apt.conf.d/98tree" <<'CONF'
DPkg::Path "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin";
Dpkg::Options { "--force-confold"; };
CONF
}

# in_tree DIR COMMANDS: run them there as root
in_tree() {
    chroot "$1" /usr/bin/env -i LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive TERM=dumb \
        PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin /bin/sh -ec "$2" </dev/null
}

# copy_source FROM TO: the files of the tree without build products
copy_source() {
    git -C "$1" -c safe.directory='*' ls-files -z -co --exclude-standard |
        (cd "$1" && while IFS= read -r -d '' f; do [ ! -e "$f" ] || printf '%s\0' "$f"; done) |
        tar -C "$1" --null -T - -cf - | tar -C "$2" --no-same-owner -xf -
}

# remove_tree DIR: only a Debian tree, and only with nothing mounted below it
remove_tree() {
    [ -e "$1" ] || return 0
    if [ -n "$(ls -A "$1")" ] && [ ! -e "$1/etc/debian_version" ] && [ ! -d "$1/debootstrap" ]; then
        echo "$1 is no Debian tree; not removed" >&2
        return 1
    fi
    if awk -v t="$(readlink -f "$1")/" 'index($2 "/", t) == 1 {found = 1} END {exit !found}' /proc/mounts; then
        echo "$1: something is mounted below it; not removed" >&2
        return 1
    fi
    rm -rf "$1" "$1.log"
}
