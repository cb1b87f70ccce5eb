# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with the other files
# RabbitMQ 4.3 of Debian sid, in a folder of its own that debootstrap fills. It needs root: to create the folder, and
# to enter it (chroot). The mounts it needs live in a mount namespace that ends with each process: nothing is ever
# mounted where the machine, or an rm -rf of the cache, could meet it.

readonly sid_version_wanted=4.3.5 # older ones can lose quorum queues on recovery
readonly sid_bytes=350000000
readonly sid_mount_point=/srv/stack

sid_root() { printf '%s/rabbitmq-4\n' "$cache_dir"; }

require_root_for_sid() {
    [ "$(id -u)" = 0 ] || die "RabbitMQ 4 runs from a Debian sid in a folder, which needs root (debootstrap, chroot)" \
        "as root:        sudo infra/stack $main_command --rabbitmq 4" \
        "with Docker:    docker compose -f infra/compose.yaml up -d --wait   (see infra/README.md)" \
        "without either: infra/stack $main_command   (RabbitMQ of the distribution)"
    unshare --mount true 2>/dev/null || die "RabbitMQ 4 runs in a mount namespace, which this root may not create" \
        "in a container, that takes the capability SYS_ADMIN; or use infra/compose.yaml with Docker"
}

setup_sid_rabbitmq() {
    if [ -f "$(sid_root)/version" ]; then return 0; fi
    require_root_for_sid
    require_disk_space 1200000000
    download_sid_rabbitmq
}

download_sid_rabbitmq() {
    local part mirror version
    part=$(sid_root).part
    discard_half_finished "$part" "RabbitMQ 4"
    mkdir -p "$part" "$cache_dir/log"
    mirror=$(debian_mirror)
    say "fetching RabbitMQ 4 with a Debian sid around it (about $((sid_bytes / 1000000)) MB on disk, 1 to 3 minutes)"
    with_progress "RabbitMQ 4" "$sid_bytes" "$part" "$cache_dir/log/debootstrap.log" \
        unshare --mount --propagation private -- \
        debootstrap --variant=minbase --include=rabbitmq-server sid "$part" "$mirror" || {
        say "  and the folder's own log:"
        show_log_tail "$part/debootstrap/debootstrap.log"
        die "debootstrap of Debian sid failed" "sid changes daily and is sometimes inconsistent for hours: try again later," \
            "or use infra/compose.yaml with Docker"
    }
    # shellcheck disable=SC2016 # dpkg-query expands it
    version=$(chroot "$part" dpkg-query -W -f '${Version}' rabbitmq-server) || die "sid has no rabbitmq-server"
    if dpkg --compare-versions "$version" lt "$sid_version_wanted"; then
        warn "the mirror's sid has RabbitMQ $version; Forecastle wants $sid_version_wanted or later (a recovery fault in quorum queues)"
    fi
    printf '127.0.0.1 localhost\n' >"$part/etc/hosts"
    mkdir -p "$part$sid_mount_point"
    rm -rf "$part"/var/cache/apt/archives/*.deb "$part"/var/lib/apt/lists/*
    printf '%s\n' "${version%%[-+]*}" >"$part/version"
    rm -rf "$(sid_root)"
    mv "$part" "$(sid_root)"
}

sid_command() { # VARIABLE... -- PROGRAM ARGUMENT...
    local root environment=() program
    root=$(sid_root)
    require_root_for_sid
    while [ "$1" != -- ]; do environment+=("$1") && shift; done
    case $2 in
        epmd) program=/usr/bin/epmd ;;
        *) program=$(cd "$root" && printf '/%s' usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/"$2") ;;
    esac
    shift 2
    # shellcheck disable=SC2016 # the inner shell expands it
    command=(unshare --mount --propagation private -- /bin/sh -euc '
        root=$1 directory=$2 mount_point=$3
        shift 3
        mount --rbind /proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount --bind "$directory" "$root$mount_point"
        exec chroot "$root" "$@"
    ' sh "$root" "$rabbitmq_dir" "$sid_mount_point"
        /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${environment[@]}" "$program" "$@")
}
