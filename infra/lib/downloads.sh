# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with the other files
# The download cache, shared by all checkouts of a user. Everything in it is complete: it is prepared beside its
# final place, checked, and renamed.

lock_cache() {
    mkdir -p "$cache_dir" || die "cannot create $cache_dir" "choose another directory with FORECASTLE_CACHE_DIR"
    [ -w "$cache_dir" ] || die "$cache_dir cannot be written by $(id -un)" \
        "choose another directory with FORECASTLE_CACHE_DIR"
    lock_directory "$cache_dir" 8
}

unlock_cache() { exec 8>&-; }

discard_half_finished() { # PATH NAME
    if [ -e "$1" ]; then
        say "a half-finished download of $2 is discarded: $1"
        rm -rf "$1"
    fi
}

verify_sha256() { # FILE SHA256 NAME
    local found
    found=$(sha256sum "$1" | cut -d' ' -f1)
    [ "$found" = "$2" ] || die "the download of $3 is not what was expected" "SHA-256 expected: $2" \
        "SHA-256 found:    $found" "try again; if it stays so, do not use it: the pinned version was replaced"
}

require_disk_space() { # BYTES
    local free
    free=$(df --output=avail -B1 "$cache_dir" | tail -n 1)
    [ "$free" -ge "$1" ] || die "$cache_dir has $((free / 1000000)) MB free, $(($1 / 1000000)) MB are needed" \
        "free some, or choose another directory with FORECASTLE_CACHE_DIR"
}

# .deps/NAME in the checkout leads to what this checkout uses of the cache.
link_dependency() { # NAME TARGET
    local link=$checkout_dir/.deps/$1
    if [ "$(readlink "$link" 2>/dev/null)" = "$2" ]; then return 0; fi
    if ! { mkdir -p "$checkout_dir/.deps" && ln -sfn "$2" "$link"; } 2>/dev/null; then
        warn "cannot link $link to $2"
    fi
}
