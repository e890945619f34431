# Connection messages of the kernel's rdma_cm, for crates/ibex-wire/tests/golden (its README has the command).
# shellcheck shell=sh
[ -d /usr/lib/python3/dist-packages/pyverbs ] || {
    say "pyverbs is missing on the host; as root: apt-get install python3-pyverbs rdmacm-utils"
    exit 1
}
setup_rxe_wire && setup_cm_routes && PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 tests/vm/cm_capture.py
