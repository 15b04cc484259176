# The front doors for people: two ports on the host's loopback, forwarded to the NodePorts of the
# gateway and of ingest.
# shellcheck shell=bash

GATEWAY_NODE_PORT=30100
INGEST_NODE_PORT=30101

door_port() { if [ "$1" = gateway ]; then echo "$GATEWAY_PORT"; else echo "$INGEST_PORT"; fi; }

doors_open() {
    door_open gateway $GATEWAY_NODE_PORT
    door_open ingest $INGEST_NODE_PORT
}

door_open() { # NAME NODE-PORT
    local port
    port=$(door_port "$1")
    start_host_process "door-$1" socat "TCP-LISTEN:$port,bind=127.0.0.1,fork,reuseaddr,nodelay,backlog=1024" "TCP:$NODE_IP:$2,nodelay"
    within 20 curl -fsS -m 2 "http://127.0.0.1:$port/" ||
        fail "the $1 does not answer on http://127.0.0.1:$port/: kubectl -n $NAMESPACE get pods; $LOGS/door-$1.log"
}

doors_close() {
    stop_process door-gateway 2
    stop_process door-ingest 2
}
