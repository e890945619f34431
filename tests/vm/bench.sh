# perftest over rxe0 and over the software device, in turns; for `cargo xtask vm-bench`, which puts
# `setup_rxe_dummy`, `setup_rxe_wire` and the variables libraries and rounds before it. Prints `program name row` for each result.
# shellcheck shell=sh
port=20000

# The software device in network namespaces of its own (rxe holds UDP port 4791 in this one): one for two processes on one
# host, two with a veth pair between them.
for name in own left right; do
    ip netns add $name && ip -n $name link set lo up || exit 1
done
ip -n left link add v type veth peer name v netns right &&
    ip -n left addr add 10.80.0.1/24 dev v && ip -n left link set v up &&
    ip -n right addr add 10.80.0.2/24 dev v && ip -n right link set v up || exit 1

# listening PID PORT: whether a TCP socket listens there (state 0A of proc(5)).
listening() {
    grep -q ":$(printf %04X "$2") [0-9A-F:]* 0A " "/proc/$1/net/tcp" "/proc/$1/net/tcp6" 2>/dev/null
}

# measure NAME OPTION…: a run of $program, the server on the second processor, the client on the first. What starts the two is
# in $server_prefix and $client_prefix (words on purpose), their devices in $server_device and $client_device.
# shellcheck disable=SC2086
measure() {
    name=$1
    shift
    port=$((port + 1))
    $server_prefix taskset -c 1 "$program" -d "$server_device" -x 1 -p $port "$@" >/dev/null 2>&1 &
    server=$!
    tries=0
    until listening $server $port; do
        tries=$((tries + 1))
        if [ $tries -ge 200 ]; then
            say "$program does not listen for $name"
            break
        fi
        sleep 0.1
    done
    timeout 60 $client_prefix taskset -c 0 "$program" -d "$client_device" -x 1 -p $port "$@" "$address" |
        sed -n "s/^ *\([0-9][0-9]* .*\)/$program $name \1/p"
    # It ends by itself, unless its client failed.
    sleep 0.5
    kill $server 2>/dev/null
    wait $server
}

# both NAME: a latency and a bandwidth.
both() {
    program=ib_send_lat
    measure "$1" -s 64 -n 1000
    program=ib_write_bw
    measure "$1" -s 65536 -n 1000
}

# on_rxe NAME SERVER CLIENT ADDRESS: over these devices of the kernel.
on_rxe() {
    server_prefix='' client_prefix='' server_device=$2 client_device=$3 address=$4
    both "$1"
}

# on_ibex NAME LINK SERVER CLIENT ADDRESS ADDRESS: over the software device in these namespaces, at their own addresses.
on_ibex() {
    environment="env LD_LIBRARY_PATH=$libraries IBEX_SOFT_LINK=$2"
    server_prefix="ip netns exec $3 $environment IBEX_SOFT_ADDR=$5"
    client_prefix="ip netns exec $4 $environment IBEX_SOFT_ADDR=$6"
    server_device=ibex0 client_device=ibex0 address=$5
    both "$1"
}

for round in $(seq "$rounds"); do
    say "round $round of $rounds"
    on_rxe rxe rxe0 rxe0 10.77.0.1
    on_ibex host host own own 127.0.0.1 127.0.0.1
    on_ibex wire wire own own 127.0.0.1 127.0.0.1
    on_rxe rxe-veth rxe2 rxe1 10.78.0.2
    on_ibex veth wire right left 10.80.0.2 10.80.0.1
done
