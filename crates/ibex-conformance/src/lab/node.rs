//! A node (domain, completion queue, queue pair) and two of them connected.

use std::time::Duration;

use ibex_sys::{
    IBV_QP_ACCESS_FLAGS, IBV_QP_AV, IBV_QP_DEST_QPN, IBV_QP_MAX_DEST_RD_ATOMIC, IBV_QP_MAX_QP_RD_ATOMIC,
    IBV_QP_MIN_RNR_TIMER, IBV_QP_PATH_MTU, IBV_QP_PKEY_INDEX, IBV_QP_PORT, IBV_QP_QKEY, IBV_QP_RETRY_CNT,
    IBV_QP_RNR_RETRY, IBV_QP_RQ_PSN, IBV_QP_SQ_PSN, IBV_QP_STATE, IBV_QP_TIMEOUT, IBV_QPS_INIT, IBV_QPS_RTR,
    IBV_QPS_RTS, IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD, ibv_access_flags, ibv_ah_attr, ibv_gid,
    ibv_global_route, ibv_mtu, ibv_qp_attr, ibv_qp_attr_mask, ibv_qp_cap, ibv_qp_type,
};

use super::device::PORT;
use super::{ALL_ACCESS, Cq, Lab, Pd, QKEY, Qp, Region, Srq};

/// How a node is made.
#[derive(Debug, Clone, Copy)]
pub struct NodeOptions {
    /// RC, UC or UD.
    pub service: ibv_qp_type,
    /// Capabilities asked for.
    pub cap: ibv_qp_cap,
    /// Completions that the queue holds.
    pub cq_depth: i32,
    /// Every send is signalled.
    pub sig_all: bool,
    /// The completion queue has a channel.
    pub channel: bool,
}

impl Default for NodeOptions {
    fn default() -> Self {
        let cap = ibv_qp_cap {
            max_send_wr: 64,
            max_recv_wr: 64,
            max_send_sge: 4,
            max_recv_sge: 4,
            ..Default::default()
        };
        Self { service: IBV_QPT_RC, cap, cq_depth: 256, sig_all: false, channel: false }
    }
}

/// How two nodes are connected.
#[derive(Debug, Clone, Copy)]
pub struct LinkOptions {
    /// What the peer may do to this side's memory through the queue pair.
    pub access: ibv_access_flags,
    /// Transport retries (0–7).
    pub retry: u8,
    /// RNR retries (0–7; 7 is for ever).
    pub rnr_retry: u8,
    /// Local ACK timeout, 4.096 µs × 2^n.
    pub timeout: u8,
    /// RNR NAK timer code: 12 is 0.64 ms.
    pub min_rnr_timer: u8,
    /// READs and atomics outstanding in each direction.
    pub rd_atomic: u8,
    /// First packet sequence number of each direction.
    pub psn: u32,
}

impl Default for LinkOptions {
    fn default() -> Self {
        // Timeout 14 is 67 ms: long enough for an emulated machine, short enough to provoke on purpose.
        Self {
            access: ALL_ACCESS,
            retry: 7,
            rnr_retry: 7,
            timeout: 14,
            min_rnr_timer: 12,
            rd_atomic: 4,
            psn: 0x00ab_cdef,
        }
    }
}

/// A protection domain, a completion queue and a queue pair.
#[derive(Debug)]
pub struct Node {
    /// The device.
    pub lab: Lab,
    /// The queue pair; declared first, so that it is destroyed first.
    pub qp: Qp,
    /// Where sends and receives complete.
    pub cq: Cq,
    /// The protection domain.
    pub pd: Pd,
}

impl Node {
    /// Makes a node.
    ///
    /// # Panics
    /// When the device refuses.
    pub fn new(lab: &Lab, options: &NodeOptions) -> Self {
        Self::on(lab, options, None)
    }

    /// Makes a node whose queue pair takes its receives from a shared queue, in whose domain it then is.
    ///
    /// # Panics
    /// When the device refuses.
    pub fn on(lab: &Lab, options: &NodeOptions, shared: Option<(&Pd, &Srq)>) -> Self {
        let pd = shared.map_or_else(|| lab.pd(), |(pd, _)| pd.clone());
        let cq = Cq::try_new(lab, options.cq_depth, options.channel)
            .unwrap_or_else(|errno| panic!("cannot create a completion queue: errno {errno}"));
        let srq = shared.map(|(_, srq)| srq);
        let qp = Qp::try_of(options.service, &pd, &cq, &cq, options.cap, options.sig_all, srq)
            .unwrap_or_else(|errno| panic!("cannot create a queue pair: errno {errno}"));
        Self { lab: lab.clone(), qp, cq, pd }
    }

    /// Registers memory in the node's domain.
    pub fn region(&self, len: usize, access: ibv_access_flags) -> Region {
        Region::new(&self.pd, len, access)
    }

    /// Registers memory with every right.
    pub fn open_region(&self, len: usize) -> Region {
        self.region(len, ALL_ACCESS)
    }

    /// The attributes for RESET → INIT.
    pub fn init_attr(link: &LinkOptions) -> (ibv_qp_attr, ibv_qp_attr_mask) {
        let attr = ibv_qp_attr {
            qp_state: IBV_QPS_INIT,
            qp_access_flags: link.access.0,
            pkey_index: 0,
            qkey: QKEY,
            port_num: PORT,
            ..Default::default()
        };
        (attr, IBV_QP_STATE | IBV_QP_ACCESS_FLAGS | IBV_QP_PKEY_INDEX | IBV_QP_PORT)
    }

    /// The attributes for INIT → RTR towards a peer.
    pub fn rtr_attr(&self, link: &LinkOptions, qpn: u32, gid: ibv_gid) -> (ibv_qp_attr, ibv_qp_attr_mask) {
        let (sgid_index, _) = self.lab.gid();
        let attr = ibv_qp_attr {
            qp_state: IBV_QPS_RTR,
            path_mtu: ibv_mtu(self.lab.port().active_mtu.0),
            dest_qp_num: qpn,
            rq_psn: link.psn,
            max_dest_rd_atomic: link.rd_atomic,
            min_rnr_timer: link.min_rnr_timer,
            ah_attr: ibv_ah_attr {
                grh: ibv_global_route { dgid: gid, sgid_index, hop_limit: 64, ..Default::default() },
                is_global: 1,
                port_num: PORT,
                ..Default::default()
            },
            ..Default::default()
        };
        let mask = IBV_QP_STATE
            | IBV_QP_AV
            | IBV_QP_PATH_MTU
            | IBV_QP_DEST_QPN
            | IBV_QP_RQ_PSN
            | IBV_QP_MAX_DEST_RD_ATOMIC
            | IBV_QP_MIN_RNR_TIMER;
        (attr, mask)
    }

    /// The attributes for RTR → RTS.
    pub fn rts_attr(link: &LinkOptions) -> (ibv_qp_attr, ibv_qp_attr_mask) {
        let attr = ibv_qp_attr {
            qp_state: IBV_QPS_RTS,
            timeout: link.timeout,
            retry_cnt: link.retry,
            rnr_retry: link.rnr_retry,
            sq_psn: link.psn,
            max_rd_atomic: link.rd_atomic,
            ..Default::default()
        };
        let mask = IBV_QP_STATE
            | IBV_QP_TIMEOUT
            | IBV_QP_RETRY_CNT
            | IBV_QP_RNR_RETRY
            | IBV_QP_SQ_PSN
            | IBV_QP_MAX_QP_RD_ATOMIC;
        (attr, mask)
    }

    /// Of attributes that the reliable service needs, those that this one does; a key instead of rights for datagrams.
    pub fn served(&self, mask: ibv_qp_attr_mask) -> ibv_qp_attr_mask {
        let unreliable = IBV_QP_STATE
            | IBV_QP_ACCESS_FLAGS
            | IBV_QP_PKEY_INDEX
            | IBV_QP_PORT
            | IBV_QP_AV
            | IBV_QP_PATH_MTU
            | IBV_QP_DEST_QPN
            | IBV_QP_RQ_PSN
            | IBV_QP_SQ_PSN;
        let datagram = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_SQ_PSN;
        match self.qp.service {
            IBV_QPT_UC => mask & unreliable,
            IBV_QPT_UD if mask.contains(IBV_QP_ACCESS_FLAGS) => mask & datagram | IBV_QP_QKEY,
            IBV_QPT_UD => mask & datagram,
            _ => mask,
        }
    }

    /// Moves to INIT.
    pub fn to_init(&self, link: &LinkOptions) {
        let (attr, mask) = Self::init_attr(link);
        let mask = self.served(mask);
        self.qp.modify(&attr, mask).unwrap_or_else(|errno| panic!("RESET to INIT: errno {errno}"));
    }

    /// Moves from INIT to RTS towards a peer.
    pub fn to_rts(&self, link: &LinkOptions, qpn: u32, gid: ibv_gid) {
        let (attr, mask) = self.rtr_attr(link, qpn, gid);
        let mask = self.served(mask);
        self.qp.modify(&attr, mask).unwrap_or_else(|errno| panic!("INIT to RTR: errno {errno}"));
        let (attr, mask) = Self::rts_attr(link);
        let mask = self.served(mask);
        self.qp.modify(&attr, mask).unwrap_or_else(|errno| panic!("RTR to RTS: errno {errno}"));
    }
}

/// Two nodes of one process, connected.
#[derive(Debug)]
pub struct Pair {
    /// The requester of most cases.
    pub a: Node,
    /// The responder of most cases.
    pub b: Node,
}

impl Pair {
    /// Two nodes with the defaults.
    pub fn new(lab: &Lab) -> Self {
        Self::with(lab, &NodeOptions::default(), &LinkOptions::default())
    }

    /// Two nodes as described.
    pub fn with(lab: &Lab, options: &NodeOptions, link: &LinkOptions) -> Self {
        let (a, b) = (Node::new(lab, options), Node::new(lab, options));
        let (_, gid) = lab.gid();
        a.to_init(link);
        b.to_init(link);
        a.to_rts(link, b.qp.num(), gid);
        b.to_rts(link, a.qp.num(), gid);
        Self { a, b }
    }
}

impl Pair {
    /// Connects two nodes that were made another way.
    pub fn connect(lab: &Lab, a: Node, b: Node) -> Self {
        let link = LinkOptions::default();
        let (_, gid) = lab.gid();
        a.to_init(&link);
        b.to_init(&link);
        a.to_rts(&link, b.qp.num(), gid);
        b.to_rts(&link, a.qp.num(), gid);
        Self { a, b }
    }
}

/// A link that gives up soon: for cases in which the peer is gone.
impl LinkOptions {
    /// Few, short retries.
    pub fn impatient() -> Self {
        Self { retry: 2, timeout: 12, ..Self::default() }
    }

    /// How long giving up takes at least: the retries, each at its timeout.
    pub fn gives_up_after(&self) -> Duration {
        Duration::from_nanos(4096 << self.timeout) * u32::from(self.retry + 1)
    }
}
