# NetworkPolicies, enforced by kube-router beside the node: with iptables and sets of addresses, in the node's network.
# shellcheck shell=bash

policies_start() {
    if [ ! -e "$PKI/kube-router.kubeconfig" ]; then
        pki_certificate kube-router /CN=system:kube-router
        pki_kubeconfig kube-router
    fi
    kube apply --server-side -f - >/dev/null <<'YAML'
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: system:kube-router}
rules:
- {apiGroups: [""], resources: [pods, namespaces], verbs: [list, watch]}
- {apiGroups: [""], resources: [nodes], verbs: [get]}
- {apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: system:kube-router}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: system:kube-router}
subjects:
- {apiGroup: rbac.authorization.k8s.io, kind: User, name: system:kube-router}
YAML
    start_process kube-router "$(kubernetes_bin)/kube-router" --kubeconfig "$PKI/kube-router.kubeconfig" \
        --hostname-override "$NODE" --service-cluster-ip-range "$SERVICE_CIDR"
    await_process kube-router 60 in_net curl -fsS -m 2 http://127.0.0.1:20244/healthz
}
