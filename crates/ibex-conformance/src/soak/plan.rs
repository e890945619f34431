//! What a round does, as its seed decides.
//!
//! Owns every choice that must be the same in all processes of a round.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

/// The best link that may be used: `IBEX_SOFT_LINK`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// Whatever is best.
    Auto,
    /// Rings in shared memory, even inside one process.
    Host,
    /// UDP.
    Wire,
}

impl Link {
    /// The variable's value.
    pub(super) fn name(self) -> &'static str {
        match self {
            Link::Auto => "auto",
            Link::Host => "host",
            Link::Wire => "wire",
        }
    }
}

/// What is done to one of the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blow {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT after so long.
    Stop(Duration),
}

/// One connection: which processes its two ends are in (perhaps the same one).
#[derive(Debug, Clone, Copy)]
pub(super) struct Connection {
    /// Its number, from 0.
    pub(super) id: usize,
    /// The processes of side 0 and side 1.
    pub(super) ends: [usize; 2],
    /// Messages each side sends.
    pub(super) messages: u64,
    /// Most bytes of a message or operation.
    pub(super) most: usize,
    /// The path MTU, as the verbs number it.
    pub(super) mtu: u32,
}

/// A round.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) link: Link,
    /// The device's address: of 127/8, another one for each seed, so that rounds do not meet.
    pub(super) address: Ipv4Addr,
    /// Processes.
    pub(super) workers: usize,
    pub(super) connections: Vec<Connection>,
    /// Faults of the device, as environment variables.
    pub(super) faults: Vec<(&'static str, String)>,
    /// Who is killed or stopped, how, and how long after the start.
    pub(super) blow: Option<(usize, Blow, Duration)>,
}

/// A generator for one purpose of a seed.
pub(super) fn rng(seed: u64, purpose: u64) -> fastrand::Rng {
    // Nearby seeds must not give related streams: fastrand hashes them only lightly.
    fastrand::Rng::with_seed((seed ^ purpose.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

impl Plan {
    /// The round of a seed.
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = rng(seed, 0);
        let link = [Link::Auto, Link::Host, Link::Wire][(seed % 3) as usize];
        let workers = rng.usize(1..=3);
        let count = rng.usize(1..=6);
        let mut faults = Vec::new();
        if rng.u8(0..10) < 4 {
            let percent = |most: f64, rng: &mut fastrand::Rng| format!("{:.2}", rng.f64() * most);
            faults.push(("IBEX_SOFT_LOSS", percent(5.0, &mut rng)));
            faults.push(("IBEX_SOFT_DUP", percent(5.0, &mut rng)));
            faults.push(("IBEX_SOFT_REORDER", percent(5.0, &mut rng)));
            faults.push(("IBEX_SOFT_SEED", seed.to_string()));
        }
        let connections = (0..count)
            .map(|id| Connection {
                id,
                ends: [rng.usize(0..workers), rng.usize(0..workers)],
                // Most rounds are short, so that there are many; some outlast every blow.
                // A lost packet costs a timeout when nothing follows it.
                messages: 1 << rng.u32(if faults.is_empty() { 2..13 } else { 2..9 }),
                most: [64, 1024, 8192, 98_304][rng.usize(0..4)],
                mtu: rng.u32(1..=5),
            })
            .collect();
        let after = Duration::from_millis(rng.u64(0..100));
        let victim = rng.usize(0..workers);
        let blow = match rng.u8(0..10) {
            // A survivor is needed to see it.
            0..=3 if workers > 1 => Some((victim, Blow::Kill, after)),
            4..=5 => Some((victim, Blow::Stop(Duration::from_millis(rng.u64(1..1500))), after)),
            _ => None,
        };
        let [_, a, b, c] = ((0x0010_0000 + seed) as u32).to_be_bytes();
        let address = Ipv4Addr::new(127, a.max(16), b, c.clamp(1, 254));
        Self { seed, link, address, workers, connections, faults, blow }
    }

    /// Whether a process is killed.
    pub(super) fn kills(&self) -> bool {
        matches!(self.blow, Some((_, Blow::Kill, _)))
    }

    /// Whether a process is stopped for a while.
    pub(super) fn stops(&self) -> bool {
        matches!(self.blow, Some((_, Blow::Stop(_), _)))
    }

    /// Whether a connection may break: one of its ends is in the process that is killed or stopped.
    pub(super) fn may_break(&self, connection: &Connection) -> bool {
        self.blow.is_some_and(|(victim, ..)| connection.ends.contains(&victim))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, link, workers, connections, .. } = self;
        let link = link.name();
        write!(f, "seed {seed}: link {link}, {workers} processes, {} connections", connections.len())?;
        for (name, value) in self.faults.iter().take(3) {
            write!(f, ", {} {value} %", name.trim_start_matches("IBEX_SOFT_").to_lowercase())?;
        }
        match self.blow {
            Some((victim, Blow::Kill, after)) => write!(f, ", process {victim} killed after {after:?}"),
            Some((victim, Blow::Stop(length), after)) => {
                write!(f, ", process {victim} stopped after {after:?} for {length:?}")
            }
            None => Ok(()),
        }
    }
}
