# One frame of every kind from the kernel's rxe, for crates/ibex-wire/tests/golden (its README has the command).
# shellcheck shell=sh
[ -d /usr/lib/python3/dist-packages/pyverbs ] || {
    say "pyverbs is missing on the host; as root: apt-get install python3-pyverbs"
    exit 1
}
setup_rxe_wire && PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 tests/vm/capture.py
