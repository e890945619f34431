"""Frames of the kernel's rxe, one of each kind, for the golden files of ibex-wire.

Runs in the virtual machine after `setup_rxe_wire` (tests/vm/lib.sh) with Debian's python3-pyverbs:
two queue pairs, rxe1 and rxe2, exchange one message of every kind, and a raw socket on v1 sees every frame once.
Prints one line a frame: a name, a blank, the frame in hexadecimal. Each scenario's frames are named after it and
numbered. The packets' numbers start at fixed values, so that only keys, queue pair numbers, addresses and IP
identifications differ from run to run.
"""

import socket
import sys
import time

import pyverbs.enums as e
from pyverbs.addr import AH, GID, AHAttr, GlobalRoute
from pyverbs.cq import CQ
from pyverbs.device import Context
from pyverbs.mr import MR
from pyverbs.pd import PD
from pyverbs.qp import QP, QPAttr, QPCap, QPInitAttr
from pyverbs.wr import SGE, RecvWR, SendWR

SIZE = 16384
ACCESS = (
    e.IBV_ACCESS_LOCAL_WRITE
    | e.IBV_ACCESS_REMOTE_WRITE
    | e.IBV_ACCESS_REMOTE_READ
    | e.IBV_ACCESS_REMOTE_ATOMIC
)
# A requester's first packet; 0xfffffe makes the third packet of a message wrap round to 0.
PSN = (0x000100, 0xFFFFFE)


class End:
    """One device with a region and, per scenario, a queue pair."""

    def __init__(self, name, peer_v4, peer_v6):
        self.context = Context(name=name)
        self.pd = PD(self.context)
        self.cq = CQ(self.context, 64)
        self.mr = MR(self.pd, SIZE, ACCESS)
        # A payload that shows where each byte belongs.
        self.mr.write(bytes((i * 7 + (i >> 8)) & 0xFF for i in range(SIZE)), SIZE)
        self.gid_v6 = self.find_gid("fd78")
        self.peers = {4: peer_v4, 6: peer_v6}
        self.qp = None

    def find_gid(self, start):
        for index in range(16):
            if str(self.context.query_gid(1, index)).startswith(start):
                return index
        raise SystemExit(f"no GID {start} on {self.context.name}")

    def sge(self, length, offset=0):
        return SGE(self.mr.buf + offset, length, self.mr.lkey)

    def make(self, kind):
        cap = QPCap(max_send_wr=8, max_recv_wr=8)
        self.qp = QP(self.pd, QPInitAttr(qp_type=kind, scq=self.cq, rcq=self.cq, cap=cap, sq_sig_all=1))

    def route(self, version):
        index = 1 if version == 4 else self.gid_v6
        grh = GlobalRoute(dgid=GID(self.peers[version]), sgid_index=index, hop_limit=64)
        return AHAttr(is_global=1, port_num=1, gr=grh)

    def connect(self, peer, version, psn, own_psn, depth=4):
        attr = QPAttr(port_num=1)
        attr.path_mtu = e.IBV_MTU_1024
        attr.dest_qp_num = peer.qp.qp_num
        attr.rq_psn = psn
        attr.sq_psn = own_psn
        attr.qp_access_flags = ACCESS
        attr.max_rd_atomic, attr.max_dest_rd_atomic = 4, depth
        attr.min_rnr_timer = 12
        attr.timeout, attr.retry_cnt, attr.rnr_retry = 14, 1, 1
        attr.ah_attr = self.route(version)
        self.qp.to_rts(attr)

    def recv(self, length=SIZE // 2):
        self.qp.post_recv(RecvWR(num_sge=1, sg=[self.sge(length, SIZE // 2)]))

    def drain(self):
        self.cq.poll(64)


def send(left, right, opcode, length, version, how):
    """Posts one work request on the left; returns when its completion is there."""
    wr = SendWR(opcode=opcode, num_sge=1, sg=[left.sge(length)], send_flags=how.get("flags", e.IBV_SEND_SIGNALED))
    # In the order in which they stand on the wire.
    wr.imm_data = int.from_bytes(bytes.fromhex("01020304"), sys.byteorder)
    rkey = how.get("rkey", right.mr.rkey)
    if "atomic" in how:
        wr.set_wr_atomic(rkey, right.mr.buf + 8, *how["atomic"])
    elif opcode == e.IBV_WR_SEND_WITH_INV:
        # A union with the immediate data, in the machine's order.
        wr.imm_data = rkey
    elif opcode not in (e.IBV_WR_SEND, e.IBV_WR_SEND_WITH_IMM):
        wr.set_wr_rdma(rkey, right.mr.buf + SIZE // 2)
    elif left.qp.qp_type == e.IBV_QPT_UD:
        wr.set_wr_ud(AH(left.pd, attr=left.route(version)), right.qp.qp_num, 0x11111111)
    left.qp.post_send(wr)
    for _ in range(300):
        if left.cq.poll(1)[0]:
            return
        time.sleep(0.01)
    raise SystemExit("no completion")


def scenarios():
    """Name, operation, length, further arguments. Each has a fresh pair of queue pairs."""
    o = e
    yield "send_only", o.IBV_WR_SEND, 5, {}
    yield "send_empty", o.IBV_WR_SEND, 0, {}
    yield "send_solicited", o.IBV_WR_SEND, 8, {"flags": o.IBV_SEND_SIGNALED | o.IBV_SEND_SOLICITED}
    yield "send_long", o.IBV_WR_SEND, 2501, {"psn": 1}
    yield "send_imm", o.IBV_WR_SEND_WITH_IMM, 6, {}
    yield "send_imm_long", o.IBV_WR_SEND_WITH_IMM, 1030, {}
    yield "write_only", o.IBV_WR_RDMA_WRITE, 7, {}
    yield "write_long", o.IBV_WR_RDMA_WRITE, 2050, {}
    yield "write_imm", o.IBV_WR_RDMA_WRITE_WITH_IMM, 16, {}
    yield "write_imm_long", o.IBV_WR_RDMA_WRITE_WITH_IMM, 1025, {}
    yield "read_only", o.IBV_WR_RDMA_READ, 9, {}
    yield "read_long", o.IBV_WR_RDMA_READ, 2053, {}
    yield "compare_swap", o.IBV_WR_ATOMIC_CMP_AND_SWP, 8, {"atomic": (0x1122334455667788, 0x99AABBCCDDEEFF00)}
    yield "fetch_add", o.IBV_WR_ATOMIC_FETCH_AND_ADD, 8, {"atomic": (0x0102030405060708, 0)}
    yield "send_invalidate", o.IBV_WR_SEND_WITH_INV, 4, {"rkey": 0x01020304}
    yield "nak_sequence", o.IBV_WR_SEND, 4, {"gap": 5}
    yield "nak_access", o.IBV_WR_RDMA_WRITE, 4, {"rkey": 0x01020304}
    # A responder without resources for READ.
    yield "nak_invalid", o.IBV_WR_RDMA_READ, 8, {"depth": 0}
    yield "nak_operational", o.IBV_WR_SEND, 4, {"recv": 2}
    yield "nak_rnr", o.IBV_WR_SEND, 4, {"recv": None}
    yield "v6_send_only", o.IBV_WR_SEND, 5, {"version": 6}
    yield "v6_write_long", o.IBV_WR_RDMA_WRITE, 2050, {"version": 6}
    yield "v6_read_only", o.IBV_WR_RDMA_READ, 9, {"version": 6}
    yield "ud_send_only", o.IBV_WR_SEND, 10, {"kind": o.IBV_QPT_UD}
    yield "ud_send_imm", o.IBV_WR_SEND_WITH_IMM, 11, {"kind": o.IBV_QPT_UD}
    yield "uc_send_long", o.IBV_WR_SEND, 1500, {"kind": o.IBV_QPT_UC}


def frames(raw):
    """Every RoCEv2 frame the socket has seen."""
    while True:
        try:
            frame = raw.recv(65535)
        except BlockingIOError:
            return
        kind = frame[12:14]
        udp = {b"\x08\x00": 14 + 20, b"\x86\xdd": 14 + 40}.get(kind)
        protocol = frame[23 if kind == b"\x08\x00" else 20] if udp else None
        if protocol == 17 and int.from_bytes(frame[udp + 2 : udp + 4], "big") == 4791:
            yield frame


def main():
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    raw.bind(("v1", 0))
    raw.setblocking(False)
    # All eight groups: 10.78.0.1 and .2 in hexadecimal, fd78::1 and ::2.
    v4, v6 = "0000:0000:0000:0000:0000:ffff:0a4e:000", "fd78:0000:0000:0000:0000:0000:0000:000"
    left = End("rxe1", v4 + "2", v6 + "2")
    right = End("rxe2", v4 + "1", v6 + "1")
    for name, opcode, length, how in scenarios():
        kind, version, recv = how.get("kind", e.IBV_QPT_RC), how.get("version", 4), how.get("recv", SIZE // 2)
        psn = PSN[how.get("psn", 0)]
        for end in (left, right):
            end.make(kind)
        if kind == e.IBV_QPT_UD:
            for end in (left, right):
                attr = QPAttr(port_num=1)
                attr.qkey, attr.sq_psn = 0x11111111, psn
                end.qp.to_rts(attr)
        else:
            left.connect(right, version, 0x000200, psn + how.get("gap", 0))
            right.connect(left, version, psn, 0x000200, how.get("depth", 4))
        if recv is not None:
            right.recv(recv)
        send(left, right, opcode, length, version, how)
        time.sleep(0.05)
        seen = list(frames(raw))
        if not seen:
            raise SystemExit(f"{name}: no frame was seen")
        for number, frame in enumerate(seen):
            print(f"{name}-{number} {frame.hex()}")
        for end in (left, right):
            end.drain()
            end.qp.close()


main()
