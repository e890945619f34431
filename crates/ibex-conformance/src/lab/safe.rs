//! The device under test through the safe crate `ibex`: connected ends, their buffers, and waits that end.
//!
//! Owns the way from the suite's environment to an [`ibex::Context`], and [`End`], [`Ends`] with everything an operation
//! needs. Holds no case, and no unsafe code: whatever a case can do with these, any program can.

use std::time::{Duration, Instant};

use ibex::mem::KIB;
use ibex::state::{Init, Rts, State};
use ibex::{
    Buf, CompletionQueue, Context, Endpoint, Failed, Op, Pool, ProtectionDomain, Provider, QueuePair,
    RcOptions, Unfinished, Wait, Work,
};

use super::device::wanted_device;
use super::{PATIENCE, QUIET};

/// Opens the device that the environment names, through the safe crate.
///
/// # Panics
/// When there is none: the suite never passes for want of a device.
pub fn open() -> Context {
    let provider = match std::env::var("IBEX_CONFORMANCE_PROVIDER").as_deref() {
        Err(_) | Ok("soft") => Provider::Soft,
        Ok("system") => Provider::System,
        Ok(other) => panic!("IBEX_CONFORMANCE_PROVIDER is {other}: soft or system"),
    };
    let devices = provider.devices().unwrap_or_else(|error| panic!("{error}"));
    let wanted = wanted_device();
    let device = devices
        .iter()
        .find(|device| wanted.as_ref().is_none_or(|wanted| wanted == device.name()))
        .unwrap_or_else(|| panic!("no device {wanted:?} among {devices:?}"));
    device.open().unwrap_or_else(|error| panic!("{error}"))
}

/// True on the built-in device, whose timers are as fine as they are said to be.
pub fn is_soft(context: &Context) -> bool {
    context.device().origin() == ibex::Origin::Soft
}

/// How an end is made.
#[derive(Debug, Clone)]
pub struct EndOptions {
    /// Requests in the send queue.
    pub send: u32,
    /// Requests in the receive queue.
    pub recv: u32,
    /// Pieces of memory in a request of either queue.
    pub pieces: u32,
    /// Bytes of a buffer.
    pub block: usize,
    /// Buffers.
    pub blocks: usize,
    /// How waiting goes about it.
    pub wait: Wait,
    /// The connection.
    pub link: RcOptions,
}

impl Default for EndOptions {
    fn default() -> Self {
        Self {
            send: 16,
            recv: 16,
            pieces: 1,
            block: 4 * KIB,
            blocks: 8,
            wait: Wait::default(),
            link: RcOptions::default(),
        }
    }
}

/// One end of a connection: a queue pair and what its operations need.
#[derive(Debug)]
pub struct End<S: State = Rts> {
    /// The queue pair.
    pub qp: QueuePair<S>,
    /// Its buffers.
    pub pool: Pool,
    /// Where everything completes. It has room for this queue pair and for nothing else.
    pub cq: CompletionQueue,
    /// The domain.
    pub pd: ProtectionDomain,
}

impl End<Init> {
    /// Makes an end in a domain of its own.
    ///
    /// # Panics
    /// When the device refuses.
    pub fn new(context: &Context, options: &EndOptions) -> Self {
        let pd = context.alloc_pd().expect("a protection domain");
        let cq = context.cq(options.send + options.recv).wait(options.wait).build().expect("a queue");
        let pool = pd.pool().block(options.block).blocks(options.blocks).build().expect("a pool");
        let qp = pd
            .create_rc(&cq)
            .max_send_wr(options.send)
            .max_recv_wr(options.recv)
            .max_send_sge(options.pieces)
            .max_recv_sge(options.pieces)
            .build()
            .unwrap_or_else(|error| panic!("no queue pair: {error}"));
        Self { qp, pool, cq, pd }
    }

    /// Connects it.
    ///
    /// # Panics
    /// When the device refuses.
    pub fn connect(self, peer: &Endpoint, options: &EndOptions) -> End {
        let Self { qp, pool, cq, pd } = self;
        let qp = qp.connect_with(peer, &options.link).unwrap_or_else(|error| panic!("{error}"));
        End { qp, pool, cq, pd }
    }
}

impl End {
    /// A buffer of the pool with these bytes.
    ///
    /// # Panics
    /// When the pool has none left.
    pub fn buf(&self, bytes: &[u8]) -> Buf {
        self.pool.take_from(bytes).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A buffer of the pool, empty.
    ///
    /// # Panics
    /// As [`buf`](Self::buf).
    pub fn room(&self) -> Buf {
        self.pool.take().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Takes every buffer that the pool gives, and overwrites it.
    pub fn spoil(&self) -> Spoiled {
        let mut bufs: Vec<_> = std::iter::from_fn(|| self.pool.try_take()).collect();
        for buf in &mut bufs {
            buf.fill(SPOILT);
        }
        Spoiled(bufs)
    }

    /// Polls the end's queue until `met`.
    ///
    /// # Panics
    /// When that does not come in time.
    pub fn until(&self, what: &str, mut met: impl FnMut(&Self) -> bool) {
        poll_until(&self.cq, what, || met(self));
    }

    /// Polls the end's queue until the pool has so many free buffers, and never more.
    ///
    /// # Panics
    /// When they do not come in time, or too many come.
    pub fn until_free(&self, free: usize) {
        self.until(&format!("{free} free buffers"), |end| end.pool.free() >= free);
        assert_eq!(self.pool.free(), free, "buffers in flight came back");
    }

    /// Watches for [`QUIET`] that the pool's number of free buffers stays as it is.
    ///
    /// # Panics
    /// When it changes.
    pub fn stays_at(&self, free: usize) {
        let end = Instant::now() + QUIET;
        while Instant::now() < end {
            self.cq.poll().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(self.pool.free(), free, "buffers came back that nobody gave back");
            std::thread::yield_now();
        }
    }

    /// Watches for [`QUIET`] that nothing completes.
    ///
    /// # Panics
    /// When something does.
    pub fn stays_quiet(&self) {
        let end = Instant::now() + QUIET;
        while Instant::now() < end {
            assert_eq!(self.cq.poll().expect("a queue"), 0, "completions of nothing");
            std::thread::yield_now();
        }
    }
}

/// What every byte of a buffer is overwritten with that its former user has no business with any more.
const SPOILT: u8 = 0xe7;

/// Buffers that were free, overwritten.
#[derive(Debug)]
#[must_use = "dropping them gives them back to the pool"]
pub struct Spoiled(Vec<Buf>);

impl Spoiled {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Checks that nobody has touched them, and gives them back.
    ///
    /// # Panics
    /// When somebody has.
    pub fn untouched(self) {
        for buf in self.0 {
            let at = buf.iter().position(|byte| *byte != SPOILT);
            assert_eq!(at, None, "a buffer of the program was written to");
        }
    }
}

/// Two ends in one process, connected.
#[derive(Debug)]
pub struct Ends {
    /// The requester of most cases.
    pub a: End,
    /// The responder of most cases.
    pub b: End,
}

impl Ends {
    /// Two ends with the defaults.
    pub fn new() -> Self {
        Self::with(&EndOptions::default())
    }

    /// Two ends, each with its own domain and queue.
    pub fn with(options: &EndOptions) -> Self {
        Self::on(&open(), options)
    }

    /// The same on an open device.
    pub fn on(context: &Context, options: &EndOptions) -> Self {
        let (a, b) = (End::new(context, options), End::new(context, options));
        let (to_a, to_b) = (a.qp.endpoint(), b.qp.endpoint());
        Self { a: a.connect(&to_b, options), b: b.connect(&to_a, options) }
    }
}

impl Default for Ends {
    fn default() -> Self {
        Self::new()
    }
}

/// Polls a queue until `met`.
///
/// # Panics
/// When that does not come in time.
pub fn poll_until(cq: &CompletionQueue, what: &str, mut met: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !met() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        cq.poll().unwrap_or_else(|error| panic!("{error}"));
        std::thread::yield_now();
    }
}

/// The result of an operation, waited for with patience and not for ever.
///
/// # Errors
/// What the operation failed with.
///
/// # Panics
/// When it does not end.
pub fn ended<T: Work>(op: Op<'_, T>) -> Result<T::Output, Failed<T>> {
    match op.wait_timeout(PATIENCE) {
        Ok(output) => Ok(output),
        Err(Unfinished::Failed(failed)) => Err(failed),
        Err(Unfinished::Pending(op)) => panic!("{op:?} has not ended within {PATIENCE:?}"),
    }
}

/// What a successful operation gives.
///
/// # Panics
/// When it fails or does not end.
#[track_caller]
pub fn done<T: Work>(op: Op<'_, T>) -> T::Output {
    match ended(op) {
        Ok(output) => output,
        Err(failed) => panic!("{failed}"),
    }
}

/// What a failed operation reports.
///
/// # Panics
/// When it succeeds or does not end.
#[track_caller]
pub fn failed<T: Work>(op: Op<'_, T>) -> Failed<T> {
    match ended(op) {
        Ok(_) => panic!("an operation succeeded that had to fail"),
        Err(failed) => failed,
    }
}

/// The operation again, which must still be running.
///
/// # Panics
/// When it has ended.
#[track_caller]
pub fn pending<T: Work>(op: Op<'_, T>, timeout: Duration) -> Op<'_, T> {
    match op.wait_timeout(timeout) {
        Err(Unfinished::Pending(op)) => op,
        Ok(_) => panic!("an operation ended that could not"),
        Err(Unfinished::Failed(failed)) => panic!("{failed}"),
    }
}

/// A connection that gives up soon, and how long that takes at least: for cases in which the peer is gone.
pub fn impatient() -> (RcOptions, Duration) {
    let (retries, exponent) = (2, 12);
    let least = Duration::from_nanos(4096 << exponent) * u32::from(retries + 1);
    (RcOptions::default().retry_cnt(retries).timeout(exponent), least)
}
