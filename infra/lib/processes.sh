# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with the other files
# Processes that the stack started: found again by pid and start time, and ended only by pid.
#
# A pid file holds "PID START-TIME". The kernel gives a pid to a new process sooner or later, but never with the
# same start time, so a stale file is recognised and the stranger left alone.

process_start_time() { # PID
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    stat=${stat##*) }
    # shellcheck disable=SC2086 # the fields are wanted as words
    set -- $stat
    [ "$1" != Z ] || return 1 # a zombie has ended; nobody has collected it yet
    printf '%s\n' "${20}"
}

# Prints the pid if the process that the file names still runs.
running_pid() { # PID-FILE
    local pid start
    { read -r pid start <"$1"; } 2>/dev/null || return 1
    [ -n "$start" ] && [ "$(process_start_time "$pid")" = "$start" ] || return 1
    printf '%s\n' "$pid"
}

discard_stale_pid_file() { # PID-FILE NAME
    local pid
    [ -e "$1" ] && ! running_pid "$1" >/dev/null || return 0
    read -r pid _ <"$1" || true
    if [ -n "${pid-}" ] && process_start_time "$pid" >/dev/null; then
        say "$2 has ended without the stack; its pid $pid now belongs to another process, which is left alone"
    else
        say "$2 has ended without the stack (a crash, a kill or a restart of the machine); its data are kept"
    fi
    rm -f "$1"
}

# Starts a command as the leader of its own session, without any of our descriptors, and records its pid.
# The command must exec its way to the server, so that the pid stays the server's.
start_process() { # PID-FILE LOG COMMAND...
    local pid_file=$1 log=$2 descriptor
    shift 2
    (
        for descriptor in "/proc/$BASHPID/fd/"*; do
            descriptor=${descriptor##*/}
            if [ "$descriptor" -gt 2 ]; then eval "exec $descriptor>&-"; fi
        done
        exec setsid "$@"
    ) >"$log" 2>&1 </dev/null &
    local pid=$! start
    disown "$pid"
    start=$(process_start_time "$pid") || true
    printf '%s %s\n' "$pid" "${start:-0}" >"$pid_file"
}

# Prints "PID START-TIME" of a process and of all that it started, however deep. Erlang's helpers are in sessions of
# their own, so a process group would miss them.
process_tree() { # PID
    local stat pid parent fields start found=" $1 " again=1
    local -A parents=()
    for stat in /proc/[0-9]*/stat; do
        { read -r fields <"$stat"; } 2>/dev/null || continue
        pid=${fields%% *}
        fields=${fields##*) }
        parent=${fields#* }
        parents[$pid]=${parent%% *}
    done
    while [ -n "$again" ]; do
        again=""
        for pid in "${!parents[@]}"; do
            if [[ $found = *" ${parents[$pid]} "* && $found != *" $pid "* ]]; then found+="$pid " again=1; fi
        done
    done
    for pid in $found; do
        if start=$(process_start_time "$pid"); then printf '%s %s\n' "$pid" "$start"; fi
    done
}

# Of "PID START-TIME" lines on stdin, those that still run.
still_running() {
    local pid start
    while read -r pid start; do
        if [ "$(process_start_time "$pid")" = "$start" ]; then printf '%s %s\n' "$pid" "$start"; fi
    done
}

# Ends the process and what it started, in order when GRACE seconds allow it, and waits until all are gone.
end_process() { # NAME PID-FILE SIGNAL GRACE-SECONDS
    local name=$1 pid_file=$2 signal=$3 grace=$4 pid deadline tree left
    if ! pid=$(running_pid "$pid_file"); then
        discard_stale_pid_file "$pid_file" "$name"
        return 0
    fi
    tree=$(process_tree "$pid")
    if ! kill "-$signal" "$pid" 2>/dev/null && running_pid "$pid_file" >/dev/null; then
        die "$name (pid $pid) belongs to $(stat -c %U "/proc/$pid"), and $(id -un) may not end it"
    fi
    deadline=$((SECONDS + grace))
    while left=$(still_running <<<"$tree") && [ -n "$left" ]; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            warn "$name did not end within $grace s; ending it and what it started with SIGKILL"
            while read -r pid _; do kill -KILL "$pid" 2>/dev/null || true; done <<<"$left"
            deadline=$((SECONDS + 10))
        fi
        sleep 0.1
    done
    rm -f "$pid_file"
}

# Waits until CHECK succeeds; fails at once when the process has ended, and after SECONDS.
wait_until_ready() { # NAME PID-FILE SECONDS LOG CHECK...
    local name=$1 pid_file=$2 limit=$3 log=$4 pid deadline
    shift 4
    deadline=$((SECONDS + limit))
    until "$@"; do
        if ! pid=$(running_pid "$pid_file"); then
            say "error: $name ended while starting"
            return 1
        fi
        if [ "$SECONDS" -ge "$deadline" ]; then
            say "error: $name (pid $pid) runs but is not ready after $limit s"
            return 1
        fi
        sleep 0.1
    done
}
