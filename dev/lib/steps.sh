# Steps: work with a title, its own log and a clock. Several may run at once; whoever looks on sees
# what runs, for how long and on what, and of a failure the step, the reason and the log.
# shellcheck shell=bash

declare -A STEP_TITLE=() STEP_PID=() STEP_BEGUN=()
STEPS_NOTED=0
# With STEPS_GO_ON=1 a failure is noted here, and the others go on.
STEPS_FAILED=()

# Runs a step to its end.
step() { # NAME TITLE COMMAND...
    step_begin "$@"
    step_await "$1"
}

# Starts a step in the background, as a process group of its own so that all of it can be ended.
step_begin() { # NAME TITLE COMMAND...
    local name=$1
    STEP_TITLE[$name]=$2
    STEP_BEGUN[$name]=$EPOCHSECONDS
    shift 2
    mkdir -p "$(dirname "$(step_log "$name")")"
    set -m
    (
        set +m
        trap - EXIT INT TERM
        "$@"
    ) </dev/null >"$(step_log "$name")" 2>&1 &
    STEP_PID[$name]=$!
    set +m
    trap steps_end EXIT
    trap 'exit 130' INT TERM
}

step_log() { echo "${STEP_LOGS:-$LOGS}/step-$1.log"; }

# Waits for the named steps; any step that fails meanwhile ends everything, but see STEPS_FAILED.
step_await() { # NAMES...
    local name waiting=yes
    while [ -n "$waiting" ]; do
        for name in "${!STEP_PID[@]}"; do
            kill -0 "${STEP_PID[$name]}" 2>/dev/null || step_ended "$name"
        done
        waiting=
        for name; do [ -z "${STEP_PID[$name]:-}" ] || waiting=yes; done
        [ -z "$waiting" ] || steps_progress
    done
}

step_ended() {
    local name=$1 code=0
    wait "${STEP_PID[$name]}" || code=$?
    unset "STEP_PID[$name]"
    clear_line
    if [ $code != 0 ]; then
        printf '  %s✗ %s failed after %s%s\n\n' "$RED" "${STEP_TITLE[$name]}" "$(step_elapsed "$name")" "$PLAIN"
        tail -n 15 "$(step_log "$name")" | sed 's/^/    /'
        printf '\n  log: %s\n' "$(step_log "$name")"
        STEPS_FAILED+=("$name")
        [ "${STEPS_GO_ON:-}" = 1 ] || exit 1
        return 0
    fi
    printf '  %s✓%s %-58s %12s\n' "$GREEN" "$PLAIN" "${STEP_TITLE[$name]}" "$(step_elapsed "$name")"
}

step_elapsed() { duration $((EPOCHSECONDS - STEP_BEGUN[$1])); }

# On a terminal one line that is written over; elsewhere a line each quarter of a minute.
steps_progress() {
    local name line=''
    sleep 0.2
    if [ -t 1 ]; then
        [ "$STEPS_NOTED" != "$EPOCHSECONDS" ] || return 0
    else
        [ $((EPOCHSECONDS - STEPS_NOTED)) -ge 15 ] || return 0
        [ "$STEPS_NOTED" != 0 ] || { STEPS_NOTED=$EPOCHSECONDS && return; }
    fi
    STEPS_NOTED=$EPOCHSECONDS
    for name in "${!STEP_PID[@]}"; do
        line+="${line:+ | }$name $(step_elapsed "$name"): $(tail -n 1 "$(step_log "$name")" | tr -d '\r' | sed 's/\x1b\[[0-9;]*m//g; s/^ *//' | cut -c1-60)"
    done
    clear_line
    if [ -t 1 ]; then
        printf '  %s… %s%s' "$DIM" "$(cut -c1-$(($(tput cols 2>/dev/null || echo 100) - 6)) <<<"$line")" "$PLAIN"
    else
        printf '  … %s\n' "$line"
    fi
}

clear_line() { [ ! -t 1 ] || printf '\r\e[K'; }

# Whatever still runs when we leave early goes with us.
steps_end() {
    local name
    for name in "${!STEP_PID[@]}"; do kill -TERM -- "-${STEP_PID[$name]}" 2>/dev/null || true; done
}
