#!/bin/busybox sh
# First process of the virtual machine, run by busybox from the initramfs that `cargo xtask vm` builds.
#
# It loads the modules (already in load order), puts a writable layer of memory over the host's root, mounts the
# folder shared with the host, runs the script found there and reports its exit code. Standard output and error
# leave by two virtio ports, so kernel messages (serial console) never mix with them.
#
# Kernel arguments: ibex.mark=<unique word> ibex.limit=<seconds>.

export PATH=/bin
/bin/busybox mkdir -p /proc /sys /dev /host /rw /new
/bin/busybox --install -s /bin

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev

mark=
limit=
read -r cmdline </proc/cmdline
for word in $cmdline; do
    case $word in
    ibex.mark=*) mark=${word#*=} ;;
    ibex.limit=*) limit=${word#*=} ;;
    esac
done

die() {
    echo "ibex-vm: $*" >/dev/console
    sleep 1
    poweroff -f
}

# If the host forgets this machine it ends itself.
(
    sleep "$limit"
    poweroff -f
) >/dev/null 2>&1 &

for module in /modules/*; do
    insmod "$module" || die "cannot load $module"
done

tries=0
while [ ! -c /dev/vport0p1 ] || [ ! -c /dev/vport0p2 ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || die "no virtio ports"
    sleep 0.1
done
exec 3>/dev/vport0p1 4>/dev/vport0p2

mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,ro,cache=loose host /host || die "no host root"
mount -t tmpfs -o size=75% rw /rw && mkdir -p /rw/upper /rw/work
mount -t overlay -o lowerdir=/host,upperdir=/rw/upper,workdir=/rw/work root /new || die "no overlay"

mount -t proc proc /new/proc
mount -t sysfs sys /new/sys
mount -t devtmpfs dev /new/dev
mkdir -p /new/dev/pts /new/dev/shm
mount -t devpts -o ptmxmode=666 pts /new/dev/pts
mount -t tmpfs shm /new/dev/shm
mount -t tmpfs run /new/run
mkdir -p /new/run/ibex /new/run/lock
# No cache: what the guest writes here the host sees at once, and the machine is killed, not shut down.
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=none share /new/run/ibex || die "no shared folder"

hostname ibex-vm
ip link set lo up
# This shell is busybox's, which has both limits.
# shellcheck disable=SC3045
ulimit -l unlimited -c 0

printf '\036%s ready\n' "$mark" >&3
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin IBEX_SHARE=/run/ibex
chroot /new /bin/sh /run/ibex/script.sh >&3 2>&4 </dev/null 3>&- 4>&-
code=$?
export PATH=/bin
dmesg >/new/run/ibex/dmesg.log
printf '\036%s exit 0\n' "$mark" >&4
printf '\036%s exit %d\n' "$mark" "$code" >&3

# The host ends the machine as soon as it has read both lines.
sleep 60
poweroff -f
