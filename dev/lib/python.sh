# schemathesis from PyPI, by the versions in schemathesis/requirements.txt, in an environment of its own.
# shellcheck shell=bash

schemathesis_home() { echo "$CACHE/schemathesis/$(sha256sum <"$DEV/schemathesis/requirements.txt" | cut -c1-16)"; }

schemathesis_fetch() { with_lock schemathesis schemathesis_fetch_locked; }

schemathesis_fetch_locked() {
    local home
    home=$(schemathesis_home)
    [ ! -e "$home/complete" ] || return 0
    rm -rf "$home"
    # An environment has its own path in its programs: it can't be made elsewhere and moved.
    python3 -m venv "$home"
    "$home/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$DEV/schemathesis/requirements.txt"
    touch "$home/complete"
}
