# The node: containerd, the kubelet and kube-proxy.
#
# containerd and the kubelet share a mount namespace of their own. Whatever they mount (images,
# Secrets, the pods' networks) goes with them when they end, and the host never sees it.
# shellcheck shell=bash

containerd_start() {
    local folder
    cni_plugins
    write_file "$RUN/cni/conf/10-pods.conflist" <<JSON
{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [
    {
      "type": "ptp",
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "${POD_CIDR%.0.0/16}.0.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "store-clients", "namespace": "$NAMESPACE"}
  ]
}
JSON
    write_file "$RUN/containerd.toml" <<TOML
version = 2
root = "$DATA/containerd"
state = "$RUN/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[grpc]
  address = "$RUN/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE_IMAGE"
  # Without CAP_SYS_RESOURCE the kernel refuses a lower oom_score_adj, and with it every pod.
  restrict_oom_score_adj = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$RUN/cni/bin"
    conf_dir = "$RUN/cni/conf"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "$(snapshotter)"

  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
TOML
    for folder in "${NODE_PRIVATE_FOLDERS[@]}"; do mkdir -p "$folder"; done
    # What outlived its containerd is left in a mount namespace that the next one can't see into.
    if ! process_running containerd; then
        stop_process kubelet
        pods_end
        rm -rf "$RUN/containerd"
        stores_guard
    fi
    # shellcheck disable=SC2016
    start_process containerd unshare --mount bash -c '
        for folder in "${@:2}"; do mount -t tmpfs tmpfs "$folder"; done
        exec containerd --config "$1"' - "$RUN/containerd.toml" "${NODE_PRIVATE_FOLDERS[@]}"
    await_process containerd 30 ctr_ version
    image_present "$PAUSE_IMAGE" || pause_image | image_import
}

# Debian's plugins, and one of our own in the same folder: containerd looks into one only.
cni_plugins() {
    mkdir -p "$RUN/cni/bin" "$RUN/cni/conf"
    ln -sf /usr/lib/cni/* "$LIB/cluster/cni/store-clients" "$RUN/cni/bin/"
}

# The stores' firewall, as a cloud's security group would be: of all pods only those of LoggerHub's namespace reach them.
# The stores are none of the cluster's pods, so no NetworkPolicy guards them, and the servers see a pod's own address.
# All pods reach what the cluster has for them: its names and its API server. The CNI plugin `store-clients`
# keeps the set. Over IPv6 nobody comes: a pod has a link-local address that nobody gave it, and servers listen there too.
# Made with the node, when there are no pods yet.
stores_guard() {
    in_net nft -f - <<NFT
table ip store_guard
delete table ip store_guard
table ip store_guard {
    set clients { type ipv4_addr; }
    chain input {
        type filter hook input priority filter;
        ip saddr != $POD_CIDR accept
        ct state established,related accept
        ip saddr @clients accept
        meta l4proto { tcp, udp } th dport 53 accept
        tcp dport 6443 accept
        ip protocol icmp accept
        reject with icmp admin-prohibited
    }
}
table ip6 store_guard
delete table ip6 store_guard
table ip6 store_guard {
    chain input {
        type filter hook input priority filter;
        iifname != "lo" reject with icmpv6 admin-prohibited
    }
}
NFT
}

# Where containerd, its shims and the CNI plugins keep what belongs to running pods.
NODE_PRIVATE_FOLDERS=(/run/netns /run/containerd /var/lib/cni /var/log/containers)

# overlayfs, unless the state lies on a file system that overlayfs can't stand on (another overlay).
snapshotter() {
    local folder=$DATA/overlay-test
    mkdir -p "$folder"/{lower,upper,work,merged}
    if unshare --mount mount -t overlay overlay -o "lowerdir=$folder/lower,upperdir=$folder/upper,workdir=$folder/work" "$folder/merged" 2>/dev/null; then
        echo overlayfs
    else
        echo native
    fi
    rm -rf "$folder"
}

ctr_() { ctr --address "$RUN/containerd.sock" --namespace k8s.io "$@"; }

kubelet_start() {
    cgroups_make
    # Pods that ask for the node's own resolver get the cluster's: the host's may be out of reach.
    echo "nameserver $DNS_IP" >"$RUN/resolv.conf"
    write_file "$RUN/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $PKI/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: $PKI/kubelet.crt
tlsPrivateKeyFile: $PKI/kubelet.key
containerRuntimeEndpoint: unix://$RUN/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
makeIPTablesUtilChains: false
clusterDNS: [$DNS_IP]
clusterDomain: cluster.local
resolvConf: $RUN/resolv.conf
podLogsDir: $LOGS/pods
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
YAML
    start_process kubelet nsenter --mount="/proc/$(process_pid containerd)/ns/mnt" -- "$(kubernetes_bin)/kubelet" \
        --config="$RUN/kubelet.yaml" --kubeconfig="$PKI/kubelet.kubeconfig" --root-dir="$DATA/kubelet" \
        --hostname-override="$NODE" --node-ip="$NODE_IP"
    await_process kubelet 60 in_net curl -fsS -m 2 http://127.0.0.1:10248/healthz
}

kube_proxy_start() {
    # The connection-tracking limits are the host's, and not ours to write from a namespace.
    write_file "$RUN/kube-proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $PKI/kube-proxy.kubeconfig}
mode: nftables
clusterCIDR: $POD_CIDR
hostnameOverride: $NODE
oomScoreAdj: 0
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
YAML
    start_process kube-proxy "$(kubernetes_bin)/kube-proxy" --config="$RUN/kube-proxy.yaml"
    await_process kube-proxy 60 in_net curl -fsS -m 2 http://127.0.0.1:10256/healthz
}
