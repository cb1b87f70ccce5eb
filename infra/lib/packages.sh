# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared with the other files
# Debian packages: tools that must be installed, and packages that are only unpacked into the cache.

# Each argument is "COMMAND=PACKAGE[,PACKAGE...]". Installs what is missing when that is possible, else dies
# with the command to run. None of these packages brings a service.
require_commands() {
    local requirement missing=() packages=()
    for requirement in "$@"; do
        if ! command -v "${requirement%%=*}" >/dev/null; then
            missing+=("${requirement%%=*}")
            IFS=, read -ra names <<<"${requirement#*=}"
            packages+=("${names[@]}")
        fi
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    install_packages "needed here: ${missing[*]}" "${packages[@]}"
}

install_packages() { # REASON PACKAGE...
    local reason=$1 log
    shift
    local command="apt-get install -y --no-install-recommends $*"
    if ! command -v apt-get >/dev/null; then
        die "$reason" "this machine has no apt-get: install them by its own means (Debian calls the packages $*)," \
            "or use infra/compose.yaml with Docker"
    fi
    if [ "$(id -u)" != 0 ]; then
        die "$reason" "run this, then again what you ran:" "  sudo apt-get update && sudo $command"
    fi
    say "installing $* ($reason)"
    log=$cache_dir/log/apt-install.log
    mkdir -p "$cache_dir/log"
    if ! {
        apt-get update || true # a foreign source that fails need not matter
        # shellcheck disable=SC2086 # words are wanted
        DEBIAN_FRONTEND=noninteractive $command
    } >"$log" 2>&1; then
        show_log_tail "$log"
        die "could not install $*" "the command was: $command"
    fi
}

# Options for an apt-get that reads the machine's sources but writes only below the cache, as any user.
private_apt_options() {
    mkdir -p "$cache_dir/apt/lists/partial" "$cache_dir/apt/archives/partial"
    printf '%s\n' -o "Dir::State::lists=$cache_dir/apt/lists" -o "Dir::Cache=$cache_dir/apt" \
        -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=1 -qq
}

# The address of the mirror that the machine's own sources name for its own release.
debian_mirror() {
    local targets mirror
    # shellcheck disable=SC2016 # apt-get expands it
    targets=$(apt-get indextargets --format '$(CREATED_BY) $(COMPONENT) $(REPO_URI) $(ORIGIN)' 2>/dev/null |
        awk '$1 == "Packages" && $2 == "main" && $3 !~ /security/ { print $3, $4 }')
    # Before the first apt-get update the origin is not known, but then the address tells.
    mirror=$(awk '$2 == "Debian" { print $1; exit }' <<<"$targets")
    [ -n "$mirror" ] || mirror=$(awk '/debian/ { print $1; exit }' <<<"$targets")
    [ -n "$mirror" ] || die "the apt sources of this machine name no Debian mirror" \
        "add one to /etc/apt/sources.list, run apt-get update, then try again"
    printf '%s\n' "${mirror%/}"
}
