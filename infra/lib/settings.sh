# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with the other files
# Where a stack lives and which ports it uses: environment first, then what a running stack remembers,
# then defaults. Everything that could collide with another stack derives from these.

# Names that a stack remembers while it is up, so that later commands need only FORECASTLE_STACK_DIR.
remembered_names=(
    FORECASTLE_RABBITMQ_SERIES
    FORECASTLE_RABBITMQ_PORT
    FORECASTLE_RABBITMQ_MANAGEMENT_PORT
    FORECASTLE_RABBITMQ_PROMETHEUS_PORT
    FORECASTLE_RABBITMQ_DIST_PORT
    FORECASTLE_EPMD_PORT
    FORECASTLE_CLICKHOUSE_HTTP_PORT
    FORECASTLE_CLICKHOUSE_TCP_PORT
)
rabbitmq_port_names=(
    FORECASTLE_RABBITMQ_PORT
    FORECASTLE_RABBITMQ_MANAGEMENT_PORT
    FORECASTLE_RABBITMQ_PROMETHEUS_PORT
    FORECASTLE_RABBITMQ_DIST_PORT
    FORECASTLE_EPMD_PORT
)
clickhouse_port_names=(FORECASTLE_CLICKHOUSE_HTTP_PORT FORECASTLE_CLICKHOUSE_TCP_PORT)

readonly stack_marker=.forecastle-stack

declare -A given=() remembered=()
conflicting_setting=""

# The environment as the caller gave it, before defaults fill the same variables.
capture_environment() {
    local name
    for name in "${remembered_names[@]}"; do given[$name]=${!name-}; done
}

load_settings() {
    stack_dir=$(realpath -ms -- "${FORECASTLE_STACK_DIR:-$checkout_dir/.stack}")
    cache_dir=$(realpath -ms -- "${FORECASTLE_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/forecastle}")
    settings_file=$stack_dir/settings
    credentials_file=$stack_dir/credentials
    refuse_blanks FORECASTLE_STACK_DIR "$stack_dir"
    refuse_blanks FORECASTLE_CACHE_DIR "$cache_dir"

    recall_settings
    default_setting FORECASTLE_RABBITMQ_SERIES 3
    default_setting FORECASTLE_RABBITMQ_PORT 5682
    require_port FORECASTLE_RABBITMQ_PORT
    default_setting FORECASTLE_RABBITMQ_MANAGEMENT_PORT $((FORECASTLE_RABBITMQ_PORT + 10000))
    default_setting FORECASTLE_RABBITMQ_PROMETHEUS_PORT $((FORECASTLE_RABBITMQ_PORT + 10010))
    default_setting FORECASTLE_RABBITMQ_DIST_PORT $((FORECASTLE_RABBITMQ_PORT + 20000))
    default_setting FORECASTLE_EPMD_PORT $((FORECASTLE_RABBITMQ_PORT - 1000))
    default_setting FORECASTLE_CLICKHOUSE_HTTP_PORT 18123
    default_setting FORECASTLE_CLICKHOUSE_TCP_PORT 19000

    case $FORECASTLE_RABBITMQ_SERIES in
        3 | 4) ;;
        *) die "--rabbitmq takes 3 or 4, not '$FORECASTLE_RABBITMQ_SERIES'" ;;
    esac
    local name seen=" "
    for name in "${rabbitmq_port_names[@]}" "${clickhouse_port_names[@]}"; do
        require_port "$name"
        [[ $seen != *" ${!name} "* ]] || die "port ${!name} is given to two listeners, $name is the second" \
            "set $name to another port"
        seen+="${!name} "
    done
}

default_setting() { # NAME VALUE
    [ -n "${!1-}" ] || printf -v "$1" '%s' "$2"
}

# RabbitMQ's own scripts split some paths at blanks.
refuse_blanks() { # NAME VALUE
    [[ $2 != *[[:space:]]* ]] || die "the directory '$2' has a blank in its name, which RabbitMQ's scripts cannot take" \
        "set $1 to a directory without one"
}

require_port() { # NAME
    if [[ ${!1} =~ ^[1-9][0-9]{0,4}$ ]] && [ "${!1}" -le 65535 ]; then return 0; fi
    die "$1 is '${!1}', which is not a port (1 to 65535)" \
        "The other RabbitMQ ports follow FORECASTLE_RABBITMQ_PORT unless they are set too: see infra/stack --help"
}

# A stack that is up wins over a different environment: `up` says so, the other commands just reach it.
recall_settings() {
    local name value
    remembered=() conflicting_setting=""
    if [ -f "$settings_file" ]; then
        while IFS='=' read -r name value; do remembered[$name]=$value; done <"$settings_file"
    fi
    for name in "${remembered_names[@]}"; do
        value=${remembered[$name]-}
        if [ -n "$value" ] && [ -n "${given[$name]}" ] && [ "${given[$name]}" != "$value" ]; then
            conflicting_setting="$name is $value, not ${given[$name]}"
        fi
        printf -v "$name" '%s' "${value:-${given[$name]}}"
    done
}

remember_settings() {
    local name
    for name in "${remembered_names[@]}"; do
        printf '%s=%s\n' "$name" "${!name}"
    done >"$settings_file.new"
    mv "$settings_file.new" "$settings_file"
}

forget_settings() { rm -f "$settings_file"; }

# The directory is marked, so that `reset` never deletes what is not a stack.
ensure_stack_dir() {
    # In this order: another `up` may make it a stack meanwhile, and the mark is the first file that it makes.
    if [ -n "$(ls -A "$stack_dir" 2>/dev/null)" ] && [ ! -e "$stack_dir/$stack_marker" ]; then
        die "$stack_dir is not empty and not a stack" "choose another directory with FORECASTLE_STACK_DIR"
    fi
    mkdir -p "$stack_dir" || die "cannot create $stack_dir" "choose another directory with FORECASTLE_STACK_DIR"
    [ -w "$stack_dir" ] || die "$stack_dir cannot be written by $(id -un)" \
        "it belongs to $(stat -c %U "$stack_dir"); choose another directory with FORECASTLE_STACK_DIR"
    chmod 700 "$stack_dir"
    : >>"$stack_dir/$stack_marker"
}

# One change at a time for each directory. The servers are started without this descriptor.
lock_directory() { # DIRECTORY DESCRIPTOR
    local descriptor=$2
    eval "exec $descriptor>>\"\$1/lock\""
    if ! flock -n "$descriptor"; then
        say "another infra/stack is at work on $1, waiting for it"
        flock -w 900 "$descriptor" || die "another infra/stack still holds $1/lock after 15 minutes"
    fi
}

lock_stack() {
    ensure_stack_dir
    lock_directory "$stack_dir" 9
    # Whoever held the lock may have brought the stack up or down meanwhile.
    load_settings
}

# Random passwords, made once and kept until `reset`.
ensure_credentials() {
    if [ ! -s "$credentials_file" ]; then
        (
            umask 077
            printf 'rabbitmq=%s\nclickhouse=%s\n' "$(random_hex 16)" "$(random_hex 16)" >"$credentials_file.new"
        )
        mv "$credentials_file.new" "$credentials_file"
    fi
    read_credentials
}

read_credentials() {
    [ -s "$credentials_file" ] || die "there is no stack in $stack_dir yet" "start it with: infra/stack up"
    [ -r "$credentials_file" ] || die "$credentials_file cannot be read by $(id -un)" \
        "the stack belongs to $(stat -c %U "$credentials_file"); use it as that user"
    rabbitmq_password=$(sed -n 's/^rabbitmq=//p' "$credentials_file")
    clickhouse_password=$(sed -n 's/^clickhouse=//p' "$credentials_file")
}

random_hex() { # BYTES
    od -An -N"$1" -v -tx1 /dev/urandom | tr -d ' \n'
}
