# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with the other files
# Who listens on a port, from /proc alone, so that no tool need be installed.

# Prints "INODE UID" of a socket that listens on the port, whatever its address.
listening_socket() { # PORT
    local hex
    printf -v hex '%04X' "$1"
    # shellcheck disable=SC2046 # words are wanted
    awk -v port=":$hex" '
        $4 == "0A" && substr($2, length($2) - 4) == port { print $10, $8; found = 1; exit }
        END { exit !found }' $(ls /proc/net/tcp /proc/net/tcp6 2>/dev/null)
}

# Describes who listens on the port; fails when nobody does.
port_holder() { # PORT
    local socket inode uid link pid
    socket=$(listening_socket "$1") || return 1
    inode=${socket% *} uid=${socket#* }
    for link in /proc/[0-9]*/fd/*; do
        if [ "$(readlink "$link" 2>/dev/null)" = "socket:[$inode]" ]; then
            pid=${link#/proc/} pid=${pid%%/*}
            printf 'pid %s (%s)\n' "$pid" "$(tr '\0' ' ' <"/proc/$pid/cmdline" | cut -c 1-80 | sed 's/ *$//')"
            return 0
        fi
    done
    printf 'a process of user %s\n' "$(id -nu "$uid" 2>/dev/null || echo "$uid")"
}

# A port to suggest: this one's first free neighbour by hundreds.
free_port_near() { # PORT
    local port=$1
    while port=$((port + 100)); do
        [ "$port" -le 65535 ] || port=$((port - 60000))
        listening_socket "$port" >/dev/null || break
    done
    printf '%s\n' "$port"
}

# Dies when any of the named settings is a port that somebody listens on.
require_free_ports() { # SERVER NAME...
    local server=$1 name holder taken=() advice=""
    shift
    for name in "$@"; do
        if holder=$(port_holder "${!name}"); then
            taken+=("port ${!name} ($name) is taken by $holder")
            # The other ports of RabbitMQ follow its first, so that one is enough to change.
            [[ $server = RabbitMQ && -n $advice ]] || advice+="$name=$(free_port_near "${!name}") "
        fi
    done
    [ ${#taken[@]} -gt 0 ] || return 0
    die "$server cannot start: ${taken[0]}" "${taken[@]:1}" \
        "Stop that process, or choose other ports, for example:" "  ${advice}infra/stack up" \
        "If it is another stack: FORECASTLE_STACK_DIR=its/directory infra/stack down"
}
