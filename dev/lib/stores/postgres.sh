# PostgreSQL 15: the catalog. It writes through to disk as in production: what a crash may lose is a
# thing we test.
# shellcheck shell=bash

POSTGRES_USER=loggerhub
POSTGRES_BIN=/usr/lib/postgresql/15/bin

postgres_start() {
    local home=$DATA/postgres
    [ -s "$home/15/PG_VERSION" ] || postgres_create
    # Of a server that was killed. It would be believed if its pid were in use again.
    process_running postgres || rm -f "$home/15/postmaster.pid"
    tls_files_for postgres "$home/tls"
    start_process_as postgres postgres "$home" "$POSTGRES_HOME" "$POSTGRES_BIN/postgres" -D "$POSTGRES_HOME/15" \
        -c listen_addresses='*' -c unix_socket_directories='' -c max_connections=400 -c shared_buffers=256MB \
        -c ssl=on -c ssl_cert_file="$POSTGRES_HOME/tls/server.crt" -c ssl_key_file="$POSTGRES_HOME/tls/server.key" \
        -c max_wal_size=2GB -c log_timezone=UTC -c timezone=UTC -c log_line_prefix='%m [%p] %q%a ' \
        -c log_min_duration_statement=1000 -c log_lock_waits=on
    await_process postgres 60 postgres_ready
}

# A new server with the login that LoggerHub is given, and with nobody else in the databases of every server. Like one on a managed server it may make
# databases and roles, but is no superuser; that is `postgres`, with the same password.
postgres_create() {
    local home=$DATA/postgres
    rm -rf "$home"
    install -d -o postgres -g postgres -m 700 "$home"
    install -o postgres -m 600 "$SECRETS/postgres" "$home/password"
    {
        as_postgres "$POSTGRES_BIN/initdb" -D "$POSTGRES_HOME/15.part" --username=postgres --pwfile="$POSTGRES_HOME/password" \
            --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8
        echo 'host all all 0.0.0.0/0 scram-sha-256' >>"$home/15.part/pg_hba.conf"
        {
            echo "CREATE ROLE $POSTGRES_USER LOGIN CREATEDB CREATEROLE PASSWORD '$(secret postgres)'"
            sed "/^--/d; s/lh_operator/$POSTGRES_USER/; s/;$//" "$ROOT/charts/loggerhub/files/access/postgres-own-server.sql"
        } | as_postgres "$POSTGRES_BIN/postgres" --single -D "$POSTGRES_HOME/15.part" postgres
    } >>"$LOGS/postgres.log" 2>&1
    mv "$home/15.part" "$home/15"
}

postgres_ready() { "$POSTGRES_BIN/pg_isready" -q -h "$NODE_IP" -p 5432; }

# Kills the children too, as a power cut would: left alone, they would keep the shared memory.
postgres_kill() {
    local pid
    pid=$(process_pid postgres) || return 0
    # shellcheck disable=SC2046
    kill -KILL "$pid" $(ps -o pid= --ppid "$pid") 2>/dev/null || true
}

# PostgreSQL refuses to be root.
POSTGRES_HOME=/var/lib/postgresql

as_postgres() { as_user postgres "$DATA/postgres" "$POSTGRES_HOME" "$@"; }
