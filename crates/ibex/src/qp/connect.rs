//! Bringing a queue pair up: INIT → RTR → RTS.
//!
//! Owns [`RcOptions`] and the transitions as methods that consume one state and return the next. See ibv_modify_qp(3).

use ibex_sys as sys;

use super::state::{Init, Rtr, Rts};
use super::{ModifyError, QueuePair};
use crate::attr::Mtu;
use crate::oob::Endpoint;

/// Properties of a connection. The default suits most; each setter says what gets worse.
#[derive(Clone, Debug)]
pub struct RcOptions {
    mtu: Option<Mtu>,
    min_rnr_timer: u8,
    timeout: u8,
    retry_cnt: u8,
    rnr_retry: u8,
    max_rd_atomic: Option<u8>,
    sl: u8,
    traffic_class: u8,
    hop_limit: u8,
    flow_label: u32,
}

impl Default for RcOptions {
    fn default() -> Self {
        Self {
            mtu: None,
            min_rnr_timer: 12,
            timeout: 14,
            retry_cnt: 7,
            rnr_retry: 7,
            max_rd_atomic: None,
            sl: 0,
            traffic_class: 0,
            hop_limit: 64,
            flow_label: 0,
        }
    }
}

impl RcOptions {
    /// Largest payload of a packet; the smaller one of the two ports' active MTUs unless set. Smaller costs bandwidth,
    /// larger than either port allows is refused.
    #[must_use]
    pub fn mtu(mut self, mtu: Mtu) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// How long the peer is asked to wait when it sends and no receive is posted here, as an index, `0..=31` (IBTA
    /// volume 1, table 46); 12 unless set, which is 0.64 ms. Longer costs latency after a late receive, shorter costs
    /// retries.
    #[must_use]
    pub fn min_rnr_timer(mut self, index: u8) -> Self {
        self.min_rnr_timer = index;
        self
    }

    /// How long to wait for an acknowledgement before sending again: 4.096 µs × 2^n, `0..=31`, 0 is for ever; 14 unless
    /// set, which is 67 ms. Longer delays the discovery of losses and of a dead peer, shorter repeats needlessly.
    #[must_use]
    pub fn timeout(mut self, exponent: u8) -> Self {
        self.timeout = exponent;
        self
    }

    /// How often to send again before giving up, `0..=7`; 7 unless set. Fewer give up sooner.
    #[must_use]
    pub fn retry_cnt(mut self, times: u8) -> Self {
        self.retry_cnt = times;
        self
    }

    /// How often to send again when the peer has no receive posted, `0..=6`, or 7 for ever; 7 unless set. A finite number
    /// turns a peer that is late with its receives into a failed connection.
    #[must_use]
    pub fn rnr_retry(mut self, times: u8) -> Self {
        self.rnr_retry = times;
        self
    }

    /// READs and atomics in flight at once; what the peer serves and the device can do unless set. Fewer cost bandwidth.
    #[must_use]
    pub fn max_rd_atomic(mut self, operations: u8) -> Self {
        self.max_rd_atomic = Some(operations);
        self
    }

    /// Service level, `0..=15`, on RoCE the priority; 0 unless set.
    #[must_use]
    pub fn sl(mut self, level: u8) -> Self {
        self.sl = level;
        self
    }

    /// Traffic class of the packets, on RoCEv2 the IP type of service; 0 unless set.
    #[must_use]
    pub fn traffic_class(mut self, class: u8) -> Self {
        self.traffic_class = class;
        self
    }

    /// Routers that packets may cross; 64 unless set.
    #[must_use]
    pub fn hop_limit(mut self, hops: u8) -> Self {
        self.hop_limit = hops;
        self
    }

    /// Flow label, 20 bits, on RoCEv2 the source of the UDP source port and so of the path chosen; 0 unless set.
    #[must_use]
    pub fn flow_label(mut self, label: u32) -> Self {
        self.flow_label = label;
        self
    }
}

impl QueuePair<Init> {
    /// Connects to `peer` with the default options: INIT → RTR → RTS. The peer does the same with this one's endpoint.
    ///
    /// # Errors
    /// [`ModifyError`], which says what is wrong; the queue pair is dropped then.
    #[doc(alias = "ibv_modify_qp")]
    pub fn connect(self, peer: &Endpoint) -> Result<QueuePair<Rts>, ModifyError> {
        self.connect_with(peer, &RcOptions::default())
    }

    /// Connects to `peer`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_with(self, peer: &Endpoint, options: &RcOptions) -> Result<QueuePair<Rts>, ModifyError> {
        self.to_rtr(peer, options)?.to_rts(options)
    }

    /// INIT → RTR: from here on messages of `peer` are received.
    ///
    /// # Errors
    /// [`ModifyError`], which says what is wrong; the queue pair is dropped then.
    pub fn to_rtr(self, peer: &Endpoint, options: &RcOptions) -> Result<QueuePair<Rtr>, ModifyError> {
        let own = self.endpoint();
        let shared = self.shared();
        let is_global = !peer.gid.is_zero();
        let mut attr = sys::ibv_qp_attr {
            qp_state: sys::IBV_QPS_RTR,
            path_mtu: options.mtu.unwrap_or(own.mtu.min(peer.mtu)).to_sys(),
            dest_qp_num: peer.qpn.get(),
            rq_psn: peer.psn.get(),
            max_dest_rd_atomic: own.rd_atomic,
            min_rnr_timer: options.min_rnr_timer,
            ah_attr: sys::ibv_ah_attr {
                dlid: peer.lid.0,
                sl: options.sl,
                is_global: u8::from(is_global),
                port_num: shared.port.0,
                grh: sys::ibv_global_route {
                    dgid: peer.gid.to_sys(),
                    flow_label: options.flow_label,
                    sgid_index: shared.sgid_index.0,
                    hop_limit: options.hop_limit,
                    traffic_class: options.traffic_class,
                },
                ..Default::default()
            },
            ..Default::default()
        };
        let mask = sys::IBV_QP_STATE
            | sys::IBV_QP_AV
            | sys::IBV_QP_PATH_MTU
            | sys::IBV_QP_DEST_QPN
            | sys::IBV_QP_RQ_PSN
            | sys::IBV_QP_MAX_DEST_RD_ATOMIC
            | sys::IBV_QP_MIN_RNR_TIMER;
        shared.modify(&mut attr, mask)?;
        Ok(self.into_state(Some(*peer)))
    }
}

impl QueuePair<Rtr> {
    /// RTR → RTS: from here on it can send.
    ///
    /// # Errors
    /// [`ModifyError`], which says what is wrong; the queue pair is dropped then.
    pub fn to_rts(self, options: &RcOptions) -> Result<QueuePair<Rts>, ModifyError> {
        let shared = self.shared();
        // The peer is known in this state.
        let served = self.peer.map_or(0, |peer| peer.rd_atomic);
        let can = shared.context().query_device().map_or(1, |attr| attr.max_qp_init_rd_atom);
        let max_rd_atomic = options.max_rd_atomic.unwrap_or_else(|| can.min(u32::from(served)) as u8);
        let mut attr = sys::ibv_qp_attr {
            qp_state: sys::IBV_QPS_RTS,
            sq_psn: shared.endpoint.psn.get(),
            max_rd_atomic,
            timeout: options.timeout,
            retry_cnt: options.retry_cnt,
            rnr_retry: options.rnr_retry,
            ..Default::default()
        };
        let mask = sys::IBV_QP_STATE
            | sys::IBV_QP_SQ_PSN
            | sys::IBV_QP_MAX_QP_RD_ATOMIC
            | sys::IBV_QP_TIMEOUT
            | sys::IBV_QP_RETRY_CNT
            | sys::IBV_QP_RNR_RETRY;
        shared.modify(&mut attr, mask)?;
        let peer = self.peer;
        Ok(self.into_state(peer))
    }
}
