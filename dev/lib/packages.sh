# Debian packages, by the list in packages.txt.
# shellcheck shell=bash

wanted_packages() { sed -E 's/[[:space:]]*#.*//; /^$/d' "$DEV/packages.txt"; }

missing_packages() {
    local name
    for name in $(wanted_packages); do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || echo "$name"
    done
}

packages_install() {
    local missing
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    apt-get update -qq
    # At runlevel 1 a package does not start its service; we start what we need, where we need it.
    # shellcheck disable=SC2086
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends --no-upgrade $missing
}
