# perftest over rxe0 and over the software device, in turns; for `cargo xtask vm-bench`, which puts
# `setup_rxe_dummy` and the variables libraries and rounds before it. Prints `program link row` for each result.
# shellcheck shell=sh
port=20000

# listening PORT: whether a TCP socket listens there (state 0A of proc(5)).
listening() {
    grep -q ":$(printf %04X "$1") [0-9A-F:]* 0A " /proc/net/tcp /proc/net/tcp6
}

# measure LINK DEVICE ADDRESS PROGRAM OPTION…: one run, the server on the second processor and the client on the first.
measure() {
    link=$1 device=$2 address=$3 program=$4
    shift 4
    port=$((port + 1))
    taskset -c 1 "$program" -d "$device" -x 1 -p $port "$@" >/dev/null 2>&1 &
    server=$!
    tries=0
    until listening $port; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || { say "$program does not listen"; return 1; }
        sleep 0.1
    done
    timeout 60 taskset -c 0 "$program" -d "$device" -x 1 -p $port "$@" "$address" |
        sed -n "s/^ *\([0-9][0-9]* .*\)/$program $link \1/p"
    wait $server
}

for round in $(seq "$rounds"); do
    say "round $round"
    measure rxe rxe0 10.77.0.1 ib_send_lat -s 64 -n 1000
    measure rxe rxe0 10.77.0.1 ib_write_bw -s 65536 -n 1000
    for link in host wire; do
        export LD_LIBRARY_PATH="$libraries" IBEX_SOFT_LINK=$link
        measure $link ibex0 127.0.0.1 ib_send_lat -s 64 -n 1000
        measure $link ibex0 127.0.0.1 ib_write_bw -s 65536 -n 1000
        unset LD_LIBRARY_PATH IBEX_SOFT_LINK
    done
done
