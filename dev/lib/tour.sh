# What to try first, with everything filled in.
# shellcheck shell=bash

tour() {
    local url=http://127.0.0.1:$GATEWAY_PORT ingest=http://127.0.0.1:$INGEST_PORT key make=make stores=dev/stores
    key=$(api_key acme)
    [ "$INSTANCE" = dev ] || make="LOGGERHUB_INSTANCE=$INSTANCE make" stores="LOGGERHUB_INSTANCE=$INSTANCE dev/stores"
    say
    if on_current_cluster; then
        make="LOGGERHUB_CLUSTER=$LOGGERHUB_CLUSTER $make"
        cat <<TOUR
${BOLD}LoggerHub runs${PLAIN} in the namespace $NAMESPACE. To reach it from here:

TOUR
        ! on_kind || say "export KUBECONFIG=$KUBECONFIG"
        cat <<TOUR
kubectl -n $NAMESPACE port-forward service/loggerhub-gateway $GATEWAY_PORT:80 &
kubectl -n $NAMESPACE port-forward service/loggerhub-default-ingest $INGEST_PORT:80 &
TOUR
    else
        cat <<TOUR
${BOLD}LoggerHub runs:${PLAIN} $url (lists, search, live tail), $ingest (ingest)

${DIM}# a shell that knows the addresses, and kubectl${PLAIN}
eval "\$($make -s env)"
TOUR
    fi
    cat <<TOUR
KEY=$key   ${DIM}# of acme: kubectl -n acme get secret loggerhub-key -o jsonpath='{.data.apiKey}' | base64 -d${PLAIN}

${DIM}# find a line that Kubernetes wrote: its logs go to the tenant acme${PLAIN}
curl -sG $url/api/search -H "Authorization: Bearer \$KEY" --data-urlencode 'q=kubelet' | jq

${DIM}# send one yourself, and find it${PLAIN}
curl -s $ingest/logs -H "Authorization: Bearer \$KEY" -H 'Content-Type: application/json' \\
  -d '{"service": "tour", "level": "INFO", "message": "hello from the tour"}'
curl -s "$url/api/logs?service=tour" -H "Authorization: Bearer \$KEY" | jq

${DIM}# watch them arrive${PLAIN}
kubectl loggerhub tail acme

${DIM}# the tenants, and a fourth one${PLAIN}
kubectl get tenants
kubectl create namespace umbrella
kubectl apply -f - <<EOF
apiVersion: loggerhub.io/v1alpha1
kind: Tenant
metadata: {name: umbrella}
spec:
  displayName: Umbrella
  plan: standard
  namespaces: [umbrella]
  apiKeys:
  - {name: main, scopes: [Ingest, Query], secretRef: {name: loggerhub-key, namespace: umbrella}}
EOF
kubectl wait --for=condition=Ready tenant/umbrella

${DIM}# what runs; stop it; stop it and forget its data${PLAIN}
$make status
$make down
TOUR
    on_current_cluster || cat <<TOUR
$make down PURGE=1

${DIM}# the same from any machine, with nothing but a kubeconfig${PLAIN}
kubectl loggerhub tenants
kubectl loggerhub search acme kubelet --from 15m
kubectl loggerhub backlog

${DIM}# end a store as a power cut would, and start it again: nothing does so by itself${PLAIN}
$stores kill opensearch
$stores start opensearch
TOUR
}
