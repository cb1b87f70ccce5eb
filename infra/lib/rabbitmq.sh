# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with the other files
# RabbitMQ as a node of its own: own epmd, ports, cookie, data and logs, and nothing of the system's node.
#
# Series 3 is the distribution's package, unpacked into the cache and run from there (rabbitmq_unpacked.sh).
# Series 4 is Debian sid's, run in a chroot (rabbitmq_sid.sh). Each series keeps its own data.

# The same in every stack, so that data survive a change of ports; each stack has an epmd of its own to keep them apart.
readonly rabbitmq_node=forecastle@localhost

rabbitmq_paths() {
    rabbitmq_dir=$stack_dir/rabbitmq-$FORECASTLE_RABBITMQ_SERIES
    rabbitmq_pid_file=$stack_dir/rabbitmq.pid
    epmd_pid_file=$stack_dir/epmd.pid
    rabbitmq_log=$rabbitmq_dir/log/rabbitmq.log
    rabbitmq_console=$rabbitmq_dir/log/console.log
    epmd_console=$rabbitmq_dir/log/epmd.log
    # The directory as the server sees it: in the chroot it is mounted elsewhere.
    case $FORECASTLE_RABBITMQ_SERIES in
        3) rabbitmq_view=$rabbitmq_dir ;;
        4) rabbitmq_view=$sid_mount_point ;;
    esac
}

# What setup leaves behind, with a file "version" in it.
rabbitmq_tree() {
    case $FORECASTLE_RABBITMQ_SERIES in
        3) unpacked_tree ;;
        4) sid_root ;;
    esac
}

rabbitmq_is_set_up() { [ -f "$(rabbitmq_tree)/version" ]; }

# Adds what setting up takes to `requirements`.
rabbitmq_requirements() {
    case $FORECASTLE_RABBITMQ_SERIES in
        3) requirements+=(ldd=libc-bin) ;;
        4) require_root_for_sid && requirements+=(debootstrap=debootstrap) ;;
    esac
}

setup_rabbitmq() {
    case $FORECASTLE_RABBITMQ_SERIES in
        3) setup_unpacked_rabbitmq ;;
        4) setup_sid_rabbitmq ;;
    esac
}

# Sets `command` to what runs one of RabbitMQ's programs with exactly the node's environment. The pid of the
# command stays that of the program: everything on the way execs.
rabbitmq_command() { # PROGRAM ARGUMENT...
    local environment=(
        HOME="$rabbitmq_view/home"
        LANG=C.UTF-8
        RABBITMQ_NODENAME="$rabbitmq_node"
        RABBITMQ_DIST_PORT="$FORECASTLE_RABBITMQ_DIST_PORT"
        ERL_EPMD_PORT="$FORECASTLE_EPMD_PORT"
        ERL_EPMD_ADDRESS=127.0.0.1
        RABBITMQ_MNESIA_BASE="$rabbitmq_view/data"
        RABBITMQ_LOG_BASE="$rabbitmq_view/log"
        RABBITMQ_LOGS="$rabbitmq_view/log/rabbitmq.log"
        RABBITMQ_CONFIG_FILE="$rabbitmq_view/none"
        RABBITMQ_CONFIG_FILES="$rabbitmq_view/conf.d"
        RABBITMQ_ADVANCED_CONFIG_FILE="$rabbitmq_view/none.config"
        RABBITMQ_CONF_ENV_FILE=/dev/null
        RABBITMQ_ENABLED_PLUGINS_FILE="$rabbitmq_view/enabled_plugins"
        # The server's script then execs Erlang instead of watching over it; -noinput is what that leaves out.
        RABBITMQ_ALLOW_INPUT=1
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-noinput -kernel inet_dist_use_interface {127,0,0,1}"
        # The command-line tools need not be reachable themselves.
        RABBITMQ_CTL_ERL_ARGS="-dist_listen false"
    )
    case $FORECASTLE_RABBITMQ_SERIES in
        3) unpacked_command "${environment[@]}" -- "$@" ;;
        4) sid_command "${environment[@]}" -- "$@" ;;
    esac
}

# Dies when a stranger has one of the ports that starting would need; our own epmd may still be there.
check_rabbitmq_ports() {
    rabbitmq_paths
    discard_stale_pid_file "$rabbitmq_pid_file" RabbitMQ
    discard_stale_pid_file "$epmd_pid_file" epmd
    if running_pid "$rabbitmq_pid_file" >/dev/null; then return 0; fi
    local name names=()
    for name in "${rabbitmq_port_names[@]}"; do
        if [ "$name" != FORECASTLE_EPMD_PORT ] || ! running_pid "$epmd_pid_file" >/dev/null; then names+=("$name"); fi
    done
    require_free_ports RabbitMQ "${names[@]}"
}

start_rabbitmq() {
    local command
    if running_pid "$rabbitmq_pid_file" >/dev/null; then return 0; fi
    write_rabbitmq_configuration
    if ! running_pid "$epmd_pid_file" >/dev/null; then
        rabbitmq_command epmd -address 127.0.0.1 -port "$FORECASTLE_EPMD_PORT"
        start_process "$epmd_pid_file" "$epmd_console" "${command[@]}"
    fi
    wait_until_ready epmd "$epmd_pid_file" 30 "$epmd_console" listening_socket "$FORECASTLE_EPMD_PORT" >/dev/null || {
        show_log_tail "$epmd_console"
        die "epmd, which RabbitMQ needs, did not start"
    }
    rabbitmq_command rabbitmq-server
    start_process "$rabbitmq_pid_file" "$rabbitmq_console" "${command[@]}"
}

write_rabbitmq_configuration() {
    mkdir -p "$rabbitmq_dir"/{home,data,log,conf.d}
    if [ ! -s "$rabbitmq_dir/home/.erlang.cookie" ]; then
        (umask 077 && printf '%s' "$(random_hex 20)" >"$rabbitmq_dir/home/.erlang.cookie")
        chmod 400 "$rabbitmq_dir/home/.erlang.cookie"
    fi
    cp "$infra_dir/rabbitmq/enabled_plugins" "$rabbitmq_dir/enabled_plugins"
    cp "$infra_dir/rabbitmq/rabbitmq.conf" "$rabbitmq_dir/conf.d/10-forecastle.conf"
    cat >"$rabbitmq_dir/conf.d/20-stack.conf" <<EOF
# Written by infra/stack at every start; edit infra/rabbitmq/rabbitmq.conf instead.
listeners.tcp.local = 127.0.0.1:$FORECASTLE_RABBITMQ_PORT
management.tcp.ip = 127.0.0.1
management.tcp.port = $FORECASTLE_RABBITMQ_MANAGEMENT_PORT
prometheus.tcp.ip = 127.0.0.1
prometheus.tcp.port = $FORECASTLE_RABBITMQ_PROMETHEUS_PORT
load_definitions = $rabbitmq_view/definitions.json
log.console = false
log.file.level = info
log.file.rotation.size = 10485760
log.file.rotation.count = 3
EOF
    # Imported at every start, so the password always is that of the stack. With definitions there is no guest.
    (
        umask 077
        cat >"$rabbitmq_dir/definitions.json" <<EOF
{
  "users": [
    {
      "name": "forecastle",
      "password_hash": "$(rabbitmq_password_hash "$rabbitmq_password")",
      "hashing_algorithm": "rabbit_password_hashing_sha256",
      "tags": ["administrator"]
    }
  ],
  "vhosts": [{ "name": "/" }],
  "permissions": [{ "user": "forecastle", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*" }]
}
EOF
    )
}

# RabbitMQ's salted hash: base64(salt + sha256(salt + password)), with a salt of four bytes.
rabbitmq_password_hash() { # PASSWORD
    local salt digest
    salt=$(random_hex 4)
    digest=$({ bytes_of "$salt" && printf '%s' "$1"; } | sha256sum | cut -d' ' -f1)
    bytes_of "$salt$digest" | base64 -w0
}

# shellcheck disable=SC2059,SC2001 # the format is made of escapes only, which need sed
bytes_of() { printf "$(sed 's/../\\x&/g' <<<"$1")"; } # HEX

await_rabbitmq() {
    if ! wait_until_ready RabbitMQ "$rabbitmq_pid_file" 120 "$rabbitmq_console" rabbitmq_answers; then
        show_log_tail "$rabbitmq_console"
        show_log_tail "$rabbitmq_log" 25
        die "RabbitMQ did not start" "more: infra/stack logs rabbitmq" \
            "start again from nothing (deletes the stack's data): infra/stack reset"
    fi
}

rabbitmq_answers() { amqp_accepts "$FORECASTLE_RABBITMQ_PORT" forecastle "$rabbitmq_password"; }

stop_rabbitmq() {
    rabbitmq_paths
    end_process RabbitMQ "$rabbitmq_pid_file" TERM 60
}

kill_rabbitmq() {
    rabbitmq_paths
    end_process RabbitMQ "$rabbitmq_pid_file" KILL 10
}

stop_epmd() {
    rabbitmq_paths
    end_process epmd "$epmd_pid_file" TERM 5
}

# Runs a command-line tool of RabbitMQ against the node.
run_rabbitmq_tool() { # PROGRAM ARGUMENT...
    local command
    rabbitmq_paths
    [ -s "$rabbitmq_dir/home/.erlang.cookie" ] || die "there is no RabbitMQ in $stack_dir yet" "start it with: infra/stack up"
    [ -r "$rabbitmq_dir/home/.erlang.cookie" ] || die "the stack in $stack_dir belongs to another user: $(stat -c %U "$stack_dir")"
    rabbitmq_is_set_up || die "RabbitMQ is not set up" "run: infra/stack setup --rabbitmq $FORECASTLE_RABBITMQ_SERIES"
    rabbitmq_command "$@"
    exec "${command[@]}"
}
