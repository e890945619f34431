//! One direction of a connection: random requests, and what must come of each.
//!
//! Owns the model of the responder's memory. All of it is decided before the run, so that receive requests can be given
//! exactly the room they need. Peers' memory is laid out alike everywhere:
//!
//! ```text
//! guard │ written: any WRITE, some READs │ guard │ constant: READs │ guard │ counters: atomics │ guard
//! ```

use ibex_wire::{Mtu, Rkey};

use super::Rng;
use super::host::{BASE, MemHost};
use crate::{RemoteAccess, SendOp, SendWqe, WcOpcode, WcStatus};

/// Untouched bytes between areas.
const GUARD: usize = 64;
/// The longest message, and each big area's size: sixteen packets of the largest MTU, 256 of the smallest.
const AREA: usize = 1 << 16;
const COUNTERS: usize = 8;
const WRITTEN_AT: usize = GUARD;
const CONSTANT_AT: usize = WRITTEN_AT + AREA + GUARD;
const COUNTERS_AT: usize = CONSTANT_AT + AREA + GUARD;
/// Bytes of memory an endpoint needs.
pub(super) const MEMORY: usize = COUNTERS_AT + COUNTERS * 8 + GUARD;

const WRITTEN: Rkey = Rkey(0x100);
const CONSTANT: Rkey = Rkey(0x200);
const ATOMIC: Rkey = Rkey(0x300);
/// Keys from here on exist to be invalidated.
const DOOMED: u32 = 0x1000;

/// A request, and what must come of it.
pub(super) struct Request {
    pub(super) wqe: SendWqe,
    /// Payload, or room for what is read.
    pub(super) buffer: Vec<u8>,
    /// What `buffer` must hold afterwards (READ, atomics).
    pub(super) result: Option<Vec<u8>>,
    /// Makes this request fail, and how.
    pub(super) sabotage: Option<Sabotage>,
}

/// What the receiver must be told.
pub(super) struct Incoming {
    pub(super) opcode: WcOpcode,
    pub(super) len: u32,
    pub(super) imm: Option<[u8; 4]>,
    pub(super) invalidated: Option<Rkey>,
    pub(super) solicited: bool,
    /// What must be in the receive buffer (SEND).
    pub(super) payload: Option<Vec<u8>>,
    /// Room of the receive request.
    pub(super) room: usize,
    /// The send request it belongs to.
    pub(super) request: usize,
}

/// How a request is made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sabotage {
    /// A key that does not exist.
    BadKey,
    /// A range that leaves its region.
    OutOfBounds,
    /// An atomic at an odd address.
    Unaligned,
    /// A receive request that is one byte too short.
    ShortRecv,
    /// The gather list fails at the last packet.
    Gather,
    /// The scatter list fails.
    Scatter,
    /// The receive request's memory fails.
    Place,
    /// The responder's device fails while it reads.
    ReadFails,
    /// Longer than a message may be.
    TooLong,
}

impl Sabotage {
    /// The status of the sabotaged request.
    pub(super) fn status(self) -> WcStatus {
        match self {
            Sabotage::BadKey | Sabotage::OutOfBounds => WcStatus::REM_ACCESS_ERR,
            Sabotage::Unaligned | Sabotage::ShortRecv => WcStatus::REM_INV_REQ_ERR,
            Sabotage::Gather | Sabotage::Scatter => WcStatus::LOC_PROT_ERR,
            Sabotage::Place | Sabotage::ReadFails => WcStatus::REM_OP_ERR,
            Sabotage::TooLong => WcStatus::LOC_LEN_ERR,
        }
    }
}

/// Everything one side will ask of the other.
pub(super) struct Traffic {
    pub(super) requests: Vec<Request>,
    pub(super) incoming: Vec<Incoming>,
    /// The area of WRITEs, as it must be after all requests.
    written: Vec<u8>,
    counters: [u64; COUNTERS],
    constant: Vec<u8>,
    doomed: Vec<Rkey>,
}

impl Traffic {
    /// Draws `count` requests; with `fault`, one of them fails.
    pub(super) fn draw(rng: &mut Rng, mtu: Mtu, count: usize, fault: bool) -> Traffic {
        let mut traffic = Traffic {
            requests: Vec::new(),
            incoming: Vec::new(),
            written: vec![0; AREA],
            counters: [0; COUNTERS],
            constant: rng.bytes(AREA),
            doomed: Vec::new(),
        };
        let mut unfenced_reads: Vec<(usize, usize)> = Vec::new();
        for _ in 0..count {
            traffic.draw_request(rng, mtu, &mut unfenced_reads);
        }
        if fault && count > 0 {
            let victim = rng.below(count as u64) as usize;
            traffic.sabotage(rng, victim);
        }
        traffic
    }

    /// Prepares the responder's memory and keys.
    pub(super) fn prepare(&self, host: &mut MemHost) {
        let (area, counters) = (AREA as u64, COUNTERS as u64 * 8);
        host.memory[CONSTANT_AT..CONSTANT_AT + AREA].copy_from_slice(&self.constant);
        host.expose(WRITTEN, WRITTEN_AT as u64, area, RemoteAccess::WRITE | RemoteAccess::READ);
        host.expose(CONSTANT, CONSTANT_AT as u64, area, RemoteAccess::READ);
        host.expose(ATOMIC, COUNTERS_AT as u64, counters, RemoteAccess::ATOMIC);
        for rkey in &self.doomed {
            host.expose(*rkey, 0, 8, RemoteAccess::NONE);
        }
    }

    /// Compares the responder's memory with the model. `complete` if every request was executed.
    pub(super) fn check_memory(&self, host: &MemHost, complete: bool) -> Result<(), String> {
        let memory = &host.memory;
        let area = |at: usize, len: usize| &memory[at..at + len];
        let guards = [WRITTEN_AT - GUARD, CONSTANT_AT - GUARD, COUNTERS_AT - GUARD, MEMORY - GUARD];
        if guards.iter().any(|at| area(*at, GUARD).iter().any(|byte| *byte != 0)) {
            return Err("bytes beside the regions have changed".into());
        }
        if area(CONSTANT_AT, AREA) != self.constant {
            return Err("memory without the right to write has changed".into());
        }
        if !complete {
            return Ok(());
        }
        if area(WRITTEN_AT, AREA) != self.written {
            return Err("written memory differs from the model".into());
        }
        let counters: Vec<u8> = self.counters.iter().flat_map(|counter| counter.to_ne_bytes()).collect();
        if area(COUNTERS_AT, COUNTERS * 8) != counters {
            return Err("an atomic was lost or executed twice".into());
        }
        if host.regions.iter().any(|region| region.valid && self.doomed.contains(&region.rkey)) {
            return Err("an invalidated key still works".into());
        }
        Ok(())
    }

    fn draw_request(&mut self, rng: &mut Rng, mtu: Mtu, unfenced_reads: &mut Vec<(usize, usize)>) {
        let len = draw_len(rng, mtu);
        let imm = rng.one_in(3).then(|| (rng.bits() as u32).to_le_bytes());
        let mut fence = rng.one_in(8);
        let solicited = rng.one_in(4);
        let (op, buffer, result) = match rng.below(10) {
            0..=2 => {
                let doomed = imm.is_none() && rng.one_in(4);
                let inv = doomed.then(|| Rkey(DOOMED + self.doomed.len() as u32));
                self.doomed.extend(inv);
                let payload = rng.bytes(len);
                self.expect(rng, WcOpcode::RECV, len, imm, inv, solicited, Some(payload.clone()));
                (SendOp::Send { imm, inv }, payload, None)
            }
            3..=5 => {
                let at = rng.below((AREA - len) as u64 + 1) as usize;
                // Without a fence a READ may see what a later WRITE stores: the model could not say what is right.
                fence |= unfenced_reads.iter().any(|(from, to)| at < *to && *from < at + len);
                let payload = rng.bytes(len);
                self.written[at..at + len].copy_from_slice(&payload);
                if imm.is_some() {
                    self.expect(rng, WcOpcode::RECV_RDMA_WITH_IMM, len, imm, None, solicited, None);
                }
                (SendOp::Write { rkey: WRITTEN, va: BASE + (WRITTEN_AT + at) as u64, imm }, payload, None)
            }
            6 | 7 => {
                let at = rng.below((AREA - len) as u64 + 1) as usize;
                let (rkey, area_at, source) = if rng.one_in(2) {
                    unfenced_reads.push((at, at + len));
                    (WRITTEN, WRITTEN_AT, &self.written)
                } else {
                    (CONSTANT, CONSTANT_AT, &self.constant)
                };
                let result = source[at..at + len].to_vec();
                (SendOp::Read { rkey, va: BASE + (area_at + at) as u64 }, vec![0xdd; len], Some(result))
            }
            kind => {
                let index = rng.below(COUNTERS as u64) as usize;
                let va = BASE + (COUNTERS_AT + index * 8) as u64;
                let counter = &mut self.counters[index];
                let original = *counter;
                let op = if kind == 8 {
                    let add = rng.bits();
                    *counter = counter.wrapping_add(add);
                    SendOp::FetchAdd { rkey: ATOMIC, va, add }
                } else {
                    let swap = rng.bits();
                    let compare = if rng.one_in(2) { original } else { original.wrapping_add(1) };
                    if compare == original {
                        *counter = swap;
                    }
                    SendOp::CompareSwap { rkey: ATOMIC, va, compare, swap }
                };
                (op, vec![0xdd; 8], Some(original.to_ne_bytes().to_vec()))
            }
        };
        if fence {
            // Earlier READs have their data before this starts. One that is itself a READ is not covered by its own.
            let own =
                matches!(op, SendOp::Read { rkey: WRITTEN, .. }).then(|| unfenced_reads.pop()).flatten();
            unfenced_reads.clear();
            unfenced_reads.extend(own);
        }
        let wqe =
            SendWqe { cookie: 0, op, len: buffer.len() as u32, signaled: !rng.one_in(3), fence, solicited };
        self.requests.push(Request { wqe, buffer, result, sabotage: None });
    }

    #[expect(clippy::too_many_arguments, reason = "one row of a table, with one caller per kind of row")]
    fn expect(
        &mut self,
        rng: &mut Rng,
        opcode: WcOpcode,
        len: usize,
        imm: Option<[u8; 4]>,
        invalidated: Option<Rkey>,
        solicited: bool,
        payload: Option<Vec<u8>>,
    ) {
        let room = if payload.is_some() { len + rng.below(3) as usize * 7 } else { 0 };
        let request = self.requests.len();
        let len = len as u32;
        self.incoming.push(Incoming { opcode, len, imm, invalidated, solicited, payload, room, request });
    }

    /// Makes request `victim` fail.
    fn sabotage(&mut self, rng: &mut Rng, victim: usize) {
        let request = &mut self.requests[victim];
        let len = request.buffer.len();
        let bad_key = Rkey(0xbad);
        let choices: &[Sabotage] = match request.wqe.op {
            SendOp::Send { .. } if len > 0 => &[Sabotage::ShortRecv, Sabotage::Gather, Sabotage::Place],
            SendOp::Write { .. } if len > 0 => &[Sabotage::BadKey, Sabotage::OutOfBounds, Sabotage::Gather],
            SendOp::Read { .. } if len > 0 => {
                &[Sabotage::BadKey, Sabotage::OutOfBounds, Sabotage::Scatter, Sabotage::ReadFails]
            }
            SendOp::CompareSwap { .. } | SendOp::FetchAdd { .. } => {
                &[Sabotage::BadKey, Sabotage::Unaligned, Sabotage::OutOfBounds, Sabotage::Scatter]
            }
            _ => &[Sabotage::TooLong],
        };
        let sabotage = rng.pick(choices);
        request.sabotage = Some(sabotage);
        match (&mut request.wqe.op, sabotage) {
            (
                SendOp::Write { rkey, .. }
                | SendOp::Read { rkey, .. }
                | SendOp::CompareSwap { rkey, .. }
                | SendOp::FetchAdd { rkey, .. },
                Sabotage::BadKey,
            ) => *rkey = bad_key,
            (SendOp::Write { va, .. } | SendOp::Read { va, .. }, Sabotage::OutOfBounds) => {
                *va = BASE + (WRITTEN_AT + AREA - len) as u64 + 1;
                if let SendOp::Read { rkey, .. } | SendOp::Write { rkey, .. } = &mut request.wqe.op {
                    *rkey = WRITTEN;
                }
            }
            (SendOp::CompareSwap { va, .. } | SendOp::FetchAdd { va, .. }, Sabotage::OutOfBounds) => {
                *va = BASE + (COUNTERS_AT + COUNTERS * 8) as u64
            }
            (SendOp::CompareSwap { va, .. } | SendOp::FetchAdd { va, .. }, Sabotage::Unaligned) => *va += 4,
            (_, Sabotage::TooLong) => request.wqe.len = crate::MAX_MESSAGE + 1,
            (_, Sabotage::ShortRecv) => {
                if let Some(incoming) = self.incoming.iter_mut().find(|incoming| incoming.request == victim) {
                    incoming.room = len - 1;
                }
            }
            _ => {}
        }
    }
}

/// Lengths around packet boundaries, short ones, and a few long ones.
fn draw_len(rng: &mut Rng, mtu: Mtu) -> usize {
    let mtu = mtu.bytes() as u64;
    let len = match rng.below(10) {
        0 => 0,
        1 => 1,
        2 => mtu * rng.range(1, 4) - 1,
        3 => mtu * rng.range(1, 4),
        4 => mtu * rng.range(1, 4) + 1,
        5..=7 => rng.below(128),
        8 => rng.below(mtu * 8),
        _ => rng.below(mtu * 48),
    };
    (len as usize).min(AREA)
}
