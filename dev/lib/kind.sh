# A cluster of kind's, with the container engine that is here: images by the Dockerfile, the stores of
# manifests/evaluation. All else is done as on any cluster of the current context, which is this one.
# shellcheck shell=bash

kind_cluster() { echo "loggerhub-$INSTANCE"; }
# Apart from the person's own kubeconfig, whose current context stays as it is.
kind_kubeconfig() { echo "$STATE/kind.kubeconfig"; }
# Says that the cluster is of our making, and so ours to delete.
kind_made() { echo "$STATE/kind.made"; }
kind_there() { kind_ get clusters 2>/dev/null | grep -qx "$(kind_cluster)"; }

kind_up() {
    step_begin images 'container images, by the Dockerfile' kind_images_build
    step cluster "kind cluster $(kind_cluster)" kind_cluster_up
    step_begin stores 'PostgreSQL, Redis (queue, cache), MinIO, OpenSearch' kind_stores_up
    step_await images
    step load 'images into the cluster' kind_images_load
    step_await stores
}

kind_cluster_up() {
    if kind_there; then
        kind_ export kubeconfig --name "$(kind_cluster)" --kubeconfig "$(kind_kubeconfig)"
    else
        # First: one whose making was broken off is ours too.
        touch "$(kind_made)"
        kind_ create cluster --name "$(kind_cluster)" --kubeconfig "$(kind_kubeconfig)" --wait 3m
    fi
}

# Deletes the cluster, unless somebody else made it.
kind_down() {
    kind_ delete cluster --name "$(kind_cluster)" --kubeconfig "$(kind_kubeconfig)"
    rm -f "$(kind_made)" "$(kind_kubeconfig)"
    say "the kind cluster $(kind_cluster) is deleted, with its data; images stay in $(kind_engine)"
}

kind_() { KIND_EXPERIMENTAL_PROVIDER=$(kind_engine) kind "$@"; }

# The engine that kind is told to take, or the first that answers.
kind_engine() {
    local engine
    for engine in ${KIND_EXPERIMENTAL_PROVIDER:-docker podman}; do
        ! "$engine" info >/dev/null 2>&1 || { echo "$engine" && return; }
    done
    return 1
}

# Tagged by what they hold, so that a changed program is a changed Deployment, and an unchanged one is not.
kind_images_build() {
    local engine name id
    engine=$(kind_engine)
    for name in loggerhub loggerhub-operator; do
        # Without a record of when and where it was built, which would make it another image each time.
        BUILDX_NO_DEFAULT_ATTESTATIONS=1 "$engine" build --target "$name" --iidfile "$RUN/kind-id" "$ROOT"
        id=$(sed 's/^sha256://' "$RUN/kind-id")
        echo "$IMAGE_REGISTRY/$name:${id:0:12}" >"$RUN/kind-$name"
        "$engine" tag "$id" "$(kind_image "$name")"
    done
}

kind_image() { cat "$RUN/kind-$1"; }

kind_images_load() {
    local engine name archive=$RUN/kind-image.tar
    engine=$(kind_engine)
    for name in loggerhub loggerhub-operator; do
        if [ "$engine" = docker ]; then
            kind_ load docker-image "$(kind_image "$name")" --name "$(kind_cluster)"
        else
            rm -f "$archive"
            "$engine" save -o "$archive" "$(kind_image "$name")"
            kind_ load image-archive "$archive" --name "$(kind_cluster)"
            rm "$archive"
        fi
    done
}

kind_stores_up() {
    install_namespace "$NAMESPACE"
    "$ROOT/manifests/evaluation/secrets.sh" "$NAMESPACE"
    kube -n "$NAMESPACE" apply -f "$ROOT/manifests/evaluation/stores"
    # Their images come from afar the first time.
    kube -n "$NAMESPACE" rollout status statefulset,deployment -l app.kubernetes.io/part-of=loggerhub-evaluation --timeout=15m
}
