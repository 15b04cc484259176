# Kubernetes, Helm, CoreDNS, kube-router, MinIO and logcli, built from the Go module proxy by the versions in go.mod and
# go.sum. The binaries are kept under a hash of what they are made from.
# shellcheck shell=bash

KUBERNETES_COMMANDS=(kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet)

kubernetes_bin() { go_bin kubernetes; }
minio_bin() { go_bin minio; }
logcli_bin() { go_bin logcli; }

go_bin() {
    local hash
    hash=$(cd "$DEV/$1" && find . -name '*.go' -o -name 'go.*' | LC_ALL=C sort | xargs cat | sha256sum | cut -c1-16)
    echo "$CACHE/$1/$hash"
}

kubernetes_build() {
    local kubernetes helm minor
    kubernetes=$(go_version kubernetes k8s.io/kubernetes)
    helm=$(go_version kubernetes helm.sh/helm/v3)
    minor=$(cut -d. -f2 <<<"$kubernetes")
    # Helm has to be told which Kubernetes to speak of when it has no cluster to ask.
    with_lock kubernetes go_build kubernetes \
        "-X k8s.io/component-base/version.gitVersion=$kubernetes \
        -X helm.sh/helm/v3/internal/version.version=$helm \
        -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=$minor \
        -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=$minor" \
        "${KUBERNETES_COMMANDS[@]/#/k8s.io/kubernetes/cmd/}" helm.sh/helm/v3/cmd/helm ./coredns ./kube-router
}

go_version() { awk -v module="$2" '$1 == module { print $2; exit }' "$DEV/$1/go.mod"; }

minio_build() { with_lock minio go_build minio '' github.com/minio/minio; }

logcli_build() { with_lock logcli go_build logcli '' github.com/grafana/loki/cmd/logcli; }

go_build() { # MODULE LDFLAGS PACKAGES...
    local module=$1 ldflags=$2 bin
    shift 2
    bin=$(go_bin "$module")
    [ ! -d "$bin" ] || return 0
    mkdir -p "$bin.part"
    # A lazier garbage collector: the compiler runs it less often, for memory that we have.
    # -v names each package as it is compiled: that is the progress people see.
    (cd "$DEV/$module" && GOGC=400 CGO_ENABLED=0 go build -v -trimpath -ldflags "-s -w $ldflags" -o "$bin.part/" "$@")
    mv "$bin.part" "$bin"
}
