# cluster.sh - sourced: throw-away clusters of the staged extension.  Needs $RUN and $PG_CONFIG.
# Each cluster is a copy of one template, reached by a Unix socket in a folder of its own.

BINDIR=$("$PG_CONFIG" --bindir)
PGXS_SRC=$(dirname "$(dirname "$("$PG_CONFIG" --pgxs)")")
VERSION=$("$PG_CONFIG" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
export BINDIR PGXS_SRC VERSION
export PATH=$BINDIR:$PATH

# server_has SETTING: does this PostgreSQL know it?
server_has() {
    [ -n "$("$BINDIR/postgres" --describe-config | grep "^$1	")" ]
}

# cluster_template: $RUN/template, and $RUN/extension.conf with the settings that make a server
# find the staged extension
cluster_template() {
    local conf=$RUN/extension.conf stage=$RUN/stage
    "$BINDIR/initdb" -D "$RUN/template" -A trust -U postgres -E UTF8 --locale=C --no-sync \
        --wal-segsize=1 >"$RUN/initdb.log" 2>&1 || { cat "$RUN/initdb.log" >&2; return 1; }
    if server_has extension_destdir; then
        cat >"$conf" <<CONF
extension_destdir = '$stage'
dynamic_library_path = '$stage$("$PG_CONFIG" --pkglibdir):\$libdir'
CONF
    elif server_has extension_control_path; then
        cat >"$conf" <<CONF
extension_control_path = '$stage$("$PG_CONFIG" --sharedir):\$system'
dynamic_library_path = '$stage$("$PG_CONFIG" --pkglibdir):\$libdir'
CONF
    else
        : >"$conf"      # the build step has installed into the server itself
    fi
    echo "shared_preload_libraries = 'pg_crm'" >>"$conf"
    cat - "$conf" >>"$RUN/template/postgresql.conf" <<'CONF'
listen_addresses = ''
fsync = off
full_page_writes = off
shared_buffers = 32MB
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
log_line_prefix = '%m [%p] %q%a '
pg_crm.worker = off
CONF
}

# cluster_start DIR [SETTING...]: start a copy of the template in DIR; PGHOST and so on then
# lead to it
cluster_start() {
    local dir=$1 setting
    shift
    mkdir -p "$dir"
    cp -a --reflink=auto "$RUN/template" "$dir/data"
    for setting; do echo "$setting" >>"$dir/data/postgresql.conf"; done
    PGHOST=$(mktemp -d /tmp/crm.XXXXXX)     # a socket's path must be short
    echo "unix_socket_directories = '$PGHOST'" >>"$dir/data/postgresql.conf"
    echo "$PGHOST" >"$dir/socket"
    export PGHOST PGPORT=5432 PGUSER=postgres PGDATABASE=postgres PGCLIENTENCODING=UTF8
    "$BINDIR/pg_ctl" -D "$dir/data" -l "$dir/server.log" -s -w start >/dev/null 2>&1 </dev/null ||
        { tail -n 30 "$dir/server.log" >&2; return 1; }
}

# cluster_stop DIR: end it; its log stays
cluster_stop() {
    local dir=$1
    [ ! -e "$dir/data/postmaster.pid" ] ||
        "$BINDIR/pg_ctl" -D "$dir/data" -s -m immediate stop >/dev/null 2>&1 || true
    [ ! -e "$dir/socket" ] || rm -rf "$(cat "$dir/socket")"
    rm -rf "$dir/data" "$dir/socket"
}

# cluster_crashed DIR: has a server process died?
cluster_crashed() {
    grep -aE 'PANIC: |TRAP: |was terminated by signal' "$1/server.log" 2>/dev/null
}
