# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with the other files
# What the stack says. Progress and problems go to stderr, so that stdout holds only what was asked for.

say() { printf '%s\n' "$*" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }

# die MESSAGE [LINE...]: the further lines say what to do.
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    local line
    for line in "$@"; do printf '       %s\n' "$line" >&2; done
    exit 1
}

# The last lines of a log, indented, for an error message.
show_log_tail() { # FILE [LINES]
    if [ -s "$1" ]; then
        say "  last lines of $1:"
        tail -n "${2:-15}" "$1" | sed 's/^/    | /' >&2
    fi
}

# Runs a command while showing how many megabytes have arrived below a path: once a second on a terminal,
# every 15 seconds elsewhere. The command's output goes to LOG, whose end is shown when it fails.
with_progress() { # LABEL EXPECTED-BYTES WATCHED-PATH LOG COMMAND...
    local label=$1 expected=$2 watched=$3 log=$4 step=15 started=$SECONDS next=15
    shift 4
    [ ! -t 2 ] || step=1 next=1
    "$@" >"$log" 2>&1 &
    local child=$! arrived
    trap 'kill "$child" 2>/dev/null; trap - INT TERM; exit 130' INT TERM
    while kill -0 "$child" 2>/dev/null; do
        sleep 0.2
        if [ $((SECONDS - started)) -ge "$next" ]; then
            next=$((next + step))
            arrived=$(du -sb "$watched" 2>/dev/null | cut -f1) || true
            show_progress "$label" "${arrived:-0}" "$expected"
        fi
    done
    [ ! -t 2 ] || printf '\r\033[K' >&2
    trap - INT TERM
    if ! wait "$child"; then
        show_log_tail "$log"
        return 1
    fi
}

show_progress() { # LABEL BYTES EXPECTED-BYTES
    local line
    line=$(printf '  %s: %d of about %d MB' "$1" $(($2 / 1000000)) $(($3 / 1000000)))
    if [ -t 2 ]; then printf '\r\033[K%s' "$line" >&2; else say "$line"; fi
}
