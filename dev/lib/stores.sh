# The four stores (five servers) as one list. Each has a file under stores/ with NAME_start, which
# returns when the server answers.
# shellcheck shell=bash

STORES=(postgres redis-queue redis-cache minio opensearch)

# What has to be on this machine before a store can start.
stores_prepare() {
    with_lock packages packages_install
    minio_build
    opensearch_fetch
}

stores_up() {
    instance_prepare
    net_up
    tls_prepare
    each_store store_start "${STORES[@]}"
}

store_start() {
    case $1 in
        postgres) postgres_start ;;
        redis-queue) redis_queue_start ;;
        redis-cache) redis_cache_start ;;
        minio)
            minio_start
            tls_door_start minio $S3_TLS_PORT 9000
            ;;
        opensearch)
            opensearch_start
            tls_door_start opensearch $OPENSEARCH_TLS_PORT 9200
            ;;
        *) fail "no store '$1': ${STORES[*]}" ;;
    esac
}

# PostgreSQL's polite end waits for its clients; INT asks it to send them away.
store_stop() {
    if [ "$1" = postgres ] && process_running postgres; then
        signal_process postgres CONT
        signal_process postgres INT
        wait_gone postgres 20
    fi
    tls_door_stop "$1"
    stop_process "$1" 30
}

# As a power cut would end it.
store_kill() {
    if [ "$1" = postgres ]; then postgres_kill; fi
    kill_process "$1"
    rm -f "$RUN/$1.pid"
}

store_pause() { signal_process "$1" STOP; }
store_resume() { signal_process "$1" CONT; }

wait_gone() { # NAME SECONDS
    local deadline=$((SECONDS + $2))
    while process_running "$1" && [ $SECONDS -lt $deadline ]; do sleep 0.1; done
}

# Does ACTION for all the named stores at once.
each_store() { # ACTION STORES...
    local action=$1 pids=() name pid failed=0
    shift
    for name; do
        [[ " ${STORES[*]} " == *" $name "* ]] || fail "no store '$name': ${STORES[*]}"
        "$action" "$name" &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
    return $failed
}

stores_running() {
    local name
    for name in "${STORES[@]}"; do process_running "$name" && return; done
    return 1
}
