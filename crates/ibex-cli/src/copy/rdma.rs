//! The window on the device: slots of exposed memory on the server, READ and WRITE by the client.
//!
//! Owns both ends of the seam in `window`. Upload: the client WRITEs a slot with its number of bytes as immediate data,
//! whose completion tells the server that the bytes before it are in its memory. Download: the server fills a slot and
//! says so on the control connection; the client READs it. Slots are returned on the control connection. Nobody posts to a
//! queue pair before the other side's is connected.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use ibex::state::{Init, Rts};
use ibex::{
    Access, Buf, Context, Endpoint, Op, Pool, QueuePair, RemoteHandle, RemoteRegion, SharedRegion,
    Unfinished, Work,
};

use super::message::{Message, Welcome};
use super::record::SLOT;
use super::window::{Inlet, Outlet};
use crate::control::Control;
use crate::device::{DeviceFailed, settle};

/// Slots of a window: enough that both sides have work while a slot travels and is returned, 16 MiB of memory a client.
const SLOTS: usize = 16;
/// Operations in flight; each holds a slot's worth of registered memory on the client.
const DEPTH: usize = 8;
/// Slots a server may offer: more than this is no window of ours.
const MOST_SLOTS: u64 = 1024;
/// A receive for immediate data holds no bytes; a pool's blocks must have some.
const NOTICE: usize = 64;
/// An operation that takes longer than this is lost: far beyond what the transport itself retries.
const LIMIT: Duration = Duration::from_secs(60);
/// How long one look at the control connection lasts when nothing is there.
const SLICE: Duration = Duration::from_millis(100);

type Connected = QueuePair<Rts>;

/// The server's window and queue pair for one client, connected.
pub(crate) struct Exposure {
    region: SharedRegion,
    handle: RemoteHandle,
    qp: Connected,
    /// Receives for the immediate data of uploads, in the order they were posted.
    notices: VecDeque<Op<'static, Buf>>,
}

impl Exposure {
    /// A window to download from.
    pub(crate) fn for_reading(context: &Context, client: &Endpoint) -> Result<Self> {
        Self::new(context, client, Access::REMOTE_READ, 0).context("cannot set up a window on the device")
    }

    /// A window to upload into.
    pub(crate) fn for_writing(context: &Context, client: &Endpoint) -> Result<Self> {
        Self::new(context, client, Access::REMOTE_WRITE, SLOTS)
            .context("cannot set up a window on the device")
    }

    fn new(context: &Context, client: &Endpoint, access: Access, receives: usize) -> Result<Self> {
        let pd = context.alloc_pd()?;
        let region = pd.shared(SLOTS * SLOT)?;
        let handle = region.expose(access)?;
        // One of each at least: a device need not make an empty queue.
        let cq = context.create_cq(receives.max(1) as u32 + 1)?;
        let qp = pd.create_rc(&cq).max_send_wr(1).max_recv_wr(receives.max(1) as u32).build()?;
        let qp = qp.connect(client)?;
        let mut notices = VecDeque::new();
        if receives > 0 {
            let pool = pd.pool().block(NOTICE).blocks(receives).build()?;
            for _ in 0..receives {
                notices.push_back(qp.recv(pool.take()?)?.into_static());
            }
        }
        Ok(Self { region, handle, qp, notices })
    }

    /// Where this side's queue pair is.
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.qp.endpoint()
    }

    /// What the client reaches the window by.
    pub(crate) fn window(&self) -> RemoteHandle {
        self.handle
    }

    /// Slots of the window.
    pub(crate) fn slots(&self) -> u64 {
        SLOTS as u64
    }

    /// The sending side of a download.
    pub(crate) fn into_outlet(self) -> FillOutlet {
        FillOutlet { exposure: self, spare: Vec::new() }
    }

    /// The receiving side of an upload.
    pub(crate) fn into_inlet(self) -> EmptyInlet {
        EmptyInlet { exposure: self, next: 0, spare: Vec::new() }
    }
}

/// Fills slots that the client READs.
pub(crate) struct FillOutlet {
    exposure: Exposure,
    spare: Vec<u8>,
}

impl Outlet for FillOutlet {
    type Chunk = Vec<u8>;

    fn slots(&self) -> u64 {
        SLOTS as u64
    }

    fn chunk(&mut self, _: &Control) -> Result<Vec<u8>> {
        let mut chunk = std::mem::take(&mut self.spare);
        chunk.resize(SLOT, 0);
        Ok(chunk)
    }

    fn ship(&mut self, control: &Control, number: u64, chunk: Vec<u8>, used: usize) -> Result<()> {
        self.exposure.region.write_at(place(number, SLOTS as u64) as usize, &chunk[..used])?;
        self.spare = chunk;
        control.send(&Message::Filled(used as u32))
    }

    fn drain(&mut self, _: &Control) -> Result<()> {
        Ok(())
    }
}

/// Empties slots that the client WRITEs.
pub(crate) struct EmptyInlet {
    exposure: Exposure,
    next: u64,
    spare: Vec<u8>,
}

impl Inlet for EmptyInlet {
    type Chunk = Vec<u8>;

    fn next(&mut self, control: &Control) -> Result<Vec<u8>> {
        let notice = self.exposure.notices.pop_front().context("no receive is posted")?;
        let (buf, wc) = wait_notice(notice, control)?;
        let used = wc.imm().context("the client sent something else than a slot")? as usize;
        ensure!(used <= SLOT, "the client filled a slot with {used} bytes");
        let mut chunk = std::mem::take(&mut self.spare);
        chunk.resize(used, 0);
        self.exposure.region.read_at(place(self.next, SLOTS as u64) as usize, &mut chunk)?;
        self.next += 1;
        // Before the slot is returned, so that the next WRITE into it finds a receive.
        self.exposure.notices.push_back(self.exposure.qp.recv(buf)?.into_static());
        Ok(chunk)
    }

    fn recycle(&mut self, chunk: Vec<u8>) {
        self.spare = chunk;
    }
}

/// Waits for a notice of the client, which may be busy with its own disk for long: only its end, or its giving up, ends
/// the wait.
fn wait_notice(mut op: Op<'static, Buf>, control: &Control) -> Result<<Buf as Work>::Output> {
    loop {
        match op.wait_timeout(SLICE) {
            Ok(output) => return Ok(output),
            Err(Unfinished::Pending(still)) => op = still,
            Err(Unfinished::Failed(failed)) => {
                control.alive()?;
                return Err(DeviceFailed(failed.to_string()).into());
            }
        }
        match control.recv::<Message>(Duration::ZERO)? {
            None => {}
            Some(Message::Abort(why)) => bail!("the client gave up: {why}"),
            Some(other) => bail!("the client sent a message out of place: {other:?}"),
        }
    }
}

/// Where slot `number` lies in a window of `slots`.
fn place(number: u64, slots: u64) -> u64 {
    number % slots * SLOT as u64
}

/// The client's queue pair, not connected yet.
pub(crate) struct Attachment {
    pool: Pool,
    qp: QueuePair<Init>,
}

impl Attachment {
    /// Makes queue pair and buffers.
    pub(crate) fn new(context: &Context) -> Result<Self> {
        let make = || -> Result<Self> {
            let pd = context.alloc_pd()?;
            // One buffer more than operations in flight: the one being filled or emptied.
            let pool = pd.pool().block(SLOT).blocks(DEPTH + 1).build()?;
            let cq = context.create_cq(DEPTH as u32 + 1)?;
            let qp = pd.create_rc(&cq).max_send_wr(DEPTH as u32).max_recv_wr(1).build()?;
            Ok(Self { pool, qp })
        };
        make().context("cannot set up the device")
    }

    /// Where it is.
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.qp.endpoint()
    }

    fn connect(self, welcome: &Welcome) -> Result<Active> {
        let Welcome { endpoint, window, slots, .. } = welcome;
        ensure!(
            (1..=MOST_SLOTS).contains(slots) && slots * SLOT as u64 <= window.len(),
            "the server offers {slots} slots in {} bytes, which is no window",
            window.len()
        );
        let qp = self.qp.connect(endpoint).context("cannot connect to the server's queue pair")?;
        let target = qp.bind(*window)?;
        Ok(Active { pool: self.pool, qp, target, slots: *slots, flying: VecDeque::new() })
    }

    /// The sending side of an upload.
    pub(crate) fn outlet(self, welcome: &Welcome) -> Result<WriteOutlet> {
        Ok(WriteOutlet(self.connect(welcome)?))
    }

    /// The receiving side of a download.
    pub(crate) fn inlet(self, welcome: &Welcome) -> Result<ReadInlet> {
        Ok(ReadInlet { active: self.connect(welcome)?, filled: VecDeque::new(), next: 0 })
    }
}

/// The client's end of a connected window.
struct Active {
    pool: Pool,
    qp: Connected,
    target: RemoteRegion,
    slots: u64,
    /// In the order they were posted.
    flying: VecDeque<Op<'static, Buf>>,
}

impl Active {
    /// Waits for the oldest operation and gives its buffer back.
    fn land(&mut self, control: &Control) -> Result<Buf> {
        let op = self.flying.pop_front().context("nothing is in flight")?;
        let (buf, _) = settle(op, control, LIMIT)?;
        Ok(buf)
    }
}

/// WRITEs into the server's window.
pub(crate) struct WriteOutlet(Active);

impl Outlet for WriteOutlet {
    type Chunk = Buf;

    fn slots(&self) -> u64 {
        self.0.slots
    }

    fn chunk(&mut self, control: &Control) -> Result<Buf> {
        let mut buf = match self.0.pool.try_take() {
            Some(buf) => buf,
            None => self.0.land(control)?,
        };
        buf.set_len(SLOT);
        Ok(buf)
    }

    fn ship(&mut self, control: &Control, number: u64, mut chunk: Buf, used: usize) -> Result<()> {
        if self.0.flying.len() >= DEPTH {
            self.0.land(control)?;
        }
        chunk.set_len(used);
        let at = self.0.target.at(place(number, self.0.slots));
        let op = self.0.qp.write_with_imm(chunk, at, used as u32)?;
        self.0.flying.push_back(op.into_static());
        Ok(())
    }

    fn drain(&mut self, control: &Control) -> Result<()> {
        while !self.0.flying.is_empty() {
            self.0.land(control)?;
        }
        Ok(())
    }
}

/// READs from the server's window.
pub(crate) struct ReadInlet {
    active: Active,
    /// Slots announced and not yet asked for: their number and fill.
    filled: VecDeque<(u64, usize)>,
    /// Number of the next slot to be announced.
    next: u64,
}

impl ReadInlet {
    /// Takes in announcements, waiting at most `limit` for the first.
    fn listen(&mut self, control: &Control, mut limit: Duration) -> Result<()> {
        while let Some(message) = control.recv::<Message>(limit)? {
            match message {
                Message::Filled(used) => {
                    let used = used as usize;
                    ensure!((1..=SLOT).contains(&used), "the server filled a slot with {used} bytes");
                    let waiting = (self.filled.len() + self.active.flying.len()) as u64;
                    ensure!(waiting < self.active.slots, "the server announced more slots than there are");
                    self.filled.push_back((self.next, used));
                    self.next += 1;
                }
                Message::Abort(why) => bail!("{} gave up: {why}", control.peer()),
                other => bail!("the server sent a message out of place: {other:?}"),
            }
            limit = Duration::ZERO;
        }
        Ok(())
    }

    /// Asks for announced slots as long as there are buffers.
    fn ask(&mut self) -> Result<()> {
        while self.active.flying.len() < DEPTH
            && let Some(&(number, used)) = self.filled.front()
            && let Some(mut buf) = self.active.pool.try_take()
        {
            buf.set_len(used);
            let at = self.active.target.at(place(number, self.active.slots));
            self.active.flying.push_back(self.active.qp.read(buf, at)?.into_static());
            self.filled.pop_front();
        }
        Ok(())
    }
}

impl Inlet for ReadInlet {
    type Chunk = Buf;

    fn next(&mut self, control: &Control) -> Result<Buf> {
        self.listen(control, Duration::ZERO)?;
        self.ask()?;
        while self.active.flying.is_empty() {
            self.listen(control, SLICE)?;
            self.ask()?;
        }
        self.active.land(control)
    }

    fn recycle(&mut self, chunk: Buf) {
        // Back to its pool.
        drop(chunk);
    }
}
