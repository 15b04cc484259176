# The instance's network: a namespace, joined to the host by a veth pair. All its servers listen on
# their usual ports in there, and two instances cannot meet.
# shellcheck shell=bash

# `ip netns exec` would mount a fresh /sys and lose the cgroup mounts below it; nsenter does not.
in_net() { nsenter --net="$NETNS" -- "$@"; }

net_up() {
    [ -e "$NETNS" ] || ip netns add "lh-$INSTANCE"
    local ip=(ip -n "lh-$INSTANCE")
    "${ip[@]}" link set lo up
    if [ ! -e "/sys/class/net/$LINK" ]; then
        ip link add "$LINK" type veth peer name eth0 netns "lh-$INSTANCE"
        ip addr add "$HOST_IP/30" dev "$LINK"
        ip link set "$LINK" up
        "${ip[@]}" addr add "$NODE_IP/30" dev eth0
        "${ip[@]}" link set eth0 up
        "${ip[@]}" route add default via "$HOST_IP"
    fi
    in_net sysctl -qw net.ipv4.ip_forward=1
    # What pods send beyond the node leaves with the node's address.
    in_net nft -f - <<'NFT'
table ip loggerhub
delete table ip loggerhub
table ip loggerhub {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        ip saddr 10.244.0.0/16 oifname "eth0" masquerade
    }
}
NFT
}

net_down() {
    # The veth pair goes with the namespace, once its last process is gone.
    [ ! -e "/sys/class/net/$LINK" ] || ip link del "$LINK"
    [ ! -e "$NETNS" ] || ip netns del "lh-$INSTANCE"
}
