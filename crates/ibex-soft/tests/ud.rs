//! Datagrams: keys, headers, addresses, what is dropped, what stops the send queue.

#![allow(unsafe_code)]

mod support;

use std::ptr::null_mut;
use std::sync::Arc;

use ibex_sys::*;
use support::services::*;
use support::*;

/// Bytes of header before every datagram.
const GRH: usize = 40;

fn wish() -> Wish {
    Wish { service: IBV_QPT_UD, ..Wish::default() }
}

/// Two queue pairs in RTS, with a queue and memory each.
struct Rig {
    context: Arc<Context>,
    pd: Arc<Pd>,
    a: Qp,
    b: Qp,
    am: Mr,
    bm: Mr,
    to_b: Ah,
}

fn ready(pd: &Arc<Pd>, cq: &Arc<Cq>) -> Qp {
    let qp = Qp::create(pd, cq, cq, wish());
    qp.connect(qp.endpoint(1));
    qp
}

impl Rig {
    fn new() -> Rig {
        let context = Context::open();
        let pd = Pd::alloc(&context);
        let (acq, bcq) = (Cq::create(&context, 256, None), Cq::create(&context, 256, None));
        let (a, b) = (ready(&pd, &acq), ready(&pd, &bcq));
        let (am, bm) = (Mr::reg(&pd, 1 << 16, ALL), Mr::reg(&pd, 1 << 16, ALL));
        let to_b = Ah::create(&pd, b.endpoint(1).gid);
        Rig { context, pd, a, b, am, bm, to_b }
    }

    fn datagram(&self, wr_id: u64, len: usize) -> (ibv_send_wr, Box<[ibv_sge; 1]>) {
        let mut list = Box::new([self.am.sge(0, len)]);
        let mut wr = wr(IBV_WR_SEND, wr_id, &mut *list);
        wr.wr.ud = ibv_send_wr_ud { ah: self.to_b.ah, remote_qpn: self.b.num(), remote_qkey: wish().qkey };
        (wr, list)
    }

    fn send(&self, wr_id: u64, len: usize) {
        let (mut wr, _list) = self.datagram(wr_id, len);
        self.a.post(&mut wr);
        assert_eq!(self.a.send.success().wr_id, wr_id);
    }

    /// Nothing arrives, though a datagram sent afterwards would have.
    fn nothing_arrives(&self) {
        for _ in 0..1000 {
            assert!(self.b.recv.poll().is_none());
        }
    }
}

#[test]
fn datagrams_of_every_size_arrive_behind_a_header() {
    let rig = Rig::new();
    rig.am.fill(0..4096, 5);
    for len in [0usize, 1, 7, 64, 1000, 4095, 4096] {
        rig.bm.clear();
        rig.b.recv(len as u64, rig.bm.sge(0, 4096 + GRH));
        rig.send(1, len);
        let wc = rig.b.recv.success();
        assert_eq!((wc.wr_id, wc.opcode, wc.byte_len as usize), (len as u64, IBV_WC_RECV, GRH + len));
        assert_eq!((wc.src_qp, wc.qp_num, wc.wc_flags), (rig.a.num(), rig.b.num(), IBV_WC_GRH.0));
        assert_eq!((wc.slid, wc.sl, wc.pkey_index, wc.dlid_path_bits), (0, 0, 0, 0));
        rig.bm.check(GRH..GRH + len, 5, 0);
        // The IPv4 header in the second half: version and length, UDP, 127.0.0.1 both.
        let header: Vec<u8> =
            (20..GRH).map(|at| rig.bm.byte(at).load(std::sync::atomic::Ordering::Acquire)).collect();
        assert_eq!((header[0], header[9]), (0x45, 17));
        assert_eq!((&header[12..16], &header[16..20]), (&[127, 0, 0, 1][..], &[127, 0, 0, 1][..]));
        // IP, UDP, BTH, DETH, payload with padding, ICRC.
        let total = 20 + 8 + 12 + 8 + len.next_multiple_of(4) + 4;
        assert_eq!(usize::from(u16::from_be_bytes([header[2], header[3]])), total);
    }
}

#[test]
fn immediate_data_inline_and_solicited_datagrams() {
    let rig = Rig::new();
    rig.am.fill(0..32, 6);
    rig.b.recv(1, rig.bm.sge(0, 256));
    let (mut wr, _list) = rig.datagram(1, 32);
    wr.opcode = IBV_WR_SEND_WITH_IMM;
    wr.imm = ibv_send_wr_imm { imm_data: 0x0102_0304 };
    wr.send_flags |= (IBV_SEND_INLINE | IBV_SEND_SOLICITED).0;
    rig.a.post(&mut wr);
    rig.a.send.success();
    let wc = rig.b.recv.success();
    assert_eq!((wc.wc_flags, c!(wc.imm.imm_data)), ((IBV_WC_GRH | IBV_WC_WITH_IMM).0, 0x0102_0304));
    rig.bm.check(GRH..GRH + 32, 6, 0);
}

#[test]
fn only_the_right_key_gets_in() {
    let rig = Rig::new();
    rig.b.recv(1, rig.bm.sge(0, 256));
    let (mut wr, _list) = rig.datagram(1, 8);
    wr.wr.ud.remote_qkey = 77;
    rig.a.post(&mut wr);
    rig.a.send.success();
    rig.nothing_arrives();
    // The highest bit asks for the sender's own key, which here is the right one.
    wr.wr.ud.remote_qkey = 0x8000_0000;
    rig.a.post(&mut wr);
    rig.a.send.success();
    rig.b.recv.success();
    // A key can be changed while the queue pair runs.
    rig.b.modify(&mut ibv_qp_attr { qkey: 77, ..Default::default() }, IBV_QP_QKEY);
    assert_eq!(rig.b.query().0.qkey, 77);
    rig.b.recv(2, rig.bm.sge(0, 256));
    wr.wr.ud.remote_qkey = 77;
    rig.a.post(&mut wr);
    rig.a.send.success();
    assert_eq!(rig.b.recv.success().wr_id, 2);
}

#[test]
fn what_finds_no_room_is_dropped_and_nobody_suffers() {
    let rig = Rig::new();
    rig.am.fill(0..256, 7);
    rig.send(1, 64);
    rig.nothing_arrives();
    // Room for 63 bytes: the datagram is dropped and the request waits for a shorter one.
    rig.b.recv(2, rig.bm.sge(0, GRH + 63));
    rig.send(2, 64);
    rig.nothing_arrives();
    rig.send(3, 63);
    assert_eq!(rig.b.recv.success().wr_id, 2);
    rig.bm.check(GRH..GRH + 63, 7, 0);
    assert_eq!((rig.a.state(), rig.b.state()), (IBV_QPS_RTS, IBV_QPS_RTS));
}

#[test]
fn many_senders_and_an_answer_to_each() {
    let rig = Rig::new();
    let cq = Cq::create(&rig.context, 64, None);
    let clients: Vec<Qp> = (0..8).map(|_| ready(&rig.pd, &cq)).collect();
    let memory = Mr::reg(&rig.pd, 4096, ALL);
    for (index, client) in clients.iter().enumerate() {
        client.recv(index as u64, memory.sge(index * 256, 256));
        rig.b.recv(index as u64, rig.bm.sge(index * 256, 256));
        let (mut wr, _list) = rig.datagram(100 + index as u64, 16);
        client.post(&mut wr);
        cq.success();
    }
    let arrived: Vec<ibv_wc> = clients.iter().map(|_| rig.b.recv.success()).collect();
    for (index, (client, mut wc)) in clients.iter().zip(arrived).enumerate() {
        assert_eq!((wc.wr_id, wc.src_qp), (index as u64, client.num()));
        let grh = rig.bm.addr() + index as u64 * 256;
        let grh: *mut ibv_grh = std::ptr::with_exposed_provenance_mut(grh as usize);
        let mut attr = ibv_ah_attr::default();
        assert_eq!(c!((v().init_ah_from_wc)(rig.context.0, 1, &mut wc, grh, &mut attr)), 0);
        assert_eq!((attr.is_global, attr.port_num, attr.grh.sgid_index), (1, 1, 1));
        assert_eq!(c!(attr.grh.dgid.raw), client.endpoint(1).gid);
        let back = Ah::of(&rig.pd, c!((v().create_ah_from_wc)(rig.pd.0, &mut wc, grh, 1)));
        let mut list = [rig.bm.sge(8192, 8)];
        let mut wr = wr(IBV_WR_SEND, 7, &mut list);
        wr.wr.ud = ibv_send_wr_ud { ah: back.ah, remote_qpn: wc.src_qp, remote_qkey: wish().qkey };
        rig.b.post(&mut wr);
        // Too early by the book; the datagram knows its way nevertheless.
        drop(back);
        rig.b.send.success();
        let wc = cq.success();
        assert_eq!((wc.wr_id, wc.qp_num, wc.src_qp), (index as u64, client.num(), rig.b.num()));
        // Without the flag there is no address to be told.
        let mut bare = ibv_wc::default();
        assert_eq!(c!((v().init_ah_from_wc)(rig.context.0, 1, &mut bare, grh, &mut attr)), -1);
        assert_eq!(errno(), libc::EINVAL);
    }
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().expect("an errno")
}

#[test]
fn requests_that_datagrams_do_not_have_are_refused() {
    let rig = Rig::new();
    let other = Pd::alloc(&rig.context);
    let foreign = Ah::create(&other, rig.b.endpoint(1).gid);
    let refused = |change: &dyn Fn(&mut ibv_send_wr)| {
        let (mut wr, _list) = rig.datagram(1, 8);
        change(&mut wr);
        rig.a.try_post(&mut wr)
    };
    assert_eq!(refused(&|wr| wr.wr.ud.ah = null_mut()), libc::EINVAL);
    assert_eq!(refused(&|wr| wr.wr.ud.ah = foreign.ah), libc::EINVAL, "another domain");
    assert_eq!(refused(&|wr| wr.wr.ud.remote_qpn = 1 << 24), libc::EINVAL);
    for opcode in [IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ, IBV_WR_ATOMIC_FETCH_AND_ADD] {
        assert_eq!(refused(&|wr| wr.opcode = opcode), libc::EINVAL, "{opcode}");
    }
    let (mut wr, mut list) = rig.datagram(1, 4097);
    wr.sg_list = list.as_mut_ptr();
    assert_eq!(rig.a.try_post(&mut wr), libc::EINVAL, "longer than the MTU");
    rig.b.recv(1, rig.bm.sge(0, 256));
    rig.send(9, 8);
    rig.b.recv.success();
}

#[test]
fn addresses_that_cannot_be_reached_are_refused() {
    let rig = Rig::new();
    let good = rig.b.endpoint(1).gid;
    let refused = |change: &dyn Fn(&mut ibv_ah_attr)| {
        let mut attr = ah_attr(good);
        change(&mut attr);
        let ah = c!((v().create_ah)(rig.pd.0, &mut attr));
        assert!(ah.is_null());
        errno()
    };
    assert_eq!(refused(&|attr| attr.is_global = 0), libc::EINVAL);
    assert_eq!(refused(&|attr| attr.port_num = 2), libc::EINVAL);
    assert_eq!(refused(&|attr| attr.grh.sgid_index = 2), libc::EINVAL);
    assert_eq!(refused(&|attr| attr.grh.dgid = ibv_gid { raw: [0; 16] }), libc::EINVAL);
    let v6 = ibv_gid { raw: [0x20; 16] };
    assert_eq!(refused(&|attr| attr.grh.dgid = v6), libc::EINVAL, "IPv6 from an IPv4 device");
    let local = Ah::create(&rig.pd, rig.b.endpoint(0).gid);
    assert_eq!(c!((v().dealloc_pd)(rig.pd.0)), libc::EBUSY);
    drop(local);
}

#[test]
fn a_local_fault_stops_the_send_queue_alone() {
    let rig = Rig::new();
    let (mut bad, mut bad_list) = rig.datagram(1, 8);
    bad_list[0].lkey = 0;
    bad.sg_list = bad_list.as_mut_ptr();
    let (mut next, _next_list) = rig.datagram(2, 8);
    bad.next = &mut next;
    rig.a.post(&mut bad);
    let (first, second) = (rig.a.send.wait(), rig.a.send.wait());
    assert_eq!((first.wr_id, first.status), (1, IBV_WC_LOC_PROT_ERR));
    assert_eq!((second.wr_id, second.status), (2, IBV_WC_WR_FLUSH_ERR));
    assert_eq!(rig.a.state(), IBV_QPS_SQE);
    // What is posted now is flushed; what arrives is received.
    let (mut third, _third_list) = rig.datagram(3, 8);
    rig.a.post(&mut third);
    assert_eq!(rig.a.send.wait().status, IBV_WC_WR_FLUSH_ERR);
    let to_a = Ah::create(&rig.pd, rig.a.endpoint(1).gid);
    rig.a.recv(4, rig.am.sge(0, 256));
    let mut list = [rig.bm.sge(0, 8)];
    let mut back = wr(IBV_WR_SEND, 5, &mut list);
    back.wr.ud = ibv_send_wr_ud { ah: to_a.ah, remote_qpn: rig.a.num(), remote_qkey: wish().qkey };
    rig.b.post(&mut back);
    rig.b.send.success();
    assert_eq!(rig.a.recv.success().wr_id, 4);
    // SQE to RTS, with the state it is in as the program believes it.
    let mut attr = ibv_qp_attr { qp_state: IBV_QPS_RTS, cur_qp_state: IBV_QPS_SQE, ..Default::default() };
    rig.a.modify(&mut attr, IBV_QP_STATE | IBV_QP_CUR_STATE);
    rig.b.recv(6, rig.bm.sge(0, 256));
    rig.send(6, 8);
    assert_eq!(rig.b.recv.success().wr_id, 6);
}

#[test]
fn states_and_queries() {
    let rig = Rig::new();
    let (attr, init) = rig.a.query();
    assert_eq!((attr.qp_state, attr.qkey, attr.path_mtu), (IBV_QPS_RTS, wish().qkey, IBV_MTU_4096));
    assert_eq!((attr.sq_psn, attr.port_num, init.qp_type), (rig.a.psn, 1, IBV_QPT_UD));
    // Held in SQD, sent afterwards.
    let mut attr = ibv_qp_attr { qp_state: IBV_QPS_SQD, en_sqd_async_notify: 1, ..Default::default() };
    rig.a.modify(&mut attr, IBV_QP_STATE | IBV_QP_EN_SQD_ASYNC_NOTIFY);
    let event = rig.context.event(1000).expect("drained");
    assert_eq!((event.event_type, c!(event.element.qp)), (IBV_EVENT_SQ_DRAINED, rig.a.qp));
    assert_eq!((rig.a.query().0.sq_draining, rig.a.state()), (0, IBV_QPS_SQD));
    rig.b.recv(1, rig.bm.sge(0, 256));
    let (mut wr, _list) = rig.datagram(1, 8);
    rig.a.post(&mut wr);
    rig.nothing_arrives();
    rig.a.to(IBV_QPS_RTS);
    rig.a.send.success();
    rig.b.recv.success();
    // ERR flushes both queues; RESET brings it back.
    rig.b.recv(2, rig.bm.sge(0, 256));
    rig.b.to(IBV_QPS_ERR);
    assert_eq!(rig.b.recv.wait().status, IBV_WC_WR_FLUSH_ERR);
    rig.b.to(IBV_QPS_RESET);
    rig.b.init();
    rig.b.connect(rig.b.endpoint(1));
    rig.b.recv(3, rig.bm.sge(0, 256));
    rig.send(3, 8);
    assert_eq!(rig.b.recv.success().wr_id, 3);
}

#[test]
fn a_stream_of_datagrams_to_oneself() {
    let rig = Rig::new();
    let to_self = Ah::create(&rig.pd, rig.a.endpoint(1).gid);
    rig.am.fill(0..64, 8);
    for round in 0..500u64 {
        rig.a.recv(round, rig.am.sge(4096, 256));
        let mut list = [rig.am.sge(0, 64)];
        let mut wr = wr(IBV_WR_SEND, round, &mut list);
        wr.wr.ud = ibv_send_wr_ud { ah: to_self.ah, remote_qpn: rig.a.num(), remote_qkey: wish().qkey };
        rig.a.post(&mut wr);
        let (first, second) = (rig.a.send.success(), rig.a.send.success());
        assert_eq!((first.wr_id, second.wr_id), (round, round));
        rig.am.check(4096 + GRH..4096 + GRH + 64, 8, 0);
    }
}
