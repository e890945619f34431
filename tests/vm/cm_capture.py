"""Connection messages of the kernel's rdma_cm, one exchange of each kind, for the golden files of ibex-wire.

Runs in the virtual machine after `setup_rxe_wire` and `setup_cm_routes` (tests/vm/lib.sh) with Debian's
python3-pyverbs and rdmacm-utils: an active side at rxe1 and a passive side at rxe2 connect, refuse and part, and a
raw socket on v1 sees every frame to queue pair 1 once. Prints one line a frame: `<scenario>-<number>`, a blank, the
frame in hexadecimal. Communication ids, queue pair numbers, transaction ids and packet sequence numbers are the
kernel's own and differ from run to run; addresses, ports and private data do not.

The sides are processes of their own (`cm_capture.py active|passive …`): pyverbs holds Python's lock while it waits.
"""

import os
import socket
import subprocess
import sys
import time

HOSTS = {4: ("10.78.0.1", "10.78.0.2"), 6: ("fd78::1", "fd78::2")}
# A service that shows in the service id: 0x7530.
PORT = "30000"
# Private data that shows its length and where each byte belongs.
REQUEST = bytes(range(0x10, 0x10 + 56))
REPLY = bytes(i & 0xFF for i in range(0x40, 0x40 + 196))
REFUSAL = bytes(range(0x70, 0x70 + 20))


def make_id(version, passive):
    """A synchronous rdma_cm_id with a queue pair's wishes, bound or routed."""
    import pyverbs.cm_enums as ce
    from pyverbs.cmid import CMID, AddrInfo
    from pyverbs.qp import QPCap, QPInitAttr

    own, peer = HOSTS[version]
    init = QPInitAttr(qp_type=2, cap=QPCap(max_send_wr=4, max_recv_wr=4))
    if passive:
        info = AddrInfo(src=peer, src_service=PORT, port_space=ce.RDMA_PS_TCP, flags=ce.RAI_PASSIVE)
    else:
        info = AddrInfo(src=own, dst=peer, dst_service=PORT, port_space=ce.RDMA_PS_TCP)
    return CMID(creator=info, qp_init_attr=init)


def parameters(data):
    from pyverbs.cmid import ConnParam

    param = ConnParam(resources=3, depth=5, retry=6, rnr_retry=7, data_len=len(data))
    param.set_private_data(data)
    return param


def passive(version, answer):
    listener = make_id(version, True)
    listener.listen(4)
    print("listening", flush=True)
    request = listener.get_request()
    if answer == "reject":
        request.reject(REFUSAL)
    else:
        request.accept(parameters(REPLY))
    # Until the other side has parted. Destroying a refused id does not return, so nothing is cleaned up.
    time.sleep(1)
    os._exit(0)


def active(version):
    from pyverbs.pyverbs_error import PyverbsError

    cmid = make_id(version, False)
    try:
        cmid.connect(parameters(REQUEST))
    except PyverbsError as error:
        print(error, file=sys.stderr)
        return
    time.sleep(0.3)
    cmid.disconnect()


def side(*words):
    return subprocess.Popen([sys.executable, __file__, *map(str, words)], stdout=subprocess.PIPE)


def connect(version, answer):
    """An exchange over the RDMA_PS_TCP port space; without an answer nobody listens."""
    server = None
    if answer is not None:
        server = side("passive", version, answer)
        server.stdout.readline()
    client = side("active", version)
    client.wait(30)
    if server is not None:
        server.wait(30)


def udp(version, listens):
    """An exchange over RDMA_PS_UDP (SIDR), by Debian's udaddy."""
    own, peer = HOSTS[version]
    family = [] if version == 4 else ["-f", "ipv6"]
    server = None
    if listens:
        server = subprocess.Popen(["udaddy", "-b", peer, "-c", "1", "-C", "1", *family], stdout=2)
        time.sleep(0.5)
    client = ["udaddy", "-s", peer, "-b", own, "-c", "1", "-C", "1", *family]
    subprocess.run(client, stdout=2, timeout=30, check=False)
    if server is not None:
        server.wait(30)


SCENARIOS = {
    "connect": lambda: connect(4, "accept"),
    "reject": lambda: connect(4, "reject"),
    "no_listener": lambda: connect(4, None),
    "v6_connect": lambda: connect(6, "accept"),
    "sidr": lambda: udp(4, True),
    "sidr_no_listener": lambda: udp(4, False),
    "v6_sidr": lambda: udp(6, True),
}


def frames(raw):
    """Every RoCEv2 frame to queue pair 1 that the socket has seen."""
    while True:
        try:
            frame = raw.recv(65535)
        except BlockingIOError:
            return
        kind = frame[12:14]
        network = {b"\x08\x00": 20, b"\x86\xdd": 40}.get(kind)
        if network is None or frame[23 if network == 20 else 20] != 17:
            continue
        udp_header = 14 + network
        bth = udp_header + 8
        to_cm = frame[udp_header + 2 : udp_header + 4] == (4791).to_bytes(2, "big")
        if to_cm and frame[bth + 5 : bth + 8] == b"\x00\x00\x01":
            yield frame


def main():
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    raw.bind(("v1", 0))
    raw.setblocking(False)
    for name, scenario in SCENARIOS.items():
        scenario()
        time.sleep(0.1)
        seen = list(frames(raw))
        if not seen:
            raise SystemExit(f"{name}: no frame was seen")
        for number, frame in enumerate(seen):
            print(f"{name}-{number} {frame.hex()}", flush=True)


if sys.argv[1:2] == ["active"]:
    active(int(sys.argv[2]))
elif sys.argv[1:2] == ["passive"]:
    passive(int(sys.argv[2]), sys.argv[3])
else:
    main()
