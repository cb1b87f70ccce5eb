# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with the other files
# ClickHouse: libchdb from npm, run as a server by the launcher in infra/clickhouse.

readonly chdb_package=@chdb/lib-linux-x64-gnu
readonly chdb_version=26.7.3-stable.1
readonly chdb_sha256=c0d32b129e988f2b9a9a31c9141aecf5e1e2453f9a079efc4d36ab8e3f92b2ad
readonly chdb_bytes=177817999

clickhouse_paths() {
    chdb_dir=$cache_dir/clickhouse-$chdb_version
    launcher_source=$infra_dir/clickhouse/launcher.c
    launcher=$cache_dir/clickhouse-launcher-$(sha256sum "$launcher_source" | cut -c 1-12)
    clickhouse_dir=$stack_dir/clickhouse
    clickhouse_pid_file=$stack_dir/clickhouse.pid
    clickhouse_log=$clickhouse_dir/log/clickhouse.log
    clickhouse_console=$clickhouse_dir/log/console.log
}

clickhouse_is_set_up() {
    clickhouse_paths
    [ -f "$chdb_dir/libchdb.so" ] && [ -x "$launcher" ]
}

# Adds what setting up takes to `requirements`.
clickhouse_requirements() {
    [ -f "$chdb_dir/libchdb.so" ] || requirements+=(npm=npm tar=tar)
    [ -x "$launcher" ] || requirements+=("cc=gcc,libc6-dev")
}

setup_clickhouse() {
    if [ ! -f "$chdb_dir/libchdb.so" ]; then
        [ "$(uname -m)" = x86_64 ] || die "the pinned ClickHouse is for x86_64 with glibc, this machine is $(uname -m)" \
            "use infra/compose.yaml with Docker"
        require_disk_space 900000000
        download_chdb
    fi
    if [ ! -x "$launcher" ]; then
        say "compiling the ClickHouse launcher"
        rm -f "$cache_dir"/clickhouse-launcher-*.new
        cc -std=c11 -O2 -Wall -Wextra -D_GNU_SOURCE -o "$launcher.new" "$launcher_source" -ldl -lpthread ||
            die "cannot compile $launcher_source" "a C compiler with its headers is needed: apt-get install gcc libc6-dev"
        mv "$launcher.new" "$launcher"
    fi
}

# Downloads beside its final place, verifies, and only then renames: what is in place is whole.
download_chdb() {
    local part=$chdb_dir.part archive
    discard_half_finished "$part" ClickHouse
    mkdir -p "$part/npm" "$cache_dir/log"
    say "fetching ClickHouse ($chdb_package $chdb_version, $((chdb_bytes / 1000000)) MB) from npm"
    # The npm cache goes away with the rest: the package need not be on disk twice.
    if ! (cd "$part" && with_progress ClickHouse "$chdb_bytes" "$part" "$cache_dir/log/npm.log" \
        npm pack "$chdb_package@$chdb_version" --pack-destination "$part" --cache "$part/npm"); then
        die "cannot fetch $chdb_package $chdb_version from npm" "is the npm registry reachable? then just run the command again"
    fi
    archive=$(find "$part" -maxdepth 1 -name '*.tgz')
    verify_sha256 "$archive" "$chdb_sha256" "$chdb_package $chdb_version"
    say "unpacking ClickHouse"
    mkdir "$part/tree"
    tar -xzf "$archive" -C "$part/tree" --strip-components=1 --no-same-owner package/libchdb.so package/package.json ||
        die "cannot unpack ClickHouse" "is the disk full? $(df -h --output=avail "$cache_dir" | tail -n 1) are free at $cache_dir"
    mv "$part/tree" "$chdb_dir"
    rm -rf "$part"
}

# Dies when a stranger has one of the ports that starting would need.
check_clickhouse_ports() {
    clickhouse_paths
    discard_stale_pid_file "$clickhouse_pid_file" ClickHouse
    running_pid "$clickhouse_pid_file" >/dev/null || require_free_ports ClickHouse "${clickhouse_port_names[@]}"
}

start_clickhouse() {
    if running_pid "$clickhouse_pid_file" >/dev/null; then return 0; fi
    mkdir -p "$clickhouse_dir"/{data,tmp,log}
    start_process "$clickhouse_pid_file" "$clickhouse_console" env -i PATH="$PATH" LANG=C.UTF-8 TZ=UTC \
        STACK_CLICKHOUSE_HTTP_PORT="$FORECASTLE_CLICKHOUSE_HTTP_PORT" \
        STACK_CLICKHOUSE_TCP_PORT="$FORECASTLE_CLICKHOUSE_TCP_PORT" \
        STACK_CLICKHOUSE_DATA_DIR="$clickhouse_dir/data/" \
        STACK_CLICKHOUSE_TMP_DIR="$clickhouse_dir/tmp/" \
        STACK_CLICKHOUSE_USERS_FILE="$infra_dir/clickhouse/users.xml" \
        STACK_CLICKHOUSE_LOG_FILE="$clickhouse_log" \
        STACK_CLICKHOUSE_ERROR_LOG_FILE="$clickhouse_dir/log/errors.log" \
        STACK_CLICKHOUSE_PASSWORD_SHA256="$(printf '%s' "$clickhouse_password" | sha256sum | cut -d' ' -f1)" \
        "$launcher" "$chdb_dir/libchdb.so" "$infra_dir/clickhouse/config.xml" --log-level=information
}

# Ready: answers a query, and has the database that Forecastle's tables go to.
await_clickhouse() {
    if ! wait_until_ready ClickHouse "$clickhouse_pid_file" 60 "$clickhouse_console" clickhouse_has_database; then
        show_log_tail "$clickhouse_console"
        show_log_tail "$clickhouse_dir/log/errors.log" 5
        [ -z "${startup_query_error-}" ] || say "  its answer was: $startup_query_error"
        die "ClickHouse did not start" "more: infra/stack logs clickhouse" \
            "start again from nothing (deletes the stack's data): infra/stack reset"
    fi
}

clickhouse_has_database() {
    startup_query_error=$(clickhouse_query "CREATE DATABASE IF NOT EXISTS forecastle")
}

clickhouse_version() { clickhouse_query "SELECT version()" 2>/dev/null; }

stop_clickhouse() {
    clickhouse_paths
    end_process ClickHouse "$clickhouse_pid_file" TERM 30
}

kill_clickhouse() {
    clickhouse_paths
    end_process ClickHouse "$clickhouse_pid_file" KILL 10
}
