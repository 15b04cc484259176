# The cgroup below which the kubelet puts this instance's pods. Without one of its own, a kubelet
# would take another instance's pods for orphans and end them.
# shellcheck shell=bash

# The folders of our cgroup: one for each hierarchy of version 1, or the single one of
# version 2.
cgroup_folders() {
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        echo "/sys/fs/cgroup/$CGROUP"
    else
        awk -v name="$CGROUP" '$3 ~ "^cgroup2?$" && $2 ~ "^/sys/fs/cgroup/" { print $2 "/" name }' /proc/mounts
    fi
}

cgroups_make() {
    local folder file controller
    for folder in $(cgroup_folders); do
        mkdir -p "$folder"
        # A new cpuset is empty, and nothing can run in it, until it is told its parent's.
        for file in cpuset.cpus cpuset.mems; do
            if [ -e "$folder/$file" ] && [ -e "$folder/../$file" ]; then
                cat "$folder/../$file" >"$folder/$file"
            fi
        done
        if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
            for controller in cpuset cpu io memory pids; do
                echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true
            done
        fi
    done
}

cgroup_pids() {
    local folder
    for folder in $(cgroup_folders); do
        [ ! -d "$folder" ] || find "$folder" -name cgroup.procs -exec cat {} + 2>/dev/null
    done | sort -un
}

cgroups_remove() {
    local folder
    for folder in $(cgroup_folders); do
        [ ! -d "$folder" ] || find "$folder" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done
}

# Ends every process of every pod, politely for ten seconds.
pods_end() {
    local deadline=$((SECONDS + 10)) signal=TERM pids
    while pids=$(cgroup_pids) && [ -n "$pids" ]; do
        # shellcheck disable=SC2086
        kill -$signal $pids 2>/dev/null || true
        [ $SECONDS -lt $deadline ] || signal=KILL
        sleep 0.3
    done
    # Each pod's shim is told by the socket that it reports to.
    pids=$(pgrep -f "containerd-shim-runc-v2 .*-address $RUN/containerd.sock" || true)
    # shellcheck disable=SC2086
    [ -z "$pids" ] || kill -KILL $pids 2>/dev/null || true
}
