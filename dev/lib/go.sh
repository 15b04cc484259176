# Kubernetes, Helm, CoreDNS and MinIO, built from the Go module proxy by the versions in go.mod and
# go.sum. The binaries are kept under a hash of what they are made from.
# shellcheck shell=bash

KUBERNETES_COMMANDS=(kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet)

kubernetes_bin() { go_bin kubernetes; }
minio_bin() { go_bin minio; }

go_bin() {
    local hash
    hash=$(cd "$DEV/$1" && find . -name '*.go' -o -name 'go.*' | LC_ALL=C sort | xargs cat | sha256sum | cut -c1-16)
    echo "$CACHE/$1/$hash"
}

kubernetes_build() {
    local version
    version=$(sed -nE 's|^\s*k8s.io/kubernetes (v\S+).*|\1|p' "$DEV/kubernetes/go.mod")
    with_lock kubernetes go_build kubernetes "-X k8s.io/component-base/version.gitVersion=$version" \
        "${KUBERNETES_COMMANDS[@]/#/k8s.io/kubernetes/cmd/}" helm.sh/helm/v3/cmd/helm ./coredns
}

minio_build() { with_lock minio go_build minio '' github.com/minio/minio; }

go_build() { # MODULE LDFLAGS PACKAGES...
    local module=$1 ldflags=$2 bin
    shift 2
    bin=$(go_bin "$module")
    [ ! -d "$bin" ] || return 0
    mkdir -p "$bin.part"
    # -v names each package as it is compiled: that is the progress people see.
    (cd "$DEV/$module" && CGO_ENABLED=0 go build -v -trimpath -ldflags "-s -w $ldflags" -o "$bin.part/" "$@")
    mv "$bin.part" "$bin"
}
