# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with the other files
# RabbitMQ of the machine's own distribution (3.10.8 on Debian 12), unpacked and not installed: that needs no root,
# brings no service and no system user, and cannot touch a node that is already there.

readonly unpacked_version_tested=3.10.8
readonly unpacked_bytes=34000000
# Shared libraries of Erlang that even small Debian systems have; installed when one is missing after all.
readonly erlang_libraries=(libssl3 libstdc++6 libsystemd0 libtinfo6 zlib1g)

unpacked_tree() { printf '%s/rabbitmq-3\n' "$cache_dir"; }

setup_unpacked_rabbitmq() {
    if [ -f "$(unpacked_tree)/version" ]; then return 0; fi
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        die "RabbitMQ is taken from Debian's packages, and this machine has no apt-get" "use infra/compose.yaml with Docker"
    fi
    require_disk_space 200000000
    download_unpacked_rabbitmq
}

download_unpacked_rabbitmq() {
    local part version deb apt_options packages
    part=$(unpacked_tree).part
    discard_half_finished "$part" RabbitMQ
    mkdir -p "$part"/{debs,tree/bin} "$cache_dir/log"
    say "fetching RabbitMQ and Erlang (Debian packages, $((unpacked_bytes / 1000000)) MB)"
    # First with the machine's own package lists; when they are missing or outdated, with fresh private ones.
    if ! fetch_debs "$part/debs" 2>/dev/null; then
        say "  the machine's package lists are missing or outdated, fetching private ones"
        mapfile -t apt_options < <(private_apt_options)
        apt-get "${apt_options[@]}" update >"$cache_dir/log/apt-update.log" 2>&1 || true
        fetch_debs "$part/debs" "${apt_options[@]}" ||
            die "cannot fetch RabbitMQ's packages" "does this work: apt-get update && apt-get download rabbitmq-server ?"
    fi
    for deb in "$part/debs"/*.deb; do dpkg-deb --extract "$deb" "$part/tree"; done
    version=$(dpkg-deb --field "$part/debs"/rabbitmq-server_*.deb Version)
    write_erl "$part/tree"
    check_erlang_libraries "$part/tree"
    case ${version%%[-+]*} in
        "$unpacked_version_tested") ;;
        *) warn "this distribution has RabbitMQ $version; Forecastle is tested with $unpacked_version_tested and 4.3" ;;
    esac
    printf '%s\n' "${version%%[-+]*}" >"$part/tree/version"
    rm -rf "$(unpacked_tree)"
    mv "$part/tree" "$(unpacked_tree)"
    rm -rf "$part" "$cache_dir/apt"
}

# Downloads rabbitmq-server and the Erlang packages it needs; apt checks their signatures.
fetch_debs() { # DIRECTORY APT-OPTION...
    local directory=$1 packages
    shift
    packages=$(apt-cache "$@" depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
        --no-enhances rabbitmq-server | grep '^erlang-' | sort -u)
    [ -n "$packages" ] || return 1
    # shellcheck disable=SC2086 # words are wanted
    (cd "$directory" && with_progress RabbitMQ "$unpacked_bytes" "$directory" "$cache_dir/log/apt-download.log" \
        apt-get -o APT::Sandbox::User="$(id -un)" "$@" download rabbitmq-server $packages)
}

# Debian's own `erl` looks for Erlang in /usr/lib; this one looks beside itself.
write_erl() { # TREE
    cat >"$1/bin/erl" <<'EOF'
#!/bin/sh
tree=$(dirname "$(dirname "$(readlink -f "$0")")")
ROOTDIR=$tree/usr/lib/erlang
BINDIR=$(echo "$ROOTDIR"/erts-*/bin)
EMU=beam
PROGNAME=erl
export ROOTDIR BINDIR EMU PROGNAME
exec "$BINDIR/erlexec" "$@"
EOF
    chmod 755 "$1/bin/erl"
    ln -s "$(cd "$1/bin" && echo ../usr/lib/erlang/erts-*/bin/epmd)" "$1/bin/epmd"
}

check_erlang_libraries() { # TREE
    [ -n "$(missing_erlang_libraries "$1")" ] || return 0
    install_packages "Erlang needs shared libraries" "${erlang_libraries[@]}"
    [ -z "$(missing_erlang_libraries "$1")" ] || die "Erlang still lacks shared libraries" "$(missing_erlang_libraries "$1")"
}

missing_erlang_libraries() { # TREE
    ldd "$1"/usr/lib/erlang/erts-*/bin/{beam.smp,erlexec,epmd} "$1"/usr/lib/erlang/lib/crypto-*/priv/lib/*.so |
        sed -n '/not found/p' | sort -u
}

unpacked_command() { # VARIABLE... -- PROGRAM ARGUMENT...
    local tree environment=() program
    tree=$(unpacked_tree)
    while [ "$1" != -- ]; do environment+=("$1") && shift; done
    case $2 in
        epmd) program=$tree/bin/epmd ;;
        *) program=$(echo "$tree"/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/"$2") ;;
    esac
    shift 2
    command=(env -i PATH="$tree/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" "${environment[@]}" "$program" "$@")
}
