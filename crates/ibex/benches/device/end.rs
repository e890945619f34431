//! One side's device, memory and queue pair, used through the raw verbs.
//!
//! Owns building, posting and polling. Memory is one [`SharedRegion`], registered once with every right; offsets into it
//! name places. A list's last request is signalled and retires those before it; a lone request is signalled now and then.
//! Every wait ends ([`LIMIT`]).
//!
//! # Safety
//! Queue pair, completion queue and region live as long as the `End`, which alone uses them (I7); a request names only
//! bytes of the region, which no reference ever covers (I2). The completion queue has room for both queues (I6).
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use ibex::state::{Init, Rts};
use ibex::sys::{
    IBV_ACCESS_LOCAL_WRITE, IBV_ACCESS_REMOTE_WRITE, IBV_SEND_SIGNALED, IBV_WC_SUCCESS, IBV_WR_RDMA_WRITE,
    IBV_WR_SEND, ibv_recv_wr, ibv_send_wr, ibv_sge, ibv_wc, ibv_wr_opcode,
};
use ibex::verbs::raw;
use ibex::{
    Access, CompletionQueue, Context, Endpoint, ProtectionDomain, Provider, QueuePair, SharedRegion, Wait,
};

use crate::Result;
use crate::peer::Peer;

/// Requests of each queue: more than any measurement has outstanding.
pub(crate) const DEPTH: u32 = 1024;
/// Requests posted, and completions polled, by one call at most.
pub(crate) const LIST: usize = 32;
/// One lone request in so many is signalled.
const SIGNALLED: u64 = 16;
/// Without any completion for so long the benchmark gives up.
const LIMIT: Duration = Duration::from_secs(20);
/// Idle looks between two looks at the clock.
const LOOKS: u32 = 1 << 16;
/// `wr_id` of a receive: this bit and its place.
const RECEIVE: u64 = 1 << 63;

/// A message in memory: where, how long, and for a WRITE where at the peer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Piece {
    pub(crate) at: u64,
    pub(crate) len: u32,
    pub(crate) to: u64,
}

/// A message received.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrival {
    pub(crate) at: usize,
    pub(crate) len: u32,
}

/// The device's context and a domain.
pub(crate) fn open() -> Result<(Context, ProtectionDomain)> {
    let device = Provider::Soft.devices()?.into_iter().next().ok_or("there is no software device")?;
    let context = device.open()?;
    let pd = context.alloc_pd()?;
    Ok((context, pd))
}

/// A side that is not connected yet.
pub(crate) struct Idle {
    pub(crate) endpoint: Endpoint,
    qp: QueuePair<Init>,
    cq: CompletionQueue,
    region: SharedRegion,
    base: u64,
    lkey: u32,
    rkey: u32,
}

impl Idle {
    /// A queue pair and `bytes` of memory.
    pub(crate) fn new(context: &Context, pd: &ProtectionDomain, bytes: usize) -> Result<Idle> {
        let cq = context.cq(2 * DEPTH).wait(Wait::Spin).build()?;
        let qp = pd.create_rc(&cq).max_send_wr(DEPTH).max_recv_wr(DEPTH).build()?;
        let region = pd.shared(bytes)?;
        // The handle's fixed layout says where the region is.
        let handle = region.expose(Access::REMOTE_WRITE)?.to_bytes();
        let base = u64::from_le_bytes(handle[8..16].try_into()?);
        let rights = i32::try_from((IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE).0)?;
        // SAFETY: the region's own bytes, mapped as long as it lives and never behind a reference (I2).
        let mr = unsafe { raw::reg_mr(context.verbs(), pd.as_raw(), base as *mut _, bytes, rights) }?;
        // SAFETY: just registered, and never deregistered: it ends with the process (ibv_reg_mr(3)).
        let mr = unsafe { mr.as_ref() };
        let (lkey, rkey) = (mr.lkey, mr.rkey);
        Ok(Idle { endpoint: qp.endpoint(), qp, cq, region, base, lkey, rkey })
    }

    /// What the peer must know: endpoint, address, key.
    fn card(&self) -> Vec<u8> {
        let mut card = self.endpoint.to_bytes().to_vec();
        card.extend(self.base.to_le_bytes());
        card.extend(self.rkey.to_le_bytes());
        card
    }

    /// Connects to the side whose card this is.
    pub(crate) fn connect(self, card: &[u8]) -> Result<End> {
        let (endpoint, memory) = card.split_at(Endpoint::SIZE);
        let endpoint = Endpoint::from_bytes(endpoint.try_into()?)?;
        let remote =
            (u64::from_le_bytes(memory[..8].try_into()?), u32::from_le_bytes(memory[8..12].try_into()?));
        let Idle { qp, cq, region, base, lkey, .. } = self;
        Ok(End {
            region,
            qp: qp.connect(&endpoint)?,
            cq,
            base,
            lkey,
            remote,
            posted: 0,
            retired: 0,
            sends: vec![ibv_send_wr::default(); LIST],
            receives: vec![ibv_recv_wr::default(); LIST],
            pieces: vec![ibv_sge::default(); LIST],
            completions: vec![ibv_wc::default(); LIST],
            arrivals: Vec::with_capacity(LIST),
            idle: 0,
            since: None,
        })
    }
}

/// Two sides of one process, connected to each other.
pub(crate) fn couple(a: Idle, b: Idle) -> Result<(End, End)> {
    let (card_a, card_b) = (a.card(), b.card());
    Ok((a.connect(&card_b)?, b.connect(&card_a)?))
}

/// This process's side, connected to the other process's.
pub(crate) fn meet(peer: &mut Peer, bytes: usize) -> Result<End> {
    let (context, pd) = open()?;
    let idle = Idle::new(&context, &pd, bytes)?;
    let card = peer.exchange(&idle.card())?;
    let end = idle.connect(&card)?;
    peer.meet()?;
    Ok(end)
}

/// One side, connected.
pub(crate) struct End {
    pub(crate) region: SharedRegion,
    qp: QueuePair<Rts>,
    cq: CompletionQueue,
    base: u64,
    lkey: u32,
    /// Address and key of the peer's memory.
    remote: (u64, u32),
    /// Requests posted, and those of them known to be complete.
    posted: u64,
    retired: u64,
    sends: Vec<ibv_send_wr>,
    receives: Vec<ibv_recv_wr>,
    pieces: Vec<ibv_sge>,
    completions: Vec<ibv_wc>,
    /// What the last [`poll`](Self::poll) received.
    pub(crate) arrivals: Vec<Arrival>,
    /// Polls in a row without a completion, and since when.
    idle: u32,
    since: Option<Instant>,
}

impl End {
    /// SENDs; a lone one is signalled now and then.
    pub(crate) fn send(&mut self, pieces: &[Piece]) -> Result<()> {
        self.post(IBV_WR_SEND, pieces, false)
    }

    /// WRITEs; a lone one is signalled now and then.
    pub(crate) fn write(&mut self, pieces: &[Piece]) -> Result<()> {
        self.post(IBV_WR_RDMA_WRITE, pieces, false)
    }

    /// A WRITE with a completion of its own.
    pub(crate) fn write_signalled(&mut self, piece: Piece) -> Result<()> {
        self.post(IBV_WR_RDMA_WRITE, &[piece], true)
    }

    /// Posts a list of at most [`LIST`] requests, for which the caller has left room.
    #[inline]
    fn post(&mut self, opcode: ibv_wr_opcode, pieces: &[Piece], signalled: bool) -> Result<()> {
        let count = pieces.len();
        self.posted += count as u64;
        // A lone request is signalled when its number says so, a list always.
        let signalled = signalled || count > 1 || self.posted.is_multiple_of(SIGNALLED);
        for (i, piece) in pieces.iter().enumerate() {
            self.pieces[i] = ibv_sge { addr: self.base + piece.at, length: piece.len, lkey: self.lkey };
            let sg_list = &raw mut self.pieces[i];
            let next = if i + 1 < count { &raw mut self.sends[i + 1] } else { std::ptr::null_mut() };
            let wr = &mut self.sends[i];
            wr.sg_list = sg_list;
            wr.next = next;
            wr.num_sge = 1;
            wr.opcode = opcode;
            wr.wr_id = self.posted;
            wr.send_flags = if signalled && i + 1 == count { IBV_SEND_SIGNALED.0 } else { 0 };
            if opcode == IBV_WR_RDMA_WRITE {
                wr.wr.rdma.remote_addr = self.remote.0 + piece.to;
                wr.wr.rdma.rkey = self.remote.1;
            }
        }
        // SAFETY: a list of this End's own, valid for the call; its pieces lie in the region (I2) or are refused by the
        // key; there is room in both queues, since callers keep far less than DEPTH outstanding (I6).
        unsafe { raw::post_send(self.qp.as_raw(), self.sends.as_mut_ptr()) }?;
        Ok(())
    }

    /// Posts receives of `len` bytes at these places, at most [`LIST`].
    pub(crate) fn receive(&mut self, places: impl Iterator<Item = usize>, len: u32) -> Result<()> {
        let mut count = 0;
        for place in places {
            self.pieces[count] = ibv_sge { addr: self.base + place as u64, length: len, lkey: self.lkey };
            let sg_list = &raw mut self.pieces[count];
            self.receives[count] =
                ibv_recv_wr { wr_id: RECEIVE | place as u64, sg_list, num_sge: 1, ..Default::default() };
            count += 1;
        }
        for i in 1..count {
            self.receives[i - 1].next = &raw mut self.receives[i];
        }
        // SAFETY: as for sends: a list valid for the call, places in the region (I2), room in both queues (I6).
        unsafe { raw::post_recv(self.qp.as_raw(), self.receives.as_mut_ptr()) }?;
        Ok(())
    }

    /// Posts receives for places 0, `stride`, 2 `stride` … from `first` on.
    pub(crate) fn receive_many(&mut self, first: usize, count: usize, len: u32, stride: usize) -> Result<()> {
        for begin in (0..count).step_by(LIST) {
            let end = (begin + LIST).min(count);
            self.receive((begin..end).map(|i| first + i * stride), len)?;
        }
        Ok(())
    }

    /// Takes completions; fills [`arrivals`](Self::arrivals).
    ///
    /// # Errors
    /// If one of them failed, or nothing has come for too long.
    #[inline]
    pub(crate) fn poll(&mut self) -> Result<()> {
        self.arrivals.clear();
        // SAFETY: the queue is live, and nothing else polls it (I7).
        let count = unsafe { raw::poll_cq(self.cq.as_raw(), &mut self.completions) }?;
        for wc in &self.completions[..count] {
            if wc.status != IBV_WC_SUCCESS {
                return Err(format!("a request failed with status {}", wc.status.0).into());
            }
            if wc.wr_id & RECEIVE == 0 {
                self.retired = wc.wr_id;
            } else {
                self.arrivals.push(Arrival { at: (wc.wr_id & !RECEIVE) as usize, len: wc.byte_len });
            }
        }
        if count == 0 { self.nothing() } else { self.something() }
    }

    /// A look that saw nothing.
    #[inline]
    fn nothing(&mut self) -> Result<()> {
        self.idle += 1;
        if self.idle < LOOKS {
            return Ok(());
        }
        self.idle = 0;
        if self.since.get_or_insert_with(Instant::now).elapsed() > LIMIT {
            return Err(format!("nothing came for {} s", LIMIT.as_secs()).into());
        }
        Ok(())
    }

    #[inline]
    fn something(&mut self) -> Result<()> {
        self.idle = 0;
        self.since = None;
        Ok(())
    }

    /// Requests that may not be complete yet.
    #[inline]
    pub(crate) fn outstanding(&self) -> u64 {
        self.posted - self.retired
    }

    /// Spins until a message has arrived; only for exchanges with one message under way.
    #[inline]
    pub(crate) fn await_arrival(&mut self) -> Result<Arrival> {
        loop {
            self.poll()?;
            if let Some(arrival) = self.arrivals.first() {
                return Ok(*arrival);
            }
        }
    }

    /// Spins until the word at `at` is `value`. What the peer writes arrives without a completion here; the queue is polled
    /// now and then nevertheless, since that drives a device that needs it.
    #[inline]
    pub(crate) fn await_word(&mut self, at: usize, value: u64) -> Result<()> {
        loop {
            for _ in 0..64 {
                if self.region.load_u64(at)? == value {
                    self.idle = 0;
                    return Ok(());
                }
            }
            self.poll()?;
        }
    }
}
