# A Kubernetes of one node, its parts as plain processes in the instance's network.
# shellcheck shell=bash

NODE=node1
SERVICE_CIDR=10.96.0.0/16
POD_CIDR=10.244.0.0/16
API_IP=10.96.0.1
DNS_IP=10.96.0.10

CONTROL_PLANE=(etcd kube-apiserver kube-controller-manager kube-scheduler)
NODE_PROCESSES=(containerd kubelet kube-proxy coredns kube-router)

# What has to be on this machine before the cluster can start.
cluster_prepare() {
    with_lock packages packages_install
    kubernetes_build
}

cluster_up() {
    instance_prepare
    net_up
    pki_make
    containerd_start
    control_plane_start
    kubelet_start
    kube_proxy_start
    dns_start
    within 60 node_ready || fail "node $NODE is not Ready: see $LOGS/kubelet.log and $LOGS/containerd.log"
    policies_start
}

# The API server alone, for those who only need objects: half the processes, no containers.
cluster_api_up() {
    instance_prepare
    net_up
    pki_make
    control_plane_start
}

cluster_down() {
    local name
    # First those who would start again what ends; last those who write down that it did.
    for name in kubelet kube-controller-manager kube-scheduler; do stop_process "$name" 5; done
    pods_end
    for name in kube-router coredns kube-proxy containerd kube-apiserver etcd; do stop_process "$name" 5; done
    cgroups_remove
    rm -rf "$RUN/containerd"
}

cluster_running() { process_running kube-apiserver; }
node_running() { cluster_running && process_running kubelet; }

node_ready() {
    kube wait --for=condition=Ready "node/$NODE" --timeout=5s && kube get serviceaccount default
}

# Are we asked for the cluster of the current kubectl context, instead of one of our own? With `kind` that
# is a cluster that we let kind make.
on_current_cluster() { [ "${LOGGERHUB_CLUSTER:-}" = current ] || on_kind; }
on_kind() { [ "${LOGGERHUB_CLUSTER:-}" = kind ]; }

# kubectl and Helm, on this instance's cluster or, if so asked, on the current context's. HELM names another Helm.
kube() {
    if on_current_cluster; then kubectl "$@"; else "$(kubernetes_bin)/kubectl" --kubeconfig "$PKI/admin.kubeconfig" "$@"; fi
}

helm_() {
    if on_current_cluster; then "${HELM:-helm}" "$@"; else "${HELM:-$(kubernetes_bin)/helm}" --kubeconfig "$PKI/admin.kubeconfig" "$@"; fi
}

# Repeats a command until it succeeds, at most SECONDS.
within() { # SECONDS COMMAND...
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.3
    done
}
