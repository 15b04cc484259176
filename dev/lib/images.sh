# Container images without a container engine: a root file system made by hand, packed as an engine
# would save it, imported into the instance's containerd. `Dockerfile` makes the same for others.
# shellcheck shell=bash

# A made-up registry: nothing is ever pulled from it.
IMAGE_REGISTRY=loggerhub.local
PAUSE_IMAGE=$IMAGE_REGISTRY/pause:1
IMAGE_USER=65532

image_present() { ctr_ images list -q | grep -qx "$1"; }
image_import() { ctr_ images import --snapshotter "$(snapshotter)" - >/dev/null; }

# What holds a pod's namespaces: a process that does nothing, and ends when told.
pause_image() {
    local root
    root=$(mktemp -d)
    install -D "$(command -v busybox)" "$root/bin/busybox"
    image_archive "$root" "$PAUSE_IMAGE" '["/bin/busybox", "sh", "-c", "trap exit TERM; sleep 2147483647 & wait"]'
    rm -rf "$root"
}

# A program's image: the program, the libraries that its loader asks for, a user, the CAs.
program_image() { # BINARY REFERENCE
    local root file
    root=$(mktemp -d)
    install -D "$1" "$root/usr/local/bin/$(basename "$1")"
    for file in $(ldd "$1" | grep -oE '/[^ ]+'); do install -D "$file" "$root$file"; done
    mkdir -p "$root"/{etc,tmp,home/loggerhub}
    chmod 1777 "$root/tmp"
    echo "loggerhub:x:$IMAGE_USER:$IMAGE_USER:LoggerHub:/home/loggerhub:/sbin/nologin" >"$root/etc/passwd"
    echo "loggerhub:x:$IMAGE_USER:" >"$root/etc/group"
    echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
    install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    image_archive "$root" "$2" "[\"/usr/local/bin/$(basename "$1")\"]"
    rm -rf "$root"
}

# Writes a `docker save` archive of one layer to standard output.
image_archive() { # ROOT REFERENCE ENTRYPOINT
    local work
    work=$(mktemp -d)
    tar -C "$1" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$work/layer.tar" .
    cat >"$work/config.json" <<JSON
{
  "architecture": "$(dpkg --print-architecture)",
  "os": "linux",
  "config": {"Entrypoint": $3, "User": "$IMAGE_USER:$IMAGE_USER", "Env": ["PATH=/usr/local/bin:/bin"], "WorkingDir": "/"},
  "rootfs": {"type": "layers", "diff_ids": ["sha256:$(sha256sum "$work/layer.tar" | cut -d' ' -f1)"]}
}
JSON
    echo "[{\"Config\": \"config.json\", \"RepoTags\": [\"$2\"], \"Layers\": [\"layer.tar\"]}]" >"$work/manifest.json"
    tar -C "$work" -cf - manifest.json config.json layer.tar
    rm -rf "$work"
}

# The images of the programs as they are now. The tag is made of their content, so that a changed
# program is a changed Deployment, and an unchanged one is not.
images_import() {
    local name reference other
    for name in loggerhub loggerhub-operator; do
        reference=$IMAGE_REGISTRY/$name:$(image_tag "$name")
        image_present "$reference" || program_image "$(program "$name")" "$reference" | image_import
        for other in $(ctr_ images list -q | grep "^$IMAGE_REGISTRY/$name:" | grep -vx "$reference"); do
            ctr_ images rm "$other" >/dev/null
        done
    done
}

image_tag() { sha256sum "$(program "$1")" | cut -c1-12; }
