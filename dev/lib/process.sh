# Long-running processes of an instance: a pid file, a log file, a probe before anyone relies on
# one, and an end by pid.
# shellcheck shell=bash

# Starts COMMAND in the instance's network, in a session of its own, so that it outlives make.
# Descriptors 8 and 9 are locks (up, with_lock): a daemon that kept one would hold it for ever.
start_process() { # NAME COMMAND...
    local name=$1
    shift
    process_running "$name" && return
    kept_environment
    setsid env -i "${KEPT[@]}" nsenter --net="$NETNS" -- "$@" </dev/null >>"$LOGS/$name.log" 2>&1 8>&- 9>&- &
    remember_process "$name" $!
}

# The same on the host's own network.
start_host_process() { # NAME COMMAND...
    local name=$1
    shift
    process_running "$name" && return
    kept_environment
    setsid env -i "${KEPT[@]}" "$@" </dev/null >>"$LOGS/$name.log" 2>&1 8>&- 9>&- &
    remember_process "$name" $!
}

# Sets KEPT to what servers get of our environment. A shell after `eval "$(dev/env)"`, or an .env file, has the stores'
# credentials in it, and whoever reads a server's memory or /proc/PID/environ would have them too.
kept_environment() {
    local name
    KEPT=()
    for name in PATH HOME USER LANG LC_ALL TZ TMPDIR RUST_LOG RUST_BACKTRACE; do
        [ -z "${!name:-}" ] || KEPT+=("$name=${!name}")
    done
}

# Runs COMMAND as a user who can't look into root's home: FOLDER is mounted at MOUNTPOINT, in a mount namespace that ends
# with the process.
as_user_here() { # USER FOLDER MOUNTPOINT COMMAND...
    mount --bind "$2" "$3"
    cd /
    exec setpriv --reuid="$1" --regid="$1" --init-groups -- "${@:4}"
}
AS_USER=(unshare --mount bash -c "$(declare -f as_user_here)"'; as_user_here "$@"' -)

as_user() { "${AS_USER[@]}" "$@"; }
start_process_as() { start_process "$1" "${AS_USER[@]}" "${@:2}"; } # NAME USER FOLDER MOUNTPOINT COMMAND...

# The pid alone could be another process's by now; with the time of its birth it can't.
remember_process() { echo "$2 $(process_birth "$2")" >"$RUN/$1.pid"; }
process_birth() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
process_pid() { cut -d' ' -f1 "$RUN/$1.pid" 2>/dev/null; }

process_running() {
    local pid birth
    read -r pid birth 2>/dev/null <"$RUN/$1.pid" || return 1
    [ -n "$birth" ] && [ "$(process_birth "$pid")" = "$birth" ] &&
        ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null
}

# Waits until PROBE succeeds, as long as NAME lives and at most SECONDS.
await_process() { # NAME SECONDS PROBE...
    local name=$1 deadline=$((SECONDS + $2))
    shift 2
    until "$@" >/dev/null 2>&1; do
        process_running "$name" || process_failed "$name" "ended while starting"
        [ $SECONDS -lt $deadline ] || process_failed "$name" "is not ready in time"
        sleep 0.2
    done
}

process_failed() {
    {
        echo "$1 $2. The last lines of $LOGS/$1.log:"
        tail -n 12 "$LOGS/$1.log"
    } >&2
    exit 1
}

# Asks the process to end and, after SECONDS, makes it.
stop_process() { # NAME [SECONDS]
    local deadline=$((SECONDS + ${2:-10}))
    if process_running "$1"; then
        # A paused process acts on no signal but these two.
        signal_process "$1" TERM
        signal_process "$1" CONT
        while process_running "$1" && [ $SECONDS -lt $deadline ]; do sleep 0.1; done
        kill_process "$1"
    fi
    rm -f "$RUN/$1.pid"
}

signal_process() { kill -s "$2" "$(process_pid "$1")" 2>/dev/null || true; }

kill_process() {
    while process_running "$1"; do
        signal_process "$1" KILL
        sleep 0.05
    done
}

process_status() {
    if process_running "$1"; then
        printf '%-24s running  pid %-7s %s\n' "$1" "$(process_pid "$1")" "$LOGS/$1.log"
    else
        printf '%-24s %sstopped%s\n' "$1" "$DIM" "$PLAIN"
    fi
}
