//! Datagrams: the header before them, keys, address handles, and what is dropped. `ibv_post_send(3)`, `ibv_create_ah(3)`,
//! `ibv_create_ah_from_wc(3)`; IBTA vol. 1, clauses 9.8.3 and 10.2.5.

use ibex_sys::{
    IBV_QP_QKEY, IBV_QP_STATE, IBV_QPS_INIT, IBV_QPS_RESET, IBV_QPS_RTR, IBV_QPS_RTS, IBV_QPT_UD,
    IBV_SEND_INLINE, IBV_WC_GRH, IBV_WC_RECV, IBV_WC_SEND, IBV_WC_WITH_IMM, ibv_wc,
};

use super::data::succeeded;
use crate::Outcome;
use crate::lab::{
    Ah, GRH, Lab, LinkOptions, Node, NodeOptions, Pair, QKEY, Recv, Region, Send, imm_data, pattern,
};

crate::group!("ud";
    datagrams_of_every_size_arrive_behind_a_header,
    immediate_data_arrives,
    a_wrong_key_does_not_get_in,
    the_highest_bit_stands_for_the_senders_own_key,
    a_key_can_be_changed,
    without_a_receive_a_datagram_is_lost_and_the_next_arrives,
    many_senders_and_an_answer_to_each,
    to_oneself,
    a_domain_with_a_handle_is_in_use,
    a_full_circle,
);

const OPTIONS: NodeOptions = NodeOptions {
    service: IBV_QPT_UD,
    cap: ibex_sys::ibv_qp_cap {
        max_send_wr: 64,
        max_recv_wr: 64,
        max_send_sge: 4,
        max_recv_sge: 4,
        max_inline_data: 32,
    },
    cq_depth: 256,
    sig_all: false,
    channel: false,
};

/// Two nodes in RTS, memory at each, and the way from `a` to `b`.
struct Rig {
    lab: Lab,
    pair: Pair,
    source: Region,
    target: Region,
    ah: Ah,
}

impl Rig {
    fn new() -> Self {
        let lab = Lab::open();
        let pair = Pair::with(&lab, &OPTIONS, &LinkOptions::default());
        let (source, target) = (pair.a.open_region(8192), pair.b.open_region(8192));
        let ah = handle(&pair.a, &lab);
        Self { lab, pair, source, target, ah }
    }

    fn expect(&self, id: u64, len: usize) {
        let room = u32::try_from(len).expect("small") + GRH as u32;
        self.pair.b.qp.post_recv(&[Recv::new(id, &[self.target.sge(0, room)])]);
    }

    fn send(&self, id: u64, len: usize) -> Send {
        let len = u32::try_from(len).expect("small");
        Send::message(id, &[self.source.sge(0, len)]).datagram(&self.ah, self.pair.b.qp.num(), QKEY)
    }

    fn post(&self, send: Send) {
        let id = send.id;
        self.pair.a.qp.post(&[send]);
        succeeded(&self.pair.a.cq.wait_one(), id, IBV_WC_SEND);
    }

    /// The next datagram at `b`.
    fn arrived(&self, id: u64, len: usize) -> ibv_wc {
        let wc = self.pair.b.cq.wait_one();
        succeeded(&wc, id, IBV_WC_RECV);
        assert_eq!(wc.byte_len as usize, len + GRH as usize, "the header counts");
        assert_eq!((wc.src_qp, wc.qp_num), (self.pair.a.qp.num(), self.pair.b.qp.num()));
        assert_ne!(wc.wc_flags & IBV_WC_GRH.0, 0, "RoCE datagrams have a header");
        wc
    }
}

fn handle(node: &Node, lab: &Lab) -> Ah {
    Ah::try_new(&node.pd, lab.gid().1).unwrap_or_else(|errno| panic!("ibv_create_ah: errno {errno}"))
}

fn datagrams_of_every_size_arrive_behind_a_header() -> Outcome {
    let rig = Rig::new();
    let mtu = rig.lab.mtu();
    let payload = pattern(1, mtu);
    rig.source.write(0, &payload);
    for (id, len) in [0, 1, 3, 64, mtu / 2 + 1, mtu].into_iter().enumerate() {
        rig.target.write(0, &vec![0; mtu + GRH as usize]);
        rig.expect(id as u64, mtu);
        rig.post(rig.send(100, len));
        rig.arrived(id as u64, len);
        assert_eq!(rig.target.read(GRH as usize, len), payload[..len]);
        assert!(rig.target.read(GRH as usize + len, mtu - len).iter().all(|&byte| byte == 0));
    }
    Outcome::Passed
}

fn immediate_data_arrives() -> Outcome {
    let rig = Rig::new();
    rig.source.write(0, b"inlined!");
    rig.expect(1, 8);
    let send = Send { imm: 0xcafe_f00d, opcode: ibex_sys::IBV_WR_SEND_WITH_IMM, ..rig.send(2, 8) };
    rig.post(send.flag(IBV_SEND_INLINE));
    let wc = rig.arrived(1, 8);
    assert_ne!(wc.wc_flags & IBV_WC_WITH_IMM.0, 0);
    assert_eq!(u32::from_be(imm_data(&wc)), 0xcafe_f00d);
    assert_eq!(rig.target.read(GRH as usize, 8), b"inlined!");
    Outcome::Passed
}

fn a_wrong_key_does_not_get_in() -> Outcome {
    let rig = Rig::new();
    rig.expect(1, 8);
    rig.post(rig.send(2, 8).datagram(&rig.ah, rig.pair.b.qp.num(), QKEY + 1));
    rig.pair.b.cq.stays_empty();
    rig.post(rig.send(3, 8));
    rig.arrived(1, 8);
    Outcome::Passed
}

fn the_highest_bit_stands_for_the_senders_own_key() -> Outcome {
    let rig = Rig::new();
    rig.expect(1, 8);
    // IBTA 10.2.5: so that a program cannot send with a privileged key that is not its own.
    rig.post(rig.send(2, 8).datagram(&rig.ah, rig.pair.b.qp.num(), 1 << 31));
    rig.arrived(1, 8);
    Outcome::Passed
}

fn a_key_can_be_changed() -> Outcome {
    let rig = Rig::new();
    let attr = ibex_sys::ibv_qp_attr { qkey: 99, ..Default::default() };
    rig.pair.b.qp.modify(&attr, IBV_QP_QKEY).expect("a new key in RTS");
    assert_eq!(rig.pair.b.qp.query(IBV_QP_QKEY).0.qkey, 99);
    rig.expect(1, 8);
    rig.post(rig.send(2, 8));
    rig.pair.b.cq.stays_empty();
    rig.post(rig.send(3, 8).datagram(&rig.ah, rig.pair.b.qp.num(), 99));
    rig.arrived(1, 8);
    Outcome::Passed
}

fn without_a_receive_a_datagram_is_lost_and_the_next_arrives() -> Outcome {
    let rig = Rig::new();
    rig.post(rig.send(1, 8));
    rig.pair.b.cq.stays_empty();
    rig.source.write(0, b"the next");
    rig.expect(2, 8);
    rig.post(rig.send(3, 8));
    rig.arrived(2, 8);
    assert_eq!(rig.target.read(GRH as usize, 8), b"the next");
    assert_eq!((rig.pair.a.qp.state(), rig.pair.b.qp.state()), (IBV_QPS_RTS, IBV_QPS_RTS));
    Outcome::Passed
}

fn many_senders_and_an_answer_to_each() -> Outcome {
    let rig = Rig::new();
    let server = &rig.pair.b;
    let clients: Vec<Node> = (0..4)
        .map(|_| {
            let client = rig.lab.node(&OPTIONS);
            client.to_init(&LinkOptions::default());
            client.to_rts(&LinkOptions::default(), 0, rig.lab.gid().1);
            client
        })
        .collect();
    for (index, client) in clients.iter().enumerate() {
        let (question, answer) = (client.open_region(64), client.open_region(128));
        question.write(0, &[index as u8; 8]);
        client.qp.post_recv(&[Recv::new(1, &[answer.sge(0, 128)])]);
        server.qp.post_recv(&[Recv::new(2, &[rig.target.sge(0, 128)])]);
        let ah = handle(client, &rig.lab);
        let send = Send::message(3, &[question.sge(0, 8)]).datagram(&ah, server.qp.num(), QKEY);
        client.qp.post(&[send]);
        succeeded(&client.cq.wait_one(), 3, IBV_WC_SEND);
        let wc = server.cq.wait_one();
        succeeded(&wc, 2, IBV_WC_RECV);
        assert_eq!(wc.src_qp, client.qp.num());
        assert_eq!(rig.target.read(GRH as usize, 8), [index as u8; 8]);
        let back = Ah::try_from_wc(&server.pd, &wc, &rig.target, 0)
            .unwrap_or_else(|errno| panic!("ibv_create_ah_from_wc: errno {errno}"));
        let send = Send::message(4, &[rig.target.sge(GRH, 8)]).datagram(&back, wc.src_qp, QKEY);
        server.qp.post(&[send]);
        succeeded(&server.cq.wait_one(), 4, IBV_WC_SEND);
        let wc = client.cq.wait_one();
        succeeded(&wc, 1, IBV_WC_RECV);
        assert_eq!(wc.src_qp, server.qp.num());
        assert_eq!(answer.read(GRH as usize, 8), [index as u8; 8]);
    }
    Outcome::Passed
}

fn to_oneself() -> Outcome {
    let rig = Rig::new();
    let node = &rig.pair.a;
    let target = node.open_region(128);
    rig.source.write(0, b"to me");
    node.qp.post_recv(&[Recv::new(1, &[target.sge(0, 128)])]);
    node.qp.post(&[rig.send(2, 5).datagram(&rig.ah, node.qp.num(), QKEY)]);
    let mut wcs = node.cq.wait(2);
    wcs.sort_by_key(|wc| wc.wr_id);
    succeeded(&wcs[0], 1, IBV_WC_RECV);
    succeeded(&wcs[1], 2, IBV_WC_SEND);
    assert_eq!(target.read(GRH as usize, 5), b"to me");
    Outcome::Passed
}

fn a_domain_with_a_handle_is_in_use() -> Outcome {
    let lab = Lab::open();
    let pd = lab.pd();
    let ah = Ah::try_new(&pd, lab.gid().1).expect("a handle");
    assert_eq!(pd.dealloc_must_fail(), libc::EBUSY);
    drop(ah);
    Outcome::Passed
}

fn a_full_circle() -> Outcome {
    let rig = Rig::new();
    let link = LinkOptions::default();
    for round in 0..3 {
        rig.expect(round, 8);
        rig.post(rig.send(10, 8));
        rig.arrived(round, 8);
        let node = &rig.pair.b;
        node.qp.to_state(IBV_QPS_RESET).expect("RTS to RESET");
        node.to_init(&link);
        assert_eq!(node.qp.state(), IBV_QPS_INIT);
        let attr = ibex_sys::ibv_qp_attr { qp_state: IBV_QPS_RTR, ..Default::default() };
        node.qp.modify(&attr, IBV_QP_STATE).expect("INIT to RTR takes nothing but the state");
        let (attr, mask) = Node::rts_attr(&link);
        node.qp.modify(&attr, node.served(mask)).expect("RTR to RTS");
    }
    Outcome::Passed
}
