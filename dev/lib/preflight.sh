# What this machine must offer, looked at before anything is installed or built.
# shellcheck shell=bash

PROBLEMS=()

problem() { PROBLEMS+=("$1"$'\n'"      $2"); }

preflight() {
    case ${LOGGERHUB_CLUSTER:-} in
        '') preflight_local ;;
        current) preflight_current ;;
        kind) preflight_kind ;;
        *) problem "a cluster called $LOGGERHUB_CLUSTER" 'LOGGERHUB_CLUSTER is current or kind, or not set' ;;
    esac
    [ ${#PROBLEMS[@]} -gt 0 ] || return 0
    printf '%sThis machine lacks:%s\n' "$RED" "$PLAIN" >&2
    printf '  - %s\n' "${PROBLEMS[@]}" >&2
    exit 1
}

preflight_current() {
    local name
    for name in kubectl helm; do
        command -v $name >/dev/null || problem "$name" "install it: LOGGERHUB_CLUSTER=current works through your own"
    done
    for name in LOGGERHUB_IMAGE LOGGERHUB_OPERATOR_IMAGE LOGGERHUB_POSTGRES_HOST LOGGERHUB_POSTGRES_USERNAME LOGGERHUB_POSTGRES_PASSWORD \
        LOGGERHUB_REDIS_QUEUE_URL LOGGERHUB_REDIS_CACHE_URL LOGGERHUB_S3_ENDPOINT LOGGERHUB_S3_ACCESS_KEY_ID \
        LOGGERHUB_S3_SECRET_ACCESS_KEY LOGGERHUB_OPENSEARCH_URL; do
        [ -n "${!name:-}" ] || problem "the variable $name" 'set it, in the environment or in .env: see .env.example'
    done
}

preflight_kind() {
    local name engine
    for name in kind kubectl helm; do
        command -v $name >/dev/null || problem "$name" 'install it: LOGGERHUB_CLUSTER=kind works through your own'
    done
    if ! engine=$(kind_engine); then
        problem 'a container engine that answers' "install or start ${KIND_EXPERIMENTAL_PROVIDER:-docker or podman}; \`docker info\` says why it does not answer"
    elif [ "$engine" = docker ] && ! docker buildx version >/dev/null 2>&1; then
        problem 'buildx of docker' 'install docker-buildx (docker-buildx-plugin): the Dockerfile keeps its builds in a cache of BuildKit'
    fi
}

preflight_local() {
    preflight_containers
    command -v apt-get >/dev/null || problem 'apt-get' 'the stores come from Debian 12; elsewhere use LOGGERHUB_CLUSTER=current'
    preflight_tools
    preflight_room
    preflight_ports
}

# The rights and kernel features that containers stand on.
preflight_containers() {
    local other='or use a cluster that you have: LOGGERHUB_CLUSTER=current'
    [ "$(id -u)" = 0 ] || { problem 'root rights' "run as root, $other" && return; }
    if [ ! -e /sys/fs/cgroup/cgroup.controllers ] && ! grep -q ' /sys/fs/cgroup/memory ' /proc/mounts; then
        problem 'mounted cgroups' "mount them (mount -t cgroup2 none /sys/fs/cgroup), $other"
    elif ! cgroups_writable; then
        problem 'cgroups that we may write' "in a container: start it privileged; $other"
    fi
    unshare --net true 2>/dev/null || problem 'network namespaces' "CAP_SYS_ADMIN and CONFIG_NET_NS are needed, $other"
    unshare --mount true 2>/dev/null || problem 'mount namespaces' "CAP_SYS_ADMIN is needed, $other"
    if command -v ip >/dev/null && ! unshare --net ip link add probe0 type veth peer name probe1 2>/dev/null; then
        problem 'veth network devices' "CAP_NET_ADMIN and the kernel's veth are needed, $other"
    fi
}

cgroups_writable() {
    local folder
    folder=$(cgroup_folders | head -n 1)-probe
    mkdir "$folder" 2>/dev/null && rmdir "$folder"
}

preflight_tools() {
    command -v cargo >/dev/null || problem 'cargo' "install Rust with rustup; the version stands in rust-toolchain.toml"
    command -v cc >/dev/null || problem 'a C compiler' 'apt-get install build-essential cmake'
    command -v go >/dev/null || problem 'go' 'install Go 1.21 or newer; it fetches the version in dev/kubernetes/go.mod itself'
    java_home >/dev/null || problem "a JDK $JAVA_NEEDED or newer" 'OpenSearch 3 runs on it: install one under /usr/lib/jvm, or set JAVA_HOME'
}

preflight_room() {
    local needed=20 free memory
    # With everything built, only the data grows.
    [ ! -d "$(kubernetes_bin)" ] || needed=4
    mkdir -p "$CACHE"
    free=$(df --output=avail -BG "$CACHE" | tail -n 1 | tr -dc 0-9)
    [ "$free" -ge $needed ] || problem "$needed GB of disk (there are $free)" "make room in $CACHE, or set LOGGERHUB_CACHE"
    memory=$(awk '/^MemAvailable/ { print int($2 / 1024 / 1024) }' /proc/meminfo)
    [ "$memory" -ge 4 ] || problem "4 GiB of free memory (there are $memory)" 'end something else; OpenSearch and the builds need most of it'
}

# The front doors are all that we open on the host itself.
preflight_ports() {
    local port door holder
    for door in gateway ingest; do
        ! process_running "door-$door" || continue
        port=$(door_port $door)
        holder=$(port_holder "$port")
        [ -z "$holder" ] || problem "port $port on 127.0.0.1, for the $door" "it is held by $holder"
    done
}

# Who listens on a port, in words; nothing if nobody does. Read from /proc, since ss may not be there.
port_holder() {
    local inode link pid
    inode=$(awk -v port="$(printf '%04X' "$1")" '
        # Loopback or every address, of either protocol, in the order in which the kernel prints bytes.
        { split($2, local, ":") }
        $4 == "0A" && local[2] == port && (local[1] ~ /^0+$/ || local[1] ~ /0100007F$/) { print $10; exit }
    ' /proc/net/tcp /proc/net/tcp6 2>/dev/null)
    [ -n "$inode" ] || return 0
    for link in /proc/[0-9]*/fd/*; do
        [ "$(readlink "$link" 2>/dev/null)" = "socket:[$inode]" ] || continue
        pid=$(cut -d/ -f3 <<<"$link")
        echo "pid $pid: $(tr '\0' ' ' <"/proc/$pid/cmdline")"
        return
    done
    echo 'a process that we may not see'
}
