# Shell functions for scripts that run inside the virtual machine (POSIX sh; sourced before every script).
#
# Addresses: 10.77.0.1/24 on dummy0 (rxe0); 10.78.0.1/24 on v0 (rxe1) and 10.78.0.2/24 on v1 in namespace b.
# shellcheck shell=sh

# say TEXT: a line on standard error, so that standard output stays what the programs print.
say() {
    echo "vm: $*" >&2
}

# wait_active DEVICE: until port 1 of the device is ACTIVE and has an IPv4 GID (index 1), at most 10 s.
wait_active() {
    wait_active_tries=0
    while :; do
        case $(cat "/sys/class/infiniband/$1/ports/1/state" 2>/dev/null) in
        *ACTIVE*)
            case $(cat "/sys/class/infiniband/$1/ports/1/gids/1" 2>/dev/null) in
            0000:0000:0000:0000:0000:ffff:*) return 0 ;;
            esac
            ;;
        esac
        wait_active_tries=$((wait_active_tries + 1))
        if [ "$wait_active_tries" -ge 100 ]; then
            say "$1 did not become active with an IPv4 GID"
            return 1
        fi
        sleep 0.1
    done
}

# setup_rxe_dummy: rxe0 on dummy0 (the module makes dummy0 by itself). Packets to itself never leave the device.
setup_rxe_dummy() {
    ip addr add 10.77.0.1/24 dev dummy0 &&
        ip link set dummy0 up &&
        rdma link add rxe0 type rxe netdev dummy0 &&
        wait_active rxe0
}

# setup_veth: the pair v0 <-> v1, both here, no addresses. Checksums are computed, as on a real wire.
setup_veth() {
    ip link add v0 address 02:00:00:00:78:01 type veth peer name v1 address 02:00:00:00:78:02
}

# setup_netns_pair: v0 with rxe1 here, v1 in network namespace b (for the software device: `in_b command …`).
setup_netns_pair() {
    ip netns add b &&
        setup_veth &&
        ip link set v1 netns b &&
        ip addr add 10.78.0.1/24 dev v0 &&
        ip link set v0 up &&
        ip -n b addr add 10.78.0.2/24 dev v1 &&
        ip -n b link set lo up &&
        ip -n b link set v1 up &&
        rdma link add rxe1 type rxe netdev v0 &&
        wait_active rxe1
}

# in_b COMMAND…: runs a command in network namespace b.
in_b() {
    ip netns exec b "$@"
}

# set_loss PERCENT: drops that share of packets in both directions of the pair (0 = none). Needs setup_netns_pair.
set_loss() {
    if [ "$1" = 0 ]; then
        tc qdisc del dev v0 root 2>/dev/null
        tc -n b qdisc del dev v1 root 2>/dev/null
        return 0
    fi
    tc qdisc replace dev v0 root netem limit 10000 loss "$1%" &&
        tc -n b qdisc replace dev v1 root netem limit 10000 loss "$1%"
}

# setup_rxe_wire: rxe1 on v0 and rxe2 on v1, both here, and packets between them really cross the pair, as between two
# hosts (rxe binds UDP 4791 in this namespace only). IPv4 as above, GID 1; IPv6 fd78::1 and fd78::2, the last GID.
#
# Both addresses are local, so by default packets would turn round before the interface. Hence: what arrives is
# local (10), what goes from one to the other leaves by its interface (20), the usual rule (0) comes after (30), and
# neighbours are fixed.
setup_rxe_wire() {
    setup_veth && wire_end v0 1 2 && wire_end v1 2 1 &&
        ip rule add pref 30 lookup local && ip rule del pref 0 &&
        ip -6 rule add pref 30 lookup local && ip -6 rule del pref 0 &&
        rdma link add rxe1 type rxe netdev v0 &&
        rdma link add rxe2 type rxe netdev v1 &&
        wait_active rxe1 &&
        wait_active rxe2
}

# wire_end INTERFACE OWN PEER: one end of setup_rxe_wire, with the last numbers of the addresses.
wire_end() {
    # An address of this host may come in from outside, which rp_filter and accept_local would refuse.
    echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter &&
        echo 0 >"/proc/sys/net/ipv4/conf/$1/rp_filter" &&
        echo 1 >"/proc/sys/net/ipv4/conf/$1/accept_local" &&
        ip addr add "10.78.0.$2/24" dev "$1" &&
        ip addr add "fd78::$2/64" dev "$1" nodad &&
        ip link set "$1" up &&
        ip neigh replace "10.78.0.$3" lladdr "02:00:00:00:78:0$3" nud permanent dev "$1" &&
        ip neigh replace "fd78::$3" lladdr "02:00:00:00:78:0$3" nud permanent dev "$1" &&
        ip route add "10.78.0.$3" dev "$1" table "10$2" &&
        ip -6 route add "fd78::$3" dev "$1" table "10$2" &&
        ip rule add pref 10 iif "$1" lookup local &&
        ip -6 rule add pref 10 iif "$1" lookup local &&
        ip rule add pref 20 from "10.78.0.$2" to "10.78.0.$3" lookup "10$2" &&
        ip -6 rule add pref 20 from "fd78::$2" to "fd78::$3" lookup "10$2"
}

# setup_cm_routes: after setup_rxe_wire, lets the kernel's rdma_cm connect rxe1 and rxe2. For every request it asks the
# routing table for the way back to the sender, as if the answer had come in by the same interface; that way must
# lead out by that interface, where the rule for arriving packets would say "local".
setup_cm_routes() {
    ip rule add pref 5 iif v0 from 10.78.0.1 to 10.78.0.2 lookup 101 &&
        ip rule add pref 5 iif v1 from 10.78.0.2 to 10.78.0.1 lookup 102 &&
        ip -6 rule add pref 5 iif v0 from fd78::1 to fd78::2 lookup 101 &&
        ip -6 rule add pref 5 iif v1 from fd78::2 to fd78::1 lookup 102
}
