# A stack is an instance with a name: its own network, addresses, state and cgroup. Everything that
# differs between two instances is decided here.
# shellcheck shell=bash
# shellcheck disable=SC2034  # the variables are read by the other files

# Sets the instance's variables. Changes nothing on disk except remembering the index.
instance_load() {
    INSTANCE=$1
    [[ $INSTANCE =~ ^[a-z][a-z0-9]{0,15}$ ]] ||
        fail "LOGGERHUB_INSTANCE='$INSTANCE': a name is a lower-case letter and up to 15 letters or digits"
    STATE=$CACHE/instances/$INSTANCE
    RUN=$STATE/run LOGS=$STATE/logs DATA=$STATE/data PKI=$STATE/pki SECRETS=$STATE/secrets
    INDEX=$(with_lock instances instance_index)
    HOST_IP=198.18.$INDEX.1
    NODE_IP=198.18.$INDEX.2
    NETNS=/run/netns/lh-$INSTANCE
    LINK=lh$INDEX
    CGROUP=loggerhub-$INSTANCE
    GATEWAY_PORT=$((8100 + 10 * INDEX))
    INGEST_PORT=$((8101 + 10 * INDEX))
}

# The number behind the addresses: `dev` is 0, `test` is 1, any other the lowest that is free; kept
# for as long as the instance's folder exists.
instance_index() {
    local index
    if [ ! -e "$STATE/index" ]; then
        case $INSTANCE in
            dev) index=0 ;;
            test) index=1 ;;
            *)
                for index in {2..255}; do
                    grep -qsx "$index" "$CACHE"/instances/*/index || break
                done
                ;;
        esac
        mkdir -p "$STATE"
        echo "$index" >"$STATE/index"
    fi
    cat "$STATE/index"
}

# Folders and generated credentials.
instance_prepare() {
    mkdir -p "$RUN" "$LOGS" "$DATA" "$PKI" "$SECRETS"
    chmod 700 "$SECRETS" "$PKI"
    local name
    for name in postgres redis-queue redis-operator redis-ingest redis-process redis-read redis-cache s3; do
        [ -s "$SECRETS/$name" ] || openssl rand -hex 16 >"$SECRETS/$name"
    done
}

secret() { cat "$SECRETS/$1"; }

# Is anything of this instance there?
instance_exists() { [ -e "$NETNS" ] || [ -d "$RUN" ]; }

# What a person, a test or a script needs to use the instance by hand.
instance_env() {
    cat <<ENV
export LOGGERHUB_INSTANCE=$INSTANCE
export LOGGERHUB_DEV=$DEV
export LOGGERHUB_URL=http://127.0.0.1:$GATEWAY_PORT
export LOGGERHUB_INGEST_URL=http://127.0.0.1:$INGEST_PORT
export KUBECONFIG=$PKI/admin.kubeconfig
export DATABASE_URL=postgres://$POSTGRES_USER:$(secret postgres)@$NODE_IP:5432/loggerhub_core_db
export REDIS_URL=redis://default:$(secret redis-queue)@$NODE_IP:6379
export REDIS_CACHE_URL=redis://default:$(secret redis-cache)@$NODE_IP:6380
export S3_ENDPOINT=http://$NODE_IP:9000
export AWS_ACCESS_KEY_ID=$S3_USER
export AWS_SECRET_ACCESS_KEY=$(secret s3)
export AWS_REGION=us-east-1
export OPENSEARCH_URL=http://$NODE_IP:9200
export LOGGERHUB_STORES_CA=$(tls_folder)/ca.crt
export CARGO_TARGET_DIR=$CARGO_TARGET_DIR
# kubectl finds its plugin, kubectl-loggerhub, beside the other programs.
export PATH=$(kubernetes_bin):$CARGO_TARGET_DIR/debug:\$PATH
ENV
}
