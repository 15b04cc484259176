# What to try first, with everything filled in.
# shellcheck shell=bash

tour() {
    local url=http://127.0.0.1:$GATEWAY_PORT ingest=http://127.0.0.1:$INGEST_PORT key prefix=''
    key=$(api_key acme)
    [ "$INSTANCE" = dev ] || prefix="LOGGERHUB_INSTANCE=$INSTANCE "
    cat <<TOUR

${BOLD}LoggerHub runs:${PLAIN} $url (search, live tail), $ingest (ingest)

  ${DIM}# a shell that knows the addresses, and kubectl${PLAIN}
  eval "\$(${prefix}make -s env)"
  KEY=$key   ${DIM}# of the tenant acme; kubectl -n acme get secret loggerhub-key -o jsonpath='{.data.apiKey}' | base64 -d${PLAIN}

  ${DIM}# find a line that the control plane wrote: acme is sent its logs${PLAIN}
  curl -sG $url/api/search -H "Authorization: Bearer \$KEY" --data-urlencode 'q=apiserver' | jq

  ${DIM}# send one yourself, and list the newest${PLAIN}
  curl -s $ingest/logs -H "Authorization: Bearer \$KEY" -H 'Content-Type: application/json' \\
    -d '{"service": "tour", "level": "INFO", "message": "hello from the tour"}'
  curl -s "$url/api/logs?service=tour" -H "Authorization: Bearer \$KEY" | jq

  ${DIM}# watch them arrive${PLAIN}
  dev/tail $url "\$KEY"

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
  ${prefix}make status
  ${prefix}make down
  ${prefix}make down PURGE=1
TOUR
}
