//! Faults on the send path: loss, duplication, reordering and corruption in percent, from a seed; and delay.
//!
//! Owns the choice of what happens to each packet, the packet that is held back, and the line in which delayed packets wait.
//! For tests and interoperability runs; without faults none of this is on the path. Packets that are left alone still
//! travel in batches, so that a little loss costs what the loss costs.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use super::tx::{self, Path};
use super::udp::Udp;
use super::wire::Wire;

/// How often to harm an outgoing packet. The shares add up to at most 100; what exceeds it is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Faults {
    /// Percent of packets lost, 0–100.
    pub(crate) loss: f64,
    /// Percent of packets sent twice, 0–100.
    pub(crate) duplicate: f64,
    /// Percent of packets sent after the one that follows them, to whomever it goes, 0–100. The last
    /// one is delayed until there is another: in effect lost.
    pub(crate) reorder: f64,
    /// Percent of packets in which one bit is turned, 0–100; the receiver's ICRC finds it. Not in packets that travel
    /// through memory, which has no such faults and no ICRC.
    pub(crate) corrupt: f64,
    /// How much later every packet leaves by UDP, microseconds.
    pub(crate) delay: u64,
    /// Seed of the random choices.
    pub(crate) seed: u64,
}

/// The fate of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Send,
    Lose,
    Duplicate,
    Overtake,
    Corrupt,
}

/// The choices in progress.
#[derive(Debug)]
pub(super) struct Injector {
    faults: Faults,
    rng: Rng,
    /// A packet to be overtaken and where it goes.
    held: Option<(Path, Vec<u8>)>,
    line: Option<Line>,
}

impl Faults {
    /// Whether there is anything to do.
    pub(super) fn any(&self) -> bool {
        self.loss > 0.0 || self.duplicate > 0.0 || self.reorder > 0.0 || self.corrupt > 0.0 || self.delay > 0
    }
}

impl Injector {
    /// An injector for a link whose socket is `own`.
    ///
    /// # Errors
    /// Those of starting a thread, which a delay needs.
    pub(super) fn new(faults: Faults, own: &Arc<Udp>) -> std::io::Result<Self> {
        let line = match faults.delay {
            0 => None,
            delay => Some(Line::start(Duration::from_micros(delay), own.clone())?),
        };
        Ok(Self { faults, rng: Rng(faults.seed), held: None, line })
    }

    /// Sends packets of `segment` bytes each, the last perhaps shorter, or does to each what is due.
    pub(super) fn send(&mut self, wire: &Wire, path: &Path, packets: &mut [u8], segment: usize) {
        // What begins here has met no fault yet and travels as one batch.
        let mut start = 0;
        let mut at = 0;
        while at < packets.len() {
            let end = (at + segment).min(packets.len());
            let fate = self.fate();
            if fate != Fate::Send || self.held.is_some() {
                self.batch(wire, path, &mut packets[start..at], segment, start > 0);
                self.one(wire, path, &mut packets[at..end], fate);
                start = end;
            }
            at = end;
        }
        self.batch(wire, path, &mut packets[start..], segment, start > 0);
    }

    /// Sends packets that are left alone. With `later` they were not at the beginning of their batch.
    fn batch(&mut self, wire: &Wire, path: &Path, packets: &mut [u8], segment: usize, later: bool) {
        if packets.is_empty() {
            return;
        }
        if later {
            reseal(path, packets, segment);
        }
        self.leave(wire, path, packets, segment);
    }

    /// One packet, whatever becomes of it; then the one that it overtook.
    fn one(&mut self, wire: &Wire, path: &Path, packet: &mut [u8], fate: Fate) {
        wire.counters().tx_faults.add((fate != Fate::Send).into());
        let length = packet.len();
        reseal(path, packet, length);
        let copies = match fate {
            Fate::Send | Fate::Corrupt => 1,
            Fate::Duplicate => 2,
            Fate::Lose | Fate::Overtake => 0,
        };
        if fate == Fate::Corrupt && matches!(path, Path::Udp(..)) {
            let bit = self.rng.below(length as u64 * 8) as usize;
            packet[bit / 8] ^= 1 << (bit % 8);
        }
        for _ in 0..copies {
            self.leave(wire, path, packet, length);
        }
        let overtaken = (fate == Fate::Overtake).then(|| (path.clone(), packet.to_vec()));
        if fate != Fate::Lose
            && let Some((path, mut packet)) = std::mem::replace(&mut self.held, overtaken)
        {
            let length = packet.len();
            self.leave(wire, &path, &mut packet, length);
        }
    }

    /// Sends, perhaps later.
    fn leave(&self, wire: &Wire, path: &Path, packets: &mut [u8], segment: usize) {
        match (&self.line, path) {
            (Some(line), Path::Udp(target, ..)) => {
                wire.capture(path, packets, segment);
                if !line.enter(Waiting {
                    due: Instant::now() + line.delay,
                    target: *target,
                    bytes: packets.to_vec(),
                    segment,
                }) {
                    wire.counters().tx_dropped.add(packets.len().div_ceil(segment) as u64);
                }
            }
            _ => tx::transmit(wire, path, packets, segment),
        }
    }

    /// Decides about the next packet.
    fn fate(&mut self) -> Fate {
        // One draw decides, so that the percentages add up instead of hiding each other.
        let mut draw = self.rng.percent();
        for (share, fate) in [
            (self.faults.loss, Fate::Lose),
            (self.faults.duplicate, Fate::Duplicate),
            (self.faults.reorder, Fate::Overtake),
            (self.faults.corrupt, Fate::Corrupt),
        ] {
            if draw < share {
                return fate;
            }
            draw -= share;
        }
        Fate::Send
    }
}

/// Numbers the packets of a batch from 0 again: the ICRC covers the identification that the kernel will give them.
fn reseal(path: &Path, packets: &mut [u8], segment: usize) {
    if let Path::Udp(_, flow, _) = path {
        for (index, packet) in packets.chunks_mut(segment).enumerate() {
            // At most 64 in a batch.
            flow.seal(index as u16, packet);
        }
    }
}

/// SplitMix64: good enough to lose packets by, and repeatable.
#[derive(Debug)]
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in 0..100.
    fn percent(&mut self) -> f64 {
        // 53 bits are what a double holds exactly.
        (self.next() >> 11) as f64 / (1u64 << 53) as f64 * 100.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

/// A batch that waits for its time.
#[derive(Debug)]
struct Waiting {
    due: Instant,
    target: super::udp::Target,
    bytes: Vec<u8>,
    segment: usize,
}

/// Batches that wait at once; more are dropped, as by a router whose queue is full.
const LINE: usize = 4096;

/// The line of delayed batches and the thread that lets them go.
#[derive(Debug)]
struct Line {
    delay: Duration,
    sender: SyncSender<Waiting>,
}

impl Line {
    fn start(delay: Duration, own: Arc<Udp>) -> std::io::Result<Line> {
        let (sender, receiver) = sync_channel(LINE);
        // It ends with the link, which holds the other end of the channel.
        std::thread::Builder::new().name("ibex-delay".into()).spawn(move || {
            crate::os::block_signals();
            let_go(&receiver, &own);
        })?;
        Ok(Line { delay, sender })
    }

    /// False if there is no room.
    fn enter(&self, waiting: Waiting) -> bool {
        !matches!(self.sender.try_send(waiting), Err(TrySendError::Full(_) | TrySendError::Disconnected(_)))
    }
}

/// Sends each batch at its time; all are delayed by the same, so they leave in the order they came in.
fn let_go(receiver: &Receiver<Waiting>, own: &Udp) {
    while let Ok(Waiting { due, target, bytes, segment }) = receiver.recv() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // What the socket does not take is lost, as it would be on a wire.
        let _ = tx::patiently(|| own.send(&target, &bytes, segment));
    }
}
