# LoggerHub on the cluster, installed as anyone would: Secrets with the stores' credentials, a values
# file with their addresses, `helm upgrade --install`.
# shellcheck shell=bash

NAMESPACE=${LOGGERHUB_NAMESPACE:-loggerhub}

# On an instance the stores and images are its own; otherwise the environment names them, but for kind.
install_settings() {
    if on_kind; then
        LOGGERHUB_IMAGE=$(kind_image loggerhub)
        LOGGERHUB_OPERATOR_IMAGE=$(kind_image loggerhub-operator)
    fi
    ! on_current_cluster || return 0
    LOGGERHUB_IMAGE=$IMAGE_REGISTRY/loggerhub:$(image_tag loggerhub)
    LOGGERHUB_OPERATOR_IMAGE=$IMAGE_REGISTRY/loggerhub-operator:$(image_tag loggerhub-operator)
    LOGGERHUB_POSTGRES_HOST=$NODE_IP
    LOGGERHUB_POSTGRES_USERNAME=$POSTGRES_USER
    LOGGERHUB_POSTGRES_PASSWORD=$(secret postgres)
    LOGGERHUB_REDIS_QUEUE_URL=redis://$NODE_IP:6379
    LOGGERHUB_REDIS_CACHE_URL=redis://$NODE_IP:6380
    LOGGERHUB_REDIS_CACHE_PASSWORD=$(secret redis-cache)
    LOGGERHUB_S3_ENDPOINT=http://$NODE_IP:9000
    LOGGERHUB_S3_ACCESS_KEY_ID=$S3_USER
    LOGGERHUB_S3_SECRET_ACCESS_KEY=$(secret s3)
    LOGGERHUB_OPENSEARCH_URL=http://$NODE_IP:9200
    LOGGERHUB_OPENSEARCH_REPLICAS=0
    [ "${LOGGERHUB_STORES_TLS:-}" != 1 ] || install_tls_settings
}

# The same stores at their TLS ports, trusted by the CA that signed them.
install_tls_settings() {
    LOGGERHUB_POSTGRES_SSL_MODE=verify-full
    LOGGERHUB_REDIS_QUEUE_URL=rediss://$NODE_IP:$REDIS_QUEUE_TLS_PORT
    LOGGERHUB_REDIS_CACHE_URL=rediss://$NODE_IP:$REDIS_CACHE_TLS_PORT
    LOGGERHUB_S3_ENDPOINT=https://$NODE_IP:$S3_TLS_PORT
    LOGGERHUB_OPENSEARCH_URL=https://$NODE_IP:$OPENSEARCH_TLS_PORT
    LOGGERHUB_CA_BUNDLE=$(tls_folder)/ca.crt
}

install_chart() {
    install_settings
    mkdir -p "$RUN"
    install_namespace "$NAMESPACE"
    # The evaluation's stores have theirs.
    on_kind || install_secrets
    install_values >"$RUN/values.yaml"
    helm_ upgrade --install loggerhub "$ROOT/charts/loggerhub" -n "$NAMESPACE" -f "$RUN/values.yaml" --timeout 5m
    install_await
}

# Kubernetes says what is not ready, and why, better than Helm's own wait. The pipeline `default` is
# the operator's to make, so its Deployments come a little later than the chart's.
install_await() {
    local deployment
    install_await_one deployment/loggerhub-operator
    within 60 kube -n "$NAMESPACE" get deployment/loggerhub-default-processor deployment/loggerhub-default-ingest ||
        install_unready deployment/loggerhub-operator
    for deployment in $(kube -n "$NAMESPACE" get deployments -o name); do install_await_one "$deployment"; done
}

# Asked again and again, since the failure of an earlier version is the first answer for a moment.
install_await_one() {
    echo "waiting for $1"
    within 180 kube -n "$NAMESPACE" rollout status "$1" --timeout=5s || install_unready "$1"
}

install_unready() {
    kube -n "$NAMESPACE" get pods,logpipelines || true
    kube -n "$NAMESPACE" get events --field-selector type=Warning --sort-by=.lastTimestamp | tail -n 8
    kube -n "$NAMESPACE" logs "$1" --all-containers --tail=10 || true
    fail "$1 is not ready"
}

install_namespace() {
    kube apply --server-side -f - <<YAML
apiVersion: v1
kind: Namespace
metadata:
  name: $1
  labels: {pod-security.kubernetes.io/enforce: restricted}
YAML
}

install_secrets() {
    install_secret loggerhub-postgres username="$LOGGERHUB_POSTGRES_USERNAME" password="$LOGGERHUB_POSTGRES_PASSWORD"
    if on_current_cluster; then
        install_secret loggerhub-redis-queue password="${LOGGERHUB_REDIS_QUEUE_PASSWORD:-}"
    else
        install_secret loggerhub-redis-queue username=lh_operator password="$(secret redis-operator)"
        install_secret loggerhub-redis-ingest username=lh_ingest password="$(secret redis-ingest)"
        install_secret loggerhub-redis-process username=lh_process password="$(secret redis-process)"
        install_secret loggerhub-redis-read username=lh_read password="$(secret redis-read)"
    fi
    install_secret loggerhub-redis-cache password="${LOGGERHUB_REDIS_CACHE_PASSWORD:-}"
    install_secret loggerhub-s3 accessKeyId="$LOGGERHUB_S3_ACCESS_KEY_ID" secretAccessKey="$LOGGERHUB_S3_SECRET_ACCESS_KEY"
    if [ -n "${LOGGERHUB_OPENSEARCH_USERNAME:-}" ]; then
        install_secret loggerhub-opensearch username="$LOGGERHUB_OPENSEARCH_USERNAME" password="${LOGGERHUB_OPENSEARCH_PASSWORD:-}"
    fi
    if [ -n "${LOGGERHUB_CA_BUNDLE:-}" ]; then
        kube -n "$NAMESPACE" create configmap loggerhub-ca --from-file=ca.crt="$LOGGERHUB_CA_BUNDLE" --dry-run=client -o yaml | kube apply --server-side -f -
    fi
}

# The values go through standard input: an argument could be read by anyone who lists processes.
install_secret() { # NAME KEY=VALUE...
    local name=$1 pair
    shift
    {
        printf 'apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\nstringData:\n' "$name" "$NAMESPACE"
        for pair; do printf '  %s: "%s"\n' "${pair%%=*}" "${pair#*=}"; done
    } | kube apply --server-side --force-conflicts -f -
}

install_values() {
    cat <<YAML
image:
  repository: ${LOGGERHUB_IMAGE%:*}
  tag: "${LOGGERHUB_IMAGE##*:}"
  pullPolicy: IfNotPresent
operator:
  image:
    repository: ${LOGGERHUB_OPERATOR_IMAGE%:*}
    tag: "${LOGGERHUB_OPERATOR_IMAGE##*:}"
YAML
    if on_kind; then cat "$ROOT/manifests/evaluation/values.yaml"; else install_values_stores; fi
    # The tour, the samples and the tests give their tenants namespaces of their own.
    on_kind || echo 'rbac: {tenantNamespaces: ["*"]}'
    on_current_cluster || cat <<YAML
archive: {maxAgeSeconds: $(archive_seconds)}
networkPolicy: {egress: {apiServerPorts: [6443]}}
gateway:
  service: {type: NodePort, nodePort: $GATEWAY_NODE_PORT}
defaultPipeline:
  ingest:
    service: {type: NodePort, nodePort: $INGEST_NODE_PORT}
YAML
}

install_values_stores() {
    cat <<YAML
stores:
  postgres:
    host: $LOGGERHUB_POSTGRES_HOST
    port: ${LOGGERHUB_POSTGRES_PORT:-5432}
    sslMode: ${LOGGERHUB_POSTGRES_SSL_MODE:-prefer}
    existingSecret: loggerhub-postgres
  redis:
    queue:
      url: "$LOGGERHUB_REDIS_QUEUE_URL"
      existingSecret: loggerhub-redis-queue
$(on_current_cluster || printf '      %s: loggerhub-redis-%s\n' ingestSecret ingest processSecret process readSecret read)
    cache: {url: "$LOGGERHUB_REDIS_CACHE_URL", existingSecret: loggerhub-redis-cache}
  s3:
    endpoint: $LOGGERHUB_S3_ENDPOINT
    region: ${LOGGERHUB_S3_REGION:-us-east-1}
    existingSecret: loggerhub-s3
    layout: ${LOGGERHUB_S3_LAYOUT:-PerTenant}
    bucketPrefix: ${LOGGERHUB_S3_BUCKET_PREFIX:-lh-}
  opensearch:
    url: $LOGGERHUB_OPENSEARCH_URL
    existingSecret: "${LOGGERHUB_OPENSEARCH_USERNAME:+loggerhub-opensearch}"
    replicas: ${LOGGERHUB_OPENSEARCH_REPLICAS:-1}
  caBundle:
    existingConfigMap: "${LOGGERHUB_CA_BUNDLE:+loggerhub-ca}"
YAML
}

# Production gathers for five minutes. A demonstration wants to see an object soon, and a test sooner.
archive_seconds() { if [ "$INSTANCE" = dev ]; then echo 30; else echo 5; fi; }

# The sample Tenants, and the wait until they can be used.
samples_apply() {
    kube apply -f "$ROOT/manifests/samples"
    kube wait --for=condition=Ready tenant --all --timeout=60s || {
        kube get tenants -o wide
        kube get events -A --field-selector type=Warning | tail -n 8
        return 1
    }
}
