# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with the other files
# A whole AMQP 0-9-1 handshake in bash: a port that accepts connections does not yet mean a broker that works.

# Succeeds when the broker accepts the user and opens the virtual host "/".
amqp_accepts() ( # PORT USER PASSWORD
    { exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null || exit 1
    printf 'AMQP\0\0\011\001' >&3
    expect_method 000a000a || exit 1                                            # connection.start
    plain="00$(hex_of "$2")00$(hex_of "$3")"
    send_method "000a000b00000000$(short_string PLAIN)$(printf '%08x' $((${#plain} / 2)))$plain$(short_string en_US)"
    expect_method 000a001e || exit 1                                            # connection.tune
    send_method 000a001f0001000200000000                                        # tune-ok: one channel, 128 KiB frames, no heartbeat
    send_method "000a0028$(short_string /)0000"                                 # connection.open
    expect_method 000a0029 || exit 1                                            # open-ok
    send_method "000a003200c8$(short_string ready)00000000"                     # connection.close
    expect_method 000a0033                                                      # close-ok
)

hex_of() { printf '%s' "$1" | od -An -v -tx1 | tr -d ' \n'; }
short_string() { printf '%02x%s' "${#1}" "$(hex_of "$1")"; }

write_hex() { # HEX
    # shellcheck disable=SC2059,SC2001 # the format is made of escapes only, which need sed
    printf "$(sed 's/../\\x&/g' <<<"$1")" >&3 2>/dev/null
}

read_hex() { timeout 5 head -c "$1" <&3 2>/dev/null | od -An -v -tx1 | tr -d ' \n'; }

send_method() { write_hex "010000$(printf '%08x' $((${#1} / 2)))${1}ce"; }

# Reads one frame of channel 0 and compares its class and method.
expect_method() { # CLASS-AND-METHOD
    local header payload
    header=$(read_hex 7)
    [ ${#header} = 14 ] && [ "${header:0:2}" = 01 ] || return 1
    payload=$(read_hex $((16#${header:6:8} + 1)))
    [ "${payload:0:8}" = "$1" ]
}
