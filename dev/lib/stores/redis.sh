# Redis 7, twice: the queue, which has every write on disk before it answers and refuses rather than
# forgets, and the cache, which forgets.
# shellcheck shell=bash

# A rewrite of the append-only file forks and writes all that waits once more: at full speed, once in
# half a minute is enough, not each time that 64 MiB were added.
redis_queue_start() {
    redis_start redis-queue 6379 $REDIS_QUEUE_TLS_PORT <<'CONF'
appendonly yes
appendfsync always
maxmemory 1gb
maxmemory-policy noeviction
auto-aof-rewrite-min-size 512mb
CONF
}

redis_cache_start() {
    redis_start redis-cache 6380 $REDIS_CACHE_TLS_PORT <<'CONF'
appendonly no
maxmemory 128mb
maxmemory-policy allkeys-lru
CONF
}

redis_start() { # NAME PORT TLS-PORT, settings on standard input
    local name=$1 port=$2 folder=$DATA/$1
    mkdir -p "$folder"
    (
        umask 077
        {
            cat
            tls_redis_settings "$3"
            printf '%s\n' "port $port" 'bind 0.0.0.0' 'save ""' "dir $folder" "requirepass $(secret "$name")"
        } >"$RUN/$name.conf"
    )
    start_process "$name" redis-server "$RUN/$name.conf"
    await_process "$name" 60 redis_ready "$name" "$port"
}

# PONG only once the append-only file is loaded.
redis_ready() { [ "$(REDISCLI_AUTH=$(secret "$1") timeout 2 redis-cli -h "$NODE_IP" -p "$2" ping 2>/dev/null)" = PONG ]; }
