# The same stores over TLS, beside their ordinary ports: what a production installation talks to.
# PostgreSQL and Redis speak it themselves. MinIO serves one scheme only, and OpenSearch's core
# distribution none, so each has a door in front of it that ends TLS.
# shellcheck shell=bash

REDIS_QUEUE_TLS_PORT=6479
REDIS_CACHE_TLS_PORT=6480
S3_TLS_PORT=9443
OPENSEARCH_TLS_PORT=9643

tls_folder() { echo "$PKI/stores"; }

# A certificate authority of the stores' own, and one certificate for all of them.
tls_prepare() {
    local folder
    folder=$(tls_folder)
    if openssl x509 -checkend 86400 -noout -in "$folder/server.crt" >/dev/null 2>&1 && [ "$(cat "$folder/made-for" 2>/dev/null)" = "$NODE_IP" ]; then
        return
    fi
    mkdir -p "$folder"
    (
        PKI=$folder
        pki_key ca
        openssl req -x509 -new -key "$PKI/ca.key" -days 365 -subj /CN=loggerhub-stores -out "$PKI/ca.crt"
        pki_certificate server /CN=stores "IP:127.0.0.1,IP:$NODE_IP,DNS:localhost"
    )
    echo "$NODE_IP" >"$folder/made-for"
}

# A store reads its key as its own user, inside its own folder.
tls_files_for() { # USER FOLDER
    local folder
    folder=$(tls_folder)
    install -d -o "$1" -g "$1" -m 700 "$2"
    install -o "$1" -g "$1" -m 600 "$folder/server.crt" "$folder/server.key" "$folder/ca.crt" "$2"
}

# Ends TLS at TLS-PORT and passes on to PORT.
tls_door_start() { # NAME TLS-PORT PORT
    local folder
    folder=$(tls_folder)
    start_process "$1-tls" socat "OPENSSL-LISTEN:$2,bind=$NODE_IP,reuseaddr,fork,verify=0,cert=$folder/server.crt,key=$folder/server.key" \
        "TCP:$NODE_IP:$3"
    await_process "$1-tls" 10 curl -sS -o /dev/null -m 2 --cacert "$folder/ca.crt" "https://$NODE_IP:$2/"
}

tls_door_stop() { stop_process "$1-tls" 5; }
