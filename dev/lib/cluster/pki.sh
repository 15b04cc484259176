# The cluster's certificate authority, and a certificate and kubeconfig for each part.
# shellcheck shell=bash

pki_make() {
    # A year from now is far; a day before the end, or when the addresses changed, all are made anew.
    if openssl x509 -checkend 86400 -noout -in "$PKI/ca.crt" >/dev/null 2>&1 && [ "$(cat "$PKI/made-for" 2>/dev/null)" = "$NODE_IP" ]; then
        return
    fi
    # Not the stores' own, which are in a folder beside these.
    find "$PKI" -maxdepth 1 -type f -delete
    pki_key ca
    openssl req -x509 -new -key "$PKI/ca.key" -days 365 -subj /CN=loggerhub-dev -out "$PKI/ca.crt"
    pki_key service-accounts
    openssl pkey -in "$PKI/service-accounts.key" -pubout -out "$PKI/service-accounts.pub"
    pki_certificate apiserver /CN=kube-apiserver \
        "IP:127.0.0.1,IP:$NODE_IP,IP:$API_IP,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
    pki_certificate kubelet "/O=system:nodes/CN=system:node:$NODE" "IP:$NODE_IP,DNS:$NODE"
    pki_certificate admin /O=system:masters/CN=admin
    pki_certificate kube-controller-manager /CN=system:kube-controller-manager
    pki_certificate kube-scheduler /CN=system:kube-scheduler
    pki_certificate kube-proxy /CN=system:kube-proxy
    pki_certificate coredns /CN=system:coredns
    local name
    for name in kubelet admin kube-controller-manager kube-scheduler kube-proxy coredns; do pki_kubeconfig $name; done
    echo "$NODE_IP" >"$PKI/made-for"
}

pki_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$PKI/$1.key" 2>/dev/null; }

pki_certificate() { # NAME SUBJECT [ALTERNATIVE-NAMES]
    pki_key "$1"
    openssl req -new -key "$PKI/$1.key" -subj "$2" |
        openssl x509 -req -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" -CAcreateserial -days 365 -out "$PKI/$1.crt" \
            -extfile <(printf 'extendedKeyUsage=serverAuth,clientAuth\n%s\n' "${3:+subjectAltName=$3}") 2>/dev/null
}

pki_kubeconfig() {
    cat >"$PKI/$1.kubeconfig" <<YAML
apiVersion: v1
kind: Config
clusters:
- name: loggerhub-$INSTANCE
  cluster:
    server: https://$NODE_IP:6443
    certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 "$PKI/$1.crt")
    client-key-data: $(base64 -w0 "$PKI/$1.key")
contexts:
- name: loggerhub-$INSTANCE
  context: {cluster: loggerhub-$INSTANCE, user: $1}
current-context: loggerhub-$INSTANCE
YAML
    chmod 600 "$PKI/$1.kubeconfig"
}
