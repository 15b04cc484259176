# etcd, the API server, the controllers and the scheduler.
# shellcheck shell=bash

control_plane_start() {
    local bin
    bin=$(kubernetes_bin)

    # A development cluster may lose its last second in a power cut; fsync would cost it all others.
    start_process etcd etcd --data-dir "$DATA/etcd" --unsafe-no-fsync \
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380
    await_process etcd 30 in_net curl -fsS -m 2 http://127.0.0.1:2379/health

    start_process kube-apiserver "$bin/kube-apiserver" \
        --etcd-servers=http://127.0.0.1:2379 \
        --bind-address=0.0.0.0 --advertise-address="$NODE_IP" --secure-port=6443 \
        --service-cluster-ip-range="$SERVICE_CIDR" \
        --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" --client-ca-file="$PKI/ca.crt" \
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged \
        --service-account-issuer=https://kubernetes.default.svc.cluster.local \
        --service-account-key-file="$PKI/service-accounts.pub" --service-account-signing-key-file="$PKI/service-accounts.key" \
        --kubelet-client-certificate="$PKI/admin.crt" --kubelet-client-key="$PKI/admin.key" \
        --kubelet-certificate-authority="$PKI/ca.crt" --kubelet-preferred-address-types=InternalIP
    await_process kube-apiserver 90 api_ready

    start_process kube-controller-manager "$bin/kube-controller-manager" --kubeconfig="$PKI/kube-controller-manager.kubeconfig" \
        --service-account-private-key-file="$PKI/service-accounts.key" --root-ca-file="$PKI/ca.crt" \
        --use-service-account-credentials --allocate-node-cidrs --cluster-cidr="$POD_CIDR" --leader-elect=false
    start_process kube-scheduler "$bin/kube-scheduler" --kubeconfig="$PKI/kube-scheduler.kubeconfig" --leader-elect=false
}

api_ready() { curl -fsS -m 2 --cacert "$PKI/ca.crt" --cert "$PKI/admin.crt" --key "$PKI/admin.key" "https://$NODE_IP:6443/readyz"; }
