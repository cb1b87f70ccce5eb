#!/bin/bash
# The first process under user-mode-linux: infra/uml starts it. It gets ready what a command needs, runs it, leaves its
# exit status in the shared folder, and turns the machine off.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C.UTF-8

prepare() {
    set -e
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir /run/disk /run/shared
    mount -t hostfs -o "$UML_SHARED" shared /run/shared
    mount -t ext4 -o noatime /dev/ubda /run/disk
    chmod 1777 /run/disk
    mkdir -p /dev/shm /dev/pts
    mount -t tmpfs tmpfs /dev/shm
    mount -t devpts devpts /dev/pts
    if [ "$UML_CGROUPS" = 2 ]; then
        mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
    else
        mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
        for controller in memory cpu,cpuacct blkio pids freezer; do
            mkdir "/sys/fs/cgroup/$controller"
            mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"
        done
    fi
    stty -F /dev/ttyS0 raw -echo
}

# In a shell of its own, so that its first failure ends it and not the machine's first process.
if (prepare); then
    : >/run/shared/started
    # Through a pipe: nobody shall think that this is a terminal.
    env -i PATH="$PATH" LC_ALL="$LC_ALL" HOME=/run/disk TMPDIR=/run/disk bash /run/shared/command </dev/null 2>&1 |
        cat >/dev/ttyS0
    echo "${PIPESTATUS[0]}" >/run/shared/status
fi
sync
echo o >/proc/sysrq-trigger
sleep 60
