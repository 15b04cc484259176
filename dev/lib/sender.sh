# The demonstration's logs are the stack's own: what the control plane, the stores and the pods
# write is followed and sent, each to a tenant.
# shellcheck shell=bash

SAMPLE_TENANTS=(acme globex initech)

sender_start() {
    sender_run acme "${CONTROL_PLANE[@]}" "${NODE_PROCESSES[@]}"
    sender_run globex "${STORES[@]}"
    # shellcheck disable=SC2046
    sender_run_paths initech $(pod_logs)
}

sender_stop() {
    local tenant
    for tenant in "${SAMPLE_TENANTS[@]}"; do stop_process "sender-$tenant" 5; done
}

sender_run() { # TENANT PROCESSES...
    local tenant=$1 name paths=()
    shift
    for name; do paths+=("$name=$LOGS/$name.log"); done
    sender_run_paths "$tenant" "${paths[@]}"
}

sender_run_paths() { # TENANT SERVICE=PATH...
    local tenant=$1 pair arguments=()
    shift
    for pair; do arguments+=(--service "$pair"); done
    # Its files or its program may have changed since it was started.
    if [ "$(cat "$RUN/sender-$tenant.for" 2>/dev/null)" != "$(image_tag loggerhub-sender) $*" ]; then
        stop_process "sender-$tenant" 5
        echo "$(image_tag loggerhub-sender) $*" >"$RUN/sender-$tenant.for"
    fi
    api_key "$tenant" >"$SECRETS/key-$tenant"
    start_host_process "sender-$tenant" "$(program loggerhub-sender)" --url "http://127.0.0.1:$INGEST_PORT/logs" \
        --key-file "$SECRETS/key-$tenant" --follow --from-start "${arguments[@]}"
}

# The plaintext of a sample tenant's key: it stands in the Secret that the Tenant names, nowhere else.
api_key() { kube -n "$1" get secret loggerhub-key -o jsonpath='{.data.apiKey}' | base64 -d; }

# Made-up events instead of files.
sender_generate() { # TENANT COUNT
    api_key "$1" >"$SECRETS/key-$1"
    "$(program loggerhub-sender)" --url "http://127.0.0.1:$INGEST_PORT/logs" --key-file "$SECRETS/key-$1" --generate "$2"
}

# Each container of each pod of LoggerHub, as SERVICE=PATH.
pod_logs() {
    local path pod
    for path in "$LOGS/pods/${NAMESPACE}_"*/*/*.log; do
        [ -e "$path" ] || continue
        pod=${path#"$LOGS/pods/${NAMESPACE}_"}
        # loggerhub-gateway-5d4f8b-x2x7q_<uid>/… → loggerhub-gateway
        echo "$(cut -d_ -f1 <<<"$pod" | sed -E 's/-[a-z0-9]+-[a-z0-9]{5}$//')=$path"
    done
}
