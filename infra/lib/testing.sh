# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with the other files
# What infra/test-stack's tests are made of: stacks of their own, data to look for, steps that say what went wrong.

# --- the stacks under test ---------------------------------------------------------------------------------------

# Chooses a stack: its directory, and ports that nobody listens on.
declare -A base_port=()
use_stack() { # NAME
    local base port
    export FORECASTLE_STACK_DIR=$work/stack-$1
    if [ -z "${base_port[$1]-}" ]; then
        base=$((7000 + RANDOM % 2000))
        while base=$((base + 50)); do
            for port in "$base" $((base + 10000)) $((base + 10010)) $((base + 20000)) $((base - 1000)) $((base + 12000)) $((base + 13000)); do
                ! listening_socket "$port" >/dev/null || continue 2
            done
            break
        done
        base_port[$1]=$base
    fi
    export FORECASTLE_RABBITMQ_PORT=${base_port[$1]}
    export FORECASTLE_CLICKHOUSE_HTTP_PORT=$((base_port[$1] + 12000))
    export FORECASTLE_CLICKHOUSE_TCP_PORT=$((base_port[$1] + 13000))
}

sql() { "$stack" clickhouse-query "$1"; }

pid_in() { cut -d' ' -f1 "$FORECASTLE_STACK_DIR/$1.pid"; }

# One call of RabbitMQ's HTTP API; prints the answer with its headers.
management() ( # METHOD PATH [BODY]
    password=$(sed -n 's/^rabbitmq=//p' "$FORECASTLE_STACK_DIR/credentials")
    exec 3<>"/dev/tcp/127.0.0.1/$((FORECASTLE_RABBITMQ_PORT + 10000))" || exit 1
    printf '%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Basic %s\r\nContent-Length: %d\r\n\r\n%s' \
        "$1" "$2" "$(printf 'forecastle:%s' "$password" | base64 -w0)" "${#3}" "${3-}" >&3
    timeout 10 cat <&3
)

store_data() {
    sql "CREATE TABLE IF NOT EXISTS forecastle.survivors (id UInt64, version UInt64) ENGINE = ReplacingMergeTree(version) ORDER BY id" &&
        sql "INSERT INTO forecastle.survivors SELECT number, 1 FROM numbers(1000)" &&
        sql "INSERT INTO forecastle.survivors SELECT number, 2 FROM numbers(1000)" &&
        management PUT /api/queues/%2f/survivors '{"durable":true,"arguments":{"x-queue-type":"quorum"}}' | grep -qE '^HTTP/1.1 20[14]' &&
        management POST /api/exchanges/%2f/amq.default/publish \
            '{"properties":{"delivery_mode":2},"routing_key":"survivors","payload":"still here","payload_encoding":"string"}' |
        grep -q '"routed":true' &&
        # RabbitMQ (3.10.8 and 4.3.6 alike) has a new quorum queue's registration on disk up to a second later. Killed
        # before, it loses what the queue had confirmed; on 3.10 the queue then never has a leader again.
        sleep 2
}

rows_survived() { [ "$(sql "SELECT count(), min(version) FROM forecastle.survivors FINAL")" = $'1000\t2' ]; }

# A quorum queue elects a leader after a restart, which may take a moment.
message_survived() {
    local try
    for try in 1 2 3 4 5 6 7 8 9 10; do
        management POST /api/queues/%2f/survivors/get '{"count":1,"ackmode":"ack_requeue_true","encoding":"auto"}' |
            grep -q 'still here' && return 0
        sleep 0.5
    done
    return 1
}

nothing_runs() { # DIRECTORY PORT...
    local pid port directory=$1
    shift
    for pid in /proc/[0-9]*; do
        # Erlang's helpers and the servers have the stack's directory in their arguments or environment.
        if tr '\0' '\n' 2>/dev/null <"$pid/cmdline" | grep -qF "$directory/" ||
            tr '\0' '\n' 2>/dev/null <"$pid/environ" | grep -E '^(HOME|RABBITMQ|STACK_)' | grep -qF "$directory/"; then
            echo "still runs: ${pid#/proc/} $(tr '\0' ' ' <"$pid/cmdline")"
            return 1
        fi
    done
    for port in "$@"; do
        if port_holder "$port"; then return 1; fi
    done
    ! grep -F "$directory" /proc/self/mounts
}

stack_ports() {
    echo "$FORECASTLE_RABBITMQ_PORT" $((FORECASTLE_RABBITMQ_PORT + 10000)) $((FORECASTLE_RABBITMQ_PORT + 10010)) \
        $((FORECASTLE_RABBITMQ_PORT + 20000)) $((FORECASTLE_RABBITMQ_PORT - 1000)) \
        "$FORECASTLE_CLICKHOUSE_HTTP_PORT" "$FORECASTLE_CLICKHOUSE_TCP_PORT"
}

# --- saying what went wrong --------------------------------------------------------------------------------------

passed=0 failed=0

run_test() { # NAME
    local name=$1 started=$SECONDS pattern matches=""
    for pattern in "${wanted[@]}"; do [[ $name != *"$pattern"* ]] || matches=1; done
    if [ ${#wanted[@]} -gt 0 ] && [ -z "$matches" ]; then return 0; fi
    # In a subshell that ends at the first failing step. (Not as the condition of an if, where -e has no effect.)
    (
        set -eE
        trap 'echo "failed at line $LINENO: $BASH_COMMAND"' ERR
        "test_$name"
    ) >"$work/$name.log" 2>&1
    if [ $? = 0 ]; then
        passed=$((passed + 1))
        printf 'ok      %s (%d s)\n' "${name//_/ }" $((SECONDS - started))
    else
        failed=$((failed + 1))
        printf 'FAILED  %s (%d s)\n' "${name//_/ }" $((SECONDS - started))
        tail -n 30 "$work/$name.log" | sed 's/^/        | /'
    fi
}

# For steps that must fail: with a mere "!" they would not end the test.
refute() {
    if "$@"; then
        echo "succeeded: $*"
        return 1
    fi
}

# Runs a command that must fail and say so. What it said is in $said.
fails_saying() { # PATTERN COMMAND...
    local pattern=$1
    shift
    if said=$("$@" 2>&1); then
        echo "$* succeeded: $said"
        return 1
    fi
    grep -qE "$pattern" <<<"$said" || {
        echo "$* said: $said"
        return 1
    }
}

says() { # PATTERN COMMAND...
    local pattern=$1
    shift
    said=$("$@" 2>&1) || {
        echo "$* failed: $said"
        return 1
    }
    grep -qE "$pattern" <<<"$said" || {
        echo "$* said: $said"
        return 1
    }
}
