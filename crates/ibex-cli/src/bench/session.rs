//! What both sides of a benchmark hold for its whole duration, and a queue pair for one measurement.
//!
//! Owns the device, the patterns and the making of queue pairs. How a queue pair is used is in `latency` and `bandwidth`.

use anyhow::{Context as _, Result};
use ibex::state::{Init, Rts};
use ibex::{
    Access, Buf, CompletionQueue, Context, Endpoint, FrozenBuf, Op, Pool, ProtectionDomain, QueuePair,
    RemoteHandle, SharedRegion,
};

use super::patience::LIMIT;
use super::pattern::Pattern;
use super::reference::Sockets;
use crate::args::Wait;
use crate::control::Control;
use crate::device::settle;

/// One side of a benchmark.
pub(crate) struct Session<'a> {
    pub(crate) control: &'a Control,
    pub(crate) sockets: Sockets,
    pub(crate) wait: Wait,
    /// What this side sends.
    pub(crate) ours: Pattern,
    /// What it must receive.
    pub(crate) theirs: Pattern,
    /// `ours`, where the device can read it.
    frozen: FrozenBuf,
    context: Context,
    pd: ProtectionDomain,
}

impl<'a> Session<'a> {
    /// Registers the patterns of a run for messages of at most `largest` bytes.
    pub(crate) fn new(
        context: &Context,
        control: &'a Control,
        sockets: Sockets,
        wait: Wait,
        seeds: (u64, u64),
        largest: usize,
    ) -> Result<Self> {
        let pd = context.alloc_pd()?;
        let ours = Pattern::new(seeds.0, largest);
        let theirs = Pattern::new(seeds.1, largest);
        let pool = pd.pool().block(ours.bytes().len()).blocks(1).build()?;
        let frozen = pool.take_from(ours.bytes())?.freeze();
        Ok(Self { control, sockets, wait, ours, theirs, frozen, context: context.clone(), pd })
    }

    /// Message number `k`, for the device to read.
    pub(crate) fn message(&self, k: u64, bytes: usize) -> FrozenBuf {
        self.frozen.slice(Pattern::window(k, bytes))
    }

    /// Waits for an operation.
    pub(crate) fn settle<T: ibex::Work>(&self, op: Op<'_, T>) -> Result<T::Output> {
        settle(op, self.control, LIMIT)
    }

    /// A queue pair with room for so many operations, not connected.
    pub(crate) fn queue_pair(&self, sends: usize, recvs: usize) -> Result<Idle> {
        let wait = match self.wait {
            Wait::Spin => ibex::Wait::Spin,
            Wait::Block => ibex::Wait::Sleep,
        };
        // Two queues: who sleeps until a message comes is not woken by the completion of what it sent.
        let cq = self.context.cq(sends as u32).wait(wait).build()?;
        let recv_cq = self.context.cq(recvs as u32).wait(wait).build()?;
        let rc = self.pd.create_rc(&cq).recv_cq(&recv_cq).max_send_wr(sends as u32).max_recv_wr(recvs as u32);
        Ok(Idle { qp: rc.build()?, cq })
    }

    /// Registered buffers of one message each.
    pub(crate) fn pool(&self, bytes: usize, count: usize) -> Result<Pool> {
        Ok(self.pd.pool().block(bytes).blocks(count).build()?)
    }

    /// Memory for the peer to reach.
    pub(crate) fn region(&self, bytes: usize, access: Access) -> Result<(SharedRegion, RemoteHandle)> {
        let region = self.pd.shared(bytes)?;
        let handle = region.expose(access).context("cannot expose memory")?;
        Ok((region, handle))
    }
}

/// A queue pair before it is connected.
pub(crate) struct Idle {
    qp: QueuePair<Init>,
    cq: CompletionQueue,
}

impl Idle {
    /// Where it is.
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.qp.endpoint()
    }

    /// Connects it.
    pub(crate) fn connect(self, peer: &Endpoint) -> Result<Link> {
        Ok(Link { qp: self.qp.connect(peer)?, cq: self.cq })
    }
}

/// A connected queue pair.
pub(crate) struct Link {
    pub(crate) qp: QueuePair<Rts>,
    /// Where what it sends completes.
    pub(crate) cq: CompletionQueue,
}

impl Link {
    /// Posts a receive.
    pub(crate) fn recv(&self, buf: Buf) -> Result<Op<'_, Buf>> {
        Ok(self.qp.recv(buf)?)
    }
}
