# packages.sh - sourced by run.sh: choose the PostgreSQL to test with, and install by apt
# what is missing.  On a system without apt it names what is missing and goes on.

# pg_major: the major version to test with
pg_major() {
    local v
    if [ -n "${PG_CONFIG:-}" ]; then
        "$PG_CONFIG" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/'
        return
    fi
    for v in ${PG_MAJOR:-15 17 18 16}; do
        [ ! -x "/usr/lib/postgresql/$v/bin/postgres" ] || { echo "$v"; return; }
    done
    for v in ${PG_MAJOR:-15 17 18 16}; do
        ! apt-cache show "postgresql-$v" >/dev/null 2>&1 || { echo "$v"; return; }
    done
    echo "${PG_MAJOR:-15}"
}

# packages_of MAJOR: everything the tests and the demo use
packages_of() {
    echo git make gcc libc6-dev perl util-linux libcurl4-openssl-dev librsvg2-bin libxml2-utils libipc-run-perl
    case ${PG_CONFIG:-/usr/lib/postgresql/} in
        /usr/lib/postgresql/* | pg_config | /usr/bin/pg_config)
            echo "postgresql-$1" "postgresql-server-dev-$1" "postgresql-$1-pgtap" ;;
    esac
    # a platform that takes whatever is sent
    [ "${command:-}" != bench ] || echo nginx-light
    # the formatter is pinned to the one of Debian 12
    [ "$1" != 15 ] || echo clang-format-14
}

missing_packages() {
    local p
    for p in $(packages_of "$1"); do
        case $(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null) in
            installed | unpacked | half-configured) ;;
            *) echo "$p" ;;
        esac
    done
}

# ensure_packages: sets MAJOR
ensure_packages() {
    local missing sudo='' updated=''
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        MAJOR=$(pg_major)
        echo "no apt here: these must be there by other means:" $(packages_of "$MAJOR") >&2
        return
    fi
    MAJOR=$(pg_major)
    missing=$(missing_packages "$MAJOR" | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null ||
            { echo "missing: $missing; install them as root, or sudo for this user" >&2; exit 1; }
        sudo='sudo'
    fi
    echo "installing: $missing"
    export DEBIAN_FRONTEND=noninteractive
    if ! apt_quiet update; then
        echo "apt-get update failed; going on with the lists at hand" >&2
    fi
    MAJOR=$(pg_major)
    missing=$(missing_packages "$MAJOR" | tr '\n' ' ')
    apt_quiet install --no-install-recommends $missing ||
        { echo "apt-get install failed; needed: $missing" >&2; exit 1; }
}

apt_quiet() {
    local log rc=0
    log=$(mktemp)
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o Dpkg::Use-Pty=0 "$@" >"$log" 2>&1 || rc=$?
    [ $rc = 0 ] || tail -n 20 "$log" >&2
    rm -f "$log"
    return $rc
}
