# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with the other files
# HTTP to ClickHouse on 127.0.0.1, without curl.

# Prints the body; fails when nobody answers, or when the status is not 200 (the body then tells why).
clickhouse_query() { # QUERY
    local answer
    answer=$(exchange_http "$FORECASTLE_CLICKHOUSE_HTTP_PORT" "$1") || return 1
    printf '%s\n' "${answer#*$'\n\r\n'}"
    [[ $answer =~ ^HTTP/1\.[01]\ 200 ]]
}

exchange_http() ( # PORT BODY
    { exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || exit 1
    printf 'POST / HTTP/1.0\r\nHost: 127.0.0.1\r\nX-ClickHouse-User: forecastle\r\nX-ClickHouse-Key: %s\r\nContent-Length: %d\r\n\r\n%s' \
        "$clickhouse_password" "$(printf '%s' "$2" | wc -c)" "$2" >&3 2>/dev/null || exit 1
    timeout 5 cat <&3
)
