//! What a seed chooses: the network, both ends of each pair, and how much they have to say.
//!
//! The traffic itself is in `traffic.rs`.

use ibex_wire::{Mtu, Psn};

use super::Rng;
use super::net::Faults;
use super::world::EndConfig;
use crate::{Nanos, QpType, RemoteAccess, Tuning};

/// The most a network may do in a run, in parts per million. A run draws its own between nothing and this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Packets lost.
    pub loss: u32,
    /// Packets delivered twice.
    pub duplicate: u32,
    /// Packets overtaken by later ones.
    pub reorder: u32,
    /// Packets damaged.
    pub corrupt: u32,
}

impl Default for Limits {
    /// 20 % each of loss, duplication and reordering, and 2 % of damage.
    fn default() -> Limits {
        Limits { loss: 200_000, duplicate: 200_000, reorder: 200_000, corrupt: 20_000 }
    }
}

/// One connection.
#[derive(Clone, Debug)]
pub(super) struct PairPlan {
    pub(super) left: EndConfig,
    pub(super) right: EndConfig,
    pub(super) mtu: Mtu,
    /// Requests of each side.
    pub(super) requests: [usize; 2],
    /// One request of one side goes wrong.
    pub(super) fault: bool,
}

/// A whole run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) faults: Faults,
    pub(super) pairs: Vec<PairPlan>,
}

impl Plan {
    pub(super) fn draw(rng: &mut Rng, limits: &Limits) -> Plan {
        let faults = network(rng, limits);
        let pairs = if rng.one_in(3) { 2 } else { 1 };
        let pairs = (0..pairs).map(|_| pair(rng, &faults)).collect();
        Plan { faults, pairs }
    }
}

fn network(rng: &mut Rng, limits: &Limits) -> Faults {
    let latency = rng.pick(&[500, 1000, 5000, 50_000]);
    let jitter = if rng.one_in(2) { 0 } else { rng.below(latency) };
    let spacing = rng.pick(&[0, 100, 1000]);
    // One run in four meets the limits exactly, the others anything up to them; one in eight a perfect network.
    let kind = rng.below(8);
    let mut draw = |limit: u32| match kind {
        0 => 0,
        1 | 2 => limit,
        _ => rng.range(0, u64::from(limit)) as u32,
    };
    let (loss, duplicate, reorder, corrupt) =
        (draw(limits.loss), draw(limits.duplicate), draw(limits.reorder), draw(limits.corrupt));
    // A short queue before a slow line: the requester's window must find its size.
    let queue = if spacing > 0 && rng.one_in(4) { rng.range(4, 32) as u32 } else { 0 };
    Faults { loss, duplicate, reorder, corrupt, latency, jitter, spacing, queue }
}

fn pair(rng: &mut Rng, faults: &Faults) -> PairPlan {
    let fault = rng.one_in(6);
    let mtu = rng.pick(&[Mtu::Mtu256, Mtu::Mtu256, Mtu::Mtu512, Mtu::Mtu1024, Mtu::Mtu4096]);
    let resources = [rng.range(1, 8) as u8, rng.range(1, 8) as u8];
    let mut end = |own: usize| {
        let tuning = Tuning {
            max_window: rng.pick(&[1, 2, 7, 16, 64, 256]),
            read_chunk: rng.pick(&[1, 3, 8, 32]),
            ack_every: rng.pick(&[1, 4, 32]),
            keep_ahead: rng.pick(&[0, 0, 3, 64, 512]),
            probe: rng.pick(&[1000, 20_000, 4_000_000]),
            sparse_acks: rng.pick(&[0, 0, 2, 16]),
            peer_repairs: rng.one_in(2),
        };
        let psn = match rng.below(3) {
            // Close to the end of the numbers, and to the middle, where signs change.
            0 => Psn::new(0) - rng.below(200) as u32,
            1 => Psn::new(Psn::HALF) - rng.below(200) as u32,
            _ => Psn::new(rng.bits() as u32),
        };
        EndConfig {
            qp_type: QpType::Rc,
            memory: super::traffic::MEMORY,
            sq_depth: rng.range(1, 32) as u32,
            tuning,
            psn,
            access: RemoteAccess::ALL,
            max_dest_rd_atomic: resources[own],
            max_rd_atomic: rng.range(1, u64::from(resources[1 - own])) as u8,
            min_rnr_timer: rng.range(1, 12) as u8,
            timeout: Some(timeout(rng, faults)),
            // With a fault the peer may be gone for good: then the requester has to notice.
            retry: fault.then_some(7),
            rnr_retry: None,
        }
    };
    let (left, right) = (end(0), end(1));
    let requests = [rng.range(1, 40) as usize, rng.below(40) as usize];
    PairPlan { left, right, mtu, requests, fault }
}

/// A few round trips, as an administrator would choose.
fn timeout(rng: &mut Rng, faults: &Faults) -> Nanos {
    (faults.latency + faults.jitter + faults.spacing * 16) * rng.range(4, 16)
}
