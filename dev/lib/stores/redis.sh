# Redis 7, twice: the queue, which has every write on disk before it answers and refuses rather than
# forgets, and the cache, which forgets.
# shellcheck shell=bash

# The users of each program, as the chart ships them. Written into the settings: a file of users would leave the
# default user, which tests and people use, without its password.
redis_queue_users() {
    sed -e "s/OPERATOR_PASSWORD/$(secret redis-operator)/" -e "s/INGEST_PASSWORD/$(secret redis-ingest)/" \
        -e "s/PROCESS_PASSWORD/$(secret redis-process)/" -e "s/READ_PASSWORD/$(secret redis-read)/" \
        "$ROOT/charts/loggerhub/files/access/redis-queue.acl"
}

# A rewrite of the append-only file forks and writes all that waits once more: at full speed, once in
# half a minute is enough, not each time that 64 MiB were added.
redis_queue_start() {
    redis_start redis-queue 6379 $REDIS_QUEUE_TLS_PORT <<CONF
appendonly yes
appendfsync always
maxmemory 1gb
maxmemory-policy noeviction
auto-aof-rewrite-min-size 512mb
$(redis_queue_users)
CONF
    # A server that runs since before these users gets them too.
    redis_queue_users | sed 's/^user /ACL SETUSER /' |
        REDISCLI_AUTH=$(secret redis-queue) redis-cli -h "$NODE_IP" -p 6379 >/dev/null
}

redis_cache_start() {
    redis_start redis-cache 6380 $REDIS_CACHE_TLS_PORT <<'CONF'
appendonly no
maxmemory 128mb
maxmemory-policy allkeys-lru
CONF
}

REDIS_HOME=/var/lib/redis

redis_start() { # NAME PORT TLS-PORT, settings on standard input
    local name=$1 port=$2 folder=$DATA/$1 tls=$REDIS_HOME/tls
    # What a server that ran as root has left is this one's too.
    install -d -o redis -g redis -m 700 "$folder"
    process_running "$name" || chown -R redis:redis "$folder"
    tls_files_for redis "$folder/tls"
    {
        cat
        printf '%s\n' "port $port" 'bind 0.0.0.0' 'save ""' "dir $REDIS_HOME" "requirepass $(secret "$name")" \
            "tls-port $3" "tls-cert-file $tls/server.crt" "tls-key-file $tls/server.key" "tls-ca-cert-file $tls/ca.crt" 'tls-auth-clients no'
    } | install -o redis -g redis -m 600 /dev/stdin "$folder/redis.conf"
    start_process_as "$name" redis "$folder" "$REDIS_HOME" redis-server "$REDIS_HOME/redis.conf"
    await_process "$name" 60 redis_ready "$name" "$port"
}

# PONG only once the append-only file is loaded.
redis_ready() { [ "$(REDISCLI_AUTH=$(secret "$1") timeout 2 redis-cli -h "$NODE_IP" -p "$2" ping 2>/dev/null)" = PONG ]; }
